"""What every figure shares, and figures of the data: who is there when, what was cleaned, what the features hold.

Figures are narrow, so that their text has 14 pixels on a phone that is 390 wide.
"""

import io
import textwrap
from typing import Any

import matplotlib.dates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from vnq_colab.data.features import FEATURES
from vnq_colab.data.findings import CleaningReport
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits

# Source: Okabe & Ito 2008, colours that colour-blind readers can tell apart.
BLUE, ORANGE, GREY, INK, PALE = "#0072B2", "#D55E00", "#8A8A8A", "#222222", "#E3E3E3"
WIDTH, DPI, SIZE, SMALL = 3.4, 220, 10, 8.5  # [inches], [dots per inch], of texts and of long lists [points]
SHOWN = 420  # [pixels] wide in a notebook and on a page
LEGEND = {"loc": "outside lower center", "ncols": 2, "handlelength": 1.6, "columnspacing": 1.2, "frameon": False,
          "fontsize": SIZE}
PRESENCE = LinearSegmentedColormap.from_list("presence", ["#FFFFFF", BLUE])
SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "#FFFFFF", BLUE]).with_extremes(bad=GREY)
TREATMENTS = {"repaired": BLUE, "dropped": ORANGE, "kept": GREY}
MOST_ROWS = 200_000  # of a sample of the panel


class NotebookFigure(Figure):
    """A Figure that a notebook shows as the last line of a cell, without pyplot and its global state."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return png(self), {"width": SHOWN}


def png(figure: Figure) -> bytes:
    """The figure as a PNG file without a time or a version in it: drawn again, it is the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def figure_of(height: float, title: str, note: str, *, parts: tuple[float, ...] = (1,),
              share_x: bool = True) -> tuple[Any, ...]:
    """The figure and its axes; `parts` are the heights of those that stand below each other."""
    figure = NotebookFigure(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    found = figure.subplots(len(parts), sharex=share_x, squeeze=False, height_ratios=parts)[:, 0]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=SIZE)
        axes.xaxis.label.set_size(SIZE)
        axes.yaxis.label.set_size(SIZE)
        axes.set_axisbelow(True)
    lines = [line for text in f"{title}\n{note}".splitlines() for line in textwrap.wrap(text, 40)]
    figure.suptitle("\n".join(lines), fontsize=SIZE + 0.5, x=0.01, ha="left", color=INK)
    return figure, *found


def over_time(axes: Axes, label: str) -> None:
    """Dates on the x axis of a figure."""
    axes.set(ylabel=label)
    axes.grid(color=PALE, linewidth=0.7)
    axes.xaxis.set_major_locator(matplotlib.dates.AutoDateLocator(minticks=3, maxticks=6))
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.xaxis.get_offset_text().set_size(SIZE)


def coverage(panel: Panel, folds: "list[Splits] | None" = None, *, note: str = "") -> Figure:
    """Which symbols are present on which days, the first listed on top, with the first test day of each fold."""
    n_symbols, n_days = panel.present.shape
    height = min(0.165 * n_symbols, 6.0)  # [inches]
    figure, axes = figure_of(
        2.0 + height, f"Coverage: {panel.present.mean():.0%} of {n_symbols} symbols × {n_days:,} days", note)
    order = np.argsort(np.where(panel.present.any(axis=1), panel.present.argmax(axis=1), n_days), kind="stable")
    axes.imshow(panel.present[order], cmap=PRESENCE, vmin=0, vmax=1, aspect="auto",
                extent=(0, n_days, n_symbols - 0.5, -0.5))
    named = np.arange(0, n_symbols, int(np.ceil(0.15 * n_symbols / height)))
    years = pd.Series(panel.days.year).drop_duplicates()  # of each its first day
    years = years[np.diff(years.index, append=len(panel.days)) > len(panel.days) / 20]  # a stub has no room for a name
    years = years[:: -(-len(years) // 5)]
    axes.set(yticks=named, yticklabels=[panel.symbols[row] for row in order[named]], xticks=years.index,
             xticklabels=years, xlabel="Trading days [year]",
             ylabel="Symbols by their first day" + (f", one in {named[1]} named" if len(named) < n_symbols else ""))
    axes.tick_params(axis="y", labelsize=SMALL, length=2)
    for number, splits in enumerate(folds or (), 1):
        border = panel.days.searchsorted(pd.Timestamp(splits.test.first))
        axes.axvline(border, color=ORANGE, linewidth=1.3)
        axes.annotate(str(number), (border, 1), (0, 2), xycoords=("data", "axes fraction"), ha="center",
                      textcoords="offset points", fontsize=SMALL, color=ORANGE)
    handles = [Patch(color=BLUE, label="present"), Patch(facecolor="white", edgecolor=GREY, label="absent"),
               Line2D([], [], color=ORANGE, label="a fold's first test day")]
    figure.legend(handles=handles[: 3 if folds else 2], **LEGEND)
    return figure


def cleaning(report: CleaningReport, *, note: str = "") -> Figure:
    """Rows of each data-quality issue that cleaning found, the most frequent on top, coloured by what was done."""
    rows = report.to_frame().sort_values("rows", kind="stable")
    title = f"Cleaning: {report.rows_kept:,} of {report.rows_read:,} rows kept"
    figure, axes = figure_of(1.8 + 0.45 * max(len(rows), 2), title, note)
    if rows.empty:
        axes.set(xticks=[], yticks=[], xlabel="Rows [none]")
        axes.text(0.5, 0.5, "no data-quality issue found", transform=axes.transAxes, ha="center", fontsize=SIZE)
        return figure
    counts, says = rows["rows"].to_numpy(), rows["treatment"].str.contains
    done = np.select([says("drop"), says("repair|rescale|replace")], ["dropped", "repaired"], "kept")
    place, colours = np.arange(len(rows)), [TREATMENTS[name] for name in done]
    bars = axes.barh(place, np.maximum(counts, 0.5), height=0.62, color=colours)
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=SMALL)
    axes.set(yticks=place, yticklabels=[textwrap.fill(name, 20) for name in rows["issue"]],
             ylim=(-0.6, len(rows) - 0.4), xscale="log", xlim=(0.5, max(counts.max(), 8) ** 1.35),
             xlabel="Rows [count, logarithmic]")
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    used = [name for name in TREATMENTS if name in done]
    figure.legend([Patch(color=TREATMENTS[name]) for name in used], used, **LEGEND | {"ncols": 3, "columnspacing": 0.8})
    return figure


def feature_distributions(panel: Panel, *, note: str = "") -> Figure:
    """Percentiles of every feature over the present days, in parts of its bounds; right, the share of days at one."""
    figure, axes = figure_of(1.9 + 0.16 * len(panel.feature_names), "Features, in parts of their bounds", note)
    low, high = (np.array([getattr(FEATURES[name], side) for name in panel.feature_names]) for side in ("low", "high"))
    reach, values = np.maximum(-low, high), _sample(panel)
    is_at_bound = (values <= low.astype("float32")) | (values >= high.astype("float32"))
    at_bound = (is_at_bound & (values != 0)).mean(axis=0)
    lowest, lower, middle, upper, highest = np.percentile(values, (1, 25, 50, 75, 99), axis=0) / reach
    place = np.arange(len(reach))
    axes.hlines(place, low / reach, high / reach, color=PALE, linewidth=5.5, zorder=1)
    axes.hlines(place, lowest, highest, color=BLUE, linewidth=1.1, zorder=2)
    axes.hlines(place, lower, upper, color=BLUE, linewidth=4.5, zorder=3)
    axes.plot(middle, place, "|", color=ORANGE, markersize=6, markeredgewidth=1.6, zorder=4)
    for row in np.flatnonzero(at_bound >= 0.001):
        axes.annotate(f"{at_bound[row]:.1%}", (1, row), (4, 0), textcoords="offset points", va="center", fontsize=SMALL)
    axes.set(yticks=place, yticklabels=panel.feature_names, ylim=(len(reach) - 0.4, -0.6), xlim=(-1.02, 1.02),
             xlabel="Value / bound [ratio];\nright: days at a bound [%]")
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    handles = [Line2D([], [], color=BLUE, linewidth=1.1), Line2D([], [], color=BLUE, linewidth=4.5),
               Line2D([], [], color=ORANGE, marker="|", linestyle="", markersize=7), Patch(color=PALE)]
    figure.legend(handles, ["1st to 99th percentile", "middle half", "median", "bounds"], **LEGEND)
    return figure


def feature_correlations(panel: Panel, *, note: str = "") -> Figure:
    """Correlation of every two features over the present days; the strongest pair is framed, and named in the title."""
    names, values = panel.feature_names, _sample(panel)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant feature has no correlation: grey
        found = np.corrcoef(values, rowvar=False, dtype="float64")
    rest = np.tril(np.nan_to_num(found), -1)
    row, column = np.unravel_index(np.abs(rest).argmax(), rest.shape)
    title = f"Strongest correlation: {rest[row, column]:.2f}\n{names[column]} and {names[row]}"
    figure, axes = figure_of(2.1 + 0.16 * len(names), title, note)
    image = axes.imshow(found, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.5))
    axes.set(yticks=range(len(names)), yticklabels=names, xticks=[], xlabel="The same features,\nin the same order")
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, pad=0.01, label="Correlation [-1 to 1]")
    bar.ax.tick_params(labelsize=SIZE)
    return figure


def _sample(panel: Panel) -> np.ndarray:
    """`[rows, features]`: the features of present days, the same at most 200,000 of them at each call."""
    rows = np.flatnonzero(panel.present)
    if len(rows) > MOST_ROWS:  # at random: every fifth row would always be the same day of the week
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False))
    return panel.values.reshape(-1, panel.values.shape[2])[rows]
