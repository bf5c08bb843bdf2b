"""What is promised of a pack in training: independence, exact resume, early stop, and who leaves when."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.splits import split_days
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.models.stockformer import make_learner


def learner_of(panel, splits, config, symbols, **choices):
    return make_learner(panel.select(symbols), splits.train, choices.pop("valid", splits.valid), config, **choices)


def train_out(learner):
    while not learner.finished:
        learner.step()
    return learner


def without_dropout(config):
    return replace(config, model=replace(config.model, dropout=0.0))


def weights_of(learner, symbol):
    forecaster = learner.forecaster()
    return forecaster.weights[forecaster.symbols.index(symbol)]


@pytest.mark.parametrize("supervise", ["all_days", "last_day"])
def test_symbol_learns_the_same_alone_and_packed(panel, splits, config, supervise):
    config = without_dropout(replace(config, train=replace(config.train, supervise=supervise)))
    alone = train_out(learner_of(panel, splits, config, ["SYN002"]))
    packed = train_out(learner_of(panel, splits, config, ["SYN004", "SYN002", "SYN001"]))
    torch.testing.assert_close(weights_of(packed, "SYN002"), weights_of(alone, "SYN002"), rtol=1e-3, atol=5e-4)


def test_half_precision_reaches_the_same_validation_loss(panel, splits, config):
    """Within 1 %, which is what two seeds differ by; weights, optimizer and loss stay in float32."""
    half = replace(config, machine=replace(config.machine, dtype="bfloat16"))
    exact, rounded = (train_out(learner_of(panel, splits, chosen, ["SYN001", "SYN002"])) for chosen in (config, half))
    losses = [learner.measure()["valid_loss"].to_numpy() for learner in (exact, rounded)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
    assert not np.array_equal(*losses) and rounded.weights.dtype == torch.float32


def test_state_goes_on_bit_for_bit_in_mid_epoch(panel, splits, config):
    straight = train_out(learner_of(panel, splits, config, ["SYN001", "SYN002"]))
    first = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    for _ in range(7):
        first.step()
    assert first.epoch > 0 and first.step_in_epoch > 0
    second = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    second.load_state_dict(first.state_dict())
    train_out(second)
    for symbol in ("SYN001", "SYN002"):
        assert torch.equal(weights_of(second, symbol), weights_of(straight, symbol))
    assert second.history == straight.history


def test_epoch_labels_every_training_day_once(panel, splits, config):
    learner = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    per_model = learner._labels_in_step.sum(axis=1)
    days = np.repeat(learner._train_days.sum(axis=1), config.n_members)
    np.testing.assert_array_equal(per_model, days)


@pytest.mark.parametrize("supervise", ["all_days", "last_day"])
def test_every_label_lies_in_training_and_has_context(panel, splits, config, supervise):
    config = replace(config, train=replace(config.train, supervise=supervise))
    learner = learner_of(panel, splits, config, ["SYN001"])
    seen = np.zeros(len(panel.days), dtype=int)
    for step in range(learner._ends.shape[1]):
        ends = learner._ends[:1, step]
        last = ends.repeat(len(learner.models), 1)
        _, _, weight = learner._output(learner.weights, slice(None), last, learner._in_train, None, learner._labelled)
        labelled = weight.shape[2]
        for window, end in enumerate(ends[0].tolist()):
            for place in torch.nonzero(weight[0, window]).flatten().tolist():
                seen[end - labelled + 1 + place] += 1
    np.testing.assert_array_equal(seen, learner._train_days[0].astype(int))
    assert not seen[~splits.train.mask(panel.days)].any()
    assert panel.select(["SYN001"]).present[0, : np.flatnonzero(seen)[0] + 1].sum() >= config.model.min_context


def test_order_of_windows_belongs_to_the_model_alone(panel, splits, config):
    alone = learner_of(panel, splits, config, ["SYN002"])
    packed = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    torch.testing.assert_close(alone._ends[1], packed._ends[3][: alone._ends.shape[1]])
    assert not torch.equal(packed._ends[2], packed._ends[3])


def test_model_without_progress_stops_and_keeps_its_best(panel, splits, config):
    config = replace(config, train=replace(config.train, epochs=12, patience=1, learning_rate=0.05))
    learner = train_out(learner_of(panel, splits, config, ["SYN001", "SYN002"]))
    measured = learner.measure()
    assert (measured["epoch"] < 12).all()
    best = {}
    for symbol, member, epoch, _, valid, _ in learner.history:
        best.setdefault((symbol, member), []).append((valid, epoch))
    for symbol in ("SYN001", "SYN002"):
        assert learner.best_epochs(symbol) == [min(best[symbol, member])[1] for member in range(config.n_members)]


@pytest.mark.parametrize("dial, finds", [(0.4, True), (0.0, False)])
def test_learning_finds_a_planted_signal_and_nothing_in_a_random_walk(config, dial, finds):
    """Correlation of the forecasts with the outcomes of the test days, four stocks, five seasons."""
    panel = build_panel(synthetic_prices(4, 1500, seed=2, signal=dial))
    splits = split_days(panel.days)
    config = replace(config, train=replace(config.train, epochs=8, patience=3, learning_rate=2e-3))
    learner = train_out(learner_of(panel, splits, config, list(panel.symbols)))
    forecast = learner.forecaster().predict(panel, splits.test.mask(panel.days))
    both = forecast.merge(panel.outcomes(), on=["symbol", "date"])
    correlation = both.groupby("symbol")[["mean", "actual"]].corr().xs("mean", level=1)["actual"].mean()
    assert bool(correlation > 0.2) is finds and bool(abs(correlation) < 0.15) is not finds


def test_diverged_symbol_is_named_and_leaves_the_others_alone(panel, splits, config):
    config = without_dropout(config)
    learner = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    learner._labels[learner.panel.symbols.index("SYN002")] = float("nan")
    train_out(learner)
    assert list(learner.diverged()) == ["SYN002"] and "not finite" in learner.diverged()["SYN002"]
    assert learner.forecaster().symbols == ("SYN001",)
    alone = train_out(learner_of(panel, splits, config, ["SYN001"]))
    torch.testing.assert_close(weights_of(learner, "SYN001"), weights_of(alone, "SYN001"), rtol=1e-3, atol=5e-4)


def test_refit_trains_each_member_for_its_own_epochs(panel, splits, config):
    epochs_of = {("SYN001", 0): 1, ("SYN001", 1): 3}
    learner = train_out(learner_of(panel, splits, config, ["SYN001"], valid=None, epochs_of=epochs_of))
    assert learner.best_epochs("SYN001") == [1, 3]
    assert max(row[2] for row in learner.history if row[1] == 0) == 1


def test_averaged_batches_equal_one_large_batch(panel, splits, config):
    config = without_dropout(config)
    two = replace(config, train=replace(config.train, supervise="last_day", batch_windows=8, accumulate=2))
    one = replace(config, train=replace(config.train, supervise="last_day", batch_windows=16, accumulate=1))
    losses = [learner_of(panel, splits, choice, ["SYN001"])._gradient(None) for choice in (two, one)]
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-4, atol=1e-6)


def test_averaged_batches_do_not_depend_on_who_shares_the_pack(panel, splits, config):
    """In a step where one model has fewer batches than another each still takes the mean over its own."""
    settings = replace(config.train, supervise="last_day", batch_windows=4, accumulate=8)
    config = without_dropout(replace(config, train=settings))
    alone = learner_of(panel, splits, config, ["SYN006"])
    packed = learner_of(panel, splits, config, ["SYN006", "SYN001"])
    assert alone._steps[0] < max(packed._steps)
    for step in range(max(alone._steps)):
        alone.step_in_epoch = packed.step_in_epoch = step
        own, shared = alone._gradient(None)[1], packed._gradient(None)[1][: config.n_members]
        torch.testing.assert_close(own, shared, rtol=1e-3, atol=1e-6)


def test_validation_loss_does_not_depend_on_who_shares_the_pack(panel, splits, config):
    """A packmate that was listed late, or absent on the first validation days, moves nobody's windows."""
    first = np.flatnonzero(splits.valid.mask(panel.days))[0]
    present = panel.present.copy()
    present[panel.symbols.index("SYN002"), first - 20: first + 12] = False
    holed = Panel(np.where(present[:, :, None], panel.values, 0), np.where(present, panel.returns, np.nan), present,
                  panel.symbols, panel.days, panel.feature_names, panel.data_id)
    alone = learner_of(holed, splits, config, ["SYN002"])
    packed = learner_of(holed, splits, config, ["SYN002", "SYN001"])
    assert alone._validate()[0] == pytest.approx(packed._validate()[0][: config.n_members], rel=1e-5)


def test_symbol_without_validation_days_has_no_validation_loss(panel, splits, config):
    present = panel.present.copy()
    present[panel.symbols.index("SYN002"), splits.valid.mask(panel.days)] = False
    holed = Panel(np.where(present[:, :, None], panel.values, 0), np.where(present, panel.returns, np.nan), present,
                  panel.symbols, panel.days, panel.feature_names, panel.data_id)
    for symbols in (["SYN002"], ["SYN002", "SYN001"]):
        learner = train_out(learner_of(holed, splits, config, symbols))
        assert np.isnan(learner.history[0][4])
        assert learner.best_epochs("SYN002") == [config.train.epochs] * config.n_members


def poison(learner, symbol, member=None):
    """From here on the weights of a symbol (or of one member) give losses that are not finite."""
    rows = [row for row, model in enumerate(learner.models) if model[0] == symbol and member in (None, model[1])]
    learner.weights[rows] = float("nan")


def test_divergence_in_mid_epoch_resumes_bit_for_bit(panel, splits, config):
    config = replace(config, train=replace(config.train, supervise="last_day"))
    live = learner_of(panel, splits, config, ["SYN001", "SYN002", "SYN006"])
    live.step()
    poison(live, "SYN001")  # the longest history: the survivors' plans are narrower
    live.step()
    assert list(live.diverged()) == ["SYN001"] and live.step_in_epoch == 2
    again = learner_of(panel, splits, config, ["SYN001", "SYN002", "SYN006"])
    again.load_state_dict(live.state_dict())
    train_out(live), train_out(again)
    for symbol in ("SYN002", "SYN006"):
        assert torch.equal(weights_of(live, symbol), weights_of(again, symbol))


def test_symbol_whose_last_member_diverges_leaves_no_half_behind(panel, splits, config):
    config = replace(config, train=replace(config.train, epochs=4))
    learner = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    row = learner.models.index(("SYN002", 0))
    learner._done["SYN002", 0] = (learner.best[row].clone(), 1, 0.5)  # member 0 stopped early
    learner._keep([other for other in range(len(learner.models)) if other != row])
    learner._begin_epoch()
    poison(learner, "SYN002", member=1)
    train_out(learner)
    assert list(learner.diverged()) == ["SYN002"]
    assert learner.measure()["symbol"].tolist() == ["SYN001"] == list(learner.forecaster().symbols)


@pytest.mark.parametrize("loss", ["mse", "mae", "gaussian_nll", "pinball"])
def test_every_loss_learns_stops_and_forecasts(panel, splits, config, loss):
    config = replace(config, train=replace(config.train, loss=loss, label_clip=3.0, schedule="one_cycle"))
    learner = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    train_out(learner)
    forecaster = learner.forecaster()
    assert forecaster.symbols == ("SYN001", "SYN002") and not learner.diverged()
    origins = splits.test.mask(panel.days)
    forecast = forecaster.predict(panel, origins)
    assert np.isfinite(forecast[["mean", "scale", "p_up"]]).all(axis=None) and (forecast["scale"] > 0).all()
    given = forecast.groupby("symbol")["scale"].nunique()
    assert (given > 1).all() if loss in ("gaussian_nll", "pinball") else (given == 1).all()
    again = type(forecaster).from_states([forecaster.to_state()])
    pd.testing.assert_frame_equal(again.predict(panel, origins), forecast)


def test_best_epochs_are_averaged(panel, splits, config):
    """With three kept: the mean of the weights after the three epochs of the lowest validation loss."""
    config = replace(config, n_members=1, train=replace(config.train, epochs=6, patience=6, keep_top_k=3))
    learner = learner_of(panel, splits, config, ["SYN001"])
    after = []
    while not learner.finished:
        before, weights = learner.epoch, learner.weights
        learner.step()
        if learner.epoch > before:
            after.append(weights[0].clone())
    losses = [row[4] for row in learner.history]
    best = np.argsort(losses)[:3]
    mean = torch.stack([after[epoch] for epoch in best]).mean(0)
    torch.testing.assert_close(learner.forecaster().weights[0, 0], mean)
    assert learner.best_epochs("SYN001") == [best[0] + 1]
