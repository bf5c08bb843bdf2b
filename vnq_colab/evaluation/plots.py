"""Pictures of the results: each takes a finished table and gives back one Figure; nothing is shown, nothing is stored.

Figures are narrow (4.2 inches), so that their text can still be read on a phone.
"""

import io
from typing import Any

import matplotlib.dates
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vnq_colab.errors import DataError
from vnq_colab.evaluation.backtest import DEFAULT_FAMILY, Backtest

# Source: Okabe & Ito 2008, colours that colour-blind readers can tell apart.
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"
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


def symbol_accuracy(scores: pd.DataFrame, family: str = DEFAULT_FAMILY, *, note: str = "") -> Figure:
    """Accuracy of each symbol beside its base rate, best on top, with 95 % intervals.

    A bar begins at 50 %, what a coin reaches; it is blue where the accuracy is above the symbol's base rate.
    """
    rows = scores[(scores["family"] == family) & scores["accuracy"].notna()].sort_values("accuracy")
    if rows.empty:
        raise DataError(f"scores: nothing of {family!r} has an accuracy. Found: {list(scores['family'].unique())}.")
    figure, axes = _chart(1.6 + 0.165 * len(rows), f"5-day direction: accuracy of {family}", note)
    percent = {name: 100 * rows[name].to_numpy() for name in ("accuracy", "accuracy_low", "accuracy_high", "base_rate")}
    place, above = np.arange(len(rows)), percent["accuracy"] > percent["base_rate"]
    axes.barh(place, percent["accuracy"] - 50, left=50, height=0.62, color=np.where(above, BLUE, ORANGE), zorder=2)
    axes.hlines(place, percent["accuracy_low"], percent["accuracy_high"], color="#555555", linewidth=0.9, zorder=3)
    axes.vlines(percent["base_rate"], place - 0.45, place + 0.45, color=INK, linewidth=1.6, zorder=4)
    axes.axvline(50, color=INK, linewidth=0.8, zorder=1)
    axes.set(yticks=place, yticklabels=rows["symbol"], ylim=(-0.8, len(rows) - 0.2),
             xlabel="Accuracy [% of days whose price moved]")
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.grid(axis="x", color="#E3E3E3", linewidth=0.7, zorder=0)
    tick, whisker = Line2D([], [], color=INK, marker="|", linestyle="", markersize=9), Line2D([], [], color="#555555")
    handles = [Patch(color=BLUE), Patch(color=ORANGE), tick, whisker]
    figure.legend(handles, ["above the base rate", "not above it", "base rate", "95% interval"], **LEGEND)
    return figure


def learning_curves(history: Any, *, note: str = "") -> Figure:
    """Validation loss over that of a forecast without skill, by epoch: below 1 is skill.

    Shows the median network, the middle 80 % of them, and the mean network of each symbol; a network counts for as long
    as it trains. `history` is a table `symbol, member, epoch, train_loss, valid_loss, no_skill`, or an object that has
    it as `.history`.
    """
    by_symbol, by_epoch = _by_epoch(getattr(history, "history", history))
    figure, axes = _chart(3.4, "Validation loss while learning", note)
    for _, line in by_symbol.groupby("symbol"):
        axes.plot(line["epoch"], line["ratio"], color=GREY, linewidth=0.5, alpha=0.35)
    axes.plot([], [], color=GREY, linewidth=0.8, label="each symbol")
    axes.fill_between(by_epoch.index, by_epoch["low"], by_epoch["high"], color=BLUE, alpha=0.2, linewidth=0,
                      label="80% of the networks")
    axes.plot(by_epoch.index, by_epoch["median"], color=BLUE, linewidth=2, label="median network")
    axes.axhline(1, color=INK, linewidth=1, linestyle="--", label="no skill")
    low, high = by_epoch["low"].min(), by_epoch["high"].quantile(0.95)  # one diverging network must not set the scale
    margin = 0.15 * max(high - low, 0.02)
    axes.set(xlabel="Epoch", ylabel="Loss / no-skill loss [ratio]", ylim=(min(low, 1) - margin, max(high, 1) + margin))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="#E3E3E3", linewidth=0.7)
    figure.legend(**LEGEND)
    return figure


def _by_epoch(history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean ratio by symbol and epoch, and median, 10 % and 90 % quantile of the networks by epoch."""
    history = history.astype({"valid_loss": "float64", "no_skill": "float64"})  # an empty table has no types
    history = history[np.isfinite(history["valid_loss"]) & (history["no_skill"] > 0)]
    if history.empty:
        raise DataError("history: no epoch has a validation loss. Train for at least one epoch.")
    history = history.assign(ratio=history["valid_loss"] / history["no_skill"])
    groups = history.groupby("epoch")["ratio"]
    by_epoch = pd.DataFrame({"median": groups.median(), "low": groups.quantile(0.1), "high": groups.quantile(0.9)})
    return history.groupby(["symbol", "epoch"], as_index=False)["ratio"].mean(), by_epoch


def equity(result: Backtest, *, note: str = "") -> Figure:
    """Mean account by day, strategy beside buy-and-hold, both after costs."""
    figure, axes = _chart(3.4, "Mean account after costs", note)
    day = result.equity.index.to_numpy()
    lines = (("strategy", result.family, BLUE, "-"), ("buy_and_hold", "buy and hold", ORANGE, "--"))
    for column, label, colour, style in lines:
        axes.plot(day, result.equity[column].to_numpy() / 1e6, style, color=colour, linewidth=1.7, label=label)
    axes.axhline(result.capital / 1e6, color=GREY, linewidth=0.8, zorder=0)
    axes.set(ylabel="Value [million VND]")
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.xaxis.get_offset_text().set_size(8.5)
    axes.grid(color="#E3E3E3", linewidth=0.7)
    figure.legend(**LEGEND)
    return figure


def _chart(height: float, title: str, note: str) -> tuple[Figure, Axes]:
    figure = Chart(figsize=(WIDTH, height), layout="constrained", dpi=DPI)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    axes.set_title(f"{title}\n{note}" if note else title, fontsize=10, loc="left", color=INK)
    return figure, axes
