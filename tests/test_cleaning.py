import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.findings import CleaningReport
from vnq_colab.errors import DataError
from vnq_colab.files import checked

ROW = {"symbol": "HPG", "date": pd.Timestamp("2021-03-15"), "open": 41_000.0, "high": 42_000.0, "low": 40_000.0,
       "close": 41_500.0, "volume": 1000}


def table(*changes):
    """A good row, then one row a day later for each change."""
    rows = [ROW] + [ROW | {"date": ROW["date"] + pd.Timedelta(days=day + 1)} | change
                    for day, change in enumerate(changes)]
    return pd.DataFrame(rows)


def cleaned(table, **options):
    """The clean table, and the findings by issue; where an issue has two, the last."""
    clean, report = clean_prices(table, **options)
    return clean, {item.issue: item for item in report.findings}


@pytest.mark.parametrize("change, words", [
    ({"high": 39_000.0}, "high 39,000 < low 40,000 [VND]"),
    ({"close": 0.0}, "close 0 [VND]"),
    ({"open": -5.0}, "open -5, high 42,000"),
    ({"close": float("nan")}, "price missing, zero, negative or beyond 1e9"),
    ({"volume": -1}, "volume missing, negative or beyond 1e15 (-1 [shares])"),
    ({"volume": 1e19}, "(1e+19 [shares])"),
    ({"high": 1e300}, "high 1e+300"),
    ({"close": 43_000.0}, "open or close outside [low, high]"),
    ({"date": ROW["date"]}, "duplicate row for a day"),
])
def test_each_bad_row_is_named_or_dropped(change, words):
    with pytest.raises(DataError) as caught:
        clean_prices(table(change))
    assert "HPG 2021-03-1" in str(caught.value) and words in str(caught.value)
    clean, report = clean_prices(table(change), on_bad_rows="drop")
    assert len(clean) == 1
    assert [(item.rows, item.treatment) for item in report.findings] == [(1, "dropped")]


@pytest.mark.parametrize("change, candle", [
    ({"open": 0.0, "high": 0.0, "low": 0.0, "volume": 0}, (41_500, 41_500, 41_500, 41_500)),
    ({"open": 0.0}, (41_500, 42_000, 40_000, 41_500)),
    ({"open": float("nan"), "low": 0.0}, (41_500, 42_000, 41_500, 41_500)),
    ({"high": -1.0}, (41_000, 41_500, 40_000, 41_500)),
    ({"high": 2e9}, (41_000, 41_500, 40_000, 41_500)),
    ({"open": 39_000.0}, (40_000, 42_000, 40_000, 41_500)),
    ({"open": 43_000.0}, (42_000, 42_000, 40_000, 41_500)),
    ({"close": 43_000.0}, (41_000, 43_000, 40_000, 43_000)),
    ({"close": 43_000.0, "volume": 0}, (43_000, 43_000, 43_000, 43_000)),
    ({"open": 43_000.0, "close": 44_000.0}, (43_000, 44_000, 40_000, 44_000)),
    ({"high": 40_000.0, "low": 42_000.0}, (41_000, 42_000, 40_000, 41_500)),
    ({"high": 39_000.0, "volume": 0}, (41_500, 41_500, 41_500, 41_500)),
    ({"open": 1_700.0, "high": 1_700.0, "low": 16_960.0, "close": 1_700.0, "volume": 0}, (1_700,) * 4),
])
def test_treatment_repairs_what_the_row_itself_can_tell(change, candle):
    clean, report = clean_prices(table(change), on_bad_rows="treat")
    assert tuple(clean.loc[1, ["open", "high", "low", "close"]]) == candle
    assert clean["volume"].iat[1] == change.get("volume", 1000)
    assert {item.treatment for item in report.findings} <= {"repaired", "kept"}
    again, second = clean_prices(clean)
    pd.testing.assert_frame_equal(again, clean, check_exact=True)
    assert {item.treatment for item in second.findings} <= {"kept"}


@pytest.mark.parametrize("change", [
    {"close": 0.0}, {"open": 0.0, "high": 0.0, "low": 0.0, "close": 0.0}, {"close": 2e9}, {"high": 39_000.0},
    {"close": 70_000.0}, {"close": 41.5}])
def test_treatment_drops_what_nothing_can_repair(change):
    clean, report = clean_prices(table(change), on_bad_rows="treat")
    assert len(clean) == 1 and [(item.rows, item.treatment) for item in report.findings] == [(1, "dropped")]


@pytest.mark.parametrize("volume", [float("nan"), -100.0, 1e16])
def test_unknown_volume_becomes_none(volume):
    clean, report = clean_prices(table({"volume": volume}), on_bad_rows="treat")
    assert clean["volume"].tolist() == [1000, 0]
    assert [(item.issue, item.treatment) for item in report.findings] == [
        ("volume missing, negative or beyond 1e15", "repaired"), ("day without trades", "kept")]


def test_of_duplicates_the_last_sound_one_stays():
    same = {"date": ROW["date"]}
    clean, report = clean_prices(table(same, same | {"close": 41_700.0}, same | {"open": 0.0}), on_bad_rows="treat")
    assert clean["close"].tolist() == [41_700.0]
    assert {item.issue: item.rows for item in report.findings if item.treatment == "dropped"} == {
        "conflicting rows for a day": 3}
    assert clean_prices(table(same | {"close": 41_700.0}), on_bad_rows="drop")[0]["close"].tolist() == [41_700.0]
    clean, report = clean_prices(table(same | {"close": float("nan")}), on_bad_rows="drop")
    assert clean["close"].tolist() == [41_500.0], "a good row survives its bad twin"
    assert [item.issue for item in report.findings] == ["price missing, zero, negative or beyond 1e9"]


def test_nothing_left_is_an_error():
    with pytest.raises(DataError, match="no usable row is left of 1"):
        clean_prices(table().assign(close=0.0), on_bad_rows="drop")


def test_report_survives_json():
    _, report = clean_prices(table({"volume": 0}))
    again = checked(Path("cleaning.json"), CleaningReport, json.loads(json.dumps(asdict(report))))
    assert again == report
    assert "2 of 2 rows kept" in repr(again) and "2 of 2 rows kept" in again._repr_html_()


def market(n_symbols=8, n_days=40, **columns):
    """Sound rows of several symbols on the weekdays from 2021-03-01."""
    days = pd.bdate_range("2021-03-01", periods=n_days).astype("datetime64[ns]")
    close = 20_000.0 + 100 * (np.arange(n_days)[:, None] % 3) + 1_000 * np.arange(n_symbols)
    close = close.T.ravel()
    return pd.DataFrame({"symbol": np.repeat([f"S{number:02d}" for number in range(n_symbols)], n_days),
                         "date": np.tile(days, n_symbols), "open": close, "high": close + 100, "low": close - 100,
                         "close": close, "volume": 1_000.0} | columns)


def fill(table, day):
    """Makes a day one that a vendor filled in: the rows of the day before without trades."""
    rows = table["date"] == day
    table.loc[rows, ["open", "high", "low", "close"]] = table.shift().loc[rows, ["open", "high", "low", "close"]]
    table.loc[rows, "volume"] = 0.0


def test_weekend_rows_are_dropped_even_from_a_table_that_promises_to_be_clean():
    raw = market()
    saturday = raw[raw["date"] == "2021-03-05"].assign(date=pd.Timestamp("2021-03-06"))
    clean, found = cleaned(pd.concat([raw, saturday]))
    assert found["day without a market"].rows == 8
    assert found["day without a market"].example == "S00 2021-03-06: close 20,100 [VND]"
    assert len(clean) == len(raw)


def test_day_on_which_nobody_trades_is_dropped_and_a_halt_of_most_is_not():
    raw = market()
    fill(raw, "2021-03-24")
    raw.loc[(raw["date"] == "2021-04-07") & (raw["symbol"] > "S01"), "volume"] = 0.0
    clean, found = cleaned(raw)
    assert found["day without a market"].rows == 8 and found["day without trades"].rows == 6
    assert sorted(set(raw["date"]) - set(clean["date"])) == [pd.Timestamp("2021-03-24")]
    assert len(cleaned(raw, treatments={"closed_day": "keep"})[0]) == len(raw)


@pytest.mark.parametrize("volume", [0.0, float("nan")])
def test_day_whose_prices_move_is_a_trading_day_though_its_volumes_are_lost(volume):
    raw = market()
    raw.loc[raw["date"] == "2021-03-24", "volume"] = volume
    clean, found = cleaned(raw, on_bad_rows="treat")
    assert len(clean) == len(raw) and "day without a market" not in found


def test_too_few_symbols_say_nothing_about_the_calendar():
    raw = market(n_symbols=4)
    fill(raw, "2021-03-24")
    assert set(cleaned(raw)[1]) == {"day without trades"}


def test_update_of_one_symbol_is_kept_and_said():
    raw = market(n_symbols=30)
    clean, found = cleaned(raw[(raw["symbol"] == "S00") | (raw["date"] < raw["date"].max())])
    assert found["day of a few symbols"].rows == 1 and clean["date"].max() == raw["date"].max()


def test_gaps_are_kept_and_counted():
    raw = market()
    gap = (raw["symbol"] == "S01") & raw["date"].between("2021-03-08", "2021-03-15")  # six trading days
    tail = (raw["symbol"] == "S02") & (raw["date"] > "2021-04-01")
    raw.loc[(raw["symbol"] == "S03") & (raw["date"] > "2021-04-01"), "volume"] = 0.0
    clean, found = cleaned(raw[~gap & ~tail])
    assert len(clean) == len(raw) - gap.sum() - tail.sum()
    gaps = found["over 5 trading days without a row or trade"]
    assert (gaps.rows, gaps.treatment, gaps.example) == (
        3, "kept", "S01 2021-03-16: 6 trading days")
    assert gaps.more[0] == "S02 2021-04-01: 16 trading days"


def test_own_choice_of_a_treatment_overrides_the_preset():
    assert len(clean_prices(table({"close": 0.0}, {"open": 0.0}), treatments={"bad_price": "repair"})[0]) == 2
    assert len(clean_prices(table({"volume": 0}), treatments={"no_trades": "drop"})[0]) == 1


def test_exchange_is_read_as_people_write_it_and_an_unknown_one_is_that_of_the_day_before():
    clean, report = clean_prices(market(2, 3, exchange=["", " hnx ", None, "HSX", "UPCoM", "nowhere"]))
    assert clean["exchange"].tolist() == ["HOSE", "HNX", "HNX", "HOSE", "UPCOM", "UPCOM"]
    assert [(item.issue, item.rows) for item in report.findings] == [("unknown exchange", 3)]


def test_raw_rows_are_left_as_they_are():
    raw = table({"open": 0.0}, {"close": 20_000.0, "open": 20_000.0, "high": 20_000.0, "low": 20_000.0})
    before = raw.copy()
    clean_prices(raw, on_bad_rows="treat")
    pd.testing.assert_frame_equal(raw, before)


def test_weekly_bars_are_refused(prices):
    weekly = prices[prices["date"].dt.day_of_week == 2]
    with pytest.raises(DataError, match="one row in 5 weekdays: these are weekly"):
        clean_prices(weekly)


def test_volume_that_is_not_whole_is_rounded(prices):
    clean, _ = clean_prices(prices.assign(volume=prices["volume"] + 0.4))
    assert (clean["volume"].to_numpy() == prices["volume"].to_numpy()).all()


def test_report_counts_by_issue_and_treatment_and_names_fifty_rows(prices):
    table = prices.copy()
    table.loc[:99, "close"] = 0.0
    table.loc[100, "open"] = 0.0
    repaired, dropped = clean_prices(table, on_bad_rows="treat")[1].findings[:2]
    assert (repaired.treatment, repaired.rows, repaired.more) == ("repaired", 1, [])
    assert (dropped.treatment, dropped.rows, len(dropped.more)) == ("dropped", 100, 49)
    assert repaired.issue == dropped.issue and dropped.example not in dropped.more
    assert f"SYN001 {table['date'][0]:%Y-%m-%d}" in dropped.example


@pytest.mark.parametrize(("volume", "n_days"), [(1000, 40), (0, 300)])
def test_a_close_that_stands_still_is_a_stale_feed(volume, n_days):
    days = pd.bdate_range(ROW["date"], periods=n_days + 30)
    rows = pd.DataFrame([ROW] * len(days)).assign(date=days)
    rows.loc[n_days:, "close"] -= 100 * (np.arange(30) % 2 + 1)
    rows.loc[: n_days - 1, "volume"] = volume
    stale = cleaned(rows)[1]["stale feed: the close stands still"]
    assert (stale.rows, stale.treatment) == (1, "kept")
    assert stale.example == f"HPG {days[n_days - 1]:%Y-%m-%d}: close 41,500 [VND] on {n_days} days"
    rows.loc[n_days - 15, "close"] += 100
    rows.loc[n_days - 100:n_days - 90, "close"] += 100
    assert not any("stale" in issue for issue in cleaned(rows)[1])


def test_rows_of_a_day_with_other_prices_are_named_as_conflicting():
    again, other = {"date": ROW["date"]}, {"date": ROW["date"], "close": 41_000.0}
    assert set(cleaned(table(again), on_bad_rows="drop")[1]) == {"duplicate row for a day"}
    clean, found = cleaned(table(other), on_bad_rows="drop")
    assert set(found) == {"conflicting rows for a day"} and clean["close"].item() == 41_000
    with pytest.raises(DataError, match="conflicting rows for a day"):
        clean_prices(table(other))
