"""Sessions that are lost, and sessions, heartbeats and jobs' files that somebody changed by hand."""

import copy
import json
import random
import shutil
import threading
from dataclasses import replace

import pytest
import torch

from vnq_colab.errors import CheckpointError, SessionError, TakenOverError, VnqError
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import HEARTBEAT, SESSION, SESSION_COPY, Workspace
from vnq_colab.training import trainer
from vnq_colab.training.checkpoint import read_payload, write_payload
from vnq_colab.training.jobs import explanation, final_forecasters, fold_scores, forecast, session_folds
from vnq_colab.training.session import Session, latest_session, sessions, status
from vnq_colab.training.trainer import resume, train

STRANGE = [None, True, -1, 0, 1.5, 10**25, "", "x", "../../x", "\x1b[2J", "x" * 10_000, [], {}, [None], [[[]]],
           {"a": {}}, {"": None}, 2**63, "2026-02-30T99:00:00Z", -1e300]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, panel, config):
    """The workspace of a finished run of the quickest family. Read it, do not change it."""
    ws = Workspace(tmp_path_factory.mktemp("trained"))
    train(ws, panel, replace(config, families=("trees",)), quiet=True)
    return ws


@pytest.fixture
def ws(trained, tmp_path):
    return Workspace(shutil.copytree(trained.root, tmp_path / "ws"))


def lose(session):
    for name in (SESSION, SESSION_COPY):
        (session.ws.checkpoint_folder(session.run_id) / name).unlink()


def places(value, path=()):
    """Every place in a JSON value, by the names and numbers that lead there."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def mutated(value, chance):
    """A copy of a JSON value that is changed in one place: another type, gone, doubled, or under another name."""
    whole = copy.deepcopy(value)
    *path, last = chance.choice([path for path in places(whole) if path])
    parent = whole
    for key in path:
        parent = parent[key]
    kind = chance.randrange(5)
    if kind == 0:
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent[chance.choice(["x", "../x", "", "\0", last + "x"])] = parent.pop(last)
    elif kind == 2 and isinstance(parent, list):
        parent.append(parent[last])
    else:
        parent[last] = copy.deepcopy(chance.choice(STRANGE))
    return whole


# ------------------------------------------------------------------------------------------------------ lost sessions
def test_finished_run_without_its_session_is_judged_from_its_jobs(ws, trained, panel, capsys):
    """And resume writes it again."""
    before = latest_session(trained)
    lose(latest_session(ws))
    session = status(ws)
    assert session.is_rebuilt and "are lost; rebuilt from" in capsys.readouterr().err and "are lost" in repr(session)
    assert forecast(session, panel=panel).equals(forecast(before, panel=panel))
    assert session.status == "finished" and session.ledger == before.ledger and session.failed() == {}
    assert not (session.folder / SESSION).exists(), "whoever only reads writes no session"
    (session.folder / HEARTBEAT).unlink()
    again = resume(ws, quiet=True)
    assert again.status == "finished" and {name: row["file"] for name, row in again.jobs.items()} == {
        name: row["file"] for name, row in before.jobs.items()}
    assert not Session.load(ws, again.run_id).is_rebuilt and set(final_forecasters(again)) == {"trees"}


def test_run_without_its_session_is_rebuilt_from_drive(ws, tmp_path, monkeypatch, panel):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    drive = Workspace(tmp_path / "MyDrive" / "VN")
    shutil.copytree(ws.root, drive.root)
    lose(latest_session(ws))
    lost = Workspace(shutil.copytree(ws.root, tmp_path / "My Drive" / "VN"))
    assert forecast(latest_session(lost), panel=panel).equals(forecast(latest_session(drive), panel=panel))


def test_unfinished_run_without_its_session_goes_on_with_what_is_done(ws, monkeypatch):
    session = latest_session(ws)
    lose(session)
    for path in (session.folder / "done" / "trees_final", session.folder / HEARTBEAT):
        path.unlink()
    with pytest.raises(SessionError, match="1 of 2 jobs are not trained yet"):
        final_forecasters(latest_session(ws))
    started, start = [], trainer.Attempt.run
    monkeypatch.setattr(trainer.Attempt, "run", lambda self: (started.extend(self.session.jobs), start(self)))
    again = resume(ws, quiet=True)
    assert again.status == "finished" and again.jobs["trees_fold1"]["file"] == session.jobs["trees_fold1"]["file"]


def test_rebuilt_run_whose_heartbeat_moves_is_another_process_s(ws, monkeypatch):
    session = latest_session(ws)
    lose(session)
    again = Session.load(ws, session.run_id)
    assert "is of another process" in again.rival
    again.heartbeat_seconds = 0.2
    monkeypatch.setattr(trainer, "WATCH_SECONDS", 0.01)
    beats = threading.Timer(0.1, session.beat)
    beats.start()
    with pytest.raises(SessionError, match="has just changed"):
        trainer._watch(again, again.rival)
    beats.join()


def test_run_of_which_nothing_is_left_is_not_rebuilt(ws):
    session = latest_session(ws)
    lose(session)
    shutil.rmtree(session.folder / "done")
    with pytest.raises(SessionError, match="there is no such run"):
        Session.load(ws, session.run_id)


def test_config_of_the_beginning_that_was_edited_rebuilds_nothing(ws):
    session = latest_session(ws)
    lose(session)
    path = ws.configs / f"{session.run_id}.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"SYN001"', '"SYN003"'), encoding="utf-8")
    with pytest.raises(SessionError, match="does not match its own sha256"):
        Session.load(ws, session.run_id)
    assert sessions(ws) == []


# --------------------------------------------------------------------------------------------------- edited and sealed
@pytest.mark.parametrize("name", [SESSION, HEARTBEAT, "config"])
def test_json_of_a_run_with_anything_in_any_place_is_a_session_or_one_sentence(ws, name, capsys):
    session, chance = latest_session(ws), random.Random(name)
    path = ws.configs / f"{session.run_id}.json" if name == "config" else session.folder / name
    if name != HEARTBEAT:
        (session.folder / SESSION_COPY).unlink()
    if name == "config":
        (session.folder / SESSION).unlink()
    whole, refused = read_sealed(path), 0
    for _ in range(250):
        change = mutated(whole, chance)
        write_sealed(path, change)
        try:
            found = Session.load(ws, session.run_id)
            repr(found), found.jobs_table(), found.failed(), json.dumps(found.to_dict())
            found.is_alive(), trainer.loss_and_rest(found) if found.attempts else None
        except VnqError as error:
            refused += 1
            assert len(str(error)) < 1_500 and "\x1b" not in str(error) and str(path) in str(error), change
    assert refused > 100 or name == HEARTBEAT


def test_session_of_a_wrong_type_is_named_and_left_out(ws, trained, capsys):
    good = latest_session(ws)
    bad = good.folder.with_name("20250101T000000_abcdef")
    shutil.copytree(good.folder, bad)
    for change in ({"ledger": {"SYN001": 3}}, {"attempts": [None]}, {"part": [1, 0]}, {"seconds": {}},
                   {"heartbeat_seconds": 1e12}, {"data_id": "../../etc"}, {"jobs": {"../x": good.jobs["trees_fold1"]}}):
        for name in (SESSION, SESSION_COPY):
            write_sealed(bad / name, good.to_dict() | {"run_id": bad.name} | change)
        assert [one.run_id for one in sessions(ws)] == [good.run_id] and status(ws).run_id == good.run_id
        assert f"passed over: {bad / SESSION}: not a session of this library (" in capsys.readouterr().err


def test_file_of_a_job_with_anything_in_any_place_is_refused_in_one_sentence(ws, panel):
    session, chance = latest_session(ws), random.Random(0)
    path = session.folder / "done" / "trees_fold1"
    whole = torch.load(read_payload(path)[1], weights_only=True)
    del session.jobs["trees_fold1"]["file"]  # as of an earlier version: it is known by its facts alone
    values = [*STRANGE, torch.zeros(3), torch.full((3,), 9_999), torch.zeros(0), torch.zeros(2, 2)]
    for _ in range(250):
        change = copy.copy(whole)
        inner, part = chance.choice(("forecast", "forecast", "explanation")), change
        change[inner] = dict(whole[inner])
        if chance.random() < 0.6:
            part = change[inner]
        key = chance.choice(list(part))
        part[key] = chance.choice(values)
        if chance.random() < 0.2:
            del part[key]
        write_payload(path, lambda file, change=change: torch.save(change, file), 0)
        try:
            fold_scores(session, panel)
            explanation(session, panel.days[-1])
        except VnqError as error:
            assert "trees_fold1" in str(error) and len(str(error)) < 1_500


def test_job_s_file_of_another_run_or_another_time_is_not_used(ws, panel):
    session = latest_session(ws)
    path, other = (session.folder / "done" / name for name in ("trees_fold1", "trees_final"))
    whole = path.read_bytes()
    path.write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match="holds another job"):
        fold_scores(session, panel)
    state = torch.load(read_payload(path)[1], weights_only=True)
    path.write_bytes(whole)
    state = torch.load(read_payload(path)[1], weights_only=True)
    state["forecast"]["score"] += 1
    write_payload(path, lambda file: torch.save(state, file), 0)
    with pytest.raises(CheckpointError, match="holds another job, or the same one"):
        fold_scores(session, panel)


# ------------------------------------------------------------------------------------------------------------- folds
def test_folds_that_overlap_or_are_not_purged_are_neither_judged_nor_trained(ws, panel):
    session = latest_session(ws)
    fold, days = session.folds[0], [f"{day:%Y-%m-%d}" for day in panel.days]
    later = days[days.index(fold["valid"]["first"]) - 2]
    late_test = days[days.index(fold["valid"]["last"]) + 3]
    for change in ({"train": fold["train"] | {"last": later}}, {"test": fold["test"] | {"first": late_test}},
                   {"train": fold["test"], "test": fold["train"]}, {"valid": fold["valid"] | {"first": "2024-02-30"}},
                   {"test": fold["test"] | {"last": "2039-01-03"}}, {"purge_days": 0}):
        session.folds = [fold | change]
        for name in (SESSION, SESSION_COPY):
            write_sealed(session.folder / name, session.to_dict() | {"status": "paused"})
        changed = Session.load(ws, session.run_id)
        for work in (lambda changed=changed: session_folds(changed, panel), lambda changed=changed: fold_scores(
                changed, panel), lambda: resume(ws, take_over=True, quiet=True)):
            with pytest.raises(SessionError, match="Its session was changed"):
                work()


# ------------------------------------------------------------------------------------------------- two at a time
def test_two_that_begin_at_once_are_one_owner_and_one_refused(ws):
    first, second = (Session.load(ws, latest_session(ws).run_id) for _ in range(2))
    first.begin_attempt()
    with pytest.raises(TakenOverError):
        second.begin_attempt()
    assert Session.load(ws, first.run_id).owner == first.owner


@pytest.mark.parametrize("damage", ["heartbeat", "session", "other owner"])
def test_drive_that_does_not_say_whose_the_run_is_is_watched_before_it_is_written(ws, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    drive = Workspace(tmp_path / "MyDrive" / "VN")
    shutil.copytree(ws.root, drive.root)
    shutil.copytree(ws.root, drive.local.root)
    session = latest_session(drive)
    there = drive.checkpoint_folder(session.run_id)
    shutil.copy(session.folder / HEARTBEAT, there / HEARTBEAT)
    assert Session.load(drive, session.run_id).rival == ""
    if damage == "session":
        for name in (SESSION, SESSION_COPY):
            (there / name).write_text("torn")
    elif damage == "heartbeat":
        (there / HEARTBEAT).write_text("torn")
    else:
        write_sealed(there / HEARTBEAT, read_sealed(there / HEARTBEAT) | {"owner": "somebody else", "token": 9})
    again = Session.load(drive, session.run_id)
    assert again.rival
    monkeypatch.setattr(trainer, "WATCH_SECONDS", 0.01)
    again.heartbeat_seconds = 0.3
    monkeypatch.setattr(trainer, "status", lambda ws, run: again)
    moves = threading.Timer(0.2, (there / HEARTBEAT).write_text, ["moved"])
    moves.start()
    with pytest.raises(SessionError, match="by another machine"):
        resume(drive, quiet=True)
    moves.join()


# ------------------------------------------------------------------------------------------------ the job in flight
@pytest.mark.parametrize("family", ["trees", "global", "stockformer"])
def test_checkpoint_with_anything_in_any_place_goes_on_or_begins_anew(tmp_path, panel, config, family):
    """What a learner stores is its own business; what is not its own state begins the job anew, and says so."""
    start = replace(config, families=(family,), stockformer=replace(config.stockformer, start="own"),
                    train=replace(config.train, epochs=1))
    session, chance = train(Workspace(tmp_path / "ws"), panel, start, hours=1e-9, quiet=True), random.Random(family)
    slot, n_anew = session.checkpoint["slot"], 0
    whole = torch.load(read_payload(session.folder / slot)[1], weights_only=True)
    for number in range(5):
        ws, state = Workspace(shutil.copytree(tmp_path / "ws", tmp_path / str(number))), mutated_state(whole, chance)
        write_payload(ws.checkpoint_folder(session.run_id) / slot, lambda file, state=state: torch.save(state, file), 9)
        assert resume(ws, quiet=True).status == "finished"
        n_anew += "begins anew" in (ws.log_folder(session.run_id) / "progress.txt").read_text(encoding="utf-8")
    assert n_anew > 0


def mutated_state(state, chance):
    """A state in which one part is gone, or something else."""
    whole = copy.copy(state)
    key = chance.choice(sorted(set(whole) - {"facts"}))
    if isinstance(whole[key], dict) and whole[key] and chance.random() < 0.7:
        return whole | {key: mutated_state(whole[key], chance)}
    if chance.random() < 0.3:
        del whole[key]
        return whole
    return whole | {key: chance.choice([*STRANGE, torch.zeros(3), torch.zeros(0), torch.zeros(2, 2)])}
