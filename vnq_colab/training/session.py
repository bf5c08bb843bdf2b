"""The session: one JSON file that says what runs, how far every symbol is, and why it stopped; and its heartbeat.

Only the standard library is imported here, so that `status` answers at once and from any machine.
"""

import contextlib
import platform
import secrets
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vnq_colab import __version__
from vnq_colab.clock import SECONDS_SPENT, seconds_since, spell, utc_now
from vnq_colab.config import SYNTHETIC_NOTE, RunConfig
from vnq_colab.errors import CheckpointError, SessionError, TakenOverError, VnqError, name_a_few, tell
from vnq_colab.files import read_json, read_sealed, write_atomic, write_sealed
from vnq_colab.layout import HEARTBEAT, SESSION, SESSION_COPY, Workspace

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2  # of session.json
CLOCK_STEP = 5.0  # [s] by which a corrected clock may move the moment at which a process is said to have started
HEARTBEAT_SECONDS = 30.0  # between two signs of life; a machine that is silent for two of them is lost
HISTORY_COLUMNS = ["job", "symbol", "member", "epoch", "train_loss", "skill"]


@dataclass(repr=False)
class Session:
    """One run: its config, its data, its jobs and its ledger, kept in `checkpoints/<run_id>/session.json`."""

    ws: Workspace
    run_id: str
    config: RunConfig
    data_id: str
    folds: list[dict[str, Any]]  # as of `Splits.to_dict`, oldest first
    jobs: dict[str, dict[str, Any]]  # by name, in order: family, fold, pack, symbols, needs, state, sha256, seconds
    ledger: dict[str, dict[str, Any]]  # by symbol: state (pending, training, done, failed), reason
    skipped: dict[str, str] = field(default_factory=dict)  # symbols that were left out before the start, and why
    synthetic: bool = False
    part: list[int] | None = None  # [number, of how many]: this machine trains a part of the folds
    status: str = "running"  # running, paused, finished
    why: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    heartbeat: str = ""  # when the newest sign of life was given
    owner: str = ""  # the process that trains it, by a random name
    code_version: str = __version__
    sequence: int = 0  # one more with each sign of life
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    drive: str = ""  # what has not reached Google Drive, and why
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS_SPENT, 0.0))
    attempts: list[dict[str, Any]] = field(default_factory=list)  # started, stopped, why, machine, owner
    checkpoint: dict[str, Any] | None = None  # the newest: sequence, job, step, written
    token: int = 0  # the highest that was seen in a heartbeat; not stored here

    @classmethod
    def create(cls, ws: Workspace, config: RunConfig, run_id: str, **parts: Any) -> "Session":
        """A new run, written to disk."""
        session = cls(ws, run_id, config, started=utc_now(), **parts)
        session.save()
        return session

    @property
    def folder(self) -> Path:
        """Where its files are written; for a workspace on Drive on this machine's own disk."""
        return self.ws.local.checkpoint_folder(self.run_id)

    def unfinished_jobs(self) -> list[str]:
        """The names of the jobs that are neither done nor failed."""
        return [name for name, row in self.jobs.items() if row["state"] not in ("done", "failed")]

    @property
    def note(self) -> str:
        """What every output must say about the data; empty for real prices."""
        return SYNTHETIC_NOTE if self.synthetic else ""

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
        """Whether a folder's heartbeat has a higher token, or ours and another owner. A damaged one says nothing."""
        with contextlib.suppress(OSError, VnqError, KeyError):
            beat = read_sealed(folder / HEARTBEAT)
            return beat["token"] > self.token or (beat["token"] == self.token and beat["owner"] != self.owner)
        return False

    def is_alive(self) -> bool | None:
        """Whether the process that trains it runs on this machine; None where only its signs of life can say that."""
        if self.machine.get("node") != platform.node() or "pid_started" not in self.machine:
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
        self._next_sequence()
        write_sealed(self.folder / HEARTBEAT, {"owner": self.owner, "token": self.token, "sequence": self.sequence,
                                               "written": self.heartbeat, "drive": self.drive})

    def save(self) -> None:
        """Rewrites session.json whole, then its copy. Raises TakenOverError when the run is another's by now."""
        self._next_sequence()
        value = self.to_dict()
        for name in (SESSION, SESSION_COPY):
            write_sealed(self.folder / name, value)

    def _next_sequence(self) -> None:
        if self.is_taken_over(self.folder):
            raise TakenOverError(self.run_id)
        self.heartbeat, self.sequence = utc_now(), self.sequence + 1

    # ------------------------------------------------------------------------------------------------- its file
    def to_dict(self) -> dict[str, Any]:
        """What session.json holds."""
        value = {part.name: getattr(self, part.name) for part in fields(self) if part.name not in ("ws", "token")}
        return {"format": FORMAT, "config_id": self.config.config_id, **value, "config": self.config.to_dict(),
                "seconds": {name: round(spent, 1) for name, spent in self.seconds.items()}}

    @classmethod
    def load(cls, ws: Workspace, run_id: str) -> "Session":
        """The session of a run as it was written last, on this machine or on Drive, from session.json or its copy.

        Raises SessionError when all are damaged, or when it is foreign or from another version.
        """
        folders = [home.checkpoint_folder(run_id) for home in ws.homes]
        whole, damages = [], []
        for path in (folder / name for name in (SESSION, SESSION_COPY) for folder in folders):
            try:
                whole.append((path, _read_session(path)))
            except FileNotFoundError:
                continue
            except (CheckpointError, OSError) as error:
                damages.append(str(error))
        if not whole:
            raise SessionError(damages[0] if damages else f"{folders[-1] / SESSION}: there is no such run.")
        # who took a run over began one attempt more, however long the other went on writing where it was
        path, value = max(whole, key=lambda pair: (len(pair[1]["attempts"]), pair[1].get("sequence", 0)))
        if damages:
            tell(f"{damages[0]} Its copy in {path} is used instead.")
        session = cls._from_dict(ws, path, run_id, value)
        session.token = len(session.attempts)
        for folder in folders:
            with contextlib.suppress(OSError, VnqError, KeyError):
                beat = read_sealed(folder / HEARTBEAT)
                session.token = max(session.token, beat["token"])
                if beat["owner"] == session.owner and beat["sequence"] > session.sequence:
                    session.heartbeat, session.drive = beat["written"], beat["drive"]
        return session

    @classmethod
    def _from_dict(cls, ws: Workspace, path: Path, run_id: str, value: dict[str, Any]) -> "Session":
        try:
            config = RunConfig.from_dict(value["config"])
            if not isinstance(value["ledger"], dict) or not isinstance(value["jobs"], dict):
                raise TypeError("ledger or jobs")
            rest = {name: part for name, part in value.items() if name not in ("format", "config", "config_id")}
            session, changed = cls(ws=ws, config=config, **rest), value["config_id"] != config.config_id
        except (KeyError, TypeError, AttributeError) as error:
            raise SessionError(f"{path}: not a session of this library ({error}). "
                               "Restore it, or start a new run.") from error
        if changed and session.code_version == __version__:
            raise SessionError(f"{path}: its config is not the one that the run began with "
                               f"({_config_differences(session)}). Put it back, or start a new run with the new one.")
        if session.run_id != run_id:
            raise SessionError(f"{path}: is the session of run {session.run_id}, in a folder of another name. Give the "
                               "folder that name.")
        return session

    # ------------------------------------------------------------------------------------- what a person looks at
    def counts(self) -> dict[str, int]:
        """How many symbols are in each state."""
        states = [row["state"] for row in self.ledger.values()]
        return {state: states.count(state) for state in ("pending", "training", "done", "failed")}

    def failed(self) -> dict[str, str]:
        """The symbols that failed, with reasons."""
        return {symbol: row["reason"] for symbol, row in self.ledger.items() if row["state"] == "failed"}

    def failed_jobs(self) -> dict[str, str]:
        """The jobs that failed as a whole, with reasons."""
        return {name: row["reason"] for name, row in self.jobs.items() if row["state"] == "failed" and row["reason"]}

    def ledger_table(self) -> "pd.DataFrame":
        """The ledger, one row per symbol."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.ledger, orient="index").rename_axis("symbol").reset_index()

    def jobs_table(self) -> "pd.DataFrame":
        """The list of jobs, one row each: job, family, fold, symbols, state, seconds."""
        import pandas as pd

        rows = [{"job": name, "family": row["family"], "fold": "final" if row["fold"] is None else str(row["fold"] + 1),
                 "symbols": len(row["symbols"]), "state": row["state"], "seconds": row.get("seconds"),
                 "reason": row.get("reason", "")} for name, row in self.jobs.items()]
        return pd.DataFrame(rows)

    @property
    def history(self) -> "pd.DataFrame":
        """Learning curves: job, symbol, member, epoch (or trees), train_loss, skill on the validation days.

        `skill` is the mean daily rank correlation of a model of all stocks (symbol "*"); of a symbol's own network the
        share of the unskilled forecast's loss that is saved.
        """
        import pandas as pd

        for home in self.ws.homes:
            with contextlib.suppress(OSError, KeyError, ValueError):  # foreign: nothing rests on the curves
                return pd.read_csv(home.log_folder(self.run_id) / "history.csv")[HISTORY_COLUMNS]
        return pd.DataFrame(columns=HISTORY_COLUMNS)

    def add_history(self, job: str, rows: list[tuple]) -> None:
        """Adds the curves of a finished job, in place of older ones of the same job."""
        import pandas as pd

        older = [row for row in self.history.itertuples(index=False) if row.job != job]
        table = pd.DataFrame([*older, *((job, *row) for row in rows)], columns=HISTORY_COLUMNS)
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomic(self.ws.local.log_folder(self.run_id) / "history.csv", lambda file: file.write(text.encode()))

    def __repr__(self) -> str:
        done = len(self.jobs) - len(self.unfinished_jobs())
        why = self.why or ("its process ended without a word; resume goes on" if self.state == "interrupted" else "")
        lines = [f"run {self.run_id}: {self.state}" + (f" ({why})" if why else ""), self.note,
                 f"{done} of {len(self.jobs)} jobs done: {', '.join(self.config.families)} over {len(self.folds)} "
                 f"folds and the final fit; {len(self.ledger)} symbols, {self.counts()['failed']} failed; data "
                 f"{self.data_id}, recipe {self.config.recipe}, seed {self.config.seed}"]
        for what, reasons in (("skipped", self.skipped), ("failed", self.failed())):
            lines += [f"{what}: {name_a_few(f'{symbol} ({why})' for symbol, why in reasons.items())}"] * bool(reasons)
        spent = ", ".join(f"{name} {spell(seconds)}" for name, seconds in self.seconds.items() if seconds >= 0.5)
        lines += [f"time: {spent}"] if spent else []
        if self.checkpoint and self.status != "finished":
            lines.append(f"last checkpoint {spell(seconds_since(self.checkpoint['written']))} ago: "
                         f"{self.checkpoint['job']}")
        lines.append(self.drive)
        if self.state == "running":
            lines.append(f"last sign of life {spell(seconds_since(self.heartbeat))} ago (one every "
                         f"{spell(self.heartbeat_seconds)} while it trains; when they stop, resume goes on)")
        return "\n  ".join(line for line in lines if line)


def _read_session(path: Path) -> dict[str, Any]:
    """What a session.json holds. Raises CheckpointError when it is damaged, SessionError in another format."""
    value = read_sealed(path)
    if (number := value.get("format", FORMAT)) != FORMAT:
        raise SessionError(
            f"{path}: a run of the first version, whose packs and refits this one does not know. Train anew with: "
            "python -m vnq_colab train." if number < FORMAT else f"{path}: written by a newer version of the library "
            f"({value.get('code_version')}; this is {__version__}). Update vnq_colab.")
    if not isinstance(value.get("attempts"), list):
        raise CheckpointError(f"{path}: holds no session.")
    return value


def stored_sequence(path: Path) -> int | None:
    """The sequence number in a session.json or heartbeat.json; None where there is none to read."""
    with contextlib.suppress(OSError, VnqError):
        return read_sealed(path).get("sequence")
    return None


def _config_differences(session: Session) -> str:
    """Where the config of a session differs from the one that was written down when the run began."""
    for home in session.ws.homes:
        with contextlib.suppress(OSError, VnqError, KeyError, TypeError):
            began = RunConfig.from_dict(read_json(home.configs / f"{session.run_id}.json")["config"])
            return name_a_few(began.differences(session.config)) or "the library has had other settings since"
    return "its config_id differs"
