import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.prepared import prepare
from vnq_colab.data.splits import walk_forward_splits
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import ConfigError, DataError, PausedError
from vnq_colab.layout import Workspace
from vnq_colab.training import loop
from vnq_colab.training.runs import latest_session, sessions
from vnq_colab.training.trainer import train
from vnq_colab.training.walk_forward import train_folds, walk_forward

DAYS = pd.bdate_range("2012-01-02", periods=2000)


@pytest.fixture
def small(tmp_path, prices, config):
    """(workspace, prepared, config) of networks that take a moment to train."""
    from dataclasses import replace

    ws = Workspace(tmp_path)
    config = replace(config, n_members=1, train=replace(config.train, epochs=1))
    return ws, prepare(ws, prices), config


def test_folds_cover_the_second_half_once_and_train_before_they_test():
    folds = walk_forward_splits(DAYS, 8)
    tested = sum(splits.test.mask(DAYS).astype(int) for splits in folds)
    assert tested[:1000].max() == 0 and (tested[1000:] == 1).all()
    for splits in folds:
        trained, valid, tested = (np.flatnonzero(part.mask(DAYS)) for part in (splits.train, splits.valid, splits.test))
        assert valid[0] - trained[-1] > 5 and tested[0] - valid[-1] > 5
    assert [splits.train.first for splits in folds] == ["2012-01-02"] * 8  # expanding


def test_rolling_folds_forget_what_is_old():
    for splits in walk_forward_splits(DAYS, 4, rolling_days=500):
        assert splits.train.mask(DAYS).sum() == 500


@pytest.mark.parametrize("n_days, choices", [(40, {"folds": 8}), (2000, {"folds": 0}), (2000, {"test_share": 1.0})])
def test_impossible_walk_is_refused(n_days, choices):
    with pytest.raises(DataError, match="fold"):
        walk_forward_splits(DAYS[:n_days], **choices)


def test_walk_gives_one_forecast_and_is_not_trained_twice(small):
    ws, prepared, config = small
    found = walk_forward(ws, prepared.panel, config, folds=3, quiet=True)
    assert check_forecast(found).equals(found)
    expected = [splits.test.mask(prepared.panel.days).sum() for splits in walk_forward_splits(prepared.panel.days, 3)]
    assert found["date"].nunique() == sum(expected)
    before = [(session.run_id, len(session.attempts)) for session in sessions(ws)]
    assert [name.partition("-")[2] for name, _ in before] == ["fold1of3", "fold2of3", "fold3of3"]
    again = walk_forward(ws, prepared.panel, config, folds=3, quiet=True)
    assert again.equals(found) and [(s.run_id, len(s.attempts)) for s in sessions(ws)] == before


def test_last_fold_stays_untouched_until_it_is_asked_for(small):
    ws, prepared, config = small
    found = walk_forward(ws, prepared.panel, config, folds=3, untouched=1, quiet=True)
    last = walk_forward_splits(prepared.panel.days, 3)[-1].test
    assert not last.mask(pd.DatetimeIndex(found["date"])).any() and len(sessions(ws)) == 2


def test_paused_walk_goes_on(small, monkeypatch):
    ws, prepared, config = small
    monkeypatch.setattr(loop, "MARGIN_SECONDS", 0)
    with pytest.raises(PausedError, match="fold 1 of 2 paused"):
        train_folds(ws, prepared.panel, config, folds=2, hours=1e-9, quiet=True)
    assert [session.status for session in train_folds(ws, prepared.panel, config, folds=2, quiet=True)] == [
        "finished", "finished"]
    assert len(sessions(ws)) == 2


def test_validation_by_walking_judges_more_days_and_is_the_verdict_of_the_run(small):
    ws, prepared, config = small
    session = train(ws, prepared.panel, prepared.splits, config, quiet=True)
    once = validate(session, prepared=prepared)
    walked = validate(session, prepared=prepared, walk_forward=3, quiet=True)
    assert walked.forecast["date"].nunique() > 3 * once.forecast["date"].nunique()
    assert set(walked.forecast["family"]) == set(once.forecast["family"])
    assert walked.verdict.run_id == session.run_id and "3 folds" in walked.report.read_text(encoding="utf-8")
    assert latest_session(ws).run_id == session.run_id
    stored = walked.report.with_name("verdict.json").read_bytes()
    later = validate(session, prepared=prepared)
    assert later.report.parent.parent == walked.report.parent, "the test days alone do not replace what was walked"
    assert walked.report.with_name("verdict.json").read_bytes() == stored
    with pytest.raises(ConfigError, match="chooses its own days"):
        validate(session, prepared=prepared, walk_forward=3, days=("2025-11-04", "2025-12-01"))
