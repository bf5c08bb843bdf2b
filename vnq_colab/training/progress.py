"""What a person sees while it trains: one live line on a terminal or in a notebook, one line in a while elsewhere."""

import sys
import time
from pathlib import Path
from typing import Any

from vnq_colab.clock import Clock, spell, utc_now
from vnq_colab.files import write_atomic

PLAIN_SECONDS = 10  # between two lines where the output is not live
KEPT_LINES = 2000


class Progress:
    """Prints to stderr (in a notebook to stdout), and keeps its plain lines for `logs/<run_id>/progress.txt`."""

    def __init__(self, title: str, log: Path, clock: Clock, quiet: bool = False):
        self._log, self._clock, self._quiet = log, clock, quiet
        self._lines: list[str] = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        self._started, self._labels = time.monotonic(), 0
        self._done_before: int | None = None  # by earlier attempts: their time is not in `elapsed`
        self._live = None
        in_notebook = "ipykernel" in sys.modules
        self._out = sys.stdout if in_notebook else sys.stderr  # a notebook paints stderr red
        if not quiet and (in_notebook or sys.stderr.isatty()):
            from tqdm import tqdm

            self._live = tqdm(total=0, bar_format="{desc}", leave=False, file=self._out)
        self.say(title)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._lines = [*self._lines[-KEPT_LINES:], f"{utc_now()} {text}"]
        if self._live is not None:
            self._live.set_description_str("")
            self._live.write(text, file=self._out)
        elif not self._quiet:
            print(text, file=self._out, flush=True)

    def step(self, measured: dict[str, Any], packs: int, symbols_done: int, symbols: int) -> None:
        """Shows where training stands, at most once a second live, once in ten seconds in plain text."""
        self._labels += measured["labels"]
        self._done_before = symbols_done if self._done_before is None else self._done_before
        if not self._clock.due("progress", seconds=1 if self._live is not None else PLAIN_SECONDS):
            return
        elapsed = time.monotonic() - self._started
        text = (f"pack {measured['pack'] + 1}/{packs} · epoch {measured['epoch'] + 1} · {measured['models']} models "
                f"learning · {symbols_done}/{symbols} symbols done · {self._labels / elapsed:,.0f} labels/s")
        if "valid_loss" in measured:
            text += f" · validation loss {measured['valid_loss']:.4f} (no skill {measured['no_skill']:.4f})"
        if done_here := symbols_done - self._done_before:
            text += f" · about {spell(elapsed / done_here * (symbols - symbols_done))} left"
        if (age := self._clock.since("checkpoint")) is not None:
            text += f" · saved {spell(age)} ago"
        if self._live is not None:
            self._live.set_description_str(text)
        elif not self._quiet:
            print(text, file=self._out, flush=True)

    def keep(self) -> None:
        """Rewrites the log file whole."""
        text = "\n".join(self._lines) + "\n"
        write_atomic(self._log, lambda file: file.write(text.encode("utf-8")))

    def close(self) -> None:
        if self._live is not None:
            self._live.close()
        self.keep()
