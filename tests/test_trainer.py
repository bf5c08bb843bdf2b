"""A run from start to end: what is chosen, what is continued, what is lost when it is killed (nothing)."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import build_panel
from vnq_colab.data.prepared import prepare
from vnq_colab.errors import DataError, SessionError
from vnq_colab.layout import Workspace
from vnq_colab.training import loop
from vnq_colab.training.packs import choose_symbols, compose_packs, fitting
from vnq_colab.training.trainer import refit, resume, train

ROOT = Path(__file__).resolve().parents[1]


def hashes(session):
    return {symbol: row["sha256"] for symbol, row in session.ledger.items()}


def run_quietly(ws, panel, splits, config, **choices):
    return train(ws, panel, splits, config, quiet=True, **choices)


def test_run_finishes_with_every_symbol_in_its_ledger(tmp_path, panel, splits, config):
    seen = []
    session = run_quietly(Workspace(tmp_path), panel, splits, config, on_finish=seen.append)
    assert session.status == "finished" and seen == [session]
    assert session.counts() == {"pending": 0, "training": 0, "done": 3, "failed": 0}
    row = session.ledger["SYN001"]
    assert row["file"] == session.packs[0]["done"] or row["file"] == session.packs[1]["done"]
    assert 0 <= row["valid_accuracy"] <= 1 and row["valid_loss"] > 0 and len(row["sha256"]) == 64
    assert set(session.history["symbol"]) == set(config.symbols)
    assert session.seconds["training"] > 0
    assert (tmp_path / "configs" / f"{session.run_id}.json").exists()
    assert "finished" in (tmp_path / "logs" / session.run_id / "progress.txt").read_text(encoding="utf-8")


def test_same_run_again_has_nothing_to_do(tmp_path, panel, splits, config, capsys):
    first = run_quietly(Workspace(tmp_path), panel, splits, config)
    second = train(Workspace(tmp_path), panel, splits, replace(config, machine=replace(config.machine, pack_models=99)))
    assert second.run_id == first.run_id and len(second.attempts) == 1
    assert "nothing to do" in capsys.readouterr().err


def test_other_seed_or_other_data_is_another_run(tmp_path, panel, splits, config, prices):
    ws = Workspace(tmp_path)
    config = replace(config, symbols=("SYN001",), train=replace(config.train, epochs=1))
    first = run_quietly(ws, panel, splits, config)
    second = run_quietly(ws, panel, splits, replace(config, seed=1))
    third = run_quietly(ws, build_panel(prices.assign(volume=prices["volume"] + 1)), splits, config)
    assert len({first.run_id, second.run_id, third.run_id}) == 3


def test_packs_do_not_change_what_a_symbol_learns(tmp_path, panel, splits, config):
    """Same weights to the kernels' tolerance, whoever shares the pack."""
    from vnq_colab.training.forecasting import load_forecaster

    config = replace(config, model=replace(config.model, dropout=0.0))
    wide = replace(config, machine=replace(config.machine, pack_models=99))
    first = load_forecaster(run_quietly(Workspace(tmp_path / "a"), panel, splits, config))
    second = load_forecaster(run_quietly(Workspace(tmp_path / "b"), panel, splits, wide))
    for symbol in config.symbols:
        one, other = (made.weights[made.symbols.index(symbol)].numpy() for made in (first, second))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=5e-4)


def test_time_limit_pauses_and_resume_ends_with_the_same_bits(tmp_path, panel, splits, config, monkeypatch):
    config = config.with_setting("train.start", "own")
    straight = run_quietly(Workspace(tmp_path / "a"), panel, splits, config)
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    ws = Workspace(tmp_path / "b")
    session = run_quietly(ws, panel, splits, config, hours=1e-9)
    assert session.status == "paused" and session.why == "time is up"
    assert session.checkpoint["step"] == 1
    pauses = 0
    while session.status != "finished":
        session = resume(ws, hours=1e-9 if pauses < 12 else None, quiet=True)
        pauses += 1
    assert pauses > 2 and len(session.attempts) == pauses + 1
    assert hashes(session) == hashes(straight)


def test_full_disk_in_mid_training_pauses_and_loses_nothing(tmp_path, panel, splits, config, monkeypatch):
    straight = run_quietly(Workspace(tmp_path / "a"), panel, splits, config)
    config = replace(config, train=replace(config.train, checkpoint_minutes=1e-9))
    ws = Workspace(tmp_path / "b")
    sync, calls, seen = os.fsync, [], []

    def full(handle):
        calls.append(1)
        if len(calls) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    session = run_quietly(ws, panel, splits, config, on_finish=seen.append)
    assert session.status == "paused" and "disk is full" in session.why and seen == [session]
    monkeypatch.setattr(os, "fsync", sync)
    assert hashes(resume(ws, quiet=True)) == hashes(straight)


def test_diverged_symbol_is_tried_once_more_and_then_failed(tmp_path, panel, splits, config, monkeypatch):
    from vnq_colab.models.torch_learner import TorchLearner

    build = TorchLearner.__init__

    def poisoned(self, network, panel, *arguments, **choices):
        build(self, network, panel, *arguments, **choices)
        if "SYN002" in panel.symbols:
            self._labels[panel.symbols.index("SYN002")] = float("nan")

    monkeypatch.setattr(TorchLearner, "__init__", poisoned)
    session = run_quietly(Workspace(tmp_path), panel, splits, config)
    assert session.status == "finished"
    assert list(session.failed()) == ["SYN002"] and "not finite" in session.failed()["SYN002"]
    assert session.packs[-1]["symbols"] == ["SYN002"] and session.packs[-1]["learning_rate_share"] < 1
    assert session.counts()["done"] == 2


def test_short_history_is_skipped_and_named(panel, splits, config):
    late = panel.present.copy()
    late[panel.symbols.index("SYN002"), :300] = False
    short = replace_present(panel, late)
    symbols, skipped = choose_symbols(short, splits, config)
    assert symbols == ["SYN001", "SYN004"]
    assert "labelled train days, needed 100" in skipped["SYN002"]
    with pytest.raises(DataError, match="no symbol has enough history"):
        choose_symbols(short, splits, replace(config, symbols=("SYN002",)))


def replace_present(panel, present):
    values, returns = np.where(present[:, :, None], panel.values, 0), np.where(present, panel.returns, np.nan)
    return type(panel)(values, returns, present, panel.symbols, panel.days, panel.feature_names, panel.data_id)


def test_unknown_symbol_is_refused_before_anything_is_written(tmp_path, panel, splits, config):
    with pytest.raises(DataError, match="Did you mean 'SYN001'"):
        run_quietly(Workspace(tmp_path), panel, splits, replace(config, symbols=("SYN01",)))
    assert not list(tmp_path.iterdir())


def test_packs_respect_memory_and_checkpoint_budget(panel, splits, config):
    symbols = list(panel.symbols)
    sizes = [len(pack["symbols"]) for pack in compose_packs(panel, splits.train, config, symbols)]
    assert sizes == [2, 2, 2]  # 4 models at once, 2 members each
    narrow = replace(config, machine=replace(config.machine, checkpoint_budget_gb=1e-6))
    assert len(compose_packs(panel, splits.train, narrow, symbols)) == 6
    huge = replace(config, model=replace(config.model, width=8192, feed_forward=8192))  # 4 GB a network, ten copies
    huge = replace(huge, machine=replace(huge.machine, checkpoint_budget_gb=1e9))
    assert len(compose_packs(panel, splits.train, huge, symbols)) == 6


@pytest.mark.parametrize(("small", "large", "room", "expected"), [
    ((3, 2e9), (12, 3.8e9), 10e9, 43),  # 1.4 GB for itself, 0.2 GB a network
    ((3, 2e9), (12, 3.8e9), 1e9, 1),  # not even the small one: it is tried, and says what is missing
    ((3, 2e9), (12, 2e9), 3e9, 10**9),  # a network costs nothing that can be seen: other limits decide
])
def test_pack_that_fits_is_scaled_from_two_probes(small, large, room, expected):
    assert fitting(small, large, room) == expected if expected < 10**9 else fitting(small, large, room) >= expected


def test_refit_is_a_run_of_its_own_on_all_labelled_days(tmp_path, panel, splits, config):
    session = run_quietly(Workspace(tmp_path), panel, splits, config)
    again = refit(session, quiet=True)
    assert again.run_id == f"{session.run_id}-refit" and again.status == "finished"
    assert again.days["train"][1] == f"{panel.days[-1]:%Y-%m-%d}"
    for symbol in config.symbols:
        assert again.ledger[symbol]["best_epochs"] == session.ledger[symbol]["best_epochs"]
    assert refit(session, quiet=True).attempts == again.attempts


def test_refit_takes_a_retried_symbol_once(tmp_path, panel, splits, config, monkeypatch):
    """SYN002 diverges in its first pack and succeeds in the retry: it is in the refit, and in the bundle, once."""
    from vnq_colab.models.torch_learner import TorchLearner
    from vnq_colab.training.forecasting import load_forecaster

    build = TorchLearner.__init__

    def poisoned(self, network, panel, *arguments, learning_rate_share=1.0, epochs_of=None, **choices):
        build(self, network, panel, *arguments, learning_rate_share=learning_rate_share, epochs_of=epochs_of, **choices)
        if "SYN002" in panel.symbols and learning_rate_share == 1.0 and epochs_of is None:
            self._labels[panel.symbols.index("SYN002")] = float("nan")

    monkeypatch.setattr(TorchLearner, "__init__", poisoned)
    session = run_quietly(Workspace(tmp_path), panel, splits, config)
    assert session.counts()["done"] == 3
    again = refit(session, quiet=True)
    assert sorted(load_forecaster(again).symbols) == sorted(config.symbols)


def test_refit_of_a_run_that_is_not_finished_is_refused(tmp_path, panel, splits, config, monkeypatch):
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    session = run_quietly(Workspace(tmp_path), panel, splits, config, hours=1e-9)
    with pytest.raises(SessionError, match="is paused. Go on with resume first"):
        refit(session, quiet=True)


def test_finished_pack_that_is_lost_is_trained_again(tmp_path, panel, splits, config, capsys):
    ws = Workspace(tmp_path)
    session = run_quietly(ws, panel, splits, config)
    before = hashes(session)
    (session.folder / session.packs[0]["done"]).unlink()
    again = resume(ws, quiet=True)
    assert again.status == "finished" and hashes(again) == before
    assert "is gone or damaged: its symbols are trained again" in capsys.readouterr().err


def test_damaged_pack_never_replaces_the_whole_one_on_drive(tmp_path, panel, splits, config, monkeypatch):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    ws = Workspace(tmp_path / "MyDrive" / "VN")
    session = run_quietly(ws, panel, splits, config)
    before = hashes(session)
    local, there = (home.checkpoint_folder(session.run_id) / "done/pack_00" for home in (ws.local, ws))
    whole = there.read_bytes()
    local.write_bytes(whole[:len(whole) // 2])
    session.drive = "not there yet"  # so that the run is brought to Drive once more
    session.save()
    again = resume(ws, quiet=True)
    assert there.read_bytes() == whole and hashes(again) == before and again.status == "finished"


def test_pack_that_is_damaged_everywhere_is_trained_again(tmp_path, panel, splits, config, capsys):
    ws = Workspace(tmp_path)
    session = run_quietly(ws, panel, splits, config)
    path = session.folder / session.packs[0]["done"]
    path.write_bytes(path.read_bytes()[:-9])
    again = resume(ws, quiet=True)
    assert hashes(again) == hashes(session) and "gone or damaged" in capsys.readouterr().err


def test_second_process_on_a_run_is_refused(tmp_path, panel, splits, config, monkeypatch):
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    ws = Workspace(tmp_path)
    session = run_quietly(ws, panel, splits, config, hours=1e-9)
    parent = psutil.Process(os.getppid())
    session.machine |= {"pid": parent.pid, "pid_started": parent.create_time()}
    session.status = "running"
    session.save()
    with pytest.raises(SessionError, match="is being trained by another process"):
        resume(ws, quiet=True)
    session.machine["pid_started"] -= 100  # that process is gone, its number was given to another one
    session.save()
    assert resume(ws, quiet=True).status == "finished"


def test_unfinished_run_with_another_config_is_pointed_at(tmp_path, panel, splits, config, monkeypatch, capsys):
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    first = run_quietly(Workspace(tmp_path), panel, splits, config, hours=1e-9)
    train(Workspace(tmp_path), panel, splits, replace(config, seed=5), hours=1e-9)
    said = capsys.readouterr().err
    assert "seed: 0, here 5" in said and f"resume --run {first.run_id}" in said


def test_stock_that_is_gone_before_validation_is_skipped(panel, splits, config):
    gone = panel.present.copy()
    gone[panel.symbols.index("SYN002"), splits.valid.mask(panel.days)] = False
    symbols, skipped = choose_symbols(replace_present(panel, gone), splits, config)
    assert symbols == ["SYN001", "SYN004"] and "0 labelled valid days, needed 20" in skipped["SYN002"]


def test_data_of_a_run_that_is_gone_is_named(tmp_path, panel, splits, config, monkeypatch):
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    ws = Workspace(tmp_path)
    run_quietly(ws, panel, splits, config, hours=1e-9)
    (ws.prepared / panel.data_id / "panel.parquet").unlink()
    with pytest.raises(DataError, match="data of this run is gone"):
        resume(ws, quiet=True)


# --------------------------------------------------------------------------------------- memory that does not suffice
STEPS_THAT_FIT = 3  # of a pack that then does not: its checkpoint lies there when it is halved


def fill_memory(monkeypatch, *, most=2, only="SYN004", error=torch.OutOfMemoryError, then=lambda: None):
    """From now on no step holds more than `most` networks beside those of `only`; `then` is called in its first one."""
    from vnq_colab.models.torch_learner import TorchLearner

    step = TorchLearner.step

    def limited(self):
        if only in self.panel.symbols:
            if len(self.models) > most and self.epoch * 100 + self.step_in_epoch >= STEPS_THAT_FIT:
                raise error("not enough memory for this many networks")
            if len(self.panel.symbols) * self.config.n_members <= most:
                then()
        return step(self)

    monkeypatch.setattr(TorchLearner, "step", limited)


def four_symbols(config):
    return replace(config, symbols=("SYN001", "SYN002", "SYN003", "SYN004"),
                   train=replace(config.train, checkpoint_minutes=1e-9))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_pack_that_does_not_fit_is_halved_and_all_is_finished(
        tmp_path, panel, splits, config, monkeypatch, capsys, error):
    config = four_symbols(config)
    straight = run_quietly(Workspace(tmp_path / "a"), panel, splits, config)
    number = next(n for n, pack in enumerate(straight.packs) if "SYN004" in pack["symbols"])
    whole = straight.packs[number]["symbols"]
    fill_memory(monkeypatch, error=error)
    session = train(Workspace(tmp_path / "b"), panel, splits, config)
    assert f"pack {number + 1} does not fit: 4 networks; going on with 2 and 2" in capsys.readouterr().err
    assert session.status == "finished" and session.counts()["done"] == 4
    assert [pack["symbols"] for pack in session.packs] == [
        *(pack["symbols"] for pack in straight.packs[:number]), whole[:1],
        *(pack["symbols"] for pack in straight.packs[number + 1:]), whole[1:]]
    assert len({pack["done"] for pack in session.packs}) == 3
    others = set(config.symbols) - set(whole)
    assert {symbol: hashes(session)[symbol] for symbol in others} == {s: hashes(straight)[s] for s in others}


def test_run_killed_after_a_halving_does_not_take_the_checkpoint_of_the_whole_pack(
        tmp_path, prices, panel, splits, config, monkeypatch):
    """The newest checkpoint still is that of the pack as it was; the halves must begin anew, to the same bits."""
    config = four_symbols(config)
    only = compose_packs(panel, splits.train, config, list(config.symbols))[1]["symbols"][0]
    with monkeypatch.context() as limits:
        fill_memory(limits, only=only)
        straight = run_quietly(Workspace(tmp_path / "a"), panel, splits, config)
    ws = Workspace(tmp_path / "b")
    prepare(ws, prices)
    code = """
import json, os, pathlib, pytest, sys
from tests.test_trainer import fill_memory, run_quietly
from vnq_colab.config import RunConfig
from vnq_colab.data.prepared import load_prepared
from vnq_colab.layout import Workspace
ws = Workspace(pathlib.Path(sys.argv[1]))
fill_memory(pytest.MonkeyPatch(), only=sys.argv[2], then=lambda: os._exit(9))
prepared = load_prepared(ws)
run_quietly(ws, prepared.panel, prepared.splits, RunConfig.from_dict(json.loads(sys.stdin.read())))
"""
    killed = subprocess.run([sys.executable, "-c", code, str(ws.root), only], cwd=ROOT, text=True, capture_output=True,
                            input=json.dumps(config.to_dict()))
    assert killed.returncode == 9, killed.stderr
    stored = read_session(ws.root)
    number = next(n for n, pack in enumerate(stored["packs"]) if pack["done"] is None)
    assert stored["checkpoint"]["pack"] == number and len(stored["checkpoint"]["symbols"]) == 2
    assert len(stored["packs"][number]["symbols"]) == 1
    fill_memory(monkeypatch, only=only)
    again = resume(ws, quiet=True)
    assert again.status == "finished" and hashes(again) == hashes(straight)


def test_single_symbol_that_does_not_fit_ends_with_a_sentence(tmp_path, panel, splits, config, monkeypatch):
    fill_memory(monkeypatch, most=1)
    with pytest.raises(SessionError, match="not enough memory, even for the 2 networks of one symbol"):
        run_quietly(Workspace(tmp_path), panel, splits, config)
    assert read_session(tmp_path)["status"] == "paused"


# ------------------------------------------------------------------------------------------- a process that is killed
COMMAND = [sys.executable, "-m", "vnq_colab"]
LONG = ["--profile", "smoke", "--symbols", "SYN001,SYN002,SYN003,SYN004", "--epochs", "60",
        "--checkpoint-minutes", "0.001", "--set", "train.patience=60",
        "--set", "machine.pack_models=6", "--set", "machine.threads=1"]


def start(root, *arguments):
    return subprocess.Popen([*COMMAND, *arguments, "--root", str(root)], cwd=ROOT, text=True, encoding="utf-8",
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_checkpoint(root, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list(Path(root).glob("checkpoints/*/slot_b")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint was written: {process.communicate()}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, prices):
    root = tmp_path_factory.mktemp("undisturbed")
    prepare(Workspace(root), prices)
    process = start(root, "train", *LONG)
    said = process.communicate()
    assert process.returncode == 0, said
    return {symbol: row["sha256"] for symbol, row in read_session(root)["ledger"].items()}


def read_session(root):
    return json.loads(next(Path(root).glob("checkpoints/*/session.json")).read_text(encoding="utf-8"))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("how, code", [(signal.SIGKILL, -9), (signal.SIGINT, 3), (signal.SIGTERM, 3)])
def test_run_that_is_stopped_resumes_to_the_same_bits(tmp_path, prices, undisturbed, how, code):
    prepare(Workspace(tmp_path), prices)
    process = start(tmp_path, "train", *LONG)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(how)
    process.communicate()
    assert process.returncode == code
    again = start(tmp_path, "resume")
    _, said = again.communicate()
    assert again.returncode == 0 and "goes on from its checkpoint" in said
    session = read_session(tmp_path)
    assert {symbol: row["sha256"] for symbol, row in session["ledger"].items()} == undisturbed
    assert len(session["attempts"]) == 2


def test_run_config_file_gives_the_config_back(tmp_path, panel, splits, config):
    config = replace(config, symbols=("SYN001",), train=replace(config.train, epochs=1))
    session = run_quietly(Workspace(tmp_path), panel, splits, config)
    stored = json.loads((tmp_path / "configs" / f"{session.run_id}.json").read_text(encoding="utf-8"))
    assert RunConfig.from_dict(stored["config"]) == config
