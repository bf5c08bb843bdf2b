"""Strategies stand beside each other on the same days, under the same rules and costs."""

import numpy as np
import pandas as pd
import pytest

from tests.tiny import forecast_of
from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.market import VN_RULES
from vnq_colab.evaluation.accounts import STRATEGY_COLUMNS, account_measures, compare_strategies
from vnq_colab.evaluation.backtest import backtest
from vnq_colab.evaluation.significance import probabilistic_sharpe
from vnq_colab.evaluation.strategies import Strategy

SYMBOLS = ("SYN001", "SYN002", "SYN003", "SYN004", "SYN005")


@pytest.fixture(scope="module")
def forecast(prices):
    """100 days of a forecaster that knows something, and is surer the more it knows."""
    random = np.random.default_rng(3)
    days = np.sort(prices["date"].unique())[300:400]
    parts = []
    for symbol in SYMBOLS:
        rows = prices[prices["symbol"] == symbol].reset_index(drop=True)
        ahead = np.log(rows["close"].shift(-HORIZON) / rows["close"])
        rows, ahead = rows[rows["date"].isin(days)], ahead[rows["date"].isin(days)]
        mean = 0.3 * ahead.to_numpy() + random.normal(0, 0.02, len(rows))
        parts.append(forecast_of(symbol, pd.DatetimeIndex(rows["date"]), mean,
                                 p_up=np.clip(0.5 + 3 * mean, 0.05, 0.95)))
    return pd.concat(parts, ignore_index=True)


def test_strategies_are_those_of_backtests_one_by_one(forecast, prices):
    index = prices.groupby("date", as_index=False)["close"].mean()
    found = compare_strategies(forecast, prices, index=index, capital=50_000_000)
    assert tuple(found.columns) == STRATEGY_COLUMNS
    assert list(found["strategy"]) == [
        "long while mean > 0", "the 1 highest forecasts, one account", "smaller where the forecast is wider",
        "buy and hold", "market index, without costs"]
    plans = [Strategy(), Strategy("top_k", k=1), Strategy("volatility")]
    for place, strategy in enumerate(plans):
        capital = 250_000_000 if strategy.is_common else 50_000_000
        result = backtest(forecast, prices, VN_RULES, capital=capital, strategy=strategy, index=index)
        for name in ("return", "sharpe", "max_drawdown"):
            assert found[name][place] == result.totals().loc["strategy", name], (strategy, name)
        assert found["n_orders"][place] == len(result.orders)
    for place, name in ((3, "buy_and_hold"), (4, "index")):
        totals = result.totals().loc[name]
        assert found["return"][place] == pytest.approx(totals["return"], abs=1e-12), name
        assert found["max_drawdown"][place] == pytest.approx(totals["max_drawdown"], abs=1e-12)
    assert found["n_orders"][3] == len(SYMBOLS) and found["deflated_sharpe"][3:].isna().all()
    assert found.loc[4, ["turnover", "hit_rate", "profit_factor", "exposure", "n_orders"]].isna().all()
    assert found["exposure"][3] > 0.9 > found["exposure"][0] > found["exposure"][2] > 0


def test_strategies_without_an_index_leave_its_row_out(forecast, prices):
    assert len(compare_strategies(forecast, prices)) == 4


def test_trials_are_charged_for(forecast, prices):
    once, often = (compare_strategies(forecast, prices, n_trials=n)["deflated_sharpe"][0] for n in (1, 50))
    value = backtest(forecast, prices).equity["strategy"].to_numpy()
    assert once == pytest.approx(float(probabilistic_sharpe(value[1:] / value[:-1] - 1))) and often < once


def test_account_measures_by_hand():
    days = pd.bdate_range("2024-01-01", periods=9)
    price = np.array([10_000.0, 10_000, 10_000, 10_000, 10_000, 12_000, 12_000, 12_000, 12_000])
    prices = pd.DataFrame({"symbol": "AAA", "date": days, "open": price, "high": price, "low": price, "close": price,
                           "volume": 10_000})
    wish = np.array([0.01, 0.01, 0.01, 0.01, 0.01, -0.01])  # bought on day 1, sold at the open of day 6
    forecast = forecast_of("AAA", days[:6], wish)
    free = VN_RULES.__class__(fee=0, sale_tax=0, slippage=0)
    found = account_measures(backtest(forecast, prices, free, capital=10_000_000))
    assert found["return"] == pytest.approx(0.2) and found["n_orders"] == 2  # 1,000 shares
    assert found["hit_rate"] == 1 and found["profit_factor"] == np.inf
    assert found["exposure"] == pytest.approx(5 / 8)  # held at the close of days 1 to 5, of days 1 to 8
    assert found["turnover"] == pytest.approx(250 * (10 / 20 + 12 / 24) / 9)  # traded over twice the account, by day
