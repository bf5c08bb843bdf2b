"""Forecasts beside what happened: the price change over 5 days that was expected, and the one that came."""

from pathlib import Path

import numpy as np
import pandas as pd

from vnq_colab.errors import DataError, did_you_mean
from vnq_colab.evaluation.significance import mean_test

MOST_QUARTERS = 12  # beyond three years of judged days, coverage is shown by year
FORMS = {"date": ("Evening of", "%Y-%m-%d"), "expected": ("Expected [%]", "+.1f"), "actual": ("Actual [%]", "+.1f"),
         "low": ("Low [%]", "+.1f"), "high": ("High [%]", "+.1f"), "p_up": ("p_up [%]", ".1f")}  # label, form


def past_forecasts(forecast: pd.DataFrame, rows: pd.DataFrame, family: str, symbol: str | None = None, *,
                   n_days: int | None = None) -> pd.DataFrame:
    """By symbol and date, the evening: `expected`, `actual`, `p_up`, and `low`, `high` where there are intervals [%].

    `rows` are those with `actual` [5-day log return]; evenings whose outcome is not known yet are left out: their
    forecast is the final fit's, not the folds'. `symbol` None takes all, `n_days` the last evenings of each.
    Raises DataError for an unknown family or symbol.
    """
    mine = _of_family(forecast, family).drop(columns="actual", errors="ignore")
    if symbol is not None:
        if symbol not in (known := sorted(mine["symbol"].unique())):
            raise DataError(f"{family} has no forecast of {symbol!r}.{did_you_mean(symbol, known)} Choose a symbol of "
                            "the run.")
        mine = mine[mine["symbol"] == symbol]
    outcome = rows.loc[(rows["family"] == family) & rows["actual"].notna(), ["symbol", "date", "actual"]]
    table = mine.merge(outcome, on=["symbol", "date"]).sort_values(["symbol", "date"], ignore_index=True)
    table = table if n_days is None else table.groupby("symbol").tail(n_days)
    found = {name: 100 * np.expm1(table[name]) for name in ("low", "high", "actual") if name in table}
    return pd.DataFrame({"symbol": table["symbol"], "date": table["date"], "expected": 100 * np.expm1(table["mean"]),
                         "p_up": 100 * table["p_up"]} | found)


def show_predictions(folder: Path, symbol: str, *, family: str, n_days: int = 20) -> str:
    """The last forecasts of one symbol beside what happened, as text, from `forecast.parquet` in a report's folder.

    Nothing is computed anew. Raises DataError for an unknown symbol, and where nothing was validated yet.
    """
    path = Path(folder) / "forecast.parquet"
    if not path.exists():
        raise DataError(f"{path} is not there. Make it with: python -m vnq_colab validate")
    stored = pd.read_parquet(path)
    found = past_forecasts(stored, stored, family, symbol, n_days=n_days)
    return f"{symbol}, {family}: price change over 5 days\n{as_texts(found).to_string(index=False)}"


def as_texts(table: pd.DataFrame) -> pd.DataFrame:
    """The table of `past_forecasts` as people read it, a dash for what is not known."""
    texts = {label: [format(value, form) if pd.notna(value) else "–" for value in table[name]]
             for name, (label, form) in FORMS.items() if name in table}
    return pd.DataFrame(texts, dtype=object)


def coverage_by_period(rows: pd.DataFrame, family: str) -> pd.DataFrame:
    """One row per quarter, or per year beyond three of them: how often an interval held its outcome.

    Columns: `period` ("2025 Q3" or "2025"); `n_days` evenings; `covered`, the mean over evenings of the share of stocks
    inside, with its 95 % interval `low, high`; `width` [log return]. Rows without an interval are left out; without any
    the table is empty.
    """
    mine = _of_family(rows, family)
    if not {"low", "high"} <= set(mine.columns):
        return pd.DataFrame()
    mine = mine.dropna(subset=["low", "high"])
    inside, width = mine["actual"].between(mine["low"], mine["high"]), mine["high"] - mine["low"]
    daily = pd.DataFrame({"inside": inside, "width": width}).groupby(mine["date"]).mean()
    quarter = daily.index.to_period("Q")
    period = quarter.strftime("%Y Q%q") if quarter.nunique() <= MOST_QUARTERS else quarter.strftime("%Y")
    found = []
    for name, part in daily.groupby(period):
        test = mean_test(part["inside"].to_numpy())
        found.append({"period": name, "n_days": len(part), "covered": test.mean, "low": test.low, "high": test.high,
                      "width": part["width"].mean()})
    table = pd.DataFrame(found, columns=["period", "n_days", "covered", "low", "high", "width"])
    return table.fillna({"low": table["covered"], "high": table["covered"]})  # every evening the same


def _of_family(table: pd.DataFrame, family: str) -> pd.DataFrame:
    mine = table[table["family"] == family]
    if mine.empty:
        raise DataError(f"there is no family {family!r} here.{did_you_mean(family, list(table['family'].unique()))}")
    return mine
