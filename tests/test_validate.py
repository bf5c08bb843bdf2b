import pandas as pd
import pytest

from vnq_colab.delivery.validate import validate
from vnq_colab.errors import ConfigError
from vnq_colab.files import read_json

FAMILIES = {"stockformer", "zero", "majority", "momentum", "crossing", "ridge", "trees"}


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
