"""Opponents that learn, from scikit-learn: a ridge regression per symbol, and boosted trees over all symbols.

They see the same features, the same training and validation days as our networks, and nothing else.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON, make_forecast
from vnq_colab.data.panel import Panel, Scaler, fit_scaler
from vnq_colab.data.splits import Splits

RIDGE_PENALTIES = (1e2, 1e3, 1e4, 1e5, 1e6)  # of standardised features; the last one is nearly the mean
TREES, LEAVES, LEAF_ROWS, LEARNING_RATE = 150, 15, 200, 0.05  # chosen: small trees, for a signal this weak
LEAST_SCALE = 1e-6
Marks = dict[str, np.ndarray]  # "train", "valid": [symbols, days] bool, labelled days


def learned_opponents(forecast: pd.DataFrame, panel: Panel, splits: Splits) -> pd.DataFrame:
    """Forecasts of "ridge" and "trees" on the symbols and days of `forecast`.

    `ridge`: per symbol, all features to the five daily returns; the penalty is the best of five on validation days.
    `trees`: gradient boosting over all symbols at once to the 5-day return in units of each symbol's own spread; as
    many trees as were best on validation days. `scale` is the spread of the errors on validation days, and `p_up` that
    of a normal distribution. Source: Hoerl & Kennard 1970; Friedman 2001.
    """
    symbols = tuple(forecast["symbol"].unique())
    chosen = panel.select(list(symbols))
    labels, known = chosen.labels()  # [symbols, days, horizon]
    marks = {part: known & getattr(splits, part).mask(panel.days) for part in ("train", "valid")}
    scaler = fit_scaler(chosen, pd.Timestamp(splits.train.first), pd.Timestamp(splits.train.last))
    found = {"ridge": _ridge(chosen, labels, marks, scaler), "trees": _trees(chosen, labels, marks, scaler)}
    tables = []
    for family, daily in found.items():
        for row, symbol in enumerate(symbols):
            dates = pd.DatetimeIndex(forecast.loc[forecast["symbol"] == symbol, "date"].unique())
            tables.append(_forecast(family, symbol, dates, daily[row], labels[row], marks["valid"][row], panel.days))
    return pd.concat(tables, ignore_index=True)


def _forecast(family: str, symbol: str, dates: pd.DatetimeIndex, daily: np.ndarray, labels: np.ndarray,
              valid: np.ndarray, days: pd.DatetimeIndex) -> pd.DataFrame:
    from scipy.special import ndtr

    errors = (labels - daily)[valid].sum(axis=1)  # [valid days] of the 5-day sum
    scale = max(float(np.sqrt((errors**2).mean())), LEAST_SCALE) if len(errors) else 0.05
    rows = daily[days.get_indexer(dates)]  # [origins, horizon]
    return make_forecast(family, symbol, dates, rows, np.full(len(rows), scale), ndtr(rows.sum(axis=1) / scale))


def _ridge(panel: Panel, labels: np.ndarray, marks: Marks, scaler: Scaler) -> np.ndarray:
    """`[symbols, days, horizon]` daily log returns; 0 for a symbol without training days."""
    from sklearn.linear_model import Ridge

    scaled = scaler.scale(panel.values, panel.present)
    found = np.zeros(labels.shape)
    for row, (x, y) in enumerate(zip(scaled, labels, strict=True)):
        train, valid = marks["train"][row], marks["valid"][row]
        if not train.any():
            continue
        models = [Ridge(penalty).fit(x[train], y[train]) for penalty in RIDGE_PENALTIES]
        losses = [((model.predict(x[valid]) - y[valid]) ** 2).mean() for model in models] if valid.any() else [0.0]
        found[row] = models[int(np.argmin(losses))].predict(x)
    return found


def _trees(panel: Panel, labels: np.ndarray, marks: Marks, scaler: Scaler) -> np.ndarray:
    """`[symbols, days, horizon]` daily log returns: a fifth of the 5-day return each."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    if not marks["train"].any():
        return np.zeros(labels.shape)
    y = labels.sum(axis=2) / scaler.target[:, None]  # [symbols, days]
    model = HistGradientBoostingRegressor(
        learning_rate=LEARNING_RATE, max_iter=TREES, max_leaf_nodes=LEAVES, early_stopping=False, random_state=0,
        min_samples_leaf=min(LEAF_ROWS, max(1, int(marks["train"].sum()) // 20)))
    model.fit(panel.values[marks["train"]], y[marks["train"]])
    rows = panel.values[panel.present]
    best, least = np.zeros(len(rows)), np.inf
    is_valid = marks["valid"][panel.present]
    for predicted in _staged(model, rows):
        loss = ((predicted[is_valid] - y[marks["valid"]]) ** 2).mean() if is_valid.any() else -1.0
        if loss < least:
            best, least = predicted, loss
    found = np.zeros(y.shape)
    found[panel.present] = best
    found *= scaler.target[:, None] / HORIZON
    return np.repeat(found[:, :, None], HORIZON, axis=2)


def _staged(model, rows: np.ndarray) -> Iterator[np.ndarray]:
    """What the model says after every tenth tree."""
    for number, predicted in enumerate(model.staged_predict(rows), 1):
        if number % 10 == 0 or number == model.n_iter_:
            yield predicted
