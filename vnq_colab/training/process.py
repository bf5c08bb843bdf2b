"""This process: its threads and memory, what machine it runs on, and how it is asked to stop."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from vnq_colab.training.session import Session, machine_facts


def set_up_machine(session: Session) -> None:
    """Threads and memory of this process; and what it is, for the promise of equal bits."""
    machine = session.config.machine
    if machine.device == "cuda" and not torch.cuda.is_available():
        session.config = replace(session.config, machine=replace(machine, device="cpu", dtype="float32"))
        print("This run was started on a GPU and there is none here: it goes on on the CPU, "
              "and its last bits may differ.", file=sys.stderr)
    if machine.threads:
        torch.set_num_threads(machine.threads)
    keep_freed_memory()
    facts = machine_facts() | {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": (
        torch.cuda.get_device_name() if session.config.machine.device == "cuda" else "cpu")}
    bits = ("processor", "torch", "threads", "device")
    differs = [f"{name} {session.machine[name]} then, {facts[name]} now" for name in bits
               if name in session.machine and session.machine[name] != facts[name]]
    if differs:
        print(f"Another kind of machine ({'; '.join(differs)}): the same state goes on, its last bits may differ.",
              file=sys.stderr)
    session.machine = facts


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
        print("\nStopping after this step; once more stops at once.", file=sys.stderr, flush=True)

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
