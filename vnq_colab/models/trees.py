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
from vnq_colab.errors import ConfigError, DeliveryError, did_you_mean
from vnq_colab.models import base
from vnq_colab.models.blocks import as_tensor, check_block, columns_of, engine, margin_of
from vnq_colab.models.states import load_files
from vnq_colab.models.tree_rows import Growth, effects
from vnq_colab.settings import MachineConfig, OneOf, Real, Task, Whole

NAME = "trees"
SPACE = {"trees.leaves": Whole(15, 255, log=True), "trees.learning_rate": Real(0.01, 0.1, log=True),
         "trees.min_child_weight": Real(30, 3000, log=True), "trees.subsample": Real(0.2, 1),
         "trees.colsample": Real(0.1, 1), "trees.penalty": Real(0.1, 100, log=True),
         "trees.bins": OneOf(32, 64, 128, 256)}  # what `search` tries


def plan(task: Task, panel: Panel, folds: list[Splits], config: RunConfig, machine: MachineConfig) -> list[base.Job]:
    """One job for each fold, and the final fit. Raises ConfigError for a monotone feature that there is not."""
    for name in (text.removeprefix("-") for text in config.trees.monotone):
        if name not in panel.feature_names:
            raise ConfigError(f"trees.monotone: no feature {name!r}.{did_you_mean(name, panel.feature_names)}")
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

    Of a fold two stages grow: `search` on its training days, `fit` on all days before the test, as far as the search
    has come; on two cores at once. A final fit has `fit` alone, a trial `search` alone.
    """

    def __init__(self, job: base.Job, data: base.TrainingData, config: RunConfig, rounds: int | None = None):
        self.job, self.data, self.config, self.settings, self.rounds = job, data, config, config.trees, rounds
        engine()
        values = data.labels.values.mean(axis=2)  # [symbols, days]
        if data.task.target == "rank" or self.settings.objective != "regression":
            # in -1/2 to 1/2: on normal scores trees are no better, and slower
            values = np.nan_to_num(within_day_ranks(np.where(data.labels.known, values, np.nan))) / 2
        last = np.flatnonzero(data.train | data.valid)[-1]
        days = {} if data.is_final else {"search": data.train}
        days |= {} if data.is_trial else {"fit": np.arange(len(data.train)) <= last}
        threads = config.machine.threads or allowed_cores()
        self._at_once = len(days) > 1 and config.machine.device == "cpu" and allowed_cores() > 1
        self.stages = {stage: Growth(data.panel, data.labels.known & part, values, config,
                                     max(1, threads // 2) if self._at_once else threads)
                       for stage, part in days.items()}
        self._judged = data.labels.known[:, data.valid]  # [symbols, validation days]
        self._truth = np.where(self._judged, values[:, data.valid], np.nan)
        self._valid_x = data.panel.values[:, data.valid][self._judged]
        self._valid_margin = np.zeros(len(self._valid_x), "float32")
        self.skills: list[float] = []  # on the validation days, after each block of the search

    @property
    def finished(self) -> bool:
        return not self._lacking()

    def step(self) -> base.Progress:
        """One block of rounds, or one of each stage; of the search also the validation days' rank correlation."""
        lacking = self._lacking()
        with ThreadPoolExecutor(len(lacking), "trees") as threads:
            list(threads.map(lambda stage: self.stages[stage].grow(base.stable_seed(
                stage, self.config.seed, self.job.name, len(self.stages[stage].blocks)) % 2**31), lacking))
        if "search" in lacking:
            self._add_margin(self.stages["search"].blocks[-1])
            scores = np.full(self._truth.shape, np.nan)
            scores[self._judged] = self._valid_margin
            self.skills.append(rank_correlation(scores, self._truth))
        best, is_over = self._best()
        blocks = [len(growth.blocks) for growth in self.stages.values()]
        most = best if is_over else -(-self.settings.rounds // self.settings.block_rounds)
        left = sum(max(0, most - n) for n in blocks)
        words = f"{'held out' if 'search' in lacking else 'fit'}, {max(blocks) * self.settings.block_rounds} trees"
        return base.Progress(sum(blocks) / (sum(blocks) + left), words, {
            "skill": self.skills[-1], "at": blocks[0] * self.settings.block_rounds} if "search" in lacking else {})

    def _add_margin(self, raw: bytes) -> None:
        search = self.stages["search"]
        seen = self._valid_x[:, columns_of(self.data.panel, search.names)]
        self._valid_margin += margin_of(raw, seen, search.threads)

    def _lacking(self) -> list[str]:
        """The stages that lack a block: the search until it is over; beside it, or after it, the fit."""
        best, is_over = self._best()
        lacking = [] if is_over else ["search"]
        if "fit" in self.stages and (is_over or self._at_once) and len(self.stages["fit"].blocks) < best:
            lacking.append("fit")
        return lacking

    def _best(self) -> tuple[int, bool]:
        """How many blocks are best so far, at least those of `least_rounds`, and whether that is the last word."""
        n, settings = len(self.skills), self.settings
        if self.rounds is not None:
            return -(-self.rounds // settings.block_rounds), True
        best = least = max(1, -(-settings.least_rounds // settings.block_rounds))
        if n >= least:
            best += int(np.argmax(np.nan_to_num(self.skills[least - 1:], nan=-math.inf)))
        return best, n >= least and (n - best >= settings.patience or n * settings.block_rounds >= settings.rounds)

    def state_dict(self) -> dict[str, Any]:
        return {"skills": list(self.skills), "stages": {
            stage: {"names": list(growth.names), "blocks": [as_tensor(raw) for raw in growth.blocks]}
            for stage, growth in self.stages.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for stage, growth in self.stages.items():
            growth.load([raw.numpy().tobytes() for raw in state["stages"][stage]["blocks"]],
                        tuple(state["stages"][stage]["names"]))
        self.skills, self._valid_margin = list(state["skills"]), np.zeros_like(self._valid_margin)
        for raw in self.stages["search"].blocks if "search" in self.stages else ():
            self._add_margin(raw)

    def result(self) -> base.Trained:
        best, _ = self._best()
        *held_out, last = (TreesForecaster(self.data.panel.feature_names, self.job.symbols, growth.names,
                                           tuple(growth.blocks[:best]), engine().__version__)
                           for growth in self.stages.values())
        curves = [(base.EVERYONE, 0, (number + 1) * self.settings.block_rounds, math.nan, skill)
                  for number, skill in enumerate(self.skills)]
        budget = {"rounds": self.rounds or best * self.settings.block_rounds,
                  "effects": effects(self.config, last.names)}
        return base.Trained(last, {}, curves, budget, valid_forecaster=held_out[0] if held_out else None)


def allowed_cores() -> int:
    """The logical CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, repr=False, eq=False)
class TreesForecaster(base.Forecaster):
    """Blocks of trees in XGBoost's own binary JSON; a score is the sum of what they say."""

    feature_names: tuple[str, ...]  # of the panel that they were trained on
    symbols: tuple[str, ...]
    names: tuple[str, ...]  # of the features that they see; a panel may lack others
    blocks: tuple[bytes, ...]
    version: str  # of the XGBoost that trained them

    family, look_back = NAME, 1

    def select(self, symbols: tuple[str, ...]) -> "TreesForecaster":
        return replace(self, symbols=tuple(symbols))

    def check_features(self, panel: Panel) -> None:
        """Raises DeliveryError unless the panel has the features that the trees see; all, in order, if they see all."""
        if self.names == self.feature_names or not set(self.names) <= set(panel.feature_names):
            super().check_features(panel)

    def predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        self.check_features(panel)
        rows = panel.rows(self.symbols)
        present = panel.present[rows][:, origins]
        scores = np.zeros(present.shape)
        if present.any():
            values = panel.values[rows][:, origins][present][:, columns_of(panel, self.names)]
            try:
                scores[present] = sum(margin_of(raw, values) for raw in self.blocks)
            except engine().core.XGBoostError as error:
                raise DeliveryError(f"the trees were made by XGBoost {self.version}, and XGBoost "
                                    f"{engine().__version__} cannot read them. Install that version, or train "
                                    "again.") from error
        return make_scores(NAME, self.symbols, panel.days[origins], present, score=scores)

    def explain(self, panel: Panel, origins: np.ndarray, *, quick: bool = False) -> pd.DataFrame:
        """Exact Shapley values, from Lundberg et al. 2020, Nature Machine Intelligence 2; `quick`: Saabas 2014."""
        table, names = self.predict(panel, origins)[["symbol", "date"]], [*self.names, "bias"]
        values = panel.values[[*map(panel.symbols.index, table["symbol"])], panel.days.get_indexer(table["date"])]
        values = values[:, columns_of(panel, self.names)]

        def of(raw: bytes) -> np.ndarray:
            booster = engine().Booster({"nthread": 1}, model_file=bytearray(raw))
            return booster.predict(engine().DMatrix(values, nthread=1), pred_contribs=True, approx_contribs=quick)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # XGBoost holds no lock meanwhile
            parts = sum(pool.map(of, self.blocks))
        return table.join(pd.DataFrame(np.reshape(parts, (-1, len(names))), columns=names))

    def to_state(self) -> dict[str, Any]:
        return {"format": base.FORMAT, "feature_names": list(self.feature_names), "symbols": list(self.symbols),
                "names": list(self.names), "xgboost": self.version, "blocks": [as_tensor(raw) for raw in self.blocks]}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> "TreesForecaster":
        """The forecaster that `to_state` wrote down. Raises DeliveryError for a mangled block of trees."""
        known, blocks = tuple(state["feature_names"]), tuple(raw.numpy().tobytes() for raw in state["blocks"])
        names = tuple(state.get("names", known))  # not in files of 0.2.0
        if not blocks or not set(names) <= set(known):
            raise DeliveryError("the model has no trees, or of features that it does not name. Export again.")
        for raw in blocks:
            check_block(raw, len(names))
        return cls(known, tuple(state["symbols"]), names, blocks, str(state["xgboost"]))

    def digest(self) -> str:
        return hashlib.sha256(b"".join(self.blocks)).hexdigest()


FORECASTER = TreesForecaster
