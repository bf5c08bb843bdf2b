"""What judging 102 symbols over two years costs, and 1,000 random strategies, beside accounts in a plain Python loop.

    python benchmarks/backtest_speed.py

Score, backtest and judge of our forecast and four simple ones on the synthetic market, 500 origins of 102 symbols; and
`random_band`. The slow side trades the same wishes symbol by symbol and day by day in plain Python; it is handed the
engine's own arrays of prices and permissions, keeps no ledger, and is multiplied up to 1,000 strategies. Prints a table
and adds it to benchmarks/results/backtest_speed.csv with machine and date. Ends with an error when an account of the
two sides differs by a dong.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from machine import keep, peak_gb

from vnq_colab.data.forecast import HORIZON, check_forecast
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.panel import build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.evaluation.accounts import compare_strategies
from vnq_colab.evaluation.backtest import Backtest, backtest
from vnq_colab.evaluation.chance import random_band
from vnq_colab.evaluation.gates import judge
from vnq_colab.evaluation.metrics import score

N_SYMBOLS, N_DAYS, N_ORIGINS, N_STRATEGIES = 102, 1300, 500, 1000
SIZES = {"ensemble": 0.006, "momentum": 0.02, "majority": 0.004, "ridge": 0.004, "zero": 0.0}  # [log return]
CAPITAL = 100_000_000


def forecasts(prices: pd.DataFrame) -> pd.DataFrame:
    """Five families on the last 500 origins that have an outcome, without skill; seeded."""
    random, days = np.random.default_rng(0), np.sort(prices["date"].unique())
    judged = prices[prices["date"].isin(days[-N_ORIGINS - HORIZON : -HORIZON])]
    parts = []
    for symbol, rows in judged.groupby("symbol", sort=True):
        n = len(rows)
        for family, size in SIZES.items():
            mean = size * random.normal(0, 1, n)
            parts.append(pd.DataFrame({"family": family, "symbol": symbol, "date": rows["date"], "score": mean,
                                       "edge": mean, "mean": mean, "scale": 0.05,
                                       "p_up": np.clip(0.5 + 4 * mean, 0.01, 0.99)}))
    return check_forecast(pd.concat(parts, ignore_index=True))


def loop(result: Backtest, place: int) -> int:
    """What one account is worth at the end [VND]: its wishes traded day by day, with the rules of the engine."""
    market, rules, weight = result.trial.market, result.rules, result.trial.weight[:, place]
    ends = int(market.ends[place])
    cash, shares, free_from = CAPITAL, 0, 0

    def dong(money: float) -> int:
        return math.floor(money + 0.5 + 1e-6)

    for day in range(1, len(weight)):
        wanted = weight[day - 1] > 0
        sell_at = None
        if shares and day == ends:
            sell_at = float(market.close[day, place])
        elif shares and not wanted and market.can_sell[day, place] and free_from <= 2 * day:
            sell_at = float(market.open[day, place]) * (1 - rules.slippage)
        late = shares and not wanted and sell_at is None and free_from == 2 * day + 1
        if late and market.can_sell_late[day, place]:
            sell_at = float(market.close[day, place]) * (1 - rules.slippage)
        if sell_at is not None:
            amount = dong(shares * sell_at)
            cash += amount - dong(amount * rules.fee) - dong(amount * rules.sale_tax)
            shares = 0
        elif wanted and not shares and market.can_buy[day, place]:
            price, lot = float(market.open[day, place]) * (1 + rules.slippage), int(market.lot[day, place])
            lots = int(cash // (price * lot)) + 1
            while lots and (amount := dong(lots * lot * price)) + dong(amount * rules.fee) > cash:
                lots -= 1
            if lots:
                cash -= amount + dong(amount * rules.fee)
                shares, free_from = lots * lot, int(market.free_from[day])
    return cash + (dong(shares * float(market.close[-1, place])) if shares else 0)


def timed(stage: str, work: Callable[[], Any], rows: list[dict[str, str]], note: str = "") -> tuple[Any, float]:
    """What `work` returns, and its seconds; adds a row and prints it."""
    started = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - started
    print(f"{stage:64} {seconds:10.2f} s, peak memory {peak_gb():.2f} GB", flush=True)
    rows.append({"stage": stage, "seconds": f"{seconds:.2f}", "peak_gb": f"{peak_gb():.2f}", "note": note})
    return found, seconds


def main() -> None:
    prices = synthetic_prices(N_SYMBOLS, N_DAYS, seed=1)
    panel, table = build_panel(prices), forecasts(prices)
    ours, rows = table[table["family"] == "ensemble"], []
    what = f"{N_SYMBOLS} symbols × {N_ORIGINS} origins"
    print(f"{what}, {len(table):,} forecasts of {len(SIZES)} families")
    scores, scoring = timed("score", lambda: score(table, panel), rows)
    result, trading = timed("backtest", lambda: backtest(ours, prices, VN_RULES, capital=CAPITAL), rows)
    _, judging = timed("judge", lambda: judge(scores, result, family="ensemble"), rows)
    rows[-1]["note"] = f"score, backtest and judge together {scoring + trading + judging:.1f} s"
    _, band = timed(f"{N_STRATEGIES:,} random strategies (rotations)",
                    lambda: random_band(result, n_strategies=N_STRATEGIES, kind="rotations"), rows)
    timed(f"{N_STRATEGIES:,} random strategies (spells)",
          lambda: random_band(result, n_strategies=N_STRATEGIES, kind="spells"), rows)
    timed("four strategies beside each other", lambda: compare_strategies(ours, prices), rows)
    looped, slow = timed("one strategy, all symbols, in a loop of plain Python",
                         lambda: [loop(result, place) for place in range(N_SYMBOLS)], rows)
    at_end = result.daily[result.daily["date"] == result.daily["date"].max()].set_index("symbol")["value"]
    for symbol, value in zip(result.symbols["symbol"], looped, strict=True):
        if at_end[symbol] != value:
            sys.exit(f"{symbol}: the loop ends with {value:,} VND, the engine with {at_end[symbol]:,.0f} VND.")
    rows[-1]["note"] = f"× {N_STRATEGIES:,} strategies: {slow * N_STRATEGIES / band:.1f} times as long as rotations"
    print("\n".join(row["note"] for row in rows if row["note"]) + f"; {N_SYMBOLS} accounts are equal to the last dong")
    keep("backtest_speed", [{"data": what} | row for row in rows])


if __name__ == "__main__":
    main()
