"""The market's rules: who is traded, price bands, ticks, lots, settlement, costs. One dated table.

Source: the public rules of HOSE, HNX and UPCOM as they stood in November 2026. A row whose source is "memory" could
not be looked up and is to be verified; bands before 2016 are among them, so backtests start in 2016.
Bands and ticks apply to raw prices; most sources give adjusted ones. A stock changes its exchange over the years.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from vnq_colab.errors import ConfigError

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
TODAYS_LOT = 100  # [shares] on all three exchanges; `lot` knows the earlier ones
HOLIDAYS = ("01-01", "04-30", "05-01", "09-02")  # known years ahead; the exchange announces others and days in lieu
TET = pd.to_datetime(["2017-01-26", "2018-02-14", "2019-02-04", "2020-01-24", "2021-02-11", "2022-01-31", "2023-01-20",
                      "2024-02-08", "2025-01-27", "2026-02-16", "2027-02-04", "2028-01-24", "2029-02-11"])  # first of 7
LONG_HALT_SESSIONS = 25  # memory: after so many sessions without a trade the first day's band applies again


class Rule(NamedTuple):
    """One rule of one exchange, in force from a day until the next row of the same rule and exchange."""

    rule: str
    exchange: str
    since: str
    value: float
    unit: str
    source: str


_NOW = "rules of November 2026"
_TICK = _NOW + "; not dated in our sources"
_HOSE_TICK = _TICK + "; before 2016-09-12, from memory, 100 below 50,000, 500 below 100,000, else 1,000 VND"
HOSE_TICKS = ((0, 10.0), (10_000, 50.0), (50_000, 100.0))  # (from this raw price, step) [VND]
RULES = (
    Rule("band", "HOSE", "2000-07-28", 0.05, "of the reference price", "memory"),
    Rule("band", "HOSE", "2013-01-15", 0.07, "of the reference price", _NOW + "; the date from memory"),
    Rule("band", "HNX", "2005-03-08", 0.07, "of the reference price", "memory"),
    Rule("band", "HNX", "2013-01-15", 0.10, "of the reference price", _NOW + "; the date from memory"),
    Rule("band", "UPCOM", "2009-06-24", 0.10, "of the reference price", "memory"),
    Rule("band", "UPCOM", "2015-07-01", 0.15, "of the reference price", _NOW + "; the date from memory"),
    Rule("first-day band", "HOSE", "2000-07-28", 0.20, "of the reference price", _NOW + "; earlier years from memory"),
    Rule("first-day band", "HNX", "2005-03-08", 0.30, "of the reference price", _NOW + "; earlier years from memory"),
    Rule("first-day band", "UPCOM", "2009-06-24", 0.40, "of the reference price", _NOW + "; earlier years from memory"),
    Rule("lot", "HOSE", "2000-07-28", 10, "shares", "memory"),
    Rule("lot", "HOSE", "2021-01-01", 100, "shares", _NOW + "; the date from memory"),
    Rule("lot", "HNX", "2005-03-08", 100, "shares", _NOW),
    Rule("lot", "UPCOM", "2009-06-24", 100, "shares", _NOW),
    *(Rule(f"tick from {price:,} VND", "HOSE", "2000-07-28", step, "VND", _HOSE_TICK) for price, step in HOSE_TICKS),
    Rule("tick from 0 VND", "HNX", "2005-03-08", 100, "VND", _TICK),
    Rule("tick from 0 VND", "UPCOM", "2009-06-24", 100, "VND", _TICK),
    *(rule for name in EXCHANGES for rule in (
        # Trading days after the purchase at whose OPEN the shares can first be sold in daily data. Since 2022-08-29
        # they arrive at 13:00 of T+2: a sale at the close of T+2, or at the open of T+3.
        Rule("sellable at the open", name, "2000-07-28", 4, "trading days", "T+3 until 2015-12-31"),
        Rule("sellable at the open", name, "2016-01-01", 3, "trading days", "T+2, end of day, from 2016-01-01"),
        Rule("sellable at the open", name, "2022-08-29", 3, "trading days", "T+2 from 13:00, from 2022-08-29"),
        Rule("sellable at the close", name, "2000-07-28", 4, "trading days", "T+3 until 2015-12-31"),
        Rule("sellable at the close", name, "2016-01-01", 3, "trading days", "T+2, end of day, from 2016-01-01"),
        Rule("sellable at the close", name, "2022-08-29", 2, "trading days", "T+2 from 13:00, from 2022-08-29"),
        Rule("broker's fee", name, "2000-07-28", 0.0015, "of each trade", "about what brokers take in 2026"),
        Rule("tax on sales", name, "2000-07-28", 0.001, "of the sale", _NOW),
        Rule("tax on cash dividends", name, "2000-07-28", 0.05, "of the dividend", _NOW),
    )),
)


@dataclass(frozen=True, kw_only=True)
class MarketRules:
    """What the exchange and the broker demand."""

    fee: float = 0.0015  # [fraction of the trade] broker, each side
    sale_tax: float = 0.001  # [fraction of the sale]
    slippage: float = 0.002  # [fraction of the price] paid against the trader, each side
    lot: int = TODAYS_LOT  # [shares] another than today's holds on every exchange and day

    def __post_init__(self) -> None:
        for name in ("fee", "sale_tax", "slippage"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must lie in [0, 1), a fraction of the price.")
        if self.lot < 1:
            raise ConfigError(f"lot = {self.lot}: must be at least 1 [shares].")

    def band(self, exchange: str | np.ndarray, days: pd.DatetimeIndex, *,
             first_day: bool | np.ndarray = False) -> np.ndarray:
        """`[days]`: daily price band as a fraction of the reference price; an unknown exchange counts as HOSE.

        `exchange` is one for all days or one for each. `first_day` marks days under the wider band: the first one of a
        stock on its exchange, and the first after `LONG_HALT_SESSIONS` without a trade. The reference is the close
        before; on UPCOM the average price of the day before (memory).
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
        return lot(exchange, days) if self.lot == TODAYS_LOT else np.full(len(days), self.lot)


VN_RULES = MarketRules()


def in_force(rule: str, exchange: str | np.ndarray, days: pd.DatetimeIndex) -> np.ndarray:
    """`[days]`: the value of a dated rule, such as "band", on each of these days.

    `exchange` is one for all days or one for each; an unknown one counts as HOSE. Days before the first date of a rule
    take its first value.
    """
    place = pd.Index(EXCHANGES).get_indexer([exchange] if isinstance(exchange, str) else exchange)
    place = np.maximum(place, 0)  # HOSE stands first
    value = np.full(len(days), np.nan)
    for row in RULES:
        if row.rule == rule:
            here = place == EXCHANGES.index(row.exchange)
            value = np.where(here & (np.isnan(value) | (days >= pd.Timestamp(row.since))), row.value, value)
    return value


def lot(exchange: str | np.ndarray, days: pd.DatetimeIndex) -> np.ndarray:
    """`[days]` int: the smallest number of shares of an order [shares]."""
    return in_force("lot", exchange, days).astype(int)


def tick(price: np.ndarray, exchange: str) -> np.ndarray:
    """`[...] -> [...]`: the price step [VND] at a raw price. HOSE 10, 50, 100 by level; HNX and UPCOM 100."""
    if exchange == "HOSE":
        levels, steps = np.array(HOSE_TICKS).T
        return steps[np.searchsorted(levels, price, side="right") - 1]
    return np.full(np.shape(price), 100.0)


def price_limits(reference: np.ndarray, band: np.ndarray, exchange: str) -> tuple[np.ndarray, np.ndarray]:
    """`[...] -> [...], [...]`: ceiling and floor [VND] of a raw reference price; NaN where that is not known.

    The band's ends, rounded to a tick into the band, and at least one tick from the reference (memory).
    """
    high, low = reference * (1 + band), reference * (1 - band)
    step, step_low = tick(high, exchange), tick(low, exchange)
    ceiling = np.maximum(np.floor(high / step + 1e-9) * step, reference + tick(reference, exchange))
    floor = np.minimum(np.ceil(low / step_low - 1e-9) * step_low, reference - tick(reference, exchange))
    return ceiling, floor


def is_session(days: pd.DatetimeIndex) -> np.ndarray:
    """`[days]` bool: a weekday that is no fixed holiday of Vietnam and not in the week of Tet."""
    in_tet = np.zeros(len(days), dtype=bool)
    for first in TET:
        in_tet |= np.asarray((days >= first) & (days < first + pd.Timedelta(days=7)))
    return np.asarray(days.day_of_week < 5) & ~np.isin(days.strftime("%m-%d"), HOLIDAYS) & ~in_tet


def next_sessions(day: pd.Timestamp, n: int) -> pd.DatetimeIndex:
    """The `n` sessions after a day, as far as they are known ahead."""
    days = pd.date_range(day + pd.Timedelta(days=1), periods=2 * n + 16)
    return days[is_session(days)][:n]


def trading_days(prices: pd.DataFrame) -> pd.DatetimeIndex:
    """The market's own calendar: every day on which any symbol of a price table has a row, in order."""
    return pd.DatetimeIndex(np.sort(prices["date"].unique()), name="date")
