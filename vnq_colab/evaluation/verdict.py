"""What the judge says: a gate's answer, and the verdict on the market and every symbol; plain values, exact to JSON."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from vnq_colab.files import read_json, write_json

DECISIONS = ("accept", "review", "reject", "unjudged")


@dataclass(frozen=True)
class Gate:
    """One question, and its answer. `passed` None: it could not be measured."""

    gate: str
    asked: str
    measured: float | None
    low: float | None
    high: float | None
    needed: float | None
    passed: bool | None
    sentence: str

    @classmethod
    def of(cls, gate: str, asked: str, measured: float, needed: float, passed: bool, sentence: str,
           low: float = np.nan, high: float = np.nan) -> Self:
        """Plain values; what is not a number was not measured, and has neither passed nor failed."""
        known = bool(np.isfinite(measured))
        numbers = [float(value) if np.isfinite(value) else None for value in (measured, low, high, needed)]
        return cls(gate, asked, *numbers, bool(passed) if known else None,
                   sentence if known else f"Not measured: {asked}.")

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "sentence"}


@dataclass(frozen=True, repr=False)
class Verdict:
    """The decision on the market and on every symbol, with reasons; plain values only, exact to and from JSON."""

    run_id: str
    gate_set: str
    summary: dict[str, Any]  # text: three sentences; decisions: counts; what else the report prints
    market: dict[str, Any]  # decision, reasons [sentences], gates
    symbols: dict[str, dict[str, Any]]  # the same of each

    def to_dict(self) -> dict[str, Any]:
        return {"run_id": self.run_id, "gate_set": self.gate_set, "summary": self.summary, "market": self.market,
                "symbols": self.symbols}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The verdict that `to_dict` wrote."""
        return cls(value["run_id"], value["gate_set"], value["summary"], value["market"], value["symbols"])

    def save(self, path: Path) -> None:
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> Self:
        """The verdict in `path`. Raises CheckpointError when it is damaged, FileNotFoundError when it is not there."""
        return cls.from_dict(read_json(path))

    def __repr__(self) -> str:
        of = f" on {self.run_id}" if self.run_id else ""
        lines = [f"Verdict of the {self.gate_set} gates{of}: {self.summary['text']}"]
        lines += [f"  market: {self.market['decision']}", *(f"    {reason}" for reason in self.market["reasons"])]
        for decision in DECISIONS[:2]:
            names = [symbol for symbol, found in self.symbols.items() if found["decision"] == decision]
            lines += [f"  {decision}: {', '.join(names)}"] if names else []
        return "\n".join(lines)


def decision(name: str, because: list[Gate], gates: list[Gate], *more: str) -> dict[str, Any]:
    """A decision as plain values: its reasons are the sentences of some gates, and more."""
    return {"decision": name, "reasons": [gate.sentence for gate in because] + list(more),
            "gates": [gate.to_dict() for gate in gates]}
