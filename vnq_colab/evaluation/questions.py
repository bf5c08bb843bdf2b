"""The questions of each gate set, put to a table of evidence: one answer per question and symbol.

A table maps names to arrays `[..., symbols]`, as `gates.collect` gathers them or `power` makes them up:
`n_independent`, `accuracy`, `rmse_5`, `sharpe`, `max_drawdown`, `gain` (return of the account), `q` (of `charged`),
`skill` and `skill_error`; and x, `x_error` and `x_shared` for `gain_FAMILY`, `lead_FAMILY`, `profit` (mean daily
return) and `sharpe_lead` (over buy-and-hold). Symbols of one market stand together; leading axes are other markets.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vnq_colab.evaluation.evidence import shrink
from vnq_colab.evaluation.significance import TRADING_DAYS, Z_95, benjamini_hochberg

Table = Mapping[str, np.ndarray]

MIN_WINDOWS = 30  # chosen: with fewer independent windows even a true 60 % is found less than one time in three
FALSE_FINDS = 0.05  # [fraction] of the accepted that may be luck, Benjamini-Hochberg
UNSURE = 0.05  # [fraction] a learner is clearly better where luck would show as much less often than that
MOST_ACCURACY, MOST_SHARPE = 0.65, 4.0  # above: look for a leak first
ORIGINAL = {"accuracy": 0.52, "rmse": 0.03, "sharpe": 0.8, "drawdown": 0.10}
TIERS = {0.58: "excellent", 0.56: "good", 0.54: "acceptable", 0.52: "minimum"}
RULES = ("majority", "momentum", "crossing")  # opponents that name a direction, and no size of the move
QUIETLY = "noise between symbols taken out"  # what `shrink` does, for people


class Answer(NamedTuple):
    """What was measured, its 95 % interval, what is needed, whether that is passed (NaN: not measured), and of whom."""

    measured: Any
    low: Any
    high: Any
    needed: Any
    passed: Any
    name: Any = ""


@dataclass(frozen=True)
class Question:
    """One question to every symbol. `sentence` says a symbol's answer, from its row of the table and its numbers."""

    gate: str
    asked: str
    answer: Callable[[Table], Answer]  # arrays `[..., symbols]`
    sentence: Callable[[Any, Answer], str]  # of one symbol


def charged(table: Table, n_trials: int = 1) -> np.ndarray:
    """`[..., symbols]`: p-values of the skill, times the looks at these days, adjusted for the number of symbols.

    Symbols without enough windows, and forecasts that never change, are not tested, and cost the others nothing.
    """
    from scipy.stats import norm

    p_values = np.minimum(1, norm.sf(table["skill"] / table["skill_error"]) * n_trials)
    return benjamini_hochberg(np.where(table["n_independent"] >= MIN_WINDOWS, p_values, np.nan))


def _answer(measured: Any, needed: Any, passed: Any, low: Any = np.nan, high: Any = np.nan, name: Any = "") -> Answer:
    """Without a number nothing was measured, and nothing passed or failed."""
    measured = np.asarray(measured, "float64")
    low, high, needed, name = (np.broadcast_to(part, measured.shape) for part in (low, high, needed, name))
    return Answer(measured, low, high, needed, np.where(np.isnan(measured), np.nan, passed), name)


def _drawn(table: Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A number drawn towards the other symbols, and what remains unknown of it.

    Those that show skill are drawn to one another, and the rest to one another: a symbol that stands out does not pay
    for a hundred that know nothing, and lends them nothing.
    """
    if name not in table:
        return np.full((2, *np.shape(table["q"])), np.nan)
    shows = np.asarray(table["q"]) <= FALSE_FINDS
    groups = [shrink(np.where(group, table[name], np.nan), table[f"{name}_error"], table[f"{name}_shared"])
              for group in (shows, ~shows)]
    return np.where(shows, groups[0], groups[1])


def _above_zero(table: Table, name: str, unit: float = 1.0) -> Answer:
    """Is the drawn number above 0? With its 95 % interval, in its unit."""
    drawn, left = _drawn(table, name)
    return _answer(unit * drawn, 0.0, drawn > 0, unit * (drawn - Z_95 * left), unit * (drawn + Z_95 * left))


def _worst(table: Table, columns: list[str], errors: float = 0.0) -> Answer:
    """The least of several drawn leads: is it above 0, so many standard errors added?"""
    if not columns:
        return _answer(np.full(np.shape(table["q"]), np.nan), 0.0, False)
    drawn, left = np.stack([_drawn(table, name) for name in columns], axis=1)  # [opponents, ..., symbols]
    bound = drawn + errors * left
    place = np.where(np.isnan(bound), np.inf, bound).argmin(axis=0)[None]
    mean, spread, bound = (np.take_along_axis(part, place, axis=0)[0] for part in (drawn, left, bound))
    names = np.array([name.partition("_")[2] for name in columns], dtype=object)[place[0]]
    alike = (mean == 0) & (spread == 0)  # the very same forecast: not above, but nobody is better
    return _answer(mean, 0.0, (bound > 0) | (alike & (errors > 0)), mean - Z_95 * spread, mean + Z_95 * spread, names)


def _skill(table: Table) -> Answer:
    found, half = table["skill"], Z_95 * table["skill_error"]
    return _answer(np.where(table["n_independent"] >= MIN_WINDOWS, found, np.nan), 0.0, table["q"] <= FALSE_FINDS,
                   found - half, found + half)


def _learners(table: Table) -> Answer:
    """Sure of all learners together: the best of several without more skill looks better by luck."""
    from scipy.stats import norm

    known = {f"gain_{name}" for name in (*RULES, "zero")}
    columns = [name for name in table if name.startswith("gain_") and name not in known
               and not name.endswith(("_error", "_shared")) and not np.isnan(table[name]).all()]
    return _worst(table, columns, norm.isf(UNSURE / max(len(columns), 1)))


def _traded(table: Table) -> np.ndarray:
    """The Sharpe ratio, 0 for an account that was there and never moved, NaN where there was no account."""
    return np.where(np.isnan(table["gain"]), np.nan, np.nan_to_num(table["sharpe"]))


def _ratio(sharpe: float) -> str:
    return f"Sharpe ratio {sharpe:.2f}" if np.isfinite(sharpe) else "It never traded"


def _interval(answer: Answer, form: str) -> str:
    if not np.isfinite(answer.low):
        return "no interval"
    return f"95% interval {answer.low:{form}} to {answer.high:{form}}"


def _say_skill(row: Any, answer: Answer) -> str:
    if np.isnan(row.q):
        return "It always expects the same, or a few bold days decide everything: that shows no skill."
    more = "does more than usual" if answer.passed else "does not clearly do more than usual"
    return (f"When it expects more than usual, the price {more}: correlation {answer.measured:.2f} "
            f"({_interval(answer, '.2f')}, adjusted p = {row.q:.2g}).")


def _say_learners(_: Any, answer: Answer) -> str:
    size = f"{abs(answer.measured):.1%} of the mean squared outcome"
    if not answer.passed:
        return f"The squared error of {answer.name} is clearly smaller, by {size} ({_interval(answer, '+.1%')})."
    side = "above" if answer.measured >= 0 else "below"
    return (f"No learner has a clearly smaller squared error; that of {answer.name} lies {size} {side} its own "
            f"({_interval(answer, '+.1%')}).")


HONEST = (
    Question(
        "enough_windows", f"at least {MIN_WINDOWS} independent 5-day windows",
        lambda t: _answer(t["n_independent"], MIN_WINDOWS, t["n_independent"] >= MIN_WINDOWS),
        lambda row, answer: f"{row.n_independent:.0f} independent 5-day windows, {MIN_WINDOWS} are needed."),
    Question(
        "shows_skill", f"a correlation of forecast and outcome above 0 with an adjusted p of at most {FALSE_FINDS:.0%}",
        _skill, _say_skill),
    Question(
        "beats_zero_forecast", f"a smaller squared 5-day error than the zero forecast, {QUIETLY}",
        lambda t: _above_zero(t, "gain_zero"),
        lambda row, answer: f"Its squared error lies {abs(row.gain_zero):.1%} "
                            f"{'below' if row.gain_zero > 0 else 'above'} that of the zero forecast; {QUIETLY}, it "
                            f"saves {answer.measured:+.1%} ({_interval(answer, '+.1%')})."),
    Question(
        "beats_simple_rules", "more right 5-day directions than each of majority, momentum and crossing averages, "
                              f"{QUIETLY}",
        lambda t: _worst(t, [f"lead_{name}" for name in RULES if f"lead_{name}" in t]),
        lambda row, answer: f"{row.accuracy:.1%} of the 5-day directions are right, the base rate is "
                            f"{row.base_rate:.1%}; {QUIETLY}, its smallest lead over a simple rule is "
                            f"{answer.measured:+.1%}, over {answer.name} ({_interval(answer, '+.1%')})."),
    Question(
        "no_learner_is_better", "no ridge, boosted trees or global network with a clearly smaller squared error on the "
                                f"same days, {QUIETLY}",
        _learners, _say_learners),
    Question(
        "profit_after_costs", f"a yearly return above 0 after all costs, {QUIETLY}",
        lambda t: _above_zero(t, "profit", TRADING_DAYS),
        lambda row, answer: f"Return {row.gain:+.1%} after costs; {QUIETLY}, {answer.measured:+.1%} a year "
                            f"({_interval(answer, '+.1%')})."),
    Question(
        "beats_buy_and_hold", f"a Sharpe ratio above that of buy-and-hold, {QUIETLY}",
        lambda t: _above_zero(t, "sharpe_lead"),
        lambda row, answer: f"{_ratio(row.sharpe)}, buy-and-hold has {row.buy_and_hold_sharpe:.2f}; {QUIETLY}, the "
                            f"lead is {answer.measured:+.2f} ({_interval(answer, '+.2f')})."),
    Question(
        "plausible_accuracy", f"accuracy of at most {MOST_ACCURACY:.0%}; more is a leak until shown otherwise",
        lambda t: _answer(t["accuracy"], MOST_ACCURACY, t["accuracy"] <= MOST_ACCURACY),
        lambda row, answer: f"Accuracy {row.accuracy:.1%}; above {MOST_ACCURACY:.0%} is too good to be true: look for "
                            "a leak."),
    Question(
        "plausible_sharpe", f"a Sharpe ratio of at most {MOST_SHARPE:g}; more is a leak until shown otherwise",
        lambda t: _answer(_traded(t), MOST_SHARPE, _traded(t) <= MOST_SHARPE),
        lambda row, answer: f"Sharpe ratio {row.sharpe:.2f}; above {MOST_SHARPE:g} is too good to be true: look for a "
                            "leak."),
)


def _tier(accuracy: float) -> str:
    return next((name for least, name in TIERS.items() if accuracy > least), "below every tier")


ORIGINAL_QUESTIONS = (
    Question(
        "accuracy", "5-day accuracy above 52%",
        lambda t: _answer(t["accuracy"], ORIGINAL["accuracy"], t["accuracy"] > ORIGINAL["accuracy"],
                          t["accuracy_low"], t["accuracy_high"]),
        lambda row, answer: f"Accuracy {row.accuracy:.1%}, asked is more than 52%; tier: {_tier(row.accuracy)} (52% "
                            "minimum, 54% acceptable, 56% good, 58% excellent)."),
    Question(
        "rmse", "5-day RMSE below 0.03",
        lambda t: _answer(t["rmse_5"], ORIGINAL["rmse"], t["rmse_5"] < ORIGINAL["rmse"]),
        lambda row, answer: f"5-day RMSE {row.rmse_5:.4f} [log return], asked is less than 0.03; per day (over √5) it "
                            f"is {row.rmse_day:.4f}, where the zero forecast meets 0.03 as well."),
    Question(
        "sharpe", "Sharpe ratio above 0.8",
        lambda t: _answer(_traded(t), ORIGINAL["sharpe"], _traded(t) > ORIGINAL["sharpe"]),
        lambda row, answer: f"{_ratio(row.sharpe)}, asked is more than 0.8; buy-and-hold has "
                            f"{row.buy_and_hold_sharpe:.2f}."),
    Question(
        "drawdown", "maximum drawdown below 10%",
        lambda t: _answer(t["max_drawdown"], ORIGINAL["drawdown"], t["max_drawdown"] < ORIGINAL["drawdown"]),
        lambda row, answer: f"Maximum drawdown {row.max_drawdown:.1%}, asked is less than 10%; buy-and-hold has "
                            f"{row.buy_and_hold_drawdown:.1%}."),
)
QUESTIONS = {"honest": HONEST, "original": ORIGINAL_QUESTIONS}


def share_that_passes(table: Table, gate_set: str) -> float:
    """The share of symbols that pass every question which could be measured for anybody at all."""
    found = [question.answer(table).passed for question in QUESTIONS[gate_set]]
    asked = [passed for passed in found if not np.isnan(passed).all()]
    return float(np.all([passed == 1 for passed in asked], axis=0).mean()) if asked else 0.0
