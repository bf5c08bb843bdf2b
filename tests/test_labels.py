"""Labels by hand, and that none of them knows more than its own days ahead."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from tests.tiny import panel_of
from vnq_colab.data.panel import CLOSE, OPEN
from vnq_colab.data.task import check_market, make_labels, normal_scores, rank_correlation
from vnq_colab.errors import DataError
from vnq_colab.settings import Task

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
FOURTHS = norm.ppf([1 / 8, 3 / 8, 5 / 8, 7 / 8])  # normal scores of four stocks, lowest first


@pytest.fixture
def tiny():
    """Four stocks, 9 days; the closes of day 5 over those of day 0: DDD, CCC, BBB, AAA, best first.

    From the open of day 1 to that of day 6 the order is AAA, CCC, BBB, DDD. BBB is absent on day 5.
    """
    closes, opens = np.full((4, 9), 100.0), np.full((4, 9), 100.0)
    closes[:, 5] = [101, 102, 103, 104]
    opens[:, 6] = [104, 102, 103, 101]
    returns = np.diff(np.log(closes), axis=1, prepend=np.nan)
    panel = panel_of(returns, SYMBOLS)
    prices = panel.prices.copy()
    prices[:, :, OPEN], prices[:, :, CLOSE] = opens, closes
    return replace(panel, prices=prices)


def without(panel, symbol, day):
    """The same panel with a symbol absent on a day."""
    prices, present, row = panel.prices.copy(), panel.present.copy(), panel.symbols.index(symbol)
    prices[row, day], present[row, day] = np.nan, False
    return replace(panel, prices=prices, present=present)


@pytest.mark.parametrize("label, expected", [
    ("close", FOURTHS), ("open", FOURTHS[[3, 1, 2, 0]]), ("mixed", (FOURTHS + FOURTHS[[3, 1, 2, 0]]) / 2)])
def test_rank_label_is_the_normal_score_of_the_return_that_the_task_names(tiny, label, expected):
    labels = make_labels(tiny, Task(label=label))
    assert labels.values.shape == (4, 9, 1) and labels.values.dtype == np.float32
    assert labels.values[:, 0, 0] == pytest.approx(expected, abs=1e-6) and labels.known[:, 0].all()
    reach = 5 if label == "close" else 6  # the last days whose label is not known yet
    assert labels.known[:, :-reach].all() and not labels.known[:, -reach:].any()
    assert not labels.values[:, -reach:].any()


def test_equal_returns_share_the_middle_of_the_normal(tiny):
    assert make_labels(tiny, Task(label="close")).values[:, 1, 0] == pytest.approx(np.zeros(4), abs=1e-6)


@pytest.mark.parametrize("label, lost", [("close", [1, 6]), ("open", [0, 5, 6]), ("mixed", [0, 1, 5, 6])])
def test_absent_day_leaves_its_stock_without_a_label_and_the_others_ranked_among_themselves(label, lost):
    panel = panel_of(np.random.default_rng(0).normal(0, 0.02, (4, 20)), SYMBOLS)
    before, labels = (make_labels(one, Task(label=label)) for one in (panel, without(panel, "BBB", 6)))
    row = SYMBOLS.index("BBB")
    assert np.flatnonzero(before.known[row] & ~labels.known[row]).tolist() == lost
    others = [0, 2, 3]
    np.testing.assert_array_equal(labels.known[others], before.known[others])
    if label == "close":
        thirds = norm.ppf([1 / 6, 3 / 6, 5 / 6])
        assert np.sort(labels.values[others, 1, 0]) == pytest.approx(thirds, abs=1e-6)
    assert not labels.values[row, lost].any()


def test_return_label_is_the_daily_returns_of_the_horizon():
    panel = panel_of(np.random.default_rng(1).normal(0, 0.02, (2, 30)), SYMBOLS[:2])
    labels = make_labels(without(panel, "BBB", 12), Task(target="return"))
    assert labels.values.shape == (2, 30, 5)
    np.testing.assert_allclose(labels.values[0, 10], panel.returns[0, 11:16], rtol=1e-5)
    assert labels.known[0].tolist() == [True] * 25 + [False] * 5
    assert np.flatnonzero(~labels.known[1, :25]).tolist() == [7, 8, 9, 10, 11, 12]  # each day ahead is asked
    assert not labels.values[~labels.known].any()


def test_direction_label_is_the_sign_of_the_return_from_close_to_close(tiny):
    labels = make_labels(tiny, Task(target="direction"))
    assert labels.values[:, 0, 0].tolist() == [1, 1, 1, 1] and labels.values[:, 1, 0].tolist() == [0, 0, 0, 0]
    assert labels.known[:, :4].all() and not labels.known[:, 4:].any()


@pytest.mark.parametrize("task", [Task(label="close"), Task(label="open"), Task(), Task(target="return"),
                                  Task(target="direction")], ids=["close", "open", "mixed", "return", "direction"])
def test_prices_beyond_the_reach_of_a_label_change_no_label(panel, task):
    """Later than its own end: five days from close to close, six from the next open; the border's day moves some."""
    reach = 6 if task.target == "rank" and task.label != "close" else 5
    before = make_labels(panel, task)

    def changed(first):
        prices = panel.prices.copy()
        prices[:, first:] *= np.random.default_rng(0).uniform(0.5, 2, prices[:, first:].shape)
        other = make_labels(replace(panel, prices=prices), task)
        return (other.values != before.values).any(axis=(0, 2))[:500], (other.known != before.known)[:, :500]

    assert not changed(500 + reach)[0].any() and not changed(500 + reach)[1].any()
    assert changed(499 + reach)[0].nonzero()[0].tolist() == [499]


def test_normal_scores_are_those_of_the_ranks_and_a_single_one_is_zero():
    values = np.array([[3.0, np.nan, 1.0], [1.0, 5.0, 1.0], [2.0, np.nan, 7.0]])
    found = normal_scores(values)
    assert found[:, 0] == pytest.approx(norm.ppf([5 / 6, 1 / 6, 3 / 6]))
    assert found[:, 1] == pytest.approx([np.nan, 0, np.nan], nan_ok=True)
    assert found[:, 2] == pytest.approx(norm.ppf([1 / 3, 1 / 3, 5 / 6]))  # equal ones share the mean of their ranks


def test_rank_correlation_is_the_mean_of_spearman_s_by_day():
    random = np.random.default_rng(2)
    scores, truth = random.normal(size=(2, 12, 40))
    scores[:, 3] = 1.0  # no order: the day does not count
    truth[:4, 7] = np.nan
    scores[4:, 7] = np.round(scores[4:, 7])  # ties
    daily = [spearmanr(scores[there, day], truth[there, day]).statistic for day in range(40) if day != 3
             for there in [np.isfinite(truth[:, day])]]
    ranked = np.where(np.isfinite(truth), scores, np.nan)
    assert rank_correlation(ranked, truth) == pytest.approx(np.mean(daily))
    assert np.isnan(rank_correlation(scores[:1], truth[:1]))


def test_market_of_few_stocks_is_refused_and_a_coarse_one_is_told(capsys):
    def market(n_stocks, opens=0.01):
        symbols = [f"S{place:02}" for place in range(n_stocks)]
        return panel_of(np.random.default_rng(0).normal(0, 0.02, (n_stocks, 10)), symbols, opens=opens)

    with pytest.raises(DataError, match="4 stocks have no order worth learning: at least 5"):
        check_market(market(4), Task())
    assert check_market(market(4), Task(target="return")) == Task(target="return") and not capsys.readouterr().err
    assert check_market(market(5), Task()) == Task() and "among 5 stocks are coarse" in capsys.readouterr().err
    assert check_market(market(20), Task()) == Task() and not capsys.readouterr().err
    assert check_market(market(20, opens=None), Task()) == Task(label="close")
    assert "no open prices of its own" in capsys.readouterr().err
