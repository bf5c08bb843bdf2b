"""Suggestions: candidates for a search from whoever is asked, each checked against the space, none of them trusted.

Asked is a function of the person's own, or a server that speaks OpenAI's structured outputs (`provider`). It sees names
and ranges of the settings, the values of earlier trials, and the person's words: no prices, no stocks, no forecasts.
"""

import copy
import itertools
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import requests

from vnq_colab.config import require_known
from vnq_colab.errors import ConfigError, VnqError, shorten
from vnq_colab.settings import OneOf, Real, Rule, Space, build, record, require

VARIABLES = ("VNQ_SUGGEST_URL", "VNQ_SUGGEST_KEY", "VNQ_SUGGEST_MODEL")  # in the environment, or Colab's secrets
OPENAI, ADDRESS = "https://api.openai.com/v1", r"https://[^\s@?#]+|http://(localhost|127\.0\.0\.1)(:\d+)?/[^\s@?#]*"
SECONDS, MOST_BYTES, MOST_HISTORY = 60.0, 2**20, 100  # for an answer; of an answer; trials that are shown
TASK = ("Propose settings of a machine-learning model for the next trials of a search: at most `n`, none that is in "
        "`history`, where earlier trials stand with their value (higher is better). Keep to `constraints`.")
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}


@dataclass(frozen=True)
class Question:
    """What is asked: `n` candidates of a space, given what is known."""

    space: dict[str, Any]  # JSON schema of one candidate, of `json_schema`
    history: list[dict[str, Any]]  # {"settings", "value", "state"} each, of `history_of`
    objective: str  # in words
    constraints: str  # in words; "": none
    n: int


Suggest = Callable[[Question], Any]  # gives back a list of candidates, {"candidates": list}, or either as JSON


def json_schema(space: Space) -> dict[str, Any]:
    """The JSON schema of one candidate: an object with each of the settings, within its range, and nothing else."""
    rules = {name: {"type": kinds if (kinds := sorted({TYPES[type(one)] for one in part.values}))[1:] else kinds[0],
                    "enum": list(part.values)} if isinstance(part, OneOf) else {
                 "type": TYPES[float if isinstance(part, Real) else int], "minimum": part.low, "maximum": part.high,
                 "description": f"{'log' if part.log else 'linear'} scale"} for name, part in space.items()}
    return {"type": "object", "properties": rules, "required": list(rules), "additionalProperties": False}


def history_of(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most a hundred of all trials, which come oldest first: the best fifty, then the newest of the others."""
    best = sorted((row for row in trials if row["value"] is not None), key=lambda row: -row["value"])[:50]
    return (best + [row for row in reversed(trials) if row not in best])[:MOST_HISTORY]


def candidates(suggest: Suggest, question: Question, seconds: float = SECONDS) -> tuple[list[dict], list[str]]:
    """At most `n` valid candidates that were not tried yet, and a sentence for each that is not used.

    Takes no longer than `seconds`, whatever is asked, and raises nothing but KeyboardInterrupt.
    """
    answers = []

    def ask() -> None:
        try:
            answers.append(_usable(suggest(copy.deepcopy(question)), question))
        except BaseException as error:
            answers.append(([], [f"no suggestions: {error if isinstance(error, VnqError) else shorten(error)}"]))

    (thread := threading.Thread(target=ask, daemon=True)).start()  # nothing ends it: a late one is left behind
    thread.join(seconds)
    return answers[0] if answers else ([], [f"no suggestions: no answer within {seconds:g} s."])


def _usable(reply: Any, question: Question) -> tuple[list[dict], list[str]]:
    """The candidates of a reply that can be used, and a sentence for each other. Raises ConfigError for no list."""
    try:
        read = json.loads(reply[:MOST_BYTES]) if isinstance(reply, (str, bytes)) else reply
        listed = read["candidates"] if isinstance(read, dict) else read
        if not isinstance(listed, (list, tuple)):
            raise TypeError(f"found {type(listed).__name__}")
        first, more = listed[:question.n], len(listed) - question.n
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(f"the reply holds no list of candidates ({shorten(error)}).") from None
    kind = record("Candidate", **{name: Literal[tuple(rule["enum"])] if "enum" in rule else Annotated[
        float if rule["type"] == TYPES[float] else int, Rule(f"must lie in [{rule['minimum']}, {rule['maximum']}]",
            lambda value, rule=rule: rule["minimum"] <= value <= rule["maximum"])]
        for name, rule in question.space["properties"].items()})
    found, notes = [], [f"{more:,} suggestions beyond the {question.n} asked for are not used."] * (more > 0)
    for place, candidate in enumerate(first, 1):
        try:
            if (candidate := build(kind, candidate)) in found + [row["settings"] for row in question.history]:
                raise ConfigError("it was tried or suggested before.")
            found.append(candidate)
        except VnqError as error:
            notes.append(f"suggestion {place} is not used: {error}")
    return found, notes


def whom(suggest: Suggest | str | None, constraints: str) -> Suggest | None:
    """Who is asked, if anybody. Raises ConfigError for what cannot be, and for constraints that nobody would see."""
    require(suggest is None or isinstance(suggest, str) or callable(suggest), "suggest", suggest,
            "must be a function or the name of a provider")
    require(suggest is not None or not constraints, "constraints", constraints,
            "only suggestions keep to them: name who is asked with --suggest (in Python: suggest)")
    return provider(suggest) if isinstance(suggest, str) else suggest


def provider(name: str) -> Suggest:
    """The server to ask, as the environment names it. Raises ConfigError for an unknown one, or without its key."""
    require_known(name, ("openai",), "provider of suggestions")
    url, key, model = (os.environ.get(variable, "").strip() for variable in VARIABLES)
    if not re.fullmatch(ADDRESS, url := url or OPENAI):  # which is not shown: a password may stand in it
        raise ConfigError(f"VNQ_SUGGEST_URL must be https, such as {OPENAI}, or http on this machine, such as "
                          "http://127.0.0.1:8000/v1, without a password.")
    if not (key and model):
        raise ConfigError("suggestions: set VNQ_SUGGEST_KEY, VNQ_SUGGEST_MODEL, and for a server other than OpenAI's "
                          f"VNQ_SUGGEST_URL, such as {OPENAI}; in Colab as secrets, then open_workspace() again.")

    def ask(question: Question) -> str:
        """Raises VnqError, without the key. Source: OpenAI API reference, chat completions, structured outputs."""
        asked = json.dumps(vars(question) | {"history": [
            {part: row[part] for part in ("settings", "value", "state")} for row in question.history]})
        schema = {"type": "object", "properties": {"candidates": {"type": "array", "items": question.space}},
                  "required": ["candidates"], "additionalProperties": False}
        body = {"model": model, "messages": [{"role": "system", "content": TASK}, {"role": "user", "content": asked}],
                "response_format": {"type": "json_schema", "json_schema": {
                    "name": "candidates", "strict": True, "schema": schema}}}
        try:
            with requests.post(f"{url.rstrip('/')}/chat/completions", json=body, timeout=SECONDS, stream=True,
                               allow_redirects=False,  # the key goes nowhere else; nor does a .netrc replace it
                               auth=lambda post: post.headers.update(Authorization=f"Bearer {key}") or post) as answer:
                content = b"".join(itertools.islice(answer.iter_content(256), MOST_BYTES // 256))
            if answer.status_code != 200:
                said = " ".join(content.decode(errors="replace").replace(key, "...").split())[:200]
                raise VnqError(f"the server refuses (HTTP {answer.status_code}): {said}")
            return json.loads(content)["choices"][0]["message"]["content"]
        except (requests.RequestException, LookupError, RecursionError, TypeError, ValueError) as error:
            raise VnqError(f"no answer that can be used ({type(error).__name__}).") from None
    return ask
