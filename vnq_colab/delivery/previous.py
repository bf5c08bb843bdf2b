"""Old against new: the last accepted run beside a new one, by what both said of the same test days.

A final fit has seen those days; the forecasts of the folds have not.
"""

from typing import Any

import pandas as pd

from vnq_colab.data.forecast import COLUMNS
from vnq_colab.data.prepared import Prepared
from vnq_colab.delivery.bundle import FORMAT
from vnq_colab.errors import DataError, VnqError, name_a_few
from vnq_colab.evaluation.metrics import score, with_outcomes
from vnq_colab.evaluation.order import daily_rank_correlations
from vnq_colab.evaluation.significance import hac_t
from vnq_colab.files import read_json, read_sealed
from vnq_colab.training.runs import RUN_ID
from vnq_colab.training.session import Session

MOST_FALL = 0.10  # [fraction of the old accuracy] a new model may lose before a person should look; the seeds' number
MIN_WINDOWS = 30  # independent ones on common days, from which two accuracies are compared
OLD = "previous"  # the family under which the old forecast is scored


def against_previous(session: Session, forecast: pd.DataFrame, prepared: Prepared) -> dict[str, Any] | None:
    """The last accepted run before this one on the days of a new forecast; None where there is no such run.

    Compared are the rank correlations of the two on the same days and stocks, and the share of right 5-day directions
    of each symbol that has at least 30 independent windows of them. Gives plain values: `run_id` of the old run,
    `first`, `last` and `n_days` of the common days; `old_order`, `new_order`, mean daily rank correlations open to
    open, and `order_t` of new less old; `symbols` {symbol: {old_accuracy, new_accuracy, old_decision}}; `kept`, the
    symbols accepted there whose accuracy falls by more than 10 % of what it was: a person should look at them; and
    `text`. An old run that cannot be used is a `text` that says why, never an error.
    """
    found = {"run_id": "", "first": None, "last": None, "n_days": 0, "kept": [], "text": "", "symbols": {}}
    try:
        last, trouble = _last_accepted(session)
        if last is None:
            return found | {"text": f"Not compared with an earlier bundle: {trouble[0]}"} if trouble else None
        found |= {"run_id": last["run_id"]}
        return found | _compared(session, forecast, prepared, last, trouble)
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
            if manifest.get("format", FORMAT) < FORMAT:
                trouble.append(f"run {name} is one of the first version, which did not forecast an order")
                continue
            accepted = any(row["decision"] == "accept" for row in manifest["symbols"].values())
            if accepted and manifest["synthetic"] == session.synthetic and manifest["run_id"] == name:
                return manifest, trouble
        except FileNotFoundError:  # the folder of a bundle that was tidied away
            continue
        except (VnqError, OSError) as error:
            trouble.append(str(error))
        except (KeyError, TypeError, AttributeError) as error:
            trouble.append(f"{path}: not a manifest of this library ({error}).")
    return None, trouble


def _compared(session: Session, forecast: pd.DataFrame, prepared: Prepared, manifest: dict[str, Any],
              notes: list[str]) -> dict[str, Any]:
    """All of the answer but the run's name."""
    run_id, rows = manifest["run_id"], manifest["symbols"]
    path = session.ws.report_folder(run_id) / "forecast.parquet"
    try:
        old = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the forecasts of its test days cannot be read ({error}).") from error
    old = old.loc[old["family"] == manifest["judged_family"], list(COLUMNS)].assign(family=OLD)
    known = set(prepared.panel.symbols)
    mine = forecast.loc[forecast["symbol"].isin(old["symbol"].unique()), list(COLUMNS)]
    both = pd.concat([mine, old[old["symbol"].isin(known.intersection(mine["symbol"].unique()))]], ignore_index=True)
    here = set(forecast["symbol"].unique())
    gone = sorted(symbol for symbol, row in rows.items() if row["decision"] == "accept" and symbol not in here)
    notes = [*notes, *([f"not forecast by the new run: {name_a_few(gone)}"] if gone else [])]
    if both["family"].nunique() < 2:
        return {"text": _text(run_id, {}, [], {}, notes)}
    family = str(forecast["family"].iloc[0])
    try:
        scores = score(both, prepared.panel).pivot(index="symbol", columns="family",
                                                   values=["accuracy", "n_independent"])
    except DataError:  # no day in common
        return {"text": _text(run_id, {}, [], {}, notes)}
    enough = scores["n_independent"].min(axis=1) >= MIN_WINDOWS
    if not enough.all():
        notes.append(f"fewer than {MIN_WINDOWS} independent windows on common days: "
                     f"{name_a_few(scores.index[~enough])}")
    symbols = {str(symbol): {"old_accuracy": float(row[OLD]), "new_accuracy": float(row[family]),
                             "old_decision": rows[symbol]["decision"]}
               for symbol, row in scores["accuracy"][enough].iterrows()}
    kept = [symbol for symbol, found in symbols.items() if found["old_decision"] == "accept"
            and found["new_accuracy"] < (1 - MOST_FALL) * found["old_accuracy"]]
    common = with_outcomes(both, prepared.panel)
    daily = daily_rank_correlations(common, "actual_open")[[OLD, family]].dropna()
    span = {"first": f"{common['date'].min():%Y-%m-%d}", "last": f"{common['date'].max():%Y-%m-%d}",
            "n_days": int(common["date"].nunique())}
    if len(daily):
        span |= {"old_order": float(daily[OLD].mean()), "new_order": float(daily[family].mean()),
                 "order_t": float(hac_t((daily[family] - daily[OLD]).to_numpy()))}
    return span | {"symbols": symbols, "kept": kept, "text": _text(run_id, symbols, kept, span, notes)}


def _text(run_id: str, symbols: dict[str, dict], kept: list[str], span: dict[str, Any], notes: list[str]) -> str:
    """What was found, for people: two sentences, and what could not be compared."""
    if symbols:
        accepted = sum(found["old_decision"] == "accept" for found in symbols.values())
        text = (f"Beside run {run_id}, on {span['n_days']} common days ({span['first']} to {span['last']}): "
                f"{len(symbols)} symbol{'s' * (len(symbols) != 1)} compared, {accepted} of them accepted there. ")
        if "new_order" in span:
            text += f"Rank correlation {span['new_order']:.3f}, that run's {span['old_order']:.3f}. "
        text += (f"The accuracy of {name_a_few(kept)} falls by more than {MOST_FALL:.0%} of what it was: look at them."
                 if kept else f"No accepted one loses more than {MOST_FALL:.0%} of its accuracy.")
    else:
        text = f"No symbol could be compared with run {run_id}."
    return text + (f" To be known: {'; '.join(note.rstrip('.') for note in notes)}." if notes else "")
