import os
import threading

import psutil
import pytest

from vnq_colab.config import RunConfig
from vnq_colab.errors import SessionError, TakenOverError
from vnq_colab.files import write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Job
from vnq_colab.training import ownership
from vnq_colab.training.jobs import new_row
from vnq_colab.training.ownership import find_case, loss_and_rest, machine_facts
from vnq_colab.training.runs import new_run_id
from vnq_colab.training.session import Session


@pytest.fixture
def session(tmp_path):
    ws = Workspace(tmp_path)
    jobs = {job.name: new_row(job) for job in (Job("trees", fold, symbols=("FPT",)) for fold in (0, 1, None))}
    session = Session.create(ws, RunConfig(), new_run_id(ws, RunConfig()), data_id="71c0", folds=[], jobs=jobs,
                            ledger={symbol: {"state": "pending", "reason": ""} for symbol in ("FPT", "HPG", "VCB")})
    session.machine = machine_facts() | {"pid": 2**22 + 1, "pid_started": 0.0}  # nobody has such a number
    session.begin_attempt()
    return session


@pytest.fixture
def elsewhere(session, monkeypatch):
    monkeypatch.setattr(ownership, "LOOK_SECONDS", 0.01)
    session.machine["node"] = "other-machine"
    session.heartbeat_seconds = 0.1
    session.save()
    return session


def test_pause_is_told_with_its_reason(session):
    session.end_attempt("paused", "time is up")
    assert "ago: time is up" in find_case(session)
    assert loss_and_rest(session) == "nothing is lost; left: 3 of 3 jobs"


def test_process_that_died_here_is_recognised_at_once(session):
    assert "without a word" in find_case(session)


def test_loss_counts_from_the_last_checkpoint_of_a_job_in_flight(session):
    session.attempts[-1]["started"] = "2026-11-21T10:00:00Z"
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
        find_case(session)
    find_case(session, take_over=True)


def test_silent_machine_elsewhere_gives_way_after_two_heartbeats(elsewhere, capsys):
    assert "other-machine) is silent" in find_case(elsewhere)
    assert "Watching for 0 s" in capsys.readouterr().err


def test_moving_machine_elsewhere_is_refused(elsewhere):
    other = Session.load(elsewhere.ws, elsewhere.run_id)
    beats = threading.Timer(0.05, other.save)
    beats.start()
    with pytest.raises(SessionError, match="has just given a sign of life"):
        find_case(elsewhere)
    beats.join()


def test_taking_over_does_not_wait(elsewhere, capsys):
    assert "taken over from another machine" in find_case(elsewhere, take_over=True)
    assert "Watching" not in capsys.readouterr().err


def test_owner_that_was_taken_over_writes_nothing_more(session):
    other = Session.load(session.ws, session.run_id)
    other.begin_attempt()
    before = (session.folder / "session.json").read_bytes()
    with pytest.raises(TakenOverError, match="was taken over"):
        session.save()
    assert (session.folder / "session.json").read_bytes() == before


@pytest.mark.parametrize("damage", [
    lambda text: text[:-40], lambda text: text.replace("\"FPT\"", "\"FPX\""),
    lambda text: text.replace("running", "runninh"),
    lambda text: "[]", lambda text: "",
])
def test_damaged_session_gives_way_to_the_copy_in_the_newest_manifest(session, damage, capsys):
    for name, sequence in (("manifest_a.json", 1), ("manifest_b.json", 2)):
        value = session.to_dict() | {"why": name, "sequence": sequence}
        write_sealed(session.folder / name, {"format": 2, "session": value})
    path = session.folder / "session.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert Session.load(session.ws, session.run_id).why == "manifest_b.json"
    said = capsys.readouterr().err
    assert "session.json" in said and "Its copy in" in said and "manifest_b.json is used instead" in said


def test_damaged_session_without_any_manifest_is_refused(session):
    path = session.folder / "session.json"
    path.write_text(path.read_text(encoding="utf-8").replace("FPT", "FPX"), encoding="utf-8")
    with pytest.raises(SessionError, match="does not match its own sha256"):
        Session.load(session.ws, session.run_id)


def test_folder_of_another_name_is_refused(session):
    session.folder.rename(session.folder.with_name("20200101T000000_abcdef"))
    with pytest.raises(SessionError, match="folder of another name"):
        Session.load(session.ws, "20200101T000000_abcdef")
