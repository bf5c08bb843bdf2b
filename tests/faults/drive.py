"""Runs on a Drive that fails, lies and disappears: training must not notice, and what Drive holds must be whole.

`write_hour` counts what an hour of training writes to Drive, with a clock that runs fast.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.faults.fake_drive import TIMEOUT, age
from tests.faults.kills import EVERY, KILL, MIDDLE, STEP, Tally
from tests.faults.trials import Parent, Reference, Trial, folder_for, picked

# kind of fault: arguments of FakeDrive
FAULTS: dict[str, dict[str, Any]] = {
    "errno 5, 107, 28 and 95, one call in 50": {"rate": 0.02},
    "errno 5, 107, 28 and 95, one call in 4": {"rate": 0.25},
    "errno 5 always": {"rate": 1.0, "errors": [5]},
    "time-outs": {"sleep_rate": 0.1, "sleep_seconds": 0.2, "errors": [TIMEOUT], "rate": 0.02},
    "stores half and says all": {"short_rate": 0.2},
    "files cut when they are closed": {"cut_rate": 0.3},
    "shows old content for a while": {"late_seconds": 0.15},
    "hides new names for a while": {"hidden_seconds": 5.0},
    "full from the 20th write on": {"full_from": 20},
    "disconnected and back": {"gone_from": 0.05, "gone_until": 0.5},
    "folder gone and back": {"gone_from": 0.05, "gone_until": 0.5, "gone_how": "missing"},
    "disconnected for good": {"gone_from": 0.05},
    "folder gone for good": {"gone_from": 0.05, "gone_how": "missing"},
    "everything at once": {"rate": 0.03, "sleep_rate": 0.02, "sleep_seconds": 0.1, "short_rate": 0.03, "cut_rate": 0.05,
                           "late_seconds": 0.05, "hidden_seconds": 1.0},
}
# what may be missing on Drive when the run has ended; with all at once a read that shows the version before, which was
# whole, hides that the last one was cut
NEVER_ARRIVES = ("always", "for good", "full", "one call in 4", "at once")
MOST_AN_HOUR = 20  # writes to Drive


def run_on_bad_drive(parent: Parent, reference: Reference, tally: Tally, fault: str, *, seed: int,
                     size: str = "tiny", patience: float = 4) -> None:
    """One run while Drive misbehaves; then what Drive holds is all there is, on a Drive that is well again."""
    where, every = f"Drive: {fault}, seed {seed}", {"every": EVERY} if size == "tiny" else {}
    with folder_for("drive") as folder:
        trial = Trial(folder, size, on_drive=True)
        slow = {"step_seconds": 0.01} if size == "tiny" else {}
        ended = parent.run(trial.job("train", drive={"seed": seed} | FAULTS[fault], patience=patience, **every, **slow))
        result = ended["result"] or {}
        tally.add("runs on a bad Drive")
        tally.add("faults of Drive", sum(result.get("faults", {}).values()))
        if "error" in result or result.get("status") != "finished":
            return tally.fail(where, f"training stopped: {result} {ended['said'][-600:]}")
        here = [word for word in reference.differences(trial, result) if not word.endswith("on Drive")]
        if here:
            tally.fail(where, here)
        if not any(word in fault for word in NEVER_ARRIVES) and (result["drive"] or trial.jobs(True) != trial.jobs()):
            tally.fail(where, f"not everything has reached Drive: {result['drive']}")
        _check_forbidden(trial, tally, where)
        trial.lose_machine()
        torn = [word for run in trial.run_folders() for word in trial.torn(run)]
        tally.add("torn on Drive, and refused", len(torn))
        go_on_from_drive(parent, reference, tally, trial, where, every)


def arrive_later(parent: Parent, reference: Reference, tally: Tally) -> None:
    """Drive is gone until the run has finished; once it is back, resume brings what is missing there."""
    what = "what could not be brought to Drive is brought later"
    with folder_for("later") as folder:
        trial = Trial(folder, "tiny", on_drive=True)
        gone = {"gone_from": 0.0, "gone_how": "missing"}
        first = parent.run(trial.job("train", every=EVERY, drive=gone, patience=0.5))["result"] or {}
        tally.add(f"tried: {what}")
        if first.get("status") != "finished" or "did not reach Drive" not in first["drive"]:
            return tally.fail(what, str(first))
        second = parent.run(trial.job("resume", every=EVERY))
        if found := reference.differences(trial, second["result"]):
            return tally.fail(what, f"{found}, said: {second['said'][-200:]}")
        tally.add(f"good: {what}")


def go_on_from_drive(parent: Parent, reference: Reference, tally: Tally, trial: Trial, where: str,
                     choices: dict[str, Any]) -> None:
    """A new machine goes on with whatever lies on Drive, to the same bits."""
    known = trial.finished_jobs()
    ended = parent.run(trial.job("go_on", **choices))
    if ended["result"] and "Delete it, and resume" in ended["result"].get("text", ""):
        tally.add("jobs that a person must delete")
        path = Path(ended["result"]["text"].partition(": ")[0])
        path.unlink()
        ended = parent.run(trial.job("go_on", **choices))
    again = known & {step[0] for step, _ in trial.steps()}
    tally.add("finished jobs trained again", len(again))
    result = ended["result"] or {}
    if result.get("status") == "finished" and (damaged := _damaged_jobs(trial)):
        tally.add("finished with a damaged job")  # export refuses it and says what to do
        for path in damaged:
            path.unlink()
        ended = parent.run(trial.job("go_on", **choices))
    if found := reference.differences(trial, ended["result"]):
        tally.fail(f"{where}, new machine", found)
    else:
        tally.add("equal bits from Drive alone")


def _damaged_jobs(trial: Trial) -> list[Path]:
    """Finished jobs that do not verify anywhere."""
    bad = [Path(word.partition(": ")[0]) for run in trial.run_folders() for word in trial.torn(run) if "/done/" in word]
    good = trial.finished_jobs()
    return [path for path in bad if path.name not in good]


def age_drive(parent: Parent, reference: Reference, tally: Tally, *, seed: int) -> None:
    """A machine is lost in mid-run, and Drive shows older versions, halves, nothing, or second files of one name."""
    chance = picked(seed, "age")
    with folder_for("age") as folder:
        trial = Trial(folder, "tiny", on_drive=True)
        ended = parent.run(trial.job("train", every=EVERY, step_seconds=0.01, drive={},
                                     kill=[chance.uniform(200, reference.log_bytes), 0.01]))
        if ended["exit"] != -9:
            return
        trial.lose_machine()
        told = age(trial.home, trial.versions, chance, how_many=chance.choice((1, 2, 3)))
        tally.add("Drives that went back")
        tally.add("files that went back", len(told))
        go_on_from_drive(parent, reference, tally, trial, f"Drive went back, seed {seed}, {told}", {"every": EVERY})


def start_without_drive(parent: Parent, reference: Reference, tally: Tally, *, seed: int) -> None:
    """Drive fails when a paused run is resumed: it goes on, or is refused with a sentence; never a bare OSError."""
    for fault in ({"rate": 1.0, "errors": [107]}, {"rate": 0.3}, {"gone_from": 0.0, "gone_how": "missing"}):
        with folder_for("drive") as folder:
            trial = Trial(folder, "tiny", on_drive=True)
            parent.run(trial.job("train", every=EVERY, at=[MIDDLE, STEP, KILL], step_seconds=0.02))
            bad = parent.run(trial.job("resume", every=EVERY, patience=1,
                                       drive={"seed": seed, "from_start": True} | fault))
            tally.add("starts on a bad Drive")
            if bad["result"] is None or bad["result"].get("is_raw"):
                tally.fail(f"start with Drive {fault}", (bad["result"] or bad)["text"][-900:])
            ended = parent.run(trial.job("go_on", every=EVERY))
            if found := reference.differences(trial, ended["result"]):
                tally.fail(f"start with Drive {fault}, then well", found)


def _check_forbidden(trial: Trial, tally: Tally, where: str) -> None:
    """Nothing on Drive was appended to, renamed or deleted: by the interpreter's own events."""
    bad = [" ".join(event) for number in range(len(trial.attempts)) for event in trial.events(number)
           if event[0] == "drive" and event[1] != "write"]
    tally.add("appends, renames, deletes on Drive", len(bad))
    if bad:
        tally.fail(where, bad[:5])


def write_hours(parent: Parent, tally: Tally, *, hours: float = 3.0, factor: float = 600.0) -> dict[str, float]:
    """Writes to Drive per hour of training at the usual 20 minutes between checkpoints, by kind of file.

    The clock of training runs `factor` times as fast; the run is stopped by the person after `hours` of it. Writes at
    the start and at the end (the config, the logs, the last session) are counted apart.
    """
    with folder_for("hour") as folder:
        trial = Trial(folder, "long", on_drive=True)
        parent.run(trial.job("train", fast_clock=factor, step_seconds=0.05, signals=[[2000, hours * 3600 / factor, 2]]))
        events = trial.events()
        moments = [number for number, event in enumerate(events) if event[0] == "step"]
        seconds = (float(events[moments[-1]][4]) - float(events[moments[0]][4])) * factor
        writes = [(number, kind_of(Path(" ".join(event[2:])))) for number, event in enumerate(events)
                  if event[:2] == ["drive", "write"]]
        counts = Counter(kind for number, kind in writes if moments[0] < number < moments[-1])
        per_hour = {kind: count / (seconds / 3600) for kind, count in sorted(counts.items())}
        outside = Counter(kind for number, kind in writes if not moments[0] < number < moments[-1])
        total = sum(rate for kind, rate in per_hour.items() if kind != "heartbeat")  # a tiny file in its own rhythm
        tally.measure("writes to Drive per hour", total)
        for kind, rate in per_hour.items():
            tally.measure(f"writes to Drive per hour: {kind}", rate)
        tally.measure("writes to Drive at the start and the end", sum(outside.values()))
        _check_forbidden(trial, tally, "writes per hour")
        if total > MOST_AN_HOUR or not set(per_hour) <= {"slot", "manifest", "session", "job", "heartbeat"}:
            tally.fail("writes per hour", str(per_hour))
        return per_hour


def kind_of(path: Path) -> str:
    """slot, manifest, session (with its copy), heartbeat, job, or the file's name."""
    if path.parent.name == "done":
        return "job"
    for kind in ("slot", "manifest", "session", "heartbeat"):
        if path.name.startswith(f"{kind}_") or path.name == f"{kind}.json":
            return kind
    return path.name
