"""Notifications: real ones to a small server here, never in the way, and never a secret on a disk or a screen."""

import http.server
import json
import logging
import shutil
import socket
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from vnq_colab.__main__ import main
from vnq_colab.delivery import notify as room
from vnq_colab.delivery import predict
from vnq_colab.delivery.bundle import export_bundle
from vnq_colab.delivery.notify import find_urls, notify, notify_session
from vnq_colab.errors import ConfigError
from vnq_colab.layout import Workspace
from vnq_colab.training.trainer import train

SECRET = "s3cr3tWord"
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of apprise


class Inbox(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told.append((told["title"], told["message"]))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture
def inbox():
    """A server that keeps (title, text) of what it was told, in `told`; its address, with a secret in it, is `url`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inbox)
    server.told, server.answer = [], 200
    server.url = f"json://user:{SECRET}@localhost:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_notification_arrives_as_it_was_written(inbox, capsys):
    assert notify([inbox.url], "Xong", "102 mã\nngày mai") == []
    assert inbox.told == [("Xong", "102 mã\nngày mai")]
    assert capsys.readouterr().err == ""


def test_what_fails_is_a_sentence_without_the_secret_and_keeps_no_other_from_arriving(inbox, capsys, caplog):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        urls = [f"json://a:{SECRET}@localhost:{closed.getsockname()[1]}", f"nonsense://{SECRET}", SECRET, "",
                f"tgram://{SECRET}", f"mailto://{SECRET}", inbox.url]
        with caplog.at_level(logging.DEBUG):
            failed = notify(urls, "t", "x")
    assert len(inbox.told) == 1 and [text.split()[1] for text in failed] == ["1", "2", "3", "4", "5", "6"]
    said = "".join(capsys.readouterr()) + caplog.text + "".join(failed)
    assert "notification 1 of 7 was not sent: " in said and SECRET not in said
    inbox.answer = 500
    assert len(notify([inbox.url], "t", "x")) == 1


def test_service_that_never_answers_takes_seconds_and_no_more(monkeypatch):
    monkeypatch.setattr(room, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = time.monotonic()
        failed = notify([f"json://localhost:{mute.getsockname()[1]}"] * 2, "t", "x")
    assert "no answer" in failed[0] and len(failed) == 2 and time.monotonic() - began < 3


def test_without_apprise_the_install_line_is_said_and_nothing_stops(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert "pip install apprise" in notify(["json://localhost"], "t", "x")[0]
    with pytest.raises(ConfigError, match="pip install apprise"):
        find_urls("json://localhost")


def test_addresses_come_from_an_argument_else_from_the_environment(monkeypatch):
    assert find_urls() == ()
    monkeypatch.setenv("VNQ_NOTIFY", "json://one  nonsense://two\n")
    assert find_urls() == ("json://one", "nonsense://two"), "an unattended week is not stopped by one of them"
    assert find_urls("json://a json://b") == find_urls(["json://a", "json://b"]) == ("json://a", "json://b")
    for bad in (f"json://a nonsense://{SECRET}", [SECRET]):
        with pytest.raises(ConfigError, match="apprise does not know address") as caught:
            find_urls(bad)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("status, why, failed, title", [
    ("finished", "3 jobs done", {}, "finished"), ("paused", "time is up", {}, "paused"),
    ("paused", "stopped by ValueError: x", {}, "failed"), ("running", "", {}, "failed"),
    ("paused", "stopped by the person", {}, "paused"), ("finished", "3 jobs done", {"FPT": "x"}, "finished, 1 failed")])
def test_end_of_a_run_is_told_by_its_word(inbox, status, why, failed, title):
    notify_session(SimpleNamespace(run_id="R1", status=status, why=why, drive="", note="SYNTHETIC",
                                   failed=lambda: failed), [inbox.url])
    assert inbox.told == [(f"vnq_colab: {title}", f"R1: {why}\nSYNTHETIC")]


# --- a whole run


def test_train_tells_how_it_ended_and_the_secret_stands_nowhere(clean, tmp_path, monkeypatch, inbox, capsys, caplog):
    ws = tmp_path / "ws"
    shutil.copytree(clean[0].folder.parents[2], ws)
    words = ["train", "--root", str(ws), "--profile", "smoke", "--families", "trees", "--set", "trees.rounds=10",
             "--set", "trees.least_rounds=1"]
    with caplog.at_level(logging.DEBUG):
        assert main([*words, "--hours", "0", "--notify", inbox.url]) == 3
        monkeypatch.setenv("VNQ_NOTIFY", inbox.url)
        assert main(words) == 0
    assert [title for title, _ in inbox.told] == ["vnq_colab: paused", "vnq_colab: finished"]
    assert main([*words, "--notify", f"nonsense://{SECRET}", "--seed", "3"]) == 2
    said = capsys.readouterr()
    assert "apprise does not know address 1" in said.err.splitlines()[-1]
    assert SECRET not in said.out + said.err + caplog.text
    inside = [path for path in ws.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert inside == []


def test_evening_tells_of_drift_of_orders_when_asked_and_of_failure(judged, tmp_path, monkeypatch, inbox, capsys):
    ws, prepared, session, _ = judged
    export_bundle(session)
    shutil.copytree(ws.models, tmp_path / "models")
    day, file = f"{prepared.panel.days[-1]:%Y-%m-%d}", tmp_path / "prices.parquet"
    prepared.prices.to_parquet(file)
    words = ["predict", "--root", str(tmp_path), "--data", str(file), "--as-of", day, "--notify", inbox.url]
    assert main(words) == 0 and inbox.told == []
    watch = predict.watch
    monkeypatch.setattr(predict, "watch", lambda *facts: replace(watch(*facts), warnings=["it drifts"]))
    assert main([*words, "--notify-orders"]) == 0
    (drift, warning), (orders, to_do) = inbox.told
    assert (drift, orders) == (f"vnq_colab: drift as of {day}", f"vnq_colab: orders as of {day}")
    assert warning.startswith("it drifts\n") and "SYNTHETIC" in warning and "SYNTHETIC" in to_do
    assert "Orders for" in to_do or "NO ORDERS" in to_do
    assert main([*words, "--models", str(tmp_path / "nowhere")]) == 2
    title, why = inbox.told[-1]
    assert title == "vnq_colab: predict failed" and why in capsys.readouterr().err


def test_failure_of_a_notification_and_an_error_of_training_stop_each_other_in_nothing(clean, small, inbox, tmp_path,
                                                                                       monkeypatch):
    inbox.answer = 500
    monkeypatch.setenv("VNQ_NOTIFY", inbox.url)
    monkeypatch.setattr("vnq_colab.training.loop.Attempt._train_jobs", lambda *words: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(Workspace(tmp_path), clean[0].panel, replace(small, seed=9), quiet=True, on_finish=notify_session)
    assert inbox.told[0][0] == "vnq_colab: failed"
