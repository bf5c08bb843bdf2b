"""What lies in a folder of prices is read within bounds, whatever it is; each case ends soon, in little memory."""

import gzip
import io
import os
import resource
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from vnq_colab.data import cells, formats, prices, unpack
from vnq_colab.data.prices import load_index, load_prices, read_prices
from vnq_colab.errors import DataError, RowError, VnqError

HEADER = "symbol,date,open,high,low,close,volume\n"
GOOD = HEADER + "FPT,2024-01-02,10000,11000,9000,10500,1000\nFPT,2024-01-03,10500,11100,10000,11000,2000\n"
LARGE = HEADER[:-1] + ",note\nFPT,2024-01-02,10000,11000,9000,10500,1000," + "x" * 400_000
NUMBERS = ("open", "high", "low", "close", "volume")
MOST_MEMORY = 2e9  # [bytes]


def zipped(files, method=zipfile.ZIP_DEFLATED):
    """A zip of [(name, content)]."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, text in files:
            archive.writestr(name, text)
    return content.getvalue()


def lying(declared):
    """A zip whose one member says that it is of `declared` bytes, and is of 2 million."""
    content = bytearray(zipped([("a.csv", bytes(2_000_000))]))
    for place in (22, content.rfind(b"PK\1\2") + 24):
        content[place:place + 4] = struct.pack("<I", declared)
    return bytes(content)


def overlapping(times):
    """A zip whose members, `times` many, are all one and the same stretch of it."""
    one = zipped([("a.csv", "x" * 100_000)])
    start, end = one.rfind(b"PK\1\2"), one.rfind(b"PK\5\6")
    size = (end - start) * times
    return one[:start] + one[start:end] * times + struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, times, times, size, start, 0)


def table(**columns):
    """A parquet file of one good row, with other columns in place of its own."""
    row = {"symbol": ["FPT"], "date": ["2024-01-02"], **{name: [10.0] for name in NUMBERS}}
    content = io.BytesIO()
    parquet.write_table(pa.table(row | columns), content, store_schema=False)
    return content.getvalue()


def refused(tmp_path, name, content, said):
    """The sentence about one file, named itself."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_prices(path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    return str(caught.value)


# ------------------------------------------------------------------------------------------------------------ archives
@pytest.fixture
def narrow(monkeypatch):
    """Bounds that small files reach."""
    monkeypatch.setattr(unpack, "MOST_UNPACKED", 1_000_000)
    monkeypatch.setattr(unpack, "MOST_MEMBERS", 20)


@pytest.mark.parametrize("name, content", [
    ("a.zip", zipped([("a.csv", HEADER + "0" * 2_000_000)])), ("a.csv.gz", gzip.compress(b"0" * 2_000_000)),
    ("a.csv.gz", gzip.compress(b"0" * 600_000) * 2), ("a.zip", zipped([(f"{n}.csv", LARGE) for n in "abc"])),
    ("a.zip", zipped([(f"{n}.zip", zipped([("a.csv", LARGE)])) for n in "abc"])), ("a.zip", lying(3_000_000))])
def test_a_bomb_is_refused_once_it_has_grown_too_large(tmp_path, narrow, name, content):
    refused(tmp_path, name, content, "unpacked it is larger than 1 MB.*unpack it and name the folder")


def test_a_small_file_may_not_grow_beyond_measure(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "FREE_BYTES", 1000)
    content = zipped([("a.csv", GOOD + "FPT,2024-01-03,10500,11100,10000,11000,2000\n" * 10_000)])
    refused(tmp_path, "a.zip", content, "larger than 537 MB, or than 50 times itself")


@pytest.mark.parametrize("content, said", [
    (lying(100), "cannot be unpacked .Bad CRC-32"), (overlapping(5), "cannot be unpacked|columns symbol, date"),
    (overlapping(30), "holds more than 20 files"),
    (zipped([(f"{n}.txt", "") for n in range(30)]), "more than 20 files"),
    (zipped([("a.csv", GOOD)], zipfile.ZIP_BZIP2), "packed in a rare way. Pack it anew as an ordinary zip"),
    (zipped([("a.csv", GOOD)], zipfile.ZIP_LZMA), "packed in a rare way. Pack it anew as an ordinary zip")])
def test_a_zip_that_lies_or_holds_too_much_is_refused(tmp_path, narrow, content, said):
    refused(tmp_path, "a.zip", content, said)


def test_zips_in_zips_are_read_three_deep_and_refused_beyond(tmp_path):
    content = GOOD.encode()
    for depth in range(3):
        content = zipped([("a.zip" if depth else "a.csv", content)])
    (tmp_path / "a.zip").write_bytes(content)
    assert len(read_prices(tmp_path / "a.zip").prices) == 2
    for _ in range(40):
        content = zipped([("a.zip", content)])
    refused(tmp_path, "b.zip", content, "zips in zips without end. Unpack it, and name the folder")


def test_the_name_of_a_member_does_not_steer_the_terminal(tmp_path, capsys):
    evil = "\x1b[2J\x1b]0;owned\x07\u202e.csv"
    (tmp_path / "a.zip").write_bytes(zipped([(evil, GOOD)]))
    facts = read_prices(tmp_path / "a.zip").files[0]
    assert facts.file == "a.zip/\\x1b[2J\\x1b]0;owned\\x07\\u202e.csv"
    said = refused(tmp_path, "b.zip", zipped([(evil, "nothing\nhere\n"), ("x.csv", GOOD)]), "columns symbol, date")
    assert said.isprintable()


# ------------------------------------------------------------------------------------------------ what is no plain file
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices have names on Unix only")
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe", "link to a device", "link to nothing", "socket"])
@pytest.mark.parametrize("name", ["a.csv", "a.zip", "a.parquet"])
def test_what_waits_or_never_ends_is_refused_at_once_and_left_out_of_a_folder(tmp_path, kind, name):
    import socket

    folder, odd = tmp_path / "prices", tmp_path / "prices" / name
    folder.mkdir()
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            os.chdir(folder)  # its name may have 100 characters
            one.bind(name)
    elif kind == "pipe":
        os.mkfifo(odd)
    else:
        os.mkfifo(tmp_path / "pipe")
        odd.symlink_to({"nothing": "nowhere", "pipe": tmp_path / "pipe"}.get(kind.split()[-1], "/dev/zero"))
    for read in (read_prices, load_index):
        with pytest.raises(VnqError, match="not a regular file|cannot be read|no such file"):
            read(odd)
    (folder / "good.csv").write_text(GOOD)
    reading = read_prices(folder)
    assert len(reading.prices) == 2 and len(reading.warnings) == 1 and name in reading.warnings[0]


def test_a_folder_that_links_to_itself_is_read_once(tmp_path):
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "round.csv").symlink_to(tmp_path / "round.csv")
    reading = read_prices(tmp_path)
    assert len(reading.files) == 1 and len(reading.warnings) == 1


def test_a_path_that_no_file_can_have_is_no_file():
    for read in (read_prices, load_index):
        for path in ("x" * 5000, "a\0.csv"):
            with pytest.raises(DataError, match="no such file or folder"):
                read(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_the_name_of_a_file_does_not_steer_the_terminal(tmp_path, prices):
    evil = os.fsdecode(bytes(tmp_path)) + "/\x1b[2J\udcff.parquet"
    prices.to_parquet(tmp_path / "good.parquet")
    os.rename(tmp_path / "good.parquet", evil)
    (tmp_path / "\x1b[2J\udcff.csv").write_text("")
    reading = read_prices(tmp_path)
    assert len(reading.warnings) == 1 and all(text.isprintable() for text in (*reading.warnings, reading.files[0].file))


# ------------------------------------------------------------------------------------------------------- a stray file
STRAY = {"zero.csv": b"", "sheet.xlsx": zipped([("xl/workbook.xml", "")]), "cut.zip": zipped([("a.csv", GOOD)])[:-30],
         "cut.parquet": table()[:-9], "readme.txt": b"hello\nworld\n", "page.csv": b"<!DOCTYPE html><html></html>",
         "half.zip": zipped([("a.csv", GOOD), ("b.csv", "hello\nyou\n")]),
         "random.csv": bytes(range(256)) * 20}


@pytest.mark.parametrize("name", STRAY)
def test_a_file_that_is_none_of_prices_is_left_out_of_a_folder_and_named_but_refused_alone(tmp_path, name):
    (tmp_path / "good.csv").write_text(GOOD)
    refused(tmp_path, name, STRAY[name], name)
    reading = read_prices(tmp_path)
    assert len(reading.prices) == 2 and [file.file for file in reading.files] == ["good.csv"]
    assert len(reading.warnings) == 1 and f"left out: {tmp_path / name}" in reading.warnings[0]
    assert reading.warnings == load_prices(tmp_path)[1].warnings[:1]


def test_a_broken_update_does_not_stop_the_good_files_of_another_folder(tmp_path):
    for folder, text in (("raw", GOOD), ("weekly_updates", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(text)
    reading = read_prices([tmp_path / "raw", tmp_path / "weekly_updates"])
    assert len(reading.prices) == 2 and "weekly_updates/a.csv: the file is empty" in reading.warnings[0]


def test_many_strays_are_counted(tmp_path):
    (tmp_path / "good.csv").write_text(GOOD)
    for number in range(30):
        (tmp_path / f"stray_{number}.csv").write_text("")
    warnings = read_prices(tmp_path).warnings
    assert len(warnings) == 6 and warnings[-1] == "left out: 25 more files"


def test_a_row_to_repair_and_a_file_in_doubt_are_never_left_out(tmp_path):
    (tmp_path / "good.csv").write_text(GOOD)
    in_doubt = GOOD.replace("2024-01-02", "02/01/2024").replace("2024-01-03", "03/01/2024")
    for text, said in ((GOOD.replace("11000,2000", "dear,2000"), "close is 'dear'"), (in_doubt, "may be day/month")):
        (tmp_path / "week.csv").write_text(text)
        with pytest.raises(RowError, match=f"week.csv: .*{said}"):
            read_prices(tmp_path)


def test_a_stray_beside_an_index_is_named_on_the_screen(tmp_path, capsys):
    (tmp_path / "index.csv").write_text("symbol,date,close\nVNINDEX,2024-01-02,1100\n")
    (tmp_path / "zero.csv").write_text("")
    assert len(load_index(tmp_path)) == 1
    assert "zero.csv: the file is empty" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- tables that overdo
@pytest.mark.parametrize("columns, said", [
    ({"symbol": [["FPT"]]}, "column symbol holds list<.*> where|column symbol holds list"),
    ({"close": [{"a": 1.0}]}, "column close holds struct"), ({"open": [[1.0] * 1000]}, "column open holds list"),
    ({"volume": pa.array([5], pa.duration("s"))}, "volume is .*not a number")])
def test_a_column_that_is_no_column_of_cells_is_refused(tmp_path, columns, said):
    if "volume" in columns:
        content = io.BytesIO()
        parquet.write_table(parquet.read_table(io.BytesIO(table())).set_column(6, "volume", columns["volume"]), content)
    refused(tmp_path, "a.parquet", content.getvalue() if "volume" in columns else table(**columns), said)


def test_decimals_are_read(tmp_path):
    (tmp_path / "a.parquet").write_bytes(table(close=pa.array([10], pa.decimal128(10, 2))))
    assert read_prices(tmp_path, unit="kVND").prices["close"].tolist() == [10_000]


def test_more_rows_symbols_or_cells_than_prices_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prices, "MOST_ROWS", 100)
    monkeypatch.setattr(formats, "MOST_SYMBOLS", 3)
    lines = "".join(f"FPT,{day:%Y-%m-%d},10,12,9,11,500\n" for day in pd.bdate_range("2020-01-01", periods=200))
    (tmp_path / "large.csv").write_text(HEADER + lines)
    assert len(read_prices(tmp_path / "large.csv", unit="kVND").prices) == 200, "its size allows for its rows"
    refused(tmp_path, "rows.csv", (HEADER + ",,,,,,\n" * 101).encode(), "has 101 rows, of which at most 100 are read")
    rows = {"symbol": ["FPT"] * 1000, "date": ["2024-01-02"] * 1000, **dict.fromkeys(NUMBERS, [10.0] * 1000)}
    refused(tmp_path, "rows.parquet", table(**rows), "has 1,000 rows")
    both = zipped([(f"{name}.csv", HEADER + "".join(lines.splitlines(keepends=True)[:80])) for name in "ab"])
    refused(tmp_path, "two.zip", both, "b.csv: has 80 rows, of which at most 20 are read")
    some = HEADER + "".join(f"F{n},2024-01-02,10,12,9,11,500\n" for n in range(4))
    refused(tmp_path, "symbols.csv", some.encode(), "has 4 different symbols, of which at most 3")
    wide = "Price" + ",Close" * 200 + "\nTicker" + ",A" * 200 + "\nDate" + "," * 200 + "\n2024-01-02" + ",1" * 200
    refused(tmp_path, "yahoo.csv", wide.encode(), "has 800 cells")


def test_a_dictionary_is_not_written_out_for_each_row(tmp_path):
    pages = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, "int32")), pa.array(["A" * 1_000_000]))
    content = table(symbol=pages, date=["2024-01-02"] * 10_000, **dict.fromkeys(NUMBERS, [10.0] * 10_000))
    assert len(content) < 200_000, "10 GB were it written out"
    refused(tmp_path, "a.parquet", content, "symbol is 'AAAA")


def test_numbers_that_are_all_different_texts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "MOST_TEXTS", 100)
    lines = "".join(f"FPT,2024-01-02,{n}x,{n}y,9,11,500\n" for n in range(100))
    refused(tmp_path, "a.csv", (HEADER + lines).encode(), "different texts, of which at most 100")


@pytest.mark.parametrize("text", [HEADER + "1" * 3_000_000, "," * 300_000, HEADER[:-1] + ",c" * 100_000 + "\n",
                                  HEADER + '"' + GOOD * 30_000, HEADER + "\"FPT\"\"" * 300_000, "\n" * 300_000,
                                  "Price,Close\nTicker,A,A\nDate,,\n1,2,3,4\n", "Price\nTicker\n", "\"" * 9 + "\n1"])
def test_a_strange_text_is_one_sentence(tmp_path, text):
    refused(tmp_path, "a.csv", text.encode(), "a.csv: ")


# ------------------------------------------------------------------------------------------------------------- memory
CHILD = """
import re, sys
from vnq_colab.data.prices import load_prices
from vnq_colab.errors import DataError
try: load_prices(sys.argv[1])
except DataError as error: print(error, file=sys.stderr)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024)  # ru_maxrss is the parent's, too
"""
HUGE = {
    "line.csv": lambda: HEADER.encode() + b"1" * 90_000_000,
    "columns.csv": lambda: HEADER.encode() + b",".join([b"1"] * 45_000_000),
    "rows.csv": lambda: HEADER.encode() + b",,,,,,\n" * 5_900_000,
    "quote.csv": lambda: HEADER.encode() + b'"' + b"FPT,2024-01-02,10000,11000,9000,10500,1000\n" * 2_000_000,
    "yahoo.csv": lambda: b"Price,Close,High,Low\nTicker,A,A,A\nDate,,,\n" + b"1,2,3,4\n" * 2_600_000,
    "latin.csv": lambda: HEADER.encode() + "é".encode("latin-1") * 90_000_000,
    "bomb.zip": lambda: zipped([("a.csv", HEADER.encode() + b"0" * 800_000_000)]),
    "bomb.csv.gz": lambda: gzip.compress(GOOD.encode() + b"FPT,2024-01-02,10,11,9,10,10\n" * 20_000_000, 1),
    "rows.parquet": lambda: table(**{name: pa.array(np.full(5_900_000, value)) for name, value in {
        "symbol": "FPT", "date": 20240102, **dict.fromkeys(NUMBERS, 10.0)}.items()}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGE)
def test_no_file_below_100_mb_takes_more_than_2_gb_of_memory(tmp_path, name):
    (tmp_path / name).write_bytes(HUGE[name]())
    limit = (9_000_000_000, 9_000_000_000)
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / name)], capture_output=True, text=True,
                          timeout=300, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) < MOST_MEMORY and name in done.stderr
