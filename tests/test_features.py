import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from vnq_colab.data.features import FEATURES, features_table
from vnq_colab.data.history import MarketSeries, rolling
from vnq_colab.data.market import LIMIT_TOLERANCE, LUNAR_NEW_YEARS
from vnq_colab.data.panel import build_panel

PRICES = ["open", "high", "low", "close"]


@pytest.fixture(scope="module")
def real_prices():
    if not (SHARED_DATA / "vn_daily.parquet").exists():
        pytest.skip("the shared data is not here: no real prices to try")
    table = pd.read_parquet(SHARED_DATA / "vn_daily.parquet")
    return table.assign(date=table["date"].astype("datetime64[ns]"))


def one_stock(closes, **columns):
    """A price table of one stock with these closes on consecutive business days."""
    closes = np.asarray(closes, dtype=float)
    table = pd.DataFrame({"symbol": "AAA", "date": pd.bdate_range("2024-01-01", periods=len(closes)), "open": closes,
                          "high": closes, "low": closes, "close": closes, "volume": 1000})
    return table.assign(**columns)


def value(table, name, day=-1, symbol=0):
    block = build_panel(table)
    return float(block.values[symbol, day, list(FEATURES).index(name)])


def random_stock(n_days=200, seed=0):
    random = np.random.default_rng(seed)
    return one_stock(20_000 * np.exp(np.cumsum(random.normal(0, 0.02, n_days))))


def test_features_are_fifty_and_each_says_what_it_is():
    assert features_table()["name"].tolist() == list(FEATURES) and len(FEATURES) == 50
    for name, item in FEATURES.items():
        assert name == item.name and item.formula and item.unit and item.source, name
        assert item.low <= 0 <= item.high and item.low < item.high, f"{name}: 0 is its neutral value"


def test_formulas_of_the_limits_and_of_illiquidity_are_those_that_are_computed():
    for name in ("ceiling_hit", "floor_hit"):
        for number in LIMIT_TOLERANCE.values():
            assert f"{number}" in FEATURES[name].formula
    assert FEATURES["illiquidity_20"].source == "after Amihud 2002"
    table = random_stock(61)
    moved, money = table["close"].map(np.log).diff().abs().to_numpy()[1:], (table["close"] * table["volume"]).to_numpy()
    r20, r60, m20, m60 = moved[-20:].sum(), moved.sum(), money[-20:].sum(), money[1:].sum()
    by_its_formula = np.log((3 * r20 + 0.01 * r60) / (3 * m20 + 0.01 * m60)) - np.log(r60 / m60)
    assert value(table, "illiquidity_20") == pytest.approx(by_its_formula, abs=1e-6)


def test_every_feature_is_finite_bounded_and_not_constant(panel):
    values = panel.values[panel.present]
    for place, item in enumerate(FEATURES.values()):
        column = values[:, place]
        assert np.isfinite(column).all(), item.name
        assert np.float32(item.low) <= column.min() and column.max() <= np.float32(item.high), item.name
        assert column.std() > 1e-6, item.name
    assert np.abs(np.corrcoef(values.T) - np.eye(50)).max() < 0.999, "two that say the same"


@pytest.mark.slow
def test_real_prices_give_finite_features_rarely_clipped_and_no_two_that_say_the_same(real_prices):
    block = build_panel(real_prices)
    values = block.values[block.present]
    assert np.isfinite(values).all()
    correlation = np.corrcoef(values.T)
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 0.98
    market = MarketSeries(real_prices)
    for place, item in enumerate(FEATURES.values()):
        at_bound = np.isin(values[:, place], np.float32([item.low, item.high]))
        with np.errstate(invalid="ignore", divide="ignore"):
            raw = market.across(item.compute)[at_bound]
        clipped = (raw < item.low - 1e-9) | (raw > item.high + 1e-9)
        assert clipped.sum() <= 1e-3 * len(values), item.name


# --- the past keeps its bits

LAST = 300  # the day of the fixture's calendar up to which everything must stay


def changed(prices, day):
    """Other prices and volumes after the day."""
    later = prices["date"] > day
    table = prices.copy()
    for name in PRICES:
        table[name] = np.where(later, table[name] * 1.7, table[name])
    return table.assign(volume=np.where(later, table["volume"] * 9 + 100, table["volume"]))


def newcomers(prices, day):
    """Stocks that exist only later, before, between and after the others' names."""
    later = prices[(prices["date"] > day) & (prices["symbol"] == "SYN001")]
    return pd.concat([prices, *(later.assign(symbol=name) for name in ("AAA", "SYN0035", "ZZZ"))])


FUTURES = {  # beside those of tests/test_lookahead.py
    "another exchange": lambda prices, day: prices.assign(
        exchange=prices["exchange"].where(prices["date"] <= day, "UPCOM")),
    "holes": lambda prices, day: prices[(prices["date"] <= day) | (np.arange(len(prices)) % 3 > 0)],
    "everything at once": lambda prices, day: newcomers(changed(prices[prices["symbol"].ne("SYN002")
                                                                       | (prices["date"] <= day)], day), day),
}


@pytest.mark.parametrize("future", FUTURES)
def test_no_bit_of_a_feature_knows_the_future(prices, future):
    days = np.sort(prices["date"].unique())
    index = pd.DataFrame({"date": days, "close": 1000 * 1.001 ** np.arange(len(days)) * (1 + days.astype(int) % 7)})
    other_index = index.assign(close=index["close"].where(index["date"] <= days[LAST], 1234.5))
    whole, other = build_panel(prices, index), build_panel(FUTURES[future](prices, days[LAST]), other_index)
    rows = [other.symbols.index(symbol) for symbol in whole.symbols]
    for part in ("values", "prices", "present"):
        np.testing.assert_array_equal(getattr(other, part)[rows, : LAST + 1], getattr(whole, part)[:, : LAST + 1])
    others = np.setdiff1d(np.arange(len(other.symbols)), rows)
    assert not other.present[others, : LAST + 1].any()


def test_future_of_real_prices_changes_no_bit(real_prices):
    """185 stocks are enough for a sum over all of them to round by their number."""
    day = pd.Timestamp("2016-06-30")
    late = real_prices[real_prices["date"] > day].groupby("symbol").head(40).assign(
        symbol=lambda table: "A" + table["symbol"].astype(str))
    few = real_prices[real_prices["date"] < "2016-09-01"]
    whole, other = build_panel(few), build_panel(pd.concat([few[few["date"] <= day], late]))
    n_days = int(whole.days.searchsorted(day, side="right"))
    here = [place for place, symbol in enumerate(whole.symbols) if symbol in other.symbols]
    rows = [other.symbols.index(whole.symbols[place]) for place in here]
    kept = whole.values[here, :n_days]
    assert len(here) > 80 and other.values[rows, :n_days].tobytes() == kept.tobytes()


def test_sum_over_a_window_is_the_same_wherever_it_stands():
    random = np.random.default_rng(0)
    values = random.normal(size=(1, 300)) * 1e6
    for days in (2, 5, 13, 60, 252):
        np.testing.assert_array_equal(rolling(values[:, 40:], days)[:, days:], rolling(values, days)[:, 40 + days :])
        np.testing.assert_allclose(rolling(values, days)[0, -1], values[0, -days:].sum(), rtol=1e-10)
        assert rolling(values, days, np.maximum)[0, -1] == values[0, -days:].max()
        assert np.isnan(rolling(values, days)[0, : days - 1]).all()
    assert rolling(values, 252, np.minimum, np.inf)[0, 9] == values[0, :10].min()


# --- units do not matter


def test_feature_of_a_stock_does_not_depend_on_its_price_level(panel, prices):
    scaled = prices.assign(**{name: prices[name] * 4 for name in PRICES})
    np.testing.assert_array_equal(build_panel(scaled).values, panel.values)
    thousands = prices.assign(**{name: prices[name] / 1000 for name in PRICES})
    np.testing.assert_allclose(build_panel(thousands).values, panel.values, atol=2e-5)


def test_feature_of_a_stock_does_not_depend_on_its_number_of_shares(panel, prices):
    of_one = prices.assign(volume=prices["volume"].where(prices["symbol"] != "SYN002", prices["volume"] * 1000))
    np.testing.assert_allclose(build_panel(of_one).values, panel.values, atol=2e-5)


def test_stock_that_never_moves_or_trades_is_neutral():
    """Of what is not of the market's or the calendar's making, only the two distances from a range are not 0: at 0."""
    block = build_panel(pd.concat([one_stock(np.full(300, 12_345.678), volume=0),
                                   random_stock(300).assign(symbol="BBB")]))
    last = dict(zip(FEATURES, block.values[0, -1], strict=True))
    others = {"market_return_1", "market_return_20", "market_volatility_20", "breadth", "breadth_50", "weekday",
              "tet_nearness", "relative_strength_20", "beta_60", "return_rank_5", "volume_rank"}
    assert {name: value for name, value in last.items() if name not in others and abs(value) > 1e-6} == {}


# --- hand-computed numbers


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


def test_beta_equals_the_regression_slope(prices):
    block = build_panel(prices)
    own = block.returns[0, -60:]
    market = np.nanmean(block.returns[:, -60:], axis=0)
    slope = np.cov(own, market, bias=True)[0, 1] / market.var()
    assert block.values[0, -1, list(FEATURES).index("beta_60")] == pytest.approx(slope - 1, abs=1e-4)


def test_rank_runs_from_lowest_to_highest(prices):
    block = build_panel(prices)
    place = list(FEATURES).index("return_rank_5")
    five = block.values[:, -1, list(FEATURES).index("return_5")]
    ranks = block.values[np.argsort(five), -1, place]
    assert ranks[0] == -1 and ranks[-1] == 1 and (np.diff(ranks) >= 0).all()


def test_index_replaces_the_mean_of_the_stocks(prices):
    days = np.sort(prices["date"].unique())
    index = pd.DataFrame({"date": days, "close": 1000 * 1.001 ** np.arange(len(days))})
    block = build_panel(prices, index)
    assert block.values[0, -1, list(FEATURES).index("market_return_1")] == pytest.approx(np.log(1.001), rel=1e-4)


def test_absent_day_leaves_a_hole_and_shifts_nothing(prices):
    rows = prices.index[prices["symbol"] == "SYN002"]  # there on every day
    block = build_panel(prices.drop(rows[100]))
    assert not block.present[1, 100]
    assert np.isnan(block.prices[1, 100]).all() and np.isnan(block.returns[1, 100]) and not block.values[1, 100].any()
    close = prices["close"].to_numpy()[rows]
    assert block.returns[1, 101] == pytest.approx(np.log(close[101] / close[99]))


def test_table_in_any_order_gives_the_same(prices, panel):
    np.testing.assert_array_equal(build_panel(prices.sample(frac=1, random_state=0)).values, panel.values)


def test_shortest_tables_give_neutral_values():
    for n_days in (1, 2, 13, 14, 27, 60):
        block = build_panel(random_stock(n_days))
        assert np.isfinite(block.values).all() and block.values.shape == (1, n_days, 50)
        for place, item in enumerate(FEATURES.values()):
            assert not block.values[0, : item.warm_up_days, place].any(), item.name


def test_limit_flags_follow_the_band_of_the_exchange():
    def flags(move, exchange=None, day=-1, high=None):
        closes = [10_000.0] * 5 + [10_000 * (1 + move)]
        table = one_stock(closes, high=np.maximum(closes, high or 0), exchange=exchange or "")
        return value(table, "ceiling_hit", day), value(table, "floor_hit", day)

    assert flags(0.07) == flags(0.07, "HOSE") == flags(0.067) == (1, 0)
    assert flags(-0.07, "HOSE") == (0, 1)
    assert flags(0.07, "HNX") == flags(0.06, "HOSE") == flags(0.15, "HOSE") == flags(0, "HOSE") == (0, 0)
    assert flags(0.10, "HNX") == flags(0.099, "HNX") == flags(0.15, "UPCOM") == (1, 0)
    assert flags(0.068, "HOSE", high=10_700.0) == (0, 0), "the close left the ceiling again"
    early = one_stock([10_000, 10_500]).assign(date=pd.to_datetime(["2012-06-04", "2012-06-05"]))
    assert value(early, "ceiling_hit") == 1, "the band of HOSE was 5 % until 2013"


def test_volume_beside_its_mean_is_raised_by_a_hundredth_of_it(prices):
    table = prices[prices["symbol"] == "SYN003"].reset_index(drop=True)
    volume = table["volume"].to_numpy(float)[-20:]
    raised = 0.01 * volume.mean()
    assert value(table, "volume_surprise") == pytest.approx(
        np.log((volume[-1] + raised) / (volume.mean() + raised)), rel=1e-5)


def test_distance_to_the_extremes_takes_a_year_or_what_there_is():
    table = random_stock(400)
    close = table["close"].to_numpy()
    assert value(table, "high_distance_252") == pytest.approx(np.log(close[-1] / close[-252:].max()), abs=1e-6)
    assert value(table, "low_distance_252", day=100) == pytest.approx(np.log(close[100] / close[:101].min()), abs=1e-6)
    assert value(table, "low_distance_252", day=58) == 0


def test_breadth_counts_the_stocks_of_the_day():
    rising, falling = one_stock([100, 101, 102]), one_stock([100, 99, 98]).assign(symbol="BBB")
    still, absent = one_stock([100, 100, 100]).assign(symbol="CCC"), one_stock([1, 2, 3]).assign(symbol="DDD").iloc[:2]
    table = pd.concat([rising, falling, still, absent])
    assert value(table, "breadth", day=1) == pytest.approx((2 - 1) / 4)
    assert value(table, "breadth", day=2) == pytest.approx((1 - 1) / 3)


def test_relative_strength_compares_the_same_days(prices):
    """A stock that was halted is held against the market's move over its own 20 days, not over the last 20."""
    rows = prices.index[prices["symbol"] == "SYN002"]
    block = build_panel(prices.drop(rows[770:790]))
    market = np.nancumsum(np.append(0, np.nanmean(block.returns[:, 1:], axis=0)))
    own = np.flatnonzero(block.present[1])
    expected = block.returns[1, own[-20:]].sum() - (market[own[-1]] - market[own[-21]])
    assert own[-21] == 759
    assert block.values[1, -1, list(FEATURES).index("relative_strength_20")] == pytest.approx(expected, abs=1e-6)


# --- the calendar


def new_moon(lunation):
    """Day [days since 1970-01-01, UTC] of a new moon, to some minutes. Source: Meeus 1998, chapter 49."""
    t = lunation / 1236.85
    middle = 2451550.09766 + 29.530588861 * lunation + 0.00015437 * t**2
    sun, moon, node = (np.radians(v) for v in (2.5534 + 29.1053567 * lunation, 201.5643 + 385.81693528 * lunation,
                                               160.7108 + 390.67050284 * lunation))
    e = 1 - 0.002516 * t
    wave = (-0.4072 * np.sin(moon) + 0.17241 * e * np.sin(sun) + 0.01608 * np.sin(2 * moon) + 0.01039 * np.sin(2 * node)
            + 0.00739 * e * np.sin(moon - sun) - 0.00514 * e * np.sin(moon + sun) + 0.00208 * e * e * np.sin(2 * sun)
            - 0.00111 * np.sin(moon - 2 * node) - 0.00057 * np.sin(moon + 2 * node))
    seconds_ahead = 62.92 + 0.32217 * 100 * t + 0.005589 * (100 * t) ** 2  # of dynamical time. Espenak & Meeus 2006
    return middle + wave - seconds_ahead / 86_400 - 2440587.5


def test_tet_is_the_day_of_a_new_moon_in_vietnam():
    """The new moon that comes between 21 January and 20 February by Vietnam's clock."""
    moons = np.floor(np.array([new_moon(lunation) for lunation in range(-2, 450)]) + 7 / 24).astype(int)
    moons = pd.DatetimeIndex(moons.astype("datetime64[D]"))
    spring = [moon for moon in moons if 2000 <= moon.year <= 2035 and "01-21" <= f"{moon:%m-%d}" <= "02-20"]
    first = {moon.year: moon for moon in reversed(spring)}  # 2004 has a second one, of its second month
    assert LUNAR_NEW_YEARS.is_monotonic_increasing and LUNAR_NEW_YEARS.year.tolist() == list(range(2000, 2036))
    assert [f"{first[tet.year]:%Y-%m-%d}" for tet in LUNAR_NEW_YEARS] == [f"{tet:%Y-%m-%d}" for tet in LUNAR_NEW_YEARS]


def test_tet_lies_in_the_longest_gap_of_each_year():
    if not (SHARED_DATA / "vn_index.parquet").exists():
        pytest.skip("the shared data is not here: no trading days to hold the dates against")
    index = pd.read_parquet(SHARED_DATA / "vn_index.parquet")
    days = pd.DatetimeIndex(np.unique(index.loc[index["symbol"] == "VNINDEX", "date"].to_numpy("datetime64[ns]")))
    within = [tet for tet in LUNAR_NEW_YEARS if days[0] < tet < days[-1]]
    assert len(within) >= 20
    for tet in within:
        place = days.searchsorted(tet)
        assert days[place] != tet and (days[place] - days[place - 1]).days >= 5, tet


def test_nearness_of_tet_grows_to_the_break_and_is_none_after_it():
    table = one_stock(np.full(60, 100.0)).assign(date=pd.date_range("2024-01-01", periods=60))
    near = build_panel(table).values[0, :, list(FEATURES).index("tet_nearness")]
    assert near[10] == 0 and near[10 + 15] == pytest.approx(0.5) and near[39] == pytest.approx(29 / 30)
    assert not near[40:].any(), "2024-02-10 and later"
    later = one_stock([100.0, 101.0]).assign(date=pd.to_datetime(["2036-01-20", "2036-01-21"]))
    assert value(later, "tet_nearness") == 0, "no date is known"
