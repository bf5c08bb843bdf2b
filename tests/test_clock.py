import time

import pytest

from vnq_colab.clock import Clock, machine_age_hours, spell


@pytest.mark.parametrize("seconds, words", [(42, "42 s"), (420, "7 min"), (11_100, "3 h 05 min")])
def test_spell_says_as_much_as_a_person_wants(seconds, words):
    assert spell(seconds) == words


def test_due_is_true_once_per_interval():
    clock = Clock()
    assert not clock.due("line", seconds=0.05)
    time.sleep(0.06)
    assert clock.due("line", seconds=0.05)
    assert not clock.due("line", seconds=0.05)


def test_mark_says_when_something_happened():
    clock = Clock()
    assert clock.since("checkpoint") is None
    clock.mark("checkpoint")
    assert clock.since("checkpoint") < 1
    assert not clock.due("checkpoint", seconds=60)


def test_time_is_up_a_margin_before_the_deadline():
    assert not Clock(hours=1).is_up(margin_seconds=60)
    assert Clock(hours=1).is_up(margin_seconds=3601)
    assert not Clock().is_up(margin_seconds=1e9)


def test_seconds_are_added_to_what_was_spent_before():
    clock = Clock(spent={"training": 100.0})
    with clock.spend("training"):
        time.sleep(0.02)
    assert 100.02 <= clock.seconds["training"] < 101
    clock.move("training", "evaluation", 40.0)
    assert clock.seconds["evaluation"] == 40.0


def test_machine_age_is_positive_where_it_is_known():
    age = machine_age_hours()
    assert age is None or age > 0


def test_what_was_spent_on_nothing_is_idle():
    clock = Clock(spent={"training": 50.0, "idle": 5.0})
    with clock.spend("training"):
        time.sleep(0.02)
    time.sleep(0.05)
    clock.settle()
    assert 5.05 <= clock.seconds["idle"] < 5.5
