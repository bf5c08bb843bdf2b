"""The portfolio: what a person holds, from when it can be sold, and the cash; a CSV file that the person keeps."""

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vnq_colab.data.market import next_sessions
from vnq_colab.data.splits import to_day
from vnq_colab.errors import ConfigError, DataError, did_you_mean
from vnq_colab.files import write_atomic

CASH = "CASH"
COLUMNS = ("symbol", "shares", "sellable_from")
PAPER_CAPITAL = 1e9  # [VND] of a portfolio that is only on paper: what the basket was judged with
MOST_CASH = 1e15  # [VND] and shares: beyond the whole market
LATEST_SESSIONS = 3  # after the last price day: what was bought then has arrived on the second


@dataclass(frozen=True)
class Portfolio:
    """Shares by symbol, the day on which they arrive (None: they can be sold), and cash [VND]."""

    cash: float  # [VND]
    shares: dict[str, int]  # [shares]
    sellable_from: dict[str, pd.Timestamp | None]
    source: str


def paper_portfolio(capital: float | None = None) -> Portfolio:
    """Cash alone, on paper."""
    capital = float(math.floor(PAPER_CAPITAL if capital is None else capital))
    if not 1 <= capital <= MOST_CASH:
        raise ConfigError(f"capital = {capital:,.0f}: must lie between 1 and {MOST_CASH:.0e} VND.")
    return Portfolio(capital, {}, {}, f"a paper portfolio of {capital:,.0f} VND")


def refuse_existing(path: Path) -> None:
    """Raises ConfigError where there is a portfolio."""
    if path.exists():
        raise ConfigError(f"{path}: there is a portfolio already, and it is not overwritten. Leave --portfolio out to "
                          "use it, or move it away first.")


def write_portfolio(path: Path, portfolio: Portfolio) -> None:
    """Writes a portfolio of cash alone. Raises ConfigError where there is a file already."""
    refuse_existing(path)
    text = f"{','.join(COLUMNS)}\n{CASH},{portfolio.cash:.0f},\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def read_portfolio(path: "str | Path", prices: pd.DataFrame) -> Portfolio:
    """The portfolio in a file, checked against a price table. Raises DataError: file, row, what is wrong there."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. Make one with --portfolio new --capital 500e6.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). It must be a CSV file with {', '.join(COLUMNS)}.") from None
    if not text.strip():
        raise DataError(f"{path}: the file is empty. Make one with --portfolio new --capital 500e6, in another place.")
    first = text.strip().splitlines()[0]
    rows = csv.DictReader(io.StringIO(text.strip()), delimiter=max(",;\t", key=first.count))
    rows.fieldnames = [name.strip().lower() for name in rows.fieldnames or []]
    missing = [name for name in COLUMNS if name not in rows.fieldnames]
    if missing:
        raise DataError(f"{path}: column {', '.join(missing)} is missing; found {', '.join(rows.fieldnames)}. It needs "
                        f"{', '.join(COLUMNS)}.")
    known, last = set(prices["symbol"].unique()), prices["date"].max()
    latest = next_sessions(last, LATEST_SESSIONS)[-1]
    found = Portfolio(math.nan, {}, {}, str(path))
    cash = None
    for number, row in enumerate(rows, 2):
        symbol, shares, day = ((row[name] or "").strip() for name in COLUMNS)
        where, symbol = f"{path}, row {number}", symbol.upper()
        amount = _amount(shares, f"{where}: {symbol or 'shares'}", is_cash=symbol == CASH)
        if symbol in found.shares or (symbol == CASH and cash is not None):
            raise DataError(f"{where}: {symbol} stands there twice. Write one row for it.")
        if symbol == CASH:
            cash = amount
            continue
        if symbol not in known:
            raise DataError(f"{where}: there are no prices of {symbol!r}.{did_you_mean(symbol, known)}")
        found.shares[symbol], found.sellable_from[symbol] = int(amount), _day(day, where, symbol, last, latest)
    if cash is None:
        raise DataError(f"{path}: there is no row {CASH}. Add one with your money in VND, such as {CASH},500000000, "
                        "at its end.")
    return Portfolio(cash, found.shares, found.sellable_from, str(path))


def _amount(text: str, where: str, is_cash: bool) -> float:
    """Whole shares, or the cash in whole VND, rounded down."""
    if re.fullmatch(r"\d{1,3}(\.\d{3})+", text):
        raise DataError(f"{where} {text!r}: is the point a thousands mark? Write {text.replace('.', '')}.")
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount):
        raise DataError(f"{where} {text!r} is not a number. Write it as 2100, without a comma or a point in it.")
    if amount < 0:
        raise DataError(f"{where} {text} is negative: nothing can be sold short, and no cash is borrowed. Write 0 or "
                        "more.")
    if amount > MOST_CASH:
        raise DataError(f"{where} {text} is more than the whole market. Correct it.")
    if not is_cash and amount % 1:
        raise DataError(f"{where} {text} is a fraction of a share. Write whole shares.")
    return float(math.floor(amount))


def _day(text: str, where: str, symbol: str, last: pd.Timestamp, latest: pd.Timestamp) -> pd.Timestamp | None:
    if not text:
        return None
    try:
        day = to_day(text)
    except DataError as error:
        raise DataError(f"{where}: {symbol} sellable_from: {error}") from None
    if day > latest:
        raise DataError(f"{where}: {symbol} sellable_from {text} is later than {latest:%Y-%m-%d}, {LATEST_SESSIONS} "
                        f"sessions after the last prices ({last:%Y-%m-%d}). Bring newer prices, or correct the day.")
    return day
