"""The entry exam of every family: what a learner and its forecaster must be able to do before they may join."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab.data.forecast import SCORES, check_forecast, make_labels
from vnq_colab.errors import CheckpointError, ConfigError, DeliveryError
from vnq_colab.evaluation.order import daily_rank_correlations
from vnq_colab.models.base import FAMILIES, Forecaster, Learner, TrainingData, family_module, model_bytes, restored
from vnq_colab.models.states import read_state
from vnq_colab.settings import Task


def job_of(family, panel, folds, config, fold=0):
    """The only job of a family in a fold; None: the final fit."""
    config = replace(config, machine=replace(config.machine, pack_models=99))
    job, = (job for job in family_module(family).plan(config.task, panel, folds, config, config.machine)
            if job.fold == fold)
    return job


def learner_of(family, panel, folds, config, labels=None, needs=None, fold=0):
    """A learner of the fold, begun from the results of other families where its job needs them; and these results."""
    job = job_of(family, panel, folds, config, fold)
    if needs is None:
        needs = {}
        for name in job.needs:
            need = train_out(learner_of(name.partition("_")[0], panel, folds, config, labels)[0])
            needs[name] = {"budget": need.budget, "weights": need.forecaster.to_state(),
                           "held_out": need.valid_forecaster.to_state()}
    train, valid = (getattr(folds[0], part).mask(panel.days) for part in ("train", "valid"))
    if fold is None:
        train, valid = np.ones_like(train), np.zeros_like(valid)
    labels = labels if labels is not None else make_labels(panel, config.task)
    data = TrainingData(panel, labels, train, valid, config.task)
    return family_module(family).learner(job, data, config, needs), needs


def train_out(learner):
    while not learner.finished:
        learner.step()
    return learner.result()


def same(first, second, **how):
    by = ["symbol", "date"]
    pd.testing.assert_frame_equal(first.sort_values(by, ignore_index=True), second.sort_values(by, ignore_index=True),
                                  **{"check_exact": True} | how)


def other_days(panel, days):
    """The panel with other features and prices, and other absences, on the days marked in `days`."""
    random = np.random.default_rng(0)
    values, prices, present = panel.values.copy(), panel.prices.copy(), panel.present.copy()
    values[:, days] += 3 * random.standard_normal(values[:, days].shape).astype("float32")
    prices[:, days] *= random.uniform(0.5, 2, prices[:, days].shape)
    present[:, days] &= random.random(present[:, days].shape) < 0.8
    return replace(panel, values=np.where(present[:, :, None], values, 0), present=present,
                   prices=np.where(present[:, :, None], prices, np.nan))


def without(panel, symbol, days):
    """The panel without a symbol on the days marked in `days`."""
    values, prices, present = panel.values.copy(), panel.prices.copy(), panel.present.copy()
    row = panel.symbols.index(symbol)
    values[row, days], prices[row, days], present[row, days] = 0, np.nan, False
    return replace(panel, values=values, prices=prices, present=present)


def check_family(family, panel, folds, config, folder):
    """The exam; a new family passes it before anything else is asked of it."""
    learner, needs = learner_of(family, panel, folds, config)
    assert isinstance(learner, Learner)
    shares = []
    while not learner.finished:
        progress = learner.step()
        shares.append(progress.share)
        assert progress.words and all(np.isfinite(value) for value in progress.measured.values())
    assert shares == sorted(shares) and shares[0] > 0 and shares[-2] < 1 == shares[-1]
    exam = SimpleNamespace(
        family=family, panel=panel, folds=folds, config=config, needs=needs, folder=folder, n_steps=len(shares),
        trained=learner.result(), test=folds[0].test.mask(panel.days), valid=folds[0].valid.mask(panel.days))
    for check in (check_shapes, check_forecasts_see_nothing_later, check_training_sees_nothing_later,
                  check_exact_resume, check_what_is_saved_comes_back, check_absent_days_and_an_empty_symbol,
                  check_one_symbol_alone, check_shuffled_labels_give_no_skill, check_final_fit):
        check(exam)


def check_shapes(exam):
    """Every judged stock that is there on a day gets a score, on validation days by a model that has not seen them."""
    trained, symbols = exam.trained, exam.config.symbols
    assert isinstance(trained.forecaster, Forecaster) and sorted(trained.forecaster.symbols) == sorted(symbols)
    assert trained.budget and trained.curves and not trained.failed
    for forecaster, days in ((trained.forecaster, exam.test), (trained.valid_forecaster, exam.valid)):
        forecast = check_forecast(forecaster.predict(exam.panel, days), SCORES)
        there = exam.panel.select(symbols).present[:, days]
        assert (forecast["family"] == exam.family).all() and len(forecast) == there.sum()
        assert set(forecast["date"]) == set(exam.panel.days[days]) and forecast["score"].nunique() > 10
    assert trained.forecaster.digest() != trained.valid_forecaster.digest()


def check_forecasts_see_nothing_later(exam):
    """Whatever comes after a day: the forecasts up to it keep their bits."""
    predict, day = exam.trained.forecaster.predict, np.flatnonzero(exam.test)[13]
    before, later = (np.zeros_like(exam.test) for _ in range(2))
    before[day - 12: day + 1], later[day + 1:] = True, True
    other = other_days(exam.panel, later)
    same(predict(exam.panel, before), predict(other, before))
    same(predict(exam.panel, exam.test).query("date <= @exam.panel.days[@day]"),
         predict(other, exam.test).query("date <= @exam.panel.days[@day]"))
    assert not predict(exam.panel, later)["score"].equals(predict(other, later)["score"])


def check_training_sees_nothing_later(exam):
    """Whatever comes from the first test day on: the same is learnt, to the bit."""
    later = np.arange(len(exam.test)) >= np.flatnonzero(exam.test)[0]
    trained = train_out(learner_of(exam.family, other_days(exam.panel, later), exam.folds, exam.config)[0])
    for part in ("forecaster", "valid_forecaster"):
        assert getattr(trained, part).digest() == getattr(exam.trained, part).digest(), part


def check_exact_resume(exam):
    """From a state that went through a file, early and late, the same comes out, to the bit."""
    for n_steps in (1, exam.n_steps // 3 + 1, exam.n_steps - 2):
        first, second = (learner_of(exam.family, exam.panel, exam.folds, exam.config, needs=exam.needs)[0]
                         for _ in range(2))
        for _ in range(n_steps):
            first.step()
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        second.load_state_dict(torch.load(file, weights_only=True))
        resumed = train_out(second)
        for part in ("forecaster", "valid_forecaster"):
            assert getattr(resumed, part).digest() == getattr(exam.trained, part).digest(), (part, n_steps)
        np.testing.assert_equal(resumed.curves, exam.trained.curves)
        assert (resumed.budget, resumed.rows) == (exam.trained.budget, exam.trained.rows)


def check_what_is_saved_comes_back(exam):
    """At the exported precision, which is also that of what was judged."""
    forecaster = exam.trained.forecaster
    expected = forecaster.predict(exam.panel, exam.test)
    with pytest.raises(DeliveryError, match=f"no model of the family {exam.family}. Export again"):
        family_module(exam.family).load(exam.folder)
    paths = forecaster.save(exam.folder, {"run_id": "x"})
    assert paths and all(torch.load(path, weights_only=True)["run_id"] == "x" for path in paths)
    assert {path.parent for path in paths} == {exam.folder} and forecaster.save(exam.folder) == paths
    loaded = family_module(exam.family).load(exam.folder)
    for again in (loaded, restored(forecaster.to_state(), exam.family)):
        same(again.predict(exam.panel, exam.test), expected)
        assert again.select(forecaster.symbols).digest() == forecaster.digest()
        assert (again.look_back, again.feature_names) == (forecaster.look_back, exam.panel.feature_names)


def check_absent_days_and_an_empty_symbol(exam):
    """An absent day gives no row and leaves the others finite; a symbol without any day is no hindrance to learn."""
    days, symbols = np.flatnonzero(exam.test), exam.config.symbols
    gap = np.isin(np.arange(len(exam.test)), days[[3, 20, 21]])
    holed = exam.trained.forecaster.predict(without(exam.panel, symbols[0], gap), exam.test)
    assert not set(exam.panel.days[gap]) & set(holed.loc[holed["symbol"] == symbols[0], "date"])
    assert np.isfinite(holed["score"]).all()
    empty = without(exam.panel, symbols[0], slice(None))
    trained = train_out(learner_of(exam.family, empty, exam.folds, exam.config)[0])
    forecast = trained.forecaster.predict(empty, exam.test)
    assert set(forecast["symbol"]) == set(symbols[1:]) and np.isfinite(forecast["score"]).all()


def check_one_symbol_alone(exam):
    """It forecasts the same beside other symbols, to what the size of a batch changes of the last bits."""
    symbol = exam.config.symbols[1]
    together = exam.trained.forecaster.predict(exam.panel, exam.test)
    alone = exam.trained.forecaster.select((symbol,)).predict(exam.panel, exam.test)
    same(alone, together[together["symbol"] == symbol], check_exact=False, rtol=0, atol=1e-6)


def shuffled(labels):
    """The labels dealt anew among the stocks of each day: nobody can know those of the test days."""
    values, random = labels.values.copy(), np.random.default_rng(1)
    for day in range(values.shape[1]):
        known = np.flatnonzero(labels.known[:, day])
        values[known, day] = values[random.permutation(known), day]
    return replace(labels, values=values)


def skill_of(family, panel, folds, config, labels):
    """Mean rank correlation of the scores of all stocks' test days with the labels that were learnt, and its error."""
    trained = train_out(learner_of(family, panel, folds, replace(config, symbols=panel.symbols), labels)[0])
    forecast = trained.forecaster.predict(panel, folds[0].test.mask(panel.days))
    place = forecast["symbol"].map(panel.symbols.index), panel.days.get_indexer(forecast["date"])
    rows = forecast.assign(label=labels.values[*place, 0])[labels.known[place]]
    daily = daily_rank_correlations(rows, "label")[0][family].dropna()
    assert len(daily) > 200
    return daily.mean(), daily.std() / np.sqrt(len(daily))


def check_shuffled_labels_give_no_skill(exam):
    labels = shuffled(make_labels(exam.panel, exam.config.task))
    skill, error = skill_of(exam.family, exam.panel, exam.folds, exam.config, labels)
    assert abs(skill) < 2.6 * error


def check_final_fit(exam):
    """All days, without validation, as long as the folds found best."""
    job = job_of(exam.family, exam.panel, exam.folds, exam.config, fold=None)
    needs = {f"{exam.family}_fold1": {"budget": exam.trained.budget}}
    for name in job.needs:
        needs[name] = needs.get(name) or {
            "budget": exam.trained.budget, "weights": exam.needs["global_fold1"]["weights"] if exam.needs else None}
    trained = train_out(learner_of(exam.family, exam.panel, exam.folds, exam.config, needs=needs, fold=None)[0])
    last = np.arange(len(exam.test)) == len(exam.test) - 1
    assert len(trained.forecaster.predict(exam.panel, last)) == len(exam.config.symbols)
    assert trained.valid_forecaster is None and trained.forecaster.digest() != exam.trained.forecaster.digest()


@pytest.mark.parametrize("family", FAMILIES)
def test_family_passes_its_entry_exam(family, panel, folds, config, tmp_path):
    check_family(family, panel, folds, config, tmp_path)


def test_family_of_sixty_lines_passes_the_exam_as_well(panel, folds, config, tmp_path, monkeypatch):
    import own_family

    lines = Path(own_family.__file__).read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 60
    monkeypatch.setitem(FAMILIES, own_family.NAME, own_family.__name__)
    check_family(own_family.NAME, panel, folds, config, tmp_path)


@pytest.fixture(scope="module")
def shared(panel, folds, config):
    """The forecaster of a global network."""
    return train_out(learner_of("global", panel, folds, config)[0]).forecaster


def test_network_without_a_global_start_passes_the_exam_as_well(panel, folds, config, tmp_path):
    own = replace(config, families=("stockformer",), task=Task(target="return"),
                  stockformer=replace(config.stockformer, start="own"), train=replace(config.train, epochs=2))
    check_family("stockformer", panel, folds, own, tmp_path)


def test_forecaster_refuses_a_panel_with_other_features(shared, panel, splits):
    origins = splits.test.mask(panel.days)
    with pytest.raises(DeliveryError, match="trained on return_1.*does not compute.*computes return_one"):
        shared.predict(replace(panel, feature_names=("return_one", *panel.feature_names[1:])), origins)
    with pytest.raises(DeliveryError, match="another order"):
        shared.predict(replace(panel, feature_names=panel.feature_names[::-1]), origins)


def bad_states(state):
    """(what is wrong, the state)"""
    weights, names = state["weights"], state["feature_names"]
    inputs = state["inputs"]
    for what, change in {
            "weights not finite": {"weights": torch.full_like(weights, torch.inf)},
            "fewer weights": {"weights": weights[:, :, 1:]}, "another precision": {"weights": weights.double()},
            "no member": {"weights": weights[:, :0]}, "weights are words": {"weights": "many"},
            "a loss that is none": {"loss": "luck"}, "another family": {"family": "stockformer"},
            "a layer too many": {"config": state["config"] | {"n_layers": 3}},
            "endless layers": {"config": state["config"] | {"n_layers": 10**6}},
            "an unknown setting": {"config": state["config"] | {"depth": 1}}, "no config": {"config": None},
            "a task that is none": {"task": state["task"] | {"horizon": 0}},
            "a feature too few": {"feature_names": names[1:]}, "names are numbers": {"feature_names": [1] * len(names)},
            "negative spread": {"inputs": inputs | {"spread": -inputs["spread"]}},
            "no unit": {"inputs": inputs | {"target": 0 * inputs["target"]}},
            "mean not finite": {"inputs": inputs | {"mean": inputs["mean"] * torch.nan}},
            "inputs of another kind": {"inputs": inputs | {"kind": "all"}},
    }.items():
        yield what, state | change


def test_state_whose_numbers_cannot_be_a_models_is_refused(shared):
    state = shared.to_state()
    for what, bad in bad_states(state):
        with pytest.raises(DeliveryError, match="family|model"):
            restored(bad, "global")
            pytest.fail(what)
    assert restored(state, "global").digest() == shared.digest()


def test_bytes_that_are_no_state_or_unpack_to_more_are_refused(tmp_path):
    def deflated(state):
        stored, file = model_bytes(state), io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(stored)) as one, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as other:
            for name in one.namelist():
                other.writestr(name, one.read(name))
        return file.getvalue()

    endless: list = []
    endless.append(endless)
    assert read_state(tmp_path, model_bytes({"x": torch.ones(3), "again": endless})).keys() == {"x", "again"}
    for content in (b"", b"not a model", model_bytes([1]), deflated({"x": torch.zeros(10**6)}),
                    model_bytes({"x": torch.zeros(1).expand(10**12)}), model_bytes({"x": torch.ones(9)})[:-100]):
        with pytest.raises(CheckpointError, match="not a model|not a state|more than it holds|not a file of torch"):
            read_state(tmp_path, content)


def test_unknown_family_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'stockformer'"):
        family_module("stokformer")
