"""All features, in the order of the Panel: those of prices, then those of the market, of a stock beside it, of dates.

Each is a pure function of a History `h`: nothing in row i looks at a later row, and 0, its neutral value, stands where
it is not defined. Indicators that TA-Lib has agree with it to 1e-6 (tests/test_talib.py). Add one by a line below.
"""

import numpy as np
import pandas as pd

from vnq_colab.data.history import Feature, History, deviation, feature, mean, rolling, shift, smoothed
from vnq_colab.data.market import EXCHANGES, LIMIT_TOLERANCE, LUNAR_NEW_YEARS


def covariance(one: np.ndarray, other: np.ndarray, days: int) -> np.ndarray:
    """`[..., rows] -> [..., rows]`: covariance (population) over the last `days` rows."""
    return mean(one * other, days) - mean(one, days) * mean(other, days)


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio, 0 where the denominator is 0; NaN where one is unknown."""
    return np.where(denominator == 0, 0 * numerator, numerator / denominator)


def surprise(values: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """log of `values` to `usual`, both raised by a hundredth of `usual` so that 0 has a logarithm; 0 if usual is 0."""
    return np.where(usual > 0, np.log((values + 0.01 * usual) / (1.01 * usual)), 0 * usual)


def _log_return(h: History, days: int) -> np.ndarray:
    return np.log(h.close / shift(h.close, days))


def _after(rows: int, values: np.ndarray) -> np.ndarray:
    """The values, unknown in the first rows of each symbol."""
    return np.where(np.arange(values.shape[1]) < rows, np.nan, values)


def _wilder(values: np.ndarray, start: int) -> np.ndarray:
    """Wilder's mean of 14 days, first known in row `start`."""
    return smoothed(values, 1 / 14, 14, start)


def _macd(h: History) -> np.ndarray:
    return smoothed(h.close, 2 / 13, 12, 25) - smoothed(h.close, 2 / 27, 26, 25)


def _macd_histogram(h: History) -> np.ndarray:
    line = _macd(h)
    return (line - smoothed(line, 2 / 10, 9, 33)) / h.close


def _rsi(h: History) -> np.ndarray:
    move = h.close - h.previous_close
    up, down = _wilder(np.maximum(move, 0), 14), _wilder(np.maximum(-move, 0), 14)
    return divide(up - down, up + down)


def _stochastic(h: History) -> np.ndarray:
    low, high = rolling(h.low, 14, np.minimum), rolling(h.high, 14, np.maximum)
    return divide(2 * h.close - low - high, high - low)


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


def _adx(h: History) -> np.ndarray:
    plus, minus, _ = _directional_means(h)
    total = plus + minus
    total[total == 0] = np.nan  # a day without direction leaves the mean as it was
    return _wilder(np.abs(plus - minus) / total, 27)


def _directional(h: History) -> np.ndarray:
    plus, minus, reach = _directional_means(h)
    return divide(plus - minus, reach)


def _bollinger(h: History) -> np.ndarray:
    usual = mean(h.close, 20)
    return divide(h.close - usual, 2 * deviation(h.close, 20, 1e-6 * usual))


def _cci(h: History) -> np.ndarray:
    usual = mean(h.typical, 14)
    away = np.abs(h.typical - usual)
    for days in range(1, 14):
        away += np.abs(shift(h.typical, days) - usual)
    away[away < 14e-9 * usual] = 0  # what is left of a constant is rounding
    return divide(h.typical - usual, 1.5 * away / 14)


def _range_surprise(h: History) -> np.ndarray:
    reach = np.log(h.high / h.low)
    return surprise(reach, mean(reach, 20))


def _close_in_range(h: History) -> np.ndarray:
    return divide(2 * h.close - h.low - h.high, h.high - h.low)


def _at_limit(h: History, move: np.ndarray, at_extreme: np.ndarray) -> np.ndarray:
    """1 where a move of the close, as a fraction of the last one, is that of the band, 0 elsewhere."""
    tolerance = np.array([LIMIT_TOLERANCE[name] for name in EXCHANGES])[h.market.exchange]
    band, tolerance = h.pack(h.market.band), h.pack(tolerance)
    return np.where(np.isnan(move), np.nan, at_extreme & (np.abs(move - band) <= tolerance))


def _skewness(h: History) -> np.ndarray:
    first, second = mean(h.returns, 60), mean(h.returns**2, 60)
    third = mean(h.returns**2 * h.returns, 60) - 3 * first * second + 2 * first * first * first
    spread = deviation(h.returns, 60)
    return divide(third, spread * spread * spread)


def _downside(h: History) -> np.ndarray:
    fallen, whole = rolling(np.minimum(h.returns, 0) ** 2, 20), rolling(h.returns**2, 20)
    return divide(2 * fallen - whole, whole)


def _money_flow(h: History) -> np.ndarray:
    flow, move = h.typical * h.volume, h.typical / shift(h.typical, 1) - 1
    sign = np.where(np.abs(move) < 1e-9, 0 * move, np.sign(move))  # equal sums of three prices differ by rounding
    return divide(rolling(sign * flow, 14), rolling(np.abs(sign) * flow, 14))


def _obv_slope(h: History) -> np.ndarray:
    signed = np.sign(h.close - h.previous_close) * h.volume
    slope = 19 / 2 / 665 * signed
    for days in range(1, 19):  # the least-squares slope of a sum, in terms of what was added `days` days ago
        slope += (19 - days) * (days + 1) / 2 / 665 * shift(signed, days)
    return divide(slope, mean(h.volume, 20))


def _illiquidity(h: History) -> np.ndarray:
    moved, traded = np.abs(h.returns), h.close * h.volume
    recent, usual = rolling(moved, 20), rolling(moved, 60)
    return surprise(3 * recent, usual) - surprise(3 * rolling(traded, 20), rolling(traded, 60))


def _volume_correlation(h: History) -> np.ndarray:
    volume = np.where(np.isnan(h.returns), np.nan, h.volume)
    spread = deviation(h.returns, 20) * deviation(volume, 20, 1e-6 * mean(volume, 20))
    return divide(covariance(h.returns, volume, 20), spread)


def _beta(h: History) -> np.ndarray:
    market = h.level - shift(h.level, 1)
    spread = deviation(market, 60, 1e-5)
    return np.where(spread > 0, covariance(h.returns, market, 60) / (spread * spread) - 1, 0 * spread)


def _tet_nearness(h: History) -> np.ndarray:
    days = h.market.days.to_numpy("datetime64[D]").astype("float64")
    tet = np.append(LUNAR_NEW_YEARS.to_numpy("datetime64[D]").astype("float64"), np.inf)
    return h.on_own_days(np.maximum(1 - (tet[np.searchsorted(tet, days, side="right")] - days) / 30, 0))


_BAND = "- 1 - band of its exchange and day| <= 0.005 on HOSE, 0.01 on HNX and UPCOM"

# name, formula, unit, what computes it, days before the first value, bounds (one number: from minus that), source
FEATURES: dict[str, Feature] = {item.name: item for item in (  # of returns and trends
    feature("return_1", "log(close / close of the day before)", "log return", lambda h: h.returns, 1, 0.2),
    feature("return_5", "log(close / close 5 days before)", "log return", lambda h: _log_return(h, 5), 5, 0.5),
    feature("return_20", "log(close / close 20 days before)", "log return", lambda h: _log_return(h, 20), 20),
    feature("return_60", "log(close / close 60 days before)", "log return", lambda h: _log_return(h, 60), 60, 1.5),
    feature("mean_distance_10", "log(close / mean close of 10 days)", "log ratio",
            lambda h: np.log(h.close / mean(h.close, 10)), 9, 0.4),
    feature("mean_distance_50", "log(close / mean close of 50 days)", "log ratio",
            lambda h: np.log(h.close / mean(h.close, 50)), 49),
    feature("macd_line", "(EMA12 - EMA26) / close", "fraction", lambda h: _macd(h) / h.close, 25, 0.4, "Appel 1979"),
    feature("macd_histogram", "(EMA12 - EMA26 - its EMA9) / close", "fraction", _macd_histogram, 33, 0.1, "Appel 1979"),
    feature("rsi_14", "(RSI14 - 50) / 50", "fraction", _rsi, 14, source="Wilder 1978"),
    feature("stochastic_14", "2 (close - lowest of 14) / (highest - lowest of 14) - 1", "fraction", _stochastic, 13,
            source="Lane 1984"),
    feature("adx_14", "ADX14 / 100: strength of a trend, up or down", "fraction", _adx, 27, (0, 1), "Wilder 1978"),
    feature("directional_14", "(+DI14 - -DI14) / 100", "fraction", _directional, 14, source="Wilder 1978"),
    feature("bollinger_20", "(close - mean of 20) / (2 std of 20)", "fraction", _bollinger, 19, 2.2, "Bollinger 1983"),
    feature("cci_14", "CCI14 / 100: (typical - its mean of 14) / (1.5 mean absolute distance from it), typical = (high "
            "+ low + close) / 3", "ratio", _cci, 13, 4.7, "Lambert 1980"),
    feature("efficiency_20", "return of 20 days / sum of the 20 absolute daily returns", "fraction",
            lambda h: divide(rolling(h.returns, 20), rolling(np.abs(h.returns), 20)), 20, source="Kaufman 1995"),
    feature("return_120", "log(close / close 120 days before)", "log return", lambda h: _log_return(h, 120), 120, 2.0),
    feature("high_distance_252", "log(close / highest high of up to 252 days)", "log ratio",
            lambda h: _after(59, np.log(h.close / rolling(h.high, 252, np.maximum, -np.inf))), 59, (-2.5, 0),
            "George & Hwang 2004"),
    feature("low_distance_252", "log(close / lowest low of up to 252 days)", "log ratio",
            lambda h: _after(59, np.log(h.close / rolling(h.low, 252, np.minimum, np.inf))), 59, (0, 3),
            "George & Hwang 2004"),
    # of a day
    feature("gap", "log(open / close of the day before)", "log return", lambda h: np.log(h.open / h.previous_close), 1,
            0.2),
    feature("body", "log(close / open)", "log return", lambda h: np.log(h.close / h.open), 0, 0.2),
    feature("upper_shadow", "log(high / max(open, close))", "log ratio",
            lambda h: np.log(h.high / np.maximum(h.open, h.close)), 0, (0, 0.15)),
    feature("lower_shadow", "log(min(open, close) / low)", "log ratio",
            lambda h: np.log(np.minimum(h.open, h.close) / h.low), 0, (0, 0.2)),
    feature("close_in_range", "2 (close - low) / (high - low) - 1", "fraction", _close_in_range),
    feature("range_surprise", "log(r / mean r of 20 days), r = log(high / low), each raised by 1 % of that mean",
            "log ratio", _range_surprise, 19, (-4.7, 3)),
    feature("ceiling_hit", f"1 if close = high and |close / close before {_BAND}", "flag",
            lambda h: _at_limit(h, h.close / h.previous_close - 1, h.close == h.high), 1, (0, 1)),
    feature("floor_hit", f"1 if close = low and |1 - close / close before {_BAND.removeprefix('- 1 ')}", "flag",
            lambda h: _at_limit(h, 1 - h.close / h.previous_close, h.close == h.low), 1, (0, 1)),
    # of volatility
    feature("true_range_14", "ATR14 / close", "fraction", lambda h: _wilder(_true_range(h), 14) / h.close, 14, (0, 0.2),
            "Wilder 1978"),
    feature("volatility_20", "standard deviation of daily returns, 20 days", "log return",
            lambda h: deviation(h.returns, 20), 20, (0, 0.12)),
    feature("volatility_ratio", "log(standard deviation of 5 / of 60 daily returns), each raised by 1 % of the latter",
            "log ratio", lambda h: surprise(deviation(h.returns, 5), deviation(h.returns, 60)), 60, (-4.7, 1.3)),
    feature("parkinson_10", "sqrt(mean of log(high / low)^2 over 10 days / (4 log 2))", "log return",
            lambda h: np.sqrt(mean(np.log(h.high / h.low) ** 2, 10) / (4 * np.log(2))), 9, (0, 0.12), "Parkinson 1980"),
    feature("skewness_60", "skewness of daily returns, 60 days", "ratio", _skewness, 60, 7.6),
    feature("downside_20", "2 (sum of squared falls / sum of squared returns) - 1, daily, 20 days", "fraction",
            _downside, 20, source="Barndorff-Nielsen, Kinnebrock & Shephard 2010"),
    # of volumes
    feature("volume_surprise", "log(volume / mean volume of 20 days), each raised by 1 % of that mean", "log ratio",
            lambda h: surprise(h.volume, mean(h.volume, 20)), 19, (-4.7, 3)),
    feature("volume_trend", "log(mean volume of 5 / of 60 days), each raised by 1 % of the latter", "log ratio",
            lambda h: surprise(mean(h.volume, 5), mean(h.volume, 60)), 59, (-4.7, 2.5)),
    feature("money_flow_14", "(MFI14 - 50) / 50: (up flow - down flow) / (up + down) of 14 days, flow = typical price "
            "x volume", "fraction", _money_flow, 14, source="Quong & Soudack 1989"),
    feature("obv_slope_20", "slope of the on-balance volume over 20 days / mean volume of 20 days", "fraction per day",
            _obv_slope, 19, 1.51, "Granville 1963"),
    feature("chaikin_flow_20", "sum of volume x (2 close - high - low) / (high - low) / sum of volume, 20 days",
            "fraction", lambda h: divide(rolling(h.volume * _close_in_range(h), 20), rolling(h.volume, 20)), 19,
            source="Chaikin 1982"),
    feature("illiquidity_20", "log((3 R20 + 0.01 R60) / (3 M20 + 0.01 M60)) - log(R60 / M60), Rn and Mn the sums over "
            "n days of absolute log returns and of close x volume: a ratio of sums, not the mean of daily ratios",
            "log ratio", _illiquidity, 60, 4.0, "after Amihud 2002"),
    feature("volume_correlation_20", "correlation of the daily return with the volume, 20 days", "correlation",
            _volume_correlation, 20, source="Karpoff 1987"),
    # of the market
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
            lambda h: _log_return(h, 20) - (h.level - shift(h.level, 20)), 20),
    feature("beta_60", "slope of the daily return on the market's, 60 days, less 1", "ratio", _beta, 60, 3.0,
            "Sharpe 1964"),
    feature("return_rank_5", "rank of the 5-day return among the stocks of the day, -1 lowest to 1 highest", "rank",
            lambda h: h.pack(h.market.ranks(FEATURES["return_5"].compute)), 5, source="Jegadeesh 1990"),
    feature("volume_rank", "rank of the volume surprise among the stocks of the day, -1 lowest to 1 highest", "rank",
            lambda h: h.pack(h.market.ranks(FEATURES["volume_surprise"].compute)), 19),
    feature("weekday", "day of the week, Monday -1 to Friday 1", "fraction",
            lambda h: h.on_own_days(h.market.days.day_of_week.to_numpy("float64") / 2 - 1)),
    feature("tet_nearness", "1 - calendar days to the lunar new year / 30, 0 when it is further away", "fraction",
            _tet_nearness, 0, (0, 1)),
)}


def features_table() -> pd.DataFrame:
    """Every feature: name, formula, unit, warm-up [days], source, low, high."""
    table = pd.DataFrame([*FEATURES.values()]).drop(columns="compute")
    return table.rename(columns={"warm_up_days": "warm-up [days]"})
