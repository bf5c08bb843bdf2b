"""Intervals and tests against scipy, statsmodels and arch, how often they find what is not there, and the ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vnq_colab.errors import DataError
from vnq_colab.evaluation.significance import (
    benjamini_hochberg,
    best_sharpe_without_skill,
    block_bootstrap,
    deflated_sharpe,
    diebold_mariano,
    effective_n,
    pooled_test,
    probabilistic_sharpe,
    sharpe_probability,
    wilson_interval,
)


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
    both = benjamini_hochberg(np.array([[0.02, np.nan, 0.5, 0.01, 0.04], [0.2, 0.3, 0.1, np.nan, np.nan]]))
    assert both[0] == pytest.approx(found, nan_ok=True) and both[1, :3] == pytest.approx([0.3, 0.3, 0.3])


def test_benjamini_hochberg_keeps_false_finds_rare_when_nothing_is_true():
    p_values = np.random.default_rng(1).random((2000, 50))  # [markets, tests] of true nulls
    assert (benjamini_hochberg(p_values) <= 0.05).any(axis=1).mean() == pytest.approx(0.05, abs=0.015)


# --- means over days that overlap, of symbols that move together


def overlapping(seed, n_dates=250, n_symbols=8, common=0.5):
    """(values, dates): sums of five daily shocks, partly common to all symbols; rows in no order, some lost."""
    random = np.random.default_rng(seed)
    shocks = np.sqrt(common) * random.normal(size=(n_dates + 4, 1)) + np.sqrt(1 - common) * random.normal(
        size=(n_dates + 4, n_symbols))
    values = sum(shocks[step : step + n_dates] for step in range(5))  # [dates, symbols]
    dates = np.broadcast_to(np.arange("2024-01-01", n_dates, dtype="datetime64[D]")[:, None], values.shape)
    kept = random.permutation(values.size)[: int(0.8 * values.size)]
    return values.ravel()[kept], dates.ravel()[kept]


@pytest.mark.parametrize("lag", [4, 9, 19])
def test_pooled_test_with_a_lag_equals_driscoll_and_kraay_of_statsmodels(lag):
    linear = pytest.importorskip("statsmodels.regression.linear_model")
    values, dates = overlapping(0)
    order = np.argsort(dates, kind="stable")
    number = np.unique(dates, return_inverse=True)[1]
    fit = linear.OLS(values[order] + 0.5, np.ones(len(values))).fit(
        cov_type="hac-groupsum", cov_kwds={"time": number[order], "maxlags": lag, "use_correction": False})
    found = pooled_test(values + 0.5, dates, lag=lag)
    assert (found.mean, found.error, found.statistic) == pytest.approx((fit.params[0], fit.bse[0], fit.tvalues[0]))
    assert (found.low, found.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert found.p == pytest.approx(fit.pvalues[0] / 2) and found.n_dates == 250


def test_pooled_test_equals_a_regression_on_cosines():
    linear = pytest.importorskip("statsmodels.regression.linear_model")
    stats = pytest.importorskip("scipy.stats")
    values, dates = overlapping(1, n_dates=100, n_symbols=1)
    values, n = values[np.argsort(dates)], 80  # a fifth of the dates is lost
    n_terms = int(0.4 * n ** (2 / 3))
    waves = [np.sqrt(2) * np.cos(np.pi * j * (np.arange(n) + 0.5) / n) for j in range(1, n_terms + 1)]
    fit = linear.OLS(values, np.column_stack([np.ones(n), *waves])).fit()
    error = np.sqrt((fit.params[1:] ** 2).mean())
    found = pooled_test(values, np.arange(n))
    assert (found.mean, found.error) == pytest.approx((fit.params[0], error))
    assert found.p == pytest.approx(stats.t.sf(fit.params[0] / error, n_terms))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, n_terms) * error)


def test_pooled_test_rarely_finds_what_is_not_there_though_days_overlap_and_symbols_move_together():
    tests = [pooled_test(*overlapping(seed)) for seed in range(1000)]
    assert np.mean([test.p < 0.05 for test in tests]) == pytest.approx(0.05, abs=0.021)  # three standard errors
    assert np.mean([test.low < 0 < test.high for test in tests]) == pytest.approx(0.95, abs=0.021)
    naive = [np.mean(values) / np.std(values) * np.sqrt(len(values)) > 1.645
             for values, _ in (overlapping(seed) for seed in range(200))]
    assert np.mean(naive) > 0.25  # what counting rows as independent would find


def test_pooled_test_does_not_care_for_the_order_or_the_unit():
    values, dates = overlapping(2)
    found, shuffled = pooled_test(values, dates), pooled_test(values[::-1] * 100, dates[::-1])
    assert found.statistic == pytest.approx(shuffled.statistic) and shuffled.error == pytest.approx(100 * found.error)


def test_pooled_test_of_nothing_to_judge_by_is_unknown():
    short, constant = pooled_test(np.ones(19), np.arange(19)), pooled_test(np.full(60, 0.1), np.arange(60))
    assert short.mean == 1 and constant.mean == pytest.approx(0.1)
    assert np.isnan([short.p, short.low, constant.p, constant.error]).all()
    assert np.isnan(pooled_test([], []).mean) and pooled_test([], []).n_dates == 0
    with pytest.raises(DataError, match="lag = 3: 5-day outcomes overlap on 4"):
        pooled_test(np.ones(60), np.arange(60), lag=3)
    with pytest.raises(DataError, match="1 of 60 values are not numbers"):
        pooled_test(np.where(np.arange(60) == 7, np.nan, 1), np.arange(60))
    with pytest.raises(DataError, match="two columns of one length"):
        pooled_test(np.ones(60), np.arange(59))


def test_block_bootstrap_equals_the_spread_of_arch():
    arch = pytest.importorskip("arch.bootstrap")
    values, dates = overlapping(3, n_symbols=1)
    values = values[np.argsort(dates)]
    found = block_bootstrap(values + 0.3, np.arange(len(values)), block_days=10, n_samples=20_000, seed=1)
    theirs = arch.MovingBlockBootstrap(10, values + 0.3, seed=2).apply(np.mean, 20_000)[:, 0]
    assert found.error == pytest.approx(theirs.std(), rel=0.02)
    centred = theirs - theirs.mean()
    assert (found.low, found.high) == pytest.approx(found.mean - np.quantile(centred, [0.975, 0.025]), abs=0.02)
    assert found.p == pytest.approx((centred >= found.mean).mean(), abs=0.01)


def test_block_bootstrap_equals_a_slow_second_implementation_on_rows_of_many_symbols():
    values, dates = overlapping(4, n_dates=65)
    found = block_bootstrap(values, dates, block_days=12, n_samples=300, seed=5)
    starts = np.random.default_rng(5).integers(0, 65 - 12 + 1, (300, 6))
    days, means = np.unique(dates), []
    for sample in starts:
        drawn = np.concatenate([values[dates == day] for place, start in enumerate(sample)
                                for day in days[start : start + (12 if place < 5 else 5)]])  # the last block is cut
        means.append(drawn.mean())
    assert found.error == pytest.approx(np.std(np.subtract(means, np.mean(means)), ddof=1))
    assert found.p == pytest.approx((1 + np.sum(np.subtract(means, np.mean(means)) >= values.mean())) / 301)


def test_block_bootstrap_is_seeded_and_every_sample_is_as_long_as_the_data():
    values, dates = overlapping(5, n_dates=101)
    assert block_bootstrap(values, dates, seed=1) == block_bootstrap(values, dates, seed=1)
    assert block_bootstrap(values, dates, seed=1) != block_bootstrap(values, dates, seed=2)
    constant = block_bootstrap(np.full(101, 2.0), np.arange(101))
    assert (constant.mean, constant.error) == pytest.approx((2, 0), abs=1e-12)


def test_block_bootstrap_sees_what_single_days_hide():
    values, dates = overlapping(6, n_symbols=1)
    blocks = block_bootstrap(values, dates, n_samples=4000).error
    assert blocks > 1.6 * values.std() / np.sqrt(len(values))  # √5 = 2.24, less what blocks of 15 days cut
    assert block_bootstrap(values + 5, dates).p == pytest.approx(1 / 2001)


def test_block_bootstrap_of_too_few_days_is_unknown_and_short_blocks_are_refused():
    assert np.isnan(block_bootstrap(np.ones(29), np.arange(29)).p)
    with pytest.raises(DataError, match="block_days = 4: shorter than the 5 days"):
        block_bootstrap(np.ones(60), np.arange(60), block_days=4)


def test_effective_n_counts_symbols_as_one_when_they_are_one_and_as_many_when_they_are_many():
    assert effective_n(*overlapping(7, n_dates=1000, n_symbols=1)) == 800 / 5
    same = [effective_n(np.tile(one, 6), np.tile(dates, 6)) for one, dates in
            (overlapping(seed, n_dates=1000, n_symbols=1) for seed in range(10))]
    assert min(same) >= 800 / 5 and np.median(same) < 1.2 * 800 / 5
    many = [effective_n(*overlapping(seed, n_dates=1000, n_symbols=6, common=0)) for seed in range(10)]
    assert np.median(many) > 0.75 * 6 * 800 / 5 and max(many) <= 6 * 800 / 5
    some = [effective_n(*overlapping(seed, n_dates=1000, n_symbols=6, common=0.28)) for seed in range(10)]
    assert 2 < np.median(some) / 200 < 3  # 6 / (1 + 5 × 0.28) = 2.5 symbols' worth, a little more as rows are lost


def test_diebold_mariano_equals_a_regression_with_equal_weights_and_the_published_factor():
    linear = pytest.importorskip("statsmodels.regression.linear_model")
    sandwich = pytest.importorskip("statsmodels.stats.sandwich_covariance")
    stats = pytest.importorskip("scipy.stats")
    gain, dates = overlapping(8, n_symbols=1)
    gain, n = gain[np.argsort(dates)] + 0.4, 200
    fit = linear.OLS(gain, np.ones(n)).fit(cov_type="HAC", cov_kwds={
        "maxlags": 4, "kernel": sandwich.weights_uniform, "use_correction": False})
    factor = np.sqrt((n + 1 - 2 * 5 + 5 * 4 / n) / n)
    ours = np.abs(np.random.default_rng(0).normal(size=n))
    found = diebold_mariano(ours, ours + gain)
    assert found.statistic == pytest.approx(factor * fit.tvalues[0])
    assert found.p == pytest.approx(stats.t.sf(factor * fit.tvalues[0], n - 1))
    assert found.mean == pytest.approx(gain.mean()) and found.low < found.mean < found.high
    other_way = diebold_mariano(ours + gain, ours)
    assert (other_way.statistic, other_way.p) == pytest.approx((-found.statistic, 1 - found.p))


def test_diebold_mariano_of_one_day_ahead_is_the_paired_t_test():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(9)
    ours, theirs = random.random(40), random.random(40) + 0.1
    assert diebold_mariano(ours, theirs, horizon=1).p == pytest.approx(
        stats.ttest_rel(theirs, ours, alternative="greater").pvalue)


def test_diebold_mariano_takes_other_weights_where_equal_ones_give_no_variance():
    gain = np.tile([1.0, -0.9], 15)  # neighbours cancel: equal weights give a negative variance
    around = gain - gain.mean()
    variance = around @ around + 2 * sum((1 - step / 5) * (around[step:] @ around[:-step]) for step in range(1, 5))
    assert around @ around + 2 * sum(around[step:] @ around[:-step] for step in range(1, 5)) > 0
    odd = diebold_mariano(np.zeros(30), gain, horizon=4)
    equal = around @ around + 2 * sum(around[step:] @ around[:-step] for step in range(1, 4))
    assert equal < 0 and np.isfinite(odd.statistic) and variance > 0


def test_diebold_mariano_of_equal_losses_or_few_days_is_unknown():
    assert np.isnan(diebold_mariano(np.ones(50), np.ones(50)).p)
    assert np.isnan(diebold_mariano(np.zeros(19), np.arange(19)).p)
    with pytest.raises(DataError, match="with 1 not finite"):
        diebold_mariano(np.ones(30), np.where(np.arange(30) == 3, np.nan, 2))


# --- Sharpe ratios of many trials


def test_sharpe_probability_equals_the_published_example():
    # Bailey & López de Prado 2014: annual Sharpe ratio 2.5 over 1250 days, skewness -3, kurtosis 10, 100 trials whose
    # annual ratios have variance 1/2: the bar is 0.1132 a day, the deflated Sharpe ratio 0.9004.
    bar = best_sharpe_without_skill(100, np.sqrt(0.5 / 250))
    assert bar == pytest.approx(0.1132, abs=5e-5)
    assert sharpe_probability(2.5 / np.sqrt(250), bar, 1250, -3, 10) == pytest.approx(0.9004, abs=5e-5)


def test_best_sharpe_without_skill_is_the_mean_best_of_normal_draws():
    for n_trials in (10, 100):
        best = np.random.default_rng(0).normal(size=(20_000, n_trials)).max(axis=1).mean()
        assert best_sharpe_without_skill(n_trials, 2.0) == pytest.approx(2 * best, rel=0.03)
    assert best_sharpe_without_skill(1, 2.0) == 0


def test_probabilistic_sharpe_equals_the_moments_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    returns = np.random.default_rng(1).standard_t(4, (300, 3)) * 0.01 + 0.001
    for column, found in enumerate(probabilistic_sharpe(returns, 0.5)):
        part = returns[:, column]
        ratio, bar = part.mean() / part.std(ddof=1), 0.5 / np.sqrt(250)
        spread = 1 - stats.skew(part) * ratio + (stats.kurtosis(part, fisher=False) - 1) / 4 * ratio**2
        assert found == pytest.approx(stats.norm.cdf((ratio - bar) * np.sqrt(299) / np.sqrt(spread)))


def test_probabilistic_sharpe_is_right_as_often_as_it_says_when_nothing_is_known():
    found = probabilistic_sharpe(np.random.default_rng(2).normal(size=(250, 4000)))
    assert (found > 0.95).mean() == pytest.approx(0.05, abs=0.012)


def test_deflated_sharpe_falls_with_every_look():
    returns = np.random.default_rng(3).normal(0.001, 0.01, 500)
    found = [deflated_sharpe(returns, n_trials) for n_trials in (1, 2, 10, 100)]
    assert found == sorted(found, reverse=True) and found[0] == probabilistic_sharpe(returns)
    assert deflated_sharpe(returns, 10, spread=0) == found[0] > deflated_sharpe(returns, 10, spread=0.5)
    with pytest.raises(DataError, match="n_trials = 0"):
        deflated_sharpe(returns, 0)


def test_deflated_sharpe_rarely_lets_the_best_of_many_coins_pass():
    random, passed = np.random.default_rng(4), 0
    for _ in range(300):
        returns = random.normal(size=(250, 20))
        best = returns[:, np.argmax(returns.mean(axis=0) / returns.std(axis=0))]
        passed += deflated_sharpe(best, 20) > 0.95
    assert passed / 300 < 0.05 < (probabilistic_sharpe(returns) > 0.95).mean() * 20


def test_sharpe_tests_without_spread_or_days_are_unknown():
    assert np.isnan(probabilistic_sharpe([0.0, 0.0, 0.0])) and np.isnan(probabilistic_sharpe([0.01, 0.02]))
    assert np.isnan(deflated_sharpe([], 5))
    mixed = probabilistic_sharpe(np.array([[0.01, 0.0], [0.02, 0.0], [-0.01, 0.0]]))
    assert 0.5 < mixed[0] < 1 and np.isnan(mixed[1])
