"""The parts of a page: its style, tables that can be taken along as CSV, pictures. All texts are escaped here.

A page needs no network and no other file: pictures and tables are in it as data.
"""

import base64
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

# Source: Okabe & Ito 2008, colours that colour-blind readers can tell apart.
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"
STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5b6670; --line: #dfe3e7; --blue: #00507d; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink);
  font: 16px/1.42 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 8px 8px 40px; }
h1 { font-size: 1rem; margin: 14px 4px 0; overflow-wrap: anywhere; color: var(--soft); font-weight: 600; }
h2 { font-size: 1.08rem; margin: 0 0 6px; } h3 { font-size: .92rem; margin: 14px 0 4px; }
p { margin: 0 0 8px; max-width: 75ch; } a { color: var(--blue); }
.soft, figcaption { color: var(--soft); font-size: .85rem; margin: 6px 0 0; }
.note, .stale { border-left: 6px solid #e69f00; background: #fff4d6; border-radius: 4px; padding: 6px 10px;
  margin: 0 0 8px; font-weight: 600; font-size: .9rem; max-width: none; }
.stale { background: #8a1c00; border-color: #3d0c00; color: #fff; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 12px; margin: 10px 0; }
figure { margin: 0 0 8px; }
@media (min-width: 960px) {
  main { padding: 16px 12px 48px; } .columns { columns: 2; column-gap: 14px; }
  .columns .card { break-inside: avoid; margin: 0 0 14px; }
  .first .sides { display: grid; grid-template-columns: 1fr 1fr; gap: 0 32px; }
}
img { display: block; width: 100%; max-width: 500px; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; } .tall { max-height: 25rem; overflow: auto; }
.tall th { position: sticky; top: 0; background: #fff; z-index: 1; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .83rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 5px; border-bottom: 1px solid var(--line); vertical-align: baseline; }
td { white-space: nowrap; }
th { color: var(--soft); font-weight: 600; line-height: 1.25; vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 600; }
th:first-child { z-index: 2; }
td.words, th.words { text-align: left; white-space: normal; min-width: 9.5rem; }
td.words:first-child { font-weight: 400; } td.long { white-space: normal; min-width: 7.5rem; }
.csv { text-align: right; font-size: .78rem; margin: 2px 0 0; max-width: none; }
summary { cursor: pointer; color: var(--blue); padding: 3px 0; } td summary { padding: 0; } details p { margin: 6px 0; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; font-weight: 400; }
.facts td:first-child { width: 7rem; color: var(--soft); }
.tag { border-radius: 9px; padding: 1px 9px; font-weight: 600; }
.accept { background: #d6ecf9; color: #00507d; } .review { background: #fff0c2; color: #6b4a00; }
.reject { background: #f9ddd0; color: #8a3300; } .unjudged { background: #e8ebee; color: #444c54; }
.first { padding: 9px 10px; margin-top: 0; } .first h2 { font-size: .8rem; margin: 8px 0 1px; }
.first .line, .first h2.line { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 12px;
  margin: 0 0 6px; max-width: none; }
.first p.line { font-size: .92rem; } .first h2.line { margin: 9px 0 2px; }
.first .decision { border-radius: 6px; padding: 5px 9px; margin: 0; font-size: 1.06rem; font-weight: 700;
  line-height: 1.3; max-width: none; }
.first table { font-size: .82rem; } .first td, .first th { padding: 2px 3px; } .first .soft { margin: 3px 0 0; }
.first .tag { padding: 0 6px; font-size: .76rem; } .first td:first-child { font-weight: 400; }
.first .orders { font-size: .75rem; } .first .orders td { text-align: left; border: 0; padding: 2px 1px; }
.first .orders td.n { text-align: right; }
.orders .words span { white-space: nowrap; margin-right: 9px; }
.links { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0 0; max-width: none; }
svg { display: block; width: 100%; max-width: 520px; height: auto; }
svg text { font: 9px system-ui, sans-serif; fill: #444c54; }
.heat td, .heat th { padding: 2px 1px; text-align: center; font-size: .68rem; }
select, input { font: inherit; padding: 3px 8px; border: 1px solid #9aa5af; border-radius: 6px; max-width: 100%; }
input { width: 20rem; }
ul { margin: 0; padding-left: 20px; } li { margin-bottom: 5px; max-width: 75ch; }
"""

# What is typed into the box above a table hides the rows without it; a chosen stock is drawn.
SCRIPT = """
for (const box of document.querySelectorAll("input[data-table]")) box.addEventListener("input", () => {
  for (const row of document.querySelectorAll("#" + box.dataset.table + " tbody tr"))
    row.hidden = !row.textContent.toUpperCase().includes(box.value.toUpperCase());
});
const chooser = document.getElementById("chooser");
if (chooser) {
  const all = JSON.parse(document.getElementById("recent").textContent);
  const draw = () => {
    const one = all[chooser.value], n = one.expected.length, known = one.actual.filter(v => v !== null);
    const most = Math.max(2, ...one.high, ...known), least = Math.min(-2, ...one.low, ...known);
    const x = i => 34 + 320 * i / Math.max(n - 1, 1), y = v => 8 + 150 * (most - v) / (most - least);
    const path = list => list.map((v, i) => v === null ? "" : (i && list[i - 1] !== null ? "L" : "M") +
      x(i).toFixed(1) + " " + y(v).toFixed(1)).join("");
    const back = [...one.low].reverse().map((v, i) => "L" + x(n - 1 - i).toFixed(1) + " " + y(v).toFixed(1)).join("");
    const rule = v => `<path d="M34 ${y(v)}H354" stroke="${v ? "#dfe3e7" : "#222"}"/><text x="30" y="${y(v) + 3}"
      text-anchor="end">${v > 0 ? "+" : ""}${v}</text>`;
    const step = most - least > 40 ? 20 : most - least > 16 ? 10 : 5, rules = [];
    for (let v = step * Math.ceil(least / step); v <= most; v += step) rules.push(rule(v));
    document.getElementById("drawing").innerHTML = `<path d="${path(one.high)}${back}Z" fill="#0072B2" opacity=".16"/>
      ${rules.join("")}<path d="${path(one.actual)}" fill="none" stroke="#D55E00" stroke-width="1.6"/>
      <path d="${path(one.expected)}" fill="none" stroke="#0072B2" stroke-width="1.8"/>
      <text x="34" y="172">${one.first}</text><text x="354" y="172" text-anchor="end">${one.last}</text>`;
    document.getElementById("about").textContent = one.about;
  };
  chooser.addEventListener("change", draw);
  draw();
}
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
            return ["–" if pd.isna(low) and pd.isna(high) else f"{number(low, self.form)} to {number(high, self.form)}"
                    for low, high in values]
        return [number(value, self.form) if self.form else escape(str(value)) for value in values]

    def plain(self) -> dict[str, np.ndarray]:
        """What the CSV holds, by label."""
        values, label = np.asarray(self.values), self.label.replace("\u00ad", "")
        return {label: values} if values.ndim == 1 else {f"{label}, {end}": values[:, place]
                                                         for place, end in enumerate(("low", "high"))}


def number(value: Any, form: str) -> str:
    """A number as text; a dash for what is not known."""
    return "–" if value is None or pd.isna(value) or not np.isfinite(value) else format(value, form)


def table(name: str, *columns: Column, csv: bool = True, search: str = "") -> str:
    """An HTML table inside its own scroll container, and below it a link that saves it as `name`.csv.

    With `search`, what the box above it asks for, it is as high as half a phone, and what is typed hides other rows.
    """
    marks = [f' class="{column.kind}"' if column.kind else "" for column in columns]
    top = "".join(f"<th{mark}>{escape(column.label)}</th>" for column, mark in zip(columns, marks, strict=True))
    rows = zip(*(column.cells() for column in columns), strict=True)
    body = "".join("<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>\n"
                   for row in rows)
    plain = {label: values for column in columns for label, values in column.plain().items()}
    box = (f'<p><input type="search" data-table="{escape(name)}" placeholder="{escape(search)}" '
           f'aria-label="{escape(search)}"></p>' if search else "")
    style = "scroll tall" if search else "scroll"
    return (f'{box}<div class="{style}"><table id="{escape(name)}"><thead><tr>{top}</tr></thead><tbody>\n{body}'
            "</tbody></table></div>" + (download(name, pd.DataFrame(plain)) if csv else ""))


def download(name: str, frame: pd.DataFrame) -> str:
    """A link that saves a table as `name`.csv, UTF-8; the table is in the link, so that it works without a network."""
    text = frame.to_csv(index=False, lineterminator="\n", float_format="%.10g", date_format="%Y-%m-%d")
    data = base64.b64encode(text.encode("utf-8")).decode("ascii")
    return (f'<p class="csv"><a download="{escape(name)}.csv" href="data:text/csv;charset=utf-8;base64,{data}">'
            f"{escape(name)}.csv</a></p>")


def card(title: str, *parts: str, anchor: str = "") -> str:
    """A section with a title, which a link to `#anchor` finds; nothing without a part. `parts` are HTML."""
    inside, mark = "".join(parts), f' id="{escape(anchor)}"' if anchor else ""
    return f'<section class="card"{mark}><h2>{escape(title)}</h2>{inside}</section>' if inside else ""


def more(label: str, *parts: str) -> str:
    """What opens when its label is touched; nothing without a part. `parts` are HTML."""
    inside = "".join(parts)
    return f"<details><summary>{escape(label)}</summary>{inside}</details>" if inside else ""


def soft(*sentences: str) -> str:
    """A small paragraph; nothing without a sentence."""
    text = " ".join(filter(None, sentences))
    return f'<p class="soft">{escape(text)}</p>' if text else ""


def picture(title: str, image: bytes | str, caption: str = "") -> str:
    """A PNG with its caption; where there is none, the sentence that says why."""
    if isinstance(image, str):
        return f"<p>{escape(image)}</p>"
    data = base64.b64encode(image).decode("ascii")
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">{below}</figure>'
