"""Blocks of trees as bytes: XGBoost's own binary JSON, read and checked before XGBoost reads it; what a block adds.

A mangled block would end the whole process: so nothing is handed to XGBoost that was not walked through here.
"""

import io
from types import ModuleType
from typing import Any

import numpy as np
import torch

from vnq_colab.data.panel import Panel
from vnq_colab.errors import ConfigError, DeliveryError

# Source: https://ubjson.org; XGBoost writes counted arrays, and lengths of eight bytes.
NUMBERS = {b"U": "u1", b"i": "i1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
OBJECTIVES = ("reg:squarederror", "rank:pairwise", "rank:ndcg")
NO_PARENT = 2**31 - 1  # of the root
REALS = ("base_weights", "loss_changes", "split_conditions", "sum_hessian")  # of a tree, one of each node
WHOLES = ("left_children", "right_children", "parents", "split_indices", "split_type", "default_left")


def engine() -> ModuleType:
    """XGBoost. Raises ConfigError with the command that installs it."""
    try:
        import xgboost
    except ImportError:
        raise ConfigError("XGBoost is needed for the family trees. Install it with: pip install xgboost-cpu (on a "
                          "machine with a GPU: pip install xgboost), or train without it: --families "
                          "stockformer,global.") from None
    return xgboost


def margin_of(raw: bytes, values: np.ndarray, threads: int = 0) -> np.ndarray:
    """`[rows, features] -> [rows]` float32: what one block of trees adds to a score."""
    booster = engine().Booster({"nthread": threads} if threads else {}, model_file=bytearray(raw))
    return booster.inplace_predict(values, predict_type="margin")


def columns_of(panel: Panel, names: tuple[str, ...]) -> "slice | list[int]":
    """Where these features stand in a panel; all of them without a copy."""
    return slice(None) if names == panel.feature_names else [panel.feature_names.index(name) for name in names]


def as_tensor(raw: bytes) -> torch.Tensor:
    """Bytes as a tensor, which a file of tensors and plain values can hold."""
    return torch.from_numpy(np.frombuffer(raw, dtype="uint8").copy())


def check_block(raw: bytes, n_features: int) -> None:
    """Raises DeliveryError unless a block is whole: finite numbers, each node below its parent, no categories."""
    try:
        learner = _value(file := io.BytesIO(raw))["learner"]
        booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
        model = booster["model"]
        count, counts = len(model["trees"]), map(model["gbtree_model_param"].get, ("num_parallel_tree", "num_trees"))
        is_ours = [booster["name"], parameters["num_feature"], parameters["num_class"], parameters["num_target"],
                   parameters["base_score"].strip("[]"), learner["feature_names"], learner["feature_types"], *counts,
                   model["tree_info"], model["iteration_indptr"], file.read()] == [
                       "gbtree", str(n_features), "0", "1", "0E0", [], [], "1", str(count), [0] * count,
                       list(range(count + 1)), b""] and learner["objective"]["name"] in OBJECTIVES
        if any(map(len, model.get("cats", {}).values())) or not is_ours:
            raise ValueError("not boosted trees of these features")
        for tree in model["trees"]:
            _check_tree(tree, n_features)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DeliveryError(f"its trees are damaged, or of an XGBoost that this library does not know ({error}). "
                            "Install the version that made them, or train again.") from error


def _check_tree(tree: dict[str, Any], n_features: int) -> None:
    """Raises ValueError unless every walk down a tree stays in it, and ends."""
    wholes, reals = (np.array([tree[name] for name in names]) for names in (WHOLES, REALS))
    left, right, parents, feature, kind, default = wholes  # [nodes] each
    n, node = len(left), np.arange(len(left))
    sizes = [tree["tree_param"][name] for name in ("num_nodes", "num_feature", "size_leaf_vector", "num_deleted")]
    is_fit = wholes.dtype.kind in "iu" and reals.shape == (len(REALS), n)
    if not n or not is_fit or sizes != [str(n), str(n_features), "1", "0"] or any(
            len(part) for name, part in tree.items() if name.startswith("categories")):
        raise ValueError("a tree has parts of two lengths, or other features")
    is_whole = (left == -1) | (np.minimum(left, right) > node) & (np.maximum(left, right) < n)
    is_whole &= (feature >= 0) & (feature < n_features) & (kind == 0) & (default >= 0) & (default < 2)
    is_whole &= np.where(node == 0, parents == NO_PARENT, (parents >= 0) & (parents < node))
    if not is_whole.all() or not np.isfinite(reals).all():
        raise ValueError("a node leads nowhere, or is not finite")


def _value(file: io.BytesIO) -> Any:
    """What comes next in a block. Raises ValueError, or KeyError, for what XGBoost does not write."""
    def take(size: int) -> bytes:
        if len(part := file.read(size)) != size:
            raise ValueError("it is cut short")
        return part

    def length(mark: bytes) -> int:
        if mark != b"L":
            raise ValueError("a length of another kind")
        return int.from_bytes(take(8), "big", signed=True)

    def numbers(kind: bytes, count: int) -> np.ndarray:
        return np.frombuffer(take(count * np.dtype(NUMBERS[kind]).itemsize), NUMBERS[kind])

    kind = take(1)
    if kind == b"S":
        return take(length(take(1))).decode("ascii")
    if kind == b"{":
        pairs: dict[str, Any] = {}
        while (mark := take(1)) != b"}":
            if (name := take(length(mark)).decode("ascii")) in pairs:
                raise ValueError("a name stands twice")
            pairs[name] = _value(file)
        return pairs
    if kind != b"[":
        return numbers(kind, 1)[0].item()
    of = take(1) if (mark := take(1)) == b"$" else b""
    if (take(1) if of else mark) != b"#":
        raise ValueError("an array without a length")
    count = length(take(1))
    return numbers(of, count) if of else [_value(file) for _ in range(count)]
