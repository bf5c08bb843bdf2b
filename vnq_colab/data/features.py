"""Features of the market, of a stock beside it and of the calendar; with those of prices they are all there are."""

import numpy as np
import pandas as pd

from vnq_colab.data.history import FEATURES, Feature, History, covariance, deviation, feature, shift
from vnq_colab.data.market import LUNAR_NEW_YEARS
from vnq_colab.data.price_features import return_5, return_20, volume_surprise  # registers its features before ours

__all__ = ["FEATURES", "Feature", "features_table"]


@feature("log return of the index, or of the equal-weighted market", "log return", bounds=0.1)
def market_return_1(h: History) -> np.ndarray:
    return h.on_own_days(h.market.returns)


@feature("log return of the market over its last 20 days", "log return", warm_up_days=20, bounds=0.4)
def market_return_20(h: History) -> np.ndarray:
    return h.on_own_days(h.market.level - shift(h.market.level, 20))


@feature("standard deviation of the market's daily returns, 20 days", "log return", warm_up_days=20, bounds=(0, 0.05))
def market_volatility_20(h: History) -> np.ndarray:
    return h.on_own_days(deviation(h.market.level - shift(h.market.level, 1), 20))


@feature("share of stocks that rose less share that fell, that day", "fraction")
def breadth(h: History) -> np.ndarray:
    return h.on_own_days(h.market.rising)


@feature("share of stocks above their mean close of 50 days less share below", "fraction", warm_up_days=49)
def breadth_50(h: History) -> np.ndarray:
    return h.on_own_days(h.market.above_mean_50)


@feature("return over 20 days less the market's in that time", "log return", warm_up_days=20)
def relative_strength_20(h: History) -> np.ndarray:
    return return_20(h) - (h.level - shift(h.level, 20))


@feature("slope of the daily return on the market's, 60 days, less 1", "ratio", warm_up_days=60, bounds=3.0,
         source="Sharpe 1964")
def beta_60(h: History) -> np.ndarray:
    market = h.level - shift(h.level, 1)
    spread = deviation(market, 60, 1e-5)
    return np.where(spread > 0, covariance(h.returns, market, 60) / (spread * spread) - 1, 0 * spread)


@feature("rank of the 5-day return among the stocks of the day, -1 lowest to 1 highest", "rank", warm_up_days=5,
         source="Jegadeesh 1990")
def return_rank_5(h: History) -> np.ndarray:
    return h.pack(h.market.ranks(return_5))


@feature("rank of the volume surprise among the stocks of the day, -1 lowest to 1 highest", "rank", warm_up_days=19)
def volume_rank(h: History) -> np.ndarray:
    return h.pack(h.market.ranks(volume_surprise))


@feature("day of the week, Monday -1 to Friday 1", "fraction")
def weekday(h: History) -> np.ndarray:
    return h.on_own_days(h.market.days.day_of_week.to_numpy("float64") / 2 - 1)


@feature("1 - calendar days to the lunar new year / 30, 0 when it is further away", "fraction", bounds=(0, 1))
def tet_nearness(h: History) -> np.ndarray:
    days = h.market.days.to_numpy("datetime64[D]").astype("float64")
    tet = np.append(LUNAR_NEW_YEARS.to_numpy("datetime64[D]").astype("float64"), np.inf)
    return h.on_own_days(np.maximum(1 - (tet[np.searchsorted(tet, days, side="right")] - days) / 30, 0))


def features_table() -> pd.DataFrame:
    """The registry as a table: name, formula, unit, warm-up [days], source, low, high."""
    rows = [(f.name, f.formula, f.unit, f.warm_up_days, f.source, f.low, f.high) for f in FEATURES.values()]
    return pd.DataFrame(rows, columns=["name", "formula", "unit", "warm-up [days]", "source", "low", "high"])
