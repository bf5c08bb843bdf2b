import os
import platform
import threading

import psutil
import pytest

from vnq_colab.config import RunConfig
from vnq_colab.errors import SessionError, TakenOverError
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Job
from vnq_colab.training import trainer
from vnq_colab.training.jobs import new_row, open_store
from vnq_colab.training.session import Session, new_run_id
from vnq_colab.training.trainer import how_it_ended, loss_and_rest

FOLD = {"train": {"first": "2020-01-02", "last": "2022-12-20"}, "valid": {"first": "2023-01-03", "last": "2023-12-20"},
        "test": {"first": "2024-01-02", "last": "2024-12-31"}, "purge_days": 6}


@pytest.fixture
def session(tmp_path):
    ws = Workspace(tmp_path)
    jobs = {job.name: new_row(job) for job in (Job("trees", fold, symbols=("FPT",)) for fold in (0, 1, None))}
    session = Session(ws, new_run_id(ws, RunConfig()), RunConfig(), data_id="71c0", folds=[FOLD] * 2, jobs=jobs,
                      ledger={symbol: {"state": "pending", "reason": ""} for symbol in ("FPT", "HPG", "VCB")})
    session.machine = {"node": platform.node(), "pid": 2**22 + 1, "pid_started": 0.0}  # nobody has such a number
    session.begin_attempt()
    return session


@pytest.fixture
def elsewhere(session, monkeypatch):
    monkeypatch.setattr(trainer, "WATCH_SECONDS", 0.01)
    session.machine["node"] = "other-machine"
    session.heartbeat_seconds = 0.1
    session.save()
    return session


def test_pause_is_told_with_its_reason(session):
    session.end_attempt("paused", "time is up")
    assert "ago: time is up" in how_it_ended(session)
    assert loss_and_rest(session) == "nothing is lost; left: 3 of 3 jobs"


def test_process_that_died_here_is_recognised_at_once(session):
    assert "without a word" in how_it_ended(session)


def test_status_knows_a_dead_process_of_this_machine_at_once(session):
    assert session.is_alive() is False and repr(session).startswith(f"run {session.run_id}: interrupted (its process")
    assert "resume" in repr(session) and "sign of life" not in repr(session)
    with pytest.raises(SessionError, match="is interrupted: 3 of 3 jobs"):
        open_store(session)
    session.machine |= {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}
    assert session.is_alive() is True and repr(session).startswith(f"run {session.run_id}: running\n")
    for elsewhere in ({}, session.machine | {"node": "other-machine"}):  # only its signs of life can say
        session.machine = elsewhere
        assert session.is_alive() is None and "last sign of life" in repr(session)


def test_loss_counts_from_the_last_checkpoint_of_a_job_in_flight(session):
    session.attempts[-1]["started"], session.heartbeat_seconds = "2026-11-21T10:00:00Z", 20.0
    session.heartbeat = "2026-11-21T10:30:00Z"
    assert "at most 30 min of training, since the last checkpoint" in loss_and_rest(session)
    session.checkpoint = {"job": "trees_fold1", "written": "2026-11-21T10:29:00Z"}
    session.jobs["trees_fold2"]["state"], session.seconds["training"] = "done", 120.0
    assert "at most 80 s of training" in loss_and_rest(session)  # and 20 s to the heartbeat that did not come
    assert "left: 2 of 3 jobs, about 4 min" in loss_and_rest(session)
    session.checkpoint["job"] = "trees_fold2"  # which is done: the job in flight begins anew
    assert "at most 30 min" in loss_and_rest(session)


def test_living_process_of_this_machine_is_refused_unless_taken_over(session):
    parent = psutil.Process(os.getppid())
    session.machine |= {"pid": parent.pid, "pid_started": parent.create_time()}
    with pytest.raises(SessionError, match="another process of this machine"):
        how_it_ended(session)
    how_it_ended(session, take_over=True)
    session.machine["pid_started"] -= 100  # that process is gone, its number was given to another one
    assert "without a word" in how_it_ended(session)


def test_silent_machine_elsewhere_gives_way_after_two_heartbeats(elsewhere, capsys):
    assert "other-machine) is silent" in how_it_ended(elsewhere)
    assert "Watching for 0 s" in capsys.readouterr().err


@pytest.mark.parametrize("sign", ["save", "beat"])
def test_moving_machine_elsewhere_is_refused(elsewhere, sign):
    other = Session.load(elsewhere.ws, elsewhere.run_id)
    elsewhere.heartbeat_seconds = 5.0  # the sign is seen as soon as it is given, also by a busy machine
    beats = threading.Timer(0.05, getattr(other, sign))
    beats.start()
    with pytest.raises(SessionError, match="by another machine: .* has just changed"):
        how_it_ended(elsewhere)
    beats.join()


def test_taking_over_does_not_wait(elsewhere, capsys):
    assert "taken over from another machine" in how_it_ended(elsewhere, take_over=True)
    assert "Watching" not in capsys.readouterr().err


def test_owner_that_was_taken_over_writes_nothing_more(session):
    other = Session.load(session.ws, session.run_id)
    other.begin_attempt()
    names = ("session.json", "session_copy.json", "heartbeat.json")
    before = [(session.folder / name).read_bytes() for name in names]
    for write in (session.save, session.beat):
        with pytest.raises(TakenOverError, match="was taken over"):
            write()
    assert [(session.folder / name).read_bytes() for name in names] == before


def test_token_is_above_every_heartbeat_that_was_seen(session):
    """Drive may have kept the heartbeat of an attempt and lost the session that spoke of it."""
    write_sealed(session.folder / "heartbeat.json", read_sealed(session.folder / "heartbeat.json") | {
        "token": 7, "owner": "lost", "sequence": 1})
    again = Session.load(session.ws, session.run_id)
    again.begin_attempt()
    assert read_sealed(session.folder / "heartbeat.json")["token"] == again.token == 8 and len(again.attempts) == 2


def test_newest_sign_of_life_is_that_of_the_heartbeat(session):
    session.drive = "Drive is 12 min behind"
    session.beat()
    again = Session.load(session.ws, session.run_id)
    assert again.drive == session.drive and again.heartbeat == session.heartbeat


@pytest.mark.parametrize("damage", [
    lambda text: text[:-40], lambda text: text.replace("\"FPT\"", "\"FPX\""),
    lambda text: text.replace("running", "runninh"),
    lambda text: "[]", lambda text: "",
])
@pytest.mark.parametrize("name, other", [("session.json", "session_copy.json"), ("session_copy.json", "session.json")])
def test_damaged_session_gives_way_to_its_copy(session, damage, name, other, capsys):
    path = session.folder / name
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert Session.load(session.ws, session.run_id).to_dict() == session.to_dict()
    said = capsys.readouterr().err
    assert f"{path}: " in said and "Its copy in" in said and f"{other} is used instead" in said


def test_session_that_is_damaged_with_its_copy_is_refused(session):
    for name in ("session.json", "session_copy.json"):
        path = session.folder / name
        path.write_text(path.read_text(encoding="utf-8").replace("FPT", "FPX"), encoding="utf-8")
    with pytest.raises(SessionError, match="does not match its own sha256"):
        Session.load(session.ws, session.run_id)


def test_folder_of_another_name_is_refused(session):
    session.folder.rename(session.folder.with_name("20200101T000000_abcdef"))
    with pytest.raises(SessionError, match="folder of another name"):
        Session.load(session.ws, "20200101T000000_abcdef")
