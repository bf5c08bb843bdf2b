"""The registry: what a feature is. Its place here is its place in the Panel."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vnq_colab.data.history import History


@dataclass(frozen=True)
class Feature:
    """A column of the Panel: what it is, how it is computed, and where its values are clipped."""

    name: str
    formula: str
    unit: str
    warm_up_days: int  # of the symbol's own days before the first value; until then the value is 0
    source: str
    low: float  # values are clipped to [low, high]; chosen: benchmarks/feature_bounds.py, see EXPERIMENTS.md
    high: float
    compute: Callable[[History], np.ndarray]  # -> [symbols, rows] float64, unclipped, NaN where unknown

    def clipped(self, history: History) -> np.ndarray:
        """`[table rows]` float64: its values inside the bounds, 0 where they are unknown."""
        values = np.clip(history.to_rows(self.compute(history)), self.low, self.high)
        values[np.isnan(values)] = 0
        return values


FEATURES: dict[str, Feature] = {}


def feature(formula: str, unit: str, *, warm_up_days: int = 0, bounds: float | tuple[float, float] = 1.0,
            source: str = "this project") -> Callable:
    """Registers the decorated function under its own name; one number as `bounds` means -bounds to bounds."""
    low, high = bounds if isinstance(bounds, tuple) else (-bounds, bounds)

    def register(compute: Callable[[History], np.ndarray]) -> Callable[[History], np.ndarray]:
        FEATURES[compute.__name__] = Feature(compute.__name__, formula, unit, warm_up_days, source, low, high, compute)
        return compute

    return register
