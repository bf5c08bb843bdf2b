"""Tomorrow's ranking: what the models expect from the evening of the last day."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vnq_colab.data.features import FEATURES
from vnq_colab.data.prepared import staleness, up_to
from vnq_colab.data.splits import to_day
from vnq_colab.delivery.bundle import Bundle
from vnq_colab.errors import DataError, DeliveryError, name_a_few
from vnq_colab.files import write_atomic
from vnq_colab.layout import Workspace

LEAST_DAYS = max(feature.warm_up_days for feature in FEATURES.values())
FEWEST_OF_MARKET = 0.8  # of the stocks that the market's features were trained with; below, they mean something else


@dataclass(frozen=True, repr=False)
class Outlook:
    """The judged family's Forecast from the last two evenings of a price table, and what is to be said of them."""

    bundle: Bundle
    forecast: pd.DataFrame  # with `decision`
    prices: pd.DataFrame
    stale: list[str]  # the sentence that the prices are too old for orders, where they are
    warnings: list[str]

    @property
    def day(self) -> pd.Timestamp:
        """The last evening."""
        return self.prices["date"].max()

    def latest(self, days_before: int = 0) -> pd.DataFrame:
        """The forecast of the last evening, or of one before, with `rank` (1 is the best)."""
        days = np.sort(self.prices["date"].unique())
        rows = self.forecast[self.forecast["date"] == days[-1 - days_before]]
        return rows.assign(rank=rows["score"].rank(ascending=False, method="first").astype("int64"))


def look_ahead(bundle: Bundle, prices: pd.DataFrame, *, index: pd.DataFrame | None = None,
               as_of: str | None = None) -> Outlook:
    """The Outlook from the last day of a price table; `as_of` leaves out every later day, as if it were that evening.

    Raises DataError and DeliveryError for prices that the bundle cannot be used on.
    """
    if as_of is not None:
        prices = up_to(prices, to_day(as_of))
        index = None if index is None else up_to(index, to_day(as_of))
    with_index = bundle.manifest["market_index"]
    if with_index is not None and with_index is not (index is not None):
        raise DeliveryError("the bundle was trained with a market index: give one with --index." if with_index else
                            "the bundle was trained without a market index: leave --index out.")
    n_days, needed = prices["date"].nunique(), LEAST_DAYS + bundle.manifest["look_back"]
    if n_days < needed:
        raise DataError(f"these prices have {n_days} days, a forecast needs at least {needed} (better 320, for the "
                        "features of 252 days). Bring the whole history, not only the last weeks.")
    market, here = bundle.manifest["market_symbols"], set(prices["symbol"].unique())
    warnings, shared = [], sum(symbol in here for symbol in market) / len(market)
    if shared < FEWEST_OF_MARKET:
        warnings.append(f"the market's features were trained with {len(market)} stocks, these prices have {shared:.0%} "
                        "of them: breadth, ranks and market returns mean something else. Bring all stocks.")
    forecast = bundle.predict_latest(prices, index, n_days=2)
    outlook = Outlook(bundle, forecast[forecast["family"] == bundle.judged_family], prices,
                      staleness(prices, to_day(as_of or dt.date.today().isoformat())), warnings)
    there = set(outlook.latest()["symbol"])
    if absent := [symbol for symbol in bundle.decisions if symbol not in there]:
        warnings.append(f"no price on {outlook.day:%Y-%m-%d} for {name_a_few(absent)}: not forecast")
    return outlook


def refuse_stale(prices: pd.DataFrame, as_of: str | None) -> None:
    """Raises DataError for prices older than 5 sessions, on the evening of `as_of` (None: today)."""
    day = to_day(as_of or dt.date.today().isoformat())
    if stale := staleness(up_to(prices, day), day):
        raise DataError(f"{stale[0]}.")


def ranking(outlook: Outlook) -> pd.DataFrame:
    """One row for each judged symbol, best first, those without a price on the last day at the end.

    Columns: rank among all of them (1 is the best), symbol, date, decision, score, p_up, edge over the mean stock in 5
    days [%], expected 5-day return [%], its spread [%], and the ends of the interval that holds nine of ten outcomes
    [%].
    """
    forecast, decisions = outlook.latest(), outlook.bundle.decisions
    table = forecast[["rank", "symbol", "date", "decision", "score", "p_up"]].copy()
    table["edge [%]"] = 100 * np.expm1(forecast["edge"])
    table["expected 5-day return [%]"] = 100 * np.expm1(forecast["mean"])
    table["spread [%]"] = 100 * forecast["scale"]
    if "low" in forecast:
        table["low [%]"], table["high [%]"] = (100 * np.expm1(forecast[name]) for name in ("low", "high"))
    table = table.sort_values("rank").set_index("symbol")
    absent = [symbol for symbol in decisions if symbol not in table.index]
    table = table.astype({"rank": "Int64"}).reindex([*table.index, *absent]).reset_index()
    table["date"], table["decision"] = outlook.day, table["symbol"].map(decisions)
    return table[["rank", "symbol", *table.columns[2:]]]


def accepted_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the symbols that may be bought."""
    return table[table["decision"] == "accept"].reset_index(drop=True)


def write_predictions(ws: Workspace, table: pd.DataFrame, day: pd.Timestamp) -> Path:
    """Writes `predictions/<date>.csv`, named by the evening that the forecasts are from."""
    return write_table(ws.predictions / f"{day:%Y-%m-%d}.csv", table)


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Writes a table as CSV, whole or not at all."""
    text = table.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d", float_format="%.4f")
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))
    return path
