"""Training: `train` starts a run, or goes on with the same one; `resume` goes on with the latest unfinished one."""

import contextlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import torch

from vnq_colab.clock import seconds_since, spell
from vnq_colab.config import SMOKE_SYMBOLS, RunConfig
from vnq_colab.data.forecast import check_market
from vnq_colab.data.panel import Panel, default_universe
from vnq_colab.data.prepared import keep_panel, load_panel
from vnq_colab.data.splits import Splits, yearly_folds
from vnq_colab.data.synthetic import is_synthetic
from vnq_colab.errors import ConfigError, DataError, SessionError, StorageError, VnqError, name_a_few, tell
from vnq_colab.files import MOST_JSON, read_bytes, require_space, write_sealed
from vnq_colab.layout import HEARTBEAT, SESSION, Workspace
from vnq_colab.models.base import FAMILIES, Job, family_module
from vnq_colab.models.stockformer import STATE_COPIES, model_bytes
from vnq_colab.settings import MachineConfig
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.jobs import facts_of, job_of, load_job, new_row
from vnq_colab.training.loop import Attempt, deliver
from vnq_colab.training.process import code_commit, fitting_machine
from vnq_colab.training.session import Session, new_run_id, sessions, status

WATCH_SECONDS = 1.0  # between two readings of another machine's heartbeat
FEWEST_DAYS = 100  # with prices, below which a symbol is left out
FORECAST_BYTES = 12  # of a stock-day in a job's file
OnFinish = Callable[[Session], None]


def train(ws: Workspace, panel: Panel, config: RunConfig, *, hours: float | None = None, part: str | None = None,
          on_finish: OnFinish | None = None, take_over: bool = False, quiet: bool = False) -> Session:
    """Trains all jobs of the config; a run with the same config and data is continued, not started again.

    `hours` from now is the latest time to stop (None: no limit). `on_finish` is called with the session, finished or
    paused. `take_over` does not ask whether another process still trains it. With `part` "1/2" here and "2/2" on
    another machine, in one folder, each trains every second fold; whoever finishes last trains the final fit.
    """
    ws.check_writable()
    symbols, skipped = judged_symbols(panel, config)
    config = replace(config, task=check_market(panel, config.task))
    folds = yearly_folds(panel.days, config.folds, purge_days=config.task.purge_days)
    chosen = parse_part(part) if part else None
    if chosen and chosen[1] > len(folds):
        raise ConfigError(f"{chosen[1]} parts of {len(folds)} folds: one of them is empty. Take fewer parts.")
    runs = [session for session in reversed(sessions(ws)) if session.data_id == panel.data_id]
    session = next((session for session in runs if session.config.config_id == config.config_id
                    and set(session.ledger) == set(symbols) and session.part == chosen), None)
    if session is None:
        unfinished = [other for other in runs if other.status != "finished"]
        if not quiet and unfinished and (differences := unfinished[0].config.differences(config)):
            tell(f"Run {unfinished[0].run_id} on this data is not finished and differs ({name_a_few(differences)}): "
                 f"this is a new run. To go on with that one instead: resume --run {unfinished[0].run_id}")
        if config.folds is not None and len(folds) < config.folds:
            tell(f"{config.folds} folds were asked for, and {len(panel.days):,} trading days make {len(folds)}: "
                 f"{folds[0].test.first} to {folds[-1].test.last} are judged")
        keep_panel(ws, panel)
        session = start_run(ws, config, panel, folds, symbols, skipped, chosen)
    if not session.attempts and (taken := reuse(session, panel)) and not quiet:
        tell(f"{len(taken)} of {len(session.jobs)} jobs are those of an earlier run, on days that have not changed")
    return go_on(session, panel, config.machine, hours, on_finish, quiet, take_over)


def resume(ws: Workspace, run: str | None = None, *, hours: float | None = None, on_finish: OnFinish | None = None,
           take_over: bool = False, quiet: bool = False) -> Session:
    """Goes on with the latest unfinished run, or with `run`, where it stopped: same config, same data, same bits.

    With nothing to do it returns the latest run. Raises SessionError when there is none, or its owner is alive.
    """
    session = status(ws, run)
    return go_on(session, load_panel(ws, session.data_id), fitting_machine(session), hours, on_finish, quiet, take_over)


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
    jobs = [job for family in FAMILIES if family in families
            for job in family_module(family).plan(config.task, panel, folds, config, config.machine)]
    return sorted(jobs, key=lambda job: len(folds) if job.fold is None else job.fold)


def parse_part(text: str) -> list[int]:
    """"1/2" -> [1, 2]: the first of two parts."""
    number, slash, of = text.strip().partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and len(text) < 9 and 1 <= int(number) <= int(of)):
        raise ConfigError(f"part {text!r}: write it as 1/2 for the first of two machines, 2/2 for the second.")
    return [int(number), int(of)]


def start_run(ws: Workspace, config: RunConfig, panel: Panel, folds: list[Splits], symbols: list[str],
              skipped: dict[str, str], part: list[int] | None = None, *, is_trial: bool = False) -> Session:
    """Writes a new session, after looking whether the disk has room for what the run will write.

    A trial of a search has the jobs of its folds alone.
    """
    run_id = new_run_id(ws, config) + (f"-part{part[0]}of{part[1]}" if part else "")
    jobs = plan_jobs(panel, folds, replace(config, symbols=tuple(symbols)))
    jobs = [job for job in jobs if job.fold is not None] if is_trial else jobs
    size = model_bytes(config, panel)
    models = [len(job.symbols) * config.n_members for job in jobs if job.pack is not None] or [config.n_members]
    copies = 2 * (STATE_COPIES + config.train.keep_top_k)  # in both slots
    forecasts = FORECAST_BYTES * len(jobs) * 2 * len(panel.days) / len(folds) * len(symbols)
    needed = size * (1.5 * len(symbols) * config.n_members + copies * max(models)) + forecasts
    for home in ws.homes:
        require_space(home.root, needed, "this run")
    session = Session(
        ws, run_id, config, data_id=panel.data_id, folds=[asdict(fold) for fold in folds],
        jobs={job.name: new_row(job) for job in jobs}, skipped=skipped, synthetic=is_synthetic(panel.symbols),
        ledger={symbol: {"state": "pending", "reason": ""} for symbol in sorted(symbols)}, part=part)
    session.save()
    write_sealed(ws.local.configs / f"{session.run_id}.json", session.to_dict() | {
        "commit": code_commit(), "torch": torch.__version__, "numpy": np.__version__,
        "python": platform.python_version()})
    return session


def reuse(session: Session, panel: Panel) -> list[str]:
    """Takes the finished jobs of the newest earlier run of this config whose fold, and every bit up to its end, is the
    same; their names. They lie in the new run's `done/`, where its first attempt finds them.
    """
    earlier = [run for run in sessions(session.ws) if run.run_id < session.run_id and run.part == session.part and
               (run.config.config_id, run.code_version) == (session.config.config_id, session.code_version)]
    taken: list[str] = []
    if not earlier or set(earlier[-1].ledger) != set(session.ledger):
        return taken
    try:
        n_same = _same_days(load_panel(session.ws, earlier[-1].data_id), panel)
    except VnqError:  # its data was tidied away
        return taken
    old, new = CheckpointStore.of(earlier[-1]), CheckpointStore.of(session)
    for name, row in session.jobs.items():
        before, fold = earlier[-1].jobs.get(name), row["fold"]
        if fold is None or not before or before["state"] != "done" or job_of(before) != job_of(row) or (
                earlier[-1].folds[fold:fold + 1] != [session.folds[fold]]
                or panel.days.searchsorted(session.folds[fold]["test"]["last"], "right") > n_same):
            continue
        try:
            state = load_job(earlier[-1], old, name)
        except VnqError:  # damaged: it is trained
            continue
        del state["digest"]
        new.save_done(name, state | {"facts": facts_of(session, name)})
        taken.append(name)
    return taken


def _same_days(old: Panel, new: Panel) -> int:
    """How many days two panels of the same symbols share from the first on, to the last bit."""
    n = min(len(old.days), len(new.days))
    if old.symbols != new.symbols or old.feature_names != new.feature_names:
        return 0
    differ = np.asarray(old.days[:n] != new.days[:n])
    for one, other in ((old.values, new.values), (old.prices, new.prices), (old.present, new.present)):
        one, other = one[:, :n], other[:, :n]
        unequal = (one != other) & ~((one != one) & (other != other))  # NaN is equal to itself
        differ |= unequal.any(axis=(0, *range(2, unequal.ndim)))
    return int(np.argmax(differ)) if differ.any() else n


def go_on(session: Session, panel: Panel, machine: MachineConfig, hours: float | None, on_finish: OnFinish | None,
          quiet: bool, take_over: bool = False, attempt: Callable[..., Attempt] = Attempt) -> Session:
    """One attempt at what a session has left; a job whose file is gone or damaged is trained again."""
    store = CheckpointStore.of(session)
    for name, row in session.jobs.items():
        if row["state"] == "done" and not store.is_usable(name, row.get("file")):
            tell(f"{store.done_path(name)} is gone or damaged: this job is trained again.")
            row["state"], session.status = "pending", "paused"
    if session.rival and not take_over:
        _watch(session, session.rival)
    if session.status == "finished":
        deliver(session)
        if not quiet:
            tell(f"{session.run_id} is finished: nothing to do. validate judges it, export writes its models.")
        return session
    case = how_it_ended(session, take_over)
    if session.attempts and not quiet:
        tell(f"{session.run_id}: {case}. {loss_and_rest(session).capitalize()}.")
    try:
        attempt(session, panel, machine, hours, quiet).run()
    finally:
        if on_finish is not None:
            on_finish(session)
    return session


# ------------------------------------------------------------------------------------------- who trains it already
def how_it_ended(session: Session, take_over: bool = False) -> str:
    """How the last attempt at a run ended. Raises SessionError while its owner is alive, unless `take_over`."""
    here, there = platform.node(), session.machine.get("node")
    pid = session.machine.get("pid")
    if session.status == "paused":
        elsewhere = f" on another machine ({there})" if there not in (None, here) else ""
        return f"paused{elsewhere} {spell(seconds_since(session.heartbeat))} ago: {session.why}"
    if pid is None:
        return "started, and not trained yet"
    if there == here:
        if pid != os.getpid() and session.is_alive() and not take_over:
            raise SessionError(f"run {session.run_id} is being trained by another process of this machine ({pid}). "
                               "Wait for it, or stop it with Ctrl-C: then resume goes on.")
        return "its process ended on this machine without a word: a crash, a kill, or a restarted kernel"
    if not take_over:
        if not session.rival:  # else it was watched already
            _watch(session, f"it was last trained by another machine ({there})")
        return f"a new machine; the one before ({there}) is silent"
    return f"taken over from another machine ({there})"


def loss_and_rest(session: Session) -> str:
    """What an ended attempt costs, and what is left to do."""
    if session.status == "paused":
        lost = "nothing is lost"
    else:
        since = session.attempts[-1]["started"]
        if session.checkpoint and session.checkpoint["job"] in session.unfinished_jobs():
            since = max(since, session.checkpoint["written"])
        silent = seconds_since(session.heartbeat)  # it may have lived until just before its next sign of life
        seconds = max(0.0, seconds_since(since) - silent) + min(silent, session.heartbeat_seconds)
        lost = f"lost: at most {spell(seconds)} of training, since the last checkpoint"
    left = len(session.unfinished_jobs())
    done = len(session.jobs) - left
    rest = f"left: {left} of {len(session.jobs)} jobs"
    if done and left:
        rest += f", about {spell(session.seconds['training'] / done * left)} if they take as long as those before"
    return f"{lost}; {rest}"


def _watch(session: Session, why: str) -> None:
    """Waits for two heartbeats. Raises SessionError as soon as another process has written in the meantime."""
    seconds = 2 * session.heartbeat_seconds
    tell(f"run {session.run_id}: {why.rstrip('.')}. Watching for {spell(seconds)} whether another machine still trains "
         "it. When you know that none does: --take-over (in Python: take_over=True) does not wait.")
    folder, end = session.ws.checkpoint_folder(session.run_id), time.monotonic() + seconds
    before: dict[str, bytes] = {}
    while True:
        for name in (HEARTBEAT, SESSION):
            with contextlib.suppress(FileNotFoundError, StorageError):
                now = read_bytes(folder / name, MOST_JSON)  # whole or not: it may be on its way
                if before.setdefault(name, now) != now:
                    raise SessionError(f"run {session.run_id} is being trained by another machine: {folder / name} has "
                                       "just changed. Stop it there, or take the run over with --take-over (in "
                                       "Python: take_over=True).")
        if time.monotonic() >= end:
            return
        time.sleep(min(WATCH_SECONDS, seconds))
