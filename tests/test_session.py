import os

import pytest

from vnq_colab.config import RunConfig
from vnq_colab.errors import SessionError
from vnq_colab.files import read_json, read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Job
from vnq_colab.training.jobs import new_row
from vnq_colab.training.session import RUN_ID, Session, latest_session, new_run_id, run_names, sessions, status

JOBS = (Job("trees", 0, symbols=("FPT", "HPG")), Job("stockformer", 0, 0, ("FPT", "HPG"), ("trees_fold1",)),
        Job("trees", None, symbols=("FPT", "HPG"), needs=("trees_fold1",)))
FOLD = {"train": {"first": "2020-01-02", "last": "2022-12-20"}, "valid": {"first": "2023-01-03", "last": "2023-12-20"},
        "test": {"first": "2024-01-02", "last": "2024-12-31"}, "purge_days": 6}


@pytest.fixture
def session(tmp_path):
    ws = Workspace(tmp_path)
    session = Session(
        ws, new_run_id(ws, RunConfig()), RunConfig(), data_id="71c0",
        folds=[FOLD], jobs={job.name: new_row(job) for job in JOBS},
        ledger={"FPT": {"state": "done", "reason": ""}, "HPG": {"state": "failed", "reason": "gradient not finite"}},
        skipped={"VNM": "too short"},
    )
    session.save()
    return session


def test_session_survives_its_file(session):
    session.begin_attempt()
    session.end_attempt("paused", "time is up")
    again = Session.load(session.ws, session.run_id)
    assert again.to_dict() == session.to_dict()
    assert again.attempts[0]["why"] == "time is up" and len(again.owner) == 16


def test_reason_of_a_pause_that_is_a_sentence_ends_once(session):
    session.begin_attempt()
    session.end_attempt("paused", "the disk is full. Choose another folder with --root.")
    assert session.why.endswith("--root") and "--root)" in repr(session)


def test_session_file_has_the_documented_fields(session):
    fields = {"format", "run_id", "status", "why", "config", "config_id", "data_id", "code_version", "machine", "folds",
              "started", "heartbeat", "owner", "seconds", "jobs", "part", "ledger", "attempts"}
    assert fields <= set(read_json(session.folder / "session.json"))
    assert set(session.seconds) == {"training", "evaluation", "checkpoint", "idle"}


def test_name_says_date_and_config(session):
    assert RUN_ID.fullmatch(session.run_id)
    assert session.run_id[8] == "T" and session.run_id[15:] == f"_{session.config.config_id[:6]}"


def test_job_is_named_by_family_fold_and_pack(session):
    assert list(session.jobs) == ["trees_fold1", "stockformer_fold1_pack00", "trees_final"] == session.unfinished_jobs()
    session.jobs["trees_fold1"]["state"], session.jobs["trees_final"]["state"] = "done", "failed"
    assert session.unfinished_jobs() == ["stockformer_fold1_pack00"]
    assert session.jobs_table()["fold"].tolist() == ["1", "1", "final"]


def test_two_runs_of_one_second_have_two_names(session):
    assert new_run_id(session.ws, RunConfig()) != session.run_id


def test_repr_says_what_a_person_wants_to_know(session):
    text = repr(session)
    assert "0 of 3 jobs done: stockformer, global, trees over 1 folds and the final fit; 2 symbols, 1 failed" in text
    assert "HPG (gradient not finite)" in text and "VNM (too short)" in text


def test_latest_is_found_by_the_beginning_of_its_name(session):
    assert latest_session(session.ws).run_id == session.run_id
    assert latest_session(session.ws, session.run_id[:20]).run_id == session.run_id
    with pytest.raises(SessionError, match="there is no run '1999'"):
        latest_session(session.ws, "1999")


def test_workspace_without_runs_says_how_to_start(tmp_path):
    with pytest.raises(SessionError, match="Start one with train"):
        status(Workspace(tmp_path))


@pytest.mark.parametrize("change, message", [
    (lambda value: value | {"format": 99}, "newer version"),
    (lambda value: value | {"format": 1}, "a run of the first version.* Train anew with"),
    (lambda value: {name: part for name, part in value.items() if name != "ledger"}, "not a session"),
    (lambda value: value | {"mood": "good"}, "not a session"),
    (lambda value: value | {"config": value["config"] | {"seed": 7}}, "not the one that the run began with"),
])
def test_foreign_session_is_refused_named_and_left_alone(session, change, message, capsys):
    path = session.folder / "session.json"
    write_sealed(path, change(read_sealed(path)))
    before = path.read_bytes()
    with pytest.raises(SessionError, match=message):
        Session.load(session.ws, session.run_id)
    assert sessions(session.ws) == [] and path.read_bytes() == before
    assert "passed over" in capsys.readouterr().err


def test_status_shows_what_runs_else_the_newest_run(session):
    newer = Session(session.ws, f"{session.run_id}-part1of2", session.config, data_id="x", folds=session.folds,
                    jobs=session.jobs, ledger=session.ledger, status="finished")
    newer.save()
    assert status(session.ws).run_id == session.run_id and "last sign of life" in repr(session)
    session.status = "finished"
    session.save()
    assert status(session.ws).run_id == newer.run_id


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_foreign_history_is_no_history(session, text):
    session.add_history("trees_fold1", [("*", 0, 10, 0.5, 0.06)])
    (session.ws.log_folder(session.run_id) / "history.csv").write_text(text)
    assert session.history.empty


def test_history_of_a_job_replaces_its_older_one(session):
    session.add_history("trees_fold1", [("*", 0, 10, 0.5, 0.06)])
    session.add_history("global_fold1", [("*", 0, 1, 0.1, 0.02)])
    session.add_history("trees_fold1", [("*", 0, 10, 0.9, float("nan"))])
    history = session.history
    assert len(history) == 2 and history.set_index("job")["train_loss"].to_dict() == {
        "global_fold1": 0.1, "trees_fold1": 0.9}


def test_what_is_named_like_a_run_and_is_none_is_not_one(session, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    stray = session.ws.checkpoints / "20990101T000000_aaaaaa"
    for make in (stray.mkdir, stray.touch, lambda: os.mkfifo(stray), lambda: stray.symlink_to(session.folder)):
        make()
        assert run_names(session.ws) == [session.run_id]
        stray.rmdir() if stray.is_dir() and not stray.is_symlink() else stray.unlink()
