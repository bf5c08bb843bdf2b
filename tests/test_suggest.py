"""Suggestions: recorded and malformed replies, servers that are silent, slow or hostile; what leaves the machine."""

import contextlib
import http.server
import json
import signal
import sys
import threading
import time

import jsonschema
import numpy as np
import pytest

from vnq_colab.config import RunConfig
from vnq_colab.errors import ConfigError
from vnq_colab.layout import Workspace
from vnq_colab.models import global_model, stockformer, trees
from vnq_colab.settings import OneOf, Real, TreesConfig, Whole
from vnq_colab.training.search import search
from vnq_colab.training.suggest import VARIABLES, Question, candidates, history_of, json_schema, provider, whom

KEY = "sk-s3cr3tKey"
SPACE = {"trees.leaves": Whole(15, 255, log=True), "trees.penalty": Real(0.1, 100, log=True),
         "global.inputs": OneOf("ranks", "both"), "train.label_clip": OneOf(None, 3, 4.5, True)}
GOOD = {"trees.leaves": 31, "trees.penalty": 10.0, "global.inputs": "both", "train.label_clip": None}
QUESTION = Question(json_schema(SPACE), [{"settings": GOOD | {"trees.leaves": 63}, "value": 0.09, "state": "complete"}],
                    "rank correlation", "few leaves", 3)


def completion(content):
    """A reply as OpenAI's server gives it, recorded."""
    choice = {"message": {"role": "assistant", "content": content, "refusal": None}, "finish_reason": "stop"}
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice]}).encode()


RECORDED = completion(json.dumps({"candidates": [GOOD]}))


class Model(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.asked.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
        with contextlib.suppress(OSError):  # whoever asked has gone
            self.server.reply(self)

    log_message = print  # pytest shows it where a test fails


def says(content, status=200, **headers):
    def reply(handler):
        handler.send_response(status)
        for name, value in ({"Content-Length": len(content)} | headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)
    return reply


def drips(handler):
    says(b"", **{"Content-Length": 1000})(handler)
    while not handler.server.is_over.wait(0.05):
        handler.wfile.write(b" ")


@pytest.fixture
def server(monkeypatch):
    """A server on this machine, named by the environment; `asked` is (path, headers, body) of each request."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.asked, server.reply, server.is_over = [], says(RECORDED), threading.Event()
        for variable, value in zip(VARIABLES, (f"http://127.0.0.1:{server.server_port}/v1", KEY, "some"), strict=True):
            monkeypatch.setenv(variable, value)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.is_over.set()
        server.shutdown()


@pytest.mark.parametrize("space", [SPACE, trees.SPACE, global_model.SPACE, stockformer.SPACE])
def test_candidates_are_accepted_as_a_second_implementation_does_and_come_back_typed(space):
    schema, generator = json_schema(space), np.random.default_rng(0)
    jsonschema.Draft202012Validator.check_schema(schema)
    odd = [None, True, "31", "", [], {}, -1, 0, 0.2, 64, 1e9, 10**400, float("inf")]
    plain = {name: part.values[0] if isinstance(part, OneOf) else part.high for name, part in space.items()}
    for _ in range(200):
        name, value = generator.choice([*space, "x.y"]), odd[generator.integers(len(odd))]
        changed = plain | {name: value}
        changed = changed if generator.random() < 0.9 else {key: changed[key] for key in list(changed)[1:]}
        is_valid = jsonschema.Draft202012Validator(schema).is_valid(changed)
        found, notes = candidates(lambda question, changed=changed: [changed], Question(schema, [], "", "", 1))
        assert (len(found), len(notes)) == ((1, 0) if is_valid else (0, 1)), changed
        assert not found or all(type(found[0][name]) is float for name, part in space.items() if type(part) is Real)


@pytest.mark.parametrize("reply", [
    "", "not JSON", "[", "7", "null", '"text', "[" * 100_000, "1" * 5_000, b"\xff\xfe", "{}", None, 7, iter([]),
    '{"candidates": null}', '{"candidates": {}}', "[" + " " * 2**20 + "]", lambda: 1, float("nan")])
def test_reply_without_a_list_of_candidates_is_one_sentence(reply):
    found, notes = candidates(lambda question: reply, QUESTION)
    assert found == [] and len(notes) == 1 and notes[0].startswith("no suggestions: ") and len(notes[0]) < 300


def test_generator_and_whoever_cannot_be_asked_are_said():
    _, (note,) = candidates(lambda question: (GOOD for _ in "x"), QUESTION)
    assert "found generator" in note
    for suggest, constraints, sentence in ((42, "", "must be a function"), (None, "few leaves", "who is asked with")):
        with pytest.raises(ConfigError, match=sentence):
            whom(suggest, constraints)


@pytest.mark.parametrize("odd", [
    None, 7, "text", [], {}, *(GOOD | {"trees.leaves": value} for value in ("31", 31.5, True, 256, 63, 10**400)),
    *(GOOD | {"trees.penalty": value} for value in (float("nan"), float("inf"), 0.05)), GOOD | {"train.label_clip": 1},
    GOOD | {"global.inputs": "x" * 10**6}, GOOD | {"trees.leavs": 31}, {**GOOD, "\x1b[2J": 1}])
def test_candidate_that_cannot_be_used_costs_itself_alone(odd):
    found, notes = candidates(lambda question: json.dumps({"candidates": [odd, GOOD, GOOD, GOOD, GOOD]}), QUESTION)
    assert found == [GOOD] and len(notes) == 3, "itself, one that stands twice, and two beyond the three asked for"
    assert notes[0].startswith("2 suggestions beyond the 3") and notes[1].startswith("suggestion 1 is not used: ")
    assert all(note.isprintable() and len(note) < 600 for note in notes)


def test_whoever_is_asked_breaks_changes_and_holds_up_nothing():
    def breaks(question):
        question.history[0]["settings"].clear()
        raise error

    before, began, is_over = json.dumps(vars(QUESTION)), time.monotonic(), threading.Event()
    for error in (ValueError("\x1b[2J" * 10**5), SystemExit(3), KeyboardInterrupt(), MemoryError(), GeneratorExit()):
        found, (note,) = candidates(breaks, QUESTION)
        assert found == [] and type(error).__name__ in note and len(note) < 200 and "\x1b" not in note
    assert json.dumps(vars(QUESTION)) == before
    late = candidates(lambda question: is_over.wait(30), QUESTION, 0.2)
    assert late == ([], ["no suggestions: no answer within 0.2 s."])
    if sys.platform != "win32":
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # one of several test processes ignores it
        threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            candidates(lambda question: is_over.wait(30), QUESTION)
        signal.signal(signal.SIGINT, before)
    is_over.set()
    assert time.monotonic() - began < 10


def test_history_is_the_best_fifty_and_then_the_newest():
    trials = [{"settings": n, "value": None if n % 3 == 0 else n % 100, "state": "complete"} for n in range(300)]
    shown = history_of(trials)
    assert len(shown) == 100 and [shown[place]["settings"] for place in (0, 1, 2, 50)] == [199, 299, 98, 297]
    assert history_of(trials[:2]) == [trials[1], trials[0]]


def test_server_is_sent_the_space_the_scores_and_the_persons_words_and_nothing_else(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    question = Question(QUESTION.space, [QUESTION.history[0] | {"file": "portfolio.csv"}], "the aim", "few leaves", 3)
    assert candidates(provider("openai"), question) == ([GOOD], [])
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions" and headers.pop("Authorization") == f"Bearer {KEY}"
    (system, user), form = (asked := json.loads(body)).pop("messages"), asked.pop("response_format")
    assert asked == {"model": "some"} and set(headers) == {
        "Host", "User-Agent", "Accept-Encoding", "Accept", "Connection", "Content-Length", "Content-Type"}
    assert json.loads(user["content"]) == vars(question) | {"history": QUESTION.history} and system["role"] == "system"
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["properties"]["candidates"]["items"] == QUESTION.space


@pytest.mark.parametrize("reply", [
    says(b"bad key: " + KEY.encode(), 401), says(b"quota", 429), says(b"\x1b[2J" + b"x" * 10**5, 500),
    says(b"", 302, Location="http://127.0.0.1:1/"), says(b"", 204), says(b"{}"), says(b"not JSON"),
    says(completion(None)), says(b'{"choices": []}'), says(b"[" * 10**5), says(b" " * 2**22 + RECORDED), drips,
    says(RECORDED, **{"Content-Length": 10**6}), says(RECORDED, **{"Content-Encoding": "gzip"}),
    lambda handler: handler.server.is_over.wait(30), lambda handler: handler.wfile.write(b"HTTP/1.1 x\r\n\r\n")])
def test_server_that_fails_costs_a_sentence_and_never_the_key(server, reply):
    server.reply, began = reply, time.monotonic()
    found, (note,) = candidates(provider("openai"), QUESTION, 1.0)
    assert found == [] and time.monotonic() - began < 3 and len(server.asked) == 1
    assert note.startswith("no suggestions: ") and KEY not in note and note.isprintable() and len(note) < 400


@pytest.mark.parametrize("name, value", [
    ("KEY", " "), ("MODEL", ""), ("URL", "http://example.org/v1"), ("URL", f"https://user:{KEY}@example.org/v1"),
    ("URL", "ftp://127.0.0.1/"), ("URL", "http://127.0.0.1.example.org/"), ("URL", "http://localhost@example.org/"),
    ("URL", "127.0.0.1:80")])
def test_provider_is_refused_without_a_key_and_with_an_address_that_would_tell_it(server, monkeypatch, name, value):
    monkeypatch.setenv(f"VNQ_SUGGEST_{name}", value)
    sentence = "^VNQ_SUGGEST_URL must be https.* without a password" if name == "URL" else "set VNQ_SUGGEST_KEY"
    with pytest.raises(ConfigError, match=sentence) as caught:
        provider("openai")
    assert KEY not in str(caught.value)
    with pytest.raises(ConfigError, match="there is no provider of suggestions 'opanai'. Did you mean 'openai'"):
        provider("opanai")


@pytest.mark.parametrize("wrong, words", [
    ({"folds": 1.5}, "folds = 1.5: expected int"), ({"folds": True}, "folds = True: expected int"),
    ({"n_trials": 2.5}, "n_trials = 2.5: expected int"), ({"hours": "2"}, "hours = '2': expected float, or null"),
    ({"config": RunConfig(trees=TreesConfig(monotone=("",)))}, "no feature ''"),
    ({"space": ["trees.leaves", 3]}, r"space\[1\] = 3: expected str"),
])
def test_search_refuses_what_is_of_another_type_or_name(wrong, words, tmp_path, panel):
    with pytest.raises(ConfigError, match=words):
        search(Workspace(tmp_path), panel, **{"config": RunConfig.for_machine("smoke")} | wrong)


def test_server_that_is_away_and_a_key_that_no_header_can_hold_are_said(server, monkeypatch):
    for name, value in (("KEY", f"{KEY}\r\nX: y"), ("KEY", f"{KEY}ấ"), ("URL", "http://127.0.0.1:1/v1")):
        monkeypatch.setenv(f"VNQ_SUGGEST_{name}", value)
        found, (note,) = candidates(provider("openai"), QUESTION)
        assert found == [] and note.startswith("no suggestions: no answer that can be used (") and KEY not in note
    assert server.asked == []
