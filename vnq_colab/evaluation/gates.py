"""May this be traded? The market is judged first, by the order of its stocks and a basket after costs; then each stock.

One stock alone cannot prove a rank correlation of 0.1; the market can, within a year.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.errors import ConfigError, DataError, did_you_mean
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.basket_result import BasketResult
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.significance import (
    FEWEST_DATES,
    Z_95,
    deflated_sharpe,
    mean_test,
    model_confidence_set,
    shrink,
)
from vnq_colab.evaluation.verdict import DECISIONS, Gate, Verdict, decision

GATE_SETS = ("honest", "original")
CONFIDENCE_SET = 0.1  # [p-value] of the 90 % model confidence set

FEWEST_SYMBOLS, FEWEST_DAYS = 20, 500
MOST_P_ORDER, MOST_P_BASKET = 0.01, 0.05  # after the multiple-testing charge
LEAST_BEATEN, LEAST_PROBABILITY = 0.95, 0.95  # of random baskets; that the Sharpe ratio is no luck
MOST_CORRELATION, MOST_SHARPE, MOST_ACCURACY = 0.2, 4.0, 0.65  # above: too good to be true
FEWEST_SYMBOL_DAYS = 250  # chosen: a year; below, the error of a place is as large as any place
LEAST_SKILL = 0.9  # [probability] that its place in the order says something
MOST_LOCKED = 0.1  # [fraction of days] on which it could not be bought
ORIGINAL = {"accuracy": 0.52, "rmse": 0.03, "sharpe": 0.8, "drawdown": 0.10}  # the project's source texts
TIERS = {0.58: "excellent", 0.56: "good", 0.54: "acceptable", 0.52: "minimum"}


def judge(order: Order, basket: BasketResult | None, symbols: pd.DataFrame, *, family: str, gates: str = "honest",
          run_id: str = "", n_trials: int = 1, accuracy: "Mapping[str, float] | pd.Series | None" = None,
          n_universe: int | None = None, previous: dict[str, Any] | None = None,
          leak_checks: list[dict[str, Any]] | None = None, power: dict[str, float] | None = None,
          original: dict[str, float] | None = None) -> Verdict:
    """Decides on the market, and then on every symbol, whether the forecasts of `family` may be traded.

    The market is `unjudged` with fewer than 20 judged symbols or 500 test days; for `review` where a number is too good
    to be true, ours or another family's, whatever the leak checks say (they prove our code, not the provider's data);
    a `reject` where a gate fails; else an `accept`. A symbol is accepted only where the market is; what passes in a
    market for review is for review. Gates `original`, those of the project's source texts, decide on the symbols alone.

    `symbols`: one row per judged symbol, `Order.symbols` joined with its accuracy (`metrics.score_rows`) and its own
    account (`Backtest.symbols`). `n_trials` configurations were evaluated on these days, this one included: p-values
    are charged for all of them. `accuracy`: pooled, by family. `n_universe` [stocks] are those that would be judged if
    nobody chose: where `order` covers fewer, the market is for review at most. `previous`, of the last accepted run on
    the same days, names the symbols (`kept`) that got worse: they are for review. `power` and `original` are what
    `power.found_share` and `power.original_shares` found.
    """
    if gates not in GATE_SETS:
        raise ConfigError(f"there is no gate set {gates!r}.{did_you_mean(str(gates), GATE_SETS)}")
    if family != order.family or family not in order.daily.columns:
        raise ConfigError(f"the order is that of {order.family!r}, to be judged is {family!r}. Measure its own.")
    if not isinstance(n_trials, (int, np.integer)) or n_trials < 1:
        raise ConfigError(f"n_trials = {n_trials!r}: must be a whole number of configurations, this one included.")
    if symbols["symbol"].duplicated().any():
        raise DataError("symbols: one stands there twice. Give one row per symbol.")
    asked = market_gates(order.daily[family].dropna().to_numpy(), len(symbols), n_trials,
                         **basket_numbers(basket, n_trials))
    doubts = plausible_gates(order.families, basket, {} if accuracy is None else accuracy)
    chosen = _chosen(len(order.symbols), n_universe)
    market = decide_market(asked, doubts, leak_checks, chosen)
    kept = {symbol: previous["symbols"][symbol] for symbol in previous["kept"]} if previous else {}
    by_original = {row.symbol: _decide_original(row) for row in symbols.itertuples(index=False)}
    decided = by_original if gates == "original" else decide_symbols(symbols, market["decision"], basket, kept)
    counts = {name: sum(found["decision"] == name for found in decided.values()) for name in DECISIONS}
    judged = order.families[order.families["family"] == family].iloc[0]
    n_pass = sum(found["decision"] == "accept" for found in by_original.values())
    about = {
        "text": _text(judged, basket, market, counts, power), "decisions": counts,
        "families": _records(order.families), "by_year": _records(order.by_year[order.by_year["family"] == family]),
        "quantiles": _records(order.quantiles), "basket": None if basket is None else basket.to_dict(), "power": power,
        "confidence_set": confidence_set(order.daily),
        "evaluations": {"n_trials": int(n_trials), "text": chosen},
        "original": {"n_pass": n_pass} | (original or {}), "previous": previous, "leak_checks": leak_checks}
    return Verdict(run_id, gates, about, market, decided)


def too_good(verdict: Verdict) -> bool:
    """Whether a number is too good to be true: then search the run for leaks, and judge again."""
    return any(gate["gate"].startswith("plausible") and gate["passed"] is False
               for found in (verdict.market, *verdict.symbols.values()) for gate in found["gates"])


# --- the market


def market_gates(daily: np.ndarray, n_symbols: int, n_trials: int = 1, *, alpha: float, alpha_p: float, beaten: float,
                 probability: float) -> list[Gate]:
    """The questions to a market: `daily [days]` rank correlations, and what `basket_numbers` gives of a basket."""
    test, charge = mean_test(daily), f", charged for {n_trials} evaluations" if n_trials > 1 else ""
    p_order, p_basket = (min(1.0, float(p) * n_trials) for p in (test.p, alpha_p))
    return [
        Gate.of("enough_symbols", f"at least {FEWEST_SYMBOLS} judged stocks", n_symbols, FEWEST_SYMBOLS,
                n_symbols >= FEWEST_SYMBOLS, f"{n_symbols} stocks are judged, {FEWEST_SYMBOLS} are needed."),
        Gate.of("enough_days", f"at least {FEWEST_DAYS} test days", test.n_days, FEWEST_DAYS,
                test.n_days >= FEWEST_DAYS, f"{test.n_days:,} test days, {FEWEST_DAYS} are needed."),
        Gate.of("order", f"a rank correlation above 0 with p of at most {MOST_P_ORDER:.0%}", test.mean, 0.0,
                test.mean > 0 and p_order <= MOST_P_ORDER,
                f"The rank correlation with what can be traded is {test.mean:.3f} (95% interval {test.low:.3f} to "
                f"{test.high:.3f}, p = {p_order:.2g}{charge}; at most {MOST_P_ORDER:g} is needed).",
                test.low, test.high),
        Gate.of("basket", f"a basket's alpha after costs above 0 with p of at most {MOST_P_BASKET:.0%}", alpha, 0.0,
                alpha > 0 and p_basket <= MOST_P_BASKET,
                f"After costs the basket has an alpha of {alpha:+.1%} a year over the equal-weighted universe (p = "
                f"{p_basket:.2g}{charge}; at most {MOST_P_BASKET:g} is needed)."),
        Gate.of("random_baskets", f"an alpha above that of {LEAST_BEATEN:.0%} of random baskets", beaten, LEAST_BEATEN,
                beaten > LEAST_BEATEN, f"It beats {beaten:.1%} of random baskets of the same turnover, more than "
                                       f"{LEAST_BEATEN:.0%} is needed."),
        Gate.of("deflated_sharpe", f"a deflated Sharpe ratio above {LEAST_PROBABILITY:g}", probability,
                LEAST_PROBABILITY, probability > LEAST_PROBABILITY,
                f"With probability {probability:.1%} its excess over the universe is more than the luck of "
                f"{n_trials} evaluation{'s' * (n_trials > 1)}, more than {LEAST_PROBABILITY:.0%} is needed."),
    ]


def plausible_gates(families: pd.DataFrame, basket: BasketResult | None,
                    accuracy: "Mapping[str, float] | pd.Series") -> list[Gate]:
    """What is too good to be true, of any family: correlation, Sharpe ratio of the basket, pooled accuracy."""
    best = families.sort_values("open", ascending=False).iloc[0]
    sharpe = np.nan if basket is None else float(basket.totals.loc["basket", "sharpe"])
    known = {name: float(value) for name, value in accuracy.items() if np.isfinite(value)}
    most = max(known, key=known.__getitem__, default="")
    right, doubt = known.get(most, np.nan), "is too good to be true: look for a leak, in the data too"
    return [
        Gate.of("plausible_order", f"no family with a rank correlation above {MOST_CORRELATION:g}", best["open"],
                MOST_CORRELATION, best["open"] <= MOST_CORRELATION,
                f"The rank correlation of {best['family']} is {best['open']:.3f}; above {MOST_CORRELATION:g} {doubt}."),
        Gate.of("plausible_sharpe", f"a net Sharpe ratio of at most {MOST_SHARPE:g}", sharpe, MOST_SHARPE,
                sharpe <= MOST_SHARPE, f"The basket's Sharpe ratio is {sharpe:.1f}; above {MOST_SHARPE:g} {doubt}."),
        Gate.of("plausible_accuracy", f"no family with a pooled accuracy above {MOST_ACCURACY:.0%}", right,
                MOST_ACCURACY, right <= MOST_ACCURACY,
                f"{right:.1%} of the directions of {most} are right; above {MOST_ACCURACY:.0%} {doubt}."),
    ]


def decide_market(asked: list[Gate], doubts: list[Gate], leak_checks: list[dict[str, Any]] | None = None,
                  chosen: str = "") -> dict[str, Any]:
    """The decision on the market. `chosen` says, where it is so, that its stocks were chosen by hand."""
    suspicious = [gate for gate in doubts if gate.passed is False]
    leaks = [check["sentence"] for check in leak_checks or [] if not check["passed"]]
    if suspicious and leak_checks and not leaks:
        leaks = [f"All {len(leak_checks)} leak checks pass; they prove the code, not the provider's data."]
    failed, unknown = ([gate for gate in asked if gate.passed is state] for state in (False, None))
    if short := [gate for gate in asked[:2] if not gate.passed]:
        return decision("unjudged", short + suspicious, asked + doubts, *leaks)
    if suspicious or leaks:
        return decision("review", suspicious, asked + doubts, *leaks)
    if failed or unknown:
        return decision("reject" if failed else "unjudged", failed or unknown, asked + doubts)
    return decision("review", [], asked + doubts, chosen) if chosen else decision("accept", asked, asked + doubts)


def confidence_set(daily: pd.DataFrame) -> list[str]:
    """The families of `daily [days, families]` that cannot be told from the best, best first: 90 % confidence."""
    daily = daily.dropna(axis=1, how="all").dropna()
    if len(daily) < FEWEST_DATES:
        return []
    p_values = pd.Series(model_confidence_set(-daily.to_numpy()), index=daily.columns)
    return [str(name) for name in daily.mean().sort_values(ascending=False).index if p_values[name] > CONFIDENCE_SET]


def basket_numbers(basket: BasketResult | None, n_trials: int = 1) -> dict[str, float]:
    """What `market_gates` asks of a basket; NaN without one."""
    if basket is None:
        return dict.fromkeys(("alpha", "alpha_p", "beaten", "probability"), np.nan)
    excess = (basket.returns["basket"] - basket.returns["equal_weighted"]).dropna()
    return {"alpha": basket.alpha, "alpha_p": basket.alpha_p, "beaten": basket.beaten,
            "probability": float(deflated_sharpe(excess, n_trials))}


def _chosen(n_measured: int, n_universe: int | None) -> str:
    if n_universe is None or n_measured >= n_universe:
        return ""
    return (f"Only {n_measured} of the {n_universe} stocks of these data are measured: a choice made after a first "
            "report looks better than it is, so judge all of them.")


# --- symbols


def decide_symbols(symbols: pd.DataFrame, market: str, basket: BasketResult | None = None,
                   kept: Mapping[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """The decision for each row of `symbols` in a market with that decision, with reasons and gates."""
    rule, capital = (Basket(), 1e9) if basket is None else (basket.basket, basket.capital)
    value = capital / rule.k / rule.traded_share  # [VND a day] of which one place is a small part
    skill = dict(zip(symbols["symbol"], zip(*shrink(symbols["place"], symbols["place_error"]), strict=True),
                     strict=True))
    verdict = {}
    for row in symbols.itertuples(index=False):
        gates = _symbol_gates(row, *skill[row.symbol], value, rule)
        verdict[row.symbol] = _decide_symbol(gates, market, (kept or {}).get(row.symbol))
    return verdict


def _symbol_gates(row: Any, place: float, error: float, value: float, rule: Basket) -> list[Gate]:
    from scipy.special import ndtr

    probability = float(ndtr(place / error)) if error > 0 else np.nan
    locked, traded = row.locked, row.traded_value
    return [
        Gate.of("enough_days", f"at least {FEWEST_SYMBOL_DAYS} scored days", row.n_days, FEWEST_SYMBOL_DAYS,
                row.n_days >= FEWEST_SYMBOL_DAYS, f"{row.n_days:,.0f} scored days, {FEWEST_SYMBOL_DAYS} are needed."),
        Gate.of("place", f"a share in the rank correlation above 0 with at least {LEAST_SKILL:.0%} probability",
                place, 0.0, probability >= LEAST_SKILL,
                f"Its share in the rank correlation, shrunk towards the others', is {place:.3f}: above 0 with "
                f"probability {probability:.0%}, {LEAST_SKILL:.0%} is needed.",
                place - Z_95 * error, place + Z_95 * error),
        Gate.of("traded_value", f"a median traded value of at least {value / 1e9:.1f} bn VND a day", traded, value,
                traded >= value, f"Traded for {traded / 1e9:.1f} bn VND on a median day; {value / 1e9:.1f} bn are "
                                 f"needed where one place of the basket may be {rule.traded_share:.0%} of it."),
        Gate.of("locked", f"not to be bought on at most {MOST_LOCKED:.0%} of the days", locked, MOST_LOCKED,
                locked <= MOST_LOCKED, f"Not to be bought on {locked:.1%} of the days, at most {MOST_LOCKED:.0%} is "
                                       "allowed."),
        Gate.of("plausible_accuracy", f"accuracy of at most {MOST_ACCURACY:.0%}", row.accuracy, MOST_ACCURACY,
                row.accuracy <= MOST_ACCURACY, f"Accuracy {row.accuracy:.1%}; above {MOST_ACCURACY:.0%} is too good to "
                                               "be true: look for a leak."),
    ]


def _decide_symbol(gates: list[Gate], market: str, old: dict[str, Any] | None) -> dict[str, Any]:
    enough, *asked, plausible = gates
    if market == "unjudged":
        return decision("unjudged", [], gates, "The market is unjudged.")
    if not enough.passed:
        return decision("unjudged", [enough], gates)
    if market == "reject":
        return decision("reject", [], gates, "The market is rejected, and no stock is accepted alone.")
    if plausible.passed is False:
        return decision("review", [plausible], gates)
    if old:
        return decision("review", [], gates, "Worse than the last accepted run on the same days: "
                         f"{old['new_accuracy']:.1%} of its directions are right, {old['old_accuracy']:.1%} were.")
    failed, unknown = ([gate for gate in asked if gate.passed is state] for state in (False, None))
    if failed or unknown:
        return decision("reject" if failed else "unjudged", failed or unknown, gates)
    if market == "review":
        return decision("review", [], gates, "Passes, in a market for review.")
    return decision("accept", asked, gates)


def _decide_original(row: Any) -> dict[str, Any]:
    tier = next((name for least, name in TIERS.items() if row.accuracy > least), "below every tier")
    sharpe = np.nan if np.isnan(row.max_drawdown) else np.nan_to_num(row.sharpe)  # 0 for an account that never moved
    gates = [
        Gate.of("accuracy", "5-day accuracy above 52%", row.accuracy, ORIGINAL["accuracy"],
                row.accuracy > ORIGINAL["accuracy"], f"Accuracy {row.accuracy:.1%}, asked is more than 52%; tier: "
                f"{tier} (52% minimum, 54% acceptable, 56% good, 58% excellent).", row.accuracy_low, row.accuracy_high),
        Gate.of("rmse", "5-day RMSE below 0.03", row.rmse_5, ORIGINAL["rmse"], row.rmse_5 < ORIGINAL["rmse"],
                f"5-day RMSE {row.rmse_5:.4f} [log return], asked is less than 0.03."),
        Gate.of("sharpe", "Sharpe ratio above 0.8", sharpe, ORIGINAL["sharpe"], sharpe > ORIGINAL["sharpe"],
                f"Sharpe ratio {sharpe:.2f}, asked is more than 0.8."),
        Gate.of("drawdown", "maximum drawdown below 10%", row.max_drawdown, ORIGINAL["drawdown"],
                row.max_drawdown < ORIGINAL["drawdown"],
                f"Maximum drawdown {row.max_drawdown:.1%}, asked is less than 10%."),
    ]
    failed, unknown = ([gate for gate in gates if gate.passed is state] for state in (False, None))
    return decision("unjudged" if unknown else "reject" if failed else "accept", unknown or failed or gates, gates)


# --- words


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is not known is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _text(judged: pd.Series, basket: BasketResult | None, market: dict[str, Any], counts: dict[str, int],
          power: Mapping[str, float] | None) -> str:
    """The verdict in three sentences: the market, its stocks, and what such a verdict is worth."""
    said = {"accept": "accepted", "review": "for review", "reject": "rejected", "unjudged": "unjudged"}
    if market["decision"] == "accept":
        why = (f"the rank correlation of {judged['family']} is {judged['open']:.3f} (t {judged['open_t']:.1f}), and "
               f"after costs a basket of {basket.basket.k} earned {basket.totals.loc['basket', 'yearly']:.1%} a year, "
               f"alpha {basket.alpha:+.1%} (t {basket.alpha_t:.1f}).")
    else:
        why = market["reasons"][0][:1].lower() + market["reasons"][0][1:]
    others = ", ".join(f"{count} {said[name]}" for name, count in list(counts.items())[1:] if count)
    text = (f"The market is {said[market['decision']]}: {why} {counts['accept']} of {sum(counts.values())} stocks are "
            f"accepted{f' ({others})' if others else ''}.")
    return f"{text} {power_text(power)}".rstrip()


def power_text(power: Mapping[str, float] | None) -> str:
    """What the gates would have found, in a sentence; "" where it was not measured."""
    if not power:
        return ""
    return (f"These gates would have found {100 * power['0.04']:.0f} of 100 orders of 0.04, and pass "
            f"{100 * power['0.00']:.0f} of 100 without skill.")
