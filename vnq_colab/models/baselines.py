"""Opponents: forecasts that anybody can make, on exactly the rows of ours."""

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import Labels, rank_correlation
from vnq_colab.data.panel import CLOSE, FLAT, Panel
from vnq_colab.data.splits import Splits
from vnq_colab.settings import HORIZON

FAST_DAYS, SLOW_DAYS = 10, 50  # of the crossing averages; the usual ones
RIDGE_PENALTIES = (1e2, 1e3, 1e4, 1e5, 1e6)  # of standardised features; the last one is nearly the mean
NEAR_HALF = 0.05  # a rule without a probability gets 1/2 and so much in the direction of its sign


def opponents(panel: Panel, labels: Labels, folds: list[Splits], symbols: tuple[str, ...]) -> pd.DataFrame:
    """`fold, part` ("valid", "test") and scores of the opponents on these symbols and all days of the folds.

    zero: no order at all. majority: always the direction more frequent in the training days. momentum: the last five
    days go on. reversal: they turn. crossing: up while the mean price of ten days lies above that of fifty. ridge: a
    linear regression of all stocks' features to their labels, as in Hoerl & Kennard 1970.
    """
    rows = panel.rows(symbols)
    there, tables = panel.present[rows], []
    past, cross = _trend(panel.prices[rows, :, CLOSE], there)
    rules = {"momentum": past, "reversal": -past, "crossing": cross, "zero": np.zeros(there.shape)}
    ridge = _Ridge(panel, labels)
    ahead = panel.ahead()[rows]
    for fold, splits in enumerate(folds):
        train = splits.train.mask(panel.days)
        moves = np.where(train & (np.abs(ahead) >= FLAT), ahead, np.nan)
        known = np.isfinite(moves).sum(axis=1, keepdims=True)
        up = np.where(known > 0, (moves > 0).sum(axis=1, keepdims=True) / np.maximum(known, 1), 0.5)
        typical = np.nanmedian(np.abs(moves)) if known.any() else FLAT
        forecasts = {}
        for name, signal in rules.items():
            sign = np.sign(np.where(np.abs(signal) > FLAT, signal, 0))
            forecasts[name] = {"score": signal, "mean": typical * sign, "p_up": 0.5 + NEAR_HALF * sign}
        majority = {"score": up, "mean": np.where(up >= 0.5, typical, -typical), "p_up": up}
        forecasts["majority"] = {name: np.broadcast_to(values, there.shape) for name, values in majority.items()}
        forecasts["ridge"] = {"score": ridge.fit(train, splits.valid.mask(panel.days))[rows]}
        for part in ("valid", "test"):
            symbol, day = np.nonzero(there & getattr(splits, part).mask(panel.days))
            keys = {"symbol": pd.Categorical.from_codes(symbol, list(symbols)), "date": panel.days[day]}
            tables += [pd.DataFrame({"family": name, **keys, **{key: column[symbol, day] for key, column in
                                                                values.items()}, "fold": fold, "part": part})
                       for name, values in forecasts.items()]
    return pd.concat(tables, ignore_index=True)


def _trend(close: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[symbols, days]` twice: log return of a symbol's last five own days, and of its fast over its slow average."""
    past, cross = np.zeros(there.shape), np.zeros(there.shape)
    for row, present in enumerate(there):
        own = pd.Series(np.log(close[row, present]))
        past[row, present] = (own - own.shift(HORIZON)).fillna(0.0)
        cross[row, present] = (own.rolling(FAST_DAYS).mean() - own.rolling(SLOW_DAYS).mean()).fillna(0.0)
    return past, cross


class _Ridge:
    """One linear regression of all stocks, for growing sets of training days: a day is summed up once."""

    def __init__(self, panel: Panel, labels: Labels):
        self._values, self._known, self._truth = panel.values, labels.known, labels.values.mean(axis=2)
        n_days, n_features = panel.values.shape[1:]
        self._squares = np.zeros((n_days, n_features + 1, n_features + 2))
        for day in range(n_days):
            rows = self._known[:, day]
            x = np.column_stack([np.ones(rows.sum()), panel.values[rows, day]]).astype("float64")
            self._squares[day] = x.T @ np.column_stack([x, self._truth[rows, day]])

    def fit(self, train: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """`[stocks, days]` scores, with the penalty whose order is best on the validation days."""
        total = self._squares[train].sum(axis=0)
        count, sums, products, target = total[0, 0], total[0, 1:-1], total[1:, 1:-1], total[1:, -1]
        mean = sums / max(count, 1)
        spread = np.sqrt(np.maximum(np.diag(products) / max(count, 1) - mean ** 2, 1e-12))
        square = (products - count * np.outer(mean, mean)) / np.outer(spread, spread)
        right = (target - mean * total[0, -1]) / spread
        truth, best = np.where(self._known & valid, self._truth, np.nan), (-np.inf, np.zeros(len(mean)))
        days = np.flatnonzero(valid)
        for penalty in RIDGE_PENALTIES:
            weight = np.linalg.solve(square + penalty * np.eye(len(mean)), right) / spread
            scores = np.where(np.isfinite(truth[:, days]), self._values[:, days] @ weight.astype("float32"), np.nan)
            skill = rank_correlation(scores, truth[:, days])
            if skill > best[0]:
                best = skill, weight
        return (self._values @ best[1].astype("float32")).astype("float64")
