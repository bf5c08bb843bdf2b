"""One price file as one typed table: which provider wrote it, what its columns are, which of its rows are stocks."""

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import pandas as pd

from vnq_colab.data import cells
from vnq_colab.data.cells import NEEDED, NUMBERS, OPTIONAL, PRICES, days_of, distinct, numbers_of, refuse_too_many
from vnq_colab.data.findings import FileFacts
from vnq_colab.errors import DataError, RowError, did_you_mean, name_a_few


@dataclass(frozen=True)
class Provider:
    """How one provider writes its files."""

    name: str
    header: str = ""  # how its header begins, in lower case, joined by commas
    unit: str = ""  # where the level of the prices fits both: "VND" or "kVND"; "" is not known
    day_first: bool = False  # 03/04/2021 is the third of April
    adjusted: bool | None = True  # for splits and dividends; None is not known


PROVIDERS = (
    Provider("AmiBroker", "<ticker>,<dtyyyymmdd>,<openfixed>,<highfixed>,<lowfixed>,<closefixed>", "kVND"),
    Provider("CafeF", "<ticker>,<dtyyyymmdd>,<open>,<high>,<low>,<close>", "kVND"),
    Provider("Yahoo", "date,open,high,low,close,adj close,volume", "VND", adjusted=None),
    Provider("VNDirect", "date,high,low,open,close,volume,adj close", "VND", day_first=True),
    Provider("cophieu68", "date,close,volume,open,high,low", "kVND", day_first=True),
    Provider("vnstock", "time,open,high,low,close", "kVND"),
)
OWN = Provider("price table")
YAHOO = PROVIDERS[2]
UNKNOWN = Provider("by its headers", adjusted=None)

# ours: what others call it, without accents, case and punctuation; of several in one file the first here counts
SYNONYMS = {
    "symbol": "symbol ticker code stockcode stocksymbol ma mack machungkhoan macp macophieu stock",
    "date": "date tradingdate tradedate dtyyyymmdd ngay ngaygiaodich ngaygd datetime time timestamp day thoigian",
    "open": "open openfixed priceopen openprice giamocua mocua giamo mo",
    "high": "high highfixed pricehigh highprice highestprice giacaonhat caonhat giacao cao",
    "low": "low lowfixed pricelow lowprice lowestprice giathapnhat thapnhat giathap thap",
    "close": "close closefixed priceclose closeprice giadongcua dongcua giadong lastprice price lancuoi",
    "adj_close": "adjclose adjustedclose closeadj closeadjusted giadieuchinh giadongcuadieuchinh",
    "raw_close": "rawclose closeraw unadjustedclose",
    "volume": "volume vol khoiluong kl klgd khoiluonggd khoiluonggiaodich khoiluongkhoplenh klkhoplenh totalvolume",
    "exchange": "exchange san sangiaodich floor market",
}
FORMS_OF_SYMBOLS = {  # what is no stock, by its symbol
    "warrant": r"C[A-Z][A-Z0-9]{2}\d{4}",
    "fund": r"FU[EC][A-Z0-9]{3,}|E1(?:VFVN30|SSHN30)",
    "future": r"VN(?:30|100)F[A-Z0-9]{2,}|GB(?:05|10)F[A-Z0-9]{2,}|41[A-Z0-9]{5,}",
    "bond": r"[A-Z]{3}\d{5,6}",
    "index": r"HNX|\^?(?:VN-?[A-Z0-9]{2,}(?:-?INDEX)?|(?:HNX|UPCOM|UP|HASTC)-?INDEX|(?:HNX|HASTC|UPCOM)[A-Z0-9]*)",
}
INDEX_NAMES = {"HNX": "HNXINDEX", "HASTC": "HNXINDEX", "HASTCINDEX": "HNXINDEX", "UPCOM": "UPCOMINDEX",
               "UPINDEX": "UPCOMINDEX"}
SYMBOL = r"\^?[A-Z0-9][A-Z0-9._-]{0,19}"  # it becomes part of file names
NO_TICKERS = {"RAW", "TXT", "ALL", "NEW", "OLD", "ADJ", "HSX", "HNX", "DAY", "GIA", "USD"}  # in the names of files
MOST_SYMBOLS = 20_000
MOST_UNREADABLE, MOST_WEEKENDS, MOST_IMPOSSIBLE = 0.05, 0.05, 0.3  # [fraction of the rows] real files: 0.01, 0, 0.12


@dataclass
class PriceFile:
    """One file as read: prices in the file's own unit, indices in points."""

    path: str  # as an error names it
    provider: Provider
    facts: FileFacts
    prices: pd.DataFrame  # NEEDED; perhaps adj_close, raw_close, exchange; unadjusted, True, where they are
    index: pd.DataFrame  # symbol, date, close


def read_file(data: bytes, name: str, path: str, *, index: str = "", strict: bool = True,
              most_rows: int = cells.MOST_ROWS) -> PriceFile:
    """The rows of one file, and what it was taken for; a table without symbols is that of the index named `index`.

    `strict`: of a table of our own columns each row is read. Raises DataError when it is no table of daily prices.
    """
    if data[:4] == b"\xd0\xcf\x11\xe0" or (data[:4] == b"PK\x03\x04" and b"xl/" in data):
        raise DataError(f"{path}: is an Excel file. Open it in Excel and save the sheet as CSV.")
    table, matched, provider, n_misfits = (_parquet if data[:4] == b"PAR1" else _text)(data, path, most_rows)
    strict = strict and provider == OWN
    if table.empty and (strict or not n_misfits):
        raise DataError(f"{path}: there are no rows below the header. Download it again.")
    rows, dropped = typed_rows(table, path, strict=strict, day_first=provider.day_first, n_misfits=n_misfits)
    refuse_other_bars(rows, path)
    if "symbol" not in rows:
        rows["symbol"] = index or _symbol_of(name, path, list(matched.values()))
    member = re.search(r"(?:^|[._/])(?:RAW_)?(HSX|HOSE|HNX|UPCOM|INDEX)[._]", name, re.IGNORECASE)
    place = member[1].upper().replace("HSX", "HOSE") if member and provider.name == "CafeF" else ""
    unadjusted = provider.name == "CafeF" and bool(re.search(r"RAW_|\.Raw\.", name, re.IGNORECASE))
    codes, symbols = pd.factorize(rows["symbol"])
    kinds = np.array(["index" if index or place == "INDEX" else kind_of(symbol) for symbol in symbols], object)[codes]
    stocks = kinds == "stock"
    if stocks.any():
        _require_columns([*matched, "symbol"], list(matched.values()), path)
        _refuse_implausible(rows[stocks], path)
    indices = rows.loc[kinds == "index", ["symbol", "date", "close"]]
    indices = indices.assign(symbol=indices["symbol"].map(index_name))
    prices = rows if stocks.all() else rows[stocks]
    if unadjusted:
        prices = prices.assign(raw_close=prices["close"], unadjusted=True)
    if place in ("HOSE", "HNX", "UPCOM"):
        prices = prices.assign(exchange=place)
    days = (prices if len(prices) else indices if len(indices) else rows)["date"]
    facts = FileFacts(name, provider.name, "" if len(prices) else "points", provider.adjusted and not unadjusted,
                      len(prices), f"{days.min():%Y-%m-%d}", f"{days.max():%Y-%m-%d}", matched,
                      dict(Counter(kinds[~stocks].tolist())), dropped)
    return PriceFile(path, provider, facts, prices.reset_index(drop=True), indices)


# ------------------------------------------------------------------------------------------------ headers and columns
def match_columns(header: list[str], path: str) -> dict[str, str]:
    """{ours: the file's own header}, by synonyms. Raises DataError when there is no date or close, or one twice."""
    lowered = [name.strip().lower() for name in header]
    if twice := [ours for ours in NEEDED + OPTIONAL if lowered.count(ours) > 1]:
        raise DataError(f"{path}: column {twice[0]} stands twice in the table. Remove one of them.")
    theirs = dict(zip(map(_bare, reversed(header)), reversed(header), strict=True))
    headers = {ours: [theirs[name] for name in names.split() if name in theirs] for ours, names in SYNONYMS.items()}
    matched = {ours: names[0] for ours, names in headers.items() if names}
    if "date" not in matched or "close" not in matched:
        _require_columns(matched, header, path)
    return matched


def _require_columns(matched: Iterable[str], header: list[str], path: str) -> None:
    """Raises a DataError that names the missing columns, what was seen and what is known."""
    if missing := [name for name in NEEDED if name not in matched]:
        named = f"column {missing[0]} is" if len(missing) == 1 else f"columns {', '.join(missing)} are"
        hint = did_you_mean(missing[0], [name for name in header if name.strip().lower() not in NEEDED + OPTIONAL])
        raise DataError(f"{path}: {named} missing; found {name_a_few([name[:40] for name in header], 12)}."
                        f"{hint if 'mean' in hint else ''} Known are files of "
                        f"{', '.join(provider.name for provider in PROVIDERS)}, and tables of {', '.join(NEEDED)}.")


def _bare(header: str) -> str:
    """ "Giá đóng cửa" and "<GiaDongCua>" are both giadongcua."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", header.lower().replace("đ", "d")))


def _provider_of(header: list[str]) -> Provider:
    lowered = [name.strip().lower() for name in header]
    if set(NEEDED) <= set(lowered):
        return OWN
    line = ",".join(lowered).removeprefix(",")  # pandas writes its index as a column without a name
    return next((provider for provider in PROVIDERS if line.startswith(provider.header)), UNKNOWN)


def _parquet(data: bytes, path: str, most_rows: int) -> tuple[pd.DataFrame, dict[str, str], Provider, int]:
    table, matched, header = cells.read_parquet(data, lambda header: match_columns(header, path), path, most_rows)
    return table, matched, _provider_of(header), 0


def _text(data: bytes, path: str, most_rows: int) -> tuple[pd.DataFrame, dict[str, str], Provider, int]:
    text = cells.text_of(data, path)
    header, delimiter, body = cells.header_of(text, path)
    refuse_too_many(text.count(b"\n") - 1, most_rows, path)
    below = bytes(body[:20]).decode(errors="ignore").partition(delimiter)[0]
    if {_bare(header[0]), _bare(below)} == {"price", "ticker"}:
        refuse_too_many(text.count(delimiter.encode()), most_rows, path, "cells")
        return _yahoo(text, delimiter, path)
    matched = match_columns(header, path)
    if not body:
        raise DataError(f"{path}: there are no rows below the header. Download it again.")
    places = {ours: header.index(theirs) for ours, theirs in matched.items()}
    table, n_misfits = cells.read_csv(body, delimiter, len(header), places, path)
    return table, matched, _provider_of(header), n_misfits


def _yahoo(text: bytes, delimiter: str, path: str) -> tuple[pd.DataFrame, dict[str, str], Provider, int]:
    """Yahoo's three header lines (fields, tickers, Date), several tickers side by side, as a row per ticker and day."""
    try:
        wide = pd.read_csv(io.BytesIO(text), sep=delimiter, header=[0, 1], index_col=0, dtype=str)
        table = wide.stack("Ticker", future_stack=True).reset_index()
        if wide.columns.get_level_values("Ticker").nunique() > 1:
            table = table[table["Close"].notna()]  # the other days are those of the other tickers
    except Exception as error:  # what pandas raises on damaged text
        raise cells.unreadable(path, error) from None
    matched = match_columns([str(name) for name in table.columns], path)
    return table[list(matched.values())].set_axis([*matched], axis=1), matched, YAHOO, 0


# --------------------------------------------------------------------------------------------------------------- rows
def typed_rows(table: pd.DataFrame, path: str, *, strict: bool, day_first: bool = False, n_misfits: int = 0,
               ) -> tuple[pd.DataFrame, dict[str, int]]:
    """(rows with typed columns, {why: how many were left out}); `table` has our names for its columns.

    Raises DataError for the first row that cannot be read where `strict`, else for more than 5 % of them.
    """
    typed, unreadable = {}, []  # (reason, column, what was expected, rows)
    if "symbol" in table:
        codes, texts = distinct(table["symbol"])
        refuse_too_many(len(texts), MOST_SYMBOLS, path, "different symbols")
        texts = texts.str.upper().str.replace(r"\.(?:VN|HM|HN)$", "", regex=True)
        typed["symbol"] = np.append(texts, "")[codes].astype(object)
        bad = ~np.append(texts.str.fullmatch(SYMBOL), False)[codes].astype(bool)
        unreadable.append(("symbol missing or unreadable", "symbol", "letters and digits such as FPT", bad))
    typed["date"] = days = days_of(table["date"], path, day_first=day_first)
    unreadable.append(("date unreadable or in the future", "date", "a past date such as 2021-03-15", np.isnat(days)))
    values, no_numbers = numbers_of({name: table[name] for name in NUMBERS if name in table}, path)
    typed |= {name: values[name] for name in NUMBERS if name in table}
    unreadable += [("number unreadable", name, "a number", bad) for name, bad in no_numbers.items()]
    if "exchange" in table:
        codes, texts = distinct(table["exchange"])
        typed["exchange"] = np.append(texts.str.upper(), "")[codes]
    dropped, lost = Counter({"wrong number of fields": n_misfits}), np.zeros(len(table), dtype=bool)
    for reason, name, expected, bad in unreadable:
        if strict and bad.any():
            cell = table[name].iloc[int(bad.argmax())]
            more = f" (and {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
            raise RowError(f"{path}: row {bad.argmax() + 2}: {name} is {'missing' if pd.isna(cell) else repr(cell)}, "
                            f"not {expected}{more}. Repair the file.")
        dropped[reason] += int((bad & ~lost).sum())
        lost |= bad
    dropped = dict(+dropped)  # without the reasons that did not occur
    n_dropped, n_rows = sum(dropped.values()), len(table) + n_misfits
    if n_dropped > (0 if strict else MOST_UNREADABLE * n_rows) or lost.all():
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in dropped.items())
        raise DataError(f"{path}: {n_dropped:,} of {n_rows:,} rows cannot be read ({reasons}). Download it again, or "
                        "take it out of the folder.")
    rows = pd.DataFrame(typed)
    return rows[~lost] if lost.any() else rows, dropped


def refuse_other_bars(rows: pd.DataFrame, path: str) -> None:
    """Raises a DataError when most days have several rows of a symbol, or many are Saturdays and Sundays."""
    keys = [name for name in ("symbol", "date") if name in rows]
    n_days = len(rows.drop_duplicates(keys))
    if len(rows) > 1.5 * n_days and len(rows.drop_duplicates([*keys, "close"])) > 1.5 * n_days:
        raise DataError(f"{path}: holds {len(rows):,} rows for {n_days:,} days: intraday data, or "
                        "several stocks without a column symbol. Bring one row per stock and day.")
    weekends = (rows["date"].dt.day_of_week > 4).mean()
    if len(rows) >= 20 and weekends > MOST_WEEKENDS:
        raise DataError(f"{path}: {weekends:.0%} of the dates are Saturdays and Sundays: off by a day, or day and "
                        "month swapped. Write days such as 2021-03-15.")


def _refuse_implausible(rows: pd.DataFrame, path: str) -> None:
    """Raises a DataError when a column holds no prices, or open and close often lie outside [low, high]."""
    prices = rows[list(PRICES)]
    empty = [name for name in PRICES if (prices[name] > 0).mean() < 0.02]
    traded = prices[(prices > 0).all(axis=1)]
    outside = (traded.max(axis=1) > 1.0001 * traded["high"]) | (traded.min(axis=1) < 0.9999 * traded["low"])
    outside |= traded["high"] > 2 * traded["low"]
    if len(rows) >= 3 and (empty or outside.mean() > MOST_IMPOSSIBLE):
        flaw = f"column {empty[0]} holds no prices" if empty else (
            f"in {outside.mean():.0%} of the rows open or close lie outside [low, high], or these far apart")
        raise DataError(f"{path}: {flaw}: the columns seem to be swapped. Put the right headers above them.")


def kind_of(symbol: str) -> str:
    """ "stock", "warrant", "fund", "future", "bond" or "index"; a stock's symbol has three letters, mostly."""
    return next((kind for kind, form in FORMS_OF_SYMBOLS.items() if re.fullmatch(form, symbol)), "stock")


def index_name(symbol: str) -> str:
    """One name for each index: HNX-INDEX is HNXINDEX."""
    bare = symbol.replace("-", "").replace("^", "")
    return INDEX_NAMES.get(bare, bare)


def _symbol_of(name: str, path: str, headers: list[str]) -> str:
    """The stock that a file's name names: FPT of FPT.csv, excel_fpt.csv, FPT_daily.csv."""
    stem = PurePath(name).name.partition(".")[0]
    tokens = {token for token in (stem, *re.split(r"[^A-Za-z0-9]+", stem)) if token.upper() not in NO_TICKERS}
    tickers = {token for token in tokens if kind_of(token.upper()) != "stock"
               or re.fullmatch(r"[A-Z][A-Z0-9]{2}|SYN\d{3,}", token.upper())}
    named = {token.upper() for token in tickers if token.isupper() or len(tickers) == 1}
    if len(named) != 1:
        raise DataError(f"{path}: column symbol is missing; found {name_a_few(headers, 12)}. Add it, or name the file "
                        "after its stock, such as FPT.csv.")
    return named.pop()
