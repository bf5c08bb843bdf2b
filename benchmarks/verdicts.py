"""What the market gates accept: synthetic markets without a signal, and scores whose rank correlation is planted.

    python benchmarks/verdicts.py --worlds 50                       # simulated scores, no training, 1,000 days
    python benchmarks/verdicts.py --worlds 20 --days 2000           # the planted ones over seven years and more
    python benchmarks/verdicts.py --worlds 200 --family trees --days 1300   # trained for real, prices to verdict

A world is a synthetic market of 102 stocks without any signal, with a seed of its own. Without `--family` there are
judged, each beside two families without skill: scores without skill that last as ours do, that are fresh every
day, that never change, that bet against the past month; a copy of the first with a little noise; planted rank
correlations of 0.02, 0.04 and 0.06; and a leak of 0.5, which must be for review. With `--family trees` small boosted
trees are trained, as `vnq_colab run` does it, in a folder that is removed afterwards; three folds of 1,300 days leave
750 test days, and with fewer than 500 a market is unjudged. Each verdict is a row of
benchmarks/results/market_verdicts.csv, and the same command goes on after the last world.
"""

import argparse
import csv
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from machine import keep

TABLE = "market_verdicts"
WARM_UP = 100  # [days] before the first judged one
N_RANDOM = 100  # baskets
LASTING = pd.DataFrame({"lag": [1, 5, 20], "value": [0.68, 0.37, 0.17]})  # of the ensemble's ranks on real prices
PLANTED = {"planted 0.02": 0.02, "planted 0.04": 0.04, "planted 0.06": 0.06, "leak 0.5": 0.5}
UNKNOWN = ("accuracy_low", "accuracy_high", "rmse_5", "sharpe", "max_drawdown")  # asked by the seeds' gates alone
SKILL_LESS = ("lasting", "fresh", "constant", "contrarian", "copy")


def simulated_scores(panel, could_buy: np.ndarray, random: np.random.Generator) -> dict[str, np.ndarray]:
    """`[days, symbols]` of each kind of score."""
    from vnq_colab.data.panel import CLOSE, OPEN
    from vnq_colab.evaluation import power
    from vnq_colab.settings import HORIZON

    there, parts = panel.present.T, power.persistence_parts(LASTING)

    def noise() -> np.ndarray:
        return power.persistent([random.standard_normal(there.shape, dtype="float32") for _ in parts], parts)

    past = pd.DataFrame(panel.prices[:, :, CLOSE].T).ffill()
    month = power.normal_scores((past / past.shift(20)).to_numpy(), there & past.shift(20).notna().to_numpy())
    signal, outcome = power.lasting_signal(panel.ahead(1, OPEN).T, there, parts), panel.ahead(HORIZON, OPEN).T
    known = there & could_buy.T & np.isfinite(outcome)
    most = power.pearson(power.correlations_with(power.centred_ranks(outcome, known), known, signal[:, None]).mean())
    scores = {"a": noise(), "b": noise(), "lasting": noise(),
              "fresh": random.standard_normal(there.shape, dtype="float32"),
              "constant": np.broadcast_to(random.standard_normal(there.shape[1]), there.shape), "contrarian": -month}
    scores["copy"] = scores["lasting"] + 0.1 * noise()
    for name, true in PLANTED.items():
        weight = min(power.pearson(true) / most, 1.0)
        scores[name] = weight * signal + np.sqrt(1 - weight**2) * noise()
    return scores


def simulated(days: int, seed: int, n_symbols: int) -> list[dict[str, str]]:
    """The verdicts on simulated scores in one world, each beside the families a and b, which have no skill."""
    from vnq_colab.data.forecast import make_scores
    from vnq_colab.data.market import VN_RULES
    from vnq_colab.data.panel import OPEN, build_panel
    from vnq_colab.data.synthetic import synthetic_prices
    from vnq_colab.evaluation.basket_result import evaluate_basket
    from vnq_colab.evaluation.gates import judge
    from vnq_colab.evaluation.market_data import MarketData
    from vnq_colab.evaluation.metrics import with_outcomes
    from vnq_colab.evaluation.order import buyable, measure_order
    from vnq_colab.evaluation.power import pearson
    from vnq_colab.settings import HORIZON

    panel = build_panel(prices := synthetic_prices(n_symbols, days, seed=seed, signal=0.0))
    could_buy, size = buyable(panel, MarketData.of(prices, VN_RULES)), float(np.nanstd(panel.ahead(HORIZON, OPEN)))
    is_judged = panel.present & (np.arange(len(panel.days)) >= WARM_UP) & (
        np.arange(len(panel.days)) < len(panel.days) - HORIZON - 2)
    tables = {}
    for name, score in simulated_scores(panel, could_buy, np.random.default_rng([seed, 1])).items():
        # without skill: the edge of somebody who believes in a rank correlation of 0.05
        edge = size * pearson(PLANTED.get(name, 0.05)) * score.T
        tables[name] = make_scores(name, panel.symbols, panel.days, is_judged, score=score.T, edge=edge, mean=edge)
        tables[name] = tables[name].assign(scale=size, p_up=0.5)
    rows, others = [], [tables.pop("a"), tables.pop("b")]
    for name, forecast in tables.items():
        order = measure_order(with_outcomes(pd.concat([forecast, *others]), panel), panel, prices, name, could_buy)
        basket = evaluate_basket(forecast, prices, n_random=N_RANDOM, seed=seed)
        stocks = order.symbols.assign(**dict.fromkeys(UNKNOWN, np.nan), accuracy=0.5)
        rows.append(_row("made", name, days, seed, judge(order, basket, stocks)))
    return rows


def trained(family: str, days: int, seed: int, n_symbols: int) -> list[dict[str, str]]:
    """The verdict on one world, from prices through training."""
    from vnq_colab.config import RunConfig
    from vnq_colab.data.prepared import prepare
    from vnq_colab.data.synthetic import synthetic_prices
    from vnq_colab.delivery.validate import validate
    from vnq_colab.layout import Workspace
    from vnq_colab.training.trainer import train

    with tempfile.TemporaryDirectory() as folder:
        ws = Workspace(Path(folder))
        prepared = prepare(ws, synthetic_prices(n_symbols, days, seed=seed, signal=0.0))
        config = RunConfig.for_machine("smoke", seed=seed, symbols=prepared.panel.symbols, families=(family,), folds=3)
        session = train(ws, prepared.panel, config.with_setting("machine.threads", "1"), quiet=True)
        return [_row(family, family, days, seed, validate(session, prepared=prepared).verdict)]


def _row(how: str, kind: str, days: int, seed: int, verdict) -> dict[str, str]:
    """A verdict as a row of the table."""
    gates = {gate["gate"]: gate for gate in verdict.market["gates"]}
    failed = [name for name, gate in gates.items() if gate["passed"] is False]

    def measured(name: str) -> str:
        value = gates[name]["measured"]
        return "" if value is None else f"{value:.4f}"

    return {"how": how, "kind": kind, "days": str(days), "seed": str(seed), "symbols": str(len(verdict.symbols)),
            "decision": verdict.market["decision"], "test_days": measured("enough_days"),
            "rank_correlation": measured("order"), "alpha": measured("basket"), "beaten": measured("random_baskets"),
            "deflated_sharpe": measured("deflated_sharpe"), "failed": "; ".join(failed),
            "accepted_symbols": str(verdict.summary["decisions"]["accept"]),
            "confidence_set": "; ".join(verdict.summary["confidence_set"])}


def finished(wanted: dict[str, str]) -> list[dict[str, str]]:
    """The rows of the table that have these values."""
    path = Path(__file__).parent / "results" / f"{TABLE}.csv"
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if wanted.items() <= row.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=20, help="markets, each with a seed of its own")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--family", help="train it in every world; without it, scores are simulated")
    parser.add_argument("--days", type=int, default=1000)
    parser.add_argument("--symbols", type=int, default=102)
    parser.add_argument("--workers", type=int, default=1, help="worlds at a time, one core each")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # of the workers, which load numpy after this
    wanted = {"how": options.family or "made", "days": str(options.days)}
    seeds = [str(seed) for seed in range(options.first, options.first + options.worlds)]
    done, started = {row["seed"] for row in finished(wanted)}, time.perf_counter()
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        world = partial(trained, options.family) if options.family else simulated
        jobs = [pool.submit(world, options.days, int(seed), options.symbols) for seed in seeds if seed not in done]
        for number, ready in enumerate(as_completed(jobs), 1):
            keep(TABLE, ready.result())
            print(f"world {number} of {len(jobs)}: {time.perf_counter() - started:.0f} s", flush=True)
    rows = pd.DataFrame([row for row in finished(wanted) if row["seed"] in seeds])
    for kind, part in rows.groupby("kind", sort=False):
        counts = ", ".join(f"{count} {name}" for name, count in part["decision"].value_counts().items())
        numbers = part[["rank_correlation", "alpha"]].apply(pd.to_numeric).mean()
        print(f"{kind:14} {len(part):4} worlds: {counts}; rank correlation {numbers['rank_correlation']:.3f}, alpha "
              f"{numbers['alpha']:+.1%} a year on average")
    free = rows[rows["kind"].isin([*SKILL_LESS, options.family])]
    print(f"without skill: {(free['decision'] == 'accept').sum()} of {len(free)} accepted")


if __name__ == "__main__":
    main()
