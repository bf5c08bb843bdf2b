from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.tiny import panel_of
from vnq_colab.data import panel as panels
from vnq_colab.data.features import FEATURES
from vnq_colab.data.panel import CLOSE, FLAT, OPEN, Panel, build_panel, data_id, fit_scaler
from vnq_colab.errors import DataError


def test_prices_and_returns_are_those_of_the_table(prices, panel):
    for symbol, rows in prices.groupby("symbol"):
        row = panel.symbols.index(symbol)
        there = panel.present[row]
        np.testing.assert_array_equal(panel.days[there], rows["date"])
        table = [*(rows[name] for name in ("open", "high", "low", "close")), rows["close"] * rows["volume"]]
        np.testing.assert_array_equal(panel.prices[row, there], np.column_stack(table))
        assert np.isnan(panel.prices[row, ~there]).all() and np.isnan(panel.returns[row, ~there]).all()
        np.testing.assert_allclose(panel.returns[row, there][1:], np.diff(np.log(rows["close"])), atol=1e-13)
        assert np.isnan(panel.returns[row, there][0])


def test_ahead_is_what_somebody_could_have_from_close_to_close_and_from_the_next_open():
    closes, opens = np.exp(np.arange(9) ** 2 / 100), np.exp(np.arange(9) ** 2 / 100 - 0.01)
    table = pd.DataFrame({"symbol": "AAA", "date": pd.bdate_range("2024-01-01", periods=9), "open": opens,
                          "high": closes, "low": opens, "close": closes, "volume": 1})
    panel = build_panel(table)
    assert panel.ahead()[0] == pytest.approx([0.25, 0.35, 0.45, 0.55] + [np.nan] * 5, nan_ok=True)
    assert panel.ahead(5, OPEN)[0] == pytest.approx([0.35, 0.45, 0.55] + [np.nan] * 6, nan_ok=True)
    assert panel.ahead(1)[0, :2] == pytest.approx([0.01, 0.03]) and np.isnan(panel.ahead(20)).all()


def test_ahead_is_unknown_when_the_origin_or_its_end_is_absent(panel):
    holed = replace(panel, present=panel.present.copy(), prices=panel.prices.copy())
    row = panel.symbols.index("SYN002")  # there on every day
    holed.present[row, 200], holed.prices[row, 200] = False, np.nan
    for column, lost in ((CLOSE, [195, 200]), (OPEN, [194, 199, 200])):
        changed = np.flatnonzero(np.isfinite(panel.ahead(5, column)[row]) & np.isnan(holed.ahead(5, column)[row]))
        assert changed.tolist() == lost


def test_equal_closes_with_moves_between_them_are_flat():
    panel = panel_of(np.append(np.nan, np.diff(np.log([100.0, 101, 99, 102, 98, 100, 100, 100, 100, 100, 100]))))
    assert abs(panel.ahead()[0, 0]) < FLAT and panel.ahead()[0, 1] == pytest.approx(np.log(100 / 101), rel=1e-5)


def test_ranks_run_from_lowest_to_highest_of_those_present(panel):
    day, feature = 400, panel.feature_names.index("volatility_20")
    there, values = panel.present[:, day], panel.values[:, day, feature]
    order = np.argsort(values[there])
    assert panel.ranks[there, day, feature][order] == pytest.approx(np.linspace(-1, 1, there.sum()))
    assert not panel.ranks[~panel.present].any() and not panel.present[:, 5].all()


def test_panel_survives_its_file(panel, tmp_path):
    panel.save(tmp_path / "panel.parquet")
    again = Panel.load(tmp_path / "panel.parquet")
    np.testing.assert_array_equal(again.values, panel.values)
    np.testing.assert_array_equal(again.prices, panel.prices)
    np.testing.assert_array_equal(again.present, panel.present)
    assert (again.symbols, again.feature_names, again.data_id) == (panel.symbols, panel.feature_names, panel.data_id)
    assert again.days.equals(panel.days)


def test_data_id_is_of_the_values_alone(prices):
    shuffled = prices.sample(frac=1, random_state=0)
    retyped = prices.assign(date=prices["date"].astype("datetime64[ms]"), symbol=prices["symbol"].astype(object))
    assert data_id(prices) == data_id(shuffled) == data_id(retyped)
    changed = prices.copy()
    changed.loc[5, "close"] += 1e-6
    assert data_id(changed) != data_id(prices)
    assert data_id(prices.assign(exchange="HNX")) != data_id(prices.assign(exchange="HOSE"))
    assert data_id(prices, pd.DataFrame({"date": prices["date"][:1], "close": [1.0]})) != data_id(prices)


def test_data_id_tells_versions_and_their_features_apart(prices, monkeypatch):
    first = data_id(prices)
    monkeypatch.setattr("vnq_colab.data.panel.__version__", "99.0")
    second = data_id(prices)
    monkeypatch.setattr("vnq_colab.data.panel.FEATURES", dict(list(FEATURES.items())[:-1]))
    assert len({first, second, data_id(prices)}) == 3


def test_data_id_is_the_same_on_every_machine(monkeypatch):
    monkeypatch.setattr("vnq_colab.data.panel.__version__", "1.0")
    monkeypatch.setattr("vnq_colab.data.panel.FEATURES", {})
    table = pd.DataFrame({"symbol": ["AAA"], "date": pd.to_datetime(["2024-01-02"]), "open": [1.0], "high": [2.0],
                          "low": [0.5], "close": [1.5], "volume": [100]})
    assert data_id(table) == "9ca782bdbdbc"


def test_scaler_sees_training_days_only(panel):
    train = np.isin(np.arange(len(panel.days)), range(50, 251))
    scaler = fit_scaler(panel, train)
    values = panel.values.copy()
    values[:, 251:] += 100
    values[:, :50] -= 100
    prices = panel.prices.copy()
    prices[:, 251:] *= np.linspace(1, 3, prices.shape[1] - 251)[:, None]
    other = fit_scaler(replace(panel, values=values, prices=prices), train)
    for part in ("mean", "spread", "target"):
        np.testing.assert_array_equal(getattr(other, part), getattr(scaler, part))
    scaled = scaler.scale(panel.values, panel.present)[0, 50:251][panel.present[0, 50:251]]
    inside = (np.abs(scaled).max(axis=0) < 5) & (np.ptp(scaled, axis=0) > 0)  # neither clipped nor constant
    np.testing.assert_allclose(scaled.mean(axis=0)[inside], 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0)[inside], 1, atol=1e-3)


def test_scaled_value_is_bounded_and_absent_days_are_zero(panel):
    scaler = fit_scaler(panel, np.arange(len(panel.days)) <= 100)
    scaled = scaler.scale(panel.values * 1000, panel.present)
    assert np.abs(scaled).max() <= 5
    assert not scaled[~panel.present].any()


def test_unknown_symbol_names_the_nearest(panel):
    with pytest.raises(DataError, match="no symbol SYN01.*Did you mean 'SYN001'"):
        panel.select(["SYN01"])


def test_panel_with_a_hole_in_its_numbers_is_refused(panel):
    values = panel.values.copy()
    values[1, 3, 4] = np.nan
    with pytest.raises(DataError, match=r"SYN002 .*feature mean_distance_10 is not finite"):
        replace(panel, values=values)
    with pytest.raises(DataError, match=r"prices \(6, 800, 4\).* do not fit"):
        replace(panel, prices=panel.prices[:, :, :4])


def test_foreign_file_is_not_a_panel(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not a panel"):
        Panel.load(tmp_path / "x.parquet")


def test_stocks_that_never_traded_side_by_side_make_no_panel(prices, monkeypatch):
    one = prices[prices["symbol"] == "SYN001"]
    monkeypatch.setattr(panels, "FEW_CELLS", 1000)
    apart = one.assign(symbol=[f"S{row // 2:03d}" for row in range(len(one))])
    with pytest.raises(DataError, match="symbols on .* days have .* prices, on fewer than one day in 6: they"):
        build_panel(apart)
    monkeypatch.setattr(panels, "BYTES_A_CELL", 1e12)
    with pytest.raises(DataError, match="1 symbols on 776 days need about 776,000.0 GB of memory, and .* GB are free"):
        build_panel(one)


@pytest.mark.parametrize("change, said", [
    (lambda table: pd.concat([table] * 3, ignore_index=True), "rows of no symbol or no day, or two of one"),
    (lambda table: table.assign(symbol=table["symbol"].where(table.index > 0)), "rows of no symbol or no day"),
    (lambda table: table.assign(date=pd.Timestamp("1999-01-04")), "rows of no symbol or no day"),
    (lambda table: table.assign(symbol="FPT"), "not a panel"),
    (lambda table: table[["symbol", "date"]], "not a panel"),
    (lambda table: pd.concat([table.head(1)] * 1_000_000, ignore_index=True), "1,000,000 rows in"),
    (lambda table: b"PAR1 but not really", "not a panel"), (lambda table: None, "Is a directory|not a regular file")])
def test_a_file_that_is_no_panel_of_ours_is_refused(tmp_path, panel, change, said):
    path = tmp_path / "panel.parquet"
    panel.save(path)
    table = pd.read_parquet(path)
    changed = change(table)
    if changed is None:
        path.unlink()
        path.mkdir()
    elif isinstance(changed, bytes):
        path.write_bytes(changed)
    else:
        changed.attrs = table.attrs
        changed.to_parquet(path, index=False)
    with pytest.raises(DataError, match=said) as caught:
        type(panel).load(path)
    assert "\n" not in str(caught.value) and "panel.parquet: not a panel of this library (" in str(caught.value)
