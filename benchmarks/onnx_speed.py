"""A bundle's networks by torch, by onnxruntime and in 8 bits: size, loading, a forecast of one stock and of all.

    python benchmarks/onnx_speed.py --workspace FINISHED_RUN

On a copy of a workspace with a finished run, one thread, processor time, all three in turn in one process. A forecast
is a Forecaster's: from the features of the last days to the table of scores; it is compared with torch's on the last
60 days. Loading is reading, checking and making ready to run. Prints a table and adds it to
benchmarks/results/onnx_speed.csv.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is there

import numpy as np
import pandas as pd
import torch
from machine import keep

from vnq_colab.data.prepared import load_panel
from vnq_colab.delivery.bundle import Bundle, export_bundle
from vnq_colab.delivery.graphs import export_graphs, graph_bundle
from vnq_colab.layout import Workspace
from vnq_colab.models.base import family_module
from vnq_colab.training.session import latest_session

N_DAYS, REPEATS = 60, 21


def timed(work: Callable[[], object]) -> float:
    """Processor time [s]."""
    started = time.process_time()
    work()
    return time.process_time() - started


def beside(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, str]:
    """Beside torch's scores: largest difference, days of another order, rank correlation, share of the best 20."""
    both = ours.assign(other=theirs["score"].to_numpy())
    days = both.groupby("date")
    other_order = (days["score"].rank() != days["other"].rank()).groupby(both["date"]).any().sum()
    best = [days[name].rank(ascending=False) <= 20 for name in ("score", "other")]
    same_best = (best[0] & best[1]).groupby(both["date"]).sum()
    daily = days[["score", "other"]].apply(lambda rows: rows.corr("spearman").iloc[0, 1])
    return {"largest_difference": f"{(both['score'] - both['other']).abs().max():.1e}",
            "days_of_another_order": str(other_order), "rank_correlation": f"{daily.mean():.5f}",
            "worst_day": f"{daily.min():.5f}", "same_best_20": f"{same_best.mean() / 20:.3f}"}


def main() -> None:
    """Prints a row per family and runtime and keeps them in benchmarks/results/onnx_speed.csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, required=True, help="with a finished run; it is copied")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(shutil.copytree(parser.parse_args().workspace, Path(folder) / "ws"))
        session = latest_session(ws)
        bundle, panel = export_bundle(session), load_panel(ws, session.data_id)
        print(f"export: {timed(lambda: export_graphs(bundle, session, int8=True)):.0f} s of one core")
        bundles = {"torch": bundle, "onnx": graph_bundle(bundle)[0], "int8": graph_bundle(bundle, int8=True)[0]}
        keep("onnx_speed", [row for family in ("global", "stockformer") if family in bundle.forecasters
                            for row in rows_of(family, bundles, panel)])


def rows_of(family: str, bundles: dict[str, Bundle], panel: object) -> list[dict[str, str]]:
    """A row for each runtime."""
    one = bundles["torch"].forecasters[family]
    whole = replace(bundles["torch"], forecasters={family: one})
    endings = {"torch": ".pt", "onnx": ".onnx", "int8": "_int8.onnx"}
    loads = {"torch": lambda: family_module(family).load(whole.folder), "onnx": lambda: graph_bundle(whole),
             "int8": lambda: graph_bundle(whole, int8=True)}
    kept = slice(len(panel.days) // 10 * 10 - one.look_back - 10, None)  # as Bundle.predict leaves out what is not seen
    seen = replace(panel, values=panel.values[:, kept], prices=panel.prices[:, kept], present=panel.present[:, kept],
                   days=panel.days[kept])
    last, many = (np.arange(len(part.days)) >= len(part.days) - n for part, n in ((seen, 1), (panel, N_DAYS)))
    expected, times = one.predict(panel, many), {name: {"one": [], "all": []} for name in bundles}
    for _ in range(REPEATS):
        for name, bundle in bundles.items():
            forecaster = bundle.forecasters[family]
            single = forecaster.select(forecaster.symbols[:1])
            times[name]["one"].append(timed(lambda single=single: single.predict(seen, last)))
            times[name]["all"].append(timed(lambda forecaster=forecaster: forecaster.predict(seen, last)))
    rows = []
    for name, bundle in bundles.items():
        place = whole.folder / ("" if name == "torch" else "onnx")
        sizes = [(place / part.replace(".pt", endings[name])).stat().st_size for part in one.files()]
        rows.append({"family": family, "runtime": name, "symbols": str(len(one.symbols)), "files": str(len(sizes)),
                     "megabytes": f"{sum(sizes) / 1e6:.2f}", "load_ms": f"{1000 * timed(loads[name]):.0f}",
                     **{f"{what}_ms": f"{1000 * statistics.median(found):.2f}" for what, found in times[name].items()},
                     **beside(bundle.forecasters[family].predict(panel, many), expected)})
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
