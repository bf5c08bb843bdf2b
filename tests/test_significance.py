"""Intervals and tests against scipy and statsmodels, and what they say at the ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vnq_colab.errors import DataError
from vnq_colab.evaluation.significance import benjamini_hochberg, binomial_p, wilson_interval


@given(st.integers(1, 400), st.floats(0, 1))
def test_wilson_interval_equals_scipy(n, share):
    successes = int(share * n)
    found = wilson_interval(successes, n)
    assert found == pytest.approx(binomtest(successes, n).proportion_ci(0.95, method="wilson"), abs=1e-12)


def test_wilson_interval_equals_the_published_formula_by_hand():
    low, high = wilson_interval(5, 10)  # z² = 3.8415: (0.5 + 0.19207 ± 1.96 √(0.025 + 0.0096036)) / 1.38415
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_wilson_interval_without_a_trial_is_unknown():
    low, high = wilson_interval(np.array([0.0, 3.0]), np.array([0, 6]))
    assert np.isnan([low[0], high[0]]).all() and 0 < low[1] < 0.5 < high[1] < 1


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0.05, 0.95))
def test_binomial_p_equals_scipys_one_sided_test(n, share, rate):
    successes = int(share * n)
    assert binomial_p(successes, n, rate) == pytest.approx(binomtest(successes, n, rate, "greater").pvalue, abs=1e-12)


def test_binomial_p_rounds_fractional_successes_down_but_not_below_what_they_are():
    assert binomial_p(30.9, 50, 0.5) == binomial_p(30, 50, 0.5)
    assert binomial_p(0.58 * 50, 50, 0.5) == binomial_p(29, 50, 0.5)  # 0.58 × 50 is 28.999999999999996
    assert binomial_p(0, 0, 0.5) == 1 and np.isnan(binomial_p(np.nan, 50, 0.5))


def test_benjamini_hochberg_equals_the_hand_computed_steps():
    # sorted p × 4 / rank: 0.04, 0.04, 0.0533, 0.5; then the running minimum from the right
    assert benjamini_hochberg(np.array([0.02, 0.5, 0.01, 0.04])) == pytest.approx([0.04, 0.5, 0.04, 0.16 / 3])


def test_benjamini_hochberg_equals_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).random(102) ** 2
    assert benjamini_hochberg(p_values) == pytest.approx(multitest.multipletests(p_values, method="fdr_bh")[1])


def test_benjamini_hochberg_leaves_out_tests_that_were_not_made():
    found = benjamini_hochberg(np.array([0.02, np.nan, 0.5, 0.01, 0.04]))
    assert np.isnan(found[1]) and found[[0, 2, 3, 4]] == pytest.approx([0.04, 0.5, 0.04, 0.16 / 3])
    assert np.isnan(benjamini_hochberg(np.array([np.nan, np.nan]))).all() and benjamini_hochberg(np.array([])).size == 0
    with pytest.raises(DataError, match="must not hold NaN"):
        benjamini_hochberg(np.array([[np.nan, 0.1]]))


def test_benjamini_hochberg_keeps_false_finds_rare_when_nothing_is_true():
    p_values = np.random.default_rng(1).random((2000, 50))  # [markets, tests] of true nulls
    assert (benjamini_hochberg(p_values) <= 0.05).any(axis=1).mean() == pytest.approx(0.05, abs=0.015)
