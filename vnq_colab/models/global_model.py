"""The family `global`: one network of all stocks, trained on the order within each day; its members are seeds.

Axes: models (seeds), batch (stocks), labelled (days of a window), outputs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import rank_correlation
from vnq_colab.data.panel import Panel
from vnq_colab.models import base
from vnq_colab.models.forecaster import Inputs, NetworkForecaster
from vnq_colab.models.learner import NO_PLAN, Model, Plan, StackLearner
from vnq_colab.models.stacked import Stockformer, warmup_cosine
from vnq_colab.models.states import load_files
from vnq_colab.settings import MachineConfig, OneOf, Real, Task, Whole

NAME, FORECASTER = "global", NetworkForecaster
SPACE = {"global.learning_rate": Real(3e-4, 1e-2, log=True), "global.weight_decay": Real(1e-4, 1e-1, log=True),
         "global.epochs": Whole(2, 10), "global.windows_per_step": Whole(50, 800, log=True),
         "global.inputs": OneOf("features", "ranks", "both"), "model.look_back": OneOf(1, 3, 5, 10, 20),
         "model.width": OneOf(64, 128, 256), "model.dropout": Real(0, 0.3)}  # what `search` tries
LEAST_RATE = 0.02  # [fraction] of the learning rate, at the end


def plan(task: Task, panel: Panel, folds: list, config: RunConfig, machine: MachineConfig) -> list[base.Job]:
    """One job for each fold, and the final fit."""
    return base.jobs_by_fold(NAME, panel, folds, config.symbols)


def learner(job: base.Job, data: base.TrainingData, config: RunConfig,
            inputs: dict[str, dict[str, Any]]) -> base.StagedLearner:
    """The learner of one job."""
    return base.StagedLearner(job, data, lambda days, _: GlobalStack(job, days, config), config.machine.device)


def load(folder: Path) -> base.Forecaster:
    """The forecaster that was saved in a folder."""
    return load_files(NAME, folder, f"{NAME}.pt")


class GlobalStack(StackLearner):
    """The seeds of one global network, trained together."""

    def __init__(self, job: base.Job, data: base.TrainingData, config: RunConfig):
        own = config.global_
        settings = config.train.shortened(
            epochs=own.epochs, patience=own.epochs, accumulate=1, keep_top_k=1, weight_decay=own.weight_decay,
            loss="mse", supervise="all_days", batch_windows=own.windows_per_step)
        inputs = Inputs.fit(data.panel, data.train, own.inputs)
        network = Stockformer(config.model, inputs.width(len(data.panel.feature_names)), data.labels.values.shape[2])
        models = [(base.EVERYONE, member) for member in range(config.n_members)]
        weights = torch.stack([network.initial_weights(config.seed, *model) for model in models])
        super().__init__(job, data, config, settings, inputs, np.arange(len(data.panel.symbols)), models, network,
                         weights, keeps_last=True)

    def _rate(self) -> float:
        """Step by step: there are few epochs and many steps."""
        own, n_steps = self.config.global_, max(self._steps)
        done = (self.epoch + self.step_in_epoch / n_steps) / self.settings.epochs  # [fraction]
        return warmup_cosine(own.learning_rate, done, 1 / (n_steps * self.settings.epochs), own.warmup_share, 1.0,
                             LEAST_RATE)

    def _plan_of(self, model: Model, epoch: int) -> Plan:
        """Windows of all stocks, shuffled; they tile the training days, so that each stock and day is labelled once."""
        random = np.random.default_rng(base.stable_seed("order", self.config.seed, *model, epoch))
        days = np.flatnonzero(self._train_days.any(axis=0))
        if not len(days):
            return NO_PLAN
        ends = np.arange(days[0] + random.integers(self._labelled), days[-1] + self._labelled, self._labelled)
        labelled = np.cumsum(np.pad(self._train_days, ((0, 0), (1, 0))), axis=1)  # [stocks, days + 1]
        stop, start = np.minimum(ends + 1, self._train_days.shape[1]), np.maximum(ends + 1 - self._labelled, 0)
        symbol, place = np.nonzero(labelled[:, stop] > labelled[:, start])
        order, size = random.permutation(len(symbol)), self.settings.windows_per_batch
        shape = -(-len(order) // size), size
        symbols, lasts = np.zeros(shape, dtype=int), np.full(shape, -1)
        symbols.flat[:len(order)], lasts.flat[:len(order)] = symbol[order], ends[place[order]]
        return symbols, lasts

    @torch.no_grad()
    def _validate(self) -> list[float]:
        """Mean daily rank correlation of each seed over the validation days, all stocks."""
        days = np.flatnonzero(self._valid_days.any(axis=0))
        if not len(days):
            return [float("nan")] * len(self.models)
        scores = np.full((len(self.models), *self._valid_days.shape), np.nan)  # [models, stocks, days]
        labelled = self._labelled
        for end in range(int(days[0]) + labelled - 1, int(days[-1]) + labelled, labelled):
            inside = np.arange(end + 1 - labelled, min(end + 1, scores.shape[2]))
            judged = np.flatnonzero(self._valid_days[:, inside].any(axis=1))
            for part in np.array_split(judged, max(1, -(-len(judged) // 64))):
                symbol = torch.from_numpy(part).to(self.device).expand(len(self.models), -1)
                output, _, _ = self._output(self.weights, symbol, torch.full_like(symbol, end), self._in_valid, None,
                                            labelled)  # [models, stocks, days, outputs]
                scores[:, part[:, None], inside] = output.mean(-1).double().cpu().numpy()[:, :, :len(inside)]
        truth = np.where(self._valid_days, self._labels.mean(-1).cpu().numpy(), np.nan)[:, days]
        return [rank_correlation(np.where(np.isfinite(truth), one[:, days], np.nan), truth) for one in scores]

    def result(self) -> base.Trained:
        if self._diverged:
            failed = dict.fromkeys(self.job.symbols, self._diverged[base.EVERYONE])
            return base.Trained(None, {}, self.history, {"epochs": []}, failed)
        forecaster = self._forecaster([base.EVERYONE], self.job.symbols, self.inputs)
        return base.Trained(forecaster, {}, self.history, {"epochs": self._best(base.EVERYONE, 1)})
