"""Pictures of the data and the results: each takes what is finished and gives back one Figure; nothing is stored.

Figures are narrow (4.2 inches), so that their text can still be read on a phone.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.market import trading_days
from vnq_colab.errors import DataError, did_you_mean
from vnq_colab.evaluation.backtest import DEFAULT_FAMILY, Backtest
from vnq_colab.evaluation.chance import Chance
from vnq_colab.evaluation.chart import BLUE, GREY, INK, LEGEND, ORANGE, SERIES, chart, over_time, png
from vnq_colab.evaluation.data_plots import cleaning, coverage, feature_correlations, feature_distributions
from vnq_colab.evaluation.probability import reliability_curve

__all__ = ["Figure", "cleaning", "coverage", "equity", "feature_correlations", "feature_distributions",
           "learning_curves", "png", "rank_correlations", "reliability", "symbol", "symbol_accuracy"]


def symbol_accuracy(scores: pd.DataFrame, family: str = DEFAULT_FAMILY, *, note: str = "") -> Figure:
    """Accuracy of each symbol beside its base rate, best on top, with 95 % intervals.

    A bar begins at 50 %, what a coin reaches; it is blue where the accuracy is above the symbol's base rate.
    """
    rows = scores[(scores["family"] == family) & scores["accuracy"].notna()].sort_values("accuracy")
    if rows.empty:
        raise DataError(f"scores: nothing of {family!r} has an accuracy. Found: {list(scores['family'].unique())}.")
    figure, axes = chart(1.6 + 0.165 * len(rows), f"5-day direction: accuracy of {family}", note)
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
        figure, axes = chart(1.4, "Skill on validation days while learning", note)
        axes.set_axis_off()
        axes.text(0, 0.5, "No learning curves yet: no job of this run is done.\nGo on with resume (notebook 3).",
                  va="center", fontsize=9, color=INK)
        return figure
    families = list(history["family"].unique())
    figure, first, *others = chart(2.7 * len(families) + 0.8, "Skill on validation days while learning", note,
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
    figure, axes = chart(3.2, "Rank correlation by year", note)
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
    figure, axes, below = chart(4.6, "Mean account after costs", note, parts=(3, 1.3))
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
    over_time(axes, "Value [million VND]")
    over_time(below, "Drawdown [%]")
    figure.legend(**LEGEND)
    return figure


def reliability(rows: pd.DataFrame, family: str = DEFAULT_FAMILY, *, note: str = "") -> Figure:
    """How often the price rose in bins of equally many forecasts, over the mean `p_up` there; `rows` have outcomes."""
    curve = reliability_curve(rows[rows["family"] == family])
    if curve.empty:
        raise DataError(f"rows: nothing of {family!r} has a direction that could be right or wrong.")
    figure, axes = chart(3.4, f"Reliability of p_up of {family}", note)
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
    figure, axes = chart(3.4, f"{name}: closes, and what {family} said 5 days before", note)
    if {"low", "high"} <= set(rows.columns):
        low, high = (start * np.exp(rows[end].to_numpy()) for end in ("low", "high"))
        axes.fill_between(due, low, high, color=BLUE, alpha=0.18, linewidth=0, label="90% interval")
        came = closes.reindex(due).to_numpy() / 1000
        out = (came < low) | (came > high)  # nothing has come: not outside
        axes.plot(due[out], came[out], "o", color=ORANGE, markersize=4, label="outside of it", zorder=4)
    axes.plot(due, start * np.exp(rows["mean"].to_numpy()), "--", color=BLUE, linewidth=1.2, label="forecast price")
    axes.plot(closes.index, closes.to_numpy() / 1000, color=INK, linewidth=1.5, label="close", zorder=3)
    over_time(axes, "Price [thousand VND]")
    figure.legend(**LEGEND)
    return figure


# ------------------------------------------------------------------------------------------------------------ the data
