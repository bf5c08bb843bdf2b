"""The family `trees`: gradient boosting over all stocks and days, on the last day's features, to within-day ranks.

A step is a block of rounds: a booster of its own, with a seed of its own, on the margin of those before, so that a run
that was killed between two blocks comes out with the same bits as one that was not.
"""

import hashlib
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_scores, rank_correlation
from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits
from vnq_colab.errors import DeliveryError
from vnq_colab.models import base
from vnq_colab.models.blocks import as_tensor, check_block, engine, margin_of
from vnq_colab.models.states import load_files
from vnq_colab.models.tree_rows import Growth
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
            inputs: dict[str, dict[str, Any]]) -> base.Learner:
    """As many rounds as are best on the validation days; in a final fit the median of the folds' rounds."""
    budgets = [budget["rounds"] for budget in base.fold_budgets(inputs, NAME)]
    return TreesLearner(job, data, config, max(1, round(float(np.median(budgets)))) if data.is_final else None)


def load(folder: Path) -> base.Forecaster:
    """The forecaster that was saved in a folder."""
    return load_files(NAME, folder, f"{NAME}.pt")


class TreesLearner(base.Learner):
    """Blocks of trees, `rounds` in all; None: until the rank correlation of the validation days rises no more.

    Of a fold two grow: `search` on its training days, `fit` on all days before the test, as far as the best of the
    search is known; on two cores at once. A final fit has `fit` alone, a trial `search` alone.
    """

    def __init__(self, job: base.Job, data: base.TrainingData, config: RunConfig, rounds: int | None = None):
        self.job, self.data, self.config, self.settings, self.rounds = job, data, config, config.trees, rounds
        engine()
        values = data.labels.values.mean(axis=2)  # [symbols, days]
        if data.task.target == "rank":  # in -1/2 to 1/2: on normal scores trees are no better, and slower
            values = np.nan_to_num(within_day_ranks(np.where(data.labels.known, values, np.nan))) / 2
        before_test = np.arange(len(data.valid)) <= np.flatnonzero(data.train | data.valid)[-1]
        self._has_two = not (data.is_final or data.is_trial)
        threads = config.machine.threads or allowed_cores()
        self._at_once = self._has_two and config.machine.device == "cpu" and allowed_cores() > 1
        grows = [Growth(data.panel, data.labels.known & days, values, self.settings,
                        max(1, threads // 2) if self._at_once else threads)
                 for days in (before_test if data.is_final else data.train, before_test)]
        self.search, self.fit = None if data.is_final else grows[0], None if data.is_trial else grows[1]
        days = np.flatnonzero(data.valid)
        self._judged = data.labels.known[:, days]  # [symbols, validation days]
        self._truth = np.where(self._judged, values[:, days], np.nan)
        self._valid_x = data.panel.values[:, days][self._judged]
        self._valid_margin = np.zeros(len(self._valid_x), "float32")
        self.skills: list[float] = []  # on the validation days, after each block of the search

    @property
    def finished(self) -> bool:
        best = self._n_best()
        return best is not None and (self.fit is None or len(self.fit.blocks) >= best)

    def step(self) -> base.Progress:
        """One block of rounds, or one of each stage; of the search also the validation days' rank correlation."""
        best, grows = self._n_best(), {}
        if best is None:
            grows["search"] = self.search
        if best is not None or (self._at_once and len(self.fit.blocks) < self._leading()):
            grows["fit"] = self.fit
        tasks = [(growth, self._parameters(stage, len(growth.blocks))) for stage, growth in grows.items()]
        with ThreadPoolExecutor(len(tasks), "trees") as threads:
            for done in [threads.submit(growth.grow, parameters) for growth, parameters in tasks]:
                done.result()
        if "search" in grows:
            self.skills.append(self._judged_with(self.search.blocks[-1]))
        n_trees = max(len(growth.blocks) for growth in grows.values()) * self.settings.block_rounds
        done = sum(len(growth.blocks) for growth in (self.search, self.fit) if growth)
        return base.Progress(1.0 if self.finished else min(done / self._n_expected(), 1.0),
                             f"{'held out' if 'search' in grows else 'fit'}, {n_trees} trees",
                             {"skill": self.skills[-1], "at": n_trees} if "search" in grows else {})

    def _judged_with(self, raw: bytes) -> float:
        """The rank correlation of the validation days, with one more block of the search."""
        self._valid_margin += margin_of(raw, self._valid_x, self.search.threads)
        scores = np.full(self._truth.shape, np.nan)
        scores[self._judged] = self._valid_margin
        return rank_correlation(scores, self._truth)

    @property
    def _least(self) -> int:
        return max(1, -(-self.settings.least_rounds // self.settings.block_rounds))

    def _leading(self) -> int:
        """How many blocks are best so far, or will be asked for at least."""
        skills = self.skills[self._least - 1:]
        return self._least + (int(np.nanargmax(np.nan_to_num(skills, nan=-math.inf))) if skills else 0)

    def _n_best(self) -> int | None:
        """How many blocks are best, once the search is over; None while it goes on."""
        if self.search is None:
            return -(-self.rounds // self.settings.block_rounds)
        n, best = len(self.skills), self._leading()
        is_over = n >= self._least and (n - best >= self.settings.patience
                                        or n * self.settings.block_rounds >= self.settings.rounds)
        return best if is_over else None

    def _n_expected(self) -> int:
        """Blocks in all, at most while the search goes on."""
        most, best = -(-self.settings.rounds // self.settings.block_rounds), self._n_best()
        if self.search is None:
            return best
        n_fit = 0 if self.fit is None else most if best is None else best
        return (most if best is None else len(self.skills)) + n_fit

    def _parameters(self, stage: str, number: int) -> dict[str, Any]:
        settings = self.settings
        return {
            "objective": "reg:squarederror", "base_score": 0.0, "tree_method": "hist", "grow_policy": "lossguide",
            "max_depth": 0, "max_leaves": settings.leaves, "eta": settings.learning_rate,
            "min_child_weight": settings.min_child_weight, "subsample": settings.subsample,
            "colsample_bynode": settings.colsample, "lambda": settings.penalty, "max_bin": settings.bins,
            "seed": base.stable_seed(stage, self.config.seed, self.job.name, number) % 2**31,
            "device": self.config.machine.device, "verbosity": 0,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"skills": list(self.skills)} | {
            stage: [as_tensor(raw) for raw in growth.blocks] for stage, growth in self._stages()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for stage, growth in self._stages():
            growth.load([raw.numpy().tobytes() for raw in state[stage]])
        self.skills = list(state["skills"])
        self._valid_margin = np.zeros_like(self._valid_margin)
        for raw in self.search.blocks if self.search else ():
            self._valid_margin += margin_of(raw, self._valid_x, self.search.threads)

    def _stages(self) -> list[tuple[str, Growth]]:
        return [(stage, growth) for stage, growth in (("search", self.search), ("fit", self.fit)) if growth]

    def result(self) -> base.Trained:
        best, symbols = self._n_best(), self.job.symbols
        search, fit = (growth and TreesForecaster(tuple(self.data.panel.feature_names), symbols,
                                                  tuple(growth.blocks[:best]), engine().__version__)
                       for growth in (self.search, self.fit))
        curves = [(base.EVERYONE, 0, (number + 1) * self.settings.block_rounds, math.nan, skill)
                  for number, skill in enumerate(self.skills)]
        return base.Trained(fit or search, {}, curves, {"rounds": self.rounds or best * self.settings.block_rounds},
                            valid_forecaster=search if fit else None)


def allowed_cores() -> int:
    """The logical CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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

    def explain(self, panel: Panel, origins: np.ndarray, *, quick: bool = False) -> pd.DataFrame:
        """Exact Shapley values, from Lundberg et al. 2020, Nature Machine Intelligence 2; `quick`: Saabas 2014."""
        table, names = self.predict(panel, origins)[["symbol", "date"]], [*self.feature_names, "bias"]
        matrix = engine().DMatrix(panel.values[[*map(panel.symbols.index, table["symbol"])],
                                               panel.days.get_indexer(table["date"])])
        parts = sum(engine().Booster(model_file=bytearray(raw)).predict(
            matrix, pred_contribs=True, approx_contribs=quick) for raw in self.blocks)
        return table.join(pd.DataFrame(np.reshape(parts, (-1, len(names))), columns=names))

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
