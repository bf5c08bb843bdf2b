"""What a person looks at of a session: counts, tables, learning curves, and its lines of text."""

import contextlib
import io
from typing import TYPE_CHECKING

from vnq_colab.clock import seconds_since, spell
from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.errors import StorageError, name_a_few
from vnq_colab.files import read_bytes, write_atomic

if TYPE_CHECKING:
    import pandas as pd

HISTORY_TYPES = {"job": str, "symbol": str, "member": int, "epoch": int, "train_loss": float, "skill": float}
MOST_HISTORY = 2**26  # [bytes]


class SessionView:
    """Base of `Session`, whose fields it reads."""

    def unfinished_jobs(self) -> list[str]:
        """The names of the jobs that are neither done nor failed."""
        return [name for name, row in self.jobs.items() if row["state"] not in ("done", "failed")]

    def finish_ledger(self) -> None:
        """Says of every symbol that it is done, or failed, once no job is left."""
        if not self.unfinished_jobs():
            self.status = "finished"
            for row in self.ledger.values():
                row["state"] = "failed" if row["state"] == "failed" else "done"

    @property
    def note(self) -> str:
        """What every output must say about the data; empty for real prices."""
        return SYNTHETIC_NOTE if self.synthetic else ""

    def counts(self) -> dict[str, int]:
        """How many symbols are in each state."""
        states = [row["state"] for row in self.ledger.values()]
        return {state: states.count(state) for state in ("pending", "training", "done", "failed")}

    def failed(self) -> dict[str, str]:
        """The symbols that failed, with reasons."""
        return {symbol: row["reason"] for symbol, row in self.ledger.items() if row["state"] == "failed"}

    def failed_jobs(self) -> dict[str, str]:
        """The jobs that failed as a whole, with reasons."""
        return {name: row["reason"] for name, row in self.jobs.items() if row["state"] == "failed" and row["reason"]}

    def ledger_table(self) -> "pd.DataFrame":
        """The ledger, one row per symbol."""
        import pandas as pd

        return pd.DataFrame.from_dict(self.ledger, orient="index").rename_axis("symbol").reset_index()

    def jobs_table(self) -> "pd.DataFrame":
        """The list of jobs, one row each: job, family, fold, symbols, state, seconds."""
        import pandas as pd

        rows = [{"job": name, "family": row["family"], "fold": "final" if row["fold"] is None else str(row["fold"] + 1),
                 "symbols": len(row["symbols"]), "state": row["state"], "seconds": row.get("seconds"),
                 "reason": row.get("reason", "")} for name, row in self.jobs.items()]
        return pd.DataFrame(rows)

    @property
    def history(self) -> "pd.DataFrame":
        """Learning curves: job, symbol, member, epoch (or trees), train_loss, skill on the validation days.

        `skill` is the mean daily rank correlation of a model of all stocks (symbol "*"); of a symbol's own network the
        share of the unskilled forecast's loss that is saved.
        """
        import pandas as pd

        for home in self.ws.homes:
            with contextlib.suppress(OSError, StorageError, KeyError, ValueError):  # nothing rests on the curves
                text = read_bytes(home.log_folder(self.run_id) / "history.csv", MOST_HISTORY)
                return pd.read_csv(io.BytesIO(text), dtype=HISTORY_TYPES)[list(HISTORY_TYPES)]
        return pd.DataFrame(columns=list(HISTORY_TYPES))

    def add_history(self, job: str, rows: list[tuple]) -> None:
        """Adds the curves of a finished job, in place of older ones of the same job."""
        import pandas as pd

        older = [row for row in self.history.itertuples(index=False) if row.job != job]
        table = pd.DataFrame([*older, *((job, *row) for row in rows)], columns=list(HISTORY_TYPES))
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        write_atomic(self.ws.local.log_folder(self.run_id) / "history.csv", lambda file: file.write(text.encode()))

    def __repr__(self) -> str:
        done = len(self.jobs) - len(self.unfinished_jobs())
        why = self.why or ("its process ended without a word; resume goes on" if self.state == "interrupted" else "")
        lines = [f"run {self.run_id}: {self.state}" + (f" ({why})" if why else ""), self.note,
                 f"{done} of {len(self.jobs)} jobs done: {', '.join(self.config.families)} over {len(self.folds)} "
                 f"folds and the final fit; {len(self.ledger)} symbols, {self.counts()['failed']} failed; data "
                 f"{self.data_id}, recipe {self.config.recipe}, seed {self.config.seed}"]
        for what, reasons in (("skipped", self.skipped), ("failed", self.failed())):
            lines += [f"{what}: {name_a_few(f'{symbol} ({why})' for symbol, why in reasons.items())}"] * bool(reasons)
        spent = ", ".join(f"{name} {spell(seconds)}" for name, seconds in self.seconds.items() if seconds >= 0.5)
        lines += [f"time: {spent}"] if spent else []
        if self.checkpoint and self.status != "finished":
            lines.append(f"last checkpoint {spell(seconds_since(self.checkpoint['written']))} ago: "
                         f"{self.checkpoint['job']}")
        lines.append(self.drive)
        if self.state == "running":
            lines.append(f"last sign of life {spell(seconds_since(self.heartbeat))} ago (one every "
                         f"{spell(self.heartbeat_seconds)} while it trains; when they stop, resume goes on)")
        return "\n  ".join(line for line in lines if line)
