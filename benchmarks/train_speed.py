"""How fast the stack learns, beside a loop that trains one network after another, on the same data, seeds and device.

    python benchmarks/train_speed.py                     # 6 symbols × 3 networks of the full size, on this CPU
    python benchmarks/train_speed.py --device cuda       # 102 × 3
    python benchmarks/train_speed.py --step              # one step of packs of growing size, with and without dropout
    python benchmarks/train_speed.py --market 2600       # 102 × 3: seconds for all epochs, no early stop

The loop is the source texts' recipe, as a competent engineer would write it: one `nn.TransformerEncoder` per model,
features resident on the device, batches of 32 windows, last-day labels, AdamW, compiled or not, whichever is faster.
Both forecast each stock's own five daily returns from random weights (task `return`, start `own`). It
trains `--slice` models, the others would take as long. Time to quality: how long each needs on a synthetic market
with a planted signal to bring the mean loss of the slice's models, on the full windows of the validation days, to
where the loop ends (its best epoch, patience 3). Validating is not in the times, compiling is. Each part runs in a
process of its own. Prints a table and adds it to benchmarks/results/train_speed.csv.
"""

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from machine import keep, peak_gb
from torch import nn

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_labels
from vnq_colab.data.panel import Panel, build_panel
from vnq_colab.data.splits import Splits, yearly_folds
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.models.base import Job, TrainingData
from vnq_colab.models.forecaster import Inputs, windows_at
from vnq_colab.models.stockformer import LocalStack
from vnq_colab.settings import HORIZON, LocalConfig, MachineConfig, NetworkConfig, Task
from vnq_colab.training.process import keep_freed_memory

SIGNAL = 0.7  # rank correlation of the best forecast, so high that both learn it in a few epochs
SPEED_SECONDS = 20.0  # of steps measured for labels per second, after the warm-up
PATIENCE, MOST_EPOCHS = 3, 12


class Reference(nn.Module):
    """One network as PyTorch's own modules write it: 60 days in, the next five days out."""

    def __init__(self, config: NetworkConfig, n_features: int):
        super().__init__()
        self.embed = nn.Linear(n_features, config.width)
        self.position = nn.Parameter(0.02 * torch.randn(config.look_back, config.width))
        layer = nn.TransformerEncoderLayer(config.width, config.n_heads, config.feed_forward, config.dropout,
                                           batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.n_layers, nn.LayerNorm(config.width),
                                             enable_nested_tensor=False)
        self.readout = nn.Linear(config.width, HORIZON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, time, features] -> [batch, horizon]`."""
        return self.readout(self.encoder(self.embed(x) + self.position)[:, -1])


class Market:
    """The same tensors for both: scaled features, labels, and the days to train and to validate on."""

    def __init__(self, options: argparse.Namespace):
        self.config = RunConfig(n_members=options.members, families=("stockformer",), task=Task(target="return"),
                                stockformer=LocalConfig(start="own"), model=NetworkConfig(),
                                machine=MachineConfig(device=options.device, dtype=options.dtype, pack_models=10**6))
        self.panel: Panel = build_panel(synthetic_prices(options.symbols, options.days, signal=SIGNAL))
        splits: Splits = yearly_folds(self.panel.days)[-1]
        self.device = torch.device(options.device)
        panel, look_back, labels = self.panel, self.config.model.look_back, make_labels(self.panel, self.config.task)
        train, valid = (part.mask(panel.days) for part in (splits.train, splits.valid))
        self.data = TrainingData(panel, labels, train, valid, self.config.task)
        inputs = Inputs.fit_own(panel, train)
        self.scaled = torch.from_numpy(inputs.of(panel, np.arange(len(panel.symbols)))).to(self.device)
        self.present = torch.from_numpy(panel.present).to(self.device)
        self.labels = torch.from_numpy(labels.values / inputs.scaler.target[:, None, None]).to(self.device)
        full = labels.known & (np.cumsum(panel.present, axis=1) >= look_back)
        self.train_days, self.valid_days = ([np.flatnonzero(row) for row in full & part] for part in (train, valid))

    def learner(self, config: RunConfig) -> LocalStack:
        """All networks of all symbols in one stack."""
        return LocalStack(Job("stockformer", 0, 0, self.panel.symbols), self.data, config)

    def windows(self, symbol: int, ends: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """`[batch, time, features]` and `[batch, horizon]`."""
        last = torch.from_numpy(ends).to(self.device)[None]
        x, _ = windows_at(self.scaled, self.present, torch.tensor([symbol], device=self.device), last,
                          self.config.model.look_back)
        return x[0], self.labels[symbol, last[0]]

    def valid_loss(self, symbol: int, network: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """Huber loss on the full windows of the validation days."""
        with torch.no_grad():
            x, target = self.windows(symbol, self.valid_days[symbol])
            return float(nn.functional.huber_loss(network(x).float(), target))


def flops_per_window(config: NetworkConfig, n_features: int, positions: int) -> float:
    """Multiplications and additions of all products in one step on one window of which the last `positions` answer.

    Backward costs twice the forward, the first layer half of that: nobody asks for the gradient of prices.
    """
    width, time_, share = config.width, config.look_back, positions / config.look_back
    inner = 2 * width * (width + 2 * config.feed_forward) + 4 * time_ * width  # mix, up, down, attention
    layers = config.n_layers * 6 * width * width + (config.n_layers - 1 + share) * inner
    return time_ * (2 * 2 * n_features * width + 3 * (layers + share * 2 * width * HORIZON))


def matmul_rate(device: torch.device, dtype: str) -> float:
    """FLOP per second of one large product, the best of several."""
    size = 1024 if device.type == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    best = np.inf
    for _ in range(12):
        started = now(device)
        for _ in range(8):
            a @ a
        best = min(best, (now(device) - started) / 8)
    return 2 * size**3 / best


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_of(device: torch.device) -> float:
    """Peak memory [GB]: of the device, else of this process."""
    return torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else peak_gb()


# ------------------------------------------------------------------------------------------------- one after another
class Loop:
    """The training of one reference network."""

    def __init__(self, market: Market, symbol: int, member: int, compiled: bool):
        self.market, self.symbol = market, symbol
        torch.manual_seed(1000 * symbol + member)
        self.random = np.random.default_rng(1000 * symbol + member)
        self.network = Reference(market.config.model, market.scaled.shape[2]).to(market.device)
        self.compute = torch.compile(self.network) if compiled else self.network
        train = market.config.train
        self.optimizer = torch.optim.AdamW(self.network.parameters(), train.learning_rate,
                                           weight_decay=train.weight_decay, fused=True)

    def step(self, ends: np.ndarray) -> None:
        """One batch."""
        x, target = self.market.windows(self.symbol, ends)
        low = self.market.config.machine.dtype != "float32"
        with torch.autocast(self.market.device.type, torch.bfloat16, enabled=low):
            output = self.compute(x)
        loss = nn.functional.huber_loss(output.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.market.config.train.clip_norm)
        self.optimizer.step()

    def epoch(self) -> list[np.ndarray]:
        """The batches of an epoch."""
        days = self.random.permutation(self.market.train_days[self.symbol])
        return [days[top:top + 32] for top in range(0, len(days) - len(days) % 32, 32)]


def loop_speed(market: Market, compiled: bool) -> float:
    """Labels per second of the loop, after its warm-up."""
    one, batches = Loop(market, 0, 0, compiled), []
    for _ in range(3):
        one.step(one.epoch()[0])
    started, labels = now(market.device), 0
    while now(market.device) - started < SPEED_SECONDS:
        batches = batches or one.epoch()
        one.step(batches.pop())
        labels += 32
    return labels / (now(market.device) - started)


def reference(market: Market, options: argparse.Namespace) -> dict:
    """Speed, and the losses that the slice's models end with and the seconds they took."""
    rates = {"plain": loop_speed(market, compiled=False)}
    try:
        rates["compiled"] = loop_speed(market, compiled=True)
    except Exception as error:  # no compiler here
        print(f"torch.compile does not work here: {type(error).__name__}", file=sys.stderr)
    compiled = max(rates, key=rates.get) == "compiled"
    seconds, losses = 0.0, []
    for place in range(options.slice):
        symbol, member = place % options.symbols, place // options.symbols
        one, history, started = Loop(market, symbol, member, compiled), [], now(market.device)
        while len(history) < MOST_EPOCHS and len(history) - int(np.argmin(history or [0])) <= PATIENCE:
            for ends in one.epoch():
                one.step(ends)
            seconds += now(market.device) - started
            one.network.eval()
            history.append(market.valid_loss(symbol, one.network))
            one.network.train()
            started = now(market.device)
        losses.append(min(history))
        print(f"loop: model {place + 1} of {options.slice}, losses {np.round(history, 4).tolist()}", file=sys.stderr)
    return {"rates": rates, "seconds": seconds, "losses": losses, "peak_gb": peak_of(market.device)}


# -------------------------------------------------------------------------------------------------------- all at once
def stack(market: Market, options: argparse.Namespace) -> dict:
    """Speed, and after how many seconds the slice's models have reached the loop's loss."""
    learner = market.learner(endless(market.config))
    for _ in range(3):
        learner.step()
    started, n_steps = now(market.device), 0
    while now(market.device) - started < SPEED_SECONDS:
        learner.step()
        n_steps += 1
    rate = n_steps * labels_per_step(learner) / (now(market.device) - started)
    peak = peak_of(market.device)
    learner = market.learner(endless(market.config))
    slice_of = [(place % options.symbols, place // options.symbols) for place in range(options.slice)]
    best, seconds, found, curve = np.full(options.slice, np.inf), 0.0, None, []
    while found is None and learner.epoch < 60:
        started, epoch = now(market.device), learner.epoch
        while learner.epoch == epoch:
            learner.step()
        seconds += now(market.device) - started
        for place, (symbol, member) in enumerate(slice_of):
            row = learner.models.index((market.panel.symbols[symbol], member))
            weights = learner.weights[row:row + 1]

            def compute(x: torch.Tensor, weights: torch.Tensor = weights) -> torch.Tensor:
                there = torch.ones(1, *x.shape[:2], dtype=torch.bool, device=x.device)
                return learner.network.forward(weights, x[None], there, n_last=1)[0, :, 0]

            best[place] = min(best[place], market.valid_loss(symbol, compute))
        curve.append(round(float(best.mean()), 4))
        if best.mean() <= options.goal:
            found = seconds
    print(f"stack: losses {curve}, goal {options.goal:.4f}", file=sys.stderr)
    return {"rate": rate, "seconds": found, "peak_gb": peak, "epochs": learner.epoch}


def steps(market: Market, options: argparse.Namespace) -> dict:
    """Labels per second and FLOP per second of the median step, validation left out, beside the matmul rate."""
    config = replace(market.config, model=replace(market.config.model, dropout=options.dropout))
    learner, rates = market.learner(endless(config)), []
    for _ in range(24):
        started, progress = now(market.device), learner.step()
        seconds = now(market.device) - started - progress.measured.get("evaluation_seconds", 0.0)
        rates.append(labels_per_step(learner) / seconds)
    model = config.model
    labelled = model.look_back - model.min_context + 1
    per_label = flops_per_window(model, market.scaled.shape[2], labelled) / labelled
    rate, matmul = float(np.median(rates[4:])), matmul_rate(market.device, options.dtype)
    return {"device": options.device, "dtype": options.dtype, "dropout": options.dropout,
            "models": options.symbols * options.members, "labels_per_s": round(rate),
            "gflop_per_s": round(rate * per_label / 1e9, 1), "share": round(rate * per_label / matmul, 3),
            "peak_gb": round(peak_of(market.device), 2)}


def labels_per_step(learner: LocalStack) -> float:
    """Mean over an epoch, in which every model labels each of its training days once."""
    return float(learner._train_days.sum()) * learner.config.n_members / max(learner._steps)


def endless(config: RunConfig) -> RunConfig:
    """No model leaves before the end."""
    return replace(config, train=replace(config.train, patience=10**6, warmup_epochs=1))


def whole_market(market: Market) -> dict:
    """Seconds to train every model for all epochs, validation included; the first epoch is told apart as warm-up."""
    learner = market.learner(replace(market.config, train=replace(market.config.train, patience=10**6)))
    started, warm = now(market.device), None
    while not learner.finished:
        learner.step()
        if warm is None and learner.epoch == 1:
            warm = now(market.device) - started
    seconds = now(market.device) - started
    return {"warm_up": warm, "seconds": seconds - warm, "peak_gb": peak_of(market.device)}


# --------------------------------------------------------------------------------------------------------- the table
def in_own_process(part: str, options: argparse.Namespace) -> dict:
    words = [f"--{name}={value}" for name, value in vars(options).items() if value is not None and value is not False]
    done = subprocess.run([sys.executable, __file__, *words, f"--part={part}"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{part} ended with exit code {done.returncode}.")
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace) -> list[dict[str, str]]:
    """Runs both, prints the table."""
    config, n_models = NetworkConfig(), options.symbols * options.members
    loop = in_own_process("reference", options)
    options.goal = float(np.mean(loop["losses"]))
    ours = in_own_process("stack", options)
    options.goal = None
    rate = in_own_process("matmul", options)["rate"]
    labelled = config.look_back - config.min_context + 1
    per_label = {"loop": flops_per_window(config, 50, config.look_back), "stack":
                 flops_per_window(config, 50, labelled) / labelled}
    speed = {"loop": max(loop["rates"].values()), "stack": ours["rate"]}
    quality = {"loop": loop["seconds"] * n_models / options.slice, "stack": ours["seconds"]}
    rows = []
    for name in ("loop", "stack"):
        flops = speed[name] * per_label[name]
        # an epoch of 102 × 3 models: every training day of ten years labelled once
        rows.append({"device": options.device, "dtype": options.dtype, "what": name, "models": str(n_models),
                     "labels_per_s": f"{speed[name]:.0f}", "gflop_per_s": f"{flops / 1e9:.1f}",
                     "matmul_gflop_per_s": f"{rate / 1e9:.0f}", "share": f"{flops / rate:.3f}",
                     "market_epoch_s": f"{306 * 2000 / speed[name]:.1f}",
                     "to_quality_s": "" if quality[name] is None else f"{quality[name]:.1f}",
                     "peak_gb": f"{(loop if name == 'loop' else ours)['peak_gb']:.2f}"})
    for row in rows:
        print(row)
    print(f"the loop: {', '.join(f'{name} {value:.0f} labels/s' for name, value in loop['rates'].items())}")
    print(f"labels per second: {speed['stack'] / speed['loop']:.0f} times; FLOP per label: "
          f"1/{per_label['loop'] / per_label['stack']:.1f}; FLOP per second: "
          f"{speed['stack'] * per_label['stack'] / (speed['loop'] * per_label['loop']):.2f} times")
    if quality["stack"]:
        print(f"time to quality: {quality['loop'] / quality['stack']:.0f} times (the loop's from {options.slice} of "
              f"{n_models} models)")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU, else bfloat16")
    parser.add_argument("--symbols", type=int, help="default: 6 on a CPU, else 102")
    parser.add_argument("--members", type=int, default=3)
    parser.add_argument("--days", type=int, default=2000)
    parser.add_argument("--slice", type=int, default=4, help="models that the loop trains")
    parser.add_argument("--market", type=int, metavar="DAYS", help="all epochs of 102 × 3 instead")
    parser.add_argument("--step", action="store_true", help="one step of packs of growing size instead")
    parser.add_argument("--dropout", type=float, default=0.1, help=argparse.SUPPRESS)
    parser.add_argument("--goal", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    options.symbols = options.symbols or (6 if options.device == "cpu" and not options.market else 102)
    options.days = options.market or options.days
    part = options.part
    if part == "matmul":
        print(json.dumps({"rate": matmul_rate(torch.device(options.device), options.dtype)}))
    elif part:
        keep_freed_memory()
        market = Market(options)
        print(json.dumps({"reference": reference, "stack": stack, "steps": steps}[part](market, options)))
    elif options.step:
        options.step, rows = None, []
        for symbols in (1, 2, 4, 8, 16, 102 if options.device == "cuda" else 32):
            options.symbols = symbols
            for dropout in (0.1, 0.0):
                options.dropout = dropout
                rows.append(in_own_process("steps", options))
                print(rows[-1], flush=True)
        keep("train_step", rows)
    elif options.market:
        keep_freed_memory()
        found = whole_market(Market(options))
        print(f"102 × {options.members} for {RunConfig().train.epochs} epochs: {found}")
        keep("train_market", [{"device": options.device, "dtype": options.dtype, "days": str(options.market)}
                              | {name: f"{value:.2f}" for name, value in found.items()}])
    else:
        keep("train_speed", compare(copy.copy(options)))


if __name__ == "__main__":
    main()
