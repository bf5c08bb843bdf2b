"""What luck would have done: random strategies that trade as often and hold as long as ours, symbol by symbol.

Axes: days, strategies, symbols.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON
from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.evaluation.backtest import Backtest, Trial
from vnq_colab.evaluation.orders import trade

KINDS = ("spells", "rotations")
BAND = (5, 50, 95)  # [%]
AT_ONCE = 50  # strategies: few enough for a processor's cache, many enough for one call to be worth it


@dataclass(frozen=True, repr=False)
class Chance:
    """The random strategies beside ours. `beaten` are shares of them with a smaller final return [fraction]."""

    kind: str
    seed: int
    equity: pd.DataFrame  # by date: `p5`, `p50`, `p95` of the random mean accounts [VND], and ours, `strategy`
    returns: np.ndarray  # [strategies] final return of the random mean accounts [fraction]
    beaten: float  # by the mean account
    symbols: pd.DataFrame  # symbol, return [fraction], p5, p50, p95 of the random returns [fraction], beaten

    def __repr__(self) -> str:
        value = self.equity.iloc[-1] / self.equity.iloc[0] - 1
        lucky = f", {(self.symbols['beaten'] > 0.95).sum()} of {len(self.symbols)} symbols beat 95%"
        return (f"Chance: {len(self.returns):,} random strategies ({self.kind}, seed {self.seed}) return "
                f"{value['p5']:+.2%} to {value['p95']:+.2%}, the middle one {value['p50']:+.2%}; "
                f"ours {value['strategy']:+.2%} beats {self.beaten:.1%} of them{lucky if len(self.symbols) else ''}")


def random_band(result: Backtest, *, n_strategies: int = 1000, seed: int = 0, kind: str | None = None) -> Chance:
    """Trades random wishes with the turnover and exposure of a backtest's own, under the same rules and limits.

    `spells`, for accounts of their own: the wished spells of being long keep their number, lengths and weights, and so
    do the flat ones between them; their order is drawn anew for each symbol. This is fair for a symbol. The mean of
    many symbols has a narrower band than a strategy whose symbols come and go together.
    `rotations`, for a common account, and a harder question to the mean of many: the wishes of all symbols move by the
    same number of days, at least the horizon, those beyond the end to the beginning, so that they still come and go
    together; fewer of these differ than there are days, and a spell that lies across the end becomes two.
    `kind` None takes the one that fits the account. One symbol is drawn alike in any company. Raises ConfigError.
    """
    trial, is_common = result.trial, result.strategy.is_common
    if trial is None:
        raise ConfigError("this backtest does not know its market. Take one that backtest() has made.")
    kind = kind or KINDS[is_common]
    if kind not in KINDS:
        raise ConfigError(f"there is no kind {kind!r} of random strategies.{did_you_mean(kind, KINDS)}")
    if is_common and kind == "spells":
        raise ConfigError("kind = 'spells' would wish more symbols at once than one account can hold. "
                          "Take kind='rotations'.")
    if not isinstance(n_strategies, (int, np.integer)) or not 1 <= n_strategies <= 100_000:
        raise ConfigError(f"n_strategies = {n_strategies!r}: must be a whole number in 1 to 100,000.")
    value, final = [], []  # mean accounts [days, strategies], accounts at the end [strategies, symbols]
    draws = _Rotations(trial, seed, n_strategies) if kind == "rotations" else _Spells(trial, seed, n_strategies)
    for start in range(0, n_strategies, AT_ONCE):
        weight, rank = draws.take(slice(start, min(start + AT_ONCE, n_strategies)))
        book = trade(trial.market, weight, result.rules, result.capital, position=trial.position, rank=rank,
                     record=False)
        accounts = book.value()  # [days, strategies, accounts]
        value.append(accounts.mean(axis=2))
        final.append(accounts[-1] / result.capital - 1)
    value, final = np.concatenate(value, axis=1), np.concatenate(final)
    names = [f"p{share}" for share in BAND]
    equity = pd.DataFrame(np.percentile(value, BAND, axis=1).T, index=result.equity.index, columns=names)
    equity["strategy"] = result.equity["strategy"]
    ours = result.symbols["return"].to_numpy()
    symbols = pd.DataFrame({"symbol": [], "return": [], **{name: [] for name in names}, "beaten": []})
    if not is_common:
        band = dict(zip(names, np.percentile(final, BAND, axis=0), strict=True))
        symbols = pd.DataFrame({"symbol": result.symbols["symbol"], "return": ours, **band,
                                "beaten": (final < ours - 1e-12).mean(axis=0)})
    returns = value[-1] / result.capital - 1
    mine = result.equity["strategy"].iloc[-1] / result.capital - 1
    return Chance(kind, seed, equity, returns, float((returns < mine - 1e-12).mean()), symbols)


class _Rotations:
    """All wishes moved by the same number of days, those beyond the end to the beginning."""

    def __init__(self, trial: Trial, seed: int, n_strategies: int) -> None:
        self.trial, n_days = trial, len(trial.weight) - 1  # the wish of the last day is never filled
        near = HORIZON if n_days > 4 * HORIZON else 1  # a step of fewer days leaves forecasts of the same outcomes
        self.steps = np.random.default_rng(seed).integers(near, max(n_days - near + 1, near + 1), n_strategies)
        self.days = np.arange(n_days)

    def take(self, which: slice) -> tuple[np.ndarray, np.ndarray | None]:
        """`[days, strategies, symbols]` weights of some of the strategies, and ranks where the account is common."""
        source = (self.days[:, None] - self.steps[which]) % len(self.days)  # [days, strategies]
        source = np.concatenate([source, source[-1:]])
        return self.trial.weight[source], None if self.trial.rank is None else self.trial.rank[source]


class _Spells:
    """The spells of being long and of being flat in another order, for each symbol by itself."""

    def __init__(self, trial: Trial, seed: int, n_strategies: int) -> None:
        wishes = trial.weight[:-1]  # the wish of the last day is never filled
        self.n_days = len(wishes)
        self.spells = [self._draw(wishes[:, place], np.random.default_rng([seed, zlib.crc32(str(name).encode())]),
                                  n_strategies) for place, name in enumerate(trial.market.symbols)]

    def _draw(self, wish: np.ndarray, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """`[strategies, spells]` first days after the end of each spell, and weights."""
        starts = np.flatnonzero(np.diff(wish > 0, prepend=~(wish[:1] > 0)))
        lengths, weights = np.diff(starts, append=self.n_days), wish[starts]  # the weight of the day that opens it
        ends, shares = np.empty((n, len(starts)), dtype="int32"), np.empty((n, len(starts)))
        by_kind = [np.arange(len(starts))[kind::2] for kind in (0, 1)]  # of the first spell's kind, and the others
        swap = random.random(n) < 0.5 if len(starts) % 2 == 0 else np.zeros(n, dtype=bool)  # which kind begins
        orders = [random.permuted(np.tile(some, (n, 1)), axis=1) for some in by_kind]
        order = np.empty((n, len(starts)), dtype=int)
        order[:, 0::2], order[:, 1::2] = orders[0], orders[1]
        if swap.any():
            order[swap, 0::2], order[swap, 1::2] = orders[1][swap], orders[0][swap]
        ends, shares = lengths[order].cumsum(axis=1).astype("int32"), weights[order]
        return ends, shares

    def take(self, which: slice) -> tuple[np.ndarray, None]:
        """`[days, strategies, symbols]` weights of some of the strategies."""
        parts = []
        for ends, shares in self.spells:
            ends, shares = ends[which], shares[which]
            number = np.zeros((len(ends), self.n_days + 1), dtype="int32")  # [strategies, days] which spell
            np.put_along_axis(number, ends[:, :-1].astype(int), 1, axis=1)
            number = number.cumsum(axis=1)
            number[:, -1] = number[:, -2]
            parts.append(np.take_along_axis(shares, number, axis=1))
        return np.ascontiguousarray(np.stack(parts, axis=2).transpose(1, 0, 2)), None
