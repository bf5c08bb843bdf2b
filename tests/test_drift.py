"""The drift watch, on a market whose features and forecasts are known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.tiny import panel_of
from vnq_colab.data.panel import OPEN
from vnq_colab.evaluation import drift
from vnq_colab.evaluation.drift import daily_correlation, reference, watch
from vnq_colab.files import read_json, write_json
from vnq_colab.settings import convert

SYMBOLS = tuple(f"AA{letter}" for letter in "ABCDEFGHIJKLMNOPQRST")


@pytest.fixture(scope="module")
def market():
    """Twenty stocks over 700 days: a feature of stocks, a flag, and one that is equal for all stocks of a day."""
    random, n_days = np.random.default_rng(1), 700
    panel = panel_of(random.normal(0, 0.02, (20, n_days)), SYMBOLS, pd.bdate_range("2022-01-03", periods=n_days))
    own, flag = random.normal(size=(20, n_days)), random.random((20, n_days)) < 0.02
    common = np.broadcast_to(np.cumsum(random.normal(size=n_days)), (20, n_days))
    return replace(panel, values=np.stack([own, flag, common], axis=2).astype("float32"),
                   feature_names=("own", "flag", "common"))


def scores_of(panel, skill, seed=2):
    """Scores of all stocks and days with about this rank correlation with what came."""
    noise = np.random.default_rng(seed).normal(size=panel.present.shape)
    ahead = np.nan_to_num(panel.ahead(column=OPEN))
    score = skill * ahead / ahead.std() + np.sqrt(1 - skill**2) * noise
    return pd.DataFrame({"symbol": np.repeat(panel.symbols, len(panel.days)),
                         "date": np.tile(panel.days, len(panel.symbols)), "score": score.ravel()})


def test_correlation_of_a_day_is_spearman_of_score_and_what_came(market):
    rows = scores_of(market, 0.3)
    found = daily_correlation(rows, market)
    ahead = pd.DataFrame(market.ahead(column=OPEN), list(market.symbols), market.days)
    day = found.index[40]
    score = rows[rows["date"] == day].set_index("symbol")["score"]
    assert found[day] == pytest.approx(score.corr(ahead[day], method="spearman")) and len(found) == 700 - 6


def test_quiet_days_bring_no_warning_and_a_broken_feature_is_named(market, tmp_path):
    monitor = reference(market, scores_of(market, 0.3))
    assert set(monitor["features"]) == {"own", "flag"}, "what is equal for all stocks of a day drifts by nature"
    write_json(tmp_path / "monitor.json", monitor)
    assert convert(drift.Monitor, read_json(tmp_path / "monitor.json"), "monitor") == monitor
    later = replace(market, days=market.days + pd.Timedelta(days=1000))
    quiet = watch(monitor, later, scores_of(later, 0.3).iloc[:0])
    assert not quiet.warnings and quiet.n_evenings == 0 and "0 of our own forecasts have an outcome" in repr(quiet)
    values = market.values.copy()
    values[:, -20:, 0] *= 3
    found = watch(monitor, replace(later, values=values), scores_of(later, 0.3).iloc[:0])
    assert list(found.features) == ["own"]
    assert "own (PSI" in found.warnings[0] and "of 2 features" in found.warnings[0]
    values[:, -20:, 1] = 1
    assert set(watch(monitor, replace(later, values=values), scores_of(later, 0.3)).features) == {"own", "flag"}


def test_psi_is_that_of_the_formula():
    edges, shares = drift._bins(np.append(np.arange(100.0), np.nan))
    assert shares.tolist() == pytest.approx([0.11] + [0.1] * 8 + [0.09])
    now = np.array([0.001] * 9 + [1.0])  # all in the last bin
    assert drift._psi(edges, shares, np.full(50, 99.5)) == pytest.approx(((now - shares) * np.log(now / shares)).sum())


def test_forecasts_that_no_longer_order_the_stocks_warn_and_few_evenings_say_how_many(market):
    monitor = reference(market, scores_of(market, 0.3))
    low, high = monitor["order"]["20"]
    assert 0.1 < low < high < 0.5 and monitor["order"]["60"][0] > low, "sixty evenings vary less"
    recent = market.days[-66:]
    for skill, n_warnings in ((0.4, 0), (-0.2, 2)):
        rows = scores_of(market, skill, seed=9)
        found = watch(monitor, market, rows[rows["date"].isin(recent)])
        assert found.n_evenings == 60 and set(found.order) == {"20", "60"} and len(found.warnings) == n_warnings
    assert "below" in found.warnings[0] and "rank correlation of 20 evenings" in repr(found)
    few = watch(monitor, market, rows[rows["date"].isin(recent[-15:])])
    assert not few.order and not few.warnings and "9 of our own forecasts have an outcome" in repr(few)


def test_a_short_past_watches_no_feature_and_a_few_test_days_no_order(market):
    short = replace(market, **{name: getattr(market, name)[:, :300] for name in ("values", "prices", "present")},
                    days=market.days[:300])
    assert reference(short, scores_of(short, 0.3).groupby("symbol").head(12)) == {"features": {}, "order": {}}
