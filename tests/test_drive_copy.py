import errno
import threading
import time

import pytest

from vnq_colab import files
from vnq_colab.config import RunConfig
from vnq_colab.errors import StorageError
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import HEARTBEAT, Workspace
from vnq_colab.training import drive_copy
from vnq_colab.training.checkpoint import payload_sequence, read_payload, write_payload
from vnq_colab.training.drive_copy import DriveCopy, Heartbeat
from vnq_colab.training.session import Session


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    monkeypatch.setattr(drive_copy, "FIRST_WAIT", 0.01)
    return Workspace(tmp_path / "MyDrive" / "VN")


def copy_of(ws, **parts):
    return DriveCopy(Session(ws, "run", RunConfig(), "data", [], {}, {}, owner="me", token=1, **parts))


def beat_of_another(token):
    return {"token": token, "owner": "somebody else", "sequence": 1, "written": "2026-11-21T02:10:00Z", "drive": ""}


def local_session(ws, sequence=1):
    path = ws.local.checkpoint_folder("run") / "session.json"
    write_sealed(path, {"sequence": sequence})
    return path


def checkpoint(ws, slot, sequence):
    path = ws.local.checkpoint_folder("run") / slot
    write_payload(path, lambda file: file.write(b"state %d" % sequence), sequence)
    return path, {"slot": slot, "sequence": sequence}


def test_workspace_on_a_local_disk_has_no_copy(tmp_path):
    ws = Workspace(tmp_path / "VN")
    drive = copy_of(ws)
    drive.put(local_session(ws))
    assert ws.local == ws and drive.close(0) == ""


def test_files_arrive_on_drive_as_they_were_given(ws):
    drive = copy_of(ws)
    path = local_session(ws, 1)
    drive.put(path)
    write_sealed(path, {"sequence": 2})
    drive.put(path)
    assert drive.close(10) == ""
    assert read_sealed(ws.checkpoint_folder("run") / "session.json")["sequence"] == 2


def test_checkpoints_go_into_the_older_slot_of_drive(ws):
    folder = ws.checkpoint_folder("run")
    drive = copy_of(ws)
    for slot, sequence in (("slot_a", 5), ("slot_b", 6), ("slot_a", 7)):
        drive.put_checkpoint(*checkpoint(ws, slot, sequence))
        while drive._waiting:
            threading.Event().wait(0.01)
    assert drive.close(10) == ""
    assert sorted(payload_sequence(folder / name) for name in ("slot_a", "slot_b")) == [6, 7]
    for name in "ab":
        manifest = read_sealed(folder / f"manifest_{name}.json")
        assert manifest["slot"] == f"slot_{name}" and manifest["sequence"] == read_payload(folder / f"slot_{name}")[0]


def test_slot_that_was_cut_short_is_overwritten_before_the_whole_one(ws):
    """Its header has the higher number, so the header alone must not decide."""
    folder = ws.checkpoint_folder("run")
    folder.mkdir(parents=True)
    for slot, sequence in (("slot_a", 5), ("slot_b", 6)):
        path, _ = checkpoint(ws, slot, sequence)
        (folder / slot).write_bytes(path.read_bytes())
    (folder / "slot_b").write_bytes((folder / "slot_b").read_bytes()[:-3])
    drive = copy_of(ws)
    drive.put_checkpoint(*checkpoint(ws, "slot_a", 7))
    assert drive.close(10) == ""
    assert [payload_sequence(folder / name) for name in ("slot_a", "slot_b")] == [5, 7]


def test_drive_that_fails_is_tried_again_and_said_meanwhile(ws, monkeypatch):
    real, tries, is_back = files.overwrite, [], threading.Event()

    def failing(path, source):
        tries.append(path.name)
        if not is_back.is_set():
            raise StorageError(f"{path}: Transport endpoint is not connected")
        real(path, source)

    monkeypatch.setattr(drive_copy, "overwrite", failing)
    drive = copy_of(ws)
    drive.put(local_session(ws))
    while len(tries) < 3:
        threading.Event().wait(0.01)
    assert "Drive is 0 s behind" in drive.delay() and "not connected" in drive.delay()
    is_back.set()
    assert drive.close(10) == "" and drive.delay() == ""
    assert (ws.checkpoint_folder("run") / "session.json").exists()


def test_what_drive_never_took_is_named_in_the_end(ws, monkeypatch):
    def full(path, source):
        raise files.storage_error(path, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(drive_copy, "overwrite", full)
    drive = copy_of(ws)
    drive.put(local_session(ws))
    said = drive.close(0.1)
    assert "1 files did not reach Drive" in said and "disk is full" in said and str(ws.local.root) in said


@pytest.mark.parametrize("token", [1, 2])
def test_session_of_another_owner_on_drive_is_left_alone(ws, token):
    theirs = ws.checkpoint_folder("run") / "session.json"
    write_sealed(theirs, {"sequence": 9})
    write_sealed(theirs.with_name(HEARTBEAT), beat_of_another(token))
    drive = copy_of(ws)
    drive.put(local_session(ws))
    drive.close(5)
    assert drive.taken_over and read_sealed(theirs)["sequence"] == 9


def test_older_heartbeat_on_drive_is_no_other_owner(ws):
    theirs = ws.checkpoint_folder("run") / "session.json"
    write_sealed(theirs.with_name(HEARTBEAT), beat_of_another(0))
    drive = copy_of(ws)
    drive.put(local_session(ws, 3))
    assert drive.close(10) == "" and read_sealed(theirs)["sequence"] == 3


def test_heartbeat_on_drive_that_cannot_be_read_keeps_us_from_writing_until_it_has_stood_still(ws):
    """It may be of another machine, on its way: what changes is alive."""
    folder = ws.checkpoint_folder("run")
    folder.mkdir(parents=True)
    (folder / HEARTBEAT).write_text("torn")
    drive = copy_of(ws, heartbeat_seconds=0.5)
    drive.put(local_session(ws, 3))
    for moves in range(8):
        (folder / HEARTBEAT).write_text(f"torn {moves}")
        time.sleep(0.2)
        assert not (folder / "session.json").exists()
    assert "another machine may be writing it" in drive.trouble
    assert drive.close(20) == "" and read_sealed(folder / "session.json")["sequence"] == 3


def test_heartbeat_beats_on_drive_whatever_else_waits_and_stops_when_taken_over(ws):
    there, deadline = ws.checkpoint_folder("run") / HEARTBEAT, time.monotonic() + 20
    session = Session(ws, "run", RunConfig(), "data", [], {}, {}, heartbeat_seconds=0.01)
    session.claim()
    heartbeat, seen = Heartbeat(session), set()
    heartbeat.start()
    while len(seen) < 4 and time.monotonic() < deadline:
        seen.add(there.exists() and there.stat().st_mtime_ns)
    heartbeat.stop()
    assert len(seen) >= 4 and not heartbeat.taken_over
    write_sealed(there, beat_of_another(session.token + 1))
    again = Heartbeat(session)
    again.start()
    while not again.taken_over and time.monotonic() < deadline:
        time.sleep(0.01)
    again.stop()
    assert again.taken_over and read_sealed(there)["owner"] == "somebody else"


def test_content_that_drive_gives_back_otherwise_is_an_error(ws, monkeypatch):
    monkeypatch.setattr(files, "sha256_of", lambda path: "0" * 64)
    with pytest.raises(StorageError, match="gives back something else"):
        files.overwrite(ws.root / "file", b"content")
