"""Look-ahead and leaks: the review of a prepared set before training, and the leak checks of a run after it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.lookahead import LookaheadProof, prove_no_lookahead
from vnq_colab.data.panel import CLOSE, OPEN, Panel, build_panel
from vnq_colab.data.prepared import PROOF, Prepared
from vnq_colab.errors import SessionError, name_a_few
from vnq_colab.evaluation import plots
from vnq_colab.files import read_json, write_atomic, write_json
from vnq_colab.notebook import Shown
from vnq_colab.progress import now
from vnq_colab.training.jobs import fold_scores, session_folds
from vnq_colab.training.session import Session

PICTURES = ("coverage.png", "cleaning.png", "features.png", "correlations.png")
SHIFTED_SHARE = 0.9  # [fraction] of the days that differ on which a shifted series agrees


@dataclass(frozen=True, repr=False)
class Review(Shown):
    """The proof of no look-ahead, and pictures to see before training."""

    proof: LookaheadProof
    pictures: tuple[Path, ...]

    def __repr__(self) -> str:
        names = ", ".join(path.name for path in self.pictures)
        return f"{self.proof!r}\nPictures in {self.pictures[0].parent}: {names}"


def review(prepared: Prepared) -> Review:
    """Draws coverage, cleaning, features and correlations into the set's folder, and proves that nothing looks ahead.

    The proof is of the last training day, and of cleaning too; in a set that was loaded it begins from clean prices.
    """
    note, panel = prepared.note, prepared.panel
    now("drawing coverage, cleaning, features and correlations")
    figures = (plots.coverage(panel, prepared.folds, note=note), plots.cleaning(prepared.cleaning, note=note),
               plots.feature_distributions(panel, note=note), plots.feature_correlations(panel, note=note))
    pictures = tuple(prepared.folder / name for name in PICTURES)
    for path, figure in zip(pictures, figures, strict=True):
        write_atomic(path, plots.png(figure))
    day = prepared.folds[-1].train.last if prepared.folds else None
    rows = prepared.prices if prepared.rows is None else prepared.rows
    now("proving that nothing looks ahead, in other futures")
    proof = prove_no_lookahead(rows, day, index=prepared.index, **prepared.cleaning_options)
    write_json(prepared.folder / PROOF, proof.to_dict())
    return Review(proof, pictures)


def is_proven(prepared: Prepared) -> bool:
    """Whether a review of this set has proven that nothing in it looks ahead."""
    path = prepared.folder / PROOF
    return path.exists() and read_json(path, dict[str, Any]).get("passed") is True


def check_leaks(session: Session, prepared: Prepared) -> list[dict[str, Any]]:
    """Searches for the future in what a run was trained on and judged by: `check, passed, sentence` of each check.

    "features": those of the panel are computed anew from the prepared prices, which is proven to ignore later ones.
    "labels": the panel's prices, which labels are made of, are those of the price table. "test days": no label of a
    fold's training or validation days reaches into its test days. "rows": every judged stock that is present on a test
    day was forecast, and none that is absent.
    """
    panel, true = prepared.panel, build_panel(prepared.prices, prepared.index)
    if not set(panel.symbols) <= set(true.symbols) or not panel.days.equals(true.days):
        features, labels = iter([f"The panel ({panel!r}) is not one of its prices ({true!r})"]), iter(())
    else:
        true = true.select(panel.symbols)
        features, labels = _wrong_features(panel, true, prepared), _wrong_labels(panel, true)
    checks = {
        "features": (features, f"All {len(panel.feature_names)} features of {len(panel.symbols)} symbols are those of "
                               "the prices up to their day"),
        "labels": (labels, "All labels are those of the prices"),
        "test days": (_wrong_folds(session, panel), "No training or validation label reaches into the test days"),
        "rows": (_wrong_rows(session, panel), "Every stock that is present on a test day was forecast, and no other")}
    return [{"check": check, "passed": (wrong := next(findings, None)) is None, "sentence": f"{wrong or good}."}
            for check, (findings, good) in checks.items()]


def _wrong_features(panel: Panel, true: Panel, prepared: Prepared) -> Iterator[str]:
    """The first feature that differs from the one computed anew; else what changes with later prices."""
    if (absent := (panel.present != true.present).any(axis=1)).any():
        yield f"Other days are present than have prices, in {_names(panel, absent)}"
    differ = panel.present[:, :, None] & ~np.isclose(panel.values, true.values, rtol=1e-4, atol=1e-5, equal_nan=True)
    for place in np.flatnonzero(differ.any(axis=(0, 1))):
        odd, mine, theirs = differ[:, :, place], panel.values[:, :, place], true.values[:, :, place]
        later = np.isclose(mine[:, :-1], theirs[:, 1:], rtol=1e-4, atol=1e-9)[odd[:, :-1]].mean()
        yield (f"Feature {panel.feature_names[place]} of {_names(panel, odd.any(axis=1))} is "
               f"{'that of the next day' if later > SHIFTED_SHARE else 'not that of the prices'}, first on "
               f"{panel.days[int(odd.any(axis=0).argmax())]:%Y-%m-%d}")
    proof = prove_no_lookahead(prepared.prices, index=prepared.index).table
    if len(future := proof.loc[proof["differ"] > 0, "what"].unique()):
        yield f"What is known of a day changes with later prices: {name_a_few(future)}"
    if (prepared.folder / PROOF).exists() and not is_proven(prepared):
        yield f"The proof of no look-ahead in {prepared.folder / PROOF} failed"


def _wrong_labels(panel: Panel, true: Panel) -> Iterator[str]:
    """Where the opens and closes, which all labels are made of, are not those of the price table."""
    differ = panel.present[:, :, None] & ~np.isclose(panel.prices, true.prices, rtol=1e-4, equal_nan=True)
    for column, name in ((OPEN, "opens"), (CLOSE, "closes")):
        if (rows := differ[:, :, column].any(axis=1)).any():
            yield (f"The {name} of {_names(panel, rows)} are not those of the price table on "
                   f"{differ[rows, :, column].sum() / panel.present[rows].sum():.1%} of their days")


def _wrong_folds(session: Session, panel: Panel) -> Iterator[str]:
    """Why a label of a fold's training or validation days reaches into the days after them."""
    try:
        session_folds(session, panel)
    except SessionError as error:
        yield str(error).rstrip(".")


def _wrong_rows(session: Session, panel: Panel) -> Iterator[str]:
    """Test days of judged stocks that a family left out, and those that it forecast although the stock was absent."""
    if any(_wrong_folds(session, panel)):
        return  # said already, and their rows are of other days
    scores = fold_scores(session, panel)
    scores = scores[(scores["part"] == "test") & scores["family"].isin(session.config.families)]
    names = sorted(scores["symbol"].unique())
    tested = np.logical_or.reduce([fold.test.mask(panel.days) for fold in session_folds(session, panel)])
    there = panel.present[[panel.symbols.index(name) for name in names]] & tested
    for family, rows in scores.groupby("family", observed=True):
        symbol, forecast = pd.Index(names).get_indexer(rows["symbol"].astype(object)), np.zeros_like(there)
        forecast[symbol, panel.days.get_indexer(rows["date"])] = True
        for wrong, what in ((there & ~forecast, "not forecast"), (forecast & ~there, "forecast without a price")):
            if wrong.any():
                yield (f"{wrong.sum()} test days of {name_a_few(np.array(names)[wrong.any(axis=1)])} were {what} by "
                       f"{family}")


def _names(panel: Panel, rows: np.ndarray) -> str:
    return name_a_few(np.array(panel.symbols)[rows])
