"""Decisions about symbols whose numbers are written out, and verdicts on a market whose future is known."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from tests.tiny import forecast_of
from vnq_colab.data.panel import build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import CheckpointError, ConfigError, DataError
from vnq_colab.evaluation.backtest import backtest
from vnq_colab.evaluation.gates import DECISIONS, Verdict, collect, decide, judge, too_good
from vnq_colab.evaluation.metrics import score
from vnq_colab.evaluation.questions import MIN_WINDOWS, charged

GOOD = {
    "n_independent": 100, "accuracy": 0.58, "accuracy_low": 0.48, "accuracy_high": 0.67, "base_rate": 0.52,
    "rmse_day": 0.02, "rmse_5": 0.029, "skill": 0.2, "skill_error": 0.05, "sharpe": 1.5, "gain": 0.2,
    "max_drawdown": 0.08, "buy_and_hold_sharpe": 0.7, "buy_and_hold_drawdown": 0.3, "gain_zero": 0.03,
    "gain_ridge": 0.01, "gain_trees": -0.001, "gain_majority": 0.2, "lead_majority": 0.05, "lead_momentum": 0.06,
    "lead_crossing": 0.07, "profit": 0.001, "sharpe_lead": 0.8}
ERRORS = {"gain_zero": 0.01, "gain_ridge": 0.01, "gain_trees": 0.01, "gain_majority": 0.01, "lead_majority": 0.02,
          "lead_momentum": 0.02, "lead_crossing": 0.02, "profit": 0.0005, "sharpe_lead": 0.5}
PASSED, FAILED = ({"check": "features", "passed": True, "sentence": "No feature knows the future."},
                  {"check": "scaler", "passed": False, "sentence": "The scaler knows the test days."})


def table_of(n_trials=1, **symbols):
    """A table of evidence; each keyword is a symbol with what differs from GOOD."""
    rows = [{"symbol": symbol} | GOOD | {f"{name}_error": error for name, error in ERRORS.items()}
            | {f"{name}_shared": 0.0 for name in ERRORS} | changes for symbol, changes in symbols.items()]
    table = pd.DataFrame(rows)
    table["q"] = charged(table, n_trials)
    return table


def one(changes=None, gates="honest", **more):
    """The decision on one symbol, and its gates by name."""
    found = decide(table_of(AAA=changes or {}), gates, **more)["AAA"]
    return found, {gate["gate"]: gate for gate in found["gates"]}


def failed(gates):
    return [name for name, gate in gates.items() if gate["passed"] is False]


def test_honest_gates_accept_a_model_that_passes_all():
    found, gates = one()
    assert found["decision"] == "accept" and all(gate["passed"] for gate in gates.values())
    assert gates["shows_skill"] == {
        "gate": "shows_skill",
        "asked": "a correlation of forecast and outcome above 0 with an adjusted p of at most 5%",
        "measured": 0.2, "low": pytest.approx(0.102, abs=1e-3), "high": pytest.approx(0.298, abs=1e-3), "needed": 0.0,
        "passed": True}
    assert found["reasons"] == [
        "100 independent 5-day windows, 30 are needed.",
        "When it expects more than usual, the price does more than usual: correlation 0.20 (95% interval 0.10 to 0.30, "
        "adjusted p = 3.2e-05).",
        "Its squared error lies 3.0% below that of the zero forecast; noise between symbols taken out, it saves +3.0% "
        "(95% interval +1.0% to +5.0%).",
        "58.0% of the 5-day directions are right, the base rate is 52.0%; noise between symbols taken out, its "
        "smallest lead over a simple rule is +5.0%, over majority (95% interval +1.1% to +8.9%).",
        "No learner has a clearly smaller squared error; that of trees lies 0.1% of the mean squared outcome below its "
        "own (95% interval -2.1% to +1.9%).",
        "Return +20.0% after costs; noise between symbols taken out, +25.0% a year (95% interval +0.5% to +49.5%).",
        "Sharpe ratio 1.50, buy-and-hold has 0.70; noise between symbols taken out, the lead is +0.80 (95% interval "
        "-0.18 to +1.78)."]


@pytest.mark.parametrize(("gate", "changes", "said"), [
    ("shows_skill", {"skill": 0.07}, "does not clearly do more than usual: correlation 0.07"),
    ("shows_skill", {"skill": 0.0, "skill_error": np.nan}, "It always expects the same, or a few bold days"),
    ("beats_zero_forecast", {"gain_zero": -0.01}, "lies 1.0% above that of the zero forecast"),
    ("beats_simple_rules", {"lead_momentum": -0.02}, "smallest lead over a simple rule is -2.0%, over momentum"),
    ("beats_simple_rules", {"lead_majority": 0.0, "lead_majority_error": 0.0}, "is +0.0%, over majority"),
    ("no_learner_is_better", {"gain_trees": -0.04}, "The squared error of trees is clearly smaller, by 4.0% of the"),
    ("profit_after_costs", {"profit": -1e-4}, "+20.0% after costs; noise between symbols taken out, -2.5% a year"),
    ("beats_buy_and_hold", {"sharpe_lead": -0.1}, "the lead is -0.10"),
    ("beats_buy_and_hold", {"sharpe": np.nan, "sharpe_lead": 0.0, "sharpe_lead_error": 0.0}, "It never traded, buy"),
])
def test_honest_gates_reject_a_model_for_the_one_gate_it_fails(gate, changes, said):
    found, gates = one(changes)
    assert found["decision"] == "reject" and failed(gates) == [gate]
    assert len(found["reasons"]) == 1 and said in found["reasons"][0]


@pytest.mark.parametrize("changes", [
    {"gain_trees": -0.018},  # two errors below, but two learners are asked: luck of 2.5 % each
    {"gain_ridge": 0.0, "gain_ridge_error": 0.0},  # the very same forecast
])
def test_a_learner_must_be_clearly_better(changes):
    assert one(changes)[0]["decision"] == "accept"


def test_one_with_a_bad_bill_is_rejected_however_good_the_others_are():
    others = {f"S{place:03}": {} for place in range(101)}
    for name, bad in (("gain_zero", -0.03), ("lead_crossing", -0.06), ("gain_ridge", -0.08), ("profit", -0.0015),
                      ("sharpe_lead", -1.5)):
        found = decide(table_of(AAA={name: bad}, **others), "honest")
        assert found["AAA"]["decision"] == "reject" and found["S000"]["decision"] == "accept", name


def test_a_little_bad_luck_beside_skilled_symbols_is_forgiven():
    others = {f"S{place:03}": {} for place in range(101)}
    found = decide(table_of(AAA={"profit": -2e-4, "sharpe_lead": -0.2}, **others), "honest")
    assert found["AAA"]["decision"] == "accept"
    assert one({"profit": -2e-4, "sharpe_lead": -0.2})[0]["decision"] == "reject"


def test_one_outstanding_symbol_passes_beside_a_hundred_that_know_nothing():
    poor = {"skill": 0.0, "gain_zero": -0.05, "lead_majority": -0.02, "profit": -0.001, "sharpe_lead": -1.0}
    others = {f"S{place:03}": poor for place in range(101)}
    found = decide(table_of(AAA={}, **others), "honest")
    assert found["AAA"]["decision"] == "accept" and found["S000"]["decision"] == "reject"


def test_one_lucky_symbol_among_many_is_not_enough():
    lucky, others = {"skill": 0.11}, {f"S{place:03}": {"skill": 0.0} for place in range(101)}
    assert decide(table_of(AAA=lucky), "honest")["AAA"]["decision"] == "accept"
    assert decide(table_of(AAA=lucky, **others), "honest")["AAA"]["decision"] == "reject"


def test_every_look_at_the_same_days_is_charged():
    one_look, ten = (decide(table_of(n_trials, AAA={"skill": 0.12}), "honest")["AAA"] for n_trials in (1, 10))
    assert (one_look["decision"], ten["decision"]) == ("accept", "reject")
    assert "adjusted p = 0.0082" in one_look["reasons"][1] and "adjusted p = 0.082" in ten["reasons"][0]


def test_honest_gates_leave_a_short_test_unjudged():
    found, gates = one({"n_independent": MIN_WINDOWS - 1})
    assert found["decision"] == "unjudged" and gates["shows_skill"]["passed"] is None
    assert found["reasons"] == ["29 independent 5-day windows, 30 are needed."]
    assert one({"n_independent": MIN_WINDOWS})[0]["decision"] == "accept"


def test_honest_gates_never_accept_without_opponents():
    table = table_of(AAA={}, BBB={"skill": 0.0})
    table = table[[name for name in table.columns if not name.startswith(("gain_", "lead_"))]]
    found = decide(table, "honest")
    assert found["AAA"]["decision"] == "unjudged" and found["BBB"]["decision"] == "reject"
    assert [reason[:40] for reason in found["AAA"]["reasons"]] == [
        "Not measured: a smaller squared 5-day er", "Not measured: more right 5-day direction",
        "Not measured: no ridge, boosted trees or"]


@pytest.mark.parametrize(("changes", "word"), [({"accuracy": 0.66}, "Accuracy 66.0%"), ({"sharpe": 4.1}, "ratio 4.10")])
def test_too_good_to_be_true_waits_for_the_leak_checks(changes, word):
    for checks in (None, []):
        found, _ = one(changes, leak_checks=checks)
        assert found["decision"] == "review" and len(found["reasons"]) == 1
        assert word in found["reasons"][0] and "look for a leak" in found["reasons"][0]
    found, _ = one(changes, leak_checks=[PASSED, PASSED])
    assert found["decision"] == "accept" and found["reasons"][-1] == "All 2 leak checks pass."
    found, _ = one(changes, leak_checks=[PASSED, FAILED])
    assert found["decision"] == "review" and found["reasons"][-1] == "The scaler knows the test days."


def test_a_leak_blocks_what_looks_true_as_well():
    found, _ = one(leak_checks=[PASSED, FAILED])
    assert found["decision"] == "review" and found["reasons"] == ["The scaler knows the test days."]
    assert one({"skill": 0.0}, leak_checks=[FAILED])[0]["decision"] == "reject"
    assert one(leak_checks=[PASSED])[0]["reasons"] == one()[0]["reasons"]


@pytest.mark.parametrize("gates", ["honest", "original"])
def test_the_old_model_stays_where_the_new_one_is_much_less_right(gates):
    kept = {"AAA": {"old_accuracy": 0.66, "new_accuracy": 0.58, "old_decision": "accept"}}
    found, _ = one(gates=gates, kept=kept)
    assert found["decision"] == "review" and found["reasons"][0] == (
        "The model of the last accepted run stays, for a person to look at: on the same days 66.0% of its directions "
        "are right, 58.0% of this one's.")
    assert decide(table_of(AAA={}, BBB={}), gates, kept=kept)["BBB"]["decision"] == "accept"
    worse, _ = one({"skill": 0.0, "accuracy": 0.5}, gates=gates, kept=kept)
    assert worse["decision"] == "review" and len(worse["reasons"]) > 1, "what the new one fails is said as well"


def test_original_gates_ask_what_the_source_texts_ask():
    found, gates = one(gates="original")
    assert found["decision"] == "accept" and [gate["needed"] for gate in gates.values()] == [0.52, 0.03, 0.8, 0.1]
    assert (gates["accuracy"]["low"], gates["accuracy"]["high"]) == (0.48, 0.67)
    for changes in ({"accuracy": 0.52}, {"rmse_5": 0.03}, {"sharpe": 0.8}, {"max_drawdown": 0.1}):
        assert one(changes, gates="original")[0]["decision"] == "reject"
    assert one({"accuracy": np.nan}, gates="original")[0]["decision"] == "unjudged"


@pytest.mark.parametrize(("accuracy", "tier"), [(0.59, "excellent"), (0.57, "good"), (0.55, "acceptable"),
                                                (0.53, "minimum"), (0.51, "below every tier")])
def test_original_gates_name_the_tier(accuracy, tier):
    found, _ = one({"accuracy": accuracy}, gates="original")
    assert f"tier: {tier} (52% minimum" in found["reasons"][0]


def test_original_gates_say_that_the_zero_forecast_meets_the_rmse_of_a_day():
    assert one({"rmse_5": 0.049}, gates="original")[0]["reasons"] == [
        "5-day RMSE 0.0490 [log return], asked is less than 0.03; per day (over √5) it is 0.0200, where the zero "
        "forecast meets 0.03 as well."]
    assert one({"sharpe": np.nan, "gain": 0.0}, gates="original")[0]["reasons"] == [
        "It never traded, asked is more than 0.8; buy-and-hold has 0.70."]


# --- the whole verdict


@pytest.fixture(scope="module")
def world():
    """(panel, prices, forecast): eight symbols over 900 days; four are known a little beforehand, four not at all."""
    prices = synthetic_prices(8, 900, seed=3, signal=0.0)
    panel, random = build_panel(prices), np.random.default_rng(0)
    rows = panel.outcomes()
    rows = rows[rows["date"] >= panel.days[300]]
    tables = []
    for symbol, part in rows.groupby("symbol"):
        n, known = len(part), part["symbol"].iloc[0] in ("SYN001", "SYN002", "SYN003", "SYN004")
        shocks, actual = 0.004 * random.standard_normal(n), part["actual"].to_numpy()
        noise = lfilter([1.0], [1.0, -0.95], shocks)  # slow enough to be traded on
        means = {"stockformer": (0.08 * actual if known else 0) + noise, "zero": np.zeros(n),
                 "majority": np.full(n, 0.01), "momentum": 0.02 * random.standard_normal(n),
                 "crossing": 0.02 * random.choice([-1, 1], n), "ridge": 0.01 * random.standard_normal(n)}
        for family, mean in means.items():
            tables.append(forecast_of(symbol, pd.DatetimeIndex(part["date"]), mean, family=family,
                                      p_up=0.5 + np.clip(4 * mean, -0.4, 0.4)))
    return panel, prices, pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def scored(world):
    """(scores, backtest) of that forecast."""
    panel, prices, forecast = world
    return score(forecast, panel), backtest(forecast, prices, family="stockformer")


@pytest.fixture(scope="module")
def verdict(scored):
    return judge(*scored, run_id="20260801T0210_stockformer_3f9a1c")


def test_judge_knows_who_knew(verdict):
    skilled = [symbol for symbol, found in verdict.symbols.items()
               if next(gate for gate in found["gates"] if gate["gate"] == "shows_skill")["passed"]]
    assert skilled == ["SYN001", "SYN002", "SYN003", "SYN004"]
    assert {found["decision"] for symbol, found in verdict.symbols.items() if symbol not in skilled} == {"reject"}


def test_judge_collects_the_numbers_of_both_tables(scored):
    scores, result = scored
    table = collect(scores, result, "stockformer").set_index("symbol")
    line, account = scores[scores["family"] == "stockformer"].set_index("symbol"), result.symbols.set_index("symbol")
    assert (table["skill"] == line["skill"]).all() and (table["gain"] == account["return"]).all()
    daily = result.daily.pivot(index="date", columns="symbol", values="value").pct_change().dropna()
    assert table["profit"].to_numpy() == pytest.approx(daily.mean().to_numpy())
    assert table["profit_error"].to_numpy() == pytest.approx((daily.std(ddof=0) / np.sqrt(len(daily))).to_numpy())
    year = len(daily) / (len(daily) - 1)  # the other ratios take n - 1
    assert table["sharpe_lead"].to_numpy() == pytest.approx(
        ((account["sharpe"] - account["buy_and_hold_sharpe"]) * np.sqrt(year)).to_numpy())


def test_summary_counts_both_gate_sets_and_says_it_in_three_sentences(verdict, scored):
    scores, result = scored
    mine = scores[scores["family"] == "stockformer"]
    accuracy = (mine["accuracy"] * mine["n_directed"]).sum() / mine["n_directed"].sum()
    counts, totals = verdict.summary["decisions"], result.totals()["return"]
    assert list(counts) == list(DECISIONS) and sum(counts.values()) == 8
    assert re.fullmatch(
        rf"{counts['accept']} of 8 models pass the honest gates \(0 review, {counts['reject']} reject, 0 unjudged; "
        rf"most often failed: “[a-z ]+” \d and “[a-z ]+” \d\)\. "
        rf"{accuracy:.1%} of the 5-day directions are right; the base rate is 5\d\.\d%, the best opponent \(\w+\) "
        rf"\d\d\.\d%\. After costs the mean account returned \{totals['strategy']:+.1%}, buy-and-hold "
        rf"[+-]{abs(totals['buy_and_hold']):.1%}\.", verdict.summary["text"])
    for name, worth in verdict.summary["gate_sets"].items():
        assert list(worth) == ["n_symbols", "n_pass", "n_simulated", "coin_pass_share", "buy_and_hold_pass_share",
                               "power"]
        assert (worth["n_symbols"], worth["n_simulated"], list(worth["power"])) == (8, 1000, ["0.01", "0.02", "0.05"])
        assert worth["n_pass"] == (counts["accept"] if name == "honest" else 0)
    assert list(verdict.summary["gate_sets"]) == ["honest", "original"]


def test_summary_keeps_the_leak_checks_and_the_old_run(scored, verdict):
    previous = {"run_id": "old", "text": "Compared.", "kept": [], "symbols": {}}
    found = judge(*scored, previous=previous, leak_checks=[PASSED])
    assert found.summary["previous"] == previous and found.summary["leak_checks"] == [PASSED]
    assert not {"previous", "leak_checks"} & set(verdict.summary)


def test_without_opponents_or_a_known_market_nothing_is_accepted(scored):
    scores, result = scored
    alone = judge(scores[scores["family"] == "stockformer"].dropna(axis=1, how="all"), replace(result, trial=None))
    assert not alone.summary["decisions"]["accept"] and alone.symbols["SYN001"]["decision"] in ("unjudged", "reject")
    for worth in alone.summary["gate_sets"].values():
        assert worth["n_simulated"] == 0 and worth["coin_pass_share"] is None and set(worth["power"].values()) == {None}
    reasons = judge(scores, replace(result, trial=None)).symbols["SYN001"]["reasons"]
    assert [reason[:31] for reason in reasons] == ["Not measured: a yearly return a", "Not measured: a Sharpe ratio ab"]


def test_a_symbol_without_scores_or_without_an_account_is_unjudged(world, scored):
    _, prices, forecast = world
    scores, _ = scored
    some = backtest(forecast[forecast["symbol"] != "SYN001"], prices, family="stockformer")
    found = judge(scores[scores["symbol"] != "SYN002"], some).symbols
    assert found["SYN001"]["decision"] == found["SYN002"]["decision"] == "unjudged"
    assert found["SYN002"]["reasons"] == ["0 independent 5-day windows, 30 are needed."]
    assert len(found["SYN001"]["reasons"]) == 3  # two gates, and a Sharpe ratio that may be too good


def test_too_good_asks_for_the_leak_checks(world):
    panel, prices, forecast = world
    rows = forecast.merge(panel.outcomes()[["symbol", "date", "actual"]], on=["symbol", "date"])
    ours = (rows["family"] == "stockformer").to_numpy()
    forecast = rows.drop(columns="actual")
    forecast.loc[ours, "mean"] += 0.5 * rows.loc[ours, "actual"]
    found = judge(score(forecast, panel), backtest(forecast, prices, family="stockformer"))
    assert too_good(found) and found.summary["decisions"]["review"] == 8
    assert repr(found).splitlines()[1].startswith("  review: SYN001, SYN002")


def test_verdict_survives_the_disk_and_holds_only_json(tmp_path, scored):
    scores, result = scored
    scores = scores.astype({"accuracy_low": "float64"}).copy()
    scores.loc[scores["symbol"] == "SYN003", ["accuracy", "accuracy_low", "gain_ridge"]] = np.nan
    verdict = judge(scores, result, run_id="20260801T0210_stockformer_3f9a1c", leak_checks=[PASSED])
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


def test_verdict_is_the_same_every_time(scored, verdict):
    scores, result = scored
    assert judge(scores.sample(frac=1, random_state=0), result, run_id=verdict.run_id) == verdict


def test_repr_names_the_accepted_and_what_a_pass_is_worth(verdict):
    accepted = [symbol for symbol, found in verdict.symbols.items() if found["decision"] == "accept"]
    first, *rest = repr(verdict).splitlines()
    assert first.startswith(f"Verdict of the honest gates on {verdict.run_id}: {len(accepted)} of 8 models pass")
    assert accepted and rest[0] == f"  accept: {', '.join(accepted)}"
    coins = verdict.summary["gate_sets"]["honest"]["coin_pass_share"]
    assert rest[1].startswith(f"  honest gates: {coins:.1%} of 1,000 simulated forecasters without skill pass; by true")
    assert len(rest) == 3 and rest[2].startswith("  original gates: ")


def test_what_cannot_be_judged_is_refused_in_words(world, scored):
    _, prices, forecast = world
    scores, result = scored
    with pytest.raises(ConfigError, match=r"no gate set 'honset'. Did you mean 'honest'"):
        judge(scores, result, gates="honset")
    with pytest.raises(ConfigError, match=r"no family 'stockforma'. Did you mean 'stockformer'"):
        judge(scores, result, family="stockforma")
    with pytest.raises(ConfigError, match="the backtest is of 'stockformer', to be judged is 'majority'"):
        judge(scores, result, family="majority")
    with pytest.raises(DataError, match=r"scores: columns \['skill', 'skill_error'\] are missing"):
        judge(scores.drop(columns=["skill", "skill_error"]), result)
    with pytest.raises(ConfigError, match="one account for all symbols"):
        judge(scores, backtest(forecast, prices, family="stockformer", strategy="top_k"))
