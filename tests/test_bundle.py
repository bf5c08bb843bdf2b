import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab.delivery.bundle import export_bundle, load_bundle, stored_verdict
from vnq_colab.errors import DeliveryError, SessionError
from vnq_colab.evaluation.calibration import final_calibrations
from vnq_colab.files import read_json, sha256_of, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.training.jobs import fold_scores
from vnq_colab.training.session import Session


@pytest.fixture(scope="module")
def bundle(judged):
    _, _, session, _ = judged
    return export_bundle(session)


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the bundle's folder that a test may damage."""
    return shutil.copytree(bundle.folder, tmp_path / "bundle")


def test_decisions_are_those_of_the_verdict_that_was_given(judged):
    _, _, session, validation = judged
    names = list(validation.verdict.symbols)
    chosen = dict.fromkeys(names, "reject") | {names[0]: "accept", names[2]: "review"}
    found = {symbol: part | {"decision": chosen[symbol]} for symbol, part in validation.verdict.symbols.items()}
    given = export_bundle(session, replace(validation.verdict, symbols=found))
    assert given.decisions == chosen
    export_bundle(session)  # back to what the other tests read


def test_export_trains_nothing_and_gives_equal_bytes_each_time(bundle, judged, monkeypatch):
    _, _, session, _ = judged
    monkeypatch.setattr("vnq_colab.training.loop.Attempt.__init__", lambda *_, **__: pytest.fail("it trains"))
    files = {path.name: path.read_bytes() for path in bundle.folder.glob("*.pt")}
    again = export_bundle(session)
    assert {path.name: path.read_bytes() for path in again.folder.glob("*.pt")} == files and len(files) == 10


def test_run_without_a_verdict_is_exported_as_unjudged(judged, tmp_path):
    ws, _, session, _ = judged
    copy = Workspace(shutil.copytree(ws.root, tmp_path / "ws"))
    shutil.rmtree(copy.report_folder(session.run_id))
    assert set(export_bundle(Session.load(copy, session.run_id)).decisions.values()) == {"unjudged"}


def test_unfinished_run_is_not_exported_and_says_what_to_do(judged, tmp_path):
    ws, _, session, _ = judged
    other = Session.load(Workspace(shutil.copytree(ws.root, tmp_path / "ws")), session.run_id)
    other.jobs["trees_final"]["state"], other.status = "pending", "paused"
    with pytest.raises(SessionError, match=r"is paused: 1 of \d+ jobs are not trained yet. Go on with resume first"):
        export_bundle(other)


def test_manifest_says_what_the_bundle_is_and_the_folder_of_models_leads_to_it(bundle, judged):
    ws, prepared, session, validation = judged
    manifest = read_json(bundle.folder / "manifest.json")
    assert load_bundle(ws.models).folder == bundle.folder and "SYNTHETIC" in repr(bundle)
    assert bundle.decisions == {symbol: row["decision"] for symbol, row in validation.verdict.symbols.items()}
    assert stored_verdict(session).to_dict() == json.loads(json.dumps(validation.verdict.to_dict()))
    fitted = final_calibrations(fold_scores(session, prepared.panel), prepared.panel, 5)
    assert manifest["calibration"] == json.loads(json.dumps({name: one.to_dict() for name, one in fitted.items()}))
    assert manifest["run_id"] == session.run_id and manifest["data_id"] == prepared.panel.data_id
    assert manifest["trained_to"] == f"{prepared.panel.days[-1]:%Y-%m-%d}" and manifest["market_index"] is False
    assert tuple(manifest["feature_names"]) == prepared.panel.feature_names
    assert manifest["task"]["horizon"] == 5 and manifest["config"] == session.config.to_dict()
    for name, fact in manifest["files"].items():
        assert fact["sha256"] == sha256_of(bundle.folder / name)


def test_file_of_a_symbol_is_complete_by_itself(bundle, judged):
    path = bundle.folder / "SYN001_stockformer_simple_best.pt"
    state = torch.load(path, weights_only=True)
    weights = bundle.forecasters["stockformer"].weights[0]
    assert state["symbols"] == ["SYN001"] and torch.equal(state["weights"], weights[None])
    assert weights.dtype == torch.float16 and path.stat().st_size < 2 * weights.numel() + 40_000
    assert {"feature_names", "data_id", "code_version", "trained_to"} <= set(state)
    assert load_bundle(bundle.folder).forecasters["stockformer"].digest() == bundle.forecasters["stockformer"].digest()


def test_latest_forecast_needs_recent_prices_alone_but_for_a_stock_with_long_halts(bundle, judged, monkeypatch):
    prices, panel = judged[1].prices, judged[1].panel
    monkeypatch.setattr("vnq_colab.delivery.bundle.PAST_DAYS", 700)
    assert panel.days[300] < bundle._recent(prices, 1) <= panel.days[-700]
    latest = load_bundle(bundle.folder).predict_latest(prices)
    assert latest["decision"].notna().all()
    whole = bundle.predict(panel, panel.days[-1:])
    pd.testing.assert_frame_equal(latest.drop(columns="decision"), whole, rtol=1e-6)
    halted = prices[(prices["symbol"] != "SYN005") | ~prices["date"].isin(panel.days[400:1000])]
    assert bundle._recent(halted, 1) == panel.days[0]


def test_every_family_and_the_ensemble_forecast_and_the_judged_one_is_named(bundle, judged):
    _, prepared, _, _ = judged
    table = bundle.predict(prepared.panel, prepared.panel.days[-3:])
    assert set(table["family"]) == {"stockformer", "global", "trees", "ensemble"} and bundle.judged_family == "ensemble"
    assert table.groupby("family")["symbol"].nunique().eq(8).all()
    assert np.isfinite(table[["edge", "mean", "scale", "p_up"]]).all(axis=None)


def test_one_stock_is_forecast_as_in_the_market(bundle, judged):
    """A bundle of many symbols gives the same number for one, whoever else is asked for."""
    _, prepared, _, _ = judged
    day = prepared.panel.days[-1:]
    whole = bundle.predict(prepared.panel, day).set_index(["family", "symbol"])["score"]
    for family, forecaster in bundle.forecasters.items():
        alone = forecaster.select(("SYN003",)).predict(prepared.panel, prepared.panel.days == day[0])
        np.testing.assert_allclose(alone["score"], whole[family, "SYN003"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage, message", [
    (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
    (lambda folder: (folder / "SYN002_stockformer_simple_best.pt").unlink(), "in the manifest but not in the folder"),
    (lambda folder: (folder / "SYN002_stockformer_simple_best.pt").write_bytes(b"x"), "not what the manifest says"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 99}), "newer version"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 2}), "an earlier version.* Export it again"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 3}), "lacks basket"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 3, "files": {}}), "lacks basket"),
    (lambda folder: write_sealed(folder / "manifest.json", {}), "of an earlier version"),
])
def test_damaged_bundle_is_refused_in_words(copy, damage, message):
    damage(copy)
    with pytest.raises(DeliveryError, match=message):
        load_bundle(copy)


def test_bundle_of_other_features_names_the_difference(copy, judged):
    _, prepared, _, _ = judged
    changed = load_bundle(copy)
    networks = changed.forecasters["stockformer"]
    changed.forecasters["stockformer"] = replace(networks, feature_names=("return_7", *networks.feature_names[1:]))
    with pytest.raises(DeliveryError, match="trained on return_7, which this code does not compute"):
        changed.predict_latest(prepared.prices)


def test_verdict_of_another_run_is_refused(judged):
    _, _, session, validation = judged
    with pytest.raises(DeliveryError, match="Validate this run first"):
        export_bundle(session, replace(validation.verdict, run_id="20200101T000000_000000"))
