"""Cleaning: data-quality issues of raw rows are found, treated as was agreed, and logged.

A decision about a day uses rows up to that day, and a repair changes that day and later ones: the cleaned past keeps
its bits whatever follows. Only merging several files of one symbol may look at all their common days.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from vnq_colab.data.cells import NEEDED, OPTIONAL, PRICES
from vnq_colab.data.findings import CleaningLog, CleaningReport, FileFacts, plan_treatments
from vnq_colab.data.jumps import STEP, Places, band_limits, without_jumps
from vnq_colab.data.market import EXCHANGES
from vnq_colab.errors import DataError

LEAST_PRICE, MOST_PRICE, MOST_VOLUME = 1e-3, 1e9, 1e15  # [VND], [VND], [shares]
FAR_CLOSE = 1.5  # a close that far outside the day's range, as a ratio, makes neither of them believable
WIDEST_RANGE = 2.4  # high / low of a day inside the widest band: 1.4 / 0.6, and rounding
USUAL_DAYS = "30D"  # about 20 trading days
LEAST_SYMBOLS, FEW = 5, 0.05  # [symbols] that traded in that time before a day can be called closed; [fraction]
LONG_GAP, LEAST_DAYS = 5, 20  # [trading days] the second: from which on their distance is judged
STALE_TRADED, STALE = 30, 250  # [rows] with one close: with trades (17 in real prices), and in all (215)
ROUNDING = 0.001  # chosen: what two adjusted closes of a day differ by beside STEP, from dividends rounded on the way
SEAM_DAYS = 5  # common days whose median gives the ratio of two bases


def clean_prices(raw: pd.DataFrame, *, on_bad_rows: str = "raise", treatments: Mapping[str, str] | None = None,
                 source: str = "the price table", files: Iterable[FileFacts] = (),
                 ) -> tuple[pd.DataFrame, CleaningReport]:
    """A price table without bad rows, one row per symbol and day, sorted, and the report of what was found.

    `raw` has the columns of a price table, perhaps `unadjusted` and `file` (see `combine`). `on_bad_rows` decides on
    rows that are bad in themselves: "raise" names the first in a DataError, "drop" leaves them out, "treat" repairs
    what can be repaired. `treatments` chooses for single issues of `findings.ISSUES`, {"unit_jump": "keep"}.
    """
    log = CleaningLog(plan_treatments(on_bad_rows, treatments), source, len(raw))
    rows = _with_exchange(_on_trading_days(_merged(raw, log), log), log)
    places = Places.of(rows)
    rows = _flagged(without_jumps(rows, places, log), places, log)
    first, last = (f"{day:%Y-%m-%d}" for day in (rows["date"].min(), rows["date"].max()))
    return _named(rows), CleaningReport(source, len(raw), len(rows), int(rows["symbol"].nunique()), first, last,
                                        log.findings, files=list(files))


def merge_files(raw: pd.DataFrame, *, on_bad_rows: str, treatments: Mapping[str, str] | None) -> pd.DataFrame:
    """What `clean_prices` goes on with: the rows of all files repaired and merged, one per symbol and day."""
    return _named(_merged(raw, CleaningLog(plan_treatments(on_bad_rows, treatments), "the price table", len(raw))))


def _merged(raw: pd.DataFrame, log: CleaningLog) -> pd.DataFrame:
    return combine(_without_duplicates(*_sound(_sorted(raw), log), log), log)


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of a price table, symbols and exchanges as text."""
    return rows[[name for name in (*NEEDED, *OPTIONAL) if name in rows]].assign(
        **{name: rows[name].astype(rows[name].cat.categories.dtype) for name in {"symbol", "exchange"} & set(rows)})


def _sorted(raw: pd.DataFrame) -> pd.DataFrame:
    """The rows by symbol, day and file; symbols, exchanges and files as categories, exchanges as they are called."""
    rows = raw.assign(symbol=raw["symbol"].astype("category"))
    if "exchange" in rows:
        named = rows["exchange"].astype("category").array
        known = [str(name).strip().upper().replace("HSX", "HOSE") for name in named.categories]
        code = np.append(pd.Index(EXCHANGES).get_indexer(known), -1)  # the code -1 stays -1: not known
        rows["exchange"] = pd.Categorical.from_codes(code[named.codes], EXCHANGES)
    if "raw_close" in rows:  # only jumps are explained by it: one that is no price is not known
        rows["raw_close"] = rows["raw_close"].where(_is_price(rows["raw_close"].to_numpy("float64")))
    keys = [rows["file"].cat.codes.to_numpy()] if "file" in rows else []
    order = np.lexsort((*keys, rows["date"].to_numpy(), rows["symbol"].cat.codes.to_numpy()))
    return rows.take(order).reset_index(drop=True)


# ------------------------------------------------------------------------------------------------- rows in themselves
def _is_price(values: np.ndarray) -> np.ndarray:
    return (values >= LEAST_PRICE) & (values <= MOST_PRICE)


def _sound(rows: pd.DataFrame, log: CleaningLog) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows that are sound in themselves or could be repaired, and whose prices were repaired."""
    price = rows[[*PRICES]].to_numpy("float64", copy=True)  # [rows, 4]
    volume = np.rint(rows["volume"].to_numpy("float64"))
    dropped = np.zeros(len(rows), bool)

    def repair(issue: str, bad: np.ndarray, candle: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        at = np.flatnonzero(bad & ~dropped)
        candles, repairable = candle(price[at], volume[at]), np.zeros(len(rows), bool)
        repairable[at] = np.isfinite(candles).all(axis=1)
        repaired = log.note(issue, rows, bad, dropped, repairable=repairable)
        price[repaired] = candles[repaired[at]]
        return repaired

    from_close = repair("bad_price", ~_is_price(price).all(axis=1), _from_close)
    unknown = log.note("bad_volume", rows, ~((volume >= 0) & (volume <= MOST_VOLUME)), dropped)
    volume[unknown] = np.nan
    open_, high, low, close = price.T
    ranged = repair("bad_range", (np.minimum(open_, close) < low) | (np.maximum(open_, close) > high), _in_range)
    rows = rows.assign(**dict(zip(PRICES, price.T, strict=True)), volume=volume)
    return log.kept(rows, dropped), (from_close | ranged)[~dropped]


def _from_close(price: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """`[rows, 4] -> [rows, 4]`: open, high and low that are no price from those that are; NaN without a close."""
    is_price = _is_price(price)
    open_, high, low, close = np.where(is_price, price, np.nan).T
    open_ = np.where(is_price[:, 0], open_, close)
    high = np.where(is_price[:, 1], high, np.fmax(np.maximum(open_, close), low))
    low = np.where(is_price[:, 2], low, np.minimum(np.minimum(open_, close), high))
    return np.column_stack([open_, high, low, close])


def _in_range(price: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """`[rows, 4] -> [rows, 4]`: open and close between low and high; NaN where the four do not fit together."""
    open_, high, low, close = price.T
    is_swapped = (np.minimum(open_, close) >= high) & (np.maximum(open_, close) <= low)
    high, low = np.where(is_swapped, low, high), np.where(is_swapped, high, low)
    fits = (high >= low) & (close <= high * FAR_CLOSE) & (close >= low / FAR_CLOSE)
    high, low = np.maximum(high, close), np.minimum(low, close)
    candle = np.column_stack([np.clip(open_, low, high), high, low, close])
    candle[~fits] = np.nan
    return np.where((volume == 0)[:, None], close[:, None], candle)


def _without_duplicates(rows: pd.DataFrame, repaired: np.ndarray, log: CleaningLog) -> pd.DataFrame:
    """Of several rows of one symbol, day and file the last that needed no repair, else the last."""
    keys = ["symbol", "date", *({"file"} & set(rows))]
    several = rows.duplicated(keys, keep=False).to_numpy()
    best_last = rows.loc[several, keys].assign(sound=~repaired[several]).sort_values([*keys, "sound"], kind="stable")
    bad, differ, dropped = np.zeros((3, len(rows)), bool)
    bad[best_last.index[best_last.duplicated(keys, keep="last")]] = True
    differ[several] = (rows[several].groupby(keys, observed=True)[[*PRICES]].transform("nunique") > 1).any(axis=1)
    log.note("conflicting_duplicate", rows, bad & differ, dropped)
    log.note("duplicate", rows, bad, dropped)
    return log.kept(rows, dropped)


# ------------------------------------------------------------------------------------------------------ several files
def combine(rows: pd.DataFrame, log: CleaningLog) -> pd.DataFrame:
    """One row per symbol and day, without the columns `file` and `unadjusted`; what was merged is logged.

    `rows` are sorted by symbol, day and file. Later categories of `file` win on their days; a file on another basis is
    rescaled to the earlier ones' by the median ratio of the first 5 common days, unless it holds all earlier days.
    Unadjusted rows beside adjusted ones give `raw_close` and, scaled, the prices after the last adjusted day.
    """
    unadjusted = rows["unadjusted"].to_numpy(bool) if "unadjusted" in rows else np.zeros(len(rows), bool)
    file = rows["file"].array if "file" in rows else pd.Categorical.from_codes(np.zeros(len(rows), int), ["-"])
    rows = rows.drop(columns=["unadjusted", "file"], errors="ignore")
    if unadjusted.any():
        raw = rows.get("raw_close", np.nan)
        rows["raw_close"] = np.where(unadjusted & pd.isna(raw), rows["close"], raw)
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
        """One more file of some symbols: the places of its rows."""
        common = pd.DataFrame({"symbol": self.symbol[new], "here": new, "there": self.row[self.cell[new]]})
        common = common[common["there"] >= 0]
        here, there, symbol = (common[name].to_numpy() for name in ("here", "there", "symbol"))
        common["ratio"] = self.close[there] * self.scale[there] / self.close[here]
        common["tolerance"] = ROUNDING + STEP / self.close[here]
        by_symbol = common.groupby("symbol", observed=True)
        seam = by_symbol.head(SEAM_DAYS).groupby("symbol", observed=True)["ratio"].median()
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
        table[[*PRICES]] *= self.scale[row, None]
        return table.assign(**{name: known[name].array[cells] for name in names})

    def note(self, log: CleaningLog, file: pd.Categorical) -> None:
        """Logs what was merged, and how."""
        closes, replaced = self.close * self.scale, ~np.isin(np.arange(len(file)), self.row)
        log.note("sources_disagree", self.rows, self.differs_from >= 0, describe=lambda row: "close " + " and ".join(
            f"{closes[one]:,.10g} in {file[one]}" for one in (self.differs_from[row], row)) + " [VND]")
        log.note("files_apart", self.rows, self.is_apart, describe=lambda row: f"row of {file[row]}")
        log.note("basis_changed", self.rows, self.scale != 1,
                 describe=lambda row: f"prices of {file[row]} ×{self.scale[row]:.4g}")
        log.note("several_files", self.rows, replaced, describe=lambda row: f"row of {file[row]}")


# ---------------------------------------------------------------------------------------------------- days and series
def _on_trading_days(rows: pd.DataFrame, log: CleaningLog) -> pd.DataFrame:
    """Without days on which there was no market; an unknown volume becomes 0."""
    weekend = (rows["date"].dt.day_of_week >= 5).to_numpy()
    closed, lonely, dropped = weekend.copy(), *np.zeros((2, len(rows)), bool)
    closed[~weekend], lonely[~weekend] = _quiet_days(log.kept(rows, weekend), log.source)
    log.note("closed_day", rows, closed, dropped)
    log.note("lonely_day", rows, lonely, dropped)
    return log.kept(rows.assign(volume=rows["volume"].fillna(0)), dropped)


def _quiet_days(rows: pd.DataFrame, source: str) -> tuple[np.ndarray, np.ndarray]:
    """`[rows]` bool: days without a market, and those of a few symbols. Raises DataError for weekly bars."""
    places = Places.of(rows)
    days, dates = places.days, places.days.to_numpy("datetime64[D]")
    if len(days) >= LEAST_DAYS and (step := np.median(np.busday_count(dates[:-1], dates[1:]))) > 2:
        raise DataError(f"{source}: there is one row in {step:.0f} weekdays: these are weekly or monthly bars. Bring "
                        "one row per day.")
    volume, close = rows["volume"].to_numpy(), rows["close"].to_numpy()
    moves = np.r_[False, close[1:] != close[:-1]] & (places.start < np.arange(len(rows)))
    present, traded, moved = (np.bincount(places.day, weights) for weights in (None, volume > 0, moves))
    usual = pd.Series(traded, index=days).rolling(USUAL_DAYS, closed="left").max().fillna(0).to_numpy()
    # Where most closes moved there was a market, even if the source has lost its volumes.
    closed = (usual >= LEAST_SYMBOLS) & (traded <= FEW * present) & (moved <= present / 2)
    lonely = (usual >= LEAST_SYMBOLS) & ~closed & (np.maximum(traded, moved) < FEW * usual)
    return closed[places.day], lonely[places.day]


def _with_exchange(rows: pd.DataFrame, log: CleaningLog) -> pd.DataFrame:
    """An unknown exchange is the symbol's of the day before, else HOSE."""
    if "exchange" not in rows:
        return rows
    log.note("unknown_exchange", rows, rows["exchange"].isna().to_numpy())
    return rows.assign(exchange=rows.groupby("symbol", observed=True)["exchange"].ffill().fillna(EXCHANGES[0]))


def _flagged(rows: pd.DataFrame, places: Places, log: CleaningLog) -> pd.DataFrame:
    """What stays strange is logged; volumes become whole numbers."""
    limits, dropped = band_limits(rows, places), np.zeros(len(rows), bool)
    close, low, high, volume = (rows[name].to_numpy() for name in ("close", "low", "high", "volume"))
    log.note("beyond_band", rows, (low < LEAST_PRICE) | (high > MOST_PRICE), dropped, treatment="drop")
    strange = (close < limits.floor) | (close > limits.ceiling) | (high > low * WIDEST_RANGE)
    log.note("beyond_band", rows, strange, dropped)
    row = np.arange(len(rows))
    traded = np.maximum.accumulate(np.where(volume > 0, row, -1))  # the last row with a trade
    since = len(places.days) - 1 - places.day[np.where(traded < places.start, row, traded)]
    is_last = np.r_[places.start[1:] != places.start[:-1], True]
    silent = np.maximum(limits.missed - 1, np.where(is_last, since, 0))  # [trading days]
    log.note("gap", rows, silent > LONG_GAP, dropped, describe=lambda row: f"{silent[row]} trading days")
    log.note("no_trades", rows, volume == 0, dropped)
    moves = np.r_[True, close[1:] != close[:-1]] | (row == places.start)
    begin, trades = np.maximum.accumulate(np.where(moves, row, 0)), np.cumsum(volume > 0)
    stands = np.r_[moves[1:], True] & ((trades - trades[begin] > STALE_TRADED) | (row - begin > STALE))
    log.note("stale_feed", rows, stands, dropped,
             describe=lambda row: f"close {close[row]:,.10g} [VND] on {row - begin[row] + 1} days")
    return log.kept(rows.assign(volume=np.rint(volume).astype("int64")), dropped)
