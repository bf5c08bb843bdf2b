"""Mutations tried on a finished workspace: who reads the file afterwards, and how that ended.

refused     one sentence that names the trouble, exit 2 to 4
harmless    the same answer as without the mutation
named       another answer, and something is said that was not said before
trusted     another answer, and nothing to tell it by: a plausible value under seals that were made anew, or in a file
            that is the person's own. Seals protect against damage, not against who can write the folder
bad         all else: a traceback, a long time, much memory, a file beside the workspace, escape codes, another answer
            without a word ("silent")
"""

import contextlib
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.kills import Tally
from tests.faults.mutations import Mutation, Mutations
from tests.faults.trials import Parent, folder_for, picked

WAYS = ("refused", "harmless", "named", "trusted")
AT_ONCE, SECONDS = 50, 60  # mutations that one process reads; for each of them
READERS: dict[str, tuple[str, str]] = {  # by the beginning of a kind: always one of these, sometimes one of those
    "checkpoints/paused/slot": ("latest", "go on"), "checkpoints/paused": ("latest, status of all", "go on"),
    "checkpoints/new/done": ("scores", "resume, export, validate"),
    "checkpoints/old": ("status of all, tidy", "validate"),
    "checkpoints": ("status, status of all, status in words, tidy, scores", "resume, export, validate"),
    "configs": ("status, status of all", "resume"), "logs": ("scores", "validate"), "data/raw": ("gather", "predict"),
    "index.csv": ("gather", "predict"), "data/prepared/current": ("prepared, tidy", "predict stored"),
    "data/prepared": ("prepared, prepared, scores, tidy", "predict stored, validate, resume, export"),
    "models/old": ("trials, tidy", "validate"), "models/current": ("bundle, tidy", "predict"),
    "models": ("bundle", "predict, predict in words, validate"), "reports/new/forecast": ("show", "predict"),
    "reports/new/verdict": ("export, predict", "validate"), "reports": ("trials", "validate"),
    "portfolio.csv": ("predict", "predict in words")}
OWN = {"logs": "nothing rests on the curves", "index.csv": "the person's own", "data/raw": "the person's own",
       "portfolio": "the person's own"}


class Hostile:
    """One workspace that is mutated again and again."""

    def __init__(self, parent: Parent, folder: Path, seed: int):
        self.parent, self.folder, self.whole = parent, folder, folder / "whole" / "home"
        for name in ("local", "scratch"):
            (folder / name).mkdir()
        self.good: dict[str, Any] = {}
        self.runs = parent.run(self._job(do="make", root=str(self.whole), watched=[], limit=300))["result"]
        assert "day" in self.runs, self.runs
        self.chance = picked(seed, "mutations")
        self.mutations = Mutations(self.whole, self.runs, self.chance)

    def _job(self, **more: Any) -> dict[str, Any]:
        places = ("local", "scratch", "log", "said", "result", "cases", "answers")
        more |= {"whole": str(self.whole), "seconds": SECONDS}
        return more | {name: str(self.folder / name) for name in places}

    def answers(self, cases: list[tuple[dict[str, bytes], list[str]]]) -> Iterator[tuple[dict[str, Any], str]]:
        """For each case, files to write and probes: what each probe gave, and what went wrong besides."""
        while cases:
            (self.folder / "cases").write_bytes(pickle.dumps(cases))
            (self.folder / "answers").write_bytes(b"")
            ended = self.parent.run(self._job(do="answer", runs=self.runs, root=str(self.folder / "case" / "home"),
                                              watched=[str(self.whole)], limit=SECONDS * len(cases)))
            n_answered = 0
            with (self.folder / "answers").open("rb") as file, contextlib.suppress(EOFError):
                while True:
                    found, beside = pickle.load(file)
                    n_answered += 1
                    yield found, f"outside: {beside}" if beside else ""
            if n_answered < len(cases):
                yield {}, f"{'timeout' if ended['exit'] == -14 else 'killed'}: {ended['exit']} {ended['said'][-300:]}"
            cases = cases[n_answered + 1:]

    def learn(self, probes: set[str]) -> None:
        """What probes give of the workspace as it is."""
        new = sorted(probes - self.good.keys())
        for found, _ in self.answers([({}, [probe]) for probe in new]):
            self.good |= found
        assert all(self.good[probe]["code"] == 0 for probe in new), [self.good[probe] for probe in new]

    def probes(self, mutation: Mutation, kind: str, slow: float) -> list[str]:
        """Who reads the file: one or two, by chance."""
        place = next(place for place in READERS if kind.startswith(place))
        always, sometimes = (self.chance.choice(names.split(", ")) for names in READERS[place])
        if always == "latest" and (mutation.seal == "anew" or mutation.words.startswith("is ")):
            return ["go on"]  # what a state is worth shows when it is used
        found = [always] + [sometimes] * (self.chance.random() < slow)
        if "escape" in mutation.words or "lines" in mutation.words:
            found.append("predict in words" if place.startswith(("models", "reports")) else "status in words")
        return list(dict.fromkeys(found))

    def judge(self, mutation: Mutation, probe: str, got: dict[str, Any]) -> tuple[str, str]:
        """(way, details) of one answer."""
        code, said, good = got["code"], got["said"], self.good[probe]
        new = [line for line in said.splitlines() if line not in good["said"].splitlines()]
        if code not in (0, 2, 3, 4):
            return "memory" if "MemoryError" in str(got["value"]) else "traceback", f"{got['value']} {said[-300:]}"
        if any(mark in said for mark in "\x1b\x07\x00") or got["value"] == "an escape code":
            return "escape codes", repr(said[-300:])
        if code and not (new and len(new[-1]) > 25 and len(said) < 4000):
            return "no sentence", repr(said[:400])
        if code or got["value"] == good["value"] or new:
            return "refused" if code else "harmless" if got["value"] == good["value"] else "named", " ".join(new)
        if probe == "tidy" and {*map(tuple, got["value"])} < {*map(tuple, good["value"])}:
            return "harmless", "less can go"
        own = next((why for place, why in OWN.items() if mutation.path.startswith(place)), "")
        if own.startswith("nothing") or (mutation.plausible and (own or mutation.seal == "anew")):
            return "trusted", own
        return "silent", differences(good["value"], got["value"])


def mutate(parent: Parent, tally: Tally, count: int, seed: int, *, slow: float = 0.05) -> dict[str, Counter]:
    """So many mutations, of all kinds of files in turn; by kind, how many ended in which way."""
    rows: dict[str, Counter] = {}
    with folder_for("mutations") as folder:
        hostile = Hostile(parent, folder, seed)
        kinds = [kind for kind in hostile.mutations.kinds if slow or "slot" not in kind]  # training goes on from those
        for first in range(0, count, AT_ONCE):
            some = [(kind, hostile.mutations.one(kind)) for kind in
                    (kinds[number % len(kinds)] for number in range(first, min(first + AT_ONCE, count)))]
            cases = [(mutation.files, hostile.probes(mutation, kind, slow)) for kind, mutation in some]
            hostile.learn({probe for _, probes in cases for probe in probes})
            for (kind, mutation), (found, trouble) in zip(some, hostile.answers(cases), strict=True):
                ways = {probe: hostile.judge(mutation, probe, got) for probe, got in found.items()}
                ways |= {"all": (trouble.partition(":")[0], trouble)} if trouble else {}
                worst = max((way for way, _ in ways.values()), key=(*WAYS, "bad").index) \
                    if all(way in WAYS for way, _ in ways.values()) else "bad"
                rows.setdefault(kind, Counter()).update(["tried", worst])
                tally.add(worst)
                for probe, (way, why) in ways.items():
                    if way not in WAYS:
                        where = f"{way}: {mutation.path}, {mutation.words[:90]!r}, seal {mutation.seal}, {probe}"
                        tally.fail(where, why)
            tally.say(f"{min(first + AT_ONCE, count)} of {count} mutations: {dict(tally.counts)}")
    return rows


def differences(one: Any, other: Any, where: str = "") -> str:
    """The first places in which two answers differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            if one.get(name) != other.get(name):
                return differences(one.get(name), other.get(name), f"{where}.{name}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            if mine != theirs:
                return differences(mine, theirs, f"{where}[{place}]")
    return f"{where}: {str(one)[:80]} -> {str(other)[:120]}"
