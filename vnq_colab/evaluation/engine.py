"""Orders filled under the exchange's rules, day by day and in whole dong.

Axes: days, strategies, symbols. Place: strategy × n_symbols + symbol. Moment: 2 × day at its open, 1 more at its close.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.evaluation.market_data import MarketData

TINY = 1e-6  # [shares, lots] below it a difference is rounding: shares are adjusted ones, of whole raw lots


def dong(value: np.ndarray) -> np.ndarray:
    """`[...] -> [...]`: in whole dong; half a one counts as one, also where its float falls just short [VND]."""
    return np.floor(value + (0.5 + 1e-6))


# A rule's decision at a close: places to sell, places to buy (the most important first), their shares of the account
Orders = tuple[np.ndarray, np.ndarray, np.ndarray]
FILLS = ["place", "day", "at", "change", "quote", "price", "amount", "cost"]


@dataclass(frozen=True)
class Book:
    """What accounts were worth at each close; all but `worth` is kept only with `record`."""

    worth: np.ndarray  # [days, accounts] [VND] whole
    cash: np.ndarray  # [days, accounts] [VND] whole
    shares: np.ndarray  # [days, strategies, symbols]
    missing: np.ndarray  # [days, strategies]: what was to be bought and is not held at the close [VND]
    fills: pd.DataFrame  # FILLS; at: open, close, odd lot, or end: the symbol has left the market; change [shares]


def trade(market: MarketData, rule: "Callable[[int, Accounts], Orders]", capital: "float | np.ndarray", *,
          n_strategies: int = 1, is_common: bool = True, traded_share: float | None = None,
          record: bool = False) -> Book:
    """Asks a rule for orders at each close, fills them on the next day, and keeps the book.

    All symbols of a strategy share one account; with `is_common` False each has one of its own. `capital` [VND] is that
    of every account, or one for each; `traded_share` the largest fraction of a day's volume that one order may be: what
    it cuts off is traded on the days after.

    Orders are filled at the next open, at the prices of `MarketData.fills`; a sale also at the close of the day at
    whose close the shares become sellable (T+2 since 2022-08-29). Sales come first, and their cash can be used at once;
    one that cannot be made keeps its place, and the purchase that it was to pay for waits. A purchase takes whole lots,
    a sale all shares: of raw prices whole lots, and apart from them, at the same price, the odd lot that rights and
    dividends have added. A symbol that has vanished is settled the day after, less `rules.delisting_haircut`.
    """
    accounts = Accounts(market, n_strategies, is_common, capital, traded_share, record)
    n_days, shape = len(market.days), accounts.held.shape
    worth, cash = (np.tile(accounts.cash, (n, 1)) for n in (n_days, n_days * record))
    shares, missing = np.zeros((n_days * record, *shape)), np.zeros((n_days * record, n_strategies))
    for day in range(1, n_days):
        leave, enter, share = rule(day - 1, accounts)
        accounts.fill(day, leave, enter, share)
        wanted, worth[day] = share * accounts.worth[accounts.account[enter]], accounts.close(day)
        if record:
            cash[day], shares[day] = accounts.cash, accounts.shares.reshape(shape)
            missing[day] = accounts.missing(day, enter, wanted)
    fills = pd.DataFrame(dict(zip(FILLS, map(np.concatenate, zip(*accounts.fills, strict=True)), strict=False)),
                         columns=FILLS)
    return Book(worth, cash, shares, missing, fills)


class Accounts:
    """All accounts on one day. A rule may read `held`, `days_held`, `shares [places]` and `worth`."""

    def __init__(self, market: MarketData, n_strategies: int, is_common: bool, capital: "float | np.ndarray",
                 traded_share: float | None, record: bool) -> None:
        n_symbols, size = len(market.symbols), n_strategies * len(market.symbols)
        self.market, self.record = market, record
        self.most = None if traded_share is None else (  # [days, symbols] shares of an order, whole raw ones
            np.floor(traded_share * market.volume / market.basis + TINY) * market.basis)
        self.shares, self.to_buy = np.zeros(size), np.zeros(size)  # to_buy: what `most` cut off a purchase
        self.held = np.zeros((n_strategies, n_symbols), dtype=bool)
        self.is_held = self.held.reshape(-1)  # [places] the same memory
        self.sellable_from, self.bought_on = np.zeros(size, "int32"), np.zeros(size, "int32")  # moment, day
        self.column = np.tile(np.arange(n_symbols), n_strategies)
        self.account = np.repeat(np.arange(n_strategies), n_symbols) if is_common else np.arange(size)
        self.cash = np.full(n_strategies if is_common else size, capital, dtype="float64")  # [accounts]
        self.worth = self.cash.copy()  # [accounts] at the last close
        self.places = np.empty(0, dtype=int)
        self.fills: list[tuple[np.ndarray, ...]] = []

    def days_held(self, day: int) -> np.ndarray:
        """`[strategies, symbols]`: trading days since the purchase, that day included; only where held."""
        return (day + 1 - self.bought_on).reshape(self.held.shape)

    def count(self, places: np.ndarray) -> np.ndarray:
        """`[accounts]`: how many of these places are of each."""
        return np.bincount(self.account[places], minlength=len(self.cash))

    def fill(self, day: int, leave: np.ndarray, enter: np.ndarray, share: np.ndarray, *,
             one_for_one: bool = True) -> None:
        """Fills the last close's orders as far as this day allows; a failed sale keeps its place if `one_for_one`."""
        market = self.market
        if (market.ends == day).any():
            self._sell(np.flatnonzero(self.held & (market.ends == day)), day, "end")
            leave = leave[self.is_held[leave]]
        column, moment = self.column[leave], self.sellable_from[leave]
        self._sell(leave[market.can_sell[day, column] & (moment <= 2 * day)], day, "open")
        if self.most is not None:
            more = self.places[self.to_buy[self.places] > TINY]
            if more.size and (more := more[np.bincount(leave, minlength=self.shares.size)[more] == 0]).size:
                self._buy_in_turn(more, np.zeros(len(more)), day, self.count(more))
        if enter.size:
            n_most = self.count(enter) - one_for_one * self.count(leave[self.is_held[leave]])
            self._buy_in_turn(enter, share, day, n_most)
        self._sell(leave[market.can_sell_late[day, column] & (moment == 2 * day + 1)], day, "close")

    def missing(self, day: int, enter: np.ndarray, value: np.ndarray) -> np.ndarray:
        """`[strategies]`: the value of what was to be bought and is not held [VND]."""
        to_buy = self.to_buy.reshape(self.held.shape)
        cut = np.where(to_buy > 0, to_buy * self.market.close[day], 0)
        return np.bincount(enter // self.held.shape[1], value * ~self.is_held[enter], len(to_buy)) + cut.sum(axis=1)

    def close(self, day: int) -> np.ndarray:
        """`[accounts]`: what each is worth at the close [VND]."""
        self.places = np.flatnonzero(self.is_held)
        value = dong(self.shares[self.places] * self.market.close[day, self.column[self.places]])
        self.worth = self.cash + np.bincount(self.account[self.places], value, len(self.cash))
        return self.worth

    def _sell(self, places: np.ndarray, day: int, at: str) -> None:
        if not places.size:
            return
        market, column, sold = self.market, self.column[places], self.shares[places]
        lot = market.lot[day, column]
        if self.most is not None and at != "end":
            most = self.most[day, column] + TINY
            sold = np.where(sold <= most, sold, np.floor(most / lot) * lot)
        quote = (market.open if at == "open" else market.close)[day, column]
        price = quote * (1 - market.rules.delisting_haircut) if at == "end" else market.fills[at][day, column]
        if at != "end" and (is_raw := market.is_raw[day, column]).any():
            odd = np.where(is_raw, sold - np.floor(sold / lot + TINY) * lot, 0)
            sold = sold - odd
            self._book(-1, places, day, "odd lot", odd, quote, price)
        self._book(-1, places, day, at, sold, quote, price)
        self.to_buy[places] = 0

    def _buy_in_turn(self, places: np.ndarray, share: np.ndarray, day: int, n_most: np.ndarray) -> None:
        """One purchase of each account after the other, `n_most [accounts]` of each."""
        can = np.flatnonzero(self.market.can_buy[day, self.column[places]])
        order = can[np.argsort(self.account[places[can]], kind="stable")]
        places, share = places[order], share[order]
        account = self.account[places]
        number = np.arange(len(places)) - np.searchsorted(account, account)
        number[number >= n_most[account]] = -1
        for now in range(int(number.max(initial=-1)) + 1):
            self._buy(places[number == now], share[number == now], day)

    def _buy(self, places: np.ndarray, share: np.ndarray, day: int) -> None:
        market, column, account = self.market, self.column[places], self.account[places]
        quote, lot, price = market.open[day, column], market.lot[day, column], market.fills["buy"][day, column]
        fee = market.rules.fee
        is_new, cash = ~self.is_held[places], self.cash[account]
        limit = np.where(is_new, np.minimum(np.floor(share * self.worth[account] + 1e-6), cash), cash)
        lots = np.floor(limit / (price * lot * (1 + fee))) + 1
        for _ in range(2):  # one too many, and perhaps one more that rounding makes too dear
            amount = dong(lots * lot * price)
            lots -= (amount + dong(amount * fee) > limit) & (lots > 0)
        bought = lots * lot
        if self.most is not None:
            whole = np.where(is_new, bought, self.to_buy[places])
            bought = np.floor((np.minimum(np.minimum(bought, whole), self.most[day, column]) + TINY) / lot) * lot
            self.to_buy[places] = np.where(bought > 0, whole - bought, self.to_buy[places])
        self.bought_on[places[is_new]] = day
        self._book(1, places, day, "open", bought, quote, price)
        self.sellable_from[places[bought > 0]] = market.sellable_from[day]

    def _book(self, side: int, places: np.ndarray, day: int, at: str, shares: np.ndarray, quote: np.ndarray,
              price: np.ndarray) -> None:
        """Changes shares and cash: fee of both sides and tax of a sale are each rounded to the dong."""
        rules = self.market.rules
        amount = dong(shares * price)
        cost = dong(amount * rules.fee)
        if side < 0:
            cost += dong(amount * rules.sale_tax)
        np.add.at(self.cash, self.account[places], -side * amount - cost)
        now = self.shares[places] + side * shares
        self.is_held[places] = is_left = now > TINY
        self.shares[places] = now * is_left
        if self.record:
            columns = np.broadcast_arrays(places, day, at, side * shares, quote, price, amount, cost)
            self.fills.append(tuple(column[shares > TINY] for column in columns))
