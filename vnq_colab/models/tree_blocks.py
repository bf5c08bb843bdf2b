"""A block of trees in XGBoost's binary JSON, checked before XGBoost reads it: a mangled one ends the whole process.

What is read is what XGBoost writes: counted arrays, and lengths of eight bytes. Source: https://ubjson.org.
"""

from typing import Any

import numpy as np

from vnq_colab.errors import DeliveryError

NUMBERS = {b"U": "u1", b"i": "i1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
NO_PARENT = 2**31 - 1  # of the root
REALS = ("base_weights", "loss_changes", "split_conditions", "sum_hessian")  # of a tree, one of each node
WHOLES = ("left_children", "right_children", "parents", "split_indices", "split_type", "default_left")


def check_block(raw: bytes, n_features: int) -> None:
    """Raises DeliveryError unless a block is whole: trees of finite numbers, each node below its parent, one target."""
    try:
        learner = _read(raw)["learner"]
        booster, parameters = learner["gradient_booster"], learner["learner_model_param"]
        model = booster["model"]
        count, numbers = len(model["trees"]), map(model["gbtree_model_param"].get, ("num_parallel_tree", "num_trees"))
        _require(not any(map(len, model.get("cats", {}).values())), "categories are not known here")
        _require([booster["name"], learner["objective"]["name"], parameters["num_feature"], parameters["num_class"],
                  parameters["num_target"], parameters["base_score"].strip("[]"), learner["feature_names"],
                  learner["feature_types"], *numbers, model["tree_info"], model["iteration_indptr"]]
                 == ["gbtree", "reg:squarederror", str(n_features), "0", "1", "0E0", [], [], "1", str(count),
                     [0] * count, list(range(count + 1))], "not boosted trees of these features")
        _check_trees(model["trees"], n_features)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise DeliveryError(f"its trees are damaged, or of an XGBoost that this library does not know ({error}). "
                            "Install the version that made them, or train again.") from error


def _check_trees(trees: list[dict[str, Any]], n_features: int) -> None:
    sizes = np.array([len(tree["left_children"]) for tree in trees])
    for n, tree in zip(sizes, trees, strict=True):
        categories = [part for name, part in tree.items() if name.startswith("categories")]
        _require(n and all(len(tree[name]) == n for name in REALS + WHOLES) and not any(map(len, categories)),
                 "a tree has parts of two lengths")
        _require([tree["tree_param"][name] for name in ("num_nodes", "num_feature", "size_leaf_vector", "num_deleted")]
                 == [str(n), str(n_features), "1", "0"], "a tree is not of these features")
    roots = np.cumsum(sizes) - sizes
    start, size = np.repeat(roots, sizes), np.repeat(sizes, sizes)  # [nodes of all trees]
    left, right, parents, feature, kind, default = (
        np.concatenate([tree[name] for tree in trees]).astype("int64") for name in WHOLES)
    inner = np.flatnonzero(left != -1)
    above, children = np.tile(inner, 2), np.concatenate([left[inner], right[inner]])
    _require(np.array_equal(inner, np.flatnonzero(right != -1)) and (children < size[above]).all(), "a node is cut off")
    children += start[above]
    _require(np.array_equal(np.sort(children), np.delete(np.arange(len(start)), roots)) and (children > above).all()
             and np.array_equal(parents[children], (above - start[above])) and (parents[roots] == NO_PARENT).all(),
             "its nodes are no tree")
    good = (feature >= 0) & (feature < n_features) & (kind == 0) & np.isin(default, (0, 1))
    _require(good.all(), "it splits by what is no feature")
    reals = np.concatenate([tree[name] for name in REALS for tree in trees])
    _require(reals.dtype == "f4" and np.isfinite(reals).all(), "a number in it is not finite")


def _read(raw: bytes) -> Any:
    """The value that a block is. Raises ValueError, or KeyError, for what XGBoost does not write."""
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        part, at = raw[at:at + size], at + size
        _require(at <= len(raw), "it is cut short")
        return part

    def length() -> int:
        _require(take(1) == b"L", "a length of another kind")
        return int.from_bytes(take(8), "big")

    def numbers(kind: bytes, count: int) -> np.ndarray:
        return np.frombuffer(take(count * np.dtype(NUMBERS[kind]).itemsize), NUMBERS[kind])

    def value() -> Any:
        kind = take(1)
        if kind == b"S":
            return take(length()).decode("ascii")
        if kind == b"{":
            pairs: dict[str, Any] = {}
            while raw[at:at + 1] != b"}":
                name = take(length()).decode("ascii")
                _require(name not in pairs, "a name stands twice")
                pairs[name] = value()
            take(1)
            return pairs
        if kind != b"[":
            return numbers(kind, 1)[0].item()
        of = take(2)[1:] if raw[at:at + 1] == b"$" else b""
        _require(take(1) == b"#", "an array without a length")
        return numbers(of, length()) if of else [value() for _ in range(length())]

    whole = value()
    _require(at == len(raw), "something is left over")
    return whole


def _require(holds: Any, why: str) -> None:
    if not holds:
        raise ValueError(why)
