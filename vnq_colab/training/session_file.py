"""What session.json holds, as types, and what a person looks at of it: counts, tables, learning curves, its lines."""

import contextlib
import io
import math
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

from vnq_colab import __version__
from vnq_colab.clock import SECONDS_SPENT, seconds_since, spell, utc_now
from vnq_colab.config import SYNTHETIC_NOTE, RunConfig
from vnq_colab.errors import StorageError, name_a_few
from vnq_colab.files import read_bytes, write_atomic
from vnq_colab.layout import Workspace
from vnq_colab.notebook import Shown
from vnq_colab.settings import NOT_NEGATIVE, SHARE, Rule, between, record

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2  # of session.json
HEARTBEAT_SECONDS = 30.0  # between two signs of life; a machine that is silent for two of them is lost
CLOCK_STEP = 5.0  # [s] by which a corrected clock may move the moment at which a process is said to have started
GROWTH = 1.5  # of a job's seconds with its years; chosen: of 4 runs' times left, most within a third of what was left
HISTORY_TYPES = {"job": str, "symbol": str, "member": int, "epoch": int, "train_loss": float, "skill": float}
MOST_HISTORY = 2**26  # [bytes]


def _is_moment(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return seconds_since(text) >= 0
    return False


# what becomes part of a path: a run, a job, a data set
NAME = Annotated[str, Rule("must be a name of letters, digits, _ and -", re.compile(r"[A-Za-z0-9_-]{1,80}").fullmatch)]
MOMENT = Annotated[str, Rule("must be a moment such as 2026-11-21T02:10:00Z", _is_moment)]
DAY = Annotated[str, Rule("must be a day such as 2026-11-21", re.compile(r"\d{4}-\d\d-\d\d").fullmatch)]
PLACE = between(0, 9_999)
PART = Annotated[list[int], Rule("must be a part and of how many", lambda part: len(part) == 2 and
                                 1 <= part[0] <= part[1])]
BEAT = Annotated[float, Rule("must lie in (0, 600] seconds", lambda seconds: 0 < seconds <= 600)]
STATE = Literal["pending", "training", "done", "failed"]


DayRange = record("DayRange", first=DAY, last=DAY)
Fold = record("Fold", train=DayRange, valid=DayRange, test=DayRange, purge_days=PLACE)
Seconds = record("Seconds", **dict.fromkeys(SECONDS_SPENT, float))
LedgerRow = record("LedgerRow", state=STATE, reason=str, best_epochs=NotRequired[list[int]],
                   skill=NotRequired[float | None])
JobRow = record("JobRow", family=NAME, fold=PLACE | None, pack=PLACE | None, symbols=list[str], needs=list[NAME],
                learning_rate_share=SHARE, state=STATE, reason=str, seconds=NotRequired[NOT_NEGATIVE],
                sha256=NotRequired[str], file=NotRequired[str],  # of its forecaster, "" where all failed; of its file
                effects=NotRequired[list[str]])  # of options that somebody chose
Machine = record("Machine", **dict.fromkeys(("node", "system", "processor", "python", "torch", "device", "dtype",
                                             "code_version"), NotRequired[str]), cores=NotRequired[int | None],
                 threads=NotRequired[int], pid=NotRequired[between(1, 2**31 - 1)], pid_started=NotRequired[float])
AttemptRow = record("AttemptRow", started=MOMENT, stopped=MOMENT | None, why=str | None, machine=Machine, owner=str)
_FACTS = {"job": NAME, "symbols": list[str], "data_id": NAME, "config_id": str}
Facts = record("Facts", **_FACTS)  # what a checkpoint, or a finished job, is of
Manifest = record("Manifest", **_FACTS, code_version=str, format=int, sequence=int, bytes=int, sha256=str,
                   slot=Literal["slot_a", "slot_b"], written=MOMENT)
Beat = record("Beat", owner=str, token=int, sequence=int, written=MOMENT, drive=str)


@dataclass(repr=False)
class SessionRecord(Shown):
    """The fields of session.json, and the workspace that it was read from."""

    ws: Workspace
    run_id: NAME
    config: RunConfig
    data_id: NAME
    folds: list[Fold]  # oldest first
    jobs: Annotated[dict[NAME, JobRow], Rule("must name a job", bool)]  # by name, in order
    ledger: dict[str, LedgerRow]  # by symbol
    skipped: dict[str, str] = field(default_factory=dict)  # symbols that were left out before the start, and why
    synthetic: bool = False
    part: PART | None = None  # [number, of how many]: this machine trains a part of the folds
    status: Literal["running", "paused", "finished"] = "running"
    why: str = ""
    machine: Machine = field(default_factory=dict)
    started: MOMENT = field(default_factory=utc_now)
    heartbeat: MOMENT = field(default_factory=utc_now)  # when the newest sign of life was given
    owner: str = ""  # the process that trains it, by a random name
    code_version: str = __version__
    sequence: int = 0  # one more with each sign of life
    heartbeat_seconds: BEAT = HEARTBEAT_SECONDS
    drive: str = ""  # what has not reached Google Drive, and why
    seconds: Seconds = field(default_factory=lambda: dict.fromkeys(SECONDS_SPENT, 0.0))
    attempts: list[AttemptRow] = field(default_factory=list)
    checkpoint: Manifest | None = None  # the newest

    def to_dict(self) -> dict[str, Any]:
        """What session.json holds."""
        value = {part.name: getattr(self, part.name) for part in fields(SessionRecord) if part.name != "ws"}
        return {"format": FORMAT, "config_id": self.config.config_id, **value, "config": self.config.to_dict(),
                "seconds": {name: round(spent, 1) for name, spent in self.seconds.items()}}

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

    def unfinished_jobs(self) -> list[str]:
        """The names of the jobs that are neither done nor failed."""
        return [name for name, row in self.jobs.items() if row["state"] not in ("done", "failed")]

    def work(self, fresh: Iterable[str] = (), job: str = "", share: float = 0.0,
             spent: float = 0.0) -> tuple[float, float, bool]:
        """[s] that this machine's jobs took, [s] that the rest takes, and whether that is more than a guess.

        A job takes as long for its size as those of its family, `fresh` ones before older ones, and `job`, of which
        `share` is done after `spent` seconds; where its family has none yet, as the mean of the others.
        """
        begin, (number, of) = int(self.folds[0]["train"]["first"][:4]) if self.folds else 0, self.part or (1, 1)
        years = [max(int(fold["test"]["first"][:4]) - begin, 1) ** GROWTH for fold in self.folds] or [1]
        known, older, left, done = {}, {}, {}, 0.0  # the first three by family
        for name, row in self.jobs.items():
            if row["fold"] is not None and row["fold"] % of + 1 != number:
                continue
            size = len(row["symbols"]) * (years[-1] / 2 if row["fold"] is None else years[row["fold"]])
            part = 1.0 if row["state"] in ("done", "failed") else share * (name == job)
            took, family = spent if name == job else part * row.get("seconds", 0.0), row["family"]
            done, left[family] = done + took, left.get(family, 0.0) + size * (1 - part)
            if took and part * size:
                kept = known if name in {*fresh, job} else older
                kept[family] = [a + b for a, b in zip(kept.get(family, (0, 0)), (took, part * size), strict=True)]
        rates = {family: took / size for family, (took, size) in (older | known).items()}
        left, mean = {family: size for family, size in left.items() if size}, sum(rates.values()) / (len(rates) or 1)
        seconds = sum(size * rates.get(family, mean) for family, size in left.items())
        return done, seconds if rates else math.inf, rates.keys() >= left.keys() and seconds < math.inf

    def finish_ledger(self) -> None:
        """Says of every symbol that it is done, or failed, once no job is left."""
        if not self.unfinished_jobs():
            self.status = "finished"
            for row in self.ledger.values():
                row["state"] = "failed" if row["state"] == "failed" else "done"

    @property
    def note(self) -> str:
        """What every output must say about the data; empty for real prices."""
        return SYNTHETIC_NOTE if self.synthetic else ""

    def counts(self) -> dict[str, int]:
        """How many symbols are in each state."""
        states = [row["state"] for row in self.ledger.values()]
        return {state: states.count(state) for state in ("pending", "training", "done", "failed")}

    def failed(self) -> dict[str, str]:
        """The symbols that failed, with reasons; where none did, the jobs that failed as a whole."""
        symbols, jobs = ({name: row["reason"] for name, row in rows.items() if row["state"] == "failed"}
                         for rows in (self.ledger, self.jobs))
        return symbols or {name: reason for name, reason in jobs.items() if reason}

    def jobs_table(self) -> "pd.DataFrame":
        """The list of jobs, one row each: job, family, fold, symbols, state, seconds."""
        import pandas as pd

        return pd.DataFrame([
            {"job": name, "family": row["family"], "fold": "final" if row["fold"] is None else str(row["fold"] + 1),
             "symbols": len(row["symbols"]), "state": row["state"], "seconds": row.get("seconds"),
             "reason": row["reason"]} for name, row in self.jobs.items()])

    @property
    def history(self) -> "pd.DataFrame":
        """Learning curves: job, symbol ("*": all), member, epoch (or trees), train_loss, skill when validated."""
        import pandas as pd

        for home in self.ws.homes:
            with contextlib.suppress(OSError, StorageError, KeyError, ValueError):  # nothing rests on the curves
                text = read_bytes(home.log_folder(self.run_id) / "history.csv", MOST_HISTORY)
                return pd.read_csv(io.BytesIO(text), dtype=HISTORY_TYPES)[list(HISTORY_TYPES)]
        return pd.DataFrame(columns=list(HISTORY_TYPES))

    def add_history(self, job: str, rows: list[tuple]) -> None:
        """Adds the curves of a finished job, in place of older ones of the same job."""
        import pandas as pd

        older = [row for row in self.history.itertuples(index=False) if row.job != job]
        table = pd.DataFrame([*older, *((job, *row) for row in rows)], columns=list(HISTORY_TYPES))
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomic(self.ws.local.log_folder(self.run_id) / "history.csv", text.encode())

    def __repr__(self) -> str:
        done = len(self.jobs) - len(self.unfinished_jobs())
        why = self.why or ("its process ended without a word; resume goes on" if self.state == "interrupted" else "")
        _, left, is_known = self.work()
        rest = f", about {spell(left)} left" if is_known and self.status != "finished" else ""
        lines = [f"run {self.run_id}: {self.state}" + (f" ({why})" if why else ""), self.note,
                 f"{done} of {len(self.jobs)} jobs done{rest}: {', '.join(self.config.families)} over "
                 f"{len(self.folds)} folds and the final fit; {len(self.ledger)} symbols, {self.counts()['failed']} "
                 f"failed; data {self.data_id}, recipe {self.config.found_by.search or self.config.recipe}, seed "
                 f"{self.config.seed}"]
        for what, reasons in (("skipped", self.skipped), ("failed", self.failed())):
            lines += [f"{what}: {name_a_few(f'{symbol} ({why})' for symbol, why in reasons.items())}"] * bool(reasons)
        if spent := [f"{name} {spell(seconds)}" for name, seconds in self.seconds.items() if seconds >= 0.5]:
            lines.append(f"time: {', '.join(spent)}")
        if self.checkpoint and self.status != "finished":
            lines.append(f"last checkpoint {spell(seconds_since(self.checkpoint['written']))} ago: "
                         f"{self.checkpoint['job']}")
        lines.append(self.drive)
        if self.state == "running":
            lines.append(f"last sign of life {spell(seconds_since(self.heartbeat))} ago (one every "
                         f"{spell(self.heartbeat_seconds)} while it trains; when they stop, resume goes on)")
        return "\n  ".join(line for line in lines if line)
