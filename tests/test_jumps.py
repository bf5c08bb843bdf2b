import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from tests.test_cleaning import cleaned
from vnq_colab.data.cleaning import clean_prices


def series(closes, symbol="HPG", volume=1_000.0, first="2021-03-01", **columns):
    """One flat candle a weekday at each close."""
    days = pd.bdate_range(first, periods=len(closes)).astype("datetime64[ns]")
    closes = np.array(closes, dtype=float)
    return pd.DataFrame({"symbol": symbol, "date": days, "open": closes, "high": closes, "low": closes,
                         "close": closes, "volume": volume} | columns)


def test_split_rescales_the_rows_after_it_and_their_volume():
    clean, found = cleaned(series([20_000, 20_400, 10_300, 10_400]))
    assert clean["close"].tolist() == [20_000, 20_400, 20_600, 20_800]
    assert clean["volume"].tolist() == [1_000, 1_000, 500, 500]
    split = found["unadjusted corporate action"]
    assert (split.rows, split.treatment) == (1, "repaired")
    assert split.example == ("HPG 2021-03-03: close 20,400 to 10,300 [VND], as after a split or a dividend; "
                             "from there on prices ×2")


BLOCK = [20_000.0] * 7  # four of them are not yet a stale feed
ACTION, UNIT, BEYOND = "unadjusted corporate action", "unit jump", "move beyond any band"


@pytest.mark.parametrize("closes, expected, issue, n_rows", [
    ([24_000, 12_000, 8_000, 8_080], [24_000, 24_000, 24_000, 24_240], ACTION, 2),  # splits multiply
    ([20_000, 10_000, 20_200, 20_300], [20_000, 20_000, 20_200, 20_300], ACTION, 2),  # a bad print comes back
    ([*BLOCK, *np.divide(BLOCK, 2), *BLOCK, *np.divide(BLOCK, 2)], BLOCK * 4, ACTION, 3),  # two bases in turn
    ([10_000, 20_000, 20_200, 10_100, 10_000], [10_000, 20_000, 20_200, 10_100, 10_000], BEYOND, 2),  # up: no split
    ([20.5, 20.4, 20_600, 20_700, 20.8], [20.5, 20.4, 20.6, 20.7, 20.8], UNIT, 2),
    ([20_500, 20.4, 20_600], [20_500, 20_400, 20_600], UNIT, 1),
    ([1, 1_000, 999_000], [1, 1, 0.999], UNIT, 2),
])
def test_jump_is_undone_from_its_day_on_within_its_symbol(closes, expected, issue, n_rows):
    other = [5_000.0] * len(closes)
    clean, found = cleaned(pd.concat([series(closes), series(other, symbol="VNM")]))
    assert clean["close"].tolist() == pytest.approx([*expected, *other], rel=1e-12)
    volume = np.ceil(1_000 * np.divide(closes, expected)) if issue == ACTION else 1_000
    assert (clean["volume"][: len(closes)] == volume).all() and (clean["volume"][len(closes):] == 1_000).all()
    assert list(found) == [issue] and found[issue].rows == n_rows
    assert found[issue].treatment == ("kept" if issue == BEYOND else "repaired")


def test_dividend_of_no_simple_ratio_is_closed_at_the_open():
    table = series([20_000, 14_200, 14_600])
    table.loc[1, ["high", "close"]] = 14_500.0  # opens at 14,200: 0.71 of the close before
    clean, _ = cleaned(table)
    assert clean["open"].tolist() == pytest.approx([20_000, 20_000, 14_600 / 0.71])
    assert clean["close"].iloc[1] == pytest.approx(14_500 / 0.71)


def test_adjusted_close_that_jumps_alone_is_explained_by_the_raw_one():
    table = series([10_000, 10_100, 11_110, 11_000], raw_close=[20_000.0, 20_200.0, 20_000.0, 19_800.0])
    table.loc[2:, ["open", "high", "low", "close"]] *= 1.8  # from here on another basis
    clean, found = cleaned(table)
    assert clean["close"].tolist() == pytest.approx([10_000, 10_100, 10_000, 9_900.990], rel=1e-6)
    assert clean["volume"].tolist() == [1_000] * 4 and clean["raw_close"].tolist() == [20_000, 20_200, 20_000, 19_800]
    assert "its raw close did not jump" in found["unadjusted corporate action"].example


def test_range_too_wide_for_a_day_is_no_split():
    table = series([20_000, 10_000, 10_000])
    table.loc[1, "high"] = 14_000.0  # 40 % above the low
    clean, found = cleaned(table)
    assert clean["close"].tolist() == [20_000, 10_000, 10_000] and "move beyond any band" in found


def test_band_of_the_first_day_holds_after_25_sessions_without_a_trade():
    volume = np.r_[1_000.0, np.zeros(26), 100.0]
    halted = series([10_000] * 27 + [6_100], volume=volume)
    assert set(cleaned(halted)[1]) == {"day without trades"}
    _, found = cleaned(series([10_000] * 20 + [6_100], volume=np.r_[1_000.0, np.zeros(19), 100.0]))
    assert "unadjusted corporate action" in found


def test_band_compounds_over_days_without_a_row():
    calendar = series([9_000] * 8, symbol="AAA")
    gap = series([10_000, 0, 0, 0, 6_500, 6_500], symbol="HPG").query("close > 0")
    clean, found = cleaned(pd.concat([calendar, gap]))
    assert found == {} and clean["close"].iloc[-1] == 6_500


def test_band_of_hose_counts_once_a_year_has_kept_to_it():
    quiet = [20_000 + 100 * (day % 3) for day in range(200)]
    clean, found = cleaned(series([*quiet, 18_200, 18_300]))
    assert clean["close"].iloc[-2:].tolist() == pytest.approx([20_020, 20_130])
    assert "×1.1" in found["unadjusted corporate action"].example
    wild = [*quiet[:100], 21_900, *quiet[100:]]  # +9 %: not a stock of HOSE
    assert cleaned(series([*wild, 18_200, 18_300]))[1] == {}


@pytest.mark.parametrize("exchange, fall", [("UPCOM", 0.137), ("HNX", 0.095)])
def test_limit_down_day_of_a_calm_stock_with_a_wider_band_is_no_dividend(exchange, fall):
    quiet = [20_000 + 100 * (day % 3) for day in range(300)]
    closes = [*quiet, *(round(close * (1 - fall), -2) for close in quiet[:20])]
    clean, found = cleaned(series(closes, exchange=exchange))
    assert clean["close"].tolist() == closes and found == {}
    assert cleaned(series(closes, exchange="HOSE"))[0]["close"].iloc[-1] > 19_000, "below HOSE's floor: a dividend"
    halved = [*closes, *(round(close / 2, -2) for close in closes[-20:])]
    assert cleaned(series(halved, exchange=exchange))[0]["close"].iloc[-1] > 16_000, "its splits are still found"


def test_split_can_be_kept():
    clean, found = cleaned(series([20_000, 20_000, 10_000, 10_000]), treatments={"unadjusted_action": "keep"})
    assert clean["close"].tolist() == [20_000, 20_000, 10_000, 10_000]
    assert found["unadjusted corporate action"].treatment == "kept"


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared price data is not here")
def test_adjusted_real_prices_raise_no_false_alarm():
    raw = pd.read_parquet(SHARED_DATA / "vn_daily.parquet")
    clean, found = cleaned(raw)
    assert {item.treatment for item in found.values()} == {"kept"} and len(clean) == len(raw) == 514_844
    assert found["move beyond any band"].rows < 10
    assert (clean["date"] == "2018-01-23").sum() == 51, "HOSE's halt is a trading day of the others"


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared price data is not here")
def test_unadjusted_real_prices_are_repaired_where_the_adjusted_close_says_so():
    tables = []
    for path in sorted((SHARED_DATA / "unadjusted").glob("*.csv")):
        table = pd.read_csv(path, index_col=0).rename(columns=str.lower)
        table["volume"] = pd.to_numeric(table["volume"], errors="coerce").fillna(0)
        tables.append(table.assign(symbol=path.stem, date=pd.to_datetime(table["date"], dayfirst=True)))
    raw = pd.concat(tables, ignore_index=True).sort_values(["symbol", "date"], ignore_index=True)
    clean, _ = clean_prices(raw.drop(columns="adj close"), on_bad_rows="treat")
    assert clean["date"].equals(raw["date"].astype(clean["date"].dtype))
    before = raw.groupby("symbol").shift()
    factor = (raw["close"] / before["close"]) / (raw["adj close"] / before["adj close"])  # 1 without an event
    doubt = 50 / raw["adj close"] + 50 / before["adj close"]  # the adjusted close is rounded to 100 VND
    scale = clean["close"] / raw["close"]
    repaired = (scale / scale.groupby(raw["symbol"]).shift() - 1).abs() > 1e-9
    assert repaired[factor < 0.85 - doubt].all() and (factor < 0.85 - doubt).sum() >= 35
    assert not repaired[factor > 0.95].any()


def test_hole_in_the_data_is_a_gap_and_no_dividend():
    """A month without any row, of any stock: what fell meanwhile fell within as many bands."""
    days = pd.bdate_range("2020-01-02", periods=60)
    table = pd.concat([series([20_000.0] * 60, symbol=name, first="2020-01-02") for name in ("AAA", "BBB")])
    table.loc[table["date"] >= days[45], ["open", "high", "low", "close"]] *= 0.6
    _, found = cleaned(table[(table["date"] < days[25]) | (table["date"] >= days[45])])
    assert "unadjusted corporate action" not in found
    assert found["over 5 trading days without a row or trade"].rows == 2
