"""Validation of a finished run: which days, which opponents, what is charged, and which verdict stays."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest

from vnq_colab.delivery.validate import validate
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.accounts import choose_threshold
from vnq_colab.files import read_json
from vnq_colab.layout import Workspace
from vnq_colab.models.global_network import GlobalNetwork
from vnq_colab.training.forecasting import forecast
from vnq_colab.training.start import stored_start
from vnq_colab.training.trainer import train

FAMILIES = {"stockformer", "zero", "majority", "momentum", "crossing", "ridge", "trees", "global"}


def test_validation_forecasts_test_days_only(judged):
    _, prepared, _, validation = judged
    dates = validation.forecast["date"]
    assert dates.min() == pd.Timestamp(prepared.splits.test.first)
    assert dates.max() == pd.Timestamp(prepared.splits.test.last)
    assert set(validation.forecast["family"]) == FAMILIES


def test_validation_writes_all_that_it_promises(judged):
    ws, _, session, validation = judged
    folder = ws.report_folder(session.run_id)
    assert {"report.html", "verdict.json", "forecast.parquet", "scores.parquet", "symbol_accuracy.png", "equity.png",
            "learning_curves.png"} <= {path.name for path in folder.iterdir()}
    page = validation.report.read_text(encoding="utf-8")
    assert "SYNTHETIC" in page and session.run_id in page
    assert "http://" not in page and "https://" not in page.replace("https://www.w3.org", "")
    assert read_json(folder / "verdict.json")["run_id"] == session.run_id


def test_scores_hold_our_model_and_every_opponent(judged):
    scores = judged[3].scores
    assert scores.groupby("family")["symbol"].nunique().to_dict() == dict.fromkeys(FAMILIES, 3)


def test_other_days_are_judged_beside_the_verdict_of_the_run(judged):
    _, prepared, session, validation = judged
    days, stored = prepared.panel.days, (validation.report.parent / "verdict.json").read_bytes()
    other = validate(session, prepared=prepared, days=(f"{days[-30]:%Y-%m-%d}", f"{days[-10]:%Y-%m-%d}"))
    assert other.forecast["date"].nunique() == 21
    assert other.report.parent.parent == validation.report.parent
    assert (validation.report.parent / "verdict.json").read_bytes() == stored


@pytest.mark.parametrize("days, message", [
    (("1999-01-01", "1999-02-01"), "trained or stopped on"),
    (("2031-01-01", "2031-02-01"), "no trading day lies between"),
])
def test_days_that_cannot_be_judged_are_refused(judged, days, message):
    with pytest.raises(ConfigError, match=message):
        validate(judged[2], prepared=judged[1], days=days)


def test_misspelt_gates_are_refused(judged):
    with pytest.raises(ConfigError, match="honest"):
        validate(judged[2], prepared=judged[1], gates="onest")


def test_the_global_opponent_is_the_network_that_ours_began_from(judged):
    _, prepared, session, validation = judged
    start = stored_start(session)
    assert start is not None
    theirs = validation.forecast.query("family == 'global'").set_index(["symbol", "date"])["mean_1"]
    network = GlobalNetwork(start, 0).forecaster(prepared.panel.select(list(session.ledger)), prepared.splits.train,
                                                 session.config)
    expected = network.predict(prepared.panel, prepared.splits.test.mask(prepared.panel.days))
    expected = expected.set_index(["symbol", "date"])["mean_1"]
    pd.testing.assert_series_equal(theirs.sort_index(), expected.sort_index(), atol=1e-9)


def test_a_threshold_is_chosen_on_validation_days_and_stands_beside_each_forecast(judged):
    _, prepared, session, validation = judged
    valid = forecast(session, days="valid", panel=prepared.panel)
    expected = choose_threshold(valid, prepared.prices)
    assert valid["date"].max() < pd.Timestamp(prepared.splits.test.first)
    found = validation.forecast["threshold"].unique()
    assert len(found) == 1 and (found[0] == expected if expected is not None else pd.isna(found[0]))


def test_each_look_is_written_down_and_another_configuration_is_charged_for_it(judged, tmp_path):
    ws, prepared, session, validation = judged
    assert validation.verdict.summary["looks"]["n_trials"] == 1
    shutil.copytree(ws.root, tmp_path / "copy")
    other = train(Workspace(tmp_path / "copy"), prepared.panel, prepared.splits, replace(session.config, seed=7),
                  quiet=True)
    again = validate(other, prepared=prepared)
    assert again.verdict.summary["looks"]["n_trials"] == 2
    assert "2 configurations" in again.verdict.summary["looks"]["text"]


def test_what_is_too_good_to_be_true_is_searched_for_leaks_and_judged_again(judged, monkeypatch):
    _, prepared, session, _ = judged
    monkeypatch.setattr("vnq_colab.delivery.validate.too_good", lambda verdict: True)
    verdict = validate(session, prepared=prepared).verdict
    checks = verdict.summary["leak_checks"]
    assert {check["check"] for check in checks} == {"features", "labels", "scaler", "test days"}
    assert all(check["passed"] for check in checks), [check["sentence"] for check in checks]
