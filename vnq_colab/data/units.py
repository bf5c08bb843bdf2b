"""Prices of files as they were read, brought to VND per share and adjusted for splits and dividends."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import pandas as pd

from vnq_colab.data.cells import PRICES
from vnq_colab.data.formats import YAHOO, PriceFile
from vnq_colab.errors import ConfigError, DataError, did_you_mean

KVND_BELOW, VND_FROM = 100, 1000  # a median close below is in thousand VND, one from here on in VND
Unit = str | Mapping[str, str] | None


def in_vnd(files: list[PriceFile], unit: Unit) -> list[PriceFile]:
    """The files in VND; `unit` as in `read_prices`."""
    of_all, of_file = (unit, {}) if isinstance(unit, str) else (None, dict(unit or {}))
    for given in [of_all, *of_file.values()]:
        if given not in (None, "VND", "kVND"):
            raise ConfigError(f"unit = {given!r}: must be 'VND' or 'kVND' (thousand VND).")
    names = [file.facts.file for file in files]
    for name in set(of_file) - {*names, *(PurePath(name).name for name in names)}:
        raise ConfigError(f"unit names {name!r}, which is no file that was read.{did_you_mean(name, names)}")
    converted = []
    for file, name in zip(files, names, strict=True):
        given = of_file.get(name, of_file.get(PurePath(name).name))
        found = given or unit_of(file.prices, file.path, file.provider.unit, of_all, name)
        if found == "kVND":
            prices = {column: (file.prices[column] * 1000).round(6) for column in (*PRICES, "raw_close")
                      if column in file.prices}
            file = replace(file, prices=file.prices.assign(**prices))
        if len(file.prices):
            file.facts = replace(file.facts, unit="thousand VND" if found == "kVND" else "VND")
        converted.append(file)
    return converted


def unit_of(prices: pd.DataFrame, path: str, usual: str, given: str | None = None, name: str = "FILE") -> str:
    """ "VND" or "kVND", from the level of the prices: of each stock the median close counts.

    Real ones lie between 500 and 300,000 VND, rarely beyond. Where the level fits both units, the `given` one counts,
    else the provider's `usual` one. Raises DataError when neither is known, the given one does not fit, or one file
    holds both.
    """
    levels = prices["close"].where(prices["close"] > 0).groupby(prices["symbol"]).median().dropna()
    if levels.empty:
        return "VND"
    level = float(levels.median())
    cheap, dear = levels[levels < KVND_BELOW], levels[levels > 2 * VND_FROM]  # of which one of the units cannot be
    if KVND_BELOW <= level < VND_FROM:
        found = "kVND" if len(cheap) else "VND" if len(dear) else given or usual
    else:
        found = "kVND" if level < KVND_BELOW else "VND"
    strange = dear if found == "kVND" else cheap
    if not found:
        flaw = f"the median close is {level:,.1f}, which can be VND or thousand VND"
    elif given and found != given:
        flaw = f"--unit {given} is for all files, but this one is clearly in {found} (the median close is {level:,.1f})"
    elif len(strange):
        flaw = (f"two units in one file: {strange.index[0]} closes at {strange.iloc[0]:,.2f} in the median, the other "
                f"stocks at {level:,.2f}")
    else:
        return found
    insisted = given or "kVND"
    raise DataError(f"{path}: {flaw}. Name the file and its unit, VND or kVND: --unit {name}={insisted} (in Python: "
                    f"unit={{{name!r}: {insisted!r}}}).")


def adjusted(file: PriceFile) -> PriceFile:
    """Raw prices beside an adjusted close become adjusted prices; the raw close is kept."""
    if "adj_close" not in file.prices:
        return file
    rows = file.prices.sort_values(["symbol", "date"], kind="stable", ignore_index=True)
    factors = [adjustment_factors(stock["close"].to_numpy(), stock["adj_close"].to_numpy())
               for _, stock in rows.groupby("symbol", sort=False)]
    factor = np.concatenate(factors)
    changes = np.concatenate([np.abs(np.diff(np.log(one))) > 0.001 for one in factors])
    if not 0.005 < np.median(factor) < 1.01 or (len(changes) > 5 and changes.mean() > 0.3):
        raise DataError(f"{file.path}: the adjusted close is no steady fraction of the close (in the median "
                        f"{np.median(factor):.2g}): the columns seem to be swapped. Put the right headers above them.")
    raw = rows["close"]
    rows = rows.assign(**{name: rows[name] * factor for name in PRICES}).drop(columns="adj_close")
    is_raw = file.provider != YAHOO and "raw_close" not in rows  # Yahoo's close is adjusted for splits
    return replace(file, prices=rows.assign(raw_close=raw) if is_raw else rows)


def adjustment_factors(close: np.ndarray, adjusted: np.ndarray) -> np.ndarray:
    """`[days], [days] -> [days]`: the factor between raw and adjusted prices of one symbol, undone of its rounding.

    The factor is constant between two corporate actions, and each day confines it to (adjusted ± half a rounding step)
    / close. A new constant begins on the day whose interval leaves nothing of the earlier ones. It is found from all
    its days in the file, so new rows can change the last digits of old adjusted prices, by the size of the rounding.
    """
    known = (close > 0) & (adjusted > 0)
    if not known.any():
        return np.ones(len(close))
    level = np.median(adjusted[known])
    steps = [step for step in 100.0 / 10 ** np.arange(8) if step < level / 25 and np.mean(
        np.abs(adjusted[known] / step - np.round(adjusted[known] / step)) < 1e-6) > 0.98]
    half = (steps or [1e-5])[0] / 2 * (1 + 1e-9)  # of the file's rounding step
    low, high = (adjusted - half) / np.where(known, close, 1), (adjusted + half) / np.where(known, close, 1)
    factor = np.full(len(close), np.nan)
    start, least, most = 0, 0.0, np.inf
    days = [*np.flatnonzero(known).tolist(), None]
    for day in days:
        if day is not None and max(least, low[day]) <= min(most, high[day]):
            least, most = max(least, low[day]), min(most, high[day])
            continue
        same = np.median(np.abs(adjusted[start:day] - close[start:day])) == 0  # an odd day does not shift the rest
        factor[start:day] = 1.0 if same else (least + most) / 2
        if day is not None:
            start, least, most = day, low[day], high[day]
    return factor
