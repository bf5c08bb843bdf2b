import gzip
import io
import runpy
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from vnq_colab.data import collect
from vnq_colab.data.prices import adjustment_factors, load_index, load_prices, read_prices, typed_prices
from vnq_colab.data.unpack import price_files
from vnq_colab.errors import ConfigError, DataError

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
    (GOOD.replace("2024-01-03", "yesterday"), "row 3: date is 'yesterday', not a past date such as"),
    (GOOD.replace("11000,2000", "dear,2000"), "row 3: close is 'dear', not a number"),
    (GOOD.replace("FPT,2024-01-03", "../../EVIL,2024-01-03"), "symbol is '../../EVIL', not letters and digits"),
    (GOOD.replace("2024-01-03", "9999-12-31"), "row 3: date is '9999-12-31', not a past date such as"),
    (GOOD.replace("symbol,", "Close,symbol,").replace("FPT,", "1,FPT,"), "column close stands twice"),
    ("PAR1 but not really", "cannot be read as parquet or CSV"),
    (GOOD.replace("FPT,2024-01-03", ",2024-01-03"), "row 3: symbol is missing, not letters"),
])
def test_unusable_file_is_one_sentence(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        load_prices(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_file_names_the_nearest(tmp_path):
    write(tmp_path, GOOD)
    with pytest.raises(DataError, match=r"no such file or folder. Did you mean 'prices.csv'"):
        load_prices(tmp_path / "price.csv")
    with pytest.raises(DataError, match=r"no such file or folder. Did you mean / where \\ stands .* C:/prices.csv"):
        load_prices("D:\new.csv")


def test_price_files_are_those_that_are_read(tmp_path):
    assert price_files(tmp_path / "missing") == price_files(tmp_path) == []
    (tmp_path / "more").mkdir()
    for name in ("b.csv", "more/c.csv", "a.csv", "desktop.ini", ".hidden.csv", "~$a.csv", "notes.md"):
        write(tmp_path, GOOD, name)
    (tmp_path / "folder.csv").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in price_files(tmp_path)] == ["a.csv", "b.csv", "more/c.csv"]
    assert {file.file for file in read_prices(tmp_path).files} == {"a.csv", "b.csv", "more/c.csv"}


def test_reading_keeps_what_cleaning_should_see(tmp_path):
    reading = read_prices(write(tmp_path, GOOD.replace("10500,1000", ",1000")))
    assert np.isnan(reading.prices["close"][0])


@pytest.mark.parametrize("line, said", [
    ("VNINDEX,2024-01-04,", "2024-01-04: the close of the index is missing"),
    ("VNINDEX,2024-01-04,-1", "2024-01-04: the close of the index is -1, not above 0"),
    ("VNINDEX,2024-01-04,0", "2024-01-04: the close of the index is 0, not above 0"),
    ("VNINDEX,2024-13-04,1100", r"days of the index cannot be read \(date unreadable or in the future 1\)"),
    ("VNINDEX,2062-01-04,1100", r"days of the index cannot be read \(date unreadable or in the future 1\)"),
    ("VNINDEX,2024-01-04,many", r"days of the index cannot be read \(number unreadable 1\)"),
    ("VNINDEX,2024,01,04,1100", r"days of the index cannot be read \(wrong number of fields 1\)")])
def test_an_index_file_with_a_day_that_has_no_close_is_refused(tmp_path, line, said):
    days = pd.bdate_range("2023-01-02", periods=60).strftime("%Y-%m-%d")
    text = "symbol,date,close\n" + "".join(f"VNINDEX,{day},1100\nVN30,{day},\n" for day in days)
    path = write(tmp_path, text + line + "\n", "index.csv")
    with pytest.raises(DataError, match=f"index.csv: {said}") as caught:
        load_index(path)
    assert "\n" not in str(caught.value)
    assert len(load_index(write(tmp_path, text, "sound.csv"))) == 60, "another index may have gaps"


def test_an_index_of_one_s_own_is_a_table_of_days_and_closes():
    table = pd.DataFrame({"Close": [1103, 1101, 1102], " DATE": ["2024-01-03", "2024-01-02", "2024-01-03"], "x": "y"})
    expected = pd.DataFrame({"date": pd.to_datetime(["2024-01-02", "2024-01-03"]).astype("datetime64[ns]"),
                             "close": [1101.0, 1102.0]})
    pd.testing.assert_frame_equal(load_index(table), expected)
    pd.testing.assert_frame_equal(load_index(expected), expected)
    pd.testing.assert_frame_equal(load_index(expected.astype({"date": "datetime64[s]", "close": object})), expected)


@pytest.mark.parametrize("change, said", [
    (lambda table: table.set_index("date"), "one column date.*found 2 rows of close"),
    (lambda table: table.rename(columns={"close": "price"}), "one column close; found 2 rows of date, price"),
    (lambda table: table.assign(Close=1.0), "one column close"),
    (lambda table: table.head(0), "found 0 rows"),
    (lambda table: table.assign(close=[1100, None]), "2024-01-03: the close of the index is missing"),
    (lambda table: table.assign(close=[1100, 0]), "2024-01-03: the close of the index is 0, not above 0"),
    (lambda table: table.assign(close=[1100, np.inf]), "2024-01-03: the close of the index is not finite"),
    (lambda table: table.assign(close=["1100", "dear"]), "close is 'dear', not a number"),
    (lambda table: table.assign(date=["2024-01-02", None]), "date is missing, not a past date"),
    (lambda table: table.assign(date=["2024-01-02", "2062-01-02"]), "date is '2062-01-02', not a past date")])
def test_an_index_of_one_s_own_that_is_none_is_refused(change, said):
    with pytest.raises(DataError, match=said) as caught:
        load_index(change(pd.DataFrame({"date": ["2024-01-02", "2024-01-03"], "close": [1100.0, 1101.0]})))
    assert "\n" not in str(caught.value)


def in_thousands(prices):
    return prices.assign(**{name: prices[name] / 1000 for name in ("open", "high", "low", "close")})


def packed(files):
    """A zip of {name: text or bytes}."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as folder:
        for name, text in files.items():
            folder.writestr(name, text)
    return content.getvalue()


CAFEF = "<Ticker>,<DTYYYYMMDD>,<Open>,<High>,<Low>,<Close>,<Volume>\n"


# -------------------------------------------------------------------------------------------------------------- units
def test_prices_in_thousand_vnd_are_converted_and_said(tmp_path, prices):
    prices.to_csv(tmp_path / "vnd.csv", index=False)
    in_thousands(prices).to_csv(tmp_path / "thousand.csv", index=False)
    first, second = read_prices(tmp_path / "vnd.csv"), read_prices(tmp_path / "thousand.csv")
    np.testing.assert_allclose(second.prices["close"], first.prices["close"], rtol=1e-12)
    assert [first.files[0].unit, second.files[0].unit] == ["VND", "thousand VND"]


def test_a_doubtful_unit_is_an_error_that_names_the_file_and_the_option(tmp_path, prices):
    doubtful = prices[prices["symbol"] == "SYN001"]
    level = 333.333 / doubtful["close"].median()
    doubtful.assign(**{name: doubtful[name] * level for name in ("open", "high", "low", "close")}).to_csv(
        tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match=r"x.csv: the median close is 333.*--unit x.csv=kVND"):
        read_prices(tmp_path)
    median = {unit: read_prices(tmp_path, unit=unit).prices["close"].median() for unit in ("VND", "kVND")}
    assert median["VND"] == pytest.approx(333.333) and median["kVND"] == pytest.approx(333_333)
    assert read_prices(tmp_path, unit={"x.csv": "kVND"}).files[0].unit == "thousand VND"


def test_prices_below_any_in_thousand_vnd_are_refused(tmp_path, prices):
    columns = ["open", "high", "low", "close"]
    prices.assign(**prices[columns] / 1e6).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match=r"x.csv: the median close is 0\.\d+.*--unit x.csv=kVND"):
        read_prices(tmp_path)


def test_a_doubtful_unit_is_settled_by_the_other_stocks_of_the_file_and_by_the_provider(tmp_path, prices):
    dear = in_thousands(prices[prices["symbol"] == "SYN001"])
    level = 333.3 / dear["close"].median()
    dear = dear.assign(**{name: dear[name] * level for name in ("open", "high", "low", "close")})
    vnstock = dear.rename(columns={"date": "time"})[["time", "open", "high", "low", "close", "volume"]]
    vnstock.to_csv(tmp_path / "SYN001.csv", index=False)
    pd.concat([dear, in_thousands(prices[prices["symbol"] == "SYN004"])]).to_csv(tmp_path / "two.csv", index=False)
    assert {file.unit for file in read_prices(tmp_path).files} == {"thousand VND"}


def test_two_units_in_one_file_are_refused(tmp_path, prices):
    mixed = pd.concat([prices[prices["symbol"] != "SYN004"], in_thousands(prices[prices["symbol"] == "SYN004"])])
    mixed.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match="two units in one file: SYN004 closes at .*--unit x.csv=kVND"):
        read_prices(tmp_path)


def test_unit_for_all_files_is_refused_where_one_is_clearly_in_the_other(prices, tmp_path):
    prices.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match="clearly in VND .*--unit x.csv=kVND"):
        read_prices(tmp_path / "x.csv", unit="kVND")
    insisted = read_prices(tmp_path / "x.csv", unit={"x.csv": "kVND"}).prices
    assert insisted["close"].tolist() == pytest.approx((1000 * prices["close"]).tolist())


@pytest.mark.parametrize("unit, message", [("USD", "must be 'VND' or 'kVND'"),
                                           ({"pices.csv": "VND"}, "Did you mean 'prices.csv'")])
def test_an_unknown_unit_or_file_is_refused(tmp_path, unit, message):
    write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=message):
        read_prices(tmp_path, unit=unit)


# -------------------------------------------------------------------------------------------------- folders and zips
def test_files_packed_in_any_way_are_read_without_unpacking(tmp_path):
    line = "FPT,20240102,10.1,11.2,9.3,10.4,500\n"
    inner = packed({"CafeF.RAW_HNX.Upto02.01.2024.csv": CAFEF + line.replace("FPT", "SHS")})
    (tmp_path / "CafeF.zip").write_bytes(packed({
        "CafeF.HSX.Upto02.01.2024.csv": CAFEF + line + line.replace("FPT", "CFPT2301"), "inner.zip": inner,
        "CafeF.INDEX.Upto02.01.2024.csv": CAFEF + line.replace("FPT", "VN-INDEX"), "__MACOSX/x.csv": "junk"}))
    vnm = b"time,open,high,low,close,volume\n2024-01-02,60,61,59,60.5,7\n"
    (tmp_path / "VNM.csv.gz").write_bytes(gzip.compress(vnm))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    reading = read_prices(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    rows = reading.prices.set_index("symbol")
    assert rows["close"].to_dict() == {"SHS": 10_400, "FPT": 10_400, "VNM": 60_500}
    assert rows["exchange"].to_dict() == {"SHS": "HNX", "FPT": "HOSE", "VNM": ""}
    assert rows["unadjusted"].to_dict() == {"SHS": True, "FPT": False, "VNM": False}
    assert rows["raw_close"].dropna().to_dict() == {"SHS": 10_400}
    assert reading.index.values.tolist() == [["VNINDEX", pd.Timestamp("2024-01-02"), 10.4]]
    facts = {file.file: file for file in reading.files}
    assert facts["CafeF.zip/CafeF.HSX.Upto02.01.2024.csv"].set_apart == {"warrant": 1}
    assert facts["CafeF.zip/CafeF.INDEX.Upto02.01.2024.csv"].unit == "points"
    assert reading.on_bad_rows == "treat"


def test_later_files_win_and_unadjusted_ones_come_first(tmp_path, prices):
    one = prices[prices["symbol"] == "SYN001"]
    one.to_csv(tmp_path / "a_newest.csv", index=False)
    one.head(400).to_csv(tmp_path / "z_older.csv", index=False)
    write(tmp_path, CAFEF + "SYN001,20260105,20.1,20.2,20.0,20.1,500\n", "CafeF.RAW_HSX.Upto05.01.2026.csv")
    reading = read_prices(tmp_path)
    assert list(reading.prices["file"].cat.categories) == ["CafeF.RAW_HSX.Upto05.01.2026.csv", "z_older.csv",
                                                           "a_newest.csv"]
    assert reading.prices["file"].cat.ordered


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_files_of_one_name_are_told_apart_and_all_are_read(tmp_path):
    line = "time,open,high,low,close,volume\n2024-01-{day},60,61,59,60.5,7\n"
    for day, folder in (("02", "raw"), ("03", "two/raw"), ("04", "weekly_updates")):
        (tmp_path / folder).mkdir(parents=True)
        write(tmp_path / folder, line.format(day=day), "VNM.csv")
    with zipfile.ZipFile(tmp_path / "weekly_updates" / "a.zip", "w") as archive:
        for day in ("05", "08"):
            archive.writestr("VNM.csv", line.format(day=day))
    reading = read_prices([tmp_path / "raw", tmp_path / "two/raw", tmp_path / "weekly_updates"])
    names = ["raw/VNM.csv", "raw/VNM.csv (2)", "weekly_updates/VNM.csv", "weekly_updates/a.zip/VNM.csv",
             "weekly_updates/a.zip/VNM.csv (2)"]
    assert [file.file for file in reading.files] == list(reading.prices["file"].cat.categories) == names
    assert reading.prices["date"].dt.day.tolist() == [2, 3, 4, 5, 8] and reading.prices["symbol"].unique() == ["VNM"]


@pytest.mark.parametrize("name, content, message", [
    ("a.zip", packed({"a.csv": GOOD})[:-30], "cannot be unpacked"),
    ("a.csv.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "cannot be unpacked"),
    ("a.zip", packed({"readme.md": "hello"}), "Put the price files there"),
    ("a.xlsx", packed({"[Content_Types].xml": "", "xl/workbook.xml": ""}), "save the sheet as CSV"),
    ("a.csv", b"<!DOCTYPE html><html>Quota exceeded</html>", "is a web page"),
    ("README.csv", b"hello\nworld\n", "README.csv: columns symbol, date"),
    ("a.csv", b"symbol,date\0\n", "NUL bytes"),
])
def test_what_is_no_price_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_prices(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_drive_link_is_fetched_first(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "download_drive", lambda link, folder: write(tmp_path, GOOD))
    assert len(load_prices("https://drive.google.com/file/d/x/view")[0]) == 2


def test_indices_alone_are_no_prices(tmp_path):
    path = write(tmp_path, "symbol,date,close\nHNX-INDEX,2024-01-02,230\n")
    assert read_prices(path).prices.empty
    with pytest.raises(DataError, match="there are no stocks in it"):
        load_prices(path)
    assert load_index(path, "HNXINDEX")["close"].tolist() == [230.0]
    with pytest.raises(DataError, match="no index VNINDEX in it"):
        load_index(path)
    assert load_index(write(tmp_path, "Date,Close\n2024-01-02,1100\n", "any.csv"))["close"].tolist() == [1100.0]


def test_a_table_is_typed_and_refused_in_thousand_vnd(prices):
    mixed = prices.astype({"close": object, "date": object})
    mixed.loc[0, "close"] = str(prices["close"][0])
    typed = typed_prices(mixed, "the table")
    assert typed["close"].tolist() == prices["close"].tolist() and typed["date"].equals(prices["date"])
    with pytest.raises(DataError, match="the table: the median close .* looks like thousand VND"):
        typed_prices(in_thousands(prices), "the table")


# ---------------------------------------------------------------------------------------------------------- adjusting
def test_adjustment_factors_undo_the_rounding_of_the_adjusted_close():
    random = np.random.default_rng(0)
    close = np.round(40_000 * np.exp(np.cumsum(random.normal(0, 0.02, 600))), -1)
    true = np.repeat([0.4, 0.5, 0.95, 1.0], 150)
    factor = adjustment_factors(close, np.round(close * true, -2))
    assert np.abs(factor / true - 1).max() < 0.012  # within the rounding even next to a change
    inside = np.arange(600) % 150 > 30
    assert np.abs(factor / true - 1)[inside].max() < 1e-4
    assert (adjustment_factors(close.round(-2), close.round(-2)) == 1).all()


def test_days_without_an_adjusted_close_take_the_factor_of_the_days_before():
    assert adjustment_factors(np.array([10_000.0, 0, 10_000]), np.array([5000.0, 0, 5000])).tolist() == [0.5, 0.5, 0.5]


# ---------------------------------------------------------------------------------------------------------- real data
@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared price files are not on this machine")
@pytest.mark.parametrize("name, form, unit, symbols", [
    ("vn_daily.parquet", "price table", "VND", 184), ("amibroker", "AmiBroker", "thousand VND", 8),
    ("vnstock_csv", "vnstock", "thousand VND", 10), ("cophieu68", "cophieu68", "thousand VND", 6),
    ("unadjusted", "VNDirect", "VND", 6), ("cafef", "CafeF", "thousand VND", 390)])
def test_real_files_are_read_without_an_option(name, form, unit, symbols):
    reading = read_prices(SHARED_DATA / name)
    assert {(file.format, file.unit) for file in reading.files} == {(form, unit)}
    assert reading.prices["symbol"].nunique() == symbols
    assert 1000 < reading.prices["close"].median() < 100_000


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the shared price files are not on this machine")
def test_real_intraday_files_are_refused():
    with pytest.raises(DataError, match="BTC_USD_1h.csv: holds 7,196 rows for 301 days: intraday data"):
        read_prices(SHARED_DATA / "crypto_1h")


def test_sources_agreement_compares_the_raw_closes_of_a_source_with_both(tmp_path):
    source = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "source_agreement.py"))["source"]
    for kind, close in (("HSX", "10.4"), ("RAW_HSX", "20.8")):
        line = f"FPT,20240102,{close},{close},{close},{close},500\n"
        write(tmp_path, CAFEF + line, f"CafeF.{kind}.Upto02.01.2024.csv")
    assert source(tmp_path)[["symbol", "close", "step"]].values.tolist() == [["FPT", 20_800, 100]]


def test_line_that_cannot_be_read_is_left_out_when_asked(prices, tmp_path):
    text = prices.to_csv(index=False) + "Total,,,,,,12,\n"
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="a past date"):
        load_prices(tmp_path / "x.csv")
    kept, report = load_prices(tmp_path / "x.csv", on_bad_rows="drop")
    assert len(kept) == len(prices) and sum(report.files[0].dropped.values()) == 1


