"""Tomorrow's table: what the accepted models expect from the evening of the last day."""

import datetime as dt
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


def tomorrow(bundle: Bundle, prices: pd.DataFrame, *, index: pd.DataFrame | None = None, as_of: str | None = None,
             everyone: bool = False) -> tuple[pd.DataFrame, list[str]]:
    """The table of the accepted symbols (all with `everyone`), best first, and warnings.

    `as_of` leaves out every later day, as if it were that evening. Columns: rank among all of them (1 is the
    best), symbol, date, decision, score, p_up, edge over the mean stock in 5 days [%], expected 5-day return [%], its
    spread [%], and the ends of the interval that holds nine of ten outcomes [%].
    """
    if as_of is not None:
        prices = up_to(prices, to_day(as_of))
        index = None if index is None else up_to(index, to_day(as_of))
    warnings = staleness(prices, to_day(as_of or dt.date.today().isoformat()))
    with_index = bundle.manifest["market_index"]
    if with_index is not None and with_index is not (index is not None):
        raise DeliveryError("the bundle was trained with a market index: give one with --index." if with_index else
                            "the bundle was trained without a market index: leave --index out.")
    n_days, needed = prices["date"].nunique(), LEAST_DAYS + bundle.manifest["look_back"]
    if n_days < needed:
        raise DataError(f"these prices have {n_days} days, a forecast needs at least {needed} (better 320, for the "
                        "features of 252 days). Bring the whole history, not only the last weeks.")
    market, here = bundle.manifest["market_symbols"], set(prices["symbol"].unique())
    shared = sum(symbol in here for symbol in market) / len(market)
    if shared < FEWEST_OF_MARKET:
        warnings.append(f"the market's features were trained with {len(market)} stocks, these prices have {shared:.0%} "
                        "of them: breadth, ranks and market returns mean something else. Bring all stocks.")
    forecast = bundle.predict_latest(prices, index)
    forecast = forecast[forecast["family"] == bundle.judged_family]
    forecast_symbols = set(forecast["symbol"])
    absent = [symbol for symbol in bundle.decisions if symbol not in forecast_symbols]
    if absent:
        warnings.append(f"no price on {prices['date'].max():%Y-%m-%d} for {name_a_few(absent)}: left out")
    table = forecast[["symbol", "date", "decision", "score", "p_up"]].copy()
    table.insert(0, "rank", forecast["score"].rank(ascending=False, method="first").astype("int64"))
    table["edge [%]"] = 100 * np.expm1(forecast["edge"])
    table["expected 5-day return [%]"] = 100 * np.expm1(forecast["mean"])
    table["spread [%]"] = 100 * forecast["scale"]
    if "low" in forecast:
        table["low [%]"], table["high [%]"] = (100 * np.expm1(forecast[name]) for name in ("low", "high"))
    table = table.sort_values("rank", ignore_index=True)
    return table if everyone else table[table["decision"] == "accept"].reset_index(drop=True), warnings


def write_predictions(ws: Workspace, table: pd.DataFrame, day: pd.Timestamp) -> Path:
    """Writes `predictions/<date>.csv`, named by the evening that the forecasts are from."""
    path = ws.predictions / f"{day:%Y-%m-%d}.csv"
    text = table.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d", float_format="%.4f")
    write_atomic(path, lambda file: file.write(text.encode("utf-8")))
    return path
