"""Several files become one row per symbol and day: later files win, on the basis of the earlier ones."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from vnq_colab.data.columns import PRICES
from vnq_colab.data.diseases import DISEASES
from vnq_colab.data.findings import Finding

STEP = 10.0  # [VND] two sources that round to hundredths of a thousand VND may differ by that much
ROUNDING = 0.001  # chosen: what adjusted closes of one day differ by beside that, from dividends rounded on the way
SEAM_DAYS = 5  # common days whose median gives the ratio of two bases


def combine(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Raw rows of several files -> one row per symbol and day, sorted, without `file` and `unadjusted`; and findings.

    `rows` holds at most one row per symbol, day and file. Later files (in the category order of `file`) win on their
    days. A later file on another basis, after a dividend or a split, is rescaled to the earlier one's by the median
    ratio of the first 5 common days, so that the past keeps its bits; one that holds all earlier days replaces them.
    Volume, raw_close and exchange come from the latest file that has them. Unadjusted rows of a symbol that has
    adjusted ones give `raw_close` on common days, and after the last of them they are appended, scaled by the ratio
    there. The time grows with the rows, not with symbols times files.
    """
    rows = rows.assign(symbol=rows["symbol"].astype("category"))
    unadjusted = rows.pop("unadjusted").to_numpy(bool) if "unadjusted" in rows else np.zeros(len(rows), bool)
    file = rows.pop("file").array if "file" in rows else pd.Categorical.from_codes(np.zeros(len(rows), int), ["-"])
    if unadjusted.any():
        raw = rows["raw_close"].to_numpy() if "raw_close" in rows else np.full(len(rows), np.nan)
        rows["raw_close"] = np.where(unadjusted & np.isnan(raw), rows["close"], raw)
    symbol, layer = rows["symbol"].cat.codes.to_numpy("int64"), file.codes.astype("int64")
    order = np.lexsort((layer, rows["date"].to_numpy(), symbol))
    if not (order[1:] > order[:-1]).all():
        rows, file, unadjusted = rows.take(order), file[order], unadjusted[order]
        symbol, layer = symbol[order], layer[order]
    rows = rows.reset_index(drop=True)
    n_symbols = len(rows["symbol"].cat.categories)
    beside = unadjusted & (np.bincount(symbol[~unadjusted], minlength=n_symbols) > 0)[symbol]
    same = symbol[1:] == symbol[:-1]
    if not beside.any() and (layer[1:] == layer[:-1])[same].all():  # every symbol has a file of its own
        return rows, []
    merge = _Merge(rows, symbol, file, beside)
    return merge.table(), list(merge.findings())


class _Merge:
    """The rows of all files, sorted by symbol and day, and for each cell of symbol and day the row that stands."""

    def __init__(self, rows: pd.DataFrame, symbol: np.ndarray, file: pd.Categorical, beside: np.ndarray) -> None:
        self.rows, self.symbol, self.file = rows, symbol, file
        self.date, self.close = rows["date"].to_numpy(), rows["close"].to_numpy()
        new = np.r_[True, (symbol[1:] != symbol[:-1]) | (self.date[1:] != self.date[:-1])]
        self.cell = np.cumsum(new) - 1  # [rows] place of the symbol and day
        self.winner = np.full(int(self.cell[-1]) + 1, -1)  # [cells] row
        self.scale = np.ones(len(rows))  # [rows] brings a row to the basis of the earlier files
        self.days_held = np.zeros(len(rows["symbol"].cat.categories), "int64")  # [symbols]
        self.known = {name: (rows[name].notna() & (name != "exchange" or rows[name] != "")).to_numpy()
                      for name in ("volume", "raw_close", "exchange") if name in rows}
        self.latest = {name: np.full(len(self.winner), -1) for name in self.known}  # [cells] row that knows it
        self.replaced, self.disagree, self.apart = _Count(), _Count(), _Count()
        self.strangers, self.changed = [], []  # (first row, rows); (last common row, ratio, rows, whole)
        plain = np.flatnonzero(~beside)
        for of_layer in _layers(symbol[plain], file.codes[plain]):
            self._add(plain[of_layer])
        if beside.any():
            self._add_unadjusted(np.flatnonzero(beside))

    def _add(self, new: np.ndarray) -> None:
        """One more file of each of some symbols: `new` are its rows, sorted by symbol and day."""
        common = self.winner[self.cell[new]] >= 0
        here, there = new[common], self.winner[self.cell[new[common]]]  # rows of this file, rows of earlier ones
        symbol, level = self.symbol[here], self.close[here]
        ratio = self.close[there] * self.scale[there] / level  # the earlier basis / this file's
        tolerance = ROUNDING + STEP / level
        basis = np.ones(len(self.days_held))  # [symbols]
        begins, counts = _runs(symbol)
        if len(here):
            nth = np.arange(SEAM_DAYS)
            seam = ratio[np.minimum(begins[:, None] + nth, len(here) - 1)]  # [symbols of this file, days]
            median = np.nanmedian(np.where(nth < counts[:, None], seam, np.nan), axis=1)
            basis[symbol[begins]] = np.where(np.abs(median - 1) <= tolerance[begins], 1.0, median)
        n_common = np.bincount(symbol, minlength=len(basis))
        whole = (n_common > 0) & (n_common == self.days_held)  # it holds every earlier day, and replaces them all
        begins, counts = _runs(self.symbol[new])
        one = self.symbol[new[begins]]
        for place in np.flatnonzero((self.days_held[one] > 0) & (n_common[one] == 0)):
            self.strangers.append((new[begins[place]], counts[place]))
        for place in np.flatnonzero(basis[one] != 1):
            last = here[np.searchsorted(symbol, one[place], side="right") - 1]
            self.changed.append((last, 1 / basis[one[place]], counts[place], whole[one[place]]))
        differ = (np.abs(ratio / basis[symbol] - 1) > tolerance) & ~whole[symbol]
        self.disagree.add(here[differ], there[differ])
        self.replaced.add(here, there)
        basis[whole] = 1.0
        self.scale[new] = basis[self.symbol[new]]
        self.days_held += np.bincount(self.symbol[new[~common]], minlength=len(basis))
        self.winner[self.cell[new]] = new
        for name, known in self.known.items():
            self.latest[name][self.cell[new[known[new]]]] = new[known[new]]

    def _add_unadjusted(self, rows: np.ndarray) -> None:
        """Market prices beside adjusted ones: the raw close of common days, and what follows the last of them."""
        new = rows[np.r_[self.cell[rows[1:]] != self.cell[rows[:-1]], True]]  # of several files the last
        held = self.winner[self.cell[new]]
        adjusted = self.winner[self.winner >= 0]
        last_day = np.empty(len(self.days_held), self.date.dtype)
        last_day[self.symbol[adjusted]] = self.date[adjusted]  # in order of the days: the last one stays
        common, after = held >= 0, self.date[new] > last_day[self.symbol[new]]
        ratio = np.full(len(self.days_held), np.nan)
        ratio[self.symbol[new[common]]] = (self.close * self.scale)[held[common]] / self.close[new[common]]
        tail = new[after]
        self.scale[tail] = np.nan_to_num(ratio[self.symbol[tail]], nan=1.0)
        self.winner[self.cell[tail]] = tail
        self.strangers += [(tail[begin], count) for begin, count in zip(*_runs(self.symbol[tail]), strict=True)
                           if np.isnan(ratio[self.symbol[tail[begin]]])]
        self.apart.add(np.setdiff1d(rows, tail, assume_unique=True))
        for name, known in self.known.items():
            fills = new[(common | after) & known[new] & (self.latest[name][self.cell[new]] < 0)]
            self.latest[name][self.cell[fills]] = fills

    def table(self) -> pd.DataFrame:
        """The rows that stand, on one basis."""
        stands = self.winner >= 0
        row = self.winner[stands]
        table = self.rows.take(row).reset_index(drop=True)
        for name in PRICES:
            table[name] = table[name].to_numpy() * self.scale[row]
        for name, latest in self.latest.items():
            table[name] = self.rows[name].take(np.where(latest[stands] < 0, row, latest[stands])).array
        return table

    def findings(self) -> Iterator[Finding]:
        """What was merged, and how."""
        if self.replaced.n:
            here, there = self.replaced.first
            yield self._finding("several_files", "dropped, the later file's row stays", self.replaced.n, here,
                                f"in {self.file[there]} and {self.file[here]}")
        if self.apart.n:
            row, = self.apart.first
            yield self._finding("unadjusted_apart", "dropped, on common days its close is the raw close", self.apart.n,
                                row, f"unadjusted in {self.file[row]}")
        if self.disagree.n:
            here, there = self.disagree.first
            closes = " and ".join(f"{self.close[row] * self.scale[row]:,.0f} in {self.file[row]}"
                                  for row in (there, here))
            yield self._finding("sources_disagree", "kept, the later file's", self.disagree.n, here,
                                f"close {closes} [VND]")
        for treatment, whole in (("the later file's rows rescaled to the earlier basis", False),
                                 ("the later file holds all earlier days and replaces them", True)):
            found = [item for item in self.changed if item[3] == whole]
            if found:
                row, ratio, count, _ = min(found)
                what = "its history was replaced" if whole else f"the {count:,} rows of {self.file[row]} were rescaled"
                more = f"; and {len(found) - 1:,} more" if len(found) > 1 else ""
                yield Finding(DISEASES["basis_changed"].name, treatment, int(sum(item[2] for item in found)),
                              f"{self.rows['symbol'].iat[row]} ×{ratio:.3f} since {self.rows['date'].iat[row]:%Y-%m-%d}"
                              f" (a dividend or split rescaled its history), {what}{more}")
        if self.strangers:
            row, count = min(self.strangers)
            yield self._finding("no_common_day", "kept", int(sum(count for _, count in self.strangers)), row,
                                f"{count:,} rows of {self.file[row]} share no day with the files before")

    def _finding(self, slug: str, treatment: str, n_rows: int, row: int, words: str) -> Finding:
        where = f"{self.rows['symbol'].iat[row]} {self.rows['date'].iat[row]:%Y-%m-%d}"
        return Finding(DISEASES[slug].name, treatment, int(n_rows), f"{where}: {words}")


class _Count:
    """How many rows, and the first of them with its companions."""

    def __init__(self) -> None:
        self.n, self.first = 0, ()

    def add(self, *rows: np.ndarray) -> None:
        if len(rows[0]):
            first = tuple(int(column[0]) for column in rows)
            self.n, self.first = self.n + len(rows[0]), min(first, self.first or first)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal neighbours begin, and how long they are."""
    begins = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.zeros(0, "int64")
    return begins, np.diff(np.r_[begins, len(values)])


def _layers(symbol: np.ndarray, file: np.ndarray) -> Iterator[np.ndarray]:
    """First each symbol's first file, then each symbol's second, ...: places of their rows, in order."""
    n_files = int(file.max()) + 1
    pair, pairs = pd.factorize(symbol * n_files + file)
    order = np.argsort(pairs)
    begins, counts = _runs(pairs[order] // n_files)
    nth = np.empty(len(pairs), "int64")
    nth[order] = np.arange(len(pairs)) - np.repeat(begins, counts)
    layer = nth[pair].astype("int16" if nth.max() < 2**15 else "int64")  # of int16 the stable sort is a radix sort
    places = np.argsort(layer, kind="stable")
    yield from np.split(places, np.cumsum(np.bincount(layer))[:-1])
