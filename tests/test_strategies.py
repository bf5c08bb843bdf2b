"""Wishes of every strategy, by hand."""

import numpy as np
import pandas as pd
import pytest

from tests.tiny import forecast_of
from vnq_colab.data.forecast import HORIZON
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.strategies import Strategy, as_strategy, wishes

DAYS = pd.bdate_range("2024-01-01", periods=10)


def forecasts_of(means, p_up=None, scale=0.05):
    """A forecast from `means`, {symbol: a 5-day mean or None by day}."""
    parts = []
    for symbol, series in means.items():
        known = [day for day, mean in enumerate(series) if mean is not None]
        found = np.array([series[day] for day in known], "float64")
        chance = np.full(len(known), 0.5) if p_up is None else np.array([p_up[symbol][day] for day in known])
        parts.append(forecast_of(symbol, DAYS[known], found, scale, chance))
    return pd.concat(parts, ignore_index=True)


def wished(strategy, forecast, n_days=4):
    """`[days][symbols]` weights and ranks."""
    weight, rank = wishes(strategy, forecast, DAYS[:n_days], forecast["symbol"].unique())
    return weight.tolist(), None if rank is None else rank.tolist()


def test_long_flat_is_long_above_zero_and_a_day_without_a_forecast_keeps_the_wish():
    forecast = forecasts_of({"AAA": [0.01, 0.0, None, 0.02], "BBB": [None, 0.01, None, -0.01]})
    assert wished(Strategy(), forecast) == ([[1, 0], [0, 1], [0, 1], [1, 0]], None)


def test_threshold_asks_for_a_probability_above_it_and_not_for_the_mean():
    forecast = forecasts_of({"AAA": [-0.01, 0.01, 0.01, 0.01]}, {"AAA": [0.58, 0.55, 0.551, 0.4]})
    assert wished(Strategy(threshold=0.55), forecast)[0] == [[1], [0], [1], [0]]


def test_buy_and_hold_wishes_everything_always():
    assert wished(Strategy("buy_and_hold"), forecasts_of({"AAA": [None, -0.01], "BBB": [0.01]}), 3) == (
        [[1, 1], [1, 1], [1, 1]], None)


def test_volatility_takes_the_smaller_a_part_the_wider_the_forecast():
    forecast = forecasts_of({"AAA": [0.01, -0.01, 0.01, None]}, scale=0.04)
    part = 0.2 / (0.04 * np.sqrt(50))  # a year has 50 times 5 days
    assert part < 1 and wished(Strategy("volatility"), forecast)[0] == [[pytest.approx(part)], [0.0],
                                                                        [pytest.approx(part)], [pytest.approx(part)]]
    assert wished(Strategy("volatility", volatility=0.5), forecast)[0][0] == [1.0], "never more than the account"


def test_top_k_takes_the_highest_of_those_that_are_expected_to_rise():
    forecast = forecasts_of({"AAA": [0.03, -0.01, 0.01, 0.02], "BBB": [0.02, -0.02, 0.01, 0.03],
                            "CCC": [0.01, 0.02, 0.01, 0.04]})
    weight, rank = wished(Strategy("top_k", k=2), forecast)
    assert weight == [[0.5, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]]  # equal ones by name
    assert rank[0] == [0, 1, 2] and rank[1][2] == 0 and rank[3] == [2, 1, 0]


def test_top_k_forgets_a_symbol_without_a_forecast_after_the_horizon():
    forecast = forecasts_of({"AAA": [0.03] + [None] * 9, "BBB": [0.02] * 10})
    weight, _ = wished(Strategy("top_k", k=1), forecast, 10)
    assert [row.index(1.0) for row in weight] == [0] * (1 + HORIZON) + [1] * (9 - HORIZON)


@pytest.mark.parametrize("name", ["long_flat", "top_k", "volatility"])
def test_wishes_of_a_day_do_not_know_the_days_after_it(name):
    random = np.random.default_rng(0)
    forecast = forecasts_of({symbol: random.normal(0, 0.02, 10) for symbol in ("AAA", "BBB", "CCC", "DDD")})
    later = forecast.assign(mean=np.where(forecast["date"] > DAYS[5], -forecast["mean"], forecast["mean"]))
    weight, other = (wishes(Strategy(name, k=2), table, DAYS, np.array(["AAA", "BBB", "CCC", "DDD"]))[0]
                     for table in (forecast, later))
    assert weight[:6].tolist() == other[:6].tolist() and weight[6:].tolist() != other[6:].tolist()
    assert weight.min() >= 0 and weight.sum(axis=1).max() <= (1 + 1e-12 if name == "top_k" else 4)


def test_strategy_is_a_name_or_a_strategy():
    assert as_strategy("top_k") == Strategy("top_k") and as_strategy(Strategy(k=3)).k == 3
    assert Strategy("top_k").is_common and not Strategy("volatility").is_common


@pytest.mark.parametrize("arguments, message", [
    ({"name": "top_q"}, r"there is no strategy 'top_q'. Did you mean 'top_k'\?"),
    ({"name": "martingale"}, r"there is no strategy 'martingale'. Known: long_flat, top_k, volatility, buy_and_hold."),
    ({"threshold": 55}, r"threshold = 55: must lie between 0 and 1"),
    ({"threshold": float("nan")}, r"threshold = nan"),
    ({"threshold": "0.55"}, r"threshold = '0.55': .* or be None for the sign of the mean"),
    ({"k": 0}, r"k = 0: must be a whole number of symbols"), ({"k": 2.5}, r"k = 2.5"),
    ({"volatility": 0}, r"volatility = 0: must be positive"), ({"volatility": float("nan")}, r"volatility = nan"),
])
def test_strategies_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Strategy(**arguments)
