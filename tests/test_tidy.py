from dataclasses import replace

import pytest

from vnq_colab.data.prepared import prepare
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.tidy import tidy
from vnq_colab.delivery.validate import validate
from vnq_colab.layout import Workspace
from vnq_colab.training import loop
from vnq_colab.training.trainer import train


@pytest.fixture
def ws(tmp_path, monkeypatch):
    """On Drive, with its local side."""
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    return Workspace(tmp_path / "MyDrive" / "VN")


def everything(ws):
    return {path.relative_to(ws.root).as_posix() for path in ws.root.rglob("*") if path.is_file()}


def test_tidying_keeps_what_is_in_use_and_shows_before_it_deletes(ws, prices, config, monkeypatch):
    config = replace(config, symbols=("SYN001",), n_members=1,
                     train=replace(config.train, epochs=2, checkpoint_minutes=1e-9))
    prepared = prepare(ws, prices)
    runs = []
    for seed in range(4):
        runs.append(train(ws, prepared.panel, prepared.splits, replace(config, seed=seed), quiet=True))
        if seed < 2:
            validate(runs[-1], prepared=prepared)
            export_bundle(runs[-1], refit=False, quiet=True)
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    paused = train(ws, prepared.panel, prepared.splits, replace(config, seed=9), hours=1e-9, quiet=True)
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
                 f"checkpoints/{third}/session.json", f"checkpoints/{fourth}/done/pack_00",
                 f"checkpoints/{paused.run_id}/slot_a", f"data/prepared/{prepared.panel.data_id}/panel.parquet"):
        assert name in left
    for name in (f"models/{first}/manifest.json", f"checkpoints/{second}/done/pack_00", f"reports/{first}/equity.png",
                 f"checkpoints/{third}/slot_a", f"data/prepared/{other.panel.data_id}/panel.parquet"):
        assert name in before and name not in left
    assert load_bundle(ws.models).manifest["run_id"] == second
    assert not tidy(ws, keep=2).files
    assert not ws.local.checkpoint_folder(first).exists() and ws.local.checkpoint_folder(fourth).exists()


def test_nothing_to_tidy_is_said(tmp_path):
    assert "nothing to tidy" in repr(tidy(Workspace(tmp_path)))
