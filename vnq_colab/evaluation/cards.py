"""The sections of the report below its first screen: each makes one piece of the page, as HTML, of finished results.

Nothing is computed here that a result does not hold, and nothing is drawn: pictures come as PNG, by name.
"""

import json
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON
from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.basket_result import BasketResult
from vnq_colab.evaluation.metrics import summary
from vnq_colab.evaluation.order import Order, order_text
from vnq_colab.evaluation.page import (
    BLUE,
    ORANGE,
    Column,
    card,
    download,
    escape,
    more,
    number,
    picture,
    soft,
    table,
)
from vnq_colab.evaluation.past_forecasts import coverage_by_period, past_forecasts
from vnq_colab.evaluation.verdict import DECISIONS, Verdict

COVERAGE = 0.9  # that calibrated intervals promise
N_RECENT = 60  # evenings of each stock that can be looked at
MONTHS = ("J", "F", "M", "A", "M", "J", "J", "A", "S", "O", "N", "D")
Images = dict[str, "bytes | str"]


def why(verdict: Verdict) -> str:
    """The verdict in sentences, and each question to the market with its answer."""
    gates, about = verdict.market["gates"], verdict.summary
    marks = [{True: "passed", False: "FAILED", None: "not measured"}[gate["passed"]] for gate in gates]
    return card("Why", f"<p>{escape(about['text'])}</p>", table(
        "market_gates", Column("Asked of the market", [gate["asked"] for gate in gates], kind="words"),
        Column("Answer", marks), Column("Measured", [gate["measured"] for gate in gates], ",.4g"),
        Column("Needed", [gate["needed"] for gate in gates], ",.4g"),
        Column("95% interval", np.array([[gate["low"], gate["high"]] for gate in gates], "float64").reshape(-1, 2),
               ".3f")),
        soft(about["evaluations"]["text"]), _power(about), anchor="why")


def _power(about: dict[str, Any]) -> str:
    """What the gates would find, and what would pass without skill."""
    said = [f"{100 * share:.1f}% where {'it' if place else 'the true rank correlation'} is {float(planted):.2f}"
            for place, (planted, share) in enumerate(sorted((about.get("power") or {}).items()))]
    return soft("What a pass is worth: the share of simulated orders that these gates accept is "
                f"{', '.join(said)}. What is not found is not proven worthless.") if said else ""


def holds(order: Order, images: Images) -> str:
    """Does the order hold: quantiles, horizons, groups, years."""
    groups, lags = order.groups, order.autocorrelation
    kinds = {"exchange": "Exchange", "liquidity": "Liquidity", "horizon": "Horizon [days]", "without": "Without"}
    names = [f"{kinds.get(kind, kind)}: {name}" for kind, name in groups[["group", "name"]].to_numpy()]
    return card(
        "Does the order hold?", soft(order_text(order.families, order.family)), picture(
            "Quantile returns and horizons", images["order"],
            f"Above: return from the next open to the open {HORIZON} days later, before costs. Below: rank correlation "
            "by horizon. Bars are 95% intervals."),
        soft(f"Quantile returns that do not rise from each to the next are refuted with p "
             f"{number(order.monotone_p, '.3f')}. {number(100 * order.turnover, '.0f')}% of the best fifth are "
             "exchanged from one day to the next; a day's ranks correlate with those "
             + ", ".join(f"{lag:.0f} days before by {number(value, '.2f')}" for lag, value in lags.to_numpy())
             + f". Outcome per unit of edge: {number(order.slope, '.2f')} ± {number(order.slope_error, '.2f')} "
             "(1 is right, below 1 is overconfident)."),
        more("By exchange, liquidity, horizon, and what is left without known factors", table(
            "groups", Column("Group", names, kind="long"), Column("Days", groups["n_days"], ",.0f"),
            Column("Rank correlation", groups["value"], ".3f"), Column("t", groups["t"], ".1f")), soft(
                "Without: the ranks of a factor are taken out of the score by a regression of each day.")),
        more("Quantile by quantile", table(
            "quantiles", Column("Quantile", order.quantiles["quantile"]),
            Column("Days", order.quantiles["n_days"], ",.0f"),
            Column("5-day excess [%]", 100 * order.quantiles["excess"], "+.2f"),
            Column("95% interval [%]", 100 * order.quantiles[["low", "high"]].to_numpy(), "+.2f"))))


def families(order: Order, verdict: Verdict, scores: pd.DataFrame) -> str:
    """What each family adds."""
    found, best = order.families, verdict.summary.get("confidence_set") or []
    pooled = summary(scores).set_index("family").reindex(found["family"])
    years = order.by_year
    return card(
        "What each family adds", table(
            "families", Column("Family", found["family"]), Column("Open to open", found["open"], ".3f"),
            Column("t", found["open_t"], ".1f"), Column("Among the best", ["yes" if name in best else ""
                                                                       for name in found["family"]]),
            Column("Close to close", found["close"], ".3f"), Column("t ", found["close_t"], ".1f"),
            Column("Days above 0 [%]", 100 * found["positive"], ".0f"),
            Column("Accuracy [%]", 100 * pooled["accuracy"], ".1f"), Column("RMSE 5 days", pooled["rmse_5"], ".4f")),
        soft("Mean daily Spearman rank correlation over the stocks that could be bought; t with HAC errors. Among the "
             "best: in the 90% model confidence set, which cannot be told from the best (Hansen, Lunde & Nason 2011)."),
        more("By year", table(
            "by_year", Column("Family", years["family"]), Column("Year", years["period"]),
            Column("Days", years["n_days"], ",.0f"), Column("Open to open", years["open"], ".3f"),
            Column("95% interval", years[["low", "high"]].to_numpy(), ".3f"), Column("t", years["open_t"], ".1f"))))


def basket(result: BasketResult | None, images: Images) -> str:
    """The basket after costs: years, months, luck, costs, capacity."""
    if result is None:
        return card("The basket", '<a id="costs"></a>', soft("Too few stocks were judged: no basket was traded."),
                    anchor="years")
    rule, years, names = result.basket, result.by_year, {"equal_weighted": "Equal-weighted [%]", "index": "VNINDEX [%]"}
    equity, capacity, seldom = result.equity, result.capacity, result.seldom
    picks = result.chosen.drop_duplicates(["k", "keep"])
    columns = [Column(label, 100 * years[name], "+.1f") for name, label in names.items() if years[name].notna().any()]
    rules, ledger = result.trades.rules, result.trades.daily
    cash = ledger[ledger["symbol"] == ""].set_index("date")["cash"]
    exposure = 1 - (cash / result.trades.equity["strategy"]).mean()
    by_year = card(
        "The basket, year by year", picture("Basket", images["basket"], (
            f"Up to {rule.k} stocks with equal weights, exchanged below rank {rule.keep} where that pays for its "
            f"costs, kept at least {rule.hold_days} days, {result.capital / 1e9:g} billion VND, all costs.")),
        table("basket_by_year", Column("Year", years["year"]), Column("Basket [%]", 100 * years["basket"], "+.1f"),
              *columns, Column("Excess [%]", 100 * years["excess"], "+.1f"),
              Column("Draw\u00addown [%]", 100 * years["max_drawdown"], ".1f")),
        "<h3>Month by month, after costs [%]</h3>", _months(equity["basket"]),
        download("equity_by_day", equity.rename_axis("date").add_suffix(" [VND]").reset_index()), anchor="years")
    costs = card(
        "Costs and capacity", soft(
            f"Turnover {result.turnover:.1f} a year (one-sided), costs {result.cost:.1%} of the account a year: fee "
            f"{rules.fee:.2%}, tax {rules.sale_tax:.2%} of sales, slippage {rules.slippage:.2%} each side. Before "
            f"costs the alpha would be about {result.alpha + result.cost:+.1%}, after them it is {result.alpha:+.1%} "
            f"(t {result.alpha_t:.1f}); it is gone at a slippage of {number(100 * result.break_even, '.2f')}%. Excess "
            f"over the universe {result.excess:+.1%} a year (t {result.excess_t:.1f}), information ratio "
            f"{result.information_ratio:.2f}. {exposure:.0%} of the account is in shares on the average day."),
        table("capacity", Column("Capital [billion VND]", capacity["capital"] / 1e9, ",g"),
              Column("A year [%]", 100 * capacity["yearly"], "+.1f"),
              Column("Alpha [%]", 100 * capacity["alpha"], "+.1f"), Column("t", capacity["alpha_t"], ".1f"),
              Column("Not filled [%]", 100 * capacity["unfilled"], ".1f")),
        more("Trading less often", table(
            "less_often", Column("Held at least [days]", seldom["hold_days"]),
            Column("A year [%]", 100 * seldom["yearly"], "+.1f"), Column("Alpha [%]", 100 * seldom["alpha"], "+.1f"),
            Column("t", seldom["alpha_t"], ".1f"))) if len(seldom) else "",
        picture("Random baskets", images["random_baskets"],
                f"Ours has a larger alpha than {100 * result.beaten:.1f}% of them."),
        soft(_chosen(picks)), anchor="costs")
    return by_year + costs


def _chosen(picks: pd.DataFrame) -> str:
    found = [f"{row.k}, sold below rank {row.keep}, since {pd.Timestamp(row.first):%Y}" for row in picks.itertuples()]
    return f"The rule of the test days, chosen on validation days before them: {'; '.join(found)}."


def _months(equity: pd.Series) -> str:
    """Returns by month [%], a row per year, coloured from loss to gain."""
    ends = equity.groupby([equity.index.year, equity.index.month]).last()
    change = 100 * (ends / ends.shift(1, fill_value=equity.iloc[0]) - 1)
    lines = []
    for year in sorted(equity.index.year.unique()):
        cells = []
        for month in range(1, 13):
            value = change.get((year, month), np.nan)
            strength = 0 if np.isnan(value) else min(int(255 * abs(value) / 20), 150)
            cells.append("<td></td>" if np.isnan(value) else
                         f'<td style="background:{BLUE if value >= 0 else ORANGE}{strength:02x}">{value:.0f}</td>')
        lines.append(f"<tr><td>{year}</td>{''.join(cells)}</tr>")
    top = "".join(f"<th>{month}</th>" for month in MONTHS)
    return f'<table class="heat"><thead><tr><th></th>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def stocks(order: Order, scores: pd.DataFrame, result: Backtest, verdict: Verdict, images: Images) -> str:
    """All stocks: the spread of accuracies first, then one row for each with a box to search."""
    mine = scores[scores["family"] == order.family].set_index("symbol")
    names = sorted(verdict.symbols, key=lambda name: (DECISIONS.index(verdict.symbols[name]["decision"]), name))
    own, place = (part.set_index("symbol").reindex(names) for part in (result.symbols, order.symbols))
    mine = mine.reindex(names)
    decisions, reasons, details = [], [], []
    for name in names:
        found = verdict.symbols[name]
        failed = [gate["gate"].replace("_", " ") for gate in found["gates"] if gate["passed"] is False]
        decisions.append(f'<span class="tag {escape(found["decision"])}">{escape(found["decision"])}</span>')
        reasons.append(" ".join(found["reasons"]))
        label = f"fails: {', '.join(failed)}" if failed else "no gate failed"
        details.append(more(label, *(f"<p>{escape(reason)}</p>" for reason in found["reasons"])) or escape(label))
    return card(
        f"All {len(names)} stocks", picture(
            "Accuracies", images["accuracies"], "Most of the spread is luck: the dashed line is what as many coins "
            "would show on so many independent 5-day windows. A single high bar proves nothing."),
        table("symbols", Column("Symbol", names),
              Column("Decision", [verdict.symbols[name]["decision"] for name in names], html=decisions),
              Column("Place in the order", place["place"], ".3f"), Column("± error", place["place_error"], ".3f"),
              Column("Accuracy [%]", 100 * mine["accuracy"], ".1f"),
              Column("95% interval [%]", 100 * mine[["accuracy_low", "accuracy_high"]].to_numpy(), ".0f"),
              Column("Base rate [%]", 100 * mine["base_rate"], ".1f"), Column("Windows", mine["n_independent"], ".0f"),
              Column("RMSE 5 days", mine["rmse_5"], ".4f"),
              Column("Traded a day [bn VND]", place["traded_value"] / 1e9, ",.1f"),
              Column("Locked [%]", 100 * place["locked"], ".1f"),
              Column("Own account [%]", 100 * own["return"], "+.1f"),
              Column("Buy-and-hold [%]", 100 * own["buy_and_hold_return"], "+.1f"),
              Column("Why", reasons, kind="words", html=details), search=f"search {len(names)} stocks, or a decision"),
        soft("Place: mean product of its standardised ranks of score and outcome within a day; their mean is the rank "
             "correlation. Base rate: always naming the more frequent direction. Locked: days on which it could not be "
             "bought. Own account: long or flat in this stock alone, after costs."),
        more("Accuracies one by one", picture("Accuracy by symbol", images["symbol_accuracy"])), anchor="stocks")


def one_stock(forecast: pd.DataFrame, rows: pd.DataFrame, family: str, verdict: Verdict, prices: pd.DataFrame) -> str:
    """The last forecasts of a chosen stock beside the actual price change."""
    found = past_forecasts(forecast, rows, family, n_days=N_RECENT)
    price = "raw_close" if "raw_close" in prices else "close"  # as on the board
    last = prices.dropna(subset=[price]).groupby("symbol")[price].last() / 1000
    ends = {"low": "low", "high": "high"} if "low" in found else {"low": "expected", "high": "expected"}
    data = {}
    for symbol, part in found.groupby("symbol"):
        known = verdict.symbols.get(symbol, {"decision": "unjudged", "reasons": []})
        data[symbol] = {
            "first": f"{part['date'].iloc[0]:%d/%m/%Y}", "last": f"{part['date'].iloc[-1]:%d/%m/%Y}",
            "expected": part["expected"].round(1).tolist(), "actual": part["actual"].round(1).tolist(),
            **{end: part[name].round(1).tolist() for end, name in ends.items()},
            "about": f"{known['decision']}. Close {last.get(symbol, np.nan):,.2f} thousand VND. "
                     f"{' '.join(known['reasons'][:1])}"}
    order = sorted(data, key=lambda name: (verdict.symbols.get(name, {}).get("decision") != "accept", name))
    options = "".join(f"<option>{escape(name)}</option>" for name in order)
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no name can end the script
    return card(
        "One stock: forecast and outcome", f'<p><select id="chooser" aria-label="stock">{options}</select></p>'
        '<svg id="drawing" viewBox="0 0 360 178" role="img" aria-label="forecast and outcome"></svg>'
        '<p class="soft" id="about"></p>', soft(
            f"Price change over 5 days [%] by the evening of the forecast, last {N_RECENT}: forecast blue, its 90% "
            "interval shaded, actual orange. Neighbouring evenings share four of their five days."),
        f'<script type="application/json" id="recent">{text}</script>')


def intervals(rows: pd.DataFrame, family: str) -> str:
    """Whether the intervals hold what they promise, too wide said like too narrow; nothing where there are none."""
    found = coverage_by_period(rows, family)
    if found.empty:
        return ""
    narrow = list(found.loc[found["high"] < COVERAGE, "period"])
    wide = list(found.loc[found["low"] > COVERAGE, "period"])
    return card("Do the intervals hold?", soft(
        f"They promise {COVERAGE:.0%} and held {np.average(found['covered'], weights=found['n_days']):.1%}.",
        f"Too narrow in {', '.join(narrow)}." if narrow else "Too narrow in no period.",
        f"Too wide in {', '.join(wide)}." if wide else "Too wide in none."), more("Period by period", table(
            "intervals", Column("Period", found["period"]), Column("Evenings", found["n_days"], ",.0f"),
            Column("Inside [%]", 100 * found["covered"], ".1f"),
            Column("95% interval [%]", 100 * found[["low", "high"]].to_numpy(), ".0f"),
            Column("Width [log re\u00adturn]", found["width"], ".3f"))))


def original(verdict: Verdict) -> str:
    """The gates of the project's source texts, with what would pass them by luck."""
    found = verdict.summary.get("original") or {}

    def share(name: str) -> str:
        value = found.get(name)
        return "–" if value is None else f"{100 * value:.1f}%"

    return card("The original gates", soft(
        f"{found.get('n_pass', 0)} of {len(verdict.symbols)} stocks pass the gates of the source texts (accuracy above "
        "52%, 5-day RMSE below 0.03, Sharpe ratio above 0.8, drawdown below 10%); of coins "
        f"{share('coin_pass_share')} would, of buy-and-hold {share('buy_and_hold_pass_share')}. They decide nothing "
        "unless asked for."))


def changes(verdict: Verdict) -> str:
    """What differs from the last accepted run, judged on the same days."""
    previous = verdict.summary.get("previous")
    if not previous:
        return ""
    olds, kept = previous.get("symbols") or {}, set(previous.get("kept") or [])
    names = sorted(olds, key=lambda name: (name not in kept, name))
    keys = list(dict.fromkeys(key for name in names for key in olds[name]))
    columns = [Column(key.replace("_", " "), [olds[name].get(key) for name in names],
                      "" if any(isinstance(olds[name].get(key), str) for name in names) else ".3f") for key in keys]
    return card("Since the last accepted run", f"<p>{escape(previous['text'])}</p>", more("Symbol by symbol", table(
        "changes", Column("Symbol", names), *columns)) if names else "")


def leak_checks(verdict: Verdict) -> str:
    """What was done to find a leak; nothing where nothing was checked."""
    found = verdict.summary.get("leak_checks") or []
    return card("Leak checks", table(
        "leak_checks", Column("Check", [check["check"].replace("_", " ") for check in found], kind="long"),
        Column("Result", ["passed" if check["passed"] else "FAILED" for check in found]),
        Column("What was found", [check["sentence"] for check in found], kind="words"))) if found else ""
