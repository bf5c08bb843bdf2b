"""Leak checks: what a result that is too good to be true must pass before anybody believes it.

Each asks the data and the networks themselves, not what they say about themselves, and names the culprit.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.config import PROFILES
from vnq_colab.data.lookahead import prove_no_lookahead
from vnq_colab.data.panel import Panel, Scaler, build_panel, fit_scaler
from vnq_colab.data.prepared import PROOF, Prepared
from vnq_colab.data.splits import DayRange, Splits, to_day
from vnq_colab.delivery.review import is_proven
from vnq_colab.errors import SessionError, name_a_few
from vnq_colab.models.base import Forecaster, family_module
from vnq_colab.models.global_network import train_global
from vnq_colab.training.forecasting import load_forecaster
from vnq_colab.training.parts import whole_run
from vnq_colab.training.session import Session

CHECKS = ("features", "labels", "scaler", "test days")
MOST_SHIFT = 5  # [days] that a series is tried to be shifted by
SHIFTED_SHARE = 0.9  # [fraction] of the days that differ on which a shifted series must agree
PEEKS = 6  # symbols, and origins, whose forecasts are made again in a world with another future
SAME_SCALE = 1e-4  # [standard deviations] two scalers of the same days may differ by


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


def check_leaks(session: Session | Sequence[Session], prepared: Prepared, *, panel: Panel | None = None,
                forecaster: Forecaster | None = None) -> list[LeakCheck]:
    """Looks for the future in what a run was trained on; `session` may be the folds of one walk, oldest first.

    "features": the panel is computed anew from the prepared prices and compared value by value, and computing it is
    proven to ignore later prices. "labels": its returns are those of the closes. "scaler": that of the networks is that
    of the training days. "test days": no label of a training or validation day reaches into them, and a small network
    trained twice, with everything after the training labels changed, comes out with the same bits.

    `panel` is what was trained on where that is not the prepared one, `forecaster` the networks where they are not
    those of the session. Raises SessionError when the run was trained on other data than `prepared`.
    """
    runs = [whole_run(run) for run in ([session] if isinstance(session, Session) else session)]
    for run in runs:
        if run.data_id != prepared.panel.data_id:
            raise SessionError(f"run {run.run_id} was trained on data {run.data_id}, this is data "
                               f"{prepared.panel.data_id}. Load the run's own prepared set.")
    panel = prepared.panel if panel is None else panel
    networks = [(run, forecaster or load_forecaster(run)) for run in runs]
    answers = (
        [*_wrong_features(panel, prepared)],
        [*_wrong_labels(panel, prepared.prices)],
        [text for run, made in networks for text in _wrong_scaler(run, panel, made)],
        [*(text for run in runs for text in _overlaps(run, panel)), *_sees_beyond(runs[-1], panel),
         *(text for run, made in networks for text in _peeks(run, panel, made))],
    )
    fine = (f"all {len(panel.feature_names)} features of {len(panel.symbols)} symbols are those of the prices up to "
            "their day", "all returns are those of the closes", "every scaler is that of the training days alone",
            "no training or validation label reaches into the test days, and training ignores what comes after it")
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


def _wrong_labels(panel: Panel, prices: pd.DataFrame) -> Iterator[str]:
    """Where the returns, which all labels are made of, are not the log returns of the closes."""
    rows = prices.sort_values(["symbol", "date"])
    daily = np.log(rows["close"]).groupby(rows["symbol"].to_numpy()).diff()
    table = rows[["symbol", "date"]].assign(daily=daily).pivot(index="symbol", columns="date", values="daily")
    true = table.reindex(index=list(panel.symbols), columns=panel.days).to_numpy()  # [symbols, days]
    differ = panel.present & ~_alike(panel.returns, true, 1e-9)
    if not differ.any():
        return
    whose = differ.any(axis=1)
    mine, theirs = (np.sort(values[np.isfinite(values)]) for values in (panel.returns[whose], true[whose]))
    how = [f"{_names(panel, rows)} shifted by {abs(days)} day{'s' * (abs(days) > 1)}: that of {_moved(days)}"
           for days, rows in _by_shift(panel.returns, true, panel.present, differ) if days]
    if not how and mine.shape == theirs.shape and _alike(mine, theirs, 1e-9).all():
        how = ["they are shuffled, the same returns in another order"]
    share = differ[whose].sum() / panel.present[whose].sum()
    yield (f"the returns of {_names(panel, whose)} are not those of their closes on {share:.1%} of their days"
           + "".join(f" ({text})" for text in how))


def _wrong_scaler(run: Session, panel: Panel, forecaster: Forecaster) -> Iterator[str]:
    """The symbols whose scaler is not that of the training days, and whose it is instead."""
    train, splits = run.days["train"], Splits.from_dict(run.days["splits"])
    part = panel.select(forecaster.symbols)

    def unlike(first: "str | pd.Timestamp", last: "str | pd.Timestamp") -> tuple[np.ndarray, np.ndarray]:
        return _unlike(forecaster.scaler, fit_scaler(part, to_day(first), to_day(last)))

    wrong, features = unlike(*train)
    if not wrong.any():
        return
    spans = {"all days": (panel.days[0], panel.days[-1]),
             "the training, validation and test days": (train[0], splits.test.last),
             "the training and validation days": (train[0], splits.valid.last)}
    truth = next((f"it is that of {name}" for name, days in spans.items() if not unlike(*days)[0][wrong].any()), None)
    if truth is None:
        odd = [name for name, is_odd in zip(panel.feature_names, features, strict=True) if is_odd]
        truth = f"it is of no days known ({name_a_few(odd) or 'the returns'} differ)"
    yield (f"the scaler of {_names(part, wrong)} in {run.run_id} is not that of the training days ({train[0]} to "
           f"{train[1]}): {truth}")


def _overlaps(run: Session, panel: Panel) -> Iterator[str]:
    """How far the labels of training and of validation days reach into the test days, in trading days."""
    test = Splits.from_dict(run.days["splits"]).test
    first = int(panel.days.searchsorted(to_day(test.first)))
    for name, days in (("training", run.days["train"]), ("validation", run.days["valid"])):
        if days is not None:
            last = int(panel.days.searchsorted(to_day(days[1]), side="right")) - 1
            overlap = min(last + run.config.model.horizon, len(panel.days) - 1) - first + 1
            if overlap > 0:
                yield (f"the labels of the {name} days of {run.run_id} (to {days[1]}) overlap the test days (from "
                       f"{test.first}) by {overlap} day{'s' * (overlap > 1)}")


def _sees_beyond(run: Session, panel: Panel) -> Iterator[str]:
    """Whether training, with this run's windows and labels, gives other weights when what follows them is changed."""
    train, days = DayRange(*run.days["train"]), panel.days
    after = int(days.searchsorted(to_day(train.last), side="right")) + run.config.model.horizon
    if after >= len(days):
        return
    history = (panel.present & train.mask(days)).sum(axis=1)
    trained = [row for row, symbol in enumerate(panel.symbols) if symbol in run.ledger]
    symbol = panel.symbols[max(trained, key=lambda row: history[row])]
    small = {"n_members": 1, "model": replace(run.config.model, **PROFILES["smoke"]["model"]),
             "machine": replace(run.config.machine, device="cpu", dtype="float32")}
    config, digests, starts = replace(run.config, **small), [], []
    for world in (panel.select([symbol]), _with_other_future(panel.select([symbol]), after)):
        learner = family_module(run.family).make_learner(world, train, None, config, epochs_of={(symbol, 0): 1})
        while not learner.finished:
            learner.step()
        digests.append(learner.forecaster().digest(symbol))
        start = train_global(world, train, None, config, epochs=1).weights
        starts.append(hashlib.sha256(start.numpy().tobytes()).hexdigest())
    changed = f"comes out otherwise when only days from {days[after]:%Y-%m-%d} on are changed"
    if digests[0] != digests[1]:
        yield f"training overlaps what follows it: a network of {symbol} trained to {train.last} {changed}"
    if starts[0] != starts[1]:
        yield f"the shared start overlaps what follows it: one trained to {train.last} {changed}"


def _peeks(run: Session, panel: Panel, forecaster: Forecaster) -> Iterator[str]:
    """Whether what the networks forecast in the middle of the test days changes with what comes after."""
    test = Splits.from_dict(run.days["splits"]).test
    places = np.flatnonzero(test.mask(panel.days))
    middle = int(places[len(places) // 2])
    origins = np.isin(np.arange(len(panel.days)), places[(places <= middle)][-PEEKS:])
    some = forecaster.symbols[:PEEKS]
    world = panel.select(some)
    here, there = (forecaster.select(some).predict(seen, origins)
                   for seen in (world, _with_other_future(world, middle + 1)))
    if not np.array_equal(here["mean"].to_numpy(), there["mean"].to_numpy()):
        yield (f"forecasts of {run.run_id} up to {panel.days[middle]:%Y-%m-%d} know later days: they come out "
               "otherwise when only those are changed")


def _with_other_future(panel: Panel, after: int) -> Panel:
    """The same panel with other values, returns and absent days from the day at place `after` on."""
    random = np.random.default_rng(0)
    values, returns, present = panel.values.copy(), panel.returns.copy(), panel.present.copy()
    present[:, after:] = random.random(present[:, after:].shape) < 0.9
    values[:, after:] = random.normal(0, 3, values[:, after:].shape)
    returns[:, after:] = random.normal(0, 0.1, returns[:, after:].shape)
    values[~present], returns[~present] = 0, np.nan
    return replace(panel, values=values, returns=returns, present=present)


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


def _unlike(mine: Scaler, theirs: Scaler) -> tuple[np.ndarray, np.ndarray]:
    """`[symbols]` whose scalers differ, and `[features]` in which any of them does."""
    features = ((np.abs(mine.mean - theirs.mean) > SAME_SCALE * theirs.spread)
                | (np.abs(mine.spread / theirs.spread - 1) > SAME_SCALE))  # [symbols, features]
    return features.any(axis=1) | (np.abs(mine.target / theirs.target - 1) > SAME_SCALE), features.any(axis=0)


def _moved(days: int) -> str:
    return f"{abs(days)} day{'s' * (abs(days) > 1)} {'later' if days > 0 else 'earlier'}"


def _names(panel: Panel, rows: np.ndarray) -> str:
    return name_a_few(symbol for symbol, chosen in zip(panel.symbols, rows, strict=True) if chosen)
