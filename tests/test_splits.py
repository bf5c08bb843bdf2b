"""Folds are checked against the trading days they are of: order, and a purge that holds in sessions."""

from dataclasses import replace

import pytest

from vnq_colab.data.splits import DayRange, check_folds, yearly_folds
from vnq_colab.errors import DataError


def test_folds_of_a_market_are_sound(panel):
    check_folds(yearly_folds(panel.days), panel.days)


def test_training_up_to_the_day_before_validation_is_refused(panel, splits):
    before = panel.days[panel.days.get_loc(splits.valid.first) - 1]
    reaching = replace(splits, train=DayRange(splits.train.first, f"{before:%Y-%m-%d}"))
    with pytest.raises(DataError, match="0 trading days lie between its ranges where labels need 6"):
        check_folds([reaching], panel.days)


def test_purge_counts_trading_days_not_calendar_days(panel, splits):
    few = panel.days.delete(slice(panel.days.get_loc(splits.valid.last) + 1, panel.days.get_loc(splits.test.first)))
    with pytest.raises(DataError, match="0 trading days"):
        check_folds([splits], few)


def test_days_that_the_data_does_not_have_are_refused(panel, splits):
    with pytest.raises(DataError, match="a day that the data does not have"):
        check_folds([replace(splits, test=DayRange(splits.test.first, "2031-01-01"))], panel.days)


def test_test_days_of_two_folds_may_not_overlap(panel, splits):
    with pytest.raises(DataError, match="overlap or are out of order"):
        check_folds([splits, splits], panel.days)
