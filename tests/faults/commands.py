"""Commands that are killed at each of their writing calls: a usable bundle is always there, and the command again ends
as the undisturbed one does, byte for byte.

One process after another makes a workspace, on a clock that stands still: prices are prepared, a run of all families
and its final fit is trained, exported unjudged, judged and exported again, deployed and rolled back, and older runs are
tidied away.
"""

import contextlib
import hashlib
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tests.faults.kills import EVERY, Tally
from tests.faults.trials import Parent, Trial, folder_for
from vnq_colab.data.market import next_sessions
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery.bundle import load_bundle
from vnq_colab.delivery.week import Week
from vnq_colab.errors import VnqError
from vnq_colab.files import read_sealed, write_sealed

FROZEN = {"jumping_clock": None}
PORTFOLIO = "symbol,shares,sellable_from\nCASH,500000000,\nSYN002,1000,\n"
WEEKLY = ["weekly", "--no-collect", "--families", "trees", "--profile", "smoke", "--folds", "1", "--symbols",
          "SYN001,SYN002"]
BASKET = {"k": 1, "keep": 1, "hold_days": 3, "traded_share": 0.05}
SUNDAYS = ("2025-12-21", "2025-12-28")
Words = list[str]


def command(parent: Parent, trial: Trial, words: Words, **faults: Any) -> dict[str, Any]:
    """One command on a clock that stands still; how it ended."""
    return parent.run(trial.job("command", words=words, **FROZEN, **faults))


def steps(parent: Parent, trial: Trial, *, quick: bool = False) -> Iterator[tuple[str, Words]]:
    """Each command that is to be killed, on the workspace that the ones before it left; `quick`: export and tidy."""
    names = ("prices.csv", "fewer.csv", "later.csv", "portfolio.csv")
    prices, fewer, later, portfolio = (trial.folder / name for name in names)
    (trial.home / "data" / "raw").mkdir(parents=True)
    table = synthetic_prices(6, 780, seed=92, signal=0.5)
    table.to_csv(prices, index=False)
    last = table[table["date"] == table["date"].max()]
    pd.concat([table, last.assign(date=next_sessions(last["date"].max(), 1)[0])]).to_csv(later, index=False)
    table[table["symbol"] != "SYN006"].to_csv(fewer, index=False)
    portfolio.write_text(PORTFOLIO)
    shutil.copy(prices, trial.home / "data" / "raw")
    well(command(parent, trial, ["prepare"]))
    well(parent.run(trial.job("train", every=EVERY, quiet=True)))
    yield "export, the first", ["export"]
    if not quick:
        yield from _later_steps(parent, trial, fewer, later, portfolio)
    for seed in (1,) if quick else (1, 2):
        well(parent.run(trial.job("train", every=EVERY, quiet=True, seed=seed)))
    yield "export of another run", ["export"]
    if not quick:
        last = max(path.parent.name for path in trial.home.glob("models/*/manifest.json"))
        yield "deploy", ["deploy", "--run", last, "--force"]
        yield "rollback", ["rollback"]
    yield "tidy", ["tidy", "--keep", "1", "--delete"]


def _later_steps(parent: Parent, trial: Trial, fewer: Path, later: Path,
                 portfolio: Path) -> Iterator[tuple[str, Words]]:
    yield "validate", ["validate"]
    yield "export over another", ["export"]
    yield "predict", ["predict", "--portfolio", str(portfolio)]
    manifest = next(trial.home.glob("models/*-2/manifest.json"))
    value = read_sealed(manifest)
    value["verdict"]["market"]["decision"] = value["symbols"]["SYN002"]["decision"] = "accept"
    write_sealed(manifest, value | {"basket": BASKET})
    yield "predict, a new portfolio", ["predict", "--portfolio", "new", "--capital", "500e6"]
    yield "predict, on paper", ["predict", "--data", str(later), "--paper"]
    yield "prepare", ["prepare", "--data", str(fewer)]
    well(command(parent, trial, ["prepare"]))


def well(ended: dict[str, Any]) -> dict[str, Any]:
    assert ended["exit"] == 0 and ended["result"].get("code", 0) == 0, ended
    return ended


def state(trial: Trial) -> dict[str, str]:
    """sha256 of each file of the workspace, here and on this machine's own disk, but what a kill left half written."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for home in (trial.home, trial.local)
            for path in sorted(home.rglob("*")) if path.is_file() and not re.fullmatch(r"\..+\.part", path.name)}


def bundle_of(trial: Trial) -> str:
    """A hash of all that the current bundle is, loaded and verified; "none" where none can be."""
    with trial.eyes() as ws, contextlib.suppress(VnqError):
        bundle = load_bundle(ws)
        facts = bundle.manifest, [one.digest() for one in bundle.forecasters.values()]
        return hashlib.sha256(repr(facts).encode()).hexdigest()
    return "none"


def kill_commands(parent: Parent, tally: Tally, *, on_drive: bool, stride: int = 1, only: str = "") -> None:
    """Every command that has `only` in its name is killed, one after another."""
    with folder_for("commands") as folder:
        trial, saved = Trial(folder / "trial", "tiny", on_drive), folder / "saved"
        for name, words in steps(parent, trial):
            copy(trial.folder, saved)
            if only in name:
                kill_command(parent, tally, trial, saved, name, words, stride=stride)
            copy(saved, trial.folder)
            well(command(parent, trial, words))


def kill_command(parent: Parent, tally: Tally, trial: Trial, saved: Path, name: str, words: Words, *,
                 stride: int = 1) -> None:
    """One command on a saved trial, killed at each of its writing calls (every n-th), before, in and after it."""
    copy(saved, trial.folder)
    before = bundle_of(trial)
    well(command(parent, trial, words, shim={"list": True}))
    calls = [event for event in trial.events() if event[0] == "call"]
    after, end, seen = bundle_of(trial), state(trial), set()
    points = [(number, how) for number, call in enumerate(calls, start=1) if number % stride == 0
              for how in (("middle", "after") if call[2] == "write" else ("after",))]
    for number, how in [(1, "before"), *points]:
        copy(saved, trial.folder)
        where = f"{name}{' on Drive' if trial.on_drive else ''}, {how} call {' '.join(calls[number - 1][1:])}"
        if command(parent, trial, words, shim={"kill_at": number, "how": how})["exit"] != -9:
            tally.fail(where, "was not killed")
            continue
        tally.add(f"kills: {name}")
        good = _is_usable(trial, tally, where, (before, after))
        left = str(state(trial))
        if left not in seen and left != str(end):  # all was written: what comes then is a second time
            seen.add(left)
            good = _ends_alike(parent, trial, words, tally, where, end) and good
        tally.add(f"good: {name}", int(good))
    tally.say(f"{name}{' on Drive' if trial.on_drive else ''}: {len(points) + 1} kills, {len(seen)} states")


def kill_week(parent: Parent, tally: Tally, *, points: int, seed: int, on_drive: bool = False) -> None:
    """A second week, killed at some of its writing calls: there is a whole champion, and the week again completes.

    Runs are named by the time at which they begin, so that here not every byte is the same.
    """
    with folder_for("weeks") as folder:
        trial, saved = Trial(folder / "trial", "tiny", on_drive), folder / "saved"
        table = synthetic_prices(6, 780, seed=92, signal=0.5)
        for place in ("raw", "weekly_updates"):
            (trial.home / "data" / place).mkdir(parents=True)
        table[table["date"] <= SUNDAYS[0]].to_csv(trial.home / "data" / "raw" / "prices.csv", index=False)
        well(parent.run(trial.job("command", words=[*WEEKLY, "--as-of", SUNDAYS[0]])))
        table[(table["date"] > SUNDAYS[0]) & (table["date"] <= SUNDAYS[1])].to_csv(
            trial.home / "data" / "weekly_updates" / "new.csv", index=False)
        copy(trial.folder, saved)
        words = [*WEEKLY, "--as-of", SUNDAYS[1]]
        well(parent.run(trial.job("command", words=words, shim={"list": True})))
        calls = [event for event in trial.events() if event[0] == "call"]
        for number in sorted(random.Random(seed).sample(range(1, len(calls) + 1), min(points, len(calls)))):
            copy(saved, trial.folder)
            where, how = f"week, call {' '.join(calls[number - 1][1:])}", "middle" if number % 2 else "after"
            if parent.run(trial.job("command", words=words, shim={"kill_at": number, "how": how}))["exit"] != -9:
                continue  # a thread was quicker this time
            tally.add("kills: weekly")
            if bundle_of(trial) == "none":
                tally.fail(where, "no champion")
            ended = parent.run(trial.job("command", words=words))
            with trial.eyes() as ws:
                week = Week.load(ws, "2025-W52")
                is_whole = week.state == "done" and load_bundle(ws).manifest["run_id"] == week.gave("run_id")
            if ended["exit"] or (ended["result"] or {}).get("code") or not is_whole:
                tally.fail(where, f"again: {week!r} {ended['said'][-500:]}")


def _is_usable(trial: Trial, tally: Tally, where: str, bundles: tuple[str, str]) -> bool:
    """The old bundle or the new one is there, whole."""
    found = bundle_of(trial)
    if found not in bundles:
        tally.fail(where, f"bundle {found} instead of {bundles}")
    return found in bundles


def _ends_alike(parent: Parent, trial: Trial, words: Words, tally: Tally, where: str, end: dict[str, str]) -> bool:
    """The same command again leaves the files of the undisturbed one, but for those on Drive that it names as torn.

    A bundle may get another folder than the one in which a torn manifest lies.
    """
    ended, found = command(parent, trial, words), state(trial)
    differ = sorted({name for path, _ in found.items() ^ end.items()
                     if f"{(name := Path(path).name)}: " not in ended["said"] or not trial.on_drive
                     if words[0] != "export" or f"{trial.home / 'models'}" not in path})
    if (code := (ended["result"] or {}).get("code")) or differ:
        tally.fail(where, f"again: exit {code}, other files {differ}: {ended['said'][-300:]}")
    return not code and not differ


def copy(source: Path, target: Path) -> None:
    """With its links, hard ones too, and all that is no file."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
