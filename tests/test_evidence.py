"""What a forecaster has shown: against slow second implementations, and worlds in which the answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from scipy.stats import norm, pearsonr

from tests.tiny import forecast_of, panel_of
from vnq_colab.data.forecast import HORIZON
from vnq_colab.data.synthetic import PERSISTENCE
from vnq_colab.evaluation import evidence as evidence_module
from vnq_colab.evaluation.evidence import (
    CLEARLY,
    USUAL_DAYS,
    WARM_UP,
    error_of_noise,
    evidence,
    mean_with_error,
    shared_noise,
    sharpe_lead,
    shrink,
    skill,
)
from vnq_colab.evaluation.metrics import with_outcomes
from vnq_colab.evaluation.significance import pooled_test

HISTORY = 600  # [days] before the test


def persistent(random, n_days, n, persistence=0.9):
    """`[days, n]`: forecasts that know nothing and forget slowly."""
    shocks = random.standard_normal((n_days, n))
    shocks[1:] *= np.sqrt(1 - persistence**2)
    return lfilter([1.0], [1.0, -persistence], shocks, axis=0)


def world(seed, n_days, n):
    """`[days, n]`: daily returns of random walks, with a history, and the prices (log) that they make."""
    returns = np.random.default_rng(seed).standard_normal((HISTORY + n_days + HORIZON, n))
    return returns, returns.cumsum(axis=0)


def statistic(forecast, returns):
    """The statistic of `[origins, n]` forecasts of the last days of a world, with the drift of its history."""
    n_days, history = len(forecast), returns[:HISTORY]
    ahead = returns[HISTORY + 1 : HISTORY + n_days + HORIZON]
    scored = np.concatenate([forecast, np.full((HORIZON - 1, forecast.shape[1]), np.nan)])
    found, error = skill(scored, ahead, history.mean(axis=0), history.std(axis=0) / np.sqrt(HISTORY))
    return found / error


def slow_skill(mean, ahead, drift, drift_error):
    """The same for one forecaster, in loops."""
    n = len(mean)
    unusual = np.zeros(n)
    for day in range(n):
        past = [mean[one] for one in range(max(day - USUAL_DAYS, 0), day) if np.isfinite(mean[one])]
        ever = np.isfinite(mean[:day]).sum()
        unusual[day] = mean[day] - np.mean(past) if np.isfinite(mean[day]) and ever >= WARM_UP else np.nan
    total = square = level = moved = size = 0.0
    for day in range(n):  # the return of the day after, met by the forecasts that spoke of it
        spoke = sum(unusual[one] for one in range(max(day - HORIZON + 1, 0), day + 1) if np.isfinite(unusual[one]))
        product = spoke * (ahead[day] - drift)
        total, square, level = total + product, square + product**2, level + spoke
        if np.isfinite(unusual[day]):
            moved += sum(ahead[day : day + HORIZON] - drift) ** 2
            size += unusual[day] ** 2
    return total / np.sqrt(moved * size), np.sqrt(square + (level * drift_error) ** 2) / np.sqrt(moved * size)


def test_skill_equals_a_slow_second_implementation():
    random = np.random.default_rng(0)
    mean, ahead = random.normal(0.1, 1, 400), random.normal(0.02, 1, 400)
    mean[[5, 50, 51, 52, 200]] = np.nan
    mean[-HORIZON + 1 :] = np.nan
    assert skill(mean, ahead, 0.01, 0.03) == pytest.approx(slow_skill(mean, ahead, 0.01, 0.03), rel=1e-9)


def test_skill_is_the_covariance_of_unusual_forecast_and_outcome_written_by_hand(monkeypatch):
    """A forecast of 1 on days 25 and 27, else 0; a return of -1 on day 28 and of 1 on day 30, else 0.

    Unusual on day 25 is 1; on day 27 it is 1 - 1 / 27, since one of the 27 before was 1; later days lie 2 / day below
    the usual. Day 28 was spoken of on days 23 to 27, day 30 on 25 to 29.
    """
    monkeypatch.setattr(evidence_module, "FEWEST_BETS", 0)
    mean, ahead = np.zeros(60), np.zeros(60)
    mean[[25, 27]] = 1.0
    ahead[[27, 29]] = -1.0, 1.0
    mean[-4:] = np.nan
    products = -(1 - 1 / 26 + (1 - 1 / 27)), 1 - 1 / 26 + (1 - 1 / 27) - 2 / 28 - 2 / 29
    unusual = np.array([mean[day] - mean[:day].mean() if day >= WARM_UP else 0 for day in range(56)])
    outcome = np.array([ahead[day : day + 5].sum() for day in range(56)])
    unit = np.sqrt((unusual**2).sum() * (outcome[WARM_UP:] ** 2).sum())
    found, error = skill(mean, ahead)
    assert found * unit == pytest.approx(sum(products)) and sum(products) == pytest.approx((unusual * outcome).sum())
    assert error * unit == pytest.approx(np.hypot(*products))


def test_skill_does_not_ask_how_bold_or_how_high_a_forecast_is():
    returns, _ = world(1, 300, 20)
    mean = persistent(np.random.default_rng(2), 300, 20)
    assert statistic(0.001 * mean + 3, returns) == pytest.approx(statistic(mean, returns), rel=1e-6)
    assert statistic(-mean, returns) == pytest.approx(-statistic(mean, returns))


@pytest.mark.parametrize("n_days", [360, 1500])
def test_skill_finds_a_twentieth_of_those_without_any_contrarians_too(n_days):
    returns, price = world(3, n_days, 1500)
    random, now = np.random.default_rng(4), slice(HISTORY, HISTORY + n_days)

    def fallen(days):
        return -(price[now] - price[HISTORY - days : HISTORY - days + n_days])

    kinds = {"coin": random.standard_normal((n_days, 1500)), "persistent": persistent(random, n_days, 1500),
             "very persistent": persistent(random, n_days, 1500, 0.995), "bought what fell": fallen(5),
             "a month": fallen(20), "a quarter": fallen(60), "bought what rose": -fallen(60), "a year": fallen(250),
             "ever bolder": np.arange(n_days)[:, None] / 100 + persistent(random, n_days, 1500)}
    for name, forecast in kinds.items():
        found = statistic(forecast, returns)
        assert np.mean(norm.sf(found) < 0.05) < 0.075, name
        assert np.mean(norm.sf(found) < 0.001) < 0.006 and 0.9 < found.std() < 1.1, name
    assert np.mean(norm.sf(statistic(-price[now], returns)) < 0.05) < 0.13  # far below all days: the worst


def test_the_usual_correlation_calls_contrarians_skilled():
    _, price = world(3, 360, 600)
    forecast, outcome = -price[HISTORY : HISTORY + 360], price[HISTORY + 5 :][:360] - price[HISTORY:][:360]
    correlation = np.array([pearsonr(*pair).statistic for pair in zip(forecast.T, outcome.T, strict=True)])
    assert np.mean(norm.sf(correlation * np.sqrt(360 / HORIZON)) < 0.05) > 0.2  # even with n / 5 windows


def test_skill_finds_those_who_know():
    random, n = np.random.default_rng(5), 400
    signal, strength = persistent(random, HISTORY + 2000 + HORIZON, n), 0.0877  # correlation 0.16
    returns = random.standard_normal(signal.shape)
    returns[1:] += strength * signal[:-1]
    found = statistic(signal[HISTORY : HISTORY + 2000], returns)
    assert np.mean(norm.sf(found) < 0.05) > 0.93 and found.mean() == pytest.approx(3.4, abs=0.3)
    estimate, _ = skill(signal[HISTORY:][: 2000 + HORIZON - 1], returns[HISTORY + 1 :])
    ceiling = strength * (PERSISTENCE ** np.arange(HORIZON)).sum() / np.sqrt(HORIZON)
    assert estimate.mean() == pytest.approx(ceiling / np.sqrt(1 + ceiling**2), abs=0.02)


def test_skill_sees_nothing_in_always_up_in_a_good_year():
    returns, _ = world(6, 300, 300)
    returns[HISTORY:] += 0.1  # [standard deviations a day] and nobody knew
    found, error = skill(np.full((300, 300), 0.01), returns[HISTORY + 1 :][:300])
    assert (found == 0).all() and np.isnan(error).all()
    nearly = statistic(1 + 0.01 * persistent(np.random.default_rng(7), 300, 300), returns)
    assert abs(nearly.mean()) < 0.2 and np.mean(norm.sf(nearly) < 0.05) < 0.09


def test_an_unknown_drift_widens_the_error_of_a_one_sided_forecast_only():
    returns, _ = world(8, 300, 1)
    bolder, wavy = np.arange(300.0)[:, None], persistent(np.random.default_rng(9), 300, 1, 0.5)
    wider = [skill(mean, returns[HISTORY:][:300], 0, 0.1)[1] / skill(mean, returns[HISTORY:][:300])[1]
             for mean in (bolder, wavy)]
    assert wider[0] > 1.5 > 1.1 > wider[1] >= 1


def test_skill_of_few_forecasts_is_not_known(monkeypatch):
    monkeypatch.setattr(evidence_module, "FEWEST_BETS", 0)
    mean = np.where(np.arange(100) < 2 * WARM_UP - 1, np.arange(100) % 7, np.nan)
    assert np.isnan(skill(mean, np.ones(100))).all()
    mean[60] = 3.0
    assert np.isfinite(skill(mean, np.ones(100))).all()


def test_a_few_bold_days_show_no_skill(monkeypatch):
    """Who bets little for a year and then a thousand times as much on ten days that rise has made one bet."""
    random = np.random.default_rng(7)
    ahead, mean = random.normal(size=360), 0.001 * random.normal(size=360)
    mean[300:310] += 1.0
    ahead[300:314] = 1 + 0.1 * random.normal(size=14)
    estimate, error = skill(mean, ahead)
    assert estimate == 0 and np.isnan(error)
    assert np.isfinite(skill(random.normal(size=360), ahead)[1]), "bets of the usual kind are asked as before"
    monkeypatch.setattr(evidence_module, "FEWEST_BETS", 0)
    estimate, error = skill(mean, ahead)
    assert norm.sf(estimate / error) < 0.01, "without the rule he would have passed"


# --- means, ratios and what symbols share


def test_mean_with_error_equals_the_pooled_test_of_one_symbol():
    values = np.random.default_rng(0).normal(0.1, 1, (250, 3)).cumsum(axis=0)
    mean, error = mean_with_error(values)
    for column in range(3):
        test = pooled_test(values[:, column], np.arange(250))
        assert (mean[column], error[column]) == pytest.approx((test.mean, test.error))
    assert np.isnan(mean_with_error(values[:19])[1]).all()


def test_the_error_of_a_sharpe_lead_equals_a_bootstrap():
    random = np.random.default_rng(1)
    both = random.standard_t(5, (800, 1)) * 0.01
    own, other = 0.6 * both[:, 0] + 0.001 + 0.005 * random.standard_normal(800), both[:, 0]
    lead, noise = sharpe_lead(own[:, None], other[:, None])
    ratio = [np.sqrt(250) * values.mean() / values.std() for values in (own, other)]
    assert lead[0] == pytest.approx(ratio[0] - ratio[1]) and noise.mean() == pytest.approx(0, abs=1e-9)
    drawn = random.integers(0, 800, (3000, 800))
    leads = np.sqrt(250) * (own[drawn].mean(1) / own[drawn].std(1) - other[drawn].mean(1) / other[drawn].std(1))
    assert error_of_noise(noise)[0][0] == pytest.approx(leads.std(), rel=0.06)


def test_an_account_that_never_moves_has_a_ratio_of_zero_and_one_that_holds_has_no_lead():
    held = np.random.default_rng(2).normal(0.001, 0.02, (300, 2))
    lead, noise = sharpe_lead(np.stack([np.zeros(300), held[:, 1]], axis=1), held)
    assert lead[0] == pytest.approx(-np.sqrt(250) * held[:, 0].mean() / held[:, 0].std())
    assert lead[1] == 0 and error_of_noise(noise)[0][1] == 0


def test_shared_noise_is_the_correlation_between_symbols():
    random = np.random.default_rng(3)
    noise = np.sqrt(0.3) * random.standard_normal((4000, 1)) + np.sqrt(0.7) * random.standard_normal((4000, 40))
    noise *= random.uniform(0.5, 2, 40)
    assert error_of_noise(noise)[1] == pytest.approx(0.3, abs=0.04)
    assert error_of_noise(noise)[0] == pytest.approx(noise.std(axis=0) / np.sqrt(4000), rel=0.01)
    assert shared_noise(16.0, np.array([4.0, 4.0])) == 1 and shared_noise(8.0, np.array([4.0, 4.0])) == 0
    assert shared_noise(1.0, np.array([4.0, 4.0])) == 0 and shared_noise(4.0, np.array([4.0])) == 0


def test_shrink_equals_the_hand_computed_steps():
    """Errors of 1: weights 1, common mean 2, Q = 4 + 0 + 4 = 8, between = (8 - 2) / (3 - 1) = 3, share = 3 / 4."""
    drawn, left = shrink([0.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    assert drawn == pytest.approx([0.5, 2.0, 3.5])
    assert left == pytest.approx(np.sqrt([0.75 + 0.25**2 / (3 / 4)] * 3))  # weights of the mean are 1 / (3 + 1)


def test_shrink_makes_one_of_symbols_that_differ_by_noise_alone():
    random = np.random.default_rng(0)
    drawn, left = shrink(random.normal(0.3, 1, 2000), np.ones(2000))
    assert np.ptp(np.quantile(drawn, [0.05, 0.95])) < 0.3 and drawn.mean() == pytest.approx(0.3, abs=0.1)
    assert np.median(left) < 0.3  # but for those that the limit holds
    true = random.normal(0, 2, 2000)
    drawn, left = shrink(true + random.standard_normal(2000), np.ones(2000))
    assert np.mean((drawn - true) ** 2) == pytest.approx(0.8, abs=0.08)  # 4 / (4 + 1) of the noise: Bayes's own
    assert np.mean(np.abs(drawn - true) < 1.96 * left) == pytest.approx(0.95, abs=0.02)


def test_shrink_never_draws_further_than_the_limit():
    crowd = np.concatenate([[6.0, -6.0], np.zeros(400)])
    drawn, left = shrink(crowd, np.ones(402))
    assert drawn[:2] == pytest.approx([6 - CLEARLY, CLEARLY - 6]) and left[:2] == pytest.approx([1.0, 1.0])


def test_shrink_does_not_average_away_what_symbols_share():
    random, alone, together = np.random.default_rng(0), [], []
    for _ in range(300):
        found = 0.7 * random.standard_normal() + np.sqrt(0.51) * random.standard_normal(50)  # all true values are 0
        drawn, left = shrink(found, np.ones(50), 0.49)
        together.append(np.abs(drawn[0]) < 1.96 * left[0])
        drawn, left = shrink(found, np.ones(50))
        alone.append(np.abs(drawn[0]) < 1.96 * left[0])
    assert np.mean(together) == pytest.approx(0.95, abs=0.03) and np.mean(alone) < 0.5


def test_shrink_leaves_alone_what_it_cannot_or_need_not_draw():
    drawn, left = shrink([1.0, np.nan, 3.0, 0.0, 5.0], [np.nan, 1.0, 1.0, 0.0, 1.0])
    assert np.isnan(drawn[:2]).all() and (drawn[3], left[3]) == (0, 0) and 3 < drawn[2] < drawn[4] < 5
    assert np.array_equal(shrink([2.0], [0.5]), [[2.0], [0.5]])
    rows = [[0.0, 2.0, 4.0], [1.0, np.nan, 9.0]]
    both = shrink(rows, np.ones((2, 3)), np.full((2, 1), 0.2))
    for place in range(2):
        assert np.stack(both)[:, place] == pytest.approx(np.stack(shrink(rows[place], np.ones(3), 0.2)), nan_ok=True)


# --- the table of a forecast


def market(n_days=700, seed=0):
    """(panel, rows with outcomes) of three symbols, one with absent days, and three families; `late` has one symbol."""
    random = np.random.default_rng(seed)
    returns = random.normal(0.0005, 0.02, (3, n_days))
    returns[1, [500, 501, 640]] = np.nan
    panel = panel_of(returns, ("AAA", "BBB", "CCC"), pd.bdate_range("2020-01-01", periods=n_days))
    tables = []
    for family, symbols in (("ours", "AAA BBB CCC"), ("ridge", "AAA BBB CCC"), ("late", "CCC")):
        for symbol in symbols.split():
            days = panel.days[400:690] if symbol != "CCC" else panel.days[450:690]
            tables.append(forecast_of(symbol, days, random.normal(0.001, 0.01, len(days)), family=family))
    return panel, with_outcomes(pd.concat(tables, ignore_index=True), panel)


def test_evidence_equals_a_slow_second_implementation():
    panel, rows = market()
    found = evidence(rows, panel).set_index(["family", "symbol"])
    assert len(found) == 7
    for (family, symbol), line in found.iterrows():
        mine = rows[(rows["family"] == family) & (rows["symbol"] == symbol)].set_index("date")
        moves = pd.Series(panel.returns[panel.symbols.index(symbol)], panel.days)
        span = panel.days[(panel.days >= mine.index[0])][: panel.days.get_loc(mine.index[-1])
                                                         - panel.days.get_loc(mine.index[0]) + HORIZON]
        ahead = moves.shift(-1).reindex(span)
        before = moves[: mine.index[0]].dropna()
        expected = slow_skill(mine["mean"].reindex(span).to_numpy(), ahead.fillna(before.mean()).to_numpy(),
                              before.mean(), np.sqrt((moves**2).mean() / len(before)))
        assert (line["skill"], line["skill_error"]) == pytest.approx(expected, rel=1e-6)
        for other in ("ours", "ridge", "late"):
            theirs = rows[(rows["family"] == other) & (rows["symbol"] == symbol)].set_index("date")
            if other == family or theirs.empty:
                assert np.isnan([line[f"gain_{other}"], line[f"lead_{other}_error"]]).all()
                continue
            actual = mine["actual"]
            gains = ((theirs["mean"] - actual) ** 2 - (mine["mean"] - actual) ** 2) / (actual**2).mean()
            leads = (mine["mean"] * actual > 0).astype(float) - (theirs["mean"] * actual > 0)
            for name, values in (("gain", gains), ("lead", leads)):
                test = pooled_test(values, values.index)
                assert line[f"{name}_{other}"] == pytest.approx(test.mean)
                assert line[f"{name}_{other}_error"] == pytest.approx(test.error)
    assert found.loc[("ours", "AAA"), "gain_ridge"] == pytest.approx(-found.loc[("ridge", "AAA"), "gain_ours"])
    assert found["gain_late_shared"].eq(0).all()  # of one symbol


def test_evidence_measures_what_symbols_share():
    random, n_days = np.random.default_rng(0), 900
    returns = 0.02 * (0.8 * random.standard_normal((1, n_days)) + 0.6 * random.standard_normal((12, n_days)))
    panel = panel_of(returns, tuple("ABCDEFGHIJKL"), pd.bdate_range("2020-01-01", periods=n_days))
    days, tables = panel.days[300:890], []
    for symbol in panel.symbols:  # the one always expects a rise, the other nothing: their losses move with the market
        for family, mean in (("up", 0.01), ("zero", 0.0)):
            tables.append(forecast_of(symbol, days, mean, family=family))
    found = evidence(with_outcomes(pd.concat(tables, ignore_index=True), panel), panel).set_index("family")
    assert found.loc["up", "gain_zero_shared"].iloc[0] == pytest.approx(0.64, abs=0.15)


def test_evidence_of_a_few_days_is_not_known():
    panel, rows = market()
    few = rows[rows["date"].isin(sorted(rows["date"].unique())[:15])]
    found = evidence(few, panel)
    assert found[["skill", "skill_error", "gain_ridge_error"]].isna().all().all()
