"""The questions to a market and to a stock before it may be traded, each with its answer as a plain dict.

`gate`, `asked`, `measured`, `low, high` (95 % interval), `needed`, `passed` (None: not measured), and a `sentence`.
"""

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.evaluation.basket_result import BasketResult
from vnq_colab.evaluation.significance import Z_95, deflated_sharpe, mean_test

FEWEST_SYMBOLS, FEWEST_DAYS = 20, 500
MOST_P_ORDER, MOST_P_BASKET = 0.01, 0.05  # after the multiple-testing charge
LEAST_BEATEN, LEAST_PROBABILITY = 0.95, 0.95  # of random baskets; that the Sharpe ratio is no luck
MOST_CORRELATION, MOST_SHARPE, MOST_ACCURACY = 0.2, 4.0, 0.65  # above: too good to be true
FEWEST_SYMBOL_DAYS = 250  # chosen: a year; below, the error of a place is as large as any place
LEAST_PLACE = 0.9  # [probability] that its place in the order is above 0
MOST_LOCKED = 0.1  # [fraction of days] on which it could not be bought
ORIGINAL = {"accuracy": 0.52, "rmse": 0.03, "sharpe": 0.8, "drawdown": 0.10}  # the project's source texts
TOO_GOOD = "too good to be true: look for a leak, in the data too"
TIERS = {0.58: "excellent", 0.56: "good", 0.54: "acceptable", 0.52: "minimum"}
Gate = dict[str, Any]


def _gate(name: str, asked: str, measured: float, compare: Callable[[float, float], bool], needed: float, says: str,
          is_certain: bool = True, low: float = np.nan, high: float = np.nan) -> Gate:
    """A gate that passes where `compare(measured, needed)` holds and it is certain enough; NaN: not measured."""
    numbers = {"measured": measured, "low": low, "high": high, "needed": needed}
    numbers = {key: float(value) if np.isfinite(value) else None for key, value in numbers.items()}
    known = numbers["measured"] is not None
    return {"gate": name, "asked": asked, **numbers,
            "passed": bool(compare(measured, needed) and is_certain) if known else None,
            "sentence": f"{says} (asked: {asked})." if known else f"Not measured: {asked}."}


def market_gates(daily: np.ndarray, n_symbols: int, n_trials: int = 1, *, alpha: float, alpha_p: float, beaten: float,
                 probability: float) -> list[Gate]:
    """The gates of a market.

    `daily [days]` are rank correlations; of a basket: `alpha` a year with its p, the share of random baskets that it
    has `beaten`, and the `probability` that is its deflated Sharpe ratio.
    """
    test, charge = mean_test(daily), f"charged for {n_trials} test-set evaluation{'s' * (n_trials > 1)}"
    p_order, p_basket = (min(1.0, float(p) * n_trials) for p in (test.p, alpha_p))
    return [
        _gate("enough_symbols", f"at least {FEWEST_SYMBOLS} judged stocks", n_symbols, ge, FEWEST_SYMBOLS,
              f"{n_symbols} stocks are judged"),
        _gate("enough_days", f"at least {FEWEST_DAYS} test days", test.n_days, ge, FEWEST_DAYS,
              f"{test.n_days:,} test days are judged"),
        _gate("order", f"a rank correlation above 0 with p of at most {MOST_P_ORDER:g}", test.mean, gt, 0.0,
              f"The rank correlation with tradable returns is {test.mean:.3f}, 95% interval {test.low:.3f} to "
              f"{test.high:.3f}, p = {p_order:.2g} {charge}", p_order <= MOST_P_ORDER, test.low, test.high),
        _gate("basket", f"a basket's alpha after costs above 0 with p of at most {MOST_P_BASKET:g}", alpha, gt, 0.0,
              f"After costs the basket has an alpha of {alpha:+.1%} a year over the equal-weighted universe, p = "
              f"{p_basket:.2g} {charge}", p_basket <= MOST_P_BASKET),
        _gate("random_baskets", f"an alpha above that of {LEAST_BEATEN:.0%} of random baskets", beaten, gt,
              LEAST_BEATEN, f"It beats {beaten:.1%} of random baskets of the same turnover"),
        _gate("deflated_sharpe", f"a deflated Sharpe ratio above {LEAST_PROBABILITY:g}", probability, gt,
              LEAST_PROBABILITY, f"The deflated Sharpe ratio of its excess returns is {probability:.3f}, {charge}"),
    ]


def basket_numbers(basket: BasketResult | None, n_trials: int) -> dict[str, float]:
    """What `market_gates` asks of a basket; NaN without one."""
    if basket is None:
        return dict.fromkeys(("alpha", "alpha_p", "beaten", "probability"), np.nan)
    excess = (basket.returns["basket"] - basket.returns["equal_weighted"]).dropna()
    return {"alpha": basket.alpha, "alpha_p": basket.alpha_p, "beaten": basket.beaten,
            "probability": float(deflated_sharpe(excess, n_trials))}


def plausible_gates(families: pd.DataFrame, basket: BasketResult | None, accuracy: Mapping[str, float]) -> list[Gate]:
    """What is too good to be true, of any family: correlation, Sharpe ratio of the basket, pooled accuracy."""
    best = families.sort_values("open", ascending=False).iloc[0]
    pooled = pd.Series({"no family": np.nan} | dict(accuracy)).sort_values(ascending=False)  # NaN comes last
    sharpe = np.nan if basket is None else float(basket.totals.loc["basket", "sharpe"])
    return [
        _gate("plausible_order", f"no family with a rank correlation above {MOST_CORRELATION:g}", best["open"], le,
              MOST_CORRELATION, f"The rank correlation of {best['family']} is {best['open']:.3f}, {TOO_GOOD}"),
        _gate("plausible_sharpe", f"a net Sharpe ratio of at most {MOST_SHARPE:g}", sharpe, le, MOST_SHARPE,
              f"The basket's Sharpe ratio is {sharpe:.1f}, {TOO_GOOD}"),
        _gate("plausible_accuracy", f"no family with a pooled accuracy above {MOST_ACCURACY:.0%}", pooled.iloc[0], le,
              MOST_ACCURACY, f"The accuracy of {pooled.index[0]} is {pooled.iloc[0]:.1%}, {TOO_GOOD}"),
    ]


def symbol_gates(row: Any, place: float, error: float, value: float) -> list[Gate]:
    """The gates of a row of `symbols`: its shrunk `place` with its error, and the traded value that is needed [VND]."""
    from scipy.special import ndtr

    probability = float(ndtr(place / error)) if error > 0 else np.nan
    return [
        _gate("enough_days", f"at least {FEWEST_SYMBOL_DAYS} scored days", row.n_days, ge, FEWEST_SYMBOL_DAYS,
              f"{row.n_days:,.0f} days are scored"),
        _gate("place", f"a share in the rank correlation above 0 with at least {LEAST_PLACE:.0%} probability",
              place, gt, 0.0, f"Its share in the rank correlation, shrunk (empirical Bayes), is {place:.3f}, above 0 "
              f"with probability {probability:.0%}", probability >= LEAST_PLACE, place - Z_95 * error,
              place + Z_95 * error),
        _gate("traded_value", f"at least {value / 1e9:.1f} bn VND a day, so that one position of the basket is a small "
              "part", row.traded_value, ge, value, f"Median traded value {row.traded_value / 1e9:.1f} bn VND a day"),
        _gate("locked", f"not to be bought on at most {MOST_LOCKED:.0%} of the days", row.locked, le, MOST_LOCKED,
              f"Not to be bought on {row.locked:.1%} of the days"),
        _gate("plausible_accuracy", f"an accuracy of at most {MOST_ACCURACY:.0%}", row.accuracy, le, MOST_ACCURACY,
              f"Accuracy {row.accuracy:.1%}, {TOO_GOOD}"),
    ]


def original_gates(row: Any) -> list[Gate]:
    """Those of the project's source texts."""
    tier = next((name for least, name in TIERS.items() if row.accuracy > least), "below every tier")
    sharpe = np.nan if np.isnan(row.max_drawdown) else np.nan_to_num(row.sharpe)  # 0 for an account that never moved
    return [
        _gate("accuracy", "a 5-day accuracy above 52% (minimum; 54% acceptable, 56% good, 58% excellent)", row.accuracy,
              gt, ORIGINAL["accuracy"], f"Accuracy {row.accuracy:.1%}, {tier}", True, row.accuracy_low,
              row.accuracy_high),
        _gate("rmse", "a 5-day RMSE below 0.03", row.rmse_5, lt, ORIGINAL["rmse"],
              f"5-day RMSE {row.rmse_5:.4f} [log return]"),
        _gate("sharpe", "a Sharpe ratio above 0.8", sharpe, gt, ORIGINAL["sharpe"], f"Sharpe ratio {sharpe:.2f}"),
        _gate("drawdown", "a maximum drawdown below 10%", row.max_drawdown, lt, ORIGINAL["drawdown"],
              f"Maximum drawdown {row.max_drawdown:.1%}"),
    ]
