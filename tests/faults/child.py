"""One attempt at a run per job, in a process of its own: a parent that has imported everything forks it in no time.

    python -m tests.faults.child        # reads jobs as JSON, one a line; `trials.Parent` starts and feeds it

The parent never computes with torch, so that a fork finds no threads that are gone. A job is a dictionary:

do          "train", "resume" (of `run`, else of the newest), "go_on" (resume, where there is a run), "export", or
            "command" with its `words`
root, local, scratch, person    the workspace, its local side ($VNQ_LOCAL), the folder of temporary files, and $HOME
log         a file to which each step and each event is appended at once, so that a kill loses nothing of it
size        "tiny" (3 symbols × 2), "twelve" (12 × 2) or "long"; each with all three families
every       steps between two checkpoints; None: `checkpoint_minutes` of the config
kill, signals   [bytes of log, seconds]: SIGKILL so long after the log has so many bytes; and [[*, *, signal], ...]
at          [job, step, ["MemoryError", or signals that the process sends itself]]: after so many steps of that job
shim        arguments of `Shim`, and `list` to log each call; drive: arguments of `FakeDrive`, and `from_start`
and what else `_install` takes: node, take_over, seed, fast_clock, jumping_clock (None: it stands still), windows,
step_seconds, heartbeat_seconds, file_limit, memory (GB more than at the start), patience
"""

import contextlib
import ctypes
import datetime as dt
import functools
import importlib
import json
import os
import platform
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.faults import probes
from tests.faults.fake_drive import FakeDrive
from tests.faults.shim import Shim, refuse_replace, watch_drive
from vnq_colab import clock
from vnq_colab.__main__ import main as command
from vnq_colab.config import RunConfig
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery import tidying
from vnq_colab.delivery.bundle import export_bundle
from vnq_colab.errors import VnqError
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Progress
from vnq_colab.settings import GlobalConfig, LocalConfig, MachineConfig, NetworkConfig, TrainConfig, TreesConfig
from vnq_colab.training import drive_copy, loop, trainer
from vnq_colab.training import session as sessions_module
from vnq_colab.training.process import Display
from vnq_colab.training.session import latest_session, sessions
from vnq_colab.training.trainer import resume, train

SMALL = NetworkConfig(look_back=30, min_context=10, width=16, n_layers=2, n_heads=2, feed_forward=32)
CHECKPOINT_SECONDS = 0.1  # of the run of twelve symbols


@functools.cache
def market(size: str) -> Panel:
    """The panel of a run: one fold."""
    return build_panel(synthetic_prices(6 if size == "tiny" else 12, 780, seed=92, signal=0.5))


def config_of(size: str) -> RunConfig:
    """The tiny run takes two seconds, that of twelve symbols some more."""
    tiny = size == "tiny"
    epochs = {"tiny": 2, "twelve": 3, "long": 400}[size]
    rounds = 30 if tiny else 60
    return RunConfig(
        n_members=2, symbols=("SYN001", "SYN002", "SYN004") if tiny else None, model=SMALL,
        trees=TreesConfig(rounds=rounds, block_rounds=5, least_rounds=rounds, leaves=7, min_child_weight=20.0),
        global_=GlobalConfig(epochs=1 if tiny else min(epochs, 99), windows_per_step=6 if tiny else 12),
        stockformer=LocalConfig(epochs=epochs, patience=epochs, learning_rate_share=1.0),
        train=TrainConfig(epochs=epochs, warmup_epochs=1, patience=epochs,
                          checkpoint_minutes=20.0 if size == "long" else CHECKPOINT_SECONDS / 60),
        machine=MachineConfig(pack_models=4 if tiny else 24 if size == "long" else 8, threads=1),
    )


# ----------------------------------------------------------------------------------------------------------- the child
def _attempt(job: dict[str, Any], tell: Any) -> dict[str, Any]:
    if job["do"] in ("make", "answer"):
        os.environ["VNQ_LOCAL"], tempfile.tempdir = job["local"], job["scratch"]
        return probes.make(job) if job["do"] == "make" else probes.answer_all(job, tell)
    ws = Workspace(Path(job["root"]))
    drive = _install(job, tell)
    if job["do"] == "command":
        return {"code": command([*job["words"], "--root", job["root"]])}
    do, choices = job["do"], {"quiet": job.get("quiet", False), "take_over": job.get("take_over", False)}
    if do == "go_on":
        do = "resume" if sessions(ws) else "train"
        if do == "resume" and latest_session(ws).status == "finished":
            do = "train"  # says that there is nothing to do, or trains what was lost
    if do == "export":
        session = latest_session(ws, job.get("run"))
        export_bundle(session)
    elif do == "train":
        session = train(ws, market(job["size"]), replace(config_of(job["size"]), seed=job.get("seed", 0)), **choices)
    else:
        session = resume(ws, job.get("run"), **choices)
    return {"status": session.status, "why": session.why, "run": session.run_id, "drive": session.drive,
            "hashes": {name: row.get("sha256") for name, row in session.jobs.items()},
            "checkpoint": session.checkpoint and session.checkpoint["sequence"],
            "faults": drive.faults if drive else {}}


def _install(job: dict[str, Any], tell: Any) -> FakeDrive | None:
    """All that is to go wrong, or is to be seen, in this process."""
    os.environ |= {"VNQ_LOCAL": job["local"], "HOME": job["person"]}
    tempfile.tempdir = job["scratch"]
    if "memory" in job:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(job["memory"] * 1e9),) * 2)
    drive_copy.FIRST_WAIT, drive_copy.LONGEST_WAIT = 0.02, 0.3
    loop.DRIVE_PATIENCE = job.get("patience", 90)  # longer than two beats, as in life: a torn heartbeat is waited for
    trainer.WATCH_SECONDS, tidying.EMPTIED = 0.05, 20_000
    sessions_module.HEARTBEAT_SECONDS = job.get("heartbeat_seconds", sessions_module.HEARTBEAT_SECONDS)
    if node := job.get("node"):
        platform.node = lambda: node
    if "fast_clock" in job:
        clock.time = loop.time = _fast(job["fast_clock"])
    if "jumping_clock" in job:
        clock.dt = _jumping(job["jumping_clock"])
    drive = FakeDrive(Path(job["versions"]), **{k: v for k, v in job["drive"].items() if k != "from_start"}) \
        if "drive" in job else None
    if "shim" in job or drive:
        choices = dict(job.get("shim", {}))
        listing = choices.pop("list", False)
        Shim([job["root"], job["local"], job["scratch"]], **choices, layers=(drive.layer,) if drive else (),
             log=tell if listing else None).install()
        if drive and job["drive"].get("from_start"):
            drive.arm()
    if "windows" in job:
        refuse_replace(job["windows"])
    watch_drive(tell)
    _watch_steps(job, tell, drive)
    return drive


def _watch_steps(job: dict[str, Any], tell: Any, drive: FakeDrive | None) -> None:
    """Each step is told with its time; checkpoints are due by steps where the job says so."""
    step, due, number, steps = Display.step, clock.Clock.due, 0, {}

    def watched(self: Display, progress: Progress) -> None:
        nonlocal number
        number += 1
        steps[self._job] = steps.get(self._job, 0) + 1
        place = f"{progress.share:.9f} {progress.words.replace(' ', '_')}"
        tell(f"step {self._job} {place} {time.monotonic():014.6f}")
        if drive:
            drive.arm()
        if number == 1 and "file_limit" in job:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_limit"], job["file_limit"]))
        time.sleep(job.get("step_seconds", 0))
        if [self._job, steps[self._job]] == job.get("at", [])[:2]:
            for what in job["at"][2]:
                if what == "MemoryError":
                    raise MemoryError
                os.kill(os.getpid(), what)
        step(self, progress)

    def by_steps(self: clock.Clock, name: str, **interval: float) -> bool:
        return number % job["every"] == 0 if name == "checkpoint" else due(self, name, **interval)

    Display.step = watched
    if job.get("every"):
        clock.Clock.due = by_steps


def _fast(factor: float) -> types.SimpleNamespace:
    """The module `time` with a monotonic clock that runs so many times as fast."""
    start = time.monotonic()
    fast = types.SimpleNamespace(**vars(time))
    fast.monotonic = lambda: start + (time.monotonic() - start) * factor
    return fast


def _jumping(seed: int | None) -> types.SimpleNamespace:
    """The module `datetime` whose now() is off by up to two days, each time anew; None: it is always one instant."""
    chance = random.Random(seed)

    class Jumping(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            if seed is None:
                return dt.datetime(2026, 1, 31, tzinfo=tz)
            return dt.datetime.now(tz) + dt.timedelta(days=chance.uniform(-2, 2))

    jumping = types.SimpleNamespace(**vars(dt))
    jumping.datetime = Jumping
    return jumping


def _run_job(job: dict[str, Any]) -> None:
    """Never returns: the forked child's whole life."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with its parent. Source: prctl(2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    said = os.open(job["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)

    def tell(text: str) -> None:
        os.write(log, f"{text}\n".encode())

    def answer(value: dict[str, Any]) -> None:
        handle = os.open(job["result"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(handle, json.dumps(value).encode())
        os.close(handle)

    code = 0
    try:
        tell(f"attempt {job['do']}")
        answer(_attempt(job, tell))
    except SystemExit as error:
        answer({"code": error.code})
    except VnqError as error:
        code = 3
        answer({"error": type(error).__name__, "text": str(error)})
    except BaseException as error:
        code = 1
        traceback.print_exc()
        frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                  for frame in traceback.extract_tb(error.__traceback__) if "vnq_colab" in frame.filename]
        answer({"error": type(error).__name__, "text": f"{error} in {' > '.join(frames)}", "is_raw": True})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# ---------------------------------------------------------------------------------------------------------- the parent
def main() -> None:
    """Forks a child for each job, sends its signals, and answers with how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    for name in ("bundle", "earlier_runs", "leaks", "predict", "validate", "weekly"):
        importlib.import_module(f"vnq_colab.delivery.{name}")
    for size in ("tiny", "twelve"):
        market(size)
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        started, pid = time.monotonic(), os.fork()
        if pid == 0:
            _run_job(job)
        print(json.dumps({"pid": pid}), flush=True)
        due = [*job.get("signals", []), *([[*job["kill"], signal.SIGKILL]] if "kill" in job else [])]
        limit, sent_at, since = started + job.get("limit", 120), None, None
        while True:
            done, status, usage = os.wait4(pid, os.WNOHANG)
            now = time.monotonic()
            if done:
                break
            if since is None and due and _size(job["log"]) >= due[0][0]:
                since = now
            if since is not None and now >= since + due[0][1]:
                os.kill(pid, int(due.pop(0)[2]))
                sent_at, since = now, None
            if now > limit:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)
        code = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e9
        print(json.dumps({"exit": code, "seconds": now - started, "timed_out": now > limit, "peak_gb": peak,
                          "sent_at": sent_at or now}), flush=True)


def _size(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return -1


if __name__ == "__main__":
    main()
