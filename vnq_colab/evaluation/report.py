"""The report of a run: one self-contained page for a phone or a desktop, with its tables and plots beside it."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.errors import DataError
from vnq_colab.evaluation import cards, plots
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.basket_result import BasketResult
from vnq_colab.evaluation.first_screen import first_screen
from vnq_colab.evaluation.order import Order
from vnq_colab.evaluation.page import SCRIPT, STYLE, card, more, picture, soft
from vnq_colab.evaluation.verdict import Verdict
from vnq_colab.files import write_atomic

OWN_FILES = ("symbol_accuracy", "learning_curves", "basket")  # pictures beside the report


def write_report(folder: Path, *, title: str, facts: dict[str, Any], verdict: Verdict, order: Order,
                 basket: BasketResult | None, forecast: pd.DataFrame, rows: pd.DataFrame, scores: pd.DataFrame,
                 result: Backtest, history: Any, prices: pd.DataFrame, note: str = "",
                 orders: pd.DataFrame | None = None, now: pd.Timestamp | None = None) -> Path:
    """Writes report.html with verdict.json, the tables as parquet and pictures as PNG; gives back its path.

    `facts` are labels and texts (run, data, days, machine, recipe); `note` is what nobody may miss, such as "Synthetic
    market: these are not real prices"; `history` as in `plots.learning_curves`; `rows` as of `metrics.with_outcomes`;
    `scores` as of `metrics.score_rows`; `result` are the symbols' own accounts; `prices` [VND]; `orders` as of
    `delivery.orders`; `now` None is the clock, in a made-up market (where there is a note) its last day. Of
    forecast.parquet the column `actual` [log return over the horizon] is NaN where it is not known yet. The page needs
    no network.
    """
    folder, family = Path(folder), order.family
    prices_to = prices["date"].max()
    now = now or (prices_to if note else pd.Timestamp.now())
    decisions = {name: found["decision"] for name, found in verdict.symbols.items()}
    draw: dict[str, Callable[[], plots.Figure]] = {
        "order": lambda: plots.order(order, note=note),
        "accuracies": lambda: plots.accuracies(scores, family, decisions=decisions, note=note),
        "symbol_accuracy": lambda: plots.symbol_accuracy(scores, family, decisions=decisions, note=note),
        "learning_curves": lambda: plots.learning_curves(history, note=note),
    }
    if basket is not None:
        draw["basket"] = lambda: plots.basket(basket, note=note)
        draw["random_baskets"] = lambda: plots.random_baskets(basket, note=note)
    images: dict[str, bytes | str] = {}
    for name, figure in draw.items():
        try:
            images[name] = plots.png(figure())
        except DataError as error:  # nothing to draw: the page says why, and the rest of it is still worth having
            images[name] = str(error)
            continue
        if name in OWN_FILES:
            write_atomic(folder / f"{name}.png", lambda file, image=images[name]: file.write(image))
    keys = ["family", "symbol", "date"]
    trades = result if basket is None else basket.trades
    tables = {"scores": scores, "forecast": forecast.merge(rows[[*keys, "actual"]], on=keys, how="left"),
              "orders": trades.orders}
    for name, table in tables.items():
        write_atomic(folder / f"{name}.parquet", lambda file, table=table: table.to_parquet(file, index=False))
    verdict.save(folder / "verdict.json")
    top = first_screen(verdict.to_dict(), orders=orders, prices_to=prices_to, now=now, note=note)
    sections = [
        cards.why(verdict), cards.holds(order, images), cards.families(order, verdict, scores),
        cards.basket(basket, images), cards.stocks(order, scores, result, verdict, images),
        cards.one_stock(forecast, rows, family, verdict, prices), cards.intervals(rows, family),
        cards.original(verdict), cards.changes(verdict), cards.leak_checks(verdict),
        card("While learning", soft(_seeds(history)), more("Skill on the validation days of each fold",
                                    picture("Learning curves", images["learning_curves"]))),
        card("Method, and what to read with care", _method(scores, verdict), anchor="method"),
        card("The run", _facts(facts)),
    ]
    page = _page(title, top, sections, order, verdict).encode("utf-8")
    write_atomic(folder / "report.html", lambda file: file.write(page))
    return folder / "report.html"


def _page(title: str, top: str, sections: list[str], order: Order, verdict: Verdict) -> str:
    days = order.daily.index
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{top}
<h1>{escape(title)}</h1>
<p class="soft">Test days {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, {escape(order.family)} judged by the
{escape(verdict.gate_set)} gates.</p>
<div class="columns">
{"".join(sections)}
</div>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _method(scores: pd.DataFrame, verdict: Verdict) -> str:
    zero = scores[scores["family"] == "zero"]
    met = "" if zero.empty else (f" Here the zero forecast is below 0.03 on {(zero['rmse_day'] < 0.03).mean():.0%} of "
                                 f"the symbols per day, and on {(zero['rmse_5'] < 0.03).mean():.0%} for five.")
    folds = (verdict.summary.get("settings") or {}).get("folds")
    lines = [
        f"Forecasts are of {folds or 'the'} folds; each fold's models were trained on the days before it only. What is "
        "exported learnt from all days and cannot be judged on these.",
        "Signal at the close, filled at the next open: price bands, ticks, lots, settlement (T+2), halts, delistings, "
        "fees, tax and slippage as on the exchange. Where the prices bring no raw closes, bands and ticks are applied "
        "to adjusted ones, which is an approximation.",
        "The default symbols were chosen today, knowing who survived: every past return is better than anyone could "
        "have had, that of the equal-weighted universe too. Compare with that one.",
        f"An RMSE of 0.03 is met by the zero forecast per day (over √5), out of reach for five days: no skill.{met}",
        "Only the evaluations in this folder are known and charged; ideas tried elsewhere are not.",
        "Stocks move together: a good month of many is closer to one lucky month than to many proofs.",
    ]
    return more("How it was measured", "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>") + soft(
        "Survivorship: the stocks were chosen today.")


def _seeds(history: Any) -> str:
    """How much the seeds of one network differ on validation days; "" where there is one."""
    table = pd.DataFrame(getattr(history, "history", history))
    if "job" not in table:
        return ""
    rows = table[table["job"].str.startswith("global")].dropna(subset="skill")
    last = rows.groupby(["job", "member"])["skill"].last()
    spread = last.groupby("job").std().mean()
    return "" if pd.isna(spread) else (f"Seeds of the global network differ by {spread:.3f} (standard deviation within "
                                       f"a fold) around a rank correlation of {last.mean():.3f} on validation days.")


def _facts(facts: dict[str, Any]) -> str:
    rows = "".join(f"<tr><td>{escape(str(label))}</td><td>{escape(str(text))}</td></tr>\n"
                   for label, text in facts.items())
    return f'<table class="facts"><tbody>\n{rows}</tbody></table>'
