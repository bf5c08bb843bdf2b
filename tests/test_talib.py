"""Indicators against TA-Lib, a second implementation that the library itself does not need."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from vnq_colab.data.features import FEATURES
from vnq_colab.data.history import MarketSeries

talib = pytest.importorskip("talib", reason="TA-Lib is not installed: pip install TA-Lib")


def prices_on_ticks(seed, n_days=600):
    """One stock on a tick of 50 VND, so that equal prices are common."""
    random = np.random.default_rng(seed)
    close = np.round(30_000 * np.exp(np.cumsum(random.normal(0, 0.02, n_days))) / 50) * 50
    opening = np.append(close[0], close[:-1]) + 50 * random.integers(-6, 7, n_days)
    high = np.maximum(opening, close) + 50 * random.integers(0, 8, n_days)
    low = np.minimum(opening, close) - 50 * random.integers(0, 8, n_days)
    return pd.DataFrame({"symbol": "AAA", "date": pd.bdate_range("2020-01-01", periods=n_days), "open": opening,
                         "high": high, "low": low, "close": close, "volume": random.integers(1, 10**6, n_days)})


def with_halts(seed):
    """The same with a stretch without a move, days without trades, and a flat beginning."""
    table = prices_on_ticks(seed)
    for first, last in ((0, 9), (200, 215), (300, 345), (400, 403)):
        close = table.loc[first, "close"]
        table.loc[first:last, ["open", "high", "low", "close"]] = close
        table.loc[first:last, "volume"] = 0
    return table


def real_stock(symbol):
    if not (SHARED_DATA / "vn_daily.parquet").exists():
        pytest.skip("the shared data is not here: no real prices to try")
    table = pd.read_parquet(SHARED_DATA / "vn_daily.parquet", filters=[("symbol", "==", symbol)])
    return table.assign(date=table["date"].astype("datetime64[ns]"))


STOCKS = {
    "alive": lambda: prices_on_ticks(0), "alive too": lambda: prices_on_ticks(1), "with halts": lambda: with_halts(2),
    "FPT": lambda: real_stock("FPT"), "HNX's SHS": lambda: real_stock("SHS"), "UPCOM's ACV": lambda: real_stock("ACV"),
}



def bollinger(t):
    upper, middle, _ = talib.BBANDS(t.close, 20, 2, 2)
    return (t.close - middle) / (upper - middle)


def chaikin(t):
    """From TA-Lib's accumulation/distribution line."""
    line = talib.AD(t.high, t.low, t.close, t.volume)
    return (line - line.shift(20)) / talib.SUM(t.volume, 20)


def returns(t):
    return np.log(talib.ROCR(t.close, 1))


# feature: what TA-Lib says, brought to the feature's own scale
ORACLES = {
    "return_5": lambda t: np.log(talib.ROCR(t.close, 5)),
    "return_120": lambda t: np.log(talib.ROCR(t.close, 120)),
    "mean_distance_10": lambda t: np.log(t.close / talib.SMA(t.close, 10)),
    "mean_distance_50": lambda t: np.log(t.close / talib.SMA(t.close, 50)),
    "macd_line": lambda t: talib.MACD(t.close)[0] / t.close,
    "macd_histogram": lambda t: talib.MACD(t.close)[2] / t.close,
    "rsi_14": lambda t: talib.RSI(t.close, 14) / 50 - 1,
    "stochastic_14": lambda t: talib.STOCHF(t.high, t.low, t.close, 14, 1)[0] / 50 - 1,
    "adx_14": lambda t: talib.ADX(t.high, t.low, t.close, 14) / 100,
    "directional_14": lambda t: (talib.PLUS_DI(t.high, t.low, t.close, 14)
                                 - talib.MINUS_DI(t.high, t.low, t.close, 14)) / 100,
    "bollinger_20": bollinger,
    "cci_14": lambda t: talib.CCI(t.high, t.low, t.close, 14) / 100,
    "true_range_14": lambda t: talib.NATR(t.high, t.low, t.close, 14) / 100,
    "high_distance_252": lambda t: np.log(t.close / talib.MAX(t.high, 252)),
    "low_distance_252": lambda t: np.log(t.close / talib.MIN(t.low, 252)),
    "volatility_20": lambda t: talib.STDDEV(returns(t), 20),
    "money_flow_14": lambda t: talib.MFI(t.high, t.low, t.close, t.volume, 14) / 50 - 1,
    "obv_slope_20": lambda t: talib.LINEARREG_SLOPE(talib.OBV(t.close, t.volume), 20) / talib.SMA(t.volume, 20),
    "chaikin_flow_20": chaikin,
    "volume_correlation_20": lambda t: talib.CORREL(returns(t), t.volume, 20),
}
LATER = {"macd_line": 33, "high_distance_252": 251, "low_distance_252": 251, "chaikin_flow_20": 20}  # TA-Lib's first

# Without a range or volume there is no ratio: TA-Lib says 0, which is "oversold", or what rounding leaves; we say 0 on
# our own scale, which is neutral.
UNDEFINED = {
    "rsi_14": lambda t: t.close.cummax() == t.close.cummin(),
    "stochastic_14": lambda t: talib.MAX(t.high, 14) == talib.MIN(t.low, 14),
    "bollinger_20": lambda t: talib.MAX(t.close, 20) == talib.MIN(t.close, 20),
    "cci_14": lambda t: talib.MAX(t.high, 14) == talib.MIN(t.low, 14),
    "money_flow_14": lambda t: talib.SUM(t.volume * talib.TYPPRICE(t.high, t.low, t.close).diff().ne(0), 14) == 0,
    "obv_slope_20": lambda t: talib.SMA(t.volume, 20) == 0,
    "chaikin_flow_20": lambda t: talib.SUM(t.volume, 20) == 0,
    "volume_correlation_20": lambda t: (talib.MAX(t.close, 21) == talib.MIN(t.close, 21))
    | (talib.MAX(t.volume, 20) == talib.MIN(t.volume, 20)),
}


@pytest.mark.parametrize("stock", STOCKS)
@pytest.mark.parametrize("name", ORACLES)
def test_indicator_equals_talib(name, stock):
    table = STOCKS[stock]()
    if name in ("adx_14", "directional_14"):
        # whether the high rose by more than the low fell: where adjusted prices make equal moves differ in the last
        # digit TA-Lib lets that digit decide, and we do not
        prices = ["open", "high", "low", "close"]
        table[prices] = (table[prices] / 50).round() * 50
    history = next(MarketSeries(table).histories())
    with np.errstate(invalid="ignore", divide="ignore"):
        ours = FEATURES[name].compute(history)[0]
        columns = table[["open", "high", "low", "close", "volume"]].astype("float64").reset_index(drop=True)
        theirs = ORACLES[name](columns).to_numpy()
        undefined = UNDEFINED[name](columns).to_numpy() if name in UNDEFINED else np.zeros(len(ours), dtype=bool)
    assert (np.abs(np.nan_to_num(ours[undefined])) < 1e-6).all()
    first = FEATURES[name].warm_up_days
    assert np.isnan(ours[:first]).all() and np.isfinite(ours[first:]).all()
    rows = np.arange(len(ours)) >= LATER.get(name, first)
    np.testing.assert_allclose(ours[rows & ~undefined], theirs[rows & ~undefined], rtol=0, atol=1e-6)
