"""Questions put to tables of one market and of many, whose numbers are written out."""

import numpy as np
import pytest
from scipy.stats import norm

from vnq_colab.evaluation.evidence import shrink
from vnq_colab.evaluation.questions import (
    FALSE_FINDS,
    HONEST,
    MIN_WINDOWS,
    QUESTIONS,
    charged,
    share_that_passes,
)


def table_of(shape, **changes):
    """A table `shape` of symbols that pass everything, but for the changes."""
    numbers = {"n_independent": 100, "accuracy": 0.58, "accuracy_low": 0.5, "accuracy_high": 0.66, "rmse_5": 0.02,
               "sharpe": 1.0, "gain": 0.1, "max_drawdown": 0.05, "skill": 0.2, "skill_error": 0.04}
    for name in ("gain_zero", "gain_ridge", "lead_majority", "profit", "sharpe_lead"):
        numbers |= {name: 0.02, f"{name}_error": 0.01, f"{name}_shared": 0.0}
    table = {name: np.broadcast_to(value, shape).astype("float64") for name, value in (numbers | changes).items()}
    return table | {"q": charged(table)}


def answer(gate, table):
    """The answer to one question of the honest set."""
    return next(question for question in HONEST if question.gate == gate).answer(table)


def test_the_p_value_is_that_of_the_normal_times_looks_and_symbols():
    table = table_of(4, skill=np.array([0.16, 0.04, 0.0, -0.2]), skill_error=0.04)
    assert charged(table)[0] == pytest.approx(4 * norm.sf(4))
    assert charged(table, 2)[:2] == pytest.approx([8 * norm.sf(4), 4 * 2 * norm.sf(1) / 2])
    assert (charged(table, 10**6) == 1).all()


def test_symbols_that_are_not_tested_cost_the_others_nothing():
    alone = charged(table_of(1))
    table = table_of(4, n_independent=np.array([100, MIN_WINDOWS - 1, 100, 0]),
                     skill=np.array([0.2, 0.9, 0.0, np.nan]), skill_error=np.array([0.04, 0.04, np.nan, np.nan]))
    assert charged(table)[0] == alone[0] and np.isnan(charged(table)[1:]).all()


def test_false_finds_stay_rare_where_symbols_move_together():
    random, finds = np.random.default_rng(0), []
    for skilled in (0, 30):
        z = np.sqrt(0.28) * random.standard_normal((2000, 1)) + np.sqrt(0.72) * random.standard_normal((2000, 102))
        z[:, :skilled] += 4
        found = charged(table_of(z.shape, skill=z, skill_error=1.0)) <= FALSE_FINDS
        finds.append(np.mean(found[:, skilled:].sum(axis=1) / np.maximum(found.sum(axis=1), 1)))
        assert found[:, skilled:].mean() < (0.005 if skilled == 0 else 0.03)
    assert np.all(np.less(finds, 0.055))


def test_a_market_is_asked_alone_whoever_stands_beside_it():
    random = np.random.default_rng(1)
    names = ("gain_zero", "lead_majority", "profit", "skill", "gain_ridge", "sharpe_lead")
    changes = {name: random.normal(0.01, 0.02, (3, 6)) for name in names}
    changes |= {"profit_shared": np.array([[0.0], [0.3], [0.9]])}
    together = table_of((3, 6), **changes)
    for place in range(3):
        alone = table_of(6, **{name: values[place] for name, values in changes.items()})
        for question in HONEST:
            one, all_of_them = question.answer(alone), question.answer(together)
            for mine, theirs in zip(one[:5], all_of_them[:5], strict=True):
                assert theirs[place] == pytest.approx(mine, nan_ok=True), question.gate


def test_skilled_symbols_are_drawn_to_one_another_only():
    skill, profit = np.array([0.2, 0.2, 0.0, 0.0]), np.array([3.0, 5.0, -6.0, -8.0])
    found = answer("profit_after_costs", table_of(4, skill=skill, profit=profit, profit_error=2.0))
    apart = [shrink(part, np.full(2, 2.0))[0] for part in (profit[:2], profit[2:])]
    assert found.measured == pytest.approx(250 * np.concatenate(apart))
    assert list(found.passed) == [1, 1, 0, 0]


def test_the_interval_knows_what_all_symbols_share():
    alone, together = (answer("profit_after_costs", table_of(50, profit_shared=shared)) for shared in (0.0, 0.5))
    assert together.measured == pytest.approx(alone.measured)
    assert (together.high - together.low).mean() > 4 * (alone.high - alone.low).mean()


def test_learners_are_asked_for_together_and_rules_are_none_of_them():
    def best(**gains):
        changes = {f"gain_{name}": gain for name, gain in gains.items()}
        changes |= {f"gain_{name}_error": 0.01 for name in gains} | {f"gain_{name}_shared": 0.0 for name in gains}
        return answer("no_learner_is_better", table_of(1, **changes))

    one = best(ridge=-0.018)
    assert (one.passed[0], one.name[0]) == (0, "ridge")  # 1.8 errors: above 1.64
    several = best(ridge=-0.018, trees=0.0, network=-0.01)
    assert (several.passed[0], several.name[0]) == (1, "ridge")  # 2.13 for one of three
    assert best(ridge=-0.022, trees=0.0, network=-0.01).passed[0] == 0
    assert best(ridge=0.01, momentum=-0.5, crossing=-0.5, majority=-0.5).name[0] == "ridge"


def test_what_was_not_measured_neither_passes_nor_fails():
    table = table_of(3, accuracy=np.array([0.58, np.nan, 0.58]), gain=np.array([0.1, 0.1, np.nan]),
                     sharpe=np.array([np.nan, 1.0, np.nan]))
    assert answer("plausible_accuracy", table).passed == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert answer("plausible_sharpe", table).measured == pytest.approx([0, 1, np.nan], nan_ok=True)  # never traded: 0
    bare = {name: values for name, values in table.items() if not name.startswith(("gain_", "lead_", "profit"))}
    for gate in ("beats_zero_forecast", "beats_simple_rules", "no_learner_is_better", "profit_after_costs"):
        assert np.isnan(answer(gate, bare).passed).all()


def test_the_share_that_passes_asks_what_could_be_measured_for_anybody():
    table = table_of((2, 4), skill=np.array([[0.2, 0.2, 0.2, 0.0], [0.0, 0.0, 0.0, 0.2]]))
    assert share_that_passes(table, "honest") == 0.5 and share_that_passes(table, "original") == 1
    del table["lead_majority"], table["gain_ridge"]
    assert share_that_passes(table, "honest") == 0.5
    constant = table_of(4, skill=0.0, skill_error=np.nan)
    assert share_that_passes(constant, "honest") == 0  # a forecast that never changes fails, and is not left out


def test_no_two_questions_of_a_set_have_one_name():
    for questions in QUESTIONS.values():
        assert len({question.gate for question in questions}) == len(questions)
