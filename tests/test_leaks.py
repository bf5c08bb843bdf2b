"""The review before training and the leak checks after it: each check has one sentence, of what is wrong or of all."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vnq_colab.data.features import FEATURES
from vnq_colab.data.panel import CLOSE, OPEN, build_panel
from vnq_colab.data.prepared import PROOF, prepare
from vnq_colab.delivery.leaks import PICTURES, check_leaks, review
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import SessionError
from vnq_colab.files import write_json
from vnq_colab.layout import Workspace
from vnq_colab.training.trainer import train


def leak(checks):
    """The sentence of the one check that failed."""
    assert [check["check"] for check in checks] == ["features", "labels", "test days", "rows"]
    assert sum(not check["passed"] for check in checks) == 1, checks
    return next(tuple(check.values())[::2] for check in checks if not check["passed"])


def own_days_later(panel, values, days):
    """Each symbol's series, moved so that every day shows what its own day `days` later should show."""
    moved = values.copy()
    for row, there in enumerate(panel.present):
        moved[row, there] = np.roll(values[row, there], -days, axis=0)
    return moved


def moved(panel, days, *columns):
    """The panel with prices that every symbol has only `days` of its own days later."""
    prices = panel.prices.copy()
    for column in columns:
        prices[:, :, column] = own_days_later(panel, prices[:, :, column], days)
    return replace(panel, prices=prices)


def test_review_draws_four_pictures_and_proves_up_to_the_last_training_day(tmp_path, prices):
    ws = Workspace(tmp_path)
    prepared = prepare(ws, prices)
    before = (prepared.folder / "panel.parquet").stat().st_mtime_ns
    found = review(prepared)
    stored = json.loads((prepared.folder / PROOF).read_text(encoding="utf-8"))
    assert stored["passed"] and stored["at"] == prepared.folds[-1].train.last == found.proof.at
    assert all((prepared.folder / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    assert str(prepared.folder) in repr(found)
    prepare(ws, prices)
    assert (prepared.folder / "panel.parquet").stat().st_mtime_ns == before, "the set is whole after its review"


def test_clean_run_passes_every_check(clean):
    prepared, session = clean
    checks = check_leaks(session, prepared)
    assert [check["check"] for check in checks] == ["features", "labels", "test days", "rows"]
    assert all(check["passed"] for check in checks)
    assert checks[0]["sentence"].startswith("All 50 features of 6 symbols are those of the prices")
    assert checks[2] == {"check": "test days", "passed": True,
                                  "sentence": "No training or validation label reaches into the test days."}


def test_other_data_is_refused(clean, prices, tmp_path):
    other = prepare(Workspace(tmp_path), prices[prices["symbol"] != "SYN006"])
    with pytest.raises(SessionError, match="was trained on data"):
        validate(clean[1], prepared=other)


# --- features


def test_feature_of_the_next_day_is_named_although_the_data_id_is_the_old_one(tmp_path, prices, small):
    """The stored panel is changed before training; its file, its run and its networks agree with one another."""
    prepared = prepare(Workspace(tmp_path), prices)
    place, values = prepared.panel.feature_names.index("rsi_14"), prepared.panel.values.copy()
    values[:, :, place] = own_days_later(prepared.panel, values[:, :, place], 1)
    changed = replace(prepared, panel=replace(prepared.panel, values=values))
    check, sentence = leak(check_leaks(train(Workspace(tmp_path), changed.panel, small, quiet=True), changed))
    assert check == "features" and sentence.startswith("Feature rsi_14 of SYN001, SYN002, SYN003, SYN004, SYN005 and 1 "
                                                       "more is that of the next day, first on")


def test_feature_that_differs_is_named_with_its_first_day(clean):
    prepared, session = clean
    values, day = prepared.panel.values.copy(), prepared.panel.days[380]
    values[1, 380:, 7] += 0.5
    check, sentence = leak(check_leaks(session, replace(prepared, panel=replace(prepared.panel, values=values))))
    assert check == "features" and sentence.startswith(
        f"Feature {prepared.panel.feature_names[7]} of SYN002 is not that of the prices, first on {day:%Y-%m-%d}")


def test_computation_that_looks_ahead_is_named_though_panel_and_prices_agree(tmp_path, prices, small, monkeypatch):
    def peeking(history):
        return np.hstack([history.returns[:, 1:], np.full((len(history.returns), 1), np.nan)])

    monkeypatch.setitem(FEATURES, "return_1", replace(FEATURES["return_1"], compute=peeking))
    ws = Workspace(tmp_path)
    prepared = prepare(ws, prices)
    check, sentence = leak(check_leaks(train(ws, prepared.panel, small, quiet=True), prepared))
    assert check == "features" and "changes with later prices" in sentence and "feature return_1" in sentence


def test_failed_proof_and_a_panel_of_other_days_are_said(clean):
    prepared, session = clean
    path = prepared.folder / PROOF
    write_json(path, {"passed": False})
    check, sentence = leak(check_leaks(session, prepared))
    path.unlink()
    assert check == "features" and PROOF in sentence
    later = replace(prepared.panel, days=prepared.panel.days + np.timedelta64(1, "D"))
    found = {check["check"]: check["sentence"] for check in check_leaks(session, replace(prepared, panel=later))}
    assert "is not one of its prices" in found["features"]


def test_rebuilt_panel_is_the_prepared_one(clean):
    """What the features are compared with is made by the one function that prepare uses."""
    assert build_panel(clean[0].prices, clean[0].index).values.tobytes() == clean[0].panel.values.tobytes()


# --- labels


def shuffled(panel):
    """Each symbol's closes in another order, on the days that have one."""
    prices = panel.prices.copy()
    for row, there in zip(prices, panel.present, strict=True):
        row[there, CLOSE] = np.random.default_rng(1).permutation(row[there, CLOSE])
    return replace(panel, prices=prices)


def one_changed(panel):
    prices = panel.prices.copy()
    prices[3, 500:, OPEN] *= 1.01
    return replace(panel, prices=prices)


@pytest.mark.parametrize("change, words, least", [
    (lambda panel: moved(panel, 1, CLOSE), "closes of SYN001, SYN002, SYN003, SYN004, SYN005 and 1 more are not", 90),
    (lambda panel: moved(panel, -2, OPEN), "opens of SYN001", 90),
    (shuffled, "closes of SYN001", 90), (one_changed, "opens of SYN004 are not those of the price table on", 20),
    (lambda panel: replace(panel, prices=panel.prices * 1.001), "opens of SYN001", 90),
], ids=["later", "opens earlier", "shuffled", "one", "scaled"])
def test_labels_of_other_prices_are_caught_and_named(clean, change, words, least):
    prepared, session = clean
    check, sentence = leak(check_leaks(session, replace(prepared, panel=change(prepared.panel))))
    assert check == "labels" and words in sentence
    assert float(sentence.partition(" on ")[2].partition("%")[0]) > least


# --- the test days


def with_fold(session, **last):
    """The session as if a range of its only fold had ended on another day."""
    fold = dict(session.folds[0])
    for name, day in last.items():
        fold[name] = fold[name] | {"last": f"{day:%Y-%m-%d}"}
    return replace(session, folds=[fold])


@pytest.mark.parametrize("purge", [5, 4, 0])
def test_labels_that_reach_into_the_test_days_are_counted_by_day(clean, splits, purge):
    """A label reaches from the next open to that five days later: six days ahead."""
    prepared, session = clean
    days = prepared.panel.days
    test = int(days.searchsorted(np.datetime64(splits.test.first)))
    changed = with_fold(session, valid=days[test - 1 - purge])
    check, sentence = leak(check_leaks(changed, prepared))
    assert check == "test days" and f"{purge} trading days lie between its ranges where labels need 6" in sentence


def test_training_on_the_test_days_is_named(clean):
    prepared, session = clean
    check, sentence = leak(check_leaks(with_fold(session, train=prepared.panel.days[-1]), prepared))
    assert check == "test days" and "the ranges must follow one another" in sentence
