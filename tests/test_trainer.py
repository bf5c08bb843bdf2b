"""A run from start to end: what is chosen, what is continued, what is lost when it is killed (nothing)."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import build_panel
from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import ConfigError, DataError, SessionError
from vnq_colab.evaluation import plots
from vnq_colab.layout import Workspace
from vnq_colab.models import stockformer
from vnq_colab.models.global_model import GlobalStack
from vnq_colab.models.stockformer import LocalStack
from vnq_colab.training import loop
from vnq_colab.training.jobs import final_forecasters, fold_scores, open_store
from vnq_colab.training.process import Display
from vnq_colab.training.trainer import judged_symbols, parse_part, plan_jobs, resume, train

ROOT = Path(__file__).resolve().parents[1]


def hashes(session):
    return {name: row["sha256"] for name, row in session.jobs.items()}


def run_quietly(ws, panel, config, **choices):
    return train(ws, panel, config, quiet=True, **choices)


def done_files(session):
    return {path.name: path.read_bytes() for path in (session.folder / "done").iterdir()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory, panel, config):
    """A finished run of all families. Read it, do not change it."""
    return run_quietly(Workspace(tmp_path_factory.mktemp("straight")), panel, config)


@pytest.fixture
def trees(config):
    """The quickest family alone."""
    return replace(config, families=("trees",))


@pytest.fixture
def started(monkeypatch):
    """The names of the jobs that begin from now on, in order."""
    names, start = [], Display.start
    monkeypatch.setattr(Display, "start", lambda self, job: (names.append(job), start(self, job)))
    return names


def test_run_finishes_with_every_job_and_every_symbol(straight, config, panel, splits):
    assert straight.status == "finished" and straight.unfinished_jobs() == []
    assert straight.counts() == {"pending": 0, "training": 0, "done": 3, "failed": 0}
    assert list(straight.jobs) == [
        "trees_fold1", "global_fold1", "stockformer_fold1_pack00", "stockformer_fold1_pack01",
        "trees_final", "global_final", "stockformer_final_pack00", "stockformer_final_pack01"]
    assert {len(digest) for digest in hashes(straight).values()} == {64} and len(set(hashes(straight).values())) == 8
    assert set(done_files(straight)) == set(straight.jobs)
    assert set(straight.history["job"]) == set(straight.jobs) - {"trees_final"}  # whose rounds nothing is measured for
    assert straight.seconds["training"] > 0
    root = straight.ws.root
    stored = json.loads((root / "configs" / f"{straight.run_id}.json").read_text(encoding="utf-8"))
    assert RunConfig.from_dict(stored["config"]) == config and list(stored["jobs"]) == list(straight.jobs)
    assert "finished" in (root / "logs" / straight.run_id / "progress.txt").read_text(encoding="utf-8")


def test_file_of_a_job_holds_what_others_need_and_no_more(straight, panel, splits):
    """Forecasts of both parts of a fold; weights of the final fit, and of a fold's network that others begin from."""
    store = open_store(straight)
    for name, row in straight.jobs.items():
        state = store.load_done(name)
        assert (state["weights"] is not None) == (row["fold"] is None or row["family"] == "global"), name
        assert ("held_out" in state) == (name == "global_fold1") and ("forecast" in state) == (row["fold"] == 0)
        if row["fold"] == 0:
            part, days = state["forecast"]["part"].numpy(), state["forecast"]["day"].numpy()
            for number, mask in enumerate((splits.valid.mask(panel.days), splits.test.mask(panel.days))):
                assert set(days[part == number]) == set(np.flatnonzero(mask)), name


def test_final_fit_learns_as_long_as_the_folds_found(straight):
    store = open_store(straight)
    assert store.load_done("trees_final")["budget"]["rounds"] == store.load_done("trees_fold1")["budget"]["rounds"]
    for pack in ("pack00", "pack01"):
        found, final = (store.load_done(f"stockformer_{stage}_{pack}") for stage in ("fold1", "final"))
        assert final["budget"]["epochs"].keys() == found["budget"]["epochs"].keys()


def test_same_run_again_has_nothing_to_do_and_says_what_follows(straight, panel, config, started, capsys):
    again = train(straight.ws, panel, replace(config, machine=replace(config.machine, pack_models=99)))
    assert again.run_id == straight.run_id and len(again.attempts) == 1 and started == []
    resume(straight.ws)
    said = capsys.readouterr().err
    assert said.count("nothing to do. validate judges it, export writes its models") == 2


def test_other_seed_or_other_data_is_another_run(tmp_path, panel, trees, prices):
    ws, seen = Workspace(tmp_path), []
    first = run_quietly(ws, panel, trees, on_finish=seen.append)
    second = run_quietly(ws, panel, replace(trees, seed=1))
    third = run_quietly(ws, build_panel(prices.assign(volume=prices["volume"] + 1)), trees)
    assert len({first.run_id, second.run_id, third.run_id}) == 3 and seen == [first]


def test_packs_do_not_change_what_a_symbol_learns(tmp_path, panel, config):
    """Same weights to the kernels' tolerance, whoever shares the pack."""
    config = replace(config, families=("stockformer",), model=replace(config.model, dropout=0.0))
    wide = replace(config, machine=replace(config.machine, pack_models=99))
    first, second = (final_forecasters(run_quietly(Workspace(tmp_path / name), panel, chosen))["stockformer"]
                     for name, chosen in (("a", config), ("b", wide)))
    for symbol in config.symbols:
        one, other = (made.weights[made.symbols.index(symbol)].float().numpy() for made in (first, second))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=5e-4)


def test_network_that_others_begin_from_is_trained_and_not_reported(tmp_path, panel, config):
    session = run_quietly(Workspace(tmp_path), panel, replace(config, families=("stockformer",)))
    assert "global_fold1" in session.jobs and set(final_forecasters(session)) == {"stockformer"}
    assert set(fold_scores(session, panel)["family"]) == {"stockformer", "ensemble"}


# --------------------------------------------------------------------------------------------------- time and space
def test_time_limit_pauses_and_resume_ends_with_the_same_bits(tmp_path, panel, config, straight, started):
    ws = Workspace(tmp_path)
    session = run_quietly(ws, panel, config, hours=1e-9)
    assert session.status == "paused" and session.why == "time is up" and session.checkpoint["job"] == "trees_fold1"
    said = [" ".join(text.get_text().split()) for axes in plots.learning_curves(session).axes for text in axes.texts]
    assert any("No learning curves yet: no job of this run is done" in text and "resume" in text for text in said)
    with pytest.raises(SessionError, match="is paused: 8 of 8 jobs are not trained yet. Go on with resume first"):
        fold_scores(session, panel)
    pauses = 0
    while session.status != "finished":
        session = resume(ws, hours=1e-9 if pauses < 12 else None, quiet=True)
        pauses += 1
    assert len(session.attempts) == pauses + 1 and len(set(started[:12])) > 1, "each attempt advances"
    assert hashes(session) == hashes(straight) and done_files(session) == done_files(straight)


@pytest.mark.parametrize("number, why", [(signal.SIGINT, "stopped by the person"),
                                         (signal.SIGTERM, "stopped by the system")])
def test_signal_pauses_and_resume_ends_with_the_same_bits(tmp_path, panel, trees, straight, monkeypatch, number, why):
    ws, step = Workspace(tmp_path), Display.step
    with monkeypatch.context() as patch:
        patch.setattr(Display, "step", lambda self, progress: (step(self, progress), signal.raise_signal(number)))
        session = run_quietly(ws, panel, trees)
    assert (session.status, session.why, session.checkpoint["job"]) == ("paused", why, "trees_fold1")
    again = hashes(resume(ws, quiet=True))
    assert again == {name: digest for name, digest in hashes(straight).items() if name in again} and len(again) == 2


def test_reserve_is_at_most_half_of_a_short_time(tmp_path, panel, trees):
    """36 s are less than what is kept for the end of a long run, and enough for this one."""
    assert loop.MARGIN_SECONDS > 0.01 * 3600
    assert run_quietly(Workspace(tmp_path), panel, trees, hours=0.01).status == "finished"


# ---------------------------------------------------------------------------------------- symbols that do not work out
def poison(monkeypatch, when):
    """SYN002's labels are not numbers in every job of its own networks for which `when(job)` holds."""
    build = LocalStack.__init__

    def poisoned(self, job, *arguments):
        build(self, job, *arguments)
        if "SYN002" in job.symbols and when(job):
            self._labels[job.symbols.index("SYN002")] = float("nan")

    monkeypatch.setattr(LocalStack, "__init__", poisoned)


def test_diverged_symbol_is_tried_once_more_and_then_failed(tmp_path, panel, config, monkeypatch):
    poison(monkeypatch, lambda job: True)
    session = run_quietly(Workspace(tmp_path), panel, config)
    assert session.status == "finished" and session.counts()["done"] == 2
    assert list(session.failed()) == ["SYN002"] and "not finite" in session.failed()["SYN002"]
    for name in ("stockformer_fold1_pack02", "stockformer_final_pack02"):
        row = session.jobs[name]
        assert row["symbols"] == ["SYN002"] and row["learning_rate_share"] < 1 and row["state"] == "failed"
    rows = fold_scores(session, panel).groupby("family", observed=True)["symbol"].unique().map(set)
    assert "SYN002" in rows["trees"] and "SYN002" not in rows["stockformer"]


def test_symbol_that_succeeds_in_its_second_try_is_there_once(tmp_path, panel, config, monkeypatch):
    poison(monkeypatch, lambda job: job.learning_rate_share == 1.0 and job.fold is not None)
    session = run_quietly(Workspace(tmp_path), panel, config)
    assert session.counts()["done"] == 3 and session.jobs["stockformer_fold1_pack02"]["state"] == "done"
    assert "stockformer_fold1_pack02" in session.jobs["stockformer_final_pack00"]["needs"]
    assert not fold_scores(session, panel).duplicated(["family", "symbol", "date"]).any()
    assert sorted(final_forecasters(session)["stockformer"].symbols) == sorted(config.symbols)


def test_networks_never_take_another_start_than_the_one_that_failed(tmp_path, panel, config, monkeypatch):
    build = GlobalStack.__init__

    def poisoned(self, job, *arguments):
        build(self, job, *arguments)
        if job.fold is not None:
            self._labels[:] = float("nan")

    monkeypatch.setattr(GlobalStack, "__init__", poisoned)
    session = run_quietly(Workspace(tmp_path), panel, config)
    failed = {name: row["reason"] for name, row in session.jobs.items() if row["state"] == "failed"}
    assert "not finite" in failed.pop("global_fold1") and session.status == "finished"
    assert failed == dict.fromkeys(("stockformer_fold1_pack00", "stockformer_fold1_pack01"),
                                   "global_fold1, from which it begins, failed")
    assert set(fold_scores(session, panel)["family"]) == {"trees", "ensemble"}
    assert set(final_forecasters(session)) == {"trees", "global", "stockformer"}


def without(panel, symbol, days):
    """The panel as if a symbol had not been there on some days."""
    present = panel.present.copy()
    present[panel.symbols.index(symbol), days] = False
    return replace(panel, present=present, values=np.where(present[:, :, None], panel.values, 0),
                   prices=np.where(present[:, :, None], panel.prices, np.nan))


def test_short_history_is_skipped_and_named(panel, config):
    short = without(panel, "SYN002", slice(0, -60))
    symbols, skipped = judged_symbols(short, config)
    assert symbols == ["SYN001", "SYN004"] and skipped == {"SYN002": "60 days of prices, needed 100"}
    with pytest.raises(DataError, match="no symbol has enough history"):
        judged_symbols(short, replace(config, symbols=("SYN002",)))


def test_unknown_symbol_is_refused_before_anything_is_written(tmp_path, panel, config):
    with pytest.raises(DataError, match="Did you mean 'SYN001'"):
        run_quietly(Workspace(tmp_path), panel, replace(config, symbols=("SYN01",)))
    assert not list(tmp_path.iterdir())


def test_few_stocks_are_coarse_and_very_few_are_refused(tmp_path, panel, trees, capsys):
    run_quietly(Workspace(tmp_path), panel, trees)
    assert "ranks among 6 stocks are coarse" in capsys.readouterr().err
    with pytest.raises(DataError, match="4 stocks have no order worth learning: .* Bring more stocks, or forecast"):
        train(Workspace(tmp_path), panel.select(panel.symbols[:4]), trees)


def test_more_folds_than_the_data_has_are_as_many_as_there_are(tmp_path, panel, trees, capsys):
    session = run_quietly(Workspace(tmp_path), panel, replace(trees, folds=3))
    assert "3 folds were asked for, and 800 trading days make 1" in capsys.readouterr().err
    assert list(session.jobs) == ["trees_fold1", "trees_final"] and session.status == "finished"


def test_packs_respect_memory_and_checkpoint_budget(panel, config):
    def sizes(changed=config, **machine):
        everyone = replace(changed, symbols=panel.symbols)
        jobs = stockformer.plan(config.task, panel, [], everyone, replace(config.machine, **machine))
        return [len(job.symbols) for job in jobs]

    assert sizes() == [2, 2, 2]  # 4 models at once, 2 members each
    assert sizes(checkpoint_budget_gb=1e-6) == [1] * 6
    huge = replace(config, model=replace(config.model, width=8192, feed_forward=8192))  # 4 GB a network, ten copies
    assert sizes(huge, checkpoint_budget_gb=1e9) == [1] * 6


# ------------------------------------------------------------------------------------------------- jobs that are lost
def test_finished_job_that_is_lost_or_damaged_is_trained_again_alone(tmp_path, panel, config, straight, started,
                                                                    capsys):
    ws = Workspace(tmp_path)
    session = run_quietly(ws, panel, config)
    lost, damaged = (session.folder / "done" / name for name in ("stockformer_fold1_pack01", "global_final"))
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-9])
    started.clear()
    again = resume(ws, quiet=True)
    assert started == [lost.name, damaged.name] and again.status == "finished"
    assert hashes(again) == hashes(straight) and done_files(again) == done_files(straight)
    assert capsys.readouterr().err.count("is gone or damaged: this job is trained again") == 2


def test_damaged_job_never_replaces_the_whole_one_on_drive(tmp_path, panel, trees, monkeypatch):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    ws = Workspace(tmp_path / "MyDrive" / "VN")
    session = run_quietly(ws, panel, trees)
    before = hashes(session)
    local, there = (home.checkpoint_folder(session.run_id) / "done/trees_fold1" for home in (ws.local, ws))
    whole = there.read_bytes()
    local.write_bytes(whole[:len(whole) // 2])
    session.drive = "not there yet"  # so that the run is brought to Drive once more
    session.save()
    again = resume(ws, quiet=True)
    assert there.read_bytes() == whole and hashes(again) == before and again.status == "finished"


def test_unfinished_run_with_another_config_is_pointed_at(tmp_path, panel, trees, capsys):
    first = run_quietly(Workspace(tmp_path), panel, trees, hours=1e-9)
    train(Workspace(tmp_path), panel, replace(trees, seed=5), hours=1e-9)
    said = capsys.readouterr().err
    assert "seed: 0, here 5" in said and f"resume --run {first.run_id}" in said


def test_data_of_a_run_that_is_gone_is_named(tmp_path, panel, trees):
    ws = Workspace(tmp_path)
    run_quietly(ws, panel, trees, hours=1e-9)
    (ws.prepared / panel.data_id / "panel.parquet").unlink()
    with pytest.raises(DataError, match="data of this run is gone"):
        resume(ws, quiet=True)


# ------------------------------------------------------------------------------------------------ parts of one run
@pytest.fixture(scope="module")
def two_years(config):
    """(panel of two folds, config of two families on it)."""
    panel = build_panel(synthetic_prices(6, 1060, seed=1))
    return panel, replace(config, families=("trees", "global"), folds=2, n_members=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, two_years):
    return run_quietly(Workspace(tmp_path_factory.mktemp("whole")), *two_years)


def test_parts_deal_the_folds_and_the_last_one_trains_the_final_fit(tmp_path, two_years, whole, started):
    ws = Workspace(tmp_path)
    first = run_quietly(ws, *two_years, part="1/2")
    assert first.status == "paused" and first.run_id.endswith("-part1of2")
    assert "part 1/2 is done; the other machines still train 4 jobs" in first.why
    assert started == ["trees_fold1", "global_fold1"]
    second = run_quietly(ws, *two_years, part="2/2")
    assert started[2:] == ["trees_fold2", "global_fold2", "trees_final", "global_final"]
    assert second.status == "finished" and hashes(second) == hashes(whole)
    first = resume(ws, first.run_id, quiet=True)
    assert first.status == "finished" and len(started) == 6, "nothing is trained twice"
    assert hashes(first) == hashes(whole)
    for session in (first, second):
        assert fold_scores(session, two_years[0]).equals(fold_scores(whole, two_years[0]))


def test_part_sees_another_one_that_began_after_it(tmp_path, two_years, whole, monkeypatch):
    ws, start, second = Workspace(tmp_path), Display.start, []

    def then(self, job):
        if not second:
            second.append(None)
            second[0] = run_quietly(ws, *two_years, part="2/2")
        start(self, job)

    monkeypatch.setattr(Display, "start", then)
    first = run_quietly(ws, *two_years, part="1/2")
    assert "part 2/2 is done" in second[0].why
    assert first.status == "finished" and hashes(first) == hashes(whole)


def test_part_has_the_jobs_of_the_other_one_whatever_its_machine(tmp_path, two_years, started):
    """Two machines hold packs of different sizes; the packs of a fold are those of whoever trains it."""
    panel, config = two_years
    config = replace(config, families=("stockformer",))
    wide = replace(config, machine=replace(config.machine, pack_models=99))
    run_quietly(Workspace(tmp_path), panel, replace(wide, machine=replace(wide.machine, pack_models=1)), part="1/2")
    second = run_quietly(Workspace(tmp_path), panel, wide, part="2/2")
    assert second.status == "finished" and "stockformer_fold1_pack02" in second.jobs
    assert len(started) == len(set(started)) == len(second.jobs)


@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "a/b", "1/0", "²/2", "1/" + "9" * 5000])
def test_part_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="write it as 1/2"):
        parse_part(text)


def test_more_parts_than_folds_are_refused(tmp_path, two_years):
    with pytest.raises(ConfigError, match="3 parts of 2 folds"):
        run_quietly(Workspace(tmp_path), *two_years, part="1/3")
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------- memory that does not suffice
def fill_memory(monkeypatch, *, most=2, only="SYN004", error=torch.OutOfMemoryError, then=lambda: None):
    """From now on no step holds more than `most` networks beside those of `only`; `then` is called in its first one."""
    step = LocalStack.step

    def limited(self):
        if only in self.job.symbols:
            if len(self.models) > most and self.epoch * 100 + self.step_in_epoch >= 3:  # its checkpoint lies there then
                raise error("not enough memory for this many networks")
            if len(self.job.symbols) * self.config.n_members <= most:
                then()
        return step(self)

    monkeypatch.setattr(LocalStack, "step", limited)


def four_symbols(config):
    return replace(config, families=("stockformer",), symbols=("SYN001", "SYN002", "SYN003", "SYN004"),
                   train=replace(config.train, checkpoint_minutes=1e-9))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, pytest.param(MemoryError, marks=pytest.mark.slow),
                                   pytest.param(RuntimeError, marks=pytest.mark.slow)])
def test_pack_that_does_not_fit_is_halved_and_all_is_finished(tmp_path, panel, folds, config, monkeypatch, capsys,
                                                              error):
    config = four_symbols(config)
    planned = {job.name: job.symbols for job in plan_jobs(panel, folds, config)}
    name = next(name for name, symbols in planned.items() if "SYN004" in symbols and "pack" in name)
    fill_memory(monkeypatch, error=error)
    session = train(Workspace(tmp_path), panel, config)
    assert f"{name} does not fit: 4 networks; going on with 2 and 2" in capsys.readouterr().err
    assert session.status == "finished" and session.counts()["done"] == 4
    for stage in ("fold1", "final"):
        packs = {job: row["symbols"] for job, row in session.jobs.items() if job.startswith(f"stockformer_{stage}")}
        assert sorted(symbol for symbols in packs.values() for symbol in symbols) == list(config.symbols)
        assert stage == "final" or (len(packs) == 3 and
                                    set(packs) <= set(session.jobs["stockformer_final_pack00"]["needs"]))
    assert not fold_scores(session, panel).duplicated(["family", "symbol", "date"]).any()


@pytest.mark.slow
def test_run_killed_after_a_halving_does_not_take_the_checkpoint_of_the_whole_pack(
        tmp_path, prices, panel, folds, config, monkeypatch):
    """The newest checkpoint still is that of the pack as it was; the halves must begin anew, to the same bits."""
    config, name = four_symbols(config), "stockformer_fold1_pack01"
    only = next(job.symbols[0] for job in plan_jobs(panel, folds, config) if job.name == name)
    with monkeypatch.context() as limits:
        fill_memory(limits, only=only)
        straight = run_quietly(Workspace(tmp_path / "a"), panel, config)
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
run_quietly(ws, load_prepared(ws).panel, RunConfig.from_dict(json.loads(sys.stdin.read())))
"""
    killed = subprocess.run([sys.executable, "-c", code, str(ws.root), only], cwd=ROOT, text=True, capture_output=True,
                            input=json.dumps(config.to_dict()))
    assert killed.returncode == 9, killed.stderr
    stored = read_session(ws.root)
    assert stored["checkpoint"]["job"] == name and len(stored["checkpoint"]["symbols"]) == 2
    assert len(stored["jobs"][name]["symbols"]) == 1
    fill_memory(monkeypatch, only=only)
    again = resume(ws, quiet=True)
    assert again.status == "finished" and hashes(again) == hashes(straight)


def test_single_symbol_that_does_not_fit_ends_with_a_sentence(tmp_path, panel, config, monkeypatch):
    fill_memory(monkeypatch, most=1)
    with pytest.raises(SessionError, match="not enough memory, even for the smallest job"):
        run_quietly(Workspace(tmp_path), panel, config)
    assert read_session(tmp_path)["status"] == "paused"


# ------------------------------------------------------------------------------------------- a process that is killed
LONG = ["--profile", "smoke", "--symbols", "SYN001,SYN002,SYN003,SYN004", "--epochs", "4", "--members", "2",
        "--checkpoint-minutes", "0.0001", "--set", "global.epochs=2", "--set", "stockformer.epochs=3",
        "--set", "stockformer.patience=3", "--set", "trees.rounds=100", "--set", "trees.least_rounds=100",
        "--set", "machine.pack_models=4", "--set", "machine.threads=1"]


def start(root, *arguments):
    return subprocess.Popen([sys.executable, "-m", "vnq_colab", *arguments, "--root", str(root)], cwd=ROOT, text=True,
                            encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_checkpoint(root, process, job):
    """Until one of a job lies there, whose name begins so."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for path in Path(root).glob("checkpoints/*/manifest_?.json"):
            if f'"job": "{job}' in path.read_text(encoding="utf-8"):
                return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of {job} was written: {process.communicate()}")


def read_session(root):
    return json.loads(next(Path(root).glob("checkpoints/*/session.json")).read_text(encoding="utf-8"))


def stored_hashes(root):
    return {name: row["sha256"] for name, row in read_session(root)["jobs"].items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, prices):
    root = tmp_path_factory.mktemp("undisturbed")
    prepare(Workspace(root), prices)
    process = start(root, "train", *LONG)
    said = process.communicate()
    assert process.returncode == 0 and "Next: python -m vnq_colab validate, then export" in said[1], said
    return stored_hashes(root)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("how, code, job", [(signal.SIGKILL, -9, "stockformer_fold1"),
                                            (signal.SIGINT, 3, "trees_fold1"), (signal.SIGTERM, 3, "global_final")])
def test_run_that_is_stopped_resumes_to_the_same_bits(tmp_path, prices, undisturbed, how, code, job):
    prepare(Workspace(tmp_path), prices)
    process = start(tmp_path, "train", *LONG)
    wait_for_checkpoint(tmp_path, process, job)
    process.send_signal(how)
    process.communicate()
    assert process.returncode == code
    again = start(tmp_path, "resume")
    _, said = again.communicate()
    assert again.returncode == 0 and "goes on from its checkpoint" in said
    assert stored_hashes(tmp_path) == undisturbed and len(read_session(tmp_path)["attempts"]) == 2
