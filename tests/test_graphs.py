import shutil
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vnq_colab import __main__ as door
from vnq_colab.config import RunConfig
from vnq_colab.data.prepared import prepare
from vnq_colab.delivery import graphs, tidying
from vnq_colab.delivery.bundle import export_bundle, load_bundle
from vnq_colab.delivery.graphs import export_graphs, graph_bundle
from vnq_colab.errors import ConfigError, DeliveryError
from vnq_colab.files import read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.training.trainer import train

runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -r "
                                                    "requirements-local.txt")


@pytest.fixture(scope="module")
def exported(prices, tmp_path_factory):
    """(panel, session, bundle with graphs in float and int8) of a small run that was not judged."""
    ws, traced, trace = Workspace(tmp_path_factory.mktemp("graphs")), {}, graphs.graph_of
    panel = prepare(ws, prices).panel
    session = train(ws, panel, replace(RunConfig.for_machine("smoke"), folds=1), quiet=True)
    bundle = export_bundle(session)
    with pytest.MonkeyPatch.context() as patch:  # seconds each: a family is traced once for all tests
        patch.setattr(graphs, "graph_of", lambda one: (
            traced.get(one.family) or traced.setdefault(one.family, trace(one))))
        export_graphs(bundle, session, int8=True)
        yield panel, session, bundle


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of that bundle which a test may damage."""
    return load_bundle(shutil.copytree(exported[2].folder, tmp_path / exported[2].folder.name))


@pytest.mark.parametrize("n_days", [1, 12])
def test_graphs_give_the_networks_forecast_within_a_ten_thousandth_and_the_same_order(exported, n_days):
    panel, _, bundle = exported
    days = panel.days[-n_days - 3:-3]
    ours, theirs = (one.predict(panel, days) for one in (graph_bundle(bundle)[0], bundle))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=0, atol=1e-4)
    for rows in (ours, theirs):
        rows["rank"] = rows.groupby(["family", "date"], observed=True)["score"].rank()
    assert {"global", "stockformer"} < set(ours["family"]) and ours["rank"].equals(theirs["rank"])


def test_stocks_that_are_absent_or_left_out_change_nothing_for_the_others(exported):
    panel, _, bundle = exported
    whole, few = graph_bundle(bundle)[0].forecasters["stockformer"], bundle.forecasters["stockformer"].symbols[1:3]
    origins = np.arange(len(panel.days)) >= len(panel.days) - 4
    alone, together = whole.select(few).predict(panel, origins), whole.predict(panel, origins)
    same = together[together["symbol"].isin(few)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, same, check_categorical=False)


def test_a_reader_with_onnxruntime_alone_gets_a_score_as_the_record_says(exported):
    panel, _, bundle = exported
    one, folder = bundle.forecasters["global"], bundle.folder / "onnx"
    assert set(read_sealed(folder / "onnx.json", graphs.Record)["graph"]) == {"windows", "present", "outputs"}
    end = one.block_days * (len(panel.days) // one.block_days) - 1  # the last day of a block
    days = slice(end + 1 - one.look_back, end + 1)
    row, = panel.rows(one.symbols[:1])
    ran = runtime.InferenceSession(folder / "global.onnx").run(None, {
        "windows": one.inputs.of(panel, np.array([row]))[:, days], "present": panel.present[[row], days]})[0]
    expected = one.predict(panel, np.arange(len(panel.days)) == end)
    assert ran.shape == (1, one.block_days, one.network.n_outputs)
    assert ran[0, -1].mean() == pytest.approx(expected.set_index("symbol")["score"][one.symbols[0]], abs=1e-4)


def test_int8_orders_the_validation_days_alike_and_a_day_is_the_same_whichever_others_are_forecast(exported):
    panel, _, bundle = exported
    whole, said = graph_bundle(bundle, int8=True)
    found = [one["int8"] for one in said["agreement"].values()]
    assert len(found) == 2 and all(0.99 <= one["rank_correlation"] <= 1 and one["days"] > 50 for one in found)
    many, day = whole.predict(panel, panel.days[-9:]), panel.days[-1]
    pd.testing.assert_frame_equal(many[many["date"] == day].reset_index(drop=True), whole.predict(panel, [day]))


def test_graphs_leave_the_bundle_as_it_is_are_written_once_and_name_nothing_of_this_machine(exported):
    _, session, bundle = exported
    before = {path: path.stat().st_mtime_ns for path in bundle.folder.rglob("*") if path.is_file()}
    assert export_graphs(bundle, session) and export_graphs(bundle, session, int8=True)
    assert {path: path.stat().st_mtime_ns for path in bundle.folder.rglob("*") if path.is_file()} == before
    written = [path for path in before if path.parent.name == "onnx"]
    assert len(written) == 2 * (1 + len(bundle.forecasters["stockformer"].symbols)) + 1
    assert not [path for path in written if b".py" in path.read_bytes() or b"/vnq" in path.read_bytes()]
    assert all(tidying.OURS["models"][1].fullmatch(f"onnx/{path.name}") for path in written)


def test_graphs_that_order_otherwise_are_refused_with_the_number_and_nothing_is_left(exported, copy, monkeypatch):
    shutil.rmtree(copy.folder / "onnx")
    whole = graphs.filled
    monkeypatch.setattr(graphs, "filled", lambda model, parts, kind: whole(
        model, {name: part.flip(1) if kind == "int8" else part for name, part in parts.items()}, kind))
    with pytest.raises(DeliveryError, match=r"global in int8: the stocks' order on \d+ validation days has a "
                                            r"rank correlation of -?0\.\d{4} .* not the 0.99 asked. No graph"):
        export_graphs(copy, exported[1], int8=True)
    assert not (copy.folder / "onnx").exists()


def test_export_that_was_killed_is_not_used_and_completes_when_run_again(exported, copy, monkeypatch):
    shutil.rmtree(copy.folder / "onnx")
    with monkeypatch.context() as broken:
        broken.setattr(graphs, "write_sealed", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            export_graphs(copy, exported[1])
    with pytest.raises(DeliveryError, match="no graphs in float of these networks. Export with --onnx or --int8"):
        graph_bundle(copy)
    export_graphs(copy, exported[1])
    with pytest.raises(DeliveryError, match="no graphs in int8 of these networks. Export with --onnx or --int8"):
        graph_bundle(copy, int8=True)
    same = [(folder / "global.onnx").read_bytes() for folder in (copy.folder / "onnx", exported[2].folder / "onnx")]
    assert graph_bundle(copy) and same[0] == same[1]


def test_damaged_or_foreign_graphs_are_not_run(copy):
    path, folder = copy.folder / "onnx" / "global.onnx", copy.folder / "onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DeliveryError, match="global.onnx: its content is not what the manifest says"):
        graph_bundle(copy)
    write_sealed(folder / "onnx.json", read_sealed(folder / "onnx.json") | {"run_id": "20200101T000000_abcdef"})
    with pytest.raises(DeliveryError, match="no graphs in float of these networks"):
        graph_bundle(copy)
    assert load_bundle(copy.folder).decisions, "the bundle itself is whole"


def test_missing_package_or_a_run_without_networks_is_said_before_anything_is_written(exported, monkeypatch, capsys):
    with pytest.raises(ConfigError, match=r"of networks alone \(global, stockformer\); this is trees"):
        graphs.require(("trees",))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("vnq_colab.export_bundle", lambda *_: pytest.fail("it exports"))
    assert door.main(["export", "--onnx", "--root", str(exported[1].ws.root)]) == 2
    assert "onnxscript is needed. Install it with: pip install onnx onnxscript onnxruntime" in (
        capsys.readouterr().err)


def test_export_command_says_how_near_the_graphs_come(exported, capsys):
    assert door.main(["export", "--int8", "--root", str(exported[1].ws.root)]) == 0
    assert "ONNX, global in float: rank correlation 1.0000 with the float networks" in capsys.readouterr().out
