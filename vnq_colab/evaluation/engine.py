"""The engine: orders are filled under the exchange's rules and in whole dong, day by day.

Axes: days, strategies, symbols. A day has two moments at which an order can be filled, its open and its close, numbered
2 * day and 2 * day + 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, MarketRules
from vnq_colab.evaluation.permissions import check_tradable, permissions

HALF = 0.5 + 1e-6  # [VND] half a dong counts as one, also where its floating-point sum falls just short
AT = ("open", "close", "end")  # `end`: the symbol has left the market
BLOCKED = ("", "delisted", "no volume", "ceiling", "floor", "not settled", "traded share", "no cash")


def dong(money: np.ndarray) -> np.ndarray:
    """`[...] -> [...]`: money in whole dong, a half counts as one [VND]."""
    return np.floor(money + HALF)


@dataclass(frozen=True)
class Market:
    """Prices and permissions as `[days, symbols]` arrays, from the first origin to the last day of the test."""

    days: pd.DatetimeIndex
    symbols: np.ndarray
    open: np.ndarray  # [days, symbols] adjusted [VND]; NaN where there is no row
    close: np.ndarray  # [days, symbols] adjusted [VND]; the last one where there is no row, NaN before the first
    trades: np.ndarray  # [days, symbols] bool: there is volume
    can_buy: np.ndarray  # [days, symbols] bool: at the open
    can_sell: np.ndarray  # [days, symbols] bool: at the open
    can_sell_late: np.ndarray  # [days, symbols] bool: at the close
    lot: np.ndarray  # [days, symbols] [shares]
    room: np.ndarray | None  # [days, symbols] most shares of one order; None: no limit
    free_from: np.ndarray  # [days] first moment at which a purchase of this day's open can be sold
    ends: np.ndarray  # [symbols] first day without a price for ever; the number of days where there is none

    @classmethod
    def of(cls, prices: pd.DataFrame, symbols: np.ndarray, days: pd.DatetimeIndex, first: int, rules: MarketRules,
           traded_share: float | None = None) -> "Market":
        """The market of a price table on `days`, kept from place `first`. Raises DataError for prices that are none."""
        last_rows = prices.groupby("symbol", observed=True)["date"].max().reindex(symbols)
        rows = prices[prices["symbol"].isin(symbols) & (prices["date"] <= days[-1])]
        check_tradable(rows)
        place = days.get_indexer(pd.DatetimeIndex(rows["date"])), pd.Index(symbols).get_indexer(rows["symbol"])

        def spread(values: pd.Series | np.ndarray, empty: float = np.nan) -> np.ndarray:
            block = np.full((len(days), len(symbols)), empty)
            block[place] = values
            return block

        close, opening, volume = spread(rows["close"]), spread(rows["open"]), spread(rows["volume"], 0.0)
        raw = spread(rows["raw_close"]) if "raw_close" in prices.columns else np.full_like(close, np.nan)
        raw = np.where(np.isfinite(raw) & (raw > 0), raw, np.nan)
        exchange = np.full_like(close, np.nan)  # place in EXCHANGES
        if "exchange" in prices.columns:
            number = pd.Index(EXCHANGES).get_indexer(rows["exchange"]).astype("float64")
            exchange = pd.DataFrame(spread(np.where(number < 0, np.nan, number))).ffill().to_numpy()
        trades = volume > 0
        can_buy, can_sell, can_sell_late = permissions(days, opening, close, raw, exchange, trades, rules)
        lots = np.stack([rules.lots(name, days[first:]) for name in EXCHANGES])  # [exchanges, days]
        here = np.nan_to_num(exchange[first:]).astype(int)  # HOSE where it is not known
        basis = np.where(np.isfinite(raw), raw / close, 1.0)
        after = pd.DatetimeIndex(days[first:])
        wait, wait_late = rules.sellable_after(after), rules.sellable_at_close_after(after)
        today = np.arange(len(after))
        return cls(
            after, symbols, opening[first:], pd.DataFrame(close).ffill().to_numpy()[first:], trades[first:],
            can_buy[first:], can_sell[first:], can_sell_late[first:], lots[here, np.arange(len(after))[:, None]],
            None if traded_share is None else np.floor((traded_share * volume * basis)[first:] + 1e-6),
            np.minimum(2 * (today + wait), 2 * (today + wait_late) + 1).astype("int32"),
            after.searchsorted(pd.DatetimeIndex(last_rows), side="right"))

    def between(self, first: int, end: int) -> "Market":
        """The same market on the days `first` to `end - 1` alone; accounts begin anew there."""
        cut = {name: getattr(self, name)[first:end] for name in ("days", "open", "close", "trades", "can_buy",
                                                                  "can_sell", "can_sell_late", "lot")}
        room = None if self.room is None else self.room[first:end]
        return replace(self, **cut, room=room, free_from=self.free_from[first:end] - 2 * first,
                       ends=np.minimum(self.ends, end) - first)


@dataclass(frozen=True)
class Book:
    """What accounts were worth at each close. One account per strategy and symbol, or one per strategy for all symbols.

    All but `worth` is kept only with `record`.
    """

    worth: np.ndarray  # [days, strategies, symbols] or [days, strategies, 1] [VND] whole
    cash: np.ndarray  # the same axes [VND] whole
    shares: np.ndarray  # [days, strategies, symbols]
    held: np.ndarray  # [days, strategies, symbols] [VND] whole: shares at the close
    fills: dict[str, np.ndarray]  # [fills] place, day, at, change, quote, price, amount, fee, tax
    pending: np.ndarray  # [days, symbols] of the first strategy: shares not yet settled at the close
    blocked: np.ndarray  # [days, symbols] of the first strategy: place in BLOCKED, why an order stays unfilled
    missing: np.ndarray  # [days, strategies]: what was to be bought and is not held at the close [VND]


# What a strategy decides at the close of a day: which places (strategy × n_symbols + symbol) to sell, which to buy, the
# most important first, and with what share of the account.
Orders = tuple[np.ndarray, np.ndarray, np.ndarray]


def trade(market: Market, target: "np.ndarray | Callable[[int, Desk], Orders]", rules: MarketRules,
          capital: "float | np.ndarray", *, n_strategies: int = 1, position: float = 1.0, record: bool = True) -> Book:
    """Asks for orders at each close, fills them on the next day, and keeps the book.

    `target` is an array of target weights `[days, strategies, symbols]`, and each symbol has an account of its own; or
    a rule that sees day and desk, and all symbols of a strategy share one account. Orders of a day are filled at the
    next open that allows it, a sale also at the close of the very day on which the shares become sellable. Sales come
    before purchases, and their money can be used at once; a sale that cannot be made keeps its place, and the purchase
    that it was to pay for waits. A position is opened once, with a share of what the account was worth at the last
    close (at most `position`), and sold whole. `capital` [VND] is that of every account, or one for each.
    """
    n_days, common = len(market.days), callable(target)
    desk = Desk(market, n_strategies if common else target.shape[1], common, rules, capital, position, record)
    ask = target if common else _Weights(target)
    worth = np.empty((n_days, len(desk.shares), 1 if common else len(market.symbols)))
    worth[0] = desk.worth.reshape(worth.shape[1:])
    days: list[tuple[np.ndarray, ...]] = []
    for day in range(n_days):
        if day:
            orders = ask(day - 1, desk)
            missing = desk.trade(day, *orders)
            worth[day] = desk.close(day).reshape(worth.shape[1:])
        if record:
            days.append((desk.cash.reshape(worth.shape[1:]).copy(), desk.shares.copy(), desk.value.copy(),
                         np.where(desk.free_from > 2 * day + 1, desk.shares, 0)[0],
                         desk.blocked(day, *orders[:2]) if day else np.zeros(len(market.symbols), "int8"),
                         missing if day else np.zeros(len(desk.shares))))
    cash, shares, held, pending, blocked, missing = (np.stack(part) for part in zip(*days, strict=True)) if days else [
        np.empty(0)] * 6
    return Book(worth, cash, shares, held, desk.fills(), pending, blocked, missing)


class _Weights:
    """Target weights of accounts of their own, as a rule."""

    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight.reshape(len(weight), -1)

    def __call__(self, day: int, desk: "Desk") -> Orders:
        wanted, held = self.weight[day] > 0, desk.held.reshape(-1)
        enter = np.flatnonzero(wanted & ~held)
        return np.flatnonzero(held & ~wanted), enter, self.weight[day, enter]


class Desk:
    """Accounts on one day, and all that they have done. A rule may read `shares`, `held`, `bought_on` and `worth`."""

    def __init__(self, market: Market, n_strategies: int, common: bool, rules: MarketRules,
                 capital: "float | np.ndarray", position: float, record: bool) -> None:
        shape = n_strategies, len(market.symbols)
        self.market, self.rules, self.position, self.record = market, rules, position, record
        self.shares, self.value = np.zeros(shape), np.zeros(shape)  # value [VND] of shares at the last close, recorded
        self.held, self.left = np.zeros(shape, dtype=bool), np.zeros(shape)  # left: shares that the traded share cut
        self.free_from, self.bought_on = np.zeros(shape, "int32"), np.zeros(shape, "int32")  # moment, day
        self.column = np.tile(np.arange(shape[1]), n_strategies)  # [places]
        self.account = np.repeat(np.arange(n_strategies), shape[1]) if common else np.arange(self.shares.size)
        self.cash = np.full(self.account[-1] + 1, capital, dtype="float64")  # [accounts]
        self.worth = self.cash.copy()  # [accounts] at the last close
        self.places = np.empty(0, dtype=int)  # that hold shares since the last close
        self.orders: list[tuple[np.ndarray, ...]] = []

    def days_held(self, day: int) -> np.ndarray:
        """`[strategies, symbols]`: trading days since the purchase, that day included; only where held."""
        return day + 1 - self.bought_on

    def count(self, places: np.ndarray) -> np.ndarray:
        """`[accounts]`: how many of the places are of each."""
        return np.bincount(self.account[places], minlength=len(self.cash))

    def trade(self, day: int, leave: np.ndarray, enter: np.ndarray, share: np.ndarray) -> "np.ndarray | None":
        """Fills the orders of the evening before; what each strategy could not buy [VND], recorded."""
        market = self.market
        if (market.ends == day).any():
            self._sell(np.flatnonzero(self.held & (market.ends == day)), market.close, day, "end")
            leave = leave[self.held.reshape(-1)[leave]]
        column, free_from = self.column[leave], self.free_from.reshape(-1)[leave]
        self._sell(leave[market.can_sell[day, column] & (free_from <= 2 * day)], market.open, day, "open")
        if market.room is not None:
            more = self.places[self.left.reshape(-1)[self.places] > 0]
            if more.size and (more := more[np.bincount(leave, minlength=self.held.size)[more] == 0]).size:
                self._buy_in_turn(more, np.zeros(len(more)), day)
        stuck = leave[self.held.reshape(-1)[leave]]
        if enter.size:
            self._buy_in_turn(enter, share, day, stuck)
        late = market.can_sell_late[day, column] & (free_from == 2 * day + 1)
        self._sell(leave[late], market.close, day, "close")
        if not self.record:
            return None
        wished = share * self.worth[self.account[enter]] * ~self.held.reshape(-1)[enter]
        cut = np.where(self.left > 0, self.left * market.close[day], 0)
        return np.bincount(enter // len(market.symbols), wished, len(self.left)) + cut.sum(axis=1)

    def close(self, day: int) -> np.ndarray:
        """`[accounts]`: what each is worth at the close [VND]."""
        self.places = np.flatnonzero(self.held)
        value = dong(self.shares.reshape(-1)[self.places] * self.market.close[day, self.column[self.places]])
        if self.record:
            self.value = np.zeros(self.shares.shape)
            self.value.reshape(-1)[self.places] = value
        self.worth = self.cash + np.bincount(self.account[self.places], value, len(self.cash))
        return self.worth

    def _sell(self, places: np.ndarray, quotes: np.ndarray, day: int, at: str) -> None:
        if not places.size:
            return
        column, rules = self.column[places], self.rules
        sold = self.shares.reshape(-1)[places]
        if self.market.room is not None and at != "end":
            room, lot = self.market.room[day, column], self.market.lot[day, column]
            sold = np.where(sold <= room, sold, np.floor(room / lot) * lot)
        quote = quotes[day, column]
        price = quote if at == "end" else quote * (1 - rules.slippage)
        amount = dong(sold * price)
        self._book(places, day, at, -sold, quote, price, amount, dong(amount * rules.fee),
                   dong(amount * rules.sale_tax))
        self.left.reshape(-1)[places] = 0

    def _buy_in_turn(self, places: np.ndarray, share: np.ndarray, day: int, stuck: np.ndarray | None = None) -> None:
        """One purchase of each account after the other; new ones only as far as sales that are `stuck` leave places."""
        n_left = self.count(places)
        if stuck is not None and stuck.size:
            n_left -= self.count(stuck)
        can = self.market.can_buy[day, self.column[places]]
        places, share = places[can], share[can]
        account = self.account[places]
        order = np.argsort(account, kind="stable")
        places, share, account = places[order], share[order], account[order]
        turn = np.arange(len(places)) - np.searchsorted(account, account)
        turn = np.where(turn < n_left[account], turn, -1)
        for number in range(int(turn.max(initial=-1)) + 1):
            self._buy(places[turn == number], share[turn == number], day)

    def _buy(self, places: np.ndarray, share: np.ndarray, day: int) -> None:
        column, account, rules = self.column[places], self.account[places], self.rules
        quote, lot = self.market.open[day, column], self.market.lot[day, column]
        price = quote * (1 + rules.slippage)
        is_new = ~self.held.reshape(-1)[places]
        cash = self.cash[account]
        target = np.floor(np.minimum(share, self.position) * self.worth[account] + 1e-6)
        limit = np.where(is_new, np.minimum(target, cash), cash)
        lots = np.floor(limit / (price * lot * (1 + rules.fee))) + 1
        for _ in range(2):  # one too many, and perhaps one more that rounding makes too dear
            amount = dong(lots * lot * price)
            lots -= (amount + dong(amount * rules.fee) > limit) & (lots > 0)
        bought = lots * lot
        if self.market.room is not None:
            left = self.left.reshape(-1)
            asked = np.where(is_new, bought, np.minimum(left[places], bought))
            bought = np.floor(np.minimum(asked, self.market.room[day, column]) / lot) * lot
            left[places] = np.where(bought > 0, np.where(is_new, asked, left[places]) - bought, left[places])
        amount = dong(bought * price)
        self.bought_on.reshape(-1)[places[is_new]] = day
        self._book(places, day, "open", bought, quote, price, amount, dong(amount * rules.fee), np.zeros(len(places)))
        self.free_from.reshape(-1)[places[bought > 0]] = self.market.free_from[day]

    def _book(self, places: np.ndarray, day: int, at: str, change: np.ndarray, quote: np.ndarray, price: np.ndarray,
              amount: np.ndarray, fee: np.ndarray, tax: np.ndarray) -> None:
        np.add.at(self.cash, self.account[places], -np.sign(change) * amount - fee - tax)
        shares = self.shares.reshape(-1)
        shares[places] += change
        self.held.reshape(-1)[places] = shares[places] > 0
        if self.record:
            some = change != 0
            columns = places, np.full(len(places), day), np.full(len(places), AT.index(at)), change, quote, price
            self.orders.append(tuple(column[some] for column in (*columns, amount, fee, tax)))

    def fills(self) -> dict[str, np.ndarray]:
        """All fills, in their order."""
        names = ("place", "day", "at", "change", "quote", "price", "amount", "fee", "tax")
        columns = [np.concatenate(column) for column in zip(*self.orders, strict=True)] or [np.empty(0)] * len(names)
        return dict(zip(names, columns, strict=True))

    def blocked(self, day: int, leave: np.ndarray, enter: np.ndarray) -> np.ndarray:
        """`[symbols]` of the first strategy: place in BLOCKED, why an order for this day is not filled at its end."""
        market, held = self.market, self.held[0]
        leaves, enters = np.zeros((2, len(held)), dtype=bool)
        leaves[leave[leave < len(held)]], enters[enter[enter < len(held)]] = True, True
        leaves &= held
        enters = (enters & ~held) | (held & ~leaves & (self.left[0] > 0))
        reasons = {
            "": ~enters & ~leaves,
            "delisted": market.ends <= day,
            "no volume": ~market.trades[day],
            "ceiling": enters & ~market.can_buy[day],
            "not settled": leaves & (self.free_from[0] > 2 * day + 1),
            "floor": leaves & ~np.where(self.free_from[0] == 2 * day + 1, market.can_sell_late[day],
                                        market.can_sell[day]),
            "traded share": leaves | (self.left[0] > 0) | (False if market.room is None else
                                                           market.room[day] < market.lot[day]),
        }
        return np.select(list(reasons.values()), [BLOCKED.index(name) for name in reasons], BLOCKED.index("no cash"))
