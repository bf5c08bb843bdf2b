"""What a benchmark ran on, and where its results are kept."""

import csv
import datetime as dt
import os
import platform
import sys
from pathlib import Path


def cpu_name() -> str:
    """The processor's own name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_gb() -> float:
    """Peak memory of this process so far [GB]. Linux and macOS only."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "linux" else 1e9)


def keep(name: str, rows: list[dict[str, str]]) -> None:
    """Adds rows to `benchmarks/results/<name>.csv`, with date, machine and Python in front."""
    path = Path(__file__).parent / "results" / f"{name}.csv"
    what = {"date": dt.date.today().isoformat(), "machine": f"{cpu_name()}, {os.cpu_count()} cores",
            "python": platform.python_version()}
    is_new = not path.exists()
    path.parent.mkdir(exist_ok=True)
    with open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*what, *rows[0]], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(what | row for row in rows)
