from dataclasses import replace

import pytest

from tests.drive_map import FILES
from vnq_colab.delivery.evaluations import EVALUATIONS, n_trials, record_evaluation
from vnq_colab.delivery.tidy import tidy
from vnq_colab.files import read_sealed, write_json
from vnq_colab.layout import Workspace
from vnq_colab.training.session import Session

YEAR = "2024-01-01", "2024-12-31"


@pytest.fixture
def ws(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def run(ws, config):
    """run(seed, day=1, ending="", **changes) -> a session of that config, begun on that day of January 2025."""
    def make(seed, day=1, ending="", **changes):
        chosen = replace(config, seed=seed)
        run_id = f"202501{day:02d}T000000_{chosen.config_id[:6]}{ending}"
        return Session(ws, run_id, chosen, **({"data_id": "x", "folds": [], "jobs": {}, "ledger": {}} | changes))
    return make


def test_file_of_a_run_holds_each_evaluation_once_and_proves_itself(ws, run):
    session = run(0)
    for days in (YEAR, YEAR, ("2024-07-01", "2024-12-31")):
        record_evaluation(ws, session, *days)
    path = ws.report_folder(session.run_id) / EVALUATIONS
    file = read_sealed(path)
    assert [(one["first"], one["last"]) for one in file["evaluations"]] == [YEAR, ("2024-07-01", "2024-12-31")]
    assert file["config_id"] == session.config.config_id and '"seal"' in path.read_text(encoding="utf-8")
    assert f"reports/<run_id>/{EVALUATIONS}" in FILES


def test_first_evaluation_is_charged_for_itself_alone_recorded_or_not(ws, run):
    assert n_trials(ws, run(0), *YEAR)[0] == 1
    record_evaluation(ws, run(0), *YEAR)
    n, text = n_trials(ws, run(0), *YEAR)
    assert n == 1 and "Only this configuration" in text


def test_each_other_configuration_is_a_trial(ws, run):
    for seed in range(3):
        record_evaluation(ws, run(seed, day=seed + 1), *YEAR)
    n, text = n_trials(ws, run(2, day=3), *YEAR)
    assert n == 3 and text == ("3 configurations were evaluated on these test days; every p-value of the gates is "
                               "charged for 3. Only the evaluations in this folder are known.")
    assert n_trials(ws, run(7), *YEAR)[0] == 4


def test_same_configuration_on_newer_data_in_parts_and_of_the_first_version_is_one_trial(ws, run):
    record_evaluation(ws, run(0), *YEAR)
    record_evaluation(ws, run(0, day=8, data_id="y"), "2024-01-08", "2025-01-07")
    record_evaluation(ws, run(0, day=9, ending="-part1of2"), *YEAR)
    record_evaluation(ws, run(0, day=9, ending="-refit"), *YEAR)
    assert n_trials(ws, run(0, day=15), *YEAR)[0] == 1
    assert n_trials(ws, run(1, day=16), *YEAR)[0] == 2


@pytest.mark.parametrize("evaluated, n", [
    ([("2023-01-01", "2023-12-31")], 1),                                # other days
    ([("2023-07-01", "2024-02-02")], 1),                                # 25 of 262 weekdays
    ([("2023-07-01", "2024-02-06")], 2),                                # 27 of 262
    ([("2024-01-01", "2024-01-20"), ("2024-12-10", "2024-12-31")], 2),  # two that are a tenth together
    ([("2016-01-01", "2024-12-31")], 2),                                # a long walk that covers them
])
def test_evaluation_counts_when_it_covers_a_tenth_of_the_days(ws, run, evaluated, n):
    for days in evaluated:
        record_evaluation(ws, run(1), *days)
    assert n_trials(ws, run(0, day=2), *YEAR)[0] == n


def test_profile_smoke_is_never_charged(ws, run, config):
    tiny = run(1)
    tiny.config = replace(tiny.config, machine=replace(tiny.config.machine, profile="smoke"))
    record_evaluation(ws, tiny, *YEAR)
    assert n_trials(ws, run(0, day=2), *YEAR)[0] == 1
    record_evaluation(ws, run(2, day=3), *YEAR)
    assert n_trials(ws, tiny, *YEAR)[0] == 2


def test_made_up_markets_are_not_charged_to_real_ones(ws, run):
    record_evaluation(ws, run(1, synthetic=True), *YEAR)
    assert n_trials(ws, run(0, day=2), *YEAR)[0] == 1
    assert n_trials(ws, run(0, day=2, synthetic=True), *YEAR)[0] == 2


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(b"\x00\x01"),
    lambda path: path.write_text(path.read_text().replace("2024-12-31", "2023-12-31")),
    lambda path: write_json(path, {"format": 1}),
    lambda path: write_json(path, [1]),
    lambda path: write_json(path, {"format": 1, "config_id": "b", "synthetic": False, "profile": "cpu",
                                   "evaluations": [{}]}),
    lambda path: write_json(path, {"format": 9}),
    lambda path: (path.unlink(), (path.parent / "verdict.json").write_text("{}")),
], ids=["bytes", "edited", "empty", "list", "evaluation", "newer", "gone"])
def test_file_that_cannot_be_read_is_named_and_the_others_count(ws, run, damage):
    for seed in (1, 2):
        record_evaluation(ws, run(seed, day=seed), *YEAR)
    lost = run(1)
    damage(ws.report_folder(lost.run_id) / EVALUATIONS)
    n, text = n_trials(ws, run(0, day=3), *YEAR)
    assert n == 2 and lost.run_id in text and "Not counted" in text


def test_lost_file_of_a_counted_configuration_needs_no_word(ws, run):
    record_evaluation(ws, run(0), *YEAR)
    record_evaluation(ws, run(0, day=2), *YEAR)
    (ws.report_folder(run(0).run_id) / EVALUATIONS).write_text("x", encoding="utf-8")
    assert "Not counted" not in n_trials(ws, run(0, day=3), *YEAR)[1]


def test_damaged_file_begins_anew_and_says_so(ws, run, capsys):
    path = ws.report_folder(run(0).run_id) / EVALUATIONS
    path.parent.mkdir(parents=True)
    path.write_text("x", encoding="utf-8")
    record_evaluation(ws, run(0), *YEAR)
    assert "begins anew" in capsys.readouterr().err and len(read_sealed(path)["evaluations"]) == 1


def test_file_on_drive_is_overwritten_in_place(tmp_path, run, monkeypatch):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    ws = Workspace(tmp_path / "MyDrive" / "VN")
    record_evaluation(ws, run(0), *YEAR)
    path = ws.report_folder(run(0).run_id) / EVALUATIONS
    before = path.stat().st_ino
    record_evaluation(ws, run(0), "2025-01-01", "2025-01-31")
    assert path.stat().st_ino == before and len(read_sealed(path)["evaluations"]) == 2


def test_evaluations_survive_tidying(ws, run, config):
    for day in (1, 2, 3):
        chosen = replace(config, seed=day)
        session = Session.create(ws, chosen, run(day, day=day).run_id, data_id="x", folds=[], jobs={}, ledger={},
                                status="finished")
        record_evaluation(ws, session, *YEAR)
    tidy(ws, keep=1, delete=True)
    assert n_trials(ws, run(3, day=4), *YEAR)[0] == 3
