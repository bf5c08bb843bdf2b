"""The commands: the same functions as in the notebooks, each with what it prints and its exit code."""

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import vnq_colab as vnq
from vnq_colab import arguments
from vnq_colab.config import require_known
from vnq_colab.errors import VnqError, name_a_few, tell
from vnq_colab.layout import Workspace
from vnq_colab.progress import erase, now

if TYPE_CHECKING:
    from vnq_colab.delivery.bundle import Bundle
    from vnq_colab.delivery.validate import Validation
    from vnq_colab.training.session import Session

DONE, DEFECT, BAD_INPUT, PAUSED, SOME_FAILED = 0, 1, arguments.BAD_INPUT, 3, 4


def run(ws: Workspace, options: argparse.Namespace) -> int:
    """prepare, train, validate, export and tomorrow's orders, end to end."""
    from vnq_colab.delivery.champion import standing
    from vnq_colab.delivery.leaks import is_proven

    config, _ = arguments.run_config(options), arguments.how_to_train(options)  # wrong settings are said before
    prepared = vnq.prepare(ws, options.data, **arguments.price_options(options))
    _output(options, repr(prepared))
    arguments.require_judged(prepared, config, options)
    if not is_proven(prepared):  # once for each set: it takes longer than preparing it
        reviewed = vnq.review(prepared)
        _output(options, repr(reviewed))
        if not reviewed.proof.passed:
            return DEFECT
    session = vnq.train(ws, prepared.panel, config, **arguments.how_to_train(options))
    if session.status != "finished":
        return _finish_training(session, options)
    validation = vnq.validate(session, prepared=prepared)
    _output(options, _validation_text(validation, options))
    if settings := arguments.judging_options(options, ("gates", "slippage", "haircut")):  # a report of its own
        _output(options, repr(vnq.validate(session, prepared=prepared, **settings)))
    bundle = vnq.export_bundle(session, validation.verdict, panel=prepared.panel)
    text, bundles = standing(ws.models)
    if bundles["champion"] != bundle.folder.name:  # orders come from the champion alone, by deploy or predict
        orders = "No orders: they come from the champion alone. Next: python -m vnq_colab deploy, then predict"
        _output(options, f"{bundle!r}\n{text}\n{orders}", _bundle_facts(bundle))
        return _exit_code(session)
    plan = vnq.plan_day(ws, bundle, prepared.prices, index=prepared.index, as_of=options.as_of, capital=options.capital)
    _output(options, repr(plan), _bundle_facts(bundle) | plan.to_dict())
    return _exit_code(session)


def prepare(ws: Workspace, options: argparse.Namespace) -> int:
    """Read, clean, report, panel, folds; pictures, and the proof that nothing looks ahead."""
    prepared = vnq.prepare(ws, options.data, **arguments.price_options(options))
    reviewed = vnq.review(prepared)
    _output(options, f"{prepared!r}\n{reviewed!r}", {
        "data_id": prepared.panel.data_id, "folder": str(prepared.folder), "synthetic": prepared.synthetic,
        "folds": [asdict(fold) for fold in prepared.folds], "cleaning": asdict(prepared.cleaning),
        "lookahead": reviewed.proof.to_dict()})
    return DONE if reviewed.proof.passed else DEFECT


def train(ws: Workspace, options: argparse.Namespace) -> int:
    """Start a run on the prepared data, or go on with the same one."""
    config, prepared = arguments.run_config(options), vnq.load_prepared(ws)
    return _finish_training(vnq.train(ws, prepared.panel, config, part=options.part, take_over=options.take_over,
                                      **arguments.how_to_train(options)), options)


def search(ws: Workspace, options: argparse.Namespace) -> int:
    """Try settings of a family on the validation days of the prepared data; the same search again goes on."""
    folds, over = options.folds, None if options.over is None else [
        name.strip() for name in options.over.split(",") if name.strip()]
    options.folds = None  # those of the config
    found = vnq.search(ws, vnq.load_prepared(ws).panel, arguments.run_config(options), family=options.family,
                       space=over, n_trials=options.trials, hours=arguments.hours_left(options), folds=folds,
                       suggest=options.suggest, constraints=options.constraints, quiet=options.json)
    _output(options, repr(found), vars(found) | {"trials": json.loads(found.trials.to_json(orient="records"))})
    if found.status != "finished":
        tell(f"Paused: {found.why}. The same command goes on.")
        return PAUSED
    if found.best is None:
        tell(f"No trial is complete, so there is no recipe. Of the last one: {found.trials['reason'].iloc[-1]}")
        return SOME_FAILED
    return DONE


def resume(ws: Workspace, options: argparse.Namespace) -> int:
    """Go on with the latest unfinished run."""
    session = vnq.resume(ws, options.run, take_over=options.take_over, **arguments.how_to_train(options))
    return _finish_training(session, options)


def status(ws: Workspace, options: argparse.Namespace) -> int:
    """What runs, how far, how old the last checkpoint is; champion, challenger, and the newest week."""
    from vnq_colab.delivery.champion import standing
    from vnq_colab.delivery.week import newest_week
    from vnq_colab.training.session import sessions

    (text, bundles), week = standing(ws.models), newest_week(ws)
    text, facts = f"{text}\n{week}" if week else text, {"bundles": bundles, "week": week}
    if options.run is None and not sessions(ws):
        none = f"{ws.root}: there is no run yet. Start one with: python -m vnq_colab run"
        return _output(options, f"{none}\n{text}" if bundles or week else none, {"status": "none"} | facts)
    session = vnq.status(ws, options.run)
    return _output(options, f"{session!r}\n{text}", session.to_dict() | {
        "state": session.state, "counts": session.counts()} | facts)


def validate(ws: Workspace, options: argparse.Namespace) -> int:
    """Judge the folds' forecasts: score, backtest, verdict, report. Nothing is trained."""
    session = vnq.latest_session(ws, options.run)
    if options.show_predictions:
        require_known(options.show_predictions, session.ledger, "symbol")
    validation = vnq.validate(session, **arguments.judging_options(options))
    return _output(options, _validation_text(validation, options),
                   validation.verdict.to_dict() | {"report": str(validation.report)})


def export(ws: Workspace, options: argparse.Namespace) -> int:
    """Write the final fit with its decisions. Nothing is trained."""
    from vnq_colab.delivery import graphs
    from vnq_colab.delivery.champion import standing

    session = vnq.latest_session(ws, options.run)
    if is_onnx := options.onnx or options.int8:
        graphs.require(session.config.families)
    bundle = vnq.export_bundle(session)
    text, facts = f"{bundle!r}\n{standing(ws.models)[0]}", _bundle_facts(bundle)
    if is_onnx:
        now("exporting its networks to ONNX")
        said = graphs.export_graphs(bundle, session, int8=options.int8)
        facts |= {"onnx": said["agreement"]}
        text += "".join(f"\nONNX, {family} in {kind}: rank correlation {one['rank_correlation']:.4f} with the float "
                        "networks" for family, kinds in said["agreement"].items() for kind, one in kinds.items())
    _output(options, text, facts)
    return _exit_code(session)


def deploy(ws: Workspace, options: argparse.Namespace) -> int:
    """Make the newest bundle the champion, if its market was accepted and it is not worse."""
    done = vnq.deploy(ws, options.run, force=options.force)
    return _output(options, repr(done), vars(done))


def rollback(ws: Workspace, options: argparse.Namespace) -> int:
    """Make the champion before the champion again, when all its files are verified."""
    done = vnq.rollback(ws, options.to)
    return _output(options, repr(done), vars(done))


def predict(ws: Workspace, options: argparse.Namespace) -> int:
    """Tomorrow's ranking and orders from the latest day."""
    from vnq_colab.data.prepared import gather, prepared_prices
    from vnq_colab.data.prices import load_index
    from vnq_colab.delivery.notify import find_urls, notify_evening

    urls, bundle = find_urls(options.notify), vnq.load_bundle(options.models or ws.models)
    missed = arguments.collect(ws, options)
    if options.data is None and not any(map(vnq.price_files, (ws.raw, ws.weekly_updates))):
        (prices, index), warnings = prepared_prices(ws), []  # the files lie elsewhere; what was read of them is here
        index = index if options.index is None else load_index(options.index)
    else:
        market = gather(ws, options.data, **arguments.price_options(options))
        prices, index, warnings = market.prices, market.index, market.cleaning.warnings
    if options.index is None and not bundle.manifest["market_index"]:
        index = None  # found among the files, but the networks were trained without one
    plan = vnq.plan_day(ws, bundle, prices, index=index, as_of=options.as_of, portfolio=options.portfolio,
                        capital=options.capital, everyone=options.all, refuse_old=True, paper=options.paper)
    plan.outlook.warnings.extend(missed + warnings)
    _output(options, repr(plan), plan.to_dict())
    notify_evening(plan, urls, orders=options.notify_orders)
    return DONE


def schedule(ws: Workspace, options: argparse.Namespace) -> int:
    """Print, or --install, what starts `weekly` and the evening's `predict` by itself."""
    from vnq_colab.delivery.week import install, make_schedule

    files = make_schedule(ws, options.weekly, options.daily, options.system, paper=options.paper)
    return _output(options, install(files) if options.install else "".join(files.values()).rstrip(), {"files": files})


def weekly(ws: Workspace, options: argparse.Namespace) -> int:
    """The whole Sunday, from new prices to the champion's orders; given again, what is missing of it."""
    from vnq_colab.delivery.weekly import Choices, weekly

    reading = arguments.price_options(options)
    choices = Choices(
        where=options.where, fallback=options.fallback, patience=60 * options.patience, gpu=options.gpu,
        remote=options.remote or os.environ.get("VNQ_REMOTE"), words=arguments.words_of(options), data=options.data,
        collect=not options.no_collect, as_of=reading.pop("as_of"), until=options.until,
        hours=arguments.how_to_train(options)["hours"])
    week = weekly(ws, arguments.run_config(options), choices, reading=reading, urls=options.notify, quiet=options.json)
    try:
        _output(options, repr(vnq.tidy(ws)))
    except (VnqError, OSError) as error:  # the week is done all the same
        _output(options, f"nothing is listed for tidying: {error}")
    _output(options, repr(week), week.to_dict())
    if week.state != "done":
        tell(f"{week.state}: {week.text}")
    elif failed := week.gave("failed"):
        print(f"{len(failed)} failed: {name_a_few(failed)}", file=sys.stderr)
        return SOME_FAILED
    return {"done": DONE, "paused": PAUSED}.get(week.state, BAD_INPUT)


def tidy(ws: Workspace, options: argparse.Namespace) -> int:
    """Show what nothing needs any more: old runs, old bundles, unused data; --delete removes it."""
    unneeded = vnq.tidy(ws, keep=options.keep, delete=options.delete)
    return _output(options, repr(unneeded), {"deleted": unneeded.deleted, "bytes": unneeded.bytes,
                                             "files": [{"path": str(path), "bytes": size, "why": why}
                                                       for path, size, why in unneeded.files]})


def doctor(ws: Workspace, options: argparse.Namespace) -> int:
    """Checks of machine, workspace, free space, versions."""
    from vnq_colab.colab import check_up

    checks = check_up(ws, options.profile, options.sync, options.remote)
    lines = [f"{'ok ' if good else 'DO '} {name}: {text}" for name, good, text in checks]
    _output(options, "\n".join([f"vnq_colab {vnq.__version__}, Python {sys.version.split()[0]}", *lines]),
          {name: {"ok": good, "found": text} for name, good, text in checks})
    return DONE if all(good for name, good, _ in checks if name == "sync") else BAD_INPUT


def _bundle_facts(bundle: "Bundle") -> dict[str, Any]:
    return {"run_id": bundle.manifest["run_id"], "folder": str(bundle.folder), "decisions": bundle.decisions}


def _finish_training(session: "Session", options: argparse.Namespace) -> int:
    _output(options, repr(session), session.to_dict())
    if session.status == "finished":
        if not options.json:
            tell("Next: python -m vnq_colab validate, then export")
    elif "was taken over" not in session.why:
        which = f" --run {session.run_id}" if session.part else ""  # of several, that train at the same time
        tell(f"Paused: {session.why}. Go on with: python -m vnq_colab resume{which} --root \"{session.ws.root}\"")
    return _exit_code(session)


def _exit_code(session: "Session") -> int:
    if session.status != "finished":
        return PAUSED
    if failed := session.failed():
        tell(f"{len(failed)} failed: {name_a_few(f'{name} ({why})' for name, why in failed.items())}")
        return SOME_FAILED
    return DONE


def _validation_text(validation: "Validation", options: argparse.Namespace) -> str:
    """The validation in words, with the past forecasts of the symbol in --show-predictions."""
    from vnq_colab.evaluation.metrics import as_texts, past_forecasts

    if options.show_predictions is None:
        return repr(validation)
    symbol, family = options.show_predictions, validation.family
    past = as_texts(past_forecasts(validation.forecast, validation.rows, family, symbol, n_days=20))
    return f"{validation!r}\n{symbol}, {family}: price change over 5 days\n{past.to_string(index=False)}"


def _output(options: argparse.Namespace, text: str, value: dict[str, Any] | None = None) -> int:
    """The text on stdout; with --json the value there, and a text without a value on stderr. Gives DONE."""
    erase()
    if not options.json:
        print(text, flush=True)
    elif value is not None:
        print(json.dumps(value, ensure_ascii=False, default=str), flush=True)
    else:
        print(text, file=sys.stderr, flush=True)
    return DONE
