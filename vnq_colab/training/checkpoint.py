"""Checkpoints: the state of the job in flight in two slots, written in turn, and one closed file per finished job.

A state is a dictionary of tensors and plain values. It is serialised through a stream, so that equal states give equal
bytes, and stands behind a header with its own sequence number, length and sha256: a file proves itself or is not used.
All is written to the local folder; `mirror` brings it to Drive, and what is read comes from either.
"""

import contextlib
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vnq_colab.clock import utc_now
from vnq_colab.errors import CheckpointError
from vnq_colab.files import payload_sequence, read_payload, verified_sequence, write_payload, write_sealed
from vnq_colab.layout import SLOTS, Workspace
from vnq_colab.notebook import tell

FORMAT = 2  # of a manifest
SCRATCH_SECONDS = 600  # a file that nobody has written to for so long belongs to a process that was killed


class CheckpointStore:
    """The checkpoints of one run, in its folder on the local disk and, for a workspace on Drive, there too."""

    def __init__(self, ws: Workspace, run_id: str, siblings: tuple[str, ...] = ()):
        self.folder = ws.local.checkpoint_folder(run_id)
        self.folders = tuple(dict.fromkeys((self.folder, ws.checkpoint_folder(run_id))))
        self._ws = ws
        self.read_from(siblings)
        self.pause = self.seconds = 0.0  # [s] training stood still for the newest checkpoint; until it was written
        self._sequence = 0  # of the newest checkpoint of this process
        self._thread: threading.Thread | None = None
        self._manifest: dict[str, Any] | None = None  # of a checkpoint that was written since somebody asked
        self._error: Exception | None = None

    def read_from(self, siblings: tuple[str, ...]) -> None:
        """The runs on other machines that train other parts: their finished jobs are read too."""
        self._everywhere = self.folders + tuple(home.checkpoint_folder(other) for other in siblings
                                                for home in dict.fromkeys((self._ws.local, self._ws)))

    # --------------------------------------------------------------------------------------- the job in flight
    def save(self, state: dict[str, Any], facts: dict[str, Any], session: dict[str, Any] | None = None) -> None:
        """Takes a snapshot of `state` and writes it over the older slot in the background; `written` tells the end.

        `facts` (which job, data, config, code) stand in the state and in its manifest, `session` only in
        the manifest: what is needed when session.json is damaged.
        """
        started = time.monotonic()
        self.wait()
        snapshot = _on_host(state) | {"facts": facts}
        self._thread = threading.Thread(target=self._write, args=(snapshot, facts, session, started), name="checkpoint")
        self._thread.start()
        self.pause = time.monotonic() - started

    def reserve(self, state: dict[str, Any]) -> None:
        """Touches, in the background, as much memory as a snapshot of `state` will take.

        What the system hands out for the first time costs seconds for 2 GB; freed, it stays with the process (see
        `keep_freed_memory`), and no checkpoint waits for it.
        """
        self.wait()
        self._thread = threading.Thread(target=_touch, args=(_bytes(state),), name="reserve")
        self._thread.start()

    def wait(self) -> None:
        """Until the checkpoint in the background is written. Raises StorageError when it could not be."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def written(self) -> dict[str, Any] | None:
        """The manifest of a checkpoint that was finished since the last call, else None. Raises as `wait` does."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()
        manifest, self._manifest = self._manifest, None
        return manifest

    def load_latest(self, wanted: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that verifies and is of what is `wanted` (facts), else None; and a sentence for each damage.

        Slots are tried by the sequence numbers in their headers, highest first, the local ones before those on Drive.
        """
        slots = [folder / name for folder in self.folders for name in SLOTS]
        sequences = {path: payload_sequence(path) for path in slots}
        self._sequence = max(self._sequence, *sequences.values())
        told = [f"{path}: its beginning is damaged." for path in slots
                if sequences[path] < 0 and os.path.exists(path)]
        for path in sorted((path for path in slots if sequences[path] >= 0), key=lambda path: -sequences[path]):
            try:
                state = _load(path)
                facts = dict(state["facts"])
            except (CheckpointError, KeyError, TypeError, ValueError) as error:
                told.append(f"{error}")
                continue
            if facts | wanted == facts:
                return state, [*told, f"Checkpoint {sequences[path]} in {path} is used instead."] if told else []
        return None, [*told, "The job begins anew."] if told else []

    def _write(self, state: dict, facts: dict, session: dict | None, started: float) -> None:
        """In the background: the slot, then its manifest."""
        _give_way()
        try:
            sequences = {name: payload_sequence(self.folder / name) for name in SLOTS}
            slot, sequence = min(sequences, key=sequences.get), max(*sequences.values(), self._sequence) + 1
            digest, length = write_payload(self.folder / slot, lambda file: torch.save(state, file), sequence)
            self._sequence = sequence
            manifest = facts | {"format": FORMAT, "sequence": sequence, "slot": slot, "bytes": length, "sha256": digest,
                                "written": utc_now(), "session": session}
            write_sealed(self.folder / f"manifest_{slot[-1]}.json", manifest)
            self.seconds = time.monotonic() - started
            self._manifest = manifest
        except Exception as error:  # raised where the trainer asks, in its own thread
            self._error = error

    # ---------------------------------------------------------------------------------------------- finished jobs
    @staticmethod
    def done_name(job: str) -> str:
        """The file of a finished job, below the run's folder."""
        return f"done/{job}"

    def save_done(self, job: str, state: dict[str, Any]) -> Path:
        """Writes a finished job."""
        state, path = _on_host(state), self.folder / self.done_name(job)
        write_payload(path, lambda file: torch.save(state, file), sequence=0)
        return path

    def load_done(self, job: str) -> dict[str, Any]:
        """A finished job, from the local disk, from Drive or from a sibling.

        Raises CheckpointError when it verifies nowhere.
        """
        found: list[CheckpointError] = []
        for path in (folder / self.done_name(job) for folder in self._everywhere):
            if not os.path.exists(path):
                continue
            try:
                state = _load(path)
            except CheckpointError as error:
                found.append(error)
                continue
            if found:
                tell(f"{found[0]} {path} is used instead.")
            return state
        why = found[0] if found else f"{self.folder / self.done_name(job)}: there is no such file."
        raise CheckpointError(f"{why} Delete it, and resume trains this job again.")

    def has_done(self, job: str) -> bool:
        """Whether there is a file of a finished job, whole or not."""
        return any(os.path.exists(folder / self.done_name(job)) for folder in self._everywhere)

    def is_only_local(self, job: str) -> bool:
        """Whether a finished job is whole on the local disk and has not, or not wholly, reached Drive."""
        sizes = []
        for folder in self.folders:
            try:
                sizes.append(os.stat(folder / self.done_name(job)).st_size)
            except OSError:  # not there, or Drive is gone
                sizes.append(0)
        return sizes[0] > 0 and sizes[-1] != sizes[0] and verified_sequence(self.folder / self.done_name(job)) >= 0

    def is_usable(self, job: str) -> bool:
        """Whether a finished job can be read. A local file is verified, one elsewhere only where that is damaged."""
        local, *others = (folder / self.done_name(job) for folder in self._everywhere)
        if not os.path.exists(local):
            return any(map(os.path.exists, others))
        return any(verified_sequence(path) >= 0 for path in (local, *others))

    def clear_scratch(self) -> None:
        """Removes what a killed process left half written on the local disk, but not what may still be written."""
        for scratch in [*self.folder.glob(".*.part"), *self.folder.glob("done/.*.part")]:
            with contextlib.suppress(OSError):
                if time.time() - scratch.stat().st_mtime > SCRATCH_SECONDS:
                    scratch.unlink()


def _give_way() -> None:
    """Lets this thread run only where a core is free: the threads of a training step wait for one another."""
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _touch(size: int) -> None:
    _give_way()
    with contextlib.suppress(RuntimeError, MemoryError):  # then a checkpoint will say so
        torch.empty(size, dtype=torch.uint8).fill_(1)


def _on_host(value: Any) -> Any:
    """The same with a copy of every tensor, in the host's memory, and one object for equal texts.

    Pickle writes a text that is met again as a reference to the first, so that equal states give equal bytes only then.
    """
    if isinstance(value, str):
        return sys.intern(str(value))
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {_on_host(name): _on_host(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_host(part) for part in value)
    return value


def _bytes(value: Any) -> int:
    """Of all tensors in it."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_bytes, parts))


def _load(path: Path) -> dict[str, Any]:
    body: BinaryIO = read_payload(path)[1]
    try:
        return torch.load(body, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise CheckpointError(f"{path}: cannot be read as a state ({type(error).__name__}).") from error
