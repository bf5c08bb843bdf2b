"""The entry exam of every family: what a learner and its forecaster must be able to do before they may join."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab.data.forecast import check_forecast
from vnq_colab.data.panel import Panel
from vnq_colab.errors import ConfigError, DeliveryError
from vnq_colab.models.base import FAMILIES, Forecaster, Learner, family_module


def trained(name, panel, splits, config, symbols):
    learner = family_module(name).make_learner(panel.select(symbols), splits.train, splits.valid, config)
    assert isinstance(learner, Learner)
    while not learner.finished:
        learner.step()
    return learner


def same(first, second):
    pd.testing.assert_frame_equal(first, second, check_exact=True)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_family_passes_its_entry_exam(family, panel, splits, config, tmp_path):
    symbols = ["SYN001", "SYN002", "SYN004"]
    learner = trained(family, panel, splits, config, symbols)
    forecaster = learner.forecaster()
    assert isinstance(forecaster, Forecaster) and forecaster.symbols == tuple(symbols)
    assert set(learner.measure()["symbol"]) == set(symbols)
    assert set(learner.valid_accuracy()) == set(symbols)

    origins = splits.test.mask(panel.days)
    forecast = check_forecast(forecaster.predict(panel, origins))  # shapes and columns
    assert len(forecast) == panel.select(symbols).present[:, origins].sum()
    assert (forecast["family"] == family).all()

    day = np.flatnonzero(origins)[10]  # no look-ahead: all that comes after an origin may change
    values, returns = panel.values.copy(), panel.returns.copy()
    values[:, day + 1:] += 3
    returns[:, day + 1:] *= -2
    other = Panel(values, returns, panel.present, panel.symbols, panel.days, panel.feature_names, panel.data_id)
    before = np.zeros_like(origins)
    before[day - 5: day + 1] = True
    same(forecaster.predict(panel, before), forecaster.predict(other, before))

    exported = forecaster.as_exported()  # what is saved is what comes back
    exported.save(tmp_path)
    same(type(forecaster).load(tmp_path, symbols).predict(panel, origins), exported.predict(panel, origins))
    again = type(forecaster).from_states([forecaster.to_state()])
    same(again.predict(panel, origins), forecaster.predict(panel, origins))

    alone = type(forecaster).load(tmp_path, ["SYN002"]).predict(panel, origins)  # one symbol alone
    mine = exported.predict(panel, origins)
    mine = mine[mine["symbol"] == "SYN002"].reset_index(drop=True)
    np.testing.assert_allclose(alone["mean"], mine["mean"], atol=1e-6)


def test_family_gives_no_forecast_for_an_absent_day(family, panel, splits, config):
    forecaster = trained(family, panel, splits, config, ["SYN001"]).forecaster()
    present = panel.present.copy()
    gap = np.flatnonzero(splits.test.mask(panel.days))[3]
    present[0, gap] = False
    holed = Panel(panel.values, panel.returns, present, panel.symbols, panel.days, panel.feature_names, panel.data_id)
    forecast = forecaster.predict(holed, splits.test.mask(panel.days))
    assert panel.days[gap] not in set(forecast["date"])
    assert np.isfinite(forecast["mean"]).all()


def test_family_resumes_exactly(family, panel, splits, config):
    straight = trained(family, panel, splits, config, ["SYN001", "SYN002"]).forecaster()
    make = family_module(family).make_learner
    first = make(panel.select(["SYN001", "SYN002"]), splits.train, splits.valid, config)
    for _ in range(6):
        first.step()
    second = make(panel.select(["SYN001", "SYN002"]), splits.train, splits.valid, config)
    second.load_state_dict(first.state_dict())
    while not second.finished:
        second.step()
    origins = splits.test.mask(panel.days)
    same(second.forecaster().predict(panel, origins), straight.predict(panel, origins))


def test_scale_is_the_spread_of_validation_residuals(panel, splits, config):
    learner = trained("stockformer", panel, splits, config, ["SYN001"])
    forecaster = learner.forecaster()
    forecast = forecaster.predict(panel, splits.valid.mask(panel.days))
    both = forecast.merge(panel.outcomes(), on=["symbol", "date"])
    spread = np.sqrt(((both["actual"] - both["mean"]) ** 2).mean())
    assert forecast["scale"].iloc[0] == pytest.approx(spread, rel=0.05)


def test_forecaster_refuses_a_panel_with_other_features(panel, splits, config):
    forecaster = trained("stockformer", panel, splits, config, ["SYN001"]).forecaster()
    names = ("return_one", *panel.feature_names[1:])
    other = Panel(panel.values, panel.returns, panel.present, panel.symbols, panel.days, names, panel.data_id)
    with pytest.raises(DeliveryError, match="trained on return_1.*does not compute.*computes return_one"):
        forecaster.predict(other, splits.test.mask(panel.days))
    swapped = Panel(panel.values, panel.returns, panel.present, panel.symbols, panel.days,
                    panel.feature_names[::-1], "x")
    with pytest.raises(DeliveryError, match="another order"):
        forecaster.predict(swapped, splits.test.mask(panel.days))


def test_damaged_or_newer_model_file_is_refused(panel, splits, config, tmp_path):
    forecaster = trained("stockformer", panel, splits, config, ["SYN001"]).forecaster()
    forecaster.save(tmp_path)
    path = tmp_path / forecaster.file_name("SYN001")
    state = torch.load(path, weights_only=True)
    assert state["members"].dtype == torch.float16 and state["feature_names"] == list(panel.feature_names)
    torch.save(state | {"format": 99}, path)
    with pytest.raises(DeliveryError, match="newer version"):
        type(forecaster).load(tmp_path)
    path.write_bytes(b"not a model")
    with pytest.raises(DeliveryError, match="not a model of this library"):
        type(forecaster).load(tmp_path)


def test_unknown_family_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'stockformer'"):
        family_module("stokformer")


def test_without_validation_days_a_symbol_still_trains(panel, splits, config):
    config = replace(config, train=replace(config.train, epochs=1))
    learner = family_module("stockformer").make_learner(panel.select(["SYN001"]), splits.train, None, config)
    while not learner.finished:
        learner.step()
    assert learner.forecaster().symbols == ("SYN001",)
