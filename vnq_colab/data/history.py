"""Prices as blocks, the steps that features are made of, and what a feature is.

`[table rows]` is the price table in order of symbol and date; `[symbols, rows]` is some of its symbols, row i being the
i-th day on which that symbol traded. The past keeps its bits: a sum over a window depends on the window alone, and one
over the stocks of a day is taken stock after stock, so that nothing later changes how an earlier number is rounded.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, VN_RULES
from vnq_colab.errors import DataError

COLUMNS = ("open", "high", "low", "close", "volume")
BLOCK = 16  # [symbols] chosen: a block's arrays fit the cache; 0.7 s, of 185 at once 1.2 s


@dataclass(frozen=True)
class Feature:
    """A column of the Panel: what it is, how it is computed, and where its values are clipped."""

    name: str
    formula: str
    unit: str
    warm_up_days: int  # of the symbol's own days before the first value; until then the value is 0
    source: str
    low: float  # values are clipped to [low, high]; chosen: benchmarks/feature_bounds.py, see EXPERIMENTS.md
    high: float
    compute: "Callable[[History], np.ndarray]"  # -> [symbols, rows] float64, unclipped, NaN where unknown

    def clipped(self, history: "History") -> np.ndarray:
        """`[table rows]` float64: its values inside the bounds, 0 where they are unknown."""
        return np.nan_to_num(np.clip(history.to_rows(self.compute(history)), self.low, self.high))


def feature(name: str, formula: str, unit: str, compute: "Callable[[History], np.ndarray]", warm_up_days: int = 0,
            bounds: float | tuple[float, float] = 1.0, source: str = "this project") -> Feature:
    """A Feature; one number as `bounds` means -bounds to bounds."""
    low, high = bounds if isinstance(bounds, tuple) else (-bounds, bounds)
    return Feature(name, formula, unit, warm_up_days, source, low, high, compute)


def in_order(prices: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, pd.Index]:
    """The table by symbol and date, and each row's symbol as a number and the symbols' names; sorts only if needed."""
    codes, names = pd.factorize(prices["symbol"], sort=True)
    dates = prices["date"].to_numpy("datetime64[ns]")
    next_symbol = np.diff(codes)
    if not ((next_symbol > 0) | (next_symbol == 0) & (dates[1:] >= dates[:-1])).all():
        order = np.lexsort((dates, codes))
        prices, codes = prices.take(order), codes[order]
    return prices, codes, names


class MarketSeries:
    """A price table, its calendar and the series of the whole market."""

    def __init__(self, prices: pd.DataFrame, index: pd.DataFrame | None = None):
        prices, self.symbol, names = in_order(prices)
        dates = prices["date"].to_numpy("datetime64[ns]")
        self.symbols = tuple(str(name) for name in names)
        self.days = pd.DatetimeIndex(np.sort(pd.unique(dates)))
        self.day = self.days.searchsorted(dates)  # [table rows]: place in the calendar, as `symbol` is in `symbols`
        self.starts = np.searchsorted(self.symbol, np.arange(len(names) + 1))  # [symbols + 1] first row of each symbol
        self.table = {name: prices[name].to_numpy("float64") for name in COLUMNS}
        exchange = prices["exchange"].astype(object) if "exchange" in prices.columns else np.full(len(prices), None)
        self.exchange = np.maximum(pd.Index(EXCHANGES).get_indexer(exchange), 0)  # [table rows]: place in EXCHANGES
        self.stock_returns = np.full(len(prices), np.nan)  # [table rows] log return
        self.stock_returns[1:] = np.log(self.table["close"][1:] / self.table["close"][:-1])
        self.stock_returns[self.starts[:-1]] = np.nan
        self.returns = self.mean(self.stock_returns) if index is None else self._index_returns(index)  # [days]
        self.level = np.cumsum(self.returns)  # [days] log
        self._ranks: dict[Callable, np.ndarray] = {}

    def histories(self) -> Iterator["History"]:
        """All symbols in blocks."""
        for first in range(0, len(self.symbols), BLOCK):
            yield History(self, first, min(first + BLOCK, len(self.symbols)))

    def across(self, compute: Callable[["History"], np.ndarray]) -> np.ndarray:
        """`[table rows]`: a function of each symbol's own history, for all of them."""
        return np.concatenate([history.to_rows(compute(history)) for history in self.histories()])

    def mean(self, values: np.ndarray) -> np.ndarray:
        """`[table rows] -> [days]`: over the stocks whose value is known that day, 0 where there is none."""
        known = np.isfinite(values)
        day, n_days = self.day[known], len(self.days)
        # bincount adds one row after the other; np.sum over an axis rounds by its length, that is by who comes later
        return np.bincount(day, values[known], n_days) / np.maximum(np.bincount(day, minlength=n_days), 1)

    def ranks(self, compute: Callable[["History"], np.ndarray]) -> np.ndarray:
        """`[table rows]`: rank among the stocks of the day, -1 lowest to 1 highest; ties share the mean rank."""
        if compute not in self._ranks:
            values = np.full((len(self.symbols), len(self.days)), np.nan)
            values[self.symbol, self.day] = self.across(compute)
            self._ranks[compute] = within_day_ranks(values)[self.symbol, self.day]
        return self._ranks[compute]

    @functools.cached_property
    def band(self) -> np.ndarray:
        """`[table rows]` price band of the row's exchange and day, as a fraction; an unknown exchange is HOSE's."""
        return VN_RULES.band(np.array(EXCHANGES)[:, None], self.days)[self.exchange, self.day]

    @functools.cached_property
    def rising(self) -> np.ndarray:
        """`[days]` share of the stocks that rose less the share that fell."""
        return self.mean(np.sign(self.stock_returns))

    @functools.cached_property
    def above_mean_50(self) -> np.ndarray:
        """`[days]` share of the stocks above their mean close of 50 days less the share below."""
        return self.mean(self.across(lambda h: np.sign(np.round(h.close / mean(h.close, 50) - 1, 9))))

    def _index_returns(self, index: pd.DataFrame) -> np.ndarray:
        closes = index.set_index("date")["close"].sort_index()
        if not closes.index.is_unique or not (closes > 0).all():
            raise DataError("the index needs one positive close per day. Repair the file, or leave --index out.")
        closes = closes.reindex(self.days, method="ffill").to_numpy("float64")  # a day without index: no move
        returns = np.zeros(len(closes))
        returns[1:] = np.nan_to_num(np.log(closes[1:] / closes[:-1]))  # nor is there one before the index begins
        return returns


class History:
    """Some symbols of a market, `[symbols, rows]`: own trading days from the left, NaN after the last one."""

    def __init__(self, market: MarketSeries, first: int, last: int):
        self.market = market
        self._rows = slice(market.starts[first], market.starts[last])
        lengths = np.diff(market.starts[first : last + 1])
        self._there = np.arange(lengths.max()) < lengths[:, None]
        self.symbol, self.day = market.symbol[self._rows], market.day[self._rows]  # [table rows] of these symbols
        self.open, self.high, self.low, self.close, self.volume = (self.pack(market.table[name]) for name in COLUMNS)
        self.previous_close = shift(self.close, 1)
        self.returns = self.pack(market.stock_returns)
        self.typical = (self.high + self.low + self.close) / 3
        self.level = self.on_own_days(market.level)  # log of the market's level

    def pack(self, values: np.ndarray) -> np.ndarray:
        """`[table rows] of all symbols -> [symbols, rows]` of these."""
        packed = np.full(self._there.shape, np.nan)
        packed[self._there] = values[self._rows]
        return packed

    def to_rows(self, packed: np.ndarray) -> np.ndarray:
        """`[symbols, rows] -> [table rows]` of these symbols."""
        return packed[self._there]

    def on_own_days(self, series: np.ndarray) -> np.ndarray:
        """`[days] -> [symbols, rows]`: a series of the market on each symbol's own days."""
        packed = np.full(self._there.shape, np.nan)
        packed[self._there] = series[self.day]
        return packed


def shift(values: np.ndarray, rows: int) -> np.ndarray:
    """`[..., rows] -> [..., rows]`: the value that stood `rows` rows earlier, NaN before."""
    moved = np.full_like(values, np.nan)
    moved[..., rows:] = values[..., :-rows]
    return moved


def rolling(values: np.ndarray, days: int, merge: np.ufunc = np.add, fill: float = np.nan) -> np.ndarray:
    """`[..., rows] -> [..., rows]`: sum of the last `days` rows, or what `merge` makes of them.

    `fill` is what stands before the first row instead. Windows of 1, 2, 4, .. rows are put together.
    """
    def merged(values: np.ndarray, earlier: np.ndarray, rows: int) -> np.ndarray:
        out = np.empty_like(values)
        merge(values[..., :rows], fill, out=out[..., :rows])
        merge(values[..., rows:], earlier[..., :-rows], out=out[..., rows:])
        return out

    done, reach, power, width = None, 0, values, 1
    while True:
        if days & width:
            done = power if done is None else merged(done, power, reach)
            reach += width
        if reach == days:
            return done
        power = merged(power, power, width)
        width *= 2


def mean(values: np.ndarray, days: int) -> np.ndarray:
    """`[..., rows] -> [..., rows]`: mean of the last `days` rows."""
    return rolling(values, days) / days


def deviation(values: np.ndarray, days: int, least: float | np.ndarray = 1e-6) -> np.ndarray:
    """`[..., rows] -> [..., rows]`: standard deviation (population) of the last `days` rows, 0 below `least`."""
    spread = np.sqrt(np.maximum(mean(values * values, days) - mean(values, days) ** 2, 0))
    spread[spread < least] = 0  # what is left of a constant is rounding
    return spread


def smoothed(values: np.ndarray, alpha: float, days: int, start: int) -> np.ndarray:
    """`[..., rows] -> [..., rows]`: exponential mean from row `start` on, the mean of the `days` up to it."""
    begun = values.copy()
    begun[..., :start] = np.nan
    if start < values.shape[-1]:
        begun[..., start] = mean(np.nan_to_num(values[..., start - days + 1 : start + 1]), days)[..., -1]
    return pd.DataFrame(begun.T).ewm(alpha=alpha, adjust=False, ignore_na=True).mean().to_numpy().T


def within_day_ranks(values: np.ndarray) -> np.ndarray:
    """`[symbols, days] -> [symbols, days]`: rank among a day's known values, -1 to 1; ties share the mean."""
    ranks = pd.DataFrame(values).rank().to_numpy()  # from 1
    n_others = np.isfinite(ranks).sum(axis=0) - 1
    return 2 * (ranks - 1) / np.maximum(n_others, 1) - (n_others > 0)
