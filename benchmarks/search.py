"""Random search, TPE, and TPE with suggestions, each with as many jobs; then what was found, on days that no trial saw.

    python benchmarks/search.py --data ../shared/data/vn_daily.parquet --trials 16 --folds 3 --rounds 200 --keep PATH

A way of searching gets `--trials` × `--folds` jobs: what pruning spares buys further trials. All begin with default.
The suggestions are `suggestions.json` here, written down before any search and taken in turn with TPE's own, as they
would come from a language model; they do not answer to the trials before them. Then default and each found recipe are
trained for the years after the last validation day of the search and forecast their test days, with each of `--seeds`
seeds: mean daily rank correlation (names of the universe that could be bought, from the next open), its difference from
the default and the 95 % interval of that (HAC, 10 lags). `--rounds` are the trees of a job at most, fewer than the
default's 600 for speed, in the search and in the test alike. Written to results/search.csv. Started again with the same
`--keep`, it goes on. Expect half an hour on two cores as above.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import keep

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_labels
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.panel import OPEN, Panel
from vnq_colab.data.prepared import load_prepared, prepare
from vnq_colab.data.splits import yearly_folds
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


def searched(way: str, ws: Workspace, panel: Panel, config: RunConfig, trials: int, folds: int) -> Search:
    """A search with `trials` × `folds` jobs, or as many trials as four times that where all are given up."""
    journal.sampler = by_chance if way == "random" else TPE
    ranges = family_module("trees").SPACE
    space = {name: ranges[name] for name in json.loads(SUGGESTIONS.read_text(encoding="utf-8"))[0]}
    n = trials
    while True:
        found = search(ws, panel, config, family="trees", space=space, n_trials=n, folds=folds, quiet=True,
                       suggest=recorded if way == "suggested" else None)
        print(f"{way}: {found!r}", flush=True)
        n = len(found.trials) + (trials * folds - jobs_of(found)) // folds
        if not len(found.trials) < n <= 4 * trials:
            return found


def jobs_of(found: Search) -> int:
    """Jobs that were begun: of a trial that was given up in the middle of a fold that one, too."""
    return int(found.trials["folds"].map(len).sum() + found.trials["reason"].str.contains("median").sum())


def settings_of(found: Search) -> dict[str, Any]:
    """Those of the best trial, by their full names."""
    best = found.trials["value"].idxmax()
    return {name: np.asarray(found.trials.loc[best, name]).item() for name in found.trials if "." in name}


def best_of(found: dict[str, Search], name: str) -> float:
    """The best value on validation days; of the default that of the first trial."""
    return found[name].trials["value"].max() if name in found else next(iter(found.values())).trials["value"][0]


def forecast_of(panel: Panel, folds: list, config: RunConfig) -> np.ndarray:
    """`[symbols, days]`: the scores of the folds' test days, each by trees trained before it; elsewhere NaN."""
    labels, module = make_labels(panel, config.task), family_module("trees")
    scores = np.full(panel.present.shape, np.nan)
    for number, fold in enumerate(folds):
        train, valid, test = (part.mask(panel.days) for part in (fold.train, fold.valid, fold.test))
        learner = module.learner(Job("trees", number, symbols=config.symbols),
                                 TrainingData(panel, labels, train, valid, config.task), config, {})
        while not learner.finished:
            learner.step()
        table = learner.result().forecaster.predict(panel, test)
        scores[panel.rows(table["symbol"]), panel.days.get_indexer(table["date"])] = table["score"]
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--ways", default=",".join(WAYS), help="some of random, tpe, suggested")
    parser.add_argument("--trials", type=int, default=30, help="with the default one")
    parser.add_argument("--folds", type=int, default=4, help="of the eight years, the first ones")
    parser.add_argument("--rounds", type=int, default=600, help="trees of a job at most; two thirds of them at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=1, help="with which default and recipes are trained for the test")
    parser.add_argument("--threads", type=int, help="of XGBoost; unless given those of the profile")
    parser.add_argument("--keep", help="folder for what is prepared and searched; unless given it is thrown away")
    options = parser.parse_args()
    home = Path(options.keep or tempfile.mkdtemp(prefix="search_"))
    first = Workspace(home / "data")
    prepared = load_prepared(first) if first.prepared.exists() else prepare(first, options.data)
    panel, config = prepared.panel, RunConfig.for_machine("cpu", families=("trees",), seed=options.seed)
    config = config.with_settings({"trees.rounds": options.rounds, "trees.least_rounds": options.rounds * 2 // 3})
    if options.threads:
        config = replace(config, machine=replace(config.machine, threads=options.threads))
    found, recipes = {}, {"default": {}}
    for way in options.ways.split(","):
        ws = Workspace(home / way)
        if not ws.prepared.exists():
            shutil.copytree(first.prepared, ws.prepared)
        found[way] = searched(way, ws, panel, config, options.trials, options.folds)
        recipes[way] = settings_of(found[way])
    seen_to = max((one.seen_to for one in found.values()), default="")
    unseen = [fold for fold in yearly_folds(panel.days, config.folds) if fold.test.first > seen_to]
    config = replace(config, symbols=tuple(judged_symbols(panel, config)[0]))
    outcome = np.where(buyable(panel, MarketData.of(prepared.prices, VN_RULES)), panel.ahead(column=OPEN), np.nan)
    daily: dict[str, np.ndarray] = {}  # [days] mean over seeds
    for name, settings in recipes.items():
        one = [rank_correlation(forecast_of(panel, unseen, replace(config, seed=options.seed + more)
                                            .with_settings(settings)), outcome) for more in range(options.seeds)]
        daily[name] = np.mean(one, axis=0)
        n, mean, error = hac_mean(daily[name] - daily["default"])
        trials = found[name].trials if name in found else None
        keep("search", [{
            "data": f"{options.data.rpartition('/')[2]}, {unseen[0].test.first} to {unseen[-1].test.last}, {n} days",
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
