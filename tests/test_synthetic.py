import numpy as np
import pandas as pd
import pytest

from vnq_colab.data import synthetic
from vnq_colab.data.cleaning import clean_prices
from vnq_colab.data.forecast import rank_correlation
from vnq_colab.data.market import VN102, VN_RULES, tick
from vnq_colab.data.panel import OPEN, build_panel
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
    assert [item.issue for item in report.findings] == ["day without trades"]
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


@pytest.mark.parametrize("dial", [0.0, 0.05, 0.15, 0.5])
def test_dial_is_the_rank_correlation_of_the_best_forecast(dial, monkeypatch):
    """The hidden signal itself, as the score of a forecast, between the stocks of a day."""
    panel, hidden = seen_from_behind(monkeypatch, 102, 1060, seed=9, signal=dial)
    assert rank_correlation(hidden, panel.ahead(5)) == pytest.approx(dial, abs=0.07 * dial + 0.005)


def test_dial_of_the_default_market_is_what_real_prices_may_give(monkeypatch):
    panel, hidden = seen_from_behind(monkeypatch, seed=0)
    assert rank_correlation(hidden, panel.ahead(5)) == pytest.approx(0.15, abs=0.015)
    assert rank_correlation(hidden, panel.ahead(5, OPEN)) == pytest.approx(0.15, abs=0.015)


def seen_from_behind(monkeypatch, *sizes, **choices):
    """(panel, hidden signal [symbols, days] where the stock is present) of a synthetic market."""
    kept = []
    original = synthetic._autoregression

    def listen(random, n_days, width, persistence):
        kept.append(original(random, n_days, width, persistence))
        return kept[-1]

    monkeypatch.setattr(synthetic, "_autoregression", listen)
    panel = build_panel(synthetic_prices(*sizes, **choices))
    return panel, np.where(panel.present, kept[0].T, np.nan)


@pytest.mark.parametrize("dial", [0.9, -0.1, float("nan")])
def test_impossible_dial_is_refused(dial):
    with pytest.raises(ConfigError, match=f"signal = {dial}"):
        synthetic_prices(signal=dial)
