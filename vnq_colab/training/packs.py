"""Which symbols a run trains, and which of them together."""

from typing import Any

import numpy as np
import psutil

from vnq_colab.config import SMOKE_SYMBOLS, RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import default_universe
from vnq_colab.data.splits import DayRange, Splits
from vnq_colab.errors import DataError, name_a_few
from vnq_colab.models.base import family_module
from vnq_colab.training.process import device_memory, peak_of_step

FEWEST_DAYS = {"valid": 20, "train": 100}  # labelled days below which a symbol is left out
MEMORY_SHARE = 0.8  # of a device's memory that a pack may fill; chosen: the rest is for validation and fragments
PROBE_SYMBOLS = 4
STATE_COPIES = 3  # of the weights in a checkpoint: weights, two moments; and each best snapshot


def choose_symbols(panel: Panel, splits: Splits, config: RunConfig) -> tuple[list[str], dict[str, str]]:
    """The symbols to train, and those left out with the reason. Raises DataError when none is left."""
    wanted = config.symbols or default_universe(panel)
    if config.symbols is None and config.machine.profile == "smoke":
        wanted = wanted[:SMOKE_SYMBOLS]
    chosen = panel.select(wanted)
    _, known = chosen.labels(config.model.horizon)
    skipped = {}
    for part, needed in FEWEST_DAYS.items():
        labelled = (known & getattr(splits, part).mask(panel.days)).sum(axis=1).tolist()
        skipped |= {symbol: f"{count} labelled {part} days, needed {needed}"
                    for symbol, count in zip(wanted, labelled, strict=True) if count < needed}
    if len(skipped) == len(wanted):
        few = name_a_few(f"{symbol} has {why}" for symbol, why in skipped.items())
        raise DataError(f"no symbol has enough history to train: {few}. Bring a longer history.")
    return [symbol for symbol in wanted if symbol not in skipped], skipped


def compose_packs(panel: Panel, train_days: DayRange, config: RunConfig, symbols: list[str]) -> list[dict[str, Any]]:
    """The packs of a run, fixed at its start: symbols of like history together, as many as `most_models` allows."""
    chosen = panel.select(symbols)
    history = (chosen.present & train_days.mask(panel.days)).sum(axis=1)
    order = [symbols[row] for row in np.argsort(-history, kind="stable")]
    at_once = max(1, most_models(panel, train_days, config, order) // config.n_members)
    n_packs = -(-len(order) // at_once)
    return [{"symbols": part.tolist(), "learning_rate_share": 1.0, "done": None}
            for part in np.array_split(np.array(order, dtype=object), n_packs)]


def most_models(panel: Panel, train_days: DayRange, config: RunConfig, order: list[str]) -> int:
    """Networks of one pack: as the profile says, within the checkpoint budget, the kernels' limit and the memory.

    On a GPU two probes take one step each, and their peaks are scaled. A CPU works on a few networks at a time, so
    there only the copies of the weights grow with the pack, and are counted.
    """
    family, machine = family_module(config.family), config.machine
    model_bytes = family.model_bytes(config, len(panel.feature_names))
    state_copies = STATE_COPIES + config.train.keep_top_k
    limits = [machine.pack_models, family.most_models(config),
              int(machine.checkpoint_budget_gb * 1e9 / (state_copies * model_bytes))]
    if machine.device == "cpu":
        copies = 2 * state_copies + 1  # the state, its snapshot, and the gradient
        limits.append(int(MEMORY_SHARE * psutil.virtual_memory().available / (copies * model_bytes)))
    elif len(order) > 1:
        def probe(n_symbols: int) -> tuple[int, int]:
            part = panel.select(order[:n_symbols])
            return n_symbols * config.n_members, peak_of_step(
                lambda: family.make_learner(part, train_days, None, config))

        limits.append(fitting(probe(1), probe(min(PROBE_SYMBOLS, len(order))), MEMORY_SHARE * device_memory()))
    return min(limits)


def fitting(small: tuple[int, float], large: tuple[int, float], room: float) -> int:
    """How many networks `room` [bytes] holds, from the peaks (networks, bytes) of a small and a larger pack."""
    per_model = (large[1] - small[1]) / (large[0] - small[0])
    return max(1, int(small[0] + (room - small[1]) / max(per_model, 1.0)))
