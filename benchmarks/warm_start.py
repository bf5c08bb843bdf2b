"""Last week's models continued on the new days, beside models trained anew: rank correlation and time.

    python benchmarks/warm_start.py --data ../shared/data/vn_daily.parquet --family trees

Every `--step` trading days of `--year` (one before the years that judge), three models forecast the days until the
next: `anew`, trained on all days that are known by then; `warm`, the model of the step before with `--share` of the
rounds (trees) or of the epochs (global) more, on all days; `stale`, the first one, never touched again. All begin with
the same model. Written to results/warm_start.csv: the mean daily rank correlation, its difference from `anew` with its
t (HAC), and the seconds of all steps. Expect half an hour on two quiet cores for `trees`.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from machine import keep

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_labels, rank_correlation
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prices import load_prices
from vnq_colab.evaluation.significance import hac_t
from vnq_colab.models.base import Forecaster, Job, Learner, TrainingData
from vnq_colab.models.global_model import GlobalStack
from vnq_colab.models.trees import TreesLearner
from vnq_colab.settings import Task

GAP = 6  # [days] before the newest, whose labels are not known yet


def known_by(panel: Panel, task: Task, day: int) -> TrainingData:
    """All whose label is known on the evening of a day."""
    days = np.arange(len(panel.days)) <= day - GAP
    return TrainingData(panel, make_labels(panel, task), days, np.zeros_like(days), task)


def trained(learner: Learner) -> Learner:
    while not learner.finished:
        learner.step()
    return learner


def anew_trees(job: Job, data: TrainingData, config: RunConfig) -> Learner:
    return trained(TreesLearner(job, data, config, config.trees.least_rounds))


def warm_trees(job: Job, data: TrainingData, config: RunConfig, before: Learner, share: float) -> Learner:
    rounds = before.rounds + max(config.trees.block_rounds, round(share * config.trees.least_rounds))
    learner = TreesLearner(job, data, config, rounds)
    learner.load_state_dict(before.state_dict())
    return trained(learner)


def anew_global(job: Job, data: TrainingData, config: RunConfig) -> Learner:
    return trained(GlobalStack(job, data, config))


def warm_global(job: Job, data: TrainingData, config: RunConfig, before: Learner, share: float) -> Learner:
    """At a third of the learning rate, as it would be towards the end of its schedule."""
    own = config.global_
    short = replace(own, epochs=max(1, round(share * own.epochs)), learning_rate=own.learning_rate / 3)
    learner = GlobalStack(job, data, replace(config, global_=short))
    learner.weights.copy_(before.result().forecaster.weights[0].float())
    return trained(learner)


WAYS: dict[str, tuple[Callable[..., Learner], Callable[..., Learner]]] = {
    "trees": (anew_trees, warm_trees), "global": (anew_global, warm_global)}


def daily(forecaster: Forecaster, panel: Panel, truth: np.ndarray, days: range) -> list[float]:
    """The rank correlation of each of these days."""
    origins = np.isin(np.arange(len(panel.days)), days)
    scores = forecaster.predict(panel, origins).pivot(index="symbol", columns="date", values="score")
    scores = scores.reindex(index=panel.symbols, columns=panel.days[origins]).to_numpy()
    return [rank_correlation(np.where(np.isfinite(truth[:, [day]]), scores[:, [place]], np.nan), truth[:, [day]])
            for place, day in enumerate(days)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--family", choices=tuple(WAYS), default="trees")
    parser.add_argument("--year", type=int, default=2016)
    parser.add_argument("--step", type=int, default=5, help="trading days between two trainings")
    parser.add_argument("--share", type=float, default=1 / 16, help="of a whole training, that a warm one continues")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task, config = Task(), RunConfig(seed=options.seed, n_members=1)
    panel = build_panel(load_prices(options.data)[0])
    job, labels = Job(options.family, None, symbols=panel.symbols), make_labels(panel, task)
    truth = np.where(labels.known, labels.values.mean(axis=2), np.nan)  # [symbols, days]
    first, end = (int(panel.days.searchsorted(f"{year}-01-01")) for year in (options.year, options.year + 1))
    anew, warm = WAYS[options.family]
    start = before = None
    skills, seconds = {way: [] for way in ("anew", "warm", "stale")}, dict.fromkeys(("anew", "warm", "stale"), 0.0)
    for day in range(first, end, options.step):
        data = known_by(panel, task, day)
        begun = time.perf_counter()
        learners = {"anew": anew(job, data, config)}
        seconds["anew"] += time.perf_counter() - begun
        start = start or learners["anew"]
        begun = time.perf_counter()
        before = warm(job, data, config, before, options.share) if before else start
        seconds["warm"] += time.perf_counter() - begun
        learners |= {"warm": before, "stale": start}
        for name, learner in learners.items():
            skills[name] += daily(learner.result().forecaster, panel, truth, range(day, min(day + options.step, end)))
        print(f"{panel.days[day]:%Y-%m-%d}", *(f"{name} {np.nanmean(one):.4f}" for name, one in skills.items()),
              flush=True)
    for name, one in skills.items():
        difference = np.array(one) - skills["anew"]
        keep("warm_start", [{
            "data": f"{options.data.rpartition('/')[2]} {options.year}", "family": options.family,
            "step": str(options.step), "share": f"{options.share:.3f}", "seed": str(options.seed), "way": name,
            "rank_correlation": f"{np.nanmean(one):.4f}", "less_anew": f"{np.nanmean(difference):.4f}",
            "t": "" if name == "anew" else f"{hac_t(difference[np.isfinite(difference)]):.1f}",
            "seconds": f"{seconds[name]:.0f}"}])


if __name__ == "__main__":
    main()
