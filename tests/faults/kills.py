"""Processes that are killed: at random instants of the run of twelve symbols, and at each writing call of the tiny run.

After each kill the run goes on, often to be killed again, until it is finished; then every bit must be that of an
undisturbed run. On Drive the machine is lost with some kills: what Drive holds must then suffice.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.trials import MOST_ATTEMPTS, Parent, Reference, Trial, folder_for, lost_steps, picked

MOST_TOLD, MOST_CHARACTERS = 12, 600  # failures that are printed when they happen, and of each
EVERY = 8  # steps between two checkpoints of the tiny run
MIDDLE, STEP, KILL = "stockformer_fold1_pack00", 10, [signal.SIGKILL]  # a job in the middle of the tiny run


class Tally:
    """What many trials found: counts, the worst of what was measured, and each failure in words."""

    def __init__(self, tell: Any = print):
        self.tell, self.started = tell, time.monotonic()
        self.counts: dict[str, int] = {}
        self.worst: dict[str, float] = {}
        self.failures: list[str] = []

    def add(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def measure(self, what: str, value: float) -> None:
        self.worst[what] = max(self.worst.get(what, 0.0), value)

    def fail(self, where: str, found: list[str] | str) -> None:
        self.failures.append(f"{where}: {found}")
        if len(self.failures) <= MOST_TOLD:
            self.tell(f"  FAILED {where}: {found}"[:MOST_CHARACTERS])

    def say(self, text: str) -> None:
        self.tell(f"[{time.monotonic() - self.started:5.0f} s] {text}")


def kill_one_run(parent: Parent, reference: Reference, folder: Path, tally: Tally, *, seed: int, kills: int,
                 on_drive: bool = False, size: str = "twelve", exported: bool = False, **choices: Any) -> int:
    """A run that is killed so many times at random instants; returns how many kills hit it."""
    trial, chance, hit = Trial(folder, size, on_drive), picked(seed, "kills", on_drive), 0
    where = f"seed {seed}{' on Drive' if on_drive else ''}"
    first = parent.run(trial.job("go_on", kill=_instant(chance, reference.log_bytes), **choices))
    while first["exit"] == -9 and hit < MOST_ATTEMPTS:
        hit += 1
        tally.add("kills")
        is_lost = on_drive and chance.random() < 0.5
        if is_lost:
            trial.lose_machine()
            tally.add("kills with a lost machine")
        known = trial.finished_jobs()
        if not on_drive:
            _check_whole(trial, tally, where)
        faults = {"kill": _instant(chance, 0.7 * reference.log_bytes)} if hit < kills else {}
        second = parent.run(trial.job("go_on", **faults, **choices))
        _check_attempt(trial, known, second, tally, f"{where}, kill {hit}")
        if (lost := lost_steps(trial, -2, -1, first)) is not None:
            name = "lost machine" if is_lost else "this machine"
            tally.measure(f"steps repeated, {name}", lost[0])
            tally.measure(f"seconds repeated, {name}", lost[1])
        first = second
    if first["exit"] not in (0, -9):
        tally.fail(where, str(first["result"] or first["said"])[-900:])
        return hit
    found = reference.differences(trial, first["result"])
    tally.add("job files with other bytes", len(reference.other_bytes(trial)))
    if exported and not found:
        ended = parent.run(trial.job("export"))
        if ended["exit"] or trial.models() != reference.models:
            found = [f"exported networks differ: {ended['result']}"]
        tally.add("bundles compared")
    if found:
        tally.fail(where, found)
    else:
        tally.add("runs with equal bits")
        tally.add("kills survived", hit)
    tally.add("runs")
    return hit


def _instant(chance: random.Random, log_bytes: float) -> list[float]:
    """When to kill: at any length of its log, and at any time between two steps."""
    return [chance.uniform(0, log_bytes), chance.uniform(0, 0.1)]


def _check_whole(trial: Trial, tally: Tally, where: str) -> None:
    """On a local disk nothing that is in place is ever torn."""
    for folder in trial.run_folders():
        if torn := trial.torn(folder):
            tally.add("torn files in place")
            tally.fail(where, torn)


def _check_attempt(trial: Trial, known: set[str], ended: dict[str, Any], tally: Tally, where: str) -> None:
    """No job that was finished in what survived is trained again, and no error is one without a sentence."""
    again = known & {step[0] for step, _ in trial.steps()}
    tally.add("finished jobs trained again", len(again))
    if again:
        tally.fail(where, f"finished jobs trained again: {sorted(again)}")
    if ended["result"] and ended["result"].get("is_raw"):
        tally.fail(where, ended["result"]["text"][-600:])


def kill_at_random(parent: Parent, reference: Reference, tally: Tally, kills: int, seed: int,
                   per_run: int = 10, **choices: Any) -> None:
    """`kills` in all, half of them on Drive, so many to a run; every second run's exported networks are compared."""
    hit, number = {False: 0, True: 0}, 0
    while sum(hit.values()) < kills:
        on_drive = hit[True] < hit[False]
        with folder_for("kills") as folder:
            left = min(per_run, kills - sum(hit.values()))
            hit[on_drive] += kill_one_run(parent, reference, folder, tally, seed=seed + number, kills=left,
                                          on_drive=on_drive, exported=number % 4 < 2, **choices)
        number += 1
        tally.say(f"{sum(hit.values())} of {kills} kills ({hit[True]} on Drive), {number} runs, "
                  f"{len(tally.failures)} failures")


# ---------------------------------------------------------------------------------------------- at every writing call
def count_points(parent: Parent, on_drive: bool) -> int:
    """Writing calls of an undisturbed tiny run; a few more or less where threads meet."""
    with folder_for("points") as folder:
        trial = Trial(folder, "tiny", on_drive)
        ended = parent.run(trial.job("train", every=EVERY, shim={"list": True}))
        assert ended["exit"] == 0, ended
        return sum(event[0] == "call" for event in trial.events())


def kill_at_point(parent: Parent, reference: Reference, tally: Tally, point: int, *, on_drive: bool,
                  lose_machine: bool = False) -> bool:
    """The tiny run is killed at one writing call (a write: in its middle), and goes on; False when it ended before."""
    where = f"point {point}{' on Drive' if on_drive else ''}{', machine lost' if lose_machine else ''}"
    with folder_for("points") as folder:
        trial = Trial(folder, "tiny", on_drive)
        shim = {"kill_at": point, "how": "middle" if point % 2 else "after", "list": True}
        ended = parent.run(trial.job("train", every=EVERY, shim=shim))
        if ended["exit"] != -9:
            return False
        tally.add("points")
        call = next(event for event in reversed(trial.events()) if event[0] == "call")
        tally.add(f"kind {call[2]} in {call[3]}")
        where += f" ({' '.join(call[2:])})"
        with trial.eyes() as ws:
            local = ws.local.root
        for run in trial.run_folders():
            if (torn := trial.torn(run)) and (not on_drive or run.is_relative_to(local)):
                tally.add("torn files in place")
                tally.fail(where, torn)
            elif torn:
                tally.add("torn on Drive, and refused", len(torn))
        if lose_machine:
            trial.lose_machine()
        known = trial.finished_jobs()
        ended = parent.run(trial.job("go_on", every=EVERY))
        _check_attempt(trial, known, ended, tally, where)
        if found := reference.differences(trial, ended["result"]):
            tally.add("torn loads or other bits")
            tally.fail(where, found)
        else:
            tally.add("points survived")
            tally.add("job files with other bytes", len(reference.other_bytes(trial)))
    return True


def kill_at_points(parent: Parent, reference: Reference, tally: Tally, points: list[int] | None = None) -> None:
    """At every writing call, or at the chosen ones: local, on Drive, and on Drive with the machine lost."""
    for on_drive, lose_machine in ((False, False), (True, False), (True, True)):
        most = count_points(parent, on_drive)
        for point in points or range(1, most + 1):
            kill_at_point(parent, reference, tally, point, on_drive=on_drive, lose_machine=lose_machine)
            if point % 50 == 0 and not points:
                tally.say(f"{'on Drive' if on_drive else 'local'}: point {point} of {most}, "
                          f"{len(tally.failures)} failures")
