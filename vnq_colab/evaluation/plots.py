"""Pictures of the data and the results: each takes what is finished and gives back one Figure; nothing is stored.

Figures are narrow (4.2 inches), so that their text can still be read on a phone.
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
from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.market import trading_days
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits
from vnq_colab.errors import DataError, did_you_mean
from vnq_colab.evaluation.backtest import DEFAULT_FAMILY, Backtest
from vnq_colab.evaluation.chance import Chance
from vnq_colab.evaluation.probability import reliability_curve

# Source: Okabe & Ito 2008, colours that colour-blind readers can tell apart.
BLUE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"
SERIES = (BLUE, ORANGE, "#009E73", "#CC79A7", GREY)  # told apart by colour-blind people: Okabe & Ito 2008
PRESENCE = LinearSegmentedColormap.from_list("presence", ["#FFFFFF", BLUE])
SIGNED = LinearSegmentedColormap.from_list("signed", [ORANGE, "#FFFFFF", BLUE]).with_extremes(bad=GREY)
TREATMENTS = {"repaired": BLUE, "dropped": ORANGE, "kept": GREY}
WIDTH, DPI = 4.2, 180  # [inches], [dots per inch]
MOST_COLUMNS, MOST_ROWS = 500, 200_000  # of a coverage map, of a sample of the panel
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
    """What has been learnt by epoch, or by tree: skill on the validation days, one panel for each family; 0 is none.

    Of models of all stocks it is the mean daily rank correlation, of a symbol's own networks the share of the unskilled
    forecast's loss that is saved. A line is a member of one fold; of the symbols' own networks the median, and the
    middle 80 %. `history` is a table `job, symbol, member, epoch, train_loss, skill`, or an object that has it as
    `.history`. Where no epoch is over the picture says so.
    """
    history = getattr(history, "history", history)
    history = history.assign(family=history["job"].astype(str).str.split("_").str[0])
    history = history[np.isfinite(history["skill"].astype("float64"))]
    if history.empty:
        figure, axes = _chart(1.4, "Skill on validation days while learning", note)
        axes.set_axis_off()
        axes.text(0, 0.5, "No learning curves yet: no job of this run is done.\nGo on with resume (notebook 3).",
                  va="center", fontsize=9, color=INK)
        return figure
    families = list(history["family"].unique())
    figure, first, *others = _chart(2.7 * len(families) + 0.8, "Skill on validation days while learning", note,
                                    parts=(1,) * len(families), share_x=False)
    for axes, family in zip((first, *others), families, strict=True):
        rows = history[history["family"] == family]
        if (rows["symbol"] == "*").all():
            for _, line in rows.groupby(["job", "member"]):
                axes.plot(line["epoch"], line["skill"], color=BLUE, linewidth=1, alpha=0.6)
        else:
            by_epoch = rows.groupby("epoch")["skill"]
            axes.fill_between(list(by_epoch.groups), by_epoch.quantile(0.1), by_epoch.quantile(0.9), color=BLUE,
                              alpha=0.2, linewidth=0)
            axes.plot(list(by_epoch.groups), by_epoch.median(), color=BLUE, linewidth=2)
        axes.axhline(0, color=INK, linewidth=1, linestyle="--")
        axes.set(xlabel="Trees" if family == "trees" else "Epoch",
                 ylabel=f"{family} [{'rank correlation' if (rows['symbol'] == '*').all() else 'share of loss saved'}]")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#E3E3E3", linewidth=0.7)
    return figure


def rank_correlations(table: pd.DataFrame, *, note: str = "") -> Figure:
    """Mean daily rank correlation by year, a group of bars for each year, with 95 % intervals.

    `table` as of `order.rank_correlations(by="year")`.
    """
    figure, axes = _chart(3.2, "Rank correlation by year", note)
    years, families = sorted(table["period"].unique()), list(table["family"].unique())
    width = 0.8 / len(families)
    for number, family in enumerate(families):
        rows = table[table["family"] == family].set_index("period").reindex(years)
        place = np.arange(len(years)) + (number - (len(families) - 1) / 2) * width
        axes.bar(place, rows["open"], width, color=SERIES[number % len(SERIES)], label=family,
                 yerr=1.96 * (rows["open"] / rows["open_t"]).abs(), error_kw={"elinewidth": 0.8, "ecolor": INK})
    axes.axhline(0, color=INK, linewidth=1)
    axes.set(xticks=range(len(years)), xticklabels=years, ylabel="Open to open [rank correlation]")
    axes.grid(axis="y", color="#E3E3E3", linewidth=0.7)
    axes.set_axisbelow(True)
    figure.legend(**LEGEND)
    return figure


def equity(result: Backtest, chance: Chance | None = None, *, note: str = "") -> Figure:
    """Mean account after costs, beside buy-and-hold, the index and the random strategies; below it the drawdowns."""
    figure, axes, below = _chart(4.6, "Mean account after costs", note, parts=(3, 1.3))
    day = result.equity.index.to_numpy()
    if chance is not None:
        low, high = (chance.equity[name].to_numpy() / 1e6 for name in ("p5", "p95"))
        axes.fill_between(day, low, high, color="#E3E3E3", label="90% of random strategies", zorder=0)
    lines = (("strategy", result.family, BLUE, "-"), ("buy_and_hold", "buy and hold", ORANGE, "--"),
             ("index", "market index", INK, ":"))
    for column, label, colour, style in lines:
        if column in result.equity:
            value = result.equity[column].to_numpy()
            axes.plot(day, value / 1e6, style, color=colour, linewidth=1.7, label=label)
            below.plot(day, 100 * (value / np.maximum.accumulate(value) - 1), style, color=colour, linewidth=1.2)
    axes.axhline(result.capital / 1e6, color=GREY, linewidth=0.8, zorder=0)
    _over_time(axes, "Value [million VND]")
    _over_time(below, "Drawdown [%]")
    figure.legend(**LEGEND)
    return figure


def reliability(rows: pd.DataFrame, family: str = DEFAULT_FAMILY, *, note: str = "") -> Figure:
    """How often the price rose in bins of equally many forecasts, over the mean `p_up` there; `rows` have outcomes."""
    curve = reliability_curve(rows[rows["family"] == family])
    if curve.empty:
        raise DataError(f"rows: nothing of {family!r} has a direction that could be right or wrong.")
    figure, axes = _chart(3.4, f"Reliability of p_up of {family}", note)
    x, y, low, high = (100 * curve[name].to_numpy() for name in ("p_up", "up_share", "up_low", "up_high"))
    ends = x.min() - max(1, 0.1 * np.ptp(x)), x.max() + max(1, 0.1 * np.ptp(x))
    axes.plot(ends, ends, "--", color=GREY, linewidth=1, label="as forecast")
    bars = np.maximum([y - low, high - y], 0)
    axes.errorbar(x, y, bars, fmt="o", color=BLUE, markersize=4, linewidth=1, label="what happened")
    axes.set(xlabel="Forecast p_up [%]", ylabel="Rose within 5 days [%]", xlim=ends)
    axes.grid(color="#E3E3E3", linewidth=0.7)
    figure.legend(**LEGEND)
    return figure


def symbol(forecast: pd.DataFrame, prices: pd.DataFrame, name: str, family: str = DEFAULT_FAMILY, *, n_days: int = 60,
           note: str = "") -> Figure:
    """The closes of one symbol, and what the last `n_days` origins said about them, 5 trading days ahead.

    Each forecast stands on the day that it is about: its price, close × exp(mean), and the interval that was to hold
    nine of ten closes, so that the line of the closes should stay inside the band. Days to come are business days.
    """
    closes = prices[prices["symbol"] == name].set_index("date")["close"]
    mine = (forecast["family"] == family) & (forecast["symbol"] == name) & forecast["date"].isin(closes.index)
    rows = forecast[mine].sort_values("date").tail(n_days)
    if rows.empty:
        known = forecast.loc[forecast["family"] == family, "symbol"].unique()
        raise DataError(f"{family} has no forecast of {name!r} on a day with a price.{did_you_mean(name, known)}")
    days = trading_days(prices)
    due = days.append(pd.bdate_range(days[-1], periods=HORIZON + 1)[1:])[days.get_indexer(rows["date"]) + HORIZON]
    closes, start = closes[closes.index >= rows["date"].iloc[0]], closes[rows["date"]].to_numpy() / 1000
    figure, axes = _chart(3.4, f"{name}: closes, and what {family} said 5 days before", note)
    if {"low", "high"} <= set(rows.columns):
        low, high = (start * np.exp(rows[end].to_numpy()) for end in ("low", "high"))
        axes.fill_between(due, low, high, color=BLUE, alpha=0.18, linewidth=0, label="90% interval")
        came = closes.reindex(due).to_numpy() / 1000
        out = (came < low) | (came > high)  # nothing has come: not outside
        axes.plot(due[out], came[out], "o", color=ORANGE, markersize=4, label="outside of it", zorder=4)
    axes.plot(due, start * np.exp(rows["mean"].to_numpy()), "--", color=BLUE, linewidth=1.2, label="forecast price")
    axes.plot(closes.index, closes.to_numpy() / 1000, color=INK, linewidth=1.5, label="close", zorder=3)
    _over_time(axes, "Price [thousand VND]")
    figure.legend(**LEGEND)
    return figure


# ------------------------------------------------------------------------------------------------------------ the data
def coverage(panel: Panel, folds: "list[Splits] | None" = None, *, note: str = "") -> Figure:
    """Which symbols are present on which days, the first listed on top, with the first test day of each fold.

    A column is a day, or so many neighbouring days together as it takes to stay within the picture's pixels.
    """
    (n_symbols, n_days), share = panel.present.shape, panel.present.mean()
    height = min(0.165 * n_symbols, 5.5)  # [inches]
    figure, axes = _chart(1.7 + height, f"Coverage: {share:.0%} of {n_symbols} symbols × {n_days:,} days", note)
    per_column = -(-n_days // MOST_COLUMNS)
    starts = np.arange(0, n_days, per_column)
    share = np.add.reduceat(panel.present, starts, axis=1, dtype="float64") / np.diff(starts, append=n_days)
    first = np.where(panel.present.any(axis=1), panel.present.argmax(axis=1), n_days)
    order = np.argsort(first, kind="stable")
    axes.imshow(share[order], cmap=PRESENCE, vmin=0, vmax=1, aspect="auto", interpolation="nearest",
                extent=(0, len(starts) * per_column, n_symbols - 0.5, -0.5))  # the last column may be short of days
    named = np.arange(0, n_symbols, int(np.ceil(0.15 * n_symbols / height)))
    years = pd.Series(panel.days.year).drop_duplicates()  # of each its first day
    years = years[:: -(-len(years) // 8)]
    axes.set(yticks=named, yticklabels=[panel.symbols[row] for row in order[named]], xticks=years.index,
             xticklabels=years, xlabel=f"Trading days [year; {per_column} to a column]",
             ylabel="Symbols by their first day" + (f", one in {named[1]} named" if len(named) < n_symbols else ""))
    axes.set_xlim(0, n_days)
    axes.tick_params(axis="y", labelsize=7.5, length=2)
    for number, splits in enumerate(folds or (), 1):
        border = panel.days.searchsorted(pd.Timestamp(splits.test.first))
        axes.axvline(border, color=ORANGE, linewidth=1.3)
        axes.annotate(f"fold {number}", (border, 1), (2, 2), xycoords=("data", "axes fraction"),
                      textcoords="offset points", fontsize=6, color=ORANGE)
    figure.legend([Patch(color=BLUE), Patch(facecolor="white", edgecolor=GREY)], ["present", "absent"], **LEGEND)
    return figure


def cleaning(report: CleaningReport, *, note: str = "") -> Figure:
    """Rows of each disease that cleaning found, the most frequent on top, coloured by what was done."""
    rows = report.to_frame().sort_values("rows", kind="stable")
    title = f"Cleaning: {report.rows_kept:,} of {report.rows_read:,} rows kept"
    figure, axes = _chart(1.5 + 0.34 * max(len(rows), 2), title, note)
    axes.set(xlabel="Rows", ylim=(-0.6, max(len(rows), 1) - 0.4))
    if rows.empty:
        axes.set(xticks=[], yticks=[], xlabel="Rows [none]")
        axes.text(0.5, 0.5, "no disease found", transform=axes.transAxes, ha="center", fontsize=10, color=INK)
        return figure
    place, counts = np.arange(len(rows)), rows["rows"].to_numpy()
    says = rows["treatment"].str.contains
    done = np.select([says("drop"), says("repair|rescale|replace")], ["dropped", "repaired"], "kept")
    axes.barh(place, counts, height=0.62, color=[TREATMENTS[name] for name in done], zorder=2)
    for row, count in zip(place, counts, strict=True):
        axes.annotate(f"{count:,}", (max(count, 0.5), row), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(yticks=place, yticklabels=[textwrap.fill(name, 28) for name in rows["disease"]], xlabel="Rows [count]")
    if counts.max() > 50 * max(counts.min(), 1):
        axes.set(xscale="log", xlim=(0.5, counts.max() ** 1.35), xlabel="Rows [count, logarithmic]")
    else:
        axes.set_xlim(0, 1.3 * max(counts.max(), 1))
        axes.locator_params(axis="x", nbins=3, integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="y", length=0, labelsize=8)
    used = [name for name in TREATMENTS if name in done]
    figure.legend([Patch(color=TREATMENTS[name]) for name in used], used, **LEGEND | {"ncols": 3})
    return figure


def feature_distributions(panel: Panel, *, note: str = "") -> Figure:
    """Percentiles of every feature over the present days, as a share of its clipping bound.

    The number on the right is the share of days at a bound other than 0, the neutral value, from 0.1 % on.
    """
    figure, axes = _chart(1.5 + 0.135 * len(panel.feature_names), "Features, in parts of their bounds", note)
    low, high = (np.array([getattr(FEATURES[name], side) for name in panel.feature_names]) for side in ("low", "high"))
    reach, values = np.maximum(-low, high), _sample(panel)
    is_at_bound = (values <= low.astype("float32")) | (values >= high.astype("float32"))
    at_bound = (is_at_bound & (values != 0)).mean(axis=0)
    lowest, lower, middle, upper, highest = np.percentile(values, (1, 25, 50, 75, 99), axis=0) / reach
    place = np.arange(len(reach))
    axes.hlines(place, low / reach, high / reach, color="#E3E3E3", linewidth=5.5, zorder=1)
    axes.hlines(place, lowest, highest, color=BLUE, linewidth=1.1, zorder=2)
    axes.hlines(place, lower, upper, color=BLUE, linewidth=4.5, zorder=3)
    axes.plot(middle, place, "|", color=ORANGE, markersize=6, markeredgewidth=1.6, zorder=4)
    for row in np.flatnonzero(at_bound >= 0.001):
        axes.annotate(f"{at_bound[row]:.1%}", (1, row), (4, 0), textcoords="offset points", va="center", fontsize=6.5)
    axes.set(yticks=place, yticklabels=panel.feature_names, ylim=(len(reach) - 0.4, -0.6), xlim=(-1.02, 1.02),
             xlabel="Value / bound [ratio]; right: days at a bound")
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    handles = [Line2D([], [], color=BLUE, linewidth=1.1), Line2D([], [], color=BLUE, linewidth=4.5),
               Line2D([], [], color=ORANGE, marker="|", linestyle="", markersize=7), Patch(color="#E3E3E3")]
    figure.legend(handles, ["1st to 99th percentile", "middle half", "median", "between the bounds"], **LEGEND)
    return figure


def feature_correlations(panel: Panel, *, note: str = "") -> Figure:
    """Correlation of every two features over the present days, in the order of the registry.

    The strongest pair is framed, and named in the title.
    """
    names, values = panel.feature_names, _sample(panel)
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant feature has no correlation: grey
        found = np.corrcoef(values, rowvar=False, dtype="float64")
    rest = np.tril(np.nan_to_num(found), -1)
    row, column = np.unravel_index(np.abs(rest).argmax(), rest.shape)
    title = f"Strongest correlation of two features: {rest[row, column]:.2f}\n{names[column]} and {names[row]}"
    figure, axes = _chart(1.6 + 0.135 * len(names), title, note)
    image = axes.imshow(found, cmap=SIGNED, vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.5))
    axes.set(yticks=range(len(names)), yticklabels=names, xticks=[], xlabel="The same features, in the same order")
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, pad=0.01, label="Correlation [-1 to 1]")
    bar.ax.tick_params(labelsize=8.5)
    return figure


def _sample(panel: Panel) -> np.ndarray:
    """`[rows, features]`: the features of present days, the same at most 200,000 of them at each call."""
    rows = np.flatnonzero(panel.present)
    if len(rows) > MOST_ROWS:  # at random: every fifth row would always be the same day of the week
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False))
    return panel.values.reshape(-1, panel.values.shape[2])[rows]


def _over_time(axes: Axes, label: str) -> None:
    axes.set(ylabel=label)
    axes.grid(color="#E3E3E3", linewidth=0.7)
    axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.xaxis.get_offset_text().set_size(8.5)


def _chart(height: float, title: str, note: str, parts: tuple[float, ...] = (1,),
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
