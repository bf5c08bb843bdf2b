"""Proof of no look-ahead: the future is changed or removed, and nothing up to a day may change by a single bit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.features import FEATURES, compute_features
from vnq_colab.data.panel import Panel, fit_scaler
from vnq_colab.data.splits import to_day
from vnq_colab.errors import DataError

PRICES = ["open", "high", "low", "close"]


@dataclass(frozen=True, repr=False)
class LookaheadProof:
    """What was compared up to a day, in which worlds, and how many values differed."""

    at: str
    table: pd.DataFrame  # world, what, values compared, values that differ, where (the first of them, in words)

    @property
    def passed(self) -> bool:
        return bool((self.table["differ"] == 0).all())

    def to_dict(self) -> dict:
        return {"at": self.at, "passed": self.passed, "table": self.table.to_dict("records")}

    def __repr__(self) -> str:
        worlds, compared = self.table["world"].nunique(), int(self.table["compared"].sum())
        if self.passed:
            return (f"No look-ahead: up to {self.at}, {compared:,} values are the same bits in {worlds} worlds with "
                    f"another future ({', '.join(self.table['world'].unique())}).")
        bad = self.table[self.table["differ"] > 0]
        return "\n".join([f"LOOK-AHEAD up to {self.at}: {int(bad['differ'].sum()):,} of {compared:,} values know the "
                          "future."] + [f"  {row.what}, {row.world}: {row.differ:,} differ, first {row.where}"
                                        for row in bad.itertuples()])

    def _repr_html_(self) -> str:
        return f"<p><b>{repr(self).splitlines()[0]}</b></p>{self.table.to_html(index=False)}"


def prove_no_lookahead(prices: pd.DataFrame, at: str | pd.Timestamp | None = None, *,
                       index: pd.DataFrame | None = None, seed: int = 0) -> LookaheadProof:
    """Compares, bit for bit up to the day `at`, all that training sees with what it sees under other futures.

    The worlds: every later price, volume, exchange and index value changed; stocks delisted and listed that day; no
    later row at all. Compared: the cleaned rows, each feature with its ranks and market series, returns, presence, the
    scaler of the days so far, and the scaled values that windows are cut from. `prices` may be clean or raw; None puts
    the day at four fifths of the days. Raises DataError when there is no day on both sides of it.
    """
    days = np.sort(prices["date"].unique())
    if at is None:
        day = pd.Timestamp(days[int(0.8 * (len(days) - 1))])
    else:
        day = to_day(f"{at:%Y-%m-%d}" if isinstance(at, pd.Timestamp) else at)
    if not days[0] <= day < days[-1]:
        raise DataError(f"at = {day:%Y-%m-%d}: name a day from {pd.Timestamp(days[0]):%Y-%m-%d} on and before "
                        f"{pd.Timestamp(days[-1]):%Y-%m-%d}, so that there is a future to change.")
    true = _seen(prices, index, day)
    rows = []
    for world, (other, other_index) in _worlds(prices, index, day, np.random.default_rng(seed)):
        for name, seen in _seen(other, other_index, day).items():
            rows += [{"world": world, **found} for found in _compare(name, true[name], seen)]
    return LookaheadProof(f"{day:%Y-%m-%d}", pd.DataFrame(rows))


def _worlds(prices: pd.DataFrame, index: pd.DataFrame | None, day: pd.Timestamp, random: np.random.Generator,
            ) -> "list[tuple[str, tuple[pd.DataFrame, pd.DataFrame | None]]]":
    """Other futures of the same past."""
    future = prices[prices["date"] > day].copy()
    past, n = prices[prices["date"] <= day], len(future)
    jumps = np.where(random.random((n, 1)) < 0.01, random.normal(0, 0.5, (n, 1)), 0)  # for cleaning to decide on
    future[PRICES] = future[PRICES].to_numpy() * np.exp(random.normal(0.3, 0.02, (n, 1)) + jumps)
    future["volume"] = (future["volume"].to_numpy() * random.integers(0, 20, n)).astype(prices["volume"].dtype)
    if "raw_close" in future.columns:
        future["raw_close"] = future["raw_close"] * random.uniform(0.5, 2.0, n)
    if "exchange" in future.columns:
        future["exchange"] = random.choice(["HOSE", "HNX", "UPCOM"], n)
    after = None
    if index is not None:
        later = index["date"] > day
        after = index.assign(close=index["close"].where(~later, index["close"] * random.uniform(0.5, 2.0, len(index))))
    names = pd.unique(prices["symbol"])
    gone = set(random.choice(names, max(1, len(names) // 3), replace=False))
    listed = future[future["symbol"].isin(names[: max(1, len(names) // 3)])]
    turnover = pd.concat([past, future[~future["symbol"].isin(gone)], listed.assign(symbol="A0" + listed["symbol"]),
                          listed.assign(symbol="Z9" + listed["symbol"])], ignore_index=True)
    return [("every later value changed", (pd.concat([past, future], ignore_index=True), after)),
            ("stocks delisted and listed", (turnover, after)),
            ("no later rows", (past, None if index is None else index[index["date"] <= day]))]


@dataclass(frozen=True)
class _Seen:
    """A block of values `[rows, columns]`, and of which symbol and day (or which symbol) each row is."""

    keys: tuple[np.ndarray, ...]
    values: np.ndarray
    columns: tuple[str, ...] = ()  # named where each is reported by itself


def _seen(prices: pd.DataFrame, index: pd.DataFrame | None, day: pd.Timestamp) -> dict[str, _Seen]:
    """All that is known on the evening of a day."""
    clean, _ = clean_prices(prices, on_bad_rows="treat")
    market = compute_features(clean, index)
    panel = Panel(market.values, market.returns, market.present, market.symbols, market.days, tuple(FEATURES), "proof")
    last = int(panel.days.searchsorted(day, side="right"))
    there = np.flatnonzero(panel.present[:, :last].any(axis=1))  # a stock that is listed later is not known yet
    scaler = fit_scaler(panel, panel.days[0], day).select(there)
    values, present = panel.values[there, :last], panel.present[there, :last]
    symbols = np.asarray(panel.symbols, dtype=object)[there]
    symbol, place = np.nonzero(present)
    keys = symbols[symbol], panel.days.to_numpy()[place]
    kept = clean[clean["date"] <= day]
    numbers = kept.select_dtypes("number").to_numpy("float64")
    return {
        "cleaned rows": _Seen((kept["symbol"].to_numpy(object), kept["date"].to_numpy()), numbers),
        "returns": _Seen(keys, panel.returns[there, :last][present][:, None]),
        "feature": _Seen(keys, values[present], tuple(FEATURES)),
        "scaler": _Seen((symbols,), np.column_stack([scaler.mean, scaler.spread, scaler.target])),
        "windows": _Seen(keys, scaler.scale(values, present)[present]),
    }


def _compare(name: str, true: _Seen, found: _Seen) -> Iterator[dict[str, object]]:
    """How many values differ in their bits, and the first of them in words; rows that only one side has count."""
    if not all(np.array_equal(here, there) for here, there in zip(true.keys, found.keys, strict=True)):
        odd = set(zip(*true.keys, strict=True)) ^ set(zip(*found.keys, strict=True))
        yield {"what": name, "compared": true.values.size, "differ": len(odd) * true.values.shape[1],
               "where": f"{_in_words(min(odd))}: the row is there in one world only"}
        return
    bits = f"u{true.values.dtype.itemsize}"
    differ = np.ascontiguousarray(true.values).view(bits) != np.ascontiguousarray(found.values).view(bits)
    blocks = [(f"{name} {column}", [place]) for place, column in enumerate(true.columns)]
    for what, columns in blocks or [(name, list(range(differ.shape[1])))]:
        block, where = differ[:, columns], ""
        if block.any():
            row, column = (int(axis[0]) for axis in np.nonzero(block))
            where = (f"{_in_words([key[row] for key in true.keys])}: {true.values[row, columns[column]]} became "
                     f"{found.values[row, columns[column]]}")
        yield {"what": what, "compared": block.size, "differ": int(block.sum()), "where": where}


def _in_words(key: Sequence[object]) -> str:
    return " ".join(str(part)[:10] for part in key)
