"""Calibration: what validation days teach about a family's probabilities and intervals, as plain numbers.

p_up becomes sigmoid(intercept + slope × logit(p_up)), and low and high are mean ∓ quantile × scale.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from vnq_colab.data.forecast import HORIZON, check_forecast
from vnq_colab.data.panel import FLAT
from vnq_colab.errors import ConfigError, DataError, name_a_few
from vnq_colab.evaluation.significance import effective_n

FEWEST_WINDOWS = 30  # chosen: with fewer, a slope or a tail of 10 % is not told from luck
OWN_WINDOWS = 100  # chosen: where stated scales are wrong by 10 % from symbol to symbol, a symbol's own quantile misses
#                    the coverage by 2.2 % and that of all by 2.6 %; with 50 windows by 3.0 % and 2.4 %
LEAST_SLOPE = 0.05  # a slope of 0 would make every p_up 0.5 and its direction meaningless
MOST_LOGIT = 13.8  # p_up nearer to 0 or 1 than a millionth counts as this


@dataclass(frozen=True, repr=False)
class Calibration:
    """What `apply` does to the p_up and the intervals of one family. Exact to and from JSON."""

    family: str
    coverage: float  # [fraction] that intervals promise
    slope: float  # of the logit of p_up, for symbols without one of their own; 1 = as it is, below 1 = was too sure
    intercept: float  # [logit] 0 = p_up keeps its side of 0.5
    quantile: float | None  # half width of an interval [scale]; None: not known
    n_windows: float  # independent 5-day windows that `slope` rests on
    first: str  # validation day, "2024-03-01"
    last: str
    own: dict[str, dict[str, float | None]]  # symbol: {slope, intercept, quantile}, where there are enough
    notes: tuple[str, ...]  # sentences: what was left as it is, and why

    @classmethod
    def fit(cls, valid_forecast: pd.DataFrame, outcomes: pd.DataFrame, *, coverage: float = 0.9,
            intercept: bool = False) -> Self:
        """The calibration of one family from its forecast of validation days and `panel.outcomes()`.

        Give it validation days only: test days that it has seen prove nothing any more. All symbols are pooled; a
        symbol with at least 100 independent windows gets numbers of its own.

        p_up: logistic regression of the direction on the logit of p_up, not on mean / scale, because slope 1 then
        leaves a good p_up as it is, and families whose p_up does not come from a normal distribution are served too.
        Flat days are left out; targets are drawn towards one half as by Platt, with independent windows as counts. The
        default is temperature scaling, without an intercept: it keeps every p_up on its side of 0.5. `intercept` True
        is Platt's full form, which carries the share of rises of the validation days into the future; with so few
        windows that share is mostly the market's luck. The slope is at least 0.05, so that order and direction stay;
        when less was found, `notes` says so.

        Intervals: split-conformal. The quantile of |actual - mean| / scale at the level coverage × (n + 1) / n, flat
        days included, n counted in independent windows. They hold `coverage` on average over days, as far as days to
        come are like those of validation.

        With one direction only, a p_up that never changes, or fewer than 30 independent windows, p_up stays as it is
        and `notes` says so; without enough windows for a quantile, `low` and `high` are NaN.
        Source: Platt 1999, Advances in Large Margin Classifiers; Guo et al. 2017, ICML; Vovk, Gammerman & Shafer 2005,
        Algorithmic Learning in a Random World; Lei et al. 2018, JASA 113(523).
        """
        if not 0 < coverage < 1:
            raise ConfigError(f"coverage = {coverage}: must lie between 0 and 1.")
        forecast = check_forecast(valid_forecast)
        families = list(forecast["family"].unique())
        if len(families) != 1:
            raise DataError(f"forecast: {len(families)} families ({name_a_few(families)}). Calibrate one at a time.")
        rows = forecast.merge(outcomes[["symbol", "date", "actual"]], on=["symbol", "date"])
        if rows.empty:
            raise DataError(f"forecast: no day from {forecast['date'].min():%Y-%m-%d} to "
                            f"{forecast['date'].max():%Y-%m-%d} has an outcome. Forecast earlier days.")
        line, n_windows, note = _fit_line(rows, intercept)
        quantile = _quantile(rows, coverage)
        notes = [note] if note else []
        if quantile is None:
            notes.append(f"Intervals of {coverage:.0%} are not known: {rows['date'].nunique()} validation days are too "
                         "few.")
        if line[1]:
            notes.append(f"A raw p_up of {expit(-line[1] / line[0]):.3f} becomes 0.5: between the two, p_up now names "
                         "the other direction than before.")
        own = {}
        for symbol, part in rows.groupby("symbol", sort=True):
            if len(part) >= OWN_WINDOWS * HORIZON and rows["symbol"].nunique() > 1:
                alone, _, kept = _fit_line(part, intercept)
                alone = line if kept else alone  # what one symbol alone does not show, all together may
                own[str(symbol)] = {"slope": alone[0], "intercept": alone[1], "quantile": _quantile(part, coverage)}
        return cls(families[0], float(coverage), *line, quantile, float(n_windows), f"{rows['date'].min():%Y-%m-%d}",
                   f"{rows['date'].max():%Y-%m-%d}", own, tuple(notes))

    def apply(self, forecast: pd.DataFrame) -> pd.DataFrame:
        """The forecast with calibrated `p_up` and two more columns, `low` and `high` [5-day log return].

        Raises DataError for rows of another family. A forecast that was calibrated already is calibrated once more.
        """
        others = sorted(set(forecast["family"]) - {self.family})
        if others:
            raise DataError(f"forecast: rows of {name_a_few(others)}, but this is the calibration of {self.family}. "
                            "Choose its rows first.")
        everyone = {"slope": self.slope, "intercept": self.intercept,
                    "quantile": math.nan if self.quantile is None else self.quantile}
        numbers = {name: forecast["symbol"].map({symbol: found[name] for symbol, found in self.own.items()})
                   .astype("float64").fillna(everyone[name]).to_numpy() for name in everyone}
        half = numbers["quantile"] * forecast["scale"].to_numpy()
        return forecast.assign(p_up=_line(forecast["p_up"].to_numpy("float64"), numbers["slope"], numbers["intercept"]),
                               low=forecast["mean"] - half, high=forecast["mean"] + half)

    def neutral(self, symbol: str | None = None) -> float:
        """The raw p_up that becomes 0.5: rows between it and 0.5 change their side. 0.5 without an intercept."""
        found = self.own.get(symbol or "", {"slope": self.slope, "intercept": self.intercept})
        return float(expit(-found["intercept"] / found["slope"]))

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
        lines = [f"Calibration of {self.family} on {days}, {self.n_windows:.0f} independent windows: "
                 f"logit of p_up × {self.slope:.2f} {self.intercept:+.2f}, intervals of {self.coverage:.0%} {half}"]
        lines += [f"  own numbers for {name_a_few(self.own)}"] if self.own else []
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def _logit(p_up: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.clip(logit(p_up), -MOST_LOGIT, MOST_LOGIT)


def _line(p_up: np.ndarray, slope: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """`[rows] × 3 -> [rows]`: calibrated p_up; the very same number where nothing is to be done."""
    return np.where((slope == 1) & (intercept == 0), p_up, expit(intercept + slope * _logit(p_up)))


def _fit_line(rows: pd.DataFrame, intercept: bool) -> tuple[tuple[float, float], float, str]:
    """(slope, intercept), how many independent windows it rests on, and what stayed as it is ("" for nothing)."""
    from sklearn.linear_model import LogisticRegression

    as_it_is = 1.0, 0.0
    rows = rows[rows["actual"].abs() >= FLAT]
    up, score = (rows["actual"] > 0).to_numpy(), _logit(rows["p_up"].to_numpy("float64"))
    n_windows = effective_n(up, rows["date"]) if len(rows) else 0.0
    if up.all() or not up.any():
        only = f"only {'rose' if up.any() else 'fell'}" if len(up) else "never moved"
        return as_it_is, n_windows, f"p_up stays as it is: on the validation days prices {only}."
    if n_windows < FEWEST_WINDOWS:
        return as_it_is, n_windows, (f"p_up stays as it is: the validation days hold {n_windows:.0f} independent "
                                     f"windows, {FEWEST_WINDOWS} are needed.")
    if np.ptp(score) < 1e-9:
        return as_it_is, n_windows, f"p_up stays as it is: it is always {rows['p_up'].iloc[0]:.3f}."
    share = up.mean()
    target = np.where(up, (n_windows * share + 1) / (n_windows * share + 2), 1 / (n_windows * (1 - share) + 2))
    twice = np.concatenate([score, score])[:, None]  # each row as a rise and as a fall, weighted by its target
    found = LogisticRegression(C=np.inf, fit_intercept=intercept, solver="newton-cholesky", tol=1e-9).fit(
        twice, np.repeat([1, 0], len(score)), sample_weight=np.concatenate([target, 1 - target]))
    slope, start = float(found.coef_[0, 0]), float(found.intercept_[0]) if intercept else 0.0
    if slope >= LEAST_SLOPE:
        return (slope, start), n_windows, ""
    return (LEAST_SLOPE, 0.0), n_windows, (f"p_up said nothing about the direction of the validation days (slope "
                                           f"{slope:.2f}): it is drawn towards 0.5 as far as its order allows.")


def _quantile(rows: pd.DataFrame, coverage: float) -> float | None:
    """Half width [scale] of intervals with this coverage; None where the windows do not reach so far into the tail."""
    miss = ((rows["actual"] - rows["mean"]).abs() / rows["scale"]).to_numpy()
    n_windows = effective_n(miss <= np.quantile(miss, coverage), rows["date"])
    level = coverage * (n_windows + 1) / n_windows
    return float(np.quantile(miss, level, method="higher")) if level <= 1 else None
