"""Kills, corrupts and disconnects real runs, and shows that not a bit of what they learn changes.

    python -m tests.faults.soak --kills 200          # everything: about 45 minutes on one core
    python -m tests.faults.soak --part kills         # SIGKILL at random instants of a run of 12 symbols × 2 networks
    python -m tests.faults.soak --part points        # SIGKILL at every single writing call of a tiny run
    python -m tests.faults.soak --part drive         # a Google Drive that fails, lies, disappears; writes per hour
    python -m tests.faults.soak mutations --count 5000   # files changed by a hostile hand, and who reads them
    python -m tests.faults.soak --part others        # full disks, jumping clocks, two owners, other machines, ...
    python -m tests.faults.soak --part commands      # export, predict, tidy, prepare, validate killed at each write
    python -m tests.faults.soak --part special       # links, pipes, devices in every folder, and in place of files
    python -m tests.faults.soak --part memory        # small files that ask for much memory, wherever a file is read
    python -m tests.faults.soak --part kills --seed 7 --keep     # other instants; adds to benchmarks/results/faults.csv

The runs are real: the library trains small networks on a made-up market, on this machine, in processes forked for each
attempt. Half of the kills and of the points are on a folder called MyDrive, some with the local files deleted as on a
new machine. Each disturbed run is resumed to its end and compared with an undisturbed one: sha256 of what each job
learnt, content of the finished jobs, exported files. The last table says what was tried, how often it was good, and
the worst that was measured; what failed is told in words, and the command then ends with 1. Linux or macOS only.
"""

import argparse
import functools
import os
import sys

from tests.faults.commands import kill_commands
from tests.faults.damage import resume_after_damage
from tests.faults.drive import FAULTS, age_drive, arrive_later, run_on_bad_drive, start_without_drive, write_hours
from tests.faults.hostile import CODES, finished, special_files
from tests.faults.hostile import memory as try_bombs
from tests.faults.kills import EVERY, Tally, kill_at_points, kill_at_random
from tests.faults.mutants import WAYS, mutate
from tests.faults.others import NEEDS_MOUNT, OTHERS, can_mount
from tests.faults.owners import comes_back, race, taken_over
from tests.faults.trials import HOUSE, Parent, Reference, folder_for, picked

PARTS = ("kills", "points", "drive", "mutations", "others", "commands", "special", "memory")


def kills(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    reference = Reference.of(parent, "twelve")
    kill_at_random(parent, reference, tally, options.kills, options.seed)
    count = tally.counts.get
    rows = [("SIGKILL at a random instant, resumed to equal bits", count("kills"), count("kills survived")),
            ("  of these with a lost machine, from Drive alone", count("kills with a lost machine", 0), None),
            ("runs of 12 × 2 that ended with equal bits", count("runs"), count("runs with equal bits")),
            ("exported networks equal byte for byte", count("bundles compared"), count("bundles compared")),
            ("finished jobs trained again", count("kills"), None, count("finished jobs trained again"), "jobs"),
            ("job files equal in content, other bytes", None, None, count("job files with other bytes"), "files")]
    return rows + [(name, None, None, round(worst, 2), name.split()[0]) for name, worst in tally.worst.items()]


def points(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    reference = Reference.of(parent, "tiny", every=EVERY)
    chosen = list(range(options.seed % options.stride + 1, 1000, options.stride)) if options.stride > 1 else None
    kill_at_points(parent, reference, tally, chosen)
    count = tally.counts.get
    return [("SIGKILL at a writing call, resumed to equal bits", count("points"), count("points survived")),
            ("torn files in place on a local disk", None, None, count("torn files in place", 0), "files"),
            ("torn files on Drive, refused when read", None, None, count("torn on Drive, and refused", 0), "files"),
            ("torn loads or other bits", None, None, count("torn loads or other bits", 0), "runs"),
            ("finished jobs trained again", None, None, count("finished jobs trained again", 0), "jobs")]


def drive(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    write_hours(parent, tally)
    tally.say(f"writes to Drive per hour: {tally.worst['writes to Drive per hour']:.1f}")
    reference = Reference.of(parent, "tiny", every=EVERY)
    for number, fault in enumerate(FAULTS):
        before = len(tally.failures)
        for seed in range(options.seed, options.seed + options.repeats):
            run_on_bad_drive(parent, reference, tally, fault, seed=seed)
        tally.say(f"Drive {number + 1} of {len(FAULTS)}: {fault}, {len(tally.failures) - before} failures")
    for seed in range(options.seed, options.seed + 10 * options.repeats):
        age_drive(parent, reference, tally, seed=seed)
    tally.say(f"{tally.counts['Drives that went back']} Drives that went back")
    start_without_drive(parent, reference, tally, seed=options.seed)
    arrive_later(parent, reference, tally)
    count = tally.counts.get
    rows = [("runs on a Drive that fails or lies, and after it on Drive alone, to equal bits",
             count("runs on a bad Drive") + count("Drives that went back"), count("equal bits from Drive alone")),
            ("faults of Drive that they met", None, None, count("faults of Drive"), "faults"),
            ("appends, renames, deletes on Drive", None, None, count("appends, renames, deletes on Drive"), "calls"),
            ("finished jobs trained again", None, None, count("finished jobs trained again", 0), "jobs"),
            ("what could not be brought to Drive is brought by resume", 1, len(tally.counts.keys() & {
                "good: what could not be brought to Drive is brought later"})),
            ("finished jobs that a person had to delete", None, None,
             count("jobs that a person must delete", 0) + count("finished with a damaged job", 0), "jobs")]
    return rows + [(name, None, None, round(worst, 1), "writes") for name, worst in tally.worst.items()]


def mutations(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    kinds = mutate(parent, tally, options.count, options.seed)
    reference = Reference.of(parent, "tiny", every=EVERY)
    for number in range(options.repeats * 20):
        resume_after_damage(parent, reference, tally, options.seed + number, on_drive=number % 2 == 1)
    names = ("tried", *WAYS, "bad")
    for kind, row in sorted(kinds.items()):
        tally.say(f"{kind:45s} " + ", ".join(f"{row[name]} {name}" for name in names))
    if options.keep:
        keep_table("mutations", [{"file": kind} | {name: str(row[name]) for name in names}
                                 for kind, row in sorted(kinds.items())])
    count = tally.counts.get
    return [("files mutated, read without a traceback or wrong data", options.count, options.count - count("bad", 0)),
            *((f"  of these {way}", count(way, 0), None) for way in WAYS),
            ("runs resumed after damage to equal bits", count("runs resumed after damage"),
             count("equal bits after damage"))]


def others(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    reference, mounts = Reference.of(parent, "tiny", every=EVERY), can_mount()
    for fault in OTHERS:
        if fault in NEEDS_MOUNT and not mounts:
            tally.say(f"{fault.__name__}: skipped, no disk can be mounted here")
            continue
        fault(parent, reference, tally)
        tally.say(fault.__name__.replace("_", " "))
    with Parent() as second:
        for _ in range(options.repeats):
            for choice in (False, True):
                race((parent, second), reference, tally, take_over=choice)
                taken_over((parent, second), reference, tally, on_drive=choice)
            comes_back(parent, reference, tally)
        tally.say("two owners")
    names = [name.removeprefix("tried: ") for name in tally.counts if name.startswith("tried: ")]
    return [(name, tally.counts[f"tried: {name}"], tally.counts.get(f"good: {name}", 0)) for name in names]


def commands(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    for on_drive in (False, True):
        kill_commands(parent, tally, on_drive=on_drive, stride=options.stride)
    names = [name.removeprefix("kills: ") for name in tally.counts if name.startswith("kills: ")]
    return [(f"SIGKILL at a writing call: {name}", tally.counts[f"kills: {name}"], tally.counts.get(f"good: {name}", 0))
            for name in names] + [("bytes changed outside of the workspace", None, None, 0, "bytes")]


def special(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    for on_drive in (False, True):
        special_files(parent, tally, picked(options.seed, "special", on_drive), on_drive=on_drive,
                      n=50 * options.repeats)
        tally.say(f"{tally.counts['special files']} special files, {len(tally.failures)} failures")
    return [("special files", tally.counts["special files"], None), *_attempts(tally)]


def memory(parent: Parent, tally: Tally, options: argparse.Namespace) -> list[tuple]:
    with folder_for("bombs") as folder:
        try_bombs(parent, finished(parent, folder, on_drive=False), tally)
    return _attempts(tally)


def _attempts(tally: Tally) -> list[tuple]:
    count = tally.counts.get
    return [("commands that did their work or refused, nothing outside changed", count("commands"),
             count("commands") - len(tally.failures)),
            *((f"  of these {way}", count(way, 0), None) for way in CODES.values()),
            *((f"most {name}", None, None, round(worst, 2), name) for name, worst in tally.worst.items())]


def keep_table(name: str, rows: list[dict[str, str]]) -> None:
    """Adds them to a table in benchmarks/results."""
    sys.path.insert(0, str(HOUSE / "benchmarks"))
    from machine import keep

    keep(name, rows)


def keep_rows(rows: list[tuple]) -> None:
    """Adds them to benchmarks/results/faults.csv."""
    names = ("what", "tried", "good", "worst", "unit")
    keep_table("faults", [{name: "" if value is None else str(value).strip() for name, value in
                           zip(names, (*row, None, None, None)[:5], strict=True)} for row in rows])


def main() -> int:
    options = _arguments()
    tally_of, rows = {}, []
    with Parent() as parent:
        for part in PARTS if options.part == "all" else (options.part,):
            print(f"\n{part}", flush=True)
            tally = tally_of[part] = Tally(functools.partial(print, flush=True))
            rows += globals()[part](parent, tally, options)
    print(f"\n{'':72s} {'tried':>7s} {'good':>7s} {'worst':>9s}")
    for row in rows:
        what, tried, good, worst, unit = (*row, None, None, None)[:5]
        shown = ["" if value is None else f"{value:,}" for value in (tried, good, worst)]
        print(f"{what:72s} {shown[0]:>7s} {shown[1]:>7s} {shown[2]:>9s} {unit or ''}")
    failures = [f"{part}: {failure}" for part, tally in tally_of.items() for failure in tally.failures]
    print(f"\n{len(failures)} failures", *failures, sep="\n  ")
    if options.keep:
        keep_rows(rows)
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="?", choices=PARTS, help="the same as --part")
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all", help="which faults (default: all)")
    parser.add_argument("--kills", type=int, default=200, help="kills at random instants (default: 200)")
    parser.add_argument("--count", type=int, default=5000, help="mutated files (default: 5000)")
    parser.add_argument("--stride", type=int, default=1, help="of the writing calls only every n-th (default: 1, all)")
    parser.add_argument("--repeats", type=int, default=2, help="of each kind of fault of Drive, with other seeds")
    parser.add_argument("--seed", type=int, default=1, help="of all chance (default: 1)")
    parser.add_argument("--keep", action="store_true", help="add the table to benchmarks/results/faults.csv")
    options = parser.parse_args()
    options.part = options.only or options.part
    if not hasattr(os, "fork"):
        parser.error("this system cannot fork a process")
    return options


if __name__ == "__main__":
    sys.exit(main())
