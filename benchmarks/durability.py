"""What it costs that nothing is lost: the pause of a checkpoint, the way back after a kill, memory by pack.

    python benchmarks/durability.py            # all parts, about five minutes on two cores
    python benchmarks/durability.py --part pause

- pause: a checkpoint of about 2 GB of state: how long training stands still, until the file is whole, and what the
  steps meanwhile cost beside steps without a checkpoint.
- resume: 102 × 3 networks (recipe `original`, full size) are killed after their first checkpoint; from the start of
  the process that resumes to the end of its first training step.
- memory: the peak of a whole run of 12, 48 and 102 symbols in packs of 12 networks.
Each part runs in a process of its own. Prints a table and adds it to benchmarks/results/durability.csv.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from machine import keep, peak_gb

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prepared import prepare
from vnq_colab.data.splits import yearly_folds
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.layout import Workspace
from vnq_colab.settings import LocalConfig, MachineConfig, NetworkConfig, Task, TrainConfig

CHECKPOINT_SECONDS = 1200.0  # between two of them, by default


def full(symbols: int, **train: float) -> tuple[Panel, RunConfig]:
    """A market of so many symbols, and full-size networks for them in one pack."""
    panel = build_panel(synthetic_prices(symbols, 800))
    return panel, RunConfig(families=("stockformer",), task=Task(target="return"), folds=1,
                            stockformer=LocalConfig(start="own"), model=NetworkConfig(),
                            train=TrainConfig(patience=100, **train),
                            machine=MachineConfig(pack_models=10**6, checkpoint_budget_gb=100.0))


def pause() -> list[dict]:
    """Steps with and without a checkpoint being written."""
    from vnq_colab.data.forecast import make_labels
    from vnq_colab.models.base import Job, TrainingData
    from vnq_colab.models.stockformer import LocalStack
    from vnq_colab.training.checkpoint import CheckpointStore
    from vnq_colab.training.process import keep_freed_memory

    keep_freed_memory()
    panel, config = full(52)
    fold = yearly_folds(panel.days)[-1]
    train, valid = fold.train.mask(panel.days), fold.valid.mask(panel.days)
    data = TrainingData(panel, make_labels(panel, config.task), train, valid, config.task)
    learner = LocalStack(Job("stockformer", 0, 0, panel.symbols), data, config)
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Workspace(Path(folder)), "run")
        store.reserve(learner.state_dict())
        timed_step(learner)
        quiet, busy, pauses, written = [], [], [], []
        for round_ in range(4):
            quiet += [timed_step(learner) for _ in range(2)]
            store.save(learner.state_dict(), {"job": "stockformer_fold1_pack00"})
            pauses.append(store.pause)
            while not store._writing.done():
                busy.append(timed_step(learner))
            manifest = store.written()
            written.append(store.seconds)
            print(f"round {round_ + 1}: pause {store.pause:.2f} s, whole after {store.seconds:.1f} s", file=sys.stderr)
    slower = max(0.0, float(np.median(busy) / np.median(quiet[2:]) - 1))
    cost = (max(pauses) + slower * max(written)) / CHECKPOINT_SECONDS
    return [{"what": "checkpoint, bytes", "value": f"{manifest['bytes'] / 1e9:.2f}", "unit": "GB"},
            {"what": "checkpoint, longest pause", "value": f"{max(pauses):.2f}", "unit": "s"},
            {"what": "checkpoint, until it is whole", "value": f"{max(written):.1f}", "unit": "s"},
            {"what": "steps meanwhile, slower by", "value": f"{100 * slower:.0f}", "unit": "%"},
            {"what": "cost at one in 20 minutes", "value": f"{100 * cost:.2f}", "unit": "%"}]


def timed_step(learner) -> float:
    started = time.monotonic()
    learner.step()
    return time.monotonic() - started


FIRST_STEP = """
import sys, time, psutil
from pathlib import Path
from vnq_colab.models.learner import StackLearner
step = StackLearner.step
def first(self):
    step(self)
    print(time.time() - psutil.Process().create_time(), flush=True)
    import os
    os._exit(0)
StackLearner.step = first
from vnq_colab.layout import Workspace
from vnq_colab.training.trainer import resume
resume(Workspace(Path(sys.argv[1])))
"""


def way_back() -> list[dict]:
    """Seconds from the start of a process to the end of its first step, after a kill."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Workspace(Path(folder)), synthetic_prices(102, 2600))
        command = [sys.executable, "-m", "vnq_colab", "train", "--root", folder, "--recipe", "original",
                   "--set", "machine.threads=2", "--checkpoint-minutes", "0.2"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while not list(Path(folder).glob("checkpoints/*/slot_a")):
            time.sleep(0.1)
        process.kill()
        process.wait()
        seconds = [float(subprocess.run([sys.executable, "-c", FIRST_STEP, folder], capture_output=True, text=True,
                                        check=True).stdout.splitlines()[-1]) for _ in range(3)]
    return [{"what": "resume of 102 × 3, process start to first step", "value": f"{max(seconds):.1f}", "unit": "s"}]


def memory(symbols: int) -> list[dict]:
    """Peak memory of a whole run in packs of 12 networks."""
    from vnq_colab.training.trainer import train

    panel, config = full(symbols, epochs=1)
    config = replace(config, machine=replace(config.machine, pack_models=12), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        session = train(Workspace(Path(folder)), panel, config, quiet=True)
    return [{"what": f"peak memory, {symbols} symbols in {len(session.jobs)} jobs of 12 networks",
             "value": f"{peak_gb():.2f}", "unit": "GB"}]


PARTS = {"pause": pause, "resume": way_back, **{f"memory{n}": lambda n=n: memory(n) for n in (12, 48, 102)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=tuple(PARTS), help="one part alone; nothing is kept then")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part]()))
        return
    rows = []
    for part in PARTS:
        done = subprocess.run([sys.executable, __file__, f"--part={part}"], stdout=subprocess.PIPE, text=True,
                              check=True)
        rows += json.loads(done.stdout.splitlines()[-1])
        print(rows[-1], flush=True)
    for row in rows:
        print(f"{row['what']}: {row['value']} {row['unit']}")
    keep("durability", rows)


if __name__ == "__main__":
    main()
