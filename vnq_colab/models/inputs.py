"""What networks see of a panel: features standardised on training days, within-day ranks, and windows of them.

A scaler of single symbols belongs to the local networks of the source texts; the others use one for all stocks,
because a stock's own z-score throws away what tells it from the others. A window is named by its last day; its last
`labelled` positions carry labels: one for `last_day`; for `all_days` all that have seen enough days before.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vnq_colab.data.panel import Panel, Scaler, fit_scaler

UNIT_SPREAD = 3**0.5  # of ranks between -1 and 1


@dataclass(frozen=True)
class Inputs:
    """How the features of a panel become the numbers that a network sees; fitted on training days."""

    scaler: Scaler  # of each symbol, or one row for all of them
    kind: str  # "features", "ranks" or "both"
    per_symbol: bool = False

    @classmethod
    def fit(cls, panel: Panel, train: np.ndarray, kind: str) -> "Inputs":
        """One scaler for all stocks, from the days marked in `train [days]`."""
        values = panel.values[panel.present & train]  # [stock-days, features]
        mean, spread = values.mean(axis=0, dtype="float64"), values.std(axis=0, dtype="float64")
        spread = np.where(spread > 1e-6, spread, 1.0)  # a constant feature stays constant
        return cls(Scaler(*(part.astype("float32") for part in (mean[None], spread[None], np.ones(1)))), kind)

    @classmethod
    def fit_own(cls, panel: Panel, train: np.ndarray) -> "Inputs":
        """A scaler of each symbol's own history, labels in units of its own spread."""
        days = panel.days[train]
        return cls(fit_scaler(panel, days[0], days[-1]), "features", per_symbol=True)

    def width(self, n_features: int) -> int:
        """How many numbers a network sees of a day."""
        return n_features * (2 if self.kind == "both" else 1)

    def of(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        """`[rows, days, inputs]` float32 of the symbols at these places of the whole panel; 0 where absent."""
        parts = []
        if self.kind != "ranks":
            parts.append(self.scaler.scale(panel.values[rows], panel.present[rows]))
        if self.kind != "features":
            parts.append(panel.ranks[rows] * UNIT_SPREAD)
        return np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]

    def select(self, rows: "list[int]") -> "Inputs":
        """The same for some symbols, where each has its own scaler."""
        return Inputs(self.scaler.select(rows), self.kind, True) if self.per_symbol else self

    @classmethod
    def joined(cls, parts: "list[Inputs]") -> "Inputs":
        """Those of the symbols of several packs together."""
        if not parts[0].per_symbol:
            return parts[0]
        scalers = [part.scaler for part in parts]
        return cls(Scaler(*(np.concatenate([getattr(one, name) for one in scalers])
                            for name in ("mean", "spread", "target"))), parts[0].kind, True)

    def to_state(self) -> dict[str, Any]:
        parts = {name: torch.from_numpy(getattr(self.scaler, name).copy()) for name in ("mean", "spread", "target")}
        return {"kind": self.kind, "per_symbol": self.per_symbol} | parts

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Inputs":
        return cls(Scaler(*(state[name].numpy() for name in ("mean", "spread", "target"))), state["kind"],
                   state["per_symbol"])


def windows_at(scaled: torch.Tensor, present: torch.Tensor, symbol: torch.Tensor, last: torch.Tensor,
               look_back: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows of `symbol [models, batch]` that end on day `last [models, batch]`, and who is present.

    `[models, batch, time, features]` and `[models, batch, time]`, from `scaled [symbols, days, features]` and
    `present [symbols, days]`; a day outside the calendar counts as absent.
    """
    day = last.unsqueeze(-1) + torch.arange(1 - look_back, 1, device=last.device)  # [models, batch, time]
    inside = (day >= 0) & (day < scaled.shape[1])
    day = day.clamp(0, scaled.shape[1] - 1)
    symbol = symbol.unsqueeze(-1)
    there = present[symbol, day] & inside
    return scaled[symbol, day] * there.unsqueeze(-1), there
