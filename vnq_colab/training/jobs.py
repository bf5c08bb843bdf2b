"""The list of jobs of a run: which is next, what is known of a finished one, and what is added when one does not work.

It is fixed when the run starts, but for the second try of symbols that diverged and for packs that do not fit.
"""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from vnq_colab.errors import CheckpointError
from vnq_colab.models.base import Job
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.runs import other_parts
from vnq_colab.training.session import Session

RETRY_SHARE = 0.3  # of the learning rate, for the second try of a diverged symbol
ENDED = ("done", "failed")


class JobList:
    """The jobs of a session. `save` writes the session after each change."""

    def __init__(self, session: Session, store: CheckpointStore, save: Callable[[], None]):
        self.session, self.store, self._save = session, store, save

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """What the session says of each job, in order."""
        return self.session.jobs

    def next(self) -> str | None:
        """The first unfinished job that is ours and has all it needs; what other parts finished is adopted first."""
        part = self.session.part
        if part:
            others = other_parts(self.session)  # anew each time: one may have begun after us
            self.store.read_from(tuple(other.run_id for other in others))
            for other in others:
                self._take_packs_of(other)
            while any([self.adopt(name) for name in self.session.unfinished_jobs()]):
                pass  # a finished job may have brought a second try of what diverged there, finished too
        for name in self.session.unfinished_jobs():
            row = self.rows[name]
            if failed := [need for need in row["needs"] if self._is_failed_start(row, need)]:
                row |= {"state": "failed", "reason": f"{failed[0]}, from which it begins, failed"}
                self._save()
                continue
            is_ours = part is None or row["fold"] is None or _part_of(row["fold"], part[1]) == part[0]
            if is_ours and all(self.rows[need]["state"] in ENDED for need in row["needs"]):
                return name
        return None

    def _is_failed_start(self, row: dict[str, Any], need: str) -> bool:
        """Whether what a job starts from, in its own fold, failed: another start is never taken."""
        other = self.rows[need]
        return other["state"] == "failed" and other["fold"] == row["fold"] and other["family"] != row["family"]

    def job(self, name: str) -> Job:
        """A job as its family planned it."""
        return _job_of(self.rows[name])

    def facts(self, name: str) -> dict[str, Any]:
        """What a checkpoint, or a finished file, must be of to be used for a job."""
        return {"job": name, "symbols": list(self.rows[name]["symbols"]), "data_id": self.session.data_id,
                "config_id": self.session.config.config_id}

    def needed_in_fold(self, job: Job) -> bool:
        """Whether another job of the same fold begins from its weights."""
        return any(job.name in row["needs"] and row["fold"] == job.fold for row in self.rows.values())

    # ------------------------------------------------------------------------------------------------ finished jobs
    def adopt_finished(self) -> None:
        """What an attempt that was killed had finished, and the session does not know."""
        for name in self.session.unfinished_jobs():
            self.adopt(name)
        curves = set(self.session.history["job"])
        for name, row in self.rows.items():
            if row["state"] in ENDED and name not in curves:
                with contextlib.suppress(CheckpointError):  # damaged: whoever needs it says so
                    self.session.add_history(name, self.store.load_done(name)["curves"])

    def adopt(self, name: str) -> bool:
        """Whether the file of a job is there that the session did not know as done; a damaged one is trained anew."""
        if self.store.has_done(name):
            with contextlib.suppress(CheckpointError):
                state = self.store.load_done(name)
                if state["facts"] == self.facts(name):
                    self.note_finished(name, state)
                    return True
        return False

    def note_finished(self, name: str, state: dict[str, Any]) -> None:
        """What the session says of a finished job; plans the second try of what diverged."""
        row, ledger, failed = self.rows[name], self.session.ledger, state["failed"]
        row |= {"state": "done" if state["sha256"] else "failed", "sha256": state["sha256"], "reason": ""}
        for symbol, values in state["rows"].items():
            ledger[symbol] |= {key: _for_json(value) for key, value in values.items()}
        if failed and row["pack"] is not None and row["learning_rate_share"] == 1.0:
            self._add_pack(name, tuple(failed), learning_rate_share=RETRY_SHARE)
        elif failed:
            row["reason"] = next(iter(failed.values()))
            for symbol, reason in failed.items() if row["pack"] is not None else ():
                ledger[symbol] |= {"state": "failed", "reason": f"{name}: {reason}"}
        self.session.add_history(name, state["curves"])
        self._save()

    # -------------------------------------------------------------------------------------------------------- packs
    def _add_pack(self, like: str, symbols: tuple[str, ...], **changes: Any) -> None:
        """One more pack beside another, for some symbols; whoever needed that one needs both."""
        job = self.job(like)
        beside = [self.job(name) for name in _packs(self.rows)[job.family, job.fold]]
        new = replace(job, pack=max(other.pack for other in beside) + 1, symbols=symbols, **changes)
        if any(replace(other, pack=new.pack, needs=new.needs) == new for other in beside):
            return  # another part has planned it already
        rows = list(self.rows.items())
        rows.insert(list(self.rows).index(like) + 1, (new.name, new_row(new)))
        self._replace_rows(dict(rows))
        for row in self.rows.values():
            if like in row["needs"]:
                row["needs"] = [*row["needs"], new.name]

    def can_halve(self, name: str) -> bool:
        """Whether a job is a pack of several symbols."""
        row = self.rows[name]
        return row["pack"] is not None and len(row["symbols"]) > 1

    def halve(self, name: str) -> str:
        """Leaves the first half of a pack where it is and makes the second a job of its own; both begin anew."""
        row = self.rows[name]
        first, second = (tuple(half) for half in np.array_split(np.array(row["symbols"], dtype=object), 2))
        self._add_pack(name, second, learning_rate_share=row["learning_rate_share"])
        row |= {"symbols": list(first), "state": "pending"}
        self._save()
        members = self.session.config.n_members
        return (f"{name} does not fit: {members * (len(first) + len(second))} networks; going on with "
                f"{members * len(first)} and {members * len(second)}")

    def _take_packs_of(self, other: Session) -> None:
        """The packs of the folds that another part trains, of the final fit once it is finished, as they stand there.

        Its machine may hold packs of another size, and some are halved or tried again.
        """
        number, of = other.part
        ours = _packs(self.rows)
        for (family, fold), packs in _packs(other.jobs).items():
            is_theirs = other.status == "finished" if fold is None else _part_of(fold, of) == number
            old = ours.get((family, fold), {})
            if not is_theirs or packs == old:
                continue
            plain = {name: new_row(_job_of(other.jobs[name])) for name in packs}
            rows: dict[str, dict[str, Any]] = {}
            for name, row in self.rows.items():
                rows |= {name: row} if name not in old else plain
            for row in rows.values():
                if set(row["needs"]) & set(old):
                    row["needs"] = [*(need for need in row["needs"] if need not in old), *packs]
            self._replace_rows(rows)

    def _replace_rows(self, rows: dict[str, dict[str, Any]]) -> None:
        """Other rows, in their order, in the session's own dictionary."""
        self.rows.clear()
        self.rows.update(rows)


def new_row(job: Job) -> dict[str, Any]:
    """What a session says of a job that is not trained yet."""
    row = asdict(job)
    return row | {"symbols": list(job.symbols), "needs": list(job.needs), "state": "pending", "reason": ""}


def _job_of(row: dict[str, Any]) -> Job:
    values = {field.name: row[field.name] for field in fields(Job)}
    return Job(**values | {"symbols": tuple(row["symbols"]), "needs": tuple(row["needs"])})


def _packs(rows: dict[str, dict[str, Any]]) -> dict[tuple[str, int | None], dict[str, list[str]]]:
    """By family and fold: the symbols of each job, by its name."""
    packs: dict[tuple[str, int | None], dict[str, list[str]]] = {}
    for name, row in rows.items():
        packs.setdefault((row["family"], row["fold"]), {})[name] = row["symbols"]
    return packs


def _part_of(fold: int, of: int) -> int:
    """The number of the part that trains a fold."""
    return fold % of + 1


def _for_json(value: Any) -> Any:
    """A number for JSON; None for one that is not finite."""
    return None if isinstance(value, float) and not np.isfinite(value) else value
