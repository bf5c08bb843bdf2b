"""Reading prices: any files of daily prices, alone, in a folder or in zips, as one table in VND per share."""

import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.cells import MOST_ROWS, NEEDED, OPTIONAL, PRICES
from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.findings import CleaningReport, FileFacts
from vnq_colab.data.formats import OWN, YAHOO, PriceFile, index_name, read_file, refuse_other_bars, typed_rows
from vnq_colab.data.unpack import SUFFIXES, contents, fetched, files_of
from vnq_colab.errors import ConfigError, DataError, RowError, StorageError, did_you_mean, name_a_few, tell
from vnq_colab.progress import now

LEAST_BYTES_A_ROW = 16  # of a file with more than MOST_ROWS
LEAST_KVND, KVND_BELOW, VND_FROM = 1, 100, 1000  # a median close: doubtful | thousand VND | either | VND from here on
MOST_NAMED = 5  # files that are left out
Unit = str | Mapping[str, str] | None


@dataclass(frozen=True)
class Reading:
    """The rows of all files as they stand, in one unit, and what each file was taken for."""

    prices: pd.DataFrame  # stocks: symbol, date, open, high, low, close [VND], volume [shares], ..., file
    index: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["symbol", "date", "close"]))  # [points]
    files: list[FileFacts] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # files of a folder that were passed over

    @property
    def on_bad_rows(self) -> str:
        """What cleaning does by default: the price table's own columns promise clean rows, providers' files nothing."""
        return "raise" if all(file.format == OWN.name for file in self.files if file.rows) else "treat"


def load_prices(path: str | Path, *, unit: Unit = None, on_bad_rows: str | None = None,
                treatments: dict[str, str] | None = None) -> tuple[pd.DataFrame, CleaningReport]:
    """The cleaned price table of a file, folder, zip or Drive link, and the report of what was read and repaired.

    `unit` as in `read_prices`, `on_bad_rows` and `treatments` as in `clean_prices`; None: "raise" for tables in our own
    columns, else "treat". Raises DataError when there is no table of daily prices, or its unit is in doubt.
    """
    reading = read_prices(fetched(path), unit=unit, on_bad_rows=on_bad_rows)
    if reading.prices.empty:
        raise DataError(f"{path}: there are no stocks in it. Name files with the prices of stocks.")
    prices, report = clean_prices(reading.prices, on_bad_rows=on_bad_rows or reading.on_bad_rows, treatments=treatments,
                                  source=str(path), files=reading.files)
    return prices, replace(report, warnings=reading.warnings + report.warnings)


def read_prices(path: str | Path | list[str | Path], *, unit: Unit = None, on_bad_rows: str | None = None) -> Reading:
    """The rows as they stand in files, folders and zips, typed, in VND and adjusted where their file says how.

    `unit`: "VND" or "kVND" (thousand VND) for all, or {file name: unit}; None takes it from the prices. Later
    categories of `file` win: path by path, unadjusted first, then by last day. Raises DataError for what is no price
    file, unless it is one of several in a folder, and for rows that cannot be read.
    """
    files, warnings = _read(path if isinstance(path, list) else [path], strict=on_bad_rows in (None, "raise"))
    seen = Counter()
    for file in files:
        seen[name := file.facts.file] += 1
        if seen[name] > 1:  # a second raw/FPT.csv becomes "raw/FPT.csv (2)"
            file.facts = replace(file.facts, file=f"{name} ({seen[name]})")
    _to_vnd(files, unit)
    filled = [file for file in files if len(file.prices)]
    columns = [*NEEDED, *OPTIONAL, "unadjusted"]
    prices = pd.concat([file.prices for file in filled], ignore_index=True) if filled else pd.DataFrame(columns=columns)
    prices = prices[[name for name in columns if name in prices]]
    if "exchange" in prices:
        prices["exchange"] = prices["exchange"].fillna("")
    if "unadjusted" in prices:
        prices["unadjusted"] = prices["unadjusted"].eq(True)
    codes = np.repeat(np.arange(len(filled)), [len(file.prices) for file in filled])
    prices["file"] = pd.Categorical.from_codes(codes, [file.facts.file for file in filled], ordered=True)
    index = pd.concat([file.index for file in files], ignore_index=True)
    index = index.sort_values(["symbol", "date"], kind="stable").drop_duplicates(["symbol", "date"], keep="last")
    return Reading(prices, index.reset_index(drop=True), [file.facts for file in files], warnings)


def _read(paths: list[str | Path], **options: Any) -> tuple[list[PriceFile], list[str]]:
    """The price files of all paths, and which others in their folders are none. Raises VnqError where none is."""
    read, errors = [], []
    for path in map(Path, paths):
        some, n_errors = [], len(errors)
        for file, name in files_of(path):
            now(f"reading {name}")
            try:
                some += _members(file, f"{path.name}/{name}" if len(paths) > 1 and file != path else name, **options)
            except (DataError, StorageError, OSError) as error:
                if path == file or isinstance(error, RowError):
                    raise
                errors.append(error)
        if not some and len(errors) == n_errors:
            raise DataError(f"{path}: no {', '.join(SUFFIXES[:3])} or .zip file in it. Put the price files there.")
        read += sorted(some, key=lambda file: ("unadjusted" not in file.prices, file.facts.last_day, file.facts.file))
    if errors and not read:
        raise errors[0]
    more = [f"left out: {len(errors) - MOST_NAMED} more files"] if len(errors) > MOST_NAMED else []
    return read, [f"left out: {error}" for error in errors[:MOST_NAMED]] + more


def _members(file: Path, name: str, **options: Any) -> list[PriceFile]:
    members, n_rows = [], max(MOST_ROWS, os.stat(file).st_size // LEAST_BYTES_A_ROW)
    try:
        for content in contents(file, name):
            members.append(read_file(*content, most_rows=n_rows, **options))
            members[-1].prices = adjusted(members[-1])
            n_rows -= len(members[-1].prices)
    except MemoryError:
        raise DataError(f"{file}: does not fit into the memory of this machine. Bring fewer rows at once.") from None
    return members


def typed_prices(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """A table in the price table's columns and types, rows as they are; `path` names it in a DataError."""
    rows = typed_rows(_own_columns(table, NEEDED, path), path, strict=True)[0]
    refuse_other_bars(rows, path)
    if unit_of(rows, path, "VND") != "VND":
        raise DataError(f"{path}: the median close is {rows['close'].median():,.1f}, which looks like thousand VND. "
                        "Multiply the prices by 1,000.")
    return rows


def _own_columns(table: pd.DataFrame, needed: tuple[str, ...], path: str) -> pd.DataFrame:
    """The price table's own columns that are there, written in any case, under our names."""
    lowered = [str(name).strip().lower() for name in table.columns]
    names = [*needed, *(name for name in OPTIONAL if name in lowered)]
    wrong = [name for name in names if lowered.count(name) != 1]
    if wrong or table.empty:
        raise DataError(f"{path}: needed are some rows with one column {', one column '.join(wrong or names)}; found "
                        f"{len(table):,} rows of {name_a_few(map(str, table.columns), 12) or 'no columns'}.")
    return table.iloc[:, [lowered.index(name) for name in names]].set_axis(names, axis=1)


# ----------------------------------------------------------------------------------------------- units and adjustment
def _to_vnd(files: list[PriceFile], unit: Unit) -> None:
    of_all, of_file = (unit, {}) if isinstance(unit, str) else (None, dict(unit or {}))
    for given in [of_all, *of_file.values()]:
        if given not in (None, "VND", "kVND"):
            raise ConfigError(f"unit = {given!r}: must be 'VND' or 'kVND' (thousand VND).")
    names = [file.facts.file for file in files]
    for name in set(of_file) - {*names, *(PurePath(name).name for name in names)}:
        raise ConfigError(f"unit names {name!r}, which is no file that was read.{did_you_mean(name, names)}")
    for file, name in zip(files, names, strict=True):
        if file.prices.empty:
            continue
        given = of_file.get(name, of_file.get(PurePath(name).name))
        its_unit = given or unit_of(file.prices, file.path, file.provider.unit, of_all, name)
        file.facts = replace(file.facts, unit="thousand VND" if its_unit == "kVND" else "VND")
        if its_unit == "kVND":
            file.prices = file.prices.assign(**{column: (file.prices[column] * 1000).round(6)
                                                for column in {*PRICES, "raw_close"} & set(file.prices)})


def unit_of(prices: pd.DataFrame, path: str, usual: str, given: str | None = None, name: str = "FILE") -> str:
    """ "VND" or "kVND" by the stocks' median closes, else as `given`, else the `usual`. Raises DataError in doubt."""
    levels = prices["close"].where(prices["close"] > 0).groupby(prices["symbol"], observed=True).median().dropna()
    level = levels.median() if len(levels) else VND_FROM
    cheap, dear = levels[levels < KVND_BELOW], levels[levels > 2 * VND_FROM]  # of which one of the units cannot be
    if KVND_BELOW <= level < VND_FROM:
        unit = "kVND" if len(cheap) else "VND" if len(dear) else given or usual
    else:
        unit = "kVND" if level < KVND_BELOW else "VND"
    strange = dear if unit == "kVND" else cheap
    if not unit or (level < LEAST_KVND and not given):
        flaw = f"the median close is {level:,.3g}, which can be VND or thousand VND"
    elif given and unit != given:
        flaw = f"--unit {given} is for all files, but this one is clearly in {unit} (the median close is {level:,.1f})"
    elif len(strange):
        flaw = (f"two units in one file: {strange.index[0]} closes at {strange.iloc[0]:,.2f} in the median, the other "
                f"stocks at {level:,.2f}")
    else:
        return unit
    raise DataError(f"{path}: {flaw}. Name the file and its unit, VND or kVND: --unit {name}={given or 'kVND'} (in "
                    f"Python: unit={{{name!r}: {given or 'kVND'!r}}}).")


def adjusted(file: PriceFile) -> pd.DataFrame:
    """The prices of a file, adjusted where an adjusted close stands beside raw prices; the raw close is kept."""
    if "adj_close" not in file.prices or file.prices.empty:
        return file.prices
    rows = file.prices.sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    factors = [adjustment_factors(stock["close"].to_numpy(), stock["adj_close"].to_numpy())
               for _, stock in rows.groupby("symbol", sort=False, observed=True)]
    factor = np.concatenate(factors)
    changes = np.concatenate([np.abs(np.diff(np.log(one))) > 0.001 for one in factors])
    if not 0.005 < np.median(factor) < 1.01 or (len(changes) > 5 and changes.mean() > 0.3):
        raise DataError(f"{file.path}: the adjusted close is no steady fraction of the close. Put the right headers "
                        "above them.")
    is_raw = file.provider != YAHOO and "raw_close" not in rows  # Yahoo's close is adjusted for splits
    raw = {"raw_close": rows["close"]} if is_raw else {}
    return rows.assign(**raw, **{name: rows[name] * factor for name in PRICES}).drop(columns="adj_close")


def adjustment_factors(close: np.ndarray, adjusted: np.ndarray) -> np.ndarray:
    """`[days], [days] -> [days]`: the factor between raw and adjusted prices of one symbol, undone of its rounding.

    Each day confines it to (adjusted ± half a rounding step) / close; a new constant begins on the day whose interval
    leaves nothing of the earlier ones.
    """
    known = (close > 0) & (adjusted > 0)
    level = np.median(adjusted[known]) if known.any() else 1.0
    steps = [step for step in 100.0 / 10 ** np.arange(8) if step < level / 25 and np.mean(
        np.abs(adjusted[known] / step - np.round(adjusted[known] / step)) < 1e-6) > 0.98]
    half = (steps or [1e-5])[0] / 2 * (1 + 1e-9)  # of the file's rounding step
    low, high = (adjusted - half) / np.where(known, close, 1), (adjusted + half) / np.where(known, close, 1)
    factor = np.full(len(close), np.nan)
    start, least, most = 0, 0.0, np.inf
    for day in (*np.flatnonzero(known).tolist(), None):
        if day is not None and max(least, low[day]) <= min(most, high[day]):
            least, most = max(least, low[day]), min(most, high[day])
            continue
        same = np.median(np.abs(adjusted[start:day] - close[start:day])) == 0  # an odd day does not shift the rest
        factor[start:day] = 1.0 if same else (least + most) / 2
        if day is not None:
            start, least, most = day, low[day], high[day]
    return factor


# -------------------------------------------------------------------------------------------------------------- index
def load_index(index: str | Path | pd.DataFrame, symbol: str = "VNINDEX") -> pd.DataFrame:
    """The market index `symbol`, `date, close` [points], of a file or a table. Raises DataError for a bad close."""
    if isinstance(index, pd.DataFrame):
        path = "the index"
        rows = typed_rows(_own_columns(index, ("date", "close"), path), path, strict=True)[0]
    else:
        path, nameless = Path(index), symbol if os.path.isfile(index) and not zipfile.is_zipfile(index) else ""
        files, warnings = _read([path], index=nameless)
        for warning in warnings:
            tell(f"warning: {warning}")
        files = [file for file in files if (file.index["symbol"] == index_name(symbol)).any()]
        if not files:
            raise DataError(f"{path}: there is no index {symbol} in it.")
        for file in files:
            if lost := [f"{why} {n:,}" for why, n in file.facts.dropped.items() if not why.startswith("symbol")]:
                raise DataError(f"{file.path}: days of the index cannot be read ({', '.join(lost)}). Repair the file.")
        rows = pd.concat([file.index for file in files])
        rows = rows[rows["symbol"] == index_name(symbol)]
    for day, close in rows.loc[~(rows["close"].lt(np.inf) & rows["close"].gt(0)), ["date", "close"]].to_numpy():
        flaw = "missing" if np.isnan(close) else f"{close:,g}, not above 0" if close <= 0 else "not finite"
        raise DataError(f"{path}: {day:%Y-%m-%d}: the close of the index is {flaw}. Repair it, or take it out.")
    rows = rows[["date", "close"]].sort_values("date", kind="stable")
    return rows.drop_duplicates("date", keep="last", ignore_index=True)
