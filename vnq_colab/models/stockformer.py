"""The family `stockformer`: an ensemble of small networks for each symbol, trained together in stacks.

Each begins as the global network of its member and is fine-tuned on its own symbol; with `stockformer.start="own"`, as
in the source texts, it begins from random weights and sees features scaled by the symbol's own history.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits
from vnq_colab.models import global_model
from vnq_colab.models.base import Job, StagedLearner, Trained, TrainingData, fold_budgets, restored, stable_seed
from vnq_colab.models.forecaster import Inputs, NetworkForecaster
from vnq_colab.models.learner import NO_PLAN, Model, Plan, StackLearner
from vnq_colab.models.stacked import MOST_ATTENTION_ROWS, Stockformer, loss_per_model, n_outputs, warmup_cosine
from vnq_colab.models.states import load_files
from vnq_colab.settings import MachineConfig, OneOf, Real, Task, Whole

NAME, FORECASTER = "stockformer", NetworkForecaster
SPACE = {"stockformer.learning_rate_share": Real(0.003, 0.3, log=True), "stockformer.epochs": Whole(1, 6),
         "train.weight_decay": Real(1e-6, 1e-2, log=True), "train.batch_windows": OneOf(8, 16, 32, 64),
         "model.dropout": Real(0, 0.3)}  # what `search` tries
FEWEST_DAYS = 100  # labelled training days below which a symbol's own network is not worth its name
MEMORY_SHARE = 0.8  # of a device's memory that a pack may fill; chosen: the rest is for validation and fragments
STATE_COPIES = 3  # of the weights in a checkpoint: weights, two moments; and each best snapshot


def plan(task: Task, panel: Panel, folds: list[Splits], config: RunConfig, machine: MachineConfig) -> list[Job]:
    """A job for each pack of symbols, in each fold and in the final fit."""
    symbols, from_global = np.array(config.symbols or panel.symbols, object), config.stockformer.start == "global"
    present = panel.present[panel.rows(symbols)]
    at_once = max(1, most_models(panel, config, machine) // config.n_members)
    jobs: list[Job] = []
    for fold, splits in [*enumerate(folds), (None, None)]:
        end = len(panel.days) if splits is None else int(splits.train.mask(panel.days).nonzero()[0][-1]) + 1
        history = present[:, :end].sum(axis=1)
        order = np.argsort(-history, kind="stable")  # symbols of like history share a pack
        order = order if from_global else order[history[order] >= FEWEST_DAYS]
        needs = [Job(global_model.NAME, fold).name] if from_global else []
        needs += [job.name for job in jobs] if splits is None else []
        jobs += [Job(NAME, fold, pack, tuple(part), tuple(needs))
                 for pack, part in enumerate(np.array_split(symbols[order], -(-len(order) // at_once)))]
    return jobs


def most_models(panel: Panel, config: RunConfig, machine: MachineConfig) -> int:
    """Networks of one pack: as the profile says, within the checkpoint budget, the kernels' limit and the memory.

    Of memory only the copies of the weights count; training halves a pack that does not fit all the same.
    """
    copies, size = STATE_COPIES + config.train.keep_top_k, model_bytes(config, panel)
    memory = (torch.cuda.get_device_properties(0).total_memory if machine.device == "cuda"
              else psutil.virtual_memory().available)
    return min(machine.pack_models, MOST_ATTENTION_ROWS // (config.train.windows_per_batch * config.model.n_heads),
               int(machine.checkpoint_budget_gb * 1e9 / (copies * size)),
               int(MEMORY_SHARE * memory / ((2 * copies + 1) * size)))  # the state, its snapshot, and the gradient


def model_bytes(config: RunConfig, panel: Panel) -> int:
    """Bytes of one network's float32 weights."""
    n_inputs = len(panel.feature_names) * (2 if config.global_.inputs == "both" else 1)
    n_labels = config.task.horizon if config.task.target == "return" else 1
    return 4 * Stockformer(config.model, n_inputs, n_outputs(config.train.loss, n_labels)).n_parameters


def learner(job: Job, data: TrainingData, config: RunConfig, inputs: dict[str, dict[str, Any]]) -> StagedLearner:
    """The learner of one pack."""
    shared = inputs.get(Job(global_model.NAME, job.fold).name)
    budgets = fold_budgets(inputs, NAME) if data.is_final else None

    def make(days: TrainingData, before: Trained | None) -> LocalStack:
        held_out = shared is not None and not days.is_final
        weights = shared and ((shared.get("held_out") if held_out else None) or shared["weights"])  # of a trial one
        start = shared and restored(weights, global_model.NAME)
        return LocalStack(job, days, config, start, [before.budget] if before is not None else budgets)

    return StagedLearner(job, data, make, config.machine.device)


def load(folder: Path) -> NetworkForecaster:
    """The forecaster that was saved in a folder."""
    return load_files(NAME, folder, f"*_{NAME}_simple_best.pt")


def mean_epochs(budgets: list[dict[str, Any]], models: list[Model], usual: int, least: int) -> dict[Model, int]:
    """How long each model is trained: its mean over the folds, and that of all models where it has none."""
    known = pd.DataFrame({(number, symbol): epochs for number, budget in enumerate(budgets)
                          for symbol, epochs in budget["epochs"].items()})  # [members, (fold, symbol)]
    if not known.empty:
        usual, known = known.to_numpy().mean(), known.T.groupby(level=1).mean().T
    return {(symbol, member): max(least, round(float(known[symbol][member] if symbol in known else usual)))
            for symbol, member in models}


class LocalStack(StackLearner):
    """The networks of one pack of symbols."""

    def __init__(self, job: Job, data: TrainingData, config: RunConfig, start: NetworkForecaster | None = None,
                 budgets: list[dict[str, Any]] | None = None):
        panel, own, rows = data.panel, config.stockformer, data.panel.rows(job.symbols)
        models = [(symbol, member) for symbol in job.symbols for member in range(config.n_members)]
        n_labels = data.labels.values.shape[2]
        if start is None:
            settings, inputs = config.train, Inputs.fit_own(panel, data.train).select(rows)
            network = Stockformer(config.model, len(panel.feature_names), n_outputs(config.train.loss, n_labels))
            weights = torch.stack([network.initial_weights(config.seed, *model) for model in models])
        else:
            settings = config.train.shortened(epochs=own.epochs, patience=own.patience, warmup_epochs=0,
                                              learning_rate=config.train.learning_rate * own.learning_rate_share)
            inputs = start.inputs
            network = Stockformer(config.model, inputs.width(len(panel.feature_names)), n_labels)
            weights = start.weights[0].float().repeat(len(job.symbols), 1)  # [models, parameters]: member by member
        epochs_of = budgets and mean_epochs(budgets, models, settings.epochs, least=1 if start is None else 0)
        super().__init__(job, data, config, settings, inputs, rows, models, network, weights, epochs_of=epochs_of,
                         judges_start=start is not None)

    def _rate(self) -> float:
        """Constant within an epoch."""
        train = self.settings
        return warmup_cosine(train.learning_rate, self.epoch, 1, train.warmup_epochs, train.epochs)

    def _plan_of(self, model: Model, epoch: int) -> Plan:
        """In each epoch a model sees every one of its training days once: as positions of windows, or a window each."""
        row = self.job.symbols.index(model[0])
        days = np.flatnonzero(self._train_days[row])
        if not len(days):
            return NO_PLAN
        size, labelled = self.settings.windows_per_batch * self.settings.accumulate, self._labelled
        random = np.random.default_rng(stable_seed("order", self.config.seed, *model, epoch))
        if labelled > 1:  # windows tile the days from a random offset
            days = np.arange(days[0] + random.integers(labelled), days[-1] + labelled, labelled)
        parts = np.array_split(random.permutation(days), math.ceil(len(days) / size))  # no step rests on one window
        ends = np.full((len(parts), len(parts[0])), -1)
        for step, part in enumerate(parts):
            ends[step, : len(part)] = part
        return np.full_like(ends, row), ends

    @torch.no_grad()
    def _validate(self) -> list[float]:
        """1 - validation loss / that of a forecast without skill, which is 0; of each model in one causal pass."""
        labelled = self.config.model.look_back - self.config.model.min_context + 1
        days = np.flatnonzero(self.data.valid)  # the same windows whoever shares the pack
        ends = torch.arange(int(days[0]) + labelled - 1, int(days[-1]) + labelled, labelled, device=self.device)
        ends = ends.expand(len(self.models), -1)
        rows = [self.job.symbols.index(symbol) for symbol, _ in self.models]
        symbol = torch.tensor(rows, device=self.device).unsqueeze(1).expand_as(ends)
        output, target, weight = self._output(self.weights, symbol, ends, self._in_valid, None, labelled)
        name = self.settings.loss
        ours, unskilled = (loss_per_model(name, guess, target, weight) for guess in (output, torch.zeros_like(output)))
        known = weight.flatten(1).sum(1) > 0  # a symbol without validation days has no skill to speak of
        return torch.where(known, 1 - ours / unskilled.clamp(min=1e-12), torch.nan).tolist()

    def result(self) -> Trained:
        symbols = tuple(symbol for symbol in self.job.symbols if (symbol, 0) in self._done)
        if not symbols:
            return Trained(None, {}, self.history, {"epochs": {}}, dict(self._diverged))
        places = np.array([self.job.symbols.index(symbol) for symbol in symbols])
        forecaster = self._forecaster(symbols, symbols, self.inputs.select(places))
        rows = {symbol: {"best_epochs": self._best(symbol, 1), "skill": float(np.mean(self._best(symbol, 2)))}
                for symbol in symbols}
        budget = {"epochs": {symbol: row["best_epochs"] for symbol, row in rows.items()}}
        return Trained(forecaster, rows, self.history, budget, dict(self._diverged))
