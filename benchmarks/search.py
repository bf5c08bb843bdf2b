"""Random search, TPE, and TPE with suggestions, each with as many jobs; then what was found, on days that no trial saw.

    python benchmarks/search.py --data ../shared/data/vn_daily.parquet --trials 12 --keep PATH

A way of searching gets `--trials` × `--folds` jobs: what pruning spares buys further trials. All begin with default.
The suggestions are `suggestions.json` here, written down before any search and taken in turn with TPE's own, as they
would come from a language model; they do not answer to the trials before them. Then default and each found recipe are
trained for the years after the last validation day of the search and forecast their test days, with each of `--seeds`
seeds: mean daily rank correlation (names of the universe that could be bought, from the next open), its difference from
the default and the 95 % interval of that (HAC, 10 lags). `--rounds` are the trees of a job at most, in search and in
the test alike; `--processes` ways run at once, each on one core. Written to results/search.csv. Started again with the
same `--keep`, it goes on. Expect half an hour on two quiet cores as above.
"""

import argparse
import json
import multiprocessing
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import keep

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_labels
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.panel import OPEN
from vnq_colab.data.prepared import Prepared, load_prepared, prepare
from vnq_colab.data.splits import Splits, yearly_folds
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.order import buyable, rank_correlation
from vnq_colab.evaluation.significance import hac_mean, known
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Job, TrainingData, family_module, stable_seed
from vnq_colab.training import journal
from vnq_colab.training.search import BATCH, Search, search
from vnq_colab.training.suggest import Question
from vnq_colab.training.trainer import judged_symbols

SUGGESTIONS = Path(__file__).parent / "suggestions.json"
WAYS = ("random", "tpe", "suggested")
TPE = journal.sampler


def by_chance(seed: int, number: int) -> Any:
    return journal.engine().samplers.RandomSampler(seed=stable_seed("search", seed, number) % 2**32)


def recorded(question: Question) -> list[dict[str, Any]]:
    """The next ones of the list: which is decided by how many trials there were."""
    place = (len(question.history) - 1) // BATCH * question.n
    return json.loads(SUGGESTIONS.read_text(encoding="utf-8"))[place:place + question.n]


def settled(options: argparse.Namespace) -> tuple[Prepared, RunConfig]:
    """The data, and the default config of trees on all symbols that are judged."""
    prepared = load_prepared(Workspace(Path(options.keep) / "data"))
    config = RunConfig.for_machine("cpu", families=("trees",), seed=options.seed).with_settings(
        {"trees.rounds": options.rounds, "trees.least_rounds": options.rounds * 2 // 3})
    return prepared, replace(config, symbols=tuple(judged_symbols(prepared.panel, config)[0]))


def searched(way: str, options: argparse.Namespace) -> Search:
    """A search with `trials` × `folds` jobs, or as many trials as four times that where all are given up."""
    prepared, config = settled(options)
    ws = Workspace(Path(options.keep) / way)
    if not ws.prepared.exists():
        shutil.copytree(Workspace(Path(options.keep) / "data").prepared, ws.prepared)
    journal.sampler = by_chance if way == "random" else TPE
    ranges = family_module("trees").SPACE
    space = {name: ranges[name] for name in json.loads(SUGGESTIONS.read_text(encoding="utf-8"))[0]}
    n = options.trials
    while True:
        found = search(ws, prepared.panel, config, family="trees", space=space, n_trials=n, folds=options.folds,
                       suggest=recorded if way == "suggested" else None, quiet=True)
        print(f"{way}: {found!r}", flush=True)
        if found.status == "paused":
            raise SystemExit(f"{way} paused ({found.why}): start it again with --keep {options.keep}")
        n = len(found.trials) + (options.trials * options.folds - jobs_of(found)) // options.folds
        if not len(found.trials) < n <= 4 * options.trials:
            return found


def jobs_of(found: Search) -> int:
    """Jobs that were begun: of a trial that was given up in the middle of a fold that one, too."""
    return int(found.trials["folds"].map(len).sum() + found.trials["reason"].str.startswith("below").sum())


def settings_of(found: Search) -> dict[str, Any]:
    """Those of the best trial, by their full names."""
    best = found.trials["value"].idxmax()
    return {name: np.asarray(found.trials.loc[best, name]).item() for name in found.trials if "." in name}


def best_of(found: dict[str, Search], name: str) -> float:
    """The best value on validation days; of the default that of the first trial."""
    return found[name].trials["value"].max() if name in found else next(iter(found.values())).trials["value"][0]


def unseen(days: pd.DatetimeIndex, seen_to: str) -> list[Splits]:
    """The folds whose test days begin after a day."""
    return [fold for fold in yearly_folds(days) if fold.test.first > seen_to]


def tested(settings: dict[str, Any], seed: int, seen_to: str, options: argparse.Namespace) -> np.ndarray:
    """`[days]`: the rank correlation of the unseen test days, each forecast by trees trained before it; else NaN."""
    prepared, config = settled(options)
    panel, config = prepared.panel, replace(config, seed=seed).with_settings(settings)
    labels, module = make_labels(panel, config.task), family_module("trees")
    scores = np.full(panel.present.shape, np.nan)  # [symbols, days]
    for number, fold in enumerate(unseen(panel.days, seen_to)):
        train, valid, test = (part.mask(panel.days) for part in (fold.train, fold.valid, fold.test))
        learner = module.learner(Job("trees", number, symbols=config.symbols),
                                 TrainingData(panel, labels, train, valid, config.task), config, {})
        while not learner.finished:
            learner.step()
        table = learner.result().forecaster.predict(panel, test)
        scores[panel.rows(table["symbol"]), panel.days.get_indexer(table["date"])] = table["score"]
    could_buy = buyable(panel, MarketData.of(prepared.prices, VN_RULES))
    return rank_correlation(scores, np.where(could_buy, panel.ahead(column=OPEN), np.nan))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ways", default=",".join(WAYS), help="some of random, tpe, suggested")
    parser.add_argument("--trials", type=int, default=30, help="with the default one")
    parser.add_argument("--folds", type=int, default=4, help="of the eight years, the first ones")
    parser.add_argument("--rounds", type=int, default=450, help="trees of a job at most; two thirds of them at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="with which default and recipes are trained for the test")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", help="folder for what is prepared and searched; unless given it is thrown away")
    options = parser.parse_args()
    options.keep = options.keep or tempfile.mkdtemp(prefix="search_")
    first, ways = Workspace(Path(options.keep) / "data"), options.ways.split(",")
    panel = (load_prepared(first) if first.prepared.exists() else prepare(first, options.data)).panel
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(ways, pool.map(searched, ways, [options] * len(ways)), strict=True))
        recipes, seen_to = {"default": {}} | {way: settings_of(found[way]) for way in ways}, found[ways[0]].seen_to
        seeds = range(options.seed, options.seed + options.seeds)
        tests = {name: [pool.submit(tested, settings, seed, seen_to, options) for seed in seeds]
                 for name, settings in recipes.items()}
        daily = {name: np.mean([one.result() for one in several], axis=0) for name, several in tests.items()}
    folds = unseen(panel.days, seen_to)
    for name, settings in recipes.items():
        n, mean, error = hac_mean(daily[name] - daily["default"])
        trials = found[name].trials if name in found else None
        keep("search", [{
            "data": f"{options.data.rpartition('/')[2]}, {folds[0].test.first} to {folds[-1].test.last}, {n} days",
            "budget": f"{options.trials} x {options.folds} jobs, {options.rounds} trees", "seed": str(options.seed),
            "way": name, "trials": "" if trials is None else str(len(trials)),
            "jobs": "" if trials is None else str(jobs_of(found[name])),
            "seconds": "" if trials is None else f"{trials['seconds'].sum():.0f}",
            "validation": f"{best_of(found, name):.4f}",
            "test_seeds": str(options.seeds), "test": f"{np.nanmean(daily[name]):.4f}",
            "less_default": known("{:.4f}", mean), "low": known("{:.4f}", mean - 1.96 * error),
            "high": known("{:.4f}", mean + 1.96 * error),
            "settings": " ".join(f"{key.partition('.')[2]}={value:.4g}" for key, value in settings.items())}])
        print(f"{name}: {np.nanmean(daily[name]):.4f}, less default {mean:.4f} ± {1.96 * error:.4f}", flush=True)


if __name__ == "__main__":
    main()
