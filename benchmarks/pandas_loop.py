"""The fifty features as one writes them first: a loop over the symbols, one pandas expression after the other.

What `data_path.py` measures the library against, and a second implementation of every feature.
"""

import numpy as np
import pandas as pd

from vnq_colab.data.features import FEATURES
from vnq_colab.data.market import LUNAR_NEW_YEARS, VN_RULES

TOLERANCE = {"HOSE": 0.005, "HNX": 0.01, "UPCOM": 0.01}


def loop_features(prices: pd.DataFrame) -> pd.DataFrame:
    """One row for each row of the price table, in its order: the fifty features, clipped, 0 where unknown."""
    prices = prices.reset_index(drop=True)
    by_symbol = prices.groupby("symbol", sort=False)
    returns = np.log(prices["close"] / by_symbol["close"].shift(1))
    market = pd.DataFrame({"return": returns.groupby(prices["date"]).mean().fillna(0)})
    market["level"] = market["return"].cumsum()
    market["return_20"] = market["level"].diff(20)
    market["volatility_20"] = market["level"].diff().rolling(20).std(ddof=0)
    market["breadth"] = np.sign(returns).groupby(prices["date"]).mean()
    mean_50 = by_symbol["close"].rolling(50).mean().reset_index(level=0, drop=True)
    above = np.sign((prices["close"] / mean_50 - 1).round(9))
    market["breadth_50"] = above.groupby(prices["date"]).mean()
    days_to_tet = np.array([min((tet - day).days for tet in LUNAR_NEW_YEARS if tet > day) for day in market.index])
    market["tet_nearness"] = np.maximum(1 - days_to_tet / 30, 0)

    table = pd.concat([features_of(stock, market.loc[stock["date"]].set_index(stock.index)) for _, stock in by_symbol])
    for name, of in (("return_rank_5", "return_5"), ("volume_rank", "volume_surprise")):
        by_day = table[of].groupby(prices["date"])
        others = by_day.transform("count") - 1
        table[name] = (2 * (by_day.rank() - 1) / others - 1).where(others > 0, 0)
    for name, item in FEATURES.items():
        table[name] = table[name].clip(item.low, item.high).fillna(0)
    return table[list(FEATURES)]


def features_of(stock: pd.DataFrame, market: pd.DataFrame) -> pd.DataFrame:
    """The features of one symbol; `market` has the market's series on the same rows."""
    open_, high, low, close = (stock[name] for name in ("open", "high", "low", "close"))
    volume = stock["volume"].astype("float64")
    last = close.shift(1)
    returns = np.log(close / last)
    f = pd.DataFrame(index=stock.index)

    for days in (1, 5, 20, 60, 120):
        f[f"return_{days}"] = np.log(close / close.shift(days))
    for days in (10, 50):
        f[f"mean_distance_{days}"] = np.log(close / close.rolling(days).mean())
    macd = smoothed(close, 2 / 13, 12, 25) - smoothed(close, 2 / 27, 26, 25)
    f["macd_line"] = macd / close
    f["macd_histogram"] = (macd - smoothed(macd, 2 / 10, 9, 33)) / close
    move = close.diff()
    up, down = wilder(move.clip(lower=0), 14), wilder(-move.clip(upper=0), 14)
    f["rsi_14"] = ratio(up - down, up + down)
    lowest, highest = low.rolling(14).min(), high.rolling(14).max()
    f["stochastic_14"] = ratio(2 * close - lowest - highest, highest - lowest)
    true_range = np.maximum(high, last) - np.minimum(low, last)
    rise, fall = high.diff(), -low.diff()
    plus = rise.where((rise - fall > 1e-9 * close) & (rise > 0), 0.0)
    minus = fall.where((fall - rise > 1e-9 * close) & (fall > 0), 0.0)
    first = stock.index[:1]
    plus, minus, reach = (wilder(part.where(~part.index.isin(first), 0.0), 13) for part in (plus, minus, true_range))
    f["directional_14"] = ratio(plus - minus, reach).where(np.arange(len(stock)) >= 14)
    direction = ((plus - minus).abs() / (plus + minus)).where(plus + minus > 0)
    f["adx_14"] = wilder(direction.where(np.arange(len(stock)) >= 14), 27)
    mean, spread = close.rolling(20).mean(), close.rolling(20).std(ddof=0)
    f["bollinger_20"] = ratio(close - mean, 2 * spread.where(~(spread < 1e-6 * mean), 0))
    typical = (high + low + close) / 3
    away = typical.rolling(14).apply(lambda window: np.abs(window - window.mean()).mean(), raw=True)
    mean = typical.rolling(14).mean()
    f["cci_14"] = ratio(typical - mean, 1.5 * away.where(~(away < 1e-9 * mean), 0))
    f["efficiency_20"] = ratio(returns.rolling(20).sum(), returns.abs().rolling(20).sum())
    f["high_distance_252"] = np.log(close / high.rolling(252, min_periods=60).max())
    f["low_distance_252"] = np.log(close / low.rolling(252, min_periods=60).min())

    f["gap"] = np.log(open_ / last)
    f["body"] = np.log(close / open_)
    f["upper_shadow"] = np.log(high / np.maximum(open_, close))
    f["lower_shadow"] = np.log(np.minimum(open_, close) / low)
    f["close_in_range"] = ratio(2 * close - low - high, high - low)
    width = np.log(high / low)
    f["range_surprise"] = surprise(width, width.rolling(20).mean())
    exchange = stock["exchange"].iloc[0] if "exchange" in stock else "HOSE"
    band, tick = VN_RULES.band(exchange, pd.DatetimeIndex(stock["date"])), TOLERANCE.get(exchange, 0.005)
    change = close / last - 1
    f["ceiling_hit"] = ((close == high) & ((change - band).abs() <= tick)).astype(float)
    f["floor_hit"] = ((close == low) & ((change + band).abs() <= tick)).astype(float)

    f["true_range_14"] = wilder(true_range, 14) / close
    f["volatility_20"] = returns.rolling(20).std(ddof=0)
    f["volatility_ratio"] = surprise(returns.rolling(5).std(ddof=0), returns.rolling(60).std(ddof=0))
    f["parkinson_10"] = np.sqrt((width**2).rolling(10).mean() / (4 * np.log(2)))
    f["skewness_60"] = returns.rolling(60).skew() * 58 / np.sqrt(60 * 59)  # of the population, as the others
    squares = (returns**2).rolling(20).sum()
    f["downside_20"] = ratio(2 * (returns.clip(upper=0) ** 2).rolling(20).sum() - squares, squares)

    f["volume_surprise"] = surprise(volume, volume.rolling(20).mean())
    f["volume_trend"] = surprise(volume.rolling(5).mean(), volume.rolling(60).mean())
    flow, step = typical * volume, typical.pct_change()
    sign = np.sign(step.where(~(step.abs() < 1e-9), 0))
    f["money_flow_14"] = ratio((sign * flow).rolling(14).sum(), (sign.abs() * flow).rolling(14).sum())
    balance = (np.sign(move).fillna(0) * volume).cumsum()
    time = pd.Series(np.arange(len(stock), dtype="float64"), index=stock.index)
    f["obv_slope_20"] = ratio(balance.rolling(20).cov(time) / 35, volume.rolling(20).mean())  # 35: variance of 0..19
    f["chaikin_flow_20"] = ratio((volume * f["close_in_range"]).rolling(20).sum(), volume.rolling(20).sum())
    moved, traded = returns.abs(), close * volume
    f["illiquidity_20"] = (surprise(3 * moved.rolling(20).sum(), moved.rolling(60).sum())
                           - surprise(3 * traded.rolling(20).sum(), traded.rolling(60).sum()))
    correlation = returns.rolling(20).corr(volume)
    f["volume_correlation_20"] = correlation.replace([np.inf, -np.inf], np.nan)

    f["market_return_1"] = market["return"]
    f["market_return_20"] = market["return_20"]
    f["market_volatility_20"] = market["volatility_20"]
    f["breadth"] = market["breadth"]
    f["breadth_50"] = market["breadth_50"]
    f["relative_strength_20"] = f["return_20"] - market["level"].diff(20)
    beside = market["level"].diff()
    f["beta_60"] = returns.rolling(60).cov(beside) / beside.rolling(60).var() - 1
    f["weekday"] = stock["date"].dt.dayofweek / 2 - 1
    f["tet_nearness"] = market["tet_nearness"]
    return f


def smoothed(values: pd.Series, alpha: float, days: int, start: int) -> pd.Series:
    """Exponential mean that begins in row `start` with the plain mean of `days` rows."""
    begun = values.copy()
    begun.iloc[:start] = np.nan
    if len(values) > start:
        begun.iloc[start] = values.iloc[start - days + 1 : start + 1].fillna(0).mean()
    return begun.ewm(alpha=alpha, adjust=False, ignore_na=True).mean()


def wilder(values: pd.Series, start: int) -> pd.Series:
    """Wilder's mean of 14 days."""
    return smoothed(values, 1 / 14, 14, start)


def ratio(one: pd.Series, other: pd.Series) -> pd.Series:
    """one / other, 0 where that is 0."""
    return (one / other).where(other != 0, 0)


def surprise(values: pd.Series, usual: pd.Series) -> pd.Series:
    """log of values to usual, each raised by 1 % of usual."""
    return np.log((values + 0.01 * usual) / (1.01 * usual)).where(usual != 0, 0)
