"""Decisions about models whose numbers are written out, and what the gates are worth."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from vnq_colab.data.market import VN_RULES
from vnq_colab.errors import CheckpointError, ConfigError
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.gates import DECISIONS, MIN_WINDOWS, Verdict, judge, what_a_pass_is_worth

GOOD = {"accuracy": 0.62, "base_rate": 0.52, "up_share": 0.52, "rmse_5": 0.049, "n_independent": 100}
PAID = {"return": 0.2, "sharpe": 1.5, "max_drawdown": 0.08, "buy_and_hold_return": 0.1, "buy_and_hold_sharpe": 0.7,
        "buy_and_hold_drawdown": 0.3}


def scores_of(opponent=0.53, zero_rmse=0.05, **symbols):
    """Scores of a model, of `majority` and of `zero`; each keyword is a symbol with what differs from GOOD."""
    rows = []
    for symbol, changes in symbols.items():
        common = {"symbol": symbol, "n_days": 500, "n_directed": 500, "flat_share": 0.0, "accuracy_low": 0.52,
                  "accuracy_high": 0.7, "rmse_1": 0.02, "mae_1": 0.015, "mae_5": 0.04, "correlation": 0.1,
                  "brier": 0.24}
        rows += [common | GOOD | {"family": "stockformer"} | changes,
                 common | GOOD | {"family": "majority", "accuracy": opponent},
                 common | GOOD | {"family": "zero", "accuracy": np.nan, "rmse_5": zero_rmse}]
    return pd.DataFrame(rows)


def result_of(**symbols):
    """A Backtest; each keyword is a symbol with what differs from PAID."""
    table = pd.DataFrame([{"symbol": symbol, "n_trades": 9, "exposure": 0.5} | PAID | changes
                          for symbol, changes in symbols.items()])
    equity = pd.DataFrame({"strategy": [1e8, 1.2e8], "buy_and_hold": [1e8, 1.1e8]},
                          index=pd.bdate_range("2024-01-01", periods=2))
    return Backtest("stockformer", 1e8, VN_RULES, equity, table, pd.DataFrame())


def one(changes=None, account=None, gates="honest", **more):
    """The decision on one symbol, and its gates by name."""
    found = judge(scores_of(AAA=changes or {}, **more), result_of(AAA=account or {}), gates=gates).symbols["AAA"]
    return found, {gate["gate"]: gate for gate in found["gates"]}


def test_honest_gates_accept_a_model_that_passes_all():
    found, gates = one()
    assert found["decision"] == "accept" and all(gate["passed"] for gate in gates.values())
    assert gates["beats_base_rate"] == {
        "gate": "beats_base_rate", "asked": "5-day accuracy above the base rate with an adjusted p of at most 5%",
        "measured": 0.62, "low": 0.52, "high": 0.7, "needed": 0.52, "passed": True}
    p = binom.sf(61, 100, 0.52)
    assert found["reasons"][1] == ("62.0% of the 5-day directions are right (95% interval 52.0% to 70.0%, 100 "
                                   f"windows), more than the base rate of 52.0% (adjusted p = {p:.2g}).")


@pytest.mark.parametrize(("changes", "account", "more", "failed"), [
    ({"accuracy": 0.60}, {}, {}, "beats_base_rate"),  # p = 0.066
    ({}, {}, {"opponent": 0.63}, "beats_opponents"),
    ({}, {}, {"zero_rmse": 0.049}, "beats_zero_forecast"),
    ({}, {"return": -0.01}, {}, "profit_after_costs"),
    ({}, {"buy_and_hold_sharpe": 1.6}, {}, "beats_buy_and_hold"),
])
def test_honest_gates_reject_a_model_for_the_one_gate_it_fails(changes, account, more, failed):
    found, gates = one(changes, account, **more)
    assert found["decision"] == "reject"
    assert [name for name, gate in gates.items() if gate["passed"] is False] == [failed]
    assert len(found["reasons"]) == 1 and any(sign.isdigit() for sign in found["reasons"][0])


@pytest.mark.parametrize(("changes", "account"), [({"accuracy": 0.8}, {}), ({}, {"sharpe": 4.1})])
def test_honest_gates_never_accept_what_is_too_good_to_be_true(changes, account):
    found, _ = one(changes, account)
    assert found["decision"] == "review" and "look for a leak" in found["reasons"][0]


def test_honest_gates_leave_a_short_test_unjudged():
    found, gates = one({"n_independent": MIN_WINDOWS - 1, "accuracy": 0.9})
    assert found["decision"] == "unjudged" and gates["beats_base_rate"]["passed"] is None
    assert found["reasons"] == ["29 independent 5-day windows, 30 are needed."]
    assert one({"n_independent": MIN_WINDOWS, "accuracy": 0.9})[0]["decision"] == "review"


def test_honest_gates_never_accept_without_opponents():
    scores = scores_of(AAA={})
    verdict = judge(scores[scores["family"] == "stockformer"], result_of(AAA={}))
    assert verdict.symbols["AAA"]["decision"] == "unjudged"
    assert verdict.symbols["AAA"]["reasons"] == [
        "Not measured: 5-day accuracy at least that of the best opponent on the same days.",
        "Not measured: 5-day RMSE below that of the zero forecast."]


def test_honest_gates_reject_a_model_that_never_traded():
    found, gates = one(account={"return": 0.0, "sharpe": np.nan})
    assert found["decision"] == "reject" and gates["beats_buy_and_hold"]["measured"] == 0
    assert found["reasons"][1] == "It never traded; buy-and-hold has a Sharpe ratio of 0.70."


def test_a_symbol_without_scores_or_without_an_account_is_unjudged():
    verdict = judge(scores_of(AAA={}, BBB={}), result_of(AAA={}, CCC={}))
    assert {symbol: found["decision"] for symbol, found in verdict.symbols.items()} == {
        "AAA": "accept", "BBB": "unjudged", "CCC": "unjudged"}


def test_one_lucky_symbol_among_many_is_not_enough():
    alone = judge(scores_of(AAA={"accuracy": 0.61}), result_of(AAA={}))
    others = {f"S{place:03}": {"accuracy": 0.5} for place in range(101)}
    crowd = judge(scores_of(AAA={"accuracy": 0.61}, **others), result_of(AAA={}, **{name: {} for name in others}))
    assert alone.symbols["AAA"]["decision"] == "accept" and crowd.symbols["AAA"]["decision"] == "reject"


def test_original_gates_ask_what_the_source_texts_ask():
    found, gates = one({"rmse_5": 0.029}, gates="original")
    assert found["decision"] == "accept" and [gate["needed"] for gate in gates.values()] == [0.52, 0.03, 0.8, 0.1]
    for changes, account in (({"accuracy": 0.52}, {}), ({"rmse_5": 0.03}, {}), ({}, {"sharpe": 0.8}),
                             ({}, {"max_drawdown": 0.1})):
        assert one({"rmse_5": 0.029} | changes, account, gates="original")[0]["decision"] == "reject"


@pytest.mark.parametrize(("accuracy", "tier"), [(0.59, "excellent"), (0.57, "good"), (0.55, "acceptable"),
                                                (0.53, "minimum"), (0.51, "below every tier")])
def test_original_gates_name_the_tier(accuracy, tier):
    found, _ = one({"rmse_5": 0.029 if accuracy > 0.52 else 0.04, "accuracy": accuracy}, gates="original")
    assert f"tier: {tier} (52% minimum" in found["reasons"][0]


def test_original_gates_say_that_the_zero_forecast_meets_the_rmse_of_a_day():
    found, _ = one(gates="original")
    assert found["reasons"] == ["5-day RMSE 0.0490 [log return], asked is less than 0.03; per day (h = 1) it is "
                                "0.0200, where the zero forecast meets 0.03 as well."]


def test_summary_counts_both_gate_sets_and_says_it_in_three_sentences():
    verdict = judge(scores_of(AAA={"accuracy": 0.64}, BBB={"accuracy": 0.5}, CCC={"n_independent": 3}),
                    result_of(AAA={}, BBB={}, CCC={}))
    assert verdict.summary["decisions"] == {"accept": 1, "review": 0, "reject": 1, "unjudged": 1}
    assert verdict.summary["text"] == (
        "1 of 3 models pass the honest gates (0 review, 1 reject, 1 unjudged). 58.7% of the 5-day directions are "
        "right; the base rate is 52.0%, the best opponent (majority) 53.0%. After costs the mean account returned "
        "+20.0%, buy-and-hold +10.0%.")
    honest, original = (verdict.summary["gate_sets"][name] for name in ("honest", "original"))
    assert (honest["n_pass"], original["n_pass"]) == (1, 0) and honest["n_symbols"] == 3


def rows_of(n_symbols, n, base_rate=0.5, **more):
    return pd.DataFrame({"n_independent": [n] * n_symbols, "base_rate": base_rate, "up_share": base_rate,
                         "rmse_5": 0.02, "buy_and_hold_sharpe": 1.0, "buy_and_hold_drawdown": 0.05} | more)


def test_coin_share_of_the_original_gate_equals_the_binomial():
    worth = what_a_pass_is_worth(rows_of(20, 50), "original")
    assert worth["coin_pass_share"] == pytest.approx(binom.sf(26, 50, 0.5), abs=0.01)  # more than 52 % of 50: 27
    assert worth["power"]["0.60"] == pytest.approx(binom.sf(26, 50, 0.6), abs=0.01)


def test_coins_do_not_pass_the_honest_gate_and_one_symbol_has_the_power_of_the_binomial():
    alone = what_a_pass_is_worth(rows_of(1, 100), "honest")
    assert alone["coin_pass_share"] == pytest.approx(binom.sf(58, 100, 0.5), abs=0.02)  # p <= 5 % from 59 of 100 on
    assert alone["power"]["0.60"] == pytest.approx(binom.sf(58, 100, 0.6), abs=0.04)
    many = what_a_pass_is_worth(rows_of(102, 72), "honest")
    assert many["coin_pass_share"] < 0.005 and many["buy_and_hold_pass_share"] == 0
    assert many["power"]["0.55"] < many["power"]["0.58"] < many["power"]["0.60"]


def test_power_needs_enough_windows():
    assert what_a_pass_is_worth(rows_of(3, MIN_WINDOWS - 1), "honest") == {
        "coin_pass_share": None, "buy_and_hold_pass_share": None, "power": {}}
    few, many = (what_a_pass_is_worth(rows_of(10, n), "honest")["power"]["0.58"] for n in (40, 400))
    assert few < 0.5 < many


def test_buy_and_hold_share_takes_always_up_through_the_original_gates():
    rows = rows_of(4, 50, up_share=[0.6, 0.5, 0.6, 0.6], buy_and_hold_drawdown=[0.05, 0.05, 0.3, 0.05])
    assert what_a_pass_is_worth(rows, "original")["buy_and_hold_pass_share"] == 0.5


def test_verdict_survives_the_disk_and_holds_only_json(tmp_path):
    verdict = judge(scores_of(AAA={}, BBB={"n_independent": 0, "accuracy": np.nan, "accuracy_low": np.nan}),
                    result_of(AAA={}, BBB={"sharpe": np.nan}), run_id="20260801T0210_stockformer_3f9a1c")
    verdict.save(tmp_path / "verdict.json")
    assert Verdict.load(tmp_path / "verdict.json") == verdict == Verdict.from_dict(verdict.to_dict())
    plain = json.loads((tmp_path / "verdict.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert list(plain) == ["run_id", "gate_set", "summary", "symbols"]
    assert all(found["decision"] in DECISIONS and found["reasons"] for found in plain["symbols"].values())
    keys = {tuple(gate) for found in plain["symbols"].values() for gate in found["gates"]}
    assert keys == {("gate", "asked", "measured", "low", "high", "needed", "passed")}
    (tmp_path / "verdict.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError):
        Verdict.load(tmp_path / "verdict.json")


def test_verdict_is_the_same_every_time():
    scores, result = scores_of(AAA={}, BBB={}), result_of(AAA={}, BBB={})
    assert judge(scores, result) == judge(scores.sample(frac=1, random_state=0), result)


def test_repr_names_the_accepted():
    text = repr(judge(scores_of(AAA={}, BBB={"accuracy": 0.8}), result_of(AAA={}, BBB={}), run_id="run1"))
    assert text.startswith("Verdict of the honest gates on run1: 1 of 2 models pass")
    assert text.splitlines()[1:] == ["  accept: AAA", "  review: BBB"]


def test_unknown_names_are_refused_in_words():
    scores, result = scores_of(AAA={}), result_of(AAA={})
    with pytest.raises(ConfigError, match=r"no gate set 'honset'. Did you mean 'honest'"):
        judge(scores, result, gates="honset")
    with pytest.raises(ConfigError, match=r"no family 'stockforma'. Did you mean 'stockformer'"):
        judge(scores, result, family="stockforma")
    with pytest.raises(ConfigError, match="the backtest is of 'stockformer', to be judged is 'majority'"):
        judge(scores, result, family="majority")
