import shutil
from dataclasses import replace

import pytest

from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.earlier_runs import tidy
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import ConfigError, VnqError
from vnq_colab.layout import MANIFESTS, SLOTS, Workspace
from vnq_colab.training.runs import sessions
from vnq_colab.training.trainer import resume, train


@pytest.fixture
def ws(tmp_path, monkeypatch):
    """On Drive, with its local side."""
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    return Workspace(tmp_path / "MyDrive" / "VN")


def everything(ws):
    return {path.relative_to(ws.root).as_posix() for path in ws.root.rglob("*") if path.is_file()}


def test_tidying_keeps_what_is_in_use_and_shows_before_it_deletes(ws, prices, config):
    config = replace(config, families=("trees",), train=replace(config.train, checkpoint_minutes=1e-9))
    prepared = prepare(ws, prices)
    runs = []
    for seed in range(4):
        runs.append(train(ws, prepared.panel, replace(config, seed=seed), quiet=True))
        if seed < 2:
            validate(runs[-1], prepared=prepared)
            export_bundle(runs[-1])
    paused = train(ws, prepared.panel, replace(config, seed=9), hours=1e-9, quiet=True)
    other = prepare(ws, prices[prices["symbol"] != "SYN006"])
    prepare(ws, prices)
    before = everything(ws)
    shown = tidy(ws, keep=2)
    assert everything(ws) == before and not shown.deleted and "can go" in repr(shown)
    gone = {path.relative_to(ws.root).as_posix() for path, _, _ in tidy(ws, keep=2, delete=True).files
            if ws.root in path.parents}
    assert gone == before - everything(ws)
    first, second, third, fourth = (run.run_id for run in runs)
    left = everything(ws)
    for name in (f"reports/{first}/report.html", f"reports/{first}/verdict.json", f"models/{second}/manifest.json",
                 f"checkpoints/{third}/session.json", f"checkpoints/{fourth}/done/trees_fold1",
                 f"checkpoints/{paused.run_id}/slot_a", f"data/prepared/{prepared.panel.data_id}/panel.parquet"):
        assert name in left
    for name in (f"models/{first}/manifest.json", f"checkpoints/{second}/done/trees_fold1",
                 f"reports/{first}/symbol_accuracy.png", f"checkpoints/{third}/slot_a",
                 f"data/prepared/{other.panel.data_id}/panel.parquet"):
        assert name in before and name not in left
    assert load_bundle(ws.models).manifest["run_id"] == second
    assert not tidy(ws, keep=2).files
    assert not ws.local.checkpoint_folder(first).exists() and ws.local.checkpoint_folder(fourth).exists()


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


@pytest.mark.parametrize("name", [
    "models/current.json", "data/prepared/current.json", "checkpoints/{run}/session*.json"])
def test_nothing_is_tidied_while_something_cannot_be_read(tmp_path, prices, config, name):
    ws = Workspace(tmp_path)
    prepared = prepare(ws, prices)
    config = replace(config, families=("trees",))
    session = train(ws, prepared.panel, config, quiet=True)
    path = tmp_path / name.format(run=session.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    for damaged in [*path.parent.glob(path.name)] or [path]:  # a session and its copy
        damaged.write_text("x")
    if "session" in name:
        shutil.rmtree(ws.configs)  # from which it would be rebuilt
    before = everything(ws)
    with pytest.raises(VnqError, match=path.parent.name):
        tidy(ws, delete=True)
    assert everything(ws) == before


def test_at_least_the_newest_run_stays(tmp_path):
    with pytest.raises(ConfigError, match="keep = 0"):
        tidy(Workspace(tmp_path), keep=0)
