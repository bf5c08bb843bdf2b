"""Is it more than luck? Intervals, tests of means that overlap, resampling, and what many trials do to them."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from vnq_colab.data.forecast import HORIZON
from vnq_colab.errors import DataError

TRADING_DAYS = 250  # per year in Vietnam: 247 to 252 in 2016-2025
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
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


def benjamini_hochberg(p_values: ArrayLike) -> np.ndarray:
    """`[..., tests] -> [..., tests]`: p-values adjusted along the last axis; those at most q keep false finds under q.

    NaN is a test that was not made: not counted, and NaN in the answer. Tests that lean the same way, as those of
    symbols that move together, keep the promise. Source: Benjamini & Hochberg 1995, JRSS B 57(1); Benjamini & Yekutieli
    2001, Annals of Statistics 29(4).
    """
    p_values = np.asarray(p_values, "float64")
    order = np.argsort(p_values, axis=-1)  # NaN last
    made = (~np.isnan(p_values)).sum(axis=-1, keepdims=True)
    steps = np.take_along_axis(p_values, order, axis=-1) * made / np.arange(1, p_values.shape[-1] + 1)
    steps = np.fmin(np.fmin.accumulate(steps[..., ::-1], axis=-1)[..., ::-1], 1)  # the least of all from there on
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, steps, axis=-1)
    return np.where(np.isnan(p_values), np.nan, adjusted)


# --- means over days that overlap, of symbols that move together


@dataclass(frozen=True)
class MeanTest:
    """A mean, its 95 % interval, and the chance of at least as much if the true mean were 0."""

    mean: float
    error: float  # standard error; NaN: not known
    low: float
    high: float
    statistic: float  # mean / error, corrected where the test says so
    p: float  # one-sided: true mean above 0
    n_dates: int  # [days]


def pooled_test(values: ArrayLike, dates: ArrayLike, *, lag: int | None = None) -> MeanTest:
    """Is the mean of `values` above 0? Rows of one date count as one cluster, and neighbouring dates overlap.

    `values` and `dates` have one row per symbol and date, such as "right minus base rate"; dates may come in any order,
    and those without a row are left out. `lag` None takes the equal-weighted cosine estimator with B = 0.4 n^(2/3)
    terms and Student's t of B degrees of freedom: under a true null with 5-day overlap it finds 5.1 to 5.5 % at a
    nominal 5 %. A number takes Driscoll and Kraay's Bartlett weights up to that lag [days], at least the horizon - 1,
    and the normal distribution, as other software does; with lag 4 that finds 9 to 10 %. Fewer than 4 horizons of dates
    give NaN. Source: Lazarus, Lewis, Stock & Watson 2018, JBES 36(4); Driscoll & Kraay 1998, REStat 80(4).
    """
    from scipy.stats import norm, t

    if lag is not None and lag < HORIZON - 1:
        raise DataError(f"lag = {lag}: 5-day outcomes overlap on {HORIZON - 1} neighbouring days. Take at least that.")
    total, count = _by_date(values, dates)
    n, mean = len(total), total.sum() / max(count.sum(), 1)
    if n < FEWEST_DATES:
        return MeanTest(float(mean) if n else math.nan, *[math.nan] * 5, n)
    around = total - mean * count  # [dates]
    if lag is None:
        variance, n_terms = cosine_variance(around)
        law = t(n_terms)
    else:
        variance, law = _lag_variance(around, lag), norm
    error = math.sqrt(variance) / count.sum()
    if error <= 1e-12 * max(abs(mean), 1e-300):  # every date the same: no spread to judge by
        return MeanTest(float(mean), *[math.nan] * 5, n)
    half = law.ppf(0.975) * error
    return MeanTest(*map(float, (mean, error, mean - half, mean + half, mean / error, law.sf(mean / error))), n)


def block_bootstrap(values: ArrayLike, dates: ArrayLike, *, block_days: int = 3 * HORIZON, n_samples: int = 2000,
                    seed: int = 0) -> MeanTest:
    """The same question by resampling: moving blocks of `block_days` dates, all symbols of a date together.

    The interval is m - q(0.975) to m - q(0.025) of the centred resampled means ("basic"); p is the share of them that
    reach m, never 0. Fewer than two blocks of dates give NaN. The same seed gives the same numbers. With 125 to 500
    dates and 5-day overlap it finds 6 to 9 % at a nominal 5 % when nothing is true: see it as a picture of the spread,
    and decide with `pooled_test`. Source: Künsch 1989, Annals of Statistics 17(3).
    """
    if block_days < HORIZON:
        raise DataError(f"block_days = {block_days}: shorter than the {HORIZON} days of one outcome, blocks would hide "
                        "the overlap. Take 3 horizons.")
    total, count = _by_date(values, dates)
    n = len(total)
    mean = total.sum() / max(count.sum(), 1)
    if n < 2 * block_days:
        return MeanTest(float(mean) if n else math.nan, *[math.nan] * 5, n)
    random = np.random.default_rng(seed)
    n_blocks, rest = divmod(n, block_days)
    lengths = [block_days] * n_blocks + [rest] * (rest > 0)  # the last block is cut, so that every sample has n dates
    sums = {length: [_windows(part, length) for part in (total, count)] for length in set(lengths)}
    starts = random.integers(0, n - block_days + 1, (n_samples, len(lengths)))
    drawn = [sum(sums[length][part][starts[:, place]] for place, length in enumerate(lengths)) for part in (0, 1)]
    means = drawn[0] / np.maximum(drawn[1], 1)  # [samples]
    centred = means - means.mean()
    error = centred.std(ddof=1)
    low, high = mean - np.quantile(centred, [0.975, 0.025])
    p = (1 + (centred >= mean).sum()) / (1 + n_samples)
    statistic = mean / error if error > 0 else math.nan
    return MeanTest(*map(float, (mean, error, low, high, statistic, p)), n)


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


def diebold_mariano(loss: ArrayLike, other_loss: ArrayLike, *, horizon: int = HORIZON) -> MeanTest:
    """`[days], [days]`: is `loss` smaller than `other_loss` on average? `mean` is other - loss: above 0 is better.

    Losses are those of each forecast origin in order, such as squared errors; for several symbols take their mean by
    date first. HAC variance with equal weights up to lag horizon - 1 (Bartlett's where that is not positive), the
    small-sample factor √((n + 1 - 2h + h(h - 1)/n) / n) and Student's t of n - 1. `p` is one-sided; two-sided is
    2 min(p, 1 - p). Fewer than 4 horizons of days, or equal losses, give NaN.
    Source: Diebold & Mariano 1995, JBES 13(3); Harvey, Leybourne & Newbold 1997, IJF 13(2).
    """
    from scipy.stats import t

    gain = np.asarray(other_loss, "float64") - np.asarray(loss, "float64")
    if gain.ndim != 1 or not np.isfinite(gain).all():
        raise DataError(f"losses must be one finite number per day, found shape {gain.shape} with "
                        f"{int((~np.isfinite(gain)).sum())} not finite. Leave out days that one forecast lacks.")
    n = len(gain)
    if n < 4 * horizon or np.ptp(gain) == 0:
        return MeanTest(float(gain.mean()) if n else math.nan, *[math.nan] * 5, n)
    mean = gain.mean()
    variance = _lag_variance(gain - mean, horizon - 1, equal=True)
    if variance <= 0:
        variance = _lag_variance(gain - mean, horizon - 1)
    factor = math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    error = math.sqrt(variance) / n / factor
    half = t.ppf(0.975, n - 1) * error
    return MeanTest(*map(float, (mean, error, mean - half, mean + half, mean / error, t.sf(mean / error, n - 1))), n)


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


def _windows(values: np.ndarray, length: int) -> np.ndarray:
    """`[dates] -> [starts]`: sums of `length` neighbouring values."""
    sums = np.concatenate([[0.0], values.cumsum()])
    return sums[length:] - sums[:-length]


def _lag_variance(around: np.ndarray, lag: int, *, equal: bool = False) -> float:
    """Variance of the sum of centred values `[days]` from autocovariances up to `lag`, weights falling or equal."""
    weights = [1.0 if equal else 1 - step / (lag + 1) for step in range(1, lag + 1)]
    return float(around @ around + 2 * sum(weight * (around[step:] @ around[:-step])
                                           for step, weight in enumerate(weights, 1)))


def cosine_variance(around: np.ndarray) -> tuple[np.ndarray, int]:
    """`[days, ...] -> [...]`: variance of the sum of centred values, and of how many cosines.

    The slowest ones, equally weighted. Source: Lazarus, Lewis, Stock & Watson 2018, JBES 36(4).
    """
    n = len(around)
    n_terms = max(int(0.4 * n ** (2 / 3)), 1)
    waves = np.cos(np.pi * np.arange(1, n_terms + 1)[:, None] * (np.arange(n) + 0.5) / n)  # [terms, days]
    return 2 * (np.tensordot(waves, around, 1) ** 2).mean(axis=0), n_terms


# --- Sharpe ratios of many trials


def sharpe_probability(sharpe: ArrayLike, benchmark: ArrayLike, n_days: ArrayLike, skewness: ArrayLike,
                       kurtosis: ArrayLike) -> np.ndarray:
    """`[...] -> [...]`: chance that the true Sharpe ratio is above `benchmark`, both per day, not annualised.

    `kurtosis` is 3 for the normal distribution. Source: Bailey & López de Prado 2012, Journal of Risk 15(2).
    """
    from scipy.special import ndtr

    sharpe = np.asarray(sharpe, "float64")
    spread = np.sqrt(1 - np.asarray(skewness) * sharpe + (np.asarray(kurtosis) - 1) / 4 * sharpe**2)
    return ndtr((sharpe - benchmark) * np.sqrt(np.maximum(np.asarray(n_days) - 1, 0)) / spread)


def probabilistic_sharpe(daily_returns: ArrayLike, benchmark: float = 0.0) -> np.ndarray:
    """`[days, ...] -> [...]`: chance that the true Sharpe ratio is above `benchmark` [annualised], from daily returns.

    Takes account of the length, skewness and kurtosis of the returns. NaN for fewer than three days or no spread.
    """
    returns = np.asarray(daily_returns, "float64")
    return sharpe_probability(*_sharpe_moments(returns, benchmark / math.sqrt(TRADING_DAYS)))[()]


def deflated_sharpe(daily_returns: ArrayLike, n_trials: int, *, spread: float | None = None) -> np.ndarray:
    """`[days, ...] -> [...]`: chance that the Sharpe ratio is above the expected best of `n_trials` without skill.

    Every configuration that was looked at on these days is a trial, thrown away or not. `spread` is the standard
    deviation of the trials' annualised Sharpe ratios; None takes the sampling error of one without skill,
    √(250 / (days - 1)). One trial is `probabilistic_sharpe` against 0.
    Source: Bailey & López de Prado 2014, Journal of Portfolio Management 40(5).
    """
    returns = np.asarray(daily_returns, "float64")
    if n_trials < 1:
        raise DataError(f"n_trials = {n_trials}: this one is a trial too, so at least 1.")
    if spread is None:
        spread = math.sqrt(TRADING_DAYS / max(len(returns) - 1, 1))
    return probabilistic_sharpe(returns, best_sharpe_without_skill(n_trials, spread))


def best_sharpe_without_skill(n_trials: int, spread: float) -> float:
    """The Sharpe ratio to be expected of the best of `n_trials` without skill, in the unit of their `spread`.

    spread × ((1 - γ) Φ⁻¹(1 - 1/N) + γ Φ⁻¹(1 - 1/(N e))), γ = 0.5772. Source: Bailey & López de Prado 2014.
    """
    from scipy.special import ndtri

    if n_trials == 1:
        return 0.0
    return float(spread * ((1 - np.euler_gamma) * ndtri(1 - 1 / n_trials)
                           + np.euler_gamma * ndtri(1 - 1 / (n_trials * math.e))))


def _sharpe_moments(returns: np.ndarray, benchmark: float) -> tuple[np.ndarray, float, int, np.ndarray, np.ndarray]:
    """What `sharpe_probability` asks for; a ratio of NaN where there is none."""
    known = (np.ptp(returns, axis=0) > 0) & (len(returns) >= 3) if len(returns) else np.zeros(returns.shape[1:], bool)
    if not np.any(known):
        nothing = np.full(returns.shape[1:], np.nan)
        return nothing, benchmark, len(returns), nothing, nothing
    around = returns - returns.mean(axis=0)
    spread = np.where(known, around.std(axis=0), np.nan)
    ratio = returns.mean(axis=0) / np.where(known, around.std(axis=0, ddof=1), np.nan)
    return (ratio, benchmark, len(returns), (around**3).mean(axis=0) / spread**3, (around**4).mean(axis=0) / spread**4)


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
