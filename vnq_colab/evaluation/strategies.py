"""What a strategy wishes to hold at each close: long or flat, as a share of the account.

Axes: days, symbols. A wish is known at the close of its day; the engine fills it later, or never.
"""

from dataclasses import KW_ONLY, dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import HORIZON
from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.evaluation.metrics import TRADING_DAYS

STRATEGIES = ("long_flat", "top_k", "volatility", "buy_and_hold")


@dataclass(frozen=True)
class Strategy:
    """How a forecast becomes wishes.

    `long_flat`: all of a symbol's own account while it is expected to rise. `volatility`: a part of that account, the
    smaller the wider the forecast's scale; the part is set when the position is opened and stays. `top_k`: one common
    account for all symbols, 1 / k of it in each of the k highest `mean` of those expected to rise. `buy_and_hold`: all
    of a symbol's account, whatever the forecast.
    Expected to rise is `mean` > 0, or `p_up` > `threshold`. Raises ConfigError.
    """

    name: str = "long_flat"
    _: KW_ONLY
    threshold: float | None = None  # [probability] None: the sign of `mean`
    k: int = 10  # [symbols] of `top_k`
    volatility: float = 0.20  # [standard deviation of a year's log return] that a position of `volatility` may have

    def __post_init__(self) -> None:
        if self.name not in STRATEGIES:
            raise ConfigError(f"there is no strategy {self.name!r}.{did_you_mean(str(self.name), STRATEGIES)}")
        if self.threshold is not None and (isinstance(self.threshold, str) or not 0 < self.threshold < 1):
            raise ConfigError(f"threshold = {self.threshold!r}: must lie between 0 and 1, a probability, or be None "
                              "for the sign of the mean.")
        if not isinstance(self.k, (int, np.integer)) or self.k < 1:
            raise ConfigError(f"k = {self.k!r}: must be a whole number of symbols, at least 1.")
        if not 0 < self.volatility < np.inf:
            raise ConfigError(f"volatility = {self.volatility!r}: must be positive, such as 0.2 a year.")

    @property
    def is_common(self) -> bool:
        """Whether all symbols share one account."""
        return self.name == "top_k"

    def rises(self, forecast: pd.DataFrame) -> np.ndarray:
        """`[rows]` bool: which rows of a forecast are expected to rise."""
        rises = forecast["mean"] > 0 if self.threshold is None else forecast["p_up"] > self.threshold
        return rises.to_numpy()


def as_strategy(strategy: str | Strategy) -> Strategy:
    """The strategy itself, or the one of that name with its defaults. Raises ConfigError."""
    return strategy if isinstance(strategy, Strategy) else Strategy(strategy)


def wishes(strategy: Strategy, forecast: pd.DataFrame, days: pd.DatetimeIndex,
           symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """`[days, symbols]` share of the account wished at each close, and for `top_k` the rank, 0 the first to be bought.

    `forecast` is checked, of one family. A day without a forecast keeps the last one; `top_k` drops it after the
    horizon, because a symbol that has left the market would keep its place for ever.
    """
    def spread(column: str) -> pd.DataFrame:
        table = forecast.pivot(index="date", columns="symbol", values=column).reindex(days, columns=symbols)
        return table.ffill(limit=HORIZON if strategy.is_common else None)

    if strategy.name == "buy_and_hold":
        return np.ones((len(days), len(symbols))), None
    forecast = forecast.assign(rises=strategy.rises(forecast).astype("float64"))
    up = (spread("rises") > 0).to_numpy()  # NaN, before the first forecast: not up
    if strategy.name == "volatility":
        yearly = spread("scale").to_numpy() * np.sqrt(TRADING_DAYS / HORIZON)
        return np.where(up, np.minimum(1, strategy.volatility / yearly), 0.0), None
    if not strategy.is_common:
        return up.astype("float64"), None
    score = np.where(up, spread("mean").to_numpy(), -np.inf)
    rank = np.argsort(np.argsort(-score, axis=1, kind="stable"), axis=1, kind="stable")  # equal ones by name
    return np.where(up & (rank < strategy.k), 1 / strategy.k, 0.0), rank
