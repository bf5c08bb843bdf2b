"""Made-up orders: they have the rank correlation and the persistence asked for, and the gates find what pays."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from tests.tiny import panel_of
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.panel import OPEN, build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.evaluation import power
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.basket_result import evaluate_basket
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.metrics import with_outcomes
from vnq_colab.evaluation.order import buyable, measure_order

LASTING = pd.DataFrame({"lag": [1, 5, 20], "value": [0.68, 0.37, 0.17]})


@pytest.fixture(scope="module")
def measured():
    """(order, basket, panel) of scores without skill that last, on 30 random walks over 700 days."""
    panel = build_panel(prices := synthetic_prices(30, 1000, seed=5, signal=0.0))
    random, days = np.random.default_rng(0), panel.days[250:-8]
    parts = power.persistence_parts(LASTING)
    score = power.persistent([random.standard_normal((len(days), 30)) for _ in parts], parts)
    there = panel.present[:, 250:-8].T
    day, symbol = np.nonzero(there)
    forecast = pd.DataFrame({
        "family": "trees", "symbol": np.asarray(panel.symbols, dtype=object)[symbol], "date": days[day],
        "score": score[there], "edge": 0.02 * score[there], "mean": 0.0, "scale": 0.05, "p_up": 0.5})
    could_buy = buyable(panel, MarketData.of(prices, VN_RULES))
    order = measure_order(with_outcomes(forecast, panel), panel, prices, "trees", could_buy)
    return order, evaluate_basket(forecast, prices, basket=Basket(5, 12), n_random=100), panel


def test_a_filtered_score_lasts_as_long_as_asked():
    parts = power.persistence_parts(LASTING)
    assert sum(share for share, _ in parts) == pytest.approx(1)
    random = np.random.default_rng(0)
    score = power.persistent([random.standard_normal((600, 500)) for _ in parts], parts)
    assert score[:50].var() == pytest.approx(1, abs=0.05) and score.var() == pytest.approx(1, abs=0.05)
    found = [(score[lag:] * score[:-lag]).mean() for lag in LASTING["lag"]]
    assert found == pytest.approx(LASTING["value"].to_list(), abs=0.04)


@pytest.mark.parametrize("table", [LASTING.iloc[:0], LASTING.assign(value=np.nan), LASTING.assign(value=0.0),
                                   LASTING.assign(value=1.0), LASTING.assign(value=-0.2)])
def test_any_persistence_gives_a_score_of_variance_one(table):
    parts = power.persistence_parts(table)
    assert sum(share for share, _ in parts) == pytest.approx(1) and all(0 <= left < 1 for _, left in parts)


def test_rank_correlations_equal_those_of_scipy_over_the_known_stocks():
    random = np.random.default_rng(1)
    outcome, known = random.normal(size=(6, 20)), random.random((6, 20)) < 0.7
    known[5] = False
    score = random.normal(size=(6, 3, 20)).astype("float32")
    ranks = power.centred_ranks(np.where(known, outcome, np.nan), known)
    found = power.correlations_with(ranks, known, score)
    for day in range(5):
        for one in range(3):
            theirs = spearmanr(score[day, one, known[day]], outcome[day, known[day]]).statistic
            assert found[day, one] == pytest.approx(theirs, abs=1e-6)
    assert (found[5] == 0).all()


def test_planted_orders_have_their_rank_correlation_and_more_is_found_of_more(measured, monkeypatch):
    order, basket, panel = measured
    seen, judge = [], power.market_gates

    def spy(daily, *rest, **numbers):
        seen.append((daily.mean(), numbers["alpha"]))
        return judge(daily, *rest, **numbers)

    monkeypatch.setattr(power, "market_gates", spy)
    monkeypatch.setattr(power, "PLANTED", (0.0, 0.06, 0.15, 0.3))
    found = power.found_share(order, basket, panel, n_forecasters=20)
    assert list(found) == ["0.00", "0.06", "0.15", "0.30"] and found["0.00"] == 0 and found["0.30"] == 1
    assert list(found.values()) == sorted(found.values())
    strongest = np.array([pair for pair in seen if pair[0] > 0.22])
    assert len(strongest) == 20 and strongest[:, 0].mean() == pytest.approx(0.3, abs=0.01)
    assert np.median([alpha for mean, alpha in seen if 0.1 < mean < 0.2]) < np.median(strongest[:, 1])
    assert power.found_share(order, basket, panel, n_forecasters=20) == found  # seeded


def test_evaluations_of_the_same_days_cost_power(measured):
    order, basket, panel = measured
    alone, many = (power.found_share(order, basket, panel, n_trials=n, n_forecasters=10) for n in (1, 10**9))
    assert alone["0.06"] >= many["0.06"] and set(many.values()) == {0.0}


def test_original_gates_pass_coins_where_nothing_moves_much_and_holders_where_all_rises():
    random = np.random.default_rng(2)
    symbols = [f"S{place:02}" for place in range(30)]
    days = pd.bdate_range("2020-01-01", periods=400)

    def shares(returns):
        panel = panel_of(returns, symbols, days, opens=np.zeros_like(returns))
        order = type("O", (), {"symbols": pd.DataFrame({"symbol": symbols}),
                               "daily": pd.DataFrame(0.0, days[:390], ["a"])})
        assert np.isfinite(panel.ahead(1, OPEN)[:, :390]).all()
        return power.original_shares(order, panel)

    wild, calm = random.normal(0, 0.03, (30, 400)), random.normal(0.002, 0.004, (30, 400))
    assert shares(wild) == {"coin_pass_share": 0.0, "buy_and_hold_pass_share": 0.0}
    rising = shares(calm)
    assert rising["buy_and_hold_pass_share"] > 0.9 and 0 <= rising["coin_pass_share"] < 0.5
