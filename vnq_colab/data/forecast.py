"""What is forecast: the labels that are learnt, and the Forecast that comes of them.

A Forecast is one table: family, symbol, date, score, edge, mean, scale, p_up. `date` is the forecast origin: what is
known up to that day's close is used. `score` orders the symbols of a day, higher is better; `edge` is what that is
worth [log return over the horizon, relative to the mean of the universe]; `mean` and `scale` are the expected log
return over the horizon and its standard deviation, `p_up` the probability that it is positive.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.panel import CLOSE, OPEN, Panel
from vnq_colab.errors import DataError, tell
from vnq_colab.settings import Task

FEWEST_STOCKS, COARSE_STOCKS = 5, 20  # of a market whose ranks are learnt; below the second they are coarse
RETURNS_OF = {"open": (OPEN,), "close": (CLOSE,), "mixed": (CLOSE, OPEN)}  # by `task.label`
SCORES = ("family", "symbol", "date", "score")
COLUMNS = (*SCORES, "edge", "mean", "scale", "p_up")
ENSEMBLE = "ensemble"


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
    ours, theirs = (within_day_ranks(values) for values in (scores, truth))
    known = np.isfinite(ours) & np.isfinite(theirs)
    ours, theirs = (np.where(known, ranks, 0) for ranks in (ours, theirs))  # ranks have mean 0
    spread = np.sqrt((ours ** 2).sum(axis=0) * (theirs ** 2).sum(axis=0))
    daily = (ours * theirs).sum(axis=0)[spread > 0] / spread[spread > 0]
    return float(daily.mean()) if len(daily) else float("nan")


def check_market(panel: Panel, task: Task) -> Task:
    """The task as this market can bear it: of closes where there are no opens. Raises DataError for too few stocks."""
    if task.target != "rank":
        return task
    n_stocks = len(panel.symbols)
    if n_stocks < FEWEST_STOCKS:
        raise DataError(f"{n_stocks} stocks have no order worth learning: at least {FEWEST_STOCKS} are needed, better "
                        f"100. Bring more stocks, or forecast each one's own return: --set stockformer.start=own "
                        "--set task.target=return --families stockformer.")
    if n_stocks < COARSE_STOCKS:
        tell(f"ranks among {n_stocks} stocks are coarse; from {COARSE_STOCKS} on they say something")
    opens, closes = panel.prices[panel.present][:, [OPEN, CLOSE]].T
    if task.label != "close" and not (np.isfinite(opens) & (opens != closes)).any():
        tell("the data has no open prices of its own: what is learnt is the order of returns from close to close")
        return replace(task, label="close")
    return task


def make_scores(family: str, symbols: "tuple[str, ...] | list[str]", days: pd.DatetimeIndex, there: np.ndarray,
                **values: np.ndarray) -> pd.DataFrame:
    """The rows of a family by symbol and date: `there [symbols, days]` bool; `score=` and more `[symbols, days]`."""
    symbol, day = np.nonzero(there)
    table = {"family": family, "symbol": np.asarray(symbols, dtype=object)[symbol], "date": days[day]}
    return pd.DataFrame(table | {name: np.asarray(part, "float64")[symbol, day] for name, part in values.items()})


def check_forecast(forecast: pd.DataFrame, columns: tuple[str, ...] = COLUMNS) -> pd.DataFrame:
    """The forecast, sorted by family, symbol and date. Raises DataError when it is none, or lacks one of `columns`."""
    missing = [name for name in columns if name not in forecast.columns]
    if missing:
        raise DataError(f"forecast: columns {missing} are missing. It needs {', '.join(columns)}.")
    if forecast["date"].dtype.kind != "M" or getattr(forecast["date"].dtype, "tz", None) is not None:
        raise DataError(f"forecast: date is {forecast['date'].dtype}. It needs dates without a time zone: "
                        "pd.to_datetime(forecast[\"date\"]).")
    place = np.zeros(len(forecast), "int64")  # whole numbers are sorted much faster than texts
    for name in ("family", "symbol", "date"):
        codes, values = pd.factorize(forecast[name], sort=True, use_na_sentinel=False)
        place = place * len(values) + codes
    if (np.diff(place) < 0).any():
        forecast = forecast.iloc[np.argsort(place, kind="stable")]
    forecast = forecast.reset_index(drop=True)
    _refuse(forecast, np.diff(np.sort(place), prepend=-1) == 0, "two forecasts for one day", "date")
    for name in columns[3:]:
        _refuse(forecast, ~np.isfinite(forecast[name].to_numpy("float64")), f"{name} is not a number", name)
    if "p_up" in columns:
        _refuse(forecast, ~forecast["p_up"].between(0, 1), "p_up outside [0, 1]", "p_up")
        _refuse(forecast, forecast["scale"] <= 0, "scale is not positive", "scale")
    return forecast


def ensemble_scores(scores: pd.DataFrame, families: "tuple[str, ...] | list[str]") -> pd.DataFrame:
    """The family `ensemble`: for each symbol and day the mean of these families' within-day ranks, -1 to 1."""
    chosen = scores[scores["family"].isin(list(families))]
    keys = [name for name in ("part", "fold") if name in chosen.columns]
    by_day = chosen.groupby(["family", *keys, "date"], observed=True)["score"]
    n_others = by_day.transform("size") - 1
    ranks = np.where(n_others > 0, 2 * (by_day.rank() - 1) / n_others.clip(lower=1) - 1, 0.0)
    rows = chosen[["symbol", "date", *keys]].assign(score=ranks)
    mean = rows.groupby(["symbol", "date", *keys], as_index=False, observed=True)["score"].mean()
    return mean.assign(family=ENSEMBLE)[["family", "symbol", "date", *keys, "score"]]


def _refuse(forecast: pd.DataFrame, bad: "pd.Series | np.ndarray", what: str, column: str) -> None:
    bad = np.asarray(bad)
    if bad.any():
        row = forecast[bad].iloc[0]
        more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        raise DataError(f"forecast of {row['symbol']} {row['date']:%Y-%m-%d}: {what}, found {row[column]}{more}. "
                        "Make the forecast again.")
