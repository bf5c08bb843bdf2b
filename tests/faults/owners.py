"""Two processes that want one run: on one machine and on two, with and without being told to take it over."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

from tests.faults.kills import EVERY, MIDDLE, Tally
from tests.faults.others import FAST, expect, killed
from tests.faults.trials import Parent, Reference, Trial, folder_for


def finished(ended: dict[str, Any]) -> bool:
    return (ended["result"] or {}).get("status") == "finished"


def gave_way(ended: dict[str, Any]) -> bool:
    """Refused with a sentence, or stopped as taken over: a clean end that writes nothing more."""
    result = ended["result"] or {}
    return ended["exit"] in (0, 3) and ("taken over" in str(result) or "is being trained by" in str(result))


def race(parents: tuple[Parent, Parent], reference: Reference, tally: Tally, *, take_over: bool) -> None:
    """Two processes resume at the same instant: one finishes, the other gives way, and the bits are equal."""
    what = f"two owners at once{', told to take over' if take_over else ''}"
    with folder_for("race") as folder:
        trial = killed(parents[0], folder)
        jobs = [trial.job("resume", every=EVERY, step_seconds=0.03, take_over=take_over, **FAST)
                for _ in parents]
        for parent, job in zip(parents, jobs, strict=True):
            parent.start(job)
        ended = [parent.wait() for parent in parents]
        tally.add(f"tried: {what}")
        trained = [finished(one) and bool(trial.steps(number)) for one, number in zip(ended, (-2, -1), strict=True)]
        late = [finished(one) and not trial.steps(number) for one, number in zip(ended, (-2, -1), strict=True)]
        good = sum(trained) == 1 and all(a or b or gave_way(c) for a, b, c in zip(trained, late, ended, strict=True))
        if not any(map(finished, ended)) and all(one["exit"] in (0, 3) for one in ended):  # each stopped the other
            tally.add("two owners that both stopped")
            ended.append(parents[0].run(trial.job("resume", every=EVERY)))
            good = finished(ended[-1])
        expect(tally, what, good, [(one["result"], one["said"][-200:]) for one in ended])
        winner = next((one["result"] for one in ended if finished(one)), None)
        if found := reference.differences(trial, winner):
            tally.fail(what, found)
        tally.add(f"good: {what}", int(good))


def taken_over(parents: tuple[Parent, Parent], reference: Reference, tally: Tally, *, on_drive: bool) -> None:
    """A second process takes a living run over, on Drive from another machine; the first stops and writes no more.

    Then the first machine asks again: there is nothing to do, or it goes on from where the second one stopped.
    """
    what = f"taken over{' by another machine' if on_drive else ''}"
    with folder_for("over") as folder:
        first = Trial(folder / "one", "tiny", on_drive)
        if on_drive:  # the two machines share Drive only
            second = Trial(folder / "two", "tiny", on_drive)
            shutil.rmtree(second.home.parent)
            second.home.parent.symlink_to(first.home.parent)
            other = {"node": "other", "root": str(first.home)}
        else:
            second, other = first, {}
        parents[0].start(first.job("train", every=EVERY, step_seconds=0.12, **FAST))
        log = Path(first.attempts[-1]["log"])
        _wait_for(lambda: log.exists() and f"step {MIDDLE}" in log.read_text())
        later = parents[1].run(second.job("resume", every=EVERY, take_over=True, **FAST, **other))
        earlier = parents[0].wait()
        tally.add(f"tried: {what}")
        good = finished(later) and gave_way(earlier)
        expect(tally, what, good, [earlier["result"], later["result"]])
        second_sees = Trial(second.folder, "tiny", on_drive)
        if found := reference.differences(second_sees, later["result"]):
            tally.fail(what, found)
        again = parents[0].run(first.job("resume", every=EVERY, **FAST))
        is_well = finished(again)
        expect(tally, f"{what}, and the first machine asks again", is_well, again["result"])
        tally.add(f"good: {what}", int(good and is_well))


def comes_back(parent: Parent, reference: Reference, tally: Tally) -> None:
    """A machine is cut off with a session far ahead of Drive's; another takes the run over from Drive and pauses.

    Then the first machine comes back, with its local files: it must go on, or say what to do that helps.
    """
    what = "the machine before comes back"
    with folder_for("back") as folder:
        first = killed(parent, folder / "one", on_drive=True, heartbeat_seconds=0.01)
        second = Trial(folder / "two", "tiny", on_drive=True)
        shutil.rmtree(second.home.parent)
        second.home.parent.symlink_to(first.home.parent)
        paused = parent.run(second.job("resume", root=str(first.home), node="other", every=EVERY, take_over=True,
                                       step_seconds=0.05, at=["global_final", 2, [signal.SIGINT]], **FAST))
        expect(tally, what, (paused["result"] or {}).get("status") == "paused", paused["result"])
        tally.add(f"tried: {what}")
        again = parent.run(first.job("resume", every=EVERY, **FAST))  # where the kill tore the heartbeat: in two beats
        twice = again if finished(again) else parent.run(first.job("resume", every=EVERY, **FAST))
        expect(tally, what, finished(twice), [again["result"], twice["result"]])
        tally.add(f"good: {what}", int(finished(twice)))
        if finished(twice) and (found := reference.differences(first, twice["result"])):
            tally.fail(what, [*found, twice["result"]["drive"]])


def _wait_for(happened: Any, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not begin"
        time.sleep(0.01)
