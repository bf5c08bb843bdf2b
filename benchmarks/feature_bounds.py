"""How far each feature reaches on real prices, and how much of it its bounds clip.

    python benchmarks/feature_bounds.py [PRICES] [INDEX]     # default: vn_daily and vn_index.parquet in ../shared/data

Prints a table in Markdown: percentiles of the unclipped values after the warm-up, the bounds, the share clipped; then
the ten pairs of features that say most nearly the same.
"""

import sys
from pathlib import Path

import numpy as np

from vnq_colab.data.features import FEATURES
from vnq_colab.data.history import MarketSeries
from vnq_colab.data.prices import load_index, load_prices

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PERCENTILES = (0, 0.01, 0.1, 50, 99.9, 99.99, 100)


def main() -> None:
    given = [Path(word) for word in sys.argv[1:]]
    prices = given[0] if given else SHARED / "vn_daily.parquet"
    index = given[1] if len(given) > 1 else SHARED / "vn_index.parquet"
    market = MarketSeries(load_prices(prices)[0], load_index(index) if index.exists() else None)
    clipped = np.empty((len(market.day), len(FEATURES)), dtype="float32")
    print("| feature |", " | ".join(f"{p} %" for p in PERCENTILES), "| low | high | clipped [%] |")
    print("|---" * (len(PERCENTILES) + 4) + "|")
    for place, item in enumerate(FEATURES.values()):
        with np.errstate(invalid="ignore", divide="ignore"):
            values = market.across(item.compute)
        clipped[:, place] = np.clip(np.nan_to_num(values), item.low, item.high)
        values = values[np.isfinite(values)]
        reach = " | ".join(f"{value:.3g}" for value in np.percentile(values, PERCENTILES))
        outside = 100 * np.mean((values < item.low - 1e-9) | (values > item.high + 1e-9))  # not what is rounding
        print(f"| {item.name} | {reach} | {item.low:g} | {item.high:g} | {outside:.4f} |")
    correlation = np.corrcoef(clipped.T)
    one, other = np.triu_indices(len(FEATURES), 1)
    names = list(FEATURES)
    print()
    for place in np.argsort(-np.abs(correlation[one, other]))[:10]:
        print(f"{correlation[one[place], other[place]]:+.3f}  {names[one[place]]} and {names[other[place]]}")


if __name__ == "__main__":
    main()
