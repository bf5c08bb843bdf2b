"""This process: its threads and memory, its machine, how it is asked to stop, and what it shows while it trains."""

import contextlib
import gc
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from vnq_colab import __version__
from vnq_colab.clock import Clock, spell, utc_now
from vnq_colab.errors import StorageError, in_notebook, name_a_few, tell
from vnq_colab.files import read_bytes, write_atomic
from vnq_colab.models.base import Progress
from vnq_colab.progress import now
from vnq_colab.settings import MachineConfig
from vnq_colab.training.session import Session

CPU_INFO = Path("/proc/cpuinfo")
HYBRID_PROFILE = "i7-14700"  # its efficiency cores would keep every product of the fast ones waiting
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "cannot allocate memory")  # as torch says it on a CPU
KEPT_LINES = 2000
MOST_LOG = 2**24  # [bytes]


def processor_name() -> str:
    """The processor's name as its maker writes it, from Linux or from Windows; else what Python knows."""
    with contextlib.suppress(OSError):
        names = re.findall(r"(?m)^model name\s*:\s*(.*\S)", CPU_INFO.read_text(encoding="utf-8", errors="replace"))
        return names[0] if names else platform.machine()
    with contextlib.suppress(ImportError, OSError):
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    return platform.processor() or platform.machine()


def fitting_machine(session: Session) -> MachineConfig:
    """Where a run goes on: as it was stored on the machine it ran on, else on what this machine has."""
    stored = session.config.machine
    if session.machine.get("node") == platform.node() and (stored.device == "cpu" or torch.cuda.is_available()):
        return stored
    if not torch.cuda.is_available():
        return replace(stored, device="cpu", dtype="float32", threads=None)
    fast = torch.cuda.get_device_capability() >= (8, 0)  # bfloat16 in its tensor cores
    return replace(stored, device="cuda", dtype="bfloat16" if fast else "float32")


def set_up_machine(session: Session, machine: MachineConfig) -> None:
    """Threads, memory and kernels of this process; and what equal bits depend on, into the session."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    keep_freed_memory()
    if machine.profile == HYBRID_PROFILE and machine.device == "cpu" and (cores := performance_cores()):
        stay_on(cores)
        with contextlib.suppress(RuntimeError):  # of torch, once anything has run in parallel
            torch.set_num_interop_threads(1)
    device = "cpu"
    if machine.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        device = torch.cuda.get_device_name()
    facts = {"node": platform.node(), "system": platform.system(), "processor": processor_name(),
             "cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__,
             "threads": torch.get_num_threads(), "device": device, "dtype": machine.dtype, "code_version": __version__}
    bits = ("processor", "torch", "threads", "device", "dtype", "code_version")
    differs = [f"{name} {session.machine[name]} then, {facts[name]} now" for name in bits
               if name in session.machine and session.machine[name] != facts[name]]
    if differs:
        tell(f"Not the machine or code of before ({'; '.join(differs)}): the same state goes on, "
             "its last bits may differ.")
    session.machine = facts | {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks: fetching them anew at each step costs a fifth of the time."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own. Source: mallopt(3)
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing is given back meanwhile


def performance_cores(devices: Path = Path("/sys/devices")) -> list[int] | None:
    """The logical CPUs of a hybrid processor's performance cores; None where there are none, or Linux does not say."""
    if not (devices / "cpu_atom").is_dir():
        return None
    with contextlib.suppress(OSError, ValueError):
        ranges = [part.split("-") for part in (devices / "cpu_core" / "cpus").read_text(encoding="ascii").split(",")]
        return [core for part in ranges for core in range(int(part[0]), int(part[-1]) + 1)]
    return None


def stay_on(cores: list[int]) -> None:
    """Keeps every thread of this process on those of its allowed logical CPUs that are among `cores`."""
    with contextlib.suppress(psutil.Error, OSError, AttributeError):  # a container may forbid it; Linux alone has it
        if allowed := os.sched_getaffinity(0) & set(cores):
            for thread in psutil.Process().threads():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    os.sched_setaffinity(thread.id, allowed)


def memory_used() -> str:
    """What this process holds now, and the most that torch held on the GPU, e.g. "1.9 GB, GPU 31.4 GB"."""
    used = f"{psutil.Process().memory_info().rss / 1e9:.1f} GB"
    return used + (f", GPU {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if torch.cuda.is_initialized() else "")


def is_out_of_memory(error: BaseException) -> bool:
    """True for the errors with which Python and torch say that memory did not suffice."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY))


def free_memory() -> None:
    """Frees what nobody holds any longer, on the GPU too; call it outside of the `except` that caught the error."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def stop_requests() -> Iterator[list[str]]:
    """A list that receives a reason when the person or the system asks to stop; a second Ctrl-C stops at once."""
    stop: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread only
        return

    def ask(number: int, _frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append("stopped by the person" if number == signal.SIGINT else "stopped by the system")
        if in_notebook():  # which would paint it red; the last line says it
            return
        with contextlib.suppress(OSError):  # not print: a signal may come while something is being printed
            os.write(2, b"\nStopping after this step; once more stops at once.\n")

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def code_commit() -> str | None:
    """The git commit of the library's own code; None where it is not a git checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.check_output(["git", "-C", folder, "rev-parse", "HEAD"], text=True, timeout=5).strip()
    return None


# ---------------------------------------------------------------------------------------------- what a person sees
class Display:
    """Says where training stands, and keeps the lines that stay for `logs/<run_id>/progress.txt`."""

    def __init__(self, session: Session, clock: Clock, quiet: bool = False):
        self._session, self._clock, self._quiet = session, clock, quiet
        paths = [home.log_folder(session.run_id) / "progress.txt" for home in session.ws.homes]
        self._log, self._lines = paths[0], list[str]()
        for path in reversed(paths):
            with contextlib.suppress(FileNotFoundError, StorageError):
                self._lines = read_bytes(path, MOST_LOG).decode("utf-8", errors="replace").splitlines()
        self._job, self._skill, self._began, self._fresh = "", "", 0.0, list[str]()
        self.say(f"run {session.run_id}: {', '.join(session.config.families)} for {len(session.ledger)} symbols, "
                 f"{len(session.folds)} folds and the final fit, {len(session.jobs)} jobs. {session.note}".rstrip(" ."))
        if skipped := [f"{symbol} ({why})" for symbol, why in session.skipped.items()]:
            self.say(f"skipped {len(skipped)}: {name_a_few(skipped)}")

    @property
    def _n_done(self) -> int:
        return len(self._session.jobs) - len(self._session.unfinished_jobs())

    def say(self, text: str) -> None:
        """A line that stays."""
        self._lines = [*self._lines[-KEPT_LINES:], f"{utc_now()} {text}"]
        if not self._quiet:
            tell(text)

    def start(self, job: str) -> None:
        """A job begins."""
        self._job, self._skill, self._began = job, "", time.monotonic()
        self.show(Progress(0.0, "the first steps"))

    def step(self, progress: Progress) -> None:
        """The learner made a step."""
        if "skill" in progress.measured:
            self._skill = f"validation skill {progress.measured['skill']:.3f}"
        self.show(progress)

    def show(self, progress: Progress) -> None:
        """Shows how much of the run is done, how long it still takes, and what happens now."""
        spent = self._session.jobs[self._job].get("seconds", 0.0) + time.monotonic() - self._began
        done, left, is_known = self._session.work(self._fresh, self._job, progress.share, spent)
        age = self._clock.since("checkpoint")
        parts = [f"job {self._n_done + 1}/{len(self._session.jobs)} {self._job}", progress.words, self._skill,
                 f"saved {spell(age)} ago" if age is not None else "", self._session.drive, memory_used()]
        now(" · ".join(part for part in parts if part), done / (done + left) if done else 0.0,
            f"about {spell(left)} left" if is_known else "")

    def finish(self, job: str) -> None:
        """The line of a job that is done."""
        self._fresh.append(job)
        row = self._session.jobs[job]
        said = "; ".join([row["reason"], *row.get("effects", ())]).strip("; ")
        more = (f", {self._skill}" if self._skill else "") + (f": {said}" if said else "")
        self.say(f"{self._n_done}/{len(self._session.jobs)} {job} {row['state']} in {spell(row['seconds'])}{more}")

    def keep(self) -> None:
        """Rewrites the log file whole."""
        write_atomic(self._log, lambda file: file.writelines(f"{line}\n".encode() for line in self._lines))


def outcome(session: Session) -> str:
    """How a finished run ended."""
    spent, failed = spell(sum(session.seconds.values())), session.failed()
    return f"{len(session.jobs)} jobs done in {spent}" + (f", failed: {name_a_few(failed)}" if failed else "")
