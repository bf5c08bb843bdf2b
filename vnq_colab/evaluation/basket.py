"""The basket: the k best stocks with equal weights, and the rule by which they are exchanged.

Axes: days, strategies, symbols. Backtests and tomorrow's orders ask the same function.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from vnq_colab.data.market import MarketRules
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.engine import Desk, Orders


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
    held. `days_held` counts trading days since the purchase, that day included. A stock is exchanged only where the
    best free one promises more `edge` [log return over the horizon] than it, by more than `cost`, that of a sale and a
    purchase [fraction]; without `edge` by rank alone. Where more than k are held, those below rank `keep` are sold
    without a successor until k are left.
    """
    limits = np.array([[basket.k], [basket.keep], [basket.hold_days]])
    leave, enter = exchanges(*limits, score, edge, held, days_held, cost)
    stay, bought = held.copy(), np.zeros_like(held)
    stay.reshape(-1)[leave], bought.reshape(-1)[enter] = False, True
    return stay, bought


def exchanges(k: np.ndarray, keep: np.ndarray, hold_days: np.ndarray, score: np.ndarray, edge: np.ndarray | None,
              held: np.ndarray, days_held: np.ndarray, cost: float) -> tuple[np.ndarray, np.ndarray]:
    """`decide` as places (strategy × n_symbols + symbol) to sell and to buy, the best first; `k` and so on are
    `[strategies]`, or `[1]` for all."""
    n, width = score.shape
    known, best = np.isfinite(score), best_first(score)
    best += np.arange(n)[:, None] * width  # places
    place, hold_days = np.arange(width), hold_days + np.zeros(n, dtype=int)
    is_held = held.reshape(-1)[best]
    row, at = np.nonzero(is_held & (place >= keep[:, None]) & (place < known.sum(axis=1)[:, None]))
    leaving = best[row, at]
    old = days_held.reshape(-1)[leaving] >= hold_days[row]
    row, leaving = row[old], leaving[old]
    n_held, n_leave = held.sum(axis=1), np.bincount(row, minlength=n)
    empty, surplus = np.maximum(k - n_held, 0), np.maximum(n_held - k, 0)
    needed = empty + np.maximum(n_leave - surplus, 0)
    near = min(int((needed + n_held).max(initial=0)), width)  # so many of the best hold enough free ones
    free = ~is_held[:, :near] & known.reshape(-1)[best[:, :near]]
    number = free.cumsum(axis=1)
    row_in, at = np.nonzero(free & (number <= needed[:, None]))
    entering, pair_in = best[row_in, at], number[row_in, at] - 1 - empty[row_in]  # below 0: an empty place
    first = np.searchsorted(row, np.arange(n))
    worst_first = first[row] + n_leave[row] - 1 - (np.arange(len(row)) - first[row])
    leaving = leaving[worst_first]
    pair = np.arange(len(row)) - first[row] - surplus[row]  # below 0: one too many
    n_pairs = np.minimum(n_leave - surplus, np.bincount(row_in, minlength=n) - empty)
    swaps, swaps_in = (pair >= 0) & (pair < n_pairs[row]), (pair_in >= 0) & (pair_in < n_pairs[row_in])
    leaves, enters = pair < 0, pair_in < 0
    pays = True if edge is None else edge.reshape(-1)[entering[swaps_in]] - edge.reshape(-1)[leaving[swaps]] > cost
    leaves[swaps] = enters[swaps_in] = pays
    return leaving[leaves], entering[enters]


def best_first(score: np.ndarray) -> np.ndarray:
    """`[..., symbols]`: the symbols' places from the highest score to the lowest; equal ones by name, NaN last."""
    bits = np.where(np.isfinite(score), 0 - score, np.inf).astype("float32").view("int32")
    bits ^= (bits >> 31) & 0x7FFFFFFF  # orders as the numbers do; with the symbol's place behind: sorts of whole
    return np.sort((bits.astype("int64") << 16) | np.arange(score.shape[-1]), axis=-1) & 0xFFFF  # numbers are fast


class BasketRule:
    """Baskets as a rule of the engine. `baskets` holds one for all, or one for each day or for each strategy."""

    def __init__(self, score: np.ndarray, edge: np.ndarray | None, baskets: list[Basket], rules: MarketRules, *,
                 by_day: bool = False) -> None:
        self.score, self.edge, self.by_day = score, edge, by_day  # [days, strategies, symbols]
        self.limits = np.array([(basket.k, basket.keep, basket.hold_days) for basket in baskets]).T
        self.cost = 2 * (rules.fee + rules.slippage) + rules.sale_tax

    def __call__(self, day: int, desk: Desk) -> Orders:
        k, keep, hold_days = self.limits[:, day : day + 1] if self.by_day else self.limits
        edge = None if self.edge is None else self.edge[day]
        leave, enter = exchanges(k, keep, hold_days, self.score[day], edge, desk.held, desk.days_held(day), self.cost)
        return leave, enter, 1 / (k + np.zeros(len(desk.held)))[enter // desk.held.shape[1]]


class RandomRule:
    """Random baskets: on each day as many random exchanges as another basket made, of random stocks.

    `known [days, symbols]` bool are the stocks that could be bought, `n_sold [days]` counts positions that the other
    one closed on the day after.
    """

    def __init__(self, known: np.ndarray, n_sold: np.ndarray, baskets: list[Basket], n: int,
                 seed: "int | list[int]") -> None:
        self.known, self.n_sold, self.baskets = known, n_sold, baskets  # baskets [days]
        self.random = np.random.default_rng(seed)
        self.chosen = np.zeros((n, known.shape[1]), dtype=bool)  # to be sold as soon as the market allows it
        self.due = np.zeros(n, dtype=int)

    def __call__(self, day: int, desk: Desk) -> Orders:
        basket, held = self.baskets[day], desk.held
        self.chosen &= held
        self.due += self.n_sold[day]
        n_empty = basket.k - desk.count(desk.places) + desk.count(np.flatnonzero(self.chosen))
        draw = self.random.random(held.shape, dtype="float32") if self.due.any() or (n_empty > 0).any() else None
        if draw is not None and self.due.any():
            can = held & ~self.chosen & (desk.days_held(day) >= basket.hold_days)
            places, n_drawn = _draw(draw, can, self.due)
            self.chosen.reshape(-1)[places] = True
            self.due -= n_drawn
            n_empty += n_drawn
        leave, enter = np.flatnonzero(self.chosen), np.empty(0, dtype=int)
        if draw is not None:
            enter = _draw(draw, self.known[day] & ~held, n_empty)[0]
        return leave, enter, np.full(len(enter), 1 / basket.k)


def _draw(draw: np.ndarray, allowed: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of `n [strategies]` random ones of those allowed, and how many were found `[strategies]`."""
    draw, found = draw * allowed, np.zeros_like(n)  # many times faster than np.where
    places, rows = [np.empty(0, dtype=int)], np.flatnonzero(n > 0)
    while rows.size:
        best = (draw if 2 * len(rows) > len(draw) else draw[rows]).argmax(axis=1)
        best = best[rows] if len(best) == len(draw) else best
        there = draw[rows, best] > 0
        rows, best = rows[there], best[there]
        places.append(rows * draw.shape[1] + best)
        draw[rows, best] = 0
        found[rows] += 1
        rows = rows[n[rows] > found[rows]]
    return np.concatenate(places), found
