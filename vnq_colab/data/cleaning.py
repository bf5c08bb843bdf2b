"""Cleaning: what raw rows suffer from is found, treated as was agreed, and counted. Nothing in silence.

A decision about a day uses rows up to that day, and a repair changes that day and later ones: the cleaned past keeps
its bits whatever follows. Only merging several files of one symbol may look at all their common days.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd

from vnq_colab.data.chart import Chart, where
from vnq_colab.data.columns import NEEDED, OPTIONAL, PRICES
from vnq_colab.data.diseases import plan_treatments
from vnq_colab.data.findings import CleaningReport, FileFacts
from vnq_colab.data.jumps import find_actions, price_limits, starts, unit_levels
from vnq_colab.data.market import EXCHANGES
from vnq_colab.data.sources import combine
from vnq_colab.errors import DataError

SOUND = (1e-3, 1e9)  # [VND] a price outside is none
MOST_VOLUME = 1e15  # [shares]
FAR_CLOSE = 1.5  # a close that far outside the day's range, as a ratio, makes neither of them believable
WIDEST_RANGE = 2.4  # high / low of a day inside the widest band: 1.4 / 0.6, and rounding
USUAL_DAYS = "30D"  # about 20 trading days
LEAST_SYMBOLS = 5  # symbols that must have traded in that time before a day can be called closed
FEW = 0.05  # [fraction]
LONG_GAP = 5  # [trading days]
LEAST_DAYS = 20  # from which the distance of days is judged


def clean_prices(raw: pd.DataFrame, *, on_bad_rows: str = "raise", treatments: Mapping[str, str] | None = None,
                 source: str = "the price table", files: Iterable[FileFacts] = (),
                 ) -> tuple[pd.DataFrame, CleaningReport]:
    """A price table without bad rows, one row per symbol and day, sorted, and the report of what was found.

    `raw` holds prices [VND per share] and volumes [shares] under `symbol, date, open, high, low, close, volume`;
    optionally `raw_close`, `exchange`, `unadjusted` and `file` (see `sources.combine`). `on_bad_rows` decides on rows
    that are bad in themselves: "raise" names the first in a DataError, "drop" leaves them out, "treat" repairs what can
    be repaired. All else gets its default treatment. `treatments` overrides any of them: {"unit_jump": "raise"};
    `diseases.DISEASES` has every name, default and choice.
    """
    chart = Chart(plan_treatments(on_bad_rows, treatments), source, len(raw))
    rows = _keep_to_calendar(_merged(raw, chart), chart)
    rows = _name_exchanges(rows, chart)
    rows = _undo_jumps(rows, chart)
    days = rows["date"]
    report = CleaningReport(source, len(raw), len(rows), int(rows["symbol"].nunique()), f"{days.min():%Y-%m-%d}",
                            f"{days.max():%Y-%m-%d}", chart.findings, files=list(files))
    return _named(rows), report


def merge_files(raw: pd.DataFrame, *, on_bad_rows: str = "raise", treatments: Mapping[str, str] | None = None,
                ) -> pd.DataFrame:
    """What `clean_prices` cleans on: the rows of all files made sound and merged, one per symbol and day."""
    return _named(_merged(raw, Chart(plan_treatments(on_bad_rows, treatments), "the price table", len(raw))))


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns of a price table, symbols and exchanges as text."""
    return rows[[name for name in (*NEEDED, *OPTIONAL) if name in rows]].assign(
        **{name: rows[name].astype(rows[name].cat.categories.dtype) for name in {"symbol", "exchange"} & set(rows)})


def _merged(raw: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    rows, found = combine(_one_per_file(*_treat_rows(_sorted(raw), chart), chart))
    chart.add(found)
    return rows


def _sorted(raw: pd.DataFrame) -> pd.DataFrame:
    """The rows by symbol, day and file; symbols, exchanges and files as categories, exchanges as they are called."""
    rows = raw.assign(symbol=raw["symbol"].astype("category"))
    if "exchange" in rows:
        named = rows["exchange"].astype("category").array
        known = [str(name).strip().upper().replace("HSX", "HOSE") for name in named.categories]
        code = np.append(pd.Index(EXCHANGES).get_indexer(known), -1)  # the code -1 stays -1: not known
        rows["exchange"] = pd.Categorical.from_codes(code[named.codes], EXCHANGES)
    keys = [rows["file"].cat.codes.to_numpy()] if "file" in rows else []
    order = np.lexsort((*keys, rows["date"].to_numpy(), rows["symbol"].cat.codes.to_numpy()))
    return rows.take(order).reset_index(drop=True)


def _treat_rows(rows: pd.DataFrame, chart: Chart) -> tuple[pd.DataFrame, np.ndarray]:
    """The rows that are sound in themselves or could be repaired, and which of them were."""
    table = {name: rows[name].to_numpy("float64", copy=True) for name in (*PRICES, "volume")}
    open_, high, low, close, volume = table.values()  # repaired in place
    raw_close = rows["raw_close"].to_numpy("float64", copy=True) if "raw_close" in rows else np.full(len(rows), np.nan)
    gone, repaired = np.zeros(len(rows), bool), np.zeros(len(rows), bool)

    def any_price(test: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return test(open_) | test(high) | test(low) | test(close)

    def from_close(sick: np.ndarray) -> np.ndarray:
        healed = sick & (close >= SOUND[0]) & (close <= SOUND[1])
        begin, top, bottom, end = (column[healed] for column in (open_, high, low, close))
        known = {name: (table[name][healed] >= SOUND[0]) & (table[name][healed] <= SOUND[1]) for name in PRICES}
        begin = np.where(known["open"], begin, end)
        top = np.where(known["high"], top, np.fmax(np.maximum(begin, end), np.where(known["low"], bottom, np.nan)))
        bottom = np.where(known["low"], bottom, np.minimum(np.minimum(begin, end), top))
        open_[healed], high[healed], low[healed] = begin, top, bottom
        return healed

    def unknown(column: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def forget(sick: np.ndarray) -> np.ndarray:
            column[sick] = np.nan
            return sick
        return forget

    def whole(sick: np.ndarray) -> np.ndarray:
        volume[sick] = np.rint(volume[sick])
        return sick

    def flat(at: np.ndarray) -> None:
        open_[at] = high[at] = low[at] = close[at]

    def swapped(sick: np.ndarray) -> np.ndarray:
        idle = sick & (volume == 0)
        flat(idle)
        fits = sick & ~idle & (np.minimum(open_, close) >= high) & (np.maximum(open_, close) <= low)
        high[fits], low[fits] = low[fits], high[fits]
        return fits | idle

    def widened(sick: np.ndarray) -> np.ndarray:
        idle = sick & (volume == 0)
        flat(idle)
        near = sick & (close <= high * FAR_CLOSE) & (close >= low / FAR_CLOSE)
        high[near], low[near] = np.maximum(high, close)[near], np.minimum(low, close)[near]
        return idle | near

    def clipped(sick: np.ndarray) -> np.ndarray:
        flat(sick & (volume == 0))
        open_[sick] = np.clip(open_, low, high)[sick]
        return sick

    for slug, find, repair in (
        ("missing_price", lambda: any_price(lambda price: ~np.isfinite(price)), from_close),
        ("zero_price", lambda: any_price(lambda price: price < SOUND[0]), from_close),
        ("huge_price", lambda: any_price(lambda price: price > SOUND[1]), from_close),
        ("missing_volume", lambda: ~(volume >= 0), unknown(volume)),
        ("huge_volume", lambda: volume > MOST_VOLUME, unknown(volume)),
        ("fractional_volume", lambda: np.isfinite(volume) & (np.rint(volume) != volume), whole),
        ("zero_raw_close", lambda: (raw_close < SOUND[0]) | (raw_close > SOUND[1]), unknown(raw_close)),
        ("high_below_low", lambda: high < low, swapped),
        ("close_outside", lambda: (close > high) | (close < low), widened),
        ("open_outside", lambda: (open_ > high) | (open_ < low), clipped),
    ):
        sick = find()
        chart.treat(slug, rows, sick, gone, repair)
        repaired |= sick & ("volume" not in slug)
    if "raw_close" in rows:
        table["raw_close"] = raw_close
    return chart.keep(rows.assign(**table), gone), repaired[~gone]


def _one_per_file(rows: pd.DataFrame, repaired: np.ndarray, chart: Chart) -> pd.DataFrame:
    """Of several rows of one symbol, day and file the last that needed no repair, else the last."""
    keys = [rows["symbol"].cat.codes, rows["date"], *([rows["file"].cat.codes] if "file" in rows else [])]
    new = np.r_[True, np.logical_or.reduce([key.to_numpy()[1:] != key.to_numpy()[:-1] for key in keys])]
    if new.all():
        return rows
    twin = ~new | np.r_[~new[1:], False]
    group, at = np.cumsum(new)[twin], np.flatnonzero(twin)
    order = np.lexsort((at, ~repaired[at], group))  # repaired rows before sound ones, the best is the last
    group, at = group[order], at[order]
    is_best = np.r_[group[1:] != group[:-1], True]
    best = at[is_best][np.searchsorted(group[is_best], group)]
    compared = rows.drop(columns=["symbol", "date", "file"], errors="ignore")
    values = [column.cat.codes.to_numpy() if isinstance(column.dtype, pd.CategoricalDtype) else column.to_numpy()
              for _, column in compared.items()]
    equal = np.logical_and.reduce([(column[at] == column[best]) | (pd.isna(column[at]) & pd.isna(column[best]))
                                   for column in values])
    gone = np.zeros(len(rows), bool)
    chart.treat("identical_duplicate", rows, _mask(at[~is_best & equal], len(rows)), gone)
    chart.treat("conflicting_duplicate", rows, _mask(at[~is_best & ~equal], len(rows)), gone)
    return chart.keep(rows, gone)


def _keep_to_calendar(rows: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    """Without days on which there was no market; an unknown volume becomes 0."""
    days, place = _day_places(rows)
    gone = np.zeros(len(rows), bool)
    chart.treat("weekend", rows, (days.day_of_week >= 5)[place], gone)
    rows = chart.keep(rows, gone)
    days, place = _day_places(rows)
    _refuse_long_bars(days, chart.source)
    volume, close, symbol = rows["volume"].to_numpy(), rows["close"].to_numpy(), rows["symbol"].cat.codes.to_numpy()
    moves = np.r_[False, (close[1:] != close[:-1]) & (symbol[1:] == symbol[:-1])]
    present, traded, moved = (np.bincount(place, weights=weights) for weights in (None, volume > 0, moves))
    usual = pd.Series(traded, index=days).rolling(USUAL_DAYS, closed="left").max().fillna(0).to_numpy()
    # Where most closes moved there was a market, even if the source has lost its volumes.
    closed = (usual >= LEAST_SYMBOLS) & (traded <= FEW * present) & (moved <= present / 2)
    lonely = (usual >= LEAST_SYMBOLS) & ~closed & (np.maximum(traded, moved) < FEW * usual)
    gone = np.zeros(len(rows), bool)
    chart.treat("closed_day", rows, closed[place], gone)
    chart.treat("lonely_day", rows, lonely[place], gone)
    return chart.keep(rows.assign(volume=np.nan_to_num(volume)), gone)


def _refuse_long_bars(days: pd.DatetimeIndex, source: str) -> None:
    """Raises a DataError when most days of the data lie far apart."""
    dates = days.to_numpy("datetime64[D]")
    if len(days) >= LEAST_DAYS and (step := np.median(np.busday_count(dates[:-1], dates[1:]))) > 2:
        raise DataError(f"{source}: there is one row in {step:.0f} weekdays: these are weekly or monthly bars. Bring "
                        "one row per day.")


def _name_exchanges(rows: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    """An unknown exchange is the symbol's of the day before, else HOSE."""
    if "exchange" not in rows:
        return rows
    code = rows["exchange"].cat.codes.to_numpy()
    start = starts(rows["symbol"].cat.codes.to_numpy())
    known = np.maximum.accumulate(np.where(code >= 0, np.arange(len(code)), -1))
    filled = np.where(known >= start, code[known], 0)
    chart.treat("unknown_exchange", rows, code < 0, np.zeros(len(rows), bool), lambda sick: sick)
    return rows.assign(exchange=pd.Categorical.from_codes(filled, EXCHANGES))


def _undo_jumps(rows: pd.DataFrame, chart: Chart) -> pd.DataFrame:
    """Jumps of the unit and unadjusted corporate actions are undone; then what stays strange is flagged."""
    start, (days, place) = starts(rows["symbol"].cat.codes.to_numpy()), _day_places(rows)
    close = rows["close"].to_numpy()
    level = unit_levels(close, start)

    def in_one_unit(sick: np.ndarray) -> np.ndarray:
        scale = 1000.0 ** np.abs(level)
        for name in {*PRICES, "raw_close"} & set(rows.columns):
            price = rows[name].to_numpy()
            rows[name] = np.where(level > 0, price / scale, price * scale)
        return sick

    def jump(row: int) -> str:
        return f"{where(rows.iloc[row])}: close {close[row - 1]:,.0f} to {close[row]:,.0f} [VND]"

    gone = np.zeros(len(rows), bool)
    chart.treat("unit_jump", rows, level != 0, gone, in_one_unit, jump)
    actions = find_actions(rows, start, days, place)
    close = rows["close"].to_numpy()

    def adjusted(sick: np.ndarray) -> np.ndarray:
        for name in PRICES:
            rows[name] = rows[name].to_numpy() * actions.price
        volume = rows["volume"].to_numpy()
        rows["volume"] = np.where(actions.volume == 1, volume, np.ceil(volume / actions.volume))  # a trade stays one
        return sick

    chart.treat("unadjusted_action", rows, _mask(list(actions.events), len(rows)), gone, adjusted, lambda row: (
        f"{jump(row)}, {actions.events[row]}; from there on prices ×{actions.price[row]:.4g}"))
    limits = price_limits(rows, start, days, place)
    close, low, high = (rows[name].to_numpy() for name in ("close", "low", "high"))
    chart.treat("out_of_scale", rows, (low < SOUND[0]) | (high > SOUND[1]), gone)
    strange = (close < limits.floor) | (close > limits.ceiling) | (high > low * WIDEST_RANGE)
    chart.treat("beyond_band", rows, strange, gone)
    chart.treat("gap", rows, limits.missed - 1 > LONG_GAP, gone, words=lambda row: (
        f"{where(rows.iloc[row])}: {limits.missed[row] - 1} trading days without a row before it"))
    last = np.flatnonzero(np.r_[start[1:] != start[:-1], True])
    traded = np.maximum.accumulate(np.where(rows["volume"] > 0, np.arange(len(rows)), -1))[last]
    traded = np.where(traded < start[last], last, traded)
    stale = len(days) - 1 - place[traded] > LONG_GAP
    chart.treat("stale_tail", rows, _mask(last[stale], len(rows)), gone)
    chart.treat("no_trades", rows, rows["volume"].to_numpy() == 0, gone)
    rows["volume"] = np.rint(rows["volume"]).astype("int64")
    return chart.keep(rows, gone)


def _day_places(rows: pd.DataFrame) -> tuple[pd.DatetimeIndex, np.ndarray]:
    """The days of the data in order, and the place of each row's day among them."""
    place, days = pd.factorize(rows["date"].to_numpy(), sort=True)
    return pd.DatetimeIndex(days), place


def _mask(places: np.ndarray | list[int], length: int) -> np.ndarray:
    return np.bincount(np.asarray(places, int), minlength=length) > 0
