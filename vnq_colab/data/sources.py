"""Several files become one row per symbol and day: later files win, on the basis of the earlier ones."""

import numpy as np
import pandas as pd

from vnq_colab.data.cells import PRICES
from vnq_colab.data.findings import CleaningLog

STEP = 10.0  # [VND] two sources that round to hundredths of a thousand VND may differ by that much
ROUNDING = 0.001  # chosen: what adjusted closes of one day differ by beside that, from dividends rounded on the way
SEAM_DAYS = 5  # common days whose median gives the ratio of two bases


def combine(rows: pd.DataFrame, log: CleaningLog) -> pd.DataFrame:
    """One row per symbol and day, without the columns `file` and `unadjusted`; what was merged is logged.

    `rows` are sorted by symbol, day and file, at most one row for each. Later files (in the category order of `file`)
    win on their days. One on another basis, after a dividend or a split, is rescaled to the earlier ones' by the median
    ratio of the first 5 common days, so that the past keeps its bits; one that holds all earlier days replaces them.
    Volume, raw_close and exchange come from the latest file that knows them. Unadjusted rows of a symbol that has
    adjusted ones give `raw_close` on common days and, scaled by the last common day, the prices after the last of them.
    """
    unadjusted = rows["unadjusted"].to_numpy(bool) if "unadjusted" in rows else np.zeros(len(rows), bool)
    file = rows["file"].array if "file" in rows else pd.Categorical.from_codes(np.zeros(len(rows), int), ["-"])
    rows = rows.drop(columns=["unadjusted", "file"], errors="ignore")
    if unadjusted.any():
        raw = rows["raw_close"].to_numpy() if "raw_close" in rows else np.full(len(rows), np.nan)
        rows["raw_close"] = np.where(unadjusted & np.isnan(raw), rows["close"], raw)
    symbol = rows["symbol"].cat.codes.to_numpy("int64")
    has_adjusted = np.bincount(symbol[~unadjusted], minlength=len(rows["symbol"].cat.categories)) > 0
    beside = unadjusted & has_adjusted[symbol]
    same_symbol = symbol[1:] == symbol[:-1]
    if not beside.any() and (file.codes[1:] == file.codes[:-1])[same_symbol].all():  # each symbol has a file of its own
        return rows
    merge = _Merge(rows, symbol)
    plain = np.flatnonzero(~beside)
    nth = pd.Series(file.codes[plain]).groupby(symbol[plain]).rank("dense").to_numpy(int)
    for number in range(1, nth.max(initial=0) + 1):  # each symbol's first file, then each symbol's second, ...
        merge.add(plain[nth == number])
    merge.add_unadjusted(np.flatnonzero(beside))
    merge.note(log, file)
    return merge.table(beside)


class _Merge:
    """All rows, sorted by symbol and day, and for each cell of symbol and day the row that stands."""

    def __init__(self, rows: pd.DataFrame, symbol: np.ndarray) -> None:
        self.rows, self.symbol, self.date, self.close = rows, symbol, rows["date"].to_numpy(), rows["close"].to_numpy()
        new = np.r_[True, (symbol[1:] != symbol[:-1]) | (self.date[1:] != self.date[:-1])]
        self.cell = np.cumsum(new) - 1  # [rows]
        self.row = np.full(self.cell[-1] + 1, -1)  # [cells] that stands
        self.n_days = np.zeros(len(rows["symbol"].cat.categories), int)  # [symbols] that have a row
        self.scale = np.ones(len(rows))  # [rows] brings prices to the basis of the earlier files
        self.differs_from = np.full(len(rows), -1)  # [rows] the earlier file's row whose close disagrees
        self.is_apart = np.zeros(len(rows), bool)  # [rows] of a file without a common day

    def add(self, new: np.ndarray) -> None:
        """One more file of each of some symbols: the places of its rows."""
        common = pd.DataFrame({"symbol": self.symbol[new], "here": new, "there": self.row[self.cell[new]]})
        common = common[common["there"] >= 0]
        here, there, symbol = (common[name].to_numpy() for name in ("here", "there", "symbol"))
        common["ratio"] = self.close[there] * self.scale[there] / self.close[here]
        common["tolerance"] = ROUNDING + STEP / self.close[here]
        by_symbol = common.groupby("symbol")
        seam = by_symbol.head(SEAM_DAYS).groupby("symbol")["ratio"].median()
        basis = np.ones(len(self.n_days))  # [symbols] the earlier basis / this file's
        basis[seam.index] = seam.where((seam - 1).abs() > by_symbol["tolerance"].first(), 1.0)
        n_common = np.bincount(symbol, minlength=len(basis))
        basis[n_common == self.n_days] = 1.0  # it holds every earlier day, and replaces them all
        differs = (common["ratio"] / basis[symbol] - 1).abs() > common["tolerance"]
        self.differs_from[here[differs]] = there[differs]
        self.is_apart[new] = ((self.n_days > 0) & (n_common == 0))[self.symbol[new]]
        self.scale[new] = basis[self.symbol[new]]
        self.n_days += np.bincount(self.symbol[new], minlength=len(basis)) - n_common
        self.row[self.cell[new]] = new

    def add_unadjusted(self, rows: np.ndarray) -> None:
        """Places of market prices beside adjusted ones: only those after the last adjusted day stand."""
        new = rows[~pd.Series(self.cell[rows]).duplicated(keep="last")]  # of several files the last
        adjusted = self.row[self.row >= 0]
        last_day = pd.Series(self.date[adjusted]).groupby(self.symbol[adjusted]).last()  # [symbols]
        there = self.row[self.cell[new]]
        here, there = new[there >= 0], there[there >= 0]
        ratio = pd.Series(self.close[there] * self.scale[there] / self.close[here]).groupby(self.symbol[here]).last()
        tail = new[self.date[new] > last_day.reindex(self.symbol[new]).to_numpy()]
        scale = ratio.reindex(self.symbol[tail])
        self.is_apart[tail], self.scale[tail] = scale.isna(), scale.fillna(1.0)
        self.row[self.cell[tail]] = tail

    def table(self, beside: np.ndarray) -> pd.DataFrame:
        """The rows that stand, on one basis, with the last known volume, raw close and exchange of their day."""
        names = [name for name in ("volume", "raw_close", "exchange") if name in self.rows]
        order = np.lexsort((~beside, self.cell))  # an unadjusted row tells only what no other one does
        known = self.rows[names].take(order).groupby(self.cell[order]).last()
        cells = np.flatnonzero(self.row >= 0)
        row = self.row[cells]
        table = self.rows.take(row).reset_index(drop=True)
        table[[*PRICES]] = table[[*PRICES]].to_numpy() * self.scale[row, None]
        return table.assign(**{name: known[name].array[cells] for name in names})

    def note(self, log: CleaningLog, file: pd.Categorical) -> None:
        """Logs what was merged, and how."""
        def disagreement(row: int) -> str:
            there = self.differs_from[row]
            if there < 0:
                return f"{file[row]} shares no day with the files before"
            earlier, later = (f"{self.close[one] * self.scale[one]:,.10g} in {file[one]}" for one in (there, row))
            return f"close {earlier} and {later} [VND]"

        dropped, stands = np.zeros((2, len(file)), bool)
        stands[self.row[self.row >= 0]] = True
        log.note("sources_disagree", self.rows, (self.differs_from >= 0) | self.is_apart, dropped,
                 describe=disagreement)
        log.note("basis_changed", self.rows, self.scale != 1, dropped,
                 describe=lambda row: f"prices of {file[row]} ×{self.scale[row]:.4g}")
        log.note("several_files", self.rows, ~stands, dropped, describe=lambda row: f"row of {file[row]}")
