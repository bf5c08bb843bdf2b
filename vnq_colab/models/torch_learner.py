"""Learns a pack of networks together, one optimizer step at a time; what each model does is decided by itself alone.

Axes: models, batch, time, features, horizon. All prices of the pack lie on the device; windows are gathered there.
In each epoch a model sees every one of its training days once: as positions of windows (`all_days`), or one window per
day (`last_day`). A model that is finished, or whose gradient is not finite, leaves with weights and optimizer state.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import Panel, Scaler, fit_scaler
from vnq_colab.data.splits import DayRange
from vnq_colab.models.base import Forecaster, Learner
from vnq_colab.models.held_out import with_residuals
from vnq_colab.models.losses import learning_rate, loss_per_model, without_skill
from vnq_colab.models.stacked import Network, Parts, StackedAdamW, clip_per_model, stable_seed, unstack
from vnq_colab.models.windows import count_labels, plan_epoch, stack_plans, windows_at

AT_ONCE = 5_000_000  # parameters of one pass on a CPU; chosen: EXPERIMENTS.md, 2026-11-21


class TorchLearner(Learner):
    """A pack of `n_members` networks for each symbol of a panel, trained on the days of `train`.

    With `valid` each model stops by itself when its validation loss has not improved for `patience` epochs, and keeps
    its best weights. With `epochs_of` (epochs per (symbol, member)) there is no validation: a model trains that long.
    With `start` `[parameters]` all begin from these weights, at `fine_tune_share` of the learning rate; they count as
    epoch 0, which may stay a model's best. Without, each begins from random weights of its own.
    `pack` and `learning_rate_share` (of the configured rate, for a retry) belong to the pack, not to a model.
    """

    def __init__(self, network: Network, panel: Panel, train: DayRange, valid: DayRange | None, config: RunConfig,
                 forecaster: Callable[..., Any], *, epochs_of: dict[tuple[str, int], int] | None = None,
                 start: torch.Tensor | None = None, pack: int = 0, learning_rate_share: float = 1.0):
        self.network, self.panel, self.config, self._forecaster = network, panel, config, forecaster
        self.settings, self.device = config.train, torch.device(config.machine.device)
        self.pack, self.epochs_of, self.valid_days = pack, epochs_of, valid
        self.learning_rate_share = learning_rate_share * (1.0 if start is None else config.train.fine_tune_share)
        self.scaler: Scaler = fit_scaler(panel, pd.Timestamp(train.first), pd.Timestamp(train.last))
        labels, known = panel.labels(config.model.horizon)
        labels /= self.scaler.target[:, None, None]
        self._scaled = torch.from_numpy(self.scaler.scale(panel.values, panel.present)).to(self.device)
        self._present = torch.from_numpy(panel.present).to(self.device)
        self._labels = torch.from_numpy(labels).to(self.device)  # [symbols, days, horizon]
        enough = np.cumsum(panel.present, axis=1) >= config.model.min_context  # [symbols, days]
        self._train_days = known & enough & train.mask(panel.days)
        self._valid_days = known & enough & (valid.mask(panel.days) if valid else np.zeros(len(panel.days), bool))
        self._in_train = torch.from_numpy(self._train_days).to(self.device)
        self._in_valid = torch.from_numpy(self._valid_days).to(self.device)

        self.models = [(symbol, member) for symbol in panel.symbols for member in range(config.n_members)]
        weights = torch.stack([network.initial_weights(config.seed, *model) if start is None else start.float()
                               for model in self.models])
        self.weights = weights.to(self.device)  # [models, parameters]
        self._room = torch.empty_like(self.weights)  # for the gradient
        self.optimizer = StackedAdamW(self.weights, self.settings.weight_decay)
        self.best = self.weights.unsqueeze(1).repeat(1, self.settings.keep_top_k, 1)  # [models, k, parameters]
        self._scores = np.full(self.best.shape[:2], np.inf)  # [models, k] of what is kept, the lowest is the best
        self.best_loss = np.full(len(self.models), np.inf)
        self.best_epoch = np.zeros(len(self.models), dtype=int)
        self.epoch, self.step_in_epoch = 0, 0
        self.history: list[tuple] = []  # (symbol, member, epoch, train_loss, valid_loss, no_skill)
        self._done: dict[tuple[str, int], tuple[torch.Tensor, int, float]] = {}  # weights on the host, best epoch, loss
        self._diverged: dict[str, str] = {}
        self._validation: tuple | None = None
        self._begin_epoch()
        if start is not None:  # it may be the best there is, or all that is asked for
            self._close_epoch([math.nan] * len(self.models))
            self._begin_epoch()

    # ------------------------------------------------------------------------------------------------ the interface
    @property
    def finished(self) -> bool:
        return not self.models

    def step(self) -> dict:
        """One optimizer step of every model whose epoch is not over; at the end of the pack's epoch, validation."""
        active = [row for row in range(len(self.models)) if self.step_in_epoch < self._steps[row]]
        noise = torch.Generator(self.device).manual_seed(
            stable_seed("noise", self.config.seed, self.pack, self.epoch, self.step_in_epoch))
        loss, gradient = self._gradient(noise)
        norms = clip_per_model(gradient, self.settings.clip_norm)
        # Synchronisation: the host must know which models stepped off before the optimizer moves them.
        finite = torch.isfinite(norms + loss).tolist()
        lost = [row for row in active if not finite[row]]
        rows = [row for row in active if finite[row]]
        rate = learning_rate(self.settings, self.epoch) * self.learning_rate_share
        self.optimizer.step(self.weights, gradient, rows, rate)
        self._loss_sum[rows] += loss[rows]
        labels = sum(self._labels_in_step[row, self.step_in_epoch] for row in active)
        measured = {"pack": self.pack, "epoch": self.epoch, "models": len(self.models), "labels": int(labels)}
        self.step_in_epoch += 1
        if lost:
            self._leave_diverged(lost)
        if self.models and self.step_in_epoch >= max(self._steps):
            started = time.monotonic()
            measured |= self._end_epoch() | {"evaluation_seconds": time.monotonic() - started}
        return measured

    def measure(self) -> pd.DataFrame:
        """One row per symbol: epochs trained, the members' mean best epoch and best validation loss."""
        rows = [(symbol, self.epoch, self.best_epoch[i], self.best_loss[i])
                for i, (symbol, _) in enumerate(self.models)]
        rows += [(symbol, self._last_epoch(symbol), epoch, loss)
                 for (symbol, _), (_, epoch, loss) in self._done.items()]
        table = pd.DataFrame(rows, columns=["symbol", "epoch", "best_epoch", "valid_loss"])
        return table.groupby("symbol", sort=False).mean().reset_index()

    def best_epochs(self, symbol: str) -> list[int]:
        """The best epoch of each member of a finished symbol."""
        return [self._done[symbol, member][1] for member in range(self.config.n_members)]

    def diverged(self) -> dict[str, str]:
        return dict(self._diverged)

    def state_dict(self) -> dict[str, Any]:
        return {
            "models": list(self.models), "weights": self.weights, "mean": self.optimizer.mean,
            "square": self.optimizer.square, "steps": self.optimizer.steps, "best": self.best,
            "scores": self._scores.tolist(), "best_loss": self.best_loss.tolist(),
            "best_epoch": self.best_epoch.tolist(), "loss_sum": self._loss_sum,
            "epoch": self.epoch, "step_in_epoch": self.step_in_epoch, "history": list(self.history),
            "done": [(*model, *kept) for model, kept in self._done.items()], "diverged": dict(self._diverged),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.models = [(symbol, member) for symbol, member in state["models"]]
        self.weights = state["weights"].to(self.device, copy=True)
        self._room = torch.empty_like(self.weights)
        self.optimizer = StackedAdamW(self.weights, self.settings.weight_decay)
        for name in ("mean", "square"):
            setattr(self.optimizer, name, state[name].to(self.device, copy=True))
        self.optimizer.steps = state["steps"].clone()
        self.best = state["best"].to(self.device, copy=True)
        self._scores = np.array(state["scores"]).reshape(self.best.shape[:2])
        self.best_loss, self.best_epoch = np.array(state["best_loss"]), np.array(state["best_epoch"], dtype=int)
        self.history = [tuple(row) for row in state["history"]]
        self._done = {(symbol, member): (weights, epoch, loss)
                      for symbol, member, weights, epoch, loss in state["done"]}
        self._diverged = dict(state["diverged"])
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self._loss_sum = state["loss_sum"].to(self.device, copy=True)
        self._plan()

    def forecaster(self) -> Forecaster:
        """The ensembles of the symbols that finished, with the spread of their validation residuals."""
        return self._validated()[0]

    def valid_accuracy(self) -> dict[str, float]:
        """Share of right 5-day directions on the validation days, per finished symbol; see `with_residuals`."""
        return self._validated()[1]

    # ---------------------------------------------------------------------------------------------- inside one epoch
    def _begin_epoch(self) -> None:
        self.step_in_epoch = 0
        self._loss_sum = torch.zeros(len(self.models), device=self.device)
        self._plan()

    def _plan(self) -> None:
        """Which windows each model of the stack sees at each step of this epoch."""
        symbols = [self.panel.symbols.index(symbol) for symbol, _ in self.models]
        self._symbol = torch.tensor(symbols, dtype=torch.long, device=self.device)  # [models] row of the pack's data
        windows = self.settings.windows_per_batch * self.settings.accumulate
        plans = [plan_epoch(np.flatnonzero(self._train_days[row]), windows, self._labelled,
                            stable_seed("order", self.config.seed, *model, self.epoch))
                 for row, model in zip(symbols, self.models, strict=True)]
        self._steps = [len(plan) for plan in plans]
        ends = stack_plans(plans)  # [models, steps, windows]
        self._ends = torch.from_numpy(ends).to(self.device)
        self._labels_in_step = count_labels(ends, self._train_days[symbols], self._labelled)

    @property
    def _labelled(self) -> int:
        """Positions at the end of a window that carry a label."""
        model = self.config.model
        return 1 if self.settings.supervise == "last_day" else model.look_back - model.min_context + 1

    def _gradient(self, noise: torch.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss `[models]` and gradient `[models, parameters]` of this step, the mean over each model's own batches."""
        size, shapes, gradient = self.settings.windows_per_batch, self.network.shapes, self._room.zero_()
        total = torch.zeros(len(self.models), device=self.device)
        for top in range(0, len(self.models), self._at_once):
            rows = slice(top, top + self._at_once)
            ends = self._ends[rows, self.step_in_epoch]  # [models, windows]
            n_batches = ((ends >= 0).sum(1) / size).ceil().clamp(min=1)  # [models]
            # Each part is a leaf of its own: put together by autograd, the gradient costs a tenth of the step on a CPU.
            parts = {name: part.requires_grad_() for name, part in unstack(self.weights[rows], shapes).items()}
            for batch in ends.split(size, dim=1):
                loss = self._loss(parts, rows, batch, noise) / n_batches
                found = torch.autograd.grad(loss.sum(), list(parts.values()))
                for place, part in zip(unstack(gradient[rows], shapes).values(), found, strict=True):
                    place.add_(part)
                total[rows] += loss.detach()
        return total, gradient

    @property
    def _at_once(self) -> int:
        """Models of one pass: on a CPU so few that what it computes stays in the caches, on CUDA all."""
        return max(1, AT_ONCE // self.weights.shape[1]) if self.device.type == "cpu" else len(self.models)

    def _loss(self, parts: Parts, rows: slice, ends: torch.Tensor, noise: torch.Generator | None) -> torch.Tensor:
        """`[models]`: each model's mean loss over the labelled positions of its windows."""
        output, target, weight = self._output(parts, rows, ends, self._in_train, noise, self._labelled)
        if self.settings.label_clip:
            target = target.clamp(-self.settings.label_clip, self.settings.label_clip)
        return loss_per_model(self.settings.loss, output, target, weight)

    def _output(self, weights: torch.Tensor | Parts, rows: slice, ends: torch.Tensor, carries: torch.Tensor,
                noise: torch.Generator | None, labelled: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the last `labelled` positions answer, their labels, and which of them count.

        `[models, batch, labelled, n_outputs * horizon]`, `[models, batch, labelled, horizon]`, and weights
        `[models, batch, labelled]`: 1 on the days that `carries [symbols, days]` marks.
        """
        x, there = windows_at(self._scaled, self._present, self._symbol[rows], ends, self.config.model.look_back)
        low = self.config.machine.dtype != "float32"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            output = self.network.forward(weights, x, there, noise=noise, n_last=labelled)
        day = ends.unsqueeze(-1) + torch.arange(1 - labelled, 1, device=self.device)  # [models, batch, labelled]
        inside = (day >= 0) & (day < self._scaled.shape[1]) & (ends >= 0).unsqueeze(-1)
        day = day.clamp(0, self._scaled.shape[1] - 1)
        symbol = self._symbol[rows, None, None]
        return output, self._labels[symbol, day], (carries[symbol, day] & inside).float()

    # ------------------------------------------------------------------------------------------- between two epochs
    def _end_epoch(self) -> dict:
        """Validation, best snapshots, and who leaves; then the next epoch's plan."""
        trained = (self._loss_sum / torch.tensor(self._steps, device=self.device)).tolist()
        self.epoch += 1
        losses = {"train_loss": trained} | self._close_epoch(trained)
        self._begin_epoch()
        return {name: float(np.mean(values)) for name, values in losses.items() if np.isfinite(values).all()}

    def _close_epoch(self, trained: list[float]) -> dict[str, list[float]]:
        """Validation, best snapshots, and who leaves."""
        valid, no_skill = self._validate() if self.valid_days else ([math.nan] * len(trained),) * 2
        leaving = []
        for row, model in enumerate(self.models):
            self.history.append((*model, self.epoch, trained[row], valid[row], no_skill[row]))
            last = self.epochs_of[model] if self.epochs_of else self.settings.epochs
            self._keep_if_good(row, valid[row])
            if self.epoch >= last or self.epoch - self.best_epoch[row] >= self.settings.patience:
                leaving.append(row)
        for row in leaving:
            kept = self.best[row][torch.from_numpy(np.isfinite(self._scores[row])).to(self.device)]
            self._done[self.models[row]] = (kept.mean(0).cpu(), int(self.best_epoch[row]), float(self.best_loss[row]))
        self._keep([row for row in range(len(self.models)) if row not in leaving])
        return {"valid_loss": valid, "no_skill": no_skill}

    def _keep_if_good(self, row: int, loss: float) -> None:
        """Keeps this epoch's weights of a model when they are among its best k; without a loss the latest are."""
        score = -float(self.epoch) if math.isnan(loss) else loss
        worst, is_best = int(self._scores[row].argmax()), score < self._scores[row].min()
        if score < self._scores[row, worst]:
            self.best[row, worst], self._scores[row, worst] = self.weights[row], score
        if is_best:
            self.best_loss[row], self.best_epoch[row] = loss, self.epoch

    @torch.no_grad()
    def _validate(self) -> tuple[list[float], list[float]]:
        """Validation loss of each model in one causal pass, and that of the forecast of no change."""
        n_labelled = self.config.model.look_back - self.config.model.min_context + 1
        days = np.flatnonzero(self.valid_days.mask(self.panel.days))  # the same windows whoever shares the pack
        ends = torch.arange(int(days[0]) + n_labelled - 1, int(days[-1]) + n_labelled, n_labelled, device=self.device)
        output, target, weight = self._output(self.weights, slice(None), ends.expand(len(self.models), -1),
                                              self._in_valid, None, n_labelled)
        known = weight.flatten(1).sum(1) > 0  # a symbol without validation days has no validation loss
        name = self.settings.loss
        losses = [loss_per_model(name, guess, target, weight) for guess in (output, without_skill(name, target))]
        return tuple(torch.where(known, loss, math.nan).tolist() for loss in losses)

    def _leave_diverged(self, rows: list[int]) -> None:
        """Takes out every member of the symbols of these models, also those that had finished."""
        for row in rows:
            symbol = self.models[row][0]
            self._diverged[symbol] = f"gradient not finite in epoch {self.epoch + 1}, step {self.step_in_epoch}"
        self._done = {model: kept for model, kept in self._done.items() if model[0] not in self._diverged}
        keep = [row for row, (symbol, _) in enumerate(self.models) if symbol not in self._diverged]
        self._loss_sum = self._loss_sum[torch.tensor(keep, dtype=torch.long, device=self.device)]
        self._keep(keep)
        self._plan()

    def _keep(self, rows: list[int]) -> None:
        """Only these models stay in the stack, with their optimizer state."""
        if len(rows) == len(self.models):
            return
        picked = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.weights = self.weights[picked]
        self._room = torch.empty_like(self.weights)
        self.best, self._scores = self.best[picked], self._scores[rows]
        self.optimizer.keep(rows)
        self.best_loss, self.best_epoch = self.best_loss[rows], self.best_epoch[rows]
        self.models = [self.models[row] for row in rows]

    def _validated(self) -> tuple[Forecaster, dict[str, float]]:
        """The finished ensembles on the full windows of the validation days, once the pack is finished."""
        if self._validation is None:
            members = range(self.config.n_members)
            symbols = tuple(symbol for symbol in self.panel.symbols if (symbol, 0) in self._done
                            and symbol not in self._diverged)
            weights = torch.stack([torch.stack([self._done[symbol, member][0] for member in members])
                                   for symbol in symbols])
            scaler = self.scaler.select([self.panel.symbols.index(symbol) for symbol in symbols])
            unknown = scaler.target.astype("float64") * math.sqrt(self.config.model.horizon)
            made = self._forecaster(self.config.model, tuple(self.panel.feature_names), symbols, weights, scaler,
                                    unknown, self.network.n_outputs)
            self._validation = (with_residuals(made, self.panel, self.valid_days, str(self.device)) if self.valid_days
                                else (made, {}))
        return self._validation

    def _last_epoch(self, symbol: str) -> int:
        return max(row[2] for row in self.history if row[0] == symbol)

