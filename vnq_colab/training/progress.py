"""What a person sees while it trains: a board in a notebook, a live line on a terminal, elsewhere a line in a while."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.clock import Clock, spell, utc_now
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import DayRange
from vnq_colab.errors import name_a_few
from vnq_colab.files import write_atomic
from vnq_colab.models.base import Learner
from vnq_colab.notebook import in_notebook
from vnq_colab.training.board import open_board
from vnq_colab.training.process import memory_used, memory_warning
from vnq_colab.training.session import Session

PLAIN_SECONDS = 10  # between two lines where the output is not live
LIVE_SECONDS = 1
MEMORY_SECONDS = 30  # between two looks at the system's memory
SPEED_SECONDS = 60  # after which a step has a third of its weight in the speed
KEPT_LINES = 2000
WIDTH = 160  # characters of the line, at most


class Progress:
    """Prints to stderr (in a notebook to stdout), and keeps its plain lines for `logs/<run_id>/progress.txt`."""

    def __init__(self, session: Session, panel: Panel, clock: Clock, quiet: bool = False):
        self._session, self._clock, self._quiet = session, clock, quiet
        homes = [home.log_folder(session.run_id) / "progress.txt" for home in (session.ws.local, session.ws)]
        self._log, before = homes[0], next((path for path in homes if path.exists()), None)
        self._lines: list[str] = before.read_text(encoding="utf-8", errors="replace").splitlines() if before else []
        self._losses: tuple[int, str] | None = None  # pack, and its last validation loss in words
        self._is_full = False  # said already
        self._board = self._live = None
        self._out = sys.stdout if in_notebook() else sys.stderr  # a notebook paints stderr red
        self._time_left = TimeLeft(session, panel)
        self._name = f"{'refit' if session.is_refit else 'run'} {session.run_id}"
        self.say(f"{self._name}: {len(session.ledger)} symbols × {session.config.n_members} networks in "
                 f"{len(session.packs)} packs. {session.note}".rstrip(" ."))
        if session.skipped:
            self.say(f"skipped {len(session.skipped)}: "
                     f"{name_a_few(f'{symbol} ({why})' for symbol, why in session.skipped.items())}")

    def begin(self, stop: list[str]) -> None:
        """Opens the live line, or the board, whose Stop button puts a reason into `stop`."""
        if self._quiet:
            return
        self._board = open_board(f"{self._name}: the first steps", stop)
        if self._board is None and (in_notebook() or self._out.isatty()):
            from tqdm import tqdm

            self._live = tqdm(total=0, bar_format="{desc}", leave=False, file=self._out,
                              dynamic_ncols=not in_notebook())

    def say(self, text: str) -> None:
        """A line that stays."""
        self._lines = [*self._lines[-KEPT_LINES:], f"{utc_now()} {text}"]
        if self._live is not None:
            self._show(lambda: (self._live.set_description_str(""), self._live.write(text, file=self._out)))
        elif not self._quiet:
            self._show(lambda: print(text, file=self._out, flush=True))

    def _show(self, do: Callable[[], object]) -> None:
        """Writes for the person; where nobody reads any longer, as behind a closed pipe, it falls silent."""
        try:
            do()
        except OSError:
            self._quiet, self._live = True, None

    def step(self, measured: dict[str, Any], learner: Learner) -> None:
        """Shows where training stands, at most once a second live, once in ten seconds in plain text."""
        self._time_left.count(measured)
        if {"valid_loss", "no_skill"} <= measured.keys():
            words = f"validation {measured['valid_loss']:.4f} (no skill {measured['no_skill']:.4f})"
            self._losses = measured["pack"], words
        if self._board is not None:
            self._board.listen()
            if "evaluation_seconds" in measured:
                self._board.draw(learner.history)
        if not self._is_full and self._clock.due("memory", seconds=MEMORY_SECONDS) and (full := memory_warning()):
            self._is_full = True
            self.say(full)
        self._show_line(lambda: self.line(measured["pack"], learner))

    def show_start(self, measured: dict[str, Any]) -> None:
        """Shows where the shared start stands, as often as `step` does."""
        if self._board is not None:
            self._board.listen()
        if "valid_loss" in measured:
            self._losses = -1, f"validation {measured['valid_loss']:.4f}"
        losses = f" · {self._losses[1]}" if self._losses else ""
        self._show_line(lambda: f"shared start, one network of all symbols · epoch {measured['epoch'] + 1} · step "
                                f"{measured['step'] + 1} of {measured['n_steps']}{losses} · {memory_used()}")

    def _show_line(self, words: Callable[[], str]) -> None:
        """Where training stands, in place of the line before, where that can be."""
        is_live = self._live is not None or self._board is not None
        if self._quiet or not self._clock.due("progress", seconds=LIVE_SECONDS if is_live else PLAIN_SECONDS):
            return
        text = words()
        if self._board is not None:
            self._board.show(text)
        elif self._live is not None:
            self._show(lambda: self._live.set_description_str(text))
        else:
            self._show(lambda: print(text, file=self._out, flush=True))

    def line(self, pack: int, learner: Learner) -> str:
        """Where training stands, in at most `WIDTH` characters."""
        session, learning = self._session, len({symbol for symbol, _ in learner.models})
        parts = [f"pack {pack + 1}/{len(session.packs)}", f"epoch {learner.epoch + 1}",
                 f"{learning} learning, {session.counts()['done']}/{len(session.ledger)} symbols done"]
        if left := self._time_left.words(pack, learner):
            parts.append(left)
        if self._losses and self._losses[0] == pack:
            parts.append(self._losses[1])
        parts.append(f"{self._time_left.speed.labels_per_second:,.0f} labels/s")
        if (age := self._clock.since("checkpoint")) is not None:
            parts.append(f"saved {spell(age)} ago")
        parts += [session.drive] if session.drive else []
        parts.append(memory_used())
        while len(" · ".join(parts)) > WIDTH:
            parts.pop()
        return " · ".join(parts)

    def finish_pack(self, number: int, learner: Learner) -> None:
        """The line of a pack that is done, and what it teaches about the packs to come."""
        self._time_left.learn(learner.history)
        if self._board is not None:
            self._board.draw(learner.history, now=True)
        self.say(_pack_words(self._session, number))

    def keep(self) -> None:
        """Rewrites the log file whole."""
        text = "\n".join(self._lines) + "\n"
        write_atomic(self._log, lambda file: file.write(text.encode("utf-8")))

    def close(self, status: str, why: str, keep: bool = True) -> None:
        """Says how it ended; `keep` also in the log."""
        text = f"{self._name}: {status}, {why}"
        self.say(text)
        if self._live is not None:
            self._show(self._live.close)
        if self._board is not None:
            self._board.close(text)
        if keep:
            self.keep()


class Speed:
    """What a step costs: so much for itself and so much per label, fitted to the steps of the last minutes."""

    def __init__(self) -> None:
        self._last: float | None = None  # the end of the step before; the slow first one does not count
        self._sums = np.zeros(5)  # weights, seconds, labels, labels squared, seconds * labels

    def count(self, labels: int) -> None:
        """One more step has ended now."""
        now = time.monotonic()
        if self._last is not None:
            took = now - self._last
            self._sums *= math.exp(-took / SPEED_SECONDS)
            self._sums += 1, took, labels, labels**2, took * labels
        self._last = now

    @property
    def labels_per_second(self) -> float:
        _, seconds, labels, _, _ = self._sums
        return float(labels / seconds) if seconds > 0 else 0.0

    def seconds(self, steps: float, labels: float) -> float | None:
        """What so many steps with so many labels in all will take; None before the second step."""
        weights, took, seen, squares, products = self._sums
        if not seen:
            return None
        spread = squares / weights - (seen / weights) ** 2
        slope = (products / weights - took * seen / weights**2) / spread if spread > 1e-6 * seen else math.inf
        per_label = min(max(slope, 0.0), took / seen)
        return float(steps * (took - per_label * seen) / weights + labels * per_label)


class TimeLeft:
    """Estimates the rest of a run: the labels and steps that are still to come, at the speed of the last minutes.

    A network is expected to learn as long as those of the finished packs did that were not over by its epoch. Before
    the first pack has finished, all configured epochs are taken, and the words are "at most".
    """

    def __init__(self, session: Session, panel: Panel):
        self._session, self.speed = session, Speed()
        train, symbols = DayRange(*session.days["train"]), tuple(session.ledger)
        days = (panel.select(list(symbols)).present & train.mask(panel.days)).sum(axis=1)
        self._labels_of = dict(zip(symbols, days.tolist(), strict=True))  # per epoch of one network, nearly
        self._lengths: list[int] = []  # epochs of each network of the finished packs
        self._longest: list[int] = []  # epochs of each finished pack
        self._labels_in_epoch, self._epoch = 0, (-1, -1)
        self._labels_in_step = 1.0  # of one network
        history: pd.DataFrame = session.history
        for pack in session.packs:
            if pack["done"] is not None:
                self.learn(list(history[history["symbol"].isin(pack["symbols"])].itertuples(index=False, name=None)))

    def count(self, measured: dict[str, Any]) -> None:
        """One more step."""
        self.speed.count(measured["labels"])
        self._labels_in_step = max(self._labels_in_step, measured["labels"] / measured["models"])
        if self._epoch != (measured["pack"], measured["epoch"]):
            self._epoch, self._labels_in_epoch = (measured["pack"], measured["epoch"]), 0
        is_over = "evaluation_seconds" in measured
        self._labels_in_epoch = 0 if is_over else self._labels_in_epoch + measured["labels"]

    def learn(self, history: list[tuple]) -> None:
        """The learning curves of a pack that has finished."""
        last: dict[tuple[str, int], int] = {}
        for symbol, member, epoch, *_ in history:
            last[symbol, member] = max(epoch, last.get((symbol, member), 0))
        self._lengths += last.values()
        self._longest += [max(last.values())] if last else []

    def words(self, pack: int, learner: Learner) -> str:
        """"about 12 min left" or "at most 40 min left"; "" while no speed is known."""
        seconds = self.speed.seconds(*self.steps_and_labels(pack, learner))
        is_known = self._lengths or self._session.epochs_of is not None
        return "" if seconds is None else f"{'about' if is_known else 'at most'} {spell(seconds)} left"

    def steps_and_labels(self, pack: int, learner: Learner) -> tuple[float, float]:
        """What is still to come, in this pack and in those that have not begun."""
        here = [self._labels_of[model[0]] * self._epochs(model, learner.epoch) for model in learner.models]
        labels = max(0.0, sum(here) - self._labels_in_epoch)
        longest = max(0.0, max(here) - self._labels_in_epoch / len(here)) if here else 0.0  # labels of one network
        for number, other in enumerate(self._session.packs):
            if other["done"] is None and number != pack:
                models = [(symbol, member) for symbol in other["symbols"]
                          for member in range(self._session.config.n_members)]
                labels += sum(self._labels_of[model[0]] * self._epochs(model, 0) for model in models)
                epochs = (max(self._epochs(model, 0) for model in models) if self._session.epochs_of or
                          not self._longest else float(np.mean(self._longest)))
                longest += max(self._labels_of[symbol] for symbol in other["symbols"]) * epochs
        return longest / self._labels_in_step, labels

    def _epochs(self, model: tuple[str, int], epoch: int) -> float:
        """Epochs that a network is expected to go on for, after `epoch` of them."""
        if self._session.epochs_of is not None:
            return max(0, self._session.epochs_of[model[0]][model[1]] - epoch)
        settings = self._session.config.train
        longer = [length - epoch for length in self._lengths if length > epoch]
        if longer:
            return sum(longer) / len(longer)
        most = settings.epochs - epoch
        return min(most, settings.patience) if self._lengths else most


def _pack_words(session: Session, number: int) -> str:
    rows = [session.ledger[symbol] for symbol in session.packs[number]["symbols"]]
    done = [row for row in rows if row["state"] == "done"]
    epochs = f", best epochs {np.mean([row['best_epoch'] for row in done]):.1f} on average" if done else ""
    return f"pack {number + 1}/{len(session.packs)} done: {len(done)} of {len(rows)} symbols{epochs}"


def finish_words(session: Session) -> str:
    """How a finished run ended."""
    counts, spent = session.counts(), sum(session.seconds.values())
    failed = f", failed: {name_a_few(session.failed())}" if counts["failed"] else ""
    return f"{counts['done']} of {len(session.ledger)} symbols done in {spell(spent)}{failed}"
