"""What a verdict is worth: simulated scores whose rank correlation is known go through the market's gates.

Axes: days, forecasters, symbols.
"""

import numpy as np
import pandas as pd
from scipy.special import ndtri

from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.data.panel import FLAT, OPEN, Panel
from vnq_colab.evaluation.basket import best_first
from vnq_colab.evaluation.basket_result import BasketResult, run_baskets
from vnq_colab.evaluation.gates import MOST_P_ORDER, ORIGINAL, market_gates
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.significance import alpha_test, deflated_sharpe, mean_test
from vnq_colab.settings import HORIZON

PLANTED = (0.0, 0.02, 0.04, 0.06)  # rank correlations with tradable returns
N_FORECASTERS = 50  # of each; chosen: 102 stocks over 1,860 days take 5 s
SLOW = (0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99)  # daily autocorrelations that the slow part of a score may have
N_COINS = 10  # of each symbol


def found_share(order: Order, result: BasketResult, panel: Panel, *, n_trials: int = 1,
                n_forecasters: int = N_FORECASTERS, seed: int = 0) -> dict[str, float]:
    """Share of scores with a rank correlation of 0.00, 0.02, 0.04 and 0.06 that the market gates accept.

    They are the returns of these days and noise, both filtered to the autocorrelation of the judged family's score;
    traded by its basket under its rules, and judged like it. The share of 0.00 is the false-pass rate.
    """
    market, random = result.trades.market, np.random.default_rng(seed)
    cut = np.ix_(pd.Index(panel.symbols).get_indexer(market.symbols), panel.days.get_indexer(market.days))
    is_scored = panel.present[cut].T & (market.days <= order.daily.index[-1])[:, None]  # [days, symbols]
    outcome = panel.ahead(HORIZON, OPEN)[cut].T
    judged = market.days.isin(order.daily[order.family].dropna().index)
    known = is_scored & np.vstack([market.can_buy[1:], np.zeros_like(market.can_buy[:1])]) & judged[:, None]
    ranks = centred_ranks(outcome, known := known & np.isfinite(outcome))
    spread = np.sqrt(pd.DataFrame(np.where(known, outcome, np.nan)[judged]).var(axis=1, ddof=0).mean())
    parts = persistence_parts(order.autocorrelation)
    signal = lasting_signal(panel.ahead(1, OPEN)[cut].T, is_scored, parts)
    most = pearson(float(correlations_with(ranks, known, signal[:, None])[judged].mean()))  # of the signal alone
    true = pearson(np.array(PLANTED, "float32"))[:, None, None]
    weight = np.clip(true / max(most, 1e-9), 0, 1).astype("float32")
    noise = persistent([random.standard_normal((len(market.days), n_forecasters, len(market.symbols)), dtype="float32")
                        for _ in parts], parts)
    score = np.sqrt(1 - weight**2) * noise[:, None]  # [days, planted, n, symbols], in place as it is large
    score += weight * signal[:, None, None]
    np.copyto(score, np.nan, where=~is_scored[:, None, None])
    score = score.reshape(len(score), -1, score.shape[-1])
    daily = correlations_with(ranks, known, score)[judged]
    shows = np.flatnonzero(mean_test(daily).p * n_trials <= MOST_P_ORDER)  # the others fail, whatever they earn
    size = (true * np.float32(spread)).reshape(-1, 1)[shows // n_forecasters]
    value = run_baskets(market, score[:, shows], score[:, shows] * size, [result.basket], result.capital)
    returns = value[1:] / value[:-1] - 1
    universe = result.returns["equal_weighted"].reindex(market.days[1:]).fillna(0.0).to_numpy()
    alpha, _, p = alpha_test(returns, universe)
    probability = deflated_sharpe(returns - universe[:, None], n_trials)
    beaten = (alpha > result.random[:, None]).mean(axis=0)
    passed = np.zeros(len(PLANTED))
    for place, which in enumerate(shows):
        gates = market_gates(daily[:, which], len(market.symbols), n_trials, alpha=alpha[place], alpha_p=p[place],
                             beaten=beaten[place], probability=probability[place])
        passed[which // n_forecasters] += all(gate["passed"] for gate in gates)
    return {f"{value:.2f}": float(count / n_forecasters) for value, count in zip(PLANTED, passed, strict=True)}


def persistence_parts(autocorrelation: pd.DataFrame) -> list[tuple[float, float]]:
    """The slow and the fast part of a score, (share of the variance, autocorrelation after a day), of a table.

    `lag` [days], `value`: the first and the last value are met, those between as nearly as can be.
    """
    known = autocorrelation.dropna()
    if known.empty:
        return [(1.0, 0.9)]
    lag, value = (known[name].to_numpy("float64") for name in ("lag", "value"))
    choices = []
    for slow in SLOW:
        part = float(np.clip(value[-1] / slow ** lag[-1], 0, 1))
        fast = float(np.clip((value[0] - part * slow ** lag[0]) / max(1 - part, 1e-9), 0, 0.99)) ** (1 / lag[0])
        miss = ((part * slow**lag + (1 - part) * fast**lag - value) ** 2).sum()
        choices.append((miss, [(part, slow), (1 - part, fast)]))
    return min(choices)[1]


def persistent(shocks: list[np.ndarray], parts: list[tuple[float, float]]) -> np.ndarray:
    """`[days, ...]` for each part -> `[days, ...]` float32: white noise becomes a stationary series of variance 1."""
    total = np.zeros_like(shocks[0], "float32")
    for (part, persistence), shock in zip(parts, shocks, strict=True):
        size = np.sqrt(part * (1 - persistence**2))
        carried = ((np.sqrt(part) - size) * shock[0]).astype("float32")  # as if it had begun long ago
        for day, new in enumerate(shock):  # seven times as fast as scipy.signal.lfilter along the first axis
            value = np.float32(size) * new + carried
            total[day] += value
            carried = np.float32(persistence) * value
    return total


def lasting_signal(next_day: np.ndarray, known: np.ndarray, parts: list[tuple[float, float]]) -> np.ndarray:
    """`[days, symbols]`: a score of variance 1 from the returns of the days to come, the nearest with most weight."""
    coming = normal_scores(next_day, known & np.isfinite(next_day))[::-1]
    signal = persistent([coming] * len(parts), parts)[::-1]
    return signal / max(float(signal[known].std()), 1e-9)


def normal_scores(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`[days, symbols]`: ranks within the day as quantiles of the normal distribution; 0 where not known."""
    ranks = centred_ranks(values, known)
    return np.where(known, ndtri(np.clip((1 + ranks) / 2, 0.005, 0.995)), 0).astype("float32")


def centred_ranks(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`[days, symbols]` float32: ranks within the day, -1 to 1; 0 where not known."""
    return np.nan_to_num(within_day_ranks(np.where(known, values, np.nan).T)).T.astype("float32")


def pearson(rank_correlation: np.ndarray | float) -> np.ndarray:
    """The correlation of a normal pair with that rank correlation. Source: Pearson 1907."""
    return 2 * np.sin(np.pi / 6 * rank_correlation)


def correlations_with(ranks: np.ndarray, known: np.ndarray, score: np.ndarray) -> np.ndarray:
    """`[days, symbols]` centred ranks, `[days, n, symbols]` scores without ties -> `[days, n]`: Spearman's."""
    n, place = known.sum(axis=1), np.arange(score.shape[-1], dtype="float32")
    spread = np.sqrt((n**3 - n) / 12 * (ranks.astype("float64") ** 2).sum(axis=1))
    products = [rank[best_first(np.where(there, -one, np.float32(np.nan)))] @ place
                for rank, there, one in zip(ranks, known, score, strict=True)]
    return np.stack(products) / np.maximum(spread, 1e-9)[:, None]


def original_shares(order: Order, panel: Panel, rules: MarketRules = VN_RULES, *, seed: int = 0) -> dict[str, float]:
    """`coin_pass_share`, `buy_and_hold_pass_share`: of coins and of always-up that the seeds' gates would accept.

    In or out from open to open, a coin for five days a throw, costs paid; the RMSE is that of the zero forecast.
    """
    symbol = pd.Index(panel.symbols).get_indexer(order.symbols["symbol"])
    cut = np.ix_(symbol, panel.days.get_indexer(order.daily.index))
    n_days, random = len(order.daily), np.random.default_rng(seed)
    actual = panel.ahead(HORIZON)[cut].T[:, None]  # [days, 1, symbols]
    returns = np.nan_to_num(np.expm1(panel.ahead(1, OPEN)[cut])).T[:, None]
    moved, rmse = np.abs(actual) >= FLAT, np.sqrt(np.nanmean(actual**2, axis=0))
    throws = random.random((-(-n_days // HORIZON), N_COINS, actual.shape[-1])) < 0.5
    shares = {}
    for name, invested in {"coin": np.repeat(throws, HORIZON, axis=0)[:n_days],
                           "buy_and_hold": np.ones(actual.shape, dtype=bool)}.items():
        change = np.diff(invested.astype("int8"), axis=0, prepend=0)
        cost = (rules.fee + rules.slippage) * np.abs(change) + rules.sale_tax * (change < 0)
        net = invested * returns - cost
        accuracy = ((invested == (actual > 0)) & moved).sum(axis=0) / np.maximum(moved.sum(axis=0), 1)
        passed = ((accuracy > ORIGINAL["accuracy"]) & (rmse < ORIGINAL["rmse"]) & (sharpe(net) > ORIGINAL["sharpe"])
                  & (max_drawdown((1 + net).cumprod(axis=0)) < ORIGINAL["drawdown"]))
        shares[f"{name}_pass_share"] = float(passed.mean())
    return shares
