"""The chart of one cleaning: which disease is treated how, what was found, and rows described in words."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from vnq_colab.data.columns import PRICES
from vnq_colab.data.diseases import DISEASES
from vnq_colab.data.findings import Finding
from vnq_colab.data.jumps import starts
from vnq_colab.errors import DataError

SHOWN = 50  # rows of a disease that the report describes


class Chart:
    """The treatment of each disease, and what was found so far."""

    def __init__(self, plan: dict[str, str], source: str, n_read: int) -> None:
        self.plan, self.source, self.n_read = plan, source, n_read
        self.findings: list[Finding] = []

    def treat(self, slug: str, rows: pd.DataFrame, sick: np.ndarray, gone: np.ndarray,
              repair: Callable[[np.ndarray], np.ndarray] | None = None,
              words: Callable[[int], str] | None = None) -> None:
        """Treats the sick rows that are not gone yet, and marks in `gone` those that are to go.

        `repair` heals in place what it can of the rows it is given, and says which; `words` describes a row.
        """
        sick = sick & ~gone
        if not sick.any():
            return
        treatment, words = self.plan[slug], words or (lambda row: in_words(rows.iloc[row], slug))
        if treatment == "raise":
            raise DataError(self._refusal(slug, words(int(sick.argmax())), int(sick.sum())))
        healed = repair(sick) if treatment == "repair" else sick if treatment == "keep" else np.zeros_like(sick)
        lost = sick & ~healed
        if treatment == "drop symbol":
            start = starts(rows["symbol"].cat.codes.to_numpy())
            total = np.cumsum(sick)
            lost = (total > total[start] - sick[start]) & ~gone
        for found, done in ((healed, "kept" if treatment == "keep" else "repaired"), (lost, "dropped")):
            if found.any():
                first, *more = map(words, np.flatnonzero(found & sick)[:SHOWN].tolist())
                self.findings.append(Finding(DISEASES[slug].name, done, int(found.sum()), first, more))
        gone |= lost

    def add(self, findings: list[Finding]) -> None:
        """Findings of the merging of files; raises where one of them is not to be accepted."""
        slugs = {disease.name: slug for slug, disease in DISEASES.items()}
        for finding in findings:
            if self.plan[slugs[finding.disease]] == "raise":
                raise DataError(self._refusal(slugs[finding.disease], finding.example, finding.rows))
        self.findings += findings

    def keep(self, rows: pd.DataFrame, gone: np.ndarray) -> pd.DataFrame:
        """The rows that stay. Raises DataError when there are none."""
        if gone.all():
            raise DataError(f"{self.source}: no usable row is left of {self.n_read:,}. Look at the file: is it a price "
                            "table?")
        return rows[~gone].reset_index(drop=True) if gone.any() else rows

    def _refusal(self, slug: str, example: str, n_rows: int) -> str:
        more = f" (and {n_rows - 1} more rows)" if n_rows > 1 else ""
        if DISEASES[slug].of_a_row:
            return (f"{example}{more}. Repair {self.source}, or leave such rows out with --on-bad-rows drop, or have "
                    f"them treated with --on-bad-rows treat (in Python: on_bad_rows=\"drop\" or \"treat\"). Treated "
                    f"means: {DISEASES[slug].meaning[0].lower()}{DISEASES[slug].meaning[1:]}")
        choices = " or ".join(repr(choice) for choice in DISEASES[slug].allowed if choice != "raise")
        return (f"{example}: {DISEASES[slug].name}{more}. Repair {self.source}, or choose {choices} for {slug!r} in "
                "treatments=.")


def where(row: pd.Series) -> str:
    """ "HPG 2021-03-15"."""
    return f"{row['symbol']} {row['date']:%Y-%m-%d}"


def in_words(row: pd.Series, slug: str) -> str:
    """ "HPG 2021-03-15: high 41,200 < low 41,900 [VND]"."""
    if slug == "high_below_low":
        return f"{where(row)}: high {row['high']:,.0f} < low {row['low']:,.0f} [VND]"
    if slug.endswith("price") or slug.endswith("outside") or slug == "beyond_band":
        name = "open or close outside [low, high]" if slug.endswith("outside") else DISEASES[slug].name
        found = ", ".join(f"{price} {row[price]:,.0f}" for price in PRICES)
        return f"{where(row)}: {name} ({found} [VND])"
    if "volume" in slug:
        return f"{where(row)}: {DISEASES[slug].name} ({row['volume']:,.10g})"
    return f"{where(row)}: {DISEASES[slug].name}"
