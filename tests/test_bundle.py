import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab.delivery.bundle import export_bundle, load_bundle, stored_verdict
from vnq_colab.delivery.predict import tomorrow
from vnq_colab.errors import DeliveryError
from vnq_colab.files import read_json, sha256_of, write_json
from vnq_colab.training.forecasting import forecast


@pytest.fixture(scope="module")
def bundle(judged):
    _, _, session, _ = judged
    return export_bundle(session, quiet=True)


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the bundle's folder that a test may damage."""
    return shutil.copytree(bundle.folder, tmp_path / "bundle")


def test_bundle_holds_every_finished_symbol_with_its_decision(bundle, judged):
    _, _, session, validation = judged
    assert set(bundle.decisions) == set(session.ledger)
    assert bundle.decisions == {symbol: found["decision"] for symbol, found in validation.verdict.symbols.items()}
    assert "SYNTHETIC" in repr(bundle)


def test_decisions_are_those_of_the_verdict_that_was_given(judged):
    _, _, session, validation = judged
    found = {symbol: part | {"decision": decision} for (symbol, part), decision in
             zip(validation.verdict.symbols.items(), ("accept", "reject", "review"), strict=True)}
    given = export_bundle(session, replace(validation.verdict, symbols=found), refit=False, quiet=True)
    assert given.decisions == dict(zip(found, ("accept", "reject", "review"), strict=True))
    assert given.accepted == (next(iter(found)),)
    table, _ = tomorrow(given, judged[1].prices)
    assert set(table["symbol"]) == set(given.accepted)
    export_bundle(session, quiet=True)  # back to what the other tests read


def test_symbol_whose_refit_failed_ships_its_judged_networks(judged, monkeypatch):
    from vnq_colab.delivery import bundle as module
    from vnq_colab.training.session import Session

    _, prepared, session, _ = judged
    again = Session.load(session.ws, f"{session.run_id}-refit")
    again.ledger["SYN002"] = {"state": "failed", "reason": "gradient not finite"}
    load = module.load_forecaster
    monkeypatch.setattr(module, "train_again", lambda *_, **__: again)
    monkeypatch.setattr(module, "load_forecaster", lambda part: load(part).select(("SYN001", "SYN003"))
                        if part.is_refit else load(part))
    shipped = export_bundle(session, quiet=True)
    assert set(shipped.decisions) == {"SYN001", "SYN002", "SYN003"}
    assert shipped.manifest["symbols"]["SYN002"]["trained_to"] == session.days["train"][1]
    assert shipped.manifest["symbols"]["SYN001"]["trained_to"] == f"{prepared.panel.days[-1]:%Y-%m-%d}"
    monkeypatch.undo()
    export_bundle(session, quiet=True)


def test_manifest_says_what_the_bundle_is(bundle, judged):
    _, prepared, session, _ = judged
    manifest = read_json(bundle.folder / "manifest.json")
    assert manifest["run_id"] == session.run_id and manifest["data_id"] == prepared.panel.data_id
    assert manifest["trained_to"] == f"{prepared.panel.days[-1]:%Y-%m-%d}" and manifest["market_index"] is False
    assert tuple(manifest["feature_names"]) == prepared.panel.feature_names
    assert manifest["horizon"] == 5 and manifest["config"] == session.config.to_dict()
    for name, fact in manifest["files"].items():
        assert fact["sha256"] == sha256_of(bundle.folder / name)


def test_file_of_a_symbol_is_complete_by_itself(bundle):
    state = torch.load(bundle.folder / "SYN001_stockformer_simple_best.pt", weights_only=True)
    assert state["members"].shape[0] == 3 and state["members"].dtype == torch.float16
    assert {"config", "feature_names", "scaler", "horizon", "data_id", "code_version"} <= set(state)
    assert (bundle.folder / "SYN001_stockformer_simple_best.pt").stat().st_size < 2 * state["members"].numel() + 16_000


def test_loaded_bundle_forecasts_like_the_exported_one(bundle, judged):
    _, prepared, _, _ = judged
    days = prepared.panel.days[-5:]
    again = load_bundle(bundle.folder)
    pd.testing.assert_frame_equal(again.predict(prepared.panel, days), bundle.predict(prepared.panel, days))


def test_folder_of_models_leads_to_the_current_bundle(bundle, judged):
    ws, _, session, _ = judged
    assert load_bundle(ws.models).manifest["run_id"] == session.run_id


def test_latest_forecast_is_from_the_last_day(bundle, judged):
    _, prepared, _, _ = judged
    latest = bundle.predict_latest(prepared.prices)
    assert (latest["date"] == prepared.prices["date"].max()).all()
    assert set(latest["symbol"]) == set(bundle.decisions) and latest["decision"].notna().all()


def test_without_refit_the_judged_networks_are_shipped(judged, tmp_path):
    """What the bundle forecasts is what was judged: the float16 form of the same weights."""
    ws, prepared, session, validation = judged
    before = read_json(ws.models / "current.json") if (ws.models / "current.json").exists() else None
    plain = export_bundle(session, refit=False, quiet=True)
    test_days = prepared.panel.days[prepared.splits.test.mask(prepared.panel.days)]
    ours = validation.forecast[validation.forecast["family"] == "stockformer"].reset_index(drop=True)
    np.testing.assert_allclose(plain.predict(prepared.panel, test_days)["mean"], ours["mean"], atol=1e-7)
    assert plain.manifest["trained_to"] == session.days["train"][1]
    if before:
        export_bundle(session, quiet=True)


def test_judged_form_is_not_the_float32_session(judged):
    _, prepared, session, _ = judged
    from vnq_colab.training.forecasting import load_forecaster

    origins = prepared.splits.test.mask(prepared.panel.days)
    exact = load_forecaster(session).predict(prepared.panel, origins)
    shipped = forecast(session, panel=prepared.panel)
    assert not np.array_equal(exact["mean"], shipped["mean"])
    np.testing.assert_allclose(exact["mean"], shipped["mean"], atol=2e-3)


@pytest.mark.parametrize("damage, message", [
    (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
    (lambda folder: (folder / "SYN002_stockformer_simple_best.pt").unlink(), "in the manifest but not in the folder"),
    (lambda folder: (folder / "SYN002_stockformer_simple_best.pt").write_bytes(b"x"), "not what the manifest says"),
    (lambda folder: write_json(folder / "manifest.json", {"format": 99, "code_version": "9"}), "newer version"),
    (lambda folder: write_json(folder / "manifest.json", {"format": 1}), "not a manifest"),
    (lambda folder: write_json(folder / "manifest.json", {"format": 1, "run_id": "x", "files": {}}), "not a manifest"),
])
def test_damaged_bundle_is_refused_in_words(copy, damage, message):
    damage(copy)
    with pytest.raises(DeliveryError, match=message):
        load_bundle(copy)


def test_bundle_of_other_features_names_the_difference(copy, judged):
    _, prepared, _, _ = judged
    changed = load_bundle(copy)
    changed.forecaster = replace(changed.forecaster, feature_names=("return_7", *changed.forecaster.feature_names[1:]))
    with pytest.raises(DeliveryError, match="trained on return_7, which this code does not compute"):
        changed.predict_latest(prepared.prices)


def test_verdict_of_another_run_is_refused(judged):
    _, _, session, validation = judged
    with pytest.raises(DeliveryError, match="Validate this run first"):
        export_bundle(session, replace(validation.verdict, run_id="20200101T000000_stockformer_000000"))


def test_stored_verdict_is_the_one_that_was_found(judged):
    _, _, session, validation = judged
    assert stored_verdict(session).to_dict() == json.loads(json.dumps(validation.verdict.to_dict()))
