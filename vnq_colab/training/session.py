"""The session: one JSON file that says what runs, how far every symbol is, and why it stopped.

Only the standard library is imported here, so that `status` answers at once and from any machine.
"""

import contextlib
import csv
import io
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vnq_colab import __version__
from vnq_colab.clock import SECONDS_SPENT, seconds_since, spell, utc_now
from vnq_colab.config import SYNTHETIC_NOTE, RunConfig
from vnq_colab.errors import CheckpointError, SessionError, TakenOverError, VnqError, name_a_few
from vnq_colab.files import read_json, read_sealed, unsealed, write_atomic, write_sealed
from vnq_colab.layout import MANIFESTS, SESSION, Workspace
from vnq_colab.notebook import tell

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2  # of session.json
HEARTBEAT_SECONDS = 20.0  # between two signs of life on a local disk
DRIVE_HEARTBEAT_SECONDS = 300.0  # and on Drive, where every write counts
LEDGER_STATES = ("pending", "training", "done", "failed")
HISTORY_COLUMNS = ("job", "symbol", "member", "epoch", "train_loss", "skill")


@dataclass(repr=False)
class Session:
    """One run: its config, its data, its jobs and its ledger, kept in `checkpoints/<run_id>/session.json`."""

    ws: Workspace
    run_id: str
    config: RunConfig
    data_id: str
    folds: list[dict[str, Any]]  # as of `Splits.to_dict`, oldest first
    jobs: dict[str, dict[str, Any]]  # by name, in order: family, fold, pack, symbols, needs, state, sha256, seconds
    ledger: dict[str, dict[str, Any]]  # by symbol: state, reason
    skipped: dict[str, str] = field(default_factory=dict)  # symbols that were left out before the start, and why
    synthetic: bool = False
    part: list[int] | None = None  # [number, of how many]: this machine trains a part of the folds
    status: str = "running"  # running, paused, finished, failed
    why: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    heartbeat: str = ""
    owner: str = ""
    code_version: str = __version__
    sequence: int = 0  # of session.json, one more each time it is written
    heartbeat_seconds: float = HEARTBEAT_SECONDS  # between two signs of life that another machine can see
    drive: str = ""  # what has not reached Google Drive, and why
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS_SPENT, 0.0))
    attempts: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None  # the newest: sequence, job, step, written
    seen: set[str] = field(default_factory=set)  # owners named by any copy of it; not stored

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

    def left(self) -> list[str]:
        """The names of the jobs that are neither done nor failed."""
        return [name for name, row in self.jobs.items() if row["state"] not in ("done", "failed")]

    @property
    def note(self) -> str:
        """What every output must say about the data; empty for real prices."""
        return SYNTHETIC_NOTE if self.synthetic else ""

    @property
    def owners(self) -> set[str]:
        """Every process that has trained it, the present one included."""
        return _owners_in({"owner": self.owner, "attempts": self.attempts}) | self.seen

    def begin_attempt(self) -> None:
        """This process becomes the owner."""
        before, self.owner = self.owners, secrets.token_hex(8)
        self.status, self.why, self.drive = "running", "", ""
        self.heartbeat_seconds = HEARTBEAT_SECONDS if self.ws.local == self.ws else DRIVE_HEARTBEAT_SECONDS
        self.attempts.append({"started": utc_now(), "stopped": None, "why": None, "machine": self.machine,
                              "owner": self.owner})
        self._write(before | {self.owner})

    def end_attempt(self, status: str, why: str) -> None:
        """Says how it ended: finished, paused or failed."""
        self.status, self.why = status, why
        self.attempts[-1] |= {"stopped": utc_now(), "why": why}
        self.save()

    def save(self) -> None:
        """Rewrites session.json whole; the heartbeat is now. Raises TakenOverError when it is another's by now."""
        self._write(self.owners)

    def _write(self, owners: set[str]) -> None:
        path = self.folder / SESSION
        try:
            stored = read_sealed(path).get("owner")
        except (OSError, CheckpointError):  # not there yet, or damaged, which writing mends
            stored = None
        if stored and stored not in owners:
            raise TakenOverError(self.run_id)
        self.heartbeat, self.sequence = utc_now(), self.sequence + 1
        write_sealed(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What session.json holds."""
        names = ("run_id", "status", "why", "data_id", "code_version", "machine", "started", "heartbeat",
                 "heartbeat_seconds", "sequence", "owner", "drive", "synthetic", "part", "folds", "jobs", "ledger",
                 "skipped", "attempts", "checkpoint")
        value = {name: getattr(self, name) for name in names}
        seconds = {name: round(spent, 1) for name, spent in self.seconds.items()}
        return {"format": FORMAT, "config": self.config.to_dict(), "config_id": self.config.config_id,
                "seconds": seconds, **value}

    @classmethod
    def load(cls, ws: Workspace, run_id: str) -> "Session":
        """The session of a run as it was written last, on this machine or on Drive.

        Where session.json is damaged in both places, the copy in the newest manifest is taken, and said. Raises
        SessionError when there is nothing to take, or when it is foreign or from a newer version.
        """
        folders = tuple(dict.fromkeys(home.checkpoint_folder(run_id) for home in (ws.local, ws)))
        errors: list[str] = []
        for names in ((SESSION,), MANIFESTS):
            found = []
            for path in (folder / name for folder in folders for name in names):
                try:
                    found.append((path, _session_in(path)))
                except FileNotFoundError:
                    continue
                except (CheckpointError, OSError) as error:
                    errors.append(str(error))
            if found:
                # who took a run over began one attempt more, however long the other went on writing where it was
                path, value = max(found, key=lambda pair: (len(pair[1]["attempts"]), pair[1].get("sequence", 0)))
                if errors:
                    tell(f"{errors[0]} Its copy in {path} is used instead.")
                session = cls._from_dict(ws, path, run_id, value)
                session.seen = set().union(*(_owners_in(copy) for _, copy in found))
                return session
        raise SessionError(errors[0] if errors else f"{folders[-1] / SESSION}: there is no such run.")

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
                               f"({_what_changed(ws, session)}). Put it back, or start a new run with the new config.")
        if session.run_id != run_id:
            raise SessionError(f"{path}: is the session of run {session.run_id}, in a folder of another name. Give the "
                               "folder that name.")
        return session

    def counts(self) -> dict[str, int]:
        """How many symbols are in each state."""
        states = [row["state"] for row in self.ledger.values()]
        return {state: states.count(state) for state in LEDGER_STATES}

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

        try:
            return pd.read_csv(self._history_file())[list(HISTORY_COLUMNS)]
        except (OSError, KeyError, ValueError):  # gone or foreign: the curves are for looking at, nothing rests on them
            return pd.DataFrame(columns=list(HISTORY_COLUMNS))

    def _history_file(self) -> Path:
        """Where the curves lie: on this machine's own disk, else on Drive, where another machine has left them."""
        paths = [home.log_folder(self.run_id) / "history.csv" for home in (self.ws.local, self.ws)]
        return next((path for path in paths if path.exists()), paths[0])

    def add_history(self, job: str, rows: list[tuple]) -> None:
        """Adds the curves of a finished job, in place of older ones of the same job."""
        path, text = self.ws.local.log_folder(self.run_id) / "history.csv", io.StringIO()
        old: list[list[str]] = []
        with contextlib.suppress(OSError), open(self._history_file(), encoding="utf-8", newline="") as file:
            old = [row for row in csv.reader(file)][1:]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HISTORY_COLUMNS)
        writer.writerows([row for row in old if row[0] != job])
        writer.writerows([job, *row[:3], *(f"{value:.6g}" for value in row[3:])] for row in rows)
        write_atomic(path, lambda file: file.write(text.getvalue().encode("utf-8")))

    def __repr__(self) -> str:
        counts, done = self.counts(), len(self.jobs) - len(self.left())
        lines = [f"run {self.run_id}: {self.status}" + (f" ({self.why})" if self.why else "")]
        lines += [f"  {self.note}"] if self.synthetic else []
        lines += [f"  {done} of {len(self.jobs)} jobs done: {', '.join(self.config.families)} over {len(self.folds)} "
                  f"folds and the final fit; {len(self.ledger)} symbols, {counts['failed']} failed; data "
                  f"{self.data_id}, recipe {self.config.recipe}, seed {self.config.seed}"]
        lines += ([f"  skipped: {name_a_few(f'{symbol} ({why})' for symbol, why in self.skipped.items())}"]
                  if self.skipped else [])
        lines += ([f"  failed: {name_a_few(f'{symbol} ({why})' for symbol, why in self.failed().items())}"]
                  if counts["failed"] else [])
        spent = ", ".join(f"{name} {spell(seconds)}" for name, seconds in self.seconds.items() if seconds >= 0.5)
        lines += [f"  time: {spent}"] if spent else []
        if self.checkpoint and self.status != "finished":
            lines += [f"  last checkpoint {spell(seconds_since(self.checkpoint['written']))} ago: "
                      f"{self.checkpoint['job']}"]
        lines += [f"  {self.drive}"] if self.drive else []
        if self.status == "running":
            lines += [f"  last sign of life {spell(seconds_since(self.heartbeat))} ago (one every "
                      f"{spell(self.heartbeat_seconds)} while it trains; when they stop, resume goes on)"]
        return "\n".join(lines)


def _owners_in(value: dict[str, Any]) -> set[str]:
    return {value.get("owner", ""), *(attempt.get("owner", "") for attempt in value.get("attempts", []))}


def _what_changed(ws: Workspace, session: Session) -> str:
    """Where the config of a session differs from the one that was written down when the run began."""
    for home in (ws.local, ws):
        with contextlib.suppress(OSError, VnqError, KeyError, TypeError):
            began = RunConfig.from_dict(read_json(home.configs / f"{session.run_id}.json")["config"])
            return name_a_few(began.differences(session.config))
    return "its config_id differs"


def _session_in(path: Path) -> dict[str, Any]:
    """The session that session.json or a manifest holds. Raises SessionError when a newer version wrote it."""
    value = read_json(path)
    try:
        found = int(value["format"])  # before the seal, of which another version may have its own idea
    except (KeyError, TypeError, ValueError):
        found = FORMAT
    if found < FORMAT:
        raise SessionError(f"{path}: a run of the first version, whose packs and refits this one does not know. Train "
                           "anew with: python -m vnq_colab train.")
    if found > FORMAT:
        raise SessionError(f"{path}: written by a newer version of the library ({value.get('code_version')}; this is "
                           f"{__version__}). Update vnq_colab.")
    value = unsealed(value, path)
    session = value if path.name == SESSION else value.get("session")
    if not isinstance(session, dict) or not isinstance(session.get("attempts"), list):
        raise CheckpointError(f"{path}: holds no session.")
    return session
