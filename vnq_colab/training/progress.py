"""What a person sees while it trains: a live line on a terminal or in a notebook, elsewhere a line in a while."""

import contextlib
import sys
import time
from collections.abc import Callable

from vnq_colab.clock import Clock, spell, utc_now
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import Splits
from vnq_colab.errors import name_a_few
from vnq_colab.files import write_atomic
from vnq_colab.models.base import Progress
from vnq_colab.notebook import in_notebook
from vnq_colab.training.process import memory_used, memory_warning
from vnq_colab.training.session import Session

PLAIN_SECONDS = 10  # between two lines where the output is not live
LIVE_SECONDS = 1
MEMORY_SECONDS = 30  # between two looks at the system's memory
KEPT_LINES = 2000
WIDTH = 160  # characters of the line, at most
SURE_SHARE = 0.1  # of a job, from which on its own speed says how long it takes


class Display:
    """Prints to stderr (in a notebook to stdout), and keeps its plain lines for `logs/<run_id>/progress.txt`."""

    def __init__(self, session: Session, panel: Panel, clock: Clock, quiet: bool = False):
        self._session, self._clock, self._quiet = session, clock, quiet
        homes = [home.log_folder(session.run_id) / "progress.txt" for home in (session.ws.local, session.ws)]
        self._log, before = homes[0], next((path for path in homes if path.exists()), None)
        self._lines: list[str] = before.read_text(encoding="utf-8", errors="replace").splitlines() if before else []
        self._is_full = False  # said already
        self._live = None
        self._job, self._began, self._skill = "", time.monotonic(), ""
        self._out = sys.stdout if in_notebook() else sys.stderr  # a notebook paints stderr red
        train_days = [int(Splits.from_dict(fold).train.mask(panel.days).sum()) for fold in session.folds]
        self._days = dict(enumerate(train_days)) | {None: len(panel.days)}
        self.say(f"run {session.run_id}: {', '.join(session.config.families)} for {len(session.ledger)} symbols, "
                 f"{len(session.folds)} folds and the final fit, {len(session.jobs)} jobs. {session.note}".rstrip(" ."))
        if session.skipped:
            self.say(f"skipped {len(session.skipped)}: "
                     f"{name_a_few(f'{symbol} ({why})' for symbol, why in session.skipped.items())}")

    def begin(self) -> None:
        """Opens the live line, where there can be one."""
        if not self._quiet and (in_notebook() or self._out.isatty()):
            from tqdm import tqdm

            self._live = tqdm(total=0, bar_format="{desc}", leave=False, file=self._out,
                              dynamic_ncols=not in_notebook())

    def say(self, text: str) -> None:
        """A line that stays."""
        self._lines = [*self._lines[-KEPT_LINES:], f"{utc_now()} {text}"]
        if self._live is not None:
            self._write(lambda: (self._live.set_description_str(""), self._live.write(text, file=self._out)))
        elif not self._quiet:
            self._write(lambda: print(text, file=self._out, flush=True))

    def show(self, text: str) -> None:
        """Where it stands, in place of the line before, where that can be; elsewhere at most once in ten seconds."""
        if self._quiet or not self._clock.due("progress", seconds=LIVE_SECONDS if self._live else PLAIN_SECONDS):
            return
        if self._live is not None:
            self._write(lambda: self._live.set_description_str(text[:WIDTH]))
        else:
            self._write(lambda: print(text[:WIDTH], file=self._out, flush=True))

    def _write(self, do: Callable[[], object]) -> None:
        """Writes for the person; where nobody reads any longer, as behind a closed pipe, it falls silent."""
        try:
            do()
        except OSError:
            self._quiet, self._live = True, None

    def start(self, job: str) -> None:
        """A job begins."""
        self._job, self._began, self._skill = job, time.monotonic(), ""
        self.show(f"{job}: the first steps")

    def step(self, progress: Progress) -> None:
        """Shows where training stands."""
        if "skill" in progress.measured:
            self._skill = f"skill on validation days {progress.measured['skill']:.3f}"
        if not self._is_full and self._clock.due("memory", seconds=MEMORY_SECONDS) and (full := memory_warning()):
            self._is_full = True
            self.say(full)
        self.show(self.line(progress))

    def line(self, progress: Progress) -> str:
        """Where training stands, in words."""
        jobs = self._session.jobs
        done = len(jobs) - len(self._session.left())
        parts = [f"job {min(done + 1, len(jobs))}/{len(jobs)} {self._job}", progress.words]
        parts += [left] if (left := self._time_left(progress.share)) else []
        parts += [self._skill] if self._skill else []
        if (age := self._clock.since("checkpoint")) is not None:
            parts.append(f"saved {spell(age)} ago")
        parts += [self._session.drive] if self._session.drive else []
        return " · ".join([*parts, memory_used()])

    def _time_left(self, share: float) -> str:
        """"about 12 min left", from what jobs of each family have cost so far; "" while one of them is unknown."""
        cost: dict[str, list[float]] = {}
        spent = time.monotonic() - self._began
        for name, row in self._session.jobs.items():
            if row["state"] == "done" and row.get("seconds"):
                cost.setdefault(row["family"], []).append(row["seconds"] / self._size(name))
        if share > SURE_SHARE:
            family = self._session.jobs[self._job]["family"]
            cost.setdefault(family, [spent / share / self._size(self._job)])
        left = 0.0
        for name in self._session.left():
            rates = cost.get(self._session.jobs[name]["family"])
            if not rates:
                return ""
            whole = self._size(name) * sum(rates) / len(rates)
            left += max(0.0, whole - spent) if name == self._job else whole
        return f"about {spell(left)} left"

    def _size(self, name: str) -> float:
        row = self._session.jobs[name]
        return self._days[row["fold"]] * len(row["symbols"])

    def finish(self, job: str) -> None:
        """The line of a job that is done."""
        jobs, row = self._session.jobs, self._session.jobs[job]
        skill = f", {self._skill}" if self._skill else ""
        self.say(f"{len(jobs) - len(self._session.left())}/{len(jobs)} {job} {row['state']} in "
                 f"{spell(row['seconds'])}{skill}" + (f": {row['reason']}" if row["reason"] else ""))

    def keep(self) -> None:
        """Rewrites the log file whole."""
        text = "\n".join(self._lines) + "\n"
        write_atomic(self._log, lambda file: file.write(text.encode("utf-8")))

    def close(self, status: str, why: str, keep: bool = True) -> None:
        """Says how it ended; `keep` also in the log."""
        self.say(f"run {self._session.run_id}: {status}, {why}")
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.close()
        if keep:
            self.keep()


def finish_words(session: Session) -> str:
    """How a finished run ended."""
    counts, spent = session.counts(), sum(session.seconds.values())
    failed = f", failed: {name_a_few(session.failed())}" if counts["failed"] else ""
    return f"{len(session.jobs)} jobs done in {spell(spent)}{failed}"
