"""Stockformer: a pre-norm transformer encoder, causal over the look-back, written for a stack of models.

It is neither of the published papers of that name (a wavelet-graph model, arXiv 2401.06139; an RL system, IJCAI 2023).

Axes: models, batch, time, features, width, heads, horizon. "rows" is models x batch where attention needs it flat.
The norms have no weights of their own: the affine map behind each of them can do all that such weights could.
"""

import hashlib
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from vnq_colab.config import RunConfig, StockformerConfig
from vnq_colab.data.forecast import make_forecast
from vnq_colab.data.panel import Panel, Scaler
from vnq_colab.data.splits import DayRange
from vnq_colab.errors import DeliveryError
from vnq_colab.files import write_atomic
from vnq_colab.models.base import Forecaster
from vnq_colab.models.losses import LOSSES, scale_of
from vnq_colab.models.stacked import (
    MOST_ATTENTION_ROWS,
    Parts,
    add_dropped,
    affine,
    attention,
    attention_mask,
    count_parameters,
    stable_seed,
    unstack,
)
from vnq_colab.models.torch_learner import TorchLearner
from vnq_colab.models.windows import windows_at

FILE_ENDING = "_stockformer_simple_best.pt"
FORMAT = 1  # of an exported file

# that answer together; chosen: EXPERIMENTS.md, 2026-11-21: with 6 what a CPU computes stays in its caches
NETWORKS_ON_CPU, NETWORKS_ON_CUDA = 6, 24


class Stockformer:
    """The network as pure functions of its weights; one object serves every model of a stack."""

    def __init__(self, config: StockformerConfig, n_features: int, n_outputs: int = 1):
        self.config, self.n_features, self.n_outputs = config, n_features, n_outputs
        width, wide = config.width, config.feed_forward
        self.shapes = {
            "input.weight": (n_features, width), "input.bias": (width,), "position": (config.look_back, width),
        }
        for layer in range(config.n_layers):
            self.shapes |= {
                f"{layer}.qkv.weight": (width, 3 * width), f"{layer}.qkv.bias": (3 * width,),
                f"{layer}.mix.weight": (width, width), f"{layer}.mix.bias": (width,),
                f"{layer}.up.weight": (width, wide), f"{layer}.up.bias": (wide,),
                f"{layer}.down.weight": (wide, width), f"{layer}.down.bias": (width,),
            }
        answers = n_outputs * config.horizon
        self.shapes |= {"readout.weight": (width, answers), "readout.bias": (answers,)}
        self.n_parameters = count_parameters(self.shapes)

    def initial_weights(self, seed: int, symbol: str, member: int) -> torch.Tensor:
        """`[parameters]`, decided by (seed, symbol, member) alone. Source: Glorot & Bengio 2010 for the matrices."""
        random = torch.Generator().manual_seed(stable_seed("weights", seed, symbol, member))
        pieces = []
        for name, shape in self.shapes.items():
            if name.endswith("bias"):
                piece = torch.zeros(shape)
            elif name == "position":
                piece = 0.02 * torch.randn(shape, generator=random)
            else:
                reach = math.sqrt(6 / (shape[0] + shape[1]))
                reach *= 0.1 if name.startswith("readout") else 1.0  # begin near the forecast of no skill, which is 0
                piece = (2 * torch.rand(shape, generator=random) - 1) * reach
            pieces.append(piece.flatten())
        return torch.cat(pieces)

    def forward(self, weights: torch.Tensor | Parts, x: torch.Tensor, present: torch.Tensor, *,
                noise: torch.Generator | None = None, n_last: int | None = None) -> torch.Tensor:
        """`[models, batch, time, features] -> [models, batch, n_last, n_outputs * horizon]` scaled daily returns.

        `weights [models, parameters]`, or its parts as `unstack` names them; `present [models, batch, time]` bool masks
        absent days as keys. The answers are those of the last `n_last` positions, None: of all. Dropout happens only
        when `noise` is given.
        """
        config, part = self.config, weights if isinstance(weights, dict) else unstack(weights, self.shapes)
        models, batch, time, _ = x.shape
        mask, any_key = attention_mask(present)
        h = affine(x.flatten(1, 2), part["input.weight"], part["input.bias"])  # [models, batch * time, width]
        h = (h.unflatten(1, (batch, time)) + part["position"][:, None, -time:]).flatten(1, 2)
        for layer in range(config.n_layers):
            asking = n_last or time if layer == config.n_layers - 1 else time
            normed = functional.layer_norm(h, (config.width,))
            qkv = affine(normed, part[f"{layer}.qkv.weight"], part[f"{layer}.qkv.bias"])
            mixed = attention(qkv.view(models * batch, time, -1), mask, any_key, config.n_heads, asking)
            if asking < time:  # the last layer answers only where it is asked
                h = h.view(models, batch, time, -1)[:, :, -asking:].flatten(1, 2)
            mixed = affine(mixed.reshape(models, batch * asking, -1),
                           part[f"{layer}.mix.weight"], part[f"{layer}.mix.bias"])
            h = add_dropped(h, mixed, config.dropout, noise)
            wide = affine(functional.layer_norm(h, (config.width,)),
                          part[f"{layer}.up.weight"], part[f"{layer}.up.bias"]).relu_()
            narrow = affine(wide, part[f"{layer}.down.weight"], part[f"{layer}.down.bias"])
            h = add_dropped(h, narrow, config.dropout, noise)
        out = affine(functional.layer_norm(h, (config.width,)), part["readout.weight"], part["readout.bias"])
        return out.unflatten(1, (batch, -1))


@dataclass(frozen=True, repr=False, eq=False)
class StockformerForecaster(Forecaster):
    """The trained ensembles of some symbols, each with its scaler and the spread of its validation residuals."""

    config: StockformerConfig
    feature_names: tuple[str, ...]
    symbols: tuple[str, ...]
    weights: torch.Tensor  # [symbols, members, parameters] float32 or float16
    scaler: Scaler
    residual: np.ndarray  # [symbols] standard deviation of the 5-day validation residual [log return]
    n_outputs: int = 1  # numbers for each day: see `losses.scale_of`
    facts: dict[str, Any] = field(default_factory=dict)  # data_id, code_version and the like, stored in each file

    def select(self, symbols: tuple[str, ...]) -> "StockformerForecaster":
        rows = [self.symbols.index(symbol) for symbol in symbols]
        return replace(self, symbols=tuple(symbols), weights=self.weights[rows], scaler=self.scaler.select(rows),
                       residual=self.residual[rows])

    def as_exported(self) -> "StockformerForecaster":
        """The same with float16 weights: the form that is judged and shipped."""
        return replace(self, weights=self.weights.half())

    def with_residual(self, residual: np.ndarray) -> "StockformerForecaster":
        return replace(self, residual=residual)

    def digest(self, symbol: str) -> str:
        return hashlib.sha256(self.weights[self.symbols.index(symbol)].numpy().tobytes()).hexdigest()

    def daily(self, panel: Panel, origins: np.ndarray, device: str = "cpu") -> np.ndarray:
        """`[symbols, origins, horizon]` daily log returns, the mean of the members, at the marked days."""
        return self._daily_and_scale(panel, origins, device)[0]

    def _daily_and_scale(self, panel: Panel, origins: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Daily log returns, and their spread where the networks give one: `[symbols, origins, horizon]` each."""
        self._check_features(panel)
        panel = panel.select(self.symbols)
        network = Stockformer(self.config, len(self.feature_names), self.n_outputs)
        scaled = torch.from_numpy(self.scaler.scale(panel.values, panel.present)).to(device)
        present = torch.from_numpy(panel.present).to(device)
        ends = torch.from_numpy(np.flatnonzero(origins)).to(device)
        n_members, horizon = self.weights.shape[1], self.config.horizon
        symbols_at_once = max(1, (NETWORKS_ON_CPU if device == "cpu" else NETWORKS_ON_CUDA) // n_members)
        ends_at_once = max(1, min(64, MOST_ATTENTION_ROWS // (symbols_at_once * n_members * self.config.n_heads)))
        found = np.empty((len(self.symbols), len(ends), self.n_outputs * horizon))
        with torch.inference_mode():
            for top in range(0, len(self.symbols), symbols_at_once):
                rows = slice(top, top + symbols_at_once)
                weights = self.weights[rows].to(device, torch.float32).flatten(0, 1)  # [models, parameters]
                of_model = torch.arange(len(self.symbols), device=device)[rows].repeat_interleave(n_members)
                for left in range(0, len(ends), ends_at_once):
                    window = ends[left:left + ends_at_once].expand(len(of_model), -1)  # [models, batch]
                    x, there = windows_at(scaled, present, of_model, window, self.config.look_back)
                    out = network.forward(weights, x, there, n_last=1)[:, :, 0]  # [models, batch, outputs]
                    out = out.unflatten(0, (-1, n_members)).mean(1)  # [symbols, batch, outputs]
                    found[rows, left:left + ends_at_once] = out.double().cpu().numpy()
        scale = scale_of(torch.from_numpy(found), self.n_outputs)
        target = self.scaler.target[:, None, None]
        return found[..., :horizon] * target, None if scale is None else scale.numpy() * target

    def predict(self, panel: Panel, origins: np.ndarray, device: str = "cpu") -> pd.DataFrame:
        """The Forecast of its symbols at the marked days `[days]`; a symbol absent on a day gives no row."""
        from scipy.special import ndtr

        daily, spread = self._daily_and_scale(panel, origins, device)
        days, present = panel.days[origins], panel.select(self.symbols).present[:, origins]
        tables = []
        for row, symbol in enumerate(self.symbols):
            there = present[row]
            if spread is None:
                scale = np.full(int(there.sum()), self.residual[row])
            else:  # of the sum of days that err independently
                scale = np.sqrt((spread[row, there] ** 2).sum(axis=1))
            p_up = ndtr(daily[row, there].sum(axis=1) / scale)
            tables.append(make_forecast("stockformer", symbol, days[there], daily[row, there], scale, p_up))
        return pd.concat(tables, ignore_index=True)

    def _check_features(self, panel: Panel) -> None:
        if tuple(panel.feature_names) == self.feature_names:
            return
        missing = [name for name in self.feature_names if name not in panel.feature_names]
        added = [name for name in panel.feature_names if name not in self.feature_names]
        told = [f"it was trained on {', '.join(missing)}, which this code does not compute"] if missing else []
        told += [f"this code computes {', '.join(added)}, which it does not know"] if added else []
        told = told or ["the same features stand in another order"]
        raise DeliveryError(f"the model and the code differ in features: {'; '.join(told)}. Use the version of the "
                            f"library that exported it ({self.facts.get('code_version', 'unknown')}), or train again.")

    def to_state(self) -> dict[str, Any]:
        """All of it, weights as they are: what a finished pack keeps."""
        return {"config": asdict(self.config), "feature_names": list(self.feature_names), "symbols": list(self.symbols),
                "weights": self.weights, "mean": torch.from_numpy(self.scaler.mean),
                "spread": torch.from_numpy(self.scaler.spread), "target": torch.from_numpy(self.scaler.target),
                "residual": torch.from_numpy(self.residual), "n_outputs": self.n_outputs}

    @classmethod
    def from_states(cls, states: list[dict[str, Any]], facts: dict[str, Any] | None = None) -> "StockformerForecaster":
        """The forecaster of all packs together."""
        scaler = Scaler(*(np.concatenate([state[name].numpy() for state in states])
                          for name in ("mean", "spread", "target")))
        return cls(StockformerConfig(**states[0]["config"]), tuple(states[0]["feature_names"]),
                   tuple(symbol for state in states for symbol in state["symbols"]),
                   torch.cat([state["weights"] for state in states]), scaler,
                   np.concatenate([state["residual"].numpy() for state in states]), states[0].get("n_outputs", 1),
                   facts or {})

    def file_state(self, symbol: str) -> dict[str, Any]:
        """What the exported file of a symbol holds: tensors and plain values."""
        row = self.symbols.index(symbol)
        return {
            "format": FORMAT, "family": "stockformer", "symbol": symbol, "config": asdict(self.config),
            "horizon": self.config.horizon, "feature_names": list(self.feature_names),
            "members": self.weights[row].half().clone(), "n_outputs": self.n_outputs,
            "scaler": {"mean": torch.from_numpy(self.scaler.mean[row].copy()),
                       "spread": torch.from_numpy(self.scaler.spread[row].copy()),
                       "target": float(self.scaler.target[row])},
            "residual": float(self.residual[row]), **self.facts,
        }

    @staticmethod
    def file_name(symbol: str) -> str:
        return f"{symbol}{FILE_ENDING}"

    def save(self, folder: Path) -> None:
        """Writes `{SYMBOL}_stockformer_simple_best.pt` for each symbol, float16, loadable with weights_only=True."""
        for symbol in self.symbols:
            state = self.file_state(symbol)
            write_atomic(Path(folder) / self.file_name(symbol), lambda file, state=state: torch.save(state, file))

    @classmethod
    def load(cls, folder: Path, symbols: list[str] | None = None) -> "StockformerForecaster":
        """The forecaster in a folder, or of some symbols in it. Raises DeliveryError when a file cannot be used."""
        files = sorted(Path(folder).glob(f"*{FILE_ENDING}")) if symbols is None else [
            Path(folder) / cls.file_name(symbol) for symbol in symbols]
        if not files:
            raise DeliveryError(f"{folder}: there is no *{FILE_ENDING} in it. Export first.")
        states = [_read_model(file) for file in files]
        first = states[0]
        scaler = Scaler(np.stack([state["scaler"]["mean"].numpy() for state in states]),
                        np.stack([state["scaler"]["spread"].numpy() for state in states]),
                        np.array([state["scaler"]["target"] for state in states], dtype="float32"))
        known = {"format", "family", "symbol", "config", "horizon", "feature_names", "members", "scaler", "residual",
                 "n_outputs"}
        facts = {name: value for name, value in first.items() if name not in known}
        return cls(StockformerConfig(**first["config"]), tuple(first["feature_names"]),
                   tuple(state["symbol"] for state in states), torch.stack([state["members"] for state in states]),
                   scaler, np.array([state["residual"] for state in states]), first.get("n_outputs", 1), facts)


def _read_model(file: Path) -> dict[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        newer = state["format"] > FORMAT
    except FileNotFoundError:
        raise DeliveryError(f"{file}: there is no such file. Export again.") from None
    except Exception as error:  # torch raises many kinds for a damaged file; none of them helps a person
        raise DeliveryError(f"{file}: not a model of this library, or damaged ({type(error).__name__}).") from error
    if newer:
        raise DeliveryError(f"{file}: written by a newer version of the library (format {state['format']}, "
                            f"this one reads {FORMAT}). Update vnq_colab.")
    return state


def make_learner(panel: Panel, train: DayRange, valid: DayRange | None, config: RunConfig,
                 **choices: Any) -> TorchLearner:
    """The learner of one pack: all symbols of `panel`, `config.n_members` networks each. See TorchLearner."""
    network = Stockformer(config.model, len(panel.feature_names), LOSSES[config.train.loss].n_outputs)
    return TorchLearner(network, panel, train, valid, config, FORECASTER, **choices)


def model_bytes(config: RunConfig, n_features: int) -> int:
    """Bytes of one network's float32 weights."""
    return 4 * Stockformer(config.model, n_features, LOSSES[config.train.loss].n_outputs).n_parameters


def most_models(config: RunConfig) -> int:
    """How many networks one step may hold, whatever the memory."""
    return MOST_ATTENTION_ROWS // (config.train.windows_per_batch * config.model.n_heads)


FORECASTER = StockformerForecaster
