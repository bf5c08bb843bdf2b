"""The Forecast: one table that every family and every opponent produces, checked once at its door.

family | symbol | date | score | edge | mean | scale | p_up
-------|--------|------|-------|------|------|-------|-----
`date` is the forecast origin: what is known up to that day's close is used. `score` orders the symbols of a day, higher
is better. `edge` is what that is worth [log return over the horizon, relative to the mean of the universe], `mean` the
expected log return over the horizon, `scale` its standard deviation, `p_up` the probability that it is positive. A
learner gives scores alone, the rest by calibration where it has none of its own (`evaluation.calibration`).
"""

import numpy as np
import pandas as pd

from vnq_colab.errors import DataError
from vnq_colab.settings import HORIZON  # noqa: F401  where readers of a Forecast look for it

SCORES = ("family", "symbol", "date", "score")
COLUMNS = (*SCORES, "edge", "mean", "scale", "p_up")
ENSEMBLE = "ensemble"


def make_scores(family: str, symbols: "tuple[str, ...] | list[str]", days: pd.DatetimeIndex, there: np.ndarray,
                **values: np.ndarray) -> pd.DataFrame:
    """The rows of a family by symbol and date: `there [symbols, days]` bool; `score=` and more `[symbols, days]`."""
    symbol, day = np.nonzero(there)
    table = {"family": family, "symbol": np.asarray(symbols, dtype=object)[symbol], "date": days[day]}
    return pd.DataFrame(table | {name: np.asarray(part, "float64")[symbol, day] for name, part in values.items()})


def check_forecast(forecast: pd.DataFrame, columns: tuple[str, ...] = COLUMNS) -> pd.DataFrame:
    """The forecast, sorted by family, symbol and date. Raises DataError when it is not one.

    `columns` are those that it must have: `SCORES` for what a learner gives.
    """
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
    by_day = chosen.groupby(["family", *keys, "date"])["score"]
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
