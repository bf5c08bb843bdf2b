from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from vnq_colab.data.forecast import MEANS, check_forecast, make_forecast
from vnq_colab.data.panel import build_panel, fit_scaler
from vnq_colab.data.splits import split_days
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import DataError
from vnq_colab.evaluation.metrics import score
from vnq_colab.models.baselines import opponents
from vnq_colab.models.global_network import forecast_daily
from vnq_colab.models.learned_opponents import RIDGE_PENALTIES, learned_opponents


@pytest.fixture
def everyone(panel, splits):
    days = panel.days[splits.test.mask(panel.days)]
    ours = make_forecast("stockformer", "SYN001", days, np.full((len(days), 5), 0.001), np.full(len(days), 0.05),
                         np.full(len(days), 0.5))
    return opponents(ours, panel, splits)


def test_opponents_forecast_the_same_rows(everyone):
    counts = everyone.groupby("family").size()
    assert set(counts.index) == {"stockformer", "zero", "majority", "momentum", "crossing", "ridge", "trees"}
    assert counts.nunique() == 1


def test_global_network_joins_where_a_config_asks_for_it(everyone, panel, splits, config):
    """On the same rows; its scale is the spread of its errors on the validation days, as of all that learn."""
    ours = everyone[everyone["family"] == "stockformer"]
    found = opponents(ours, panel, splits, config, quiet=True)
    mine = found[found["family"] == "global"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found[found["family"] != "global"].reset_index(drop=True), everyone)
    assert mine["date"].tolist() == ours["date"].tolist()

    days = splits.valid.mask(panel.days)
    one, asked = panel.select(["SYN001"]), days | panel.days.isin(ours["date"])
    daily = forecast_daily(one, splits, config, asked, quiet=True)[0]  # [days, horizon]
    np.testing.assert_allclose(mine["mean"], daily[panel.days.isin(ours["date"])].sum(axis=1), rtol=1e-4, atol=1e-8)
    labels, known = one.labels()
    errors = (labels[0] - daily)[days & known[0]].sum(axis=1)
    assert mine["scale"].unique() == pytest.approx([np.sqrt((errors**2).mean())], rel=1e-4)
    np.testing.assert_allclose(mine["p_up"], norm.cdf(mine["mean"] / mine["scale"]))


def test_majority_is_the_direction_of_the_training_days(everyone, panel, splits):
    outcomes = panel.outcomes()
    train = outcomes[(outcomes["symbol"] == "SYN001") & (outcomes["date"] <= splits.train.last)]["actual"]
    moved = train[train.abs() >= 1e-6]
    majority = everyone[everyone["family"] == "majority"]
    assert np.sign(majority["mean"]).unique().tolist() == [1.0 if (moved > 0).mean() >= 0.5 else -1.0]
    assert majority["p_up"].iloc[0] == pytest.approx((moved > 0).mean(), abs=1e-3)


def test_momentum_is_the_last_five_days(everyone, panel):
    momentum = everyone[everyone["family"] == "momentum"].iloc[7]
    day = panel.days.get_loc(momentum["date"])
    assert momentum["mean"] == pytest.approx(np.nansum(panel.returns[0, day - 4: day + 1]))


def test_crossing_averages_follow_the_trend(everyone, panel):
    cross = everyone[everyone["family"] == "crossing"].iloc[7]
    day = panel.days.get_loc(cross["date"])
    price = np.nancumsum(panel.returns[0])[:day + 1]
    assert np.sign(cross["mean"]) == np.sign(price[-10:].mean() - price[-50:].mean())


@pytest.fixture(scope="module")
def dialled():
    """(panel, splits, rows to forecast) of a market with a planted signal, of half of the variance."""
    panel = build_panel(synthetic_prices(4, 900, seed=3, signal=0.5))
    splits = split_days(panel.days)
    days = panel.days[splits.test.mask(panel.days)]
    rows = [make_forecast("stockformer", symbol, days, np.full((len(days), 5), 0.001), np.full(len(days), 0.05),
                          np.full(len(days), 0.5)) for symbol in panel.symbols]
    return panel, splits, pd.concat(rows, ignore_index=True)


def test_opponents_that_learn_find_a_planted_signal(dialled):
    panel, splits, rows = dialled
    scores = score(learned_opponents(rows, panel, splits), panel).groupby("family")["correlation"].mean()
    assert scores["ridge"] > 0.3 and scores["trees"] > 0.3


def test_ridge_is_that_of_scikit_learn(dialled):
    """Penalty by penalty on the validation days, the best of five on the test days."""
    panel, splits, rows = dialled
    ridge = learned_opponents(rows, panel, splits).query("family == 'ridge'").reset_index(drop=True)
    scaler = fit_scaler(panel, pd.Timestamp(splits.train.first), pd.Timestamp(splits.train.last))
    scaled, (labels, known) = scaler.scale(panel.values, panel.present).astype("float64"), panel.labels()
    expected = []
    for x, y, has_label in zip(scaled, labels, known, strict=True):
        train, valid = (has_label & part.mask(panel.days) for part in (splits.train, splits.valid))
        fitted = [Ridge(penalty).fit(x[train], y[train]) for penalty in RIDGE_PENALTIES]
        best = min(fitted, key=lambda model: ((model.predict(x[valid]) - y[valid]) ** 2).mean())
        expected.append(best.predict(x[splits.test.mask(panel.days)]))
    np.testing.assert_allclose(ridge[list(MEANS)], np.concatenate(expected), rtol=1e-4, atol=1e-7)


def test_trees_are_as_many_as_the_validation_days_choose(dialled):
    """Against one prediction of all rows after every tenth tree."""
    panel, splits, rows = dialled
    trees = learned_opponents(rows, panel, splits).query("family == 'trees'").reset_index(drop=True)
    scaler = fit_scaler(panel, pd.Timestamp(splits.train.first), pd.Timestamp(splits.train.last))
    labels, known = panel.labels()
    y = labels.sum(axis=2) / scaler.target[:, None]
    train, valid = (known & part.mask(panel.days) for part in (splits.train, splits.valid))
    model = HistGradientBoostingRegressor(learning_rate=0.05, max_iter=150, max_leaf_nodes=15, early_stopping=False,
                                          random_state=0, min_samples_leaf=train.sum() // 20)
    model.fit(panel.values[train], y[train])
    everywhere = [found.reshape(y.shape) for found in model.staged_predict(panel.values.reshape(-1, 50))][9::10]
    best = min(everywhere, key=lambda found: ((found - y)[valid] ** 2).mean()) * scaler.target[:, None]
    expected = best[:, splits.test.mask(panel.days)].flatten()
    np.testing.assert_allclose(trees["mean"], expected, rtol=1e-6, atol=1e-9)
    assert len({tuple(found[0]) for found in everywhere}) > 1 and not np.array_equal(best, everywhere[-1])


def test_opponents_that_learn_never_see_the_test_days(dialled):
    """Prices after the last validation day may say anything; the forecasts of the first test day stay the same."""
    panel, splits, rows = dialled
    first = rows[rows["date"] == rows["date"].min()]
    later = panel.days >= first["date"].iloc[0] + pd.Timedelta(days=1)
    values, returns = panel.values.copy(), panel.returns.copy()
    values[:, later] = 9.0
    returns[:, later] = 0.1
    poisoned = replace(panel, values=values, returns=returns)
    pd.testing.assert_frame_equal(learned_opponents(first, panel, splits), learned_opponents(first, poisoned, splits))


@pytest.mark.parametrize("column, value, message", [
    ("p_up", 1.2, r"p_up outside \[0, 1\]"), ("mean_3", np.nan, "mean_3 is not a number"),
    ("scale", 0.0, "not positive"),
])
def test_impossible_forecast_is_refused_with_symbol_and_day(everyone, column, value, message):
    everyone.loc[3, column] = value
    with pytest.raises(DataError, match=f"forecast of SYN001 2025-.*{message}"):
        check_forecast(everyone)


def test_forecast_twice_for_a_day_or_without_a_column_is_refused(everyone):
    everyone.loc[1, "date"] = everyone.loc[0, "date"]
    with pytest.raises(DataError, match="two forecasts for one day"):
        check_forecast(everyone)
    with pytest.raises(DataError, match="'scale'"):
        check_forecast(everyone.drop(columns="scale"))
