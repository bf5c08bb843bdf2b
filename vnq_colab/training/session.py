"""Sessions: one JSON file per run that says what runs, how far every symbol is and why it stopped; and a heartbeat.

Only the standard library is imported here, so that `status` answers at once and from any machine.
"""

import contextlib
import os
import re
import secrets
import time
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from vnq_colab import __version__
from vnq_colab.clock import utc_now, utc_stamp
from vnq_colab.config import RunConfig
from vnq_colab.errors import (
    CheckpointError,
    ConfigError,
    SessionError,
    StorageError,
    TakenOverError,
    VnqError,
    did_you_mean,
    shorten,
    tell,
)
from vnq_colab.files import locked, read_sealed, storage_error, write_sealed
from vnq_colab.layout import HEARTBEAT, LOCK, SESSION, SESSION_COPY, Workspace
from vnq_colab.settings import convert, require
from vnq_colab.training.session_file import FORMAT, HEARTBEAT_SECONDS, Beat, SessionRecord

RUN_ID = re.compile(r"\d{8}T\d{6}_([a-z0-9]+_)?[0-9a-f]{6}(-(part|fold)\d+of\d+)?(-refit)?")  # the first version's too
_HINTS = typing.get_type_hints(SessionRecord, include_extras=True)
del _HINTS["ws"]
_VERSIONS = {"commit": str | None, "torch": str, "numpy": str, "python": str}  # in configs/<run_id>.json alone
SessionFile = TypedDict("SessionFile", _HINTS | {"format": int, "config_id": str, "config": dict[str, Any]} | {
    name: NotRequired[hint] for name, hint in _VERSIONS.items()})


@dataclass(repr=False)
class Session(SessionRecord):
    """One run: its config, its data, its jobs and its ledger, kept in `checkpoints/<run_id>/session.json`."""

    token: int = 0  # the highest that was seen in a heartbeat
    rival: str = ""  # why somebody else may train it, though its file does not say so
    is_rebuilt: bool = False  # from what stood in configs/ when it began; its finished jobs are not adopted yet

    @property
    def folder(self) -> Path:
        """Where its files are written; for a workspace on Drive on this machine's own disk."""
        return self.ws.local.checkpoint_folder(self.run_id)

    # ---------------------------------------------------------------------------------------------- who trains it
    def begin_attempt(self) -> None:
        """This process becomes the owner."""
        self.status, self.why, self.drive, self.heartbeat_seconds = "running", "", "", HEARTBEAT_SECONDS
        self.claim()
        self.attempts.append({"started": utc_now(), "stopped": None, "why": None, "machine": self.machine,
                              "owner": self.owner})
        self.save()

    def end_attempt(self, status: str, why: str) -> None:
        """Says how it ended: finished or paused."""
        self.status, self.why = status, why.rstrip(".")  # an error's sentence stands inside others
        self.attempts[-1] |= {"stopped": utc_now(), "why": self.why}
        self.save()

    def claim(self) -> None:
        """Takes a fencing token above all that were seen: who has a lower one stops. Source: Kleppmann 2016."""
        self.owner, self.token = secrets.token_hex(8), self.token + 1
        self.beat()

    def is_taken_over(self, folder: Path) -> bool:
        """Whether a folder's heartbeat has a higher token, or ours and another owner; one that cannot be read says no.

        Raises StorageError for one on Drive that may still be written, until it has stood still for two beats.
        """
        path = folder / HEARTBEAT
        try:
            beat = read_sealed(path, Beat)
            return beat["token"] > self.token or (beat["token"] == self.token and beat["owner"] != self.owner)
        except FileNotFoundError:
            return False
        except CheckpointError as error:
            if folder != self.folder and abs(time.time() - os.stat(path).st_mtime) < 2 * self.heartbeat_seconds:
                raise StorageError(f"{path}: cannot be read; another machine may be writing it, so nothing is written "
                                   "there yet.") from error
            return False

    def beat(self) -> None:
        """Rewrites heartbeat.json. Raises TakenOverError when the run is another's by now."""
        with self._turn():
            write_sealed(self.folder / HEARTBEAT, {"owner": self.owner, "token": self.token, "drive": self.drive,
                                                   "sequence": self.sequence, "written": self.heartbeat})

    def save(self) -> None:
        """Rewrites session.json whole, then its copy. Raises TakenOverError when the run is another's by now."""
        with self._turn():
            value = self.to_dict()
            for name in (SESSION, SESSION_COPY):
                write_sealed(self.folder / name, value)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """The next write of ours: no other process writes between the look at whose the run is, and its end."""
        with locked(self.folder / LOCK):
            if self.is_taken_over(self.folder):
                raise TakenOverError(self.run_id)
            self.heartbeat, self.sequence = utc_now(), self.sequence + 1
            yield

    # ------------------------------------------------------------------------------------------------- its file
    @classmethod
    def load(cls, ws: Workspace, run_id: str) -> "Session":
        """A run's session as written last, here or on Drive, or its copy, else as it began. Raises SessionError."""
        folders = [home.checkpoint_folder(run_id) for home in ws.homes]
        whole, damages = _whole_sessions(ws, run_id, [folder / name for name in (SESSION, SESSION_COPY)
                                                      for folder in folders])
        if (is_lost := not whole) and any(any(folder.glob("done/*")) for folder in folders):
            whole, more = _whole_sessions(ws, run_id, [home.configs / f"{run_id}.json" for home in ws.homes])
            damages += more
        if not whole:
            raise SessionError([*damages, f"{folders[-1] / SESSION}: there is no such run."][0])
        # who took a run over began one attempt more, however long the other went on writing where it was
        path, session = max(whole, key=lambda pair: (len(pair[1].attempts), pair[1].sequence))
        if is_lost:
            session.status, session.is_rebuilt = "paused", True
            session.why = f"its {SESSION} and {SESSION_COPY} are lost; rebuilt from {path} and its finished jobs"
            tell(f"run {run_id}: {session.why}.")
        elif damages:
            tell(f"{damages[0]} Its copy in {path} is used instead.")
        session._look_at_heartbeats({path.parent for path, _ in whole})
        return session

    def _look_at_heartbeats(self, whole: set[Path]) -> None:
        """The highest token, the newest sign of life, and whether another process may train what these folders tell."""
        self.token, there = len(self.attempts), self.ws.checkpoint_folder(self.run_id)
        for folder in {self.folder, there}:
            try:
                beat = read_sealed(folder / HEARTBEAT, Beat)
            except (FileNotFoundError, CheckpointError) as error:
                if folder != self.folder and isinstance(error, CheckpointError):
                    self.rival = str(error)
                continue
            self.token = max(self.token, beat["token"])
            if beat["owner"] != self.owner and (self.is_rebuilt or folder != self.folder):
                self.rival = f"{folder / HEARTBEAT} is of another process than its session"
            elif beat["owner"] == self.owner and beat["sequence"] > self.sequence:
                self.heartbeat, self.drive = beat["written"], beat["drive"]
        if there not in {self.folder, *whole} and os.path.exists(there / SESSION):
            self.rival = f"{there / SESSION} cannot be read"


def _whole_sessions(ws: Workspace, run_id: str, paths: list[Path]) -> tuple[list[tuple[Path, Session]], list[str]]:
    """Those of the files that can be read, and a sentence for each that is damaged. Raises SessionError as `load`."""
    whole, damages = [], []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            try:
                whole.append((path, _session_in(path, read_sealed(path), ws, run_id)))
            except CheckpointError as error:
                damages.append(str(error))
    return whole, damages


def _session_in(path: Path, value: dict[str, Any], ws: Workspace, run_id: str) -> Session:
    """The session that a file holds. Raises SessionError where it is of another version, type, config or run."""
    if (number := value.get("format", FORMAT)) != FORMAT and isinstance(number, int):
        raise SessionError(f"{path}: " + (
            "a run of the first version. Train anew with: python -m vnq_colab train." if number < FORMAT else
            f"written by a newer version ({shorten(value.get('code_version'))}, not {__version__}). Update vnq_colab."))
    try:
        value = convert(SessionFile, value, "")
        session = Session(ws, **{name: value[name] for name in _HINTS} | {
            "config": RunConfig.from_dict(value["config"])})
        for name, row in session.jobs.items():
            strange = {*row["needs"]} - {*session.jobs} | {*row["symbols"]} - {*session.ledger} | {
                row["fold"]} - {None, *range(len(session.folds))}
            require(not strange, f"jobs.{name}", [*strange], "is not there")
    except ConfigError as error:
        raise SessionError(f"{path}: not a session of this library ({str(error).rstrip('.')}). Restore it, or start a "
                           "new run.") from error
    if value["config_id"] != session.config.config_id and session.code_version == __version__:
        raise SessionError(f"{path}: its config is not the one that the run began with. Put it back, or start anew.")
    if session.run_id != run_id:
        raise SessionError(f"{path}: is the session of run {session.run_id}, in a folder of another name. Rename it.")
    return session


# ------------------------------------------------------------------------------------------ the runs of a workspace
def new_run_id(ws: Workspace, config: RunConfig) -> str:
    """"<UTC date>T<time>_<config hash:6>"; no two runs begin in one second, so that names sort by age."""
    stamp = utc_stamp()
    while any(name.startswith(stamp) for name in run_names(ws)):
        time.sleep(0.1)
        stamp = utc_stamp()
    return f"{stamp}_{config.config_id[:6]}"


def run_names(ws: Workspace) -> list[str]:
    """All runs of this machine and Drive, oldest first. Raises StorageError when neither says anything."""
    names, trouble = set(), None
    for home in ws.homes:
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(home.checkpoints) as entries:
                names |= {entry.name for entry in entries if RUN_ID.fullmatch(entry.name) and _is_run(entry)}
        except OSError as error:
            trouble = storage_error(home.checkpoints, error)
    if trouble and not names:
        raise trouble
    return sorted(names)


def _is_run(entry: os.DirEntry) -> bool:
    """Whether it is a folder, not a link to one, with something of a run in it."""
    return entry.is_dir(follow_symlinks=False) and any(
        os.path.lexists(os.path.join(entry.path, name)) for name in (SESSION, SESSION_COPY, "done"))


def sessions(ws: Workspace, ending: str = "") -> list[Session]:
    """Every readable session of the workspace whose name ends so, oldest first."""
    readable, unreadable = [], []
    for name in run_names(ws):
        if name.endswith(ending):
            try:
                readable.append(Session.load(ws, name))
            except VnqError as error:
                unreadable.append(str(error))
    if unreadable:
        more = f" (and {len(unreadable) - 1} more runs)" if len(unreadable) > 1 else ""
        tell(f"passed over: {unreadable[0]}{more}")
    return readable


def other_parts(session: Session) -> list[Session]:
    """The runs that train the other parts of what a session trains a part of, as they stand now, where readable."""
    return [] if session.part is None else [
        other for other in sessions(session.ws, f"of{session.part[1]}") if other.part and other.part != session.part
        and (other.config.config_id, other.data_id) == (session.config.config_id, session.data_id)]


def latest_session(ws: Workspace, run: str | None = None) -> Session:
    """The newest run, or the one whose name is, or begins with, `run`. Raises SessionError when there is none."""
    if run is not None:
        names = run_names(ws)
        matches = [name for name in names if name == run] or [name for name in names if name.startswith(run)]
        if len(matches) != 1:
            problem = f"{len(matches)} runs begin with" if matches else "there is no run"
            raise SessionError(f"{ws.checkpoints}: {problem} {run!r}.{did_you_mean(run, matches or names)}")
        return Session.load(ws, matches[0])
    if readable := sessions(ws):
        return readable[-1]
    raise SessionError(f"{ws.root}: there is no run yet. Start one with train.")


def status(ws: Workspace, run: str | None = None) -> Session:
    """What runs (else the newest run), how far, how old the last checkpoint is: from JSON alone, at once."""
    if run is None and (unfinished := [session for session in sessions(ws) if session.status != "finished"]):
        return unfinished[-1]
    return latest_session(ws, run)
