"""Folds: a stretch of test days, and the days before it that train and validate, with a purge between them."""

import contextlib
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.config import MOST_FOLDS
from vnq_colab.errors import DataError, shorten
from vnq_colab.settings import Task

LEAST_TRAIN_DAYS = 400
LEAST_TEST_DAYS = 60  # of the last year; a shorter beginning of it belongs to the year before
MOST_VALID_DAYS = 250  # a year
VALID_SHARE = 0.2  # of the days before the test days
PURGE_DAYS = Task().purge_days


def to_day(text: str | pd.Timestamp) -> pd.Timestamp:
    """The day that a text such as "2026-11-20" names. Raises DataError for anything else."""
    try:
        day = text if isinstance(text, dt.date) else dt.datetime.strptime(text, "%Y-%m-%d")
        return pd.Timestamp(day).as_unit("ns").normalize()
    except (ValueError, TypeError):  # pandas knows the years 1678 to 2261
        raise DataError(f"{shorten(text)} is not a date: write it as 2026-11-20.") from None


def up_to(table: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The rows up to and including a day. Raises DataError when there are none."""
    kept = table[table["date"] <= day]
    if kept.empty:
        raise DataError(f"there are no prices up to {day:%Y-%m-%d}; the first are of {table['date'].min():%Y-%m-%d}.")
    return kept


@dataclass(frozen=True)
class DayRange:
    """Days from `first` to `last`, both included, as "2024-03-01"."""

    first: str
    last: str

    def mask(self, days: pd.DatetimeIndex) -> np.ndarray:
        """`[days]` bool: which of the days lie inside."""
        return np.asarray((days >= to_day(self.first)) & (days <= to_day(self.last)))


@dataclass(frozen=True)
class Splits:
    """Day ranges of forecast origins, the same for all symbols; the purged days between hold none."""

    train: DayRange
    valid: DayRange
    test: DayRange
    purge_days: int

    def __post_init__(self) -> None:
        ends = [to_day(day) for part in (self.train, self.valid, self.test) for day in (part.first, part.last)]
        if ends != sorted(ends) or self.purge_days < PURGE_DAYS:
            raise DataError(f"{self!r}: the ranges must follow one another, with at least {PURGE_DAYS} days purged.")

    def __repr__(self) -> str:
        ranges = (f"{name} {part.first} to {part.last}" for name, part in
                  (("train", self.train), ("valid", self.valid), ("test", self.test)))
        return f"Splits: {', '.join(ranges)}; {self.purge_days} days purged before each border"


def split_days(days: pd.DatetimeIndex, valid_from: str, test_from: str, test_to: str | None = None, *,
               purge_days: int = PURGE_DAYS) -> Splits:
    """One fold by its borders, the `purge_days` before each in no range. Raises DataError for an empty range."""
    valid, test = (int(days.searchsorted(to_day(day))) for day in (valid_from, test_from))
    end = len(days) if test_to is None else int(days.searchsorted(to_day(test_to), side="right"))
    borders = {"train": (0, valid - purge_days), "valid": (valid, test - purge_days), "test": (test, end)}
    ranges = {}
    for name, (first, last) in borders.items():
        if last - first < 1:
            raise DataError(f"no {name} days are left of {len(days):,} trading days beside the {purge_days} purged "
                            "before each border. Bring a longer history, or move the borders.")
        ranges[name] = DayRange(f"{days[first]:%Y-%m-%d}", f"{days[last - 1]:%Y-%m-%d}")
    return Splits(**ranges, purge_days=purge_days)


def yearly_folds(days: pd.DatetimeIndex, folds: int | None = None, *, purge_days: int = PURGE_DAYS) -> list[Splits]:
    """The newest `folds` years of a market as folds, or as many as it has, oldest first; None: at most eight.

    Before a fold's test days lie its validation days, a fifth of what is there and at most a year, and before those its
    training days, at least 400. Raises DataError when there is no fold.
    """
    if folds is not None and folds < 1:
        raise DataError(f"folds = {folds}: at least one year is judged.")
    starts = [int(place) for place in np.flatnonzero(np.diff(days.year, prepend=0))]
    if len(starts) > 1 and len(days) - starts[-1] < LEAST_TEST_DAYS:
        starts.pop()
    splits: list[Splits] = []
    for first, end in zip(starts[::-1], [len(days), *starts[:0:-1]], strict=True):
        n_valid = min(MOST_VALID_DAYS, int(VALID_SHARE * first))
        if first - n_valid - purge_days < LEAST_TRAIN_DAYS or len(splits) == (folds or MOST_FOLDS):
            break
        splits.insert(0, split_days(days, days[first - n_valid], days[first], days[end - 1], purge_days=purge_days))
    if not splits:
        needed = round((LEAST_TRAIN_DAYS + purge_days) / (1 - VALID_SHARE)) + LEAST_TEST_DAYS
        raise DataError(f"{len(days):,} trading days do not make a fold: {LEAST_TRAIN_DAYS} training days, a fifth for "
                        f"validation and a year to judge need about {needed}. Bring a longer history.")
    return splits


def folds_if_any(days: pd.DatetimeIndex) -> list[Splits]:
    """`yearly_folds` of all years; none of a market that is too short, which can be looked at and forecast from."""
    with contextlib.suppress(DataError):
        return yearly_folds(days)
    return []


def check_folds(folds: Sequence[Splits], days: pd.DatetimeIndex, *, purge_days: int = PURGE_DAYS) -> None:
    """Raises DataError unless the folds are of these trading days, one after another, purged in trading days."""
    flaw, tested = "", -1  # the last day that was tested so far
    for fold in folds:
        parts = (fold.train, fold.valid, fold.test)
        first, last = (days.get_indexer([to_day(getattr(part, end)) for part in parts]) for end in ("first", "last"))
        purged = (first[1:] - last[:-1] - 1).min()  # [trading days] between the ranges
        if min(*first, *last) < 0:
            flaw = "it begins or ends on a day that the data does not have"
        elif purged < purge_days:
            flaw = f"{max(purged, 0)} trading days lie between its ranges where labels need {purge_days}"
        elif first[2] <= tested:
            flaw = "the test days of two folds overlap or are out of order"
        if flaw:
            raise DataError(f"{fold!r}: {flaw}. Run prepare again on the same prices.")
        tested = last[2]
