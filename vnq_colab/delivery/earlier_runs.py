"""Earlier runs: what they evaluated on the same test days, what the last accepted one forecast, which of them can go.

A test day is fresh once: whoever tries ten configurations on the same days and keeps the best has made ten trials.
Other folders are not known.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.clock import utc_now
from vnq_colab.data.forecast import COLUMNS
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import to_day
from vnq_colab.delivery.bundle import read_manifest
from vnq_colab.errors import CheckpointError, ConfigError, SessionError, VnqError, name_a_few, tell
from vnq_colab.evaluation.metrics import with_outcomes
from vnq_colab.evaluation.order import daily_rank_correlations
from vnq_colab.evaluation.significance import hac_t, known
from vnq_colab.files import read_json, read_sealed, storage_error, write_sealed
from vnq_colab.layout import MANIFESTS, SESSION, SLOTS, Workspace
from vnq_colab.training.runs import RUN_ID, run_names, sessions
from vnq_colab.training.session import Session

FORMAT = 1  # of evaluations.json
LEAST_SHARE = 0.1  # of the days; fewer in common are hardly the same test
EVALUATIONS = "evaluations.json"  # in the folder of a run's reports
KEPT_REPORTS = ("report.html", "verdict.json", EVALUATIONS)  # of a run that goes: what a person comes back to
PREVIOUS = "previous"  # the family under which the old forecast is scored
WORSE_T = -2.0  # t of the difference in rank correlation, below which a new run is worse than the old one


def record_evaluation(session: Session, first: pd.Timestamp, last: pd.Timestamp) -> None:
    """Writes down in `reports/<run_id>/evaluations.json` that a run was judged on the days from `first` to `last`.

    The same days again are the same evaluation. A file that cannot be read begins anew, and that is said.
    """
    path, known = session.ws.report_folder(session.run_id) / EVALUATIONS, []
    days = {"first": f"{to_day(first):%Y-%m-%d}", "last": f"{to_day(last):%Y-%m-%d}"}
    try:
        known = _read(path)["evaluations"]
    except FileNotFoundError:
        pass
    except VnqError as error:
        tell(f"{error} It begins anew.")
    if not any(days.items() <= one.items() for one in known):
        write_sealed(path, {
            "format": FORMAT, "run_id": session.run_id, "config_id": session.config.config_id,
            "synthetic": session.synthetic, "profile": session.config.machine.profile,
            "evaluations": [*known, days | {"when": utc_now()}]})


def n_trials(session: Session, first: pd.Timestamp, last: pd.Timestamp) -> tuple[int, str]:
    """How many configurations were evaluated on a tenth or more of the days from `first` to `last`, and a sentence.

    The run's own configuration counts in any case. The same `config_id` on newer data, or in parts, is one trial; runs
    of profile `smoke` are none; made-up markets and real ones are counted apart. A file that is damaged, or gone while
    its report is there, is named unless its configuration is counted already.
    """
    wanted, covered, unread = pd.bdate_range(first, last), {session.config.config_id: True}, []
    for folder in sorted(session.ws.report_folder("").glob("*/")):
        try:
            value = _read(folder / EVALUATIONS) if RUN_ID.fullmatch(folder.name) else None
        except FileNotFoundError:
            if any(path.name in KEPT_REPORTS for path in folder.rglob("*")):
                unread.append(folder.name)
        except (VnqError, OSError):
            unread.append(folder.name)
        else:
            if value and value["synthetic"] == session.synthetic and value["profile"] != "smoke":
                for one in value["evaluations"]:
                    days = (wanted >= to_day(one["first"])) & (wanted <= to_day(one["last"]))
                    covered[value["config_id"]] = covered.get(value["config_id"], False) | days
    trials = [config for config, days in covered.items() if np.mean(days) >= LEAST_SHARE]
    unread = [run_id for run_id in unread if not any(f"_{config[:6]}" in run_id for config in trials)]
    n = len(trials)
    text = (f"{n} configurations were evaluated on these test days; every p-value of the gates is charged for {n}."
            if n > 1 else "Only this configuration was evaluated on these test days; no p-value is charged.")
    text += " Only the evaluations in this folder are known."
    if unread:
        text += (f" Not counted, because their {EVALUATIONS} is missing or cannot be read: {name_a_few(unread)}; "
                 "validate them again, or read the p-values with that in mind.")
    return n, text


def _read(path: Path) -> dict[str, Any]:
    """A file of evaluations. Raises CheckpointError where it is none."""
    value = read_sealed(path)
    try:
        days = [to_day(one[name]) for one in value["evaluations"] for name in ("first", "last")]
        if value["format"] > FORMAT or not days or not {"config_id", "profile", "synthetic"} <= set(value):
            raise KeyError("of another version")
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a file of evaluations ({error}).") from error
    return value


def against_previous(session: Session, forecast: pd.DataFrame, panel: Panel) -> dict[str, Any] | None:
    """The last accepted run before this one beside a new forecast, on the days and stocks that both forecast.

    None where there is no such run, else `run_id` of it, `first`, `last` and `n_days` of these days; `old_order` and
    `new_order`, mean daily rank correlations open to open of what the folds forecast, and `order_t` of new less old;
    `worse`, whether that lies below -2; and `text`. An old run that cannot be used is a `text` that says why, never an
    error.
    """
    try:
        manifest = _last_accepted(session)
        return None if manifest is None else _compare(session, forecast, panel, manifest)
    except Exception as error:  # whatever is wrong with an old bundle must not stop the judging of a new run
        why = str(error) if isinstance(error, (VnqError, OSError)) else f"{type(error).__name__}: {error}"
        return {"run_id": "", "worse": False, "text": f"Not compared with the last accepted run: {why}"}


def _last_accepted(session: Session) -> dict[str, Any] | None:
    """The manifest of the newest bundle before this run, of the same kind of market, with an accepted symbol."""
    for path in sorted(session.ws.models.glob("*/manifest.json"), reverse=True):
        if RUN_ID.fullmatch(path.parent.name) and path.parent.name < session.run_id.partition("-")[0]:
            manifest = read_manifest(path.parent)
            decisions = [row["decision"] for row in manifest["symbols"].values()]
            if manifest["synthetic"] == session.synthetic and "accept" in decisions:
                return manifest
    return None


def _compare(session: Session, forecast: pd.DataFrame, panel: Panel, manifest: dict[str, Any]) -> dict[str, Any]:
    """What `against_previous` gives where there is a run to compare with."""
    run_id, family, keys = manifest["run_id"], str(forecast["family"].iloc[0]), ["symbol", "date"]
    old = pd.read_parquet(session.ws.report_folder(run_id) / "forecast.parquet", columns=list(COLUMNS),
                          filters=[("family", "==", manifest["judged_family"])])
    old = old.assign(family=PREVIOUS).merge(forecast[keys])
    rows = with_outcomes(pd.concat([forecast[list(COLUMNS)].merge(old[keys]), old]), panel)
    daily = daily_rank_correlations(rows, "actual_open")[0].dropna()
    order_t = float(hac_t((daily[family] - daily[PREVIOUS]).to_numpy()))
    facts = {"run_id": run_id, "first": f"{daily.index[0]:%Y-%m-%d}", "last": f"{daily.index[-1]:%Y-%m-%d}",
             "n_days": len(daily), "old_order": float(daily[PREVIOUS].mean()), "new_order": float(daily[family].mean()),
             "order_t": order_t if np.isfinite(order_t) else None, "worse": order_t < WORSE_T}
    text = ("On {n_days} common days ({first} to {last}) the rank correlation is {new_order:.3f}, that of the last "
            "accepted run {run_id} {old_order:.3f}").format(**facts)
    return facts | {"text": f"{text}{known(' (t of the difference {:.1f})', order_t)}: " + (
        "worse, so look before the old bundle is replaced." if facts["worse"] else "not worse.")}


@dataclass(frozen=True, repr=False)
class Tidying:
    """What can go, and whether it went."""

    files: tuple[tuple[Path, int, str], ...]  # path, bytes, why
    deleted: bool
    root: Path

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self.files)

    def __repr__(self) -> str:
        if not self.files:
            return f"{self.root}: nothing to tidy."
        rows = pd.DataFrame([(path.parent, why, size) for path, size, why in self.files])
        what = ("deleted. Drive keeps deleted files in its trash for 30 days; they are empty there." if self.deleted
                else "can go; tidy(ws, delete=True), or tidy --delete, removes it.")
        return "\n".join([f"{self.bytes / 1e6:,.1f} MB {what}"] + [
            f"  {sizes.sum() / 1e6:9,.1f} MB  {len(sizes):4} files  {folder}: {why}"
            for (folder, why), sizes in rows.groupby([0, 1], sort=False)[2]])


def tidy(ws: Workspace, *, keep: int = 2, delete: bool = False) -> Tidying:
    """Finds, and with `delete` removes, what nothing needs any more; on Drive and on this machine's own disk.

    The newest `keep` finished runs, every unfinished one and the current bundle stay. Of finished runs the checkpoints
    of jobs in flight go; of the older ones all but `report.html` and `verdict.json`; and prepared sets that no run and
    no bundle needs. A file is emptied before it is deleted, since Drive counts what lies in its trash.
    """
    if keep < 1:
        raise ConfigError(f"keep = {keep}: at least the newest run stays.")
    everyone = sessions(ws)
    if unreadable := sorted(set(run_names(ws)) - {session.run_id for session in everyone}):
        raise SessionError(f"{ws.checkpoints / unreadable[0]}: cannot be read, so nobody knows what it needs. Repair "
                           "it, or move it away, and tidy again.")
    in_use = _current(ws.models / "current.json", "run_id")
    kept = _kept(everyone, keep)
    data = {session.data_id for session in everyone if session.run_id in kept | {in_use}}
    data.add(_current(ws.prepared / "current.json", "data_id"))
    files: list[tuple[Path, str]] = []
    for home in ws.homes:
        for session in everyone:
            run_id, folder = session.run_id, home.checkpoint_folder(session.run_id)
            if run_id not in kept:
                older = [*_files_in(folder), *_files_in(home.log_folder(run_id)), *(
                    path for path in _files_in(home.report_folder(run_id)) if path.name not in KEPT_REPORTS)]
                files += [(path, "of an older run") for path in older]
                if run_id != in_use:
                    files += [(path, "not the current bundle") for path in _files_in(home.model_folder(run_id))]
            elif session.status == "finished":
                files += [(folder / name, "its run is finished") for name in (*SLOTS, *MANIFESTS)
                          if (folder / name).exists()]
        files += [(path, "a prepared set that no run needs") for folder in home.prepared.glob("*/")
                  if folder.name not in data for path in _files_in(folder)]
    files.sort(key=lambda file: file[0].name == SESSION)  # last: a folder that is half gone still says whose it was
    sized = tuple((path, path.stat().st_size, why) for path, why in files)
    for path, _ in files if delete else []:
        _remove(path)
    return Tidying(sized, delete, ws.root)


def _kept(everyone: list[Session], keep: int) -> set[str]:
    """The names of all unfinished runs and of the newest `keep` finished ones; a run and its parts go together."""
    groups: dict[tuple[str, str], list[Session]] = {}
    for session in everyone:  # oldest first
        key = session.config.config_id, session.data_id
        groups[key] = [*groups.pop(key, []), session]
    finished = [key for key, group in groups.items() if all(one.status == "finished" for one in group)]
    return {one.run_id for key, group in groups.items() if key not in finished[:-keep] for one in group}


def _current(path: Path, name: str) -> str | None:
    """What a current.json names; None where there is none. Raises when it cannot be read: it may name anything."""
    try:
        return read_json(path)[name]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise SessionError(f"{path}: does not say which {name} is current. Repair it, and tidy again.") from error


def _files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _remove(path: Path) -> None:
    """Empties a file, deletes it, and the folders that this leaves empty."""
    try:
        with open(path, "r+b") as file:
            file.truncate(0)
        path.unlink()
        for folder in list(path.parents)[:3]:
            if not any(folder.iterdir()):
                folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error
