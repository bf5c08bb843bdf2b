"""The journal of a search: its ended trials, one line each, as Optuna writes them; and what decides the next one.

A trial stands in it once it has ended, never before. The sequence of trials follows from those that ended, the seed and
the ranges alone, so that a search that was killed anywhere goes on to the same trials.
"""

import contextlib
import json
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from vnq_colab.config import RunConfig
from vnq_colab.errors import CheckpointError, ConfigError, StorageError, did_you_mean, shorten, tell
from vnq_colab.files import read_bytes, write_atomic
from vnq_colab.models.base import stable_seed
from vnq_colab.settings import OneOf, Real, Space, convert, require

MOST_JOURNAL = 2**26  # [bytes]
GROUPS = ("model", "train", "trees", "global", "stockformer")  # of the settings that say how a family learns
WORSE_P = 0.2  # of Wilcoxon's test, below which a trial is given up: three folds of three worse than the best's
CURVES = dict[str, list[list[float]]]  # by job: (tree or epoch, skill) at each measurement


def engine() -> ModuleType:
    """Optuna. Raises ConfigError with the command that installs it."""
    try:
        import optuna
        import optuna.storages.journal  # since version 4
    except ImportError:
        raise ConfigError("Optuna 4 or newer is needed to search. Install it with: pip install --upgrade optuna"
                          ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def sampler(seed: int, number: int) -> Any:
    """What chooses the settings of a trial from those before it: anew for each, decided by seed and number alone."""
    return engine().samplers.TPESampler(seed=stable_seed("search", seed, number) % 2**32)


def ranges_of(space: Space, config: RunConfig) -> dict[str, Any]:
    """Optuna's ranges by the setting's full name, widened to the config's own values.

    Raises ConfigError for an empty space, a setting that there is not, and a value that it cannot have.
    """
    optuna, ranges = engine().distributions, {}
    own = {name: value for name, value in config.flat().items() if name.partition(".")[0] in GROUPS}
    require(len(space) > 0, "space", space, "must name a setting")
    for name, one in space.items():
        if name not in own:
            raise ConfigError(f"there is no setting {name!r} to search.{did_you_mean(str(name), own)}")
        try:
            values, default = one.values if isinstance(one, OneOf) else (one.low, one.high), own[name]
            if isinstance(one, OneOf):
                ranges[name] = optuna.CategoricalDistribution(tuple(dict.fromkeys((*values, default))))
            else:
                require(one.low <= one.high, name, one, "is empty")
                kind = optuna.FloatDistribution if isinstance(one, Real) else optuna.IntDistribution
                ranges[name] = kind(min(one.low, default), max(one.high, default), one.log)
        except (AttributeError, TypeError, ValueError):
            raise ConfigError(f"{name} = {shorten(one)}: no range (Whole, Real or OneOf; with log above 0), or none to "
                              f"which the config's own {shorten(own[name])} can be added. Give another, or leave this "
                              "setting out and name others with --over (in Python: space).") from None
        require(not ranges[name].single(), name, one, "leaves one value, the config's own: give two, or leave it out")
        for value in values:
            config.with_settings({name: float(value) if isinstance(one, Real) else value})
    return ranges


class Journal:
    """The ended trials of a search. Of its files, the local one first, the longer one is gone on with."""

    def __init__(self, paths: list[Path], name: str, ranges: dict[str, Any]):
        self.paths, self.ranges, self._optuna = paths, ranges, engine()
        storages, whole = self._optuna.storages, max(map(whole_lines, paths), key=len)
        write_atomic(paths[0], whole)
        lock = SimpleNamespace(acquire=lambda: True, release=lambda: None)  # the search holds one of its own
        try:
            storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(paths[0]), lock_obj=lock))
            self.study = (self._optuna.load_study(study_name=name, storage=storage) if whole else
                          self._optuna.create_study(study_name=name, storage=storage, direction="maximize"))
            for trial in self.trials:
                numbers = [*trial.intermediate_values.values(), trial.value or 0.0]
                convert(CURVES, trial.user_attrs["curves"], "curves")
                convert(float, trial.user_attrs["seconds"], "seconds")
                if not trial.state.is_finished() or trial.distributions != ranges or not np.isfinite(numbers).all():
                    raise ValueError(f"trial {trial.number + 1}")
        except Exception as error:  # Optuna reads what stands there, whatever it is
            raise CheckpointError(f"{paths[0]}: not the journal of this search ({shorten(str(error))}). Delete it: "
                                  "what Drive holds is gone on with, else the search begins anew.") from error

    @property
    def trials(self) -> list[Any]:
        """As Optuna keeps them, the oldest first."""
        return self.study.get_trials(deepcopy=False)

    def ask(self, seed: int, settings: dict[str, Any] | None) -> Any:
        """The next trial, in memory: with these settings, or with those that the sampler chooses."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the pruner is called experimental
            study = self._optuna.create_study(direction="maximize", sampler=sampler(seed, len(self.trials)),
                                              pruner=self._optuna.pruners.WilcoxonPruner(p_threshold=WORSE_P))
        for trial in self.trials:
            study.add_trial(trial)
        if settings is not None:
            study.enqueue_trial(settings)
        return study.ask(self.ranges)

    def add(self, trial: Any, state: str, value: float | None, folds: list[float], **facts: Any) -> None:
        """Writes down a trial that has ended, with the values of its folds, and copies the whole journal to Drive."""
        self.study.add_trial(self._optuna.trial.create_trial(
            state=self._optuna.trial.TrialState[state.upper()], value=value, params=trial.params, user_attrs=facts,
            distributions=self.ranges, intermediate_values=dict(enumerate(folds))))
        for path in self.paths[1:]:
            try:
                write_atomic(path, read_bytes(self.paths[0], MOST_JOURNAL))
            except StorageError as error:
                tell(f"careful: {error} It is tried again after the next trial.")


def whole_lines(path: Path) -> bytes:
    """A journal without last lines that are torn or damaged; nothing where there is no such file."""
    try:
        lines = read_bytes(path, MOST_JOURNAL).splitlines(keepends=True)
    except FileNotFoundError:
        return b""
    while lines:
        with contextlib.suppress(ValueError, RecursionError):
            if lines[-1].endswith(b"\n") and isinstance(json.loads(lines[-1]), dict):
                break
        tell(f"{path}: its line {len(lines)} is torn or damaged; that trial is done again")
        lines.pop()
    return b"".join(lines)
