"""Blocks of trees on the known rows of some days: XGBoost's matrix without a copy of the features, and its margins.

Two of them, of a fold's two stages, may grow at once, each in a thread of its own: XGBoost holds no lock meanwhile, and
no thread waits for another, as the many threads of one booster do for each node of a tree.
"""

from typing import Any

import numpy as np

from vnq_colab.data.panel import Panel
from vnq_colab.models.blocks import check_block, engine
from vnq_colab.settings import TreesConfig

SLAB_ROWS = 65_536  # handed to XGBoost at once, about
EVERY = 8  # a day of so many is enough to place the borders of the bins: EXPERIMENTS, 2026-11-29


class Growth:
    """Blocks of trees, one after another, and the margins of the rows that they learn from.

    `rows [symbols, days]` bool marks these, `labels [symbols, days]` is what they learn.
    """

    def __init__(self, panel: Panel, rows: np.ndarray, labels: np.ndarray, settings: TreesConfig, threads: int):
        self.panel, self.labels, self.settings, self.threads = panel, labels, settings, threads
        self.rows, self.blocks = rows, list[bytes]()
        self._matrix: Any = None  # made with the first block, in the thread that needs it

    def grow(self, parameters: dict[str, Any]) -> None:
        """One block more: a booster of its own on the margins of those before."""
        matrix = self._ready()
        booster = engine().Booster(parameters | {"nthread": self.threads}, [matrix])
        for number in range(self.settings.block_rounds):
            booster.update(matrix, number)
        self.blocks.append(bytes(booster.save_raw("ubj")))
        self._add(booster)

    def load(self, blocks: list[bytes]) -> None:
        """Goes back to these blocks. Raises DeliveryError where one is damaged."""
        self.blocks = []
        for raw in blocks:
            check_block(raw, len(self.panel.feature_names))
            self._ready()
            self._add(engine().Booster({"nthread": self.threads}, model_file=bytearray(raw)))
            self.blocks.append(raw)

    @property
    def margins(self) -> np.ndarray:
        """`[rows]` float32, in the order of days: the sum of all blocks."""
        return self._ready().get_base_margin()

    def _add(self, booster: Any) -> None:
        """The margins with a block more: of one just grown the booster still knows them."""
        self._matrix.set_base_margin(booster.predict(self._matrix, output_margin=True))

    def _ready(self) -> Any:
        if self._matrix is None:
            sample = self._make(self.rows & (np.arange(self.rows.shape[1]) % EVERY == 0), None)
            self._matrix = self._make(self.rows, sample)
            self._matrix.set_base_margin(np.zeros(self._matrix.num_row(), "float32"))
        return self._matrix

    def _make(self, rows: np.ndarray, borders: Any) -> Any:
        """XGBoost's matrix of these rows in the order of days, filled a slab of days at a time.

        `borders`: a matrix that has those of the bins; None: they are placed here.
        """
        xgboost, marked, values, labels = engine(), rows.T, self.panel.values.swapaxes(0, 1), self.labels.T
        ends = np.flatnonzero(np.diff(np.cumsum(marked.sum(axis=1)) // SLAB_ROWS)) + 1
        slabs = [slice(*ends) for ends in np.stack([[0, *ends], [*ends, len(marked)]], axis=1)]
        slabs = [days for days in slabs if marked[days].any()]

        class Slabs(xgboost.DataIter):
            """Of days, as XGBoost asks for them, several times."""

            place = 0

            def reset(self) -> None:
                self.place = 0

            def next(self, input_data: Any) -> bool:
                if self.place == len(slabs):
                    return False
                days = slabs[self.place]
                self.place += 1
                input_data(data=values[days][marked[days]], label=labels[days][marked[days]])
                return True

        return xgboost.QuantileDMatrix(Slabs(), max_bin=self.settings.bins, nthread=self.threads, ref=borders)
