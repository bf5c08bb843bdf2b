"""Is it more than luck? Intervals, tests of means of days that overlap, shrinkage, and the charge for many trials."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from vnq_colab.settings import HORIZON

TRADING_DAYS = 250  # per year in Vietnam: 247 to 252 in 2016-2025
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
MOST_SHRUNK = 1.6448536269514722  # [standard errors] 95 % one-sided
LAGS = 2 * HORIZON  # [days] that HAC errors reach, of outcomes over one horizon
FEWEST_DATES = 4 * HORIZON  # chosen: four independent windows; below, no variance of a mean is worth printing
BLOCK_DAYS, N_SAMPLES = 3 * HORIZON, 1000  # chosen: of bootstraps; p-values are then known to 0.01


def wilson_interval(successes: ArrayLike, n: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`[...], [...] -> [...], [...]`: low and high end of the 95 % Wilson interval of a share.

    `n` counts independent trials; `successes` may be fractional (a share times n). n = 0 gives NaN.
    Source: Wilson 1927, JASA 22(158), without continuity correction.
    """
    n = np.where(np.asarray(n) > 0, n, np.nan)
    share, width = np.asarray(successes) / n, 1 + Z_95**2 / n
    middle = share + Z_95**2 / (2 * n)
    half = Z_95 * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    return np.clip((middle - half) / width, 0, 1), np.clip((middle + half) / width, 0, 1)


def known(form: str, value: float) -> str:
    """The value as text; an empty one where it is not known."""
    return form.format(value) if np.isfinite(value) else ""


# ------------------------------------------------------------------------------------------ means of days that overlap
class MeanTest(NamedTuple):
    """Means `[...]`, their 95 % intervals, and the one-sided p-value of "the true mean is not above 0"."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    n_days: int


def mean_test(values: ArrayLike) -> MeanTest:
    """`[days, ...] -> [...]`: is the mean above 0, for days in order whose neighbours overlap?

    The equal-weighted cosine estimator with B = 0.4 n^(2/3) terms and Student's t of B degrees of freedom. Fewer than 4
    horizons of days, and values that never change, give NaN.
    Source: Lazarus, Lewis, Stock & Watson 2018, JBES 36(4).
    """
    values = np.asarray(values, "float64")
    n, mean = len(values), values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)
    if n < FEWEST_DATES:
        unknown = np.full(np.shape(mean), np.nan)
        return MeanTest(mean, unknown, unknown, unknown, n)
    variance, n_terms = cosine_variance(values - mean)
    error = np.sqrt(variance) / n
    error = np.where(error > 1e-12 * np.maximum(np.abs(mean), 1e-300), error, np.nan)  # every day the same: unknown
    half = stdtrit(n_terms, 0.975) * error
    return MeanTest(mean, mean - half, mean + half, stdtr(n_terms, -mean / error), n)


def cosine_variance(around: np.ndarray) -> tuple[np.ndarray, int]:
    """`[days, ...] -> [...]`: variance of the sum of centred values, and of how many cosines, the slowest ones."""
    n = len(around)
    n_terms = max(int(0.4 * n ** (2 / 3)), 1)
    waves = np.cos(np.pi * np.arange(1, n_terms + 1)[:, None] * (np.arange(n) + 0.5) / n)  # [terms, days]
    return 2 * (np.tensordot(waves, around, 1) ** 2).mean(axis=0), n_terms


def effective_n(values: ArrayLike, dates: ArrayLike) -> float:
    """How many independent observations the mean of `values [rows]` is worth: their variance over that of the mean.

    Between one per horizon of dates (all symbols as one; so values without spread, and short spans) and one per horizon
    of rows (symbols independent).
    """
    values, day = np.asarray(values, "float64"), pd.factorize(np.asarray(dates), sort=True)[0]
    total = np.bincount(day, values - values.mean())  # [dates]
    least, most = len(total) / HORIZON, len(values) / HORIZON
    if len(total) < FEWEST_DATES or np.ptp(values) == 0:
        return least
    variance = cosine_variance(total)[0] / len(values) ** 2
    return float(np.clip(values.var() / variance, least, most)) if variance > 0 else least


def bartlett_variance(around: np.ndarray, lags: int = LAGS) -> np.ndarray:
    """`[days, ...] -> [...]`: variance of the sum of centred values, NaN without any.

    Bartlett's weights over `lags` days. Source: Newey & West 1987, Econometrica 55(3).
    """
    variance = (around**2).sum(axis=0)
    for lag in range(1, min(lags, len(around) - 1) + 1):
        variance = variance + 2 * (1 - lag / (lags + 1)) * (around[lag:] * around[:-lag]).sum(axis=0)
    return np.where(variance > 0, variance, np.nan)


def hac_mean(values: ArrayLike, lags: int = LAGS) -> tuple[int, float, float]:
    """`[days]`: number and mean of the known values, and its HAC standard error; NaN for fewer than 4 horizons."""
    values = np.asarray(values, "float64")
    values = values[np.isfinite(values)]
    n, mean = len(values), float(values.mean()) if len(values) else np.nan
    error = np.sqrt(bartlett_variance(values - mean, lags)) / n if n >= FEWEST_DATES else np.nan
    return n, mean, float(error)


def hac_t(values: ArrayLike) -> float:
    """`[days]`: mean over its HAC standard error."""
    _, mean, error = hac_mean(values)
    return mean / error


def alpha_test(returns: ArrayLike, benchmark: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[days, ...], [days] -> [...] × 3`: alpha a year, its HAC t and one-sided p.

    The intercept of a regression of daily returns on those of a benchmark, × 250.
    Source: Jensen 1968, Journal of Finance 23(2).
    """
    returns, benchmark = np.asarray(returns, "float64"), np.asarray(benchmark, "float64")
    around, n = benchmark - benchmark.mean(), len(benchmark)
    beta = np.tensordot(around, returns, 1) / max(around @ around, 1e-300)
    intercept = returns.mean(axis=0) - beta * benchmark.mean()
    weight = 1 / n - benchmark.mean() * around / max(around @ around, 1e-300)  # of a day in the intercept
    shape = (n,) + (1,) * (returns.ndim - 1)
    rest = returns - intercept - beta * benchmark.reshape(shape)
    t = intercept / np.sqrt(bartlett_variance(weight.reshape(shape) * rest))
    return TRADING_DAYS * intercept, t, ndtr(-t)


# -------------------------------------------------------------------------------------------------------- many at once
def shrink(estimate: ArrayLike, error: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`[symbols] × 2 -> [symbols] × 2`: estimates shrunk towards their mean (empirical Bayes), and their errors.

    No estimate is shrunk by more than 1.64 of its errors, so that one clearly above or below 0 stays there. NaN where
    an estimate or its error is; one symbol, and one with an error of 0, keep their own.
    Source: DerSimonian & Laird 1986, Controlled Clinical Trials 7(3), for the spread of the true values; Efron & Morris
    1972, JASA 67(337), for the limit.
    """
    own, error = np.array(estimate, "float64") + 0 * np.asarray(error), np.array(error, "float64")
    known = np.isfinite(own) & (error > 0)
    if known.sum() < 2:
        return own, error
    x, variance = own[known], error[known] ** 2
    weight = 1 / variance
    excess = (weight * (x - np.average(x, weights=weight)) ** 2).sum() - (len(x) - 1)
    between = max(0.0, excess / (weight.sum() - (weight**2).sum() / weight.sum()))
    weight, share = 1 / (variance + between), between / (variance + between)  # share of a symbol's own estimate
    shrunk = share * x + (1 - share) * np.average(x, weights=weight)
    remaining = np.sqrt(share * variance + (1 - share) ** 2 / weight.sum())
    limit = MOST_SHRUNK * error[known]
    error[known] = np.where(np.abs(shrunk - x) > limit, error[known], remaining)
    own[known] = np.clip(shrunk, x - limit, x + limit)
    return own, error


def deflated_sharpe(daily_returns: ArrayLike, n_trials: int = 1) -> np.ndarray:
    """`[days, ...] -> [...]`: probability that the Sharpe ratio beats the expected best of `n_trials` without skill.

    Trials are all configurations evaluated on these days, this one included; without skill their ratios spread by
    sampling error. Allows for length, skewness and kurtosis. NaN without spread.
    Source: Bailey & López de Prado 2014, Journal of Portfolio Management 40(5).
    """
    returns = np.asarray(daily_returns, "float64")
    n, around = len(returns), returns - returns.mean(axis=0)
    spread = np.where(np.ptp(returns, axis=0) > 0, around.std(axis=0), np.nan)
    ratio = returns.mean(axis=0) / spread * np.sqrt((n - 1) / n)  # per day
    skewness, kurtosis = ((around**power).mean(axis=0) / spread**power for power in (3, 4))
    lead = ratio - best_sharpe_without_skill(n_trials, 1 / np.sqrt(n - 1))
    return ndtr(lead * np.sqrt(n - 1) / np.sqrt(1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2))[()]


def best_sharpe_without_skill(n_trials: int, spread: float) -> float:
    """The expected largest of `n_trials` Sharpe ratios without skill, in the unit of their `spread`."""
    tails = ndtri(1 - 1 / n_trials), ndtri(1 - 1 / (n_trials * np.e))
    return float(spread * ((1 - np.euler_gamma) * tails[0] + np.euler_gamma * tails[1])) if n_trials > 1 else 0.0


def model_confidence_set(losses: ArrayLike, *, n_samples: int = N_SAMPLES, seed: int = 0) -> np.ndarray:
    """`[days, models] -> [models]`: p-value of each model; those above 0.1 are the 90 % model confidence set.

    The range statistic on a stationary bootstrap. Source: Hansen, Lunde & Nason 2011, Econometrica 79(2).
    """
    losses = np.asarray(losses, "float64")
    mean, sampled = losses.mean(axis=0), bootstrap_means(losses, n_samples, seed)  # [models], [samples, models]
    lead = mean[:, None] - mean  # [models, models] of a row's loss over a column's
    noise = sampled[:, :, None] - sampled[:, None, :] - lead
    error = np.sqrt((noise**2).mean(axis=0))
    error = np.where(error > 1e-12, error, np.inf)  # itself, and an exact copy
    lead, noise = lead / error, np.abs(noise) / error
    remaining, p_values, p = list(range(len(mean))), np.ones(len(mean)), 0.0
    while len(remaining) > 1:
        inside = np.ix_(remaining, remaining)
        p = max(p, float((noise[:, inside[0], inside[1]].max(axis=(1, 2)) >= lead[inside].max()).mean()))
        worst = remaining[int(lead[inside].max(axis=1).argmax())]
        p_values[worst] = p
        remaining.remove(worst)
    return p_values


def confidence_set(daily: pd.DataFrame) -> list[str]:
    """The families of `daily [days, families]` that cannot be told from the best, best first: 90 % confidence."""
    daily = daily.dropna(axis=1, how="all").dropna()
    if len(daily) < FEWEST_DATES:
        return []
    p_values = pd.Series(model_confidence_set(-daily.to_numpy()), index=daily.columns)
    return [str(name) for name in daily.mean().sort_values(ascending=False).index if p_values[name] > 0.1]


def monotone_p(daily: np.ndarray, seed: int = 0) -> float:
    """`[days, quantiles]`: p-value of "some quantile's mean is not above that of the one before".

    The smallest studentised step from a quantile to the next, against those of a stationary bootstrap. Days with an
    empty quantile are left out; fewer than 4 horizons of days give NaN. Source: Patton & Timmermann 2010, JFE 98(3).
    """
    steps = np.diff(daily[np.isfinite(daily).all(axis=1)], axis=1)  # [days, quantiles - 1]
    if len(steps) < FEWEST_DATES:
        return np.nan
    mean = steps.mean(axis=0)
    noise = bootstrap_means(steps, N_SAMPLES, seed) - mean  # [samples, quantiles - 1]
    spread = np.maximum(noise.std(axis=0), 1e-12)
    return float((1 + ((noise / spread).min(axis=1) >= (mean / spread).min()).sum()) / (1 + N_SAMPLES))


def bootstrap_means(values: np.ndarray, n_samples: int, seed: int) -> np.ndarray:
    """`[days, ...] -> [samples, ...]`: means of days drawn in blocks of geometric length, 15 days on average.

    Source: Politis & Romano 1994, JASA 89(428).
    """
    random, n = np.random.default_rng(seed), len(values)
    starts, is_first = random.integers(0, n, (n_samples, n)), random.random((n_samples, n)) < 1 / BLOCK_DAYS
    is_first[:, 0] = True
    first = np.maximum.accumulate(np.where(is_first, np.arange(n), 0), axis=1)  # where each day's block begins
    day = (np.take_along_axis(starts, first, axis=1) + np.arange(n) - first) % n
    counts = np.bincount((day + n * np.arange(n_samples)[:, None]).ravel(), minlength=n_samples * n)
    return counts.reshape(n_samples, n) @ values / n
