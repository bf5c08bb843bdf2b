"""May this be traded? The market is judged first, by rank correlation and a basket after costs; then each stock.

One stock alone cannot prove a rank correlation of 0.1; the market can, within a year.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import pandas as pd

from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.basket_result import BasketResult
from vnq_colab.evaluation.gates import Gate, basket_numbers, market_gates, original_gates, plausible_gates, symbol_gates
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.significance import FEWEST_DATES, model_confidence_set, shrink
from vnq_colab.files import read_json, write_json

DECISIONS = ("accept", "review", "reject", "unjudged")
GATE_SETS = ("honest", "original")
CONFIDENCE_SET = 0.1  # [p-value] of the 90 % model confidence set


@dataclass(frozen=True, repr=False)
class Verdict:
    """The decision on the market and on every symbol, with reasons; plain values only, exact to and from JSON."""

    run_id: str
    gate_set: str
    summary: dict[str, Any]  # text: three sentences; decisions: counts; what else the report prints
    market: dict[str, Any]  # decision, reasons [sentences], gates
    symbols: dict[str, dict[str, Any]]  # the same of each

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The verdict that `to_dict` wrote."""
        return cls(*(value[field.name] for field in fields(cls)))

    def save(self, path: Path) -> None:
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """The verdict in `path`. Raises CheckpointError when it is damaged, FileNotFoundError when it is not there."""
        return cls.from_dict(read_json(path))

    def __repr__(self) -> str:
        of = f" on {self.run_id}" if self.run_id else ""
        lines = [f"Verdict of the {self.gate_set} gates{of}: {self.summary['text']}",
                 f"  market: {self.market['decision']}", *(f"    {reason}" for reason in self.market["reasons"])]
        for decision in ("accept", "review"):
            names = [symbol for symbol, row in self.symbols.items() if row["decision"] == decision]
            lines += [f"  {decision}: {', '.join(names)}"] if names else []
        return "\n".join(lines)


def judge(order: Order, basket: BasketResult | None, symbols: pd.DataFrame, *, gates: str = "honest", run_id: str = "",
          n_trials: int = 1, accuracy: Mapping[str, float] | None = None, n_universe: int | None = None,
          previous: dict[str, Any] | None = None, leak_checks: list[dict[str, Any]] | None = None,
          power: dict[str, float] | None = None, original: dict[str, float] | None = None) -> Verdict:
    """Decides on the market, and then on every symbol, whether the forecasts of `order.family` may be traded.

    Gates `original`, those of the project's source texts, decide on the symbols alone.

    `symbols`: one row per judged symbol, `Order.symbols` joined with its accuracy (`metrics.score_rows`) and its own
    account (`Backtest.symbols`). `basket` None: too few symbols. `n_trials` configurations were evaluated on these test
    days, this one included: p-values are charged for all of them. `accuracy`: pooled, by family. Where `order` covers
    fewer than `n_universe` stocks, somebody chose them, and the market is for review at most; so it is where
    `previous`, the last accepted run on the same days, was better (`worse` is true). It is kept in the summary, as are
    `power` and `original`, of `power`.
    """
    if gates not in GATE_SETS:
        raise ConfigError(f"there is no gate set {gates!r}.{did_you_mean(str(gates), GATE_SETS)}")
    chosen = ""
    if n_universe is not None and len(order.symbols) < n_universe:
        chosen = (f"Only {len(order.symbols)} of the {n_universe} stocks of these data are measured: a choice made "
                  "after a first report looks better than it is, so judge all of them.")
    required = market_gates(order.daily[order.family].dropna().to_numpy(), len(symbols), n_trials,
                         **basket_numbers(basket, n_trials))
    doubt = previous["text"] if previous and previous["worse"] else chosen
    market = _decide_market(required, plausible_gates(order.families, basket, accuracy or {}), leak_checks, doubt)
    rule, capital = (Basket(), 1e9) if basket is None else (basket.basket, basket.capital)
    value = capital / rule.k / rule.traded_share  # [VND a day] needed for one position
    by_honest, by_original = {}, {}
    for row, place, error in zip(symbols.itertuples(index=False), *shrink(symbols["place"], symbols["place_error"]),
                                 strict=True):
        by_honest[row.symbol] = _decide_symbol(symbol_gates(row, place, error, value), market["decision"])
        tests = original_gates(row)
        by_original[row.symbol] = _decision(*_outcome(tests), tests)
    decided = by_original if gates == "original" else by_honest
    counts = {name: sum(row["decision"] == name for row in decided.values()) for name in DECISIONS}
    n_pass = sum(row["decision"] == "accept" for row in by_original.values())
    return Verdict(run_id, gates, {
        "text": _text(order, basket, market, counts, power), "decisions": counts, "families": _records(order.families),
        "by_year": _records(order.by_year[order.by_year["family"] == order.family]),
        "quantiles": _records(order.quantiles), "basket": None if basket is None else basket.to_dict(), "power": power,
        "confidence_set": confidence_set(order.daily), "evaluations": {"n_trials": int(n_trials), "text": chosen},
        "original": {"n_pass": n_pass} | (original or {}), "previous": previous, "leak_checks": leak_checks,
    }, market, decided)


def too_good(verdict: Verdict) -> bool:
    """Whether a number is too good to be true: then search the run for leaks, and judge again."""
    return any(gate["gate"].startswith("plausible") and gate["passed"] is False
               for row in (verdict.market, *verdict.symbols.values()) for gate in row["gates"])


def confidence_set(daily: pd.DataFrame) -> list[str]:
    """The families of `daily [days, families]` that cannot be told from the best, best first: 90 % confidence."""
    daily = daily.dropna(axis=1, how="all").dropna()
    if len(daily) < FEWEST_DATES:
        return []
    p_values = pd.Series(model_confidence_set(-daily.to_numpy()), index=daily.columns)
    return [str(name) for name in daily.mean().sort_values(ascending=False).index if p_values[name] > CONFIDENCE_SET]


def _decide_market(required: list[Gate], plausible: list[Gate], leak_checks: list[dict[str, Any]] | None,
                   doubt: str) -> dict[str, Any]:
    gates = required + plausible
    suspicious = [gate for gate in plausible if gate["passed"] is False]
    leaks = [check["sentence"] for check in leak_checks or [] if not check["passed"]]
    if suspicious and leak_checks and not leaks:
        leaks = [f"All {len(leak_checks)} leak checks pass; they prove the code, not the provider's data."]
    if short := [gate for gate in required[:2] if not gate["passed"]]:
        return _decision("unjudged", short + suspicious, gates, *leaks)
    if suspicious or leaks:
        return _decision("review", suspicious, gates, *leaks)
    name, because = _outcome(required)
    if name == "accept" and doubt:
        return _decision("review", [], gates, doubt)
    return _decision(name, because, gates)


def _decide_symbol(gates: list[Gate], market: str) -> dict[str, Any]:
    """In a market with that decision."""
    enough, *required, plausible = gates
    name, because = _outcome(required)
    if market == "unjudged":
        return _decision("unjudged", [], gates, "The market is unjudged.")
    if not enough["passed"]:
        return _decision("unjudged", [enough], gates)
    if market == "reject":
        return _decision("reject", [], gates, "The market is rejected, and no stock is accepted alone.")
    if plausible["passed"] is False:
        return _decision("review", [plausible], gates)
    if name == "accept" and market == "review":
        return _decision("review", [], gates, "Passes, in a market for review.")
    return _decision(name, because, gates)


def _outcome(gates: list[Gate]) -> tuple[str, list[Gate]]:
    """The decision on some gates, and those that decide."""
    failed, unknown = ([gate for gate in gates if gate["passed"] is state] for state in (False, None))
    return ("reject", failed) if failed else ("unjudged", unknown) if unknown else ("accept", gates)


def _decision(name: str, because: list[Gate], gates: list[Gate], *more: str) -> dict[str, Any]:
    """A decision with its reasons: the sentences of some gates, and more."""
    return {"decision": name, "reasons": [gate["sentence"] for gate in because] + list(more),
            "gates": [{key: value for key, value in gate.items() if key != "sentence"} for gate in gates]}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is not known is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


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
    others = ", ".join(f"{counts[name]} {words[name]}" for name in DECISIONS[1:] if counts[name])
    text = (f"The market is {words[market['decision']]}: {why} {counts['accept']} of {sum(counts.values())} stocks "
            f"are accepted{f' ({others})' if others else ''}.")
    return text if not power else (
        f"{text} Power: these gates accept {100 * power['0.04']:.0f} of 100 simulated forecasts with a rank "
        f"correlation of 0.04, and {100 * power['0.00']:.0f} of 100 with no skill.")
