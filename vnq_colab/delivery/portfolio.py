"""The portfolio: what a person holds, from when it can be sold, and the cash; a CSV file that the person keeps."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vnq_colab.data.cells import text_of
from vnq_colab.data.market import next_sessions
from vnq_colab.errors import ConfigError, DataError, StorageError, did_you_mean, shorten
from vnq_colab.files import read_bytes

CASH = "CASH"
COLUMNS = ("symbol", "shares", "sellable_from")
HEADER = ",".join(COLUMNS) + "\n"
CAPITAL = 1e9  # [VND] of a portfolio that is only on paper: what the basket was judged with
MOST = 1e15  # [VND] or shares: beyond the whole market
MOST_BYTES = 10**6  # of its file
THOUSANDS = r"\d{1,3}([.,]\d{3})+"
DAY_FIRST = r"^(\d{1,2})/(\d{1,2})/(\d{4})$"
LATEST_SESSIONS = 3  # after the last price day: what was bought then has arrived on the second


@dataclass(frozen=True)
class Portfolio:
    """Shares by symbol, the day on which they arrive (None: they can be sold), and cash [VND]."""

    cash: float  # [VND]
    shares: dict[str, int]  # [shares]
    sellable_from: dict[str, pd.Timestamp | None]
    source: str


def paper_portfolio(capital: float | None = None) -> Portfolio:
    """Cash alone, on paper: `capital`, or a billion [VND]."""
    capital = CAPITAL if capital is None else capital
    if not 1 <= capital <= MOST:
        raise ConfigError(f"capital = {capital:g}: must lie between 1 and {MOST:g} VND.")
    return Portfolio(float(int(capital)), {}, {}, f"a paper portfolio of {int(capital):,} VND")


def portfolio_text(portfolio: Portfolio) -> str:
    """The portfolio's file: a row for each stock that is held, and the cash."""
    rows = [f"{symbol},{shares}," + (f"{day:%Y-%m-%d}" if (day := portfolio.sellable_from.get(symbol)) else "")
            for symbol, shares in portfolio.shares.items() if shares]
    return HEADER + "\n".join([*rows, f"{CASH},{portfolio.cash:.0f},\n"])


def read_portfolio(path: "str | Path", prices: pd.DataFrame) -> Portfolio:
    """The portfolio in a CSV file, checked against a price table. Raises DataError: file, row, column, trouble."""
    table = _cells(path)
    symbol, text, day = (table[name].str.strip() for name in COLUMNS)
    symbol, amount = symbol.str.upper(), pd.to_numeric(text, errors="coerce").astype("float64")
    is_cash, known, last = symbol == CASH, sorted(prices["symbol"].unique()), prices["date"].max()
    arrives = day.where(~is_cash, "").replace(DAY_FIRST, r"\3-\2-\1", regex=True)  # as Excel writes it in Vietnam
    arrives = pd.to_datetime(arrives, format="%Y-%m-%d", errors="coerce")
    arrives = arrives.where(arrives.between("1990-01-01", "2199-12-31"))
    latest = next_sessions(last, LATEST_SESSIONS)[-1]
    for name, bad, sentence in (
            ("symbol", symbol.duplicated(), "stands there twice; write one row for it."),
            ("symbol", ~is_cash & ~symbol.isin(known), "is not in these prices; bring them, or take the row out."),
            ("shares", ~np.isfinite(amount) | text.str.fullmatch(THOUSANDS), "not a number; write 2100, not 2.100."),
            ("shares", amount < 0, "negative: nothing can be sold short, and no cash is borrowed; write 0 or more."),
            ("shares", amount > MOST, "more than the whole market; correct it."),
            ("shares", ~is_cash & (amount % 1 > 0), "a fraction of a share; write whole shares."),
            (COLUMNS[2], ~is_cash & (day != "") & arrives.isna(), "not a date; write it as 2026-01-31 or 31/01/2026."),
            (COLUMNS[2], arrives > latest, f"later than {latest:%Y-%m-%d}, {LATEST_SESSIONS} sessions after the last "
                                           f"prices ({last:%Y-%m-%d}); bring newer prices, or correct the day.")):
        if bad.any():
            row = bad.idxmax()
            hint = did_you_mean(symbol[row], known) if "not in these prices" in sentence else ""
            raise DataError(f"{path}, row {row} ({shorten(','.join(table.loc[row]))[1:-1]}), {name}: {sentence}{hint}")
    if not is_cash.any():
        raise DataError(f"{path}: there is no row {CASH}. Add one with your cash in VND, such as {CASH},500000000, "
                        "at its end.")
    rows = list(zip(symbol[~is_cash], amount[~is_cash].astype(int), arrives[~is_cash], strict=True))
    return Portfolio(float(amount[is_cash].iloc[0] // 1), {name: shares for name, shares, _ in rows},
                     {name: None if pd.isna(day) else day for name, _, day in rows}, str(path))


def _cells(path: "str | Path") -> pd.DataFrame:
    """The columns of a portfolio file as texts, by the lines of the file; as Excel writes them, too."""
    needs = f"It must be a CSV file of {', '.join(COLUMNS)}, such as --portfolio new --capital 500e6 makes."
    try:
        lines = text_of(data := read_bytes(path, MOST_BYTES), str(path)).decode().split("\n")
    except FileNotFoundError:
        raise DataError(f"{str(path)!r}: there is no such file. {needs}") from None
    except StorageError as error:
        raise DataError(f"{error} {needs}") from None
    except DataError:
        what = "a workbook of Excel: save it as CSV there" if data.startswith(b"PK") else "empty, or no text"
        raise DataError(f"{path}: is {what}. {needs}") from None
    reader = csv.reader(lines, delimiter=max(",;\t", key=lines[0].count), strict=True)
    try:
        header, *rows = ([reader.line_num, *row] for row in reader if any(cell.strip() for cell in row))
    except csv.Error:
        raise DataError(f"{path}: a quotation mark is not closed, or stands inside a cell. {needs}") from None
    names = [name.strip().lower() for name in header[1:]]
    if wrong := [name for name in COLUMNS if names.count(name) != 1]:
        state = "is missing" if wrong[0] not in names else "stands there twice"
        raise DataError(f"{path}: column {', '.join(wrong)} {state}; found {', '.join(names)}. {needs}")
    for number, *row in rows:
        if any(row[len(names):]):
            raise DataError(f"{path}, row {number} ({shorten(','.join(row))[1:-1]}): {len(row)} cells under "
                            f"{len(names)} columns; write numbers without thousands marks, as 500000000.")
    return pd.DataFrame([(row[1:] + [""] * len(names))[:len(names)] for row in rows], columns=names, dtype=str,
                        index=[row[0] for row in rows])
