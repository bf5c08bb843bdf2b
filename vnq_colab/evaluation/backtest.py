"""Trading on a forecast, long or flat, under the exchange's rules; buy-and-hold under the same rules beside it.

Axes: days, symbols. Every symbol has an account of its own, and the accounts never lend to each other; only the
strategy `top_k` trades all symbols in one.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON, check_forecast
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.errors import ConfigError, DataError, did_you_mean, name_a_few
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.evaluation.orders import AT, BLOCKED, Book, Market, trade
from vnq_colab.evaluation.strategies import Strategy, as_strategy, wishes

MOST_CAPITAL = 1e15  # [VND] more is beyond the whole market, and beyond the exactness of the sums
DEFAULT_FAMILY = "stockformer"
ORDER_COLUMNS = ("symbol", "date", "side", "shares", "price", "cost", "at", "quote", "amount", "fee", "tax", "cash")


@dataclass(frozen=True)
class Trial:
    """What was wished, and on which market: enough to trade the same wishes on other days."""

    market: Market
    weight: np.ndarray  # [days, symbols] share of the account wished at each close
    rank: np.ndarray | None  # [days, symbols] of the common account
    position: float


@dataclass(frozen=True, repr=False)
class Backtest:
    """What the accounts did. Nothing is sold at the end: holdings count at the last close.

    All money is in whole dong: for every account and day, its value in `daily` is the starting capital, plus the sum of
    `cash` of its orders so far, plus its shares at the close, to the last dong.
    """

    family: str
    capital: float  # [VND] of each account at the start
    rules: MarketRules
    equity: pd.DataFrame  # by date: `strategy`, `buy_and_hold`, perhaps `index`: mean value of the accounts [VND]
    symbols: pd.DataFrame  # one row per symbol: returns and drawdowns [fraction], Sharpe ratios, trades, exposure
    # Filled, by symbol and date: side; shares; price with slippage [VND]; cost = fee + tax [VND]; at: the day's open or
    # close, or the end of the symbol; quote, the price on the exchange [VND]; amount = shares × price [VND]; fee, tax
    # [VND]; cash, what came in or, negative, went out [VND]
    orders: pd.DataFrame
    # Every account on every day: date; account (its symbol, or the strategy); symbol; cash [VND]; shares; close [VND];
    # value = cash + shares × close [VND]; pending, shares not settled at that close; blocked, why a wish was not filled
    # on that day. A common account has a row without a symbol for its cash, so that values of a day always add up.
    daily: pd.DataFrame = field(default_factory=pd.DataFrame)
    strategy: Strategy = field(default_factory=Strategy)
    trial: Trial | None = field(default=None, compare=False)

    def totals(self) -> pd.DataFrame:
        """Return [fraction], Sharpe ratio and drawdown [fraction] of the mean account: a row per column of equity."""
        value = self.equity.to_numpy()  # [days, columns]
        return pd.DataFrame({"return": value[-1] / value[0] - 1, "sharpe": sharpe(value[1:] / value[:-1] - 1),
                             "max_drawdown": max_drawdown(value)}, index=self.equity.columns)

    def __repr__(self) -> str:
        totals, days = self.totals(), self.equity.index
        how = "" if self.strategy.name == "long_flat" else f" ({self.strategy.name})"
        lines = [f"Backtest of {self.family}{how}: {len(self.symbols)} symbols, {days[0]:%Y-%m-%d} to "
                 f"{days[-1]:%Y-%m-%d}, {self.capital:,.0f} VND {'in all' if self.strategy.is_common else 'each'}, "
                 f"{len(self.orders):,} orders, costs included"]
        lines += [f"  {name:<12}  Return {row['return']:+8.2%}   Sharpe {row['sharpe']:6.2f}   "
                  f"Max. drawdown {row['max_drawdown']:6.2%}" for name, row in totals.iterrows()]
        return "\n".join(lines)


def backtest(forecast: pd.DataFrame, prices: pd.DataFrame, rules: MarketRules = VN_RULES, *,
             capital: float = 100_000_000.0, family: str | None = None, strategy: str | Strategy = "long_flat",
             position: float = 1.0, traded_share: float | None = None, index: pd.DataFrame | None = None) -> Backtest:
    """Trades a forecast: wishes of a strategy at each close, filled at the next open that the exchange allows.

    `prices` is a price table [VND]; `family` None takes the only family of the forecast, or "stockformer". `capital` is
    in whole dong, of each symbol's account, or of the one account of `top_k`; `position` is the largest fraction of an
    account in one symbol, `traded_share` the largest fraction of a day's traded value that one order may be (None: no
    limit). `index` is a table `date, close` [points] that is shown beside the accounts.

    Fills are at the open, `rules.slippage` against the trader; shares that become sellable at a close (T+2 since
    2022-08-29) are sold there when that was wished the day before. There is no buy at the ceiling, no sale at the
    floor, none before settlement, no fill on a day without volume; the wish stays. A purchase takes whole lots, as many
    as the account allows; a sale sells all, an odd lot too. What the traded share cuts off is traded on the days after.
    A symbol whose prices end before the table does has left the market: it is settled the day after, at its last close,
    without slippage. Amount, fee and tax are each rounded to the dong, and the money of a sale can be used at once.
    A day without a forecast keeps the wish. The test ends `HORIZON` trading days after the last origin, or with the
    prices. In the table `symbols` of a common account a symbol has what it gained or lost for the whole.

    Bands and ticks apply to raw prices, which are known where `raw_close` is. Elsewhere adjusted prices stand for them,
    and one within a tick of the band's end counts as on it; shares and lots are always those of the adjusted prices.
    Raises ConfigError for arguments and DataError for tables that cannot be used.
    """
    strategy = as_strategy(strategy)
    _check(capital, position, traded_share)
    capital = float(np.floor(capital))
    forecast = check_forecast(forecast)
    family = _choose_family(forecast, family)
    forecast = forecast[forecast["family"] == family]
    symbols = forecast["symbol"].unique()
    days, first, last = _test_days(forecast, prices, symbols)
    market = Market.of(prices, symbols, days[: last + HORIZON + 1], first, rules, traded_share)
    if len(market.days) < 2:
        raise DataError(f"prices end {market.days[-1]:%Y-%m-%d}, the first day of the forecast: no day to trade on. "
                        "Backtest with later prices.")
    weight, rank = wishes(strategy, forecast, market.days, symbols)  # [days, symbols]
    book = trade(market, weight[:, None], rules, capital, position=position,
                 rank=None if rank is None else rank[:, None])
    hold = trade(market, np.ones((len(weight), 1, len(symbols))), rules, capital, record=False,
                 position=1.0 if strategy.is_common else position).value()[:, 0]
    value = book.value()[:, 0]  # [days, accounts]
    equity = pd.DataFrame({"strategy": value.mean(axis=1), "buy_and_hold": hold.mean(axis=1)}, index=market.days)
    if index is not None:
        equity["index"] = _index_value(index, market.days, capital)
    orders = _orders(book, market)
    return Backtest(family, capital, rules, equity, _symbols(book, hold, orders, market, capital), orders,
                    _daily(book, market, strategy), strategy, Trial(market, weight, rank, position))


def _check(capital: float, position: float, traded_share: float | None) -> None:
    if not 1 <= capital <= MOST_CAPITAL:
        raise ConfigError(f"capital = {capital!r}: must be positive, at most {MOST_CAPITAL:.0e} [VND].")
    if not 0 < position <= 1:
        raise ConfigError(f"position = {position!r}: must lie in (0, 1], a fraction of the account.")
    if traded_share is not None and not 0 < traded_share <= 1:
        raise ConfigError(f"traded_share = {traded_share!r}: must lie in (0, 1], a fraction of the day's traded value, "
                          "or be None for no limit.")


def _choose_family(forecast: pd.DataFrame, family: str | None) -> str:
    families = list(forecast["family"].unique())
    if family is None:
        family = families[0] if len(families) == 1 else DEFAULT_FAMILY
    if family not in families:
        raise ConfigError(f"the forecast has no family {family!r}.{did_you_mean(family, families)} "
                          "Choose one with family=.")
    return family


def _test_days(forecast: pd.DataFrame, prices: pd.DataFrame, symbols: np.ndarray) -> tuple[pd.DatetimeIndex, int, int]:
    """All days of the prices, and the places of the first and the last origin among them."""
    known = prices["symbol"].unique()
    if missing := sorted(set(symbols) - set(known)):
        raise DataError(f"prices: no rows of {name_a_few(missing)}.{did_you_mean(missing[0], known)} "
                        "Backtest with the prices that were forecast.")
    days = pd.DatetimeIndex(np.unique(prices["date"].to_numpy("datetime64[ns]")))
    origins = pd.DatetimeIndex(forecast["date"].unique())
    if origins.max() > days[-1]:
        raise DataError(f"prices end {days[-1]:%Y-%m-%d}, the forecast goes to {origins.max():%Y-%m-%d}. "
                        "Backtest with the prices that were forecast.")
    if unknown := [f"{day:%Y-%m-%d}" for day in origins[days.get_indexer(origins) < 0]]:
        raise DataError(f"prices: no rows of {name_a_few(sorted(unknown))}, which the forecast has. "
                        "Backtest with the prices that were forecast.")
    first, last = days.get_indexer(pd.DatetimeIndex([origins.min(), origins.max()]))
    return days, int(first), int(last)


def _index_value(index: pd.DataFrame, days: pd.DatetimeIndex, capital: float) -> np.ndarray:
    """`[days]`: the capital, had it moved as the market index [VND]."""
    if missing := [name for name in ("date", "close") if name not in index.columns]:
        raise DataError(f"index: columns {missing} are missing. It needs date and close; load_index reads it.")
    close = index.set_index("date")["close"].astype("float64").sort_index()
    if close.index.has_duplicates:
        day = close.index[close.index.duplicated()][0]
        raise DataError(f"index: two closes of {day:%Y-%m-%d}. Give one index; load_index chooses it by name.")
    close = close[np.isfinite(close) & (close > 0)].reindex(days, method="ffill").to_numpy()
    if np.isnan(close[0]):
        raise DataError(f"index: no close on or before {days[0]:%Y-%m-%d}, the first day of the forecast. Give one "
                        "that begins earlier.")
    return capital * close / close[0]


def _orders(book: Book, market: Market) -> pd.DataFrame:
    """The order ledger, by symbol and date."""
    fills = book.fills
    change, fee, tax = fills["change"], fills["fee"], fills["tax"]
    orders = pd.DataFrame({
        "symbol": market.symbols[fills["place"].astype(int)], "date": market.days[fills["day"].astype(int)],
        "side": np.where(change > 0, "buy", "sell"), "shares": np.abs(change).astype("int64"), "price": fills["price"],
        "cost": fee + tax, "at": np.array(AT, dtype=object)[fills["at"].astype(int)], "quote": fills["quote"],
        "amount": fills["amount"], "fee": fee, "tax": tax, "cash": -np.sign(change) * fills["amount"] - fee - tax,
    })
    return orders.sort_values(["symbol", "date"], kind="stable", ignore_index=True)[list(ORDER_COLUMNS)]


def _daily(book: Book, market: Market, strategy: Strategy) -> pd.DataFrame:
    """The daily ledger, by date and symbol."""
    shares, held, cash = book.shares[:, 0], book.held[:, 0], book.cash[:, 0]  # [days, symbols or accounts]
    symbols, close, pending, blocked = market.symbols, market.close, book.pending, book.blocked
    account = symbols
    if strategy.is_common:  # the cash is a row of its own, before those of the symbols
        def in_front(values: np.ndarray, first: float | np.ndarray) -> np.ndarray:
            return np.concatenate([np.broadcast_to(first, (len(values), 1)), values], axis=1)

        symbols, cash = np.append("", symbols), in_front(np.zeros_like(shares), cash)
        shares, held, close = in_front(shares, 0), in_front(held, 0), in_front(close, np.nan)
        pending, blocked, account = in_front(pending, 0), in_front(blocked, 0), np.full(len(symbols), strategy.name)
    n_days, n_rows = shares.shape
    return pd.DataFrame({
        "date": np.repeat(market.days, n_rows), "account": np.tile(account, n_days), "symbol": np.tile(symbols, n_days),
        "cash": cash.reshape(-1), "shares": shares.reshape(-1).astype("int64"), "close": close.reshape(-1),
        "value": (cash + held).reshape(-1), "pending": pending.reshape(-1).astype("int64"),
        "blocked": pd.Categorical.from_codes(blocked.reshape(-1).astype("int8"), list(BLOCKED)),
    })


def _symbols(book: Book, hold: np.ndarray, orders: pd.DataFrame, market: Market, capital: float) -> pd.DataFrame:
    """One row per symbol: what its account did, or in a common account what it gained and lost for the whole."""
    symbols, held = market.symbols, book.shares[:, 0] > 0
    value = book.value()[:, 0]  # [days, accounts]
    if value.shape != held.shape:
        flow = np.zeros(held.shape)
        place = market.days.get_indexer(orders["date"]), pd.Index(symbols).get_indexer(orders["symbol"])
        np.add.at(flow, place, orders["cash"].to_numpy())
        value = capital + flow.cumsum(axis=0) + book.held[:, 0]  # [days, symbols]
    of_symbol = orders.groupby("symbol")
    n_trades = orders[orders["side"] == "buy"].groupby("symbol").size().reindex(symbols, fill_value=0)
    return pd.DataFrame({
        "symbol": symbols, "return": value[-1] / capital - 1, "sharpe": sharpe(value[1:] / value[:-1] - 1),
        "max_drawdown": max_drawdown(value), "n_trades": n_trades.to_numpy(), "exposure": held[1:].mean(axis=0),
        "buy_and_hold_return": hold[-1] / capital - 1, "buy_and_hold_sharpe": sharpe(hold[1:] / hold[:-1] - 1),
        "buy_and_hold_drawdown": max_drawdown(hold),
        "turnover": of_symbol["amount"].sum().reindex(symbols, fill_value=0).to_numpy() / capital,
        "delisted": market.ends < len(market.days),
    })
