"""Downloads: the list of what was fetched into a folder, what is sound, and what a person sees while it arrives.

The list is `.downloads.json`: link -> {file, bytes, sha256, fetched}. What verifies is not fetched again; a file that
the list does not name was brought by the person and is never changed. The folder may lie on Google Drive, which answers
what is appended to or removed with copies and a full trash: a file is written there once, whole, and none is removed.
What is on its way lies on the local disk.
"""

import contextlib
import hashlib
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vnq_colab.clock import Clock, utc_now
from vnq_colab.errors import DataError
from vnq_colab.files import read_json, sha256_of, write_atomic, write_json
from vnq_colab.notebook import in_notebook

MANIFEST = ".downloads.json"
WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml|error)\b", re.IGNORECASE)
PLAIN_SECONDS = 10  # between two lines where the output is not live


class Downloads:
    """What was fetched into one folder; every change is on disk at once."""

    def __init__(self, folder: Path):
        self.folder, self._path = folder, folder / MANIFEST
        self.entries: dict[str, dict[str, Any]] = read_json(self._path) if self._path.exists() else {}

    @property
    def scratch(self) -> Path:
        """The folder on the local disk for what is on its way to this one; a later session finds it again."""
        key = hashlib.sha256(str(self.folder.resolve()).encode()).hexdigest()[:16]
        return Path.home() / ".cache" / "vnq_colab" / "downloads" / key

    def is_verified(self, link: str) -> bool:
        """True when the file of that link is there with the bytes that were fetched."""
        entry = self.entries.get(link, {})
        if "sha256" not in entry:
            return False
        file = self.folder / entry["file"]
        return file.is_file() and file.stat().st_size == entry["bytes"] and sha256_of(file) == entry["sha256"]

    def is_foreign(self, link: str, name: str) -> bool:
        """True when a file of that name is there that did not come from that link."""
        entry = self.entries.get(link, {})
        return (self.folder / name).exists() and (entry.get("file") != name or "sha256" not in entry)

    def put_in_place(self, link: str, source: Path, name: str, **facts: str) -> Path:
        """Copies a verified file into the folder, over what came from that link earlier; `facts` go into the list."""
        target = self.folder / name
        if not target.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(f"{link}: its name {name!r} leads out of {self.folder}. Rename it where it is published.")
        with open(source, "rb") as whole:
            write_atomic(target, lambda file: shutil.copyfileobj(whole, file))
        self.entries[link] = {"file": name, "bytes": source.stat().st_size, "sha256": sha256_of(source),
                              "fetched": utc_now(), **facts}
        write_json(self._path, self.entries)
        return target


def flaw_of_zip(path: Path) -> str:
    """Why the file is no sound zip with a CSV in it; "" when it is one."""
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                return f"a damaged zip ({damaged})"
            return "" if any(name.lower().endswith(".csv") for name in archive.namelist()) else "a zip without a CSV"
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        return "a web page instead of a zip" if is_web_page(path) else "not a whole zip"


def is_web_page(path: Path) -> bool:
    """True when the file begins as HTML does; CafeF's own headers begin with <Ticker>."""
    with open(path, "rb") as file:
        return bool(WEB_PAGE.match(file.read(200)))


def is_live() -> bool:
    """True on a terminal and in a notebook, where a line can be drawn again."""
    return in_notebook() or sys.stderr.isatty()


def _out() -> Any:
    return sys.stdout if in_notebook() else sys.stderr  # a notebook paints stderr red


def say(text: str, quiet: bool = False) -> None:
    """A line that stays."""
    if not quiet:
        print(text, file=_out(), flush=True)


@contextlib.contextmanager
def progress(title: str, total: int | None, *, done: int = 0, unit: str = "B",
             quiet: bool = False) -> Iterator[Callable[[int], Any]]:
    """A function that is told how much more has arrived, and shows it: as a bar, or as a line in a while.

    `unit` "B" is bytes, shown in MB; `total` None is not known.
    """
    if not quiet and is_live():
        from tqdm import tqdm

        with tqdm(total=total, initial=done, unit=unit, unit_scale=unit == "B", desc=title, file=_out()) as bar:
            yield bar.update
        return
    clock, scale, word = Clock(), *((1e6, "MB") if unit == "B" else (1, unit))

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if clock.due(title, seconds=PLAIN_SECONDS):
            say(f"{title}: {done / scale:,.0f} of {(total or done) / scale:,.0f} {word}", quiet)

    yield advance
