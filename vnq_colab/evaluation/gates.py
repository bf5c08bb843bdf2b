"""Which models deserve to be used: gates with numbers, a decision for each symbol, and what the gates are worth."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.metrics import summary
from vnq_colab.evaluation.significance import benjamini_hochberg, binomial_p
from vnq_colab.files import read_json, write_json

GATE_SETS = ("honest", "original")
DECISIONS = ("accept", "review", "reject", "unjudged")
MIN_WINDOWS = 30  # chosen: with fewer independent windows even a true 60 % is found less than one time in three
FALSE_FINDS = 0.05  # [fraction] of the accepted that may be luck, Benjamini-Hochberg
MOST_ACCURACY, MOST_SHARPE = 0.65, 4.0  # above: look for a leak first
ORIGINAL = {"accuracy": 0.52, "rmse": 0.03, "sharpe": 0.8, "drawdown": 0.10}
TIERS = {0.58: "excellent", 0.56: "good", 0.54: "acceptable", 0.52: "minimum"}
N_SIMULATED, TRUE_SKILLS = 1000, (0.55, 0.58, 0.60)


@dataclass(frozen=True)
class Gate:
    """One question to one model. `passed` None: it could not be measured."""

    gate: str
    asked: str
    measured: float | None
    low: float | None
    high: float | None
    needed: float | None
    passed: bool | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "sentence"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """The decision for every symbol, with reasons; plain values only, exact to and from JSON."""

    run_id: str
    gate_set: str
    summary: dict[str, Any]  # decisions: counts; text: three sentences; gate_sets: what each set passes, and would pass
    symbols: dict[str, dict[str, Any]]  # decision, reasons [sentences], gates

    def to_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "gate_set": self.gate_set, "summary": self.summary, "symbols": self.symbols}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The verdict that `to_dict` wrote."""
        return cls(value["run_id"], value["gate_set"], value["summary"], value["symbols"])

    def save(self, path: Path) -> None:
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """The verdict in `path`. Raises CheckpointError when it is damaged, FileNotFoundError when it is not there."""
        return cls.from_dict(read_json(path))

    def __repr__(self) -> str:
        of = f" on {self.run_id}" if self.run_id else ""
        lines = [f"Verdict of the {self.gate_set} gates{of}: {self.summary['text']}"]
        for decision in DECISIONS[:2]:
            names = [symbol for symbol, found in self.symbols.items() if found["decision"] == decision]
            lines += [f"  {decision}: {', '.join(names)}"] if names else []
        return "\n".join(lines)


def judge(scores: pd.DataFrame, result: Backtest, *, gates: str = "honest", run_id: str = "",
          family: str = "stockformer") -> Verdict:
    """Decides for every symbol of the scores and the backtest whether the model of `family` may be used.

    `honest`: a symbol with fewer than 30 independent windows is `unjudged`; one that fails a gate is a `reject`; one
    that could not be asked everything (no opponents in the scores) is `unjudged`; one that passes everything but is too
    good to be true is for `review`; the others are an `accept`. `original` are the gates of the project's source texts:
    `accept` or `reject`. `summary` says how many pass either set, and how much a pass is worth.
    """
    if gates not in GATE_SETS:
        raise ConfigError(f"there is no gate set {gates!r}.{did_you_mean(gates, GATE_SETS)}")
    families = list(scores["family"].unique())
    if family not in families:
        raise ConfigError(f"the scores have no family {family!r}.{did_you_mean(family, families)} "
                          "Choose one with family=.")
    if result.family != family:
        raise ConfigError(f"the backtest is of {result.family!r}, to be judged is {family!r}. "
                          f"Backtest with family={family!r}.")
    rows = _rows(scores, result, family)
    verdicts = {
        "honest": {row.symbol: _decide_honest(_honest(row)) for row in rows.itertuples(index=False)},
        "original": {row.symbol: _decide_original(_original(row)) for row in rows.itertuples(index=False)},
    }
    chosen = verdicts[gates]
    counts = {name: sum(found["decision"] == name for found in chosen.values()) for name in DECISIONS}
    passing = {name: sum(found["decision"] == "accept" for found in part.values()) for name, part in verdicts.items()}
    about = {
        "decisions": counts,
        "text": _text(counts, gates, scores, result, family),
        "gate_sets": {name: {"n_symbols": len(rows), "n_pass": passing[name]} | what_a_pass_is_worth(rows, name)
                      for name in GATE_SETS},
    }
    return Verdict(run_id, gates, about, chosen)


def _rows(scores: pd.DataFrame, result: Backtest, family: str) -> pd.DataFrame:
    """One row per symbol: its scores, its backtest, its best opponent, and its p-value among all that are judged."""
    rows = scores[scores["family"] == family].merge(result.symbols, on="symbol", how="outer").sort_values("symbol")
    rows = rows.rename(columns={"return": "gain"})  # a field of a named tuple must not be a keyword
    others = scores[scores["family"] != family]
    best = others.dropna(subset="accuracy").sort_values(["accuracy", "family"]).groupby("symbol").last()
    rows["best"] = rows["symbol"].map(best["accuracy"]).astype("float64")
    rows["best_name"] = rows["symbol"].map(best["family"])
    zero = others[others["family"] == "zero"].set_index("symbol")["rmse_5"]
    rows["rmse_zero"] = rows["symbol"].map(zero).astype("float64")
    rows["n_independent"] = rows["n_independent"].fillna(0).astype("int64")
    enough = rows["n_independent"] >= MIN_WINDOWS
    p_values = binomial_p(rows["accuracy"] * rows["n_independent"], rows["n_independent"], rows["base_rate"])
    rows["p"] = benjamini_hochberg(np.where(enough, p_values, np.nan))
    return rows.reset_index(drop=True)


def _gate(gate: str, asked: str, measured: float, needed: float, passed: bool | None, sentence: str,
          low: float = math.nan, high: float = math.nan) -> Gate:
    """A Gate of plain values; what is not a number becomes None, and without both its numbers nothing was measured."""
    numbers = [float(value) if math.isfinite(value) else None for value in (measured, low, high, needed)]
    known = passed is not None and numbers[0] is not None and numbers[3] is not None
    if not known:
        sentence = f"Not measured: {asked}."
    return Gate(gate, asked, *numbers, bool(passed) if known else None, sentence)


def _than(passed: bool | None, yes: str, no: str) -> str:
    return yes if passed else no


def _honest(row: Any) -> list[Gate]:
    """The honest gates of one symbol, in the order in which they are asked."""
    above = None if math.isnan(row.p) else row.accuracy > row.base_rate and row.p <= FALSE_FINDS
    level = row.accuracy >= row.best
    smaller, gains, sharper = row.rmse_5 < row.rmse_zero, row.gain > 0, row.sharpe > row.buy_and_hold_sharpe
    accuracy = f"{row.accuracy:.1%} of the 5-day directions are right"
    return [
        _gate("enough_windows", f"at least {MIN_WINDOWS} independent 5-day windows", row.n_independent, MIN_WINDOWS,
              row.n_independent >= MIN_WINDOWS,
              f"{row.n_independent} independent 5-day windows, {MIN_WINDOWS} are needed."),
        _gate("beats_base_rate", f"5-day accuracy above the base rate with an adjusted p of at most {FALSE_FINDS:.0%}",
              row.accuracy, row.base_rate, above,
              f"{accuracy} (95% interval {row.accuracy_low:.1%} to {row.accuracy_high:.1%}, {row.n_independent} "
              f"windows), {_than(above, 'more', 'not clearly more')} than the base rate of {row.base_rate:.1%} "
              f"(adjusted p = {row.p:.2g}).", row.accuracy_low, row.accuracy_high),
        _gate("beats_opponents", "5-day accuracy at least that of the best opponent on the same days", row.accuracy,
              row.best, level, f"{accuracy}, {_than(level, 'no fewer', 'fewer')} than the {row.best:.1%} of the best "
              f"opponent ({row.best_name}).", row.accuracy_low, row.accuracy_high),
        _gate("beats_zero_forecast", "5-day RMSE below that of the zero forecast", row.rmse_5, row.rmse_zero, smaller,
              f"5-day RMSE {row.rmse_5:.4f}, {_than(smaller, 'below', 'not below')} the zero forecast's "
              f"{row.rmse_zero:.4f} [log return]."),
        _gate("profit_after_costs", "a return above 0 after all costs", row.gain, 0.0, gains,
              f"Return {row.gain:+.1%} after costs, {_than(gains, 'a gain', 'no gain')}."),
        _gate("beats_buy_and_hold", "a Sharpe ratio above that of buy-and-hold", _traded(row.sharpe, row.gain),
              row.buy_and_hold_sharpe, sharper,
              f"Sharpe ratio {row.sharpe:.2f}, {_than(sharper, 'above', 'not above')} buy-and-hold's "
              f"{row.buy_and_hold_sharpe:.2f}." if math.isfinite(row.sharpe)
              else f"It never traded; buy-and-hold has a Sharpe ratio of {row.buy_and_hold_sharpe:.2f}."),
        _gate("plausible_accuracy", f"accuracy of at most {MOST_ACCURACY:.0%}; more is a leak until shown otherwise",
              row.accuracy, MOST_ACCURACY, row.accuracy <= MOST_ACCURACY,
              f"Accuracy {row.accuracy:.1%}; above {MOST_ACCURACY:.0%} is too good to be true: look for a leak."),
        _gate("plausible_sharpe", f"a Sharpe ratio of at most {MOST_SHARPE:g}; more is a leak until shown otherwise",
              _traded(row.sharpe, row.gain), MOST_SHARPE, not row.sharpe > MOST_SHARPE,
              f"Sharpe ratio {row.sharpe:.2f}; above {MOST_SHARPE:g} is too good to be true: look for a leak."),
    ]


def _traded(sharpe: float, gain: float) -> float:
    """The Sharpe ratio, 0 for an account that was there and never moved, NaN where there was no account."""
    return 0.0 if math.isnan(sharpe) and math.isfinite(gain) else sharpe


def _decide_honest(gates: list[Gate]) -> dict[str, Any]:
    skill = [gate for gate in gates if not gate.gate.startswith("plausible")]
    failed = [gate for gate in gates if gate.passed is False]
    if not gates[0].passed:
        return _decision("unjudged", gates[:1], gates)
    if any(gate.passed is False for gate in skill):
        return _decision("reject", failed, gates)
    if unmeasured := [gate for gate in gates if gate.passed is None]:
        return _decision("unjudged", unmeasured, gates)
    return _decision("review", failed, gates) if failed else _decision("accept", skill, gates)


def _original(row: Any) -> list[Gate]:
    """The gates of the project's source texts."""
    need, sharpe = ORIGINAL, _traded(row.sharpe, row.gain)
    tier = next((name for least, name in TIERS.items() if row.accuracy > least), "below every tier")
    return [
        _gate("accuracy", "5-day accuracy above 52%", row.accuracy, need["accuracy"], row.accuracy > need["accuracy"],
              f"Accuracy {row.accuracy:.1%}, asked is more than 52%; tier: {tier} (52% minimum, 54% acceptable, "
              "56% good, 58% excellent).", row.accuracy_low, row.accuracy_high),
        _gate("rmse", "5-day RMSE below 0.03", row.rmse_5, need["rmse"], row.rmse_5 < need["rmse"],
              f"5-day RMSE {row.rmse_5:.4f} [log return], asked is less than 0.03; per day (h = 1) it is "
              f"{row.rmse_1:.4f}, where the zero forecast meets 0.03 as well."),
        _gate("sharpe", "Sharpe ratio above 0.8", sharpe, need["sharpe"], sharpe > need["sharpe"],
              f"Sharpe ratio {sharpe:.2f}, asked is more than 0.8; buy-and-hold has {row.buy_and_hold_sharpe:.2f}."),
        _gate("drawdown", "maximum drawdown below 10%", row.max_drawdown, need["drawdown"],
              row.max_drawdown < need["drawdown"],
              f"Maximum drawdown {row.max_drawdown:.1%}, asked is less than 10%; buy-and-hold has "
              f"{row.buy_and_hold_drawdown:.1%}."),
    ]


def _decide_original(gates: list[Gate]) -> dict[str, Any]:
    if unmeasured := [gate for gate in gates if gate.passed is None]:
        return _decision("unjudged", unmeasured, gates)
    failed = [gate for gate in gates if not gate.passed]
    return _decision("reject", failed, gates) if failed else _decision("accept", gates, gates)


def _decision(decision: str, because: list[Gate], gates: list[Gate]) -> dict[str, Any]:
    return {"decision": decision, "reasons": [gate.sentence for gate in because],
            "gates": [gate.to_dict() for gate in gates]}


def what_a_pass_is_worth(rows: pd.DataFrame, gates: str) -> dict[str, Any]:
    """How many forecasters without skill a gate set passes, and for `honest` how much true skill it would find.

    Simulates 1,000 markets with the symbols, independent windows and base rates of `rows`; a coin is right half the
    time. Asked is the accuracy gate only. `power` takes all symbols to have the true accuracy: the kindest case.
    `buy_and_hold_pass_share` takes "always up" through the whole set.
    """
    rows = rows[rows["n_independent"] >= (MIN_WINDOWS if gates == "honest" else 1)]
    if rows.empty:
        return {"coin_pass_share": None, "buy_and_hold_pass_share": None, "power": {}}
    n, base = rows["n_independent"].to_numpy(), rows["base_rate"].to_numpy()
    rng = np.random.default_rng(0)
    counts = np.arange(n.max() + 1)
    p_values = binomial_p(counts[None], n[:, None], base[:, None])  # [symbols, counts]

    def passing(skill: float) -> float:
        right = rng.binomial(n, skill, size=(N_SIMULATED, len(n)))  # [markets, symbols]
        if gates == "original":
            return float((right / n > ORIGINAL["accuracy"]).mean())
        adjusted = benjamini_hochberg(p_values[np.arange(len(n)), right])
        return float(((adjusted <= FALSE_FINDS) & (right / n > base)).mean())

    if gates == "original":
        always_up = ((rows["up_share"] > ORIGINAL["accuracy"]) & (rows["rmse_5"] < ORIGINAL["rmse"])
                     & (rows["buy_and_hold_sharpe"] > ORIGINAL["sharpe"])
                     & (rows["buy_and_hold_drawdown"] < ORIGINAL["drawdown"])).mean()
    else:
        always_up = 0.0  # always up is never above the base rate
    return {"coin_pass_share": passing(0.5), "buy_and_hold_pass_share": float(always_up),
            "power": {f"{skill:.2f}": passing(skill) for skill in TRUE_SKILLS}}


def _text(counts: dict[str, int], gates: str, scores: pd.DataFrame, result: Backtest, family: str) -> str:
    """The verdict in three sentences: how many pass, how right the model is, what the account did."""
    pooled, totals = summary(scores).set_index("family"), result.totals()
    mine, others = pooled.loc[family], pooled.drop(index=family)["accuracy"].dropna()
    against = f", the best opponent ({others.idxmax()}) {others.max():.1%}" if len(others) else ""
    rest = ", ".join(f"{count} {name}" for name, count in list(counts.items())[1:])
    return (f"{counts['accept']} of {sum(counts.values())} models pass the {gates} gates ({rest}). "
            f"{mine['accuracy']:.1%} of the 5-day directions are right; the base rate is {mine['base_rate']:.1%}"
            f"{against}. After costs the mean account returned {totals.loc['strategy', 'return']:+.1%}, buy-and-hold "
            f"{totals.loc['buy_and_hold', 'return']:+.1%}.")
