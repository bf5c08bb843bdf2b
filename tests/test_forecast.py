"""Labels by hand, folds with their purge, and the Forecast at its door."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, spearmanr

from tests.tiny import forecast_of, panel_of
from vnq_colab.data.forecast import (
    COLUMNS,
    SCORES,
    check_forecast,
    check_market,
    ensemble_scores,
    make_labels,
    make_scores,
    normal_scores,
    rank_correlation,
)
from vnq_colab.data.panel import CLOSE, OPEN
from vnq_colab.data.splits import Splits, split_days, yearly_folds
from vnq_colab.errors import DataError
from vnq_colab.settings import Task, build

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
FOURTHS = norm.ppf([1 / 8, 3 / 8, 5 / 8, 7 / 8])  # normal scores of four stocks, lowest first
DAYS = pd.bdate_range("2018-01-01", "2024-02-20")  # 2024 has too few days to be judged by itself
FOUR = pd.bdate_range("2025-01-01", periods=4)


@pytest.fixture
def tiny():
    """Four stocks, 9 days; the closes of day 5 over those of day 0: DDD, CCC, BBB, AAA, best first.

    From the open of day 1 to that of day 6 the order is AAA, CCC, BBB, DDD. BBB is absent on day 5.
    """
    closes, opens = np.full((4, 9), 100.0), np.full((4, 9), 100.0)
    closes[:, 5] = [101, 102, 103, 104]
    opens[:, 6] = [104, 102, 103, 101]
    returns = np.diff(np.log(closes), axis=1, prepend=np.nan)
    panel = panel_of(returns, SYMBOLS)
    prices = panel.prices.copy()
    prices[:, :, OPEN], prices[:, :, CLOSE] = opens, closes
    return replace(panel, prices=prices)


def without(panel, symbol, day):
    """The same panel with a symbol absent on a day."""
    prices, present, row = panel.prices.copy(), panel.present.copy(), panel.symbols.index(symbol)
    prices[row, day], present[row, day] = np.nan, False
    return replace(panel, prices=prices, present=present)


@pytest.mark.parametrize("label, expected", [
    ("close", FOURTHS), ("open", FOURTHS[[3, 1, 2, 0]]), ("mixed", (FOURTHS + FOURTHS[[3, 1, 2, 0]]) / 2)])
def test_rank_label_is_the_normal_score_of_the_return_that_the_task_names(tiny, label, expected):
    labels = make_labels(tiny, Task(label=label))
    assert labels.values.shape == (4, 9, 1) and labels.values.dtype == np.float32
    assert labels.values[:, 0, 0] == pytest.approx(expected, abs=1e-6) and labels.known[:, 0].all()
    reach = 5 if label == "close" else 6  # the last days whose label is not known yet
    assert labels.known[:, :-reach].all() and not labels.known[:, -reach:].any()
    assert not labels.values[:, -reach:].any()


def test_equal_returns_share_the_middle_of_the_normal(tiny):
    assert make_labels(tiny, Task(label="close")).values[:, 1, 0] == pytest.approx(np.zeros(4), abs=1e-6)


@pytest.mark.parametrize("label, lost", [("close", [1, 6]), ("open", [0, 5, 6]), ("mixed", [0, 1, 5, 6])])
def test_absent_day_leaves_its_stock_without_a_label_and_the_others_ranked_among_themselves(label, lost):
    panel = panel_of(np.random.default_rng(0).normal(0, 0.02, (4, 20)), SYMBOLS)
    before, labels = (make_labels(one, Task(label=label)) for one in (panel, without(panel, "BBB", 6)))
    row = SYMBOLS.index("BBB")
    assert np.flatnonzero(before.known[row] & ~labels.known[row]).tolist() == lost
    others = [0, 2, 3]
    np.testing.assert_array_equal(labels.known[others], before.known[others])
    if label == "close":
        thirds = norm.ppf([1 / 6, 3 / 6, 5 / 6])
        assert np.sort(labels.values[others, 1, 0]) == pytest.approx(thirds, abs=1e-6)
    assert not labels.values[row, lost].any()


def test_return_label_is_the_daily_returns_of_the_horizon():
    panel = panel_of(np.random.default_rng(1).normal(0, 0.02, (2, 30)), SYMBOLS[:2])
    labels = make_labels(without(panel, "BBB", 12), Task(target="return"))
    assert labels.values.shape == (2, 30, 5)
    np.testing.assert_allclose(labels.values[0, 10], panel.returns[0, 11:16], rtol=1e-5)
    assert labels.known[0].tolist() == [True] * 25 + [False] * 5
    assert np.flatnonzero(~labels.known[1, :25]).tolist() == [7, 8, 9, 10, 11, 12]  # each day ahead is asked
    assert not labels.values[~labels.known].any()


def test_direction_label_is_the_sign_of_the_return_from_close_to_close(tiny):
    labels = make_labels(tiny, Task(target="direction"))
    assert labels.values[:, 0, 0].tolist() == [1, 1, 1, 1] and labels.values[:, 1, 0].tolist() == [0, 0, 0, 0]
    assert labels.known[:, :4].all() and not labels.known[:, 4:].any()


@pytest.mark.parametrize("task", [Task(label="close"), Task(label="open"), Task(), Task(target="return"),
                                  Task(target="direction")], ids=["close", "open", "mixed", "return", "direction"])
def test_prices_beyond_the_reach_of_a_label_change_no_label(panel, task):
    """Later than its own end: five days from close to close, six from the next open; the border's day moves some."""
    reach = 6 if task.target == "rank" and task.label != "close" else 5
    before = make_labels(panel, task)

    def changed(first):
        prices = panel.prices.copy()
        prices[:, first:] *= np.random.default_rng(0).uniform(0.5, 2, prices[:, first:].shape)
        other = make_labels(replace(panel, prices=prices), task)
        return (other.values != before.values).any(axis=(0, 2))[:500], (other.known != before.known)[:, :500]

    assert not changed(500 + reach)[0].any() and not changed(500 + reach)[1].any()
    assert changed(499 + reach)[0].nonzero()[0].tolist() == [499]


def test_normal_scores_are_those_of_the_ranks_and_a_single_one_is_zero():
    values = np.array([[3.0, np.nan, 1.0], [1.0, 5.0, 1.0], [2.0, np.nan, 7.0]])
    found = normal_scores(values)
    assert found[:, 0] == pytest.approx(norm.ppf([5 / 6, 1 / 6, 3 / 6]))
    assert found[:, 1] == pytest.approx([np.nan, 0, np.nan], nan_ok=True)
    assert found[:, 2] == pytest.approx(norm.ppf([1 / 3, 1 / 3, 5 / 6]))  # equal ones share the mean of their ranks


def test_rank_correlation_is_the_mean_of_spearman_s_by_day():
    random = np.random.default_rng(2)
    scores, truth = random.normal(size=(2, 12, 40))
    scores[:, 3] = 1.0  # no order: the day does not count
    truth[:4, 7] = np.nan
    scores[4:, 7] = np.round(scores[4:, 7])  # ties
    daily = [spearmanr(scores[there, day], truth[there, day]).statistic for day in range(40) if day != 3
             for there in [np.isfinite(truth[:, day])]]
    ranked = np.where(np.isfinite(truth), scores, np.nan)
    assert rank_correlation(ranked, truth) == pytest.approx(np.mean(daily))
    assert np.isnan(rank_correlation(scores[:1], truth[:1]))


def test_market_of_few_stocks_is_refused_and_a_coarse_one_is_told(capsys):
    def market(n_stocks, opens=0.01):
        symbols = [f"S{place:02}" for place in range(n_stocks)]
        return panel_of(np.random.default_rng(0).normal(0, 0.02, (n_stocks, 10)), symbols, opens=opens)

    with pytest.raises(DataError, match="4 stocks have no order worth learning: at least 5"):
        check_market(market(4), Task())
    assert check_market(market(4), Task(target="return")) == Task(target="return") and not capsys.readouterr().err
    assert check_market(market(5), Task()) == Task() and "among 5 stocks are coarse" in capsys.readouterr().err
    assert check_market(market(20), Task()) == Task() and not capsys.readouterr().err
    assert check_market(market(20, opens=None), Task()) == Task(label="close")
    assert "no open prices of its own" in capsys.readouterr().err


def places(splits):
    """Where the training, validation and test days stand."""
    return (np.flatnonzero(part.mask(DAYS)) for part in (splits.train, splits.valid, splits.test))


def test_fold_is_tested_on_a_year_and_validated_on_a_fifth_before_it():
    folds = yearly_folds(DAYS)
    assert [fold.test.first[:4] for fold in folds] == ["2020", "2021", "2022", "2023"]
    for fold in folds:
        train, valid, test = places(fold)
        assert train[0] == 0 and len(train) >= 400
        assert len(valid) + fold.purge_days == min(250, test[0] // 5)
    assert folds[-1].test.last == "2024-02-20"  # the beginning of a year belongs to the year before


def test_folds_are_the_newest_that_are_asked_for_and_follow_one_another():
    folds = yearly_folds(DAYS)
    assert yearly_folds(DAYS, 2) == folds[-2:]
    assert yearly_folds(DAYS, 7) == folds  # a market too short for the folds asked gets as many as it has
    tested = np.concatenate([fold.test.mask(DAYS).nonzero()[0] for fold in folds])
    np.testing.assert_array_equal(tested, np.arange(tested[0], len(DAYS)))


@pytest.mark.parametrize("purge", [6, 12])
def test_no_label_reaches_across_a_border(purge):
    for fold in yearly_folds(DAYS, purge_days=purge):
        train, valid, test = places(fold)
        assert train[-1] + 6 < valid[0] and valid[-1] + 6 < test[0]  # the label of the next open is the longest
        assert valid[0] - train[-1] == purge + 1 == test[0] - valid[-1]


@pytest.mark.parametrize("folds", [yearly_folds(DAYS), yearly_folds(DAYS, purge_days=12)], ids=["6", "12"])
def test_purge_leaves_nothing_that_purgedcv_would_drop(folds):
    """A label begins at the close of its day and ends at the open six days later, which is the longest there is."""
    theirs = pytest.importorskip("purgedcv", reason="purgedcv is not installed: pip install purgedcv")
    close, last_open = (DAYS + pd.Timedelta(hours=hour) for hour in (15, 9))
    ends = last_open[6:].append(pd.bdate_range(DAYS[-1], periods=7)[1:] + pd.Timedelta(hours=9))
    for fold in folds:
        train, valid, test = places(fold)
        for before, later in ((train, np.append(valid, test)), (valid, test)):
            kept = theirs.purge(before, later, close, ends)
            np.testing.assert_array_equal(kept, before)
            unpurged = theirs.purge(np.arange(later[0]), later, close, ends)  # without ours
            assert unpurged[-1] == later[0] - 6 == before[-1] + fold.purge_days - 5  # a day is left over


def test_borders_can_be_named():
    splits = split_days(DAYS, valid_from="2022-01-01", test_from="2023-01-01", test_to="2023-06-30")
    assert splits.valid.first == "2022-01-03"
    assert (splits.test.first, splits.test.last) == ("2023-01-02", "2023-06-30")


def test_splits_survive_json():
    splits = split_days(DAYS, "2022-01-01", "2023-01-01")
    assert build(Splits, asdict(splits)) == splits


@pytest.mark.parametrize("arguments, message", [
    ({"purge_days": 5}, "at least 6 days purged"),
    ({"valid_from": "2017-01-01"}, "no train days"),
    ({"test_from": "2030-01-01"}, "no test days"),
    ({"test_from": "2022-01-05"}, "no valid days"),
    ({"test_from": "1/2/2023"}, "is not a date"),
])
def test_impossible_split_is_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        split_days(DAYS, **{"valid_from": "2022-01-01", "test_from": "2023-01-01"} | arguments)


@pytest.mark.parametrize("n_days, folds, message", [(450, None, "do not make a fold"), (1500, 0, "at least one year")])
def test_market_without_a_fold_is_refused(n_days, folds, message):
    with pytest.raises(DataError, match=message):
        yearly_folds(DAYS[:n_days], folds)


@pytest.fixture
def forecast():
    return pd.concat([forecast_of(symbol, FOUR, 0.01, family=family) for symbol in ("AAA", "BBB")
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
    found = check_forecast(make_scores("trees", ("AAA", "BBB"), FOUR, there, score=values, mean=-values), SCORES)
    assert found["symbol"].tolist() == ["AAA"] * 3 + ["BBB"] * 2 and found["score"].tolist() == [0, 2, 3, 5, 6]
    assert found["date"].tolist() == [FOUR[day] for day in (0, 2, 3, 1, 2)] and found["mean"].eq(-found["score"]).all()


def test_ensemble_is_the_mean_of_the_families_within_day_ranks():
    scores = pd.DataFrame({"family": ["one"] * 4 + ["two"] * 4 + ["three"] * 3, "symbol": list("ABCA" + "ABCA" + "ABC"),
                           "date": [FOUR[0]] * 3 + [FOUR[1]] + [FOUR[0]] * 3 + [FOUR[1]] + [FOUR[0]] * 3,
                           "score": [1.0, 2, 3, 7, 0.3, 0.1, 0.1, 0.5, 9, 9, 1]})
    found = ensemble_scores(scores, ["one", "two"]).set_index(["date", "symbol"])
    assert (found["family"] == "ensemble").all() and len(found) == 4
    assert found.loc[FOUR[0], "score"].to_dict() == {"A": 0.0, "B": -0.25, "C": 0.25}  # two: 1, -1/2, -1/2
    assert found.loc[(FOUR[1], "A"), "score"] == 0, "alone on its day"


def test_ensemble_of_a_stretched_family_is_the_same_and_each_fold_and_part_has_its_own():
    random = np.random.default_rng(0)
    places = [(family, fold, part) for family in ("one", "two") for fold in (0, 1) for part in ("valid", "test")]
    scores = pd.concat([forecast_of(symbol, FOUR, random.normal(size=4), family=family).assign(fold=fold, part=part)
                        for symbol in "ABC" for family, fold, part in places])
    found = ensemble_scores(scores, ("one", "two"))
    assert len(found) == 3 * 4 * 4 and list(found.columns) == ["family", "symbol", "date", "part", "fold", "score"]
    stretched = scores.assign(score=np.where(scores["family"] == "one", np.exp(9 * scores["score"]), scores["score"]))
    pd.testing.assert_frame_equal(ensemble_scores(stretched, ("one", "two")), found)
    alone = ensemble_scores(scores[(scores["fold"] == 1) & (scores["part"] == "test")], ("one", "two"))
    mine = found[(found["fold"] == 1) & (found["part"] == "test")].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, mine)
