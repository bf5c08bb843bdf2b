"""The Bundle: the final fit of every family, and a manifest that a person can read, with the sha256 of everything."""

import contextlib
import hashlib
import itertools
import json
import math
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab import __version__
from vnq_colab.clock import utc_now
from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import ENSEMBLE, ensemble_scores
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prepared import has_index, load_panel
from vnq_colab.delivery.manifest import FACTS, FORMAT, Manifest, current, make_current, read_files, read_manifest
from vnq_colab.errors import DeliveryError, VnqError, name_a_few
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.calibration import final_calibrations, with_volatility
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.files import checked, write_atomic, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Forecaster
from vnq_colab.models.states import assembled, forecaster_in, model_bytes, read_state
from vnq_colab.training.jobs import final_forecasters, fold_scores
from vnq_colab.training.session import Session

PAST_DAYS = 1000  # of history for the latest forecasts; chosen: the same numbers as of all, in a third of the time


@dataclass(frozen=True, eq=False, repr=False)
class Bundle:
    """Exported models: what the local machine runs every day after the close."""

    folder: Path
    manifest: Manifest
    forecasters: dict[str, Forecaster]

    @property
    def decisions(self) -> dict[str, str]:
        """accept, review, reject or unjudged, for each symbol."""
        return {symbol: row["decision"] for symbol, row in self.manifest["symbols"].items()}

    @property
    def judged_family(self) -> str:
        """The family that was judged, and that orders are made of."""
        return self.manifest["judged_family"]

    @property
    def market_decision(self) -> str:
        """accept, review, reject or unjudged: whether the order of the stocks pays after costs."""
        verdict = self.manifest["verdict"]
        return verdict["market"]["decision"] if verdict else "unjudged"

    def predict(self, panel: Panel, days: "pd.DatetimeIndex | list[str]") -> pd.DataFrame:
        """The Forecast of every family and the ensemble as of `days`; a symbol that is absent on one gives no row."""
        origins = np.asarray(panel.days.isin(pd.DatetimeIndex(days)))
        first = int(np.argmax(origins)) - self.manifest["look_back"] if origins.any() else 0
        kept = slice(self._block_start(first), None)  # what no forecast sees is left out
        seen = replace(panel, values=panel.values[:, kept], prices=panel.prices[:, kept],
                       present=panel.present[:, kept], days=panel.days[kept])
        scores = pd.concat([
            one.select(tuple(symbol for symbol in one.symbols if symbol in panel.symbols)).predict(seen, origins[kept])
            for one in self.forecasters.values()], ignore_index=True)
        if self.judged_family == ENSEMBLE:
            scores = pd.concat([scores, ensemble_scores(scores, self.manifest["ensemble_families"])], ignore_index=True)
        scores = with_volatility(scores, panel, self.manifest["task"].horizon)
        stored = self.manifest["calibration"]
        return pd.concat([stored[family].apply(rows) if family in stored else rows
                          for family, rows in scores.groupby("family", sort=False, observed=True)],
                         ignore_index=True).drop(columns=["volatility", "actual"])

    def _block_start(self, day: int) -> int:
        """The last day up to this one at which a block of each network begins: forecasts are the same to the bit."""
        step = math.lcm(*(forecaster.block_days for forecaster in self.forecasters.values()))
        return max(day, 0) // step * step

    def _recent(self, prices: pd.DataFrame, n_days: int) -> pd.Timestamp:
        """The first day that features of the last `n_days` depend on; the very first one after a stock's long halt."""
        days, symbol = np.sort(prices["date"].unique()), pd.factorize(prices["symbol"])[0]
        first = days[self._block_start(len(days) - PAST_DAYS)]
        last_seen = days[-min(self.manifest["look_back"] + n_days, len(days))]
        n_all, n_kept, n_seen = (np.bincount(symbol, prices["date"] >= day) for day in (days[0], first, last_seen))
        return first if (n_kept >= np.minimum(n_all, PAST_DAYS // 3))[n_seen > 0].all() else days[0]

    def predict_latest(self, prices: pd.DataFrame, index: pd.DataFrame | None = None, *,
                       n_days: int = 1) -> pd.DataFrame:
        """The Forecast from the last `n_days` of a price table, with each symbol's `decision`, of every family.

        Give it every stock there is, not only the bundle's: ranks and the market's features are made of all of them.
        """
        if not set(self.decisions) & set(prices["symbol"].unique()):
            raise DeliveryError(f"none of the bundle's symbols ({name_a_few(self.decisions)}) is in these prices.")
        first = self._recent(prices, n_days)
        panel = build_panel(prices[prices["date"] >= first], None if index is None else index[index["date"] >= first])
        forecast = self.predict(panel, panel.days[-n_days:])
        forecast.insert(3, "decision", forecast["symbol"].map(self.decisions))
        return forecast

    def __repr__(self) -> str:
        decisions, verdict = list(self.decisions.values()), self.manifest["verdict"]
        counts = ", ".join(f"{decisions.count(name)} {name}" for name in dict.fromkeys(decisions))
        note = " (SYNTHETIC market)" if self.manifest["synthetic"] else ""
        judged = f", judged by the {verdict['gate_set']} gates" if verdict else ""
        return (f"Bundle {self.manifest['run_id']}{note}: {', '.join(self.forecasters)} for {len(decisions)} symbols "
                f"({counts}){judged}, trained to {self.manifest['trained_to']}, {self.folder}")


def export_bundle(session: Session, verdict: Verdict | None = None, *, panel: Panel | None = None) -> Bundle:
    """Writes the final fit with its decisions to a new folder, `models/<run_id>` or `-2` and so on; it is then current.

    A bundle that says the same already is not written again. Its calibration is that of the folds' validation days.
    `verdict` None takes the one that validation stored; a run without any is exported as unjudged; `panel` spares
    reading the run's own again. Raises SessionError while a job is missing.
    """
    verdict = stored_verdict(session) if verdict is None else verdict
    if verdict is not None and verdict.run_id not in ("", session.run_id):
        raise DeliveryError(f"the verdict is of run {verdict.run_id}, not of {session.run_id}. "
                            "Validate this run first.")
    panel = load_panel(session.ws, session.data_id) if panel is None else panel
    manifest, contents = _manifest(session, verdict, panel)
    wanted = checked(session.ws.model_folder(session.run_id), Manifest, manifest)
    for number in itertools.count(1):
        folder = session.ws.model_folder(session.run_id + (f"-{number}" if number > 1 else ""))
        if not os.path.lexists(folder / "manifest.json"):
            for name, content in contents.items():
                write_atomic(folder / name, lambda file, content=content: file.write(content))
            write_sealed(folder / "manifest.json", manifest | {"exported": utc_now()})
            bundle = load_bundle(folder)
            break
        with contextlib.suppress(VnqError):  # damaged, or of another version: it stays as it is
            if read_manifest(folder) | {"exported": ""} == wanted:
                bundle = load_bundle(folder)
                break
    make_current(folder, session.run_id)
    return bundle


def _manifest(session: Session, verdict: Verdict | None, panel: Panel) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What manifest.json says, but for the time; and the files, by name."""
    forecasters, config = final_forecasters(session), session.config
    calibration = final_calibrations(fold_scores(session, panel), panel, config.task.horizon)
    facts = {"run_id": session.run_id, "data_id": session.data_id, "code_version": __version__,
             "trained_to": f"{panel.days[-1]:%Y-%m-%d}", "synthetic": session.synthetic}
    parts = {name: part for forecaster in forecasters.values() for name, part in forecaster.files().items()}
    contents = {name: model_bytes(parts[name].to_state() | facts) for name in sorted(parts)}
    judged = verdict.to_dict() if verdict else {"symbols": {}, "summary": {}}
    basket, unjudged = judged["summary"].get("basket"), {"decision": "unjudged", "reasons": ["no verdict was found"]}
    manifest = facts | {
        "format": FORMAT, "exported": "", "families": list(forecasters), "judged_family": config.judged_family,
        "ensemble_families": list(config.ensemble_families), "market_symbols": list(panel.symbols),
        "market_index": has_index(session.ws, session.data_id), "config": config.to_dict(),
        "task": config.to_dict()["task"], "feature_names": list(panel.feature_names),
        "look_back": max(forecaster.look_back for forecaster in forecasters.values()),
        "calibration": {family: one.to_dict() for family, one in calibration.items()},
        "verdict": {name: judged[name] for name in ("gate_set", "summary", "market")} if verdict else None,
        "basket": {field.name: basket[field.name] for field in fields(Basket)} if basket else None,
        "symbols": {symbol: {name: judged["symbols"].get(symbol, unjudged)[name] for name in unjudged}
                    | {"families": [family for family, one in forecasters.items() if symbol in one.symbols]}
                    for symbol in session.ledger},
        "files": {name: {"family": parts[name].family, "symbols": list(parts[name].symbols), "bytes": len(content),
                         "sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()}}
    return json.loads(json.dumps(manifest)), contents


def load_bundle(path: str | Path | Workspace) -> Bundle:
    """The bundle in a folder, or the current one of a workspace. Every file is checked against its sha256.

    Raises VnqError when a file is missing, changed, from another version, or not what the manifest says of it.
    """
    folder = Path(getattr(path, "models", path))
    if pointer := current(folder):
        folder /= pointer["folder"]
    manifest, parts = read_manifest(folder), {}
    for file, fact, content in read_files(folder, manifest):
        state = read_state(file, content)
        one = parts.setdefault(fact["family"], {})[file] = forecaster_in(file, state, fact["family"])
        if list(one.symbols) != fact["symbols"] or any(state.get(name) != manifest[name] for name in FACTS):
            raise DeliveryError(f"{file}: is of other symbols, or another run, than the manifest says. Export again.")
    config = RunConfig.from_dict(manifest["config"])
    forecasters = {family: assembled(parts[family], config.task, config.model) for family in manifest["families"]}
    there = [(list(one.feature_names), {*one.symbols}) for one in forecasters.values()]
    said = [(manifest["feature_names"], {symbol for symbol, row in manifest["symbols"].items()
                                         if name in row["families"]}) for name in forecasters]
    look_back = max(one.look_back for one in forecasters.values())
    if there != said or (manifest["look_back"], manifest["task"]) != (look_back, config.task):
        raise DeliveryError(f"{folder}: its files are not those of the manifest's symbols and features. Export again.")
    return Bundle(folder, manifest, forecasters)


def stored_verdict(session: Session) -> Verdict | None:
    """The verdict that validation wrote for this run; None when it was not validated."""
    try:
        return Verdict.load(session.ws.report_folder(session.run_id) / "verdict.json")
    except FileNotFoundError:
        return None
    except (VnqError, KeyError, TypeError) as error:
        raise DeliveryError(f"the verdict of {session.run_id} cannot be read ({error}). Validate again.") from error
