"""One network for all symbols: what it sees, when it stops, and what it answers for whom."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab.config import MachineConfig, RunConfig, StockformerConfig, TrainConfig
from vnq_colab.data import downloads
from vnq_colab.data.panel import Panel, build_panel, fit_scaler
from vnq_colab.data.splits import DayRange, split_days
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.models import global_network
from vnq_colab.models.global_network import NAME, WINDOWS, forecast_daily, train_global
from vnq_colab.models.stockformer import Stockformer, make_learner


def daily_of(panel, splits, config, days=None):
    return forecast_daily(panel, splits, config, splits.test.mask(panel.days) if days is None else days, quiet=True)


def trained(panel, splits, config, **choices):
    return train_global(panel, splits.train, splits.valid, config, **choices)


@pytest.fixture(scope="module")
def market():
    """(panel, splits) with a planted signal of a tenth of the variance: 24 symbols, some listed late."""
    panel = build_panel(synthetic_prices(24, 1000, seed=5, signal=0.10))
    return panel, split_days(panel.days)


@pytest.fixture(scope="module")
def learnt(market):
    """(panel, splits, daily log returns) of a small network on the test days."""
    model = StockformerConfig(look_back=40, min_context=20, width=32, n_layers=2, n_heads=2, feed_forward=64)
    config = RunConfig(model=model, train=TrainConfig(epochs=10))
    return *market, daily_of(*market, config)


def test_global_network_beats_no_change_where_a_signal_is_planted(learnt):
    panel, splits, daily = learnt
    labels, known = panel.labels()
    judged = known & splits.test.mask(panel.days)
    actual, guess = labels.sum(axis=2)[judged], daily.sum(axis=2)[judged]
    assert ((guess - actual) ** 2).sum() < 0.98 * (actual**2).sum()
    assert np.corrcoef(guess, actual)[0, 1] > 0.15


def test_forecast_is_there_on_the_asked_days_of_every_symbol_and_nowhere_else(learnt):
    panel, splits, daily = learnt
    asked = splits.test.mask(panel.days)
    assert daily.shape == (*panel.returns.shape, 5) and np.isfinite(daily).all()
    assert not daily[:, ~asked].any() and (daily[:, asked] != 0).any(axis=(1, 2)).all()


def test_training_and_forecast_know_nothing_that_comes_later(panel, splits, config):
    """Whatever happens after a test day, its forecast keeps its bits; so training ended before the test days."""
    origins = splits.test.mask(panel.days)
    origins[np.flatnonzero(origins)[3]:] = False  # the first three
    later = np.arange(len(panel.days)) > np.flatnonzero(origins)[-1]
    values, returns, present = panel.values.copy(), panel.returns.copy(), panel.present.copy()
    values[:, later], returns[:, later] = 9.0, 0.1
    present[::2, later] = False
    poisoned = replace(panel, values=values, returns=returns, present=present)
    np.testing.assert_array_equal(daily_of(poisoned, splits, config, origins), daily_of(panel, splits, config, origins))


def test_same_seed_gives_the_same_bits_and_another_seed_others(panel, splits, config):
    first, again = (daily_of(panel, splits, config) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, daily_of(panel, splits, replace(config, seed=1)))


def test_windows_belong_to_one_symbol_and_label_each_training_day_once(panel, splits, config, monkeypatch):
    """Against plain loops: what the network sees of each window, and which days carry loss."""
    monkeypatch.setattr(global_network, "WINDOWS", 7)
    lessons, look_back = global_network._Lessons(panel, splits.train, splits.valid, config), config.model.look_back
    seen, count = [], np.zeros(panel.present.shape, int)
    monkeypatch.setattr(Stockformer, "forward", lambda self, weights, x, there, **_: seen.append((x, there)) or
                        torch.zeros(1, x.shape[1], lessons._labelled, 5))
    scaler = fit_scaler(panel, pd.Timestamp(splits.train.first), pd.Timestamp(splits.train.last))
    scaled = scaler.scale(panel.values, panel.present)
    for batch in lessons.train_batches(epoch=2):
        _, n_labels = lessons.loss(None, batch, "train")
        x, there = seen.pop()
        assert len(batch) <= 7 and x.shape == (1, len(batch), look_back, len(panel.feature_names))
        labelled_before = count.sum()
        for place, (symbol, last) in enumerate(batch.tolist()):
            for step, day in enumerate(range(last - look_back + 1, last + 1)):
                is_there = 0 <= day < len(panel.days) and panel.present[symbol, day]
                assert there[0, place, step] == is_there
                expected = scaled[symbol, day] if is_there else 0.0
                np.testing.assert_array_equal(x[0, place, step], np.broadcast_to(expected, x.shape[-1:]))
                if step >= config.model.min_context - 1 and 0 <= day < len(panel.days):
                    count[symbol, day] += lessons._days["train"][symbol, day]
        assert n_labels == count.sum() - labelled_before
    _, known = panel.labels()
    enough = np.cumsum(panel.present, axis=1) >= config.model.min_context
    np.testing.assert_array_equal(count, known & enough & splits.train.mask(panel.days))


def test_forecast_of_a_symbol_does_not_depend_on_the_others(panel, splits, config):
    """With the same weights: another symbol may be constant, noise or absent."""
    forecaster = trained(panel, splits, config).forecaster(panel, splits.train, config)
    origins = splits.test.mask(panel.days)
    values = panel.values.copy()
    values[1], values[2] = 1.0, np.random.default_rng(0).normal(size=values[2].shape)
    present = panel.present.copy()
    present[3] = False
    other = replace(panel, values=values, present=present)
    before, after = forecaster.daily(panel, origins), forecaster.daily(other, origins)
    np.testing.assert_array_equal(after[[0, 4, 5]], before[[0, 4, 5]])
    assert not np.array_equal(after[1], before[1])


def test_one_symbol_learns_what_a_network_of_its_own_learns(panel, splits, config):
    """Without dropout, in batches that hold all its windows: the same start, the same windows, the same stop."""
    config = replace(config, n_members=1, model=replace(config.model, dropout=0.0),
                     train=TrainConfig(epochs=8, warmup_epochs=1, patience=3, batch_windows=WINDOWS, start="own"))
    one = replace(panel.select(["SYN002"]), symbols=(NAME,))
    learner = make_learner(one, splits.train, splits.valid, config)
    while not learner.finished:
        learner.step()
    own, shared = learner.forecaster(), trained(one, splits, config)
    torch.testing.assert_close(shared.weights, own.weights[0, 0], rtol=1e-3, atol=1e-5)
    origins = splits.test.mask(panel.days)
    answers = [made.daily(one, origins) for made in (shared.forecaster(one, splits.train, config), own)]
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-6)
    assert shared.best_epoch == learner.best_epochs(NAME)[0]


def test_training_stops_when_the_validation_days_get_no_better(panel, splits, config, monkeypatch):
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.6, 0.1])
    kept = []
    monkeypatch.setattr(global_network._Lessons, "valid_loss",
                        lambda self, weights: kept.append(weights.detach().clone()) or next(losses))
    found = trained(panel, splits, replace(config, train=TrainConfig(epochs=30)))
    assert len(kept) == 5 and found.best_epoch == 2  # three epochs after the second, which was the best
    torch.testing.assert_close(found.weights, kept[1][0], rtol=0, atol=0)


def test_given_epochs_are_trained_to_the_last_as_they_were_with_validation_days(panel, splits, config):
    with_days = trained(panel, splits, config)
    without = trained(panel, splits, config, epochs=with_days.best_epoch)
    torch.testing.assert_close(without.weights, with_days.weights, rtol=0, atol=0)
    assert without.best_epoch == with_days.best_epoch >= 1
    assert trained(panel, splits, config, epochs=0).best_epoch == 0


def test_training_tells_of_every_step_and_ends_when_it_is_told_to(panel, splits, config, monkeypatch):
    monkeypatch.setattr(global_network, "WINDOWS", 16)
    told = []
    trained(panel, splits, config, between=told.append)
    assert [one["step"] for one in told[:told[0]["n_steps"]]] == list(range(told[0]["n_steps"]))
    assert [one["epoch"] for one in told if "valid_loss" in one] == [0, 1, 2]
    assert all(one["evaluation_seconds"] >= 0 for one in told if "valid_loss" in one)
    reasons = iter(["", None, "time is up"])
    assert trained(panel, splits, config, between=lambda measured: next(reasons)) == "time is up"


def test_weights_that_are_there_are_not_trained_again(panel, splits, config, monkeypatch):
    weights, fresh = trained(panel, splits, config).weights, daily_of(panel, splits, config)
    monkeypatch.setattr(global_network, "train_global", lambda *_, **__: 1 / 0)
    origins = splits.test.mask(panel.days)
    found = forecast_daily(panel, splits, config, origins, start=weights)
    np.testing.assert_allclose(found, fresh, rtol=1e-3, atol=1e-6)


def test_no_validation_days_keep_the_last_epoch(panel, splits, config):
    later = panel.days > pd.Timestamp(splits.train.last) + pd.Timedelta(days=10)
    ended = replace(panel, present=panel.present & ~later, returns=np.where(later, np.nan, panel.returns))
    lessons = global_network._Lessons(ended, splits.train, splits.valid, config)
    assert lessons.valid_loss(torch.zeros(1, lessons.network.n_parameters)) is None
    assert np.isfinite(daily_of(ended, splits, config, splits.train.mask(panel.days))).all()


def test_step_whose_gradient_is_not_finite_moves_nothing(panel, splits, config, monkeypatch):
    monkeypatch.setattr(global_network, "WINDOWS", 4)
    loss = global_network._Lessons.loss

    def poisoned(self, weights, batch, part, noise=None):
        found, count = loss(self, weights, batch, part, noise)
        return (found * np.nan if part == "train" else found), count

    monkeypatch.setattr(global_network._Lessons, "loss", poisoned)
    found = trained(panel, splits, config)
    start = Stockformer(config.model, len(panel.feature_names)).initial_weights(config.seed, NAME, 0)
    torch.testing.assert_close(found.weights, start, rtol=0, atol=0)


@pytest.mark.parametrize("loss", ["huber", "gaussian_nll", "pinball"])
def test_every_loss_of_a_config_trains_it(panel, splits, config, loss):
    config = replace(config, train=replace(config.train, loss=loss, label_clip=3.0))
    daily = daily_of(panel, splits, config)
    assert np.isfinite(daily).all() and daily.any() and np.abs(daily).max() < 0.2


def test_half_precision_learns_the_same_to_a_hundredth(panel, splits, config):
    half = replace(config, machine=replace(config.machine, dtype="bfloat16"))
    exact, rounded = (trained(panel, splits, chosen) for chosen in (config, half))
    lessons = global_network._Lessons(panel, splits.train, splits.valid, config)
    losses = [lessons.valid_loss(found.weights[None]) for found in (exact, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.01) and losses[0] != losses[1]
    assert rounded.weights.dtype == torch.float32


@pytest.mark.parametrize("symbols", [["SYN001"], ["SYN006", "SYN003"]])
def test_few_symbols_and_the_smoke_profile_are_enough(panel, splits, symbols):
    daily = daily_of(panel.select(symbols), splits, RunConfig.for_machine("smoke"))
    assert (daily[:, splits.test.mask(panel.days)] != 0).any(axis=(1, 2)).all()


def test_symbol_without_training_days_is_forecast_as_no_change(panel, splits, config):
    newborn = panel.present.copy()
    newborn[2, panel.days <= pd.Timestamp(splits.train.last)] = False
    changed = replace(panel, present=newborn, returns=np.where(newborn, panel.returns, np.nan))
    daily = daily_of(changed, splits, config)
    assert not daily[2].any() and (daily[[0, 1, 3]] != 0).any(axis=(1, 2)).all()
    nobody = Panel(panel.values, panel.returns, np.zeros_like(panel.present), panel.symbols, panel.days,
                   panel.feature_names, panel.data_id)
    assert not daily_of(nobody, splits, config).any()


@pytest.mark.parametrize("listed", [3, 12])
def test_symbol_listed_just_before_the_validation_days_does_no_harm(panel, splits, config, listed):
    """Three days are too few to learn from; the other symbols' network is asked only where there are some."""
    last = np.flatnonzero(splits.train.mask(panel.days))[-1]
    present = panel.present.copy()
    present[2, :last - listed - 4] = False
    changed = replace(panel, present=present, returns=np.where(present, panel.returns, np.nan))
    assert daily_of(changed, splits, config)[2].any() == (listed >= config.model.min_context)


def test_absent_days_are_not_looked_at(panel, splits, config):
    """Whatever stands in the panel on a halted day, the forecasts keep their bits."""
    present = panel.present.copy()
    present[:, 150:157] = present[:, -20:-18] = False
    values = panel.values.copy()
    values[~present] = 77.0
    holed = replace(panel, present=present)
    np.testing.assert_array_equal(daily_of(replace(holed, values=values), splits, config),
                                  daily_of(holed, splits, config))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only a machine without a GPU has to do without it")
def test_run_of_a_gpu_is_judged_on_a_machine_without_one(panel, splits, config):
    elsewhere = replace(config, machine=MachineConfig(device="cuda", dtype="bfloat16"))
    np.testing.assert_array_equal(daily_of(panel, splits, elsewhere), daily_of(panel, splits, config))


def test_threads_of_the_process_are_as_before_afterwards(panel, splits, config, monkeypatch):
    monkeypatch.setattr(global_network, "train_global", lambda *_, **__: 1 / 0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with pytest.raises(ZeroDivisionError):
            daily_of(panel, splits, config)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_progress_is_shown_unless_it_is_quiet(panel, splits, config, capsys, monkeypatch):
    monkeypatch.setattr(downloads, "PLAIN_SECONDS", 0)
    origins = DayRange(splits.test.first, splits.test.first).mask(panel.days)
    forecast_daily(panel, splits, config, origins)
    assert "one network for all symbols, at most: 1 of " in capsys.readouterr().err
    forecast_daily(panel, splits, config, origins, quiet=True)
    assert capsys.readouterr() == ("", "")
