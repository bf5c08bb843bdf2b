"""A prepared data set: clean prices, panel and splits in one folder, named by the content of the data."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import pandas as pd

from vnq_colab import __version__
from vnq_colab.clock import utc_now
from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.data.features import FEATURES
from vnq_colab.data.findings import CleaningReport
from vnq_colab.data.gathered import Gathered, gather
from vnq_colab.data.market import VN102
from vnq_colab.data.panel import Panel, build_panel, data_id
from vnq_colab.data.splits import Splits, check_folds, yearly_folds
from vnq_colab.data.synthetic import is_synthetic, synthetic_prices
from vnq_colab.data.target_leaks import find_leaks
from vnq_colab.errors import DataError, VnqError
from vnq_colab.files import (
    read_json,
    read_sealed,
    require_space,
    sha256_of,
    storage_error,
    write_atomic,
    write_json,
    write_sealed,
)
from vnq_colab.layout import Workspace
from vnq_colab.settings import Rule

PROOF = "lookahead.json"  # in the folder of a set that was reviewed
DataId = Annotated[str, Rule("must be 12 hex digits", re.compile(r"[0-9a-f]{12}").fullmatch)]


class _Facts(TypedDict):
    """prepared.json: what was prepared, from what, and the sha256 of every other file."""

    data_id: DataId
    version: str
    prepared: str
    source: str
    synthetic: bool
    index: bool
    symbols: int
    features: list[str]
    feature_means: list[float]
    files: dict[str, str]


class _Current(TypedDict):
    """current.json: which set is the current one."""

    data_id: DataId
    prepared: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Prepared(Gathered):
    """All that training, validation and export need of the data."""

    folder: Path
    panel: Panel
    folds: list[Splits]  # that a run judges unless it asks for others; none where the market is too short

    @property
    def synthetic(self) -> bool:
        return is_synthetic(self.panel.symbols)

    def __repr__(self) -> str:
        title = f"Prepared data {self.panel.data_id}" + (f" — {SYNTHETIC_NOTE}" if self.synthetic else "")
        market = "the mean of all stocks" if self.index is None else f"the index, {len(self.index):,} days"
        folds = (f"{len(self.folds)} folds: tested {self.folds[0].test.first} to {self.folds[-1].test.last}, each by "
                 "models trained before it" if self.folds else "too short to train and judge")
        return "\n  ".join([title, repr(self.panel), folds, f"market: {market}", repr(self.cleaning)])


def prepare(ws: Workspace, data: str | Path | pd.DataFrame | None, *, index: str | Path | pd.DataFrame | None = None,
            as_of: str | None = None, on_bad_rows: str | None = None, treatments: dict[str, str] | None = None,
            unit: "str | dict[str, str] | None" = None) -> Prepared:
    """Reads, cleans and splits prices, builds the panel, and keeps it all in `data/prepared/<data_id>/`.

    `data` and the options are those of `gather`. The set becomes the current one, which `train` takes; where the same
    data is stored already, its panel is taken as it stands. Data more than 5 sessions older than `as_of` brings a
    warning.
    """
    ws.check_writable()
    market = gather(ws, data, index=index, as_of=as_of, on_bad_rows=on_bad_rows, treatments=treatments, unit=unit)
    folder = ws.prepared / data_id(market.prices, market.index)
    stored = _stored(ws, folder)
    panel = build_panel(market.prices, market.index) if stored is None else stored.panel
    leaks = find_leaks(panel, market.prices, market.index, market.rows)
    market = replace(market, cleaning=replace(market.cleaning, leaks=leaks))
    folds: list[Splits] = []
    with contextlib.suppress(DataError):  # too short to train on; it can be looked at, and forecast from
        folds = yearly_folds(panel.days)
    prepared = Prepared(**vars(market), folder=folder, panel=panel, folds=folds)
    if stored is None:
        _write(prepared)
    write_sealed(folder / "cleaning.json", market.cleaning.to_dict())  # of this time's files, whoever wrote the set
    write_sealed(ws.prepared / "current.json", {"data_id": folder.name, "prepared": utc_now()})
    return prepared


def prepared_prices(ws: Workspace) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Prices and index of the current set, without its panel. Raises DataError when it is not whole."""
    with _whole(ws.prepared / current_id(ws)) as folder:
        return _tables(folder, _facts(folder, "prices.parquet", "index.parquet"))


def load_prepared(ws: Workspace, data_id: str | None = None) -> Prepared:
    """The prepared set with this id; None takes the current one. Raises DataError when there is none."""
    with _whole(ws.prepared / (data_id or current_id(ws))) as folder:
        facts = _facts(folder)
        if tuple(facts["features"]) != tuple(FEATURES):
            raise DataError(f"{folder}: prepared with {len(facts['features'])} features by version {facts['version']}, "
                            f"this code computes {len(FEATURES)}. Run prepare again on the same prices.")
        if (folder / PROOF).exists() and read_json(folder / PROOF, dict[str, Any]).get("passed") is not True:
            raise DataError(f"{folder}: its proof failed, something in it knows the future ({PROOF} says what). Repair "
                            "that and run prepare again.")
        prices, index = _tables(folder, facts)
        panel, folds = Panel.load(folder / "panel.parquet"), read_json(folder / "splits.json", list[Splits])
        check_folds(folds, panel.days)
        return Prepared(folder=folder, prices=prices, index=index, panel=panel, folds=folds,
                        cleaning=read_sealed(folder / "cleaning.json", CleaningReport))


def current_id(ws: Workspace) -> str:
    """The id of the set that was prepared last. Raises DataError when there is none."""
    try:
        return read_sealed(ws.prepared / "current.json", _Current)["data_id"]
    except FileNotFoundError:
        raise DataError(f"{ws.root}: nothing is prepared yet. Run prepare first.") from None


def keep_panel(ws: Workspace, panel: Panel) -> None:
    """Stores a panel built by hand, so that its run can be resumed; leaves alone a stored one that holds all of it."""
    path = ws.prepared / panel.data_id / "panel.parquet"
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):  # not there, or damaged
        if set(panel.symbols) <= {*pd.read_parquet(path, columns=["symbol"])["symbol"].cat.categories}:
            return
    panel.save(path)


def load_panel(ws: Workspace, data_id: str) -> Panel:
    """The stored panel of a run's data. Raises DataError when it is gone or is of other data."""
    path = ws.prepared / data_id / "panel.parquet"
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: the data of this run is gone. Prepare the same prices again.") from None
    except OSError as error:  # Drive does not answer
        raise storage_error(path, error) from error
    if (path.parent / "prepared.json").exists():  # it was not built by hand
        _facts(path.parent, path.name)
    panel = Panel.load(path)
    if panel.data_id != data_id:
        raise DataError(f"{path}: holds data {panel.data_id}, its folder says {data_id}. "
                        "Prepare the same prices again.")
    return panel


def default_universe(panel: Panel) -> tuple[str, ...]:
    """The symbols of VN102 that the data has; every stock of the data when it has none of them."""
    return tuple(symbol for symbol in VN102 if symbol in panel.symbols) or panel.symbols


def has_index(ws: Workspace, data_id: str) -> bool | None:
    """Whether a prepared set has a market index; None where that is unknown, as of a panel that was built by hand."""
    try:
        return _facts(ws.prepared / data_id, "prepared.json")["index"]
    except FileNotFoundError:
        return None


def _facts(folder: Path, *names: str) -> _Facts:
    """prepared.json, whose seal holds, as do its sha256 of these files (of all that it names unless some are named).

    Raises DataError for a file that is not what `prepare` wrote.
    """
    facts = read_sealed(folder / "prepared.json", _Facts)
    for name, digest in facts["files"].items():
        if (not names or name in names) and sha256_of(folder / name) != digest:
            raise DataError(f"{folder / name}: not what prepare wrote. Prepare the same prices again.")
    return facts


def _tables(folder: Path, facts: _Facts) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The stored prices and index of a set."""
    prices = pd.read_parquet(folder / "prices.parquet")
    index = pd.read_parquet(folder / "index.parquet") if facts["index"] else None
    is_sound = (prices[["open", "high", "low", "close"]] > 0).all(axis=None) and (prices["volume"] >= 0).all()
    if not is_sound or not (index is None or ((index["close"] > 0).all() and index["date"].is_unique)):
        raise DataError(f"{folder}: its prices or its index are not clean. Prepare the same prices again.")
    return prices, index


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Raises DataError for whatever cannot be read of a set."""
    try:
        yield folder
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{folder}: the prepared set is not whole ({error}). Prepare the same prices again.") from error


def _stored(ws: Workspace, folder: Path) -> Prepared | None:
    """The set in a folder; None where it is not whole, is damaged, or was computed by other code."""
    try:
        means = _facts(folder, "prepared.json")["feature_means"]
        is_ours = np.allclose(means, _feature_means(), rtol=1e-4, atol=1e-6)
        return load_prepared(ws, folder.name) if is_ours else None
    except (OSError, VnqError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _feature_means() -> list[float]:
    """The mean of each feature on a small synthetic market: code that computes other features has other means."""
    return build_panel(synthetic_prices(3, 150)).values.mean(axis=(0, 1), dtype="float64").tolist()


def _write(prepared: Prepared) -> None:
    folder = prepared.folder
    (folder / PROOF).unlink(missing_ok=True)  # it was about what stood here before
    require_space(folder, 2 * prepared.panel.values.nbytes, "the prepared data set")
    prepared.panel.save(folder / "panel.parquet")
    write_json(folder / "splits.json", [fold.to_dict() for fold in prepared.folds])
    names = ["panel.parquet", "splits.json"]
    for name, table in (("prices.parquet", prepared.prices), ("index.parquet", prepared.index)):
        if table is not None:
            write_atomic(folder / name, lambda file, table=table: table.to_parquet(file, index=False))
            names.append(name)
    write_sealed(folder / "prepared.json", {  # last: its presence says that the set is whole
        "data_id": prepared.panel.data_id, "version": __version__, "prepared": utc_now(),
        "source": prepared.cleaning.source, "synthetic": prepared.synthetic, "index": prepared.index is not None,
        "symbols": len(prepared.panel.symbols), "features": list(FEATURES),
        "feature_means": _feature_means(), "files": {name: sha256_of(folder / name) for name in names},
    })
