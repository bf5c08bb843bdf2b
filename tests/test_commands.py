"""The commands as a person types them: exit codes, one sentence for bad input, JSON that is alone on stdout."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from tests.drive_map import FILES
from vnq_colab import arguments
from vnq_colab.__main__ import _parser, main
from vnq_colab.data.features import FEATURES
from vnq_colab.data.prepared import PROOF
from vnq_colab.files import read_json, read_sealed, write_json, write_sealed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory, prices):
    """A workspace after `run --profile smoke` on a price file, and the file."""
    folder = tmp_path_factory.mktemp("commands")
    prices.to_csv(folder / "prices.csv", index=False)
    code = main(["run", "--data", str(folder / "prices.csv"), "--profile", "smoke", "--root", str(folder / "ws")])
    assert code == 0
    return folder


def run(capsys, *words):
    """(exit code, stdout, stderr) of a command in this process."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_run_leaves_report_verdict_and_bundle(root):
    ws = root / "ws"
    run_id = read_json(ws / "models" / "current.json")["champion"]
    for path in (f"reports/{run_id}/report.html", f"reports/{run_id}/verdict.json", f"models/{run_id}/manifest.json"):
        assert (ws / path).exists()
    names = {path.name for path in (ws / "models" / run_id).iterdir()}
    assert {"global.pt", "trees.pt"} < names
    assert sum(name.endswith("_stockformer_simple_best.pt") for name in names) == 6
    prepared = ws / "data" / "prepared" / read_json(ws / "data" / "prepared" / "current.json")["data_id"]
    assert read_json(prepared / PROOF)["passed"] and (prepared / "coverage.png").exists()


def test_run_writes_only_files_that_the_map_of_the_folder_names(root):
    ws = root / "ws"
    patterns = [re.sub(r"<\w+?>", "[^/]+", re.escape(path)) for path in FILES]
    paths = [path.relative_to(ws).as_posix() for path in ws.rglob("*") if path.is_file()]
    assert [path for path in paths if not any(re.fullmatch(pattern, path) for pattern in patterns)] == []
    seldom = ("index.parquet", "portfolio.csv", "slot_a", "slot_b", "manifest_a.json", "manifest_b.json", "basket.png",
              ".onnx", "onnx.json", "week>.json", "weekly.lock", "_filled.csv",
              "journal.log", "recipe.json", "search.lock")
    assert {path for path, pattern in zip(FILES, patterns, strict=True)
            if not any(re.fullmatch(pattern, path) for path in paths)} == {
        path for path in FILES if path.endswith(seldom)}, "no index, portfolio, week or evening before"


def test_run_stops_where_a_feature_knows_the_future(prices, tmp_path, capsys, monkeypatch):
    prices.to_csv(tmp_path / "prices.csv", index=False)
    peeking = replace(FEATURES["gap"], compute=lambda history: np.roll(history.close, -1, axis=1) / history.close - 1)
    monkeypatch.setitem(FEATURES, "gap", peeking)
    words = ("run", "--data", tmp_path / "prices.csv", "--profile", "smoke", "--root", tmp_path / "ws")
    code, out, _ = run(capsys, *words)
    assert code == 1 and "LOOK-AHEAD" in out and "gap" in out
    assert not (tmp_path / "ws" / "checkpoints").exists()


def test_every_part_can_be_run_alone_and_again(root, capsys):
    ws = ("--root", root / "ws")
    assert run(capsys, "prepare", "--data", root / "prices.csv", *ws)[0] == 0
    for words in (["train", "--profile", "smoke"], ["resume"], ["validate"], ["export"], ["status"]):
        code, out, err = run(capsys, *words, *ws)
        assert code == 0 and out.strip(), words
        if words[0] in ("train", "resume"):
            assert "nothing to do. validate judges it, export writes its models" in err
            assert "Next: python -m vnq_colab validate, then export" in err
    assert len(list((root / "ws" / "checkpoints").iterdir())) == 1, "nothing was trained twice"
    report = next((root / "ws" / "reports").glob("*/report.html")).read_text(encoding="utf-8")
    assert len(list((root / "ws" / "models").glob("*/manifest.json"))) == 1, "the same bundle, not another"
    assert 'id="evening"' in report and "No orders yet" not in report, "validate leaves what predict put there"


def test_predict_prints_and_writes_tomorrows_table(root, capsys):
    for words in (["--all"], []):  # the screen is filtered, the file never
        code, out, _ = run(capsys, "predict", "--data", root / "prices.csv", *words, "--root", root / "ws")
        assert code == 0 and "SYNTHETIC" in out and ("SYN001" in out or not words)
        assert len(pd.read_csv(root / "ws" / "predictions" / "2025-12-31.csv")) == 6
        assert set(pd.read_csv(root / "ws" / "orders" / "2025-12-31.csv")["date"]) == {"2025-12-31"}


def test_portfolio_is_made_once_then_used_and_never_overwritten(root, tmp_path, capsys):
    ws = shutil.copytree(root / "ws", tmp_path / "ws")
    words = ("predict", "--data", root / "prices.csv", "--json", "--root", ws)
    assert json.loads(run(capsys, *words)[1])["account"]["nav"] == 1e9
    assert json.loads(run(capsys, *words, "--portfolio", "new", "--capital", "500_000_000")[1])["account"]["nav"] == 5e8
    assert (ws / "portfolio.csv").read_text() == "symbol,shares,sellable_from\nCASH,500000000,\n"
    code, _, err = run(capsys, *words, "--portfolio", "new", "--capital", "1e9")
    assert code == 2 and "is not overwritten" in err
    found = json.loads(run(capsys, *words)[1])
    assert found["account"]["nav"] == 5e8 and len(found["forecasts"]) == 6
    head = "symbol,shares,sellable_from\n"
    for name, text, sentence in (("a.csv", f"{head}SYN01,100,\nCASH,1,\n", "Did you mean 'SYN001'"),
                                 ("b.csv", f"{head}CASH,1000,\n", "less than one lot")):
        (tmp_path / name).write_text(text)
        code, out, err = run(capsys, *words, "--portfolio", tmp_path / name)
        assert code == 2 and sentence in err and not out and "Traceback" not in err
    for capital in ("500m", "0", "-1", "nan", "inf"):
        code, _, err = run(capsys, *words, f"--capital={capital}")
        assert code == 2 and "write VND above 0 as 500e6" in err and len(err.strip().splitlines()) == 1


def test_predict_without_data_takes_the_prices_of_the_workspace(root, tmp_path, capsys):
    """Those of data/raw/; where the files lie elsewhere, what was prepared of them; never a made-up market."""
    ws = shutil.copytree(root / "ws", tmp_path / "ws")
    words = ("predict", "--all", "--json", "--root", ws)
    code, out, _ = run(capsys, *words)
    expected = json.loads(run(capsys, *words, "--data", root / "prices.csv")[1])
    assert code == 0 and json.loads(out) == expected and len(expected["forecasts"]) == 6 and expected["orders"]
    (ws / "data" / "raw").mkdir()
    shutil.copy(root / "prices.csv", ws / "data" / "raw")
    shutil.rmtree(ws / "data" / "prepared")
    assert json.loads(run(capsys, *words)[1]) == expected
    early = json.loads(run(capsys, *words, "--as-of", "2025-12-15")[1])
    assert early["forecasts"][0]["date"] == "2025-12-15"


@pytest.mark.parametrize("words", [["status"], ["prepare"], ["train", "--profile", "smoke"], ["validate"], ["export"],
                                   ["predict", "--data", "{prices}"], ["doctor"], ["run", "--profile", "smoke"]])
def test_json_is_alone_on_stdout(root, capsys, words):
    words = [word.format(prices=root / "prices.csv") for word in words]
    words += ["--data", str(root / "prices.csv")] if words[0] in ("prepare", "run") else []
    code, out, _ = run(capsys, *words, "--json", "--root", root / "ws")
    assert code == 0 and isinstance(json.loads(out), dict)


def test_status_of_an_empty_workspace_says_how_to_begin(tmp_path, capsys):
    code, out, _ = run(capsys, "status", "--root", tmp_path)
    assert code == 0 and "no run yet" in out


@pytest.mark.parametrize("words, message", [
    (["prepare", "--data", "nowhere.csv"], "no such file"),
    (["prepare", "--data", "{empty}"], "empty"),
    (["prepare", "--data", "{misspelt}"], "Did you mean 'clsoe'"),
    (["prepare", "--data", "{doubled}"], "duplicate row"),
    (["prepare", "--data", "{good}", "--as-of", "soon"], "not a date"),
    (["train"], "Run prepare first"),
    (["resume"], "no run yet"),
    (["validate"], "no run yet"),
    (["export"], "no run yet"),
    (["status", "--run", "x"], "no run"),
    (["predict", "--data", "{good}"], "Export first"),
    (["run", "--data", "{good}", "--symbols", "FTP"], "no symbol FTP"),
    (["run", "--data", "{good}", "--set", "train.epoch=3"], "Did you mean 'train.epochs'"),
    (["prepare", "--data", "{good}", "--as-of", "2026-W30-1"], "not a date"),
    (["predict", "--as-of", "9999-12-31"], "not a date"),
    (["run", "--data", "{good}", "--set", "train.epochs"], "--set"),
    (["run", "--data", "{four}"], "4 stocks have no order worth learning"),
    (["run", "--data", "{good}", "--families", "tree"], "Did you mean 'trees'"),
    (["run", "--data", "{good}", "--epochs", "0"], "--epochs: train.epochs = 0: must lie between 1 and 1,000,000"),
    (["train", "--members", "0"], "--members: n_members = 0: must lie between 1 and 1,000,000"),
    (["train", "--set", "trees.leaves=" + "9" * 5000], "9...9"),
    (["run", "--data", "{good}", "--gates", "onest", "--profile", "smoke"], "honest"),
    (["trian"], "Did you mean 'train'"),
    (["train", "--recipe", "orignal"], "Did you mean 'original'"),
    (["train", "--epochs", "many"], "invalid int value"),
    (["run", "--data", "{good}", "--set", "train.weight_decay=Infinity"], "expected float"),
    (["run", "--data", "{good}", "--profile", "smoke", "--hours", "-1"], "must be a number of hours"),
    (["prepare", "--data", ""], "path of the prices is empty"),
    (["predict", "--models", "x" * 400], "(File name too long)"),
    (["run", "--data", "{good}", "--profile", "smoke", "--show-predictions", "SYN01"], "Did you mean 'SYN001'"),
    (["run", "--data", "{good}", "--profile", "smoke", "--to", "1999-01-01"], "no test day lies between"),
    (["run", "--data", "{good}", "--profile", "smoke", "--from", "1999-01-01"], "trained or stopped on"),
])
def test_bad_input_is_one_sentence_and_exit_code_2(tmp_path, prices, capsys, words, message):
    files = {name: tmp_path / f"{name}.csv" for name in ("good", "empty", "misspelt", "doubled", "four")}
    prices.to_csv(files["good"], index=False)
    files["empty"].write_text("")
    prices[prices["symbol"] <= "SYN004"].to_csv(files["four"], index=False)
    prices.rename(columns={"close": "clsoe"}).to_csv(files["misspelt"], index=False)
    prices.iloc[[0, 1, 1, 2]].to_csv(files["doubled"], index=False)
    code, _, err = run(capsys, *(word.format(**files) for word in words), "--root", tmp_path / "ws")
    assert code == 2 and message in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "ws" / "checkpoints").exists(), "before anything is trained"


def test_flags_of_judging_reach_validate():
    words = "validate --gates original --slippage 0.1 --haircut 0.5 --capital 5e8 --from 2025-01-01"
    assert arguments.judging_options(_parser().parse_args(words.split())) == {
        "gates": "original", "slippage": 0.1, "haircut": 0.5, "capital": 5e8, "days": ("2025-01-01", None)}


def test_bad_rows_can_be_dropped(tmp_path, prices, capsys):
    prices.iloc[[0, *range(len(prices))]].to_csv(tmp_path / "doubled.csv", index=False)
    code, out, _ = run(capsys, "prepare", "--data", tmp_path / "doubled.csv", "--on-bad-rows", "drop",
                       "--root", tmp_path)
    assert code == 0 and "duplicate row for a day: 1 rows, dropped" in out


def test_session_of_a_newer_version_is_refused_and_left_alone(root, tmp_path, capsys):
    ws = shutil.copytree(root / "ws", tmp_path / "ws")
    path = next(ws.glob("checkpoints/*[0-9a-f]/session.json"))
    write_sealed(path, read_sealed(path) | {"format": 99})
    before = path.read_bytes()
    code, _, err = run(capsys, "status", "--run", path.parent.name, "--root", ws)
    assert code == 2 and "newer version" in err and path.read_bytes() == before


def test_run_and_bundle_of_the_first_version_are_refused_in_a_sentence(root, tmp_path, capsys):
    ws = shutil.copytree(root / "ws", tmp_path / "ws")
    session, manifest = (next(ws.glob(name)) for name in ("checkpoints/*/session.json", "models/*/manifest.json"))
    (session.parent / "session_copy.json").unlink()
    write_sealed(session, {"format": 1, "run_id": session.parent.name, "packs": [], "family": "stockformer"})
    write_sealed(manifest, {"format": 1, "run_id": manifest.parent.name, "symbols": {}, "files": {}})
    for words, sentence in ((["resume"], "there is no run yet"), (["status", "--run", "2"], "Train anew with"),
                            (["validate", "--run", "2"], "Train anew with"),
                            (["export", "--run", "2"], "Train anew with"),
                            (["predict", "--data", root / "prices.csv"], "Export its run again")):
        code, _, err = run(capsys, *words, "--root", ws)
        assert code == 2 and sentence in err and "Traceback" not in err, words
        assert words[0] == "resume" or len(err.replace("reading prices", "").strip().splitlines()) == 1


def test_verdict_of_the_first_version_is_refused_in_a_sentence(root, tmp_path, capsys):
    ws = shutil.copytree(root / "ws", tmp_path / "ws")
    verdict = next(ws.glob("reports/*/verdict.json"))
    write_json(verdict, {"gate_set": "honest", "decisions": {}})
    code, _, err = run(capsys, "export", "--root", ws)
    assert code == 2 and "cannot be read" in err and "Validate again" in err and "Traceback" not in err


def test_time_limit_pauses_with_exit_code_3(tmp_path, prices, capsys):
    prices.to_csv(tmp_path / "prices.csv", index=False)
    ws = ("--root", tmp_path / "ws")
    run(capsys, "prepare", "--data", tmp_path / "prices.csv", *ws)
    code, _, err = run(capsys, "train", "--profile", "smoke", "--hours", "1e-9", *ws)
    assert code == 3 and "time is up" in err and "resume" in err
    for command in ("validate", "export"):
        code, _, err = run(capsys, command, *ws)
        assert code == 2 and "jobs are not trained yet. Go on with resume first" in err
    assert run(capsys, "resume", *ws)[0] == 0


@pytest.mark.slow
def test_output_is_utf8_whatever_the_console_is(root):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-m", "vnq_colab", "prepare", "--data", root / "prices.csv",
                           "--root", root / "ws"], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0 and " × ".encode() in done.stdout


def test_status_imports_neither_torch_nor_pandas(root):
    program = ("import sys; from vnq_colab.__main__ import main; code = main(sys.argv[1:]);"
               "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules), 'heavy'; sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", program, "status", "--root", root / "ws"], cwd=ROOT,
                          capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared price data is not here")
def test_real_prices_go_from_file_to_bundle(tmp_path, capsys):
    """Three real symbols with tiny networks of their own, and trees of the whole market, which is their background."""
    code, out, err = run(capsys, "run", "--data", SHARED_DATA / "vn_daily.parquet",
                         "--index", SHARED_DATA / "vn_index.parquet", "--profile", "smoke",
                         "--families", "trees,stockformer", "--set", "stockformer.start=own", "--folds", "1",
                         "--symbols", "FPT,HPG,VCB", "--as-of", "2025-06-30", "--root", tmp_path)
    assert code == 0, err
    assert (tmp_path / "orders" / "2025-06-30.csv").exists(), "--as-of names the day"
    words = ("predict", "--data", SHARED_DATA / "vn_daily.parquet", "--index", SHARED_DATA / "vn_index.parquet")
    old, _, sentence = run(capsys, *words, "--root", tmp_path)
    assert old == 2 and "name the day with --as-of" in sentence
    assert "184 symbols" in out and "SYNTHETIC" not in out + err
    assert {path.name for path in (tmp_path / "models").glob("*/*.pt")} == {
        "trees.pt", *(f"{symbol}_stockformer_simple_best.pt" for symbol in ("FPT", "HPG", "VCB"))}


def test_search_prints_what_it_found_and_pauses_with_its_exit_code(root, capsys, monkeypatch):
    pytest.importorskip("optuna")
    monkeypatch.setenv("VNQ_PROFILE", "smoke")
    words = ["search", "--root", root / "ws", "--folds", 1, "--over", "trees.leaves,trees.bins", "--trials"]
    code, out, _ = run(capsys, *words, 2, "--json")
    found = json.loads(out)
    assert code == 0 and [row["state"] for row in found["trials"]] == ["complete"] * 2
    assert set(found["trials"][0]) >= {"value", "trees.leaves", "trees.bins"} and Path(found["recipe"]).exists()
    code, out, err = run(capsys, *words, 3, "--hours", 1e-9)
    assert code == 3 and "paused (time is up)" in out and "The same command goes on" in err
    code, out, err = run(capsys, *words, 3)
    assert "n_trials = 0: must lie" in run(capsys, *words, 0, "--set", "task.target=return")[2]
    assert code == 0 and "trial 3/3" in err and f'train with it: --recipe "{found["recipe"]}"' in out
    code, out, err = run(capsys, *words, 1, "--symbols", "SYN001")
    assert code == 4 and "No trial is complete, so there is no recipe. Of the last one: no validation day" in err
    code, _, err = run(capsys, *words, 3, "--over", "")
    assert code == 2 and "must name a setting" in err
    folder = root / "ws" / "searches" / found["id"]
    names = {path.name for path in folder.iterdir()}
    assert names == {"journal.log", "recipe.json", "search.lock", "checkpoints", "configs", "logs"}
