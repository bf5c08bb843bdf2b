"""All prices that a person has, read once and cleaned; and the prepared set: these, the panel and the folds, stored."""

import contextlib
import datetime as dt
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd

from vnq_colab import __version__
from vnq_colab.clock import utc_now
from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.features import FEATURES
from vnq_colab.data.findings import CleaningReport
from vnq_colab.data.lookahead import find_leaks
from vnq_colab.data.market import count_sessions
from vnq_colab.data.panel import Panel, build_panel, data_id
from vnq_colab.data.prices import Reading, Unit, load_index, read_prices, typed_prices
from vnq_colab.data.splits import Splits, folds_if_any, to_day, up_to
from vnq_colab.data.synthetic import is_synthetic, synthetic_prices
from vnq_colab.data.unpack import fetched, price_files
from vnq_colab.errors import DataError, VnqError
from vnq_colab.files import read_json, read_sealed, require_space, sha256_of, write_atomic, write_json, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.notebook import Shown
from vnq_colab.progress import now
from vnq_colab.settings import Rule, record

MARKET_INDEX = "VNINDEX"
MOST_SESSIONS = 5  # prices whose last day is older are stale: `prepare` warns, `predict` refuses
Source = str | Path | pd.DataFrame | None
PROOF = "lookahead.json"  # in the folder of a set that was reviewed
DataId = Annotated[str, Rule("must be 12 hex digits", re.compile(r"[0-9a-f]{12}").fullmatch)]


@dataclass(frozen=True, kw_only=True, repr=False)
class Gathered:
    """Cleaned prices, and what they were cleaned from."""

    prices: pd.DataFrame
    index: pd.DataFrame | None  # of the market; None: there is none
    cleaning: CleaningReport
    rows: pd.DataFrame | None = None  # as they were read; None in a set that was loaded
    cleaning_options: dict[str, Any] = field(default_factory=lambda: {"on_bad_rows": "treat"})  # of `clean_prices`


@dataclass(frozen=True, kw_only=True, repr=False)
class Prepared(Shown, Gathered):
    """All that training, validation and export need of the data."""

    folder: Path
    panel: Panel
    folds: list[Splits]  # that a run judges unless it asks for others; none where the market is too short

    @property
    def synthetic(self) -> bool:
        return is_synthetic(self.panel.symbols)

    @property
    def note(self) -> str:
        """What every output must say about the data; empty for real prices."""
        return SYNTHETIC_NOTE * self.synthetic

    def __repr__(self) -> str:
        title = f"Prepared data {self.panel.data_id}" + f" — {self.note}".rstrip(" —")
        market = "the mean of all stocks" if self.index is None else f"the index, {len(self.index):,} days"
        folds = (f"{len(self.folds)} folds: tested {self.folds[0].test.first} to {self.folds[-1].test.last}, each by "
                 "models trained before it" if self.folds else "too short to train and judge")
        return "\n  ".join([title, repr(self.panel), folds, f"market: {market}", repr(self.cleaning)])


def gather(ws: Workspace, data: Source, *, index: Source = None, as_of: str | None = None,
           on_bad_rows: str | None = None, treatments: dict[str, str] | None = None, unit: Unit = None) -> Gathered:
    """All that the person has, read once and cleaned.

    `data` is what `load_prices` reads, with the files of `data/weekly_updates/` merged into it; a table, which stands
    alone; or None: the files of `data/raw/` and the updates, or the synthetic market. Without `index` a VNINDEX among
    the files is taken when it covers nearly all days. `as_of` (None: today) is the last day that is known.
    """
    day = to_day(as_of or dt.date.today().isoformat())
    now("reading prices")
    reading = _read_all(ws, data, unit, on_bad_rows)
    rows = reading.prices if as_of is None else up_to(reading.prices, day)
    source = str(data) if isinstance(data, (str, Path)) else str(ws.raw) if reading.files else "the price table"
    options = {"on_bad_rows": on_bad_rows or reading.on_bad_rows, "treatments": treatments}
    now(f"cleaning {len(rows):,} rows")
    prices, cleaning = clean_prices(rows, source=source, files=reading.files, **options)
    if index is None:
        index, warnings = _index_among(reading.index[reading.index["date"] <= day], prices)
    else:
        index = up_to(load_index(index), day)
        warnings = _gaps(prices, index)
    cleaning = replace(cleaning, warnings=reading.warnings + cleaning.warnings + staleness(prices, day) + warnings)
    return Gathered(prices=prices, index=index, cleaning=cleaning, rows=rows, cleaning_options=options)


def _read_all(ws: Workspace, data: Source, unit: Unit, on_bad_rows: str | None) -> Reading:
    """The rows as they stand in `data` and in `data/weekly_updates/`, nothing repaired."""
    if isinstance(data, pd.DataFrame):
        return Reading(typed_prices(data, "the price table"))
    paths = [folder for folder in (ws.raw, ws.weekly_updates) if price_files(folder)]
    if data is not None:
        paths = [fetched(data), *(path for path in paths if path == ws.weekly_updates)]
    if not paths:
        return Reading(typed_prices(synthetic_prices(n_days=1080, last_day="2026-01-30"), "the price table"))
    return read_prices(paths, unit=unit, on_bad_rows=on_bad_rows)


def staleness(prices: pd.DataFrame, as_of: pd.Timestamp) -> list[str]:
    """A warning when the newest price is more than 5 sessions older than a day; none for synthetic prices."""
    last = prices["date"].max()
    n_sessions = count_sessions(last, as_of)
    if n_sessions <= MOST_SESSIONS or is_synthetic(prices["symbol"].unique()):
        return []
    return [f"the newest prices are of {last:%Y-%m-%d}, {n_sessions} sessions before {as_of:%Y-%m-%d}: "
            "bring newer files, or name the day with --as-of (in Python: as_of=)"]


def _index_among(series: pd.DataFrame, prices: pd.DataFrame) -> tuple[pd.DataFrame | None, list[str]]:
    """The VNINDEX among the files, None unless it has a close on 99 of 100 trading days; and warnings."""
    series = series[series["symbol"] == MARKET_INDEX]
    index = series.loc[series["close"] > 0, ["date", "close"]].reset_index(drop=True)
    warnings = [f"{MARKET_INDEX}: {len(series) - len(index)} rows without a positive close are left out"]
    gaps = [f"the {MARKET_INDEX} among the files is not used, the market is the mean of all stocks: {gap}"
            for gap in _gaps(prices, index) if len(index)]
    return (index if len(index) and not gaps else None), warnings * (len(index) < len(series)) + gaps


def _gaps(prices: pd.DataFrame, index: pd.DataFrame) -> list[str]:
    """A warning when the index misses more than one trading day in a hundred: there the market stands still."""
    days = prices["date"].drop_duplicates()
    missing = ~days.isin(index["date"])
    if missing.mean() <= 0.01:
        return []
    return [f"the index has no value on {int(missing.sum()):,} of {len(days):,} trading days "
            f"({days[missing].min():%Y-%m-%d} to {days[missing].max():%Y-%m-%d}): bring a longer one"]


# prepared.json: what was prepared, from what, and the sha256 of every other file; current.json: the current set
_Facts = record("Facts", **dict.fromkeys(("version", "prepared", "source"), str), data_id=DataId, synthetic=bool,
                index=bool, symbols=int, features=list[str], feature_means=list[float], files=dict[str, str])
_Current = record("Current", data_id=DataId, prepared=str)


def prepare(ws: Workspace, data: Source, *, index: Source = None, as_of: str | None = None,
            on_bad_rows: str | None = None, treatments: dict[str, str] | None = None, unit: Unit = None) -> Prepared:
    """Gathers prices as `gather` does, and keeps them with panel and folds as the current set of `data/prepared/`."""
    ws.check_writable()
    market = gather(ws, data, index=index, as_of=as_of, on_bad_rows=on_bad_rows, treatments=treatments, unit=unit)
    now(f"computing {len(FEATURES)} features of {market.prices['symbol'].nunique()} stocks")
    folder = ws.prepared / data_id(market.prices, market.index)
    panel = None
    with contextlib.suppress(OSError, VnqError, ValueError):  # it is not there, not whole, or of other code
        if np.allclose(_facts(folder, "prepared.json")["feature_means"], _feature_means(), rtol=1e-4, atol=1e-6):
            panel = load_prepared(ws, folder.name).panel
    is_new = panel is None
    panel = build_panel(market.prices, market.index) if is_new else panel
    now("searching for leaks in the data")
    leaks = find_leaks(panel, market.prices, market.index, market.rows)
    market = replace(market, cleaning=replace(market.cleaning, leaks=leaks))
    prepared = Prepared(**vars(market), folder=folder, panel=panel, folds=folds_if_any(panel.days))
    if is_new:
        now("writing the prepared set")
        _write(prepared)
    write_sealed(folder / "cleaning.json", asdict(market.cleaning))  # of this time's files, whoever wrote the set
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
        panel = Panel.load(folder / "panel.parquet")
        if not tuple(facts["features"]) == panel.feature_names == tuple(FEATURES):
            raise DataError(f"{folder}: version {facts['version']} computed other features. Run prepare again.")
        if (folder / PROOF).exists() and read_json(folder / PROOF, dict[str, Any]).get("passed") is not True:
            raise DataError(f"{folder}: something in it knows the future ({PROOF} says what). Run prepare again.")
        prices, index = _tables(folder, facts)
        folds = read_json(folder / "splits.json", list[Splits])
        cleaning = read_sealed(folder / "cleaning.json", CleaningReport)
        if folds != folds_if_any(panel.days) or cleaning.rows_kept != len(prices):
            raise DataError(f"{folder}: its folds, or its cleaning log, are not of these days. Run prepare again.")
        return Prepared(folder=folder, prices=prices, index=index, panel=panel, folds=folds, cleaning=cleaning)


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
    if not os.path.exists(path):
        raise DataError(f"{path}: the data of this run is gone. Connect Drive, or prepare the same prices again.")
    if os.path.exists(path.parent / "prepared.json"):  # it was not built by hand
        _facts(path.parent, path.name)
    panel = Panel.load(path)
    if panel.data_id != data_id:
        raise DataError(f"{path}: holds data {panel.data_id}, not {data_id}. Prepare the same prices again.")
    return panel


def has_index(ws: Workspace, data_id: str) -> bool | None:
    """Whether a prepared set has a market index; None where that is unknown, as of a panel that was built by hand."""
    folder = ws.prepared / data_id
    return _facts(folder, "prepared.json")["index"] if (folder / "prepared.json").exists() else None


def _facts(folder: Path, *names: str) -> _Facts:
    """prepared.json, once it fits these files, or all. Raises DataError for a file that `prepare` did not write."""
    facts = read_sealed(folder / "prepared.json", _Facts)
    for name, digest in facts["files"].items():
        if (not names or name in names) and sha256_of(folder / name) != digest:
            raise DataError(f"{folder / name}: not what prepare wrote. Prepare the same prices again.")
    return facts


def _tables(folder: Path, facts: _Facts) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """The stored prices and index of a set."""
    prices = pd.read_parquet(folder / "prices.parquet")
    index = pd.read_parquet(folder / "index.parquet") if facts["index"] else None
    if data_id(prices, index) != folder.name:
        raise DataError(f"{folder}: its prices or its index are not those of its name. Prepare the same prices again.")
    return prices, index


@contextlib.contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """Raises DataError for whatever cannot be read of a set."""
    try:
        yield folder
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{folder}: the prepared set is not whole ({error}). Prepare the same prices again.") from error


def _feature_means() -> list[float]:
    """The mean of each feature on a small synthetic market: code that computes other features has other means."""
    return build_panel(synthetic_prices(3, 150)).values.mean(axis=(0, 1), dtype="float64").tolist()


def _write(prepared: Prepared) -> None:
    folder = prepared.folder
    (folder / PROOF).unlink(missing_ok=True)  # it was about what stood here before
    require_space(folder, 2 * prepared.panel.values.nbytes, "the prepared data set")
    prepared.panel.save(folder / "panel.parquet")
    write_json(folder / "splits.json", [asdict(fold) for fold in prepared.folds])
    names = ["panel.parquet", "splits.json"]
    for name, table in (("prices.parquet", prepared.prices), ("index.parquet", prepared.index)):
        if table is not None:
            write_atomic(folder / name, lambda file, table=table: table.to_parquet(file, index=False))
            names.append(name)
    write_sealed(folder / "prepared.json", {  # last: its presence says that the set is whole
        "data_id": prepared.panel.data_id, "version": __version__, "prepared": utc_now(),
        "source": prepared.cleaning.source, "synthetic": prepared.synthetic, "index": prepared.index is not None,
        "symbols": len(prepared.panel.symbols), "features": list(FEATURES), "feature_means": _feature_means(),
        "files": {name: sha256_of(folder / name) for name in names}})
