"""Leak checks: what a result that is too good to be true must pass before anybody believes it.

Each asks the data themselves, not what they say about themselves, and names what it found.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.lookahead import prove_no_lookahead
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.prepared import PROOF, Prepared
from vnq_colab.data.splits import Splits, to_day
from vnq_colab.delivery.review import is_proven
from vnq_colab.errors import SessionError, name_a_few
from vnq_colab.training.forecasting import fold_scores
from vnq_colab.training.session import Session

CHECKS = ("features", "labels", "test days", "rows")
MOST_SHIFT = 5  # [days] that a series is tried to be shifted by
SHIFTED_SHARE = 0.9  # [fraction] of the days that differ on which a shifted series must agree


@dataclass(frozen=True, repr=False)
class LeakCheck:
    """One question about a run, and what was found."""

    check: str  # one of CHECKS
    passed: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __repr__(self) -> str:
        return f"{'passed' if self.passed else 'LEAK'}, {self.check}: {self.sentence}"


def check_leaks(session: Session, prepared: Prepared, *, panel: Panel | None = None) -> list[LeakCheck]:
    """Looks for the future in what a run was trained on.

    "features": the panel is computed anew from the prepared prices and compared value by value, and computing it is
    proven to ignore later prices. "labels": the panel's prices, which all labels are made of, are those of the table.
    "test days": no label of a fold's training or validation days reaches into its test days. "rows": every judged stock
    that is present on a test day was forecast, and none that is absent.

    `panel` is what was trained on where that is not the prepared one. Raises SessionError when the run was trained on
    other data than `prepared`.
    """
    if session.data_id != prepared.panel.data_id:
        raise SessionError(f"run {session.run_id} was trained on data {session.data_id}, this is data "
                           f"{prepared.panel.data_id}. Load the run's own prepared set.")
    panel = prepared.panel if panel is None else panel
    answers = ([*_wrong_features(panel, prepared)], [*_wrong_labels(panel, prepared)], [*_overlaps(session, panel)],
               [*_wrong_rows(session, panel)])
    fine = (f"all {len(panel.feature_names)} features of {len(panel.symbols)} symbols are those of the prices up to "
            "their day", "all labels are those of the prices",
            "no training or validation label reaches into the test days",
            "every stock that is present on a test day was forecast, and no other")
    found = []
    for check, texts, good in zip(CHECKS, answers, fine, strict=True):
        text = "; ".join([*texts[:5], *([f"and {len(texts) - 5} more"] if len(texts) > 5 else [])] or [good])
        found.append(LeakCheck(check, not texts, f"{text[0].upper()}{text[1:]}."))
    return found


def _wrong_features(panel: Panel, prepared: Prepared) -> Iterator[str]:
    """What differs from the features computed anew, and which of those know more than their day."""
    true = build_panel(prepared.prices, prepared.index)
    known = set(panel.symbols) <= set(true.symbols)
    if not known or panel.feature_names != true.feature_names or not panel.days.equals(true.days):
        yield (f"the panel ({len(panel.symbols)} symbols, {len(panel.days)} days, {len(panel.feature_names)} features) "
               f"is not one of its prices ({len(true.symbols)}, {len(true.days)}, {len(true.feature_names)})")
        return
    true = true.select(panel.symbols)
    absent = (panel.present != true.present).any(axis=1)
    if absent.any():
        yield f"other days are present than have prices, in {_names(panel, absent)}"
    there = panel.present & true.present
    for place, name in enumerate(panel.feature_names):
        mine, theirs = panel.values[:, :, place], true.values[:, :, place]
        differ = there & ~_alike(mine, theirs)
        for days, rows in _by_shift(mine, theirs, there, differ):
            one = int(rows.sum()) == 1
            whose = _names(panel, rows) if one else f"{int(rows.sum())} symbols"
            first = panel.days[np.flatnonzero(differ[rows].any(axis=0))[0]]
            yield (f"feature {name} of {whose} is that of {_moved(days)}" if days else
                   f"feature {name} of {whose} is not that of the prices, first on {first:%Y-%m-%d}")
    proof = prove_no_lookahead(prepared.prices, index=prepared.index)
    bad = proof.table[(proof.table["differ"] > 0) & proof.table["what"].str.match("feature |cleaned rows")]
    for what, rows in bad.groupby("what", sort=False):
        yield (f"{what} knows the future: {int(rows['differ'].sum()):,} values up to {proof.at} change when later "
               f"prices do, first {rows['where'].iloc[0]}")
    if (prepared.folder / PROOF).exists() and not is_proven(prepared):
        yield f"the proof of no look-ahead in {prepared.folder / PROOF} failed"


def _wrong_labels(panel: Panel, prepared: Prepared) -> Iterator[str]:
    """Where the prices, which all labels are made of, are not those of the table."""
    true = build_panel(prepared.prices, prepared.index)
    if not set(panel.symbols) <= set(true.symbols) or not panel.days.equals(true.days):
        return  # said by the check of the features
    true = true.select(panel.symbols)
    for name, column in (("opens", 0), ("closes", 3)):
        mine, theirs = panel.prices[:, :, column], true.prices[:, :, column]
        differ = panel.present & ~_alike(mine, theirs, 1e-9)
        if differ.any():
            whose = differ.any(axis=1)
            how = [f" ({_names(panel, rows)} shifted by {abs(days)} day{'s' * (abs(days) > 1)}: that of {_moved(days)})"
                   for days, rows in _by_shift(mine, theirs, panel.present, differ) if days]
            share = differ[whose].sum() / panel.present[whose].sum()
            yield (f"the {name} of {_names(panel, whose)} are not those of the price table on {share:.1%} of their days"
                   + "".join(how))


def _overlaps(session: Session, panel: Panel) -> Iterator[str]:
    """How far the labels of training and of validation days reach into a fold's test days, in trading days."""
    for number, fold in enumerate(session.folds, 1):
        splits = Splits.from_dict(fold)
        first = int(panel.days.searchsorted(to_day(splits.test.first)))
        for name, days in (("training", splits.train), ("validation", splits.valid)):
            last = int(panel.days.searchsorted(to_day(days.last), side="right")) - 1
            overlap = last + session.config.task.horizon + 1 - first + 1
            if overlap > 0:
                yield (f"the labels of the {name} days of fold {number} (to {days.last}) overlap the test days (from "
                       f"{splits.test.first}) by {overlap} day{'s' * (overlap > 1)}")


def _wrong_rows(session: Session, panel: Panel) -> Iterator[str]:
    """Test days of judged stocks that a family left out, and those that it forecast although the stock was absent."""
    scores = fold_scores(session, panel)
    scores = scores[scores["part"] == "test"]
    symbols = sorted(scores["symbol"].unique())
    tested = np.logical_or.reduce([Splits.from_dict(fold).test.mask(panel.days) for fold in session.folds])
    there = panel.present[[panel.symbols.index(symbol) for symbol in symbols]] & tested
    for family, rows in scores.groupby("family", observed=True):
        found = np.zeros(there.shape, dtype=bool)
        found[pd.Index(symbols).get_indexer(rows["symbol"].astype(object)), panel.days.get_indexer(rows["date"])] = True
        for wrong, what in ((there & ~found, "were not forecast"), (found & ~there, "were forecast without a price")):
            if wrong.any():
                yield (f"{int(wrong.sum())} test days of {name_a_few(np.array(symbols)[wrong.any(axis=1)])} {what} by "
                       f"{family}")


def _alike(mine: np.ndarray, theirs: np.ndarray, atol: float = 1e-5) -> np.ndarray:
    """Equal to what two kinds of processor may differ by."""
    return np.isclose(mine, theirs, rtol=1e-4, atol=atol, equal_nan=True)


def _by_shift(mine: np.ndarray, theirs: np.ndarray, there: np.ndarray, differ: np.ndarray,
              ) -> Iterator[tuple[int, np.ndarray]]:
    """The symbols `[symbols]` that differ, by how many days later `mine [symbols, days]` is; 0 is no shift."""
    rows = np.flatnonzero(differ.any(axis=1))
    shifts = np.array([_shift_of(mine[row], theirs[row], there[row], differ[row]) for row in rows], dtype=int)
    for days in np.unique(shifts):
        chosen = np.zeros(len(mine), dtype=bool)
        chosen[rows[shifts == days]] = True
        yield int(days), chosen


def _shift_of(mine: np.ndarray, theirs: np.ndarray, there: np.ndarray, differ: np.ndarray) -> int:
    """By how many days a series of one symbol is later than it should be, of the market's days or of its own; else 0.

    Only the days that differ are asked, so that a series that hardly moves is not taken for a shifted one.
    """
    best, least = 0, SHIFTED_SHARE
    for view in (slice(None), there):
        here, right, odd = mine[view], theirs[view], differ[view]
        for days in (sign * step for step in range(1, MOST_SHIFT + 1) for sign in (1, -1)):
            now, then = slice(max(-days, 0), min(-days, 0) or None), slice(max(days, 0), min(days, 0) or None)
            asked = odd[now]
            share = _alike(here[now], right[then], 1e-9)[asked].mean() if asked.any() else 0.0
            if share > least:
                best, least = days, share
    return best


def _names(panel: Panel, rows: np.ndarray) -> str:
    return name_a_few(symbol for symbol, chosen in zip(panel.symbols, rows, strict=True) if chosen)


def _moved(days: int) -> str:
    return f"{abs(days)} day{'s' * (abs(days) > 1)} {'later' if days > 0 else 'earlier'}"
