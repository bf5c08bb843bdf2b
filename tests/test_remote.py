"""Elsewhere: rclone against its local backend, Colab's command line against a program that behaves like it."""

import os
import shutil
import sys
import time

import pytest

from vnq_colab.__main__ import main
from vnq_colab.data.prepared import load_panel
from vnq_colab.delivery import remote
from vnq_colab.errors import ConfigError, SessionError, StorageError
from vnq_colab.layout import Workspace
from vnq_colab.training.session import Session, latest_session
from vnq_colab.training.trainer import train

needs_rclone = pytest.mark.skipif(not shutil.which("rclone"), reason="rclone is not installed: apt install rclone")
COLAB = """#!{python}
import os, pathlib, shutil, subprocess, sys, time
words, home = sys.argv[1:], pathlib.Path({home!r})
what, name = words[0], words[words.index("-s") + 1]
content = home / name / "content"
with open(home / "log", "a") as log:
    print(*words, file=log)
print(f"[colab] {{what}}", file=sys.stderr, flush=True)
if what == "run":
    content.mkdir(parents=True)
elif what == "upload":
    shutil.copy(words[3], home / name / words[4])
elif what == "exec":
    time.sleep({silence})
    subprocess.run([sys.executable, words[4]], cwd=content, env=os.environ | {{"PYTHONPATH": "."}})
elif what == "download":
    if not (home / name / words[3]).exists():
        sys.exit("[colab] 404")
    shutil.copy(home / name / words[3], words[4])
elif what == "stop":
    shutil.rmtree(home / name)
"""


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """Puts a program that behaves like Google's first on the path; `colab(silence=2)` is silent so long."""
    def put(silence=0):
        home = tmp_path / "google"
        home.mkdir(exist_ok=True)
        program = tmp_path / "bin" / "colab"
        program.parent.mkdir(exist_ok=True)
        program.write_text(COLAB.format(python=sys.executable, home=str(home), silence=silence))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return home
    return put


@pytest.fixture
def drive(tmp_path, clean):
    """(a workspace that has the data alone, the remote, a finished run in it, of which it knows nothing)."""
    _, session = clean
    ws, there = Workspace(tmp_path / "here"), tmp_path / "GoogleDrive"
    shutil.copytree(session.ws.prepared, ws.prepared)
    return ws, there, session


@needs_rclone
def test_data_goes_to_the_remote_and_a_finished_run_comes_back_whole(drive):
    ws, there, session = drive
    remote.send_data(ws, session.data_id, str(there))
    assert (there / "data" / "prepared" / session.data_id / "prepared.json").exists()
    for name in ("checkpoints", "configs", "logs"):
        shutil.copytree(session.ws.root / name, there / name)
    found = remote.wait_for_run(ws, session.data_id, str(there), patience=5, seconds=5)
    assert found.run_id == session.run_id and (ws.checkpoint_folder(found.run_id) / "done" / "trees_final").exists()
    assert train(ws, load_panel(ws, session.data_id), session.config, quiet=True).run_id == session.run_id


@needs_rclone
def test_changed_file_that_never_changes_is_named_and_not_overwritten(drive):
    ws, there, session = drive
    remote.send_data(ws, session.data_id, str(there))
    file = there / "data" / "prepared" / session.data_id / "panel.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(StorageError, match="never changes is another one there"):
        remote.send_data(ws, session.data_id, str(there))


@needs_rclone
def test_remote_that_is_not_configured_is_refused_with_the_remedy(drive):
    with pytest.raises(StorageError, match="not configured: run rclone config.*own client id"):
        remote.rclone("copy", drive[0].root, "nowhere:x")


@pytest.mark.parametrize(("said", "cure"), [
    ("googleapi: Error 403: storageQuotaExceeded", "Google Drive is full"),
    ("googleapi: Error 403: User rate limit exceeded, userRateLimitExceeded", "wait up to 24 hours"),
    ("couldn't fetch token: invalid_grant: maybe token expired?", "rclone config reconnect")])
def test_what_google_says_through_rclone_has_a_remedy(tmp_path, monkeypatch, said, cure):
    program = tmp_path / "rclone"
    program.write_text(f'#!/bin/sh\necho "2026/11/28 02:00:00 ERROR : panel.parquet: {said}" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match=cure):
        remote.rclone("copy", "a", "b")


def test_missing_programs_are_named_with_how_to_install_them(tmp_path, monkeypatch, drive):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match="sudo apt install rclone.*winget install"):
        remote.rclone("lsf", "x")
    with pytest.raises(ConfigError, match="uv tool install google-colab-cli"):
        remote.train_on_colab(drive[0], drive[2].data_id, [], gpu="T4", patience=1)


def test_waiting_ends_when_nobody_gives_a_sign_of_life(drive, capsys, monkeypatch):
    ws, _, session = drive
    began = time.monotonic()
    assert remote.wait_for_run(ws, session.data_id, None, patience=0.4, seconds=60) is None
    assert "press Run all" in capsys.readouterr().err
    shutil.rmtree(ws.root)
    assert remote.wait_for_run(ws, session.data_id, None, patience=0.4, seconds=60) is None
    assert "Google Drive does not answer" in capsys.readouterr().err and time.monotonic() - began < 10


def test_colab_trains_and_gives_the_machine_back(drive, colab):
    ws, _, session = drive
    home = colab()
    words = ["--families", "trees", "--profile", "smoke", "--symbols", "SYN001,SYN002"]
    remote.train_on_colab(ws, session.data_id, words, gpu="L4", patience=60)
    run = latest_session(ws)
    assert run.status == "finished" and run.data_id == session.data_id and set(run.ledger) == {"SYN001", "SYN002"}
    commands = (home / "log").read_text().splitlines()
    assert [line.split()[0] for line in commands] == ["run", "upload", "exec", "download", "stop"]
    assert "--gpu L4" in commands[0] and not list(home.glob("vnq-*"))
    assert Session.load(ws, run.run_id).status == "finished"


def test_colab_that_is_silent_or_gives_nothing_back_is_a_sentence_and_the_machine_is_given_back(drive, colab):
    ws, _, session = drive
    home = colab(silence=5)
    with pytest.raises(SessionError, match="exec failed .silent for 1 s"):
        remote.train_on_colab(ws, session.data_id, [], gpu="T4", patience=1)
    assert not list(home.glob("vnq-*"))
    colab()
    with pytest.raises(SessionError, match="cannot be used"):
        remote.train_on_colab(ws, session.data_id, ["--families", "nothing"], gpu="T4", patience=30)
    assert not list(home.glob("vnq-*")) and not ws.checkpoints.exists()


# --- doctor --sync


def doctor(root, capsys, *words):
    code = main(["doctor", "--sync", "--root", str(root), *words])
    return code, next(line for line in capsys.readouterr().out.splitlines() if " sync: " in line)


@needs_rclone
def test_doctor_syncs_with_a_remote_and_leaves_nothing_there(tmp_path, monkeypatch, capsys):
    there = tmp_path / "there"
    monkeypatch.setenv("VNQ_REMOTE", f":local:{there}")
    code, line = doctor(tmp_path / "ws", capsys)
    assert code == 0 and line.startswith(f"ok  sync: :local:{there}: a file came back as it was written")
    assert list(there.iterdir()) == []
    real = remote.rclone
    monkeypatch.setattr(remote, "rclone", lambda *words: (there / "sync_test.bin").write_bytes(b"\0" * 100_000)
                        if words[0] == "copy" else real(*words))
    code, line = doctor(tmp_path / "ws", capsys)
    assert code == 2 and "DO  sync: rclone check" in line and "1 differences found" in line
    monkeypatch.undo()
    code, line = doctor(tmp_path / "ws", capsys, "--remote", "nowhere:x")
    assert code == 2 and "not configured" in line


def test_doctor_syncs_with_a_workspace_on_drive_and_says_when_drive_is_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("VNQ_REMOTE", raising=False)
    ws = tmp_path / "MyDrive" / "ws"
    ws.mkdir(parents=True)
    code, line = doctor(ws, capsys)
    assert code == 0 and line.startswith("ok  sync") and list(ws.iterdir()) == []
    code, line = doctor(tmp_path / "MyDrive" / "gone", capsys)
    assert code == 2 and "does not answer" in line and not (tmp_path / "MyDrive" / "gone").exists()
    code, line = doctor(tmp_path, capsys)
    assert code == 2 and "give --remote" in line
