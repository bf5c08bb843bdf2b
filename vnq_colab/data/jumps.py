"""Jumps inside a symbol's series: unit changes and unadjusted corporate actions, found and undone causally.

All arrays are [rows] of a table sorted by symbol and day, one row each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from vnq_colab.data.cells import PRICES
from vnq_colab.data.findings import CleaningLog
from vnq_colab.data.market import EXCHANGES, LONG_HALT_SESSIONS, VN_RULES

UNIT_MOVE = (0.3, 3.3)  # what beside a change of unit may happen to the price: a first day, a split, a bad print
SLACK, STEP = 0.01, 10.0  # [fraction], [VND] of rounding, to hundredths of a thousand VND
OWN_DAYS, OWN_LEAST = 250, 120  # [rows] a year without a move beyond HOSE's band shows that the symbol has that band
WIDER = ("HNX", "UPCOM")  # unless its row is labelled so: a calm year there makes a limit-down day no dividend
WAY_BACK_DAYS = 20  # [rows] a jump that nothing explained comes back within that; one that was undone at any time
LONGEST_BREAK = 8  # [weekdays] the market closes for at Tet; without any row for longer, the data has a hole
LEAST_RATIO = 1 / 12  # a smaller one is no split but an error that nothing here explains
MOST_ROUNDS = 20  # two for real prices: the second finds nothing
WIDEST_DAY = 1.36  # high / low of a day inside UPCOM's band: 1.15 / 0.85, and rounding
# Ratios of splits and bonus issues, first those that are no mixture with a cash dividend.
SPLITS = np.array([2 / 3, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 10, 10 / 11, 5 / 6, 4 / 5, 3 / 4, 3 / 5, 2 / 5])
REACH = np.repeat([0.052, 0.02], 6)  # [log] how far the open / the close before may lie from each


@dataclass(frozen=True)
class Places:
    """Where each row stands in its symbol's series and in the market's calendar."""

    start: np.ndarray  # [rows] the first row of its symbol
    day: np.ndarray  # [rows] place in `days`
    days: pd.DatetimeIndex

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Places":
        symbol = table["symbol"].cat.codes.to_numpy()
        is_first = np.r_[True, symbol[1:] != symbol[:-1]]
        day, days = pd.factorize(table["date"].to_numpy(), sort=True)
        return cls(np.maximum.accumulate(np.where(is_first, np.arange(len(symbol)), 0)), day, pd.DatetimeIndex(days))


class Limits(NamedTuple):
    """What any exchange allows on each row. A symbol's first row has no limits."""

    floor: np.ndarray  # [rows] [VND]
    ceiling: np.ndarray  # [rows] [VND]
    width: np.ndarray  # [rows] band as a fraction of the reference price
    first_day: np.ndarray  # [rows] bool: the first-day band applies
    missed: np.ndarray  # [rows] trading days since the row before, at least 1


def band_limits(table: pd.DataFrame, places: Places) -> Limits:
    """The limits of the widest band of the day, from the last traded day's range on; they compound over missed days."""
    dates = places.days.to_numpy("datetime64[D]")
    weekdays = np.busday_count(dates[:-1], dates[1:])  # a hole in the data counts as so many sessions
    session = np.r_[0, np.cumsum(np.where(weekdays - 1 > LONGEST_BREAK, weekdays, 1))][places.day]
    start, row = places.start, np.arange(len(table))
    before = np.maximum(row - 1, 0)
    close, volume = table["close"].to_numpy(), table["volume"].to_numpy()
    last = np.maximum.accumulate(np.where(volume > 0, row, -1))
    traded = np.r_[-1, last[:-1]]  # the last row with a trade before this one
    known = traded >= start
    traded = np.where(known, traded, before)
    first_day = ~known | (session - session[traded] > LONG_HALT_SESSIONS)
    if "exchange" in table:
        exchange = table["exchange"].cat.codes.to_numpy()
        first_day |= exchange != exchange[before]
    daily, wider = (np.max([VN_RULES.band(name, places.days, first_day=is_first) for name in EXCHANGES], axis=0)
                    for is_first in (False, True))
    width = np.where(first_day, wider[places.day], daily[places.day])
    begins = row == start
    missed = np.where(begins, 1, session - session[before])
    low = np.minimum(table["low"].to_numpy()[traded], close[before])
    high = np.maximum(table["high"].to_numpy()[traded], close[before])
    floor = low * (1 - width) ** missed * (1 - SLACK) - STEP
    ceiling = high * (1 + width) ** np.minimum(missed, 99) * (1 + SLACK) + STEP
    return Limits(np.where(begins, -np.inf, floor), np.where(begins, np.inf, ceiling), width, first_day, missed)


def without_jumps(rows: pd.DataFrame, places: Places, log: CleaningLog) -> pd.DataFrame:
    """The rows, jumps of the unit and unadjusted corporate actions undone from their day on, and logged."""
    def jump(row: int) -> str:
        before, now = rows["close"].iloc[row - 1 : row + 1]
        return f"close {before:,.10g} to {now:,.10g} [VND]"

    level = _unit_levels(rows["close"].to_numpy(), places.start)
    if log.note("unit_jump", rows, level != 0, describe=jump).any():
        scale = 1000.0 ** np.abs(level)
        rows = rows.assign(**{name: np.where(level > 0, rows[name] / scale, rows[name] * scale)
                              for name in {*PRICES, "raw_close"} & set(rows)})
    price, divisor, events = _actions(rows, places)
    is_event = np.isin(np.arange(len(rows)), list(events))
    if log.note("unadjusted_action", rows, is_event, describe=lambda row: (
            f"{jump(row)}, {events[row]}; from there on prices ×{price[row]:.4g}")).any():
        volume = np.where(divisor == 1, rows["volume"], np.ceil(rows["volume"] / divisor))
        rows = rows.assign(volume=volume, **{name: rows[name] * price for name in PRICES})
    return rows


def _unit_levels(close: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`[rows]` int: how often the close has jumped ×1000 since the symbol's first row; ÷1000 counts -1."""
    ratio = close[1:] / close[:-1]
    thousands = np.round(np.log(ratio) / np.log(1_000))
    rest = ratio / 1_000.0**thousands
    jump = np.r_[0, np.where((rest >= UNIT_MOVE[0]) & (rest <= UNIT_MOVE[1]), thousands, 0).astype(int)]
    jump[start == np.arange(len(close))] = 0
    level = np.cumsum(jump)
    return level - level[start]


def _actions(table: pd.DataFrame, places: Places) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """(factor of the prices, divisor of the volume, {row: what explains it}) of unadjusted corporate actions.

    A day that lies as a whole outside its limits is explained, in this order, by raw closes that did not jump, by an
    earlier jump that it undoes, as after a bad print, or, downwards, as a split or a dividend.
    """
    row, events = np.arange(len(table)), {}
    factors = np.ones((len(table), 2))  # of the price, of the volume
    for _ in range(MOST_ROUNDS):  # where bad prints crowd, undoing some shows others; each round is causal
        scaled = table.assign(**{name: table[name] * factors[:, 0] for name in PRICES})
        explained = pd.DataFrame(_explained(_candidates(scaled, places)), columns=["row", "price", "volume", "words"])
        if explained.empty:
            break
        more = explained.set_index("row")[["price", "volume"]].reindex(row)  # [rows, 2], from the event on
        more[(row == places.start)[:, None] & more.isna()] = 1.0
        factors *= more.ffill().to_numpy()
        events = dict(zip(explained["row"], explained["words"], strict=True)) | events
    return *factors.T, events


def _candidates(table: pd.DataFrame, places: Places) -> pd.DataFrame:
    """The rows that lie as a whole outside their limits, or below that of the band kept to for a year."""
    limits, start = band_limits(table, places), places.start
    row = np.arange(len(table))
    before = np.maximum(row - 1, 0)
    close, high, low = (table[name].to_numpy() for name in ("close", "high", "low"))
    raw = table["raw_close"].to_numpy() if "raw_close" in table else np.full(len(table), np.nan)
    hose = VN_RULES.band("HOSE", places.days)[places.day]
    move = close / close[before]
    n_over = np.cumsum((np.abs(move - 1) > hose + SLACK) & (limits.missed == 1) & (row > start))
    kept_to_hose = n_over[before] == n_over[np.maximum(before - OWN_DAYS, start)]
    kept_to_hose &= (row - start >= OWN_LEAST) & ~limits.first_day
    kept_to_hose &= table["volume"].to_numpy() > 0  # a price that nobody paid keeps to no band
    if "exchange" in table:
        kept_to_hose &= ~table["exchange"].isin(WIDER).to_numpy()
    own_floor = close[before] * (1 - hose - SLACK) ** limits.missed - STEP
    floor = np.where(kept_to_hose, np.maximum(limits.floor, own_floor), limits.floor)
    out = np.flatnonzero((high < floor) | (low > limits.ceiling))
    columns = {"start": start, "open": table["open"].to_numpy(), "high": high, "low": low, "before": close[before],
               "move": move, "raw_move": raw / raw[before], "floor": floor, "ceiling": limits.ceiling,
               "width": np.where(kept_to_hose, hose, limits.width), "missed": limits.missed}
    return pd.DataFrame({name: values[out] for name, values in columns.items()}, index=out)


def _explained(candidates: pd.DataFrame) -> Iterator[tuple[int, float, float, str]]:
    """(row, factor of prices and divisor of volumes from there on, what explains it), where something does."""
    for _, of_symbol in candidates.groupby("start"):
        now, jumps = (1.0, 1.0), []  # jumps: (row, move, the factors before it; None if it was not explained)
        for day in of_symbol.itertuples():
            factors, words = _by_raw_close(day, now) or _as_way_back(day, now, jumps) or _as_split(day, now)
            jumps.append((day.Index, day.move, now if factors else None))
            if factors:
                now = factors
                yield day.Index, *factors, words


def _by_raw_close(day: tuple, now: tuple[float, float]) -> tuple | None:
    least = (1 - day.width) ** day.missed * (1 - SLACK)
    most = (1 + day.width) ** min(day.missed, 99) * (1 + SLACK)
    artefact = day.move / day.raw_move
    if not least <= day.raw_move <= most or abs(np.log(artefact)) < 2 * SLACK:
        return None
    return (now[0] / artefact, now[1]), "its raw close did not jump"


def _as_way_back(day: tuple, now: tuple[float, float], jumps: list[tuple]) -> tuple | None:
    for row, move, before in reversed(jumps):
        if before is None:
            if day.Index - row <= WAY_BACK_DAYS and abs(np.log(day.move * move)) < 0.5 * abs(np.log(move)):
                return None, ""
        else:
            back = before[0] / now[0]
            if day.floor <= day.high * back and day.low * back <= day.ceiling:
                return before, "it undoes an earlier jump"
    return None


def _as_split(day: tuple, now: tuple[float, float]) -> tuple:
    ratio = day.open / day.before
    if not LEAST_RATIO <= ratio < 1 or day.high > day.low * WIDEST_DAY:
        return None, ""
    away = np.abs(np.log(ratio / SPLITS)) - REACH
    if away.min() <= 0:
        ratio = SPLITS[away.argmin()]
    return (now[0] / ratio, now[1] / ratio), "as after a split or a dividend"
