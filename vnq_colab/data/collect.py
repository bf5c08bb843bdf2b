"""Collecting: brings price files from where they are published into a folder of one's own, whole and verified.

Honestly: none of the live sites could be tried while this was written. CafeF's addresses are those of public projects
of October 2026, tested against a local server that behaves like it; vnstock is called as its documentation says.
"""

import datetime as dt
import errno
import http.client
import os
import re
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vnq_colab.data.downloads import Downloads, flaw_of_zip, is_live, is_web_page, progress, say
from vnq_colab.data.market import VN102
from vnq_colab.data.splits import to_day
from vnq_colab.errors import ConfigError, DataError, did_you_mean, name_a_few
from vnq_colab.files import read_json, require_space, sha256_of, storage_error, write_json
from vnq_colab.layout import Workspace

CAFEF = "https://cafef1.mediacdn.vn/data/ami_data"
KINDS = {"adjusted": "CafeF.SolieuGD.Upto{}.zip", "raw": "CafeF.SolieuGD.Raw.Upto{}.zip",
         "index": "CafeF.Index.Upto{}.zip"}  # {}: the day as 20112026
VIETNAM = dt.timezone(dt.timedelta(hours=7))  # no summer time since 1975
RETRY_SECONDS = (2, 8, 30)  # waited before each further try
TIMEOUT_SECONDS = 60
PIECE = 1 << 18  # [bytes] read at once
VNSTOCK_FROM = "2015-01-01"  # backtests start in 2016; a year before it warms the features up
VNSTOCK_SECONDS = 3.1  # before each call: 20 a minute without a key. Source: vnstocks.com, 2026
DRIVE_LINK = re.compile(r"https?://(?:drive|docs|drive\.usercontent)\.google\.com/(?:.*/)?"
                        r"(?:(folders|file(?:/u/\d+)?/d)/([\w-]{10,})|[^/]*[?&]id=([\w-]{10,}))")


class _Unusable(Exception):
    """What the site answered is no price file: not there, a web page, a damaged zip."""


@dataclass(frozen=True, repr=False)
class Collected:
    """What `collect_prices` brought."""

    files: tuple[Path, ...]  # all that are there and verified
    day: str  # the newest day that was found, "2026-11-20"
    skipped: tuple[str, ...]  # names of those that were there already
    notes: tuple[str, ...]  # what was passed over, not found, or is replaced by now

    def __repr__(self) -> str:
        size = sum(file.stat().st_size for file in self.files if file.exists()) / 1e6
        lines = [f"Collected: {len(self.files)} files up to {self.day}, {size:,.1f} MB; "
                 f"{len(self.files) - len(self.skipped)} fetched, {len(self.skipped)} already there",
                 f"  {name_a_few(file.name for file in self.files)} in {self.files[0].parent}"]
        return "\n".join(lines + [f"  {note}" for note in self.notes])


def collect_prices(ws: Workspace, *, day: str | None = None, source: str = "cafef", url: str | None = None,
                   kinds: tuple[str, ...] = tuple(KINDS), look_back_days: int = 10,
                   symbols: tuple[str, ...] = VN102, quiet: bool = False) -> Collected:
    """Brings the newest price files up to `day` (None: today in Vietnam) into `data/raw/`.

    source "cafef": one zip per kind, of the newest day that has it, at most `look_back_days` back, from `url` (None:
    CafeF's own); an interrupted download goes on. Nothing is removed: a note says which older zips are not needed.
    source "vnstock": the daily history of each of `symbols` as `vnstock/SYMBOL.csv`, prices as they come.
    Raises DataError when nothing is found, or the site does not answer.
    """
    last = dt.datetime.now(VIETNAM).date() if day is None else to_day(day).date()
    if source == "vnstock":
        return _collect_vnstock(Downloads(ws.raw / "vnstock"), symbols, f"{last}", quiet)
    if source != "cafef":
        raise ConfigError(f"source = {source!r}: not known.{did_you_mean(source, ('cafef', 'vnstock'))}")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"kinds: {unknown[0]!r} is not known.{did_you_mean(unknown[0], KINDS)}")
    if url and not url.startswith(("http://", "https://")):
        raise ConfigError(f"url = {url!r}: must begin with https://.")
    days = [last - dt.timedelta(days=back) for back in range(max(look_back_days, 0) + 1)]
    return _collect_cafef(Downloads(ws.raw), days, (url or CAFEF).rstrip("/"), kinds, quiet)


# ------------------------------------------------------------------------------------------------------------- CafeF
def _collect_cafef(downloads: Downloads, days: list[dt.date], url: str, kinds: tuple[str, ...],
                   quiet: bool) -> Collected:
    found, skipped, notes, refused = {}, [], [], []
    for kind in kinds:
        for day in days:
            name = KINDS[kind].format(f"{day:%d%m%Y}")
            try:
                if _bring_zip(f"{url}/{day:%Y%m%d}/{name}", name, downloads, kind, day, quiet):
                    skipped.append(name)
            except _Unusable as error:
                refused.append(str(error))
                notes += [] if str(error).startswith("HTTP") else [f"{name} was passed over: {error}"]
            else:
                found[kind] = day, downloads.folder / name
                notes += _older_than(day, kind, downloads.folder)
                break
        else:
            notes.append(f"no {kind} zip of {days[-1]} to {days[0]} was found")
    if not found:
        reasons = ", ".join(f"{refused.count(reason)} × {reason}" for reason in dict.fromkeys(refused))
        raise DataError(f"{url}: no CafeF zip of the {len(days)} days from {days[-1]} to {days[0]} ({reasons}). The "
                        f"site may have changed: download the zips by hand into {downloads.folder}.")
    if len({day for day, _ in found.values()}) > 1:
        notes.append("not all of one day: " + ", ".join(f"{kind} {day}" for kind, (day, _) in found.items()))
    newest = max(day for day, _ in found.values())
    return Collected(tuple(file for _, file in found.values()), f"{newest}", tuple(skipped), tuple(notes))


def _bring_zip(link: str, name: str, downloads: Downloads, kind: str, day: dt.date, quiet: bool) -> bool:
    """Puts one zip in its place; True when it was there already. Raises _Unusable when the site has no sound one."""
    is_foreign = downloads.is_foreign(link, name)
    if is_foreign and (flaw := flaw_of_zip(downloads.folder / name)):
        raise DataError(f"{downloads.folder / name}: {flaw}. Remove it, then collect again.")
    if is_foreign or downloads.is_verified(link):
        return True
    part, reason = downloads.scratch / f"{kind}.part", ""
    for pause in (0, *RETRY_SECONDS):
        time.sleep(pause)
        try:
            resumed = _receive(link, part, name, downloads.folder, quiet)
        except (OSError, http.client.HTTPException) as error:
            reason = _reason_to_retry(error, part)
            continue
        if not (reason := flaw_of_zip(part)):
            downloads.put_in_place(link, part, name, kind=kind, day=f"{day}")
            part.unlink()
            say(f"{name}: {(downloads.folder / name).stat().st_size / 1e6:,.1f} MB, verified", quiet)
            return False
        part.unlink()
        if not resumed:  # whole and yet unsound: asking again gives the same
            raise _Unusable(reason)
    raise DataError(f"{link}: not received in {1 + len(RETRY_SECONDS)} tries (the last: {reason}). Try again later, it "
                    f"goes on where it stopped; or download it by hand into {downloads.folder}.")


def _reason_to_retry(error: Exception, part: Path) -> str:
    """What went wrong, where trying again may help; else raises _Unusable (not there) or StorageError (our disk)."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code == 416:  # what is here of it does not fit what the site has now
            part.unlink(missing_ok=True)
        elif error.code < 500 and error.code not in (408, 429):
            raise _Unusable(f"HTTP {error.code}") from None
        return f"HTTP {error.code}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        raise storage_error(part, error) from error
    return str(error) or type(error).__name__


def _receive(link: str, part: Path, name: str, folder: Path, quiet: bool) -> bool:
    """Appends to `part` what is missing of it, or begins anew; True when an earlier part was used.

    Beside the part lies a JSON with its link, length and validator. `folder` is where the file goes in the end. Raises
    OSError when the connection breaks, the body is short, or the server answers with an error.
    """
    state = part.with_suffix(".json")
    known = read_json(state) if state.exists() and part.exists() else {}
    known = known if known.get("link") == link else {}
    have = part.stat().st_size if known else 0
    if have and have == known.get("total"):
        return True
    headers = {"User-Agent": "Mozilla/5.0 (compatible; vnq_colab)", "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-"} if have else {}
    headers |= {"If-Range": known["validator"]} if have and known.get("validator") else {}
    with urllib.request.urlopen(urllib.request.Request(link, headers=headers), timeout=TIMEOUT_SECONDS) as response:
        if response.status == 206:
            total = known.get("total")
            if not re.fullmatch(rf"bytes {have}-\d+/{total}", response.headers.get("Content-Range", "")):
                part.unlink()
                raise ConnectionError("the site went on with another file")
        else:
            part.unlink(missing_ok=True)  # before its state changes
            have, length = 0, response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            etag = response.headers.get("ETag", "")  # a weak one must not stand in If-Range. Source: RFC 9110, 13.1.5
            validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")
            require_space(folder, total or 0, name)
            write_json(state, {"link": link, "total": total, "validator": validator})
        require_space(part.parent, (total or 0) - have, name)
        resumed = have > 0
        with open(part, "ab" if resumed else "wb") as file, \
                progress(name, total, done=have, quiet=quiet) as advance:
            while piece := response.read(PIECE):
                have += file.write(piece)
                advance(len(piece))
    if total is not None and have != total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")
    return resumed


def _older_than(day: dt.date, kind: str, folder: Path) -> list[str]:
    """Says which zips of a kind the one of `day` replaces. They stay: removing is the person's."""
    stamp = len(KINDS[kind].partition("{}")[0])
    days = {file.name: file.name[stamp:stamp + 8] for file in folder.glob(KINDS[kind].format("*"))}
    older = sorted(name for name, at in days.items() if at[4:] + at[2:4] + at[:2] < f"{day:%Y%m%d}")
    return [f"{name_a_few(older)}: {kind} up to {day} replaces it; without it, reading is faster"] if older else []


# ----------------------------------------------------------------------------------------------------------- vnstock
def _collect_vnstock(downloads: Downloads, symbols: tuple[str, ...], last: str, quiet: bool) -> Collected:
    try:
        from vnstock import Quote
    except ImportError:
        raise DataError('vnstock is needed for source="vnstock". Install it with: pip install vnstock') from None
    require_space(downloads.folder, 3e5 * len(symbols), "the history of every symbol")
    files, skipped, failed = [], [], {}
    with progress("vnstock", len(symbols), unit="symbols", quiet=quiet) as advance, \
            tempfile.TemporaryDirectory() as scratch:
        for symbol in symbols:
            link, name = f"vnstock:{symbol}", f"{symbol}.csv"
            if downloads.is_verified(link) and downloads.entries[link]["day"] == last:
                skipped.append(name)
                files.append(downloads.folder / name)
            elif downloads.is_foreign(link, name):
                failed[symbol] = f"{downloads.folder / name} was not fetched by us: move it away"
            else:
                time.sleep(VNSTOCK_SECONDS)
                try:
                    table = Quote(symbol=symbol, source="VCI").history(start=VNSTOCK_FROM, end=last, interval="1D")
                    if not len(table):
                        raise ValueError("no rows")
                    table.to_csv(part := Path(scratch, name), index=False)
                except (Exception, SystemExit) as error:  # at its rate limit, vnstock calls sys.exit
                    failed[symbol] = (str(error) or type(error).__name__).splitlines()[0]
                else:
                    files.append(downloads.put_in_place(link, part, name, day=last))
            advance(1)
    first = next((f"{symbol}: {reason}" for symbol, reason in failed.items()), "no symbol was asked for")
    if not files:
        raise DataError(f'vnstock gave none of {len(symbols)} symbols ({first}). Try later, or with source="cafef".')
    notes = (f"failed: {name_a_few(failed)} (first {first})",) if failed else ()
    return Collected(tuple(files), last, tuple(skipped), notes)


# ------------------------------------------------------------------------------------------------------ Google Drive
def download_drive(link: str, folder: str | Path, *, quiet: bool = False) -> Path:
    """The file behind a Google Drive share link, in `folder`; of a shared folder, `folder` with all its files.

    A verified file is not downloaded again. Raises DataError when gdown is missing, the link is no share link, the file
    is not shared or over its quota, a web page came instead of data, or another file of that name is there already.
    """
    found = DRIVE_LINK.match(link.strip())
    if not found:
        raise DataError(f"{link}: not a share link of Google Drive such as https://drive.google.com/file/d/…/view or "
                        "…/drive/folders/…. In Drive: Share, Copy link (a Google Sheet: download it as CSV first).")
    try:
        import gdown
    except ImportError:
        raise DataError("gdown is needed for a Google Drive link. Install it with: pip install gdown") from None
    downloads, drive_id = Downloads(Path(folder)), found[2] or found[3]
    if found[1] != "folders":
        return _drive_file(gdown, drive_id, None, downloads, quiet)
    for item in _ask_drive(link, downloads.folder, lambda: gdown.download_folder(
            id=drive_id, output=str(downloads.folder), quiet=True, skip_download=True)):
        _drive_file(gdown, item.id, item.path, downloads, quiet)
    return downloads.folder


def _drive_file(gdown: Any, drive_id: str, name: str | None, downloads: Downloads, quiet: bool) -> Path:
    link = f"https://drive.google.com/uc?id={drive_id}"
    if downloads.is_verified(link):
        return downloads.folder / downloads.entries[link]["file"]
    with tempfile.TemporaryDirectory() as scratch:  # on the local disk: the folder may be on Drive itself
        got = Path(_ask_drive(link, downloads.folder, lambda: gdown.download(
            id=drive_id, output=scratch + os.sep, quiet=quiet or not is_live())))
        if is_web_page(got):
            raise _drive_error(link, downloads.folder, f"a web page, not data: {got.read_text(errors='ignore')}")
        name = name or got.name
        if downloads.is_foreign(link, name) and sha256_of(downloads.folder / name) != sha256_of(got):
            raise DataError(f"{downloads.folder / name}: a file of this name is there already, and it is not the one "
                            f"behind {link}. Move or rename it.")
        target = downloads.put_in_place(link, got, name)
    say(f"{name}: {target.stat().st_size / 1e6:,.1f} MB from Google Drive", quiet)
    return target


def _ask_drive(link: str, folder: Path, ask: Callable[[], Any]) -> Any:
    try:
        if answer := ask():
            return answer
    except Exception as error:  # gdown 5 and 6 raise different things for the same page
        raise _drive_error(link, folder, str(error) or type(error).__name__) from error
    raise _drive_error(link, folder, "no public link")  # gdown 5, of a folder that is not shared


def _drive_error(link: str, folder: Path, reason: str) -> DataError:
    reason = " ".join(reason.split())
    if re.search(r"too many users|quota|can.t view or download", reason, re.IGNORECASE):
        return DataError(f"{link}: Google Drive refuses it for now, too many people fetched this file. Wait up to 24 "
                         "hours, or make a copy of it in your own Drive, share that, and use the copy's link.")
    if re.search(r"public link|permission|denied|sign.in|accounts\.google|status code 40", reason, re.IGNORECASE):
        return DataError(f"{link}: not shared with everyone who has the link (or removed, or fetched too often). In "
                         f"Drive: Share, General access, Anyone with the link; or download it by hand into {folder}.")
    return DataError(f"{link}: could not be fetched ({reason[:120]}). Check the link in a browser and the connection, "
                     f"or download it by hand into {folder}.")
