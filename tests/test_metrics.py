"""Scores against numbers worked out by hand and against a second, slow implementation."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, pearsonr

from vnq_colab.data.forecast import make_forecast
from vnq_colab.data.panel import FLAT, Panel
from vnq_colab.errors import DataError
from vnq_colab.evaluation.metrics import max_drawdown, score, sharpe, summary


def panel_of(returns, symbols=("AAA",)):
    """A Panel of daily log returns `[symbols, days]`; NaN on a later day is an absent day."""
    returns = np.array(returns, dtype="float64", ndmin=2)
    present = np.isfinite(returns)
    present[:, 0] = True
    days = pd.bdate_range("2024-01-01", periods=returns.shape[1])
    return Panel(np.zeros((*returns.shape, 1), "float32"), returns, present, tuple(symbols), days, ("x",), "test")


def forecast_of(family, symbol, days, means, p_up=None):
    """A Forecast whose 5-day means are `means [days]`, spread evenly."""
    means = np.asarray(means, "float64")
    p_up = 0.5 + 0.1 * np.sign(means) if p_up is None else p_up
    daily = np.repeat(means[:, None] / 5, 5, axis=1)
    return make_forecast(family, symbol, days, daily, np.full(len(means), 0.05), p_up)


# Outcomes of the first five days: +5 %, 0 (flat), -2 %, -1 %, -1 %.
STORY = panel_of([np.nan, 0.01, 0.01, 0.01, 0.01, 0.01, -0.04, -0.01, 0.02, 0.01])
MODEL = forecast_of("stockformer", "AAA", STORY.days[:5], [0.05, 0.05, -0.05, 0.05, -0.05])


def test_score_equals_the_hand_computed_numbers():
    row = score(MODEL, STORY).iloc[0]
    assert (row["n_days"], row["n_directed"], row["n_independent"]) == (5, 4, 0)
    assert row["flat_share"] == pytest.approx(1 / 5)
    assert row["accuracy"] == pytest.approx(3 / 4)  # right, flat, right, wrong, right
    assert (row["up_share"], row["base_rate"]) == pytest.approx((1 / 4, 3 / 4))
    assert row["rmse_5"] == pytest.approx(np.sqrt((0.05**2 + 0.03**2 + 0.06**2 + 0.04**2) / 5))
    assert row["mae_5"] == pytest.approx((0.05 + 0.03 + 0.06 + 0.04) / 5)
    assert (row["mae_1"], row["rmse_1"]) == pytest.approx(((0.02 + 0.02) / 5, np.sqrt(2 * 0.02**2 / 5)))
    assert row["brier"] == pytest.approx((0.16 + 0.16 + 0.36 + 0.16) / 4)
    assert np.isnan([row["accuracy_low"], row["accuracy_high"]]).all()  # no whole independent window


def test_score_leaves_out_origins_without_an_outcome():
    late = forecast_of("stockformer", "AAA", STORY.days, [0.05, 0.05, -0.05, 0.05, -0.05] * 2)
    pd.testing.assert_frame_equal(score(late, STORY), score(MODEL, STORY))


def test_score_of_the_zero_forecast_names_no_direction():
    both = pd.concat([MODEL, forecast_of("zero", "AAA", STORY.days[:5], np.zeros(5))])
    zero = score(both, STORY).set_index("family").loc["zero"]
    assert np.isnan(zero["accuracy"]) and np.isnan(zero["correlation"]) and zero["n_directed"] == 0
    assert zero["rmse_5"] == pytest.approx(np.sqrt((0.05**2 + 0.02**2 + 0.01**2 + 0.01**2) / 5))
    assert zero["base_rate"] == 3 / 4 and zero["brier"] == pytest.approx(0.25)


def test_score_compares_families_on_the_same_days():
    short = forecast_of("momentum", "AAA", STORY.days[:3], [0.01, 0.01, 0.01])
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
    forecast = pd.concat([forecast_of(family, symbol, panel.days, values[place], random.random(300))
                          for family, values in means.items() for place, symbol in enumerate(panel.symbols)])
    return panel, forecast


def test_score_equals_a_second_implementation(market):
    panel, forecast = market
    scores = score(forecast.sample(frac=1, random_state=0), panel).set_index(["family", "symbol"])
    for (family, symbol), rows in forecast.groupby(["family", "symbol"]):
        series = panel.returns[panel.symbols.index(symbol)]
        present = panel.present[panel.symbols.index(symbol)]
        mean, actual, up = [], [], []
        for _, row in rows.iterrows():
            day = panel.days.get_loc(row["date"])
            ahead = series[day + 1 : day + 6]
            if present[day] and len(ahead) == 5 and np.isfinite(ahead).all():
                mean.append(row["mean"])
                actual.append(ahead.sum())
                up.append(row["p_up"])
        moved = [place for place in range(len(mean)) if abs(actual[place]) >= FLAT]
        right = sum((mean[place] > 0) == (actual[place] > 0) for place in moved)
        found = scores.loc[(family, symbol)]
        assert found["n_days"] == len(mean) and found["n_directed"] == len(moved) < len(mean)
        assert found["accuracy"] == pytest.approx(right / len(moved))
        assert found["rmse_5"] == pytest.approx(np.sqrt(np.mean(np.subtract(mean, actual) ** 2)))
        assert found["correlation"] == pytest.approx(pearsonr(mean, actual).statistic)
        assert found["brier"] == pytest.approx(np.mean([(up[place] - (actual[place] > 0)) ** 2 for place in moved]))
        windows = len(moved) // 5
        assert found["n_independent"] == windows
        near = binomtest(round(found["accuracy"] * windows), windows).proportion_ci(0.95, method="wilson")
        assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(near, abs=0.02)


def test_score_of_one_symbol_does_not_depend_on_the_others(market):
    panel, forecast = market
    alone = score(forecast[forecast["symbol"] == "BBB"], panel)
    together = score(forecast, panel).query("symbol == 'BBB'").reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, together)


def test_score_reads_days_of_any_resolution(market):
    panel, forecast = market
    coarse = forecast.assign(date=forecast["date"].astype("datetime64[s]"))
    pd.testing.assert_frame_equal(score(coarse, panel), score(forecast, panel))


def test_score_refuses_symbols_that_the_panel_lacks():
    with pytest.raises(DataError, match=r"the panel has no symbol AAB. Did you mean 'AAA'"):
        score(MODEL.assign(symbol="AAB"), STORY)


def test_score_refuses_a_forecast_without_any_outcome():
    late = forecast_of("stockformer", "AAA", STORY.days[-3:], [0.01, 0.01, 0.01])
    with pytest.raises(DataError, match="no day from 2024-01-10 to 2024-01-12 has an outcome"):
        score(late, STORY)


def test_summary_pools_days_not_symbols(market):
    panel, forecast = market
    scores = score(forecast, panel)
    pooled = summary(scores).set_index("family")
    for family, rows in scores.groupby("family"):
        assert pooled.loc[family, "n_days"] == rows["n_days"].sum() and pooled.loc[family, "n_symbols"] == 3
        weights = rows["n_directed"]
        assert pooled.loc[family, "accuracy"] == pytest.approx(np.average(rows["accuracy"], weights=weights))
        assert pooled.loc[family, "base_rate"] == pytest.approx(np.average(rows["base_rate"], weights=weights))
        assert pooled.loc[family, "rmse_5"] == pytest.approx(
            np.sqrt(np.average(rows["rmse_5"] ** 2, weights=rows["n_days"])))
        assert pooled.loc[family, "correlation"] == rows["correlation"].median()
        assert pooled.loc[family, "above_base_rate"] == (rows["accuracy"] > rows["base_rate"]).sum()


def test_summary_of_the_zero_forecast_has_no_accuracy():
    zero = summary(score(forecast_of("zero", "AAA", STORY.days[:5], np.zeros(5)), STORY))
    assert np.isnan(zero.loc[0, "accuracy"]) and zero.loc[0, "base_rate"] == 3 / 4


def test_score_of_the_whole_market_takes_seconds_not_minutes():
    random = np.random.default_rng(0)
    symbols = [f"S{place:03}" for place in range(102)]
    panel = panel_of(random.normal(0, 0.02, (102, 365)), symbols)
    forecast = pd.concat([forecast_of(family, symbol, panel.days[:360], random.normal(0, 0.02, 360))
                          for family in "abcd" for symbol in symbols])
    start = time.perf_counter()
    assert len(score(forecast, panel)) == 4 * 102
    assert time.perf_counter() - start < 10  # a loop over rows takes a minute; usual is 0.3 s


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
