"""Drift watch: are the features, and the rank correlation of our own forecasts, still those of the days of training?

A feature is compared by its population stability index, PSI: the sum over ten bins of (share now - share then) x
log(share now / share then). Source: Siddiqi 2006, Credit Risk Scorecards. A quiet quarter moves a fifth of the features
of stocks beyond the field's mark of 0.25, so each has a mark of its own, from its own past.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pandas as pd

from vnq_colab.data.panel import OPEN, Panel
from vnq_colab.evaluation.order import rank_correlation
from vnq_colab.settings import HORIZON

REFERENCE_DAYS, RECENT_DAYS, STEP_DAYS = 250, 20, 60  # [days] before `trained_to`; of an evening; between two windows
MARK, LEEWAY = 0.25, 1.5  # the usual mark; chosen: of its largest PSI so far, see benchmarks/EXPERIMENTS.md
FEWEST_WINDOWS = 12  # of 20 days in the past, for a feature to have a mark of its own
LEAST_SHARE = 1e-3  # of a bin, so that an empty one has a logarithm
EVENINGS = (20, 60)  # whose mean rank correlation is watched
_Feature = TypedDict("_Feature", dict(edges=list[float], shares=list[float], mark=float))  # noqa: UP013
Monitor = TypedDict("Monitor", dict(features=dict[str, _Feature], order=dict[str, list[float]]))  # noqa: UP013


@dataclass(frozen=True, repr=False)
class Drift:
    """What the watch of an evening found; `warnings` are what a person must be told."""

    features: dict[str, float]  # PSI of those above the usual mark
    order: dict[str, list[float]]  # evenings: mean rank correlation, and the ends of what was expected
    n_evenings: int  # own forecasts whose outcome is known
    warnings: list[str]

    def __repr__(self) -> str:
        parts = [f"rank correlation of {n} evenings {mean:.3f} (expected {low:.3f} to {high:.3f})"
                 for n, (mean, low, high) in self.order.items()]
        parts = parts or [f"{self.n_evenings} of our own forecasts have an outcome, their order is watched from "
                          f"{EVENINGS[0]} on"]
        return "\n".join([*self.warnings, f"Drift watch: {'; '.join(parts)}; {len(self.features)} features moved (PSI "
                                          f"above {MARK})"])


def reference(panel: Panel, rows: pd.DataFrame) -> Monitor:
    """What to compare with, of a panel that ends with training, and the judged family's scores of test days, `rows`.

    What is equal for all stocks of a day drifts by nature, and is not watched; in a short panel nothing is.
    """
    n_days, facts = len(panel.days), {}
    starts = range(n_days - REFERENCE_DAYS, 0, -STEP_DAYS)
    windows = [(start, first) for start in starts for first in range(
        start + REFERENCE_DAYS, min(start + REFERENCE_DAYS + STEP_DAYS, n_days - RECENT_DAYS + 1), RECENT_DAYS)]
    for place, name in enumerate(panel.feature_names if len(windows) >= FEWEST_WINDOWS else ()):
        values = pd.DataFrame(panel.values[:, :, place]).where(panel.present)  # [symbols, days]
        if (values.max() - values.min()).iloc[-REFERENCE_DAYS:].max() < 1e-6:
            continue
        values = values.to_numpy()
        bins = {start: _bins(values[:, start:start + REFERENCE_DAYS]) for start in starts}
        largest = max(_psi(*bins[start], values[:, first:first + RECENT_DAYS]) for start, first in windows)
        edges, shares = (part.tolist() for part in bins[starts[0]])
        facts[name] = {"edges": edges, "shares": shares, "mark": max(MARK, LEEWAY * largest)}
    daily = daily_correlation(rows, panel)
    ends = {str(n): daily.rolling(n).mean().quantile([0.05, 0.95]).tolist() for n in EVENINGS if len(daily) > n}
    return {"features": facts, "order": ends}


def watch(monitor: Monitor, panel: Panel, rows: pd.DataFrame) -> Drift:
    """The Drift of a panel's last 20 days, and of our own forecasts `rows` (symbol, date, score), as of its end."""
    recent = np.where(panel.present[:, -RECENT_DAYS:, None], panel.values[:, -RECENT_DAYS:], np.nan)
    found = {name: _psi(np.array(fact["edges"]), np.array(fact["shares"]),
                        recent[:, :, panel.feature_names.index(name)]) for name, fact in monitor["features"].items()}
    beyond = [f"{name} (PSI {psi:.2g}, mark {monitor['features'][name]['mark']:.2g})"
              for name, psi in found.items() if psi > monitor["features"][name]["mark"]]
    warnings = [f"drift: in the last {RECENT_DAYS} evenings {len(beyond)} of {len(found)} features are distributed as "
                f"never before: {', '.join(beyond[:5])}. Look at the prices first; if they are right, the market has "
                "changed: train again."] * bool(beyond)
    daily, order = daily_correlation(rows, panel), {}
    for n, (low, high) in monitor["order"].items():
        if len(daily) >= int(n):
            order[n] = [mean := float(daily.iloc[-int(n):].mean()), low, high]
            warnings += [f"drift: the rank correlation of the last {n} evenings' forecasts with what came is {mean:.3f}"
                         f"; in the walk it was below {low:.3f} one time in twenty. Trade less until it is back, and "
                         "train again."] * (mean < low)
    moved = {name: round(psi, 4) for name, psi in found.items() if psi > MARK}
    return Drift(moved, order, len(daily), warnings)


def daily_correlation(rows: pd.DataFrame, panel: Panel) -> pd.Series:
    """By date: Spearman of `score` and the return from the next open to the one a horizon later, where it is known."""
    score = rows.astype({"symbol": object}).drop_duplicates(["symbol", "date"], keep="last").pivot(
        index="symbol", columns="date", values="score").reindex(index=list(panel.symbols), columns=panel.days)
    return pd.Series(rank_correlation(score.to_numpy("float64"), panel.ahead(HORIZON, OPEN)), panel.days).dropna()


def _bins(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges of tenths of the known values, and the share in each bin; equal edges are one."""
    known = np.sort(values[~np.isnan(values)])
    edges = np.unique(known[np.arange(1, 10) * len(known) // 10]).astype("float64") if len(known) else np.zeros(1)
    return edges, _shares(edges, known)


def _shares(edges: np.ndarray, known: np.ndarray) -> np.ndarray:
    return np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1) / max(len(known), 1)


def _psi(edges: np.ndarray, shares: np.ndarray, values: np.ndarray) -> float:
    """Population stability index of the known values against the shares of these bins."""
    now, then = (np.maximum(part, LEAST_SHARE) for part in (_shares(edges, values[~np.isnan(values)]), shares))
    return float(((now - then) * np.log(now / then)).sum())
