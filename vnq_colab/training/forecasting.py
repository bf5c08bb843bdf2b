"""From a session to forecasts: the networks of its finished packs, in the form that is exported."""

from dataclasses import asdict

import pandas as pd

from vnq_colab import __version__
from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import load_panel
from vnq_colab.data.splits import DayRange, Splits
from vnq_colab.errors import ConfigError, SessionError
from vnq_colab.evaluation.calibration import Calibration
from vnq_colab.models.base import Forecaster, family_module
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.session import Session


def load_forecaster(session: Session) -> Forecaster:
    """The trained networks of every finished symbol. Raises SessionError when no pack is finished yet."""
    store = CheckpointStore(session.ws, session.run_id)
    states = [store.load_pack(pack["done"]) for pack in session.packs if pack["done"] is not None]
    states = [state for state in states if state["symbols"]]
    if not states:
        raise SessionError(f"run {session.run_id} has no finished pack yet. Go on with resume.")
    facts = {"data_id": session.data_id, "code_version": __version__, "trained_to": session.days["train"][1],
             "synthetic": session.synthetic}
    return family_module(session.family).FORECASTER.from_states(states, facts)


def fit_calibration(session: Session, forecaster: Forecaster, panel: Panel) -> Calibration:
    """How p_up and the intervals of a run's exported networks are corrected: from its validation days alone."""
    return Calibration.fit(_on_validation_days(session, forecaster, panel), panel.outcomes())


def _on_validation_days(session: Session, forecaster: Forecaster, panel: Panel) -> pd.DataFrame:
    return forecaster.predict(panel, DayRange(*session.days["valid"]).mask(panel.days))


def forecast(session: Session, *, days: "str | tuple[str, str]" = "test", panel: Panel | None = None) -> pd.DataFrame:
    """The Forecast of every finished symbol over some days, made with the weights as they are exported (float16).

    `p_up` is calibrated on the run's validation days, and `low` and `high` [5-day log return] bound the interval that
    held nine of ten of their outcomes. `days` is "train", "valid" or "test" of the run's own splits, or a pair of
    dates, both included. `panel` spares reading the run's data again.
    """
    return forecast_beside_validation(session, days=days, panel=panel)[0]


def forecast_beside_validation(session: Session, *, days: "str | tuple[str, str]" = "test",
                               panel: Panel | None = None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """What `forecast` gives, and the same for the validation days, on which it was calibrated; None in a refit."""
    if isinstance(days, str):
        splits = Splits.from_dict(session.days["splits"])
        if days not in asdict(splits) or days == "purge_days":
            raise ConfigError(f"days = {days!r}: must be 'train', 'valid', 'test' or a pair of dates.")
        chosen = getattr(splits, days)
    else:
        chosen = DayRange(*days)
    panel = load_panel(session.ws, session.data_id) if panel is None else panel
    origins = chosen.mask(panel.days)
    if not origins.any():
        raise ConfigError(f"no trading day lies between {chosen.first} and {chosen.last}; the data has "
                          f"{panel.days[0]:%Y-%m-%d} to {panel.days[-1]:%Y-%m-%d}.")
    forecaster = load_forecaster(session).as_exported()
    table = check_forecast(forecaster.predict(panel, origins))
    if session.days["valid"] is None:
        return table, None
    valid = _on_validation_days(session, forecaster, panel)
    calibration = Calibration.fit(valid, panel.outcomes())
    return calibration.apply(table), calibration.apply(valid)
