"""Statistics within a day: the test of monotone means against a slow one, quantiles against pandas, errors by hand."""

import numpy as np
import pandas as pd
import pytest

from vnq_colab.evaluation.significance import hac_t
from vnq_colab.evaluation.within_day import (
    BLOCK_DAYS,
    N_SAMPLES,
    correlation,
    hac_error,
    monotone_p,
    quantiles_of,
    ranks_of,
    share,
)


def quantile_returns(seed, means, n_days=600):
    """`[days, quantiles]`: the means, and noise that neighbouring days share."""
    noise = np.random.default_rng(seed).normal(0, 0.01, (n_days + 4, len(means)))
    return np.asarray(means) + sum(noise[step : n_days + step] for step in range(5)) / np.sqrt(5)


def test_p_of_monotone_means_is_that_of_a_slow_second_implementation():
    daily = quantile_returns(1, [-0.001, -0.0004, 0.0, 0.0002, 0.001])
    random, n = np.random.default_rng(0), len(daily)
    steps = np.diff(daily, axis=1)
    starts = random.integers(0, n, (N_SAMPLES, n // BLOCK_DAYS))
    resampled = np.array([np.concatenate([steps[(start + np.arange(BLOCK_DAYS)) % n] for start in sample]).mean(axis=0)
                          for sample in starts]) - steps.mean(axis=0)
    spread = resampled.std(axis=0)
    reached = ((resampled / spread).min(axis=1) >= (steps.mean(axis=0) / spread).min()).sum()
    assert monotone_p(daily) == (1 + reached) / (1 + N_SAMPLES) and 0.001 < monotone_p(daily) < 1


@pytest.mark.parametrize("means, low, high", [
    ([-0.004, -0.002, 0, 0.002, 0.004], 0, 0.01), ([0.004, 0.002, 0, -0.002, -0.004], 0.8, 1),
    ([-0.004, 0.004, 0, 0.004, 0.008], 0.9, 1)])  # rising, falling, rising with one step down
def test_rising_means_are_told_from_others(means, low, high):
    assert low <= monotone_p(quantile_returns(2, means)) <= high


def test_equal_means_are_seldom_called_monotone():
    found = np.array([monotone_p(quantile_returns(seed, [0.0] * 3, 300), seed) for seed in range(200)])
    assert (found <= 0.05).mean() <= 0.12 and 0.3 < found.mean() < 0.7


def test_monotone_means_of_few_days_are_not_known():
    assert np.isnan(monotone_p(np.zeros((2 * BLOCK_DAYS - 1, 5)))) and np.isnan(monotone_p(np.full((99, 5), np.nan)))


@pytest.mark.parametrize("n_stocks", [5, 12, 60, 102])
def test_quantiles_are_those_of_pandas(n_stocks):
    values = np.random.default_rng(n_stocks).normal(size=(n_stocks, 3))
    known = np.ones(values.shape, dtype=bool)
    for n in (5, 10):
        found = quantiles_of(ranks_of(values, known), known, n)
        for day in range(3):
            assert found[:, day].tolist() == (pd.qcut(values[:, day], n, labels=False) + 1).tolist()
    assert (quantiles_of(values, ~known, 5) == 0).all()


def test_error_is_the_mean_over_its_t_and_days_that_are_not_known_are_left_out():
    values = 0.1 + np.random.default_rng(0).normal(size=90)
    with_gaps = np.insert(values, [0, 50, 90], np.nan)
    assert hac_error(values) == pytest.approx(values.mean() / hac_t(values)) == hac_error(with_gaps)
    assert np.isnan(hac_error(values[:19])) and np.isnan(hac_error(np.ones(50)))


def test_share_and_correlation_of_nothing_are_not_known():
    nothing, values = np.zeros((6, 1), dtype=bool), np.arange(6.0)[:, None] - 2.5
    assert np.isnan(share(values, nothing)).all() and np.isnan(correlation(values, values, nothing)).all()
    assert correlation(values, values, ~nothing) == pytest.approx(1) and correlation(0 * values, values, ~nothing) == 0
