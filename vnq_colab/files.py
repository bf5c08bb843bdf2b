"""Files that are either whole or found to be damaged: atomic writes, hashes, sealed JSON, and payloads with a header.

On a local disk a file is put in place by a rename. In a Google Drive folder nothing is renamed, appended to or deleted:
there a file is overwritten in place, read back and compared, and its content must be able to prove itself.
"""

import contextlib
import errno
import hashlib
import io
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

PAYLOAD_MAGIC = b"VNQPAY02"
_HEADER = struct.Struct("<8sQQ32s")  # magic, sequence number, length of the body [bytes], sha256 of body and these two
_CHUNK = 2**22  # [bytes] read and written at once
SEAL = "seal"  # key of a JSON object that holds the sha256 of all its other keys

# What Drive calls its folders on Colab and, by language, in Drive for Desktop.
DRIVE_FOLDERS = {"MyDrive", "My Drive", "Shareddrives", "Shared drives", "Drive của tôi", "Meine Ablage", "Mon Drive"}


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def on_drive(path: Path) -> bool:
    """True below a Google Drive folder, where a write arrives late and a rename or an append cannot be trusted."""
    return not DRIVE_FOLDERS.isdisjoint(Path(path).parts)


class _Hashed:
    """A file that hashes and counts what is written to it, and keeps an OSError, whatever torch makes of it."""

    def __init__(self, file: BinaryIO):
        self.file, self.digest, self.length = file, hashlib.sha256(), 0
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, chunk: Any) -> int:
        try:
            self.file.write(chunk)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(chunk)
        self.length += (size := memoryview(chunk).nbytes)
        return size


def write_atomic(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Calls `write(file)` on a new file and puts it in place only when it is whole; on Drive with `overwrite`.

    Raises StorageError when the disk is full or the folder cannot be written; the old file is then untouched, unless it
    lies on Drive.
    """
    path = Path(path)
    folder = Path(tempfile.gettempdir()) if on_drive(path) else path.parent
    scratch = folder / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(scratch, "xb") as raw:
            file = _Hashed(raw)
            try:
                write(file)
            except Exception:
                if file.error is not None:
                    raise file.error from None
                raise
            raw.flush()
            os.fsync(raw.fileno())
        if on_drive(path):
            overwrite(path, scratch)
        else:
            _replace(scratch, path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(scratch)


def overwrite(path: Path, source: Path | bytes) -> None:
    """Copies a local file, or some bytes, over `path` in place, and reads them back.

    Raises StorageError when it cannot be written or does not come back as it was. Reading back may prove no more than
    Drive's local cache: that the bytes have arrived is known only after `flush_and_unmount`.
    """
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as whole, open(path, "wb") as file:
            while chunk := whole.read(_CHUNK):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        stored = sha256_of(path)
    except OSError as error:
        raise storage_error(path, error) from error
    if stored != digest.hexdigest():
        raise StorageError(f"{path}: Drive gives back something else than was written. Try again.")


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


# ------------------------------------------------------------------------------------------------------------- JSON
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


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object with the sha256 of itself."""
    write_json(path, value | {SEAL: _seal(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, without its seal. Raises CheckpointError when it is damaged; OSError as `open` does.

    One without a seal, which whoever edits it by hand removes, is taken as it is.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a file of this library.")
    seal = value.pop(SEAL, None)
    if seal is None:  # edited by hand, or the seal's own name is damaged
        seal = next((part for name, part in value.items() if len(name) == len(SEAL) and isinstance(part, str)
                     and len(part) == 64), None)
    if seal is not None and seal != _seal(value):
        raise CheckpointError(f"{path}: its content does not match its own sha256: damaged, or edited (then remove "
                              f"the line \"{SEAL}\").")
    return value


def _seal(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8")).hexdigest()


# ---------------------------------------------------------------------------------------------------------- payloads
def write_payload(path: Path, write: Callable[[BinaryIO], Any], sequence: int) -> tuple[str, int]:
    """Writes what `write(file)` writes, as a stream, behind a header that proves it; see `read_payload`.

    Returns the header's sha256 in hex, and the length of the body [bytes].
    """
    body: _Hashed

    def with_header(file: _Hashed) -> None:
        nonlocal body
        body = file
        file.file.write(bytes(_HEADER.size))
        write(file)
        file.digest.update(struct.pack("<QQ", sequence, file.length))
        file.file.seek(0)
        file.file.write(_HEADER.pack(PAYLOAD_MAGIC, sequence, file.length, file.digest.digest()))

    write_atomic(path, with_header)
    return body.digest.hexdigest(), body.length


def read_payload(path: Path) -> tuple[int, BinaryIO]:
    """(sequence number, the body as a file in memory) of a file that `write_payload` wrote.

    Raises CheckpointError unless every byte verifies.
    """
    try:
        with open(path, "rb") as file:
            sequence, length, digest = _read_header(file, path)
            body = file.read()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if len(body) != length:
        raise CheckpointError(f"{path}: {len(body):,} bytes where its header says {length:,}: a part is missing.")
    computed = hashlib.sha256(body)
    computed.update(struct.pack("<QQ", sequence, length))
    if computed.digest() != digest:
        raise CheckpointError(f"{path}: its content does not match its own sha256: damaged.")
    return sequence, io.BytesIO(body)


def payload_sequence(path: Path, *, verify: bool = False) -> int:
    """Sequence number in the header of a payload, -1 when there is none; with `verify` -1 unless every byte verifies.

    A file that was cut short has a header too.
    """
    with contextlib.suppress(CheckpointError, OSError):
        if verify:
            return read_payload(path)[0]
        with open(path, "rb") as file:
            return _read_header(file, path)[0]
    return -1


def _read_header(file: BinaryIO, path: Path) -> tuple[int, int, bytes]:
    """(sequence number, length, sha256)."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(PAYLOAD_MAGIC):
        raise CheckpointError(f"{path}: its beginning is damaged, or not of this version of the library.")
    return _HEADER.unpack(header)[1:]


def spell_bytes(size: float) -> str:
    """A size in words: 12 kB, 3.4 MB, 41.0 GB."""
    unit, bytes_each = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if size >= pair[1]), ("kB", 1e3))
    return f"{size / bytes_each:,.{0 if unit == 'kB' else 1}f} {unit}"


def require_space(folder: Path, needed_bytes: float, what: str) -> None:
    """Raises StorageError unless `folder` can be written and has room for `needed_bytes`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not on_drive(folder):  # where nothing is deleted
            with tempfile.TemporaryFile(dir=folder):
                pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise storage_error(folder, error) from error
    if free < needed_bytes:
        raise StorageError(
            f"{folder}: {what} needs about {spell_bytes(needed_bytes)}, and {spell_bytes(free)} are free. "
            "Free some space or choose another folder with --root."
        )
