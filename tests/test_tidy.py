import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery import tidying
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.tidying import tidy
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import ConfigError, VnqError
from vnq_colab.files import write_sealed
from vnq_colab.layout import MANIFESTS, SESSION, SLOTS, Workspace
from vnq_colab.training.session import sessions
from vnq_colab.training.trainer import resume, train


@pytest.fixture
def ws(tmp_path, monkeypatch):
    """On Drive, with its local side."""
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    return Workspace(tmp_path / "MyDrive" / "VN")


@pytest.fixture(scope="module")
def used(tmp_path_factory, prices, small):
    """(root, run_ids) of a workspace on a local disk with four finished runs, three bundles, two prepared sets."""
    ws = Workspace(tmp_path_factory.mktemp("used"))
    config = replace(small, train=replace(small.train, checkpoint_minutes=1e-9))
    other = prepare(ws, prices[prices["symbol"] != "SYN006"])
    prepared, runs = prepare(ws, prices), []
    for seed in range(4):
        runs.append(train(ws, prepared.panel, replace(config, seed=seed), quiet=True))
        if seed < 3:
            validate(runs[-1], prepared=prepared)
            export_bundle(runs[-1])
    assert len({one.name for one in ws.prepared.iterdir()} & {other.panel.data_id, prepared.panel.data_id}) == 2
    return ws.root, [run.run_id for run in runs], other.panel.data_id


@pytest.fixture
def worn(used, tmp_path):
    """A copy of it, in a folder that a watcher sees whole: (workspace, run_ids, id of the set that nothing needs)."""
    root, runs, unneeded = used
    return Workspace(shutil.copytree(root, tmp_path / "all" / "ws")), runs, unneeded


def everything(ws):
    return {path.relative_to(ws.root).as_posix() for path in ws.root.rglob("*") if path.is_file()}


def contents(folder):
    """All below a folder: bytes of files, targets of links."""
    return {str(path): os.readlink(path) if path.is_symlink() else path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()}


def test_tidying_keeps_what_is_in_use_and_shows_before_it_deletes(ws, prices, config):
    config = replace(config, families=("trees",), train=replace(config.train, checkpoint_minutes=1e-9))
    prepared = prepare(ws, prices)
    runs = []
    for seed in range(5):
        if seed == 3:  # its checkpoint is on Drive for certain: a pause waits for it
            train(ws, prepared.panel, replace(config, seed=seed), hours=1e-9, quiet=True)
        runs.append(train(ws, prepared.panel, replace(config, seed=seed), quiet=True))
        if seed < 3:
            validate(runs[-1], prepared=prepared)
            export_bundle(runs[-1])
    paused = train(ws, prepared.panel, replace(config, seed=9), hours=1e-9, quiet=True)
    other = prepare(ws, prices[prices["symbol"] != "SYN006"])
    prepare(ws, prices)
    before = everything(ws)
    shown = tidy(ws, keep=2)
    assert everything(ws) == before and not shown.deleted and "can go" in repr(shown)
    assert all(str(path.parent) in repr(shown) for path, _, _ in shown.files) and "trees_fold1" in repr(shown)
    gone = {path.relative_to(ws.root).as_posix() for path, _, _ in tidy(ws, keep=2, delete=True).files
            if ws.root in path.parents}
    assert gone == before - everything(ws)
    first, second, third, fourth, fifth = (run.run_id for run in runs)
    left = everything(ws)
    for name in (f"reports/{first}/report.html", f"reports/{first}/verdict.json", f"models/{second}/manifest.json",
                 f"models/{third}/manifest.json", f"checkpoints/{fourth}/session.json",
                 f"checkpoints/{fifth}/done/trees_fold1", f"checkpoints/{paused.run_id}/slot_a",
                 f"data/prepared/{prepared.panel.data_id}/panel.parquet"):
        assert name in left
    for name in (f"models/{first}/manifest.json", f"checkpoints/{third}/done/trees_fold1",
                 f"reports/{first}/symbol_accuracy.png", f"checkpoints/{fourth}/slot_a",
                 f"data/prepared/{other.panel.data_id}/panel.parquet"):
        assert name in before and name not in left
    assert load_bundle(ws).manifest["run_id"] == third and load_bundle(ws.models / second).manifest
    assert not tidy(ws, keep=2).files
    assert not ws.local.checkpoint_folder(first).exists() and ws.local.checkpoint_folder(fifth).exists()


def test_nothing_to_tidy_is_said(tmp_path):
    assert "nothing to tidy" in repr(tidy(Workspace(tmp_path)))


def test_parts_go_and_stay_with_their_run(ws, config):
    config = replace(config, families=("trees",))
    prepared = prepare(ws, synthetic_prices(6, 1060, seed=1))
    first, second = (train(ws, prepared.panel, config, part=part, quiet=True) for part in ("1/2", "2/2"))
    other = train(ws, prepared.panel, replace(config, seed=7), quiet=True)
    assert first.status == "paused"
    assert {path.name for path, _, _ in tidy(ws, keep=1).files} <= {*SLOTS, *MANIFESTS}, "one part is not finished"
    resume(ws, first.run_id, quiet=True)
    tidy(ws, keep=1, delete=True)
    assert {session.run_id for session in sessions(ws)} == {other.run_id}
    assert not ws.checkpoint_folder(second.run_id).exists()


@pytest.mark.parametrize("name", ["models/current*.json", "data/prepared/current*.json"])
def test_nothing_is_tidied_while_it_is_unknown_what_is_in_use(worn, name):
    ws, _, _ = worn
    for damaged in ws.root.glob(name):
        damaged.write_text("x")
    before = contents(ws.root)
    with pytest.raises(VnqError, match=Path(name).parent.name):
        tidy(ws, delete=True)
    assert contents(ws.root) == before


def test_run_that_cannot_be_read_is_named_and_left_with_all_prepared_sets(worn):
    ws, runs, unneeded = worn
    for path in (*ws.checkpoint_folder(runs[3]).glob("session*.json"), ws.configs / f"{runs[3]}.json"):
        path.write_text("x")
    bad = contents(ws.checkpoint_folder(runs[3]))
    found = tidy(ws, keep=1, delete=True)
    assert f"{runs[3]} cannot be read" in repr(found)
    assert contents(ws.checkpoint_folder(runs[3])) == bad and (ws.prepared / unneeded / "panel.parquet").exists()
    assert not ws.checkpoint_folder(runs[0]).exists() and ws.checkpoint_folder(runs[2]).exists()


def test_bundle_that_cannot_be_read_keeps_all_prepared_sets(worn):
    ws, runs, unneeded = worn
    (ws.models / runs[1] / "manifest.json").write_text("x")
    found = tidy(ws, keep=1, delete=True)
    assert f"{runs[1]} cannot be read" in repr(found) and (ws.prepared / unneeded / "panel.parquet").exists()
    assert (ws.models / runs[1] / "trees.pt").exists() and not (ws.models / runs[0] / "trees.pt").exists()


def test_at_least_the_newest_run_stays(tmp_path):
    with pytest.raises(ConfigError, match="keep = 0"):
        tidy(Workspace(tmp_path), keep=0)


# ---------------------------------------------------------------------------------------------- links, backups, others
@pytest.mark.parametrize("on_drive", [False, True])
def test_backup_of_hard_links_keeps_every_byte(used, tmp_path, monkeypatch, on_drive):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    monkeypatch.setattr(tidying, "EMPTIED", 1)
    ws = Workspace(shutil.copytree(used[0], tmp_path / ("MyDrive" if on_drive else "disk") / "ws"))
    backup = Path(shutil.copytree(ws.root, tmp_path / "backup", copy_function=os.link))
    before = contents(backup)
    assert tidy(ws, keep=1, delete=True).bytes > 0
    assert contents(backup) == before and contents(ws.root).keys() != before.keys()


def test_large_file_with_one_name_is_emptied_on_drive_alone(worn, tmp_path, monkeypatch):
    emptied = []
    monkeypatch.setattr(tidying, "EMPTIED", 1)
    monkeypatch.setattr(os, "truncate", lambda path, size: emptied.append(Path(path).name))
    tidy(worn[0], keep=3, delete=True)
    assert not emptied
    monkeypatch.setattr(tidying, "on_drive", lambda path: True)
    tidy(worn[0], keep=1, delete=True)
    assert "trees_fold1" in emptied


def test_links_are_removed_themselves_wherever_they_stand(worn, tmp_path):
    """A link in place of a file, of `done`, of a whole run's folder, and one to a folder that is like ours."""
    ws, runs, _ = worn
    outside = Path(shutil.copytree(ws.root, tmp_path / "all" / "outside"))
    folder = ws.checkpoint_folder(runs[0])
    (folder / "slot_a").unlink()
    (folder / "slot_a").symlink_to(outside / "checkpoints" / runs[0] / "slot_a")
    shutil.rmtree(folder / "done")
    (folder / "done").symlink_to(outside / "checkpoints" / runs[0] / "done")
    shutil.rmtree(ws.report_folder(runs[0]))
    ws.report_folder(runs[0]).symlink_to(outside / "reports" / runs[0])
    (ws.report_folder(runs[1]) / "scores.parquet").unlink()
    (ws.report_folder(runs[1]) / "scores.parquet").symlink_to("/dev/zero")
    (ws.report_folder(runs[1]) / "mine").symlink_to(outside)
    (ws.prepared / "0123456789ab").symlink_to(outside / "data" / "prepared" / worn[2])
    before = contents(outside)
    tidy(ws, keep=1, delete=True)
    assert contents(outside) == before and not ws.checkpoint_folder(runs[0]).exists()
    assert not ws.report_folder(runs[0]).is_symlink() and (ws.report_folder(runs[1]) / "mine").is_symlink()
    assert (ws.prepared / "0123456789ab").is_symlink(), "its record is not in the workspace"
    assert not os.path.lexists(ws.report_folder(runs[1]) / "scores.parquet")


@pytest.mark.parametrize("kind", ["checkpoints", "logs", "reports", "models", "data", "data/prepared"])
def test_folder_of_the_workspace_that_is_a_link_is_not_entered(worn, tmp_path, kind):
    ws = worn[0]
    outside = tmp_path / "all" / "outside"
    (ws.root / kind).rename(outside)
    (ws.root / kind).symlink_to(outside)
    before = contents(outside)
    tidy(ws, keep=1, delete=True)
    assert contents(outside) == before and (ws.root / kind).is_symlink()


def test_what_is_foreign_is_left_alone(worn):
    """Folders below data/prepared and models, files beside ours, in a name like ours or not."""
    ws, runs, unneeded = worn
    foreign = {}
    for name in ("data/prepared/mine/panel.parquet", "data/prepared/0123456789ab/panel.parquet",
                 "data/prepared/0123456789cd/prepared.json", f"data/prepared/{unneeded}/notes.txt", "models/mine/x.pt",
                 f"models/{runs[0]}/notes.txt", f"checkpoints/{runs[0]}/my_copy", f"reports/{runs[0]}/thoughts.md",
                 "checkpoints/mine/slot_a", "reports/mine/forecast.parquet", f"logs/{runs[0]}/sub/history.csv"):
        path = ws.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        foreign[path] = "{}"
    write_sealed(ws.prepared / "0123456789cd" / "prepared.json", {"data_id": "another"})
    tidy(ws, keep=1, delete=True)
    assert all(path.exists() for path in foreign) and not (ws.prepared / unneeded / "panel.parquet").exists()
    assert {path.name for path in ws.checkpoint_folder(runs[0]).iterdir()} == {"my_copy"}


@pytest.mark.parametrize("on_drive, step", [
    (False, 9), (True, 9), *(pytest.param(one, 1, marks=pytest.mark.slow) for one in (False, True))])
def test_killed_at_any_deletion_it_leaves_a_usable_workspace_and_ends_when_run_again(used, tmp_path, monkeypatch,
                                                                                     on_drive, step):
    class Killed(BaseException):
        pass

    def counted(act):
        def acting(*args, **how):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            act(*args, **how)
        return acting

    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    monkeypatch.setattr(tidying, "EMPTIED", 1)
    root, runs, _ = used
    left, number, done = [int(1e9)], 0, False
    for name in ("truncate", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    while not done:
        left[0] = int(1e9)
        place = tmp_path / ("MyDrive" if on_drive else "disk") / f"ws{number}"
        ws = Workspace(shutil.copytree(root, place))
        left[0] = number
        try:
            tidy(ws, keep=1, delete=True)
            done = True
        except Killed:
            left[0] = int(1e9)
            assert load_bundle(ws).manifest["run_id"] == runs[2]
            assert {runs[3]} <= {session.run_id for session in sessions(ws)}
            tidy(ws, keep=1, delete=True)
        left[0] = int(1e9)
        assert not tidy(ws, keep=1).files and not tidy(ws, keep=1).notes
        assert [path.name for path in ws.checkpoints.iterdir()] == [runs[3]]
        assert not list(ws.checkpoints.glob(f"*/{SESSION}"))[1:]
        shutil.rmtree(place)
        number += step
    assert number > 30
