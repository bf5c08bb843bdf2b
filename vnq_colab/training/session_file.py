"""What the JSON files of a run hold, as types. As in `session`, only the standard library is imported."""

import contextlib
import re
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from vnq_colab.clock import SECONDS_SPENT, seconds_since
from vnq_colab.settings import NOT_NEGATIVE, SHARE, Rule


def _is_moment(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return seconds_since(text) >= 0
    return False


# what becomes part of a path: a run, a job, a data set
NAME = Annotated[str, Rule("must be a name of letters, digits, _ and -", re.compile(r"[A-Za-z0-9_-]{1,80}").fullmatch)]
MOMENT = Annotated[str, Rule("must be a moment such as 2026-11-21T02:10:00Z", _is_moment)]
PLACE = Annotated[int, Rule("must be a whole number from 0 to 9,999", range(10_000).__contains__)]
PART = Annotated[list[int], Rule("must be a part and of how many", lambda part: len(part) == 2 and
                                 1 <= part[0] <= part[1])]
BEAT = Annotated[float, Rule("must lie in (0, 600] seconds", lambda seconds: 0 < seconds <= 600)]
PID = Annotated[int, Rule("must be the number of a process", range(1, 2**31).__contains__)]
STATE = Literal["pending", "training", "done", "failed"]


def record(name: str, **fields: Any) -> Any:
    """A TypedDict: all that a JSON object holds."""
    """A TypedDict."""
    return TypedDict(name, fields)


DayRange = record("DayRange", first=str, last=str)
Fold = record("Fold", train=DayRange, valid=DayRange, test=DayRange, purge_days=PLACE)
Seconds = record("Seconds", **dict.fromkeys(SECONDS_SPENT, float))
LedgerRow = record("LedgerRow", state=STATE, reason=str, best_epochs=NotRequired[list[int]],
                   skill=NotRequired[float | None])
JobRow = record("JobRow", family=NAME, fold=PLACE | None, pack=PLACE | None, symbols=list[str], needs=list[NAME],
                learning_rate_share=SHARE, state=STATE, reason=str, seconds=NotRequired[NOT_NEGATIVE],
                sha256=NotRequired[str], file=NotRequired[str])  # of its forecaster, "" where all failed; of its file
Machine = record("Machine", **dict.fromkeys(("node", "system", "processor", "python", "torch", "device", "dtype",
                                             "code_version"), NotRequired[str]), cores=NotRequired[int | None],
                 threads=NotRequired[int], pid=NotRequired[PID], pid_started=NotRequired[float])
AttemptRow = record("AttemptRow", started=MOMENT, stopped=MOMENT | None, why=str | None, machine=Machine, owner=str)
_FACTS = {"job": NAME, "symbols": list[str], "data_id": NAME, "config_id": str}
Facts = record("Facts", **_FACTS)  # what a checkpoint, or a finished job, is of
Manifest = record("Manifest", **_FACTS, code_version=str, format=int, sequence=int, bytes=int, sha256=str,
                   slot=Literal["slot_a", "slot_b"], written=MOMENT)
Beat = record("Beat", owner=str, token=int, sequence=int, written=MOMENT, drive=str)
