"""The review of a prepared set: four pictures, and the proof that nothing in it knows the future."""

import html
from dataclasses import dataclass
from pathlib import Path

from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.data.lookahead import LookaheadProof, prove_no_lookahead
from vnq_colab.data.prepared import PROOF, Prepared
from vnq_colab.evaluation import plots
from vnq_colab.files import read_json, write_atomic, write_json

PICTURES = ("coverage.png", "cleaning.png", "features.png", "correlations.png")


@dataclass(frozen=True, repr=False)
class Review:
    """What a person should look at before training."""

    proof: LookaheadProof
    pictures: tuple[Path, ...]

    def __repr__(self) -> str:
        names = ", ".join(path.name for path in self.pictures)
        return f"{self.proof!r}\nPictures in {self.pictures[0].parent}: {names}"

    def _repr_html_(self) -> str:
        return f"{self.proof._repr_html_()}<p>{html.escape(repr(self).splitlines()[-1])}</p>"


def is_proven(prepared: Prepared) -> bool:
    """Whether a review of this set has proven that nothing in it looks ahead."""
    path = prepared.folder / PROOF
    return path.exists() and bool(read_json(path)["passed"])


def review(prepared: Prepared) -> Review:
    """Draws coverage, cleaning, features and correlations into the set's folder, and proves that nothing looks ahead.

    The proof stands on the last training day and cleans what `prepare` read in the way that it did; in a set that was
    loaded it begins from the clean prices. It runs cleaning and features four times.
    """
    note = SYNTHETIC_NOTE if prepared.synthetic else ""
    figures = (plots.coverage(prepared.panel, prepared.folds, note=note), plots.cleaning(prepared.cleaning, note=note),
               plots.feature_distributions(prepared.panel, note=note),
               plots.feature_correlations(prepared.panel, note=note))
    pictures = tuple(prepared.folder / name for name in PICTURES)
    for path, figure in zip(pictures, figures, strict=True):
        image = plots.png(figure)
        write_atomic(path, lambda file, image=image: file.write(image))
    day = prepared.folds[-1].train.last if prepared.folds else None
    rows = prepared.prices if prepared.rows is None else prepared.rows
    proof = prove_no_lookahead(rows, day, index=prepared.index, **prepared.cleaning_options)
    write_json(prepared.folder / PROOF, proof.to_dict())
    return Review(proof, pictures)
