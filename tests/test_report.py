"""The report is one page that stands alone, says what the results hold, and cannot be broken by a name."""

import base64
import configparser
import io
import json
import re
import types
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.drive_map import FILES
from tests.made_up import SYMBOLS, basket_of, order_of, orders_of, rows_of, scores_of, verdict_of
from vnq_colab.evaluation import page as page_parts
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.evaluation.page import ENVIRONMENT, FORECAST_HASH, number, replace_first_screen
from vnq_colab.evaluation.report import write_report
from vnq_colab.files import sha256_of

NOTE = "Synthetic market: these are not real prices"
EVIL = '<script>alert("1")</script>'
HISTORY = pd.DataFrame({"job": "global_fold1", "symbol": "*", "member": [0, 0, 1, 1], "epoch": [1, 2, 1, 2],
                        "train_loss": 1.0, "skill": [0.01, 0.05, 0.02, 0.07]})
PREVIOUS = {"run_id": "", "text": "Compared on the same days."}
CHECKS = [{"check": "shuffled_labels", "passed": True, "sentence": "A coin's accuracy: 50.2%."},
          {"check": "future_feature", "passed": False, "sentence": "return_1 knows <tomorrow>."}]


def saved(html):
    """The tables behind the links, by name of the file."""
    links = re.findall(r'<a download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)">', html)
    return {name: pd.read_csv(io.BytesIO(base64.b64decode(data))) for name, data in links}


def text_of(html):
    html = re.sub("<(style|script).*?</\\1>", "", re.sub("base64,[^\"]*", "", html), flags=re.DOTALL)
    return re.sub(r"\s+([.,;:])", r"\1", re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)))


def parts_of(**changed):
    """What a run of five symbols hands to the report."""
    forecast, rows = rows_of()
    accounts = types.SimpleNamespace(orders=orders_of("BBB"), symbols=pd.DataFrame(
        {"symbol": SYMBOLS, "return": 0.5, "buy_and_hold_return": 0.6}))
    prices = pd.DataFrame({"symbol": SYMBOLS, "date": forecast["date"].max(), "close": 9_000.0, "raw_close": 12_350.0})
    return {"verdict": verdict_of(previous=PREVIOUS, leak_checks=CHECKS), "order": order_of(), "basket": basket_of(),
            "forecast": forecast.drop(columns="actual"), "rows": rows, "scores": scores_of(), "result": accounts,
            "history": HISTORY, "prices": prices, "facts": {"Run": "run1", "Machine": EVIL},
            "title": "Report"} | changed


def written(folder, note=NOTE, **changed):
    """The page, with figures that are made but not drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "png", lambda figure: b"\x89PNG")
        return write_report(folder, note=note, **parts_of(**changed)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reports") / "run1"


@pytest.fixture(scope="module")
def page(folder):
    return write_report(folder, note=NOTE, **parts_of()).read_text(encoding="utf-8")


@pytest.fixture
def few(tmp_path):
    """The page of too few stocks for a basket, whose intervals, zero forecast, seeds and power are not known."""
    rows = parts_of()["rows"].drop(columns=["low", "high"])
    return written(tmp_path, basket=None, rows=rows, history=HISTORY[:0], verdict=verdict_of(power=None))


# --- the page


def test_page_begins_with_the_first_screen_and_has_what_is_asked_of_a_report(page):
    titles = re.findall("<h2>(.*?)</h2>", page[page.index("<h1>"):])
    assert titles == [
        "Why", "Does the order hold?", "What each family adds", "The basket, year by year", "Costs and capacity",
        "All 5 stocks", "One stock", "Do the intervals hold?",
        "Since the last accepted run", "Leak checks", "While training", "Method, and what to read with care", "The run"]
    assert page.index(NOTE) < page.index("TRADE") < page.index("1 of 5 stocks accepted") < page.index("<h1>")
    assert set(saved(page)) == {f"{name}.csv" for name in (
        "market_gates", "groups", "quantiles", "families", "by_year", "basket_by_year", "equity_by_day", "capacity",
        "symbols", "intervals", "leak_checks")}


def test_page_says_what_the_results_hold(page):
    text = text_of(page)
    for claim in (
        "a rank correlation above 0 passed 0.05 0 0.030 to 0.070", "Charged for 2.",
        "accept 1.0% where the true rank correlation is 0.00, 97.0% where it is 0.04.",
        "five days later: 0.050 (t 4.0), above 0 on 60% of 200 days", "without all four 200 0.030 3.0",
        "horizon 1 200 0.040 8.0", "p 0.004 if they did not", "40% of the best fifth", "20 days before by 0.20",
        "0.90 ± 0.10",
        "exchanged below rank 30 where that pays for its costs, kept at least 3 days, 1 billion VND", "Turnover 30.0",
        "Alpha before costs about +35.0%, after them +20.0% (t 4.0)", "gone at a slippage of 0.60%",
        "10, sold below rank 20, since 2023; 10, sold below rank 30, since 2024", "a larger alpha than 100.0% of them",
        "2 positions were in stocks that vanished (no price on the market's last 25 days). They were settled 30% below",
        "which cost 3.1 m VND here", "90% of the account is in shares on the average day",
        "1 of 5 stocks pass", "of coins 0.4% would, of buy-and-hold –", "Compared on the same days.",
        "shuffled labels passed A coin&#39;s accuracy: 50.2%.",
        "future feature FAILED return_1 knows &lt;tomorrow&gt;.", "differ by 0.014 (standard deviation within a fold) "
        "around a rank correlation of 0.060", "Survivorship", "0.03 is met by the zero forecast per day (over √5)",
            "of 2 folds", "Run run1"):
        assert claim in text, claim
    assert "nan" not in text.lower()


def test_tables_hold_all_digits_with_their_units(page):
    files = saved(page)
    assert files["quantiles.csv"]["5-day excess [%]"].to_list() == pytest.approx([-0.4, -0.1, 0, 0.1, 0.5])
    families = files["families.csv"].set_index("Family")
    assert families["Among the best"].fillna("").to_dict() == {"stockformer": "yes", "momentum": "", "zero": ""}
    assert families["Accuracy [%]"]["stockformer"] == pytest.approx(52) and np.isnan(families["Accuracy [%]"]["zero"])
    assert len(files["by_year.csv"]) == 6 and len(files["equity_by_day.csv"]) == 500
    assert list(files["basket_by_year.csv"]["Basket [%]"]) == pytest.approx([20, 40])
    assert "VNINDEX [%]" not in files["basket_by_year.csv"] and list(files["capacity.csv"]["Not filled [%]"]) == [0, 40]


def test_stocks_have_a_histogram_first_and_a_row_with_reasons_for_each(page):
    assert 0 < page.index('alt="Histogram of the stocks') < page.index('<table id="symbols">')
    for name in SYMBOLS:
        row = re.search(rf"<tr><td>{name}</td>.*?</tr>", page, re.DOTALL)[0]
        assert f'<td class="words detail">Because of {name}.</td>' in row, "read where one stock is shown"
        assert ("has skill" in row) == (name != "AAA") == ('"tag reject"' in row)
    table = saved(page)["symbols.csv"].set_index("Symbol")
    assert list(table.index) == list(SYMBOLS) and table["Accuracy [%]"]["EEE"] == pytest.approx(54)
    assert table["Why"]["BBB"] == "Because of BBB." and table["Share in rank correlation"]["AAA"] == pytest.approx(0.1)
    assert table["Gates that fail"].fillna("").to_list() == ["", *["has skill"] * 4]


def test_one_stock_holds_its_price_rank_and_fills_beside_forecast_and_outcome(page, tmp_path):
    recent = json.loads(re.search(r'id="recent">(.*?)</script>', page, re.DOTALL)[1])
    days, stocks = recent["days"], recent["stocks"]
    assert recent["of"] == 5
    assert list(stocks) == list(SYMBOLS) == re.findall("<option>(.*?)</option>", page)
    assert (len(days), days[0], days[-1]) == (80, "01/01/2024", "19/04/2024")
    one = stocks["BBB"]
    assert one["rank"] == [2] * 80 and one["expected"] == [1] * 80 and one["fills"] == []
    assert one["actual"] == [2] * 75 + [None] * 5, "not known yet"
    assert one["price"] == [None] * 79 + [9.0], "the only day of these prices"
    assert stocks["AAA"]["fills"] == [[days.index("12/03/2024"), 1], [days.index("19/03/2024"), -1]]
    late = parts_of()["forecast"].query("symbol != 'BBB' or date > '2024-02-01'")
    data = json.loads(re.search(r'id="recent">(.*?)</script>', written(tmp_path, forecast=late), re.DOTALL)[1])
    assert data["stocks"]["BBB"]["low"][:2] == [None, None] and data["stocks"]["CCC"]["rank"][0] == 2


def test_intervals_say_too_narrow_and_too_wide(tmp_path):
    parts = []
    for quarter, share in enumerate((0.5, 0.9, 1.0)):
        days = pd.bdate_range(pd.Timestamp(2024, 3 * quarter + 1, 1), periods=60)
        inside = np.tile(np.arange(60) % 20 < 20 * share, 5)
        parts.append(pd.DataFrame({"family": "stockformer", "symbol": np.repeat(SYMBOLS, 60), "date": np.tile(days, 5),
                                   "actual": np.where(inside, 0.01, 0.2), "low": -0.1, "high": 0.1, "actual_open": 0.0,
                                   "score": 0.0}))
    text = text_of(written(tmp_path, rows=pd.concat(parts, ignore_index=True)))
    assert "promise 90% and held 80.0%. Too narrow in 2024 Q1, too wide in 2024 Q3." in text


def test_page_of_few_stocks_leaves_out_what_it_does_not_know(few, tmp_path):
    assert "too few stocks were judged" in few and "no basket was traded" in few
    for title in ("Do the intervals hold?", "Since the last accepted run", "Leak checks", "What a pass is worth"):
        assert title not in few
    assert set(pd.read_parquet(tmp_path / "orders.parquet")["symbol"]) == {"BBB"}
    assert not (tmp_path / "basket.png").exists()


def test_few_days_give_no_numbers_a_year_and_what_is_unknown_is_a_dash(tmp_path):
    order, basket = order_of(), replace(basket_of(), alpha=np.nan, alpha_t=np.nan, break_even=np.nan)
    unknown = {name: table.assign(**{column: np.nan for column in table if column.endswith("_t") or column in (
        "t", "low", "high", "place_error")}) for name, table in vars(order).items() if isinstance(table, pd.DataFrame)}
    order = replace(order, **unknown | {"daily": order.daily}, monotone_p=np.nan, slope_error=np.nan)
    verdict = verdict_of(families=[{"family": "stockformer", "open": 0.05, "open_t": None}], basket=basket.to_dict())
    text = text_of(written(tmp_path, order=order, verdict=verdict, basket=basket))
    assert "in all 68.0% 21.0% worst drawdown" in text and "Too short for numbers a year, alpha among them" in text
    assert "Too short: 500 days tell nothing about a year" in text and "0.050 (t –)" in text
    assert "Alpha" not in text and "random baskets" not in text and "A dash (–): not known, of too few days" in text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_links_of_the_first_screen_lead_somewhere(page, few):
    for text in (page, few):
        links = re.findall('href="#(.*?)"', text)
        assert len(links) == 5 and all(text.count(f'id="{anchor}"') == 1 for anchor in links)


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
            if tag == "table":
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


def test_page_escapes_every_text_and_no_name_can_end_its_script(tmp_path):
    changed = Verdict(**json.loads(json.dumps(verdict_of(symbols=(EVIL, *SYMBOLS[1:])).to_dict())))
    changed.symbols["BBB"]["reasons"] = changed.market["reasons"] = [EVIL]
    changed.market["gates"][0]["asked"] = changed.symbols["BBB"]["gates"][0]["gate"] = EVIL
    changed.summary["text"] = changed.summary["evaluations"]["text"] = EVIL
    forecast, rows = (table.replace("AAA", EVIL) for table in rows_of())
    text = written(tmp_path, note=EVIL, verdict=changed, title=EVIL, facts={EVIL: EVIL}, forecast=forecast.drop(
        columns="actual"), rows=rows, scores=scores_of().assign(accuracy=np.nan, family=EVIL))
    ours = ENVIRONMENT.get_template("script.js").render()
    assert text.replace(ours, "").count("<script") == text.count("</script") == 2, "the page's own, and its data"
    assert text.count("&lt;script&gt;") >= 10


# --- its files


def test_report_writes_the_files_of_the_layout_and_no_other(page, folder):
    promised = {path.rpartition("/")[2] for path in FILES if path.startswith("reports/<run_id>/")}
    assert {path.name for path in folder.iterdir()} == promised - {"evaluations.json"}  # which validation writes
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("basket.png", "symbol_accuracy.png"))


def test_report_tables_are_read_back_as_they_were(page, folder):
    parts = parts_of()
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), parts["scores"], check_dtype=False)
    back = pd.read_parquet(folder / "forecast.parquet")
    pd.testing.assert_frame_equal(back.drop(columns="actual"), parts["forecast"], check_dtype=False)
    assert back["actual"].isna().sum() == 5 * len(SYMBOLS), "open days have no outcome yet"
    stored = Verdict.load(folder / "verdict.json")
    assert stored.summary.pop(FORECAST_HASH) == sha256_of(folder / "forecast.parquet") and stored == parts["verdict"]
    assert set(pd.read_parquet(folder / "orders.parquet")["symbol"]) == {"AAA"}, "those of the basket"


def test_page_without_a_note_takes_the_clock_and_warns_of_old_prices(tmp_path):
    text = written(tmp_path, note="", now=pd.Timestamp("2026-07-06 08:30"))
    assert 'class="note"' not in text and "SESSIONS OLD" in text and "Mon 06/07 08:30" in text


def test_report_without_an_accuracy_says_so_and_shows_the_rest(tmp_path):
    text = written(tmp_path, scores=scores_of().assign(accuracy=np.nan))
    assert "nothing of &#39;stockformer&#39; has an accuracy" in text and 'alt="Value and drawdown' in text
    assert not (tmp_path / "symbol_accuracy.png").exists()


def test_report_written_again_is_the_same_and_its_first_screen_can_be_replaced(page, tmp_path):
    path = write_report(tmp_path, note=NOTE, **parts_of())
    assert path.read_text(encoding="utf-8") == page
    replace_first_screen(path, "<!-- first screen -->new<!-- end of the first screen -->")
    assert path.read_text("utf-8").endswith(page[page.index("<h1>"):]) and "new" in path.read_text("utf-8")


# --- tables and numbers


@pytest.mark.parametrize("value, form, text", [
    (0.5, ".1f", "0.5"), (-3, "+.1f", "-3.0"), (1234.5, ",.0f", "1,234"), (0.399, ".1%", "39.9%"),
    ("too short", ".1f", "too short"), (None, ".1f", "–"), (np.nan, ".1f", "–"), (np.inf, ".1f", "–"),
    (pd.NA, ".1f", "–")])
def test_number_is_a_text_or_a_dash(value, form, text):
    assert number(value, form) == text


def table_of(*columns, **options):
    return ENVIRONMENT.get_template("parts.html").module.table("x", columns, **options)


def test_table_shows_few_digits_and_its_csv_has_all_of_them():
    html = table_of(["Family", ["ours", "zero"]], ["Accu\u00adracy [%]", [52.3456, np.nan], ".1f"],
                    ["95% interval [%]", np.array([[50.25, 54.5], [np.nan, np.nan]]), "+.1f"],
                    ["Why", ["because", "of"], "words"])
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["ours", "52.3", "+50.2 to +54.5", "because", "zero", "–", "–", "of"]
    assert '<th class="words">Why</th>' in html and '<td class="words">because</td>' in html and "<input" not in html
    kept = saved(html)["x.csv"]
    assert list(kept.columns) == ["Family", "Accuracy [%]", "95% interval [%], low", "95% interval [%], high", "Why"]
    assert kept.iloc[0].to_list() == ["ours", 52.3456, 50.25, 54.5, "because"] and kept.iloc[1, 1:4].isna().all()


def test_table_without_rows_is_still_a_table():
    html = table_of(["Symbol", []], ["Interval", np.empty((0, 2)), ".1f"])
    assert "<tbody>" in html and len(saved(html)["x.csv"]) == 0


def test_csv_is_utf8_with_plain_dates():
    frame = pd.DataFrame({"date": [pd.Timestamp("2024-03-01")], "Giá [VND]": [123_456_789.0]})
    kept = pd.read_csv(io.BytesIO(page_parts.csv(frame)))
    assert kept.iloc[0].to_list() == ["2024-03-01", 123_456_789.0] and list(kept.columns) == ["date", "Giá [VND]"]


def test_wheel_holds_every_template():
    house, setup = Path(__file__).parent.parent, configparser.ConfigParser()
    setup.read(house / "setup.cfg", encoding="utf-8")
    packed = {path for pattern in setup["options.package_data"]["vnq_colab"].split()
              for path in (house / "vnq_colab").glob(pattern)}
    assert set((house / "vnq_colab/evaluation/templates").iterdir()) == packed
    assert set(ENVIRONMENT.list_templates()) == {path.name for path in packed}
