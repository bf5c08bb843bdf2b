"""Features of a stock's own past: its prices, candles, volatility and volume. Their order is that of the Panel.

Each is a pure function of a History: nothing in row i looks at a later row. Where a value is not defined (no range, no
volume) it is 0, and every feature is written so that 0 is its neutral value. Add one by writing a function under
`@feature(...)`. Indicators that TA-Lib has agree with it to 1e-6 from their first value on (tests/test_talib.py).
"""

import numpy as np

from vnq_colab.data.history import (
    History,
    covariance,
    deviation,
    divide,
    feature,
    mean,
    rolling,
    shift,
    smoothed,
    surprise,
)


# ------------------------------------------------------------------------------------------------- returns and trend
@feature("log(close / close of the day before)", "log return", warm_up_days=1, bounds=0.2)
def return_1(h: History) -> np.ndarray:
    return h.returns


@feature("log(close / close 5 days before)", "log return", warm_up_days=5, bounds=0.5)
def return_5(h: History) -> np.ndarray:
    return np.log(h.close / shift(h.close, 5))


@feature("log(close / close 20 days before)", "log return", warm_up_days=20, bounds=1.0)
def return_20(h: History) -> np.ndarray:
    return np.log(h.close / shift(h.close, 20))


@feature("log(close / close 60 days before)", "log return", warm_up_days=60, bounds=1.5)
def return_60(h: History) -> np.ndarray:
    return np.log(h.close / shift(h.close, 60))


@feature("log(close / mean close of 10 days)", "log ratio", warm_up_days=9, bounds=0.4)
def mean_distance_10(h: History) -> np.ndarray:
    return np.log(h.close / mean(h.close, 10))


@feature("log(close / mean close of 50 days)", "log ratio", warm_up_days=49, bounds=1.0)
def mean_distance_50(h: History) -> np.ndarray:
    return np.log(h.close / mean(h.close, 50))


@feature("(EMA12 - EMA26) / close", "fraction", warm_up_days=25, bounds=0.4, source="Appel 1979")
def macd_line(h: History) -> np.ndarray:
    return _macd(h) / h.close


@feature("(EMA12 - EMA26 - its EMA9) / close", "fraction", warm_up_days=33, bounds=0.1, source="Appel 1979")
def macd_histogram(h: History) -> np.ndarray:
    line = _macd(h)
    return (line - smoothed(line, 2 / 10, 9, 33)) / h.close


@feature("(RSI14 - 50) / 50", "fraction", warm_up_days=14, source="Wilder 1978")
def rsi_14(h: History) -> np.ndarray:
    move = h.close - h.previous_close
    up, down = _wilder(np.maximum(move, 0), 14), _wilder(np.maximum(-move, 0), 14)
    return divide(up - down, up + down)


@feature("2 (close - lowest of 14) / (highest - lowest of 14) - 1", "fraction", warm_up_days=13, source="Lane 1984")
def stochastic_14(h: History) -> np.ndarray:
    low, high = rolling(h.low, 14, np.minimum), rolling(h.high, 14, np.maximum)
    return divide(2 * h.close - low - high, high - low)


@feature("ADX14 / 100: strength of a trend, up or down", "fraction", warm_up_days=27, bounds=(0, 1),
         source="Wilder 1978")
def adx_14(h: History) -> np.ndarray:
    plus, minus, _ = _directional_means(h)
    total = plus + minus
    total[total == 0] = np.nan  # a day without direction leaves the mean as it was
    return _wilder(np.abs(plus - minus) / total, 27)


@feature("(+DI14 - -DI14) / 100", "fraction", warm_up_days=14, source="Wilder 1978")
def directional_14(h: History) -> np.ndarray:
    plus, minus, reach = _directional_means(h)
    return divide(plus - minus, reach)


@feature("(close - mean of 20) / (2 std of 20)", "fraction", warm_up_days=19, bounds=2.2, source="Bollinger 1983")
def bollinger_20(h: History) -> np.ndarray:
    usual = mean(h.close, 20)
    return divide(h.close - usual, 2 * deviation(h.close, 20, 1e-6 * usual))


@feature("CCI14 / 100: (typical - its mean of 14) / (1.5 mean absolute distance from it), typical = (high + low + "
         "close) / 3", "ratio", warm_up_days=13, bounds=4.7, source="Lambert 1980")
def cci_14(h: History) -> np.ndarray:
    usual = mean(h.typical, 14)
    away = np.abs(h.typical - usual)
    for days in range(1, 14):
        away += np.abs(shift(h.typical, days) - usual)
    away[away < 14e-9 * usual] = 0  # what is left of a constant is rounding
    return divide(h.typical - usual, 1.5 * away / 14)


@feature("return of 20 days / sum of the 20 absolute daily returns", "fraction", warm_up_days=20,
         source="Kaufman 1995")
def efficiency_20(h: History) -> np.ndarray:
    return divide(rolling(h.returns, 20), rolling(np.abs(h.returns), 20))


@feature("log(close / close 120 days before)", "log return", warm_up_days=120, bounds=2.0)
def return_120(h: History) -> np.ndarray:
    return np.log(h.close / shift(h.close, 120))


@feature("log(close / highest high of up to 252 days)", "log ratio", warm_up_days=59, bounds=(-2.5, 0),
         source="George & Hwang 2004")
def high_distance_252(h: History) -> np.ndarray:
    return _after(59, np.log(h.close / rolling(h.high, 252, np.maximum, -np.inf)))


@feature("log(close / lowest low of up to 252 days)", "log ratio", warm_up_days=59, bounds=(0, 3),
         source="George & Hwang 2004")
def low_distance_252(h: History) -> np.ndarray:
    return _after(59, np.log(h.close / rolling(h.low, 252, np.minimum, np.inf)))


# --------------------------------------------------------------------------------------------- the candle of the day
@feature("log(open / close of the day before)", "log return", warm_up_days=1, bounds=0.2)
def gap(h: History) -> np.ndarray:
    return np.log(h.open / h.previous_close)


@feature("log(close / open)", "log return", bounds=0.2)
def body(h: History) -> np.ndarray:
    return np.log(h.close / h.open)


@feature("log(high / max(open, close))", "log ratio", bounds=(0, 0.15))
def upper_shadow(h: History) -> np.ndarray:
    return np.log(h.high / np.maximum(h.open, h.close))


@feature("log(min(open, close) / low)", "log ratio", bounds=(0, 0.2))
def lower_shadow(h: History) -> np.ndarray:
    return np.log(np.minimum(h.open, h.close) / h.low)


@feature("2 (close - low) / (high - low) - 1", "fraction")
def close_in_range(h: History) -> np.ndarray:
    return divide(2 * h.close - h.low - h.high, h.high - h.low)


@feature("log(r / mean r of 20 days), r = log(high / low), each raised by 1 % of that mean", "log ratio",
         warm_up_days=19, bounds=(-4.7, 3))
def range_surprise(h: History) -> np.ndarray:
    reach = np.log(h.high / h.low)
    return surprise(reach, mean(reach, 20))


@feature("1 if close = high and |close / close before - 1 - band of its exchange and day| <= 0.005 on HOSE, 0.01 on "
         "HNX and UPCOM", "flag", warm_up_days=1, bounds=(0, 1))
def ceiling_hit(h: History) -> np.ndarray:
    return _at_limit(h, h.close / h.previous_close - 1, h.close == h.high)


@feature("1 if close = low and |1 - close / close before - band of its exchange and day| <= 0.005 on HOSE, 0.01 on "
         "HNX and UPCOM", "flag", warm_up_days=1, bounds=(0, 1))
def floor_hit(h: History) -> np.ndarray:
    return _at_limit(h, 1 - h.close / h.previous_close, h.close == h.low)


# --------------------------------------------------------------------------------------------------------- volatility
@feature("ATR14 / close", "fraction", warm_up_days=14, bounds=(0, 0.2), source="Wilder 1978")
def true_range_14(h: History) -> np.ndarray:
    return _wilder(_true_range(h), 14) / h.close


@feature("standard deviation of daily returns, 20 days", "log return", warm_up_days=20, bounds=(0, 0.12))
def volatility_20(h: History) -> np.ndarray:
    return deviation(h.returns, 20)


@feature("log(standard deviation of 5 / of 60 daily returns), each raised by 1 % of the latter", "log ratio",
         warm_up_days=60, bounds=(-4.7, 1.3))
def volatility_ratio(h: History) -> np.ndarray:
    return surprise(deviation(h.returns, 5), deviation(h.returns, 60))


@feature("sqrt(mean of log(high / low)^2 over 10 days / (4 log 2))", "log return", warm_up_days=9, bounds=(0, 0.12),
         source="Parkinson 1980")
def parkinson_10(h: History) -> np.ndarray:
    return np.sqrt(mean(np.log(h.high / h.low) ** 2, 10) / (4 * np.log(2)))


@feature("skewness of daily returns, 60 days", "ratio", warm_up_days=60, bounds=7.6)
def skewness_60(h: History) -> np.ndarray:
    first, second = mean(h.returns, 60), mean(h.returns**2, 60)
    third = mean(h.returns**2 * h.returns, 60) - 3 * first * second + 2 * first * first * first
    spread = deviation(h.returns, 60)
    return divide(third, spread * spread * spread)


@feature("2 (sum of squared falls / sum of squared returns) - 1, daily, 20 days", "fraction", warm_up_days=20,
         source="Barndorff-Nielsen, Kinnebrock & Shephard 2010")
def downside_20(h: History) -> np.ndarray:
    fallen, whole = rolling(np.minimum(h.returns, 0) ** 2, 20), rolling(h.returns**2, 20)
    return divide(2 * fallen - whole, whole)


# ------------------------------------------------------------------------------------------------------------- volume
@feature("log(volume / mean volume of 20 days), each raised by 1 % of that mean", "log ratio", warm_up_days=19,
         bounds=(-4.7, 3))
def volume_surprise(h: History) -> np.ndarray:
    return surprise(h.volume, mean(h.volume, 20))


@feature("log(mean volume of 5 / of 60 days), each raised by 1 % of the latter", "log ratio", warm_up_days=59,
         bounds=(-4.7, 2.5))
def volume_trend(h: History) -> np.ndarray:
    return surprise(mean(h.volume, 5), mean(h.volume, 60))


@feature("(MFI14 - 50) / 50: (up flow - down flow) / (up + down) of 14 days, flow = typical price x volume",
         "fraction", warm_up_days=14, source="Quong & Soudack 1989")
def money_flow_14(h: History) -> np.ndarray:
    flow, move = h.typical * h.volume, h.typical / shift(h.typical, 1) - 1
    sign = np.where(np.abs(move) < 1e-9, 0 * move, np.sign(move))  # equal sums of three prices differ by rounding
    return divide(rolling(sign * flow, 14), rolling(np.abs(sign) * flow, 14))


@feature("slope of the on-balance volume over 20 days / mean volume of 20 days", "fraction per day", warm_up_days=19,
         bounds=1.51, source="Granville 1963")
def obv_slope_20(h: History) -> np.ndarray:
    signed = np.sign(h.close - h.previous_close) * h.volume
    slope = 19 / 2 / 665 * signed
    for days in range(1, 19):  # the least-squares slope of a sum, in terms of what was added `days` days ago
        slope += (19 - days) * (days + 1) / 2 / 665 * shift(signed, days)
    return divide(slope, mean(h.volume, 20))


@feature("sum of volume x (2 close - high - low) / (high - low) / sum of volume, 20 days", "fraction",
         warm_up_days=19, source="Chaikin 1982")
def chaikin_flow_20(h: History) -> np.ndarray:
    return divide(rolling(h.volume * close_in_range(h), 20), rolling(h.volume, 20))


@feature("log((3 R20 + 0.01 R60) / (3 M20 + 0.01 M60)) - log(R60 / M60), Rn and Mn the sums over n days of absolute "
         "log returns and of close x volume: a ratio of sums, not the mean of daily ratios", "log ratio",
         warm_up_days=60, bounds=4.0, source="after Amihud 2002")
def illiquidity_20(h: History) -> np.ndarray:
    moved, traded = np.abs(h.returns), h.close * h.volume
    recent, usual = rolling(moved, 20), rolling(moved, 60)
    return surprise(3 * recent, usual) - surprise(3 * rolling(traded, 20), rolling(traded, 60))


@feature("correlation of the daily return with the volume, 20 days", "correlation", warm_up_days=20,
         source="Karpoff 1987")
def volume_correlation_20(h: History) -> np.ndarray:
    volume = np.where(np.isnan(h.returns), np.nan, h.volume)
    spread = deviation(h.returns, 20) * deviation(volume, 20, 1e-6 * mean(volume, 20))
    return divide(covariance(h.returns, volume, 20), spread)


# ------------------------------------------------------------------------------------------------- what several share
def _after(rows: int, values: np.ndarray) -> np.ndarray:
    """The values, unknown in the first rows of each symbol."""
    return np.where(np.arange(values.shape[1]) < rows, np.nan, values)


def _wilder(values: np.ndarray, start: int) -> np.ndarray:
    """Wilder's mean of 14 days, first known in row `start`."""
    return smoothed(values, 1 / 14, 14, start)


def _macd(h: History) -> np.ndarray:
    return smoothed(h.close, 2 / 13, 12, 25) - smoothed(h.close, 2 / 27, 26, 25)


def _true_range(h: History) -> np.ndarray:
    return np.maximum(h.high, h.previous_close) - np.minimum(h.low, h.previous_close)


def _directional_means(h: History) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wilder's means of the moves beyond yesterday's high, below yesterday's low, and of the true range."""
    up, down = h.high - shift(h.high, 1), shift(h.low, 1) - h.low
    equal = 1e-9 * h.close  # of two equal moves neither counts; adjusted prices make them differ by rounding
    plus, minus = (np.where((one > 0) & (one - other > equal), one, 0) for one, other in ((up, down), (down, up)))
    means = []
    for values in (plus, minus, _true_range(h)):
        values[:, 0] = 0  # Wilder begins with the sum of 13 days
        means.append(_after(14, _wilder(values, 13)))
    return tuple(means)


def _at_limit(h: History, move: np.ndarray, at_extreme: np.ndarray) -> np.ndarray:
    """1 where a move of the close, as a fraction of the last one, is that of the band, 0 elsewhere."""
    band, tolerance = h.pack(h.market.band), h.pack(h.market.limit_tolerance)
    return np.where(np.isnan(move), np.nan, at_extreme & (np.abs(move - band) <= tolerance))
