"""Training: packs one after another, steps inside them, and once in a while everything that must not be lost.

`train` starts a run or goes on with the same one; `resume` goes on with the latest unfinished one; `refit` trains a
judged run's networks again on all labelled days.
"""

import contextlib
import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vnq_colab.clock import Clock
from vnq_colab.config import MachineConfig, RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import keep_panel, load_panel
from vnq_colab.data.splits import DayRange, Splits
from vnq_colab.data.synthetic import is_synthetic
from vnq_colab.errors import SessionError, StorageError, name_a_few
from vnq_colab.files import require_space, write_json
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Learner, family_module
from vnq_colab.notebook import tell
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.packs import STATE_COPIES, choose_symbols, compose_packs
from vnq_colab.training.process import (
    code_commit,
    fitting_machine,
    give_memory_back,
    is_out_of_memory,
    refuse_second_owner,
    set_up_machine,
    stop_requests,
)
from vnq_colab.training.progress import Progress, finish_words
from vnq_colab.training.session import REFIT, Session, latest_session, sessions

HEARTBEAT_SECONDS = 60
MARGIN_SECONDS = 60  # kept for the last checkpoint when time is up
RETRY_SHARE = 0.3  # of the learning rate, for the second try of a diverged symbol

OnFinish = Callable[[Session], None]


def train(ws: Workspace, panel: Panel, splits: Splits, config: RunConfig, *, hours: float | None = None,
          on_finish: OnFinish | None = None, quiet: bool = False) -> Session:
    """Trains every symbol of the config; a run with the same config and data is continued, not started again.

    `hours` from now is the latest time to stop (None: no limit). Ctrl-C stops at the next safe point. The session that
    comes back is finished or paused; its ledger names what failed. `on_finish` is called with it in every case.
    """
    ws.check_writable()
    symbols, skipped = choose_symbols(panel, splits, config)
    days = {"train": [splits.train.first, splits.train.last], "valid": [splits.valid.first, splits.valid.last],
            "splits": splits.to_dict()}
    session = _same_run(ws, config, panel, symbols, days)
    if session is None:
        if not quiet:
            _tell_other_run(ws, config, panel)
        keep_panel(ws, panel)
        packs = compose_packs(panel, splits.train, config, symbols)
        session = _start(ws, config, panel, days, packs, skipped)
    return _run(session, panel, config.machine, hours, on_finish, quiet)


def resume(ws: Workspace, run: str | None = None, *, hours: float | None = None, on_finish: OnFinish | None = None,
           quiet: bool = False) -> Session:
    """Goes on with the latest unfinished run, or with `run`, where it stopped: same config, same data, same bits.

    With nothing to do it returns the latest run as it is. Raises SessionError when there is no run at all.
    """
    if run is not None:
        session = latest_session(ws, run)
    else:
        unfinished = [session for session in sessions(ws) if session.status in ("running", "paused")]
        session = unfinished[-1] if unfinished else latest_session(ws)
    panel = load_panel(ws, session.data_id)
    return _run(session, panel, fitting_machine(session), hours, on_finish, quiet)


def refit(judged: Session, *, hours: float | None = None, on_finish: OnFinish | None = None,
          quiet: bool = False) -> Session:
    """Trains the networks of a finished run again on all labelled days, for the epochs that were best on held-out days.

    The refit is a run of its own, named after the judged one, with packs, checkpoints and resume.
    """
    if judged.status != "finished":
        raise SessionError(f"run {judged.run_id} is {judged.status}. Go on with resume first, or export what is "
                           "finished without a refit (--no-refit, in Python: refit=False).")
    done = {symbol: row["best_epochs"] for symbol, row in judged.ledger.items() if row["state"] == "done"}
    if not done:
        raise SessionError(f"run {judged.run_id} has no symbol that did not fail, so there is nothing to train again.")
    run_id, panel = judged.run_id + REFIT, load_panel(judged.ws, judged.data_id)
    if (judged.ws.checkpoint_folder(run_id) / "session.json").exists():
        session = Session.load(judged.ws, run_id)
        return _run(session, panel, fitting_machine(session), hours, on_finish, quiet)
    days = {"train": [f"{panel.days[0]:%Y-%m-%d}", f"{panel.days[-1]:%Y-%m-%d}"], "valid": None,
            "splits": judged.days["splits"]}
    packs = []
    for pack in judged.packs:  # a retried symbol stands in two packs and was done in one
        symbols = [symbol for symbol in pack["symbols"] if judged.ledger[symbol].get("file") == pack["done"]]
        packs += [pack | {"symbols": symbols, "done": None}] if symbols else []
    session = _start(judged.ws, judged.config, panel, days, packs, {}, run_id=run_id, epochs_of=done)
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


def _start(ws: Workspace, config: RunConfig, panel: Panel, days: dict, packs: list[dict], skipped: dict[str, str],
           **parts: Any) -> Session:
    """Writes a new session, after looking whether the disk has room for what the run will write."""
    model_bytes = family_module(config.family).model_bytes(config, len(panel.feature_names))
    models = [len(pack["symbols"]) * config.n_members for pack in packs]
    copies = 2 * (STATE_COPIES + config.train.keep_top_k)  # in both slots
    require_space(ws.root, model_bytes * (sum(models) * 1.5 + copies * max(models)), "this run")
    ledger = {symbol: {"state": "pending", "reason": ""} for pack in packs for symbol in sorted(pack["symbols"])}
    session = Session.start(ws, config, data_id=panel.data_id, days=days, packs=packs, ledger=ledger, skipped=skipped,
                            synthetic=is_synthetic(panel.symbols), **parts)
    write_json(ws.configs / f"{session.run_id}.json", {
        "run_id": session.run_id, "config": config.to_dict(), "config_id": config.config_id, "data_id": panel.data_id,
        "days": days, "symbols": list(ledger), "code_version": session.code_version, "commit": code_commit(),
        "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
    })
    return session


def _run(session: Session, panel: Panel, machine: MachineConfig, hours: float | None, on_finish: OnFinish | None,
         quiet: bool) -> Session:
    """The loop: every pack that is not done, every step until its learner is finished."""
    _reopen_lost_packs(session)
    if session.status == "finished":
        if not quiet:
            tell(f"{session.run_id} is finished: nothing to do.")
        return session
    refuse_second_owner(session)
    clock = Clock(hours, session.seconds)
    session.seconds = clock.seconds  # one dictionary: what the clock counts is what the session stores
    store = CheckpointStore(session.folder)
    set_up_machine(session, machine)
    session.begin_attempt()
    progress = Progress(session, panel, clock, quiet)
    try:
        with stop_requests() as stop:
            progress.begin(stop)
            why = _train_packs(session, panel, machine, store, clock, progress, stop)
        _close(session, clock, progress, *(("paused", why) if why else ("finished", finish_words(session))))
    except StorageError as error:  # the last good checkpoint stays; making room and resuming goes on from it
        _close(session, clock, progress, "paused", str(error))
    except KeyboardInterrupt:
        _close(session, clock, progress, "paused", "interrupted twice, back to the last checkpoint")
    except BaseException as error:
        _close(session, clock, progress, "paused", f"stopped by {type(error).__name__}: {error}")
        if on_finish is not None:
            with contextlib.suppress(Exception):  # the first error is the one to see
                on_finish(session)
        if is_out_of_memory(error):
            raise SessionError(f"run {session.run_id}: not enough memory, even for the {session.config.n_members} "
                               "networks of one symbol. Close other programs and resume, or start again with smaller "
                               "steps: --set train.batch_windows=2.") from error
        raise
    if on_finish is not None:
        on_finish(session)
    return session


def _reopen_lost_packs(session: Session) -> None:
    """A pack whose file is gone is not done: its symbols are trained again."""
    for pack in session.packs:
        if pack["done"] is not None and not (session.folder / pack["done"]).exists():
            for symbol, row in session.ledger.items():
                if row.get("file") == pack["done"]:
                    session.ledger[symbol] = {"state": "pending", "reason": ""}
            tell(f"{session.folder / pack['done']} is gone: its symbols are trained again.")
            pack["done"], session.status = None, "paused"


def _close(session: Session, clock: Clock, progress: Progress, status: str, why: str) -> None:
    """The end of an attempt, as far as the disk takes it."""
    clock.settle()
    with contextlib.suppress(StorageError):
        session.end_attempt(status, why)
    with contextlib.suppress(StorageError):
        progress.close(status, why)


def _train_packs(session: Session, panel: Panel, machine: MachineConfig, store: CheckpointStore, clock: Clock,
                 progress: Progress, stop: list[str]) -> str:
    """Trains what is left; returns why it paused, or "" when everything is done. A pack that does not fit is halved."""
    while (number := next((n for n, pack in enumerate(session.packs) if pack["done"] is None), None)) is not None:
        try:
            if why := _train_pack(session, panel, machine, store, clock, progress, stop, number):
                return why
        except Exception as error:
            if not is_out_of_memory(error) or len(session.packs[number]["symbols"]) == 1:
                raise
        else:
            continue
        give_memory_back()  # not inside the except: the error holds on to all that was in memory
        progress.say(_halve(session, number))
    return ""


def _train_pack(session: Session, panel: Panel, machine: MachineConfig, store: CheckpointStore, clock: Clock,
                progress: Progress, stop: list[str], number: int) -> str:
    """Trains one pack, from its checkpoint if there is one; returns why it paused, or ""."""
    learner, symbols = _make_learner(session, panel, machine, number), session.packs[number]["symbols"]
    state, told = store.load_latest(number)
    for sentence in told:
        progress.say(sentence)
    if state is not None and state["facts"].get("symbols") == symbols:  # else it is of the pack before it was halved
        learner.load_state_dict(state)
        progress.say(f"pack {number + 1}: goes on from its checkpoint in epoch {learner.epoch + 1}")
    for symbol in symbols:
        session.ledger[symbol]["state"] = "training"
    session.save()
    while not learner.finished:
        with clock.spend("training"):
            measured = learner.step()
        clock.move("training", "evaluation", measured.get("evaluation_seconds", 0.0))

        # once in a while: tell the person, and whoever reads session.json
        progress.step(measured, learner)
        if clock.due("heartbeat", seconds=HEARTBEAT_SECONDS):
            session.save()

        # once in a while: make sure that nothing is lost
        time_is_up = clock.is_up(MARGIN_SECONDS)
        if stop or time_is_up or clock.due("checkpoint", minutes=session.config.train.checkpoint_minutes):
            _checkpoint(session, learner, store, clock, number)
            progress.keep()
        if stop or time_is_up:
            return stop[0] if stop else "time is up"
    _finish_pack(session, learner, store, clock, number)
    progress.finish_pack(number, learner)
    return ""


def _halve(session: Session, number: int) -> str:
    """Leaves the first half of a pack at its number and puts the second behind all packs; both begin anew."""
    pack = session.packs[number]
    halves = [pack | {"symbols": part.tolist()} for part in np.array_split(np.array(pack["symbols"], dtype=object), 2)]
    for symbol in pack["symbols"]:
        session.ledger[symbol]["state"] = "pending"
    session.packs[number:] = [halves[0], *session.packs[number + 1:], halves[1]]
    session.save()
    before, first, second = (len(part["symbols"]) * session.config.n_members for part in (pack, *halves))
    return f"pack {number + 1} does not fit: {before} networks; going on with {first} and {second}"


def _make_learner(session: Session, panel: Panel, machine: MachineConfig, number: int) -> Learner:
    config, pack = replace(session.config, machine=machine), session.packs[number]
    epochs_of = session.epochs_of and {(symbol, member): epochs for symbol in pack["symbols"]
                                       for member, epochs in enumerate(session.epochs_of[symbol])}
    valid = session.days["valid"]
    return family_module(config.family).make_learner(
        panel.select(pack["symbols"]), DayRange(*session.days["train"]), valid and DayRange(*valid), config,
        pack=number, learning_rate_share=pack["learning_rate_share"], epochs_of=epochs_of,
    )


def _checkpoint(session: Session, learner: Learner, store: CheckpointStore, clock: Clock, number: int) -> None:
    with clock.spend("checkpoint"):
        facts = {"pack": number, "symbols": session.packs[number]["symbols"], "epoch": learner.epoch,
                 "step": learner.step_in_epoch, "data_id": session.data_id, "config_id": session.config.config_id,
                 "code_version": session.code_version}
        session.checkpoint = store.save(learner.state_dict(), facts)
    clock.mark("checkpoint")
    session.save()


def _finish_pack(session: Session, learner: Learner, store: CheckpointStore, clock: Clock, number: int) -> None:
    """Writes the finished pack, then its ledger rows; plans the second try of what diverged."""
    pack, diverged = session.packs[number], learner.diverged()
    with clock.spend("evaluation"):
        measured = learner.measure().set_index("symbol")
        forecaster = learner.forecaster() if len(measured) else None
        accuracy = learner.valid_accuracy() if len(measured) else {}
    with clock.spend("checkpoint"):
        done = store.save_pack(number, forecaster.to_state() if forecaster else {"symbols": []})
        session.add_history(learner.history)
    for symbol in measured.index:
        row = measured.loc[symbol]
        session.ledger[symbol] = {
            "state": "done", "epoch": int(row["epoch"]), "best_epoch": float(row["best_epoch"]),
            "best_epochs": learner.best_epochs(symbol), "valid_loss": _number(row["valid_loss"]),
            "valid_accuracy": _number(accuracy.get(symbol)), "file": done,
            "sha256": forecaster.digest(symbol), "reason": "",
        }
    again = [symbol for symbol in diverged if pack["learning_rate_share"] == 1.0]
    for symbol, reason in diverged.items():
        session.ledger[symbol] = {"state": "pending" if symbol in again else "failed", "reason": reason}
    if again:
        session.packs.append({"symbols": again, "learning_rate_share": RETRY_SHARE, "done": None})
    pack["done"] = done
    clock.mark("checkpoint")
    session.save()


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
