"""The parts of a page say what they were given, escape it, and let it be taken along."""

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest

from vnq_colab.evaluation.page import Column, card, download, more, number, picture, soft, table

EVIL = '<script>alert("1")</script>'


def saved(html):
    """The tables behind the links, by name of the file."""
    links = re.findall(r'<a download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)">', html)
    return {name: pd.read_csv(io.BytesIO(base64.b64decode(data))) for name, data in links}


@pytest.mark.parametrize("value, form, text", [
    (0.5, ".1f", "0.5"), (-3, "+.1f", "-3.0"), (1234.5, ",.0f", "1,234"), (None, ".1f", "–"), (np.nan, ".1f", "–"),
    (np.inf, ".1f", "–"), (pd.NA, ".1f", "–"),
])
def test_number_is_a_text_or_a_dash(value, form, text):
    assert number(value, form) == text


def test_table_shows_few_digits_and_its_csv_has_all_of_them():
    html = table("skill", Column("Family", ["ours", "zero"]), Column("Accuracy [%]", [52.3456, np.nan], ".1f"),
                 Column("95% interval [%]", np.array([[50.25, 54.5], [np.nan, np.nan]]), "+.1f"))
    cells = re.findall(r"<td>(.*?)</td>", html)
    assert cells == ["ours", "52.3", "+50.2 to +54.5", "zero", "–", "–"]
    kept = saved(html)["skill.csv"]
    assert list(kept.columns) == ["Family", "Accuracy [%]", "95% interval [%], low", "95% interval [%], high"]
    assert kept.iloc[0].to_list() == ["ours", 52.3456, 50.25, 54.5] and kept.iloc[1, 1:].isna().all()


def test_table_marks_the_columns_that_may_break():
    html = table("x", Column("Symbol", ["AAA"]), Column("Why", ["because"], kind="words"), csv=False)
    assert '<th class="words">Why</th>' in html and '<td class="words">because</td>' in html and "<a " not in html


def test_table_shows_html_and_saves_what_it_stands_for():
    html = table("x", Column("Decision", ["accept"], html=['<span class="tag">accept</span>']))
    assert '<td><span class="tag">accept</span></td>' in html
    assert saved(html)["x.csv"]["Decision"].to_list() == ["accept"]


def test_table_without_rows_is_still_a_table():
    html = table("x", Column("Symbol", []), Column("Interval", np.empty((0, 2)), ".1f"))
    assert "<tbody>" in html and len(saved(html)["x.csv"]) == 0


def test_csv_is_utf8_without_soft_hyphens_and_with_plain_dates():
    frame = pd.DataFrame({"date": [pd.Timestamp("2024-03-01")], "Giá [VND]": [123_456_789.0]})
    kept = saved(download("prices", frame))["prices.csv"]
    assert kept.iloc[0].to_list() == ["2024-03-01", 123_456_789.0] and list(kept.columns) == ["date", "Giá [VND]"]
    assert list(saved(table("x", Column("Corre\u00adlation", [0.1], ".2f")))["x.csv"].columns) == ["Correlation"]


def test_every_text_is_escaped():
    for html in (table(EVIL, Column(EVIL, [EVIL], kind="words")), card(EVIL, soft(EVIL)), more(EVIL, soft(EVIL)),
                 picture(EVIL, b"png", EVIL), picture(EVIL, EVIL, EVIL), download(EVIL, pd.DataFrame({"x": [1]}))):
        assert "<script" not in html and "&lt;script&gt;" in html


def test_table_with_a_search_box_names_it_for_the_script():
    html = table("stocks", Column("Symbol", ["AAA"]), search="search")
    assert '<input type="search" data-table="stocks"' in html and '<table id="stocks">' in html and "tall" in html
    assert "<input" not in table("x", Column("Symbol", ["AAA"]))


def test_parts_without_content_are_nothing():
    assert card("Title", "", "") == more("Title", "") == soft("", "") == ""
    assert card("Title", "x").startswith('<section class="card"><h2>Title</h2>x')
    assert card("Title", "x", anchor="here").startswith('<section class="card" id="here">')


def test_picture_that_could_not_be_drawn_says_why():
    assert "<img" not in picture("Equity", "nothing to draw", "a caption")
    assert "nothing to draw" in picture("Equity", "nothing to draw", "a caption")
    assert 'src="data:image/png;base64,cG5n"' in picture("Equity", b"png", "a caption")
