"""The report of a run: one self-contained page for a phone or a desktop, with its tables and plots beside it."""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.errors import DataError
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.chance import Chance
from vnq_colab.evaluation.gates import DECISIONS, N_SIMULATED, Verdict
from vnq_colab.evaluation.metrics import summary
from vnq_colab.evaluation.probability import interval_coverage
from vnq_colab.evaluation.skill import compare, information_coefficient
from vnq_colab.files import write_atomic

RULES = ("majority", "momentum", "crossing")  # opponents that name a direction, and no size of the move
COVERAGE = 0.9  # that calibrated intervals promise
STYLE = """
:root { color-scheme: light; --ink: #1d2329; --soft: #5b6670; --line: #dfe3e7; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 20px 12px 48px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 1.08rem; margin: 0 0 8px; }
p { margin: 0 0 10px; max-width: 75ch; }
.soft, figcaption { color: var(--soft); font-size: .88rem; margin: 8px 0 0; }
.note { background: #fff4d6; border-left: 6px solid #e69f00; border-radius: 4px; padding: 10px 14px; margin: 14px 0;
  font-weight: 600; }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 14px 12px; margin: 14px 0; }
.verdict { font-size: 1.12rem; margin: 0 0 12px; }
.counts { display: flex; flex-wrap: wrap; gap: 8px; }
.counts span { border-radius: 8px; padding: 4px 14px; }
.counts b { font-size: 1.3rem; margin-right: 6px; }
@media (min-width: 960px) {
  .columns { columns: 2; column-gap: 14px; } .columns .card { break-inside: avoid; margin: 0 0 14px; }
}
img { display: block; width: 100%; max-width: 470px; height: auto; margin: 0 auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .83rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 6px; border-bottom: 1px solid var(--line); vertical-align: top; }
td { white-space: nowrap; }
th { color: var(--soft); font-weight: 600; line-height: 1.25; vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 600; }
td.words, th.words { text-align: left; white-space: normal; min-width: 13rem; }
summary { cursor: pointer; } details p { margin: 6px 0; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { width: 9rem; color: var(--soft); }
.tag { border-radius: 9px; padding: 1px 9px; font-weight: 600; }
.accept { background: #d6ecf9; color: #00507d; } .review { background: #fff0c2; color: #6b4a00; }
.reject { background: #f9ddd0; color: #8a3300; } .unjudged { background: #e8ebee; color: #444c54; }
ul { margin: 0; padding-left: 20px; } li { margin-bottom: 6px; max-width: 75ch; }
"""


def write_report(folder: Path, *, title: str, facts: dict[str, Any], forecast: pd.DataFrame, scores: pd.DataFrame,
                 result: Backtest, verdict: Verdict, history: Any, rows: pd.DataFrame | None = None,
                 chance: Chance | None = None, note: str = "") -> Path:
    """Writes report.html with verdict.json, the tables as parquet and three PNG plots; gives back its path.

    `facts` are labels and texts (run, data, days, machine, recipe); `note` is what nobody may miss, such as "Synthetic
    market: these are not real prices"; `history` as in `plots.learning_curves`; `rows` as of
    `metrics.with_outcomes`, for tests over all symbols at once; `chance` are the random strategies. The page needs no
    network.
    """
    folder = Path(folder)
    draw = {
        "symbol_accuracy": lambda: plots.symbol_accuracy(scores, result.family, note=note),
        "learning_curves": lambda: plots.learning_curves(history, note=note),
        "reliability": lambda: plots.reliability(rows, result.family, note=note),
        "equity": lambda: plots.equity(result, chance, note=note),
    }
    if rows is None:
        del draw["reliability"]
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
    page = _page(title, facts, scores, result, rows, chance, verdict, images, note).encode("utf-8")
    write_atomic(folder / "report.html", lambda file: file.write(page))
    return folder / "report.html"


def _page(title: str, facts: dict[str, Any], scores: pd.DataFrame, result: Backtest, rows: pd.DataFrame | None,
          chance: Chance | None, verdict: Verdict, images: dict[str, bytes | str], note: str) -> str:
    days, counts = result.equity.index, verdict.summary["decisions"]
    numbers = "".join(f'<span class="{name}"><b>{counts[name]}</b>{name}</span>' for name in DECISIONS)
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
</section>
<div class="columns">
{_picture("Which directions are right", images["symbol_accuracy"],
          "Accuracy of the sign of the 5-day forecast on days whose price moved. The base rate is what always naming "
          "the more frequent direction reaches. Intervals count non-overlapping 5-day windows only.")}
<section class="card"><h2>The model and its opponents, same days</h2>{_opponents(scores, result.family)}</section>
{_skill(rows, result.family, images) if rows is not None else ""}
<section class="card"><h2>Gate by gate</h2>{_gates(verdict)}</section>
{_picture("In an account", images["equity"],
          "Mean of one account per symbol. Signal at the close, filled at the next open, or sold at the close of the "
          "day on which the shares arrive; nothing is sold at the end.")}
<section class="card"><h2>Strategy beside buy-and-hold</h2>{_accounts(result, chance)}</section>
{_picture("While learning", images["learning_curves"],
          "Loss on validation days divided by that of a forecast without skill; below 1 is skill.")}
<section class="card"><h2>What a pass is worth</h2>{_gate_sets(verdict)}</section>
</div>
<section class="card"><h2>Symbol by symbol</h2>{_symbols(scores, result, verdict)}</section>
<section class="card"><h2>Read with care</h2>{_warnings(scores, result)}</section>
<section class="card"><h2>The run</h2>{_facts(facts)}</section>
</main>
</body>
</html>
"""


def _table(head: list[str], rows: Iterable[list[str]], words: int = -1) -> str:
    """An HTML table inside its own scroll container; cells are HTML already, column `words` holds sentences."""
    marks = [' class="words"' if place == words else "" for place in range(len(head))]
    top = "".join(f"<th{mark}>{escape(name)}</th>" for name, mark in zip(head, marks, strict=True))
    body = "".join("<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, marks, strict=True)) + "</tr>\n"
                   for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _number(value: Any, form: str) -> str:
    return "–" if value is None or not np.isfinite(value) else format(value, form)


def _picture(title: str, image: bytes | str, caption: str) -> str:
    if isinstance(image, str):
        return f'<section class="card"><h2>{escape(title)}</h2><p>{escape(image)}</p></section>'
    data = base64.b64encode(image).decode("ascii")
    return (f'<figure class="card"><h2>{escape(title)}</h2>'
            f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>")


def _opponents(scores: pd.DataFrame, family: str) -> str:
    pooled = summary(scores)
    pooled = pooled.iloc[np.argsort(pooled["family"].to_numpy() != family, kind="stable")]  # the model first
    head = ["Family", "Accuracy [%]", "Base rate [%]", "Symbols above it", "RMSE 1 day", "RMSE 5 days",
            "Corre\u00adlation", "Brier"]
    rows = ([escape(row.family), _number(100 * row.accuracy, ".1f"), _number(100 * row.base_rate, ".1f"),
             f"{row.above_base_rate} of {row.n_symbols}", _number(row.rmse_1, ".4f"), _number(row.rmse_5, ".4f"),
             _number(row.correlation, ".3f"), _number(row.brier, ".3f")] for row in pooled.itertuples())
    return _table(head, rows) + ('<p class="soft">Pooled over all symbols; the correlation is the median symbol\'s, '
                                 "RMSE is in log return. The zero forecast names no direction.</p>")


def _skill(rows: pd.DataFrame, family: str, images: dict[str, bytes | str]) -> str:
    """Tests over all symbols at once, which a day on which all symbols rise together does not fool."""
    loss = ((rows["mean"] - rows["actual"]) ** 2).groupby(rows["family"]).mean()
    lines = []
    for test in compare(rows[~rows["family"].isin(RULES)], family).itertuples():
        saved, low, high = (_number(100 * part / loss[test.opponent], "+.1f")
                            for part in (test.gain, test.gain_low, test.gain_high))
        lines.append([escape(test.opponent), saved, f"{low} to {high}",
                      "&lt; 0.001" if test.p < 0.001 else _number(test.p, ".3f")])
    words = ["Squared error of the 5-day return saved against each opponent, on the same rows: Diebold and Mariano's "
             "test of date means with 95% intervals; a small p says that the saving is not luck. Rules that name a "
             "direction and no size are left out: any small forecast has a smaller error."]
    order = information_coefficient(rows[rows["family"] == family])
    if len(order):
        words.append(f"Between the symbols of a day the rank correlation with what happened is "
                     f"{order['rank_ic'][0]:.3f} (p = {order['rank_ic_p'][0]:.2g}).")
    if {"low", "high"} <= set(rows.columns):
        inside = interval_coverage(rows[rows["family"] == family], COVERAGE)
        if len(inside):
            words.append(f"The intervals that promise {COVERAGE:.0%} held {inside['covered'][0]:.1%} of the outcomes "
                         f"({inside['covered_low'][0]:.1%} to {inside['covered_high'][0]:.1%}).")
    table = _table(["Against", "Error saved [%]", "95% interval [%]", "p"], lines)
    picture = _picture("What p_up is worth", images["reliability"],
                       "How often the price rose, by what was forecast. On the line, p_up means what it says; bars are "
                       "95% intervals on independent windows.")
    return (f'<section class="card"><h2>Skill, over all symbols</h2>{table}'
            f'<p class="soft">{escape(" ".join(words))}</p></section>{picture}')


def _gates(verdict: Verdict) -> str:
    """How many symbols pass each gate, fail it, or could not be asked."""
    tally: dict[str, list[int]] = {}
    asked = {gate["gate"]: gate["asked"] for found in verdict.symbols.values() for gate in found["gates"]}
    for found in verdict.symbols.values():
        for gate in found["gates"]:
            tally.setdefault(gate["gate"], [0, 0, 0])[(True, False, None).index(gate["passed"])] += 1
    rows = ([_words(gate), *map(str, counts), escape(asked[gate])] for gate, counts in tally.items())
    return _table(["Gate", "Pass", "Fail", "Not asked", "What is asked"], rows, words=4)


def _words(gate: str) -> str:
    return escape(gate.replace("_", " "))


def _accounts(result: Backtest, chance: Chance | None) -> str:
    names = {"strategy": result.family, "buy_and_hold": "buy and hold", "index": "market index, without costs"}
    head = ["Mean account", "Return [%]", "Sharpe ratio", "Max. drawdown [%]"]
    rows = ([escape(names[name]), _number(100 * row["return"], "+.1f"), _number(row["sharpe"], ".2f"),
             _number(100 * row["max_drawdown"], ".1f")] for name, row in result.totals().iterrows())
    luck = "" if chance is None else (
        f" Of {len(chance.returns):,} random strategies that trade as often and hold as long, all symbols coming and "
        f"going together, ours beats {chance.beaten:.0%}; the middle nine tenths of them return "
        f"{np.quantile(chance.returns, 0.05):+.1%} to {np.quantile(chance.returns, 0.95):+.1%}.")
    rules, costs = result.rules, result.orders["cost"].sum() / (result.capital * len(result.symbols))
    return _table(head, rows) + (
        f'<p class="soft">Costs: fee {rules.fee:.2%} of each trade, tax {rules.sale_tax:.2%} of each sale, slippage '
        f"{rules.slippage:.2%} of the price on each side, lots of {rules.lot} (10 on HOSE before 2021). "
        f"{len(result.orders):,} orders paid {costs:.1%} of the starting capital in fee and tax. Each account began "
        f"with {result.capital:,.0f} VND and holds its own symbol or cash.{luck}</p>")


def _gate_sets(verdict: Verdict) -> str:
    """Both gate sets beside each other: what passes, and what would pass without skill or with it."""
    skills = ("0.55", "0.58", "0.60")
    head = ["Gates", "Models that pass", "Coins [%]", "Buy-and-hold [%]", *(f"True {float(x):.0%} [%]" for x in skills)]
    rows = []
    for name, found in verdict.summary["gate_sets"].items():
        shares = [found["coin_pass_share"], found["buy_and_hold_pass_share"], *map(found["power"].get, skills)]
        rows.append([escape(name), f"{found['n_pass']} of {found['n_symbols']}",
                     *("–" if share is None else f"{100 * share:.1f}" for share in shares)])
    return _table(head, rows) + (
        f'<p class="soft">Coins: share of forecasters without skill that pass the accuracy gate, in {N_SIMULATED:,} '
        "simulated markets with as many windows. True 55%: share that this gate would find if every symbol had that "
        "skill. Buy-and-hold goes through the whole set. The original gates ask for accuracy above 52%, 5-day RMSE "
        "below 0.03, Sharpe ratio above 0.8 and drawdown below 10%.</p>")


def _symbols(scores: pd.DataFrame, result: Backtest, verdict: Verdict) -> str:
    mine = scores[scores["family"] == result.family].set_index("symbol")
    both = result.symbols.set_index("symbol").join(mine, how="outer").reindex(list(verdict.symbols))
    order = sorted(verdict.symbols, key=lambda name: (DECISIONS.index(verdict.symbols[name]["decision"]), name))
    head = ["Symbol", "Decision", "Accuracy [%]", "95% interval", "Base rate [%]", "Windows", "RMSE 5 days",
            "Return [%]", "Buy-and-hold [%]", "Sharpe ratio", "Trades", "Why"]

    def line(symbol: str) -> list[str]:
        row, found = both.loc[symbol], verdict.symbols[symbol]
        interval = f"{_number(100 * row['accuracy_low'], '.0f')} to {_number(100 * row['accuracy_high'], '.0f')}"
        failed = [_words(gate["gate"]) for gate in found["gates"] if gate["passed"] is False]
        why = f"fails: {', '.join(failed)}" if failed else "fails no gate that could be asked"
        reasons = "".join(f"<p>{escape(reason)}</p>" for reason in found["reasons"])
        return [escape(symbol), f'<span class="tag {escape(found["decision"])}">{escape(found["decision"])}</span>',
                _number(100 * row["accuracy"], ".1f"), interval, _number(100 * row["base_rate"], ".1f"),
                _number(row["n_independent"], ".0f"), _number(row["rmse_5"], ".4f"),
                _number(100 * row["return"], "+.1f"), _number(100 * row["buy_and_hold_return"], "+.1f"),
                _number(row["sharpe"], ".2f"), _number(row["n_trades"], ".0f"),
                f"<details><summary>{why}</summary>{reasons}</details>"]

    return _table(head, map(line, order), words=len(head) - 1)


def _warnings(scores: pd.DataFrame, result: Backtest) -> str:
    zero, mine = (scores[scores["family"] == family] for family in ("zero", result.family))
    met = "" if zero.empty else (f" Here the zero forecast is below 0.03 on {(zero['rmse_1'] < 0.03).mean():.0%} of "
                                 f"the symbols for one day, and on {(zero['rmse_5'] < 0.03).mean():.0%} for five.")
    flat = (mine["flat_share"] * mine["n_days"]).sum() / mine["n_days"].sum()
    lines = [
        "An RMSE of 0.03 is met by the zero forecast for one day (h = 1) and out of reach for five (h = 5): it says "
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
