"""Old against new: the last accepted bundle beside a new run, on days that neither was trained on.

An exported bundle was as a rule refitted to all days there were, so that its own weights have seen the days which the
new run is judged on. What is compared are the networks that the old run was judged by.
"""

from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import Prepared
from vnq_colab.data.splits import Splits, to_day
from vnq_colab.delivery.bundle import load_bundle
from vnq_colab.errors import DataError, SessionError, VnqError, name_a_few
from vnq_colab.evaluation.metrics import score, with_outcomes
from vnq_colab.evaluation.questions import MIN_WINDOWS
from vnq_colab.files import read_json, read_sealed
from vnq_colab.models.base import Forecaster
from vnq_colab.training.forecasting import load_forecaster
from vnq_colab.training.runs import RUN_ID
from vnq_colab.training.session import Session

MOST_FALL = 0.10  # [fraction of the old accuracy] a new model may lose before the old one stays; the seeds' number
OLD = "previous"  # the family under which the old networks' forecast is scored


def against_previous(session: Session, forecast: pd.DataFrame, prepared: Prepared) -> dict[str, Any] | None:
    """The last accepted bundle of an earlier run on the days of a new forecast; None where there is no such bundle.

    Compared is the share of right 5-day directions on the same days, for each symbol that has at least 30 independent
    windows of them. The old run's judged networks answer from its own first test day on; where its checkpoints are
    gone, the bundle answers from `horizon` days after the last day that it knows. A symbol that an older bundle gave to
    this one is compared with the run that it came from. Gives plain values: `run_id` of the bundle, `first`, `last` and
    `n_days` of the common days, `symbols` {symbol: {old_accuracy, new_accuracy, old_decision}}, `kept` (the symbols
    accepted in the old bundle whose accuracy falls by more than 10 % of what it was: there the old model stays), and
    `text` for people. An old bundle that cannot be used is a `text` that says why, never an error.
    """
    found = {"run_id": "", "first": None, "last": None, "n_days": 0, "kept": [], "text": "", "symbols": {}}
    try:
        last, trouble = _last_accepted(session)
        if last is None:
            return found | {"text": f"Not compared with an earlier bundle: {trouble[0]}"} if trouble else None
        found |= {"run_id": last["run_id"]}
        return found | _compared(session, forecast, prepared.panel, last, trouble)
    except Exception as error:  # whatever is wrong with an old bundle must not stop the judging of a new run
        why = str(error) if isinstance(error, VnqError) else f"{type(error).__name__}: {error}"
        return found | {"text": f"Not compared with the bundle {found['run_id'] or 'before'}: {why}"}


def _last_accepted(session: Session) -> tuple[dict[str, Any] | None, list[str]]:
    """The manifest of the newest bundle before this run with an accepted symbol, the current one first; and trouble."""
    models, this, trouble = session.ws.models, session.run_id.partition("-")[0], []
    names = sorted((path.name for path in models.iterdir()), reverse=True) if models.is_dir() else []
    try:
        names.insert(0, read_json(models / "current.json")["run_id"])
    except (VnqError, OSError, KeyError, TypeError):  # then the folders say enough
        pass
    for name in dict.fromkeys(name for name in names if RUN_ID.fullmatch(name) and name < this):
        path = models / name / "manifest.json"
        try:
            manifest = read_sealed(path)
            accepted = any(_stands(row) for row in manifest["symbols"].values())
            if accepted and manifest["synthetic"] == session.synthetic and manifest["run_id"] == name:
                return manifest, trouble
        except FileNotFoundError:  # the folder of a bundle that was tidied away
            continue
        except (VnqError, OSError) as error:
            trouble.append(str(error))
        except (KeyError, TypeError, AttributeError) as error:
            trouble.append(f"{path}: not a manifest of this library ({error}).")
    return None, trouble


def _compared(session: Session, forecast: pd.DataFrame, panel: Panel, manifest: dict[str, Any],
              notes: list[str]) -> dict[str, Any]:
    """All of the answer but the bundle's name."""
    mine = forecast[forecast["family"] == session.family]
    rows, new = manifest["symbols"], set(mine["symbol"])
    gone = [symbol for symbol, row in rows.items() if _stands(row) and symbol not in new]
    notes = [*notes, *([f"not forecast by the new run: {name_a_few(gone)}"] if gone else [])]
    came_from: dict[str, list[str]] = {}
    for symbol in sorted(set(rows) & new & set(panel.symbols)):
        came_from.setdefault(rows[symbol].get("kept_from", manifest["run_id"]), []).append(symbol)
    tables = []
    for run_id, symbols in came_from.items():
        try:
            tables.append(_old_forecast(session, run_id, manifest, symbols, mine, panel, notes))
        except VnqError as error:
            notes.append(f"{name_a_few(symbols)}: {error}")
    if not tables:
        return {"text": _text(manifest["run_id"], {}, [], {}, notes)}
    old = pd.concat(tables, ignore_index=True)
    both = pd.concat([mine[mine["symbol"].isin(set(old["symbol"]))], old.assign(family=OLD)], ignore_index=True)
    try:
        scores = score(both, panel).pivot(index="symbol", columns="family", values=["accuracy", "n_independent"])
    except DataError:  # no day in common
        return {"text": _text(manifest["run_id"], {}, [], {}, notes)}
    enough = scores["n_independent"].min(axis=1) >= MIN_WINDOWS
    if not enough.all():
        notes.append(f"fewer than {MIN_WINDOWS} independent windows on common days: "
                     f"{name_a_few(scores.index[~enough])}")
    symbols = {str(symbol): {"old_accuracy": float(row[OLD]), "new_accuracy": float(row[session.family]),
                             "old_decision": rows[symbol]["decision"]}
               for symbol, row in scores["accuracy"][enough].iterrows()}
    kept = [symbol for symbol, found in symbols.items() if _stands(rows[symbol])
            and found["new_accuracy"] < (1 - MOST_FALL) * found["old_accuracy"]]
    days = with_outcomes(both[both["symbol"].isin(set(symbols))], panel)["date"] if symbols else None
    span = {} if days is None else {"first": f"{days.min():%Y-%m-%d}", "last": f"{days.max():%Y-%m-%d}",
                                    "n_days": int(days.nunique())}
    return span | {"kept": kept, "symbols": symbols, "text": _text(manifest["run_id"], symbols, kept, span, notes)}


def _stands(row: dict[str, Any]) -> bool:
    """Whether a bundle's model was accepted, there or in the run that it was kept from."""
    return row["decision"] == "accept" or "kept_from" in row


def _old_forecast(session: Session, run_id: str, manifest: dict[str, Any], symbols: list[str], mine: pd.DataFrame,
                  panel: Panel, notes: list[str]) -> pd.DataFrame:
    """What the old networks forecast on those days of the new forecast that they know nothing of.

    Only the direction is asked, the sign of `mean`, which no calibration touches: p_up stays as it comes.
    """
    try:
        judged = Session.load(session.ws, run_id)
        forecaster = load_forecaster(judged).as_exported()
        first = to_day(Splits.from_dict(judged.days["splits"]).test.first)
    except VnqError:
        forecaster, first = _as_shipped(session, manifest, symbols, panel)
        notes.append(f"the checkpoints of {run_id} are gone, so the bundle itself was asked, from {first:%Y-%m-%d} on")
    known = tuple(symbol for symbol in symbols if symbol in forecaster.symbols)
    origins = np.asarray(panel.days.isin(mine["date"].unique()) & (panel.days >= first))
    if not known or not origins.any():
        raise SessionError("no day of the new forecast lies behind what the old networks know")
    return forecaster.select(known).predict(panel, origins)


def _as_shipped(session: Session, manifest: dict[str, Any], symbols: list[str],
                panel: Panel) -> tuple[Forecaster, pd.Timestamp]:
    """The bundle's own networks, and the first day whose outcome nothing in them can know.

    They were trained to `trained_to`, and without a refit chosen on validation days after that.
    """
    bundle = load_bundle(session.ws.model_folder(manifest["run_id"]))
    known = [manifest["symbols"][symbol]["trained_to"] for symbol in symbols]
    known += [manifest["calibration"]["last"]] if manifest.get("calibration") else []
    after = int(panel.days.searchsorted(max(map(to_day, known)), side="right")) + session.config.model.horizon
    if after >= len(panel.days):
        raise SessionError(f"its checkpoints are gone, and the bundle knows days to {max(known)}")
    return bundle.forecaster, panel.days[after]


def _text(run_id: str, symbols: dict[str, dict], kept: list[str], span: dict[str, Any], notes: list[str]) -> str:
    """What was found, for people: two sentences, and what could not be compared."""
    if symbols:
        accepted = sum(found["old_decision"] == "accept" for found in symbols.values())
        text = (f"Beside the bundle {run_id}, on {span['n_days']} common days ({span['first']} to {span['last']}): "
                f"{len(symbols)} symbol{'s' * (len(symbols) != 1)} compared, {accepted} of them accepted there. ")
        text += (f"The accuracy of {name_a_few(kept)} falls by more than {MOST_FALL:.0%} of what it was: there the old "
                 "model stays." if kept else f"No accepted one loses more than {MOST_FALL:.0%} of its accuracy.")
    else:
        text = f"No symbol could be compared with the bundle {run_id}."
    return text + (f" To be known: {'; '.join(note.rstrip('.') for note in notes)}." if notes else "")
