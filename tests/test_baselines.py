import numpy as np
import pytest

from vnq_colab.data.forecast import check_forecast, make_forecast
from vnq_colab.errors import DataError
from vnq_colab.models.baselines import opponents


@pytest.fixture
def everyone(panel, splits):
    days = panel.days[splits.test.mask(panel.days)]
    ours = make_forecast("stockformer", "SYN001", days, np.full((len(days), 5), 0.001), np.full(len(days), 0.05),
                         np.full(len(days), 0.5))
    return opponents(ours, panel, splits)


def test_opponents_forecast_the_same_rows(everyone):
    counts = everyone.groupby("family").size()
    assert set(counts.index) == {"stockformer", "zero", "majority", "momentum"} and counts.nunique() == 1


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
