"""All prices that a person has, read once and cleaned: of a file, a folder or a link, with the weekly updates."""

import datetime as dt
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.findings import CleaningReport
from vnq_colab.data.market import count_sessions
from vnq_colab.data.prices import Reading, load_index, read_prices, typed_prices
from vnq_colab.data.splits import to_day
from vnq_colab.data.synthetic import is_synthetic, synthetic_prices
from vnq_colab.data.unpack import fetched, price_files
from vnq_colab.errors import DataError
from vnq_colab.layout import Workspace

MARKET_INDEX = "VNINDEX"
MOST_SESSIONS = 5  # prices whose last day is older are stale: `prepare` warns, `predict` refuses


@dataclass(frozen=True, kw_only=True, repr=False)
class Gathered:
    """Cleaned prices, and what they were cleaned from."""

    prices: pd.DataFrame
    index: pd.DataFrame | None  # of the market; None: there is none
    cleaning: CleaningReport
    rows: pd.DataFrame | None = None  # as they were read; None in a set that was loaded
    cleaning_options: dict[str, Any] = field(default_factory=lambda: {"on_bad_rows": "treat"})  # of `clean_prices`


def gather(ws: Workspace, data: str | Path | pd.DataFrame | None, *, index: str | Path | pd.DataFrame | None = None,
           as_of: str | None = None, on_bad_rows: str | None = None, treatments: dict[str, str] | None = None,
           unit: "str | dict[str, str] | None" = None) -> Gathered:
    """All that the person has, read once and cleaned.

    `data` is a file, a folder, a zip or a Drive link in any format that `load_prices` reads, and the files of
    `data/weekly_updates/` are merged into it; or a table in the price table's own columns, which stands alone; or None:
    the files of `data/raw/` and the updates, and the seeded synthetic market where there are none. Without `index` a
    VNINDEX among the files is taken when it covers nearly all days. `as_of` is the day whose close is the last known
    (None: today): later rows are left out.
    """
    day = to_day(as_of or dt.date.today().isoformat())
    reading = _read_all(ws, data, unit, on_bad_rows)
    rows = reading.prices if as_of is None else up_to(reading.prices, day)
    source = str(data) if isinstance(data, (str, Path)) else str(ws.raw) if reading.files else "the price table"
    options = {"on_bad_rows": on_bad_rows or reading.on_bad_rows, "treatments": treatments}
    prices, cleaning = clean_prices(rows, source=source, files=reading.files, **options)
    if index is None:
        index, warnings = _index_among(reading.index[reading.index["date"] <= day], prices)
    else:
        index = up_to(load_index(index), day)
        warnings = _gaps(prices, index)
    cleaning = replace(cleaning, warnings=reading.warnings + cleaning.warnings + staleness(prices, day) + warnings)
    return Gathered(prices=prices, index=index, cleaning=cleaning, rows=rows, cleaning_options=options)


def _read_all(ws: Workspace, data: str | Path | pd.DataFrame | None, unit: "str | dict[str, str] | None",
              on_bad_rows: str | None) -> Reading:
    """The rows as they stand in `data` and in `data/weekly_updates/`, nothing repaired."""
    if isinstance(data, pd.DataFrame):
        return Reading(typed_prices(data, "the price table"))
    paths = [folder for folder in (ws.raw, ws.weekly_updates) if price_files(folder)]
    if data is not None:
        paths = [fetched(data), *(path for path in paths if path == ws.weekly_updates)]
    if not paths:
        return Reading(typed_prices(synthetic_prices(n_days=1080, last_day="2026-01-30"), "the price table"))
    return read_prices(paths, unit=unit, on_bad_rows=on_bad_rows)


def up_to(table: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The rows up to and including a day. Raises DataError when there are none."""
    kept = table[table["date"] <= day]
    if kept.empty:
        raise DataError(f"there are no prices up to {day:%Y-%m-%d}; the first are of {table['date'].min():%Y-%m-%d}.")
    return kept


def staleness(prices: pd.DataFrame, as_of: pd.Timestamp) -> list[str]:
    """A warning when the newest price is more than 5 sessions older than a day; none for synthetic prices."""
    last = prices["date"].max()
    n_sessions = count_sessions(last, as_of)
    if n_sessions <= MOST_SESSIONS or is_synthetic(prices["symbol"].unique()):
        return []
    return [f"the newest prices are of {last:%Y-%m-%d}, {n_sessions} sessions before {as_of:%Y-%m-%d}: "
            "bring newer files, or name the day with --as-of (in Python: as_of=)"]


def _index_among(series: pd.DataFrame, prices: pd.DataFrame) -> tuple[pd.DataFrame | None, list[str]]:
    """The VNINDEX among the files and warnings; None unless it has a close on 99 of 100 trading days."""
    series = series[series["symbol"] == MARKET_INDEX]
    index = series.loc[series["close"] > 0, ["date", "close"]].reset_index(drop=True)
    n_bad = len(series) - len(index)
    warnings = [f"{MARKET_INDEX}: {n_bad} rows without a positive close are left out"] if n_bad else []
    if index.empty:
        return None, warnings
    if gaps := _gaps(prices, index):
        return None, [*warnings, f"the {MARKET_INDEX} among the files is not used, the market is the mean of all "
                                 f"stocks: {gaps[0]}"]
    return index, warnings


def _gaps(prices: pd.DataFrame, index: pd.DataFrame) -> list[str]:
    """A warning when the index misses more than one trading day in a hundred: there the market stands still."""
    days = prices["date"].drop_duplicates()
    missing = ~days.isin(index["date"])
    if missing.mean() <= 0.01:
        return []
    return [f"the index has no value on {int(missing.sum()):,} of {len(days):,} trading days "
            f"({days[missing].min():%Y-%m-%d} to {days[missing].max():%Y-%m-%d}): bring a longer one"]
