"""The market's rules: who is traded, price bands, ticks, lots, settlement, costs. One dated table.

Source: the public rules of HOSE, HNX and UPCOM as they stood in November 2026. What is from memory could not be looked
up and is to be verified; bands before 2016 are among it. Bands and ticks apply to raw prices.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.settings import BELOW_ONE, COUNT, Settings

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

    def sellable_after(self, days: pd.DatetimeIndex, at: str = "open") -> np.ndarray:
        """`[days]` int: a purchase at this day's open can be sold from that many trading days later on, `at` which."""
        return in_force(f"sellable at the {at}", "HOSE", days).astype(int)

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
