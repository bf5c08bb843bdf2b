"""A block of trees in XGBoost's binary JSON, checked before XGBoost reads it: a mangled one ends the whole process.

What is read is what XGBoost writes: counted arrays, and lengths of eight bytes. Source: https://ubjson.org.
"""

import io
from typing import Any

import numpy as np

from vnq_colab.errors import DeliveryError

DEEPEST = 12  # levels
NUMBERS = {b"U": "u1", b"i": "i1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
NO_PARENT = 2**31 - 1  # of the root
REALS = ("base_weights", "loss_changes", "split_conditions", "sum_hessian")  # of a tree, one for each node
WHOLES = ("left_children", "right_children", "parents", "split_indices", "split_type", "default_left")


def check_block(raw: bytes, n_features: int) -> None:
    """Raises DeliveryError unless a block is whole: trees of finite numbers, each node below its parent, one target."""
    file = io.BytesIO(raw)
    try:
        learner = _value(file)["learner"]
        booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
        model = booster["model"]
        count, numbers = len(model["trees"]), map(model["gbtree_model_param"].get, ("num_parallel_tree", "num_trees"))
        _require(not file.read(1) and not any(map(len, model.get("cats", {}).values())), "something is left over")
        _require([booster["name"], learner["objective"]["name"], parameters["num_feature"], parameters["num_class"],
                  parameters["num_target"], parameters["base_score"].strip("[]"), learner["feature_names"],
                  learner["feature_types"], *numbers, model["tree_info"], model["iteration_indptr"]]
                 == ["gbtree", "reg:squarederror", str(n_features), "0", "1", "0E0", [], [], "1", str(count),
                     [0] * count, list(range(count + 1))], "not boosted trees of these features")
        for tree in model["trees"]:
            _check_tree(tree, n_features)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DeliveryError(f"its trees are damaged, or of an XGBoost that this library does not know ({error}). "
                            "Install the version that made them, or train again.") from error


def _check_tree(tree: dict[str, Any], n_features: int) -> None:
    n, parameters = len(tree["left_children"]), tree["tree_param"]
    _require(n and all(len(tree[name]) == n for name in REALS + WHOLES) and not any(
        len(part) for name, part in tree.items() if name.startswith("categories")), "a tree's parts differ in length")
    _require([parameters[name] for name in ("num_nodes", "num_feature", "size_leaf_vector", "num_deleted")]
             == [str(n), str(n_features), "1", "0"], "a tree is not of these features")
    left, right, parents, feature, kind, default = (tree[name].astype("int64") for name in WHOLES)
    inner = np.flatnonzero(left != -1)
    children, above = np.concatenate([left[inner], right[inner]]), np.concatenate([inner, inner])
    _require(np.array_equal(inner, np.flatnonzero(right != -1)) and np.array_equal(np.sort(children), np.arange(1, n))
             and (children > above).all() and parents[0] == NO_PARENT and np.array_equal(parents[children], above),
             "its nodes are no tree")
    _require(((feature >= 0) & (feature < n_features) & (kind == 0) & np.isin(default, (0, 1))).all()
             and all(tree[name].dtype.kind == "f" and np.isfinite(tree[name]).all() for name in REALS),
             "a feature or a number of a tree is none")


def _value(file: io.BytesIO, depth: int = 0) -> Any:
    """The next value. Raises ValueError, or KeyError, for what XGBoost does not write."""
    kind = file.read(1)
    _require(depth <= DEEPEST, "too deep")
    if kind == b"S":
        return _text(file)
    if kind == b"{":
        pairs: dict[str, Any] = {}
        while (mark := file.read(1)) != b"}":
            file.seek(-len(mark), io.SEEK_CUR)
            name = _text(file)
            _require(name not in pairs, "a name stands twice")
            pairs[name] = _value(file, depth + 1)
        return pairs
    if kind != b"[":
        return _numbers(file, kind, 1)[0].item()
    if (mark := file.read(1)) == b"$":
        kind, mark = file.read(1), file.read(1)
        _require(mark == b"#", "an array without a length")
        return _numbers(file, kind, _length(file))
    _require(mark == b"#", "an array without a length")
    return [_value(file, depth + 1) for _ in range(_length(file))]


def _numbers(file: io.BytesIO, kind: bytes, count: int) -> np.ndarray:
    dtype = np.dtype(NUMBERS[kind])
    return np.frombuffer(_take(file, count * dtype.itemsize), dtype)


def _text(file: io.BytesIO) -> str:
    return _take(file, _length(file)).decode("ascii")


def _length(file: io.BytesIO) -> int:
    _require(file.read(1) == b"L", "a length of another kind")
    return int.from_bytes(_take(file, 8), "big")


def _take(file: io.BytesIO, size: int) -> bytes:
    part = file.read(min(size, 2**40))
    _require(len(part) == size, "cut short")
    return part


def _require(holds: Any, why: str) -> None:
    if not holds:
        raise ValueError(why)
