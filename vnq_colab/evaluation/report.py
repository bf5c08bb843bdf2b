"""The report of a run: one self-contained page for a phone or a desktop, with its tables and pictures beside it.

What stands in the page, in words, is in `templates/`; here it gets its numbers.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.market import LONG_HALT_SESSIONS
from vnq_colab.errors import DataError
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.basket_result import FEWEST_YEARLY_DAYS, BasketResult
from vnq_colab.evaluation.calibration import COVERAGE
from vnq_colab.evaluation.gates import DECISIONS, Verdict
from vnq_colab.evaluation.metrics import coverage_by_period, summary
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.page import DASH, FORECAST, FORECAST_HASH, first_screen, keep_orders, render
from vnq_colab.evaluation.reasons import WHY, Explanation
from vnq_colab.files import sha256_of, write_atomic

OWN_FILES = ("symbol_accuracy", "learning_curves", "basket")  # pictures beside the report
N_RECENT = 120  # days of each stock that can be looked at


def write_report(folder: Path, *, title: str, facts: dict[str, Any], verdict: Verdict, order: Order,
                 basket: BasketResult | None, forecast: pd.DataFrame, rows: pd.DataFrame, scores: pd.DataFrame,
                 result: Backtest, history: pd.DataFrame, prices: pd.DataFrame, note: str = "",
                 now: pd.Timestamp | None = None, explained: Explanation | None = None) -> Path:
    """Writes report.html with verdict.json, the tables as parquet and pictures as PNG; gives back its path.

    `facts` are labels and texts; `note` is what nobody may miss, such as "Synthetic market: these are not real prices";
    `history` as in `plots.learning_curves`; `rows` as of `metrics.with_outcomes`; `scores` as of `metrics.score_rows`;
    `result` are the symbols' own accounts; `prices` [VND]; `now` None is the clock, where there is a note the last day.
    In forecast.parquet `actual` [log return over the horizon] is NaN where it is not known yet.
    """
    folder, keys = Path(folder), ["family", "symbol", "date"]
    tables = {"scores": scores, "forecast": forecast.merge(rows[[*keys, "actual"]], on=keys, how="left"),
              "orders": (result if basket is None else basket.trades).orders}
    for name, table in tables.items():
        write_atomic(folder / f"{name}.parquet", lambda file, table=table: table.to_parquet(file, index=False))
    verdict.summary[FORECAST_HASH] = sha256_of(folder / FORECAST)
    verdict.save(folder / "verdict.json")
    pictures = _pictures(order, rows, basket, scores, verdict, history, note)
    for name in OWN_FILES:
        if isinstance(image := pictures.get(name), bytes):
            write_atomic(folder / f"{name}.png", lambda file, image=image: file.write(image))
    prices_to = prices["date"].max()
    now = now or (prices_to if note else pd.Timestamp.now())
    stocks = _stocks(order, scores, result, verdict)
    if explained:
        stocks = stocks.join(explained.stocks).fillna(dict.fromkeys(WHY, DASH))
        pictures["importance"] = plots.png(plots.importance(explained.importance, explained.family, note=note))
    screen = first_screen(verdict.to_dict(), prices_to=prices_to, now=now, note=note)
    page = render(
        "report.html", title=title, facts=facts, verdict=verdict, order=order, basket=basket, pictures=pictures,
        first_screen=keep_orders(folder / "report.html", screen),
        pooled=summary(scores).set_index("family").reindex(order.families["family"]),
        zero=scores[scores["family"] == "zero"], stocks=stocks, explained=explained,
        coverage=coverage_by_period(rows, order.family), promised=COVERAGE, seeds=_seeds(history),
        recent=_recent(forecast, rows, order.family, stocks.index, prices, tables["orders"]),
        fewest_days=FEWEST_YEARLY_DAYS, halt=LONG_HALT_SESSIONS, **_of_verdict(verdict, order.daily.index))
    write_atomic(folder / "report.html", lambda file: file.write(page.encode()))
    return folder / "report.html"


def _of_verdict(verdict: Verdict, days: pd.DatetimeIndex) -> dict[str, Any]:
    """What the templates read of a verdict on these test days."""
    about, gates = verdict.summary, pd.DataFrame(verdict.market["gates"])
    checks = pd.DataFrame(about.get("leak_checks") or [], columns=["check", "passed", "sentence"])
    for table in (gates, checks):
        table["result"] = [{True: "passed", False: "FAILED"}.get(passed, "not measured") for passed in table["passed"]]
    return {"about": about, "gates": gates, "leak_checks": checks, "first": days[0], "last": days[-1]}


def _pictures(order: Order, rows: pd.DataFrame, basket: BasketResult | None, scores: pd.DataFrame, verdict: Verdict,
              history: pd.DataFrame, note: str) -> dict[str, "bytes | str"]:
    """PNG by name; where there is nothing to draw the sentence that says why: the rest is still worth having."""
    decisions = {name: found["decision"] for name, found in verdict.symbols.items()}
    figures = {"order": (plots.order, order), "fan": (plots.fan, rows, order.family),
               "learning_curves": (plots.learning_curves, history),
               "accuracies": (plots.accuracies, scores, order.family, decisions),
               "symbol_accuracy": (plots.symbol_accuracy, scores, order.family, decisions)}
    if basket is not None:
        figures |= {name: (getattr(plots, name), basket) for name in ("basket", "months", "random_baskets")}
    images: dict[str, bytes | str] = {}
    for name, (draw, *values) in figures.items():
        try:
            images[name] = plots.png(draw(*values, note=note))
        except DataError as error:
            images[name] = str(error)
    return images


def _stocks(order: Order, scores: pd.DataFrame, result: Backtest, verdict: Verdict) -> pd.DataFrame:
    """A row per symbol, the accepted first: decision, gates that fail, reasons, and what was measured."""
    found = sorted(verdict.symbols.items(), key=lambda item: (DECISIONS.index(item[1]["decision"]), item[0]))
    fails = [[gate["gate"].replace("_", " ") for gate in row["gates"] if gate["passed"] is False] for _, row in found]
    table = pd.DataFrame({"decision": [row["decision"] for _, row in found], "fails": list(map(", ".join, fails)),
                          "why": [" ".join(row["reasons"]) for _, row in found]}, index=[name for name, _ in found])
    mine = scores[scores["family"] == order.family].drop(columns="n_days")
    for part in (order.symbols, mine, result.symbols):
        table = table.join(part.set_index("symbol"))
    return table


def _recent(forecast: pd.DataFrame, rows: pd.DataFrame, family: str, symbols: Iterable[str], prices: pd.DataFrame,
            orders: pd.DataFrame) -> dict[str, Any]:
    """The last days, and by symbol on each of them: close [thousand VND], rank, forecast and outcome [%]; its fills."""
    mine, actual = (table[table["family"] == family] for table in (forecast, rows))
    days = pd.DatetimeIndex(np.sort(mine["date"].unique())[-N_RECENT:], name="date")
    mine, actual, prices = (table[table["date"].isin(days)] for table in (mine, actual, prices))
    mine = mine.assign(rank=mine.groupby("date")["score"].rank(ascending=False, method="first"))

    def by_day(table: pd.DataFrame, values: pd.Series, digits: int = 1) -> pd.DataFrame:
        wide = table.assign(value=values.round(digits)).pivot(index="date", columns="symbol", values="value")
        return wide.reindex(index=days, columns=symbols).astype(object).where(lambda found: found.notna(), None)

    ends = {"expected": "mean", **{name: name if name in mine else "mean" for name in ("low", "high")}}
    parts = {"price": by_day(prices, prices["close"] / 1000, 2), "rank": by_day(mine, mine["rank"], 0),
             "actual": by_day(actual, 100 * np.expm1(actual["actual"])),
             **{name: by_day(mine, 100 * np.expm1(mine[column])) for name, column in ends.items()}}
    fills = orders.assign(day=days.get_indexer(orders["date"]), sign=np.where(orders["side"] == "buy", 1, -1))
    fills = {symbol: part.to_numpy().tolist()
             for symbol, part in fills[fills["day"] >= 0].groupby("symbol")[["day", "sign"]]}
    return {"days": [f"{day:%d/%m/%Y}" for day in days], "of": int(mine["rank"].max()), "stocks": {
        symbol: {"fills": fills.get(symbol, []), **{name: table[symbol].to_list() for name, table in parts.items()}}
        for symbol in symbols}}


def _seeds(history: pd.DataFrame) -> tuple[float, float] | None:
    """Of the global network on validation days: mean rank correlation, and its deviation among seeds of a fold."""
    rows = history[history["job"].str.startswith("global")].dropna(subset="skill")
    last = rows.groupby(["job", "member"])["skill"].last()
    spread = last.groupby("job").std().mean()
    return None if pd.isna(spread) else (last.mean(), spread)
