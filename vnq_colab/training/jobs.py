"""The jobs of a run: which is next, what is known of a finished one, and what all of them forecast."""

import contextlib
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from vnq_colab.data.forecast import check_forecast, ensemble_scores
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import load_panel
from vnq_colab.data.splits import Splits, check_folds
from vnq_colab.errors import CheckpointError, DataError, SessionError
from vnq_colab.evaluation.calibration import calibrated
from vnq_colab.evaluation.reasons import WHY, Explanation, points_of, reasons
from vnq_colab.models.base import Forecaster, Job, Trained, TrainingData
from vnq_colab.models.states import assembled
from vnq_colab.settings import build
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.session import Session, other_parts

RETRY_SHARE = 0.3  # of the learning rate, for the second try of a diverged symbol
ENDED = ("done", "failed")
PARTS = ("valid", "test")  # of a fold's days that its jobs forecast; a row's `part` is its place here
COLUMNS = ("score", "mean", "scale")  # of a forecast that a job's file keeps, as far as its family gives them


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
        if part := self.session.part:
            others = other_parts(self.session)  # anew each time: one may have begun after us
            self.store.read_from(other.run_id for other in others)
            for other in others:
                self._take_packs_of(other)
            while any([self.adopt(name) for name in self.session.unfinished_jobs()]):
                pass  # a finished job may have brought a second try of what diverged there, finished too
        for name in self.session.unfinished_jobs():
            row = self.rows[name]
            needs = {need: self.rows[need] for need in row["needs"]}
            starts = {need: other for need, other in needs.items()
                      if other["fold"] == row["fold"] and other["family"] != row["family"]}
            if failed := [need for need, other in starts.items() if other["state"] == "failed"]:
                row |= {"state": "failed", "reason": f"{failed[0]}, from which it begins, failed"}
                self._save()
                continue
            is_ours = part is None or row["fold"] is None or row["fold"] % part[1] + 1 == part[0]
            if is_ours and all(other["state"] in ENDED for other in needs.values()):
                return name
        return None

    # ------------------------------------------------------------------------------------------------ finished jobs
    def adopt_finished(self) -> None:
        """What an attempt that was killed had finished, and the session does not know."""
        for name in self.session.unfinished_jobs():
            self.adopt(name)
        curves = set(self.session.history["job"])
        for name, row in self.rows.items():
            if row["state"] in ENDED and name not in curves:
                with contextlib.suppress(CheckpointError):  # damaged: whoever needs it says so
                    self.session.add_history(name, load_job(self.session, self.store, name)["curves"])

    def adopt(self, name: str) -> bool:
        """Whether there is a whole file of a job that the session did not know as done; it is noted then."""
        with contextlib.suppress(CheckpointError):
            state = self.store.load_done(name, facts_of(self.session, name))
            self.note_finished(name, state)
            return True
        return False

    def note_finished(self, name: str, state: dict[str, Any]) -> None:
        """What the session says of a finished job; plans the second try of what diverged."""
        row, ledger, failed = self.rows[name], self.session.ledger, state["failed"]
        row |= {"state": "done" if state["sha256"] else "failed", "sha256": state["sha256"], "file": state["digest"],
                "reason": ""} | ({"effects": list(effects)} if (effects := state["budget"].get("effects")) else {})
        for symbol, values in state["rows"].items():
            ledger[symbol] |= {key: None if isinstance(value, float) and not np.isfinite(value) else value
                               for key, value in values.items()}
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
        job = job_of(self.rows[like])
        beside = [job_of(self.rows[name]) for name in _packs(self.rows)[job.family, job.fold]]
        new = replace(job, pack=max(other.pack for other in beside) + 1, symbols=symbols, **changes)
        if any(replace(other, pack=new.pack, needs=new.needs) == new for other in beside):
            return  # another part has planned it already
        rows = list(self.rows.items())
        rows.insert(list(self.rows).index(like) + 1, (new.name, new_row(new)))
        self.session.jobs = dict(rows)
        for row in self.rows.values():
            if like in row["needs"]:
                row["needs"] = [*row["needs"], new.name]

    def halve(self, name: str) -> str:
        """Leaves the first half of a pack where it is and makes the second a job of its own; both begin anew."""
        row, members = self.rows[name], self.session.config.n_members
        half = (len(row["symbols"]) + 1) // 2
        first, second = row["symbols"][:half], row["symbols"][half:]
        self._add_pack(name, tuple(second), learning_rate_share=row["learning_rate_share"])
        row |= {"symbols": first, "state": "pending"}
        self._save()
        return (f"{name} does not fit: {members * (len(first) + len(second))} networks; going on with "
                f"{members * len(first)} and {members * len(second)}")

    def _take_packs_of(self, other: Session) -> None:
        """The packs of the folds that another part trains, and of its finished final fit, as they are there."""
        number, of = other.part
        ours = _packs(self.rows)
        for (family, fold), packs in _packs(other.jobs).items():
            is_theirs = other.status == "finished" if fold is None else fold % of + 1 == number
            old = ours.get((family, fold), {})
            if not is_theirs or packs == old:
                continue
            plain, rows = {name: new_row(job_of(other.jobs[name])) for name in packs}, {}
            for name, row in self.rows.items():
                rows |= {name: row} if name not in old else plain
            for row in rows.values():
                if set(row["needs"]) & set(old):
                    row["needs"] = [*(need for need in row["needs"] if need not in old), *packs]
            self.session.jobs = rows


def facts_of(session: Session, name: str) -> dict[str, Any]:
    """What a checkpoint, or a finished file, must be of to be used for a job."""
    return {"job": name, "symbols": list(session.jobs[name]["symbols"]), "data_id": session.data_id,
            "config_id": session.config.config_id}


def load_job(session: Session, store: CheckpointStore, name: str) -> dict[str, Any]:
    """A finished job as its session knows it. Raises CheckpointError where its file is damaged, or of another."""
    return store.load_done(name, facts_of(session, name), session.jobs[name].get("file"))


def new_row(job: Job) -> dict[str, Any]:
    """What a session says of a job that is not trained yet."""
    row = asdict(job)
    return row | {"symbols": list(job.symbols), "needs": list(job.needs), "state": "pending", "reason": ""}


def job_of(row: dict[str, Any]) -> Job:
    """A job as its family planned it, from its row in a session."""
    values = {field.name: row[field.name] for field in fields(Job)}
    return Job(**values | {"symbols": tuple(row["symbols"]), "needs": tuple(row["needs"])})


def _packs(rows: dict[str, dict[str, Any]]) -> dict[tuple[str, int | None], dict[str, list[str]]]:
    """By family and fold: the symbols of each job, by its name."""
    packs: dict[tuple[str, int | None], dict[str, list[str]]] = {}
    for name, row in rows.items():
        packs.setdefault((row["family"], row["fold"]), {})[name] = row["symbols"]
    return packs


# ------------------------------------------------------------------------------------------------- what they forecast
def forecast_of_fold(trained: Trained, data: TrainingData, splits: Splits) -> dict[str, torch.Tensor]:
    """The rows of a fold's validation and test days: places of symbol and day in the panel, part, and numbers.

    Of a trial those of the validation days alone.
    """
    panel, test = data.panel, splits.test.mask(data.panel.days)
    parts = [(trained.valid_forecaster or trained.forecaster, data.valid), (trained.forecaster, test)]
    parts = parts[:1] if data.is_trial else parts
    table = pd.concat([forecaster.predict(panel, days) for forecaster, days in parts], ignore_index=True)
    day = panel.days.get_indexer(table["date"])
    columns = {name: table[name].to_numpy("float32", copy=True) for name in COLUMNS if name in table}
    columns |= {"symbol": pd.Index(panel.symbols).get_indexer(table["symbol"]).astype("int16"),
                "day": day.astype("int32"), "part": test[day].astype("uint8")}
    return {name: torch.from_numpy(values) for name, values in columns.items()}


def explain_fold(forecaster: Forecaster, panel: Panel, splits: Splits) -> dict[str, Any] | None:
    """The `reasons` of the last test day, and importances, of every tenth one; None: the family cannot tell."""
    test = np.flatnonzero(splits.test.mask(panel.days))
    last, often = (forecaster.explain(panel, np.isin(np.arange(len(panel.days)), days), quick=quick)
                   for days, quick in ((test[-1:], False), (test[::-10], True)))
    return None if last is None or last.empty else {
        "day": f"{panel.days[test[-1]]:%Y-%m-%d}", "importance": points_of(often).abs().mean().to_dict(),
        "stocks": reasons(last, panel, forecaster.family).reset_index().to_dict("records")}


def open_store(session: Session) -> CheckpointStore:
    """Where the finished jobs of a session lie. Raises SessionError while one is missing."""
    store = CheckpointStore.of(session)
    if session.is_rebuilt and session.unfinished_jobs():
        JobList(session, store, lambda: None).adopt_finished()
        session.finish_ledger()
    if missing := session.unfinished_jobs():
        raise SessionError(f"run {session.run_id} is {session.state}: {len(missing)} of {len(session.jobs)} jobs are "
                           "not trained yet. Go on with resume first.")
    return store


def session_folds(session: Session, panel: Panel) -> list[Splits]:
    """Its folds. Raises SessionError unless they follow one another, purged in trading days of its panel."""
    try:
        folds = [build(Splits, fold) for fold in session.folds]
        check_folds(folds, panel.days, purge_days=session.config.task.purge_days)
    except DataError as error:
        raise SessionError(f"run {session.run_id}: {str(error).partition(' Run prepare')[0]} Its session was changed: "
                           "restore it, or start a new run.") from error
    return folds


def fold_scores(session: Session, panel: Panel) -> pd.DataFrame:
    """Every family's scores, for `rank` the ensemble's too, on validation and test days: `fold, part`, SCORES."""
    store, tables, folds = open_store(session), [], session_folds(session, panel)
    for name, row in session.jobs.items():
        if row["fold"] is None or row["state"] == "failed":
            continue
        table = _checked_rows(store.done_path(name), load_job(session, store, name), panel, folds[row["fold"]])
        tables.append(pd.DataFrame({
            "family": row["family"], "fold": row["fold"],
            "symbol": pd.Categorical.from_codes(table.pop("symbol"), list(panel.symbols)),
            "date": panel.days[table.pop("day")], "part": pd.Categorical.from_codes(table.pop("part"), list(PARTS)),
            **{column: values.astype("float64") for column, values in table.items()}}))
    scores = pd.concat(tables, ignore_index=True)
    scores = scores[scores["family"].isin(session.config.families)]  # a global network may be there as a start alone
    if session.config.task.target == "rank":
        families = [family for family in session.config.ensemble_families if family in set(scores["family"].unique())]
        scores = pd.concat([scores, ensemble_scores(scores, families)], ignore_index=True)
    return scores


def _checked_rows(path: Path, state: dict[str, Any], panel: Panel, fold: Splits) -> pd.DataFrame:
    """A job's forecast. Raises CheckpointError unless each row is of a stock and a day of its fold."""
    inside = np.stack([days.mask(panel.days) for days in (fold.valid, fold.test)])  # in the order of PARTS
    try:
        table = pd.DataFrame({column: values.numpy() for column, values in state["forecast"].items()})
        part, day, symbol = places = [table[column].to_numpy() for column in ("part", "day", "symbol")]
        if inside[part, day].all() and np.min(places) >= 0 and symbol.max() < len(panel.symbols):
            return table
    except (KeyError, TypeError, ValueError, IndexError):  # no numbers, columns of other lengths, places beyond
        pass
    raise CheckpointError(f"{path}: its forecast is not of its fold. Delete it, and resume trains this job again.")


def forecast(session: Session, *, panel: Panel | None = None) -> pd.DataFrame:
    """The out-of-sample Forecast of every family and the ensemble, over the test days of all folds.

    `edge`, `mean`, `scale` and `p_up` are fitted on each fold's validation days; `low` and `high` [log return] bound
    the interval that held nine of ten of their outcomes. `panel` spares reading it again.
    """
    panel = load_panel(session.ws, session.data_id) if panel is None else panel
    return check_forecast(calibrated(fold_scores(session, panel), panel, session.config.task.horizon))


def explanation(session: Session, day: pd.Timestamp) -> Explanation | None:
    """What the folds say of a day; None: no family of the ensemble can tell, or an earlier version trained it."""
    store = open_store(session)
    for family in session.config.ensemble_families:
        folds = [one for name, row in session.jobs.items() if (row["family"], row["state"]) == (family, "done")
                 and (one := load_job(session, store, name).get("explanation"))]
        if folds:
            stocks = [row for one in folds if one["day"] == f"{day:%Y-%m-%d}" for row in one["stocks"]]
            table = pd.DataFrame([one["importance"] for one in folds]).fillna(0.0).agg(["mean", "min", "max"]).T
            return Explanation(family, pd.DataFrame(stocks, columns=["symbol", *WHY]).set_index("symbol"),
                               table.sort_values("mean", ascending=False))
    return None


def final_forecasters(session: Session) -> dict[str, Forecaster]:
    """The forecaster of the final fit of every family, whole where it was trained in packs."""
    store, parts = open_store(session), {}
    for name, row in session.jobs.items():
        if row["fold"] is None and row["state"] == "done" and row["family"] in session.config.families:
            parts.setdefault(row["family"], {})[store.done_path(name)] = load_job(session, store, name)["weights"]
    if lost := sorted({*session.config.ensemble_families} - parts.keys()):
        raise SessionError(f"run {session.run_id} has no final fit of {', '.join(lost)}: every symbol failed, status "
                           "says why. Train with other settings, or without it (--families).")
    return {family: assembled(family, states, session.config.task, session.config.model)
            for family, states in parts.items()}
