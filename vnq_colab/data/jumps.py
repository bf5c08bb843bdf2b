"""Jumps inside a symbol's series: unit changes and unadjusted corporate actions, found and undone causally.

A decision about a day uses rows up to that day; a repair rescales that day and later ones, so the past keeps its bits.
All arrays are [rows] of a table sorted by symbol and day, one row each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, LONG_HALT_SESSIONS, VN_RULES

UNIT_MOVE = (0.3, 3.3)  # what beside a change of unit may happen to the price: a first day, a split, a bad print
SLACK, STEP = 0.01, 10.0  # [fraction], [VND] an adjusted price may lie that far beyond the band, from rounding
OWN_DAYS, OWN_LEAST = 250, 120  # [rows] a year without a move beyond HOSE's band shows that the symbol has that band
WIDER = ("HNX", "UPCOM")  # unless its row is labelled so: a calm year there makes a limit-down day no dividend
WAY_BACK_DAYS = 20  # [rows] a jump that nothing explained comes back within that; one that was undone at any time
MOST_EVENTS = 50
LONGEST_BREAK = 8  # [weekdays] the market closes for at Tet; without any row for longer, the data has a hole
LONG_GAP_DAYS = 35  # [calendar days] as long as `LONG_HALT_SESSIONS`, for a calendar of one symbol that has no gaps
LEAST_RATIO = 1 / 12  # a smaller one is no split but an error that nothing here explains
MOST_PRICE = 1e8  # [VND] nor is a split what would bring a share there
MOST_ROUNDS = 20  # two for real prices: the second finds nothing
WIDEST_DAY = 1.36  # high / low of a day inside UPCOM's band: 1.15 / 0.85, and rounding
# Ratios of splits and bonus issues, and how far the open may lie from them [log]. Measured on 39 events of six stocks:
# snapping to the coarse ones leaves an error of 0.3 %, the open alone 3.5 % (shares tend to rise on that day); for the
# finer ones, mixed with cash dividends, snapping from afar is no better than the open.
COARSE, COARSE_REACH = np.array([2 / 3, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 10]), 0.052
FINE, FINE_REACH = np.array([10 / 11, 5 / 6, 4 / 5, 3 / 4, 3 / 5, 2 / 5]), 0.02


@dataclass(frozen=True)
class Limits:
    """What any exchange allows on each row. A symbol's first row has no limits."""

    floor: np.ndarray  # [rows] [VND]
    ceiling: np.ndarray  # [rows] [VND]
    width: np.ndarray  # [rows] band as a fraction of the reference price
    first_day: np.ndarray  # [rows] bool: the first-day band applies
    missed: np.ndarray  # [rows] trading days since the row before, at least 1


@dataclass(frozen=True)
class Actions:
    """Corporate actions that were found, and the factors that undo them."""

    price: np.ndarray  # [rows] factor of the prices
    volume: np.ndarray  # [rows] divisor of the volume
    events: dict[int, str]  # row: what explains it


def starts(symbol: np.ndarray) -> np.ndarray:
    """`[rows]`: the first row of the symbol of each row."""
    first = np.r_[True, symbol[1:] != symbol[:-1]]
    return np.maximum.accumulate(np.where(first, np.arange(len(symbol)), 0))


def unit_levels(close: np.ndarray, start: np.ndarray) -> np.ndarray:
    """`[rows]` int: how often the close has jumped ×1000 since the symbol's first row; ÷1000 counts -1."""
    ratio = close[1:] / close[:-1]
    thousands = np.round(np.log(ratio) / np.log(1_000))
    left = ratio / 1_000.0**thousands
    jump = np.r_[0, np.where((left >= UNIT_MOVE[0]) & (left <= UNIT_MOVE[1]), thousands, 0).astype(int)]
    jump[start == np.arange(len(close))] = 0
    level = np.cumsum(jump)
    return level - level[start]


def sessions(days: pd.DatetimeIndex) -> np.ndarray:
    """`[days]` int: the number of each trading day, counted on over weekdays where the data has a hole."""
    weekdays = np.busday_count(days[:-1].to_numpy("datetime64[D]"), days[1:].to_numpy("datetime64[D]"))
    return np.r_[0, np.cumsum(np.where(weekdays - 1 > LONGEST_BREAK, weekdays, 1))]


def price_limits(table: pd.DataFrame, start: np.ndarray, days: pd.DatetimeIndex, place: np.ndarray) -> Limits:
    """The limits of the widest band of the day: labels of exchanges are today's, not those of the day.

    The reference lies inside the last traded day's range (on UPCOM it is that day's average), and the band compounds
    over trading days without a row. `place` is each row's day in `days`.
    """
    day, place = place, sessions(days)[place]
    row = np.arange(len(table))
    before = np.maximum(row - 1, 0)
    close, volume, date = (table[name].to_numpy() for name in ("close", "volume", "date"))
    last = np.maximum.accumulate(np.where(volume > 0, row, -1))
    traded = np.r_[-1, last[:-1]]  # the last row with a trade before this one
    known = traded >= start
    traded = np.where(known, traded, before)
    first_day = ~known | (place - place[traded] > LONG_HALT_SESSIONS)
    first_day |= date - date[before] > np.timedelta64(LONG_GAP_DAYS, "D")
    if "exchange" in table:
        exchange = table["exchange"].cat.codes.to_numpy()
        first_day |= exchange != exchange[before]
    widest = [np.max([VN_RULES.band(name, days, first_day=is_first) for name in EXCHANGES], axis=0)
              for is_first in (False, True)]
    width = np.where(first_day, widest[True][day], widest[False][day])
    begins = row == start
    missed = np.where(begins, 1, place - place[before])
    low = np.minimum(table["low"].to_numpy()[traded], close[before])
    high = np.maximum(table["high"].to_numpy()[traded], close[before])
    floor = low * (1 - width) ** missed * (1 - SLACK) - STEP
    ceiling = high * (1 + width) ** np.minimum(missed, 99) * (1 + SLACK) + STEP
    return Limits(np.where(begins, -np.inf, floor), np.where(begins, np.inf, ceiling), width, first_day, missed)


def find_actions(table: pd.DataFrame, start: np.ndarray, days: pd.DatetimeIndex, place: np.ndarray) -> Actions:
    """Corporate actions that the prices were not adjusted for, and the factors that undo them from their day on.

    A candidate is a day that lies as a whole outside the limits, or below HOSE's floor where the symbol has kept to
    HOSE's band for a year and is not labelled HNX or UPCOM. It is explained, in this order, by raw closes that did not
    jump (the factor is exact, the volume stays); by an earlier jump that it undoes, as after a bad print; or,
    downwards, as a split or a dividend: a simple ratio near the open / the close before, else that ratio itself. What
    is not explained stays as it is.
    """
    price, volume, events = np.ones(len(table)), np.ones(len(table)), {}
    for _ in range(MOST_ROUNDS):  # where bad prints crowd, undoing some shows others; each round is causal
        steps = list(_Search(_scaled(table, price) if events else table, start, days, place).run())
        if not steps:
            break
        rows, factors, words = zip(*steps, strict=True)
        since = np.zeros(len(table), int)
        since[list(rows)] = np.arange(len(rows)) + 1
        since = np.maximum.accumulate(since)
        since[start > np.r_[0, rows][since]] = 0  # the last event was another symbol's
        of_price, of_volume = np.array([(1.0, 1.0), *factors])[since].T
        price, volume = price * of_price, volume * of_volume
        events = dict(zip(rows, words, strict=True)) | events
    return Actions(price, volume, events)


def _scaled(table: pd.DataFrame, factor: np.ndarray) -> pd.DataFrame:
    return table.assign(**{name: table[name] * factor for name in ("open", "high", "low", "close")})


class _Search:
    """Goes through the candidates in order; its state is that of the symbol of the current row."""

    def __init__(self, table: pd.DataFrame, start: np.ndarray, days: pd.DatetimeIndex, place: np.ndarray) -> None:
        self.open, self.high, self.low, self.close = (table[name].to_numpy() for name in
                                                      ("open", "high", "low", "close"))
        self.date, self.start = table["date"].to_numpy(), start
        self.limits = limits = price_limits(table, start, days, place)
        row = np.arange(len(table))
        before = np.maximum(row - 1, 0)
        raw = table["raw_close"].to_numpy() if "raw_close" in table else np.full(len(table), np.nan)
        raw = np.where(raw > 0, raw, np.nan)
        self.raw_move = raw / raw[before]
        self.move = self.close / self.close[before]
        self.hose = VN_RULES.band("HOSE", days)[place]
        self.over = (np.abs(self.move - 1) > self.hose + SLACK) & (limits.missed == 1) & (row > start)
        self.n_over = np.cumsum(self.over)
        self.own_floor = self.close[before] * (1 - self.hose - SLACK) ** limits.missed - STEP
        traded = table["volume"].to_numpy() > 0  # a price that nobody paid keeps to no band
        self.may_be_hose = (row - start >= OWN_LEAST) & ~limits.first_day & traded
        if "exchange" in table:
            self.may_be_hose &= ~table["exchange"].isin(WIDER).to_numpy()
        outside = (self.high < limits.floor) | (self.low > limits.ceiling)
        self.candidates = np.flatnonzero(outside | (self.may_be_hose & (self.high < self.own_floor)))
        self.now = (1.0, 1.0)  # factor of the prices, divisor of the volume
        self.recent: list[tuple] = []  # (row, move, the factors before it; None if it was not explained)
        self.undone: list[int] = []  # rows whose move is inside HOSE's band once it is undone

    def run(self) -> Iterator[tuple[int, tuple[float, float], str]]:
        """(row, factors from there on, what explains it) of every event."""
        symbol = -1
        for row in self.candidates.tolist():
            if self.start[row] != symbol:
                symbol = self.start[row]
                self.now, self.recent, self.undone = (1.0, 1.0), [], []
            own = self._keeps_to_hose(row)
            lowest = max(self.limits.floor[row], self.own_floor[row]) if own else self.limits.floor[row]
            if not (self.high[row] < lowest or self.low[row] > self.limits.ceiling[row]):
                continue
            self.recent = [event for event in self.recent if event[2] or row - event[0] <= WAY_BACK_DAYS][-MOST_EVENTS:]
            factors, words = self._by_raw_close(row, own) or self._as_way_back(row, lowest) or self._as_split(row)
            self.recent.append((row, self.move[row], self.now if factors else None))
            if factors:
                left = self.move[row] * factors[0] / self.now[0]
                if self.over[row] and abs(left - 1) <= self.hose[row] + SLACK:
                    self.undone.append(row)
                self.now = factors
                yield row, factors, words

    def _keeps_to_hose(self, row: int) -> bool:
        first = max(row - 1 - OWN_DAYS, self.start[row])
        self.undone = [at for at in self.undone if at > first]
        n_over = self.n_over[row - 1] - self.n_over[first] - len(self.undone)
        return bool(self.may_be_hose[row]) and n_over == 0

    def _by_raw_close(self, row: int, own: bool) -> tuple | None:
        width = self.hose[row] if own else self.limits.width[row]
        missed, raw = self.limits.missed[row], self.raw_move[row]
        if not (1 - width) ** missed * (1 - SLACK) <= raw <= (1 + width) ** min(missed, 99) * (1 + SLACK):
            return None
        artefact = self.move[row] / raw
        if abs(np.log(artefact)) < 2 * SLACK:
            return None
        return (self.now[0] / artefact, self.now[1]), "its raw close did not jump"

    def _as_way_back(self, row: int, lowest: float) -> tuple | None:
        for at, move, earlier in reversed(self.recent):
            if earlier is None:
                if abs(np.log(self.move[row] * move)) < 0.5 * abs(np.log(move)):
                    return None, ""
            else:
                back = earlier[0] / self.now[0]
                if lowest <= self.high[row] * back and self.low[row] * back <= self.limits.ceiling[row]:
                    return earlier, f"it undoes the jump of {pd.Timestamp(self.date[at]):%Y-%m-%d}"
        return None

    def _as_split(self, row: int) -> tuple:
        ratio = self.open[row] / self.close[row - 1]
        if not LEAST_RATIO <= ratio < 1 or self.high[row] > self.low[row] * WIDEST_DAY:
            return None, ""
        if self.high[row] * self.now[0] / ratio > MOST_PRICE:
            return None, ""
        words = "as after a dividend or a split"
        for simple, reach in ((COARSE, COARSE_REACH), (FINE, FINE_REACH)):
            away = np.abs(np.log(ratio / simple))
            if away.min() <= reach:
                ratio = simple[away.argmin()]
                words = f"as after a split to {Fraction(ratio).limit_denominator(20)}"
                break
        return (self.now[0] / ratio, self.now[1] / ratio), words
