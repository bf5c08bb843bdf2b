"""Cleaning: every disease of a price table by name, what was done about it, and how often. Nothing in silence."""

import numpy as np
import pandas as pd

from vnq_colab.data.findings import CleaningReport, Finding
from vnq_colab.data.market import EXCHANGES
from vnq_colab.errors import ConfigError, DataError

PRICES = ("open", "high", "low", "close")
LEAST_TYPICAL_CLOSE = 1_000  # [VND] chosen: the median of real prices is about 15,000, in thousand VND about 15
ON_BAD_ROWS = ("raise", "drop")


def clean_prices(raw: pd.DataFrame, *, on_bad_rows: str = "raise", source: str = "the price table",
                 ) -> tuple[pd.DataFrame, CleaningReport]:
    """A price table without bad rows, sorted by symbol and day, and the report.

    A row is bad when a price is missing, zero or negative, its volume is missing or negative, high < low, open or close
    lie outside [low, high], or its symbol and day stand in another row as well. "raise" names the first bad row in a
    DataError; "drop" leaves bad rows out (of duplicates the last stays). Days without trades are kept and counted.
    """
    if on_bad_rows not in ON_BAD_ROWS:
        raise ConfigError(f"on_bad_rows = {on_bad_rows!r}: must be 'raise' or 'drop'.")
    order = raw.sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    low, high, volume = (order[name].to_numpy("float64") for name in ("low", "high", "volume"))
    prices = order[list(PRICES)].to_numpy("float64")  # [rows, 4]
    body = order[["open", "close"]].to_numpy("float64")
    body_outside = (body.max(axis=1) > high) | (body.min(axis=1) < low)
    diseases = {
        "price missing": ~np.isfinite(prices).all(axis=1),
        "price zero or negative": (prices <= 0).any(axis=1),
        "price beyond 1e9": (prices > 1e9).any(axis=1),
        "volume missing or negative": ~(volume >= 0),
        "volume beyond 1e15": volume > 1e15,
        "high < low": high < low,
        "open or close outside [low, high]": body_outside & (high >= low),
    }
    sound = order[~np.logical_or.reduce(list(diseases.values()))]
    twice = sound.index[sound.duplicated(["symbol", "date"], keep="last")]  # of two sound rows the later one stays
    diseases["duplicate row for a day"] = np.isin(order.index, twice)
    bad = np.zeros(len(order), dtype=bool)
    findings = []
    for disease, rows in diseases.items():
        new = rows & ~bad
        bad |= rows
        if not new.any():
            continue
        example = _in_words(order.iloc[int(new.argmax())], disease)
        if on_bad_rows == "raise":
            more = f" (and {int(new.sum()) - 1} more rows)" if new.sum() > 1 else ""
            raise DataError(f"{example}{more}. Repair {source}, or leave such rows out with --on-bad-rows drop "
                            "(in Python: on_bad_rows=\"drop\").")
        findings.append(Finding(disease, "dropped", int(new.sum()), example))
    clean = order[~bad].reset_index(drop=True)
    if clean.empty:
        raise DataError(f"{source}: no usable row is left of {len(raw):,}. Look at the file: is it a price table?")
    clean["volume"] = clean["volume"].round().astype("int64")
    if "exchange" in clean.columns:
        named = clean["exchange"].astype(str).str.strip().str.upper().replace("HSX", "HOSE")
        unknown = ~named.isin(EXCHANGES)
        clean["exchange"] = named.where(~unknown, "HOSE")
        if unknown.any():
            row = clean[unknown].iloc[0]
            findings.append(Finding("unknown exchange", "taken as HOSE", int(unknown.sum()),
                                    f"{row['symbol']} {row['date']:%Y-%m-%d}"))
    typical = float(clean["close"].median())
    if typical < LEAST_TYPICAL_CLOSE:
        raise DataError(f"{source}: the median close is {typical:,.1f}, which looks like thousand VND. Multiply the "
                        "prices by 1,000: they are read as VND per share.")
    quiet = int((clean["volume"] == 0).sum())
    if quiet:
        example = _in_words(clean[clean["volume"] == 0].iloc[0], "volume 0")
        findings.append(Finding("day without trades", "kept", quiet, example))
    report = CleaningReport(source, len(raw), len(clean), int(clean["symbol"].nunique()),
                            f"{clean['date'].min():%Y-%m-%d}", f"{clean['date'].max():%Y-%m-%d}", findings)
    return clean, report


def _in_words(row: pd.Series, disease: str) -> str:
    """ "HPG 2021-03-15: high 41,200 < low 41,900 [VND]"."""
    where = f"{row['symbol']} {row['date']:%Y-%m-%d}"
    if disease == "high < low":
        return f"{where}: high {row['high']:,.0f} < low {row['low']:,.0f} [VND]"
    if disease.startswith(("duplicate", "volume", "day")):
        return f"{where}: {disease}"
    found = ", ".join(f"{name} {row[name]:,.0f}" for name in PRICES)
    return f"{where}: {disease} ({found} [VND])"
