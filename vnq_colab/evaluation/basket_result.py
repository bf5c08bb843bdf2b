"""The basket judged: after all costs, beside the equal-weighted universe, the index and random baskets.

Axes: days, strategies, symbols.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.data.splits import Splits, to_day
from vnq_colab.evaluation.backtest import Backtest, account_of, on_market, scores_of
from vnq_colab.evaluation.basket import Basket, BasketRule, RandomRule
from vnq_colab.evaluation.engine import trade
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.evaluation.significance import TRADING_DAYS, alpha_test, hac_t

CAPITALS = (1e9, 1e10, 1e11)  # [VND] of the table `capacity`
HOLD_DAYS = (3, 5, 10, 20, 40)  # [trading days] at least, of the table `by_hold_days`
FEWEST_VALID_DAYS = 250  # a year; with fewer the default basket is taken
FEWEST_YEARLY_DAYS = 60  # chosen: with fewer a week would decide the sign of a yearly number
YEARLY = ("yearly", "sharpe", "alpha", "alpha_t", "alpha_p", "excess", "information_ratio", "turnover", "cost",
          "break_even")  # NaN with fewer days
# chosen: places and ranks as shares of the universe, so that 102 stocks give k 5 to 20 and keep 10 to 40
K_SHARES, KEEP_SHARES = (0.05, 0.075, 0.1, 0.15, 0.2), (0.1, 0.15, 0.2, 0.3, 0.4)


@dataclass(frozen=True, repr=False)
class BasketResult:
    """What the basket did on the test days. Alpha: the intercept of its daily returns on the equal-weighted universe's.

    That universe is the mean of the daily returns of all stocks that are present, rebalanced daily and without costs; a
    stock that has vanished costs it the same haircut. With fewer than 60 days what YEARLY lists is NaN.
    """

    basket: Basket  # the rule of the last fold: orders follow it
    chosen: pd.DataFrame  # fold, first, last (its test days), k, keep
    capital: float  # [VND]
    equity: pd.DataFrame  # by date [VND]: basket, equal_weighted, buy_and_hold, index (where there is one)
    totals: pd.DataFrame  # by column of equity: yearly, sharpe, max_drawdown, last_12_months [fraction]
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
    exposure: float  # [fraction of the account] in shares, mean over the days
    n_vanished: int  # positions in stocks that left the market for ever
    haircut: float  # [VND] what those lost below their last close
    break_even: float  # [fraction of the price, each side] slippage at which alpha would be 0; NaN where none is
    capacity: pd.DataFrame  # capital [VND], yearly, alpha, alpha_t, unfilled [share of what was to be held]
    by_year: pd.DataFrame  # year, basket, equal_weighted, index, excess, max_drawdown [fraction]
    by_hold_days: pd.DataFrame  # hold_days, yearly, alpha, alpha_t: purchases stay at least so long
    trades: Backtest

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a file."""
        chosen = self.chosen.assign(first=self.chosen["first"].astype(str), last=self.chosen["last"].astype(str))
        tables = {"totals": self.totals.rename_axis("name").reset_index(), "by_year": self.by_year,
                  "capacity": self.capacity, "chosen": chosen, "seldom": self.by_hold_days}
        plain = {name: records(table) for name, table in tables.items()}
        numbers = {name: value for name, value in vars(self).items() if isinstance(value, float)}
        plain |= records(pd.DataFrame([numbers]))[0]
        return plain | vars(self.basket) | {"n_random": len(self.random), "n_vanished": self.n_vanished,
                                            "sharpe": plain["totals"][0]["sharpe"]}

    def __repr__(self) -> str:
        days, yearly = self.equity.index, self.totals["yearly"]
        head = (f"Basket of {self.basket.k}, sold below rank {self.basket.keep}, {days[0]:%Y-%m-%d} to "
                f"{days[-1]:%Y-%m-%d}, {self.capital:,.0f} VND")
        if (n_rules := len(self.chosen[["k", "keep"]].drop_duplicates())) > 1:
            head += f" (the last of {n_rules} rules, each chosen on the validation days before)"
        if len(self.returns) < FEWEST_YEARLY_DAYS:
            return f"{head}: {len(self.returns)} days, {FEWEST_YEARLY_DAYS} are needed for numbers a year"
        return (f"{head}, after costs of {self.cost:.1%} a year: {yearly['basket']:+.1%} a year, equal-weighted "
                f"universe {yearly['equal_weighted']:+.1%}; alpha {self.alpha:+.1%} (t {self.alpha_t:.1f}), above "
                f"{self.beaten:.1%} of {len(self.random):,} random baskets, turnover {self.turnover:.0f} a year, "
                f"break-even slippage {self.break_even:.2%}"
                + f"; {self.n_vanished} held in vanished stocks lost {self.haircut:,.0f} VND" * (self.n_vanished > 0))


def evaluate_basket(forecast: pd.DataFrame, prices: "pd.DataFrame | MarketData", rules: MarketRules = VN_RULES, *,
                    valid: pd.DataFrame | None = None, folds: "list[Splits] | None" = None,
                    basket: Basket | None = None, capital: float = 1e9, index: pd.DataFrame | None = None,
                    n_random: int = 1000, seed: int = 0) -> BasketResult:
    """Trades the basket of one family's test days in one account [VND] and measures what it was worth.

    `prices` as in `backtest`. `valid` are the same columns of the validation days of `folds`, with `fold`: k and keep
    of a fold's test days are chosen on the validation days of it and those before; with `basket`, without `valid` and
    with fewer than 250 such days nothing is chosen. The rule may change from fold to fold; the account goes on. Random
    baskets exchange as many stocks as ours on each day, of those that have a forecast.
    """
    everything = prices if isinstance(prices, MarketData) else MarketData.of(prices, rules)
    forecast, market = on_market(forecast, everything)
    spans = [(to_day(split.test.first), to_day(split.test.last)) for split in folds or []] or [
        (forecast["date"].min(), forecast["date"].max())]
    firsts, baskets = [first for first, _ in spans], [(basket or Basket()).limited(len(market.symbols))] * len(spans)
    if valid is not None and len(valid) and not basket:
        baskets = _choose(valid, everything, firsts, baskets[0], len(market.symbols), float(np.floor(capital)))
    fold = pd.DatetimeIndex(firsts).searchsorted(market.days, side="right") - 1
    by_day = [baskets[max(place, 0)] for place in fold]  # on days between two folds the earlier one's
    score, edge = scores_of(forecast, market)
    rule = BasketRule(score, edge, by_day, market.rules, by_day=True)
    trades = account_of(forecast, market, rule, capital, repr(baskets[-1]), traded_share=rule.traded_share, index=index)
    returns = trades.equity.rename(columns={"strategy": "basket"}).pct_change(fill_method=None).iloc[1:]
    returns.insert(1, "equal_weighted", equal_weighted(market))
    equity = pd.concat([pd.DataFrame(1.0, market.days[:1], returns.columns), (1 + returns).cumprod()]) * trades.capital
    universe = returns["equal_weighted"].to_numpy()
    alpha, alpha_t, alpha_p = map(float, alpha_test(returns["basket"], universe))
    random = _random_alphas(trades, np.isfinite(score[:, 0]), by_day, universe, n_random, seed)
    numbers = {"alpha": alpha, "alpha_t": alpha_t, "alpha_p": alpha_p, **_numbers(trades, returns),
               "beaten": float((random < alpha).mean()) if n_random else np.nan,
               "break_even": _break_even(market, rule, trades.capital, universe, alpha)}
    longer = [replace(baskets[-1], hold_days=days) for days in HOLD_DAYS]
    tables = {"totals": _totals(equity, returns), "capacity": _capacity(market, rule, universe),
              "by_hold_days": pd.DataFrame({"hold_days": HOLD_DAYS, **_a_year(
                  run_baskets(market, score, edge, longer, trades.capital), universe)})}
    if len(returns) < FEWEST_YEARLY_DAYS:
        numbers |= dict.fromkeys(numbers.keys() & YEARLY, np.nan)
        tables = {name: table.assign(**dict.fromkeys(table.columns.intersection(YEARLY), np.nan))
                  for name, table in tables.items()}
    chosen = pd.DataFrame([{"fold": place, "first": first, "last": last, "k": one.k, "keep": one.keep}
                           for place, ((first, last), one) in enumerate(zip(spans, baskets, strict=True))])
    return BasketResult(basket=baskets[-1], chosen=chosen, capital=trades.capital, equity=equity, returns=returns,
                        random=random, by_year=_by_year(equity, returns), trades=trades, **numbers, **tables)


def run_baskets(market: MarketData, score: np.ndarray, edge: np.ndarray | None, baskets: list[Basket],
                capital: float) -> np.ndarray:
    """`[days, strategies, symbols]` × 2 -> `[days, strategies]`: what common accounts are worth at each close [VND].

    `score` (float32) is NaN where a stock is not to be bought; without `edge` there is no cost hurdle. There is one
    basket, or one score, or of both one for each strategy.
    """
    rule = BasketRule(score, edge, baskets, market.rules)
    n = len(baskets) if len(baskets) > 1 else score.shape[1]
    return trade(market, rule, capital, n_strategies=n, traded_share=rule.traded_share).worth


def equal_weighted(market: MarketData) -> np.ndarray:
    """`[days - 1]`: mean of the daily returns of all stocks that are present, a halt's return on the day it ends.

    On the day after its last one a vanished stock loses `rules.delisting_haircut`.
    """
    change = market.close[1:] / market.close[:-1] - 1
    ends = np.arange(1, len(market.days))[:, None] == market.ends
    change = np.where(ends, -market.rules.delisting_haircut, change)
    there = (ends | np.isfinite(market.open[1:])) & np.isfinite(change)
    return np.where(there, change, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def choose_basket(alphas: np.ndarray, grid: list[Basket], default: Basket) -> Basket:
    """The basket of the grid with the highest mean of its own alpha's t and that of its neighbours in k and keep."""
    axes = [sorted({getattr(basket, name) for basket in grid}) for name in ("k", "keep")]
    place = np.array([[axes[0].index(basket.k), axes[1].index(basket.keep)] for basket in grid])
    near = (np.abs(place[:, None] - place) <= 1).all(axis=2) & np.isfinite(alphas)  # [grid, grid]
    means = np.where(near, alphas, 0).sum(axis=1) / np.where(near.any(axis=1), near.sum(axis=1), np.nan)
    return grid[np.nanargmax(means)] if near.any() else default


def _choose(valid: pd.DataFrame, market: MarketData, firsts: list[pd.Timestamp], default: Basket,
            n_symbols: int, capital: float) -> list[Basket]:
    """The basket of each fold, whose test days begin with `firsts`, from its validation days and earlier ones."""
    market = market.cut(np.sort(valid["symbol"].unique()), 0, len(market.days))
    ks, keeps = ({max(1, int(n_symbols * part)) for part in shares} for shares in (K_SHARES, KEEP_SHARES))
    grid = [replace(default, k=k, keep=keep) for k in ks for keep in keeps if keep >= k]
    grid.sort(key=lambda one: abs(np.log(one.k / default.k)) + abs(np.log(one.keep / default.keep)))  # for ties
    baskets, ours, universe = [], np.empty((0, len(grid))), np.empty(0)  # daily returns [days, grid], [days]
    for number, first in enumerate(firsts):
        rows = valid[(valid["fold"] == number) & (valid["date"] < first)]
        if len(rows):
            start, last = market.days.get_indexer([rows["date"].min(), rows["date"].max()])
            here = market.cut(market.symbols, start, last + 1)
            value = run_baskets(here, *scores_of(rows, here), grid, capital)
            ours = np.concatenate([ours, value[1:] / value[:-1] - 1])
            universe = np.concatenate([universe, equal_weighted(here)])
        enough = len(universe) >= FEWEST_VALID_DAYS
        baskets.append(choose_basket(alpha_test(ours, universe)[1], grid, default) if enough else default)
    return baskets


def _random_alphas(trades: Backtest, known: np.ndarray, by_day: list[Basket], universe: np.ndarray, n: int,
                   seed: int) -> np.ndarray:
    """`[baskets]`: alpha of random baskets with as many exchanges as ours made on each day."""
    if not n:
        return np.empty(0)
    market, held = trades.market, trades.shares.to_numpy() > 0
    closed = held[:-1] & ~held[1:] & (market.ends != np.arange(1, len(held))[:, None])
    value = trade(market, RandomRule(known, closed.sum(axis=1), by_day, n, [seed, 0]), trades.capital, n_strategies=n,
                  traded_share=by_day[0].traded_share).worth
    return alpha_test(value[1:] / value[:-1] - 1, universe)[0]


def _capacity(market: MarketData, rule: BasketRule, universe: np.ndarray) -> pd.DataFrame:
    """The basket in accounts of other sizes."""
    book = trade(market, rule, np.array(CAPITALS), n_strategies=len(CAPITALS), traded_share=rule.traded_share,
                 record=True)
    missing, held = book.missing.sum(axis=0), (book.worth - book.cash).sum(axis=0)
    return pd.DataFrame({"capital": CAPITALS, **_a_year(book.worth, universe),
                         "unfilled": missing / np.maximum(missing + held, 1.0)})


def _break_even(market: MarketData, rule: BasketRule, capital: float, universe: np.ndarray, alpha: float) -> float:
    """The slippage at which alpha is 0 within half a percent a year, by secants; the cost hurdle stays what it is.

    NaN where alpha is negative without any slippage, or the search does not end: fills move by lots, so alpha is not
    smooth.
    """
    def alpha_at(slippage: float) -> float:
        there = replace(market, rules=replace(market.rules, slippage=slippage))
        value = trade(there, rule, capital, traded_share=rule.traded_share).worth[:, 0]
        return float(alpha_test(value[1:] / value[:-1] - 1, universe)[0])

    slippage = market.rules.slippage
    points = [(slippage, alpha), (other := slippage + 0.004 if alpha > 0 else 0.0, alpha_at(other))]
    while min(abs(value) for _, value in points) > 0.005 and len(points) < 7:
        (x0, y0), (x1, y1) = points[-2:]
        if y0 == y1 or (x1 == 0 and y1 < 0):
            return float("nan")
        step = float(np.clip(x1 - y1 * (x1 - x0) / (y1 - y0), 0.0, 0.1))
        points.append((step, alpha_at(step)))
    best = min(points, key=lambda point: abs(point[1]))
    return best[0] if abs(best[1]) < 0.02 else float("nan")


def _yearly(value: np.ndarray) -> np.ndarray:
    """`[days, ...] -> [...]`: compound return a year [fraction]."""
    return (value[-1] / value[0]) ** (TRADING_DAYS / (len(value) - 1)) - 1


def _a_year(value: np.ndarray, universe: np.ndarray) -> dict[str, np.ndarray]:
    """The columns yearly, alpha and alpha_t of accounts `[days, strategies]`."""
    alpha, alpha_t, _ = alpha_test(value[1:] / value[:-1] - 1, universe)
    return {"yearly": _yearly(value), "alpha": alpha, "alpha_t": alpha_t}


def _numbers(trades: Backtest, returns: pd.DataFrame) -> dict[str, float]:
    """Excess, its t and information ratio, turnover, cost, exposure, and what vanished."""
    orders, value = trades.orders, trades.equity["strategy"]
    gap = (returns["basket"] - returns["equal_weighted"]).to_numpy()
    slipped, is_end = orders["shares"] * (orders["price"] - orders["quote"]).abs(), orders["at"] == "end"
    paid = orders["cost"] + slipped.where(~is_end, 0.0)
    traded, paid = ((part.groupby(orders["date"]).sum().reindex(value.index, fill_value=0.0) / value)[1:].mean()
                    for part in (orders["amount"], paid))
    return {"excess": float(TRADING_DAYS * gap.mean()), "excess_t": hac_t(gap), "information_ratio": float(sharpe(gap)),
            "turnover": float(TRADING_DAYS * traded / 2), "cost": float(TRADING_DAYS * paid),
            "exposure": float(1 - (trades.cash["account"] / value).mean()), "n_vanished": int(is_end.sum()),
            "haircut": float(slipped[is_end].sum())}


def _totals(equity: pd.DataFrame, returns: pd.DataFrame) -> pd.DataFrame:
    """A row per column of equity; `last_12_months` are the last 250 days."""
    value = equity.to_numpy()
    recent = value[-1] / value[-TRADING_DAYS - 1] - 1 if len(returns) >= TRADING_DAYS else np.nan
    return pd.DataFrame({"yearly": _yearly(value), "sharpe": sharpe(returns.to_numpy()),
                         "max_drawdown": max_drawdown(value), "last_12_months": recent}, index=equity.columns)


def _by_year(equity: pd.DataFrame, returns: pd.DataFrame) -> pd.DataFrame:
    """What each calendar year brought."""
    by_year = (1 + returns).groupby(returns.index.year.rename("year"))
    table = (by_year.prod() - 1).reindex(columns=["basket", "equal_weighted", "index"])
    table["excess"] = table["basket"] - table["equal_weighted"]
    ends = by_year.size().cumsum().to_numpy()
    value = equity["basket"].to_numpy()
    table["max_drawdown"] = [float(max_drawdown(value[first:end + 1])) for first, end in
                             zip([0, *ends], ends, strict=False)]
    return table.reset_index()


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values; what is not known is None."""
    return table.astype(object).where(table.notna(), None).to_dict("records")
