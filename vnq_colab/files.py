"""Files that are either whole or not there: atomic writes, hashes, payloads that verify themselves."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from vnq_colab.errors import CheckpointError, StorageError

PAYLOAD_MAGIC = b"VNQPAY01"
_HEADER = struct.Struct("<8sQQ32s")  # magic, sequence number, length of the body [bytes], sha256


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Calls `write(file)` on a new file beside `path` and puts it in place only when it is whole.

    A reader sees the old content or the new, never a part. Raises StorageError when the disk is full or the folder
    cannot be written; the old file is then untouched.
    """
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _replace(scratch, path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(scratch)


def _replace(source: Path, target: Path, tries: int = 20) -> None:
    """os.replace that waits while Windows refuses because somebody reads the target (at most two seconds)."""
    for attempt in range(tries):
        try:
            return os.replace(source, target)
        except PermissionError:
            if os.name != "nt" or attempt == tries - 1:
                raise
            time.sleep(0.1)


def storage_error(path: Path, error: OSError) -> StorageError:
    """The sentence for a failed write: a full disk, a read-only folder, or what the system said."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageError(f"{path}: the disk is full. Free some space or choose another folder with --root.")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return StorageError(f"{path}: this folder cannot be written. Choose another with --root or VNQ_HOME.")
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return StorageError(f"{path}: a file stands where a folder is needed. Choose another folder with --root.")
    return StorageError(f"{path}: {error.strerror or error}. Try again, or choose another folder with --root.")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))


def read_json(path: Path) -> Any:
    """The JSON in `path`. Raises CheckpointError when it is damaged, FileNotFoundError when it is not there."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}). "
                              "Restore it, or delete it and start anew.") from error


def write_payload(path: Path, body: bytes | memoryview, sequence: int) -> str:
    """Writes `body` behind a header with its sequence number, length and the sha256 of all three, whole or not at all.

    Returns that sha256 in hex.
    """
    digest = _payload_digest(sequence, body)
    header = _HEADER.pack(PAYLOAD_MAGIC, sequence, len(body), digest)

    def write(file: BinaryIO) -> None:
        file.write(header)
        file.write(body)

    write_atomic(path, write)
    return digest.hex()


def _payload_digest(sequence: int, body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(struct.pack("<QQ", sequence, len(body)))
    digest.update(body)
    return digest.digest()


def read_payload(path: Path) -> tuple[int, bytes]:
    """(sequence number, body) of a file that `write_payload` wrote.

    Raises CheckpointError unless every byte verifies.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER.size)
            body = file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(header) < _HEADER.size or header[:8] != PAYLOAD_MAGIC:
        raise CheckpointError(f"{path}: not a payload of this library, or its beginning is damaged.")
    _, sequence, length, digest = _HEADER.unpack(header)
    if len(body) != length:
        raise CheckpointError(f"{path}: {len(body):,} bytes where its header says {length:,}: a part is missing.")
    if _payload_digest(sequence, body) != digest:
        raise CheckpointError(f"{path}: its content does not match its own sha256: damaged.")
    return sequence, body


def payload_sequence(path: Path) -> int:
    """Sequence number in the header of a payload, -1 when there is none to read. Verifies nothing else."""
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER.size)
    except OSError:
        return -1
    if len(header) < _HEADER.size or header[:8] != PAYLOAD_MAGIC:
        return -1
    return _HEADER.unpack(header)[1]


def require_space(folder: Path, needed_bytes: float, what: str) -> None:
    """Raises StorageError unless `folder` can be written and has room for `needed_bytes`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(folder, error) from error
    if free < needed_bytes:
        raise StorageError(
            f"{folder}: {what} needs about {needed_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free. "
            "Free some space or choose another folder with --root."
        )
