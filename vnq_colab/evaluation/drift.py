"""Drift watch: are the features, and the rank correlation of our own forecasts, still those of the days of training?

A feature is compared by its population stability index, PSI: the sum over ten bins of (share now - share then) x
log(share now / share then). Source: Siddiqi 2006, Credit Risk Scorecards. A quiet quarter moves a third of the features
of stocks beyond the field's mark of 0.25, so each has a mark of its own, from its own past.
"""

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from vnq_colab.data.panel import OPEN, Panel
from vnq_colab.evaluation.order import day_means, products_and_spread, ranks_of_both
from vnq_colab.settings import HORIZON

REFERENCE_DAYS, RECENT_DAYS, STEP_DAYS = 250, 20, 60  # [days] before `trained_to`; of an evening; between two windows
MARK, LEEWAY = 0.25, 1.5  # the usual mark; chosen: of its largest PSI so far, see benchmarks/EXPERIMENTS.md
FEWEST_WINDOWS = 12  # of 20 days in the past, for a feature to have a mark of its own
LEAST_SHARE = 1e-3  # of a bin, so that an empty one has a logarithm
EVENINGS = (20, 60)  # whose mean rank correlation is watched
ENDS = (0.05, 0.95)  # quantiles of that mean over the walk's test days


class FeatureFacts(TypedDict):
    """What a feature was like: bins that held a tenth each, and the PSI beyond which one must look."""

    edges: list[float]
    shares: list[float]
    mark: float


class Monitor(TypedDict):
    """What a bundle's manifest holds for the watch."""

    features: dict[str, FeatureFacts]  # of stocks; what is equal for all stocks of a day drifts by nature
    order: dict[str, list[float]]  # evenings: both ends of their mean rank correlation


@dataclass(frozen=True, repr=False)
class Drift:
    """What the watch of an evening found; `warnings` are what a person must be told."""

    features: dict[str, float]  # PSI of those above the usual mark
    beyond: list[str]  # those above their own mark
    order: dict[str, dict[str, float]]  # evenings: mean, low, high
    n_evenings: int  # own forecasts whose outcome is known
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return vars(self)

    def __repr__(self) -> str:
        order = [f"rank correlation of {n} evenings {row['mean']:.3f} (expected {row['low']:.3f} to {row['high']:.3f})"
                 for n, row in self.order.items()]
        return "Drift watch: " + "; ".join([*(order or [
            f"the outcome of {self.n_evenings} of our own forecasts is known, the rank correlation is watched from "
            f"{EVENINGS[0]} on"]), f"{len(self.features)} features moved (PSI above {MARK}), "
            f"{len(self.beyond) or 'none'} of them as never before"])


def reference(panel: Panel, rows: pd.DataFrame) -> Monitor:
    """The Monitor of a panel that ends with the last day of training, and the judged family's scores of test days.

    `rows` have symbol, date and score. A panel too short for windows in the past watches no feature.
    """
    n_days, facts = len(panel.days), {}
    starts = range(n_days - REFERENCE_DAYS, 0, -STEP_DAYS)
    windows = [(start, start + REFERENCE_DAYS + gap) for start in starts for gap in range(0, STEP_DAYS, RECENT_DAYS)
               if start + REFERENCE_DAYS + gap + RECENT_DAYS <= n_days]
    for place in np.flatnonzero(~_of_market(panel)) if len(windows) >= FEWEST_WINDOWS else ():
        values, largest = panel.values[:, :, place], 0.0
        bins = {start: _bins(values[:, start:start + REFERENCE_DAYS], panel.present[:, start:start + REFERENCE_DAYS])
                for start in starts}
        for start, first in windows:
            now = slice(first, first + RECENT_DAYS)
            largest = max(largest, _psi(*bins[start], values[:, now][panel.present[:, now]]))
        edges, shares = bins[starts[0]]
        facts[panel.feature_names[place]] = {"edges": edges.tolist(), "shares": shares.tolist(),
                                             "mark": max(MARK, LEEWAY * largest)}
    daily = daily_correlation(rows, panel)
    return {"features": facts, "order": {
        str(n): daily.rolling(n).mean().quantile(list(ENDS)).tolist() for n in EVENINGS if len(daily) > n}}


def watch(monitor: Monitor, panel: Panel, rows: pd.DataFrame) -> Drift:
    """The Drift of a panel's last 20 days, and of our own forecasts `rows`, as of its last day."""
    values, present, warnings = panel.values[:, -RECENT_DAYS:], panel.present[:, -RECENT_DAYS:], []
    found = {name: _psi(np.array(fact["edges"]), np.array(fact["shares"]),
                        values[:, :, panel.feature_names.index(name)][present])
             for name, fact in monitor["features"].items() if present.any()}
    marks = {name: monitor["features"][name]["mark"] for name, value in found.items()
             if value > monitor["features"][name]["mark"]}
    if marks:
        named = ", ".join(f"{name} (PSI {found[name]:.2g}, so far at most {mark / LEEWAY:.2g})"
                          for name, mark in sorted(marks.items(), key=lambda item: item[1] - found[item[0]])[:5])
        warnings.append(f"drift: in the last {RECENT_DAYS} evenings {len(marks)} of {len(found)} features are "
                        f"distributed as never before: {named}. Look at the prices first; if they are right, the "
                        "market has changed, and the models have not seen it: train again.")
    daily, order = daily_correlation(rows, panel), {}
    for n, (low, high) in monitor["order"].items():
        if len(daily) >= int(n):
            mean = float(daily.iloc[-int(n):].mean())
            order[n] = {"mean": mean, "low": low, "high": high}
            warnings += [f"drift: the rank correlation of the last {n} evenings' forecasts with what came is "
                         f"{mean:.3f}; in the walk it was below {low:.3f} in one of twenty such times. Trade less, or "
                         "not at all, until it is back, and train again."] * (mean < low)
    moved = {name: round(value, 4) for name, value in found.items() if value > MARK}
    return Drift(moved, list(marks), order, len(daily), warnings)


def daily_correlation(rows: pd.DataFrame, panel: Panel) -> pd.Series:
    """By date, in order: Spearman of `score` and the return from the next open to the one a horizon later.

    `rows` have symbol, date and score. Days whose outcome is not known yet are left out.
    """
    score, day = np.full(panel.present.shape, np.nan), panel.days.get_indexer(rows["date"])
    symbol = pd.Index(panel.symbols).get_indexer(rows["symbol"])
    is_known = (day >= 0) & (symbol >= 0)
    score[symbol[is_known], day[is_known]] = rows["score"].to_numpy("float64")[is_known]
    product, spread = products_and_spread(*ranks_of_both(score, panel.ahead(HORIZON, OPEN)))
    return pd.Series(day_means(product) / spread, panel.days).dropna()


def _of_market(panel: Panel) -> np.ndarray:
    """`[features]` bool: equal for all stocks of a day, over the last year."""
    values, present = panel.values[:, -REFERENCE_DAYS:], panel.present[:, -REFERENCE_DAYS:, None]
    spread = np.where(present, values, -np.inf).max(axis=0) - np.where(present, values, np.inf).min(axis=0)
    return (spread < 1e-6).all(axis=0)


def _bins(values: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges of tenths of the present values, and the share in each bin; equal edges are one."""
    known = np.sort(values[present])
    edges = np.unique(known[np.arange(1, 10) * len(known) // 10]).astype("float64") if len(known) else np.zeros(1)
    return edges, _shares(edges, known)


def _shares(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) / max(len(values), 1)


def _psi(edges: np.ndarray, shares: np.ndarray, values: np.ndarray) -> float:
    """Population stability index of values against the shares of these bins."""
    now, then = (np.maximum(part, LEAST_SHARE) for part in (_shares(edges, values), shares))
    return float(((now - then) * np.log(now / then)).sum())
