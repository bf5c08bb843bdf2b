"""What else happens to a machine: full and read-only disks, clocks that jump, signals, two owners, Windows, new nodes.

Each function is one trial: it adds to the tally, and fails there in words. `OTHERS` names them all.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.damage import swap
from tests.faults.kills import EVERY, KILL, MIDDLE, STEP, Tally
from tests.faults.trials import Parent, Reference, Trial, folder_for
from vnq_colab.errors import VnqError
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import HEARTBEAT, MANIFESTS, SESSION, SLOTS

FAST = {"heartbeat_seconds": 0.1}
Fault = Callable[[Parent, Reference, Tally], None]


def killed(parent: Parent, folder: Path, *, on_drive: bool = False, **choices: Any) -> Trial:
    """A tiny run that was killed in its middle."""
    trial = Trial(folder, "tiny", on_drive)
    ended = parent.run(trial.job("train", every=EVERY, step_seconds=0.02, at=[MIDDLE, STEP, KILL], **choices))
    assert ended["exit"] == -9, ended
    return trial


def ends_well(parent: Parent, reference: Reference, tally: Tally, trial: Trial, what: str, **choices: Any) -> str:
    """Goes on to the same bits; what was said."""
    ended = parent.run(trial.job("resume", every=EVERY, **choices))
    tally.add(f"tried: {what}")
    if found := reference.differences(trial, ended["result"]):
        tally.fail(what, found)
    else:
        tally.add(f"good: {what}")
    return ended["said"]


def expect(tally: Tally, what: str, is_so: bool, found: object) -> None:
    if not is_so:
        tally.fail(what, str(found)[-500:])


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of its own at a folder; raises OSError where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        raise OSError("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def disk_that_is_full(parent: Parent, reference: Reference, tally: Tally) -> None:
    """A real disk without room in mid-run: it pauses, says so, and goes on when there is room."""
    with folder_for("full") as folder:
        trial = Trial(folder, "tiny")
        with small_disk(trial.home, "8m"):
            filler, what = trial.home / "filler", "a disk that is full"
            stop = threading.Event()

            def fill() -> None:
                while not stop.is_set() and not list(trial.home.glob("checkpoints/*/slot_b")):
                    time.sleep(0.005)
                with contextlib.suppress(OSError), open(filler, "wb") as file:
                    while True:
                        file.write(bytes(4096))
                        file.flush()

            filling = threading.Thread(target=fill)
            filling.start()
            ended = parent.run(trial.job("train", every=2, step_seconds=0.03))
            stop.set()
            filling.join()
            result = ended["result"] or {}
            expect(tally, what, result.get("status") == "paused" and "disk is full" in result["why"], result)
            filler.unlink()
            ends_well(parent, reference, tally, trial, what)


def file_size_limit(parent: Parent, reference: Reference, tally: Tally) -> None:
    """Files may not grow beyond a size (as a quota says it): it pauses, and goes on without the limit."""
    with folder_for("limit") as folder:
        trial = Trial(folder, "tiny")
        result = parent.run(trial.job("train", every=EVERY, file_limit=120_000))["result"] or {}
        expect(tally, "a limit of a file's size", result.get("status") == "paused" and "disk is full" in result["why"],
               result)
        ends_well(parent, reference, tally, trial, "a limit of a file's size")


def folder_that_is_read_only(parent: Parent, reference: Reference, tally: Tally) -> None:
    """A disk becomes read-only between two attempts: refused with a sentence, and it goes on when it is not."""
    what = "a read-only folder"
    with folder_for("read_only") as folder:
        trial = Trial(folder, "tiny")
        with small_disk(trial.home, "20m"):
            parent.run(trial.job("train", every=EVERY, step_seconds=0.02, at=[MIDDLE, STEP, KILL]))
            subprocess.run(["mount", "-o", "remount,ro", str(trial.home)], check=True)
            ended = parent.run(trial.job("resume", every=EVERY))
            expect(tally, what, ended["exit"] == 3 and "cannot be written" in (ended["result"] or {})["text"], ended)
            subprocess.run(["mount", "-o", "remount,rw", str(trial.home)], check=True)
            ends_well(parent, reference, tally, trial, what)


def clock_that_jumps(parent: Parent, reference: Reference, tally: Tally) -> None:
    """The date jumps by up to two days, back and forward, at every look."""
    with folder_for("clock") as folder:
        trial = killed(parent, folder, jumping_clock=1)
        said = ends_well(parent, reference, tally, trial, "a clock that jumps", jumping_clock=2)
        expect(tally, "a clock that jumps", " -" not in said.partition("lost")[2][:40], said)


def signals(parent: Parent, reference: Reference, tally: Tally) -> None:
    """SIGTERM and Ctrl-C finish the step and save; a second Ctrl-C stops at once; all go on to the same bits."""
    for what, sent, why in (("SIGTERM", [signal.SIGTERM], "stopped by the system"),
                            ("Ctrl-C", [signal.SIGINT], "stopped by the person"),
                            ("Ctrl-C twice", [signal.SIGINT, signal.SIGINT], "twice")):
        with folder_for("signals") as folder:
            trial = Trial(folder, "tiny")
            result = parent.run(trial.job("train", every=EVERY, at=[MIDDLE, STEP, sent]))["result"] or {}
            expect(tally, what, result.get("status") == "paused" and why in result["why"], result)
            ends_well(parent, reference, tally, trial, what)


def memory_that_ends(parent: Parent, reference: Reference, tally: Tally) -> None:
    """A MemoryError in a step halves the pack; other jobs keep their bits, and all are done."""
    with folder_for("memory") as folder:
        trial = Trial(folder, "tiny")
        result = parent.run(trial.job("train", every=EVERY, at=[MIDDLE, 3, ["MemoryError"]]))["result"] or {}
        tally.add("tried: memory that ends")
        good = result.get("status") == "finished" and all(result["hashes"].values())
        expect(tally, "memory that ends", good and len(trial.jobs()) == len(reference.jobs) + 1, result)
        tally.add("good: memory that ends", int(good))


def windows(parent: Parent, reference: Reference, tally: Tally) -> None:
    """os.replace is refused at first, each time, as while a virus scanner reads the target."""
    with folder_for("windows") as folder:
        trial = killed(parent, folder)
        ends_well(parent, reference, tally, trial, "Windows refuses to replace a file that is read", windows=1)


def newer_version(parent: Parent, reference: Reference, tally: Tally) -> None:
    """A session from a newer version is refused with a sentence; a manifest or slot from one gives way to the other."""
    what = "files of a newer version"
    with folder_for("newer") as folder:
        trial = killed(parent, folder)
        run = trial.run_folders()[0]
        whole = read_sealed(run / SESSION)
        write_sealed(run / SESSION, whole | {"format": whole["format"] + 1})
        ended = parent.run(trial.job("resume", every=EVERY, run=run.name))
        expect(tally, what, ended["exit"] == 3 and "newer version" in ended["result"]["text"], ended["result"])
        write_sealed(run / SESSION, whole)
        for name in MANIFESTS:
            if (run / name).exists():
                write_sealed(run / name, read_sealed(run / name) | {"format": 99, "new": True})
        slot = run / SLOTS[0]
        slot.write_bytes(b"VNQPAY99" + slot.read_bytes()[8:])
        said = ends_well(parent, reference, tally, trial, what)
        expect(tally, what, "slot_a: " in said, said)


def other_folder(parent: Parent, reference: Reference, tally: Tally) -> None:
    """The workspace is moved between two attempts; on Drive the local side is then another."""
    for on_drive in (False, True):
        with folder_for("moved") as folder:
            trial = killed(parent, folder / "old", on_drive=on_drive)
            moved = Trial(folder / "new", "tiny", on_drive)
            shutil.move(trial.home, moved.home)
            ends_well(parent, reference, tally, moved, "a run that moved to another folder")


def mixed_manifests(parent: Parent, reference: Reference, tally: Tally) -> None:
    """The payload of one checkpoint beside the manifest of another, with and without session.json."""
    what = "a payload beside the manifest of another"
    for gone in (False, True):
        with folder_for("mixed") as folder:
            trial = killed(parent, folder)
            run = trial.run_folders()[0]
            swap(run, *MANIFESTS)
            if gone:
                (run / SESSION).unlink()
            ends_well(parent, reference, tally, trial, what)


def other_node(parent: Parent, reference: Reference, tally: Tally) -> None:
    """Another machine's run: watched and taken when it is silent, refused while its session or its heartbeat moves."""
    for name in (SESSION, HEARTBEAT):
        run_of_other_node(parent, reference, tally, name)


def run_of_other_node(parent: Parent, reference: Reference, tally: Tally, moving: str) -> None:
    what = f"a run of another machine, {moving} moves"
    with folder_for("node") as folder:
        trial = killed(parent, folder)
        path = trial.run_folders()[0] / SESSION
        whole = read_sealed(path)
        whole |= {"machine": whole["machine"] | {"node": "elsewhere"}, "heartbeat_seconds": 0.5}
        write_sealed(path, whole | {"sequence": whole["sequence"] + 1})
        path = path.with_name(moving)
        whole = read_sealed(path)
        stop = threading.Event()

        def live() -> None:
            for number in range(1, 10_000):
                with contextlib.suppress(OSError, VnqError):
                    write_sealed(path, whole | {"sequence": whole["sequence"] + number})
                if stop.wait(0.1):
                    return

        living = threading.Thread(target=live)
        living.start()
        ended = parent.run(trial.job("resume", every=EVERY))
        stop.set()
        living.join()
        expect(tally, what, ended["exit"] == 3 and "another machine" in (ended["result"] or {})["text"], ended)
        said = ends_well(parent, reference, tally, trial, what)
        expect(tally, what, "Watching" in said and "silent" in said, said)


OTHERS: tuple[Fault, ...] = (disk_that_is_full, file_size_limit, folder_that_is_read_only, clock_that_jumps, signals,
                             memory_that_ends, windows, newer_version, other_folder, mixed_manifests, other_node)
NEEDS_MOUNT = (disk_that_is_full, folder_that_is_read_only)


def can_mount() -> bool:
    """Whether this process may mount a small disk of its own."""
    if os.name == "nt" or os.geteuid():
        return False
    with folder_for("mount") as folder, contextlib.suppress(OSError, subprocess.SubprocessError):
        with small_disk(folder / "disk", "1m"):
            return True
    return False
