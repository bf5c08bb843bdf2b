import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.prices import load_index, load_prices, read_prices
from vnq_colab.errors import DataError

GOOD = ("symbol,date,open,high,low,close,volume\n"
        "FPT,2024-01-02,10000,11000,9000,10500,1000\nFPT,2024-01-03,10500,11100,10000,11000,2000\n")


def write(folder, text, name="prices.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_and_parquet_give_the_same_table(tmp_path, prices):
    prices.to_parquet(tmp_path / "p.parquet")
    prices.to_csv(tmp_path / "p.csv", index=False)
    first, second = load_prices(tmp_path / "p.parquet")[0], load_prices(tmp_path / "p.csv")[0]
    pd.testing.assert_frame_equal(first, second)


def test_folder_is_read_as_one_table(tmp_path, prices):
    for symbol, rows in prices.groupby("symbol"):
        rows.to_csv(tmp_path / f"{symbol}.csv", index=False)
    together, report = load_prices(tmp_path)
    assert len(together) == len(prices) == report.rows_kept


@pytest.mark.parametrize("change", [
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("symbol,date", "Symbol, DATE"),
    lambda text: text.replace("2024-01-02", "20240102").replace("2024-01-03", "20240103"),
    lambda text: text.replace("FPT", " fpt "),
])
def test_harmless_differences_change_nothing(tmp_path, change):
    expected = load_prices(write(tmp_path, GOOD, "a.csv"))[0]
    pd.testing.assert_frame_equal(load_prices(write(tmp_path, change(GOOD), "b.csv"))[0], expected)


@pytest.mark.parametrize("text, message", [
    ("", "the file is empty"),
    ("symbol,date,open,high,low,close,volume\n", "no rows below the header"),
    (GOOD.replace("close", "clsoe"), "column close is missing.*Did you mean 'clsoe'"),
    (GOOD.replace("symbol,date", "a,b"), "columns symbol, date are missing"),
    (GOOD.replace("2024-01-03", "yesterday"), "row 3: date is 'yesterday', not a date"),
    (GOOD.replace("11000,2000", "dear,2000"), "row 3: close is 'dear', not a number"),
    (GOOD.replace("FPT,2024-01-03", "../../EVIL,2024-01-03"), "symbol is '../../EVIL', not letters and digits"),
    (GOOD.replace("2024-01-03", "9999-12-31"), "row 3: date is '9999-12-31', not a date"),
    (GOOD.replace("symbol,", "Close,symbol,").replace("FPT,", "1,FPT,"), "column close stands twice"),
    (GOOD.replace("2024-01-02", "2024-01-02T00+07:00").replace("2024-01-03", "2024-01-03T00+08:00"), "time zones"),
    ("PAR1 but not really", "cannot be read as parquet or CSV"),
    (GOOD.replace("FPT,2024-01-03", ",2024-01-03"), "row 3 has no symbol"),
])
def test_unusable_file_is_one_sentence(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        load_prices(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(DataError, match=r"no such file or folder. Did you mean 'prices.csv'"):
        load_prices(tmp_path / "price.csv")


def test_hidden_and_lock_files_are_passed_over(tmp_path):
    write(tmp_path, GOOD)
    write(tmp_path, "locked", "~$prices.csv"), write(tmp_path, "locked", ".~lock.prices.csv")
    assert len(load_prices(tmp_path)[0]) == 2


def test_empty_folder_says_what_to_put_there(tmp_path):
    with pytest.raises(DataError, match="Put the price files there"):
        load_prices(tmp_path)


def test_reading_keeps_what_cleaning_should_see(tmp_path):
    table = read_prices(write(tmp_path, GOOD.replace("10500,1000", ",1000")))
    assert np.isnan(table["close"][0])


def test_index_takes_the_named_one(tmp_path):
    path = write(tmp_path, "symbol,date,close\nVN30,2024-01-02,1\nVNINDEX,2024-01-02,1100\n")
    assert load_index(path)["close"].tolist() == [1100.0]
    with pytest.raises(DataError, match="no index HNX"):
        load_index(path, "HNX")


def test_days_with_a_time_zone_are_days_in_vietnam(tmp_path):
    midnight = GOOD.replace("2024-01-02", "2024-01-01T17:00Z").replace("2024-01-03", "2024-01-02T17:00Z")
    days = load_prices(write(tmp_path, midnight))[0]["date"]
    assert days.dt.strftime("%Y-%m-%d").tolist() == ["2024-01-02", "2024-01-03"]


def test_prices_in_thousand_vnd_are_refused(tmp_path, prices):
    for name in ("open", "high", "low", "close"):
        prices = prices.assign(**{name: prices[name] / 1000})
    prices.to_csv(tmp_path / "prices.csv", index=False)
    with pytest.raises(DataError, match="looks like thousand VND"):
        load_prices(tmp_path / "prices.csv")
