"""Where and when a family was right, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from vnq_colab.errors import DataError
from vnq_colab.evaluation.breakdown import (
    GROUP_COLUMNS,
    as_texts,
    by_group,
    coverage_drift,
    hits,
    in_words,
    last_predictions,
    show_predictions,
)
from vnq_colab.evaluation.probability import interval_coverage
from vnq_colab.evaluation.skill import skill

DAYS = pd.bdate_range("2024-01-01", periods=60)


def rows_of(days=DAYS, symbols=("AAA", "BBB", "CCC", "DDD", "EEE", "FFF"), seed=0):
    """Forecasts of two families with their outcomes."""
    random = np.random.default_rng(seed)
    table = pd.MultiIndex.from_product([("stockformer", "zero"), symbols, days],
                                       names=["family", "symbol", "date"]).to_frame(index=False)
    actual = random.normal(0, 0.05, (len(symbols), len(days))).reshape(-1)
    table["actual"] = np.tile(actual, 2)
    table["mean"] = np.where(table["family"] == "zero", 0, 0.2 * table["actual"] + random.normal(0, 0.02, len(table)))
    return table.assign(p_up=0.5, low=-0.08, high=0.08)


def prices_of(days=DAYS, symbols=("AAA", "BBB", "CCC", "DDD", "EEE", "FFF"), **columns):
    table = pd.MultiIndex.from_product([symbols, days], names=["symbol", "date"]).to_frame(index=False)
    size = table["symbol"].map({name: place + 1 for place, name in enumerate(symbols)})
    return table.assign(close=10_000.0, volume=1_000 * size, **columns)


# --- groups


def test_groups_are_all_exchanges_and_thirds_by_traded_value():
    exchange = np.repeat(["HOSE", "HOSE", "HNX", "HNX", "HNX", ""], len(DAYS))
    found = by_group(rows_of(), prices_of(exchange=exchange), "stockformer")
    assert tuple(found.columns) == GROUP_COLUMNS
    assert list(found["group"]) == ["all", "HOSE", "HNX", "unknown", "low", "middle", "high"]
    assert list(found["n_symbols"]) == [6, 2, 3, 1, 2, 2, 2]
    assert list(found["n_rows"]) == [360, 120, 180, 60, 120, 120, 120]
    assert list(found["traded_value"]) == [35e6, 15e6, 40e6, 60e6, 15e6, 35e6, 55e6]  # of 10 to 60 million VND a day


def test_groups_hold_the_measures_of_their_own_rows():
    rows = rows_of()
    found = by_group(rows, prices_of(), "stockformer").set_index("group")
    high = rows[(rows["family"] == "stockformer") & rows["symbol"].isin(["EEE", "FFF"])]
    tested = skill(high).iloc[0]
    names = ["accuracy", "base_rate", "excess", "excess_low", "excess_high", "p"]
    assert found.loc["high", names].to_list() == pytest.approx(tested[names].to_list())
    error = ((high["mean"] - high["actual"]) ** 2).mean()
    assert found.loc["high", "rmse_5"] == pytest.approx(np.sqrt(error))
    assert found.loc["high", "saved"] == pytest.approx(1 - error / (high["actual"] ** 2).mean())
    assert found.loc["unknown", "n_symbols"] == 6, "without a column nobody knows the exchange"


def test_groups_count_a_symbol_on_the_exchange_of_the_day():
    exchange = np.where(prices_of()["date"] < DAYS[20], "UPCOM", "HOSE")
    found = by_group(rows_of(), prices_of(exchange=exchange), "stockformer").set_index("group")
    assert found.loc["HOSE", "n_symbols"] == found.loc["UPCOM", "n_symbols"] == 6
    assert found.loc["HOSE", "n_rows"] == 240 and found.loc["UPCOM", "n_rows"] == 120


def test_groups_value_trades_at_raw_prices_where_they_are_known():
    raw = prices_of()
    raw["raw_close"] = np.where(raw["symbol"] == "AAA", 100_000.0, np.nan)
    found = by_group(rows_of(), raw, "stockformer").set_index("group")
    assert found.loc["high", "traded_value"] == 80e6  # of AAA 100 million, of FFF 60 million


def test_groups_of_a_family_without_a_direction_have_errors_only():
    found = by_group(rows_of(), prices_of(), "zero")
    assert found["accuracy"].isna().all() and list(found["saved"]) == [0] * len(found)


def test_groups_of_an_unknown_family_are_refused():
    with pytest.raises(DataError, match=r"no family 'stokformer' here. Did you mean 'stockformer'\?"):
        by_group(rows_of(), prices_of(), "stokformer")


# --- drift


def test_drift_is_the_coverage_of_each_quarter():
    rows = rows_of(pd.bdate_range("2024-01-01", "2024-12-31"))
    found = coverage_drift(rows, "stockformer", 0.9)
    assert list(found["period"]) == ["2024 Q1", "2024 Q2", "2024 Q3", "2024 Q4"]
    third = rows[(rows["family"] == "stockformer") & rows["date"].between("2024-07-01", "2024-09-30")]
    whole = interval_coverage(third, 0.9)
    assert found["covered"][2] == whole["covered"][0] == third["actual"].abs().le(0.08).mean()
    assert found["covered_low"][2] == whole["covered_low"][0] < found["covered"][2] < found["covered_high"][2]


def test_drift_of_many_years_is_shown_by_year():
    rows = rows_of(pd.bdate_range("2018-01-01", "2022-12-31", freq="5B"), ("AAA",))
    assert list(coverage_drift(rows, "stockformer")["period"]) == ["2018", "2019", "2020", "2021", "2022"]


def test_drift_without_intervals_is_empty():
    assert coverage_drift(rows_of().drop(columns=["low", "high"]), "stockformer").empty
    assert coverage_drift(rows_of().assign(low=np.nan), "stockformer").empty


# --- the last days


def last_of(n_days=3):
    """60 days of prices; the forecast has all of them, the outcomes of the last five are not known."""
    forecast = rows_of(symbols=("AAA", "BBB"))
    rows = forecast[forecast["date"] <= DAYS[-6]]
    return last_predictions(rows, forecast.drop(columns="actual"), prices_of(symbols=("AAA", "BBB")), "stockformer",
                            n_days), rows


def test_last_predictions_are_those_with_an_outcome_and_all_that_are_open():
    found, rows = last_of()
    assert list(found["symbol"]) == ["AAA"] * 8 + ["BBB"] * 8
    assert list(found["date"][:8]) == list(DAYS[-8:])
    assert list(found["outcome"][3:8]) == ["still open"] * 5 and found["actual"][3:8].isna().all()
    mine = rows[(rows["family"] == "stockformer") & (rows["symbol"] == "AAA")].tail(3)
    assert found["actual"][:3].to_list() == mine["actual"].to_list()
    right = (mine["mean"] > 0) == (mine["actual"] > 0)
    assert list(found["outcome"][:3]) == ["right" if one else "wrong" for one in right]
    assert hits(found[:8]) == f"{right.sum()} of 3 right, 5 still open"


def test_last_predictions_name_what_is_neither_right_nor_wrong():
    forecast = rows_of(symbols=("AAA",))
    rows = forecast[(forecast["date"] <= DAYS[-6]) & (forecast["date"] != DAYS[-8])].copy()
    rows.loc[rows["date"] == DAYS[-6], "actual"] = 0.0
    forecast.loc[forecast["date"] == DAYS[-7], "mean"] = 0.0
    found = last_predictions(rows, forecast.drop(columns="actual"), prices_of(symbols=("AAA",)), "stockformer", 3)
    assert list(found["outcome"][1:4]) == ["not known", "no direction", "unchanged"]
    assert hits(found.iloc[1:4]) == "0 of 0 right, 1 unchanged, 1 no direction, 1 not known"


def test_last_predictions_of_a_symbol_without_any_outcome_are_few():
    forecast = rows_of(symbols=("AAA", "BBB"))
    found = last_predictions(forecast[forecast["symbol"] == "AAA"], forecast.drop(columns="actual"),
                             prices_of(symbols=("AAA", "BBB")), "stockformer", 3)
    assert (found["symbol"] == "BBB").sum() == 11 and list(found["outcome"])[-11:].count("not known") == 6


def test_predictions_in_words_are_percent_of_the_price():
    table = pd.DataFrame({"symbol": ["AAA"], "date": DAYS[:1], "close": [12_350.0], "mean": [np.log(1.02)],
                          "p_up": [0.56], "low": [np.log(0.95)], "high": [np.log(1.1)], "actual": [np.nan],
                          "outcome": ["still open"]})
    shown = in_words(table)
    assert shown["Expected [%]"][0] == pytest.approx(2) and shown["Low [%]"][0] == pytest.approx(-5)
    assert as_texts(shown).iloc[0].to_dict() == {
        "Evening of": "2024-01-01", "Close [VND]": "12,350", "p_up [%]": "56.0", "Expected [%]": "+2.0",
        "Low [%]": "-5.0", "High [%]": "+10.0", "Came [%]": "–", "Outcome": "still open"}
    assert "Low [%]" not in in_words(table.drop(columns=["low", "high"]))


def test_shown_predictions_are_twenty_days_and_those_still_open():
    forecast = rows_of(symbols=("AAA", "BBB"))
    rows, prices = forecast[forecast["date"] <= DAYS[-6]], prices_of(symbols=("AAA", "BBB"))
    text = show_predictions(rows, forecast.drop(columns="actual"), prices, "BBB", family="stockformer")
    lines = text.splitlines()
    assert len(lines) == 2 + 25 and lines[0].startswith("BBB, stockformer: ")
    assert lines[0].endswith("of 20 right, 5 still open")
    assert f"{DAYS[-25]:%Y-%m-%d}" in lines[2] and f"{DAYS[-1]:%Y-%m-%d}" in lines[-1]
    with pytest.raises(DataError, match=r"stockformer has no forecast of 'bbb'. Did you mean 'BBB'\?"):
        show_predictions(rows, forecast, prices, "bbb", family="stockformer")
