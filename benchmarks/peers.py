"""Microsoft's Qlib as it comes, beside our forecasts: the same prices, folds, stocks and days.

    python benchmarks/peers.py --data ../shared/data/vn_daily.parquet --symbols ../shared/data/symbols_102.txt \\
        --forecast OURS.parquet

OURS.parquet holds `family, symbol, date, score`: a higher score says a better stock of its day. Qlib 0.9.7 gets
Alpha158, the LightGBM settings of its own benchmark, and as label the 5-day return z-scored within the day; it learns
from all stocks, anew for each year, in an environment of its own that is made the first time (network, 1.4 GB, Python
3.8 to 3.12). Its forecasts are kept beside that and taken again for the same prices, years and threads.
Judged are the rows of the named symbols that all forecast and that could be bought at the next open: for each year and
pair of years the mean rank correlation of a day with the 5-day return from close to close (`cc`) and from the next open
to the open five days later (`oo`), and its t. `seconds` are those of all years. Expect of Qlib cc 0.096, oo 0.077 for
2018 to June 2025, after 7 minutes on one core and two for its environment, with 2.4 GB of memory.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np
import pandas as pd
from machine import keep

PACKAGES = "pyqlib==0.9.7", "pandas<3", "numpy<2.3"
LIGHTGBM = {  # Source: Qlib, examples/benchmarks/LightGBM/workflow_config_lightgbm_Alpha158.yaml
    "loss": "mse", "colsample_bytree": 0.8879, "learning_rate": 0.2, "subsample": 0.8789, "lambda_l1": 205.6999,
    "lambda_l2": 580.9768, "max_depth": 8, "num_leaves": 210}
FIELDS = "open", "high", "low", "close", "volume"  # no vwap in the prices: one of the 158 features stays unknown
HORIZON, PURGE, VALID = 5, 7, 250  # [days] of the return; left out at each border; before each test year
LAGS, FEWEST_SYMBOLS = 10, 20  # of the HAC variance [days]; a day with fewer is not judged
BANDS = {"HOSE": 0.07, "HNX": 0.10, "UPCOM": 0.15}  # the furthest a price may move in a day [fraction of last close]


def write_for_qlib(prices: pd.DataFrame, folder: Path) -> None:
    """Qlib's own storage: a calendar, the span of each symbol, and a flat float32 file for each symbol and field."""
    spans = prices.groupby("symbol")["date"].agg(["min", "max"])
    for field in FIELDS:
        table = prices.pivot(index="date", columns="symbol", values=field)  # [days, symbols]
        for symbol, first, last in spans.itertuples():
            file = folder / "features" / symbol.lower() / f"{field}.day.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            values = table.loc[first:last, symbol]  # no gap before the first day: Qlib's counting features would see it
            np.append(table.index.get_loc(first), values).astype("<f4").tofile(file)
    for place, lines in ("calendars/day.txt", table[[]]), ("instruments/all.txt", spans):
        (folder / place).parent.mkdir()
        lines.to_csv(folder / place, sep="\t", header=False, date_format="%Y-%m-%d")


def yearly_folds(days: pd.DatetimeIndex, first_year: int) -> list[dict[str, list[str]]]:
    """First and last day of `train`, `valid` and `test`, for each calendar year: all that was known before it began."""
    folds = []
    for year in range(first_year, days[-1].year + 1):
        start, end = (int(days.searchsorted(pd.Timestamp(border, 1, 1))) for border in (year, year + 1))
        valid = start - VALID
        if valid - PURGE < VALID:
            sys.exit(f"Before {year} are {start} days, too few to learn from. Name a later --first-year.")
        parts = {"train": (0, valid - PURGE), "valid": (valid, start - PURGE), "test": (start, end)}
        folds.append({name: [f"{days[a]:%Y-%m-%d}", f"{days[b - 1]:%Y-%m-%d}"] for name, (a, b) in parts.items()})
    return folds


def run_qlib(folder: Path, kept: Path, threads: int) -> None:
    """What runs in Qlib's environment: learns from a folder of prices and folds, and writes its forecasts to `kept`."""
    import qlib
    from qlib.contrib.data.handler import Alpha158
    from qlib.contrib.model.gbdt import LGBModel
    from qlib.data.dataset import DatasetH

    started = time.perf_counter()
    folds = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
    qlib.init(provider_uri=str(folder), kernels=threads, logging_level=40)
    handler = Alpha158(instruments="all", start_time=folds[0]["train"][0], end_time=folds[-1]["test"][1],
                       label=([f"Ref($close, -{HORIZON})/$close - 1"], ["LABEL0"]))
    parts = []
    for segments in folds:
        print("Qlib forecasts", " to ".join(segments["test"]), flush=True)
        dataset, model = DatasetH(handler, segments), LGBModel(**LIGHTGBM, num_threads=threads)
        model.fit(dataset, verbose_eval=0)
        parts.append(model.predict(dataset))
    found = pd.concat(parts).rename("score").rename_axis(["date", "symbol"]).reset_index()
    found.attrs["seconds"] = time.perf_counter() - started
    found.to_parquet(kept)


def qlib_forecast(prices: pd.DataFrame, first_year: int, threads: int, home: Path) -> pd.DataFrame:
    """`symbol, date, score` of Qlib and, in `attrs["seconds"]`, how long it took; kept in `home`."""
    folds = yearly_folds(pd.DatetimeIndex(np.sort(prices["date"].unique())), first_year)
    content = pd.util.hash_pandas_object(prices, index=False).sum()
    what = repr((int(content), folds, LIGHTGBM, HORIZON, PACKAGES, threads)).encode()
    kept = home / f"forecast_{hashlib.sha256(what).hexdigest()[:12]}.parquet"
    if kept.exists():
        return pd.read_parquet(kept)
    python = home / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = home / "env" / "installed.txt"  # written last: an installation that was cut off is made anew
    if not done.exists():
        print(f"Making an environment for Qlib in {home}: two minutes.", flush=True)
        venv.create(home / "env", with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        done.write_text("\n".join(PACKAGES), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        write_for_qlib(prices, Path(folder))
        (Path(folder) / "folds.json").write_text(json.dumps(folds), encoding="utf-8")
        # Qlib writes its log of trials where it runs, as files, which its logger allows only when asked.
        world = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
        command = [python, Path(__file__).resolve(), "--qlib", folder, kept, str(threads)]
        ended = subprocess.run(command, cwd=folder, env=world, stderr=subprocess.PIPE, text=True)
        if ended.returncode != 0:  # else its words are only about a missing git repository
            sys.exit(f"Qlib ended with exit code {ended.returncode}:\n{ended.stderr}")
    return pd.read_parquet(kept)


def outcomes(prices: pd.DataFrame) -> pd.DataFrame:
    """`symbol, date, cc, oo` [5-day log return, NaN: unknown] of the rows that could be bought at the next open."""
    opens, closes, volumes = (prices.pivot(index="date", columns="symbol", values=name)  # [days, symbols]
                              for name in ("open", "close", "volume"))
    exchanges = prices.groupby("symbol")["exchange"].last().astype(str)
    room = exchanges.map(BANDS).fillna(BANDS["HOSE"]) - np.where(exchanges == "HOSE", 0.005, 0.01)
    buyable = (volumes.shift(-1) > 0) & (opens.shift(-1) / closes - 1 < room)
    found = pd.DataFrame({"cc": np.log(closes.shift(-HORIZON) / closes).unstack(),
                          "oo": np.log(opens.shift(-1 - HORIZON) / opens.shift(-1)).unstack()})
    return found[buyable.unstack()].reset_index()


def daily_correlation(rows: pd.DataFrame, name: str, outcome: str) -> pd.Series:
    """Spearman's correlation of two columns within each date that has enough symbols; 0 where one does not differ."""
    rows = rows[["date", name, outcome]].dropna()
    dates = rows["date"][rows.groupby("date")["date"].transform("size") >= FEWEST_SYMBOLS]
    ranks = rows.loc[dates.index, [name, outcome]].groupby(dates).rank()
    x, y = (ranks[column] - ranks[column].groupby(dates).transform("mean") for column in (name, outcome))
    xy, xx, yy = (product.groupby(dates).sum() for product in (x * y, x * x, y * y))
    return (xy / np.sqrt(xx * yy)).fillna(0.0)


def mean_and_t(values: np.ndarray) -> tuple[float, float]:
    """Mean, and its t from Bartlett's HAC variance. Source: Newey & West 1987, Econometrica 55(3)."""
    around, n = values - values.mean(), len(values)
    lags = sum((1 - lag / (LAGS + 1)) * (around[lag:] @ around[:-lag]) for lag in range(1, LAGS + 1))
    return values.mean(), values.mean() / np.sqrt(around @ around + 2 * lags) * n


def measures(rows: pd.DataFrame, families: list[str]) -> pd.DataFrame:
    """One row per family and period: rank correlations and their t on the rows that every family forecasts."""
    years = range(rows["date"].min().year, rows["date"].max().year + 1)
    periods = [(years[0], years[-1]), *((year, year) for year in years), *zip(years[::2], years[1::2], strict=False)]
    found = []
    for family in families:
        by_day = {outcome: daily_correlation(rows, family, outcome) for outcome in ("cc", "oo")}
        for first, last in dict.fromkeys(periods):
            row = {"family": family, "period": f"{first}" if first == last else f"{first}-{last}"}
            for outcome, series in by_day.items():
                values = series[(series.index.year >= first) & (series.index.year <= last)].to_numpy()
                row[outcome], row[f"{outcome}_t"] = mean_and_t(values)
            judged = rows["date"].dt.year.between(first, last).sum()
            found.append(row | {"days": len(values), "stock_days": int(judged)})
    return pd.DataFrame(found)


def main() -> None:
    if sys.argv[1:2] == ["--qlib"]:  # this program again, in Qlib's environment, which has no vnq_colab
        return run_qlib(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    from vnq_colab.data.prices import load_prices

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="prices, in any form that the library reads")
    parser.add_argument("--symbols", default="all", help="file with the symbols to judge, one a line (default: all)")
    parser.add_argument("--forecast", required=True, help="our forecasts: parquet of family, symbol, date, score")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "peers.csv", help="to add to")
    parser.add_argument("--first-year", type=int, default=2018, help="first year to judge (default: 2018)")
    parser.add_argument("--threads", type=int, default=1, help="of Qlib (default: 1)")
    parser.add_argument("--env", type=Path, default=Path(tempfile.gettempdir()) / "vnq_peers", help="Qlib's folder")
    options = parser.parse_args()
    prices, _ = load_prices(options.data)
    qlib = qlib_forecast(prices, options.first_year, options.threads, options.env.resolve())
    scores = pd.concat([qlib.assign(family="qlib"), pd.read_parquet(options.forecast)])
    scores = scores.pivot(index=["symbol", "date"], columns="family", values="score")
    families = ["qlib", *scores.columns.drop("qlib")]
    rows = outcomes(prices[prices["date"].dt.year >= options.first_year]).merge(scores, "left", on=["symbol", "date"])
    if options.symbols != "all":
        rows = rows[rows["symbol"].isin(Path(options.symbols).read_text(encoding="utf-8").split())]
    both = rows.dropna(subset=families)
    print(f"{both['symbol'].nunique()} symbols, {len(both):,} of {len(rows):,} rows; without a forecast:",
          ", ".join(f"{name} {rows[name].isna().sum():,}" for name in families))
    found = measures(both, families)
    found["seconds"] = np.where(found["family"] == "qlib", qlib.attrs["seconds"], np.nan)
    print(found.to_string(index=False, float_format="{:.3f}".format))
    facts = {"data": Path(options.data).name, "symbols": f"{both['symbol'].nunique()}", "threads": f"{options.threads}"}
    texts = found.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)).replace("nan", "")
    keep(str(options.out.resolve().with_suffix("")), [facts | row for row in texts.to_dict("records")])


if __name__ == "__main__":
    main()
