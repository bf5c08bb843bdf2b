"""Training: packs one after another, steps inside them, and once in a while everything that must not be lost.

`train` starts a run or goes on with the same one; `resume` goes on with the latest unfinished one; `refit` trains a
judged run's networks again on all labelled days.
"""

import contextlib
import platform
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vnq_colab.config import MachineConfig, RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import keep_panel, load_panel
from vnq_colab.data.splits import Splits
from vnq_colab.data.synthetic import is_synthetic
from vnq_colab.errors import SessionError, name_a_few
from vnq_colab.files import require_space, write_json
from vnq_colab.layout import Workspace
from vnq_colab.models.base import family_module
from vnq_colab.notebook import tell
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.loop import Attempt, deliver
from vnq_colab.training.ownership import find_case, loss_and_rest
from vnq_colab.training.packs import STATE_COPIES, choose_symbols, compose_packs
from vnq_colab.training.parts import parse_part, symbols_of_part, whole_run
from vnq_colab.training.process import code_commit, fitting_machine
from vnq_colab.training.runs import latest_session, new_run_id, sessions
from vnq_colab.training.session import REFIT, Session
from vnq_colab.training.start import planned_start

OnFinish = Callable[[Session], None]


def train(ws: Workspace, panel: Panel, splits: Splits, config: RunConfig, *, hours: float | None = None,
          part: str | None = None, fold: tuple[int, int] | None = None, on_finish: OnFinish | None = None,
          take_over: bool = False, quiet: bool = False) -> Session:
    """Trains every symbol of the config; a run with the same config and data is continued, not started again.

    `hours` from now is the latest time to stop (None: no limit). Ctrl-C stops at the next safe point. The session that
    comes back is finished or paused; its ledger names what failed. `on_finish` is called with it in every case.
    `take_over` goes on with a run that another process may still be training. With `part` "1/2" on one machine and
    "2/2" on another each trains half of the symbols; `validate` and `export` take the parts as one run. `fold`
    (number, of how many) is for `walk_forward`: such a run is named so, and is never the latest.
    """
    ws.check_writable()
    symbols, skipped = choose_symbols(panel, splits, config)
    chosen = parse_part(part) if part else None
    if chosen:
        symbols = symbols_of_part(panel, splits.train, symbols, chosen)
    days = {"train": [splits.train.first, splits.train.last], "valid": [splits.valid.first, splits.valid.last],
            "splits": splits.to_dict()}
    session = _same_run(ws, config, panel, symbols, days)
    if session is None:
        if not quiet:
            _tell_other_run(ws, config, panel)
        keep_panel(ws, panel)
        packs = compose_packs(panel, splits.train, config, symbols)
        run_id = new_run_id(ws, config)
        run_id += f"-part{chosen[0]}of{chosen[1]}" if chosen else f"-fold{fold[0]}of{fold[1]}" if fold else ""
        session = _start(ws, config, run_id, panel, days, packs, skipped, part=chosen and list(chosen),
                         start=planned_start(config))
    return _run(session, panel, config.machine, hours, on_finish, quiet, take_over)


def resume(ws: Workspace, run: str | None = None, *, hours: float | None = None, on_finish: OnFinish | None = None,
           take_over: bool = False, quiet: bool = False) -> Session:
    """Goes on with the latest unfinished run, or with `run`, where it stopped: same config, same data, same bits.

    Says how the last attempt ended, what that costs and what is left. A run whose owner is alive is refused: on this
    machine at once, on another when it gives a sign of life within two heartbeats; `take_over` does not ask. With
    nothing to do it returns the latest run as it is. Raises SessionError when there is no run at all.
    """
    if run is not None:
        session = latest_session(ws, run)
    else:
        unfinished = [session for session in sessions(ws) if session.status in ("running", "paused")]
        session = unfinished[-1] if unfinished else latest_session(ws)
    panel = load_panel(ws, session.data_id)
    return _run(session, panel, fitting_machine(session), hours, on_finish, quiet, take_over)


def refit(judged: Session, *, hours: float | None = None, on_finish: OnFinish | None = None,
          quiet: bool = False) -> Session:
    """Trains the networks of a finished run again on all labelled days, for the epochs that were best on held-out days.

    The refit is a run of its own, named after the judged one, with packs, checkpoints and resume.
    """
    judged = whole_run(judged)
    if judged.status != "finished":
        raise SessionError(f"run {judged.run_id} is {judged.status}. Go on with resume first, or export what is "
                           "finished without a refit (--no-refit, in Python: refit=False).")
    done = {symbol: row["best_epochs"] for symbol, row in judged.ledger.items() if row["state"] == "done"}
    if not done:
        raise SessionError(f"run {judged.run_id} has no symbol that did not fail, so there is nothing to train again.")
    run_id, panel = judged.run_id + REFIT, load_panel(judged.ws, judged.data_id)
    if any(home.checkpoint_folder(run_id).exists() for home in (judged.ws.local, judged.ws)):
        session = Session.load(judged.ws, run_id)
        return _run(session, panel, fitting_machine(session), hours, on_finish, quiet)
    days = {"train": [f"{panel.days[0]:%Y-%m-%d}", f"{panel.days[-1]:%Y-%m-%d}"], "valid": None,
            "splits": judged.days["splits"]}
    start = planned_start(judged.config, judged.start and judged.start["epochs"])
    packs = []
    for pack in judged.packs:  # a retried symbol stands in two packs and was done in one
        symbols = [symbol for symbol in pack["symbols"] if judged.ledger[symbol].get("file") == pack["done"]]
        packs += [pack | {"symbols": symbols, "done": None}] if symbols else []
    session = _start(judged.ws, judged.config, run_id, panel, days, packs, {}, epochs_of=done, start=start)
    return _run(session, panel, fitting_machine(judged), hours, on_finish, quiet)


def _same_run(ws: Workspace, config: RunConfig, panel: Panel, symbols: list[str], days: dict) -> Session | None:
    """The newest run of this config on this data, unless it failed."""
    for session in reversed(sessions(ws)):
        if (not session.is_refit and session.config.config_id == config.config_id and session.data_id == panel.data_id
                and session.days == days and set(session.ledger) == set(symbols) and session.status != "failed"):
            return session
    return None


def _tell_other_run(ws: Workspace, config: RunConfig, panel: Panel) -> None:
    """Says so when an unfinished run on this data differs: the person may have meant to go on with it."""
    others = [session for session in sessions(ws) if session.status in ("running", "paused") and not session.is_refit
              and session.data_id == panel.data_id]
    if others and (differences := others[-1].config.differences(config)):
        tell(f"Run {others[-1].run_id} on this data is not finished and differs ({name_a_few(differences)}): this is "
             f"a new run. To go on with that one instead: resume --run {others[-1].run_id}")


def _start(ws: Workspace, config: RunConfig, run_id: str, panel: Panel, days: dict, packs: list[dict],
           skipped: dict[str, str], **parts: Any) -> Session:
    """Writes a new session, after looking whether the disk has room for what the run will write."""
    model_bytes = family_module(config.family).model_bytes(config, len(panel.feature_names))
    models = [len(pack["symbols"]) * config.n_members for pack in packs]
    copies = 2 * (STATE_COPIES + config.train.keep_top_k)  # in both slots
    for folder in dict.fromkeys((ws.local.root, ws.root)):
        require_space(folder, model_bytes * (sum(models) * 1.5 + copies * max(models)), "this run")
    ledger = {symbol: {"state": "pending", "reason": ""} for pack in packs for symbol in sorted(pack["symbols"])}
    session = Session.create(ws, config, run_id, data_id=panel.data_id, days=days, packs=packs, ledger=ledger,
                            skipped=skipped, synthetic=is_synthetic(panel.symbols), **parts)
    write_json(ws.local.configs / f"{session.run_id}.json", {
        "run_id": session.run_id, "config": config.to_dict(), "config_id": config.config_id, "data_id": panel.data_id,
        "days": days, "symbols": list(ledger), "code_version": session.code_version, "commit": code_commit(),
        "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
    })
    return session


def _run(session: Session, panel: Panel, machine: MachineConfig, hours: float | None, on_finish: OnFinish | None,
         quiet: bool, take_over: bool = False) -> Session:
    """One attempt at what a session has left; says first which case it found, what is lost and what is left."""
    _reopen_lost_packs(session)
    if session.status == "finished":
        deliver(session)
        if not quiet:
            tell(f"{session.run_id} is finished: nothing to do.")
        return session
    case = find_case(session, take_over)
    if session.attempts and not quiet:
        tell(f"{session.run_id}: {case}. {loss_and_rest(session).capitalize()}.")
    try:
        Attempt(session, panel, machine, hours, quiet).run()
    except BaseException:
        if on_finish is not None:
            with contextlib.suppress(Exception):  # the first error is the one to see
                on_finish(session)
        raise
    if on_finish is not None:
        on_finish(session)
    return session


def _reopen_lost_packs(session: Session) -> None:
    """A pack whose file is gone, or damaged wherever it lies, is not done: its symbols are trained again."""
    store = CheckpointStore(session.ws, session.run_id)
    for pack in session.packs:
        if pack["done"] is not None and not store.is_usable(pack["done"]):
            for symbol, row in session.ledger.items():
                if row.get("file") == pack["done"]:
                    session.ledger[symbol] = {"state": "pending", "reason": ""}
            tell(f"{session.folder / pack['done']} is gone or damaged: its symbols are trained again.")
            pack["done"], session.status = None, "paused"
