"""The first screen says what to do, from plain values, and can be put in place again."""

import re

import numpy as np
import pandas as pd
import pytest

from tests.test_report import text_of
from vnq_colab.errors import DataError
from vnq_colab.evaluation.page import BEGIN, END, board, first_screen, keep_orders, money, replace_first_screen

MONDAY, FRIDAY = pd.Timestamp("2026-07-06 08:30"), pd.Timestamp("2026-07-03")
EVIL = '<script>alert("1")</script>'


def verdict_of(decision="accept", accepted=("HAH", "VFS"), **summary):
    by_year = [{"family": "ensemble", "period": str(year), "open": value, "low": value - 0.03, "high": value + 0.03}
               for year, value in ((2023, 0.08), (2024, -0.02), (2025, 0.1))]
    totals = [{"name": name, "yearly": value, "max_drawdown": 0.3, "last_12_months": 0.05}
              for name, value in (("basket", 0.399), ("equal_weighted", 0.159), ("index", 0.06))]
    basket = {"k": 10, "alpha": 0.198, "alpha_t": 3.7, "beaten": 0.999, "totals": totals,
              "by_year": [{"year": 2023}, {"year": 2025}]}
    symbols = {name: {"decision": "accept" if name in accepted else "reject", "reasons": [], "gates": []}
               for name in ("HAH", "VFS", "STB")}
    families = [{"family": "ensemble", "open": 0.091, "open_t": 12.3}]
    return {"run_id": "run1", "summary": {"power": {"0.04": 0.97}, "basket": basket, "by_year": by_year,
                                          "families": families, "settings": {"slippage": 0.002}} | summary,
            "market": {"decision": decision, "reasons": ["First.", "Second.", "Third."], "gates": []},
            "symbols": symbols}


def orders_of(*rows, **account):
    names = ("action", "symbol", "shares", "reference_price", "limit_low", "limit_high", "rank", "reason")
    orders = pd.DataFrame(rows, columns=list(names)).assign(date=FRIDAY, edge=0.01)
    orders.attrs = account or {"nav": 1e9, "cash": 3e7}
    return orders


SELL = ("sell", "STB", 2_000, 25_000.0, 23_250.0, 26_750.0, 41, "rank 41 of 98, was 8")
BUY = ("buy", "HAH", 1_000, 50_000.0, 46_500.0, 53_500.0, 1, "rank 1 of 98; closed at the ceiling: may not fill")
WAIT = ("wait", "GMD", 1_900, 60_000.0, np.nan, np.nan, 44, "rank 44 of 98, was 9; T+2, Tue afternoon")
KEEP = [("keep", name, 100, 20_000.0, np.nan, np.nan, 2, "") for name in ("DDV", "DPG")]


def screen(verdict=None, now=MONDAY, **parts):
    return first_screen(verdict or verdict_of(), prices_to=FRIDAY, now=now, **parts)


def test_first_screen_says_what_to_do_on_monday():
    html = screen(orders=orders_of(SELL, BUY, WAIT, *KEEP), warnings=["a warning"])
    text = text_of(html)
    for claim in ("Mon 06/07 08:30", "prices to Fri 03/07 (fresh)", "TRADE: the order pays after costs",
                  "2 of 3 stocks accepted: HAH VFS",
                  "BASKET 10 NAV 1.00 bn cash 3% Stock Shares Limit [k VND] Rank (was)",
                  "SELL STB 2,000 23.25–26.75 41 (8)", "BUY HAH 1,000 46.5–53.5 1 WAIT",
                  "WAIT GMD 1,900 T+2, Tue afternoon KEEP", "KEEP DDV DPG",
                  "! HAH closed at the ceiling: may not fill", "! a warning",
                  "AFTER COSTS, 2023 to 2025", "39.9% 15.9% 6.0%",
                  "Alpha +19.8% a year (t 3.7), above 99.9% of random baskets", "ensemble 0.091 (t 12.3)"):
        assert claim in text, claim
    assert "DO NOT TRADE" not in text and "First." not in text and "SESSIONS OLD" not in text
    assert re.findall('href="#(.*?)"', html) == ["why", "years", "stocks", "costs", "method"]


def test_many_accepted_stocks_stand_behind_a_click_beside_the_few_others():
    names = [f"S{place:02}" for place in range(40)]
    verdict = verdict_of(accepted=names)
    verdict["symbols"] |= {name: verdict["symbols"]["HAH"] | {"decision": "accept"} for name in names}
    html = screen(verdict)
    assert "<summary>40 of 43 stocks accepted, not HAH STB VFS</summary>S00 S01" in html


def test_cost_is_fee_tax_and_slippage_of_what_is_sold_and_bought():
    """Sold and bought 50 m each: 0.35 % of both, and 0.1 % tax of the sale."""
    assert "turnover 5%, cost 400,000 (0.04% of NAV)" in text_of(screen(orders=orders_of(SELL, BUY)))
    dear = verdict_of(settings={"slippage": 0.012})
    assert "cost 1.4 m (0.14% of NAV)" in text_of(screen(dear, orders=orders_of(SELL, BUY)))


def test_market_that_is_not_accepted_says_why_and_shows_a_ranking_only():
    waits = [("wait", f"S{rank:02}", 0, 20_000.0, np.nan, np.nan, rank, "the market is not accepted")
             for rank in range(15, 0, -1)]
    ranking = pd.DataFrame({"rank": [1, 2], "symbol": ["S01", "S02"], "edge [%]": [0.8, -0.4]})
    text = text_of(screen(verdict_of("reject", ()), orders=orders_of(*waits), ranking=ranking))
    assert "DO NOT TRADE First. Second." in text and "Third." not in text and "0 of 3 stocks accepted." in text
    assert "RANKING ONLY, NO ORDERS" in text and "1 S01 +0.80 2 S02 -0.40" in text and "WAIT" not in text
    assert "SELL" not in text and "turnover" not in text


def test_account_is_that_of_the_orders():
    orders = orders_of(SELL, BUY, nav=5e8, cash=1e8, k=7, day="2026-07-06")
    assert "BASKET 7 for Mon 06/07 NAV 500.0 m cash 20%" in text_of(screen(orders=orders))


def test_first_screen_without_orders_says_how_to_make_them():
    assert "No orders yet. They are made by notebook 5, or by: python -m vnq_colab predict" in text_of(screen())
    assert "BASKET 10 NAV 1.00 bn cash 3% AFTER COSTS" in text_of(screen(orders=orders_of())), "nothing to do"


@pytest.mark.parametrize("now, n_sessions", [("2026-07-10 20:00", 5), ("2026-07-13 08:30", 6)])
def test_prices_older_than_five_sessions_are_a_red_banner(now, n_sessions):
    html = screen(now=pd.Timestamp(now))
    assert ('class="stale"' in html) == (n_sessions > 5) == ("prices to Fri 03/07/2026" in html)
    assert ("TRADE: the order pays" in html) == (n_sessions <= 5) == ("DO NOT TRADE on old prices" not in html)
    assert n_sessions <= 5 or f"PRICES ARE {n_sessions} SESSIONS OLD" in html


def test_the_note_stands_above_the_decision():
    html = screen(note="SYNTHETIC market", now=FRIDAY)
    assert html.index("SYNTHETIC market") < html.index("TRADE") and 'class="note"' in html
    assert "<b>Fri 03/07</b>" in html, "a made-up market has no hour"


def test_all_stocks_of_the_evening_stand_behind_a_click_with_bars_as_long_as_their_forecasts():
    ranking = pd.DataFrame({"rank": [1, 2, pd.NA], "symbol": ["HAH", EVIL, "STB"], "edge [%]": [0.8, -0.4, np.nan]})
    html = screen(ranking=ranking.astype({"rank": "Int64"}))
    assert "All 2 stocks of the evening" in html and "1 HAH +0.80 2" in text_of(html) and "<script>" not in html
    assert re.findall(r"width: ([\d.]+)%; background: var\(--(\w+)\)", html) == [("45.0", "blue"), ("22.5", "orange")]
    assert "of the evening" not in screen()


def test_bars_of_the_years_lie_on_their_values():
    html = screen()
    bars = [tuple(map(float, found)) for found in re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="[\d.]+" '
                                                             r'height="([\d.]+)"', html)]
    zero = float(re.search(r'<path d="M0 ([\d.]+)H348"', html)[1])
    heights = np.array([height for _, height in bars])
    assert heights / heights[2] == pytest.approx(np.array([0.8, 0.2, 1.0]), abs=0.01)
    assert [y + height for y, height in bars[::2]] == pytest.approx([zero, zero], abs=0.2)
    assert bars[1][0] == pytest.approx(zero, abs=0.1), "a negative one hangs below zero"


def test_first_screen_of_a_verdict_without_basket_years_or_power_is_still_one():
    bare = verdict_of("unjudged", basket=None, by_year=[], families=[], power=None)
    text = text_of(screen(bare))
    assert "DO NOT TRADE: not judged" in text and "too few stocks" in text and "RANK CORRELATION" not in text


def test_first_screen_escapes_every_text():
    evil = verdict_of("review", ())
    evil["market"]["reasons"] = [EVIL]
    evil["symbols"] = {EVIL: {"decision": "accept", "reasons": [], "gates": []}}
    rows = [(action, EVIL, 100, 1e4, 9e3, 1.1e4, 1, f"{EVIL}; {EVIL}: may not fill")
            for action in ("sell", "buy", "keep", "wait")]
    html = screen(evil, orders=orders_of(*rows), note=EVIL, warnings=[EVIL])
    assert "<script" not in html and html.count("&lt;script&gt;") >= 8


def test_another_first_screen_takes_the_place_of_the_old_one(tmp_path):
    path, old = tmp_path / "report.html", screen()
    path.write_text(f"<p>before</p>\n{old}\n<p>after, “kept”</p></html>", encoding="utf-8")
    new = screen(orders=orders_of(SELL))
    replace_first_screen(path, new)
    assert path.read_text(encoding="utf-8") == f"<p>before</p>\n{new}\n<p>after, “kept”</p></html>"
    assert new.startswith(BEGIN) and new.endswith(END) and [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_orders_stay_on_a_report_that_is_made_anew_while_its_verdict_is_the_same(tmp_path):
    path, with_orders = tmp_path / "report.html", screen(orders=orders_of(SELL))
    assert keep_orders(path, screen()) == screen(), "the first report"
    path.write_text(f"<p>before</p>\n{with_orders}\n", encoding="utf-8")
    assert keep_orders(path, screen()) == with_orders
    for decision, orders in (("reject", orders_of(WAIT)), ("accept", orders_of())):  # a ranking alone; nothing to do
        path.write_text(shown := screen(verdict_of(decision), orders=orders), encoding="utf-8")
        assert keep_orders(path, screen(verdict_of(decision))) == shown
    path.write_text(with_orders, encoding="utf-8")
    for other in (verdict_of("reject"), verdict_of(accepted=("HAH",)), verdict_of(power={"0.04": 0.5})):
        assert keep_orders(path, screen(other)) == screen(other)
    later = screen(now=pd.Timestamp("2026-08-06"))
    assert keep_orders(path, later) == later, "the prices are old by now"
    path.write_text(screen(), encoding="utf-8")
    assert keep_orders(path, later) == later, "there were none"


@pytest.mark.parametrize("text", [None, "<p>no marks</p>", f"{END} {BEGIN}", f"{BEGIN} {END} <p>cut sh"])
def test_a_report_without_a_first_screen_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "report.html"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="no report with a first screen. Make it with"):
        replace_first_screen(path, screen())
    assert text is None or path.read_text(encoding="utf-8") == text


def test_amounts_and_prices_are_written_as_people_read_them():
    assert [money(value) for value in (1e9, 1.6e6, 940_000, 0)] == ["1.00 bn", "1.6 m", "940,000", "0"]
    assert [board(value) for value in (21_900.0, 25_000.0, 9_870.0, np.nan)] == ["21.9", "25", "9.87", "–"]
