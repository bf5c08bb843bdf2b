import json

import numpy as np
import pandas as pd
import pytest

from vnq_colab.data import lookahead
from vnq_colab.data.features import FEATURES, Feature
from vnq_colab.data.lookahead import prove_no_lookahead
from vnq_colab.errors import DataError


@pytest.fixture(scope="module")
def index(prices):
    days = np.sort(prices["date"].unique())
    return pd.DataFrame({"date": days, "close": 1000 * 1.001 ** np.arange(len(days))})


def test_nothing_in_the_panel_knows_the_future(prices, index):
    proof = prove_no_lookahead(prices, index=index)
    assert proof.passed and "No look-ahead" in repr(proof)
    assert set(proof.table["world"]) == {"every later value changed", "stocks delisted and listed", "no later rows"}
    seen = set(proof.table["what"])
    assert {"cleaned rows", "returns", "scaler"} < seen and len(seen) == 3 + len(FEATURES)


def test_nothing_knows_the_future_without_an_index_or_early_on(prices):
    assert prove_no_lookahead(prices, str(prices["date"].unique()[150])[:10]).passed


def test_of_a_large_table_the_days_around_the_day_are_compared(prices, index, monkeypatch):
    whole = prove_no_lookahead(prices, index=index)
    monkeypatch.setattr(lookahead, "MOST_ROWS", 1800)
    proof = prove_no_lookahead(prices, index=index)
    assert proof.passed and proof.at == whole.at and proof.since > whole.since == f"{prices['date'].min():%Y-%m-%d}"
    assert 0 < proof.table["compared"].sum() < 0.5 * whole.table["compared"].sum()


def peeking(history):
    return np.hstack([history.returns[:, 1:], np.full((len(history.returns), 1), np.nan)])


def scaled_by_all(history):
    return history.volume / np.nanmean(history.volume, axis=1, keepdims=True)


@pytest.mark.parametrize("compute", [peeking, scaled_by_all])
def test_feature_that_peeks_is_caught_and_named(prices, monkeypatch, compute):
    honest = next(iter(FEATURES.values()))
    peeks = Feature(**{name: getattr(honest, name) for name in honest.__dataclass_fields__} | {"compute": compute})
    monkeypatch.setitem(FEATURES, honest.name, peeks)
    proof = prove_no_lookahead(prices)
    assert not proof.passed
    assert repr(proof).startswith("LOOK-AHEAD") and f"feature {honest.name}" in repr(proof)
    honest_ones = proof.table[~proof.table["what"].isin([f"feature {honest.name}", "scaler"])]
    assert (honest_ones["differ"] == 0).all()


def test_cleaning_that_looks_at_the_whole_history_is_caught(prices, monkeypatch):
    honest = lookahead.clean_prices

    def clean_by_the_median(table, **options):
        clean, report = honest(table, **options)
        typical = clean.groupby("symbol")["close"].transform("median")
        return clean[clean["close"] < 1.5 * typical], report

    monkeypatch.setattr(lookahead, "clean_prices", clean_by_the_median)
    proof = prove_no_lookahead(prices)
    assert not proof.passed and "cleaned rows" in repr(proof)


def test_scaler_of_all_days_is_caught(prices, monkeypatch):
    honest = lookahead.fit_scaler
    monkeypatch.setattr(lookahead, "fit_scaler", lambda panel, train: honest(panel, np.ones_like(train)))
    proof = prove_no_lookahead(prices)
    assert set(proof.table[proof.table["differ"] > 0]["what"]) == {"scaler"}


def test_proof_needs_a_future(prices):
    with pytest.raises(DataError, match="so that there is a future to change"):
        prove_no_lookahead(prices, prices["date"].max())


def test_proof_is_stored_as_json(prices):
    value = json.loads(json.dumps(prove_no_lookahead(prices).to_dict()))
    assert value["passed"] and len(value["table"]) == 3 * (3 + len(FEATURES))


def test_overlapping_files_on_two_bases_are_no_look_ahead(prices):
    """A later file with a dividend in its history, and a hole late in it: its basis is a fact about the file."""
    days = np.sort(prices["date"].unique())
    later = prices[prices["date"] >= days[200]].copy()
    later[["open", "high", "low", "close"]] *= 0.97
    rows = pd.concat([prices[prices["date"] <= days[260]].assign(file="a.csv"),
                      later[later["date"] != days[330]].assign(file="b.csv")], ignore_index=True)
    rows["file"] = pd.Categorical(rows["file"], categories=["a.csv", "b.csv"], ordered=True)
    for day in days[[199, 202, 240, 300]]:
        assert prove_no_lookahead(rows, pd.Timestamp(day)).passed


def test_person_s_own_treatments_are_what_is_proven(prices):
    rows = prices.copy()
    rows.loc[100, "close"] = 0.0
    assert prove_no_lookahead(rows, on_bad_rows="drop").passed
    with pytest.raises(DataError, match="zero, negative"):
        prove_no_lookahead(rows, on_bad_rows="raise")
