"""Proof of no look-ahead: the future is changed or removed, and nothing up to a day may change by a single bit."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.cells import PRICES
from vnq_colab.data.cleaning import clean_prices, merge_files
from vnq_colab.data.features import FEATURES
from vnq_colab.data.market import EXCHANGES
from vnq_colab.data.panel import build_panel, fit_scaler
from vnq_colab.data.splits import to_day
from vnq_colab.errors import DataError

MOST_ROWS = 550_000  # 0.6 GB; of a larger table the days around the day are compared, three quarters of them before it


@dataclass(frozen=True, repr=False)
class LookaheadProof:
    """What was compared up to a day, in which worlds, and how many values differed."""

    at: str
    since: str  # the first day that was looked at
    table: pd.DataFrame  # world, what, values compared, values that differ, where (the first of them, in words)

    @property
    def passed(self) -> bool:
        return bool((self.table["differ"] == 0).all())

    def to_dict(self) -> dict:
        return {"at": self.at, "since": self.since, "passed": self.passed, "table": self.table.to_dict("records")}

    def __repr__(self) -> str:
        worlds, compared = self.table["world"].nunique(), int(self.table["compared"].sum())
        if self.passed:
            return (f"No look-ahead: from {self.since} to {self.at}, {compared:,} values are the same bits in {worlds} "
                    f"worlds with another future ({', '.join(self.table['world'].unique())}).")
        bad = self.table[self.table["differ"] > 0]
        return "\n".join([f"LOOK-AHEAD up to {self.at}: {int(bad['differ'].sum()):,} of {compared:,} values know the "
                          "future."] + [f"  {row.what}, {row.world}: {row.differ:,} differ, first {row.where}"
                                        for row in bad.itertuples()])

    def _repr_html_(self) -> str:
        what = self.table["what"].str.replace(r"^feature .*", f"{len(FEATURES)} features", regex=True)
        counts = self.table.assign(what=what).groupby(["what", "world"], sort=False)[["compared", "differ"]].sum()
        cells = counts["differ"].map("{:,}".format) + " of " + counts["compared"].map("{:,}".format)
        bad = self.table[self.table["differ"] > 0]
        return (f"<p><b>{html.escape(repr(self).splitlines()[0])}</b></p><p>Values that differ:</p>"
                + cells.unstack(sort=False).rename_axis(None).rename_axis(None, axis=1).to_html()
                + ("" if bad.empty else bad.to_html(index=False)))


def prove_no_lookahead(prices: pd.DataFrame, at: str | pd.Timestamp | None = None, *,
                       index: pd.DataFrame | None = None, seed: int = 0,
                       on_bad_rows: str = "treat", treatments: Mapping[str, str] | None = None) -> LookaheadProof:
    """Compares, bit for bit up to the day `at`, all that training sees with what it sees under other futures.

    `prices` may be clean or raw, then cleaned as in `clean_prices`; rows of several files are merged first, which is a
    decision about files, not about days. None puts the day at four fifths of the days. Raises DataError when there is
    no day on both sides of it.
    """
    days = np.sort(prices["date"].unique())
    if len(days) < 2:
        raise DataError(f"there are prices of {len(days)} day. Bring the history; a file of one day belongs into "
                        "data/weekly_updates, beside the history.")
    day = pd.Timestamp(days[int(0.8 * (len(days) - 1))]) if at is None else to_day(at)
    if not days[0] <= day < days[-1]:
        raise DataError(f"at = {day:%Y-%m-%d}: name a day from {pd.Timestamp(days[0]):%Y-%m-%d} on and before "
                        f"{pd.Timestamp(days[-1]):%Y-%m-%d}, so that there is a future to change.")
    how = {"on_bad_rows": on_bad_rows, "treatments": treatments}
    if "file" in prices:
        prices = merge_files(prices, **how)
    n_days, place = int(MOST_ROWS / len(prices) * len(days)), int(np.searchsorted(days, day.to_datetime64()))
    span = days[max(0, place - 3 * n_days // 4):][:max(n_days, 8)]
    prices = prices if n_days >= len(days) else prices[prices["date"].between(span[0], span[-1])]
    known = _known(prices, index, day, how)
    rows = [{"world": world, **fact} for world, *other in _worlds(prices, index, day, np.random.default_rng(seed))
            for fact in _compare(known, _known(*other, day, how))]
    return LookaheadProof(f"{day:%Y-%m-%d}", f"{prices['date'].min():%Y-%m-%d}", pd.DataFrame(rows))


def _worlds(prices: pd.DataFrame, index: pd.DataFrame | None, day: pd.Timestamp, random: np.random.Generator,
            ) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame | None]]:
    """Other futures of the same past: what they are, and their prices and index."""
    future = prices[prices["date"] > day].copy()
    past, n = prices[prices["date"] <= day], len(future)
    jumps = np.where(random.random((n, 1)) < 0.01, random.normal(0, 0.5, (n, 1)), 0)  # for cleaning to decide on
    future[[*PRICES]] = future[[*PRICES]].to_numpy() * np.exp(random.normal(0.3, 0.02, (n, 1)) + jumps)
    future["volume"] = (future["volume"].to_numpy() * random.integers(0, 20, n)).astype(prices["volume"].dtype)
    if "raw_close" in future.columns:
        future["raw_close"] = future["raw_close"] * random.uniform(0.5, 2.0, n)
    if "exchange" in future.columns:
        future["exchange"] = random.choice(EXCHANGES, n)
    after = None
    if index is not None:
        later = index["date"] > day
        after = index.assign(close=index["close"].where(~later, index["close"] * random.uniform(0.5, 2.0, len(index))))
    yield "every later value changed", pd.concat([past, future], ignore_index=True), after
    names = pd.unique(prices["symbol"])
    gone = set(random.choice(names, max(1, len(names) // 3), replace=False))
    listed = future[future["symbol"].isin(names[: max(1, len(names) // 3)])]
    yield "stocks delisted and listed", pd.concat(
        [past, future[~future["symbol"].isin(gone)], listed.assign(symbol="A0" + listed["symbol"]),
         listed.assign(symbol="Z9" + listed["symbol"])], ignore_index=True), after
    del future, listed
    yield "no later rows", past, None if index is None else index[index["date"] <= day]


@dataclass(frozen=True)
class _Block:
    """Values `[rows, columns]`, and of which symbol and day (or which symbol) each row is."""

    keys: tuple[np.ndarray, ...]
    values: np.ndarray
    columns: tuple[str, ...] = ()  # named where each is reported by itself


def _known(prices: pd.DataFrame, index: pd.DataFrame | None, day: pd.Timestamp,
           how: Mapping[str, Any]) -> dict[str, _Block]:
    """All that is known at the close of a day, by name."""
    clean, _ = clean_prices(prices, **how)
    panel, kept = build_panel(clean, index), clean[clean["date"] <= day]
    so_far = np.asarray(panel.days <= day)
    symbol, place = np.nonzero(panel.present & so_far)
    scaler, symbols = fit_scaler(panel, so_far), np.array(panel.symbols, object)
    listed = np.unique(symbol)  # a stock that is listed later is not known yet
    rows = symbols[symbol], panel.days.to_numpy()[place]
    return {
        "cleaned rows": _Block((kept["symbol"].to_numpy(object), kept["date"].to_numpy()),
                               kept.select_dtypes("number").to_numpy("float64")),
        "scaler": _Block((symbols[listed],), np.column_stack(scaler)[listed]),
        "returns": _Block(rows, panel.returns[symbol, place][:, None]),
        "feature": _Block(rows, panel.values[symbol, place], tuple(FEATURES)),
    }


def _compare(known: dict[str, _Block], other: dict[str, _Block]) -> Iterator[dict[str, object]]:
    """How many values differ in their bits, and the first of them in words; rows that only one world has count."""
    for name, block in known.items():
        mine, theirs = block.values, other[name].values
        if not all(map(np.array_equal, block.keys, other[name].keys)):
            here, there = (pd.MultiIndex.from_arrays(one.keys) for one in (block, other[name]))
            odd = here.symmetric_difference(there)
            yield {"what": name, "compared": mine.size, "differ": len(odd) * mine.shape[1],
                   "where": f"{_in_words(odd[0])}: the row is there in one world only"}
            continue
        differ = _bits(mine) != _bits(theirs)
        n_by_column = np.count_nonzero(differ, axis=0)
        parts = [(f"{name} {column}", [place]) for place, column in enumerate(block.columns)]
        for what, columns in parts or [(name, [*range(mine.shape[1])])]:
            where, n_differ = "", int(n_by_column[columns].sum())
            if n_differ:
                row, column = (int(axis[0]) for axis in np.nonzero(differ[:, columns]))
                where = (f"{_in_words([key[row] for key in block.keys])}: {mine[row, columns[column]]} became "
                         f"{theirs[row, columns[column]]}")
            yield {"what": what, "compared": len(mine) * len(columns), "differ": n_differ, "where": where}


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _in_words(key: Any) -> str:
    return " ".join(str(part)[:10] for part in key)
