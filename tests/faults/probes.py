"""A finished workspace of every family, and the commands and functions that read its files, each answer in a few words.

`child` runs them in a process of its own, bounded in memory; `mutations` changes the files, and judges the answers.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.__main__ import main
from vnq_colab.config import RunConfig
from vnq_colab.data.prepared import PROOF, gather, load_panel, load_prepared, prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.deploy import deploy
from vnq_colab.delivery.earlier_runs import against_previous, n_trials, record_evaluation
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import VnqError
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.evaluation.page import judged_forecast
from vnq_colab.layout import Workspace
from vnq_colab.models.base import FAMILIES
from vnq_colab.settings import GlobalConfig, LocalConfig, MachineConfig, NetworkConfig, TrainConfig, TreesConfig
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.jobs import fold_scores
from vnq_colab.training.session import latest_session
from vnq_colab.training.trainer import resume, train

for _module in ("xgboost", "vnq_colab.colab", "vnq_colab.delivery.predict", *FAMILIES.values()):
    importlib.import_module(_module)  # once for all children
MOST_MEMORY = 2**31  # [bytes] beside what the parent has
N_SYMBOLS, N_DAYS = 20, 780  # one fold
VOLATILE = ("exported", "heartbeat", "attempts", "sequence", "written", "token", "seconds", "machine", "owner",
            "warnings")


def config_of(seed: int, **changes: Any) -> RunConfig:
    """A second of training."""
    return RunConfig(
        n_members=2, seed=seed, global_=GlobalConfig(epochs=1, windows_per_step=12),
        model=NetworkConfig(look_back=10, min_context=5, width=8, n_layers=1, n_heads=2, feed_forward=16),
        trees=TreesConfig(rounds=10, block_rounds=5, least_rounds=5, leaves=7, min_child_weight=20.0),
        stockformer=LocalConfig(epochs=1, patience=1, learning_rate_share=1.0),
        train=TrainConfig(epochs=1, warmup_epochs=1, patience=1), machine=MachineConfig(pack_models=24, threads=1),
        **changes)


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Two finished runs, each on data of its own, accepted and deployed; a portfolio; and one run that is paused."""
    plots.png = lambda figure: b"picture"
    ws, sessions = Workspace(Path(job["root"])), {}
    prices, path = synthetic_prices(N_SYMBOLS, N_DAYS, seed=92, signal=0.15), ws.raw / "prices.csv"
    path.parent.mkdir(parents=True)
    prices.groupby("date", as_index=False)["close"].mean().to_csv(ws.root / "index.csv", index=False)
    for name, last in (("old", prices["date"].max() - pd.Timedelta(days=40)), ("new", prices["date"].max())):
        prices[prices["date"] <= last].to_csv(path, index=False)
        prepared = prepare(ws, path, index=ws.root / "index.csv")
        (prepared.folder / PROOF).write_text('{"passed": true}')
        sessions[name] = train(ws, prepared.panel, config_of(len(sessions)), quiet=True)
    judged = validate(sessions["new"], prepared=prepared)
    report = judged.report.parent
    stored = Verdict.load(report / "verdict.json")
    for row in (stored.market, *list(stored.symbols.values())[:15]):
        row["decision"] = "accept"
    for session in sessions.values():
        folder = ws.report_folder(session.run_id)
        record_evaluation(session, *(judged.forecast["date"].agg(end) for end in ("min", "max")))
        (folder / "forecast.parquet").write_bytes((report / "forecast.parquet").read_bytes())
        verdict = replace(stored, run_id=session.run_id)
        verdict.save(folder / "verdict.json")
        export_bundle(session, verdict)
    assert deploy(ws).champion == sessions["new"].run_id
    first, second = prices["symbol"].unique()[:2]
    ws.portfolio.write_text(f"symbol,shares,sellable_from\n{first},1000,\n{second},2000,2026-01-05\nCASH,400000000,\n")
    paused = train(ws, prepared.panel, config_of(7, families=("global",)), hours=1e-9, quiet=True)
    resume(ws, paused.run_id, hours=1e-9, quiet=True)
    return {name: session.run_id for name, session in sessions.items()} | {
        "paused": paused.run_id, "day": f"{prices['date'].max():%Y-%m-%d}"}


# ------------------------------------------------------------------------------------------------------------ answers
def digest(value: Any) -> Any:
    """Plain values as they are, tables and arrays by their bits, what changes from one time to the next left out."""
    if isinstance(value, dict):
        return {str(name): digest(part) for name, part in value.items() if name not in VOLATILE}
    if isinstance(value, (list, tuple)):
        return [digest(part) for part in value]
    if isinstance(value, pd.DataFrame):
        value = f"{value.dtypes.to_dict()} {pd.util.hash_pandas_object(value, index=False).to_numpy().tobytes()}"
    elif hasattr(value, "detach"):
        value = f"{value.dtype} {tuple(value.shape)} {value.detach().cpu().float().numpy().tobytes()}"
    elif isinstance(value, np.ndarray):
        value = f"{value.dtype} {value.shape} {value.tobytes()}"
    elif value is None or isinstance(value, (bool, int, float)):
        return value
    value = value if isinstance(value, str) else repr(value)
    return value if len(value) < 2000 else hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:16]


def command(words: str) -> Callable[[Workspace, dict[str, str]], Any]:
    """A command, and what it says with --json; without, no escape code may reach the terminal."""
    def answer(ws: Workspace, runs: dict[str, str]) -> Any:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            code = main([word.format(root=ws.root, **runs) for word in f"{words} --root {{root}}".split()])
        if code:
            raise SystemExit(code)
        if "--json" not in words:
            return "an escape code" if {"\x1b", "\x07"} & set(text.getvalue()) else None
        value = json.loads(text.getvalue())
        print(*value.get("warnings", ()), sep="\n", file=sys.stderr)
        return value

    return answer


def say_what_is_left_out(*texts: str) -> None:
    """What a report says of files that it could not use."""
    print(*(text[text.index("Not co"):] for text in texts if "Not co" in text), sep="\n", file=sys.stderr)


def scores(ws: Workspace, runs: dict[str, str]) -> Any:
    session = latest_session(ws, runs["new"])
    return fold_scores(session, load_panel(ws, session.data_id)), session.history


def prepared(ws: Workspace, runs: dict[str, str]) -> Any:
    data = load_prepared(ws)
    return (data.prices, data.index, data.panel.values, data.panel.prices, [asdict(fold) for fold in data.folds],
            asdict(data.cleaning))


def bundle(ws: Workspace, runs: dict[str, str]) -> Any:
    found = load_bundle(ws)
    return found.manifest | {"files": None}, {name: one.to_state() for name, one in found.forecasters.items()}


def trials(ws: Workspace, runs: dict[str, str]) -> Any:
    session = latest_session(ws, runs["new"])
    forecast = judged_forecast(ws.report_folder(session.run_id), filters=[("family", "==", "ensemble")])
    found = n_trials(session, *(forecast["date"].agg(end) for end in ("min", "max")))
    previous = against_previous(session, forecast.astype({"family": str}), load_panel(ws, session.data_id))
    say_what_is_left_out(found[1], previous["text"])
    return found, previous


def latest(ws: Workspace, runs: dict[str, str]) -> Any:
    state, told = CheckpointStore(ws, runs["paused"]).load_latest({})
    print(*told, sep="\n", file=sys.stderr)
    return state


def gathered(ws: Workspace, runs: dict[str, str]) -> Any:
    data = gather(ws, None, index=ws.root / "index.csv", as_of=runs["day"])
    print(data.cleaning, file=sys.stderr)
    return data.prices, data.index


def stored(ws: Workspace, runs: dict[str, str]) -> Any:
    (ws.raw / "prices.csv").unlink(missing_ok=True)
    return command("predict --json --as-of {day}")(ws, runs)


def going_on(ws: Workspace, runs: dict[str, str]) -> Any:
    return {name: row["sha256"] for name, row in command("resume --json --run {paused}")(ws, runs)["jobs"].items()}


def tidied(ws: Workspace, runs: dict[str, str]) -> Any:
    return [(file["path"], file["why"]) for file in command("tidy --json --keep 1")(ws, runs)["files"]]


def validated(ws: Workspace, runs: dict[str, str]) -> Any:
    value = command("validate --json --run {new}")(ws, runs)
    say_what_is_left_out(*(value["summary"][name]["text"] for name in ("evaluations", "previous")))
    return value


PREDICT = "predict --as-of {day} --index {root}/index.csv --portfolio {root}/portfolio.csv --capital 300e6"
PROBES: dict[str, Callable[[Workspace, dict[str, str]], Any]] = {
    "status": command("status --json --run {new}"), "status of all": command("status --json"),
    "status in words": command("status"), "resume": command("resume --json --run {new}"), "go on": going_on,
    "tidy": tidied, "validate": validated, "export": command("export --json --run {new}"),
    "predict": command(f"{PREDICT} --json"), "predict in words": command(PREDICT), "predict stored": stored,
    "scores": scores, "prepared": prepared, "bundle": bundle, "trials": trials, "latest": latest, "gather": gathered,
    "show": lambda ws, runs: judged_forecast(ws.report_folder(runs["new"]))}


def answer_all(job: dict[str, Any], tell: Callable[[str], None]) -> None:
    """Each case in a fresh copy of the workspace: an answer of every probe, and what is there beside the workspace.

    They are pickled one after another, so that whoever dies has left the answers of those before. Links stand for the
    files: whoever writes makes new ones.
    """
    warnings.simplefilter("ignore")
    plots.png = lambda figure: b"picture"
    with open("/proc/self/statm") as file:
        most = int(file.read().split()[0]) * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    root, known = Path(job["root"]), []
    with open(job["cases"], "rb") as cases, open(job["answers"], "wb") as answers:
        for files, probes in pickle.load(cases):
            shutil.rmtree(root.parent, ignore_errors=True)
            shutil.copytree(job["whole"], root, copy_function=os.link)
            for name, content in files.items():
                (root / name).unlink()
                (root / name).write_bytes(content)
            known = known or [*os.listdir(root.parent), *os.listdir(root.parent.parent)]
            signal.alarm(job["seconds"])
            found = {name: answer(name, root, job["runs"]) for name in probes if not tell(f"probe {name}")}
            signal.alarm(0)
            beside = {*os.listdir(root.parent), *os.listdir(root.parent.parent)} - set(known)
            pickle.dump((found, sorted(beside)), answers)
            answers.flush()


def answer(probe: str, root: Path, runs: dict[str, str]) -> dict[str, Any]:
    """What it gave: code (-1: a traceback), value, and what was said."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            code, value = 0, digest(PROBES[probe](Workspace(root), runs))
        except VnqError as error:
            code, value = 2, f"{type(error).__name__}: {error}"
            print(value, file=sys.stderr)
        except SystemExit as error:
            code, value = error.code, None
        except Exception as error:
            frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                      for frame in traceback.extract_tb(error.__traceback__) if "vnq_colab" in frame.filename]
            code, value = -1, f"{type(error).__name__}: {str(error)[:200]} in {' > '.join(frames[-5:])}"
    return {"code": code, "value": value, "said": said.getvalue()}
