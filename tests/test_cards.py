"""The cards that depend on what a verdict or the days bring."""

import re

import numpy as np
import pandas as pd

from tests.test_page import saved
from vnq_colab.evaluation import cards
from vnq_colab.evaluation.gates import Verdict

SET = {"n_symbols": 3, "n_pass": 1, "n_simulated": 1008, "coin_pass_share": 0.004, "buy_and_hold_pass_share": 0.0,
       "power": {"0.01": 0.03, "0.02": 0.2, "0.05": None}}


def verdict_of(**summary):
    symbols = {name: {"decision": decision, "reasons": [], "gates": []}
               for name, decision in (("AAA", "accept"), ("BBB", "reject"), ("CCC", "reject"))}
    return Verdict("run2", "honest", {"text": "", "decisions": {}, "gate_sets": {"honest": SET}} | summary, symbols)


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub("base64,[^\"]*", "", html)))


def test_gate_sets_say_what_coins_and_true_skill_would_pass():
    html = cards.gate_sets(verdict_of())
    assert re.findall("<td>(.*?)</td>", html) == ["honest", "1 of 3", "0.4", "0.0", "3", "20", "–"]
    assert "about 1,008 simulated forecasters without skill" in text_of(html)
    assert list(saved(html)["gate_sets.csv"].columns)[-3:] == ["True R² 1% [%]", "True R² 2% [%]", "True R² 5% [%]"]


def test_gate_sets_without_a_simulation_show_dashes():
    bare = {"n_symbols": 0, "n_pass": 0, "coin_pass_share": None, "buy_and_hold_pass_share": None, "power": {}}
    html = cards.gate_sets(verdict_of(gate_sets={"honest": bare}))
    assert re.findall("<td>(.*?)</td>", html) == ["honest", "0 of 0"] + ["–"] * 5


def test_first_run_has_nothing_to_compare_with():
    assert "No accepted run stands before this one" in cards.changes(verdict_of())


def test_changes_that_could_not_be_compared_say_why_and_nothing_else():
    previous = {"run_id": "", "first": None, "last": None, "n_days": 0, "kept": [], "text": "Not compared: <damaged>.",
                "symbols": {}}
    html = cards.changes(verdict_of(previous=previous))
    assert "Not compared: &lt;damaged&gt;." in html and "<table" not in html and "None" not in html


def test_changes_name_what_is_new_lost_and_kept():
    was = {"AAA": (0.5, 0.6, "reject"), "BBB": (0.6, 0.5, "accept"), "CCC": (None, 0.5, "reject")}
    previous = {"run_id": "run1", "first": "2024-01-02", "last": "2024-06-28", "n_days": 120, "kept": ["BBB"],
                "text": "Accuracy fell by more than 10% on BBB.",
                "symbols": {name: dict(zip(("old_accuracy", "new_accuracy", "old_decision"), values, strict=True))
                            for name, values in was.items()}}
    html = cards.changes(verdict_of(previous=previous))
    text = text_of(html)
    for claim in ("Accuracy fell by more than 10% on BBB.", "Newly accepted (1): AAA.", "Accepted no longer (1): BBB.",
                  "The old model stays (1): BBB.", "Run run1 beside this one, on 120 common days, 2024-01-02"):
        assert claim in text, claim
    table = saved(html)["changes.csv"].set_index("Symbol")
    assert list(table.index) == ["BBB", "AAA", "CCC"], "those that stay are first"
    assert list(table["Change [points]"][:2]) == [-10, 10] and np.isnan(table["Change [points]"]["CCC"])
    assert list(table["In use"]) == ["old model", "new model", "new model"]


def test_leak_checks_are_shown_where_they_were_made():
    assert cards.leak_checks(verdict_of()) == ""
    checks = [{"check": "shuffled_labels", "passed": True, "sentence": "A coin's accuracy: 50.2%."},
              {"check": "future_feature", "passed": False, "sentence": "return_1 knows <tomorrow>."}]
    html = cards.leak_checks(verdict_of(leak_checks=checks))
    assert "shuffled labels passed A coin&#x27;s accuracy: 50.2%." in text_of(html)
    assert "future feature FAILED return_1 knows &lt;tomorrow&gt;." in text_of(html)


def rows_of(inside):
    """One symbol with `inside` [share] of its outcomes in the interval, by quarter."""
    parts = []
    for quarter, share in enumerate(inside):
        days = pd.bdate_range(pd.Timestamp(2024, 3 * quarter + 1, 1), periods=60)
        actual = np.where(np.arange(60) % 20 < 20 * share, 0.01, 0.2)
        parts.append(pd.DataFrame({"family": "stockformer", "symbol": "AAA", "date": days, "actual": actual,
                                   "low": -0.1, "high": 0.1}))
    return pd.concat(parts, ignore_index=True)


def test_intervals_say_how_their_coverage_drifts():
    text = text_of(cards.intervals(rows_of([0.95, 0.9, 0.85]), "stockformer"))
    assert "held 90.0% of the outcomes" in text
    assert "Drift: 95.0% in 2024 Q1, 85.0% in 2024 Q3, least in 2024 Q3 with 85.0%." in text
    assert "In no period is that clearly less than promised." in text
    assert "Clearly less than promised in 2024 Q2." in text_of(cards.intervals(rows_of([0.95, 0.1]), "stockformer"))


def test_intervals_that_are_not_there_have_no_card():
    assert cards.intervals(rows_of([0.9]).drop(columns=["low", "high"]), "stockformer") == ""


def test_strategies_name_the_trials_that_they_are_charged_for():
    row = dict.fromkeys(("return", "sharpe", "sortino", "max_drawdown", "calmar", "turnover", "hit_rate",
                         "profit_factor", "exposure", "n_orders", "deflated_sharpe"), 0.5)
    found = pd.DataFrame([{"strategy": "buy and hold"} | row])
    html = cards.strategies(found, {"n_trials": 7})
    assert "what the best of 7 configurations without skill would show." in text_of(html)
    assert saved(html)["strategies.csv"]["Money in shares [%]"][0] == 50
    assert "where the true one is 0." in text_of(cards.strategies(found, {}))
