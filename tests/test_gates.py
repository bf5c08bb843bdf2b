"""Every gate of the market and of a stock passes and fails; what is too good, chosen or short is not accepted."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vnq_colab.errors import CheckpointError, ConfigError
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.gates import DECISIONS, FEWEST_SYMBOLS, Verdict, judge, too_good
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.significance import confidence_set, hac_t, mean_test

DAYS = pd.bdate_range("2022-01-03", periods=600)
PASSED, FAILED = ({"check": "features", "passed": True, "sentence": "No feature knows the future."},
                  {"check": "labels", "passed": False, "sentence": "A label knows the future."})


def order_of(ours=0.08, theirs=0.02, n_days=600, n_symbols=30, **symbols):
    """An Order of two families with those rank correlations, and `n_symbols` stocks; keywords change their columns."""
    noise = np.random.default_rng(0).normal(0, 0.12, (n_days, 2))
    daily = pd.DataFrame(noise - noise.mean(axis=0) + [ours, theirs], DAYS[:n_days], ["ensemble", "ridge"])
    t = {name: hac_t(values) for name, values in daily.items()}
    families = pd.DataFrame({"family": ["ensemble", "ridge"], "period": "all", "n_days": n_days, "close": 0.1,
                             "close_t": 5.0, "open": [ours, theirs], "open_t": t.values(), "positive": 0.7})
    table = pd.DataFrame({"symbol": [f"S{place:02}" for place in range(n_symbols)], "n_days": n_days, "place": 0.08,
                          "place_error": 0.04, "traded_value": 5e9, "locked": 0.02}).assign(**symbols)
    nothing = pd.DataFrame()
    return Order("ensemble", families, families.assign(period="2022", low=0.0, high=0.1), daily, nothing, nothing, 0.01,
                 0.4, nothing, 1.0, 0.1, table)


def symbols_of(order, **changes):
    """The stocks with accuracies and accounts that pass; keywords change columns."""
    return order.symbols.assign(accuracy=0.54, base_rate=0.52, accuracy_low=0.50, accuracy_high=0.58, n_independent=120,
                                rmse_5=0.029, sharpe=1.0, max_drawdown=0.09).assign(**changes)


def basket_of(excess=0.0008, n_days=600, **changes):
    """A basket that pays: about 20 % a year above the universe."""
    random = np.random.default_rng(1)
    universe = random.normal(0.0005, 0.01, n_days)
    noise = random.normal(0, 0.006, n_days)
    returns = pd.DataFrame({"basket": universe + noise - noise.mean() + excess, "equal_weighted": universe},
                           DAYS[:n_days])
    totals = pd.DataFrame({"yearly": [0.4, 0.2], "sharpe": [1.6, 1.0]}, ["basket", "equal_weighted"])
    values = {"basket": Basket(), "capital": 1e9, "alpha": 250 * excess, "alpha_t": 3.5, "alpha_p": 0.001,
              "beaten": 0.99, "returns": returns, "totals": totals, "to_dict": lambda: {"alpha": 250 * excess}}
    return SimpleNamespace(**(values | changes))


def judged(order=None, basket=None, symbols=None, **more):
    order = order_of() if order is None else order
    return judge(order, basket_of() if basket is None else basket, symbols_of(order) if symbols is None else symbols,
                 **more)


def gates_of(found):
    return {gate["gate"]: gate for gate in found["gates"]}


def failed(found):
    return [gate["gate"] for gate in found["gates"] if gate["passed"] is False]


# --- the market


def test_market_is_accepted_where_order_and_basket_pass_all():
    verdict = judged(power={"0.00": 0.0, "0.02": 0.02, "0.04": 0.38, "0.06": 0.92}, run_id="r")
    assert verdict.market["decision"] == "accept" and failed(verdict.market) == []
    assert len(verdict.market["reasons"]) == 6
    assert verdict.market["reasons"][2].startswith("The rank correlation with tradable returns is 0.080, 95%")
    assert gates_of(verdict.market)["order"]["measured"] == pytest.approx(0.08)
    assert {found["decision"] for found in verdict.symbols.values()} == {"accept"}
    assert verdict.summary["decisions"] == {"accept": 30, "review": 0, "reject": 0, "unjudged": 0}
    assert "after costs a basket of 10 earned 40.0% a year, alpha +20.0% (t 3.5). 30 of 30 stocks are accepted. " in (
        verdict.summary["text"])
    assert "accept 38 of 100 simulated forecasts with a rank correlation of 0.04, and 0 of 100 with no" in repr(verdict)


@pytest.mark.parametrize(("gate", "order", "basket", "said"), [
    ("order", {"ours": 0.005}, {}, "The rank correlation with tradable returns is 0.005"),
    ("order", {"ours": -0.08}, {}, "is -0.080"),
    ("basket", {}, {"alpha_p": 0.06}, "alpha of +20.0% a year over the equal-weighted universe, p = 0.06 charged for"),
    ("basket", {}, {"alpha": -0.2, "alpha_p": 0.99}, "alpha of -20.0% a year"),
    ("random_baskets", {}, {"beaten": 0.94}, "It beats 94.0% of random baskets"),
    ("deflated_sharpe", {}, {"returns": basket_of(0.0001).returns}, "The deflated Sharpe ratio of its excess"),
])
def test_market_is_rejected_for_the_one_gate_that_it_fails(gate, order, basket, said):
    verdict = judged(order_of(**order), basket_of(**basket))
    assert verdict.market["decision"] == "reject" and failed(verdict.market) == [gate]
    assert len(verdict.market["reasons"]) == 1 and said in verdict.market["reasons"][0]
    sentences = {reason for found in verdict.symbols.values() for reason in found["reasons"]}
    assert sentences == {"The market is rejected, and no stock is accepted alone."}  # not one market's verdict 30 times
    assert verdict.summary["decisions"]["reject"] == 30


@pytest.mark.parametrize(("order", "said"), [
    ({"n_symbols": FEWEST_SYMBOLS - 1}, "19 stocks are judged (asked: at least 20 judged stocks)."),
    ({"n_days": 499}, "499 test days are judged (asked: at least 500 test days)."),
])
def test_market_with_too_few_stocks_or_days_is_unjudged_and_so_are_its_stocks(order, said):
    verdict = judged(order_of(**order))
    assert verdict.market["decision"] == "unjudged" and verdict.market["reasons"] == [said]
    assert {found["decision"] for found in verdict.symbols.values()} == {"unjudged"}
    assert judged(order_of(n_symbols=20, n_days=500)).market["decision"] == "accept"


@pytest.mark.parametrize("ours", [0.3, -0.3])
def test_gates_that_ask_for_a_t_or_for_numbers_a_year_are_not_measured_on_a_short_span(ours):
    """Twelve days: whatever looks good or bad on them, nothing passes, fails or is too good, and no text says nan."""
    unknown = {"alpha": np.nan, "alpha_p": np.nan, "totals": basket_of().totals.assign(sharpe=np.nan)}
    verdict = judged(order_of(ours, n_days=12, place_error=np.nan), basket_of(n_days=12, beaten=0.1, **unknown),
                     accuracy={"ensemble": 0.8})
    gates = gates_of(verdict.market)
    assert failed(verdict.market) == ["enough_days"] and gates["enough_symbols"]["passed"] and not too_good(verdict)
    assert all(gates[name]["passed"] is None for name in gates if not name.startswith("enough"))
    assert verdict.market["decision"] == "unjudged" and "nan" not in repr(verdict)
    original = judged(order_of(n_days=12), gates="original").symbols["S00"]
    assert original["decision"] == "unjudged" and gates_of(original)["sharpe"]["passed"] is None


def test_order_that_is_the_same_every_day_fails_without_an_interval():
    order = order_of(0.0)
    order.daily["ensemble"] = 0.0
    reason = judged(order).market["reasons"][0]
    assert reason.startswith("The rank correlation with tradable returns is 0.000, p = 1 charged")


def test_market_without_a_basket_is_not_accepted():
    order = order_of()
    found = judge(order, None, symbols_of(order))
    assert found.market["decision"] == "unjudged" and found.summary["basket"] is None
    assert found.market["reasons"][0].startswith("Not measured: a basket's alpha after costs")


@pytest.mark.parametrize(("order", "basket", "more", "said"), [
    ({"ours": 0.5}, {}, {}, "The rank correlation of ensemble is 0.500, too good to be true"),
    ({"theirs": 0.21}, {}, {}, "The rank correlation of ridge is 0.210"),
    ({}, {"totals": basket_of().totals.assign(sharpe=4.1)}, {}, "The basket's Sharpe ratio is 4.1"),
    ({}, {}, {"accuracy": {"ensemble": 0.53, "momentum": 0.66, "zero": np.nan}}, "The accuracy of momentum is 66.0%"),
    ({"ours": 0.005, "theirs": 0.3}, {}, {}, "The rank correlation of ridge is 0.300"),  # outranks a failed gate
])
def test_what_is_too_good_to_be_true_is_for_review_whatever_the_leak_checks_say(order, basket, more, said):
    verdict = judged(order_of(**order), basket_of(**basket), **more)
    assert verdict.market["decision"] == "review" and said in verdict.market["reasons"][0] and too_good(verdict)
    assert {found["decision"] for found in verdict.symbols.values()} == {"review"}
    checked = judged(order_of(**order), basket_of(**basket), leak_checks=[PASSED], **more)
    assert checked.market["decision"] == "review" and "not the provider's data" in checked.market["reasons"][-1]
    leak = judged(order_of(**order), basket_of(**basket), leak_checks=[PASSED, FAILED], **more)
    assert leak.market["decision"] == "review" and FAILED["sentence"] in leak.market["reasons"]


def test_a_failed_leak_check_is_for_review_though_nothing_is_too_good():
    verdict = judged(leak_checks=[FAILED])
    assert verdict.market["decision"] == "review" and verdict.market["reasons"] == [FAILED["sentence"]]
    assert not too_good(judged(accuracy={"ensemble": 0.65}))


def test_a_leak_in_the_data_is_for_review_at_most_and_said_first():
    leak = "volume of a day has a rank correlation of 0.74 with the return of the day after: it knows the future."
    for changes in ({}, {"ours": 0.5}, {"ours": 0.001}):
        verdict = judged(order_of(**changes), data_leaks=[leak])
        assert verdict.market["decision"] == "review" and verdict.market["reasons"][0] == leak
        assert f"The market is for review: {leak}" in repr(verdict) and verdict.summary["data_leaks"] == [leak]
        assert "accept" not in {found["decision"] for found in verdict.symbols.values()}
    assert judged(order_of(n_symbols=5), data_leaks=[leak]).market["reasons"][0] == leak  # unjudged


def test_original_gates_do_not_accept_what_is_too_good_or_leaks():
    order = order_of()
    assert judged(order, gates="original").symbols["S01"]["decision"] == "accept"
    for more in ({"data_leaks": ["A leak."]}, {"accuracy": {"ridge": 0.66}},
                 {"symbols": symbols_of(order, accuracy=0.87)}):
        found = judged(order, gates="original", **more)
        assert {row["decision"] for row in found.symbols.values()} == {"review"}
        assert found.summary["original"]["n_pass"] == 30


def test_opponents_that_are_too_good_are_named_beside_ours():
    verdict = judged(order_of(0.5, 0.3))
    assert verdict.market["reasons"][0].startswith(
        "The rank correlation of ensemble is 0.500 (too high also of ridge), too good to be true")


def test_every_evaluation_of_the_same_days_is_charged():
    alone, many = judged(basket=basket_of(alpha_p=0.02)), judged(basket=basket_of(alpha_p=0.02), n_trials=3)
    assert (alone.market["decision"], many.market["decision"]) == ("accept", "reject")
    assert "p = 0.06 charged for 3 test-set evaluations" in many.market["reasons"][0]
    p = float(mean_test(order_of(0.02).daily["ensemble"]).p)
    assert p < 0.01 < 40 * p and failed(judged(order_of(0.02)).market) == []
    assert "order" in failed(judged(order_of(0.02), n_trials=40).market)
    previous = {"text": "Not worse.", "worse": False}
    assert judged(n_trials=3, previous=previous).summary["previous"] == previous
    assert judged(n_trials=3).summary["evaluations"]["n_trials"] == 3


def test_a_choice_of_stocks_is_for_review_at_most_unless_all_are_measured():
    worse = judged(previous={"text": "Worse than run x.", "worse": True}).market
    assert (worse["decision"], worse["reasons"]) == ("review", ["Worse than run x."])
    chosen = judged(n_universe=102)
    assert chosen.market["decision"] == "review" and "Only 30 of the 102 stocks" in chosen.market["reasons"][-1]
    order = order_of(n_symbols=102)
    part = judged(order, symbols=symbols_of(order).iloc[:25], n_universe=102)
    assert part.market["decision"] == "accept" and len(part.symbols) == 25
    assert judged(order_of(0.001), n_universe=102).market["decision"] == "reject"


# --- stocks


@pytest.mark.parametrize(("changes", "decision", "said"), [
    ({"n_days": 249}, "unjudged", "249 days are scored (asked: at least 250 scored days)."),
    ({"place": -0.3}, "reject", "Its share in the rank correlation, shrunk (empirical Bayes), is -0.2"),
    ({"traded_value": 1.9e9}, "reject", "Median traded value 1.9 bn VND a day (asked: at least 2.0 bn VND a day"),
    ({"locked": 0.11}, "reject", "Not to be bought on 11.0% of the days"),
    ({"place_error": np.nan}, "unjudged", "Not measured: a share in the rank correlation"),
    ({"accuracy": 0.66}, "review", "Accuracy 66.0%, too good to be true"),
])
def test_a_stock_fails_its_own_gate_and_the_others_are_accepted(changes, decision, said):
    order = order_of()
    table = symbols_of(order)
    table.loc[3, list(changes)] = list(changes.values())
    verdict = judged(order, symbols=table)
    assert verdict.symbols["S03"]["decision"] == decision and said in verdict.symbols["S03"]["reasons"][0]
    assert [name for name, found in verdict.symbols.items() if found["decision"] != "accept"] == ["S03"]
    assert too_good(verdict) == (decision == "review")


def test_a_stock_whose_place_is_noise_is_pulled_to_the_others_and_one_that_stands_out_is_not():
    order = order_of()
    table = symbols_of(order)
    table.loc[0, "place"], table.loc[1, "place"] = 0.05, -0.2
    verdict = judged(order, symbols=table)
    assert verdict.symbols["S00"]["decision"] == "accept" and verdict.symbols["S01"]["decision"] == "reject"
    alone = symbols_of(order, place=0.0)
    alone.loc[0, "place"] = 0.05
    assert judged(order, symbols=alone).symbols["S00"]["decision"] == "reject"


def test_the_needed_traded_value_is_that_of_one_place_of_the_basket():
    big = judged(basket=basket_of(capital=1e11))
    assert {found["decision"] for found in big.symbols.values()} == {"reject"}
    assert gates_of(big.symbols["S00"])["traded_value"]["needed"] == pytest.approx(1e11 / 10 / 0.05)


@pytest.mark.parametrize(("changes", "said"), [
    ({"accuracy": 0.52}, "Accuracy 52.0%, below every tier (asked: a 5-day accuracy above 52%"),
    ({"rmse_5": 0.03}, "5-day RMSE 0.0300"), ({"sharpe": 0.8}, "Sharpe ratio 0.80"),
    ({"sharpe": np.nan}, "Sharpe ratio 0.00"), ({"max_drawdown": 0.1}, "Maximum drawdown 10.0%"),
])
def test_original_gates_decide_on_stocks_alone(changes, said):
    order = order_of(0.0)
    table = symbols_of(order)
    table.loc[0, list(changes)] = list(changes.values())
    verdict = judged(order, symbols=table, gates="original", original={"coin_pass_share": 0.01})
    assert verdict.market["decision"] == "reject" and verdict.summary["original"] == {
        "n_pass": 29, "coin_pass_share": 0.01}
    assert verdict.symbols["S00"]["decision"] == "reject" and said in verdict.symbols["S00"]["reasons"][0]
    assert verdict.symbols["S01"]["decision"] == "accept"
    assert "acceptable (asked" not in judged(symbols=symbols_of(order, accuracy=0.57), gates="original").symbols["S01"][
        "reasons"][0] and judged(order).summary["original"]["n_pass"] == 30


# --- the verdict as a value


def test_a_skilled_family_among_noise_is_alone_in_the_confidence_set_and_copies_are_together():
    daily = order_of().daily
    assert confidence_set(daily) == ["ensemble"]
    assert set(confidence_set(daily.assign(copy=daily["ensemble"]))) == {"ensemble", "copy"}
    assert set(confidence_set(order_of(0.02, 0.021).daily)) == {"ensemble", "ridge"}
    assert confidence_set(daily.iloc[:10]) == []
    assert judged().summary["confidence_set"] == ["ensemble"]


def test_verdict_is_exact_to_and_from_json(tmp_path):
    verdict = judged(order_of(locked=np.nan), run_id="r", leak_checks=[PASSED])
    text = json.dumps(verdict.to_dict(), allow_nan=False)
    assert Verdict(**json.loads(text)).to_dict() == verdict.to_dict()
    verdict.save(tmp_path / "verdict.json")
    assert repr(Verdict.load(tmp_path / "verdict.json")) == repr(verdict) and "  market: accept" in repr(verdict)
    assert set(verdict.summary["decisions"]) == set(DECISIONS)
    (tmp_path / "verdict.json").write_text("{")
    with pytest.raises(CheckpointError):
        Verdict.load(tmp_path / "verdict.json")


def test_gates_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match="no gate set 'honst'.*honest"):
        judged(gates="honst")


def test_market_gates_pass_few_orders_without_skill():
    """Persistent scores, the same every day, contrarians and copies: the order gate alone passes at most 2 %."""
    random, n_days, n_symbols = np.random.default_rng(5), 600, 30
    returns = random.normal(0, 0.02, (n_days + 5, n_symbols))
    outcome = sum(returns[step : step + n_days] for step in range(5))
    past = np.concatenate([np.zeros((5, n_symbols)), returns])[:n_days].cumsum(axis=0)
    passed, n = 0, 150
    for one in range(n):
        fixed, noise = random.normal(size=n_symbols), random.normal(size=(n_days, n_symbols))
        scores = {0: noise.cumsum(axis=0), 1: fixed + 0 * noise, 2: -past + noise * random.uniform(0, 0.3)}[one % 3]
        shuffled = outcome[:, random.permutation(n_symbols)]
        ranks = [pd.DataFrame(part).rank(axis=1).to_numpy() for part in (scores, shuffled)]
        around = [part - part.mean(axis=1, keepdims=True) for part in ranks]
        spread = np.sqrt((around[0] ** 2).sum(axis=1) * (around[1] ** 2).sum(axis=1))
        daily = (around[0] * around[1]).sum(axis=1) / spread
        passed += float(mean_test(daily).p) <= 0.01
    assert passed / n <= 0.04


@pytest.mark.parametrize("planted", [0.0, 0.1])
def test_best_of_many_families_passes_only_where_the_spa_test_of_arch_finds_a_superior_one(planted):
    """Hansen's test that no family is better than one without skill, beside our verdict charged for all of them."""
    bootstrap = pytest.importorskip("arch.bootstrap")
    for seed in range(12):
        shocks = np.random.default_rng(seed).normal(0, 0.12 / np.sqrt(5), (604, 9))
        daily = sum(shocks[step : step + 600] for step in range(5))  # neighbours share four of five days
        daily[:, 3] += planted
        test = bootstrap.SPA(-daily[:, 0], -daily[:, 1:], block_size=15, reps=200, bootstrap="stationary", seed=seed)
        test.compute()
        best = daily[:, 1 + daily[:, 1:].mean(axis=0).argmax()]
        order = order_of()
        order = replace(order, daily=pd.DataFrame({"ensemble": best}, DAYS),
                        families=order.families.assign(open=best.mean()))
        accepted = judged(order, n_trials=8).market["decision"] == "accept"
        is_superior = test.pvalues["consistent"] <= 0.05
        assert accepted and is_superior if planted else is_superior or not accepted
