"""Scores against numbers worked out by hand and against a second, slow implementation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.made_up import verdict_of
from tests.tiny import forecast_of, panel_of
from vnq_colab.data.panel import CLOSE, FLAT
from vnq_colab.errors import DataError
from vnq_colab.evaluation.metrics import (
    as_texts,
    coverage_by_period,
    max_drawdown,
    past_forecasts,
    score_rows,
    sharpe,
    summary,
    with_outcomes,
)
from vnq_colab.evaluation.page import judged_forecast
from vnq_colab.files import sha256_of


def said(family, symbol, days, means, p_up=None):
    """A Forecast that gives its direction a probability of 60 % unless `p_up` says otherwise."""
    return forecast_of(symbol, days, means, p_up=0.5 + 0.1 * np.sign(means) if p_up is None else p_up, family=family)


def score(forecast, panel):
    return score_rows(with_outcomes(forecast, panel))


# Outcomes of the first five days: +5 %, 0 (flat), -2 %, -1 %, -1 %.
STORY = panel_of([np.nan, 0.01, 0.01, 0.01, 0.01, 0.01, -0.04, -0.01, 0.02, 0.01])
MODEL = said("stockformer", "AAA", STORY.days[:5], [0.05, 0.05, -0.05, 0.05, -0.05])


def test_score_equals_the_hand_computed_numbers():
    row = score(MODEL, STORY).iloc[0]
    assert (row["n_days"], row["n_directed"], row["n_independent"]) == (5, 4, 0)
    assert row["accuracy"] == pytest.approx(3 / 4)  # right, flat, right, wrong, right
    assert row["base_rate"] == pytest.approx(3 / 4)
    assert row["rmse_5"] == pytest.approx(np.sqrt((0.05**2 + 0.03**2 + 0.06**2 + 0.04**2) / 5))
    assert row["rmse_day"] == pytest.approx(row["rmse_5"] / np.sqrt(5))
    assert np.isnan([row["accuracy_low"], row["accuracy_high"]]).all()  # no whole independent window


def test_score_leaves_out_origins_without_an_outcome():
    late = said("stockformer", "AAA", STORY.days, [0.05, 0.05, -0.05, 0.05, -0.05] * 2)
    pd.testing.assert_frame_equal(score(late, STORY), score(MODEL, STORY))


def test_score_of_the_zero_forecast_names_no_direction():
    both = pd.concat([MODEL, said("zero", "AAA", STORY.days[:5], np.zeros(5))])
    zero = score(both, STORY).set_index("family").loc["zero"]
    assert np.isnan(zero["accuracy"]) and zero["n_directed"] == 0
    assert np.isnan(summary(score(both, STORY)).set_index("family").loc["zero", "accuracy"])
    assert zero["rmse_5"] == pytest.approx(np.sqrt((0.05**2 + 0.02**2 + 0.01**2 + 0.01**2) / 5))
    assert zero["base_rate"] == 3 / 4


def test_score_compares_families_on_the_same_days():
    short = said("momentum", "AAA", STORY.days[:3], [0.01, 0.01, 0.01])
    scores = score(pd.concat([MODEL, short]), STORY).set_index("family")
    assert list(scores["n_days"]) == [3, 3] and scores.loc["stockformer", "accuracy"] == 1


@pytest.fixture(scope="module")
def market():
    """Three symbols, 300 days, flat and absent days, two families."""
    random = np.random.default_rng(3)
    returns = np.where(random.random((3, 300)) < 0.5, 0, random.normal(0.001, 0.02, (3, 300)))
    returns[:, :100] *= random.random((3, 100)) < 0.1  # a quiet time, with flat outcomes
    returns[1, 50:60] = np.nan
    returns[:, 0] = np.nan
    panel = panel_of(returns, ("AAA", "BBB", "CCC"))
    means = {"momentum": random.normal(0, 0.02, (3, 300)), "stockformer": random.normal(0, 0.02, (3, 300))}
    forecast = pd.concat([said(family, symbol, panel.days, values[place], random.random(300))
                          for family, values in means.items() for place, symbol in enumerate(panel.symbols)])
    return panel, forecast


def test_score_equals_a_second_implementation(market):
    panel, forecast = market
    scores = score(forecast.sample(frac=1, random_state=0), panel).set_index(["family", "symbol"])
    for (family, symbol), rows in forecast.groupby(["family", "symbol"]):
        close = panel.prices[panel.symbols.index(symbol), :, CLOSE]
        mean, actual = [], []
        for _, row in rows.iterrows():
            day = panel.days.get_loc(row["date"])
            if day + 5 < len(close) and np.isfinite(close[[day, day + 5]]).all():
                mean.append(row["mean"])
                actual.append(np.log(close[day + 5] / close[day]))
        moved = [place for place in range(len(mean)) if abs(actual[place]) >= FLAT]
        right = sum((mean[place] > 0) == (actual[place] > 0) for place in moved)
        found = scores.loc[(family, symbol)]
        assert found["n_days"] == len(mean) and found["n_directed"] == len(moved) < len(mean)
        assert found["accuracy"] == pytest.approx(right / len(moved))
        assert found["rmse_5"] == pytest.approx(np.sqrt(np.mean(np.subtract(mean, actual) ** 2)))
        up = np.mean([actual[place] > 0 for place in moved])
        assert found["base_rate"] == pytest.approx(max(up, 1 - up))
        windows = len(moved) // 5
        assert found["n_independent"] == windows
        near = binomtest(round(found["accuracy"] * windows), windows).proportion_ci(0.95, method="wilson")
        assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(near, abs=0.02)


def test_scores_of_an_unchanging_forecast_are_unknown_where_nothing_can_be_known():
    always = score(said("majority", "AAA", STORY.days[:5], np.full(5, 0.01)), STORY).iloc[0]
    assert always["accuracy"] == 1 / 4
    fell = score(MODEL.iloc[2:], STORY).iloc[0]  # only days that fell
    assert fell["base_rate"] == 1 and fell["accuracy"] == pytest.approx(2 / 3)


def test_score_reads_days_of_any_resolution(market):
    panel, forecast = market
    coarse = forecast.assign(date=forecast["date"].astype("datetime64[s]"))
    pd.testing.assert_frame_equal(score(coarse, panel), score(forecast, panel))


def test_score_refuses_a_forecast_without_any_outcome():
    late = said("stockformer", "AAA", STORY.days[-3:], [0.01, 0.01, 0.01])
    with pytest.raises(DataError, match="no day from 2024-01-10 to 2024-01-12 has an outcome"):
        score(late, STORY)


def test_summary_pools_days_not_symbols(market):
    panel, forecast = market
    scores = score(forecast, panel)
    pooled = summary(scores).set_index("family")
    for family, rows in scores.groupby("family"):
        weights = rows["n_directed"]
        assert pooled.loc[family, "accuracy"] == pytest.approx(np.average(rows["accuracy"], weights=weights))
        assert pooled.loc[family, "rmse_5"] == pytest.approx(
            np.sqrt(np.average(rows["rmse_5"] ** 2, weights=rows["n_days"])))


def test_sharpe_equals_the_hand_computed_ratio():
    assert sharpe([0.01, 0.03]) == pytest.approx(np.sqrt(250) * 0.02 / (0.01 * np.sqrt(2)))
    assert sharpe(np.array([[0.01, 0.0], [0.03, 0.0]]))[0] == sharpe([0.01, 0.03])


def test_sharpe_is_unknown_without_spread_or_days():
    assert np.isnan(sharpe([0.0, 0.0, 0.0])) and np.isnan(sharpe([0.01])) and np.isnan(sharpe([]))


def test_max_drawdown_equals_the_hand_computed_fall():
    assert max_drawdown([100, 120, 90, 130, 110]) == pytest.approx(0.25)
    assert max_drawdown([1, 2, 3]) == 0 and np.isnan(max_drawdown([100]))
    assert max_drawdown(np.array([[100, 50], [80, 60]])) == pytest.approx([0.2, 0])


@given(st.lists(st.floats(1, 1e9), min_size=2, max_size=30), st.floats(0.1, 10))
def test_max_drawdown_does_not_depend_on_the_currency(equity, factor):
    found = max_drawdown(equity)
    assert 0 <= found < 1
    falls = [1 - late / early for place, early in enumerate(equity) for late in equity[place:]]
    assert found == pytest.approx(max(falls))
    assert max_drawdown(np.multiply(equity, factor)) == pytest.approx(found)


# --- forecasts beside the actual price change

DAYS = pd.bdate_range("2024-01-01", periods=60)


def outcomes_of(days=DAYS, symbols=("AAA", "BBB"), seed=0):
    """Forecasts of two families with the outcomes that are known: all but those of the last five days."""
    random = np.random.default_rng(seed)
    table = pd.MultiIndex.from_product([("stockformer", "zero"), symbols, days],
                                       names=["family", "symbol", "date"]).to_frame(index=False)
    actual = random.normal(0, 0.05, (len(symbols), len(days)))
    actual[:, -5:] = np.nan
    table["actual"] = np.tile(actual.reshape(-1), 2)
    table["mean"] = np.where(table["family"] == "zero", 0, random.normal(0, 0.02, len(table)))
    return table.assign(p_up=0.5, low=-0.08, high=0.08)


def test_past_forecasts_are_price_changes_in_percent_without_open_days():
    table = outcomes_of()
    found = past_forecasts(table.drop(columns="actual"), table.dropna(subset="actual"), "stockformer", "BBB")
    mine = table[(table["family"] == "stockformer") & (table["symbol"] == "BBB")]
    assert list(found["date"]) == list(DAYS[:-5])
    assert found["expected"].to_list() == pytest.approx(100 * (np.exp(mine["mean"].to_numpy()[:-5]) - 1))
    assert found["actual"].to_list() == pytest.approx(100 * (np.exp(mine["actual"].to_numpy()[:55]) - 1))
    assert found["low"][0] == pytest.approx(100 * (np.exp(-0.08) - 1)) and found["p_up"][0] == 50


def test_past_forecasts_of_every_symbol_are_its_last_days():
    table = outcomes_of()
    found = past_forecasts(table.drop(columns="actual"), table, "stockformer", n_days=7)
    assert all(list(part["date"]) == list(DAYS[-12:-5]) for _, part in found.groupby("symbol"))
    assert set(found["symbol"]) == {"AAA", "BBB"}
    one = past_forecasts(table, table, "stockformer", "AAA").tail(7).reset_index(drop=True)
    pd.testing.assert_frame_equal(found[found["symbol"] == "AAA"].reset_index(drop=True), one)


def test_texts_are_written_out_with_a_dash_for_what_is_not_known():
    table = pd.DataFrame({"symbol": ["AAA"], "date": DAYS[:1], "expected": [2.0], "actual": [np.nan], "p_up": [56.0]})
    assert as_texts(table).iloc[0].to_dict() == {"As of": "2024-01-01", "Expected [%]": "+2.0",
                                                 "Actual [%]": "–", "p_up [%]": "56.0"}


def test_stored_forecast_is_read_as_it_was_judged_or_refused(tmp_path):
    path, table = tmp_path / "forecast.parquet", outcomes_of()
    with pytest.raises(DataError, match=r"is not there. Make it with: python -m vnq_colab validate"):
        judged_forecast(tmp_path)
    table.to_parquet(path)
    verdict_of(forecast_sha256=sha256_of(path)).save(tmp_path / "verdict.json")
    pd.testing.assert_frame_equal(judged_forecast(tmp_path), table, check_dtype=False)
    table.assign(mean=-table["mean"]).to_parquet(path)
    with pytest.raises(DataError, match="not what was judged"):
        judged_forecast(tmp_path)
    (tmp_path / "forecast.parquet").write_text("x")
    verdict_of(forecast_sha256=sha256_of(tmp_path / "forecast.parquet")).save(tmp_path / "verdict.json")
    with pytest.raises(DataError, match="not a forecast of this library"):
        judged_forecast(tmp_path)


def test_predictions_of_what_is_not_there_are_refused():
    table = outcomes_of()
    with pytest.raises(DataError, match=r"stockformer has no forecast of 'bbb'. Did you mean 'BBB'\?"):
        past_forecasts(table, table, "stockformer", "bbb")
    with pytest.raises(DataError, match=r"no family 'stokformer' here. Did you mean 'stockformer'\?"):
        past_forecasts(table, table, "stokformer", "BBB")


def test_coverage_is_that_of_each_quarter_and_of_each_year_where_there_are_many():
    rows = outcomes_of(pd.bdate_range("2024-01-01", "2024-12-31")).dropna(subset="actual")
    found = coverage_by_period(rows, "stockformer")
    assert list(found["period"]) == ["2024 Q1", "2024 Q2", "2024 Q3", "2024 Q4"]
    third = rows[(rows["family"] == "stockformer") & rows["date"].between("2024-07-01", "2024-09-30")]
    assert found["covered"][2] == pytest.approx(third["actual"].abs().le(0.08).mean())
    assert found["low"][2] < found["covered"][2] < found["high"][2]
    assert list(found["width"]) == pytest.approx([0.16] * 4)
    assert found["n_days"].sum() == rows["date"].nunique()
    rows = outcomes_of(pd.bdate_range("2018-01-01", "2022-12-31", freq="5B")).dropna(subset="actual")
    assert list(coverage_by_period(rows, "stockformer")["period"]) == ["2018", "2019", "2020", "2021", "2022"]


def test_coverage_without_intervals_is_empty():
    rows = outcomes_of().dropna(subset="actual")
    assert coverage_by_period(rows.drop(columns=["low", "high"]), "stockformer").empty
    assert coverage_by_period(rows.assign(low=np.nan), "stockformer").empty
