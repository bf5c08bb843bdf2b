"""The forecaster of trained networks, one ensemble for all symbols or one for each, and what networks see of a panel.

They see features standardised on training days, or within-day ranks, or both. A scaler of each symbol belongs to the
local networks of the source texts; the others use one for all stocks, because a stock's own z-score throws away what
tells it from the others. A window is named by its last day, and its last `labelled` positions carry labels: one for
`last_day`; for `all_days` all that have seen enough days before.

Axes: groups (one for all symbols, or each symbol), members, models (groups x members), batch, time, outputs.
"""

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from vnq_colab.data.forecast import make_scores
from vnq_colab.data.panel import Panel, Scaler, fit_scaler
from vnq_colab.errors import DeliveryError
from vnq_colab.models.base import FORMAT, Forecaster
from vnq_colab.models.stacked import LOSSES, MOST_ATTENTION_ROWS, Stockformer, n_outputs, variance
from vnq_colab.settings import NetworkConfig, Task, build

BLOCK_DAYS = 10  # forecasts of one window; it ends with a block of the calendar, and being causal it knows no later day
MODELS_AT_ONCE = {"cpu": 6, "cuda": 24}  # chosen: EXPERIMENTS.md, 2026-11-21: with 6 a CPU's caches hold it all
WINDOWS_AT_ONCE = 64
KINDS = ("features", "ranks", "both")  # of what a network sees
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
        mean, spread = (values.mean(axis=0, dtype="float64", keepdims=True),
                        values.std(axis=0, dtype="float64", keepdims=True))
        spread = np.where(spread > 1e-6, spread, 1.0)  # a constant feature stays constant
        return cls(Scaler(mean.astype("float32"), spread.astype("float32"), np.ones(1, "float32")), kind)

    @classmethod
    def fit_own(cls, panel: Panel, train: np.ndarray) -> "Inputs":
        """A scaler of each symbol's own history, labels in units of its own spread."""
        return cls(fit_scaler(panel, train), "features", per_symbol=True)

    def width(self, n_features: int) -> int:
        """How many numbers a network sees of a day."""
        return n_features * (2 if self.kind == "both" else 1)

    def of(self, panel: Panel, rows: np.ndarray) -> np.ndarray:
        """`[rows, days, inputs]` float32 of the symbols at these places of the whole panel; 0 where absent."""
        if self.kind == "ranks":
            return panel.ranks[rows] * UNIT_SPREAD
        scaled = self.scaler.scale(panel.values[rows], panel.present[rows])
        return scaled if self.kind == "features" else np.concatenate([scaled, panel.ranks[rows] * UNIT_SPREAD], axis=2)

    def select(self, rows: np.ndarray) -> "Inputs":
        """The same for some symbols, where each has its own scaler."""
        return replace(self, scaler=Scaler(*(part[rows] for part in self.scaler))) if self.per_symbol else self

    @classmethod
    def joined(cls, parts: "list[Inputs]") -> "Inputs":
        """Those of the symbols of several packs together."""
        first = parts[0]
        scaler = Scaler(*map(np.concatenate, zip(*(part.scaler for part in parts), strict=True)))
        return replace(first, scaler=scaler) if first.per_symbol else first

    def to_state(self) -> dict[str, Any]:
        parts = {name: torch.from_numpy(part.copy()) for name, part in self.scaler._asdict().items()}
        return {"kind": self.kind, "per_symbol": self.per_symbol} | parts

    @classmethod
    def from_state(cls, state: dict[str, Any], n_symbols: int, n_features: int) -> "Inputs":
        """Those of so many symbols. Raises ValueError unless all numbers are finite, spreads and units positive."""
        scaler = Scaler(*(state[name].numpy() for name in Scaler._fields))
        inputs = cls(scaler, state["kind"], state["per_symbol"])
        n_rows = n_symbols if inputs.per_symbol else 1
        if [part.shape for part in scaler] != [(n_rows, n_features)] * 2 + [(n_rows,)] or any(
                part.dtype != "float32" or not np.isfinite(part).all() for part in scaler):
            raise ValueError("its scaler is not of finite numbers, one for each feature")
        if not (scaler.spread > 0).all() or not (scaler.target > 0).all():
            raise ValueError("its scaler has a spread that is not positive")
        if inputs.kind not in KINDS or not isinstance(inputs.per_symbol, bool):
            raise ValueError("its inputs are of no known kind")
        return inputs


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


@dataclass(frozen=True, repr=False, eq=False)
class NetworkForecaster(Forecaster):
    """Trained ensembles with their inputs. `weights` are float16: what is judged is what is exported."""

    family: str
    config: NetworkConfig
    task: Task
    loss: str
    feature_names: tuple[str, ...]
    symbols: tuple[str, ...]
    weights: torch.Tensor  # [groups, members, parameters] float16
    inputs: Inputs
    device: str = "cpu"
    graphs: Any = None  # what runs in place of the network, where `weights` are the numbers of its ensembles

    @property
    def network(self) -> Any:
        """What every member is, or what gives the mean of them."""
        n_labels, n_inputs = self.task.horizon if self.task.target == "return" else 1, len(self.feature_names)
        return self.graphs or Stockformer(self.config, self.inputs.width(n_inputs), n_outputs(self.loss, n_labels))

    @property
    def look_back(self) -> int:
        return self.config.look_back

    @property
    def block_days(self) -> int:
        """Days of the calendar that are forecast by one window."""
        return min(BLOCK_DAYS, self.config.look_back - self.config.min_context + 1)

    @property
    def is_global(self) -> bool:
        """Whether one ensemble serves all symbols."""
        return self.family == "global"

    def select(self, symbols: tuple[str, ...]) -> "NetworkForecaster":
        if symbols == self.symbols:
            return self
        rows = [self.symbols.index(symbol) for symbol in symbols]
        return replace(self, symbols=tuple(symbols), inputs=self.inputs.select(rows),
                       weights=self.weights if self.is_global else self.weights[rows])

    def predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        self.check_features(panel)
        outputs = self._outputs(panel, origins)  # [symbols, origins, outputs]
        present, days = panel.present[panel.rows(self.symbols)][:, origins], panel.days[origins]
        if self.task.target != "return":
            return make_scores(self.family, self.symbols, days, present, score=outputs.mean(axis=2))
        unit, n_days = self.inputs.scaler.target[:, None], self.task.horizon
        mean = outputs[:, :, :n_days].sum(axis=2) * unit
        parts = {"score": mean, "mean": mean}
        if self.loss == "gaussian_nll":  # the variance of a sum of days that err independently
            parts["scale"] = np.sqrt(variance(torch.from_numpy(outputs[:, :, n_days:])).numpy().sum(axis=2)) * unit
        return make_scores(self.family, self.symbols, days, present, **parts)

    def _outputs(self, panel: Panel, origins: np.ndarray) -> np.ndarray:
        """`[symbols, origins, outputs]`: the mean of the members.

        A day's number is read from the window that ends with its block of the calendar, so that it is the same
        whichever other days are forecast.
        """
        rows = panel.rows(self.symbols)
        scaled = torch.from_numpy(self.inputs.of(panel, rows)).to(self.device)
        present = torch.from_numpy(panel.present[rows]).to(self.device)
        network, block = self.network, self.block_days
        places = np.flatnonzero(origins)
        blocks, of_origin = np.unique(places // block, return_inverse=True)
        ends = torch.from_numpy(blocks * block + block - 1).to(self.device)
        outputs = np.empty((len(rows), len(blocks), block, network.n_outputs))
        groups, n_members = self.weights.shape[:2]
        pairs = torch.cartesian_prod(*(torch.arange(n, device=self.device) for n in outputs.shape[:2]))
        pairs = pairs.view(groups, -1, 2)  # [groups, windows, (symbol, block)]: all of one ensemble, or its symbol's
        at_once = max(1, MODELS_AT_ONCE[torch.device(self.device).type] // n_members)
        size = max(1, min(WINDOWS_AT_ONCE, MOST_ATTENTION_ROWS // (at_once * n_members * self.config.n_heads)))
        with torch.inference_mode():
            for top in range(0, groups, at_once):
                weights = self.weights[top:top + at_once].to(self.device, torch.float32).flatten(0, 1)
                for batch in pairs[top:top + at_once].split(size, dim=1):  # [groups, batch, 2]
                    symbol, last = batch.repeat_interleave(n_members, dim=0).unbind(2)  # each [models, batch]
                    x, there = windows_at(scaled, present, symbol, ends[last], self.config.look_back)
                    out = network.forward(weights, x, there, n_last=block)  # [models, batch, block, outputs]
                    symbol, last = batch.cpu().numpy().transpose(2, 0, 1)
                    outputs[symbol, last] = out.unflatten(0, (-1, n_members)).mean(1).double().cpu().numpy()
        return outputs[:, of_origin, places % block]

    def _settings(self) -> tuple:
        """What the networks of symbols that were trained together have in common."""
        return (self.config, self.task, self.loss, self.feature_names, self.weights.shape[1:], self.inputs.kind,
                self.inputs.per_symbol)

    def digest(self) -> str:
        return hashlib.sha256(self.weights.contiguous().numpy().tobytes()).hexdigest()

    def to_state(self) -> dict[str, Any]:
        return {"format": FORMAT, "family": self.family, "config": asdict(self.config), "task": asdict(self.task),
                "loss": self.loss, "feature_names": list(self.feature_names), "symbols": list(self.symbols),
                "weights": self.weights, "inputs": self.inputs.to_state()}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> "NetworkForecaster":
        """The forecaster that `to_state` wrote down. Raises ValueError unless its weights are those of its sizes."""
        names, symbols, weights = tuple(state["feature_names"]), tuple(state["symbols"]), state["weights"]
        inputs = Inputs.from_state(state["inputs"], len(symbols), len(names))
        one = cls(state["family"], build(NetworkConfig, state["config"]), build(Task, state["task"]), state["loss"],
                  names, symbols, weights, inputs, device)
        groups, n_members, size = weights.shape
        if groups != (1 if one.is_global else len(symbols)) or not n_members or one.config.n_layers > size:
            raise ValueError("its weights are not of its symbols")
        is_half = weights.dtype == torch.float16 and one.network.n_parameters == size
        if not is_half or (weights.numpy().view("u2") & 0x7FFF).max() >= 0x7C00 or one.loss not in LOSSES:  # inf, nan
            raise ValueError("its weights are not finite, or not as many as its sizes ask for")
        return one

    def files(self) -> dict[str, tuple[str, ...]]:
        if self.is_global:
            return super().files()
        return {f"{symbol}_{self.family}_simple_best.pt": (symbol,) for symbol in self.symbols}

    @classmethod
    def joined(cls, parts: "list[NetworkForecaster]") -> "NetworkForecaster":
        """The ensembles of several packs, or files, together. Raises DeliveryError where their inputs differ."""
        first = parts[0]
        if first.is_global:
            return super().joined(parts)
        for other in parts[1:]:
            same_scaler = first.inputs.per_symbol or all(map(np.array_equal, first.inputs.scaler, other.inputs.scaler))
            if not same_scaler or first._settings() != other._settings():
                raise DeliveryError(f"the networks of {first.symbols[0]} and {other.symbols[0]} were not trained "
                                    "together. Export again.")
        return replace(first, symbols=tuple(symbol for part in parts for symbol in part.symbols),
                       weights=torch.cat([part.weights for part in parts]),
                       inputs=Inputs.joined([part.inputs for part in parts]))
