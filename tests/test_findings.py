"""Damaged tables by the hundred: whatever is injected, cleaning ends in a valid price table or a sentence."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.findings import ISSUES, plan_treatments
from vnq_colab.errors import ConfigError, DataError
from vnq_colab.files import checked

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


def inject(table, issue, random):
    """The table with one more issue, somewhere."""
    table = table.copy()
    at = random.choice(len(table), size=min(len(table), int(random.integers(1, 6))), replace=False)
    column = str(random.choice(PRICES))
    later = (table["symbol"] == table["symbol"].iat[at[0]]) & (table["date"] >= table["date"].iat[at[0]])
    if issue in ("nan", "zero", "negative", "huge", "tiny", "endless"):
        value = {"nan": np.nan, "zero": 0.0, "negative": -5.0, "huge": 1e300, "tiny": 1e-12, "endless": np.inf}[issue]
        table.loc[at, column] = value
    elif issue == "all zero":
        table.loc[at, PRICES] = 0.0
    elif issue == "volume":
        table.loc[at, "volume"] = random.choice([np.nan, -1.0, 1e18, np.inf])
    elif issue == "swapped":
        table.loc[at, ["high", "low"]] = table.loc[at, ["low", "high"]].to_numpy()
    elif issue == "outside":
        table.loc[at, column] *= random.choice([0.5, 0.97, 1.03, 2.0])
    elif issue == "twice":
        more = table.loc[at]
        table = pd.concat([table, more.assign(close=more["close"] + random.choice([0.0, 10.0, 5_000.0]))])
    elif issue == "weekend":
        table.loc[at, "date"] += pd.to_timedelta(5 - table.loc[at, "date"].dt.day_of_week, unit="D")
    elif issue == "no market":
        day = table["date"] == table["date"].iat[at[0]]
        if random.random() < 0.7:
            table.loc[day, PRICES] = table.groupby("symbol")[PRICES].shift().loc[day].fillna(table.loc[day, PRICES])
        table.loc[day, "volume"] = 0.0
    elif issue == "unit":
        rows = later if random.random() < 0.5 else at
        table.loc[rows, PRICES] *= random.choice([1_000.0, 0.001])
    elif issue == "split":
        table.loc[later, PRICES] *= random.choice([0.5, 2 / 3, 0.77, 0.3, 2.0])
    elif issue == "bad print":
        table.loc[at, PRICES] *= random.choice([0.4, 0.5, 0.7, 1.5, 2.0])
    elif issue == "raw":
        table["raw_close"] = table["close"] * 2
        table.loc[later, "raw_close"] = random.choice([0.0, np.nan, 1_000.0])
    elif issue == "files":
        table["file"] = pd.Categorical(random.choice(["a", "b"], len(table)), ["a", "b"], ordered=True)
        table = pd.concat([table, table.loc[at].assign(file=pd.Categorical(["b"] * len(at), ["a", "b"], ordered=True))])
        table.loc[table["file"] == "b", PRICES] *= random.choice([1.0, 0.95, 0.5])
    elif issue == "unadjusted":
        table["unadjusted"] = table["date"] > table["date"].iat[at[0]]
    elif issue == "exchange":
        table["exchange"] = random.choice(["HOSE", "HSX", "HNX", "", "NYSE", None], len(table))
    return table.reset_index(drop=True)


NAMES = ["nan", "zero", "negative", "huge", "tiny", "endless", "all zero", "volume", "swapped", "outside", "twice",
         "weekend", "no market", "unit", "split", "bad print", "raw", "files", "unadjusted", "exchange"]


@st.composite
def damaged(draw):
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    table = sound(random, draw(st.integers(1, 7)), draw(st.integers(3, 160)))
    for issue in draw(st.lists(st.sampled_from(NAMES), max_size=6)):
        table = inject(table, issue, random)
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


CHOICES = st.lists(st.sampled_from([(key, choice) for key, issue in ISSUES.items() for choice in issue.treatments]),
                   max_size=4).map(dict)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(damaged(), st.sampled_from(["raise", "drop", "treat"]), CHOICES)
def test_any_table_ends_valid_and_counted_or_in_a_sentence(table, on_bad_rows, treatments):
    try:
        clean, report = clean_prices(table, on_bad_rows=on_bad_rows, treatments=treatments, source="this table")
    except DataError as refusal:
        assert "this table" in str(refusal) and "\n" not in str(refusal)
        return
    assert_valid(clean)
    dropped = sum(item.rows for item in report.findings if item.treatment.startswith("dropped"))
    assert report.rows_read - dropped == report.rows_kept == len(clean)
    assert len({(item.issue, item.treatment) for item in report.findings}) == len(report.findings)
    assert checked(Path("cleaning.json"), type(report), asdict(report)) == report


@many
@given(damaged())
def test_cleaning_a_clean_table_changes_no_bit(table):
    try:
        clean, _ = clean_prices(table, on_bad_rows="treat")
    except DataError:
        return
    again, report = clean_prices(clean)
    pd.testing.assert_frame_equal(again, clean, check_exact=True)
    assert {item.treatment for item in report.findings} <= {"kept"}


@many
@given(damaged(), st.floats(0.1, 0.9), st.sampled_from(["values", "rows"]), st.integers(0, 2**32 - 1))
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


def test_plan_follows_preset_default_and_choice_in_this_order():
    plan = plan_treatments("drop", {"bad_range": "repair", "no_trades": "drop"})
    assert (plan["bad_price"], plan["bad_range"]) == ("drop", "repair")
    assert (plan["no_trades"], plan["unit_jump"]) == ("drop", "repair")
    assert plan_treatments("treat")["bad_price"] == "repair" and plan_treatments("raise")["bad_price"] == "raise"


@pytest.mark.parametrize("on_bad_rows, treatments, sentence", [
    ("ignore", None, "'raise' or 'drop' or 'treat'"),
    ("treat", {"bad_prize": "repair"}, "no issue 'bad_prize'. Choose one of bad_price, bad_volume"),
    ("treat", {"no_trades": "repair"}, "no_trades cannot be treated with 'repair'. Choose one of 'keep', 'drop'."),
])
def test_unknown_names_are_refused_with_the_right_ones(on_bad_rows, treatments, sentence):
    with pytest.raises(ConfigError) as refused:
        plan_treatments(on_bad_rows, treatments)
    assert sentence in str(refused.value)
