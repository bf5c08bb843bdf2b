"""A search that is killed at random instants, and gone on with: `python -m tests.faults.searches FOLDER KILLS`."""

import json
import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.files import on_drive
from vnq_colab.layout import Workspace
from vnq_colab.settings import GlobalConfig, MachineConfig, NetworkConfig, Real, TrainConfig, TreesConfig, Whole
from vnq_colab.training.search import Search, search

SPACE = {"trees.leaves": Whole(3, 31, log=True), "trees.learning_rate": Real(0.02, 0.3, log=True)}
CONFIG = RunConfig(
    families=("trees",), n_members=1, model=NetworkConfig(look_back=5, min_context=1, width=16, n_layers=1, n_heads=2),
    train=TrainConfig(epochs=2, warmup_epochs=0), global_=GlobalConfig(epochs=2),
    trees=TreesConfig(rounds=40, block_rounds=10, least_rounds=20, patience=2, leaves=7, min_child_weight=20.0),
    machine=MachineConfig(threads=1))
FREQUENT = replace(CONFIG, train=replace(CONFIG.train, checkpoint_minutes=1e-9))  # a checkpoint after each step


def prices(n_symbols=10, n_days=1060):
    """Stocks whose order can be learnt, over days that make two folds."""
    return synthetic_prices(n_symbols, n_days, seed=3, signal=0.4)


def sequence(found: Search) -> list:
    """What must be the same whatever was killed: the trials in order, their values to the last bit."""
    return json.loads(found.trials.drop(columns="seconds").to_json(orient="values", double_precision=15))


def kill_often(folder: Path, kills: int, seed: int, n_trials: int = 9) -> dict:
    """Two searches, one of them killed so many times; says whether their trials are the same.

    On Drive the machine, below $VNQ_LOCAL, is lost with every second kill.
    """
    panel, chance = build_panel(prices()), random.Random(seed)

    def run(name: str) -> Search:
        return search(Workspace(folder / name), panel, FREQUENT, space=SPACE, n_trials=n_trials, folds=2, quiet=True)

    started = time.monotonic()
    straight = sequence(run("straight"))
    seconds, hit, longer = time.monotonic() - started, 0, 0.0
    while hit < kills:
        if (child := os.fork()) == 0:
            run("killed")
            os._exit(0)
        time.sleep(chance.uniform(0, 1.5 * seconds / kills) + longer)
        os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] == 0:
            break  # it was finished before
        hit, longer = hit + 1, longer + 0.001
        if on_drive(folder) and hit % 2:
            shutil.rmtree(os.environ["VNQ_LOCAL"], ignore_errors=True)
    return {"kills": hit, "same": sequence(run("killed")) == straight, "trials": len(straight), "straight": straight}


if __name__ == "__main__":
    print(json.dumps(kill_often(Path(sys.argv[1]), int(sys.argv[2]), seed=int((sys.argv[3:] or ["0"])[0]))))
