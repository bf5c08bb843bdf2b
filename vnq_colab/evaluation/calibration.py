"""Calibration: what validation days teach about a family's scores, probabilities and intervals, as plain numbers.

edge = slope x score, standardised within the day. Where a family has no expectation of its own, mean is its edge and
scale the spread of what validation days left over. p_up becomes sigmoid(slope x logit(p_up)), and low and high are
mean -/+ quantile x scale.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit, logit, ndtr

from vnq_colab.data.panel import FLAT
from vnq_colab.errors import ConfigError, DataError, name_a_few
from vnq_colab.evaluation.significance import effective_n

FEWEST_WINDOWS = 30  # chosen: with fewer, a slope or a tail of 10 % is not told from luck
FEWEST_ROWS = 60  # of a symbol, from which its own spread is measured
LEAST_SLOPE = 0.05  # a slope of 0 would make every p_up 0.5 and its direction meaningless
LEAST_EDGE, LEAST_SCALE = 1e-6, 1e-4  # [log return] an order without skill keeps its order, and no more
NEWTON_STEPS = 100
MOST_LOGIT = 13.8  # p_up nearer to 0 or 1 than a millionth counts as this
COVERAGE = 0.9  # [fraction] that intervals promise, unless asked otherwise


@dataclass(frozen=True, repr=False)
class Calibration:
    """What `apply` makes of the scores of one family. Exact to and from JSON."""

    family: str
    edge: float  # [log return over the horizon] of one standard deviation of the score within a day
    scale: float  # [log return] spread of outcome - mean, for symbols without one of their own
    scales: dict[str, float]  # the same by symbol
    coverage: float  # [fraction] that intervals promise
    slope: float  # of the logit of p_up; 1 = as it is, below 1 = overconfident
    quantile: float | None  # half width of an interval [scale]; None: not known
    n_windows: float  # independent windows that `slope` rests on
    first: str  # validation day, "2024-03-01"
    last: str
    notes: tuple[str, ...]  # sentences: what was left as it is, and why

    @classmethod
    def fit(cls, family: str, rows: pd.DataFrame, *, coverage: float = COVERAGE) -> Self:
        """The calibration of a family from validation days: `symbol, date, score`, and `actual`, what happened.

        Give it validation days only: test days that it has seen prove nothing any more. With `mean` (and `scale`,
        `p_up`) among the columns these are calibrated, else they are made of the score.

        edge: the outcome relative to the day's mean, regressed on the score standardised within the day.
        p_up: temperature scaling, a logistic regression of the direction on the logit of p_up without an intercept, so
        that every p_up keeps its side of 0.5. Flat days are left out; targets are shrunk towards one half as by Platt,
        with independent windows as counts. The slope is at least 0.05, so that order and direction stay; when less was
        found, `notes` says so.
        Intervals: split-conformal. The quantile of |actual - mean| / scale at the level coverage x (n + 1) / n, flat
        days included, n counted in independent windows.
        Source: Grinold & Kahn 1999; Platt 1999; Guo et al. 2017, ICML; Lei et al. 2018, JASA 113(523).
        """
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage = {coverage}: must lie between 0 and 1.")
        if rows.empty:
            raise DataError(f"{family}: no validation day has an outcome. Bring a longer history.")
        z, actual = _standardised(rows), rows["actual"].to_numpy("float64")
        relative = actual - rows.groupby("date")["actual"].transform("mean").to_numpy()
        edge = max(float((z * relative).sum() / max(float((z * z).sum()), 1e-12)), LEAST_EDGE)
        error = actual - (rows["mean"].to_numpy() if "mean" in rows and rows["mean"].notna().all() else edge * z)
        scale = max(float(np.sqrt((error ** 2).mean())), LEAST_SCALE)
        by_symbol = pd.Series(error ** 2).groupby(rows["symbol"].to_numpy()).agg(["mean", "size"])
        own = np.sqrt(by_symbol["mean"][by_symbol["size"] >= FEWEST_ROWS]).clip(lower=LEAST_SCALE)
        base = cls(family, edge, scale, {str(name): float(value) for name, value in own.items()}, float(coverage), 1.0,
                   None, 0.0, f"{rows['date'].min():%Y-%m-%d}", f"{rows['date'].max():%Y-%m-%d}", ())
        made = base.apply(rows)
        slope, n_windows, note = _fit_slope(made)
        quantile = _quantile(made, coverage)
        notes = [note] if note else []
        if edge <= LEAST_EDGE:
            notes.append("The order of the validation days shows no skill: its edge is taken as 0.")
        if quantile is None:
            notes.append(f"Intervals of {coverage:.0%} are not known: {rows['date'].nunique()} validation days are too "
                         "few.")
        return cls(**(base._fields() | {"slope": slope, "quantile": quantile,
                                        "n_windows": float(n_windows), "notes": tuple(notes)}))

    def apply(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The Forecast of these scores: `edge, mean, scale, p_up`, calibrated, and the interval `low, high`.

        Raises DataError for rows of another family.
        """
        others = sorted(set(scores["family"].unique()) - {self.family})
        if others:
            raise DataError(f"forecast: rows of {name_a_few(others)}, but this is the calibration of {self.family}. "
                            "Choose its rows first.")
        edge = self.edge * _standardised(scores)

        def own(name: str, else_: np.ndarray) -> np.ndarray:
            known = scores[name].to_numpy("float64") if name in scores else np.full(len(scores), np.nan)
            return np.where(np.isfinite(known), known, else_)

        mean = own("mean", edge)
        symbol = scores["symbol"].astype("category").cat
        scale = np.array([self.scales.get(str(name), self.scale) for name in symbol.categories])[symbol.codes]
        scale = own("scale", scale)
        p_up = _steeper(own("p_up", ndtr(mean / scale)), self.slope)
        half = (np.nan if self.quantile is None else self.quantile) * scale
        return scores.assign(edge=edge, mean=mean, scale=scale, p_up=p_up, low=mean - half, high=mean + half)

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"notes": list(self.notes)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The calibration that `to_dict` wrote. Raises ConfigError for unknown or missing keys."""
        wrong = sorted(set(value) ^ set(cls.__dataclass_fields__))
        if wrong:
            raise ConfigError(f"calibration: keys {name_a_few(wrong)} are unknown or missing. Fit it again.")
        return cls(**value | {"notes": tuple(value["notes"])})

    def __repr__(self) -> str:
        half = "unknown" if self.quantile is None else f"± {self.quantile:.2f} scale"
        days = f"{self.first} to {self.last}"
        lines = [f"Calibration of {self.family} on {days}, {self.n_windows:.0f} independent windows: edge "
                 f"{self.edge:.2%} a standard deviation, logit of p_up × {self.slope:.2f}, "
                 f"intervals of {self.coverage:.0%} {half}"]
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def _standardised(rows: pd.DataFrame) -> np.ndarray:
    """`[rows]`: the score less the mean of its day, over its standard deviation there; 0 where all are equal."""
    by_day = rows.groupby("date")["score"]
    spread = by_day.transform("std", ddof=0).to_numpy()
    around = rows["score"].to_numpy() - by_day.transform("mean").to_numpy()
    return np.where(spread > 1e-12, around / np.where(spread > 1e-12, spread, 1.0), 0.0)


def _logit(p_up: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.clip(logit(p_up), -MOST_LOGIT, MOST_LOGIT)


def _steeper(p_up: np.ndarray, slope: float) -> np.ndarray:
    """`[rows] -> [rows]`: calibrated p_up; the very same number where nothing is to be done."""
    return p_up if slope == 1 else expit(slope * _logit(p_up))


def _fit_slope(rows: pd.DataFrame) -> tuple[float, float, str]:
    """The slope, how many independent windows it rests on, and what stayed as it is ("" for nothing)."""
    rows = rows[rows["actual"].abs() >= FLAT]
    up, score = (rows["actual"] > 0).to_numpy(), _logit(rows["p_up"].to_numpy("float64"))
    n_windows = effective_n(up, rows["date"]) if len(rows) else 0.0
    if up.all() or not up.any():
        only = f"only {'rose' if up.any() else 'fell'}" if len(up) else "never moved"
        return 1.0, n_windows, f"p_up stays as it is: on the validation days prices {only}."
    if n_windows < FEWEST_WINDOWS:
        return 1.0, n_windows, (f"p_up stays as it is: the validation days hold {n_windows:.0f} independent "
                                f"windows, {FEWEST_WINDOWS} are needed.")
    if np.ptp(score) < 1e-9:
        return 1.0, n_windows, f"p_up stays as it is: it is always {rows['p_up'].iloc[0]:.3f}."
    share = up.mean()
    target = np.where(up, (n_windows * share + 1) / (n_windows * share + 2), 1 / (n_windows * (1 - share) + 2))
    slope = 1.0
    for _ in range(NEWTON_STEPS):  # the likelihood is concave in one number
        said = expit(slope * score)
        step = (score * (target - said)).sum() / max((score**2 * said * (1 - said)).sum(), 1e-12)
        slope = float(np.clip(slope + np.clip(step, -1, 1), -MOST_LOGIT, MOST_LOGIT))
        if abs(step) < 1e-9:
            break
    if slope >= LEAST_SLOPE:
        return slope, n_windows, ""
    return LEAST_SLOPE, n_windows, ("p_up says nothing about the direction of the validation days (slope "
                                    f"{slope:.2f}): it is shrunk towards 0.5 as far as its order allows.")


def _quantile(rows: pd.DataFrame, coverage: float) -> float | None:
    """Half width [scale] of intervals with this coverage; None where the windows do not reach so far into the tail."""
    miss = ((rows["actual"] - rows["mean"]).abs() / rows["scale"]).to_numpy()
    n_windows = effective_n(miss <= np.quantile(miss, coverage), rows["date"])
    level = coverage * (n_windows + 1) / n_windows
    return float(np.quantile(miss, level, method="higher")) if level <= 1 else None
