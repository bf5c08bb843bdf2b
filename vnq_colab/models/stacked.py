"""Many small networks as one: the weights of all models in one matrix, every operation with the model axis first.

Axes: models, batch, time, width, heads, horizon. A stack's weights are `[models, parameters]`; `unstack` shows them as
the tensors of a network, each with the model axis first. One symbol's result never depends on who shares its stack.
"""

import hashlib
import math

import torch
from torch.nn import functional
from torch.optim.adamw import adamw

Shapes = dict[str, tuple[int, ...]]

# CUDA's attention kernels index models x batch x heads with 16 bits. Source: pytorch/pytorch#142228
MOST_ATTENTION_ROWS = 65_535


def count_parameters(shapes: Shapes) -> int:
    """Numbers in one network."""
    return sum(math.prod(shape) for shape in shapes.values())


def unstack(weights: torch.Tensor, shapes: Shapes) -> dict[str, torch.Tensor]:
    """`[models, parameters]` -> views `[models, *shape]` by name; gradients flow back in one piece."""
    pieces = weights.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.unflatten(1, shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`[models, rows, in] -> [models, rows, out]`, each model with its own weight and bias."""
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def attention_mask(present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`[models, batch, time]` bool -> which keys a query sees `[models * batch, 1, time, time]`, and which see any.

    A query sees present days up to its own. A query without any key looks at itself, so that nothing becomes NaN, and
    the second result `[models * batch, time, 1]` says whose attention must count as 0.
    """
    time = present.shape[-1]
    causal = torch.ones(time, time, dtype=torch.bool, device=present.device).tril()
    sees = causal & present.flatten(0, 1).unsqueeze(1)  # [models * batch, time, time]
    any_key = sees.any(-1, keepdim=True)  # [models * batch, time, 1]
    itself = torch.eye(time, dtype=torch.bool, device=present.device)
    return (sees | (itself & ~any_key)).unsqueeze(1), any_key


def attention(qkv: torch.Tensor, mask: torch.Tensor, any_key: torch.Tensor, n_heads: int,
              last_only: bool = False) -> torch.Tensor:
    """`[models * batch, time, 3 * width] -> [models * batch, time, width]`: causal self-attention.

    `last_only` asks for the last position alone: `[models * batch, 1, width]`.
    """
    # each [rows, heads, time, width/heads]
    query, key, value = qkv.unflatten(-1, (3, n_heads, -1)).permute(2, 0, 3, 1, 4)
    if last_only:
        query, mask, any_key = query[:, :, -1:], mask[:, :, -1:], any_key[:, -1:]
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2) * any_key


def dropout(x: torch.Tensor, share: float, noise: torch.Generator | None) -> torch.Tensor:
    """x with a random share of its numbers set to 0 and the rest scaled up; x itself without noise."""
    if noise is None or share == 0:
        return x
    keep = torch.empty_like(x).bernoulli_(1 - share, generator=noise).div_(1 - share)
    return x * keep


def huber_per_model(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`[models, ..., horizon]`, weight `[models, ...]` -> `[models]`: each model's own mean; 0 without any label.

    Source: Huber 1964, with the bend at one standard deviation of the scaled label.
    """
    loss = functional.huber_loss(output.to(target.dtype), target, reduction="none").mean(-1)  # [models, ...]
    total = (loss * weight).flatten(1).sum(1)
    return total / weight.flatten(1).sum(1).clamp(min=1)


def clip_per_model(gradient: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """Scales each row of `[models, parameters]` in place to at most `clip_norm`.

    Returns the norms before, `[models]`.
    """
    norms = torch.linalg.vector_norm(gradient, dim=1)
    gradient.mul_((clip_norm / (norms + 1e-6)).clamp(max=1).unsqueeze(1))
    return norms


class StackedAdamW:
    """AdamW on a stack; rows that are not stepped keep their weights, moments and step counts to the bit."""

    def __init__(self, weights: torch.Tensor, weight_decay: float):
        self.weight_decay = weight_decay
        self.mean = torch.zeros_like(weights)  # [models, parameters]
        self.square = torch.zeros_like(weights)
        self.steps = torch.zeros(len(weights), device=weights.device)  # [models]

    @torch.no_grad()
    def step(self, weights: torch.Tensor, gradient: torch.Tensor, rows: list[int], learning_rate: float) -> None:
        """One step of the named rows, in place. Source: Loshchilov & Hutter 2019; the kernel is PyTorch's own."""
        if not rows:
            return
        pick = [weights[row] for row in rows], [gradient[row] for row in rows]
        state = [self.mean[row] for row in rows], [self.square[row] for row in rows]
        adamw(*pick, *state, [], [self.steps[row] for row in rows], fused=True, amsgrad=False, beta1=0.9, beta2=0.999,
              lr=learning_rate, weight_decay=self.weight_decay, eps=1e-8, maximize=False)

    def keep(self, rows: torch.Tensor) -> None:
        """Forgets all rows but these."""
        self.mean, self.square, self.steps = self.mean[rows], self.square[rows], self.steps[rows]


def stable_seed(*parts: object) -> int:
    """A seed decided by its parts alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1
