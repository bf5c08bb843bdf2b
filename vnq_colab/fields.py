"""Fields of frozen dataclasses: checked where they are made, and to and from plain values."""

import dataclasses
import math
import types
import typing
from typing import Any

from vnq_colab.errors import ConfigError, did_you_mean


def require(holds: bool, name: str, value: Any, rule: str) -> None:
    """Raises a ConfigError with the rule unless it holds."""
    if not holds:
        raise ConfigError(f"{name} = {value!r}: {rule}.")


def check_types(config: Any) -> None:
    """Raises ConfigError unless every field of a config has its declared type, and numbers are finite."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if not dataclasses.is_dataclass(hint):
            convert(hint, value, name)
        elif not isinstance(value, hint):
            raise ConfigError(f"{name} = {value!r}: expected {hint.__name__}.")


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"epochs": 3}} -> {"train.epochs": 3}."""
    found: dict[str, Any] = {}
    for name, part in value.items():
        found |= flat(part, f"{prefix}{name}.") if isinstance(part, dict) else {prefix + name: part}
    return found


def build(cls: type, value: Any, prefix: str) -> Any:
    """A dataclass from plain values, refusing what it does not know and what has the wrong type."""
    if not isinstance(value, dict):
        raise ConfigError(f"{prefix or 'config'}: expected fields, found {value!r}.")
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, part in value.items():
        if name not in hints:
            raise ConfigError(f"there is no setting {prefix + name!r}.{did_you_mean(name, hints)}")
        arguments[name] = convert(hints[name], part, prefix + name)
    return cls(**arguments)


def convert(hint: Any, value: Any, name: str) -> Any:
    """A plain value as the type that a field declares. Raises ConfigError where it is not one."""
    if dataclasses.is_dataclass(hint):
        return build(hint, value, f"{name}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)):
            return tuple(str(item) for item in value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if option is float and is_number:
            return float(value)
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option in (bool, str) and isinstance(value, option):
            return value
    expected = " or ".join(getattr(option, "__name__", str(option)) for option in options if option is not type(None))
    raise ConfigError(f"{name} = {value!r}: expected {expected}.")
