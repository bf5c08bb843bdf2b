"""Where two sources hold the same stock: how far do its daily returns agree?

    python benchmarks/source_agreement.py ../shared/data        each folder, zip, parquet and CSV in it is one source

Returns are compared on days that both sources have, with the day before. A difference counts when it is beyond what the
rounding of the two sources' prices explains: each close may be off by half its source's price step.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from vnq_colab.data.prices import read_prices
from vnq_colab.errors import DataError

STEPS = 10.0 ** np.arange(3, -5, -1)  # [VND]


def source(path: Path) -> pd.DataFrame:
    """Rows (symbol, date, close [VND], step [VND]); the step is the finest of the symbol's closes.

    Where a source has raw prices, too, its adjusted rows are left out: the raw ones are compared.
    """
    rows = read_prices(path).prices
    close = rows["raw_close"].where(rows["unadjusted"]) if "unadjusted" in rows else rows["close"]
    rows = rows.assign(close=close)[close > 0]
    steps = {symbol: step_of(closes.to_numpy()) for symbol, closes in rows.groupby("symbol")["close"]}
    if "raw_close" in rows and "unadjusted" not in rows:  # recovered from a rounded adjusted close, in 100 VND
        steps = dict.fromkeys(steps, 100.0)
    rows = rows.drop_duplicates(["symbol", "date"], keep="last").sort_values(["symbol", "date"], ignore_index=True)
    return rows.assign(step=rows["symbol"].map(steps))[["symbol", "date", "close", "step"]]


def step_of(closes: np.ndarray) -> float:
    """The largest power of ten [VND] of which 99 % of the closes are multiples; 0.0001 where there is none."""
    def is_multiple(step: float) -> bool:
        return np.mean(np.abs(closes / step - np.round(closes / step)) < 1e-6) > 0.99

    return next(filter(is_multiple, STEPS), STEPS[-1])


def compared(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One row per stock and common day with the day before common, too: difference and what rounding explains."""
    both = first.merge(second, on=["symbol", "date"], suffixes=("", "_2")).sort_values(["symbol", "date"])
    before = both.groupby("symbol").shift()
    both["difference"] = np.log(both["close"] / before["close"]) - np.log(both["close_2"] / before["close_2"])
    both["allowed"] = sum(step / 2 * (1 / close + 1 / before[name]) for name, close, step in (
        ("close", both["close"], both["step"]), ("close_2", both["close_2"], both["step_2"])))
    both["allowed"] = -np.log1p(-np.minimum(both["allowed"], 0.9)) + 1e-9
    both = both.dropna(subset="difference")
    by_symbol = both.groupby("symbol")["difference"]
    for neighbour in (by_symbol.shift(), by_symbol.shift(-1)):  # one odd close moves two returns, in opposite ways
        rest = (both["difference"] + neighbour).abs()
        undone = rest <= np.maximum(2 * both["allowed"], 0.1 * both["difference"].abs())
        both["one close"] = both.get("one close", False) | undone
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", type=int, default=0, help="print the N largest disagreements of each pair")
    options = parser.parse_args()
    sources = {}
    for path in sorted(options.folder.iterdir()):
        try:
            if path.is_dir() or path.suffix.lower() in (".parquet", ".csv", ".zip"):
                sources[path.stem if path.stem not in sources else path.name] = source(path)
        except DataError as error:
            print(f"left out: {error}")
    sources = {name: rows for name, rows in sources.items() if len(rows)}
    table, largest = [], []
    for one, other in itertools.combinations(sources, 2):
        both = compared(sources[one], sources[other])
        common = len(sources[one].merge(sources[other], on=["symbol", "date"]))
        off = both["difference"].abs() > both["allowed"]
        size = both["difference"].abs()
        table.append({
            "sources": f"{one} / {other}", "symbols": both["symbol"].nunique(), "common days": common,
            "returns": len(both), "beyond rounding [%]": 100 * off.mean(),
            "of these one close [%]": 100 * both.loc[off, "one close"].mean(),
            "over 0.01 [%]": 100 * (size > 0.01).mean(), "median [log return]": size.median(),
            "99 % [log return]": size.quantile(0.99)})
        largest.append((f"{one} / {other}", both[off].assign(size=size[off]).nlargest(options.show, "size")))
    print(pd.DataFrame(table).to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    for name, rows in largest if options.show else ():
        print(f"\n{name}\n{rows.to_string(index=False)}")


if __name__ == "__main__":
    main()
