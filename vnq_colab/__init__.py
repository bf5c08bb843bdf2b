"""Train, judge and export a forecaster for each stock of a market, in Colab or on a desktop.

Names are resolved when they are first used, so that `import vnq_colab` costs nothing (PEP 562).
"""

import importlib
import sys
import types
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError("vnq_colab needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info))

_NAMES = {  # by module
    "colab": "describe_machine download open_workspace release_gpu table upload_prices",
    "config": "RunConfig",
    "data.collect": "collect_prices",
    "data.features": "features_table",
    "data.market": "VN102",
    "data.panel": "build_panel",
    "data.prepared": "load_prepared prepare",
    "data.prices": "load_prices",
    "data.unpack": "price_files",
    "delivery.bundle": "export_bundle load_bundle",
    "delivery.deploy": "deploy rollback",
    "delivery.graphs": "graph_bundle",
    "delivery.leaks": "review",
    "delivery.notify": "notify_session",
    "delivery.predict": "orders plan_day",
    "delivery.tidying": "tidy",
    "delivery.validate": "browse validate",
    "errors": "VnqError",
    "evaluation.backtest": "backtest",
    "evaluation.basket": "Basket",
    "evaluation.plots": "plots",
    "training.jobs": "forecast",
    "training.search": "search",
    "training.session": "latest_session status",
    "training.trainer": "resume train",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_HOMES)
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = module if name == "plots" else getattr(module, name)
    if isinstance(value, types.FunctionType):  # what comes in from a person is looked at here, and nowhere else
        value = importlib.import_module(f"{__name__}.errors").guarded(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
