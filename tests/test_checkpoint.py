import io
import zipfile

import pytest
import torch

from vnq_colab.errors import CheckpointError
from vnq_colab.files import read_json
from vnq_colab.layout import Workspace
from vnq_colab.training.checkpoint import CheckpointStore, payload_sequence, write_payload


def state(value):
    return {"weights": torch.full((100,), float(value)), "epoch": value}


def done(value):
    return {"facts": facts("trees_fold2") | {"data_id": "71c0", "config_id": "88de"}, "rows": {}, "budget": {},
            "curves": [("*", 0, value, 0.5, 0.06)], "failed": {}, "sha256": "3f9a", "weights": None}


def facts(job="trees_fold1"):
    return {"job": job, "symbols": ["FPT"]}


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(Workspace(tmp_path), "run")


def save(store, value, job="trees_fold1"):
    store.save(state(value), facts(job))
    store.wait()
    return store.written()


def test_slots_are_written_in_turn_and_the_newest_is_loaded(store):
    for value in (1, 2, 3):
        manifest = save(store, value)
    assert manifest["sequence"] == 3 and manifest["slot"] == "slot_a"
    assert sorted(payload_sequence(store.folder / name) for name in ("slot_a", "slot_b")) == [2, 3]
    loaded, damages = store.load_latest(facts())
    assert loaded["epoch"] == 3 and not damages
    assert read_json(store.folder / "manifest_a.json")["sequence"] == 3


@pytest.mark.parametrize("damage", [
    lambda data: data[:-10], lambda data: data[:80] + b"x" + data[81:], lambda data: b"",
])
def test_damaged_newest_slot_gives_way_to_the_other_and_says_so(store, damage):
    save(store, 1)
    save(store, 2)
    path = store.folder / "slot_b"
    path.write_bytes(damage(path.read_bytes()))
    loaded, damages = store.load_latest(facts())
    assert loaded["epoch"] == 1
    assert "slot_b" in damages[0] and "slot_a is used instead" in damages[1]


def test_checkpoint_of_another_job_or_of_other_symbols_is_not_used(store):
    save(store, 1)
    assert store.load_latest(facts("trees_fold2"))[0] is None
    assert store.load_latest(facts() | {"symbols": ["FPT", "HPG"]})[0] is None


def test_nothing_saved_is_the_start_of_the_job(store):
    assert store.load_latest(facts()) == (None, [])


def test_equal_states_give_equal_bytes(tmp_path):
    first, second = (CheckpointStore(Workspace(tmp_path / name), "run") for name in "ab")
    first.save_done("trees_fold1", state(1))
    second.save_done("trees_fold1", state(1))
    assert (first.folder / "done/trees_fold1").read_bytes() == (second.folder / "done/trees_fold1").read_bytes()


def test_finished_job_that_was_changed_is_refused(store):
    path = store.save_done("trees_fold1", state(1))
    assert store.is_usable("trees_fold1")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert not store.is_usable("trees_fold1")
    with pytest.raises(CheckpointError, match="does not match its own sha256.* Delete it, and resume trains this job"):
        store.load_done("trees_fold1")


def test_finished_job_of_other_facts_or_of_another_time_is_refused(store):
    saved, other = done(1), done(2)
    store.save_done("trees_fold2", saved)
    assert store.load_done("trees_fold2", saved["facts"], saved["digest"])["digest"] == saved["digest"]
    with pytest.raises(CheckpointError, match="holds another job"):
        store.load_done("trees_fold2", saved["facts"] | {"data_id": "other"})
    store.save_done("trees_fold2", other)
    assert not store.is_usable("trees_fold2", saved["digest"])
    with pytest.raises(CheckpointError, match="holds another job"):
        store.load_done("trees_fold2", saved["facts"], saved["digest"])


@pytest.mark.parametrize("change", [{"rows": []}, {"curves": [(1, 2)]}, {"forecast": {"score": 1.0}}, {"extra": 1},
                                    {"sha256": None}, {"facts": {"job": "../x"}}])
def test_finished_job_of_another_type_is_refused_in_words(store, change):
    store.save_done("trees_fold2", done(1) | change)
    with pytest.raises(CheckpointError, match="resume trains this job again"):
        store.load_done("trees_fold2")


def test_file_of_torch_that_unpacks_to_more_than_it_holds_is_not_unpacked(store, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    write_payload(store.done_path("trees_fold2"), lambda file: file.write(packed.getvalue()), 0)
    with pytest.raises(CheckpointError, match="unpacks to more than it holds"):
        store.load_done("trees_fold2")


def test_finished_job_of_another_part_is_read_where_it_lies(store, tmp_path):
    other = CheckpointStore(Workspace(tmp_path), "other")
    other.save_done("trees_fold2", done(2))
    assert not store.is_usable("trees_fold2")
    store.read_from(("other",))
    assert store.is_usable("trees_fold2") and store.load_done("trees_fold2")["curves"][0][2] == 2
    assert not (store.folder / "done").exists()
    store.put_finished(["trees_fold2"], pytest.fail)
