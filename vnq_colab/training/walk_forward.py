"""Walk-forward validation: the market is walked through in folds, and trained anew before each of them.

Every fold is a run of its own, with checkpoints and resume; calling again goes on.
"""

import time

import pandas as pd

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import walk_forward_splits
from vnq_colab.errors import ConfigError, PausedError
from vnq_colab.layout import Workspace
from vnq_colab.notebook import tell
from vnq_colab.training.forecasting import forecast
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import train


def walk_forward(ws: Workspace, panel: Panel, config: RunConfig, *, folds: int = 8, untouched: int = 0,
                 hours: float | None = None, quiet: bool = False) -> pd.DataFrame:
    """One out-of-sample Forecast over all folds: each day is forecast by networks that were trained before it.

    `untouched` folds at the end are neither trained nor forecast, until they are asked for: what is tuned on the
    others can be judged on them once. Raises PausedError when a fold pauses; call again to go on.
    """
    sessions = train_folds(ws, panel, config, folds=folds, untouched=untouched, hours=hours, quiet=quiet)
    return check_forecast(pd.concat([forecast(session, panel=panel) for session in sessions], ignore_index=True))


def train_folds(ws: Workspace, panel: Panel, config: RunConfig, *, folds: int = 8, untouched: int = 0,
                hours: float | None = None, quiet: bool = False) -> list[Session]:
    """The finished run of each fold, oldest first. What is finished already is not trained again."""
    if not isinstance(folds, int) or folds < 1:
        raise ConfigError(f"folds = {folds!r}: must be a whole number of stretches to walk, at least 1.")
    if not 0 <= untouched < folds:
        raise ConfigError(f"untouched = {untouched}: of {folds} folds at least one must be walked.")
    found, started = [], time.monotonic()
    for number, splits in enumerate(walk_forward_splits(panel.days, folds)[: folds - untouched], 1):
        if not quiet:
            tell(f"fold {number} of {folds}: trained to {splits.train.last}, tested {splits.test.first} to "
                 f"{splits.test.last}")
        left = None if hours is None else max(0.0, hours - (time.monotonic() - started) / 3600)
        session = train(ws, panel, splits, config, fold=(number, folds), hours=left, quiet=quiet)
        if session.status != "finished":
            raise PausedError(f"fold {number} of {folds} paused ({session.why}). The same again goes on where it "
                              "stopped.")
        found.append(session)
    return found
