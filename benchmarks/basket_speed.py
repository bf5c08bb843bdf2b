"""What baskets cost: 1,000 random ones and 300 driven by scores over seven years of 102 symbols, and one judged whole.

    python benchmarks/basket_speed.py

On the synthetic market, with a forecast without skill. Prints a table and adds it to
benchmarks/results/basket_speed.csv with machine and date. tests/test_basket.py holds a slow second implementation that
the engine equals to the dong.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from machine import keep, peak_gb

from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.evaluation.backtest import backtest, on_market, scores_of
from vnq_colab.evaluation.basket import Basket, RandomRule
from vnq_colab.evaluation.basket_result import evaluate_basket, run_baskets
from vnq_colab.evaluation.engine import trade

N_SYMBOLS, N_DAYS, N_RANDOM, N_SCORED = 102, 1860, 1000, 300


def timed(stage: str, work: Callable[[], Any], rows: list[dict[str, str]]) -> Any:
    """What `work` returns; adds a row of its seconds of one core and prints it."""
    started = time.process_time()
    result = work()
    seconds = time.process_time() - started
    print(f"{stage:64} {seconds:10.2f} s, peak memory {peak_gb():.2f} GB", flush=True)
    rows.append({"stage": stage, "seconds": f"{seconds:.2f}", "peak_gb": f"{peak_gb():.2f}"})
    return result


def main() -> None:
    random, rows = np.random.default_rng(0), []
    prices = synthetic_prices(N_SYMBOLS, N_DAYS, seed=1)
    table = prices[["symbol", "date"]].assign(family="noise", scale=0.05, p_up=0.5)
    table["score"] = random.normal(0, 1, len(prices))
    table["score"] = table.groupby("symbol")["score"].transform(lambda part: part.ewm(alpha=0.2).mean())
    table = table.assign(edge=0.02 * table["score"], mean=0.02 * table["score"])
    ours = timed("one basket with its ledger", lambda: backtest(table, prices), rows)
    table, market = on_market(table, prices)
    score, _ = scores_of(table, market)
    rule = RandomRule(np.isfinite(score[:, 0]), np.ones(len(score), dtype=int), [Basket()] * len(score), N_RANDOM, 0)
    timed(f"{N_RANDOM:,} random baskets, an exchange a day",
          lambda: trade(market, rule, 1e9, n_strategies=N_RANDOM, traded_share=0.05), rows)
    many = np.repeat(score, N_SCORED, axis=1)
    timed(f"{N_SCORED} baskets driven by scores",
          lambda: run_baskets(market, many, None, Basket(), 1e9), rows)
    timed("evaluate_basket", lambda: evaluate_basket(table, prices, basket=Basket(), n_random=N_RANDOM), rows)
    what = f"{N_SYMBOLS} symbols × {len(pd.unique(prices['date']))} days, {len(ours.orders):,} orders"
    keep("basket_speed", [{"data": what} | row for row in rows])


if __name__ == "__main__":
    main()
