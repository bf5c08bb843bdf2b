"""Diseased tables by the hundred: whatever is injected, cleaning ends in a valid price table or a sentence."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.diseases import DISEASES, diseases_table, plan_treatments
from vnq_colab.errors import ConfigError, DataError

PRICES = ["open", "high", "low", "close"]


def sound(random, n_symbols, n_days):
    """A random market inside HOSE's band, some days without trades, some without a row."""
    days = pd.bdate_range("2019-01-02", periods=n_days).astype("datetime64[ns]")
    move = np.clip(random.normal(0, 0.02, (n_symbols, n_days)), -0.06, 0.06)
    close = np.round(random.uniform(5_000, 90_000, (n_symbols, 1)) * np.cumprod(1 + move, axis=1), -1)
    opened = np.round(close * (1 + random.uniform(-0.01, 0.01, close.shape)), -1)
    table = pd.DataFrame({
        "symbol": np.repeat([f"S{number:02d}" for number in range(n_symbols)], n_days),
        "date": np.tile(days, n_symbols),
        "open": opened.ravel(), "high": np.maximum(close, opened).ravel() + 50,
        "low": np.minimum(close, opened).ravel() - 50, "close": close.ravel(),
        "volume": random.integers(0, 3, close.size) * 1_000.0})
    return table[random.random(len(table)) > 0.02].reset_index(drop=True)


def inject(table, disease, random):
    """The table with one more disease, somewhere."""
    table = table.copy()
    at = random.choice(len(table), size=min(len(table), int(random.integers(1, 6))), replace=False)
    column = str(random.choice(PRICES))
    later = (table["symbol"] == table["symbol"].iat[at[0]]) & (table["date"] >= table["date"].iat[at[0]])
    if disease in ("nan", "zero", "negative", "huge", "tiny", "endless"):
        value = {"nan": np.nan, "zero": 0.0, "negative": -5.0, "huge": 1e300, "tiny": 1e-12, "endless": np.inf}[disease]
        table.loc[at, column] = value
    elif disease == "all zero":
        table.loc[at, PRICES] = 0.0
    elif disease == "volume":
        table.loc[at, "volume"] = random.choice([np.nan, -1.0, 1e18, np.inf])
    elif disease == "swapped":
        table.loc[at, ["high", "low"]] = table.loc[at, ["low", "high"]].to_numpy()
    elif disease == "outside":
        table.loc[at, column] *= random.choice([0.5, 0.97, 1.03, 2.0])
    elif disease == "twice":
        more = table.loc[at]
        table = pd.concat([table, more.assign(close=more["close"] + random.choice([0.0, 10.0, 5_000.0]))])
    elif disease == "weekend":
        table.loc[at, "date"] += pd.to_timedelta(5 - table.loc[at, "date"].dt.day_of_week, unit="D")
    elif disease == "no market":
        day = table["date"] == table["date"].iat[at[0]]
        if random.random() < 0.7:
            table.loc[day, PRICES] = table.groupby("symbol")[PRICES].shift().loc[day].fillna(table.loc[day, PRICES])
        table.loc[day, "volume"] = 0.0
    elif disease == "unit":
        rows = later if random.random() < 0.5 else at
        table.loc[rows, PRICES] *= random.choice([1_000.0, 0.001])
    elif disease == "split":
        table.loc[later, PRICES] *= random.choice([0.5, 2 / 3, 0.77, 0.3, 2.0])
    elif disease == "bad print":
        table.loc[at, PRICES] *= random.choice([0.4, 0.5, 0.7, 1.5, 2.0])
    elif disease == "raw":
        table["raw_close"] = table["close"] * 2
        table.loc[later, "raw_close"] = random.choice([0.0, np.nan, 1_000.0])
    elif disease == "files":
        table["file"] = pd.Categorical(random.choice(["a", "b"], len(table)), ["a", "b"], ordered=True)
        table = pd.concat([table, table.loc[at].assign(file=pd.Categorical(["b"] * len(at), ["a", "b"], ordered=True))])
        table.loc[table["file"] == "b", PRICES] *= random.choice([1.0, 0.95, 0.5])
    elif disease == "unadjusted":
        table["unadjusted"] = table["date"] > table["date"].iat[at[0]]
    elif disease == "exchange":
        table["exchange"] = random.choice(["HOSE", "HSX", "HNX", "", "NYSE", None], len(table))
    return table.reset_index(drop=True)


NAMES = ["nan", "zero", "negative", "huge", "tiny", "endless", "all zero", "volume", "swapped", "outside", "twice",
         "weekend", "no market", "unit", "split", "bad print", "raw", "files", "unadjusted", "exchange"]


@st.composite
def diseased(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    table = sound(random, draw(st.integers(1, 7)), draw(st.integers(3, 160)))
    for disease in draw(st.lists(st.sampled_from(NAMES), max_size=6)):
        table = inject(table, disease, random)
    return table.sample(frac=1, random_state=draw(st.integers(0, 9))) if draw(st.booleans()) else table


def assert_valid(clean):
    assert clean.columns.tolist()[:7] == ["symbol", "date", *PRICES, "volume"]
    assert not clean.duplicated(["symbol", "date"]).any()
    pd.testing.assert_frame_equal(clean, clean.sort_values(["symbol", "date"], ignore_index=True))
    prices = clean[PRICES].to_numpy()
    assert np.isfinite(prices).all() and (prices > 0).all()
    assert (clean["low"] <= clean[["open", "close"]].min(axis=1)).all()
    assert (clean["high"] >= clean[["open", "close"]].max(axis=1)).all()
    assert clean["volume"].dtype == "int64" and (clean["volume"] >= 0).all()


CHOICES = st.lists(st.sampled_from([(slug, choice) for slug, disease in DISEASES.items()
                                    for choice in disease.allowed if choice != "raise"]), max_size=4).map(dict)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(diseased(), st.sampled_from(["raise", "drop", "treat"]), CHOICES)
def test_any_table_ends_valid_and_counted_or_in_a_sentence(table, on_bad_rows, treatments):
    try:
        clean, report = clean_prices(table, on_bad_rows=on_bad_rows, treatments=treatments, source="this table")
    except DataError as refusal:
        assert "this table" in str(refusal) and "\n" not in str(refusal)
        return
    assert_valid(clean)
    dropped = sum(item.rows for item in report.findings if item.treatment.startswith("dropped"))
    assert report.rows_read - dropped == report.rows_kept == len(clean)
    assert len({(item.disease, item.treatment) for item in report.findings}) == len(report.findings)
    assert type(report).from_dict(report.to_dict()) == report


@many
@given(diseased())
def test_cleaning_a_clean_table_changes_no_bit(table):
    try:
        clean, _ = clean_prices(table, on_bad_rows="treat")
    except DataError:
        return
    again, report = clean_prices(clean)
    pd.testing.assert_frame_equal(again, clean, check_exact=True)
    assert {item.treatment for item in report.findings} <= {"kept"}


@many
@given(diseased(), st.floats(0.1, 0.9), st.sampled_from(["values", "rows"]), st.integers(0, 2**32 - 1))
def test_past_keeps_its_bits_whatever_follows(table, share, change, seed):
    if "file" in table or "unadjusted" in table:  # merging may look at all common days
        table = table.drop(columns=["file", "unadjusted"], errors="ignore")
    border = table["date"].quantile(share)
    later, random = table["date"] > border, np.random.default_rng(seed)
    other = table[~later] if change == "rows" else table.copy()
    if change == "values":
        other.loc[later, PRICES] *= random.choice([0.0, 0.001, 0.5, 1.0, 3.0, 1_000.0], (later.sum(), 4))
        other.loc[later, "volume"] = random.choice([0.0, np.nan, 5.0], later.sum())
    try:
        tables = [clean_prices(rows, on_bad_rows="treat")[0] for rows in (table, other)]
    except DataError:
        return
    past = [clean[clean["date"] <= border].reset_index(drop=True) for clean in tables]
    pd.testing.assert_frame_equal(*past, check_exact=True)


def test_every_disease_states_what_it_is_and_what_may_be_done():
    table = diseases_table()
    assert table["name"].tolist() == list(DISEASES) and table["disease"].is_unique
    for slug, disease in DISEASES.items():
        assert disease.treatment in disease.allowed and disease.meaning.endswith("."), slug
        assert not disease.of_a_row or {"raise", "drop row"} <= set(disease.allowed), slug
        assert set(disease.allowed) <= {"repair", "drop row", "drop symbol", "keep", "raise"}, slug


def test_plan_follows_preset_default_and_choice_in_this_order():
    plan = plan_treatments("drop", {"open_outside": "repair", "gap": "raise"})
    assert (plan["close_outside"], plan["open_outside"]) == ("drop row", "repair")
    assert (plan["gap"], plan["unit_jump"]) == ("raise", "repair")
    assert plan_treatments("treat")["zero_price"] == "repair" and plan_treatments("raise")["zero_price"] == "raise"


@pytest.mark.parametrize("treatments, sentence", [
    ({"zero_prize": "repair"}, "no disease 'zero_prize'. Choose one of missing_price, zero_price"),
    ({"stale_tail": "drop row"}, "stale_tail cannot be treated with 'drop row'. Choose one of 'keep', 'raise'."),
])
def test_unknown_names_are_refused_with_the_right_ones(treatments, sentence):
    with pytest.raises(ConfigError) as refused:
        plan_treatments("treat", treatments)
    assert sentence in str(refused.value)
