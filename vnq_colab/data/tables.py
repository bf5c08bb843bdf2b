"""Cells of a price file, whatever wrote it: bytes to text, text to columns, columns to days and numbers."""

import csv
import datetime as dt
import io
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv as arrow_csv

from vnq_colab.errors import DataError

YEARS = (1990, 2100)  # dates outside are mistakes, as are those after tomorrow; the exchange opened in 2000
MOST_WEEKENDS = 0.05  # [fraction of the rows] chosen: the dirtiest real file has 0.0002
DELIMITERS = (",", ";", "\t", "|")
NOTHING = ("", "-", "--", "NA", "N/A", "#N/A", "nan", "NaN", "NAN", "null", "NULL", "None", "NaT")
COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:\.0+)?")
SERIAL = re.compile(r"\d{5}(?:\.\d+)?")  # Excel counts days from 1899-12-30
SPLIT = re.compile(r"(\d{1,4})[-/. ](\d{1,2})[-/. ](\d{1,4})(?:[T ,]+(\d{1,2})(?::(\d\d))?(?::(\d\d)(?:\.\d+)?)?"
                   r"\s*([AaPp][Mm])?)?\s*(Z|UTC|[+-]\d\d(?::?\d\d)?)?")
NAMED_MONTHS = ("%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y")
GROUP_SPACE = re.compile(r"(?<=\d)[ '\u00a0](?=\d{3}(?:\D|$))")
GROUPED, WITH_DECIMALS, NUMBER = {}, {}, {}  # by the mark before the decimals
for _mark, _other in ((r"\.", ","), (",", r"\.")):
    GROUPED[_mark[-1]] = re.compile(rf"-?\d{{1,3}}(?:{_mark}\d{{3}})+")
    WITH_DECIMALS[_mark[-1]] = re.compile(  # 12.5, 0.125, 1234.567: decimals; 1,234.5 and 1,234,567: both together
        rf"-?\d*{_mark}(?:\d{{1,2}}|\d{{4,}})|-?(?:0|\d{{4,}}){_mark}\d+"
        rf"|-?\d{{1,3}}(?:{_other}\d{{3}})+{_mark}\d*|-?\d{{1,3}}(?:{_other}\d{{3}}){{2,}}")
    NUMBER[_mark[-1]] = re.compile(
        rf"[-+]?(?:\d{{1,3}}(?:{_other}\d{{3}})+|\d+|(?={_mark}\d))(?:{_mark}\d*)?(?:[eE][-+]?\d+)?")
Column = pa.ChunkedArray


def text_of(data: bytes, path: str) -> bytes:
    """The file as UTF-8 without a byte order mark; old Vietnamese and Western code pages are understood."""
    try:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            data = data.decode("utf-16").encode()
        elif data[:3] == b"\xef\xbb\xbf":
            data = data[3:]
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.encoding.startswith("utf-16"):
            raise DataError(f"{path}: the text is damaged (half a character). Download it again.") from None
        try:
            data = data.decode("cp1258").encode()
        except UnicodeDecodeError:
            data = data.decode("latin-1").encode()
    if b"\0" in data:
        raise DataError(f"{path}: cannot be read as parquet or CSV (it holds NUL bytes). Download it again.")
    if data.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{path}: is a web page, not a price file. Download the file itself.")
    if not data.strip():
        raise DataError(f"{path}: the file is empty. Download it again.")
    return data.strip(b"\r\n") + b"\n"


def first_rows(text: bytes, n_rows: int) -> tuple[list[list[str]], str, list[int]]:
    """The cells of the first lines, the delimiter, and where in the text each of these lines ends."""
    ends, position = [], 0
    while len(ends) < n_rows and position < len(text):
        stops = [stop for stop in (text.find(mark, position) for mark in (b"\n", b"\r")) if stop >= 0]
        position = min(stops) + 1 if stops else len(text)
        position += text[position - 1:position + 1] == b"\r\n"
        ends.append(position)
    lines = text[:ends[-1]].decode().splitlines()
    delimiter = max(DELIMITERS, key=lines[0].count)
    try:
        return list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)), delimiter, ends
    except csv.Error:
        return [lines], delimiter, ends


def read_body(body: bytes, delimiter: str, n_columns: int, wanted: list[int], path: str) -> tuple[pa.Table, list]:
    """The wanted columns as text, named by their number, and the rows whose number of fields is not the header's."""
    misfits = []
    names = [str(number) for number in range(n_columns)]
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(body), read_options=arrow_csv.ReadOptions(column_names=names),
            parse_options=arrow_csv.ParseOptions(
                delimiter=delimiter, invalid_row_handler=lambda row: misfits.append(row) or "skip"),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), include_columns=[str(number) for number in wanted],
                strings_can_be_null=True, null_values=list(NOTHING)))
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as parquet or CSV ({reason}).") from None
    return table, misfits


def columns_of(table: pd.DataFrame) -> dict[str, Column]:
    """A DataFrame's columns; where one mixes types, as text."""
    columns = {}
    for name in table.columns:
        column = table[name]
        try:
            columns[name] = plain(pa.chunked_array([pa.array(column, from_pandas=True)]))
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            columns[name] = _as_text(column.astype(object).where(column.notna(), None))
    return columns


def _as_text(cells: Iterable) -> Column:
    return pa.chunked_array([[None if cell is None else str(cell) for cell in cells]], pa.string())


def plain(column: Column) -> Column:
    """The column without the packing of a dictionary."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def words(column: Column) -> tuple[np.ndarray, list[str | None]]:
    """(code of each row, -1 where nothing stands; the distinct texts in order of appearance)."""
    if not _is_text(column):
        column = _as_text(column.to_pylist()) if pa.types.is_nested(column.type) else column.cast(pa.string())
    encoded = column.combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _is_text(column: Column) -> bool:
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


# --------------------------------------------------------------------------------------------------------------- days
def timestamps(column: Column, path: str) -> np.ndarray:
    """`[rows]` datetime64[ns] in Vietnam's time; NaT where no date from 1990 to tomorrow stands.

    Understood: dates of parquet, 2021-03-15, 20210315, 15/03/2021 or 03/15/2021 (the whole column decides which), with
    or without a time of day and a time zone, and Excel's day numbers. Raises DataError when day and month cannot be
    told apart, or dates are written in several ways, or several time zones stand in one column.
    """
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        zone = getattr(column.type, "tz", None)
        days = column.cast(pa.timestamp("us", zone), safe=False).to_numpy()
        days = days + np.timedelta64(7 if zone else 0, "h")  # what has a zone stands in UTC; midnight in Vietnam is 7
    else:
        if pa.types.is_floating(column.type):
            column = column.cast(pa.decimal128(20, 6), safe=False).cast(pa.string())
        codes, found = words(column)
        days = np.append(_days_of([str(text).strip() for text in found], path), np.datetime64("NaT"))[codes]
    first = np.datetime64(f"{YEARS[0]}-01-01")
    today = (np.datetime64("now") + np.timedelta64(7, "h")).astype("datetime64[D]")  # in Vietnam
    return np.where((days >= first) & (days < today + 2), days, np.datetime64("NaT")).astype("datetime64[ns]")


def refuse_weekends(days: np.ndarray, path: str) -> None:
    """Raises a DataError when many of the days `[rows]` are no trading days."""
    if len(days) >= 20 and (share := _weekends(days) / len(days)) > MOST_WEEKENDS:
        raise DataError(f"{path}: {share:.0%} of the dates are Saturdays and Sundays: they seem to be off by a day, as "
                        "with a wrong time zone, or day and month to be swapped. Write days such as 2021-03-15.")


def _days_of(texts: list[str], path: str) -> np.ndarray:
    """`[texts]` datetime64[ns]: the moments that distinct texts name; NaT for none."""
    parts = np.zeros((len(texts), 3), dtype="int64")  # year, month, day; or two of unknown order and the year
    seconds = np.zeros(len(texts))  # of the day
    ways, zones = np.full(len(texts), "none", dtype="U8"), set()
    for place, text in enumerate(texts):
        if match := COMPACT.fullmatch(text):
            ways[place], parts[place] = "compact", [int(part) for part in match.groups()]
        elif match := SPLIT.fullmatch(text):
            numbers, (hour, minute, second, half, zone) = match.groups()[:3], match.groups()[3:]
            ways[place] = "split" if len(numbers[0]) == 4 else "swapped" if len(numbers[2]) == 4 else "none"
            parts[place] = [int(part) for part in numbers]
            hours = int(hour or 0) if not half else int(hour) % 12 + 12 * (half.upper() == "PM")
            seconds[place] = (hours * 60 + int(minute or 0)) * 60 + int(second or 0)
            zones.add(zone)
        elif SERIAL.fullmatch(text):
            day = dt.date(1899, 12, 30) + dt.timedelta(days=int(float(text)))
            ways[place], parts[place], seconds[place] = "serial", day.timetuple()[:3], round(float(text) % 1 * 86400)
        elif text[-4:].isdigit() and (day := _with_named_month(text)):
            ways[place], parts[place] = "named", day.timetuple()[:3]
    if len(zones) > 1:
        raise DataError(f"{path}: the dates have several time zones. Write each as a day such as 2021-03-15.")
    days = _calendar_days(*parts.T)
    swapped = ways == "swapped"
    if swapped.any():
        days[swapped] = _day_or_month_first(*parts[swapped].T, path)
    found = Counter(ways[~np.isnat(days)]).most_common()
    if len(found) > 1 and found[1][1] > 0.05 * len(days):  # as Excel leaves them when it takes only some for dates
        raise DataError(f"{path}: the dates are written in two ways. Write each as a day such as 2021-03-15.")
    days = np.where(ways == "none", np.datetime64("NaT"), days + seconds.astype("timedelta64[s]"))
    zone = (zones or {None}).pop()
    if zone is None:
        return days
    zone = ("+00" if zone in ("Z", "UTC") else zone).replace(":", "").ljust(5, "0")
    offset = int(zone[0] + "1") * (int(zone[1:3]) * 60 + int(zone[3:5]))  # [minutes] east of Greenwich
    return days + np.timedelta64(7 * 60 - offset, "m")


def _with_named_month(text: str) -> dt.datetime | None:
    for form in NAMED_MONTHS:
        try:
            return dt.datetime.strptime(text, form)
        except ValueError:
            continue
    return None


def _calendar_days(year: np.ndarray, month: np.ndarray, day: np.ndarray) -> np.ndarray:
    """Days; NaT where the calendar has no such day."""
    is_day = (year >= YEARS[0]) & (year < YEARS[1]) & (month >= 1) & (month <= 12) & (day >= 1)
    months = (np.where(is_day, year, 2000) - 1970).astype("datetime64[Y]").astype("datetime64[M]")
    months = months + (np.where(is_day, month, 1) - 1)
    days = months.astype("datetime64[D]") + (np.where(is_day, day, 1) - 1)
    return np.where(is_day & (days.astype("datetime64[M]") == months), days, np.datetime64("NaT")).astype(
        "datetime64[ns]")


def _day_or_month_first(first: np.ndarray, second: np.ndarray, year: np.ndarray, path: str) -> np.ndarray:
    """15/03/2021 or 03/15/2021: a number above 12 tells; else the reading in order and without weekends."""
    readings = [_calendar_days(year, second, first), _calendar_days(year, first, second)]
    votes = [int(((first > 12) & (second <= 12)).sum()), int(((second > 12) & (first <= 12)).sum())]
    if max(votes) > 20 * min(votes):
        days = readings[int(votes[1] > votes[0])]
        if len(days) < 20 or _weekends(days) <= 0.2 * len(days):
            return days
    elif not any(votes) and (readings[0] == readings[1]).all():
        return readings[0]
    elif not any(votes):
        strangeness = []
        for reading in readings:
            steps = np.diff(reading.astype("int64"))
            strangeness.append(_weekends(reading) + int(min((steps < 0).sum(), (steps > 0).sum())))
        if min(strangeness) == 0 and max(strangeness) > 0:
            return readings[int(strangeness[1] == 0)]
    raise DataError(f"{path}: the dates may be day/month or month/day. Write each as a day such as 2021-03-15.")


def _weekends(days: np.ndarray) -> int:
    return int(((days.astype("datetime64[D]").astype("int64") + 3) % 7 > 4).sum())  # 1970-01-01 was a Thursday


# ------------------------------------------------------------------------------------------------------------ numbers
def numbers(columns: dict[str, Column], path: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """({name: float64 values, NaN where nothing stands}, {name: bool, something stands that is no number}).

    Decimal commas and thousands separators are understood where all cells together leave one reading; else DataError.
    """
    values = {}
    for name, column in columns.items():
        try:
            values[name] = column.cast(pa.float64(), safe=False).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    texts = {name: column for name, column in columns.items() if name not in values or _is_text(column)}
    unreadable = {name: np.zeros(len(column), dtype=bool) for name, column in columns.items()}
    whole = values.get("volume", np.empty(0))
    whole = whole[np.isfinite(whole)]
    is_grouped = "volume" in texts and len(whole) and (whole % 1 != 0).mean() > 0.3  # 12.300 shares are 12,300
    if len(values) == len(columns) and not is_grouped:
        return values, unreadable
    cells = {}
    for name, column in texts.items():
        codes, found = words(column)
        cells[name] = codes, [GROUP_SPACE.sub("", str(text).strip()) for text in found]
    mark = _decimal_mark({name: found for name, (_, found) in cells.items()}, path)
    for name, (codes, found) in cells.items():
        distinct = np.array([_decimal(text, mark, name == "volume") for text in found] + [np.nan])
        is_nothing = np.array([text in NOTHING for text in found] + [True])
        values[name], unreadable[name] = distinct[codes], (np.isnan(distinct) & ~is_nothing)[codes]
    return values, unreadable


def _decimal_mark(cells: dict[str, list[str]], path: str) -> str:
    """Which of . and , stands before the decimals; the other one groups thousands."""
    points = commas = doubtful = 0
    for name, texts in cells.items():
        grouped = {mark: sum(map(bool, map(GROUPED[mark].fullmatch, texts))) for mark in ".,"}
        decimals = {mark: sum(map(bool, map(WITH_DECIMALS[mark].fullmatch, texts))) for mark in ".,"}
        points, commas = points + decimals["."], commas + decimals[","]
        if name == "volume":  # whole shares: what looks grouped is grouped
            points += grouped[","]
            commas += grouped["."] if not decimals["."] else 0
        else:
            doubtful += grouped[","]
    if min(points, commas) * 20 > max(points, commas) or (doubtful and not points and not commas):
        raise DataError(f"{path}: commas and points in the numbers can be read in two ways. Write numbers without "
                        "thousands separators, and with a point before the decimals.")
    return "," if commas > points else "."


def _decimal(text: str, mark: str, with_suffix: bool) -> float:
    """The number that a text is; NaN when it is none."""
    factor = {"K": 1e3, "M": 1e6, "B": 1e9}.get(text[-1:].upper(), 1.0) if with_suffix else 1.0  # 1.2M
    match = NUMBER[mark].fullmatch(text if factor == 1 else text[:-1])
    if match is None:
        return np.nan
    return float(match[0].replace("," if mark == "." else ".", "").replace(mark, ".")) * factor
