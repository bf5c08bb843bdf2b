"""The unit of prices: VND or thousand VND, told from their level, and from what other files say of the same stocks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import numpy as np
import pandas as pd

from vnq_colab.data.columns import PRICES
from vnq_colab.data.formats import Part
from vnq_colab.errors import ConfigError, DataError, did_you_mean

UNITS = {"VND": 1.0, "kVND": 1000.0}
NEARBY_DAYS = 30  # two files' prices of one stock are compared over at most this distance
Unit = str | Mapping[str, str] | None


def in_vnd(parts: list[Part], unit: Unit) -> list[Part]:
    """The files in VND. Each file's prices tell its unit, and files that hold the same stock must agree."""
    told = []
    names = [part.facts.file for part in parts]
    for name in [unit] if isinstance(unit, str) else (unit or {}).values():
        if name not in UNITS:
            raise ConfigError(f"unit = {name!r}: must be 'VND' or 'kVND' (thousand VND).")
    by_file = {} if isinstance(unit, str) else dict(unit or {})
    for name in by_file:
        if name not in names and not any(PurePath(known).name == name for known in names):
            raise ConfigError(f"unit names {name!r}, which is no file that was read.{did_you_mean(name, names)}")
    for part in parts:
        name = part.facts.file
        given = unit if isinstance(unit, str) else by_file.get(name, by_file.get(PurePath(name).name))
        found = (None, False) if name in by_file or PurePath(name).name in by_file else unit_of(part.prices, part.path)
        if given and found[1] and found[0] != given and len(part.prices):
            raise DataError(f"{part.path}: --unit {given} is for all files, but this one is clearly in {found[0]} (the "
                            f"median close is {part.prices['close'].median():,.1f}). {_settle(part, given)}")
        told.append((given, True) if given else found)
    units, sure = [name for name, _ in told], [is_sure for _, is_sure in told]
    _agree(parts, units, sure)
    result = []
    for part, name in zip(parts, units, strict=True):
        prices = part.prices
        if name == "kVND":
            scaled = [column for column in (*PRICES, "raw_close") if column in prices.columns]
            prices = prices.assign(**{column: (prices[column] * 1000).round(6) for column in scaled})
        facts = replace(part.facts, unit="thousand VND" if name == "kVND" else name) if len(prices) else part.facts
        result.append(replace(part, prices=prices, facts=facts))
    return result


def unit_of(prices: pd.DataFrame, path: str) -> tuple[str | None, bool]:
    """("VND", "kVND" or None where it cannot be told; whether that is beyond doubt), from the level of the prices.

    Of each stock the median close counts: real ones lie between 500 and 300,000 VND, rarely beyond; between 100 and
    1,000 decimals decide. Raises DataError when one file holds stocks in both units.
    """
    close = prices["close"].where(prices["close"] > 0)
    levels = close.groupby(prices["symbol"]).median().dropna()
    if levels.empty:
        return "VND", False
    level = float(levels.median())
    if level < 100 or level >= 1000:
        unit, sure = ("kVND", level < 70) if level < 100 else ("VND", level >= 1500)
        strange = levels[levels > 2000] if unit == "kVND" else levels[levels < 100]
        if len(strange):
            raise DataError(f"{path}: {strange.index[0]} closes at {strange.iloc[0]:,.2f} in the median, the "
                            f"other stocks at {level:,.2f}: two units in one file. Write all in VND, or insist with "
                            "--unit FILE=UNIT.")
        return unit, sure
    known = close.dropna().to_numpy()
    in_cents = bool(np.isclose(known * 100, np.round(known * 100), atol=1e-6).all())
    if in_cents and (known % 1 != 0).mean() > 0.05:
        return "kVND", False  # 242.5: an expensive stock; in VND there is no such price
    if len(known) >= 10 and (known % 10 == 0).all():
        return "VND", False  # 300, 310: a very cheap one; no expensive stock is always at whole ten thousands
    return None, False


def _agree(parts: list[Part], units: list[str | None], sure: list[bool]) -> None:
    """Compares the closes that two files give for one stock on near days: settles a doubtful unit, or raises."""
    steps = _steps(parts)
    for _ in parts:  # from a file beyond doubt to its neighbours, and on to theirs
        for known, other, step in steps:
            level = step - np.log10(UNITS[units[known] or "VND"])  # the other file's numbers in powers of ten of VND
            if sure[known] and not sure[other] and min(abs(level), abs(level + 3)) < 0.5:
                units[other], sure[other] = ("kVND" if level < -1.5 else "VND"), True
    for part, unit in zip(parts, units, strict=True):
        if unit is None:
            raise DataError(f"{part.path}: the median close is {part.prices['close'].median():,.1f}, which can be VND "
                            f"or thousand VND. {_settle(part)}")
    for first, second, step in steps:
        step += np.log10(UNITS[units[second]] / UNITS[units[first]])
        if 2.5 < step < 3.5:
            raise DataError(f"{parts[second].path}: its prices are about 1,000 times those of {parts[first].path} for "
                            f"the same stocks. {_settle(parts[second])}")


def _steps(parts: list[Part]) -> list[tuple[int, int, float]]:
    """(file, other file, log10 of the other's close over its close, median over near days of the same stocks)."""
    seen = pd.Series([symbol for part in parts for symbol in part.prices["symbol"].unique()], dtype=object)
    several = set(seen[seen.duplicated()])
    if not several:
        return []
    rows = pd.concat([part.prices.loc[part.prices["symbol"].isin(several) & (part.prices["close"] > 0),
                                      ["symbol", "date", "close"]].assign(file=number)
                      for number, part in enumerate(parts)], ignore_index=True)
    rows = rows.sort_values(["symbol", "date", "file"], ignore_index=True)
    after = rows.shift(-1)
    near = (rows["symbol"] == after["symbol"]) & (rows["file"] != after["file"]) & (
        after["date"] - rows["date"] <= pd.Timedelta(days=NEARBY_DAYS))
    pairs = pd.DataFrame({"file": rows["file"], "other": after["file"],
                          "step": np.log10(after["close"] / rows["close"])})[near]
    medians = pairs.groupby(["file", "other"])["step"].median()
    return [way for (file, other), step in medians.items()
            for way in ((int(file), int(other), step), (int(other), int(file), -step))]


def _settle(part: Part, unit: str = "kVND") -> str:
    name = part.facts.file
    return f"Name the file and its unit, VND or kVND: --unit {name}={unit} (in Python: unit={{{name!r}: {unit!r}}})."
