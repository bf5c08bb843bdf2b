"""Is it more than luck? Intervals, tests of means that overlap, shrinkage, and what many trials do to them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vnq_colab.data.forecast import HORIZON
from vnq_colab.errors import DataError

TRADING_DAYS = 250  # per year in Vietnam: 247 to 252 in 2016-2025
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
CLEARLY = 1.6448536269514722  # [standard errors] 95 % one-sided
FEWEST_DATES = 4 * HORIZON  # chosen: four independent windows; below, no variance of a mean is worth printing


def wilson_interval(successes: "np.ndarray | float", n: "np.ndarray | float") -> tuple[np.ndarray, np.ndarray]:
    """`[...], [...] -> [...], [...]`: low and high end of the 95 % Wilson interval of a share.

    `n` counts independent trials; `successes` may be fractional (a share times n). n = 0 gives NaN.
    Source: Wilson 1927, JASA 22(158), without continuity correction.
    """
    successes, n = np.asarray(successes, "float64"), np.asarray(n, "float64")
    n = np.where(n > 0, n, np.nan)
    share = successes / n
    middle = share + Z_95**2 / (2 * n)
    half = Z_95 * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    width = 1 + Z_95**2 / n
    return np.clip((middle - half) / width, 0, 1), np.clip((middle + half) / width, 0, 1)


# --- means of days that overlap


@dataclass(frozen=True)
class MeanTest:
    """Means `[...]`, their 95 % intervals, and the chance of at least as much if the true mean were 0."""

    mean: np.ndarray
    error: np.ndarray  # standard error; NaN: not known
    low: np.ndarray
    high: np.ndarray
    statistic: np.ndarray  # mean / error
    p: np.ndarray  # one-sided: true mean above 0
    n_days: int


def mean_test(values: ArrayLike) -> MeanTest:
    """`[days, ...] -> [...]`: is the mean above 0, for days in order whose neighbours overlap?

    The equal-weighted cosine estimator with B = 0.4 n^(2/3) terms and Student's t of B degrees of freedom: with 5-day
    overlap it finds 5.1 to 5.5 % at a nominal 5 % where nothing is true; Bartlett's weights up to lag 4 find 9 to 10 %.
    Fewer than 4 horizons of days, and values that never change, give NaN.
    Source: Lazarus, Lewis, Stock & Watson 2018, JBES 36(4).
    """
    from scipy.special import stdtr, stdtrit

    values = np.asarray(values, "float64")
    n, mean = len(values), values.mean(axis=0) if len(values) else np.full(values.shape[1:], np.nan)
    if n < FEWEST_DATES:
        nothing = np.full(np.shape(mean), np.nan)
        return MeanTest(mean, nothing, nothing, nothing, nothing, nothing, n)
    variance, n_terms = cosine_variance(values - mean)
    error = np.sqrt(variance) / n
    error = np.where(error > 1e-12 * np.maximum(np.abs(mean), 1e-300), error, np.nan)  # every day the same: unknown
    half = stdtrit(n_terms, 0.975) * error
    return MeanTest(mean, error, mean - half, mean + half, mean / error, stdtr(n_terms, -mean / error), n)


def effective_n(values: ArrayLike, dates: ArrayLike) -> float:
    """How many independent observations the mean of `values` is worth: their variance over that of the mean.

    Between one per horizon of dates (all symbols as one) and one per horizon of rows (symbols independent): overlap
    is never counted as evidence. Values without spread, and short spans, count as one per horizon of dates.
    """
    values = np.asarray(values, "float64")
    total, count = _by_date(values, dates)
    least, most = len(total) / HORIZON, len(values) / HORIZON
    if len(total) < FEWEST_DATES:
        return least
    variance = cosine_variance(total - values.mean() * count)[0] / len(values) ** 2
    spread = values.var()
    return float(np.clip(spread / variance, least, most)) if spread > 0 and variance > 0 else least


def _by_date(values: ArrayLike, dates: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`[rows], [rows] -> [dates], [dates]`: sum and number of values of each date, dates in order."""
    values, dates = np.asarray(values, "float64"), np.asarray(dates)
    if values.shape != dates.shape or values.ndim != 1:
        raise DataError(f"values {values.shape} and dates {dates.shape} must be two columns of one length.")
    if not np.isfinite(values).all():
        raise DataError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not numbers. Leave out rows "
                        "without an outcome.")
    found, place = np.unique(dates, return_inverse=True)
    return np.bincount(place, values, len(found)), np.bincount(place, minlength=len(found)).astype("float64")


def cosine_variance(around: np.ndarray) -> tuple[np.ndarray, int]:
    """`[days, ...] -> [...]`: variance of the sum of centred values, and of how many cosines.

    The slowest ones, equally weighted. Source: Lazarus, Lewis, Stock & Watson 2018, JBES 36(4).
    """
    n = len(around)
    n_terms = max(int(0.4 * n ** (2 / 3)), 1)
    waves = np.cos(np.pi * np.arange(1, n_terms + 1)[:, None] * (np.arange(n) + 0.5) / n)  # [terms, days]
    return 2 * (np.tensordot(waves, around, 1) ** 2).mean(axis=0), n_terms


def hac_t(values: ArrayLike, lags: int = 10) -> float:
    """Mean over its standard error, for a series whose neighbours depend on each other; NaN for fewer than 4 horizons.

    Bartlett's weights over `lags` days. Source: Newey & West 1987, Econometrica 55(3).
    """
    values = np.asarray(values, "float64")
    if len(values) < FEWEST_DATES:
        return float("nan")
    around, n = values - values.mean(), len(values)
    variance = around @ around
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (around[lag:] @ around[:-lag])
    return float(values.mean() / (np.sqrt(variance) / n)) if variance > 0 else float("nan")


def alpha_test(returns: ArrayLike, benchmark: ArrayLike, lags: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[days, ...], [days] -> [...] × 3`: alpha a year, its HAC t and one-sided p.

    The intercept of a regression of daily returns on those of a benchmark, × 250; Bartlett's weights over `lags` days.
    Source: Jensen 1968, Journal of Finance 23(2); Newey & West 1987, Econometrica 55(3).
    """
    from scipy.special import ndtr

    returns, benchmark = np.asarray(returns, "float64"), np.asarray(benchmark, "float64")
    around, n = benchmark - benchmark.mean(), len(benchmark)
    beta = np.tensordot(around, returns, 1) / max(around @ around, 1e-300)
    intercept = returns.mean(axis=0) - beta * benchmark.mean()
    weight = 1 / n - benchmark.mean() * around / max(around @ around, 1e-300)  # of a day in the intercept
    each = np.expand_dims(weight, tuple(range(1, returns.ndim))) * (
        returns - intercept - beta * np.expand_dims(benchmark, tuple(range(1, returns.ndim))))
    variance = (each**2).sum(axis=0)
    for lag in range(1, lags + 1):
        variance = variance + 2 * (1 - lag / (lags + 1)) * (each[lag:] * each[:-lag]).sum(axis=0)
    t = intercept / np.sqrt(np.where(variance > 0, variance, np.nan))
    return TRADING_DAYS * intercept, t, ndtr(-t)


# --- many at once


def shrink(estimate: ArrayLike, error: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`[..., symbols] × 2 -> [..., symbols] × 2`: estimates shrunk towards their mean (empirical Bayes), and errors.

    Symbols whose numbers differ by no more than noise are nearly one; those far apart keep their own. No estimate is
    shrunk by more than 1.64 of its errors, so that one clearly above or below 0 stays there whatever the others do.
    The second is the standard deviation of what remains unknown. NaN where an estimate or its error is; one symbol, and
    one with an error of 0, keep their own.
    Source: DerSimonian & Laird 1986, Controlled Clinical Trials 7(3), for the spread of the true values; Efron & Morris
    1972, JASA 67(337), for the limit.
    """
    own, error = (np.asarray(part, "float64") for part in (estimate, error))
    asked = np.isfinite(own) & np.isfinite(error)
    known = asked & (error > 0)
    own, error = np.where(asked, own, np.nan), np.where(asked, error, np.nan)
    variance = np.where(known, error, 1.0) ** 2

    def total(values: np.ndarray | float) -> np.ndarray:
        return np.where(known, values, 0.0).sum(axis=-1, keepdims=True)

    n, weight = total(1.0), 1 / variance
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 where fewer than two are known
        excess = total(weight * (own - total(weight * own) / total(weight)) ** 2) - (n - 1)
        between = np.maximum(0, excess / (total(weight) - total(weight**2) / total(weight)))
        weight = 1 / (variance + between)
        share = between / (between + variance)  # of a symbol's own number
        shrunk = share * own + (1 - share) * total(weight * own) / total(weight)
        left = np.sqrt(share * variance + (1 - share) ** 2 / total(weight))
    far = np.abs(shrunk - own) > CLEARLY * np.sqrt(variance)
    shrunk = np.where(far, own + CLEARLY * np.sqrt(variance) * np.sign(shrunk - own), shrunk)
    left = np.where(far, np.sqrt(variance), left)
    return np.where(known & (n > 1), shrunk, own), np.where(known & (n > 1), left, error)


def deflated_sharpe(daily_returns: ArrayLike, n_trials: int = 1) -> np.ndarray:
    """`[days, ...] -> [...]`: chance that the Sharpe ratio is above the expected best of `n_trials` without skill.

    Every configuration that was evaluated on these days is a trial, thrown away or not; their Sharpe ratios are taken
    to spread by the sampling error of one without skill. Takes account of the length, skewness and kurtosis of the
    returns. NaN for fewer than three days or no spread. One trial: the chance that the true ratio is above 0.
    Source: Bailey & López de Prado 2014, Journal of Portfolio Management 40(5).
    """
    from scipy.special import ndtr

    returns = np.asarray(daily_returns, "float64")
    n = len(returns)
    if n_trials < 1:
        raise DataError(f"n_trials = {n_trials}: this one is a trial too, so at least 1.")
    if n < 3:
        return np.full(returns.shape[1:], np.nan)[()]
    around = returns - returns.mean(axis=0)
    spread = np.where(np.ptp(returns, axis=0) > 0, around.std(axis=0), np.nan)
    ratio = returns.mean(axis=0) / spread * math.sqrt((n - 1) / n)  # per day
    skewness, kurtosis = ((around**power).mean(axis=0) / spread**power for power in (3, 4))
    lead = ratio - best_sharpe_without_skill(n_trials, 1 / math.sqrt(n - 1))
    return ndtr(lead * math.sqrt(n - 1) / np.sqrt(1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2))[()]


def best_sharpe_without_skill(n_trials: int, spread: float) -> float:
    """The Sharpe ratio to be expected of the best of `n_trials` without skill, in the unit of their `spread`.

    spread × ((1 - γ) Φ⁻¹(1 - 1/N) + γ Φ⁻¹(1 - 1/(N e))), γ = 0.5772. Source: Bailey & López de Prado 2014.
    """
    from scipy.special import ndtri

    if n_trials == 1:
        return 0.0
    return float(spread * ((1 - np.euler_gamma) * ndtri(1 - 1 / n_trials)
                           + np.euler_gamma * ndtri(1 - 1 / (n_trials * math.e))))


def model_confidence_set(losses: ArrayLike, *, block_days: int = 3 * HORIZON, n_samples: int = 1000,
                         seed: int = 0) -> np.ndarray:
    """`[days, models] -> [models]`: p-value of each model; those above 0.1 are the 90 % model confidence set.

    The set holds the best model with that confidence; what it leaves out is worse than the best by more than luck. The
    range statistic, on a stationary bootstrap of blocks of `block_days` on average.
    Source: Hansen, Lunde & Nason 2011, Econometrica 79(2); Politis & Romano 1994, JASA 89(428).
    """
    losses = np.asarray(losses, "float64")
    n, n_models = losses.shape
    counts = _stationary_counts(n, block_days, n_samples, np.random.default_rng(seed))
    mean, sampled = losses.mean(axis=0), counts @ losses / n  # [models], [samples, models]
    lead = mean[:, None] - mean  # [models, models] of a row's loss over a column's
    noise = sampled[:, :, None] - sampled[:, None, :] - lead
    error = np.sqrt((noise**2).mean(axis=0))
    error = np.where(error > 1e-12, error, np.inf)  # itself, and an exact copy
    lead, noise = lead / error, np.abs(noise) / error
    left, p_values, p = list(range(n_models)), np.ones(n_models), 0.0
    while len(left) > 1:
        inside = np.ix_(left, left)
        p = max(p, float((noise[:, inside[0], inside[1]].max(axis=(1, 2)) >= lead[inside].max()).mean()))
        worst = left[int(lead[inside].max(axis=1).argmax())]
        p_values[worst] = p
        left.remove(worst)
    return p_values


def _stationary_counts(n: int, block_days: int, n_samples: int, random: np.random.Generator) -> np.ndarray:
    """`[samples, days]`: how often each day is drawn, in blocks of geometric length that wrap around."""
    day = np.empty((n_samples, n), dtype="int64")
    starts, fresh = random.integers(0, n, (n_samples, n)), random.random((n_samples, n)) < 1 / block_days
    day[:, 0] = starts[:, 0]
    for place in range(1, n):
        day[:, place] = np.where(fresh[:, place], starts[:, place], (day[:, place - 1] + 1) % n)
    return np.bincount((day + n * np.arange(n_samples)[:, None]).ravel(), minlength=n_samples * n).reshape(-1, n) * 1.0
