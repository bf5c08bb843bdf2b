"""Orders filled under the exchange's rules, day by day and in whole dong.

Axes: days, strategies, symbols. Place: strategy × n_symbols + symbol. Moment: 2 × day at its open, 1 more at its close.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, LONG_HALT_SESSIONS, VN_RULES, MarketRules, price_limits, tick, trading_days
from vnq_colab.errors import DataError

SAME_BASIS = 0.002  # chosen: raw / adjusted moves by less from rounding, and by more on a day without a right


def dong(value: np.ndarray) -> np.ndarray:
    """`[...] -> [...]`: in whole dong; half a one counts as one, also where its float falls just short [VND]."""
    return np.floor(value + (0.5 + 1e-6))


@dataclass(frozen=True)
class MarketData:
    """Prices, and what can be bought and sold when, as arrays of days and symbols."""

    rules: MarketRules
    days: pd.DatetimeIndex
    symbols: np.ndarray
    open: np.ndarray  # [days, symbols] adjusted [VND]; NaN where there is no row
    close: np.ndarray  # [days, symbols] adjusted [VND]; the last one where there is no row, NaN before the first
    volume: np.ndarray  # [days, symbols] [shares], on the raw basis where that is known
    trades: np.ndarray  # [days, symbols] bool: there is volume
    can_buy: np.ndarray  # [days, symbols] bool: at the open
    can_sell: np.ndarray  # [days, symbols] bool: at the open
    can_sell_late: np.ndarray  # [days, symbols] bool: at the close
    lot: np.ndarray  # [days, symbols] [shares]
    sellable_from: np.ndarray  # [days] first moment at which a purchase of this day's open can be sold
    ends: np.ndarray  # [symbols] first day without a price for ever; the number of days where there is none

    @classmethod
    def of(cls, prices: pd.DataFrame, rules: MarketRules = VN_RULES) -> Self:
        """Of all days and symbols of a price table. Raises DataError for prices that nobody can trade on."""
        _check_tradable(prices)
        days, symbols = trading_days(prices), pd.Index(np.sort(prices["symbol"].unique()).astype(object))
        place = days.get_indexer(prices["date"]), symbols.get_indexer(prices["symbol"])

        def grid(values: "pd.Series | np.ndarray | float", empty: float = np.nan) -> np.ndarray:
            block = np.full((len(days), len(symbols)), empty)
            block[place] = values
            return block

        opened, close, volume = grid(prices["open"]), grid(prices["close"]), grid(prices["volume"], 0.0)
        raw = grid(prices.get("raw_close", np.nan))
        raw = np.where(np.isfinite(raw) & (raw > 0), raw, np.nan)
        number = pd.Index(EXCHANGES).get_indexer(prices.get("exchange", pd.Series("", prices.index)))
        exchange = _filled(grid(np.where(number < 0, np.nan, number)))  # place in EXCHANGES
        lots = np.stack([rules.lots(name, days) for name in EXCHANGES])  # [exchanges, days]
        today = np.arange(len(days))
        at_open, at_close = today + rules.sellable_after(days), today + rules.sellable_at_close_after(days)
        return cls(
            rules, days, symbols.to_numpy(), opened, _filled(close),
            volume * np.where(np.isfinite(raw), raw / close, 1.0), volume > 0,
            *_permissions(days, opened, close, raw, exchange, volume > 0, rules),
            lots[np.nan_to_num(exchange).astype(int), today[:, None]],  # HOSE where it is not known
            np.minimum(2 * at_open, 2 * at_close + 1).astype("int32"),
            len(days) - np.isfinite(opened)[::-1].argmax(axis=0))

    def cut(self, symbols: np.ndarray, first: int, end: int) -> Self:
        """These symbols on the days from place `first` to `end - 1`; accounts begin anew there."""
        column = pd.Index(self.symbols).get_indexer(symbols)
        grids = {name: np.take(grid[first:end], column, axis=1) for name, grid in vars(self).items()
                 if isinstance(grid, np.ndarray) and grid.ndim == 2}
        return replace(self, days=self.days[first:end], symbols=self.symbols[column], **grids,
                       sellable_from=self.sellable_from[first:end] - 2 * first,
                       ends=np.clip(self.ends[column], first, end) - first)


def _check_tradable(prices: pd.DataFrame) -> None:
    """Raises DataError for the first row that cannot be traded on, and for the second of a day."""
    values = prices[["open", "close", "volume"]].to_numpy("float64")
    wrong = ~(np.isfinite(values) & (values > [0, 0, -1])).all(axis=1)
    is_second = prices.duplicated(["symbol", "date"]).to_numpy()
    if (bad := wrong | is_second).any():
        row, more = prices[bad].iloc[0], f" (and {bad.sum() - 1} more rows)" if bad.sum() > 1 else ""
        what = "nobody can trade on that" if wrong[bad.argmax()] else "it is the second row of this day"
        raise DataError(f"{row['symbol']} {row['date']:%Y-%m-%d}: open {row['open']:,}, close {row['close']:,} [VND], "
                        f"volume {row['volume']:,} [shares]: {what}{more}. Clean the prices with clean_prices.")


def _filled(values: np.ndarray, lag: int = 0) -> np.ndarray:
    """`[days, symbols]`: the last known value up to `lag` days before."""
    return pd.DataFrame(values).ffill().shift(lag).to_numpy()


def _permissions(days: pd.DatetimeIndex, opened: np.ndarray, close: np.ndarray, raw: np.ndarray, exchange: np.ndarray,
                 trades: np.ndarray, rules: MarketRules) -> np.ndarray:
    """`[days, symbols]` bool, three times: may be bought at the open, sold at the open, sold at the close.

    On raw prices where `raw` is known: the reference is the raw close before, after a right the adjusted one on today's
    basis. Elsewhere on adjusted prices, where one within a tick of the band's end counts as on it. The first day on an
    exchange, and the first after a long halt, have the wider band; a first row has none.
    """
    reference, basis, day = _filled(close, 1), raw / close, np.arange(len(days))[:, None]
    exchange_before = _filled(exchange, 1)
    is_wide = day - _filled(np.where(trades, day, np.nan), 1) > LONG_HALT_SESSIONS
    is_wide |= np.isfinite(exchange_before) & (exchange != exchange_before)
    raw_before, basis_before = (  # of the last row; -1 where that row does not know it
        _filled(np.where(np.isfinite(close), np.nan_to_num(values, nan=-1.0), np.nan), 1) for values in (raw, basis))
    is_same = (basis_before > 0) & (np.abs(basis / basis_before - 1) < SAME_BASIS)  # else a right was cut off
    allowed = np.zeros((3, *close.shape), dtype=bool)
    for number, name in enumerate(EXCHANGES):
        band = np.where(is_wide, rules.band(name, days, first_day=True)[:, None], rules.band(name, days)[:, None])
        high, low = reference * (1 + band), reference * (1 - band)
        step = tick(reference * basis, name)
        start = np.where(is_same, raw_before, np.round(reference * basis / step) * step)
        is_raw = np.isfinite(basis) & np.isfinite(start)
        ceiling, floor = (np.where(is_raw, limit, adjusted) for limit, adjusted in zip(
            price_limits(start, band, name), (high - tick(high, name) + 0.02, low + tick(low, name) - 0.02),
            strict=True))
        raw_open = opened * basis
        raw_open = np.round(raw_open / tick(raw_open, name)) * tick(raw_open, name)
        at_open, at_close = np.where(is_raw, raw_open, opened), np.where(is_raw, raw, close)
        inside = at_open < ceiling - 0.01, at_open > floor + 0.01, at_close > floor + 0.01
        allowed |= (np.nan_to_num(exchange) == number) & (np.isnan(reference) | np.stack(inside))
    return allowed & trades


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
    fills: pd.DataFrame  # FILLS; at: open, close, or end: the symbol has left the market; change [shares]


def trade(market: MarketData, rule: "Callable[[int, Accounts], Orders]", capital: "float | np.ndarray", *,
          n_strategies: int = 1, is_common: bool = True, traded_share: float | None = None,
          record: bool = False) -> Book:
    """Asks a rule for orders at each close, fills them on the next day, and keeps the book.

    All symbols of a strategy share one account; with `is_common` False each has one of its own. `capital` [VND] is that
    of every account, or one for each; `traded_share` the largest fraction of a day's volume that one order may be,
    None: no limit, and what it cuts off is traded on the days after.

    Orders are filled at the next open, `rules.slippage` against the trader; a sale also at the close of the day at
    whose close the shares become sellable (T+2 since 2022-08-29). There is no buy at the ceiling, no sale at the floor,
    none before settlement, no fill without volume. Sales come first, and their cash can be used at once; one that
    cannot be made keeps its place, and the purchase that it was to pay for waits. A purchase takes whole lots, a sale
    all shares. A symbol whose prices end is settled the day after, at its last close, without slippage.
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
        self.most = None if traded_share is None else np.floor(traded_share * market.volume + 1e-6)  # shares an order
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

    def fill(self, day: int, leave: np.ndarray, enter: np.ndarray, share: np.ndarray) -> None:
        """Fills the orders of the close before, as far as this day allows."""
        market = self.market
        if (market.ends == day).any():
            self._sell(np.flatnonzero(self.held & (market.ends == day)), day, "end")
            leave = leave[self.is_held[leave]]
        column, moment = self.column[leave], self.sellable_from[leave]
        self._sell(leave[market.can_sell[day, column] & (moment <= 2 * day)], day, "open")
        if self.most is not None:
            more = self.places[self.to_buy[self.places] > 0]
            if more.size and (more := more[np.bincount(leave, minlength=self.shares.size)[more] == 0]).size:
                self._buy_in_turn(more, np.zeros(len(more)), day, self.count(more))
        if enter.size:  # sales that could not be made keep their places
            n_most = self.count(enter) - self.count(leave[self.is_held[leave]])
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
        column, sold = self.column[places], self.shares[places]
        if self.most is not None and at != "end":
            most, lot = self.most[day, column], self.market.lot[day, column]
            sold = np.where(sold <= most, sold, np.floor(most / lot) * lot)
        quote = (self.market.open if at == "open" else self.market.close)[day, column]
        price = quote if at == "end" else quote * (1 - self.market.rules.slippage)
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
        column, account, fee = self.column[places], self.account[places], self.market.rules.fee
        quote, lot = self.market.open[day, column], self.market.lot[day, column]
        price = quote * (1 + self.market.rules.slippage)
        is_new, cash = ~self.is_held[places], self.cash[account]
        limit = np.where(is_new, np.minimum(np.floor(share * self.worth[account] + 1e-6), cash), cash)
        lots = np.floor(limit / (price * lot * (1 + fee))) + 1
        for _ in range(2):  # one too many, and perhaps one more that rounding makes too dear
            amount = dong(lots * lot * price)
            lots -= (amount + dong(amount * fee) > limit) & (lots > 0)
        bought = lots * lot
        if self.most is not None:
            whole = np.where(is_new, bought, self.to_buy[places])
            bought = np.floor(np.minimum(np.minimum(bought, whole), self.most[day, column]) / lot) * lot
            self.to_buy[places] = np.where(bought > 0, whole - bought, self.to_buy[places])
        self.bought_on[places[is_new]] = day
        self._book(1, places, day, "open", bought, quote, price)
        self.sellable_from[places[bought > 0]] = self.market.sellable_from[day]

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
        self.shares[places], self.is_held[places] = now, now > 0
        if self.record:
            columns = np.broadcast_arrays(places, day, at, side * shares, quote, price, amount, cost)
            self.fills.append(tuple(column[shares > 0] for column in columns))
