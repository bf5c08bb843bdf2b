"""What a person sees while it trains: a live line on a terminal or in a notebook, elsewhere a line in a while."""

import contextlib
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from vnq_colab.clock import Clock, spell, utc_now
from vnq_colab.errors import StorageError, in_notebook, name_a_few
from vnq_colab.files import read_bytes, write_atomic
from vnq_colab.models.base import Progress
from vnq_colab.training.process import memory_used
from vnq_colab.training.session import Session

PLAIN_SECONDS = 10  # between two lines where the output is not live
LIVE_SECONDS = 1
KEPT_LINES = 2000
MOST_LOG = 2**24  # [bytes]
WIDTH = 160  # characters of the line, at most


class Display:
    """Prints to stderr (in a notebook to stdout), and keeps its plain lines for `logs/<run_id>/progress.txt`."""

    def __init__(self, session: Session, clock: Clock, quiet: bool = False):
        self._session, self._clock, self._quiet = session, clock, quiet
        paths = [home.log_folder(session.run_id) / "progress.txt" for home in session.ws.homes]
        self._log, self._lines = paths[0], list[str]()
        for path in reversed(paths):
            with contextlib.suppress(FileNotFoundError, StorageError):
                self._lines = read_bytes(path, MOST_LOG).decode("utf-8", errors="replace").splitlines()
        self._job, self._skill = "", ""
        self._began, self._done_before = time.monotonic(), self._n_done
        self._out = sys.stdout if in_notebook() else sys.stderr  # a notebook paints stderr red
        self._bar = None  # the live line, where there can be one
        if not quiet and (in_notebook() or self._out.isatty()):
            self._bar = tqdm(total=0, bar_format="{desc}", leave=False, file=self._out,
                             dynamic_ncols=not in_notebook())
        self.say(f"run {session.run_id}: {', '.join(session.config.families)} for {len(session.ledger)} symbols, "
                 f"{len(session.folds)} folds and the final fit, {len(session.jobs)} jobs. {session.note}".rstrip(" ."))
        if session.skipped:
            self.say(f"skipped {len(session.skipped)}: "
                     f"{name_a_few(f'{symbol} ({why})' for symbol, why in session.skipped.items())}")

    @property
    def _n_done(self) -> int:
        return len(self._session.jobs) - len(self._session.unfinished_jobs())

    def say(self, text: str) -> None:
        """A line that stays."""
        self._lines = [*self._lines[-KEPT_LINES:], f"{utc_now()} {text}"]
        if not self._quiet:
            self._write(lambda: tqdm.write(text, file=self._out))

    def show(self, text: str) -> None:
        """Where it stands, in place of the line before, where that can be; elsewhere at most once in ten seconds."""
        if self._quiet or not self._clock.due("progress", seconds=PLAIN_SECONDS if self._bar is None else LIVE_SECONDS):
            return
        self._write(lambda: self._bar.set_description_str(text[:WIDTH]) if self._bar is not None else
                    print(text[:WIDTH], file=self._out, flush=True))

    def _write(self, write: Callable[[], object]) -> None:
        """Writes for the person; where nobody reads any longer, as behind a closed pipe, it falls silent."""
        try:
            write()
        except OSError:
            self._quiet, self._bar = True, None

    def start(self, job: str) -> None:
        """A job begins."""
        self._job, self._skill = job, ""
        self.show(f"{job}: the first steps")

    def step(self, progress: Progress) -> None:
        """Shows where training stands."""
        if "skill" in progress.measured:
            self._skill = f"skill on validation days {progress.measured['skill']:.3f}"
        self.show(self.line(progress))

    def line(self, progress: Progress) -> str:
        """Where training stands, in words; the time left is tqdm's estimate, as if all jobs took equally long."""
        total = len(self._session.jobs)
        left = tqdm.format_meter(self._n_done + progress.share, total, time.monotonic() - self._began,
                                 initial=self._done_before, bar_format="{remaining} left")
        age = self._clock.since("checkpoint")
        parts = [f"job {min(self._n_done + 1, total)}/{total} {self._job}", progress.words, left, self._skill,
                 f"saved {spell(age)} ago" if age is not None else "", self._session.drive, memory_used()]
        return " · ".join(part for part in parts if part)

    def finish(self, job: str) -> None:
        """The line of a job that is done."""
        row = self._session.jobs[job]
        skill = f", {self._skill}" if self._skill else ""
        self.say(f"{self._n_done}/{len(self._session.jobs)} {job} {row['state']} in "
                 f"{spell(row['seconds'])}{skill}" + (f": {row['reason']}" if row["reason"] else ""))

    def keep(self) -> None:
        """Rewrites the log file whole."""
        write_atomic(self._log, lambda file: file.writelines(f"{line}\n".encode() for line in self._lines))

    def close(self, status: str, why: str, keep: bool = True) -> None:
        """Says how it ended; `keep` also in the log."""
        self.say(f"run {self._session.run_id}: {status}, {why}")
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()
        if keep:
            self.keep()


def finish_words(session: Session) -> str:
    """How a finished run ended."""
    spent, failed = spell(sum(session.seconds.values())), session.failed()
    return f"{len(session.jobs)} jobs done in {spent}" + (f", failed: {name_a_few(failed)}" if failed else "")
