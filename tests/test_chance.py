"""Random strategies: what they keep of ours, and what they find."""

import numpy as np
import pandas as pd
import pytest

from tests.tiny import forecast_of
from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.market import MarketRules
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.backtest import Trial, backtest
from vnq_colab.evaluation.chance import _Rotations, _Spells, random_band
from vnq_colab.evaluation.strategies import Strategy

PRICES = synthetic_prices(5, 160, seed=3, signal=0.0)
FREE = MarketRules(fee=0, sale_tax=0, slippage=0)


def forecasts_of(means, days, symbols):
    """A forecast from `means [days, symbols]`."""
    return pd.concat([forecast_of(symbol, days, means[:, place]) for place, symbol in enumerate(symbols)])


def traded(kind="coin", **arguments):
    """A backtest of forecasts that know nothing (coin) or the next open-to-open returns (seer)."""
    table = PRICES.pivot(index="date", columns="symbol", values="close").ffill().bfill()
    days = table.index[80:150]
    means = np.random.default_rng(1).normal(0, 0.02, (len(days), 5))
    if kind == "seer":
        means = np.log(table.shift(-4) / table.shift(-1)).loc[days].to_numpy()
    return backtest(forecasts_of(means, days, list(table.columns)), PRICES, arguments.pop("rules", FREE), **arguments)


def spells_of(wish):
    """Lengths of the spells of being long and of those of being flat, sorted, with the weights of the long ones."""
    starts = np.flatnonzero(np.diff(wish > 0, prepend=~(wish[:1] > 0)))
    lengths = np.diff(starts, append=len(wish))
    return (sorted((length, wish[start]) for length, start in zip(lengths, starts, strict=True) if wish[start] > 0),
            sorted(length for length, start in zip(lengths, starts, strict=True) if not wish[start] > 0))


@pytest.mark.parametrize("strategy", ["long_flat", "volatility"])
def test_spells_keep_number_lengths_and_weights_of_every_symbol(strategy):
    trial = traded(strategy=strategy).trial
    weight, rank = _Spells(trial, 0, 30).take(slice(10, 30))
    assert rank is None and weight.shape == (len(trial.weight), 20, 5)
    for place in range(5):
        ours = trial.weight[:-1, place]
        found = {tuple(weight[:-1, number, place]) for number in range(20)}
        assert len(found) == 20, "all differ"
        for wish in found:
            assert spells_of(np.array(wish)) == spells_of(np.where(ours > 0, _at_start(ours), 0))


def _at_start(wish):
    """The weight of the day that opens each spell, on all days of it."""
    starts = np.maximum.accumulate(np.where(np.diff(wish > 0, prepend=~(wish[:1] > 0)), np.arange(len(wish)), 0))
    return wish[starts]


def test_spells_of_one_kind_stay_as_they_are():
    result = traded()
    always = Trial(result.trial.market, np.ones_like(result.trial.weight), None, 1.0)
    assert (_Spells(always, 0, 8).take(slice(0, 8))[0] == 1).all()


def test_spells_begin_with_either_kind_where_there_are_as_many_of_both():
    result = traded()
    lengths = [5, 20, 15, 20, 15]  # days; the last of all counts no more

    def drawn(wish):
        weight = np.repeat(np.repeat(np.array(wish, "float64"), lengths)[:, None], 5, axis=1)
        trial = Trial(result.trial.market, weight, None, 1.0)
        return _Spells(trial, 0, 100).take(slice(0, 100))[0][:-1]  # [days, strategies, symbols]

    even, odd = drawn([1, 0, 1, 0, 0]), drawn([1, 0, 1, 0, 1])
    assert 0.3 < even[0].mean() < 0.7 and (even.sum(axis=0) == 20).all()
    assert (odd[0] == 1).all() and (odd[-1] == 1).all() and (odd.sum(axis=0) == 34).all()


def test_rotations_move_all_symbols_by_the_same_number_of_days():
    trial = traded(strategy=Strategy("top_k", k=2)).trial
    weight, rank = _Rotations(trial, 4, 6).take(slice(0, 6))
    n_days = len(trial.weight) - 1
    for number in range(6):
        steps = [step for step in range(HORIZON, n_days - HORIZON + 1) if np.array_equal(
            np.roll(trial.weight[:-1], step, axis=0), weight[:-1, number])]
        assert len(steps) >= 1 and np.array_equal(np.roll(trial.rank[:-1], steps[0], axis=0), rank[:-1, number])


def test_band_holds_its_share_of_the_random_strategies_and_counts_those_beaten():
    result = traded()
    chance = random_band(result, n_strategies=200, seed=5)
    end = chance.equity.iloc[-1] / result.capital - 1
    assert list(chance.equity.columns) == ["p5", "p50", "p95", "strategy"] and len(chance.returns) == 200
    assert (chance.equity.iloc[0] == result.capital).all() and chance.equity.index.equals(result.equity.index)
    assert [np.mean(chance.returns < end[name]) for name in ("p5", "p50", "p95")] == pytest.approx([0.05, 0.5, 0.95])
    assert (chance.equity["p5"] <= chance.equity["p50"]).all() and (chance.equity["p50"] <= chance.equity["p95"]).all()
    ours = result.totals().loc["strategy", "return"]
    assert chance.beaten == np.mean(chance.returns < ours)
    assert list(chance.symbols["symbol"]) == list(result.symbols["symbol"])
    assert list(chance.symbols["return"]) == list(result.symbols["return"])
    assert repr(chance).startswith("Chance: 200 random strategies (spells, seed 5) return ")


def test_each_random_strategy_equals_a_backtest_of_the_same_wishes():
    rules = MarketRules()
    result = traded("coin", rules=rules, capital=2e7, position=0.7, traded_share=0.3)
    chance = random_band(result, n_strategies=60, seed=2)
    weight, _ = _Spells(result.trial, 2, 60).take(slice(55, 56))
    names = list(result.symbols["symbol"])
    again = backtest(forecasts_of(np.where(weight[:, 0] > 0, 0.01, -0.01), result.equity.index, names), PRICES, rules,
                     capital=2e7, position=0.7, traded_share=0.3)
    value = again.equity["strategy"][result.equity.index[-1]]
    assert chance.returns[55] == pytest.approx(value / 2e7 - 1, abs=1e-12)


def test_a_seer_beats_the_random_strategies_and_a_coin_does_not():
    seer, coin = random_band(traded("seer"), n_strategies=200), random_band(traded(), n_strategies=200)
    assert seer.beaten == 1 and seer.symbols["beaten"].mean() > 0.85 > coin.symbols["beaten"].mean()
    assert 0.02 < coin.beaten < 0.98
    assert random_band(traded("seer"), n_strategies=60, kind="rotations").beaten == 1
    assert random_band(traded("seer", strategy=Strategy("top_k", k=2)), n_strategies=60).beaten > 0.95


def test_who_never_trades_beats_nobody():
    days = pd.DatetimeIndex(np.unique(PRICES["date"]))[80:100]
    names = sorted(PRICES["symbol"].unique())
    chance = random_band(backtest(forecasts_of(np.zeros((20, 5)), days, names), PRICES), n_strategies=20)
    assert chance.beaten == 0 and (chance.returns == 0).all() and (chance.symbols["beaten"] == 0).all()


def test_the_seed_decides_and_one_symbol_alone_is_drawn_as_in_company():
    result = traded()
    one, same, other = (random_band(result, n_strategies=60, seed=seed) for seed in (1, 1, 2))
    assert one.returns.tolist() == same.returns.tolist() != other.returns.tolist()
    table = PRICES.pivot(index="date", columns="symbol", values="close")
    symbol, means = table.columns[2], np.random.default_rng(1).normal(0, 0.02, (70, 5))
    alone = backtest(forecasts_of(means[:, [2]], table.index[80:150], [symbol]), PRICES, FREE)
    found = random_band(alone, n_strategies=60, seed=1).symbols.iloc[0]
    assert found.to_dict() == one.symbols.iloc[2].to_dict()


def test_a_common_account_is_rotated_and_has_no_bands_of_symbols():
    result = traded(strategy=Strategy("top_k", k=2))
    chance = random_band(result, n_strategies=20)
    assert chance.kind == "rotations" and chance.symbols.empty and "rotations" in repr(chance)
    with pytest.raises(ConfigError, match="kind = 'spells' would wish more symbols at once"):
        random_band(result, kind="spells")


def test_bad_arguments_are_named():
    result = traded()
    with pytest.raises(ConfigError, match="there is no kind 'spels' of random strategies. Did you mean 'spells'"):
        random_band(result, kind="spels")
    with pytest.raises(ConfigError, match="n_strategies = 0: must be a whole number in 1 to 100,000"):
        random_band(result, n_strategies=0)
    bare = result.__class__("stockformer", 1e8, FREE, result.equity, result.symbols, result.orders)
    with pytest.raises(ConfigError, match="does not know its market"):
        random_band(bare)
