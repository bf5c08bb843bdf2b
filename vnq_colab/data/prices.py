"""Reading prices: files in the price table's own columns, parquet or CSV, alone or a folder of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.findings import CleaningReport
from vnq_colab.errors import DataError, did_you_mean, name_a_few

YEARS = (1990, 2100)  # dates outside are mistakes; the exchange opened in 2000
NEEDED = ("symbol", "date", "open", "high", "low", "close", "volume")
OPTIONAL = ("raw_close", "exchange")
NUMBERS = ("open", "high", "low", "close", "volume", "raw_close")
SYMBOL = r"[A-Z0-9][A-Z0-9._-]{0,19}"  # it becomes part of file names
SUFFIXES = (".parquet", ".csv")


def load_prices(path: str | Path, *, on_bad_rows: str = "raise") -> tuple[pd.DataFrame, CleaningReport]:
    """The cleaned price table of a file, or of all files in a folder, and the report of what cleaning found.

    Prices in VND per share, adjusted; volume in shares. `on_bad_rows` is "raise" (name the first bad row) or "drop".
    Raises DataError when a file is missing, empty, lacks a column, or holds what is not a date or a number.
    """
    return clean_prices(read_prices(path), on_bad_rows=on_bad_rows, source=str(path))


def read_prices(path: str | Path) -> pd.DataFrame:
    """The rows as they stand in the file or the folder, with typed columns; nothing repaired yet."""
    if not str(path).strip():
        raise DataError("the path of the prices is empty. Name a file or a folder.")
    tables = [typed_prices(_read_table(file), str(file)) for file in _files(Path(path))]
    return pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]


def load_index(path: str | Path, symbol: str = "VNINDEX") -> pd.DataFrame:
    """The market index as a table `date, close`; of a file with several indices, the one named `symbol`."""
    path = Path(path)
    table = _lower(_read_table(path))
    if "symbol" in table.columns:
        table = table[table["symbol"] == symbol]
        if table.empty:
            raise DataError(f"{path}: there is no index {symbol} in it.")
    _require_columns(table, ("date", "close"), str(path))
    table = table[["date", "close"]].assign(date=_dates(table["date"], str(path)),
                                            close=_numbers(table, "close", str(path)))
    return table.sort_values("date").drop_duplicates("date", keep="last").reset_index(drop=True)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        near = did_you_mean(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else ""
        raise DataError(f"{path}: there is no such file or folder.{near if 'mean' in near else ''}")
    found = sorted(file for file in path.rglob("*")  # hidden and lock files are not the person's data
                   if file.suffix.lower() in SUFFIXES and not file.name.startswith((".", "~")))
    if not found:
        raise DataError(f"{path}: no {' or '.join(SUFFIXES)} file in this folder. Put the price files there.")
    return found


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: there is no such file.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty. Download it again.")
    try:
        if path.read_bytes()[:4] == b"PAR1":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True,
                                dtype={"symbol": str, "exchange": str})
    except (ValueError, OSError, pd.errors.ParserError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as parquet or CSV ({reason}).") from error
    if table.empty:
        raise DataError(f"{path}: there are no rows below the header. Download it again.")
    return table


def _lower(table: pd.DataFrame) -> pd.DataFrame:
    table = table.rename(columns={name: str(name).strip().lower() for name in table.columns})
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise DataError(f"column {twice[0]} stands twice in the table. Remove one of them.")
    return table


def _require_columns(table: pd.DataFrame, needed: tuple[str, ...], path: str) -> None:
    missing = [name for name in needed if name not in table.columns]
    if missing:
        named = f"column {missing[0]} is" if len(missing) == 1 else f"columns {', '.join(missing)} are"
        spare = [str(name) for name in table.columns if name not in needed + OPTIONAL]
        hints = "".join(did_you_mean(name, spare) for name in missing[:1] if spare)
        raise DataError(f"{path}: {named} missing; "
                        f"found {name_a_few(map(str, table.columns), 12)}."
                        f"{hints if 'mean' in hints else ''} Needed: {', '.join(needed)}.")


def typed_prices(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """A table in the price table's columns and types, rows as they are; `path` names it in a DataError."""
    table = _lower(table)
    _require_columns(table, NEEDED, path)
    table = table[[name for name in NEEDED + OPTIONAL if name in table.columns]].copy()
    nameless = table["symbol"].isna().to_numpy()
    if nameless.any():
        raise DataError(f"{path}: row {int(nameless.argmax()) + 2} has no symbol (and {int(nameless.sum()) - 1} more).")
    table["symbol"] = table["symbol"].astype(str).str.strip().str.upper()
    strange = ~table["symbol"].str.fullmatch(SYMBOL)
    _refuse_unreadable(strange.to_numpy(), table["symbol"], "symbol", "letters and digits such as FPT", path)
    table["date"] = _dates(table["date"], path)
    for name in NUMBERS:
        if name in table.columns:
            table[name] = _numbers(table, name, path)
    return table


def _dates(column: pd.Series, path: str) -> pd.Series:
    """Days without a time of day, in nanoseconds, whatever the file held."""
    as_text = column.astype(str) if column.dtype.kind in "iu" else column  # 20210315 is a day, not nanoseconds
    try:
        dates = pd.to_datetime(as_text, errors="coerce")
    except ValueError:  # several time zones in one column
        raise DataError(f"{path}: the dates have several time zones. Write each as a day such as 2021-03-15.") from None
    dates = dates.mask(~dates.between(*(pd.Timestamp(year, 1, 1, tz=dates.dt.tz) for year in YEARS)))
    _refuse_unreadable(dates.isna().to_numpy(), column, "date", "a date such as 2021-03-15", path)
    if dates.dt.tz is not None:
        dates = dates.dt.tz_convert("Asia/Ho_Chi_Minh").dt.tz_localize(None)  # midnight there is a day earlier in UTC
    return dates.dt.normalize().astype("datetime64[ns]")


def _numbers(table: pd.DataFrame, name: str, path: str) -> pd.Series:
    column = table[name]
    numbers = pd.to_numeric(column, errors="coerce").astype("float64")
    _refuse_unreadable((numbers.isna() & column.notna()).to_numpy(), column, name, "a number", path)
    return numbers


def _refuse_unreadable(bad: np.ndarray, column: pd.Series, name: str, expected: str, path: str) -> None:
    if bad.any():
        more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        found = column.iloc[int(bad.argmax())]
        raise DataError(f"{path}: row {int(bad.argmax()) + 2}: {name} is {found!r}, not {expected}{more}. "
                        "Repair the file.")
