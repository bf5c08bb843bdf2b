"""Validation: forecasts of the test days, scored beside the opponents, traded, judged, and written down as a report."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.data.prepared import Prepared, load_prepared
from vnq_colab.data.splits import Splits, to_day
from vnq_colab.delivery.bundle import stored_verdict
from vnq_colab.delivery.leaks import check_leaks
from vnq_colab.delivery.looks import n_trials, record_look
from vnq_colab.delivery.previous import against_previous
from vnq_colab.errors import ConfigError, SessionError
from vnq_colab.evaluation.accounts import choose_threshold, compare_strategies
from vnq_colab.evaluation.backtest import Backtest, backtest
from vnq_colab.evaluation.chance import Chance, random_band
from vnq_colab.evaluation.gates import Verdict, judge, too_good
from vnq_colab.evaluation.metrics import score_rows, with_outcomes
from vnq_colab.evaluation.report import write_report
from vnq_colab.models.baselines import opponents
from vnq_colab.notebook import tell
from vnq_colab.training.forecasting import forecast_beside_validation
from vnq_colab.training.parts import whole_run
from vnq_colab.training.session import Session
from vnq_colab.training.start import stored_start
from vnq_colab.training.walk_forward import train_folds


@dataclass(frozen=True, repr=False)
class Validation:
    """What validation found; `report` is the page to open."""

    forecast: pd.DataFrame
    rows: pd.DataFrame  # of the forecast whose outcome is known, as of `metrics.with_outcomes`
    scores: pd.DataFrame
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
        return f"{self.verdict!r}\n{self.result!r}\n{self.chance!r}\nreport: {self.report}"


def validate(session: Session, *, gates: str = "honest", prepared: Prepared | None = None,
             days: "str | tuple[str, str]" = "test", walk_forward: int = 0, hours: float | None = None,
             capital: float | None = None, slippage: float | None = None, position: float = 1.0,
             quiet: bool = False) -> Validation:
    """Judges every finished symbol of a run on its test days and writes `reports/<run_id>/`.

    `prepared` spares reading the run's data again. `days` is a pair of dates for other days than the test days; they
    must not begin before them, and their report goes to `reports/<run_id>/<from>_<to>/`: the run's verdict stays.
    With `walk_forward` folds the run's config is trained anew before each of so many stretches of the second half of
    all days, at most for `hours`, and judged on all of them; its verdict is then the run's, and the test days alone no
    longer replace it. `capital` [VND] is each symbol's own account in the backtest, `position` [fraction] the most of
    it that is put into the symbol, `slippage` [fraction of the price] what a fill costs.

    The look at these days is written down, and every p-value is charged for the configurations that looked before; the
    model of the last accepted run is judged on the same days; and what looks too good is searched for leaks.
    """
    session = whole_run(session)
    prepared = prepared or load_prepared(session.ws, session.data_id)
    if prepared.panel.data_id != session.data_id:
        raise SessionError(f"run {session.run_id} was trained on data {session.data_id}, this is data "
                           f"{prepared.panel.data_id}. Leave out prepared=, and its own data are read.")
    panel, prices = prepared.panel, prepared.prices
    splits = Splits.from_dict(session.days["splits"])
    folder = _folder(session, splits, days, walk_forward)
    runs = train_folds(session.ws, panel, session.config, folds=walk_forward, hours=hours,
                       quiet=quiet) if walk_forward else [session]
    rules = VN_RULES if slippage is None else replace(VN_RULES, slippage=slippage)
    account: dict[str, Any] = {"position": position} | ({} if capital is None else {"capital": capital})
    everyone = check_forecast(pd.concat([_forecasts(run, prepared, days, rules, account, quiet) for run in runs],
                                        ignore_index=True))
    ours = everyone[everyone["family"] == session.family]
    rows = with_outcomes(everyone, panel)
    scores = score_rows(rows, panel)
    result = backtest(ours, prices, rules, index=prepared.index, **account)
    chance = random_band(result, kind="rotations")  # the symbols come and go together, as ours do
    first, last = ours["date"].min(), ours["date"].max()
    record_look(session.ws, session, first, last)
    trials, looks = n_trials(session.ws, session, first, last)
    strategies = compare_strategies(ours, prices, rules, index=prepared.index, threshold="own", n_trials=trials,
                                    **account)
    asked = {"gates": gates, "run_id": session.run_id, "family": session.family, "n_trials": trials,
             "previous": against_previous(session, ours, prepared)}
    verdict = judge(scores, result, **asked)
    if too_good(verdict):
        checks = check_leaks(runs, prepared)
        verdict = judge(scores, result, leak_checks=[check.to_dict() for check in checks], **asked)
    verdict.summary["looks"] = {"n_trials": trials, "text": looks}
    verdict.summary["settings"] = {"walk_forward": walk_forward, "capital": result.capital, "position": position,
                                   "slippage": rules.slippage}
    facts = {
        "Run": session.run_id,
        "Data": f"{session.data_id}, {len(panel.symbols)} symbols, {panel.days[0]:%Y-%m-%d} to "
                f"{panel.days[-1]:%Y-%m-%d}",
        "Judged days": f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, {ours['date'].nunique()} forecast origins",
        "Training days": (f"{walk_forward} folds, each trained on all days before it" if walk_forward else
                          f"{splits.train.first} to {splits.train.last}")
                         + f"; {splits.purge_days} days purged before each border",
        "Trading": f"accounts of {result.capital:,.0f} VND, at most {position:.0%} of one in its symbol, slippage "
                   f"{rules.slippage:.2%}",
        "Learning curves": f"of the last of {walk_forward} folds" if walk_forward else "of the run",
        "Recipe": f"{session.config.recipe}, seed {session.config.seed}, {session.config.n_members} networks a symbol",
        "Machine": f"{session.machine.get('processor', '')}, profile {session.config.machine.profile}",
        "Code": f"vnq_colab {session.code_version}",
    }
    report = write_report(folder, title=f"Validation of {session.run_id}", facts=facts, forecast=everyone,
                          scores=scores, result=result, verdict=verdict, history=runs[-1].history, rows=rows,
                          chance=chance, prices=prices, strategies=strategies, note=session.note)
    return Validation(everyone, rows, scores, prices, result, chance, strategies, verdict, report)


def _folder(session: Session, splits: Splits, days: "str | tuple[str, str]", walk_forward: int) -> Path:
    """Where the report goes: the run's own folder, or one of these days where the run's verdict must stay."""
    folder = session.ws.report_folder(session.run_id)
    if walk_forward and not isinstance(days, str):
        raise ConfigError("walk_forward chooses its own days: leave out --from and --to.")
    if not isinstance(days, str):
        if to_day(days[0]) < to_day(splits.test.first):
            raise ConfigError(f"judging from {days[0]} would judge days that the networks were trained or stopped on. "
                              f"The test days begin on {splits.test.first}.")
        return folder / f"{to_day(days[0]):%Y-%m-%d}_{to_day(days[1]):%Y-%m-%d}"
    before = stored_verdict(session)
    walked = before.summary.get("settings", {}).get("walk_forward") if before else 0
    if not walk_forward and walked:
        tell(f"The verdict of {session.run_id} stays that of its walk through {walked} folds; this report goes to a "
             "folder of its own.")
        return folder / f"{splits.test.first}_{splits.test.last}"
    return folder


def _forecasts(run: Session, prepared: Prepared, days: "str | tuple[str, str]", rules: MarketRules,
               account: dict[str, Any], quiet: bool) -> pd.DataFrame:
    """One run's forecasts and its opponents'; `threshold` is what p_up must exceed, chosen on its validation days."""
    panel, splits = prepared.panel, Splits.from_dict(run.days["splits"])
    ours, valid = forecast_beside_validation(run, days=days, panel=panel)
    least = choose_threshold(valid, prepared.prices, rules, **account)
    everyone = opponents(ours, panel, splits, run.config, start=stored_start(run), quiet=quiet)
    return everyone.assign(threshold=np.nan if least is None else least)
