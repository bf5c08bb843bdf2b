from dataclasses import replace

import numpy as np
import pytest

from vnq_colab.data.features import FEATURES, Feature
from vnq_colab.data.panel import CLOSE, OPEN, build_panel
from vnq_colab.data.prepared import PROOF, load_prepared, prepare
from vnq_colab.delivery.leaks import CHECKS, check_leaks
from vnq_colab.errors import DataError, SessionError
from vnq_colab.files import write_json
from vnq_colab.layout import Workspace
from vnq_colab.training.trainer import train


@pytest.fixture
def ready(tmp_path, prices):
    ws = Workspace(tmp_path)
    return ws, prepare(ws, prices)


def run(ws, prepared, config, panel=None):
    return train(ws, panel or prepared.panel, config, quiet=True)


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


# --- a clean run


def test_clean_run_passes_every_check(clean):
    prepared, session = clean
    found = check_leaks(session, prepared)
    assert [check.check for check in found] == list(CHECKS) and all(check.passed for check in found)
    assert repr(found[0]).startswith("passed, features: All 50 features of 6 symbols")
    assert found[2].to_dict() == {"check": "test days", "passed": True,
                                  "sentence": "No training or validation label reaches into the test days."}


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


def moved(panel, days, *columns):
    """The panel with prices that every symbol has only `days` of its own days later."""
    prices = panel.prices.copy()
    for column in columns:
        prices[:, :, column] = own_days_later(panel, prices[:, :, column], days)
    return replace(panel, prices=prices)


def shuffled(panel):
    """Each symbol's closes in another order, on the days that have one."""
    prices = panel.prices.copy()
    for row, there in zip(prices, panel.present, strict=True):
        row[there, CLOSE] = np.random.default_rng(1).permutation(row[there, CLOSE])
    return replace(panel, prices=prices)


@pytest.mark.parametrize("change, words", [
    (lambda panel: moved(panel, 1, CLOSE), "closes of SYN001, SYN002, SYN003, SYN004, SYN005 and 1 more are not those"),
    (lambda panel: moved(panel, 1, CLOSE), "shifted by 1 day: that of 1 day later"),
    (lambda panel: moved(panel, -2, OPEN), "shifted by 2 days: that of 2 days earlier"),
    (lambda panel: moved(panel, 1, OPEN, CLOSE), "; the closes of"),
    (lambda panel: shuffled(panel), "closes of SYN001"),
    (lambda panel: replace(panel, prices=panel.prices * 1.001), "opens of SYN001"),
], ids=["later", "shift is named", "opens earlier", "both", "shuffled", "scaled"])
def test_labels_of_other_prices_are_caught_and_named(clean, change, words):
    prepared, session = clean
    check, sentence = leak(check_leaks(session, prepared, panel=change(prepared.panel)))
    share = float(sentence.partition(" on ")[2].partition("%")[0])
    assert check == "labels" and words in sentence and share > 90


def test_prices_of_one_symbol_that_were_changed_before_training_are_named(ready, small):
    ws, prepared = ready
    prices = prepared.panel.prices.copy()
    prices[3, 500:, OPEN] *= 1.01
    changed = replace(prepared.panel, prices=prices)
    check, sentence = leak(check_leaks(run(ws, prepared, small, changed), prepared, panel=changed))
    there = prepared.panel.present[3]
    assert check == "labels" and sentence == (
        f"The opens of SYN004 are not those of the price table on {there[500:].sum() / there.sum():.1%} of their days.")


# --- the test days


def with_fold(session, **last):
    """The session as if a range of its only fold had ended on another day."""
    fold = dict(session.folds[0])
    for name, day in last.items():
        fold[name] = fold[name] | {"last": f"{day:%Y-%m-%d}"}
    return replace(session, folds=[fold])


@pytest.mark.parametrize("purge, overlap", [(5, 1), (4, 2), (0, 6)])
def test_labels_that_reach_into_the_test_days_are_counted_by_day(clean, splits, purge, overlap):
    """A label reaches from the next open to that five days later: six days ahead."""
    prepared, session = clean
    days = prepared.panel.days
    test = int(days.searchsorted(np.datetime64(splits.test.first)))
    changed = with_fold(session, valid=days[test - 1 - purge])
    check, sentence = leak(check_leaks(changed, prepared))
    assert check == "test days" and sentence.startswith("The labels of the validation days of fold 1")
    assert f"the test days (from {splits.test.first}) by {overlap} day{'s' * (overlap > 1)}." in sentence


def test_training_on_the_test_days_is_refused(clean):
    prepared, session = clean
    with pytest.raises(DataError, match="the ranges must follow one another"):
        check_leaks(with_fold(session, train=prepared.panel.days[-1]), prepared)


def test_rebuilt_panel_is_the_prepared_one(clean):
    """What the features are compared with is made by the one function that prepare uses."""
    assert build_panel(clean[0].prices, clean[0].index).values.tobytes() == clean[0].panel.values.tobytes()
