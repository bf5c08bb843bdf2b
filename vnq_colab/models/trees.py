"""The family `trees`: gradient boosting over all stocks and days, on the last day's features, to within-day ranks.

A step is a block of rounds: a booster of its own, with a seed of its own, on the margin of those before, so that a run
that was killed between two blocks comes out with the same bits as one that was not.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_scores, rank_correlation
from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits
from vnq_colab.errors import DeliveryError
from vnq_colab.models import base
from vnq_colab.models.blocks import as_tensor, check_block, engine, margin_of
from vnq_colab.models.states import load_files
from vnq_colab.settings import MachineConfig, OneOf, Real, Task, Whole

NAME = "trees"
SPACE = {"trees.leaves": Whole(15, 255, log=True), "trees.learning_rate": Real(0.01, 0.1, log=True),
         "trees.min_child_weight": Real(30, 3000, log=True), "trees.subsample": Real(0.2, 1),
         "trees.colsample": Real(0.1, 1), "trees.penalty": Real(0.1, 100, log=True),
         "trees.bins": OneOf(32, 64, 128, 256)}  # what `search` tries


def plan(task: Task, panel: Panel, folds: list[Splits], config: RunConfig, machine: MachineConfig) -> list[base.Job]:
    """One job for each fold, and the final fit."""
    return base.jobs_by_fold(NAME, panel, folds, config.symbols)


def learner(job: base.Job, data: base.TrainingData, config: RunConfig,
            inputs: dict[str, dict[str, Any]]) -> base.StagedLearner:
    """As many rounds as are best on the validation days; in a final fit the median of the folds' rounds."""
    def make(days: base.TrainingData, held_out: base.Trained | None) -> TreesLearner:
        budgets = base.fold_budgets(inputs, NAME) if held_out is None else [held_out.budget]
        rounds = max(1, round(float(np.median([budget["rounds"] for budget in budgets])))) if days.is_final else None
        return TreesLearner(job, days, config, rounds)

    return base.StagedLearner(job, data, make)


def load(folder: Path) -> base.Forecaster:
    """The forecaster that was saved in a folder."""
    return load_files(NAME, folder, f"{NAME}.pt")


class TreesLearner(base.Learner):
    """Blocks of trees, `rounds` in all; None: until the rank correlation of the validation days rises no more."""

    def __init__(self, job: base.Job, data: base.TrainingData, config: RunConfig, rounds: int | None):
        self.job, self.data, self.config, self.settings, self.rounds = job, data, config, config.trees, rounds
        values = data.labels.values.mean(axis=2)  # [symbols, days]
        if data.task.target == "rank":  # in -1/2 to 1/2: on normal scores trees are no better, and slower
            values = np.nan_to_num(within_day_ranks(np.where(data.labels.known, values, np.nan))) / 2
        rows, self._judged = data.labels.known & data.train, data.labels.known & data.valid
        self._truth = np.where(self._judged, values, np.nan)
        self._x, self._valid_x = data.panel.values[rows], data.panel.values[self._judged]
        self._matrix = engine().QuantileDMatrix(self._x, label=values[rows], max_bin=self.settings.bins,
                                                nthread=self._threads)
        self.blocks: list[bytes] = []
        self.skills: list[float] = []  # on the validation days, after each block
        self._add_margins()

    def _add_margins(self) -> None:
        """The sums of all blocks, in the order in which they were trained."""
        self._margin, self._valid_margin = (np.zeros(len(x), dtype="float32") for x in (self._x, self._valid_x))
        for raw in self.blocks:
            self._add_margin(raw)

    def _add_margin(self, raw: bytes) -> None:
        check_block(raw, self._x.shape[1])
        self._margin += margin_of(raw, self._x, self._threads)
        if self.rounds is None:
            self._valid_margin += margin_of(raw, self._valid_x, self._threads)

    @property
    def _threads(self) -> int:
        return self.config.machine.threads or torch.get_num_threads()

    @property
    def finished(self) -> bool:
        if self.rounds is None:
            return self._n_best() is not None
        return len(self.blocks) * self.settings.block_rounds >= self.rounds

    def step(self) -> base.Progress:
        """One block of rounds; while their number is searched also the rank correlation of the validation days."""
        self._matrix.set_base_margin(self._margin)
        booster = engine().train(self._parameters(), self._matrix, self.settings.block_rounds, verbose_eval=False)
        self.blocks.append(bytes(booster.save_raw("ubj")))
        self._add_margin(self.blocks[-1])
        measured, n_trees = {}, len(self.blocks) * self.settings.block_rounds
        if self.rounds is None:
            scores = np.full(self._truth.shape, np.nan)
            scores[self._judged] = self._valid_margin
            self.skills.append(rank_correlation(scores, self._truth))
            measured = {"skill": self.skills[-1]}
        share = 1.0 if self.finished else min(n_trees / (self.rounds or self.settings.rounds), 1.0)
        return base.Progress(share, f"{n_trees} trees", measured)

    def _n_best(self) -> int | None:
        """How many blocks are best, once the search is over; None while it goes on."""
        least = max(1, -(-self.settings.least_rounds // self.settings.block_rounds))
        if len(self.skills) < least:
            return None
        best = least + int(np.nanargmax(np.nan_to_num(self.skills[least - 1:], nan=-math.inf)))
        is_over = (len(self.skills) - best >= self.settings.patience
                   or len(self.skills) * self.settings.block_rounds >= self.settings.rounds)
        return best if is_over else None

    def _parameters(self) -> dict[str, Any]:
        settings, stage = self.settings, "fit" if self.rounds else "search"
        seed = base.stable_seed(stage, self.config.seed, self.job.name, len(self.blocks))
        return {
            "objective": "reg:squarederror", "base_score": 0.0, "tree_method": "hist", "grow_policy": "lossguide",
            "max_depth": 0, "max_leaves": settings.leaves, "eta": settings.learning_rate,
            "min_child_weight": settings.min_child_weight, "subsample": settings.subsample,
            "colsample_bynode": settings.colsample, "lambda": settings.penalty, "max_bin": settings.bins,
            "nthread": self._threads, "seed": seed % 2**31, "device": self.config.machine.device, "verbosity": 0,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"skills": list(self.skills), "blocks": [as_tensor(raw) for raw in self.blocks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skills, self.blocks = list(state["skills"]), [raw.numpy().tobytes() for raw in state["blocks"]]
        self._add_margins()

    def result(self) -> base.Trained:
        blocks = self.blocks[:self._n_best()] if self.rounds is None else self.blocks
        forecaster = TreesForecaster(tuple(self.data.panel.feature_names), self.job.symbols, tuple(blocks),
                                     engine().__version__)
        curves = [(base.EVERYONE, 0, (number + 1) * self.settings.block_rounds, math.nan, skill)
                  for number, skill in enumerate(self.skills)]
        return base.Trained(forecaster, {}, curves, {"rounds": self.rounds or len(blocks) * self.settings.block_rounds})


@dataclass(frozen=True, repr=False, eq=False)
class TreesForecaster(base.Forecaster):
    """Blocks of trees in XGBoost's own binary JSON; a score is the sum of what they say."""

    feature_names: tuple[str, ...]
    symbols: tuple[str, ...]
    blocks: tuple[bytes, ...]
    version: str  # of the XGBoost that trained them

    family, look_back = NAME, 1

    def select(self, symbols: tuple[str, ...]) -> "TreesForecaster":
        return replace(self, symbols=tuple(symbols))

    def predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        self.check_features(panel)
        rows = panel.rows(self.symbols)
        present = panel.present[rows][:, origins]
        scores = np.zeros(present.shape)
        if present.any():
            values = panel.values[rows][:, origins][present]
            try:
                scores[present] = sum(margin_of(raw, values) for raw in self.blocks)
            except engine().core.XGBoostError as error:
                raise DeliveryError(f"the trees were made by XGBoost {self.version}, and XGBoost "
                                    f"{engine().__version__} cannot read them. Install that version, or train "
                                    "again.") from error
        return make_scores(NAME, self.symbols, panel.days[origins], present, score=scores)

    def to_state(self) -> dict[str, Any]:
        return {"format": base.FORMAT, "feature_names": list(self.feature_names), "symbols": list(self.symbols),
                "xgboost": self.version, "blocks": [as_tensor(raw) for raw in self.blocks]}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> "TreesForecaster":
        """The forecaster that `to_state` wrote down. Raises DeliveryError for a mangled block of trees."""
        names, blocks = tuple(state["feature_names"]), tuple(raw.numpy().tobytes() for raw in state["blocks"])
        if not blocks:
            raise DeliveryError("the model has no trees. Export again.")
        for raw in blocks:
            check_block(raw, len(names))
        return cls(names, tuple(state["symbols"]), blocks, str(state["xgboost"]))

    def digest(self) -> str:
        return hashlib.sha256(b"".join(self.blocks)).hexdigest()


FORECASTER = TreesForecaster
