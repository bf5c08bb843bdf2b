import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.task import Splits, split_days, yearly_folds
from vnq_colab.errors import DataError

DAYS = pd.bdate_range("2018-01-01", "2024-02-20")  # 2024 has too few days to be judged by itself


def places(splits):
    """Where the training, validation and test days stand."""
    return (np.flatnonzero(part.mask(DAYS)) for part in (splits.train, splits.valid, splits.test))


def test_fold_is_tested_on_a_year_and_validated_on_a_fifth_before_it():
    folds = yearly_folds(DAYS)
    assert [fold.test.first[:4] for fold in folds] == ["2020", "2021", "2022", "2023"]
    for fold in folds:
        train, valid, test = places(fold)
        assert train[0] == 0 and len(train) >= 400
        assert len(valid) + fold.purge_days == min(250, test[0] // 5)
    assert folds[-1].test.last == "2024-02-20"  # the beginning of a year belongs to the year before


def test_folds_are_the_newest_that_are_asked_for_and_follow_one_another():
    folds = yearly_folds(DAYS)
    assert yearly_folds(DAYS, 2) == folds[-2:]
    assert yearly_folds(DAYS, 7) == folds  # a market too short for the folds asked gets as many as it has
    tested = np.concatenate([fold.test.mask(DAYS).nonzero()[0] for fold in folds])
    np.testing.assert_array_equal(tested, np.arange(tested[0], len(DAYS)))


@pytest.mark.parametrize("purge", [6, 12])
def test_no_label_reaches_across_a_border(purge):
    for fold in yearly_folds(DAYS, purge_days=purge):
        train, valid, test = places(fold)
        assert train[-1] + 6 < valid[0] and valid[-1] + 6 < test[0]  # the label of the next open is the longest
        assert valid[0] - train[-1] == purge + 1 == test[0] - valid[-1]


@pytest.mark.parametrize("folds", [yearly_folds(DAYS), yearly_folds(DAYS, purge_days=12)], ids=["6", "12"])
def test_purge_leaves_nothing_that_purgedcv_would_drop(folds):
    """A label begins at the close of its day and ends at the open six days later, which is the longest there is."""
    theirs = pytest.importorskip("purgedcv", reason="purgedcv is not installed: pip install purgedcv")
    close, last_open = (DAYS + pd.Timedelta(hours=hour) for hour in (15, 9))
    ends = last_open[6:].append(pd.bdate_range(DAYS[-1], periods=7)[1:] + pd.Timedelta(hours=9))
    for fold in folds:
        train, valid, test = places(fold)
        for before, later in ((train, np.append(valid, test)), (valid, test)):
            kept = theirs.purge(before, later, close, ends)
            np.testing.assert_array_equal(kept, before)
            unpurged = theirs.purge(np.arange(later[0]), later, close, ends)  # without ours
            assert unpurged[-1] == later[0] - 6 == before[-1] + fold.purge_days - 5  # a day is left over


def test_borders_can_be_named():
    splits = split_days(DAYS, valid_from="2022-01-01", test_from="2023-01-01", test_to="2023-06-30")
    assert splits.valid.first == "2022-01-03"
    assert (splits.test.first, splits.test.last) == ("2023-01-02", "2023-06-30")


def test_splits_survive_json():
    splits = split_days(DAYS, "2022-01-01", "2023-01-01")
    assert Splits.from_dict(splits.to_dict()) == splits


@pytest.mark.parametrize("arguments, message", [
    ({"purge_days": 5}, "at least 6 days purged"),
    ({"valid_from": "2017-01-01"}, "no train days"),
    ({"test_from": "2030-01-01"}, "no test days"),
    ({"test_from": "2022-01-05"}, "no valid days"),
    ({"test_from": "1/2/2023"}, "is not a date"),
])
def test_impossible_split_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        split_days(DAYS, **{"valid_from": "2022-01-01", "test_from": "2023-01-01"} | arguments)


@pytest.mark.parametrize("n_days, folds, message", [(450, None, "do not make a fold"), (1500, 0, "at least one year")])
def test_market_without_a_fold_is_refused(n_days, folds, message):
    with pytest.raises(DataError, match=message):
        yearly_folds(DAYS[:n_days], folds)
