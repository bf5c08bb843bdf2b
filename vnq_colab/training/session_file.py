"""What the JSON files of a run hold, as types. As in `session`, only the standard library is imported."""

import contextlib
import datetime as dt
import re
from typing import Annotated, Literal, NotRequired, TypedDict

from vnq_colab.clock import SECONDS_SPENT, seconds_since
from vnq_colab.settings import NOT_NEGATIVE, SHARE, Rule


def _is_moment(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return seconds_since(text) >= 0
    return False


def _is_day(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return f"{dt.date.fromisoformat(text):%Y-%m-%d}" == text
    return False


# what becomes part of a path: a run, a job, a data set
NAME = Annotated[str, Rule("must be a name of letters, digits, _ and -", re.compile(r"[A-Za-z0-9_-]{1,80}").fullmatch)]
MOMENT = Annotated[str, Rule("must be a moment such as 2026-11-21T02:10:00Z", _is_moment)]
DAY = Annotated[str, Rule("must be a day such as 2026-11-20", _is_day)]
PLACE = Annotated[int, Rule("must be a whole number from 0 to 9,999", range(10_000).__contains__)]
PART = Annotated[list[PLACE], Rule("must be a part and of how many", lambda part: len(part) == 2 and
                                   1 <= part[0] <= part[1])]
BEAT = Annotated[float, Rule("must lie in (0, 600] seconds", lambda seconds: 0 < seconds <= 600)]


class DayRange(TypedDict):
    """As of `splits.DayRange`."""

    first: DAY
    last: DAY


class Fold(TypedDict):
    """As of `Splits.to_dict`."""

    train: DayRange
    valid: DayRange
    test: DayRange
    purge_days: PLACE


class JobRow(TypedDict):
    """A job, as of `models.base.Job`, and how far it is."""

    family: NAME
    fold: PLACE | None
    pack: PLACE | None
    symbols: list[str]
    needs: list[NAME]
    learning_rate_share: SHARE
    state: Literal["pending", "training", "done", "failed"]
    reason: str
    sha256: NotRequired[str]  # of its forecaster; "" where all failed
    file: NotRequired[str]  # sha256 of its file in done/
    seconds: NotRequired[NOT_NEGATIVE]


class LedgerRow(TypedDict):
    """How far a symbol is."""

    state: Literal["pending", "training", "done", "failed"]
    reason: str
    best_epochs: NotRequired[list[int]]  # by member
    skill: NotRequired[float | None]


class Machine(TypedDict, total=False):
    """What equal bits depend on, and the process that trains."""

    node: str
    system: str
    processor: str
    cores: int | None
    python: str
    torch: str
    threads: int
    device: str
    dtype: str
    code_version: str
    pid: Annotated[int, Rule("must be the number of a process", lambda pid: 0 < pid < 2**31)]
    pid_started: float


class AttemptRow(TypedDict):
    """One process that trained the run."""

    started: MOMENT
    stopped: MOMENT | None
    why: str | None
    machine: Machine
    owner: str


class Facts(TypedDict):
    """What a checkpoint, or a finished job, is of."""

    job: NAME
    symbols: list[str]
    data_id: NAME
    config_id: str


class Manifest(Facts):
    """What a slot holds."""

    code_version: str
    format: int
    sequence: int
    slot: Literal["slot_a", "slot_b"]
    bytes: int
    sha256: str
    written: MOMENT


Seconds = TypedDict("Seconds", dict.fromkeys(SECONDS_SPENT, float))


class Beat(TypedDict):
    """A heartbeat.json."""

    owner: str
    token: int
    sequence: int
    written: MOMENT
    drive: str
