"""Calibration: temperatures that are known, coverage that holds, and what is left alone and said."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from tests.tiny import forecast_of, panel_of
from vnq_colab.data.forecast import COLUMNS, SCORES, check_forecast
from vnq_colab.errors import DataError
from vnq_colab.evaluation.calibration import LEAST_EDGE, LEAST_SLOPE, Calibration, with_volatility
from vnq_colab.evaluation.significance import effective_n
from vnq_colab.settings import build

N_SYMBOLS, N_DAYS = 30, 400


def five_day_noise(random, n_symbols, n_days, freedom=np.inf):
    """`[symbols, days]`: sums of five daily shocks of variance 1 / 5; neighbouring days overlap, symbols correlate."""
    shocks = [random.normal(size=shape) if np.isinf(freedom) else
              random.standard_t(freedom, shape) / np.sqrt(freedom / (freedom - 2))
              for shape in ((1, n_days + 4), (n_symbols, n_days + 4))]
    daily = (np.sqrt(0.28) * shocks[0] + np.sqrt(0.72) * shocks[1]) / np.sqrt(5)
    return sum(daily[:, step : step + n_days] for step in range(5))


def world(seed, *, n_symbols=N_SYMBOLS, n_days=N_DAYS, freedom=np.inf, signal=0.3, too_sure=1.0, stated=0.05):
    """A forecast with `actual` = 0.05 (signal + noise), and p_up with its logit too large by `too_sure`."""
    random = np.random.default_rng(seed)
    days = pd.bdate_range("2023-01-02", periods=n_days)
    known = signal * five_day_noise(random, n_symbols, n_days)
    noise = np.sqrt(1 - signal**2) * five_day_noise(random, n_symbols, n_days, freedom)
    tables = []
    for place in range(n_symbols):
        symbol, mean = f"S{place:02}", 0.05 * known[place]
        p_up = expit(too_sure * 1.702 * mean / (0.05 * np.sqrt(1 - signal**2)))  # 1.702: the logistic beside the normal
        tables.append(forecast_of(symbol, days, mean, stated, p_up).assign(actual=mean + 0.05 * noise[place],
                                                                             volatility=0.05))
    return pd.concat(tables, ignore_index=True)


def fit(rows):
    return Calibration.fit("stockformer", rows)


def scores_of(rows):
    """What a family gives that has no expectation of its own."""
    return rows[[*SCORES, "actual", "volatility"]]


@pytest.mark.parametrize("too_sure", [0.5, 1.0, 3.0])
def test_fit_finds_the_temperature_that_was_planted(too_sure):
    found = fit(world(1, n_days=2000, too_sure=too_sure, signal=0.5))
    assert found.slope * too_sure == pytest.approx(1, abs=0.1)


def test_fit_equals_a_second_implementation_of_platts_regression():
    optimize = pytest.importorskip("scipy.optimize")
    rows = world(2, too_sure=2.0)
    found = fit(rows)
    x, up = logit(rows["p_up"]), rows["actual"] > 0
    n_windows = effective_n(up, rows["date"])
    n_up, n_down = (n_windows * share for share in (up.mean(), 1 - up.mean()))
    target = np.where(up, (n_up + 1) / (n_up + 2), 1 / (n_down + 2))

    def loss(slope):
        p = expit(slope * x)
        return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()

    assert found.slope == pytest.approx(optimize.minimize_scalar(loss, tol=1e-12).x, abs=1e-4)


def covered_later(seed, **kind):
    """Share of the outcomes of the second half inside the intervals of a calibration on the first, a purge between."""
    rows = world(seed, **kind)
    days = rows["date"].unique()
    half = len(days) // 2
    found = fit(rows[rows["date"] < days[half - 5]])
    later = found.apply(rows[rows["date"] >= days[half]])
    return later["actual"].between(later["low"], later["high"]).mean()


@pytest.mark.parametrize("freedom", [np.inf, 5, 3])
def test_intervals_hold_their_coverage_on_days_that_were_not_seen(freedom):
    covered = [covered_later(seed, n_symbols=10, n_days=1000, freedom=freedom, stated=0.02) for seed in range(6)]
    assert 0.88 <= np.mean(covered) <= 0.92  # though the stated scale is far too small


def test_intervals_of_few_windows_of_one_symbol_hold_at_least_their_coverage():
    covered = [covered_later(seed, n_symbols=1, n_days=200) for seed in range(100)]
    assert 0.9 - 0.01 <= np.mean(covered) <= 0.96  # 19 windows: wide for safety


def test_quantile_of_one_symbol_equals_the_hand_computed_rank():
    days = pd.bdate_range("2024-01-01", periods=200)
    forecast = forecast_of("AAA", days, 0.0, 0.5).assign(
        actual=np.random.default_rng(0).permutation(np.arange(1, 201)) / 100, volatility=0.05)
    found = fit(forecast)
    # 40 independent windows: level 0.9 × 41 / 40 = 0.9225; place 0.9225 × 199 = 183.6, so the 185th of |actual| / 0.5
    assert found.quantile == pytest.approx(1.85 / 0.5)
    assert found.apply(forecast)["high"].to_numpy() == pytest.approx(1.85)
    assert found.apply(forecast)["low"].to_numpy() == pytest.approx(-1.85)


def test_intervals_of_too_few_days_are_not_known():
    rows = world(4, n_symbols=1, n_days=40)  # 8 windows do not reach into a tail of 10 %
    found = fit(rows)
    assert found.quantile is None and found.apply(rows)[["low", "high"]].isna().all(axis=None)


@given(st.floats(0.05, 5), st.floats(0, 1), st.floats(0, 1))
def test_apply_keeps_the_order_and_the_side(slope, one, other):
    calibration = Calibration("stockformer", 0.01, 1.0, slope, 1.6)
    days = pd.bdate_range("2024-01-01", periods=2)
    low, high = sorted((one, other))
    forecast = forecast_of("AAA", days, 0.0, p_up=[low, high]).assign(volatility=0.05)
    p_low, p_high = calibration.apply(forecast)["p_up"]
    assert 0 <= p_low <= p_high <= 1
    for raw, made in ((low, p_low), (high, p_high)):
        assert abs(raw - 0.5) < 1e-12 or (made > 0.5) == (raw > 0.5)


def test_a_p_up_that_points_the_wrong_way_is_shrunk_to_one_half():
    rows = world(8)
    found = fit(rows.assign(p_up=1 - rows["p_up"]))
    assert found.slope == LEAST_SLOPE
    assert found.apply(rows)["p_up"].between(0.45, 0.55).all()


@pytest.mark.parametrize("rows", [
    world(9, n_days=60).assign(actual=0.01), world(9, n_days=60).assign(actual=-0.01),  # one direction
    world(9, n_days=60).assign(actual=0.0), world(10, n_symbols=1, n_days=100),  # never moved; 20 windows
    world(10).assign(p_up=0.6)])
def test_what_cannot_be_fitted_leaves_p_up_as_it_is(rows):
    found = fit(rows)
    assert found.slope == 1
    pd.testing.assert_series_equal(found.apply(rows)["p_up"], rows["p_up"], check_exact=True)


def test_probabilities_of_0_and_1_can_be_fitted_and_applied():
    sure = world(11)
    sure["p_up"] = (sure["mean"] > 0).astype("float64")
    found = fit(sure)
    assert 0 < found.slope < 0.5 and found.apply(sure)["p_up"].between(0.3, 0.7).all()


def test_apply_gives_a_forecast_that_passes_its_door():
    rows = world(12, too_sure=2.0)
    for table in (rows, scores_of(rows)):
        made = check_forecast(fit(table).apply(table))
        assert set(made.columns) == {*COLUMNS, "actual", "volatility", "low", "high"}
        assert (made["low"] < made["mean"]).all() and (made["mean"] < made["high"]).all()
        assert "low" not in table.columns


def test_edge_is_the_slope_of_the_outcome_on_the_score_standardised_within_the_day():
    """Three days of three stocks by hand: z = -√1.5, 0, √1.5 on each, whatever the scores' spread and level."""
    days, relative = pd.bdate_range("2024-01-01", periods=3), np.array([[-0.01, 0.0, 0.01], [-0.03, 0.01, 0.02],
                                                                        [0.01, 0.0, -0.01]])
    rows = pd.concat([forecast_of(symbol, days, 0.0).drop(columns=["edge", "mean", "scale", "p_up"]).assign(
        score=[place, 10 + 5 * place, 0.1 * place], actual=relative[:, place] + [0.02, -0.05, 0.0],
        volatility=0.04)
        for place, symbol in enumerate(("AAA", "BBB", "CCC"))])
    found = fit(rows)
    assert found.edge == pytest.approx(np.sqrt(1.5) * (0.02 + 0.05 - 0.02) / (3 * 2 * 1.5))
    made = found.apply(rows)
    z = np.repeat([-np.sqrt(1.5), 0, np.sqrt(1.5)], 3)
    assert made["edge"].to_numpy() == pytest.approx(found.edge * z) == made["mean"].to_numpy()
    left = rows["actual"].to_numpy() - found.edge * z
    assert 0.04 * found.spread == pytest.approx(np.sqrt((left**2).mean())) == made["scale"].iloc[0]


def test_family_without_an_expectation_gets_mean_scale_and_p_up_from_its_score():
    rows = world(5, n_symbols=20, n_days=1000)
    wild = rows["symbol"] == "S01"
    rows.loc[wild, ["actual", "volatility"]] *= 2
    found = fit(scores_of(rows))
    made = found.apply(scores_of(rows))
    assert found.edge == pytest.approx(0.05 * 0.3 * np.sqrt(0.72), rel=0.15)  # the market's part is no order
    np.testing.assert_array_equal(made["mean"], made["edge"])
    np.testing.assert_allclose(made["scale"], found.spread * rows["volatility"])
    assert found.spread == pytest.approx(1, abs=0.1)
    inside = made["actual"].between(made["low"], made["high"])
    assert inside[wild].mean() == pytest.approx(0.9, abs=0.04) == inside[~wild].mean()
    assert np.corrcoef(made["p_up"], made["mean"])[0, 1] > 0.9


def test_expectation_of_its_own_is_kept():
    rows = world(5, n_symbols=4)
    pd.testing.assert_frame_equal(fit(rows).apply(rows)[["mean", "scale"]], rows[["mean", "scale"]])


def test_order_without_skill_keeps_its_order_and_next_to_no_edge():
    rows = world(16)
    found = fit(scores_of(rows).assign(score=-rows["score"]))
    assert found.edge == LEAST_EDGE


def test_day_on_which_all_scores_are_equal_has_no_edge():
    rows = scores_of(world(15, n_symbols=3))
    first = rows["date"] == rows["date"].min()
    made = fit(rows).apply(rows.assign(score=rows["score"].where(~first, 0.25)))
    assert (made.loc[first, "edge"] == 0).all() and (made.loc[~first, "edge"] != 0).all()


def test_calibration_is_exact_to_and_from_json():
    found = fit(world(13, n_symbols=2, n_days=600, too_sure=2.0))
    assert build(Calibration, json.loads(json.dumps(asdict(found)))) == found


def market_of_two_moods(seed=0, n_symbols=40, n_days=800):
    """A panel whose stocks all move three times as much in every second stretch of 100 days."""
    random = np.random.default_rng(seed)
    mood = np.where(np.arange(n_days) // 100 % 2, 0.03, 0.01)
    own = np.linspace(0.5, 1.5, n_symbols)[:, None]
    names = tuple(f"S{place:02}" for place in range(n_symbols))
    return panel_of(own * mood * random.normal(size=(n_symbols, n_days)), names,
                    pd.bdate_range("2022-01-03", periods=n_days))


def test_volatility_is_what_the_evening_knows():
    """Not a bit of it changes when the days after the evening do, and it follows both the stock and its mood."""
    panel = market_of_two_moods()
    rows = pd.DataFrame({"symbol": np.repeat(panel.symbols, 3), "date": np.tile(panel.days[[190, 290, 390]], 40)})
    found = with_volatility(rows, panel, 5)
    prices = panel.prices.copy()
    prices[::2, 391:] *= 7
    again = with_volatility(rows, replace(panel, prices=prices), 5)
    pd.testing.assert_series_equal(found["volatility"], again["volatility"], check_exact=True)
    assert not np.allclose(found["actual"], again["actual"])
    by_day = found.groupby("date")["volatility"]
    assert by_day.mean().to_numpy() == pytest.approx(np.sqrt(5) * np.array([0.03, 0.01, 0.03]), rel=0.2)
    assert (by_day.last() > 2 * by_day.first()).all()
    assert found["actual"].to_numpy() == pytest.approx(panel.ahead(5)[np.repeat(range(40), 3), [190, 290, 390] * 40])


def test_volatility_equals_a_slow_second_implementation():
    panel = market_of_two_moods(n_symbols=6, n_days=120)
    rows = pd.DataFrame({"symbol": ["S03"], "date": panel.days[[100]]})
    found = with_volatility(rows, panel, 5)["volatility"].iloc[0]
    squares = panel.returns[:, 1:101] ** 2

    def recent(values, half_life):
        weights = 0.5 ** (np.arange(len(values))[::-1] / half_life)
        return (weights * values).sum() / weights.sum()

    market = squares.mean(axis=0)
    assert found == pytest.approx(np.sqrt(5 * recent(squares[3], 20) * recent(market, 5) / recent(market, 20)))


def test_volatility_of_a_stock_without_a_past_is_the_market_s_and_never_zero():
    returns = np.random.default_rng(0).normal(0, 0.02, (5, 100))
    returns[0] = 0  # its price never moves
    panel = panel_of(returns, tuple("ABCDE"))
    panel.present[1, :99], panel.prices[1, :99] = False, np.nan  # its first day is the last one
    rows = pd.DataFrame({"symbol": list("ABCDE"), "date": panel.days[[99] * 5]})
    still, new, *others = with_volatility(rows, panel, 5)["volatility"]
    assert np.mean(others) / 4 < still < np.mean(others) / 2 < new < 1.2 * np.mean(others)
    nothing = with_volatility(rows.assign(date=panel.days[0]), panel_of(np.zeros((5, 9)), tuple("ABCDE")), 5)
    assert nothing["volatility"].to_numpy() == pytest.approx(0.02 * np.sqrt(5))


def test_intervals_hold_in_calm_and_in_wild_stretches():
    panel = market_of_two_moods()
    random, days = np.random.default_rng(1), panel.days[60:-5]
    rows = pd.DataFrame({"family": "trees", "symbol": np.repeat(panel.symbols, len(days)),
                         "date": np.tile(days, 40), "score": random.normal(size=40 * len(days))})
    rows = with_volatility(rows, panel, 5)
    first, later = (rows[part] for part in (rows["date"] < panel.days[394], rows["date"] >= panel.days[400]))
    made = Calibration.fit("trees", first).apply(later)
    inside = made["actual"].between(made["low"], made["high"])
    mood = (panel.days.get_indexer(made["date"]) + 3) // 100 % 2  # of the days that are forecast
    for stretch in (0, 1):
        assert inside[mood == stretch].mean() == pytest.approx(0.9, abs=0.05)


def test_calibration_without_a_validation_day_is_refused():
    with pytest.raises(DataError, match="stockformer: no validation day has an outcome"):
        fit(world(14, n_days=60).iloc[:0])
