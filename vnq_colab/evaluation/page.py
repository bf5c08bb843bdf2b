"""Jinja templates of the report, and how they write numbers, tables and pictures; Jinja escapes every text.

A page needs no network and no other file: pictures and tables are in it as data.
"""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

DASH = "–"  # what is not known


def number(value: Any, form: str) -> str:
    """A number as text; a dash for what is not known; a text as it is."""
    if isinstance(value, str):
        return value
    return format(value, form) if value is not None and pd.notna(value) and np.isfinite(value) else DASH


def money(value: float) -> str:
    """An amount [VND] in a few signs: 1.00 bn, 1.6 m, 940,000."""
    for unit, size, form in (("bn", 1e9, ".2f"), ("m", 1e6, ".1f")):
        if abs(value) >= size:
            return f"{value / size:{form}} {unit}"
    return f"{value:,.0f}"


def board(price: float) -> str:
    """A price [VND] as the exchange's board shows it, in thousands."""
    return number(price / 1000, ".2f").rstrip("0").rstrip(".")


# A column of a table: its label, its values, and how the page writes them: a number's format (the CSV has more digits),
# or a style; without either they are texts. Values of two columns are the ends of an interval.
Column = Sequence[Any]
STYLES = ("words", "long", "tag", "folded")  # sentences, which may break; long names; decisions; behind a click


def style_of(column: Column) -> str:
    """The style of a column, "" for numbers and texts."""
    return column[2] if len(column) > 2 and column[2] in STYLES else ""


def cells(columns: Iterable[Column]) -> list[tuple[Any, ...]]:
    """`[rows][columns]`: what a table shows."""
    return list(zip(*map(_cells, columns), strict=True))


def _cells(column: Column) -> list[Any]:
    _, values, form = (*column, "")[:3]
    if np.ndim(values) == 2:
        ends = [[number(end, form) for end in row] for row in np.asarray(values, dtype=object)]
        return [DASH if row == [DASH, DASH] else " to ".join(row) for row in ends]
    return list(values) if form in ("", *STYLES) else [number(value, form) for value in values]


def frame_of(columns: Iterable[Column]) -> pd.DataFrame:
    """The columns of a table as a frame: labels without soft hyphens, an interval as two columns."""
    frame = {}
    for label, values, *_ in columns:
        values, label = np.asarray(values), label.replace("\u00ad", "")
        if values.ndim == 2:
            frame |= {f"{label}, low": values[:, 0], f"{label}, high": values[:, 1]}
        else:
            frame[label] = values
    return pd.DataFrame(frame)


def csv(frame: pd.DataFrame) -> str:
    """A table as CSV in UTF-8, in Base64."""
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.10g", date_format="%Y-%m-%d")
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def render(template: str, **values: Any) -> str:
    """A template with these values, as HTML. Raises jinja2.UndefinedError for a name that is not there."""
    return ENVIRONMENT.get_template(template).render(**values)


ENVIRONMENT = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                          undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters |= {"number": number, "money": money, "board": board, "style": style_of,
                        "cells": cells, "frame": frame_of, "csv": csv, "date": format,
                        "base64": lambda data: base64.b64encode(data).decode("ascii")}
ENVIRONMENT.globals["zip"] = zip
