import argparse
import contextlib
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vnq_colab import files
from vnq_colab.arguments import collect
from vnq_colab.delivery.bundle import Bundle, export_bundle
from vnq_colab.delivery.predict import look_ahead, orders, plan_day, ranking
from vnq_colab.errors import CheckpointError, ConfigError, DataError, DeliveryError, StorageError
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.layout import Workspace


def tomorrow(bundle, prices, *, everyone=False, **given):
    """The ranking of the accepted symbols, or of all, and what is to be said of the prices."""
    outlook = look_ahead(bundle, prices, **given)
    table = ranking(outlook)
    return table if everyone else table[table["decision"] == "accept"], outlook.no_orders + outlook.warnings


def names_of(bundle):
    """The accepted symbols."""
    return {name for name, decision in bundle.decisions.items() if decision == "accept"}


@pytest.fixture(scope="module")
def bundle(judged):
    return export_bundle(judged[2])


def test_table_is_best_first_and_of_accepted_symbols_alone(bundle, judged):
    prices = judged[1].prices
    table, warnings = tomorrow(bundle, prices, everyone=True)
    assert table["score"].is_monotonic_decreasing and table["rank"].tolist() == list(range(1, 9)) and not warnings
    assert table["edge [%]"].is_monotonic_decreasing and table["p_up"].between(0, 1).all()
    accepted, _ = tomorrow(bundle, prices)
    assert set(accepted["symbol"]) == names_of(bundle)
    outlook, column = look_ahead(bundle, prices), "expected 5-day return [%]"
    own_mean = replace(outlook, forecast=outlook.forecast.assign(mean=0.01))
    assert column not in table and column in ranking(own_mean), "never the edge twice"


def test_rank_of_the_evening_before_is_that_of_its_own_ranking(bundle, judged):
    prices = judged[1].prices
    before = tomorrow(bundle, prices, as_of=f"{np.sort(prices['date'].unique())[-2]!s:.10}", everyone=True)[0]
    found = look_ahead(bundle, prices).latest(1).set_index("symbol")["rank"]
    assert found.to_dict() == before.set_index("symbol")["rank"].to_dict()


def test_orders_are_those_of_the_judged_family_and_follow_the_verdict(bundle, judged):
    prices = judged[1].prices
    table = orders(bundle, prices)
    ranked = tomorrow(bundle, prices, everyone=True)[0]
    if bundle.market_decision == "accept":
        assert set(table.loc[table["action"] == "buy", "symbol"]) <= names_of(bundle)
    else:
        assert table["symbol"].tolist() == ranked["symbol"].tolist() and (table["action"] == "wait").all()
    manifest = bundle.manifest | {"verdict": {"market": {"decision": "accept"}}}
    willing = Bundle(bundle.folder, manifest | {"symbols": {name: {"decision": "accept"} for name in bundle.decisions}},
                     bundle.forecasters)
    bought = orders(willing, prices, capital=500e6)
    assert bought["symbol"].tolist() == ranked["symbol"].tolist()[:1] and (bought["action"] == "buy").all()


def test_old_prices_are_refused_for_orders_and_warned_about_in_a_ranking(bundle, judged, tmp_path):
    """Made-up prices are never old, so the stocks bear other names here."""
    prices = judged[1].prices.assign(symbol="X" + judged[1].prices["symbol"])
    names = {f"X{name}": row for name, row in bundle.manifest["symbols"].items()}
    market = [f"X{name}" for name in bundle.manifest["market_symbols"]]
    renamed = Bundle(bundle.folder, bundle.manifest | {"symbols": names, "market_symbols": market},
                     {"trees": bundle.forecasters["trees"].select(tuple(names))})
    renamed.manifest["judged_family"] = "trees"
    found = plan_day(Workspace(tmp_path), renamed, prices, as_of="2026-01-20")
    assert "sessions before 2026-01-20" in found.outlook.no_orders[0] and "NO ORDERS: THE NEWEST PRICES" in repr(found)
    assert found.orders is None and [path.parent.name for path in found.files] == ["predictions"]
    for refused in (lambda: orders(renamed, prices, as_of="2026-01-20"),
                    lambda: plan_day(Workspace(tmp_path), renamed, prices, refuse_old=True)):
        with pytest.raises(DataError, match=r"with --as-of \(in Python: as_of=\); no orders are made of old prices"):
            refused()
    assert len(orders(renamed, prices, as_of=str(prices["date"].max())[:10]))


def test_days_that_no_forecast_sees_change_no_bit_of_it(bundle, judged):
    panel = judged[1].panel
    for days in (panel.days[-2:], panel.days[[40, 300]]):
        found = bundle.predict(panel, days).set_index("family")
        for family, forecaster in bundle.forecasters.items():
            whole = forecaster.predict(panel, np.asarray(panel.days.isin(days)))
            assert found.loc[family, "score"].tolist() == whole["score"].tolist() and len(whole)


def test_as_of_is_as_if_it_were_that_evening(bundle, judged):
    prices = judged[1].prices
    day = prices["date"].unique()[-30]
    table, _ = tomorrow(bundle, prices, as_of=str(day)[:10], everyone=True)
    cut, _ = tomorrow(bundle, prices[prices["date"] <= day], everyone=True)
    pd.testing.assert_frame_equal(table, cut)
    assert (table["date"] == day).all()


def test_missing_market_and_absent_symbol_bring_warnings(bundle, judged):
    prices = judged[1].prices
    last = prices["date"].max()
    few = prices[prices["symbol"].isin(prices["symbol"].unique()[:16])]
    table, warnings = tomorrow(bundle, few[~((few["symbol"] == "SYN002") & (few["date"] == last))], everyone=True)
    assert table["symbol"].tolist()[-1] == "SYN002" and set(table["symbol"]) == set(bundle.decisions)
    assert table["rank"].tolist()[:1] == [1] and table["score"].isna().sum() == 1, "no price, no rank"
    assert "67% of them" in warnings[0] and "SYN002" in warnings[1]
    with pytest.raises(DataError, match="8% of the 24 stocks .* Bring all stocks"):
        tomorrow(bundle, prices[prices["symbol"].isin(["SYN001", "SYN002"])])


def test_a_day_that_the_models_have_seen_gives_a_ranking_without_orders_and_leaves_the_report(bundle, judged):
    ws, prepared = judged[0], judged[1]
    report = ws.report_folder(bundle.manifest["run_id"]) / "report.html"
    today = plan_day(ws, bundle, prepared.prices)
    assert [path.parent.name for path in today.files[:2]] == ["predictions", "orders"]
    for path, table in zip(today.files, (today.table, today.orders), strict=False):
        assert path.name == f"{today.outlook.day:%Y-%m-%d}.csv"
        assert pd.read_csv(path)["symbol"].tolist() == table["symbol"].tolist()
    latest = report.read_bytes()
    found = plan_day(ws, bundle, prepared.prices, as_of=f"{prepared.panel.days[-9]:%Y-%m-%d}")
    assert report.read_bytes() == latest and [path.parent.name for path in found.files] == ["predictions"]
    assert found.orders is None and found.to_dict()["orders"] is None and len(found.table) == 8
    assert not (ws.orders / f"{found.outlook.day:%Y-%m-%d}.csv").exists()
    assert "NO ORDERS: THESE MODELS WERE TRAINED ON PRICES TO" in repr(found)
    with pytest.raises(DataError, match="this ranking is no forecast of .* so there are no orders. Leave as_of out"):
        orders(bundle, prepared.prices, as_of=f"{prepared.panel.days[-9]:%Y-%m-%d}")


def test_a_run_that_was_judged_again_must_be_exported_again(bundle, judged, monkeypatch):
    ws, prepared = judged[0], judged[1]
    path = ws.report_folder(bundle.manifest["run_id"]) / "verdict.json"
    verdict, before = Verdict.load(path), path.read_bytes()
    other = "reject" if verdict.market["decision"] != "reject" else "review"
    monkeypatch.setattr(Verdict, "load", lambda path: replace(verdict, market=verdict.market | {"decision": other}))
    found = plan_day(ws, bundle, prepared.prices)
    assert any("export it again before you trade" in text for text in found.outlook.warnings)
    monkeypatch.undo()
    path.write_bytes(before.replace(b'"decision": "', b'"decision": "xyz', 1))
    found = plan_day(ws, bundle, prepared.prices)
    path.write_bytes(before)
    assert any("the report stays as it is" in text for text in found.outlook.warnings) and found.orders is not None


def test_a_portfolio_that_buys_nothing_is_not_written(bundle, judged, tmp_path):
    with pytest.raises(ConfigError, match="less than one lot"):
        plan_day(Workspace(tmp_path), bundle, judged[1].prices, portfolio="new", capital=5000.7)
    assert not (tmp_path / "portfolio.csv").exists()


@pytest.fixture
def unseen(bundle, judged):
    """The bundle as if it were accepted, and trained to a fortnight before the last day; the last four days."""
    days = judged[1].panel.days[-14:]
    accepted = {name: {"decision": "accept"} for name in bundle.decisions}
    verdict = {"market": {"decision": "accept"}, "gate_set": "honest"}
    manifest = bundle.manifest | {"verdict": verdict, "symbols": accepted,
                                  "trained_to": f"{days[0]:%Y-%m-%d}"}
    return Bundle(bundle.folder, manifest, bundle.forecasters), [f"{day:%Y-%m-%d}" for day in days[-4:]]


def test_evenings_bring_the_portfolio_forward_when_asked_and_again_changes_nothing(unseen, judged, tmp_path):
    (bundle, days), prices, ws = unseen, judged[1].prices, Workspace(tmp_path)
    plan_day(ws, bundle, prices, as_of=days[0], portfolio="new", capital=5e8, paper=True)
    first = ws.portfolio.read_bytes()
    assert "with 0.2% slippage: 1 of 1 filled" in repr(plan_day(ws, bundle, prices, as_of=days[1]))
    assert ws.portfolio.read_bytes() == first, "without paper it is never touched"
    for day in days[1:]:
        plan = plan_day(ws, bundle, prices, as_of=day, paper=True)
        after, files = ws.portfolio.read_bytes(), {path: path.read_bytes() for path in ws.orders.iterdir()}
        again = plan_day(ws, bundle, prices, as_of=day, paper=True)
        assert ws.portfolio.read_bytes() == after and files == {path: path.read_bytes() for path in ws.orders.iterdir()}
        assert again.orders.equals(plan.orders) and not any("replaced" in text for text in again.outlook.warnings)
        assert plan.fills.date == pd.Timestamp(days[days.index(day) - 1]) and plan.files[2].name.endswith("_filled.csv")
        assert pd.read_csv(ws.portfolio, index_col="symbol").loc["CASH", "shares"] == plan.orders.attrs["cash"]
    assert after != first and plan.to_dict()["fills"]["notes"] and plan.to_dict()["drift"]["n_evenings"] == 0
    record = ws.orders / f"{days[2]}.json"
    record.write_text(record.read_text().replace("CASH", "HASH"))
    with pytest.raises(CheckpointError, match="damaged, edited, or of an earlier version"):
        plan_day(ws, bundle, prices, as_of=days[3])


@pytest.mark.slow
def test_evening_that_is_killed_at_any_write_ends_the_same_when_it_is_run_again(unseen, judged, tmp_path, monkeypatch):
    (bundle, days), prices = unseen, judged[1].prices
    plan_day(Workspace(tmp_path / "before"), bundle, prices, as_of=days[0], portfolio="new", capital=5e8)
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    plan_day(Workspace(tmp_path / "whole"), bundle, prices, as_of=days[1], paper=True)
    replace_file, counted = files._replace, []

    def counting(source, target, last):
        counted.append(target.name)
        if len(counted) == last:
            raise KeyboardInterrupt
        replace_file(source, target)

    for last in range(1, 9):
        home = tmp_path / str(last)
        shutil.copytree(tmp_path / "before", home)
        counted.clear()
        monkeypatch.setattr(files, "_replace", lambda source, target, last=last: counting(source, target, last))
        with contextlib.suppress(KeyboardInterrupt):
            plan_day(Workspace(home), bundle, prices, as_of=days[1], paper=True)
        is_killed = len(counted) == last
        monkeypatch.undo()
        plan_day(Workspace(home), bundle, prices, as_of=days[1], paper=True)
        found, whole = ({path.name: path.read_bytes().replace(str(root).encode(), b"") for path in root.rglob("*.*")}
                        for root in (home, tmp_path / "whole"))
        assert found == whole, counted
    assert not is_killed and counted.index("portfolio.csv") == counted.index(f"{days[0]}.json") + 1


def test_what_was_known_on_an_evening_that_is_over_stays(unseen, bundle, judged, tmp_path):
    (fresh, days), prices, ws = unseen, judged[1].prices, Workspace(tmp_path)
    plan_day(ws, fresh, prices, as_of=days[2])
    path = ws.predictions / f"{days[2]}.csv"
    table, real = pd.read_csv(path), path.read_bytes()
    assert (table["run_id"] == bundle.manifest["run_id"]).all() and (table["trained_to"] < days[2]).all()
    seen = plan_day(ws, bundle, prices, as_of=days[2])
    assert path.read_bytes() == real and "is over" in seen.outlook.warnings[-1] and seen.drift is None
    other = Bundle(fresh.folder, fresh.manifest | {"run_id": "another"}, fresh.forecasters)
    assert "by another run is replaced" in plan_day(ws, other, prices, as_of=days[2]).outlook.warnings[-1]
    real = path.read_bytes()
    plan_day(ws, other, prices, as_of=days[3])
    ws.portfolio.write_text("symbol,shares,sellable_from\nCASH,5e8,\nSYN001,100,2026-01-09\n")  # of a later evening
    again = plan_day(ws, fresh, prices, as_of=days[2])
    assert path.read_bytes() == real and again.files == [] and again.to_dict()["file"] is None and again.orders is None


def test_no_orders_are_made_of_a_portfolio_that_lacks_the_fills(unseen, judged, tmp_path):
    (bundle, days), prices, ws = unseen, judged[1].prices, Workspace(tmp_path)
    plan_day(ws, bundle, prices, as_of=days[0], portfolio="new", capital=5e8)
    lacking = plan_day(ws, bundle, prices, as_of=days[1])
    assert (lacking.fills.table["filled"] > 0).any() and lacking.orders is None
    assert "portfolio.csv is as it was before the fills" in lacking.outlook.no_orders[-1]
    ordered = plan_day(ws, bundle, prices, as_of=days[1], portfolio=ws.portfolio)  # the person ordered nothing
    assert len(ordered.orders) and len(plan_day(ws, bundle, prices, as_of=days[1], paper=True).orders)


def test_portfolio_that_cannot_be_brought_forward_is_refused(unseen, judged, tmp_path):
    (bundle, days), prices, ws = unseen, judged[1].prices, Workspace(tmp_path)
    with pytest.raises(ConfigError, match="Begin it with --portfolio new"):
        plan_day(ws, bundle, prices, as_of=days[0], paper=True)
    with pytest.raises(ConfigError, match="leave --portfolio out"):
        plan_day(ws, bundle, prices, as_of=days[0], paper=True, portfolio="mine.csv")
    ws.portfolio.write_text("symbol,shares,sellable_from\nCASH,5e8,\nFPT,100,\n")
    with pytest.raises(DataError, match=r"row 3 \(FPT,100,\), symbol: is not in these prices"):
        plan_day(ws, bundle, prices, as_of=days[0], paper=True)
    assert not ws.orders.exists() and not ws.predictions.exists()
    known = sorted(set(prices["symbol"]) - set(bundle.decisions))[0]
    ws.portfolio.write_text(f"symbol,shares,sellable_from\nCASH,5e8,\n{known},100,\n")
    found = repr(plan_day(ws, bundle, prices, as_of=days[0]))
    assert f"you hold {known}, not judged by this bundle: kept" in found and f"KEEP {known}" in found


@pytest.mark.parametrize("change, given, error, words", [
    (lambda rows: rows.assign(symbol="FPT").drop_duplicates("date"), {}, DeliveryError, "none of the bundle's symbols"),
    (lambda rows: rows[rows["date"] > rows["date"].unique()[-30]], {}, DataError, "28 days, a forecast needs at least"),
    (lambda rows: rows, {"index": pd.DataFrame({"close": [1.0]})}, DeliveryError, "trained without a market index"),
    (lambda rows: rows, {"as_of": "1999-01-01"}, DataError, "no prices up to"),
    (lambda rows: rows, {"as_of": "soon"}, DataError, "is not a date")])
def test_prices_that_cannot_be_used_are_refused(bundle, judged, change, given, error, words):
    with pytest.raises(error, match=words):
        look_ahead(bundle, change(judged[1].prices), **given)


def test_new_portfolio_is_written_last_so_that_a_kill_before_it_can_be_made_good(bundle, judged, tmp_path, monkeypatch):
    ws = Workspace(tmp_path)

    def killed(path, portfolio):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vnq_colab.delivery.predict.write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            plan_day(ws, bundle, judged[1].prices, portfolio="new", capital=5e8)
    assert len(list(ws.orders.glob("*.csv"))) == 1 and not ws.portfolio.exists()
    assert plan_day(ws, bundle, judged[1].prices, portfolio="new", capital=5e8).files[-1] == ws.portfolio


def test_prices_that_cannot_be_collected_are_said_and_those_at_hand_are_taken(tmp_path, monkeypatch):
    def silent(ws, **given):
        raise StorageError(f"no answer for {given['day']}.")

    monkeypatch.setattr("vnq_colab.collect_prices", silent)
    options = argparse.Namespace(collect=True, data=None, as_of="2025-12-30", json=True)
    assert collect(Workspace(tmp_path), options) == ["the newest prices were not brought: no answer for 2025-12-30."]
    options.data = "prices.csv"
    with pytest.raises(ConfigError, match="Give one of them"):
        collect(Workspace(tmp_path), options)
    options.collect = False
    assert collect(Workspace(tmp_path), options) == []
