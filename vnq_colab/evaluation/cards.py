"""The cards of the report: each makes one piece of the page, as HTML, of finished results; nothing is drawn here."""

from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.evaluation.backtest import Backtest
from vnq_colab.evaluation.breakdown import FORMS, by_group, coverage_drift, hits, in_words, last_predictions
from vnq_colab.evaluation.chance import Chance
from vnq_colab.evaluation.gates import DECISIONS, Verdict
from vnq_colab.evaluation.metrics import summary
from vnq_colab.evaluation.page import Column, card, download, escape, more, number, soft, table
from vnq_colab.evaluation.probability import expected_calibration_error, interval_coverage
from vnq_colab.evaluation.questions import RULES
from vnq_colab.evaluation.skill import compare, information_coefficient

COVERAGE = 0.9  # that calibrated intervals promise
N_LAST = 5  # origins with an outcome that are shown of each symbol


def opponents(scores: pd.DataFrame, family: str, rows: pd.DataFrame | None) -> str:
    """The families beside each other: the usual measures, and the others behind a click."""
    pooled = summary(scores)
    pooled = pooled.iloc[np.argsort(pooled["family"].to_numpy() != family, kind="stable")]  # the model first
    above = [f"{row.above_base_rate} of {row.n_symbols}" for row in pooled.itertuples()]
    first = table(
        "opponents", Column("Family", pooled["family"]), Column("Accuracy [%]", 100 * pooled["accuracy"], ".1f"),
        Column("Base rate [%]", 100 * pooled["base_rate"], ".1f"), Column("Symbols above it", above),
        Column("RMSE per day", pooled["rmse_day"], ".4f"), Column("RMSE 5 days", pooled["rmse_5"], ".4f"),
        Column("Corre\u00adlation", pooled["correlation"], ".3f"), Column("Brier", pooled["brier"], ".3f"))
    others = {"Balanced accuracy [%]": (100 * pooled["balanced_accuracy"], ".1f"), "MCC": (pooled["mcc"], ".3f"),
              "Rank corre\u00adlation": (pooled["rank_correlation"], ".3f"), "Log loss": (pooled["log_loss"], ".3f"),
              "CRPS [log return]": (pooled["crps"], ".4f"), "MAE 5 days [log return]": (pooled["mae_5"], ".4f"),
              "Price error 5 days [%]": (100 * pooled["mape_5"], ".2f")}
    if rows is not None:
        miss = pooled["family"].map(expected_calibration_error(rows))
        others["Calibra\u00adtion error [%]"] = (100 * miss, ".1f")
    second = table("more_measures", Column("Family", pooled["family"]),
                   *(Column(label, *what) for label, what in others.items()))
    return card("The model and its opponents, same days", first, soft(
        "Pooled over all symbols; the correlation is the median symbol's, RMSE is in log return. The zero forecast "
        "names no direction."), more("More measures", second, soft(
            "Matthews' correlation (MCC), balanced accuracy and rank correlation are the median symbol's. A coin has "
            "a log loss of 0.693, a balanced accuracy of 50% and an MCC of 0.")))


def order(whole: pd.DataFrame, by_year: pd.DataFrame) -> str:
    """The families' rank correlations, and behind a click by year."""
    def shown(name: str, found: pd.DataFrame) -> str:
        period = [] if (found["period"] == "all").all() else [Column("Year", found["period"])]
        return table(
            name, Column("Family", found["family"]), *period, Column("Days", found["n_days"], ",.0f"),
            Column("Open to open", found["open"], ".3f"), Column("t", found["open_t"], ".1f"),
            Column("Close to close", found["close"], ".3f"), Column("t ", found["close_t"], ".1f"),
            Column("Days above 0 [%]", 100 * found["positive"], ".0f"))

    return card("The order of a day", shown("rank_correlations", whole), soft(
        "Daily Spearman rank correlation of score and outcome over the stocks that could be bought at the next open; t "
        "with HAC errors. Open to open, from the next open to the open five days later, is what can be traded."),
        more("By year", shown("rank_correlations_by_year", by_year)))


def skill(rows: pd.DataFrame, family: str) -> str:
    """Tests over all symbols at once, which a day on which all symbols rise together does not fool."""
    loss = ((rows["mean"] - rows["actual"]) ** 2).groupby(rows["family"]).mean()
    tests = compare(rows[~rows["family"].isin(RULES)], family)
    saved = 100 * tests[["gain", "gain_low", "gain_high"]].div(tests["opponent"].map(loss), axis=0)
    small = ["&lt; 0.001" if p < 0.001 else number(p, ".3f") for p in tests["p"]]
    words = ["Squared error of the 5-day return saved against each opponent, on the same rows: Diebold and Mariano's "
             "test of date means with 95% intervals; a small p says that the saving is not luck. Rules that name a "
             "direction and no size are left out: any small forecast has a smaller error."]
    order = information_coefficient(rows[rows["family"] == family])
    if len(order):
        words.append(f"Between the symbols of a day the rank correlation with what happened is "
                     f"{order['rank_ic'][0]:.3f} (p = {order['rank_ic_p'][0]:.2g}).")
    return card("Skill, over all symbols", table(
        "skill", Column("Against", tests["opponent"]), Column("Error saved [%]", saved["gain"], "+.1f"),
        Column("95% interval [%]", saved[["gain_low", "gain_high"]].to_numpy(), "+.1f"),
        Column("p", tests["p"], html=small)), soft(*words))


def groups(rows: pd.DataFrame, prices: pd.DataFrame, family: str) -> str:
    """By exchange and by liquidity."""
    found = by_group(rows, prices, family)
    names = [group if kind != "liquidity" else f"{group} liquidity" for kind, group in found[["kind", "group"]].values]
    return card("By exchange and liquidity", table(
        "groups", Column("Symbols", names), Column("Number", found["n_symbols"], ".0f"),
        Column("Traded a day [billion VND]", found["traded_value"] / 1e9, ",.1f"),
        Column("Accuracy [%]", 100 * found["accuracy"], ".1f"),
        Column("Base rate [%]", 100 * found["base_rate"], ".1f"),
        Column("Excess [points]", 100 * found["excess"], "+.1f"),
        Column("95% interval [points]", 100 * found[["excess_low", "excess_high"]].to_numpy(), "+.1f"),
        Column("RMSE 5 days", found["rmse_5"], ".4f"), Column("Error saved [%]", 100 * found["saved"], "+.1f")), soft(
            "Excess: accuracy less the base rate of these very days, which nobody knew beforehand; its interval counts "
            "each date once, because symbols move together. Error saved: squared error of the 5-day return, against "
            "the zero forecast. Liquidity: thirds of the symbols by their median traded value."))


def intervals(rows: pd.DataFrame, family: str) -> str:
    """Whether the intervals hold what they promise, and how that moves; nothing where there are none."""
    found = coverage_drift(rows, family, COVERAGE)
    if found.empty:
        return ""
    whole = interval_coverage(rows[rows["family"] == family], COVERAGE).iloc[0]
    first, last, worst = found.iloc[0], found.iloc[-1], found.loc[found["covered"].idxmin()]
    broken = found.loc[found["covered_high"] < COVERAGE, "period"]
    words = [f"The intervals that promise {COVERAGE:.0%} held {whole['covered']:.1%} of the outcomes "
             f"({whole['covered_low']:.1%} to {whole['covered_high']:.1%})."]
    if len(found) > 1:
        words.append(f"Drift: {first['covered']:.1%} in {first['period']}, {last['covered']:.1%} in {last['period']}, "
                     f"least in {worst['period']} with {worst['covered']:.1%}.")
        words.append(f"Clearly less than promised in {', '.join(broken)}." if len(broken) else
                     "In no period is that clearly less than promised.")
    return card("Do the intervals hold?", table(
        "intervals", Column("Period", found["period"]), Column("Outcomes", found["n_days"], ",.0f"),
        Column("Inside [%]", 100 * found["covered"], ".1f"),
        Column("95% interval [%]", 100 * found[["covered_low", "covered_high"]].to_numpy(), ".0f"),
        Column("Width [log re\u00adturn]", found["width"], ".3f")), soft(*words))


def gates(verdict: Verdict) -> str:
    """How many symbols pass each gate, fail it, or could not be asked."""
    tally: dict[str, list[int]] = {}
    asked = {gate["gate"]: gate["asked"] for found in verdict.symbols.values() for gate in found["gates"]}
    for found in verdict.symbols.values():
        for gate in found["gates"]:
            tally.setdefault(gate["gate"], [0, 0, 0])[(True, False, None).index(gate["passed"])] += 1
    counts = np.array(list(tally.values())).reshape(-1, 3)
    return card("Gate by gate", table(
        "gates", Column("Gate", list(map(_words, tally)), kind="long"),
        *(Column(label, counts[:, place]) for place, label in enumerate(("Pass", "Fail", "Not asked"))),
        Column("What is asked", [asked[gate] for gate in tally], kind="words")))


def _words(gate: str) -> str:
    return gate.replace("_", " ")


def accounts(result: Backtest, chance: Chance | None) -> str:
    """The mean account beside buy-and-hold, what it paid, and what luck would have done."""
    names = {"strategy": result.family, "buy_and_hold": "buy and hold", "index": "market index, without costs"}
    totals = result.totals()
    luck = "" if chance is None else (
        f"Of {len(chance.returns):,} random strategies that trade as often and hold as long, all symbols coming and "
        f"going together, ours beats {chance.beaten:.0%}; the middle nine tenths of them return "
        f"{np.quantile(chance.returns, 0.05):+.1%} to {np.quantile(chance.returns, 0.95):+.1%}.")
    rules, costs = result.rules, result.orders["cost"].sum() / (result.capital * len(result.symbols))
    return card("Strategy beside buy-and-hold", table(
        "accounts", Column("Mean account", totals.index.map(names), kind="long"),
        Column("Return [%]", 100 * totals["return"], "+.1f"), Column("Sharpe ratio", totals["sharpe"], ".2f"),
        Column("Max. drawdown [%]", 100 * totals["max_drawdown"], ".1f")), soft(
            f"Costs: fee {rules.fee:.2%} of each trade, tax {rules.sale_tax:.2%} of each sale, slippage "
            f"{rules.slippage:.2%} of the price on each side, lots of {rules.lot} (10 on HOSE before 2021). "
            f"{len(result.orders):,} orders paid {costs:.1%} of the starting capital in fee and tax. Each account "
            f"began with {result.capital:,.0f} VND and holds its own symbol or cash.", luck))


def strategies(found: pd.DataFrame, looks: dict[str, Any]) -> str:
    """What other ways of trading the same forecast would have done."""
    percent = {"return": ("Return [%]", "+.1f"), "max_drawdown": ("Max. draw\u00addown [%]", ".1f"),
               "hit_rate": ("Trades that gain [%]", ".0f"), "exposure": ("Money in shares [%]", ".0f"),
               "deflated_sharpe": ("Deflated Sharpe [%]", ".0f")}
    plain = {"sharpe": ("Sharpe ratio", ".2f"), "sortino": ("Sortino ratio", ".2f"), "calmar": ("Calmar ratio", ".2f"),
             "turnover": ("Turnover [a year]", ".1f"), "profit_factor": ("Profit factor", ".2f"),
             "n_orders": ("Orders", ",.0f")}
    columns = [Column(percent[name][0], 100 * found[name], percent[name][1]) if name in percent else
               Column(plain[name][0], found[name], plain[name][1]) for name in found.columns if name != "strategy"]
    trials = looks.get("n_trials")
    least = f"what the best of {trials:,} configurations without skill would show" if trials else "0"
    names = Column("Mean account", found["strategy"], kind="long")
    return card("Strategies", table("strategies", names, *columns), soft(
        "The same days, rules and costs for all. Turnover: how "
        "often a year the whole account is bought and sold again. Profit factor: gains of closed trades over losses. "
        f"Deflated Sharpe: how seldom a ratio like this is measured where the true one is {least}."))


def gate_sets(verdict: Verdict) -> str:
    """Both gate sets beside each other: what passes, and what would pass without skill or with it."""
    sets, skills = verdict.summary["gate_sets"], ("0.01", "0.02", "0.05")
    n_simulated = max((found.get("n_simulated") or 0 for found in sets.values()), default=0)
    many = f"about {n_simulated:,}" if n_simulated else "many"

    def share(value: Any) -> float:
        return np.nan if value is None else 100 * value

    return card("What a pass is worth", table(
        "gate_sets", Column("Gates", list(sets)),
        Column("Models that pass", [f"{found['n_pass']} of {found['n_symbols']}" for found in sets.values()]),
        Column("Coins [%]", [share(found["coin_pass_share"]) for found in sets.values()], ".1f"),
        Column("Buy-and-hold [%]", [share(found["buy_and_hold_pass_share"]) for found in sets.values()], ".1f"),
        *(Column(f"True R² {float(true):.0%} [%]", [share(found["power"].get(true)) for found in sets.values()], ".0f")
          for true in skills)), soft(
        f"Coins: of {many} simulated forecasters without skill, on the same days and symbols, so many pass all "
        "gates that need no opponents. True R²: of those whose forecasts truly explain 1, 2 or 5% of the variance of "
        "5-day returns, so many would be found; what is not found is not proven worthless. – was not simulated. The "
        "original gates ask for accuracy above 52%, 5-day RMSE below 0.03, Sharpe ratio above 0.8 and drawdown below "
        "10%."))


def changes(verdict: Verdict) -> str:
    """What differs from the last accepted run, judged on the same days."""
    title, previous = "What changed since the last accepted run", verdict.summary.get("previous")
    if not previous:
        return card(title, "<p>No accepted run stands before this one: there is nothing to compare with.</p>")
    now = {symbol: found["decision"] for symbol, found in verdict.symbols.items()}
    told = f"<p>{escape(previous['text'])}</p>"
    if not previous["symbols"]:
        return card(title, told)
    olds, kept = previous["symbols"], set(previous["kept"])
    before = {symbol: found.get("old_decision") for symbol, found in olds.items()}
    lists = {"Newly accepted": [name for name in now if now[name] == "accept" and before.get(name) != "accept"],
             "Accepted no longer": [name for name in now if now[name] != "accept" and before.get(name) == "accept"],
             "The old model stays": sorted(kept)}
    said = "".join(f"<p>{escape(label)} ({len(names)}): {escape(', '.join(names))}.</p>"
                   for label, names in lists.items() if names)
    order = sorted(olds, key=lambda name: (name not in kept, name))
    old, new = (np.array([olds[name].get(key) for name in order], "float64")
                for key in ("old_accuracy", "new_accuracy"))
    rows = table("changes", Column("Symbol", order), Column("Accuracy before [%]", 100 * old, ".1f"),
                 Column("Accuracy now [%]", 100 * new, ".1f"), Column("Change [points]", 100 * (new - old), "+.1f"),
                 Column("Decision before", [before[name] or "–" for name in order]),
                 Column("Decision now", [now.get(name, "–") for name in order]),
                 Column("In use", ["old model" if name in kept else "new model" for name in order]))
    days = (f"Run {previous['run_id']} beside this one, on {previous['n_days']} common days, {previous['first']} to "
            f"{previous['last']}.")
    return card(title, told, said, more("Symbol by symbol", rows), soft(days))


def leak_checks(verdict: Verdict) -> str:
    """What was done to find a leak; nothing where nothing was checked."""
    found = verdict.summary.get("leak_checks") or []
    return card("Leak checks", table(
        "leak_checks", Column("Check", [_words(check["check"]) for check in found], kind="long"),
        Column("Result", ["passed" if check["passed"] else "FAILED" for check in found]),
        Column("What was found", [check["sentence"] for check in found], kind="words"))) if found else ""


def symbols(scores: pd.DataFrame, result: Backtest, verdict: Verdict) -> str:
    """One row for each symbol: the decision, the numbers, and the reasons behind a click."""
    mine = scores[scores["family"] == result.family].set_index("symbol")
    order = sorted(verdict.symbols, key=lambda name: (DECISIONS.index(verdict.symbols[name]["decision"]), name))
    both = result.symbols.set_index("symbol").join(mine, how="outer").reindex(order)
    decisions, why, details = [], [], []
    for symbol in order:
        found = verdict.symbols[symbol]
        failed = [_words(gate["gate"]) for gate in found["gates"] if gate["passed"] is False]
        decisions.append(f'<span class="tag {escape(found["decision"])}">{escape(found["decision"])}</span>')
        why.append(" ".join(found["reasons"]))
        short = (f"fails {len(failed)} gates" if len(failed) > 1 else
                 f"fails: {failed[0]}" if failed else "fails no gate that could be asked")
        reasons = "".join(f"<p>{escape(reason)}</p>" for reason in found["reasons"])
        details.append(f"<details><summary>{escape(short)}</summary>{reasons}</details>")
    return card("Symbol by symbol", table(
        "symbols", Column("Symbol", order),
        Column("Decision", [verdict.symbols[name]["decision"] for name in order], html=decisions),
        Column("Accuracy [%]", 100 * both["accuracy"], ".1f"),
        Column("95% interval [%]", 100 * both[["accuracy_low", "accuracy_high"]].to_numpy(), ".0f"),
        Column("Base rate [%]", 100 * both["base_rate"], ".1f"), Column("Windows", both["n_independent"], ".0f"),
        Column("RMSE 5 days", both["rmse_5"], ".4f"), Column("Return [%]", 100 * both["return"], "+.1f"),
        Column("Buy-and-hold [%]", 100 * both["buy_and_hold_return"], "+.1f"),
        Column("Sharpe ratio", both["sharpe"], ".2f"), Column("Trades", both["n_trades"], ".0f"),
        Column("Why", why, kind="words", html=details)))


def predictions(rows: pd.DataFrame, forecast: pd.DataFrame, prices: pd.DataFrame, family: str) -> str:
    """The last forecasts of each symbol beside what happened, each symbol behind a click."""
    found = last_predictions(rows, forecast, prices, family, N_LAST)
    shown = in_words(found)
    parts = []
    for symbol, part in shown.groupby("Symbol", sort=True):
        columns = (Column(label, part[label], FORMS[label]) for label in part.columns[1:])
        parts.append(more(f"{symbol}: {hits(found.loc[part.index])}, now {part['Expected [%]'].iloc[-1]:+.1f}%",
                          table(symbol, *columns, csv=False)))
    return card("The last days, symbol by symbol", soft(
        f"The last {N_LAST} forecasts whose 5 days are over, and those that are still open: the price change expected, "
        "what came, whether the direction was right, and the ends of the 90% interval."),
        f'<div class="beside">{"".join(parts)}</div>', download("predictions", shown))
