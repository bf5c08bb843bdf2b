"""Which symbols a run trains, and which of them together."""

from typing import Any

import numpy as np

from vnq_colab.config import SMOKE_SYMBOLS, RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import default_universe
from vnq_colab.data.splits import DayRange, Splits
from vnq_colab.errors import DataError, name_a_few
from vnq_colab.models.base import family_module

FEWEST_DAYS = {"valid": 20, "train": 100}  # labelled days below which a symbol is left out
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
    """The packs of a run, fixed at its start: symbols of like history together, within memory and checkpoint budget."""
    chosen = panel.select(symbols)
    history = (chosen.present & train_days.mask(panel.days)).sum(axis=1)
    order = [symbols[row] for row in np.argsort(-history, kind="stable")]
    model_bytes = family_module(config.family).model_bytes(config, len(panel.feature_names))
    state_bytes = (STATE_COPIES + config.train.keep_top_k) * model_bytes
    models = min(config.machine.pack_models, int(config.machine.checkpoint_budget_gb * 1e9 / state_bytes))
    models = min(models, family_module(config.family).most_models(config))
    at_once = max(1, models // config.n_members)
    n_packs = -(-len(order) // at_once)
    return [{"symbols": part.tolist(), "learning_rate_share": 1.0, "done": None}
            for part in np.array_split(np.array(order, dtype=object), n_packs)]
