"""What a forecast was worth: pure functions of the Forecast and of what happened afterwards."""

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON, check_forecast
from vnq_colab.data.panel import CLOSE, FLAT, OPEN, Panel
from vnq_colab.errors import DataError, did_you_mean, name_a_few
from vnq_colab.evaluation.significance import TRADING_DAYS, wilson_interval


def score(forecast: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """One row per family and symbol: accuracy, errors and correlation in time, beside what a guess would reach.

    Scored are the rows of `with_outcomes`; see `score_rows`.
    """
    return score_rows(with_outcomes(forecast, panel))


def score_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The scores of rows that `with_outcomes` gave. All shares are fractions, all errors [log return].

    Days: `n_days` scored; `flat_share` of them with an unchanged price, left out of everything about direction;
    `n_directed`, the others on which `mean` is not exactly 0; `n_independent` = n_directed / horizon, rounded down,
    because 5-day outcomes of neighbouring days overlap.

    Direction: `accuracy` of the sign of `mean` on the directed days (NaN without any, as for the zero forecast);
    `accuracy_low` and `accuracy_high`, the 95 % Wilson interval on n_independent; `base_rate`, the share of the more
    frequent direction; `up_share`.

    Size: `rmse_5` of the return over the horizon; `rmse_day`, that over the root of its days; `r2_zero` = 1 - sum of
    squared errors / that of the zero forecast (Gu, Kelly & Xiu 2020, RFS 33(5)); `correlation` of `mean` with the
    outcome in time, and `rank_correlation` (Spearman; equal outcomes tie), NaN when one is constant.
    """
    keys = rows.groupby(["family", "symbol"], sort=True)
    place, n_groups = keys.ngroup().to_numpy(), keys.ngroups  # groups are numbered in the order of the result

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, values, n_groups)  # [groups]

    mean, actual = rows["mean"].to_numpy(), rows["actual"].to_numpy()
    moved, up, rises = np.abs(actual) >= FLAT, actual >= FLAT, mean > 0
    directed = moved & (mean != 0)
    days, n_moved, n_directed = (total(part).astype("int64") for part in (np.ones(len(rows)), moved, directed))
    right, windows = total(directed & (rises == up)), n_directed // HORIZON
    scores = keys.size().index.to_frame(index=False)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN: not known
        accuracy, up_share = right / n_directed, total(up) / n_moved
        low, high = wilson_interval(accuracy * windows, windows)
        columns = {
            "n_days": days, "n_independent": windows, "n_directed": n_directed, "flat_share": 1 - n_moved / days,
            "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high,
            "base_rate": np.maximum(up_share, 1 - up_share), "up_share": up_share,
        }
        columns["rmse_5"] = np.sqrt(total((mean - actual) ** 2) / days)
        columns["rmse_day"] = columns["rmse_5"] / np.sqrt(HORIZON)
        columns["r2_zero"] = 1 - total((mean - actual) ** 2) / total(actual**2)
        ranks = pd.DataFrame({"mean": mean, "actual": to_rank(actual)}).groupby(place).rank()
        columns["correlation"] = correlation_within(mean, actual, place, n_groups)
        columns["rank_correlation"] = correlation_within(ranks["mean"].to_numpy(), ranks["actual"].to_numpy(), place,
                                                         n_groups)
    return scores.assign(**columns)


def with_outcomes(forecast: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """The rows of a forecast that can be scored, with `actual` [log return over the horizon].

    A day counts for a symbol when its outcome is known and every family that forecasts the symbol has forecast that
    day, so that families are compared on the same days. Raises DataError when no day is left.
    """
    forecast = check_forecast(forecast)
    unknown = [symbol for symbol in forecast["symbol"].unique() if symbol not in panel.symbols]
    if unknown:
        raise DataError(f"forecast: the panel has no symbol {name_a_few(unknown)}."
                        f"{did_you_mean(unknown[0], panel.symbols)} Score with the panel that was forecast.")
    code, names = pd.factorize(forecast["symbol"])
    symbol, day = pd.Index(panel.symbols).get_indexer(names)[code], panel.days.get_indexer(forecast["date"])
    close, opened = (np.where(day >= 0, panel.ahead(column=column)[symbol, day], np.nan) for column in (CLOSE, OPEN))
    known = np.isfinite(close)
    rows = forecast.assign(actual=close, actual_open=opened)[known].reset_index(drop=True)
    symbol, day, (family, _) = symbol[known], day[known], pd.factorize(rows["family"])
    here = symbol * len(panel.days) + day
    n_families = np.bincount(np.unique(family * len(panel.symbols) + symbol) % len(panel.symbols),
                             minlength=len(panel.symbols))
    rows = rows[np.bincount(here)[here] == n_families[symbol]] if len(rows) else rows
    if rows.empty:
        raise DataError(f"forecast: no day from {forecast['date'].min():%Y-%m-%d} to {forecast['date'].max():%Y-%m-%d} "
                        f"has an outcome and all families; the panel ends {panel.days[-1]:%Y-%m-%d} and an outcome "
                        f"needs {HORIZON} more days. Forecast earlier days, or wait.")
    return rows


def to_rank(actual: np.ndarray) -> np.ndarray:
    """Outcomes [log return] for ranking: equal price changes tie, although sums of floats are not equal."""
    return np.where(np.abs(actual) >= FLAT, np.round(actual, 6), 0.0)


def correlation_within(x: np.ndarray, y: np.ndarray, place: np.ndarray, n_groups: int) -> np.ndarray:
    """`[rows] × 3 -> [groups]`: Pearson's correlation within each group; NaN where one is constant."""
    n = np.bincount(place, minlength=n_groups)
    around, varies = [], np.ones(n_groups, dtype=bool)
    for values in (x, y):
        around.append(values - (np.bincount(place, values, n_groups) / n)[place])
        most, least = np.full(n_groups, -np.inf), np.full(n_groups, np.inf)
        np.maximum.at(most, place, values)
        np.minimum.at(least, place, values)
        varies &= most > least
    product, x_square, y_square = (np.bincount(place, part, n_groups) for part in
                                   (around[0] * around[1], around[0] ** 2, around[1] ** 2))
    found = product / np.sqrt(x_square * y_square)
    return np.where(varies, np.clip(found, -1, 1), np.nan)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per family: shares and errors pooled over all days of all symbols, and median correlations.

    `base_rate` pools each symbol's own; `above_base_rate` counts symbols. There is no interval: symbols move together,
    so the days of many symbols are far from independent.
    """
    moved = scores["n_days"] * (1 - scores["flat_share"])
    weights = {"accuracy": scores["n_directed"], "base_rate": moved, "up_share": moved, "rmse_5": scores["n_days"],
               "rmse_day": scores["n_days"]}
    family = scores["family"]
    pooled = pd.DataFrame({"n_symbols": 1, "n_days": scores["n_days"],
                           "above_base_rate": scores["accuracy"] > scores["base_rate"]}).groupby(family).sum()
    for name, weight in weights.items():
        power = 2 if name.startswith("rmse_") else 1
        total = (scores[name] ** power * weight).groupby(family).sum()
        pooled[name] = (total / weight.groupby(family).sum()) ** (1 / power)
    for name in ("correlation", "rank_correlation"):
        pooled[name] = scores.groupby("family")[name].median()
    return pooled.reset_index()


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
