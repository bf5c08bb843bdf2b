"""One attempt at a run, from its beginning to a pause or its end: jobs, steps, and what must not be lost."""

import contextlib
import time
from dataclasses import replace
from typing import Any

import numpy as np

from vnq_colab.clock import Clock
from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_labels
from vnq_colab.data.panel import Panel
from vnq_colab.errors import CheckpointError, SessionError, StorageError, TakenOverError, VnqError, tell
from vnq_colab.files import sha256_of
from vnq_colab.layout import SESSION
from vnq_colab.models.base import Job, Learner, Progress, Trained, TrainingData, family_module
from vnq_colab.settings import MachineConfig
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.drive_copy import DriveCopy, Heartbeat
from vnq_colab.training.jobs import JobList, explain_fold, facts_of, forecast_of_fold, job_of, load_job, session_folds
from vnq_colab.training.process import Display, free_memory, is_out_of_memory, outcome, set_up_machine, stop_requests
from vnq_colab.training.session import Session

MARGIN_SECONDS = 60  # kept for the end when time is up, beside what a step and a checkpoint were measured to cost
MARGIN_SHARE = 0.5  # [fraction] of a short time that the margin may take
DRIVE_PATIENCE = 300  # [s] from the last file that arrived, at the end, for those that wait


class Attempt:
    """Trains what a session has not done yet, and ends it finished or paused: one exit path for every way to end."""

    def __init__(self, session: Session, panel: Panel, machine: MachineConfig, hours: float | None, quiet: bool):
        self.session, self.panel = session, panel
        self.folds = session_folds(session, panel)
        self.config: RunConfig = replace(session.config, machine=machine, symbols=tuple(session.ledger))
        self.clock = Clock(hours, session.seconds)
        self._margin = MARGIN_SECONDS if hours is None else min(MARGIN_SECONDS, MARGIN_SHARE * 3600 * hours)
        session.seconds = self.clock.seconds  # one dictionary: what the clock counts is what the session stores
        self._labels = make_labels(panel, session.config.task)
        self._longest_step = 0.0  # [s]
        self._went_on_from = self._distrusted = ""  # the job of the checkpoint; the one whose checkpoint led nowhere
        self.store = CheckpointStore.of(session)
        self.store.clear_scratch()
        set_up_machine(session, machine)
        session.begin_attempt()
        self.heartbeat, self.drive = Heartbeat(session), DriveCopy(session)
        self.jobs = JobList(session, self.store, self._save_session)
        self.display = Display(session, self.clock, quiet)

    def run(self) -> None:
        """Until everything is done, time is up, the person stops it, or a disk is full. Other errors are raised."""
        session = self.session
        try:
            self.heartbeat.start()
            self._adopt_finished()
            with stop_requests() as stop:
                why = self._train_jobs(stop)
            self._close(*(("paused", why) if why else ("finished", outcome(session))))
        except TakenOverError as error:
            self.heartbeat.stop()
            session.status, session.why = "paused", str(error)  # not written: the session is another's
            self.display.say(f"run {session.run_id}: stopped, {error}")
        except StorageError as error:  # the last good checkpoint stays; making room and resuming goes on from it
            self._close("paused", str(error))
        except KeyboardInterrupt:
            self._close("paused", "interrupted twice, back to the last checkpoint")
        except BaseException as error:
            self._close("paused", f"stopped by {type(error).__name__}: {error}")
            if is_out_of_memory(error):
                raise SessionError(f"run {session.run_id}: not enough memory, even for the smallest job. Close other "
                                   "programs and resume, or start again with --set train.batch_windows=2.") from error
            raise

    # --------------------------------------------------------------------------------------------- jobs, one by one
    def _train_jobs(self, stop: list[str]) -> str:
        """Returns why it paused, or "" when everything is done. A pack that does not fit is halved."""
        while name := self.jobs.next():
            try:
                if why := self._train_job(name, stop):
                    return why
            except VnqError:
                raise
            except Exception as error:
                if not is_out_of_memory(error) and self._went_on_from == name:
                    self.display.say(f"{name}: its checkpoint leads nowhere ({type(error).__name__}): it begins anew")
                    self._distrusted = name
                    continue
                row = self.session.jobs[name]
                if not is_out_of_memory(error) or row["pack"] is None or len(row["symbols"]) < 2:
                    raise
            else:
                continue
            free_memory()  # not inside the except: the error holds on to all that was in memory
            self.display.say(self.jobs.halve(name))
        if unfinished := self.session.unfinished_jobs():
            number, of = self.session.part
            return (f"part {number}/{of} is done; the other machines still train {len(unfinished)} jobs. When they "
                    "have finished, resume goes on")
        self.session.finish_ledger()
        return ""

    def _train_job(self, name: str, stop: list[str]) -> str:
        """Trains one job, from its checkpoint if there is one; returns why it paused, or ""."""
        began, row = time.monotonic(), self.session.jobs[name]
        job = job_of(row)
        self.display.start(name)
        if (inputs := self._inputs(job)) is None:
            return ""  # what it needs is trained again first
        data = self._data(job)
        learner = self._learner(job, data, inputs)
        self._went_on_from = ""
        if name != self._distrusted:
            self._go_on_from_checkpoint(learner, name)
        row["state"] = "training"
        for symbol in job.symbols:
            if self.session.ledger[symbol]["state"] == "pending":
                self.session.ledger[symbol]["state"] = "training"
        self.session.save()
        self.store.reserve(learner.state_dict())
        while not learner.finished:
            started = time.monotonic()
            with self.clock.spend("training"):
                progress = learner.step()
            self._longest_step = max(self._longest_step, time.monotonic() - started)
            self.clock.move("training", "evaluation", progress.measured.get("evaluation_seconds", 0.0))
            self._stepped(name, progress)
            self._check_background()
            is_late = self._is_time_up()
            every = 60 * self.config.train.checkpoint_minutes  # from one that is whole to the next
            if stop or is_late or self.clock.due("checkpoint", seconds=max(every / 2, every - self.store.seconds)):
                self._checkpoint(learner, name)
            if stop or is_late:
                self.store.wait()
                self._check_background()
                row["seconds"] = row.get("seconds", 0.0) + time.monotonic() - began
                return stop[0] if stop else "time is up"
        self._finish(learner.result(), job, data)
        row["seconds"] = round(row.get("seconds", 0.0) + time.monotonic() - began, 1)
        self._save_session()
        self.display.finish(name)
        return ""

    def _inputs(self, job: Job) -> dict[str, dict[str, Any]] | None:
        """The results that a job begins from; None where one is damaged, which is then pending again."""
        results, rows = {}, self.session.jobs
        for need in (need for need in job.needs if rows[need]["state"] == "done"):
            try:
                results[need] = load_job(self.session, self.store, need)
            except CheckpointError as error:
                self.display.say(f"{str(error).partition(' Delete')[0]} This job is trained again.")
                rows[need]["state"] = "pending"
                self._save_session()
                return None
        return results

    def _data(self, job: Job) -> TrainingData:
        days, task = self.panel.days, self.session.config.task
        if job.fold is None:
            everything = np.ones(len(days), dtype=bool)
            return TrainingData(self.panel, self._labels, everything, ~everything, task)
        splits = self.folds[job.fold]
        return TrainingData(self.panel, self._labels, splits.train.mask(days), splits.valid.mask(days), task)

    def _learner(self, job: Job, data: TrainingData, inputs: dict[str, dict[str, Any]]) -> Learner:
        return family_module(job.family).learner(job, data, self.config, inputs)

    def _stepped(self, name: str, progress: Progress) -> None:
        self.display.step(progress)

    def _go_on_from_checkpoint(self, learner: Learner, name: str) -> None:
        state, damages = self.store.load_latest(facts_of(self.session, name))
        for sentence in damages:
            self.display.say(sentence)
        if state is not None:
            self._went_on_from = name
            learner.load_state_dict(state)
            self.display.say(f"{name}: goes on from its checkpoint")

    def _finish(self, trained: Trained, job: Job, data: TrainingData) -> None:
        """Forecasts the fold's validation and test days, writes the job's file, then the session."""
        state = {"facts": facts_of(self.session, job.name), "rows": trained.rows, "curves": list(trained.curves),
                 "budget": trained.budget, "failed": trained.failed, "sha256": "", "weights": None}
        if trained.forecaster is not None:
            state["sha256"] = trained.forecaster.digest()
            if job.fold is not None:
                self.display.show(Progress(1.0, "forecasting its validation and test days"))
                with self.clock.spend("evaluation"):
                    state["forecast"] = forecast_of_fold(trained, data, self.folds[job.fold])
                    if not data.is_trial:
                        state["explanation"] = explain_fold(trained.forecaster, data.panel, self.folds[job.fold])
            needed = any(job.name in row["needs"] and row["fold"] == job.fold for row in self.jobs.rows.values())
            if job.fold is None or needed:
                state["weights"] = trained.forecaster.to_state()
            if needed and trained.valid_forecaster is not None:
                state["held_out"] = trained.valid_forecaster.to_state()
        with self.clock.spend("checkpoint"):
            self.store.wait()
            self.drive.put(self.store.save_done(job.name, state))
            self.jobs.note_finished(job.name, state)
        self.clock.mark("checkpoint")

    # -------------------------------------------------------------------------------------------- nothing gets lost
    def _adopt_finished(self) -> None:
        """Jobs that an attempt which was killed had finished, and its session, or Drive, does not know."""
        self.jobs.adopt_finished()
        self.store.put_finished(self.session.jobs, self.drive.put)
        self.drive.put(self.session.ws.local.configs / f"{self.session.run_id}.json")
        self._save_session()

    def _checkpoint(self, learner: Learner, name: str) -> None:
        with self.clock.spend("checkpoint"):
            self.store.save(learner.state_dict(),
                            facts_of(self.session, name) | {"code_version": self.session.code_version})
        self.clock.mark("checkpoint")
        self.display.keep()

    def _check_background(self) -> None:
        """Between two steps: whether the run is still ours, whether a checkpoint is whole, how far behind Drive is."""
        if self.drive.taken_over or self.heartbeat.taken_over:
            raise TakenOverError(self.session.run_id)
        self.session.drive = self.drive.delay()
        if manifest := self.store.written():
            self.session.checkpoint = manifest
            self.drive.put_checkpoint(self.store.folder / manifest["slot"], manifest)
            self._save_session()

    def _save_session(self) -> None:
        """Here and on Drive."""
        self.session.drive = self.drive.delay()
        self.session.save()
        self.drive.put_session()

    def _is_time_up(self) -> bool:
        """True when one more step and a checkpoint, with its copy to Drive, might not fit before the end."""
        saving = self.store.pause + self.store.seconds + self.drive.seconds_of_checkpoint
        return self.clock.is_up(self._margin + 2 * (self._longest_step + saving))

    def _close(self, status: str, why: str) -> None:
        """The end of an attempt, as far as the disks take it: save, copy, verify."""
        self.heartbeat.stop()
        with contextlib.suppress(StorageError):
            self.store.wait()
        self.clock.settle()
        session = self.session
        with contextlib.suppress(StorageError, TakenOverError):
            session.end_attempt(status, why)
        self.display.say(f"run {session.run_id}: {status}, {why}")
        with contextlib.suppress(StorageError):
            self.display.keep()
        self.drive.put_session(logs=True)
        if self.drive.is_late():
            self.display.say("waiting until Drive has everything; Ctrl-C leaves it on this machine")
        try:
            session.drive = self.drive.close(DRIVE_PATIENCE)
        except KeyboardInterrupt:
            session.drive = self.drive.close(0)
        if session.drive:
            self.display.say(f"careful: {session.drive}")
            with contextlib.suppress(StorageError, TakenOverError):
                session.save()


def deliver(session: Session) -> None:
    """Copies to Drive what a finished run has on this machine and did not get there before its process ended."""
    here, there = (home.checkpoint_folder(session.run_id) / SESSION for home in (session.ws.local, session.ws))
    if here == there or not here.exists():
        return
    with contextlib.suppress(FileNotFoundError, StorageError):
        if not session.drive and sha256_of(there) == sha256_of(here):
            return
    session.claim()
    drive, session.drive = DriveCopy(session), ""
    CheckpointStore(session.ws, session.run_id).put_finished(session.jobs, drive.put)
    session.save()
    drive.put_session(logs=True)
    session.drive = drive.close(DRIVE_PATIENCE)
    if session.drive:
        session.save()
        tell(f"careful: {session.drive}")
