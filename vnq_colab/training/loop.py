"""One attempt at a run, from its beginning to a pause or its end: jobs, steps, and what must not be lost."""

import contextlib
import copy
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from vnq_colab.clock import Clock
from vnq_colab.config import RunConfig
from vnq_colab.data.labels import make_labels
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits
from vnq_colab.errors import CheckpointError, SessionError, StorageError, TakenOverError
from vnq_colab.layout import SESSION
from vnq_colab.models.base import Job, Learner, Trained, TrainingData, family_module
from vnq_colab.notebook import tell
from vnq_colab.settings import MachineConfig
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.jobs import JobList
from vnq_colab.training.mirror import Mirror
from vnq_colab.training.ownership import stored_sequence
from vnq_colab.training.process import give_memory_back, is_out_of_memory, set_up_machine, stop_requests
from vnq_colab.training.progress import Display, finish_words
from vnq_colab.training.runs import siblings
from vnq_colab.training.session import HEARTBEAT_SECONDS, Session

MARGIN_SECONDS = 60  # kept for the end when time is up, beside what a step and a checkpoint were measured to cost
MARGIN_SHARE = 0.5  # [fraction] of a short time that the margin may take
DRIVE_PATIENCE = 300  # [s] from the last file that arrived, at the end, for those that wait
PARTS = ("valid", "test")  # of a fold's days that its jobs forecast; a row's `part` is its place here
COLUMNS = ("score", "mean", "scale")  # of a forecast that a job's file keeps, as far as its family gives them


class Attempt:
    """Trains what a session has left, and leaves it finished or paused. One exit path for every way to end."""

    def __init__(self, session: Session, panel: Panel, machine: MachineConfig, hours: float | None, quiet: bool):
        self.session, self.panel = session, panel
        self.config: RunConfig = replace(session.config, machine=machine, symbols=tuple(session.ledger))
        self.clock = Clock(hours, session.seconds)
        self._margin = MARGIN_SECONDS if hours is None else min(MARGIN_SECONDS, MARGIN_SHARE * 3600 * hours)
        session.seconds = self.clock.seconds  # one dictionary: what the clock counts is what the session stores
        self.store = CheckpointStore(session.ws, session.run_id, siblings(session))
        self.store.clear_scratch()
        set_up_machine(session, machine)
        session.begin_attempt()
        self.mirror = Mirror(session.ws, session.run_id, session.owners)
        self.jobs = JobList(session, self.store, self._save_session)
        self.display = Display(session, panel, self.clock, quiet)
        self._labels = make_labels(panel, session.config.task)
        self._longest_step = 0.0  # [s]

    def run(self) -> None:
        """Until everything is done, time is up, the person stops it, or a disk is full. Other errors are raised."""
        session = self.session
        try:
            self._bring_along()
            with stop_requests() as stop:
                self.display.begin()
                why = self._train_jobs(stop)
            self._close(*(("paused", why) if why else ("finished", finish_words(session))))
        except TakenOverError as error:
            session.status, session.why = "paused", str(error)  # not written: the session is another's
            self.display.close("stopped", str(error), keep=False)
        except StorageError as error:  # the last good checkpoint stays; making room and resuming goes on from it
            self._close("paused", str(error))
        except KeyboardInterrupt:
            self._close("paused", "interrupted twice, back to the last checkpoint")
        except BaseException as error:
            self._close("paused", f"stopped by {type(error).__name__}: {error}")
            if is_out_of_memory(error):
                raise SessionError(f"run {session.run_id}: not enough memory, even for the smallest job. Close other "
                                   "programs and resume, or start again with smaller steps: --set "
                                   "train.batch_windows=2.") from error
            raise

    # --------------------------------------------------------------------------------------------- jobs, one by one
    def _train_jobs(self, stop: list[str]) -> str:
        """Returns why it paused, or "" when everything is done. A pack that does not fit is halved."""
        while name := self.jobs.next():
            try:
                if why := self._train_job(name, stop):
                    return why
            except Exception as error:
                if not is_out_of_memory(error) or not self.jobs.can_halve(name):
                    raise
            else:
                continue
            give_memory_back()  # not inside the except: the error holds on to all that was in memory
            self.display.say(self.jobs.halve(name))
        if self.session.left():
            number, of = self.session.part
            return (f"part {number}/{of} is done; the other machines still train {len(self.session.left())} jobs. When "
                    "they have finished, resume trains the final fit")
        for row in self.session.ledger.values():
            row["state"] = "failed" if row["state"] == "failed" else "done"
        return ""

    def _train_job(self, name: str, stop: list[str]) -> str:
        """Trains one job, from its checkpoint if there is one; returns why it paused, or ""."""
        began, row, job = time.monotonic(), self.session.jobs[name], self.jobs.job(name)
        self.display.start(name)
        data = self._data(job)
        if (inputs := self._inputs(job)) is None:
            return ""  # what it needs is trained again first
        learner = family_module(job.family).learner(job, data, self.config, inputs)
        self._go_on_from_checkpoint(learner, name)
        row["state"] = "training"
        for symbol in job.symbols:
            if self.session.ledger[symbol]["state"] == "pending":
                self.session.ledger[symbol]["state"] = "training"
        self._save_session(on_drive=False)
        self.store.reserve(learner.state_dict())
        while not learner.finished:
            started = time.monotonic()
            with self.clock.spend("training"):
                progress = learner.step()
            self._longest_step = max(self._longest_step, time.monotonic() - started)
            self.clock.move("training", "evaluation", progress.measured.get("evaluation_seconds", 0.0))
            self.display.step(progress)
            self._give_signs_of_life()
            is_late = self._is_time_up()
            if stop or is_late or self.clock.due("checkpoint", seconds=self._checkpoint_seconds):
                self._checkpoint(learner, name)
            if stop or is_late:
                self.store.wait()
                self._note_checkpoint()
                row["seconds"] = row.get("seconds", 0.0) + time.monotonic() - began
                return stop[0] if stop else "time is up"
        self._finish(learner.result(), job, data)
        row["seconds"] = round(row.get("seconds", 0.0) + time.monotonic() - began, 1)
        self._save_session()
        self.display.finish(name)
        return ""

    def _inputs(self, job: Job) -> dict[str, dict[str, Any]] | None:
        """The results that a job begins from; None where one is damaged, which is then a job that is left."""
        found = {}
        for need in job.needs:
            row = self.session.jobs[need]
            try:
                if row["state"] == "done":
                    found[need] = self.store.load_done(need)
            except CheckpointError as error:
                self.display.say(f"{str(error).partition(' Delete')[0]} This job is trained again.")
                row["state"] = "pending"
                self._save_session()
                return None
        return found

    def _data(self, job: Job) -> TrainingData:
        days, task = self.panel.days, self.session.config.task
        if job.fold is None:
            everything = np.ones(len(days), dtype=bool)
            return TrainingData(self.panel, self._labels, everything, ~everything, task)
        splits = Splits.from_dict(self.session.folds[job.fold])
        return TrainingData(self.panel, self._labels, splits.train.mask(days), splits.valid.mask(days), task)

    def _go_on_from_checkpoint(self, learner: Learner, name: str) -> None:
        state, told = self.store.load_latest(self.jobs.facts(name))
        for sentence in told:
            self.display.say(sentence)
        if state is not None:
            learner.load_state_dict(state)
            self.display.say(f"{name}: goes on from its checkpoint")
        elif told:
            self.display.say(f"{name}: begins anew")

    def _finish(self, trained: Trained, job: Job, data: TrainingData) -> None:
        """Forecasts the fold's validation and test days, writes the job's file, then the session."""
        state = {"facts": self.jobs.facts(job.name), "rows": trained.rows, "curves": list(trained.curves),
                 "budget": trained.budget, "failed": trained.failed, "sha256": "", "weights": None}
        if trained.forecaster is not None:
            state["sha256"] = trained.forecaster.digest()
            if job.fold is not None:
                self.display.show(f"{job.name}: forecasting its validation and test days")
                with self.clock.spend("evaluation"):
                    state["forecast"] = self._forecast(trained, job, data)
            needed = self.jobs.needed_in_fold(job)
            if job.fold is None or needed:
                state["weights"] = trained.forecaster.to_state()
            if needed and trained.valid_forecaster is not None:
                state["held_out"] = trained.valid_forecaster.to_state()
        with self.clock.spend("checkpoint"):
            self.store.wait()
            self.mirror.put(self.store.save_done(job.name, state))
            self.jobs.note_finished(job.name, state)
        self.clock.mark("checkpoint")

    def _forecast(self, trained: Trained, job: Job, data: TrainingData) -> dict[str, Any]:
        """The rows of a fold's validation and test days, as tensors: places of symbol and day, part, and numbers."""
        test = Splits.from_dict(self.session.folds[job.fold]).test.mask(self.panel.days)
        parts = [(trained.valid_forecaster or trained.forecaster, data.valid), (trained.forecaster, test)]
        table = pd.concat([forecaster.predict(self.panel, days) for forecaster, days in parts], ignore_index=True)
        symbol = pd.Index(self.panel.symbols).get_indexer(table["symbol"])
        day = self.panel.days.get_indexer(table["date"])
        found = {name: table[name].to_numpy("float32", copy=True) for name in COLUMNS if name in table}
        found |= {"symbol": symbol.astype("int16"), "day": day.astype("int32"), "part": test[day].astype("uint8")}
        return {name: torch.from_numpy(values) for name, values in found.items()}

    # -------------------------------------------------------------------------------------------- nothing gets lost
    def _bring_along(self) -> None:
        """What an attempt that was killed had finished: jobs that its session does not know, or Drive has not got."""
        self.jobs.take_note_of_finished()
        for name in self.session.jobs:
            if self.store.is_only_local(name):
                self.mirror.put(self.store.folder / self.store.done_name(name))
        self.mirror.put(self.session.ws.local.configs / f"{self.session.run_id}.json")
        self._save_session()

    def _checkpoint(self, learner: Learner, name: str) -> None:
        with self.clock.spend("checkpoint"):
            facts = self.jobs.facts(name) | {"code_version": self.session.code_version}
            self.store.save(learner.state_dict(), facts, copy.deepcopy(self.session.to_dict()))
        self.clock.mark("checkpoint")
        self.display.keep()

    @property
    def _checkpoint_seconds(self) -> float:
        """Between two checkpoints: as configured from one that is whole to the next, so the writing counts."""
        asked = 60 * self.session.config.train.checkpoint_minutes
        return max(asked / 2, asked - self.store.seconds)

    def _note_checkpoint(self) -> None:
        """Once a checkpoint is whole on the local disk: the session says so, and both go to Drive."""
        if manifest := self.store.written():
            self.session.checkpoint = {name: part for name, part in manifest.items() if name != "session"}
            self.mirror.put_checkpoint(self.store.folder / manifest["slot"], manifest)
            self._save_session()

    def _give_signs_of_life(self) -> None:
        """For whoever reads session.json, here or on Drive; and a look whether the run is still ours."""
        if self.mirror.taken_over:
            raise TakenOverError(self.session.run_id)
        self._note_checkpoint()
        if self.clock.due("heartbeat", seconds=HEARTBEAT_SECONDS):
            self._save_session(on_drive=self.clock.due("drive", seconds=self.session.heartbeat_seconds))

    def _save_session(self, on_drive: bool = True) -> None:
        self.session.drive = self.mirror.words()
        self.session.save()
        if on_drive:
            self.mirror.put(self.session.folder / SESSION)
            self.clock.mark("drive")

    def _is_time_up(self) -> bool:
        """True when one more step and a checkpoint, with its way to Drive, might not fit before the end."""
        saving = self.store.pause + self.store.seconds + self.mirror.seconds_of_checkpoint
        return self.clock.is_up(self._margin + 2 * (self._longest_step + saving))

    def _close(self, status: str, why: str) -> None:
        """The end of an attempt, as far as the disks take it: save, copy, verify."""
        with contextlib.suppress(StorageError):
            self.store.wait()
        self.clock.settle()
        session = self.session
        with contextlib.suppress(StorageError, TakenOverError):
            session.end_attempt(status, why)
        with contextlib.suppress(StorageError):
            self.display.close(status, why)
        for path in (*sorted(session.ws.local.log_folder(session.run_id).glob("*.*")), session.folder / SESSION):
            with contextlib.suppress(OSError):
                self.mirror.put(path)
        if self.mirror.is_late():
            self.display.say("waiting until Drive has everything; Ctrl-C leaves it on this machine")
        try:
            session.drive = self.mirror.close(DRIVE_PATIENCE)
        except KeyboardInterrupt:
            session.drive = self.mirror.close(0)
        if session.drive:
            self.display.say(f"careful: {session.drive}")
            with contextlib.suppress(StorageError, TakenOverError):
                session.save()


def deliver(session: Session) -> None:
    """Brings to Drive what a finished run has on this machine and did not get there before its process ended."""
    ws, run_id = session.ws, session.run_id
    there = stored_sequence(ws.checkpoint_folder(run_id) / SESSION)
    if ws.local == ws or (there == session.sequence and not session.drive) or not (session.folder / SESSION).exists():
        return
    store, mirror = CheckpointStore(ws, run_id), Mirror(ws, run_id, session.owners)
    for name in session.jobs:
        if store.is_only_local(name):
            mirror.put(store.folder / store.done_name(name))
    for path in ws.local.log_folder(run_id).glob("*.*"):
        mirror.put(path)
    session.drive = ""
    session.save()
    mirror.put(session.folder / SESSION)
    session.drive = mirror.close(DRIVE_PATIENCE)
    if session.drive:
        session.save()
        tell(f"careful: {session.drive}")

