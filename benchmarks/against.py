"""This checkout against another one, step by step in turn: processor time, as a ratio.

    python benchmarks/against.py ../other_checkout --data ../shared/data/vn_daily.parquet --workspace FINISHED_RUN

Every step runs in a process of its own, first by the one checkout, then by the other, `--repeats` times; the ratio is
that of the medians. `--workspace` is a workspace with a finished run, which is copied for every validation.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import keep

STEPS = {
    "load_prices": "vnq.load_prices(data)",
    "build_panel": "vnq.build_panel(vnq.load_prices(data)[0])",
    "prepare": "vnq.prepare(vnq.open_workspace(work), data)",
    "validate": "vnq.validate(vnq.latest_session(vnq.open_workspace(work)))",
    "export": "vnq.export_bundle(vnq.latest_session(vnq.open_workspace(work)))",
    "predict": "vnq.load_bundle(vnq.open_workspace(work).models).predict_latest(vnq.load_prices(data)[0])",
}
PROGRAM = """
import sys, time, warnings
warnings.simplefilter("ignore")
import pandas, torch
import vnq_colab as vnq
data, work = sys.argv[1:]
started = time.process_time()
{step}
print("seconds", time.process_time() - started)
"""


def seconds(checkout: Path, step: str, data: Path, workspace: Path) -> float:
    """Processor time of one step in a fresh process, on a fresh copy of the workspace."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work"
        if step in ("validate", "export", "predict"):
            shutil.copytree(workspace, work)
        done = subprocess.run([sys.executable, "-c", PROGRAM.format(step=STEPS[step]), data, work], text=True,
                              cwd=folder, env=os.environ | {"PYTHONPATH": str(checkout)}, stdout=subprocess.PIPE,
                              check=True)
    return float(done.stdout.rpartition("seconds")[2])


def main() -> None:
    """Prints a row per step and keeps them in benchmarks/results/against.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="another checkout, e.g. of the commit before")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workspace", type=Path, required=True, help="with a finished run and its bundle")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", default=",".join(STEPS))
    options = parser.parse_args()
    here, rows = Path(__file__).resolve().parents[1], []
    for step in options.steps.split(","):
        times: dict[Path, list[float]] = {here: [], options.other.resolve(): []}
        for _ in range(options.repeats):
            for checkout, found in times.items():
                found.append(seconds(checkout, step, options.data.resolve(), options.workspace.resolve()))
        now, before = (statistics.median(found) for found in times.values())
        rows.append({"step": step, "seconds": f"{now:.2f}", "other_seconds": f"{before:.2f}",
                     "ratio": f"{now / before:.2f}"})
        print(rows[-1], flush=True)
    keep("against", rows)


if __name__ == "__main__":
    main()
