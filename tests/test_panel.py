import numpy as np
import pandas as pd
import pytest

from vnq_colab.data.features import FEATURES
from vnq_colab.data.panel import FLAT, Panel, build_panel, data_id, fit_scaler
from vnq_colab.errors import DataError


def test_labels_are_the_next_five_returns(panel):
    targets, known = panel.labels()
    np.testing.assert_allclose(targets[0, 100], panel.returns[0, 101:106], rtol=1e-6)
    assert not known[:, -5:].any()
    assert known[0, -6]


def test_label_is_unknown_when_a_day_ahead_is_absent(prices):
    rows = prices.index[prices["symbol"] == "SYN001"]
    _, known = build_panel(prices.drop(rows[200])).labels()
    assert not known[0, 195:201].any()
    assert known[0, 194] and known[0, 201]


def test_outcomes_add_up_and_unchanged_closes_are_flat():
    closes = [100.0, 101, 99, 102, 98, 100, 100, 100, 100, 100, 100]
    table = pd.DataFrame({"symbol": "AAA", "date": pd.bdate_range("2024-01-01", periods=11),
                          "open": closes, "high": closes, "low": closes, "close": closes, "volume": 1})
    outcomes = build_panel(table).outcomes()
    assert abs(outcomes["actual"][0]) < FLAT
    steps = [f"actual_{step}" for step in range(1, 6)]
    np.testing.assert_allclose(outcomes[steps].sum(axis=1), outcomes["actual"])
    assert outcomes["actual"][1] == pytest.approx(np.log(100 / 101), rel=1e-5)


def test_panel_survives_its_file(panel, tmp_path):
    panel.save(tmp_path / "panel.parquet")
    again = Panel.load(tmp_path / "panel.parquet")
    np.testing.assert_array_equal(again.values, panel.values)
    np.testing.assert_array_equal(again.returns, panel.returns)
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
    first, last = panel.days[50], panel.days[250]
    scaler = fit_scaler(panel, first, last)
    values = panel.values.copy()
    values[:, 251:] += 100
    values[:, :50] -= 100
    other = Panel(values, panel.returns, panel.present, panel.symbols, panel.days, panel.feature_names, panel.data_id)
    np.testing.assert_array_equal(fit_scaler(other, first, last).mean, scaler.mean)
    scaled = scaler.scale(panel.values, panel.present)[0, 50:251][panel.present[0, 50:251]]
    inside = (np.abs(scaled).max(axis=0) < 5) & (np.ptp(scaled, axis=0) > 0)  # neither clipped nor constant
    np.testing.assert_allclose(scaled.mean(axis=0)[inside], 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0)[inside], 1, atol=1e-3)


def test_scaled_value_is_bounded_and_absent_days_are_zero(panel):
    scaler = fit_scaler(panel, panel.days[0], panel.days[100])
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
        Panel(values, panel.returns, panel.present, panel.symbols, panel.days, panel.feature_names, panel.data_id)


def test_foreign_file_is_not_a_panel(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="not a panel"):
        Panel.load(tmp_path / "x.parquet")
