"""Where and when a family was right: by exchange and liquidity, by quarter, and on the last days one by one.

`rows` here are what `metrics.with_outcomes` gives: rows of a Forecast with `actual`, the 5-day log return that came.
"""

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.market import EXCHANGES, trading_days
from vnq_colab.data.panel import FLAT
from vnq_colab.errors import DataError, did_you_mean
from vnq_colab.evaluation.probability import interval_coverage
from vnq_colab.evaluation.skill import skill

LIQUIDITY = ("low", "middle", "high")
MOST_QUARTERS = 12  # beyond three years of judged days, drift is shown by year
GROUP_COLUMNS = ("kind", "group", "n_symbols", "n_rows", "traded_value", "accuracy", "base_rate", "excess",
                 "excess_low", "excess_high", "p", "rmse_5", "saved")
FORMS = {"Symbol": "", "Evening of": "", "Expected [%]": "+.1f", "Came [%]": "+.1f", "Outcome": "", "p_up [%]": ".1f",
         "Low [%]": "+.1f", "High [%]": "+.1f", "Close [VND]": ",.0f"}  # columns of `in_words`, as written


def by_group(rows: pd.DataFrame, prices: pd.DataFrame, family: str) -> pd.DataFrame:
    """One row per group of symbols: all of them, those of each exchange, and thirds of them by liquidity.

    The exchange is that of the judged day, so that a symbol that moved counts in two; "unknown" where the prices do not
    say. Liquidity is the symbol's median traded value of the judged days, price × volume, the raw price where it is
    known. Columns: `kind` (all, exchange, liquidity), `group`; `n_symbols`; `n_rows` with an outcome; `traded_value`,
    the median symbol's [VND a day]; `accuracy`, `base_rate`, `excess`, `excess_low`, `excess_high`, `p` as of
    `skill.skill`; `rmse_5` [log return]; `saved`, the share of the zero forecast's squared error that is saved
    [fraction]. A group without a row is not there.
    """
    mine = _of_family(rows, family)
    columns = [name for name in ("raw_close", "exchange") if name in prices.columns]
    mine = mine.merge(prices[["symbol", "date", "close", "volume", *columns]], on=["symbol", "date"], how="left")
    price = mine["raw_close"].fillna(mine["close"]) if "raw_close" in columns else mine["close"]
    traded = (price * mine["volume"]).groupby(mine["symbol"]).median()  # [symbols] VND a day
    third = (3 * (traded.rank(method="first") - 1) // len(traded)).map(dict(enumerate(LIQUIDITY)))
    exchange = mine["exchange"].astype(object) if "exchange" in columns else pd.Series("unknown", mine.index)
    groups = {"all": (pd.Series("all", mine.index), ("all",)),
              "exchange": (exchange.where(exchange.isin(EXCHANGES), "unknown"), (*EXCHANGES, "unknown")),
              "liquidity": (mine["symbol"].map(third), LIQUIDITY)}
    lines = []
    for kind, (of_row, names) in groups.items():
        for name in names:
            part = mine[of_row == name]
            if len(part):
                lines.append({"kind": kind, "group": name, "traded_value": traded[part["symbol"].unique()].median()}
                             | _measures(part))
    return pd.DataFrame(lines, columns=GROUP_COLUMNS)


def _measures(part: pd.DataFrame) -> dict[str, float]:
    found = skill(part).to_dict("records")  # nothing for a family that names no direction
    error, zero = ((part["mean"] - part["actual"]) ** 2).mean(), (part["actual"] ** 2).mean()
    return (found[0] if found else {}) | {"n_symbols": part["symbol"].nunique(), "n_rows": len(part),
                                          "rmse_5": np.sqrt(error), "saved": 1 - error / zero if zero else np.nan}


def coverage_drift(rows: pd.DataFrame, family: str, coverage: float = 0.9) -> pd.DataFrame:
    """One row per quarter, or per year beyond three of them: how often intervals held that promise `coverage`.

    Columns: `period` ("2025 Q3" or "2025"), then those of `probability.interval_coverage`. Rows without an interval are
    left out; without any the table is empty.
    """
    mine = _of_family(rows, family)
    if not {"low", "high"} <= set(mine.columns):
        mine = mine.assign(low=np.nan, high=np.nan)
    year = mine["date"].dt.year.astype(str)
    quarter = year + " Q" + mine["date"].dt.quarter.astype(str)
    period = quarter if quarter.nunique() <= MOST_QUARTERS else year
    return interval_coverage(mine.assign(period=period), coverage, by=("period",))


def last_predictions(rows: pd.DataFrame, forecast: pd.DataFrame, prices: pd.DataFrame, family: str,
                     n_days: int = 10) -> pd.DataFrame:
    """By symbol and date: the last `n_days` origins whose outcome is known, and all after them that are still open.

    Columns: `symbol`, `date` (the origin), `close` [VND], `mean` and where there are intervals `low` and `high` [5-day
    log return], `p_up`, `actual` [5-day log return], NaN where it is not known; `outcome`: right, wrong, unchanged (the
    price), no direction (the forecast), still open (fewer than 5 trading days have come), or not known (halted).
    """
    columns = [name for name in ("mean", "p_up", "low", "high") if name in forecast.columns]
    table = _of_family(forecast, family)[["symbol", "date", *columns]]
    table = table.merge(_of_family(rows, family)[["symbol", "date", "actual"]], on=["symbol", "date"], how="left")
    table = table.merge(prices[["symbol", "date", "close"]], on=["symbol", "date"], how="left")
    table = table.sort_values(["symbol", "date"], ignore_index=True)
    known = table["actual"].notna().astype("int64")
    later = known[::-1].groupby(table["symbol"]).cumsum()[::-1] - known  # outcomes known after this row
    table = table[later < n_days].groupby("symbol").tail(2 * n_days + HORIZON).reset_index(drop=True)
    days = trading_days(prices)
    is_open = len(days) - 1 - days.get_indexer(table["date"]) < HORIZON
    actual, mean = table["actual"], table["mean"]
    table["outcome"] = np.select(
        [actual.isna() & is_open, actual.isna(), actual.abs() < FLAT, mean == 0, (mean > 0) == (actual > 0)],
        ["still open", "not known", "unchanged", "no direction", "right"], "wrong")
    return table[["symbol", "date", "close", *columns, "actual", "outcome"]]


def in_words(predictions: pd.DataFrame) -> pd.DataFrame:
    """The table of `last_predictions` as people read it: labels with units, returns of the price in percent."""
    price = {"mean": "Expected [%]", "actual": "Came [%]", "low": "Low [%]", "high": "High [%]"}
    shown = {"Symbol": predictions["symbol"], "Evening of": predictions["date"].dt.strftime("%Y-%m-%d")}
    shown |= {label: 100 * np.expm1(predictions[name]) for name, label in price.items() if name in predictions}
    shown |= {"p_up [%]": 100 * predictions["p_up"], "Close [VND]": predictions["close"],
              "Outcome": predictions["outcome"]}
    return pd.DataFrame(shown)[[label for label in FORMS if label in shown]]


def show_predictions(rows: pd.DataFrame, forecast: pd.DataFrame, prices: pd.DataFrame, symbol: str, *, family: str,
                     n_days: int = 20) -> str:
    """The last forecasts of one symbol beside what happened, as text. Raises DataError for an unknown symbol."""
    symbols = sorted(forecast.loc[forecast["family"] == family, "symbol"].unique())
    if symbol not in symbols:
        raise DataError(f"{family} has no forecast of {symbol!r}.{did_you_mean(symbol, symbols)} Choose a symbol of "
                        "the run.")
    found = last_predictions(rows, forecast, prices, family, n_days)
    found = found[found["symbol"] == symbol]
    return f"{symbol}, {family}: {hits(found)}\n{as_texts(in_words(found)).to_string(index=False)}"


def as_texts(shown: pd.DataFrame) -> pd.DataFrame:
    """The table of `in_words` for one symbol, every number written out, a dash for what is not known."""
    texts = {label: shown[label].map(f"{{:{FORMS[label]}}}".format, na_action="ignore")
             for label in shown.columns.drop("Symbol")}
    return pd.DataFrame(texts, dtype=object).fillna("–")


def hits(predictions: pd.DataFrame) -> str:
    """How many of the predictions were right, in words."""
    counts = predictions["outcome"].value_counts()
    n_right, n_directed = counts.get("right", 0), counts.get("right", 0) + counts.get("wrong", 0)
    rest = [f"{counts[name]} {name}" for name in ("unchanged", "no direction", "still open", "not known")
            if counts.get(name, 0)]
    return ", ".join([f"{n_right} of {n_directed} right", *rest])


def _of_family(table: pd.DataFrame, family: str) -> pd.DataFrame:
    mine = table[table["family"] == family]
    if mine.empty:
        known = list(table["family"].unique())
        raise DataError(f"there is no family {family!r} here.{did_you_mean(family, known)}")
    return mine
