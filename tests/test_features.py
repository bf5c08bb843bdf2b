import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.features import FEATURES, compute_features, features_table
from vnq_colab.data.history import History


def one_stock(closes, **columns):
    """A price table of one stock with these closes on consecutive business days."""
    closes = np.asarray(closes, dtype=float)
    table = pd.DataFrame({"symbol": "AAA", "date": pd.bdate_range("2024-01-01", periods=len(closes)), "open": closes,
                          "high": closes, "low": closes, "close": closes, "volume": 1000})
    return table.assign(**columns)


def value(table, name, day=-1, symbol=0):
    block = compute_features(table)
    return float(block.values[symbol, day, list(FEATURES).index(name)])


def random_stock(n_days=200, seed=0):
    random = np.random.default_rng(seed)
    return one_stock(20_000 * np.exp(np.cumsum(random.normal(0, 0.02, n_days))))


def test_every_feature_is_finite_bounded_and_not_constant(panel):
    values = panel.values[panel.present]
    for place, item in enumerate(FEATURES.values()):
        column = values[:, place]
        assert np.isfinite(column).all() and np.abs(column).max() <= item.bound, item.name
        assert column.std() > 1e-6, item.name


def test_no_two_features_say_the_same(panel):
    correlation = np.corrcoef(panel.values[panel.present].T)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.999


def test_no_feature_knows_the_future(prices):
    """Every later price and volume is changed, some stocks vanish: up to the day all bits stay."""
    days = np.sort(prices["date"].unique())
    day = days[300]
    later = prices["date"] > day
    changed = prices[~(later & (prices["symbol"] == "SYN002"))].copy()
    later = changed["date"] > day
    for name in ("open", "high", "low", "close"):
        changed[name] = np.where(later, changed[name] * 1.7, changed[name])
    changed["volume"] = np.where(later, changed["volume"] * 9 + 100, changed["volume"])
    whole, other, cut = (compute_features(table) for table in (prices, changed, prices[prices["date"] <= day]))
    last = int(np.searchsorted(whole.days, day)) + 1
    for block in (other, cut):
        np.testing.assert_array_equal(block.values[:, :last], whole.values[:, :last])
        np.testing.assert_array_equal(block.returns[:, :last], whole.returns[:, :last])
    assert not np.array_equal(other.values[0, last:], whole.values[0, last:])


def test_feature_of_a_stock_does_not_depend_on_its_price_level(panel, prices):
    scaled = prices.copy()
    for name in ("open", "high", "low", "close"):
        scaled[name] = scaled[name] * 4
    np.testing.assert_allclose(compute_features(scaled).values, panel.values, atol=1e-5)


def test_return_counts_the_days_of_the_stock_itself():
    table = one_stock([100, 110, 121, 133.1, 146.41, 161.051])
    assert value(table, "return_1") == pytest.approx(np.log(1.1))
    assert value(table, "return_5") == pytest.approx(5 * np.log(1.1))


def test_value_before_its_warm_up_is_neutral():
    table = random_stock(80)
    assert value(table, "return_60", day=59) == 0
    assert value(table, "return_60", day=60) == pytest.approx(np.log(table["close"][60] / table["close"][0]), rel=1e-5)


def test_candle_features_are_what_their_formulas_say():
    table = one_stock([100, 104], open=[100, 102], high=[100, 108], low=[100, 100])
    assert value(table, "gap") == pytest.approx(np.log(1.02))
    assert value(table, "upper_shadow") == pytest.approx(np.log(108 / 104), rel=1e-5)
    assert value(table, "lower_shadow") == pytest.approx(np.log(102 / 100), rel=1e-5)
    assert value(table, "close_in_range") == pytest.approx(0.0)


def test_rsi_equals_wilders_recursion():
    table = random_stock()
    move = table["close"].diff().to_numpy()
    up = down = None
    for step in move[1:]:
        gain, loss = max(step, 0), max(-step, 0)
        up = gain if up is None else up + (gain - up) / 14
        down = loss if down is None else down + (loss - down) / 14
    assert value(table, "rsi_14") == pytest.approx((up - down) / (up + down), rel=1e-4)


def test_bollinger_and_stochastic_equal_the_slow_way():
    table = random_stock()
    close = table["close"].to_numpy()
    assert value(table, "bollinger_20") == pytest.approx(
        (close[-1] - close[-20:].mean()) / (2 * close[-20:].std(ddof=1)), rel=1e-4)
    low, high = close[-14:].min(), close[-14:].max()
    assert value(table, "stochastic_14") == pytest.approx(2 * (close[-1] - low) / (high - low) - 1, abs=1e-5)


def test_beta_equals_the_regression_slope(prices):
    block = compute_features(prices)
    own = block.returns[0, -60:]
    market = np.nanmean(block.returns[:, -60:], axis=0)
    slope = np.cov(own, market, bias=True)[0, 1] / market.var()
    assert block.values[0, -1, list(FEATURES).index("beta_60")] == pytest.approx(slope - 1, abs=1e-4)


def test_rank_runs_from_lowest_to_highest(prices):
    block = compute_features(prices)
    place = list(FEATURES).index("return_rank_5")
    five = block.values[:, -1, list(FEATURES).index("return_5")]
    ranks = block.values[np.argsort(five), -1, place]
    assert ranks[0] == -1 and ranks[-1] == 1 and (np.diff(ranks) >= 0).all()


def test_index_replaces_the_mean_of_the_stocks(prices):
    days = np.sort(prices["date"].unique())
    index = pd.DataFrame({"date": days, "close": 1000 * 1.001 ** np.arange(len(days))})
    block = compute_features(prices, index)
    assert block.values[0, -1, list(FEATURES).index("market_return_1")] == pytest.approx(np.log(1.001), rel=1e-4)


def test_absent_day_leaves_a_hole_and_shifts_nothing(prices):
    rows = prices.index[prices["symbol"] == "SYN001"]
    block = compute_features(prices.drop(rows[100]))
    assert not block.present[0, 100]
    assert np.isnan(block.returns[0, 100]) and not block.values[0, 100].any()
    close = prices["close"].to_numpy()[rows]
    assert block.returns[0, 101] == pytest.approx(np.log(close[101] / close[99]))


def test_blocks_go_to_the_calendar_and_back(prices):
    history = History(prices)
    np.testing.assert_array_equal(history.from_days(history.to_days(history.close)), history.close)


def test_table_of_features_is_the_registry():
    table = features_table()
    assert table["name"].tolist() == list(FEATURES)
    assert table["formula"].str.len().min() > 5
