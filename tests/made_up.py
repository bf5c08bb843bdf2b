"""A made-up order and basket whose numbers are written out, for the tests of pictures, cards and the report."""

import types

import numpy as np
import pandas as pd

from vnq_colab.data.market import VN_RULES
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.basket_result import BasketResult
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.evaluation.order import Order

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE")


def order_of(symbols=SYMBOLS, families=("stockformer", "momentum", "zero"), days=None):
    """The order of these symbols: 0.05 in 2023 and -0.01 in 2024 of the first family, less of the others."""
    days = pd.bdate_range("2023-06-01", periods=200) if days is None else days
    whole = pd.DataFrame({"family": families, "period": "all", "n_days": len(days), "close": 0.06, "close_t": 5.0,
                          "open": 0.05 / np.arange(1, len(families) + 1), "open_t": 4.0, "positive": 0.6})
    years = pd.concat([whole.assign(period=str(year), open=value, low=value - 0.02, high=value + 0.02)
                       for year, value in ((2023, 0.05), (2024, -0.01))], ignore_index=True)
    groups = pd.DataFrame([("exchange", "HOSE", 200, 0.05, 4.0), ("horizon", "1", 200, 0.04, 8.0),
                           ("horizon", "5", 200, 0.05, 5.0), ("without", "all four", 200, 0.03, 3.0)],
                          columns=["group", "name", "n_days", "value", "t"])
    value = np.array([-0.004, -0.001, 0.0, 0.001, 0.005])
    quantiles = pd.DataFrame({"quantile": range(1, 6), "n_days": 200, "excess": value, "low": value - 0.001,
                              "high": value + 0.001})
    table = pd.DataFrame({"symbol": symbols, "n_days": 200, "place": np.linspace(0.1, -0.1, len(symbols)),
                          "place_error": 0.03, "traded_value": 5e9, "locked": 0.02})
    daily = pd.DataFrame(0.05, index=days, columns=list(families))
    return Order(families[0], whole, years, daily, groups, quantiles, 0.004, 0.4,
                 pd.DataFrame({"lag": [1, 5, 20], "value": [0.7, 0.4, 0.2]}), 0.9, 0.1, table)


def verdict_of(symbols=SYMBOLS, decision="accept", **summary):
    """The first symbol is accepted, the others are not; the market is what is asked for."""
    gate = {"gate": "order", "asked": "a rank correlation above 0", "measured": 0.05, "low": 0.03, "high": 0.07,
            "needed": 0.0, "passed": True}
    decisions = dict(zip(symbols, ["accept", *["reject"] * (len(symbols) - 1)], strict=True))
    found = {name: {"decision": said, "reasons": [f"Because of {name}."],
                    "gates": [gate | {"gate": "has_skill", "passed": said == "accept"}]}
             for name, said in decisions.items()}
    about = {"text": "The market is accepted. One of five.", "decisions": {}, "families": [], "by_year": [],
             "basket": None, "power": {"0.00": 0.01, "0.04": 0.97}, "confidence_set": ["stockformer"],
             "evaluations": {"n_trials": 2, "text": "Charged for 2."}, "previous": None, "leak_checks": None,
             "original": {"n_pass": 1, "coin_pass_share": 0.004, "buy_and_hold_pass_share": None},
             "settings": {"folds": 2, "slippage": 0.002}}
    return Verdict("run1", "honest", about | summary,
                   {"decision": decision, "reasons": ["The reason."], "gates": [gate]}, found)


def scores_of(family="stockformer", symbols=SYMBOLS):
    """Accuracies from 50 to 54 %, ±10 %, beside a base rate of 52 %; all else 0.05."""
    table = pd.DataFrame({"family": family, "symbol": symbols, "n_days": 200, "n_directed": 190, "n_independent": 38,
                          "accuracy": np.linspace(0.5, 0.54, len(symbols)), "base_rate": 0.52})
    return table.assign(accuracy_low=table["accuracy"] - 0.1, accuracy_high=table["accuracy"] + 0.1, rmse_5=0.05,
                        rmse_day=0.05)


def rows_of(n_days=80, n_known=75):
    """Forecasts of 1 % within ±5 %, of which 2 % came; those of the last days are still open."""
    days = pd.bdate_range("2024-01-01", periods=n_days)
    table = pd.MultiIndex.from_product([("stockformer",), SYMBOLS, days],
                                       names=["family", "symbol", "date"]).to_frame(index=False)
    table = table.assign(mean=np.log(1.01), p_up=0.6, low=np.log(0.95), high=np.log(1.05), actual=np.log(1.02))
    place = pd.factorize(table["symbol"])[0]  # AAA is the best, and gains 1 % a week over EEE's loss of 1 %
    table = table.assign(score=-place, actual_open=0.01 - 0.005 * place)
    return table, table[table["date"] <= days[n_known - 1]]


def orders_of(symbol):
    """A stock bought on a Tuesday and sold a week later, as of `Backtest.orders`."""
    days = pd.to_datetime(["2024-03-12", "2024-03-19"])
    return pd.DataFrame({"symbol": symbol, "date": days, "side": ["buy", "sell"]})


def trades_of():
    """A basket that traded AAA and BBB at a price of 12,500."""
    days = pd.bdate_range("2024-01-01", periods=80)
    market = types.SimpleNamespace(days=days, symbols=np.array(SYMBOLS), close=np.full((80, 5), 12_500.0))
    return types.SimpleNamespace(market=market, orders=pd.concat([orders_of("AAA"), orders_of("BBB")]))


def basket_of(value=None, universe=None):
    """A basket with an alpha of 20 % a year among 100 random ones; by default it gains 1 % a month for two years."""
    days = pd.bdate_range("2023-01-02", periods=500 if value is None else len(value))
    own = 1e9 * 1.01 ** (np.arange(500) // 21) if value is None else np.array(value)
    equity = pd.DataFrame({"basket": own, "equal_weighted": own ** 0.5 if universe is None else universe}, index=days)
    totals = pd.DataFrame({"yearly": [0.3, 0.1], "sharpe": [1.5, 0.5], "max_drawdown": 0.3,
                           "last_12_months": 0.1}, index=equity.columns)
    years = pd.DataFrame({"year": [2023, 2024], "basket": [0.2, 0.4], "equal_weighted": 0.1, "index": np.nan,
                          "excess": [0.1, 0.3], "max_drawdown": 0.2})
    capacity = pd.DataFrame({"capital": [1e9, 1e11], "yearly": [0.3, 0.1], "alpha": [0.2, 0.0], "alpha_t": [4.0, 0.0],
                             "unfilled": [0.0, 0.4]})
    chosen = pd.DataFrame({"fold": [1, 2], "first": ["2023-01-02", "2024-01-02"], "last": "", "k": 10,
                           "keep": [20, 30]})
    trades = types.SimpleNamespace(orders=orders_of("AAA"), rules=VN_RULES)
    return BasketResult(
        basket=Basket(), chosen=chosen, capital=1e9, equity=equity, totals=totals, returns=equity.pct_change(),
        alpha=0.2, alpha_t=4.0, alpha_p=1e-4, excess=0.2, excess_t=3.5, information_ratio=1.2,
        random=np.linspace(-0.3, 0.1, 100), beaten=1.0, turnover=30.0, cost=0.15, exposure=0.9, n_vanished=2,
        haircut=3.1e6, break_even=0.006, capacity=capacity, by_year=years, by_hold_days=pd.DataFrame(), trades=trades)
