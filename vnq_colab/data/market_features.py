"""Features of the market, of a stock beside it, and of the calendar."""

import numpy as np
import pandas as pd

from vnq_colab.data.history import History, covariance, deviation, shift
from vnq_colab.data.price_features import return_5, return_20, volume_surprise
from vnq_colab.data.registry import feature

# The first day of the lunar year in Vietnam (UTC+7; 2007 and 2030 a day before China's), known years ahead.
# Source: the new moons of Meeus 1998, chapter 49 (tests/test_features.py computes them), and the gaps of VNINDEX.
TET = pd.DatetimeIndex(
    """
    2000-02-05 2001-01-24 2002-02-12 2003-02-01 2004-01-22 2005-02-09 2006-01-29 2007-02-17 2008-02-07 2009-01-26
    2010-02-14 2011-02-03 2012-01-23 2013-02-10 2014-01-31 2015-02-19 2016-02-08 2017-01-28 2018-02-16 2019-02-05
    2020-01-25 2021-02-12 2022-02-01 2023-01-22 2024-02-10 2025-01-29 2026-02-17 2027-02-06 2028-01-26 2029-02-13
    2030-02-02 2031-01-23 2032-02-11 2033-01-31 2034-02-19 2035-02-08
    """.split()
)


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
    tet = np.append(TET.to_numpy("datetime64[D]").astype("float64"), np.inf)
    return h.on_own_days(np.maximum(1 - (tet[np.searchsorted(tet, days, side="right")] - days) / 30, 0))
