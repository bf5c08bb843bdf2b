"""The portfolio: what a person holds, from when it can be sold, and the cash; a CSV file that the person keeps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vnq_colab.data.market import next_sessions
from vnq_colab.errors import ConfigError, DataError, did_you_mean
from vnq_colab.files import write_atomic

CASH = "CASH"
COLUMNS = ("symbol", "shares", "sellable_from")
CAPITAL = 1e9  # [VND] of a portfolio that is only on paper: what the basket was judged with
MOST = 1e15  # [VND] or shares: beyond the whole market
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
        raise ConfigError(f"capital = {capital:,.0f}: must lie between 1 and {MOST:.0e} VND.")
    return Portfolio(float(int(capital)), {}, {}, f"a paper portfolio of {int(capital):,} VND")


def write_portfolio(path: Path, portfolio: Portfolio) -> None:
    """Writes a portfolio of cash alone."""
    text = f"{','.join(COLUMNS)}\n{CASH},{portfolio.cash:.0f},\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def read_portfolio(path: "str | Path", prices: pd.DataFrame) -> Portfolio:
    """The portfolio in a CSV file, checked against a price table. Raises DataError: file, row, what is wrong."""
    needs = f"It must be a CSV file of {', '.join(COLUMNS)}, such as --portfolio new --capital 500e6 makes."
    try:
        table = pd.read_csv(path, sep="[,;\t]", engine="python", dtype=str, index_col=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. {needs}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {needs}") from None
    table = table.fillna("").rename(columns=lambda name: name.strip().lower())
    if missing := [name for name in COLUMNS if name not in table]:
        raise DataError(f"{path}: column {', '.join(missing)} is missing; found {', '.join(table)}. {needs}")
    symbol, text, day = (table[name].str.strip() for name in COLUMNS)
    symbol, amount = symbol.str.upper(), pd.to_numeric(text, errors="coerce").astype("float64")
    is_cash, known, last = symbol == CASH, sorted(prices["symbol"].unique()), prices["date"].max()
    arrives = pd.to_datetime(day.where(~is_cash, ""), format="%Y-%m-%d", errors="coerce")
    latest = next_sessions(last, LATEST_SESSIONS)[-1]
    for bad, sentence in (
            (symbol.duplicated(), "stands there twice; write one row for it."),
            (~is_cash & ~symbol.isin(known), "is not a symbol of these prices."),
            (text.str.fullmatch(r"\d{1,3}(\.\d{3})+"), "is the point a thousands mark? Write 2100, not 2.100."),
            (~np.isfinite(amount), "not a number of shares or VND; write it as 2100."),
            (amount < 0, "negative: nothing can be sold short, and no cash is borrowed; write 0 or more."),
            (amount > MOST, "more than the whole market; correct it."),
            (~is_cash & (amount % 1 > 0), "a fraction of a share; write whole shares."),
            (~is_cash & (day != "") & arrives.isna(), "sellable_from is not a date; write it as 2026-01-31."),
            (arrives > latest, f"sellable_from is later than {latest:%Y-%m-%d}, {LATEST_SESSIONS} sessions after the "
                               f"last prices ({last:%Y-%m-%d}); bring newer prices, or correct the day.")):
        if bad.any():
            row = int(bad.argmax())
            hint = did_you_mean(symbol[row], known) if "symbol" in sentence else ""
            raise DataError(f"{path}, row {row + 2} ({symbol[row]},{text[row]},{day[row]}): {sentence}{hint}")
    if not is_cash.any():
        raise DataError(f"{path}: there is no row {CASH}. Add one with your cash in VND, such as {CASH},500000000, "
                        "at its end.")
    rows = list(zip(symbol[~is_cash], amount[~is_cash].astype(int), arrives[~is_cash], strict=True))
    return Portfolio(float(amount[is_cash].iloc[0] // 1), {name: shares for name, shares, _ in rows},
                     {name: None if pd.isna(day) else day for name, _, day in rows}, str(path))
