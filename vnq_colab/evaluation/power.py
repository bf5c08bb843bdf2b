"""What a verdict is worth: orders whose rank correlation is known go through the gates, on the days that were judged.

Axes: days, forecasters, symbols.
"""

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.data.panel import FLAT, OPEN, Panel
from vnq_colab.evaluation.basket import best_first
from vnq_colab.evaluation.basket_result import BasketResult, run_baskets
from vnq_colab.evaluation.gates import MOST_P_ORDER, ORIGINAL, market_gates
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.significance import alpha_test, deflated_sharpe, mean_test
from vnq_colab.evaluation.within_day import ranks_of, share

PLANTED = (0.0, 0.02, 0.04, 0.06)  # rank correlations with what can be traded
N_FORECASTERS = 50  # of each; chosen: 102 stocks over 1,860 days take 5 s
AT_ONCE = 50  # forecasters of each in memory
SLOW = (0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)  # from day to day, what the slow part of a score may be
N_COINS = 10  # of each symbol


def found_share(order: Order, result: BasketResult, panel: Panel, rules: MarketRules = VN_RULES, *, n_trials: int = 1,
                n_forecasters: int = N_FORECASTERS, seed: int = 0) -> dict[str, float]:
    """Share of orders with a rank correlation of 0.00, 0.02, 0.04 and 0.06 that the market gates accept.

    Their scores are made of the very returns of these days and of noise, both of which last as long as the judged
    family's score; their edges are what a calibration would say. They are traded by its basket under its rules, and
    judged like it. The share of 0.00 is the false-pass rate.
    """
    market, random = result.market, np.random.default_rng(seed)
    symbol, day = pd.Index(panel.symbols).get_indexer(market.symbols), panel.days.get_indexer(market.days)
    cut = np.ix_(symbol, day)
    asked = panel.present[cut].T & (market.days <= order.daily.index[-1])[:, None]  # [days, symbols]
    outcome, tomorrow = (panel.ahead(horizon, OPEN)[cut].T for horizon in (HORIZON, 1))
    could_buy = np.concatenate([market.can_buy[1:], np.zeros_like(market.can_buy[:1])])
    judged = market.days.isin(order.daily[order.family].dropna().index)
    known = asked & could_buy & np.isfinite(outcome) & judged[:, None]
    ranks, size = _ranks(outcome, known), float(np.sqrt(share((outcome.T - share(outcome.T, known.T))**2, known.T)[
        judged].mean()))
    parts = lasting_parts(order.autocorrelation)
    coming = normal_scores(tomorrow, asked & np.isfinite(tomorrow))[::-1]
    signal = filtered([coming] * len(parts), parts)[::-1]
    signal /= max(float(signal[asked].std()), 1e-9)
    most = _pearson(float(correlations_with(ranks, known, signal[:, None])[judged].mean()))  # of the signal alone
    true = _pearson(np.array(PLANTED, "float32"))[:, None, None]
    own = np.clip(true / max(most, 1e-9), 0, 1).astype("float32")
    universe = result.returns["equal_weighted"].reindex(market.days[1:]).fillna(0.0).to_numpy()
    passed = np.zeros(len(PLANTED))
    for first in range(0, n_forecasters, AT_ONCE):
        n = min(AT_ONCE, n_forecasters - first)
        noise = filtered([random.standard_normal((len(day), n, len(symbol)), dtype="float32") for _ in parts], parts)
        score = np.sqrt(1 - own**2) * noise[:, None]  # [days, planted, n, symbols]
        score += own * signal[:, None, None]
        np.copyto(score, np.nan, where=~asked[:, None, None])
        score = score.reshape(len(day), -1, len(symbol))
        daily = correlations_with(ranks, known, score)[judged]
        shows = np.flatnonzero(mean_test(daily).p * n_trials <= MOST_P_ORDER)  # the others fail, whatever they earn
        score = score[:, shows]
        edge = score * (true * np.float32(size)).reshape(-1, 1)[shows // n]
        value = run_baskets(market, score, edge, result.basket, rules, result.capital)
        returns = value[1:] / value[:-1] - 1
        alpha, _, p = alpha_test(returns, universe)
        probability = deflated_sharpe(returns - universe[:, None], n_trials)
        beaten = (alpha > result.random[:, None]).mean(axis=0)
        for place, which in enumerate(shows):
            gates = market_gates(daily[:, which], len(symbol), n_trials, alpha=alpha[place], alpha_p=p[place],
                                 beaten=beaten[place], probability=probability[place])
            passed[which // n] += all(gate.passed for gate in gates)
    return {f"{value:.2f}": float(count / n_forecasters) for value, count in zip(PLANTED, passed, strict=True)}


def lasting_parts(autocorrelation: pd.DataFrame) -> list[tuple[float, float]]:
    """The slow and the fast part of a score, (share of the variance, what of it is left a day later), from the table
    `lag` [days], `value`: the first and the last value are met, those between as nearly as can be."""
    known = autocorrelation.dropna()
    if known.empty:
        return [(1.0, 0.9)]
    lag, value = (known[name].to_numpy("float64") for name in ("lag", "value"))
    found = []
    for slow in SLOW:
        part = float(np.clip(value[-1] / slow ** lag[-1], 0, 1))
        fast = float(np.clip((value[0] - part * slow ** lag[0]) / max(1 - part, 1e-9), 0, 0.99)) ** (1 / lag[0])
        miss = ((part * slow**lag + (1 - part) * fast**lag - value) ** 2).sum()
        found.append((miss, [(part, slow), (1 - part, fast)]))
    return min(found)[1]


def filtered(shocks: list[np.ndarray], parts: list[tuple[float, float]]) -> np.ndarray:
    """`[days, ...]` for each part -> `[days, ...]` float32: shocks of variance 1 become a series that lasts so long."""
    total = np.zeros_like(shocks[0], "float32")
    for (part, persistence), shock in zip(parts, shocks, strict=True):
        size = np.sqrt(part * (1 - persistence**2))
        left = ((np.sqrt(part) - size) * shock[0]).astype("float32")  # as if it had begun long ago
        for day, new in enumerate(shock):
            value = np.float32(size) * new + left
            total[day] += value
            left = np.float32(persistence) * value
    return total


def normal_scores(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`[days, symbols]`: ranks within the day as quantiles of the normal distribution; 0 where not known."""
    from scipy.special import ndtri

    ranks = _ranks(values, known)
    return np.where(known, ndtri(np.clip((1 + ranks) / 2, 0.005, 0.995)), 0).astype("float32")


def _ranks(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    return ranks_of(values.T, known.T).T.astype("float32")


def _pearson(rank_correlation: np.ndarray | float) -> np.ndarray:
    """The correlation of a normal pair with that rank correlation. Source: Pearson 1907."""
    return 2 * np.sin(np.pi / 6 * rank_correlation)


def correlations_with(ranks: np.ndarray, known: np.ndarray, score: np.ndarray) -> np.ndarray:
    """`[days, symbols]` ranks of outcomes, mean 0, 0 where not known; `[days, n, symbols]` scores -> `[days, n]`.

    Spearman's, over the known symbols, of scores without ties.
    """
    n, place = known.sum(axis=1), np.arange(score.shape[-1], dtype="float32")
    spread = np.sqrt((n**3 - n) / 12 * (ranks.astype("float64") ** 2).sum(axis=1))
    found = [rank[best_first(np.where(there, -one, np.float32(np.nan)))] @ place
             for rank, there, one in zip(ranks, known, score, strict=True)]
    return np.stack(found) / np.maximum(spread, 1e-9)[:, None]


def original_shares(order: Order, panel: Panel, rules: MarketRules = VN_RULES, *, seed: int = 0) -> dict[str, float]:
    """`coin_pass_share`, `buy_and_hold_pass_share`: of coins and of always-up that the seeds' gates would accept.

    On the judged symbols and days, in or out from the next open to the open after, for five days a throw, costs paid; a
    forecast that is next to nothing has the RMSE of zero.
    """
    symbol, day = (pd.Index(panel.symbols).get_indexer(order.symbols["symbol"]),
                   panel.days.get_indexer(order.daily.index))
    cut, random = np.ix_(symbol, day), np.random.default_rng(seed)
    actual = panel.ahead(HORIZON)[cut].T[:, None]  # [days, 1, symbols]
    returns = np.nan_to_num(np.expm1(panel.ahead(1, OPEN)[cut])).T[:, None]
    moved, up = np.abs(actual) >= FLAT, actual > 0
    rmse = np.sqrt(np.nanmean(actual**2, axis=0))
    shape = (-(-len(day) // HORIZON), N_COINS, len(symbol))
    throws = {"coin": np.repeat(random.random(shape) < 0.5, HORIZON, axis=0)[: len(day)],
              "buy_and_hold": np.ones((len(day), 1, len(symbol)), dtype=bool)}
    shares = {}
    for name, invested in throws.items():
        change = np.diff(invested.astype("int8"), axis=0, prepend=0)
        cost = (rules.fee + rules.slippage) * np.abs(change) + rules.sale_tax * (change < 0)
        net = invested * returns - cost
        accuracy = ((invested == up) & moved).sum(axis=0) / np.maximum(moved.sum(axis=0), 1)
        passed = ((accuracy > ORIGINAL["accuracy"]) & (rmse < ORIGINAL["rmse"]) & (sharpe(net) > ORIGINAL["sharpe"])
                  & (max_drawdown((1 + net).cumprod(axis=0)) < ORIGINAL["drawdown"]))
        shares[f"{name}_pass_share"] = float(passed.mean())
    return shares
