"""Brings closed local files to Google Drive in the background: a Drive that is slow, failing or gone stops nothing.

What was given first arrives first, so that Drive never holds a session.json that speaks of a file which is not there
yet; a newer version replaces an older one that still waits. On Drive files are overwritten in place and read back.
"""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vnq_colab.clock import spell
from vnq_colab.errors import TakenOverError, VnqError
from vnq_colab.files import overwrite, read_sealed, sealed, verified_sequence
from vnq_colab.layout import MANIFESTS, SESSION, SLOTS, Workspace

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # [s] between two tries of a write that failed; doubled each time
LATE_SECONDS = 120  # a write that waits longer than this is told to the person


class Mirror:
    """The way of one run's files to Drive. For a workspace on a local disk there is nothing to do, and it does nothing.

    `owners` are the processes that are known to have trained this run, this one included: when Drive's session.json
    names another, the run was taken over, `taken_over` says so, and nothing is written any more.
    """

    def __init__(self, ws: Workspace, run_id: str, owners: set[str]):
        self.taken_over, self.trouble = "", ""
        self.seconds_of_checkpoint = 0.0  # that the newest one took to arrive
        self._ws, self._local, self._owners = ws, ws.local, owners
        self._folder = ws.checkpoint_folder(run_id)
        self._jobs: dict[str, tuple[float, Callable[[], None]]] = {}  # by what they write: since when, how
        self._sequences: dict[str, int] | None = None  # of the slots on Drive that verify, -1 for the others
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)
        if self.is_needed:
            self._thread.start()

    @property
    def is_needed(self) -> bool:
        return self._local != self._ws

    def put(self, path: Path) -> None:
        """A closed file below the local workspace; small ones as they are now, large ones as they are when it is done.

        A large one (a finished pack) is never changed, so that is the same.
        """
        if not self.is_needed or not path.exists():
            return
        target = self._ws.root / path.relative_to(self._local.root)
        content = path if path.parent.name == "done" else path.read_bytes()

        def copy() -> None:
            if isinstance(content, bytes) or content.exists():  # else it was lost here, and there is nothing to bring
                overwrite(target, content)

        self._add(str(target), copy)

    def put_checkpoint(self, slot: Path, manifest: dict[str, Any]) -> None:
        """A checkpoint that lies in a local slot: goes into the older one of Drive's two, then its manifest."""
        if self.is_needed:
            self._add("checkpoint", lambda: self._write_checkpoint(slot, manifest))

    def is_late(self, seconds: float = 2.0) -> bool:
        """Whether something still waits after so many seconds."""
        with self._changed:
            return not self._changed.wait_for(lambda: not self._jobs, timeout=seconds)

    def words(self) -> str:
        """"Drive is 12 min behind (why)" when a write waits for long, else nothing."""
        with self._changed:
            since = min((since for since, _ in self._jobs.values()), default=None)
        if since is None or (not self.trouble and time.monotonic() - since < LATE_SECONDS):
            return ""
        return f"Drive is {spell(time.monotonic() - since)} behind" + (f" ({self.trouble})" if self.trouble else "")

    def close(self, patience: float) -> str:
        """Waits until everything has arrived, at most `patience` seconds from the last success; "" or what is missing.

        After that nothing more is written.
        """
        with self._changed:
            waiting, since = len(self._jobs), time.monotonic()
            while self._jobs and not self.taken_over and time.monotonic() < since + patience:
                self._changed.wait(0.5)
                if len(self._jobs) < waiting:
                    waiting, since = len(self._jobs), time.monotonic()
            self._closing = True
            missing = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        if not missing or self.taken_over:
            return ""
        return (f"{len(missing)} files did not reach Drive{f' ({self.trouble})' if self.trouble else ''}; they are on "
                f"this machine, in {self._local.root}")

    # ------------------------------------------------------------------------------------------- in the background
    def _add(self, name: str, do: Callable[[], None]) -> None:
        with self._changed:
            if self._closing:
                return
            since, _ = self._jobs.pop(name, (time.monotonic(), None))
            self._jobs[name] = since, do
            self._changed.notify_all()

    def _work(self) -> None:
        wait = FIRST_WAIT
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if self._closing:
                    return
                name, job = next(iter(self._jobs.items()))
            try:
                self._refuse_if_taken_over()
                job[1]()
            except TakenOverError as error:
                self.taken_over = str(error)
                return
            except (VnqError, OSError) as error:
                with self._changed:
                    self.trouble = str(error)
                    self._changed.wait_for(lambda: self._closing, timeout=wait)
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            with self._changed:
                self.trouble, wait = "", FIRST_WAIT
                if self._jobs.get(name) is job:
                    del self._jobs[name]
                self._changed.notify_all()

    def _refuse_if_taken_over(self) -> None:
        """Raises TakenOverError when somebody else has written Drive's session.json; its damage is no sign of that."""
        try:
            owner = read_sealed(self._folder / SESSION).get("owner")
        except (OSError, VnqError):
            return
        if owner and owner not in self._owners:
            raise TakenOverError(self._folder.name)

    def _write_checkpoint(self, slot: Path, manifest: dict[str, Any]) -> None:
        started = time.monotonic()
        if self._sequences is None:
            self._sequences = {name: verified_sequence(self._folder / name) for name in SLOTS}
        number = min(range(len(SLOTS)), key=lambda n: self._sequences[SLOTS[n]])
        self._sequences[SLOTS[number]] = -1  # until it is whole: a try that fails leaves it damaged
        overwrite(self._folder / SLOTS[number], slot)
        self._sequences[SLOTS[number]] = manifest["sequence"]
        text = json.dumps(sealed(manifest | {"slot": SLOTS[number]}), indent=1, ensure_ascii=False)
        overwrite(self._folder / MANIFESTS[number], text.encode("utf-8"))
        self.seconds_of_checkpoint = time.monotonic() - started
