"""Which configurations are charged on the same test days, and the last accepted run beside a new one."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from tests.drive_map import FILES
from vnq_colab import __version__
from vnq_colab.config import RunConfig
from vnq_colab.data.panel import CLOSE, OPEN
from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery.bundle import export_bundle
from vnq_colab.delivery.earlier_runs import EVALUATIONS, PREVIOUS, against_previous, n_trials, record_evaluation
from vnq_colab.delivery.tidying import tidy
from vnq_colab.delivery.validate import validate
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.files import read_sealed, write_json, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.recipes import RECIPE, RECIPE_FORMAT, FoundBy
from vnq_colab.training.jobs import forecast
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import train

YEAR = "2024-01-01", "2024-12-31"


# --- test-set evaluations


@pytest.fixture
def run(tmp_path, config):
    """run(seed, day=1, ending="", **changes) -> a session of that config, begun on that day of January 2025."""
    def make(seed, day=1, ending="", ws=None, **changes):
        chosen = changes.pop("config", replace(config, seed=seed))
        run_id = f"202501{day:02d}T000000_{chosen.config_id[:6]}{ending}"
        return Session(ws or Workspace(tmp_path), run_id, chosen,
                       **({"data_id": "x", "folds": [], "jobs": {}, "ledger": {}} | changes))
    return make


def file_of(session):
    return session.ws.report_folder(session.run_id) / EVALUATIONS


def test_file_of_a_run_holds_each_evaluation_once_and_proves_itself(run):
    session = run(0)
    for days in (YEAR, YEAR, ("2024-07-01", "2024-12-31")):
        record_evaluation(session, *days)
    file = read_sealed(file_of(session))
    assert [(one["first"], one["last"]) for one in file["evaluations"]] == [YEAR, ("2024-07-01", "2024-12-31")]
    assert file["config_id"] == session.config.config_id and '"seal"' in file_of(session).read_text(encoding="utf-8")
    assert f"reports/<run_id>/{EVALUATIONS}" in FILES


def test_configuration_that_a_search_found_counts_for_all_its_trials(run, config):
    """Once for each search, whatever was judged of it; and the sentence says which of the days the search has seen."""
    def found(seed, trials, day=1):
        return run(seed, day, config=replace(config, seed=seed, found_by=FoundBy(
            search="trees_1", trials=trials, seen_to="2024-06-28")))

    assert n_trials(found(0, 30), *YEAR)[0] == 30
    for session in (found(0, 30), run(1), found(2, 12, day=3)):
        record_evaluation(session, *YEAR)
    assert n_trials(found(0, 30), *YEAR)[0] == n_trials(found(3, 30), *YEAR)[0] == n_trials(run(1), *YEAR)[0] == 31
    _, text = n_trials(found(0, 30), *YEAR)
    assert "trials of trees_1" in text and "up to 2024-06-28, which are 50% of these test days" in text
    assert "trees_1" in n_trials(run(1), *YEAR)[1] and "The recipe" not in n_trials(run(1), *YEAR)[1]


def test_run_with_the_settings_that_a_search_here_found_is_charged_however_it_was_named(run):
    """Trained before the search, or before the search went on: the run's own config knows nothing of its trials."""
    session = run(0)
    for trials, more in ((12, 0), (30, 1)):
        write_sealed(session.ws.searches / f"trees_{trials}" / RECIPE, {
            "format": RECIPE_FORMAT, "code_version": __version__, "base": "default", "family": "trees", "name": "best",
            "search": f"trees_{trials}", "trials": trials, "value": 0.1,
            "settings": {"trees.leaves": session.config.trees.leaves + more},
            "seen_to": "2024-06-28", "default": 0.1})
    n, text = n_trials(session, *YEAR)
    assert n == 12 and "trials of trees_12" in text and "up to 2024-06-28" in text


def test_each_other_configuration_is_a_trial_and_the_own_one_counts_in_any_case(run):
    assert n_trials(run(0), *YEAR)[0] == 1
    record_evaluation(run(0), *YEAR)
    n, text = n_trials(run(0), *YEAR)
    assert n == 1 and "Only this configuration" in text
    for seed in (1, 2):
        record_evaluation(run(seed, day=seed + 1), *YEAR)
    n, text = n_trials(run(2, day=3), *YEAR)
    assert n == 3 and text == ("3 configurations were evaluated on these test days; every p-value of the gates is "
                               "charged for 3. Only the evaluations in this folder are known.")
    assert n_trials(run(7), *YEAR)[0] == 4


def test_same_configuration_on_newer_data_in_parts_and_of_the_first_version_is_one_trial(run):
    record_evaluation(run(0), *YEAR)
    record_evaluation(run(0, day=8, data_id="y"), "2024-01-08", "2025-01-07")
    for ending in ("-part1of2", "-refit"):
        record_evaluation(run(0, day=9, ending=ending), *YEAR)
    assert (n_trials(run(0, day=15), *YEAR)[0], n_trials(run(1, day=16), *YEAR)[0]) == (1, 2)


@pytest.mark.parametrize("evaluated, n", [
    ([("2023-01-01", "2023-12-31")], 1),                                # other days
    ([("2023-07-01", "2024-02-02")], 1),                                # 25 of 262 weekdays
    ([("2023-07-01", "2024-02-06")], 2),                                # 27 of 262
    ([("2024-01-01", "2024-01-20"), ("2024-12-10", "2024-12-31")], 2),  # two that are a tenth together
    ([("2016-01-01", "2024-12-31")], 2),                                # a long walk that covers them
])
def test_evaluation_counts_when_it_covers_a_tenth_of_the_days(run, evaluated, n):
    for days in evaluated:
        record_evaluation(run(1), *days)
    assert n_trials(run(0, day=2), *YEAR)[0] == n


def test_profile_smoke_is_never_charged_and_made_up_markets_not_to_real_ones(run):
    tiny = run(1)
    tiny.config = replace(tiny.config, machine=replace(tiny.config.machine, profile="smoke"))
    record_evaluation(tiny, *YEAR)
    record_evaluation(run(3, day=4, synthetic=True), *YEAR)
    assert n_trials(run(0, day=2), *YEAR)[0] == 1
    assert n_trials(run(0, day=2, synthetic=True), *YEAR)[0] == 2
    record_evaluation(run(2, day=3), *YEAR)
    assert n_trials(tiny, *YEAR)[0] == 2


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(b"\x00\x01"),
    lambda path: path.write_text(path.read_text().replace("2024-12-31", "2023-12-31")),
    lambda path: write_sealed(path, {"format": 1}),
    lambda path: write_json(path, [1]),
    lambda path: write_sealed(path, {"format": 1, "run_id": "", "config_id": "b", "synthetic": False, "profile": "cpu",
                                   "evaluations": [{}]}),
    lambda path: write_sealed(path, {"format": 9}),
    lambda path: (path.unlink(), (path.parent / "verdict.json").write_text("{}")),
], ids=["bytes", "edited", "empty", "list", "evaluation", "newer", "gone"])
def test_file_that_cannot_be_read_is_named_and_the_others_count(run, damage):
    for seed in (1, 2):
        record_evaluation(run(seed, day=seed), *YEAR)
    lost = run(1)
    damage(file_of(lost))
    n, text = n_trials(run(0, day=3), *YEAR)
    assert n == 2 and lost.run_id in text and "Not counted" in text
    assert "Not counted" not in n_trials(run(1, day=3), *YEAR)[1], "its configuration is counted already"


def test_damaged_file_begins_anew_and_says_so(run, capsys):
    path = file_of(run(0))
    path.parent.mkdir(parents=True)
    path.write_text("x", encoding="utf-8")
    record_evaluation(run(0), *YEAR)
    assert "begins anew" in capsys.readouterr().err and len(read_sealed(path)["evaluations"]) == 1


def test_file_on_drive_is_overwritten_in_place(tmp_path, run, monkeypatch):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    session = run(0, ws=Workspace(tmp_path / "MyDrive" / "VN"))
    record_evaluation(session, *YEAR)
    before = file_of(session).stat().st_ino
    record_evaluation(session, "2025-01-01", "2025-01-31")
    assert file_of(session).stat().st_ino == before and len(read_sealed(file_of(session))["evaluations"]) == 2


def test_evaluations_survive_tidying(run):
    for day in (1, 2, 3):
        session = run(day, day=day, status="finished")
        session.save()
        record_evaluation(session, *YEAR)
    tidy(session.ws, keep=1, delete=True)
    assert n_trials(run(3, day=4), *YEAR)[0] == 3


# --- the last accepted run

NAMES = ("SYN001", "SYN002", "SYN003", "SYN004", "SYN005", "SYN006")


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """(workspace, old run, new prepared set, new run): a bundle of last month, and a run on newer prices."""
    prices = synthetic_prices(6, 1060, seed=1)
    ws, days = Workspace(tmp_path_factory.mktemp("week")), np.sort(prices["date"].unique())
    config = RunConfig.for_machine("smoke", symbols=NAMES, families=("trees",))
    runs = []
    for seed, n_days in enumerate((1040, 1060)):
        prepared = prepare(ws, prices[prices["date"] <= days[n_days - 1]])
        runs.append(train(ws, prepared.panel, replace(config, seed=seed), quiet=True))
        if seed == 0:
            validate(runs[0], prepared=prepared)
            accepted = {"decision": "accept", "reasons": [], "gates": []}
            export_bundle(runs[0], Verdict(runs[0].run_id, "honest", {}, accepted, dict.fromkeys(NAMES, accepted)))
    return ws, runs[0], prepared, runs[1]


@pytest.fixture
def copy(week, tmp_path):
    """(workspace, old run, new run) in a workspace of its own, which a test may damage."""
    ws, old, _, new = week
    other = Workspace(shutil.copytree(ws.root, tmp_path / "week"))
    return other, old, Session.load(other, new.run_id)


@pytest.fixture(scope="module")
def table(week):
    found = forecast(week[3], panel=week[2].panel)
    return found[found["family"] == "ensemble"].reset_index(drop=True)


def ahead(table, panel, column):
    """The return over five days from an open or a close, for each row."""
    row = np.array([panel.symbols.index(name) for name in table["symbol"]])
    return panel.ahead(5, column)[row, panel.days.get_indexer(table["date"])]


def correlations_by_hand(table, panel):
    """Spearman's correlation of score and return from open to open, day by day."""
    known = table.assign(actual=ahead(table, panel, OPEN))[np.isfinite(ahead(table, panel, CLOSE))].dropna()
    return known.groupby("date")[["score", "actual"]].apply(lambda day: day.rank().corr().iloc[0, 1]).fillna(0)


def test_old_run_is_judged_by_what_its_folds_forecast_of_the_common_days(week, table):
    _, old, prepared, new = week
    found = against_previous(new, table, prepared.panel)
    before = forecast(old)
    before = before[before["family"] == "ensemble"]
    mine, theirs = (correlations_by_hand(rows, prepared.panel) for rows in (table, before))
    days = mine.index.intersection(theirs.index)
    assert (found["run_id"], found["n_days"]) == (old.run_id, len(days)) and found["n_days"] > 400
    assert (found["first"], found["last"]) == (f"{days[0]:%Y-%m-%d}", f"{days[-1]:%Y-%m-%d}")
    assert found["new_order"] == pytest.approx(mine[days].mean(), abs=1e-6)
    assert found["old_order"] == pytest.approx(theirs[days].mean(), abs=1e-6)
    assert not found["worse"] and "not worse" in found["text"] and PREVIOUS not in set(table["family"])


def test_order_that_is_worse_as_a_whole_is_said(week, table):
    _, _, prepared, new = week
    found = against_previous(new, table.assign(score=-table["score"]), prepared.panel)
    gap = found["old_order"] + against_previous(new, table, prepared.panel)["new_order"]
    assert found["worse"] == (found["order_t"] < -2) and gap == pytest.approx(found["old_order"] - found["new_order"])
    wrong = table.assign(score=-np.nan_to_num(ahead(table, prepared.panel, OPEN)))
    found = against_previous(new, wrong, prepared.panel)
    assert found["worse"] and found["new_order"] < -0.9 and "before the old bundle is replaced" in found["text"]


def test_without_an_earlier_accepted_bundle_there_is_nothing_to_say(week, table, copy):
    _, old, prepared, _ = week
    assert against_previous(old, table, prepared.panel) is None  # its own bundle does not count
    ws, _, new = copy
    path = ws.models / old.run_id / "manifest.json"
    manifest = read_sealed(path)
    for row in manifest["symbols"].values():
        row["decision"] = "reject"
    write_sealed(path, manifest)
    assert against_previous(new, table, prepared.panel) is None
    shutil.rmtree(ws.models)
    assert against_previous(new, table, prepared.panel) is None


def test_checkpoints_of_the_old_run_are_not_needed(copy, week, table):
    ws, old, new = copy
    shutil.rmtree(ws.checkpoint_folder(old.run_id))
    panel = week[2].panel
    assert against_previous(new, table, panel) == against_previous(week[3], table, panel)


@pytest.mark.parametrize("damage, words", [
    (lambda models, reports: (models / "manifest.json").write_text("x"), "not readable as JSON"),
    (lambda models, reports: write_sealed(models / "manifest.json", {"format": 4, "symbols": [1]}), "lacks basket"),
    (lambda models, reports: write_json(models / "manifest.json", [1]), "expected fields"),
    (lambda models, reports: write_sealed(models / "manifest.json", {"format": 1}), "of an earlier version"),
    (lambda models, reports: (reports / "forecast.parquet").unlink(), "forecast.parquet"),
    (lambda models, reports: (reports / "forecast.parquet").write_text("x"), "not what was judged"),
])
def test_old_run_that_cannot_be_used_is_a_sentence_and_stops_nothing(copy, week, table, damage, words):
    ws, old, new = copy
    damage(ws.models / old.run_id, ws.report_folder(old.run_id))
    found = against_previous(new, table, week[2].panel)
    assert words in found["text"] and found["text"].startswith("Not compared") and not found["worse"]
