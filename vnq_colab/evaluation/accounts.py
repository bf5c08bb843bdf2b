"""Strategies beside each other on the same days, under the same rules and costs."""

import numpy as np
import pandas as pd

from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.evaluation.backtest import MOST_CAPITAL, Backtest, backtest
from vnq_colab.evaluation.metrics import (
    calmar,
    hit_rate,
    max_drawdown,
    profit_factor,
    round_trips,
    sharpe,
    sortino,
    turnover,
)
from vnq_colab.evaluation.significance import deflated_sharpe
from vnq_colab.evaluation.strategies import Strategy

STRATEGY_COLUMNS = ("strategy", "return", "sharpe", "sortino", "max_drawdown", "calmar", "turnover", "hit_rate",
                    "profit_factor", "exposure", "n_orders", "deflated_sharpe")


def compare_strategies(forecast: pd.DataFrame, prices: pd.DataFrame, rules: MarketRules = VN_RULES, *,
                       capital: float = 100_000_000.0, position: float = 1.0, index: pd.DataFrame | None = None,
                       n_trials: int = 1, family: str | None = None) -> pd.DataFrame:
    """One row per strategy: what the mean account did on the same days, under the same rules and costs.

    Long while `mean` > 0; the k highest forecasts in one account, which has the money of all the others together; parts
    that are smaller where the forecast is wider; buy and hold; and the market index, without costs, when it is given.
    The last two know no forecast. The other arguments are those of `backtest`.

    Columns: `strategy`, its name; `return`, `max_drawdown`, `exposure`, the mean share of the money that is in shares,
    `hit_rate` of closed trades, all [fraction]; `sharpe`, `sortino`, `calmar`; `turnover` a year; `profit_factor`;
    `n_orders`; `deflated_sharpe`, the chance that the Sharpe ratio is above the best to be expected of `n_trials`
    without skill. What cannot be known is NaN.
    """
    n_symbols = forecast["symbol"].nunique()
    k = max(1, min(10, n_symbols // 3))
    plans = {"long while mean > 0": Strategy()}
    plans |= {f"the {k} highest forecasts, one account": Strategy("top_k", k=k),
              "smaller where the forecast is wider": Strategy("volatility"), "buy and hold": Strategy("buy_and_hold")}
    lines = []
    for name, strategy in plans.items():
        money = min(capital * n_symbols, MOST_CAPITAL) if strategy.is_common else capital
        result = backtest(forecast, prices, rules, capital=money, position=position, strategy=strategy, family=family,
                          index=index)
        lines.append({"strategy": name} | account_measures(result, n_trials))
    lines[-1]["deflated_sharpe"] = np.nan  # nobody chose it among others
    if index is not None:
        lines.append({"strategy": "market index, without costs"} | _of_value(result.equity["index"].to_numpy()))
    return pd.DataFrame(lines, columns=STRATEGY_COLUMNS)


def account_measures(result: Backtest, n_trials: int = 1) -> dict[str, float]:
    """All measures of `compare_strategies` for the mean account of one backtest."""
    money = result.daily.groupby("date")[["cash", "value"]].sum()  # [days] of all accounts [VND]
    traded = result.orders.groupby("date")["amount"].sum().reindex(money.index, fill_value=0.0)
    profits, value = round_trips(result.orders)["profit"], result.equity["strategy"].to_numpy()
    return _of_value(value) | {
        "turnover": float(turnover(traded, money["value"])), "hit_rate": hit_rate(profits),
        "profit_factor": profit_factor(profits), "exposure": float((1 - money["cash"] / money["value"])[1:].mean()),
        "n_orders": len(result.orders), "deflated_sharpe": float(deflated_sharpe(value[1:] / value[:-1] - 1, n_trials))}


def _of_value(value: np.ndarray) -> dict[str, float]:
    """What the value of an account by day tells alone."""
    returns = value[1:] / value[:-1] - 1
    return {"return": value[-1] / value[0] - 1, "sharpe": float(sharpe(returns)), "sortino": float(sortino(returns)),
            "max_drawdown": float(max_drawdown(value)), "calmar": float(calmar(value))}
