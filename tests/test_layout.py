import os
import re
from pathlib import Path

import pytest

from tests.drive_map import FILES, FOLDERS, ROWS
from vnq_colab import layout
from vnq_colab.errors import StorageError
from vnq_colab.layout import WORKSPACE_NAME, Workspace, find_root


@pytest.fixture(autouse=True)
def no_drive_here(monkeypatch):
    monkeypatch.delenv("VNQ_HOME", raising=False)
    monkeypatch.setattr(layout, "_drive_for_desktop", list)


# --- the map


def test_map_says_of_each_what_it_is_who_writes_it_who_may_delete_it_and_how_large_it_gets():
    for row in ROWS:
        assert len(row) == 5 and all(row), row
    commands = {word for row in ROWS for word in re.findall(r"`(\w+)`", row[2])}
    assert commands == {"prepare", "train", "resume", "validate", "export", "deploy", "rollback", "predict", "weekly",
                        "search"}


def test_map_puts_every_file_into_a_folder_that_it_names():
    for file in FILES:
        folder = file.rpartition("/")[0]
        assert file == "portfolio.csv" or any(known == folder or known.startswith(f"{folder}/") for known in FOLDERS)


# --- the workspace


def test_workspace_places_are_those_of_the_layout(tmp_path):
    ws = Workspace(tmp_path)
    places = {
        "data/raw": ws.raw,
        "data/weekly_updates": ws.weekly_updates, "weeks": ws.weeks, "searches/<search>": ws.searches / "<search>",
        "data/prepared/<data_id>": ws.prepared / "<data_id>",
        "configs": ws.configs,
        "checkpoints/<run_id>": ws.checkpoint_folder("<run_id>"),
        "checkpoints/<run_id>/done": ws.checkpoint_folder("<run_id>") / "done",
        "logs/<run_id>": ws.log_folder("<run_id>"),
        "reports/<run_id>": ws.report_folder("<run_id>"),
        "reports/<run_id>/<from>_<to>": ws.report_folder("<run_id>") / "<from>_<to>",
        "models/<run_id>": ws.models / "<run_id>",
        "models/<run_id>/onnx": ws.models / "<run_id>" / "onnx",
        "predictions": ws.predictions,
        "orders": ws.orders,
    }
    assert {folder: tmp_path / folder for folder in FOLDERS} == places
    assert ws.checkpoints == ws.checkpoint_folder("x").parent


def test_workspace_makes_nothing_until_something_is_written(tmp_path):
    ws = Workspace(tmp_path / "new")
    assert ws.raw and "made when something is written" in repr(ws)
    assert not ws.root.exists()
    ws.check_writable()
    assert ws.root.is_dir() and "made when" not in repr(ws)


def test_workspace_under_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        Workspace(tmp_path / "file" / "root").check_writable()


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
                    reason="needs a user whom the system can refuse")
def test_workspace_that_cannot_be_written_is_refused_in_words(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        Workspace(tmp_path / "locked").check_writable()


# --- the root


def test_find_root_takes_the_environment_first(monkeypatch, tmp_path):
    monkeypatch.setenv("VNQ_HOME", str(tmp_path / "home"))
    assert find_root() == tmp_path / "home"
    monkeypatch.setenv("VNQ_HOME", "~/stocks")
    assert find_root() == Path.home() / "stocks"


def test_find_root_takes_the_folder_in_drive_for_desktop_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layout, "_drive_for_desktop", lambda: [tmp_path / "E", tmp_path / "My Drive"])
    assert find_root() == tmp_path / WORKSPACE_NAME, "a Drive without our folder is not ours"
    (tmp_path / "My Drive" / WORKSPACE_NAME).mkdir(parents=True)
    assert find_root() == tmp_path / "My Drive" / WORKSPACE_NAME


def test_find_root_is_a_folder_here_otherwise(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VNQ_HOME", "")
    assert find_root() == tmp_path / WORKSPACE_NAME


def test_find_root_looks_for_drive_where_the_system_shows_it(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: tmp_path))
    drive = tmp_path / "Library" / "CloudStorage" / "GoogleDrive-someone@example.org" / "My Drive"
    drive.mkdir(parents=True)
    if os.name == "nt":
        assert Path("G:/My Drive") in layout._drive_for_desktop()
    else:
        assert layout._drive_for_desktop() == [drive]
