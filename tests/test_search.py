"""A search: what a trial is worth, the same trials whatever happens, recipes, and bad input in a sentence."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from tests.faults.searches import CONFIG, SPACE, prices, sequence
from vnq_colab.config import RunConfig
from vnq_colab.data.panel import OPEN, build_panel
from vnq_colab.data.splits import yearly_folds
from vnq_colab.errors import CheckpointError, ConfigError, StorageError
from vnq_colab.files import locked, read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.recipes import read_recipe
from vnq_colab.settings import OneOf, Real, Whole
from vnq_colab.training import journal, search
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.jobs import load_job
from vnq_colab.training.loop import Attempt
from vnq_colab.training.session import sessions

pytest.importorskip("optuna", reason="optuna is not installed: pip install -r requirements-local.txt")
ROOT = Path(__file__).resolve().parents[1]
N = 8


@pytest.fixture(scope="module")
def panel():
    return build_panel(prices())


def run(ws, panel, **changes):
    return search.search(ws, panel, changes.pop("config", CONFIG),
                         **({"space": SPACE, "n_trials": N, "folds": 2, "quiet": True} | changes))


@pytest.fixture(scope="module")
def done(tmp_path_factory, panel):
    """(workspace, search) of a finished one. Read it, do not change it."""
    ws = Workspace(tmp_path_factory.mktemp("search"))
    return ws, run(ws, panel)


def home_of(ws, found):
    return Workspace(ws.searches / found.id)


def copy_of(done, folder):
    ws, found = done
    (folder / "searches").mkdir()
    path = folder / "searches" / found.id / search.JOURNAL
    path.parent.mkdir()
    path.write_bytes((home_of(ws, found).root / search.JOURNAL).read_bytes())
    return Workspace(folder), path


# --- what a trial is


def test_search_begins_with_the_default_and_keeps_the_best(done):
    _, found = done
    assert found.status == "finished" and list(found.trials["trial"]) == [*range(1, N + 1)]
    first = found.trials.iloc[0]
    assert (first["source"], first["trees.leaves"], first["trees.learning_rate"]) == ("default", 7, 0.04)
    assert found.best["value"] == found.trials["value"].max() and "pruned" in set(found.trials["state"])
    assert "only test days after them are fresh" in repr(found) and "SYNTHETIC" in repr(found).splitlines()[1]


def test_value_is_the_mean_of_daily_rank_correlations_less_its_standard_error(done, panel):
    """Once more by scipy, day by day, from what the jobs of the best trial forecast."""
    ws, found = done
    row, folds = found.best, yearly_folds(panel.days)[:2]
    settings = {name: row[name] for name in SPACE}
    session = next(one for one in sessions(home_of(ws, found)) if all(
        one.config.flat()[name] == value for name, value in settings.items()))
    actual, values = search.outcomes(panel, OPEN), []
    for fold, splits in enumerate(folds):
        forecast = load_job(session, CheckpointStore.of(session), f"trees_fold{fold + 1}")["forecast"]
        days, symbols, scores = (forecast[name].numpy() for name in ("day", "symbol", "score"))
        assert set(days) <= set(np.flatnonzero(splits.valid.mask(panel.days))), "no test day is forecast"
        daily = []
        for day in np.unique(days):
            mine = symbols[days == day], scores[days == day]
            known = np.isfinite(actual[mine[0], day])
            if known.sum() > 1:
                daily.append(spearmanr(mine[1][known], actual[mine[0][known], day]).statistic)
        values.append(np.mean(daily))
    assert row["folds"] == pytest.approx(values, abs=6e-5)
    assert row["value"] == pytest.approx(np.mean(values) - np.std(values, ddof=1) / 2**0.5, abs=1e-6)
    assert found.seen_to == folds[1].valid.last and np.isnan(actual[:, -1]).all()


def test_trial_of_local_networks_trains_the_global_one_that_it_needs(tmp_path, panel):
    found = run(Workspace(tmp_path), panel, family="stockformer", n_trials=2, folds=1,
                config=replace(CONFIG, symbols=("SYN001", "SYN002", "SYN003")),
                space={"stockformer.epochs": Whole(1, 2)})
    assert list(found.trials["state"]) == ["complete"] * 2 and np.isfinite(found.trials["value"]).all()
    done = [{name for name, row in one.jobs.items() if row["state"] == "done"} for one in sessions(
        home_of(Workspace(tmp_path), found))]
    assert done[0] == {"global_fold1", "stockformer_fold1_pack00"}


def test_settings_that_exclude_one_another_fail_and_the_search_goes_on(tmp_path, panel):
    space = {"model.width": OneOf(16, 18), "model.n_heads": OneOf(2, 8)}  # 18 is no multiple of 8
    found = run(Workspace(tmp_path), panel, n_trials=6, folds=1, space=space)
    failed = found.trials[found.trials["state"] == "fail"]
    assert 0 < len(failed) < 5 and "must be a multiple of n_heads" in failed["reason"].iloc[0]


# --- the same trials, whatever happens


def test_search_again_adds_nothing_and_more_trials_go_on_from_there(done, tmp_path, panel, monkeypatch):
    ws, found = done
    monkeypatch.setattr(Attempt, "run", lambda self: pytest.fail("nothing is left to train"))
    assert sequence(run(ws, panel)) == sequence(found)
    monkeypatch.undo()
    few = run(Workspace(tmp_path), panel, n_trials=3)
    assert sequence(few) == sequence(found)[:3] and few.id == found.id
    assert sequence(run(Workspace(tmp_path), panel, n_trials=4)) == sequence(found)[:4]


def test_search_that_is_paused_at_each_step_ends_with_the_same_trials(done, tmp_path, panel):
    ws, pauses = Workspace(tmp_path), 0
    while (found := run(ws, panel, hours=1e-9 if pauses < 40 else None, n_trials=3)).status == "paused":
        pauses += 1
        assert found.why == "time is up"
    assert pauses > 5 and sequence(found) == sequence(done[1])[:3]


def test_last_record_cut_at_any_byte_is_done_again(done, tmp_path, panel):
    ws, path = copy_of(done, tmp_path)
    whole, ranges = path.read_bytes(), journal.ranges_of(SPACE, replace(CONFIG, symbols=None))
    begin = whole[:-1].rindex(b"\n") + 1
    for cut in range(begin, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(journal.Journal([path], done[1].id, ranges).trials) == N - 1 and path.read_bytes() == whole[:begin]
    path.write_bytes(whole[:(begin + len(whole)) // 2])
    assert sequence(run(ws, panel)) == sequence(done[1])


def test_journal_on_drive_is_a_whole_copy_and_suffices_on_a_new_machine(done, tmp_path, panel, monkeypatch):
    ws = Workspace(tmp_path / "MyDrive" / "VN-Quant-Training")
    found = run(ws, panel, n_trials=3)
    home = home_of(ws, found)
    assert home.local != home and (home.root / search.JOURNAL).read_bytes() == (
        home.local.root / search.JOURNAL).read_bytes()
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "new machine"))
    assert sequence(run(ws, panel, n_trials=4)) == sequence(done[1])[:4]


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "MyDrive"])
def test_search_killed_twenty_times_ends_with_the_same_best(tmp_path, place):
    """On Drive the machine is lost with every second kill: what Drive holds must then suffice."""
    ended = subprocess.run([sys.executable, "-m", "tests.faults.searches", str(tmp_path / place), "20"], cwd=ROOT,
                           env=os.environ | {"OMP_NUM_THREADS": "1", "VNQ_LOCAL": str(tmp_path / "local")},
                           capture_output=True, text=True)
    told = json.loads(ended.stdout)
    assert told["same"] and told["kills"] >= 12, (told, ended.stderr[-2000:])


def test_journal_that_is_not_ours_is_named(done, tmp_path, panel):
    ws, path = copy_of(done, tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    others = (b"trees.leaves", b"trees.leafs"), (b'"seconds"', b'"hours"'), (b'"curves":{', b'"curves":{"a":7},"b":{')
    for strange in (*(lines[-1].replace(*pair) for pair in others), b'{"op_code": 99}\n', b'{"op_code": 4}\n'):
        path.write_bytes(b"".join([*lines[:-1], strange]))
        with pytest.raises(CheckpointError, match="not the journal of this search .* begins anew"):
            run(ws, panel)
    path.write_bytes(b"".join([*lines[:4], b"\x00\x00\n"]))
    assert sequence(run(ws, panel, n_trials=4)) == sequence(done[1])[:4]


def test_search_that_goes_on_elsewhere_is_left_alone(done, panel):
    ws, found = done
    with locked(home_of(ws, found).root / search.LOCK), pytest.raises(StorageError, match="is already running"):
        run(ws, panel)


# --- suggestions


def test_suggestions_are_asked_for_once_and_taken_in_turn_with_the_sampler(tmp_path, panel):
    asked = []

    def suggest(question):
        asked.append(question)
        return [{"trees.leaves": leaves, "trees.learning_rate": 0.1} for leaves in (30, 20, 99)]

    ws = Workspace(tmp_path)
    run(ws, panel, n_trials=3, suggest=suggest, constraints="few leaves")
    found = run(ws, panel, n_trials=7, suggest=suggest)
    assert list(found.trials["source"]) == ["default", "suggestion", "sampler", "suggestion", "sampler", "sampler",
                                            "sampler"]  # 99 is out of range; 30 and 20 were tried when asked again
    assert list(found.trials["trees.leaves"][[1, 3]]) == [30, 20] and len(asked) == 2
    assert asked[0].constraints == "few leaves" and [row["value"] for row in asked[0].history] == [
        found.trials["value"][0]]
    plain = run(Workspace(tmp_path / "plain"), panel, n_trials=2, suggest=lambda question: "nothing of use")
    assert list(plain.trials["source"]) == ["default", "sampler"]


# --- recipes, and bad input


def test_recipe_is_what_a_run_can_name_and_says_where_it_comes_from(done, tmp_path):
    _, found = done
    config = RunConfig.for_machine("smoke", recipe=str(found.recipe), seed=5)
    best = {name: found.best[name] for name in SPACE}
    assert {name: config.flat()[name] for name in SPACE} == best and config.seed == 5
    assert config.flat()["trees.min_child_weight"] == 20.0 and config.recipe == "default"
    origin = config.found_by
    assert (origin.search, origin.trials, origin.seen_to) == (found.id, N, found.seen_to)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    by_hand = RunConfig.for_machine("smoke", seed=5).with_settings(read_recipe(found.recipe)[1])
    assert config.config_id == by_hand.config_id
    with pytest.raises(ConfigError, match=r"choose it with --recipe"):
        config.with_setting("found_by.trials", "0")


@pytest.mark.parametrize(("change", "sentence"), [
    ({"format": 2}, "its format is 2, this version's 1. Search again"),
    ({"settings": {"trees.leafs": 3}}, "no setting 'trees.leafs'. Did you mean 'trees"),
    ({"settings": {"trees.leaves": -3}}, "trees.leaves = -3: must lie between"),
    ({"base": "recipe.json"}, "not a recipe of a search: base = 'recipe.json': must be"),
    ({"trials": "many"}, "not a recipe of a search: trials = 'many'"),
    ({"seal": "0"}, "damaged, edited, or of an earlier version")])
def test_recipe_that_cannot_be_used_is_refused_in_a_sentence(done, tmp_path, change, sentence):
    path = tmp_path / "recipe.json"
    value = read_sealed(done[1].recipe) | change
    write_sealed(path, value)
    if "seal" in change:
        path.write_text(path.read_text(encoding="utf-8").replace('"trials": 8', '"trials": 1'), encoding="utf-8")
    with pytest.raises(ConfigError, match=sentence):
        RunConfig.for_machine("cpu", recipe=str(path))
    with pytest.raises(ConfigError, match="there is no recipe .*none.json.* or the recipe.json of a search"):
        RunConfig.for_machine("cpu", recipe=tmp_path / "none.json")


@pytest.mark.parametrize(("asked", "sentence"), [
    ({"space": {"trees.leafs": Whole(3, 7)}}, "no setting 'trees.leafs' to search. Did you mean 'trees.leaves'"),
    ({"space": {"machine.threads": Whole(1, 7)}}, "no setting 'machine.threads' to search"),
    ({"space": {}}, "space = {}: must name a setting"), ({"space": {"trees.leaves": 3}}, "Whole, Real or OneOf"),
    ({"space": {"trees.subsample": Real(0.5, 2)}}, r"trees.subsample = 2.0: must lie in \(0, 1\]"),
    ({"space": {"trees.bins": OneOf(64, "many")}}, "trees.bins = 'many': expected int"),
    ({"n_trials": 0}, "n_trials = 0: must lie between"), ({"hours": 0.0}, "hours = 0.0: must be positive"),
    ({"space": ["trees.leafs"]}, "no range, .* of the setting 'trees.leafs'. Did you mean 'trees.leaves'"),
    ({"folds": 0}, "folds = 0: must lie between"), ({"family": "tres"}, "no family 'tres'. Did you mean 'trees'"),
    ({"suggest": "nobody"}, "no provider of suggestions 'nobody'"), ({"suggest": "openai"}, "set VNQ_SUGGEST_KEY")])
def test_bad_input_is_a_sentence_before_anything_is_trained(tmp_path, panel, asked, sentence, monkeypatch):
    monkeypatch.delenv("VNQ_SUGGEST_KEY", raising=False)
    with pytest.raises(ConfigError, match=sentence):
        run(Workspace(tmp_path), panel, **asked)
    assert not list(tmp_path.rglob("journal.log"))


@pytest.mark.parametrize(("package", "sentence"), [("optuna", "pip install --upgrade optuna"),
                                                   ("xgboost", "Install it with: pip install xgboost")])
def test_missing_package_is_named_with_the_line_that_installs_it(tmp_path, panel, package, sentence, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=sentence):
        run(Workspace(tmp_path), panel)


@pytest.mark.parametrize(("one", "sentence"), [
    (Whole(31, 3), "is empty"), (Whole(3.5, 7), "trees.leaves = 3.5: expected int"), (Real(3, 7), "expected int"),
    (Whole(0, 7, log=True), "63 can be added"), (OneOf([1]), "63 can be added"), (OneOf(63), "give two"),
    (Whole("3", 7), "63 can be added"), (Whole(True, 70), "trees.leaves = True: expected int")])
def test_range_that_is_none_is_refused(one, sentence):
    with pytest.raises(ConfigError, match=sentence):
        journal.ranges_of({"trees.leaves": one}, RunConfig())


def test_trial_that_is_worse_on_three_folds_is_given_up(tmp_path):
    """Not after two: with four folds that is what Wilcoxon's test can tell."""
    ranges = journal.ranges_of(SPACE, CONFIG)
    kept = journal.Journal([tmp_path / "journal.log"], "x", ranges)
    first = kept.ask(0, {"trees.leaves": 7, "trees.learning_rate": 0.03})
    kept.add(first, "complete", 0.3, [0.3, 0.2, 0.3, 0.4], curves={}, seconds=1.0)
    for worse, given_up in (((0.2, 0.1, 0.2), [False, False, True]), ((0.2, 0.3, 0.2), [False] * 3)):
        asked, told = kept.ask(0, None), []
        for fold, value in enumerate(worse):
            asked.report(value, fold)
            told.append(asked.should_prune())
        assert told == given_up


def test_recipe_of_another_version_is_said(done, tmp_path, capsys):
    write_sealed(tmp_path / "recipe.json", read_sealed(done[1].recipe) | {"code_version": "9.9"})
    assert RunConfig.for_machine("cpu", recipe=str(tmp_path / "recipe.json")).found_by.trials == N
    assert "found by version 9.9; this is" in capsys.readouterr().err
