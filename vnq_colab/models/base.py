"""One interface for every family: jobs that are planned, Learners that advance by safe steps, Forecasters that cannot.

A family is a module with three functions: `plan(task, panel, folds, config, machine) -> [Job]`, `learner(job, data,
config, inputs) -> Learner` and `load(folder) -> Forecaster`; its settings are a field of the run's config.
"""

import abc
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.labels import Labels
from vnq_colab.data.panel import Panel
from vnq_colab.errors import ConfigError, DeliveryError, did_you_mean
from vnq_colab.settings import Task

# name of a family: its module, imported when it is needed
FAMILIES = {"trees": "vnq_colab.models.trees", "global": "vnq_colab.models.global_model",
            "stockformer": "vnq_colab.models.stockformer"}


@dataclass(frozen=True)
class Job:
    """The unit of training, resume and distribution: one family × one fold (None: the final fit) × one pack."""

    family: str
    fold: int | None
    pack: int | None = None  # None: the family is not packed
    symbols: tuple[str, ...] = ()  # that it forecasts
    needs: tuple[str, ...] = ()  # names of the jobs whose results it begins from
    learning_rate_share: float = 1.0  # below 1: the second try of symbols that diverged

    @property
    def name(self) -> str:
        """Its file below `done/`: "trees_fold1", "stockformer_final_pack02"."""
        fold = "final" if self.fold is None else f"fold{self.fold + 1}"
        return f"{self.family}_{fold}" + ("" if self.pack is None else f"_pack{self.pack:02d}")


@dataclass(frozen=True)
class TrainingData:
    """What a job learns from. Every stock of the data is there; `job.symbols` are those that it forecasts."""

    panel: Panel
    labels: Labels
    train: np.ndarray  # [days] bool
    valid: np.ndarray  # [days] bool, none in a final fit
    task: Task

    @property
    def is_final(self) -> bool:
        return not self.valid.any()


@dataclass(frozen=True)
class Progress:
    """Where a learner stands after a step."""

    share: float  # [fraction] of the job that is done, as far as known: early stopping makes it jump
    words: str  # where it stands, e.g. "epoch 3"
    measured: dict[str, float] = field(default_factory=dict)  # by name: losses, rank_correlation, evaluation_seconds


@dataclass(frozen=True)
class Trained:
    """The result of a job."""

    forecaster: "Forecaster | None"  # None: every symbol failed
    rows: dict[str, dict[str, Any]]  # of the ledger, by symbol
    curves: list[tuple]  # (symbol or "*", member, epoch or rounds, train_loss, skill)
    budget: dict[str, Any]  # what the final fit needs to know: epochs or rounds
    failed: dict[str, str] = field(default_factory=dict)  # symbols that diverged, each with a sentence
    valid_forecaster: "Forecaster | None" = None  # for the validation days, where the other has learnt from them


class Learner(abc.ABC):
    """One job being trained. After each `step` it is safe to stop, save and go on later, bit for bit."""

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """True when there is nothing left to learn."""

    @abc.abstractmethod
    def step(self) -> Progress:
        """Advances by one optimizer step, or one block of boosting rounds."""

    @abc.abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on bit for bit: tensors and plain values only."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to a saved state."""

    @abc.abstractmethod
    def result(self) -> Trained:
        """What has been learnt, once it is finished."""


class Forecaster(abc.ABC):
    """What is validated, exported and deployed."""

    family: str
    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    look_back: int  # [days] of the panel that a forecast needs

    @abc.abstractmethod
    def predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        """Family, symbol, date and score of its symbols at the days marked in `origins [days]` bool.

        The panel holds every stock of the data: what a feature is worth may depend on the others. A symbol that is
        absent on a day gives no row. With `mean, scale, p_up` where the family has its own.
        """

    @abc.abstractmethod
    def select(self, symbols: tuple[str, ...]) -> "Forecaster":
        """The same for some of its symbols."""

    @abc.abstractmethod
    def to_state(self) -> dict[str, Any]:
        """All of it as tensors and plain values: what a job's file keeps."""

    @abc.abstractmethod
    def save(self, folder: Path, facts: dict[str, Any]) -> list[Path]:
        """Writes its files, each with `facts`; gives back their paths."""

    @abc.abstractmethod
    def digest(self) -> str:
        """Hex sha256 of what was learnt, at the exported precision."""

    def check_features(self, panel: Panel, code_version: str = "unknown") -> None:
        """Raises DeliveryError unless the panel has the features that it was trained on, in their order."""
        if tuple(panel.feature_names) == self.feature_names:
            return
        missing = [name for name in self.feature_names if name not in panel.feature_names]
        added = [name for name in panel.feature_names if name not in self.feature_names]
        told = [f"it was trained on {', '.join(missing)}, which this code does not compute"] if missing else []
        told += [f"this code computes {', '.join(added)}, which it does not know"] if added else []
        told = told or ["the same features stand in another order"]
        raise DeliveryError(f"the model and the code differ in features: {'; '.join(told)}. Use the version of the "
                            f"library that exported it ({code_version}), or train again.")


def family_module(name: str) -> ModuleType:
    """The module of a family, imported now. Raises ConfigError for an unknown one."""
    if name not in FAMILIES:
        raise ConfigError(f"there is no family {name!r}.{did_you_mean(name, FAMILIES)}")
    return importlib.import_module(FAMILIES[name])


def final_budget(inputs: dict[str, dict[str, Any]], family: str) -> list[dict[str, Any]]:
    """The budgets that the finished folds of a family found, oldest first."""
    return [state["budget"] for name, state in inputs.items() if name.startswith(f"{family}_fold")]


def restored(state: dict[str, Any], family: str, device: str = "cpu") -> Forecaster:
    """The forecaster that a job's file keeps."""
    return family_module(family).FORECASTER.from_state(state, device)
