"""Does a family know something, over all symbols at once? Symbols move together and days overlap, and both are counted.

A `table` here is what `metrics.with_outcomes` gives: rows of a Forecast with `actual`, the 5-day log return that came.
"""

import numpy as np
import pandas as pd

from vnq_colab.data.panel import FLAT
from vnq_colab.errors import DataError, did_you_mean, name_a_few
from vnq_colab.evaluation.metrics import correlation_within, to_rank
from vnq_colab.evaluation.probability import crps_normal, log_loss_of
from vnq_colab.evaluation.significance import block_bootstrap, diebold_mariano, pooled_test

LOSSES = {  # of one row [log return², log return, nats, log return]
    "squared_error": lambda rows: (rows["mean"] - rows["actual"]) ** 2,
    "absolute_error": lambda rows: (rows["mean"] - rows["actual"]).abs(),
    "log_loss": lambda rows: log_loss_of(rows["p_up"], rows["actual"] >= FLAT),
    "crps": lambda rows: crps_normal(rows["actual"], rows["mean"], rows["scale"]),
}
SKILL_COLUMNS = ("family", "n_rows", "n_dates", "accuracy", "base_rate", "excess", "excess_low", "excess_high", "t",
                 "p", "bootstrap_low", "bootstrap_high", "bootstrap_p")
COMPARE_COLUMNS = ("opponent", "n_dates", "gain", "gain_low", "gain_high", "statistic", "p")
IC_COLUMNS = ("family", "n_dates", "ic", "ic_t", "ic_p", "rank_ic", "rank_ic_t", "rank_ic_p")
FEWEST_SYMBOLS = 5  # chosen: a correlation over fewer symbols of a date is mostly ±1


def skill(table: pd.DataFrame, *, against: str | None = None, seed: int = 0) -> pd.DataFrame:
    """One row per family: is its accuracy above the base rate, over all symbols at once, dates as clusters?

    A directed day counts 1 if right, less 1 if the rule to beat is right too. `against` None: the rule always names the
    direction that was the symbol's more frequent one of these very days; nobody knew it beforehand, so a coin is below
    0 and 0 is already good. Else the name of a family, such as "majority", on the same rows; where that has no
    direction it is half right. Columns: `n_rows`, `n_dates`; `accuracy`, `base_rate` of the rule on the directed rows,
    `excess` = their difference; `excess_low`, `excess_high`, `t`, `p` of `significance.pooled_test`; `bootstrap_low`,
    `bootstrap_high`, `bootstrap_p` of `significance.block_bootstrap`. A family without a direction, as the zero
    forecast, has no row.
    """
    moved = table[table["actual"].abs() >= FLAT]
    up = moved["actual"] > 0
    right = pd.Series(np.where(moved["mean"] == 0, 0.5, (moved["mean"] > 0) == up), index=moved.index)
    if against is None:
        mostly_up = up.groupby([moved["family"], moved["symbol"]]).transform("mean") >= 0.5
        base = (mostly_up == up).astype("float64")
    else:
        _refuse_unknown(against, list(table["family"].unique()))
        other = right[moved["family"] == against]
        other.index = pd.MultiIndex.from_frame(moved.loc[other.index, ["symbol", "date"]])
        base = pd.Series(other.reindex(pd.MultiIndex.from_frame(moved[["symbol", "date"]])).to_numpy(), moved.index)
    rows = pd.DataFrame({"family": moved["family"], "date": moved["date"], "right": right, "base": base})
    lines = []
    for family, part in rows[moved["mean"] != 0].dropna().groupby("family", sort=True):
        if family == against:
            continue
        excess = part["right"] - part["base"]
        test, resampled = pooled_test(excess, part["date"]), block_bootstrap(excess, part["date"], seed=seed)
        lines.append({
            "family": family, "n_rows": len(part), "n_dates": test.n_dates, "accuracy": part["right"].mean(),
            "base_rate": part["base"].mean(), "excess": test.mean, "excess_low": test.low, "excess_high": test.high,
            "t": test.statistic, "p": test.p, "bootstrap_low": resampled.low, "bootstrap_high": resampled.high,
            "bootstrap_p": resampled.p})
    return pd.DataFrame(lines, columns=SKILL_COLUMNS)


def compare(table: pd.DataFrame, family: str, *, loss: str = "squared_error") -> pd.DataFrame:
    """One row per other family: does `family` lose less on the same rows? Diebold and Mariano's test of date means.

    `loss` is one of LOSSES: squared_error, absolute_error, log_loss, crps. Columns: `opponent`, `n_dates`; `gain`, the
    opponent's mean loss less ours; `gain_low`, `gain_high`; `statistic`, and `p` that we are no better.
    """
    _refuse_unknown(family, list(table["family"].unique()))
    _refuse_unknown(loss, list(LOSSES))
    rows = table[table["actual"].abs() >= FLAT] if loss == "log_loss" else table
    losses = rows.assign(loss=LOSSES[loss](rows)).pivot(index=["symbol", "date"], columns="family", values="loss")
    lines = []
    for other in losses.columns.drop(family):
        both = losses[[family, other]].dropna().groupby("date").mean()
        test = diebold_mariano(both[family], both[other])
        lines.append({"opponent": other, "n_dates": test.n_dates, "gain": test.mean, "gain_low": test.low,
                      "gain_high": test.high, "statistic": test.statistic, "p": test.p})
    return pd.DataFrame(lines, columns=COMPARE_COLUMNS)


def information_coefficient(table: pd.DataFrame) -> pd.DataFrame:
    """One row per family: does `mean` order the symbols of one date? Mean correlation across symbols, date by date.

    Columns: `n_dates` with at least 5 symbols and a `mean` that differs; `ic`, `ic_t`, `ic_p` (Pearson) and `rank_ic`,
    `rank_ic_t`, `rank_ic_p` (Spearman), tested by `significance.pooled_test`. A common forecast for all symbols has
    none, however good. Source: Grinold & Kahn 1999, Active Portfolio Management.
    """
    keys = table.groupby(["family", "date"], sort=True)
    place, size = keys.ngroup().to_numpy(), keys.size()
    ranks = table[["mean"]].assign(actual=to_rank(table["actual"])).groupby(place).rank()
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {name: correlation_within(of["mean"].to_numpy(), of["actual"].to_numpy(), place, keys.ngroups)
                 for name, of in (("ic", table), ("rank_ic", ranks))}
    by_date = size.index.to_frame(index=False).assign(**found)[size.to_numpy() >= FEWEST_SYMBOLS].dropna()
    lines = []
    for family, rows in by_date.groupby("family", sort=True):
        lines.append({"family": family, "n_dates": len(rows)})
        for name in found:
            test = pooled_test(rows[name], rows["date"])
            lines[-1] |= {name: test.mean, f"{name}_t": test.statistic, f"{name}_p": test.p}
    return pd.DataFrame(lines, columns=IC_COLUMNS)


def _refuse_unknown(name: str, known: list[str]) -> None:
    if name not in known:
        raise DataError(f"there is no {name!r} among {name_a_few(known)}.{did_you_mean(name, known)}")
