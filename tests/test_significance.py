"""Intervals and tests against scipy, statsmodels and arch, how often they find what is not there, and the ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, kurtosis, norm, skew, t

from vnq_colab.evaluation.significance import (
    FEWEST_DATES,
    MOST_SHRUNK,
    alpha_test,
    best_sharpe_without_skill,
    deflated_sharpe,
    effective_n,
    hac_mean,
    hac_t,
    mean_test,
    model_confidence_set,
    monotone_p,
    shrink,
    wilson_interval,
)


@given(st.integers(1, 400), st.floats(0, 1))
def test_wilson_interval_equals_scipy(n, share):
    successes = int(share * n)
    found = wilson_interval(successes, n)
    assert found == pytest.approx(binomtest(successes, n).proportion_ci(0.95, method="wilson"), abs=1e-12)


def test_wilson_interval_without_a_trial_is_unknown():
    low, high = wilson_interval(np.array([0.0, 3.0]), np.array([0, 6]))
    assert np.isnan([low[0], high[0]]).all() and 0 < low[1] < 0.5 < high[1] < 1


# --- means over days that overlap


def overlapping(seed, n_dates=250, n_symbols=8, common=0.5):
    """(values, dates): sums of five daily shocks, partly common to all symbols; rows in no order, some lost."""
    random = np.random.default_rng(seed)
    shocks = np.sqrt(common) * random.normal(size=(n_dates + 4, 1)) + np.sqrt(1 - common) * random.normal(
        size=(n_dates + 4, n_symbols))
    values = sum(shocks[step : step + n_dates] for step in range(5))  # [dates, symbols]
    dates = np.broadcast_to(np.arange("2024-01-01", n_dates, dtype="datetime64[D]")[:, None], values.shape)
    kept = random.permutation(values.size)[: int(0.8 * values.size)]
    return values.ravel()[kept], dates.ravel()[kept]


def sums(seed, n=250, width=1):
    """`[days, width]`: sums of five daily shocks, as outcomes that overlap."""
    shocks = np.random.default_rng(seed).normal(size=(n + 4, width))
    return sum(shocks[step : step + n] for step in range(5))


def test_mean_test_equals_a_regression_on_cosines():
    linear = pytest.importorskip("statsmodels.regression.linear_model")
    values, n = sums(1, 80)[:, 0], 80
    n_terms = int(0.4 * n ** (2 / 3))
    waves = [np.sqrt(2) * np.cos(np.pi * j * (np.arange(n) + 0.5) / n) for j in range(1, n_terms + 1)]
    fit = linear.OLS(values, np.column_stack([np.ones(n), *waves])).fit()
    error = np.sqrt((fit.params[1:] ** 2).mean())
    found = mean_test(values)
    assert found.mean == pytest.approx(fit.params[0]) and found.n_days == n
    assert found.p == pytest.approx(t.sf(fit.params[0] / error, n_terms))
    assert found.high - found.mean == pytest.approx(t.ppf(0.975, n_terms) * error)


def test_mean_test_rarely_finds_what_is_not_there_though_days_overlap():
    found = mean_test(sums(0, width=4000))
    assert (found.p < 0.05).mean() == pytest.approx(0.05, abs=0.012)
    assert (found.p < 0.01).mean() == pytest.approx(0.01, abs=0.005)
    assert ((found.low < 0) & (found.high > 0)).mean() == pytest.approx(0.95, abs=0.012)


def test_mean_test_of_nothing_to_judge_by_is_unknown():
    short, constant = mean_test(np.ones(19)), mean_test(np.full(60, 0.1))
    assert short.mean == 1 and constant.mean == pytest.approx(0.1)
    assert np.isnan([short.p, short.low, constant.p, constant.low]).all()
    assert np.isnan(mean_test([]).mean) and mean_test([]).n_days == 0


def test_hac_t_and_alpha_equal_those_of_statsmodels():
    linear = pytest.importorskip("statsmodels.regression.linear_model")
    benchmark, noise = sums(2)[:, 0] * 0.01 + 0.001, sums(3, width=2) * 0.01
    returns = 0.0005 + 0.7 * benchmark[:, None] + noise
    options = {"cov_type": "HAC", "cov_kwds": {"maxlags": 10, "use_correction": False}}
    alpha, statistic, p = alpha_test(returns, benchmark)
    for place in range(2):
        fit = linear.OLS(returns[:, place], np.column_stack([np.ones(250), benchmark])).fit(**options)
        assert (alpha[place], statistic[place]) == pytest.approx((250 * fit.params[0], fit.tvalues[0]))
        assert p[place] == pytest.approx(norm.sf(fit.tvalues[0]))
        mean = linear.OLS(returns[:, place], np.ones(250)).fit(**options)
        assert hac_t(returns[:, place]) == pytest.approx(mean.tvalues[0])
        with_gaps = np.insert(returns[:, place], [0, 50, 250], np.nan)
        assert hac_mean(with_gaps) == pytest.approx((250, mean.params[0], mean.bse[0]))
    assert np.isnan(hac_t(noise[:19, 0])) and np.isnan(hac_t(np.ones(50)))


def test_effective_n_counts_symbols_as_one_when_they_are_one_and_as_many_when_they_are_many():
    assert effective_n(*overlapping(7, n_dates=1000, n_symbols=1)) == 800 / 5
    same = [effective_n(np.tile(one, 6), np.tile(dates, 6)) for one, dates in
            (overlapping(seed, n_dates=1000, n_symbols=1) for seed in range(10))]
    assert min(same) >= 800 / 5 and np.median(same) < 1.2 * 800 / 5
    many = [effective_n(*overlapping(seed, n_dates=1000, n_symbols=6, common=0)) for seed in range(10)]
    assert np.median(many) > 0.75 * 6 * 800 / 5 and max(many) <= 6 * 800 / 5
    some = [effective_n(*overlapping(seed, n_dates=1000, n_symbols=6, common=0.28)) for seed in range(10)]
    assert 2 < np.median(some) / 200 < 3  # 6 / (1 + 5 × 0.28) = 2.5 symbols' worth, a little more as rows are lost


# --- many at once


def test_shrink_equals_the_hand_computed_steps():
    """Errors of 1: weights 1, common mean 2, Q = 4 + 0 + 4 = 8, between = (8 - 2) / (3 - 1) = 3, share = 3 / 4."""
    shrunk, left = shrink([0.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    assert shrunk == pytest.approx([0.5, 2.0, 3.5])
    assert left == pytest.approx(np.sqrt([0.75 + 0.25**2 / (3 / 4)] * 3))  # weights of the mean are 1 / (3 + 1)


def test_shrink_makes_one_of_symbols_that_differ_by_noise_alone():
    random = np.random.default_rng(0)
    shrunk, left = shrink(random.normal(0.3, 1, 2000), np.ones(2000))
    assert np.ptp(np.quantile(shrunk, [0.05, 0.95])) < 0.3 and shrunk.mean() == pytest.approx(0.3, abs=0.1)
    assert np.median(left) < 0.3  # but for those that the limit holds
    true = random.normal(0, 2, 2000)
    shrunk, left = shrink(true + random.standard_normal(2000), np.ones(2000))
    assert np.mean((shrunk - true) ** 2) == pytest.approx(0.8, abs=0.08)  # 4 / (4 + 1) of the noise: Bayes's own
    assert np.mean(np.abs(shrunk - true) < 1.96 * left) == pytest.approx(0.95, abs=0.02)


def test_shrink_never_goes_further_than_the_limit():
    crowd = np.concatenate([[6.0, -6.0], np.zeros(400)])
    shrunk, left = shrink(crowd, np.ones(402))
    assert shrunk[:2] == pytest.approx([6 - MOST_SHRUNK, MOST_SHRUNK - 6]) and left[:2] == pytest.approx([1.0, 1.0])


def test_shrink_leaves_alone_what_it_cannot_or_need_not_shrink():
    shrunk, left = shrink([1.0, np.nan, 3.0, 0.0, 5.0], [np.nan, 1.0, 1.0, 0.0, 1.0])
    assert np.isnan(shrunk[:2]).all() and (shrunk[3], left[3]) == (0, 0) and 3 < shrunk[2] < shrunk[4] < 5
    assert np.array_equal(shrink([2.0], [0.5]), [[2.0], [0.5]])


def test_deflated_sharpe_equals_the_published_formula():
    returns = np.random.default_rng(1).standard_t(4, (300, 3)) * 0.01 + 0.001
    for n_trials in (1, 100):
        bar = best_sharpe_without_skill(n_trials, 1 / np.sqrt(299))
        for column, found in enumerate(deflated_sharpe(returns, n_trials)):
            part = returns[:, column]
            ratio = part.mean() / part.std(ddof=1)
            spread = 1 - skew(part) * ratio + (kurtosis(part, fisher=False) - 1) / 4 * ratio**2
            assert found == pytest.approx(norm.cdf((ratio - bar) * np.sqrt(299) / np.sqrt(spread)))


def test_best_sharpe_without_skill_equals_the_published_example_and_the_mean_best_of_normal_draws():
    # Bailey & López de Prado 2014: 100 trials whose annual ratios have variance 1/2: the bar is 0.1132 a day
    assert best_sharpe_without_skill(100, np.sqrt(0.5 / 250)) == pytest.approx(0.1132, abs=5e-5)
    for n_trials in (10, 100):
        best = np.random.default_rng(0).normal(size=(20_000, n_trials)).max(axis=1).mean()
        assert best_sharpe_without_skill(n_trials, 2.0) == pytest.approx(2 * best, rel=0.03)
    assert best_sharpe_without_skill(1, 2.0) == 0


def test_deflated_sharpe_is_right_as_often_as_it_says_for_one_and_for_the_best_of_many():
    returns = np.random.default_rng(2).normal(size=(250, 4000))
    assert (deflated_sharpe(returns) > 0.95).mean() == pytest.approx(0.05, abs=0.012)
    many = returns.reshape(250, 200, 20)
    best = np.take_along_axis(many, many.mean(axis=0).argmax(axis=1)[None, :, None], axis=2)[..., 0]
    assert (deflated_sharpe(best, 20) > 0.95).mean() < 0.05 < (deflated_sharpe(best) > 0.95).mean()


def test_deflated_sharpe_falls_with_every_evaluation_and_is_unknown_without_spread():
    returns = np.random.default_rng(3).normal(0.001, 0.01, 500)
    found = [deflated_sharpe(returns, n_trials) for n_trials in (1, 2, 10, 100)]
    assert found == sorted(found, reverse=True)
    assert np.isnan(deflated_sharpe([0.0, 0.0, 0.0]))
    mixed = deflated_sharpe(np.array([[0.01, 0.0], [0.02, 0.0], [-0.01, 0.0]]))
    assert 0.5 < mixed[0] < 1 and np.isnan(mixed[1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_model_confidence_set_equals_that_of_arch(seed):
    arch = pytest.importorskip("arch.bootstrap")
    random = np.random.default_rng(seed)
    losses = sums(seed, 600, 6) * 0.1 + random.normal(size=(600, 1)) + np.array([0, 0.01, 0.03, 0.05, 0.1, 0.3])
    theirs = arch.MCS(losses, 0.1, reps=4000, block_size=15, method="R", bootstrap="stationary", seed=seed)
    theirs.compute()
    found = model_confidence_set(losses, n_samples=4000, seed=seed)
    assert found == pytest.approx(theirs.pvalues["Pvalue"].sort_index().to_numpy(), abs=0.04)


def test_model_confidence_set_leaves_out_the_clearly_worse_and_keeps_a_copy_of_the_best():
    losses = np.random.default_rng(4).normal(size=(500, 3)) * 0.1 + np.array([0, 0, 0.1])
    losses = np.concatenate([losses, losses[:, :1]], axis=1)
    found = model_confidence_set(losses)
    assert found[2] == 0 and (found[[0, 1, 3]] > 0.1).all()
    assert np.array_equal(found, model_confidence_set(losses)) and model_confidence_set(losses[:, :1]) == 1


def test_model_confidence_set_rarely_leaves_out_one_of_equals():
    missed = [model_confidence_set(sums(seed, 1000, 5), n_samples=200, seed=seed).min() <= 0.1 for seed in range(100)]
    assert np.mean(missed) < 0.22  # 10 % with endless days; 14 % of 200 measured with 1,000 that overlap


# --- monotone means


def quantile_returns(seed, means, n_days=600):
    """`[days, quantiles]`: the means, and noise that neighbouring days share."""
    return np.asarray(means) + 0.01 * sums(seed, n_days, len(means)) / np.sqrt(5)


@pytest.mark.parametrize("means, low, high", [
    ([-0.004, -0.002, 0, 0.002, 0.004], 0, 0.01), ([0.004, 0.002, 0, -0.002, -0.004], 0.8, 1),
    ([-0.004, 0.004, 0, 0.004, 0.008], 0.9, 1)])  # rising, falling, rising with one step down
def test_rising_means_are_told_from_others(means, low, high):
    assert low <= monotone_p(quantile_returns(2, means)) <= high


def test_equal_means_are_seldom_called_monotone():
    found = np.array([monotone_p(quantile_returns(seed, [0.0] * 3, 300), seed) for seed in range(100)])
    assert (found <= 0.05).mean() <= 0.12 and 0.3 < found.mean() < 0.7


def test_monotone_means_of_few_days_are_not_known():
    assert np.isnan(monotone_p(np.zeros((FEWEST_DATES - 1, 5)))) and np.isnan(monotone_p(np.full((99, 5), np.nan)))
