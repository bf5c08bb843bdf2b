import numpy as np
import pandas as pd
import pytest

from vnq_colab.data import synthetic
from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.market import VN102, VN_RULES, tick
from vnq_colab.data.panel import build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import ConfigError


@pytest.fixture(scope="module")
def market():
    return synthetic_prices(40, 800, seed=5)


def test_same_seed_gives_the_same_market():
    pd.testing.assert_frame_equal(synthetic_prices(3, 50, seed=1), synthetic_prices(3, 50, seed=1))
    assert not synthetic_prices(3, 50, seed=2).equals(synthetic_prices(3, 50, seed=1))


def test_market_needs_no_cleaning_and_bears_no_real_name(market):
    clean, report = clean_prices(market)
    assert len(clean) == len(market)
    assert [item.disease for item in report.findings] == ["day without trades"]
    assert not set(market["symbol"]) & set(VN102)


def test_close_stays_in_the_band_of_its_exchange(market):
    """Between two days on which the stock is there; a tick of a very cheap stock can be more than its band."""
    days = np.sort(market["date"].unique())
    for _, rows in market.groupby("symbol"):
        place, close = np.searchsorted(days, rows["date"].to_numpy()), rows["close"].to_numpy()
        band = VN_RULES.band(rows["exchange"].iloc[0], pd.DatetimeIndex(rows["date"]))[1:]
        asked = (np.diff(place) == 1) & (close[:-1] >= 2000)
        assert (np.abs(close[1:] / close[:-1] - 1)[asked] <= band[asked] + 1e-9).all()


def test_prices_stand_on_the_tick(market):
    for exchange, rows in market.groupby("exchange"):
        close = rows["close"].to_numpy()
        np.testing.assert_allclose(close / tick(close, exchange) % 1, 0, atol=1e-9)


def test_stocks_are_listed_on_different_days_and_some_days_are_quiet(market):
    first = market.groupby("symbol")["date"].min()
    assert first.nunique() > 3
    assert 0.001 < (market["volume"] == 0).mean() < 0.05


def test_returns_share_a_factor_and_volatility_clusters(market):
    panel = build_panel(market)
    returns = pd.DataFrame(panel.returns.T)
    pairs = returns.corr().to_numpy()[np.triu_indices(len(panel.symbols), 1)]
    assert 0.15 < np.nanmean(pairs) < 0.45
    squares = np.abs(returns)
    assert np.mean([squares[name].autocorr(5) for name in squares]) > 0.05


@pytest.mark.parametrize("dial", [0.0, 0.05, 0.2])
def test_dial_is_the_share_that_a_perfect_forecaster_explains(dial, monkeypatch):
    """The hidden signal itself is correlated with the outcomes: R² is the dial."""
    kept = []
    original = synthetic._autoregression

    def listen(random, n_days, width, persistence):
        kept.append(original(random, n_days, width, persistence))
        return kept[-1]

    monkeypatch.setattr(synthetic, "_autoregression", listen)
    panel = build_panel(synthetic_prices(60, 2500, seed=9, signal=dial))
    hidden = kept[0].T  # [symbols, days]
    labels, known = panel.labels()
    sums = labels.sum(axis=2)
    spread = panel.values[:, :, panel.feature_names.index("volatility_20")]
    use = known & (spread > 0.002)
    r_squared = np.corrcoef(hidden[use], (sums / np.maximum(spread, 0.002))[use])[0, 1] ** 2
    assert r_squared == pytest.approx(dial, abs=0.3 * dial + 0.002)


def test_impossible_dial_is_refused():
    with pytest.raises(ConfigError, match="signal = 0.9"):
        synthetic_prices(signal=0.9)
