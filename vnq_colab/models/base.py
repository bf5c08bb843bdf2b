"""One interface for every family: jobs that are planned, Learners that advance by safe steps, Forecasters that cannot.

A family is a module with three functions, `plan(task, panel, folds, config, machine) -> [Job]`, `learner(job, data,
config, inputs) -> Learner` and `load(folder) -> Forecaster`, and its class of Forecaster as `FORECASTER`; its settings
are a field of the run's config. tests/own_family.py is a whole one in sixty lines.
"""

import abc
import hashlib
import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from vnq_colab.data.forecast import Labels
from vnq_colab.data.panel import Panel
from vnq_colab.errors import ConfigError, DeliveryError, VnqError, did_you_mean, shorten
from vnq_colab.files import write_atomic
from vnq_colab.settings import Task

FORMAT = 2  # of an exported file
EVERYONE = "*"  # where a symbol's name would stand, of a model of all symbols

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
    learning_rate_share: float = 1.0  # below 1: of symbols that diverged and are tried again

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
    is_trial: bool = False  # of a search: of a fold only what has not seen its validation days is learnt

    @property
    def is_final(self) -> bool:
        return not self.valid.any()


@dataclass(frozen=True)
class Progress:
    """Where a learner stands after a step."""

    share: float  # [fraction] of the job that is done, as far as known: early stopping makes it jump
    words: str  # where it stands, e.g. "epoch 3"
    measured: dict[str, float] = field(default_factory=dict)  # losses, skill, at (tree or epoch), evaluation_seconds


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
        """Whether nothing is to be learnt any more."""

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


class StagedLearner(Learner):
    """Two stages of a fold: a learner that has not seen its validation days, then one that forecasts its test days.

    The first one's forecasts of the validation days are out of sample: they calibrate, and say how long to train. The
    second learns from all days before the test. A final fit has one stage, and so has a trial of a search: the first.
    `make(data, result of the stage before)` makes each.
    """

    def __init__(self, job: Job, data: TrainingData, make: "Callable[[TrainingData, Trained | None], Learner]",
                 device: str = "cpu"):
        self.job, self.data, self.device, self._make = job, data, device, make
        self.held_out: Trained | None = None  # the result of the first stage
        self.stage = make(data, None)
        self._go_on()

    @property
    def _is_last(self) -> bool:
        return self.data.is_final or self.data.is_trial or self.held_out is not None

    @property
    def finished(self) -> bool:
        return self.stage.finished and self._is_last

    def step(self) -> Progress:
        was_last = self._is_last
        progress = self.stage.step()
        self._go_on()
        has_one = self.data.is_final or self.data.is_trial
        share = progress.share if has_one else 0.5 * (progress.share + was_last)
        return replace(progress, share=1.0 if self.finished else share,
                       words=f"{'fit' if was_last and not self.data.is_trial else 'held out'}, {progress.words}")

    def _go_on(self) -> None:
        """From the first stage to the second, once that is finished."""
        if self.stage.finished and not self._is_last:
            self._begin_second(self.stage.result())

    def _begin_second(self, held_out: Trained) -> None:
        self.held_out = held_out
        if held_out.forecaster is not None:
            before_test = np.arange(len(self.data.valid)) <= np.flatnonzero(self.data.valid)[-1]
            self.stage = self._make(replace(self.data, train=before_test, valid=np.zeros_like(before_test)), held_out)

    def state_dict(self) -> dict[str, Any]:
        held_out = self.held_out and {
            "forecaster": self.held_out.forecaster and self.held_out.forecaster.to_state(),
            **{name: getattr(self.held_out, name) for name in ("rows", "curves", "budget", "failed")}}
        return {"held_out": held_out, "stack": self.stage.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (first := state["held_out"]) is not None:
            forecaster = first["forecaster"] and restored(first["forecaster"], self.job.family, self.device)
            self._begin_second(Trained(**first | {"forecaster": forecaster, "curves": [*map(tuple, first["curves"])]}))
        self.stage.load_state_dict(state["stack"])

    def result(self) -> Trained:
        last, first = self.stage.result(), self.held_out
        if first is None or first.forecaster is None:
            return last if first is None else first
        return replace(last, rows=first.rows, curves=first.curves, budget=first.budget,
                       failed=first.failed | last.failed, valid_forecaster=first.forecaster)


class Forecaster(abc.ABC):
    """What is validated, exported and deployed."""

    family: str
    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    look_back: int  # [days] of the panel that a forecast needs
    block_days: int = 1  # forecasts are made for blocks of so many days of the calendar, counted from the panel's first

    @abc.abstractmethod
    def predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        """Family, symbol, date and score of its symbols at the days marked in `origins [days]` bool.

        The panel holds every stock of the data: what a feature is worth may depend on the others. A symbol that is
        absent on a day gives no row. With `mean, scale, p_up` where the family has its own.
        """

    def explain(self, panel: Panel, origins: np.ndarray, *, quick: bool = False) -> pd.DataFrame | None:
        """What each feature adds to a score: the rows of `predict`, with `symbol, date`, a float32 column for each
        feature, and `bias`, which sum to the score. None: the family has no exact answer. `quick` may be approximate.
        """
        return None

    @abc.abstractmethod
    def select(self, symbols: tuple[str, ...]) -> "Forecaster":
        """The same for some of its symbols."""

    @abc.abstractmethod
    def to_state(self) -> dict[str, Any]:
        """All of it as tensors and plain values: what a job's file keeps."""

    @classmethod
    @abc.abstractmethod
    def from_state(cls, state: dict[str, Any], device: str = "cpu") -> Self:
        """The forecaster that `to_state` wrote down. Raises ValueError, say, where a number in it is not finite."""

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """The forecasters of several packs, or files, as one; a family that is neither packed nor split has one."""
        if len(parts) != 1:
            raise DeliveryError(f"{len(parts)} models of the family {parts[0].family}, which has one. Export again.")
        return parts[0]

    def files(self) -> dict[str, tuple[str, ...]]:
        """The symbols of each file of a bundle, by its name; `joined` puts them together again."""
        return {f"{self.family}.pt": self.symbols}

    def contents(self, facts: dict[str, Any]) -> dict[str, bytes]:
        """Its files by name, each with `facts`."""
        return {name: model_bytes(self.select(part).to_state() | facts) for name, part in self.files().items()}

    def save(self, folder: Path, facts: dict[str, Any] | None = None) -> list[Path]:
        """Writes its files, each with `facts`; gives back their paths."""
        contents = {Path(folder, name): content for name, content in self.contents(facts or {}).items()}
        for path, content in contents.items():
            write_atomic(path, content)
        return [*contents]

    @abc.abstractmethod
    def digest(self) -> str:
        """Hex sha256 of what was learnt, at the exported precision."""

    def check_features(self, panel: Panel) -> None:
        """Raises DeliveryError unless the panel has the features that it was trained on, in their order."""
        if tuple(panel.feature_names) == self.feature_names:
            return
        missing, added = (", ".join(name for name in one if name not in other) for one, other in (
            (self.feature_names, panel.feature_names), (panel.feature_names, self.feature_names)))
        reasons = [f"it was trained on {missing}, which this code does not compute"] if missing else []
        reasons += [f"this code computes {added}, which it does not know"] if added else []
        raise DeliveryError(f"the model and the code differ in features: "
                            f"{'; '.join(reasons) or 'the same features stand in another order'}. Use the version of "
                            "the library that exported it (manifest.json names it), or train again.")


def family_module(name: str) -> ModuleType:
    """The module of a family, imported now. Raises ConfigError for an unknown one."""
    if name not in FAMILIES:
        raise ConfigError(f"there is no family {name!r}.{did_you_mean(name, FAMILIES)}")
    return importlib.import_module(FAMILIES[name])


def jobs_by_fold(family: str, panel: Panel, folds: list, symbols: tuple[str, ...] | None) -> list[Job]:
    """One job for each fold, and the final fit, which needs them all."""
    symbols = tuple(symbols or panel.symbols)
    jobs = [Job(family, fold, symbols=symbols) for fold in range(len(folds))]
    return [*jobs, Job(family, None, symbols=symbols, needs=tuple(job.name for job in jobs))]


def fold_budgets(inputs: dict[str, dict[str, Any]], family: str) -> list[dict[str, Any]]:
    """The budgets of the finished folds of a family, oldest first."""
    return [state["budget"] for name, state in inputs.items() if name.startswith(f"{family}_fold")]


def restored(state: dict[str, Any], family: str, device: str = "cpu") -> Forecaster:
    """The forecaster that a file keeps. Raises DeliveryError where it is not one of this family."""
    try:
        forecaster = family_module(family).FORECASTER.from_state(state, device)
        names = forecaster.symbols + forecaster.feature_names
    except DeliveryError:
        raise
    except (VnqError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DeliveryError(f"not a model of the family {family} ({shorten(error)}). Train again.") from error
    if forecaster.family != family or not all(isinstance(name, str) for name in names):
        raise DeliveryError(f"a model of {shorten(forecaster.family)}, not of the family {family}. Train again.")
    return forecaster


def model_bytes(state: dict[str, Any]) -> bytes:
    """A model's file, which loads with weights_only=True."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def stable_seed(*parts: object) -> int:
    """A seed decided by its parts alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1
