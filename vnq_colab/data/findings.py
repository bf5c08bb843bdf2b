"""What reading and cleaning found: the data-quality issues, what is done about each, the log, and its report."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd

from vnq_colab.data.cells import PRICES
from vnq_colab.errors import ConfigError, DataError
from vnq_colab.notebook import Shown

SHOWN = 50  # rows of an issue that the report describes
DONE = {"repair": "repaired", "drop": "dropped", "keep": "kept"}


class Issue(NamedTuple):
    """One data-quality issue."""

    name: str  # in the report
    treatments: tuple[str, ...]  # that may be chosen, the default first; "keep" flags the row only
    of_a_row: bool = False  # seen in the row alone: `on_bad_rows` decides on it


ISSUES = {
    # An open, high or low is taken from the other prices; without a close the row is dropped.
    "bad_price": Issue("price missing, zero, negative or beyond 1e9", ("repair", "drop"), True),
    "bad_volume": Issue("volume missing, negative or beyond 1e15", ("repair", "drop"), True),  # another file's, else 0
    # Without volume all prices become the close. Else a swapped high and low are exchanged, or the range is widened to
    # a close near it, and the open moved inside; what does not fit then is dropped.
    "bad_range": Issue("open or close outside [low, high]", ("repair", "drop"), True),
    "duplicate": Issue("duplicate row for a day", ("drop",), True),  # the last that needed no repair stays
    "conflicting_duplicate": Issue("conflicting rows for a day", ("drop",), True),  # of several prices
    "several_files": Issue("day in several files", ("drop",)),  # the later stays; unadjusted ones tell the raw close
    "sources_disagree": Issue("two sources disagree", ("keep",)),  # by more than rounding; the later file's stays
    "files_apart": Issue("files without a common day", ("keep",)),  # taken to have one basis
    # A later file's prices, rescaled after a dividend or a split, are brought to the basis of the earlier files.
    "basis_changed": Issue("adjusted basis changed", ("repair",)),
    # A weekend; or almost none of the symbols of the month before traded, and most closes are those of the day before.
    "closed_day": Issue("day without a market", ("drop", "keep")),
    "lonely_day": Issue("day of a few symbols", ("keep", "drop")),  # fewer than 1 in 20 of the month before
    "unknown_exchange": Issue("unknown exchange", ("repair",)),  # the symbol's of the day before, else HOSE
    "unit_jump": Issue("unit jump", ("repair", "keep")),  # by about 1,000 times: back to the unit of the earlier rows
    # The whole day lies below the band, as after a split or a dividend, or the adjusted close jumps while the raw one
    # does not: from that row on prices are rescaled, the volume of a split inversely.
    "unadjusted_action": Issue("unadjusted corporate action", ("repair", "keep")),
    "beyond_band": Issue("move beyond any band", ("keep",)),  # dropped where repairs lead below 0.001 or beyond 1e9 VND
    # The row after them, or the symbol's last row; without a trade counts at the end of the data only.
    "gap": Issue("over 5 trading days without a row or trade", ("keep",)),
    # The last row of each stretch of one close: of over 30 days with trades (17 in real prices), or of 250 (215).
    "stale_feed": Issue("stale feed: the close stands still", ("keep",)),
    "no_trades": Issue("day without trades", ("keep", "drop")),  # a row of volume 0, as vendors fill in
}


def plan_treatments(on_bad_rows: str, treatments: Mapping[str, str] | None = None) -> dict[str, str]:
    """The treatment of every issue: by `on_bad_rows`, its default, or a person's choice. Raises ConfigError."""
    if on_bad_rows not in ("raise", "drop", "treat"):
        raise ConfigError(f"on_bad_rows = {on_bad_rows!r}: must be 'raise' or 'drop' or 'treat'.")
    plan = {key: on_bad_rows if issue.of_a_row and on_bad_rows != "treat" else issue.treatments[0]
            for key, issue in ISSUES.items()}
    for key, treatment in (treatments or {}).items():
        if key not in ISSUES:
            raise ConfigError(f"treatments: there is no issue {key!r}. Choose one of {', '.join(ISSUES)}.")
        if treatment not in ISSUES[key].treatments:
            raise ConfigError(f"treatments: {key} cannot be treated with {treatment!r}. "
                              f"Choose one of {', '.join(map(repr, ISSUES[key].treatments))}.")
    return plan | dict(treatments or {})


@dataclass(frozen=True)
class FileFacts:
    """One price file as it was understood: nothing about it is guessed in silence."""

    file: str  # its name; a member of a zip as "name.zip/member.csv"
    format: str  # "price table", "CafeF", "AmiBroker", "vnstock", "cophieu68", "VNDirect", "Yahoo", "by its headers"
    unit: str  # "VND", "thousand VND", or "points" where it holds indices only
    adjusted: bool | None  # for splits and dividends; None: the format does not say
    rows: int  # of stocks, kept
    first_day: str
    last_day: str
    columns: dict[str, str] = field(default_factory=dict)  # ours: the file's own header
    set_apart: dict[str, int] = field(default_factory=dict)  # rows that are no stock: {"warrant": 61}
    dropped: dict[str, int] = field(default_factory=dict)  # rows that cannot be read: {"number unreadable": 2}


@dataclass(frozen=True)
class Finding:
    """One data-quality issue: how many rows had it, and what was done."""

    issue: str
    treatment: str
    rows: int
    example: str  # the first row, in words
    more: list[str] = field(default_factory=list)  # the next ones, at most 49


@dataclass(frozen=True, repr=False)
class CleaningReport(Shown):
    """What reading and cleaning found and did. Good to look at in a notebook; exact to and from JSON."""

    source: str
    rows_read: int
    rows_kept: int
    symbols: int
    first_day: str
    last_day: str
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[FileFacts] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)  # what in the data knows the future, as of `lookahead.find_leaks`

    def to_frame(self) -> pd.DataFrame:
        """One row per issue and treatment."""
        return pd.DataFrame([asdict(item) for item in self.findings],
                            columns=["issue", "treatment", "rows", "example"])

    def __repr__(self) -> str:
        files = pd.Series([f"{item.format} in {item.unit}" for item in self.files], dtype=object).value_counts()
        set_apart = pd.DataFrame([item.set_apart for item in self.files]).sum().astype(int)
        return "\n".join([
            f"CleaningReport: {self.rows_kept:,} of {self.rows_read:,} rows kept, {self.symbols} symbols, "
            f"{self.first_day} to {self.last_day}",
            *(f"  LEAK IN THE DATA: {leak}" for leak in self.leaks),
            *(f"  read {n:,} × {name}" for name, n in files.items()),
            *(f"  set apart: {kind}, {n:,} rows" for kind, n in set_apart.items()),
            *(f"  {item.issue}: {item.rows:,} rows, {item.treatment} (first: {item.example})"
              for item in self.findings),
            *([] if self.findings else ["  no data-quality issue found"]),
            *(f"  warning: {warning}" for warning in self.warnings)])


class CleaningLog:
    """The treatment of each issue, and what was found so far in the `n_read` rows of a source."""

    def __init__(self, plan: dict[str, str], source: str, n_read: int) -> None:
        self.plan, self.source, self.n_read = plan, source, n_read
        self.findings: list[Finding] = []

    def note(self, issue: str, rows: pd.DataFrame, bad: np.ndarray, dropped: np.ndarray | None = None, *,
             repairable: np.ndarray | bool = True, treatment: str | None = None,
             describe: Callable[[int], str] | None = None) -> np.ndarray:
        """`[rows]` bool: the bad rows to repair; `dropped` gets the others. `describe` tells the value of row i."""
        dropped = np.zeros(len(rows), bool) if dropped is None else dropped
        bad, treatment = bad & ~dropped, treatment or self.plan[issue]

        def example(row: int) -> str:
            one = rows.iloc[row]
            return f"{one['symbol']} {one['date']:%Y-%m-%d}: {describe(row) if describe else _value_of(one, issue)}"

        if treatment == "raise" and bad.any():
            more = f" (and {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
            raise DataError(f"{example(int(bad.argmax()))}{more}. Repair {self.source}, or have such rows left out or "
                            "repaired: --on-bad-rows drop, or treat (in Python: on_bad_rows=\"drop\" or \"treat\").")
        masks = {name: bad & (name == treatment) for name in DONE}
        if treatment == "repair":
            masks |= {"repair": bad & repairable, "drop": bad & np.logical_not(repairable)}
        for name, mask in masks.items():
            if mask.any():
                first, *more = map(example, np.flatnonzero(mask)[:SHOWN].tolist())
                self.findings.append(Finding(ISSUES[issue].name, DONE[name], int(mask.sum()), first, more))
        dropped |= masks["drop"]
        return masks["repair"]

    def kept(self, rows: pd.DataFrame, dropped: np.ndarray) -> pd.DataFrame:
        """The rows that stay. Raises DataError when there are none."""
        if dropped.all():
            raise DataError(f"{self.source}: no usable row is left of {self.n_read:,}. Bring a table of prices.")
        return rows[~dropped].reset_index(drop=True) if dropped.any() else rows


def _value_of(row: pd.Series, issue: str) -> str:
    """ "high 41,200 < low 41,900 [VND]"."""
    if issue == "bad_range" and row["high"] < row["low"]:
        return f"high {row['high']:,.10g} < low {row['low']:,.10g} [VND]"
    if issue in ("bad_price", "bad_range", "duplicate", "conflicting_duplicate", "beyond_band"):
        return f"{ISSUES[issue].name} ({', '.join(f'{name} {row[name]:,.10g}' for name in PRICES)} [VND])"
    if issue == "bad_volume":
        return f"{ISSUES[issue].name} ({row['volume']:,.10g} [shares])"
    return f"close {row['close']:,.10g} [VND]"
