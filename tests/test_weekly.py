"""The week by one call: what it records, what it goes on with, what stops it, and what does not."""

import datetime as dt
import importlib
import json
import shutil
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from vnq_colab.__main__ import main
from vnq_colab.config import RunConfig
from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery import remote, weekly
from vnq_colab.delivery.bundle import load_bundle
from vnq_colab.delivery.week import Week, moment_after, usual_seconds, week_of, weeks
from vnq_colab.delivery.weekly import STEPS, Choices
from vnq_colab.errors import ConfigError, DataError, SessionError, StorageError
from vnq_colab.files import locked
from vnq_colab.layout import Workspace
from vnq_colab.training.trainer import train

PRICES = synthetic_prices(6, 800, seed=1)
CONFIG = RunConfig.for_machine("smoke", families=("trees",), folds=1)
SLOW = pytest.mark.slow
SUNDAYS = ("2025-12-21", "2025-12-28", "2026-01-04")
VIETNAM = ZoneInfo("Asia/Ho_Chi_Minh")


def week_file(ws, sunday, prices=PRICES):
    """The person's file of the last week before a Sunday."""
    ws.weekly_updates.mkdir(parents=True, exist_ok=True)
    days = np.datetime64(sunday) - prices["date"].to_numpy().astype("datetime64[D]")
    path = ws.weekly_updates / f"{sunday}.csv"
    prices[(days >= np.timedelta64(0)) & (days < np.timedelta64(7, "D"))].to_csv(path, index=False)
    return path


def do(ws, sunday=SUNDAYS[0], reading=None, **choices):
    return weekly.weekly(ws, CONFIG, Choices(**({"as_of": sunday, "collect": False} | choices)), reading=reading,
                         quiet=True)


@pytest.fixture(autouse=True)
def proven(monkeypatch):
    """The proof of no look-ahead takes as long as all the rest, and is not asked for here."""
    monkeypatch.setattr(weekly, "is_proven", lambda prepared: True)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """(workspace, record) after a whole week. Copy it, do not change it."""
    ws = Workspace(tmp_path_factory.mktemp("week") / "ws")
    ws.raw.mkdir(parents=True)
    PRICES[PRICES["date"] <= "2025-12-14"].to_csv(ws.raw / "history.csv", index=False)
    week_file(ws, SUNDAYS[0])
    return ws, do(ws)


@pytest.fixture
def ws(first, tmp_path):
    """A workspace in which the first week is done."""
    shutil.copytree(first[0].root, tmp_path / "ws")
    return Workspace(tmp_path / "ws")


@pytest.fixture
def stubs(ws, monkeypatch):
    """Steps that do nothing; `stubs(name, error)` makes one that fails."""
    for name in STEPS:
        if name != "notify":
            monkeypatch.setattr(weekly._Work, name, lambda self: ("well", {}))
    return lambda name, error: break_step(monkeypatch, name, error, weekly._Work)


def states(week):
    return {name: step["state"] for name, step in week.steps.items()}


def break_step(monkeypatch, name, error, module=weekly):
    def fail(*args, **named):
        raise error
    monkeypatch.setattr(module, name, fail)


# ------------------------------------------------------------------------------------------------------- the record
def test_week_records_every_step_and_ends_with_a_champion_that_forecasts(first):
    ws, week = first
    assert states(week) == dict.fromkeys(STEPS, "done") and week.state == "done" and week.week == "2025-W51"
    assert week.gave("champion") == load_bundle(ws).folder.name == week.gave("run_id")
    assert week.gave("data_id") and (ws.root / week.gave("files")[0]).exists()
    assert week.steps == Week.load(ws, "2025-W51").steps and [one.week for one in weeks(ws)] == ["2025-W51"]
    assert "week 2025-W51 (local" in repr(week) and "6 symbols to 2025-12-19" in repr(week)
    assert usual_seconds(ws, "2025-W52")["train"] == week.steps["train"]["seconds"] < 60


def test_week_without_prices_trains_on_none_that_are_made_up(tmp_path):
    week = do(Workspace(tmp_path))
    assert week.steps["prepare"]["state"] == "failed" and "no history is here" in week.text
    assert not (tmp_path / "data").exists()


def test_week_that_is_done_is_left_alone_and_says_so(ws, capsys, monkeypatch):
    break_step(monkeypatch, "prepare", AssertionError())
    before = {path: path.read_bytes() for path in ws.root.rglob("*") if path.is_file()}
    assert do(ws).state == "done" and "nothing to do" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in ws.root.rglob("*") if path.is_file()}


def test_weekly_files_give_the_same_data_as_one_history(ws, tmp_path):
    """Three Sundays, each with a file of its own, and a week whose file comes late."""
    week_file(ws, SUNDAYS[1])
    assert do(ws, SUNDAYS[1]).state == "done"
    week_file(ws, SUNDAYS[2])
    week = do(ws, SUNDAYS[2])
    whole = prepare(Workspace(tmp_path / "whole"), PRICES[PRICES["date"] <= SUNDAYS[2]])
    assert week.gave("data_id") == whole.panel.data_id
    assert len(list(ws.models.glob("2*"))) == 3 and [one.week for one in weeks(ws)] == [
        "2026-W01", "2025-W52", "2025-W51"]


# ------------------------------------------------------------------------------------------------------ what goes wrong
@pytest.mark.parametrize(("name", "error", "after"), [
    pytest.param("collect_prices", DataError("the site does not answer"), "collect", marks=SLOW),
    pytest.param("prepare", DataError("HPG: high < low"), "prepare", marks=SLOW),
    pytest.param("train", StorageError("the disk is full"), "train", marks=SLOW),
    pytest.param("validate", OSError("gone"), "validate", marks=SLOW),
    pytest.param("export_bundle", SessionError("jobs are missing"), "export", marks=SLOW)])
def test_step_that_fails_is_recorded_and_the_champion_stays_and_forecasts(ws, monkeypatch, name, error, after):
    champion = load_bundle(ws).folder
    week_file(ws, SUNDAYS[1])
    with monkeypatch.context() as patch:
        break_step(patch, name, error)
        week = do(ws, SUNDAYS[1], collect=name == "collect_prices")
    assert week.state == "failed" and str(error) in week.text and week.steps[after]["state"] == "failed"
    assert load_bundle(ws).folder == champion and week.steps["predict"]["state"] == "done"
    assert list(week.steps)[-2:] == ["predict", "notify"] and "deploy" not in week.steps
    again = do(ws, SUNDAYS[1])
    assert again.state == "done" and states(again) == dict.fromkeys(STEPS, "done")


def test_bad_week_file_exits_2_with_a_sentence_and_the_next_call_completes_the_week(ws, capsys, monkeypatch):
    monkeypatch.setenv("VNQ_PROFILE", "smoke")
    wrong = PRICES.rename(columns={"high": "low", "low": "high"})
    words = ["weekly", "--no-collect", "--as-of", SUNDAYS[1], "--families", "trees", "--root", str(ws.root)]
    week_file(ws, SUNDAYS[1], wrong)
    assert main(words) == 2
    said = capsys.readouterr()
    assert "failed: " in said.err and f"{SUNDAYS[1]}.csv" in said.err and "Traceback" not in said.err
    assert "prepare  failed" in said.out and "predict  done" in said.out
    week_file(ws, SUNDAYS[1])
    assert main([*words, "--json"]) == 0 and json.loads(capsys.readouterr().out)["state"] == "done"


@SLOW
def test_paused_training_is_gone_on_with(ws):
    week_file(ws, SUNDAYS[1])
    paused = do(ws, SUNDAYS[1], hours=0.0)
    assert paused.state == "paused" and "time is up" in paused.text and paused.steps["predict"]["state"] == "done"
    assert do(ws, SUNDAYS[1]).state == "done"


def test_person_is_told_what_became_of_the_week(ws, stubs, monkeypatch):
    sent = []
    monkeypatch.setattr(weekly, "notify", lambda urls, title, text: sent.append((title, text)) or [])
    with monkeypatch.context() as patch:
        break_step(patch, "export", DataError("no models"), weekly._Work)
        do(ws, SUNDAYS[1])
    do(ws, SUNDAYS[1])
    assert "failed" in sent[0][0] and "no models" in sent[0][1] and "2025-W52 done" in sent[1][0]


def test_step_is_done_again_after_one_before_it(ws, stubs, monkeypatch):
    """A forecast of the old champion is no forecast of the new one."""
    with monkeypatch.context() as patch:
        break_step(patch, "deploy", OSError("gone"), weekly._Work)
        before = do(ws, SUNDAYS[1])
    done = []
    monkeypatch.setattr(weekly._Work, "predict", lambda self: done.append(1) or ("again", {}))
    assert before.steps["predict"]["text"] == "well" and do(ws, SUNDAYS[1]).steps["predict"]["text"] == "again"


def test_second_process_is_refused_in_a_sentence(ws):
    with locked(ws.weeks / "weekly.lock"), pytest.raises(StorageError, match="another process"):
        do(ws, SUNDAYS[1])


def test_record_says_that_a_step_was_cut_short(ws, stubs, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_step(patch, "train", KeyboardInterrupt(), weekly._Work)
        do(ws, SUNDAYS[1])
    assert Week.load(ws, "2025-W52").state == "running"
    assert "begun twice" in do(ws, SUNDAYS[1]).steps["train"]["text"]


def test_damaged_record_begins_anew(ws, stubs, capsys):
    (ws.weeks / "2025-W51.json").write_text('{"week": "2025-W51"}')
    assert main(["status", "--root", str(ws.root)]) == 0 and "2025-W51.json: it has no seal" in capsys.readouterr().out
    assert do(ws).state == "done" and "begins anew" in capsys.readouterr().err


def test_status_shows_a_first_week_that_has_no_run_yet(tmp_path, capsys):
    Week(Workspace(tmp_path), "2026-W01", "local", None).put("collect", {
        "state": "running", "begun": "2026-01-04T02:00:00Z", "ended": None, "seconds": 0.0, "text": "", "gave": {}})
    assert main(["status", "--root", str(tmp_path)]) == 0
    assert "no run yet" in (said := capsys.readouterr().out) and "week 2026-W01 (local" in said


def test_week_with_failed_symbols_and_without_tidying_ends_with_4(ws, stubs, monkeypatch, capsys):
    monkeypatch.setattr(weekly._Work, "train", lambda self: ("2 jobs, 1 failed", {"failed": ["SYN001"]}))
    break_step(monkeypatch, "tidy", OSError("no such folder"), importlib.import_module("vnq_colab"))
    assert main(["weekly", "--no-collect", "--as-of", SUNDAYS[1], "--root", str(ws.root)]) == 4
    out, err = capsys.readouterr()
    assert "nothing is listed for tidying: no such folder" in out and err.endswith("1 failed: SYN001\n")


# ----------------------------------------------------------------------------------------------------------- deadlines
@pytest.mark.parametrize(("text", "start", "then"), [
    ("Mon 08:30", "2026-11-29 02:00", "2026-11-30 08:30"), ("Sun 01:00", "2026-11-29 02:00", "2026-12-06 01:00"),
    ("08:30", "2026-11-29 09:00", "2026-11-30 08:30"), ("2026-12-01 08:30", "2026-11-29 02:00", "2026-12-01 08:30")])
def test_deadline_is_the_next_such_moment_in_vietnam(text, start, then):
    moments = [dt.datetime.fromisoformat(one).replace(tzinfo=VIETNAM) for one in (start, then)]
    assert moment_after(text, f"{moments[0].astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}") == moments[1]


def test_deadline_that_is_none_is_refused_before_anything_is_done(ws):
    with pytest.raises(ConfigError, match="--until 'soon'.*2026-11-30 08:30"):
        do(ws, SUNDAYS[1], until="soon")
    assert not (ws.weeks / "2025-W52.json").exists()


def until(**later):
    return f"{dt.datetime.now(VIETNAM) + dt.timedelta(**later):%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(("minutes", "not_begun"), [(10, "collect"), (60, None)])
def test_what_cannot_be_done_by_the_deadline_is_not_begun(ws, stubs, monkeypatch, minutes, not_begun):
    """By what earlier weeks took: half an hour in all, but for training, which pauses."""
    monkeypatch.setattr(weekly, "usual_seconds", lambda ws, but: STEPS | {"train": 1e9})
    week = do(ws, SUNDAYS[1], until=until(minutes=minutes))
    found = [name for name, step in week.steps.items() if "not begun" in step["text"]]
    assert found == ([not_begun] if not_begun else []) and week.state == ("paused" if not_begun else "done")
    assert week.steps["predict"]["state"] == "done" and ("the champion stays" in week.text or not not_begun)


def test_deadline_that_is_over_is_said(ws, stubs):
    assert "not begun: Wed 2020-01-01 08:30 is over" in do(ws, SUNDAYS[1], until="2020-01-01 08:30").text


def test_training_gets_the_hours_that_the_deadline_leaves(ws, stubs, monkeypatch):
    given = []
    monkeypatch.setattr(weekly._Work, "train", lambda self: given.append(self._left_for("train")) or ("well", {}))
    assert do(ws, SUNDAYS[1], until=until(hours=1)).state == "done" and 3400 < given[0] < 3600


def test_monday_before_the_opening_belongs_to_the_week_before():
    assert week_of("2025-04-06") == "2025-W14" and week_of("2025-12-29") == "2026-W01"


# ----------------------------------------------------------------------------------------------------------- elsewhere
@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.1)


@SLOW
def test_drive_that_is_gone_from_the_start_fails_the_week_or_it_is_trained_here(ws, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # where no rclone is
    week_file(ws, SUNDAYS[1])
    assert "sudo apt install rclone" in do(ws, SUNDAYS[1], where="drive", remote="google:x").text
    assert do(ws, SUNDAYS[1], where="drive", remote="google:x", fallback="local").state == "done"


def test_drive_week_takes_the_run_that_was_trained_there(ws, quick):
    week_file(ws, SUNDAYS[1])
    there = prepare(ws, None, as_of=SUNDAYS[1])
    run = train(ws, there.panel, RunConfig.for_machine("smoke", families=("trees",), seed=7), quiet=True)
    week = do(ws, SUNDAYS[1], where="drive")
    assert week.state == "done" and week.gave("run_id") == run.run_id


@SLOW
def test_silent_drive_pauses_the_week_and_with_a_fallback_the_missing_jobs_are_trained_here(ws, quick):
    week_file(ws, SUNDAYS[1])
    there = prepare(ws, None, as_of=SUNDAYS[1])
    run = train(ws, there.panel, RunConfig.for_machine("smoke", families=("trees",), seed=7), hours=0.0, quiet=True)
    waits = do(ws, SUNDAYS[1], where="drive", hours=0.0001)
    assert waits.state == "paused" and "--fallback local" in waits.text
    week = do(ws, SUNDAYS[1], where="drive", fallback="local", patience=0.3)
    assert week.state == "done" and week.gave("run_id") == run.run_id and "Trained here" in week.steps["train"]["text"]


@SLOW
def test_colab_that_fails_fails_the_week_or_it_is_trained_here(ws, monkeypatch):
    week_file(ws, SUNDAYS[1])
    break_step(monkeypatch, "train_on_colab", SessionError("Colab was silent"), remote)
    failed = do(ws, SUNDAYS[1], where="colab")
    assert failed.state == "failed" and "Colab was silent" in failed.text
    assert do(ws, SUNDAYS[1], where="colab", fallback="local").state == "done"
