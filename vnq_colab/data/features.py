"""All features, in the order of the Panel: those of prices, then those of the market, of a stock beside it, of dates.

Add one by a line in a table here or in `price_features`: the Panel, its proof and its tests take it from there.
"""

import numpy as np
import pandas as pd

from vnq_colab.data.history import Feature, History, covariance, deviation, feature, shift
from vnq_colab.data.market import LUNAR_NEW_YEARS
from vnq_colab.data.price_features import (
    CANDLE,
    RETURNS_AND_TREND,
    VOLATILITY,
    VOLUME,
    log_return,
    return_5,
    volume_surprise,
)


def _beta(h: History) -> np.ndarray:
    market = h.level - shift(h.level, 1)
    spread = deviation(market, 60, 1e-5)
    return np.where(spread > 0, covariance(h.returns, market, 60) / (spread * spread) - 1, 0 * spread)


def _tet_nearness(h: History) -> np.ndarray:
    days = h.market.days.to_numpy("datetime64[D]").astype("float64")
    tet = np.append(LUNAR_NEW_YEARS.to_numpy("datetime64[D]").astype("float64"), np.inf)
    return h.on_own_days(np.maximum(1 - (tet[np.searchsorted(tet, days, side="right")] - days) / 30, 0))


MARKET = (
    feature("market_return_1", "log return of the index, or of the equal-weighted market", "log return",
            lambda h: h.on_own_days(h.market.returns), 0, 0.1),
    feature("market_return_20", "log return of the market over its last 20 days", "log return",
            lambda h: h.on_own_days(h.market.level - shift(h.market.level, 20)), 20, 0.4),
    feature("market_volatility_20", "standard deviation of the market's daily returns, 20 days", "log return",
            lambda h: h.on_own_days(deviation(h.market.level - shift(h.market.level, 1), 20)), 20, (0, 0.05)),
    feature("breadth", "share of stocks that rose less share that fell, that day", "fraction",
            lambda h: h.on_own_days(h.market.rising)),
    feature("breadth_50", "share of stocks above their mean close of 50 days less share below", "fraction",
            lambda h: h.on_own_days(h.market.above_mean_50), 49),
    feature("relative_strength_20", "return over 20 days less the market's in that time", "log return",
            lambda h: log_return(h, 20) - (h.level - shift(h.level, 20)), 20),
    feature("beta_60", "slope of the daily return on the market's, 60 days, less 1", "ratio", _beta, 60, 3.0,
            "Sharpe 1964"),
    feature("return_rank_5", "rank of the 5-day return among the stocks of the day, -1 lowest to 1 highest", "rank",
            lambda h: h.pack(h.market.ranks(return_5)), 5, source="Jegadeesh 1990"),
    feature("volume_rank", "rank of the volume surprise among the stocks of the day, -1 lowest to 1 highest", "rank",
            lambda h: h.pack(h.market.ranks(volume_surprise)), 19),
    feature("weekday", "day of the week, Monday -1 to Friday 1", "fraction",
            lambda h: h.on_own_days(h.market.days.day_of_week.to_numpy("float64") / 2 - 1)),
    feature("tet_nearness", "1 - calendar days to the lunar new year / 30, 0 when it is further away", "fraction",
            _tet_nearness, 0, (0, 1)),
)
FEATURES: dict[str, Feature] = {item.name: item for item in (*RETURNS_AND_TREND, *CANDLE, *VOLATILITY, *VOLUME,
                                                             *MARKET)}


def features_table() -> pd.DataFrame:
    """Every feature: name, formula, unit, warm-up [days], source, low, high."""
    rows = [(f.name, f.formula, f.unit, f.warm_up_days, f.source, f.low, f.high) for f in FEATURES.values()]
    return pd.DataFrame(rows, columns=["name", "formula", "unit", "warm-up [days]", "source", "low", "high"])
