"""The Forecast at its door, and the ensemble of ranks."""

import numpy as np
import pandas as pd
import pytest

from tests.tiny import forecast_of
from vnq_colab.data.task import COLUMNS, SCORES, check_forecast, ensemble_scores, make_scores
from vnq_colab.errors import DataError

DAYS = pd.bdate_range("2025-01-01", periods=4)


@pytest.fixture
def forecast():
    return pd.concat([forecast_of(symbol, DAYS, 0.01, family=family) for symbol in ("AAA", "BBB")
                      for family in ("trees", "global")], ignore_index=True)


@pytest.mark.parametrize("column, value, message", [
    ("p_up", 1.2, r"p_up outside \[0, 1\]"), ("score", np.nan, "score is not a number"),
    ("edge", np.inf, "edge is not a number"), ("scale", 0.0, "scale is not positive"),
])
def test_impossible_forecast_is_refused_with_symbol_and_day(forecast, column, value, message):
    forecast.loc[3, column] = value
    with pytest.raises(DataError, match=f"forecast of AAA 2025-01-06: {message}"):
        check_forecast(forecast)


def test_forecast_twice_for_a_day_or_without_a_column_is_refused(forecast):
    with pytest.raises(DataError, match="'scale'"):
        check_forecast(forecast.drop(columns="scale"))
    with pytest.raises(DataError, match="dates without a time zone"):
        check_forecast(forecast.assign(date=forecast["date"].dt.tz_localize("UTC")))
    forecast.loc[1, "date"] = forecast.loc[0, "date"]
    with pytest.raises(DataError, match="two forecasts for one day"):
        check_forecast(forecast)


def test_checked_forecast_is_sorted_and_scores_need_no_more_than_scores(forecast):
    checked = check_forecast(forecast.sample(frac=1, random_state=0))
    assert set(checked.columns) == set(COLUMNS)
    assert checked[["family", "symbol", "date"]].apply(tuple, axis=1).is_monotonic_increasing
    assert len(check_forecast(forecast[list(SCORES)], SCORES)) == len(forecast)


def test_scores_are_made_where_a_symbol_is_there():
    there = np.array([[True, False, True, True], [False, True, True, False]])
    values = np.arange(8.0).reshape(2, 4)
    found = check_forecast(make_scores("trees", ("AAA", "BBB"), DAYS, there, score=values, mean=-values), SCORES)
    assert found["symbol"].tolist() == ["AAA"] * 3 + ["BBB"] * 2 and found["score"].tolist() == [0, 2, 3, 5, 6]
    assert found["date"].tolist() == [DAYS[day] for day in (0, 2, 3, 1, 2)] and found["mean"].eq(-found["score"]).all()


def test_ensemble_is_the_mean_of_the_families_within_day_ranks():
    scores = pd.DataFrame({"family": ["one"] * 4 + ["two"] * 4 + ["three"] * 3, "symbol": list("ABCA" + "ABCA" + "ABC"),
                           "date": [DAYS[0]] * 3 + [DAYS[1]] + [DAYS[0]] * 3 + [DAYS[1]] + [DAYS[0]] * 3,
                           "score": [1.0, 2, 3, 7, 0.3, 0.1, 0.1, 0.5, 9, 9, 1]})
    found = ensemble_scores(scores, ["one", "two"]).set_index(["date", "symbol"])
    assert (found["family"] == "ensemble").all() and len(found) == 4
    assert found.loc[DAYS[0], "score"].to_dict() == {"A": 0.0, "B": -0.25, "C": 0.25}  # two: 1, -1/2, -1/2
    assert found.loc[(DAYS[1], "A"), "score"] == 0, "alone on its day"


def test_ensemble_of_a_stretched_family_is_the_same_and_each_fold_and_part_has_its_own():
    random = np.random.default_rng(0)
    places = [(family, fold, part) for family in ("one", "two") for fold in (0, 1) for part in ("valid", "test")]
    scores = pd.concat([forecast_of(symbol, DAYS, random.normal(size=4), family=family).assign(fold=fold, part=part)
                        for symbol in "ABC" for family, fold, part in places])
    found = ensemble_scores(scores, ("one", "two"))
    assert len(found) == 3 * 4 * 4 and list(found.columns) == ["family", "symbol", "date", "part", "fold", "score"]
    stretched = scores.assign(score=np.where(scores["family"] == "one", np.exp(9 * scores["score"]), scores["score"]))
    pd.testing.assert_frame_equal(ensemble_scores(stretched, ("one", "two")), found)
    alone = ensemble_scores(scores[(scores["fold"] == 1) & (scores["part"] == "test")], ("one", "two"))
    mine = found[(found["fold"] == 1) & (found["part"] == "test")].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, mine)
