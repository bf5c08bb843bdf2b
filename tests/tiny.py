"""Small panels and forecasts whose numbers are written out, for the tests of many modules."""

import numpy as np
import pandas as pd

from vnq_colab.data.panel import Panel


def panel_of(returns, symbols=("AAA",), days=None, opens=None):
    """A Panel of daily log returns `[symbols, days]` of the close; NaN on a later day is an absent day.

    `opens` are log returns from the last close to the open, 0 unless given.
    """
    returns = np.array(returns, dtype="float64", ndmin=2)
    present = np.isfinite(returns)
    present[:, 0] = True
    close = 20_000 * np.exp(np.cumsum(np.where(np.isfinite(returns), returns, 0), axis=1))
    opened = close if opens is None else np.concatenate([close[:, :1], close[:, :-1]], axis=1) * np.exp(opens)
    prices = np.stack([opened, np.maximum(opened, close), np.minimum(opened, close), close, 1000 * close], axis=2)
    prices[~present] = np.nan
    days = pd.bdate_range("2024-01-01", periods=returns.shape[1]) if days is None else days
    return Panel(np.zeros((*returns.shape, 1), "float32"), prices, present, tuple(symbols), days, ("x",), "test")


def forecast_of(symbol, days, mean, scale=0.05, p_up=0.5, family="stockformer"):
    """A Forecast of one symbol with `mean [days]`, which is its score and its edge as well."""
    mean = np.broadcast_to(np.asarray(mean, "float64"), len(days))
    return pd.DataFrame({"family": family, "symbol": symbol, "date": days, "score": mean, "edge": mean, "mean": mean,
                         "scale": scale, "p_up": p_up})
