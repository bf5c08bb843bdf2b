"""The two interfaces of every family: a Learner that advances by safe steps, a Forecaster that cannot learn."""

import abc
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd

from vnq_colab.data.panel import Panel, Scaler
from vnq_colab.errors import ConfigError, did_you_mean

# name of a family: the module that makes its learner (`make_learner`) and holds its forecaster (`FORECASTER`)
FAMILIES = {"stockformer": "vnq_colab.models.stockformer"}


class Learner(abc.ABC):
    """One pack being trained. After each `step` it is safe to stop, save and go on later, bit for bit."""

    @property
    @abc.abstractmethod
    def finished(self) -> bool:
        """True when there is nothing left to learn."""

    @abc.abstractmethod
    def step(self) -> dict:
        """Advances by one optimizer step or boosting round; returns measurements for the progress line."""

    @abc.abstractmethod
    def measure(self) -> pd.DataFrame:
        """Validation as it stands: one row per symbol, with columns symbol, epoch, best_epoch, valid_loss."""

    @abc.abstractmethod
    def state_dict(self) -> dict:
        """All that `load_state_dict` needs to go on bit for bit: tensors and plain values only."""

    @abc.abstractmethod
    def load_state_dict(self, state: dict) -> None:
        """Goes back to a saved state."""

    models: list[tuple[str, int]]  # (symbol, member) that are still learning
    epoch: int  # epochs (or rounds) that are over
    step_in_epoch: int
    history: list[tuple]  # learning curves: symbol, member, epoch, train_loss, valid_loss, no_skill

    @abc.abstractmethod
    def best_epochs(self, symbol: str) -> list[int]:
        """For each member of a finished symbol the epoch (or round) that was best on held-out days."""

    @abc.abstractmethod
    def valid_accuracy(self) -> dict[str, float]:
        """Share of right 5-day directions on the validation days, per finished symbol."""

    @abc.abstractmethod
    def diverged(self) -> dict[str, str]:
        """Symbols that left because a gradient was not finite, each with a sentence."""

    @abc.abstractmethod
    def forecaster(self) -> "Forecaster":
        """What has been learnt, for the symbols that finished."""


class Forecaster(abc.ABC):
    """What is validated, exported and deployed."""

    symbols: tuple[str, ...]
    feature_names: tuple[str, ...]
    facts: dict  # stored with every exported file
    residual: np.ndarray  # [symbols] spread of the 5-day validation residual [log return]
    scaler: Scaler

    @abc.abstractmethod
    def select(self, symbols: tuple[str, ...]) -> "Forecaster":
        """The same for some of its symbols."""

    @abc.abstractmethod
    def with_residual(self, residual: np.ndarray) -> "Forecaster":
        """The same with another spread of its validation residuals `[symbols]`."""

    @abc.abstractmethod
    def digest(self, symbol: str) -> str:
        """Hex sha256 of what was learnt for a symbol, at full precision."""

    @abc.abstractmethod
    def predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        """The Forecast of its symbols at the days marked in `origins [days]` bool; absent symbols give no row."""

    @abc.abstractmethod
    def to_state(self) -> dict:
        """All of it, at full precision, as tensors and plain values: what a finished pack keeps."""

    @classmethod
    @abc.abstractmethod
    def from_states(cls, states: list[dict], facts: dict | None = None) -> "Forecaster":
        """The forecaster of several finished packs together; `facts` are stored with every exported file."""

    @abc.abstractmethod
    def as_exported(self) -> "Forecaster":
        """The same at the precision of the exported form, which is what is judged."""

    @staticmethod
    @abc.abstractmethod
    def file_name(symbol: str) -> str:
        """The file that `save` writes for a symbol."""

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Writes one file per symbol."""

    @classmethod
    @abc.abstractmethod
    def load(cls, folder: Path, symbols: list[str] | None = None) -> "Forecaster":
        """The forecaster that `save` wrote, or of some of its symbols. Raises DeliveryError for an unusable file."""


def family_module(name: str) -> ModuleType:
    """The module of a family, imported now. Raises ConfigError for an unknown one."""
    if name not in FAMILIES:
        raise ConfigError(f"there is no family {name!r}.{did_you_mean(name, FAMILIES)}")
    return importlib.import_module(FAMILIES[name])
