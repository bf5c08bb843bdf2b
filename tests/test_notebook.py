"""What a notebook shows: pages that mark SYNTHETIC, whole tables, and a form's field for a flag."""

import re

import numpy as np
import pandas as pd
import pytest

from vnq_colab import errors
from vnq_colab.errors import ConfigError, worded
from vnq_colab.notebook import Table, page


def cells(table: Table) -> list[str]:
    return re.findall(r"<td[^>]*>([^<]*)</td>", table._repr_html_())


def test_page_has_a_title_marks_synthetic_and_escapes():
    text = page("Run <1>\n  SYNTHETIC market: made-up prices\n    accept: FPT")
    assert "<b>Run &lt;1&gt;</b>" in text and "border-left" in text
    assert '<div style="padding-left: 2.0em">accept: FPT</div>' in text


def test_table_shows_every_row_whole_as_people_read_it_with_dashes_for_what_is_unknown():
    frame = pd.DataFrame({
        "symbol": ["A&B", "C"], "price": [12_345.0, np.nan], "share": [0.5, 0.25],
        "n": pd.array([1_000, None], "Int64"), "good": [True, False],
        "day": pd.to_datetime(["2026-01-30", None]), "why": ["ab " * 90, ""]})
    assert cells(Table(frame)) == ["A&amp;B", "12,345", "0.500", "1,000", "yes", "2026-01-30", "ab " * 90,
                                   "C", "–", "0.250", "–", "no", "–", ""]
    long = Table(pd.DataFrame({"row": range(200)}))._repr_html_()
    assert long.count("<tr>") == 201 and "…" not in long and 'type="search"' in long and "onclick=" in long


@pytest.mark.parametrize(("terminal", "notebook"), [
    ("name the day with --as-of (in Python: as_of=)", "name the day with AS_OF"),
    ("does: --take-over (in Python: take_over=True) does not wait", "does: TAKE_OVER does not wait"),
    ("left out: --on-bad-rows drop, or treat (in Python: on_bad_rows=\"treat\").", "left out: on_bad_rows=\"treat\"."),
    ("Make it with: python -m vnq_colab validate", "Make it with: notebook 4"),
    ("choose another folder with --root", "choose another folder with `root=`"),
])
def test_flags_are_said_as_the_forms_fields_in_a_notebook(monkeypatch, terminal, notebook):
    assert worded(terminal) == terminal == str(ConfigError(terminal))
    monkeypatch.setattr(errors, "in_notebook", lambda: True)
    assert worded(terminal) == notebook == str(ConfigError(terminal))
