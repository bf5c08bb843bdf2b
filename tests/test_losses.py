"""Losses and schedules beside PyTorch's own, and what is known of them in closed form."""

import math
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from vnq_colab.config import RunConfig
from vnq_colab.errors import ConfigError
from vnq_colab.models.losses import LOSSES, QUANTILES, learning_rate, loss_per_model, scale_of, without_skill
from vnq_colab.settings import TrainConfig


def choices(name: str) -> tuple[str, ...]:
    return get_args(get_type_hints(TrainConfig)[name])


def test_loss_is_the_mean_over_labelled_positions():
    output, target = torch.zeros(2, 1, 3, 5), torch.full((2, 1, 3, 5), 0.5)
    target[:, :, 2] = 100
    weight = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
    torch.testing.assert_close(loss_per_model("huber", output, target, weight), torch.tensor([0.125, 0.0]))


@pytest.mark.parametrize("name, theirs", [
    ("huber", nn.functional.huber_loss), ("mse", nn.functional.mse_loss), ("mae", nn.functional.l1_loss)])
def test_loss_of_each_model_is_pytorch_s(name, theirs):
    output, target = torch.randn(3, 4, 7, 5), torch.randn(3, 4, 7, 5)
    found = loss_per_model(name, output, target, torch.ones(3, 4, 7))
    torch.testing.assert_close(found, torch.stack([theirs(*pair) for pair in zip(output, target, strict=True)]))


def test_gaussian_and_pinball_are_those_of_the_books():
    output, target = torch.randn(2, 6, 10, dtype=torch.float64), torch.randn(2, 6, 5, dtype=torch.float64)
    found = loss_per_model("gaussian_nll", output, target, torch.ones(2, 6))
    mean, log_variance = output[..., :5], output[..., 5:]
    theirs = -norm.logpdf(target, mean, (log_variance / 2).exp()).mean(axis=(1, 2)) - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(found, theirs)
    output = torch.randn(2, 6, 15, dtype=torch.float64)
    found = loss_per_model("pinball", output, target, torch.ones(2, 6))
    for row in range(2):
        error = target[row, :, None, :].numpy() - output[row].unflatten(-1, (3, 5)).numpy()
        share = np.array(QUANTILES)[:, None]
        theirs = np.where(error >= 0, share, 1 - share) * np.abs(error)
        assert found[row] == pytest.approx(np.mean(theirs))


@pytest.mark.parametrize("name", LOSSES)
def test_no_constant_forecast_beats_the_one_without_skill(name):
    """On labels of mean 0 and spread 1; so a validation loss below it is skill."""
    target = torch.randn(1, 20_000, 5, generator=torch.Generator().manual_seed(0))
    guess = without_skill(name, target)
    best = loss_per_model(name, guess, target, torch.ones(1, 20_000))
    for change in (-0.2, 0.2):
        for part in range(LOSSES[name].n_outputs):
            other = guess.clone()
            other[..., 5 * part:5 * part + 5] += change
            assert loss_per_model(name, other, target, torch.ones(1, 20_000)) > best


def test_scale_of_quantiles_and_variance_is_the_standard_deviation():
    assert scale_of(torch.zeros(3, 5), 1) is None
    torch.testing.assert_close(scale_of(torch.cat([torch.zeros(5), torch.full((5,), math.log(4.0))]), 2),
                               torch.full((5,), 2.0))
    quantiles = torch.tensor(norm.ppf(QUANTILES, scale=3.0), dtype=torch.float32).repeat_interleave(5)
    torch.testing.assert_close(scale_of(quantiles, 3), torch.full((5,), 3.0))


def test_one_cycle_is_pytorch_s():
    train = TrainConfig(schedule="one_cycle", epochs=20)
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, train.learning_rate, total_steps=20, pct_start=7 / 20,
                                                 cycle_momentum=False)
    rates = []
    for _ in range(20):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    found = [learning_rate(train, epoch) for epoch in range(20)]
    np.testing.assert_allclose(found, rates, rtol=1e-6, atol=1e-12)


def test_cosine_warms_up_and_ends_at_nothing():
    train = TrainConfig(epochs=30, warmup_epochs=4)
    rates = [learning_rate(train, epoch) for epoch in range(31)]
    np.testing.assert_allclose(rates[:5], train.learning_rate * np.arange(1, 6) / 5)
    assert all(np.diff(rates[4:]) < 0) and rates[30] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["loss", "schedule", "supervise"])
def test_wrong_choice_names_the_right_ones(name):
    with pytest.raises(ConfigError, match=f"train.{name} = 'x'.*{choices(name)[1]}"):
        replace(RunConfig().train, **{name: "x"})


def test_every_loss_of_the_config_is_there():
    assert set(LOSSES) == set(choices("loss"))
