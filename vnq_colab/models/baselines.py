"""Opponents: forecasts that anybody can make, on exactly the rows of ours.

A model that does not beat them is no use.
"""

import numpy as np
import pandas as pd
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import HORIZON, check_forecast, make_forecast
from vnq_colab.data.panel import FLAT, Panel
from vnq_colab.data.splits import Splits
from vnq_colab.models.learned_opponents import learned_opponents

FAST_DAYS, SLOW_DAYS = 10, 50  # of the crossing averages; the usual ones


def opponents(forecast: pd.DataFrame, panel: Panel, splits: Splits, config: RunConfig | None = None, *,
              start: torch.Tensor | None = None, quiet: bool = False) -> pd.DataFrame:
    """The forecast with its opponents added on the same symbols and days.

    zero: no change. majority: always the direction more frequent in the training days. momentum: the last five days
    go on. crossing: up while the mean price of ten days lies above that of fifty, else down. ridge, trees, and with the
    run's config global, from the weights `start` where they are there: `learned_opponents`. What they need is taken
    from the training and validation days and from the past of each origin.
    """
    tables = [forecast]
    train = splits.train.mask(panel.days)
    for symbol, rows in forecast.groupby("symbol", sort=False):
        dates = pd.DatetimeIndex(rows["date"].unique())
        one = panel.select([symbol])
        returns = one.returns[0]  # [days]
        labels, known = one.labels()
        sums = labels[0].sum(axis=1)[known[0] & train]  # [labelled training days] 5-day log return
        spread = max(float(np.std(sums)), 1e-6) if len(sums) > 1 else 0.05
        moved = sums[np.abs(sums) >= FLAT]
        up_share = float((moved > 0).mean()) if len(moved) else 0.5
        typical = max(float(np.median(np.abs(moved))), FLAT * HORIZON) if len(moved) else FLAT * HORIZON
        at, moves = panel.days.get_indexer(dates), pd.Series(returns).fillna(0.0)
        past = moves.rolling(HORIZON).sum().fillna(0.0).to_numpy()[at]
        price = moves.cumsum()  # log
        cross = (price.rolling(FAST_DAYS).mean() - price.rolling(SLOW_DAYS).mean()).fillna(0.0).to_numpy()[at]
        five_days = {
            "zero": (np.zeros(len(dates)), np.full(len(dates), 0.5)),
            "majority": (np.full(len(dates), typical if up_share >= 0.5 else -typical), np.full(len(dates), up_share)),
            "momentum": (past, _leaning(past)),
            "crossing": (typical * np.sign(np.where(np.abs(cross) > FLAT, cross, 0)), _leaning(cross)),
        }
        for family, (mean, p_up) in five_days.items():
            daily = np.repeat(mean[:, None] / HORIZON, HORIZON, axis=1)  # [origins, horizon]
            tables.append(make_forecast(family, symbol, dates, daily, np.full(len(dates), spread), p_up))
    tables.append(learned_opponents(forecast, panel, splits, config, start=start, quiet=quiet))
    return check_forecast(pd.concat(tables, ignore_index=True))


def _leaning(signal: np.ndarray) -> np.ndarray:
    """A probability for a rule that knows none: a little to the side of its sign."""
    return np.where(signal > FLAT, 0.55, np.where(signal < -FLAT, 0.45, 0.5))
