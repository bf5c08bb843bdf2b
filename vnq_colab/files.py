"""Files that are either whole or found to be damaged: bounded reading, atomic writes, hashes, sealed JSON.

On a local disk a file is put in place by a rename. In a Google Drive folder nothing is renamed, appended to or deleted:
there a file is overwritten in place, read back and compared, and its content must be able to prove itself.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vnq_colab.errors import CheckpointError, ConfigError, StorageError, shorten
from vnq_colab.settings import convert

_CHUNK = 2**22  # [bytes] read and written at once
SEAL = "seal"  # key of a JSON object that holds the sha256 of all its other keys
MOST_JSON = 2**25  # [bytes] of a JSON file; parsed it may take thirty times as much
LOCK_SECONDS = 20  # that a lock is waited for
MOST_DIGITS = 30  # of a whole number in JSON

# What Drive calls its folders on Colab and, by language, in Drive for Desktop.
DRIVE_FOLDERS = {"MyDrive", "My Drive", "Shareddrives", "Shared drives", "Drive của tôi", "Meine Ablage", "Mon Drive"}


def sha256_of(path: Path) -> str:
    """Hex sha256 of a regular file's content, read in pieces."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def on_drive(path: Path) -> bool:
    """True below a Google Drive folder, where a write arrives late and a rename or an append cannot be trusted."""
    return not DRIVE_FOLDERS.isdisjoint(Path(path).parts)


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open to be read. Raises FileNotFoundError; StorageError: unreadable, a pipe, a device."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise StorageError(f"{path}: not a regular file. Remove it, or put a file in its place.")
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path)) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file. Raises as `open_regular`, and StorageError for more than `most` bytes."""
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise StorageError(f"{path}: {size:,} bytes, where at most {most:,} are expected: it is damaged.")
        return file.read(size)


class HashedFile:
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


def write_atomic(path: Path, write: bytes | Callable[[BinaryIO], Any]) -> None:
    """Writes bytes, or what `write(file)` writes, and puts the file in place only when whole; on Drive by `overwrite`.

    Raises StorageError when the disk is full or the folder cannot be written; the old file is then untouched, unless it
    lies on Drive.
    """
    path = Path(path)
    folder = Path(tempfile.gettempdir()) if on_drive(path) else path.parent
    scratch = folder / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(scratch, "xb") as raw:
            file = HashedFile(raw)
            try:
                file.write(write) if isinstance(write, bytes) else write(file)
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
        _refuse_link(path)
        with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as whole, \
                open(path, "wb") as file:
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


def _refuse_link(path: Path) -> None:
    """Raises StorageError where writing would reach something else than a file of that name."""
    if not os.path.lexists(path):
        return
    if not stat.S_ISREG((facts := os.lstat(path)).st_mode):
        raise StorageError(f"{path}: a link, or no regular file, and not written to. Remove it.")
    if facts.st_nlink > 1:  # a backup of hard links keeps its content; Drive itself has none
        os.unlink(path)


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


@contextlib.contextmanager
def locked(path: Path, seconds: float | None = None, held: str = "") -> Iterator[None]:
    """One process, and one thread of it, at a time; the lock of one that was killed is free. On a local disk alone.

    Raises StorageError, saying `held`, when somebody holds it for long. A file system without locks is used without.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_link(path)
        with open(path, "ab") as file:
            end = time.monotonic() + (seconds := LOCK_SECONDS if seconds is None else seconds)
            while not _lock(file.fileno()):
                if time.monotonic() > end:
                    raise StorageError(f"{path}: {held or f'another process has held it for over {seconds:g} s'}. "
                                       "Wait for it, or end it.")
                time.sleep(0.01)
            yield
    except OSError as error:
        raise storage_error(path, error) from error


def _lock(handle: int) -> bool:
    """Whether the lock on a file was got, or there are none."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
    return True


# ------------------------------------------------------------------------------------------------------------- JSON
def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode("utf-8"))


def read_json(path: Path, hint: Any = Any) -> Any:
    """The JSON in `path` as the type `hint`. Raises FileNotFoundError; CheckpointError: damaged, or of another type."""
    try:
        text = read_bytes(path, MOST_JSON).decode("utf-8")
        value = json.loads(text, parse_constant=_number, parse_int=_number, parse_float=_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character cannot be written again
    except StorageError as error:
        raise CheckpointError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}). "
                              "Restore it, or delete it and start anew.") from error
    return checked(path, hint, value)


def _number(text: str) -> int | float:
    """A number in JSON. Raises ValueError for one that is not finite, or of too many digits."""
    if len(text) > MOST_DIGITS or not math.isfinite(value := float(text)):
        raise ValueError(f"{shorten(text)} is not a number that this library writes")
    return int(text) if text.lstrip("-").isdecimal() else value


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object with the sha256 of itself."""
    write_json(path, value | {SEAL: _seal(value)})


def read_sealed(path: Path, hint: Any = dict[str, Any]) -> Any:
    """The JSON object in `path` as the type `hint`, without its seal. Raises as `read_json`, and where none fits it."""
    value = read_json(path, dict[str, Any])
    seal = value.pop(SEAL, None)
    if seal != _seal(value):
        what = "it has no seal (a sha256)" if seal is None else "its content does not match its own sha256"
        raise CheckpointError(f"{path}: {what}: damaged, edited, or of an earlier version. Restore it, or run the step "
                              "again that writes it.")
    return checked(path, hint, value)


def checked(path: Path, hint: Any, value: Any) -> Any:
    """A value that was read from `path` as the type `hint`. Raises CheckpointError where it is none."""
    try:
        return convert(hint, value, "")
    except ConfigError as error:
        raise CheckpointError(f"{path}: {str(error).rstrip('.')}. Restore it, or run the step again that writes it."
                              ) from error


def _seal(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode("utf-8")).hexdigest()


def spell_bytes(size: float) -> str:
    """A size in words: 12 kB, 3.4 MB, 41.0 GB."""
    unit, bytes_each = next((pair for pair in (("GB", 1e9), ("MB", 1e6)) if size >= pair[1]), ("kB", 1e3))
    return f"{size / bytes_each:,.{0 if unit == 'kB' else 1}f} {unit}"


def require_space(folder: Path, needed_bytes: float, what: str) -> None:
    """Raises StorageError unless `folder` can be written and has room for `needed_bytes`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
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
