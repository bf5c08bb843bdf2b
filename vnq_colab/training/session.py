"""The session: one JSON file that says what runs, how far every symbol is, and why it stopped; and its heartbeat.

Only the standard library is imported here, so that `status` answers at once and from any machine.
"""

import contextlib
import platform
import secrets
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from vnq_colab import __version__
from vnq_colab.clock import SECONDS_SPENT, utc_now
from vnq_colab.config import RunConfig
from vnq_colab.errors import (
    CheckpointError,
    ConfigError,
    SessionError,
    TakenOverError,
    VnqError,
    name_a_few,
    shorten,
    tell,
)
from vnq_colab.files import locked, read_sealed, write_sealed
from vnq_colab.layout import HEARTBEAT, LOCK, SESSION, SESSION_COPY, Workspace
from vnq_colab.settings import convert
from vnq_colab.training import session_file as schema
from vnq_colab.training.session_view import SessionView

FORMAT = 2  # of session.json
CLOCK_STEP = 5.0  # [s] by which a corrected clock may move the moment at which a process is said to have started
HEARTBEAT_SECONDS = 30.0  # between two signs of life; a machine that is silent for two of them is lost


@dataclass(repr=False)
class Session(SessionView):
    """One run: its config, its data, its jobs and its ledger, kept in `checkpoints/<run_id>/session.json`."""

    ws: Workspace
    run_id: schema.NAME
    config: RunConfig
    data_id: schema.NAME
    folds: list[schema.Fold]  # oldest first
    jobs: dict[schema.NAME, schema.JobRow]  # by name, in order
    ledger: dict[str, schema.LedgerRow]  # by symbol
    skipped: dict[str, str] = field(default_factory=dict)  # symbols that were left out before the start, and why
    synthetic: bool = False
    part: schema.PART | None = None  # [number, of how many]: this machine trains a part of the folds
    status: Literal["running", "paused", "finished"] = "running"
    why: str = ""
    machine: schema.Machine = field(default_factory=dict)
    started: schema.MOMENT = field(default_factory=utc_now)
    heartbeat: schema.MOMENT = field(default_factory=utc_now)  # when the newest sign of life was given
    owner: str = ""  # the process that trains it, by a random name
    code_version: str = __version__
    sequence: int = 0  # one more with each sign of life
    heartbeat_seconds: schema.BEAT = HEARTBEAT_SECONDS
    drive: str = ""  # what has not reached Google Drive, and why
    seconds: schema.Seconds = field(default_factory=lambda: dict.fromkeys(SECONDS_SPENT, 0.0))
    attempts: list[schema.AttemptRow] = field(default_factory=list)
    checkpoint: schema.Manifest | None = None  # the newest
    # not stored here:
    token: int = 0  # the highest that was seen in a heartbeat
    rival: str = ""  # why somebody else may train it, though this file does not say so
    is_rebuilt: bool = False  # from what stood in configs/ when it began; its finished jobs are not adopted yet

    @classmethod
    def create(cls, ws: Workspace, config: RunConfig, run_id: str, **parts: Any) -> "Session":
        """A new run, written to disk."""
        session = cls(ws, run_id, config, **parts)
        session.save()
        return session

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
        """Takes a fencing token above all that were seen: whoever has a lower one stops at its next write.

        Source: Kleppmann 2016, How to do distributed locking.
        """
        self.owner, self.token = secrets.token_hex(8), self.token + 1
        self.beat()

    def is_taken_over(self, folder: Path) -> bool:
        """Whether a folder's heartbeat has a higher token, or ours and another owner.

        Raises CheckpointError where it is there and cannot be read.
        """
        with contextlib.suppress(FileNotFoundError):
            beat = read_sealed(folder / HEARTBEAT, schema.Beat)
            return beat["token"] > self.token or (beat["token"] == self.token and beat["owner"] != self.owner)
        return False

    def is_alive(self) -> bool | None:
        """Whether the process that trains it runs on this machine; None where only its signs of life can say that."""
        if self.machine.get("node") != platform.node() or not {"pid", "pid_started"} <= set(self.machine):
            return None
        import psutil  # beside the standard library, and as quick

        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.machine["pid"])
            is_same = abs(process.create_time() - self.machine["pid_started"]) < CLOCK_STEP
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        return False

    @property
    def state(self) -> str:
        """`status`, or "interrupted" where its process is gone without a word: a crash, a kill, a restarted kernel."""
        return "interrupted" if self.status == "running" and self.is_alive() is False else self.status

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
            with contextlib.suppress(CheckpointError):  # damaged here, where it is replaced whole: it says nothing
                if self.is_taken_over(self.folder):
                    raise TakenOverError(self.run_id)
            self.heartbeat, self.sequence = utc_now(), self.sequence + 1
            yield

    # ------------------------------------------------------------------------------------------------- its file
    def to_dict(self) -> dict[str, Any]:
        """What session.json holds."""
        value = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in NOT_STORED}
        return {"format": FORMAT, "config_id": self.config.config_id, **value, "config": self.config.to_dict(),
                "seconds": {name: round(spent, 1) for name, spent in self.seconds.items()}}

    @classmethod
    def load(cls, ws: Workspace, run_id: str) -> "Session":
        """The session of a run as it was written last, on this machine or on Drive, from session.json or its copy.

        Where all of them are lost, as it began, from configs/<run_id>.json. Raises SessionError when that is lost too,
        or when one is foreign or from another version.
        """
        whole, damages = _whole_sessions(ws, run_id, [home.checkpoint_folder(run_id) / name
                                                      for name in (SESSION, SESSION_COPY) for home in ws.homes])
        if whole:
            # who took a run over began one attempt more, however long the other went on writing where it was
            path, session = max(whole, key=lambda pair: (len(pair[1].attempts), pair[1].sequence))
            if damages:
                tell(f"{damages[0]} Its copy in {path} is used instead.")
        else:
            began, more = _whole_sessions(ws, run_id, [home.configs / f"{run_id}.json" for home in ws.homes])
            if not began or not any(any(home.checkpoint_folder(run_id).glob("done/*")) for home in ws.homes):
                missing = f"{ws.checkpoint_folder(run_id) / SESSION}: there is no such run."
                raise SessionError([*damages, *more, missing][0])
            path, session = began[0]
            session.status, session.is_rebuilt = "paused", True
            session.why = f"its {SESSION} and {SESSION_COPY} are lost; rebuilt from {path} and its finished jobs"
            tell(f"run {run_id}: {session.why}.")
        session._look_at_heartbeats([path for path, _ in whole])
        return session

    def _look_at_heartbeats(self, whole: list[Path]) -> None:
        """The highest token, the newest sign of life, and whether another process may train what these files tell."""
        self.token, there = len(self.attempts), self.ws.checkpoint_folder(self.run_id)
        for folder in dict.fromkeys((self.folder, there)):
            try:
                beat = read_sealed(folder / HEARTBEAT, schema.Beat)
            except FileNotFoundError:
                continue
            except CheckpointError as error:
                self.rival = str(error) if folder != self.folder else self.rival
                continue
            self.token = max(self.token, beat["token"])
            if beat["owner"] != self.owner and (self.is_rebuilt or folder != self.folder):
                self.rival = f"{folder / HEARTBEAT} is of another process than its session"
            elif beat["owner"] == self.owner and beat["sequence"] > self.sequence:
                self.heartbeat, self.drive = beat["written"], beat["drive"]
        if there != self.folder and not any(path.parent == there for path in whole) and (there / SESSION).exists():
            self.rival = f"{there / SESSION} cannot be read"


NOT_STORED = ("ws", "token", "rival", "is_rebuilt")
_HINTS = {name: hint for name, hint in typing.get_type_hints(Session, include_extras=True).items()
          if name not in NOT_STORED} | {"format": int, "config_id": str, "config": dict[str, Any]}
_VERSIONS = {"commit": str | None, "torch": str, "numpy": str, "python": str}  # beside them in configs/<run_id>.json
SessionFile = TypedDict("SessionFile", _HINTS | {name: NotRequired[hint] for name, hint in _VERSIONS.items()})


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
        raise SessionError(
            f"{path}: a run of the first version, whose packs and refits this one does not know. Train anew with: "
            "python -m vnq_colab train." if number < FORMAT else f"{path}: written by a newer version of the library "
            f"({shorten(value.get('code_version'))}; this is {__version__}). Update vnq_colab.")
    try:
        value = convert(SessionFile, value, "")
        config = RunConfig.from_dict(value["config"])
        _check_jobs(value)
    except ConfigError as error:
        raise SessionError(f"{path}: not a session of this library ({str(error).rstrip('.')}). Restore it, or start a "
                           "new run.") from error
    rest = {name: part for name, part in value.items() if name not in ("format", "config", "config_id", *_VERSIONS)}
    session = Session(ws=ws, config=config, **rest)
    if value["config_id"] != config.config_id and session.code_version == __version__:
        raise SessionError(f"{path}: its config is not the one that the run began with "
                           f"({_config_differences(session)}). Put it back, or start a new run with the new one.")
    if session.run_id != run_id:
        raise SessionError(f"{path}: is the session of run {session.run_id}, in a folder of another name. Give the "
                           "folder that name.")
    return session


def _check_jobs(value: dict[str, Any]) -> None:
    """Raises ConfigError where a job speaks of a fold, a job or a symbol that is not there."""
    for name, row in value["jobs"].items():
        strange = [*(set(row["needs"]) - set(value["jobs"])), *(set(row["symbols"]) - set(value["ledger"]))]
        if row["fold"] is not None and row["fold"] >= len(value["folds"]):
            strange.append(f"fold {row['fold'] + 1}")
        if strange:
            raise ConfigError(f"jobs.{name} speaks of {shorten(strange[0])}, which is not there.")


def stored_sequence(path: Path) -> int | None:
    """The sequence number in a session.json or heartbeat.json; None where there is none to read."""
    with contextlib.suppress(FileNotFoundError, CheckpointError):
        return read_sealed(path).get("sequence")
    return None


def _config_differences(session: Session) -> str:
    """Where the config of a session differs from the one that was written down when the run began."""
    for home in session.ws.homes:
        with contextlib.suppress(FileNotFoundError, VnqError):
            began = RunConfig.from_dict(read_sealed(home.configs / f"{session.run_id}.json").get("config"))
            return name_a_few(began.differences(session.config)) or "the library has had other settings since"
    return "its config_id differs"
