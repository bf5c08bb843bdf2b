"""The network, for a stack of models: a pre-norm transformer encoder, causal over the look-back, and what trains it.

It is neither of the published papers called Stockformer (a wavelet-graph model, arXiv 2401.06139; an RL system, IJCAI
2023). The norms have no weights of their own: the affine map behind each of them can do all that such weights could.

Axes: models, batch, time, features, width, heads, horizon; "rows" is models x batch where attention needs it flat. A
stack's weights are `[models, parameters]`, and every operation has the model axis first: many small networks as one.
One symbol's result never depends on who shares its stack.
"""

import math

import torch
from torch.nn import functional
from torch.optim.adamw import adamw

from vnq_colab.models.base import stable_seed
from vnq_colab.settings import NetworkConfig

Parts = dict[str, torch.Tensor]
LEVELS = 65_536  # of a 16-bit number
MOST_ATTENTION_ROWS = 65_535  # CUDA's kernels index models x batch x heads with 16 bits: pytorch/pytorch#142228
MOST_LOG_VARIANCE = 10.0  # labels are scaled to a spread of 1

# By `train.loss`; PyTorch's own. Of "huber" the bend lies at one standard deviation of the scaled label.
LOSSES = {"huber": functional.huber_loss, "mse": functional.mse_loss, "mae": functional.l1_loss,
          "gaussian_nll": functional.gaussian_nll_loss}


class Stockformer:
    """The network as pure functions of its weights; one object serves every model of a stack."""

    def __init__(self, config: NetworkConfig, n_features: int, n_outputs: int = 1):
        self.config, self.n_features, self.n_outputs = config, n_features, n_outputs
        width, wide = config.width, config.feed_forward
        self.shapes = {
            "input.weight": (n_features, width), "input.bias": (width,), "position": (config.look_back, width),
        }
        for layer in range(config.n_layers):
            self.shapes |= {
                f"{layer}.qkv.weight": (width, 3 * width), f"{layer}.qkv.bias": (3 * width,),
                f"{layer}.mix.weight": (width, width), f"{layer}.mix.bias": (width,),
                f"{layer}.up.weight": (width, wide), f"{layer}.up.bias": (wide,),
                f"{layer}.down.weight": (wide, width), f"{layer}.down.bias": (width,),
            }
        self.shapes |= {"readout.weight": (width, n_outputs), "readout.bias": (n_outputs,)}
        self.n_parameters = sum(math.prod(shape) for shape in self.shapes.values())

    def initial_weights(self, seed: int, symbol: str, member: int) -> torch.Tensor:
        """`[parameters]`, decided by (seed, symbol, member) alone. Source: Glorot & Bengio 2010 for the matrices."""
        random = torch.Generator().manual_seed(stable_seed("weights", seed, symbol, member))
        pieces = []
        for name, shape in self.shapes.items():
            if name.endswith("bias"):
                piece = torch.zeros(shape)
            elif name == "position":
                piece = 0.02 * torch.randn(shape, generator=random)
            else:
                reach = math.sqrt(6 / (shape[0] + shape[1]))
                reach *= 0.1 if name.startswith("readout") else 1.0  # begin near the forecast of no skill, which is 0
                piece = (2 * torch.rand(shape, generator=random) - 1) * reach
            pieces.append(piece.flatten())
        return torch.cat(pieces)

    def forward(self, weights: torch.Tensor | Parts, x: torch.Tensor, present: torch.Tensor, *,
                noise: torch.Generator | None = None, n_last: int | None = None) -> torch.Tensor:
        """`[models, batch, time, features] -> [models, batch, n_last, n_outputs]`, in units of the scaled label.

        `weights [models, parameters]`, or its parts as `unstack` names them; `present [models, batch, time]` bool masks
        absent days as keys. Outputs are of the last `n_last` positions, None: of all. Dropout happens only when `noise`
        is given.
        """
        config, part = self.config, weights if isinstance(weights, dict) else unstack(weights, self.shapes)
        models, batch, time, _ = x.shape
        mask, any_key = attention_mask(present)
        h = affine(x.flatten(1, 2), part["input.weight"], part["input.bias"])  # [models, batch * time, width]
        h = functional.silu(h) if config.embedding == "silu" else h
        h = (h.unflatten(1, (batch, time)) + part["position"][:, None, -time:]).flatten(1, 2)
        for layer in range(config.n_layers):
            n_queries = n_last or time if layer == config.n_layers - 1 else time
            normed = functional.layer_norm(h, (config.width,))
            qkv = affine(normed, part[f"{layer}.qkv.weight"], part[f"{layer}.qkv.bias"])
            mixed = attention(qkv.view(models * batch, time, -1), mask, any_key, config.n_heads, n_queries)
            if n_queries < time:
                h = h.view(models, batch, time, -1)[:, :, -n_queries:].flatten(1, 2)
            mixed = affine(mixed.reshape(models, batch * n_queries, -1),
                           part[f"{layer}.mix.weight"], part[f"{layer}.mix.bias"])
            h = add_dropped(h, mixed, config.dropout, noise)
            wide = affine(functional.layer_norm(h, (config.width,)),
                          part[f"{layer}.up.weight"], part[f"{layer}.up.bias"]).relu_()
            narrow = affine(wide, part[f"{layer}.down.weight"], part[f"{layer}.down.bias"])
            h = add_dropped(h, narrow, config.dropout, noise)
        h = functional.layer_norm(h, (config.width,)) if config.final_norm else h
        out = affine(h, part["readout.weight"], part["readout.bias"])
        return out.unflatten(1, (batch, -1))


def unstack(weights: torch.Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """`[models, parameters]` -> views `[models, *shape]` by name."""
    pieces = weights.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.unflatten(1, shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}


def affine(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """`[models, rows, in] -> [models, rows, out]`, each model with its own weight and bias."""
    return torch.bmm(x, weight).add_(bias.unsqueeze(1))  # on a CPU `baddbmm` first writes the bias everywhere


def attention_mask(present: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`[models, batch, time]` bool -> what is added to the scores, and which queries see any key.

    A query sees present days up to its own: the first result `[models * batch, 1, time, time]` is 0 there and -inf
    elsewhere. A query without any key attends to itself, so that nothing becomes NaN, and the second result
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

    Queries are the last `n_last` positions. On a CPU plain products are faster than PyTorch's kernel with a mask.
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
    """Scales each row of `[models, parameters]` in place to at most `clip_norm`; the norms before, `[models]`."""
    norms = torch.linalg.vector_norm(gradient, dim=1)
    gradient.mul_((clip_norm / (norms + 1e-6)).clamp(max=1).unsqueeze(1))
    return norms


def n_outputs(loss: str, n_labels: int) -> int:
    """Numbers that a network gives for a day: each label's mean, then, for "gaussian_nll", its log variance."""
    return n_labels * (2 if loss == "gaussian_nll" else 1)


def variance(log_variance: torch.Tensor) -> torch.Tensor:
    """`[...] -> [...]`, bounded."""
    return log_variance.clamp(-MOST_LOG_VARIANCE, MOST_LOG_VARIANCE).exp()


def loss_per_model(name: str, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """`[models, ..., outputs]`, `[models, ..., labels]`, weight `[models, ...]` -> `[models]`: own means, or 0."""
    mean, *log_variance = output.to(target.dtype).unflatten(-1, (-1, target.shape[-1])).unbind(-2)
    cost = LOSSES[name](mean, target, *map(variance, log_variance), reduction="none").mean(-1)  # [models, ...]
    return (cost * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1)


def warmup_cosine(peak: float, done: float, step: float, warmup: float, end: float, least: float = 0.0) -> float:
    """The learning rate of a step that begins when `done` is done: linear up to `peak`, then a cosine to `least` of it.

    All four in one unit, epochs or a share of the whole. Source: Loshchilov & Hutter 2017, without restarts.
    """
    if done < warmup:
        return peak * (done + step) / warmup
    cosine = 0.5 * (1 + math.cos(math.pi * (done - warmup) / max(end - warmup, step)))
    return peak * (least + (1 - least) * cosine)


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
        ends = [*starts[1:], len(rows)]
        runs = [slice(rows[start], rows[end - 1] + 1) for start, end in zip(starts, ends, strict=True)]
        tensors = [[whole[run] for run in runs] for whole in (weights, gradient, self.mean, self.square)]
        steps = [torch.full((), counts[start], device=weights.device) for start in starts]
        adamw(*tensors, [], steps, fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=learning_rate,
              weight_decay=self.weight_decay, eps=1e-8, maximize=False)
        self.steps[rows] += 1

    def keep(self, rows: list[int]) -> None:
        """Forgets all rows but these."""
        self.mean, self.square, self.steps = self.mean[rows], self.square[rows], self.steps[rows]
