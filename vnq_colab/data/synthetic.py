"""A seeded synthetic market with the habits of the real one; its symbols, SYN001, SYN002, ..., are no real names."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from vnq_colab.data.market import DAYS_OFF, EXCHANGES, VN_RULES, is_session, tick
from vnq_colab.errors import ConfigError
from vnq_colab.settings import HORIZON

PERSISTENCE = 0.9  # of the planted signal from day to day
VOLUME_SHOWS = 0.8  # how strongly it moves log volume; the noise beside it is 0.15
MARKET_SHARE = 0.28  # of a stock's variance; the mean correlation measured on real prices
MOST_SIGNAL = 0.8


def synthetic_prices(n_symbols: int = 102, n_days: int = 1060, *, seed: int = 0, signal: float = 0.15,
                     last_day: str = "2025-12-31") -> pd.DataFrame:
    """A price table of `n_symbols` made-up stocks over the `n_days` trading days that end with `last_day`.

    `signal`, 0 to 0.8, is the mean daily rank correlation of the best forecast with the 5-day return from close to
    close; at 0 every price is a random walk.
    """
    if not 0 <= signal <= MOST_SIGNAL:
        raise ConfigError(f"signal = {signal}: must lie in [0, {MOST_SIGNAL}].")
    random = np.random.default_rng(seed)
    days = pd.bdate_range(end=last_day, periods=int(n_days * 1.1) + 20)
    days = days[is_session(days) | days.isin(DAYS_OFF)][-n_days:]  # a made-up market has no days in lieu
    exchanges = random.choice(EXCHANGES, n_symbols, p=[0.8, 0.12, 0.08])
    hidden = _autoregression(random, n_days, n_symbols, PERSISTENCE)  # [days, symbols] the planted signal, variance 1
    volatility = 0.021 * np.exp(0.35 * _autoregression(random, n_days, n_symbols, 0.97)
                                + 0.25 * _autoregression(random, n_days, 1, 0.98) + random.normal(0, 0.15, n_symbols))
    market = random.standard_t(6, (n_days, 1)) / np.sqrt(1.5)
    own = random.standard_t(5, (n_days, n_symbols)) / np.sqrt(5 / 3)
    noise = np.sqrt(MARKET_SHARE) * market + np.sqrt(1 - MARKET_SHARE) * own
    drift = np.zeros_like(noise)
    drift[1:] = _strength(signal) * hidden[:-1]  # what was visible yesterday moves the price today
    quiet = random.random(noise.shape) < np.where(random.random(n_symbols) < 0.15, 0.08, 0.002)
    prices = _walk(random, np.where(quiet, 0, volatility * (drift + noise)), exchanges, days)
    volume = np.exp(random.uniform(11, 15, n_symbols) + VOLUME_SHOWS * hidden + 0.15 * random.normal(size=noise.shape))
    listed = np.where(random.random(n_symbols) < 0.25, random.integers(0, int(n_days * 0.5) + 1, n_symbols), 0)
    halted = random.random(noise.shape) < 0.001
    return _table(days, exchanges, prices, np.maximum(volume // 100 * 100, 100), listed, halted, quiet)


def is_synthetic(symbols: Iterable[str]) -> bool:
    """True when every symbol is one of those that this module makes up."""
    return all(re.fullmatch(r"SYN\d{3,}", symbol) for symbol in symbols)


def _autoregression(random: np.random.Generator, n_days: int, width: int, persistence: float) -> np.ndarray:
    """`[days, width]`: a stationary series of variance 1 that forgets slowly."""
    series = random.normal(size=(n_days, width)) * np.sqrt(1 - persistence**2)
    series[0] /= np.sqrt(1 - persistence**2)
    for day in range(1, n_days):
        series[day] += persistence * series[day - 1]
    return series


def _strength(signal: float) -> float:
    """How much of a day's volatility the signal moves, so that the best forecast has this rank correlation.

    Solves b² A / (b² B + 5 C) = r²: A is the square of 1 + p + .. + p^4, B the variance of the sum of 5 signals, C the
    noise's own share. Source: Pearson 1907, r = 2 sin(pi / 6 x signal).
    """
    powers = PERSISTENCE ** np.arange(HORIZON)
    explained = powers.sum() ** 2
    total = sum(PERSISTENCE ** abs(i - j) for i in range(HORIZON) for j in range(HORIZON))
    squared = (2 * np.sin(np.pi / 6 * signal)) ** 2
    return float(np.sqrt(squared * (1 - MARKET_SHARE) * HORIZON / (explained - squared * total)))


def _walk(random: np.random.Generator, returns: np.ndarray, exchanges: np.ndarray,
          days: pd.DatetimeIndex) -> np.ndarray:
    """`[days, symbols, 4]`: open, high, low, close [VND], inside the day's band and on the tick."""
    n_days, n_symbols = returns.shape
    bands = VN_RULES.band(exchanges[:, None], days).T  # [days, symbols]
    share = random.beta(2, 4, returns.shape)  # of the day's move that happens before the opening
    wick = np.abs(random.normal(0, 0.3, (2, *returns.shape))) * np.abs(returns).mean(axis=0)
    prices = np.empty((n_days, n_symbols, 4))
    reference = random.uniform(12_000, 90_000, n_symbols)
    for day in range(n_days):
        floor, ceiling = reference * (1 - bands[day]), reference * (1 + bands[day])
        opening, closing = reference * np.exp(share[day] * returns[day]), reference * np.exp(returns[day])
        high = np.maximum(opening, closing) * np.exp(wick[0, day])
        low = np.minimum(opening, closing) * np.exp(-wick[1, day])
        for place, price in enumerate((opening, high, low, closing)):
            price = np.clip(price, floor, ceiling)
            step = tick(price, exchanges)
            lowest = np.maximum(np.ceil(floor / step), 1)
            highest = np.maximum(np.floor(ceiling / step), lowest)
            prices[day, :, place] = np.clip(np.round(price / step), lowest, highest) * step
        reference = prices[day, :, 3]
    return prices


def _table(days: pd.DatetimeIndex, exchanges: np.ndarray, prices: np.ndarray, volume: np.ndarray, listed: np.ndarray,
           halted: np.ndarray, quiet: np.ndarray) -> pd.DataFrame:
    """The long price table; a day without trades shows the last close four times."""
    n_days, n_symbols = volume.shape
    quiet[0] = False
    for day in np.flatnonzero(quiet.any(axis=1)):
        prices[day, quiet[day]] = prices[day - 1, quiet[day], 3:4]
        volume[day, quiet[day]] = 0
    there = (np.arange(n_days)[:, None] >= listed) & ~halted
    day, symbol = np.nonzero(there)
    names = np.array([f"SYN{number + 1:03d}" for number in range(n_symbols)], dtype=object)
    table = pd.DataFrame({"symbol": names[symbol], "date": days[day].astype("datetime64[ns]")})
    for place, name in enumerate(("open", "high", "low", "close")):
        table[name] = prices[day, symbol, place]
    table["volume"] = volume[day, symbol].astype("int64")
    table["exchange"] = exchanges[symbol].astype(object)
    return table.sort_values(["symbol", "date"], ignore_index=True)
