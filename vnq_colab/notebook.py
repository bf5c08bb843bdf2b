"""What a notebook shows of a result: its text as a small page, and tables that are sorted by a click and searched."""

import html
from typing import Any

from vnq_colab.errors import worded

LONG = 400  # characters of a line beyond which it is folded
LONG_CELL = "; white-space: normal; min-width: 14em"
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
    """A text as HTML that wraps between words: its first line a title, very long lines folded, SYNTHETIC marked."""
    parts = []
    for line in filter(None, worded(text).splitlines()):
        inner, indent = html.escape(line.strip()), (len(line) - len(line.lstrip())) / 2
        if inner.startswith("SYNTHETIC"):
            parts.append(NOTE.format(inner))
        elif len(inner) > LONG and indent:
            head, _, tail = inner.partition(": ")
            parts.append(f'<details style="padding-left: {indent}em"><summary>{head} ({tail.count(",") + 1})'
                         f"</summary>{tail}</details>")
        else:
            inner = inner if indent or parts else f"<b>{inner}</b>"
            parts.append(f'<div style="padding-left: {indent}em">{inner}</div>')
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
        columns = [_texts(list(self.frame.iloc[:, place])) for place in range(self.frame.shape[1])]
        sides = ["right" if kind.kind in "iuf" else "left" for kind in self.frame.dtypes]
        rows = ["".join(f'<td style="text-align: {side}{LONG_CELL * (len(cell) > 40)}">{html.escape(cell)}</td>'
                        for cell, side in zip(row, sides, strict=True)) for row in zip(*columns, strict=True)]
        heads = "".join(f'<th scope="col" style="text-align: {side}"><button title="sort" style="all: unset; cursor: '
                        f'pointer">{html.escape(str(name))}</button></th>'
                        for name, side in zip(self.frame, sides, strict=True))
        find = (f'<input type="search" placeholder="search" aria-label="search the table" oninput="{FIND}">'
                if len(rows) >= SEARCHED else "")
        body, height = "".join(f"<tr>{row}</tr>" for row in rows), "34em" if len(rows) > 4 * SEARCHED else "none"
        return (f'<div>{find}<div style="overflow: auto; max-height: {height}">'
                '<table style="margin: 4px 0; white-space: nowrap"><thead '
                f'onclick="{SORT}"><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></div>')


def _texts(values: list[Any]) -> list[str]:
    """The values of a column as people read them, numbers with the same decimals, a dash for what is not known."""
    floats = [value for value in values if isinstance(value, float) and value % 1 > 0]  # neither whole nor unknown
    most = max(map(abs, floats), default=1000.0)
    form = ",.0f" if most >= 1000 else ".2f" if most >= 10 else ".3f"
    return ["–" if value is None or value != value else f"{value:%Y-%m-%d}" if hasattr(value, "strftime") else
            ("no", "yes")[value] if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else
            f"{value:{form if value % 1 or abs(value) < 10 else ',.0f'}}" if isinstance(value, float) else str(value)
            for value in values]
