"""Labels: what a forecaster of a task learns, for every symbol and day of a panel.

Of task `rank` the label is where a stock will stand among all stocks of the day: its return over the horizon, ranked
within the day and mapped to a standard normal, so that no day and no outlier weighs more than another.
"""

from dataclasses import dataclass, replace

import numpy as np

from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.panel import CLOSE, OPEN, Panel
from vnq_colab.errors import DataError
from vnq_colab.notebook import tell
from vnq_colab.settings import Task

FEWEST_STOCKS, COARSE_STOCKS = 5, 20  # of a market whose ranks are learnt; below the second they are coarse
RETURNS_OF = {"open": (OPEN,), "close": (CLOSE,), "mixed": (CLOSE, OPEN)}  # by `task.label`


@dataclass(frozen=True)
class Labels:
    """`values` is 0 where not `known`: a row without a label is not learnt from, and is forecast all the same."""

    values: np.ndarray  # [symbols, days, outputs] float32
    known: np.ndarray  # [symbols, days] bool


def make_labels(panel: Panel, task: Task) -> Labels:
    """The labels of a task. "rank": one output, the mean of normal scores; "return": the daily log returns of the
    horizon, one output each; "direction": one output, -1 or 1, of the return from close to close.
    """
    if task.target == "return":
        ahead = np.stack([np.roll(panel.returns, -step, axis=1) for step in range(1, task.horizon + 1)], axis=2)
        ahead[:, len(panel.days) - task.horizon:] = np.nan
        known = panel.present & np.isfinite(ahead).all(axis=2)
        return Labels(np.where(known[:, :, None], ahead, 0).astype("float32"), known)
    if task.target == "direction":
        moves = panel.ahead(task.horizon)
        return Labels(np.nan_to_num(np.sign(moves))[:, :, None].astype("float32"), np.isfinite(moves))
    scores = np.mean([normal_scores(panel.ahead(task.horizon, column)) for column in RETURNS_OF[task.label]], axis=0)
    return Labels(np.nan_to_num(scores)[:, :, None].astype("float32"), np.isfinite(scores))


def normal_scores(values: np.ndarray) -> np.ndarray:
    """`[symbols, days] -> [symbols, days]`: within-day ranks mapped to a standard normal; NaN stays, a single one is 0.

    The quantile of rank r of n is (r - 1/2) / n. Source: Blom 1958, with c = 1/2.
    """
    from scipy.special import ndtri

    count = np.isfinite(values).sum(axis=0)  # [days]
    place = (within_day_ranks(values) + 1) / 2 * (count - 1)  # from 0, the lowest; NaN stays
    return ndtri((place + 0.5) / np.maximum(count, 1))


def rank_correlation(scores: np.ndarray, truth: np.ndarray) -> float:
    """`[stocks, days]` twice: the mean over days of Spearman's rank correlation; NaN without a day of two stocks."""
    here, there = (within_day_ranks(values) for values in (scores, truth))
    known = np.isfinite(here) & np.isfinite(there)
    here, there = (np.where(known, values, 0) for values in (here, there))  # ranks have mean 0
    both = np.sqrt((here ** 2).sum(axis=0) * (there ** 2).sum(axis=0))
    return float(((here * there).sum(axis=0)[both > 0] / both[both > 0]).mean()) if (both > 0).any() else float("nan")


def check_market(panel: Panel, task: Task) -> Task:
    """The task as this market can bear it; says what is changed, or coarse. Raises DataError for too few stocks.

    Without open prices (each equals its close) labels are of closes.
    """
    if task.target != "rank":
        return task
    n_stocks = len(panel.symbols)
    if n_stocks < FEWEST_STOCKS:
        raise DataError(f"{n_stocks} stocks have no order worth learning: at least {FEWEST_STOCKS} are needed, better "
                        f"100. Bring more stocks, or forecast each one's own return: --set task.target=return --set "
                        "stockformer.start=own --families stockformer.")
    if n_stocks < COARSE_STOCKS:
        tell(f"ranks among {n_stocks} stocks are coarse; from {COARSE_STOCKS} on they say something")
    opens, closes = panel.prices[panel.present][:, [OPEN, CLOSE]].T
    if task.label != "close" and not (np.isfinite(opens) & (opens != closes)).any():
        tell("the data has no open prices of its own: what is learnt is the order of returns from close to close")
        return replace(task, label="close")
    return task
