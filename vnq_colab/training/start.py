"""The shared start of a run: one network of all symbols, from whose weights every symbol's own networks begin.

It is one closed, verified file of the run. Killed before that is written, it is trained again, to the same bits.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from vnq_colab.config import MachineConfig, RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import DayRange, Splits
from vnq_colab.errors import CheckpointError
from vnq_colab.models.global_network import train_global
from vnq_colab.training.checkpoint import START, CheckpointStore
from vnq_colab.training.packs import choose_symbols
from vnq_colab.training.session import Session


def planned_start(config: RunConfig, epochs: int | None = None) -> dict[str, Any] | None:
    """What a new session says of its shared start, `epochs` in a refit; None where each network has its own."""
    return {"done": None, "epochs": epochs} if config.train.start == "shared" else None


def shared_start(session: Session, panel: Panel, machine: MachineConfig, store: CheckpointStore,
                 between: Callable[[dict[str, Any]], str]) -> "torch.Tensor | str":
    """The weights `[parameters]` of a session's start, from its file, else trained and written; or why it paused.

    It learns from the whole universe of the data, whichever symbols are asked for, so that what becomes of a symbol
    does not depend on its company. `between` gets the measurements of each step, and stops the training when it returns
    a reason.
    """
    facts = {"data_id": session.data_id, "config_id": session.config.config_id, "train": list(session.days["train"])}
    if store.has_pack(START):
        with contextlib.suppress(CheckpointError):  # damaged: it is trained, and written, anew
            state = store.load_pack(START)
            if state.get("facts") == facts:
                session.start = {"done": START, "epochs": state["epochs"]}
                return state["weights"]
    universe = replace(session.config, symbols=None)
    symbols, _ = choose_symbols(panel, Splits.from_dict(session.days["splits"]), universe)
    valid = session.days["valid"]
    found = train_global(panel.select(symbols), DayRange(*session.days["train"]), valid and DayRange(*valid),
                         replace(session.config, machine=machine), epochs=session.start["epochs"], between=between)
    if isinstance(found, str):
        return found
    store.save_start({"weights": found.weights, "epochs": found.best_epoch, "facts": facts})
    session.start = {"done": START, "epochs": found.best_epoch}
    return found.weights


def stored_start(session: Session) -> torch.Tensor | None:
    """The weights `[parameters]` that the networks of a finished run began from; None: from random ones, or lost."""
    if session.start is None or session.start["done"] is None:
        return None
    with contextlib.suppress(CheckpointError):
        return CheckpointStore(session.ws, session.run_id).load_pack(session.start["done"])["weights"]
    return None
