"""Scores of probabilities and intervals against scikit-learn, an integral, and numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vnq_colab.errors import DataError
from vnq_colab.evaluation.probability import (
    crps_normal,
    expected_calibration_error,
    interval_coverage,
    interval_score,
    log_loss_of,
    reliability_curve,
)


def table_of(p_up, actual, family="stockformer", n_symbols=1):
    """Rows of one family, `n_symbols` a date."""
    dates = np.repeat(pd.bdate_range("2020-01-01", periods=-(-len(p_up) // n_symbols)), n_symbols)[: len(p_up)]
    return pd.DataFrame({"family": family, "symbol": [f"S{place % n_symbols}" for place in range(len(p_up))],
                         "date": dates, "p_up": p_up, "actual": actual})


def honest(seed, n, n_symbols=1):
    """p_up that are true: prices rise as often as said."""
    random = np.random.default_rng(seed)
    p_up = random.beta(20, 20, n)
    return table_of(p_up, np.where(random.random(n) < p_up, 0.01, -0.01), n_symbols=n_symbols)


def test_log_loss_equals_scikit_learn_also_of_probabilities_0_and_1():
    metrics = pytest.importorskip("sklearn.metrics")
    p_up, up = np.array([0.0, 1.0, 0.3, 0.9, 1.0]), np.array([1, 1, 0, 1, 0])
    assert log_loss_of(p_up, up).mean() == pytest.approx(metrics.log_loss(up, p_up))
    assert log_loss_of([0.5, 0.25], [True, False]) == pytest.approx([np.log(2), -np.log(0.75)])


@given(st.floats(-0.2, 0.2), st.floats(-0.1, 0.1), st.floats(0.01, 0.1))
def test_crps_equals_the_integral_that_defines_it(actual, mean, scale):
    x = np.linspace(-1.5, 1.5, 300_001)
    from scipy.stats import norm

    squares = (norm.cdf(x, mean, scale) - (x >= actual)) ** 2
    assert crps_normal(actual, mean, scale) == pytest.approx(np.trapezoid(squares, x), abs=1e-5)


def test_crps_equals_the_mean_of_two_draws():
    """CRPS = E|X - y| - E|X - X'| / 2, the form of ensembles."""
    draws = np.random.default_rng(0).normal(0.01, 0.05, (2, 2_000_000))
    slow = np.abs(draws[0] - 0.04).mean() - np.abs(draws[0] - draws[1]).mean() / 2
    assert crps_normal(0.04, 0.01, 0.05) == pytest.approx(slow, abs=1e-4)


def test_crps_without_spread_is_the_absolute_error_and_is_best_for_the_truth():
    assert crps_normal([0.03, -0.02], 0.01, 1e-12) == pytest.approx([0.02, 0.03])
    actual = np.random.default_rng(1).normal(0.01, 0.05, 100_000)
    truth = crps_normal(actual, 0.01, 0.05).mean()
    assert all(crps_normal(actual, mean, scale).mean() > truth for mean, scale in
               ((0.01, 0.04), (0.01, 0.06), (0.02, 0.05), (0.0, 0.05)))


def test_interval_score_equals_the_hand_computed_costs():
    found = interval_score([0.0, 0.07, -0.06], -0.05, 0.05, 0.9)
    assert found == pytest.approx([0.1, 0.1 + 20 * 0.02, 0.1 + 20 * 0.01])


@pytest.mark.parametrize("equal_width", [False, True])
def test_reliability_curve_equals_scikit_learn(equal_width):
    calibration = pytest.importorskip("sklearn.calibration")
    table = honest(0, 3000)
    curve = reliability_curve(table, n_bins=7, equal_width=equal_width)
    share, said = calibration.calibration_curve(table["actual"] > 0, table["p_up"], n_bins=7,
                                                strategy="uniform" if equal_width else "quantile")
    assert curve["up_share"].to_numpy() == pytest.approx(share) and curve["p_up"].to_numpy() == pytest.approx(said)
    assert curve["n"].sum() == 3000


def test_reliability_curve_equals_the_hand_computed_table():
    table = table_of([0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.9], [-0.01, 0.02, -0.01, 0.01, 0.01, 0.01, -0.03, 0.0])
    curve = reliability_curve(table, n_bins=2)  # the last day is flat
    assert curve["n"].tolist() == [3, 4] and curve["up_share"].to_numpy() == pytest.approx([1 / 3, 3 / 4])
    assert curve["p_up"].to_numpy() == pytest.approx([0.4, 0.6])
    assert curve["n_independent"].to_numpy() == pytest.approx([3 / 5, 4 / 5])
    error = expected_calibration_error(table, n_bins=2)
    assert error["stockformer"] == pytest.approx((3 * (0.4 - 1 / 3) + 4 * (0.75 - 0.6)) / 7)


def test_reliability_curve_never_tears_equal_probabilities_apart():
    random = np.random.default_rng(2)
    p_up = random.choice([0.45, 0.5, 0.55], 500, p=[0.1, 0.8, 0.1])
    curve = reliability_curve(table_of(p_up, random.normal(size=500)), n_bins=10)
    assert curve["p_from"].tolist() == curve["p_to"].tolist() == [0.45, 0.5, 0.55]
    assert len(reliability_curve(table_of(np.full(500, 0.5), random.normal(size=500)))) == 1


def test_reliability_intervals_hold_the_truth_and_widen_when_symbols_move_together():
    inside = [((curve["up_low"] <= curve["p_up"]) & (curve["p_up"] <= curve["up_high"])).mean()
              for curve in (reliability_curve(honest(seed, 4000, n_symbols=4), n_bins=5) for seed in range(20))]
    assert np.mean(inside) > 0.93
    week = honest(3, 80).loc[np.repeat(np.arange(80), 5)].assign(date=pd.bdate_range("2020-01-01", periods=400))
    many = pd.concat([week.assign(symbol=f"S{place}") for place in range(10)])  # ten symbols that are one
    apart, together = reliability_curve(honest(4, 4000, n_symbols=10), n_bins=2), reliability_curve(many, n_bins=2)
    assert (together["n"] > 1900).all() and (together["n_independent"] < 0.3 * apart["n_independent"]).all()
    assert (together["up_high"] - together["up_low"]).mean() > 1.5 * (apart["up_high"] - apart["up_low"]).mean()


def test_calibration_error_is_small_for_true_probabilities_and_large_for_false_ones():
    table = honest(5, 50_000)
    both = pd.concat([table, table.assign(family="boaster", p_up=np.clip(0.5 + 4 * (table["p_up"] - 0.5), 0, 1))])
    error = expected_calibration_error(both)
    assert error["stockformer"] < 0.01 < 0.15 < error["boaster"] and list(error.index) == ["boaster", "stockformer"]


def test_interval_coverage_equals_the_hand_computed_table():
    table = table_of([0.5] * 4, [0.0, 0.05, 0.06, -0.2]).assign(low=-0.05, high=0.05)
    table = pd.concat([table, table.assign(low=np.nan)])
    found = interval_coverage(table, 0.9).loc[0]
    assert (found["n_days"], found["covered"], found["width"]) == pytest.approx((4, 0.5, 0.1))
    assert found["interval_score"] == pytest.approx(0.1 + 20 * (0.01 + 0.15) / 4)
    assert found["n_independent"] == pytest.approx(4 / 5) and found["covered_low"] < 0.5 < found["covered_high"]


def test_interval_coverage_by_symbol_has_a_row_for_each():
    table = table_of([0.5] * 40, [0.01, 0.2] * 20, n_symbols=2).assign(low=-0.05, high=0.05)
    found = interval_coverage(table, 0.9, by=("family", "symbol"))
    assert found[["symbol", "covered"]].to_numpy().tolist() == [["S0", 1.0], ["S1", 0.0]]
    assert list(found.columns) == ["family", "symbol", "n_days", "n_independent", "covered", "covered_low",
                                   "covered_high", "width", "interval_score"]


def test_what_is_missing_is_named():
    table = table_of([0.5], [0.1])
    with pytest.raises(DataError, match="'actual' is missing. Make it with with_outcomes"):
        reliability_curve(table.drop(columns="actual"))
    with pytest.raises(DataError, match=r"columns \['low', 'high'\] are missing"):
        interval_coverage(table, 0.9)
    with pytest.raises(DataError, match="coverage = 90"):
        interval_coverage(table.assign(low=0, high=1), 90)
    with pytest.raises(DataError, match="n_bins = 0"):
        reliability_curve(table, n_bins=0)
