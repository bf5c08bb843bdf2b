"""Train, judge and export a forecaster for each stock of a market, in Colab or on a desktop.

Names are resolved when they are first used, so that `import vnq_colab` costs nothing (PEP 562).
"""

import importlib
from typing import Any

_HOMES = {
    "Basket": "evaluation.basket",
    "RunConfig": "config",
    "VN102": "data.market",
    "VnqError": "errors",
    "backtest": "evaluation.backtest",
    "browse": "delivery.validate",
    "build_panel": "data.panel",
    "collect_prices": "data.collect",
    "describe_machine": "colab",
    "evening": "delivery.predict",
    "export_bundle": "delivery.bundle",
    "features_table": "data.features",
    "forecast": "training.jobs",
    "latest_session": "training.runs",
    "load_bundle": "delivery.bundle",
    "load_prepared": "data.prepared",
    "load_prices": "data.prices",
    "open_workspace": "colab",
    "orders": "delivery.predict",
    "plots": "evaluation.plots",
    "prepare": "data.prepared",
    "price_files": "data.prices",
    "release_gpu": "colab",
    "resume": "training.trainer",
    "review": "delivery.leaks",
    "status": "training.runs",
    "tidy": "delivery.earlier_runs",
    "train": "training.trainer",
    "validate": "delivery.validate",
}

__all__ = sorted(_HOMES)
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = module if name == "plots" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
