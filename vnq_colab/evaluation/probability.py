"""What stated probabilities and intervals were worth: scores, reliability, coverage.

A `table` here is what `metrics.with_outcomes` gives: rows of a Forecast with `actual`, the 5-day log return that came.
Flat outcomes are left out of everything about p_up, as in `metrics.score`.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from vnq_colab.data.panel import FLAT
from vnq_colab.errors import DataError
from vnq_colab.evaluation.significance import effective_n, wilson_interval

SURE = float(np.finfo("float64").eps)  # p_up nearer to 0 or 1 counts as this far from it, so that a log loss is finite


def log_loss_of(p_up: ArrayLike, up: ArrayLike) -> np.ndarray:
    """`[...], [...] -> [...]`: minus the natural log of the probability given to what happened; 0.693 is a coin's.

    Source: Good 1952, JRSS B 14(1).
    """
    p_up = np.clip(np.asarray(p_up, "float64"), SURE, 1 - SURE)
    return -np.log(np.where(up, p_up, 1 - p_up))


def crps_normal(actual: ArrayLike, mean: ArrayLike, scale: ArrayLike) -> np.ndarray:
    """`[...] × 3 -> [...]`: continuous ranked probability score of a normal forecast, in the unit of `actual`.

    ∫ (F(x) - 1{x ≥ actual})² dx = scale (z (2 Φ(z) - 1) + 2 φ(z) - 1 / √π), z = (actual - mean) / scale. Smaller is
    better; with no spread it is the absolute error. Source: Gneiting & Raftery 2007, JASA 102(477).
    """
    from scipy.special import ndtr

    scale = np.asarray(scale, "float64")
    z = (np.asarray(actual, "float64") - mean) / scale
    return scale * (z * (2 * ndtr(z) - 1) + 2 * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi))


def interval_score(actual: ArrayLike, low: ArrayLike, high: ArrayLike, coverage: float) -> np.ndarray:
    """`[...] × 3 -> [...]`: width of the interval plus 2 / (1 - coverage) times the miss, in the unit of `actual`.

    Smaller is better: wide intervals and missed outcomes both cost. Source: Winkler 1972, JASA 67(337).
    """
    actual, low, high = (np.asarray(value, "float64") for value in (actual, low, high))
    return high - low + 2 / (1 - coverage) * (np.maximum(low - actual, 0) + np.maximum(actual - high, 0))


def reliability_curve(table: pd.DataFrame, *, n_bins: int = 10, equal_width: bool = False) -> pd.DataFrame:
    """One row per family and bin of p_up: what was said and how often it came true.

    Bins hold equally many rows, because most p_up lie close to 0.5; equal values are never torn apart, so a family that
    says little has fewer bins. `equal_width` cuts [0, 1] into equal parts instead. Columns: `family`, `bin`; `p_from`,
    `p_to`, the smallest and largest p_up in it; `n` rows, `n_independent` of them (overlap and common moves taken out,
    see `significance.effective_n`); `p_up`, the mean said; `up_share`, the share that rose; `up_low`, `up_high`, its
    95 % Wilson interval on n_independent. Empty bins have no row.
    """
    if n_bins < 1:
        raise DataError(f"n_bins = {n_bins}: must be at least 1.")
    lines = []
    for family, rows in _moved(table).groupby("family", sort=True):
        p_up, up, dates = rows["p_up"].to_numpy(), rows["up"].to_numpy("float64"), rows["date"].to_numpy()
        place = _bins(p_up, n_bins, equal_width)
        for number in np.unique(place):
            inside = place == number
            lines.append((family, int(number), p_up[inside].min(), p_up[inside].max(), int(inside.sum()),
                          effective_n(up[inside], dates[inside]), p_up[inside].mean(), up[inside].mean()))
    curve = pd.DataFrame(lines, columns=["family", "bin", "p_from", "p_to", "n", "n_independent", "p_up", "up_share"])
    curve["up_low"], curve["up_high"] = wilson_interval(curve["up_share"] * curve["n_independent"],
                                                        curve["n_independent"])
    return curve


def expected_calibration_error(table: pd.DataFrame, *, n_bins: int = 10, equal_width: bool = False) -> pd.Series:
    """By family: mean distance between what was said and how often it came true, over the bins, weighted by rows.

    0 is perfect, and out of reach: with few independent days even true probabilities show some. Compare families on the
    same days. Source: Naeini, Cooper & Hauskrecht 2015, AAAI; there with bins of equal width.
    """
    curve = reliability_curve(table, n_bins=n_bins, equal_width=equal_width)
    miss = (curve["p_up"] - curve["up_share"]).abs() * curve["n"]
    return (miss.groupby(curve["family"]).sum() / curve.groupby("family")["n"].sum()).rename("calibration_error")


def interval_coverage(table: pd.DataFrame, coverage: float, *, by: tuple[str, ...] = ("family",)) -> pd.DataFrame:
    """One row per family: how often the outcome fell between `low` and `high`, which promise `coverage` [fraction].

    `by=("family", "symbol")` gives a row per symbol. Columns: `n_days` rows; `n_independent`, what they are worth
    (see `significance.effective_n`); `covered`, the share inside, ends included, flat outcomes too; `covered_low`,
    `covered_high`, its 95 % Wilson interval on n_independent; `width`, the mean width, and `interval_score` [log
    return]. Rows whose interval is not known (NaN) are left out.
    """
    if missing := [name for name in ("low", "high") if name not in table.columns]:
        raise DataError(f"forecast: columns {missing} are missing. They come from Calibration.apply.")
    if not 0 < coverage < 1:
        raise DataError(f"coverage = {coverage}: must lie between 0 and 1.")
    table = table.dropna(subset=["low", "high"])
    lines = []
    for keys, rows in table.groupby(list(by), sort=True):
        inside = rows["actual"].between(rows["low"], rows["high"]).to_numpy("float64")
        cost = interval_score(rows["actual"], rows["low"], rows["high"], coverage)
        lines.append((*keys, len(rows), effective_n(inside, rows["date"]), inside.mean(),
                      (rows["high"] - rows["low"]).mean(), cost.mean()))
    found = pd.DataFrame(lines, columns=[*by, "n_days", "n_independent", "covered", "width", "interval_score"])
    ends = wilson_interval(found["covered"] * found["n_independent"], found["n_independent"])
    found.insert(len(by) + 3, "covered_low", ends[0])
    found.insert(len(by) + 4, "covered_high", ends[1])
    return found


def _moved(table: pd.DataFrame) -> pd.DataFrame:
    """family, date, p_up and whether it rose, of the rows whose price moved."""
    if "actual" not in table.columns:
        raise DataError("table: column 'actual' is missing. Make it with with_outcomes(forecast, panel).")
    rows = table.loc[table["actual"].abs() >= FLAT, ["family", "date", "p_up", "actual"]]
    return rows.assign(up=rows["actual"] > 0)


def _bins(p_up: np.ndarray, n_bins: int, equal_width: bool) -> np.ndarray:
    """`[rows] -> [rows]`: number of the bin of each p_up, from 0; a bin holds its right end, not its left."""
    inner = np.arange(1, n_bins) / n_bins
    if equal_width:
        return np.searchsorted(inner, p_up, side="left")
    values, place = np.unique(p_up, return_inverse=True)
    if len(values) <= n_bins:  # a family that says few different things: each is a bin
        return place
    return np.searchsorted(np.unique(np.quantile(p_up, inner)), p_up, side="left")
