"""Validation: the folds' forecasts, scored beside the opponents, traded, judged, and written down as a report."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.labels import make_labels
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.prepared import Prepared, load_prepared
from vnq_colab.data.splits import DayRange, Splits, to_day
from vnq_colab.delivery.leaks import check_leaks
from vnq_colab.delivery.looks import n_trials, record_look
from vnq_colab.delivery.previous import against_previous
from vnq_colab.errors import ConfigError, SessionError
from vnq_colab.evaluation.accounts import compare_strategies
from vnq_colab.evaluation.backtest import Backtest, backtest
from vnq_colab.evaluation.chance import Chance, random_band
from vnq_colab.evaluation.gates import Verdict, judge, too_good
from vnq_colab.evaluation.metrics import score_rows, with_outcomes
from vnq_colab.evaluation.order import buyable, order_text, rank_correlations
from vnq_colab.evaluation.report import write_report
from vnq_colab.models.baselines import opponents
from vnq_colab.training.forecasting import calibrated, fold_scores
from vnq_colab.training.session import Session

N_RANDOM = 200  # strategies; of 1,000 the middle and the ends are the same to a hundredth


@dataclass(frozen=True, repr=False)
class Validation:
    """What validation found; `report` is the page to open."""

    forecast: pd.DataFrame
    rows: pd.DataFrame  # of the forecast whose outcome is known, as of `metrics.with_outcomes`
    scores: pd.DataFrame
    order: pd.DataFrame  # rank correlations of every family, as of `order.rank_correlations`
    prices: pd.DataFrame
    result: Backtest
    chance: Chance
    strategies: pd.DataFrame
    verdict: Verdict
    report: Path

    @property
    def family(self) -> str:
        """The judged one."""
        return self.result.family

    def __repr__(self) -> str:
        columns = {"family": "family", "close": "rank correlation, close to close", "close_t": "t",
                   "open": "open to open", "open_t": "t ", "positive": "days above 0"}
        table = self.order[list(columns)].rename(columns=columns)
        text = table.to_string(index=False, float_format="{:.3f}".format)
        return f"{self.verdict!r}\n{text}\n{self.result!r}\n{self.chance!r}\nreport: {self.report}"


def validate(session: Session, *, gates: str = "honest", prepared: Prepared | None = None,
             days: tuple[str, str] | None = None, capital: float | None = None, slippage: float | None = None,
             position: float = 1.0) -> Validation:
    """Judges every finished symbol of a run on its folds' test days and writes `reports/<run_id>/`.

    Nothing is trained or inferred: the jobs' files hold the forecasts. `prepared` spares reading the run's data again.
    `days` is a pair of dates for a part of the test days; their report goes to `reports/<run_id>/<from>_<to>/`: the
    run's verdict stays. `capital` [VND] is each symbol's own account in the backtest, `position` [fraction] the most of
    it that is put into the symbol, `slippage` [fraction of the price] what a fill costs.

    The evaluation of these days is written down, and every p-value is charged for the configurations evaluated before;
    the last accepted run is judged on the same days; and what looks too good is searched for leaks.
    """
    prepared = prepared or load_prepared(session.ws, session.data_id)
    if prepared.panel.data_id != session.data_id:
        raise SessionError(f"run {session.run_id} was trained on data {session.data_id}, this is data "
                           f"{prepared.panel.data_id}. Leave out prepared=, and its own data are read.")
    panel, prices, family = prepared.panel, prepared.prices, session.config.judged_family
    folds = [Splits.from_dict(fold) for fold in session.folds]
    folder, span = _span(session, folds, days)
    scores = fold_scores(session, panel)
    scores = scores.assign(symbol=scores["symbol"].astype(object))
    symbols = tuple(sorted(scores["symbol"].unique()))
    others = opponents(panel, make_labels(panel, session.config.task), folds, symbols)
    ours, _ = calibrated(scores, panel, session.config.task.horizon)
    rules = VN_RULES if slippage is None else replace(VN_RULES, slippage=slippage)
    account: dict[str, Any] = {"position": position} | ({} if capital is None else {"capital": capital})
    theirs, _ = calibrated(others, panel, session.config.task.horizon)
    everyone = check_forecast(pd.concat([ours, theirs], ignore_index=True))
    everyone = everyone[span.mask(pd.DatetimeIndex(everyone["date"]))].reset_index(drop=True)
    judged = everyone[everyone["family"] == family]
    rows = with_outcomes(everyone, panel)
    table = score_rows(rows, panel, family)
    could_buy = buyable(panel, prices)
    places = panel.days.get_indexer(rows["date"])
    there = could_buy[pd.Index(panel.symbols).get_indexer(rows["symbol"]), places]
    order, by_year = rank_correlations(rows[there])
    result = backtest(judged, prices, rules, index=prepared.index, **account)
    # "rotations": the symbols come and go together, as ours do
    chance = random_band(result, n_strategies=N_RANDOM, kind="rotations")
    first, last = judged["date"].min(), judged["date"].max()
    record_look(session.ws, session, first, last)
    trials, charge = n_trials(session.ws, session, first, last)
    strategies = compare_strategies(judged, prices, rules, index=prepared.index, n_trials=trials, **account)
    asked = {"gates": gates, "run_id": session.run_id, "family": family, "n_trials": trials,
             "previous": against_previous(session, judged, prepared)}
    verdict = judge(table, result, **asked)
    if too_good(verdict):
        checks = check_leaks(session, prepared)
        verdict = judge(table, result, leak_checks=[check.to_dict() for check in checks], **asked)
    verdict.summary["looks"] = {"n_trials": trials, "text": charge}
    families = order.astype(object).where(order.notna(), None).to_dict("records")
    verdict.summary["order"] = {"text": order_text(order, family), "families": families}
    verdict.summary["settings"] = {"folds": len(folds), "capital": result.capital, "position": position,
                                   "slippage": rules.slippage}
    facts = {
        "Run": session.run_id,
        "Data": f"{session.data_id}, {len(panel.symbols)} symbols, {panel.days[0]:%Y-%m-%d} to "
                f"{panel.days[-1]:%Y-%m-%d}",
        "Judged": f"{family}, {first:%Y-%m-%d} to {last:%Y-%m-%d}, {judged['date'].nunique()} forecast origins",
        "Trained": f"{', '.join(session.config.families)}; {len(folds)} folds, each on all days before it, "
                   f"{session.config.task.purge_days} days purged before each border",
        "Trading": f"accounts of {result.capital:,.0f} VND, at most {position:.0%} of one in its symbol, slippage "
                   f"{rules.slippage:.2%}",
        "Recipe": f"{session.config.recipe}, seed {session.config.seed}, {session.config.n_members} members",
        "Machine": f"{session.machine.get('processor', '')}, profile {session.config.machine.profile}",
        "Code": f"vnq_colab {session.code_version}",
    }
    report = write_report(folder, title=f"Validation of {session.run_id}", facts=facts, forecast=everyone,
                          scores=table, result=result, verdict=verdict, history=session.history, rows=rows,
                          chance=chance, prices=prices, strategies=strategies, order=(order, by_year),
                          note=session.note)
    return Validation(everyone, rows, table, order, prices, result, chance, strategies, verdict, report)


def _span(session: Session, folds: list[Splits], days: tuple[str, str] | None) -> tuple[Path, DayRange]:
    """Where the report goes, and the judged days: the run's own folder and all test days, or a part of them."""
    folder, span = session.ws.report_folder(session.run_id), DayRange(folds[0].test.first, folds[-1].test.last)
    if days is None:
        return folder, span
    first, last = (f"{to_day(day):%Y-%m-%d}" for day in days)
    if to_day(first) < to_day(span.first):
        raise ConfigError(f"judging from {first} would judge days that models were trained or stopped on. The test "
                          f"days begin on {span.first}.")
    if to_day(last) < to_day(first) or to_day(first) > to_day(span.last):
        raise ConfigError(f"no test day lies between {first} and {last}; they are {span.first} to {span.last}.")
    return folder / f"{first}_{last}", DayRange(first, last)
