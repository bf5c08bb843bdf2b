"""What a person is told: never too much, never wider than a line, and how long it will still take."""

import time
from dataclasses import replace

import pytest

from vnq_colab.clock import Clock
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Progress
from vnq_colab.training import process
from vnq_colab.training.jobs import new_row
from vnq_colab.training.process import WIDTH, Display, outcome
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import plan_jobs, train


@pytest.fixture
def session(tmp_path, panel, folds, config):
    """A run of which nothing has begun: 20 packs of three symbols' networks would be more than a line."""
    jobs = {job.name: new_row(job) for job in plan_jobs(panel, folds, config)}
    return Session(Workspace(tmp_path), "20261121T000000_abcdef", config, data_id=panel.data_id, jobs=jobs,
                   folds=[fold.to_dict() for fold in folds], synthetic=True, skipped={"SYN009": "too short"},
                   ledger={symbol: {"state": "pending", "reason": ""} for symbol in config.symbols})


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    seconds = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    return seconds


def at(share, **measured):
    return Progress(share, "search, 20 trees", measured)


def test_first_lines_say_what_is_trained_on_what(session, capsys):
    Display(session, Clock())
    said = capsys.readouterr().err.splitlines()
    assert "stockformer, global, trees for 3 symbols, 1 folds and the final fit, 8 jobs. SYNTHETIC" in said[0]
    assert said[1] == "skipped 1: SYN009 (too short)"


def finish(session, shown, name, seconds):
    session.jobs[name] |= {"state": "done", "seconds": seconds}
    shown.finish(name)


def test_time_left_is_that_of_the_whole_run_at_the_speed_so_far(session, now):
    """Eight jobs; what was done before a resume says nothing of this attempt's speed."""
    shown = Display(session, Clock(), quiet=True)
    shown.start("trees_fold1")
    now[0] += 30
    assert " · 03:30 left · " in shown.line(at(1.0))
    finish(session, shown, "trees_fold1", 30.0)
    finish(session, shown, "global_fold1", 30.0)
    resumed = Display(session, Clock(), quiet=True)
    resumed.start("stockformer_fold1_pack00")
    assert " · ? left · " in resumed.line(at(0.0))
    now[0] += 60
    assert resumed.line(at(0.5)).startswith("job 3/8 stockformer_fold1_pack00 · search, 20 trees · 11:00 left · ")


def test_end_says_what_was_done_and_what_failed(session):
    session.seconds["training"] = 100.0
    session.ledger["SYN001"] = {"state": "failed", "reason": "gradient not finite"}
    assert outcome(session) == "8 jobs done in 2 min, failed: SYN001"


def test_line_names_the_things_and_stays_within_its_width(session, capsys, monkeypatch):
    monkeypatch.setattr(process, "PLAIN_SECONDS", 0)
    clock = Clock()
    shown = Display(session, clock)
    for name in ("trees_fold1", "global_fold1"):
        finish(session, shown, name, 1.0)
    shown.start("stockformer_fold1_pack00")
    shown.step(at(0.5, skill=0.123))
    clock.mark("checkpoint")
    session.drive = "Drive is 12 min behind"
    line = shown.line(at(0.5))
    for part in ("job 3/8 stockformer_fold1_pack00", "search, 20 trees", " left",
                 "skill on validation days 0.123", "saved 0 s ago", "Drive is 12 min behind", "GB"):
        assert part in line
    shown.start("trees_final")
    assert "skill" not in shown.line(at(0.0)), "of another job"
    capsys.readouterr()
    session.drive = "Drive is behind " + "x" * 200
    shown.step(at(0.5))
    assert len(capsys.readouterr().err.rstrip("\n")) == WIDTH


def test_plain_output_is_one_line_in_an_interval_on_stderr(session, capsys, monkeypatch):
    monkeypatch.setattr(process, "PLAIN_SECONDS", 0.3)
    shown = Display(session, Clock())
    shown.start("trees_fold1")
    capsys.readouterr()
    started, steps = time.monotonic(), 0
    while time.monotonic() - started < 1:
        shown.step(at(0.5))
        steps += 1
    said = capsys.readouterr()
    assert steps > 100 and 2 <= len(said.err.splitlines()) <= 4 and said.out == ""


def test_output_that_nobody_reads_does_not_stop_training(tmp_path, panel, config, monkeypatch):
    """As when the output goes to a pipe whose reader has ended."""
    class Closed:
        def isatty(self):
            return False

        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

        flush = write

    monkeypatch.setattr("sys.stderr", Closed())
    assert train(Workspace(tmp_path), panel, replace(config, families=("trees",))).status == "finished"
