"""The market: who is traded, its dated rules and its calendar; and a seeded synthetic one that keeps to them.

Source: the public rules of HOSE, HNX and UPCOM as they stood in November 2026. What is from memory could not be looked
up and is to be verified; bands before 2016 are among it. Bands and ticks apply to raw prices.
"""

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.errors import ConfigError, DataError, shorten
from vnq_colab.settings import BELOW_ONE, COUNT, HORIZON, Settings

# The default universe: 102 liquid names, chosen in 2026, so every backtest on them has survivorship in it.
VN102: tuple[str, ...] = tuple(
    """
    ACB ACV ANV BID BSI BSR BVB CEO CII CSV CTD CTG CTR CTS DBC DCM DDV DGC DGW DIG DPG DPM DXG EIB EVF FPT
    FRT FTS GAS GEX GMD GVR HAG HAH HCM HDB HDC HDG HHS HHV HPG HSG HVN IDC IJC KBC KDH KSB LPB MBB MBS MSB
    MSN MSR MWG NKG NLG NVL OCB ORS PAN PC1 PDR PET PHR PLX PNJ POW PVD PVS PVT REE SAB SHB SHS SSI STB SZC
    TCB TCH TCM TPB VCB VCG VCI VFS VGC VGI VHC VHM VIB VIC VIX VJC VND VNM VPB VPI VRE VSC VTP YEG
    """.split()
)

EXCHANGES = ("HOSE", "HNX", "UPCOM")
TODAYS_LOT = 100  # [shares] on all three exchanges
LIMIT_TOLERANCE = {"HOSE": 0.005, "HNX": 0.01, "UPCOM": 0.01}  # [fraction of the price] a tick at 10,000 VND
HOLIDAYS = ("01-01", "04-30", "05-01", "09-02")  # known years ahead; the exchange announces others and days in lieu
# Weekdays of 2016 to 2025 on which no stock traded. Source: the days without a row in the shared vn_daily.parquet.
DAYS_OFF = pd.DatetimeIndex(
    """
    2016-04-18 2016-05-02 2016-05-03 2017-01-02 2017-04-06 2017-05-02 2017-09-04 2018-04-25 2018-09-03 2018-12-31
    2019-04-15 2019-04-29 2020-04-02 2021-04-21 2021-05-03 2021-09-03 2022-01-03 2022-04-11 2022-05-02 2022-05-03
    2022-09-01 2023-01-02 2023-05-02 2023-05-03 2023-09-01 2023-09-04 2024-04-18 2024-04-29 2024-09-03 2025-04-07
    2025-05-02
    """.split()
)
# The first day of the lunar year in Vietnam (UTC+7; 2007 and 2030 a day before China's), known years ahead.
# Source: the new moons of Meeus 1998, chapter 49 (tests/test_features.py computes them), and the gaps of VNINDEX.
LUNAR_NEW_YEARS = pd.DatetimeIndex(
    """
    2000-02-05 2001-01-24 2002-02-12 2003-02-01 2004-01-22 2005-02-09 2006-01-29 2007-02-17 2008-02-07 2009-01-26
    2010-02-14 2011-02-03 2012-01-23 2013-02-10 2014-01-31 2015-02-19 2016-02-08 2017-01-28 2018-02-16 2019-02-05
    2020-01-25 2021-02-12 2022-02-01 2023-01-22 2024-02-10 2025-01-29 2026-02-17 2027-02-06 2028-01-26 2029-02-13
    2030-02-02 2031-01-23 2032-02-11 2033-01-31 2034-02-19 2035-02-08
    """.split()
)
TET_DAYS = range(-2, 5)  # around the lunar new year: no session on these in 2014 to 2025
LONG_HALT_SESSIONS = 25  # memory: after so many sessions without a trade the first day's band applies again
# From (raw price) on, the step [VND] on HOSE. Of November 2026, not dated in our sources; before 2016-09-12, from
# memory, 100 below 50,000, 500 below 100,000, else 1,000 VND. HNX and UPCOM: 100 VND throughout.
HOSE_TICKS = ((0, 10.0), (10_000, 50.0), (50_000, 100.0))
# By rule and exchange: the value in force from a day on.
RULES: dict[str, dict[str, dict[str, float]]] = {
    # [fraction of the reference price] today's values are of the rules of November 2026; days and earlier ones: memory
    "band": {"HOSE": {"2000-07-28": 0.05, "2013-01-15": 0.07}, "HNX": {"2005-03-08": 0.07, "2013-01-15": 0.10},
             "UPCOM": {"2009-06-24": 0.10, "2015-07-01": 0.15}},
    "first-day band": {"HOSE": {"2000-07-28": 0.20}, "HNX": {"2005-03-08": 0.30}, "UPCOM": {"2009-06-24": 0.40}},
    "lot": {"HOSE": {"2000-07-28": 10, "2021-01-01": TODAYS_LOT}, "HNX": {"2005-03-08": TODAYS_LOT},
            "UPCOM": {"2009-06-24": TODAYS_LOT}},  # [shares] that of 10, and its last day, from memory
    # [trading days] after the purchase, on all exchanges: T+3 until 2015; from 2016 shares arrive at the end of T+2,
    # from 2022-08-29 at 13:00 of T+2, in time for its close.
    "sellable at the open": {"HOSE": {"2000-07-28": 4, "2016-01-01": 3}},
    "sellable at the close": {"HOSE": {"2000-07-28": 4, "2016-01-01": 3, "2022-08-29": 2}},
}
PERSISTENCE = 0.9  # of the planted signal from day to day
VOLUME_SHOWS = 0.8  # how strongly it moves log volume; the noise beside it is 0.15
MARKET_SHARE = 0.28  # of a stock's variance; the mean correlation measured on real prices
MOST_SIGNAL = 0.8


@dataclass(frozen=True, kw_only=True)
class MarketRules(Settings):
    """What the exchange and the broker demand."""

    fee: BELOW_ONE = 0.0015  # [fraction of the trade] about what brokers take in 2026, each side
    sale_tax: BELOW_ONE = 0.001  # [fraction of the sale]
    slippage: BELOW_ONE = 0.002  # [fraction of the price] paid against the trader, each side
    delisting_haircut: BELOW_ONE = 0.3  # [fraction of the last close] lost where a stock vanishes; chosen
    lot: COUNT = TODAYS_LOT  # [shares] another than today's holds on every exchange and day

    @property
    def round_trip(self) -> float:
        """[fraction] what a sale and a purchase of the same value cost: fees, slippage, tax."""
        return 2 * (self.fee + self.slippage) + self.sale_tax

    def band(self, exchange: str | np.ndarray, days: pd.DatetimeIndex, *,
             first_day: bool | np.ndarray = False) -> np.ndarray:
        """Daily price band as a fraction of the reference price; `exchange` and `days` broadcast together.

        `first_day` marks days under the wider band: a stock's first one on its exchange, and that after a long halt.
        The reference is the close before; on UPCOM the average price of the day before (memory).
        """
        daily = in_force("band", exchange, days)
        return np.where(first_day, in_force("first-day band", exchange, days), daily) if np.any(first_day) else daily

    def sellable_after(self, days: pd.DatetimeIndex) -> np.ndarray:
        """`[days]` int: a purchase at the open of this day can be sold from the open that many trading days later."""
        return in_force("sellable at the open", "HOSE", days).astype(int)

    def sellable_at_close_after(self, days: pd.DatetimeIndex) -> np.ndarray:
        """`[days]` int: the same for a sale at the close; since 2022-08-29 that of T+2, before the open of T+3."""
        return in_force("sellable at the close", "HOSE", days).astype(int)

    def lots(self, exchange: str | np.ndarray, days: pd.DatetimeIndex) -> np.ndarray:
        """`[days]` int: the dated lot of the exchange [shares]; `self.lot` where that is not today's."""
        return in_force("lot", exchange, days).astype(int) if self.lot == TODAYS_LOT else np.full(len(days), self.lot)


VN_RULES = MarketRules()


def in_force(rule: str, exchange: str | np.ndarray, days: pd.DatetimeIndex) -> np.ndarray:
    """The value of a dated rule, such as "band"; `exchange` (an unknown one is HOSE) and `days` broadcast."""
    value, days = np.nan, np.asarray(days, "datetime64[ns]")
    for name, dated in RULES[rule].items():  # HOSE stands first
        since = np.array(list(dated), "datetime64[ns]")
        then = np.array(list(dated.values()), "float64")[np.maximum(since.searchsorted(days, side="right") - 1, 0)]
        value = then if name == "HOSE" else np.where(np.asarray(exchange) == name, then, value)
    return value


def tick(price: np.ndarray, exchange: str | np.ndarray) -> np.ndarray:
    """`[...] -> [...]`: the price step [VND] at a raw price."""
    levels, steps = np.array(HOSE_TICKS).T
    return np.where(np.isin(exchange, ("HNX", "UPCOM")), 100.0, steps[np.searchsorted(levels, price, side="right") - 1])


def on_tick(price: np.ndarray, exchange: str | np.ndarray) -> np.ndarray:
    """`[...] -> [...]`: the nearest raw price that the exchange trades at, at least one tick [VND]."""
    step = tick(price, exchange)
    return np.maximum(np.round(price / step), 1) * step


def price_limits(reference: np.ndarray, band: np.ndarray, exchange: str | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[...] -> [...], [...]`: ceiling and floor [VND] of a raw reference price, on ticks inside the band."""
    high, low = reference * (1 + band), reference * (1 - band)
    step, step_low = tick(high, exchange), tick(low, exchange)
    ceiling = np.maximum(np.floor(high / step + 1e-9) * step, reference + tick(reference, exchange))
    floor = np.minimum(np.ceil(low / step_low - 1e-9) * step_low, reference - tick(reference, exchange))
    return ceiling, floor


def is_session(days: pd.DatetimeIndex) -> np.ndarray:
    """`[days]` bool: no weekend, fixed holiday, lunar new year or known day off; of the past see `trading_days`."""
    tet = [LUNAR_NEW_YEARS + pd.Timedelta(days=day) for day in TET_DAYS]
    closed = np.isin(days.strftime("%m-%d"), HOLIDAYS) | days.isin(DAYS_OFF) | days.isin(tet[0].append(tet[1:]))
    return np.asarray(days.day_of_week < 5) & ~closed


def next_sessions(day: pd.Timestamp, n: int) -> pd.DatetimeIndex:
    """The `n` sessions after a day, as far as they are known ahead."""
    days = pd.date_range(day + pd.Timedelta(days=1), periods=2 * n + 16)
    return days[is_session(days)][:n]


def count_sessions(after: pd.Timestamp, until: pd.Timestamp) -> int:
    """How many sessions lie after a day, up to another one."""
    return int(is_session(pd.date_range(after.normalize() + pd.Timedelta(days=1), until.normalize())).sum())


def trading_days(prices: pd.DataFrame) -> pd.DatetimeIndex:
    """The market's own calendar: every day on which any symbol of a price table has a row, in order."""
    return pd.DatetimeIndex(np.sort(prices["date"].unique()), name="date")


def to_day(text: str | pd.Timestamp) -> pd.Timestamp:
    """The day that a text such as "2026-11-20" names. Raises DataError for anything else."""
    try:
        day = text if isinstance(text, dt.date) else dt.datetime.strptime(text, "%Y-%m-%d")
        return pd.Timestamp(day).as_unit("ns").normalize()
    except (ValueError, TypeError):  # pandas knows the years 1678 to 2261
        raise DataError(f"{shorten(text)} is not a date: write it as 2026-11-20.") from None


def up_to(table: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The rows up to and including a day. Raises DataError when there are none."""
    kept = table[table["date"] <= day]
    if kept.empty:
        raise DataError(f"there are no prices up to {day:%Y-%m-%d}; the first are of {table['date'].min():%Y-%m-%d}.")
    return kept


# ---------------------------------------------------------------------------------------------- a synthetic market
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
