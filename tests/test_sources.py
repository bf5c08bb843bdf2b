import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.cleaning import clean_prices, combine
from vnq_colab.data.findings import CleaningLog, plan_treatments

DAYS = pd.bdate_range("2025-05-12", periods=20).astype("datetime64[ns]")


def rows(closes, file, first=0, symbol="HPG", **columns):
    """Flat candles from DAYS[first] on; None leaves the day out."""
    closes = pd.Series(closes, index=DAYS[first : first + len(closes)], dtype=float).dropna()
    table = pd.DataFrame({"symbol": symbol, "date": closes.index, "file": file, "volume": 1_000.0} | columns)
    return table.assign(**dict.fromkeys(("open", "high", "low", "close"), closes.to_numpy()))


def files(*tables):
    """All tables by symbol, day and file; the files in the order in which they stand here."""
    table = pd.concat(tables, ignore_index=True)
    table = table.assign(symbol=table["symbol"].astype("category"),
                         file=pd.Categorical(table["file"], table["file"].unique(), ordered=True))
    return table.sort_values(["symbol", "date", "file"], ignore_index=True)


def combined(*tables):
    log = CleaningLog(plan_treatments("treat"), "these files", 0)
    return combine(files(*tables), log), {item.issue: item for item in log.findings}


def test_one_file_per_symbol_is_left_alone():
    table, found = combined(rows([20_000, 20_100], "a.csv"), rows([9_000], "b.csv", symbol="VNM"))
    assert found == {} and table["close"].tolist() == [20_000, 20_100, 9_000]
    assert not {"file", "unadjusted"} & set(table.columns)


def test_update_wins_on_its_days_and_the_base_keeps_the_days_it_lacks():
    table, found = combined(rows([20_000, 20_100, 20_200, 20_300], "base.csv"),
                            rows([20_100, None, 20_310, 20_400], "week.csv", first=1, volume=7.0))
    assert table["close"].tolist() == [20_000, 20_100, 20_200, 20_310, 20_400]
    assert table["volume"].tolist() == [1_000, 7, 1_000, 7, 7]
    assert {name: item.rows for name, item in found.items()} == {"day in several files": 2}
    assert found["day in several files"].example == "HPG 2025-05-13: row of base.csv"


def test_update_on_another_basis_is_rescaled_to_the_past():
    table, found = combined(rows([20_000, 20_100, 20_200], "base.csv"),
                            rows([19_095, 19_190, 19_285, 19_380], "week.csv", first=1))  # ×0.95
    assert table["close"].tolist()[:1] == [20_000]
    assert table["close"].to_numpy() == pytest.approx([20_000, 20_100, 20_200, 20_300, 20_400])
    changed = found["adjusted basis changed"]
    assert (changed.rows, changed.treatment) == (4, "repaired")
    assert changed.example == "HPG 2025-05-13: prices of week.csv ×1.053"
    assert "two sources disagree" not in found


def test_file_that_holds_all_earlier_days_replaces_them():
    table, found = combined(rows([20_000, 20_100], "old.csv"), rows([10_000, 10_050, 10_100], "new.csv"))
    assert table["close"].tolist() == [10_000, 10_050, 10_100]
    assert found["two sources disagree"].example == (
        "HPG 2025-05-12: close 20,000 in old.csv and 10,000 in new.csv [VND]")
    assert "adjusted basis changed" not in found


def test_disagreement_beyond_rounding_is_counted_and_the_later_value_stays():
    base, week = rows([20_000] * 8, "a.csv"), rows([20_010] * 7 + [20_400, 20_000], "b.csv", first=1)
    base = pd.concat([base, rows([20_000], "a.csv", first=8)])
    table, found = combined(base, week)
    assert table["close"].tolist() == [20_000, *[20_010] * 7, 20_400, 20_000]
    disagree = found["two sources disagree"]
    assert disagree.rows == 1
    assert disagree.example == "HPG 2025-05-22: close 20,000 in a.csv and 20,400 in b.csv [VND]"


def test_files_without_a_common_day_are_joined_and_said():
    table, found = combined(rows([20_000, 20_100], "a.csv"), rows([20_200, 20_300], "b.csv", first=2))
    assert table["close"].tolist() == [20_000, 20_100, 20_200, 20_300]
    assert found["files without a common day"].rows == 2 and "two sources disagree" not in found
    _, report = clean_prices(files(rows([20_000, 20_100], "a.csv"), rows([30_000], "b.csv", first=2)))
    assert {"files without a common day", "move beyond any band"} <= {item.issue for item in report.findings}


def test_what_the_update_does_not_know_comes_from_the_base():
    base = rows([20_000, 20_100], "a.csv", raw_close=25_000.0, exchange="HNX")
    week = rows([20_000, 20_100, 20_200], "b.csv", volume=np.nan, raw_close=np.nan, exchange=None)
    table, _ = combined(base, week)
    assert table["volume"].tolist()[:2] == [1_000, 1_000] and np.isnan(table["volume"].iat[2])
    assert table["raw_close"].tolist()[:2] == [25_000, 25_000]
    assert table["exchange"].tolist()[:2] == ["HNX", "HNX"] and table["exchange"].isna().iat[2]


def test_unadjusted_rows_give_the_raw_close_and_follow_the_last_adjusted_day():
    adjusted = rows([None, 10_000, 10_100], "adjusted.csv", unadjusted=False)
    raw = rows([19_000, 20_000, 20_200, 20_400, 20_600], "raw.csv", unadjusted=True)
    table, found = combined(raw, adjusted)
    assert table["date"].tolist() == list(DAYS[1:5])
    assert table["close"].tolist() == pytest.approx([10_000, 10_100, 10_200, 10_300])
    assert table["raw_close"].tolist() == [20_000, 20_200, 20_400, 20_600]
    assert found["day in several files"].rows == 3
    assert len(table) == 7 + 1 - 1 - found["day in several files"].rows


def test_unadjusted_rows_alone_are_prices_and_their_own_raw_close():
    table, found = combined(rows([20_000, 20_100], "raw.csv", unadjusted=True))
    assert found == {} and table["raw_close"].tolist() == table["close"].tolist() == [20_000, 20_100]


def test_split_in_an_unadjusted_tail_is_repaired_by_cleaning():
    adjusted, raw = rows([10_000, 10_000], "adjusted.csv"), rows([20_000, 20_000, 10_000], "raw.csv", unadjusted=True)
    clean, _ = clean_prices(files(adjusted.assign(unadjusted=False), raw))
    assert clean["close"].tolist() == [10_000, 10_000, 10_000]
    assert clean["raw_close"].tolist() == [20_000, 20_000, 10_000]


@pytest.mark.slow
def test_many_updates_of_many_symbols_leave_one_history_on_one_basis():
    """300 symbols, a history and 30 weekly updates on changing bases: about 350,000 rows."""
    days = pd.bdate_range("2022-01-03", periods=900).astype("datetime64[ns]")
    closes = np.round(20_000 * np.exp(np.random.default_rng(1).normal(0, 0.01, (300, 900)).cumsum(axis=1)), -1)
    tables = []
    for nth, (start, stop) in enumerate([(0, 750), *((745 + 5 * week, 755 + 5 * week) for week in range(29))]):
        place = np.arange(start, stop)
        table = pd.DataFrame({"symbol": np.repeat([f"S{number:03d}" for number in range(300)], len(place)),
                              "date": np.tile(days[place], 300), "volume": 1.0, "file": f"{nth:02d}"})
        price = closes[:, place].ravel() * 0.98 ** (nth % 3)
        tables.append(table.assign(**dict.fromkeys(("open", "high", "low", "close"), price)))
    table, _ = combined(*tables)
    assert table["close"].to_numpy() == pytest.approx(closes[:, :895].ravel(), rel=1e-9)
