"""The order of a day: against scipy day by day and statsmodels over the days, and what could be bought, by hand."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tests.tiny import forecast_of, panel_of
from vnq_colab.data.history import within_day_ranks
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.panel import CLOSE, OPEN
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.metrics import with_outcomes
from vnq_colab.evaluation.order import (
    FEWEST_STOCKS,
    correlation,
    daily_rank_correlations,
    family_tables,
    measure_order,
    quantiles_of,
)
from vnq_colab.evaluation.order import buyable as buyable_on
from vnq_colab.evaluation.significance import hac_t

SYMBOLS = tuple(f"S{place}" for place in range(8))


def buyable(panel, table):
    """On the prices of a panel and the exchanges of a table."""
    symbol, day = np.nonzero(panel.present)
    opened, _, _, close, value = panel.prices[symbol, day].T
    rows = pd.DataFrame({"symbol": np.array(panel.symbols, dtype=object)[symbol], "date": panel.days[day],
                         "open": opened, "close": close, "volume": value / close})
    return buyable_on(panel, MarketData.of(rows.merge(table, on="symbol"), VN_RULES))


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
    [found] = daily_rank_correlations(rows, outcome)
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


def test_tables_of_families_are_the_means_of_the_days_with_their_t_and_interval(rows):
    close, opened = daily_rank_correlations(rows, "actual", "actual_open")
    whole, by_year = family_tables(close, opened)
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
    half = by_year["high"] - by_year["open"]
    assert (by_year["open"] / half * 1.96).to_numpy() == pytest.approx(by_year["open_t"], rel=1e-4, nan_ok=True)


def test_buyable_is_what_trades_and_opens_below_its_ceiling():
    """Closes of 20,000 on HOSE (7 %) and HNX (10 %); what counts is the next day's open and trade."""
    panel = panel_of(np.zeros((3, 9)), ("AAA", "BBB", "CCC"))
    prices = panel.prices.copy()
    prices[:2, 1, OPEN] = 21_360  # within a tick of AAA's ceiling, 21,400; BBB has still three hundredths
    prices[:2, 2, OPEN] = 21_350  # one tick below AAA's
    prices[1, 3, OPEN] = 21_950  # within a tick of BBB's ceiling, 22,000
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


@pytest.fixture(scope="module")
def market():
    """60 stocks on two exchanges over 400 days; `knows` sees a part of what comes, `coin` nothing."""
    random, names = np.random.default_rng(3), tuple(f"S{place:02}" for place in range(60))
    panel = panel_of(random.normal(0, 0.02, (60, 400)), names, pd.bdate_range("2023-06-01", periods=400),
                     opens=random.normal(0, 0.005, (60, 400)))
    panel.prices[:, :, 4] *= np.geomspace(1, 60, 60)[:, None]
    panel.present[:3, 150:170], panel.prices[:3, 150:170] = False, np.nan
    ahead, noise = np.nan_to_num(panel.ahead(5, OPEN)), random.normal(0, 0.05, (2, 60, 400))
    tables = [forecast_of(name, panel.days[panel.present[row]], score[row, panel.present[row]], family=family)
              for family, score in (("knows", 0.3 * ahead + noise[0]), ("coin", noise[1]))
              for row, name in enumerate(names)]
    table = pd.DataFrame({"symbol": names, "exchange": ["HOSE", "HNX"] * 30})
    return with_outcomes(pd.concat(tables, ignore_index=True), panel), panel, table


def measured(market, family="knows", rows=None):
    ours, panel, table = market
    return measure_order(ours if rows is None else rows, panel, table, family, buyable(panel, table))


@pytest.fixture(scope="module")
def order(market):
    return measured(market)


@pytest.fixture(scope="module")
def factors(market):
    """`knows` alone, as rows with what an independent look in pandas says of them; only what could be bought."""
    rows, panel, table = market
    rows = rows[rows["family"] == "knows"].copy()
    could_buy = pd.DataFrame(buyable(panel, table), list(panel.symbols), panel.days).stack()
    rows["could_buy"] = could_buy.loc[pd.MultiIndex.from_frame(rows[["symbol", "date"]])].to_numpy()
    return rows


def test_place_of_the_symbols_is_the_rank_correlation_of_the_days(order):
    symbols, daily = order.symbols, order.daily["knows"].dropna()
    assert order.families["open"][0] == pytest.approx(daily.mean())
    mean = (symbols["place"] * symbols["n_days"]).sum() / symbols["n_days"].sum()
    assert mean == pytest.approx(daily.mean(), rel=5e-3)  # a day with fewer stocks counts for less
    assert symbols["n_days"].between(330, 395).all() and (symbols["place_error"] < 0.1).all()
    assert symbols["locked"].tolist() == pytest.approx([21 / 395] * 3 + [0] * 57)  # a halt of 20 days, and its eve
    assert np.corrcoef(np.log(symbols["traded_value"]), range(60))[0, 1] > 0.95


def test_groups_are_the_rank_correlations_within_them(market, order, factors):
    """Second implementation in pandas: the exchange, the third of liquidity, and other horizons."""
    _, panel, table = market
    groups = order.groups.set_index(["group", "name"])["value"]
    traded = pd.DataFrame(np.nan_to_num(panel.prices[:, :, 4]), list(panel.symbols), panel.days)
    traded = traded.T.rolling(20, min_periods=1).median().T.stack()
    index = pd.MultiIndex.from_frame(factors[["symbol", "date"]])
    rows = factors.assign(exchange=factors["symbol"].map(table.set_index("symbol")["exchange"]),
                          traded=traded.loc[index].to_numpy())
    for horizon in (1, 10):
        ahead = pd.DataFrame(panel.ahead(horizon, OPEN), list(panel.symbols), panel.days).stack(future_stack=True)
        rows[f"ahead_{horizon}"] = ahead.loc[index].to_numpy()
    rows = rows[rows["could_buy"]]

    def mean_of(rows, outcome="actual_open"):
        rows = rows[rows[outcome].notna()]
        return np.mean([spearmanr(part["score"], part[outcome]).statistic for _, part in rows.groupby("date")
                        if len(part) >= FEWEST_STOCKS])

    known = rows[rows["actual_open"].notna()]
    third = known.groupby("date")["traded"].rank() - 1
    third = 2 * third / (known.groupby("date")["traded"].transform("size") - 1) - 1
    for name, found in {("exchange", "HNX"): mean_of(known[known["exchange"] == "HNX"]),
                        ("liquidity", "least"): mean_of(known[third < -1 / 3]),
                        ("liquidity", "most"): mean_of(known[third > 1 / 3]),
                        ("horizon", "1"): mean_of(rows, "ahead_1"), ("horizon", "10"): mean_of(rows, "ahead_10"),
                        ("horizon", "5"): order.daily["knows"].mean()}.items():
        assert groups[name] == pytest.approx(found, abs=1e-9), name
    assert groups["horizon"].idxmax() == "5" and (order.groups["t"][order.groups["group"] == "without"] > 10).all()


def test_what_is_left_without_a_factor_is_the_rest_of_a_regression(market, order, factors):
    _, panel, _ = market
    close = np.log(pd.DataFrame(panel.prices[:, :, CLOSE].T, panel.days, list(panel.symbols)).ffill())
    momentum = close.diff(20)
    found = []
    known = factors[factors["could_buy"] & factors["actual_open"].notna()]
    for day, part in known.groupby("date"):
        ranks = part[["score", "actual_open"]].rank()
        past = momentum.loc[day, part["symbol"]].rank().to_numpy()
        past = np.nan_to_num(past - np.nanmean(past) if np.isfinite(past).any() else past)
        factor = np.stack([np.ones(len(past)), past], axis=1)
        left = ranks["score"] - factor @ np.linalg.lstsq(factor, ranks["score"])[0]
        found.append(np.corrcoef(left, ranks["actual_open"])[0, 1])
    value = order.groups.set_index("name").loc["20-day momentum", "value"]
    assert value == pytest.approx(np.mean(found), abs=1e-9)


def test_score_that_is_a_factor_is_nothing_without_it(market):
    rows, panel, _ = market
    close = np.log(pd.DataFrame(panel.prices[:, :, CLOSE].T, panel.days, list(panel.symbols)).ffill())
    reversal = (-close.diff(5)).T.stack()
    rows = rows[(rows["family"] == "knows") & (rows["date"] > panel.days[30])]
    rows = rows.assign(score=reversal.loc[pd.MultiIndex.from_frame(rows[["symbol", "date"]])].to_numpy())
    found = measured(market, rows=rows).groups.set_index("name")["value"]
    assert found["5-day reversal"] == 0 == found["all four"] and found["illiquidity"] != 0


@pytest.mark.slow
def test_order_is_that_of_alphalens(market, factors):
    """Quantile returns, exchange of the best fifth, rank autocorrelation and mean IC of another library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        performance = pytest.importorskip("alphalens.performance")
        rows = factors[factors["could_buy"] & factors["actual_open"].notna()]
        data = rows.rename(columns={"symbol": "asset", "score": "factor", "actual_open": "5D"})
        data = data.set_index(["date", "asset"])[["factor", "5D"]].sort_index()
        tenth = data.groupby("date")["factor"].transform(lambda part: pd.qcut(part, 10, labels=False) + 1)
        returns, _ = performance.mean_return_by_quantile(data.assign(factor_quantile=tenth), by_date=True)
        ic = performance.factor_information_coefficient(data.assign(factor_quantile=tenth))["5D"]
        every = factors.rename(columns={"symbol": "asset", "score": "factor"}).set_index(["date", "asset"])
        every = every[["factor"]].sort_index()
        fifth = every.groupby("date")["factor"].transform(lambda part: pd.qcut(part, 5, labels=False) + 1)
        exchanged = performance.quantile_turnover(fifth, 5)
        lags = [performance.factor_rank_autocorrelation(every.assign(factor_quantile=fifth), lag).mean()
                for lag in (1, 5, 20)]
    found = measured(market, rows=factors)
    assert found.quantiles["excess"].to_numpy() == pytest.approx(
        returns["5D"].groupby("factor_quantile").mean().to_numpy(), abs=1e-12)
    assert found.daily["knows"].mean() == pytest.approx(ic.mean())
    assert found.turnover == pytest.approx(exchanged.dropna().mean())
    assert found.autocorrelation["value"].to_numpy() == pytest.approx(np.array(lags), abs=2e-3)


def test_slope_of_the_edge_is_a_regression_with_days_as_clusters(market, order, factors):
    linear = pytest.importorskip("statsmodels.api")
    rows = factors[factors["could_buy"] & factors["actual_open"].notna()].sort_values("date", kind="stable")
    x, y = (rows[name] - rows.groupby("date")[name].transform("mean") for name in ("edge", "actual_open"))
    time = pd.factorize(rows["date"])[0]
    fitted = linear.OLS(y.to_numpy(), x.to_numpy()).fit(cov_type="hac-groupsum", cov_kwds={
        "time": time, "maxlags": 10, "use_correction": False})
    assert order.slope == pytest.approx(fitted.params[0])
    assert order.slope_error == pytest.approx(fitted.bse[0], rel=1e-2)


@given(st.sampled_from([np.exp, np.cbrt, lambda score: 3 * score - 1, np.arctan]))
@settings(max_examples=4, deadline=None)
def test_order_asks_for_ranks_alone(market, order, rise):
    rows, _, _ = market
    found = measured(market, rows=rows.assign(score=rise(rows["score"])))
    for name in ("families", "by_year", "groups", "quantiles", "autocorrelation", "symbols"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(order, name))
    assert (found.monotone_p, found.turnover, found.slope) == (order.monotone_p, order.turnover, order.slope)


def test_planted_order_is_found_and_none_in_noise(market, order):
    noise = measured(market, "coin")
    assert order.quantiles["quantile"].tolist() == list(range(1, 11))
    assert order.quantiles["excess"].is_monotonic_increasing
    assert order.monotone_p < 0.01 < 0.2 < noise.monotone_p
    assert order.families["family"].tolist() == ["knows", "coin"] and order.families["open_t"][0] > 20
    assert abs(noise.slope) < 3 * noise.slope_error and order.slope > 20 * order.slope_error
    assert order.symbols["place"].mean() > 0.2 > 0.05 > noise.symbols["place"].abs().mean() / 2
    assert (noise.groups["t"].abs() < 3.5).all() and noise.turnover == pytest.approx(0.8, abs=0.02)
    assert abs(noise.autocorrelation["value"]).max() < 0.02


def test_order_of_five_stocks_has_fifths_and_that_of_one_day_no_errors(market):
    rows, panel, table = market
    few = rows[rows["symbol"].isin(panel.symbols[3:8])]
    found = measured(market, rows=few)
    assert found.quantiles["quantile"].tolist() == [1, 2, 3, 4, 5] and len(found.symbols) == 5
    assert found.families["open"][0] > 0.1 and "exchange" not in set(found.groups["group"])
    one = few[(few["date"] == panel.days[200]) & (few["family"] == "knows")]
    for part in (one, one.iloc[:2]):
        found = measured(market, rows=part)
        assert np.isnan([found.monotone_p, found.turnover, found.slope_error, *found.autocorrelation["value"]]).all()
        assert found.symbols["place_error"].isna().all()
        assert "nan" not in repr(found) and ("rank correlation" in repr(found)) == (len(part) > 2)
    nothing = measure_order(few, panel, table[["symbol"]], "coin", np.zeros(panel.present.shape, dtype=bool))
    assert nothing.families.empty and (nothing.symbols["locked"] == 1).all() and len(repr(nothing).splitlines()) == 1


def test_order_says_its_numbers_in_a_few_lines(order):
    lines = repr(order).splitlines()
    assert lines[0] == "Order of 60 stocks by knows"
    assert lines[1].startswith(f"  2023-06-01 to 2024-12-03: rank correlation {order.families['open'][0]:.3f} open to")
    assert [line.split(":")[0].strip() for line in lines[2:6]] == ["exchange", "liquidity", "horizon", "without"]
    assert f"{order.turnover:.0%} of the best fifth" in lines[-1]


@pytest.mark.parametrize("n_stocks", [5, 12, 60, 102])
def test_quantiles_are_those_of_pandas(n_stocks):
    values = np.random.default_rng(n_stocks).normal(size=(n_stocks, 3))
    for n in (5, 10):
        found = quantiles_of(within_day_ranks(values), n)
        for day in range(3):
            assert found[:, day].tolist() == (pd.qcut(values[:, day], n, labels=False) + 1).tolist()
    assert np.isnan(quantiles_of(np.full((6, 1), np.nan), 5)).all()


def test_correlation_of_nothing_is_not_known_and_without_spread_it_is_zero():
    nothing, values = np.full((6, 1), np.nan), np.arange(6.0)[:, None] - 2.5
    assert np.isnan(correlation(nothing, values)).all() and np.isnan(correlation(values[:4], values[:4])).all()
    assert correlation(values, values) == pytest.approx(1) and correlation(0 * values, values) == 0
