"""Files changed by somebody who knows how they are built: every JSON and binary file of a finished workspace.

A JSON file, and the state in a model's or a job's file, is changed in one place; a table in one column, a CSV file in
one cell; any file in its bytes, or it is another's. The seals stay as they were, or go, or are made anew everywhere.
"""

import contextlib
import hashlib
import io
import json
import math
import random
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tests.faults.damage import damaged
from tests.faults.trials import HEADER_BYTES
from vnq_colab.files import SEAL
from vnq_colab.training.checkpoint import PAYLOAD_MAGIC

DEEP = "[" * 100_000 + "]" * 100_000
RAW = {"deep": DEEP, "5,000 digits": "1" * 5000, "NaN": "NaN", "-Infinity": "-Infinity", "1e999": "1e999",
       "half a letter": '"\\ud800"'}  # texts that stand in a JSON file as they are
VALUES: dict[str, Any] = {
    "null": None, "true": True, "zero": 0, "minus one": -1, "1e308": 1e308, "2**63": 2**63, "no text": "",
    "long text": "x" * 1_000_000, "path": "../../outside", "root": "/etc/passwd", "escape codes": "\x1b]0;x\x07",
    "two lines": "a\nb", "zero byte": "a\0b", "empty list": [], "empty object": {}, "list of lists": [[1]]}
WORDS = {"decision", "state", "status", "family", "families", "kind", "loss", "target"}  # of which few are right
NAMES = {"run_id", "data_id", "format", "symbols", "sha256", "first", "last", "folder", "spread", "judged_family",
         "feature_names"}  # of which one is right
PEOPLE = {"summary", "xgboost"}  # what people read, and no code


@dataclass
class Mutation:
    """Files to write, by their path in the workspace, and what was done in words."""

    path: str
    words: str
    seal: str  # "stale", "none" or "anew"
    plausible: bool  # the seal apart, nobody can tell
    files: dict[str, bytes] = field(default_factory=dict)


class Mutations:
    """Those of one workspace, by chance: each kind of place in a file as often as the others."""

    def __init__(self, root: Path, runs: dict[str, str], chance: random.Random):
        self.root, self.runs, self.chance = root, {run: name for name, run in runs.items()}, chance
        skipped = (".png", ".html", ".txt", ".lock")
        self.names = [name for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in skipped
                      and (name := str(path.relative_to(root)))]
        self.texts = {name: self._read(name).decode() for name in self.names if name.endswith(".json")}
        current = json.loads(self.texts["data/prepared/current.json"])["data_id"]
        self.kinds: dict[str, list[str]] = {}
        for name in self.names:
            if not name.startswith("data/prepared/") or current in name or name.endswith("/current.json"):
                self.kinds.setdefault(self._kind(name, current), []).append(name)

    def _read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def _kind(self, name: str, current: str) -> str:
        """The path with a word for what differs from one run, symbol or job to the next."""
        *folders, last = (self.runs.get(part, part).replace(current, "set") for part in name.split("/"))
        last = last.partition("_")[0] if folders[2:] == ["done"] else "SYMBOL.pt" if last[:3] == "SYN" else last
        return "/".join([*folders, "run.json" if folders == ["configs"] else last])

    def one(self, kind: str) -> Mutation:
        """A mutation of a file of this kind."""
        name = self.chance.choice(self.kinds[kind])
        way = (self._json if name in self.texts else self._table if name.endswith(".parquet") else
               self._cells if name.endswith(".csv") else self._state)
        return self.chance.choice([self._whole, *[way] * 5])(name)

    def _sealed(self, name: str, content: bytes, words: str, plausible: bool, seal: str = "") -> Mutation:
        """With the seals as they were, or made anew wherever the sha256 of a changed file stands."""
        made = Mutation(name, words, seal or self.chance.choice(("stale", "anew")), plausible, {name: content})
        changed = [name] if made.seal == "anew" else []
        while changed:
            one = changed.pop()
            old, new = (hashlib.sha256(data).hexdigest() for data in (self._read(one), made.files[one]))
            for other, text in self.texts.items():
                text = made.files[other].decode("utf-8", "replace") if other in made.files else text
                if other != one and old in text:
                    made.files[other] = with_seal(text.replace(old, new))
                    changed.append(other)
        return made

    def _beside(self, name: str) -> list[str]:
        """The other files of this name or, in its folder, of this kind."""
        path = Path(name)
        return [other for other in self.names if other != name and (
            Path(other).name == path.name or (Path(other).parent, Path(other).suffix) == (path.parent, path.suffix))]

    def _whole(self, name: str) -> Mutation:
        """Its bytes."""
        old, (bad, bits) = self._read(name), damaged(self._read(name), self.chance)
        other, stranger = (self.chance.choice(names or self.names) for names in (self._beside(name), self.names))
        way, content = self.chance.choice((
            (bits, bad), (bits, bad), ("nothing", b""), ("longer", old + bytes(100_000)), ("deep", DEEP.encode()),
            ("spaces", b" " * 2_000_000), ("utf-16", old.decode("utf-8", "replace").encode("utf-16")), ("bomb", b""),
            (f"is {other}", self._read(other)), (f"is {stranger}", self._read(stranger))))
        content = bomb(old) if way == "bomb" else content
        return self._sealed(name, content, way, way.startswith("bit"), "stale" if name in self.texts else "")

    # ------------------------------------------------------------------------------------------------------ structures
    def _json(self, name: str) -> Mutation:
        value, seal = json.loads(self.texts[name]), self.chance.choice(("stale", "none", "anew"))
        others = [json.loads(self.texts[other]) for other in self._beside(name) if other in self.texts]
        old_seal = value.pop(SEAL, None) if isinstance(value, dict) else None
        words, value, plausible = self._changed(value, others, is_text=True)
        text = json.dumps(value, indent=1, ensure_ascii=False)
        for word, raw in RAW.items():
            text = text.replace(f'"RAW {word}"', raw)
        if old_seal and isinstance(value, dict) and seal != "none":
            text = f'{text[:-2]}, "{SEAL}": "{old_seal}"}}'
        return self._sealed(name, with_seal(text) if seal == "anew" else encoded(text), words, plausible, seal)

    def _state(self, name: str) -> Mutation:
        """A model's file, or a payload whose header proves it, around a state that was changed."""
        content = self._read(name)
        others = [load(self._read(one)) for one in self._beside(name)[:3]]
        words, state, plausible = self._changed(load(content), others, is_text=False)
        file = io.BytesIO()
        torch.save(state, file)
        return self._sealed(name, packed(file.getvalue(), content), words, plausible, "anew")

    def _changed(self, value: Any, others: list[Any], *, is_text: bool) -> tuple[str, Any, bool]:
        """(words, the value with one place changed, whether it is plausible); `is_text`: it will be JSON."""
        shapes: dict[tuple, list[tuple]] = {}
        for path in paths(value):
            shapes.setdefault(tuple("*" if is_data(step) else step for step in path), []).append(path)
        path = self.chance.choice(shapes[self.chance.choice(list(shapes))])
        box: dict[str, Any] = {"all": value}
        holder, *_, last = box, "all", *path
        for step in ("all", *path)[:-1]:
            holder = holder[step]
        is_logged = path[:1] in (("files",), ("findings",)) and isinstance((*path, "")[1], int)  # in cleaning.json
        for_people = is_logged or not PEOPLE.isdisjoint(path)
        old, plausible = holder[last], is_data(last) or for_people
        way = self.chance.choice(["gone", "renamed", "one more"] + ["other"] * 6) if path else "other"
        if way == "gone":
            del holder[last]
        elif way == "other":
            way, holder[last] = self._other(old, others, path, RAW if is_text else ())
            is_own = (last, way) == ("spread", "another number") or path[:1] == ("folds",)  # said nowhere else
            plausible = for_people or [last, holder[last]] == ["previous", None] or (alike(old, holder[last]) and (
                is_own or (last not in NAMES and (last not in WORDS or way == "another's"))))
        elif isinstance(holder, list):
            holder.append(old)
        else:
            holder[f"{last}x"] = holder.pop(last) if way == "renamed" else old
        return f"{'.'.join(map(str, path))}: {way}", box["all"], plausible

    def _other(self, old: Any, others: list[Any], path: tuple, raw: Iterable[str]) -> tuple[str, Any]:
        """(words, what may stand there instead), of its own type as often as of another."""
        likely: dict[str, Any] = {}
        for other in others:
            with contextlib.suppress(LookupError, TypeError):
                for step in path:
                    other = other[step]
                likely["another's"] = other
        if torch.is_tensor(old):
            likely |= tensors(old)
        elif isinstance(old, bool):
            likely["the opposite"] = not old
        elif isinstance(old, (int, float)):
            likely |= {"negative": -old - 1, "another number": old + 1 if isinstance(old, int) else old * 1.5 + 0.01}
        elif isinstance(old, str):
            likely |= {"another text": old[::-1] or "x", "the next": old[:-1] + chr(ord(old[-1:] or "a") ^ 1)}
        elif isinstance(old, list) and old:
            likely |= {"twice": old * 2, "other order": old[::-1], "a row less": old[:-1]}
        elif isinstance(old, dict) and len(old) > 1:
            first, *_, last = old
            likely["siblings swapped"] = old | {first: old[last], last: old[first]}
        ways = {"text": "x"} if torch.is_tensor(old) else VALUES | {name: f"RAW {name}" for name in raw}
        pool = likely if likely and self.chance.random() < 0.5 else ways
        name = self.chance.choice(list(pool))
        return name, pool[name]

    def _table(self, name: str) -> Mutation:
        """A parquet file with one column, or its rows, changed."""
        table = pq.read_table(io.BytesIO(self._read(name)))
        place, rows = self.chance.randrange(table.num_columns), list(range(table.num_rows))
        title, values = table.column_names[place], table.column(place).to_pandas()
        ways = {"no rows": [], "a row less": rows[:-1], "other order": rows[::-1], "twice": rows + rows[:1]}
        columns = {"null": [None] * len(rows), "texts": values.astype(str) + "x"}
        if values.dtype.kind in "if":
            columns |= {"times 100": values * 100, "negative": -values}
        way, meta = self.chance.choice(["gone", "renamed", "bare", *ways, *columns]), table.schema.metadata
        if way in columns:
            table = table.set_column(place, title, pa.array(columns[way]))
        elif way in ways:
            table = table.take(pa.array(ways[way], pa.int64()))
        elif way != "bare":
            table = table.rename_columns([f"{one}x" if one == title else one for one in table.column_names])
        table = table.drop_columns([f"{title}x"]) if way == "gone" else table
        file = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(None if way == "bare" else meta), file)
        plausible = way in {*columns, *ways} - {"null", "texts", "no rows"} or name.startswith("reports")
        return self._sealed(name, file.getvalue(), f"{title}: {way}", plausible)

    def _cells(self, name: str) -> Mutation:
        """A CSV file with one cell, line or column changed."""
        lines = [line.split(",") for line in self._read(name).decode().splitlines()]
        row, place = self.chance.randrange(len(lines)), self.chance.randrange(len(lines[0]))
        values = VALUES | {"NaN": "nan", "negative": f"-{lines[row][place]}", "formula": "=cmd()", "quote": '"',
                           "more commas": "1,2,3", "no date": "2026-13-45", "another number": "12345"}
        ways = {"a row less": lines[:row] + lines[row + 1:], "twice": lines[:row + 1] + lines[row:],
                "a column less": [line[:place] + line[place + 1:] for line in lines],
                "other order": lines[:1] + lines[:0:-1]}
        way = self.chance.choice([*ways, *values])
        cell = str(values.get(way, ""))
        lines = ways.get(way) or [*lines[:row], [*lines[row][:place], cell, *lines[row][place + 1:]], *lines[row + 1:]]
        text = "\n".join(map(",".join, lines)) + "\n"
        return self._sealed(name, text.encode(), f"row {row}, {place}: {way}", True, "stale")


def paths(value: Any, before: tuple = ()) -> Iterator[tuple]:
    """The way to every value in it, itself included."""
    yield before
    parts = value.items() if isinstance(value, dict) else enumerate(value[:50]) if isinstance(value, list) else ()
    for step, part in parts:
        yield from paths(part, (*before, step))


def is_data(step: Any) -> bool:
    """Whether a step of a path is one of many alike: a row's number, a symbol, a job."""
    return isinstance(step, int) or step[:3] == "SYN" or step[:1].isdigit() or "_fold" in step or "_final" in step


def alike(old: Any, new: Any) -> bool:
    """Whether one may stand for the other, as far as its type says."""
    if torch.is_tensor(old):
        return torch.is_tensor(new) and (new.dtype, new.shape) == (old.dtype, old.shape) and bool(new.isfinite().all())
    if isinstance(old, (int, float)) and not isinstance(old, bool):
        return type(new) in (int, float) and math.isfinite(new) and abs(new) < 1e12
    is_raw = isinstance(new, str) and new.startswith("RAW ")
    return type(old) is type(new) and not is_raw and (not isinstance(old, dict) or list(old) == list(new))


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def with_seal(text: str) -> bytes:
    """A JSON text with its own sha256, where it has one and can be read."""
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, dict) and value.pop(SEAL, None):
            seal = hashlib.sha256(encoded(json.dumps(value, ensure_ascii=False, sort_keys=True))).hexdigest()
            return encoded(json.dumps(value | {SEAL: seal}, indent=1, ensure_ascii=False))
    return encoded(text)


def tensors(old: torch.Tensor) -> dict[str, Any]:
    """What may stand in the place of a tensor."""
    found = {"int32": old.to(torch.int32), "float64": old.to(torch.float64), "bool": old.to(torch.bool),
             "flat": old.flatten(), "one axis more": old[None]}
    if old.dim():
        found |= {"no rows": old[:0], "a row less": old[:-1], "other order": old.flip(0)}
    if old.numel():
        found["a trillion"] = old.flatten()[:1].expand(10**12)
    if old.is_floating_point() and old.numel():
        found |= {name: torch.full_like(old, value) for name, value in (
            ("NaN", math.nan), ("infinite", math.inf), ("huge", 6e4), ("negative", -1.0), ("zero", 0.0))}
        found |= {"times 100": old * 100, "one NaN": old.clone()}
        found["one NaN"].view(-1)[-1] = math.nan
    return found


def load(content: bytes) -> Any:
    """The state in a payload, or in a model's file, of dictionaries and lists; empty where there is none."""
    with contextlib.suppress(Exception):
        return plain(torch.load(io.BytesIO(content[header_bytes(content):]), weights_only=True))
    return {}


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [*map(plain, value)] if isinstance(value, (list, tuple)) else value


def header_bytes(content: bytes) -> int:
    return HEADER_BYTES if content.startswith(PAYLOAD_MAGIC) else 0


def packed(body: bytes, like: bytes) -> bytes:
    """A body behind a header that proves it, where `like` has one."""
    if not header_bytes(like):
        return body
    tail = like[8:16] + struct.pack("<Q", len(body))
    return PAYLOAD_MAGIC + tail + hashlib.sha256(body + tail).digest() + body


def bomb(content: bytes) -> bytes:
    """A zip with compressed members: those of a model's file, and zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with contextlib.suppress(zipfile.BadZipFile):
            whole = zipfile.ZipFile(io.BytesIO(content[header_bytes(content):]))
            for name in whole.namelist():
                archive.writestr(name, whole.read(name))
        archive.writestr("archive/data/zeros", bytes(2**26))
    return packed(file.getvalue(), content)
