"""Learns a stack of networks, one optimizer step at a time; what each model does is decided by itself alone.

Axes: models, batch, time, features, outputs. All that the stack sees lies on the device; windows are gathered there.
A model that is finished, or whose gradient is not finite, is removed with its optimizer state. Its family decides which
windows a model sees, at which learning rate, and how it is validated.
"""

import abc
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vnq_colab.config import RunConfig
from vnq_colab.models.base import Job, Learner, Progress, TrainingData, stable_seed
from vnq_colab.models.forecaster import Inputs, NetworkForecaster, windows_at
from vnq_colab.models.stacked import Parts, StackedAdamW, Stockformer, clip_per_model, loss_per_model, unstack
from vnq_colab.settings import TrainConfig

AT_ONCE = 5_000_000  # parameters of one pass on a CPU; chosen: EXPERIMENTS.md, 2026-11-21
Model = tuple[str, int]  # (symbol, or "*" for all of them; member)


# The windows of one model in one epoch: row of the symbol and last day, `[steps, windows]`; day -1: none
Plan = tuple[np.ndarray, np.ndarray]
NO_PLAN: Plan = (np.empty((0, 1), dtype=int), np.empty((0, 1), dtype=int))  # of a model without a training day


class StackLearner(Learner):
    """A stack of networks, one for each of `models`, begun from `weights [models, parameters]`.

    With validation days each model stops by itself when its skill there has not risen for `settings.patience` epochs,
    and keeps its best weights; `judges_start`: the weights it began with count as epoch 0; `keeps_last`: the last
    weights are kept, whatever the skill. `epochs_of` says how long each model is trained (None: `settings.epochs`).
    """

    def __init__(self, job: Job, data: TrainingData, config: RunConfig, settings: TrainConfig, inputs: Inputs,
                 rows: np.ndarray, models: list[Model], network: Stockformer, weights: torch.Tensor, *,
                 epochs_of: dict[Model, int] | None = None, judges_start: bool = False, keeps_last: bool = False):
        self.job, self.data, self.config, self.settings, self.inputs = job, data, config, settings, inputs
        self.network, self.device = network, torch.device(config.machine.device)
        self.models, self.keeps_last = models, keeps_last
        self.epochs_of = epochs_of or dict.fromkeys(models, settings.epochs)
        present, labels = data.panel.present[rows], data.labels.values[rows]
        if inputs.per_symbol:
            labels = labels / inputs.scaler.target[:, None, None]
        enough = np.cumsum(present, axis=1) >= config.model.min_context  # [symbols, days]
        self._train_days, self._valid_days = (data.labels.known[rows] & enough & days
                                              for days in (data.train, data.valid))
        # [symbols, days, inputs], [symbols, days], [symbols, days, outputs], and twice [symbols, days]
        self._scaled, self._present, self._labels, self._in_train, self._in_valid = (
            torch.from_numpy(part).to(self.device)
            for part in (inputs.of(data.panel, rows), present, labels, self._train_days, self._valid_days))
        self.weights = weights.to(self.device)  # [models, parameters]
        self._room = torch.empty_like(self.weights)  # for the gradient
        self.optimizer = StackedAdamW(self.weights, settings.weight_decay)
        self.best = self.weights.unsqueeze(1).repeat(1, settings.keep_top_k, 1)  # [models, k, parameters]
        self._scores = np.full(self.best.shape[:2], -np.inf)  # [models, k] of what is kept, the highest is the best
        self.best_skill = np.full(len(models), -np.inf)
        self.best_epoch = np.zeros(len(models), dtype=int)
        self.epoch, self.step_in_epoch = 0, 0
        self.history: list[tuple] = []  # (symbol, member, epoch, train_loss, skill)
        self._done: dict[Model, tuple[torch.Tensor, int, float]] = {}  # weights on the host, best epoch, skill there
        self._diverged: dict[str, str] = {}
        self._begin_epoch()
        if judges_start:
            self._close_epoch([math.nan] * len(self.models))
            self._begin_epoch()

    @abc.abstractmethod
    def _plan_of(self, model: Model, epoch: int) -> Plan:
        """Which windows a model sees in an epoch; decided by (seed, model, epoch) alone."""

    @abc.abstractmethod
    def _rate(self) -> float:
        """The learning rate of this step."""

    @abc.abstractmethod
    def _validate(self) -> list[float]:
        """The skill of each model on its validation days, NaN where it has none."""

    @property
    def finished(self) -> bool:
        return not self.models

    def step(self) -> Progress:
        """One optimizer step of every model whose epoch is not over; at the end of the pack's epoch, validation."""
        active = [row for row in range(len(self.models)) if self.step_in_epoch < self._steps[row]]
        noise = torch.Generator(self.device).manual_seed(
            stable_seed("noise", self.config.seed, self.job.name, self.epoch, self.step_in_epoch))
        loss, gradient = self._gradient(noise)
        norms = clip_per_model(gradient, self.settings.clip_norm)
        # Synchronisation: the host must know which models stepped off before the optimizer moves them.
        finite = torch.isfinite(norms + loss).tolist()
        rows = [row for row in active if finite[row]]
        self.optimizer.step(self.weights, gradient, rows, self._rate() * self.job.learning_rate_share)
        self._loss_sum[rows] += loss[rows]
        self.step_in_epoch += 1
        measured = {}
        if len(rows) < len(active):
            self._remove_diverged([row for row in active if not finite[row]])
        if self.models and self.step_in_epoch >= max(self._steps):
            started = time.monotonic()
            trained = (self._loss_sum / torch.tensor(self._steps, device=self.device).clamp(min=1)).tolist()
            self.epoch += 1
            means = {"train_loss": trained, "skill": self._close_epoch(trained)}
            self._begin_epoch()
            measured = {name: float(np.mean(values)) for name, values in means.items() if np.isfinite(values).all()}
            measured |= {"at": self.epoch, "evaluation_seconds": time.monotonic() - started}
        last = max((self.epochs_of[model] for model in self.models), default=0)  # if all are trained to their last one
        done = (self.epoch + self.step_in_epoch / max([1, *self._steps])) / max(last, 1)
        return Progress(min(1.0, done) if self.models else 1.0, f"epoch {self.epoch + 1}, {len(self.models)} networks",
                        measured)

    def state_dict(self) -> dict[str, Any]:
        return {
            "models": list(self.models), "weights": self.weights, "mean": self.optimizer.mean,
            "square": self.optimizer.square, "steps": self.optimizer.steps, "best": self.best,
            "scores": self._scores.tolist(), "best_skill": self.best_skill.tolist(),
            "best_epoch": self.best_epoch.tolist(), "loss_sum": self._loss_sum,
            "epoch": self.epoch, "step_in_epoch": self.step_in_epoch, "history": list(self.history),
            "done": [(*model, *kept) for model, kept in self._done.items()], "diverged": dict(self._diverged),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.models = [(symbol, member) for symbol, member in state["models"]]
        wanted = len(self.models), self.weights.shape[1], self.weights.dtype
        if any((*state[name].shape, state[name].dtype) != wanted for name in ("weights", "mean", "square")):
            raise ValueError("weights of other shapes, which a step would read past their ends")
        self.weights, self.best, self._loss_sum, self.optimizer.mean, self.optimizer.square = (
            state[name].to(self.device, copy=True) for name in ("weights", "best", "loss_sum", "mean", "square"))
        self.optimizer.steps = state["steps"].clone()
        self._room = torch.empty_like(self.weights)
        self._scores = np.array(state["scores"]).reshape(self.best.shape[:2])
        self.best_skill, self.best_epoch = np.array(state["best_skill"]), np.array(state["best_epoch"], dtype=int)
        self.history = [(*model, epoch, loss, skill) for *model, epoch, loss, skill in state["history"]]
        self._done = {(symbol, member): (weights, epoch, skill)
                      for symbol, member, weights, epoch, skill in state["done"]}
        self._diverged = dict(state["diverged"])
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self._plan()

    def _begin_epoch(self) -> None:
        self.step_in_epoch = 0
        self._loss_sum = torch.zeros(len(self.models), device=self.device)
        self._plan()

    def _plan(self) -> None:
        """Which windows each model of the stack sees at each step of this epoch."""
        plans = [self._plan_of(model, self.epoch) for model in self.models]
        self._steps = [len(days) for _, days in plans]
        shape = [len(plans), *(max((days.shape[axis] for _, days in plans), default=0) for axis in (0, 1))]
        ends, symbols = np.full(shape, -1), np.zeros(shape, dtype=int)
        for row, (symbol, days) in enumerate(plans):
            place = row, slice(len(days)), slice(days.shape[1])
            ends[place], symbols[place] = days, symbol
        self._ends, self._symbols = (torch.from_numpy(part).to(self.device) for part in (ends, symbols))

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
            ends, symbols = (part[rows, self.step_in_epoch] for part in (self._ends, self._symbols))
            n_batches = ((ends >= 0).sum(1) / size).ceil().clamp(min=1)  # [models]
            # Each part is a leaf of its own: put together by autograd, the gradient costs a tenth of the step on a CPU.
            parts = {name: part.requires_grad_() for name, part in unstack(self.weights[rows], shapes).items()}
            for batch, symbol in zip(ends.split(size, dim=1), symbols.split(size, dim=1), strict=True):
                output, target, weight = self._output(parts, symbol, batch, self._in_train, noise, self._labelled)
                if clip := self.settings.label_clip:
                    target = target.clamp(-clip, clip)
                loss = loss_per_model(self.settings.loss, output, target, weight) / n_batches
                pieces = torch.autograd.grad(loss.sum(), list(parts.values()))
                for place, piece in zip(unstack(gradient[rows], shapes).values(), pieces, strict=True):
                    place.add_(piece)
                total[rows] += loss.detach()
        return total, gradient

    @property
    def _at_once(self) -> int:
        """Models of one pass: on a CPU so few that what it computes stays in the caches, on CUDA all."""
        return max(1, AT_ONCE // self.weights.shape[1]) if self.device.type == "cpu" else len(self.models)

    def _output(self, weights: torch.Tensor | Parts, symbol: torch.Tensor, ends: torch.Tensor, carries: torch.Tensor,
                noise: torch.Generator | None, labelled: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The output of the last `labelled` positions, their labels, and which of them count.

        `[models, batch, labelled, outputs]` twice, and weights `[models, batch, labelled]`: 1 on the days that
        `carries [symbols, days]` marks. `symbol` and `ends` are `[models, batch]`; an end of -1 is no window.
        """
        x, there = windows_at(self._scaled, self._present, symbol, ends, self.config.model.look_back)
        low = self.config.machine.dtype != "float32"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            output = self.network.forward(weights, x, there, noise=noise, n_last=labelled)
        day = ends.unsqueeze(-1) + torch.arange(1 - labelled, 1, device=self.device)  # [models, batch, labelled]
        inside = (day >= 0) & (day < self._scaled.shape[1]) & (ends >= 0).unsqueeze(-1)
        day, symbol = day.clamp(0, self._scaled.shape[1] - 1), symbol.unsqueeze(-1)
        return output, self._labels[symbol, day], (carries[symbol, day] & inside).float()

    def _close_epoch(self, trained: list[float]) -> list[float]:
        """Validation, best snapshots, and which models are finished."""
        skill = [math.nan] * len(trained) if self.data.is_final else self._validate()
        finished = []
        for row, model in enumerate(self.models):
            self.history.append((*model, self.epoch, trained[row], skill[row]))
            # among its best k weights are these kept; the latest, without validation
            score = float(self.epoch) if math.isnan(skill[row]) or self.keeps_last else skill[row]
            worst, is_best = int(self._scores[row].argmin()), score > self._scores[row].max()
            if score > self._scores[row, worst]:
                self.best[row, worst], self._scores[row, worst] = self.weights[row], score
            if is_best:
                self.best_skill[row], self.best_epoch[row] = skill[row], self.epoch
            if (self.epoch >= self.epochs_of[model] or self.epoch - self.best_epoch[row] >= self.settings.patience
                    or not self._steps[row]):  # it has nothing to learn from
                finished.append(row)
        for row in finished:
            kept = self.best[row][torch.from_numpy(np.isfinite(self._scores[row])).to(self.device)]
            self._done[self.models[row]] = (kept.mean(0).cpu(), int(self.best_epoch[row]), float(self.best_skill[row]))
        self._keep_rows([row for row in range(len(self.models)) if row not in finished])
        return skill

    def _remove_diverged(self, rows: list[int]) -> None:
        """Takes out every member of the symbols of these models, also those that had finished."""
        why = f"gradient not finite in epoch {self.epoch + 1}, step {self.step_in_epoch}"
        self._diverged |= {self.models[row][0]: why for row in rows}
        self._done = {model: kept for model, kept in self._done.items() if model[0] not in self._diverged}
        keep = [row for row, (symbol, _) in enumerate(self.models) if symbol not in self._diverged]
        self._loss_sum = self._loss_sum[torch.tensor(keep, dtype=torch.long, device=self.device)]
        self._keep_rows(keep)
        self._plan()

    def _keep_rows(self, rows: list[int]) -> None:
        """Only these models stay in the stack, with their optimizer state."""
        if len(rows) == len(self.models):
            return
        picked = torch.tensor(rows, dtype=torch.long, device=self.device)
        self.weights = self.weights[picked]
        self._room = torch.empty_like(self.weights)
        self.best, self._scores = self.best[picked], self._scores[rows]
        self.optimizer.keep(rows)
        self.best_skill, self.best_epoch = self.best_skill[rows], self.best_epoch[rows]
        self.models = [self.models[row] for row in rows]

    def _forecaster(self, groups: Sequence[str], symbols: Sequence[str], inputs: Inputs) -> NetworkForecaster:
        """The finished networks of these symbols, or of everyone, in float16: as they are exported."""
        members = range(self.config.n_members)
        weights = torch.stack([torch.stack([self._done[group, member][0] for member in members]) for group in groups])
        return NetworkForecaster(self.job.family, self.config.model, self.data.task, self.settings.loss,
                                 tuple(self.data.panel.feature_names), tuple(symbols), weights.half(), inputs,
                                 str(self.device))

    def _best(self, symbol: str, of: int) -> list[float]:
        """Best epoch (1) or skill (2) of each member of a finished symbol."""
        return [self._done[symbol, member][of] for member in range(self.config.n_members)]
