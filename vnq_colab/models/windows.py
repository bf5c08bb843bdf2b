"""Windows of look-back days: which ones an epoch takes, in what order, and how they are gathered on the device.

A window is named by its last day. Its last `labelled` positions carry labels: one for `last_day`; for `all_days` all
that have seen enough days before.
"""

import math

import numpy as np
import torch


def windows_at(scaled: torch.Tensor, present: torch.Tensor, symbol: torch.Tensor, last: torch.Tensor,
               look_back: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows of `symbol [models, batch]` that end on day `last [models, batch]`, and who is present.

    `[models, batch, time, features]` and `[models, batch, time]`, from `scaled [symbols, days, features]` and
    `present [symbols, days]`; a day outside the calendar counts as absent.
    """
    day = last.unsqueeze(-1) + torch.arange(1 - look_back, 1, device=last.device)  # [models, batch, time]
    inside = (day >= 0) & (day < scaled.shape[1])
    day = day.clamp(0, scaled.shape[1] - 1)
    symbol = symbol.unsqueeze(-1)
    there = present[symbol, day] & inside
    return scaled[symbol, day] * there.unsqueeze(-1), there


def plan_epoch(days: np.ndarray, windows_per_step: int, labelled: int, seed: int) -> np.ndarray:
    """`[steps, windows]`: the last days of one model's windows in one epoch, -1 where a step has no more.

    `days` are the days to label, in order; each is labelled by exactly one window. With several labelled positions the
    windows tile the days from a random offset, with one position there is a window for each day. The seed decides all.
    """
    random = np.random.default_rng(seed)
    if labelled > 1:
        days = np.arange(days[0] + random.integers(labelled), days[-1] + labelled, labelled)
    days = random.permutation(days)
    n_steps = math.ceil(len(days) / windows_per_step)
    parts = np.array_split(days, n_steps)  # batches of nearly equal size: no step rests on one window alone
    plan = np.full((n_steps, len(parts[0])), -1)
    for row, part in enumerate(parts):
        plan[row, : len(part)] = part
    return plan
