"""Opponents that learn: a ridge regression per symbol, boosted trees and one network over all symbols.

They see the same features, the same training and validation days as our networks, and nothing else.
"""

from itertools import islice

import numpy as np
import pandas as pd
import torch

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import HORIZON, make_forecast
from vnq_colab.data.panel import Panel, Scaler, fit_scaler
from vnq_colab.data.splits import Splits
from vnq_colab.models.global_network import forecast_daily

RIDGE_PENALTIES = (1e2, 1e3, 1e4, 1e5, 1e6)  # of standardised features; the last one is nearly the mean
TREES, LEAVES, LEAF_ROWS, LEARNING_RATE = 150, 15, 200, 0.05  # chosen: small trees, for a signal this weak
TREES_AT_ONCE = 10  # between two looks at the validation days; without such days that many, no more
LEAST_SCALE = 1e-6
Marks = dict[str, np.ndarray]  # "train", "valid": labelled days; "asked": days to answer; [symbols, days] bool


def learned_opponents(forecast: pd.DataFrame, panel: Panel, splits: Splits, config: RunConfig | None = None, *,
                      start: torch.Tensor | None = None, quiet: bool = False) -> pd.DataFrame:
    """Forecasts of "ridge" and "trees", and with a config of "global", on the symbols and days of `forecast`.

    `ridge`: per symbol, all features to the five daily returns; the penalty is the best of five on validation days.
    `trees`: gradient boosting over all symbols at once to the 5-day return in units of each symbol's own spread; as
    many trees as were best on validation days. `global`: one network over all symbols, of the size that `config` gives
    each symbol, with the weights `start` `[parameters]` where it was trained before. `scale` is the spread of the
    errors on validation days, and `p_up` that of a normal distribution.
    Source: Hoerl & Kennard 1970; Friedman 2001.
    """
    import sklearn.ensemble  # noqa: F401  loaded here, so that its threads too are limited below
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    symbols = tuple(forecast["symbol"].unique())
    chosen = panel.select(symbols)
    labels, known = chosen.labels()  # [symbols, days, horizon]
    marks = {part: known & getattr(splits, part).mask(panel.days) for part in ("train", "valid")}
    dates = {symbol: pd.DatetimeIndex(rows.unique()) for symbol, rows in forecast.groupby("symbol")["date"]}
    asked = [np.isin(np.arange(len(panel.days)), panel.days.get_indexer(dates[symbol])) for symbol in symbols]
    marks["asked"] = marks["valid"] | np.array(asked)
    scaler = fit_scaler(chosen, pd.Timestamp(splits.train.first), pd.Timestamp(splits.train.last))
    # chosen: one thread, EXPERIMENTS.md, 2026-11-21; beside another process two of them wait for each other
    with threadpool_limits(1):
        found = {"ridge": _ridge(chosen, labels, marks, scaler), "trees": _trees(chosen, labels, marks, scaler)}
    if config is not None:
        asked = marks["asked"].any(axis=0)
        found["global"] = forecast_daily(chosen, splits, config, asked, start=start, quiet=quiet)
    return pd.concat([_forecast(family, symbol, dates[symbol], daily[row], labels[row], marks["valid"][row], panel.days)
                      for family, daily in found.items() for row, symbol in enumerate(symbols)], ignore_index=True)


def _forecast(family: str, symbol: str, dates: pd.DatetimeIndex, daily: np.ndarray, labels: np.ndarray,
              valid: np.ndarray, days: pd.DatetimeIndex) -> pd.DataFrame:
    from scipy.special import ndtr

    errors = (labels - daily)[valid].sum(axis=1)  # [valid days] of the 5-day sum
    scale = max(float(np.sqrt((errors**2).mean())), LEAST_SCALE) if len(errors) else 0.05
    rows = daily[days.get_indexer(dates)]  # [origins, horizon]
    return make_forecast(family, symbol, dates, rows, np.full(len(rows), scale), ndtr(rows.sum(axis=1) / scale))


def _ridge(panel: Panel, labels: np.ndarray, marks: Marks, scaler: Scaler) -> np.ndarray:
    """`[symbols, days, horizon]` daily log returns; 0 for a symbol without training days."""
    scaled = scaler.scale(panel.values, panel.present)
    found = np.zeros(labels.shape)
    for row, (features, target) in enumerate(zip(scaled, labels, strict=True)):
        train, valid, asked = (marks[part][row] for part in ("train", "valid", "asked"))
        if not train.any():
            continue
        x, y = features.astype("float64"), target.astype("float64")
        middle, level = x[train].mean(axis=0), y[train].mean(axis=0)
        x -= middle
        # One decomposition for all penalties: X'X = V diag(s) V', so the weights are V diag(1 / (s + penalty)) V'X'Y.
        size, axes = np.linalg.eigh(x[train].T @ x[train])  # [features], [features, features]
        along = axes.T @ (x[train].T @ (y[train] - level))  # [features, horizon]
        weights = [axes @ (along / (size[:, None] + penalty)) for penalty in RIDGE_PENALTIES]
        losses = [((x[valid] @ weight + level - y[valid]) ** 2).mean() for weight in weights] if valid.any() else [0.0]
        found[row, asked] = x[asked] @ weights[int(np.argmin(losses))] + level
    return found


def _trees(panel: Panel, labels: np.ndarray, marks: Marks, scaler: Scaler) -> np.ndarray:
    """`[symbols, days, horizon]` daily log returns: a fifth of the 5-day return each."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    train, valid, asked = (marks[part] & panel.present for part in ("train", "valid", "asked"))
    if not train.any():
        return np.zeros(labels.shape)
    y = labels.sum(axis=2) / scaler.target[:, None]  # [symbols, days]
    model = HistGradientBoostingRegressor(
        learning_rate=LEARNING_RATE, max_iter=TREES, max_leaf_nodes=LEAVES, early_stopping=False, random_state=0,
        min_samples_leaf=min(LEAF_ROWS, max(1, int(train.sum()) // 20)))
    model.fit(panel.values[train], y[train])
    best, least = TREES_AT_ONCE, np.inf
    staged = model.staged_predict(panel.values[valid]) if valid.any() else ()
    for number, predicted in enumerate(staged, 1):
        loss = ((predicted - y[valid]) ** 2).mean()
        if number % TREES_AT_ONCE == 0 and loss < least:
            best, least = number, loss
    found = np.zeros(y.shape)
    if asked.any():
        found[asked] = next(islice(model.staged_predict(panel.values[asked]), best - 1, None))
    found *= scaler.target[:, None] / HORIZON
    return np.repeat(found[:, :, None], HORIZON, axis=2)
