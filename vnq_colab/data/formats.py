"""Recognising one price file by its content: which provider wrote it, what its columns are, which rows are stocks."""

import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet

from vnq_colab.data.columns import NEEDED, OPTIONAL, PRICES
from vnq_colab.data.findings import FileFacts
from vnq_colab.data.tables import (
    Column,
    first_rows,
    numbers,
    plain,
    read_body,
    refuse_weekends,
    text_of,
    timestamps,
    words,
)
from vnq_colab.data.tickers import index_name, kinds_of, symbol_of
from vnq_colab.errors import DataError, did_you_mean, name_a_few

SYMBOL = r"[A-Z0-9][A-Z0-9._-]{0,19}"  # it becomes part of file names
MOST_UNREADABLE = 0.05  # [fraction of the rows] chosen: the dirtiest real file has 0.01

# ours: what others call it, without accents, case and punctuation; of several in one file the first here counts
SYNONYMS = {
    "symbol": "symbol ticker code stockcode stocksymbol ma mack machungkhoan macp macophieu stock",
    "date": "date tradingdate tradedate dtyyyymmdd ngay ngaygiaodich ngaygd datetime time timestamp day thoigian",
    "open": "open openfixed priceopen openprice giamocua mocua giamo mo",
    "high": "high highfixed pricehigh highprice highestprice giacaonhat caonhat giacao cao",
    "low": "low lowfixed pricelow lowprice lowestprice giathapnhat thapnhat giathap thap",
    "close": "close closefixed priceclose closeprice giadongcua dongcua giadong lastprice price lancuoi",
    "adj_close": "adjclose adjustedclose closeadj closeadjusted giadieuchinh giadongcuadieuchinh",
    "raw_close": "rawclose closeraw unadjustedclose",
    "volume": "volume vol khoiluong kl klgd khoiluonggd khoiluonggiaodich khoiluongkhoplenh klkhoplenh totalvolume",
    "exchange": "exchange san sangiaodich floor market",
}
OWN, MISFIT = "price table", "wrong number of fields"
MUTE = ("by its headers", "Yahoo")  # formats that do not say whether prices are adjusted


@dataclass
class Part:
    """One file as read: prices in the file's own unit, indices in points."""

    path: str  # as an error names it
    facts: FileFacts
    prices: pd.DataFrame  # symbol, date, open, high, low, close, volume; perhaps raw_close, exchange
    index: pd.DataFrame  # symbol, date, close
    unadjusted: bool = False


def read_part(data: bytes, name: str, path: str, *, is_index: bool = False, strict: bool = True) -> Part:
    """The rows of one file and what it was taken for. `is_index`: a table without symbols is an index all the same.

    `strict` refuses a table of our own columns of which any row cannot be read.

    Raises DataError when it is no table of daily prices, or more than 5 % of a provider's rows cannot be read.
    """
    if data[:4] == b"PAR1":
        columns, matched, form, lost = _parquet(data, path)
    elif data[:4] == b"\xd0\xcf\x11\xe0" or (data[:4] == b"PK\x03\x04" and b"xl/" in data):
        raise DataError(f"{path}: is an Excel file. Open it in Excel and save the sheet as CSV.")
    else:
        columns, matched, form, lost = _text(data, path, strict)
    if not len(columns["date"]) and not lost.get(MISFIT):
        raise DataError(f"{path}: there are no rows below the header. Download it again.")
    in_name = re.search(r"(?:^|[._/])(?:RAW_)?(HSX|HOSE|HNX|UPCOM|INDEX)[._]", name, re.IGNORECASE)
    place = in_name[1].upper().replace("HSX", "HOSE") if in_name and form == "CafeF" else ""
    unadjusted = form == "CafeF" and bool(re.search(r"RAW_|\.Raw\.", name, re.IGNORECASE))
    rows, dropped = typed_rows(columns, path, strict=strict and form == OWN, n_misfits=lost.pop(MISFIT, 0))
    dropped |= {reason: n for reason, n in lost.items() if n}
    _refuse_intraday(rows, path)
    refuse_weekends(rows["date"].to_numpy(), path)
    if "symbol" not in rows:
        rows["symbol"] = "VNINDEX" if is_index else symbol_of(name, path, list(matched.values()))
    codes, symbols = pd.factorize(rows["symbol"])
    kinds = np.array([*kinds_of(symbols).values()], dtype=object)[codes]
    if place == "INDEX" or is_index:
        kinds[:] = "index"
    stocks = kinds == "stock"
    if stocks.any():
        require_columns(matched, list(matched.values()), [name for name in NEEDED if name != "symbol"], path)
        refuse_swapped(rows[stocks], path, least_rows=20 if form == OWN else 3)
    index = rows.loc[kinds == "index", ["symbol", "date", "close"]]
    index = index.assign(symbol=index["symbol"].map({name: index_name(name) for name in index["symbol"].unique()}))
    prices = rows[stocks] if not stocks.all() else rows
    if unadjusted:
        prices = prices.assign(raw_close=prices["close"])
    if place in ("HOSE", "HNX", "UPCOM"):
        prices = prices.assign(exchange=place)
    apart = dict(Counter(kinds[~stocks].tolist()))
    shown = prices if len(prices) else index if len(index) else rows
    facts = FileFacts(name, form, "" if len(prices) else "points", None if form in MUTE else not unadjusted,
                      len(prices), f"{shown['date'].min():%Y-%m-%d}", f"{shown['date'].max():%Y-%m-%d}",
                      matched, apart, dropped)
    return Part(path, facts, prices.reset_index(drop=True), index.reset_index(drop=True), unadjusted)


# ------------------------------------------------------------------------------------------------ headers and columns
def match_columns(header: list[str], path: str) -> dict[str, str]:
    """{ours: the file's own header}, by synonyms. Raises DataError when there is no date or close, or one twice."""
    lowered = [str(name).strip().lower() for name in header]
    for ours in NEEDED + OPTIONAL:
        if lowered.count(ours) > 1:
            raise DataError(f"{path}: column {ours} stands twice in the table. Remove one of them.")
    named = dict(zip(map(_bare, reversed(header)), reversed(header), strict=True))
    found = {ours: [named[name] for name in theirs.split() if name in named] for ours, theirs in SYNONYMS.items()}
    matched = {ours: names[0] for ours, names in found.items() if names}
    if "date" not in matched or "close" not in matched:
        require_columns(matched, header, NEEDED, path)
    return matched


def require_columns(matched: Iterable[str], header: Iterable[str], needed: Iterable[str], path: str) -> None:
    """Raises a DataError that names the missing columns and the nearest header."""
    missing = [name for name in needed if name not in matched]
    if missing:
        named = f"column {missing[0]} is" if len(missing) == 1 else f"columns {', '.join(missing)} are"
        spare = [str(name) for name in header if str(name).strip().lower() not in NEEDED + OPTIONAL]
        hint = did_you_mean(missing[0], spare) if spare else ""
        raise DataError(f"{path}: {named} missing; found {name_a_few([str(name)[:40] for name in header], 12)}."
                        f"{hint if 'mean' in hint else ''} Needed: {', '.join(NEEDED)}; or take the file out.")


def _bare(header: object) -> str:
    """ "Giá đóng cửa" and "<GiaDongCua>" are both giadongcua."""
    letters = unicodedata.normalize("NFKD", str(header).lower().replace("đ", "d"))
    return re.sub(r"[^a-z0-9]", "", letters)


def _format_of(header: list[str]) -> str:
    lowered = [str(name).strip().lower() for name in header]
    if set(NEEDED) <= set(lowered):
        return OWN
    if {"<ticker>", "<dtyyyymmdd>"} <= set(lowered):
        return "AmiBroker" if "<openfixed>" in lowered else "CafeF"
    if lowered[:7] == ["date", "open", "high", "low", "close", "adj close", "volume"]:
        return "Yahoo"
    if "adj close" in lowered and "date" in lowered:
        return "VNDirect"
    if lowered[:6] == ["date", "close", "volume", "open", "high", "low"]:
        return "cophieu68"
    return "vnstock" if lowered[:5] == ["time", "open", "high", "low", "close"] else "by its headers"


def _parquet(data: bytes, path: str) -> tuple[dict[str, Column], dict[str, str], str, dict[str, int]]:
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        header = file.schema_arrow.names
        matched = match_columns(header, path)
        table = file.read(columns=list(matched.values()))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as parquet or CSV ({str(error).splitlines()[0]}).") from None
    return {ours: plain(table.column(name)) for ours, name in matched.items()}, matched, _format_of(header), {}


def _text(data: bytes, path: str, strict: bool) -> tuple[dict[str, Column], dict[str, str], str, dict[str, int]]:
    text = text_of(data, path)
    head, delimiter, ends = first_rows(text, 3)
    if [_bare(row[0]) for row in head if row] in (["price", "ticker", "date"], ["ticker", "price", "date"]):
        return _yahoo(text[ends[2]:], head, delimiter, path)
    header, form = head[0], _format_of(head[0])
    matched = match_columns(header, path)
    if not text[ends[0]:].strip():
        raise DataError(f"{path}: there are no rows below the header. Download it again.")
    wanted = {ours: header.index(theirs) for ours, theirs in matched.items()}
    table, misfits = read_body(text[ends[0]:], delimiter, len(header), list(wanted.values()), path)
    if misfits and strict and form == OWN:
        raise DataError(f"{path}: cannot be read as parquet or CSV ({len(misfits)} rows do not have {len(header)} "
                        f"fields, such as {misfits[0].text[:60].splitlines()[0]!r}).")
    return {ours: table.column(str(number)) for ours, number in wanted.items()}, matched, form, {MISFIT: len(misfits)}


def _yahoo(body: bytes, head: list[list[str]], delimiter: str, path: str) -> tuple:
    """Columns of yfinance's three header lines, which may hold several tickers side by side, padded to equal days."""
    fields, tickers = head[:2] if _bare(head[0][0]) == "price" else head[1::-1]
    if len(fields) != len(tickers) or not body.strip():
        raise DataError(f"{path}: its three header lines do not fit its columns. Download it again.")
    table, misfits = read_body(body, delimiter, len(fields), list(range(len(fields))), path)
    parts, n_empty, names = [], 0, dict.fromkeys(tickers[1:])
    for ticker in names:
        places = [place for place, name in enumerate(tickers) if name == ticker]
        matched = match_columns(["Date"] + [fields[place] for place in places], path)
        by_name = {"Date": 0} | {fields[place]: place for place in places}
        part = {ours: table.column(str(by_name[theirs])) for ours, theirs in matched.items()}
        part["symbol"] = pa.chunked_array([pa.array([ticker] * len(table), pa.string())])
        traded = part["close"].is_valid()
        days = np.flatnonzero(traded)
        n_empty += (len(table) if len(names) == 1 else int(np.ptp(days)) + 1 if len(days) else 0) - len(days)
        parts.append({ours: column.filter(traded) for ours, column in part.items()})
    columns = {ours: pa.chunked_array([chunk for part in parts for chunk in part[ours].chunks], pa.string())
               for ours in parts[0] if all(ours in part for part in parts)}
    return columns, matched | {"symbol": "Ticker"}, "Yahoo", {MISFIT: len(misfits), "no close": n_empty}


# --------------------------------------------------------------------------------------------------------------- rows
def typed_rows(columns: dict[str, Column], path: str, *, strict: bool, n_misfits: int = 0,
               ) -> tuple[pd.DataFrame, dict[str, int]]:
    """Rows with typed columns, and how many were left out for which reason.

    `strict` names the first row that cannot be read in a DataError; else such rows are left out, up to 5 % of all.
    """
    n_rows, table, left_out = len(columns["date"]), {}, {}
    if "symbol" in columns:
        codes, found = words(columns["symbol"])
        found = [str(name or "").strip().upper() for name in found] + [""]
        names = np.array([re.sub(r"\.(?:VN|HM|HN)$", "", name) for name in found], dtype=object)
        strange = np.array([not re.fullmatch(SYMBOL, name.removeprefix("^")) for name in names])
        nameless = (names == "")[codes]
        if strict and nameless.any():
            raise DataError(f"{path}: row {nameless.argmax() + 2} has no symbol (and {nameless.sum() - 1} more).")
        left_out |= {"no symbol": nameless, "symbol unreadable": strange[codes] & ~nameless}
        if strict:
            _refuse(strange[codes], columns["symbol"], "symbol", "letters and digits such as FPT", path)
        table["symbol"] = names[codes]
    moments = timestamps(columns["date"], path)
    left_out["date unreadable or in the future"] = np.isnat(moments)
    if strict:
        _refuse(np.isnat(moments), columns["date"], "date", "a past date such as 2021-03-15", path)
    table["date"] = moments.astype("datetime64[D]").astype("datetime64[ns]")
    values, unreadable = numbers({name: columns[name] for name in (*PRICES, "volume", "adj_close", "raw_close")
                                  if name in columns}, path)
    for name, bad in unreadable.items():
        if strict:
            _refuse(bad, columns[name], name, "a number", path)
    left_out["number unreadable"] = np.logical_or.reduce(list(unreadable.values()))
    table |= values
    if "exchange" in columns:
        codes, found = words(columns["exchange"])
        table["exchange"] = np.array([*(str(name).strip().upper() for name in found), ""], dtype=object)[codes]
    bad, dropped = np.zeros(n_rows, dtype=bool), {MISFIT: n_misfits}
    for reason, which in left_out.items():
        dropped[reason] = int((which & ~bad).sum())
        bad |= which
    dropped = {reason: n for reason, n in dropped.items() if n}
    if sum(dropped.values()) > MOST_UNREADABLE * (n_rows + n_misfits) or bad.all():
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in dropped.items())
        raise DataError(f"{path}: {sum(dropped.values()):,} of {n_rows + n_misfits:,} rows cannot be read ({reasons}). "
                        "It is damaged, or no price file: download it again, or take it out of the folder.")
    rows = pd.DataFrame(table)
    return rows[~bad] if bad.any() else rows, dropped


def _refuse(bad: np.ndarray, column: Column, name: str, expected: str, path: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
        raise DataError(f"{path}: row {row + 2}: {name} is {column[row].as_py()!r}, not {expected}{more}. "
                        "Repair the file.")


def _refuse_intraday(rows: pd.DataFrame, path: str) -> None:
    """Raises a DataError when a day has several different rows of one symbol in most days."""
    keys = [name for name in ("symbol", "date") if name in rows.columns]
    n_days = len(rows.drop_duplicates(keys))
    if len(rows) > 1.5 * n_days and len(rows.drop_duplicates([*keys, "close"])) > 1.5 * n_days:
        raise DataError(f"{path}: holds {len(rows):,} rows for {n_days:,} days: intraday data. Bring one row per day.")


def refuse_swapped(rows: pd.DataFrame, path: str, *, least_rows: int) -> None:
    """Raises a DataError when the columns hold what other columns should: then nearly every day is impossible."""
    prices = rows[list(PRICES)].to_numpy("float64")  # [rows, 4]
    traded = (prices > 0).all(axis=1)
    empty = [name for name, share in zip(PRICES, (prices > 0).mean(axis=0), strict=True) if share < 0.02]
    if empty and len(rows) >= least_rows:
        raise DataError(f"{path}: column {empty[0]} holds no prices. Put the right headers above the columns.")
    if traded.sum() < least_rows:
        return
    opened, high, low, close = prices[traded].T
    impossible = (np.maximum(opened, close) > 1.0001 * high) | (np.minimum(opened, close) < 0.9999 * low)
    impossible |= high > 2 * low
    if impossible.mean() > 0.3:  # the dirtiest real file: 0.12
        raise DataError(f"{path}: in {impossible.mean():.0%} of the rows open or close lie outside [low, high], or "
                        "these far apart: the columns seem to be swapped. Put the right headers above them.")
    symbols = pd.factorize(rows["symbol"])[0][traded]
    some = np.flatnonzero(symbols < 10)
    some = some[np.lexsort((rows["date"].to_numpy()[traded][some], symbols[some]))]
    same = np.diff(symbols[some]) == 0
    opened, close = np.log(opened[some]), np.log(close[some])
    night, span = (np.minimum(np.abs(step), 0.3)[same] for step in (opened[1:] - close[:-1], close[1:] - opened[:-1]))
    most = 1.2 if len(night) >= 60 else 2.0  # chosen: true in 1 of 2,000 stretches of real days, swapped in 24 of 25
    if len(night) >= 20 and night.mean() > most * span.mean():
        raise DataError(f"{path}: days open far from the close before and close near the open before: the columns "
                        "open and close seem to be swapped. Put the right headers above them.")
