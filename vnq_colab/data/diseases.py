"""Every disease of a price table by name, and what is done about it: one table, and the choices a person may make."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from vnq_colab.errors import ConfigError

ON_BAD_ROWS = ("raise", "drop", "treat")
ROW = ("repair", "drop row", "drop symbol", "raise")  # what can be done about a row that cannot stay as it is
SERIES = ("keep", "drop row", "drop symbol", "raise")  # about a row that is sound in itself


@dataclass(frozen=True)
class Disease:
    """One disease: what it is, what is done by default, and what else may be asked for."""

    name: str
    meaning: str
    treatment: str
    allowed: tuple[str, ...]
    of_a_row: bool = False  # seen in the row alone: `on_bad_rows` decides on it


# "drop symbol" leaves a symbol out from its first such day on: leaving out its past as well would look ahead.
DISEASES = {
    "missing_price": Disease(
        "price missing", "Open, high or low are taken from a sound close; without one the row is dropped.",
        "repair", ROW, True),
    "zero_price": Disease(
        "price zero or negative", "Also below 0.001 VND. Open, high or low are taken from a sound close; without one "
        "the row is dropped.", "repair", ROW, True),
    "huge_price": Disease("price beyond 1e9", "No share costs that much [VND].", "drop row", ROW, True),
    "missing_volume": Disease(
        "volume missing or negative", "Another file's volume is taken, else 0: the price is worth keeping.",
        "repair", ROW, True),
    "huge_volume": Disease("volume beyond 1e15", "More than there are shares; as if missing.", "repair", ROW, True),
    "fractional_volume": Disease("volume not whole", "Rounded to whole shares.", "repair", ("repair", "raise")),
    "zero_raw_close": Disease(
        "raw close zero, negative or beyond 1e9", "Taken as unknown: only the explanation of jumps needs it.",
        "repair", ROW),
    "high_below_low": Disease(
        "high < low", "All prices are the close where nothing was traded; else the two are swapped where open and "
        "close then lie between them, or the row is dropped.",
        "repair", ROW, True),
    "close_outside": Disease(
        "close outside [low, high]", "The range is widened to the close, or is the close where nothing was traded; "
        "further out than half its price the row is dropped.", "repair", ROW, True),
    "open_outside": Disease(
        "open outside [low, high]", "The open is moved to the nearer end of the range, or is the close where nothing "
        "was traded.", "repair", ROW, True),
    "identical_duplicate": Disease(
        "duplicate row for a day, identical", "One of them stays.", "drop row", ROW[1:], True),
    "conflicting_duplicate": Disease(
        "duplicate row for a day, conflicting", "The last that needed no repair stays.", "drop row", ROW[1:], True),
    "several_files": Disease(
        "day in several files", "The row of the later file stays.", "drop row", ("drop row", "raise")),
    "unadjusted_apart": Disease(
        "unadjusted row set apart", "Beside an adjusted row it gives the raw close; before the last adjusted day it "
        "has no place of its own.", "drop row", ("drop row", "raise")),
    "sources_disagree": Disease(
        "two sources disagree", "Their closes of one day differ by more than rounding; the later file's stays.",
        "keep", ("keep", "raise")),
    "basis_changed": Disease(
        "adjusted basis changed", "A later file holds its history on another basis, as after a dividend or a split. "
        "Its rows are rescaled to the basis of the earlier ones, so that the past keeps its bits.",
        "repair", ("repair", "raise")),
    "no_common_day": Disease(
        "joined without a common day", "Two files of one symbol share no day: whether they are on one basis is not "
        "known.", "keep", ("keep", "raise")),
    "weekend": Disease("weekend day", "There is no trading on Saturdays and Sundays.", "drop row", SERIES),
    "closed_day": Disease(
        "day without a market", "Of the symbols that traded in the month before, 5 or more, (almost) none did, and "
        "most closes are those of the day before.",
        "drop row", ("keep", "drop row", "raise")),
    "lonely_day": Disease(
        "day of a few symbols", "Fewer than 1 in 20 of the symbols that traded in the month before did: a holiday "
        "with stray rows, or an update of a few symbols.", "keep", ("keep", "drop row", "raise")),
    "unknown_exchange": Disease(
        "unknown exchange", "Taken as the symbol's exchange of the day before, else as HOSE.",
        "repair", ("repair", "raise")),
    "unit_jump": Disease(
        "unit jump", "The close jumps about 1,000 times up or down, 300 to 3,300: exactly 1,000. That row and the "
        "later ones are brought back to the unit of the earlier ones.", "repair", ("repair", *SERIES)),
    "unadjusted_action": Disease(
        "unadjusted corporate action", "The whole day lies below the band, as after a split, a bonus issue or a "
        "dividend; or the adjusted close jumps while the raw one does not. That row and the later ones are rescaled, "
        "the volume of a split inversely.", "repair", ("repair", "keep", "drop symbol", "raise")),
    "out_of_scale": Disease(
        "price out of scale", "Undoing the jumps before it leads below 0.001 or beyond 1e9 VND.",
        "drop row", ROW[1:]),
    "beyond_band": Disease(
        "move beyond any band", "The close, or the range of the day, lies outside every exchange's band, and nothing "
        "explains it.", "keep", SERIES),
    "gap": Disease(
        "gap over 5 trading days", "More than 5 days of the market's calendar have no row of the symbol; counted is "
        "the row after them.", "keep", ("keep", "drop symbol", "raise")),
    "stale_tail": Disease(
        "stale tail", "The symbol's last trade is more than 5 trading days older than the data; counted is its last "
        "row. Leaving it out would look ahead.", "keep", ("keep", "raise")),
    "no_trades": Disease("day without trades", "A row of volume 0, as vendors fill in.", "keep", SERIES),
}


def plan_treatments(on_bad_rows: str, treatments: Mapping[str, str] | None = None) -> dict[str, str]:
    """The treatment of every disease: a preset for diseases of single rows, the defaults, and a person's own choices.

    Raises ConfigError on names that are not known and on treatments that a disease does not allow.
    """
    if on_bad_rows not in ON_BAD_ROWS:
        raise ConfigError(f"on_bad_rows = {on_bad_rows!r}: must be 'raise' or 'drop' or 'treat'.")
    preset = {"raise": "raise", "drop": "drop row"}.get(on_bad_rows)
    plan = {slug: preset if preset and disease.of_a_row else disease.treatment for slug, disease in DISEASES.items()}
    for slug, treatment in (treatments or {}).items():
        if slug not in DISEASES:
            raise ConfigError(f"treatments: there is no disease {slug!r}. Choose one of {', '.join(DISEASES)}.")
        if treatment not in DISEASES[slug].allowed:
            raise ConfigError(f"treatments: {slug} cannot be treated with {treatment!r}. "
                              f"Choose one of {', '.join(map(repr, DISEASES[slug].allowed))}.")
        plan[slug] = treatment
    return plan


def diseases_table() -> pd.DataFrame:
    """One row per disease: the name for `treatments=`, what it is, the default treatment, all that are allowed."""
    return pd.DataFrame([{"name": slug, "disease": disease.name, "meaning": disease.meaning,
                          "treatment": disease.treatment, "allowed": ", ".join(disease.allowed)}
                         for slug, disease in DISEASES.items()])
