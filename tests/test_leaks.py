from dataclasses import replace

import numpy as np
import pytest

from vnq_colab.config import RunConfig
from vnq_colab.data.features import FEATURES, Feature
from vnq_colab.data.panel import build_panel, fit_scaler
from vnq_colab.data.prepared import PROOF, load_prepared, prepare
from vnq_colab.data.splits import DayRange
from vnq_colab.delivery import leaks
from vnq_colab.delivery.leaks import CHECKS, check_leaks
from vnq_colab.errors import SessionError
from vnq_colab.files import write_json
from vnq_colab.layout import Workspace
from vnq_colab.models import torch_learner
from vnq_colab.training.trainer import train
from vnq_colab.training.walk_forward import train_folds


@pytest.fixture
def small(config):
    """One member, one epoch."""
    return replace(config, n_members=1, train=replace(config.train, epochs=1))


@pytest.fixture
def ready(tmp_path, prices):
    ws = Workspace(tmp_path)
    return ws, prepare(ws, prices)


def run(ws, prepared, config, splits=None, panel=None):
    return train(ws, panel or prepared.panel, splits or prepared.splits, config, quiet=True)


def leak(checks):
    """The sentence of the one check that failed."""
    assert [check.check for check in checks] == list(CHECKS)
    assert sum(not check.passed for check in checks) == 1, checks
    return next((check.check, check.sentence) for check in checks if not check.passed)


def own_days_later(panel, values, days):
    """Each symbol's series, moved so that every day shows what its own day `days` later should show."""
    moved = values.copy()
    for row, there in enumerate(panel.present):
        moved[row, there] = np.roll(values[row, there], -days, axis=0)
    return moved


@pytest.fixture(scope="module")
def clean(tmp_path_factory, prices):
    """(prepared, session) of a finished smoke run. Read it, do not change it."""
    ws = Workspace(tmp_path_factory.mktemp("clean"))
    prepared = prepare(ws, prices)
    return prepared, run(ws, prepared, RunConfig.for_machine("smoke"))


# --- a clean run


def test_clean_run_passes_every_check(clean):
    prepared, session = clean
    found = check_leaks(session, prepared)
    assert [check.check for check in found] == list(CHECKS) and all(check.passed for check in found)
    assert repr(found[0]).startswith("passed, features: All 50 features of 6 symbols")
    assert found[2].to_dict() == {"check": "scaler", "passed": True,
                                  "sentence": "Every scaler is that of the training days alone."}


def test_folds_of_a_walk_and_merged_parts_pass_every_check(ready, small):
    ws, prepared = ready
    folds = train_folds(ws, prepared.panel, small, folds=2, quiet=True)
    assert all(check.passed for check in check_leaks(folds, prepared))
    parts = [train(ws, prepared.panel, prepared.splits, small, part=part, quiet=True) for part in ("1/2", "2/2")]
    assert all(check.passed for check in check_leaks(parts[0], prepared))


def test_last_day_recipe_passes_too(ready, small):
    ws, prepared = ready
    session = run(ws, prepared, replace(small, train=replace(small.train, supervise="last_day")))
    assert all(check.passed for check in check_leaks(session, prepared))


def test_other_data_is_refused(clean, prices, tmp_path):
    other = prepare(Workspace(tmp_path), prices[prices["symbol"] != "SYN006"])
    with pytest.raises(SessionError, match="was trained on data"):
        check_leaks(clean[1], other)


# --- features


@pytest.mark.parametrize("days", [1, 3])
def test_feature_of_later_days_is_named_although_the_data_id_is_the_old_one(ready, small, days):
    """The stored panel is changed before training; its file, its run and its networks agree with one another."""
    ws, prepared = ready
    place = prepared.panel.feature_names.index("rsi_14")
    values = prepared.panel.values.copy()
    values[:, :, place] = own_days_later(prepared.panel, values[:, :, place], days)
    replace(prepared.panel, values=values).save(prepared.folder / "panel.parquet")
    changed = load_prepared(ws, prepared.panel.data_id)
    session = run(ws, changed, small)
    assert leak(check_leaks(session, changed)) == (
        "features", f"Feature rsi_14 of 6 symbols is that of {days} day{'s' * (days > 1)} later.")


def test_shift_along_the_days_of_the_market_is_a_shift_too(clean):
    prepared, session = clean
    values = prepared.panel.values.copy()
    values[5, :, 3] = np.roll(values[5, :, 3], -1)  # SYN006 was listed late and has been halted
    found = check_leaks(session, prepared, panel=replace(prepared.panel, values=values))
    assert leak(found) == ("features", f"Feature {prepared.panel.feature_names[3]} of SYN006 is that of 1 day later.")


def test_shift_along_the_own_days_of_a_stock_that_trades_now_and_then_is_found(tmp_path, prices, small):
    ws, days = Workspace(tmp_path), np.sort(prices["date"].unique())
    some = days[np.random.default_rng(0).random(len(days)) < 0.5]
    prepared = prepare(ws, prices[(prices["symbol"] != "SYN006") | prices["date"].isin(some)])
    values = prepared.panel.values.copy()
    values[5, :, 3] = own_days_later(prepared.panel, values[:, :, 3], 1)[5]
    found = check_leaks(run(ws, prepared, small), prepared, panel=replace(prepared.panel, values=values))
    assert leak(found) == ("features", f"Feature {prepared.panel.feature_names[3]} of SYN006 is that of 1 day later.")


def test_feature_that_is_none_of_the_neighbours_is_named_with_its_first_day(clean):
    prepared, session = clean
    values, day = prepared.panel.values.copy(), prepared.panel.days[380]
    values[1, 380:, 7] += 0.5
    check, sentence = leak(check_leaks(session, prepared, panel=replace(prepared.panel, values=values)))
    assert check == "features" and sentence == (f"Feature {prepared.panel.feature_names[7]} of SYN002 is not that of "
                                                f"the prices, first on {day:%Y-%m-%d}.")


def test_computation_that_looks_ahead_is_named_though_panel_and_prices_agree(tmp_path, prices, small, monkeypatch):
    honest = FEATURES["return_1"]

    def peeking(history):
        return np.hstack([history.returns[:, 1:], np.full((len(history.returns), 1), np.nan)])

    peeks = Feature(**{name: getattr(honest, name) for name in honest.__dataclass_fields__} | {"compute": peeking})
    monkeypatch.setitem(FEATURES, "return_1", peeks)
    ws = Workspace(tmp_path)
    prepared = prepare(ws, prices)
    check, sentence = leak(check_leaks(run(ws, prepared, small), prepared))
    assert check == "features" and sentence.startswith("Feature return_1 knows the future")


def test_failed_proof_of_the_set_is_not_forgotten(ready, small):
    ws, prepared = ready
    session = run(ws, prepared, small)
    write_json(prepared.folder / PROOF, {"passed": False})
    check, sentence = leak(check_leaks(session, prepared))
    assert check == "features" and PROOF in sentence


def test_panel_of_other_days_is_not_one_of_these_prices(clean):
    prepared, session = clean
    later = replace(prepared.panel, days=prepared.panel.days + np.timedelta64(1, "D"))
    found = {check.check: check for check in check_leaks(session, prepared, panel=later)}
    assert not found["features"].passed and "is not one of its prices" in found["features"].sentence


# --- labels


def shuffled(panel):
    """Each symbol's returns in another order, on the days that have one."""
    returns = panel.returns.copy()
    for row in returns:
        row[np.isfinite(row)] = np.random.default_rng(1).permutation(row[np.isfinite(row)])
    return returns


@pytest.mark.parametrize("change, words", [
    (lambda panel: own_days_later(panel, panel.returns, 1), "shifted by 1 day: that of 1 day later"),
    (lambda panel: own_days_later(panel, panel.returns, -1), "shifted by 1 day: that of 1 day earlier"),
    (lambda panel: shuffled(panel), "they are shuffled"),
    (lambda panel: -panel.returns, "returns of SYN001, SYN002, SYN003, SYN004, SYN005 and 1 more are not those"),
], ids=["later", "earlier", "shuffled", "turned"])
def test_labels_of_other_days_are_caught_and_named(ready, small, change, words):
    ws, prepared = ready
    changed = replace(prepared.panel, returns=change(prepared.panel))
    session = run(ws, prepared, small, panel=changed)
    check, sentence = leak(check_leaks(session, prepared, panel=changed))
    share = float(sentence.partition(" on ")[2].partition("%")[0])
    assert check == "labels" and words in sentence and share > 90


# --- the scaler


@pytest.mark.parametrize("last, words", [("test", "it is that of all days"),
                                         ("valid", "it is that of the training and validation days")])
def test_scaler_of_too_many_days_is_caught_and_named(ready, small, monkeypatch, last, words):
    ws, prepared = ready
    end = getattr(prepared.splits, last).last
    monkeypatch.setattr(torch_learner, "fit_scaler",
                        lambda panel, first, last: fit_scaler(panel, first, np.datetime64(end)))
    session = run(ws, prepared, small)
    monkeypatch.undo()
    check, sentence = leak(check_leaks(session, prepared))
    assert check == "scaler" and sentence.startswith("The scaler of SYN001") and words in sentence


def test_scaler_of_one_symbol_from_nowhere_names_symbol_and_feature(clean):
    prepared, session = clean
    forecaster = leaks.load_forecaster(session)
    forecaster.scaler.mean[1, 4] += 0.01 * forecaster.scaler.spread[1, 4]
    check, sentence = leak(check_leaks(session, prepared, forecaster=forecaster))
    assert check == "scaler" and forecaster.symbols[1] in sentence and forecaster.symbols[0] not in sentence
    assert f"of no days known ({forecaster.feature_names[4]} differ)" in sentence


# --- the test days


@pytest.mark.parametrize("purge, overlap", [(0, 5), (4, 1)])
def test_labels_that_reach_into_the_test_days_are_counted_by_day(ready, small, purge, overlap):
    ws, prepared = ready
    days, test = prepared.panel.days, int(prepared.panel.days.searchsorted(np.datetime64(prepared.splits.test.first)))
    valid = replace(prepared.splits.valid, last=f"{days[test - 1 - purge]:%Y-%m-%d}")
    session = run(ws, prepared, small, replace(prepared.splits, valid=valid, purge_days=purge))
    check, sentence = leak(check_leaks(session, prepared))
    assert check == "test days"
    assert sentence.startswith("The labels of the validation days")
    assert f"the test days (from {prepared.splits.test.first}) by {overlap} day{'s' * (overlap > 1)}." in sentence


def test_networks_trained_on_the_test_days_are_caught(ready, small):
    ws, prepared = ready
    session = run(ws, prepared, small, replace(prepared.splits, train=DayRange(
        prepared.splits.train.first, prepared.splits.test.last)))
    n_test = int(prepared.splits.test.mask(prepared.panel.days).sum())
    check, sentence = leak(check_leaks(session, prepared))
    assert check == "test days" and f"by {n_test} days" in sentence


def test_one_bad_fold_is_named(ready, small):
    ws, prepared = ready
    folds = train_folds(ws, prepared.panel, small, folds=2, quiet=True)
    folds[0].days["train"][1] = folds[0].days["splits"]["test"]["first"]
    found = {check.check: check for check in check_leaks(folds, prepared)}
    assert not found["test days"].passed and folds[0].run_id in found["test days"].sentence
    assert folds[1].run_id not in found["test days"].sentence


@pytest.mark.parametrize("supervise", ["all_days", "last_day"])
def test_windows_that_are_not_cut_inside_training_are_caught(ready, small, monkeypatch, supervise):
    """Were the border of the training days forgotten, a window's last positions would learn what comes after it."""
    ws, prepared = ready
    session = run(ws, prepared, replace(small, train=replace(small.train, supervise=supervise)))
    monkeypatch.setattr(torch_learner.DayRange, "mask", lambda self, days: np.ones(len(days), dtype=bool))
    check, sentence = leak(check_leaks(session, prepared))
    assert check == "test days" and sentence.startswith("Training overlaps what follows it")


def test_rebuilt_panel_is_the_prepared_one(clean):
    """What the features are compared with is made by the one function that prepare uses."""
    assert build_panel(clean[0].prices, clean[0].index).agrees_with(clean[0].panel)


def test_a_shared_start_that_learns_from_what_follows_is_caught(clean, monkeypatch):
    prepared, session = clean
    honest = leaks.train_global

    def greedy(panel, train, valid, config, **choices):
        return honest(panel, replace(train, last=f"{panel.days[-10]:%Y-%m-%d}"), valid, config, **choices)

    monkeypatch.setattr(leaks, "train_global", greedy)
    check, sentence = leak(check_leaks(session, prepared))
    assert check == "test days" and sentence.startswith("The shared start overlaps what follows it")


def test_networks_that_look_ahead_when_they_forecast_are_caught(clean):
    prepared, session = clean

    class Peeking:
        def __init__(self, forecaster):
            self.forecaster, self.scaler, self.symbols = forecaster, forecaster.scaler, forecaster.symbols

        def select(self, symbols):
            return Peeking(self.forecaster.select(symbols))

        def predict(self, panel, origins):
            found = self.forecaster.predict(panel, origins)
            seen = panel.outcomes().set_index(["symbol", "date"])["actual"]
            keys = list(found[["symbol", "date"]].itertuples(index=False, name=None))
            return found.assign(mean=[seen.get(key, 0.0) for key in keys])

    check, sentence = leak(check_leaks(session, prepared, forecaster=Peeking(leaks.load_forecaster(session))))
    assert check == "test days" and "know later days" in sentence
