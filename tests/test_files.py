import errno
import os
import random
import re
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

import pytest

from vnq_colab import files
from vnq_colab.errors import CheckpointError, StorageError
from vnq_colab.settings import Rule
from vnq_colab.training.checkpoint import payload_sequence, read_payload, write_payload


def test_atomic_write_leaves_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    files.write_atomic(path, lambda file: file.write(b"old"))

    def half(file):
        file.write(b"ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="disk is full"):
        files.write_atomic(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_folder_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        files.write_json(tmp_path / "file" / "below.json", {})


def test_payload_comes_back_with_its_sequence(tmp_path):
    digest, length = write_payload(tmp_path / "slot", lambda file: file.write(b"state"), 7)
    sequence, body, found = read_payload(tmp_path / "slot")
    assert (sequence, body.read(), length, found) == (7, b"state", 5, digest)
    assert payload_sequence(tmp_path / "slot") == 7


def test_payload_with_any_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "slot"
    write_payload(path, lambda file: file.write(bytes(range(256))), 1)
    good = path.read_bytes()
    draw = random.Random(0)
    for place in [draw.randrange(len(good)) for _ in range(200)]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << draw.randrange(8)]) + good[place + 1:])
        with pytest.raises(CheckpointError):
            read_payload(path)


@pytest.mark.parametrize("length", [0, 5, 56, 100])
def test_payload_cut_short_is_refused(tmp_path, length):
    path = tmp_path / "slot"
    write_payload(path, lambda file: file.write(bytes(100)), 1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError):
        read_payload(path)


def test_too_little_space_is_said_before_the_work(tmp_path):
    with pytest.raises(StorageError, match=r"needs about 1,000,000,000\.0 GB"):
        files.require_space(tmp_path, 1e18, "this run")


@pytest.mark.parametrize("size, text", [(0, "0 kB"), (4_200, "4 kB"), (3_450_000, "3.5 MB"), (1.234e12, "1,234.0 GB")])
def test_sizes_are_told_in_the_unit_that_fits(size, text):
    assert files.spell_bytes(size) == text


def test_damaged_json_is_one_sentence(tmp_path):
    (tmp_path / "session.json").write_text('{"a": ')
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        files.read_json(tmp_path / "session.json")


def test_library_says_of_which_type_all_json_is_that_it_reads():
    calls = [(path.name, line) for path in Path(files.__file__).parent.rglob("*.py")
             for line in path.read_text(encoding="utf-8").splitlines() if re.search(r"read_json\((?!path: )", line)]
    assert calls and [call for call in calls if not re.search(r"read_json\(.+, .+\)", call[1])] == []


# --- what hostile hands put in place of a file
@pytest.mark.parametrize("text", [
    b"[" * 100_000, b'{"a": ' * 50_000, b"NaN", b"-Infinity", b"1e999", b"1" * 5_000, b"[" + b"9" * 40 + b"]",
    b"\xff\xfe{\x00}\x00", b"\x00" * 100, b'"\\ud800"', b'{"a": 1', b"\x80", "\N{BYTE ORDER MARK}{}".encode()],
    ids=lambda text: repr(text[:12]))
def test_json_that_is_none_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text)
    for read in (files.read_json, files.read_sealed):
        with pytest.raises(CheckpointError, match=r"a\.json: not readable as JSON") as refused:
            read(tmp_path / "a.json")
        assert len(str(refused.value)) < 400


class Row(TypedDict):
    name: Annotated[str, Rule("must be a letter", lambda name: len(name) == 1)]
    days: list[int]
    share: float | None
    kind: NotRequired[Literal["a", "b"]]


@pytest.mark.parametrize("value, said", [
    ({"name": "xy", "days": [], "share": 1}, r"name = 'xy': must be a letter"),
    ({"name": "x", "days": [1, True], "share": 1}, r"days\[1\] = True: expected int"),
    ({"name": "x", "days": {}, "share": 1}, r"days = {}: expected a list"),
    ({"name": "x", "days": [], "share": "1"}, r"share = '1': expected float, or null"),
    ({"name": "x", "days": []}, "lacks share"),
    ({"name": "x", "days": [], "share": 1, "knd": 1}, r"there is no field 'knd'\. Did you mean 'kind'"),
    ({"name": "x", "days": [], "share": 1, "kind": None}, "kind = None: must be 'a' or 'b'"),
    ({"name": "x" * 10_000, "days": [], "share": 1}, r"name = 'x+\.\.\.x+': must be"),
    ({"name": "\x1b[2J", "days": [], "share": 1}, r"name = '\\x1b\[2J'"),
    ([], r"the content = \[\]: expected fields"), (None, "the content = None"),
])
def test_json_of_another_type_is_named_by_its_field(tmp_path, value, said):
    for write, read in ((files.write_json, files.read_json), (files.write_sealed, files.read_sealed)):
        if write is files.write_json or isinstance(value, dict):
            write(tmp_path / "a.json", value)
            with pytest.raises(CheckpointError, match=said) as refused:
                read(tmp_path / "a.json", Row)
            assert str(tmp_path / "a.json") in str(refused.value) and "\x1b" not in str(refused.value)


def test_json_of_its_type_comes_back(tmp_path):
    files.write_sealed(tmp_path / "a.json", {"name": "x", "days": [1], "share": 2})
    assert files.read_sealed(tmp_path / "a.json", Row) == {"name": "x", "days": [1], "share": 2.0}
    files.write_json(tmp_path / "b.json", {"x": [None, 1.5]})
    assert files.read_json(tmp_path / "b.json", dict[str, list[float | None]]) == {"x": [None, 1.5]}


def test_json_without_a_seal_is_not_sealed(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(CheckpointError, match="has no seal"):
        files.read_sealed(tmp_path / "a.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
@pytest.mark.parametrize("make", [
    os.mkdir, getattr(os, "mkfifo", None), lambda path: os.symlink("/dev/zero", path),
    lambda path: os.symlink(path, path)], ids=["folder", "pipe", "device", "loop"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, make):
    path = tmp_path / "a"
    make(path)
    for read in (lambda: files.read_bytes(path, 100), lambda: files.sha256_of(path)):
        with pytest.raises(StorageError, match="not a regular file|cannot be read"):
            read()
    for read in (files.read_json, files.read_sealed, read_payload):
        with pytest.raises(CheckpointError, match="not a regular file|cannot be read"):
            read(path)
    assert payload_sequence(path, verify=True) == -1
    with pytest.raises(StorageError, match="a link, or no regular file"):
        files.overwrite(path, b"ours")
    with pytest.raises(StorageError, match="a link, or no regular file"), files.locked(path):
        pass


def test_file_larger_than_expected_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(2**40)  # holes alone
    with pytest.raises(StorageError, match="at most 100 are expected"):
        files.read_bytes(path, 100)
    with pytest.raises(CheckpointError, match="are expected"):
        files.read_json(path)


def test_payload_whose_header_promises_more_than_the_file_holds_is_not_read(tmp_path):
    path = tmp_path / "slot"
    path.write_bytes(struct.pack("<8sQQ32s", b"VNQPAY02", 1, 2**60, bytes(32)) + b"x")
    with pytest.raises(CheckpointError, match="1 bytes where its header says 1,152,921,504,606,846,976"):
        read_payload(path)


def test_link_on_drive_is_not_written_through(tmp_path):
    theirs, path = tmp_path / "theirs", tmp_path / "MyDrive" / "a.json"
    theirs.write_text("precious")
    path.parent.mkdir()
    path.symlink_to(theirs)
    with pytest.raises(StorageError, match="a link"):
        files.write_json(path, {})
    assert theirs.read_text() == "precious"


# --- locks
HOLDER = "import sys, time; from vnq_colab import files\nwith files.locked(files.Path(sys.argv[1])):\n" \
         "    print('held', flush=True); time.sleep(60)"


def test_lock_is_held_by_one_process_and_free_when_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.2)
    path = tmp_path / "session.lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match="another process has held it"), files.locked(path):
            pass
        holder.kill()
    with files.locked(path):
        pass


def test_lock_keeps_threads_apart(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with files.locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80 and set(most) == {1}
