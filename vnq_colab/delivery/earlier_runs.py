"""Earlier runs on the same test days: how many configurations were tried, and what the last accepted run forecast.

A test day is fresh once: whoever tries ten configurations on the same days and keeps the best has made ten trials.
Other folders are not known.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.clock import utc_now
from vnq_colab.data.panel import Panel
from vnq_colab.data.task import COLUMNS, to_day
from vnq_colab.delivery.bundle import read_manifest
from vnq_colab.errors import CheckpointError, VnqError, name_a_few, tell
from vnq_colab.evaluation.metrics import with_outcomes
from vnq_colab.evaluation.order import daily_rank_correlations
from vnq_colab.evaluation.significance import hac_t
from vnq_colab.files import read_sealed, storage_error, write_sealed
from vnq_colab.training.runs import RUN_ID
from vnq_colab.training.session import Session

FORMAT = 1  # of evaluations.json
LEAST_SHARE = 0.1  # of the days; fewer in common are hardly the same test
EVALUATIONS = "evaluations.json"  # in the folder of a run's reports; `tidy` leaves it there
PREVIOUS = "previous"  # the family under which the old forecast is scored
WORSE_T = -2.0  # t of the difference in rank correlation, below which a new run is worse than the old one


def record_evaluation(session: Session, first: pd.Timestamp, last: pd.Timestamp) -> None:
    """Writes down in `reports/<run_id>/evaluations.json` that a run was judged on the days from `first` to `last`.

    The same days again are the same evaluation. A file that cannot be read begins anew, and that is said.
    """
    path, known = session.ws.report_folder(session.run_id) / EVALUATIONS, []
    days = {name: f"{to_day(day):%Y-%m-%d}" for name, day in (("first", first), ("last", last))}
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

    The run's own configuration counts in any case. The same `config_id` trained again on newer data, or in parts, is
    one trial; runs of profile `smoke` are none; made-up markets and real ones are counted apart. A file that is
    damaged, or gone while its report is there, is not counted and is named, unless the name of its run shows that its
    configuration is counted already.
    """
    wanted, seen, unread = pd.bdate_range(first, last), {}, []
    for folder in _report_folders(session.ws.report_folder("")):
        try:
            value = _read(folder / EVALUATIONS)
        except FileNotFoundError:
            if any(path.name in ("verdict.json", "report.html") for path in folder.rglob("*")):
                unread.append(folder.name)
        except (VnqError, OSError):
            unread.append(folder.name)
        else:
            if value["synthetic"] == session.synthetic and value["profile"] != "smoke":
                covered = [(wanted >= to_day(one["first"])) & (wanted <= to_day(one["last"]))
                           for one in value["evaluations"]]
                seen.setdefault(value["config_id"], []).extend(covered)
    trials = {config for config, covered in seen.items() if np.logical_or.reduce(covered).mean() >= LEAST_SHARE}
    trials.add(session.config.config_id)
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


def _report_folders(reports: Path) -> list[Path]:
    """The folders of all reports, oldest run first. Raises StorageError when Drive does not answer."""
    try:
        return sorted(folder for folder in reports.iterdir() if RUN_ID.fullmatch(folder.name) and folder.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error(reports, error) from error


def against_previous(session: Session, forecast: pd.DataFrame, panel: Panel) -> dict[str, Any] | None:
    """The last accepted run before this one beside a new forecast, on the days and stocks that both forecast.

    None where there is no such run, else `run_id` of it, `first`, `last` and `n_days` of these days; `old_order` and
    `new_order`, mean daily rank correlations open to open, and `order_t` of new less old; `worse`, whether that lies
    below -2: then the old bundle is worth keeping, as a whole; and `text`. Both are what the folds forecast: a final
    fit has seen these days. An old run that cannot be used is a `text` that says why, never an error.
    """
    none = {"run_id": "", "worse": False}
    try:
        manifest = _last_accepted(session)
        return None if manifest is None else none | _compare(session, forecast, panel, manifest)
    except Exception as error:  # whatever is wrong with an old bundle must not stop the judging of a new run
        why = str(error) if isinstance(error, (VnqError, OSError)) else f"{type(error).__name__}: {error}"
        return none | {"text": f"Not compared with the last accepted run: {why}"}


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
    daily = daily_rank_correlations(rows, "actual_open").dropna()
    order_t = float(hac_t((daily[family] - daily[PREVIOUS]).to_numpy()))
    facts = {"run_id": run_id, "first": f"{daily.index[0]:%Y-%m-%d}", "last": f"{daily.index[-1]:%Y-%m-%d}",
             "n_days": len(daily), "old_order": float(daily[PREVIOUS].mean()), "new_order": float(daily[family].mean()),
             "order_t": order_t if np.isfinite(order_t) else None, "worse": order_t < WORSE_T}
    text = ("On {n_days} common days ({first} to {last}) the rank correlation is {new_order:.3f}, that of the last "
            "accepted run {run_id} {old_order:.3f}").format(**facts)
    return facts | {"text": f"{text} (t of the difference {order_t:.1f}): " + (
        "worse, so look before the old bundle is replaced." if facts["worse"] else "not worse.")}
