import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from vnq_colab.data.market import VN102, VN_RULES, tick


def test_universe_is_102_names_in_order():
    assert len(VN102) == len(set(VN102)) == 102
    assert list(VN102) == sorted(VN102)


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared price data is not here")
def test_universe_is_the_shared_list():
    assert list(VN102) == (SHARED_DATA / "symbols_102.txt").read_text().split()


@pytest.mark.parametrize("exchange, day, band", [
    ("HOSE", "2012-06-01", 0.05), ("HOSE", "2020-06-01", 0.07), ("HNX", "2020-06-01", 0.10),
    ("UPCOM", "2014-01-02", 0.10), ("UPCOM", "2020-06-01", 0.15), ("XETRA", "2020-06-01", 0.07),
])
def test_band_is_of_the_exchange_and_the_date(exchange, day, band):
    assert VN_RULES.band(exchange, pd.DatetimeIndex([day])).tolist() == [band]


def test_shares_can_be_sold_when_they_have_arrived():
    days = pd.DatetimeIndex(["2015-06-01", "2016-01-04", "2023-01-03"])
    assert VN_RULES.sellable_after(days).tolist() == [4, 3, 3]


def test_tick_grows_with_the_price_on_hose_only():
    prices = np.array([9_990.0, 10_000.0, 49_950.0, 50_000.0])
    assert tick(prices, "HOSE").tolist() == [10, 50, 50, 100]
    assert tick(prices, "HNX").tolist() == [100] * 4
