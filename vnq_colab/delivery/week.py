"""The record of a week, `weeks/<iso week>.json`: what each step did, when, and what it gave. Only JSON is read here."""

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo

from vnq_colab.clock import spell, utc_now
from vnq_colab.delivery.schedule import ZONE, parse_time
from vnq_colab.errors import VnqError
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.settings import NOT_NEGATIVE
from vnq_colab.training.session_file import MOMENT, NAME, record

STEPS = {"collect": 600, "prepare": 300, "train": 3600, "validate": 600, "export": 120, "deploy": 60, "predict": 60,
         "notify": 30}  # [s] that each takes, until earlier weeks tell
OPENING = dt.timedelta(hours=9, minutes=15)  # of Monday: until then it is last week
N_EARLIER = 4  # weeks whose records tell how long a step takes

Step = record("Step", state=Literal["running", "done", "failed", "paused"], begun=MOMENT, ended=MOMENT | None,
              seconds=NOT_NEGATIVE, text=str, gave=dict[str, Any])
Record = record("Record", week=NAME, where=str, as_of=str | None, begun=MOMENT, steps=dict[Literal[*STEPS], Step])


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
        return cls(ws, **read_sealed(ws.weeks / f"{week}.json", Record))

    def to_dict(self) -> dict[str, Any]:
        """What the record holds, and `state`."""
        return {name: getattr(self, name) for name in Record.__required_keys__} | {"state": self.state}

    def put(self, name: str, step: Step) -> None:
        """Rewrites the record with a step as it stands now; those after it are to be done again."""
        before = list(STEPS)[:list(STEPS).index(name)]
        self.steps = {one: self.steps[one] for one in before if one in self.steps} | {name: step}
        value = self.to_dict()
        del value["state"]
        write_sealed(self.ws.weeks / f"{self.week}.json", value)

    def is_done(self, name: str) -> bool:
        """Whether a step, and each before it, was done."""
        names = list(STEPS)[:list(STEPS).index(name) + 1]
        return all(one in self.steps and self.steps[one]["state"] == "done" for one in names)

    @property
    def state(self) -> str:
        """done, failed, paused, or running (where its process ended: interrupted)."""
        states = [step["state"] for step in self.steps.values()]
        return "done" if self.is_done("notify") else next(
            (one for one in ("failed", "paused") if one in states), "running")

    @property
    def text(self) -> str:
        """Why it is not done, in a sentence; else which bundle is the champion."""
        found = [step["text"] for step in self.steps.values() if step["state"] in ("failed", "paused")]
        return found[0] if found else f"champion {self.gave('champion')}"

    def gave(self, name: str) -> Any:
        """What the last step that gave it gave under this name; None: none did."""
        found = [step["gave"][name] for step in self.steps.values() if name in step["gave"]]
        return found[-1] if found else None

    def line(self) -> str:
        """The week in a line."""
        return f"week {self.week} ({self.where}, begun {_clock(self.begun)}): {self.state}; {self.text}"

    def __repr__(self) -> str:
        return "\n".join([self.line(), *(
            f"  {name:9}{step['state']:8}{_clock(step['begun'])[-5:]}  {spell(step['seconds']):>10}  {step['text']}"
            for name, step in self.steps.items())])


def _clock(moment: str) -> str:
    """A moment by the clock of Vietnam."""
    return f"{dt.datetime.fromisoformat(moment).astimezone(ZoneInfo(ZONE)):%Y-%m-%d %H:%M}"


def weeks(ws: Workspace) -> Iterator[Week]:
    """The records that can be read, newest first."""
    for path in sorted(ws.weeks.glob("*-W*.json"), reverse=True):
        with contextlib.suppress(VnqError, OSError):
            yield Week.load(ws, path.stem)


def week_of(as_of: str | None) -> str:
    """The ISO week of a day, else of now in Vietnam; Monday before the exchange opens belongs to the week before."""
    now = dt.datetime.now(ZoneInfo(ZONE)) - OPENING if as_of is None else dt.datetime.fromisoformat(as_of)
    return "{}-W{:02}".format(*now.isocalendar())


def moment_after(text: str, start: dt.datetime) -> dt.datetime:
    """The next moment after `start` that "Mon 08:30" or "2026-11-30 08:30" names in Vietnam. Raises ConfigError."""
    zone, (day, _, clock) = ZoneInfo(ZONE), text.strip().rpartition(" ")
    if day[:1].isdecimal():
        with contextlib.suppress(ValueError):
            return dt.datetime.combine(dt.date.fromisoformat(day), parse_time(clock, "--until")[1], zone)
    weekday, at = parse_time(text, "--until")
    first = start.astimezone(zone).date()
    moments = (dt.datetime.combine(first + dt.timedelta(days=n), at, zone) for n in range(9))
    return next(moment for moment in moments if moment > start and weekday in (None, moment.weekday()))


def usual_seconds(ws: Workspace, but: str) -> dict[str, float]:
    """How long each step takes: the longest of the last weeks, but of one."""
    earlier = [week for week in weeks(ws) if week.week != but][:N_EARLIER]
    return {name: max((week.steps[name]["seconds"] for week in earlier if week.is_done(name)), default=STEPS[name])
            for name in STEPS}
