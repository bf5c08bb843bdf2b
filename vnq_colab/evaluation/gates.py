"""May this be traded? The market is judged first, by rank correlation and a basket after costs; then each stock.

One stock alone cannot prove a rank correlation of 0.1; the market can, within a year. In a `Gate`, `low, high` are a
95 % interval, and `passed` None is not measured.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import ge, gt, le, lt
from pathlib import Path
from typing import Any, Literal, NotRequired, Self, TypedDict, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtr

from vnq_colab.config import require_known
from vnq_colab.errors import name_a_few
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.basket_result import FEWEST_YEARLY_DAYS, BasketResult, records
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.significance import FEWEST_DATES, Z_95, confidence_set, deflated_sharpe, mean_test, shrink
from vnq_colab.files import read_sealed, write_sealed

Decision = Literal["accept", "review", "reject", "unjudged"]
DECISIONS = get_args(Decision)
Gate = TypedDict("Gate", dict.fromkeys(("gate", "asked"), str) | {"passed": bool | None, "sentence": NotRequired[str]}
                 | dict.fromkeys(("measured", "low", "high", "needed"), float | None))
GATE_SETS = ("honest", "original")
FEWEST_SYMBOLS, FEWEST_DAYS = 20, 500
MOST_P_ORDER, MOST_P_BASKET = 0.01, 0.05  # after the multiple-testing charge
LEAST_BEATEN, LEAST_PROBABILITY = 0.95, 0.95  # of random baskets; that the Sharpe ratio is no luck
MOST_CORRELATION, MOST_SHARPE, MOST_ACCURACY = 0.2, 4.0, 0.65  # above: too good to be true
FEWEST_SYMBOL_DAYS = 250  # chosen: a year; below, the error of a place is as large as any place
LEAST_PLACE = 0.9  # [probability] that its place in the order is above 0
MOST_LOCKED = 0.1  # [fraction of days] on which it could not be bought
ORIGINAL = {"accuracy": 0.52, "rmse": 0.03, "sharpe": 0.8, "drawdown": 0.10}  # the project's source texts
TOO_GOOD = "too good to be true: look for a leak, in the data too"
TIERS = {0.58: "excellent", 0.56: "good", 0.54: "acceptable", 0.52: "minimum"}


class Decided(TypedDict):
    """What is decided on the market or on a symbol."""
    decision: Decision
    reasons: list[str]  # sentences
    gates: list[Gate]


@dataclass(frozen=True, repr=False)
class Verdict:
    """The decision on the market and on every symbol, with reasons; plain values only, exact to and from JSON."""

    run_id: str
    gate_set: str
    summary: dict[str, Any]  # text: three sentences; decisions: counts; what else the report prints
    market: Decided
    symbols: dict[str, Decided]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def save(self, path: Path) -> None:
        write_sealed(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """The verdict in `path`. Raises CheckpointError when it is damaged, FileNotFoundError when it is not there."""
        return read_sealed(path, cls)

    def __repr__(self) -> str:
        of = f" on {self.run_id}" if self.run_id else ""
        lines = [f"Verdict of the {self.gate_set} gates{of}: {self.summary['text']}",
                 f"  market: {self.market['decision']}", *(f"    {reason}" for reason in self.market["reasons"])]
        for decision in ("accept", "review"):
            names = [symbol for symbol, row in self.symbols.items() if row["decision"] == decision]
            lines += [f"  {decision}: {name_a_few(names, 20)}"] if names else []
        return "\n".join(lines)


def judge(order: Order, basket: BasketResult | None, symbols: pd.DataFrame, *, gates: str = "honest", run_id: str = "",
          n_trials: int = 1, accuracy: Mapping[str, float] | None = None, n_universe: int = 0,
          previous: dict[str, Any] | None = None, leak_checks: list[dict[str, Any]] | None = None,
          data_leaks: Sequence[str] = (), power: dict[str, float] | None = None,
          original: dict[str, float] | None = None) -> Verdict:
    """Decides on the market, and then on every symbol, whether the forecasts of `order.family` may be traded.

    Gates `original`, those of the project's source texts, decide on the symbols alone. `symbols`: one row per judged
    symbol, `Order.symbols` joined with its accuracy (`metrics.score_rows`) and its own account (`Backtest.symbols`).
    `basket` None: too few symbols. `n_trials` configurations were evaluated on these test days, this one included:
    p-values are charged for all of them. `accuracy`: pooled, by family. The market is for review at most where `order`
    covers fewer than `n_universe` stocks (somebody chose them), where `previous`, the last accepted run on the same
    days, was better (`worse`), and where there are `data_leaks`, sentences of `data.lookahead`.
    """
    require_known(gates, GATE_SETS, "gate set")
    chosen = "" if len(order.symbols) >= n_universe else (
        f"Only {len(order.symbols)} of the {n_universe} stocks of these data are measured: a choice made after a first "
        "report looks better than it is, so judge all of them.")
    numbers = dict.fromkeys(("alpha", "alpha_p", "beaten", "probability"), np.nan)
    if basket is not None and np.isfinite(basket.alpha):  # else there is none, or its days are too few
        excess = (basket.returns["basket"] - basket.returns["equal_weighted"]).dropna()
        numbers = {"alpha": basket.alpha, "alpha_p": basket.alpha_p, "beaten": basket.beaten,
                   "probability": float(deflated_sharpe(excess, n_trials))}
    required = market_gates(order.daily[order.family].dropna().to_numpy(), len(symbols), n_trials, **numbers)
    doubt = previous["text"] if previous and previous["worse"] else chosen
    plausible = plausible_gates(order.families, basket, accuracy or {})
    market = _decide_market(required, plausible, leak_checks, doubt, data_leaks)
    doubts = [*data_leaks, *(gate["sentence"] for gate in plausible if gate["passed"] is False)]
    rule, capital = (Basket(), 1e9) if basket is None else (basket.basket, basket.capital)
    value = capital / rule.k / rule.traded_share  # [VND a day] needed for one position
    by_honest, by_original = {}, {}
    for row, place, error in zip(symbols.itertuples(index=False), *shrink(symbols["place"], symbols["place_error"]),
                                 strict=True):
        tests = symbol_gates(row, place, error, value)
        by_honest[row.symbol] = _decide_symbol(tests, market["decision"])
        own = [gate["sentence"] for gate in tests[-1:] if gate["passed"] is False]
        by_original[row.symbol] = _decide(*[original_gates(row)] * 2, own + doubts[:1])
    decided = by_original if gates == "original" else by_honest
    counts = {name: sum(row["decision"] == name for row in decided.values()) for name in DECISIONS}
    n_pass = sum(all(gate["passed"] for gate in row["gates"]) for row in by_original.values())
    return Verdict(run_id, gates, {
        "text": _text(order, basket, market, counts, power), "decisions": counts, "families": records(order.families),
        "by_year": records(order.by_year[order.by_year["family"] == order.family]),
        "quantiles": records(order.quantiles), "basket": None if basket is None else basket.to_dict(), "power": power,
        "confidence_set": confidence_set(order.daily), "evaluations": {"n_trials": int(n_trials), "text": chosen},
        "original": {"n_pass": n_pass} | (original or {}), "previous": previous, "leak_checks": leak_checks,
        "data_leaks": [*data_leaks],
    }, market, decided)


# --------------------------------------------------------------------------------------------------------------- gates
def _gate(name: str, asked: str, measured: float, compare: Callable[[float, float], bool], needed: float, says: str,
          is_certain: bool = True, low: float = np.nan, high: float = np.nan) -> Gate:
    """A gate that passes where `compare(measured, needed)` holds and it is certain enough; NaN: not measured."""
    numbers = {"measured": measured, "low": low, "high": high, "needed": needed}
    numbers = {key: float(value) if np.isfinite(value) else None for key, value in numbers.items()}
    is_measured = numbers["measured"] is not None
    return {"gate": name, "asked": asked, **numbers,
            "passed": bool(compare(measured, needed) and is_certain) if is_measured else None,
            "sentence": f"{says} (asked: {asked})." if is_measured else f"Not measured: {asked}."}


def market_gates(daily: np.ndarray, n_symbols: int, n_trials: int = 1, *, alpha: float, alpha_p: float, beaten: float,
                 probability: float) -> list[Gate]:
    """The gates of a market with `daily [days]` rank correlations, not measured where they are too few for a t.

    Of a basket: `alpha` a year with its p, share of random baskets `beaten`, deflated Sharpe ratio (a `probability`).
    """
    test, charge = mean_test(daily), f"charged for {n_trials} test-set evaluation{'s' * (n_trials > 1)}"
    correlation = test.mean if test.n_days >= FEWEST_DATES else np.nan
    p_order, p_basket = (min(1.0, float(p) * n_trials) for p in (test.p, alpha_p))  # 1 where there is no spread
    interval = f", 95% interval {test.low:.3f} to {test.high:.3f}" if np.isfinite(test.low) else ""
    return [
        _gate("enough_symbols", f"at least {FEWEST_SYMBOLS} judged stocks", n_symbols, ge, FEWEST_SYMBOLS,
              f"{n_symbols} stocks are judged"),
        _gate("enough_days", f"at least {FEWEST_DAYS} test days", test.n_days, ge, FEWEST_DAYS,
              f"{test.n_days:,} test days are judged"),
        _gate("order", f"a rank correlation above 0 with p of at most {MOST_P_ORDER:g}", correlation, gt, 0.0,
              f"The rank correlation with tradable returns is {test.mean:.3f}{interval}, p = {p_order:.2g} {charge}",
              p_order <= MOST_P_ORDER, test.low, test.high),
        _gate("basket", f"a basket's alpha after costs above 0 with p of at most {MOST_P_BASKET:g}", alpha, gt, 0.0,
              f"After costs the basket has an alpha of {alpha:+.1%} a year over the equal-weighted universe, p = "
              f"{p_basket:.2g} {charge}", p_basket <= MOST_P_BASKET),
        _gate("random_baskets", f"an alpha above that of {LEAST_BEATEN:.0%} of random baskets", beaten, gt,
              LEAST_BEATEN, f"It beats {beaten:.1%} of random baskets of the same turnover"),
        _gate("deflated_sharpe", f"a deflated Sharpe ratio above {LEAST_PROBABILITY:g}", probability, gt,
              LEAST_PROBABILITY, f"The deflated Sharpe ratio of its excess returns is {probability:.3f}, {charge}"),
    ]


def plausible_gates(families: pd.DataFrame, basket: BasketResult | None, accuracy: Mapping[str, float]) -> list[Gate]:
    """What is too good to be true, of any family: correlation, Sharpe ratio of the basket, pooled accuracy."""
    families = families.sort_values("open", ascending=False)
    best, high = families.iloc[0], families.loc[families["open"] > MOST_CORRELATION, "family"][1:]
    pooled = pd.Series({"no family": np.nan} | dict(accuracy)).sort_values(ascending=False)  # NaN comes last
    enough = 1.0 if families["n_days"].max() >= FEWEST_DATES else np.nan
    sharpe = np.nan if basket is None else float(basket.totals.loc["basket", "sharpe"])
    return [
        _gate("plausible_order", f"no family with a rank correlation above {MOST_CORRELATION:g}", enough * best["open"],
              le, MOST_CORRELATION, f"The rank correlation of {best['family']} is {best['open']:.3f}"
              f"{f' (too high also of {name_a_few(high)})' if len(high) else ''}, {TOO_GOOD}"),
        _gate("plausible_sharpe", f"a net Sharpe ratio of at most {MOST_SHARPE:g}", sharpe, le, MOST_SHARPE,
              f"The basket's Sharpe ratio is {sharpe:.1f}, {TOO_GOOD}"),
        _gate("plausible_accuracy", f"no family with a pooled accuracy above {MOST_ACCURACY:.0%}",
              enough * pooled.iloc[0], le, MOST_ACCURACY,
              f"The accuracy of {pooled.index[0]} is {pooled.iloc[0]:.1%}, {TOO_GOOD}"),
    ]


def symbol_gates(row: Any, place: float, error: float, value: float) -> list[Gate]:
    """The gates of a row of `symbols`: its shrunk `place` with its error, and the traded value that is needed [VND]."""
    probability = float(ndtr(place / error))
    return [
        _gate("enough_days", f"at least {FEWEST_SYMBOL_DAYS} scored days", row.n_days, ge, FEWEST_SYMBOL_DAYS,
              f"{row.n_days:,.0f} days are scored"),
        _gate("place", f"a share in the rank correlation above 0 with at least {LEAST_PLACE:.0%} probability",
              place, gt, 0.0, f"Its share in the rank correlation, shrunk (empirical Bayes), is {place:.3f}, above 0 "
              f"with probability {probability:.0%}", probability >= LEAST_PLACE, place - Z_95 * error,
              place + Z_95 * error),
        _gate("traded_value", f"at least {value / 1e9:.1f} bn VND a day, so that one position of the basket is a small "
              "part", row.traded_value, ge, value, f"Median traded value {row.traded_value / 1e9:.1f} bn VND a day"),
        _gate("locked", f"not to be bought on at most {MOST_LOCKED:.0%} of the days", row.locked, le, MOST_LOCKED,
              f"Not to be bought on {row.locked:.1%} of the days"),
        _gate("plausible_accuracy", f"an accuracy of at most {MOST_ACCURACY:.0%}", row.accuracy, le, MOST_ACCURACY,
              f"Accuracy {row.accuracy:.1%}, {TOO_GOOD}"),
    ]


def original_gates(row: Any) -> list[Gate]:
    """Those of the project's source texts. The Sharpe ratio of an account that never moved is 0."""
    tier = next((name for least, name in TIERS.items() if row.accuracy > least), "below every tier")
    is_known = row.n_days >= FEWEST_YEARLY_DAYS and np.isfinite(row.max_drawdown)
    sharpe = np.nan_to_num(row.sharpe) if is_known else np.nan
    return [
        _gate("accuracy", "a 5-day accuracy above 52% (minimum; 54% acceptable, 56% good, 58% excellent)", row.accuracy,
              gt, ORIGINAL["accuracy"], f"Accuracy {row.accuracy:.1%}, {tier}", True, row.accuracy_low,
              row.accuracy_high),
        _gate("rmse", "a 5-day RMSE below 0.03", row.rmse_5, lt, ORIGINAL["rmse"],
              f"5-day RMSE {row.rmse_5:.4f} [log return]"),
        _gate("sharpe", "a Sharpe ratio above 0.8", sharpe, gt, ORIGINAL["sharpe"], f"Sharpe ratio {sharpe:.2f}"),
        _gate("drawdown", "a maximum drawdown below 10%", row.max_drawdown, lt, ORIGINAL["drawdown"],
              f"Maximum drawdown {row.max_drawdown:.1%}"),
    ]


# ----------------------------------------------------------------------------------------------------------- decisions
def _decide_market(required: list[Gate], plausible: list[Gate], leak_checks: list[dict[str, Any]] | None,
                   doubt: str, data_leaks: Sequence[str]) -> Decided:
    gates, suspicious = required + plausible, [gate for gate in plausible if gate["passed"] is False]
    leaks = [check["sentence"] for check in leak_checks or [] if not check["passed"]]
    if suspicious and leak_checks and not leaks:
        leaks = [f"All {len(leak_checks)} leak checks pass; they prove the code, not the provider's data."]
    short = [gate for gate in required[:2] if not gate["passed"]]
    if short or suspicious or leaks or data_leaks:
        market = _decision("unjudged" if short else "review", short + suspicious, gates, *leaks)
    else:
        market = _decide(required, gates, [doubt] if doubt else [])
    return market | {"reasons": [*data_leaks, *market["reasons"]]}


def _decide_symbol(gates: list[Gate], market: str) -> Decided:
    """In a market with that decision."""
    enough, *required, plausible = gates
    if market == "unjudged":
        return _decision("unjudged", [], gates, "The market is unjudged.")
    if not enough["passed"]:
        return _decision("unjudged", [enough], gates)
    if market == "reject":
        return _decision("reject", [], gates, "The market is rejected, and no stock is accepted alone.")
    if plausible["passed"] is False:
        return _decision("review", [plausible], gates)
    return _decide(required, gates, ["Passes, in a market for review."] if market == "review" else [])


def _decide(required: list[Gate], gates: list[Gate], doubts: list[str]) -> Decided:
    """By the required of the gates; what would be accepted is for review where there are doubts."""
    failed, unknown = ([gate for gate in required if gate["passed"] is state] for state in (False, None))
    if failed or unknown:
        return _decision("reject" if failed else "unjudged", failed or unknown, gates)
    return _decision("review", [], gates, *doubts) if doubts else _decision("accept", required, gates)


def _decision(name: str, because: list[Gate], gates: list[Gate], *more: str) -> Decided:
    """A decision with its reasons: the sentences of some gates, and more."""
    return {"decision": name, "reasons": [gate["sentence"] for gate in because] + list(more),
            "gates": [{key: value for key, value in gate.items() if key != "sentence"} for gate in gates]}


def _text(order: Order, basket: BasketResult | None, market: dict[str, Any], counts: dict[str, int],
          power: Mapping[str, float] | None) -> str:
    """The verdict in three sentences: the market, its stocks, and its power."""
    words = dict(zip(DECISIONS, ("accepted", "for review", "rejected", "unjudged"), strict=True))
    if market["decision"] == "accept":
        row = order.families[order.families["family"] == order.family].iloc[0]
        why = (f"the rank correlation of {order.family} is {row['open']:.3f} (t {row['open_t']:.1f}), and after costs "
               f"a basket of {basket.basket.k} earned {basket.totals.loc['basket', 'yearly']:.1%} a year, alpha "
               f"{basket.alpha:+.1%} (t {basket.alpha_t:.1f}).")
    else:
        why = market["reasons"][0][:1].lower() + market["reasons"][0][1:]
    others = ", ".join(f"{n} {words[name]}" for name, n in counts.items() if n and name != "accept")
    text = (f"The market is {words[market['decision']]}: {why} {counts['accept']} of {sum(counts.values())} stocks "
            f"are accepted{f' ({others})' if others else ''}.")
    return text if not power else (
        f"{text} Power: these gates accept {100 * power['0.04']:.0f} of 100 simulated forecasts with a rank "
        f"correlation of 0.04, and {100 * power['0.00']:.0f} of 100 with no skill.")


def too_good(verdict: Verdict) -> bool:
    """Whether a number is too good to be true: then search the run for leaks, and judge again."""
    return any(gate["gate"].startswith("plausible") and gate["passed"] is False
               for row in (verdict.market, *verdict.symbols.values()) for gate in row["gates"])
