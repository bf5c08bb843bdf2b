"""Twelve weeks, one after another, unattended: what a person sees who calls `weekly` each Sunday and does nothing else.

    python benchmarks/weeks.py --data ../shared/data/vn_daily.parquet --families trees

The prices are cut at Sundays: what was known before the first one lies in data/raw, and each Sunday brings its week's
file to data/weekly_updates. One week is killed in the middle of training and called again, one waits for a Drive that
vanishes and trains here, one gets a damaged file, which is repaired a week later. Written to results/weeks.csv: the
week, what was done to it, exit codes, seconds, champion, the run's market decision and rank correlation, what the
record says. Further words are flags of `weekly`. Expect half an hour on two cores.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from machine import keep

from vnq_colab.data.prepared import current_id, prepare
from vnq_colab.delivery.bundle import load_bundle
from vnq_colab.delivery.week import Week, week_of
from vnq_colab.errors import VnqError
from vnq_colab.layout import Workspace
from vnq_colab.training.session import latest_session

KILLED, GONE, BAD = 4, 7, 10  # numbers of weeks
KILL_SECONDS = 4.0  # after training began


def command(ws: Workspace, sunday: str, words: list[str]) -> subprocess.Popen:
    """The call of a week."""
    return subprocess.Popen([sys.executable, "-m", "vnq_colab", "weekly", "--no-collect", "--as-of", sunday, "--root",
                             str(ws.root), *words], stdout=subprocess.DEVNULL, stderr=sys.stderr)


def is_training(ws: Workspace) -> bool:
    """Whether the newest run is in its first attempt."""
    try:
        session = latest_session(ws)
        return session.status == "running" and bool(session.attempts)
    except VnqError:
        return False


def wait_until(is_so, process: subprocess.Popen) -> None:
    while not is_so() and process.poll() is None:
        time.sleep(0.2)


def one_week(ws: Workspace, number: int, sunday: str, words: list[str], drive: Path) -> tuple[str, list[int]]:
    """What was done to it, and the exit codes."""
    if number == KILLED:
        first = command(ws, sunday, words)
        wait_until(lambda: is_training(ws), first)
        time.sleep(KILL_SECONDS)
        os.kill(first.pid, signal.SIGKILL)
        return "killed while training, called again", [first.wait(), command(ws, sunday, words).wait()]
    if number == GONE:
        drive.mkdir()
        process = command(ws, sunday, [*words, "--where", "drive", "--remote", str(drive), "--fallback", "local",
                                       "--patience", "0.2"])
        wait_until(lambda: (drive / "data" / "prepared" / "current.json").exists(), process)
        shutil.rmtree(drive)
        return "Drive vanished while Colab was waited for", [process.wait()]
    return "a damaged file" if number == BAD else "", [command(ws, sunday, words).wait()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--first", default="2025-04-06")
    parser.add_argument("--weeks", type=int, default=12)
    parser.add_argument("--root", help="a workspace that stays")
    options, words = parser.parse_known_args()
    prices, rows = pd.read_parquet(options.data), []
    with tempfile.TemporaryDirectory() as scratch:
        ws = Workspace(Path(options.root or Path(scratch) / "ws"))
        sundays = pd.date_range(options.first, periods=options.weeks, freq="7D")
        for folder in (ws.raw, ws.weekly_updates):
            folder.mkdir(parents=True)
        prices[prices["date"] <= sundays[0] - pd.Timedelta("7D")].to_parquet(ws.raw / "history.parquet", index=False)
        for number, sunday in enumerate(sundays, 1):
            known = prices[(prices["date"] > sunday - pd.Timedelta("7D")) & (prices["date"] <= sunday)]
            bad = known.rename(columns={"high": "low", "low": "high"}) if number == BAD else known
            bad.to_parquet(ws.weekly_updates / f"{sunday:%Y-%m-%d}.parquet", index=False)
            began = time.monotonic()
            what, codes = one_week(ws, number, f"{sunday:%Y-%m-%d}", words, Path(scratch) / "GoogleDrive")
            week = Week.load(ws, week_of(f"{sunday:%Y-%m-%d}"))
            rows.append({"week": week.week, "what was done to it": what, "exit codes": " ".join(map(str, codes)),
                         "seconds": round(time.monotonic() - began), "state": week.state,
                         "champion": load_bundle(ws).folder.name, "market": week.gave("market"),
                         "rank correlation": week.gave("rank_correlation"),
                         "record": week.text.replace(str(ws.root), "."), "flags": " ".join(words)})
            print(pd.DataFrame(rows[-1:]).to_string(header=number == 1), flush=True)
            known.to_parquet(ws.weekly_updates / f"{sunday:%Y-%m-%d}.parquet", index=False)  # repaired by the person
        whole = prepare(Workspace(Path(scratch) / "whole"), options.data, as_of=f"{sundays[-1]:%Y-%m-%d}")
        again = prepare(ws, None, as_of=f"{sundays[-1]:%Y-%m-%d}")
        print(f"data of the weeks {current_id(ws)}, of one history {whole.panel.data_id}: "
              f"{'equal' if again.panel.data_id == whole.panel.data_id else 'DIFFERENT'}")
    keep("weeks", rows)


if __name__ == "__main__":
    main()
