"""The Bundle: the final fit of every family, and a manifest that a person can read, with the sha256 of everything."""

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from vnq_colab import __version__
from vnq_colab.clock import utc_now
from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import ENSEMBLE, ensemble_scores
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prepared import has_index, load_panel
from vnq_colab.delivery.champion import BUNDLE, read_pointer, sealed_or_none, write_pointer
from vnq_colab.errors import CheckpointError, DeliveryError, VnqError, name_a_few
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.calibration import Calibration, final_calibrations, with_volatility
from vnq_colab.evaluation.drift import Monitor, reference
from vnq_colab.evaluation.gates import Decided, Decision, Verdict
from vnq_colab.files import checked, read_bytes, read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Forecaster
from vnq_colab.models.states import assembled, read_state
from vnq_colab.notebook import Shown
from vnq_colab.settings import COUNT, Rule, Task, record
from vnq_colab.training.jobs import final_forecasters, fold_scores
from vnq_colab.training.session import Session

PAST_DAYS = 1000  # of history for the latest forecasts; chosen: the same numbers as of all, in a third of the time
FORMAT = 4  # of manifest.json
FACTS = ("run_id", "data_id", "code_version", "trained_to", "synthetic")  # in each file as in the manifest
Name = Annotated[str, Rule("must be a name, not a path", re.compile(r"(?!\.\.?$)[^/\\:\0]+").fullmatch)]

Symbol = record("Symbol", decision=Decision, reasons=list[str], families=list[str])
Judged = record("Judged", gate_set=str, summary=dict[str, Any], market=Decided)
FileFact = record("FileFact", family=str, symbols=list[str], bytes=int, sha256=str)
Manifest = record(  # manifest.json
    "Manifest", format=int, run_id=str, data_id=str, code_version=str, trained_to=str, synthetic=bool, exported=str,
    families=Annotated[list[str], Rule("must not be empty", bool)], judged_family=str, ensemble_families=list[str],
    market_symbols=list[str], market_index=bool | None, config=dict[str, Any], task=Task, feature_names=list[str],
    look_back=COUNT, calibration=dict[str, Calibration], verdict=Judged | None, basket=Basket | None,
    symbols=dict[str, Symbol], files=dict[Name, FileFact], monitor=Monitor)


@dataclass(frozen=True, eq=False, repr=False)
class Bundle(Shown):
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

    def recent_panel(self, prices: pd.DataFrame, index: pd.DataFrame | None, n_days: int) -> Panel:
        """The Panel that forecasts from the last `n_days` of a price table need, without what they do not see."""
        if not set(self.decisions) & set(prices["symbol"].unique()):
            raise DeliveryError(f"none of the bundle's symbols ({name_a_few(self.decisions)}) is in these prices.")
        first = self._recent(prices, n_days)
        return build_panel(prices[prices["date"] >= first], None if index is None else index[index["date"] >= first])

    def predict_latest(self, prices: pd.DataFrame | Panel, index: pd.DataFrame | None = None, *,
                       n_days: int = 1) -> pd.DataFrame:
        """The Forecast from the last `n_days` of a price table, with each symbol's `decision`, of every family.

        Give it every stock there is, not only the bundle's: ranks and the market's features are made of all of them.
        """
        panel = prices if isinstance(prices, Panel) else self.recent_panel(prices, index, n_days)
        forecast = self.predict(panel, panel.days[-n_days:])
        forecast.insert(3, "decision", forecast["symbol"].map(self.decisions))
        return forecast

    def __repr__(self) -> str:
        decisions, facts = list(self.decisions.values()), self.manifest
        counts = ", ".join(f"{decisions.count(name)} {name}" for name in dict.fromkeys(decisions))
        judged = f", judged by the {facts['verdict']['gate_set']} gates" if facts["verdict"] else ""
        return (f"Bundle {facts['run_id']}{' (SYNTHETIC market)' * facts['synthetic']}: {', '.join(self.forecasters)} "
                f"for {len(decisions)} symbols ({counts}){judged}, trained to {facts['trained_to']}, {self.folder}")


def export_bundle(session: Session, verdict: Verdict | None = None, *, panel: Panel | None = None) -> Bundle:
    """Writes the final fit with its decisions to a new folder, `models/<run_id>` or `-2` and so on: the challenger.

    A bundle that says the same already is not written again. Its calibration is that of the folds' validation days.
    `verdict` None takes the one that validation stored; a run without any is exported as unjudged; `panel` spares
    reading the run's own again. Raises SessionError while a job is missing.
    """
    verdict = stored_verdict(session) if verdict is None else verdict
    if verdict is not None and verdict.run_id not in ("", session.run_id):
        raise DeliveryError(f"the verdict is of run {verdict.run_id}, not of {session.run_id}. "
                            "Validate this run first.")
    panel = load_panel(session.ws, session.data_id) if panel is None else panel
    forecasters = final_forecasters(session)
    facts = {"run_id": session.run_id, "data_id": session.data_id, "code_version": __version__,
             "trained_to": f"{panel.days[-1]:%Y-%m-%d}", "synthetic": session.synthetic}
    manifest = json.loads(json.dumps(facts | _manifest(session, verdict, panel, forecasters, facts)))
    for number in itertools.count(1):
        folder = session.ws.models / (session.run_id + (f"-{number}" if number > 1 else ""))
        if not os.path.lexists(folder / "manifest.json"):
            for forecaster in forecasters.values():
                forecaster.save(folder, facts)
            write_sealed(folder / "manifest.json", manifest | {"exported": utc_now()})
            bundle = load_bundle(folder)
            break
        with contextlib.suppress(VnqError):  # damaged, or of another version: it stays as it is
            if read_sealed(folder / "manifest.json") | {"exported": ""} == manifest:
                bundle = load_bundle(folder)
                break
    _point_to(bundle)
    return bundle


def _point_to(bundle: Bundle) -> None:
    """A new bundle is the challenger; the champion where none loads, or none was accepted on as real a market."""
    models, name, pointer, champion, was_real = bundle.folder.parent, bundle.folder.name, None, None, False
    try:
        pointer = read_pointer(models)
    except DeliveryError as error:  # one of the bundles of this version may be the champion
        if any((sealed_or_none(path) or {}).get("format") == FORMAT
               for path in models.glob("*/manifest.json") if path.parent != bundle.folder):
            raise DeliveryError(f"{name} is written. {error}") from error
    changes, is_real = {}, not bundle.manifest["synthetic"]
    if pointer is None or pointer["champion"] != name:
        with contextlib.suppress(VnqError):
            was_real = bool(pointer) and not read_manifest(models / pointer["champion"])["synthetic"]
            champion = load_bundle(models / pointer["champion"]) if pointer else None
        stays = was_real > is_real or (champion is not None and was_real == is_real
                                       and champion.market_decision == "accept")
        previous = champion.folder.name if champion else pointer and pointer["previous"]
        changes = {"challenger": name} if stays else {
            "champion": name, "challenger": None, "previous": previous, "by": "export",
            "why": f"No accepted champion was there before. The verdict on its market is {bundle.market_decision}."}
    write_pointer(models, **changes)


def _manifest(session: Session, verdict: Verdict | None, panel: Panel, forecasters: dict[str, Forecaster],
              facts: dict[str, Any]) -> dict[str, Any]:
    """What manifest.json says beside the facts, but for the time."""
    config = session.config
    scores = fold_scores(session, panel)
    calibration = final_calibrations(scores, panel, config.task.horizon)
    is_watched = (scores["family"] == config.judged_family) & (scores["part"] == "test") & scores["symbol"].isin(
        session.ledger)
    contents = {name: content for one in forecasters.values() for name, content in one.contents(facts).items()}
    judged = verdict.to_dict() if verdict else {"symbols": {}, "summary": {}}
    basket, unjudged = judged["summary"].get("basket"), {"decision": "unjudged", "reasons": ["no verdict was found"]}
    if basket and not (isinstance(basket, dict) and {field.name for field in fields(Basket)} <= basket.keys()):
        raise DeliveryError("the stored verdict's basket is not whole. Validate again.")
    shown = _shown(forecasters, config)
    return shown | {
        "format": FORMAT, "exported": "", "market_symbols": list(panel.symbols),
        "market_index": has_index(session.ws, session.data_id),
        "task": config.to_dict()["task"], "feature_names": list(panel.feature_names),
        "calibration": {family: asdict(one) for family, one in calibration.items()},
        "verdict": {name: judged[name] for name in ("gate_set", "summary", "market")} if verdict else None,
        "basket": {field.name: basket[field.name] for field in fields(Basket)} if basket else None,
        "monitor": reference(panel, scores[is_watched]),
        "symbols": {symbol: {name: judged["symbols"].get(symbol, unjudged)[name] for name in unjudged}
                    | {"families": shown["symbols"].get(symbol, [])} for symbol in session.ledger},
        "files": {name: shown["files"][name] | {"bytes": len(contents[name]),
                                                "sha256": hashlib.sha256(contents[name]).hexdigest()}
                  for name in sorted(contents)}}


def _shown(forecasters: dict[str, Forecaster], config: RunConfig) -> dict[str, Any]:
    """What a manifest says that its files, and its config, show as well."""
    return {
        "families": list(forecasters), "judged_family": config.judged_family, "task": config.task,
        "ensemble_families": list(config.ensemble_families), "config": config.to_dict(),
        "look_back": max(one.look_back for one in forecasters.values()),
        "feature_names": {one.feature_names for one in forecasters.values()},
        "symbols": {symbol: [family for family, one in forecasters.items() if symbol in one.symbols]
                    for symbol in {symbol for one in forecasters.values() for symbol in one.symbols}},
        "files": {name: {"family": family, "symbols": list(symbols)}
                  for family, one in forecasters.items() for name, symbols in one.files().items()}}


def load_bundle(path: str | Path | Workspace) -> Bundle:
    """The bundle in a folder, or the champion of a workspace. VnqError unless each file is what the manifest says."""
    folder = Path(getattr(path, "models", path))
    if pointer := read_pointer(folder):
        folder /= pointer["champion"]
    manifest = read_manifest(folder)
    config, states = RunConfig.from_dict(manifest["config"]), {family: {} for family in manifest["families"]}
    for name, fact in manifest["files"].items():
        state = read_state(folder / name, read_verified(folder / name, fact))
        if any(state.get(fact) != manifest[fact] for fact in FACTS):
            raise DeliveryError(f"{folder / name}: is of another run than the manifest says. Export again.")
        states.setdefault(fact["family"], {})[folder / name] = state
    forecasters = {family: assembled(family, own, config.task, config.model) for family, own in states.items()}
    said = manifest | {
        "feature_names": {tuple(manifest["feature_names"])},
        "symbols": {symbol: row["families"] for symbol, row in manifest["symbols"].items() if row["families"]},
        "files": {name: {key: fact[key] for key in ("family", "symbols")} for name, fact in manifest["files"].items()},
        "config": config.to_dict() if manifest["config"].keys() >= config.to_dict().keys() - {"found_by"} else {}}
    wrong = [name for name, value in _shown(forecasters, config).items() if said[name] != value]
    if wrong or not forecasters.keys() >= {*config.ensemble_families} or any(
            one.family != name for name, one in manifest["calibration"].items()):
        raise DeliveryError(f"{folder}: its files do not fit together ({', '.join(wrong) or 'scales'}). Export again.")
    return Bundle(folder, manifest, forecasters)


def read_verified(path: Path, fact: dict[str, Any]) -> bytes:
    """The content of a bundle's file, read once: what is hashed is what is loaded. Raises VnqError for a wrong one."""
    try:
        content = read_bytes(path, fact["bytes"])
    except FileNotFoundError:
        raise DeliveryError(f"{path}: in the manifest but not in the folder. Copy the bundle again.") from None
    if hashlib.sha256(content).hexdigest() != fact["sha256"]:
        raise DeliveryError(f"{path}: its content is not what the manifest says. Copy the bundle again.")
    return content


def read_manifest(folder: Path) -> Manifest:
    """A bundle's manifest. Raises DeliveryError when there is none, or none of this version."""
    path = folder / "manifest.json"
    try:
        value = read_sealed(path)
        version = value.get("format")
        if version != FORMAT:
            raise DeliveryError(f"{path}: of a newer version of the library. Update vnq_colab."
                                if isinstance(version, int) and version > FORMAT else
                                f"{path}: of an earlier version of the library. Export its run again, or train again.")
        manifest = checked(path, Manifest, value)
    except FileNotFoundError:
        raise DeliveryError(f"{folder}: there is no manifest.json in it. Export first, or name a bundle's folder."
                            ) from None
    except CheckpointError as error:
        raise DeliveryError(f"{str(error).rstrip('.')} (export writes it).") from error
    if (named := BUNDLE.fullmatch(folder.name)) and named[1] != manifest["run_id"]:
        raise DeliveryError(f"{path}: is of run {manifest['run_id']}, in the folder of another. Export the run again.")
    return manifest


def stored_verdict(session: Session) -> Verdict | None:
    """The verdict that validation wrote for this run; None when it was not validated."""
    try:
        return Verdict.load(session.ws.report_folder(session.run_id) / "verdict.json")
    except FileNotFoundError:
        return None
    except (VnqError, KeyError, TypeError) as error:
        raise DeliveryError(f"the verdict of {session.run_id} cannot be read ({error}). Validate again.") from error
