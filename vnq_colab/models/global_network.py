"""One network for all symbols: the opponent that asks whether a symbol needs its own, and a start for those that do.

Axes: models (here always one), batch, time, features, horizon. A window belongs to one symbol and is scaled by that
symbol's own scaler, and its labels are in units of that symbol's own spread; so windows of all symbols share a batch.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vnq_colab.config import MachineConfig, RunConfig
from vnq_colab.data.downloads import progress
from vnq_colab.data.panel import Panel, fit_scaler
from vnq_colab.data.splits import DayRange, Splits
from vnq_colab.models.losses import LOSSES, learning_rate, loss_per_model
from vnq_colab.models.stacked import StackedAdamW, clip_per_model, stable_seed
from vnq_colab.models.stockformer import Stockformer, StockformerForecaster
from vnq_colab.models.windows import plan_epoch, windows_at

NAME = "global"  # of the family, and of the network where a symbol's name would stand in its seeds
WINDOWS = 64  # of one step; chosen: EXPERIMENTS.md, 2026-11-21
EPOCHS, PATIENCE, WARMUP_EPOCHS = 20, 3, 1  # at most: an epoch of all symbols has more steps than their own have


@dataclass(frozen=True)
class GlobalNetwork:
    """What was learnt of all symbols together."""

    weights: torch.Tensor  # [parameters] float32, on the host
    best_epoch: int  # from 1: these weights are those after so many epochs; 0: no epoch was any good

    def forecaster(self, panel: Panel, train: DayRange, config: RunConfig) -> StockformerForecaster:
        """The same network for each symbol of a panel, with the symbol's own scaler of the training days."""
        scaler = fit_scaler(panel, pd.Timestamp(train.first), pd.Timestamp(train.last))
        unknown = scaler.target.astype("float64") * np.sqrt(config.model.horizon)
        return StockformerForecaster(config.model, tuple(panel.feature_names), panel.symbols,
                                     self.weights.expand(len(panel.symbols), 1, -1), scaler, unknown,
                                     LOSSES[config.train.loss].n_outputs)


def forecast_daily(panel: Panel, splits: Splits, config: RunConfig, origins: np.ndarray, *,
                   start: torch.Tensor | None = None, quiet: bool = False) -> np.ndarray:
    """`[symbols, days, horizon]` daily log returns of one network on the days `origins [days]` marks, else 0.

    `start` `[parameters]` are the weights of one that was trained on these training days already; None trains one. A
    symbol without training days gets 0 throughout. A CPU takes the place of a GPU that is not there.
    """
    if not torch.cuda.is_available():
        config = replace(config, machine=MachineConfig())
    found = np.zeros((*panel.returns.shape, config.model.horizon))
    learns = _labelled_days(panel, splits.train, config).any(axis=1)  # [symbols]
    if not learns.any():
        return found
    chosen = panel.select([symbol for symbol, is_known in zip(panel.symbols, learns, strict=True) if is_known])
    if start is not None:
        network = GlobalNetwork(start, 0)
    else:
        epochs = min(config.train.epochs, EPOCHS)
        with progress("one network for all symbols, at most", epochs, unit="epochs", quiet=quiet) as advance:
            def count(measured: dict[str, Any]) -> None:
                advance("evaluation_seconds" in measured)

            network = train_global(chosen, splits.train, splits.valid, config, between=count)
    forecaster = network.forecaster(chosen, splits.train, config)
    found[np.ix_(learns, origins)] = forecaster.daily(chosen, origins, config.machine.device)
    return found


@contextlib.contextmanager
def _half_of_the_threads() -> Iterator[None]:
    """A step this small gains little from all threads, and loses much once another process holds one of them up."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, n_threads // 2))  # chosen: EXPERIMENTS.md, 2026-11-21
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@_half_of_the_threads()
def train_global(panel: Panel, train: DayRange, valid: DayRange | None, config: RunConfig, *, epochs: int | None = None,
                 between: Callable[[dict[str, Any]], Any] | None = None) -> "GlobalNetwork | str":
    """One network trained on the days `train` of every symbol of the panel together.

    Network, loss, learning rate and seed are those of `config`; every day of a window predicts (`all_days`), whatever
    the recipe. It keeps the weights of the epoch that was best on the days `valid` of all symbols together; without
    such days, or for a given number of `epochs`, the last ones. After each step `between` gets the measurements; a
    reason that it returns ends the training, and is returned. At least one symbol must have training days.
    """
    lessons, device = _Lessons(panel, train, None if epochs is not None else valid, config), config.machine.device
    settings = replace(config.train, epochs=min(config.train.epochs, EPOCHS),
                       warmup_epochs=min(config.train.warmup_epochs, WARMUP_EPOCHS))
    weights = lessons.network.initial_weights(config.seed, NAME, 0).unsqueeze(0).to(device)  # [1, parameters]
    optimizer = StackedAdamW(weights.requires_grad_(), settings.weight_decay)
    best, least, best_epoch = weights.detach().clone(), np.inf, 0
    for epoch in range(settings.epochs if epochs is None else epochs):
        rate, batches = learning_rate(settings, epoch), lessons.train_batches(epoch)
        for step, batch in enumerate(batches):
            noise = torch.Generator(device).manual_seed(stable_seed("noise", config.seed, NAME, epoch, step))
            with sdpa_kernel(SDPBackend.MATH):  # CUDA's faster kernels add up a gradient in any order
                loss, _ = lessons.loss(weights, batch, "train", noise)
                gradient = torch.autograd.grad(loss.sum(), weights)[0]
            # Synchronisation: the host must know whether the gradient is finite before the network moves.
            is_finite = clip_per_model(gradient, settings.clip_norm).isfinite().item()
            optimizer.step(weights, gradient, [0] if is_finite else [], rate)
            measured = {"epoch": epoch, "step": step, "n_steps": len(batches)}
            if step == len(batches) - 1:
                began = time.monotonic()
                loss = lessons.valid_loss(weights)
                measured |= {"evaluation_seconds": time.monotonic() - began}
                measured |= {} if loss is None else {"valid_loss": loss}
                if loss is None or loss < least:
                    best, least, best_epoch = weights.detach().clone(), loss, epoch + 1
            if between and (why := between(measured)):
                return why
        if epoch + 1 - best_epoch >= min(settings.patience, PATIENCE):
            break
    return GlobalNetwork(best[0].cpu(), best_epoch)


def _labelled_days(panel: Panel, days: DayRange, config: RunConfig) -> np.ndarray:
    """`[symbols, days]`: which of the days have a label and enough days before them."""
    known = panel.labels(config.model.horizon)[1] & days.mask(panel.days)
    return known & (np.cumsum(panel.present, axis=1) >= config.model.min_context)


class _Lessons:
    """All symbols' days on the device: what is seen, what is to be predicted, and in which windows."""

    def __init__(self, panel: Panel, train: DayRange, valid: DayRange | None, config: RunConfig):
        self.config, self.device = config, torch.device(config.machine.device)
        self.network = Stockformer(config.model, len(panel.feature_names), LOSSES[config.train.loss].n_outputs)
        scaler = fit_scaler(panel, pd.Timestamp(train.first), pd.Timestamp(train.last))
        labels = panel.labels(config.model.horizon)[0] / scaler.target[:, None, None]
        self._days = {"train": _labelled_days(panel, train, config)}
        self._days |= {"valid": _labelled_days(panel, valid, config)} if valid else {}
        self._carries = {part: torch.from_numpy(days).to(self.device) for part, days in self._days.items()}
        self._scaled = torch.from_numpy(scaler.scale(panel.values, panel.present)).to(self.device)
        self._present = torch.from_numpy(panel.present).to(self.device)
        self._labels = torch.from_numpy(labels).to(self.device)  # [symbols, days, horizon]
        self._symbols, self._labelled = panel.symbols, config.model.look_back - config.model.min_context + 1

    def train_batches(self, epoch: int) -> list[torch.Tensor]:
        """An epoch's windows of all symbols, shuffled, `[batch, 2]` each: row of the symbol, last day.

        The windows of a symbol are those that a network of its own would see; each training day is labelled once.
        """
        seed, ends = self.config.seed, []
        for row in np.flatnonzero(self._days["train"].any(axis=1)):
            days = np.flatnonzero(self._days["train"][row])
            plan = plan_epoch(days, len(days), self._labelled,
                              stable_seed("order", seed, self._symbols[row], 0, epoch))[0]
            ends.append(np.column_stack([np.full(len(plan), row), plan]))
        pairs = np.random.default_rng(stable_seed("order", seed, NAME, epoch)).permutation(np.concatenate(ends))
        return self._split(pairs)

    def _valid_batches(self) -> list[torch.Tensor]:
        """The windows of the validation days, side by side, of all symbols; the same in every epoch."""
        if "valid" not in self._days or not self._days["valid"].any():
            return []
        days = np.flatnonzero(self._days["valid"].any(axis=0))
        ends = np.arange(days[0] + self._labelled - 1, days[-1] + self._labelled, self._labelled)
        rows = np.flatnonzero(self._days["valid"].any(axis=1))
        return self._split(np.column_stack([np.repeat(rows, len(ends)), np.tile(ends, len(rows))]))

    def _split(self, pairs: np.ndarray) -> list[torch.Tensor]:
        return [torch.from_numpy(part).to(self.device) for part in np.array_split(pairs, -(-len(pairs) // WINDOWS))]

    def loss(self, weights: torch.Tensor, batch: torch.Tensor, part: str,
             noise: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss `[1]` over the labelled positions of a batch of windows, and how many they are."""
        settings = self.config.train
        symbol, end = batch.T  # each [batch]
        # Each window as one of a model of its own, and then all as the batch of one model: none crosses symbols.
        x, there = windows_at(self._scaled, self._present, symbol, end[:, None], self.config.model.look_back)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.machine.dtype != "float32"):
            output = self.network.forward(weights, x.transpose(0, 1), there.transpose(0, 1), noise=noise,
                                          n_last=self._labelled)  # [1, batch, labelled, n_outputs * horizon]
        day = end[:, None] + torch.arange(1 - self._labelled, 1, device=self.device)  # [batch, labelled]
        inside = (day >= 0) & (day < self._scaled.shape[1])
        day, symbol = day.clamp(0, self._scaled.shape[1] - 1), symbol[:, None]
        target, weight = self._labels[symbol, day], (self._carries[part][symbol, day] & inside).float()
        if settings.label_clip and part == "train":
            target = target.clamp(-settings.label_clip, settings.label_clip)
        return loss_per_model(settings.loss, output, target[None], weight[None]), weight.sum()

    @torch.no_grad()
    def valid_loss(self, weights: torch.Tensor) -> float | None:
        """Mean loss over the validation days of all symbols; None where there are none."""
        found = [self.loss(weights, batch, "valid") for batch in self._valid_batches()]
        if not found:
            return None
        losses, counts = (torch.stack(part).flatten() for part in zip(*found, strict=True))
        return ((losses * counts).sum() / counts.sum()).item()
