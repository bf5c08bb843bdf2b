"""What a person is told: never too much, never wider than a line, and an estimate that becomes better."""

import itertools
import time
from dataclasses import replace

import pytest

from vnq_colab.clock import Clock
from vnq_colab.data.splits import DayRange
from vnq_colab.layout import Workspace
from vnq_colab.models.base import family_module
from vnq_colab.training import process, progress
from vnq_colab.training.packs import compose_packs
from vnq_colab.training.progress import WIDTH, Progress, Speed, TimeLeft
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import train


@pytest.fixture
def session(tmp_path, panel, splits, config):
    """A run of three packs, of which nothing has begun."""
    symbols = ("SYN001", "SYN002", "SYN003", "SYN004", "SYN005", "SYN006")
    config = replace(config, symbols=symbols, train=replace(config.train, epochs=12, patience=2, learning_rate=0.02))
    days = {"train": [splits.train.first, splits.train.last], "valid": [splits.valid.first, splits.valid.last],
            "splits": splits.to_dict()}
    return Session.create(Workspace(tmp_path), config, "20261121T000000_stockformer_abcdef",
                         data_id=panel.data_id, days=days,
                         packs=compose_packs(panel, splits.train, config, list(symbols)),
                         ledger={symbol: {"state": "pending", "reason": ""} for symbol in symbols})


def learner_of(session, panel, number):
    valid = session.days["valid"]
    epochs_of = session.epochs_of and {(symbol, member): epochs for symbol in session.packs[number]["symbols"]
                                       for member, epochs in enumerate(session.epochs_of[symbol])}
    return family_module("stockformer").make_learner(
        panel.select(session.packs[number]["symbols"]), DayRange(*session.days["train"]),
        None if epochs_of else DayRange(*valid), session.config, pack=number, epochs_of=epochs_of)


def estimates_of(session, panel):
    """For each step: the words, the labels expected to be left, and those that were seen from there on."""
    time_left, said = TimeLeft(session, panel), []
    for number, pack in enumerate(session.packs):
        learner = learner_of(session, panel, number)
        while not learner.finished:
            measured = learner.step()
            time_left.count(measured)
            time.sleep(0.001)
            words, expected = time_left.words(number, learner), time_left.steps_and_labels(number, learner)[1]
            said.append((words, expected, measured["labels"], number))
        time_left.learn(learner.history)
        pack["done"] = "a file"
    seen = [labels for _, _, labels, _ in said]
    return [(words, expected, sum(seen[at + 1:]), pack) for at, (words, expected, _, pack) in enumerate(said)]


def test_time_left_is_an_upper_bound_first_and_then_an_estimate_that_becomes_better(session, panel):
    estimates = estimates_of(session, panel)
    first, later = ([row for row in estimates[1:] if (row[3] == 0) is is_first] for is_first in (True, False))
    assert all(words.startswith("at most") for words, *_ in first)
    assert all(expected >= 0.98 * left for _, expected, left, _ in first)
    assert all(words.startswith("about") for words, *_ in later)
    total = estimates[0][2]
    wrong = [abs(expected - left) / total for _, expected, left, _ in estimates]
    halves = [max(wrong[at] for at, row in enumerate(estimates) if row[3] == pack) for pack in range(3)]
    assert halves[1] < 0.35 and halves[2] < 0.2 and halves[0] > halves[1] > halves[2]
    assert wrong[-1] < 0.01


def test_time_left_never_jumps_up_within_a_pack_before_any_has_finished(session, panel):
    expected = [labels for _, labels, _, pack in estimates_of(session, panel) if pack == 0]
    assert all(later <= before * 1.001 for before, later in itertools.pairwise(expected))


def test_time_left_of_a_refit_is_known_from_the_start(session, panel):
    session.epochs_of = {symbol: [1, 4] for symbol in session.ledger}
    for words, expected, left, _ in estimates_of(session, panel)[1:]:
        assert words.startswith("about")
        assert abs(expected - left) <= 0.07 * expected + 500, "but for the days without enough context"


@pytest.mark.parametrize("per_step, per_label", [(0.5, 0.0), (0.0, 1e-3), (0.2, 5e-4)])
def test_speed_tells_the_cost_of_a_step_from_that_of_its_labels(monkeypatch, per_step, per_label):
    """Also after most networks have left, as at the end of a pack, it knows what a full pack costs."""
    now, speed = [0.0], Speed()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for labels in (2000, 2000, 2000, 1900, 1500, 700, 240, 240, 240):
        now[0] += per_step + per_label * labels
        speed.count(labels)
    assert speed.seconds(10, 20_000) == pytest.approx(10 * per_step + 20_000 * per_label, rel=1e-3)
    assert speed.seconds(0, 0) == 0


def test_speed_of_equal_steps_is_their_mean(monkeypatch):
    now, speed = [0.0], Speed()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert speed.seconds(1, 1) is None
    for _ in range(5):
        now[0] += 0.25
        speed.count(1000)
    assert speed.seconds(8, 8000) == pytest.approx(2) and speed.labels_per_second == pytest.approx(4000)


def test_resumed_run_knows_how_long_the_finished_packs_took(tmp_path, panel, splits, config):
    session = train(Workspace(tmp_path), panel, splits, config, quiet=True)
    again = TimeLeft(Session.load(session.ws, session.run_id), panel)
    assert sorted(again._lengths) == sorted(session.history.groupby(["symbol", "member"])["epoch"].max())


def test_line_names_the_things_and_stays_within_its_width(session, panel):
    clock = Clock()
    shown, learner = Progress(session, panel, clock, quiet=True), learner_of(session, panel, 0)
    while learner.epoch == 0:
        time.sleep(0.001)
        shown.step(learner.step(), learner)
    clock.mark("checkpoint")
    line = shown.line(0, learner)
    for part in ("pack 1/3", "epoch 2", "2 learning, 0/6 symbols done", "at most", "left", "(no skill 0.", "labels/s",
                 "saved 0 s ago", "GB"):
        assert part in line
    assert len(line) <= WIDTH
    session.ledger |= {f"S{number:06d}": {"state": "done", "reason": ""} for number in range(100_000)}
    learner.epoch, shown._losses = 10**9, (0, "validation " + "1" * 60)
    assert len(shown.line(0, learner)) <= WIDTH


def test_plain_output_is_one_line_in_an_interval_on_stderr(session, panel, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.3)
    shown, learner = Progress(session, panel, Clock()), learner_of(session, panel, 0)
    shown.begin([])
    capsys.readouterr()
    measured, started, steps = learner.step(), time.monotonic(), 0
    while time.monotonic() - started < 1:
        shown.step(measured, learner)
        steps += 1
    said = capsys.readouterr()
    assert steps > 100 and 2 <= len(said.err.splitlines()) <= 4 and said.out == ""


def test_full_memory_is_said_once(session, panel, capsys, monkeypatch):
    monkeypatch.setattr(progress, "MEMORY_SECONDS", 0)
    shown, learner = Progress(session, panel, Clock()), learner_of(session, panel, 0)
    measured = learner.step()
    monkeypatch.setattr(process, "FULL_PERCENT", 100)
    shown.step(measured, learner)
    assert "careful" not in capsys.readouterr().err
    monkeypatch.setattr(process, "FULL_PERCENT", 0)
    for _ in range(5):
        shown.step(measured, learner)
    said = capsys.readouterr().err
    assert said.count("careful: ") == 1 and "by this process" in said and "machine.pack_models" in said


def test_output_that_nobody_reads_does_not_stop_training(tmp_path, panel, splits, config, monkeypatch):
    """As when the output goes to a pipe whose reader has ended."""
    class Closed:
        def isatty(self):
            return False

        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

        flush = write

    monkeypatch.setattr("sys.stderr", Closed())
    from vnq_colab.training.trainer import train

    assert train(Workspace(tmp_path), panel, splits, config).status == "finished"
