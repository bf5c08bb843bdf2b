"""Reading prices: any files of daily prices, alone, in a folder or in zips, as one table in VND per share."""

import gzip
import hashlib
import io
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from vnq_colab.data.cells import NEEDED, OPTIONAL
from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.findings import CleaningReport, FileFacts
from vnq_colab.data.formats import NO_DATE, NO_NUMBER, OWN, index_name, read_file, refuse_other_bars, typed_rows
from vnq_colab.data.units import Unit, adjusted, in_vnd, unit_of
from vnq_colab.errors import DataError, did_you_mean, name_a_few

SUFFIXES = (".parquet", ".csv", ".txt", ".zip", ".gz", ".xlsx", ".xls")


@dataclass(frozen=True)
class Reading:
    """The rows of all files as they stand, in one unit, and what each file was taken for."""

    prices: pd.DataFrame  # stocks: symbol, date, open, high, low, close [VND], volume [shares], ..., file
    index: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["symbol", "date", "close"]))  # [points]
    files: list[FileFacts] = field(default_factory=list)

    @property
    def on_bad_rows(self) -> str:
        """What cleaning does by default: the price table's own columns promise clean rows, providers' files nothing."""
        return "raise" if all(file.format == OWN.name for file in self.files if file.rows) else "treat"


def load_prices(path: str | Path, *, unit: Unit = None, on_bad_rows: str | None = None,
                treatments: dict[str, str] | None = None) -> tuple[pd.DataFrame, CleaningReport]:
    """The cleaned price table of a file, folder, zip or Drive link, and the report of what was read and repaired.

    Prices in VND per share, adjusted; volume in shares. `unit` as in `read_prices`; `on_bad_rows` and `treatments` as
    in `clean_prices`, None: "raise" for tables in our own columns, else "treat". Raises DataError when a file is
    missing, empty or no table of daily prices, or its unit is in doubt.
    """
    reading = read_prices(fetched(path), unit=unit, on_bad_rows=on_bad_rows)
    if reading.prices.empty:
        raise DataError(f"{path}: there are no stocks in it. Name files with the prices of stocks.")
    return clean_prices(reading.prices, on_bad_rows=on_bad_rows or reading.on_bad_rows, treatments=treatments,
                        source=str(path), files=reading.files)


def fetched(path: str | Path) -> Path:
    """The local copy of what a Drive share link names; any other path as it is."""
    if not isinstance(path, (str, Path)) or not str(path).strip():
        found = "empty" if isinstance(path, str) else type(path).__name__
        raise DataError(f"the path of the prices is {found}. Name a file or a folder; a table goes to prepare.")
    link = str(path)
    if not link.startswith(("http://", "https://")):
        return Path(path)
    from vnq_colab.data.collect import download_drive

    return download_drive(link, Path.home() / ".cache" / "vnq_colab" / hashlib.sha256(link.encode()).hexdigest()[:8])


def read_prices(path: str | Path | list[str | Path], *, unit: Unit = None, on_bad_rows: str | None = None) -> Reading:
    """The rows as they stand in files, folders and zips, with typed columns and in VND; nothing repaired yet.

    `unit` settles whether files hold "VND" or "kVND" (thousand VND): one for all, or {file name: unit}; None tells it
    from the prices. `on_bad_rows` "drop" and "treat" leave out rows that cannot be read, up to 5 %, and count them;
    else such a row in a table of our own columns is a DataError. In the order of `file` later ones win: those of later
    paths, and in a folder those of a later last day; unadjusted ones come first.
    """
    paths = path if isinstance(path, list) else [path]
    files = []
    for one in paths:
        some = [adjusted(read_file(*content, strict=on_bad_rows in (None, "raise")))
                for content in _contents(Path(one), f"{Path(one).name}/" if len(paths) > 1 else "")]
        files += sorted(some, key=lambda file: (not file.unadjusted, file.facts.last_day, file.facts.file))
    seen = Counter()
    for file in files:
        seen[file.name] += 1
        if seen[file.name] > 1:  # a second raw/FPT.csv becomes "raw/FPT.csv (2)"
            file.facts = replace(file.facts, file=f"{file.name} ({seen[file.name]})")
    files = in_vnd(files, unit)
    filled = [file for file in files if len(file.prices)]
    columns = [*NEEDED, *OPTIONAL, *(["unadjusted"] if any(file.unadjusted for file in files) else [])]
    prices = pd.concat([file.prices.assign(unadjusted=file.unadjusted) for file in filled],
                       ignore_index=True) if filled else pd.DataFrame(columns=columns)
    prices = prices[[name for name in columns if name in prices]]
    if "exchange" in prices:
        prices["exchange"] = prices["exchange"].fillna("")
    codes = np.repeat(np.arange(len(filled)), [len(file.prices) for file in filled])
    prices["file"] = pd.Categorical.from_codes(codes, [file.facts.file for file in filled], ordered=True)
    index = pd.concat([file.index for file in files], ignore_index=True)
    index = index.sort_values(["symbol", "date"], kind="stable").drop_duplicates(["symbol", "date"], keep="last")
    return Reading(prices, index.reset_index(drop=True), [file.facts for file in files])


def typed_prices(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """A table in the price table's columns and types, rows as they are; `path` names it in a DataError."""
    picked = _own_columns(table, NEEDED, path)
    rows = typed_rows(picked, path, strict=True)[0][[*picked]]
    refuse_other_bars(rows, path)
    if unit_of(rows, path, "VND") != "VND":
        raise DataError(f"{path}: the median close is {rows['close'].median():,.1f}, which looks like thousand VND. "
                        "Multiply the prices by 1,000: they are read as VND per share.")
    return rows


def _own_columns(table: pd.DataFrame, needed: tuple[str, ...], path: str) -> pd.DataFrame:
    """The price table's own columns that are there, written in any case, under our names."""
    lowered = [str(name).strip().lower() for name in table.columns]
    names = [*needed, *(name for name in OPTIONAL if name in lowered)]
    wrong = [name for name in names if lowered.count(name) != 1]
    if wrong or table.empty:
        raise DataError(f"{path}: needed are some rows with one column {', one column '.join(wrong or names)}; found "
                        f"{len(table):,} rows of {name_a_few(map(str, table.columns), 12) or 'no columns'}. Name the "
                        "columns so.")
    return table.iloc[:, [lowered.index(name) for name in names]].set_axis(names, axis=1)


# -------------------------------------------------------------------------------------------------------------- index
def load_index(index: str | Path | pd.DataFrame, symbol: str = "VNINDEX") -> pd.DataFrame:
    """The market index `date, close` [points], one row a date, from a file or a table with these columns.

    Of a file with several indices, the one named `symbol`. Raises DataError when it is not there, or a day of it has no
    close above 0 or cannot be read.
    """
    if isinstance(index, pd.DataFrame):
        path = "the index"
        rows = typed_rows(_own_columns(index, ("date", "close"), path), path, strict=True)[0]
    else:
        path, nameless = Path(index), symbol if Path(index).is_file() and not zipfile.is_zipfile(index) else ""
        files = [read_file(*content, index=nameless) for content in _contents(path, "")]
        files = [file for file in files if (file.index["symbol"] == index_name(symbol)).any()]
        if not files:
            raise DataError(f"{path}: there is no index {symbol} in it.")
        for file in files:
            if lost := [f"{why} {n:,}" for why, n in file.facts.dropped.items() if why in (NO_DATE, NO_NUMBER)]:
                raise DataError(f"{file.path}: days of the index cannot be read ({', '.join(lost)}). Repair the file.")
        rows = pd.concat([file.index for file in sorted(files, key=lambda file: file.facts.last_day)])
        rows = rows[rows["symbol"] == index_name(symbol)]
    bad = rows[~(np.isfinite(rows["close"]) & (rows["close"] > 0))]
    if len(bad):
        day, close = bad["date"].iloc[0], bad["close"].iloc[0]
        found = "missing" if np.isnan(close) else f"{close:,g}, not above 0" if close <= 0 else "not finite"
        raise DataError(f"{path}: {day:%Y-%m-%d}: the close of the index is {found} (and {len(bad) - 1} more rows). "
                        "Repair it, or take these days out.")
    rows = rows[["date", "close"]].sort_values("date", kind="stable")
    return rows.drop_duplicates("date", keep="last", ignore_index=True)


# -------------------------------------------------------------------------------------------------------------- files
def price_files(folder: Path) -> list[Path]:
    """The files below a folder that `read_prices` reads, in order; none when there is no such folder."""
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from None

    found = (Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names)
    return sorted(file for file in found if _is_wanted(file))


def _contents(path: Path, prefix: str) -> Iterator[tuple[bytes, str, str]]:
    """(content, name below the folder, name in an error) of every file, members of zips included."""
    if not path.exists():
        near = did_you_mean(path.name, [file.name for file in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: there is no such file or folder.{near if 'mean' in near else ''}")
    found = [(path, path.name)] if path.is_file() else [
        (file, prefix + file.relative_to(path).as_posix()) for file in price_files(path)]
    empty = True
    for file, name in found:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise DataError(f"{file}: cannot be read ({error.strerror}).") from None
        for content in _unpacked(data, name, str(file)):
            empty = False
            yield content
    if empty:
        raise DataError(f"{path}: no {', '.join(SUFFIXES[:3])} or .zip file in it. Put the price files there.")


def _is_wanted(file: PurePath) -> bool:
    """Hidden and lock files are not the person's data."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith((".", "~")) and "__MACOSX" not in file.parts


def _unpacked(data: bytes, name: str, path: str) -> Iterator[tuple[bytes, str, str]]:
    """The file itself, or what is packed in it, read in memory; a zip may hold CafeF's zips."""
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        if data[:2] != b"PK" or b"xl/workbook" in data:
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
        yield from _unpacked(content, f"{name}/{member}", f"{path}/{member}")
