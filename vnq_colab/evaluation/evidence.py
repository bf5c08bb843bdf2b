"""What a forecaster has shown, as numbers with errors: the questions of the gates are put to these.

Axes: days, then anything (families, simulated forecasters), symbols last; every column is tested by itself.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.panel import FLAT, Panel
from vnq_colab.evaluation.significance import FEWEST_DATES, TRADING_DAYS, cosine_variance

FEWEST_BETS = 8  # chosen: a bettor who doubles until he has won shows skill on 5 % of random walks with 3
WARM_UP = 20  # [forecasts] until a forecaster's usual forecast is known
USUAL_DAYS = 250  # [days] that make the usual forecast; chosen: networks trained anew have a level of their own
FEWEST_HISTORY = 250  # [days] of returns from which a symbol's drift is measured
CLEARLY = 1.6448536269514722  # [standard errors] 95 % one-sided


def skill(mean: ArrayLike, ahead: ArrayLike, drift: ArrayLike = 0.0,
          drift_error: ArrayLike = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """`[days, ...] × 2 -> [...] × 2`: correlation of 5-day forecast and outcome, and its standard error if it were 0.

    `mean` is the 5-day log return forecast on each day, NaN on a day that is not scored; `ahead` is the log return of
    the next day, and the last `HORIZON - 1` days have nothing else; `drift` is the daily log return that was usual
    before, and `drift_error` its standard error. A forecast counts by how far it lies from the mean of those of the
    year before it, so that "always up" shows nothing in a good year. The 5-day overlap is moved from the outcomes to
    the forecasts: each day's return is met by the sum of the forecasts that spoke of it. Without skill those products
    are a martingale, and estimate / error is normal without any correction. The usual regression, centred on the mean
    of the test itself, passes contrarians without skill: at a nominal 5 % a tenth to a half of them (EXPERIMENTS).

    A forecast that never changes, or that a few bold days decide (fewer than 40 days' worth of bets), has a correlation
    of 0 and an error of NaN; fewer than 40 forecasts give NaN twice.
    Source: Hodrick 1992, RFS 5(3), eq. 8; Stambaugh 1999, JFE 54(3).
    """
    mean, ahead = np.asarray(mean, "float64"), np.asarray(ahead, "float64")
    known, day = np.isfinite(mean), np.arange(len(mean))
    forecast, first = np.where(known, mean, 0.0), np.maximum(day - USUAL_DAYS, 0)
    total, count = _from_zero(forecast), _from_zero(known)
    usual = (total[day] - total[first]) / np.maximum(count[day] - count[first], 1)
    used = known & (count[day] >= WARM_UP)
    unusual = np.where(used, forecast - usual, 0.0)
    speaking = _from_zero(unusual)
    speaking = speaking[1:] - speaking[np.maximum(day - HORIZON + 1, 0)]  # of the day after
    excess = np.nan_to_num(ahead - drift)
    outcome = _from_zero(excess)
    outcome = outcome[np.minimum(day + HORIZON, len(day))] - outcome[:-1]
    product = speaking * excess
    unit = np.sqrt((unusual**2).sum(axis=0) * (outcome**2 * used).sum(axis=0))
    error = np.sqrt((product**2).sum(axis=0) + (speaking.sum(axis=0) * drift_error) ** 2)
    varies = np.where(known, mean, -np.inf).max(axis=0) > np.where(known, mean, np.inf).min(axis=0)
    enough = count[-1] >= 2 * WARM_UP
    with np.errstate(divide="ignore", invalid="ignore"):
        bets = (speaking**2).sum(axis=0) ** 2 / (speaking**4).sum(axis=0)  # [days] all of equal ones, 1 of one bold one
        shows = varies & (unit > 0) & (bets >= FEWEST_BETS * HORIZON)
        estimate, error = np.where(shows, product.sum(axis=0) / unit, 0.0), np.where(shows, error / unit, np.nan)
    return np.where(enough, estimate, np.nan), np.where(enough, error, np.nan)


def mean_with_error(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`[days, ...] -> [...] × 2`: mean of values whose neighbours overlap by the horizon, and its standard error.

    Fewer than 4 horizons of days give a NaN error. Source: as in `significance.pooled_test`.
    """
    values = np.asarray(values, "float64")
    mean = values.mean(axis=0)
    if len(values) < FEWEST_DATES:
        return mean, np.full(mean.shape, np.nan)
    return mean, np.sqrt(cosine_variance(values - mean)[0]) / len(values)


def sharpe_lead(returns: ArrayLike, other: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`[days, ...] × 2 -> [...], [days, ...]`: annual Sharpe ratio of daily returns less that of others, and its noise.

    The noise of a day is what it moved the lead by, mean 0; `error_of_noise` makes the standard error of it. An account
    that never moves has a ratio of 0. Source: Ledoit & Wolf 2008, Journal of Empirical Finance 15(5), delta method.
    """
    lead, noise = 0.0, 0.0
    for sign, values in ((1, np.asarray(returns, "float64")), (-1, np.asarray(other, "float64"))):
        around = values - values.mean(axis=0)
        spread = np.sqrt((around**2).mean(axis=0))
        moves = spread > 0
        around, ratio = around / np.where(moves, spread, 1), values.mean(axis=0) / np.where(moves, spread, np.inf)
        lead = lead + sign * ratio
        noise = noise + sign * np.where(moves, around - ratio * (around**2 - 1) / 2, 0.0)
    return np.sqrt(TRADING_DAYS) * lead, np.sqrt(TRADING_DAYS) * noise


def error_of_noise(noise: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`[days, ..., symbols] -> [..., symbols], [...]`: standard error of a mean, and the share of it that is shared.

    `noise` is what each day adds to the mean, around 0, one day independent of another.
    """
    noise = np.asarray(noise, "float64")
    alone = (noise**2).sum(axis=0)
    return np.sqrt(alone) / max(len(noise), 1), shared_noise((noise.sum(axis=-1) ** 2).sum(axis=0), alone)


def shared_noise(together: ArrayLike, alone: ArrayLike) -> np.ndarray:
    """`[...], [..., symbols] -> [...]`: share of the noise that all symbols have in common, 0 to 1.

    `alone` are the variances of each symbol's sum, `together` that of the sum over all symbols.
    """
    alone = np.asarray(alone, "float64")
    least, most = alone.sum(axis=-1), np.sqrt(alone).sum(axis=-1) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.asarray(together) - least) / (most - least)
    return np.where(most > least * (1 + 1e-9), np.clip(share, 0, 1), 0.0)


def shrink(estimate: ArrayLike, error: ArrayLike, shared: ArrayLike = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """`[..., symbols] × 3 -> [..., symbols] × 2`: estimates drawn towards their mean as far as their errors ask.

    Symbols whose numbers differ by no more than noise are nearly one; those far apart keep their own. `shared` is the
    share of the noise that all have in common: it moves all alike, and averaging does not remove it. No estimate is
    drawn further than 1.64 of its errors, so that one clearly above or below 0 stays there whatever the others do. The
    second is the standard deviation of what remains unknown. NaN where an estimate or its error is; one symbol, and one
    with an error of 0, keep their own.
    Source: DerSimonian & Laird 1986, Controlled Clinical Trials 7(3), for the spread of the true values; Efron & Morris
    1972, JASA 67(337), for the limit.
    """
    own, error = (np.asarray(part, "float64") for part in (estimate, error))
    asked = np.isfinite(own) & np.isfinite(error)
    known = asked & (error > 0)
    own, error = np.where(asked, own, np.nan), np.where(asked, error, np.nan)
    spread, shared = np.where(known, error, 1.0), np.broadcast_to(shared, own.shape)

    def total(values: np.ndarray) -> np.ndarray:
        return np.where(known, values, 0.0).sum(axis=-1, keepdims=True)

    variance = np.maximum(1 - shared, 1e-6) * spread**2  # of what a symbol has alone
    n, weight = total(1.0), 1 / variance
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 where fewer than two are known
        excess = total(weight * (own - total(weight * own) / total(weight)) ** 2) - (n - 1)
        between = np.maximum(0, excess / (total(weight) - total(weight**2) / total(weight)))
        weight = 1 / (variance + between)
        common, common_error = total(weight * own) / total(weight), total(weight * spread) / total(weight)
        share = between / (between + variance)  # of a symbol's own number
        drawn = share * own + (1 - share) * common
        left = np.sqrt(share * variance + (1 - share) ** 2 / total(weight)
                       + shared * (share * spread + (1 - share) * common_error) ** 2)
    far = np.abs(drawn - own) > CLEARLY * spread
    drawn, left = np.where(far, own + CLEARLY * spread * np.sign(drawn - own), drawn), np.where(far, spread, left)
    return np.where(known & (n > 1), drawn, own), np.where(known & (n > 1), left, error)


def evidence(rows: pd.DataFrame, panel: Panel, family: str | None = None) -> pd.DataFrame:
    """One row per family and symbol of `rows` (as of `metrics.with_outcomes`): its skill, and its lead over the others.

    Columns: `skill`, `skill_error` of `skill`; for each family F `gain_F` = (squared 5-day error of F - own) / squared
    outcome, a mean over days [fraction], and `lead_F` = share of directions that are right - that of F, where either
    names none half right, each with `_error` and `_shared`, the share of the noise that the family's symbols have in
    common; NaN against itself. With `family` these are of that one alone, and NaN for the others.
    """
    families, symbols = (pd.Index(sorted(rows[name].unique())) for name in ("family", "symbol"))
    first, last = panel.days.get_indexer(pd.DatetimeIndex([rows["date"].min(), rows["date"].max()]))
    days = panel.days[first : last + HORIZON]
    place = (days.get_indexer(rows["date"]), families.get_indexer(rows["family"]), symbols.get_indexer(rows["symbol"]))
    mean = np.full((len(days), len(families), len(symbols)), np.nan)
    mean[place] = rows["mean"]
    actual = np.full((len(days), len(symbols)), np.nan)
    actual[place[0], place[2]] = rows["actual"]
    returns = panel.returns[[panel.symbols.index(symbol) for symbol in symbols]].T  # [days, symbols]
    begin = first + np.isfinite(actual).argmax(axis=0)  # [symbols] first scored day
    drift, drift_error = _usual_return(returns, begin)
    found, error = skill(mean, returns[first + 1 : first + 1 + len(days), None], drift, drift_error)
    there = np.isfinite(mean).any(axis=0)  # [families, symbols]
    own = pd.MultiIndex.from_product([families, symbols], names=["family", "symbol"])
    columns = {"skill": found, "skill_error": error}
    for name, measure in (("gain", _losses), ("lead", _hits)):
        own_only = None if family is None else families.get_loc(family)
        lead, error, shared = _leads(measure(mean, actual), there, own_only)
        for other, one in enumerate(families):
            columns |= {f"{name}_{one}": lead[:, other], f"{name}_{one}_error": error[:, other],
                        f"{name}_{one}_shared": np.broadcast_to(shared[:, other, None], there.shape)}
    table = pd.DataFrame({name: np.reshape(values, -1) for name, values in columns.items()}, index=own)
    return table[there.reshape(-1)].reset_index()


def _leads(points: np.ndarray, there: np.ndarray, own: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`[days, families, symbols] -> [own, other, symbols] × 2, [own, other]`: leads, their errors, the shared noise.

    A lead is that in mean points over the days on which a symbol is scored; of `own` alone where it is given.
    """
    n_days, n_families, n_symbols = points.shape
    lead, error = np.full((2, n_families, n_families, n_symbols), np.nan)
    noise = np.zeros((n_days, n_families, n_families))  # summed over symbols
    alone = np.zeros((n_families, n_families, n_symbols))
    for symbol in range(n_symbols):
        some = np.flatnonzero(there[:, symbol])
        part = points[:, some, symbol]
        scored = np.isfinite(part).all(axis=1)
        asked = np.ones(len(some), dtype=bool) if own is None else some == own
        pairs = np.ix_(some[asked], some)
        difference = part[scored][:, asked, None] - part[scored][:, None, :]  # [days, own, other]
        mean, spread = mean_with_error(difference)
        lead[(*pairs, symbol)], error[(*pairs, symbol)] = mean, spread
        alone[(*pairs, symbol)] = np.nan_to_num(spread * scored.sum()) ** 2
        noise[np.ix_(np.flatnonzero(scored), some[asked], some)] += difference - mean
    itself = np.arange(n_families)
    lead[itself, itself] = error[itself, itself] = np.nan
    return lead, error, shared_noise(cosine_variance(noise)[0], alone)


def _losses(mean: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Squared errors, negative, in units of the symbol's mean squared outcome."""
    square = (np.nan_to_num(actual) ** 2).sum(axis=0) / np.maximum(np.isfinite(actual).sum(axis=0), 1)  # [symbols]
    return -((mean - actual[:, None]) ** 2) / np.maximum(square, FLAT**2)


def _hits(mean: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Right directions: 1, 0, or a half where forecast or outcome has none."""
    moved = np.where(np.abs(actual) < FLAT, 0.0, actual)[:, None]
    return 0.5 + 0.5 * np.sign(mean) * np.sign(moved)


def _usual_return(returns: np.ndarray, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`[days, symbols], [symbols] -> [symbols] × 2`: mean daily log return before the day `begin`, and its error.

    Where there is no year of history the mean is taken to be 0, with the error of a year.
    """
    known = np.isfinite(returns)
    past = known & (np.arange(len(returns))[:, None] <= begin)  # the return of day `begin` itself was known by then
    n = past.sum(axis=0)
    mean = np.where(past, returns, 0).sum(axis=0) / np.maximum(n, 1)
    spread = np.sqrt((np.where(known, returns, 0) ** 2).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    return np.where(n >= FEWEST_HISTORY, mean, 0.0), spread / np.sqrt(np.maximum(n, FEWEST_HISTORY))


def _from_zero(values: np.ndarray) -> np.ndarray:
    """`[days, ...] -> [days + 1, ...]`: running sums that begin with 0."""
    return np.concatenate([np.zeros((1, *values.shape[1:])), values.cumsum(axis=0)])
