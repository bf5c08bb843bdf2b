"""Train, judge and export a forecaster for each stock of a market, in Colab or on a desktop.

Names are resolved when they are first used, so that `import vnq_colab` costs nothing (PEP 562).
"""

import functools
import importlib
import numbers
import types
import typing
from collections.abc import Callable
from typing import Any

_NAMES = {  # by module
    "colab": "describe_machine open_workspace release_gpu",
    "config": "RunConfig",
    "data.collect": "collect_prices",
    "data.features": "features_table",
    "data.market": "VN102",
    "data.panel": "build_panel",
    "data.prepared": "load_prepared prepare",
    "data.prices": "load_prices price_files",
    "delivery.bundle": "export_bundle load_bundle",
    "delivery.earlier_runs": "tidy",
    "delivery.leaks": "review",
    "delivery.predict": "orders plan_day",
    "delivery.validate": "browse validate",
    "errors": "VnqError",
    "evaluation.backtest": "backtest",
    "evaluation.basket": "Basket",
    "evaluation.plots": "plots",
    "training.jobs": "forecast",
    "training.runs": "latest_session status",
    "training.trainer": "resume train",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

_ALIKE = {float: numbers.Real, int: numbers.Integral, tuple: (tuple, list)}  # numpy's numbers are numbers, too

__all__ = sorted(_HOMES)
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = module if name == "plots" else getattr(module, name)
    globals()[name] = value = _guarded(value) if isinstance(value, types.FunctionType) else value
    return value


def _guarded(function: types.FunctionType) -> Callable[..., Any]:
    """The function, which asks first whether its arguments are of the types that it declares. Raises ConfigError."""
    import inspect

    signature, hints = inspect.signature(function), typing.get_type_hints(function)

    @functools.wraps(function)
    def guarded(*args: Any, **named: Any) -> Any:
        for name, value in signature.bind(*args, **named).arguments.items():
            if not _is_of(value, hints.get(name, Any)):
                from vnq_colab.errors import ConfigError, shorten

                kind = getattr(hints[name], "__name__", hints[name])
                raise ConfigError(f"{function.__name__}(): {name} = {shorten(value)}: expected {kind}, found "
                                  f"{type(value).__name__}.")
        return function(*args, **named)
    return guarded


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of a declared type, whatever is inside it; what is declared otherwise than by types passes."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kinds = [_ALIKE.get(kind := typing.get_origin(part) or part, kind) for part in parts]
    return any(not isinstance(kind, (type, tuple)) or isinstance(value, kind) for kind in kinds)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
