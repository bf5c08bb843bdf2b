"""The basket: the k best stocks with equal weights, and the rule by which they are exchanged.

Axes: strategies, symbols. Backtests and tomorrow's orders ask the same function.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from vnq_colab.errors import ConfigError


@dataclass(frozen=True)
class Basket:
    """k stocks with equal weights; a held one stays while its rank is at most `keep`, free places go to the best."""

    k: int = 10  # [stocks]
    keep: int = 30  # [rank] a stock below it is sold
    hold_days: int = 3  # [trading days] a purchase stays at least as long, whatever its rank
    traded_share: float = 0.05  # [fraction] of a day's traded value that one order may be

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.keep:
            raise ConfigError(f"k = {self.k}, keep = {self.keep}: k must be at least 1, keep at least k. A stock is "
                              "bought above rank k and sold below rank keep.")
        if self.hold_days < 0:
            raise ConfigError(f"hold_days = {self.hold_days}: must be 0 or more trading days.")
        if not 0 < self.traded_share <= 1:
            raise ConfigError(f"traded_share = {self.traded_share}: must lie in (0, 1], a fraction of a day's value.")

    def limited(self, n_symbols: int) -> Self:
        """The same for a small universe: k at most a fifth of it, keep at most two fifths."""
        k = max(1, min(self.k, n_symbols // 5))
        return replace(self, k=k, keep=max(k, min(self.keep, 2 * n_symbols // 5)))


def decide(basket: Basket, score: np.ndarray, edge: np.ndarray | None, held: np.ndarray, days_held: np.ndarray,
           cost: float) -> tuple[np.ndarray, np.ndarray]:
    """`[strategies, symbols]` × 4 -> bool × 2: which of the held stay, and which others are to be bought.

    `score` is NaN where a stock has no forecast or cannot be traded: such a one is not bought, and stays where it is
    held. A stock is exchanged only where the best free one promises more `edge` [log return over the horizon] than it,
    by more than `cost`, that of a sale and a purchase [fraction]; without `edge` by rank alone.
    """
    known = np.isfinite(score)
    value = np.where(known, score, -np.inf)
    best_first = np.argsort(-value, axis=1, kind="stable")  # equal ones by name
    rank = np.empty_like(best_first)
    np.put_along_axis(rank, best_first, np.arange(1, score.shape[1] + 1)[None], axis=1)
    leaves = held & known & (rank > basket.keep) & (days_held >= basket.hold_days)
    free = known & ~held
    enter, stay = np.zeros_like(held), held & ~leaves
    for row in range(len(held)):
        order = best_first[row]
        candidates, leaving = order[free[row, order]], order[leaves[row, order]]  # both best first
        n_empty = max(basket.k - int(held[row].sum()), 0)
        enter[row, candidates[:n_empty]] = True
        for out, new in zip(leaving[::-1], candidates[n_empty:], strict=False):  # the worst for the best
            pays = edge is None or edge[row, new] - edge[row, out] > cost
            stay[row, out], enter[row, new] = not pays, pays
    return stay, enter
