"""Forecasts beside what happened, as price changes; and how often intervals held, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from vnq_colab.errors import DataError
from vnq_colab.evaluation.past_forecasts import as_texts, coverage_by_period, past_forecasts, show_predictions

DAYS = pd.bdate_range("2024-01-01", periods=60)


def forecast_of(days=DAYS, symbols=("AAA", "BBB"), seed=0):
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
    table = forecast_of()
    found = past_forecasts(table.drop(columns="actual"), table.dropna(subset="actual"), "stockformer", "BBB")
    mine = table[(table["family"] == "stockformer") & (table["symbol"] == "BBB")]
    assert list(found["date"]) == list(DAYS[:-5])
    assert found["expected"].to_list() == pytest.approx(100 * (np.exp(mine["mean"].to_numpy()[:-5]) - 1))
    assert found["actual"].to_list() == pytest.approx(100 * (np.exp(mine["actual"].to_numpy()[:55]) - 1))
    assert found["low"][0] == pytest.approx(100 * (np.exp(-0.08) - 1)) and found["p_up"][0] == 50


def test_past_forecasts_of_every_symbol_are_its_last_days():
    table = forecast_of()
    found = past_forecasts(table.drop(columns="actual"), table, "stockformer", n_days=7)
    assert all(list(part["date"]) == list(DAYS[-12:-5]) for _, part in found.groupby("symbol"))
    assert set(found["symbol"]) == {"AAA", "BBB"}
    one = past_forecasts(table, table, "stockformer", "AAA").tail(7).reset_index(drop=True)
    pd.testing.assert_frame_equal(found[found["symbol"] == "AAA"].reset_index(drop=True), one)


def test_texts_are_written_out_with_a_dash_for_what_is_not_known():
    table = pd.DataFrame({"symbol": ["AAA"], "date": DAYS[:1], "expected": [2.0], "actual": [np.nan], "p_up": [56.0]})
    assert as_texts(table).iloc[0].to_dict() == {"Evening of": "2024-01-01", "Expected [%]": "+2.0",
                                                 "Actual [%]": "–", "p_up [%]": "56.0"}


def test_predictions_are_shown_from_the_stored_report(tmp_path):
    forecast_of().to_parquet(tmp_path / "forecast.parquet")
    lines = show_predictions(tmp_path, "BBB", family="stockformer").splitlines()
    assert len(lines) == 2 + 20 and lines[0] == "BBB, stockformer: price change over 5 days"
    assert f"{DAYS[-25]:%Y-%m-%d}" in lines[2] and lines[-1].split()[:1] == [f"{DAYS[-6]:%Y-%m-%d}"]


def test_predictions_of_what_is_not_there_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not there. Make it with: python -m vnq_colab validate"):
        show_predictions(tmp_path, "AAA", family="stockformer")
    table = forecast_of()
    with pytest.raises(DataError, match=r"stockformer has no forecast of 'bbb'. Did you mean 'BBB'\?"):
        past_forecasts(table, table, "stockformer", "bbb")
    with pytest.raises(DataError, match=r"no family 'stokformer' here. Did you mean 'stockformer'\?"):
        past_forecasts(table, table, "stokformer", "BBB")


def test_coverage_is_that_of_each_quarter_and_of_each_year_where_there_are_many():
    rows = forecast_of(pd.bdate_range("2024-01-01", "2024-12-31")).dropna(subset="actual")
    found = coverage_by_period(rows, "stockformer")
    assert list(found["period"]) == ["2024 Q1", "2024 Q2", "2024 Q3", "2024 Q4"]
    third = rows[(rows["family"] == "stockformer") & rows["date"].between("2024-07-01", "2024-09-30")]
    assert found["covered"][2] == pytest.approx(third["actual"].abs().le(0.08).mean())
    assert found["low"][2] < found["covered"][2] < found["high"][2]
    assert list(found["width"]) == pytest.approx([0.16] * 4)
    assert found["n_days"].sum() == rows["date"].nunique()
    rows = forecast_of(pd.bdate_range("2018-01-01", "2022-12-31", freq="5B")).dropna(subset="actual")
    assert list(coverage_by_period(rows, "stockformer")["period"]) == ["2018", "2019", "2020", "2021", "2022"]


def test_coverage_without_intervals_is_empty():
    rows = forecast_of().dropna(subset="actual")
    assert coverage_by_period(rows.drop(columns=["low", "high"]), "stockformer").empty
    assert coverage_by_period(rows.assign(low=np.nan), "stockformer").empty
