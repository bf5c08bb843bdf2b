"""Why a stock stands where it stands: exact contributions, in words, from the evening's orders to the report."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xgboost

from tests.test_trees import data, straight  # noqa: F401
from vnq_colab.data.features import FEATURES
from vnq_colab.data.panel import Panel
from vnq_colab.delivery.bundle import Bundle, export_bundle
from vnq_colab.delivery.orders import make_orders
from vnq_colab.delivery.portfolio import paper_portfolio
from vnq_colab.delivery.predict import look_ahead, plan_day, ranking
from vnq_colab.delivery.validate import _about
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.page import first_screen
from vnq_colab.evaluation.reasons import BY, SENTENCE, WHY, plain_name, points_of, reasons
from vnq_colab.layout import Workspace
from vnq_colab.models.trees import TreesForecaster
from vnq_colab.training.jobs import explanation, load_job, open_store

SIDE = r"(?:[\w /.-]+(?: \((?:low|high)\))? [+-]\d+\.\d(?:, )?){1,3}|nothing"
TOLD = re.compile(rf"trees alone \(rank \d+\): lifted by (?:{SIDE}), lowered by (?:{SIDE})")


@pytest.fixture(scope="module")
def forecaster(straight):  # noqa: F811
    return straight.result().forecaster


def last_of(panel, n=1):
    return np.arange(len(panel.days)) >= len(panel.days) - n


def test_contributions_sum_to_the_score_of_each_row_of_the_forecast(data, forecaster):  # noqa: F811
    panel, days = data.panel, last_of(data.panel, 3)
    for quick in (False, True):
        found, scores = forecaster.explain(panel, days, quick=quick), forecaster.predict(panel, days)
        pd.testing.assert_frame_equal(found[["symbol", "date"]], scores[["symbol", "date"]])
        assert list(found.columns[2:]) == [*panel.feature_names, "bias"]
        assert (found.dtypes.iloc[2:] == "float32").all()
        np.testing.assert_allclose(found.iloc[:, 2:].sum(axis=1), scores["score"], atol=1e-6)
    assert len(forecaster.explain(panel, days & False)) == 0
    quick, exact = (forecaster.explain(panel, days, quick=quick).iloc[:, 2:-1].to_numpy() for quick in (True, False))
    assert np.abs(quick - exact).max() > 1e-4
    assert np.corrcoef(quick.ravel(), exact.ravel())[0, 1] > 0.9
    few = forecaster.select(panel.symbols[3:5]).explain(panel, days)
    everyone = forecaster.explain(panel, days)
    np.testing.assert_array_equal(few.iloc[:, 2:], everyone[everyone["symbol"].isin(panel.symbols[3:5])].iloc[:, 2:])


def test_contributions_are_shapley_values_by_a_second_implementation():
    """The mean over all orders of features of what knowing one more changes; an unknown one splits by its cover."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 3)).astype("float32")
    matrix = xgboost.DMatrix(x, x[:, 0] * (x[:, 1] > 0) + x[:, 2] ** 2)
    booster = xgboost.train({"max_depth": 3, "base_score": 0.0}, matrix, 2)
    days, names = pd.bdate_range("2024-01-01", periods=2), ("return_5", "gap", "body")
    panel = Panel(x[:6].reshape(3, 2, 3), np.ones((3, 2, 5)), np.ones((3, 2), bool), tuple("ABC"), days, names, "made")
    found = TreesForecaster(names, tuple("ABC"), names, (bytes(booster.save_raw("ubj")),) * 2, "").explain(
        panel, np.array([True, True]))
    nodes = booster.trees_to_dataframe().set_index("ID")

    def value(node, row, known):
        at = nodes.loc[node]
        if at["Feature"] == "Leaf":
            return at["Gain"]
        feature = int(at["Feature"][1:])
        if feature in known:
            return value(at["Yes"] if row[feature] < np.float32(at["Split"]) else at["No"], row, known)
        parts = [(value(at[side], row, known), nodes.loc[at[side], "Cover"]) for side in ("Yes", "No")]
        return sum(part * cover for part, cover in parts) / sum(cover for _, cover in parts)

    for row, ours in zip(x[:6], found[[*names, "bias"]].to_numpy(), strict=True):
        worth = {known: 2 * sum(value(f"{tree}-0", row, known) for tree in range(2))  # the block stands there twice
                 for n in range(4) for known in itertools.combinations(range(3), n)}
        exact = [np.mean([worth[tuple(sorted(order[:order.index(one) + 1]))] - worth[tuple(sorted(
            order[:order.index(one)]))] for order in itertools.permutations(range(3))]) for one in range(3)]
        np.testing.assert_allclose(ours, [*exact, worth[()]], atol=1e-5)


def test_reasons_are_the_three_strongest_each_by_their_points_above_the_mean_stock(data, forecaster):  # noqa: F811
    panel = data.panel
    found = forecaster.explain(panel, last_of(panel))
    told, points = reasons(found, panel, "trees"), points_of(found)
    np.testing.assert_allclose(points.sum(axis=0), 0, atol=1e-4)
    score = forecaster.predict(panel, last_of(panel)).set_index("symbol")["score"]
    ranks = told["explained_by"].str.extract(r"^trees alone \(rank (\d+)\)$")[0].astype(int)
    assert ranks.to_dict() == score.rank(ascending=False).astype(int).to_dict()
    for row, symbol in enumerate(found["symbol"]):
        own = points.iloc[row].sort_values()
        for text, most in ((told.loc[symbol, "lifts"], own[::-1]), (told.loc[symbol, "lowers"], own)):
            named = [f"{plain_name(name)} {value:+.1f}" for name, value in most.head(3).items()
                     if abs(value) >= 0.05 and value * most.iloc[0] > 0]
            assert re.sub(r" \((low|high)\)", "", text) == (", ".join(named) or "nothing")
    today = pd.Series(panel.values[:, -1, panel.feature_names.index("volume_trend")], panel.symbols)
    low = told["lifts"].str.contains("5- over 60-day volume (low)", regex=False) | told["lowers"].str.contains(
        "5- over 60-day volume (low)", regex=False)
    assert low.any() and today[low[low].index].max() <= today.quantile(0.4)


def test_names_are_plain_and_tell_all_features_apart():
    names = [plain_name(name) for name in FEATURES]
    assert len({*names}) == len(names) and not [name for name in names if "_" in name or "," in name or "{" in name]
    assert [plain_name(name) for name in ("return_5", "rsi_14", "breadth", "macd_line", "high_distance_252")] == [
        "5-day return", "14-day RSI", "breadth", "MACD line", "close over 252-day high"]


def test_folds_keep_what_the_report_shows(judged):
    """The last test day and the spread of each feature's weight; without it, as an earlier version left it, none."""
    _, prepared, session, validation = judged
    told, last = validation.explained, validation.forecast["date"].max()
    assert told.family == "trees" and set(told.stocks.index) == set(session.ledger)
    folds = [load_job(session, open_store(session), f"trees_fold{number}")["explanation"] for number in (1, 2)]
    assert folds[1]["day"] == f"{last:%Y-%m-%d}" and folds[0]["day"] < folds[1]["day"]
    found = told.importance.loc["volume_trend"]
    assert found[["min", "max"]].to_list() == sorted(fold["importance"]["volume_trend"] for fold in folds)
    assert found["mean"] == pytest.approx(found[["min", "max"]].mean())
    assert told.importance["mean"].is_monotonic_decreasing
    scores = validation.forecast.query("family == 'trees' and date == @last").set_index("symbol")["score"]
    best = scores.rank(ascending=False).idxmin()
    assert told.stocks.loc[best, "explained_by"] == "trees alone (rank 1)"
    page = validation.report.read_text(encoding="utf-8")
    assert "Feature importance" in page and f'<td class="words detail">{told.stocks.loc[best, "lifts"]}</td>' in page
    assert f"On the last day: trees alone (rank 1): lifted by {told.stocks.loc[best, 'lifts']}" in _about(
        validation, best, "trees")
    assert explanation(session, prepared.panel.days[500]).stocks.empty
    assert load_job(session, open_store(session), "global_fold1").get("explanation") is None
    most = plots.importance(told.importance).axes[0].get_yticklabels()[-1].get_text()
    assert most == plain_name(told.importance.index[0])


def test_orders_predictions_and_first_screen_say_what_lifts_and_lowers(judged, tmp_path):
    _, prepared, session, _ = judged
    before, *_, day = prepared.panel.days[-9:].strftime("%Y-%m-%d")
    made = export_bundle(session, panel=prepared.panel)
    accepted = {"verdict": {"market": {"decision": "accept"}, "gate_set": "honest"}, "trained_to": before,
                "symbols": {name: {"decision": "accept"} for name in made.decisions}}
    bundle = Bundle(made.folder, made.manifest | accepted, made.forecasters)
    plan = plan_day(Workspace(tmp_path), bundle, prepared.prices, as_of=day, portfolio="new", capital=5e8)
    why, row = plan.outlook.why, plan.orders.iloc[0]
    said = SENTENCE.format(*why.loc[row["symbol"]])
    assert set(why.index) == set(made.decisions) and row["action"] == "buy" and row["reason"].endswith(BY + said)
    assert plan.orders["reason"].str.split(BY, regex=False).str[1].map(TOLD.fullmatch).all()
    written = pd.read_csv(tmp_path / "predictions" / f"{day}.csv").set_index("symbol")
    assert written[[*WHY]].to_dict() == why.loc[written.index, [*WHY]].to_dict()
    assert f"\n  {said}" in repr(plan) and max(map(len, plan._parts()[2][0].splitlines())) < 130
    html = plan._repr_html_()
    assert said not in html and html.count(f">{why.loc[row['symbol'], 'lifts']}</td>") == 1
    page = first_screen({"market": {"decision": "accept", "reasons": []}, "symbols": {}, "summary": {
        "by_year": [], "families": [], "basket": None, "power": None, "settings": {"slippage": 0.002}}},
        orders=plan.orders, ranking=plan.table, prices_to=plan.outlook.day, now=plan.outlook.day)
    assert page.count("trees alone (rank ") == 8 and BY not in page
    assert f'<p class="soft">{said}</p>' in page


def test_a_family_that_cannot_explain_itself_leaves_everything_as_it_was(judged):
    _, prepared, session, _ = judged
    made = export_bundle(session, panel=prepared.panel)
    bundle = Bundle(made.folder, made.manifest, {name: made.forecasters[name] for name in ("stockformer", "global")})
    outlook = replace(look_ahead(made, prepared.prices), bundle=bundle)
    assert outlook.why.empty and ranking(outlook)[[*WHY]].isna().all(axis=None)
    assert not make_orders(outlook, paper_portfolio(1e9))["reason"].str.contains(BY, regex=False).any()
