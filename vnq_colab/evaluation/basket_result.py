"""The basket judged: after all costs, beside the equal-weighted universe, the index and random baskets.

Axes: days, strategies, symbols.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.data.splits import Splits, to_day
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.backtest import Backtest, account_of, on_market, scores_of
from vnq_colab.evaluation.basket import Basket, BasketRule, RandomRule
from vnq_colab.evaluation.engine import Market, trade
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.evaluation.significance import TRADING_DAYS, alpha_test, hac_t

CAPITALS = (1e9, 1e10, 1e11)  # [VND] for which the capacity is told
AT_ONCE = 1000  # strategies in memory; so many are worth one call for each day
FEWEST_VALID_DAYS = 250  # a year; with fewer the default basket is taken
# chosen: places and ranks as shares of the universe, so that 102 stocks give k 5 to 20 and keep 10 to 40
HOLD_DAYS = (3, 5, 10, 20, 40)  # [trading days] at least, to see what trading less often would keep
K_SHARES, KEEP_SHARES = (0.05, 0.075, 0.1, 0.15, 0.2), (0.1, 0.15, 0.2, 0.3, 0.4)


@dataclass(frozen=True, repr=False)
class BasketResult:
    """What the basket did on the test days. Alpha: the intercept of its daily returns on the equal-weighted universe's.

    That universe is the mean of the daily returns of all stocks that are present, rebalanced daily and without costs.
    """

    basket: Basket  # the rule of the last fold: orders follow it
    chosen: pd.DataFrame  # fold, first, last (its test days), k, keep
    capital: float  # [VND]
    equity: pd.DataFrame  # by date [VND]: basket, equal_weighted, index (where there is one), buy_and_hold
    totals: pd.DataFrame  # by column of equity: yearly, volatility, sharpe, max_drawdown, last_12_months [fraction]
    returns: pd.DataFrame  # by date: daily simple returns of the columns of equity
    alpha: float  # [fraction a year]
    alpha_t: float  # HAC, 10 lags
    alpha_p: float  # one-sided
    excess: float  # [fraction a year] mean daily return less the universe's
    excess_t: float
    information_ratio: float
    random: np.ndarray  # [baskets] alpha of random baskets of the same turnover
    beaten: float  # share of them with a smaller alpha
    turnover: float  # a year, one-sided: how often the account is exchanged
    cost: float  # [fraction of the account a year] fees, tax, slippage
    break_even: float  # [fraction of the price, each side] slippage at which alpha would be 0; NaN where none is
    capacity: pd.DataFrame  # capital [VND], yearly, alpha, alpha_t, unfilled [share of what was to be held]
    by_year: pd.DataFrame  # year, basket, equal_weighted, index, excess, max_drawdown [fraction]
    trades: Backtest
    market: Market
    seldom: pd.DataFrame = field(default_factory=pd.DataFrame)  # hold_days, yearly, alpha, alpha_t: held longer

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        names = ("capital", "alpha", "alpha_t", "alpha_p", "excess", "excess_t", "information_ratio", "beaten",
                 "turnover", "cost", "break_even")
        tables = {"totals": self.totals.rename_axis("name").reset_index(), "by_year": self.by_year,
                  "capacity": self.capacity, "chosen": self.chosen, "seldom": self.seldom}
        plain = {name: getattr(self.basket, name) for name in ("k", "keep", "hold_days", "traded_share")}
        plain |= {name: _plain(getattr(self, name)) for name in names}
        plain |= {name: [{key: _plain(value) for key, value in row.items()} for row in table.to_dict("records")]
                  for name, table in tables.items()}
        return plain | {"n_random": len(self.random), "sharpe": _plain(self.totals.loc["basket", "sharpe"])}

    def __repr__(self) -> str:
        ours, all_ = self.totals.loc["basket"], self.totals.loc["equal_weighted"]
        return (f"Basket of {self.basket.k}, sold below rank {self.basket.keep}, {self.equity.index[0]:%Y-%m-%d} to "
                f"{self.equity.index[-1]:%Y-%m-%d}, {self.capital:,.0f} VND, after costs of {self.cost:.1%} a year: "
                f"{ours['yearly']:+.1%} a year, equal-weighted universe {all_['yearly']:+.1%}; alpha {self.alpha:+.1%} "
                f"(t {self.alpha_t:.1f}), above {self.beaten:.1%} of {len(self.random):,} random baskets, turnover "
                f"{self.turnover:.0f} a year, break-even slippage {self.break_even:.2%}")


def evaluate_basket(forecast: pd.DataFrame, prices: pd.DataFrame, rules: MarketRules = VN_RULES, *,
                    valid: pd.DataFrame | None = None, folds: "list[Splits] | None" = None,
                    basket: Basket | None = None, capital: float = 1e9, index: pd.DataFrame | None = None,
                    n_random: int = 1000, seed: int = 0) -> BasketResult:
    """Trades the basket of one family's test days in one account [VND] and measures what it was worth.

    `valid` are the same columns of validation days, with `fold`: for the test days of a fold, k and keep are chosen on
    the validation days of this fold and those before it (`choose_basket`), all of which lie before them. With `basket`,
    without `valid` and with fewer than 250 such days nothing is chosen. The rule may change from fold to fold; the
    account goes on. Random baskets make on each day as many exchanges as ours, of random stocks that have a forecast,
    in the same engine at the same costs.
    """
    if n_random < 0 or not np.isfinite(capital) or capital < 1:
        raise ConfigError(f"capital = {capital}, n_random = {n_random}: capital must be positive [VND], n_random 0 or "
                          "more.")
    share = (basket or Basket()).traded_share
    forecast, market = on_market(forecast, prices, rules, traded_share=share)
    default = (basket or Basket()).limited(len(market.symbols))
    chosen, baskets = _choice(forecast, prices, rules, None if basket else valid, folds, default, capital)
    by_day = [baskets[place] for place in _fold_of(market.days, chosen)]
    score, edge = scores_of(forecast, market)
    rule = BasketRule(score, edge, by_day, rules, by_day=True)
    trades = account_of(forecast, market, rule, rules, float(np.floor(capital)), repr(baskets[-1]), index=index)
    returns = trades.equity.rename(columns={"strategy": "basket"}).pct_change(fill_method=None).iloc[1:]
    returns.insert(1, "equal_weighted", equal_weighted(market))
    returns = returns[[name for name in ("basket", "equal_weighted", "index", "buy_and_hold") if name in returns]]
    ours, universe = returns["basket"].to_numpy(), returns["equal_weighted"].to_numpy()
    equity = pd.concat([pd.DataFrame(1.0, market.days[:1], returns.columns), (1 + returns).cumprod()]) * trades.capital
    alpha, alpha_t, alpha_p = (float(part) for part in alpha_test(ours, universe))
    random = _random_alphas(trades, np.isfinite(score[:, 0]), by_day, rules, universe, n_random, seed)

    def alpha_at(slippage: float) -> float:
        value = trade(market, rule, replace(rules, slippage=slippage), trades.capital, record=False).worth[:, 0, 0]
        return float(alpha_test(value[1:] / value[:-1] - 1, universe)[0])

    rich = BasketRule(*(np.repeat(part, len(CAPITALS), axis=1) for part in (score, edge)), by_day, rules, by_day=True)
    book = trade(market, rich, rules, np.array(CAPITALS), n_strategies=len(CAPITALS))
    value, missing = book.worth[:, :, 0], book.missing.sum(axis=0)
    test = alpha_test(value[1:] / value[:-1] - 1, universe)
    capacity = pd.DataFrame({"capital": CAPITALS, "yearly": _yearly(value), "alpha": test[0], "alpha_t": test[1],
                             "unfilled": missing / np.maximum(missing + book.held.sum(axis=(0, 2)), 1.0)})
    held = run_baskets(market, *(np.repeat(part, len(HOLD_DAYS), axis=1) for part in (score, edge)),
                       [replace(baskets[-1], hold_days=days) for days in HOLD_DAYS], rules, trades.capital)
    test = alpha_test(held[1:] / held[:-1] - 1, universe)
    seldom = pd.DataFrame({"hold_days": HOLD_DAYS, "yearly": _yearly(held), "alpha": test[0], "alpha_t": test[1]})
    gap, value = ours - universe, trades.equity["strategy"]
    spread = gap.std(ddof=1) if len(gap) > 1 else 0.0
    orders = trades.orders.groupby("date")
    paid = orders["cost"].sum() + (trades.orders["shares"] * (trades.orders["price"] - trades.orders["quote"]).abs()
                                   ).groupby(trades.orders["date"]).sum()
    traded = (orders["amount"].sum().reindex(value.index, fill_value=0.0) / value)[1:].mean()
    return BasketResult(
        baskets[-1], chosen, trades.capital, equity, _totals(equity, returns), returns, alpha, alpha_t, alpha_p,
        float(TRADING_DAYS * gap.mean()), hac_t(gap),
        float(np.sqrt(TRADING_DAYS) * gap.mean() / spread) if spread > 0 else np.nan, random,
        float((random < alpha).mean()) if len(random) else np.nan, float(TRADING_DAYS * traded / 2),
        float(TRADING_DAYS * (paid.reindex(value.index, fill_value=0.0) / value)[1:].mean()),
        _break_even(alpha_at, rules.slippage, alpha), capacity, _by_year(equity, returns), trades, market, seldom)


def run_baskets(market: Market, score: np.ndarray, edge: np.ndarray | None, basket: "Basket | list[Basket]",
                rules: MarketRules, capital: float) -> np.ndarray:
    """`[days, strategies, symbols]` × 2 -> `[days, strategies]`: what common accounts are worth at each close [VND].

    `score` (float32) is NaN where a stock is not to be bought; without `edge` there is no cost hurdle. `basket` is one
    for all strategies, or a list of one for each.
    """
    n = score.shape[1]
    worth = np.empty((len(market.days), n))
    for first in range(0, n, AT_ONCE):
        part = slice(first, min(first + AT_ONCE, n))
        rule = BasketRule(score[:, part], None if edge is None else edge[:, part],
                          [basket] if isinstance(basket, Basket) else basket[part], rules)
        worth[:, part] = trade(market, rule, rules, capital, n_strategies=part.stop - first, record=False).worth[..., 0]
    return worth


def equal_weighted(market: Market) -> np.ndarray:
    """`[days - 1]`: mean of the daily returns of all stocks that are present, a halt's return on the day it ends."""
    change = market.close[1:] / market.close[:-1] - 1
    there = np.isfinite(market.open[1:]) & np.isfinite(change)
    return np.where(there, change, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def choose_basket(alphas: np.ndarray, grid: list[Basket], default: Basket) -> Basket:
    """The basket of the grid with the highest mean of its own alpha's t and that of its neighbours in k and keep."""
    places = [sorted({getattr(basket, name) for basket in grid}) for name in ("k", "keep")]
    table = np.full([len(part) for part in places], np.nan)
    for value, basket in zip(alphas, grid, strict=True):
        table[places[0].index(basket.k), places[1].index(basket.keep)] = value
    smooth = {basket: table[max(i - 1, 0):i + 2, max(j - 1, 0):j + 2] for basket in grid
              for i, j in [(places[0].index(basket.k), places[1].index(basket.keep))]}
    means = {basket: np.nanmean(part) for basket, part in smooth.items() if np.isfinite(part).any()}
    return max(means, key=means.__getitem__) if means else default


def _choice(forecast: pd.DataFrame, prices: pd.DataFrame, rules: MarketRules, valid: pd.DataFrame | None,
            folds: "list[Splits] | None", default: Basket, capital: float) -> tuple[pd.DataFrame, list[Basket]]:
    """The table `chosen`, and the basket of each fold."""
    spans = [(split.test.first, split.test.last) for split in folds or []] or [
        (f"{forecast['date'].min():%Y-%m-%d}", f"{forecast['date'].max():%Y-%m-%d}")]
    baskets, n = [default] * len(spans), forecast["symbol"].nunique()
    if valid is not None and len(valid):
        ks, keeps = ({max(1, int(n * part)) for part in shares} for shares in (K_SHARES, KEEP_SHARES))
        grid = [replace(default, k=k, keep=keep) for k in ks for keep in keeps if keep >= k]
        grid.sort(key=lambda one: abs(np.log(one.k / default.k)) + abs(np.log(one.keep / default.keep)))  # for ties
        numbers = sorted(valid["fold"].unique())
        latest = valid.sort_values("date").drop_duplicates(["symbol", "date"]).drop(columns="fold")
        market = on_market(latest, prices, rules, traded_share=default.traded_share)[1]
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        for place, (first, _) in enumerate(spans):
            known = numbers[:place + 1] if folds else numbers
            for number in known[len(seen):]:
                rows = valid[(valid["fold"] == number) & (valid["date"] < to_day(first))]
                seen.append(_trial(rows, market, rules, grid, capital) if len(rows) else (
                    np.empty((0, len(grid))), np.empty(0)))
            ours, universe = (np.concatenate(part) for part in zip(*seen, strict=True))
            if len(universe) >= FEWEST_VALID_DAYS:
                baskets[place] = choose_basket(alpha_test(ours, universe)[1], grid, default)
    table = pd.DataFrame([{"fold": place, "first": to_day(first), "last": to_day(last), "k": basket.k,
                           "keep": basket.keep} for place, ((first, last), basket) in
                          enumerate(zip(spans, baskets, strict=True))])
    return table, baskets


def _trial(rows: pd.DataFrame, market: Market, rules: MarketRules, grid: list[Basket],
           capital: float) -> tuple[np.ndarray, np.ndarray]:
    """Daily returns `[days, grid]` of the baskets of a grid on one fold's validation days, and of the universe."""
    first, last = market.days.get_indexer([rows["date"].min(), rows["date"].max()])
    here = market.between(int(first), int(last) + 1)
    score, edge = (np.repeat(part, len(grid), axis=1) for part in scores_of(rows, here))
    value = run_baskets(here, score, edge, grid, rules, float(np.floor(capital)))
    return value[1:] / value[:-1] - 1, equal_weighted(here)


def _fold_of(days: pd.DatetimeIndex, chosen: pd.DataFrame) -> np.ndarray:
    """`[days]`: the row of `chosen` whose rule holds; days between two folds belong to the earlier."""
    return np.maximum(pd.DatetimeIndex(chosen["first"]).searchsorted(days, side="right") - 1, 0)


def _random_alphas(trades: Backtest, known: np.ndarray, by_day: list[Basket], rules: MarketRules, universe: np.ndarray,
                   n: int, seed: int) -> np.ndarray:
    """`[baskets]`: alpha of random baskets with as many exchanges as ours made on each day."""
    market, sold = trades.market, trades.orders[trades.orders["side"] == "sell"]
    left = sold.merge(trades.daily, on=["date", "symbol"], suffixes=("", "_left"))["shares_left"].to_numpy()
    closed = sold[(left == 0) & (sold["at"] != "end").to_numpy()]
    n_sold = np.bincount(market.days.get_indexer(closed["date"]) - 1, minlength=len(market.days))
    alphas = []
    for first in range(0, n, AT_ONCE):
        count = min(AT_ONCE, n - first)
        rule = RandomRule(known, n_sold, by_day, count, [seed, first])
        value = trade(market, rule, rules, trades.capital, n_strategies=count, record=False).worth[..., 0]
        alphas.append(alpha_test(value[1:] / value[:-1] - 1, universe)[0])
    return np.concatenate(alphas) if alphas else np.empty(0)


def _break_even(alpha_at: Callable[[float], float], slippage: float, alpha: float) -> float:
    """The slippage at which alpha is 0 within half a percent a year, by secants; NaN where alpha is negative without
    any slippage, or the search does not end there: fills move by lots, so alpha is not smooth."""
    points = [(slippage, alpha), (other := slippage + 0.004 if alpha > 0 else 0.0, alpha_at(other))]
    while min(abs(value) for _, value in points) > 0.005 and len(points) < 7:
        (x0, y0), (x1, y1) = points[-2:]
        if y0 == y1 or (x1 == 0 and y1 < 0):
            return float("nan")
        step = float(np.clip(x1 - y1 * (x1 - x0) / (y1 - y0), 0.0, 0.1))
        points.append((step, alpha_at(step)))
    best = min(points, key=lambda point: abs(point[1]))
    return best[0] if abs(best[1]) < 0.02 else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}"
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _yearly(value: np.ndarray) -> np.ndarray:
    """`[days, ...] -> [...]`: compound return a year [fraction]."""
    return (value[-1] / value[0]) ** (TRADING_DAYS / (len(value) - 1)) - 1


def _totals(equity: pd.DataFrame, returns: pd.DataFrame) -> pd.DataFrame:
    """A row per column of equity; `last_12_months` are the last 250 days."""
    value, recent = equity.to_numpy(), equity.to_numpy()[-TRADING_DAYS - 1:]
    return pd.DataFrame({
        "yearly": _yearly(value), "volatility": np.sqrt(TRADING_DAYS) * returns.std(ddof=1).to_numpy(),
        "sharpe": sharpe(returns.to_numpy()), "max_drawdown": max_drawdown(value),
        "last_12_months": recent[-1] / recent[0] - 1}, index=equity.columns)


def _by_year(equity: pd.DataFrame, returns: pd.DataFrame) -> pd.DataFrame:
    """What each calendar year brought."""
    rows = []
    for year, part in returns.groupby(returns.index.year):
        total = (1 + part).prod() - 1
        value = equity["basket"].loc[:part.index[-1]].to_numpy()[-len(part) - 1:]
        rows.append({"year": int(year), "basket": total["basket"], "equal_weighted": total["equal_weighted"],
                     "index": total.get("index", np.nan), "excess": total["basket"] - total["equal_weighted"],
                     "max_drawdown": float(max_drawdown(value))})
    return pd.DataFrame(rows)
