"""The basket: the k best stocks with equal weights, and the rule by which they are exchanged.

Axes: days, strategies, symbols; a place is strategy × n_symbols + symbol. Backtests and tomorrow's orders ask the same
rule.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from vnq_colab.data.market import MarketRules
from vnq_colab.evaluation.engine import Accounts, Orders
from vnq_colab.settings import COUNT, SHARE, Settings, between, require

DAYS = between(0, 10_000)


@dataclass(frozen=True)
class Basket(Settings):
    """k stocks with equal weights; a held one stays while its rank is at most `keep`, free places go to the best."""

    k: COUNT = 10  # [stocks]
    keep: COUNT = 30  # [rank] a stock below it is sold
    hold_days: DAYS = 3  # [trading days] a purchase stays at least as long, whatever its rank
    traded_share: SHARE = 0.05  # [fraction] of a day's traded value that one order may be

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k <= self.keep, "k", self.k, f"must be at most keep = {self.keep}, the rank below which one sells")

    def limited(self, n_symbols: int) -> Self:
        """The same for a small universe: k at most a fifth of it, keep at most two fifths."""
        k = max(1, min(self.k, n_symbols // 5))
        return replace(self, k=k, keep=max(k, min(self.keep, 2 * n_symbols // 5)))


def decide(limits: "tuple[int, int, int] | np.ndarray", score: np.ndarray, edge: np.ndarray | None, held: np.ndarray,
           days_held: np.ndarray, cost: float) -> tuple[np.ndarray, np.ndarray]:
    """`[strategies, symbols]` × 4 -> places to sell and places to buy, the most important first in each strategy.

    `limits` are k, keep and hold_days, of all strategies or `[3, strategies]`. `score` is NaN where a stock has no
    forecast or cannot be traded: such a one is not bought, and stays where it is held. `days_held` counts trading days
    since the purchase, that day included. A stock is exchanged only where the best free one promises more `edge` [log
    return over the horizon] than it, by more than `cost`, that of a sale and a purchase [fraction]; without `edge` by
    rank alone. Where more than k are held, those below rank `keep` are sold without a successor until k are left.
    """
    n, width = score.shape
    k, keep, hold_days = np.reshape(limits, (3, -1)) + np.zeros((3, n), dtype=int)
    best, n_held = best_first(score) + width * np.arange(n)[:, None], held.sum(axis=1)
    score, held, days_held = (part.reshape(-1) for part in (score, held, days_held))
    empty, surplus = np.maximum(k - n_held, 0), np.maximum(n_held - k, 0)  # [strategies]
    enter = best[:, : int((k + n_held).max(initial=0))].reshape(-1)  # no more than k are bought
    enter = enter[~held[enter]]
    enter = enter[np.isfinite(score[enter])]
    far = best[:, keep.min(initial=width) :]
    worst_first = far[:, ::-1].reshape(-1)
    at = np.flatnonzero(held[worst_first])
    leave, rank = worst_first[at], width - 1 - at % far.shape[1]
    leave = leave[(rank >= keep[leave // width]) & np.isfinite(score[leave])
                  & (days_held[leave] >= hold_days[leave // width])]
    row_in, row_out = enter // width, leave // width
    n_in, n_out = np.bincount(row_in, minlength=n), np.bincount(row_out, minlength=n)
    pair_in = np.arange(len(row_in)) - (n_in.cumsum() - n_in + empty)[row_in]  # below 0: for an empty place
    pair_out = np.arange(len(row_out)) - (n_out.cumsum() - n_out + surplus)[row_out]  # below 0: one too many
    n_pairs = np.minimum(n_in - empty, n_out - surplus)
    enters, leaves = pair_in < 0, pair_out < 0
    swap_in, swap_out = (np.flatnonzero((pair >= 0) & (pair < n_pairs[row])) for pair, row in (
        (pair_in, row_in), (pair_out, row_out)))
    pays = True if edge is None else edge.reshape(-1)[enter[swap_in]] - edge.reshape(-1)[leave[swap_out]] > cost
    enters[swap_in] = leaves[swap_out] = pays
    return leave[leaves], enter[enters]


def best_first(score: np.ndarray) -> np.ndarray:
    """`[..., symbols]`: the symbols' places from the highest score to the lowest; equal ones by name, NaN last."""
    # Bits of a float that order as it does, the symbol's place behind them: sorts of whole numbers are fast
    bits = np.fmin(0 - score, np.inf).astype("float32").view("int32")
    bits ^= (bits >> 31) & 0x7FFFFFFF
    key = bits.astype("int64")
    key <<= 16
    key |= np.arange(score.shape[-1])
    key.sort(axis=-1)
    key &= 0xFFFF
    return key


class BasketRule:
    """Baskets as a rule of the engine: one for all, one for each strategy, or with `by_day` one for each day.

    `score` and `edge` are `[days, strategies, symbols]`; of one strategy they hold for all.
    """

    def __init__(self, score: np.ndarray, edge: np.ndarray | None, baskets: list[Basket], rules: MarketRules, *,
                 by_day: bool = False) -> None:
        self.score, self.edge, self.by_day = score, edge, by_day
        self.limits = np.array([(basket.k, basket.keep, basket.hold_days) for basket in baskets]).T
        self.cost, self.traded_share = rules.round_trip, baskets[0].traded_share

    def __call__(self, day: int, accounts: Accounts) -> Orders:
        limits, held = self.limits[:, day : day + 1] if self.by_day else self.limits, accounts.held
        score, edge = (None if part is None else np.broadcast_to(part[day], held.shape)
                       for part in (self.score, self.edge))
        leave, enter = decide(limits, score, edge, held, accounts.days_held(day), self.cost)
        return leave, enter, 1 / (limits[0] + np.zeros(len(held)))[enter // held.shape[1]]


class RandomRule:
    """Random baskets: on each day as many random exchanges as another basket made, of random stocks.

    `known [days, symbols]` bool are the stocks that could be bought, `n_sold [days]` counts positions that the other
    one closed on the day after, `baskets [days]` are its rules.
    """

    def __init__(self, known: np.ndarray, n_sold: np.ndarray, baskets: list[Basket], n: int,
                 seed: "int | list[int]") -> None:
        self.known, self.n_sold, self.baskets = known, n_sold, baskets
        self.random = np.random.default_rng(seed)
        self.chosen = np.zeros((n, known.shape[1]), dtype=bool)  # to be sold as soon as the market allows it
        self.due = np.zeros(n, dtype=int)

    def __call__(self, day: int, accounts: Accounts) -> Orders:
        basket, held = self.baskets[day], accounts.held
        self.chosen &= held
        self.due += self.n_sold[day]
        n_empty = basket.k - held.sum(axis=1) + self.chosen.sum(axis=1)
        enter = np.empty(0, dtype=int)
        if self.due.any() or (n_empty > 0).any():
            draw = self.random.random(held.shape, dtype="float32")
            can = held & ~self.chosen & (accounts.days_held(day) >= basket.hold_days)
            places, n_drawn = _draw(draw, can, self.due)
            self.chosen.reshape(-1)[places] = True
            self.due -= n_drawn
            enter = _draw(draw, self.known[day] & ~held, n_empty + n_drawn)[0]
        return np.flatnonzero(self.chosen), enter, np.full(len(enter), 1 / basket.k)


def _draw(draw: np.ndarray, allowed: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of `n [strategies]` random ones of those allowed, and how many there were `[strategies]`."""
    draw, n_drawn = draw * allowed, np.zeros_like(n)  # many times faster than np.where
    places, rows = [np.empty(0, dtype=int)], np.flatnonzero(n > 0)
    while rows.size:
        best = draw.argmax(axis=1)[rows] if 2 * len(rows) > len(draw) else draw[rows].argmax(axis=1)
        some = draw[rows, best] > 0
        rows, best = rows[some], best[some]
        places.append(rows * draw.shape[1] + best)
        draw[rows, best] = 0
        n_drawn[rows] += 1
        rows = rows[n[rows] > n_drawn[rows]]
    return np.concatenate(places), n_drawn
