"""This process: its threads and memory, what machine it runs on, and how it is asked to stop."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from vnq_colab import __version__
from vnq_colab.config import MachineConfig
from vnq_colab.errors import SessionError
from vnq_colab.training.session import Session, machine_facts


def fitting_machine(session: Session) -> MachineConfig:
    """Where a run goes on: as it was stored on the machine it ran on, else on what this machine has."""
    stored = session.config.machine
    if session.machine.get("node") == machine_facts()["node"] and (stored.device == "cpu" or torch.cuda.is_available()):
        return stored
    if not torch.cuda.is_available():
        return replace(stored, device="cpu", dtype="float32", threads=None)
    fast = torch.cuda.get_device_capability() >= (8, 0)  # bfloat16 in its tensor cores
    return replace(stored, device="cuda", dtype="bfloat16" if fast else "float32")


def set_up_machine(session: Session, machine: MachineConfig) -> None:
    """Threads, memory and kernels of this process; and what it is, for the promise of equal bits."""
    if machine.threads:
        torch.set_num_threads(machine.threads)
    keep_freed_memory()
    device = "cpu"
    if machine.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        device = torch.cuda.get_device_name()
    facts = machine_facts() | {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device,
                               "dtype": machine.dtype, "code_version": __version__}
    bits = ("processor", "torch", "threads", "device", "dtype", "code_version")
    differs = [f"{name} {session.machine[name]} then, {facts[name]} now" for name in bits
               if name in session.machine and session.machine[name] != facts[name]]
    if differs:
        print(f"Not the machine or code of before ({'; '.join(differs)}): the same state goes on, "
              "its last bits may differ.", file=sys.stderr)
    session.machine = facts | {"pid": os.getpid(), "pid_started": psutil.Process().create_time()}


def refuse_second_owner(session: Session) -> None:
    """Raises SessionError while the process that trains this run is alive on this machine."""
    pid = session.machine.get("pid")
    if session.status != "running" or pid in (None, os.getpid()) or session.machine["node"] != machine_facts()["node"]:
        return
    with contextlib.suppress(psutil.Error):
        if psutil.Process(pid).create_time() == session.machine["pid_started"]:
            raise SessionError(f"run {session.run_id} is being trained by another process of this machine ({pid}). "
                               "Wait for it, or stop it with Ctrl-C: then resume goes on.")


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks: fetching them anew at each step costs a fifth of the time."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets a mapping of its own. Source: mallopt(3)
            libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: nothing is given back meanwhile


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
        with contextlib.suppress(OSError):  # not print: a signal may come while something is being printed
            os.write(2, b"\nStopping after this step; once more stops at once.\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
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
    try:
        command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
