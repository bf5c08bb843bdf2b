"""The market's rules: who is traded, price bands, ticks, lots, settlement, costs. One dated table each.

Sources: HOSE, HNX and UPCOM trading regulations as of November 2026; rows marked "memory" are to be verified.
"""

from dataclasses import dataclass

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

# (exchange, in force from, daily band as a fraction of the reference price)
BANDS = (
    ("HOSE", "2000-07-28", 0.05),  # memory
    ("HOSE", "2013-01-15", 0.07),
    ("HNX", "2005-03-08", 0.07),  # memory
    ("HNX", "2013-01-15", 0.10),
    ("UPCOM", "2009-06-24", 0.10),  # memory
    ("UPCOM", "2015-07-01", 0.15),
)

# (in force from, trading days after the purchase at whose OPEN the shares can first be sold in daily data)
# Since 2022-08-29 shares arrive at 13:00 of T+2: a sale at the close of T+2 or at the open of T+3.
SETTLEMENT_OPENS = (("2000-07-28", 4), ("2016-01-01", 3), ("2022-08-29", 3))


@dataclass(frozen=True, kw_only=True)
class MarketRules:
    """What the exchange and the broker demand."""

    fee: float = 0.0015  # [fraction of the trade] broker, each side
    sale_tax: float = 0.001  # [fraction of the sale]
    slippage: float = 0.002  # [fraction of the price] paid against the trader, each side
    lot: int = 100  # [shares]

    def __post_init__(self) -> None:
        for name in ("fee", "sale_tax", "slippage"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must lie in [0, 1), a fraction of the price.")
        if self.lot < 1:
            raise ConfigError(f"lot = {self.lot}: must be at least 1 [shares].")

    def band(self, exchange: str, days: pd.DatetimeIndex) -> np.ndarray:
        """`[days]`: daily price band as a fraction of the reference price; an unknown exchange counts as HOSE."""
        exchange = exchange if exchange in EXCHANGES else "HOSE"
        width = np.full(len(days), np.nan)
        for name, since, value in BANDS:
            if name == exchange:
                width = np.where(np.isnan(width) | (days >= pd.Timestamp(since)), value, width)
        return width

    def sellable_after(self, days: pd.DatetimeIndex) -> np.ndarray:
        """`[days]` int: a purchase at the open of this day can be sold from the open that many trading days later."""
        wait = np.full(len(days), SETTLEMENT_OPENS[0][1])
        for since, value in SETTLEMENT_OPENS:
            wait = np.where(days >= pd.Timestamp(since), value, wait)
        return wait


VN_RULES = MarketRules()


def tick(price: np.ndarray, exchange: str) -> np.ndarray:
    """`[...] -> [...]`: the price step [VND] at a raw price. HOSE 10, 50, 100 by level; HNX and UPCOM 100."""
    if exchange == "HOSE":
        return np.where(price < 10_000, 10.0, np.where(price < 50_000, 50.0, 100.0))
    return np.full(np.shape(price), 100.0)
