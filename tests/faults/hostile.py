"""Hostile files: links, pipes and devices in every folder of a workspace, and small files that ask for much memory.

No command may hang, end without a sentence, take more than 2 GB, or change a byte outside of the workspace (`trials`
watches that).
"""

import functools
import io
import os
import random
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.faults.commands import Words, command, copy, steps, well
from tests.faults.kills import Tally
from tests.faults.trials import HEADER_BYTES, Parent, Trial, folder_for
from vnq_colab.files import read_sealed, sha256_of, write_sealed

MOST_GB, MOST_SECONDS = 2.0, 300
MB = 10**6
CODES = {0: "done", 2: "refused", 3: "paused", 4: "some failed"}
LOOKING: tuple[Words, ...] = (["status"], ["doctor"], ["tidy"], ["tidy", "--keep", "1", "--delete"])
LONG: tuple[Words, ...] = (["prepare"], ["validate"])
ALL: tuple[Words, ...] = (*LOOKING[:2], ["export"], ["predict"], ["resume", "--take-over"], *LONG, *LOOKING[2:])
Plant = Callable[[Path, Path], object]  # (where, the folder outside)
Wanted = Callable[[str], bool]

SPECIAL: dict[str, Plant] = {
    "a link to a file": lambda path, outside: path.symlink_to(outside / "portfolio.csv"),
    "a link to a folder": lambda path, outside: path.symlink_to(outside / "more"),
    "a dangling link": lambda path, outside: path.symlink_to(outside / "nowhere"),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to the folder above": lambda path, _: path.symlink_to(".."),
    "a hard link": lambda path, outside: os.link(outside / "portfolio.csv", path),
    "a FIFO": lambda path, _: os.mkfifo(path),
    "a socket": lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o600),
    "an endless file": lambda path, _: path.symlink_to("/dev/zero"),
    "an unreadable file": lambda path, _: path.symlink_to("/proc/self/mem"),
    "a folder": lambda path, _: (path / "in it").mkdir(parents=True),
    "an empty file": lambda path, _: path.write_bytes(b""),
}
NAMES = ("\x1b[31m\x07red\r\nname", "n" * 240, "‮xslx", "-rf", "%s{0}")  # as good as any


def commands_for(path: Path) -> list[Words]:
    """All that may meet a file; the long ones only where they read or write it."""
    return [words for words in ALL if words not in LONG or {"data", "reports"} & set(path.parts)]


def finished(parent: Parent, folder: Path, *, on_drive: bool, quick: bool = False) -> Trial:
    """A workspace with prices, prepared sets, three runs, reports, bundles and orders, and a backup of hard links."""
    trial = Trial(folder, "tiny", on_drive)
    for name, words in steps(parent, trial, quick=quick):
        if name != "tidy":
            well(command(parent, trial, words))
    for home in (trial.home, trial.local):
        if home.exists():
            shutil.copytree(home, trial.folder / "outside" / "backup" / home.name, copy_function=os.link)
    return trial


def attempt(parent: Parent, trial: Trial, words: Words, tally: Tally, where: str) -> str:
    """One command that may do its work, or refuse with a sentence; how it ended."""
    where = f"{where}, {' '.join(words)[:100]}"
    tally.add("commands")
    try:
        ended = command(parent, trial, words, limit=MOST_SECONDS, memory=2 * MOST_GB)
    except AssertionError as error:
        tally.fail(where, str(error)[:600])
        return "hung or changed"
    result = ended["result"] or {}
    way = CODES.get(result.get("code"), "bad")
    tally.add(way)
    tally.measure("GB of memory", ended["peak_gb"])
    tally.measure("seconds", ended["seconds"])
    if way == "bad" or "Traceback" in ended["said"]:
        tally.fail(where, f"exit {ended['exit']} {result} {ended['said'][-300:]!r}")
    elif ended["peak_gb"] > MOST_GB:
        tally.fail(where, f"{way} with {ended['peak_gb']:.1f} GB")
    elif any(sign in ended["said"] for sign in "\x1b\x07‮"):
        tally.fail(where, f"a name reached the terminal as it is: {ended['said'][-300:]!r}")
    return way


# ----------------------------------------------------------------------------------------------------- special files
def strays_everywhere(parent: Parent, trial: Trial, tally: Tally, commands: tuple[Words, ...] = ALL) -> None:
    """Every kind of special file, and strange names, in every folder at once: all commands do as without them."""
    outside = trial.folder / "outside"
    for folder in [path for home in (trial.home, trial.local) for path in (home, *home.rglob("*")) if path.is_dir()]:
        endings = {path.suffix for path in folder.iterdir() if path.is_file()} | {"", ".csv"}
        for number, (kind, plant) in enumerate(SPECIAL.items()):
            for name in (*(f"{kind}{ending}" for ending in endings), f"20990101T0000{number:02d}_aaaaaa",
                         f"{number:012x}", f"2099-01-{number + 1:02d}.csv"):
                plant(folder / name, outside)
                tally.add("special files")
        for name in NAMES:
            (folder / f"{name}.csv").write_bytes(b"\x00rubbish")
    for words in commands:
        if attempt(parent, trial, words, tally, "strays everywhere") == "refused":
            tally.fail(f"strays everywhere, {' '.join(words)}", Path(trial.attempts[-1]["said"]).read_text()[-300:])


def in_place_of(parent: Parent, trial: Trial, tally: Tally, path: Path, kind: str) -> None:
    """One file or folder of the workspace is something else, or lies outside and is linked: it is used, or refused.

    A folder that a person moved out and linked belongs to the workspace, so that only tidying must leave it alone.
    """
    outside, was_folder = trial.folder / "outside", path.is_dir()
    moved = outside / "moved"
    shutil.move(path, moved)
    if kind == "moved out, and linked":
        path.symlink_to(moved)
    else:
        SPECIAL[kind](path, outside)
    tally.add("special files")
    for words in LOOKING if was_folder and path.is_dir() and path.is_symlink() else commands_for(path):
        attempt(parent, trial, words, tally, f"{path.relative_to(trial.folder)} is {kind}")


def special_files(parent: Parent, tally: Tally, chance: random.Random, *, on_drive: bool, n: int) -> None:
    """Strays in every folder, then so many places of the workspace taken by something else, drawn by chance."""
    with folder_for("hostile") as folder:
        trial, saved = finished(parent, folder / "trial", on_drive=on_drive), folder / "saved"
        copy(trial.folder, saved)
        strays_everywhere(parent, trial, tally)
        places = [path.relative_to(saved) for home in (trial.home, trial.local)
                  for path in sorted((saved / home.relative_to(trial.folder)).rglob("*"))]
        kinds = [*SPECIAL, "moved out, and linked"]
        for place, kind in chance.sample([(place, kind) for place in places for kind in kinds], n):
            copy(saved, trial.folder)
            in_place_of(parent, trial, tally, trial.folder / place, kind)


# ------------------------------------------------------------------------------------------------------------- bombs
def deflated(unit: bytes, times: int) -> bytes:
    """`unit`, so many times, as a raw deflate stream, in no time: each block stands by itself."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(unit) + packer.flush(zlib.Z_FULL_FLUSH)) * times + packer.flush()


def crc_of(unit: bytes, times: int) -> int:
    return functools.reduce(lambda crc, _: zlib.crc32(unit, crc), range(times), 0)


def zipped(members: dict[str, tuple[bytes, int]]) -> bytes:
    """A zip of members that are (unit, times), each compressed."""
    content, central, n = b"", b"", len(members)
    for name, (unit, times) in members.items():
        body, title = deflated(unit, times), name.encode()
        facts = struct.pack("<HHHHHLLLHH", 20, 0, 8, 0, 33, crc_of(unit, times), len(body), len(unit) * times,
                            len(title), 0)
        central += b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<HHHLL", 0, 0, 0, 0, len(content)) + title
        content += b"PK\3\4" + facts + title + body
    return content + central + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, n, n, len(central), len(content), 0)


def gzipped(unit: bytes, times: int) -> bytes:
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflated(unit, times) + struct.pack(
        "<LL", crc_of(unit, times), len(unit) * times % 2**32)


def rows(places: Iterable[tuple[int, int]]) -> bytes:
    """A CSV file of the price table with one row for each (symbol, day)."""
    days = [day.encode() for day in pd.bdate_range("1900-01-01", periods=28_000).strftime("%Y-%m-%d")]
    return HEADER + b"".join(b"S%05d,%s,20000,20500,19500,20000,1000\n" % (symbol, days[day]) for symbol, day in places)


def table(n_groups: int, **columns: str) -> bytes:
    """A parquet file of so many groups of ten million equal rows: runs make it small."""
    names = {"symbol": "AAA", "date": "2020-01-01", "open": 2e4, "high": 2e4, "low": 2e4, "close": 2e4, "volume": 1}
    sink, group = pa.BufferOutputStream(), pa.table({name: pa.array([value] * 100_000)
                                                     for name, value in (names | columns).items()})
    with pq.ParquetWriter(sink, group.schema) as writer:
        for _ in range(n_groups):
            writer.write_table(pa.concat_tables([group] * 100), row_group_size=10 * MB)
    return sink.getvalue().to_pybytes()


HEADER, FEW = b"symbol,date,open,high,low,close,volume\n", [(n, n) for n in range(20)]
PRICE_BOMBS: dict[str, Callable[[], bytes]] = {
    "zeros.zip": lambda: zipped({"prices.csv": (bytes(MB), 3000)}),
    "zip in a zip.zip": lambda: zipped({f"{n}.zip": (zipped({"prices.csv": (bytes(MB), 900)}), 1) for n in range(9)}),
    "many members.zip": lambda: zipped({f"S{n:05d}.csv": (HEADER, 1) for n in range(60_000)}),
    "rows.csv.gz": lambda: gzipped(rows(FEW) * 1000, 4000),
    "sheet.xlsx": lambda: zipped({"xl/workbook.xml": (b"<workbook/>", 1), "[Content_Types].xml": (b"<Types/>", 1),
                                  "xl/worksheets/sheet1.xml": (b"<row><c>1</c></row>" * 50_000, 3000)}),
    "columns.csv": lambda: b"," * 40 * MB,
    "one line.csv": lambda: HEADER + b"1" * 95 * MB,
    "quotes.csv": lambda: HEADER + b'"' * 95 * MB,
    "zeros.csv": lambda: HEADER + bytes(95 * MB),
    "short lines.csv": lambda: HEADER + b"A,1\n" * 24 * MB,
    "sparse.csv": lambda: rows((n, n) for n in range(25_000)),
    "dense.csv": lambda: rows((symbol, day) for symbol in range(1500) for day in range(26_100, 27_400)),
    "runs.parquet": lambda: table(30),
    "long names.parquet": lambda: table(1, symbol="A" * 10_000),
}
JSON_BOMBS: dict[str, Callable[[], bytes]] = {
    "deep": lambda: b'{"a":[' * MB,
    "many lists": lambda: b"[" + b"[]," * 30 * MB + b"[]]",
    "digits": lambda: b'{"run_id":' + b"1" * 90 * MB + b"}",
    "a long word": lambda: b'{"run_id":"' + b"x" * 95 * MB + b'"}',
    "other encoding": lambda: '{"run_id": 1}'.encode("utf-16"),
}


def torch_bomb(whole: bytes) -> bytes:
    """A file of torch whose first tensor is compressed zeros, three GB of them."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: (archive.read(name), 1) for name in archive.namelist()}
    return zipped(members | {name: (bytes(MB), 3000) for name in members if name.endswith("data/0")})


def bombs_as_arguments(trial: Trial, wanted: Wanted) -> Iterator[tuple[str, Words]]:
    """(what, command) with each bomb, and each special file, as --data, --index, --portfolio and --models."""
    folder, good = trial.folder / "bombs", ["--data", str(trial.folder / "prices.csv")]
    folder.mkdir()
    for name in filter(wanted, (*PRICE_BOMBS, *SPECIAL)):
        bomb = folder / name
        SPECIAL[name](bomb, trial.folder / "outside") if name in SPECIAL else bomb.write_bytes(PRICE_BOMBS[name]())
        assert name in SPECIAL or bomb.stat().st_size < 100 * MB, name
        for words in (["prepare", "--data"], ["prepare", *good, "--index"], ["predict", *good, "--portfolio"],
                      ["predict", *good, "--models"]):
            yield f"{words[-1]} {name}", [*words, str(bomb)]


def bombs_within(trial: Trial, wanted: Wanted) -> Iterator[tuple[str, Words]]:
    """(what, command) with a bomb in place of each JSON file, parquet file, network and job of the workspace."""
    for name, path in {path.name: path for path in sorted(trial.home.rglob("*")) if path.is_file()}.items():
        kept, bombs = path.read_bytes(), {}
        if path.suffix == ".json":
            bombs = JSON_BOMBS
        elif path.suffix == ".parquet":
            bombs = {"runs": PRICE_BOMBS["runs.parquet"]}
        elif path.suffix == ".pt" or path.parent.name == "done":
            start = kept[:0 if path.suffix else HEADER_BYTES]
            bombs = {"compressed": lambda kept=kept, start=start: start + torch_bomb(kept[len(start):])}
        manifest = path.with_name("manifest.json")
        sealed = manifest.read_bytes() if path.suffix == ".pt" else None
        for bomb, content in bombs.items():
            if not wanted(f"{name} {bomb}"):
                continue
            path.write_bytes(content())
            if sealed:  # by whoever made it
                facts = read_sealed(manifest)
                facts["files"][name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
                write_sealed(manifest, facts)
            yield from ((f"{name}: {bomb}", words) for words in commands_for(path)[:-1])
            path.write_bytes(kept)
            if sealed:
                manifest.write_bytes(sealed)


def memory(parent: Parent, trial: Trial, tally: Tally, wanted: Wanted = lambda name: True) -> None:
    """Every bomb that is wanted by its name, in every place where a file of a finished workspace is read."""
    for places in (bombs_as_arguments, bombs_within):
        for what, words in places(trial, wanted):
            attempt(parent, trial, words, tally, what)
