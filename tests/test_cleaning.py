import json

import pandas as pd
import pytest

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.findings import CleaningReport
from vnq_colab.errors import ConfigError, DataError

ROW = {"symbol": "HPG", "date": pd.Timestamp("2021-03-15"), "open": 41_000.0, "high": 42_000.0, "low": 40_000.0,
       "close": 41_500.0, "volume": 1000}


def table(*changes):
    """A good row, then one row a day later for each change."""
    rows = [ROW] + [ROW | {"date": ROW["date"] + pd.Timedelta(days=day + 1)} | change
                    for day, change in enumerate(changes)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("change, disease", [
    ({"high": 39_000.0}, "high 39,000 < low 40,000 [VND]"),
    ({"close": 0.0}, "price zero or negative"),
    ({"open": -5.0}, "price zero or negative"),
    ({"close": float("nan")}, "price missing"),
    ({"volume": -1}, "volume missing or negative"),
    ({"volume": 1e19}, "volume beyond 1e15"),
    ({"high": 1e300}, "price beyond 1e9"),
    ({"close": 43_000.0}, "open or close outside [low, high]"),
    ({"date": ROW["date"]}, "duplicate row for a day"),
])
def test_each_disease_is_named_or_dropped(change, disease):
    with pytest.raises(DataError) as caught:
        clean_prices(table(change))
    assert "HPG 2021-03-1" in str(caught.value) and disease in str(caught.value)
    clean, report = clean_prices(table(change), on_bad_rows="drop")
    assert len(clean) == 1
    assert [(item.rows, item.treatment) for item in report.findings] == [(1, "dropped")]


def test_of_duplicates_the_last_stays():
    clean, _ = clean_prices(table({"date": ROW["date"], "close": 41_700.0}), on_bad_rows="drop")
    assert clean["close"].tolist() == [41_700.0]


def test_day_without_trades_is_kept_and_counted():
    clean, report = clean_prices(table({"volume": 0}))
    assert len(clean) == 2
    assert report.findings[0].disease == "day without trades"


def test_nothing_left_is_an_error():
    with pytest.raises(DataError, match="no usable row is left of 1"):
        clean_prices(table().assign(close=0.0), on_bad_rows="drop")


def test_rows_come_back_sorted_and_typed():
    clean, _ = clean_prices(table({}, {}).sample(frac=1, random_state=1)
                            .assign(volume=lambda t: t["volume"].astype(float)))
    assert clean["date"].is_monotonic_increasing
    assert clean["volume"].dtype == "int64"


def test_report_survives_json():
    _, report = clean_prices(table({"volume": 0}))
    again = CleaningReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert "2 of 2 rows kept" in repr(again) and "<table" in again._repr_html_()


def test_unknown_treatment_is_refused():
    with pytest.raises(ConfigError, match="'raise' or 'drop'"):
        clean_prices(table(), on_bad_rows="ignore")


def test_good_row_survives_its_bad_twin():
    clean, report = clean_prices(table({"date": ROW["date"], "close": float("nan")}), on_bad_rows="drop")
    assert clean["close"].tolist() == [41_500.0]
    assert [item.disease for item in report.findings] == ["price missing"]


@pytest.mark.parametrize("written, read", [("HSX", "HOSE"), (" hnx ", "HNX"), ("UPCoM", "UPCOM"), ("NYSE", "HOSE")])
def test_exchange_is_read_as_people_write_it(written, read):
    clean, report = clean_prices(table().assign(exchange=written))
    assert clean["exchange"].tolist() == [read]
    assert [item.disease for item in report.findings] == (["unknown exchange"] if written == "NYSE" else [])
