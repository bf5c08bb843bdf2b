"""Is a hit rate more than luck? Intervals, one-sided tests, and what many tests at once do to them."""

import numpy as np

from vnq_colab.errors import DataError

Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


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


def binomial_p(successes: "np.ndarray | float", n: "np.ndarray | int", rate: "np.ndarray | float") -> np.ndarray:
    """`[...] -> [...]`: chance of at least so many successes in n independent trials when the true share is `rate`.

    Fractional successes are rounded down, so that a share of overlapping windows never counts for more than it is.
    n = 0 gives 1; NaN in gives NaN.
    """
    from scipy.stats import binom

    whole = np.floor(np.asarray(successes, "float64") + 1e-9)  # 0.6 × 50 is 30, whatever the float says
    return binom.sf(whole - 1, n, rate)


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """`[..., tests] -> [..., tests]`: p-values adjusted along the last axis; those at most q keep false finds under q.

    A one-dimensional input may hold NaN: a test that was not made, not counted, and NaN in the answer.
    Source: Benjamini & Hochberg 1995, JRSS B 57(1).
    """
    from scipy.stats import false_discovery_control

    p_values = np.asarray(p_values, "float64")
    made = ~np.isnan(p_values)
    if made.all():
        return false_discovery_control(p_values, axis=-1) if p_values.size else p_values
    if p_values.ndim > 1:
        raise DataError("p-values with more than one axis must not hold NaN.")
    adjusted = np.full(p_values.shape, np.nan)
    if made.any():
        adjusted[made] = false_discovery_control(p_values[made])
    return adjusted
