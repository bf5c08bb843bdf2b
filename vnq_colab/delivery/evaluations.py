"""Test-set evaluations: which configurations were judged on which test days, so that p-values can be charged for them.

A test day is fresh once. Whoever tries ten configurations on the same days and keeps the best has made ten trials.
Each run has a file of its own, so that no two machines write the same one; other folders are not known.
"""

from typing import Any

import numpy as np

from vnq_colab.clock import utc_now
from vnq_colab.data.splits import to_day
from vnq_colab.errors import CheckpointError, VnqError, name_a_few
from vnq_colab.files import read_sealed, storage_error, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.notebook import tell
from vnq_colab.training.runs import RUN_ID
from vnq_colab.training.session import Session

FORMAT = 1  # of evaluations.json
LEAST_SHARE = 0.1  # of the days; fewer in common are hardly the same test
EVALUATIONS = "evaluations.json"  # in the folder of a run's reports; `tidy` leaves it there


def record_evaluation(ws: Workspace, session: Session, first: str, last: str) -> None:
    """Writes down in `reports/<run_id>/evaluations.json` that a run was judged on the days from `first` to `last`.

    Days are written as "2026-11-20". The same days again are the same evaluation. A file that cannot be read begins
    anew, and that is said: what it held is lost.
    """
    path = ws.report_folder(session.run_id) / EVALUATIONS
    first, last = (f"{to_day(day):%Y-%m-%d}" for day in (first, last))
    try:
        known = _checked(read_sealed(path), path)["evaluations"]
    except FileNotFoundError:
        known = []
    except VnqError as error:
        tell(f"{error} It begins anew.")
        known = []
    if any((one["first"], one["last"]) == (first, last) for one in known):
        return
    write_sealed(path, {
        "format": FORMAT, "run_id": session.run_id, "config_id": session.config.config_id,
        "synthetic": session.synthetic, "profile": session.config.machine.profile,
        "evaluations": [*known, {"first": first, "last": last, "when": utc_now()}],
    })


def n_trials(ws: Workspace, session: Session, first: str, last: str) -> tuple[int, str]:
    """How many configurations were evaluated on a tenth or more of the days from `first` to `last`, and a sentence.

    The run's own configuration counts whether it was evaluated already or not. A configuration is what `config_id`
    hashes: the same one trained again on newer data, or in parts, is one trial. Runs of profile `smoke` are none.
    Made-up markets and real ones are counted apart. A file that is damaged, or gone while its report is there, is not
    counted and is named, unless the name of its run shows that its configuration is counted already.
    """
    wanted, unknown = _weekdays(first, last), []
    seen: dict[str, list[np.ndarray]] = {}
    for folder in _report_folders(ws):
        try:
            value = _checked(read_sealed(folder / EVALUATIONS), folder / EVALUATIONS)
            days = [_weekdays(one["first"], one["last"]) for one in value["evaluations"]]
        except FileNotFoundError:
            if any(path.name in ("verdict.json", "report.html") for path in folder.rglob("*")):
                unknown.append(folder.name)
        except (VnqError, OSError):
            unknown.append(folder.name)
        else:
            if value["synthetic"] == session.synthetic and value["profile"] != "smoke":
                seen.setdefault(value["config_id"], []).extend(days)
    trials = {trial for trial, days in seen.items()
              if days and len(wanted) and np.isin(wanted, np.concatenate(days)).mean() >= LEAST_SHARE}
    trials.add(session.config.config_id)
    names = {config_id[:6] for config_id in trials}
    unknown = [run_id for run_id in unknown if run_id.partition("-")[0].rpartition("_")[2] not in names]
    n = len(trials)
    text = (f"{n} configurations were evaluated on these test days; every p-value of the gates is charged for {n}."
            if n > 1 else "Only this configuration was evaluated on these test days; no p-value is charged.")
    text += " Only the evaluations in this folder are known."
    if unknown:
        text += (f" Not counted, because their {EVALUATIONS} is missing or cannot be read: {name_a_few(unknown)}; "
                 "validate them again, or read the p-values with that in mind.")
    return n, text


def _report_folders(ws: Workspace) -> list:
    """The folders of all reports, oldest run first. Raises StorageError when Drive does not answer."""
    reports = ws.report_folder("")
    try:
        return sorted(folder for folder in reports.iterdir() if RUN_ID.fullmatch(folder.name) and folder.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error(reports, error) from error


def _checked(value: dict[str, Any], path: Any) -> dict[str, Any]:
    """The file, when it is one. Raises CheckpointError otherwise, and for one of a newer version."""
    try:
        if value["format"] > FORMAT:
            raise CheckpointError(f"{path}: written by a newer version of the library. Update vnq_colab.")
        for one in value["evaluations"]:
            _weekdays(one["first"], one["last"])
        if not isinstance(value["config_id"], str) or not isinstance(value["profile"], str):
            raise TypeError("config_id, profile")
        return {**value, "synthetic": bool(value["synthetic"])}
    except (KeyError, TypeError, VnqError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a file of evaluations ({error}).") from error


def _weekdays(first: str, last: str) -> np.ndarray:
    """The days from `first` to `last`, both included, without weekends: near enough to trading days to weigh spans."""
    begin, end = (to_day(day).to_numpy().astype("datetime64[D]") for day in (first, last))
    days = np.arange(begin, end + 1)
    return days[np.is_busday(days)]
