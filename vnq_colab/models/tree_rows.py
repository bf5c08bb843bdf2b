"""Blocks of trees on the known rows of some days: XGBoost's matrix without a copy of the features, and its margins.

Each grows in a thread of its own: two of them never wait for each other, as the threads of one booster do at each node.
"""

from typing import Any

import numpy as np

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import Panel
from vnq_colab.errors import ConfigError
from vnq_colab.models.blocks import check_block, columns_of, engine

SLAB_DAYS = 256  # handed to XGBoost at once
EVERY = 16  # [days] one of so many is enough to place the borders of bins: EXPERIMENTS, 2026-11-29
QUICK_ROUNDS, QUICK_RATE = 50, 0.1  # of the pass that chooses features
PAIRS = {"lambdarank_pair_method": "mean", "lambdarank_num_pair_per_sample": 4, "ndcg_exp_gain": False}
OBJECTIVES = {"regression": {"objective": "reg:squarederror"}, "pairwise": {"objective": "rank:pairwise", **PAIRS},
              "lambdarank": {"objective": "rank:ndcg", **PAIRS}}


class Growth:
    """Blocks of trees, one after another; `rows [symbols, days]` bool marks what they learn `labels` from."""

    def __init__(self, panel: Panel, rows: np.ndarray, labels: np.ndarray, config: RunConfig, threads: int):
        self.panel, self.rows, self.labels, self.config, self.threads = panel, rows, labels, config, threads
        self.blocks, self._matrix = list[bytes](), None  # the matrix is made with the first block, in its thread
        self.names = panel.feature_names if config.trees.top_features is None else ()  # (): not chosen yet

    def grow(self, seed: int) -> None:
        """One block more: a booster of its own on the margins of those before, which it still knows afterwards."""
        with engine().config_context(use_rmm=self.config.trees.memory_pool and not no_pool(self.config)):
            self._ready()
            booster = self._boosted(self.config.trees.block_rounds, seed=seed)
            self._matrix.set_base_margin(booster.predict(self._matrix, output_margin=True))
        self.blocks.append(bytes(booster.save_raw("ubj")))

    def load(self, blocks: list[bytes], names: tuple[str, ...]) -> None:
        """Goes back to these blocks. Raises DeliveryError where one is damaged."""
        self.blocks, self.names, self._matrix = blocks, names, None
        for raw in blocks:
            check_block(raw, len(names))
            self._ready()
            booster = engine().Booster({"nthread": self.threads}, model_file=bytearray(raw))
            self._matrix.set_base_margin(booster.predict(self._matrix, output_margin=True))

    def _boosted(self, rounds: int, **parameters: Any) -> Any:
        """A new booster on the matrix. Raises ConfigError for a setting that this XGBoost refuses on this device."""
        xgboost, settings, device = engine(), self.config.trees, self.config.machine.device
        signs = tuple((name in settings.monotone) - (f"-{name}" in settings.monotone) for name in self.names)
        booster = xgboost.Booster(OBJECTIVES[settings.objective] | {
            "base_score": 0.0, "tree_method": "hist", "grow_policy": "lossguide", "max_depth": 0,
            "max_leaves": settings.leaves, "eta": settings.learning_rate, "min_child_weight": settings.min_child_weight,
            "subsample": settings.subsample, "sampling_method": settings.sampling, "lambda": settings.penalty,
            "colsample_bynode": settings.colsample, "max_bin": settings.bins, "device": device,
            "nthread": self.threads, "verbosity": 0} | parameters | (
                {"monotone_constraints": signs} if any(signs) else {}), [self._matrix])
        try:
            for number in range(rounds):
                booster.update(self._matrix, number)
        except xgboost.core.XGBoostError as error:
            why = str(error).partition("Stack trace")[0].rpartition("failed:")[2].strip()
            raise ConfigError(f"XGBoost {xgboost.__version__} refuses a setting of trees on {device}: {why}") from error
        return booster

    def _ready(self) -> None:
        """Makes the matrix where there is none, and chooses the features where they are not all taken."""
        if self._matrix is None and not self.names:
            self.names = self.panel.feature_names
            self._make_matrix()
            gain = self._boosted(QUICK_ROUNDS, eta=QUICK_RATE, seed=self.config.seed).get_score(
                importance_type="total_gain")
            best = sorted(range(len(self.names)), key=lambda place: -gain.get(f"f{place}", 0.0))
            self.names = tuple(self.names[place] for place in sorted(best[:self.config.trees.top_features]))
            self._matrix = None
        if self._matrix is None:
            self._make_matrix()

    def _make_matrix(self) -> None:
        """XGBoost's matrix of the rows in the order of days; a quantile one is filled a slab of days at a time."""
        is_sample = np.arange(self.rows.shape[1]) % EVERY == 0
        if self.config.trees.matrix == "plain":
            self._matrix = engine().DMatrix(**self._columns(self.rows.T, slice(None)), nthread=self.threads)
        else:
            self._matrix = self._quantiles((self.rows & is_sample).T, None)  # places the borders of bins
            self._matrix = self._quantiles(self.rows.T, self._matrix)
        self._matrix.set_base_margin(np.zeros(self._matrix.num_row(), "float32"))

    def _quantiles(self, marked: np.ndarray, borders: Any) -> Any:
        xgboost, columns = engine(), self._columns
        slabs = [slice(day, day + SLAB_DAYS) for day in range(0, len(marked), SLAB_DAYS)]
        slabs = [days for days in slabs if marked[days].any()]

        class Slabs(xgboost.DataIter):
            """As XGBoost asks for them, several times."""

            def reset(self) -> None:
                self.left = iter(slabs)

            def next(self, input_data: Any) -> bool:
                if (days := next(self.left, None)) is not None:
                    input_data(**columns(marked, days))
                return days is not None

        return xgboost.QuantileDMatrix(Slabs(), max_bin=self.config.trees.bins, nthread=self.threads, ref=borders)

    def _columns(self, marked: np.ndarray, days: slice) -> dict[str, np.ndarray]:
        """The rows of some days that are marked in `marked [days, symbols]`: features, labels, and days as groups."""
        values, there = self.panel.values[:, days].swapaxes(0, 1), marked[days]
        rows = {"data": values[there][:, columns_of(self.panel, self.names)], "label": self.labels.T[days][there]}
        if self.config.trees.objective != "regression":  # labels of a group: what a stock is worth, never negative
            rows |= {"qid": np.nonzero(there)[0] + (days.start or 0), "label": rows["label"] + 0.5}
        return rows


def no_pool(config: RunConfig) -> str:
    """Why GPU memory cannot be pooled on this machine; empty where it can."""
    if config.machine.device != "cuda":
        return "there is no GPU"
    return "" if engine().build_info().get("USE_RMM") else f"XGBoost {engine().__version__} was built without RMM"


def effects(config: RunConfig, names: tuple[str, ...]) -> list[str]:
    """What each option did that somebody chose, in a few words; `names` are the features that the trees see."""
    settings, why_no_pool = config.trees, no_pool(config)
    seen = [text for text in settings.monotone if text.removeprefix("-") in names]
    unseen = [text for text in settings.monotone if text not in seen]
    said = {"plain matrix, 8 bytes a number more": settings.matrix == "plain",
            f"no memory pool, {why_no_pool}" if why_no_pool else "memory pool by RMM": settings.memory_pool,
            "rows sampled by gradient": settings.sampling != "uniform",
            f"{len(names)} features": settings.top_features is not None,
            f"{settings.objective} within each day": settings.objective != "regression",
            f"monotone in {', '.join(seen)}": bool(seen),
            f"monotone in {', '.join(unseen)} not in effect: not among the chosen features": bool(unseen)}
    return [words for words, is_chosen in said.items() if is_chosen]
