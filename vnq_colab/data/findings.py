"""What reading and cleaning found: each file as it was understood, each data-quality issue and its treatment, one report."""

import html
from dataclasses import asdict, dataclass, field

import pandas as pd


@dataclass(frozen=True)
class FileFacts:
    """One price file as it was understood: nothing about it is guessed in silence."""

    file: str  # its name; a member of a zip as "name.zip/member.csv"
    format: str  # "price table", "CafeF", "AmiBroker", "vnstock", "cophieu68", "VNDirect", "Yahoo", "by its headers"
    unit: str  # "VND", "thousand VND", or "points" where it holds indices only
    adjusted: bool | None  # for splits and dividends; None: the format does not say
    rows: int  # of stocks, kept
    first_day: str
    last_day: str
    columns: dict[str, str] = field(default_factory=dict)  # ours: the file's own header
    set_apart: dict[str, int] = field(default_factory=dict)  # rows that are no stock: {"warrant": 61}
    dropped: dict[str, int] = field(default_factory=dict)  # rows that cannot be read: {"number unreadable": 2}


@dataclass(frozen=True)
class Finding:
    """One data-quality issue: how many rows had it, and what was done."""

    issue: str
    treatment: str
    rows: int
    example: str  # the first row, in words
    more: list[str] = field(default_factory=list)  # the next ones, at most 49


@dataclass(frozen=True, repr=False)
class CleaningReport:
    """What reading and cleaning found and did. Good to look at in a notebook; exact to and from JSON."""

    source: str
    rows_read: int
    rows_kept: int
    symbols: int
    first_day: str
    last_day: str
    findings: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: list[FileFacts] = field(default_factory=list)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict) -> "CleaningReport":
        findings = [{("issue" if name == "disease" else name): item for name, item in finding.items()}  # as of 0.2
                    for finding in value["findings"]]
        return cls(**(value | {"findings": [Finding(**item) for item in findings],
                               "files": [FileFacts(**item) for item in value["files"]]}))

    def to_frame(self) -> pd.DataFrame:
        """One row per issue and treatment."""
        return pd.DataFrame([asdict(item) for item in self.findings],
                            columns=["issue", "treatment", "rows", "example"])

    def __repr__(self) -> str:
        files = pd.Series([f"{item.format} in {item.unit}" for item in self.files], dtype=object).value_counts()
        set_apart = pd.DataFrame([item.set_apart for item in self.files]).sum().astype(int)
        return "\n".join([
            f"CleaningReport: {self.rows_kept:,} of {self.rows_read:,} rows kept, {self.symbols} symbols, "
            f"{self.first_day} to {self.last_day}",
            *(f"  read {n:,} × {name}" for name, n in files.items()),
            *(f"  set apart: {kind}, {n:,} rows" for kind, n in set_apart.items()),
            *(f"  {item.issue}: {item.rows:,} rows, {item.treatment} (first: {item.example})"
              for item in self.findings),
            *([] if self.findings else ["  no data-quality issue found"]),
            *(f"  warning: {warning}" for warning in self.warnings)])

    def _repr_html_(self) -> str:
        def in_words(value: object) -> object:
            return ", ".join(f"{name} {item}" for name, item in value.items()) if isinstance(value, dict) else value

        files = pd.DataFrame([asdict(item) for item in self.files]).map(in_words)
        with pd.option_context("display.max_colwidth", None):  # the examples are sentences
            tables = [table.to_html(index=False, border=0, justify="left", max_rows=20)
                      for table in (files, self.to_frame()) if len(table)]
        texts = [repr(self).splitlines()[0], *(f"⚠ {warning}" for warning in self.warnings)]
        return "".join([*(f"<p>{html.escape(text)}</p>" for text in texts), *tables])
