"""Calibration: temperatures that are known, coverage that holds, and what is left alone and said."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from vnq_colab.data.forecast import check_forecast, make_forecast
from vnq_colab.errors import ConfigError, DataError
from vnq_colab.evaluation.calibration import LEAST_SLOPE, Calibration
from vnq_colab.evaluation.probability import interval_coverage

N_SYMBOLS, N_DAYS = 30, 400


def five_day_noise(random, n_symbols, n_days, freedom=np.inf):
    """`[symbols, days]`: sums of five daily shocks of variance 1 / 5; neighbouring days overlap, symbols correlate."""
    shocks = [random.normal(size=shape) if np.isinf(freedom) else
              random.standard_t(freedom, shape) / np.sqrt(freedom / (freedom - 2))
              for shape in ((1, n_days + 4), (n_symbols, n_days + 4))]
    daily = (np.sqrt(0.28) * shocks[0] + np.sqrt(0.72) * shocks[1]) / np.sqrt(5)
    return sum(daily[:, step : step + n_days] for step in range(5))


def world(seed, *, n_symbols=N_SYMBOLS, n_days=N_DAYS, freedom=np.inf, signal=0.3, too_sure=1.0, stated=0.05):
    """A forecast and its outcomes: actual = 0.05 (signal + noise), p_up with its logit too large by `too_sure`."""
    random = np.random.default_rng(seed)
    days = pd.bdate_range("2023-01-02", periods=n_days)
    known = signal * five_day_noise(random, n_symbols, n_days)
    noise = np.sqrt(1 - signal**2) * five_day_noise(random, n_symbols, n_days, freedom)
    tables, outcomes = [], []
    for place in range(n_symbols):
        symbol, mean = f"S{place:02}", 0.05 * known[place]
        p_up = expit(too_sure * 1.702 * mean / (0.05 * np.sqrt(1 - signal**2)))  # 1.702: the logistic beside the normal
        tables.append(make_forecast("stockformer", symbol, days, np.repeat(mean[:, None] / 5, 5, axis=1),
                                    np.full(n_days, stated), p_up))
        outcomes.append(pd.DataFrame({"symbol": symbol, "date": days, "actual": mean + 0.05 * noise[place]}))
    return pd.concat(tables, ignore_index=True), pd.concat(outcomes, ignore_index=True)


@pytest.mark.parametrize("too_sure", [0.5, 1.0, 3.0])
def test_fit_finds_the_temperature_that_was_planted(too_sure):
    found = Calibration.fit(*world(1, n_days=2000, too_sure=too_sure, signal=0.5))
    assert found.slope * too_sure == pytest.approx(1, abs=0.1)
    assert found.intercept == 0 and found.notes == ()


def test_fit_equals_a_second_implementation_of_platts_regression():
    optimize = pytest.importorskip("scipy.optimize")
    forecast, outcomes = world(2, too_sure=2.0)
    for intercept in (False, True):
        found = Calibration.fit(forecast, outcomes, intercept=intercept)
        rows = forecast.merge(outcomes)
        x, up = logit(rows["p_up"]), rows["actual"] > 0
        n_up, n_down = (found.n_windows * share for share in (up.mean(), 1 - up.mean()))
        target = np.where(up, (n_up + 1) / (n_up + 2), 1 / (n_down + 2))

        def loss(line, x=x, target=target, intercept=intercept):
            p = expit(line[0] * x + (line[1] if intercept else 0))
            return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()

        best = optimize.minimize(loss, [1.0, 0.0], tol=1e-12).x
        assert found.slope == pytest.approx(best[0], abs=1e-4)
        assert found.intercept == (pytest.approx(best[1], abs=1e-4) if intercept else 0)


def covered_later(seed, coverage, **kind):
    """Share of the outcomes of the second half inside the intervals of a calibration on the first, a purge between."""
    forecast, outcomes = world(seed, **kind)
    days = forecast["date"].unique()
    half = len(days) // 2
    found = Calibration.fit(forecast[forecast["date"] < days[half - 5]], outcomes, coverage=coverage)
    table = found.apply(forecast[forecast["date"] >= days[half]]).merge(outcomes, on=["symbol", "date"])
    return interval_coverage(table, coverage).loc[0, "covered"]


@pytest.mark.parametrize("freedom", [np.inf, 5, 3])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_intervals_hold_their_coverage_on_days_that_were_not_seen(freedom, coverage):
    covered = [covered_later(seed, coverage, n_symbols=10, n_days=1000, freedom=freedom, stated=0.02)
               for seed in range(6)]
    assert coverage - 0.02 <= np.mean(covered) <= coverage + 0.02  # though the stated scale is far too small


def test_intervals_of_one_year_hold_their_coverage_on_average_over_many_years():
    assert 0.88 <= np.mean([covered_later(seed, 0.9, n_symbols=8, n_days=500, freedom=4) for seed in range(25)]) <= 0.92


def test_intervals_of_few_windows_of_one_symbol_hold_at_least_their_coverage():
    covered = [covered_later(seed, 0.9, n_symbols=1, n_days=200) for seed in range(100)]
    assert 0.9 - 0.01 <= np.mean(covered) <= 0.96  # 19 windows: wide for safety


def test_quantile_of_one_symbol_equals_the_hand_computed_rank():
    days = pd.bdate_range("2024-01-01", periods=200)
    forecast = make_forecast("stockformer", "AAA", days, np.zeros((200, 5)), np.full(200, 0.5), np.full(200, 0.5))
    actual = np.random.default_rng(0).permutation(np.arange(1, 201)) / 100
    found = Calibration.fit(forecast, pd.DataFrame({"symbol": "AAA", "date": days, "actual": actual}))
    # 40 independent windows: level 0.9 × 41 / 40 = 0.9225; place 0.9225 × 199 = 183.6, so the 185th of |actual| / 0.5
    assert found.quantile == pytest.approx(1.85 / 0.5)
    assert found.apply(forecast)["high"].to_numpy() == pytest.approx(1.85)
    assert found.apply(forecast)["low"].to_numpy() == pytest.approx(-1.85)


def test_intervals_of_too_few_days_are_not_known():
    forecast, outcomes = world(4, n_symbols=1, n_days=40)  # 8 windows do not reach into a tail of 10 %
    found = Calibration.fit(forecast, outcomes)
    assert found.quantile is None and found.apply(forecast)[["low", "high"]].isna().all(axis=None)
    assert any("Intervals of 90% are not known" in note for note in found.notes)
    assert Calibration.fit(forecast, outcomes, coverage=0.5).quantile is not None


def test_symbols_get_numbers_of_their_own_only_with_enough_windows():
    forecast, outcomes = world(5, n_symbols=3, n_days=700)
    wide = outcomes["symbol"] == "S01"
    outcomes.loc[wide, "actual"] *= 2
    short = forecast[(forecast["symbol"] != "S02") | (forecast["date"] >= forecast["date"].unique()[300])]
    found = Calibration.fit(short, outcomes)
    assert set(found.own) == {"S00", "S01"}
    assert found.own["S01"]["quantile"] > 1.7 * found.own["S00"]["quantile"]
    applied = found.apply(forecast)
    half = ((applied["high"] - applied["low"]) / 2 / applied["scale"]).groupby(applied["symbol"]).first()
    assert half["S02"] == pytest.approx(found.quantile) and half["S01"] == pytest.approx(found.own["S01"]["quantile"])


def test_a_symbol_whose_own_p_up_says_nothing_takes_the_slope_of_all():
    forecast, outcomes = world(5, n_symbols=6, n_days=700, signal=0.5)
    forecast.loc[forecast["symbol"] == "S03", "p_up"] = 0.5
    found = Calibration.fit(forecast, outcomes)
    assert set(found.own) == set(forecast["symbol"]) and found.own["S03"]["slope"] == found.slope
    assert found.own["S02"]["slope"] not in (found.slope, 1.0)


def test_a_longer_overlap_is_not_counted_as_more_windows():
    forecast, outcomes = world(6, n_symbols=10)
    windows = Calibration.fit(forecast, outcomes).n_windows
    assert N_DAYS / 5 <= windows <= 10 * N_DAYS / 5
    copies = [table.assign(symbol=table["symbol"] + mark) for mark in "abc" for table in (forecast,)]
    same = pd.concat([outcomes.assign(symbol=outcomes["symbol"] + mark) for mark in "abc"])
    assert Calibration.fit(pd.concat(copies), same).n_windows == pytest.approx(windows)


@given(st.floats(0.05, 5), st.floats(0, 1), st.floats(0, 1))
def test_apply_keeps_the_order_and_without_an_intercept_the_side(slope, one, other):
    calibration = Calibration("stockformer", 0.9, slope, 0.0, 1.6, 50.0, "2023-01-02", "2023-12-29", {}, ())
    days = pd.bdate_range("2024-01-01", periods=2)
    low, high = sorted((one, other))
    forecast = make_forecast("stockformer", "AAA", days, np.zeros((2, 5)), np.full(2, 0.05), np.array([low, high]))
    p_low, p_high = calibration.apply(forecast)["p_up"]
    assert 0 <= p_low <= p_high <= 1
    for raw, made in ((low, p_low), (high, p_high)):
        assert abs(raw - 0.5) < 1e-12 or (made > 0.5) == (raw > 0.5)


def test_apply_with_an_intercept_says_where_the_side_changes():
    forecast, outcomes = world(7)
    outcomes["actual"] += 0.01  # a rising market
    found = Calibration.fit(forecast, outcomes, intercept=True)
    assert found.intercept > 0 and found.neutral() < 0.5
    assert f"A raw p_up of {found.neutral():.3f} becomes 0.5" in found.notes[0]
    there = forecast.head(1).assign(p_up=found.neutral())
    assert found.apply(there)["p_up"].iloc[0] == pytest.approx(0.5)
    assert Calibration.fit(forecast, outcomes).neutral() == 0.5


def test_a_p_up_that_points_the_wrong_way_is_drawn_to_one_half_and_said_so():
    forecast, outcomes = world(8)
    found = Calibration.fit(forecast.assign(p_up=1 - forecast["p_up"]), outcomes)
    assert found.slope == LEAST_SLOPE and "said nothing about the direction" in found.notes[0]
    assert found.apply(forecast)["p_up"].between(0.45, 0.55).all()


@pytest.mark.parametrize("actual, words", [(0.01, "prices only rose"), (-0.01, "prices only fell"),
                                           (0.0, "prices never moved")])
def test_validation_days_of_one_direction_leave_p_up_as_it_is(actual, words):
    forecast, outcomes = world(9, n_days=60)
    found = Calibration.fit(forecast, outcomes.assign(actual=actual))
    assert words in found.notes[0]
    pd.testing.assert_series_equal(found.apply(forecast)["p_up"], forecast["p_up"], check_exact=True)


def test_too_few_windows_or_a_constant_p_up_leave_p_up_as_it_is():
    few, constant = world(10, n_symbols=1, n_days=100), world(10)
    found = Calibration.fit(*few)
    assert "hold 20 independent windows, 30 are needed" in found.notes[0] and found.slope == 1
    found = Calibration.fit(constant[0].assign(p_up=0.6), constant[1])
    assert found.notes == ("p_up stays as it is: it is always 0.600.",) and found.quantile is not None


def test_probabilities_of_0_and_1_can_be_fitted_and_applied():
    forecast, outcomes = world(11)
    sure = forecast.assign(p_up=(forecast["mean"] > 0).astype("float64"))
    found = Calibration.fit(sure, outcomes)
    assert 0 < found.slope < 0.5 and found.apply(sure)["p_up"].between(0.3, 0.7).all()


def test_apply_gives_a_forecast_that_passes_its_door():
    forecast, outcomes = world(12, too_sure=2.0)
    made = check_forecast(Calibration.fit(forecast, outcomes).apply(forecast))
    assert list(made.columns) == [*forecast.columns, "low", "high"]
    assert (made["low"] < made["mean"]).all() and (made["mean"] < made["high"]).all()
    assert "low" not in forecast.columns


def test_calibration_is_exact_to_and_from_json():
    found = Calibration.fit(*world(13, n_symbols=2, n_days=600, too_sure=2.0))
    assert found.own and Calibration.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(ConfigError, match="keys slop, slope are unknown or missing"):
        Calibration.from_dict({"slop" if key == "slope" else key: value for key, value in found.to_dict().items()})


def test_calibration_says_what_it_does_in_a_few_lines():
    text = repr(Calibration.fit(*world(4, n_symbols=1, n_days=40)))
    assert text.startswith("Calibration of stockformer on 2023-01-02 to 2023-02-24, 8 independent windows: logit of "
                           "p_up × 1.00 +0.00, intervals of 90% unknown\n  p_up stays as it is")


def test_calibration_refuses_what_it_cannot_serve():
    forecast, outcomes = world(14, n_days=60)
    with pytest.raises(DataError, match="2 families .*Calibrate one at a time"):
        Calibration.fit(pd.concat([forecast, forecast.assign(family="zero")]), outcomes)
    with pytest.raises(DataError, match="rows of zero, but this is the calibration of stockformer"):
        Calibration.fit(forecast, outcomes).apply(forecast.assign(family="zero"))
    with pytest.raises(DataError, match="no day from 2023-01-02"):
        Calibration.fit(forecast, outcomes.assign(date=outcomes["date"] + pd.Timedelta(days=1000)))
    with pytest.raises(ConfigError, match="coverage = 1.5"):
        Calibration.fit(forecast, outcomes, coverage=1.5)
