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
Parts = dict[str, torch.Tensor]
LEVELS = 65_536  # of a 16-bit number

# CUDA's attention kernels index models x batch x heads with 16 bits. Source: pytorch/pytorch#142228
MOST_ATTENTION_ROWS = 65_535


def count_parameters(shapes: Shapes) -> int:
    """Numbers in one network."""
    return sum(math.prod(shape) for shape in shapes.values())


def unstack(weights: torch.Tensor, shapes: Shapes) -> dict[str, torch.Tensor]:
    """`[models, parameters]` -> views `[models, *shape]` by name."""
    pieces = weights.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.unflatten(1, shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`[models, rows, in] -> [models, rows, out]`, each model with its own weight and bias."""
    return torch.bmm(x, weight).add_(bias.unsqueeze(1))  # on a CPU `baddbmm` first writes the bias everywhere


def attention_mask(present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`[models, batch, time]` bool -> what is added to the scores, and which queries see any key.

    A query sees present days up to its own: the first result `[models * batch, 1, time, time]` is 0 there and -inf
    elsewhere. A query without any key looks at itself, so that nothing becomes NaN, and the second result
    `[models * batch, time, 1]` says whose attention must count as 0.
    """
    time = present.shape[-1]
    causal = torch.ones(time, time, dtype=torch.bool, device=present.device).tril()
    sees = causal & present.flatten(0, 1).unsqueeze(1)  # [models * batch, time, time]
    any_key = sees.any(-1, keepdim=True)  # [models * batch, time, 1]
    itself = torch.eye(time, dtype=torch.bool, device=present.device)
    hidden = ~(sees | (itself & ~any_key)).unsqueeze(1)
    return torch.zeros(hidden.shape, device=present.device).masked_fill_(hidden, -math.inf), any_key


def attention(qkv: torch.Tensor, mask: torch.Tensor, any_key: torch.Tensor, n_heads: int, n_last: int) -> torch.Tensor:
    """`[models * batch, time, 3 * width] -> [models * batch, n_last, width]`: causal self-attention.

    Only the last `n_last` positions ask. On a CPU plain products are faster than PyTorch's own kernel with a mask.
    """
    # each [rows, heads, time, width/heads]
    query, key, value = qkv.unflatten(-1, (3, n_heads, -1)).permute(2, 0, 3, 1, 4)
    query, mask, any_key = query[:, :, -n_last:], mask[:, :, -n_last:].to(qkv.dtype), any_key[:, -n_last:]
    if qkv.device.type == "cpu":
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        mixed = scores.add_(mask).softmax(-1) @ value
    else:
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return mixed.transpose(1, 2).flatten(2) * any_key


def add_dropped(h: torch.Tensor, x: torch.Tensor, share: float, noise: torch.Generator | None) -> torch.Tensor:
    """h + x with a random share of x's numbers set to 0 and the rest scaled up; h + x without noise.

    One 64-bit draw decides four numbers, so the share is rounded to 1/65,536. Source: Srivastava et al. 2014.
    """
    if noise is None or share == 0:
        return h + x
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-2**63, None, generator=noise)
    dropped = round(share * LEVELS)
    keep = draws.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
    return torch.addcmul(h, x, keep.to(x.dtype), value=LEVELS / (LEVELS - dropped))


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
        self.steps = torch.zeros(len(weights))  # [models], on the host: who shares a count is updated in one piece

    @torch.no_grad()
    def step(self, weights: torch.Tensor, gradient: torch.Tensor, rows: list[int], learning_rate: float) -> None:
        """One step of the named rows, in order, in place. Source: Loshchilov & Hutter 2019; the kernel is PyTorch's."""
        if not rows:
            return
        counts = self.steps[rows].tolist()
        starts = [at for at, row in enumerate(rows)
                  if at == 0 or row != rows[at - 1] + 1 or counts[at] != counts[at - 1]]
        runs = [slice(rows[start], rows[end - 1] + 1) for start, end in zip(starts, [*starts[1:], len(rows)],
                                                                            strict=True)]
        tensors = [[whole[run] for run in runs] for whole in (weights, gradient, self.mean, self.square)]
        steps = [torch.full((), counts[start], device=weights.device) for start in starts]
        adamw(*tensors, [], steps, fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=learning_rate,
              weight_decay=self.weight_decay, eps=1e-8, maximize=False)
        self.steps[rows] += 1

    def keep(self, rows: list[int]) -> None:
        """Forgets all rows but these."""
        self.mean, self.square, self.steps = self.mean[rows], self.square[rows], self.steps[rows]


def stable_seed(*parts: object) -> int:
    """A seed decided by its parts alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1
