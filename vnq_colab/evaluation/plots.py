"""Figures of the results, and those of the data by name: each takes what is finished and gives back one Figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator

from vnq_colab.data.forecast import ENSEMBLE
from vnq_colab.errors import DataError
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.basket_result import BasketResult
from vnq_colab.evaluation.data_plots import (
    BLUE,
    GREY,
    INK,
    LEGEND,
    ORANGE,
    PALE,
    SIGNED,
    SIZE,
    SMALL,
    cleaning,
    coverage,
    feature_correlations,
    feature_distributions,
    figure_of,
    over_time,
    png,
)
from vnq_colab.evaluation.metrics import past_forecasts
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.reasons import importance
from vnq_colab.settings import HORIZON

__all__ = ["Figure", "accuracies", "basket", "cleaning", "coverage", "evening", "fan", "feature_correlations",
           "feature_distributions", "importance", "learning_curves", "months", "order", "png", "random_baskets",
           "symbol", "symbol_accuracy"]

DECISION_COLOURS = {"accept": BLUE, "review": "#E69F00", "reject": GREY, "unjudged": "#C9CED3"}


def symbol_accuracy(scores: pd.DataFrame, family: str = ENSEMBLE, decisions: Mapping[str, str] | None = None, *,
                    note: str = "") -> Figure:
    """Accuracy of each symbol beside its base rate, best on top, with 95 % intervals.

    A bar begins at 50 %, what a coin reaches, and has the colour of the symbol's decision; of 102 coins some look good.
    """
    rows = _with_accuracy(scores, family, decisions).sort_values("accuracy")
    figure, axes = figure_of(2.0 + 0.17 * len(rows), f"5-day direction: accuracy of {family}", note)
    accuracy, low, high, base_rate = (
        100 * rows[name].to_numpy() for name in ("accuracy", "accuracy_low", "accuracy_high", "base_rate"))
    place = np.arange(len(rows))
    axes.barh(place, accuracy - 50, left=50, height=0.62, color=rows["decision"].map(DECISION_COLOURS), zorder=2)
    axes.hlines(place, low, high, color="#555555", linewidth=0.9, zorder=3)
    axes.vlines(base_rate, place - 0.45, place + 0.45, color=INK, linewidth=1.6, zorder=4)
    axes.axvline(50, color=INK, linewidth=0.8, zorder=1)
    axes.set(yticks=place, yticklabels=rows["symbol"], ylim=(-0.8, len(rows) - 0.2),
             xlabel="Accuracy [% of days whose price moved]")
    axes.tick_params(axis="y", length=0, labelsize=SMALL)
    axes.tick_params(axis="x", top=True, labeltop=True)
    axes.grid(axis="x", color=PALE, linewidth=0.7)
    _legend(figure, rows, {"base rate": {"color": INK, "marker": "|", "linestyle": "", "markersize": 9},
                           "95% interval": {"color": "#555555"}})
    return figure


def accuracies(scores: pd.DataFrame, family: str = ENSEMBLE, decisions: Mapping[str, str] | None = None, *,
               note: str = "") -> Figure:
    """How many symbols have which accuracy, coloured by decision, beside what coins would spread over."""
    rows = _with_accuracy(scores, family, decisions)
    accuracy, n_windows = 100 * rows["accuracy"], float(rows["n_independent"].median())
    edges = np.arange(np.floor(min(accuracy.min(), 48)), np.ceil(max(accuracy.max(), 52)) + 1)
    figure, axes = figure_of(2.7, f"Accuracies of {len(rows)} stocks, {family}", note)
    names = [name for name in DECISION_COLOURS if (rows["decision"] == name).any()]
    axes.hist([accuracy[rows["decision"] == name] for name in names], bins=edges, stacked=True,
              color=[DECISION_COLOURS[name] for name in names], edgecolor="white", linewidth=0.6)
    at, width = np.linspace(edges[0], edges[-1], 200), 50 / np.sqrt(max(n_windows, 1))  # [points] of a coin
    axes.plot(at, len(rows) * scipy.stats.norm.pdf(at, 50, width), "--", color=INK, linewidth=1.2)
    axes.axvline(100 * rows["base_rate"].mean(), color=ORANGE, linewidth=1.5)
    axes.set(xlabel="Accuracy [% of days whose price moved]", ylabel="Stocks [count]", xlim=(edges[0], edges[-1]))
    _legend(figure, rows, {"as many coins": {"color": INK, "linestyle": "--"}, "mean base rate": {"color": ORANGE}})
    return figure


def _with_accuracy(scores: pd.DataFrame, family: str, decisions: Mapping[str, str] | None) -> pd.DataFrame:
    rows = scores[(scores["family"] == family) & scores["accuracy"].notna()]
    if rows.empty:
        raise DataError(f"scores: nothing of {family!r} has an accuracy. Found: {list(scores['family'].unique())}.")
    return rows.assign(decision=[(decisions or {}).get(name, "unjudged") for name in rows["symbol"]])


def _legend(figure: Figure, rows: pd.DataFrame, lines: dict[str, dict[str, Any]]) -> None:
    """The decisions that are there by colour, and what else is drawn."""
    handles = {name: Patch(color=colour) for name, colour in DECISION_COLOURS.items()
               if (rows["decision"] == name).any()}
    handles |= {name: Line2D([], [], **style) for name, style in lines.items()}
    figure.legend(handles.values(), handles.keys(), **LEGEND)


def learning_curves(history: Any, *, note: str = "") -> Figure:
    """What was reached on the validation days by epoch, or by tree, one panel for each family; 0 is no skill.

    Of models of all stocks it is the mean daily rank correlation, a line for each member of a fold; of a symbol's own
    networks the share of the zero forecast's loss that is saved, as median and middle 80 %. `history` is a table
    `job, symbol, member, epoch, train_loss, skill`, or an object that has it as `.history`.
    """
    history = getattr(history, "history", history)
    history = history.assign(family=history["job"].astype(str).str.split("_").str[0])
    history = history[np.isfinite(history["skill"].astype("float64"))]
    title = "Validation days while training"
    if history.empty:
        figure, axes = figure_of(1.4, title, note)
        axes.set_axis_off()
        axes.text(0, 0.5, "No learning curves yet: no job of\nthis run is done, or its logs are not\nthere. Go on with "
                  "resume (notebook 3).", va="center", fontsize=SIZE, color=INK)
        return figure
    families = list(history["family"].unique())
    figure, *panels = figure_of(2.7 * len(families) + 0.8, title, note, parts=(1,) * len(families), share_x=False)
    for axes, family in zip(panels, families, strict=True):
        rows = history[history["family"] == family]
        if of_all := (rows["symbol"] == "*").all():
            for _, line in rows.groupby(["job", "member"]):
                axes.plot(line["epoch"], line["skill"], color=BLUE, linewidth=1, alpha=0.6,
                          marker="." if len(line) == 1 else "")
        else:
            by_epoch = rows.groupby("epoch")["skill"]
            axes.fill_between(list(by_epoch.groups), by_epoch.quantile(0.1), by_epoch.quantile(0.9), color=BLUE,
                              alpha=0.2, linewidth=0)
            axes.plot(list(by_epoch.groups), by_epoch.median(), color=BLUE, linewidth=2)
        axes.axhline(0, color=INK, linewidth=1, linestyle="--")
        axes.set(xlabel="Trees" if family == "trees" else "Epoch",
                 ylabel=f"{family} [{'rank correlation' if of_all else 'share of loss saved'}]")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=PALE, linewidth=0.7)
    return figure


def order(order: Order, *, note: str = "") -> Figure:
    """What each quantile of the judged family's score returned, and its rank correlation by horizon."""
    figure, axes, below = figure_of(5.0, f"The order of a day: {order.family}", note, parts=(1.2, 1), share_x=False)
    quantiles, decay = order.quantiles, order.groups[order.groups["group"] == "horizon"]
    low, value, high = (100 * quantiles[name].to_numpy() for name in ("low", "excess", "high"))
    axes.bar(quantiles["quantile"], value, color=np.where(value < 0, ORANGE, BLUE), zorder=2)
    axes.vlines(quantiles["quantile"], low, high, color=INK, linewidth=1, zorder=3)
    axes.axhline(0, color=INK, linewidth=0.9)
    axes.set(xticks=quantiles["quantile"], xlabel="Quantile of the score [1 worst]",
             ylabel="5-day return less\nthe day's mean [%]")
    error = 1.96 * (decay["value"] / decay["t"]).abs()
    below.errorbar(range(len(decay)), decay["value"], error, fmt="o-", color=BLUE, markersize=4, linewidth=1.2)
    below.axhline(0, color=INK, linewidth=0.9)
    below.set(xticks=range(len(decay)), xticklabels=decay["name"], xlabel="Horizon [days]",
              ylabel="Rank correlation [-1 to 1]")
    for part in (axes, below):
        part.grid(axis="y", color=PALE, linewidth=0.7)
    return figure


def basket(result: BasketResult, *, note: str = "") -> Figure:
    """The basket after costs beside the equal-weighted universe and the index (logarithmic), and below it drawdowns."""
    figure, axes, below = figure_of(4.6, f"Basket of {result.basket.k} after costs", note, parts=(3, 1.3))
    day = result.equity.index.to_numpy()
    lines = (("basket", "basket", BLUE, "-"), ("equal_weighted", "equal-weighted universe", ORANGE, "--"),
             ("index", "VNINDEX", INK, ":"))
    for column, label, colour, style in lines:
        if column in result.equity:
            value = result.equity[column].to_numpy() / result.capital
            axes.plot(day, value, style, color=colour, linewidth=1.7, label=label)
            below.plot(day, 100 * (value / np.maximum.accumulate(value) - 1), style, color=colour, linewidth=1.2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.axhline(1, color=GREY, linewidth=0.8, zorder=0)
    over_time(axes, "Value [times the capital]")
    over_time(below, "Drawdown [%]")
    figure.legend(**LEGEND)
    return figure


def months(result: BasketResult, *, note: str = "") -> Figure:
    """The basket's return of each month after costs, as a heat map of years and months."""
    equity = result.equity["basket"]
    ends = equity.groupby([equity.index.year, equity.index.month]).last()
    change = 100 * (ends / ends.shift(1, fill_value=equity.iloc[0]) - 1).unstack().reindex(columns=range(1, 13))
    figure, axes = figure_of(1.1 + 0.22 * len(change), "Months of the basket after costs", note)
    axes.imshow(change, cmap=SIGNED.with_extremes(bad="white"), vmin=-20, vmax=20, aspect="auto")
    for (row, column), value in np.ndenumerate(change.to_numpy()):
        if np.isfinite(value):
            axes.text(column, row, f"{round(value) + 0.0:.0f}", ha="center", va="center", fontsize=SIZE,
                      color="white" if abs(value) > 12 else INK)
    axes.set(xticks=range(12), xticklabels="JFMAMJJASOND", yticks=range(len(change)), yticklabels=change.index,
             xlabel="Return of the month [%]")
    axes.tick_params(length=0)
    return figure


def fan(rows: pd.DataFrame, family: str = ENSEMBLE, *, note: str = "") -> Figure:
    """What each fifth of a family's scores returned over the day's mean, added up; `rows` as of `with_outcomes`."""
    rows = rows[(rows["family"] == family) & rows["actual_open"].notna()]
    by_day = rows.groupby("date")
    excess = rows["actual_open"] - by_day["actual_open"].transform("mean")
    fifth = np.ceil(5 * by_day["score"].rank(pct=True, method="first") - 1e-9).astype(int)
    daily = 100 * excess.groupby([rows["date"], fifth]).mean().unstack().reindex(columns=range(1, 6)).fillna(0.0)
    total = daily.cumsum() / HORIZON
    figure, axes = figure_of(3.0, f"Fifths of the score: {family}", note)
    for place, colour, label in zip(range(1, 6), (ORANGE, "#E9A983", GREY, "#85BBDD", BLUE),
                                    ("worst", "2nd", "3rd", "4th", "best"), strict=True):
        axes.plot(total.index.to_numpy(), total[place], color=colour, linewidth=1.6, label=label)
    axes.axhline(0, color=INK, linewidth=0.9)
    over_time(axes, "Return over the mean,\nadded up [%]")
    figure.legend(**LEGEND | {"ncols": 5, "handlelength": 0.8, "columnspacing": 0.7, "handletextpad": 0.3})
    return figure


def evening(ranking: pd.DataFrame, orders: pd.DataFrame | None = None, *, n_named: int = 12, note: str = "") -> Figure:
    """All stocks of an evening by their forecast; the first and last `n_named` by name, with what is ordered.

    `ranking` as of `vnq.predict(...)`, with `rank, symbol, date, edge [%]`; `orders` with `symbol, action`.
    """
    rows = ranking.dropna(subset=["rank"]).sort_values("rank")
    from_end = np.minimum(np.arange(len(rows)), np.arange(len(rows))[::-1])
    height = np.where(from_end < n_named, 1.0, 0.12)  # of a bar, with its gap
    place = height.cumsum() - height / 2
    figure, axes = figure_of(1.1 + 0.19 * height.sum(), f"{rows['date'].max():%d/%m/%Y}: {len(rows)} stocks", note)
    value, names = rows["edge [%]"].to_numpy("float64"), rows["symbol"].to_numpy()
    axes.barh(place, value, height=0.8 * height, color=np.where(value < 0, ORANGE, BLUE))
    does = {} if orders is None else orders.set_index("symbol")["action"].replace("wait", "").to_dict()
    axes.set(yticks=place[height == 1], ylim=(height.sum(), 0), xlabel="5-day forecast over the mean [%]",
             yticklabels=[f"{does.get(name, '')} {name}".strip() for name in names[height == 1]])
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.7)
    return figure


def random_baskets(result: BasketResult, *, note: str = "") -> Figure:
    """Alphas of random baskets of the same turnover, and where ours is among them. DataError where there is none."""
    if not np.isfinite(result.alpha):
        raise DataError("too few days for an alpha: there are no random baskets to compare with.")
    figure, axes = figure_of(2.5, f"{len(result.random):,} baskets of the same turnover", note)
    axes.hist(100 * result.random, bins=40, color=GREY, zorder=2, label="random baskets")
    axes.axvline(100 * result.alpha, color=BLUE, linewidth=2, zorder=3, label="ours")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(xlabel="Alpha after costs [% a year]", ylabel="Baskets [count]")
    figure.legend(**LEGEND)
    return figure


def symbol(forecast: pd.DataFrame, rows: pd.DataFrame, name: str, family: str = ENSEMBLE, *, n_days: int = 60,
           trades: Backtest | None = None, note: str = "") -> Figure:
    """What the last `n_days` forecasts of a symbol said and what happened; its rank; and where it was traded.

    `rows` are those of the forecast whose outcome is known, with `actual`. The band should hold nine of ten outcomes.
    With `trades` its price is shown, too, and what they bought and sold.
    """
    table = past_forecasts(forecast, rows, family, name, n_days=n_days)
    day, expected, actual = table["date"].to_numpy(), table["expected"].to_numpy(), table["actual"].to_numpy()
    parts = (3, 2) if trades is None else (3, 2, 3)
    figure, axes, below, *last = figure_of(1.2 + 0.6 * sum(parts), f"{name}: {family}", note, parts=parts)
    if "low" in table:
        axes.fill_between(day, table["low"], table["high"], color=BLUE, alpha=0.18, linewidth=0, label="90% interval")
    axes.plot(day, actual, color=ORANGE, linewidth=1.4, label="actual")
    axes.plot(day, expected, "--", color=BLUE, linewidth=1.6, label="forecast")
    axes.axhline(0, color=INK, linewidth=0.9)
    over_time(axes, "5-day change [%]")
    score = forecast[(forecast["family"] == family) & forecast["date"].isin(day)]
    score = score.pivot(index="date", columns="symbol", values="score")
    below.plot(day, score.rank(axis=1, ascending=False)[name], color=BLUE, linewidth=1.4)
    over_time(below, "Rank [1 best]")
    below.set_ylim(score.shape[1] + 0.5, 0.5)
    if last:
        market, orders = trades.market, trades.orders[trades.orders["symbol"] == name]
        price = pd.Series(market.close[:, list(market.symbols).index(name)] / 1000, index=market.days)
        last[0].plot(day, price[day], color=INK, linewidth=1.2)
        for side, marker, colour in (("buy", "^", BLUE), ("sell", "v", ORANGE)):
            at = orders.loc[(orders["side"] == side) & orders["date"].isin(day), "date"]
            last[0].plot(at.to_numpy(), price[at], marker, color=colour, label={"buy": "bought", "sell": "sold"}[side])
        over_time(last[0], "Close, adjusted\n[thousand VND]")
    figure.axes[-1].set_xlabel("Day of the forecast")
    figure.legend(**LEGEND)
    return figure
