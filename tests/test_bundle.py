import json
import os
import shutil
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab import files
from vnq_colab.data.prepared import prepare
from vnq_colab.delivery.bundle import export_bundle, load_bundle, stored_verdict
from vnq_colab.delivery.champion import POINTERS, read_pointer
from vnq_colab.delivery.deploy import deploy
from vnq_colab.errors import DeliveryError, SessionError, VnqError
from vnq_colab.evaluation.calibration import final_calibrations
from vnq_colab.files import read_json, read_sealed, sha256_of, write_json, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.models.base import FAMILIES, model_bytes
from vnq_colab.models.states import read_state
from vnq_colab.training.jobs import fold_scores
from vnq_colab.training.session import Session
from vnq_colab.training.trainer import train


@pytest.fixture(scope="module")
def bundle(judged):
    _, _, session, _ = judged
    return export_bundle(session)


@pytest.fixture
def copy(bundle, tmp_path):
    """A copy of the bundle's folder that a test may damage."""
    return shutil.copytree(bundle.folder, tmp_path / "bundle")


def test_decisions_are_those_of_the_verdict_that_was_given(judged):
    _, _, session, validation = judged
    names = list(validation.verdict.symbols)
    chosen = dict.fromkeys(names, "reject") | {names[0]: "accept", names[2]: "review"}
    found = {symbol: part | {"decision": chosen[symbol]} for symbol, part in validation.verdict.symbols.items()}
    given = export_bundle(session, replace(validation.verdict, symbols=found))
    assert given.decisions == chosen
    export_bundle(session)  # back to what the other tests read


def test_export_trains_nothing_and_gives_equal_bytes_each_time(bundle, judged, monkeypatch):
    _, _, session, _ = judged
    monkeypatch.setattr("vnq_colab.training.loop.Attempt.__init__", lambda *_, **__: pytest.fail("it trains"))
    files = {path.name: path.read_bytes() for path in bundle.folder.glob("*.pt")}
    again = export_bundle(session)
    assert {path.name: path.read_bytes() for path in again.folder.glob("*.pt")} == files and len(files) == 10


def test_run_without_a_verdict_is_exported_as_unjudged(judged, tmp_path):
    ws, _, session, _ = judged
    copy = Workspace(shutil.copytree(ws.root, tmp_path / "ws"))
    shutil.rmtree(copy.report_folder(session.run_id))
    assert set(export_bundle(Session.load(copy, session.run_id)).decisions.values()) == {"unjudged"}


def test_unfinished_run_is_not_exported_and_says_what_to_do(judged, tmp_path):
    ws, _, session, _ = judged
    other = Session.load(Workspace(shutil.copytree(ws.root, tmp_path / "ws")), session.run_id)
    other.jobs["trees_final"]["state"], other.status = "pending", "paused"
    with pytest.raises(SessionError, match=r"is paused: 1 of \d+ jobs are not trained yet. Go on with resume first"):
        export_bundle(other)


def test_manifest_says_what_the_bundle_is_and_the_folder_of_models_leads_to_it(bundle, judged):
    ws, prepared, session, validation = judged
    manifest = read_json(bundle.folder / "manifest.json")
    assert load_bundle(ws.models).folder == bundle.folder and "SYNTHETIC" in repr(bundle)
    assert bundle.decisions == {symbol: row["decision"] for symbol, row in validation.verdict.symbols.items()}
    assert stored_verdict(session).to_dict() == json.loads(json.dumps(validation.verdict.to_dict()))
    assert export_bundle(session, validation.verdict).folder == export_bundle(session).folder
    fitted = final_calibrations(fold_scores(session, prepared.panel), prepared.panel, 5)
    assert manifest["calibration"] == json.loads(json.dumps({name: asdict(one) for name, one in fitted.items()}))
    assert manifest["run_id"] == session.run_id and manifest["data_id"] == prepared.panel.data_id
    assert manifest["trained_to"] == f"{prepared.panel.days[-1]:%Y-%m-%d}" and manifest["market_index"] is False
    assert tuple(manifest["feature_names"]) == prepared.panel.feature_names
    assert manifest["task"]["horizon"] == 5 and manifest["config"] == session.config.to_dict()
    for name, fact in manifest["files"].items():
        assert fact["sha256"] == sha256_of(bundle.folder / name)


def test_file_of_a_symbol_is_complete_by_itself(bundle, judged):
    path = bundle.folder / "SYN001_stockformer_simple_best.pt"
    state = torch.load(path, weights_only=True)
    weights = bundle.forecasters["stockformer"].weights[0]
    assert state["symbols"] == ["SYN001"] and torch.equal(state["weights"], weights[None])
    assert weights.dtype == torch.float16 and path.stat().st_size < 2 * weights.numel() + 40_000
    assert {"feature_names", "data_id", "code_version", "trained_to"} <= set(state)
    assert load_bundle(bundle.folder).forecasters["stockformer"].digest() == bundle.forecasters["stockformer"].digest()


def test_latest_forecast_needs_recent_prices_alone_but_for_a_stock_with_long_halts(bundle, judged, monkeypatch):
    prices, panel = judged[1].prices, judged[1].panel
    monkeypatch.setattr("vnq_colab.delivery.bundle.PAST_DAYS", 700)
    assert panel.days[300] < bundle._recent(prices, 1) <= panel.days[-700]
    latest = load_bundle(bundle.folder).predict_latest(prices)
    assert latest["decision"].notna().all()
    whole = bundle.predict(panel, panel.days[-1:])
    pd.testing.assert_frame_equal(latest.drop(columns="decision"), whole, rtol=1e-6)
    halted = prices[(prices["symbol"] != "SYN005") | ~prices["date"].isin(panel.days[400:1000])]
    assert bundle._recent(halted, 1) == panel.days[0]


def test_every_family_and_the_ensemble_forecast_and_the_judged_one_is_named(bundle, judged):
    _, prepared, _, _ = judged
    table = bundle.predict(prepared.panel, prepared.panel.days[-3:])
    assert set(table["family"]) == {"stockformer", "global", "trees", "ensemble"} and bundle.judged_family == "ensemble"
    assert table.groupby("family")["symbol"].nunique().eq(8).all()
    assert np.isfinite(table[["edge", "mean", "scale", "p_up"]]).all(axis=None)


def test_one_stock_is_forecast_as_in_the_market(bundle, judged):
    """A bundle of many symbols gives the same number for one, whoever else is asked for."""
    _, prepared, _, _ = judged
    day = prepared.panel.days[-1:]
    whole = bundle.predict(prepared.panel, day).set_index(["family", "symbol"])["score"]
    for family, forecaster in bundle.forecasters.items():
        alone = forecaster.select(("SYN003",)).predict(prepared.panel, prepared.panel.days == day[0])
        np.testing.assert_allclose(alone["score"], whole[family, "SYN003"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("damage, message", [
    (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
    (lambda folder: (folder / "SYN002_stockformer_simple_best.pt").unlink(), "in the manifest but not in the folder"),
    (lambda folder: (folder / "SYN002_stockformer_simple_best.pt").write_bytes(b"x"), "not what the manifest says"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 99}), "newer version"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 3}), "earlier version.* Export its run again"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 4}), "lacks basket"),
    (lambda folder: write_sealed(folder / "manifest.json", {"format": 4, "files": {}}), "lacks basket"),
    (lambda folder: write_sealed(folder / "manifest.json", {}), "of an earlier version"),
])
def test_damaged_bundle_is_refused_in_words(copy, damage, message):
    damage(copy)
    with pytest.raises(DeliveryError, match=message):
        load_bundle(copy)


def test_bundle_of_other_features_names_the_difference(copy, judged):
    _, prepared, _, _ = judged
    changed = load_bundle(copy)
    networks = changed.forecasters["stockformer"]
    changed.forecasters["stockformer"] = replace(networks, feature_names=("return_7", *networks.feature_names[1:]))
    with pytest.raises(DeliveryError, match="trained on return_7, which this code does not compute"):
        changed.predict_latest(prepared.prices)


def test_verdict_of_another_run_is_refused(judged):
    _, _, session, validation = judged
    with pytest.raises(DeliveryError, match="Validate this run first"):
        export_bundle(session, replace(validation.verdict, run_id="20200101T000000_000000"))


# -------------------------------------------------------------------------------------------------------- one pointer
@pytest.fixture
def again(judged, bundle, tmp_path):
    """(session, verdict of other reasons, so that another bundle comes out) in a copy of the workspace."""
    ws, _, session, validation = judged
    copy = Workspace(shutil.copytree(ws.root, tmp_path / "MyDrive" / "ws", ignore=shutil.ignore_patterns("models")))
    rows = {symbol: row | {"reasons": ["another"]} for symbol, row in validation.verdict.symbols.items()}
    session = Session.load(copy, session.run_id)
    export_bundle(session)
    return session, replace(validation.verdict, symbols=rows)


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_other_content_goes_to_a_new_folder_and_the_bundle_before_stays(again, tmp_path, monkeypatch):
    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    session, other = again
    folder = session.ws.models / session.run_id
    before = bytes_of(folder)
    assert export_bundle(session).folder == folder and bytes_of(folder) == before, "the same content is not written"
    new = export_bundle(session, other)
    assert new.folder.name == f"{session.run_id}-2" and bytes_of(folder) == before
    assert load_bundle(session.ws).folder == new.folder and read_pointer(session.ws.models)["previous"] == folder.name
    assert load_bundle(session.ws.models / f"{session.run_id}").decisions == new.decisions
    assert export_bundle(session).folder == folder == load_bundle(session.ws).folder
    assert export_bundle(session, other).folder == new.folder and len(list(session.ws.models.iterdir())) == 4


def test_export_that_is_killed_at_any_write_leaves_the_bundle_before_or_the_new_one(again, tmp_path, monkeypatch):
    """On Drive, where a file is written in place: emptied, and no more."""
    class Killed(BaseException):
        pass

    monkeypatch.setenv("VNQ_LOCAL", str(tmp_path / "local"))
    session, other = again
    root, overwrite, whole, n = session.ws.root, files.overwrite, {}, 0
    shutil.copytree(root, tmp_path / "before")
    while True:
        left = [n]

        def write(path, source, left=left):
            left[0] -= 1
            if left[0] < 0:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
                raise Killed
            overwrite(path, source)

        monkeypatch.setattr(files, "overwrite", write)
        try:
            export_bundle(session, other)
            break
        except Killed:
            used = load_bundle(session.ws)
            whole[n] = used.folder.name
            monkeypatch.setattr(files, "overwrite", overwrite)
            assert export_bundle(session, other).manifest["verdict"] is not None
        shutil.rmtree(root)
        shutil.copytree(tmp_path / "before", root)
        n += 1
    assert n == 10 + 1 + 2 and list(whole.values()) == [session.run_id] * 12 + [f"{session.run_id}-2"]


def test_damaged_pointer_has_a_copy_and_without_it_the_person_names_the_champion(again, capsys):
    session, other = again
    ws = session.ws
    first, new = load_bundle(ws).folder, export_bundle(session, other).folder
    (ws.models / "current.json").write_text("x")
    assert load_bundle(ws).folder == new and "current_copy.json is used" in capsys.readouterr().err
    (ws.models / "current_copy.json").write_text("{}")
    for crowns in (load_bundle, lambda _: export_bundle(session)):  # of two bundles nobody knows which it was
        with pytest.raises(DeliveryError, match="Name the champion anew with deploy --run ID"):
            crowns(ws)
    assert deploy(ws, new.name, force=True).changed and load_bundle(ws).folder == new
    for path in (ws.models / "current.json", ws.models / "current_copy.json"):
        path.write_text("x")
    shutil.rmtree(new)
    assert export_bundle(session).folder == first == load_bundle(ws).folder


@pytest.mark.parametrize("pointer", [
    {"run_id": "20261128T110303_1fd60b", "exported": "2026-11-28T12:29:04Z"}, {"folder": "x", "previous": None},
    *({"champion": bad} for bad in ("../elsewhere", "..", "/tmp", "mine", 3, "")),
    {"previous": "../elsewhere"}, {"by": "hand"}, {"champion": None}])
def test_pointer_of_an_earlier_version_or_out_of_the_folder_is_refused(again, pointer):
    ws = again[0].ws
    good = read_pointer(ws.models)
    for name in POINTERS:
        write_sealed(ws.models / name, pointer if pointer.keys().isdisjoint(good) or "folder" in pointer
                     else good | pointer)
    with pytest.raises(DeliveryError, match="pointer of this version.*deploy --run ID"):
        load_bundle(ws)


# ------------------------------------------------------------------------ what the manifest says, and what is there
def network(folder, change, name="SYN002_stockformer_simple_best.pt"):
    """Rewrites a network and what the manifest says of its bytes."""
    state = change(read_state(folder / name, (folder / name).read_bytes()))
    (folder / name).write_bytes(model_bytes(state))
    manifest = read_sealed(folder / "manifest.json")
    manifest["files"][name] |= {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
    write_sealed(folder / "manifest.json", manifest)


def says(folder, change):
    manifest = read_sealed(folder / "manifest.json")
    change(manifest)
    write_sealed(folder / "manifest.json", manifest)


ONE, OTHER = (f"SYN00{number}_stockformer_simple_best.pt" for number in (2, 3))
HOSTILE = {
    "no seal": lambda folder: write_json(folder / "manifest.json", read_sealed(folder / "manifest.json")),
    "calibration of another": lambda folder: says(folder, lambda m: m["calibration"]["trees"].update(family="global")),
    "calibration without spread": lambda folder: says(folder, lambda m: m["calibration"]["trees"].update(spread=0.0)),
    "not in files": lambda folder: says(folder, lambda m: m["files"].pop(ONE)),
    "no files": lambda folder: says(folder, lambda m: m["files"].clear()),
    "another stock's": lambda folder: says(folder, lambda m: m["files"].update({ONE: m["files"][OTHER]})),
    "swapped": lambda folder: (shutil.copy(folder / OTHER, folder / ONE), says(
        folder, lambda m: m["files"].update({ONE: m["files"][OTHER] | {"symbols": ["SYN002"]}}))),
    "weights not finite": lambda folder: network(folder, lambda s: s | {"weights": s["weights"] * float("nan")}),
    "negative spread": lambda folder: network(folder, lambda s: s | {"inputs": s["inputs"] | {
        "spread": -s["inputs"]["spread"]}}),
    "inputs of no known kind": lambda folder: network(folder, lambda s: s | {"inputs": s["inputs"] | {
        "per_symbol": -1}}),
    "other spread than the others": lambda folder: network(folder, lambda s: s | {"inputs": s["inputs"] | {
        "spread": 2 * s["inputs"]["spread"]}}),
    "another run": lambda folder: network(folder, lambda s: s | {"run_id": "x"}),
    "other days": lambda folder: network(folder, lambda s: s | {"trained_to": "2020-01-01"}),
    "another family": lambda folder: network(folder, lambda s: s | {"family": "global"}),
    "another task": lambda folder: network(folder, lambda s: s | {"task": s["task"] | {"target": "direction"}}),
    "other context": lambda folder: network(folder, lambda s: s | {"config": s["config"] | {
        "min_context": s["config"]["min_context"] + 1}}),
    "other features": lambda folder: network(folder, lambda s: s | {"feature_names": s["feature_names"][::-1]}),
    "mangled trees": lambda folder: network(folder, lambda s: s | {"blocks": [s["blocks"][0][:-9]]}, "trees.pt"),
    "path outside": lambda folder: says(folder, lambda m: m["files"].update({f"../{ONE}": m["files"].pop(ONE)})),
    "unknown family": lambda folder: says(folder, lambda m: m["families"].append("chronos")),
    "judged by nobody": lambda folder: says(folder, lambda m: m.update(judged_family="chronos")),
    "no look-back": lambda folder: says(folder, lambda m: m.update(look_back=1)),
    "features of others": lambda folder: says(folder, lambda m: m["feature_names"].reverse()),
    "config of others": lambda folder: says(folder, lambda m: m["config"]["model"].update(min_context=2)),
    "config that is none": lambda folder: says(folder, lambda m: m.update(config={})),
    "a symbol more": lambda folder: says(folder, lambda m: m["symbols"].update(XXX=m["symbols"]["SYN002"])),
    "a symbol less": lambda folder: says(folder, lambda m: m["symbols"].pop("SYN002")),
    "decision that is none": lambda folder: says(folder, lambda m: m["symbols"]["SYN002"].update(decision="buy")),
    "market that is none": lambda folder: says(folder, lambda m: m["verdict"]["market"].update(decision="xyz")),
    "calibration is words": lambda folder: says(folder, lambda m: m["calibration"]["trees"].update(edge="big")),
    "basket of none": lambda folder: says(folder, lambda m: m.update(basket={"k": 0, "keep": 1})),
    "file is a pipe": lambda folder: ((folder / ONE).unlink(), os.mkfifo(folder / ONE)),
    "file without end": lambda folder: ((folder / ONE).unlink(), (folder / ONE).symlink_to("/dev/zero")),
    "manifest without end": lambda folder: ((folder / "manifest.json").unlink(),
                                            (folder / "manifest.json").symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_bundle_whose_parts_do_not_belong_together_is_refused(copy, what):
    assert load_bundle(copy).forecasters
    HOSTILE[what](copy)
    with pytest.raises(VnqError):
        load_bundle(copy)


def test_bundle_in_the_folder_of_another_run_is_refused(copy, judged):
    run_id = judged[2].run_id
    assert load_bundle(shutil.copytree(copy, copy.parent / f"{run_id}-7")).manifest["run_id"] == run_id
    with pytest.raises(DeliveryError, match=f"is of run {run_id}, in the folder of another"):
        load_bundle(shutil.copytree(copy, copy.parent / "20200101T000000_abcdef"))


def test_stray_file_in_the_folder_is_not_loaded(copy, bundle):
    shutil.copy(copy / ONE, copy / "XXX_stockformer_simple_best.pt")
    assert load_bundle(copy).forecasters["stockformer"].symbols == bundle.forecasters["stockformer"].symbols


def test_each_file_is_opened_once(copy, monkeypatch):
    opened, opening = [], open
    monkeypatch.setattr("builtins.open", lambda path, *args, **how: (opened.append(str(path)),
                                                                     opening(path, *args, **how))[1])
    load_bundle(copy)
    assert all(opened.count(str(path)) == 1 for path in copy.iterdir())


def test_family_from_outside_is_exported_and_loaded_by_the_same_door(prices, small, tmp_path, monkeypatch):
    import own_family

    monkeypatch.setitem(FAMILIES, own_family.NAME, own_family.__name__)
    monkeypatch.setattr("vnq_colab.config.FAMILY_NAMES", (*FAMILIES,))
    ws = Workspace(tmp_path)
    prepared = prepare(ws, prices)
    session = train(ws, prepared.panel, replace(small, families=("linear",)), quiet=True)
    bundle = export_bundle(session)
    assert bundle.forecasters["linear"].digest() == load_bundle(ws).forecasters["linear"].digest()
    assert load_bundle(ws).predict_latest(prices)["score"].notna().all()
    network(bundle.folder, lambda state: state | {"features": state["features"][1:]}, "linear.pt")
    with pytest.raises(DeliveryError, match="do not|not those|other"):
        load_bundle(ws)
