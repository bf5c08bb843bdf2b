import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.splits import Splits, split_days
from vnq_colab.errors import DataError

DAYS = pd.bdate_range("2020-01-01", periods=1000)


def test_last_fifth_is_held_out_half_and_half():
    splits = split_days(DAYS)
    sizes = [part.mask(DAYS).sum() for part in (splits.train, splits.valid, splits.test)]
    assert sizes == [795, 95, 100]


@pytest.mark.parametrize("purge", [5, 12])
def test_no_label_reaches_across_a_border(purge):
    splits = split_days(DAYS, purge_days=purge)
    train, valid, test = (np.flatnonzero(part.mask(DAYS)) for part in (splits.train, splits.valid, splits.test))
    assert train[-1] + 5 < valid[0] and valid[-1] + 5 < test[0]
    assert valid[0] - train[-1] == purge + 1 == test[0] - valid[-1]


def test_borders_can_be_named():
    splits = split_days(DAYS, valid_from="2022-01-01", test_from="2023-01-01")
    assert splits.valid.first == "2022-01-03" and splits.test.first == "2023-01-02"


def test_splits_survive_json():
    splits = split_days(DAYS)
    assert Splits.from_dict(splits.to_dict()) == splits


@pytest.mark.parametrize("arguments, message", [
    ({"purge_days": 4}, "at least the horizon"),
    ({"valid_from": "2019-01-01"}, "no train days"),
    ({"test_from": "2030-01-01"}, "no test days"),
])
def test_impossible_split_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        split_days(DAYS, **arguments)
