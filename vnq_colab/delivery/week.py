"""The week: what starts it, for systemd, cron, Windows or Docker; and its record, `weeks/<iso week>.json`.

Times are those of Vietnam, wherever the machine stands; the evening's is of Monday to Friday. A record says what each
step did, when, and what it gave; only JSON is read here.
"""

import contextlib
import datetime as dt
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from vnq_colab.clock import spell, utc_now
from vnq_colab.errors import CheckpointError, ConfigError, StorageError, VnqError, shorten
from vnq_colab.files import read_sealed, write_atomic, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.settings import NOT_NEGATIVE, record
from vnq_colab.training.session_file import MOMENT, NAME

ZONE = "Asia/Ho_Chi_Minh"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
BEGIN, END = "# vnq_colab: begin", "# vnq_colab: end"  # of our lines in a crontab
TRIGGER = ("<CalendarTrigger><StartBoundary>{}</StartBoundary><ScheduleByDay><DaysInterval>7</DaysInterval>"
           "</ScheduleByDay></CalendarTrigger>")
HEADS = {"crontab": f"{BEGIN}\n# VNQ_NOTIFY=... and VNQ_REMOTE=... stand above this; what "
         "was missed while the machine was off is not caught up with\n{clock}\n",
         "compose.yaml": "# put the library's wheel into the workspace, then: docker compose up -d\nservices:\n"}
FILES = {  # of each system, by name: the text of each command in it
    "systemd": {  # the colon: $ is no variable; env: systemd itself starts no program with a quote in its path
        "{name}.service": "# {name}.service; VNQ_NOTIFY and VNQ_REMOTE stand in ~/.config/environment.d/\n[Service]\n"
                          "Type=oneshot\nExecStart=:/usr/bin/env {systemd}\n",
        "{name}.timer": "# {name}.timer\n[Timer]\nOnCalendar={when} {zone}\nPersistent=true\n[Install]\n"
                        "WantedBy=timers.target\n"},
    "cron": {"crontab": "{here.minute} {here.hour} * * {days} {cron}\n"},
    "windows": {"{name}.xml": """<!-- {name}.xml -->
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <Triggers>{triggers}</Triggers><Settings><DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
  <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries><StartWhenAvailable>true</StartWhenAvailable></Settings>
  <Actions><Exec><Command>{python}</Command><Arguments>{windows}</Arguments></Exec></Actions>
</Task>
"""},  # Source of the order: Microsoft, MS-TSCH 2.5
    "docker": {"compose.yaml": """  {name}:
    {{image: "python:3.13-slim", init: true, restart: unless-stopped, environment: [TZ={zone}, VNQ_NOTIFY],
     volumes: [{{type: bind, source: {root}, target: /workspace}}], command: [sh, -c, "pip install -q
       /workspace/vnq_colab-*.whl xgboost-cpu apprise && while sleep $$(( ({first} - 1 + {period} - $$(date +%s) %
       {period}) % {period} + 1 )); do {rest}{docker}; done"]}}
"""}}
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


def parse_time(text: str, name: str = "time", other: str = "") -> tuple[int | None, dt.time]:
    """"Sun 02:00" -> (6, 02:00), "17:00" -> (None, 17:00). Raises ConfigError, which also names `other`."""
    found = re.fullmatch(rf"(?:({'|'.join(DAYS)})[a-z]*\s+)?([01]?\d|2[0-3]):([0-5]\d)", text.strip(), re.IGNORECASE)
    if not found:
        raise ConfigError(f"{name} {shorten(text)} is no time: write it as \"Sun 02:00\" or \"17:00\"{other}, in "
                          "Vietnam.")
    return DAYS.index(found[1].title()) if found[1] else None, dt.time(int(found[2]), int(found[3]))


def make_schedule(ws: Workspace, weekly: str, daily: str, system: str | None = None, *,
                  paper: bool = False) -> dict[str, str]:
    """The files of a system, by name; None is the machine's own. `paper`: evenings bring portfolio.csv forward.

    Raises ConfigError for what is no time.
    """
    (day, at), (no_day, later) = parse_time(weekly, "--weekly"), parse_time(daily, "--daily")
    if day is None or no_day is not None:
        raise ConfigError("write --weekly with a day (\"Sun 02:00\"), and --daily without one (\"17:00\").")
    if not (paths := f"{sys.executable} {ws.root}").isprintable() or ("\\" in paths and os.name != "nt"):
        raise ConfigError(f"{shorten(paths)}: no schedule can name such a folder. Choose another.")  # crons differ
    own = "windows" if os.name == "nt" else "systemd" if Path("/run/systemd/system").is_dir() else "cron"
    system, files, now = system or own, {}, dt.datetime.now(VIETNAM)
    knows_zones = system == "cron" and "cronie" in _call("crontab", "-V")
    for name, command, days, time, when, period, rest in (  # period [s] of Docker's loop: Vietnam has no summer time
            ("vnq-weekly", ["weekly", "--until", "Mon 08:30"], [day], at, DAYS[day], 604_800, ""),
            ("vnq-daily", ["predict", "--collect", *["--paper"] * paper], range(5), later,
             "Mon..Fri", 86_400, "[ $$(date +%u) -gt 5 ] || ")):
        words = [sys.executable, "-m", "vnq_colab", *command, "--root", str(ws.root)]
        today = dt.datetime.combine(now.date(), time, now.tzinfo)
        starts = [today + dt.timedelta((day - now.weekday()) % 7 or 7 * (today <= now)) for day in days]
        here = starts if knows_zones else [start.astimezone() for start in starts]
        facts = {"name": name, "zone": ZONE, "python": escape(sys.executable), "here": here[0],
                 "when": f"{when} {time:%H:%M}", "rest": rest, "period": period,
                 "first": int(starts[0].timestamp()) % period,  # seconds after a multiple of the period
                 "docker": shlex.join(["python", *words[1:-1], "/workspace"]),
                 "days": ",".join(sorted(str(start.isoweekday() % 7) for start in here)),
                 "triggers": "".join(TRIGGER.format(start.isoformat()) for start in starts),
                 "root": json.dumps(str(ws.root), ensure_ascii=False).replace("$", "$$"),
                 "clock": f"CRON_TZ={ZONE}" if knows_zones else
                 f"# this cron knows no time zones: {starts[0]:%a %H:%M} in Vietnam is {here[0]:%a %H:%M} here; when "
                 "the clocks here change, schedule it again",
                 "systemd": shlex.join(words).replace("%", "%%"), "cron": shlex.join(words).replace("%", r"\%"),
                 "windows": escape(subprocess.list2cmdline(words[1:]))}
        for pattern, text in FILES[system].items():
            file = pattern.format(**facts)
            files[file] = files.get(file, HEADS.get(file, "").format(**facts)) + text.format(**facts)
    return {file: text + f"{END}\n" * (file == "crontab") for file, text in files.items()}


def install(files: dict[str, str]) -> str:
    """Puts it into systemd or the crontab of this person, once however often, and says how to take it out again."""
    if timers := [name for name in files if name.endswith(".timer")]:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
        _call("systemctl", "--user", "daemon-reload")  # whether it answers, before anything is written
        for name, text in files.items():
            write_atomic(folder / name, text.encode())
        _call("systemctl", "--user", "enable", "--now", *timers)  # which reads the files as well
        return (f"Installed in {folder}; it runs while you are logged in (always after: loginctl enable-linger). Take "
                f"it out with: systemctl --user disable --now {' '.join(timers)}")
    if "crontab" not in files:
        raise ConfigError("--install knows systemd and cron. On Windows save each file, and: schtasks /Create /TN NAME "
                          "/XML FILE. For Docker save it as compose.yaml, and: docker compose up -d.")
    table = re.sub(f"^{BEGIN}$.*?^{END}$\n?", "", _call("crontab", "-l"), flags=re.DOTALL | re.MULTILINE)
    if BEGIN in table:
        raise ConfigError(f"crontab: {BEGIN!r} stands there without its end. Take our lines out: crontab -e.")
    _call("crontab", "-", text="\n".join(filter(None, [table.rstrip("\n"), files["crontab"]])))
    return f"Installed in your crontab. Take it out with: crontab -e, the lines from {BEGIN!r} to {END!r}"


def _call(*words: str, text: str = "") -> str:
    """What a program of the system says. Raises StorageError where it is not there, or refuses."""
    try:
        done = subprocess.run(words, input=text, capture_output=True, encoding="utf-8", errors="surrogateescape",
                              env={**os.environ, "LC_ALL": "C"}, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        done = subprocess.CompletedProcess(words, 1, "", str(error))
    if done.returncode and "-V" not in words and "no crontab for" not in done.stderr:
        raise StorageError(f"{words[0]}: {done.stderr.strip()}. It is not installed: choose another --system.")
    return done.stdout


# ---------------------------------------------------------------------------------------------- what was done in a week
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
        champion, bundle = self.gave("champion"), self.gave("bundle")
        waits = f"; {bundle} is not deployed, see below" if bundle not in (None, champion) else ""
        return found[0] if found else f"champion {champion}{waits}"

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
        return f"{error} The next weekly begins it anew."


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
