"""Champion and challenger: what may replace what, and that a reader always finds one of them whole."""

import functools
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from vnq_colab.__main__ import main
from vnq_colab.data.prepared import prepare
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.champion import POINTERS, read_pointer, standing, write_pointer
from vnq_colab.delivery.deploy import deploy, rollback
from vnq_colab.delivery.tidying import tidy
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import DeliveryError
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.evaluation.page import FORECAST, FORECAST_HASH
from vnq_colab.files import read_sealed, sha256_of, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.training.session import sessions
from vnq_colab.training.trainer import train

HOUSE = Path(__file__).resolve().parents[1]


def judge(models, name, **changes):
    """Rewrites what a bundle's manifest says: a market `decision`, or any other field."""
    path = models / name / "manifest.json"
    manifest = read_sealed(path)
    if decision := changes.pop("decision", None):
        market = {"decision": decision, "reasons": [f"It is {decision}."], "gates": []}
        manifest["verdict"] = {"gate_set": "honest", "summary": {}, "market": market}
    write_sealed(path, manifest | changes)


def accepted(run_id, *reasons):
    return Verdict(run_id, "honest", {}, {"decision": "accept", "reasons": [*reasons], "gates": []}, {})


@pytest.fixture(scope="module")
def made(tmp_path_factory, prices, small):
    """A workspace with two validated runs and their accepted bundles: the first the champion, the second challenges."""
    ws = Workspace(tmp_path_factory.mktemp("deploy"))
    prepared = prepare(ws, prices)
    for seed in range(2):
        session = train(ws, prepared.panel, replace(small, seed=seed, symbols=None), quiet=True)
        validate(session, prepared=prepared)
        export_bundle(session, accepted(session.run_id))
    return ws.root


@pytest.fixture
def two(made, tmp_path):
    """(workspace of its own, champion, challenger)."""
    ws = Workspace(shutil.copytree(made, tmp_path / "ws"))
    pointer = read_pointer(ws.models)
    return ws, pointer["champion"], pointer["challenger"]


def pointers(ws):
    return [(ws.models / name).read_bytes() for name in POINTERS]


def worsen(ws, run_id):
    """What the folds of a run forecast is turned round."""
    folder = ws.report_folder(run_id)
    table = pd.read_parquet(folder / FORECAST)
    table.assign(score=-table["score"]).to_parquet(folder / FORECAST)
    verdict = read_sealed(folder / "verdict.json")
    verdict["summary"][FORECAST_HASH] = sha256_of(folder / FORECAST)
    write_sealed(folder / "verdict.json", verdict)


def test_challenger_is_compared_and_takes_the_champions_place_and_rollback_takes_it_back_once(two):
    ws, old, new = two
    assert load_bundle(ws).folder.name == old
    done = deploy(ws)
    assert done.changed and (done.champion, done.previous) == (new, old) and "not worse" in repr(done)
    pointer = read_pointer(ws.models)
    assert [pointer[name] for name in ("champion", "challenger", "previous", "by")] == [new, None, old, "deploy"]
    assert "verdict on its market is accept" in pointer["why"] and "common days" in pointer["why"]
    assert load_bundle(ws).folder.name == new and pointers(ws)[0] == pointers(ws)[1]
    before = pointers(ws)
    assert not deploy(ws).changed and "Nothing to do: " in deploy(ws).text
    assert not deploy(ws, new).changed and "Nothing to do" in deploy(ws, new).text and pointers(ws) == before
    assert rollback(ws).champion == old and load_bundle(ws).folder.name == old
    with pytest.raises(DeliveryError, match=f"a rollback from {new}; rollback --to {new} undoes that"):
        rollback(ws)
    assert rollback(ws, new).champion == new and "Nothing to do" in rollback(ws, new).text


@pytest.mark.parametrize("decision", ["reject", "review", "unjudged", "worse", "unknown"])
def test_what_does_not_deserve_it_is_refused_with_the_reason_and_forced_in_writing(two, decision):
    ws, old, new = two
    if decision == "worse":
        worsen(ws, new)
    elif decision == "unknown":
        (ws.report_folder(old) / FORECAST).unlink()
    elif decision == "unjudged":
        judge(ws.models, new, verdict=None)
    else:
        judge(ws.models, new, decision=decision)
    before = pointers(ws)
    said = {"worse": "t of the difference", "unknown": "Not compared with the champion"}.get(
        decision, f"verdict on its market is {decision}")
    with pytest.raises(DeliveryError, match=f"{new} is not deployed.*{said}"):
        deploy(ws)
    assert pointers(ws) == before
    why = read_pointer(ws.models)["why"] if deploy(ws, force=True).changed else ""
    assert why.startswith("By force.") and said in why and load_bundle(ws).folder.name == new


@pytest.mark.parametrize("words, change, said", [
    (["deploy"], lambda models, new: (models / new / "trees.pt").write_bytes(b"x"), "trees.pt: its content is not"),
    (["deploy", "--force"], lambda models, new: judge(models, new, format=3), "earlier version"),
    (["deploy", "--force"], lambda models, new: (models / new / "manifest.json").unlink(), "no manifest.json"),
    (["deploy", "--force"], lambda models, new: judge(models, read_pointer(models)["champion"], synthetic=False),
     "of a made-up market"),
    (["deploy", "--run", "2"], lambda models, new: None, "bundles of 2 runs begin with '2'"),
    (["deploy", "--run", "../x"], lambda models, new: None, "no bundle of run '../x'"),
    (["deploy", "--run", "nobody\x1b[2J"], lambda models, new: None, "no bundle of run 'nobody"),
    (["rollback"], lambda models, new: None, "nothing is known to have been before"),
    (["rollback", "--to", "x"], lambda models, new: None, "no bundle of run 'x'"),
    (["rollback"], lambda models, new: [(models / name).unlink() for name in POINTERS], "no champion yet"),
    (["deploy"], lambda models, new: [(models / name).write_text("x") for name in POINTERS], "deploy --run ID"),
])
def test_bad_input_is_one_sentence_and_changes_nothing(two, capsys, words, change, said):
    ws, _, new = two
    change(ws.models, new)
    before = {path: path.read_bytes() for path in ws.models.rglob("*") if path.is_file()}
    assert main([*words, "--root", str(ws.root)]) == 2
    out, err = capsys.readouterr()
    assert said in err and len(err.strip().splitlines()) == 1 and not out and "\x1b" not in err
    assert {path: path.read_bytes() for path in ws.models.rglob("*") if path.is_file()} == before


def test_rollback_verifies_before_it_changes_the_pointer_and_refuses_what_was_never_accepted(two):
    ws, old, new = two
    judge(ws.models, new, decision="review")
    with pytest.raises(DeliveryError, match=f"is not the champion before.*deploy --run {new} --force"):
        rollback(ws, new)
    deploy(ws, force=True)
    (ws.models / old / "trees.pt").write_bytes(b"x")
    before = pointers(ws)
    with pytest.raises(DeliveryError, match="its content is not what the manifest says"):
        rollback(ws)
    assert pointers(ws) == before and load_bundle(ws).folder.name == new


def test_bundle_is_named_by_its_run_the_beginning_of_it_or_its_folder(two):
    ws, _, new = two
    again = export_bundle(sessions(ws)[-1], accepted(new, "x"))
    assert again.folder.name == f"{new}-2" == read_pointer(ws.models)["challenger"]
    assert deploy(ws, new).champion == f"{new}-2", "the newest of the run"
    assert rollback(ws, new).champion == new, "a folder is meant to the letter"
    assert deploy(ws, f"{new}-2").champion == f"{new}-2"


def test_champion_that_nobody_can_use_is_replaced_without_a_comparison(two):
    ws, old, _ = two
    judge(ws.models, old, format=3)
    assert "The champion cannot be used: " in deploy(ws).text


def test_export_replaces_only_a_champion_that_was_never_accepted_or_cannot_be_loaded(two):
    ws, old, new = two
    session, before = sessions(ws)[-1], pointers(ws)
    export_bundle(session, accepted(new))
    assert pointers(ws) == before, "the challenger again"
    judge(ws.models, old, decision="reject")
    assert export_bundle(session).folder == load_bundle(ws).folder
    pointer = read_pointer(ws.models)
    assert (pointer["by"], pointer["previous"]) == ("export", old) and "is unjudged" in pointer["why"]
    write_pointer(ws.models, champion=old, previous=None)
    (ws.models / old / "trees.pt").write_bytes(b"x")
    judge(ws.models, old, synthetic=False)
    export_bundle(session)
    assert read_pointer(ws.models)["champion"] == old, "damaged, but of a real market"
    judge(ws.models, old, synthetic=True)
    assert export_bundle(session).folder == load_bundle(ws).folder
    assert read_pointer(ws.models)["previous"] is None


def test_rollback_that_was_interrupted_is_completed_and_not_undone_by_another(two):
    ws, old, _ = two
    deploy(ws)
    copy = pointers(ws)[1]
    rollback(ws)
    (ws.models / POINTERS[1]).write_bytes(copy)  # the kill came between the two
    assert load_bundle(ws).folder.name == old
    assert not rollback(ws).changed and pointers(ws)[0] == pointers(ws)[1]
    assert load_bundle(ws).folder.name == old


def test_status_and_tidy_show_and_keep_champion_challenger_and_the_one_before(two, capsys):
    ws, old, new = two
    assert main(["status", "--root", str(ws.root)]) == 0
    out = capsys.readouterr().out
    assert f"champion: {old}, since " in out and f"challenger: {new}, which deploy" in out
    assert main(["status", "--json", "--root", str(ws.root)]) == 0
    assert json.loads(capsys.readouterr().out)["bundles"] == read_pointer(ws.models)
    deploy(ws)
    session = sessions(ws)[-1]
    for reason in ("a", "b"):
        export_bundle(session, accepted(new, reason))
    tidied = tidy(ws, keep=1, delete=True)
    assert {path.parent.name for path in ws.models.glob("*/manifest.json")} == {old, new, f"{new}-3"}
    assert f"left alone: {old}, to which rollback can go back" in repr(tidied)
    assert (ws.report_folder(old) / FORECAST).exists(), "deploy compares with it"
    (ws.models / POINTERS[0]).write_text("x")
    (ws.models / POINTERS[1]).write_text("x")
    assert "champion: " in standing(ws.models)[0] and standing(ws.models)[1] is None


# ------------------------------------------------------------------------------------------ readers while it happens
def read_until(stop, ws):
    """How often each bundle was loaded, by folder, run and hashes of its models, until the file `stop` is there."""
    seen = {}
    while not stop.exists():
        key = spell(load_bundle(ws))
        seen[key] = seen.get(key, 0) + 1
    return seen


def spell(bundle):
    hashes = {name: one.digest() for name, one in bundle.forecasters.items()}
    return f"{bundle.folder.name} {bundle.manifest['run_id']} {hashes}"


READER = """
import json, sys
from pathlib import Path
from tests.test_deploy import Workspace, read_until
print("ready", flush=True)
print(json.dumps(read_until(Path(sys.argv[1]), Workspace(Path(sys.argv[2])))))
"""


def change_back_and_forth(ws, old, new, n):
    for number in range(n):
        act = functools.partial(deploy, force=True) if number % 4 < 2 else rollback
        assert act(ws, old if number % 2 else new).changed


@pytest.fixture(params=["disk", "MyDrive"])
def open_ground(request, two, tmp_path):
    """(workspace, champion, challenger, the file that ends the readers, what they may see); on Drive files are torn."""
    ws, old, new = two
    shutil.rmtree(ws.root / "reports")  # nothing is compared, which takes long
    ws = Workspace(shutil.move(ws.root, tmp_path / request.param))
    return ws, old, new, tmp_path / "stop", {spell(load_bundle(ws.models / name)) for name in (old, new)}


def test_readers_while_bundles_are_deployed_get_the_old_one_or_the_new_one(open_ground):
    ws, old, new, stop, whole = open_ground
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_until, stop, ws) for _ in range(2)]
        try:
            change_back_and_forth(ws, old, new, 40)
        finally:
            stop.touch()
        assert all({*reader.result()} == whole for reader in readers)


@pytest.mark.slow
def test_readers_in_other_processes_during_many_deploys_see_no_mixture(open_ground):
    ws, old, new, stop, whole = open_ground
    readers = [subprocess.Popen([sys.executable, "-c", READER, str(stop), str(ws.root)], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True, cwd=HOUSE) for _ in range(2)]
    try:
        assert [reader.stdout.readline() for reader in readers] == ["ready\n"] * 2
        change_back_and_forth(ws, old, new, 200)  # 2,000 once: benchmarks/results/faults.csv
    finally:
        stop.touch()
        seen = [reader.communicate()[0] for reader in readers]
    seen = [json.loads(text) for text in seen]
    assert all({*one} == whole for one in seen)
