"""The registry of features: each a pure, causal function of one symbol's own past, or of the market's.

A feature is computed on a History: `[rows, symbols]`, where row i of a column is the i-th day that this symbol traded,
so that "20 days" are twenty days of its own. Nothing in row i looks at a later row. A value that is not yet known
(warm-up) or not defined is 0, and every feature is written so that 0 is its neutral value.

Add a feature by writing a function under `@feature(...)`; its place in the file is its place in the panel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.history import History, divide, rolling, shift, smoothed
from vnq_colab.errors import DataError


@dataclass(frozen=True)
class Feature:
    """A column of the Panel: what it is, how it is computed, and where its values are clipped."""

    name: str
    formula: str
    unit: str
    warm_up_days: int  # of the symbol's own days before the first value
    bound: float  # values are clipped to [-bound, bound]; chosen: far outside what real prices give
    compute: Callable[[History], np.ndarray]


FEATURES: dict[str, Feature] = {}


def feature(formula: str, unit: str, *, warm_up_days: int = 0, bound: float = 1.0) -> Callable:
    """Registers the decorated function under its own name."""

    def register(compute: Callable[[History], np.ndarray]) -> Callable[[History], np.ndarray]:
        FEATURES[compute.__name__] = Feature(compute.__name__, formula, unit, warm_up_days, bound, compute)
        return compute

    return register


@dataclass(frozen=True, repr=False)
class MarketBlock:
    """What `compute_features` returns: the parts of a Panel."""

    values: np.ndarray  # [symbols, days, features] float32
    returns: np.ndarray  # [symbols, days] float64
    present: np.ndarray  # [symbols, days] bool
    symbols: tuple[str, ...]
    days: pd.DatetimeIndex


# ------------------------------------------------------------------------------------------------- returns and trend
@feature("log(close / close of the day before)", "log return", warm_up_days=1, bound=0.5)
def return_1(h: History) -> np.ndarray:
    return h.returns


@feature("log(close / close 5 days before)", "log return", warm_up_days=5)
def return_5(h: History) -> np.ndarray:
    return np.log(h.close / shift(h.close, 5))


@feature("log(close / close 20 days before)", "log return", warm_up_days=20, bound=1.5)
def return_20(h: History) -> np.ndarray:
    return np.log(h.close / shift(h.close, 20))


@feature("log(close / close 60 days before)", "log return", warm_up_days=60, bound=2.0)
def return_60(h: History) -> np.ndarray:
    return np.log(h.close / shift(h.close, 60))


@feature("log(close / mean close of 10 days)", "log ratio", warm_up_days=9)
def mean_distance_10(h: History) -> np.ndarray:
    return np.log(h.close / rolling(h.close, 10, "mean"))


@feature("log(close / mean close of 50 days)", "log ratio", warm_up_days=49, bound=1.5)
def mean_distance_50(h: History) -> np.ndarray:
    return np.log(h.close / rolling(h.close, 50, "mean"))


@feature("(EMA12 - EMA26 - its EMA9) / close. Source: Appel 1979", "fraction", warm_up_days=34, bound=0.2)
def macd_histogram(h: History) -> np.ndarray:
    line = smoothed(h.close, 2 / 13) - smoothed(h.close, 2 / 27)
    return _after(34, (line - smoothed(line, 2 / 10)) / h.close)


@feature("(RSI14 - 50) / 50, Wilder's means. Source: Wilder 1978", "fraction", warm_up_days=14)
def rsi_14(h: History) -> np.ndarray:
    move = h.close - h.previous_close
    up, down = smoothed(np.maximum(move, 0), 1 / 14), smoothed(np.maximum(-move, 0), 1 / 14)
    return _after(14, divide(up - down, up + down))


@feature("2 (close - lowest of 14) / (highest - lowest of 14) - 1. Source: Lane 1984", "fraction", warm_up_days=13)
def stochastic_14(h: History) -> np.ndarray:
    low, high = rolling(h.low, 14, "min"), rolling(h.high, 14, "max")
    return divide(2 * h.close - low - high, high - low)


@feature("(close - mean of 20) / (2 std of 20). Source: Bollinger 1983", "fraction", warm_up_days=19, bound=3.0)
def bollinger_20(h: History) -> np.ndarray:
    return divide(h.close - rolling(h.close, 20, "mean"), 2 * rolling(h.close, 20, "std"))


@feature("log(close / highest high of 252 days)", "log ratio", warm_up_days=59, bound=3.0)
def high_distance_252(h: History) -> np.ndarray:
    return np.log(h.close / rolling(h.high, 252, "max", 60))


@feature("log(close / lowest low of 252 days)", "log ratio", warm_up_days=59, bound=3.0)
def low_distance_252(h: History) -> np.ndarray:
    return np.log(h.close / rolling(h.low, 252, "min", 60))


# --------------------------------------------------------------------------------------------- the candle of the day
@feature("log(open / close of the day before)", "log return", warm_up_days=1, bound=0.5)
def gap(h: History) -> np.ndarray:
    return np.log(h.open / h.previous_close)


@feature("log(high / max(open, close))", "log ratio", bound=0.5)
def upper_shadow(h: History) -> np.ndarray:
    return np.log(h.high / np.maximum(h.open, h.close))


@feature("log(min(open, close) / low)", "log ratio", bound=0.5)
def lower_shadow(h: History) -> np.ndarray:
    return np.log(np.minimum(h.open, h.close) / h.low)


@feature("2 (close - low) / (high - low) - 1", "fraction")
def close_in_range(h: History) -> np.ndarray:
    return divide(2 * h.close - h.low - h.high, h.high - h.low)


# --------------------------------------------------------------------------------------------------------- volatility
@feature("standard deviation of daily returns, 20 days", "log return", warm_up_days=20, bound=0.5)
def volatility_20(h: History) -> np.ndarray:
    return rolling(h.returns, 20, "std")


@feature("log(standard deviation of 5 / of 60 daily returns)", "log ratio", warm_up_days=60, bound=4.0)
def volatility_ratio(h: History) -> np.ndarray:
    recent, usual = rolling(h.returns, 5, "std"), rolling(h.returns, 60, "std")
    return np.where(recent > 1e-6, np.log(np.maximum(recent, 1e-6) / np.maximum(usual, 1e-6)), 0)


@feature("Wilder's mean of the true range over 14 days / close. Source: Wilder 1978", "fraction", warm_up_days=14)
def true_range_14(h: History) -> np.ndarray:
    reach = np.fmax(h.high, h.previous_close) - np.fmin(h.low, h.previous_close)
    return _after(14, smoothed(reach, 1 / 14) / h.close)


@feature("sqrt(mean of log(high / low)^2 over 20 days / (4 log 2)). Source: Parkinson 1980", "log return",
         warm_up_days=19, bound=0.5)
def parkinson_20(h: History) -> np.ndarray:
    return np.sqrt(np.maximum(rolling(np.log(h.high / h.low) ** 2, 20, "mean"), 0) / (4 * np.log(2)))


@feature("skewness of daily returns, 60 days", "ratio", warm_up_days=60, bound=5.0)
def skewness_60(h: History) -> np.ndarray:
    return rolling(h.returns, 60, "skew")


# ------------------------------------------------------------------------------------------------------------- volume
@feature("log((volume + 1) / (mean volume of 20 days + 1))", "log ratio", warm_up_days=19, bound=4.0)
def volume_surprise(h: History) -> np.ndarray:
    return np.log((h.volume + 1) / (rolling(h.volume, 20, "mean") + 1))


@feature("log((mean volume of 5 days + 1) / (mean of 60 days + 1))", "log ratio", warm_up_days=59, bound=4.0)
def volume_trend(h: History) -> np.ndarray:
    return np.log((rolling(h.volume, 5, "mean") + 1) / (rolling(h.volume, 60, "mean") + 1))


@feature("(up flow - down flow) / (up + down) of 14 days, flow = typical price x volume. Source: Quong, Soudack 1989",
         "fraction", warm_up_days=14)
def money_flow_14(h: History) -> np.ndarray:
    typical = (h.high + h.low + h.close) / 3
    flow, move = typical * h.volume, typical - shift(typical, 1)
    up = rolling(np.where(move > 0, flow, np.where(np.isfinite(move), 0, np.nan)), 14, "sum")
    down = rolling(np.where(move < 0, flow, np.where(np.isfinite(move), 0, np.nan)), 14, "sum")
    return divide(up - down, up + down)


# ------------------------------------------------------------------------------------------- the market and the others
@feature("log return of the index, or of the equal-weighted market", "log return", bound=0.5)
def market_return_1(h: History) -> np.ndarray:
    return h.market


@feature("log return of the market over 20 days", "log return", warm_up_days=20, bound=1.0)
def market_return_20(h: History) -> np.ndarray:
    return h.from_market(_market_sum(h, 20))


@feature("share of stocks that rose less share that fell, that day", "fraction")
def breadth(h: History) -> np.ndarray:
    known = np.isfinite(h.returns_by_day).sum(axis=1)
    signs = np.sign(np.nan_to_num(h.returns_by_day)).sum(axis=1)
    return h.from_market(signs / np.maximum(known, 1))


@feature("return over 20 days less the market's", "log return", warm_up_days=20, bound=1.5)
def relative_strength_20(h: History) -> np.ndarray:
    return return_20(h) - market_return_20(h)


@feature("slope of the daily return on the market's, 60 days, less 1", "ratio", warm_up_days=60, bound=3.0)
def beta_60(h: History) -> np.ndarray:
    own, market = h.returns, np.where(np.isfinite(h.returns), h.market, np.nan)
    mean_own, mean_market = rolling(own, 60, "mean"), rolling(market, 60, "mean")
    covariance = rolling(own * market, 60, "mean") - mean_own * mean_market
    variance = rolling(market**2, 60, "mean") - mean_market**2
    return np.where(variance > 1e-9, covariance / np.maximum(variance, 1e-9) - 1, 0)


@feature("rank of the 5-day return among the stocks of the day, -1 lowest to 1 highest", "rank", warm_up_days=5)
def return_rank_5(h: History) -> np.ndarray:
    return _rank(h, return_5(h))


@feature("rank of the volume surprise among the stocks of the day, -1 lowest to 1 highest", "rank", warm_up_days=19)
def volume_rank(h: History) -> np.ndarray:
    return _rank(h, volume_surprise(h))


@feature("day of the week, Monday -1 to Friday 1", "fraction")
def weekday(h: History) -> np.ndarray:
    return h.weekday / 2 - 1


def _after(rows: int, values: np.ndarray) -> np.ndarray:
    """The values, unknown in the first rows of each symbol: an exponential mean needs a past to mean something."""
    values[:rows] = np.nan
    return values


def _market_sum(h: History, days: int) -> np.ndarray:
    return pd.Series(h.market_returns).fillna(0.0).rolling(days).sum().to_numpy()  # [days]


def _rank(h: History, packed: np.ndarray) -> np.ndarray:
    """`[rows, symbols] -> [rows, symbols]`: rank among the symbols present that day; ties share the mean rank."""
    by_day = pd.DataFrame(h.to_days(packed))
    count = by_day.notna().sum(axis=1).to_numpy()[:, None]
    rank = by_day.rank(axis=1).to_numpy()
    return h.from_days(np.where(count > 1, 2 * (rank - 1) / np.maximum(count - 1, 1) - 1, 0))


def compute_features(prices: pd.DataFrame, index: pd.DataFrame | None = None) -> MarketBlock:
    """All registered features of a cleaned price table, clipped to their bounds, on the market's calendar."""
    if prices.empty:
        raise DataError("the price table has no rows, so there is nothing to compute features from.")
    history = History(prices, index)
    shape = (len(history.symbols), len(history.days))
    symbol, day = history.symbol, history.day
    values = np.zeros((*shape, len(FEATURES)), dtype="float32")
    for place, item in enumerate(FEATURES.values()):
        with np.errstate(invalid="ignore", divide="ignore"):
            column = history.to_rows(item.compute(history))
        np.nan_to_num(column, copy=False, nan=0.0, posinf=item.bound, neginf=-item.bound)
        values[symbol, day, place] = np.clip(column, -item.bound, item.bound)
    present = np.zeros(shape, dtype=bool)
    present[symbol, day] = True
    return MarketBlock(values, history.returns_by_day.T.copy(), present, history.symbols, history.days)


def features_table() -> pd.DataFrame:
    """The registry as a table: name, formula, unit, warm-up [days], bound."""
    rows = [(f.name, f.formula, f.unit, f.warm_up_days, f.bound) for f in FEATURES.values()]
    return pd.DataFrame(rows, columns=["name", "formula", "unit", "warm-up [days]", "bound"])
