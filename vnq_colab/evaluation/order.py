"""The order of the stocks of a day: is it what the forecast said? Rank correlations over what could be bought."""

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import ENSEMBLE
from vnq_colab.data.history import LIMIT_TOLERANCE, within_day_ranks
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.data.panel import CLOSE, OPEN, Panel
from vnq_colab.evaluation.significance import hac_t

FEWEST_STOCKS = 5  # of a day whose order is worth a correlation
COLUMNS = ("family", "period", "n_days", "close", "close_t", "open", "open_t", "positive")


def buyable(panel: Panel, prices: pd.DataFrame, rules: MarketRules = VN_RULES) -> np.ndarray:
    """`[symbols, days]` bool: whether what an evening's forecast asks for can be bought at the next open.

    It is traded that day, and its open lies below the ceiling, as far as ticks let that be seen. The exchange is that
    of the row in the price table; an unknown one counts as HOSE.
    """
    traded, opened, close = panel.prices[:, :, 4], panel.prices[:, :, OPEN], panel.prices[:, :, CLOSE]
    found = np.zeros(panel.present.shape, dtype=bool)
    names = prices.groupby("symbol")["exchange"].last() if "exchange" in prices.columns else pd.Series(dtype=object)
    for row, symbol in enumerate(panel.symbols):
        exchange = names.get(symbol)
        exchange = exchange if exchange in LIMIT_TOLERANCE else "HOSE"
        most = rules.band(exchange, panel.days)[1:] - LIMIT_TOLERANCE[exchange]
        with np.errstate(invalid="ignore"):
            found[row, :-1] = (traded[row, 1:] > 0) & (opened[row, 1:] / close[row, :-1] - 1 < most)
    return found & panel.present


def daily_rank_correlations(rows: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """`[days, families]`: Spearman's correlation of score and outcome over the stocks of each day.

    NaN on a day with fewer than five stocks; 0 where a family gives all the same score.
    """
    rows = rows[rows[outcome].notna()]
    day, days = pd.factorize(rows["date"], sort=True)
    symbol, symbols = pd.factorize(rows["symbol"])
    found = {}
    for family in rows["family"].unique():
        mine = (rows["family"] == family).to_numpy()
        place = symbol[mine], day[mine]
        ranks = []
        for column in ("score", outcome):
            values = np.full((len(symbols), len(days)), np.nan)
            values[place] = rows[column].to_numpy("float64")[mine]
            ranks.append(np.nan_to_num(within_day_ranks(values)))  # of mean 0 within a day
        count = np.bincount(place[1], minlength=len(days))
        both = np.sqrt((ranks[0] ** 2).sum(axis=0) * (ranks[1] ** 2).sum(axis=0))
        one = np.where(both > 0, (ranks[0] * ranks[1]).sum(axis=0) / np.where(both > 0, both, 1), 0.0)
        found[family] = np.where(count >= FEWEST_STOCKS, one, np.nan)
    return pd.DataFrame(found, index=pd.DatetimeIndex(days, name="date"))


def rank_correlations(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per family, best first, and the same per year: mean daily rank correlations and their t.

    `rows` are those of `metrics.with_outcomes` that could be bought at the next open. `close`: with the return from
    close to close; `open`: from the next open to the open five days later, which is what can be traded; `positive`: the
    share of days on which the latter is above 0. t with HAC errors of 10 lags (Newey & West 1987).
    """
    close, opened = (daily_rank_correlations(rows, name) for name in ("actual", "actual_open"))
    opened = opened.reindex(close.index)

    def table(periods: dict[str, np.ndarray]) -> pd.DataFrame:
        lines = []
        for period, days in periods.items():
            for family in close.columns:
                one, other = (part.loc[days, family].dropna() for part in (close, opened))
                lines.append({"family": family, "period": period, "n_days": len(other), "close": one.mean(),
                              "close_t": hac_t(one.to_numpy()), "open": other.mean(),
                              "open_t": hac_t(other.to_numpy()), "positive": (other > 0).mean()})
        found = pd.DataFrame(lines, columns=list(COLUMNS))
        return found.sort_values(["period", "open"], ascending=[True, False], ignore_index=True)

    return table({"all": np.ones(len(close), dtype=bool)}), table(
        {str(year): close.index.year == year for year in close.index.year.unique()})


def order_text(table: pd.DataFrame, family: str = ENSEMBLE) -> str:
    """What the order of a family is worth, in a sentence; "" where it was not measured."""
    found = table[table["family"] == family]
    if found.empty or not np.isfinite(found["open"].iloc[0]):
        return ""
    row = found.iloc[0]
    return (f"Between the stocks of a day its score has a rank correlation of {row['open']:.3f} with the return from "
            f"the next open to the open five days later (t {row['open_t']:.1f}, above 0 on {row['positive']:.0%} of "
            f"{row['n_days']:,.0f} days), and of {row['close']:.3f} from close to close.")
