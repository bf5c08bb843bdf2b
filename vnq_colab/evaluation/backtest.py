"""Trading on a forecast, long or flat, under the exchange's rules; buy-and-hold under the same rules beside it.

Axes: days, symbols. A basket and a person's own strategy trade all symbols in one account; `long_flat` and buy-and-hold
give each symbol an account of its own, and these never lend to each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import ENSEMBLE, HORIZON, check_forecast
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.errors import ConfigError, DataError, did_you_mean, name_a_few
from vnq_colab.evaluation.basket import Basket, BasketRule
from vnq_colab.evaluation.engine import AT, BLOCKED, Book, Desk, Market, Orders, trade
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.evaluation.own_strategy import FunctionRule, Strategy

MOST_CAPITAL = 1e15  # [VND] more is beyond the whole market, and beyond the exactness of the sums
LONG_FLAT = "long_flat"
BASKET = Basket()
ORDER_COLUMNS = ("symbol", "date", "side", "shares", "price", "cost", "at", "quote", "amount", "fee", "tax", "cash")


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
    strategy: str = LONG_FLAT  # or the basket, or the name of a person's function
    market: Market | None = field(default=None, compare=False)
    unfilled: float = 0.0  # [fraction] of what was to be held in shares, mean over the days; of a common account

    @property
    def is_common(self) -> bool:
        """Whether all symbols share one account."""
        return self.strategy != LONG_FLAT

    def totals(self) -> pd.DataFrame:
        """Return [fraction], Sharpe ratio and drawdown [fraction] of the mean account: a row per column of equity."""
        value = self.equity.to_numpy()  # [days, columns]
        return pd.DataFrame({"return": value[-1] / value[0] - 1, "sharpe": sharpe(value[1:] / value[:-1] - 1),
                             "max_drawdown": max_drawdown(value)}, index=self.equity.columns)

    def __repr__(self) -> str:
        totals, days = self.totals(), self.equity.index
        lines = [f"Backtest of {self.family} ({self.strategy}): {len(self.symbols)} symbols, {days[0]:%Y-%m-%d} to "
                 f"{days[-1]:%Y-%m-%d}, {self.capital:,.0f} VND {'in all' if self.is_common else 'each'}, "
                 f"{len(self.orders):,} orders, costs included"]
        lines += [f"  {name:<12}  Return {row['return']:+8.2%}   Sharpe {row['sharpe']:6.2f}   "
                  f"Max. drawdown {row['max_drawdown']:6.2%}" for name, row in totals.iterrows()]
        return "\n".join(lines)


def backtest(forecast: pd.DataFrame, prices: pd.DataFrame, rules: MarketRules = VN_RULES, *,
             strategy: "Basket | Strategy | str" = BASKET, capital: float | None = None, family: str | None = None,
             position: float = 1.0, traded_share: float | None = None, index: pd.DataFrame | None = None) -> Backtest:
    """Trades a forecast: what a strategy decides at each close is filled at the next open that the exchange allows.

    `prices` is a price table [VND]; `family` None takes the only family of the forecast, or "ensemble".
    `strategy`: a `Basket`, ordered by `score`, exchanged where `edge` pays the costs; "long_flat", each symbol in an
    account of its own while its `mean` is above 0; or a function of an evening's rows of the forecast and of what
    is held (a Series by symbol, shares of the account) that returns target weights by symbol, with a sum of at most 1.
    A held stock without a weight is sold; the weight of one that is held already says only that it stays: a position is
    opened once and sold whole.

    `capital`, in whole dong, is that of the one account (None: a billion), or of each symbol's (None: 100 million);
    `position` is the largest fraction of an account in one symbol, `traded_share` the largest fraction of a day's
    traded value that one order may be (None: the basket's own, else no limit). `index` is a table `date, close`
    [points] that is shown beside the accounts.

    Fills are at the open, `rules.slippage` against the trader; shares that become sellable at a close (T+2 since
    2022-08-29) are sold there when that was decided the day before. There is no buy at the ceiling, no sale at the
    floor, none before settlement, no fill on a day without volume. A purchase takes whole lots, as many as the account
    allows; a sale sells all, an odd lot too. What the traded share cuts off is traded on the days after.
    A symbol whose prices end before the table does has left the market: it is settled the day after, at its last close,
    without slippage. Amount, fee and tax are each rounded to the dong, and the money of a sale can be used at once.
    On a day without a forecast everything stays. The test ends `HORIZON` trading days after the last origin, or with
    the prices. In the table `symbols` of a common account a symbol has what it gained or lost for the whole.

    Bands and ticks apply to raw prices, which are known where `raw_close` is. Elsewhere adjusted prices stand for them,
    and one within a tick of the band's end counts as on it; shares and lots are always those of the adjusted prices.
    Raises ConfigError for arguments and for what a function returns, DataError for tables that cannot be used.
    """
    if isinstance(strategy, str) and strategy != LONG_FLAT:
        raise ConfigError(f"there is no strategy {strategy!r}.{did_you_mean(strategy, [LONG_FLAT])} Take "
                          f"{LONG_FLAT!r}, a Basket or a function.")
    if not (isinstance(strategy, (str, Basket)) or callable(strategy)):
        raise ConfigError(f"strategy = {strategy!r}: must be a Basket, a function or {LONG_FLAT!r}.")
    if isinstance(strategy, Basket) and traded_share is None:
        traded_share = strategy.traded_share
    capital = (1e8 if strategy == LONG_FLAT else 1e9) if capital is None else capital
    _check(capital, position, traded_share)
    forecast, market = on_market(forecast, prices, rules, family=family, traded_share=traded_share)
    rule: np.ndarray | Callable[[int, Desk], Orders]
    if isinstance(strategy, Basket):
        rule = BasketRule(*scores_of(forecast, market), [strategy], rules)
    elif isinstance(strategy, str):
        up = forecast.assign(up=forecast["mean"] > 0).pivot(index="date", columns="symbol", values="up")
        up = up.reindex(market.days, columns=market.symbols).astype("float64").ffill()
        rule = (up > 0).to_numpy("float64")[:, None]  # before the first forecast: not up
    else:
        rule = FunctionRule(strategy, forecast, market)
    name = strategy if isinstance(strategy, str) else repr(strategy) if isinstance(strategy, Basket) else getattr(
        strategy, "__name__", repr(strategy))
    return account_of(forecast, market, rule, rules, float(np.floor(capital)), name, position=position, index=index)


def on_market(forecast: pd.DataFrame, prices: pd.DataFrame, rules: MarketRules, *, family: str | None = None,
              traded_share: float | None = None) -> tuple[pd.DataFrame, Market]:
    """The checked rows of one family, and the market from their first day to `HORIZON` days after their last."""
    forecast = check_forecast(forecast)
    forecast = forecast[forecast["family"] == _choose_family(forecast, family)]
    symbols = forecast["symbol"].unique()
    days, first, last = _test_days(forecast, prices, symbols)
    market = Market.of(prices, symbols, days[: last + HORIZON + 1], first, rules, traded_share)
    if len(market.days) < 2:
        raise DataError(f"prices end {market.days[-1]:%Y-%m-%d}, the first day of the forecast: no day to trade on. "
                        "Backtest with later prices.")
    return forecast, market


def scores_of(forecast: pd.DataFrame, market: Market) -> tuple[np.ndarray, np.ndarray]:
    """`[days, 1, symbols]` float32, twice: score and edge; NaN without a forecast or a trade that day."""
    place = market.days.get_indexer(forecast["date"]), pd.Index(market.symbols).get_indexer(forecast["symbol"])
    found = np.full((2, *market.trades.shape), np.nan, "float32")
    for part, name in zip(found, ("score", "edge"), strict=True):
        part[place] = forecast[name]
        part[~market.trades] = np.nan
    return found[0][:, None], found[1][:, None]


def account_of(forecast: pd.DataFrame, market: Market, rule: "np.ndarray | Callable[[int, Desk], Orders]",
               rules: MarketRules, capital: float, strategy: str, *, position: float = 1.0,
               index: pd.DataFrame | None = None) -> Backtest:
    """What a rule, or target weights `[days, 1, symbols]`, did on a market, with its ledgers."""
    common = callable(rule)
    book = trade(market, rule, rules, capital, position=position)
    free = replace(market, room=None) if common else market
    hold = trade(free, np.ones((len(market.days), 1, len(market.symbols))), rules, capital, record=False,
                 position=1.0 if common else position).worth[:, 0]
    equity = pd.DataFrame({"strategy": book.worth[:, 0].mean(axis=1), "buy_and_hold": hold.mean(axis=1)},
                          index=market.days)
    if index is not None:
        equity["index"] = _index_value(index, market.days, capital)
    orders = _orders(book, market)
    unfilled = float(book.missing.sum() / max(book.missing.sum() + book.held.sum(), 1.0)) if common else 0.0
    return Backtest(forecast["family"].iloc[0], capital, rules, equity, _symbols(book, hold, orders, market, capital),
                    orders, _daily(book, market, strategy if common else None), strategy, market, unfilled)


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
        family = families[0] if len(families) == 1 else ENSEMBLE
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


def _daily(book: Book, market: Market, strategy: str | None) -> pd.DataFrame:
    """The daily ledger, by date and symbol."""
    shares, held, cash = book.shares[:, 0], book.held[:, 0], book.cash[:, 0]  # [days, symbols or accounts]
    symbols, close, pending, blocked = market.symbols, market.close, book.pending, book.blocked
    account = symbols
    if strategy is not None:  # one account: the cash is a row of its own, before those of the symbols
        def in_front(values: np.ndarray, first: float | np.ndarray) -> np.ndarray:
            return np.concatenate([np.broadcast_to(first, (len(values), 1)), values], axis=1)

        symbols, cash = np.append("", symbols), in_front(np.zeros_like(shares), cash)
        shares, held, close = in_front(shares, 0), in_front(held, 0), in_front(close, np.nan)
        pending, blocked, account = in_front(pending, 0), in_front(blocked, 0), np.full(len(symbols), strategy)
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
    value = book.worth[:, 0]  # [days, accounts]
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
