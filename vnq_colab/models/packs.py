"""Which networks train together in one stack: as many as the machine and the checkpoint budget bear."""

import gc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import psutil
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.models.base import Job, Learner, TrainingData
from vnq_colab.models.losses import LOSSES
from vnq_colab.models.network import Stockformer
from vnq_colab.models.stacked import MOST_ATTENTION_ROWS
from vnq_colab.settings import MachineConfig

MEMORY_SHARE = 0.8  # of a device's memory that a pack may fill; chosen: the rest is for validation and fragments
PROBE_SYMBOLS = 4
STATE_COPIES = 3  # of the weights in a checkpoint: weights, two moments; and each best snapshot


def compose_packs(panel: Panel, end: int, config: RunConfig, machine: MachineConfig,
                  symbols: list[str]) -> list[list[str]]:
    """The packs of a fold: symbols of like history before day `end` together, as many as `most_models` allows."""
    history = panel.select(symbols).present[:, :end].sum(axis=1)
    order = [symbols[row] for row in np.argsort(-history, kind="stable")]
    at_once = max(1, most_models(panel, config, machine, order) // config.n_members)
    return [part.tolist() for part in np.array_split(np.array(order, dtype=object), -(-len(order) // at_once))]


def most_models(panel: Panel, config: RunConfig, machine: MachineConfig, order: list[str]) -> int:
    """Networks of one pack: as the profile says, within the checkpoint budget, the kernels' limit and the memory.

    On a GPU two probes take one step each, and their peaks are scaled. A CPU works on a few networks at a time, so
    there only the copies of the weights grow with the pack, and are counted.
    """
    state_copies = STATE_COPIES + config.train.keep_top_k
    size = model_bytes(config, panel)
    limits = [machine.pack_models, MOST_ATTENTION_ROWS // (config.train.windows_per_batch * config.model.n_heads),
              int(machine.checkpoint_budget_gb * 1e9 / (state_copies * size))]
    if machine.device == "cpu":
        copies = 2 * state_copies + 1  # the state, its snapshot, and the gradient
        limits.append(int(MEMORY_SHARE * psutil.virtual_memory().available / (copies * size)))
    elif len(order) > 1:
        from vnq_colab.data.labels import make_labels
        from vnq_colab.models.stockformer import LocalStack

        task, days = config.task, np.ones(len(panel.days), dtype=bool)
        data = TrainingData(panel, make_labels(panel, task), days, ~days, task)
        probed = replace(config, machine=machine)

        def probe(n_symbols: int) -> tuple[int, int]:
            job = Job("stockformer", None, 0, tuple(order[:n_symbols]))
            return n_symbols * config.n_members, peak_of_step(lambda: LocalStack(job, data, probed))

        room = MEMORY_SHARE * torch.cuda.get_device_properties(0).total_memory
        limits.append(fitting(probe(1), probe(min(PROBE_SYMBOLS, len(order))), room))
    return min(limits)


def model_bytes(config: RunConfig, panel: Panel) -> int:
    """Bytes of one network's float32 weights."""
    n_inputs = len(panel.feature_names) * (2 if config.global_.inputs == "both" else 1)
    n_outputs = LOSSES[config.train.loss].n_outputs * (config.task.horizon if config.task.target == "return" else 1)
    return 4 * Stockformer(config.model, n_inputs, n_outputs).n_parameters


def fitting(small: tuple[int, float], large: tuple[int, float], room: float) -> int:
    """How many networks `room` [bytes] holds, from the peaks (networks, bytes) of a small and a larger pack."""
    per_model = (large[1] - small[1]) / (large[0] - small[0])
    return max(1, int(small[0] + (room - small[1]) / max(per_model, 1.0)))


def peak_of_step(make_learner: Callable[[], Learner]) -> int:
    """The most memory [bytes] that torch held on the GPU while a learner was made and took its first step."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    make_learner().step()
    return torch.cuda.max_memory_allocated()
