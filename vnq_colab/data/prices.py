"""Reading prices: any files of daily prices, alone, in a folder or in zips, as one table in VND per share."""

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.columns import NEEDED, OPTIONAL, PRICES
from vnq_colab.data.findings import CleaningReport, FileFacts
from vnq_colab.data.formats import OWN, Part, match_columns, read_part, require_columns, typed_rows
from vnq_colab.data.tables import columns_of, refuse_weekends
from vnq_colab.data.tickers import index_name
from vnq_colab.data.units import Unit, in_vnd, unit_of
from vnq_colab.errors import DataError, did_you_mean, name_a_few

SUFFIXES = (".parquet", ".csv", ".txt", ".zip", ".gz", ".xlsx", ".xls")
NO_INDEX = {"symbol": pd.Series(dtype=object), "date": pd.Series(dtype="datetime64[ns]"),
            "close": pd.Series(dtype="float64")}
BREAKS_AN_INDEX = ("date unreadable or in the future", "number unreadable", "no close")  # why a day of it may be lost


@dataclass(frozen=True)
class Reading:
    """The rows of all files as they stand, in one unit, and what each file was taken for."""

    prices: pd.DataFrame  # stocks: symbol, date, open, high, low, close [VND], volume [shares], ..., file
    index: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(NO_INDEX))  # symbol, date, close [points]
    files: list[FileFacts] = field(default_factory=list)

    @property
    def on_bad_rows(self) -> str:
        """What cleaning does by default: the price table's own columns promise clean rows, providers' files nothing."""
        return "raise" if all(file.format == OWN for file in self.files if file.rows) else "treat"


def load_prices(path: str | Path, *, unit: Unit = None, on_bad_rows: str | None = None,
                treatments: dict[str, str] | None = None) -> tuple[pd.DataFrame, CleaningReport]:
    """The cleaned price table of a file, folder, zip or Drive link, and the report of what was read and repaired.

    Prices in VND per share, adjusted; volume in shares. `unit` as in `read_prices`; `on_bad_rows` and `treatments` as
    in `clean_prices`, None: "raise" for tables in our own columns, else "treat". Raises DataError when a file is
    missing, empty or no table of daily prices, or its unit is in doubt.
    """
    reading = read_prices(fetched(path, Path.home() / ".cache" / "vnq_colab"), unit=unit, on_bad_rows=on_bad_rows)
    if reading.prices.empty:
        raise DataError(f"{path}: there are no stocks in it. Name files with the prices of stocks.")
    return clean_prices(reading.prices, on_bad_rows=on_bad_rows or reading.on_bad_rows, treatments=treatments,
                        source=str(path), files=reading.files)


def fetched(path: str | Path, folder: Path) -> Path:
    """The file of a Drive share link, downloaded into a folder; any other path as it is."""
    if not isinstance(path, (str, Path)):
        raise DataError(f"the path of the prices is {type(path).__name__}. Name a file or a folder; a table goes to "
                        "prepare.")
    if not str(path).strip():
        raise DataError("the path of the prices is empty. Name a file or a folder.")
    if str(path).startswith(("http://", "https://")):
        from vnq_colab.data.collect import download_drive

        return download_drive(str(path), folder / f"drive_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}")
    return Path(path)


def read_prices(path: str | Path | list[str | Path], *, unit: Unit = None, on_bad_rows: str | None = None) -> Reading:
    """The rows as they stand in files, folders and zips, with typed columns and in VND; nothing repaired yet.

    `unit` settles whether files hold "VND" or "kVND" (thousand VND): one for all, or {file name: unit}; None tells it
    from the prices. `on_bad_rows` "drop" and "treat" leave out rows that cannot be read, up to 5 %, and count them;
    else such a row in a table of our own columns is a DataError. In the order of `file` later ones win: those of later
    paths, and in a folder those of a later last day; unadjusted ones come first.
    """
    paths = path if isinstance(path, list) else [path]
    if not all(str(item).strip() for item in paths):
        raise DataError("the path of the prices is empty. Name a file or a folder.")
    parts = []
    for one in paths:
        files = _files(Path(one), Path(one).name + "/" if len(paths) > 1 else "")
        some = [_adjusted(read_part(data, name, where, strict=on_bad_rows in (None, "raise")))
                for data, name, where in files]
        parts += sorted(some, key=lambda part: (not part.unadjusted, part.facts.last_day, part.facts.file))
    parts = _named_apart(in_vnd(parts, unit))
    rows = [part.prices.assign(unadjusted=part.unadjusted) for part in parts if len(part.prices)]
    names = [part.facts.file for part in parts if len(part.prices)]
    columns = [*NEEDED, *OPTIONAL, "unadjusted"]
    prices = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    prices = prices[[name for name in columns if name in prices.columns]]
    if "exchange" in prices.columns:
        prices["exchange"] = prices["exchange"].fillna("")
    if not any(part.unadjusted for part in parts):
        prices = prices.drop(columns="unadjusted")
    codes = np.repeat(np.arange(len(rows)), [len(part) for part in rows])
    prices["file"] = pd.Categorical.from_codes(codes, categories=names, ordered=True)
    index = pd.concat([part.index for part in parts], ignore_index=True)
    index = index.sort_values(["symbol", "date"], kind="stable").drop_duplicates(["symbol", "date"], keep="last")
    return Reading(prices, index.reset_index(drop=True), [part.facts for part in parts])


def load_index(path: str | Path, symbol: str = "VNINDEX") -> pd.DataFrame:
    """The market index as a table `date, close`; of a file with several indices, the one named `symbol`.

    Raises DataError when it is not there, or a day of it has no close above 0 or cannot be read.
    """
    parts = [read_part(data, name, where, is_index=Path(path).is_file() and not zipfile.is_zipfile(path))
             for data, name, where in _files(Path(path))]
    parts.sort(key=lambda part: (part.facts.last_day, part.facts.file))
    is_named = any("symbol" in part.facts.columns for part in parts) or len(parts) > 1
    tables = []
    for part in parts:
        rows = part.index[part.index["symbol"] == index_name(symbol)] if is_named else part.index
        if len(rows):
            lost = {reason: n for reason, n in part.facts.dropped.items() if reason in BREAKS_AN_INDEX}
            if lost:
                reasons = ", ".join(f"{reason} {n:,}" for reason, n in lost.items())
                raise DataError(f"{part.path}: days of the index cannot be read ({reasons}). Repair the file.")
            tables.append(_sound_index(rows, part.path))
    if not tables:
        raise DataError(f"{path}: there is no index {symbol} in it.")
    return _by_day(pd.concat(tables))


def typed_index(table: pd.DataFrame) -> pd.DataFrame:
    """A person's index table as `date, close` [points], sorted, one row a date: of several the last one.

    Its columns may be written in any case, its dates as text. Raises DataError for what is missing or no such value.
    """
    header = [str(name) for name in table.columns]
    lowered = [name.strip().lower() for name in header]
    found = {name: lowered.count(name) for name in ("date", "close")}
    if table.empty or set(found.values()) != {1}:
        raise DataError(f"the index: needed are one column date, one column close and some rows; found {len(table):,} "
                        f"rows of {name_a_few(header, 12) or 'no columns'}. Name the columns so.")
    picked = table.iloc[:, [lowered.index(name) for name in found]].set_axis([*found], axis=1)
    return _by_day(_sound_index(typed_rows(columns_of(picked), "the index", strict=True)[0], "the index"))


def _sound_index(rows: pd.DataFrame, path: str) -> pd.DataFrame:
    """The rows `date, close`. Raises a DataError that names the first day without a close above 0."""
    close = rows["close"].to_numpy("float64")
    bad = ~(np.isfinite(close) & (close > 0))
    if bad.any():
        day, value = rows["date"].iloc[bad.argmax()], close[bad.argmax()]
        found = "missing" if np.isnan(value) else f"{value:,g}, not above 0" if value <= 0 else "not finite"
        raise DataError(f"{path}: {day:%Y-%m-%d}: the close of the index is {found} (and {bad.sum() - 1} more rows). "
                        "Repair it, or take these days out.")
    return rows[["date", "close"]].astype({"close": "float64"})


def _by_day(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("date", kind="stable").drop_duplicates("date", keep="last", ignore_index=True)


def typed_prices(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """A table in the price table's columns and types, rows as they are; `path` names it in a DataError."""
    header = [str(name) for name in table.columns]
    match_columns(header, path)
    lowered = [name.strip().lower() for name in header]
    require_columns(lowered, header, NEEDED, path)
    own = [name for name in (*NEEDED, *OPTIONAL) if name in lowered]
    picked = table.iloc[:, [lowered.index(name) for name in own]].set_axis(own, axis=1)
    rows = typed_rows(columns_of(picked), path, strict=True)[0][own]
    refuse_weekends(rows["date"].to_numpy(), path)
    if unit_of(rows, path)[0] != "VND":
        raise DataError(f"{path}: the median close is {rows['close'].median():,.1f}, which looks like thousand VND. "
                        "Multiply the prices by 1,000: they are read as VND per share.")
    return rows


# -------------------------------------------------------------------------------------------------------------- files
def price_files(folder: Path) -> list[Path]:
    """The files below a folder that `read_prices` reads, in order; none when there is no such folder."""
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from None

    found = (Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names)
    return sorted(file for file in found if _is_wanted(file))


def _files(path: Path, prefix: str = "") -> Iterator[tuple[bytes, str, str]]:
    """(content, name below the folder, name in an error) of every file, members of zips included."""
    if path.is_file():
        found = [path]
    elif not path.is_dir():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: there is no such file or folder.{near if 'mean' in near else ''}")
    else:
        found = price_files(path)
    none = True
    for file in found:
        name = file.name if path.is_file() else prefix + file.relative_to(path).as_posix()
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}).") from None
        for item in _unpacked(data, name, str(file)):
            none = False
            yield item
    if none:
        raise DataError(f"{path}: no {', '.join(SUFFIXES[:3])} or .zip file in it. Put the price files there.")


def _is_wanted(file: PurePath) -> bool:
    """Hidden and lock files are not the person's data."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith((".", "~")) and "__MACOSX" not in file.parts


def _unpacked(data: bytes, name: str, path: str, depth: int = 0) -> Iterator[tuple[bytes, str, str]]:
    """The file itself, or what is packed in it, read in memory."""
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if data[:2] != b"PK" or (b"xl/workbook" in data and b"[Content_Types]" in data) or depth > 2:
            yield data, name, path
            return
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            members = [(member.filename, packed.read(member))  # two may have one name
                       for member in sorted(packed.infolist(), key=lambda member: member.filename)
                       if _is_wanted(PurePath(member.filename)) and not member.is_dir()]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        raise DataError(f"{path}: cannot be unpacked ({str(error).splitlines()[0] if str(error) else 'cut short'}). "
                        "Download it again.") from None
    for member, content in members:
        yield from _unpacked(content, f"{name}/{member}", f"{path}/{member}", depth + 1)


def _named_apart(parts: list[Part]) -> list[Part]:
    """The files under names that differ: a second raw/FPT.csv becomes "raw/FPT.csv (2)"."""
    names = {}
    for part in parts:
        name, number = part.facts.file, 2
        while name in names:
            name, number = f"{part.facts.file} ({number})", number + 1
        names[name] = part
    return [replace(part, facts=replace(part.facts, file=name)) for name, part in names.items()]


# ------------------------------------------------------------------------------------------------- adjusting
def _adjusted(part: Part) -> Part:
    """Raw prices beside an adjusted close become adjusted prices; the raw close is kept."""
    if "adj_close" not in part.prices:
        return part
    rows = part.prices.sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    close = rows["close"].to_numpy("float64")
    starts = np.flatnonzero(rows["symbol"].ne(rows["symbol"].shift()).to_numpy())[1:]
    factors = [adjustment_factors(*pair) for pair in zip(
        np.split(close, starts), np.split(rows["adj_close"].to_numpy("float64"), starts), strict=True)]
    factor = np.concatenate(factors)
    changes = np.concatenate([np.abs(np.diff(np.log(one))) > 0.001 for one in factors])
    if not 0.005 < np.median(factor) < 1.01 or (len(changes) > 5 and changes.mean() > 0.3):
        raise DataError(f"{part.path}: the adjusted close is no steady fraction of the close (in the median "
                        f"{np.median(factor):.2g}): the columns seem to be swapped. Put the right headers above them.")
    rows = rows.assign(**{name: rows[name] * factor for name in PRICES}).drop(columns="adj_close")
    is_raw = part.facts.format != "Yahoo" and "raw_close" not in rows  # Yahoo's close is adjusted for splits
    return replace(part, prices=rows.assign(raw_close=close) if is_raw else rows)


def adjustment_factors(close: np.ndarray, adjusted: np.ndarray) -> np.ndarray:
    """`[days], [days] -> [days]`: the factor between raw and adjusted prices of one symbol, undone of its rounding.

    The factor is constant between two corporate actions, and each day confines it to (adjusted ± half a rounding step)
    / close. A new constant begins on the day whose interval leaves nothing of the earlier ones. It is found from all
    its days in the file, so new rows can change the last digits of old adjusted prices, by the size of the rounding.
    """
    known = (close > 0) & (adjusted > 0)
    if not known.any():
        return np.ones(len(close))
    level = np.median(adjusted[known])
    steps = [step for step in 100.0 / 10 ** np.arange(8) if step < level / 25 and np.mean(
        np.abs(adjusted[known] / step - np.round(adjusted[known] / step)) < 1e-6) > 0.98]
    half = (steps or [1e-5])[0] / 2 * (1 + 1e-9)  # of the file's rounding step
    low, high = (adjusted - half) / np.where(known, close, 1), (adjusted + half) / np.where(known, close, 1)
    factor = np.full(len(close), np.nan)
    start, least, most = 0, 0.0, np.inf
    days = [*np.flatnonzero(known).tolist(), None]
    for day in days:
        if day is not None and max(least, low[day]) <= min(most, high[day]):
            least, most = max(least, low[day]), min(most, high[day])
            continue
        same = np.median(np.abs(adjusted[start:day] - close[start:day])) == 0  # an odd day does not shift the rest
        factor[start:day] = 1.0 if same else (least + most) / 2
        if day is not None:
            start, least, most = day, low[day], high[day]
    return factor
