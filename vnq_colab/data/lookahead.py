"""Proof of no look-ahead, bit for bit under other futures; and leaks in the data itself, each named in a sentence.

Axes: columns, targets, days, series (the symbols, then the index); of correlations also groups: days or series.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.cells import PRICES
from vnq_colab.data.cleaning import clean_prices, merge_files
from vnq_colab.data.features import FEATURES
from vnq_colab.data.market import EXCHANGES, tick
from vnq_colab.data.panel import CLOSE, OPEN, Panel, build_panel, fit_scaler
from vnq_colab.data.splits import to_day
from vnq_colab.errors import DataError, name_a_few

MOST_ROWS = 550_000  # 0.6 GB; of a larger table the days around the day are compared, three quarters of them before it
# A rank correlation and its t: the mean within all days, within those of a year, of a stock or the index over time.
# Real prices of 2006 to 2025 reach 0.12, 0.36 (in 2008, when the band was 1 %) and, in a year of a stock, 0.52.
WITHIN, IN_A_YEAR, OVER_TIME = (0.2, 4.0), (0.4, 4.0), (0.4, 10.0)
FEWEST_STOCKS, FEWEST_DAYS = 3, 60
MOST_CELLS = 60_000  # days x symbols that are looked at: in a long table every few days
PAST_DAYS = 20
AHEAD = {(0, 1): "the day after", (1, 2): "the second day after", (2, 3): "the third day after",
         (3, 4): "the fourth day after", (4, 5): "the fifth day after", (0, 5): "the five days after"}
LAGS = {-1: "day before", 1: "day after", -2: "second day before", 2: "second day after"}
MOST_MOVE = 0.15  # [log return] a larger one counts as so much
SEAM_ROWS, ON_TICK, OFF_TICK = 5, 0.95, 0.7  # [rows], [fraction of their prices]
LEAST_FALL = 0.005  # of close / raw_close from a file to the next one


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
        lines = [f"  {row.what}, {row.world}: {row.differ:,} differ, first {row.where}" for row in bad.itertuples()]
        return "\n".join([f"LOOK-AHEAD up to {self.at}: {int(bad['differ'].sum()):,} of {compared:,} values know the "
                          "future.", *lines])


def prove_no_lookahead(prices: pd.DataFrame, at: str | pd.Timestamp | None = None, *,
                       index: pd.DataFrame | None = None, on_bad_rows: str = "treat",
                       treatments: Mapping[str, str] | None = None) -> LookaheadProof:
    """Compares, bit for bit up to the day `at`, all that training sees with what it sees under other futures.

    `prices` may be clean or raw; None puts the day at four fifths of the days. Raises DataError for none after it.
    """
    days = pd.DatetimeIndex(np.sort(prices["date"].unique()))
    day = days[int(0.8 * (len(days) - 1))] if at is None else to_day(at)
    if not days[0] <= day < days[-1]:
        raise DataError(f"at = {day:%Y-%m-%d}: name a day from {days[0]:%Y-%m-%d} on and before {days[-1]:%Y-%m-%d}, "
                        "so that there is a future to change.")
    how = {"on_bad_rows": on_bad_rows, "treatments": treatments}
    if "file" in prices:
        prices = merge_files(prices, **how)
    n_days, place = int(MOST_ROWS / len(prices) * len(days)), int(days.searchsorted(day))
    span = days[max(0, place - 3 * n_days // 4):][:max(n_days, 8)]
    prices = prices if n_days >= len(days) else prices[prices["date"].between(span[0], span[-1])]
    known = _known(prices, index, day, how)
    rows = [{"world": world, **fact} for world, *other in _worlds(prices, index, day)
            for fact in _compare(known, _known(*other, day, how))]
    return LookaheadProof(f"{day:%Y-%m-%d}", f"{prices['date'].min():%Y-%m-%d}", pd.DataFrame(rows))


def _worlds(prices: pd.DataFrame, index: pd.DataFrame | None, day: pd.Timestamp,
            ) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame | None]]:
    """Other futures of the same past: what they are, and their prices and index."""
    past, future = prices[prices["date"] <= day], prices[prices["date"] > day].copy()
    random, n = np.random.default_rng(0), len(future)
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
    gone = random.choice(names, max(1, len(names) // 3), replace=False)
    new = future[future["symbol"].isin(names[:len(gone)])]
    listed = [new.assign(symbol=begins + new["symbol"]) for begins in ("A0", "Z9")]
    yield "stocks delisted and listed", pd.concat([past, future[~future["symbol"].isin(gone)], *listed],
                                                  ignore_index=True), after
    del future, new, listed
    yield "no later rows", past, None if index is None else index[index["date"] <= day]


def _known(prices: pd.DataFrame, index: pd.DataFrame | None, day: pd.Timestamp,
           how: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """All that is known at the close of a day, by name: a row for each symbol and day, or for each symbol."""
    clean, _ = clean_prices(prices, **how)
    panel, kept = build_panel(clean, index), clean[clean["date"] <= day]
    so_far, symbols = np.asarray(panel.days <= day), np.array(panel.symbols, object)
    symbol, place = np.nonzero(panel.present & so_far)
    listed = np.unique(symbol)  # a stock that is listed later is not known yet
    rows = pd.MultiIndex.from_arrays([symbols[symbol], panel.days[place]])
    return {"cleaned rows": kept.set_index(["symbol", "date"]).select_dtypes("number").astype("float64"),
            "scaler": pd.DataFrame(np.column_stack(fit_scaler(panel, so_far))[listed],
                                   pd.MultiIndex.from_arrays([symbols[listed]])),
            "returns": pd.DataFrame(panel.returns[symbol, place], rows),
            "feature": pd.DataFrame(panel.values[symbol, place], rows, [*FEATURES])}


def _compare(known: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> Iterator[dict[str, object]]:
    """How many values differ in their bits, and the first of them in words; rows that only one world has count."""
    for name, mine in known.items():
        theirs = other[name]
        if not mine.index.equals(theirs.index):
            odd = mine.index.symmetric_difference(theirs.index)
            yield {"what": name, "compared": mine.size, "differ": len(odd) * mine.shape[1],
                   "where": f"{_in_words(odd[0])}: the row is there in one world only"}
            continue
        here, there = mine.to_numpy(), theirs.to_numpy()
        differ = here.view(f"u{here.itemsize}") != there.view(f"u{there.itemsize}")
        parts = {f"{name} {column}": slice(place, place + 1) for place, column in enumerate(mine)}  # each by itself
        for what, columns in parts.items() if name == "feature" else [(name, slice(None))]:
            where, row, _ = "", *np.nonzero(differ[:, columns])
            if len(row):
                became = (f"{values[row[0], columns][differ[row[0], columns]][0]}" for values in (here, there))
                where = f"{_in_words(mine.index[row[0]])}: {' became '.join(became)}"
            yield {"what": what, "compared": here[:, columns].size, "differ": len(row), "where": where}


def _in_words(key: tuple) -> str:
    return " ".join(str(part)[:10] for part in key)


# -------------------------------------------------------------------------------------------------- leaks in the data
def find_leaks(panel: Panel, prices: pd.DataFrame, index: pd.DataFrame | None = None,
               rows: pd.DataFrame | None = None) -> list[str]:
    """One sentence for each leak, none in honest data; `prices` are the panel's, `rows` what they were read as."""
    quotes = np.concatenate([panel.prices, np.full((1, *panel.prices.shape[1:]), np.nan)])  # [series, days, 5]
    if index is not None:
        quotes[-1, :, CLOSE] = index.drop_duplicates("date").set_index("date")["close"].reindex(panel.days)
    with np.errstate(invalid="ignore", divide="ignore"):
        return [*_columns(panel, quotes, prices), *_dates(panel, np.log(quotes[:, :, CLOSE])), *_seams(rows)]


def _columns(panel: Panel, quotes: np.ndarray, prices: pd.DataFrame) -> Iterator[str]:
    """Of each raw column its strongest correlation with what comes, within the days or over time."""
    step = max(1, round(panel.present.size / MOST_CELLS))
    days, forms = panel.days[::step], _forms(panel, quotes, prices)
    targets = [f"the return of {when}{how}" for how in ("", ", open to open") for when in AHEAD.values()]
    y = np.stack([(panel.ahead(end, column) - panel.ahead(start, column)).T[::step] for column in (CLOSE, OPEN)
                  for start, end in AHEAD])  # [targets, days, symbols]
    overlap = np.array([max(1, 5 // step) if "days" in name else 1 for name in targets])  # of neighbouring sums
    x = np.stack([form.to_numpy()[::step] for form in forms.values()])  # [columns, days, series]
    hits: dict[str, tuple[float, str]] = {}  # by raw column the strongest; what holds everywhere comes first

    def add(r: np.ndarray, t: np.ndarray, limits: tuple[float, float], where: str) -> None:
        for column, target in np.argwhere((abs(r) > limits[0]) & (abs(t) > limits[1])):
            form, value = [*forms][column], float(r[column, target])
            hit = abs(value) + (not where), (f"{form} of a day{where} has a rank correlation of {value:.2f} with "
                                             f"{targets[target]}: it knows the future. Ask the provider, or leave the "
                                             "column out.")
            name = form.split(" (")[0]
            hits[name] = max(hits.get(name, hit), hit)

    within, _ = _correlations(x[:, :, :-1].swapaxes(0, 1), y.swapaxes(0, 1), FEWEST_STOCKS)  # [days, columns, targets]
    for year in (None, *days.year.unique()):
        part = within if year is None else within[days.year == year]
        n = np.isfinite(part).sum(axis=0)
        r = np.nansum(part, axis=0) / n
        t = r * n / np.sqrt(np.nansum((part - r) ** 2, axis=0) * overlap)
        add(r, np.where(n * step < FEWEST_DAYS, 0, t), IN_A_YEAR if year else WITHIN, f" in {year}" if year else "")
    market = np.nansum(y, axis=2, keepdims=True) / np.isfinite(y).sum(axis=2, keepdims=True)
    own, n = _correlations(x.transpose(2, 0, 1), np.concatenate([y, market], axis=2).transpose(2, 0, 1), FEWEST_DAYS)
    for r, n_days, name in zip(own, n, (*panel.symbols, "the index"), strict=True):
        add(r, r * np.sqrt(n_days / overlap), OVER_TIME, f" of {name}")
    yield from (sentence for _, sentence in hits.values())


def _forms(panel: Panel, quotes: np.ndarray, prices: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`[days, series]` of each raw column: beside its own past; of open, high and low also beside the close."""
    columns = dict(zip((*PRICES, "volume"), map(pd.DataFrame, quotes.transpose(2, 1, 0)), strict=True))
    close = columns["close"]
    columns["volume"] /= close
    if "raw_close" in prices:
        known = prices.set_index(["date", prices["symbol"].astype(object)])["raw_close"].unstack()
        columns["raw_close"] = pd.DataFrame(known.reindex(index=panel.days, columns=[*panel.symbols, ""]).to_numpy())
        columns["close / raw_close"] = close / columns["raw_close"]
    forms = {}
    for name, values in columns.items():
        log = np.log(values.where(values > 0))
        usual = values.rolling(PAST_DAYS, min_periods=PAST_DAYS // 2).mean().shift()
        forms[f"{name} (change against the day before)"] = log.diff()
        forms[f"{name} (relative to its {PAST_DAYS}-day mean)"] = log - np.log(usual)
        if name in ("open", "high", "low"):
            forms[f"{name} (relative to the close)"] = np.log(values / close)
    return forms


def _correlations(x: np.ndarray, y: np.ndarray, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """`[groups, columns, items], [groups, targets, items] -> [groups, columns, targets]`: rank correlations, NaN of
    fewer than `fewest` items, and of how many."""
    def ranked(values: np.ndarray) -> np.ndarray:
        ranks = pd.DataFrame(values.reshape(-1, values.shape[2]).T).rank()
        return (ranks - ranks.mean()).fillna(0).to_numpy().T.reshape(values.shape)

    in_x, in_y = np.isfinite(x).astype(float), np.isfinite(y).astype(float).swapaxes(1, 2)
    x, y, n = ranked(x), ranked(y).swapaxes(1, 2), in_x @ in_y
    return np.where(n >= fewest, (x @ y) / np.sqrt((x**2 @ in_y) * (in_x @ y**2)), np.nan), n


def _dates(panel: Panel, close: np.ndarray) -> Iterator[str]:
    """Stocks, and the index, that move with the other stocks of another day, over all days or in a year."""
    daily = np.clip(np.diff(close, axis=1, prepend=np.nan), -MOST_MOVE, MOST_MOVE)  # [series, days]
    known = np.isfinite(daily[:-1]).sum(axis=0) - np.isfinite(daily)
    known[-1] += np.isfinite(daily[-1])
    others = np.where(known > 0, np.nansum(daily[:-1], axis=0) - np.nan_to_num(daily), np.nan)
    others[-1] = np.nansum(daily[:-1], axis=0)
    if len(panel.symbols) < FEWEST_STOCKS and np.isfinite(daily[-1]).any():  # the index tells which of two is wrong
        others[:-1] = daily[-1]
    years, found = np.flatnonzero(np.diff(panel.days.year, prepend=0)), set()
    for starts, periods in (([0], ["all days"]), (years, [f"{panel.days.year[day]}" for day in years])):
        own, n = _moves_with(daily, others, 0, starts)  # [series, periods]
        wrong: dict[tuple[int, str], list[str]] = {}
        for lag in LAGS:
            r, _ = _moves_with(daily, others, lag, starts)
            is_wrong = (r > WITHIN[0]) & ((r - own) * np.sqrt(n / 2) > WITHIN[1]) & (n >= FEWEST_DAYS)
            for row, period in np.argwhere(is_wrong):
                wrong.setdefault((lag, periods[period]), []).append((*panel.symbols, "the index")[row])
        for (lag, period), names in wrong.items():
            if names := [name for name in names if name not in found]:
                yield (f"in {period} the returns of {name_a_few(names)} are those of the other stocks on the "
                       f"{LAGS[lag]}: dated {'early, they know the future' if lag > 0 else 'late, they are foretold'}. "
                       "Bring the rows with their own days.")
        found |= {name for names in wrong.values() for name in names}


def _moves_with(x: np.ndarray, market: np.ndarray, lag: int, starts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """`[series, days] -> [series, periods]`: correlation with what comes `lag` days later, and of how many days."""
    later = np.roll(market, -lag, axis=1)
    later[:, slice(None, -lag) if lag < 0 else slice(later.shape[1] - lag, None)] = np.nan
    both = np.isfinite(x) & np.isfinite(later)
    x, later = np.where(both, x, 0), np.where(both, later, 0)
    xx, mm, xm, n = (np.add.reduceat(part, starts, axis=1) for part in (x * x, later * later, x * later, 1.0 * both))
    return xm / np.sqrt(xx * mm), n


def _seams(rows: pd.DataFrame | None) -> Iterator[str]:
    """Files of a symbol that share no day, and whose prices have another basis from the first day of the later one."""
    if rows is None or "file" not in rows or rows["file"].nunique() < 2:
        return
    rows = rows[rows["close"] > 0].sort_values(["symbol", "date"], kind="stable")
    price = rows[[*PRICES]].to_numpy("float64")
    steps = price / tick(price, rows["exchange"].astype(str).to_numpy()[:, None] if "exchange" in rows else "HOSE")
    rows = rows.assign(on_tick=(abs(steps - np.rint(steps)) < 1e-6).mean(axis=1),
                       ratio=rows["close"] / rows["raw_close"] if "raw_close" in rows else np.nan)
    by_file = rows.groupby(keys := ["symbol", "file"], observed=True)
    head, tail = (part.groupby(keys, observed=True)[["on_tick", "ratio"]].mean()
                  for part in (by_file.head(SEAM_ROWS), by_file.tail(SEAM_ROWS)))
    ends = head.assign(first=by_file["date"].min()).reset_index().sort_values(["symbol", "first"])
    before = tail.assign(last=by_file["date"].max()).reset_index().loc[ends.index].groupby(
        "symbol", observed=True)[["file", "last", "on_tick", "ratio"]].shift()
    # The newest prices of a download are the market's, on its ticks; those off the ticks are adjusted for what came
    # after them. Where raw closes are known, close / raw_close falls only there.
    off = (before["on_tick"] >= ON_TICK) & (ends["on_tick"] <= OFF_TICK)
    off |= ends["ratio"] < before["ratio"] * (1 - LEAST_FALL)
    seams = ends.assign(earlier=before["file"])[off & (ends["first"] > before["last"])]
    for (file, earlier), part in seams.groupby(["file", "earlier"], observed=True):
        yield (f"file {file} is adjusted for a dividend or split of {name_a_few(part['symbol'].astype(str))} that file "
               f"{earlier} does not know: the fall between foretells it. Bring the later one with {SEAM_ROWS} days "
               "of the earlier one.")
