"""The report of a run: one self-contained page for a phone or a desktop, with its tables and plots beside it."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.errors import DataError
from vnq_colab.evaluation import cards, plots
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.chance import Chance
from vnq_colab.evaluation.gates import DECISIONS, Verdict
from vnq_colab.evaluation.page import STYLE, card, download, picture, soft
from vnq_colab.files import write_atomic
from vnq_colab.settings import FAMILY_NAMES as LEARNERS


def write_report(folder: Path, *, title: str, facts: dict[str, Any], forecast: pd.DataFrame, scores: pd.DataFrame,
                 result: Backtest, verdict: Verdict, history: Any, rows: pd.DataFrame | None = None,
                 chance: Chance | None = None, prices: pd.DataFrame | None = None,
                 strategies: pd.DataFrame | None = None,
                 order: "tuple[pd.DataFrame, pd.DataFrame] | None" = None, note: str = "") -> Path:
    """Writes report.html with verdict.json, the tables as parquet and the plots as PNG; gives back its path.

    `facts` are labels and texts (run, data, days, machine, recipe); `note` is what nobody may miss, such as "Synthetic
    market: these are not real prices"; `history` as in `plots.learning_curves`; `rows` as of `metrics.with_outcomes`,
    for tests over all symbols at once; `prices` [VND], with `rows`, for what depends on exchange and liquidity and for
    the last days; `chance` are the random strategies, `strategies` those of `accounts.compare_strategies`, `order` the
    rank correlations of all days and by year. What is None
    is left out. Of `verdict.summary` the page shows `text`, `decisions` and `gate_sets`, and where they are there
    `previous`, `leak_checks` and `looks`. The page needs no network.
    """
    folder = Path(folder)
    draw: dict[str, Callable[[], plots.Figure]] = {
        "symbol_accuracy": lambda: plots.symbol_accuracy(scores, result.family, note=note),
        "learning_curves": lambda: plots.learning_curves(history, note=note),
        "equity": lambda: plots.equity(result, chance, note=note),
    }
    if order is not None:
        draw["rank_correlation"] = lambda: plots.rank_correlations(
            order[1][order[1]["family"].isin([result.family, *LEARNERS])], note=note)
    if rows is not None:
        draw["reliability"] = lambda: plots.reliability(rows, result.family, note=note)
    images: dict[str, bytes | str] = {}
    for name, figure in draw.items():
        try:
            images[name] = plots.png(figure())
        except DataError as error:  # nothing to draw: the page says why, and the rest of it is still worth having
            images[name] = str(error)
            continue
        write_atomic(folder / f"{name}.png", lambda file, image=images[name]: file.write(image))
    tables = {"scores": scores, "forecast": forecast, "orders": result.orders}
    for name, table in tables.items():
        write_atomic(folder / f"{name}.parquet", lambda file, table=table: table.to_parquet(file, index=False))
    verdict.save(folder / "verdict.json")
    pieces = _pieces(scores, forecast, result, rows, chance, prices, strategies, order, verdict, images)
    page = _page(title, facts, scores, result, verdict, pieces, note).encode("utf-8")
    write_atomic(folder / "report.html", lambda file: file.write(page))
    return folder / "report.html"


def _pieces(scores: pd.DataFrame, forecast: pd.DataFrame, result: Backtest, rows: pd.DataFrame | None,
            chance: Chance | None, prices: pd.DataFrame | None, strategies: pd.DataFrame | None,
            order: "tuple[pd.DataFrame, pd.DataFrame] | None", verdict: Verdict,
            images: dict[str, bytes | str]) -> tuple[str, str]:
    """The cards that stand in two columns where there is room, and those below them, which need the width."""
    family, with_prices = result.family, rows is not None and prices is not None
    equity = result.equity.rename(columns={name: f"{name} [VND]" for name in result.equity}).rename_axis("date")
    if chance is not None:
        equity = equity.join(chance.equity[["p5", "p50", "p95"]].add_prefix("random ").add_suffix(" [VND]"))
    side_by_side = [
        *([cards.order(*order), picture("Rank correlation by year", images["rank_correlation"],
                                        "Mean daily rank correlation with the return from the next open to the open "
                                        "five days later, over the stocks that could be bought, with 95% intervals.")]
          if order is not None else []),
        picture("Which directions are right", images["symbol_accuracy"],
                "Accuracy of the sign of the 5-day forecast on days whose price moved. The base rate is what always "
                "naming the more frequent direction reaches. Intervals count non-overlapping 5-day windows only."),
        cards.opponents(scores, family, rows),
        cards.skill(rows, family) if rows is not None else "",
        picture("What p_up is worth", images["reliability"],
                "How often the price rose, by what was forecast. On the line, p_up means what it says; bars are 95% "
                "intervals on independent windows.") if rows is not None else "",
        cards.intervals(rows, family) if rows is not None else "",
        cards.gates(verdict),
        picture("In an account", images["equity"],
                "Mean of one account per symbol. Signal at the close, filled at the next open, or sold at the close of "
                "the day on which the shares arrive; nothing is sold at the end. Below: how far each is from its "
                "highest value so far.", download("accounts_by_day", equity.reset_index())),
        cards.accounts(result, chance),
        cards.gate_sets(verdict),
        cards.changes(verdict),
        cards.leak_checks(verdict),
        picture("While learning", images["learning_curves"],
                "Skill on the validation days of each fold; 0 is none. A line is a member of a fold."),
    ]
    below = [
        cards.strategies(strategies, verdict.summary.get("looks") or {}) if strategies is not None else "",
        cards.groups(rows, prices, family) if with_prices else "",
        cards.symbols(scores, result, verdict),
        cards.predictions(rows, forecast, prices, family) if with_prices else "",
    ]
    return "\n".join(filter(None, side_by_side)), "\n".join(filter(None, below))


def _page(title: str, facts: dict[str, Any], scores: pd.DataFrame, result: Backtest, verdict: Verdict,
          pieces: tuple[str, str], note: str) -> str:
    days, counts = result.equity.index, verdict.summary["decisions"]
    numbers = "".join(f'<span class="{name}"><b>{counts[name]}</b>{name}</span>' for name in DECISIONS)
    looks = (verdict.summary.get("looks") or {}).get("text")
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
<h1>{escape(title)}</h1>
<p class="soft">Test days {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}, judged by the {escape(verdict.gate_set)} gates.</p>
{f'<div class="note">{escape(note)}</div>' if note else ""}
<section class="card">
<p class="verdict">{escape(verdict.summary["text"])}</p>
<div class="counts">{numbers}</div>
{soft((verdict.summary.get("order") or {}).get("text", ""))}
{soft(looks) if looks else ""}
</section>
<div class="columns">
{pieces[0]}
</div>
{pieces[1]}
{card("Read with care", _warnings(scores, result))}
{card("The run", _facts(facts))}
</main>
</body>
</html>
"""


def _warnings(scores: pd.DataFrame, result: Backtest) -> str:
    zero, mine = (scores[scores["family"] == family] for family in ("zero", result.family))
    met = "" if zero.empty else (f" Here the zero forecast is below 0.03 on {(zero['rmse_day'] < 0.03).mean():.0%} of "
                                 f"the symbols per day, and on {(zero['rmse_5'] < 0.03).mean():.0%} for five.")
    flat = (mine["flat_share"] * mine["n_days"]).sum() / mine["n_days"].sum()
    lines = [
        "An RMSE of 0.03 is met by the zero forecast per day (over √5) and out of reach for five days: it says "
        f"nothing about skill.{met}",
        "The 102 default symbols were chosen today, knowing who survived; the past returns of all of them, and of "
        "buy-and-hold too, are better than anyone could have had (survivorship).",
        f"{flat:.1%} of the 5-day outcomes are unchanged prices; they are left out of every accuracy.",
        "Price bands and ticks are exact where the prices bring raw closes; elsewhere they are applied to adjusted "
        "prices, which is an approximation.",
        "Symbols move together: a good month of many symbols is closer to one lucky month than to many proofs.",
    ]
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _facts(facts: dict[str, Any]) -> str:
    rows = "".join(f"<tr><td>{escape(str(label))}</td><td>{escape(str(text))}</td></tr>\n"
                   for label, text in facts.items())
    return f'<table class="facts"><tbody>\n{rows}</tbody></table>'
