"""What a run is: the network, how it is trained, on what machine. Frozen, validated, exact to and from JSON.

Three words, never mixed: the *profile* is the machine, the *recipe* how to train, the *gates* how to judge.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Self

from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.fields import build, check_types, flat, require

TRAIN_CHOICES = {
    "supervise": ("all_days", "last_day"), "schedule": ("cosine", "one_cycle"),
    "loss": ("huber", "mse", "mae", "gaussian_nll", "pinball"), "start": ("shared", "own"),
}
HORIZON = 5  # [days] ahead that every forecast reaches


@dataclass(frozen=True, kw_only=True)
class StockformerConfig:
    """Sizes of one network. The number of features is not here: it comes from the panel."""

    look_back: int = 60  # [days] seen by a model
    horizon: int = 5  # [days] ahead, one output each
    min_context: int = 20  # [days] a position must have seen before it carries loss
    width: int = 128
    n_layers: int = 4
    n_heads: int = 8
    feed_forward: int = 512
    dropout: float = 0.1  # [fraction] of each residual branch, in training only

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("look_back", "horizon", "min_context", "width", "n_layers", "n_heads", "feed_forward"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "must be at least 1")
        require(self.horizon == HORIZON, "model.horizon", self.horizon, f"the Forecast is a table of {HORIZON} days")
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
    start: str = "shared"  # from one network trained on all symbols; "own": from random weights
    fine_tune_share: float = 0.03  # of the learning rate, after a shared start; chosen: EXPERIMENTS.md, 2026-11-21
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
        for name in ("learning_rate", "fine_tune_share", "clip_norm", "checkpoint_minutes"):
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "must be positive")
        for name in ("weight_decay", "warmup_epochs"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "must not be negative")

    @property
    def windows_per_batch(self) -> int:
        return self.batch_windows or (4 if self.supervise == "all_days" else 32)


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


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What `describe_machine` found: given, not wished for."""

    where: str  # "Colab" or "local"
    profile: str
    device: str
    dtype: str
    dtype_reason: str
    gpu: str | None
    gpu_memory_gb: float | None
    memory_gb: float | None
    cores: int
    hours_left: float | None  # None: no limit
    units_per_hour: float | None  # Colab's compute units; None: unknown or none

    def __repr__(self) -> str:
        memory = f", {self.memory_gb:.0f} GB memory" if self.memory_gb else ""
        gpu = f"{self.gpu}, {self.gpu_memory_gb:.0f} GB" if self.gpu else "no GPU"
        lines = [
            f"{self.where} machine: {gpu}; {self.cores} cores{memory}",
            f"  profile {self.profile}: computes in {self.dtype} on {self.device} ({self.dtype_reason})",
        ]
        if self.hours_left is not None:
            cost = f", about {self.units_per_hour:g} compute units an hour" if self.units_per_hour else ""
            lines.append(f"  about {self.hours_left:.1f} hours left{cost}")
        return "\n".join(lines)


# The profile is the machine. `model` and `train` are what a slower machine does less of, under the default recipe only.
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "a100": {"machine": {"device": "cuda", "dtype": "bfloat16", "pack_models": 306}},
    "l4": {"machine": {"device": "cuda", "dtype": "bfloat16", "pack_models": 153}},
    "t4": {"machine": {"device": "cuda", "pack_models": 102}},
    # chosen: 2026-11-21 in benchmarks/EXPERIMENTS.md: on real prices as good as the full network, a fifth of the time
    "cpu": {
        "machine": {"pack_models": 48},
        "model": {"width": 64, "n_layers": 2, "n_heads": 4, "feed_forward": 256},
        "train": {"epochs": 30, "patience": 5, "warmup_epochs": 2},
    },
    "i7-14700": {
        "machine": {"threads": 8, "pack_models": 48},
        "train": {"epochs": 50, "patience": 8, "warmup_epochs": 3},
    },
    "smoke": {
        "machine": {"pack_models": 6},
        "model": {"width": 16, "n_layers": 1, "n_heads": 2, "feed_forward": 32},
        "train": {"epochs": 2, "warmup_epochs": 1},
    },
}
SMOKE_SYMBOLS = 3
SYNTHETIC_NOTE = "SYNTHETIC market: made-up prices, not real ones"  # every output on such data begins with it

# The recipe is how to train. `original` is what the project's source texts ask for, `original-cpu` their CPU form.
RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "original": {"train": {"supervise": "last_day", "start": "own"}},
    "original-cpu": {
        "model": {"look_back": 30},
        "train": {"supervise": "last_day", "start": "own", "epochs": 50, "batch_windows": 4, "accumulate": 8},
        "symbols": ("FPT", "VCB", "HPG"),
    },
}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All that decides a run, apart from the data."""

    family: str = "stockformer"
    recipe: str = "default"
    seed: int = 0
    n_members: int = 3  # networks in the ensemble of a symbol
    symbols: tuple[str, ...] | None = None  # None: VN102 as far as the data has them, else every stock of the data
    model: StockformerConfig = field(default_factory=StockformerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        check_types(self)
        require(self.n_members >= 1, "n_members", self.n_members, "must be at least 1")
        require(self.symbols is None or len(self.symbols) > 0, "symbols", self.symbols,
                 "must name a symbol, or be null")
        twice = sorted({symbol for symbol in self.symbols or () if self.symbols.count(symbol) > 1})
        require(not twice, "symbols", ",".join(twice), "is named twice")
        require(self.recipe in RECIPES, "recipe", self.recipe,
                 f"is not a recipe.{did_you_mean(self.recipe, RECIPES)}".rstrip("."))

    @classmethod
    def for_machine(cls, machine: Machine | str, *, recipe: str = "default", **changes: Any) -> Self:
        """The config for a described machine, or for a profile by its name; `changes` replace single fields.

        A profile shortens the default recipe on slow machines; another recipe is taken as it is written.
        """
        profile = machine if isinstance(machine, str) else machine.profile
        if profile not in PROFILES:
            raise ConfigError(f"there is no profile {profile!r}.{did_you_mean(profile, PROFILES)}")
        if recipe not in RECIPES:
            raise ConfigError(f"there is no recipe {recipe!r}.{did_you_mean(recipe, RECIPES)}")
        parts = PROFILES[profile]
        chosen = dict(RECIPES[recipe])
        shortens = recipe == "default" or profile == "smoke"
        device = {} if isinstance(machine, str) else {"device": machine.device, "dtype": machine.dtype}
        settings: dict[str, Any] = {
            "recipe": recipe,
            "symbols": chosen.get("symbols"),
            "model": StockformerConfig(**(chosen.get("model", {}) | (parts.get("model", {}) if shortens else {}))),
            "train": TrainConfig(**(chosen.get("train", {}) | (parts.get("train", {}) if shortens else {}))),
            "machine": MachineConfig(profile=profile, **(parts["machine"] | device)),
        }
        return cls(**(settings | changes))

    def with_setting(self, path: str, text: str) -> Self:
        """A copy with one field changed, named and written as on the command line: "train.learning_rate", "3e-4"."""
        if path in ("recipe", "machine.profile"):
            raise ConfigError(f"{path} changes many settings at once: choose it with --{path.rpartition('.')[2]}.")
        value = self.to_dict()
        *parents, name = path.split(".")
        place = value
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                raise ConfigError(f"there is no setting {path!r}.{did_you_mean(parent, ('model', 'train', 'machine'))}")
            place = place[parent]
        if isinstance(place.get(name), dict):
            fields = ", ".join(f"{path}.{field}" for field in place[name])
            raise ConfigError(f"{path!r} is a group of settings: name one of {fields}.")
        if name not in place:
            raise ConfigError(f"there is no setting {path!r}.{did_you_mean(name, place)}")
        try:
            place[name] = json.loads(text)
        except json.JSONDecodeError:
            place[name] = text
        if path == "symbols" and place[name] is not None:
            place[name] = [item.strip().upper() for item in text.split(",") if item.strip()]
        return self.from_dict(value)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives an equal config back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The config that `to_dict` wrote. Unknown or wrongly typed fields raise ConfigError."""
        return build(cls, value, "")

    @property
    def config_id(self) -> str:
        """Hash of all that decides the result: not the machine, not how often a checkpoint is written."""
        value = self.to_dict()
        del value["machine"], value["train"]["checkpoint_minutes"], value["recipe"]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, other: "RunConfig") -> list[str]:
        """Sentences such as "train.epochs: 30, here 100" for the fields that decide the result."""
        mine, theirs = flat(self.to_dict()), flat(other.to_dict())
        ignored = ("machine.", "train.checkpoint_minutes", "recipe")
        return [
            f"{name}: {mine[name]!r}, here {theirs[name]!r}"
            for name in mine
            if mine[name] != theirs[name] and not name.startswith(ignored)
        ]
