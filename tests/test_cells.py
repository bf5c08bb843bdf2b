import datetime as dt

import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.cells import days_of, numbers_of, text_of
from vnq_colab.errors import DataError

DAYS = ["2021-03-04", "2021-03-15"]


def days(*cells, **options):
    return days_of(pd.Series(cells), "x.csv", **options).astype("datetime64[D]").astype(str).tolist()


def values(mark_of="close", **columns):
    found, bad = numbers_of({name: pd.Series(cells, dtype=object) for name, cells in columns.items()}, "x.csv")
    return found[mark_of].tolist(), bad[mark_of].tolist()


@pytest.mark.parametrize("first, second", [
    ("2021-03-04", "2021-03-15"), ("20210304", "20210315"), (20210304, 20210315), (20210304.0, 20210315.0),
    ("04/03/2021", "15/03/2021"), ("3/4/2021", "3/15/2021"), ("4.3.2021", "15.3.2021"), ("2021/3/4", "2021/3/15"),
    ("04-Mar-2021", "15-Mar-2021"), ("2021-03-04 00:00:00+07:00", "2021-03-15 00:00:00+07:00"),
    ("2021-03-03T17:00Z", "2021-03-14T17:00Z"), ("3/4/2021 12:00:00 AM", "3/15/2021 12:00:00 AM"),
    (dt.date(2021, 3, 4), dt.date(2021, 3, 15)),
    (pd.Timestamp("2021-03-03 17:00", tz="UTC"), pd.Timestamp("2021-03-14 17:00", tz="UTC"))])
def test_a_day_is_read_however_it_is_written(first, second):
    assert days(first, second) == DAYS


@pytest.mark.parametrize("cell", ["30/11/-0001", "31/02/2021", "yesterday", "1", "9999-12-31", "2062-01-03", "99999",
                                  "", None])
def test_what_is_no_day_is_not_a_time(cell):
    assert days("13/02/2021" if "/" in str(cell) else "2021-02-13", cell) == ["2021-02-13", "NaT"]


def test_a_day_is_read_up_to_tomorrow_in_vietnam():
    tomorrow = pd.Timestamp.now("Asia/Ho_Chi_Minh").date() + dt.timedelta(days=1)
    near = [tomorrow - dt.timedelta(days=1), tomorrow, tomorrow + dt.timedelta(days=2)]
    read = [f"{near[0]}", f"{near[1]}", "NaT"]
    assert days(*map(str, near)) == days(*near) == read
    assert days(*(f"{day} 23:59:00+07:00" for day in near)) == read


def test_the_whole_column_tells_day_and_month_apart_or_it_is_refused_unless_the_format_is_known():
    assert days("04/03/2021", "05/03/2021", "13/03/2021") == ["2021-03-04", "2021-03-05", "2021-03-13"]
    assert days("04/03/2021", "04/05/2021", "04/13/2021") == ["2021-04-03", "2021-04-05", "2021-04-13"]
    assert days("05/05/2021", "06/06/2021") == ["2021-05-05", "2021-06-06"], "both readings are the same"
    for ambiguous in (["05/03/2021"], ["15/03/2021", "03/15/2021"]):
        with pytest.raises(DataError, match="may be day/month or month/day. Write each as a day such as 2021-03-15"):
            days(*ambiguous)
    assert days("05/03/2021", day_first=True) == ["2021-03-05"]
    many = [f"{month:02d}/0{day}/2021" for month in range(1, 13) for day in (3, 4)]
    assert days(*many, "dividend 5%", day_first=True)[::24] == ["2021-03-01", "NaT"]
    assert days(*many, "03/15/2021", day_first=True)[::24] == ["2021-01-03", "2021-03-15"], "its own form contradicted"


@pytest.mark.parametrize("cells, expected", [
    (["1234.5", "-3"], [1234.5, -3]), (["1,234.5", "930"], [1234.5, 930]), (["1.234,5", "930"], [1234.5, 930]),
    (["12,5", "1234,25"], [12.5, 1234.25]), (["1e5", ""], [1e5, np.nan]), (["1,234,567", "1,234"], [1234567, 1234]),
    (["19.230", "19.240"], [19.23, 19.24])])
def test_numbers_are_read_where_one_reading_is_possible(cells, expected):
    found, bad = values(close=cells)
    np.testing.assert_array_equal(found, expected)
    assert not any(bad)


def test_commas_in_whole_volumes_tell_what_commas_mean():
    assert values(close=["19,230", "19,240"], volume=["83,530", "500"])[0] == [19230, 19240]
    assert values("volume", close=["93.000", "94.500"], volume=["12.300", "1.900"])[0] == [12300, 1900]
    assert values("volume", close=["93", "94"], volume=["1.5M", "300K"])[0] == [1_500_000, 300_000]


@pytest.mark.parametrize("cells", [["19,230", "19,240"], ["1,5", "2.5"]])
def test_numbers_that_can_be_read_in_two_ways_are_refused(cells):
    with pytest.raises(DataError, match="can be read in two ways"):
        values(close=cells)


def test_what_is_no_number_is_said():
    assert values(close=["10.5", "dear", None])[1] == [False, True, False]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1258", "latin-1"])
def test_texts_of_any_encoding_are_read(encoding):
    assert text_of("close,à\r\n1,2".encode(encoding), "x.csv") == "close,à\n1,2\n".encode()
