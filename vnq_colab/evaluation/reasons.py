"""Why a stock stands where it stands: what lifts and what lowers its score; and the importance of features.

A contribution is what a feature adds to a score, in points (hundredths of it; of trees on ranks a place of a hundred),
less the day's mean over the stocks: what they share puts none above another.
"""

import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.panel import Panel
from vnq_colab.evaluation.data_plots import BLUE, INK, PALE, figure_of

N_NAMED, N_DRAWN = 3, 15  # features on each side of a stock; of the picture
WHY = ("lifts", "lowers", "explained_by")  # columns of texts
BY, SENTENCE = " | ", "{2}: lifted by {0}, lowered by {1}"  # of WHY, after what an order gives as its reason
PLAIN = {"mean_distance": "close over {}-day mean", "high_distance": "close over {}-day high", "gap": "opening gap",
         "low_distance": "close over {}-day low", "body": "close over open", "return_rank": "rank of {}-day return",
         "volume_surprise": "volume over 20-day mean", "range_surprise": "range over 20-day mean",
         "volume_trend": "5- over 60-day volume", "volatility_ratio": "5- over 60-day volatility"}  # by name else


class Explanation(NamedTuple):
    """What the folds of a run say of the one family that can explain itself."""

    family: str
    stocks: pd.DataFrame  # as of `reasons`, of the last judged day; no rows where that is no fold's last test day
    importance: pd.DataFrame  # by feature the mean absolute points: `mean`, `min`, `max` of the folds, largest first


def plain_name(feature: str) -> str:
    """A feature's name as people read it: "5-day return" of return_5."""
    name, days = re.fullmatch(r"(.*?)(?:_(\d+))?", feature).groups()
    words = re.sub(r"\b(rsi|macd|adx|cci|obv)\b", lambda found: found[0].upper(), name.replace("_", " "))
    return PLAIN.get(name, "{}-day " * bool(days) + words).format(days)


def points_of(contributions: pd.DataFrame) -> pd.DataFrame:
    """`[rows, features]`: contributions, as of `Forecaster.explain`, in points above the mean of their day's stocks."""
    table = contributions.drop(columns=["symbol", "date", "bias"])
    return 100 * (table - table.groupby(contributions["date"]).transform("mean"))


def reasons(contributions: pd.DataFrame, panel: Panel, family: str) -> pd.DataFrame:
    """Of one day, by symbol, WHY: three features each, with points; (low): in the lowest third of that day's stocks."""
    points, symbols = points_of(contributions), contributions["symbol"]
    day, at = panel.days.get_loc(contributions["date"].iloc[0]), [*map(panel.feature_names.index, points)]
    values = np.where(panel.present[:, day, None], panel.values[:, day][:, at], np.nan)
    place = np.nan_to_num(within_day_ranks(values)[panel.rows(tuple(symbols))])  # [symbols, features]
    side = np.select([place < -1 / 3, place > 1 / 3], [" (low)", " (high)"], "")
    names, points = np.char.add([*map(plain_name, points)], side), points.to_numpy()

    def most(sign: int) -> list[str]:
        return [", ".join(f"{name[one]} {row[one]:+.1f}" for one in np.argsort(-sign * row)[:N_NAMED]
                          if sign * row[one] >= 0.05) or "nothing" for name, row in zip(names, points, strict=True)]

    rank = contributions.drop(columns=["symbol", "date"]).sum(axis=1).rank(ascending=False, method="first")
    by = [f"{family} alone (rank {own:.0f})" for own in rank]
    return pd.DataFrame(dict(zip(WHY, (most(1), most(-1), by), strict=True)), pd.Index(symbols, name="symbol"))


def importance(table: pd.DataFrame, family: str = "trees", *, note: str = "") -> Figure:
    """The features that matter most to a family, as of `Explanation.importance`, with their lowest and highest fold."""
    table = table.head(N_DRAWN)[::-1]
    figure, axes = figure_of(1.3 + 0.22 * len(table), f"Feature importance: {family}", note)
    axes.barh([*map(plain_name, table.index)], table["mean"], height=0.7, color=BLUE, zorder=2)
    axes.hlines(range(len(table)), table["min"], table["max"], color=INK, linewidth=1, zorder=3)
    axes.set(xlabel="Mean absolute\ncontribution [points]")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.7)
    return figure
