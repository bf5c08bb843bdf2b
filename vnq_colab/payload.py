"""Payloads: files whose header proves every byte of them; and what a file of torch may be before torch reads it."""

import contextlib
import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from vnq_colab.errors import CheckpointError, StorageError
from vnq_colab.files import HashedFile, open_regular, write_atomic

PAYLOAD_MAGIC = b"VNQPAY02"
MOST_PICKLED = 2**23  # [bytes] of what is no tensor in a file of torch (16 kB in a real one); read it takes 90-fold
_HEADER = struct.Struct("<8sQQ32s")  # magic, sequence number, length of the body [bytes], sha256 of body and these two


def write_payload(path: Path, write: Callable[[BinaryIO], Any], sequence: int) -> tuple[str, int]:
    """Writes what `write(file)` writes, as a stream, behind a header that proves it; see `read_payload`.

    Returns the header's sha256 in hex, and the length of the body [bytes].
    """
    body: HashedFile

    def with_header(file: HashedFile) -> None:
        nonlocal body
        body = file
        file.file.write(bytes(_HEADER.size))
        write(file)
        file.digest.update(struct.pack("<QQ", sequence, file.length))
        file.file.seek(0)
        file.file.write(_HEADER.pack(PAYLOAD_MAGIC, sequence, file.length, file.digest.digest()))

    write_atomic(path, with_header)
    return body.digest.hexdigest(), body.length


def read_payload(path: Path) -> tuple[int, io.BytesIO]:
    """(sequence number, the body as a file in memory) of a file that `write_payload` wrote.

    Raises CheckpointError unless every byte verifies.
    """
    try:
        with open_regular(path) as file:
            sequence, length, digest = _read_header(file, path)
            if (size := os.fstat(file.fileno()).st_size - _HEADER.size) != length:
                raise CheckpointError(f"{path}: {size:,} bytes where its header says {length:,}: a part is missing.")
            body = file.read(length)
    except (FileNotFoundError, StorageError) as error:
        what = f"{path}: there is no such file." if isinstance(error, OSError) else str(error)
        raise CheckpointError(what) from error
    computed = hashlib.sha256(body)
    computed.update(struct.pack("<QQ", sequence, length))
    if computed.digest() != digest:
        raise CheckpointError(f"{path}: its content does not match its own sha256: damaged.")
    return sequence, io.BytesIO(body)


def payload_sequence(path: Path, *, verify: bool = False) -> int:
    """Sequence number in the header of a payload, -1 when there is none; with `verify` -1 unless every byte verifies.

    A file that was cut short has a header too.
    """
    with contextlib.suppress(CheckpointError, StorageError, OSError):
        if verify:
            return read_payload(path)[0]
        with open_regular(path) as file:
            return _read_header(file, path)[0]
    return -1


def payload_digest(path: Path) -> str | None:
    """The sha256 in the header of a payload, as `write_payload` returned it; None where there is none."""
    with contextlib.suppress(CheckpointError, StorageError, OSError), open_regular(path) as file:
        return _read_header(file, path)[2].hex()
    return None


def _read_header(file: BinaryIO, path: Path) -> tuple[int, int, bytes]:
    """(sequence number, length, sha256)."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(PAYLOAD_MAGIC):
        raise CheckpointError(f"{path}: its beginning is damaged, or not of this version of the library.")
    return _HEADER.unpack(header)[1:]


def require_plain_zip(path: Path, content: bytes) -> None:
    """Raises CheckpointError unless a file of torch is a zip whose members are stored, so that it unpacks to itself."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises many kinds for what is damaged
        raise CheckpointError(f"{path}: not a file of torch, or damaged ({type(error).__name__}).") from error
    is_plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    pickled = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    if not is_plain or sum(member.file_size for member in members) > len(content) or pickled > MOST_PICKLED:
        raise CheckpointError(f"{path}: it unpacks to more than it holds, as no file of this library does. Remove it.")
