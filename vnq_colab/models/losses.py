"""What a network is trained to get right, and how fast it learns: losses of a stack, and schedules.

A network gives `n_outputs` numbers for each day ahead, first all means (or medians), then all seconds, then all thirds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from vnq_colab.config import TrainConfig

QUANTILES = (0.5, 0.1, 0.9)  # the median first: it stands where other losses have the mean
NORMAL_90 = 1.2815515655446004  # [standard deviations] of the normal's 90 % quantile
MOST_LOG_VARIANCE = 10.0  # labels are scaled to a spread of 1


@dataclass(frozen=True)
class Loss:
    """A loss: how many numbers it needs for each day, what it costs, and what a forecast without skill would say."""

    n_outputs: int
    cost: Callable[..., torch.Tensor]  # (outputs [..., n_outputs, horizon], target [..., horizon]) -> [..., horizon]
    no_skill: tuple[float, ...]  # the same on every day, for a label of mean 0 and spread 1


def _pinball(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Source: Koenker & Bassett 1978; the mean over the three quantiles."""
    error = target.unsqueeze(-2) - output
    share = torch.tensor(QUANTILES, device=output.device, dtype=output.dtype).unsqueeze(-1)
    return torch.maximum(share * error, (share - 1) * error).mean(-2)


def _gaussian(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    mean, log_variance = output.unbind(-2)
    variance = log_variance.clamp(-MOST_LOG_VARIANCE, MOST_LOG_VARIANCE).exp()
    return functional.gaussian_nll_loss(mean, target, variance, reduction="none")


def _of_mean(cost: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda output, target: cost(output.squeeze(-2), target, reduction="none")


LOSSES = {  # by `train.loss`. Huber 1964, with the bend at one standard deviation of the scaled label
    "huber": Loss(1, _of_mean(functional.huber_loss), (0.0,)),
    "mse": Loss(1, _of_mean(functional.mse_loss), (0.0,)),
    "mae": Loss(1, _of_mean(functional.l1_loss), (0.0,)),
    "gaussian_nll": Loss(2, _gaussian, (0.0, 0.0)),
    "pinball": Loss(3, _pinball, (0.0, -NORMAL_90, NORMAL_90)),
}


def loss_per_model(name: str, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`[models, ..., n_outputs * horizon]`, `[models, ..., horizon]`, weight `[models, ...]` -> `[models]`.

    Each model's own mean over its labelled positions; 0 without any label.
    """
    output = output.to(target.dtype).unflatten(-1, (LOSSES[name].n_outputs, -1))
    cost = LOSSES[name].cost(output, target).mean(-1)  # [models, ...]
    total = (cost * weight).flatten(1).sum(1)
    return total / weight.flatten(1).sum(1).clamp(min=1)


def without_skill(name: str, target: torch.Tensor) -> torch.Tensor:
    """`[..., horizon] -> [..., n_outputs * horizon]`: what a forecaster who knows nothing but the spread would say."""
    levels = torch.tensor(LOSSES[name].no_skill, device=target.device, dtype=target.dtype)
    return levels.repeat_interleave(target.shape[-1]).expand(*target.shape[:-1], -1)


def scale_of(output: torch.Tensor, n_outputs: int) -> torch.Tensor | None:
    """`[..., n_outputs * horizon] -> [..., horizon]`: the spread that the network itself gives; None where it has none.

    Two outputs are mean and log variance, three are quantiles of 50, 10 and 90 %.
    """
    parts = output.unflatten(-1, (n_outputs, -1)).unbind(-2)
    if n_outputs == 2:
        return (0.5 * parts[1].clamp(-MOST_LOG_VARIANCE, MOST_LOG_VARIANCE)).exp()
    return (parts[2] - parts[1]).abs().clamp(min=1e-6) / (2 * NORMAL_90) if n_outputs == 3 else None


def learning_rate(train: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch, constant within it; it ends with the last configured epoch.

    "cosine": linear warm-up, then a cosine to 0. "one_cycle": a cosine up from 1/25 over the first 30 %, then down to
    1/250,000 (Smith & Topin 2018, as PyTorch's OneCycleLR).
    """
    peak = train.learning_rate

    def between(start: float, end: float, progress: float) -> float:
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    if train.schedule == "one_cycle":
        top = max(1.0, 0.3 * train.epochs)
        if epoch < top:
            return between(peak / 25, peak, epoch / top)
        return between(peak, peak / 250_000, (epoch - top) / max(1.0, train.epochs - 1 - top))
    if epoch < train.warmup_epochs:
        return peak * (epoch + 1) / (train.warmup_epochs + 1)
    return between(peak, 0.0, (epoch - train.warmup_epochs) / max(1, train.epochs - train.warmup_epochs))
