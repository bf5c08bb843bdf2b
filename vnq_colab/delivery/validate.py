"""Validation: the folds' forecasts scored beside the opponents, traded as a basket, judged, reported, and browsed."""

import base64
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.config import require_known
from vnq_colab.data.forecast import check_forecast, make_labels
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.data.panel import Panel, default_universe
from vnq_colab.data.prepared import Prepared, load_prepared
from vnq_colab.data.splits import DayRange, Splits, to_day
from vnq_colab.delivery.earlier_runs import against_previous, n_trials, record_evaluation
from vnq_colab.delivery.leaks import check_leaks
from vnq_colab.delivery.portfolio import CAPITAL
from vnq_colab.errors import ConfigError, SessionError, did_you_mean, in_notebook
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.backtest import Backtest, backtest
from vnq_colab.evaluation.basket_result import BasketResult, evaluate_basket
from vnq_colab.evaluation.calibration import calibrated
from vnq_colab.evaluation.data_plots import SHOWN
from vnq_colab.evaluation.gates import DECISIONS, FEWEST_SYMBOLS, GATE_SETS, Verdict, judge, too_good
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.metrics import as_texts, past_forecasts, score_rows, summary, with_outcomes
from vnq_colab.evaluation.order import Order, buyable, measure_order
from vnq_colab.evaluation.power import found_share, original_shares
from vnq_colab.evaluation.reasons import SENTENCE, Explanation
from vnq_colab.evaluation.report import write_report
from vnq_colab.models.baselines import opponents
from vnq_colab.notebook import Shown
from vnq_colab.progress import now
from vnq_colab.settings import BELOW_ONE, POSITIVE, convert
from vnq_colab.training.jobs import explanation, fold_scores, open_store, session_folds
from vnq_colab.training.session import Session

N_SHOWN = 10  # forecasts in the table of `browse`


@dataclass(frozen=True, repr=False)
class Validation(Shown):
    """Forecasts, scores, basket and verdict of a run; `report` is the page to open."""

    forecast: pd.DataFrame  # of every family, opponents too, on the judged days
    rows: pd.DataFrame  # of the forecast whose outcome is known, as of `metrics.with_outcomes`
    scores: pd.DataFrame  # one row per family and symbol, as of `metrics.score_rows`
    order: Order
    basket: BasketResult | None  # None: too few symbols
    verdict: Verdict
    report: Path
    explained: Explanation | None = None  # None: no family of the ensemble can

    @property
    def family(self) -> str:
        """The judged one."""
        return self.order.family

    def __repr__(self) -> str:
        parts = (self.verdict, self.order, self.basket)
        charge = self.verdict.summary["evaluations"]
        lines = [repr(part) for part in parts if part is not None] + [charge["text"]] * (charge["n_trials"] > 1)
        return "\n".join([*lines, f"report: {self.report}"])


def validate(session: Session, *, gates: str = "honest", prepared: Prepared | None = None,
             days: tuple[str | None, str | None] = (None, None), capital: float | None = None,
             slippage: float | None = None, haircut: float | None = None) -> Validation:
    """Judges a run on its folds' test days, first the market, then each symbol, and writes `reports/<run_id>/`.

    Nothing is trained or inferred. `prepared` spares reading the run's data again. `days` are two dates, for a part of
    the test days; `capital` [VND] is that of the basket (None: a billion), `slippage` [fraction of the price] what a
    fill costs (None: 0.002), `haircut` [fraction of the last close] what a vanished stock loses (None: 0.3). With one
    of these or other gates the report goes to a folder in `reports/<run_id>/`, such as `slippage_0.005`, and the run's
    verdict stays.
    """
    require_known(gates, GATE_SETS, "gate set")
    settings = {"gates": gates, "capital": convert(POSITIVE | None, capital, "capital"),
                "slippage": convert(BELOW_ONE | None, slippage, "slippage"),
                "haircut": convert(BELOW_ONE | None, haircut, "haircut")}
    open_store(session)  # refuses a run that is not trained to its end
    prepared = prepared or load_prepared(session.ws, session.data_id)
    if prepared.panel.data_id != session.data_id:
        raise SessionError(f"run {session.run_id} was trained on data {session.data_id}, this is data "
                           f"{prepared.panel.data_id}. Leave out prepared=, and its own data are read.")
    panel, prices, index = prepared.panel, prepared.prices, prepared.index
    family, folds = session.config.judged_family, session_folds(session, panel)
    span = judged_days(folds, days, panel.days)
    names = [f"{span.first}_{span.last}"] if any(days) else []
    names += [f"{name}_{value}" for name, value in settings.items() if value not in (None, "honest")]
    folder = session.ws.report_folder(session.run_id) / "_".join(names)
    changed = {"slippage": slippage, "delisting_haircut": haircut}
    rules = replace(VN_RULES, **{name: value for name, value in changed.items() if value is not None})
    now("scoring every family")
    forecast, valid = _forecasts(session, panel, folds, span)
    judged = forecast[forecast["family"] == family]
    rows = with_outcomes(forecast, panel)
    market = MarketData.of(prices, rules)
    scores, order = score_rows(rows), measure_order(rows, panel, prices, family, buyable(panel, market))
    now("trading each stock by itself")
    accounts = backtest(judged, market, strategy="long_flat", index=index)
    basket = None
    if judged["symbol"].nunique() >= FEWEST_SYMBOLS:
        now("trading the basket, and 1,000 random ones")
        basket = evaluate_basket(judged, market, valid=valid, folds=folds, capital=capital or CAPITAL, index=index)
    now("judging")
    verdict = _verdict(session, prepared, judged, scores, order, basket, accounts, gates, rules)
    now("writing the report")
    why = explanation(session, judged["date"].max())
    report = write_report(folder, title=f"Validation of {session.run_id}", facts=_facts(session, panel, judged, market),
                          verdict=verdict, order=order, basket=basket, forecast=forecast, rows=rows, scores=scores,
                          result=accounts, history=session.history, prices=prices, note=session.note, explained=why)
    return Validation(forecast, rows, scores, order, basket, verdict, report, why)


def _forecasts(session: Session, panel: Panel, folds: list[Splits],
               span: DayRange) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The Forecast of all families and opponents on the judged days; and the judged family's of validation days."""
    scores, task = fold_scores(session, panel), session.config.task
    others = opponents(panel, make_labels(panel, task), folds, tuple(sorted(scores["symbol"].unique())))
    forecast = check_forecast(pd.concat([calibrated(table, panel, task.horizon) for table in (scores, others)],
                                        ignore_index=True))
    valid = calibrated(scores[scores["family"] == session.config.judged_family], panel, task.horizon, part="valid")
    return forecast[span.mask(pd.DatetimeIndex(forecast["date"]))].reset_index(drop=True), valid


def _verdict(session: Session, prepared: Prepared, judged: pd.DataFrame, scores: pd.DataFrame, order: Order,
             basket: BasketResult | None, accounts: Backtest, gates: str, rules: MarketRules) -> Verdict:
    """The verdict, charged for earlier evaluations; judged again after leak checks where a number is too good."""
    panel, (first, last) = prepared.panel, judged["date"].agg(["min", "max"])
    record_evaluation(session, first, last)
    trials, charge = n_trials(session, first, last)
    own = scores[scores["family"] == order.family].drop(columns=["family", "n_days"])
    symbols = order.symbols.merge(own, on="symbol", how="left").merge(accounts.symbols, on="symbol", how="left")
    facts = {"gates": gates, "run_id": session.run_id, "n_trials": trials,
             "accuracy": summary(scores).set_index("family")["accuracy"].dropna().to_dict(),
             "n_universe": len(default_universe(panel)), "data_leaks": prepared.cleaning.leaks,
             "previous": against_previous(session, judged, panel),
             "power": None if basket is None else found_share(order, basket, panel, n_trials=trials),
             "original": original_shares(order, panel, rules)}
    verdict = judge(order, basket, symbols, **facts)
    if too_good(verdict):
        now("searching for leaks")
        verdict = judge(order, basket, symbols, leak_checks=check_leaks(session, prepared), **facts)
    text = verdict.summary["evaluations"]["text"]
    verdict.summary["evaluations"] = {"n_trials": trials, "text": f"{charge} {text}".strip()}
    verdict.summary["settings"] = {"folds": len(session.folds), "slippage": rules.slippage,
                                   "prices_to": f"{panel.days[-1]:%Y-%m-%d}", "synthetic": prepared.synthetic}
    return verdict


def _facts(session: Session, panel: Panel, judged: pd.DataFrame, market: MarketData) -> dict[str, str]:
    """What was judged and how, by name, for the foot of the report."""
    config, days, rules = session.config, judged["date"], market.rules
    is_raw = market.is_raw[market.trades].mean()  # share of the rows
    return {
        "Run": session.run_id,
        "Data": f"{session.data_id}, {len(panel.symbols)} symbols, {panel.days[0]:%Y-%m-%d} to "
                f"{panel.days[-1]:%Y-%m-%d}",
        "Judged": f"{config.judged_family}, {days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}, {days.nunique()} forecast "
                  "origins",
        "Trained": f"{', '.join(config.families)}; {len(session.folds)} folds, each on all days before it, "
                   f"{config.task.purge_days} days purged before each border",
        "Trading": f"slippage {rules.slippage:.2%}, fee {rules.fee:.2%} each side, tax {rules.sale_tax:.2%} of sales; "
                   f"a vanished stock is settled {rules.delisting_haircut:.0%} below its last close",
        "Fills": "on raw prices, on a tick inside the band and in whole lots" if is_raw == 1 else
                 f"on adjusted prices, without ticks and in lots of adjusted shares, an approximation: {is_raw:.0%} of "
                 "the rows bring a raw close",
        "Recipe": (f"of search {config.found_by.search}, from " if config.found_by.search else "")
                  + f"{config.recipe}, seed {config.seed}, {config.n_members} members",
        "Machine": f"{session.machine.get('processor', '')}, profile {config.machine.profile}",
        "Code": f"vnq_colab {session.code_version}",
    }


def judged_days(folds: list[Splits], between: "tuple[str | None, str | None]", days: pd.DatetimeIndex) -> DayRange:
    """All test days, or those between two dates. Raises ConfigError where there is none, or models had seen one."""
    whole = DayRange(folds[0].test.first, folds[-1].test.last)
    first, last = (f"{to_day(day):%Y-%m-%d}" if day else end
                   for day, end in zip(between, (whole.first, whole.last), strict=True))
    if first < whole.first:
        raise ConfigError(f"judging from {first} would judge days that models were trained or stopped on. The test "
                          f"days begin on {whole.first}.")
    if not DayRange(first, min(last, whole.last)).mask(days).any():
        raise ConfigError(f"no test day lies between {first} and {last}; they are {whole.first} to {whole.last}.")
    return DayRange(first, last)


def browse(validation: Validation, symbol: str | None = None, *, family: str | None = None, note: str = "") -> Any:
    """Widgets that show the chosen stock and family; without ipywidgets, a kernel or a notebook the first picture.

    `symbol` None begins with the best decision and the highest place in the order, `family` None with the judged one.
    Raises ConfigError for what was not judged.
    """
    decided, place = validation.verdict.symbols, validation.order.symbols.set_index("symbol")["place"].fillna(0)
    stocks = sorted(decided, key=lambda one: (DECISIONS.index(decided[one]["decision"]), -place.get(one, 0), one))
    families = sorted(validation.forecast["family"].unique())
    symbol, family = symbol or stocks[0], family or validation.family
    for name, choices in ((symbol, stocks), (family, families)):
        if name not in choices:
            raise ConfigError(f"{name!r} was not judged.{did_you_mean(name, choices)} Choose one of the run.")
    trades = validation.basket and validation.basket.trades
    try:
        import ipywidgets as widgets
    except ImportError:
        widgets = None
    if widgets is None or not in_notebook():
        return plots.symbol(validation.forecast, validation.rows, symbol, family, trades=trades, note=note)
    choosers = (widgets.Dropdown(options=sorted(stocks), value=symbol, description="Stock"),
                widgets.Dropdown(options=families, value=family, description="Family"))
    image, text = widgets.Image(format="png", layout={"max_width": f"{SHOWN}px"}), widgets.HTML()

    def show(change: Any = None) -> None:
        chosen = [chooser.value for chooser in choosers]
        image.value = plots.png(plots.symbol(validation.forecast, validation.rows, *chosen, trades=trades, note=note))
        text.value = _about(validation, *chosen)

    for chooser in choosers:
        chooser.observe(show, names="value")
    show()
    box, saved = widgets.VBox([*choosers, image, text]), base64.b64encode(image.value).decode("ascii")

    class Chooser(type(box)):
        """The widgets, and a picture for where there is no kernel."""

        def _repr_mimebundle_(self, **options: Any) -> Any:
            return super()._repr_mimebundle_(**options) | {"image/png": saved}

    return Chooser(box.children) if hasattr(box, "_repr_mimebundle_") else box


def _about(validation: Validation, symbol: str, family: str) -> str:
    """The decision, its reasons, and the last forecasts one by one, as HTML."""
    row = validation.verdict.symbols[symbol]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in row["reasons"])
    if validation.explained and symbol in validation.explained.stocks.index:
        reasons += f"<li>On the last day: {escape(SENTENCE.format(*validation.explained.stocks.loc[symbol]))}</li>"
    last = past_forecasts(validation.forecast, validation.rows, family, symbol, n_days=N_SHOWN)
    return (f"<b>{escape(symbol)}: {escape(row['decision'])}</b><ul>{reasons}</ul>"
            f"{as_texts(last).to_html(index=False, border=0)}")
