"""The report in a browser: axe-core finds nothing serious, a phone shows it whole, its tables sort and search."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.made_up import basket_of, order_of, scores_of, verdict_of
from tests.test_first_screen import BUY, KEEP, SELL, WAIT
from tests.test_first_screen import orders_of as first_orders
from tests.test_report import parts_of
from vnq_colab.data.features import FEATURES
from vnq_colab.evaluation.page import first_screen, replace_first_screen
from vnq_colab.evaluation.reasons import WHY, Explanation
from vnq_colab.evaluation.report import write_report

SCRIPT = Path(__file__).with_name("report_page.js")
PACKAGES = ("puppeteer-core@25.16.0", "axe-core@4.14.1")
WHY_TEXTS = ("14-day CCI +0.9, range over 20-day mean (low) +0.6, 20-day volume correlation (high) +0.5",
             "rank of 5-day return (high) -0.4, nothing else", "trees alone (rank 6)")
MANY = tuple(f"S{place:02}" for place in range(40))


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What `report_page.js` saw, by width and theme, of a report of forty stocks with the orders of an evening."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not (browser and shutil.which("npm") and shutil.which("node")):
        pytest.skip("needs node, npm and Chromium")
    folder = tmp_path_factory.mktemp("page")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm could not install {', '.join(PACKAGES)}: {done.stderr[-200:]}")
    page = written(folder)
    done = subprocess.run(["node", SCRIPT, browser, folder / "profile", page], capture_output=True, text=True,
                          timeout=300, env=os.environ | {"NODE_PATH": str(folder / "node_modules")})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(folder):
    days = pd.bdate_range("2024-01-01", periods=130)
    table = pd.MultiIndex.from_product([("stockformer",), MANY, days], names=["family", "symbol", "date"])
    table = table.to_frame(index=False)
    random = np.random.default_rng(0)
    actual = 0.03 * random.standard_normal(len(table))
    table = table.assign(mean=0.2 * actual, p_up=0.6, low=-0.05, high=0.06, actual=actual, actual_open=actual,
                         score=actual + 0.1 * random.standard_normal(len(table)))
    prices = table[["symbol", "date"]].assign(close=20_000 * np.exp(np.cumsum(0.2 * actual)))
    prices = prices[prices["symbol"] != MANY[-1]]
    equity = basket_of().equity
    basket = basket_of(value=equity["basket"], universe=equity["equal_weighted"])
    years = [{"family": "stockformer", "period": str(year), "open": 0.09, "low": 0.05, "high": 0.13}
             for year in range(2018, 2026)]
    verdict = verdict_of(MANY, by_year=years, basket=basket.to_dict(), families=[
        {"family": "stockformer", "open": 0.105, "open_t": 14.2}])
    why = pd.DataFrame(dict(zip(WHY, WHY_TEXTS, strict=True)), index=pd.Index(MANY, name="symbol"))
    weights = pd.DataFrame({"mean": 0.3, "min": 0.2, "max": 0.4}, index=[*FEATURES])
    path = write_report(folder, note="", **parts_of(
        verdict=verdict, order=order_of(MANY), basket=basket, forecast=table.drop(columns="actual"), rows=table,
        scores=scores_of(symbols=MANY), prices=prices, explained=Explanation("trees", why, weights)))
    ranking = why.reset_index().assign(rank=range(1, 41), **{"edge [%]": 0.5})
    orders = first_orders(*[SELL] * 3, *[BUY] * 3, WAIT, *KEEP * 8, nav=1e9, cash=3e7, k=20, day="2026-07-06")
    day = pd.Timestamp("2026-07-03")
    replace_first_screen(path, first_screen(verdict.to_dict(), orders=orders, ranking=ranking, prices_to=day,
                                            now=day))
    return path


@pytest.mark.slow
def test_page_has_no_serious_finding_of_axe_and_no_error_in_light_and_dark(seen):
    assert len(seen) == 4
    for place, facts in seen.items():
        assert facts["findings"] == facts["errors"] == [] and facts["alone"] == 0, place


@pytest.mark.slow
def test_phone_shows_everything_without_scrolling_sideways_in_text_of_14_pixels(seen):
    for theme in ("light", "dark"):
        phone = seen[f"390 {theme}"]
        assert phone["width"] == 390 and phone["wide"] == [] and phone["small"] == []
        assert phone["first"] <= 844, "the first screen of a usual evening is complete"


@pytest.mark.slow
def test_table_sorts_searches_and_leads_to_the_stock(seen):
    for facts in seen.values():
        used = facts["used"]
        assert used["before"] == used["up"] == list(MANY) and used["down"] == list(MANY)[::-1]
        assert used["found"] == ["S01"] and used["chosen"] == "S01" and used["drawn"] > 10
        assert "reject" in used["said"] and "Because of S01." in used["said"]
        assert not any(word in used["vanished"] for word in ("NaN", "Infinity", "null")), "a stock without a price"
