"""Recipes: how to train, by name, or as the file that a search wrote."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vnq_colab import __version__
from vnq_colab.errors import CheckpointError, ConfigError, tell
from vnq_colab.files import read_sealed
from vnq_colab.settings import COUNT, Settings, between, build, record

# `original` is what the project's source texts ask for, `original-cpu` their CPU form.
_ORIGINAL = {"run": {"families": ("stockformer",)}, "task": {"target": "return"}, "stockformer": {"start": "own"}}
# chosen: 2026-11-28 in benchmarks/EXPERIMENTS.md, on validation days: a short look-back, nonlinear from the start
_DEFAULT = {"model": {"look_back": 5, "min_context": 1, "n_layers": 1, "n_heads": 4, "feed_forward": 128,
                      "embedding": "silu", "final_norm": False}, "train": {"batch_windows": 32}}
RECIPES: dict[str, dict[str, Any]] = {
    "default": _DEFAULT,
    "tour": _DEFAULT | {"run": {"families": ("global", "trees"), "folds": 3, "n_members": 1}, "global_": {"epochs": 2},
                        "trees": {"rounds": 150, "least_rounds": 100, "leaves": 31}},  # of notebook 0: a minute
    "original": _ORIGINAL | {"train": {"supervise": "last_day"}},
    "original-cpu": _ORIGINAL | {
        "model": {"look_back": 30},
        "train": {"supervise": "last_day", "epochs": 50, "batch_windows": 4, "accumulate": 8},
        "run": {"families": ("stockformer",), "symbols": ("FPT", "VCB", "HPG")},
    },
}

RECIPE, RECIPE_FORMAT = "recipe.json", 1  # the file that a search writes
Recipe = record("Recipe", **dict.fromkeys(("code_version", "name", "family", "search", "seen_to"), str), format=int,
                base=Literal[tuple(RECIPES)], settings=dict[str, Any], trials=COUNT, value=float, default=float | None)


@dataclass(frozen=True, kw_only=True)
class FoundBy(Settings):
    """The search that the settings of a recipe come from."""

    GROUP = "found_by."
    search: str = ""  # "": none
    trials: between(0, 1_000_000) = 0  # that it made, all of them charged where the run is judged
    seen_to: str = ""  # the last validation day that a trial was measured on


def read_recipe(path: str | Path) -> tuple[str, dict[str, Any], FoundBy]:
    """What a search wrote: the recipe that it began from, settings by their full names, and where they come from.

    Raises ConfigError where it is not there, damaged, or of another format.
    """
    try:
        if (value := read_sealed(Path(path))).get("format") != RECIPE_FORMAT:
            raise ConfigError(f"its format is {value.get('format')!r}, this version's {RECIPE_FORMAT}. Search again.")
        value = build(Recipe, value)
    except FileNotFoundError:
        raise ConfigError(f"there is no recipe {str(path)!r}. Name one of {', '.join(RECIPES)}, or the recipe.json of "
                          "a search.") from None
    except (CheckpointError, ConfigError) as error:
        raise ConfigError(f"{path}: not a recipe of a search: {str(error).removeprefix(f'{Path(path)}: ')}") from None
    if value["code_version"] != __version__:
        tell(f"{path}: found by version {value['code_version']}; this is {__version__}, which may train otherwise.")
    return value["base"], value["settings"], FoundBy(**{name: value[name] for name in ("search", "trials", "seen_to")})
