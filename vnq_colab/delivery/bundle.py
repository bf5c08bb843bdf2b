"""The Bundle: the final fit of every family, and a manifest that a person can read, with the sha256 of everything."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab import __version__
from vnq_colab.clock import utc_now
from vnq_colab.data.forecast import ENSEMBLE, ensemble_scores
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prepared import has_index, load_panel
from vnq_colab.errors import DeliveryError, VnqError, name_a_few
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.calibration import Calibration, final_calibrations, with_volatility
from vnq_colab.evaluation.verdict import Verdict
from vnq_colab.files import read_json, read_sealed, sha256_of, write_json, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Forecaster, family_module
from vnq_colab.models.forecaster import NetworkForecaster
from vnq_colab.training.jobs import final_forecasters, fold_scores
from vnq_colab.training.session import Session

FORMAT = 2  # of manifest.json
MANIFEST = {  # what one must have
    "format", "run_id", "families", "judged_family", "ensemble_families", "synthetic", "trained_to",
    "market_symbols", "market_index", "look_back", "task", "verdict", "symbols", "calibration", "files"}
PAST_DAYS = 1000  # of history for the latest forecasts; chosen: the same numbers as of all, in a third of the time


@dataclass(frozen=True, eq=False, repr=False)
class Bundle:
    """Exported models: what the local machine runs every day after the close."""

    folder: Path
    manifest: dict[str, Any]
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
        scores = with_volatility(scores, panel, self.manifest["task"]["horizon"])
        stored = self.manifest["calibration"]
        return pd.concat([Calibration.from_dict(stored[family]).apply(rows) if family in stored else rows
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
    """Writes the final fit with its decisions to `models/<run_id>/`, and makes it the current bundle.

    Its calibration is that of the folds' validation days. `verdict` None takes the one that validation stored; a run
    without any is exported as unjudged; `panel` spares reading the run's own again. Raises SessionError while a job is
    missing.
    """
    verdict, config = stored_verdict(session) if verdict is None else verdict, session.config
    if verdict is not None and verdict.run_id not in ("", session.run_id):
        raise DeliveryError(f"the verdict is of run {verdict.run_id}, not of {session.run_id}. "
                            "Validate this run first.")
    forecasters = {family: NetworkForecaster.joined(parts) if len(parts) > 1 else parts[0]
                   for family, parts in final_forecasters(session).items()}
    panel = load_panel(session.ws, session.data_id) if panel is None else panel
    calibration = final_calibrations(fold_scores(session, panel), panel, config.task.horizon)
    folder = session.ws.model_folder(session.run_id)
    facts = {"data_id": session.data_id, "code_version": __version__, "trained_to": f"{panel.days[-1]:%Y-%m-%d}",
             "synthetic": session.synthetic}
    paths = sorted(path for forecaster in forecasters.values() for path in forecaster.save(folder, facts))
    judged = verdict.to_dict() if verdict else {"symbols": {}, "summary": {}}
    basket, unjudged = judged["summary"].get("basket"), {"decision": "unjudged", "reasons": ["no verdict was found"]}
    write_sealed(folder / "manifest.json", facts | {
        "format": FORMAT, "run_id": session.run_id, "families": list(forecasters),
        "judged_family": config.judged_family, "ensemble_families": list(config.ensemble_families),
        "market_symbols": list(panel.symbols), "market_index": has_index(session.ws, session.data_id),
        "exported": utc_now(), "config": config.to_dict(), "task": config.to_dict()["task"],
        "feature_names": list(panel.feature_names),
        "look_back": max(forecaster.look_back for forecaster in forecasters.values()),
        "calibration": {family: one.to_dict() for family, one in calibration.items()},
        "verdict": {name: judged[name] for name in ("gate_set", "summary", "market")} if verdict else None,
        "basket": {field.name: basket[field.name] for field in fields(Basket)} if basket else None,
        "symbols": {symbol: {name: judged["symbols"].get(symbol, unjudged)[name] for name in unjudged}
                    for symbol in session.ledger},
        "files": {path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in paths},
    })
    write_json(session.ws.models / "current.json", {"run_id": session.run_id, "exported": utc_now()})
    return load_bundle(folder)


def load_bundle(path: str | Path | Workspace) -> Bundle:
    """The bundle in a folder, or the current one of a workspace. Every file is checked against its sha256.

    Raises DeliveryError when a file is missing, changed or from another version.
    """
    folder = Path(getattr(path, "models", path))
    current = folder / "current.json"
    if current.exists():
        try:
            folder /= read_json(current)["run_id"]
        except (KeyError, TypeError):
            raise DeliveryError(f"{current}: does not say which bundle is in use. Export again.") from None
    manifest = read_manifest(folder)
    for name, fact in manifest["files"].items():
        if not (folder / name).exists():
            raise DeliveryError(f"{folder / name}: in the manifest but not in the folder. Copy the bundle again.")
        if sha256_of(folder / name) != fact["sha256"]:
            raise DeliveryError(f"{folder / name}: its content is not what the manifest says. Copy the bundle again.")
    return Bundle(folder, manifest, {name: family_module(name).load(folder) for name in manifest["families"]})


def read_manifest(folder: Path) -> dict[str, Any]:
    """A bundle's manifest. Raises DeliveryError when there is none, or none of this version."""
    path = folder / "manifest.json"
    try:
        manifest = read_sealed(path)
    except FileNotFoundError:
        raise DeliveryError(f"{folder}: there is no manifest.json in it. Export first, or name a bundle's folder."
                            ) from None
    version = manifest.get("format")
    if isinstance(version, int) and version != FORMAT:
        raise DeliveryError(f"{path}: of a newer version of the library. Update vnq_colab." if version > FORMAT else
                            f"{path}: of the first version, which did not forecast an order. Train and export again.")
    if missing := MANIFEST - set(manifest):
        raise DeliveryError(f"{path}: not a manifest of this library, it lacks {', '.join(sorted(missing))}. Export "
                            "again.")
    return manifest


def stored_verdict(session: Session) -> Verdict | None:
    """The verdict that validation wrote for this run; None when it was not validated."""
    try:
        return Verdict.load(session.ws.report_folder(session.run_id) / "verdict.json")
    except FileNotFoundError:
        return None
    except (VnqError, KeyError, TypeError) as error:
        raise DeliveryError(f"the verdict of {session.run_id} cannot be read ({error}). Validate again.") from error
