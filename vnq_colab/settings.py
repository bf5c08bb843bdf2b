"""The groups of settings that a run's config is made of: frozen, checked where they are made.

Each is named on the command line as in the config: `--set train.learning_rate=3e-4`, `--set trees.leaves=31`.
"""

from dataclasses import dataclass, replace
from typing import Any

from vnq_colab.fields import check_types, require

TRAIN_CHOICES = {
    "supervise": ("all_days", "last_day"), "schedule": ("cosine", "one_cycle"),
    "loss": ("huber", "mse", "mae", "gaussian_nll", "pinball"),
}
HORIZON = 5  # [bars] ahead that a forecast reaches, unless `task.horizon` says otherwise
TARGETS = ("rank", "return", "direction")
FAMILY_NAMES = ("stockformer", "global", "trees")  # the default ones, in the order in which reports name them


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is forecast."""

    horizon: int = HORIZON  # [bars] ahead
    bar: str = "1d"
    target: str = "rank"  # within-day rank; or "return", each stock's own; or "direction", its sign
    label: str = "open"  # of "rank": from the next open to that `horizon` later, "open"; "close"; or their mean
    market: str = "VN"  # whose calendar, bands, lots, settlement and costs hold

    def __post_init__(self) -> None:
        check_types(self)
        require(self.horizon >= 1, "task.horizon", self.horizon, "must be at least 1")
        require(self.horizon == HORIZON, "task.horizon", self.horizon, f"what is judged and traded is {HORIZON} days")
        require(self.bar == "1d", "task.bar", self.bar, "only daily bars are known yet")
        require(self.market == "VN", "task.market", self.market, "only the Vietnamese market is known yet")
        require(self.target in TARGETS, "task.target", self.target, f"must be {' or '.join(map(repr, TARGETS))}")
        require(self.label in ("mixed", "open", "close"), "task.label", self.label,
                "must be 'mixed', 'open' or 'close'")

    @property
    def purge_days(self) -> int:
        """Days before a border whose labels would reach across it: the longest label, and one more."""
        return self.horizon + 1


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of one network, local or global. The number of features is not here: it comes from the panel."""

    look_back: int = 60  # [days] seen by a model
    min_context: int = 20  # [days] a position must have seen before it carries loss
    width: int = 128
    n_layers: int = 4
    n_heads: int = 8
    feed_forward: int = 512
    embedding: str = "linear"  # of a day's features; or "silu": passed through that activation before the encoder
    final_norm: bool = True  # whether what is read out is normalised, so that no day's answer is larger than another's
    dropout: float = 0.1  # [fraction] of each residual branch, in training only

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("look_back", "min_context", "width", "n_layers", "n_heads", "feed_forward"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "must be at least 1")
        require(self.embedding in ("linear", "silu"), "model.embedding", self.embedding, "must be linear or silu")
        require(self.width % self.n_heads == 0, "model.width", self.width,
                 f"must be a multiple of n_heads = {self.n_heads}")
        require(self.look_back <= 512, "model.look_back", self.look_back, "must not exceed 512 days")
        require(self.min_context <= self.look_back, "model.min_context", self.min_context,
                 f"must not exceed look_back = {self.look_back}")
        require(0 <= self.dropout < 1, "model.dropout", self.dropout, "must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How networks learn. An epoch labels every training day of a symbol once."""

    loss: str = "huber"  # or "mse", "mae", "gaussian_nll" (mean and variance), "pinball" (quantiles 10, 50, 90 %)
    label_clip: float | None = None  # [standard deviations] training labels are clipped to; None: not at all
    supervise: str = "all_days"  # "all_days": each day of a window predicts; "last_day": only the last one
    epochs: int = 100  # at most; the cosine of the learning rate ends here
    batch_windows: int | None = None  # windows per step and model; None: 4 for all_days, 32 for last_day
    accumulate: int = 1  # batches whose gradients are averaged into one step
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    schedule: str = "cosine"  # or "one_cycle"
    warmup_epochs: int = 5  # linear, before the cosine
    patience: int = 15  # epochs without a better validation loss before a model stops
    keep_top_k: int = 1  # the weights of a model's so many best epochs are averaged in the end
    clip_norm: float = 1.0  # of each model's own gradient
    checkpoint_minutes: float = 20.0

    def __post_init__(self) -> None:
        check_types(self)
        for name, choices in TRAIN_CHOICES.items():
            require(getattr(self, name) in choices, f"train.{name}", getattr(self, name),
                     f"must be {' or '.join(map(repr, choices))}")
        require(self.label_clip is None or self.label_clip > 0, "train.label_clip", self.label_clip,
                 "must be positive, or null")
        require(self.batch_windows is None or self.batch_windows >= 1, "train.batch_windows", self.batch_windows,
                 "must be at least 1, or null")
        for name in ("epochs", "accumulate", "patience", "keep_top_k"):
            require(getattr(self, name) >= 1, f"train.{name}", getattr(self, name), "must be at least 1")
        for name in ("learning_rate", "clip_norm", "checkpoint_minutes"):
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "must be positive")
        for name in ("weight_decay", "warmup_epochs"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "must not be negative")

    def shortened(self, **changes: Any) -> "TrainConfig":
        """The same with other values; `epochs` and `warmup_epochs` are upper bounds."""
        bounds = {name: min(changes[name], getattr(self, name)) for name in ("epochs", "warmup_epochs")
                  if name in changes}
        return replace(self, **(changes | bounds))

    @property
    def windows_per_batch(self) -> int:
        return self.batch_windows or (4 if self.supervise == "all_days" else 32)


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """The family `stockformer`: the networks of single symbols."""

    start: str = "global"  # fine-tuned from the global network of their member; "own": from random weights
    learning_rate_share: float = 0.03  # of train.learning_rate, after a global start; chosen: EXPERIMENTS, 2026-11-21
    epochs: int = 2  # at most, after a global start
    patience: int = 1  # [epochs], after a global start

    def __post_init__(self) -> None:
        check_types(self)
        require(self.start in ("global", "own"), "stockformer.start", self.start, "must be 'global' or 'own'")
        require(self.learning_rate_share > 0, "stockformer.learning_rate_share", self.learning_rate_share,
                "must be positive")
        for name in ("epochs", "patience"):
            require(getattr(self, name) >= 1, f"stockformer.{name}", getattr(self, name), "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class GlobalConfig:
    """The family `global`: one network of all symbols; its members are seeds. Chosen: EXPERIMENTS.md, 2026-11-28."""

    inputs: str = "both"  # features standardised over all stocks, "features"; their within-day ranks, "ranks"; or both
    windows_per_step: int = 200  # of any stock and day
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-2
    warmup_share: float = 0.1  # [fraction] of all steps, linear; then a cosine
    epochs: int = 6  # exactly, unless train.epochs is less: the last weights are as good as any

    def __post_init__(self) -> None:
        check_types(self)
        require(self.inputs in ("features", "ranks", "both"), "global.inputs", self.inputs,
                "must be 'features', 'ranks' or 'both'")
        require(self.learning_rate > 0, "global.learning_rate", self.learning_rate, "must be positive")
        require(self.weight_decay >= 0, "global.weight_decay", self.weight_decay, "must not be negative")
        require(0 <= self.warmup_share < 1, "global.warmup_share", self.warmup_share, "must lie in [0, 1)")
        for name in ("windows_per_step", "epochs"):
            require(getattr(self, name) >= 1, f"global.{name}", getattr(self, name), "must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TreesConfig:
    """The family `trees`: gradient boosting over the stocks and days of the training set. Source: FACTS of 2026-11."""

    rounds: int = 600  # trees at most
    block_rounds: int = 25  # trees between two looks at the validation days; the unit of resume
    least_rounds: int = 400
    patience: int = 4  # [blocks] without a better rank correlation on the validation days
    leaves: int = 63
    learning_rate: float = 0.03
    min_child_weight: float = 300.0  # [rows] of a leaf
    subsample: float = 0.5  # [fraction] of the rows, for each tree
    colsample: float = 0.3  # [fraction] of the features, for each split
    penalty: float = 10.0  # L2, on the values of leaves
    bins: int = 64  # of a feature's histogram

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("rounds", "block_rounds", "least_rounds", "patience"):
            require(getattr(self, name) >= 1, f"trees.{name}", getattr(self, name), "must be at least 1")
        for name in ("leaves", "bins"):
            require(getattr(self, name) >= 2, f"trees.{name}", getattr(self, name), "must be at least 2")
        for name in ("subsample", "colsample"):
            require(0 < getattr(self, name) <= 1, f"trees.{name}", getattr(self, name), "must lie in (0, 1]")
        require(self.learning_rate > 0, "trees.learning_rate", self.learning_rate, "must be positive")
        for name in ("min_child_weight", "penalty"):
            require(getattr(self, name) >= 0, f"trees.{name}", getattr(self, name), "must not be negative")


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """Where a run computes. Changing it changes the speed, and at most the last bits, of a result."""

    profile: str = "cpu"
    device: str = "cpu"  # "cpu" or "cuda"
    dtype: str = "float32"  # of the products; weights, optimizer and losses stay float32
    threads: int | None = None  # None: one per core
    pack_models: int = 24  # networks trained together, at most
    checkpoint_budget_gb: float = 2.0  # state of a pack in flight, at most

    def __post_init__(self) -> None:
        check_types(self)
        require(self.device in ("cpu", "cuda"), "machine.device", self.device, "must be 'cpu' or 'cuda'")
        require(self.dtype in ("float32", "bfloat16"), "machine.dtype", self.dtype, "must be 'float32' or 'bfloat16'")
        require(self.threads is None or self.threads >= 1, "machine.threads", self.threads,
                 "must be at least 1, or null")
        require(self.pack_models >= 1, "machine.pack_models", self.pack_models, "must be at least 1")
        require(self.checkpoint_budget_gb > 0, "machine.checkpoint_budget_gb", self.checkpoint_budget_gb,
                 "must be positive")
