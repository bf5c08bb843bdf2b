"""Calibration: what validation days teach about a family's scores, probabilities and intervals, as plain numbers.

edge = slope × score, standardised within the day: relative to the mean of the universe. Where a family has no
expectation of its own, mean = edge (the universe is expected to stay where it is) and scale = spread × volatility: the
error on validation days, in units of the stock's volatility known then. p_up becomes sigmoid(slope × logit(p_up)), and
low and high are mean ∓ quantile × scale.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr

from vnq_colab.data.panel import FLAT, Panel
from vnq_colab.errors import DataError
from vnq_colab.evaluation.significance import effective_n
from vnq_colab.settings import POSITIVE

FEWEST_WINDOWS = 30  # chosen: with fewer, a slope or a tail of 10 % is not told from luck
HALF_LIFE_DAYS, MARKET_HALF_LIFE_DAYS = 20, 5  # chosen: interval score of later years' validation days, as of
# `with_volatility`: 0.262; of one number per stock 0.305, of 10 days without a market 0.266, of 40 and 5 days 0.263
LEAST_SHARE = 0.1  # [fraction of the market's variance] a stock that does not move is not known to stay so
LEAST_SLOPE = 0.05  # a slope of 0 would make every p_up 0.5 and its direction meaningless
UNKNOWN_VOLATILITY = 0.02  # [log return a day] of prices that never moved
LEAST_EDGE, LEAST_SCALE = 1e-6, 1e-4  # [log return] an order without skill keeps its order, and no more
MOST_LOGIT = 13.8  # p_up nearer to 0 or 1 than a millionth counts as this; also the largest slope
COVERAGE = 0.9  # [fraction] that intervals promise


@dataclass(frozen=True)
class Calibration:
    """What `apply` makes of the scores of one family. Exact to and from JSON."""

    family: str
    edge: float  # [log return over the horizon] of one standard deviation of the score within a day
    spread: POSITIVE  # [volatility] root mean square of outcome - mean
    slope: float  # of the logit of p_up; 1 = as it is, below 1 = overconfident
    quantile: POSITIVE | None  # half width of an interval [scale]; None: not known

    @classmethod
    def fit(cls, family: str, rows: pd.DataFrame) -> Self:
        """The calibration of a family from rows of validation days: `date, score, volatility`, and `actual`.

        With `mean` (and `scale`, `p_up`) among the columns these are calibrated, else they follow from the score.
        edge: the outcome relative to the day's mean, regressed on the score standardised within the day. p_up:
        temperature scaling with Platt's targets. Intervals: split-conformal. Raises DataError for no rows.
        Source: Grinold & Kahn 1999; Platt 1999; Guo et al. 2017, ICML; Lei et al. 2018, JASA 113(523).
        """
        if rows.empty:
            raise DataError(f"{family}: no validation day has an outcome. Bring a longer history.")
        day, actual = _days(rows), rows["actual"].to_numpy("float64")
        z = _standardised(rows, day)
        edge = max(float((z * _centred(actual, day)).sum() / max(float((z * z).sum()), 1e-12)), LEAST_EDGE)
        error = actual - (rows["mean"].to_numpy() if "mean" in rows and rows["mean"].notna().all() else edge * z)
        spread = float(np.sqrt(((error / rows["volatility"].to_numpy()) ** 2).mean()))
        base = cls(family, edge, spread, 1.0, None)
        _, mean, scale, p_up = base._values(rows, day)
        quantile = _quantile(np.abs(actual - mean) / scale, day)
        return replace(base, slope=_fit_slope(actual, p_up, day), quantile=quantile)

    def apply(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The Forecast of this family's scores with `volatility`: calibrated `edge, mean, scale, p_up, low, high`."""
        edge, mean, scale, p_up = self._values(scores, _days(scores))
        half = (np.nan if self.quantile is None else self.quantile) * scale
        return scores.assign(edge=edge, mean=mean, scale=scale, p_up=p_up, low=mean - half, high=mean + half)

    def _values(self, scores: pd.DataFrame, day: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`[rows]` each: edge, mean, scale, p_up."""
        def own(name: str, default: np.ndarray) -> np.ndarray:
            values = scores[name].to_numpy("float64") if name in scores else np.nan
            return np.where(np.isfinite(values), values, default)

        edge = self.edge * _standardised(scores, day)
        mean = own("mean", edge)
        scale = own("scale", np.maximum(self.spread * scores["volatility"].to_numpy(), LEAST_SCALE))
        p_up = own("p_up", ndtr(mean / scale))
        return edge, mean, scale, p_up if self.slope == 1 else expit(self.slope * _logit(p_up))


def with_volatility(rows: pd.DataFrame, panel: Panel, horizon: int) -> pd.DataFrame:
    """The rows with `volatility`, known at the close, and the outcome `actual` [log return over the horizon].

    Variance of daily log returns: exponential mean of the stock's own with a half-life of 20 days, times what that of
    all stocks of the panel over 5 days is to that over 20 days; at least a tenth of the market's.
    Source: RiskMetrics 1996; the market's part: Barigozzi, Brownlees, Gallo & Veredas 2014, J. Econometrics 182(2).
    """
    squares = pd.DataFrame(panel.returns.T ** 2)  # [days, symbols]

    def recent(values: pd.DataFrame, half_life: int) -> np.ndarray:
        return values.ewm(halflife=half_life, ignore_na=True).mean().ffill().to_numpy()

    own, market = recent(squares, HALF_LIFE_DAYS), squares.mean(axis=1).to_frame()
    now, before = recent(market, MARKET_HALF_LIFE_DAYS), recent(market, HALF_LIFE_DAYS)  # [days, 1]
    variance = np.fmax(np.where(np.isfinite(own), own, before), LEAST_SHARE * before)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.where(before > 0, variance * now / before, variance)
    volatility = np.sqrt(horizon * np.where(variance > 0, variance, UNKNOWN_VOLATILITY ** 2))
    symbol, names = pd.factorize(rows["symbol"])
    place = pd.Index(panel.symbols).get_indexer(names)[symbol], panel.days.get_indexer(rows["date"])
    return rows.assign(volatility=volatility.T[place], actual=panel.ahead(horizon)[place])


def calibrated(scores: pd.DataFrame, panel: Panel, horizon: int, part: str = "test") -> pd.DataFrame:
    """The Forecast of the folds' days of a part, each fold calibrated on its validation days; "valid" with `fold`."""
    tables, unneeded = [], ["part", "actual", "volatility"] + ["fold"] * (part == "test")
    scores = with_volatility(scores, panel, horizon).astype({"family": "category", "symbol": "category"})  # fast to cut
    for (family, _), rows in scores.groupby(["family", "fold"], observed=True):
        calibration = Calibration.fit(family, _known(rows))
        tables.append(calibration.apply(rows[(rows["part"] == part).to_numpy()]).drop(columns=unneeded))
    return pd.concat(tables, ignore_index=True).astype({"family": str, "symbol": object})


def final_calibrations(scores: pd.DataFrame, panel: Panel, horizon: int) -> dict[str, Calibration]:
    """For each family the calibration of all folds' validation days together, which the final fit takes."""
    known = _known(with_volatility(scores, panel, horizon))
    return {family: Calibration.fit(family, rows)
            for family, rows in known.groupby("family", sort=False, observed=True)}


def _known(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of validation days whose outcome is known."""
    return rows[(rows["part"] == "valid").to_numpy() & rows["actual"].notna().to_numpy()]


def _days(rows: pd.DataFrame) -> np.ndarray:
    """`[rows]`: number of the row's date among their dates, in order; of 16 bits, which sort ten times faster."""
    return pd.factorize(rows["date"], sort=True)[0].astype("int16")


def _centred(values: np.ndarray, day: np.ndarray) -> np.ndarray:
    """`[rows]`: values less the mean of their day."""
    return values - (np.bincount(day, values) / np.maximum(np.bincount(day), 1))[day]


def _standardised(rows: pd.DataFrame, day: np.ndarray) -> np.ndarray:
    """`[rows]`: the score less the mean of its day, over its standard deviation there; 0 where all are equal."""
    around = _centred(rows["score"].to_numpy("float64"), day)
    spread = np.sqrt(np.bincount(day, around**2) / np.maximum(np.bincount(day), 1))[day]
    return np.divide(around, spread, out=np.zeros_like(around), where=spread > 1e-12)


def _logit(p_up: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.clip(logit(p_up), -MOST_LOGIT, MOST_LOGIT)


def _fit_slope(actual: np.ndarray, p_up: np.ndarray, day: np.ndarray) -> float:
    """Slope of a logistic regression of the direction on the logit of p_up; 1 where too little is there to fit it.

    Flat days are left out; targets are shrunk towards one half with independent windows as counts.
    """
    moved = np.abs(actual) >= FLAT
    up, logits = actual[moved] > 0, _logit(p_up[moved])
    if up.all() or not up.any() or np.ptp(logits) < 1e-9 or (n := effective_n(up, day[moved])) < FEWEST_WINDOWS:
        return 1.0
    n_up, n_down = n * up.mean(), n * (1 - up.mean())
    target = np.where(up, (n_up + 1) / (n_up + 2), 1 / (n_down + 2))

    def gradient(slope: float) -> float:  # of the log likelihood, which is concave
        return float((logits * (target - expit(slope * logits))).sum())

    if gradient(LEAST_SLOPE) <= 0:
        return LEAST_SLOPE
    return float(brentq(gradient, LEAST_SLOPE, MOST_LOGIT)) if gradient(MOST_LOGIT) < 0 else MOST_LOGIT


def _quantile(miss: np.ndarray, day: np.ndarray) -> float | None:
    """Half width [scale] of intervals; None where the windows do not reach so far into the tail."""
    n_windows = effective_n(miss <= np.quantile(miss, COVERAGE), day)
    level = COVERAGE * (n_windows + 1) / n_windows
    return float(np.quantile(miss, level, method="higher")) if level <= 1 else None
