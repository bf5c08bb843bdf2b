"""The order of a day: against scipy day by day and statsmodels over the days, and what could be bought, by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from tests.tiny import forecast_of, panel_of
from vnq_colab.data.panel import CLOSE, OPEN
from vnq_colab.evaluation.metrics import with_outcomes
from vnq_colab.evaluation.order import (
    FEWEST_STOCKS,
    buyable,
    daily_rank_correlations,
    order_text,
    rank_correlations,
)
from vnq_colab.evaluation.significance import hac_t

SYMBOLS = tuple(f"S{place}" for place in range(8))


@pytest.fixture(scope="module")
def rows():
    """Scores of three families for eight stocks over 300 days: one knows a little, one nothing, one has no order."""
    random = np.random.default_rng(0)
    panel = panel_of(random.normal(0, 0.02, (8, 300)), SYMBOLS, pd.bdate_range("2023-06-01", periods=300),
                     opens=random.normal(0, 0.005, (8, 300)))
    panel.present[:5, 200], panel.prices[:5, 200] = False, np.nan  # three stocks are left on this day
    actual, tables = panel.ahead(), []
    for row, symbol in enumerate(SYMBOLS):
        days = panel.days[panel.present[row]][:-6]
        noise = random.normal(0, 0.05, (2, len(days)))
        known = np.nan_to_num(0.3 * actual[row, panel.present[row]][:-6])
        for family, score in (("knows", known + noise[0]), ("coin", np.round(noise[1], 2)), ("flat", 0.01)):
            tables.append(forecast_of(symbol, days, score, family=family))
    return with_outcomes(pd.concat(tables, ignore_index=True), panel)


@pytest.mark.parametrize("outcome, lost", [("actual", [195, 200]), ("actual_open", [194, 195, 199, 200])])
def test_daily_rank_correlation_is_spearman_s(rows, outcome, lost):
    found = daily_rank_correlations(rows, outcome)
    assert set(found.columns) == {"knows", "coin", "flat"} and found.index.is_monotonic_increasing
    several = 0
    for family in ("knows", "coin"):
        for day, part in rows[(rows["family"] == family) & rows[outcome].notna()].groupby("date"):
            if len(part) < FEWEST_STOCKS:
                assert np.isnan(found.loc[day, family])
                continue
            several += part["score"].duplicated().any()
            assert found.loc[day, family] == pytest.approx(spearmanr(part["score"], part[outcome]).statistic)
    assert several > 20 and np.flatnonzero(found.isna().all(axis=1)).tolist() == lost
    assert (found["flat"].dropna() == 0).all()


def test_rank_correlations_are_the_means_of_the_days_with_their_t(rows):
    whole, by_year = rank_correlations(rows)
    close, opened = (daily_rank_correlations(rows, name) for name in ("actual", "actual_open"))
    assert whole["family"].tolist()[0] == "knows" and (whole["period"] == "all").all()
    for line in whole.itertuples():
        daily = opened[line.family].dropna()
        assert (line.open, line.close) == pytest.approx((daily.mean(), close[line.family].mean()))
        assert line.n_days == len(daily) and line.positive == (daily > 0).mean()
        if line.family != "flat":
            assert (line.open_t, line.close_t) == pytest.approx((hac_t(daily), hac_t(close[line.family].dropna())))
    assert by_year["period"].tolist() == ["2023"] * 3 + ["2024"] * 3
    first = by_year[(by_year["family"] == "coin") & (by_year["period"] == "2023")].iloc[0]
    assert first["open"] == pytest.approx(opened.loc[opened.index.year == 2023, "coin"].mean())
    weighted = (by_year["open"] * by_year["n_days"]).groupby(by_year["family"]).sum() / whole["n_days"].iloc[0]
    assert weighted["knows"] == pytest.approx(whole["open"].iloc[0])


def test_t_is_the_one_of_statsmodels_with_newey_and_west_s_errors():
    regression = pytest.importorskip("statsmodels.api")
    random = np.random.default_rng(1)
    values = 0.05 + np.convolve(random.normal(size=400), np.ones(5) / 5, mode="valid")
    fitted = regression.OLS(values, np.ones(len(values))).fit(
        cov_type="HAC", cov_kwds={"maxlags": 10, "use_correction": False})
    assert hac_t(values) == pytest.approx(fitted.tvalues[0])
    assert abs(hac_t(values)) < abs(np.sqrt(len(values)) * values.mean() / values.std()), "neighbours depend"
    assert np.isnan(hac_t(values[:19])) and np.isnan(hac_t(np.ones(50)))


def test_correlation_of_a_coin_is_within_its_error_and_of_one_who_knows_is_not(rows):
    whole = rank_correlations(rows)[0].set_index("family")
    assert whole.loc["knows", "close_t"] > 5 and abs(whole.loc["coin", "close_t"]) < 2.5


def test_buyable_is_what_trades_and_opens_below_its_ceiling():
    """Closes of 20,000 on HOSE (7 %) and HNX (10 %); what counts is the next day's open and trade."""
    panel = panel_of(np.zeros((3, 9)), ("AAA", "BBB", "CCC"))
    prices = panel.prices.copy()
    prices[:2, 1, OPEN] = 21_350  # within a tick of AAA's ceiling, 21,400; BBB has still three hundredths
    prices[:2, 2, OPEN] = 21_250  # one tick and more below AAA's
    prices[1, 3, OPEN] = 21_850  # within a tick of BBB's ceiling, 22,000
    prices[2, 4, 4] = 0  # CCC does not trade on day 4
    prices[2, 7], panel.present[2, 7] = np.nan, False
    table = pd.DataFrame({"symbol": panel.symbols, "exchange": ["HOSE", "HNX", "somewhere"]})
    found = buyable(replace(panel, prices=prices), table)
    assert np.flatnonzero(~found[0]).tolist() == [0, 8]  # of the last day nothing is known
    assert np.flatnonzero(~found[1]).tolist() == [2, 8]
    assert np.flatnonzero(~found[2]).tolist() == [3, 6, 7, 8]
    assert np.flatnonzero(~buyable(replace(panel, prices=prices), table[["symbol"]])[1]).tolist() == [0, 2, 8]


def test_buyable_asks_the_band_of_the_day():
    """HOSE's band was 5 % until 2013-01-14, then 7 %."""
    panel = panel_of(np.zeros((1, 4)), days=pd.to_datetime(["2013-01-10", "2013-01-11", "2013-01-15", "2013-01-16"]))
    panel.prices[0, :, OPEN] = 1.05 * panel.prices[0, :, CLOSE]
    table = pd.DataFrame({"symbol": ["AAA"], "exchange": ["HOSE"]})
    assert buyable(panel, table)[0].tolist() == [False, True, True, False]


def test_order_is_told_in_a_sentence_and_unknown_ones_are_not(rows):
    whole, _ = rank_correlations(rows.assign(family=rows["family"].replace("knows", "ensemble")))
    line = whole.iloc[0]
    assert f"rank correlation of {line['open']:.3f} with the return from the next open" in order_text(whole)
    assert f"above 0 on {line['positive']:.0%} of {line['n_days']} days" in order_text(whole)
    assert order_text(whole, "trees") == "" and order_text(whole.assign(open=np.nan)) == ""
