"""The Bundle: the final fit of every family, and a manifest that a person can read, with the sha256 of everything."""

import math
from dataclasses import fields, replace
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
from vnq_colab.evaluation.calibration import Calibration, with_volatility
from vnq_colab.evaluation.verdict import Verdict
from vnq_colab.files import read_json, sha256_of, unsealed, write_json, write_sealed
from vnq_colab.models.base import Forecaster, family_module
from vnq_colab.models.network_forecaster import BLOCK_DAYS, NetworkForecaster
from vnq_colab.training.forecasting import final_calibrations, final_forecasters, fold_scores
from vnq_colab.training.session import Session

FORMAT = 2  # of manifest.json
MANIFEST = ("run_id", "families", "judged_family", "ensemble_families", "synthetic", "trained_to", "market_symbols",
            "market_index", "config", "look_back", "symbols", "calibration",
            "files")  # what a manifest must have to be used
PAST_DAYS = 1000  # of history for the latest forecasts; chosen: the same numbers as of all, in a third of the time
UNJUDGED = {"decision": "unjudged", "reasons": ["no verdict was found for it"]}


class Bundle:
    """Exported models: what the local machine runs every evening."""

    def __init__(self, folder: Path, manifest: dict[str, Any], forecasters: dict[str, Forecaster]):
        self.folder, self.manifest, self.forecasters = folder, manifest, forecasters

    @property
    def decisions(self) -> dict[str, str]:
        """accept, review, reject or unjudged, for each symbol."""
        return {symbol: row["decision"] for symbol, row in self.manifest["symbols"].items()}

    @property
    def accepted(self) -> tuple[str, ...]:
        return tuple(symbol for symbol, decision in self.decisions.items() if decision == "accept")

    @property
    def judged_family(self) -> str:
        """The family that was judged, and that orders are made of."""
        return self.manifest["judged_family"]

    def predict(self, panel: Panel, days: "pd.DatetimeIndex | list[str]") -> pd.DataFrame:
        """The Forecast of every family and the ensemble from the evenings of `days`; an absent symbol gives no row."""
        return self._predict(panel, np.asarray(panel.days.isin(pd.DatetimeIndex(days))))

    def _predict(self, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        here, seen = set(panel.symbols), self._cut(panel, origins)
        tables = []
        for forecaster in self.forecasters.values():
            known = tuple(symbol for symbol in forecaster.symbols if symbol in here)
            tables.append(forecaster.select(known).predict(seen, origins[-len(seen.days):]))
        scores = pd.concat(tables, ignore_index=True)
        if self.judged_family == ENSEMBLE:
            scores = pd.concat([scores, ensemble_scores(scores, self.manifest["ensemble_families"])], ignore_index=True)
        scores = with_volatility(scores, panel, self.manifest["task"]["horizon"])
        stored = self.manifest["calibration"]
        found = [Calibration.from_dict(stored[family]).apply(rows) if family in stored else rows
                 for family, rows in scores.groupby("family", sort=False)]
        return pd.concat(found, ignore_index=True).drop(columns=["volatility", "actual"])

    def _cut(self, panel: Panel, origins: np.ndarray) -> Panel:
        """The panel without the days that no forecast of `origins` sees; it begins where a block of each network does.

        Networks see the calendar in blocks, so that the numbers are those of the whole panel, to the bit.
        """
        first = int(np.argmax(origins)) - self.manifest["look_back"] if origins.any() else 0
        kept = slice(self._block_start(first), None)
        return replace(panel, values=panel.values[:, kept], prices=panel.prices[:, kept],
                       present=panel.present[:, kept], days=panel.days[kept])

    def _block_start(self, day: int) -> int:
        """The last day up to this one at which a block of each network begins."""
        shapes = [one.config for one in self.forecasters.values() if isinstance(one, NetworkForecaster)]
        step = math.lcm(*(min(BLOCK_DAYS, shape.look_back - shape.min_context + 1) for shape in shapes))
        return max(day, 0) // step * step

    def _recent(self, prices: pd.DataFrame, n_days: int) -> pd.Timestamp:
        """The first day that features of the last `n_days` evenings are made from: windows of a year, and smoothed
        ones, no longer know what lay before. The very first day where a stock's own days are too few, as after a halt.
        """
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
        here = set(prices["symbol"].unique())
        missing = [symbol for symbol in self.decisions if symbol not in here]
        if len(missing) == len(self.decisions):
            raise DeliveryError(f"none of the bundle's symbols ({name_a_few(missing)}) is in these prices.")
        first = self._recent(prices, n_days)
        panel = build_panel(prices[prices["date"] >= first], None if index is None else index[index["date"] >= first])
        origins = np.zeros(len(panel.days), dtype=bool)
        origins[-n_days:] = True
        forecast = self._predict(panel, origins)
        forecast.insert(3, "decision", forecast["symbol"].map(self.decisions))
        return forecast

    def __repr__(self) -> str:
        decisions = list(self.decisions.values())
        counts = ", ".join(f"{decisions.count(name)} {name}" for name in dict.fromkeys(decisions))
        note = " (SYNTHETIC market)" if self.manifest["synthetic"] else ""
        judged = self.manifest.get("verdict") or {}
        by = f", judged by the {judged['gate_set']} gates" if judged else ""
        settings = (judged.get("summary") or {}).get("settings") or {}
        by += f" with slippage {settings['slippage']:.2%}" if "slippage" in settings else ""
        return (f"Bundle {self.manifest['run_id']}{note}: {', '.join(self.forecasters)} for {len(decisions)} symbols "
                f"({counts}){by}, trained to {self.manifest['trained_to']}, {self.folder}")


def export_bundle(session: Session, verdict: Verdict | None = None) -> Bundle:
    """Writes the final fit with its decisions to `models/<run_id>/`, and makes it the current bundle.

    Nothing is trained: the final fit is one of the run's jobs. Its calibration is that of the folds' validation days.
    `verdict` None takes the one that validation stored; a run without any is exported as unjudged. Raises SessionError
    while a job is missing.
    """
    verdict = stored_verdict(session) if verdict is None else verdict
    if verdict is not None and verdict.run_id not in ("", session.run_id):
        raise DeliveryError(f"the verdict is of run {verdict.run_id}, not of {session.run_id}. "
                            "Validate this run first.")
    forecasters = {family: NetworkForecaster.joined(parts) if len(parts) > 1 else parts[0]
                   for family, parts in final_forecasters(session).items()}
    panel = load_panel(session.ws, session.data_id)
    calibration = final_calibrations(fold_scores(session, panel), panel, session.config.task.horizon)
    folder = session.ws.model_folder(session.run_id)
    trained_to = f"{panel.days[-1]:%Y-%m-%d}"
    facts = {"data_id": session.data_id, "code_version": __version__, "trained_to": trained_to,
             "synthetic": session.synthetic}
    paths = [path for forecaster in forecasters.values() for path in forecaster.save(folder, facts)]
    decided, basket = (verdict.symbols, verdict.summary.get("basket")) if verdict else ({}, None)
    symbols = {symbol: {key: decided.get(symbol, UNJUDGED)[key] for key in ("decision", "reasons")}
               for symbol in session.ledger}
    config = session.config
    write_sealed(folder / "manifest.json", {
        "format": FORMAT, "run_id": session.run_id, "families": list(forecasters),
        "judged_family": config.judged_family, "ensemble_families": list(config.ensemble_families),
        "synthetic": session.synthetic, "trained_to": trained_to,
        "data_id": session.data_id, "market_symbols": list(panel.symbols),
        "market_index": has_index(session.ws, session.data_id), "code_version": __version__, "exported": utc_now(),
        "config": config.to_dict(), "task": config.to_dict()["task"], "feature_names": list(panel.feature_names),
        "look_back": max(forecaster.look_back for forecaster in forecasters.values()),
        "calibration": {family: found.to_dict() for family, found in calibration.items()},
        "verdict": {"gate_set": verdict.gate_set, "summary": verdict.summary, "market": verdict.market}
        if verdict else None,
        "basket": {field.name: basket[field.name] for field in fields(Basket)} if basket else None,
        "symbols": symbols,
        "files": {path.name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for path in sorted(paths)},
    })
    write_json(session.ws.models / "current.json", {"run_id": session.run_id, "exported": utc_now()})
    return load_bundle(folder)


def load_bundle(path: "str | Path") -> Bundle:
    """The bundle in a folder; of a `models` folder the current one. Every file is checked against its sha256.

    Raises DeliveryError when a file is missing, changed or from another version.
    """
    folder = Path(path)
    try:
        if (folder / "current.json").exists():
            folder = folder / read_json(folder / "current.json")["run_id"]
        manifest = read_json(folder / "manifest.json")
        if manifest["format"] > FORMAT:
            raise DeliveryError(f"{folder}: written by a newer version of the library ({manifest['code_version']}; "
                                f"this is {__version__}). Update vnq_colab.")
        if manifest["format"] < FORMAT:
            raise DeliveryError(f"{folder}: a bundle of the first version, whose models forecast each stock's own "
                                "move. Train and export again.")
        manifest = unsealed(manifest, folder / "manifest.json")
        missing = [name for name in MANIFEST if name not in manifest]
        if missing:
            raise KeyError(missing[0])
        files, families = manifest["files"], [family_module(name) for name in manifest["families"]]
    except FileNotFoundError:
        raise DeliveryError(f"{folder}: there is no manifest.json in it. "
                            "Export first, or name a bundle's folder.") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise DeliveryError(f"{folder / 'manifest.json'}: not a manifest of this library ({error}). "
                            "Export again.") from error
    for name, fact in files.items():
        if not (folder / name).exists():
            raise DeliveryError(f"{folder / name}: in the manifest but not in the folder. Copy the bundle again.")
        if sha256_of(folder / name) != fact["sha256"]:
            raise DeliveryError(f"{folder / name}: its content is not what the manifest says. Copy the bundle again.")
    return Bundle(folder, manifest, {name: module.load(folder)
                                     for name, module in zip(manifest["families"], families, strict=True)})


def stored_verdict(session: Session) -> Verdict | None:
    """The verdict that validation wrote for this run; None when it was not validated."""
    try:
        return Verdict.load(session.ws.report_folder(session.run_id) / "verdict.json")
    except FileNotFoundError:
        return None
    except (VnqError, KeyError, TypeError) as error:
        raise DeliveryError(f"the verdict of {session.run_id} cannot be read ({error}). Validate again.") from error
