"""The record of a week, `weeks/<iso week>.json`: what each step did, when, and what it gave. Only JSON is read here."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from vnq_colab.clock import spell, utc_now
from vnq_colab.delivery.schedule import ZONE, parse_time
from vnq_colab.errors import CheckpointError, VnqError
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.settings import NOT_NEGATIVE
from vnq_colab.training.session_file import MOMENT, NAME, record

STEPS = {"collect": 600, "prepare": 300, "train": 3600, "validate": 600, "export": 120, "deploy": 60, "predict": 60,
         "notify": 30}  # [s] that each takes, until earlier weeks tell
OPENING = dt.timedelta(hours=9, minutes=15)  # of Monday: until then it is last week
N_EARLIER = 4  # weeks whose records tell how long a step takes
VIETNAM = ZoneInfo(ZONE)
STATE = Literal["running", "done", "failed", "paused"]
Step = record("Step", state=STATE, begun=MOMENT, ended=MOMENT | None, seconds=NOT_NEGATIVE, text=str,
              gave=dict[str, Any])
Record = record("Record", week=NAME, where=str, as_of=str | None, begun=MOMENT, steps=dict[Literal[*STEPS], Step],
                state=STATE)


@dataclass(repr=False)
class Week:
    """What was done in a week, step by step."""

    ws: Workspace
    week: str  # such as 2026-W48
    where: str
    as_of: str | None
    begun: str = field(default_factory=utc_now)
    steps: dict[str, Step] = field(default_factory=dict)

    @classmethod
    def load(cls, ws: Workspace, week: str) -> "Week":
        """The record of a week. Raises FileNotFoundError where there is none, CheckpointError for a damaged one."""
        value = read_sealed(ws.weeks / f"{week}.json", Record)
        del value["state"]
        if value["week"] != week:
            raise CheckpointError(f"{ws.weeks / week}.json: is of week {value['week']}.")
        return cls(ws, **value)

    def to_dict(self) -> dict[str, Any]:
        """What the record holds."""
        return {name: getattr(self, name) for name in Record.__required_keys__}

    def put(self, name: str, step: Step) -> None:
        """Rewrites the record with a step as it stands now; those after it are to be done again."""
        before = list(STEPS)[:list(STEPS).index(name)]
        self.steps = {one: self.steps[one] for one in before if one in self.steps} | {name: step}
        write_sealed(self.ws.weeks / f"{self.week}.json", self.to_dict())

    def is_done(self, name: str = "notify") -> bool:
        """Whether a step, and each before it, was done."""
        names = list(STEPS)[:list(STEPS).index(name) + 1]
        return all(one in self.steps and self.steps[one]["state"] == "done" for one in names)

    @property
    def state(self) -> str:
        """done, failed, paused; or running, also where its process has ended."""
        states = [step["state"] for step in self.steps.values()]
        stopped = next((state for state in states if state in ("failed", "paused")), "running")
        return "done" if self.is_done() else stopped

    @property
    def text(self) -> str:
        """Why it is not done, in a sentence; else which bundle is the champion."""
        found = [step["text"] for step in self.steps.values() if step["state"] in ("failed", "paused")]
        return found[0] if found else f"champion {self.gave('champion')}"

    def gave(self, name: str) -> Any:
        """What a step gave under this name; None: none did."""
        return next((step["gave"][name] for step in self.steps.values() if name in step["gave"]), None)

    def __repr__(self) -> str:
        lines = [f"week {self.week} ({self.where}, begun {_clock(self.begun)}): {self.state}; {self.text}"]
        return "\n".join([*lines, *(f"  {name:9}{step['state']:8}{_clock(step['begun'])[-5:]}"
                                    f"{spell(step['seconds']):>11}  {step['text']}"
                                    for name, step in self.steps.items())])


def _clock(moment: str) -> str:
    return f"{dt.datetime.fromisoformat(moment).astimezone(VIETNAM):%Y-%m-%d %H:%M}"


def newest_week(ws: Workspace) -> str:
    """How the newest week stands, in a sentence; empty where there is none."""
    try:
        return next((repr(Week.load(ws, path.stem)).partition("\n")[0] for path in _records(ws)), "")
    except (VnqError, OSError) as error:
        return f"{error}"


def _records(ws: Workspace) -> list[Path]:
    return sorted(ws.weeks.glob("*-W*.json"), reverse=True)


def weeks(ws: Workspace) -> Iterator[Week]:
    """The records that can be read, newest first."""
    for path in _records(ws):
        with contextlib.suppress(VnqError, OSError):
            yield Week.load(ws, path.stem)


def week_of(as_of: str | None) -> str:
    """The ISO week of a day, else of now in Vietnam; Monday before the exchange opens belongs to the week before."""
    day = dt.datetime.now(VIETNAM) - OPENING if as_of is None else dt.datetime.fromisoformat(as_of)
    return "{}-W{:02}".format(*day.isocalendar())


def moment_after(text: str, start: str) -> dt.datetime:
    """The next moment after `start` that "Mon 08:30" or "2026-11-30 08:30" names in Vietnam. Raises ConfigError."""
    with contextlib.suppress(ValueError):
        return dt.datetime.strptime(text.strip(), "%Y-%m-%d %H:%M").replace(tzinfo=VIETNAM)
    weekday, at = parse_time(text, "--until", ' or "2026-11-30 08:30"')
    first = dt.datetime.fromisoformat(start).astimezone(VIETNAM)
    moments = (dt.datetime.combine(first + dt.timedelta(days=n), at, VIETNAM) for n in range(9))
    return next(moment for moment in moments if moment > first and weekday in (None, moment.weekday()))


def usual_seconds(ws: Workspace, but: str) -> dict[str, float]:
    """How long each step takes: the longest of the last weeks, but of one."""
    earlier = [week for week in weeks(ws) if week.week != but][:N_EARLIER]
    return {name: max((week.steps[name]["seconds"] for week in earlier if week.is_done(name)), default=seconds)
            for name, seconds in STEPS.items()}
