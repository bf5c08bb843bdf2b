"""Earlier runs: what they evaluated on the same test days, and what the last accepted one forecast.

A test day is fresh once: whoever tries ten configurations on the same days and keeps the best has made ten trials.
Other folders are not known.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
import pandas as pd

from vnq_colab.clock import utc_now
from vnq_colab.data.forecast import COLUMNS
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import load_panel
from vnq_colab.data.splits import to_day
from vnq_colab.delivery.bundle import read_manifest
from vnq_colab.delivery.champion import BUNDLE, age
from vnq_colab.errors import DataError, VnqError, name_a_few, tell
from vnq_colab.evaluation.metrics import with_outcomes
from vnq_colab.evaluation.order import daily_rank_correlations
from vnq_colab.evaluation.page import judged_forecast
from vnq_colab.evaluation.significance import hac_t, known
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.recipes import RECIPE, FoundBy, read_recipe
from vnq_colab.settings import Rule, record
from vnq_colab.training.session import RUN_ID, Session

FORMAT = 1  # of evaluations.json
LEAST_SHARE = 0.1  # of the days; fewer in common are hardly the same test
EVALUATIONS = "evaluations.json"  # in the folder of a run's reports
KEPT_REPORTS = ("report.html", "verdict.json", EVALUATIONS)  # what tidying leaves of a run: a person comes back to it
OTHER, PREVIOUS = "previous", "the last accepted run"  # the family under which the old forecast is scored; whose
WORSE_T = -2.0  # t of the difference in rank correlation, below which a new run is worse than the old one

Day = Annotated[str, Rule("must be a day", to_day)]
Evaluations = record(  # evaluations.json
    "Evaluations", run_id=str, config_id=str, synthetic=bool, profile=str,
    search=NotRequired[str], trials=NotRequired[int],  # that its recipe comes from, and how many that made
    format=Annotated[int, Rule("is of a newer version", lambda number: number <= FORMAT)],
    evaluations=Annotated[list[record("Evaluation", first=Day, last=Day, when=str)], Rule("must not be empty", bool)])


def record_evaluation(session: Session, first: pd.Timestamp, last: pd.Timestamp) -> None:
    """Writes down in `reports/<run_id>/evaluations.json` that a run was judged on the days from `first` to `last`.

    The same days again are the same evaluation. A file that cannot be read begins anew, and that is said.
    """
    path, known = session.ws.report_folder(session.run_id) / EVALUATIONS, []
    days = {"first": f"{to_day(first):%Y-%m-%d}", "last": f"{to_day(last):%Y-%m-%d}"}
    try:
        known = read_sealed(path, Evaluations)["evaluations"]
    except FileNotFoundError:
        pass
    except VnqError as error:
        tell(f"{error} It begins anew.")
    if not any(days.items() <= one.items() for one in known):
        write_sealed(path, {
            "format": FORMAT, "run_id": session.run_id, "config_id": session.config.config_id,
            "synthetic": session.synthetic, "profile": session.config.machine.profile,
            "search": found_by(session).search, "trials": found_by(session).trials,
            "evaluations": [*known, days | {"when": utc_now()}]})


def found_by(session: Session) -> FoundBy:
    """The search that a run's settings come from: its recipe's, or the largest here that found the same settings."""
    flat, found = session.config.flat(), session.config.found_by
    for path in sorted(session.ws.searches.glob(f"*/{RECIPE}")):
        with contextlib.suppress(VnqError):
            _, settings, other = read_recipe(path)
            if other.trials > found.trials and all(flat.get(name) == value for name, value in settings.items()):
                found = other
    return found


def n_trials(session: Session, first: pd.Timestamp, last: pd.Timestamp) -> tuple[int, str]:
    """How many configurations were evaluated on a tenth or more of the days from `first` to `last`, and a sentence.

    The run's own configuration counts in any case. The same `config_id` on newer data, or in parts, is one trial; runs
    of profile `smoke` are none; made-up markets and real ones are counted apart. A configuration that a search found
    counts for all trials of that search. A file that is damaged, or gone while its report is there, is named unless its
    configuration is counted already.
    """
    wanted, covered, unread = pd.bdate_range(first, last), {session.config.config_id: True}, []
    found = found_by(session)
    searches = {(session.config.config_id, found.search): found.trials}
    for folder in sorted(session.ws.report_folder("").glob("*/")):
        try:
            value = read_sealed(folder / EVALUATIONS, Evaluations) if RUN_ID.fullmatch(folder.name) else None
        except FileNotFoundError:
            if any(path.name in KEPT_REPORTS for path in folder.rglob("*")):
                unread.append(folder.name)
        except (VnqError, OSError):
            unread.append(folder.name)
        else:
            if value and value["run_id"] != folder.name:  # another run's
                unread.append(folder.name)
            elif value and value["synthetic"] == session.synthetic and value["profile"] != "smoke":
                for one in value["evaluations"]:
                    days = (wanted >= to_day(one["first"])) & (wanted <= to_day(one["last"]))
                    covered[value["config_id"]] = covered.get(value["config_id"], False) | days
                searches[value["config_id"], value.get("search", "")] = value.get("trials", 0)
    trials = [config for config, days in covered.items() if np.mean(days) >= LEAST_SHARE]
    unread = [run_id for run_id in unread if not any(f"_{config[:6]}" in run_id for config in trials)]
    found_here = {pair: n for pair, n in searches.items() if pair[1] and pair[0] in trials}
    counts = {search: max(n for pair, n in found_here.items() if pair[1] == search) for _, search in found_here}
    n = len(trials) + sum(counts.values()) - len({config for config, _ in found_here})  # they are trials themselves
    text = (f"{n} configurations were evaluated on these test days; every p-value of the gates is charged for {n}."
            if n > 1 else "Only this configuration was evaluated on these test days; no p-value is charged.")
    if counts and n > 1:
        text += f" Among them are the trials of {', '.join(counts)}, on validation days."
    if found.search:
        seen = np.mean(wanted <= to_day(found.seen_to))
        text += (f" The recipe was chosen on validation days up to {found.seen_to}, which are {seen:.0%} of these test "
                 "days: only the others are fresh.")
    text += " Only the evaluations in this folder are known."
    if unread:
        text += (f" Not counted, because their {EVALUATIONS} is missing or cannot be read: {name_a_few(unread)}; "
                 "validate them again, or read the p-values with that in mind.")
    return n, text


def against_previous(session: Session, forecast: pd.DataFrame, panel: Panel) -> dict[str, Any] | None:
    """The last accepted run before this one beside a new forecast, on the days and stocks that both forecast.

    None where there is no such run, else `run_id` of it, `first`, `last` and `n_days` of these days; `old_order` and
    `new_order`, mean daily rank correlations open to open of what the folds forecast, and `order_t` of new less old;
    `worse`, whether that lies below -2; and `text`. An old run that cannot be used is a `text` that says why, with a
    `worse` of None, never an error.
    """
    return _or_why_not(PREVIOUS, lambda: (manifest := _last_accepted(session)) and _compare(
        session.ws, forecast, panel, manifest, PREVIOUS))


def against_champion(ws: Workspace, manifest: dict[str, Any], champion: Path) -> dict[str, Any]:
    """A bundle beside the champion, as in `against_previous`, by its run's stored forecasts and prepared data.

    `worse` is None where they cannot be compared, False where nobody could forecast by this champion.
    """
    try:
        old = read_manifest(champion)
    except VnqError as error:
        return {"worse": False, "text": f"The champion cannot be used: {error}"}
    return _or_why_not("the champion", lambda: _compare(
        ws, _judged(ws, manifest), load_panel(ws, manifest["data_id"]), old, "the champion"))


def _or_why_not(whom: str, compare: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    try:
        return compare()
    except Exception as error:  # whatever is wrong with an old bundle must not stop the judging of a new run
        why = str(error) if isinstance(error, (VnqError, OSError)) else f"{type(error).__name__}: {error}"
        return {"run_id": "", "worse": None, "text": f"Not compared with {whom}: {why.rstrip('.')}."}


def _last_accepted(session: Session) -> dict[str, Any] | None:
    """The manifest of the newest bundle before this run, of the same kind of market, with an accepted symbol."""
    folders = [path.parent for path in session.ws.models.glob("*/manifest.json") if BUNDLE.fullmatch(path.parent.name)]
    for folder in sorted(folders, key=lambda one: age(one.name), reverse=True):
        if folder.name < session.run_id.partition("-")[0]:
            manifest = read_manifest(folder)
            decisions = [row["decision"] for row in manifest["symbols"].values()]
            if manifest["synthetic"] == session.synthetic and "accept" in decisions:
                return manifest
    return None


def _judged(ws: Workspace, manifest: dict[str, Any]) -> pd.DataFrame:
    """What the folds of a bundle's run forecast of the judged days, by the family that was judged."""
    return judged_forecast(ws.report_folder(manifest["run_id"]), columns=list(COLUMNS),
                           filters=[("family", "==", manifest["judged_family"])])


def _compare(ws: Workspace, forecast: pd.DataFrame, panel: Panel, manifest: dict[str, Any],
             whom: str) -> dict[str, Any]:
    """What `against_previous` gives where there is a run to compare with."""
    run_id, family, keys = manifest["run_id"], str(forecast["family"].iloc[0]), ["symbol", "date"]
    old = _judged(ws, manifest).assign(family=OTHER).merge(forecast[keys])
    rows = with_outcomes(pd.concat([forecast[list(COLUMNS)].merge(old[keys]), old]), panel)
    daily = daily_rank_correlations(rows, "actual_open")[0].dropna()
    if daily.empty:
        raise DataError("on no day do both forecast the same five stocks.")
    order_t = float(hac_t((daily[family] - daily[OTHER]).to_numpy()))
    facts = {"run_id": run_id, "first": f"{daily.index[0]:%Y-%m-%d}", "last": f"{daily.index[-1]:%Y-%m-%d}",
             "n_days": len(daily), "old_order": float(daily[OTHER].mean()), "new_order": float(daily[family].mean()),
             "order_t": order_t if np.isfinite(order_t) else None, "worse": order_t < WORSE_T}
    text = ("On {n_days:,} common days ({first} to {last}) the rank correlation is {new_order:.3f}, that of "
            "{whom} {run_id} {old_order:.3f}").format(whom=whom, **facts)
    return facts | {"text": f"{text}{known(' (t of the difference {:.1f})', order_t)}: " + (
        "worse, so look before the old bundle is replaced." if facts["worse"] else "not worse.")}
