import errno
import threading

import pytest

from vnq_colab import files
from vnq_colab.errors import StorageError
from vnq_colab.files import payload_sequence, read_payload, read_sealed, write_payload, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.training import mirror as mirrors
from vnq_colab.training.mirror import Mirror


@pytest.fixture
def ws(tmp_path, monkeypatch):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    monkeypatch.setattr(mirrors, "FIRST_WAIT", 0.01)
    return Workspace(tmp_path / "MyDrive" / "VN")


def local_session(ws, sequence=1, owner="me"):
    path = ws.local.checkpoint_folder("run") / "session.json"
    write_sealed(path, {"sequence": sequence, "owner": owner})
    return path


def checkpoint(ws, slot, sequence):
    path = ws.local.checkpoint_folder("run") / slot
    write_payload(path, lambda file: file.write(b"state %d" % sequence), sequence)
    return path, {"slot": slot, "sequence": sequence}


def test_workspace_on_a_local_disk_has_no_mirror(tmp_path):
    ws = Workspace(tmp_path / "VN")
    mirror = Mirror(ws, "run", {"me"})
    mirror.put(local_session(ws))
    assert ws.local == ws and mirror.close(0) == ""


def test_files_arrive_on_drive_as_they_were_given(ws):
    mirror = Mirror(ws, "run", {"me"})
    path = local_session(ws, 1)
    mirror.put(path)
    write_sealed(path, {"sequence": 2, "owner": "me"})
    mirror.put(path)
    assert mirror.close(10) == ""
    assert read_sealed(ws.checkpoint_folder("run") / "session.json")["sequence"] == 2


def test_checkpoints_go_into_the_older_slot_of_drive(ws):
    folder = ws.checkpoint_folder("run")
    mirror = Mirror(ws, "run", {"me"})
    for slot, sequence in (("slot_a", 5), ("slot_b", 6), ("slot_a", 7)):
        mirror.put_checkpoint(*checkpoint(ws, slot, sequence))
        while mirror._jobs:
            threading.Event().wait(0.01)
    assert mirror.close(10) == ""
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
    mirror = Mirror(ws, "run", {"me"})
    mirror.put_checkpoint(*checkpoint(ws, "slot_a", 7))
    assert mirror.close(10) == ""
    assert [payload_sequence(folder / name) for name in ("slot_a", "slot_b")] == [5, 7]


def test_drive_that_fails_is_tried_again_and_said_meanwhile(ws, monkeypatch):
    real, tries, is_back = files.overwrite, [], threading.Event()

    def failing(path, source):
        tries.append(path.name)
        if not is_back.is_set():
            raise StorageError(f"{path}: Transport endpoint is not connected")
        real(path, source)

    monkeypatch.setattr(mirrors, "overwrite", failing)
    mirror = Mirror(ws, "run", {"me"})
    mirror.put(local_session(ws))
    while len(tries) < 3:
        threading.Event().wait(0.01)
    assert "Drive is 0 s behind" in mirror.words() and "not connected" in mirror.words()
    is_back.set()
    assert mirror.close(10) == "" and mirror.words() == ""
    assert (ws.checkpoint_folder("run") / "session.json").exists()


def test_what_drive_never_took_is_named_in_the_end(ws, monkeypatch):
    def full(path, source):
        raise files.storage_error(path, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(mirrors, "overwrite", full)
    mirror = Mirror(ws, "run", {"me"})
    mirror.put(local_session(ws))
    said = mirror.close(0.1)
    assert "1 files did not reach Drive" in said and "disk is full" in said and str(ws.local.root) in said


def test_session_of_another_owner_on_drive_is_left_alone(ws):
    theirs = ws.checkpoint_folder("run") / "session.json"
    write_sealed(theirs, {"sequence": 9, "owner": "somebody else"})
    mirror = Mirror(ws, "run", {"me"})
    mirror.put(local_session(ws))
    mirror.close(5)
    assert "was taken over" in mirror.taken_over and read_sealed(theirs)["owner"] == "somebody else"


def test_content_that_drive_gives_back_otherwise_is_an_error(ws, monkeypatch):
    monkeypatch.setattr(files, "sha256_of", lambda path: "0" * 64)
    with pytest.raises(StorageError, match="gives back something else"):
        files.overwrite(ws.root / "file", b"content")
