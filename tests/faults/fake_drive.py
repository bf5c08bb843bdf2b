"""A Google Drive folder as it is on a bad day, on a folder of the local disk.

Inside a process, `FakeDrive` is a layer of the shim: it fails, sleeps, stores less than it was given, shows what a file
held before, hides new names, and disappears. Between two processes, `age` does to the folder what a lost machine leaves
behind: its cache had everything; Drive itself may have an older version of a file, half of it, nothing, or two of one
name.
"""

import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.faults.shim import LOOKS, Call, _open

ERRORS = (errno.EIO, errno.ENOTCONN, errno.ENOSPC, errno.EOPNOTSUPP)  # 5, 107, 28, 95 on Linux
TIMEOUT = errno.ETIMEDOUT
WAYS_TO_AGE = ("older", "cut", "missing", "double", "swapped")


class FakeDrive:
    """One Drive for one process. All rates are shares of the calls of their kind; 0 means never.

    `rate` of calls raise one of `errors`; `sleep_rate` of calls sleep `sleep_seconds`, then every second of them times
    out; `short_rate` of writes store half and say that they stored all; `cut_rate` of files are cut in half when they
    are closed; for `late_seconds` a file shows what it held before; for `hidden_seconds` a folder does not list what is
    new. From second `gone_from` to `gone_until` of `armed` time every call fails: with ENOTCONN, or with `gone_how`
    "missing" as if there were no such folder. `full_from`: from that call on there is no room for a write.
    """

    def __init__(self, versions: Path, *, seed: int = 0, rate: float = 0.0, errors: Iterable[int] = ERRORS,
                 sleep_rate: float = 0.0, sleep_seconds: float = 0.0, short_rate: float = 0.0, cut_rate: float = 0.0,
                 late_seconds: float = 0.0, hidden_seconds: float = 0.0, gone_from: float | None = None,
                 gone_until: float | None = None, gone_how: str = "disconnected", full_from: int | None = None):
        self.versions, self._random = versions, random.Random(seed)
        self.rate, self.errors, self.short_rate, self.cut_rate = rate, tuple(errors), short_rate, cut_rate
        self.sleep_rate, self.sleep_seconds = sleep_rate, sleep_seconds
        self.late_seconds, self.hidden_seconds = late_seconds, hidden_seconds
        self.gone_from, self.gone_until, self.gone_how, self.full_from = gone_from, gone_until, gone_how, full_from
        self.armed: float | None = None  # since when it misbehaves
        self.faults: dict[str, int] = {}  # that happened, by kind
        self._writes = 0
        self._kept: dict[str, list[tuple[float, Path]]] = {}  # of a file: when each version was closed, and a copy

    def arm(self) -> None:
        """From now on it misbehaves; before it is a plain folder."""
        self.armed = time.monotonic() if self.armed is None else self.armed

    def layer(self, call: Call, do: Callable[..., Any]) -> Any:
        """Stands around every call of the shim; those on a local disk pass."""
        if not call.on_drive:
            return do()
        if self.armed is None:
            return self._keeping(call, do)
        self._fail_if_gone(call)
        if self._happens(self.sleep_rate):
            self._count("sleep")
            time.sleep(self.sleep_seconds)
            if self._happens(0.5):
                self._fail(call, TIMEOUT)
        if self.full_from is not None and call.kind == "write":
            self._writes += 1
            if self._writes >= self.full_from:
                self._fail(call, errno.ENOSPC)
        if self._happens(self.rate):
            if call.kind == "close":
                do()  # the handle is gone either way
            self._fail(call, self._random.choice(self.errors))
        if call.kind == "write" and self._happens(self.short_rate):
            self._count("short write")
            do(call.data[: len(call.data) // 2])
            return len(call.data)
        if call.kind == "read" and (old := self._late_version(call.path)) is not None:
            self._count("late content")
            return do(old)
        if call.kind == "list" and self.hidden_seconds:
            return self._older_names(call, do)
        return self._keeping(call, do)

    def _keeping(self, call: Call, do: Callable[..., Any]) -> Any:
        """Does it, and keeps a copy of every file that is closed: the content that Drive may go back to."""
        result = do()
        if call.kind == "close":
            if self.armed is not None and self._happens(self.cut_rate):
                self._count("cut")
                with _open(call.path, "r+b") as file:
                    file.truncate(os.fstat(file.fileno()).st_size // 2)
            self.versions.mkdir(parents=True, exist_ok=True)
            kept = self._kept.setdefault(str(call.path), [])
            number = len(list(self.versions.glob(f"{flat_name(call.path)}.*")))
            copy = self.versions / f"{flat_name(call.path)}.{number:05d}"
            with _open(call.path, "rb") as file, _open(copy, "wb") as target:
                shutil.copyfileobj(file, target)
            kept.append((time.monotonic(), copy))
        return result

    def _late_version(self, path: Path) -> Path | None:
        """What a file held `late_seconds` ago, when that is known and not what it holds now."""
        kept, until = self._kept.get(str(path), []), time.monotonic() - self.late_seconds
        if not self.late_seconds or len(kept) < 2 or kept[-1][0] <= until:
            return None
        return next((copy for when, copy in reversed(kept) if when <= until), kept[0][1])

    def _older_names(self, call: Call, do: Callable[..., Any]) -> Any:
        """A listing without the files whose first version is new."""
        listed, until = list(do()), time.monotonic() - self.hidden_seconds
        new = {Path(path).name for path, kept in self._kept.items() if kept[0][0] > until}
        shown = [entry for entry in listed if (entry if isinstance(entry, str) else entry.name) not in new]
        if len(shown) < len(listed):
            self._count("stale listing")
        return shown if not listed or isinstance(listed[0], str) else _Listing(shown)

    def _fail_if_gone(self, call: Call) -> None:
        if self.gone_from is None or self.armed is None:
            return
        age = time.monotonic() - self.armed
        if age >= self.gone_from and (self.gone_until is None or age < self.gone_until) and call.kind != "close":
            self._fail(call, errno.ENOTCONN if self.gone_how == "disconnected" else errno.ENOENT)

    def _fail(self, call: Call, number: int) -> None:
        self._count(f"errno {number}" if call.kind not in LOOKS else f"errno {number} while looking")
        raise OSError(number, os.strerror(number), str(call.path))

    def _happens(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate

    def _count(self, what: str) -> None:
        self.faults[what] = self.faults.get(what, 0) + 1


class _Listing(list):
    """What os.scandir gives: entries, to be used with `with`."""

    def __enter__(self) -> "_Listing":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def flat_name(path: Path) -> str:
    """A file's name with those of its two folders, for the folder of versions."""
    return "+".join(path.parts[-3:])


def age(drive: Path, versions: Path, chance: random.Random, how_many: int = 2,
        ways: tuple[str, ...] = WAYS_TO_AGE) -> list[str]:
    """Leaves of some files of a run what Drive may really have had when a machine was lost; says what it did.

    older: an earlier version. cut: the first part. missing: nothing (the name is not there). double: the newest content
    went into a second file, "slot_a (1)", and the first kept its old. swapped: slot_a holds what slot_b holds.
    """
    found = [path for path in sorted(drive.glob("checkpoints/*/*")) + sorted(drive.glob("checkpoints/*/done/*"))
             if path.is_file() and "(" not in path.name]
    told = []
    for path in chance.sample(found, min(how_many, len(found))):
        kept = sorted(versions.glob(f"{flat_name(path)}.*"))
        way = chance.choice(ways)
        if way in ("older", "double") and len(kept) < 2:
            way = "cut"
        if way == "swapped" and path.name not in ("slot_a", "slot_b"):
            way = "missing"
        if way == "double":
            path.with_name(f"{path.stem} (1){path.suffix}").write_bytes(path.read_bytes())
        if way in ("older", "double"):
            path.write_bytes(chance.choice(kept[:-1]).read_bytes())
        elif way == "cut":
            content = path.read_bytes()
            path.write_bytes(content[: chance.randrange(len(content))] if content else b"")
        elif way == "missing":
            path.unlink()
        elif way == "swapped":
            other = path.with_name("slot_b" if path.name == "slot_a" else "slot_a")
            if other.exists():
                path.write_bytes(other.read_bytes())
        told.append(f"{path.name} {way}")
    return told
