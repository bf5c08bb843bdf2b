"""What a run is: the network, how it is trained, on what machine. Frozen, validated, exact to and from JSON.

Three words, never mixed: the *profile* is the machine, the *recipe* how to train, the *gates* how to judge.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self

from vnq_colab.clock import spell
from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.notebook import Shown
from vnq_colab.recipes import RECIPES, FoundBy, read_recipe
from vnq_colab.settings import (
    COUNT,
    SEED,
    GlobalConfig,
    LocalConfig,
    MachineConfig,
    NetworkConfig,
    Settings,
    Task,
    TrainConfig,
    TreesConfig,
    build,
    require,
)


@dataclass(frozen=True, kw_only=True)
class Machine(Shown):
    """What a machine is and has, as of `describe_machine`."""

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
    since: float = field(default_factory=time.monotonic, compare=False)  # when it was described

    def spent(self) -> str:
        """How long ago it was described, and what that has cost."""
        seconds = time.monotonic() - self.since
        return f"{spell(seconds)} on this machine" + (f", about {self.units_per_hour * seconds / 3600:.2g} units"
                                                      if self.units_per_hour else "")

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
    "cpu": {
        "machine": {"pack_models": 153, "threads": 1},  # two that wait for each other cost ten times one: EXPERIMENTS
        "train": {"epochs": 30, "patience": 5, "warmup_epochs": 2},
    },
    "i7-14700": {
        "machine": {"threads": 8, "pack_models": 48},
        "train": {"epochs": 50, "patience": 8, "warmup_epochs": 3},
    },
    "smoke": {
        "machine": {"pack_models": 12, "threads": 1},
        "model": {"width": 16, "n_layers": 1, "n_heads": 2, "feed_forward": 32},
        "train": {"epochs": 2, "warmup_epochs": 1},
        "global_": {"epochs": 1},
        "trees": {"rounds": 20, "block_rounds": 10, "least_rounds": 10, "leaves": 15, "min_child_weight": 20.0},
        "run": {"folds": 2, "n_members": 1},
    },
}
SMOKE_SYMBOLS = 8
SYNTHETIC_NOTE = "SYNTHETIC market: made-up prices, not real ones"  # every output on such data begins with it

FAMILY_NAMES = ("stockformer", "global", "trees")  # the default ones, in the order in which reports name them
MOST_FOLDS = 8  # years that are judged unless `folds` says otherwise


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """All that decides a run, apart from the data."""

    families: tuple[str, ...] = FAMILY_NAMES
    recipe: str = "default"
    found_by: FoundBy = field(default_factory=FoundBy)  # of a recipe that is the file of a search
    seed: SEED = 0
    folds: COUNT | None = None  # years that are judged, each by models trained before it; None: at most eight
    n_members: COUNT = 3  # networks in the ensemble of a symbol, and seeds of the global network
    symbols: tuple[str, ...] | None = None  # judged; None: VN102 as far as the data has them, else every stock
    task: Task = field(default_factory=Task)
    model: NetworkConfig = field(default_factory=NetworkConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    stockformer: LocalConfig = field(default_factory=LocalConfig)
    global_: GlobalConfig = field(default_factory=GlobalConfig)
    trees: TreesConfig = field(default_factory=TreesConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.families) > 0, "families", self.families, "must name a family")
        require(self.symbols is None or len(self.symbols) > 0, "symbols", self.symbols,
                "must name a symbol, or be null")
        for name, values in (("families", self.families), ("symbols", self.symbols or ())):
            twice = sorted({value for value in values if values.count(value) > 1})
            require(not twice, name, ",".join(twice), "is named twice")
        for name in self.families:
            require_known(name, FAMILY_NAMES, "family")
        require_known(self.recipe, RECIPES, "recipe")
        if self.task.target != "rank":
            is_own = "stockformer" not in self.families or self.stockformer.start == "own"
            require(is_own and "global" not in self.families, "task.target", self.task.target,
                    "the global network learns ranks: leave it out with families=(\"trees\",), or with "
                    "families=(\"stockformer\",) and, before this, stockformer.start=own")
        else:
            require(self.train.loss in ("huber", "mse", "mae"), "train.loss", self.train.loss,
                    "gives a spread of returns, which ranks have not: choose huber, mse or mae, or task.target=return")

    @classmethod
    def for_machine(cls, machine: Machine | str, *, recipe: str = "default", **changes: Any) -> Self:
        """The config for a described machine, or for a profile by its name; `changes` replace single fields.

        A profile shortens the default recipe on slow machines; another recipe is taken as it is written. `recipe` may
        be the file of a search, "recipe.json": its settings, on the recipe that it searched from.
        """
        if str(recipe).lower().endswith(".json"):
            base, settings, origin = read_recipe(recipe)
            config = cls.for_machine(machine, recipe=base).with_settings(settings)
            return dataclasses.replace(config, **{"found_by": origin} | changes)
        profile = machine if isinstance(machine, str) else machine.profile
        require_known(profile, PROFILES, "profile")
        require_known(recipe, RECIPES, "recipe (the file of a search must end in .json)")
        device = {} if isinstance(machine, str) else {"device": machine.device, "dtype": machine.dtype}
        written, slower = RECIPES[recipe], PROFILES[profile] if recipe == "default" or profile == "smoke" else {}
        slower = slower | {"machine": PROFILES[profile]["machine"] | device | {"profile": profile}}
        groups = {group.name: group.default_factory(**(written.get(group.name, {}) | slower.get(group.name, {})))
                  for group in dataclasses.fields(cls) if group.default_factory is not dataclasses.MISSING}
        return cls(**({"recipe": recipe} | slower.get("run", {}) | written.get("run", {}) | groups | changes))

    def with_setting(self, path: str, text: str) -> Self:
        """A copy with one field changed, named and written as on the command line: "train.learning_rate", "3e-4"."""
        if path in ("recipe", "machine.profile") or path.startswith("found_by"):
            flag = "profile" if path == "machine.profile" else "recipe"
            raise ConfigError(f"{path} changes many settings at once: choose it with --{flag}.")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # a text as it is, or nothing that Python can read
            value = text
        if path in ("symbols", "families") and value is not None:
            value = [item.strip() for item in text.split(",") if item.strip()]
        if path == "symbols" and value is not None:
            value = [item.upper() for item in value]
        return self.with_settings({path: value})

    def with_settings(self, settings: dict[str, Any]) -> Self:
        """A copy with plain values in place of some, by their full names ("trees.leaves"), checked together."""
        whole = self.to_dict()
        for path, value in settings.items():
            group, _, name = path.rpartition(".")
            place = whole.get(group) if group else whole
            if not isinstance(place, dict) or name not in place:
                raise ConfigError(f"there is no setting {path!r}.{did_you_mean(path, self.flat())}")
            if isinstance(place[name], dict):
                fields = ", ".join(f"{path}.{field}" for field in place[name])
                raise ConfigError(f"{path!r} is a group of settings: name one of {fields}.")
            place[name] = value
        return self.from_dict(whole)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` gives an equal config back."""
        value = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name.rstrip("_"): part for name, part in value.items()}  # `global` is no name in Python

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """The config that `to_dict` wrote. Unknown or wrongly typed fields raise ConfigError."""
        if isinstance(value, dict):
            value = {"global_" if name == "global" else name: part for name, part in value.items()}
        return build(cls, value)

    def flat(self) -> dict[str, Any]:
        """All settings by their full names, such as "trees.leaves"."""
        return _flat(self.to_dict())

    @property
    def config_id(self) -> str:
        """Hash of all that decides the result: not the machine, not how often a checkpoint is written."""
        value = self._deciding()
        for group in vars(self).values():
            for name in getattr(group, "LATER", ()):
                if getattr(group, name) == getattr(type(group)(), name):
                    del value[group.GROUP.rstrip(".")][name]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]

    def _deciding(self) -> dict[str, Any]:
        value = self.to_dict()
        del value["machine"], value["train"]["checkpoint_minutes"], value["recipe"], value["found_by"]
        return value

    @property
    def judged_family(self) -> str:
        """What is judged and traded: the ensemble of ranks; of returns the one family there is."""
        return "ensemble" if self.task.target == "rank" else self.families[0]

    @property
    def ensemble_families(self) -> tuple[str, ...]:
        """What the ensemble means: trees and networks alike.

        The symbols' own networks begin as the global one; with both of them it would count twice. Chosen on validation
        days: EXPERIMENTS.md, 2026-11-28.
        """
        twice = {"stockformer", "trees"} <= set(self.families)
        return tuple(name for name in self.families if name != "global" or not twice)

    def differences(self, other: "RunConfig") -> list[str]:
        """Sentences such as "train.epochs: 30, here 100" for the fields that decide the result."""
        mine, theirs = (_flat(config._deciding()) for config in (self, other))
        return [f"{name}: {mine[name]!r}, here {theirs[name]!r}" for name in mine if mine[name] != theirs[name]]


def require_known(name: str, known: Iterable[str], what: str) -> None:
    """Raises ConfigError, with the nearest of the known names, unless the name is one of them."""
    if name not in [*known]:  # whatever it is: in a dict, a list could not be looked for
        raise ConfigError(f"there is no {what} {name!r}.{did_you_mean(str(name), known)}")


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    """{"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    groups = {name: part for name, part in value.items() if isinstance(part, dict)}
    return {name: part for name, part in value.items() if name not in groups} | {
        f"{group}.{name}": part for group, fields in groups.items() for name, part in fields.items()}
