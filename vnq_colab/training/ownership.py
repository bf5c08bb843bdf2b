"""Who trains a run: one process at a time, on this machine or another. There are no locks on Drive, only signs of life.

A process that died on this machine is recognised at once. One on another machine is watched: its session.json gets a
new sequence number in every heartbeat. Two clocks are never compared.
"""

import contextlib
import os
import platform
import time
from pathlib import Path
from typing import Any

import psutil

from vnq_colab.clock import seconds_since, spell
from vnq_colab.errors import SessionError, VnqError
from vnq_colab.files import read_sealed
from vnq_colab.layout import SESSION
from vnq_colab.notebook import tell
from vnq_colab.training.session import Session

CLOCK_STEP = 5.0  # [s] by which a corrected clock may move the moment at which a process is said to have started
CPU_INFO = Path("/proc/cpuinfo")
LOOK_SECONDS = 1.0  # between two looks at another machine's session.json


def find_case(session: Session, take_over: bool = False) -> str:
    """How the last attempt at a run ended, in words, once nobody trains it any more.

    Raises SessionError while its owner is alive: at once on this machine, after two of its heartbeats on another.
    `take_over` does not ask; the other process notices at its next write, stops, and writes nothing more.
    """
    here, there = machine_facts()["node"], session.machine.get("node")
    pid = session.machine.get("pid")
    if session.status == "paused":
        elsewhere = f" on another machine ({there})" if there not in (None, here) else ""
        return f"paused{elsewhere} {spell(seconds_since(session.heartbeat))} ago: {session.why}"
    if pid is None:
        return "started, and not trained yet"
    if there == here:
        if pid != os.getpid() and _is_alive(session) and not take_over:
            raise SessionError(f"run {session.run_id} is being trained by another process of this machine ({pid}). "
                               "Wait for it, or stop it with Ctrl-C: then resume goes on.")
        return "its process ended on this machine without a word: a crash, a kill, or a restarted kernel"
    if not take_over:
        _watch(session, there)
        return f"a new machine; the one before ({there}) is silent"
    return f"taken over from another machine ({there})"


def loss_and_rest(session: Session) -> str:
    """What an ended attempt costs, and what is left to do."""
    if session.status == "paused":
        lost = "nothing is lost"
    else:
        kept = session.checkpoint or {}
        in_flight = set(session.left())
        attempt = session.attempts[-1]["started"] if session.attempts else session.started
        since = max(kept["written"], attempt) if kept.get("job") in in_flight else attempt
        silent = seconds_since(session.heartbeat)  # it may have lived until just before its next sign of life
        seconds = max(0.0, seconds_since(since) - silent) + min(silent, session.heartbeat_seconds)
        lost = f"lost: at most {spell(seconds)} of training, since the last checkpoint"
    left = len(session.left())
    done = len(session.jobs) - left
    rest = f"left: {left} of {len(session.jobs)} jobs"
    if done and left:
        rest += f", about {spell(session.seconds['training'] / done * left)} if they take as long as those before"
    return f"{lost}; {rest}"


def _is_alive(session: Session) -> bool:
    with contextlib.suppress(psutil.Error):
        started = psutil.Process(session.machine["pid"]).create_time()
        return abs(started - session.machine["pid_started"]) < CLOCK_STEP
    return False


def _watch(session: Session, there: str) -> None:
    """Looks for two heartbeats whether another machine still writes. Raises SessionError as soon as it does."""
    seconds = 2 * session.heartbeat_seconds
    tell(f"run {session.run_id} was last trained by another machine ({there}). Watching for {spell(seconds)} whether "
         "it still is. When you know that it is gone: --take-over (in Python: take_over=True) does not wait.")
    path = session.ws.checkpoint_folder(session.run_id) / SESSION
    first, started = stored_sequence(path), time.monotonic()
    while time.monotonic() < started + seconds:
        time.sleep(min(LOOK_SECONDS, seconds))
        if (now := stored_sequence(path)) is not None and first is not None and now != first:
            raise SessionError(f"run {session.run_id} is being trained by another machine ({there}), which has just "
                               "given a sign of life. Stop it there, or take the run over with --take-over (in "
                               "Python: take_over=True).")
        first = now if first is None else first


def stored_sequence(path: os.PathLike) -> int | None:
    """The sequence number of a session.json; None where there is none to read."""
    with contextlib.suppress(OSError, VnqError):
        return read_sealed(path).get("sequence")
    return None


def machine_facts() -> dict[str, Any]:
    """What the promise of equal bits depends on, as far as the standard library knows it."""
    return {"node": platform.node(), "system": platform.system(), "processor": processor_name(),
            "cores": os.cpu_count(), "python": platform.python_version()}


def processor_name() -> str:
    """The processor's name as its maker writes it, from Linux or from Windows; else what Python knows."""
    with contextlib.suppress(OSError):
        lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())
    with contextlib.suppress(ImportError, OSError):
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    return platform.processor() or platform.machine()
