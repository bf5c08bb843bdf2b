"""Does a score order the stocks of a day as their returns do? Rank correlations, quantile returns, decay.

Arrays are `[symbols, days]`, NaN where a value is not known. Unless said otherwise an outcome is the log return from
the next open to the open a horizon later, of a stock that could be bought there; errors are HAC.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.panel import CLOSE, OPEN, Panel
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.significance import LAGS, Z_95, hac_mean, known, monotone_p
from vnq_colab.settings import HORIZON

HORIZONS = (1, 2, 3, 5, 10, 20)  # [days]
AUTOCORRELATION_LAGS = (1, 5, 20)  # [days]
PAST_DAYS = 20  # of traded value, volatility and illiquidity, as known at the close
DECILES_FROM = 50  # stocks a day; below, quantiles are fifths
FEWEST_STOCKS = 5  # of a day whose order is worth a correlation
TINY = 1e-9  # a spread of ranks below it is rounding


@dataclass(frozen=True, repr=False)
class Order:
    """How well the scores of a day order its stocks: all families, and in detail the judged one, `family`."""

    family: str
    families: pd.DataFrame  # of `family_tables`, best first
    by_year: pd.DataFrame
    daily: pd.DataFrame  # [days, families] rank correlation of score and outcome
    groups: pd.DataFrame  # group ("exchange", "liquidity", "horizon", "without"), name, n_days, value, t
    quantiles: pd.DataFrame  # quantile (1 worst), n_days, excess, low, high [log return over the horizon - day's mean]
    monotone_p: float  # p-value of quantile returns that do not rise from each to the next; small = monotone
    turnover: float  # [fraction] of the best fifth that is exchanged from one day to the next
    autocorrelation: pd.DataFrame  # lag [days], value: correlation of a day's ranks with those `lag` days before
    slope: float  # of the outcome on `edge`, both relative to the day's mean; 1 = right, below 1 = overconfident
    slope_error: float
    symbols: pd.DataFrame  # symbol, n_days, place, place_error, traded_value [VND a day], locked [fraction of days]

    def __repr__(self) -> str:
        ours, days = self.families[self.families["family"] == self.family], self.daily.index
        lines = [f"Order of {len(self.symbols)} stocks by {self.family}"]
        for row in ours[ours["n_days"] > 0].itertuples():
            lines.append(f"  {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}: rank correlation {row.open:.3f} open to open ("
                         f"{known('t {:.1f}, ', row.open_t)}above 0 on {row.positive:.0%} of {row.n_days:,} days)"
                         f"{known(', {:.3f} close to close', row.close)}")
        for group, part in self.groups.groupby("group", sort=False):
            values = zip(part["name"], part["value"], part["t"], strict=True)
            lines.append(f"  {group}: " + ", ".join(f"{name} {value:.3f}{known(' (t {:.1f})', t)}"
                                                    for name, value, t in values))
        if (excess := self.quantiles["excess"]).notna().all():
            lines.append(f"  {HORIZON}-day excess returns of quantiles, worst first: "
                         + " ".join(map("{:+.2%}".format, excess)) + known(" (monotone: p {:.3f})", self.monotone_p)
                         + known("; {:.0%} of the best fifth are exchanged a day", self.turnover)
                         + known("; outcome per edge {:.2f}", self.slope) + known(" ± {:.2f}", self.slope_error))
        return "\n".join(lines)


def measure_order(rows: pd.DataFrame, panel: Panel, prices: pd.DataFrame, family: str, could_buy: np.ndarray) -> Order:
    """The order of all families in `rows` (of `metrics.with_outcomes`), and in detail that of the judged `family`.

    `could_buy [symbols, days]` is that of `buyable`. `place` of a symbol is the mean product of its standardised ranks
    of score and outcome: its mean over the symbols of a day is that day's rank correlation.
    """
    rows = rows.astype({"family": "category", "symbol": "category"})  # numbers are sorted and cut faster than texts
    symbol = pd.Index(panel.symbols).get_indexer(rows["symbol"].cat.categories)[rows["symbol"].cat.codes]
    day = panel.days.get_indexer(rows["date"])
    mine = (rows["family"] == family).to_numpy()
    feasible = rows.loc[could_buy[symbol, day], ["family", "symbol", "date", "score", "actual", "actual_open"]]
    close, opened = daily_rank_correlations(feasible, "actual", "actual_open")
    symbols, days = np.unique(symbol[mine]), np.unique(day[mine])
    cut = np.ix_(symbols, days)
    score, edge = np.full((2, *panel.present.shape), np.nan)
    for values, column in ((score, "score"), (edge, "edge")):
        values[symbol[mine], day[mine]] = rows[column].to_numpy("float64")[mine]
    score, edge = score[cut], edge[cut]
    outcomes = {horizon: np.where(could_buy, panel.ahead(horizon, OPEN), np.nan)[cut] for horizon in HORIZONS}
    ranks, outcome_ranks = ranks_of_both(score, outcomes[HORIZON])
    excess = np.where(np.isfinite(ranks), outcomes[HORIZON], np.nan)
    excess = excess - day_means(excess)
    last = prices.reindex(columns=["symbol", "exchange"]).drop_duplicates("symbol", keep="last").set_index("symbol")
    exchanges = last["exchange"].astype(object).reindex(list(panel.symbols)).fillna("").to_numpy()[symbols]
    groups = _groups(score, outcomes, ranks, outcome_ranks, exchanges, _past(panel, symbols, days))
    product, spread = products_and_spread(ranks, outcome_ranks)
    listed = np.maximum.accumulate(panel.present[cut], axis=1)  # a halted day counts as one without trade
    traded = np.where(listed, np.nan_to_num(panel.prices[:, :, 4][cut]), np.nan)  # [VND]
    n_days, place, error = zip(*map(hac_mean, product / spread), strict=True)
    table = pd.DataFrame({
        "symbol": np.asarray(panel.symbols, dtype=object)[symbols], "n_days": n_days, "place": place,
        "place_error": error, "traded_value": np.nanmedian(traded, axis=1),
        "locked": 1 - day_means(np.where(listed, could_buy[cut], np.nan).T)})
    return Order(family, *family_tables(close, opened), opened, groups, *_quantile_returns(ranks, excess),
                 *_persistence(within_day_ranks(score)), *_slope(np.where(np.isfinite(excess), edge, np.nan), excess),
                 table)


def buyable(panel: Panel, market: MarketData) -> np.ndarray:
    """`[symbols, days]` bool: whether what a forecast of that day asks for can be bought at the next open."""
    place = np.ix_(market.days.get_indexer(panel.days), pd.Index(market.symbols).get_indexer(panel.symbols))
    result = np.zeros(panel.present.shape, dtype=bool)
    result[:, :-1] = market.can_buy[place].T[:, 1:]
    return result & panel.present


def daily_rank_correlations(rows: pd.DataFrame, *outcomes: str) -> list[pd.DataFrame]:
    """For each outcome `[days, families]`: Spearman with the score; NaN below five stocks, 0 for equal scores."""
    (family, families), (symbol, symbols) = pd.factorize(rows["family"]), pd.factorize(rows["symbol"])
    day, days = pd.factorize(rows["date"], sort=True)
    score, *actuals = np.full((1 + len(outcomes), len(families), len(symbols), len(days)), np.nan)
    for values, column in zip((score, *actuals), ("score", *outcomes), strict=True):
        values[family, symbol, day] = rows[column].to_numpy("float64")
    tables = []
    for actual in actuals:
        table = pd.DataFrame(index=pd.DatetimeIndex(days, name="date"))
        for place, name in enumerate(families):
            if place == 0 or not np.array_equal(actual[place], actual[place - 1], equal_nan=True):  # mostly the same
                outcome_ranks = within_day_ranks(actual[place])
            ranks = within_day_ranks(np.where(np.isnan(actual[place]), np.nan, score[place]))
            table[name] = correlation(ranks, outcome_ranks)
        tables.append(table[np.isfinite(actual).any(axis=(0, 1))])
    return tables


def family_tables(close: pd.DataFrame, opened: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per family, best first, and the same per year, from daily rank correlations `[days, families]`.

    Means with the return from close to close, `close`, and from open to open, `open`, with its 95 % interval `low,
    high` and `positive`, the share of days above 0.
    """
    def table(period: str, close: pd.DataFrame, opened: pd.DataFrame) -> pd.DataFrame:
        lines = []
        for family in opened:
            (n_days, mean, error), (_, other, other_error) = hac_mean(opened[family]), hac_mean(close[family])
            lines.append((family, period, n_days, other, other / other_error, mean, mean / error,
                          (opened[family].dropna() > 0).mean(), mean - Z_95 * error, mean + Z_95 * error))
        columns = ["family", "period", "n_days", "close", "close_t", "open", "open_t", "positive", "low", "high"]
        return pd.DataFrame(lines, columns=columns).sort_values("open", ascending=False, ignore_index=True)

    opened = opened.reindex(close.index)
    years = [table(str(year), close[close.index.year == year], part) for year, part in
             opened.groupby(opened.index.year)]
    whole = table("all", close, opened)
    return whole, pd.concat(years, ignore_index=True) if years else whole


# ----------------------------------------------------------------------------------- statistics of the stocks of a day
def day_means(values: np.ndarray) -> np.ndarray:
    """`[symbols, days] -> [days]`: mean of the known values; NaN where there is none."""
    there = np.isfinite(values)
    n = there.sum(axis=0)
    return np.where(there, values, 0).sum(axis=0) / np.where(n > 0, n, np.nan)  # three times as fast as pandas


def ranks_of_both(one: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    """`[symbols, days] × 2`: ranks within the day, -1 to 1, among the stocks of which both are known."""
    known = np.isfinite(one) & np.isfinite(other)
    return [within_day_ranks(np.where(known, values, np.nan)) for values in (one, other)]


def products_and_spread(one: np.ndarray, other: np.ndarray,
                        fewest: int = FEWEST_STOCKS) -> tuple[np.ndarray, np.ndarray]:
    """`[symbols, days]` of mean 0 × 2 -> products `[symbols, days]` and product of both standard deviations `[days]`.

    NaN on days with fewer than `fewest` stocks; the spread is infinite where one does not vary: no correlation.
    """
    product, spread = one * other, np.sqrt(day_means(one**2) * day_means(other**2))
    product[:, np.isfinite(product).sum(axis=0) < fewest] = np.nan
    return product, np.where(spread > TINY, spread, np.inf)


def correlation(one: np.ndarray, other: np.ndarray, fewest: int = FEWEST_STOCKS) -> np.ndarray:
    """`[symbols, days]` of mean 0 × 2 -> `[days]`: Pearson's; of ranks it is Spearman's."""
    product, spread = products_and_spread(one, other, fewest)
    return day_means(product) / spread


def rank_correlation(score: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """`[symbols, days] × 2 -> [days]`: Spearman's."""
    return correlation(*ranks_of_both(score, outcome))


def quantiles_of(ranks: np.ndarray, n: int) -> np.ndarray:
    """The quantile that a rank falls into, 1 lowest to `n`, as of `pandas.qcut`."""
    return np.clip(np.ceil(n * (ranks + 1) / 2 - TINY), 1, n)


# --------------------------------------------------------------------------------------------------- parts of an Order
def _past(panel: Panel, symbols: np.ndarray, days: np.ndarray) -> dict[str, np.ndarray]:
    """`[symbols, days]` each: what is known of a stock's past at the close; NaN where that is too short.

    A day without a trade has no move. Source: Lehmann 1990, QJE 105(1); Jegadeesh & Titman 1993, JF 48(1); Ang,
    Hodrick, Xing & Zhang 2006, JF 61(1); Amihud 2002, JFM 5(1).
    """
    first = max(days[0] - 3 * PAST_DAYS, 0)
    prices = panel.prices[symbols, first : days[-1] + 1]
    close = pd.DataFrame(np.log(prices[:, :, CLOSE]).T).ffill()  # [days, symbols], as all below
    value = pd.DataFrame(np.nan_to_num(prices[:, :, 4]).T)  # [VND]
    moves = close.diff()
    factors = {"5-day reversal": -close.diff(5), "20-day momentum": close.diff(20),
               "20-day volatility": moves.rolling(PAST_DAYS).std(),
               "illiquidity": (moves.abs() / value.where(value > 0)).rolling(PAST_DAYS, PAST_DAYS // 2).mean(),
               "traded value": value.rolling(PAST_DAYS, 1).median()}
    return {name: values.to_numpy()[days - first].T for name, values in factors.items()}


def _groups(score: np.ndarray, outcomes: dict[int, np.ndarray], ranks: np.ndarray, outcome_ranks: np.ndarray,
            exchanges: np.ndarray, past: dict[str, np.ndarray]) -> pd.DataFrame:
    """Rank correlations within an exchange and a third of liquidity, over other horizons, and without known factors.

    `ranks, outcome_ranks` are of the score and the outcome over `HORIZON`. Without: the score's ranks less what a
    regression on those of the factor, each day anew, explains.
    """
    past = {name: within_day_ranks(np.where(np.isfinite(ranks), values, np.nan)) for name, values in past.items()}
    liquidity = past.pop("traded value")
    parts = {("exchange", name): (exchanges == name)[:, None] for name in sorted(set(exchanges) - {""})}
    parts |= {("liquidity", "least"): liquidity < -1 / 3, ("liquidity", "middle"): np.abs(liquidity) <= 1 / 3,
              ("liquidity", "most"): liquidity > 1 / 3}
    daily = [(*key, rank_correlation(np.where(part, score, np.nan), outcomes[HORIZON]), LAGS)
             for key, part in parts.items()]
    daily += [("horizon", str(horizon), rank_correlation(score, outcome), max(LAGS, 2 * horizon))
              for horizon, outcome in outcomes.items()]
    for name, factors in [*((name, [part]) for name, part in past.items()), ("all four", list(past.values()))]:
        x = np.nan_to_num(np.stack([factor.T for factor in factors], axis=2))  # [days, symbols, factors]
        fitted = x @ (np.linalg.pinv(x, rcond=TINY) @ np.nan_to_num(ranks.T)[:, :, None])
        residuals = ranks - fitted[:, :, 0].T
        daily.append(("without", name, correlation(residuals, outcome_ranks, FEWEST_STOCKS + len(factors)), LAGS))
    lines = [(group, name, *hac_mean(values, lags)) for group, name, values, lags in daily]
    table = pd.DataFrame(lines, columns=["group", "name", "n_days", "value", "error"])
    table["t"] = table["value"] / table.pop("error")
    return table[table["n_days"] > 0].reset_index(drop=True)


def _quantile_returns(ranks: np.ndarray, excess: np.ndarray) -> tuple[pd.DataFrame, float]:
    """The mean excess of each quantile of the score with its 95 % interval, and the p-value of `monotone_p`."""
    n = 10 if np.median(np.isfinite(ranks).sum(axis=0)) >= DECILES_FROM else 5
    group = quantiles_of(ranks, n)
    daily = np.array([day_means(np.where(group == place, excess, np.nan)) for place in range(1, n + 1)])
    table = pd.DataFrame([hac_mean(values) for values in daily], columns=["n_days", "excess", "error"])
    table.insert(0, "quantile", range(1, n + 1))
    half = Z_95 * table.pop("error")
    return table.assign(low=table["excess"] - half, high=table["excess"] + half), monotone_p(daily.T)


def _persistence(ranks: np.ndarray) -> tuple[float, pd.DataFrame]:
    """Share of the best fifth that is exchanged a day, and the rank autocorrelations."""
    best = quantiles_of(ranks, 5) == 5
    exchanged = day_means(np.where(best[:, 1:], ~best[:, :-1], np.nan))
    values = [pd.DataFrame(ranks[:, lag:]).corrwith(pd.DataFrame(ranks[:, :-lag])).mean()
              for lag in AUTOCORRELATION_LAGS]
    return hac_mean(exchanged)[1], pd.DataFrame({"lag": AUTOCORRELATION_LAGS, "value": values})


def _slope(edge: np.ndarray, excess: np.ndarray) -> tuple[float, float]:
    """Slope of the outcome on the edge, both relative to the day's mean, and its error with days as clusters.

    Source: Driscoll & Kraay 1998, REStat 80(4).
    """
    edge, excess = np.nan_to_num(edge - day_means(edge)), np.nan_to_num(excess)
    square = (edge**2).sum()
    if square < 1e-18:
        return np.nan, np.nan
    slope = (edge * excess).sum() / square
    scores = (edge * (excess - slope * edge)).sum(axis=0)  # [days]
    return float(slope), hac_mean(scores)[2] * len(scores) / float(square)
