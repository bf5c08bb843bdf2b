"""Columns and cells of a price file: bytes to text, texts to days and numbers, in one reading for a whole column."""

import contextlib
import csv
import io
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
from pyarrow import csv as arrow_csv

from vnq_colab.data.unpack import MOST_UNPACKED
from vnq_colab.errors import DataError, RowError

PRICES = ("open", "high", "low", "close")  # the columns of a price table: prices in VND per share, volume in shares
NEEDED = ("symbol", "date", *PRICES, "volume")
OPTIONAL = ("raw_close", "exchange")
NUMBERS = (*PRICES, "volume", "adj_close", "raw_close")
NOTHING = ("", "-", "--", "NA", "N/A", "#N/A", "nan", "NaN", "NAN", "<NA>", "null", "NULL", "None", "NaT")
MOST_ROWS = 6_000_000  # of a file below 100 MB; all of Vietnam's stocks since 2000 have 5 million
BLOCK = 2**20  # [bytes] without the end of a line end pyarrow's threads in a crash
MOST_HEADER, MOST_TEXTS = 100_000, 3_000_000  # [bytes]; all volumes of the market in a dozen years, as texts
MOST_FRACTIONAL = 0.3  # [fraction of the volumes] more, such as 12.3, are thousands: 12.300 shares
FIRST_DAY = np.datetime64("1990-01-01")  # dates before it are mistakes, as are those after tomorrow
VIETNAM = "Asia/Ho_Chi_Minh"
ISO, COMPACT, DAY_FIRST, MONTH_FIRST = "%Y-%m-%d", "%Y%m%d", "%d-%m-%Y", "%m-%d-%Y"
DATE_FORMATS = (ISO, DAY_FIRST, MONTH_FIRST, COMPACT, "%d-%b-%Y")  # with / or . between, too
MOST = 0.95  # [fraction of a column's texts] a format that reads that many is the column's
ZONED = r"[T ]\d\d(?::?\d\d)*(?:\.\d+)? ?(?:Z|UTC|[+-]\d\d:?\d\d)$"
TIME_OF_DAY = r"(?<=\d)[T ,]+\d{1,2}:\d\d.*$|(?<=^\d{8})\.0+$"
NUMBER = {mark: re.compile(  # by the decimal mark; the other one groups thousands
    rf"[-+]?(?:\d{{1,3}}(?:[{other}]\d{{3}})+|\d+|(?=[{mark}]\d))(?:[{mark}]\d*)?(?:[eE][-+]?\d+)?")
    for mark, other in (".,", ",.")}


def text_of(data: bytes, path: str) -> bytes:
    """A file in UTF-8, UTF-16 or an old Vietnamese or Western code page as UTF-8, its lines ending in a newline."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode()
    elif not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            data = data.decode("cp1258", "replace").encode()  # the Western one differs in letters alone
    if b"\0" in data:
        raise DataError(f"{path}: cannot be read as parquet or CSV (it holds NUL bytes). Download it again.")
    if is_web_page(data):
        raise DataError(f"{path}: is a web page, not a price file. Download the file itself.")
    if not data or data.isspace():
        raise DataError(f"{path}: the file is empty. Download it again.")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data if data[:1] != b"\n" and data[-1:] == b"\n" != data[-2:-1] else data.strip(b"\n") + b"\n"


def header_of(text: bytes, path: str) -> tuple[list[str], str, memoryview]:
    """(the names in the first line, the delimiter, all lines below)."""
    end = text.index(b"\n")
    if end > MOST_HEADER or any(text.find(b"\n", at, at + BLOCK) < 0 for at in range(end + 1, len(text), BLOCK)):
        raise DataError(f"{path}: a line of it is longer than any of a price file. Download it again.")
    line = text[:end].decode(errors="replace")
    delimiter = max(",;\t|", key=line.count)
    return next(csv.reader([line], delimiter=delimiter)), delimiter, memoryview(text)[end + 1:]


def unreadable(path: str, error: Exception) -> DataError:
    """The sentence for what pandas or pyarrow raised on a file."""
    reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
    return DataError(f"{path}: cannot be read as parquet or CSV ({reason}).")


def is_web_page(data: bytes) -> bool:
    """True when a file begins as HTML or XML does; CafeF's own headers begin with <Ticker>."""
    return bool(re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|error)\b", data[:200], re.IGNORECASE))


def distinct(column: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """(code of each row, -1 where nothing stands; the distinct texts): each text is parsed once."""
    if not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(str).astype("category")
    texts = pd.Series(column.cat.categories.astype(str), dtype=object).str.strip()
    codes = column.cat.codes.to_numpy()
    return np.where(np.append(texts.isin(NOTHING), True)[codes], -1, codes), texts


def days_of(column: pd.Series, path: str, *, day_first: bool = False) -> np.ndarray:
    """`[rows]` datetime64[ns], days in Vietnam; NaT for none from 1990 to tomorrow. Raises DataError in doubt."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert(VIETNAM).dt.tz_localize(None)
    if pd.api.types.is_datetime64_dtype(column):
        days = column.to_numpy("datetime64[D]")
    else:
        codes, texts = distinct(column)
        days = np.append(_parsed_days(texts, path, day_first), np.datetime64("NaT"))[codes]
    tomorrow = np.datetime64(pd.Timestamp.now(VIETNAM).date()) + 1
    return np.where((days >= FIRST_DAY) & (days <= tomorrow), days, np.datetime64("NaT")).astype("datetime64[ns]")


def _parsed_days(texts: pd.Series, path: str, day_first: bool) -> np.ndarray:
    """All of a column is written in one of DATE_FORMATS, with or without a time of day."""
    if day_first:  # as its provider writes, beside rows of remarks
        days = pd.to_datetime(texts, format="%d/%m/%Y", errors="coerce")
        if days.count() >= MOST * len(texts) and not texts[days.isna()].str.fullmatch(r"[\d/]+").any():
            return days.to_numpy("datetime64[D]")
    for form in (ISO, COMPACT):  # what most files have needs no tidying
        with contextlib.suppress(ValueError):
            return pd.to_datetime(texts, format=form).to_numpy("datetime64[D]")
    zoned = texts.str.contains(ZONED)
    if zoned.any():
        moments = pd.to_datetime(texts[zoned], format="ISO8601", utc=True, errors="coerce")
        texts = texts.mask(zoned, moments.dt.tz_convert(VIETNAM).dt.strftime(ISO))
    texts = texts.str.replace(TIME_OF_DAY, "", regex=True).str.replace(r"(?<=\w)[/. ](?=\w)", "-", regex=True)
    days = {form: pd.to_datetime(texts, format=form, errors="coerce") for form in DATE_FORMATS}
    n_read = {form: of_form.count() for form, of_form in days.items()}
    best = max(n_read, key=n_read.get)
    if best == DAY_FIRST and not day_first and n_read[MONTH_FIRST] == n_read[DAY_FIRST] \
            and not days[MONTH_FIRST].equals(days[DAY_FIRST]):
        raise RowError(f"{path}: the dates, such as {texts.iloc[0]}, may be day/month or month/day. Write each as a "
                       "day such as 2021-03-15.")
    return days[best].to_numpy("datetime64[D]")


def read_csv(text: memoryview, delimiter: str, n_columns: int, wanted: dict[str, int], path: str,
             ) -> tuple[pd.DataFrame, int]:
    """(the wanted columns {name: place} as text or as clean numbers; how many rows have another number of fields)."""
    places, misfits = [f"{place}" for place in range(n_columns)], []

    def skip(row: arrow_csv.InvalidRow) -> str:
        misfits.append(row)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(text), read_options=arrow_csv.ReadOptions(column_names=places, block_size=BLOCK),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=True, null_values=NOTHING,
                include_columns=[f"{place}" for place in wanted.values()]))
    except Exception as error:  # what pyarrow raises on damaged text
        raise unreadable(path, error) from None
    table = table.rename_columns([*wanted])
    with contextlib.suppress(pa.ArrowInvalid):  # most files have nothing but plain numbers in all of these columns
        plain = table.cast(pa.schema([(name, pa.float64() if name in NUMBERS else pa.string()) for name in wanted]))
        if "volume" in wanted and (plain["volume"].to_numpy() % 1 > 0).sum() <= MOST_FRACTIONAL * len(table):
            table = plain
    return _frame(table, path), len(misfits)


def _frame(table: pa.Table, path: str) -> pd.DataFrame:
    """A table in pandas, its texts as categories: each of them once. Raises DataError where these are too many."""
    n_texts = 0
    for place, field in enumerate(table.schema):
        if field.type in (pa.string(), pa.large_string(), pa.string_view()) or pa.types.is_dictionary(field.type):
            column = table[place].dictionary_encode()
            column = column.unify_dictionaries() if column.num_chunks > 1 else column
            table = table.set_column(place, field.name, column)
            n_texts += len(column.chunk(0).dictionary) if column.num_chunks else 0
        elif pa.types.is_decimal(field.type):
            table = table.set_column(place, field.name, table[place].cast(pa.float64()))
    refuse_too_many(n_texts, MOST_TEXTS, path, "different texts")
    return table.to_pandas(date_as_object=False, ignore_metadata=True)  # else an index is no column


def read_parquet(data: bytes, match: Callable[[list[str]], dict[str, str]], path: str, most_rows: int,
                 ) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """(the columns that `match` chooses of the header, under our names; what it chose; the header)."""
    try:
        metadata = parquet.read_metadata(io.BytesIO(data))
        schema = metadata.schema.to_arrow_schema()
        matched = match(schema.names)
        wanted = [*matched.values()]
        types = {theirs: schema.field(theirs).type for theirs in wanted}
        if nested := [theirs for theirs, kind in types.items() if pa.types.is_nested(kind)]:
            raise DataError(f"{path}: column {nested[0]} holds {types[nested[0]]}, not one text, day or number in each "
                            "row. Write it so.")
        places = [place for place in range(metadata.num_columns) if metadata.schema.column(place).path in types]
        chunks = [metadata.row_group(group).column(place)
                  for group in range(metadata.num_row_groups) for place in places]
        refuse_too_many(sum(chunk.num_values for chunk in chunks) // len(places), most_rows, path)
        refuse_too_many(sum(chunk.total_uncompressed_size for chunk in chunks), max(MOST_UNPACKED, 8 * len(data)),
                         path, "bytes")
        file = parquet.ParquetFile(io.BytesIO(data), metadata=metadata, read_dictionary=wanted)  # each text once
        table = _frame(file.read(columns=wanted), path)
    except DataError:
        raise
    except Exception as error:  # what pyarrow and pandas raise on damaged bytes
        raise unreadable(path, error) from None
    return table[wanted].set_axis([*matched], axis=1), matched, schema.names


def refuse_too_many(n: int, most: int, path: str, what: str = "rows") -> None:
    """Raises a DataError where a file holds more of something than any file of prices does."""
    if n > most:
        raise DataError(f"{path}: has {n:,} {what}, of which at most {most:,} are read from a file of its size. Bring "
                        "one row per stock and day, in several files.")


def numbers_of(columns: dict[str, pd.Series], path: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """({name: float64 values, NaN where nothing stands}, {name: bool, something stands that is no number}).

    The decimal mark is the point or the comma, whichever leaves fewer cells unread and fewer volumes fractional. Raises
    DataError where both leave equally many and their values differ.
    """
    values = {name: column.to_numpy("float64", na_value=np.nan) for name, column in columns.items()
              if pd.api.types.is_numeric_dtype(column)}
    unreadable = {name: np.zeros(len(column), dtype=bool) for name, column in values.items()}
    cells = {name: distinct(column) for name, column in columns.items() if name not in values}
    parsed, n_odd = _parsed_numbers(cells, ".")
    has_commas = any("," in text for _, texts in cells.values() for text in texts)
    if n_odd or has_commas:
        other, n_odd_other = _parsed_numbers(cells, ",")
        differ = any(not np.array_equal(parsed[name], other[name], equal_nan=True) for name in cells)
        if has_commas and differ and n_odd == n_odd_other:
            raise RowError(f"{path}: commas and points in the numbers can be read in two ways. Write them without "
                           "thousands separators.")
        parsed = other if n_odd_other < n_odd else parsed
    for name, (codes, _) in cells.items():
        values[name] = np.append(parsed[name], np.nan)[codes]
        unreadable[name] = np.isnan(values[name]) & (codes >= 0)
    return values, unreadable


def _parsed_numbers(cells: dict[str, tuple[np.ndarray, pd.Series]], mark: str) -> tuple[dict[str, np.ndarray], int]:
    """(the values of the distinct texts, NaN for what is no number; how many are none, or parts of a share)."""
    parsed, n_odd = {}, 0
    for name, (codes, texts) in cells.items():
        parsed[name] = np.array([_number(text, mark, name == "volume") for text in texts], dtype="float64")
        used = parsed[name][np.unique(codes[codes >= 0])]
        n_odd += int((np.isnan(used) | ((used % 1 != 0) & (name == "volume"))).sum())
    return parsed, n_odd


def _number(text: str, mark: str, with_suffix: bool) -> float:
    """The number that a text is, 1.2M of shares too; NaN where it is none."""
    if mark == "." and text.replace(".", "", 1).isdecimal():
        return float(text)
    factor = {"K": 1e3, "M": 1e6, "B": 1e9}.get(text[-1:].upper(), 1.0) if with_suffix else 1.0
    match = NUMBER[mark].fullmatch(text if factor == 1 else text[:-1])
    return float(match[0].replace("," if mark == "." else ".", "").replace(mark, ".")) * factor if match else np.nan
