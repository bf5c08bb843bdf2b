"""The family `trees`: gradient boosting over all stocks and days, on the last day's features, to within-day ranks.

A step is a block of rounds: a booster of its own, with a seed of its own, on the margin of those before. So a run that
was killed between two blocks comes out with the same bits as one that was not, and a block costs the same however many
went before. Going on inside one booster would draw other rows and features after a kill.

First the number of rounds is searched with the validation days held out; then the trees are fitted anew, as many, on
all days before the test: the newest year is worth more than what stopping early saves (EXPERIMENTS, 2026-11-28).
"""

import hashlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_scores
from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.labels import rank_correlation
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits
from vnq_colab.errors import ConfigError, DeliveryError
from vnq_colab.models.base import Forecaster, Job, Learner, Progress, Trained, TrainingData, final_budget
from vnq_colab.models.global_model import EVERYONE
from vnq_colab.models.network_forecaster import FORMAT, read_model, write_model
from vnq_colab.models.stacked import stable_seed
from vnq_colab.settings import MachineConfig, Task

NAME = "trees"
FILE = "trees.pt"


def plan(task: Task, panel: Panel, folds: list[Splits], config: RunConfig, machine: MachineConfig) -> list[Job]:
    """One job for each fold, and the final fit."""
    symbols = tuple(config.symbols or panel.symbols)
    jobs = [Job(NAME, fold, symbols=symbols) for fold in range(len(folds))]
    return [*jobs, Job(NAME, None, symbols=symbols, needs=tuple(job.name for job in jobs))]


def learner(job: Job, data: TrainingData, config: RunConfig, inputs: dict[str, dict[str, Any]]) -> "TreesLearner":
    """The learner of one job."""
    rounds = None
    if data.is_final:
        rounds = max(1, round(float(np.median([budget["rounds"] for budget in final_budget(inputs, NAME)]))))
    return TreesLearner(job, data, config, rounds)


def load(folder: Path) -> "TreesForecaster":
    """The forecaster that was exported into a folder."""
    return TreesForecaster.from_state(read_model(Path(folder) / FILE))


def engine() -> ModuleType:
    """XGBoost. Raises ConfigError with the command that installs it."""
    try:
        import xgboost
    except ImportError:
        raise ConfigError("XGBoost is needed for the family trees. Install it with: pip install xgboost-cpu (on a "
                          "machine with a GPU: pip install xgboost), or train without it: --families "
                          "stockformer,global.") from None
    return xgboost


class TreesLearner(Learner):
    """Blocks of trees, with early stop on the rank correlation of the validation days; `rounds` in a final fit."""

    def __init__(self, job: Job, data: TrainingData, config: RunConfig, rounds: int | None):
        self.job, self.data, self.config, self.settings = job, data, config, config.trees
        values = data.labels.values.mean(axis=2)  # [symbols, days]
        self._labels = ordered = to_ranks(values, data.labels.known) if data.task.target == "rank" else values
        self._judged = data.labels.known & data.valid
        self._truth = np.where(self._judged, ordered, np.nan)
        self.rounds = rounds  # None: still searched
        self.search: list[bytes] = []  # the blocks of the search, up to the best
        self.blocks: list[bytes] = []  # of the stage that goes on now
        self.skills: list[float] = []  # on the validation days, after each block of the search
        self._begin()

    def _begin(self) -> None:
        """The rows of the present stage, with the margins of the blocks that are there."""
        days = self.data.train
        if self.rounds is not None and not self.data.is_final:  # all days before the test
            days = np.arange(len(days)) <= np.flatnonzero(self.data.valid)[-1]
        rows = self.data.labels.known & days
        values = self.data.panel.values
        self._x, self._margin = values[rows], np.zeros(int(rows.sum()), dtype="float32")
        self._matrix = engine().QuantileDMatrix(self._x, label=self._labels[rows], max_bin=self.settings.bins,
                                                nthread=self._threads)
        searches = self.rounds is None
        self._valid_x = values[self._judged] if searches else None
        self._valid_margin = np.zeros(len(self._valid_x) if searches else 0, dtype="float32")
        for raw in self.blocks:  # the same sums in the same order as when they were trained
            self._margin += margin_of(raw, self._x, self._threads)
            if searches:
                self._valid_margin += margin_of(raw, self._valid_x, self._threads)

    @property
    def _threads(self) -> int:
        return self.config.machine.threads or torch.get_num_threads()

    @property
    def finished(self) -> bool:
        return self.rounds is not None and len(self.blocks) * self.settings.block_rounds >= self.rounds

    def step(self) -> Progress:
        """One block of rounds, and in the search a look at the validation days."""
        number, searches = len(self.blocks), self.rounds is None
        stage = "search" if searches else "fit"
        self._matrix.set_base_margin(self._margin)
        booster = engine().train(self._parameters(stage, number), self._matrix, self.settings.block_rounds,
                                 verbose_eval=False)
        raw = bytes(booster.save_raw("ubj"))
        self.blocks.append(raw)
        self._margin += margin_of(raw, self._x, self._threads)
        trees, measured = len(self.blocks) * self.settings.block_rounds, {}
        if searches:
            self._valid_margin += margin_of(raw, self._valid_x, self._threads)
            scores = np.full(self._truth.shape, np.nan)
            scores[self._judged] = self._valid_margin
            self.skills.append(rank_correlation(scores, self._truth))
            measured = {"skill": self.skills[-1]}
            if (best := self._best()) is not None:
                self.rounds, self.search, self.blocks = best * self.settings.block_rounds, self.blocks[:best], []
                self._begin()
        share = 0.5 * trees / self.settings.rounds if searches else (
            (0.0 if self.data.is_final else 0.5) + (1.0 if self.data.is_final else 0.5) * trees / self.rounds)
        return Progress(1.0 if self.finished else min(share, 1.0), f"{stage}, {trees} trees", measured)

    def _best(self) -> int | None:
        """How many blocks are best, once the search is over; None while it goes on."""
        least = max(1, -(-self.settings.least_rounds // self.settings.block_rounds))
        if len(self.skills) < least:
            return None
        best = least + int(np.nanargmax(np.nan_to_num(self.skills[least - 1:], nan=-math.inf)))
        is_over = (len(self.skills) - best >= self.settings.patience
                   or len(self.skills) * self.settings.block_rounds >= self.settings.rounds)
        return best if is_over else None

    def _parameters(self, stage: str, number: int) -> dict[str, Any]:
        settings, seed = self.settings, stable_seed(stage, self.config.seed, self.job.name, number)
        return {
            "objective": "reg:squarederror", "base_score": 0.0, "tree_method": "hist", "grow_policy": "lossguide",
            "max_depth": 0, "max_leaves": settings.leaves, "eta": settings.learning_rate,
            "min_child_weight": settings.min_child_weight, "subsample": settings.subsample,
            "colsample_bynode": settings.colsample, "lambda": settings.penalty, "max_bin": settings.bins,
            "nthread": self._threads, "seed": seed % 2**31, "device": self.config.machine.device, "verbosity": 0,
        }

    def state_dict(self) -> dict[str, Any]:
        return {"rounds": self.rounds, "skills": list(self.skills), "search": [as_tensor(raw) for raw in self.search],
                "blocks": [as_tensor(raw) for raw in self.blocks]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rounds, self.skills = state["rounds"], list(state["skills"])
        self.search, self.blocks = ([raw.numpy().tobytes() for raw in state[name]] for name in ("search", "blocks"))
        self._begin()

    def result(self) -> Trained:
        names, version = tuple(self.data.panel.feature_names), engine().__version__
        made, held_out = (TreesForecaster(names, self.job.symbols, tuple(blocks), version)
                          for blocks in (self.blocks, self.search))
        curves = [(EVERYONE, 0, (number + 1) * self.settings.block_rounds, math.nan, skill)
                  for number, skill in enumerate(self.skills)]
        return Trained(made, {}, curves, {"rounds": self.rounds}, valid_forecaster=held_out if self.search else None)


class TreesForecaster(Forecaster):
    """Blocks of trees in XGBoost's own binary JSON; a score is the sum of what they say."""

    family, look_back = NAME, 1

    def __init__(self, feature_names: tuple[str, ...], symbols: tuple[str, ...], blocks: tuple[bytes, ...],
                 version: str):
        self.feature_names, self.symbols, self._blocks, self._version = feature_names, symbols, blocks, version

    def select(self, symbols: tuple[str, ...]) -> "TreesForecaster":
        return TreesForecaster(self.feature_names, tuple(symbols), self._blocks, self._version)

    def predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        self.check_features(panel)
        rows = [panel.symbols.index(symbol) for symbol in self.symbols]
        present = panel.present[rows][:, origins]
        scores = np.zeros(present.shape)
        if present.any():
            values = panel.values[rows][:, origins][present]
            try:
                scores[present] = sum(margin_of(raw, values) for raw in self._blocks)
            except engine().core.XGBoostError as error:
                raise DeliveryError(f"the trees were made by XGBoost {self._version}, and XGBoost "
                                    f"{engine().__version__} cannot read them. Install that version, or train "
                                    "again.") from error
        return make_scores(NAME, self.symbols, panel.days[origins], present, score=scores)

    def to_state(self) -> dict[str, Any]:
        return {"format": FORMAT, "feature_names": list(self.feature_names), "symbols": list(self.symbols),
                "xgboost": self._version, "blocks": [as_tensor(raw) for raw in self._blocks]}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> "TreesForecaster":
        """The forecaster that `to_state` wrote down."""
        return cls(tuple(state["feature_names"]), tuple(state["symbols"]),
                   tuple(raw.numpy().tobytes() for raw in state["blocks"]), state["xgboost"])

    def save(self, folder: Path, facts: dict[str, Any]) -> list[Path]:
        return [write_model(Path(folder) / FILE, self.to_state() | facts)]

    def digest(self) -> str:
        digest = hashlib.sha256()
        for raw in self._blocks:
            digest.update(raw)
        return digest.hexdigest()


def margin_of(raw: bytes, values: np.ndarray, threads: int = 0) -> np.ndarray:
    """`[rows, features] -> [rows]` float32: what one block of trees adds to a score."""
    booster = engine().Booster({"nthread": threads} if threads else {}, model_file=bytearray(raw))
    return booster.inplace_predict(values, predict_type="margin")


def to_ranks(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`[symbols, days]`: labels as within-day ranks, -1/2 to 1/2: on normal scores trees are no better, and slower."""
    return np.nan_to_num(within_day_ranks(np.where(known, values, np.nan))) / 2


def as_tensor(raw: bytes) -> torch.Tensor:
    """Bytes as a tensor, which a file of tensors and plain values can hold."""
    return torch.from_numpy(np.frombuffer(raw, dtype="uint8").copy())


FORECASTER = TreesForecaster
