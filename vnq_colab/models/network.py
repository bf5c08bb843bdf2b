"""The network: a pre-norm transformer encoder, causal over the look-back, written for a stack of models.

It is neither of the published papers called Stockformer (a wavelet-graph model, arXiv 2401.06139; an RL system, IJCAI
2023).

Axes: models, batch, time, features, width, heads. "rows" is models x batch where attention needs it flat.
The norms have no weights of their own: the affine map behind each of them can do all that such weights could.
"""

import math

import torch
from torch.nn import functional

from vnq_colab.models.stacked import (
    Parts,
    add_dropped,
    affine,
    attention,
    attention_mask,
    count_parameters,
    stable_seed,
    unstack,
)
from vnq_colab.settings import NetworkConfig


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
        self.n_parameters = count_parameters(self.shapes)

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
        absent days as keys. The answers are those of the last `n_last` positions, None: of all. Dropout happens only
        when `noise` is given.
        """
        config, part = self.config, weights if isinstance(weights, dict) else unstack(weights, self.shapes)
        models, batch, time, _ = x.shape
        mask, any_key = attention_mask(present)
        h = affine(x.flatten(1, 2), part["input.weight"], part["input.bias"])  # [models, batch * time, width]
        h = functional.silu(h) if config.embedding == "silu" else h
        h = (h.unflatten(1, (batch, time)) + part["position"][:, None, -time:]).flatten(1, 2)
        for layer in range(config.n_layers):
            asking = n_last or time if layer == config.n_layers - 1 else time
            normed = functional.layer_norm(h, (config.width,))
            qkv = affine(normed, part[f"{layer}.qkv.weight"], part[f"{layer}.qkv.bias"])
            mixed = attention(qkv.view(models * batch, time, -1), mask, any_key, config.n_heads, asking)
            if asking < time:  # the last layer answers only where it is asked
                h = h.view(models, batch, time, -1)[:, :, -asking:].flatten(1, 2)
            mixed = affine(mixed.reshape(models, batch * asking, -1),
                           part[f"{layer}.mix.weight"], part[f"{layer}.mix.bias"])
            h = add_dropped(h, mixed, config.dropout, noise)
            wide = affine(functional.layer_norm(h, (config.width,)),
                          part[f"{layer}.up.weight"], part[f"{layer}.up.bias"]).relu_()
            narrow = affine(wide, part[f"{layer}.down.weight"], part[f"{layer}.down.bias"])
            h = add_dropped(h, narrow, config.dropout, noise)
        h = functional.layer_norm(h, (config.width,)) if config.final_norm else h
        out = affine(h, part["readout.weight"], part["readout.bias"])
        return out.unflatten(1, (batch, -1))
