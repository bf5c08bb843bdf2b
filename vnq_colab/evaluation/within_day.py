"""Statistics of the stocks of a day, `[symbols, days] -> [symbols, days]` or `[days]`, and of a series of days.

`known [symbols, days]` bool says which stocks a day's numbers are made of; elsewhere ranks and differences are 0.
"""

import numpy as np

from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.history import within_day_ranks
from vnq_colab.evaluation.significance import FEWEST_DATES

FEWEST_STOCKS = 5  # of a day whose order is worth a correlation
LAGS = 2 * HORIZON  # [days] that HAC errors reach, of outcomes over one horizon
TINY = 1e-9  # a spread of ranks below it is rounding
N_SAMPLES, BLOCK_DAYS = 1000, 3 * HORIZON  # chosen: of the test of monotone means; p is then known to 0.01


def share(values: np.ndarray, known: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean over the symbols (or, axis 1, the days) that are known; NaN where there is none."""
    n = known.sum(axis=axis)
    return np.where(n > 0, np.where(known, values, 0).sum(axis=axis) / np.maximum(n, 1), np.nan)


def around_mean(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Values less the mean of their day."""
    return np.where(known, values - share(values, known), 0)


def ranks_of(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Rank within the day, -1 to 1, of mean 0; ties share the mean."""
    return np.nan_to_num(within_day_ranks(np.where(known, values, np.nan)))


def standardised(ranks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Ranks over their standard deviation within the day; 0 where all are equal."""
    spread = np.sqrt(share(ranks ** 2, known))
    return np.divide(ranks, spread, out=np.zeros_like(ranks), where=spread > TINY)


def correlation(one: np.ndarray, other: np.ndarray, known: np.ndarray, fewest: int = FEWEST_STOCKS) -> np.ndarray:
    """`[symbols, days] -> [days]` of values of mean 0; 0 without spread, NaN with fewer stocks than `fewest`."""
    both = np.sqrt((one ** 2).sum(axis=0) * (other ** 2).sum(axis=0))
    found = np.divide((one * other).sum(axis=0), both, out=np.zeros_like(both), where=both > TINY)
    return np.where(known.sum(axis=0) >= fewest, found, np.nan)


def rank_correlation(score: np.ndarray, outcome: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`[symbols, days] -> [days]`: Spearman's."""
    return correlation(ranks_of(score, known), ranks_of(outcome, known), known)


def without(ranks: np.ndarray, factors: list[np.ndarray]) -> np.ndarray:
    """What a regression of the ranks on those of the factors, each day anew, leaves (Gram & Schmidt)."""
    bases: list[np.ndarray] = []
    for values in [*factors, ranks]:
        for base in bases:
            square = (base ** 2).sum(axis=0)
            values = values - base * np.where(square > TINY, (values * base).sum(axis=0) / np.maximum(square, TINY), 0)
        bases.append(values)
    return bases[-1]


def quantiles_of(ranks: np.ndarray, known: np.ndarray, n: int) -> np.ndarray:
    """The quantile that a rank falls into, 1 lowest to `n`, as of `pandas.qcut`; 0 where not known."""
    return np.where(known, np.clip(np.ceil(n * (ranks + 1) / 2 - TINY), 1, n), 0).astype("int64")


# --- series of days


def mean_of(values: np.ndarray) -> float:
    """Of the known values; NaN where there is none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else np.nan


def mean_and_t(values: np.ndarray, lags: int = LAGS) -> tuple[int, float, float]:
    """`[days]`: number and mean of the known values, and the mean over its error."""
    return int(np.isfinite(values).sum()), mean_of(values), mean_of(values) / hac_error(values, lags)


def hac_error(values: np.ndarray, lags: int = LAGS) -> float:
    """`[days]`: standard error of the mean of the known values; NaN for fewer than 4 horizons, or without spread.

    Bartlett's weights over `lags` days. Source: Newey & West 1987, Econometrica 55(3).
    """
    values = values[np.isfinite(values)]
    n, around = len(values), values - mean_of(values)
    if n < FEWEST_DATES:
        return np.nan
    variance = around @ around + 2 * sum((1 - lag / (lags + 1)) * (around[lag:] @ around[:-lag])
                                         for lag in range(1, min(lags, n - 1) + 1))
    return float(np.sqrt(variance) / n) if variance > 0 else np.nan


def monotone_p(daily: np.ndarray, seed: int = 0) -> float:
    """`[days, quantiles]`: p-value of "some quantile's mean is not above that of the one before".

    The smallest studentised step from a quantile to the next, against those of resampled circular blocks of days less
    the mean. Fewer than two blocks of days with all quantiles give NaN.
    Source: Patton & Timmermann 2010, JFE 98(3); Politis & Romano 1992.
    """
    steps = np.diff(daily[np.isfinite(daily).all(axis=1)], axis=1)  # [days, quantiles - 1]
    n, n_blocks = len(steps), len(steps) // BLOCK_DAYS
    if n_blocks < 2:
        return np.nan
    sums = np.concatenate([np.zeros((1, steps.shape[1])), steps, steps[:BLOCK_DAYS]]).cumsum(axis=0)
    sums = sums[BLOCK_DAYS : BLOCK_DAYS + n] - sums[:n]  # [first day of a block, quantiles - 1]
    starts = np.random.default_rng(seed).integers(0, n, (N_SAMPLES, n_blocks))
    resampled = sums[starts].mean(axis=1) / BLOCK_DAYS - steps.mean(axis=0)  # [samples, quantiles - 1]
    spread = np.maximum(resampled.std(axis=0), 1e-12)
    smallest = (steps.mean(axis=0) / spread).min()
    return float((1 + ((resampled / spread).min(axis=1) >= smallest).sum()) / (1 + N_SAMPLES))
