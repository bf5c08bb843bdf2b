"""What a forecast was worth: pure functions of the Forecast and of what happened afterwards."""

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON, check_forecast
from vnq_colab.data.panel import FLAT, Panel
from vnq_colab.errors import DataError, did_you_mean, name_a_few
from vnq_colab.evaluation.significance import wilson_interval

TRADING_DAYS = 250  # per year in Vietnam: 247 to 252 in 2016-2025


def score(forecast: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """One row per family and symbol: its accuracy, errors and correlation beside what a guess would reach.

    A day counts for a symbol when its outcome is known and every family that forecasts the symbol has forecast that
    day, so that families are compared on the same days. Columns: `n_days` scored; `flat_share` of them with an
    unchanged price, left out of everything about direction; `n_directed`, the others on which `mean` is not exactly 0;
    `accuracy` of the sign of `mean` on those (NaN without any, as for the zero forecast); `n_independent` =
    n_directed / horizon, rounded down, because 5-day outcomes of neighbouring days overlap; `accuracy_low` and
    `accuracy_high`, the 95 % Wilson interval on so many windows; `base_rate`, the share of the more frequent direction;
    `up_share`; `rmse_1 mae_1` of the next day and `rmse_5 mae_5` of the 5-day sum [log return]; `correlation` of `mean`
    with the outcome (NaN when one is constant); `brier` of `p_up`. All shares are fractions.
    """
    forecast = check_forecast(forecast)
    unknown = [symbol for symbol in forecast["symbol"].unique() if symbol not in set(panel.symbols)]
    if unknown:
        raise DataError(f"forecast: the panel has no symbol {name_a_few(unknown)}."
                        f"{did_you_mean(unknown[0], panel.symbols)} Score with the panel that was forecast.")
    rows = forecast.merge(panel.outcomes(), on=["symbol", "date"], how="inner")
    families = rows.groupby("symbol")["family"].transform("nunique")
    rows = rows[rows.groupby(["symbol", "date"])["family"].transform("size") == families]
    if rows.empty:
        raise DataError(f"forecast: no day from {forecast['date'].min():%Y-%m-%d} to {forecast['date'].max():%Y-%m-%d} "
                        f"has an outcome and all families; the panel ends {panel.days[-1]:%Y-%m-%d} and an outcome "
                        f"needs {HORIZON} more days. Forecast earlier days, or wait.")
    return _measure(rows)


def _measure(rows: pd.DataFrame) -> pd.DataFrame:
    """Scores of rows that hold a forecast and its outcome."""
    keys = [rows["family"], rows["symbol"]]
    mean, actual = rows["mean"], rows["actual"]
    moved, up = actual.abs() >= FLAT, actual >= FLAT
    directed = moved & (mean != 0)
    error_1, error_5 = rows["mean_1"] - rows["actual_1"], mean - actual
    of_mean, of_actual = (value - value.groupby(keys).transform("mean") for value in (mean, actual))
    parts = pd.DataFrame({
        "n_days": 1, "n_moved": moved, "n_up": up, "n_directed": directed,
        "right": directed & ((mean > 0) == up), "brier": (rows["p_up"] - up) ** 2 * moved,
        "rmse_1": error_1**2, "mae_1": error_1.abs(), "rmse_5": error_5**2, "mae_5": error_5.abs(),
        "product": of_mean * of_actual, "mean_square": of_mean**2, "actual_square": of_actual**2,
    })
    total = parts.groupby(keys).sum()
    both = pd.DataFrame({"mean": mean, "actual": actual}).groupby(keys)
    varies = (both.max() > both.min()).all(axis=1)
    days, moved, directed = total["n_days"], total["n_moved"], total["n_directed"]
    accuracy, up_share = total["right"] / directed, total["n_up"] / moved
    windows = directed // HORIZON
    low, high = wilson_interval(accuracy * windows, windows)
    scores = pd.DataFrame({
        "n_days": days, "n_independent": windows, "n_directed": directed, "flat_share": 1 - moved / days,
        "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high,
        "base_rate": np.maximum(up_share, 1 - up_share), "up_share": up_share,
        "rmse_1": np.sqrt(total["rmse_1"] / days), "mae_1": total["mae_1"] / days,
        "rmse_5": np.sqrt(total["rmse_5"] / days), "mae_5": total["mae_5"] / days,
        "correlation": (total["product"] / np.sqrt(total["mean_square"] * total["actual_square"])).where(varies),
        "brier": total["brier"] / moved,
    })
    return scores.reset_index()


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per family: shares and errors pooled over all days of all symbols, and the median correlation.

    `base_rate` pools each symbol's own base rate. There is no interval: symbols move together, so the days of many
    symbols are far from independent.
    """
    moved = scores["n_days"] * (1 - scores["flat_share"])
    pooled = pd.DataFrame({
        "family": scores["family"], "n_symbols": 1, "n_days": scores["n_days"], "n_directed": scores["n_directed"],
        "moved": moved, "accuracy": scores["accuracy"] * scores["n_directed"],
        "above_base_rate": scores["accuracy"] > scores["base_rate"],
        "base_rate": scores["base_rate"] * moved, "up_share": scores["up_share"] * moved,
        "brier": scores["brier"] * moved,
        "rmse_1": scores["rmse_1"] ** 2 * scores["n_days"], "mae_1": scores["mae_1"] * scores["n_days"],
        "rmse_5": scores["rmse_5"] ** 2 * scores["n_days"], "mae_5": scores["mae_5"] * scores["n_days"],
    }).groupby("family").sum()
    pooled["accuracy"] /= pooled["n_directed"]
    for name in ("base_rate", "up_share", "brier"):
        pooled[name] /= pooled["moved"]
    for name in ("rmse_1", "mae_1", "rmse_5", "mae_5"):
        pooled[name] /= pooled["n_days"]
    pooled[["rmse_1", "rmse_5"]] **= 0.5
    pooled["correlation"] = scores.groupby("family")["correlation"].median()
    return pooled.drop(columns=["moved", "n_directed"]).reset_index()


def sharpe(daily_returns: np.ndarray) -> np.ndarray:
    """`[days, ...] -> [...]`: mean over standard deviation of daily returns, times √250; no interest is subtracted.

    NaN for fewer than two days and for returns without any spread, as of an account that never traded.
    Source: Sharpe 1994, Journal of Portfolio Management 21(1).
    """
    daily_returns = np.asarray(daily_returns, "float64")
    if len(daily_returns) < 2:
        return np.full(daily_returns.shape[1:], np.nan)[()]
    varies = np.ptp(daily_returns, axis=0) > 0
    spread = np.where(varies, daily_returns.std(axis=0, ddof=1), np.nan)
    return np.sqrt(TRADING_DAYS) * daily_returns.mean(axis=0) / spread


def max_drawdown(equity: np.ndarray) -> np.ndarray:
    """`[days, ...] -> [...]`: deepest fall from a running peak, as a fraction of that peak; 0 = never fell.

    `equity` is account value by day [VND], positive. Fewer than two days give NaN: nothing is known.
    Source: Magdon-Ismail & Atiya 2004, Risk 17(10).
    """
    equity = np.asarray(equity, "float64")
    if len(equity) < 2:
        return np.full(equity.shape[1:], np.nan)[()]
    return (1 - equity / np.maximum.accumulate(equity, axis=0)).max(axis=0)
