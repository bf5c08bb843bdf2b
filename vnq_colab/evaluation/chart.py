"""What every picture shares: colours, sizes, and the figure itself.

Figures are narrow (4.2 inches), so that their text can still be read on a phone.
"""

import io
from typing import Any

import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vnq_colab.evaluation.page import INK

WIDTH, DPI = 4.2, 180  # [inches], [dots per inch]
LEGEND = {"loc": "outside lower center", "ncols": 2, "handlelength": 1.6, "frameon": False, "fontsize": 8}


class Chart(Figure):
    """A Figure that a notebook shows as the last line of a cell, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file without a time or a version in it: drawn again, it is the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def chart(height: float, title: str, note: str, parts: tuple[float, ...] = (1,),
          share_x: bool = True) -> tuple[Any, ...]:
    """The figure and its axes; `parts` are the heights of those that stand below each other."""
    figure = Chart(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    found = figure.subplots(len(parts), sharex=share_x, squeeze=False, height_ratios=parts)[:, 0]
    for axes in found:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    figure.suptitle(f"{title}\n{note}" if note else title, fontsize=10, x=0.01, ha="left", color=INK)
    return figure, *found


def over_time(axes: Axes, label: str) -> None:
    """Dates on the x axis of a picture."""
    axes.set(ylabel=label)
    axes.grid(color="#E3E3E3", linewidth=0.7)
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.xaxis.get_offset_text().set_size(8.5)
