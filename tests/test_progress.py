"""What a person is told: never too much, never wider than a line, and how long it will still take."""

import math
import sys
import time
from dataclasses import asdict, replace
from unittest import mock

import pytest

from vnq_colab import errors, progress
from vnq_colab.clock import Clock
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Progress
from vnq_colab.progress import WIDTH, now, stage
from vnq_colab.training.jobs import new_row
from vnq_colab.training.process import Display, outcome
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import plan_jobs, train


@pytest.fixture
def session(tmp_path, panel, folds, config):
    """A run of which nothing has begun: 20 packs of three symbols' networks would be more than a line."""
    jobs = {job.name: new_row(job) for job in plan_jobs(panel, folds, config)}
    return Session(Workspace(tmp_path), "20261121T000000_abcdef", config, data_id=panel.data_id, jobs=jobs,
                   folds=[asdict(fold) for fold in folds], synthetic=True, skipped={"SYN009": "too short"},
                   ledger={symbol: {"state": "pending", "reason": ""} for symbol in config.symbols})


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


def test_time_left_is_that_of_the_family_for_its_size(session):
    """Of one fold and the final fit, which is half the work; a family of which no job is done is a guess."""
    assert session.work() == (0.0, math.inf, False)
    for name, seconds in (("trees_fold1", 30.0), ("global_fold1", 60.0)):
        assert session.work([], name, 0.5, seconds / 2)[2] is False
        session.jobs[name] |= {"state": "done", "seconds": seconds}
    local = [len(row["symbols"]) for name, row in session.jobs.items() if name.startswith("stockformer_fold1")]
    assert local == [2, 1]
    rest = (30 + 60) / 2 + 10 * local[1] / local[0] + 10 * sum(local) / local[0] / 2
    done, left, is_known = session.work([], "stockformer_fold1_pack00", 0.5, 5.0)
    assert is_known and done == 95 and left == pytest.approx(5 + rest)
    session.jobs["stockformer_fold1_pack00"] |= {"state": "done", "seconds": 10.0}
    assert session.work()[:2] == (100, pytest.approx(rest))
    assert f"3 of 8 jobs done, about {rest:.0f} s left: stockformer" in repr(session)
    session.jobs["trees_fold1"]["seconds"] = 900.0  # on another machine, before a resume
    slow = session.work(["global_fold1"], "trees_final", 0.5, 7.5)[1]
    assert slow == pytest.approx(rest - 15 + 7.5), "of trees_final itself, not of the machine before"


def test_end_says_what_was_done_and_what_failed(session):
    session.seconds["training"] = 100.0
    session.ledger["SYN001"] = {"state": "failed", "reason": "gradient not finite"}
    assert outcome(session) == "8 jobs done in 2 min, failed: SYN001"


@pytest.fixture
def said(monkeypatch, capsys):
    """What stands on stderr now; the line is due at once."""
    monkeypatch.setattr(progress, "PAUSE", 0)
    monkeypatch.setattr(progress, "SILENCE", 0)
    return lambda: capsys.readouterr().err


def test_line_names_the_things_and_stays_within_its_width(session, said):
    clock = Clock()
    shown = Display(session, clock)
    with stage("train"):
        for name in ("trees_fold1", "global_fold1"):
            finish(session, shown, name, 1.0)
        shown.start("stockformer_fold1_pack00")
        clock.mark("checkpoint")
        shown._skill, session.drive, _ = "validation skill 0.123", "Drive is 12 min behind", said()
        shown.step(at(0.5))
        line = said()
        for part in ("%, about ", " left · train · job 3/8 stockformer_fold1_pack00 · search, 20 trees · "
                     "validation skill 0.123 · saved 0 s ago · Drive is 12 min behind · ", " GB"):
            assert part in line
        shown.start("trees_final")
        assert "skill" not in said(), "of another job"
        session.drive = "Drive is behind " + "x" * 200
        shown.step(at(0.5))
        assert len(said().rstrip("\n")) == WIDTH


def test_silence_is_broken_and_lines_keep_their_distance(monkeypatch, capsys):
    for name, seconds in (("TICK", 0.05), ("PAUSE", 0.2), ("SILENCE", 0.5)):
        monkeypatch.setattr(progress, name, seconds)
    with stage("validate"):
        time.sleep(0.3)
        for text in ("scoring", "trading", "judging"):  # at once: one line for the three, and later the last
            now(text)
        time.sleep(1.3)
    said = capsys.readouterr()
    lines = [line.split(" · ")[:2] for line in said.err.splitlines()]
    assert lines[0] == ["validate", "scoring"] and 3 <= len(lines) <= 4 and said.out == ""
    assert all(line == ["validate", "judging"] for line in lines[1:])
    time.sleep(0.6)
    assert capsys.readouterr().err == "", "nothing is said once it is over"


def test_quiet_stage_shows_nothing_of_what_is_inside(said):
    with stage("weekly", quiet=True), stage("prepare"):
        now("reading prices")
    assert said() == ""


def test_terminal_has_one_line_with_a_bar_that_a_sentence_replaces(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with stage("train"):
        monkeypatch.setattr(progress, "TICK", 0)  # its thread has begun to wait a second
        now("job 1/8 trees_fold1", 0.25, "about 3 min left")
        bar, words = capsys.readouterr().err.rstrip().split("\r")[-1].rsplit("|", 1)
        assert bar == "|" + "█" * 6 + " " * 18 and words == " 25%, about 3 min left · train · job 1/8 trees_fold1"
        now("job 2/8", 0.5)
        assert "| 50% · train · job 2/8" in capsys.readouterr().err
        errors.tell("2/8 done")
        said = capsys.readouterr().err
        assert said.startswith("\r ") and said.endswith(" \r2/8 done\n"), "the line before is cleared"
    assert "job" not in capsys.readouterr().err


def test_notebook_has_a_bar_that_is_replaced_and_leaves_nothing(monkeypatch, said):
    shown = []
    shell = mock.Mock(kernel=1)
    shell.display_pub.publish = lambda data, **how: shown.append((data["text/html"], how))
    monkeypatch.setitem(sys.modules, "IPython", mock.Mock(get_ipython=lambda: shell))
    with stage("train"):
        monkeypatch.setattr(progress, "TICK", 0)
        now("job 1/8 <trees>", 0.25, "about 3 min left")
        now("job 2/8")
    texts, how = zip(*shown, strict=True)
    assert 'value="0.250"' in texts[0] and "<b>25%, about 3 min left</b> train · job 1/8 &lt;trees&gt;" in texts[0]
    assert "value" not in texts[1] and texts[2] == "" and said() == ""
    assert [one["update"] for one in how] == [False, True, True]
    assert len({one["transient"]["display_id"] for one in how}) == 1


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
