"""The week's schedule, for systemd, cron, Windows or Docker: what starts `weekly` and `predict` by itself.

Times are those of Vietnam, wherever the machine stands; the evening's is of Monday to Friday.
"""

import datetime as dt
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from vnq_colab.errors import ConfigError, StorageError, shorten
from vnq_colab.files import write_atomic
from vnq_colab.layout import Workspace

ZONE = "Asia/Ho_Chi_Minh"
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
WEEKLY, DAILY = "vnq-weekly", "vnq-daily"
BEGIN, END = "# vnq_colab: begin", "# vnq_colab: end"  # of our lines in a crontab
# The colon: $ is no variable. env: systemd itself starts no program with a quote in its path
SERVICE = "[Unit]\nDescription={0}\n\n[Service]\nType=oneshot\nExecStart=:/usr/bin/env {1}\n"
TIMER = ("[Unit]\nDescription={0}\n\n[Timer]\nOnCalendar={1} " + ZONE + "\nPersistent=true\n\n"
         "[Install]\nWantedBy=timers.target\n")
TRIGGER = ("<CalendarTrigger><StartBoundary>{}</StartBoundary><ScheduleByDay><DaysInterval>7</DaysInterval>"
           "</ScheduleByDay></CalendarTrigger>")  # Source: Microsoft, MS-TSCH 2.5
TASK = """<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <Triggers>{}</Triggers>
  <Settings><DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries><StartWhenAvailable>true</StartWhenAvailable></Settings>
  <Actions><Exec><Command>{}</Command><Arguments>{}</Arguments></Exec></Actions>
</Task>
"""
LOOP = ("pip install -q /workspace/vnq_colab-*.whl xgboost-cpu apprise && while sleep $(( ({0} - 1 + {1} - "
        "$(date +%s) % {1}) % {1} + 1 )); do {2}{3}; done")  # {0}: seconds after a multiple of {1}
HINTS = {
    "systemd": "Install it with --install. $VNQ_NOTIFY is yours to write, into ~/.config/environment.d/vnq.conf.",
    "cron": "Install it with --install. $VNQ_NOTIFY is yours to write, into the crontab, as VNQ_NOTIFY=...",
    "windows": "Save each as a file, and: schtasks /Create /TN NAME /XML FILE. VNQ_NOTIFY is yours to set, with setx.",
    "docker": "Save it as compose.yaml, put the library's wheel into the workspace, and: docker compose up -d"}


@dataclass(frozen=True, repr=False)
class Schedule:
    """What a system starts and when, as the texts of its files."""

    system: str
    files: dict[str, str]  # by name

    def __repr__(self) -> str:
        mark = "<!-- {} -->\n" if self.system == "windows" else "# {}\n"
        return "".join([mark.format(name) + text for name, text in self.files.items()]) + mark.format(
            HINTS[self.system])


def parse_time(text: str, name: str = "time") -> tuple[int | None, dt.time]:
    """"Sun 02:00" -> (6, 02:00), "17:00" -> (None, 17:00). Raises ConfigError."""
    found = re.fullmatch(rf"(?:({'|'.join(DAYS)})[a-z]*\s+)?([01]?\d|2[0-3]):([0-5]\d)", text.strip(), re.IGNORECASE)
    if not found:
        raise ConfigError(f"{name} {shorten(text)} is no time: write it as \"Sun 02:00\" or \"17:00\", by the clock of "
                          "Vietnam.")
    return DAYS.index(found[1].title()) if found[1] else None, dt.time(int(found[2]), int(found[3]))


def make_schedule(ws: Workspace, weekly: str, daily: str, system: str | None = None) -> Schedule:
    """The schedule of a workspace; `system` None is the machine's own. Raises ConfigError for what is no time."""
    (day, at), (no_day, evening) = parse_time(weekly, "--weekly"), parse_time(daily, "--daily")
    if day is None or no_day is not None:
        raise ConfigError("write --weekly with a day (\"Sun 02:00\"), and --daily without one (\"17:00\").")
    if not (paths := f"{sys.executable} {ws.root}").isprintable() or ("\\" in paths and os.name != "nt"):
        raise ConfigError(f"{shorten(paths)}: no schedule can name such a folder. Choose another.")  # crons differ
    here = "windows" if os.name == "nt" else "systemd" if Path("/run/systemd/system").is_dir() else "cron"
    system = system or here
    python, root = ("python", "/workspace") if system == "docker" else (sys.executable, str(ws.root))
    words = {WEEKLY: [python, "-m", "vnq_colab", "weekly", "--root", root],
             DAILY: [python, "-m", "vnq_colab", "predict", "--collect", "--root", root]}
    starts = {WEEKLY: _starts([day], at), DAILY: _starts(range(5), evening)}
    files: dict[str, str] = {}
    if system == "cron":
        files["crontab"] = _crontab(words, starts)
    elif system == "docker":
        files["compose.yaml"] = _compose(words, starts, str(ws.root))
    for name in words:
        when = f"{'Mon..Fri' if name == DAILY else DAYS[day]} {starts[name][0]:%H:%M}"
        if system == "systemd":
            quoted = (re.sub(r'(["\\])', r"\\\1", word).replace("%", "%%") for word in words[name])
            files[f"{name}.service"] = SERVICE.format(name, " ".join(f'"{word}"' for word in quoted))
            files[f"{name}.timer"] = TIMER.format(name, when)
        elif system == "windows":
            files[f"{name}.xml"] = TASK.format("".join(TRIGGER.format(start.isoformat()) for start in starts[name]),
                                               *map(escape, (python, subprocess.list2cmdline(words[name][1:]))))
    return Schedule(system, files)


def _starts(days: "range | list[int]", at: dt.time) -> list[dt.datetime]:
    """The next start on each of the days (0 is Monday), on the clock of Vietnam."""
    now = dt.datetime.now(ZoneInfo(ZONE))
    today = dt.datetime.combine(now.date(), at, now.tzinfo)
    return [today + dt.timedelta((day - now.weekday()) % 7 or 7 * (today <= now)) for day in days]


def _crontab(words: dict[str, list[str]], starts: dict[str, list[dt.datetime]]) -> str:
    """Our lines of a crontab: in Vietnam's time where this cron knows time zones, else in that of the machine."""
    knows_zones = shutil.which("crontab") and "cronie" in _call("crontab", "-V")
    here = starts if knows_zones else {name: [start.astimezone() for start in starts[name]] for name in starts}
    lines = [BEGIN, "# what was missed while the machine was off is not caught up with",
             f"CRON_TZ={ZONE}" if knows_zones else f"# this cron knows no time zones: {starts[WEEKLY][0]:%a %H:%M} in "
             f"Vietnam is {here[WEEKLY][0]:%a %H:%M} here. When the clocks here change, schedule it again"]
    for name, (first, *_) in here.items():
        days = ",".join(sorted(str(start.isoweekday() % 7) for start in here[name]))
        lines.append(f"{first.minute} {first.hour} * * {days} " + shlex.join(words[name]).replace("%", r"\%"))
    return "\n".join([*lines, END, ""])


def _compose(words: dict[str, list[str]], starts: dict[str, list[dt.datetime]], root: str) -> str:
    """Two services that wait and work; in JSON, which is YAML, and quotes whatever a path holds."""
    services = {}
    for name, seconds, rest in ((WEEKLY, 604_800, ""), (DAILY, 86_400, "[ $(date +%u) -gt 5 ] || ")):
        first = int(starts[name][0].timestamp()) % seconds  # Vietnam has no summer time
        services[name] = {"image": "python:3.13-slim", "init": True, "restart": "unless-stopped",
                          "environment": [f"TZ={ZONE}", "VNQ_NOTIFY"],  # whose value is that of the caller
                          "volumes": [{"type": "bind", "source": root, "target": "/workspace"}],
                          "command": ["sh", "-c", LOOP.format(first, seconds, rest, shlex.join(words[name]))]}
    return json.dumps({"services": services}, indent=2, ensure_ascii=False).replace("$", "$$") + "\n"


def install(schedule: Schedule) -> str:
    """Puts it into systemd or the crontab of this person, once however often, and says how to take it out again."""
    if schedule.system == "systemd":
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
        _call("systemctl", "--user", "daemon-reload")  # whether it answers, before anything is written
        for name, text in schedule.files.items():
            write_atomic(folder / name, lambda file, text=text: file.write(text.encode()))
        _call("systemctl", "--user", "daemon-reload")
        _call("systemctl", "--user", "enable", "--now", f"{WEEKLY}.timer", f"{DAILY}.timer")
        return (f"Installed in {folder}; it runs while you are logged in, and always after: loginctl enable-linger\n"
                f"Take it out with: systemctl --user disable --now {WEEKLY}.timer {DAILY}.timer")
    if schedule.system == "cron":
        table = re.sub(f"^{BEGIN}$.*?^{END}$\n?", "", _call("crontab", "-l"), flags=re.DOTALL | re.MULTILINE)
        if BEGIN in table:
            raise ConfigError(f"crontab: {BEGIN!r} stands there without its end. Take our lines out: crontab -e.")
        _call("crontab", "-", text="\n".join(filter(None, [table.rstrip("\n"), schedule.files["crontab"]])))
        return f"Installed in your crontab. Take it out with: crontab -e, the lines from {BEGIN!r} to {END!r}"
    raise ConfigError(f"--install knows systemd and cron. For {schedule.system}: {HINTS[schedule.system]}")


def _call(*words: str, text: str = "") -> str:
    """What a program of the system says. Raises StorageError where it is not there, or refuses."""
    try:
        done = subprocess.run(words, input=text, capture_output=True, encoding="utf-8", errors="surrogateescape",
                              env={**os.environ, "LC_ALL": "C"}, timeout=60)
        refusal = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        refusal = str(error)
    if not refusal or "-V" in words:
        return done.stdout
    if "no crontab for" in refusal:
        return ""
    raise StorageError(f"{words[0]}: {refusal}. Nothing was installed: choose another --system, or print it.")
