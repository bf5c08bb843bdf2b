"""The report is one page that stands alone, says everything it must, and cannot be broken by a name."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from tests.drive_map import FILES
from tests.made_up import SYMBOLS, basket_of, order_of, verdict_of
from tests.test_cards import accounts_of, rows_of, scores_of
from tests.test_page import saved
from vnq_colab.evaluation.first_screen import replace_first_screen
from vnq_colab.evaluation.page import SCRIPT
from vnq_colab.evaluation.report import write_report
from vnq_colab.evaluation.verdict import Verdict

NOTE = "Synthetic market: these are not real prices"
EVIL = '<script>alert("1")</script>'
HISTORY = pd.DataFrame({"job": "stockformer_fold1_pack00", "symbol": "AAA", "member": 0, "epoch": [1, 2],
                        "train_loss": 1.0, "skill": [-0.05, 0.05]})


def parts_of(**changed):
    """What a run of five symbols hands to the report."""
    forecast, rows = rows_of()
    accounts = accounts_of()
    accounts.orders = pd.DataFrame({"symbol": ["BBB"]})
    prices = pd.DataFrame({"symbol": SYMBOLS, "date": forecast["date"].max(), "close": 9_000.0})
    return {"verdict": verdict_of(), "order": order_of(), "basket": basket_of(),
            "forecast": forecast.drop(columns="actual"), "rows": rows, "scores": scores_of(), "result": accounts,
            "history": HISTORY, "prices": prices, "facts": {"Run": "run1", "Machine": EVIL},
            "title": "Report"} | changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "run1"
    write_report(folder, note=NOTE, **parts_of())
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_page_begins_with_the_first_screen_and_says_what_is_asked_of_a_report(page):
    titles = re.findall("<h2>(.*?)</h2>", page[page.index("<h1>"):])
    assert titles == [
        "Why", "Does the order hold?", "What each family adds", "The basket, year by year", "Costs and capacity",
        "All 5 stocks", "One stock: forecast and outcome", "Do the intervals hold?", "The original gates",
        "While learning", "Method, and what to read with care", "The run"]
    assert page.index(NOTE) < page.index("TRADE") < page.index("1 of 5 stocks accepted") < page.index("<h1>")
    for claim in ("Survivorship", "0.03 is met by the zero forecast per day (over √5)", "of 2 folds", "run1"):
        assert claim in page, claim


def test_links_of_the_first_screen_lead_somewhere(page, tmp_path):
    few = write_report(tmp_path, **parts_of(basket=None)).read_text(encoding="utf-8")
    for text in (page, few):
        links = re.findall('href="#(.*?)"', text)
        assert len(links) == 5 and all(text.count(f'id="{anchor}"') == 1 for anchor in links)


def test_report_of_few_stocks_has_no_basket_and_is_still_a_report(tmp_path):
    text = write_report(tmp_path, **parts_of(basket=None)).read_text(encoding="utf-8")
    assert "too few stocks were judged" in text and "no basket was traded" in text
    assert pd.read_parquet(tmp_path / "orders.parquet")["symbol"].to_list() == ["BBB"]
    assert not (tmp_path / "basket.png").exists()


def test_report_writes_the_files_of_the_layout_and_no_other(folder):
    promised = {path.rpartition("/")[2] for path in FILES if path.startswith("reports/<run_id>/")}
    assert {path.name for path in folder.iterdir()} == promised - {"evaluations.json"}  # which validation writes


def test_report_tables_are_read_back_as_they_were(folder):
    parts = parts_of()
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), parts["scores"], check_dtype=False)
    back = pd.read_parquet(folder / "forecast.parquet")
    pd.testing.assert_frame_equal(back.drop(columns="actual"), parts["forecast"], check_dtype=False)
    assert back["actual"].isna().sum() == 5 * len(SYMBOLS), "open days have no outcome yet"
    assert Verdict.load(folder / "verdict.json") == parts["verdict"]
    assert pd.read_parquet(folder / "orders.parquet")["symbol"].to_list() == ["AAA"], "those of the basket"
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("basket.png", "symbol_accuracy.png"))


def test_page_needs_no_network_and_no_other_file(page):
    addresses = re.findall(r"""(?:src|href|url)=["']?([^"'\s>]+)""", page)
    kinds = {address.partition("base64,")[0] for address in addresses if not address.startswith("#")}
    assert kinds == {"data:image/png;", "data:text/csv;charset=utf-8;"}
    texts = re.sub(r"base64,[^\"']+", "", page)
    assert "http" not in texts and "@import" not in texts and "url(" not in texts and len(page) < 2e6


def test_page_is_well_formed_and_ready_for_a_phone(page):
    class Parser(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag == "table" and dict(attrs).get("class") not in ("facts", "heat"):
                assert self.open[-1] == "div"  # its own scroll container
            if tag not in ("meta", "img", "input"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Parser()
    parser.feed(page)
    assert parser.open == []
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert '<meta charset="utf-8">' in page
    names = re.findall(' id="(.*?)"', page)
    assert len(names) == len(set(names)), "what the script looks for is there once"


def test_page_escapes_every_text(tmp_path):
    changed = Verdict.from_dict(json.loads(json.dumps(verdict_of().to_dict())))
    changed.symbols["AAA"]["reasons"] = changed.market["reasons"] = [EVIL]
    changed.market["gates"][0]["asked"] = changed.symbols["BBB"]["gates"][0]["gate"] = EVIL
    changed.summary["text"] = changed.summary["evaluations"]["text"] = EVIL
    path = write_report(tmp_path, note=EVIL, **parts_of(verdict=changed, title=EVIL, facts={EVIL: EVIL}))
    page = path.read_text(encoding="utf-8")
    ours = page.replace(f"<script>{SCRIPT}</script>", "")
    assert ours.count("<script") == ours.count('<script type="application/json"') == 1
    assert page.count("&lt;script&gt;") >= 7


def test_every_table_can_be_taken_along_with_its_units(page):
    assert set(saved(page)) == {
        "market_gates.csv", "groups.csv", "quantiles.csv", "families.csv", "by_year.csv", "basket_by_year.csv",
        "equity_by_day.csv", "capacity.csv", "symbols.csv", "intervals.csv"}


def test_page_without_a_note_takes_the_clock_and_warns_of_old_prices(tmp_path):
    page = write_report(tmp_path, now=pd.Timestamp("2026-07-06 08:30"), **parts_of()).read_text(encoding="utf-8")
    assert 'class="note"' not in page and "SESSIONS OLD" in page and "Mon 06/07 08:30" in page


def test_report_without_an_accuracy_says_so_and_shows_the_rest(tmp_path):
    path = write_report(tmp_path, **parts_of(scores=scores_of().assign(accuracy=np.nan)))
    page = path.read_text(encoding="utf-8")
    assert "nothing of &#x27;stockformer&#x27; has an accuracy" in page and 'alt="Basket"' in page
    assert not (tmp_path / "symbol_accuracy.png").exists()


def test_report_written_again_is_the_same_and_its_first_screen_can_be_replaced(folder, page):
    write_report(folder, note=NOTE, **parts_of())
    path = folder / "report.html"
    assert path.read_text(encoding="utf-8") == page
    replace_first_screen(path, "<!-- first screen -->new<!-- end of the first screen -->")
    assert path.read_text(encoding="utf-8").endswith(page[page.index("<h1>"):]) and "new" in path.read_text("utf-8")
    write_report(folder, note=NOTE, **parts_of())
