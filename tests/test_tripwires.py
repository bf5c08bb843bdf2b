"""Tripwires by name: each plants a defect into a small made-up market, and something must notice it."""

from dataclasses import replace

import numpy as np
import pytest
from test_families import other_days, shuffled, skill_of
from test_leaks import leak, moved, own_days_later

from vnq_colab.data.forecast import make_labels
from vnq_colab.data.panel import build_panel
from vnq_colab.data.splits import yearly_folds
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery import leaks
from vnq_colab.delivery.leaks import check_leaks
from vnq_colab.evaluation.gates import MOST_CORRELATION
from vnq_colab.models.forecaster import Inputs


def test_shuffled_labels_give_trees_no_order(panel, folds, config):
    labels = make_labels(panel, config.task)
    for learnt, has_order in ((labels, True), (shuffled(labels), False)):
        skill, error = skill_of("trees", panel, folds, config, learnt)
        assert (abs(skill) > 2.6 * error) == has_order


def test_features_shifted_by_a_day_are_named(clean):
    prepared, session = clean
    values = own_days_later(prepared.panel, prepared.panel.values, 1)
    check, sentence = leak(check_leaks(session, replace(prepared, panel=replace(prepared.panel, values=values))))
    assert check == "features" and "Feature return_1 of SYN001" in sentence and "is that of the next day" in sentence


@pytest.mark.parametrize(("change", "words"), [
    (lambda rows, panel: rows.iloc[5:], "5 test days of"),
    (lambda rows, panel: rows.assign(date=panel.days[-1]).iloc[:1], "were not forecast"),
])
def test_missing_test_rows_are_found(clean, monkeypatch, change, words):
    prepared, session = clean
    whole = leaks.fold_scores(session, prepared.panel)
    tested = whole[whole["part"] == "test"]
    monkeypatch.setattr(leaks, "fold_scores", lambda *_: change(tested, prepared.panel))
    check, sentence = leak(check_leaks(session, prepared))
    assert check == "rows" and words in sentence and "were not forecast by trees" in sentence


def test_padded_rows_are_found(clean, monkeypatch):
    prepared, session = clean
    rows = leaks.fold_scores(session, prepared.panel)
    present = prepared.panel.present.copy()
    last = rows[rows["part"] == "test"].iloc[-1]
    present[prepared.panel.symbols.index(last["symbol"]), prepared.panel.days.get_loc(last["date"])] = False
    panel = replace(prepared.panel, present=present)
    rows = check_leaks(session, replace(prepared, panel=panel))[-1]
    assert f"1 test days of {last['symbol']} were forecast without a price by trees" in rows["sentence"]


def test_labels_with_tomorrow_in_them_are_named(clean):
    """Prices of a day later, which labels are made of."""
    prepared, session = clean
    later = moved(prepared.panel, 1, 0, 3)  # open and close
    check, sentence = leak(check_leaks(session, replace(prepared, panel=later)))
    assert check == "labels" and "opens of SYN001" in sentence and "are not those of the price table" in sentence


def test_labels_with_tomorrow_in_them_that_reach_the_features_are_too_good_to_be_true(config):
    """In a market without any signal."""
    panel = build_panel(synthetic_prices(8, 800, seed=92, signal=0.0))
    labels, told = make_labels(panel, config.task), panel.values.copy()
    told[:, :, 0] += labels.values.mean(axis=2)
    for values, is_told in ((panel.values, False), (told, True)):
        skill, _ = skill_of("trees", replace(panel, values=values), yearly_folds(panel.days), config, labels)
        assert (skill > MOST_CORRELATION) == is_told


@pytest.mark.parametrize("fit", [lambda panel, train: Inputs.fit(panel, train, "both"), Inputs.fit_own])
def test_scaler_over_all_days_is_told_from_one_of_training_days(panel, splits, fit):
    """Other features on the test days leave the inputs of the true ones as they are, to the bit."""
    train, test = splits.train.mask(panel.days), splits.test.mask(panel.days)
    rows, other = np.arange(len(panel.symbols)), other_days(panel, test)

    def same_inputs(days):
        return np.array_equal(*(fit(one, days).of(panel, rows) for one in (panel, other)))

    assert same_inputs(train) and not same_inputs(np.ones_like(train))
