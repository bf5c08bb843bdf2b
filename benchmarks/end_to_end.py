"""What the main job costs, stage by stage: wall time and peak memory of each command, in a process of its own.

    python benchmarks/end_to_end.py                                  # the embedded synthetic market
    python benchmarks/end_to_end.py --data PRICES.parquet            # real prices
    python benchmarks/end_to_end.py --data PRICES.parquet --profile i7-14700 --threads 2

Prints a table and adds it to benchmarks/results/end_to_end.csv with machine and date. Needs Linux or macOS for the peak
memory; elsewhere that column is empty.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import keep

ROOT = Path(__file__).resolve().parents[1]


def measure(arguments: list[str]) -> tuple[float, float | None]:
    """(wall time [s], peak memory [GB]) of one Python process. Stops with its words when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    if hasattr(os, "wait4"):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        memory = usage.ru_maxrss / (1e6 if sys.platform == "linux" else 1e9)
    else:
        code, memory = process.wait(), None
    if code != 0:
        sys.exit(f"{' '.join(arguments)} ended with exit code {code}.")
    return time.perf_counter() - started, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="PATH", help="price file or folder (default: the synthetic market)")
    parser.add_argument("--profile", help="the machine (default: what is found)")
    parser.add_argument("--threads", type=int, help="threads of the computation (default: those of the profile)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "vnq_colab"]
        data = ["--data", str(Path(options.data).resolve())] if options.data else []
        train = (["--profile", options.profile] if options.profile else []) + (
            ["--set", f"machine.threads={options.threads}"] if options.threads else [])
        stages = {
            "python alone": ["-c", "pass"],
            "import vnq_colab": ["-c", "import vnq_colab"],
            "prepare": [*command, "prepare", *data],
            "train": [*command, "train", *train],
            "validate": [*command, "validate"],
            "export": [*command, "export"],
            "status": [*command, "status"],
        }
        rows = []
        facts = {"data": Path(options.data).name if options.data else "synthetic",
                 "profile": options.profile or "found"}
        for stage, arguments in stages.items():
            seconds, memory = measure(arguments + (["--root", folder] if arguments[0] == "-m" else []))
            rows.append(facts | {"stage": stage, "seconds": f"{seconds:.2f}",
                                 "peak_gb": "" if memory is None else f"{memory:.2f}"})
            print(f"{stage:20} {seconds:8.2f} s   {'' if memory is None else f'{memory:5.2f} GB'}", flush=True)
    whole = sum(float(row["seconds"]) for row in rows
                if row["stage"] in ("prepare", "train", "validate", "export"))
    print(f"{'the main job':20} {whole:8.2f} s")
    keep("end_to_end", rows)


if __name__ == "__main__":
    main()
