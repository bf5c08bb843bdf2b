"""Validation of a finished run: which days, which opponents, what is charged, and which verdict stays."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.prepared import prepare
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import ConfigError, SessionError
from vnq_colab.evaluation.calibration import Calibration, with_volatility
from vnq_colab.files import read_json
from vnq_colab.layout import Workspace
from vnq_colab.training.jobs import fold_scores
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import train

OPPONENTS = {"zero", "majority", "momentum", "reversal", "crossing", "ridge"}
FAMILIES = {"stockformer", "global", "trees", "ensemble"} | OPPONENTS


def test_validation_forecasts_test_days_only(judged):
    _, prepared, _, validation = judged
    dates = validation.forecast["date"]
    inside = np.any([fold.test.mask(prepared.panel.days) for fold in prepared.folds[-2:]], axis=0)
    assert sorted(dates.unique()) == list(prepared.panel.days[inside]) and prepared.folds[-2:] != prepared.folds[-1:]
    assert set(validation.forecast["family"]) == FAMILIES


def test_validation_writes_all_that_it_promises(judged):
    ws, _, session, validation = judged
    folder = ws.report_folder(session.run_id)
    assert {"report.html", "verdict.json", "forecast.parquet", "scores.parquet", "orders.parquet",
            "symbol_accuracy.png",
            "learning_curves.png", "evaluations.json"} <= {path.name for path in folder.iterdir()}
    page = validation.report.read_text(encoding="utf-8")
    assert "SYNTHETIC" in page and session.run_id in page
    assert "http://" not in page and "https://" not in page.replace("https://www.w3.org", "")
    assert read_json(folder / "verdict.json")["run_id"] == session.run_id


def test_scores_hold_our_model_and_every_opponent(judged):
    scores = judged[3].scores
    assert scores.groupby("family")["symbol"].nunique().to_dict() == dict.fromkeys(FAMILIES, 8)


@pytest.mark.parametrize("settings", [{"days": (-30, -10)}, {"gates": "original", "capital": 1e7, "slippage": 0.05,
                                                                "haircut": 0.5}])
def test_other_settings_are_judged_beside_the_verdict_of_the_run(judged, settings):
    _, prepared, session, validation = judged
    stored = (validation.report.parent / "verdict.json").read_bytes()
    name = "_".join(f"{name}_{value}" for name, value in settings.items())
    if "days" in settings:
        settings = {"days": tuple(f"{prepared.panel.days[place]:%Y-%m-%d}" for place in settings["days"])}
        name = "_".join(settings["days"])
    other = validate(session, prepared=prepared, **settings)
    assert other.report.parent == validation.report.parent / name
    assert other.forecast["date"].nunique() == (21 if "days" in settings else validation.forecast["date"].nunique())
    assert (validation.report.parent / "verdict.json").read_bytes() == stored
    page = other.report.read_text("utf-8")
    assert f"settled {settings.get('haircut', 0.3):.0%} below its last close" in page
    assert page.count("lots of adjusted shares, an approximation: 0% of the rows bring a raw close") == 1


@pytest.mark.parametrize("days, message", [
    (("2025-07-05", "2025-07-06"), "no test day lies between"),
    (("1999-01-01", "1999-02-01"), "trained or stopped on"),
    (("2031-01-01", "2031-02-01"), "no test day lies between"),
])
def test_days_that_cannot_be_judged_are_refused(judged, days, message):
    with pytest.raises(ConfigError, match=message):
        validate(judged[2], prepared=judged[1], days=days)


@pytest.mark.parametrize("settings, message", [
    ({"gates": "onest"}, "Did you mean 'honest'"), ({"capital": -5.0}, "capital = -5.0: must be positive, or null"),
    ({"slippage": 5.0}, r"slippage = 5.0: must lie in \[0, 1\)"), ({"capital": float("nan")}, "expected float")])
def test_settings_that_cannot_be_judged_with_are_refused_at_once(judged, monkeypatch, settings, message):
    monkeypatch.setattr("vnq_colab.delivery.validate.now", pytest.fail)
    with pytest.raises(ConfigError, match=message):
        validate(judged[2], prepared=judged[1], **settings)


def test_nothing_is_trained_or_inferred(judged, monkeypatch):
    """The forecasts are those in the jobs' files, with what calibration makes of them."""
    _, prepared, session, validation = judged
    for name in ("forecaster.NetworkForecaster", "trees.TreesForecaster"):
        monkeypatch.setattr(f"vnq_colab.models.{name}.predict", lambda *_: pytest.fail("it infers"))
    again = validate(session, prepared=prepared).forecast
    pd.testing.assert_frame_equal(again, validation.forecast)
    scores = fold_scores(session, prepared.panel)
    keys = ["family", "symbol", "date"]
    stored = scores[scores["part"] == "test"].astype({"symbol": object}).set_index(keys)["score"].sort_index()
    ours = again[again["family"].isin(FAMILIES - OPPONENTS)].set_index(keys)["score"].sort_index()
    pd.testing.assert_series_equal(ours, stored)


def test_each_fold_is_calibrated_on_its_own_validation_days(judged):
    _, prepared, session, validation = judged
    scores = fold_scores(session, prepared.panel)
    scores = scores[scores["family"] == "trees"].astype({"symbol": object})
    for fold, rows in scores.groupby("fold"):
        valid, tested = (with_volatility(rows[rows["part"] == part], prepared.panel, 5) for part in ("valid", "test"))
        expected = Calibration.fit("trees", valid[valid["actual"].notna()]).apply(tested)
        found = expected.merge(validation.forecast, on=["family", "symbol", "date"], suffixes=("", "_found"))
        assert len(found) == len(expected) > 0
        for name in ("edge", "mean", "scale", "p_up"):
            np.testing.assert_allclose(found[f"{name}_found"], found[name], rtol=1e-9, err_msg=f"{name} of fold {fold}")


def test_unfinished_run_says_what_to_do(judged, tmp_path):
    _, prepared, session, _ = judged
    other = train(Workspace(tmp_path), prepared.panel, replace(session.config, seed=7), hours=1e-9, quiet=True)
    with pytest.raises(SessionError, match="is paused: .* jobs are not trained yet. Go on with resume first"):
        validate(other, prepared=prepared)


def test_prepared_data_of_another_run_are_refused(judged, prices, tmp_path):
    with pytest.raises(SessionError, match="Leave out prepared=, and its own data are read"):
        validate(judged[2], prepared=prepare(Workspace(tmp_path), prices))


def test_each_evaluation_is_written_down(judged):
    ws, _, session, validation = judged
    assert validation.verdict.summary["evaluations"]["n_trials"] == 1
    record = read_json(ws.report_folder(session.run_id) / "evaluations.json")
    whole = tuple(f"{day:%Y-%m-%d}" for day in validation.forecast["date"].agg(["min", "max"]))
    assert whole in [(found["first"], found["last"]) for found in record["evaluations"]]


def test_what_is_too_good_to_be_true_is_searched_for_leaks_and_judged_again(judged, tmp_path, monkeypatch):
    ws, prepared, session, _ = judged
    session = Session.load(Workspace(shutil.copytree(ws.root, tmp_path / "ws")), session.run_id)
    monkeypatch.setattr("vnq_colab.delivery.validate.too_good", lambda verdict: True)
    verdict = validate(session, prepared=prepared).verdict
    checks = verdict.summary["leak_checks"]
    assert {check["check"] for check in checks} == {"features", "labels", "test days", "rows"}
    assert all(check["passed"] for check in checks), [check["sentence"] for check in checks]
