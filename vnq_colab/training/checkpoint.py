"""Checkpoints: the state of the job in flight in two slots, written in turn, and one closed file per finished job.

All is written to the local folder, as payloads whose header proves every byte, and read from there or from Drive.
"""

import contextlib
import hashlib
import io
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NotRequired

import torch

from vnq_colab.clock import utc_now
from vnq_colab.errors import CheckpointError, StorageError, tell
from vnq_colab.files import HashedFile, checked, open_regular, write_atomic, write_sealed
from vnq_colab.layout import MANIFESTS, SLOTS, Workspace
from vnq_colab.models.states import read_state, tensors
from vnq_colab.settings import Rule, record
from vnq_colab.training.session import Session, other_parts
from vnq_colab.training.session_file import Facts

FORMAT = 2  # of a manifest
SCRATCH_SECONDS = 600  # a file that nobody has written to for so long belongs to a process that was killed
PAYLOAD_MAGIC = b"VNQPAY02"
_HEADER = struct.Struct("<8sQQ32s")  # magic, sequence number, length of the body [bytes], sha256 of body and these two


CURVES = Annotated[list[Any], Rule("must be rows of symbol, member, epoch, loss and skill", lambda rows: all(
    isinstance(row, (list, tuple)) and len(row) == 5 for row in rows))]
ROWS = record("Rows", **dict.fromkeys(("symbol", "day", "part", "score"), torch.Tensor),
              **dict.fromkeys(("mean", "scale"), NotRequired[torch.Tensor]))
TOLD = record("Told", day=str, importance=dict[str, float],
              stocks=list[record("Stock", symbol=str, explained_by=str, lifts=str, lowers=str)]) | None
DONE_JOB = record("DoneJob", facts=Facts, rows=dict[str, dict[str, Any]], curves=CURVES, budget=dict[str, Any],
                  failed=dict[str, str], sha256=str, weights=dict[str, Any] | None,
                  forecast=NotRequired[ROWS], held_out=NotRequired[dict[str, Any]], explanation=NotRequired[TOLD])


class CheckpointStore:
    """The checkpoints of one run, in its folder on the local disk and, for a workspace on Drive, there too."""

    def __init__(self, ws: Workspace, run_id: str):
        self._ws, self._run_id = ws, run_id
        self.folders = [home.checkpoint_folder(run_id) for home in ws.homes]
        self.folder = self.folders[0]
        self.read_from(())
        self.pause = self.seconds = 0.0  # [s] training stood still for the newest checkpoint; until it was written
        self._sequence = 0  # of the newest checkpoint of this process
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[dict[str, Any] | None] | None = None
        self._manifest: dict[str, Any] | None = None  # of a checkpoint that was written since somebody asked

    @classmethod
    def of(cls, session: Session) -> "CheckpointStore":
        """Those of a session; finished jobs of its other parts are read too."""
        store = cls(session.ws, session.run_id)
        store.read_from(other.run_id for other in other_parts(session))
        return store

    def read_from(self, others: Iterable[str]) -> None:
        """The runs on other machines that train other folds: their finished jobs are read too."""
        self._everywhere = [home.checkpoint_folder(run_id) for run_id in (self._run_id, *others)
                            for home in self._ws.homes]

    # --------------------------------------------------------------------------------------- the job in flight
    def save(self, state: dict[str, Any], facts: dict[str, Any]) -> None:
        """Takes a snapshot of `state` and writes it with `facts` over the older slot, in the background."""
        started = time.monotonic()
        self.wait()
        self._writing = self._writer.submit(self._write, _on_host(state) | {"facts": facts}, facts, started)
        self.pause = time.monotonic() - started

    def reserve(self, state: dict[str, Any]) -> None:
        """Touches, in the background, the memory of a snapshot of `state`: the first one would be ten times slower."""
        self.wait()
        self._writing = self._writer.submit(_touch, sum(one.nbytes for one in tensors(state)))

    def wait(self) -> None:
        """Until the checkpoint in the background is written. Raises StorageError when it could not be."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            self._manifest = writing.result()

    def written(self) -> dict[str, Any] | None:
        """The manifest of a checkpoint that was finished since the last call, else None. Raises as `wait` does."""
        if self._writing is None or self._writing.done():
            self.wait()
        manifest, self._manifest = self._manifest, None
        return manifest

    def load_latest(self, wanted: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state that verifies and is of the `wanted` facts, else None; and a sentence for each damage."""
        slots = {folder / name: payload_sequence(folder / name) for folder in self.folders for name in SLOTS}
        self._sequence = max(self._sequence, *slots.values())
        damages = [f"{path}: its beginning is damaged." for path, sequence in slots.items()
                   if sequence < 0 and os.path.exists(path)]
        for path in sorted((path for path in slots if slots[path] >= 0), key=lambda path: -slots[path]):
            try:
                state = read_state(path, read_payload(path)[1].getvalue())
                if state["facts"] | wanted == state["facts"]:
                    return state, damages and [*damages, f"Checkpoint {slots[path]} in {path} is used instead."]
            except (CheckpointError, KeyError, TypeError, ValueError) as error:
                damages.append(f"{error}")
        return None, damages and [*damages, "The job begins anew."]

    def _write(self, state: dict[str, Any], facts: dict[str, Any], started: float) -> dict[str, Any]:
        """In the background: the slot, then its manifest."""
        _give_way()
        sequences = {name: payload_sequence(self.folder / name) for name in SLOTS}
        slot, sequence = min(sequences, key=sequences.get), max(*sequences.values(), self._sequence) + 1
        digest, length = write_payload(self.folder / slot, lambda file: torch.save(state, file), sequence)
        self._sequence = sequence
        manifest = facts | {"format": FORMAT, "sequence": sequence, "slot": slot, "bytes": length, "sha256": digest,
                            "written": utc_now()}
        write_sealed(self.folder / MANIFESTS[SLOTS.index(slot)], manifest)
        self.seconds = time.monotonic() - started
        return manifest

    # ---------------------------------------------------------------------------------------------- finished jobs
    def done_path(self, job: str) -> Path:
        """The local file of a finished job."""
        return self.folder / "done" / job

    def _done_paths(self, job: str) -> list[Path]:
        """The files of a finished job that are there, whole or not, the local one first."""
        return [path for folder in self._everywhere if os.path.exists(path := folder / "done" / job)]

    def save_done(self, job: str, state: dict[str, Any]) -> Path:
        """Writes a finished job, and notes the sha256 of its file in `state` as "digest"."""
        stored, path = _on_host(state), self.done_path(job)
        state["digest"], _ = write_payload(path, lambda file: torch.save(stored, file), sequence=0)
        return path

    def load_done(self, job: str, facts: dict[str, Any] | None = None, digest: str | None = None) -> dict[str, Any]:
        """A finished job, from where it is whole and of these facts and this digest. Raises CheckpointError else."""
        damages: list[str] = []
        for path in self._done_paths(job):
            try:
                _, body, found = read_payload(path)
                state = checked(path, DONE_JOB, read_state(path, body.getvalue())) | {"digest": found}
                if facts not in (None, state["facts"]) or digest not in (None, found):
                    raise CheckpointError(f"{path}: holds another job, or the same one of other data or settings.")
                if damages:
                    tell(f"{damages[0]} {path} is used instead.")
                return state
            except CheckpointError as error:
                damages.append(str(error))
        why = damages[0] if damages else f"{self.done_path(job)}: there is no such file."
        raise CheckpointError(f"{why.partition(' Restore')[0]} Delete it, and resume trains this job again.")

    def is_usable(self, job: str, digest: str | None = None) -> bool:
        """Whether a finished job can be read. A local file is verified, one elsewhere only where that is damaged."""
        paths = self._done_paths(job)
        if paths and paths[0] != self.done_path(job):
            return True
        for path in paths:
            with contextlib.suppress(CheckpointError):
                if digest in (None, read_payload(path)[2]):
                    return True
        return False

    def put_finished(self, jobs: Iterable[str], put: Callable[[Path], None]) -> None:
        """Puts on their way those that are whole on the local disk and have not, or not wholly, reached Drive."""
        for job in jobs:
            local, there = (_size(folder / "done" / job) for folder in (self.folders[0], self.folders[-1]))
            if 0 < local != there and payload_sequence(self.done_path(job), verify=True) >= 0:
                put(self.done_path(job))

    def clear_scratch(self) -> None:
        """Removes what a killed process wrote by half on the local disk, but not what may still be written."""
        for scratch in [*self.folder.glob(".*.part"), *self.folder.glob("done/.*.part")]:
            with contextlib.suppress(OSError):
                if time.time() - scratch.stat().st_mtime > SCRATCH_SECONDS:
                    scratch.unlink()


def _give_way() -> None:
    """Lets this thread run only where a core is free: the threads of a training step wait for one another."""
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _touch(n_bytes: int) -> None:
    _give_way()
    with contextlib.suppress(RuntimeError, MemoryError):  # then a checkpoint will say so
        torch.empty(n_bytes, dtype=torch.uint8).fill_(1)


def _on_host(value: Any) -> Any:
    """The same with a copy of every tensor, in the host's memory, and one object for equal texts."""
    if isinstance(value, str):
        return sys.intern(str(value))  # pickle writes one that is met again as a reference: equal states, equal bytes
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {_on_host(name): _on_host(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_host(part) for part in value)
    return value


def _size(path: Path) -> int:
    """[bytes] 0 where there is no such file, or Drive is gone."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


# ---------------------------------------------------------------------------------------------------------- payloads
def write_payload(path: Path, write: Callable[[BinaryIO], Any], sequence: int) -> tuple[str, int]:
    """Writes what `write(file)` writes behind a header that proves it: its sha256 in hex, and the length [bytes]."""
    proof = []

    def with_header(file: HashedFile) -> None:
        file.file.write(bytes(_HEADER.size))
        write(file)
        file.digest.update(struct.pack("<QQ", sequence, file.length))
        file.file.seek(0)
        file.file.write(_HEADER.pack(PAYLOAD_MAGIC, sequence, file.length, file.digest.digest()))
        proof[:] = file.digest.hexdigest(), file.length

    write_atomic(path, with_header)
    return tuple(proof)


def read_payload(path: Path) -> tuple[int, io.BytesIO, str]:
    """(sequence number, body, the header's sha256 in hex) of a payload. CheckpointError unless every byte verifies."""
    try:
        with open_regular(path) as file:
            sequence, length, digest = _read_header(file, path)
            if (size := os.fstat(file.fileno()).st_size - _HEADER.size) != length:
                raise CheckpointError(f"{path}: {size:,} bytes where its header says {length:,}: a part is missing.")
            body = file.read(length)
    except (FileNotFoundError, StorageError) as error:
        raise CheckpointError(str(error)) from error
    computed = hashlib.sha256(body)
    computed.update(struct.pack("<QQ", sequence, length))
    if computed.digest() != digest:
        raise CheckpointError(f"{path}: its content does not match its own sha256: damaged.")
    return sequence, io.BytesIO(body), digest.hex()


def payload_sequence(path: Path, *, verify: bool = False) -> int:
    """Sequence number in the header of a payload, -1 when there is none, or `verify` finds it damaged."""
    with contextlib.suppress(CheckpointError, StorageError, FileNotFoundError):
        if verify:
            return read_payload(path)[0]
        with open_regular(path) as file:
            return _read_header(file, path)[0]
    return -1


def _read_header(file: BinaryIO, path: Path) -> tuple[int, int, bytes]:
    """(sequence number, length, sha256)."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(PAYLOAD_MAGIC):
        raise CheckpointError(f"{path}: its beginning is damaged, or not of this version of the library.")
    return _HEADER.unpack(header)[1:]
