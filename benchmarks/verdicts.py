"""What the gates let through: markets without any signal, and one with a planted signal, through the whole pipeline.

    python benchmarks/verdicts.py --worlds 200                           # random walks
    python benchmarks/verdicts.py --worlds 1 --signal 0.1 --days 2600    # rank correlation of the best forecast 0.1

Every world is a synthetic market of 102 stocks of its own: prepared, trained, validated and judged as `vnq_colab run`
does it, in a folder that is removed afterwards. Worlds without a signal take the small models of profile `smoke`, with
every symbol judged, others those of profile `cpu`. Each finished world is a row of benchmarks/results/worlds.csv, and
the same command goes on after the last of them. Prints the share of symbols that either gate set accepts, with its 95 %
interval over worlds, the share that passes each gate, and our rank correlation and intervals.
"""

import argparse
import csv
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from machine import keep


def judged(signal: float, days: int, profile: str, seed: int) -> dict[str, str]:
    """One world, from prices to verdict, as a row of the table."""
    from vnq_colab.config import RunConfig
    from vnq_colab.data.prepared import prepare
    from vnq_colab.data.synthetic import synthetic_prices
    from vnq_colab.delivery.validate import validate
    from vnq_colab.evaluation.probability import interval_coverage
    from vnq_colab.layout import Workspace
    from vnq_colab.training.trainer import train

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder))
        prepared = prepare(ws, synthetic_prices(n_days=days, seed=seed, signal=signal))
        config = RunConfig.for_machine(profile, seed=seed, symbols=prepared.panel.symbols)
        session = train(ws, prepared.panel, config.with_setting("machine.threads", "1"), quiet=True)
        found = validate(session, prepared=prepared)
    ours = found.rows[found.rows["family"] == found.family]
    scores, verdict = found.scores[found.scores["family"] == found.family], found.verdict
    order = found.order.set_index("family").loc[found.family]
    gates = [gate["gate"] for symbol in verdict.symbols.values() for gate in symbol["gates"] if gate["passed"]]
    sets, covered = verdict.summary["gate_sets"], interval_coverage(ours, 0.9)["covered"]
    print(f"signal {signal:g}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)
    return {"signal": f"{signal:g}", "days": str(days), "profile": profile, "seed": str(seed),
            "symbols": str(len(verdict.symbols)), "origins": str(scores["n_days"].max()),
            "accepted_honest": str(sets["honest"]["n_pass"]), "accepted_original": str(sets["original"]["n_pass"]),
            "coverage_of_90": f"{covered.iloc[0]:.4f}" if len(covered) else "nan",
            "rank_correlation": f"{order['open']:.4f}", "rank_correlation_t": f"{order['open_t']:.2f}",
            "gates_passed": "; ".join(f"{name} {gates.count(name)}" for name in dict.fromkeys(gates))}


def finished(wanted: dict[str, str]) -> list[dict[str, str]]:
    """The rows of the table that have these values."""
    path = Path(__file__).parent / "results" / "worlds.csv"
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if wanted.items() <= row.items()]


def share(rows: list[dict[str, str]], name: str) -> str:
    """The mean over worlds of the share of symbols, with its 95 % interval over worlds."""
    from scipy.stats import t

    shares = np.array([int(row[name]) / int(row["symbols"]) for row in rows])
    said = f"{shares.mean():.2%} of the symbols, some in {np.count_nonzero(shares)} of {len(shares)} worlds"
    if len(shares) < 2:
        return said
    half = t.ppf(0.975, len(shares) - 1) * shares.std(ddof=1) / np.sqrt(len(shares))
    return f"{said}, 95% interval {max(0.0, shares.mean() - half):.2%} to {shares.mean() + half:.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=200, help="markets, each with a seed of its own")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--signal", type=float, default=0.0, help="rank correlation of the best possible forecast")
    parser.add_argument("--days", type=int, default=1060)
    parser.add_argument("--profile", help="default: smoke without a signal, else cpu")
    parser.add_argument("--workers", type=int, default=2, help="worlds at a time, one core each")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # of the workers, which load numpy after this
    profile = options.profile or ("cpu" if options.signal else "smoke")
    wanted = {"signal": f"{options.signal:g}", "days": str(options.days), "profile": profile}
    seeds = [str(seed) for seed in range(options.first, options.first + options.worlds)]
    done = {row["seed"] for row in finished(wanted)}
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        for ready in as_completed([pool.submit(judged, options.signal, options.days, profile, int(seed))
                                   for seed in seeds if seed not in done]):
            keep("worlds", [ready.result()])
    rows = [row for row in finished(wanted) if row["seed"] in seeds]
    print(f"{len(rows)} worlds, profile {profile}, {rows[0]['origins']} forecast origins")
    for name in ("honest", "original"):
        print(f"accepted under {name}: {share(rows, f'accepted_{name}')}")
    for name in ("coverage_of_90", "rank_correlation", "rank_correlation_t"):
        values = np.array([float(row[name]) for row in rows])
        print(f"  {name:24} {np.nanmean(values):8.4f}   from {np.nanmin(values):.4f} to {np.nanmax(values):.4f}")
    passed = [dict(part.rsplit(" ", 1) for part in row["gates_passed"].split("; ") if part) for row in rows]
    for name in dict.fromkeys(name for row in passed for name in row):
        mean = sum(int(row.get(name, 0)) for row in passed) / sum(int(row["symbols"]) for row in rows)
        print(f"  passes {name:24} {mean:7.2%}")


if __name__ == "__main__":
    main()
