"""The report is one page that stands alone, says everything it must, and cannot be broken by a name."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from tests.test_page import saved
from tests.tiny import forecast_of, panel_of
from vnq_colab.evaluation import power
from vnq_colab.evaluation.accounts import compare_strategies
from vnq_colab.evaluation.backtest import backtest
from vnq_colab.evaluation.chance import random_band
from vnq_colab.evaluation.gates import Verdict, judge
from vnq_colab.evaluation.metrics import score, with_outcomes
from vnq_colab.evaluation.order import rank_correlations
from vnq_colab.evaluation.report import write_report
from vnq_colab.layout import FILES

NOTE = "Synthetic market: these are not real prices"
EVIL = '<script>alert("1")</script>'


@pytest.fixture(scope="module")
def parts():
    """What a run of five symbols and 200 days hands to the report, without a history."""
    random = np.random.default_rng(0)
    days = pd.bdate_range("2023-01-02", periods=200)
    symbols = ("AAA", "BBB", "CCC", "DDD", "EEE")
    returns = random.normal(0.0003, 0.02, (5, 200))
    returns[:, 0] = np.nan
    close = 20_000 * np.exp(np.nancumsum(returns, axis=1))
    prices = pd.concat([pd.DataFrame({"symbol": symbol, "date": days, "open": close[row], "high": close[row],
                                      "low": close[row], "close": close[row], "volume": 1000})
                        for row, symbol in enumerate(symbols)])
    panel = panel_of(returns, symbols, days)
    sizes = {"stockformer": 0.01, "momentum": 0.01, "zero": 0.0}
    forecast = pd.concat([forecast_of(symbol, days[10:190], 2 * size * random.normal(0, 1, 180), family=family)
                          for symbol in symbols for family, size in sizes.items()])
    forecast = forecast.assign(low=-0.08, high=0.08)
    scores, result = score(forecast, panel), backtest(forecast, prices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(power, "N_SIMULATED", 8)  # the page shows them, whatever they say
        verdict = judge(scores, result, run_id="run1")
    rows = with_outcomes(forecast, panel)
    return {"forecast": forecast, "scores": scores, "result": result, "verdict": verdict, "rows": rows,
            "order": rank_correlations(rows), "chance": random_band(result, n_strategies=50), "prices": prices,
            "strategies": compare_strategies(forecast, prices, n_trials=7)}


LEFT_OUT = ("rows", "order", "chance", "prices", "strategies")  # when they are not given


HISTORY = pd.DataFrame({"job": "stockformer_fold1_pack00", "symbol": "AAA", "member": 0, "epoch": [1, 2],
                        "train_loss": 1.0, "skill": [-0.05, 0.05]})


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports") / "run1"
    write_report(folder, title="Report", facts={"Run": "run1", "Machine": EVIL}, history=HISTORY, note=NOTE, **parts)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_page_says_what_is_asked_of_a_report(page):
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "The order of a day", "Rank correlation by year",
        "Which directions are right", "The model and its opponents, same days", "Skill, over all symbols",
        "What p_up is worth", "Do the intervals hold?", "Gate by gate", "In an account", "Strategy beside buy-and-hold",
        "What a pass is worth", "What changed since the last accepted run", "While learning", "Strategies",
        "By exchange and liquidity", "Symbol by symbol", "The last days, symbol by symbol", "Read with care", "The run"]
    for label in ("Balanced accuracy [%]", "CRPS [log return]", "MCC", "Calmar ratio", "Deflated Sharpe [%]"):
        assert label in page, label


def test_page_tests_skill_over_all_symbols_and_says_what_luck_would_have_done(page):
    assert "Skill, over all symbols" in page and "Diebold and Mariano" in page
    assert "intervals that promise 90% held" in page and "Of 50 random strategies" in page


def test_report_without_outcomes_or_luck_is_still_a_report(parts, tmp_path):
    few = {name: part for name, part in parts.items() if name not in LEFT_OUT}
    text = write_report(tmp_path, title="Report", facts={}, history=HISTORY, **few).read_text(encoding="utf-8")
    assert "Skill, over all symbols" not in text and "random strategies" not in text and "Gate by gate" in text
    for title in ("<h2>Strategies</h2>", "By exchange", "The order of a day", "The last days"):
        assert title not in text


def test_report_writes_the_files_of_the_layout_and_no_other(folder):
    promised = {path.rpartition("/")[2] for path in FILES if path.startswith("reports/")}
    assert {path.name for path in folder.iterdir()} == promised - {"looks.json"}  # which validation writes


def test_report_tables_are_read_back_as_they_were(folder, parts):
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "scores.parquet"), parts["scores"])
    back = pd.read_parquet(folder / "forecast.parquet")
    pd.testing.assert_frame_equal(back, parts["forecast"].reset_index(drop=True), check_dtype=False)
    assert Verdict.load(folder / "verdict.json") == parts["verdict"]
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("equity.png", "symbol_accuracy.png"))


def test_page_needs_no_network_and_no_other_file(page):
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    kinds = [address.partition("base64,")[0] for address in addresses]
    assert kinds.count("data:image/png;") == 5 and set(kinds) == {"data:image/png;", "data:text/csv;charset=utf-8;"}
    texts = re.sub(r"base64,[^\"']+", "", page)
    assert "http" not in texts and "<script" not in page and "@import" not in page


def test_page_is_well_formed_and_ready_for_a_phone(page):
    class Parser(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.tables = [], 0

        def handle_starttag(self, tag, attrs):
            if tag == "table" and dict(attrs).get("class") != "facts":
                self.tables += 1
                assert self.open[-1] == "div"  # its own scroll container
            if tag not in ("meta", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    parser = Parser()
    parser.feed(page)
    assert parser.open == [] and parser.tables == page.count('<div class="scroll"><table>') == 12 + 5
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert '<meta charset="utf-8">' in page


def test_page_escapes_every_text(parts, tmp_path):
    changed = Verdict.from_dict(json.loads(json.dumps(parts["verdict"].to_dict())))
    changed.symbols["AAA"]["reasons"] = [EVIL]
    changed.symbols["AAA"]["decision"] = "reject"
    changed.symbols["AAA"]["gates"][0]["gate"] = changed.symbols["AAA"]["gates"][0]["asked"] = EVIL
    changed.summary["text"] = EVIL
    path = write_report(tmp_path, title=EVIL, facts={EVIL: EVIL}, history=HISTORY, note=EVIL,
                        **(parts | {"verdict": changed}))
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page and page.count("&lt;script&gt;") >= 7


def test_page_says_the_verdict_the_note_and_the_warnings(page, parts):
    text = re.sub(r"<[^>]+>", " ", page)
    head = page.index("<h2>")
    assert 0 < page.index(NOTE) < head and 0 < page.index(parts["verdict"].summary["text"]) < head
    for claim in ("0.03 is met by the zero forecast per day (over √5) and out of reach for five days",
                  "survivorship", "fee 0.15% of each trade, tax 0.10% of each sale, slippage 0.20%", "momentum",
                  "original", "Coins", "Buy-and-hold", "Test days 2023-01-16 to", "run1"):
        assert claim in text, claim


def test_page_has_a_row_with_its_reasons_for_every_symbol(page, parts):
    for symbol, found in parts["verdict"].symbols.items():
        row = re.search(rf"<tr><td>{symbol}</td>.*?</tr>", page)[0]
        assert f'"tag {found["decision"]}"' in row
        assert all(reason.replace("'", "&#x27;") in row for reason in found["reasons"])


def test_every_table_can_be_taken_along_with_its_units(page, parts):
    files = saved(page)
    assert set(files) == {"rank_correlations.csv", "rank_correlations_by_year.csv",
                          "opponents.csv", "more_measures.csv", "skill.csv", "intervals.csv", "gates.csv",
                          "accounts_by_day.csv", "accounts.csv", "gate_sets.csv", "strategies.csv", "groups.csv",
                          "symbols.csv", "predictions.csv"}
    whole = parts["order"][0]
    assert files["rank_correlations.csv"]["Open to open"].tolist() == pytest.approx(whole["open"].tolist())
    symbols = files["symbols.csv"].set_index("Symbol")
    mine = parts["scores"].set_index(["family", "symbol"]).loc["stockformer"]
    assert symbols["Accuracy [%]"].to_dict() == pytest.approx((100 * mine["accuracy"]).to_dict())
    assert list(files["strategies.csv"]["Return [%]"]) == pytest.approx(list(100 * parts["strategies"]["return"]))
    by_day = files["accounts_by_day.csv"]
    assert list(by_day["strategy [VND]"]) == pytest.approx(list(parts["result"].equity["strategy"]))
    assert {"buy_and_hold [VND]", "random p5 [VND]"} <= set(by_day.columns)
    assert len(files["predictions.csv"]) == 5 * 5, "the last five of each symbol; none is still open"


def test_page_shows_the_last_days_of_each_symbol_behind_a_click(page):
    card = page[page.index("The last days, symbol by symbol"):page.index("predictions.csv")]
    assert re.findall(r"<summary>(\w+): \d of \d right", card) == ["AAA", "BBB", "CCC", "DDD", "EEE"]


def test_page_without_a_note_has_no_banner(parts, tmp_path):
    page = write_report(tmp_path, title="Report", facts={}, history=HISTORY, **parts).read_text(encoding="utf-8")
    assert 'class="note"' not in page


def test_report_without_an_accuracy_says_so_and_shows_the_rest(parts, tmp_path):
    unknown = parts | {"scores": parts["scores"].assign(accuracy=np.nan)}
    path = write_report(tmp_path, title="Report", facts={}, history=HISTORY.iloc[:0], **unknown)
    page = path.read_text(encoding="utf-8")
    assert "nothing of &#x27;stockformer&#x27; has an accuracy" in page and page.count("<img") == 4
    assert not (tmp_path / "symbol_accuracy.png").exists()


def test_report_can_be_written_again_and_is_the_same(folder, parts, page):
    write_report(folder, title="Report", facts={"Run": "run1", "Machine": EVIL}, history=HISTORY, note=NOTE, **parts)
    assert (folder / "report.html").read_text(encoding="utf-8") == page
