"""Which stock can be bought or sold when: price bands, ticks, halts, days without volume.

Axes: days, symbols.
"""

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, LONG_HALT_SESSIONS, MarketRules, price_limits, tick
from vnq_colab.errors import DataError

SAME_BASIS = 0.002  # chosen: raw / adjusted moves by less from rounding, and by more on a day without a right


def check_tradable(rows: pd.DataFrame) -> None:
    """Raises DataError for the first row whose open, close or volume cannot be traded on, and for doubled days."""
    for name, least, unit in (("open", 0.0, "VND"), ("close", 0.0, "VND"), ("volume", -1.0, "shares")):
        values = rows[name].to_numpy("float64")
        bad = ~(np.isfinite(values) & (values > least))
        if bad.any():
            row = rows[bad].iloc[0]
            more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
            raise DataError(f"{row['symbol']} {row['date']:%Y-%m-%d}: {name} is {row[name]} [{unit}]{more}. Clean the "
                            "prices with clean_prices.")
    if (bad := rows.duplicated(["symbol", "date"])).any():
        row = rows[bad].iloc[0]
        raise DataError(f"{row['symbol']} {row['date']:%Y-%m-%d}: two rows of prices for one day. Clean the prices "
                        "with clean_prices.")


def permissions(days: pd.DatetimeIndex, opening: np.ndarray, close: np.ndarray, raw: np.ndarray, exchange: np.ndarray,
                trades: np.ndarray, rules: MarketRules) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[days, symbols]` bool, three times: may be bought at the open, sold at the open, sold at the close.

    On raw prices where `raw` is known: the reference is the raw close before, or the adjusted one on today's basis
    after a right was cut off. Elsewhere on adjusted prices, where a price within one tick of the band's end counts as
    on it. The first day on an exchange, and the first after a long halt, have the wider band; a first row has none.
    """
    def before(values: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full((1, values.shape[1]), np.nan), values[:-1]])

    known = pd.DataFrame(close).ffill().to_numpy()
    reference, basis = before(known), raw / close
    day = np.arange(len(days))[:, None]
    last_trade = before(np.maximum.accumulate(np.where(trades, day, -1.0), axis=0))
    halted = (last_trade >= 0) & (day - last_trade > LONG_HALT_SESSIONS)
    moved = np.isfinite(before(exchange)) & (exchange != before(exchange))
    there = np.isfinite(close)
    raw_before, basis_before = (  # of the last row; -1 where that row does not know it
        before(pd.DataFrame(np.where(there, np.where(np.isfinite(raw), values, -1), np.nan)).ffill().to_numpy())
        for values in (raw, basis))
    is_same = (basis_before > 0) & (np.abs(basis / basis_before - 1) < SAME_BASIS)  # else a right was cut off
    buy, sell, late = (np.zeros(close.shape, dtype=bool) for _ in range(3))
    for number, name in enumerate(EXCHANGES):
        on = np.nan_to_num(exchange) == number
        daily, wide = rules.band(name, days)[:, None], rules.band(name, days, first_day=True)[:, None]
        band = np.where(halted | moved, wide, daily)
        high, low = reference * (1 + band), reference * (1 - band)
        ceiling, floor = high - tick(high, name) + 0.02, low + tick(low, name) - 0.02  # adjusted: within one tick
        step = tick(reference * basis, name)
        start = np.where(is_same, raw_before, np.round(reference * basis / step) * step)
        raw_ceiling, raw_floor = price_limits(start, band, name)
        is_raw = np.isfinite(basis) & np.isfinite(start)
        at_open = opening * basis
        at_open = np.round(at_open / tick(at_open, name)) * tick(at_open, name)
        ceiling, floor = np.where(is_raw, raw_ceiling, ceiling), np.where(is_raw, raw_floor, floor)
        at_open, at_close = np.where(is_raw, at_open, opening), np.where(is_raw, raw, close)
        free = np.isnan(reference)
        buy |= on & (free | (at_open < ceiling - 0.01))
        sell |= on & (free | (at_open > floor + 0.01))
        late |= on & (free | (at_close > floor + 0.01))
    return buy & trades, sell & trades, late & trades
