"""The last accepted run beside a new one on the same days: what both forecast of their folds, and what is said."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import CLOSE
from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery.bundle import export_bundle
from vnq_colab.delivery.previous import OLD, against_previous
from vnq_colab.delivery.validate import validate
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.files import read_sealed, write_json, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.training.forecasting import forecast
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import train

NAMES = ("SYN001", "SYN002", "SYN004")


def verdict_of(session, **decisions):
    rows = {symbol: {"decision": decisions.get(symbol, "accept"), "reasons": [f"{symbol} is good."], "gates": []}
            for symbol in NAMES}
    return Verdict(session.run_id, "honest", {"decisions": {}, "text": ""},
                   {"decision": "accept", "reasons": [], "gates": []}, rows)


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """(workspace, old run, new prepared set, new run): a bundle of last month, and a run on newer prices."""
    prices = synthetic_prices(6, 1060, seed=1)
    ws, days = Workspace(tmp_path_factory.mktemp("week")), np.sort(prices["date"].unique())
    config = RunConfig.for_machine("smoke", symbols=NAMES, families=("trees",))
    runs = []
    for seed, n_days in enumerate((1040, 1060)):
        prepared = prepare(ws, prices[prices["date"] <= days[n_days - 1]])
        runs.append(train(ws, prepared.panel, replace(config, seed=seed), quiet=True))
        if seed == 0:
            validate(runs[0], prepared=prepared)
            export_bundle(runs[0], verdict_of(runs[0], SYN004="reject"))
    return ws, runs[0], prepared, runs[1]


@pytest.fixture
def copy(week, tmp_path):
    """The same in a workspace of its own, which a test may damage."""
    ws, old, prepared, new = week
    other = Workspace(shutil.copytree(ws.root, tmp_path / "week"))
    return other, Session.load(other, old.run_id), prepared, Session.load(other, new.run_id)


@pytest.fixture(scope="module")
def table(week):
    found = forecast(week[3], panel=week[2].panel)
    return found[found["family"] == "ensemble"].reset_index(drop=True)


def right_of(run, symbol, panel, first, last):
    """Share of right directions, counted day by day, of what a run's folds forecast."""
    found, row = forecast(run), panel.symbols.index(symbol)
    found = found[(found["family"] == "ensemble") & (found["symbol"] == symbol) & found["date"].between(first, last)]
    right = []
    for day, mean in found[["date", "mean"]].itertuples(index=False):
        place = panel.days.get_loc(day)
        closes = panel.prices[row, place:place + 6, CLOSE]
        move = np.log(closes[5] / closes[0]) if len(closes) == 6 else np.nan
        if mean and abs(move) >= 1e-6:
            right.append((mean > 0) == (move > 0))
    return np.mean(right)


def guessing(table, panel, symbol, sign):
    """The forecast with a symbol's direction always right (1) or always wrong (-1)."""
    place = pd.Index(panel.symbols).get_indexer(table["symbol"]), panel.days.get_indexer(table["date"])
    actual = pd.Series(panel.ahead(5)[place], table.index).fillna(0.01)
    mine = (table["symbol"] == symbol).to_numpy()
    return table.assign(mean=np.where(mine, sign * actual, table["mean"]),
                        p_up=np.where(mine, 0.5 + 0.4 * np.sign(sign * actual), table["p_up"]))


def test_old_run_is_judged_by_what_its_folds_forecast_of_the_common_days(week, table):
    _, old, prepared, new = week
    found = against_previous(new, table, prepared)
    last = f"{prepared.panel.days[-21]:%Y-%m-%d}"  # the old data ends 20 days earlier
    first = new.folds[0]["test"]["first"]
    assert (found["run_id"], found["first"], found["last"]) == (old.run_id, first, last) and found["n_days"] > 400
    assert set(found["symbols"]) == set(NAMES)
    for symbol, row in found["symbols"].items():
        assert row["old_accuracy"] == pytest.approx(right_of(old, symbol, prepared.panel, first, last))
        assert row["new_accuracy"] == pytest.approx(right_of(new, symbol, prepared.panel, first, last))
        assert row["old_decision"] == ("reject" if symbol == "SYN004" else "accept")
    assert OLD not in set(table["family"])


def test_accuracy_that_falls_by_more_than_a_tenth_is_to_be_looked_at(week, table):
    _, _, prepared, new = week
    worse = table
    for symbol in NAMES:
        worse = guessing(worse, prepared.panel, symbol, -1)
    found = against_previous(new, worse, prepared)
    assert found["kept"] == ["SYN001", "SYN002"]  # SYN004 was not accepted
    assert "SYN001, SYN002 falls by more than 10%" in found["text"] and "look at them" in found["text"]
    better = guessing(guessing(table, prepared.panel, "SYN001", 1), prepared.panel, "SYN002", 1)
    found = against_previous(new, better, prepared)
    assert found["kept"] == [] and "No accepted one loses" in found["text"]
    assert found["symbols"]["SYN001"]["new_accuracy"] == 1


def test_without_an_earlier_accepted_bundle_there_is_nothing_to_say(week, table, copy):
    _, old, prepared, new = week
    assert against_previous(old, table, prepared) is None  # its own bundle does not count
    ws, _, _, new = copy
    path = ws.model_folder(old.run_id) / "manifest.json"
    manifest = read_sealed(path)
    for row in manifest["symbols"].values():
        row["decision"] = "reject"
    write_sealed(path, manifest)
    assert against_previous(new, table, prepared) is None
    shutil.rmtree(ws.models)
    assert against_previous(new, table, prepared) is None


def test_checkpoints_of_the_old_run_are_not_needed(copy, week, table):
    ws, old, prepared, new = copy
    shutil.rmtree(ws.checkpoint_folder(old.run_id))
    assert against_previous(new, table, prepared) == against_previous(week[3], table, prepared)


def test_few_common_days_are_not_compared(week, table):
    _, _, prepared, new = week
    late = table[table["date"] >= prepared.panel.days[-120]]
    found = against_previous(new, late, prepared)
    assert found["symbols"] == {} and "fewer than 30 independent windows on common days: SYN001" in found["text"]


@pytest.mark.parametrize("damage, words", [
    (lambda folder: (folder / "manifest.json").write_text("x"), "not readable as JSON"),
    (lambda folder: write_json(folder / "manifest.json", {"symbols": [1]}), "not a manifest"),
    (lambda folder: write_json(folder / "manifest.json", [1]), "not a file of this library"),
    (lambda folder: write_json(folder / "manifest.json", {"format": 1, "symbols": {"FPT": {"decision": "accept"}}}),
     "one of the first version"),
])
def test_damaged_bundle_is_said_and_stops_nothing(copy, table, damage, words):
    ws, old, prepared, new = copy
    damage(ws.model_folder(old.run_id))
    found = against_previous(new, table, prepared)
    assert words in found["text"] and found["kept"] == [] and found["symbols"] == {}


def test_forecasts_of_the_old_run_that_are_gone_are_said(copy, table):
    ws, old, prepared, new = copy
    (ws.report_folder(old.run_id) / "forecast.parquet").unlink()
    found = against_previous(new, table, prepared)
    assert "forecast.parquet: the forecasts of its test days cannot be read" in found["text"] and not found["symbols"]


def test_whatever_goes_wrong_is_a_text(week, table, monkeypatch):
    _, old, prepared, new = week
    monkeypatch.setattr("vnq_colab.delivery.previous.score", lambda *_: 1 / 0)
    found = against_previous(new, table, prepared)
    assert found["run_id"] == old.run_id and "ZeroDivisionError" in found["text"] and found["kept"] == []


def test_symbol_that_the_new_run_lacks_is_named(week, table):
    _, _, prepared, new = week
    found = against_previous(new, table[table["symbol"] != "SYN002"], prepared)
    assert set(found["symbols"]) == {"SYN001", "SYN004"} and "not forecast by the new run: SYN002" in found["text"]
