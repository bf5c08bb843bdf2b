"""The report of a run: one self-contained page for a phone or a desktop, with its tables and pictures beside it.

What stands in the page, in words, is in `templates/`; here it gets its numbers.
"""

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
from vnq_colab.evaluation.metrics import coverage_by_period, past_forecasts, summary
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.page import FORECAST, FORECAST_HASH, first_screen, keep_orders, render
from vnq_colab.files import sha256_of, write_atomic

OWN_FILES = ("symbol_accuracy", "learning_curves", "basket")  # pictures beside the report
N_RECENT = 60  # days of each stock that can be looked at


def write_report(folder: Path, *, title: str, facts: dict[str, Any], verdict: Verdict, order: Order,
                 basket: BasketResult | None, forecast: pd.DataFrame, rows: pd.DataFrame, scores: pd.DataFrame,
                 result: Backtest, history: pd.DataFrame, prices: pd.DataFrame, note: str = "",
                 now: pd.Timestamp | None = None) -> Path:
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
    pictures = _pictures(order, basket, scores, verdict, history, note)
    for name in OWN_FILES:
        if isinstance(image := pictures.get(name), bytes):
            write_atomic(folder / f"{name}.png", lambda file, image=image: file.write(image))
    prices_to = prices["date"].max()
    now = now or (prices_to if note else pd.Timestamp.now())
    screen = first_screen(verdict.to_dict(), prices_to=prices_to, now=now, note=note)
    page = render(
        "report.html", title=title, facts=facts, verdict=verdict, order=order, basket=basket, pictures=pictures,
        first_screen=keep_orders(folder / "report.html", screen),
        pooled=summary(scores).set_index("family").reindex(order.families["family"]),
        zero=scores[scores["family"] == "zero"], stocks=_stocks(order, scores, result, verdict),
        coverage=coverage_by_period(rows, order.family), promised=COVERAGE, seeds=_seeds(history), n_recent=N_RECENT,
        recent=_recent(past_forecasts(forecast, rows, order.family, n_days=N_RECENT), verdict, prices),
        **_of_verdict(verdict, order.daily.index), **({} if basket is None else _of_basket(basket)))
    write_atomic(folder / "report.html", lambda file: file.write(page.encode()))
    return folder / "report.html"


def _of_verdict(verdict: Verdict, days: pd.DatetimeIndex) -> dict[str, Any]:
    """What the templates read of a verdict on these test days."""
    about, gates = verdict.summary, pd.DataFrame(verdict.market["gates"])
    checks = pd.DataFrame(about.get("leak_checks") or [], columns=["check", "passed", "sentence"])
    for table in (gates, checks):
        table["result"] = [{True: "passed", False: "FAILED"}.get(passed, "not measured") for passed in table["passed"]]
    return {"about": about, "gates": gates, "leak_checks": checks, "first": days[0], "last": days[-1]}


def _of_basket(basket: BasketResult) -> dict[str, Any]:
    """`months [years, 12]`: returns [%], NaN where there was none."""
    equity = basket.equity["basket"]
    ends = equity.groupby([equity.index.year, equity.index.month]).last()
    change = 100 * (ends / ends.shift(1, fill_value=equity.iloc[0]) - 1)
    months = change.unstack().reindex(columns=range(1, 13)).round() + 0.0  # no "-0"
    return {"months": months, "fewest_days": FEWEST_YEARLY_DAYS, "halt": LONG_HALT_SESSIONS}


def _pictures(order: Order, basket: BasketResult | None, scores: pd.DataFrame, verdict: Verdict, history: pd.DataFrame,
              note: str) -> dict[str, "bytes | str"]:
    """PNG by name; where there is nothing to draw the sentence that says why: the rest is still worth having."""
    decisions = {name: found["decision"] for name, found in verdict.symbols.items()}
    figures = {"order": (plots.order, order), "learning_curves": (plots.learning_curves, history),
               "accuracies": (plots.accuracies, scores, order.family, decisions),
               "symbol_accuracy": (plots.symbol_accuracy, scores, order.family, decisions)}
    if basket is not None:
        figures |= {"basket": (plots.basket, basket), "random_baskets": (plots.random_baskets, basket)}
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


def _recent(table: pd.DataFrame, verdict: Verdict, prices: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By symbol, the accepted first: its last forecasts beside the actual price changes [%], and what is decided."""
    price = "raw_close" if "raw_close" in prices else "close"  # as on the board
    last = prices.dropna(subset=[price]).groupby("symbol", observed=True)[price].last() / 1000
    table = table if "low" in table else table.assign(low=table["expected"], high=table["expected"])
    data = {}
    for symbol, part in table.groupby("symbol", observed=True):
        known = verdict.symbols.get(symbol, {"decision": "unjudged", "reasons": []})
        data[symbol] = {
            "first": f"{part['date'].iloc[0]:%d/%m/%Y}", "last": f"{part['date'].iloc[-1]:%d/%m/%Y}",
            **{name: part[name].round(1).tolist() for name in ("expected", "actual", "low", "high")},
            "about": f"{known['decision']}. Close {last.get(symbol, np.nan):,.2f} thousand VND. "
                     f"{' '.join(known['reasons'][:1])}"}
    return dict(sorted(data.items(), key=lambda item: not item[1]["about"].startswith("accept")))


def _seeds(history: pd.DataFrame) -> tuple[float, float] | None:
    """Of the global network on validation days: mean rank correlation, and its deviation among seeds of a fold."""
    rows = history[history["job"].str.startswith("global")].dropna(subset="skill")
    last = rows.groupby(["job", "member"])["skill"].last()
    spread = last.groupby("job").std().mean()
    return None if pd.isna(spread) else (last.mean(), spread)
