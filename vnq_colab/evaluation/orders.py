"""The engine: wishes become orders, under the exchange's rules and in whole dong, day by day.

Axes: days, strategies, symbols. A day has two moments at which an order can be filled, its open and its close, numbered
2 * day and 2 * day + 1.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, LONG_HALT_SESSIONS, MarketRules, price_limits, tick
from vnq_colab.errors import DataError

HALF = 0.5 + 1e-6  # [VND] half a dong counts as one, also where its floating-point sum falls just short
SAME_BASIS = 0.002  # chosen: raw / adjusted moves by less from rounding, and by more on a day without a right
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
        _check(rows)
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
        can_buy, can_sell, can_sell_late = _permissions(days, opening, close, raw, exchange, trades, rules)
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


def _check(rows: pd.DataFrame) -> None:
    """Raises DataError for the first row whose open, close or volume cannot be traded on, and for doubled days."""
    for name, least, unit in (("open", 0.0, "VND"), ("close", 0.0, "VND"), ("volume", -1.0, "shares")):
        values = rows[name].to_numpy("float64")
        bad = ~(np.isfinite(values) & (values > least))
        if bad.any():
            row = rows[bad].iloc[0]
            more = f" (and {int(bad.sum()) - 1} more rows)" if bad.sum() > 1 else ""
            raise DataError(f"{row['symbol']} {row['date']:%Y-%m-%d}: {name} is {row[name]} [{unit}]{more}. Clean the "
                            "prices with clean_prices.")
    if (bad := rows.duplicated(["symbol", "date"])).any():
        row = rows[bad].iloc[0]
        raise DataError(f"{row['symbol']} {row['date']:%Y-%m-%d}: two rows of prices for one day. Clean the prices "
                        "with clean_prices.")


def _permissions(days: pd.DatetimeIndex, opening: np.ndarray, close: np.ndarray, raw: np.ndarray, exchange: np.ndarray,
                 trades: np.ndarray, rules: MarketRules) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[days, symbols]` bool, three times: may be bought at the open, sold at the open, sold at the close.

    On raw prices where `raw` is known: the reference is the raw close before, or the adjusted one on today's basis
    after a right was cut off. Elsewhere on adjusted prices, where a price within one tick of the band's end counts as
    on it. The first day on an exchange, and the first after a long halt, have the wider band; a first row has none.
    """
    def before(values: np.ndarray) -> np.ndarray:
        return np.concatenate([np.full((1, values.shape[1]), np.nan), values[:-1]])

    known = pd.DataFrame(close).ffill().to_numpy()
    reference, basis = before(known), raw / close
    day = np.arange(len(days))[:, None]
    last_trade = before(np.maximum.accumulate(np.where(trades, day, -1.0), axis=0))
    halted = (last_trade >= 0) & (day - last_trade > LONG_HALT_SESSIONS)
    moved = np.isfinite(before(exchange)) & (exchange != before(exchange))
    there = np.isfinite(close)
    raw_before, basis_before = (  # of the last row; -1 where that row does not know it
        before(pd.DataFrame(np.where(there, np.where(np.isfinite(raw), values, -1), np.nan)).ffill().to_numpy())
        for values in (raw, basis))
    is_same = (basis_before > 0) & (np.abs(basis / basis_before - 1) < SAME_BASIS)  # else a right was cut off
    buy, sell, late = (np.zeros(close.shape, dtype=bool) for _ in range(3))
    for number, name in enumerate(EXCHANGES):
        on = np.nan_to_num(exchange) == number
        daily, wide = rules.band(name, days)[:, None], rules.band(name, days, first_day=True)[:, None]
        band = np.where(halted | moved, wide, daily)
        high, low = reference * (1 + band), reference * (1 - band)
        ceiling, floor = high - tick(high, name) + 0.02, low + tick(low, name) - 0.02  # adjusted: within one tick
        step = tick(reference * basis, name)
        start = np.where(is_same, raw_before, np.round(reference * basis / step) * step)
        raw_ceiling, raw_floor = price_limits(start, band, name)
        is_raw = np.isfinite(basis) & np.isfinite(start)
        at_open = opening * basis
        at_open = np.round(at_open / tick(at_open, name)) * tick(at_open, name)
        ceiling, floor = np.where(is_raw, raw_ceiling, ceiling), np.where(is_raw, raw_floor, floor)
        at_open, at_close = np.where(is_raw, at_open, opening), np.where(is_raw, raw, close)
        free = np.isnan(reference)
        buy |= on & (free | (at_open < ceiling - 0.01))
        sell |= on & (free | (at_open > floor + 0.01))
        late |= on & (free | (at_close > floor + 0.01))
    return buy & trades, sell & trades, late & trades


@dataclass(frozen=True)
class Book:
    """What accounts held at each close. One account per strategy and symbol, or one per strategy for all symbols."""

    cash: np.ndarray  # [days, strategies, symbols] or [days, strategies, 1] [VND] whole
    shares: np.ndarray  # [days, strategies, symbols]
    held: np.ndarray  # [days, strategies, symbols] [VND] whole: shares at the close
    fills: dict[str, np.ndarray]  # [fills] place, day, at, change, quote, price, amount, fee, tax
    pending: np.ndarray  # [days, symbols] of the first strategy: shares not yet settled at the close
    blocked: np.ndarray  # [days, symbols] of the first strategy: place in BLOCKED, why a wish stays unfilled

    def value(self) -> np.ndarray:
        """`[days, strategies, symbols]` or `[days, strategies, 1]`: what each account is worth at each close [VND]."""
        return self.cash + (self.held if self.cash.shape == self.held.shape else self.held.sum(axis=2, keepdims=True))


def trade(market: Market, weight: np.ndarray, rules: MarketRules, capital: float, *, position: float = 1.0,
          rank: np.ndarray | None = None, record: bool = True) -> Book:
    """Fills the wishes `weight [days, strategies, symbols]`, each a share of the account, and keeps the book.

    With `rank [days, strategies, symbols]` all symbols of a strategy share one account, and lower ranks buy first. The
    wish of a day is filled at the next open that allows it; a sale also at the close of the very day on which the
    shares become sellable, when it was wished the day before. Sales come before purchases, and their money can be used
    at once. A position is opened once, with the share of the account wished then (at most `position`), and sold whole.
    `record` False leaves out fills, pending and blocked.
    """
    n_days = len(weight)
    desk = _Desk(market, weight, rules, capital, position, rank, record)
    cash, shares = np.empty((n_days, *desk.cash.shape)), np.zeros(weight.shape)
    pending = np.zeros((n_days, weight.shape[2]))
    blocked = np.zeros(pending.shape, dtype="int8")
    cash[0] = capital
    for day in range(1, n_days):
        desk.trade(day)
        cash[day], shares[day] = desk.cash, desk.shares
        if record:
            pending[day] = np.where(desk.free_from > 2 * day + 1, desk.shares, 0)[0]
            blocked[day] = desk.blocked(day)
    held = np.where(shares > 0, dong(shares * market.close[:, None]), 0)
    return Book(cash, shares, held, desk.fills(), pending, blocked)


class _Desk:
    """Accounts `[strategies, symbols]` on one day, and all that they have done."""

    def __init__(self, market: Market, weight: np.ndarray, rules: MarketRules, capital: float, position: float,
                 rank: np.ndarray | None, record: bool) -> None:
        self.market, self.weight, self.rules, self.position, self.rank = market, weight, rules, position, rank
        self.record, self.wanted = record, weight > 0
        self.shares = np.zeros(weight.shape[1:])
        self.cash = np.full(self.shares.shape if rank is None else (len(self.shares), 1), float(capital))
        self.free_from = np.zeros(self.shares.shape, dtype="int32")  # moment
        self.left = np.zeros(self.shares.shape)  # shares still to be bought of a purchase that the traded share cut
        self.orders: list[tuple[np.ndarray, ...]] = []

    def trade(self, day: int) -> None:
        market, wanted, held = self.market, self.wanted[day - 1], self.shares > 0
        if self.rank is not None:  # what the account was worth at the last close
            worth = np.where(held, dong(self.shares * market.close[day - 1]), 0).sum(axis=1, keepdims=True) + self.cash
        if (market.ends == day).any():
            self._sell(held & (market.ends == day), market.close, day, "end")
            held = self.shares > 0
        leave = held & ~wanted
        self._sell(leave & market.can_sell[day] & (self.free_from <= 2 * day), market.open, day, "open")
        enter = wanted & market.can_buy[day] & (~held | (self.left > 0))
        places = np.flatnonzero(enter)
        if self.rank is None:
            if places.size:
                self._buy(places, day, self.cash)
        elif places.size:
            account = places // enter.shape[1]
            order = np.lexsort((self.rank[day - 1].reshape(-1)[places], account))
            places, account = places[order], account[order]
            turn = np.arange(len(places)) - np.searchsorted(account, account)
            for number in range(int(turn.max()) + 1):
                self._buy(places[turn == number], day, worth)
        self._sell(leave & market.can_sell_late[day] & (self.free_from == 2 * day + 1), market.close, day, "close")

    def _purse(self, places: np.ndarray) -> np.ndarray:
        return places if self.rank is None else places // self.shares.shape[1]

    def _sell(self, which: np.ndarray, quotes: np.ndarray, day: int, at: str) -> None:
        places = np.flatnonzero(which)
        if not places.size:
            return
        column, rules = places % self.shares.shape[1], self.rules
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

    def _buy(self, places: np.ndarray, day: int, worth: np.ndarray) -> None:
        column, purse, rules = places % self.shares.shape[1], self._purse(places), self.rules
        quote, lot = self.market.open[day, column], self.market.lot[day, column]
        price = quote * (1 + rules.slippage)
        is_new = self.shares.reshape(-1)[places] == 0
        share = np.minimum(self.weight[day - 1].reshape(-1)[places], self.position)
        cash = self.cash.reshape(-1)[purse]
        limit = np.where(is_new, np.minimum(np.floor(share * worth.reshape(-1)[purse] + 1e-6), cash), cash)
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
        self._book(places, day, "open", bought, quote, price, amount, dong(amount * rules.fee), np.zeros(len(places)))
        self.free_from.reshape(-1)[places[bought > 0]] = self.market.free_from[day]

    def _book(self, places: np.ndarray, day: int, at: str, change: np.ndarray, quote: np.ndarray, price: np.ndarray,
              amount: np.ndarray, fee: np.ndarray, tax: np.ndarray) -> None:
        np.add.at(self.cash.reshape(-1), self._purse(places), -np.sign(change) * amount - fee - tax)
        self.shares.reshape(-1)[places] += change
        if self.record:
            some = change != 0
            columns = places, np.full(len(places), day), np.full(len(places), AT.index(at)), change, quote, price
            self.orders.append(tuple(column[some] for column in (*columns, amount, fee, tax)))

    def fills(self) -> dict[str, np.ndarray]:
        """All orders in the order of their filling."""
        names = ("place", "day", "at", "change", "quote", "price", "amount", "fee", "tax")
        columns = [np.concatenate(column) for column in zip(*self.orders, strict=True)] or [np.empty(0)] * len(names)
        return dict(zip(names, columns, strict=True))

    def blocked(self, day: int) -> np.ndarray:
        """`[symbols]` of the first strategy: place in BLOCKED, why the wish for this day is not filled at its end."""
        market, wanted, shares = self.market, self.wanted[day - 1, 0], self.shares[0]
        enter, leave = wanted & ((shares == 0) | (self.left[0] > 0)), ~wanted & (shares > 0)
        reasons = {
            "": ~enter & ~leave,
            "delisted": market.ends <= day,
            "no volume": ~market.trades[day],
            "ceiling": enter & ~market.can_buy[day],
            "not settled": leave & (self.free_from[0] > 2 * day + 1),
            "floor": leave & ~np.where(self.free_from[0] == 2 * day + 1, market.can_sell_late[day],
                                       market.can_sell[day]),
            "traded share": leave | (self.left[0] > 0) | (False if market.room is None else
                                                          market.room[day] < market.lot[day]),
        }
        return np.select(list(reasons.values()), [BLOCKED.index(name) for name in reasons], BLOCKED.index("no cash"))
