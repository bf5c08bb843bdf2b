"""The forecasts of a run: made when a fold is trained, out of sample; read from its jobs' files when it is judged."""

import pandas as pd
import torch

from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import load_panel
from vnq_colab.data.task import Splits, check_forecast, ensemble_scores
from vnq_colab.errors import SessionError
from vnq_colab.evaluation.calibration import Calibration, with_volatility
from vnq_colab.models.base import Forecaster, Trained, TrainingData, restored
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.session import Session

PARTS = ("valid", "test")  # of a fold's days that its jobs forecast; a row's `part` is its place here
COLUMNS = ("score", "mean", "scale")  # of a forecast that a job's file keeps, as far as its family gives them


def forecast_of_fold(trained: Trained, data: TrainingData, splits: Splits) -> dict[str, torch.Tensor]:
    """The rows of a fold's validation and test days: places of symbol and day in the panel, part, and numbers."""
    panel, test = data.panel, splits.test.mask(data.panel.days)
    parts = [(trained.valid_forecaster or trained.forecaster, data.valid), (trained.forecaster, test)]
    table = pd.concat([forecaster.predict(panel, days) for forecaster, days in parts], ignore_index=True)
    day = panel.days.get_indexer(table["date"])
    columns = {name: table[name].to_numpy("float32", copy=True) for name in COLUMNS if name in table}
    columns |= {"symbol": pd.Index(panel.symbols).get_indexer(table["symbol"]).astype("int16"),
                "day": day.astype("int32"), "part": test[day].astype("uint8")}
    return {name: torch.from_numpy(values) for name, values in columns.items()}


def open_store(session: Session) -> CheckpointStore:
    """Where the finished jobs of a session lie. Raises SessionError while one is missing."""
    if missing := session.unfinished_jobs():
        raise SessionError(f"run {session.run_id} is {session.status}: {len(missing)} of {len(session.jobs)} jobs are "
                           "not trained yet. Go on with resume first.")
    return CheckpointStore.of(session)


def fold_scores(session: Session, panel: Panel) -> pd.DataFrame:
    """Every family's scores on its folds' validation and test days: `fold, part` ("valid", "test"), and SCORES.

    For task `rank` with the `ensemble`. Families with an expectation of their own bring `mean` and `scale`.
    """
    store, tables = open_store(session), []
    for name, row in session.jobs.items():
        if row["fold"] is None or row["state"] == "failed":
            continue
        table = {column: values.numpy() for column, values in store.load_done(name)["forecast"].items()}
        tables.append(pd.DataFrame({
            "family": row["family"], "fold": row["fold"],
            "symbol": pd.Categorical.from_codes(table.pop("symbol"), list(panel.symbols)),
            "date": panel.days[table.pop("day")], "part": pd.Categorical.from_codes(table.pop("part"), list(PARTS)),
            **{column: values.astype("float64") for column, values in table.items()}}))
    scores = pd.concat(tables, ignore_index=True)
    scores = scores[scores["family"].isin(session.config.families)]  # a global network may be there as a start alone
    if session.config.task.target == "rank":
        families = [family for family in session.config.ensemble_families if family in set(scores["family"].unique())]
        scores = pd.concat([scores, ensemble_scores(scores, families)], ignore_index=True)
    return scores


def calibrated(scores: pd.DataFrame, panel: Panel, horizon: int, part: str = "test") -> pd.DataFrame:
    """The Forecast of the folds' test days, or with `part` "valid" of their validation days, with the column `fold`.

    Each fold is calibrated on its own validation days.
    """
    tables, unneeded = [], ["part", "actual", "volatility"] + ["fold"] * (part == "test")
    scores = with_volatility(scores, panel, horizon).astype({"family": "category", "symbol": "category"})  # fast to cut
    for (family, _), rows in scores.groupby(["family", "fold"], observed=True):
        calibration = Calibration.fit(family, _known(rows))
        tables.append(calibration.apply(rows[(rows["part"] == part).to_numpy()]).drop(columns=unneeded))
    return pd.concat(tables, ignore_index=True).astype({"family": str, "symbol": object})


def final_calibrations(scores: pd.DataFrame, panel: Panel, horizon: int) -> dict[str, Calibration]:
    """For each family the calibration of all folds' validation days together, which the final fit takes."""
    known = _known(with_volatility(scores, panel, horizon))
    return {family: Calibration.fit(family, rows)
            for family, rows in known.groupby("family", sort=False, observed=True)}


def _known(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of validation days whose outcome is known."""
    return rows[(rows["part"] == "valid").to_numpy() & rows["actual"].notna().to_numpy()]


def forecast(session: Session, *, panel: Panel | None = None,
             scores: pd.DataFrame | None = None) -> pd.DataFrame:
    """The out-of-sample Forecast of every family and the ensemble, over the test days of all folds.

    Each day was forecast by models that were trained before it, at their exported precision. `edge`, `mean`, `scale`
    and `p_up` are fitted on each fold's validation days, and `low` and `high` [log return] bound the interval that held
    nine of ten of their outcomes. `panel` and `scores` (of `fold_scores`) spare reading them again.
    """
    panel = load_panel(session.ws, session.data_id) if panel is None else panel
    scores = fold_scores(session, panel) if scores is None else scores
    return check_forecast(calibrated(scores, panel, session.config.task.horizon))


def final_forecasters(session: Session) -> dict[str, list[Forecaster]]:
    """The forecasters of the final fit, by family; several of one that was trained in packs."""
    store, forecasters = open_store(session), {}
    for name, row in session.jobs.items():
        if row["fold"] is None and row["state"] == "done" and row["family"] in session.config.families:
            state = store.load_done(name)["weights"]
            forecasters.setdefault(row["family"], []).append(restored(state, row["family"]))
    if not forecasters:
        raise SessionError(f"run {session.run_id} has no final fit: every symbol failed.")
    return forecasters
