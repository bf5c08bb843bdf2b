import errno
import os
import random

import pytest

from vnq_colab import files, payload
from vnq_colab.errors import CheckpointError, StorageError


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
    digest, length = payload.write_payload(tmp_path / "slot", lambda file: file.write(b"state"), 7)
    sequence, body = payload.read_payload(tmp_path / "slot")
    assert (sequence, body.read(), length, len(digest)) == (7, b"state", 5, 64)
    assert payload.payload_sequence(tmp_path / "slot") == 7


def test_payload_with_any_flipped_byte_is_refused(tmp_path):
    path = tmp_path / "slot"
    payload.write_payload(path, lambda file: file.write(bytes(range(256))), 1)
    good = path.read_bytes()
    draw = random.Random(0)
    for place in [draw.randrange(len(good)) for _ in range(200)]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 1 << draw.randrange(8)]) + good[place + 1:])
        with pytest.raises(CheckpointError):
            payload.read_payload(path)


@pytest.mark.parametrize("length", [0, 5, 56, 100])
def test_payload_cut_short_is_refused(tmp_path, length):
    path = tmp_path / "slot"
    payload.write_payload(path, lambda file: file.write(bytes(100)), 1)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError):
        payload.read_payload(path)


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
