"""A person's own strategy: a function of an evening's forecast and of what is held, run by the engine, and checked."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.evaluation.engine import Desk, Market, Orders

# An evening's rows of the forecast, and what is held, as shares of the account by symbol -> target weights by symbol
Strategy = Callable[[pd.DataFrame, pd.Series], "pd.Series | Mapping[str, float]"]


class FunctionRule:
    """A person's function as a rule of the engine. Raises ConfigError for weights that are none."""

    def __init__(self, strategy: Strategy, forecast: pd.DataFrame, market: Market) -> None:
        self.strategy, self.market = strategy, market
        known = forecast.drop(columns="actual", errors="ignore")  # a stored forecast has the outcomes beside it
        self.rows = {day: rows.reset_index(drop=True) for day, rows in known.groupby("date")}

    def __call__(self, day: int, desk: Desk) -> Orders:
        today, held = self.market.days[day], desk.held[0]
        if today not in self.rows:
            return np.empty(0, dtype=int), np.empty(0, dtype=int), np.empty(0)
        holdings = pd.Series(desk.value[0] / desk.worth[0], index=self.market.symbols)[held]
        weight = self._checked(self.strategy(self.rows[today].copy(), holdings), today)
        enter = np.flatnonzero((weight > 0) & ~held)
        enter = enter[np.argsort(-weight[enter], kind="stable")]
        return np.flatnonzero(held & ~(weight > 0)), enter, weight[enter]

    def _checked(self, answer: "pd.Series | Mapping[str, float]", today: pd.Timestamp) -> np.ndarray:
        """`[symbols]`: target weights. Raises ConfigError for any that are none."""
        where = f"strategy {getattr(self.strategy, '__name__', 'function')}, {today:%Y-%m-%d}"
        should = "Return weights by symbol, from 0 to 1, with a sum of at most 1."
        if not isinstance(answer, (pd.Series, Mapping)):
            raise ConfigError(f"{where}: it returned a {type(answer).__name__}. {should}")
        items, weight = list(answer.items()), np.zeros(len(self.market.symbols))
        place = pd.Index(self.market.symbols)
        for symbol, value in items:
            if symbol not in place:
                raise ConfigError(f"{where}: the forecast has no symbol {symbol!r}."
                                  f"{did_you_mean(str(symbol), list(place))} {should}")
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = np.nan
            if not 0 <= number <= 1:
                raise ConfigError(f"{where}: the weight of {symbol} is {value!r}. {should}")
            weight[place.get_loc(symbol)] = number
        if len({symbol for symbol, _ in items}) < len(items):
            raise ConfigError(f"{where}: it returned a symbol twice. {should}")
        if weight.sum() > 1 + 1e-6:
            raise ConfigError(f"{where}: the weights sum to {weight.sum():.7g}. {should}")
        return weight
