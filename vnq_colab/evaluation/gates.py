"""Which models deserve to be used: gates with numbers, a decision for each symbol, and what the gates are worth."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from vnq_colab.errors import ConfigError, DataError, did_you_mean
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.metrics import summary
from vnq_colab.evaluation.power import account_returns, money, pass_rates
from vnq_colab.evaluation.questions import QUESTIONS, Answer, Question, charged
from vnq_colab.files import read_json, write_json

DECISIONS = ("accept", "review", "reject", "unjudged")


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
        for name, found in self.summary.get("gate_sets", {}).items():
            if found.get("n_simulated"):
                power = ", ".join(f"{share:.0%} at {float(true):.0%}" for true, share in found["power"].items())
                lines.append(f"  {name} gates: {found['coin_pass_share']:.1%} of {found['n_simulated']:,} simulated "
                             f"forecasters without skill pass; by true R², {power}")
        return "\n".join(lines)


def judge(scores: pd.DataFrame, result: Backtest, *, gates: str = "honest", run_id: str = "",
          family: str = "stockformer", n_trials: int = 1, previous: dict[str, Any] | None = None,
          leak_checks: list[dict[str, Any]] | None = None) -> Verdict:
    """Decides for every symbol of the scores and the backtest whether the model of `family` may be used.

    `honest`: a symbol with fewer than 30 independent windows is `unjudged`; one that fails a gate is a `reject`; one
    that could not be asked everything (no opponents in the scores) is `unjudged`; one that passes everything but is too
    good to be true is for `review` until the leak checks pass; the others are an `accept`. One symbol alone shows
    little: where a gate asks for less than proof, its number is drawn towards those of the other symbols that show
    skill, as far as its noise asks (`evidence.shrink`). `original` are the gates of the project's source texts:
    `accept` or `reject`.

    `n_trials` configurations have looked at these days, this one included: every p-value is charged for all of them.
    `previous`, of the last accepted run on the same days, names the symbols (`kept`) whose old model stays: those are
    for `review`.
    `leak_checks` are what was found when this run was searched for leaks: `check`, `passed`, `sentence` of each.
    `summary` says how many pass either set, and how much a pass is worth.
    """
    if gates not in QUESTIONS:
        raise ConfigError(f"there is no gate set {gates!r}.{did_you_mean(str(gates), QUESTIONS)}")
    families = list(scores["family"].unique())
    if family not in families:
        raise ConfigError(f"the scores have no family {family!r}.{did_you_mean(family, families)} "
                          "Choose one with family=.")
    if result.family != family:
        raise ConfigError(f"the backtest is of {result.family!r}, to be judged is {family!r}. "
                          f"Backtest with family={family!r}.")
    if not isinstance(n_trials, (int, np.integer)) or n_trials < 1:
        raise ConfigError(f"n_trials = {n_trials!r}: must be a whole number of configurations, this one included.")
    if scores.duplicated(["family", "symbol"]).any():
        raise DataError("scores: a family stands there twice for one symbol. Score one forecast at a time.")
    table = collect(scores, result, family)
    table["q"] = charged(table, n_trials)
    kept = {symbol: previous["symbols"][symbol] for symbol in previous["kept"]} if previous else {}
    verdicts = {name: decide(table, name, leak_checks=leak_checks, kept=kept) for name in QUESTIONS}
    counts = {name: sum(found["decision"] == name for found in verdicts[gates].values()) for name in DECISIONS}
    rates = pass_rates(result, n_trials=n_trials)
    about: dict[str, Any] = {
        "decisions": counts,
        "text": _text(verdicts[gates], counts, gates, scores, result, family),
        "gate_sets": {name: {"n_symbols": len(table),
                             "n_pass": sum(found["decision"] == "accept" for found in part.values())} | rates[name]
                      for name, part in verdicts.items()},
    }
    if previous is not None:
        about["previous"] = previous
    if leak_checks is not None:
        about["leak_checks"] = leak_checks
    return Verdict(run_id, gates, about, verdicts[gates])


def too_good(verdict: Verdict) -> bool:
    """Whether a symbol looks too good to be true: then search the run for leaks, and judge again."""
    return any(gate["gate"].startswith("plausible") and gate["passed"] is False
               for found in verdict.symbols.values() for gate in found["gates"])


def collect(scores: pd.DataFrame, result: Backtest, family: str) -> pd.DataFrame:
    """The table of evidence: a row per symbol of the scores or the backtest, with what `questions` asks for."""
    if missing := [name for name in ("skill", "skill_error") if name not in scores.columns]:
        raise DataError(f"scores: columns {missing} are missing. Make them with score(forecast, panel).")
    if result.strategy.is_common:
        raise ConfigError(f"the backtest of {result.strategy.name!r} has one account for all symbols, and a symbol is "
                          "judged by its own. Backtest with strategy='long_flat'.")
    table = scores[scores["family"] == family].merge(result.symbols, on="symbol", how="outer").sort_values("symbol")
    table = table.rename(columns={"return": "gain"}).reset_index(drop=True)  # no field may be a keyword
    table["n_independent"] = table["n_independent"].fillna(0).astype("int64")
    names = [f"{name}{part}" for name in ("profit", "sharpe_lead") for part in ("", "_error", "_shared")]
    accounts = pd.DataFrame(columns=names, dtype="float64")
    if result.trial is not None:
        both = account_returns(result, result.trial.weight[:, None])  # [days, own and held, symbols]
        found = {name: np.broadcast_to(part[0], len(result.trial.market.symbols))
                 for name, part in money(both[:, :1], both[:, 1:]).items()}
        accounts = pd.DataFrame(found, index=result.trial.market.symbols)
    return table.join(accounts, on="symbol")


def decide(table: pd.DataFrame, gate_set: str, *, leak_checks: list[dict[str, Any]] | None = None,
           kept: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """The decision for each symbol of a table of evidence, with reasons and gates."""
    columns = {name: table[name].to_numpy() for name in table.columns}
    found = [(question, list(zip(*question.answer(columns), strict=True))) for question in QUESTIONS[gate_set]]
    verdict = {}
    for place, row in enumerate(table.itertuples(index=False)):
        gates = [_gate(question, row, Answer(*answers[place])) for question, answers in found]
        decided = _decide_original(gates) if gate_set == "original" else _decide_honest(gates, leak_checks)
        if old := (kept or {}).get(row.symbol):
            stays = (f"The model of the last accepted run stays, for a person to look at: on the same days "
                     f"{old['old_accuracy']:.1%} of its directions are right, {old['new_accuracy']:.1%} of this one's.")
            decided = decided | {"decision": "review", "reasons": [stays, *decided["reasons"]]}
        verdict[row.symbol] = decided
    return verdict


def _gate(question: Question, row: Any, answer: Answer) -> Gate:
    """The answer as plain values; what is not a number becomes None."""
    numbers = [float(value) if math.isfinite(value) else None
               for value in (answer.measured, answer.low, answer.high, answer.needed)]
    if math.isnan(answer.passed):
        return Gate(question.gate, question.asked, *numbers, None, f"Not measured: {question.asked}.")
    return Gate(question.gate, question.asked, *numbers, bool(answer.passed), question.sentence(row, answer))


def _decide_honest(gates: list[Gate], leak_checks: list[dict[str, Any]] | None) -> dict[str, Any]:
    asked = [gate for gate in gates if not gate.gate.startswith("plausible")]
    suspicious = [gate for gate in gates if gate.gate.startswith("plausible") and gate.passed is False]
    if not gates[0].passed:
        return _decision("unjudged", gates[:1], gates)
    if any(gate.passed is False for gate in asked):
        return _decision("reject", [gate for gate in gates if gate.passed is False], gates)
    if unmeasured := [gate for gate in gates if gate.passed is None]:
        return _decision("unjudged", unmeasured, gates)
    leaks = [check["sentence"] for check in leak_checks or [] if not check["passed"]]
    if leaks or (suspicious and not leak_checks):
        return _decision("review", suspicious, gates, *leaks)
    checked = [f"All {len(leak_checks)} leak checks pass."] if suspicious else []
    return _decision("accept", asked + suspicious, gates, *checked)


def _decide_original(gates: list[Gate]) -> dict[str, Any]:
    if unmeasured := [gate for gate in gates if gate.passed is None]:
        return _decision("unjudged", unmeasured, gates)
    failed = [gate for gate in gates if not gate.passed]
    return _decision("reject", failed, gates) if failed else _decision("accept", gates, gates)


def _decision(decision: str, because: list[Gate], gates: list[Gate], *more: str) -> dict[str, Any]:
    return {"decision": decision, "reasons": [gate.sentence for gate in because] + list(more),
            "gates": [gate.to_dict() for gate in gates]}


def _text(verdict: dict[str, dict[str, Any]], counts: dict[str, int], gates: str, scores: pd.DataFrame,
          result: Backtest, family: str) -> str:
    """The verdict in three sentences: how many pass and what the others fail, how right it is, what the account did."""
    pooled, totals = summary(scores).set_index("family"), result.totals()
    mine, others = pooled.loc[family], pooled.drop(index=family)["accuracy"].dropna()
    against = f", the best opponent ({others.idxmax()}) {others.max():.1%}" if len(others) else ""
    rest = ", ".join(f"{count} {name}" for name, count in list(counts.items())[1:])
    failed = Counter(gate["gate"].replace("_", " ") for found in verdict.values() for gate in found["gates"]
                     if gate["passed"] is False)
    most = " and ".join(f"“{name}” {count}" for name, count in failed.most_common(2))
    why = f"; most often failed: {most}" if most else ""
    right = (f"{mine['accuracy']:.1%} of the 5-day directions are right" if np.isfinite(mine["accuracy"])
             else "It names no direction")
    return (f"{counts['accept']} of {sum(counts.values())} models pass the {gates} gates ({rest}{why}). "
            f"{right}; the base rate is {mine['base_rate']:.1%}"
            f"{against}. After costs the mean account returned {totals.loc['strategy', 'return']:+.1%}, buy-and-hold "
            f"{totals.loc['buy_and_hold', 'return']:+.1%}.")
