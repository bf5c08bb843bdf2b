"""Trading on a forecast, long or flat, under the exchange's rules; buy-and-hold under the same rules beside it.

Axes: days, symbols. Every symbol has an account of its own, and the accounts never lend to each other.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON, check_forecast
from vnq_colab.data.market import EXCHANGES, VN_RULES, MarketRules, tick
from vnq_colab.errors import ConfigError, DataError, did_you_mean, name_a_few
from vnq_colab.evaluation.metrics import max_drawdown, sharpe

MOST_CAPITAL = 1e15  # [VND] more is beyond the whole market, and beyond the exactness of the sums
DEFAULT_FAMILY = "stockformer"
ORDER_COLUMNS = ("symbol", "date", "side", "shares", "price", "cost")


@dataclass(frozen=True, repr=False)
class Backtest:
    """What the accounts did. Nothing is sold at the end: holdings count at the last close."""

    family: str
    capital: float  # [VND] of each account at the start
    rules: MarketRules
    equity: pd.DataFrame  # by date: `strategy`, `buy_and_hold`, mean value of the accounts [VND]
    symbols: pd.DataFrame  # one row per symbol: returns and drawdowns [fraction], Sharpe ratios, trades, exposure
    orders: pd.DataFrame  # filled: symbol, date, side, shares, price with slippage [VND], cost = fee and tax [VND]

    def totals(self) -> pd.DataFrame:
        """Return [fraction], Sharpe ratio and drawdown [fraction] of the mean account: rows strategy, buy_and_hold."""
        value = self.equity.to_numpy()  # [days, 2]
        return pd.DataFrame({"return": value[-1] / value[0] - 1, "sharpe": sharpe(value[1:] / value[:-1] - 1),
                             "max_drawdown": max_drawdown(value)}, index=self.equity.columns)

    def __repr__(self) -> str:
        totals, days = self.totals(), self.equity.index
        lines = [f"Backtest of {self.family}: {len(self.symbols)} symbols, {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, "
                 f"{self.capital:,.0f} VND each, {len(self.orders):,} orders, costs included"]
        lines += [f"  {name:<12}  Return {row['return']:+8.2%}   Sharpe {row['sharpe']:6.2f}   "
                  f"Max. drawdown {row['max_drawdown']:6.2%}" for name, row in totals.iterrows()]
        return "\n".join(lines)


def backtest(forecast: pd.DataFrame, prices: pd.DataFrame, rules: MarketRules = VN_RULES, *,
             capital: float = 100_000_000.0, family: str | None = None) -> Backtest:
    """Trades each symbol on the sign of `mean`: wish long above 0, else flat; filled at the next open that allows it.

    `prices` is a price table [VND]; `family` None takes the only family of the forecast, or "stockformer". An account
    buys as many lots as its cash allows and sells all. Fills are at the open, `rules.slippage` against the trader.
    There is no buy with the open at the ceiling, no sale with it at the floor, none before settlement, and no fill on
    a day without volume; the wish stays. A day without a forecast keeps the wish. The test ends `HORIZON` trading days
    after the last origin, or with the prices.

    An approximation: bands and ticks apply to raw prices, `prices` are adjusted. An open within one tick of the band's
    end counts as on it; the wider band of a symbol's first day is not known here; shares sellable from the close of
    T+2 are sold at the next open.
    """
    if not 0 < capital <= MOST_CAPITAL:
        raise ConfigError(f"capital = {capital!r}: must be positive, at most {MOST_CAPITAL:.0e} [VND].")
    forecast = check_forecast(forecast)
    family = _choose_family(forecast, family)
    forecast = forecast[forecast["family"] == family]
    symbols = forecast["symbol"].unique()
    known = prices["symbol"].unique()
    if missing := sorted(set(symbols) - set(known)):
        raise DataError(f"prices: no rows of {name_a_few(missing)}.{did_you_mean(missing[0], known)} "
                        "Backtest with the prices that were forecast.")
    days = pd.DatetimeIndex(np.unique(prices["date"].to_numpy("datetime64[ns]")))
    origins = pd.DatetimeIndex(forecast["date"].unique())
    if unknown := [f"{day:%Y-%m-%d}" for day in origins[days.get_indexer(origins) < 0]]:
        raise DataError(f"prices: no rows of {name_a_few(sorted(unknown))}, which the forecast has. "
                        "Backtest with the prices that were forecast.")
    first, last = days.get_indexer(pd.DatetimeIndex([origins.min(), origins.max()]))
    market = _Market(prices, symbols, days[: last + HORIZON + 1], first, rules)
    if len(market.days) < 2:
        raise DataError(f"prices end {market.days[-1]:%Y-%m-%d}, the first day of the forecast: no day to trade on.")

    signal = forecast.pivot(index="date", columns="symbol", values="mean").reindex(market.days, columns=symbols)
    wish = np.where(signal.isna(), np.nan, signal > 0)
    wish = pd.DataFrame(wish).ffill().fillna(0).to_numpy(bool)  # [days, symbols] known at that day's close
    value, held, orders = _trade(market, wish, rules, capital)
    hold_value, _, _ = _trade(market, np.ones_like(wish), rules, capital)

    daily, hold_daily = value[1:] / value[:-1] - 1, hold_value[1:] / hold_value[:-1] - 1
    table = pd.DataFrame({
        "symbol": symbols, "return": value[-1] / capital - 1, "sharpe": sharpe(daily),
        "max_drawdown": max_drawdown(value),
        "n_trades": orders[orders["side"] == "buy"].groupby("symbol").size().reindex(symbols, fill_value=0).to_numpy(),
        "exposure": held[1:].mean(axis=0),
        "buy_and_hold_return": hold_value[-1] / capital - 1, "buy_and_hold_sharpe": sharpe(hold_daily),
        "buy_and_hold_drawdown": max_drawdown(hold_value),
    })
    equity = pd.DataFrame({"strategy": value.mean(axis=1), "buy_and_hold": hold_value.mean(axis=1)}, index=market.days)
    return Backtest(family, float(capital), rules, equity, table, orders)


def _choose_family(forecast: pd.DataFrame, family: str | None) -> str:
    families = list(forecast["family"].unique())
    if family is None:
        family = families[0] if len(families) == 1 else DEFAULT_FAMILY
    if family not in families:
        raise ConfigError(f"the forecast has no family {family!r}.{did_you_mean(family, families)} "
                          "Choose one with family=.")
    return family


class _Market:
    """Prices and permissions as `[days, symbols]` arrays, from the first origin to the last day of the test."""

    def __init__(self, prices: pd.DataFrame, symbols: np.ndarray, days: pd.DatetimeIndex, first: int,
                 rules: MarketRules) -> None:
        self.days, self.symbols = days[first:], symbols
        rows = prices[prices["symbol"].isin(symbols) & (prices["date"] <= days[-1])]
        place = days.get_indexer(pd.DatetimeIndex(rows["date"])), pd.Index(symbols).get_indexer(rows["symbol"])

        def spread(values: pd.Series | np.ndarray, empty: float = np.nan) -> np.ndarray:
            block = np.full((len(days), len(symbols)), empty)
            block[place] = values
            return block

        close = pd.DataFrame(spread(rows["close"])).ffill().to_numpy()
        self.close = close[first:]
        self.open = spread(rows["open"])[first:]
        reference = np.full_like(self.close, np.nan)
        reference[int(first == 0):] = close[max(first - 1, 0) : -1]  # the close before each day
        exchange = np.zeros(close.shape)  # place in EXCHANGES; HOSE where it is not known
        if "exchange" in prices.columns:
            number = pd.Index(EXCHANGES).get_indexer(rows["exchange"]).astype("float64")
            exchange = pd.DataFrame(spread(np.where(number < 0, np.nan, number))).ffill().fillna(0).to_numpy()
        ceiling, floor = np.full_like(reference, np.inf), np.full_like(reference, -np.inf)
        for number, name in enumerate(EXCHANGES):
            band = rules.band(name, self.days)[:, None]
            on = (exchange[first:] == number) & np.isfinite(reference)
            ceiling = np.where(on, reference * (1 + band) - tick(reference * (1 + band), name), ceiling)
            floor = np.where(on, reference * (1 - band) + tick(reference * (1 - band), name), floor)
        trades = np.isfinite(self.open) & (self.open > 0) & (spread(rows["volume"], 0.0)[first:] > 0)
        # Less than one tick inside the band: the ceiling is the band's end rounded down to a tick, the floor up.
        self.can_buy = trades & (self.open <= ceiling + 0.01)
        self.can_sell = trades & (self.open >= floor - 0.01)
        self.wait = rules.sellable_after(self.days)  # [days] until a purchase can be sold


def _trade(market: _Market, wish: np.ndarray, rules: MarketRules,
           capital: float) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """`[days, symbols]` value of the accounts at each close [VND], `[days, symbols]` shares held, and the orders."""
    n_days, n_symbols = wish.shape
    cash, shares = np.full(n_symbols, capital), np.zeros(n_symbols, dtype="int64")
    sellable_from = np.zeros(n_symbols, dtype="int64")  # index of the day
    value, held = np.empty((n_days, n_symbols)), np.zeros((n_days, n_symbols), dtype=bool)
    value[0] = capital
    filled = []
    for day in range(1, n_days):
        wanted = wish[day - 1]  # known since yesterday's close
        sell = (shares > 0) & ~wanted & market.can_sell[day] & (sellable_from <= day)
        buy = (shares == 0) & wanted & market.can_buy[day]
        price = market.open[day] * np.where(buy, 1 + rules.slippage, 1 - rules.slippage)
        per_lot = np.where(buy, price * rules.lot * (1 + rules.fee), np.inf)
        lots = np.floor(cash / per_lot).astype("int64")
        lots -= lots * np.where(buy, per_lot, 0) > cash  # the division rounded up: one lot fewer
        change = np.where(sell, -shares, lots * rules.lot)  # [symbols] shares
        active = np.flatnonzero(change)
        if active.size:
            amount = np.abs(change[active]) * price[active]
            cost = amount * np.where(change[active] > 0, rules.fee, rules.fee + rules.sale_tax)
            cash[active] -= np.sign(change[active]) * amount + cost
            shares[active] += change[active]
            sellable_from[active] = day + market.wait[day]
            filled.append((active, np.full(active.size, day), change[active], price[active], cost))
        value[day] = cash + np.where(shares > 0, shares * market.close[day], 0)
        held[day] = shares > 0
    if not filled:
        return value, held, pd.DataFrame({name: [] for name in ORDER_COLUMNS})
    place, day, change, price, cost = (np.concatenate(column) for column in zip(*filled, strict=True))
    orders = pd.DataFrame({"symbol": market.symbols[place], "date": market.days[day],
                           "side": np.where(change > 0, "buy", "sell"), "shares": np.abs(change), "price": price,
                           "cost": cost})
    return value, held, orders.sort_values(["symbol", "date"], ignore_index=True)
