"""Search: which settings of a family order best the stocks of days that it has not learnt from.

A trial is trained as a run is, with its jobs, checkpoints and deadlines, on the held-out stage of a few folds alone.
Its value is the rank correlation of the validation days, of stocks that could be bought: the mean over folds less its
standard error. Test days are not looked at; the validation days of a later fold are the test days of earlier ones.
"""

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab import __version__
from vnq_colab.clock import spell
from vnq_colab.config import SYNTHETIC_NOTE, RunConfig, require_known
from vnq_colab.data.forecast import check_market, rank_correlation
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.panel import CLOSE, OPEN, Panel
from vnq_colab.data.splits import yearly_folds
from vnq_colab.data.synthetic import is_synthetic
from vnq_colab.errors import ConfigError, VnqError, tell
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.order import buyable
from vnq_colab.files import locked, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import Job, Learner, Progress, TrainingData, family_module
from vnq_colab.notebook import Shown
from vnq_colab.progress import stage
from vnq_colab.recipes import RECIPE, RECIPE_FORMAT
from vnq_colab.settings import COUNT, POSITIVE, Space, convert
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.jobs import load_job
from vnq_colab.training.journal import GROUPS, Journal, ranges_of
from vnq_colab.training.loop import Attempt
from vnq_colab.training.session import Session, sessions
from vnq_colab.training.suggest import Question, Suggest, candidates, history_of, json_schema, whom
from vnq_colab.training.trainer import go_on, judged_symbols, start_run

JOURNAL, LOCK = "journal.log", "search.lock"  # in the folder of a search
FACTS = ("trial", "state", "value", "folds", "seconds", "reason", "source")  # of a trial, before its settings
FEWEST, LOW = 5, 0.25  # complete trials that one is compared with; quantile of theirs; chosen: EXPERIMENTS, 11-29
BATCH = 5  # trials for which suggestions are asked at once; every second one of them takes one
OBJECTIVE = ("maximise the mean over yearly folds of the daily rank correlation between the forecast and the return of "
             "the next five days, on validation days, less its standard error over the folds")


@dataclass(frozen=True, repr=False)
class Search(Shown):
    """A search as it stands: finished, or paused and why; its trials; and the recipe of the best of them."""

    id: str
    status: str
    why: str
    trials: pd.DataFrame  # one row each: FACTS, and the settings by their full names
    recipe: Path | None  # None while no trial is complete
    seen_to: str  # the last validation day that a trial was measured on
    note: str  # SYNTHETIC, or nothing

    @property
    def best(self) -> pd.Series | None:
        """The row of the best complete trial; None while there is none."""
        known = self.trials["value"].dropna()
        return None if known.empty else self.trials.loc[known.idxmax()]

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.trials["state"].value_counts().items())
        lines = [f"search {self.id}: {self.status}" + (f" ({self.why})" if self.why else ""), self.note,
                 f"{len(self.trials)} trials ({counts or 'none yet'}) in {spell(self.trials['seconds'].sum())}"]
        if (best := self.best) is not None:
            first = self.trials.iloc[0]
            lines += [f"best: trial {best['trial']}, {best['value']:.4f}; the default has {first['value']:.4f} (rank "
                      "correlation of validation days, mean over folds less its standard error)",
                      *("  {} = {} (default {})".format(name, *(f"{value:.4g}" if isinstance(value, float) else value
                                                                for value in (best[name], first[name])))
                        for name in self.trials.columns[len(FACTS):]),
                      f"validation days up to {self.seen_to} were seen: only test days after them are fresh",
                      f"train with it: --recipe \"{self.recipe}\""]
        return "\n  ".join(line for line in lines if line)


class Pruned(VnqError):
    """A trial that is given up, and why."""


class Trial(Attempt):
    """An attempt at a trial: of each fold the held-out stage; given up where it is behind others, or the best."""

    def __init__(self, *arguments: Any, asked: Any, others: list[tuple[list[float], dict[str, dict[float, float]]]],
                 fold_of: Callable[[Session, int], tuple[float, Any]]):
        super().__init__(*arguments)
        self._asked, self._fold_of, self._values = asked, fold_of, list[float]()
        self._others = others  # the values of the folds of complete trials, and their curves by job

    def _data(self, job: Job) -> TrainingData:
        return replace(super()._data(job), is_trial=True)

    def _learner(self, job: Job, data: TrainingData, inputs: dict[str, dict[str, Any]]) -> Learner:
        for fold in range(len(self._values), job.fold):
            self._values.append(self._fold_of(self.session, fold)[0])
            self._asked.report(self._values[-1], fold)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the test itself, that ties are many
                is_worse = self._asked.should_prune()
            if is_worse:
                raise Pruned(f"worse than the best trial on the first {fold + 1} folds")
        return super()._learner(job, data, inputs)

    def _stepped(self, name: str, progress: Progress) -> None:
        """Raises Pruned where the mean of the folds so far is in the lowest quarter of what complete trials had there.

        From half of the shortest of their ways to its end: some stop early, and those that go on are the better ones.
        """
        super()._stepped(name, progress)
        skill, at = (progress.measured.get(what, math.nan) for what in ("skill", "at"))
        fold = self.session.jobs[name]["fold"]
        there = [[*values[:fold], curves[name][at]] for values, curves in self._others if at in curves.get(name, {})]
        if progress.share < 1 and FEWEST <= len(there) == len(self._others) and (
                2 * at >= min(max(curves[name]) for _, curves in self._others)
                and np.mean([*self._values, skill]) < np.quantile(np.mean(there, axis=1), LOW)):
            raise Pruned(f"below three quarters of the other trials ({name}, {progress.words})")


def search(ws: Workspace, panel: Panel, config: RunConfig, *, family: str = "trees",
           space: Space | list[str] | None = None, n_trials: int = 30, hours: float | None = None, folds: int = 4,
           suggest: Suggest | str | None = None, constraints: str = "", quiet: bool = False) -> Search:
    """Tries settings of a family, `n_trials` in all, the config's own first; the same search again goes on.

    `space` are the ranges, by the setting's full name, or some names of the family's own SPACE (None: all of it). The
    first `folds` of the config's folds are taken, so that the test days after their validation days stay unseen.
    `hours` from now is the latest time to stop. `suggest`, a callable or a provider's name, is asked for every second
    trial, with `constraints` in words: training/suggest.py says what leaves the machine. Raises ConfigError for an
    empty budget or space, or without Optuna.
    """
    for name, of, value in (("n_trials", COUNT, n_trials), ("folds", COUNT, folds), ("hours", POSITIVE | None, hours)):
        convert(of, value, name)
    ws.check_writable()
    ask = whom(suggest, constraints)
    config = replace(config, families=(family,), task=check_market(panel, config.task),
                     symbols=tuple(judged_symbols(panel, config)[0]))
    if not isinstance(space, dict):
        declared = family_module(family).SPACE
        for name in convert(list[str] | None, space, "space") or ():
            require_known(name, declared, f"range, declared by the family {family}, of the setting")
        space = declared if space is None else {name: declared[name] for name in space}
    searching = Searching(ws, panel, config, space, folds, quiet)
    searching.suggest, searching.constraints = ask, constraints
    with locked(searching.home.local.root / LOCK, seconds=0, held="this search is already running"):
        return searching.run(n_trials, hours)


class Searching:
    """One attempt at a search."""

    suggest: Suggest | None = None
    constraints: str = ""

    def __init__(self, ws: Workspace, panel: Panel, config: RunConfig, space: Space, folds: int, quiet: bool):
        self.panel, self.config, self.space, self.family = panel, config, space, config.families[0]
        self.ranges, self.say = ranges_of(space, config), (lambda text: None) if quiet else tell
        every = yearly_folds(panel.days, config.folds, purge_days=config.task.purge_days)
        self.folds, self.seen_to = every[:folds], every[:folds][-1].valid.last
        if len(every) < folds:
            self.say(f"{folds} folds were asked for, and the data makes {len(every)}")
        facts = [config.config_id, panel.data_id, [asdict(fold) for fold in self.folds], repr(space), __version__]
        self.id = f"{self.family}_{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]}"
        self.home = Workspace(ws.searches / self.id)
        self._outcome = outcomes(panel, CLOSE if config.task.label == "close" else OPEN)

    def run(self, n_trials: int, hours: float | None) -> Search:
        """Trial after trial, until they are enough or time is up."""
        self.journal = Journal([home.root / JOURNAL for home in self.home.homes], self.id, self.ranges)
        end, why = math.inf if hours is None else time.monotonic() + 3600 * hours, ""
        while not why and (n := len(self.journal.trials)) < n_trials:
            left = (end - time.monotonic()) / 3600
            why = "time is up" if left <= 0 else self._run_trial(n, None if hours is None else left)
            if not why:
                found = self._stand("")
                table, best, last = found.trials, found.best, found.trials.iloc[-1]
                value = f"{last['value']:.4f}" if last["state"] == "complete" else f"{last['state']}, {last['reason']}"
                left = f"; {n_trials - n - 1} left, about {spell(table['seconds'].mean())} each" * (n + 1 < n_trials)
                self.say(f"trial {n + 1}/{n_trials}, {last['source']}: {value}, in {spell(last['seconds'])}"
                         + ("" if best is None else f"; best {best['value']:.4f}, trial {best['trial']}") + left)
        return self._stand(why)

    def _run_trial(self, number: int, hours: float | None) -> str:
        """Trains a trial and writes it down; says why it paused, or ""."""
        default = {name: value for name, value in self.config.flat().items() if name in self.ranges}
        settings = self._suggested(number) if number else default
        facts = {"source": ("suggestion" if settings else "sampler") if number else "default", "reason": "",
                 "seconds": 0.0, "curves": {}}
        asked, state, value, values = self.journal.ask(self.config.seed, settings), "complete", None, []
        try:
            config = self.config.with_settings(asked.params)
            begun = [one for one in sessions(self.home, config.config_id[:6]) if not config.differences(one.config)]
            session = begun[0] if begun else start_run(self.home, config, self.panel, self.folds, [*config.symbols], {},
                                                       is_trial=True)
        except ConfigError as error:  # settings that exclude one another
            if not number:
                raise  # the config's own: no trial could be better
            self.journal.add(asked, "fail", None, [], **facts | {"reason": str(error)})
            return ""
        others = [([*one.intermediate_values.values()], {job: dict(map(tuple, curve)) for job, curve in
                                                         one.user_attrs["curves"].items() if curve})
                  for one in self.journal.trials if one.state.name == "COMPLETE"]
        try:
            with stage(f"trial {number + 1}", quiet=self.say is not tell):
                session = go_on(session, self.panel, config.machine, hours, None, True, attempt=partial(
                    Trial, asked=asked, others=others, fold_of=self._fold))
            if session.status != "finished":
                return session.why or "paused"
        except Pruned as pruned:
            state, facts["reason"] = "pruned", str(pruned)
        left = [row["fold"] for row in session.jobs.values() if row["state"] not in ("done", "failed")]
        for fold in range(min(left, default=len(self.folds))):
            one, more = self._fold(session, fold)
            values, facts["curves"] = [*values, one], facts["curves"] | more
        if session.failed() or not np.isfinite(values).all():
            state, values, facts["curves"] = "fail", [], {}
            facts["reason"] = next(iter(session.failed().values()), "no validation day of a fold can be judged")
        if state == "complete":
            value = float(np.mean(values) - (np.std(values, ddof=1) / len(values) ** 0.5 if values[1:] else 0.0))
        self.journal.add(asked, state, value, values, **facts | {"seconds": round(sum(session.seconds.values()), 1)})
        return ""

    def _fold(self, session: Session, fold: int) -> tuple[float, dict[str, list[tuple[int, float]]]]:
        """The rank correlation of a finished fold's validation days, NaN where there is none; its jobs' curves."""
        store, days, curves = CheckpointStore.of(session), self.folds[fold].valid.mask(self.panel.days), {}
        score = np.full(self.panel.present.shape, np.nan)
        for name in [name for name, row in session.jobs.items() if row["fold"] == fold and row["state"] == "done"]:
            state = load_job(session, store, name)
            if session.jobs[name]["family"] == self.family and (rows := state.get("forecast")):
                score[rows["symbol"].numpy(), rows["day"].numpy()] = rows["score"].numpy()
            skill = pd.DataFrame([(row[2], row[4]) for row in state["curves"] if row[2] > 0], columns=["at", "skill"])
            means = skill.dropna().groupby("at")["skill"].mean()
            curves[name] = [(int(at), round(mean, 5)) for at, mean in means.items()]
        score, actual = score[:, days], self._outcome[:, days]
        known = np.isfinite(score) & np.isfinite(actual)
        return rank_correlation(np.where(known, score, np.nan), np.where(known, actual, np.nan)), curves

    def _suggested(self, number: int) -> dict[str, Any] | None:
        """The suggestion for a trial, where it takes one and there is one; a batch is asked for once, and noted."""
        place, key = (number - 1) % BATCH, f"suggestions from trial {number - (number - 1) % BATCH + 1}"
        if self.suggest is not None and place == 0 and key not in self.journal.study.user_attrs:
            rows = [{"settings": trial.params, "value": trial.value, "state": trial.state.name.lower()}
                    for trial in self.journal.trials if trial.state.name != "FAIL"]
            batch, unused = candidates(self.suggest, Question(json_schema(self.space), history_of(rows), OBJECTIVE,
                                                              self.constraints, -(-BATCH // 2)))
            for sentence in unused:
                self.say(sentence)
            self.journal.study.set_user_attr(key, batch)
            if any("no answer within" in sentence for sentence in unused):
                self.suggest = None  # who was late once costs no more time
        batch = self.journal.study.user_attrs.get(key, [])
        return batch[place // 2] if place % 2 == 0 and place // 2 < len(batch) else None

    def _stand(self, why: str) -> Search:
        """The search as it stands, once the recipe of its best trial is written."""
        table = pd.DataFrame([{
            "trial": trial.number + 1, "state": trial.state.name.lower(), "value": trial.value,
            "folds": [round(value, 4) for value in trial.intermediate_values.values()],
            **trial.user_attrs, **trial.params} for trial in self.journal.trials], columns=[*FACTS, *self.ranges])
        table = table.astype({"value": float})
        found = Search(self.id, "paused" if why else "finished", why, table, self.home.root / RECIPE, self.seen_to,
                       SYNTHETIC_NOTE * is_synthetic(self.panel.symbols))
        if (best := found.best) is None:
            return replace(found, recipe=None)
        plain = RunConfig.for_machine(self.config.machine.profile, recipe=self.config.recipe).flat()
        own = {name: value for name, value in self.config.flat().items()  # what was changed before the search
               if value != plain[name] and name.partition(".")[0] in GROUPS}
        before = self.config.found_by
        write_sealed(found.recipe, {
            "format": RECIPE_FORMAT, "code_version": __version__, "base": self.config.recipe, "family": self.family,
            "name": f"best of {len(table)} trials of {self.id}", "search": self.id,
            "trials": len(table) + before.trials * (before.search != self.id),  # and those that it began from
            "settings": own | self.journal.trials[best["trial"] - 1].params,
            "seen_to": max(self.seen_to, before.seen_to),
            "value": float(best["value"]), "default": self.journal.trials[0].value})
        return found


def outcomes(panel: Panel, column: int) -> np.ndarray:
    """`[symbols, days]`: the log return of the horizon; NaN where it is not known, or nobody could buy.

    Who could buy is decided by the panel's own prices, with the band of HOSE for every stock.
    """
    symbol, day = np.nonzero(panel.present)
    opened, close, value = panel.prices[symbol, day][:, [OPEN, CLOSE, -1]].T
    prices = pd.DataFrame({"symbol": np.array(panel.symbols, object)[symbol], "date": panel.days[day],
                           "open": np.where(np.isfinite(opened), opened, close), "close": close,
                           "volume": np.nan_to_num(value) / close})
    return np.where(buyable(panel, MarketData.of(prices, VN_RULES)), panel.ahead(column=column), np.nan)
