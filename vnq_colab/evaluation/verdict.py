"""The verdict of a run as a value: what is decided on the market and on each symbol, why, and its file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, get_args

import pandas as pd

from vnq_colab.errors import DataError
from vnq_colab.files import read_sealed, sha256_of, write_sealed

Decision = Literal["accept", "review", "reject", "unjudged"]
DECISIONS = get_args(Decision)
Gate = dict[str, Any]
FORECAST, FORECAST_HASH = "forecast.parquet", "forecast_sha256"  # beside verdict.json, and in its summary


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
            lines += [f"  {decision}: {', '.join(names)}"] if names else []
        return "\n".join(lines)


def judged_forecast(folder: Path, **options: Any) -> pd.DataFrame:
    """forecast.parquet of a report, as of pandas.read_parquet: DataError unless it is the one that was judged."""
    path = folder / FORECAST
    if not path.exists() or not (folder / "verdict.json").exists():
        raise DataError(f"{path} or its verdict.json is not there. Make it with: python -m vnq_colab validate")
    if Verdict.load(folder / "verdict.json").summary.get(FORECAST_HASH) != sha256_of(path):
        raise DataError(f"{path}: not what was judged: damaged, edited or older. Make it anew with: python -m vnq_colab"
                        " validate")
    try:
        return pd.read_parquet(path, **options)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a forecast of this library ({error}).") from error


def too_good(verdict: Verdict) -> bool:
    """Whether a number is too good to be true: then search the run for leaks, and judge again."""
    return any(gate["gate"].startswith("plausible") and gate["passed"] is False
               for row in (verdict.market, *verdict.symbols.values()) for gate in row["gates"])
