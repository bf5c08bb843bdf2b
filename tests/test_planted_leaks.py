"""Leaks planted in the data are named in `prepare`, honest data has none, and nothing leaky is accepted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.prepared import load_prepared, prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery.validate import validate
from vnq_colab.layout import Workspace
from vnq_colab.training.trainer import train

PRICES = ["open", "high", "low", "close"]


@pytest.fixture(scope="module")
def honest():
    """24 stocks over three years, with nothing to know."""
    return synthetic_prices(24, 760, seed=5, signal=0.0)


@pytest.fixture(scope="module")
def index(honest):
    return index_of(honest)


def index_of(table):
    """The equal-weighted market."""
    returns = table.groupby("symbol")["close"].transform(lambda close: np.log(close).diff())
    level = 1000 * np.exp(returns.groupby(table["date"]).mean().fillna(0).cumsum())
    return level.rename("close").reset_index()


def ahead(table, days=1):
    """The return of the next days, of each row."""
    close = table.groupby("symbol")["close"]
    return np.log(close.shift(-days) / table["close"]).fillna(0)


def volume_level(table):
    return table.assign(volume=(1e6 * (1 + 5 * ahead(table))).astype("int64"))


def volume_change(table):
    return table.assign(volume=(table["volume"] * np.exp(20 * ahead(table))).astype("int64"))


def volume_of_the_week(table):
    return table.assign(volume=(table["volume"] * np.exp(20 * ahead(table, 5))).astype("int64"))


def opens_at_the_next_close(table):
    opened = table.groupby("symbol")["close"].shift(-1).fillna(table["close"])
    return table.assign(open=opened, high=np.maximum(table["high"], opened), low=np.minimum(table["low"], opened))


def high_that_knows(table):
    return table.assign(high=table["high"] * np.exp(np.maximum(ahead(table), 0)))


def low_that_knows(table):
    return table.assign(low=table["low"] * np.exp(np.minimum(ahead(table), 0)))


def raw_close_that_knows(table):
    return table.assign(raw_close=table["close"] * np.exp(0.3 * ahead(table)))


def days_moved(table, by, symbol="SYN003"):
    """One stock's rows, each with the date of a trading day earlier or later."""
    days = np.sort(table["date"].unique())
    mine = table["symbol"] == symbol
    place = np.searchsorted(days, table.loc[mine, "date"]) + by
    moved = table[mine].assign(date=days[np.clip(place, 0, len(days) - 1)])[(place >= 0) & (place < len(days))]
    return pd.concat([table[~mine], moved]).sort_values(["symbol", "date"], ignore_index=True)


def dated_early(table):
    return days_moved(table, -1)


def dated_late(table):
    return days_moved(table, 1)


def leaks_of(folder, table, index=None):
    prepared = prepare(Workspace(folder), table, index=index)
    assert load_prepared(Workspace(folder)).cleaning.leaks == prepared.cleaning.leaks
    assert all(leak in repr(prepared) for leak in prepared.cleaning.leaks)
    return prepared.cleaning.leaks


@pytest.mark.parametrize(("plant", "said"), [
    (volume_level, "volume (relative to its 20-day mean) of a day has a rank correlation of 0."),
    (volume_change, "volume (change against the day before) of a day has a rank correlation of 0."),
    (volume_of_the_week, "with the return of the five days after"),
    (opens_at_the_next_close, "open (relative to the close) of a day has a rank correlation of"),
    (high_that_knows, "high (relative to the close) of a day has a rank correlation of"),
    (low_that_knows, "low (relative to the close) of a day has a rank correlation of"),
    (raw_close_that_knows, "close / raw_close (relative to its 20-day mean) of a day has a rank correlation of -0."),
    (dated_early, "the returns of SYN003 are those of the other stocks on the day after: dated early, they know the "
                  "future"),
    (dated_late, "the returns of SYN003 are those of the other stocks on the day before: dated late, they are "
                 "foretold"),
])
def test_a_planted_leak_is_named(tmp_path, honest, plant, said):
    leaks = leaks_of(tmp_path, plant(honest))
    assert any(said in leak for leak in leaks), leaks
    assert "it knows the future. Ask the provider, or leave the column out." in leaks[0] or "own days" in leaks[0]


def test_an_index_dated_a_day_early_is_named(tmp_path, honest, index):
    assert leaks_of(tmp_path / "a", honest, index) == []
    early = index.assign(close=index["close"].shift(-1)).dropna()
    leaks = leaks_of(tmp_path / "b", honest, early)
    assert any("the returns of the index are those of the other stocks on the day after" in leak for leak in leaks)


def test_an_index_that_knows_is_named(tmp_path, honest, index):
    knows = index.assign(close=index["close"] * np.exp(np.log(index["close"]).diff(5).shift(-5).fillna(0)))
    assert any("of a day of the index has a rank correlation" in leak for leak in leaks_of(tmp_path, honest, knows))


def test_a_leak_in_one_year_and_one_in_one_stock_are_named(tmp_path, honest):
    year = honest["date"].dt.year == 2024
    one = honest["symbol"] == "SYN007"
    for part, said in ((year, "of a day in 2024 has"), (one, "of a day of SYN007 has")):
        planted = honest.assign(volume=honest["volume"].where(~part, volume_change(honest)["volume"]))
        assert any(said in leak for leak in leaks_of(tmp_path, planted)), said


@pytest.mark.parametrize("n_symbols", [1, 3, 5])
def test_a_leak_among_few_stocks_is_named(tmp_path, n_symbols):
    table = synthetic_prices(n_symbols, 700, seed=3, signal=0.0)
    assert leaks_of(tmp_path / "a", table) == []
    assert "volume (relative to its 20-day mean) of a day" in leaks_of(tmp_path / "b", volume_level(table))[0]


# --- a dividend between two files: the later one is adjusted for it, the older one does not know it


def two_files(folder, table, overlap, **changes):
    """data/raw/old.csv to a day, and data/weekly_updates/new.csv from there on, 8 % lower until a later ex-date."""
    days = np.sort(table["date"].unique())
    new = table[table["date"] > days[-60 - overlap]].copy()
    before = (new["date"] < days[-20]) & (new["symbol"] == "SYN003")
    new.loc[before, PRICES] *= 0.92
    ws = Workspace(folder)
    for place, part, name in ((ws.raw, table[table["date"] <= days[-60]], "old"), (ws.weekly_updates, new, "new")):
        place.mkdir(parents=True, exist_ok=True)
        part.assign(**changes).to_csv(place / f"{name}.csv", index=False)
    return prepare(ws, ws.raw, as_of=str(table["date"].max())[:10])


def test_a_dividend_between_files_without_a_common_day_is_named(tmp_path, honest):
    leaks = two_files(tmp_path, honest, 0).cleaning.leaks
    assert len(leaks) == 1 and "new.csv is adjusted for a dividend or split of SYN003 that file raw/old.csv" in leaks[0]
    assert "Bring the later one with 5 days of the earlier one." in leaks[0]


def test_a_dividend_between_files_shows_in_their_raw_closes(tmp_path, honest):
    odd = honest.assign(**{name: honest[name] + 1.7 for name in PRICES}, raw_close=honest["close"] + 1.7)
    assert "SYN003" in two_files(tmp_path, odd, 0).cleaning.leaks[0]  # no price lies on a tick


def test_with_common_days_the_basis_is_repaired_and_named_as_such(tmp_path, honest):
    prepared = two_files(tmp_path, honest, 10)
    assert prepared.cleaning.leaks == []
    assert any("basis" in item.issue and "SYN003" in item.example for item in prepared.cleaning.findings)
    row, days = prepared.panel.symbols.index("SYN003"), prepared.panel.days
    truth = honest[honest["symbol"] == "SYN003"].set_index("date")["close"]
    np.testing.assert_allclose(prepared.panel.returns[row, -65:-25], np.log(truth).diff().reindex(days)[-65:-25],
                               atol=1e-9)


def test_honest_files_that_share_no_day_leak_nothing(tmp_path, honest):
    days = np.sort(honest["date"].unique())
    ws = Workspace(tmp_path)
    for place, part in ((ws.raw, honest[honest["date"] <= days[-60]]), (ws.weekly_updates,
                                                                        honest[honest["date"] > days[-60]])):
        place.mkdir(parents=True, exist_ok=True)
        part.to_csv(place / "prices.csv", index=False)
    assert prepare(ws, ws.raw, as_of="2025-12-31").cleaning.leaks == []


# --- end to end: whatever trees make of it, nothing of it is accepted


def index_early(table):
    return table, index_of(table).assign(close=lambda index: index["close"].shift(-1)).dropna()


@pytest.mark.parametrize("plant", [
    volume_level, *(pytest.param(plant, marks=pytest.mark.slow) for plant in (
        volume_change, volume_of_the_week, opens_at_the_next_close, high_that_knows, low_that_knows,
        raw_close_that_knows, index_early, dated_early, dated_late))], ids=lambda plant: plant.__name__)
def test_no_planted_leak_is_accepted(tmp_path, config, plant):
    planted = plant(synthetic_prices(24, 1520, seed=6, signal=0.15))
    table, index = planted if isinstance(planted, tuple) else (planted, None)
    ws = Workspace(tmp_path)
    prepared = prepare(ws, table, index=index)
    trees = replace(config, families=("trees",), symbols=None, folds=3)
    session = train(ws, prepared.panel, trees, quiet=True)
    result, leaks = validate(session), prepared.cleaning.leaks
    verdict = result.verdict
    assert verdict.market["decision"] == "review" and verdict.summary["decisions"]["accept"] == 0
    assert leaks and verdict.market["reasons"][:len(leaks)] == leaks
    page = result.report.read_text(encoding="utf-8")
    assert page.index("LEAK IN THE DATA") < page.index("DO NOT TRADE before a person has looked")
