"""What is promised of a stack in training: independence, exact resume, early stop, and who leaves when."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from vnq_colab.data.forecast import make_labels
from vnq_colab.data.panel import build_panel
from vnq_colab.data.splits import yearly_folds
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.models.base import Job, TrainingData
from vnq_colab.models.stockformer import LocalStack
from vnq_colab.settings import Task

MEMBERS = 2


@pytest.fixture
def config(config):
    """Local networks that begin from random weights and learn each stock's own return, as in the source texts."""
    return replace(config, families=("stockformer",), task=Task(target="return"), n_members=MEMBERS,
                   stockformer=replace(config.stockformer, start="own"))


def learner_of(panel, splits, config, symbols, budgets=None):
    """The stack of these symbols; with `budgets` of a final fit, without validation days."""
    train, valid = (getattr(splits, part).mask(panel.days) for part in ("train", "valid"))
    data = TrainingData(panel, make_labels(panel, config.task), train, valid & (budgets is None), config.task)
    return LocalStack(Job("stockformer", 0, 0, tuple(symbols)), data, config, None, budgets)


def train_out(learner):
    while not learner.finished:
        learner.step()
    return learner


def without_dropout(config):
    return replace(config, model=replace(config.model, dropout=0.0))


def weights_of(learner, symbol):
    """`[members, parameters]` of a symbol that is finished, before they are rounded for the export."""
    return torch.stack([learner._done[symbol, member][0] for member in range(MEMBERS)])


def absent_on(panel, symbol, days):
    """The panel without a symbol on the days marked in `days`."""
    present, values, prices = panel.present.copy(), panel.values.copy(), panel.prices.copy()
    row = panel.symbols.index(symbol)
    present[row, days], values[row, days], prices[row, days] = False, 0, np.nan
    return replace(panel, present=present, values=values, prices=prices)


@pytest.mark.parametrize("supervise", ["all_days", "last_day"])
def test_symbol_learns_the_same_alone_and_packed(panel, splits, config, supervise):
    config = without_dropout(replace(config, train=replace(config.train, supervise=supervise, epochs=2)))
    alone = train_out(learner_of(panel, splits, config, ["SYN002"]))
    packed = train_out(learner_of(panel, splits, config, ["SYN004", "SYN002", "SYN001"]))
    torch.testing.assert_close(weights_of(packed, "SYN002"), weights_of(alone, "SYN002"), rtol=1e-3, atol=5e-4)


def test_half_precision_reaches_the_same_validation_loss(panel, splits, config):
    """Within 1 %, which is what two seeds differ by; weights, optimizer and loss stay in float32."""
    half = replace(config, machine=replace(config.machine, dtype="bfloat16"))
    exact, rounded = (train_out(learner_of(panel, splits, chosen, ["SYN001", "SYN002"])) for chosen in (config, half))
    losses = [[1 - row["skill"] for row in learner.result().rows.values()] for learner in (exact, rounded)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
    assert losses[0] != losses[1] and rounded.weights.dtype == torch.float32


@pytest.mark.parametrize("supervise", ["all_days", "last_day"])
def test_epoch_labels_every_training_day_with_context_once(panel, splits, config, supervise):
    config = replace(config, train=replace(config.train, supervise=supervise))
    learner = learner_of(panel, splits, config, ["SYN001", "SYN006"])
    seen = np.zeros((len(learner.models), len(panel.days)), dtype=int)
    for step in range(learner._ends.shape[1]):
        ends, symbols = learner._ends[:, step], learner._symbols[:, step]
        _, _, weight = learner._output(learner.weights, symbols, ends, learner._in_train, None, learner._labelled)
        for model, window, place in torch.nonzero(weight).tolist():
            seen[model, int(ends[model, window]) - weight.shape[2] + 1 + place] += 1
    np.testing.assert_array_equal(seen, np.repeat(learner._train_days.astype(int), MEMBERS, axis=0))
    assert not seen[:, ~splits.train.mask(panel.days)].any() and (seen.sum(axis=1) > 300).all()
    for row, symbol in ((0, "SYN001"), (MEMBERS, "SYN006")):
        first = np.flatnonzero(seen[row])[0]
        assert panel.select([symbol]).present[0, : first + 1].sum() >= config.model.min_context


def test_order_of_windows_belongs_to_the_model_alone(panel, splits, config):
    alone = learner_of(panel, splits, config, ["SYN002"])
    packed = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    torch.testing.assert_close(alone._ends[1], packed._ends[3][: alone._ends.shape[1]])
    assert not torch.equal(packed._ends[2], packed._ends[3])


def test_model_without_progress_stops_and_keeps_its_best(panel, splits, config):
    config = replace(config, train=replace(config.train, epochs=12, patience=1, learning_rate=0.05))
    learner = train_out(learner_of(panel, splits, config, ["SYN001", "SYN002"]))
    assert max(row[2] for row in learner.history) < 12
    by_model = pd.DataFrame(learner.history, columns=["symbol", "member", "epoch", "loss", "skill"]).groupby(
        ["symbol", "member"])
    best = by_model[["epoch", "skill"]].apply(lambda rows: rows["epoch"].iloc[rows["skill"].argmax()])
    for symbol, row in learner.result().rows.items():
        assert row["best_epochs"] == best[symbol].tolist()
        assert row["skill"] == pytest.approx(by_model["skill"].max()[symbol].mean())


@pytest.mark.parametrize("dial, finds", [(0.8, True), (0.0, False)])
def test_learning_finds_a_planted_signal_and_nothing_in_a_random_walk(config, dial, finds):
    """Correlation of the forecasts with the outcomes of the test days, four stocks."""
    panel = build_panel(synthetic_prices(4, 1500, seed=2, signal=dial))
    splits = yearly_folds(panel.days, 1)[0]
    config = replace(config, train=replace(config.train, epochs=8, patience=3, learning_rate=2e-3))
    learner = train_out(learner_of(panel, splits, config, list(panel.symbols)))
    forecast = learner.result().forecaster.predict(panel, splits.test.mask(panel.days))
    place = forecast["symbol"].map(panel.symbols.index), panel.days.get_indexer(forecast["date"])
    both = forecast.assign(actual=panel.ahead()[place]).dropna(subset="actual")
    correlation = both.groupby("symbol")[["mean", "actual"]].corr().xs("mean", level=1)["actual"].mean()
    assert bool(correlation > 0.2) is finds and bool(abs(correlation) < 0.15) is not finds


def test_diverged_symbol_is_named_and_leaves_the_others_alone(panel, splits, config):
    config = without_dropout(config)
    learner = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    learner._labels[1] = float("nan")
    result = train_out(learner).result()
    assert list(result.failed) == ["SYN002"] and "not finite" in result.failed["SYN002"]
    assert result.forecaster.symbols == ("SYN001",) and list(result.rows) == ["SYN001"]
    alone = train_out(learner_of(panel, splits, config, ["SYN001"]))
    torch.testing.assert_close(weights_of(learner, "SYN001"), weights_of(alone, "SYN001"), rtol=1e-3, atol=5e-4)


def test_final_fit_trains_each_member_for_the_mean_of_its_folds_epochs(panel, splits, config):
    """A symbol that no fold knew is trained as long as the others are on average."""
    budgets = [{"epochs": {"SYN001": [1, 2]}}, {"epochs": {"SYN001": [1, 4]}}]
    learner = train_out(learner_of(panel, splits, config, ["SYN001", "SYN004"], budgets=budgets))
    rows = learner.result().rows
    assert rows["SYN001"]["best_epochs"] == [1, 3] and rows["SYN004"]["best_epochs"] == [2, 2]
    assert max(row[2] for row in learner.history if row[:2] == ("SYN001", 0)) == 1


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
    alone = learner_of(panel, splits, config, ["SYN004"])
    packed = learner_of(panel, splits, config, ["SYN004", "SYN002"])
    assert alone._steps[0] < max(packed._steps)
    for step in range(max(alone._steps)):
        alone.step_in_epoch = packed.step_in_epoch = step
        own, shared = alone._gradient(None)[1], packed._gradient(None)[1][:MEMBERS]
        torch.testing.assert_close(own, shared, rtol=1e-3, atol=1e-6)


def test_validation_does_not_depend_on_who_shares_the_pack(panel, splits, config):
    """A packmate that was listed late, or absent on the first validation days, moves nobody's windows."""
    first = np.flatnonzero(splits.valid.mask(panel.days))[0]
    holed = absent_on(panel, "SYN002", slice(first - 20, first + 12))
    alone = learner_of(holed, splits, config, ["SYN002"])
    packed = learner_of(holed, splits, config, ["SYN002", "SYN001"])
    assert alone._validate() == pytest.approx(packed._validate()[:MEMBERS], abs=1e-5)


def test_symbol_without_validation_days_has_no_skill_and_trains_to_the_end(panel, splits, config):
    holed = absent_on(panel, "SYN002", splits.valid.mask(panel.days))
    for symbols in (["SYN002"], ["SYN002", "SYN001"]):
        learner = train_out(learner_of(holed, splits, config, symbols))
        assert np.isnan(learner.history[0][4])
        assert learner.result().rows["SYN002"]["best_epochs"] == [config.train.epochs] * MEMBERS


def poison(learner, symbol, member=None):
    """From here on the weights of a symbol (or of one member) give losses that are not finite."""
    rows = [row for row, model in enumerate(learner.models) if model[0] == symbol and member in (None, model[1])]
    learner.weights[rows] = float("nan")


@pytest.mark.parametrize("name, change", [("square", lambda of: of[:0]), ("mean", lambda of: of[:, :-1]),
                                          ("weights", lambda of: of.double())])
def test_state_with_tensors_of_other_shapes_is_refused_before_a_step(panel, splits, config, name, change):
    learner = learner_of(panel, splits, config, ["SYN001"])
    state = learner.state_dict()
    with pytest.raises(ValueError, match="other shapes"):
        learner.load_state_dict(state | {name: change(state[name])})


def test_divergence_in_mid_epoch_resumes_bit_for_bit(panel, splits, config):
    config = replace(config, train=replace(config.train, supervise="last_day", epochs=2))
    live = learner_of(panel, splits, config, ["SYN002", "SYN001", "SYN004"])
    live.step()
    poison(live, "SYN002")  # the longest history: the survivors' plans are narrower
    live.step()
    assert list(live.state_dict()["diverged"]) == ["SYN002"] and live.step_in_epoch == 2
    again = learner_of(panel, splits, config, ["SYN002", "SYN001", "SYN004"])
    again.load_state_dict(live.state_dict())
    train_out(live), train_out(again)
    for symbol in ("SYN001", "SYN004"):
        assert torch.equal(weights_of(live, symbol), weights_of(again, symbol))


def test_symbol_whose_last_member_diverges_leaves_no_half_behind(panel, splits, config):
    config = replace(config, train=replace(config.train, epochs=4))
    learner = learner_of(panel, splits, config, ["SYN001", "SYN002"])
    row = learner.models.index(("SYN002", 0))
    learner._done["SYN002", 0] = (learner.best[row, 0].clone(), 1, 0.5)  # member 0 stopped early
    learner._keep_rows([other for other in range(len(learner.models)) if other != row])
    learner._begin_epoch()
    poison(learner, "SYN002", member=1)
    result = train_out(learner).result()
    assert list(result.failed) == ["SYN002"]
    assert list(result.rows) == ["SYN001"] == list(result.forecaster.symbols)


@pytest.mark.parametrize("loss", ["mse", "mae", "gaussian_nll"])
def test_every_loss_learns_stops_and_forecasts(panel, splits, config, loss):
    config = replace(config, train=replace(config.train, loss=loss, label_clip=3.0, epochs=2))
    result = train_out(learner_of(panel, splits, config, ["SYN001", "SYN002"])).result()
    assert result.forecaster.symbols == ("SYN001", "SYN002") and not result.failed
    origins = splits.test.mask(panel.days)
    forecast = result.forecaster.predict(panel, origins)
    np.testing.assert_array_equal(forecast["score"], forecast["mean"])
    assert np.isfinite(forecast["mean"]).all() and forecast["mean"].std() > 0
    assert ("scale" in forecast) == (loss == "gaussian_nll")
    if "scale" in forecast:
        assert (forecast["scale"] > 0).all() and (forecast.groupby("symbol")["scale"].nunique() > 1).all()


def test_best_epochs_are_averaged(panel, splits, config):
    """With three kept: the mean of the weights after the three epochs of the highest skill."""
    config = replace(config, n_members=1, train=replace(config.train, epochs=6, patience=6, keep_top_k=3))
    learner = learner_of(panel, splits, config, ["SYN001"])
    after = []
    while not learner.finished:
        before, weights = learner.epoch, learner.weights
        learner.step()
        if learner.epoch > before:
            after.append(weights[0].clone())
    best = np.argsort([-row[4] for row in learner.history])[:3]
    mean = torch.stack([after[epoch] for epoch in best]).mean(0)
    torch.testing.assert_close(learner._done["SYN001", 0][0], mean)
    assert learner.result().rows["SYN001"]["best_epochs"] == [best[0] + 1]
    assert torch.equal(learner.result().forecaster.weights[0, 0], mean.half())
