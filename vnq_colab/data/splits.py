"""Splits: which days train, which validate, which test, with a purge between them so that no label crosses over."""

import datetime as dt
import itertools
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON
from vnq_colab.errors import DataError


def to_day(text: str | pd.Timestamp) -> pd.Timestamp:
    """The day that a text such as "2026-11-20" names. Raises DataError for anything else."""
    if isinstance(text, dt.date):
        return pd.Timestamp(text).normalize()
    try:
        return pd.Timestamp(dt.datetime.strptime(text, "%Y-%m-%d"))
    except (ValueError, TypeError):
        raise DataError(f"{text!r} is not a date: write it as 2026-11-20.") from None


LEAST_FOLD = 20  # [test days] of a fold; fewer are not worth a training


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

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict) -> "Splits":
        return cls(*(DayRange(**value[name]) for name in ("train", "valid", "test")), value["purge_days"])

    def __repr__(self) -> str:
        ranges = (f"{name} {part.first} to {part.last}" for name, part in
                  (("train", self.train), ("valid", self.valid), ("test", self.test)))
        return f"Splits: {', '.join(ranges)}; {self.purge_days} days purged before each border"


def split_days(days: pd.DatetimeIndex, valid_from: str | None = None, test_from: str | None = None, *,
               purge_days: int = HORIZON) -> Splits:
    """Training, validation and test days by date; None takes the last 20 % of days, half each.

    The last `purge_days` days before a border belong to no range: their labels would reach across it. Raises DataError
    when a range would be empty, or the purge is shorter than the horizon.
    """
    if purge_days < HORIZON:
        raise DataError(f"purge_days = {purge_days}: it must be at least the horizon, {HORIZON} days.")
    n_days = len(days)
    valid = int(n_days * 0.8) if valid_from is None else int(days.searchsorted(to_day(valid_from)))
    test = (valid + n_days) // 2 if test_from is None else int(days.searchsorted(to_day(test_from)))
    borders = {"train": (0, valid - purge_days), "valid": (valid, test - purge_days), "test": (test, n_days)}
    ranges = {}
    for name, (first, end) in borders.items():
        if end - first < 1:
            moved = valid_from or test_from
            raise DataError(f"no {name} days are left of {n_days:,} trading days beside the {purge_days} purged before "
                            f"each border. Bring a longer history{', or move valid_from and test_from' * bool(moved)}.")
        ranges[name] = DayRange(f"{days[first]:%Y-%m-%d}", f"{days[end - 1]:%Y-%m-%d}")
    return Splits(**ranges, purge_days=purge_days)


def walk_forward_splits(days: pd.DatetimeIndex, folds: int = 8, *, test_share: float = 0.5,
                        rolling_days: int | None = None, purge_days: int = HORIZON) -> list[Splits]:
    """Splits of a walk through time: the last `test_share` of all days in `folds` test ranges, each after its training.

    Before each test range lie its validation days, an eighth of what is there, and before those its training days: all
    of them, or the last `rolling_days`. Training always precedes the test, so there is nothing to embargo: the purge
    does the work. Raises DataError when a range would be empty.
    """
    if folds < 1 or not 0 < test_share < 1:
        raise DataError(f"folds = {folds}, test_share = {test_share}: at least one fold of a share between 0 and 1.")
    edges = np.linspace(int(len(days) * (1 - test_share)), len(days), folds + 1).astype(int)
    found = []
    for first, end in itertools.pairwise(edges):
        valid = first - first // 8
        begin = 0 if rolling_days is None else max(0, valid - purge_days - rolling_days)
        if end - first < LEAST_FOLD or valid - purge_days - begin < 1 or first - purge_days - valid < 1:
            raise DataError(f"{len(days):,} trading days do not make {folds} folds of at least {LEAST_FOLD} test "
                            "days: take fewer, or bring a longer history.")
        splits = split_days(days[begin:end], f"{days[valid]:%Y-%m-%d}", f"{days[first]:%Y-%m-%d}",
                            purge_days=purge_days)
        found.append(splits)
    return found
