"""What a notebook shows of a result: its text as a small page, and tables that are sorted by a click and searched."""

import html
from numbers import Number
from typing import Any

from vnq_colab.errors import worded

WIDE = "; white-space: normal; min-width: 14em"
SEARCHED = 10  # rows from which on a table has a search field
# no colour but that of the text, so that it can be read in a light and in a dark notebook
PAGE = '<div style="max-width: 100ch; line-height: 1.5; overflow-wrap: anywhere">{}</div>'
NOTE = '<div style="border-left: 4px solid #E69F00; padding-left: 8px; margin: 4px 0"><b>{}</b></div>'
FIND = ("for (const row of this.parentNode.querySelectorAll('tbody tr')) "
        "row.hidden = !row.textContent.toLowerCase().includes(this.value.toLowerCase())")
SORT = ("const at = event.target.closest('th').cellIndex, body = this.parentNode.tBodies[0], of = row => { "
        "const text = row.cells[at].textContent, number = +text.replace(/[,%]/g, ''); return isNaN(number) ? text : "
        "number }, way = this.dataset.at == at ? -this.dataset.way : 1; this.dataset.at = at; this.dataset.way = way; "
        "body.append(...[...body.rows].sort((a, b) => way * (of(a) > of(b) ? 1 : of(a) < of(b) ? -1 : 0)))")


def page(text: str) -> str:
    """A text as HTML that wraps between words, its first line a title; SYNTHETIC is marked."""
    parts = []
    for line in filter(None, worded(text).splitlines()):
        inner, indent = html.escape(line.strip()), (len(line) - len(line.lstrip())) / 2
        inner = inner if indent or parts else f"<b>{inner}</b>"
        parts.append(NOTE.format(inner) if inner.startswith("SYNTHETIC") else
                     f'<div style="padding-left: {indent}em">{inner}</div>')
    return PAGE.format("".join(parts))


class Shown:
    """A result whose repr is worth reading; a notebook shows it as a page."""

    def _repr_html_(self) -> str:
        return page(repr(self))


class Table(Shown):
    """A DataFrame as a whole: nothing is left out, a click on a head sorts it, from ten rows on it can be searched."""

    def __init__(self, frame: Any):
        self.frame = frame

    def __repr__(self) -> str:
        return self.frame.to_string(index=False)

    def _repr_html_(self) -> str:
        sides = ["right" if kind.kind in "iuf" else "left" for kind in self.frame.dtypes]
        rows = ["".join(f'<td style="text-align: {side}{WIDE * (len(cell) > 40)}">{html.escape(cell)}</td>'
                        for cell, side in zip(map(_text, row), sides, strict=True))
                for row in self.frame.itertuples(index=False, name=None)]
        heads = "".join(f'<th scope="col" style="text-align: {side}"><button title="sort" style="all: unset; cursor: '
                        f'pointer">{html.escape(str(name))}</button></th>'
                        for name, side in zip(self.frame, sides, strict=True))
        find = (f'<input type="search" placeholder="search" aria-label="search the table" oninput="{FIND}">'
                if len(rows) >= SEARCHED else "")
        body = "".join(f"<tr>{row}</tr>" for row in rows)
        return (f'<div>{find}<div style="overflow: auto; max-height: 60em"><table style="white-space: nowrap"><thead '
                f'onclick="{SORT}"><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></div>')


def _text(value: Any) -> str:
    """A value as people read it; a dash for what is not known."""
    if str(value) in ("None", "nan", "NaT", "<NA>"):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Number):
        return f"{value:,.0f}" if value % 1 == 0 or abs(value) >= 1000 else f"{value:.3f}"
    return f"{value:%Y-%m-%d}" if hasattr(value, "strftime") else str(value)
