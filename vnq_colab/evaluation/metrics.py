"""What a forecast was worth: pure functions of the Forecast and of the returns that followed."""

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.panel import CLOSE, FLAT, OPEN, Panel
from vnq_colab.errors import DataError, did_you_mean
from vnq_colab.evaluation.significance import TRADING_DAYS, mean_test, wilson_interval
from vnq_colab.settings import HORIZON

MOST_QUARTERS = 12  # beyond three years of judged days, coverage is shown by year
FORMS = {"date": ("As of", "%Y-%m-%d"), "expected": ("Expected [%]", "+.1f"), "actual": ("Actual [%]", "+.1f"),
         "low": ("Low [%]", "+.1f"), "high": ("High [%]", "+.1f"), "p_up": ("p_up [%]", ".1f")}  # label, form


def score_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per family and symbol: accuracy beside what a guess would reach, and errors [log return].

    `n_days` scored; `n_directed` of them on which the price moved and `mean` is not 0; `n_independent` horizons without
    overlap. `accuracy` of the sign of `mean` on the directed days (NaN without any), `accuracy_low`, `accuracy_high`,
    its 95 % Wilson interval on n_independent; `base_rate`, the share of the more frequent direction. `rmse_5` over the
    horizon; `rmse_day`, that over the root of its days.
    """
    mean, actual = rows["mean"], rows["actual"]
    up, moved = actual >= FLAT, actual.abs() >= FLAT
    directed = moved & (mean != 0)
    total = pd.DataFrame({"n_days": 1, "moved": moved, "up": up, "n_directed": directed,
                          "right": directed & ((mean > 0) == up), "square": (mean - actual) ** 2})
    total = total.groupby([rows["family"], rows["symbol"]], observed=True).sum()
    accuracy, up_share, windows = (total["right"] / total["n_directed"], total["up"] / total["moved"],
                                   total["n_directed"] // HORIZON)
    low, high = wilson_interval(accuracy * windows, windows)
    rmse = np.sqrt(total["square"] / total["n_days"])
    return pd.DataFrame({
        "n_days": total["n_days"], "n_directed": total["n_directed"], "n_independent": windows, "accuracy": accuracy,
        "accuracy_low": low, "accuracy_high": high, "base_rate": np.maximum(up_share, 1 - up_share), "rmse_5": rmse,
        "rmse_day": rmse / np.sqrt(HORIZON)}).reset_index()


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per family: `accuracy`, `rmse_5` pooled over all days and symbols; these move together: no interval."""
    right, square = scores["accuracy"] * scores["n_directed"], scores["rmse_5"] ** 2 * scores["n_days"]
    total = scores[["n_directed", "n_days"]].assign(right=right, square=square)
    total = total.groupby(scores["family"], observed=True).sum()
    return pd.DataFrame({"accuracy": total["right"] / total["n_directed"],
                         "rmse_5": np.sqrt(total["square"] / total["n_days"])}).reset_index()


def with_outcomes(forecast: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """The rows of a forecast that can be scored, with `actual`, `actual_open` [log return over the horizon].

    A day counts for a symbol when its outcome is known and every family that forecasts the symbol has forecast that
    day, so that families are compared on the same days. Raises DataError when no day is left.
    """
    forecast = check_forecast(forecast)
    symbol, day = pd.Index(panel.symbols).get_indexer(forecast["symbol"]), panel.days.get_indexer(forecast["date"])
    close, opened = (np.where(day >= 0, panel.ahead(column=column)[symbol, day], np.nan) for column in (CLOSE, OPEN))
    known = np.isfinite(close)
    rows, symbol, day = forecast.assign(actual=close, actual_open=opened)[known], symbol[known], day[known]
    forecasts = np.zeros((rows["family"].nunique(), *panel.present.shape), dtype=bool)
    forecasts[pd.factorize(rows["family"])[0], symbol, day] = True
    complete = forecasts.sum(axis=0) == forecasts.any(axis=2).sum(axis=0)[:, None]  # [symbols, days]
    rows = rows[complete[symbol, day]].reset_index(drop=True)
    if rows.empty:
        raise DataError(f"forecast: no day from {forecast['date'].min():%Y-%m-%d} to {forecast['date'].max():%Y-%m-%d} "
                        f"has an outcome and all families; the panel ends {panel.days[-1]:%Y-%m-%d} and an outcome "
                        f"needs {HORIZON} more days. Forecast earlier days, or wait.")
    return rows


def sharpe(daily_returns: np.ndarray) -> np.ndarray:
    """`[days, ...] -> [...]`: mean over standard deviation of daily returns, times √250; no interest is subtracted.

    NaN for fewer than two days and for returns without any spread, as of an account that never traded.
    Source: Sharpe 1994, Journal of Portfolio Management 21(1).
    """
    daily_returns = np.asarray(daily_returns, "float64")
    if len(daily_returns) < 2:
        return np.full(daily_returns.shape[1:], np.nan)[()]
    spread = np.where(np.ptp(daily_returns, axis=0) > 0, daily_returns.std(axis=0, ddof=1), np.nan)
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


# ---------------------------------------------------------------------------- forecasts beside the actual price change
def past_forecasts(forecast: pd.DataFrame, rows: pd.DataFrame, family: str, symbol: str | None = None, *,
                   n_days: int | None = None) -> pd.DataFrame:
    """By symbol and date: `expected`, `actual`, `p_up`, and `low`, `high` where there are intervals [%].

    `rows` are those with `actual` [5-day log return]; days whose outcome is not known yet are left out. `symbol` None
    takes all, `n_days` the last days of each. Raises DataError for an unknown family or symbol.
    """
    mine = _of_family(forecast, family).drop(columns="actual", errors="ignore")
    if symbol is not None:
        if symbol not in (known := sorted(mine["symbol"].unique())):
            raise DataError(f"{family} has no forecast of {symbol!r}.{did_you_mean(symbol, known)} Choose a symbol of "
                            "the run.")
        mine = mine[mine["symbol"] == symbol]
    outcome = rows.loc[(rows["family"] == family) & rows["actual"].notna(), ["symbol", "date", "actual"]]
    table = mine.merge(outcome, on=["symbol", "date"]).sort_values(["symbol", "date"], ignore_index=True)
    table = table if n_days is None else table.groupby("symbol", observed=True).tail(n_days)
    ends = {name: 100 * np.expm1(table[name]) for name in ("low", "high", "actual") if name in table}
    return table[["symbol", "date"]].assign(expected=100 * np.expm1(table["mean"]), p_up=100 * table["p_up"], **ends)


def as_texts(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `past_forecasts` as people read it, a dash for what is not known."""
    texts = {label: [format(value, form) if pd.notna(value) else "–" for value in table[name]]
             for name, (label, form) in FORMS.items() if name in table}
    return pd.DataFrame(texts, dtype=object)


def coverage_by_period(rows: pd.DataFrame, family: str) -> pd.DataFrame:
    """One row per quarter, or per year beyond three of them: how often an interval held its outcome.

    Columns: `period` ("2025 Q3" or "2025"); `n_days`; `covered`, the mean over days of the share of stocks inside, with
    its 95 % interval `low, high`; `width` [log return]. Empty where there are no intervals.
    """
    mine = _of_family(rows, family)
    if not {"low", "high"} <= set(mine.columns):
        return pd.DataFrame()
    mine = mine.dropna(subset=["low", "high"])
    inside, width = mine["actual"].between(mine["low"], mine["high"]), mine["high"] - mine["low"]
    daily = pd.DataFrame({"inside": inside, "width": width}).groupby(mine["date"]).mean()
    quarter = daily.index.to_period("Q")
    lines = []
    for period, part in daily.groupby(quarter.strftime("%Y Q%q" if quarter.nunique() <= MOST_QUARTERS else "%Y")):
        test = mean_test(part["inside"].to_numpy())
        lines.append((period, len(part), test.mean, test.low, test.high, part["width"].mean()))
    table = pd.DataFrame(lines, columns=["period", "n_days", "covered", "low", "high", "width"])
    return table.fillna({"low": table["covered"], "high": table["covered"]})  # every day the same


def _of_family(table: pd.DataFrame, family: str) -> pd.DataFrame:
    mine = table[table["family"] == family]
    if mine.empty:
        raise DataError(f"there is no family {family!r} here.{did_you_mean(family, list(table['family'].unique()))}")
    return mine
