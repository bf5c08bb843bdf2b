"""The last accepted models beside the new ones on the same days: which stay, which go over, and what is said."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from vnq_colab.data.prepared import prepare
from vnq_colab.data.splits import split_days
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.previous import against_previous
from vnq_colab.evaluation.calibration import Calibration
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.files import read_sealed, sha256_of, write_json, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.training.forecasting import fit_calibration, forecast, load_forecaster
from vnq_colab.training.session import REFIT, Session
from vnq_colab.training.trainer import train

NAMES = ("SYN001", "SYN002", "SYN004")


def verdict_of(session, **decisions):
    rows = {symbol: {"decision": decisions.get(symbol, "accept"), "reasons": [f"{symbol} is good."], "gates": []}
            for symbol in NAMES}
    return Verdict(session.run_id, "honest", {"decisions": {}, "text": ""}, rows)


@pytest.fixture(scope="module")
def week(tmp_path_factory, prices):
    """(workspace, old run, new prepared set, new run): a bundle of last month, refitted, and a run on newer prices."""
    from vnq_colab.config import RunConfig, TrainConfig

    ws, days = Workspace(tmp_path_factory.mktemp("week")), np.sort(prices["date"].unique())
    config = RunConfig.for_machine("smoke", symbols=NAMES, n_members=1,
                                   train=TrainConfig(epochs=2, warmup_epochs=1, start="own"))
    runs = []
    for seed, (last, valid, test) in enumerate(((400, 150, 200), (420, 160, 210))):
        prepared = prepare(ws, prices[prices["date"] < days[last]] if last < len(days) else prices)
        splits = split_days(prepared.panel.days, *(str(days[place])[:10] for place in (valid, test)))
        runs.append(train(ws, prepared.panel, splits, replace(config, seed=seed), quiet=True))
        if seed == 0:
            export_bundle(runs[0], verdict_of(runs[0], SYN004="reject"), quiet=True)
    return ws, runs[0], prepared, runs[1]


@pytest.fixture
def copy(week, tmp_path):
    """The same in a workspace of its own, which a test may damage."""
    ws, old, prepared, new = week
    other = Workspace(shutil.copytree(ws.root, tmp_path / "week"))
    return other, Session.load(other, old.run_id), prepared, Session.load(other, new.run_id)


@pytest.fixture(scope="module")
def table(week):
    return forecast(week[3], panel=week[2].panel)


def right_of(run, symbol, panel, first, last):
    """Share of right directions, counted day by day, of a run's judged networks."""
    networks, row = load_forecaster(run).as_exported(), panel.symbols.index(symbol)
    found = networks.predict(panel, np.asarray((panel.days >= first) & (panel.days <= last)))
    right = []
    for day, mean in found[found["symbol"] == symbol][["date", "mean"]].itertuples(index=False):
        place = panel.days.get_loc(day)
        came = panel.returns[row, place + 1:place + 6]
        if len(came) == 5 and np.isfinite(came).all() and abs(came.sum()) >= 1e-6:
            right.append((mean > 0) == (came.sum() > 0))
    return np.mean(right)


def guessing(table, panel, symbol, sign):
    """The forecast with a symbol's direction always right (1) or always wrong (-1)."""
    actual = panel.outcomes()[["symbol", "date", "actual"]]
    came = table[["symbol", "date"]].merge(actual, how="left", on=["symbol", "date"])["actual"].fillna(0.01).to_numpy()
    mean = np.where(table["symbol"] == symbol, sign * came, table["mean"])
    return table.assign(mean=mean, **{f"mean_{step}": mean / 5 for step in range(1, 6)})


def test_old_networks_are_those_that_were_judged_on_the_days_of_the_new_forecast(week, table):
    _, old, prepared, new = week
    found = against_previous(new, table, prepared)
    first, last = new.days["splits"]["test"]["first"], f"{prepared.panel.days[-6]:%Y-%m-%d}"
    assert (found["run_id"], found["first"], found["last"]) == (old.run_id, first, last) and found["n_days"] > 190
    assert set(found["symbols"]) == set(NAMES)
    for symbol, row in found["symbols"].items():
        assert row["old_accuracy"] == pytest.approx(right_of(old, symbol, prepared.panel, first, last))
        assert row["new_accuracy"] == pytest.approx(right_of(new, symbol, prepared.panel, first, last))
        assert row["old_decision"] == ("reject" if symbol == "SYN004" else "accept")
    refitted = Session.load(old.ws, old.run_id + REFIT)
    assert any(row["old_accuracy"] != pytest.approx(right_of(refitted, symbol, prepared.panel, first, last))
               for symbol, row in found["symbols"].items())


def test_days_begin_where_the_old_test_days_do(week):
    """Asked about earlier days too, the old networks are silent on what they were trained and stopped on."""
    _, old, prepared, new = week
    longer = forecast(new, days=("2024-06-03", "2025-12-31"), panel=prepared.panel)
    assert against_previous(new, longer, prepared)["first"] == old.days["splits"]["test"]["first"]


def test_old_model_stays_where_accuracy_falls_by_more_than_a_tenth(week, table):
    _, _, prepared, new = week
    worse = table
    for symbol in NAMES:
        worse = guessing(worse, prepared.panel, symbol, -1)
    found = against_previous(new, worse, prepared)
    assert found["kept"] == ["SYN001", "SYN002"]  # SYN004 was not accepted
    assert "SYN001, SYN002 falls by more than 10%" in found["text"] and "old model stays" in found["text"]
    better = guessing(guessing(table, prepared.panel, "SYN001", 1), prepared.panel, "SYN002", 1)
    found = against_previous(new, better, prepared)
    assert found["kept"] == [] and "No accepted one loses" in found["text"]
    assert found["symbols"]["SYN001"]["new_accuracy"] == 1


def test_without_an_earlier_accepted_bundle_there_is_nothing_to_say(week, table, copy):
    _, old, prepared, new = week
    assert against_previous(old, forecast(old), prepared) is None  # its own bundle does not count
    ws, _, _, new = copy
    path = ws.model_folder(old.run_id) / "manifest.json"
    manifest = read_sealed(path)
    for row in manifest["symbols"].values():
        row["decision"] = "reject"
    write_sealed(path, manifest)
    assert against_previous(new, table, prepared) is None
    shutil.rmtree(ws.models)
    assert against_previous(new, table, prepared) is None


def test_bundle_itself_answers_when_the_checkpoints_are_gone(copy, table):
    ws, old, prepared, new = copy
    shutil.rmtree(ws.checkpoint_folder(old.run_id))
    found = against_previous(new, table, prepared)  # refitted to the end of its data: 20 newer days are too few
    assert found["symbols"] == {} and found["kept"] == [] and found["n_days"] == 0
    assert "checkpoints" in found["text"] and "fewer than 30 independent windows" in found["text"]


def test_bundle_without_a_refit_answers_after_its_validation_days(week, table, tmp_path):
    ws, old, prepared, new = week
    other = Workspace(shutil.copytree(ws.root, tmp_path / "plain"))
    export_bundle(Session.load(other, old.run_id), verdict_of(old), refit=False, quiet=True)
    shutil.rmtree(other.checkpoint_folder(old.run_id))
    longer = forecast(new, days=("2024-06-03", "2025-12-31"), panel=prepared.panel)
    found = against_previous(Session.load(other, new.run_id), longer, prepared)
    after = int(prepared.panel.days.searchsorted(np.datetime64(old.days["valid"][1]))) + 1 + 5
    assert found["first"] == f"{prepared.panel.days[after]:%Y-%m-%d}" == old.days["splits"]["test"]["first"]
    with_checkpoints = against_previous(new, longer, prepared)
    assert {symbol: row["old_accuracy"] for symbol, row in found["symbols"].items()} == pytest.approx(
        {symbol: row["old_accuracy"] for symbol, row in with_checkpoints["symbols"].items()})


def test_few_common_days_are_not_compared(week, table):
    _, _, prepared, new = week
    late = table[table["date"] >= prepared.panel.days[300]]
    found = against_previous(new, late, prepared)
    assert found["symbols"] == {} and "fewer than 30 independent windows on common days: SYN001" in found["text"]


@pytest.mark.parametrize("damage, words", [
    (lambda folder: (folder / "manifest.json").write_text("x"), "not readable as JSON"),
    (lambda folder: write_json(folder / "manifest.json", {"symbols": [1]}), "not a manifest"),
    (lambda folder: write_json(folder / "manifest.json", [1]), "not a file of this library"),
])
def test_damaged_bundle_is_said_and_stops_nothing(copy, table, damage, words):
    ws, old, prepared, new = copy
    damage(ws.model_folder(old.run_id))
    found = against_previous(new, table, prepared)
    assert words in found["text"] and found["kept"] == [] and found["symbols"] == {}


def test_panel_without_the_old_features_is_said_and_stops_nothing(week, table):
    _, _, prepared, new = week
    renamed = replace(prepared.panel, feature_names=("return_7", *prepared.panel.feature_names[1:]))
    found = against_previous(new, table, replace(prepared, panel=renamed))
    assert found["symbols"] == {} and "return_7" in found["text"]


def test_whatever_goes_wrong_is_a_text(week, table, monkeypatch):
    _, old, prepared, new = week
    monkeypatch.setattr("vnq_colab.delivery.previous.load_forecaster", lambda session: 1 / 0)
    found = against_previous(new, table, prepared)
    assert found["run_id"] == old.run_id and "ZeroDivisionError" in found["text"] and found["kept"] == []


def test_symbol_that_the_new_run_lacks_is_named(week, table):
    _, _, prepared, new = week
    found = against_previous(new, table[table["symbol"] != "SYN002"], prepared)
    assert set(found["symbols"]) == {"SYN001", "SYN004"} and "not forecast by the new run: SYN002" in found["text"]


# --- what export does about it


def test_kept_model_goes_over_with_its_file_its_decision_and_its_calibration(copy, table):
    ws, old, prepared, new = copy
    found = against_previous(new, guessing(table, prepared.panel, "SYN002", -1), prepared)
    verdict = verdict_of(new, SYN002="reject")
    verdict.summary["previous"] = found
    path = ws.model_folder(old.run_id) / "manifest.json"
    manifest = read_sealed(path)
    manifest["calibration"] |= {"slope": 0.5, "quantile": 2.5}  # what a few days of tiny networks would not show
    write_sealed(path, manifest)
    before, bundle = load_bundle(ws.model_folder(old.run_id)), export_bundle(new, verdict, quiet=True)
    row, name = bundle.manifest["symbols"]["SYN002"], "SYN002_stockformer_simple_best.pt"
    assert found["kept"] == ["SYN002"]
    assert bundle.decisions == dict.fromkeys(NAMES, "accept") | {"SYN002": "review"}, "never traded without a look"
    assert (row["kept_from"], row["trained_to"]) == (old.run_id, before.manifest["symbols"]["SYN002"]["trained_to"])
    assert f"the model of run {old.run_id} stays." in row["reasons"][0] and row["reasons"][1] == "SYN002 is good."
    assert (bundle.folder / name).read_bytes() == (before.folder / name).read_bytes()
    assert "kept_from" not in bundle.manifest["symbols"]["SYN001"]
    assert bundle.manifest["trained_to"] == f"{prepared.panel.days[-1]:%Y-%m-%d}" > row["trained_to"]
    days = prepared.panel.days[-5:]
    here, there = (part.predict(prepared.panel, days).set_index(["symbol", "date"]) for part in (bundle, before))
    np.testing.assert_allclose(here.loc["SYN002"].drop(columns="family"), there.loc["SYN002"].drop(columns="family"),
                               rtol=1e-6)
    assert np.isfinite(here.loc["SYN002"]["low"]).all()
    assert not np.allclose(here.loc["SYN001"]["mean"], there.loc["SYN001"]["mean"])
    own = fit_calibration(new, load_forecaster(new).as_exported(), prepared.panel)
    rest = Calibration.from_dict(bundle.manifest["calibration"])
    assert (rest.slope, rest.quantile) == (own.slope, own.quantile) and "SYN002: kept from an old" in rest.notes[-1]

    # a month later: SYN002 is compared with the run that it came from, and may be kept once more
    later = replace(new, run_id=f"2099{new.run_id[4:]}")
    again = against_previous(later, guessing(table, prepared.panel, "SYN002", -1), prepared)
    assert again["run_id"] == new.run_id and again["kept"] == ["SYN002"]
    assert again["symbols"]["SYN002"]["old_accuracy"] == found["symbols"]["SYN002"]["old_accuracy"]
    assert again["symbols"]["SYN001"]["old_accuracy"] == found["symbols"]["SYN001"]["new_accuracy"]


@pytest.mark.parametrize("change", ["architecture", "gone"])
def test_kept_model_that_does_not_fit_is_a_reject_that_names_its_folder(copy, table, change):
    ws, old, prepared, new = copy
    verdict, folder = verdict_of(new, SYN002="reject"), ws.model_folder(old.run_id)
    verdict.summary["previous"] = against_previous(new, guessing(table, prepared.panel, "SYN002", -1), prepared)
    if change == "gone":
        (folder / "SYN001_stockformer_simple_best.pt").unlink()
    else:
        other = load_bundle(folder)
        narrower = replace(other.forecaster, config=replace(other.forecaster.config, look_back=30))
        narrower.save(folder)
        manifest = read_sealed(folder / "manifest.json")
        for name, fact in manifest["files"].items():
            fact["sha256"] = sha256_of(folder / name)
        write_sealed(folder / "manifest.json", manifest)
    bundle = export_bundle(new, verdict, refit=False, quiet=True)
    row = bundle.manifest["symbols"]["SYN002"]
    assert row["decision"] == "reject" and str(folder) in row["reasons"][0] and "kept_from" not in row
    assert bundle.decisions["SYN001"] == "accept"
