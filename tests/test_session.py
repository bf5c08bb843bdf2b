import pytest

from vnq_colab.config import RunConfig
from vnq_colab.errors import SessionError
from vnq_colab.files import read_json, read_sealed, write_json, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.training.runs import RUN_ID, latest_session, new_run_id, sessions, status
from vnq_colab.training.session import Session


@pytest.fixture
def session(tmp_path):
    ws = Workspace(tmp_path)
    return Session.create(
        ws, RunConfig(), new_run_id(ws, RunConfig()), data_id="71c0",
        days={"train": ["a", "b"], "valid": None, "splits": {}},
        packs=[{"symbols": ["FPT", "HPG"], "learning_rate_share": 1.0, "done": None}],
        ledger={"FPT": {"state": "done", "reason": ""}, "HPG": {"state": "failed", "reason": "gradient not finite"}},
        skipped={"VNM": "too short"},
    )


def test_session_survives_its_file(session):
    session.begin_attempt()
    session.end_attempt("paused", "time is up")
    again = Session.load(session.ws, session.run_id)
    assert again.to_dict() == session.to_dict()
    assert again.attempts[0]["why"] == "time is up" and len(again.owner) == 16


def test_session_file_has_the_documented_fields(session):
    fields = {"run_id", "family", "status", "why", "config", "config_id", "data_id", "code_version", "machine",
              "started", "heartbeat", "owner", "seconds", "packs", "ledger", "attempts"}
    assert fields <= set(read_json(session.folder / "session.json"))
    assert set(session.seconds) == {"training", "evaluation", "checkpoint", "idle"}


def test_name_says_date_family_and_config(session):
    assert RUN_ID.fullmatch(session.run_id)
    assert session.run_id.endswith(f"_stockformer_{session.config.config_id[:6]}")


def test_two_runs_of_one_second_have_two_names(session):
    assert new_run_id(session.ws, RunConfig()) != session.run_id


def test_repr_says_what_a_person_wants_to_know(session):
    text = repr(session)
    assert "1 of 2 symbols done, 1 failed" in text and "HPG (gradient not finite)" in text and "VNM (too short)" in text


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
    (lambda value: {name: part for name, part in value.items() if name != "ledger"}, "not a session"),
    (lambda value: value | {"mood": "good"}, "not a session"),
    (lambda value: value | {"ledger": []}, "not a session"),
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


def test_changed_config_is_refused_with_the_difference(session):
    write_json(session.ws.configs / f"{session.run_id}.json", {"config": session.config.to_dict()})
    path = session.folder / "session.json"
    value = read_sealed(path)
    value["config"]["train"]["epochs"] = 7
    write_sealed(path, value)
    with pytest.raises(SessionError, match="train.epochs: 100, here 7"):
        Session.load(session.ws, session.run_id)


def test_status_shows_what_runs_else_the_newest_run(session):
    again = Session.create(session.ws, session.config, f"{session.run_id}-refit", data_id="x",
                          days=session.days, packs=[], ledger={})
    session.status = "finished"
    session.save()
    assert status(session.ws).run_id == again.run_id and "last sign of life" in repr(again)
    again.status = "finished"
    again.save()
    assert status(session.ws).run_id == session.run_id


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_foreign_history_is_no_history(session, text):
    session.add_history([("FPT", 0, 1, 0.5, 0.6, 0.7)])
    (session.ws.log_folder(session.run_id) / "history.csv").write_text(text)
    assert session.history.empty


def test_history_of_a_pack_replaces_its_older_one(session):
    session.add_history([("FPT", 0, 1, 0.5, 0.6, 0.7)])
    session.add_history([("HPG", 0, 1, 0.1, 0.2, 0.3)])
    session.add_history([("FPT", 0, 1, 0.9, 0.6, 0.7)])
    history = session.history
    assert len(history) == 2
    assert history.set_index("symbol")["train_loss"].to_dict() == {"HPG": 0.1, "FPT": 0.9}
