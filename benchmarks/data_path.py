"""What the way from price files to the Panel costs, beside the same features in a loop of plain pandas.

    python benchmarks/data_path.py [PRICES]      # default: ../shared/data/vn_daily.parquet, else the synthetic market
    python benchmarks/data_path.py --scale       # 100 to 1,600 synthetic stocks of 3,750 days

Each part runs in a process of its own, so that its peak memory is its own. Prints a table and adds it to
benchmarks/results/data_path.csv with machine and date. Ends with an error when the two ways do not agree.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import keep, peak_gb
from pandas_loop import loop_features

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.features import FEATURES
from vnq_colab.data.panel import build_panel
from vnq_colab.data.prices import load_prices, read_prices
from vnq_colab.data.synthetic import synthetic_prices

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "vn_daily.parquet"
SIZES, N_DAYS = (100, 200, 400, 800, 1600), 3750
LEAST_AGREEMENT = 0.9999  # share of the values


def ours(path: str) -> dict:
    """Reading, cleaning and the Panel, timed [s]; the peak memory of all of it [GB]."""
    started = time.perf_counter()
    reading = read_prices(path)
    seconds = {"load": time.perf_counter() - started}
    started = time.perf_counter()
    prices, _ = clean_prices(reading.prices, on_bad_rows=reading.on_bad_rows, files=reading.files)
    seconds["clean"] = time.perf_counter() - started
    started = time.perf_counter()
    build_panel(prices)
    seconds["50 features and Panel"] = time.perf_counter() - started
    return {"seconds": seconds, "peak_gb": peak_gb(), "rows": len(prices)}


def loop(path: str) -> dict:
    """The loop, timed [s], and how much of it is equal to the Panel, feature by feature [fraction]."""
    prices, _ = load_prices(path)
    started = time.perf_counter()
    with np.errstate(invalid="ignore", divide="ignore"):
        slow = loop_features(prices).to_numpy("float32")
    seconds = {"the same in a loop of pandas": time.perf_counter() - started}
    peak = peak_gb()
    panel = build_panel(prices)
    quick = panel.values[panel.present]  # [table rows, features]: both are by symbol and date
    equal = np.isclose(slow, quick, rtol=1e-6, atol=1e-6).mean(axis=0)
    return {"seconds": seconds, "peak_gb": peak, "rows": len(prices),
            "equal": dict(zip(FEATURES, equal.tolist(), strict=True))}


def panel(path: str) -> dict:
    """Reading and the Panel, timed [s]."""
    started = time.perf_counter()
    prices, _ = load_prices(path)
    seconds = {"load and clean": time.perf_counter() - started}
    started = time.perf_counter()
    build_panel(prices)
    seconds["50 features and Panel"] = time.perf_counter() - started
    return {"seconds": seconds, "peak_gb": peak_gb(), "rows": len(prices)}


def in_own_process(part: str, path: Path) -> dict:
    """What `part` returns, run in a Python of its own."""
    done = subprocess.run([sys.executable, __file__, "--part", part, str(path)],
                          stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{part} on {path} ended with exit code {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


def compare(path: Path, data: str) -> list[dict[str, str]]:
    """Ours beside the loop."""
    quick, slow = in_own_process("ours", path), in_own_process("loop", path)
    rows = [row(data, measured, stage) for measured in (quick, slow) for stage in measured["seconds"]]
    ratio = slow["seconds"]["the same in a loop of pandas"] / quick["seconds"]["50 features and Panel"]
    share = np.mean(list(slow["equal"].values()))
    print(f"The loop takes {ratio:.1f} times as long. {share:.4%} of its values are equal to 1e-6; least so: "
          + ", ".join(f"{name} {slow['equal'][name]:.4%}" for name in sorted(slow["equal"], key=slow["equal"].get)[:5]))
    if share < LEAST_AGREEMENT:
        sys.exit(f"the two ways agree on {share:.4%} of the values only: one of them is wrong.")
    return rows


def scale(folder: Path) -> list[dict[str, str]]:
    """The Panel of ever more stocks."""
    rows = []
    for n_symbols in SIZES:
        path = folder / f"{n_symbols}.parquet"
        subprocess.run([sys.executable, __file__, "--part", "make", str(path)], check=True)
        measured = in_own_process("panel", path)
        rows += [row(f"synthetic {n_symbols}", measured, stage) for stage in measured["seconds"]]
        path.unlink()
    return rows


def row(data: str, measured: dict, stage: str) -> dict[str, str]:
    """A row of the table, printed."""
    seconds, n_rows = measured["seconds"][stage], measured["rows"]
    print(f"{data:20} {n_rows:9,} rows  {stage:32} {seconds:8.2f} s {1e6 * seconds / n_rows:7.2f} µs per row, peak "
          f"memory {measured['peak_gb']:.2f} GB", flush=True)
    return {"data": data, "rows": str(n_rows), "stage": stage, "seconds": f"{seconds:.2f}",
            "peak_gb": f"{measured['peak_gb']:.2f}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prices", nargs="?", type=Path, help="price file or folder")
    parser.add_argument("--scale", action="store_true", help="synthetic markets of growing size instead")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "make":
        synthetic_prices(int(options.prices.stem), N_DAYS).to_parquet(options.prices)
    elif options.part:
        print(json.dumps({"ours": ours, "loop": loop, "panel": panel}[options.part](str(options.prices))))
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = options.prices or REAL
            if options.scale:
                rows = scale(Path(folder))
            elif path.exists():
                rows = compare(path.resolve(), path.name)
            else:
                print("No price file here: the synthetic market instead.")
                path = Path(folder) / "synthetic.parquet"
                synthetic_prices(185, 2783).to_parquet(path)
                rows = compare(path, "synthetic 185")
            keep("data_path", rows)


if __name__ == "__main__":
    main()
