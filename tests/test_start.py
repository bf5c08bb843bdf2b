"""The shared start: one network of all symbols, trained once, from which every network of a run begins."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from vnq_colab.data.splits import DayRange
from vnq_colab.files import sealed
from vnq_colab.layout import SESSION, Workspace
from vnq_colab.models.global_network import train_global
from vnq_colab.training import loop
from vnq_colab.training.checkpoint import START, CheckpointStore
from vnq_colab.training.forecasting import load_forecaster
from vnq_colab.training.packs import choose_symbols
from vnq_colab.training.session import Session
from vnq_colab.training.start import stored_start
from vnq_colab.training.trainer import refit, resume, train


def run(ws, panel, splits, config, **choices):
    return train(ws, panel, splits, config, quiet=True, **choices)


def hashes(session):
    return {symbol: row["sha256"] for symbol, row in session.ledger.items()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory, panel, splits):
    from vnq_colab.config import MachineConfig, RunConfig, StockformerConfig, TrainConfig

    config = RunConfig(
        n_members=2, symbols=("SYN001", "SYN002", "SYN004"),
        model=StockformerConfig(look_back=30, min_context=10, width=16, n_layers=2, n_heads=2, feed_forward=32),
        train=TrainConfig(epochs=3, warmup_epochs=1, patience=2), machine=MachineConfig(pack_models=4, threads=1))
    return run(Workspace(tmp_path_factory.mktemp("start")), panel, splits, config)


def test_a_run_begins_from_one_network_of_all_symbols_that_the_data_has(straight, panel, splits):
    config = straight.config
    symbols, _ = choose_symbols(panel, splits, replace(config, symbols=None))
    assert len(symbols) > 3 and set(config.symbols) < set(symbols)
    alone = train_global(panel.select(symbols), splits.train, splits.valid, config)
    assert torch.equal(stored_start(straight), alone.weights)
    assert straight.start == {"done": START, "epochs": alone.best_epoch} and alone.best_epoch >= 1
    first = straight.history.groupby(["symbol", "member"])["epoch"].min()
    assert (first == 0).all() and len(first) == 6, "the start itself is measured, as epoch 0"


def test_what_begins_on_its_own_has_no_shared_start_and_other_weights(tmp_path, straight, panel, splits):
    own = run(Workspace(tmp_path), panel, splits, straight.config.with_setting("train.start", "own"))
    assert own.start is None and stored_start(own) is None
    assert not CheckpointStore(own.ws, own.run_id).has_pack(START)
    assert own.history["epoch"].min() == 1
    assert not set(hashes(own).values()) & set(hashes(straight).values())


def test_a_pause_in_the_start_is_gone_on_with_to_the_same_bits(tmp_path, straight, panel, splits, monkeypatch):
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    ws = Workspace(tmp_path)
    paused = run(ws, panel, splits, straight.config, hours=1e-9)
    assert (paused.status, paused.why) == ("paused", "time is up")
    assert paused.start["done"] is None and not CheckpointStore(ws, paused.run_id).has_pack(START)
    assert hashes(resume(ws, quiet=True)) == hashes(straight)


def test_a_start_that_is_damaged_before_the_packs_are_done_is_trained_again(tmp_path, straight, panel, splits):
    ws, stopping = Workspace(tmp_path), straight.config
    before = loop.Attempt._train_pack

    def stop(attempt, number, reasons):
        return "stopped by the test"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Attempt, "_train_pack", stop)
        paused = run(ws, panel, splits, stopping)
    assert loop.Attempt._train_pack is before and paused.start["done"] == START
    file = ws.checkpoint_folder(paused.run_id) / START
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    again = resume(ws, quiet=True)
    assert hashes(again) == hashes(straight) and torch.equal(stored_start(again), stored_start(straight))


def test_a_symbol_alone_becomes_what_it_is_in_company(tmp_path, straight, panel, splits):
    config = straight.config.with_setting("model.dropout", "0")
    both, alone = (run(Workspace(tmp_path / names), panel, splits, config.with_setting("symbols", names))
                   for names in ("SYN001,SYN004", "SYN004"))
    assert torch.equal(stored_start(both), stored_start(alone))
    weights = [load_forecaster(one).select(("SYN004",)).weights for one in (both, alone)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=5e-4)


def test_each_part_begins_from_the_start_of_the_whole_run(tmp_path, straight, panel, splits):
    part = run(Workspace(tmp_path), panel, splits, straight.config, part="2/2")
    assert len(part.ledger) < 3 and torch.equal(stored_start(part), stored_start(straight))


def test_a_refit_trains_its_start_for_the_epochs_that_were_best(tmp_path, straight, panel, splits):
    shutil.copytree(straight.ws.root, tmp_path / "copy")
    judged = Session.load(Workspace(tmp_path / "copy"), straight.run_id)
    again = refit(judged, quiet=True)
    days = DayRange(*again.days["train"])
    symbols, _ = choose_symbols(panel, splits, replace(straight.config, symbols=None))
    expected = train_global(panel.select(symbols), days, None, straight.config,
                            epochs=straight.start["epochs"])
    assert torch.equal(stored_start(again), expected.weights) and again.start["epochs"] == straight.start["epochs"]
    assert {symbol: row["best_epochs"] for symbol, row in again.ledger.items()} == {
        symbol: row["best_epochs"] for symbol, row in straight.ledger.items()}


def test_a_session_of_before_there_was_a_shared_start_stays_without_one(tmp_path, straight):
    shutil.copytree(straight.ws.root, tmp_path / "copy")
    ws = Workspace(tmp_path / "copy")
    path = ws.checkpoint_folder(straight.run_id) / SESSION
    value = json.loads(path.read_text(encoding="utf-8"))
    for name in ("seal", "start"):
        value.pop(name)
    for name in ("start", "fine_tune_share"):
        value["config"]["train"].pop(name)
    path.write_text(json.dumps(sealed(value | {"code_version": "0.0.1"})), encoding="utf-8")
    session = Session.load(ws, straight.run_id)
    assert session.start is None and session.config.train.start == "own"


def test_fine_tuning_is_a_share_of_the_learning_rate_and_may_stay_at_the_start(straight, panel, splits):
    from vnq_colab.models.stockformer import make_learner

    weights = stored_start(straight)
    one = panel.select(["SYN001"])
    config = replace(straight.config, symbols=("SYN001",))
    learner = make_learner(one, splits.train, splits.valid, config, start=weights)
    assert learner.learning_rate_share == config.train.fine_tune_share and learner.epoch == 0
    assert torch.equal(learner.weights, weights.expand(2, -1)) and torch.equal(learner.best[:, 0], learner.weights)
    still = make_learner(one, splits.train, None, config, start=weights,
                         epochs_of={("SYN001", 0): 0, ("SYN001", 1): 0})
    assert still.finished and still.best_epochs("SYN001") == [0, 0]
    assert torch.equal(still.forecaster().weights[0], weights.expand(2, -1))
