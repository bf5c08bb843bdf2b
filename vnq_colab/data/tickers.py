"""What a symbol is: a stock, or a warrant, a fund, a future, a bond, an index; and which stock a file's name names."""

import re
from collections.abc import Iterable
from pathlib import PurePath

from vnq_colab.errors import DataError, name_a_few

KINDS = {  # what is no stock, by its symbol
    "warrant": r"C[A-Z][A-Z0-9]{2}\d{4}",
    "fund": r"FU[EC][A-Z0-9]{3,}|E1(?:VFVN30|SSHN30)",
    "future": r"VN(?:30|100)F[A-Z0-9]{2,}|GB(?:05|10)F[A-Z0-9]{2,}|41[A-Z0-9]{5,}",
    "bond": r"[A-Z]{3}\d{5,6}",
    "index": r"\^?(?:VN-?[A-Z0-9]{2,}(?:-?INDEX)?|(?:HNX|UPCOM|UP|HASTC)-?INDEX|(?:HNX|HASTC|UPCOM)[A-Z0-9]*)",
}
INDEX_NAMES = {"HNX": "HNXINDEX", "HASTC": "HNXINDEX", "HASTCINDEX": "HNXINDEX", "UPCOM": "UPCOMINDEX",
               "UPINDEX": "UPCOMINDEX"}
NO_TICKERS = {"RAW", "TXT", "ALL", "NEW", "OLD", "ADJ", "HSX", "HNX", "DAY", "GIA", "USD"}  # in the names of files


def kinds_of(symbols: Iterable[str]) -> dict[str, str]:
    """{symbol: "stock", "warrant", "fund", "future", "bond" or "index"}."""
    return {symbol: next((kind for kind, form in KINDS.items() if len(symbol) > 3 and re.fullmatch(form, symbol)),
                         "index" if symbol == "HNX" else "stock") for symbol in symbols}


def index_name(symbol: str) -> str:
    """One name for each index: HNX-INDEX is HNXINDEX."""
    bare = symbol.replace("-", "").replace("^", "")
    return INDEX_NAMES.get(bare, bare)


def symbol_of(name: str, path: str, headers: list[str]) -> str:
    """The stock that a file's name names: FPT of FPT.csv, excel_fpt.csv, FPT_daily.csv."""
    stem = re.sub(r"(?:\.(?:csv|txt|gz|parquet))+$", "", PurePath(name).name, flags=re.IGNORECASE)
    tokens = {token for token in (stem, *re.split(r"[^A-Za-z0-9]+", stem)) if token.upper() not in NO_TICKERS}
    kinds = kinds_of(token.upper() for token in tokens)
    tickers = {token for token in tokens if kinds[token.upper()] != "stock"
               or re.fullmatch(r"[A-Z][A-Z0-9]{2}|SYN\d{3,}", token.upper())}
    named = {token.upper() for token in tickers if token.isupper() or len(tickers) == 1}
    if len(named) != 1:
        raise DataError(f"{path}: column symbol is missing; found {name_a_few(headers, 12)}; and the file's name does "
                        "not name one stock. Add the column, or name the file after its stock, such as FPT.csv.")
    return named.pop()
