"""A trained forecaster on held-out days: the spread of its errors, and how often its direction is right."""

from typing import Any

import numpy as np

from vnq_colab.data.panel import FLAT, Panel
from vnq_colab.data.splits import DayRange
from vnq_colab.models.base import Forecaster

FEWEST_RESIDUALS = 20  # days from which a spread is measured; below, the one that it came with stays


def with_residuals(made: Any, panel: Panel, days: DayRange, device: str) -> tuple[Forecaster, dict[str, float]]:
    """The forecaster with the spread of its 5-day residuals on these days [log return], and its accuracy by symbol.

    Accuracy is the share of right 5-day directions over full windows, without flat outcomes.
    """
    origins = days.mask(panel.days)
    labels, known = panel.select(made.symbols).labels(made.config.horizon)
    actual, use = labels[:, origins].sum(axis=2), known[:, origins]  # [symbols, origins]
    expected = made.daily(panel, origins, device).sum(axis=2)
    count = use.sum(axis=1)
    spread = np.sqrt((np.where(use, actual - expected, 0) ** 2).sum(axis=1) / np.maximum(count, 1))
    residual = np.where(count >= FEWEST_RESIDUALS, np.maximum(spread, 1e-6), made.residual)
    moved = use & (np.abs(actual) >= FLAT)
    right = (moved & ((actual > 0) == (expected > 0))).sum(axis=1) / np.maximum(moved.sum(axis=1), 1)
    return made.with_residual(residual), dict(zip(made.symbols, right.tolist(), strict=True))
