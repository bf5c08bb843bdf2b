"""Does it cost accuracy that every day of a window is labelled, instead of the last one alone?

    python benchmarks/supervision.py ../shared/data/vn_daily.parquet      # 24 symbols, 3 seeds, about 25 minutes

Both forms train the same networks on the same days with the same patience. Compared are the validation loss on full
windows, relative to the forecast of no change, and the rank correlation of the 5-day forecast with its outcome on the
test days. Prints a table with 95 % intervals over symbols and seeds, and adds it to benchmarks/results/supervision.csv.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import keep
from scipy.stats import spearmanr

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prepared import default_universe
from vnq_colab.data.prices import load_prices
from vnq_colab.data.splits import DayRange, Splits, split_days
from vnq_colab.models.base import family_module
from vnq_colab.training.process import keep_freed_memory

FORMS = ("all_days", "last_day")


def trained(panel: Panel, splits: Splits, config: RunConfig) -> dict[str, object]:
    """One form and seed: seconds, best epochs, and per symbol the loss ratio and the rank correlation."""
    learner = family_module(config.family).make_learner(panel, splits.train, splits.valid, config)
    started = time.perf_counter()
    while not learner.finished:
        learner.step()
    seconds = time.perf_counter() - started
    forecaster = learner.forecaster()
    labels, known = panel.labels(config.model.horizon)
    actual = labels.sum(axis=2)

    def outcomes(days: DayRange) -> list[tuple[np.ndarray, np.ndarray]]:
        origins = days.mask(panel.days)
        expected = forecaster.daily(panel, origins).sum(axis=2)
        return [(expected[row, use], actual[row, origins][use])
                for row, use in enumerate(known[:, origins])]

    spread = forecaster.scaler.target * np.sqrt(config.model.horizon)
    ratios = [huber((a - e) / s) / huber(a / s) for (e, a), s in zip(outcomes(splits.valid), spread, strict=True)]
    ranks = [spearmanr(e, a).statistic for e, a in outcomes(splits.test)]
    return {"seconds": seconds, "epochs": learner.measure()["best_epoch"].mean(), "loss": ratios, "rank": ranks}


def huber(error: np.ndarray) -> float:
    return float(torch.nn.functional.huber_loss(torch.from_numpy(error), torch.zeros(len(error))))


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval. Symbols of one day move together, so it is rather too narrow."""
    return float(np.mean(values)), 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prices", type=Path)
    parser.add_argument("--symbols", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--profile", default="cpu")
    options = parser.parse_args()
    keep_freed_memory()
    panel = build_panel(load_prices(options.prices)[0])
    splits = split_days(panel.days)
    names = default_universe(panel)
    panel = panel.select(names[:: max(1, len(names) // options.symbols)][: options.symbols])
    rows = []
    found = {form: {"loss": [], "rank": [], "seconds": 0.0, "epochs": []} for form in FORMS}
    for seed in range(options.seeds):
        for form in FORMS:
            config = RunConfig.for_machine(options.profile, seed=seed, n_members=1)
            config = replace(config, train=replace(config.train, supervise=form))
            one = trained(panel, splits, config)
            print(f"seed {seed}, {form}: {one['seconds']:.0f} s, best epoch {one['epochs']:.1f}, loss "
                  f"{np.mean(one['loss']):.4f}, rank correlation {np.mean(one['rank']):.4f}", flush=True)
            found[form]["loss"] += one["loss"]
            found[form]["rank"] += one["rank"]
            found[form]["seconds"] += one["seconds"]
            found[form]["epochs"].append(one["epochs"])
    for form, one in found.items():
        (loss, loss_pm), (rank, rank_pm) = interval(one["loss"]), interval(one["rank"])
        rows.append({"form": form, "symbols": options.symbols, "seeds": options.seeds,
                     "seconds": f"{one['seconds']:.0f}", "best_epoch": f"{np.mean(one['epochs']):.1f}",
                     "loss_ratio": f"{loss:.4f}", "loss_pm": f"{loss_pm:.4f}", "rank_correlation": f"{rank:.4f}",
                     "rank_pm": f"{rank_pm:.4f}"})
    for name in ("loss", "rank"):
        mean, plus_minus = interval(list(np.subtract(found["all_days"][name], found["last_day"][name])))
        print(f"{name}: all_days less last_day, paired: {mean:+.4f} ± {plus_minus:.4f}")
    keep("supervision", rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
