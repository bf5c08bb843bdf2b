"""What a pass is worth: forecasters whose true skill is known go through the gates, on the days that were judged.

Axes: days, forecasters, symbols.
"""

from typing import Any

import numpy as np

from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.panel import FLAT
from vnq_colab.data.synthetic import PERSISTENCE
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.evidence import error_of_noise, mean_with_error, shared_noise, sharpe_lead, skill
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.evaluation.orders import Market, trade
from vnq_colab.evaluation.questions import QUESTIONS, charged, share_that_passes
from vnq_colab.evaluation.significance import cosine_variance, wilson_interval

N_SIMULATED = 1000  # forecasters of each skill, at least
TRUE_SKILLS = (0.01, 0.02, 0.05)  # R² of the 5-day return [fraction]
FEWEST_DAYS = 2 * HORIZON


def pass_rates(result: Backtest, *, n_trials: int = 1, seed: int = 0) -> dict[str, dict[str, Any]]:
    """For each gate set: of about 1,000 forecasters without skill, and with an R² of 1, 2 and 5 %, the share that pass.

    They forecast the symbols and days of the backtest, whole markets of them at a time, trade on it under the same
    rules, and are asked all that does not need opponents. One without skill moves like the others and knows nothing.
    None where the backtest does not know its market. `buy_and_hold_pass_share` takes "always up" through the set.
    """
    n_symbols = len(result.symbols)
    empty = {"n_simulated": 0, "coin_pass_share": None, "buy_and_hold_pass_share": None,
             "power": {f"{true:.2f}": None for true in TRUE_SKILLS}}
    if result.trial is None or len(result.trial.market.days) <= FEWEST_DAYS + HORIZON:
        return {name: dict(empty) for name in QUESTIONS}
    n_markets = -(-N_SIMULATED // n_symbols)
    returns = daily_returns(result.trial.market)
    always_up = np.full((len(returns), 1, n_symbols), 1e-3)
    shares = {"up": _shares(always_up, returns, result, n_trials)}
    for place, true in enumerate((0.0, *TRUE_SKILLS)):
        forecast = forecasters(returns, true, n_markets, np.random.default_rng([seed, place]))
        shares[f"{true:.2f}"] = _shares(forecast, returns, result, n_trials)
    return {name: {"n_simulated": n_markets * n_symbols, "coin_pass_share": shares["0.00"][name],
                   "buy_and_hold_pass_share": shares["up"][name],
                   "power": {true: shares[true][name] for true in empty["power"]}} for name in QUESTIONS}


def _shares(forecast: np.ndarray, returns: np.ndarray, result: Backtest, n_trials: int) -> dict[str, float]:
    """For each gate set the share of forecasters that pass it."""
    table = evidence_of(forecast, returns, result)
    table["q"] = charged(table, n_trials)
    return {name: share_that_passes(table, name) for name in QUESTIONS}


def daily_returns(market: Market) -> np.ndarray:
    """`[days, symbols]`: log return of each day; NaN until a symbol's second price."""
    log = np.log(market.close)
    return np.concatenate([np.full((1, log.shape[1]), np.nan), np.diff(log, axis=0)])


def forecasters(returns: np.ndarray, true_skill: float, n: int, random: np.random.Generator) -> np.ndarray:
    """`[days, symbols] -> [days, n, symbols]`: expected 5-day log returns whose R² with these very returns is given.

    A signal says a little of each return to come, less the later it comes; the rest of it is noise that forgets as
    slowly. A skill of 0 is noise alone, as bold as a skill of 1 %.
    """
    from scipy.signal import lfilter

    fading, actual = ([1.0], [1.0, -PERSISTENCE]), outcomes(returns)
    coming = lfilter(*fading, np.nan_to_num(returns)[:0:-1], axis=0)[::-1][: len(actual)]  # [origins, symbols]
    spread, size = (np.maximum(np.sqrt((part**2).mean(axis=0)), FLAT) for part in (actual, coming))
    fit = np.maximum((coming * actual).mean(axis=0) / (spread * size), 1e-6)
    told = np.minimum(np.sqrt(true_skill) / fit, 1)
    shocks = random.standard_normal((len(actual), n, len(spread)))
    shocks[1:] *= np.sqrt(1 - PERSISTENCE**2)
    signal = told * (coming / size)[:, None] + np.sqrt(1 - told**2) * lfilter(*fading, shocks, axis=0)
    forecast = np.sqrt(true_skill or TRUE_SKILLS[0]) * spread * signal
    return np.concatenate([forecast, np.repeat(forecast[-1:], len(returns) - len(actual), axis=0)])


def outcomes(returns: np.ndarray) -> np.ndarray:
    """`[days, symbols] -> [origins, symbols]`: 5-day log return after each day; one that is not known counts as 0."""
    total = np.concatenate([np.zeros((1, returns.shape[1])), np.nan_to_num(returns).cumsum(axis=0)])
    return total[HORIZON + 1 :] - total[1:-HORIZON]


def evidence_of(forecast: np.ndarray, returns: np.ndarray, result: Backtest) -> dict[str, np.ndarray]:
    """`[days, n, symbols], [days, symbols]` -> a table of evidence `[n, symbols]`, as the gates ask for it."""
    n = forecast.shape[1]
    actual = outcomes(returns)[:, None]  # [origins, 1, symbols]
    n_origins, mean = len(actual), forecast[: len(actual)]
    scored = np.where(np.arange(len(returns) - 1)[:, None, None] < n_origins, forecast[:-1], np.nan)
    found, error = skill(scored, returns[1:, None])
    moved = np.abs(actual) >= FLAT
    accuracy = (((mean > 0) == (actual > 0)) & moved).sum(axis=0) / np.maximum(moved.sum(axis=0), 1)
    windows = np.broadcast_to(moved.sum(axis=0) // HORIZON, accuracy.shape)
    low, high = wilson_interval(accuracy * windows, windows)
    saved = (actual**2 - (mean - actual) ** 2) / np.maximum((actual**2).mean(axis=0), FLAT**2)
    gain, gain_error = mean_with_error(saved)
    together = cosine_variance((saved - gain).sum(axis=-1))[0]
    accounts = account_returns(result, forecast > 0)  # [days, n + 1, symbols], the last one buy-and-hold
    value = np.concatenate([np.ones((1, *accounts.shape[1:])), (1 + accounts).cumprod(axis=0)])[:, :n]
    return {
        "n_independent": windows, "accuracy": accuracy, "accuracy_low": low, "accuracy_high": high,
        "rmse_5": np.sqrt(((mean - actual) ** 2).mean(axis=0)), "skill": found, "skill_error": error,
        "gain_zero": gain, "gain_zero_error": gain_error,
        "gain_zero_shared": shared_noise(together, (gain_error * n_origins) ** 2)[:, None],
        "gain": value[-1] - 1, "sharpe": sharpe(accounts[:, :n]), "max_drawdown": max_drawdown(value),
        **money(accounts[:, :n], accounts[:, n:])}


def account_returns(result: Backtest, wishes: np.ndarray) -> np.ndarray:
    """`[days, n, symbols] -> [days - 1, n + 1, symbols]`: daily returns of own accounts; the last one holds."""
    trial = result.trial
    weight = np.concatenate([wishes, np.ones((len(wishes), 1, wishes.shape[2]))], axis=1)  # share of the account
    value = trade(trial.market, weight, result.rules, result.capital, position=trial.position, record=False).value()
    return value[1:] / value[:-1] - 1


def money(own: np.ndarray, held: np.ndarray) -> dict[str, np.ndarray]:
    """`[days, n, symbols], [days, 1, symbols]` daily returns -> what the gates ask of accounts, `[n, symbols]`.

    `profit`, the mean daily return, and `sharpe_lead` over buy-and-hold, each with `_error` and `_shared`. The days of
    one account are taken as independent.
    """
    found = {}
    for name, (measured, noise) in {"profit": (own.mean(axis=0), own - own.mean(axis=0)),
                                    "sharpe_lead": sharpe_lead(own, held)}.items():
        error, shared = error_of_noise(noise)
        found |= {name: measured, f"{name}_error": error, f"{name}_shared": shared[:, None]}
    return found
