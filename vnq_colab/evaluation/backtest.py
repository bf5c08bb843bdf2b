"""Trading on a forecast under the exchange's rules: a basket, a person's own strategy, or each stock long or flat.

Axes: days, symbols. A basket and a person's own strategy trade all symbols in one account; `long_flat` and buy-and-hold
give each symbol an account of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import ENSEMBLE, check_forecast
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.errors import ConfigError, DataError, VnqError, did_you_mean, name_a_few
from vnq_colab.evaluation.basket import Basket, BasketRule
from vnq_colab.evaluation.engine import Accounts, Orders, dong, trade
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.settings import HORIZON, SHARE, convert

MOST_CAPITAL = 1e15  # [VND] more is beyond the whole market, and beyond the exactness of the sums
LONG_FLAT, BASKET = "long_flat", Basket()
# A day's rows of the forecast, and what is held, as shares of the account by symbol -> target weights by symbol
Strategy = Callable[[pd.DataFrame, pd.Series], "pd.Series | Mapping[str, float]"]
Rule = Callable[[int, Accounts], Orders]


@dataclass(frozen=True, repr=False)
class Backtest:
    """What the accounts did. Nothing is sold at the end: holdings count at the last close.

    All sums are whole dong: every account's cash is the starting capital plus the `cash` of its orders so far.
    """

    family: str
    strategy: str  # `long_flat`, the basket, or the name of a person's function
    capital: float  # [VND] of each account at the start
    rules: MarketRules
    equity: pd.DataFrame  # by date: `strategy`, `buy_and_hold`, perhaps `index`: mean value of the accounts [VND]
    # A row per symbol, return [fraction], sharpe, max_drawdown [fraction], n_trades, buy_and_hold_return [fraction]:
    # what its account did, or in a common account what it gained and lost for the whole
    symbols: pd.DataFrame
    # Filled, by symbol and date: side; shares; at, as in `engine.Book`; quote, the price on the exchange, price with
    # slippage (at the end: with the haircut), amount = shares × price, cost = fee + tax, cash that came in (or,
    # negative, went out) [VND]; shares and prices are raw where those are known, here and in `shares`
    orders: pd.DataFrame
    cash: pd.DataFrame  # by date, a column per account: `account`, or the symbols [VND]
    shares: pd.DataFrame  # by date, a column per symbol
    market: MarketData = field(compare=False)

    def totals(self) -> pd.DataFrame:
        """Return [fraction], Sharpe ratio and drawdown [fraction] of the mean account: a row per column of equity."""
        value = self.equity.to_numpy()  # [days, columns]
        return pd.DataFrame({"return": value[-1] / value[0] - 1, "sharpe": sharpe(value[1:] / value[:-1] - 1),
                             "max_drawdown": max_drawdown(value)}, index=self.equity.columns)

    def __repr__(self) -> str:
        totals, days = self.totals(), self.equity.index
        lines = [f"Backtest of {self.family} ({self.strategy}): {len(self.symbols)} symbols, {days[0]:%Y-%m-%d} to "
                 f"{days[-1]:%Y-%m-%d}, {self.capital:,.0f} VND {'each' if self.strategy == LONG_FLAT else 'in all'}, "
                 f"{len(self.orders):,} orders, costs included"]
        lines += [f"  {name:<12}  Return {row['return']:+8.2%}   Sharpe {row['sharpe']:6.2f}   "
                  f"Max. drawdown {row['max_drawdown']:6.2%}" for name, row in totals.iterrows()]
        return "\n".join(lines)


def backtest(forecast: pd.DataFrame, prices: "pd.DataFrame | MarketData", rules: MarketRules = VN_RULES, *,
             strategy: "Basket | Strategy | str" = BASKET, capital: float | None = None, family: str | None = None,
             traded_share: float | None = None, index: pd.DataFrame | None = None) -> Backtest:
    """Trades a forecast: what a strategy decides at each close is filled at the next open, as `engine.trade` says.

    `prices` is a price table [VND], or the MarketData made of one, which has its own rules. `family` None takes the
    only family of the forecast, or "ensemble". `strategy`: a `Basket`, ordered by `score`, exchanged where `edge` pays
    the costs; "long_flat", each symbol in an account of its own while its `mean` is above 0; or a function of a day's
    rows of the forecast and of what is held (a Series by symbol, shares of the account) that returns target weights by
    symbol, with a sum of at most 1. A held stock without a weight is sold, another weight leaves it as it is.

    `capital`, in whole dong, is that of the one account (None: a billion), or of each symbol's (None: 100 million);
    `traded_share` the largest fraction of a day's volume that one order may be (None: the basket's own, else no limit);
    `index` a table `date, close` [points] to show beside the accounts. On a day without a forecast everything stays;
    the test ends `HORIZON` trading days after the last origin, or with the prices. Raises ConfigError, DataError.
    """
    traded_share = convert(SHARE | None, traded_share, "traded_share")
    forecast, market = on_market(forecast, prices, rules, family=family)
    if isinstance(strategy, Basket):
        rule, name = BasketRule(*scores_of(forecast, market), [strategy], market.rules), repr(strategy)
        traded_share = strategy.traded_share if traded_share is None else traded_share
    elif callable(strategy):
        name = getattr(strategy, "__name__", repr(strategy))
        rule = _own_rule(strategy, name, forecast, market)
    elif strategy == LONG_FLAT:
        mean = forecast.pivot(index="date", columns="symbol", values="mean")
        mean = mean.reindex(market.days, columns=market.symbols).ffill().to_numpy()
        rule, name = _while(mean > 0), LONG_FLAT
    else:
        raise ConfigError(f"strategy = {strategy!r}: must be a Basket, a function or {LONG_FLAT!r}."
                          f"{did_you_mean(str(strategy), [LONG_FLAT])}")
    capital = (1e8 if name == LONG_FLAT else 1e9) if capital is None else capital
    return account_of(forecast, market, rule, capital, name, traded_share=traded_share, index=index)


def on_market(forecast: pd.DataFrame, prices: "pd.DataFrame | MarketData", rules: MarketRules = VN_RULES, *,
              family: str | None = None) -> tuple[pd.DataFrame, MarketData]:
    """The checked rows of one family, and the market from their first day to `HORIZON` days after their last."""
    forecast = check_forecast(forecast)
    families = list(forecast["family"].unique())
    family = family or (families[0] if len(families) == 1 else ENSEMBLE)
    if family not in families:
        raise ConfigError(f"the forecast has no family {family!r}.{did_you_mean(family, families)} "
                          "Choose one with family=.")
    forecast = forecast[forecast["family"] == family]
    market = prices if isinstance(prices, MarketData) else MarketData.of(prices, rules)
    days, origins, symbols = market.days, pd.DatetimeIndex(forecast["date"].unique()), forecast["symbol"].unique()
    advice = "Backtest with the prices that were forecast."
    if missing := sorted(set(symbols) - set(market.symbols)):
        raise DataError(f"prices: no rows of {name_a_few(missing)}.{did_you_mean(missing[0], market.symbols)} {advice}")
    if unknown := [f"{day:%Y-%m-%d}" for day in origins[days.get_indexer(origins) < 0]]:
        raise DataError(f"prices: no rows of {name_a_few(sorted(unknown))}, which the forecast has. {advice}")
    first, last = days.get_indexer([origins.min(), origins.max()])
    if first == len(days) - 1:
        raise DataError(f"prices end {days[-1]:%Y-%m-%d}, the first day of the forecast: no day to trade on. "
                        "Backtest with later prices.")
    return forecast, market.cut(symbols, first, min(last + HORIZON + 1, len(days)))


def scores_of(forecast: pd.DataFrame, market: MarketData) -> tuple[np.ndarray, np.ndarray]:
    """`[days, 1, symbols]` float32, twice: score and edge; NaN without a forecast or a trade that day."""
    table = forecast.pivot(index="date", columns="symbol", values=["score", "edge"])
    score, edge = (table[name].reindex(market.days, columns=market.symbols).where(market.trades)
                   .to_numpy("float32")[:, None] for name in ("score", "edge"))
    return score, edge


def account_of(forecast: pd.DataFrame, market: MarketData, rule: Rule, capital: float, strategy: str, *,
               traded_share: float | None = None, index: pd.DataFrame | None = None) -> Backtest:
    """What a rule did on a market, with its ledgers; all symbols in one account, unless `strategy` is `long_flat`."""
    if not 1 <= capital <= MOST_CAPITAL:
        raise ConfigError(f"capital = {capital!r}: must be positive, at most {MOST_CAPITAL:.0e} [VND].")
    capital, is_common = float(np.floor(capital)), strategy != LONG_FLAT
    book = trade(market, rule, capital, is_common=is_common, traded_share=traded_share, record=True)
    hold = trade(market, _while(np.ones(market.open.shape, dtype=bool)), capital, is_common=False,
                 traded_share=None if is_common else traded_share).worth
    equity = pd.DataFrame({"strategy": book.worth.mean(axis=1), "buy_and_hold": hold.mean(axis=1)}, index=market.days)
    if index is not None:
        equity["index"] = _index_value(index, market.days, capital)
    fills, place, day = book.fills, *(book.fills[name].astype(int) for name in ("place", "day"))
    basis, change = market.basis[day, place], np.sign(fills["change"])
    quote, price = (np.where(basis == 1, fills[name], (fills[name] * basis).round(2)) for name in ("quote", "price"))
    orders = pd.DataFrame({
        "symbol": market.symbols[place], "date": market.days[day], "side": np.where(change > 0, "buy", "sell"),
        "shares": (fills["change"].abs() / basis).round().astype("int64"), "at": fills["at"], "quote": quote,
        "price": price, **fills[["amount", "cost"]], "cash": -change * fills["amount"] - fills["cost"],
    }).sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    cash = pd.DataFrame(book.cash, market.days, ["account"] if is_common else market.symbols)
    shares = pd.DataFrame(book.shares[:, 0] / market.basis, market.days, market.symbols).round().astype("int64")
    return Backtest(forecast["family"].iloc[0], strategy, capital, market.rules, equity,
                    _symbols(orders, book.shares[:, 0], hold, market, capital), orders, cash, shares, market)


def _while(wanted: np.ndarray) -> Rule:
    """Accounts of their own that are wholly in shares while `wanted [days, symbols]`."""
    def rule(day: int, accounts: Accounts) -> Orders:
        enter = np.flatnonzero(wanted[day] & ~accounts.is_held)
        return np.flatnonzero(accounts.is_held & ~wanted[day]), enter, np.ones(len(enter))

    return rule


def _own_rule(strategy: Strategy, name: str, forecast: pd.DataFrame, market: MarketData) -> Rule:
    """A person's function as a rule. Raises ConfigError where it fails, and for weights that are none."""
    known = forecast.drop(columns="actual", errors="ignore")  # a stored forecast has the outcomes beside it
    rows = {day: part.reset_index(drop=True) for day, part in known.groupby("date")}

    def rule(day: int, accounts: Accounts) -> Orders:
        today, is_held = market.days[day], accounts.is_held
        if today not in rows:
            return np.empty(0, dtype=int), np.empty(0, dtype=int), np.empty(0)
        value = dong(accounts.shares[is_held] * market.close[day, is_held])
        where = f"strategy {name}, {today:%Y-%m-%d}"
        try:
            answer = strategy(rows[today].copy(), pd.Series(value / accounts.worth[0], market.symbols[is_held]))
        except VnqError:
            raise
        except Exception as error:
            raise ConfigError(f"{where}: it raised {type(error).__name__}: {error}. It is called with a day's rows of "
                              "the forecast and with what is held.") from error
        weight = _checked_weights(answer, where, market.symbols)
        enter = np.flatnonzero((weight > 0) & ~is_held)
        enter = enter[np.argsort(-weight[enter], kind="stable")]
        return np.flatnonzero(is_held & ~(weight > 0)), enter, weight[enter]

    return rule


def _checked_weights(answer: "pd.Series | Mapping[str, float]", where: str, symbols: np.ndarray) -> np.ndarray:
    """`[symbols]`: target weights. Raises ConfigError for any that are none."""
    is_table = isinstance(answer, (pd.Series, Mapping))
    given, what = pd.Series(answer if is_table else {}, dtype="object"), ""
    weight = pd.to_numeric(given, errors="coerce").astype("float64")
    unknown, wrong = given.index[~given.index.isin(symbols)], weight.index[~weight.between(0, 1)]
    if not is_table:
        what = f"it returned a {type(answer).__name__}."
    elif given.index.has_duplicates:
        what = "it returned a symbol twice."
    elif len(unknown):
        what = f"the forecast has no symbol {unknown[0]!r}.{did_you_mean(str(unknown[0]), symbols)}"
    elif len(wrong):
        what = f"the weight of {wrong[0]} is {given[wrong[0]]!r}."
    elif weight.sum() > 1 + 1e-6:
        what = f"the weights sum to {weight.sum():.7g}."
    if what:
        raise ConfigError(f"{where}: {what} Return weights by symbol, from 0 to 1, with a sum of at most 1.")
    return weight.reindex(symbols, fill_value=0.0).to_numpy()


def _index_value(index: pd.DataFrame, days: pd.DatetimeIndex, capital: float) -> np.ndarray:
    """`[days]`: the capital, had it moved as the market index [VND]."""
    if not {"date", "close"} <= set(index.columns) or index["date"].duplicated().any():
        raise DataError(f"index: columns {list(index.columns)}, {len(index)} rows. It needs date and close, one row a "
                        "day; load_index reads it.")
    close = index.set_index("date")["close"].astype("float64").sort_index()
    close = close[np.isfinite(close) & (close > 0)].reindex(days, method="ffill").to_numpy()
    if np.isnan(close[0]):
        raise DataError(f"index: no close on or before {days[0]:%Y-%m-%d}, the first day of the forecast.")
    return capital * close / close[0]


def _symbols(orders: pd.DataFrame, shares: np.ndarray, hold: np.ndarray, market: MarketData,
             capital: float) -> pd.DataFrame:
    """One row per symbol: the capital with what its own orders and holdings brought."""
    place = market.days.get_indexer(orders["date"]), pd.Index(market.symbols).get_indexer(orders["symbol"])
    flow = np.zeros(shares.shape)
    np.add.at(flow, place, orders["cash"].to_numpy("float64"))
    value = capital + flow.cumsum(axis=0) + dong(np.nan_to_num(shares * market.close))
    return pd.DataFrame({
        "symbol": market.symbols, "return": value[-1] / capital - 1, "sharpe": sharpe(value[1:] / value[:-1] - 1),
        "max_drawdown": max_drawdown(value),
        "n_trades": np.bincount(place[1][orders["side"] == "buy"], minlength=len(market.symbols)),
        "buy_and_hold_return": hold[-1] / capital - 1})
