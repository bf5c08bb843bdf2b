"""What reaches Google Drive in the background, so that a Drive that is slow, failing or gone stops nothing.

Copies of closed local files, one after another, and past them the heartbeat: a lost machine is known in a minute.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vnq_colab.clock import spell
from vnq_colab.errors import StorageError, TakenOverError, VnqError
from vnq_colab.files import MOST_JSON, overwrite, read_bytes, write_sealed
from vnq_colab.layout import HEARTBEAT, MANIFESTS, SESSION, SESSION_COPY, SLOTS
from vnq_colab.training.checkpoint import payload_sequence
from vnq_colab.training.session import Session

MOST_SMALL = 2**26  # [bytes] of a session, a log, a config
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # [s] between two tries of a write that failed; doubled each time
LATE_SECONDS = 120  # a write that waits longer than this is said to the person
SOON_SECONDS = 2  # what arrives within them at the end of an attempt needs no word
LAST_BEAT_SECONDS = 5  # that the end of an attempt waits for a heartbeat on its way


class DriveCopy:
    """The copies of one run, first in, first out; for a workspace on a local disk it does nothing.

    Drive never holds a session.json that speaks of a file that is not there yet; a newer version replaces an older one.
    """

    def __init__(self, session: Session):
        self.taken_over, self.trouble = False, ""  # trouble: why the last write failed
        self.seconds_of_checkpoint = 0.0  # that the newest one took to arrive
        self._session, self._folder = session, session.ws.checkpoint_folder(session.run_id)
        self._waiting: dict[str, tuple[float, Callable[[], None]]] = {}  # by what is written: since when, how
        self._sequences: dict[str, int] | None = None  # of the slots on Drive that verify, -1 for the others
        self._changed, self._closing = threading.Condition(), False
        self._is_needed = session.folder != self._folder
        if self._is_needed:
            threading.Thread(target=self._work, name="drive", daemon=True).start()

    def put(self, path: Path) -> None:
        """A closed file below the local workspace: a finished job, which never changes; a small one as it is now."""
        if self._is_needed and path.exists():
            ws = self._session.ws
            target = ws.root / path.relative_to(ws.local.root)
            content = path if path.parent.name == "done" else read_bytes(path, MOST_SMALL)
            self._add(str(target), lambda: _copy(content, target))

    def put_session(self, *, logs: bool = False) -> None:
        """The session last, which speaks of the others; a local disk that fails keeps nobody from ending."""
        session = self._session
        paths = sorted(session.ws.local.log_folder(session.run_id).glob("*.*")) if logs else []
        for path in (*paths, session.folder / SESSION, session.folder / SESSION_COPY):
            with contextlib.suppress(OSError, StorageError):
                self.put(path)

    def put_checkpoint(self, slot: Path, manifest: dict[str, Any]) -> None:
        """A checkpoint that lies in a local slot: goes into the older one of Drive's two, then its manifest."""
        if self._is_needed:
            self._add("checkpoint", lambda: self._write_checkpoint(slot, manifest))

    def is_late(self) -> bool:
        """Whether something still waits after a moment."""
        with self._changed:
            return not self._changed.wait_for(lambda: not self._waiting, timeout=SOON_SECONDS)

    def delay(self) -> str:
        """"Drive is 12 min behind (why)" when a write waits for long, else nothing."""
        with self._changed:
            oldest = min((since for since, _ in self._waiting.values()), default=None)
        if oldest is None or ((waits := time.monotonic() - oldest) < LATE_SECONDS and not self.trouble):
            return ""
        return f"Drive is {spell(waits)} behind{self._reason()}"

    def close(self, patience: float) -> str:
        """Waits until all has arrived, at most `patience` seconds from one file to the next; "" or what is missing."""
        with self._changed:
            is_moving = True
            while is_moving and self._waiting and not self.taken_over:
                n = len(self._waiting)
                is_moving = self._changed.wait_for(lambda n=n: len(self._waiting) < n or self.taken_over, patience)
            self._closing, n = True, len(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        if not n or self.taken_over:
            return ""
        return (f"{n} files did not reach Drive{self._reason()}; they are on this machine, in "
                f"{self._session.ws.local.root}")

    def _reason(self) -> str:
        return f" ({self.trouble})" if self.trouble else ""

    # ------------------------------------------------------------------------------------------- in the background
    def _add(self, name: str, write: Callable[[], None]) -> None:
        with self._changed:
            if not self._closing:
                since, _ = self._waiting.pop(name, (time.monotonic(), None))
                self._waiting[name] = since, write
                self._changed.notify_all()

    def _work(self) -> None:
        wait = FIRST_WAIT
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if self._closing:
                    return
                name, entry = next(iter(self._waiting.items()))
            trouble = ""
            try:
                self.taken_over = self._session.is_taken_over(self._folder)
                if not self.taken_over:
                    entry[1]()
            except (VnqError, OSError) as error:
                trouble = str(error)
            with self._changed:
                self.trouble = trouble
                if not trouble and self._waiting.get(name) is entry:
                    del self._waiting[name]
                self._changed.notify_all()
                if self.taken_over:
                    return
                if trouble:
                    self._changed.wait_for(lambda: self._closing, timeout=wait)
            wait = min(2 * wait, LONGEST_WAIT) if trouble else FIRST_WAIT

    def _write_checkpoint(self, slot: Path, manifest: dict[str, Any]) -> None:
        started = time.monotonic()
        if self._sequences is None:
            self._sequences = {name: payload_sequence(self._folder / name, verify=True) for name in SLOTS}
        older = min(SLOTS, key=self._sequences.get)
        self._sequences[older] = -1  # until it is whole: a try that fails leaves it damaged
        overwrite(self._folder / older, slot)
        self._sequences[older] = manifest["sequence"]
        write_sealed(self._folder / MANIFESTS[SLOTS.index(older)], manifest | {"slot": older})
        self.seconds_of_checkpoint = time.monotonic() - started


def _copy(content: Path | bytes, target: Path) -> None:
    if isinstance(content, bytes) or content.exists():  # else it was lost here, and there is nothing to copy
        overwrite(target, content)


class Heartbeat:
    """Signs of life of an attempt, from a thread of its own: a step, or a large file, may take longer than a beat."""

    def __init__(self, session: Session):
        self.taken_over = False
        self._session, self._stop = session, threading.Event()
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)

    def start(self) -> None:
        """From now on, until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """No more of them; waits a little for one on its way to Drive."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(LAST_BEAT_SECONDS)

    def _work(self) -> None:
        session, there = self._session, self._session.ws.checkpoint_folder(self._session.run_id)
        while not self._stop.is_set() and not self.taken_over:
            with contextlib.suppress(StorageError, OSError):  # the next one may arrive
                try:
                    session.beat()
                    self.taken_over = session.is_taken_over(there)
                except TakenOverError:
                    self.taken_over = True
                if session.folder != there and not self.taken_over:
                    overwrite(there / HEARTBEAT, read_bytes(session.folder / HEARTBEAT, MOST_JSON))
            self._stop.wait(session.heartbeat_seconds)
