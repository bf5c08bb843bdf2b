"""The Bundle: one file per symbol and a manifest that a person can read, with the sha256 of everything."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab import __version__
from vnq_colab.clock import utc_now
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prepared import has_index, load_panel
from vnq_colab.errors import DeliveryError, SessionError, VnqError, name_a_few
from vnq_colab.evaluation.calibration import Calibration
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.files import read_json, sha256_of, unsealed, write_atomic, write_json, write_sealed
from vnq_colab.models.base import Forecaster, family_module
from vnq_colab.training.forecasting import fit_calibration, load_forecaster
from vnq_colab.training.parts import whole_run
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import refit as train_again

FORMAT = 1  # of manifest.json
MANIFEST = ("run_id", "family", "synthetic", "trained_to", "market_symbols", "market_index", "config", "symbols",
            "files")  # what a manifest must have to be used
UNJUDGED = {"decision": "unjudged", "reasons": ["no verdict was found for it"]}


class Bundle:
    """Exported ensembles: what the local machine runs every evening."""

    def __init__(self, folder: Path, manifest: dict[str, Any], forecaster: Forecaster):
        self.folder, self.manifest, self.forecaster = folder, manifest, forecaster

    @property
    def decisions(self) -> dict[str, str]:
        """accept, review, reject or unjudged, for each symbol."""
        return {symbol: row["decision"] for symbol, row in self.manifest["symbols"].items()}

    @property
    def accepted(self) -> tuple[str, ...]:
        return tuple(symbol for symbol, decision in self.decisions.items() if decision == "accept")

    def predict(self, panel: Panel, days: "pd.DatetimeIndex | list[str]") -> pd.DataFrame:
        """The Forecast of all its symbols from the evenings of `days`; a symbol absent on a day gives no row."""
        return self._predict(self.forecaster, panel, np.asarray(panel.days.isin(pd.DatetimeIndex(days))))

    def _predict(self, forecaster: Forecaster, panel: Panel, origins: np.ndarray) -> pd.DataFrame:
        """With `p_up` and the intervals `low`, `high` as they were calibrated on the judged run's validation days."""
        forecast, stored = forecaster.predict(panel, origins), self.manifest.get("calibration")
        return Calibration.from_dict(stored).apply(forecast) if stored else forecast

    def predict_latest(self, prices: pd.DataFrame, index: pd.DataFrame | None = None) -> pd.DataFrame:
        """The Forecast of all its symbols from the last day of a price table, with each symbol's `decision`.

        Give it every stock there is, not only the bundle's: the market's own features are made of all of them.
        """
        missing = [symbol for symbol in self.forecaster.symbols if symbol not in set(prices["symbol"])]
        if len(missing) == len(self.forecaster.symbols):
            raise DeliveryError(f"none of the bundle's symbols ({name_a_few(missing)}) is in these prices.")
        panel = build_panel(prices, index)
        known = tuple(symbol for symbol in self.forecaster.symbols if symbol not in missing)
        forecaster = self.forecaster.select(known) if missing else self.forecaster
        origins = np.zeros(len(panel.days), dtype=bool)
        origins[-1] = True
        forecast = self._predict(forecaster, panel, origins)
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
        return (f"Bundle {self.manifest['run_id']}{note}: {len(decisions)} symbols ({counts}){by}, trained to "
                f"{self.manifest['trained_to']}, {self.folder}")


def export_bundle(session: Session, verdict: Verdict | None = None, *, refit: bool = True, hours: float | None = None,
                  quiet: bool = False) -> Bundle:
    """Writes every finished symbol with its decision to `models/<run_id>/`, and makes it the current bundle.

    `verdict` None takes the one that validation stored; a run without any is exported as unjudged. With `refit` the
    networks are first trained again on all labelled days; that is a run of its own, so a stop loses nothing: call again
    to go on. Where the verdict says that an old model stays, its file is taken over from the old bundle with its
    decision and its calibration; where it does not fit beside the new ones, the symbol is a reject. Raises SessionError
    when no symbol is finished, or the refit paused.
    """
    session = whole_run(session)
    if session.is_fold:
        raise DeliveryError(f"{session.run_id} is one fold of a walk through time. Export the run that was walked.")
    verdict = stored_verdict(session) if verdict is None else verdict
    if verdict is not None and verdict.run_id not in ("", session.run_id):
        raise DeliveryError(f"the verdict is of run {verdict.run_id}, not of {session.run_id}. "
                            "Validate this run first.")
    judged = load_forecaster(session)
    forecaster, trained_to = judged, dict.fromkeys(judged.symbols, session.days["train"][1])
    if refit:
        again = train_again(session, hours=hours, quiet=quiet)
        if again.status != "finished":
            raise SessionError(f"the refit paused ({again.why}). Run export again to go on where it stopped.")
        forecaster = _refitted(judged, load_forecaster(again))
        trained_to |= {symbol: again.days["train"][1] for symbol, row in again.ledger.items() if row["state"] == "done"}
    folder = session.ws.model_folder(session.run_id)
    forecaster = forecaster.as_exported()
    old, kept = _kept(session, forecaster, verdict)
    taken = [symbol for symbol, row in kept.items() if "kept_from" in row]
    if new := tuple(symbol for symbol in forecaster.symbols if symbol not in taken):
        forecaster.select(new).save(folder)
    for symbol in taken:  # the file as it is: it says itself what it was trained on
        content = (old.folder / forecaster.file_name(symbol)).read_bytes()
        write_atomic(folder / forecaster.file_name(symbol), lambda file, content=content: file.write(content))
        trained_to[symbol] = kept[symbol]["trained_to"]
    if taken:
        forecaster = type(forecaster).load(folder, list(forecaster.symbols))
    panel = load_panel(session.ws, session.data_id)
    manifest = _manifest(session, forecaster, verdict, folder, trained_to, panel)
    for symbol, row in kept.items():
        manifest["symbols"][symbol] |= row
    manifest["calibration"] = fit_calibration(session, judged.as_exported(), panel).to_dict()
    _keep_calibration(manifest, old)
    write_sealed(folder / "manifest.json", manifest)
    write_json(session.ws.models / "current.json", {"run_id": session.run_id, "exported": utc_now()})
    return load_bundle(folder)


def load_bundle(path: "str | Path") -> Bundle:
    """The bundle in a folder; of a `models` folder the current one. Every file is checked against its sha256.

    Raises DeliveryError when a file is missing, changed or from a newer version.
    """
    folder = Path(path)
    try:
        if (folder / "current.json").exists():
            folder = folder / read_json(folder / "current.json")["run_id"]
        manifest = read_json(folder / "manifest.json")
        if manifest["format"] > FORMAT:
            raise DeliveryError(f"{folder}: written by a newer version of the library ({manifest['code_version']}; "
                                f"this is {__version__}). Update vnq_colab.")
        manifest = unsealed(manifest, folder / "manifest.json")
        missing = [name for name in MANIFEST if name not in manifest]
        if missing:
            raise KeyError(missing[0])
        files, family = manifest["files"], family_module(manifest["family"])
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
    return Bundle(folder, manifest, family.FORECASTER.load(folder, list(manifest["symbols"])))


def stored_verdict(session: Session) -> Verdict | None:
    """The verdict that validation wrote for this run; None when it was not validated."""
    try:
        return Verdict.load(session.ws.report_folder(session.run_id) / "verdict.json")
    except FileNotFoundError:
        return None
    except (VnqError, KeyError, TypeError) as error:
        raise DeliveryError(f"the verdict of {session.run_id} cannot be read ({error}). Validate again.") from error


def _refitted(judged: Forecaster, again: Forecaster) -> Forecaster:
    """The networks that were trained again, with the spread of held-out days; where that failed, the judged ones."""
    residual = judged.select(again.symbols).residual
    left = tuple(symbol for symbol in judged.symbols if symbol not in again.symbols)
    states = [again.with_residual(residual).to_state()] + ([judged.select(left).to_state()] if left else [])
    return type(judged).from_states(states, again.facts)


def _kept(session: Session, forecaster: Forecaster,
          verdict: Verdict | None) -> tuple[Bundle | None, dict[str, dict[str, Any]]]:
    """The old bundle, and for every symbol whose old model stays what changes in its row of the manifest.

    A row with `kept_from` is of a model that is taken over; the others cannot be, and are rejects.
    """
    previous = (verdict.summary.get("previous") if verdict else None) or {}
    symbols = [symbol for symbol in previous.get("kept", []) if symbol in forecaster.symbols]
    if not symbols:
        return None, {}
    folder = session.ws.model_folder(previous["run_id"])
    try:
        old, why = load_bundle(folder), ""
    except (VnqError, OSError) as error:
        old, why = None, str(error)
    rows = {}
    for symbol in symbols:
        found = previous["symbols"][symbol]
        fell = (f"On the same days {found['new_accuracy']:.1%} of its 5-day directions are right, "
                f"{found['old_accuracy']:.1%} with the old model")
        if old is None or not _fits(old, forecaster, session.family, symbol):
            rows[symbol] = {"decision": "reject", "reasons": [
                f"{fell}: that one stays, in {folder}. It does not fit into this bundle: "
                f"{why or 'its family, architecture or features are others.'}"]}
            continue
        row = old.manifest["symbols"][symbol]
        reasons = row["reasons"][1:] if "kept_from" in row else row["reasons"]  # of the run that it came from
        source = row.get("kept_from", old.manifest["run_id"])
        rows[symbol] = {"decision": "review", "trained_to": row["trained_to"], "kept_from": source,
                        "reasons": [f"{fell}: the model of run {source} stays.", *reasons]}
    return old, rows


def _fits(old: Bundle, forecaster: Forecaster, family: str, symbol: str) -> bool:
    """Whether an old model can stand in one bundle with the new ones: same family, features, settings and shapes."""
    if old.manifest["family"] != family or symbol not in old.manifest["symbols"]:
        return False
    mine, theirs = (part.select((symbol,)).to_state() for part in (forecaster, old.forecaster))
    return mine.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape if hasattr(value, "shape") else value == theirs[name]
        for name, value in mine.items())


def _keep_calibration(manifest: dict[str, Any], old: Bundle | None) -> None:
    """Gives symbols that were taken over the numbers that their own bundle had for them.

    Those were fitted on days that the old networks had not seen. On this run's validation days they may well have been
    trained, and would look surer there than they are.
    """
    kept = [symbol for symbol, row in manifest["symbols"].items() if "kept_from" in row]
    stored = (old.manifest.get("calibration") if old else None) or {"slope": 1.0, "intercept": 0.0, "quantile": None,
                                                                    "own": {}}
    everyone = {name: stored[name] for name in ("slope", "intercept", "quantile")}
    for symbol in kept:
        own = stored["own"].get(symbol, everyone)
        quantile = everyone["quantile"] if own["quantile"] is None else own["quantile"]
        manifest["calibration"]["own"][symbol] = own | {"quantile": quantile}
    if kept:
        manifest["calibration"]["notes"].append(
            f"{name_a_few(kept)}: kept from an old bundle, with the calibration that it had there.")


def _manifest(session: Session, forecaster: Forecaster, verdict: Verdict | None, folder: Path,
              trained_to: dict[str, str], panel: Panel) -> dict[str, Any]:
    decided = verdict.symbols if verdict else {}
    symbols = {}
    for row, symbol in enumerate(forecaster.symbols):
        found = decided.get(symbol, UNJUDGED)
        symbols[symbol] = {
            "file": forecaster.file_name(symbol), "trained_to": trained_to[symbol],
            "decision": found["decision"], "reasons": found["reasons"],
            "residual": float(forecaster.residual[row]),
            "scaler": {"mean": forecaster.scaler.mean[row].tolist(), "spread": forecaster.scaler.spread[row].tolist(),
                       "target": float(forecaster.scaler.target[row])},
        }
    files = {row["file"]: {"sha256": sha256_of(folder / row["file"]), "bytes": (folder / row["file"]).stat().st_size}
             for row in symbols.values()}
    return {
        "format": FORMAT, "run_id": session.run_id, "family": session.family, "synthetic": session.synthetic,
        "trained_from": session.days["train"][0], "trained_to": max(trained_to.values()), "data_id": session.data_id,
        "market_symbols": list(panel.symbols),
        "market_index": has_index(session.ws, session.data_id),
        "code_version": __version__, "exported": utc_now(), "config": session.config.to_dict(),
        "horizon": session.config.model.horizon, "feature_names": list(forecaster.feature_names),
        "verdict": {"gate_set": verdict.gate_set, "summary": verdict.summary} if verdict else None,
        "symbols": symbols, "files": files,
    }
