"""The Panel: every symbol, day and feature in one block, unscaled, with the identity of the data it came from.

Where a symbol did not trade on a day of the market, `present` is False, its features are 0 and its prices NaN.
"""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as parquet

from vnq_colab import __version__
from vnq_colab.data.features import FEATURES
from vnq_colab.data.history import MarketSeries, in_order, within_day_ranks
from vnq_colab.data.market import VN102
from vnq_colab.errors import DataError, did_you_mean, name_a_few
from vnq_colab.files import open_regular, write_atomic
from vnq_colab.settings import HORIZON

FLAT = 1e-6  # [log return] a 5-day outcome nearer to zero is "unchanged": closes are equal, sums of floats are not
PRICES = ("open", "high", "low", "close", "traded_value")
OPEN, CLOSE = 0, 3
BYTES_A_CELL = 500  # [bytes of memory] of symbols x days, beside the price table, until all is prepared
SAVED_AT_ONCE = 200_000  # [symbols x days] rows are written in groups of so many
FEW_CELLS, MOST_EMPTY = 5_000_000, 6  # [symbols x days] of a panel: 1.2 GB; the whole market has 2 of a price
SCALED_BOUND = 5.0  # [standard deviations] a scaled feature is clipped here: what training never saw stays bounded


@dataclass(frozen=True, repr=False)
class Panel:
    """Features and prices of all symbols on all days; unscaled, each day from its own past alone."""

    values: np.ndarray  # [symbols, days, features] float32, finite
    prices: np.ndarray  # [symbols, days, 5] float64: open, high, low, close, traded value [VND]; NaN where absent
    present: np.ndarray  # [symbols, days] bool
    symbols: tuple[str, ...]
    days: pd.DatetimeIndex
    feature_names: tuple[str, ...]
    data_id: str

    def __post_init__(self) -> None:
        shape = (len(self.symbols), len(self.days), len(self.feature_names))
        expected = shape, (*shape[:2], len(PRICES)), shape[:2]
        if (self.values.shape, self.prices.shape, self.present.shape) != expected:
            raise DataError(f"panel: values {self.values.shape}, prices {self.prices.shape} and present "
                            f"{self.present.shape} do not fit [symbols, days, features] = {shape}.")
        if not np.isfinite(self.values).all():
            symbol, day, feature = (int(axis[0]) for axis in np.nonzero(~np.isfinite(self.values)))
            raise DataError(f"panel: {self.symbols[symbol]} {self.days[day]:%Y-%m-%d}: feature "
                            f"{self.feature_names[feature]} is not finite.")

    @functools.cached_property
    def returns(self) -> np.ndarray:
        """`[symbols, days]` daily log return of the close; NaN where absent and on a symbol's first day."""
        returns = np.full(self.present.shape, np.nan)
        for row, present in enumerate(self.present):
            close = self.prices[row, present, CLOSE]
            returns[row, np.flatnonzero(present)[1:]] = np.log(close[1:] / close[:-1])
        return returns

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """`[symbols, days, features]` float32: each feature's rank among the panel's stocks of the day, -1 to 1."""
        ranks = np.empty_like(self.values)
        for place in range(len(self.feature_names)):
            ranks[:, :, place] = within_day_ranks(np.where(self.present, self.values[:, :, place], np.nan))
        return np.nan_to_num(ranks, copy=False)

    def rows(self, symbols: Sequence[str]) -> np.ndarray:
        """The places of these symbols in the panel. Raises DataError for unknown ones."""
        rows = pd.Index(self.symbols).get_indexer(symbols)
        if unknown := [symbol for symbol, row in zip(symbols, rows, strict=True) if row < 0]:
            raise DataError(f"the data has no symbol {name_a_few(unknown)}.{did_you_mean(unknown[0], self.symbols)}")
        return rows

    def select(self, symbols: Sequence[str]) -> "Panel":
        """The same days and features for some of the symbols, in the order given."""
        rows = self.rows(symbols)
        return Panel(self.values[rows], self.prices[rows], self.present[rows], tuple(symbols), self.days,
                     self.feature_names, self.data_id)

    def ahead(self, horizon: int = HORIZON, column: int = CLOSE) -> np.ndarray:
        """`[symbols, days]` log return over the next `horizon` days; NaN where not known, or absent on one of its days.

        From close to close; with `column` OPEN from the next day's open, which is what can be traded.
        """
        log, delay = np.log(self.prices[:, :, column]), 1 if column == OPEN else 0
        ahead = np.full(log.shape, np.nan)
        n_days = log.shape[1] - horizon - delay
        if n_days > 0:
            ahead[:, :n_days] = log[:, horizon + delay:] - log[:, delay:n_days + delay]
        ahead[~self.present] = np.nan
        return ahead

    def save(self, path: Path) -> None:
        """Writes a parquet file: one row per symbol and present day, features as float32."""
        facts = {"data_id": self.data_id, "days": [f"{day:%Y-%m-%d}" for day in self.days]}
        schema, step = self._rows(0, 0).schema, max(1, SAVED_AT_ONCE // len(self.days))
        schema = schema.with_metadata(schema.metadata | {"PANDAS_ATTRS": json.dumps(facts)})

        def write(file: BinaryIO) -> None:
            with parquet.ParquetWriter(file, schema, compression="zstd", use_dictionary=["symbol", "date"]) as writer:
                for first in range(0, len(self.symbols), step):
                    writer.write_table(self._rows(first, first + step))

        write_atomic(path, write)

    def _rows(self, first: int, end: int) -> pa.Table:
        """The rows of some symbols, as they are stored."""
        symbol, day = np.nonzero(self.present[first:end])
        symbol += first
        columns = dict(zip(PRICES, self.prices[symbol, day].T, strict=True))
        columns |= dict(zip(self.feature_names, self.values[symbol, day].T, strict=True))
        names = pd.Categorical.from_codes(symbol, list(self.symbols))
        return pa.Table.from_pandas(pd.DataFrame({"symbol": names, "date": self.days[day], **columns}))

    @classmethod
    def load(cls, path: Path) -> "Panel":
        """The panel that `save` wrote. Raises DataError when the file is not one."""
        try:
            with open_regular(path) as opened, parquet.ParquetFile(opened) as file:
                n_rows, size = file.metadata.num_rows, os.fstat(opened.fileno()).st_size
                if n_rows * file.metadata.num_columns > size * 2 + 10_000_000:  # a value takes 3 bytes and more
                    raise ValueError(f"{n_rows:,} rows in {size:,} bytes")
                facts, n_read = json.loads(file.metadata.metadata[b"PANDAS_ATTRS"]), 0
                days = pd.DatetimeIndex(facts["days"]).as_unit("ns")
                symbols = tuple(file.read_row_group(0, ["symbol"]).to_pandas()["symbol"].cat.categories)
                names = tuple(name for name in file.schema_arrow.names if name not in ("symbol", "date", *PRICES))
                _refuse_sparse(len(symbols), len(days), n_rows)
                values = np.zeros((len(symbols), len(days), len(names)), dtype="float32")
                prices, present = np.full((*values.shape[:2], len(PRICES)), np.nan), np.zeros(values.shape[:2], bool)
                for group in range(file.num_row_groups):  # all at once they are a second panel
                    table = file.read_row_group(group).to_pandas()
                    symbol = table["symbol"].cat.set_categories(symbols).cat.codes.to_numpy()
                    place = symbol, days.get_indexer(table["date"])
                    values[place] = table[list(names)].to_numpy("float32")
                    prices[place], present[place] = table[list(PRICES)].to_numpy("float64"), True
                    n_read += len(table)
                    if min(map(np.min, place)) < 0 or present.sum() < n_read:
                        raise ValueError("rows of no symbol or no day, or two of one")
        except Exception as error:  # what pandas and pyarrow raise on a damaged file
            raise DataError(f"{path}: not a panel of this library ({error}). Run prepare again.") from error
        return cls(values, prices, present, symbols, days, names, facts["data_id"])

    def __repr__(self) -> str:
        return (f"Panel {self.data_id}: {len(self.symbols)} symbols × {len(self.days):,} days × "
                f"{len(self.feature_names)} features, {self.days[0]:%Y-%m-%d} to {self.days[-1]:%Y-%m-%d}, "
                f"{self.present.mean():.0%} present")


class Scaler(NamedTuple):
    """Mean and spread of each feature and of the daily return, per symbol, from training days only."""

    mean: np.ndarray  # [symbols, features] float32
    spread: np.ndarray  # [symbols, features] float32, positive
    target: np.ndarray  # [symbols] float32, positive: root mean square of the daily log return

    def scale(self, values: np.ndarray, present: np.ndarray) -> np.ndarray:
        """`[symbols, days, features] -> [symbols, days, features]`: standardised, clipped, 0 where absent."""
        scaled = np.empty(values.shape, dtype="float32")
        mean, spread = (np.broadcast_to(part, (len(values), part.shape[1])) for part in self[:2])
        for row, block in enumerate(scaled):  # one symbol at a time fits the caches
            np.subtract(values[row], mean[row], out=block)
            np.divide(block, spread[row], out=block)
            np.clip(block, -SCALED_BOUND, SCALED_BOUND, out=block)
        scaled[~present] = 0
        return scaled


def fit_scaler(panel: Panel, train: np.ndarray) -> Scaler:
    """The scaler of the days marked in `train [days]`; a symbol absent throughout gets mean 0, spread 1."""
    mean = np.zeros((len(panel.symbols), len(panel.feature_names)))
    spread = np.ones_like(mean)
    for row, present in enumerate(panel.present & train):
        if present.any():
            values = panel.values[row, present].astype("float64")  # [days, features]
            mean[row] = values.mean(axis=0)
            variance = values.var(axis=0)
            spread[row] = np.where(variance > 1e-12, np.sqrt(variance), 1.0)  # a constant feature stays constant
    daily = panel.returns[:, train]
    known = np.isfinite(daily)
    target = np.sqrt((np.where(known, daily, 0) ** 2).sum(axis=1) / np.maximum(known.sum(axis=1), 1))
    target = np.where(target > 1e-6, target, 0.02)  # 2 % a day: a symbol without a move has no spread of its own
    return Scaler(mean.astype("float32"), spread.astype("float32"), target.astype("float32"))


def _refuse_sparse(n_symbols: int, n_days: int, n_rows: int) -> None:
    """Raises a DataError for a block that would be empty nearly everywhere, and need memory without end."""
    if n_symbols * n_days > max(FEW_CELLS, MOST_EMPTY * n_rows):
        raise DataError(f"{n_symbols:,} symbols on {n_days:,} days have {n_rows:,} prices, on fewer than one day in "
                        f"{MOST_EMPTY}: they are not of one market and time. Bring stocks that traded side by side.")


def build_panel(prices: pd.DataFrame, index: pd.DataFrame | None = None) -> Panel:
    """The Panel of a cleaned price table; `index` is a table `date, close`, None the mean of all stocks."""
    if prices.empty:
        raise DataError("the price table has no rows, so there is nothing to compute features from.")
    market = MarketSeries(prices, index)
    _refuse_sparse(len(market.symbols), len(market.days), len(prices))
    place, shape = (market.symbol, market.day), (len(market.symbols), len(market.days))
    if (needed := BYTES_A_CELL * shape[0] * shape[1]) > (free := psutil.virtual_memory().available):
        raise DataError(f"{shape[0]:,} symbols on {shape[1]:,} days need about {needed / 1e9:,.1f} GB of memory, and "
                        f"{free / 1e9:.1f} GB are free. Bring fewer stocks or days.")
    values = np.zeros((*shape, len(FEATURES)), dtype="float32")
    with np.errstate(invalid="ignore", divide="ignore"):
        for history in market.histories():
            columns = np.array([item.clipped(history) for item in FEATURES.values()], dtype="float32")
            values[history.symbol, history.day] = columns.T  # [table rows, features]
    present, blocks, table = np.zeros(shape, dtype=bool), np.full((*shape, len(PRICES)), np.nan), market.table
    present[place] = True
    blocks[place] = np.column_stack([*(table[name] for name in PRICES[:4]), table["close"] * table["volume"]])
    return Panel(values, blocks, present, market.symbols, market.days, tuple(FEATURES), data_id(prices, index))


def default_universe(panel: Panel) -> tuple[str, ...]:
    """The symbols of VN102 that the data has; every stock of the data when it has none of them."""
    return tuple(symbol for symbol in VN102 if symbol in panel.symbols) or panel.symbols


def data_id(prices: pd.DataFrame, index: pd.DataFrame | None = None) -> str:
    """Hash of the values themselves, in any order, and of what this version computes of them, 12 hex digits."""
    digest = hashlib.sha256(__version__.encode())
    digest.update(repr([(item.name, item.formula, item.low, item.high) for item in FEATURES.values()]).encode())
    rows, symbols, names = in_order(prices)

    def add(table: pd.DataFrame, *columns: str) -> None:
        digest.update(table["date"].to_numpy("datetime64[D]").astype("<i8"))
        for name in columns:
            digest.update(table[name].to_numpy("<i8" if name == "volume" else "<f8").tobytes())

    def add_lines(codes: np.ndarray, words: pd.Index) -> None:
        digest.update("\n".join(np.array([str(word) for word in words], dtype=object)[codes]).encode())

    add_lines(symbols, names)
    add(rows, *PRICES[:4], "volume", *(["raw_close"] if "raw_close" in rows else []))
    if "exchange" in rows:
        add_lines(*pd.factorize(rows["exchange"], use_na_sentinel=False))
    if index is not None:
        add(index.sort_values("date"), "close")
    return digest.hexdigest()[:12]
