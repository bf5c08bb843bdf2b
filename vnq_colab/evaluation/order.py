"""The order of the stocks of a day: is it what the forecast said? Rank correlations over what could be bought.

Axes: symbols, days. "Known" is what a day's ranks are made of: the stocks that could be bought at the next open and
whose outcome is known. Unless said otherwise an outcome is the log return from the next open to the open a horizon
later. Errors are HAC: Bartlett's weights over 10 days, or two horizons where that is longer (Newey & West 1987).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from vnq_colab.data.forecast import ENSEMBLE, HORIZON
from vnq_colab.data.market import LIMIT_TOLERANCE, VN_RULES, MarketRules
from vnq_colab.data.panel import CLOSE, OPEN, Panel
from vnq_colab.errors import DataError
from vnq_colab.evaluation.significance import Z_95
from vnq_colab.evaluation.within_day import (
    FEWEST_STOCKS,
    LAGS,
    around_mean,
    correlation,
    hac_error,
    mean_and_t,
    mean_of,
    monotone_p,
    quantiles_of,
    rank_correlation,
    ranks_of,
    share,
    standardised,
    without,
)

COLUMNS = ("family", "period", "n_days", "close", "close_t", "open", "open_t", "positive")
HORIZONS = (1, 2, 3, 5, 10, 20)  # [days]
AUTOCORRELATION_LAGS = (1, 5, 20)  # [days]
PAST_DAYS = 20  # of traded value, volatility and illiquidity, as known on the evening
TENTHS_FROM = 50  # stocks a day; below, quantiles are fifths


@dataclass(frozen=True, repr=False)
class Order:
    """How well the scores of a day order its stocks: all families, and in detail the judged one, `family`."""

    family: str
    families: pd.DataFrame  # of `rank_correlations`, best first
    by_year: pd.DataFrame  # the same per year, and low, high: 95 % interval of `open`
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
        years = self.by_year[self.by_year["family"] == self.family].sort_values("period")
        groups = ["  " + group + ": " + ", ".join(f"{name} {value:.3f} (t {t:.1f})" for name, value, t in
                                                  part[["name", "value", "t"]].itertuples(index=False))
                  for group, part in self.groups.groupby("group", sort=False)]
        span = [f"{day:%Y-%m-%d}" for day in self.daily.index[[0, -1]]] if len(self.daily) else ["no day"]
        return "\n".join([
            f"Order of {len(self.symbols)} stocks by {self.family}, {' to '.join(span)}. "
            + order_text(self.families, self.family),
            "  year: " + ", ".join(f"{period} {value:.3f}" for period, value in zip(years["period"], years["open"],
                                                                                   strict=True)), *groups,
            f"  {HORIZON}-day returns of {len(self.quantiles)} quantiles, worst first, less the day's mean: "
            + " ".join(f"{value:+.2%}" for value in self.quantiles["excess"])
            + f" (monotone: p {self.monotone_p:.3f})",
            f"  {self.turnover:.0%} of the best fifth are exchanged a day; rank autocorrelation "
            + ", ".join(f"{value:.2f} after {lag:.0f}" for lag, value in self.autocorrelation.to_numpy())
            + f" days; outcome per edge {self.slope:.2f} ± {self.slope_error:.2f}"])


def measure_order(rows: pd.DataFrame, panel: Panel, prices: pd.DataFrame, family: str, could_buy: np.ndarray) -> Order:
    """The order of all families in `rows` (of `metrics.with_outcomes`), and in detail that of the judged `family`.

    `could_buy [symbols, days]` is that of `buyable`. Groups: rank correlations within an exchange and within a third of
    liquidity (each evening's median traded value of 20 days); with outcomes over 1 to 20 days; and without a factor
    that orders stocks: of what a regression of the score's ranks on those of the factor, each day anew, leaves. `place`
    of a symbol is the mean product of its standardised ranks of score and outcome: its mean over the symbols of a day
    is that day's rank correlation. What too few days or stocks give is NaN.
    """
    symbol, day = pd.Index(panel.symbols).get_indexer(rows["symbol"]), panel.days.get_indexer(rows["date"])
    mine = (rows["family"] == family).to_numpy()
    if not mine.any():
        raise DataError(f"order: no row is of family {family}; there are {', '.join(rows['family'].unique())}.")
    feasible = rows[["family", "symbol", "date", "score", "actual", "actual_open"]][could_buy[symbol, day]]
    daily = [daily_rank_correlations(feasible, name) for name in ("actual", "actual_open")]
    symbols, days = np.unique(symbol[mine]), np.unique(day[mine])
    cut = np.ix_(symbols, days)
    score, edge = np.full((2, *panel.present.shape), np.nan)
    for values, column in ((score, "score"), (edge, "edge")):
        values[symbol[mine], day[mine]] = rows[column].to_numpy("float64")[mine]
    score, edge, could_buy = score[cut], edge[cut], could_buy[cut]
    outcomes = {horizon: panel.ahead(horizon, OPEN)[cut] for horizon in HORIZONS}
    asked = np.isfinite(score)
    known = asked & could_buy & np.isfinite(outcomes[HORIZON])
    ranks, excess = ranks_of(score, known), around_mean(outcomes[HORIZON], known)
    of_outcome = ranks_of(outcomes[HORIZON], known)

    past = _past(panel, symbols, days)
    liquidity = ranks_of(past.pop("traded value"), known)
    exchanges = _exchanges(prices, panel.symbols)[symbols]
    parts = {("exchange", name): (exchanges == name)[:, None] for name in sorted(set(exchanges) - {None})}
    parts |= {("liquidity", "least"): liquidity < -1 / 3, ("liquidity", "middle"): np.abs(liquidity) <= 1 / 3,
              ("liquidity", "most"): liquidity > 1 / 3}
    found = [(*name, rank_correlation(score, outcomes[HORIZON], known & part), LAGS) for name, part in parts.items()]
    found += [("horizon", str(horizon), rank_correlation(score, outcome, asked & could_buy & np.isfinite(outcome)),
               max(LAGS, 2 * horizon)) for horizon, outcome in outcomes.items()]
    factors = {name: [ranks_of(values, known & np.isfinite(values))] for name, values in past.items()}
    factors["all four"] = [part for parts_ in factors.values() for part in parts_]
    found += [("without", name, correlation(without(ranks, chosen), of_outcome, known, FEWEST_STOCKS + len(chosen)),
               LAGS) for name, chosen in factors.items()]
    groups = pd.DataFrame([(group, name, *mean_and_t(values, lags)) for group, name, values, lags in found
                           if np.isfinite(values).any()], columns=["group", "name", "n_days", "value", "t"])

    enough = known & (known.sum(axis=0) >= FEWEST_STOCKS)
    place = np.where(enough, standardised(ranks, known) * standardised(of_outcome, known), np.nan)
    listed = np.maximum.accumulate(panel.present[cut], axis=1)  # a halted day counts as one without trade
    traded = np.where(listed, np.nan_to_num(panel.prices[:, :, 4][cut]), np.nan)  # [VND]
    table = pd.DataFrame({
        "symbol": np.asarray(panel.symbols, dtype=object)[symbols], "n_days": enough.sum(axis=1),
        "place": [mean_of(values) for values in place], "place_error": [hac_error(values) for values in place],
        "traded_value": np.nanmedian(traded, axis=1), "locked": 1 - share(could_buy, listed, axis=1)})
    return Order(family, *_tables(*daily), daily[1], groups, *_quantile_returns(ranks, excess, known),
                 *_persistence(score, asked), *_slope(around_mean(edge, known), excess), table)


def buyable(panel: Panel, prices: pd.DataFrame, rules: MarketRules = VN_RULES) -> np.ndarray:
    """`[symbols, days]` bool: whether what an evening's forecast asks for can be bought at the next open.

    It is traded that day, and its open lies below the ceiling, as far as ticks let that be seen. The exchange is that
    of the row in the price table; an unknown one counts as HOSE.
    """
    traded, opened, close = panel.prices[:, :, 4], panel.prices[:, :, OPEN], panel.prices[:, :, CLOSE]
    found = np.zeros(panel.present.shape, dtype=bool)
    for row, exchange in enumerate(_exchanges(prices, panel.symbols)):
        exchange = exchange if exchange in LIMIT_TOLERANCE else "HOSE"
        most = rules.band(exchange, panel.days)[1:] - LIMIT_TOLERANCE[exchange]
        with np.errstate(invalid="ignore"):
            found[row, :-1] = (traded[row, 1:] > 0) & (opened[row, 1:] / close[row, :-1] - 1 < most)
    return found & panel.present


def daily_rank_correlations(rows: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """`[days, families]`: Spearman's correlation of score and outcome over the stocks of each day.

    NaN on a day with fewer than five stocks; 0 where a family gives all the same score.
    """
    family, families = pd.factorize(rows["family"])
    day, days = pd.factorize(rows["date"], sort=True)
    symbol, symbols = pd.factorize(rows["symbol"])
    found, before, actual_ranks = {}, None, None
    for code, name in enumerate(families):
        mine = np.flatnonzero(family == code)
        score, actual = np.full((2, len(symbols), len(days)), np.nan)
        for values, column in ((score, "score"), (actual, outcome)):
            values[symbol[mine], day[mine]] = rows[column].to_numpy("float64")[mine]
        known = np.isfinite(actual)
        if before is None or not np.array_equal(known, before):  # families mostly forecast the same rows
            before, actual_ranks = known, ranks_of(actual, known)
        found[name] = correlation(ranks_of(score, known), actual_ranks, known)
    table = pd.DataFrame(found, index=pd.DatetimeIndex(days, name="date"))
    return table[np.bincount(day, rows[outcome].notna(), len(days)) > 0]


def rank_correlations(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per family, best first, and the same per year: mean daily rank correlations and their t.

    `rows` are those of `metrics.with_outcomes` that could be bought at the next open. `close`: with the return from
    close to close; `open`: from the next open to the open five days later, which is what can be traded, per year with
    its 95 % interval `low, high`; `positive`: the share of days on which the latter is above 0.
    """
    return _tables(*(daily_rank_correlations(rows, name) for name in ("actual", "actual_open")))


def _tables(close: pd.DataFrame, opened: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`[days, families]` twice: the table of all days and that of each year."""
    opened = opened.reindex(close.index)

    def table(periods: dict[str, np.ndarray]) -> pd.DataFrame:
        lines = []
        for period, days in periods.items():
            for family in close.columns:
                one, daily = (part.loc[days, family].to_numpy() for part in (close, opened))
                n_days, value, t = mean_and_t(daily)
                half = Z_95 * hac_error(daily)
                lines.append((family, period, n_days, *mean_and_t(one)[1:], value, t,
                              mean_of(daily[np.isfinite(daily)] > 0), value - half, value + half))
        found = pd.DataFrame(lines, columns=[*COLUMNS, "low", "high"])
        return found.sort_values(["period", "open"], ascending=[True, False], ignore_index=True)

    return table({"all": np.ones(len(close), dtype=bool)})[list(COLUMNS)], table(
        {str(year): close.index.year == year for year in close.index.year.unique()})


def _exchanges(prices: pd.DataFrame, symbols: tuple[str, ...]) -> np.ndarray:
    """`[symbols]`: the exchange of each symbol's last row; None where it is not told."""
    if "exchange" not in prices.columns:
        return np.full(len(symbols), None, dtype=object)
    last = prices.drop_duplicates("symbol", keep="last").set_index("symbol")["exchange"].astype(object)
    found = last.reindex(list(symbols))
    return found.where(found.notna(), None).to_numpy()


def _past(panel: Panel, symbols: np.ndarray, days: np.ndarray) -> dict[str, np.ndarray]:
    """`[symbols, days]` each: what an evening knows of a stock's past; NaN where that is too short.

    A day without a trade has no move. Source: Lehmann 1990, QJE 105(1); Jegadeesh & Titman 1993, JF 48(1); Ang,
    Hodrick, Xing & Zhang 2006, JF 61(1); Amihud 2002, JFM 5(1).
    """
    first = max(days[0] - 3 * PAST_DAYS, 0)
    prices = panel.prices[symbols, first : days[-1] + 1]
    close = pd.DataFrame(np.log(prices[:, :, CLOSE]).T).ffill()  # [days, symbols], as all below
    value = pd.DataFrame(np.nan_to_num(prices[:, :, 4]).T)  # [VND]
    moves = close.diff()
    found = {"5-day reversal": -close.diff(5), "20-day momentum": close.diff(20),
             "20-day volatility": moves.rolling(PAST_DAYS).std(),
             "illiquidity": (moves.abs() / value.where(value > 0)).rolling(PAST_DAYS, PAST_DAYS // 2).mean(),
             "traded value": value.rolling(PAST_DAYS, 1).median()}
    return {name: values.to_numpy()[days - first].T for name, values in found.items()}


def _quantile_returns(ranks: np.ndarray, excess: np.ndarray, known: np.ndarray) -> tuple[pd.DataFrame, float]:
    """The mean excess of each quantile of the score with its 95 % interval, and the p-value of `monotone_p`."""
    n = 10 if np.median(known.sum(axis=0)) >= TENTHS_FROM else 5
    group = quantiles_of(ranks, known, n)
    daily = np.array([share(excess, group == place) for place in range(1, n + 1)])  # [quantiles, days]
    table = pd.DataFrame({"quantile": range(1, n + 1), "n_days": np.isfinite(daily).sum(axis=1),
                          "excess": [mean_of(values) for values in daily]})
    half = np.array([Z_95 * hac_error(values) for values in daily])
    return table.assign(low=table["excess"] - half, high=table["excess"] + half), monotone_p(daily.T)


def _slope(edge: np.ndarray, excess: np.ndarray) -> tuple[float, float]:
    """Slope of the outcome on the edge, both `[symbols, days]` of mean 0 a day, and its error, days as clusters.

    Source: Driscoll & Kraay 1998, REStat 80(4).
    """
    square = (edge ** 2).sum()
    if square < 1e-18:
        return np.nan, np.nan
    slope = (edge * excess).sum() / square
    of_days = (edge * (excess - slope * edge)).sum(axis=0)
    return float(slope), hac_error(of_days) * len(of_days) / float(square)


def _persistence(score: np.ndarray, known: np.ndarray) -> tuple[float, pd.DataFrame]:
    """Share of the best fifth that is exchanged a day, and the rank autocorrelations."""
    ranks = ranks_of(score, known)
    best, values = quantiles_of(ranks, known, 5) == 5, []
    for lag in AUTOCORRELATION_LAGS:
        both = known[:, lag:] & known[:, :-lag]
        values.append(mean_of(correlation(*(around_mean(part, both) for part in (ranks[:, lag:], ranks[:, :-lag])),
                                          both)))
    return (mean_of(share(~best[:, :-1], best[:, 1:])),
            pd.DataFrame({"lag": AUTOCORRELATION_LAGS, "value": values}))


def order_text(table: pd.DataFrame, family: str = ENSEMBLE) -> str:
    """What the order of a family is worth, in a sentence; "" where it was not measured."""
    found = table[table["family"] == family]
    if found.empty or not np.isfinite(found["open"].iloc[0]):
        return ""
    row = found.iloc[0]
    return (f"Between the stocks of a day its score has a rank correlation of {row['open']:.3f} with the return from "
            f"the next open to the open five days later (t {row['open_t']:.1f}, above 0 on {row['positive']:.0%} of "
            f"{row['n_days']:,.0f} days), and of {row['close']:.3f} from close to close.")
