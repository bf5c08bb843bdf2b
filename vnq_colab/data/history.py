"""Prices as blocks: each symbol's own trading days, the market's calendar, and the ways between."""

import functools

import numpy as np
import pandas as pd

from vnq_colab.errors import DataError


class History:
    """Prices as `[rows, symbols]`: each symbol's own trading days from the top, NaN below its last one."""

    def __init__(self, prices: pd.DataFrame, index: pd.DataFrame | None = None):
        prices = prices.sort_values(["symbol", "date"], ignore_index=True)
        codes, names = pd.factorize(prices["symbol"], sort=True)
        dates = prices["date"].to_numpy("datetime64[ns]")
        self.symbols = tuple(str(name) for name in names)
        self.days = pd.DatetimeIndex(np.unique(dates))
        starts = np.searchsorted(codes, np.arange(len(names)))
        rows = np.arange(len(prices)) - starts[codes]
        self.symbol = codes  # [table rows]: which symbol the k-th row of the price table belongs to ...
        self.day = self.days.searchsorted(dates)  # ... and which day of the calendar
        self._cell = rows, codes  # ... and where it stands in [rows, symbols]
        self._shape = (int(rows.max()) + 1, len(names))
        self.open, self.high, self.low, self.close, self.volume = (
            self._pack(prices[name].to_numpy("float64")) for name in ("open", "high", "low", "close", "volume")
        )
        self.previous_close = shift(self.close, 1)
        self.returns = np.log(self.close / self.previous_close)
        self.market_returns = self._market_returns(index)  # [days] log return
        self.market = self._pack(np.nan_to_num(self.market_returns)[self.day])  # the same, on each symbol's own days
        self.weekday = self._pack(self.days.day_of_week.to_numpy("float64")[self.day])

    def _pack(self, values: np.ndarray) -> np.ndarray:
        """`[table rows] -> [rows, symbols]`."""
        packed = np.full(self._shape, np.nan)
        packed[self._cell] = values
        return packed

    def to_rows(self, packed: np.ndarray) -> np.ndarray:
        """`[rows, symbols] -> [table rows]`."""
        return packed[self._cell]

    def to_days(self, packed: np.ndarray) -> np.ndarray:
        """`[rows, symbols] -> [days, symbols]`, NaN where a symbol is absent."""
        by_day = np.full((len(self.days), len(self.symbols)), np.nan)
        by_day[self.day, self.symbol] = packed[self._cell]
        return by_day

    def from_days(self, by_day: np.ndarray) -> np.ndarray:
        """`[days, symbols] -> [rows, symbols]`."""
        return self._pack(by_day[self.day, self.symbol])

    def from_market(self, series: np.ndarray) -> np.ndarray:
        """`[days] -> [rows, symbols]`: a series of the whole market on each symbol's own days."""
        return self._pack(series[self.day])

    @functools.cached_property
    def returns_by_day(self) -> np.ndarray:
        return self.to_days(self.returns)

    def _market_returns(self, index: pd.DataFrame | None) -> np.ndarray:
        """`[days]` log return of the index, else the equal-weighted mean of the stocks present."""
        if index is None:
            count = np.isfinite(self.returns_by_day).sum(axis=1)
            return np.nansum(self.returns_by_day, axis=1) / np.maximum(count, 1)
        closes = index.set_index("date")["close"].sort_index()
        if not closes.index.is_unique or not (closes > 0).all():
            raise DataError("the index needs one positive close per day. Repair the file, or leave --index out.")
        closes = closes.reindex(self.days, method="ffill").to_numpy("float64")  # a day without index: no move
        return np.log(closes / shift(closes, 1))


def shift(values: np.ndarray, rows: int) -> np.ndarray:
    """`[rows, ...] -> [rows, ...]`: the value that stood `rows` rows earlier, NaN at the top."""
    moved = np.full_like(values, np.nan)
    moved[rows:] = values[:-rows]
    return moved


def rolling(values: np.ndarray, days: int, how: str, min_days: int | None = None) -> np.ndarray:
    """`[rows, symbols] -> [rows, symbols]`: mean, std, min, max, sum, skew of the last `days` rows."""
    window = pd.DataFrame(values).rolling(days, min_periods=min_days or days)
    return getattr(window, how)().to_numpy()


def smoothed(values: np.ndarray, alpha: float) -> np.ndarray:
    """`[rows, symbols] -> [rows, symbols]`: exponential mean, new = alpha * value + (1 - alpha) * old."""
    return pd.DataFrame(values).ewm(alpha=alpha, adjust=False, ignore_na=True).mean().to_numpy()


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their ratio, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=np.abs(denominator) > 1e-12)
