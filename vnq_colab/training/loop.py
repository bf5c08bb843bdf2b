"""One attempt at a run, from its beginning to a pause or its end: packs, steps, and what must not be lost."""

import contextlib
import copy
import time
from dataclasses import replace

import numpy as np

from vnq_colab.clock import Clock
from vnq_colab.config import MachineConfig
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import DayRange
from vnq_colab.errors import CheckpointError, SessionError, StorageError, TakenOverError
from vnq_colab.layout import SESSION
from vnq_colab.models.base import Learner, family_module
from vnq_colab.notebook import tell
from vnq_colab.training.checkpoint import START, CheckpointStore
from vnq_colab.training.mirror import Mirror
from vnq_colab.training.ownership import stored_sequence
from vnq_colab.training.process import give_memory_back, is_out_of_memory, set_up_machine, stop_requests
from vnq_colab.training.progress import Progress, finish_words
from vnq_colab.training.session import HEARTBEAT_SECONDS, Session
from vnq_colab.training.start import shared_start

MARGIN_SECONDS = 60  # kept for the end when time is up, beside what a step and a checkpoint were measured to cost
DRIVE_PATIENCE = 300  # [s] from the last file that arrived, at the end, for those that wait
RETRY_SHARE = 0.3  # of the learning rate, for the second try of a diverged symbol


class Attempt:
    """Trains what a session has left, and leaves it finished or paused. One exit path for every way to end."""

    def __init__(self, session: Session, panel: Panel, machine: MachineConfig, hours: float | None, quiet: bool):
        self.session, self.panel, self.machine = session, panel, machine
        self.clock = Clock(hours, session.seconds)
        session.seconds = self.clock.seconds  # one dictionary: what the clock counts is what the session stores
        self.store = CheckpointStore(session.ws, session.run_id)
        self.store.clear_scratch()
        set_up_machine(session, machine)
        session.begin_attempt()
        self.mirror = Mirror(session.ws, session.run_id, session.owners)
        self.progress = Progress(session, panel, self.clock, quiet)
        self._longest_step, self._start = 0.0, None  # [s], weights that all packs begin from

    def run(self) -> None:
        """Until everything is done, time is up, the person stops it, or a disk is full. Other errors are raised."""
        session = self.session
        try:
            self._bring_along()
            with stop_requests() as stop:
                self.progress.begin(stop)
                why = self._train_packs(stop)
            self._close(*(("paused", why) if why else ("finished", finish_words(session))))
        except TakenOverError as error:
            session.status, session.why = "paused", str(error)  # not written: the session is another's
            self.progress.close("stopped", str(error), keep=False)
        except StorageError as error:  # the last good checkpoint stays; making room and resuming goes on from it
            self._close("paused", str(error))
        except KeyboardInterrupt:
            self._close("paused", "interrupted twice, back to the last checkpoint")
        except BaseException as error:
            self._close("paused", f"stopped by {type(error).__name__}: {error}")
            if is_out_of_memory(error):
                raise SessionError(f"run {session.run_id}: not enough memory, even for the {session.config.n_members} "
                                   "networks of one symbol. Close other programs and resume, or start again with "
                                   "smaller steps: --set train.batch_windows=2.") from error
            raise

    # -------------------------------------------------------------------------------------------- packs, one by one
    def _train_packs(self, stop: list[str]) -> str:
        """Returns why it paused, or "" when everything is done. A pack that does not fit is halved."""
        packs = self.session.packs
        if why := self._make_start(stop):
            return why
        while (number := next((n for n, pack in enumerate(packs) if pack["done"] is None), None)) is not None:
            try:
                if why := self._train_pack(number, stop):
                    return why
            except Exception as error:
                if not is_out_of_memory(error) or len(packs[number]["symbols"]) == 1:
                    raise
            else:
                continue
            give_memory_back()  # not inside the except: the error holds on to all that was in memory
            self.progress.say(self._halve(number))
        return ""

    def _make_start(self, stop: list[str]) -> str:
        """Reads or trains the shared start of the packs that are left; returns why it paused, or ""."""
        if self.session.start is None or all(pack["done"] is not None for pack in self.session.packs):
            return ""

        def between(measured: dict) -> str:
            self.clock.move("training", "evaluation", measured.get("evaluation_seconds", 0.0))
            self.progress.show_start(measured)
            self._give_signs_of_life()
            return stop[0] if stop else "time is up" if self._is_time_up() else ""

        with self.clock.spend("training"):
            self._start = shared_start(self.session, self.panel, self.machine, self.store, between)
        if isinstance(self._start, str):
            return self._start
        if self.store.is_only_local(START):
            self.mirror.put(self.store.folder / START)
        self._save_session()
        return ""

    def _train_pack(self, number: int, stop: list[str]) -> str:
        """Trains one pack, from its checkpoint if there is one; returns why it paused, or ""."""
        learner = self._make_learner(number)
        self._go_on_from_checkpoint(learner, number)
        for symbol in self.session.packs[number]["symbols"]:
            self.session.ledger[symbol]["state"] = "training"
        self._save_session(on_drive=False)
        self.store.reserve(learner.state_dict())
        while not learner.finished:
            started = time.monotonic()
            with self.clock.spend("training"):
                measured = learner.step()
            self._longest_step = max(self._longest_step, time.monotonic() - started)
            self.clock.move("training", "evaluation", measured.get("evaluation_seconds", 0.0))
            self.progress.step(measured, learner)
            self._give_signs_of_life()
            is_late = self._is_time_up()
            if stop or is_late or self.clock.due("checkpoint", seconds=self._checkpoint_seconds):
                self._checkpoint(learner, number)
            if stop or is_late:
                self.store.wait()
                self._note_checkpoint()
                return stop[0] if stop else "time is up"
        self._finish_pack(learner, number)
        self.progress.finish_pack(number, learner)
        return ""

    def _make_learner(self, number: int) -> Learner:
        session, pack = self.session, self.session.packs[number]
        epochs_of = session.epochs_of and {(symbol, member): epochs for symbol in pack["symbols"]
                                           for member, epochs in enumerate(session.epochs_of[symbol])}
        valid = session.days["valid"]
        return family_module(session.family).make_learner(
            self.panel.select(pack["symbols"]), DayRange(*session.days["train"]), valid and DayRange(*valid),
            replace(session.config, machine=self.machine), pack=number,
            learning_rate_share=pack["learning_rate_share"], epochs_of=epochs_of, start=self._start,
        )

    def _go_on_from_checkpoint(self, learner: Learner, number: int) -> None:
        state, told = self.store.load_latest(self._facts(number))
        for sentence in told:
            self.progress.say(sentence)
        if state is not None:
            learner.load_state_dict(state)
            self.progress.say(f"pack {number + 1}: goes on from its checkpoint in epoch {learner.epoch + 1}")
        elif told:
            self.progress.say(f"pack {number + 1}: begins anew")

    def _halve(self, number: int) -> str:
        """Leaves the first half of a pack at its number and puts the second behind all packs; both begin anew."""
        session, pack = self.session, self.session.packs[number]
        halves = [pack | {"symbols": part.tolist()}
                  for part in np.array_split(np.array(pack["symbols"], dtype=object), 2)]
        for symbol in pack["symbols"]:
            session.ledger[symbol]["state"] = "pending"
        session.packs[number:] = [halves[0], *session.packs[number + 1:], halves[1]]
        self._save_session()
        before, first, second = (len(part["symbols"]) * session.config.n_members for part in (pack, *halves))
        return f"pack {number + 1} does not fit: {before} networks; going on with {first} and {second}"

    def _finish_pack(self, learner: Learner, number: int) -> None:
        """Writes the finished pack with its ledger rows, then the session."""
        with self.clock.spend("evaluation"):
            measured = learner.measure().set_index("symbol")
            forecaster = learner.forecaster() if len(measured) else None
            accuracy = learner.valid_accuracy() if len(measured) else {}
        rows = {symbol: {
            "state": "done", "epoch": int(row["epoch"]), "best_epoch": float(row["best_epoch"]),
            "best_epochs": learner.best_epochs(symbol), "valid_loss": _number(row["valid_loss"]),
            "valid_accuracy": _number(accuracy.get(symbol)), "sha256": forecaster.digest(symbol), "reason": "",
        } for symbol, row in measured.iterrows()}
        state = (forecaster.to_state() if forecaster else {"symbols": []}) | {
            "asked": list(self.session.packs[number]["symbols"]), "ledger": rows, "diverged": learner.diverged(),
            "history": list(learner.history)}
        with self.clock.spend("checkpoint"):
            self.store.wait()
            done = self.store.save_pack(number, state)
            self.mirror.put(self.store.folder / done)
            self._note_finished(number, state, done)
        self.clock.mark("checkpoint")

    def _note_finished(self, number: int, state: dict, done: str) -> None:
        """What the session says of a finished pack; plans the second try of what diverged."""
        session, pack = self.session, self.session.packs[number]
        session.ledger |= {symbol: row | {"file": done} for symbol, row in state["ledger"].items()}
        again = [symbol for symbol in state["diverged"] if pack["learning_rate_share"] == 1.0]
        for symbol, reason in state["diverged"].items():
            session.ledger[symbol] = {"state": "pending" if symbol in again else "failed", "reason": reason}
        if again:
            session.packs.append({"symbols": again, "learning_rate_share": RETRY_SHARE, "done": None})
        pack["done"] = done
        session.add_history(state["history"])
        self._save_session()

    # -------------------------------------------------------------------------------------------- nothing gets lost
    def _bring_along(self) -> None:
        """What an attempt that was killed had finished: packs that its session does not know, or Drive has not got."""
        session = self.session
        for number, pack in enumerate(list(session.packs)):
            name = self.store.pack_name(number)
            if pack["done"] is None and self.store.has_pack(name):
                with contextlib.suppress(CheckpointError):  # damaged: it is trained, and written, anew
                    state = self.store.load_pack(name)
                    if state.get("asked") == pack["symbols"]:
                        self._note_finished(number, state, name)
        curves = set(session.history["symbol"])
        for pack in session.packs:
            if pack["done"] is None:
                continue
            if not curves.intersection(pack["symbols"]):
                with contextlib.suppress(CheckpointError):  # damaged: whoever needs its networks says so
                    session.add_history(self.store.load_pack(pack["done"]).get("history", []))
            if self.store.is_only_local(pack["done"]):
                self.mirror.put(self.store.folder / pack["done"])
        self.mirror.put(session.ws.local.configs / f"{session.run_id}.json")
        self._save_session()

    def _facts(self, number: int) -> dict:
        """What a checkpoint must be of, to be used for a pack."""
        session = self.session
        return {"pack": number, "symbols": session.packs[number]["symbols"], "data_id": session.data_id,
                "config_id": session.config.config_id}

    def _checkpoint(self, learner: Learner, number: int) -> None:
        with self.clock.spend("checkpoint"):
            facts = self._facts(number) | {"epoch": learner.epoch, "step": learner.step_in_epoch,
                                           "code_version": self.session.code_version}
            self.store.save(learner.state_dict(), facts, copy.deepcopy(self.session.to_dict()))
        self.clock.mark("checkpoint")
        self.progress.keep()

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
        return self.clock.is_up(MARGIN_SECONDS + 2 * (self._longest_step + saving))

    def _close(self, status: str, why: str) -> None:
        """The end of an attempt, as far as the disks take it: save, copy, verify."""
        with contextlib.suppress(StorageError):
            self.store.wait()
        self.clock.settle()
        session = self.session
        with contextlib.suppress(StorageError, TakenOverError):
            session.end_attempt(status, why)
        with contextlib.suppress(StorageError):
            self.progress.close(status, why)
        for path in (*sorted(session.ws.local.log_folder(session.run_id).glob("*.*")), session.folder / SESSION):
            with contextlib.suppress(OSError):
                self.mirror.put(path)
        if self.mirror.is_late():
            self.progress.say("waiting until Drive has everything; Ctrl-C leaves it on this machine")
        try:
            session.drive = self.mirror.close(DRIVE_PATIENCE)
        except KeyboardInterrupt:
            session.drive = self.mirror.close(0)
        if session.drive:
            self.progress.say(f"careful: {session.drive}")
            with contextlib.suppress(StorageError, TakenOverError):
                session.save()


def deliver(session: Session) -> None:
    """Brings to Drive what a finished run has on this machine and did not get there before its process ended."""
    ws, run_id = session.ws, session.run_id
    there = stored_sequence(ws.checkpoint_folder(run_id) / SESSION)
    if ws.local == ws or (there == session.sequence and not session.drive) or not (session.folder / SESSION).exists():
        return
    store, mirror = CheckpointStore(ws, run_id), Mirror(ws, run_id, session.owners)
    for name in [pack["done"] for pack in session.packs] + ([START] if session.start else []):
        if store.is_only_local(name):
            mirror.put(store.folder / name)
    for path in ws.local.log_folder(run_id).glob("*.*"):
        mirror.put(path)
    session.drive = ""
    session.save()
    mirror.put(session.folder / SESSION)
    session.drive = mirror.close(DRIVE_PATIENCE)
    if session.drive:
        session.save()
        tell(f"careful: {session.drive}")


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)
