"""The Forecast: one table that every family and every opponent produces, checked once at its door.

family | symbol | date | mean_1 .. mean_5 | mean | scale | p_up
-------|--------|------|------------------|------|-------|-----
`date` is the forecast origin: the evening of that day. `mean_k` is the log return of the k-th trading day after it,
`mean` their sum, `scale` the standard deviation of the 5-day log return, `p_up` the probability that it is positive.
"""

import numpy as np
import pandas as pd

from vnq_colab.config import HORIZON
from vnq_colab.errors import DataError

MEANS = tuple(f"mean_{day}" for day in range(1, HORIZON + 1))
COLUMNS = ("family", "symbol", "date", *MEANS, "mean", "scale", "p_up")


def make_forecast(family: str, symbol: str, dates: pd.DatetimeIndex, daily: np.ndarray, scale: np.ndarray,
                  p_up: np.ndarray) -> pd.DataFrame:
    """A Forecast of one symbol from `daily [days, horizon]` log returns, `scale [days]` and `p_up [days]`."""
    daily = np.asarray(daily, dtype="float64")
    columns = {"family": family, "symbol": symbol, "date": dates}
    columns |= {name: daily[:, step] for step, name in enumerate(MEANS)}
    columns |= {"mean": daily.sum(axis=1), "scale": np.asarray(scale, "float64"), "p_up": np.asarray(p_up, "float64")}
    return pd.DataFrame(columns)


def check_forecast(forecast: pd.DataFrame) -> pd.DataFrame:
    """The forecast, sorted by family, symbol and date. Raises DataError when it is not one."""
    missing = [name for name in COLUMNS if name not in forecast.columns]
    if missing:
        raise DataError(f"forecast: columns {missing} are missing. It needs {', '.join(COLUMNS)}.")
    if forecast["date"].dtype.kind != "M" or getattr(forecast["date"].dtype, "tz", None) is not None:
        raise DataError(f"forecast: date is {forecast['date'].dtype}. It needs dates without a time zone: "
                        "pd.to_datetime(forecast[\"date\"]).")
    forecast = forecast.sort_values(["family", "symbol", "date"], ignore_index=True)
    _refuse(forecast, forecast.duplicated(["family", "symbol", "date"]), "two forecasts for one day", "date")
    for name in (*MEANS, "mean", "scale", "p_up"):
        _refuse(forecast, ~np.isfinite(forecast[name].to_numpy("float64")), f"{name} is not a number", name)
    _refuse(forecast, ~forecast["p_up"].between(0, 1), "p_up outside [0, 1]", "p_up")
    _refuse(forecast, forecast["scale"] <= 0, "scale is not positive", "scale")
    return forecast


def _refuse(forecast: pd.DataFrame, bad: "pd.Series | np.ndarray", what: str, column: str) -> None:
    bad = np.asarray(bad)
    if bad.any():
        row = forecast[bad].iloc[0]
        more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        raise DataError(f"forecast of {row['symbol']} {row['date']:%Y-%m-%d}: {what}, found {row[column]}{more}. "
                        "Make the forecast again.")
