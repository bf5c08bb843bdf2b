"""All registered features of a price table, on the market's calendar."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data import market_features, price_features  # noqa: F401  they register the features, prices first
from vnq_colab.data.history import Market
from vnq_colab.data.registry import FEATURES, Feature
from vnq_colab.errors import DataError

__all__ = ["FEATURES", "Feature", "MarketBlock", "compute_features", "features_table"]


@dataclass(frozen=True, repr=False)
class MarketBlock:
    """What `compute_features` returns: the parts of a Panel."""

    values: np.ndarray  # [symbols, days, features] float32
    prices: np.ndarray  # [symbols, days, 5] float64
    present: np.ndarray  # [symbols, days] bool
    symbols: tuple[str, ...]
    days: pd.DatetimeIndex


def compute_features(prices: pd.DataFrame, index: pd.DataFrame | None = None) -> MarketBlock:
    """All registered features of a cleaned price table, clipped to their bounds, on the market's calendar."""
    if prices.empty:
        raise DataError("the price table has no rows, so there is nothing to compute features from.")
    market = Market(prices, index)
    shape = (len(market.symbols), len(market.days))
    values = np.zeros((*shape, len(FEATURES)), dtype="float32")
    with np.errstate(invalid="ignore", divide="ignore"):
        for history in market.histories():
            columns = np.array([item.clipped(history) for item in FEATURES.values()], dtype="float32")
            values[history.symbol, history.day] = columns.T  # [table rows, features]
    present = np.zeros(shape, dtype=bool)
    present[market.symbol, market.day] = True
    blocks = np.full((*shape, 5), np.nan)
    table = market.table
    blocks[market.symbol, market.day] = np.column_stack(
        [*(table[name] for name in ("open", "high", "low", "close")), table["close"] * table["volume"]])
    return MarketBlock(values, blocks, present, market.symbols, market.days)


def features_table() -> pd.DataFrame:
    """The registry as a table: name, formula, unit, warm-up [days], source, low, high."""
    rows = [(f.name, f.formula, f.unit, f.warm_up_days, f.source, f.low, f.high) for f in FEATURES.values()]
    return pd.DataFrame(rows, columns=["name", "formula", "unit", "warm-up [days]", "source", "low", "high"])
