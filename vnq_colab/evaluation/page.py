"""The parts of a page: its style, tables that can be taken along as CSV, pictures. All texts are escaped here.

A page needs no network and no other file: pictures and tables are in it as data.
"""

import base64
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5b6670; --line: #dfe3e7; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 20px 12px 48px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 1.08rem; margin: 0 0 8px; }
p { margin: 0 0 10px; max-width: 75ch; }
.soft, figcaption { color: var(--soft); font-size: .88rem; margin: 8px 0 0; }
.note { background: #fff4d6; border-left: 6px solid #e69f00; border-radius: 4px; padding: 10px 14px; margin: 14px 0;
  font-weight: 600; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 14px 12px; margin: 14px 0; }
.verdict { font-size: 1.12rem; margin: 0 0 12px; }
.counts { display: flex; flex-wrap: wrap; gap: 8px; }
.counts span { border-radius: 8px; padding: 4px 14px; }
.counts b { font-size: 1.3rem; margin-right: 6px; }
@media (min-width: 960px) {
  .columns { columns: 2; column-gap: 14px; } .columns .card { break-inside: avoid; margin: 0 0 14px; }
  .beside { columns: 2; column-gap: 24px; } .beside > * { break-inside: avoid; }
}
img { display: block; width: 100%; max-width: 470px; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .83rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 6px; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; }
th { color: var(--soft); font-weight: 600; line-height: 1.25; vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 600; }
td.words, th.words { text-align: left; white-space: normal; min-width: 11rem; }
td.long { white-space: normal; min-width: 7.5rem; }
.csv { text-align: right; font-size: .8rem; margin: 4px 0 0; max-width: none; } .csv a { color: #00507d; }
summary { cursor: pointer; } details p { margin: 6px 0; } .more { margin: 10px 0 0; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { width: 9rem; color: var(--soft); }
.tag { border-radius: 9px; padding: 1px 9px; font-weight: 600; }
.accept { background: #d6ecf9; color: #00507d; } .review { background: #fff0c2; color: #6b4a00; }
.reject { background: #f9ddd0; color: #8a3300; } .unjudged { background: #e8ebee; color: #444c54; }
ul { margin: 0; padding-left: 20px; } li { margin-bottom: 6px; max-width: 75ch; }
"""


@dataclass(frozen=True)
class Column:
    """One column of a table: its label with a unit, and its values; two of them in a row are the ends of an interval.

    `form` says how the page writes a number; the CSV has more digits. Texts have none.
    """

    label: str
    values: Any  # [rows] texts or numbers, or [rows, 2] numbers
    form: str = ""
    kind: str = ""  # "words": sentences, which may break; "long": the first column, when its texts may break
    html: list[str] | None = None  # what the page shows instead, HTML already

    def cells(self) -> list[str]:
        """`[rows]`: what the page shows, as HTML."""
        if self.html is not None:
            return self.html
        values = np.asarray(self.values, dtype=object)
        if values.ndim == 2:
            return [f"{number(low, self.form)} to {number(high, self.form)}" for low, high in values]
        return [number(value, self.form) if self.form else escape(str(value)) for value in values]

    def plain(self) -> dict[str, np.ndarray]:
        """What the CSV holds, by label."""
        values, label = np.asarray(self.values), self.label.replace("\u00ad", "")
        return {label: values} if values.ndim == 1 else {f"{label}, {end}": values[:, place]
                                                         for place, end in enumerate(("low", "high"))}


def number(value: Any, form: str) -> str:
    """A number as text; a dash for what is not known."""
    return "–" if value is None or pd.isna(value) or not np.isfinite(value) else format(value, form)


def table(name: str, *columns: Column, csv: bool = True) -> str:
    """An HTML table inside its own scroll container, and below it a link that saves it as `name`.csv."""
    marks = [f' class="{column.kind}"' if column.kind else "" for column in columns]
    top = "".join(f"<th{mark}>{escape(column.label)}</th>" for column, mark in zip(columns, marks, strict=True))
    rows = zip(*(column.cells() for column in columns), strict=True)
    body = "".join("<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>\n"
                   for row in rows)
    plain = {label: values for column in columns for label, values in column.plain().items()}
    return (f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'
            + (download(name, pd.DataFrame(plain)) if csv else ""))


def download(name: str, frame: pd.DataFrame) -> str:
    """A link that saves a table as `name`.csv, UTF-8; the table is in the link, so that it works without a network."""
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.10g", date_format="%Y-%m-%d")
    data = base64.b64encode(text.encode("utf-8")).decode("ascii")
    return (f'<p class="csv"><a download="{escape(name)}.csv" href="data:text/csv;charset=utf-8;base64,{data}">'
            f"{escape(name)}.csv</a></p>")


def card(title: str, *parts: str) -> str:
    """A section with a title; nothing without a part. `parts` are HTML."""
    inside = "".join(parts)
    return f'<section class="card"><h2>{escape(title)}</h2>{inside}</section>' if inside else ""


def more(label: str, *parts: str) -> str:
    """What opens when its label is touched. `parts` are HTML."""
    return f'<details class="more"><summary>{escape(label)}</summary>{"".join(parts)}</details>'


def soft(*sentences: str) -> str:
    """A small paragraph."""
    return f'<p class="soft">{escape(" ".join(filter(None, sentences)))}</p>'


def picture(title: str, image: bytes | str, caption: str, *parts: str) -> str:
    """A PNG as a card with its caption; where there is none, the sentence that says why."""
    if isinstance(image, str):
        return card(title, f"<p>{escape(image)}</p>")
    data = base64.b64encode(image).decode("ascii")
    return (f'<figure class="card"><h2>{escape(title)}</h2>'
            f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption>{''.join(parts)}</figure>")
