"""A shim below `vnq_colab`: every system call that writes a run's files passes here, and some that read them.

It replaces `open` and `os` of `vnq_colab.files`, and what pathlib uses, in this process, and is never taken out again:
install it in a process that was forked for one attempt. Calls are numbered in the order in which they begin.
"""

import builtins
import fcntl
import io
import os
import re
import signal
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vnq_colab import files

WRITES = ("mkdir", "open", "write", "fsync", "replace", "unlink", "rmdir", "truncate")  # what counts as a point
LOOKS = ("read", "look", "list")  # calls that change nothing; a Drive can fail, or lie, in them too
BUFFER = 4096  # [bytes] of a file object of Python on a usual disk: smaller writes are gathered, larger go straight on

_open, _io_open = builtins.open, io.open
_real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir",
                                              "truncate", "stat", "listdir", "scandir")}
Layer = Callable[["Call", Callable[..., Any]], Any]


@dataclass
class Call:
    """One system call on a file of the run."""

    number: int  # of the writing calls, from 1; 0 for one that only looks
    kind: str
    path: Path
    on_drive: bool
    data: Any = None  # that a write is given

    @property
    def what(self) -> str:
        """The file without what is different in each run, e.g. "slot_a", "session.json.new" before it is in place."""
        name = self.path.name
        if scratch := re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.part", name):
            name = f"{scratch[1]}.new"
        return name


class Shim:
    """Counts, lists, kills and fails the calls on files below `roots`.

    `kill_at` is the number of a call, `how` "before", "after", or "middle" (a write stores its first half). `layers`
    stand around each call, the first outermost: `layer(call, do)` answers what `do()` does, or something else.
    """

    def __init__(self, roots: list[Path], *, kill_at: int = 0, how: str = "after", layers: tuple[Layer, ...] = (),
                 log: Callable[[str], None] | None = None):
        self.roots = [os.path.join(str(root), "") for root in roots]
        self.kill_at, self.how, self.layers, self.log = kill_at, how, layers, log
        self.count = 0
        self._lock = threading.Lock()
        self._open_files: dict[int, Path] = {}

    def is_ours(self, path: Any) -> bool:
        """Whether a path lies below one of the roots."""
        return isinstance(path, (str, os.PathLike)) and str(path).startswith(tuple(self.roots))

    def call(self, kind: str, path: Path, do: Callable[..., Any], data: Any = None) -> Any:
        """Lets one system call happen, or not."""
        path, number = Path(path), 0
        if kind in WRITES:
            with self._lock:
                self.count += 1
                number = self.count
        call = Call(number, kind, path, files.on_drive(path), data)
        dies = number and number == self.kill_at
        if self.log and number:
            self.log(f"call {number} {kind} {'drive' if call.on_drive else 'local'} {call.what}")
        if dies and (self.how == "before" or (self.how == "middle" and kind != "write")):
            die()
        if dies and self.how == "middle":
            do(data[: len(data) // 2])
            die()
        for layer in reversed(self.layers):
            do = _around(layer, call, do)
        try:
            return do() if data is None else do(data)
        finally:
            if dies:
                die()

    # ------------------------------------------------------------------------------------------ put into the library
    def install(self) -> "Shim":
        """From now on, in this process, for good."""
        builtins.open = io.open = self.open  # the second is pathlib's
        proxy = types.SimpleNamespace(**{name: getattr(os, name) for name in dir(os)})
        for place in (os, proxy):
            place.fsync = self._fsync
            for name in ("unlink", "remove"):
                setattr(place, name, self._of_one_path("unlink", name))
            for name in ("rmdir", "mkdir", "truncate"):
                setattr(place, name, self._of_one_path(name, name))
            place.replace, place.rename = self._moving("replace"), self._moving("rename")
            place.stat = self._of_one_path("look", "stat")
            place.listdir, place.scandir = self._of_one_path("list", "listdir"), self._of_one_path("list", "scandir")
        files.os = proxy
        return self

    def open(self, file: Any, mode: str = "r", *arguments: Any, **choices: Any) -> Any:
        """`open`, with a raw file of our own below Python's buffer when it writes."""
        reads = not set(mode) & set("wxa+")
        if not self.is_ours(file) or ("opener" in choices and not reads):  # a nameless file, to try a folder
            return _open(file, mode, *arguments, **choices)
        if reads:
            return self.call("read", file, lambda path=file: _open(path, mode, *arguments, **choices))
        raw = _RawFile(self, file, mode.replace("b", "").replace("t", ""))
        whole = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, BUFFER)
        return whole if "b" in mode else io.TextIOWrapper(whole, encoding=choices.get("encoding"))

    def _fsync(self, handle: int) -> None:
        path = self._open_files.get(handle)
        if path is None:
            return _real["fsync"](handle)
        return self.call("fsync", path, lambda: _real["fsync"](handle))

    def _of_one_path(self, kind: str, name: str) -> Callable[..., Any]:
        def one(path: Any = ".", *arguments: Any, **choices: Any) -> Any:
            if not self.is_ours(path):
                return _real[name](path, *arguments, **choices)
            return self.call(kind, path, lambda: _real[name](path, *arguments, **choices))
        return one

    def _moving(self, name: str) -> Callable[..., Any]:
        def move(source: Any, target: Any, **choices: Any) -> Any:
            if not self.is_ours(target):
                return _real[name](source, target, **choices)
            return self.call("replace", target, lambda: _real[name](source, target, **choices))
        return move


class _RawFile(io.FileIO):
    """The file below the buffer: what arrives here is a system call."""

    def __init__(self, shim: Shim, path: Any, mode: str):
        self._shim, self._path = shim, Path(path)
        shim.call("open", self._path, lambda: super(_RawFile, self).__init__(path, mode))
        shim._open_files[self.fileno()] = self._path

    def write(self, data: Any) -> int:
        return self._shim.call("write", self._path, super().write, bytes(data))

    def truncate(self, size: int | None = None) -> int:
        return self._shim.call("truncate", self._path, lambda: super(_RawFile, self).truncate(size))

    def close(self) -> None:
        if self.closed:
            return
        self._shim._open_files.pop(self.fileno(), None)
        self._shim.call("close", self._path, super().close)


def die() -> None:
    """The end of this process, without another word."""
    os.kill(os.getpid(), signal.SIGKILL)


def watch_drive(tell: Callable[[str], None]) -> None:
    """Tells of whatever on a Drive is opened for writing, appended to, moved or deleted by anyone in this process.

    By the interpreter's own audit events, so independent of the shim. Source: docs.python.org, audit_events.
    """
    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], (str, os.PathLike)) and files.on_drive(arguments[0]):
            flags = arguments[2] or 0
            if flags & os.O_APPEND:
                tell(f"drive append {arguments[0]}")
            elif flags & (os.O_WRONLY | os.O_RDWR):
                tell(f"drive write {arguments[0]}")
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"):
            paths = [path for path in arguments if isinstance(path, (str, os.PathLike)) and files.on_drive(path)]
            if paths:
                tell(f"drive {event.removeprefix('os.')} {paths[0]}")

    sys.addaudithook(hook)


def refuse_replace(times: int) -> None:
    """Windows, where os.replace fails so many times, each time anew, because a virus scanner reads the target.

    Its locks are held by this system's own.
    """
    left, replace = {}, files.os.replace

    def refusing(source: Any, target: Any, **choices: Any) -> None:
        left.setdefault(source, times)
        if left[source]:
            left[source] -= 1
            raise PermissionError(13, "Access is denied", str(target))
        replace(source, target, **choices)

    proxy = types.SimpleNamespace(**vars(files.os)) if isinstance(files.os, types.SimpleNamespace) else \
        types.SimpleNamespace(**{name: getattr(os, name) for name in dir(os)})
    proxy.name, proxy.replace = "nt", refusing
    files.os = proxy
    sys.modules["msvcrt"] = types.SimpleNamespace(
        LK_NBLCK=2, locking=lambda handle, mode, length: fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB))


def _around(layer: Layer, call: Call, do: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: layer(call, lambda *other: do(*(other or arguments)))
