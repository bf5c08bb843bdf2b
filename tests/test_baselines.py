from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from vnq_colab.data.forecast import SCORES, check_forecast, make_labels, rank_correlation
from vnq_colab.data.panel import CLOSE, FLAT, build_panel
from vnq_colab.data.splits import yearly_folds
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.models.baselines import RIDGE_PENALTIES, opponents
from vnq_colab.settings import Task

JUDGED = ("SYN002", "SYN004")


@pytest.fixture(scope="module")
def everyone(panel, folds):
    return opponents(panel, make_labels(panel, Task()), folds, JUDGED)


def of(table, family, part="test", symbol="SYN002"):
    return table[(table["family"] == family) & (table["part"] == part) & (table["symbol"] == symbol)].reset_index()


def test_opponents_forecast_every_judged_symbol_on_the_days_of_the_folds(everyone, panel, splits):
    assert set(everyone["family"]) == {"zero", "majority", "momentum", "reversal", "crossing", "ridge"}
    for (family, part), rows in everyone.groupby(["family", "part"]):
        check_forecast(rows, SCORES)
        days = getattr(splits, part).mask(panel.days)
        assert len(rows) == panel.select(JUDGED).present[:, days].sum(), (family, part)
        assert rows[["mean", "p_up"]].isna().all(axis=None) == (family == "ridge")
    assert (everyone.loc[everyone["family"] == "zero", ["score", "mean"]] == 0).all(axis=None)


def test_majority_is_the_direction_of_the_training_days(everyone, panel, splits):
    for symbol in JUDGED:
        ahead = panel.ahead()[panel.symbols.index(symbol)][splits.train.mask(panel.days)]
        moved = ahead[np.abs(ahead) >= FLAT]
        majority = of(everyone, "majority", symbol=symbol)
        assert np.sign(majority["mean"]).unique().tolist() == [1.0 if (moved > 0).mean() >= 0.5 else -1.0]
        assert majority["p_up"].unique() == pytest.approx([(moved > 0).mean()])
        assert (majority["score"] == majority["p_up"]).all()


def test_momentum_is_the_last_five_days_and_reversal_its_opposite(everyone, panel):
    close = pd.Series(panel.prices[panel.symbols.index("SYN002"), :, CLOSE], panel.days).dropna()
    momentum, reversal = (of(everyone, name) for name in ("momentum", "reversal"))
    past = np.log(close / close.shift(5))[momentum["date"]].to_numpy()
    np.testing.assert_allclose(momentum["score"], past, atol=1e-12)
    np.testing.assert_allclose(reversal["score"], -past, atol=1e-12)
    assert (np.sign(momentum["mean"]) == -np.sign(reversal["mean"])).all()
    moved = momentum["mean"] != 0
    assert momentum.loc[moved, "p_up"].tolist() == (0.5 + 0.05 * np.sign(past[moved])).tolist()
    assert momentum.loc[moved, "mean"].abs().nunique() == 1, "a typical move"


def test_crossing_averages_follow_the_trend(everyone, panel):
    close = np.log(pd.Series(panel.prices[panel.symbols.index("SYN002"), :, CLOSE], panel.days).dropna())
    cross = of(everyone, "crossing")
    expected = (close.rolling(10).mean() - close.rolling(50).mean())[cross["date"]]
    np.testing.assert_allclose(cross["score"], expected, atol=1e-12)
    assert (np.sign(cross["mean"]) == np.sign(expected).to_numpy()).all()


@pytest.fixture(scope="module")
def planted():
    """(panel, labels, folds) of a market with a planted signal."""
    panel = build_panel(synthetic_prices(20, 900, seed=3, signal=0.4))
    return panel, make_labels(panel, Task()), yearly_folds(panel.days)


def test_ridge_is_that_of_scikit_learn_and_finds_a_planted_signal(planted):
    """Over all stocks, penalty by penalty; the one whose order is best on the validation days."""
    panel, labels, folds = planted
    assert len(folds) == 1
    train, valid, test = (getattr(folds[0], part).mask(panel.days) for part in ("train", "valid", "test"))
    rows, truth = labels.known & train, np.where(labels.known, labels.values[:, :, 0], np.nan)
    mean, spread = panel.values[rows].mean(axis=0, dtype="float64"), panel.values[rows].std(axis=0, dtype="float64")
    scaled = (panel.values - mean) / np.where(spread > 1e-6, spread, 1)
    best = -np.inf, None
    for penalty in RIDGE_PENALTIES:
        model = Ridge(penalty).fit(scaled[rows], truth[rows])
        scores = scaled @ model.coef_
        skill = rank_correlation(np.where(labels.known, scores, np.nan)[:, valid], truth[:, valid])
        best = max(best, (skill, penalty), key=lambda found: found[0])
        if best[1] == penalty:
            expected = scores
    found = opponents(panel, labels, folds, panel.symbols).query("family == 'ridge' and part == 'test'")
    made = found.pivot(index="symbol", columns="date", values="score").to_numpy()
    there = np.where(panel.present, expected, np.nan)[:, test]
    level = np.nanmean(made - there)  # the same for all: an order does not ask for it
    np.testing.assert_allclose(made - level, there, rtol=1e-3, atol=1e-3)
    assert rank_correlation(made, panel.ahead()[:, test]) > 0.1


def test_opponents_never_see_the_test_days(planted):
    """Prices after the first test day may say anything; the forecasts up to it stay the same."""
    panel, _, folds = planted
    first = panel.days.get_loc(pd.Timestamp(folds[0].test.first))
    values, prices = panel.values.copy(), panel.prices.copy()
    values[:, first + 1:] = 9.0
    prices[:, first + 1:] *= np.random.default_rng(0).uniform(0.5, 2, prices[:, first + 1:].shape)
    other = replace(panel, values=values, prices=prices)
    known, poisoned = (opponents(one, make_labels(one, Task()), folds, JUDGED) for one in (panel, other))
    known, poisoned = (table[table["date"] <= panel.days[first]] for table in (known, poisoned))
    assert (known["part"] == "test").sum() == 2 * 6
    pd.testing.assert_frame_equal(known, poisoned)
