"""Checkpoints: the state of the pack in flight in two slots, written in turn, and one closed file per finished pack.

A state is a dictionary of tensors and plain values. It is serialised through a stream, so that equal states give equal
bytes, and stands behind a header with its own sequence number, length and sha256: a file proves itself or is not used.
"""

import io
from pathlib import Path
from typing import Any

import torch

from vnq_colab.clock import utc_now
from vnq_colab.errors import CheckpointError
from vnq_colab.files import payload_sequence, read_payload, write_json, write_payload

SLOTS = ("slot_a", "slot_b")


class CheckpointStore:
    """The checkpoints of one run, in its folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._sequence = 0  # of the newest checkpoint of this process

    def save(self, state: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        """Overwrites the older slot; returns what its manifest says: `facts`, sequence, bytes, sha256, written."""
        sequences = {name: payload_sequence(self.folder / name) for name in SLOTS}
        slot, sequence = min(sequences, key=sequences.get), max(*sequences.values(), self._sequence) + 1
        body = _to_bytes(state | {"facts": facts})
        digest = write_payload(self.folder / slot, body, sequence)
        self._sequence = sequence
        manifest = facts | {"sequence": sequence, "slot": slot, "bytes": len(body), "sha256": digest,
                            "written": utc_now()}
        write_json(self.folder / f"manifest_{slot[-1]}.json", manifest)
        return manifest

    def load_latest(self, pack: int) -> tuple[dict[str, Any] | None, list[str]]:
        """The newest state of `pack` that verifies, else None; and a sentence for each slot that did not verify."""
        verified, told = {}, []
        for path in (self.folder / slot for slot in SLOTS):
            if not path.exists():
                continue
            try:
                sequence, body = read_payload(path)
                verified[sequence] = _from_bytes(body, path)
            except CheckpointError as error:
                told.append(f"{error} The other slot, or the start of the pack, is used instead.")
        newest = verified[max(verified)] if verified else None
        return (newest if newest and newest["facts"]["pack"] == pack else None), told

    def pack_path(self, pack: int) -> Path:
        return self.folder / "done" / f"pack_{pack:02d}"

    def save_pack(self, pack: int, state: dict[str, Any]) -> str:
        """Writes a finished pack; returns its file name below the run's folder."""
        write_payload(self.pack_path(pack), _to_bytes(state), sequence=pack)
        return self.pack_path(pack).relative_to(self.folder).as_posix()

    def load_pack(self, pack: int) -> dict[str, Any]:
        """A finished pack. Raises CheckpointError when it does not verify."""
        path = self.pack_path(pack)
        try:
            return _from_bytes(read_payload(path)[1], path)
        except CheckpointError as error:
            raise CheckpointError(f"{error} Delete it, and resume trains this pack again.") from error


def _to_bytes(state: dict[str, Any]) -> memoryview:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getbuffer()


def _from_bytes(body: bytes, path: Path) -> dict[str, Any]:
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise CheckpointError(f"{path}: cannot be read as a state ({type(error).__name__}).") from error
