"""Prices as arrays, and what the exchange lets one buy and sell on each day; one place for all who ask.

Axes: days, symbols. Amounts are of adjusted prices and shares. Where `raw_close` is known the prices are raw ones over
`basis`, and a raw share is `basis` adjusted ones; a right or a dividend changes the basis.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, LONG_HALT_SESSIONS, MarketRules, on_tick, price_limits, tick, trading_days
from vnq_colab.errors import DataError

SAME_BASIS = 0.002  # chosen: raw / adjusted moves by less from rounding, and by more on a day without a right


@dataclass(frozen=True)
class MarketData:
    """Prices, and what can be bought and sold when, as arrays of days and symbols."""

    rules: MarketRules
    days: pd.DatetimeIndex
    symbols: np.ndarray
    open: np.ndarray  # [days, symbols] [VND]; NaN where there is no row
    close: np.ndarray  # [days, symbols] [VND]; the last one where there is no row, NaN before the first
    volume: np.ndarray  # [days, symbols] [shares]
    trades: np.ndarray  # [days, symbols] bool: there is volume
    can_buy: np.ndarray  # [days, symbols] bool: at the open
    can_sell: np.ndarray  # [days, symbols] bool: at the open
    can_sell_late: np.ndarray  # [days, symbols] bool: at the close
    lot: np.ndarray  # [days, symbols] [shares]
    basis: np.ndarray  # [days, symbols] raw / adjusted price; 1 where the raw one is not known
    is_raw: np.ndarray  # [days, symbols] bool: it is known
    ceiling: np.ndarray  # [days, symbols] raw [VND]; NaN on a first row. Without raw prices a tick inside, of adjusted
    floor: np.ndarray  # [days, symbols] ones
    exchange: np.ndarray  # [days, symbols] its name; HOSE where it is not known
    sellable_from: np.ndarray  # [days] first moment at which a purchase of this day's open can be sold
    ends: np.ndarray  # [symbols] first day without a price for ever; the number of days where there is none

    @classmethod
    def of(cls, prices: pd.DataFrame, rules: MarketRules) -> Self:
        """Of all days and symbols of a price table. Raises DataError for prices that nobody can trade on.

        A stock has vanished when it has no row on the last `LONG_HALT_SESSIONS` days of the market; one that lacks
        fewer may come back.
        """
        _check_tradable(prices)
        days, symbols = trading_days(prices), pd.Index(np.sort(prices["symbol"].unique()).astype(object))
        place = days.get_indexer(prices["date"]), symbols.get_indexer(prices["symbol"])

        def grid(values: "pd.Series | np.ndarray | float", empty: float = np.nan) -> np.ndarray:
            block = np.full((len(days), len(symbols)), empty)
            block[place] = values
            return block

        opened, close, volume = grid(prices["open"]), grid(prices["close"]), grid(prices["volume"], 0.0)
        raw = grid(prices.get("raw_close", np.nan))
        raw[~(np.isfinite(raw) & (raw > 0))] = np.nan
        number = pd.Index(EXCHANGES).get_indexer(prices.get("exchange", pd.Series("", prices.index)))
        exchange = _filled(grid(np.where(number < 0, np.nan, number)))  # place in EXCHANGES
        names = np.array(EXCHANGES)[np.nan_to_num(exchange).astype("int8")]
        basis, reference = _basis(close, raw, names)
        raw_open = on_tick(opened * (raw / close), names)
        quotes = np.where(np.isfinite(raw), (raw_open, raw), (opened, close))  # [2, days, symbols]
        before, day = _filled(exchange, 1), np.arange(len(days))[:, None]
        is_wide = day - _filled(np.where(volume > 0, day, np.nan), 1) > LONG_HALT_SESSIONS
        is_wide |= np.isfinite(before) & (exchange != before)  # the first day on an exchange, and after a long halt
        band = rules.band(names, days.to_numpy()[:, None], first_day=is_wide)
        ceiling, floor = _limits(_filled(close, 1), reference, band, names)
        inside = quotes[0] < ceiling - 0.01, *(quotes > floor + 0.01)
        can = (np.isnan(ceiling) | np.stack(inside)) & (volume > 0)  # a first row has no band
        today, n_missing = np.arange(len(days)), np.isfinite(opened)[::-1].argmax(axis=0)
        at_open, at_close = (today + rules.sellable_after(days, at) for at in ("open", "close"))
        return cls(
            rules, days, symbols.to_numpy(), quotes[0] / basis, _filled(quotes[1] / basis), volume * basis, volume > 0,
            *can, rules.lots(names, days.to_numpy()[:, None]) * basis, basis, np.isfinite(raw), ceiling, floor, names,
            np.minimum(2 * at_open, 2 * at_close + 1).astype("int32"),
            len(days) - np.where(n_missing < LONG_HALT_SESSIONS, 0, n_missing))

    def cut(self, symbols: np.ndarray, first: int, end: int) -> Self:
        """These symbols on the days from place `first` to `end - 1`; accounts begin anew there."""
        column = pd.Index(self.symbols).get_indexer(symbols)
        grids = {name: np.take(grid[first:end], column, axis=1) for name, grid in vars(self).items()
                 if isinstance(grid, np.ndarray) and grid.ndim == 2}
        return replace(self, days=self.days[first:end], symbols=self.symbols[column], **grids,
                       sellable_from=self.sellable_from[first:end] - 2 * first,
                       ends=np.clip(self.ends[column], first, end) - first)

    @cached_property
    def fills(self) -> dict[str, np.ndarray]:
        """`[days, symbols]` each [VND]: what a purchase at the open ("buy") and a sale at the "open" or "close" fetch.

        `rules.slippage` against the trader; of raw prices rounded against the trader to a tick, inside the band.
        """
        less, more = 1 - self.rules.slippage, 1 + self.rules.slippage
        fills = {"buy": self.open * more, "open": self.open * less, "close": self.close * less}
        at = self.is_raw & self.trades  # [days, symbols]
        basis, names, ceiling, floor = (grid[at] for grid in (self.basis, self.exchange, self.ceiling, self.floor))
        for name, price in fills.items() if at.any() else ():
            raw, sign, end = price[at] * basis, 1 if name == "buy" else -1, ceiling if name == "buy" else floor
            step = tick(raw, names)
            rounded = sign * np.ceil(sign * raw / step - 1e-6) * step
            price[at] = sign * np.fmin(sign * rounded, sign * end) / basis
        return fills


def _check_tradable(prices: pd.DataFrame) -> None:
    """Raises DataError for the first row that cannot be traded on, and for the second of a day."""
    values = prices[["open", "close", "volume"]].to_numpy("float64")
    wrong = ~(np.isfinite(values) & (values > [0, 0, -1])).all(axis=1)
    is_second = prices.duplicated(["symbol", "date"]).to_numpy()
    if (bad := wrong | is_second).any():
        row, more = prices[bad].iloc[0], f" (and {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
        what = "nobody can trade on that" if wrong[bad.argmax()] else "it is the second row of this day"
        raise DataError(f"{row['symbol']} {row['date']:%Y-%m-%d}: open {row['open']:,}, close {row['close']:,} [VND], "
                        f"volume {row['volume']:,} [shares]: {what}{more}. Clean the prices with clean_prices.")


def _filled(values: np.ndarray, lag: int = 0) -> np.ndarray:
    """`[days, symbols]`: the last known value up to `lag` days before."""
    return pd.DataFrame(values).ffill().shift(lag).to_numpy()


def _basis(close: np.ndarray, raw: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[days, symbols]`, twice: raw / adjusted price, 1 where raw is not known; and the raw reference, else NaN.

    The basis stays until a right or a dividend is cut off: less than `SAME_BASIS` is rounding. The reference is the raw
    close before, after a right the adjusted one on today's basis.
    """
    today = raw / close
    raw_before, basis_before = (  # of the last row; -1 where that row does not know it
        _filled(np.where(np.isfinite(close), np.nan_to_num(values, nan=-1.0), np.nan), 1) for values in (raw, today))
    is_same = (basis_before > 0) & (np.abs(today / basis_before - 1) < SAME_BASIS)  # else a right was cut off
    reference = np.where(is_same, raw_before, on_tick(_filled(close, 1) * today, names))
    basis = np.where(np.isfinite(raw), _filled(np.where(is_same, np.nan, today)), 1.0)
    return np.nan_to_num(_filled(np.where(np.isfinite(close), basis, np.nan)), nan=1.0), reference


def _limits(adjusted: np.ndarray, reference: np.ndarray, band: np.ndarray, names: np.ndarray) -> list[np.ndarray]:
    """`[days, symbols]`, twice: ceiling and floor of the raw reference, else, of the `adjusted` one, a tick inside."""
    high, low = adjusted * (1 + band), adjusted * (1 - band)
    inside = high - tick(high, names) + 0.02, low + tick(low, names) - 0.02
    return [np.where(np.isfinite(reference), limit, other)
            for limit, other in zip(price_limits(reference, band, names), inside, strict=True)]
