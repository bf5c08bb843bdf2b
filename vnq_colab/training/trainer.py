"""Training: `train` starts a run, or goes on with the same one; `resume` goes on with the latest unfinished one.

A run is one list of jobs: families x folds x packs, then the final fit.
"""

import contextlib
import platform
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from vnq_colab.config import SMOKE_SYMBOLS, RunConfig
from vnq_colab.data.labels import check_market
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import default_universe, keep_panel, load_panel
from vnq_colab.data.splits import Splits, yearly_folds
from vnq_colab.data.synthetic import is_synthetic
from vnq_colab.errors import ConfigError, DataError, name_a_few
from vnq_colab.files import require_space, write_json
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Job, family_module
from vnq_colab.models.stockformer import STATE_COPIES, model_bytes
from vnq_colab.notebook import tell
from vnq_colab.settings import MachineConfig
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.jobs import new_row
from vnq_colab.training.loop import Attempt, deliver
from vnq_colab.training.ownership import find_case, loss_and_rest
from vnq_colab.training.process import code_commit, fitting_machine
from vnq_colab.training.runs import latest_session, new_run_id, sessions, siblings
from vnq_colab.training.session import Session

FEWEST_DAYS = 100  # with prices, below which a symbol is left out
FORECAST_BYTES = 12  # of a stock-day in a job's file
OnFinish = Callable[[Session], None]


def train(ws: Workspace, panel: Panel, config: RunConfig, *, hours: float | None = None, part: str | None = None,
          on_finish: OnFinish | None = None, take_over: bool = False, quiet: bool = False) -> Session:
    """Trains all jobs of the config; a run with the same config and data is continued, not started again.

    `hours` from now is the latest time to stop (None: no limit). Ctrl-C stops at the next safe point. The session that
    comes back is finished or paused; its ledger names what failed. `on_finish` is called with it in every case.
    `take_over` goes on with a run that another process may still be training. With `part` "1/2" on one machine and
    "2/2" on another, in one folder, each trains every second fold; whoever finishes last trains the final fit.
    """
    ws.check_writable()
    symbols, skipped = judged_symbols(panel, config)
    config = replace(config, task=check_market(panel, config.task))
    folds = yearly_folds(panel.days, config.folds, purge_days=config.task.purge_days)
    chosen = parse_part(part) if part else None
    if chosen and chosen[1] > len(folds):
        raise ConfigError(f"{chosen[1]} parts of {len(folds)} folds: one of them is empty. Take fewer parts.")
    session = _same_run(ws, config, panel, symbols, chosen)
    if session is None:
        if not quiet:
            _tell_other_run(ws, config, panel)
        if config.folds is not None and len(folds) < config.folds:
            tell(f"{config.folds} folds were asked for, and {len(panel.days):,} trading days make {len(folds)}: "
                 f"{folds[0].test.first} to {folds[-1].test.last} are judged")
        keep_panel(ws, panel)
        run_id = new_run_id(ws, config) + (f"-part{chosen[0]}of{chosen[1]}" if chosen else "")
        jobs = plan_jobs(panel, folds, replace(config, symbols=tuple(symbols)))
        session = _start(ws, config, run_id, panel, folds, jobs, symbols, skipped, chosen)
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


def judged_symbols(panel: Panel, config: RunConfig) -> tuple[list[str], dict[str, str]]:
    """The symbols that are judged, and those left out with the reason. Raises DataError when none is left."""
    wanted = config.symbols or default_universe(panel)
    if config.symbols is None and config.machine.profile == "smoke":
        wanted = wanted[:SMOKE_SYMBOLS]
    days = panel.select(wanted).present.sum(axis=1).tolist()
    skipped = {symbol: f"{n} days of prices, needed {FEWEST_DAYS}" for symbol, n in zip(wanted, days, strict=True)
               if n < FEWEST_DAYS}
    if len(skipped) == len(wanted):
        few = name_a_few(f"{symbol} has {why}" for symbol, why in skipped.items())
        raise DataError(f"no symbol has enough history: {few}. Bring a longer history.")
    return [symbol for symbol in wanted if symbol not in skipped], skipped


def plan_jobs(panel: Panel, folds: list[Splits], config: RunConfig) -> list[Job]:
    """All jobs of a run, fold after fold and then the final fit; a family that another begins from comes first."""
    families = list(config.families)
    if "stockformer" in families and config.stockformer.start == "global" and "global" not in families:
        families.append("global")
    order = sorted(families, key=("trees", "global", "stockformer").index)
    jobs = [job for family in order
            for job in family_module(family).plan(config.task, panel, folds, config, config.machine)]
    return sorted(jobs, key=lambda job: len(folds) if job.fold is None else job.fold)


def parse_part(text: str) -> tuple[int, int]:
    """"1/2" -> (1, 2): the first of two parts."""
    number, slash, of = text.strip().partition("/")
    if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise ConfigError(f"part {text!r}: write it as 1/2 for the first of two machines, 2/2 for the second.")
    return int(number), int(of)


def _same_run(ws: Workspace, config: RunConfig, panel: Panel, symbols: list[str],
              part: tuple[int, int] | None) -> Session | None:
    """The newest run of this config on this data."""
    for session in reversed(sessions(ws)):
        if (session.config.config_id == config.config_id and session.data_id == panel.data_id
                and set(session.ledger) == set(symbols) and session.part == (list(part) if part else None)):
            return session
    return None


def _tell_other_run(ws: Workspace, config: RunConfig, panel: Panel) -> None:
    """Says so when an unfinished run on this data differs: the person may have meant to go on with it."""
    others = [session for session in sessions(ws) if session.status in ("running", "paused")
              and session.data_id == panel.data_id]
    if others and (differences := others[-1].config.differences(config)):
        tell(f"Run {others[-1].run_id} on this data is not finished and differs ({name_a_few(differences)}): this is "
             f"a new run. To go on with that one instead: resume --run {others[-1].run_id}")


def _start(ws: Workspace, config: RunConfig, run_id: str, panel: Panel, folds: list[Splits], jobs: list[Job],
           symbols: list[str], skipped: dict[str, str], part: tuple[int, int] | None) -> Session:
    """Writes a new session, after looking whether the disk has room for what the run will write."""
    size = model_bytes(config, panel)
    models = [len(job.symbols) * config.n_members for job in jobs if job.pack is not None] or [config.n_members]
    copies = 2 * (STATE_COPIES + config.train.keep_top_k)  # in both slots
    forecasts = FORECAST_BYTES * len(jobs) * 2 * len(panel.days) / len(folds) * len(symbols)
    for folder in dict.fromkeys((ws.local.root, ws.root)):
        require_space(folder, size * (1.5 * len(symbols) * config.n_members + copies * max(models)) + forecasts,
                      "this run")
    session = Session.create(
        ws, config, run_id, data_id=panel.data_id, folds=[fold.to_dict() for fold in folds],
        jobs={job.name: new_row(job) for job in jobs}, skipped=skipped, synthetic=is_synthetic(panel.symbols),
        ledger={symbol: {"state": "pending", "reason": ""} for symbol in sorted(symbols)},
        part=list(part) if part else None)
    write_json(ws.local.configs / f"{session.run_id}.json", {
        "run_id": session.run_id, "config": config.to_dict(), "config_id": config.config_id, "data_id": panel.data_id,
        "folds": session.folds, "symbols": list(session.ledger), "jobs": list(session.jobs),
        "code_version": session.code_version, "commit": code_commit(),
        "torch": torch.__version__, "numpy": np.__version__, "python": platform.python_version(),
    })
    return session


def _run(session: Session, panel: Panel, machine: MachineConfig, hours: float | None, on_finish: OnFinish | None,
         quiet: bool, take_over: bool = False) -> Session:
    """One attempt at what a session has left; says first which case it found, what is lost and what is left."""
    _reopen_lost_jobs(session)
    if session.status == "finished":
        deliver(session)
        if not quiet:
            tell(f"{session.run_id} is finished: nothing to do. validate judges it, export writes its models.")
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


def _reopen_lost_jobs(session: Session) -> None:
    """A job whose file is gone, or damaged wherever it lies, is not done: it is trained again."""
    store = CheckpointStore(session.ws, session.run_id, siblings(session))
    for name, row in session.jobs.items():
        if row["state"] == "done" and not store.is_usable(name):
            tell(f"{session.folder / store.done_name(name)} is gone or damaged: this job is trained again.")
            row["state"], session.status = "pending", "paused"

