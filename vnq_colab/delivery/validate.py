"""Validation: forecasts of the test days, scored beside the opponents, traded, judged, and written down as a report."""

from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.prepared import Prepared, load_prepared
from vnq_colab.data.splits import Splits, to_day
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.backtest import Backtest, backtest
from vnq_colab.evaluation.chance import Chance, random_band
from vnq_colab.evaluation.gates import Verdict, judge
from vnq_colab.evaluation.metrics import score, with_outcomes
from vnq_colab.evaluation.report import write_report
from vnq_colab.models.baselines import opponents
from vnq_colab.training.forecasting import forecast
from vnq_colab.training.parts import whole_run
from vnq_colab.training.session import Session
from vnq_colab.training.walk_forward import train_folds


@dataclass(frozen=True, repr=False)
class Validation:
    """What validation found; `report` is the page to open."""

    forecast: pd.DataFrame
    scores: pd.DataFrame
    result: Backtest
    chance: Chance
    verdict: Verdict
    report: Path

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
    all days, at most for `hours`, and judged on all of them; its verdict is then the run's. `capital` [VND] is each
    symbol's own account in the backtest, `position` [fraction] the most of it that is put into the symbol, `slippage`
    [fraction of the price] what a fill costs.
    """
    session = whole_run(session)
    prepared = prepared or load_prepared(session.ws, session.data_id)
    splits = Splits.from_dict(session.days["splits"])
    folder = session.ws.report_folder(session.run_id)
    if not isinstance(days, str):
        if to_day(days[0]) < to_day(splits.test.first):
            raise ConfigError(f"judging from {days[0]} would judge days that the networks were trained or stopped on. "
                              f"The test days begin on {splits.test.first}.")
        folder = folder / f"{days[0]}_{days[1]}"
    if walk_forward:
        if not isinstance(days, str):
            raise ConfigError("walk_forward chooses its own days: leave out --from and --to.")
        runs = train_folds(session.ws, prepared.panel, session.config, folds=walk_forward, hours=hours, quiet=quiet)
    else:
        runs = [session]
    tables = []
    for run in runs:
        table = forecast(run, days=days, panel=prepared.panel)
        tables.append(opponents(table, prepared.panel, Splits.from_dict(run.days["splits"])))
    everyone = check_forecast(pd.concat(tables, ignore_index=True))
    ours = everyone[everyone["family"] == session.family]
    scores = score(everyone, prepared.panel)
    rows = with_outcomes(everyone, prepared.panel)
    rules = VN_RULES if slippage is None else replace(VN_RULES, slippage=slippage)
    result = backtest(ours, prepared.prices, rules, index=prepared.index, position=position,
                      **({} if capital is None else {"capital": capital}))
    chance = random_band(result, kind="rotations")  # the symbols come and go together, as ours do
    verdict = judge(scores, result, gates=gates, run_id=session.run_id)
    verdict.summary["settings"] = {"walk_forward": walk_forward, "capital": result.capital, "position": position,
                                   "slippage": rules.slippage}
    first, last = ours["date"].min(), ours["date"].max()
    facts = {
        "Run": session.run_id,
        "Data": f"{session.data_id}, {len(prepared.panel.symbols)} symbols, "
                f"{prepared.panel.days[0]:%Y-%m-%d} to {prepared.panel.days[-1]:%Y-%m-%d}",
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
    report = write_report(folder, title=f"Validation of {session.run_id}",
                          facts=facts, forecast=everyone, scores=scores, result=result, verdict=verdict,
                          history=runs[-1].history, rows=rows, chance=chance, note=session.note)
    return Validation(everyone, scores, result, chance, verdict, report)
