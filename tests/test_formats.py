import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.formats import index_name, kind_of, match_columns, read_file
from vnq_colab.errors import DataError

HEADERS = {  # format: (name of the file, header, one line)
    "CafeF": ("CafeF.HSX.Upto02.01.2024.csv", "<Ticker>,<DTYYYYMMDD>,<Open>,<High>,<Low>,<Close>,<Volume>",
              "FPT,20240102,10,12,9,11,500"),
    "AmiBroker": ("excel_fpt.csv", "<Ticker>,<DTYYYYMMDD>,<OpenFixed>,<HighFixed>,<LowFixed>,<CloseFixed>,<Volume>",
                  "FPT,20240102,10.0000,12.0000,9.0000,11.0000,500"),
    "vnstock": ("FPT.csv", "time,open,high,low,close,volume,amounts", "2024-01-02,10,12,9,11,500,1.5"),
    "cophieu68": ("FPT.csv", "Date,Close,Volume,Open,High,Low,Foreign Buy",
                  '13/01/2024,11,"1,500",10,12,9,0\n02/01/2024,11,500,10,12,9,0'),
    "VNDirect": ("FPT.csv", ",Date,High,Low,Open,Close,Volume,Adj Close", "0,13/01/2024,12,9,10,11,500,11"),
    "Yahoo": ("x.csv", "Price,Close,High,Low,Open,Volume\nTicker,FPT.VN,FPT.VN,FPT.VN,FPT.VN,FPT.VN\nDate,,,,,",
              "2024-01-02,11,12,9,10,500"),
    "price table": ("x.csv", "symbol,date,open,high,low,close,volume", "FPT,2024-01-02,10,12,9,11,500"),
    "by its headers": ("x.csv", "Mã;Ngày;Giá mở cửa;Giá cao nhất;Giá thấp nhất;Giá đóng cửa;Khối lượng",
                       "FPT;13/01/2024;10,0;12,0;9,0;11,0;500"),
}


def part_of(text, name="FPT.csv"):
    return read_file(text.encode(), name, name)


def in_days(n_days, line):
    days = pd.bdate_range("2024-01-01", periods=n_days).strftime("%Y-%m-%d")
    return "".join(line.format(day=day) + "\n" for day in days)


@pytest.mark.parametrize("form", HEADERS)
def test_every_format_is_recognised_by_its_content(form):
    name, header, line = HEADERS[form]
    part = part_of(f"{header}\n{line}\n", name)
    row = part.prices.iloc[-1]
    assert part.facts.format == form
    assert row[["symbol", "open", "high", "low", "close", "volume"]].tolist() == ["FPT", 10, 12, 9, 11, 500]


def test_what_was_matched_is_said():
    part = part_of("GiaDongCua\tNgay\tGiaMoCua\tGiaCaoNhat\tGiaThapNhat\tKhoiLuong\n11\t2024-01-02\t10\t12\t9\t5\n")
    assert part.facts.columns == {"date": "Ngay", "open": "GiaMoCua", "high": "GiaCaoNhat", "low": "GiaThapNhat",
                                  "close": "GiaDongCua", "volume": "KhoiLuong"}


@pytest.mark.parametrize("headers", [
    "Price Open|PRICE HIGH|price low|Price Close", "<OPEN>|<HIGH>|<LOW>|<CLOSE>"])
def test_headers_are_matched_whatever_their_accents_case_and_punctuation(headers):
    matched = match_columns(["Ngay", *headers.split("|"), "Vol."], "x.csv")
    assert list(matched) == ["date", "open", "high", "low", "close", "volume"]


def test_several_tickers_side_by_side_become_rows():
    part = part_of("Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume\n"
                   "Ticker,FPT.VN,VNM.VN,FPT.VN,VNM.VN,FPT.VN,VNM.VN,FPT.VN,VNM.VN,FPT.VN,VNM.VN\nDate,,,,,,,,,,\n"
                   "2024-01-02,11,,12,,9,,10,,500,\n2024-01-03,11,61,12,62,9,59,10,60,500,700\n", "x.csv")
    rows = part.prices.sort_values(["symbol", "date"])
    assert rows[["symbol", "close"]].values.tolist() == [["FPT", 11], ["FPT", 11], ["VNM", 61]]


def test_a_day_in_the_future_is_left_out_and_said_so_or_refused_in_our_own_columns():
    lines = in_days(100, "FPT,{day},10,12,9,11,500") + "FPT,2062-01-03,10,12,9,11,500\n"
    part = part_of("code,time,open,high,low,close,volume\n" + lines)
    assert part.facts.dropped == {"date unreadable or in the future": 1} and part.facts.last_day == "2024-05-17"
    with pytest.raises(DataError, match="row 102: date is '2062-01-03', not a past date such as 2021-03-15"):
        part_of("symbol,date,open,high,low,close,volume\n" + lines)


@pytest.mark.parametrize("symbol, kind", [
    ("FPT", "stock"), ("VNM", "stock"), ("VND", "stock"), ("CSV", "stock"), ("L40", "stock"), ("SYN001", "stock"),
    ("SYN1600", "stock"), ("CFPT2108", "warrant"), ("FUEVFVND", "fund"), ("FUCVREIT", "fund"), ("E1VFVN30", "fund"),
    ("VN30F1M", "future"), ("VN30F2112", "future"), ("41I1F7000", "future"), ("GB05F2112", "future"),
    ("VNINDEX", "index"), ("VN30", "index"), ("HNX-INDEX", "index"), ("UPCOM", "index"), ("UPINDEX", "index"),
    ("HNX30", "index"), ("VNALL", "index"), ("VNSML", "index"), ("VIC121003", "bond")])
def test_stocks_are_told_from_what_is_none(symbol, kind):
    assert kind_of(symbol) == kind


def test_an_index_has_one_name():
    assert [index_name(name) for name in ("VN-INDEX", "HNX-INDEX", "HNX", "UPINDEX", "UPCOM-INDEX", "VN30")] == [
        "VNINDEX", "HNXINDEX", "HNXINDEX", "UPCOMINDEX", "UPCOMINDEX", "VN30"]


@pytest.mark.parametrize("name, symbol", [
    ("FPT.csv", "FPT"), ("excel_fpt.csv", "FPT"), ("FPT_daily.csv", "FPT"), ("a.zip/x/FPT (1).csv.gz", "FPT"),
    ("CSV.csv", "CSV"), ("VN-INDEX.csv", "VNINDEX"), ("SYN001_raw.txt", "SYN001")])
def test_a_file_is_named_after_its_stock(name, symbol):
    part = part_of("time,open,high,low,close,volume\n2024-01-02,10,12,9,11,500\n", name)
    assert [*part.prices["symbol"], *part.index["symbol"]] == [symbol]


@pytest.mark.parametrize("name", ["prices.csv", "FPT_VNM.csv", "2024.csv"])
def test_a_file_without_symbols_whose_name_names_no_one_stock_is_refused(name):
    with pytest.raises(DataError, match="column symbol is missing.*name the file after its stock"):
        part_of("time,open,high,low,close,volume\n2024-01-02,10,12,9,11,500\n", name)


def test_unreadable_rows_of_a_provider_are_left_out_and_counted():
    lines = in_days(100, "FPT,{day},10,12,9,11,500")
    part = part_of("code,time,open,high,low,close,volume\n" + lines + ",2024-06-03,10,12,9,11,500\nFPT,dividend,,,,,\n"
                   "FPT,30/11/-0001,10,12,9,11,500\nFPT,2024-06-03,ten,12,9,11,500\nFPT,2024-06-04\n")
    assert part.facts.rows == 100
    assert part.facts.dropped == {"wrong number of fields": 1, "symbol missing or unreadable": 1,
                                  "date unreadable or in the future": 2, "number unreadable": 1}


def test_a_provider_s_file_with_many_unreadable_rows_is_refused():
    with pytest.raises(DataError, match="10 of 110 rows cannot be read"):
        part_of("time,open,high,low,close,volume\n" + in_days(100, "{day},10,12,9,11,500") + "x,1,1,1,1,1\n" * 10)


@pytest.mark.parametrize("header", ["time,open,low,high,close,volume", "time,open,volume,low,close,high"])
def test_swapped_columns_are_refused(header):
    random = np.random.default_rng(0)
    close = 20 * np.exp(np.cumsum(random.normal(0, 0.02, 200)))
    opened = np.append(20, close[:-1]) * np.exp(random.normal(0, 0.004, 200))
    days = pd.bdate_range("2024-01-01", periods=200).strftime("%Y-%m-%d")
    lines = [f"{day},{o:.2f},{max(o, c) * 1.01:.2f},{min(o, c) * 0.99:.2f},{c:.2f},9000"
             for day, o, c in zip(days, opened, close, strict=True)]
    assert len(part_of("\n".join(["time,open,high,low,close,volume", *lines])).prices) == 200
    with pytest.raises(DataError, match="seem to be swapped"):
        part_of("\n".join([header, *lines]))


def test_an_unknown_format_is_refused_with_what_was_seen_and_what_is_known():
    with pytest.raises(DataError, match="columns open, high, low, volume are missing; found date, close. Known are "
                                        "files of AmiBroker, .*vnstock, and tables of symbol, date"):
        part_of("when,close,date\n2024-01-02,10,2024-01-02\n")


def test_dates_off_by_a_day_are_refused():
    lines = in_days(40, "{day}T17:00:00Z,10,12,9,11,500")
    with pytest.raises(DataError, match="20% of the dates are Saturdays and Sundays"):
        part_of("time,open,high,low,close,volume\n" + lines)


def test_intraday_rows_are_refused():
    lines = "".join(f"2024-01-{day:02d} {hour:02d}:00:00,10,12,9,{hour},5\n" for day in (2, 3) for hour in range(9, 15))
    with pytest.raises(DataError, match="holds 12 rows for 2 days: intraday data"):
        part_of("datetime,open,high,low,close,volume\n" + lines)


def test_parquet_in_a_provider_s_columns_is_read():
    table = pd.DataFrame({"time": [pd.Timestamp("2024-01-02")], "open": [10.0], "high": [12.0], "low": [9.0],
                          "close": [11.0], "volume": [5]})
    part = read_file(table.set_index("time").to_parquet(), "FPT.parquet", "FPT.parquet")
    assert part.facts.columns["date"] == "time" and part.prices["date"][0] == pd.Timestamp("2024-01-02")
