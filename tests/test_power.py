"""Forecasters whose true skill is known: they have the skill asked for, and the gates find it as they should."""

import numpy as np
import pandas as pd
import pytest

from tests.tiny import forecast_of
from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.panel import build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.evaluation import power
from vnq_colab.evaluation.backtest import backtest
from vnq_colab.evaluation.gates import collect
from vnq_colab.evaluation.metrics import score
from vnq_colab.evaluation.power import daily_returns, evidence_of, forecasters, outcomes, pass_rates


def always_up(prices, n_days):
    """A forecast of the last days that have an outcome: always up."""
    days = np.sort(prices["date"].unique())[-n_days - HORIZON : -HORIZON]
    parts = []
    for symbol, rows in prices[prices["date"].isin(days)].groupby("symbol"):
        parts.append(forecast_of(symbol, pd.DatetimeIndex(rows["date"]), 1e-3))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def walk():
    """(prices, panel, backtest) of always up on 20 random walks over 600 days."""
    prices = synthetic_prices(20, 1000, seed=5, signal=0.0)
    return prices, build_panel(prices), backtest(always_up(prices, 600), prices)


def r_squared(forecast, actual):
    """`[days, n, symbols], [origins, symbols] -> [n, symbols]`: share of the squared outcomes that is explained."""
    return 1 - ((forecast[: len(actual)] - actual[:, None]) ** 2).mean(axis=0) / (actual**2).mean(axis=0)


def test_outcomes_are_sums_of_the_next_five_returns():
    returns = np.arange(12.0)[:, None]
    assert outcomes(returns)[:, 0] == pytest.approx([sum(range(day + 1, day + 6)) for day in range(7)])
    returns[3] = np.nan
    assert outcomes(returns)[1, 0] == 2 + 4 + 5 + 6


@pytest.mark.parametrize("true", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("kind", ["random walk", "fat tails and calm years"])
def test_a_simulated_forecaster_has_the_skill_asked_for(true, kind):
    random = np.random.default_rng(0)
    returns = 0.02 * random.standard_normal((1500, 8))
    if kind != "random walk":
        returns = 0.012 * random.standard_t(4, (1500, 8)) * np.exp(0.5 * np.sin(np.arange(1500) / 60))[:, None]
        returns[:200, 0] = np.nan  # not yet listed
    forecast = forecasters(returns, true, 60, np.random.default_rng(1))
    actual = outcomes(returns)
    assert forecast.shape == (1500, 60, 8)
    assert r_squared(forecast, actual).mean() == pytest.approx(true, abs=0.004)
    correlation = [np.corrcoef(forecast[: len(actual), one, symbol], actual[:, symbol])[0, 1]
                   for one in range(60) for symbol in range(8)]
    assert np.mean(correlation) == pytest.approx(np.sqrt(true), rel=0.1)
    assert np.quantile(correlation, 0.95) < np.sqrt(true) + 0.12  # as a sample of so many days spreads


def test_a_forecaster_without_skill_is_as_bold_as_one_and_knows_nothing():
    returns = 0.02 * np.random.default_rng(0).standard_normal((1500, 8))
    coin, skilled = (forecasters(returns, true, 60, np.random.default_rng(1)) for true in (0.0, 0.01))
    assert coin.std() == pytest.approx(skilled.std(), rel=0.1)
    correlation = [np.corrcoef(coin[:-5, one, 0], outcomes(returns)[:, 0])[0, 1] for one in range(60)]
    assert abs(np.mean(correlation)) < 0.02


def test_the_evidence_of_a_simulated_forecaster_is_that_of_a_forecast(walk):
    """A simulated forecaster, written down as a Forecast, has the same numbers through score and backtest."""
    prices, panel, result = walk
    returns = daily_returns(result.trial.market)
    simulated = forecasters(returns, 0.05, 1, np.random.default_rng(0))
    days, tables = result.trial.market.days, []
    for place, symbol in enumerate(result.trial.market.symbols):
        listed = days[:600].intersection(pd.DatetimeIndex(prices.loc[prices["symbol"] == symbol, "date"]))
        mean = simulated[days.get_indexer(listed), 0, place]
        for family, share in (("stockformer", 1.0), ("zero", 0.0)):
            tables.append(forecast_of(symbol, listed, share * mean, family=family))
    forecast = pd.concat(tables, ignore_index=True)
    long = collect(score(forecast, panel), backtest(forecast, prices, family="stockformer"), "stockformer")
    found = evidence_of(simulated, returns, result)
    table = {name: np.broadcast_to(values, (1, 20))[0] for name, values in found.items()}
    whole = (long["n_days"] == 600).to_numpy()  # neither listed late nor halted
    assert whole.sum() > 4
    for name in ("accuracy", "n_independent", "rmse_5", "gain_zero", "gain_zero_error"):
        assert table[name][whole] == pytest.approx(long.loc[whole, name].to_numpy("float64"), rel=1e-4), name
    for name in ("sharpe", "gain", "max_drawdown", "profit", "profit_error", "sharpe_lead", "sharpe_lead_error"):
        assert table[name][whole] == pytest.approx(long.loc[whole, name].to_numpy("float64"), rel=1e-6, abs=1e-9), name
    for name in ("profit_shared", "sharpe_lead_shared"):
        assert table[name][0] == pytest.approx(long[name].iloc[0], abs=0.03)
    assert table["skill"][whole] == pytest.approx(long.loc[whole, "skill"].to_numpy(), abs=0.03)  # but for the drift


def test_coins_do_not_pass_and_the_more_they_know_the_more_pass(walk):
    rates = pass_rates(walk[2])
    assert list(rates) == ["honest", "original"]
    honest = rates["honest"]
    assert honest["n_simulated"] == 1000 and honest["coin_pass_share"] <= 0.01
    assert honest["coin_pass_share"] < honest["power"]["0.01"] < honest["power"]["0.02"] < honest["power"]["0.05"]
    assert honest["power"]["0.05"] > 0.6 and honest["buy_and_hold_pass_share"] == 0


def test_more_days_have_more_power(walk):
    prices, _, long = walk
    short = backtest(always_up(prices, 200), prices)
    few, many = (pass_rates(result)["honest"]["power"]["0.05"] for result in (short, long))
    assert few < 0.5 < many


def test_looks_at_the_days_cost_power(walk):
    once, often = (pass_rates(walk[2], n_trials=n)["honest"]["power"]["0.02"] for n in (1, 50))
    assert often < once - 0.05


def test_buy_and_hold_passes_the_original_gates_in_a_good_year_and_never_the_honest_ones():
    days = pd.bdate_range("2024-01-01", periods=320)
    random, tables = np.random.default_rng(0), []
    for place in range(6):
        close = 20_000 * np.exp(np.cumsum(random.normal(0.0015, 0.008, 320)))
        tables.append(pd.DataFrame({"symbol": f"S{place}", "date": days, "open": close, "high": close, "low": close,
                                    "close": close, "volume": 10_000, "exchange": "HOSE"}))
    prices = pd.concat(tables, ignore_index=True)
    rates = pass_rates(backtest(always_up(prices, 250), prices))
    assert rates["original"]["buy_and_hold_pass_share"] > 0.6 and rates["honest"]["buy_and_hold_pass_share"] == 0
    assert rates["original"]["coin_pass_share"] > 3 * rates["honest"]["coin_pass_share"]


def test_pass_rates_are_the_same_every_time_and_other_seeds_say_the_same(walk):
    first, again, other = (pass_rates(walk[2], seed=seed)["honest"] for seed in (0, 0, 1))
    assert first == again and other["power"]["0.02"] == pytest.approx(first["power"]["0.02"], abs=0.06)


def test_without_a_market_or_with_few_days_nothing_is_simulated(walk):
    prices, _, result = walk
    for found in (pass_rates(backtest(always_up(prices, 8), prices)),
                  pass_rates(type(result)(**{**vars(result), "trial": None}))):
        assert set(found) == {"honest", "original"}
        for worth in found.values():
            assert worth == {"n_simulated": 0, "coin_pass_share": None, "buy_and_hold_pass_share": None,
                             "power": {f"{true:.2f}": None for true in power.TRUE_SKILLS}}
