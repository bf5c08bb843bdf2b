"""The networks of a bundle as ONNX graphs: written, measured beside the float networks, and run by onnxruntime.

A graph is one ensemble, that of all symbols or of one, so that what is said of a stock rests on no other stock's
network. Its weights are the bundle's, as float32, or as 8 bits with a scale for each matrix. Scaling stays in Python.
"""

import contextlib
import hashlib
import logging
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vnq_colab.data.forecast import rank_correlation
from vnq_colab.data.prepared import load_panel
from vnq_colab.delivery.bundle import Bundle, Name, read_verified
from vnq_colab.errors import ConfigError, DeliveryError, VnqError
from vnq_colab.files import read_sealed, write_atomic, write_sealed
from vnq_colab.models.forecaster import WINDOWS_AT_ONCE, NetworkForecaster
from vnq_colab.models.stacked import unstack
from vnq_colab.settings import record
from vnq_colab.training.jobs import session_folds
from vnq_colab.training.session import Session

FORMAT = 1  # of onnx.json
FAMILIES = ("global", "stockformer")
ENDINGS = {"float": ".onnx", "int8": "_int8.onnx"}
LEAST_AGREEMENT = 0.99  # mean daily rank correlation with the float networks
QUIET = r"`isinstance\(treespec, LeafSpec\)` is deprecated|# The axis name: batch will not be used"  # by the exporter
GRAPH = {"windows": "float32 [batch, time, features]: feature_names of the manifest, scaled by what stands in the "
                    "model's file, and, as its kind says, their ranks within the day; 0 where absent",
         "present": "bool [batch, time]: whether the stock has a price on the day",
         "outputs": "float32 [batch, days, outputs]: of the last days, mean of the members; a score is their mean"}
Agreement = record("Agreement", rank_correlation=float, max_difference=float, days=int)
Record = record("Record", format=int, run_id=str, graph=dict[str, str], agreement=dict[str, dict[str, Agreement]],
                files=dict[Name, record("File", bytes=int, sha256=str)])  # onnx.json


class Graphs(NamedTuple):
    """Sessions of onnxruntime in place of the network: each is an ensemble, its place stands where weights would."""

    sessions: list[Any]
    n_outputs: int
    at_once: int  # windows

    def forward(self, places: torch.Tensor, windows: torch.Tensor, present: torch.Tensor, n_last: int) -> torch.Tensor:
        """`[ensembles, batch, time, features] -> [ensembles, batch, n_last, outputs]`, as the network's."""
        parts = zip(*(part.split(self.at_once, dim=1) for part in (windows, present)), strict=True)
        return torch.cat([torch.stack([
            torch.from_numpy(self.sessions[int(at)].run(None, {"windows": x.numpy(), "present": there.numpy()})[0])
            for at, x, there in zip(places, *pair, strict=True)]) for pair in parts], dim=1)


def on_graphs(one: NetworkForecaster, contents: list[bytes], kind: str) -> NetworkForecaster:
    """The same forecaster on its graphs. 8 bits are scaled by the largest number of a run, so a window has its own."""
    options = (runtime := require()).SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # there are as many sessions as symbols
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL  # chosen: EXPERIMENTS.md
    sessions = [runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"]) for content in contents]
    graphs = Graphs(sessions, one.network.n_outputs, 1 if kind == "int8" else WINDOWS_AT_ONCE)
    return replace(one, weights=torch.arange(len(sessions)).view(-1, 1, 1), graphs=graphs)


def require(families: tuple[str, ...] = FAMILIES) -> Any:
    """onnxruntime. Raises ConfigError where it, or what else graphs need, is missing, or no family is of networks."""
    if not {*families} & {*FAMILIES}:
        raise ConfigError(f"--onnx, --int8: of networks alone ({', '.join(FAMILIES)}); this is {', '.join(families)}.")
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is needed. Install it with: pip install onnx onnxscript onnxruntime") from None
    return onnxruntime


def graph_of(one: NetworkForecaster) -> Any:
    """A family's ensemble as an onnx.ModelProto whose weights, `[members, ...]` by name, are inputs."""
    network, n_members, module = one.network, one.weights.shape[1], torch.nn.Module()

    def forward(windows: torch.Tensor, present: torch.Tensor, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        each = (part.expand(n_members, *part.shape) for part in (windows, present))
        return network.forward(parts, *each, n_last=one.block_days).mean(0)

    module.forward, parts = forward, unstack(one.weights[0].float(), network.shapes)
    windows, batch = torch.zeros(3, one.look_back, network.n_features), {0: torch.export.Dim("batch")}
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # it misses torchvision
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", QUIET)
        model = torch.onnx.export(
            module.eval(), dynamo=True, verbose=False, output_names=["outputs"],
            kwargs={"windows": windows, "present": torch.ones(windows.shape[:2], dtype=torch.bool), "parts": parts},
            dynamic_shapes={"windows": batch, "present": batch, "parts": {name: {} for name in parts}},
            input_names=["windows", "present", *parts]).model_proto
    for part in (model, model.graph, *model.graph.node):  # they name files of this machine
        part.ClearField("metadata_props")
    model.graph.ClearField("value_info")  # quantising makes it untrue
    return model


def filled(model: Any, parts: dict[str, torch.Tensor], kind: str) -> bytes:
    """The file of a graph with the weights of one ensemble."""
    import onnx
    from onnxruntime.quantization import QuantType, quant_utils, quantize_dynamic

    whole = onnx.ModelProto.FromString(model.SerializeToString())
    del whole.graph.input[2:]
    whole.graph.initializer.extend(
        onnx.numpy_helper.from_array(part.contiguous().numpy(), name) for name, part in parts.items())
    if kind == "float":
        return whole.SerializeToString(deterministic=True)
    quant_utils.add_pre_process_metadata(whole)  # the exporter has simplified it; else each quantisation warns
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")  # signed weights flip signs on processors without VNNI
        quantize_dynamic(whole, path, weight_type=QuantType.QUInt8)
        return path.read_bytes()


def export_graphs(bundle: Bundle, session: Session, *, int8: bool = False) -> Record:
    """Writes `onnx/` below a bundle, its sealed record last, unless it is there; gives the record.

    Raises DeliveryError, and writes nothing, where the last fold's validation days are ordered otherwise.
    """
    with contextlib.suppress(VnqError):
        return graph_bundle(bundle, int8=int8)[1]
    panel, contents, agreement, networks = load_panel(session.ws, session.data_id), {}, {}, _networks(bundle)
    origins = session_folds(session, panel)[-1].valid.mask(panel.days)
    for family, one in networks.items():
        model, expected, agreement[family] = graph_of(one), one.predict(panel, origins), {}
        for kind in [*ENDINGS][:1 + int8]:
            own = [filled(model, unstack(members.float(), one.network.shapes), kind) for members in one.weights]
            ours, theirs = (rows.pivot(index="symbol", columns="date", values="score").to_numpy()
                            for rows in (on_graphs(one, own, kind).predict(panel, origins), expected))
            agreement[family][kind] = {"rank_correlation": (found := rank_correlation(ours, theirs)),
                                       "max_difference": float(np.nanmax(abs(ours - theirs))), "days": ours.shape[1]}
            if not found >= LEAST_AGREEMENT:
                raise DeliveryError(
                    f"{family} in {kind}: the stocks' order on {ours.shape[1]} validation days has a rank correlation "
                    f"of {found:.4f} with the float networks', not the {LEAST_AGREEMENT} asked. No graph was written.")
            contents |= zip(_names(one, kind), own, strict=True)
    for name, content in contents.items():
        write_atomic(bundle.folder / "onnx" / name, content)
    write_sealed(bundle.folder / "onnx" / "onnx.json", said := {
        "format": FORMAT, "run_id": session.run_id, "graph": GRAPH, "agreement": agreement, "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in contents.items()}})
    return said


def graph_bundle(bundle: Bundle, *, int8: bool = False) -> tuple[Bundle, Record]:
    """The bundle with its networks run by onnxruntime, and the graphs' record. Each is checked against its sha256."""
    folder, kind, networks = bundle.folder / "onnx", "int8" if int8 else "float", _networks(bundle)
    require((*bundle.forecasters,))
    try:
        said = read_sealed(folder / "onnx.json", Record)
        if (said["format"], said["run_id"]) != (FORMAT, bundle.manifest["run_id"]):
            raise KeyError
        facts = {family: {name: said["files"][name] for name in _names(one, kind)} for family, one in networks.items()}
    except (FileNotFoundError, KeyError):
        raise DeliveryError(f"{folder}: there are no graphs in {kind} of these networks. Export with --onnx or --int8."
                            ) from None
    return replace(bundle, forecasters=bundle.forecasters | {
        family: on_graphs(one, [read_verified(folder / name, fact) for name, fact in facts[family].items()], kind)
        for family, one in networks.items()}), said


def _networks(bundle: Bundle) -> dict[str, NetworkForecaster]:
    return {family: one for family, one in bundle.forecasters.items() if family in FAMILIES}


def _names(one: NetworkForecaster, kind: str) -> list[str]:
    """The file of each ensemble, in their order: as in the bundle, with another ending."""
    return [name.removesuffix(".pt") + ENDINGS[kind] for name in one.files()]
