"""The session: one JSON file that says what runs, how far every symbol is, and why it stopped.

Only the standard library is imported here, so that `status` answers at once and from any machine.
"""

import csv
import io
import os
import platform
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vnq_colab import __version__
from vnq_colab.clock import SECONDS_SPENT, seconds_since, spell, utc_now, utc_stamp
from vnq_colab.config import SYNTHETIC_NOTE, RunConfig
from vnq_colab.errors import SessionError, VnqError, did_you_mean, name_a_few
from vnq_colab.files import read_json, write_atomic, write_json
from vnq_colab.layout import Workspace
from vnq_colab.notebook import tell

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1  # of session.json
RUN_ID = re.compile(r"\d{8}T\d{6}_[a-z0-9]+_[0-9a-f]{6}(-refit)?")
REFIT = "-refit"  # ending of the run that trains a judged run's networks again on all labelled days
LEDGER_STATES = ("pending", "training", "done", "failed")
HISTORY_COLUMNS = ("symbol", "member", "epoch", "train_loss", "valid_loss", "no_skill")


@dataclass(repr=False)
class Session:
    """One run: its config, its data, its packs and its ledger, kept in `checkpoints/<run_id>/session.json`."""

    ws: Workspace
    run_id: str
    config: RunConfig
    data_id: str
    days: dict[str, Any]  # {"train": [first, last], "valid": [first, last] or None, "splits": all of them}
    packs: list[dict[str, Any]]  # {"symbols": [...], "learning_rate_share": 1.0, "done": None or file name}
    ledger: dict[str, dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)  # symbols that were left out before the start, and why
    synthetic: bool = False
    epochs_of: dict[str, list[int]] | None = None  # of a refit: epochs per symbol and member
    status: str = "running"  # running, paused, finished, failed
    why: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    heartbeat: str = ""
    owner: str = ""
    code_version: str = __version__
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS_SPENT, 0.0))
    attempts: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None  # the newest: sequence, pack, epoch, step, written

    @classmethod
    def start(cls, ws: Workspace, config: RunConfig, *, run_id: str | None = None, **parts: Any) -> "Session":
        """A new run with its own name (None: made of date, time, family and config), written to disk."""
        session = cls(ws, run_id or new_run_id(ws, config), config, started=utc_now(), **parts)
        session.save()
        return session

    @property
    def folder(self) -> Path:
        return self.ws.checkpoint_folder(self.run_id)

    @property
    def family(self) -> str:
        return self.config.family

    @property
    def is_refit(self) -> bool:
        return self.run_id.endswith(REFIT)

    @property
    def note(self) -> str:
        """What every output must say about the data; empty for real prices."""
        return SYNTHETIC_NOTE if self.synthetic else ""

    def begin_attempt(self) -> None:
        """This process becomes the owner."""
        self.owner = secrets.token_hex(8)
        self.status, self.why = "running", ""
        self.attempts.append({"started": utc_now(), "stopped": None, "why": None, "machine": self.machine})
        self.save()

    def end_attempt(self, status: str, why: str) -> None:
        """Says how it ended: finished, paused or failed."""
        self.status, self.why = status, why
        self.attempts[-1] |= {"stopped": utc_now(), "why": why}
        self.save()

    def save(self) -> None:
        """Rewrites session.json whole; the heartbeat is now."""
        self.heartbeat = utc_now()
        write_json(self.folder / "session.json", self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What session.json holds."""
        names = ("run_id", "family", "status", "why", "config_id", "data_id", "code_version", "machine", "started",
                 "heartbeat", "owner", "synthetic", "days", "packs", "ledger", "skipped", "epochs_of", "attempts",
                 "checkpoint")
        value = {name: getattr(self, name) for name in names if name != "config_id"}
        seconds = {name: round(spent, 1) for name, spent in self.seconds.items()}
        return {"format": FORMAT, "config": self.config.to_dict(), "config_id": self.config.config_id,
                "seconds": seconds, **value}

    @classmethod
    def load(cls, ws: Workspace, run_id: str) -> "Session":
        """The session of a run. Raises SessionError when it is not there, damaged, or from a newer version."""
        path = ws.checkpoint_folder(run_id) / "session.json"
        try:
            value = read_json(path)
            if value["format"] > FORMAT:
                raise SessionError(f"{path}: written by a newer version of the library ({value['code_version']}; "
                                   f"this is {__version__}). Update vnq_colab.")
            config = RunConfig.from_dict(value["config"])
            if not isinstance(value["ledger"], dict) or not isinstance(value["packs"], list):
                raise TypeError("ledger or packs")
            rest = {name: part for name, part in value.items()
                    if name not in ("format", "family", "config", "config_id")}
            return cls(ws=ws, config=config, **rest)
        except FileNotFoundError:
            raise SessionError(f"{path}: there is no such run.") from None
        except (KeyError, TypeError, AttributeError) as error:
            raise SessionError(f"{path}: not a session of this library ({error}). "
                               "Restore it, or start a new run.") from error

    def counts(self) -> dict[str, int]:
        """How many symbols are in each state."""
        states = [row["state"] for row in self.ledger.values()]
        return {state: states.count(state) for state in LEDGER_STATES}

    def failed(self) -> dict[str, str]:
        """The symbols that failed, with reasons."""
        return {symbol: row["reason"] for symbol, row in self.ledger.items() if row["state"] == "failed"}

    def ledger_table(self) -> "pd.DataFrame":
        """The ledger, one row per symbol."""
        import pandas as pd

        table = pd.DataFrame.from_dict(self.ledger, orient="index").rename_axis("symbol").reset_index()
        return table.drop(columns=["file", "sha256"], errors="ignore")

    @property
    def history(self) -> "pd.DataFrame":
        """Learning curves: symbol, member, epoch, train_loss, valid_loss, no_skill.

        `no_skill` is the loss of the forecast of no change.
        """
        import pandas as pd

        path = self.ws.log_folder(self.run_id) / "history.csv"
        try:
            return pd.read_csv(path)[list(HISTORY_COLUMNS)]
        except (OSError, KeyError, ValueError):  # gone or foreign: the curves are for looking at, nothing rests on them
            return pd.DataFrame(columns=list(HISTORY_COLUMNS))

    def add_history(self, rows: list[tuple]) -> None:
        """Adds the curves of a finished pack, in place of older ones of the same symbols."""
        path, text = self.ws.log_folder(self.run_id) / "history.csv", io.StringIO()
        new = {row[0] for row in rows}
        old = []
        if path.exists():
            with open(path, encoding="utf-8", newline="") as file:
                old = [row for row in csv.reader(file)][1:]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HISTORY_COLUMNS)
        writer.writerows([row for row in old if row[0] not in new])
        writer.writerows([*row[:3], *(f"{value:.6g}" for value in row[3:])] for row in rows)
        write_atomic(path, lambda file: file.write(text.getvalue().encode("utf-8")))

    def __repr__(self) -> str:
        counts, done = self.counts(), sum(pack["done"] is not None for pack in self.packs)
        what = "refit" if self.is_refit else "run"
        lines = [f"{what} {self.run_id}: {self.status}" + (f" ({self.why})" if self.why else "")]
        lines += [f"  {self.note}"] if self.synthetic else []
        lines += [f"  {counts['done']} of {len(self.ledger)} symbols done, {counts['failed']} failed; pack {done} of "
                  f"{len(self.packs)}; data {self.data_id}, recipe {self.config.recipe}, seed {self.config.seed}"]
        lines += ([f"  skipped: {name_a_few(f'{symbol} ({why})' for symbol, why in self.skipped.items())}"]
                  if self.skipped else [])
        lines += ([f"  failed: {name_a_few(f'{symbol} ({why})' for symbol, why in self.failed().items())}"]
                  if counts["failed"] else [])
        spent = ", ".join(f"{name} {spell(seconds)}" for name, seconds in self.seconds.items() if seconds >= 0.5)
        lines += [f"  time: {spent}"] if spent else []
        if self.checkpoint and self.status != "finished":
            lines += [f"  last checkpoint {spell(seconds_since(self.checkpoint['written']))} ago: pack "
                      f"{self.checkpoint['pack'] + 1}, epoch {self.checkpoint['epoch'] + 1}"]
        if self.status == "running":
            lines += [f"  last sign of life {spell(seconds_since(self.heartbeat))} ago (one a minute while it "
                      "trains; when they stop, resume goes on)"]
        return "\n".join(lines)


def new_run_id(ws: Workspace, config: RunConfig) -> str:
    """"<UTC date>T<time>_<family>_<config hash:6>", one second later where that name is taken."""
    import time

    while True:
        run_id = f"{utc_stamp()}_{config.family}_{config.config_id[:6]}"
        if not ws.checkpoint_folder(run_id).exists():
            return run_id
        time.sleep(0.2)


def sessions(ws: Workspace) -> list[Session]:
    """Every readable session of the workspace, oldest first, refits included."""
    if not ws.checkpoints.is_dir():
        return []
    found = []
    for name in sorted(entry.name for entry in ws.checkpoints.iterdir() if RUN_ID.fullmatch(entry.name)):
        try:
            found.append(Session.load(ws, name))
        except VnqError as error:
            tell(f"passed over: {error}")
    return found


def latest_session(ws: Workspace, run: str | None = None) -> Session:
    """The newest run, or the one whose name is, or begins with, `run`. Raises SessionError when there is none."""
    if run is not None:
        names = [entry.name for entry in ws.checkpoints.iterdir()] if ws.checkpoints.is_dir() else []
        matches = [name for name in names if name == run] or [name for name in names if name.startswith(run)
                                                               and not name.endswith(REFIT)]
        if len(matches) != 1:
            found = f"{len(matches)} runs begin with" if matches else "there is no run"
            raise SessionError(f"{ws.checkpoints}: {found} {run!r}.{did_you_mean(run, matches or names)}")
        return Session.load(ws, matches[0])
    found = [session for session in sessions(ws) if not session.is_refit]
    if not found:
        raise SessionError(f"{ws.root}: there is no run yet. Start one with train.")
    return found[-1]


def status(ws: Workspace, run: str | None = None) -> Session:
    """What runs (else the newest run), how far, how old the last checkpoint is: from JSON alone, at once."""
    if run is None and (going := [s for s in sessions(ws) if s.status != "finished"]):
        return going[-1]
    return latest_session(ws, run)


def machine_facts() -> dict[str, Any]:
    """What the promise of equal bits depends on, as far as the standard library knows it."""
    return {"node": platform.node(), "system": platform.system(), "processor": _processor(), "cores": os.cpu_count(),
            "python": platform.python_version()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
