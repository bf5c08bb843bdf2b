import json

import pytest

from tests.drive_map import FILES
from vnq_colab.data.prepared import prepare
from vnq_colab.delivery.review import PICTURES, review
from vnq_colab.layout import Workspace


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory, prices):
    ws = Workspace(tmp_path_factory.mktemp("review"))
    prepared = prepare(ws, prices)
    return prepared, review(prepared)


def test_review_draws_four_pictures_into_the_set(reviewed):
    prepared, found = reviewed
    for name in PICTURES:
        assert (prepared.folder / name).read_bytes().startswith(b"\x89PNG")
        assert f"data/prepared/<data_id>/{name}" in FILES
    assert str(prepared.folder) in repr(found)


def test_review_proves_up_to_the_last_training_day(reviewed):
    prepared, found = reviewed
    stored = json.loads((prepared.folder / "lookahead.json").read_text(encoding="utf-8"))
    assert stored["passed"] and stored["at"] == prepared.folds[-1].train.last == found.proof.at


def test_set_is_whole_after_its_review(reviewed, prices):
    prepared, _ = reviewed
    before = (prepared.folder / "panel.parquet").stat().st_mtime_ns
    prepare(Workspace(prepared.folder.parents[2]), prices)
    assert (prepared.folder / "panel.parquet").stat().st_mtime_ns == before
