"""The week by one call: collect, prepare, train, validate, export, deploy, predict, notify; again: what is missing."""

import datetime as dt
import functools
import math
import time
from dataclasses import dataclass
from typing import Any, Literal

from vnq_colab.clock import spell, utc_now
from vnq_colab.config import RunConfig
from vnq_colab.data.collect import collect_prices
from vnq_colab.data.prepared import Prepared, load_prepared, prepare, prepared_prices
from vnq_colab.data.unpack import price_files
from vnq_colab.delivery import remote
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.deploy import deploy
from vnq_colab.delivery.leaks import is_proven, review
from vnq_colab.delivery.notify import find_urls, notify, notify_evening
from vnq_colab.delivery.predict import plan_day
from vnq_colab.delivery.validate import validate
from vnq_colab.delivery.week import STEPS, Week, moment_after, usual_seconds, week_of, weeks
from vnq_colab.errors import (
    CheckpointError,
    DataError,
    DeliveryError,
    SessionError,
    StorageError,
    VnqError,
    name_a_few,
    tell,
)
from vnq_colab.files import locked
from vnq_colab.layout import Workspace
from vnq_colab.progress import stage
from vnq_colab.settings import Settings
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import resume, train

ALWAYS = ("predict", "notify")  # by the champion that there is, whatever became of the steps before
LEAST_TRAINING = 60.0  # [s] for less it is not begun
LONGEST_WAIT = 24 * 3600.0  # [s] for a run that is trained elsewhere, without a deadline
Gave = tuple[str, dict[str, Any]]  # a step's sentence, and what it gave by name


class _Later(Exception):
    """What a step lacks: the week is paused, and goes on when it is called again."""


@dataclass(frozen=True, kw_only=True)
class Choices(Settings):
    """How a week is done."""

    where: Literal["local", "drive", "colab"] = "local"  # what trains: this machine; Colab, by hand; Colab, by its CLI
    fallback: Literal["local"] | None = None  # what trains when that is silent
    patience: float = 1800.0  # [s] of silence
    remote: str | None = None  # what rclone calls the folder on Drive; None: the workspace itself is there
    gpu: str = "T4"  # that is asked of Colab
    words: tuple[str, ...] = ()  # flags of `train`, for Colab
    data: str | None = None  # prices; None: data/raw, with what is collected
    collect: bool = True
    as_of: str | None = None  # the day whose close is the last known; None: today
    until: str | None = None  # "Mon 08:30" in Vietnam: what cannot be finished by then is not begun
    hours: float | None = None  # of training, at most


def weekly(ws: Workspace, config: RunConfig, choices: Choices | None = None, *, reading: dict[str, Any] | None = None,
           urls: Any = None, quiet: bool = False) -> Week:
    """Does what the week lacks, and records it in `weeks/`; a week that is done is left alone.

    Bad data, a Drive that is gone, a network that is down fail a step: the champion stays and forecasts, and the person
    is told, at `urls` (None: $VNQ_NOTIFY). `reading` is what `prepare` takes beside the prices and their day. Raises
    VnqError for choices that are none, and while another process does the week.
    """
    choices, urls = choices or Choices(), find_urls(urls)
    with locked(ws.local.weeks / "weekly.lock", 1):
        week = Week(ws, week_of(choices.as_of), choices.where, choices.as_of)
        try:
            week = Week.load(ws, week.week)
        except FileNotFoundError:
            pass
        except CheckpointError as error:  # a write on Drive that was cut short
            tell(f"{error} The week begins anew.")
        if week.is_done():
            tell(f"week {week.week} is done, as of {week.as_of or week.begun[:10]}: nothing to do.")
            return week
        week.where, week.as_of = choices.where, choices.as_of
        deadline = choices.until and moment_after(choices.until, week.begun)
        _Work(week, config, choices, deadline, usual_seconds(ws, week.week), reading or {}, urls, quiet).do()
    return week


@dataclass
class _Work:
    """One call of `weekly`: a method for each step."""

    week: Week
    config: RunConfig
    choices: Choices
    deadline: dt.datetime | None
    usual: dict[str, float]  # [s] that each step takes
    reading: dict[str, Any]
    urls: tuple[str, ...]
    quiet: bool
    note: str = ""  # why it was trained here

    def do(self) -> None:
        """The steps that are missing; after one that fails or must wait, only those that are always done."""
        week, goes_on = self.week, True
        for name in STEPS:
            if week.is_done(name) or not (goes_on or name in ALWAYS):
                continue
            was_cut = name in week.steps and week.steps[name]["state"] == "running"
            began, step = time.monotonic(), {"state": "running", "begun": utc_now(), "ended": None, "seconds": 0.0,
                                             "text": "", "gave": {}}
            week.put(name, step)
            try:
                needed = LEAST_TRAINING if name == "train" else self.usual[name]
                if name not in ALWAYS and self._left_for(name) < needed:
                    end, is_over = f"{self.deadline:%a %Y-%m-%d %H:%M}", self.deadline < dt.datetime.now(dt.UTC)
                    why = (f"{end} is over" if is_over else
                           f"it takes about {spell(needed)}, and what follows too must be done by {end}")
                    raise _Later(f"not begun: {why}; the champion stays")
                with stage(f"{name}, {list(STEPS).index(name) + 1} of {len(STEPS)}", quiet=self.quiet):
                    step["text"], step["gave"] = getattr(self, name)()
                step["state"], step["text"] = "done", step["text"] + "; begun twice, its process had ended" * was_cut
            except (VnqError, OSError, _Later) as error:
                step["state"], step["text"] = "paused" if isinstance(error, _Later) else "failed", f"{error}"
                goes_on = False
            week.put(name, step | {"ended": utc_now(), "seconds": round(time.monotonic() - began, 1)})
            if not self.quiet:
                tell(f"{name}: {step['state']} in {spell(week.steps[name]['seconds'])}. {step['text']}")

    def _left_for(self, name: str) -> float:
        """[s] that a step has before those behind it need the rest; training pauses, and is not counted with them."""
        if self.deadline is None:
            return math.inf
        behind = sum(self.usual[one] for one in list(STEPS)[list(STEPS).index(name) + 1:] if one != "train")
        return (self.deadline - dt.datetime.now(dt.UTC)).total_seconds() - behind

    @functools.cached_property
    def _prepared(self) -> Prepared:
        return load_prepared(self.week.ws, self.week.gave("data_id"))

    @functools.cached_property
    def _session(self) -> Session:
        return Session.load(self.week.ws, self.week.gave("run_id"))

    # --------------------------------------------------------------------------------------------------------- steps
    def collect(self) -> Gave:
        if not self.choices.collect or self.choices.data is not None:
            return "not asked for", {}
        collected = collect_prices(self.week.ws, day=self.choices.as_of)
        return repr(collected).splitlines()[0], {"files": [file.name for file in collected.files]}

    def prepare(self) -> Gave:
        choices, ws = self.choices, self.week.ws
        if choices.data is None and not price_files(ws.raw):
            raise DataError(f"{ws.raw}: no history is here. Collect it, put its files there, or name it with --data.")
        self._prepared = prepared = prepare(ws, choices.data, as_of=choices.as_of, **self.reading)
        panel, warnings = prepared.panel, prepared.cleaning.warnings
        if left := [text for text in warnings if text.startswith(f"left out: {ws.weekly_updates}")]:
            raise DataError(left[0].removeprefix("left out: "))
        if not is_proven(prepared) and not (reviewed := review(prepared)).proof.passed:
            raise DataError(f"{prepared.folder}: {reviewed!r}")
        facts = f"data {panel.data_id}: {len(panel.symbols)} symbols to {panel.days[-1]:%Y-%m-%d}"
        return ". ".join([facts, *warnings]), {"data_id": panel.data_id}

    def train(self) -> Gave:
        """Elsewhere or here; here too what is missing of a run whose machine is silent, with a fallback."""
        choices, ws, session = self.choices, self.week.ws, None
        seconds = min(self._left_for("train"), 3600 * (math.inf if choices.hours is None else choices.hours))
        hours = None if math.isinf(seconds) else max(0.0, seconds) / 3600
        if choices.where != "local":
            session = self._from_elsewhere(seconds, hours)
        if session is None:
            session = train(ws, self._prepared.panel, self.config, hours=hours, quiet=self.quiet)
        elif session.status != "finished":
            session = resume(ws, session.run_id, hours=hours, take_over=True, quiet=self.quiet)
        if session.status != "finished":
            raise _Later(f"run {session.run_id} is paused: {session.why}")
        self._session, failed = session, session.failed()
        return (f"run {session.run_id}: {len(session.jobs)} jobs, failed: {name_a_few(failed) or 'none'}{self.note}",
                {"run_id": session.run_id, "failed": [*failed]})

    def _from_elsewhere(self, seconds: float, hours: float | None) -> Session | None:
        """The run of these data, finished unless the rest of it is to be trained here; None: there is none."""
        choices, ws, data_id = self.choices, self.week.ws, self._prepared.panel.data_id
        found, why = None, "no run of these data is finished"
        try:
            if choices.where == "colab":
                words = choices.words if hours is None else (*choices.words, "--hours", f"{hours:.2f}")
                remote.train_on_colab(ws, data_id, words, gpu=choices.gpu, patience=choices.patience)
                found = next(reversed(remote.runs_of(ws, data_id)), None)
            else:
                if choices.remote:
                    remote.send_data(ws, data_id, choices.remote)
                most = min(seconds - (self.usual["train"] if choices.fallback else 0), LONGEST_WAIT)
                found = remote.wait_for_run(ws, data_id, choices.remote, seconds=most,
                                            patience=choices.patience if choices.fallback else most)
        except (SessionError, StorageError) as error:
            if not choices.fallback:
                raise
            why = f"{error}"
        if not (found and found.status == "finished"):
            if not choices.fallback:
                raise _Later(f"{why}. Call weekly again, or with --fallback local")
            self.note = f". Trained here: {why}"
        return found and Session.load(ws, found.run_id)

    def validate(self) -> Gave:
        validation = validate(self._session, prepared=self._prepared)
        decision, order = validation.verdict.market["decision"], validation.order
        before = next((week.gave("market") for week in weeks(self.week.ws) if week.week < self.week.week), None)
        changed = f" (a week ago: {before})" if before not in (None, decision) else ""
        value = float(order.families.set_index("family")["open"].get(order.family, math.nan))
        return f"market {decision}{changed}; rank correlation {value:.3f} open to open", {
            "market": decision, "rank_correlation": round(value, 4) if math.isfinite(value) else None}

    def export(self) -> Gave:
        bundle = export_bundle(self._session, panel=self._prepared.panel)
        return f"bundle {bundle.folder.name}", {"bundle": bundle.folder.name}

    def deploy(self) -> Gave:
        try:
            return deploy(self.week.ws, self.week.gave("bundle")).text, {}
        except DeliveryError as error:  # it does not deserve it
            return f"{error}", {}

    def predict(self) -> Gave:
        ws, bundle = self.week.ws, load_bundle(self.week.ws)
        prices, index = prepared_prices(ws)
        plan = plan_day(ws, bundle, prices, index=index if bundle.manifest["market_index"] else None,
                        as_of=self.choices.as_of, refuse_old=True)
        notify_evening(plan, self.urls)
        n_orders = 0 if plan.orders is None else plan.orders["action"].isin(["buy", "sell"]).sum()
        return f"{n_orders} orders as of {plan.outlook.day:%Y-%m-%d}", {
            "champion": bundle.folder.name, "files": [str(path.relative_to(ws.root)) for path in plan.files]}

    def notify(self) -> Gave:
        week, text = self.week, []
        if self.choices.remote:
            try:
                text = [remote.sync_test(week.ws, self.choices.remote)]
            except VnqError as error:
                text = [f"{error}"]
        title = f"vnq_colab: week {week.week} {'done' if week.is_done('predict') else week.state}"
        failed = notify(self.urls, title, "\n".join([week.text, *repr(week).splitlines()[1:-1], *text]))
        return ". ".join([f"{len(self.urls)} addresses, {len(failed)} failed", *text]), {}
