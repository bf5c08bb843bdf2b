"""The week by one call: collect, prepare, train, validate, export, deploy, predict, notify; again: what is missing."""

import contextlib
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
from vnq_colab.delivery import remote
from vnq_colab.delivery.bundle import export_bundle, load_bundle, read_manifest
from vnq_colab.delivery.champion import read_pointer
from vnq_colab.delivery.deploy import deploy
from vnq_colab.delivery.leaks import is_proven, review
from vnq_colab.delivery.notify import find_urls, notify
from vnq_colab.delivery.predict import plan_day
from vnq_colab.delivery.validate import validate
from vnq_colab.delivery.week import STEPS, Week, moment_after, usual_seconds, week_of
from vnq_colab.errors import DataError, DeliveryError, SessionError, StorageError, VnqError, tell
from vnq_colab.files import locked
from vnq_colab.layout import Workspace
from vnq_colab.settings import Settings
from vnq_colab.training.session import Session, run_names
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
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(locked(ws.local.weeks / "weekly.lock", seconds=1))
        except StorageError as error:
            raise SessionError(f"another process of this machine does the week. Wait for it, or end it ({error})"
                               ) from None
        week = Week(ws, week_of(choices.as_of), choices.where, choices.as_of)
        try:
            week = Week.load(ws, week.week)
        except FileNotFoundError:
            pass
        except VnqError as error:  # a write on Drive that was cut short
            tell(f"{error} The week begins anew.")
        if week.is_done("notify"):
            tell(f"week {week.week} is done: nothing to do.")
            return week
        week.where, week.as_of = choices.where, choices.as_of
        deadline = choices.until and moment_after(choices.until, dt.datetime.fromisoformat(week.begun))
        _Work(week, config, choices, deadline, reading or {}, urls, quiet).do()
    return week


@dataclass
class _Work:
    """One call of `weekly`: a method for each step."""

    week: Week
    config: RunConfig
    choices: Choices
    deadline: dt.datetime | None
    reading: dict[str, Any]
    urls: tuple[str, ...]
    quiet: bool

    def do(self) -> None:
        """The steps that are missing; after one that fails or must wait, only those that are always done."""
        week, goes_on = self.week, True
        for name in STEPS:
            if week.is_done(name) or not (goes_on or name in ALWAYS):
                continue
            began, step = time.monotonic(), {"state": "running", "begun": utc_now(), "ended": None, "seconds": 0.0,
                                             "text": "", "gave": {}}
            week.put(name, step)
            try:
                self._require_time(name)
                step["text"], step["gave"] = getattr(self, name)()
                step["state"] = "done"
            except (VnqError, OSError, _Later) as error:
                step["state"], step["text"] = "paused" if isinstance(error, _Later) else "failed", f"{error}"
                goes_on = False
            week.put(name, step | {"ended": utc_now(), "seconds": round(time.monotonic() - began, 1)})
            if not self.quiet:
                tell(f"{name}: {step['state']} in {spell(week.steps[name]['seconds'])}. {step['text']}")

    # ---------------------------------------------------------------------------------------------------- time left
    @functools.cached_property
    def _seconds(self) -> dict[str, float]:
        return usual_seconds(self.week.ws, self.week.week)

    def _left_for(self, name: str) -> float:
        """[s] that a step has before those behind it need the rest; training pauses, and is not counted with them."""
        if self.deadline is None:
            return math.inf
        behind = sum(self._seconds[one] for one in list(STEPS)[list(STEPS).index(name) + 1:] if one != "train")
        return (self.deadline - dt.datetime.now(dt.UTC)).total_seconds() - behind

    def _require_time(self, name: str) -> None:
        needed = LEAST_TRAINING if name == "train" else self._seconds[name]
        if name not in ALWAYS and self._left_for(name) < needed:
            raise _Later(f"not begun: it takes about {spell(needed)}, and with what follows it would not be done by "
                         f"{self.deadline:%a %Y-%m-%d %H:%M}; the champion stays")

    # --------------------------------------------------------------------------------------------------------- steps
    @functools.cached_property
    def _prepared(self) -> Prepared:
        return load_prepared(self.week.ws, self.week.gave("data_id"))

    @functools.cached_property
    def _session(self) -> Session:
        return Session.load(self.week.ws, self.week.gave("run_id"))

    def collect(self) -> Gave:
        if not self.choices.collect or self.choices.data is not None:
            return "not asked for", {}
        collected = collect_prices(self.week.ws, day=self.choices.as_of, quiet=self.quiet)
        return repr(collected).splitlines()[0], {"files": [file.name for file in collected.files]}

    def prepare(self) -> Gave:
        choices, ws = self.choices, self.week.ws
        self._prepared = prepared = prepare(ws, choices.data, as_of=choices.as_of, **self.reading)
        panel, warnings = prepared.panel, prepared.cleaning.warnings
        if left := [text for text in warnings if text.startswith(f"left out: {ws.weekly_updates}")]:
            raise DataError(left[0].removeprefix("left out: "))
        if not is_proven(prepared) and not (reviewed := review(prepared)).proof.passed:
            raise DataError(f"{prepared.folder}: {reviewed!r}")
        if choices.where == "drive" and choices.remote:
            remote.send_data(ws, panel.data_id, choices.remote)
        return ". ".join([f"data {panel.data_id}: {len(panel.symbols)} symbols to {panel.days[-1]:%Y-%m-%d}",
                          *warnings]), {"data_id": panel.data_id}

    def train(self) -> Gave:
        choices = self.choices
        seconds = min(self._left_for("train"), math.inf if choices.hours is None else 3600 * choices.hours)
        session = None if choices.where == "local" else self._trained_elsewhere(seconds)
        if session is None or session.status != "finished":
            session = self._train_here(session, seconds)
        if session.status != "finished":
            raise _Later(f"run {session.run_id} is paused: {session.why}")
        self._session, failed = session, session.failed() or session.failed_jobs()
        return f"run {session.run_id}: {len(session.jobs)} jobs, {len(failed)} failed", {"run_id": session.run_id}

    def _trained_elsewhere(self, seconds: float) -> Session | None:
        """The run of these data as it lies here, finished unless it is to be trained on here; None: there is none."""
        choices, ws, data_id = self.choices, self.week.ws, self._prepared.panel.data_id
        most, found, why = min(seconds, LONGEST_WAIT), None, "no run of these data is finished"
        if choices.where == "drive":
            found = remote.wait_for_run(ws, data_id, choices.remote, seconds=most,
                                        patience=choices.patience if choices.fallback else most)
            if found and choices.remote:
                with contextlib.nullcontext() if found.status == "finished" else contextlib.suppress(VnqError):
                    remote.fetch_run(ws, found, choices.remote)
        else:
            try:
                hours = () if math.isinf(seconds) else ("--hours", f"{seconds / 3600:.2f}")
                remote.train_on_colab(ws, data_id, [*choices.words, *hours], gpu=choices.gpu, patience=choices.patience)
            except SessionError as error:
                why = f"{error}"
            found = next(reversed(remote.runs_of(ws, data_id, None)), None)
        if not choices.fallback and not (found and found.status == "finished"):
            raise _Later(f"{why}. Call weekly again, or with --fallback local")
        return Session.load(ws, found.run_id) if found and found.run_id in run_names(ws) else None

    def _train_here(self, session: Session | None, seconds: float) -> Session:
        hours, ws = None if math.isinf(seconds) else max(0.0, seconds) / 3600, self.week.ws
        if self.choices.where != "local":
            tell(f"{self.choices.where} is silent: the jobs that are missing are trained here")
        if session is not None:
            return resume(ws, session.run_id, hours=hours, take_over=True, quiet=self.quiet)
        return train(ws, self._prepared.panel, self.config, hours=hours, quiet=self.quiet)

    def validate(self) -> Gave:
        was = self._champion_decision()
        validation = validate(self._session, prepared=self._prepared)
        decision, order = validation.verdict.market["decision"], validation.order
        value = float(order.families.set_index("family")["open"].get(order.family, math.nan))
        changed = f"; it was {was} for the champion" if was not in (None, decision) else ""
        return f"market {decision}{changed}; rank correlation {value:.3f} open to open", {
            "market": decision, "rank_correlation": round(value, 4) if math.isfinite(value) else None}

    def _champion_decision(self) -> str | None:
        with contextlib.suppress(VnqError):
            if pointer := read_pointer(self.week.ws.models):
                verdict = read_manifest(self.week.ws.models / pointer["champion"])["verdict"]
                return verdict["market"]["decision"] if verdict else "unjudged"
        return None

    def export(self) -> Gave:
        bundle = export_bundle(self._session, panel=self._prepared.panel)
        return f"bundle {bundle.folder.name}", {"bundle": bundle.folder.name}

    def deploy(self) -> Gave:
        try:
            text = deploy(self.week.ws, self.week.gave("bundle")).text
        except DeliveryError as error:
            text = f"{error}"
        return text, {}

    def predict(self) -> Gave:
        ws, bundle = self.week.ws, load_bundle(self.week.ws)
        prices, index = prepared_prices(ws)
        plan = plan_day(ws, bundle, prices, index=index if bundle.manifest["market_index"] else None,
                        as_of=self.choices.as_of, refuse_old=True)
        n_orders = "no orders" if plan.orders is None else f"{plan.orders['action'].isin(['buy', 'sell']).sum()} orders"
        return f"{n_orders} as of {plan.outlook.day:%Y-%m-%d}", {
            "champion": bundle.folder.name, "files": [str(path.relative_to(ws.root)) for path in plan.files]}

    def notify(self) -> Gave:
        week = self.week
        state = "done" if all(week.is_done(name) for name in STEPS if name != "notify") else week.state
        failed = notify(self.urls, f"vnq_colab: week {week.week} {state}", repr(week))
        return f"{len(self.urls)} addresses, {len(failed)} failed", {}
