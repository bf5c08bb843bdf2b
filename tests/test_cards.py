"""The cards of the report say what the results hold."""

import json
import re
import types

import numpy as np
import pandas as pd
import pytest

from tests.made_up import SYMBOLS, basket_of, order_of, verdict_of
from tests.test_page import saved
from vnq_colab.evaluation import cards

IMAGES = dict.fromkeys(("order", "basket", "random_baskets", "accuracies", "symbol_accuracy"), b"")
EVIL = '<script>alert("1")</script>'


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub("base64,[^\"]*", "", html)))


def scores_of(family="stockformer"):
    names = ("accuracy", "accuracy_low", "accuracy_high", "base_rate", "flat_share", "up_share", "rmse_5", "rmse_day",
             "correlation", "rank_correlation")
    table = pd.DataFrame({"family": family, "symbol": SYMBOLS, "n_days": 200, "n_directed": 190, "n_independent": 38})
    return table.assign(**dict.fromkeys(names, 0.05)).assign(accuracy=np.linspace(0.5, 0.54, 5))


def accounts_of():
    return types.SimpleNamespace(symbols=pd.DataFrame({"symbol": SYMBOLS, "return": 0.5, "buy_and_hold_return": 0.6}))


def rows_of(n_days=80, n_known=75):
    days = pd.bdate_range("2024-01-01", periods=n_days)
    table = pd.MultiIndex.from_product([("stockformer",), SYMBOLS, days],
                                       names=["family", "symbol", "date"]).to_frame(index=False)
    table = table.assign(mean=np.log(1.01), p_up=0.6, low=np.log(0.95), high=np.log(1.05), actual=np.log(1.02))
    return table, table[table["date"] <= days[n_known - 1]]


def test_why_shows_each_question_to_the_market_and_what_a_pass_is_worth():
    html = cards.why(verdict_of())
    assert '<section class="card" id="why">' in html
    assert "a rank correlation above 0 passed 0.05 0 0.030 to 0.070" in text_of(html)
    assert "accept is 1.0% where the true rank correlation is 0.00, 97.0% where it is 0.04." in text_of(html)
    assert "Charged for 2." in html and "What a pass is worth" not in cards.why(verdict_of(power=None))


def test_order_is_told_by_quantile_horizon_group_and_day():
    html = cards.holds(order_of(), IMAGES)
    text = text_of(html)
    for claim in ("Without: all four 200 0.030 3.0", "Horizon [days]: 1 200 0.040 8.0", "with p 0.004",
                  "40% of the best fifth", "20 days before by 0.20", "0.90 ± 0.10"):
        assert claim in text, claim
    assert saved(html)["quantiles.csv"]["5-day excess [%]"].to_list() == pytest.approx([-0.4, -0.1, 0, 0.1, 0.5])


def test_families_name_those_that_cannot_be_told_from_the_best():
    html = cards.families(order_of(), verdict_of(), scores_of())
    table = saved(html)["families.csv"].set_index("Family")
    assert table["Among the best"].fillna("").to_dict() == {"stockformer": "yes", "momentum": "", "zero": ""}
    assert table["Accuracy [%]"]["stockformer"] == pytest.approx(52) and np.isnan(table["Accuracy [%]"]["zero"])
    assert len(saved(html)["by_year.csv"]) == 6


def test_basket_is_told_by_year_month_cost_and_capital():
    html = cards.basket(basket_of(), IMAGES)
    text = text_of(html)
    for claim in ("exchanged below rank 30 where that pays for its costs", "kept at least 3 days, 1 billion VND",
                  "Turnover 30.0 a year",
                  "Before costs the alpha would be about +35.0%, after them it is +20.0% (t 4.0)",
                  "gone at a slippage of 0.60%",
                  "10, sold below rank 20, since 2023; 10, sold below rank 30, since 2024",
                  "90% of the account is in shares on the average day", "a larger alpha than 100.0% of them"):
        assert claim in text, claim
    files = saved(html)
    assert list(files["basket_by_year.csv"]["Basket [%]"]) == pytest.approx([20, 40])
    assert list(files["capacity.csv"]["Not filled [%]"]) == [0, 40] and len(files["equity_by_day.csv"]) == 500
    assert re.findall('id="(years|costs)"', html) == ["years", "costs"]


def test_months_are_the_changes_between_their_last_days():
    days = pd.to_datetime(["2023-01-02", "2023-01-31", "2023-02-28", "2023-04-28", "2024-01-31"])
    html = cards._months(pd.Series([100.0, 110.0, 99.0, 99.0, 118.8], index=days))
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in html.split("<tr>")[2:]]
    assert cells[0] == ["2023", "10", "-10", "", "0", *[""] * 8] and cells[1][:3] == ["2024", "20", ""]
    colours = re.findall("background:#(......)", html)
    assert colours[0] == "0072B2" and colours[1] == "D55E00", "gains and losses are told apart by colour-blind people"


def test_no_basket_is_said():
    assert "no basket was traded" in cards.basket(None, {})


def test_stocks_have_a_histogram_first_and_a_row_with_reasons_for_each():
    html = cards.stocks(order_of(), scores_of(), accounts_of(), verdict_of(), IMAGES)
    assert 0 < html.index('alt="Accuracies"') < html.index('<table id="symbols">')
    for name in SYMBOLS:
        row = re.search(rf"<tr><td>{name}</td>.*?</tr>", html, re.DOTALL)[0]
        assert f"Because of {name}." in row
        assert ("fails: has skill" in row) == (name != "AAA") == ('"tag reject"' in row)
    table = saved(html)["symbols.csv"].set_index("Symbol")
    assert list(table.index) == list(SYMBOLS) and table["Accuracy [%]"]["EEE"] == pytest.approx(54)
    assert table["Why"]["BBB"] == "Because of BBB." and table["Place in the order"]["AAA"] == pytest.approx(0.1)


def test_one_stock_holds_the_last_price_changes_of_each_with_raw_prices():
    forecast, rows = rows_of()
    prices = pd.DataFrame({"symbol": SYMBOLS, "date": forecast["date"].max(), "close": 9_000.0, "raw_close": 12_350.0})
    html = cards.one_stock(forecast.drop(columns="actual"), rows, "stockformer", verdict_of(), prices)
    data = json.loads(re.search(r'id="recent">(.*?)</script>', html, re.DOTALL)[1])
    assert set(data) == set(SYMBOLS) and len(data["AAA"]["expected"]) == cards.N_RECENT
    one = data["BBB"]
    assert one["expected"][0] == 1 and one["actual"] == [2] * cards.N_RECENT
    assert one["about"].startswith("reject. Close 12.35 thousand VND. ")
    assert re.findall("<option>(.*?)</option>", html) == list(SYMBOLS)


def test_a_name_cannot_end_the_script():
    forecast, rows = (table.replace("AAA", EVIL) for table in rows_of())
    prices = pd.DataFrame({"symbol": [EVIL], "date": forecast["date"].max(), "close": 9_000.0})
    html = cards.one_stock(forecast.drop(columns="actual"), rows, "stockformer", verdict_of(), prices)
    assert html.count("<script") == html.count("</script") == 1 and "&lt;script&gt;" in html


def test_intervals_say_too_narrow_and_too_wide():
    parts = []
    for quarter, share in enumerate((0.5, 0.9, 1.0)):
        days = pd.bdate_range(pd.Timestamp(2024, 3 * quarter + 1, 1), periods=60)
        inside = np.tile(np.arange(60) % 20 < 20 * share, 5)
        parts.append(pd.DataFrame({"family": "stockformer", "symbol": np.repeat(SYMBOLS, 60), "date": np.tile(days, 5),
                                   "actual": np.where(inside, 0.01, 0.2), "low": -0.1, "high": 0.1}))
    text = text_of(cards.intervals(pd.concat(parts, ignore_index=True), "stockformer"))
    assert "promise 90% and held 80.0%" in text and "Too narrow in 2024 Q1." in text and "Too wide in 2024 Q3." in text
    assert cards.intervals(parts[0].drop(columns=["low", "high"]), "stockformer") == ""


def test_original_gates_say_what_coins_would_pass():
    assert "1 of 5 stocks pass" in (text := text_of(cards.original(verdict_of())))
    assert "of coins 0.4% would, of buy-and-hold –" in text


def test_changes_are_shown_where_there_was_an_accepted_run():
    assert cards.changes(verdict_of()) == ""
    previous = {"run_id": "", "text": "Not compared: <damaged>.", "kept": [], "symbols": {}}
    html = cards.changes(verdict_of(previous=previous))
    assert "Not compared: &lt;damaged&gt;." in html and "<table" not in html
    previous |= {"kept": ["BBB"], "symbols": {
        name: {"old_accuracy": 0.6, "new_accuracy": 0.5, "old_decision": "accept"} for name in ("AAA", "BBB")}}
    table = saved(cards.changes(verdict_of(previous=previous)))["changes.csv"]
    assert list(table["Symbol"]) == ["BBB", "AAA"], "those that got worse are first"
    assert list(table["old accuracy"]) == [0.6, 0.6] and list(table["old decision"]) == ["accept"] * 2


def test_leak_checks_are_shown_where_they_were_made():
    assert cards.leak_checks(verdict_of()) == ""
    checks = [{"check": "shuffled_labels", "passed": True, "sentence": "A coin's accuracy: 50.2%."},
              {"check": "future_feature", "passed": False, "sentence": "return_1 knows <tomorrow>."}]
    html = cards.leak_checks(verdict_of(leak_checks=checks))
    assert "shuffled labels passed A coin&#x27;s accuracy: 50.2%." in text_of(html)
    assert "future feature FAILED return_1 knows &lt;tomorrow&gt;." in text_of(html)
