"""The groups of settings that a run's config is made of: frozen, checked where they are made.

Each is named on the command line as in the config: `--set train.learning_rate=3e-4`, `--set trees.leaves=31`. A type
says what a value may be: `Literal` lists the choices, `Annotated[int, POSITIVE]` carries a rule.
"""

import dataclasses
import functools
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypedDict

from vnq_colab.errors import ConfigError, did_you_mean, shorten

HORIZON = 5  # [bars] ahead that a forecast reaches


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words."""

    text: str
    holds: Callable[[Any], bool]


def between(least: int, most: int) -> Any:
    """The type of a whole number from `least` to `most`."""
    return Annotated[int, Rule(f"must lie between {least:,} and {most:,}", lambda value: least <= value <= most)]


def record(name: str, /, **fields: Any) -> Any:
    """A TypedDict: all that a JSON object holds."""
    return TypedDict(name, fields)


COUNT = between(1, 1_000_000)  # beyond, it is a slip of the hand
BINS = between(2, 4_096)
SEED = between(0, 2**32 - 1)
POSITIVE = Annotated[float, Rule("must be positive", lambda value: value > 0)]
NOT_NEGATIVE = Annotated[float, Rule("must not be negative", lambda value: value >= 0)]
SHARE = Annotated[float, Rule("must lie in (0, 1]", lambda value: 0 < value <= 1)]
BELOW_ONE = Annotated[float, Rule("must lie in [0, 1)", lambda value: 0 <= value < 1)]


def only(value: Any, why: str) -> Rule:
    """The rule of a setting that has one value so far."""
    return Rule(why, lambda other: other == value)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


class Settings:
    """Base of the frozen dataclasses below: every field is checked against its type when one is made."""

    GROUP = ""  # before the name of a field, where one is spoken of
    LATER: typing.ClassVar[tuple[str, ...]] = ()  # fields that 0.2.0 had not: at their default they count for nothing

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        for field in dataclasses.fields(self):
            hint, value = hints[field.name], getattr(self, field.name)
            if dataclasses.is_dataclass(hint):
                require(isinstance(value, hint), field.name, value, f"expected {hint.__name__}")
            else:
                convert(hint, value, self.GROUP + field.name)


@dataclass(frozen=True, kw_only=True)
class Task(Settings):
    """What is forecast."""

    GROUP = "task."
    horizon: Annotated[int, only(HORIZON, f"what is judged and traded is {HORIZON} days")] = HORIZON  # [bars] ahead
    bar: Annotated[str, only("1d", "only daily bars are known yet")] = "1d"
    target: Literal["rank", "return", "direction"] = "rank"  # within the day; each stock's own return, or its sign
    label: Literal["mixed", "open", "close"] = "open"  # of "rank": from the next open, the close, or their mean
    market: Annotated[str, only("VN", "only the Vietnamese market is known yet")] = "VN"  # whose rules hold

    @property
    def purge_days(self) -> int:
        """Days before a border whose labels would reach across it: the longest label, and one more."""
        return self.horizon + 1


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Settings):
    """Sizes of one network, local or global. The number of features is not here: it comes from the panel."""

    GROUP = "model."
    look_back: between(1, 512) = 60  # [days] seen
    min_context: COUNT = 20  # [days] a position must have seen before it carries loss
    width: COUNT = 128
    n_layers: COUNT = 4
    n_heads: COUNT = 8
    feed_forward: COUNT = 512
    embedding: Literal["linear", "silu"] = "linear"  # of a day's features, and the activation behind it
    final_norm: bool = True  # whether what is read out is normalised, so that no day's answer is larger than another's
    dropout: BELOW_ONE = 0.1  # [fraction] of each residual branch, in training only

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width % self.n_heads == 0, "model.width", self.width,
                f"must be a multiple of n_heads = {self.n_heads}")
        require(self.min_context <= self.look_back, "model.min_context", self.min_context,
                f"must not exceed look_back = {self.look_back}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """How networks learn. An epoch labels every training day of a symbol once."""

    GROUP = "train."
    loss: Literal["huber", "mse", "mae", "gaussian_nll"] = "huber"
    label_clip: POSITIVE | None = None  # [standard deviations] training labels are clipped to; None: not at all
    supervise: Literal["all_days", "last_day"] = "all_days"  # each day of a window predicts, or only the last one
    epochs: COUNT = 100  # at most; the cosine of the learning rate ends here
    batch_windows: COUNT | None = None  # windows per step and model; None: 4 for all_days, 32 for last_day
    accumulate: COUNT = 1  # batches whose gradients are averaged into one step
    learning_rate: POSITIVE = 1e-3
    weight_decay: NOT_NEGATIVE = 1e-5
    schedule: Literal["cosine"] = "cosine"
    warmup_epochs: between(0, 1_000) = 5  # linear
    patience: COUNT = 15  # epochs without a better validation loss before a model stops
    keep_top_k: COUNT = 1  # the weights of a model's so many best epochs are averaged in the end
    clip_norm: POSITIVE = 1.0  # of each model's own gradient
    checkpoint_minutes: POSITIVE = 20.0

    def shortened(self, **changes: Any) -> "TrainConfig":
        """The same with other values; `epochs` and `warmup_epochs` are upper bounds."""
        bounds = {name: min(changes[name], getattr(self, name)) for name in ("epochs", "warmup_epochs")
                  if name in changes}
        return replace(self, **(changes | bounds))

    @property
    def windows_per_batch(self) -> int:
        return self.batch_windows or (4 if self.supervise == "all_days" else 32)


@dataclass(frozen=True, kw_only=True)
class LocalConfig(Settings):
    """The family `stockformer`: the networks of single symbols."""

    GROUP = "stockformer."
    start: Literal["global", "own"] = "global"  # fine-tuned from the global network of their member, or from nothing
    learning_rate_share: POSITIVE = 0.03  # of train.learning_rate, after a global start; chosen: EXPERIMENTS, 11-21
    epochs: COUNT = 2  # at most, after a global start
    patience: COUNT = 1  # [epochs], after a global start


@dataclass(frozen=True, kw_only=True)
class GlobalConfig(Settings):
    """The family `global`: one network of all symbols; its members are seeds. Chosen: EXPERIMENTS.md, 2026-11-28."""

    GROUP = "global."
    inputs: Literal["features", "ranks", "both"] = "both"  # standardised over all stocks; within-day ranks; or both
    windows_per_step: COUNT = 200  # of any stock and day
    learning_rate: POSITIVE = 1.5e-3
    weight_decay: NOT_NEGATIVE = 1e-2
    warmup_share: BELOW_ONE = 0.1  # [fraction] of all steps, linear; then a cosine
    epochs: COUNT = 6  # exactly, unless train.epochs is less: the last weights are as good as any


@dataclass(frozen=True, kw_only=True)
class TreesConfig(Settings):
    """The family `trees`: gradient boosting over the stocks and days of the training set."""

    GROUP = "trees."
    rounds: COUNT = 450  # trees at most
    block_rounds: COUNT = 25  # trees between two measurements on the validation days; the unit of resume
    least_rounds: COUNT = 300
    patience: COUNT = 3  # [blocks] without a better rank correlation on the validation days
    leaves: BINS = 63
    learning_rate: POSITIVE = 0.04  # chosen with `rounds` for three minutes on two cores: EXPERIMENTS, 2026-11-29
    min_child_weight: NOT_NEGATIVE = 300.0  # [rows] of a leaf
    subsample: SHARE = 0.5  # of the rows, for each tree
    colsample: SHARE = 0.3  # of the features, for each split
    penalty: NOT_NEGATIVE = 10.0  # L2, on the values of leaves
    bins: BINS = 64  # of a feature's histogram
    objective: Literal["regression", "pairwise", "lambdarank"] = "regression"  # on within-day ranks; or on their pairs
    monotone: tuple[str, ...] = ()  # features that may only lift a score, or, with a minus before it, only lower it
    top_features: COUNT | None = None  # the best of a quick pass of 50 trees on the training days; None: all
    sampling: Literal["uniform", "gradient_based"] = "uniform"  # of the rows; or rather those with large errors
    matrix: Literal["quantile", "plain"] = "quantile"  # a byte a number, or eight bytes more, to compare with
    memory_pool: bool = False  # on a GPU, by RMM
    LATER = ("objective", "monotone", "top_features", "sampling", "matrix", "memory_pool")

    def __post_init__(self) -> None:
        super().__post_init__()
        both = ", ".join(name for name in self.monotone if f"-{name}" in self.monotone)
        require(not both, "trees.monotone", both, "is given with both signs: keep one of them")


@dataclass(frozen=True, kw_only=True)
class MachineConfig(Settings):
    """Where a run computes. Changing it changes the speed, and at most the last bits, of a result."""

    GROUP = "machine."
    profile: str = "cpu"
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the products; weights, optimizer, losses stay float32
    threads: COUNT | None = None  # None: one per core
    pack_models: COUNT = 24  # networks trained together, at most
    checkpoint_budget_gb: POSITIVE = 2.0  # state of a pack in flight, at most


# ---------------------------------------------------------------------------------------------------- to be searched
@dataclass(frozen=True)
class Whole:
    """Whole numbers from `low` to `high`, both included; `log`: drawn evenly by their logarithm."""

    low: int
    high: int
    log: bool = False


class Real(Whole):
    """Real numbers, as `Whole`."""


@dataclass(frozen=True, init=False)
class OneOf:
    """One of some values: texts, numbers, True, False or None."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any):
        object.__setattr__(self, "values", values)


Space = dict[str, Whole | Real | OneOf]  # what a family's settings may be, by the full name of each: "trees.leaves"


# --------------------------------------------------------------------------------------------------- from plain values
def require(holds: bool, name: str, value: Any, rule: str) -> None:
    """Raises a ConfigError with the rule unless it holds."""
    if not holds:
        raise ConfigError(f"{name or 'the content'} = {shorten(value)}: {rule}.")


def build(cls: type, value: Any, prefix: str = "") -> Any:
    """A dataclass or a TypedDict from plain values: with all that it needs and nothing else, each of its type."""
    require(isinstance(value, dict), prefix.rstrip("."), value, "expected fields")
    hints, word = _hints(cls), "setting" if Settings in cls.__mro__ else "field"
    needed = cls.__required_keys__ if typing.is_typeddict(cls) else {
        field.name for field in dataclasses.fields(cls) if field.default is field.default_factory}  # neither is there
    if unknown := [name for name in value if name not in hints]:
        raise ConfigError(f"there is no {word} {shorten(prefix + unknown[0])}.{did_you_mean(unknown[0], hints)}")
    if lacking := sorted(needed - set(value)):
        raise ConfigError(f"{prefix.rstrip('.') or 'the content'} lacks {', '.join(lacking)}.")
    return cls(**{name: convert(hints[name], part, prefix + name) for name, part in value.items()})


def convert(hint: Any, value: Any, name: str) -> Any:
    """A plain value as the type that is declared for it: a dataclass, a TypedDict, `dict[str, X]`, `list[X]`,
    `tuple[X, ...]`, a `Literal`, `X | None`, `Annotated` with a Rule, Any, or a plain type.

    Raises ConfigError where it is not one, or breaks its rule; `name` is how it is spoken of.
    """
    kind, *rules = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    origin, parts, below = typing.get_origin(kind) or kind, typing.get_args(kind), f"{name}." if name else ""
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        value = build(kind, value, below)
    elif origin is typing.NotRequired:
        value = convert(parts[0], value, name)
    elif origin in (types.UnionType, typing.Union):  # `kind | None`
        try:
            value = None if value is None else convert(parts[0], value, name)
        except ConfigError as error:
            raise ConfigError(f"{str(error).rstrip('.')}, or null.") from None
    elif origin is Literal:
        require(any(value == part and type(value) is type(part) for part in parts), name, value,
                f"must be {' or '.join(map(repr, parts))}")
    elif origin in (list, tuple):
        require(isinstance(value, (list, tuple)), name, value, "expected a list such as [\"a\", \"b\"]")
        value = origin(convert(parts[0], item, f"{name}[{place}]") for place, item in enumerate(value))
    elif origin is dict:
        require(isinstance(value, dict), name, value, "expected fields")
        value = {convert(parts[0], key, f"a name in {name}"): convert(
            parts[1], item, below + (key if key.isidentifier() and len(key) <= 60 else shorten(key)))
            for key, item in value.items()}
    elif kind is not Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        fits = {float: is_number, int: is_number and isinstance(value, int)}.get(kind)
        require(isinstance(value, kind) if fits is None else fits, name, value, f"expected {kind.__name__}")
        value = float(value) if kind is float else value
    for rule in rules:
        require(rule.holds(value), name, value, rule.text)
    return value
