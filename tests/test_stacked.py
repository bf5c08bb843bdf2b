"""The network and what trains it, beside PyTorch's own."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from vnq_colab.models import stacked as stacked
from vnq_colab.models.base import stable_seed
from vnq_colab.models.stacked import LOSSES, Stockformer, loss_per_model, warmup_cosine
from vnq_colab.settings import NetworkConfig

SMALL = NetworkConfig(look_back=20, min_context=5, width=16, n_layers=2, n_heads=4, feed_forward=32, dropout=0.0)
N_FEATURES, N_OUTPUTS = 6, 5


@pytest.fixture
def double():
    """Everything in float64, where equality can be asked for."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def make_stack(n_models=4, batch=3, seed=0, config=SMALL):
    """(network, weights, x, present, target) of a random stack with some absent days."""
    torch.manual_seed(seed)
    network = Stockformer(config, N_FEATURES, N_OUTPUTS)
    weights = torch.stack([network.initial_weights(0, f"S{number}", 0) for number in range(n_models)])
    x = torch.randn(n_models, batch, config.look_back, N_FEATURES)
    present = torch.rand(n_models, batch, config.look_back) > 0.1
    return network, weights, x, present, torch.randn(n_models, batch, config.look_back, N_OUTPUTS)


class LoopNetwork(nn.Module):
    """One network the way PyTorch's own modules write it."""

    def __init__(self, config, part):
        super().__init__()
        self.embed = nn.Linear(N_FEATURES, config.width)
        self.position = nn.Parameter(part["position"].clone())
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(config.width, config.n_heads, config.feed_forward, dropout=0.0, batch_first=True,
                                       norm_first=True) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.readout = nn.Linear(config.width, N_OUTPUTS)
        for layer in self.layers:  # the affine map behind a norm does what the norm's own weights could
            for norm in (layer.norm1, layer.norm2):
                norm.weight.requires_grad_(False)
                norm.bias.requires_grad_(False)
        own = {"input": self.embed, "readout": self.readout}
        for number, layer in enumerate(self.layers):
            own |= {f"{number}.mix": layer.self_attn.out_proj, f"{number}.up": layer.linear1,
                    f"{number}.down": layer.linear2}
            layer.self_attn.in_proj_weight.data = part[f"{number}.qkv.weight"].T.clone()
            layer.self_attn.in_proj_bias.data = part[f"{number}.qkv.bias"].clone()
        for name, linear in own.items():
            linear.weight.data, linear.bias.data = part[f"{name}.weight"].T.clone(), part[f"{name}.bias"].clone()

    def forward(self, x):
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        h = self.embed(x) + self.position
        for layer in self.layers:
            h = layer(h, src_mask=causal, is_causal=True)
        return self.readout(self.norm(h))


def loop_networks(network, weights):
    parts = stacked.unstack(weights, network.shapes)
    return [LoopNetwork(network.config, {name: part[row] for name, part in parts.items()})
            for row in range(len(weights))]


def flat_gradient(network, loop):
    """The gradient of a loop network in the order of the stack's parameters."""
    pieces = {"position": loop.position.grad,
              "input.weight": loop.embed.weight.grad.T, "input.bias": loop.embed.bias.grad,
              "readout.weight": loop.readout.weight.grad.T, "readout.bias": loop.readout.bias.grad}
    for number, layer in enumerate(loop.layers):
        attention = layer.self_attn
        pieces |= {f"{number}.qkv.weight": attention.in_proj_weight.grad.T,
                   f"{number}.qkv.bias": attention.in_proj_bias.grad}
        for name, linear in (("mix", attention.out_proj), ("up", layer.linear1), ("down", layer.linear2)):
            pieces |= {f"{number}.{name}.weight": linear.weight.grad.T, f"{number}.{name}.bias": linear.bias.grad}
    return torch.cat([pieces[name].flatten() for name in network.shapes])


def test_stack_equals_a_loop_of_pytorch_encoders_in_outputs_and_gradients(double):
    network, weights, x, _, target = make_stack()
    everywhere = torch.ones(x.shape[:3], dtype=torch.bool)
    weights.requires_grad_()
    output = network.forward(weights, x, everywhere)
    loss = loss_per_model("huber", output, target, everywhere.double())
    gradient, = torch.autograd.grad(loss.sum(), weights)
    for row, loop in enumerate(loop_networks(network, weights.detach())):
        own = loop(x[row])
        torch.testing.assert_close(output[row], own, rtol=1e-10, atol=1e-12)
        nn.functional.huber_loss(own, target[row]).backward()
        torch.testing.assert_close(gradient[row], flat_gradient(network, loop), rtol=1e-9, atol=1e-14)


def test_stack_equals_single_networks_after_20_steps(double):
    """Weights after 20 clipped AdamW steps with different labels, against torch.optim and clip_grad_norm_ per model."""
    network, weights, x, present, target = make_stack(n_models=3)
    singles = [weights[row:row + 1].clone().requires_grad_() for row in range(len(weights))]
    optimizers = [torch.optim.AdamW([single], lr=1e-3, weight_decay=0.01) for single in singles]
    for step in range(20):
        for row, (single, optimizer) in enumerate(zip(singles, optimizers, strict=True)):
            optimizer.zero_grad()
            rows = slice(row, row + 1)
            output = network.forward(single, x[rows] + step, present[rows])
            loss_per_model("huber", output, target[rows], present[rows].double()).sum().backward()
            nn.utils.clip_grad_norm_([single], 0.1)
            optimizer.step()
    together = weights.clone().requires_grad_()
    optimizer = stacked.StackedAdamW(together.detach(), weight_decay=0.01)
    for step in range(20):
        output = network.forward(together, x + step, present)
        gradient, = torch.autograd.grad(loss_per_model("huber", output, target, present.double()).sum(), together)
        stacked.clip_per_model(gradient, 0.1)
        optimizer.step(together.detach(), gradient, [0, 1, 2], 1e-3)
    torch.testing.assert_close(together.detach(), torch.cat(singles).detach(), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(together, weights, atol=1e-3)


def test_model_that_is_not_stepped_keeps_its_bits():
    _, weights, *_ = make_stack()
    optimizer = stacked.StackedAdamW(weights, 0.01)
    optimizer.step(weights, torch.randn_like(weights), [0, 1, 2, 3], 1e-2)
    before, mean = weights[2].clone(), optimizer.mean[2].clone()
    optimizer.step(weights, torch.randn_like(weights), [0, 3], 1e-2)
    assert torch.equal(weights[2], before) and torch.equal(optimizer.mean[2], mean)
    assert optimizer.steps.tolist() == [2, 1, 1, 2]


def test_absent_day_is_never_looked_at():
    network, weights, x, present, _ = make_stack()
    other = torch.where(present.unsqueeze(-1), x, torch.randn_like(x))
    output, changed = (network.forward(weights, value, present) for value in (x, other))
    torch.testing.assert_close(output[present], changed[present], rtol=1e-5, atol=1e-6)


def test_row_without_any_key_gives_zero_attention():
    present = torch.tensor([[[False, False, True]]])
    mask, any_key = stacked.attention_mask(present)
    mixed = stacked.attention(torch.randn(1, 3, 12), mask, any_key, n_heads=2, n_last=3)
    assert torch.equal(mixed[0, :2], torch.zeros(2, 4)) and mixed[0, 2].abs().min() > 0


def test_position_sees_nothing_later():
    network, weights, x, present, _ = make_stack()
    changed = x.clone()
    changed[:, :, 12:] += 1
    output, other = network.forward(weights, x, present), network.forward(weights, changed, present)
    torch.testing.assert_close(output[:, :, :12], other[:, :, :12], rtol=0, atol=0)
    assert not torch.allclose(output[:, :, 12:], other[:, :, 12:])


@pytest.mark.parametrize("n_last", [1, 7])
def test_last_positions_alone_equal_the_last_of_all(n_last):
    network, weights, x, present, _ = make_stack()
    alone = network.forward(weights, x, present, n_last=n_last)
    torch.testing.assert_close(alone, network.forward(weights, x, present)[:, :, -n_last:], rtol=1e-5, atol=1e-6)


def test_attention_equals_pytorch_s_own(double):
    present = torch.rand(2, 3, 20) > 0.3
    present[..., 0] = True  # every query sees a key
    mask, any_key = stacked.attention_mask(present)
    qkv = torch.randn(6, 20, 48)
    query, key, value = qkv.unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
    theirs = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
    torch.testing.assert_close(stacked.attention(qkv, mask, any_key, 4, 20), theirs, rtol=1e-10, atol=1e-12)


def test_dropout_keeps_the_mean_and_the_share():
    x, h, noise = torch.ones(200_003), torch.full((200_003,), 2.0), torch.Generator().manual_seed(0)
    dropped = stacked.add_dropped(h, x, 0.1, noise) - 2
    assert (dropped == 0).float().mean() == pytest.approx(0.1, abs=0.005)
    assert dropped.mean() == pytest.approx(1.0, abs=0.01)
    neighbours = (dropped == 0).float() - 0.1
    assert torch.corrcoef(torch.stack([neighbours[:-1], neighbours[1:]]))[0, 1].abs() < 0.01
    assert torch.equal(stacked.add_dropped(h, x, 0.1, None), h + x)


def test_initial_weights_belong_to_seed_symbol_and_member():
    network = Stockformer(SMALL, N_FEATURES, N_OUTPUTS)
    first = network.initial_weights(0, "FPT", 0)
    assert torch.equal(first, network.initial_weights(0, "FPT", 0))
    for other in ((1, "FPT", 0), (0, "HPG", 0), (0, "FPT", 1)):
        assert not torch.equal(first, network.initial_weights(*other))


def test_default_network_has_about_0_8_million_parameters():
    assert Stockformer(NetworkConfig(), 50).n_parameters == pytest.approx(0.8e6, rel=0.05)


def test_stable_seed_is_the_same_on_every_machine():
    assert stable_seed("weights", 0, "FPT", 1) == 2381077465398032985
    assert 0 <= stable_seed("x") < 2**63


def test_unstack_shows_every_parameter_once():
    network = Stockformer(SMALL, N_FEATURES, N_OUTPUTS)
    weights = torch.arange(2 * network.n_parameters).view(2, -1)
    parts = stacked.unstack(weights, network.shapes)
    assert np.concatenate([part[1].flatten().numpy() for part in parts.values()]).tolist() == weights[1].tolist()


# --- losses and the schedule


def test_loss_is_the_mean_over_labelled_positions():
    output, target = torch.zeros(2, 1, 3, 5), torch.full((2, 1, 3, 5), 0.5)
    target[:, :, 2] = 100
    weight = torch.tensor([[[1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
    torch.testing.assert_close(loss_per_model("huber", output, target, weight), torch.tensor([0.125, 0.0]))


@pytest.mark.parametrize("name, theirs", [
    ("huber", nn.functional.huber_loss), ("mse", nn.functional.mse_loss), ("mae", nn.functional.l1_loss)])
def test_loss_of_each_model_is_pytorch_s(name, theirs):
    output, target = torch.randn(3, 4, 7, 5), torch.randn(3, 4, 7, 5)
    losses = loss_per_model(name, output, target, torch.ones(3, 4, 7))
    torch.testing.assert_close(losses, torch.stack([theirs(*pair) for pair in zip(output, target, strict=True)]))


def test_gaussian_loss_is_that_of_the_books():
    output, target = torch.randn(2, 6, 10, dtype=torch.float64), torch.randn(2, 6, 5, dtype=torch.float64)
    losses = loss_per_model("gaussian_nll", output, target, torch.ones(2, 6))
    mean, log_variance = output[..., :5], output[..., 5:]
    theirs = -stats.norm.logpdf(target, mean, (log_variance / 2).exp()).mean(axis=(1, 2)) - 0.5 * math.log(2 * math.pi)
    np.testing.assert_allclose(losses, theirs)


@pytest.mark.parametrize("name", LOSSES)
def test_no_constant_forecast_beats_0_which_has_no_skill(name):
    """On labels of mean 0 and spread 1; so a validation loss below it is skill."""
    target = torch.randn(1, 20_000, 5, generator=torch.Generator().manual_seed(0))
    guess = torch.zeros(1, 20_000, stacked.n_outputs(name, 5))
    best = loss_per_model(name, guess, target, torch.ones(1, 20_000))
    for change in (-0.2, 0.2):
        for part in range(0, guess.shape[2], 5):
            other = guess.clone()
            other[..., part:part + 5] += change
            assert loss_per_model(name, other, target, torch.ones(1, 20_000)) > best


def test_learning_rate_warms_up_and_ends_at_the_least_of_its_cosine():
    rates = [warmup_cosine(1e-3, epoch, 1, 4, 30) for epoch in range(31)]
    np.testing.assert_allclose(rates[:5], 1e-3 * np.array([1, 2, 3, 4, 4]) / 4)
    assert all(np.diff(rates[4:]) < 0) and rates[30] == pytest.approx(0, abs=1e-12)
    shares = [warmup_cosine(2e-3, step / 100, 1 / 100, 0.1, 1.0, 0.02) for step in range(101)]
    assert shares[9] == pytest.approx(2e-3) and shares[10] == 2e-3 == max(shares)
    assert shares[100] == pytest.approx(4e-5)
