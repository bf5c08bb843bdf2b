"""Trees measured: the whole family on real prices, beside LightGBM, in memory, and what each option does.

    python benchmarks/trees_speed.py run --data ../shared/data/vn_daily.parquet
    python benchmarks/trees_speed.py engines --data ../shared/data/vn_daily.parquet
    python benchmarks/trees_speed.py options --data ../shared/data/vn_daily.parquet
    python benchmarks/trees_speed.py memory                         (made-up numbers, 2 GB of them: --gb)
    python benchmarks/trees_speed.py memory --data ../shared/data/vn_daily.parquet
    python benchmarks/trees_speed.py overlap --data ../shared/data/vn_daily.parquet

`run`: eight folds and the final fit with the default settings; expect three minutes on two quiet cores. `engines`:
LightGBM with Qlib's settings, and with ours, on the same rows and features, as many trees and leaves, one thread, in
turns. `options`: each on the validation days of two folds. `memory`: each kind of matrix in a process of its own, the
peak beyond what the numbers themselves take. `overlap`: what the next job's data takes beside a job's training. Seconds
are of the processor, of all threads. Written to results/trees_speed.csv.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from machine import keep, peak_gb

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_labels
from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prices import load_prices
from vnq_colab.data.splits import Splits, yearly_folds
from vnq_colab.models import trees
from vnq_colab.models.base import Job, TrainingData
from vnq_colab.models.tree_rows import Growth
from vnq_colab.settings import MachineConfig, Task, TreesConfig

FOLDS = (1, 5)  # of the options: tested in 2019 and in 2023
OPTIONS = {"default": {}, "plain matrix": {"matrix": "plain"}, "15 features": {"top_features": 15},
           "30 features": {"top_features": 30}, "uniform, a fifth": {"subsample": 0.2},
           "by gradient, a fifth": {"sampling": "gradient_based", "subsample": 0.2},
           "pairwise": {"objective": "pairwise", "min_child_weight": 100.0},
           "lambdarank": {"objective": "lambdarank", "min_child_weight": 1.0},
           "monotone": {"monotone": ("-return_5", "-volatility_20")}}
QLIB = {"colsample_bytree": 0.8879, "learning_rate": 0.2, "subsample": 0.8789, "lambda_l1": 205.6999,
        "lambda_l2": 580.9768, "max_depth": 8, "num_leaves": 210}  # Source: Qlib 0.9.7, LightGBM on Alpha158
SAME = {"num_leaves": 63, "max_bin": 63, "bagging_fraction": 0.5, "bagging_freq": 1, "feature_fraction_bynode": 0.3,
        "learning_rate": 0.03, "lambda_l2": 10, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 300}


def timed(act: Callable[[], Any]) -> tuple[Any, float, float]:
    """What it gave, seconds of the processor and of the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    return act(), time.process_time() - cpu, time.perf_counter() - clock


def data_of(panel: Panel, fold: Splits | None, task: Task, **changes: Any) -> TrainingData:
    days = np.ones(len(panel.days), dtype=bool)
    train, valid = (fold.train.mask(panel.days), fold.valid.mask(panel.days)) if fold else (days, ~days)
    return TrainingData(panel, make_labels(panel, task), train, valid, task, **changes)


def trained(learner: trees.TreesLearner) -> trees.TreesLearner:
    while not learner.finished:
        learner.step()
    return learner


def config_of(seed: int, **settings: Any) -> RunConfig:
    return RunConfig(families=("trees",), seed=seed, trees=TreesConfig(**settings), machine=MachineConfig(threads=1))


def run(panel: Panel, options: argparse.Namespace) -> list[dict[str, str]]:
    """All jobs of the family, one after another, as a session trains them."""
    rows, inputs, config = [], {}, config_of(options.seed)
    for place, fold in enumerate([*yearly_folds(panel.days, 8), None]):
        job = Job("trees", place if fold else None, symbols=panel.symbols)
        data = data_of(panel, fold, Task())
        learner, cpu, clock = timed(lambda job=job, data=data: trained(trees.learner(job, data, config, inputs)))
        inputs[job.name] = {"budget": learner.result().budget}
        rows.append(row(job.name, cpu, clock, skill=max(learner.skills, default=np.nan),
                        trees=inputs[job.name]["budget"]["rounds"]))
    total = [sum(float(one[name]) for one in rows) for name in ("processor_s", "clock_s")]
    return [*rows, row("all", *total)]


def engines(panel: Panel, options: argparse.Namespace) -> list[dict[str, str]]:
    """25 to `--trees` trees on the training rows of the sixth fold, three times in turns; the best of each."""
    import lightgbm

    fold, labels = yearly_folds(panel.days, 8)[5], make_labels(panel, Task())
    rows = labels.known & fold.train.mask(panel.days)
    values = within_day_ranks(np.where(labels.known, labels.values.mean(axis=2), np.nan)) / 2
    x, y = panel.values[rows], values[rows]

    def ours() -> None:
        growth = Growth(panel, rows, values, config_of(0), 1)
        for seed in range(options.trees // growth.config.trees.block_rounds):
            growth.grow(seed)

    def theirs(settings: dict[str, Any]) -> None:
        settings = settings | {"objective": "mse", "verbosity": -1, "num_threads": 1, "seed": 1}
        lightgbm.train(settings, lightgbm.Dataset(x, label=y, params=settings), options.trees)

    ways = {"ours, 63 leaves": ours, "LightGBM, the same settings": lambda: theirs(SAME),
            "LightGBM, Qlib's settings": lambda: theirs(QLIB)}
    taken = {name: [timed(way)[1:] for way in (act,) * 3] for name, act in ways.items()}
    return [row(name, *min(times), trees=options.trees) for name, times in taken.items()]


def each_option(panel: Panel, options: argparse.Namespace) -> list[dict[str, str]]:
    """The search of two folds with each option: seconds, and the mean validation skill from the least trees on."""
    rows = []
    for name, settings in OPTIONS.items():
        for fold in FOLDS:
            config, splits = config_of(options.seed, **settings), yearly_folds(panel.days, 8)[fold]
            learner = trees.learner(Job("trees", fold, symbols=panel.symbols),
                                    data_of(panel, splits, Task(), is_trial=True), config, {})
            learner, cpu, clock = timed(lambda learner=learner: trained(learner))
            least = config.trees.least_rounds // config.trees.block_rounds
            rows.append(row(f"{name}, fold {fold + 1}", cpu, clock, skill=float(np.mean(learner.skills[least - 1:])),
                            trees=len(learner.skills) * config.trees.block_rounds))
    return rows


def overlap(panel: Panel, options: argparse.Namespace) -> list[dict[str, str]]:
    """What a thread could prepare while a job trains: its labels, its rows, its matrix."""
    splits, job = yearly_folds(panel.days, 8)[5], Job("trees", 5, symbols=panel.symbols)
    data, *labels = timed(lambda: data_of(panel, splits, Task()))
    learner, *made = timed(lambda: trees.learner(job, data, config_of(options.seed), {}))
    _, *matrix = timed(learner.stages["search"]._ready)
    _, *rest = timed(lambda: trained(learner))
    return [row(name, *times) for name, times in (("labels", labels), ("learner", made), ("matrix", matrix),
                                                  ("training", rest))]


def peak_of(kind: str, data: str | None, gb: float, answers: Any) -> None:
    """In a process of its own: the numbers, then a matrix and ten trees; peaks of memory and seconds."""
    import xgboost

    if data:
        panel = build_panel(load_prices(data)[0])
        labels = make_labels(panel, Task())
        rows, values = labels.known, labels.values.mean(axis=2)
    else:
        random, shape = np.random.default_rng(0), (2_000, max(8, round(gb * 1e9 / 4 / 50 / 2_000)), 50)
        panel = SimpleNamespace(values=np.empty(shape, "float32"), feature_names=tuple(map(str, range(50))))
        for block in panel.values:
            random.standard_normal(out=block, dtype="float32")
        rows, values = np.ones(shape[:2], dtype=bool), panel.values[:, :, 0] / 10
    before, growth = resident_gb(), Growth(panel, rows, values, config_of(0, matrix="plain" if kind == "plain" else
                                                                         "quantile", block_rounds=10), 1)
    if kind == "copy":  # as it was: the rows picked out, then quantised
        growth._matrix = xgboost.QuantileDMatrix(panel.values[rows], label=values[rows], max_bin=64, nthread=1)
    elif kind == "external":
        growth._matrix = external(growth)
    _, cpu, clock = timed(lambda: growth.grow(0))
    answers.put((before, peak_gb(), cpu, clock, int(rows.sum())))


def external(growth: Growth) -> Any:
    """XGBoost's pages on a disk, a slab of days each."""
    import xgboost

    slabs = [slice(day, day + 256) for day in range(0, growth.rows.shape[1], 256)]

    class Slabs(xgboost.DataIter):
        def reset(self) -> None:
            self.left = iter(slabs)

        def next(self, input_data: Any) -> bool:
            if (days := next(self.left, None)) is not None:
                input_data(**growth._columns(growth.rows.T, days))
            return days is not None

    return xgboost.ExtMemQuantileDMatrix(Slabs(cache_prefix=f"{tempfile.mkdtemp()}/pages"), max_bin=64, nthread=1)


def resident_gb() -> float:
    """Memory of this process now [GB]."""
    import psutil

    return psutil.Process().memory_info().rss / 1e9


def memory(options: argparse.Namespace) -> list[dict[str, str]]:
    found, context = [], multiprocessing.get_context("spawn")
    for kind in options.kinds.split(","):
        answers = context.Queue()
        child = context.Process(target=peak_of, args=(kind, options.data, options.gb, answers))
        child.start()
        before, peak, cpu, clock, n_rows = answers.get()
        child.join()
        found.append(row(f"{kind}, {n_rows:,} rows of 50", cpu, clock, gb=f"{peak - before:.2f} beyond {before:.2f}"))
    return found


def row(what: str, cpu: float, clock: float, skill: float = np.nan, trees: int | str = "",
        gb: str = "") -> dict[str, str]:
    found = {"what": what, "processor_s": f"{cpu:.1f}", "clock_s": f"{clock:.1f}", "trees": str(trees),
             "skill": "" if np.isnan(skill) else f"{skill:.4f}", "memory_gb": gb}
    print(*found.values(), sep="  ", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "engines", "options", "memory", "overlap"))
    parser.add_argument("--data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trees", type=int, default=200, help="of `engines`")
    parser.add_argument("--gb", type=float, default=2.0, help="of made-up numbers, for `memory`")
    parser.add_argument("--kinds", default="copy,quantile,plain,external", help="of matrix, for `memory`")
    chosen = parser.parse_args()
    acts = {"run": run, "engines": engines, "options": each_option, "overlap": overlap}
    found = memory(chosen) if chosen.what == "memory" else acts[chosen.what](
        build_panel(load_prices(chosen.data)[0]), chosen)
    keep("trees_speed", [{"part": chosen.what, "data": (chosen.data or "made up").rpartition("/")[2], **one}
                         for one in found])


if __name__ == "__main__":
    main()
