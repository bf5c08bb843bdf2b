import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.features import FEATURES
from vnq_colab.data.market import next_sessions
from vnq_colab.data.panel import build_panel, default_universe
from vnq_colab.data.prepared import PROOF, keep_panel, load_panel, load_prepared, prepare
from vnq_colab.errors import CheckpointError, DataError, StorageError, VnqError
from vnq_colab.files import SEAL, read_json, read_sealed, sha256_of, write_json, write_sealed
from vnq_colab.layout import Workspace


def test_prepared_set_comes_back_as_it_was(tmp_path, prices):
    ws = Workspace(tmp_path)
    first, again = prepare(ws, prices), load_prepared(ws)
    pd.testing.assert_frame_equal(again.prices, first.prices, check_dtype=False)
    np.testing.assert_array_equal(again.panel.values, first.panel.values)
    assert (again.folds, again.cleaning, again.synthetic) == (first.folds, first.cleaning, True)
    assert "SYNTHETIC" in repr(again)


def test_newer_version_leaves_an_older_set_as_it_is(tmp_path, prices, monkeypatch):
    ws = Workspace(tmp_path)
    old = prepare(ws, prices).folder
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    monkeypatch.setattr("vnq_colab.data.panel.__version__", "99.0")
    assert prepare(ws, prices).folder != old
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before


def test_old_prices_bring_a_warning(tmp_path, prices):
    prices = prices.assign(symbol="FPT" + prices["symbol"])  # nobody waits for newer synthetic prices
    days = next_sessions(prices["date"].max(), 6).strftime("%Y-%m-%d")
    assert "6 sessions before" in prepare(Workspace(tmp_path), prices, as_of=days[5]).cleaning.warnings[0]
    assert not prepare(Workspace(tmp_path), prices, as_of=days[4]).cleaning.warnings
    with pytest.raises(DataError, match="not a date"):
        prepare(Workspace(tmp_path), prices, as_of="tomorrow")


def test_as_of_is_as_if_it_were_that_evening(tmp_path, prices):
    day = prices["date"].unique()[300]
    index = pd.DataFrame({"date": prices["date"].unique(), "close": 1000.0})
    then = prepare(Workspace(tmp_path / "a"), prices, index=index, as_of=str(day)[:10])
    cut = prepare(Workspace(tmp_path / "b"), prices[prices["date"] <= day], index=index[index["date"] <= day])
    assert then.panel.data_id == cut.panel.data_id and then.panel.days[-1] == day
    with pytest.raises(DataError, match="no prices up to 1999-01-01"):
        prepare(Workspace(tmp_path / "a"), prices, as_of="1999-01-01")


def test_table_without_a_column_is_one_sentence(tmp_path, prices):
    with pytest.raises(DataError, match="one column volume; found"):
        prepare(Workspace(tmp_path), prices.drop(columns="volume"))


def test_nothing_prepared_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="Run prepare first"):
        load_prepared(Workspace(tmp_path))


@pytest.mark.parametrize("name", ["prices.parquet", "panel.parquet", "prepared.json", "splits.json"])
@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_preparing_again_repairs_a_damaged_set(tmp_path, prices, name, damage):
    ws = Workspace(tmp_path)
    damage(prepare(ws, prices).folder / name)
    with pytest.raises(VnqError):
        load_prepared(ws)
    prepare(ws, prices)
    pd.testing.assert_frame_equal(load_prepared(ws).prices, prices, check_dtype=False)


@pytest.mark.parametrize("name", ["prepared.json", "splits.json", "cleaning.json", "prices.parquet", "panel.parquet"])
def test_a_file_of_the_set_that_was_changed_is_refused_until_it_is_prepared_again(tmp_path, prices, name):
    ws = Workspace(tmp_path)
    prepared = prepare(ws, prices)
    path = prepared.folder / name
    if path.suffix == ".json":
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(prepared.folds[0].valid.first, "2024-01-09").replace("6", "7"), encoding="utf-8")
    else:
        table = pd.read_parquet(path)
        table["close"] *= 1.01
        table.to_parquet(path)
    with pytest.raises(VnqError, match="not what prepare wrote|its own sha256"):
        load_prepared(ws)
    if name == "panel.parquet":
        with pytest.raises(DataError, match="not what prepare wrote"):
            load_panel(ws, prepared.panel.data_id)
    assert prepare(ws, prices).folds == load_prepared(ws).folds == prepared.folds


@pytest.mark.parametrize("name", ["prepared.json", "cleaning.json"])
def test_a_missing_seal_is_no_seal(tmp_path, prices, name):
    path = prepare(Workspace(tmp_path), prices).folder / name
    write_json(path, {key: value for key, value in read_json(path).items() if key != SEAL})
    with pytest.raises(CheckpointError, match="it has no seal"):
        load_prepared(Workspace(tmp_path))


def test_folds_whose_seals_fit_are_checked_all_the_same(tmp_path, prices):
    """Whoever can write hashes too may still not train up to the day before the test days."""
    ws = Workspace(tmp_path)
    folder = prepare(ws, prices).folder
    folds, facts = read_json(folder / "splits.json"), read_sealed(folder / "prepared.json")
    folds[0]["valid"]["last"] = str(pd.Timestamp(folds[0]["test"]["first"]) - pd.offsets.BDay(2))[:10]
    write_json(folder / "splits.json", folds)
    facts["files"]["splits.json"] = sha256_of(folder / "splits.json")
    write_sealed(folder / "prepared.json", facts)
    with pytest.raises(DataError, match="its folds, or its cleaning log, are not of these days"):
        load_prepared(ws)


def test_cleaning_log_of_another_set_is_refused(tmp_path, prices):
    ws = Workspace(tmp_path)
    other = prepare(ws, prices[prices["date"] < prices["date"].iloc[-5]]).folder
    folder = prepare(ws, prices).folder
    shutil.copy(other / "cleaning.json", folder / "cleaning.json")
    with pytest.raises(DataError, match="its folds, or its cleaning log, are not of these days"):
        load_prepared(ws)


def test_tables_whose_seals_fit_are_clean_all_the_same(tmp_path, prices):
    ws = Workspace(tmp_path)
    index = pd.DataFrame({"date": prices["date"].unique(), "close": 1000.0})
    for name, change in (("index", lambda table: table.assign(close=np.nan)), ("index", lambda table: prices),
                         ("prices", lambda table: table.assign(volume=-1)),
                         ("prices", lambda table: table.assign(symbol=None))):
        folder = prepare(ws, prices, index=index).folder
        path, facts = folder / f"{name}.parquet", read_sealed(folder / "prepared.json")
        change(pd.read_parquet(path)).to_parquet(path)
        facts["files"][path.name] = sha256_of(path)
        write_sealed(folder / "prepared.json", facts)
        with pytest.raises(DataError, match="Prepare the same prices again"):
            load_prepared(ws)


def test_the_current_set_is_one_of_ours(tmp_path, prices):
    ws = Workspace(tmp_path)
    prepare(ws, prices)
    write_sealed(ws.prepared / "current.json", {"data_id": "../../../elsewhere", "prepared": "2026"})
    with pytest.raises(CheckpointError, match="must be 12 hex digits"):
        load_prepared(ws)


def test_index_that_ends_early_brings_a_warning(tmp_path, prices):
    days = np.sort(prices["date"].unique())[:200]
    prepared = prepare(Workspace(tmp_path), prices, index=pd.DataFrame({"date": days, "close": 1000.0}))
    assert "the index has no value on 600 of 800 trading days" in prepared.cleaning.warnings[0]


def test_root_that_is_a_file_is_refused(tmp_path, prices):
    (tmp_path / "root").write_text("x")
    with pytest.raises(StorageError):
        prepare(Workspace(tmp_path / "root"), prices)


def test_universe_is_vn102_where_the_data_has_it(panel, prices):
    assert default_universe(panel) == panel.symbols
    renamed = prices.assign(symbol=prices["symbol"].replace({"SYN001": "FPT", "SYN003": "ACB"}))
    assert default_universe(build_panel(renamed)) == ("ACB", "FPT")


# --- weekly updates


PRICES = ["open", "high", "low", "close"]


def weekly(ws, base, update, name="week.csv"):
    """A workspace with a base in data/raw and one update."""
    for folder, table, file in ((ws.raw, base, "base.csv"), (ws.weekly_updates, update, name)):
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / file, index=False)


def test_update_goes_on_where_the_base_ends(tmp_path, prices):
    days = np.sort(prices["date"].unique())
    weekly(Workspace(tmp_path), prices[prices["date"] <= days[-6]], prices[prices["date"] > days[-11]])
    prepared = prepare(Workspace(tmp_path), tmp_path / "data" / "raw")
    assert prepared.panel.data_id == prepare(Workspace(tmp_path / "b"), prices).panel.data_id
    assert [item.file for item in prepared.cleaning.files] == ["raw/base.csv", "weekly_updates/week.csv"]


def test_later_value_wins_and_the_disagreement_is_told(tmp_path, prices):
    days = np.sort(prices["date"].unique())
    update = prices[prices["date"] > days[-11]].copy()
    wrong = (update["symbol"] == "SYN002") & (update["date"] == days[-8])
    update.loc[wrong, PRICES] *= 1.04
    weekly(Workspace(tmp_path), prices[prices["date"] <= days[-6]], update)
    prepared = prepare(Workspace(tmp_path), tmp_path / "data" / "raw")
    row = prepared.prices[(prepared.prices["symbol"] == "SYN002") & (prepared.prices["date"] == days[-8])]
    assert row["close"].item() == pytest.approx(update.loc[wrong, "close"].item())
    told = [item for item in prepared.cleaning.findings if "disagree" in item.issue]
    assert told and "SYN002" in told[0].example


def test_dividend_that_rescales_history_makes_no_false_jump(tmp_path, prices):
    days = np.sort(prices["date"].unique())
    update = prices[prices["date"] > days[-11]].copy()
    update.loc[update["symbol"] == "SYN003", PRICES] *= 0.9  # the provider's new basis
    weekly(Workspace(tmp_path), prices[prices["date"] <= days[-6]], update)
    prepared = prepare(Workspace(tmp_path), tmp_path / "data" / "raw")
    whole = prepare(Workspace(tmp_path / "b"), prices)
    np.testing.assert_allclose(prepared.panel.returns, whole.panel.returns, atol=1e-9)
    past = prepared.prices["date"] <= days[-11]
    pd.testing.assert_frame_equal(prepared.prices[past], whole.prices[past], check_dtype=False)
    told = [item for item in prepared.cleaning.findings if "basis" in item.issue]
    assert told and "SYN003" in told[0].example


def test_vnindex_among_the_files_is_the_market(tmp_path, prices):
    ws, days = Workspace(tmp_path), np.sort(prices["date"].unique())
    index = pd.DataFrame({"symbol": "VNINDEX", "date": days, "open": 1000.0, "high": 1000.0, "low": 1000.0,
                          "close": 1000 * 1.001 ** np.arange(len(days)), "volume": 0})
    weekly(ws, prices, index, "index.csv")
    prepared = prepare(ws, ws.raw)
    assert "VNINDEX" not in prepared.panel.symbols and len(prepared.index) == len(days)
    assert "market: the index" in repr(prepared)


def test_table_by_hand_stands_alone(tmp_path, prices):
    ws = Workspace(tmp_path)
    weekly(ws, prices, prices.assign(symbol="OTHER"))
    assert "OTHER" not in prepare(ws, prices).panel.symbols


def test_without_a_path_the_files_of_the_workspace_are_taken(tmp_path, prices):
    ws = Workspace(tmp_path)
    assert prepare(ws, None).synthetic and len(prepare(ws, None).panel.symbols) > 6
    prices = prices.assign(symbol="TST" + prices["symbol"].str[-1])
    ws.raw.mkdir(parents=True)
    (ws.raw / "desktop.ini").write_text("[.ShellClassInfo]", encoding="utf-8")
    assert prepare(ws, None).synthetic
    prices.iloc[: len(prices) // 2].to_csv(ws.raw / "prices.csv", index=False)
    assert not prepare(ws, None).synthetic
    ws.weekly_updates.mkdir(parents=True)
    prices.to_csv(ws.weekly_updates / "update.csv", index=False)
    assert len(prepare(ws, None).prices) == len(prices)


def test_panel_is_looked_up_before_it_is_built_and_other_code_is_noticed(tmp_path, prices, monkeypatch):
    ws = Workspace(tmp_path)
    first = prepare(ws, prices)
    assert load_prepared(ws).panel.values.tobytes() == first.panel.values.tobytes()
    monkeypatch.setattr("vnq_colab.data.prepared.build_panel", lambda *_: pytest.fail("the panel is there already"))
    monkeypatch.setattr("vnq_colab.data.prepared._feature_means", lambda: read_json(first.folder / "prepared.json")
                        ["feature_means"])
    before = (first.folder / "panel.parquet").stat().st_mtime_ns
    again = prepare(ws, prices.sample(frac=1, random_state=0))
    assert again.folder == first.folder and again.panel.values.tobytes() == first.panel.values.tobytes()
    assert (first.folder / "panel.parquet").stat().st_mtime_ns == before
    monkeypatch.undo()
    monkeypatch.setitem(FEATURES, "gap", replace(FEATURES["gap"], compute=lambda history: 0 * history.close))
    for panel in (prepare(ws, prices).panel, load_prepared(ws).panel):
        assert not panel.values[:, :, panel.feature_names.index("gap")].any()


def test_what_is_prepared_is_read_once_and_known_as_it_was_read(tmp_path, prices):
    day, ws = prices["date"].unique()[300], Workspace(tmp_path)
    rows = prices.assign(close=prices["close"].where(prices.index != 100, 0.0))
    prepared = prepare(ws, rows, as_of=str(day)[:10], on_bad_rows="drop")
    assert len(prepared.rows) == len(prepared.prices) + 1 and prepared.rows["date"].max() == day
    assert prepared.cleaning_options["on_bad_rows"] == "drop" and load_prepared(ws).rows is None


def test_set_whose_proof_failed_is_refused(tmp_path, prices):
    ws = Workspace(tmp_path)
    write_json(prepare(ws, prices).folder / PROOF, {"passed": False})
    with pytest.raises(DataError, match="knows the future"):
        load_prepared(ws)


def test_panel_of_some_symbols_does_not_stand_for_all(tmp_path, panel):
    ws = Workspace(tmp_path)
    keep_panel(ws, panel.select(panel.symbols[:2]))
    keep_panel(ws, panel)
    assert load_panel(ws, panel.data_id).symbols == panel.symbols
    keep_panel(ws, panel.select(panel.symbols[:2]))
    assert load_panel(ws, panel.data_id).symbols == panel.symbols


def test_index_with_a_bad_row_or_too_few_days_is_told(tmp_path, prices):
    days = np.sort(prices["date"].unique())
    index = pd.DataFrame({"symbol": "VNINDEX", "date": days, "close": 1000.0})
    index.loc[7, "close"] = 0.0
    prices.to_csv(tmp_path / "prices.csv", index=False)
    (tmp_path / "raw").mkdir()
    for table, used, said in ((index, True, "1 rows without a positive close"), (index[100:], False, "is not used")):
        prices.to_csv(tmp_path / "raw" / "prices.csv", index=False)
        table.to_csv(tmp_path / "raw" / "VNINDEX.csv", index=False)
        made = prepare(Workspace(tmp_path / "ws"), tmp_path / "raw")
        assert (made.index is not None) == used and said in " ".join(made.cleaning.warnings)
