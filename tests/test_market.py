import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from vnq_colab.data.market import (
    EXCHANGES,
    RULES,
    VN102,
    VN_RULES,
    MarketRules,
    count_sessions,
    is_session,
    next_sessions,
    price_limits,
    tick,
    trading_days,
)


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
    days = pd.DatetimeIndex(["2015-06-01", "2016-01-04", "2022-08-26", "2022-08-29"])
    assert VN_RULES.sellable_after(days).tolist() == [4, 3, 3, 3]
    assert VN_RULES.sellable_after(days, "close").tolist() == [4, 3, 3, 2]  # that of T+2


def test_tick_grows_with_the_price_on_hose_only():
    prices = np.array([9_990.0, 10_000.0, 49_950.0, 50_000.0])
    assert tick(prices, "HOSE").tolist() == [10, 50, 50, 100]
    assert tick(prices, "HNX").tolist() == [100] * 4
    assert tick(prices, np.array(["HOSE", "UPCOM", "", "HNX"])).tolist() == [10, 100, 50, 100]


def test_band_of_each_row_goes_by_its_own_exchange_and_day():
    days = pd.DatetimeIndex(["2020-06-01", "2020-06-01", "2012-06-01", "2020-06-01"])
    exchanges = np.array(["HNX", "UPCOM", "HOSE", ""])
    assert VN_RULES.band(exchanges, days).tolist() == [0.10, 0.15, 0.05, 0.07]
    first = np.array([True, False, True, True])
    assert VN_RULES.band(exchanges, days, first_day=first).tolist() == [0.30, 0.15, 0.20, 0.20]
    assert VN_RULES.band("UPCOM", days, first_day=True).tolist() == [0.40] * 4


def test_rules_are_dated_in_order_and_begin_with_hose():
    for exchanges in RULES.values():
        assert next(iter(exchanges)) == "HOSE" and set(exchanges) <= set(EXCHANGES)
        assert all(pd.DatetimeIndex(dated).is_monotonic_increasing for dated in exchanges.values())


def test_trading_days_are_the_union_of_all_symbols():
    prices = pd.DataFrame({"symbol": ["A", "A", "B"],
                           "date": pd.to_datetime(["2021-03-02", "2021-03-01", "2021-03-04"])})
    assert trading_days(prices).strftime("%d").tolist() == ["01", "02", "04"]


def test_lots_are_dated_unless_another_one_is_asked_for():
    days = pd.DatetimeIndex(["2020-12-31", "2021-01-04"])
    assert VN_RULES.lots("HOSE", days).tolist() == [10, 100]
    assert VN_RULES.lots(np.array(["HNX", "UPCOM"]), days).tolist() == [100, 100]
    assert MarketRules(lot=1).lots("HOSE", days).tolist() == [1, 1]


@pytest.mark.parametrize("exchange, reference, band, ceiling, floor", [
    ("HOSE", 10_030, 0.07, 10_700, 9_330),  # 10,732.1 down to 50; 9,327.9 up to 10
    ("HOSE", 25_000, 0.07, 26_750, 23_250),
    ("HOSE", 48_000, 0.07, 51_300, 44_650),  # 51,360 down to 100; 44,640 up to 50
    ("HOSE", 9_400, 0.07, 10_050, 8_750),  # 10,058 down to 50; 8,742 up to 10
    ("HNX", 12_300, 0.10, 13_500, 11_100),
    ("UPCOM", 500, 0.15, 600, 400),  # 75 is less than a tick of 100: one tick all the same
])
def test_price_limits_are_the_ends_of_the_band_on_a_tick_inside_it(exchange, reference, band, ceiling, floor):
    assert price_limits(np.array([reference]), np.array([band]), exchange) == (np.array([ceiling]), np.array([floor]))


def test_price_limits_of_an_unknown_reference_are_unknown():
    assert np.isnan(price_limits(np.array([np.nan]), np.array([0.07]), "HOSE")).all()


def test_sessions_ahead_leave_out_weekends_fixed_holidays_and_tet():
    def ahead(day, n):
        return [f"{found:%m-%d}" for found in next_sessions(pd.Timestamp(day), n)]

    assert ahead("2026-11-27", 2) == ["11-30", "12-01"]  # a Friday
    assert ahead("2025-12-31", 1) == ["01-02"] and ahead("2027-02-03", 2) == ["02-11", "02-12"]
    assert is_session(pd.DatetimeIndex(["2026-11-27", "2026-11-28", "2026-09-02", "2026-02-17"])).tolist() == [
        True, False, False, False]
    assert ahead("2025-04-29", 2) == ["05-05", "05-06"] and ahead("2025-01-24", 1) == ["02-03"]


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared price data is not here")
def test_sessions_of_2016_to_2025_are_the_days_of_the_data():
    days = pd.DatetimeIndex(np.unique(pd.read_parquet(SHARED_DATA / "vn_daily.parquet", columns=["date"])["date"]))
    days = days[days >= "2016-01-04"]
    every = pd.date_range(days[0], days[-1])
    assert every[is_session(every)].tolist() == days.tolist()
    assert count_sessions(days[0], days[-1]) == len(days) - 1
