"""The price files of a folder and what is packed in them, read within bounds: bytes, ratio, members, nesting."""

import gzip
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from vnq_colab.errors import DataError, did_you_mean, printable
from vnq_colab.files import read_bytes

SUFFIXES = (".parquet", ".csv", ".txt", ".zip", ".gz", ".xlsx", ".xls")
MOST_BYTES = 2**33  # of a file as it lies on the disk; 10 years of minute bars of one market are 2 GB of CSV
MOST_UNPACKED = 2**29  # [bytes] of all that is packed in a file: twice what CafeF's zips hold
MOST_RATIO, FREE_BYTES = 50, 2**26  # of these bytes to the packed ones, beyond the first; prices are packed to a fifth
MOST_MEMBERS, MOST_NESTED = 20_000, 3


def fetched(path: str | Path) -> Path:
    """The local copy of what a Drive share link names; any other path as it is."""
    if not isinstance(path, (str, Path)) or not str(path).strip():
        raise DataError("the path of the prices is empty or none. Name a file or a folder; a table goes to prepare.")
    link = str(path)
    if not link.startswith(("http://", "https://")):
        return Path(path)
    from vnq_colab.data.collect import download_drive

    return download_drive(link, Path.home() / ".cache" / "vnq_colab" / hashlib.sha256(link.encode()).hexdigest()[:8])


def price_files(folder: Path) -> list[Path]:
    """The files below a folder that `read_prices` reads, in order; none when there is no such folder."""
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from None

    files = (Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names)
    return sorted(filter(_is_wanted, files))


def files_of(path: Path) -> list[tuple[Path, str]]:
    """(file, name below the path) of a file or of all in a folder. Raises DataError when there is no such path."""
    if not os.path.exists(path):
        near = did_you_mean(path.name, os.listdir(path.parent)) if os.path.isdir(path.parent) else ""
        if not str(path).isprintable():  # "D:\new": Python reads a line end
            near = " Did you mean / where \\ stands in your path? In Python write C:/prices.csv."
        raise DataError(f"{path}: there is no such file or folder.{near if 'mean' in near else ''}")
    if not path.is_dir():
        return [(path, printable(path.name))]
    return [(file, printable(file.relative_to(path).as_posix())) for file in price_files(path)]


def contents(file: Path, name: str) -> Iterator[tuple[bytes, str, str]]:
    """(content, name, name in an error) of a file, or of all that is packed in it. Raises VnqError out of bounds."""
    data = read_bytes(file, MOST_BYTES)
    yield from _Unpacking(len(data)).unpacked(data, name, printable(f"{file}"), 0)


class _Unpacking:
    """What may still come out of a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.n_bytes, self.n_members = min(MOST_UNPACKED, FREE_BYTES + MOST_RATIO * size), MOST_MEMBERS

    def unpacked(self, data: bytes, name: str, path: str, depth: int) -> Iterator[tuple[bytes, str, str]]:
        """The content itself, or what is packed in it; a zip may hold CafeF's zips."""
        try:
            if data[:2] == b"\x1f\x8b":
                with gzip.open(io.BytesIO(data)) as packed:
                    data = self.read(packed, path)
            if data[:2] != b"PK" or b"xl/workbook" in data:
                yield data, name, path
                return
            self.n_members -= data.count(b"PK\1\2")  # each member has one in the list at the end
            if self.n_members < 0 or depth == MOST_NESTED:
                raise DataError(f"{path}: holds more than {MOST_MEMBERS:,} files, or zips in zips without end. Unpack "
                                "it, and name the folder.")
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                for member in sorted(archive.infolist(), key=lambda one: one.filename):  # two may have one name
                    if not _is_wanted(PurePath(member.filename)) or member.is_dir():
                        continue
                    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise DataError(f"{path}: is packed in a rare way. Pack it anew as an ordinary zip.")
                    with archive.open(member) as packed:
                        inside = f"/{printable(member.filename)}", self.read(packed, path)
                    yield from self.unpacked(inside[1], name + inside[0], path + inside[0], depth + 1)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # zipfile, gzip and zlib raise what they like on damaged bytes
            reason = str(error).splitlines()[0] if str(error) else "cut short"
            raise DataError(f"{path}: cannot be unpacked ({reason}). Download it again.") from None

    def read(self, packed: BinaryIO, path: str) -> bytes:
        """All of a packed file, in pieces, each counted: what a zip says of its sizes may be wrong."""
        content = io.BytesIO()
        while piece := packed.read(2**20):
            self.n_bytes -= content.write(piece)
            if self.n_bytes < 0:
                raise DataError(f"{path}: unpacked it is larger than {MOST_UNPACKED / 1e6:,.0f} MB, or than "
                                f"{MOST_RATIO} times itself. Where these are prices, unpack it and name the folder.")
        return content.getvalue()


def _is_wanted(file: PurePath) -> bool:
    """Hidden and lock files are not the person's data."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith((".", "~")) and "__MACOSX" not in file.parts
