"""Collecting prices: CafeF's newest zips into `data/raw`, and what a Google Drive link shares into a folder.

CafeF's addresses are those of public projects of October 2026, tested against a local server that behaves like it; the
live site could not be tried.
"""

import datetime as dt
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pandas as pd
import requests
from requests.adapters import HTTPAdapter, Retry

from vnq_colab.data.cells import VIETNAM, is_web_page
from vnq_colab.data.splits import to_day
from vnq_colab.data.unpack import MOST_BYTES as MOST_FETCHED
from vnq_colab.data.unpack import MOST_UNPACKED
from vnq_colab.errors import DataError, StorageError, name_a_few
from vnq_colab.files import open_regular, require_space, write_atomic
from vnq_colab.layout import Workspace
from vnq_colab.progress import now

CAFEF = "https://cafef1.mediacdn.vn/data/ami_data"
KINDS = {"adjusted": "CafeF.SolieuGD.Upto{}.zip", "raw": "CafeF.SolieuGD.Raw.Upto{}.zip",
         "index": "CafeF.Index.Upto{}.zip"}  # {}: the day as 20112026
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; vnq_colab)", "Accept-Encoding": "identity"}
LOOK_BACK_DAYS = 10
RETRIES = Retry(total=3, backoff_factor=2, status_forcelist=(408, 429, 500, 502, 503, 504))  # waits 0, 4, 8 s
TIMEOUT_SECONDS, MOST_SECONDS = 60, 7200  # without a byte; for all
MOST_BYTES = 2**29  # of a zip; CafeF's largest have 70 MB
GDOWN = """import contextlib, json, sys
import gdown
name, link, folder, most = sys.argv[1:]
with contextlib.suppress(ImportError):  # Windows does not bound the size of a file
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), int(most)))
paths, reason = None, "no public link"  # gdown 5 returns None for a folder that is not shared
try:
    paths = getattr(gdown, name)(id=link, output=folder, quiet=True, resume=True)
except Exception as error:  # gdown 5 and 6 raise different things for the same page
    reason = " ".join(str(error).split()) or type(error).__name__
print(json.dumps([[paths] if isinstance(paths, str) else paths, reason]))
"""  # a process of its own can be ended, whatever it waits for
DRIVE_LINK = re.compile(r"https?://(?:drive|docs|drive\.usercontent)\.google\.com/(?:.*/)?"
                        r"(?:(folders|file(?:/u/\d+)?/d)/([\w-]{10,})|[^/]*[?&]id=([\w-]{10,}))")


@dataclass(frozen=True, repr=False)
class Collected:
    """What `collect_prices` brought."""

    files: tuple[Path, ...]  # all that are there and sound
    day: str  # the newest day that was found, "2026-11-20"
    skipped: tuple[str, ...]  # names of those that were there already
    notes: tuple[str, ...]  # what was passed over, not found, or is replaced by now

    def __repr__(self) -> str:
        return "\n".join([
            f"Collected: {len(self.files)} files up to {self.day}; {len(self.files) - len(self.skipped)} fetched, "
            f"{len(self.skipped)} already there",
            f"  {name_a_few(file.name for file in self.files)} in {self.files[0].parent}",
            *(f"  {note}" for note in self.notes)])


def collect_prices(ws: Workspace, *, day: str | None = None, url: str = CAFEF) -> Collected:
    """Brings CafeF's newest zips up to `day` (None: today in Vietnam) into `data/raw/`, where nothing is replaced.

    One zip per kind, at most 10 days back. Raises DataError when there is none, or the site does not answer.
    """
    last = pd.Timestamp.now(VIETNAM).date() if day is None else to_day(day).date()
    days = [last - dt.timedelta(days=back) for back in range(LOOK_BACK_DAYS + 1)]
    until = time.monotonic() + MOST_SECONDS
    newest, notes, flaws = {}, [], Counter()  # newest: kind -> (day, file, whether it was there)
    with requests.Session() as site:
        site.headers.update(HEADERS)
        site.mount(url, HTTPAdapter(max_retries=RETRIES))
        for kind, of_day in itertools.product(KINDS, days):
            if kind in newest:
                continue
            file = ws.raw / KINDS[kind].format(f"{of_day:%d%m%Y}")
            is_there = file.exists()
            flaw = _flaw_of_zip(file) if is_there else _bring_zip(
                site, f"{url.rstrip('/')}/{of_day:%Y%m%d}/{file.name}", file, until)
            if is_there and flaw:
                raise DataError(f"{file}: {flaw}. Remove it, then collect again.")
            if not flaw:
                newest[kind] = of_day, file, is_there
                notes += _older_than(of_day, kind, ws.raw)
            elif not flaw.startswith("HTTP"):
                notes.append(f"{file.name} was passed over: {flaw}")
            flaws[flaw] += 1
    if not newest:
        reasons = ", ".join(f"{n} × {reason}" for reason, n in flaws.items())
        raise DataError(f"{url}: no CafeF zip of the {len(days)} days from {days[-1]} to {days[0]} ({reasons}). The "
                        f"site may have changed: download the zips by hand into {ws.raw}.")
    notes += [f"no {kind} zip of {days[-1]} to {days[0]} was found" for kind in KINDS if kind not in newest]
    last_day = max(of_day for of_day, _, _ in newest.values())
    if any(of_day < last_day for of_day, _, _ in newest.values()):
        notes.append("not all of one day: " + ", ".join(f"{kind} {of_day}" for kind, (of_day, _, _) in newest.items()))
    return Collected(tuple(file for _, file, _ in newest.values()), f"{last_day}",
                     tuple(file.name for _, file, is_there in newest.values() if is_there), tuple(notes))


def _bring_zip(site: requests.Session, link: str, target: Path, until: float) -> str:
    """Puts the zip behind a link in its place, whole; returns "", or why the site has no sound one."""
    for _ in range(RETRIES.total):  # of a connection that breaks in the middle; Retry sees to all before
        with tempfile.TemporaryFile() as scratch:  # on the local disk: the folder may be on Google Drive
            try:
                _within(until - time.monotonic(), lambda to=scratch: _receive(site, link, to, target))
            except TimeoutError:
                reason = f"not all of it came within {MOST_SECONDS / 60:,.0f} minutes"
                break
            except requests.HTTPError as error:
                return f"HTTP {error.response.status_code}"
            except requests.RequestException as error:
                reason = " ".join(f"{error}".split())[-120:]  # what it wraps stands at its end
                if isinstance(error, requests.ConnectionError):
                    reason = f"no connection: is this machine online? ...{reason}"
                if isinstance(error, requests.exceptions.ChunkedEncodingError):
                    continue
                break
            flaw = _flaw_of_zip(scratch)
            if not flaw:
                scratch.seek(0)
                write_atomic(target, lambda file: shutil.copyfileobj(scratch, file))
            return flaw
    raise DataError(f"{link}: not received ({reason}). Try again later, or download it by hand "
                    f"into {target.parent}.")


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Does some work. Raises TimeoutError when it takes longer; its thread ends with the process, if not before."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    done.result(max(seconds, 0))


def _receive(site: requests.Session, link: str, scratch: BinaryIO, target: Path) -> None:
    with site.get(link, stream=True, timeout=TIMEOUT_SECONDS) as answer:
        answer.raise_for_status()
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() and len(length) < 20 else 0  # 0: not known
        too_large = DataError(f"{link}: is larger than {MOST_BYTES / 1e6:,.0f} MB, which no zip of CafeF's is. Look at "
                              "it by hand.")
        if size > MOST_BYTES:
            raise too_large
        require_space(target.parent, size, target.name)
        for piece in answer.iter_content(1 << 18):
            scratch.write(piece)
            now(f"{target.name}: {scratch.tell() / 1e6:.1f} MB", min(scratch.tell() / size, 1.0) if size else None)
            if scratch.tell() > MOST_BYTES:
                raise too_large


def _flaw_of_zip(file: Path | BinaryIO) -> str:
    """Why a file is no sound zip with a CSV in it; "" when it is one."""
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_UNPACKED:
                return f"a zip that unpacks to more than {MOST_UNPACKED / 1e6:,.0f} MB"
            if damaged := archive.testzip():
                return f"a damaged zip ({damaged!r})"
            return "" if any(name.lower().endswith(".csv") for name in archive.namelist()) else "a zip without a CSV"
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
        return "not a whole zip"


def _older_than(day: dt.date, kind: str, folder: Path) -> list[str]:
    """Says which zips of a kind the one of `day` replaces. They stay: removing is the person's."""
    stamp = len(KINDS[kind].partition("{}")[0])
    days = {file.name: file.name[stamp:stamp + 8] for file in folder.glob(KINDS[kind].format("*"))}
    older = sorted(name for name, at in days.items() if at[4:] + at[2:4] + at[:2] < f"{day:%Y%m%d}")
    return [f"{name_a_few(older)}: {kind} up to {day} replaces it; without it, reading is faster"] if older else []


# ------------------------------------------------------------------------------------------------------ Google Drive
def download_drive(link: str, folder: Path) -> Path:
    """The file behind a Google Drive share link, in `folder`; of a shared folder, `folder` with all its files.

    What is there already is not fetched again. Raises DataError when it cannot be had.
    """
    shared = DRIVE_LINK.match(link.strip())
    if not shared:
        raise DataError(f"{link}: not a share link of Google Drive such as https://drive.google.com/file/d/…/view or "
                        "…/drive/folders/…. In Drive: Share, Copy link.")
    try:
        import gdown  # noqa: F401
    except ImportError:
        raise DataError("gdown is needed for a Google Drive link. Install it with: pip install gdown") from None
    name = "download_folder" if shared[1] == "folders" else "download"
    require_space(folder, 0, "the files of a Drive link")
    try:
        done = subprocess.run([sys.executable, "-P", "-c", GDOWN, name, shared[2] or shared[3], f"{folder}/",
                               f"{MOST_FETCHED}"], capture_output=True, timeout=MOST_SECONDS)
        paths, reason = json.loads(done.stdout.splitlines()[-1])
        if not paths:
            raise OSError(reason)
        for file in map(Path, paths):
            with open_regular(file) as opened:
                is_page = is_web_page(opened.read(200))
            if is_page:
                file.unlink()
                raise OSError("a web page came instead of data")
    except (OSError, ValueError, IndexError, StorageError, subprocess.TimeoutExpired) as error:
        reason = f"{error}" if not isinstance(error, subprocess.TimeoutExpired) else "it takes too long"
        raise DataError(f"{link}: could not be fetched ({reason[:200]}). In Drive: Share, General access, Anyone with "
                        "the link. Where too many people fetched it: wait up to 24 hours, or share a copy.") from error
    return folder if shared[1] == "folders" else Path(paths[0])
