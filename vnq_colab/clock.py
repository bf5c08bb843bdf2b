"""Time: what is due, how much is left, and where the seconds went."""

import contextlib
import datetime as dt
import os
import time
from collections.abc import Iterator

from vnq_colab.errors import ConfigError

SECONDS_SPENT = ("training", "evaluation", "checkpoint", "idle")


def utc_now() -> str:
    """Now as text, e.g. "2026-11-21T02:10:00Z"."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_stamp() -> str:
    """Now as the beginning of a run's name, e.g. "20261121T021000"."""
    return dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S")


def seconds_since(moment: str) -> float:
    """Seconds from a moment as `utc_now` writes it; never negative, whatever two clocks say."""
    then = dt.datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    return max(0.0, (dt.datetime.now(dt.UTC) - then).total_seconds())


def machine_age_hours() -> float | None:
    """Hours since the machine's first process started; None where the system does not tell.

    On Colab this is the age that the plan's limit counts, whatever cell runs now. Source: proc(5), field 22 of stat.
    """
    try:
        with open("/proc/1/stat", encoding="ascii") as stat, open("/proc/uptime", encoding="ascii") as uptime:
            started = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
            return (float(uptime.read().split()[0]) - started) / 3600
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def spell(seconds: float) -> str:
    """Seconds in words, as exact as a person wants them: 42 s, 7 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


class Clock:
    """Says what is due, when time is up, and counts the seconds by what they were spent on.

    `hours` is counted from now; None means no limit.
    """

    def __init__(self, hours: float | None = None, spent: dict[str, float] | None = None):
        if hours is not None and not hours >= 0:
            raise ConfigError(f"hours = {hours}: must not be negative.")
        self._started = time.monotonic()
        self._last: dict[str, float] = {}
        self._happened: dict[str, float] = {}
        self._deadline = None if hours is None else self._started + hours * 3600
        self.seconds = {name: 0.0 for name in SECONDS_SPENT} | (spent or {})
        self._before = sum(self.seconds.values())

    def due(self, name: str, *, seconds: float) -> bool:
        """True once per interval and name; the first time after one whole interval has passed."""
        now = time.monotonic()
        if now - self._last.setdefault(name, self._started) < seconds:
            return False
        self._last[name] = now
        return True

    def mark(self, name: str) -> None:
        """Says that `name` happened now, so that it is due one whole interval from now."""
        self._last[name] = self._happened[name] = time.monotonic()

    def since(self, name: str) -> float | None:
        """Seconds since `name` was marked; None when it never was."""
        return time.monotonic() - self._happened[name] if name in self._happened else None

    def is_up(self, margin_seconds: float = 0.0) -> bool:
        """True when less than the margin is left."""
        return self._deadline is not None and time.monotonic() + margin_seconds >= self._deadline

    @contextlib.contextmanager
    def spend(self, name: str) -> Iterator[None]:
        """Adds the time of the block to `seconds[name]`."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started

    def settle(self) -> None:
        """Counts as idle what has passed since the start and was spent on nothing else; call it once, at the end."""
        self.seconds["idle"] += max(0.0, time.monotonic() - self._started - sum(self.seconds.values()) + self._before)

    def move(self, source: str, target: str, seconds: float) -> None:
        """Counts seconds that were added to `source` under `target` instead."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds
