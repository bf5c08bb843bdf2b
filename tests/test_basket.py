"""The basket: its rule by hand, a slow second implementation to the dong, random baskets, and what is measured."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from tests.tiny import forecast_of
from vnq_colab.data.market import VN_RULES
from vnq_colab.data.splits import yearly_folds
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.backtest import backtest, scores_of
from vnq_colab.evaluation.basket import Basket, BasketRule, RandomRule, decide
from vnq_colab.evaluation.basket_result import (
    FEWEST_VALID_DAYS,
    choose_basket,
    equal_weighted,
    evaluate_basket,
    run_baskets,
)
from vnq_colab.evaluation.engine import trade
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.significance import alpha_test

COST = 2 * (VN_RULES.fee + VN_RULES.slippage) + VN_RULES.sale_tax

# --- the rule


@pytest.mark.parametrize("basket, score, held, more, expected", [
    # free places go to the best, equal ones by place
    ((2, 3), [1, 3, 2, 3], [0, 0, 0, 0], {}, ([], [1, 3])), ((2, 3), [2, 2, 2, 2], [0, 0, 1, 0], {}, ([2], [0])),
    ((2, 3), [np.nan, 3, np.nan, np.nan], [0, 0, 0, 0], {}, ([], [1])),
    # a held one leaves only below rank keep, when old enough, known, and with another to exchange for
    ((1, 2), [1, 2, 3], [1, 0, 0], {}, ([], [2])), ((1, 3), [1, 2, 3], [1, 0, 0], {}, ([0], [])),
    ((1, 2), [1, 2, 3], [1, 0, 0], {"days": 2}, ([0], [])), ((1, 1), [np.nan, 2, 3], [1, 0, 0], {}, ([0], [])),
    ((2, 2), [2, 1], [1, 1], {}, ([0, 1], [])),
    # an exchange must pay more than its cost, and the worst goes for the best
    ((2, 2), [5, 4, 3, 2, 1], [0, 0, 0, 1, 1], {}, ([], [0, 1])),
    ((2, 2), [5, 4, 3, 2, 1], [0, 0, 0, 1, 1], {"edge": [0.03, 0.01, 0, 0.005, 0.0]}, ([3], [0])),
    ((2, 2), [5, 4, 3, 2, 1], [0, 0, 0, 1, 1], {"edge": [COST, 0, 0, 0, 0]}, ([3, 4], [])),
    # more than k shrink without a successor
    ((1, 2), [5, 4, 3, 2, 1], [0, 1, 1, 1, 1], {"edge": [0.0] * 5}, ([1], [])),
    ((2, 2), [5, 4, 3, 2, 1], [0, 0, 1, 1, 1], {}, ([], [0, 1])),
])
def test_decide_keeps_and_buys(basket, score, held, more, expected):
    held, edge = np.array([held], dtype=bool), np.array([more["edge"]]) if "edge" in more else None
    leave, enter = decide((*basket, 3), np.array([score], "float64"), edge, held,
                          np.full(held.shape, more.get("days", 9)), COST)
    assert (sorted(set(np.flatnonzero(held)) - set(leave)), sorted(enter)) == expected


def slow_decide(basket, score, edge, held, days_held, cost):
    """One strategy, in plain Python: scores, edges, days by name, None where not known."""
    order = sorted((name for name in score if score[name] is not None), key=lambda name: -score[name])
    leaving = [name for name in order[basket.keep:] if name in held and days_held[name] >= basket.hold_days]
    free, leave, enter = [name for name in order if name not in held], [], []
    for _ in range(basket.k - len(held)):
        if free:
            enter.append(free.pop(0))
    while leaving and len(held) - len(leave) > basket.k:
        leave.append(leaving.pop())
    while leaving and free:
        out, new = leaving.pop(), free.pop(0)
        if edge is None or np.float32(edge[new]) - np.float32(edge[out]) > cost:
            leave.append(out)
            enter.append(new)
    return leave, enter


def test_decide_equals_a_slow_one():
    random = np.random.default_rng(0)
    for _ in range(300):
        n, size = int(random.integers(1, 6)), int(random.integers(1, 9))
        k = int(random.integers(1, 5))
        basket = Basket(k, k + int(random.integers(0, 4)), int(random.integers(0, 4)))
        score = random.integers(-3, 4, (n, size)).astype("float32")
        score[random.random((n, size)) < 0.2] = np.nan
        edge = (random.normal(0, 0.01, (n, size)).astype("float32") if random.random() < 0.7 else None)
        held, days = random.random((n, size)) < 0.4, random.integers(1, 6, (n, size))
        leaves, enters = decide((basket.k, basket.keep, basket.hold_days), score, edge, held, days, COST)
        for row in range(n):
            known = {place: None if np.isnan(value) else value for place, value in enumerate(score[row])}
            leave, new = slow_decide(basket, known, None if edge is None else edge[row],
                                     set(np.flatnonzero(held[row])), days[row], COST)
            assert set(leaves[leaves // size == row] % size) == set(leave)
            assert list(enters[enters // size == row] % size) == new


# --- the engine against one strategy in plain Python


def slow_basket(market, score, edge, basket, capital):
    """(orders, value by day) of one basket, with dicts and whole numbers."""
    def dong(value):
        return int(np.floor(value + 0.5 + 1e-6))

    rules, cash, shares, to_buy, bought, free = market.rules, int(capital), {}, {}, {}, {}
    most_shares = np.floor(basket.traded_share * market.volume + 1e-6)
    orders, value, worth, cost = [], [int(capital)], int(capital), 2 * (rules.fee + rules.slippage) + rules.sale_tax
    names = range(len(market.symbols))

    def sell(name, day, quote, is_end=False):
        nonlocal cash
        number, lot = shares[name], int(market.lot[day, name])
        if not is_end and number > most_shares[day, name]:
            number = int(most_shares[day, name]) // lot * lot
        amount = dong(number * quote * (1 - (rules.delisting_haircut if is_end else rules.slippage)))
        to_buy[name] = 0
        if number:
            cash += amount - dong(amount * rules.fee) - dong(amount * rules.sale_tax)
            orders.append((name, day, -number, amount))
            shares[name] -= number
            if not shares[name]:
                del shares[name]

    def buy(name, day, limit, most):
        """Up to `limit` dong and `most` shares (None: what the limit allows)."""
        nonlocal cash
        lot, price = int(market.lot[day, name]), market.open[day, name] * (1 + rules.slippage)
        number = int(limit / (price * lot)) * lot + lot
        while number and dong(number * price) + dong(dong(number * price) * rules.fee) > limit:
            number -= lot
        goal = number if most is None else min(number, most)
        number = int(min(goal, most_shares[day, name])) // lot * lot
        if number:
            amount = dong(number * price)
            cash -= amount + dong(amount * rules.fee)
            orders.append((name, day, number, amount))
            shares[name] = shares.get(name, 0) + number
            to_buy[name] = (goal if most is None else most) - number
            free[name] = int(market.sellable_from[day])
            if most is None:
                bought[name] = day

    for day in range(1, len(market.days)):
        known = {name: None if np.isnan(score[day - 1, name]) else score[day - 1, name] for name in names}
        held = {name: day - bought[name] for name in shares}
        leave, enter = slow_decide(basket, known, None if edge is None else edge[day - 1], set(shares), held, cost)
        for name in [name for name in shares if market.ends[name] == day]:
            sell(name, day, market.close[day, name], True)
            leave = [other for other in leave if other != name]
        late = [name for name in leave if free[name] == 2 * day + 1 and market.can_sell_late[day, name]]
        for name in leave:
            if market.can_sell[day, name] and free[name] <= 2 * day:
                sell(name, day, market.open[day, name])
        for name in [name for name in sorted(shares) if to_buy[name] > 0 and name not in leave]:
            if market.can_buy[day, name]:
                buy(name, day, cash, to_buy[name])
        n_places = len(enter) - sum(name in shares for name in leave)
        for name in [name for name in enter if market.can_buy[day, name]][:max(n_places, 0)]:
            buy(name, day, min(int(np.floor(worth / basket.k + 1e-6)), cash), None)
        for name in late:
            sell(name, day, market.close[day, name])
        worth = cash + sum(dong(number * market.close[day, name]) for name, number in shares.items())
        value.append(worth)
    return sorted(orders), value


def small_market(random):
    """A few days and stocks with moves at and near the bands, halts, ends, exchanges, days before and after 2022."""
    n_days, n_symbols = int(random.integers(6, 25)), int(random.integers(2, 7))
    days = pd.bdate_range(str(random.choice(["2018-01-02", "2020-12-21", "2022-08-22", "2024-01-01"])), periods=n_days)
    tables = []
    for place in range(n_symbols):
        moves = random.choice([0, 0.01, -0.02, 0.03, 0.07, -0.07, 0.1, -0.1, 0.15], (2, n_days))
        close = random.choice([900.0, 9_900, 25_000, 60_000]) * np.cumprod(1 + moves[0])
        opened = np.concatenate([close[:1], close[:-1]]) * (1 + moves[1])
        volume = random.choice([2_000, 20_000, 0], n_days, p=[0.5, 0.4, 0.1])
        table = pd.DataFrame({"symbol": f"S{place}", "date": days, "open": np.round(opened), "close": np.round(close),
                              "volume": volume, "exchange": ("HOSE", "HNX", "UPCOM")[place % 3]})
        table = table[(random.random(n_days) < 0.9) | (np.arange(n_days) == 0)]
        tables.append(table.iloc[:int(random.integers(3, n_days))] if random.random() < 0.2 else table)
    later = pd.bdate_range(days[-1] + pd.Timedelta(days=1), periods=int(random.choice([0, 24, 30])))  # without them
    tables.append(pd.DataFrame({"symbol": "Z", "date": later, "open": 9_000.0, "close": 9_000.0, "volume": 1,
                                "exchange": "HNX"}))
    market = MarketData.of(pd.concat(tables, ignore_index=True), VN_RULES)
    score = random.integers(-4, 5, market.open.shape).astype("float32")
    score[~market.trades | (random.random(score.shape) < 0.1)] = np.nan
    edge = random.normal(0, 0.02, score.shape).astype("float32") if random.random() < 0.5 else None
    k = int(random.integers(1, 4))
    return market, score, edge, Basket(k, k + int(random.integers(0, 3)), int(random.integers(0, 4)),
                                       random.choice([1.0, 0.05, 0.3]))


def equals_the_slow_one(market, score, edge, basket, capital):
    rule = BasketRule(score[:, None], None if edge is None else edge[:, None], [basket], VN_RULES)
    book = trade(market, rule, capital, traded_share=basket.traded_share, record=True)
    orders, value = slow_basket(market, score, edge, basket, capital)
    fills = book.fills[["place", "day", "change", "amount"]].astype(int)
    assert sorted(fills.itertuples(index=False, name=None)) == orders
    assert book.worth[:, 0].tolist() == value
    both = [np.stack([part, part[::-1]], axis=1) if part is not None else None for part in (score, edge)]
    assert run_baskets(market, *both, [basket], capital)[:, 0].tolist() == value
    return len(orders)


@pytest.mark.parametrize("n", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_baskets_equal_a_slow_one_to_the_dong_on_small_markets(n):
    random = np.random.default_rng(n)
    counts = [equals_the_slow_one(*small_market(random), random.choice([2e6, 3e7, 1e9])) for _ in range(n)]
    assert np.mean(counts) > 5


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED_DATA / "vn_daily.parquet").exists(), reason="the real prices are not here")
@pytest.mark.parametrize("capital", [1e8, 1e9, 1e11])
def test_a_basket_equals_a_slow_one_to_the_dong_on_real_prices(capital):
    from vnq_colab.data.cleaning import clean_prices
    from vnq_colab.data.market import VN102

    table = pd.read_parquet(SHARED_DATA / "vn_daily.parquet")
    market = MarketData.of(clean_prices(table[table["symbol"].isin(VN102)])[0], VN_RULES)
    market = market.cut(market.symbols, int(market.days.searchsorted(pd.Timestamp("2018-01-02"))), len(market.days))
    change = np.concatenate([np.zeros((5, len(market.symbols))), market.close[5:] / market.close[:-5] - 1])
    score = np.where(market.trades, -change, np.nan).astype("float32")  # reversal
    assert equals_the_slow_one(market, score, score / 4, Basket(), capital) > 1000


# --- random baskets, measures


def many(n_symbols=30, n_days=700, skill=0.0, seed=0):
    """Prices of random walks, and a forecast that knows a part of the five days after the next open."""
    random = np.random.default_rng(seed)
    days = pd.bdate_range("2022-10-03", periods=n_days)
    returns = random.normal(0.0003, 0.02, (n_days, n_symbols))
    close = np.round(20_000 * np.exp(returns.cumsum(axis=0)))
    opened = np.concatenate([close[:1], close[:-1]])
    ahead = np.concatenate([returns[1:], np.zeros((1, n_symbols))])
    ahead = np.stack([np.roll(ahead, -step, axis=0) for step in range(5)]).sum(axis=0)
    score = skill * ahead / ahead.std() + np.sqrt(1 - skill**2) * random.normal(size=ahead.shape)
    names = [f"S{place:02d}" for place in range(n_symbols)]
    prices = pd.concat([pd.DataFrame({"symbol": name, "date": days, "open": opened[:, place], "close": close[:, place],
                                      "volume": 10_000_000, "exchange": "HOSE"}) for place, name in enumerate(names)])
    forecast = pd.concat([forecast_of(name, days[:-6], 0.05 * score[:-6, place]) for place, name in enumerate(names)])
    return forecast.reset_index(drop=True), prices.reset_index(drop=True)


def test_random_baskets_exchange_as_often_as_ours():
    forecast, prices = many(n_days=200)
    ours = backtest(forecast, prices, strategy=Basket(5, 10))
    n_sold = np.bincount(ours.market.days.get_indexer(ours.orders.loc[ours.orders["side"] == "sell", "date"]) - 1,
                         minlength=len(ours.market.days))
    known = np.isfinite(scores_of(forecast, ours.market)[0][:, 0])
    rule = RandomRule(known, n_sold, [Basket(5, 10)] * len(known), 20, 0)
    fills = trade(ours.market, rule, 1e9, n_strategies=20, traded_share=0.05, record=True).fills
    sold = np.bincount(fills["place"][fills["change"] < 0] // 30, minlength=20)
    assert n_sold.sum() > 50 and np.abs(sold - n_sold.sum()).max() <= 10
    assert np.bincount(fills["place"] % 30).min() > 20  # of all stocks
    worth = [trade(ours.market, RandomRule(known, n_sold, [Basket(5, 10)] * len(known), 20, seed), 1e9,
                   n_strategies=20).worth[-1].tolist() for seed in (1, 1, 2)]
    assert worth[0] == worth[1] != worth[2]


def test_skill_is_measured_and_chance_is_not():
    skilled = evaluate_basket(*many(skill=0.3), basket=Basket(5, 10), n_random=100)
    assert skilled.alpha > 0.3 and skilled.alpha_t > 4 and skilled.beaten == 1.0 and skilled.alpha_p < 1e-4
    assert skilled.break_even > VN_RULES.slippage and (skilled.capacity["alpha"].diff().dropna() <= 0.02).all()
    none = evaluate_basket(*many(skill=0.0), basket=Basket(5, 10), n_random=100)
    assert none.alpha < 0.1 and abs(none.beaten - 0.5) < 0.49
    value = skilled.trades.equity["strategy"].to_numpy()
    returns, universe = value[1:] / value[:-1] - 1, equal_weighted(skilled.trades.market)
    assert skilled.alpha == pytest.approx(alpha_test(returns, universe)[0])
    assert list(skilled.returns.index) == list(skilled.trades.market.days[1:])
    assert skilled.excess == pytest.approx(250 * (returns - universe).mean())
    assert list(skilled.equity.columns) == list(skilled.totals.index) == ["basket", "equal_weighted", "buy_and_hold"]
    assert skilled.equity["basket"].to_numpy() == pytest.approx(value)
    orders = skilled.trades.orders
    paid = orders["cost"].sum() + (orders["shares"] * (orders["price"] - orders["quote"]).abs()).sum()
    assert skilled.cost == pytest.approx(250 * paid / value.mean() / len(returns), rel=0.35)
    assert "above 100.0% of 100 random baskets" in repr(skilled)
    plain = skilled.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False))["k"] == 5 and plain["by_year"][0]["year"] == 2022
    assert plain["n_random"] == 100 and plain["totals"][0]["name"] == "basket"


def test_the_equal_weighted_universe_is_the_mean_of_the_stocks_that_are_there():
    days = pd.bdate_range("2024-01-01", periods=4)
    tables = [pd.DataFrame({"symbol": name, "date": days, "open": close, "close": close, "volume": 1000})
              for name, close in (("A", [10_000.0, 11_000, 11_000, 11_000]), ("B", [10_000.0, 10_000, 9_000, 9_900]))]
    prices = pd.concat([tables[0], tables[1].drop(index=2)])
    assert list(equal_weighted(MarketData.of(prices, VN_RULES))) == pytest.approx([0.05, 0.0, -0.005])


def test_a_stock_that_vanishes_costs_the_universe_and_every_basket_its_haircut():
    forecast, prices = many(n_symbols=10, n_days=150)
    last = np.unique(prices["date"])[100]
    prices = prices[(prices["symbol"] != "S03") | (prices["date"] <= last)]
    forecast = forecast[(forecast["symbol"] != "S03") | (forecast["date"] <= last)]
    whole, market = MarketData.of(prices, replace(VN_RULES, delisting_haircut=0.0)), MarketData.of(prices, VN_RULES)
    gap = equal_weighted(whole) - equal_weighted(market)
    assert np.flatnonzero(gap).tolist() == [100] and gap[100] > 0
    change = market.close[101] / market.close[100] - 1
    assert equal_weighted(market)[100] == pytest.approx((np.delete(change, 3).sum() - 0.3) / 10)
    forecast.loc[forecast["symbol"] == "S03", ["score", "edge"]] = 1.0  # the best on all its days
    ours, other = (evaluate_basket(forecast, prices, rules, basket=Basket(4, 6), n_random=60)
                   for rules in (VN_RULES, whole.rules))
    assert 3 < (ours.random < other.random - 0.1).sum() < 30  # held it by chance
    [sold] = ours.trades.orders.query("at == 'end'").to_dict("records")
    assert (ours.n_vanished, other.n_vanished) == (1, 1) and other.haircut == 0
    assert ours.haircut == pytest.approx(sold["shares"] * 0.3 * sold["quote"]) and "1 held in vanished" in repr(ours)
    assert "vanished" not in repr(evaluate_basket(*many(n_days=90), basket=Basket(4, 6), n_random=0))


def test_k_and_keep_come_from_earlier_validation_days_alone():
    forecast, prices = many(n_symbols=25, n_days=1100, skill=0.2)
    folds = yearly_folds(pd.DatetimeIndex(np.unique(prices["date"])))
    parts = [forecast[fold.valid.mask(pd.DatetimeIndex(forecast["date"]))].assign(fold=place)
             for place, fold in enumerate(folds)]
    valid = pd.concat(parts)
    test = forecast[forecast["date"] >= folds[0].test.first]
    result = evaluate_basket(test, prices, valid=valid, folds=folds, n_random=0)
    seen = [sum(part["date"].nunique() for part in parts[:place + 1]) for place in range(len(folds))]
    assert len(result.chosen) == len(folds) and min(seen) < FEWEST_VALID_DAYS <= max(seen)
    default = Basket().limited(25)
    for row, n_days in zip(result.chosen.itertuples(), seen, strict=True):
        assert n_days >= FEWEST_VALID_DAYS or (row.k, row.keep) == (default.k, default.keep)
    bent = valid.assign(score=np.where(valid["fold"] == len(folds) - 1, -valid["score"], valid["score"]))
    again = evaluate_basket(test, prices, valid=bent, folds=folds, n_random=0)
    pd.testing.assert_frame_equal(result.chosen.iloc[:-1], again.chosen.iloc[:-1])
    assert np.isnan(result.beaten) and result.basket.k == result.chosen["k"].iloc[-1]


def test_the_choice_is_of_a_neighbourhood_and_not_of_a_lucky_cell():
    grid = [Basket(k, keep) for k in (5, 10, 20) for keep in (20, 30, 40)]
    lonely = [5, 0, 0, 0, 3, 3, 0, 3, 3]
    assert choose_basket(np.array(lonely, "float64"), grid, Basket()) == Basket(20, 40)
    assert choose_basket(np.full(9, np.nan), grid, Basket()) == Basket()
    assert choose_basket(np.ones(9), grid, Basket()) == grid[0]


def test_bad_arguments_are_named():
    forecast, prices = many(n_days=60)
    for capital in (0, np.nan, np.inf):
        with pytest.raises(ConfigError, match="capital = .*: must be positive"):
            evaluate_basket(forecast, prices, capital=capital)
    for wrong in ({"k": 0}, {"k": 11, "keep": 10}, {"hold_days": -1}, {"traded_share": 0}):
        with pytest.raises(ConfigError):
            replace(Basket(), **wrong)
    assert Basket().limited(102) == Basket() and Basket().limited(25) == Basket(5, 10)


def test_a_short_span_has_no_numbers_a_year():
    forecast, prices = many(n_days=60, skill=0.3)
    short = evaluate_basket(forecast, prices, basket=Basket(5, 10), n_random=20)
    assert len(short.returns) == 58 and "58 days, 60 are needed for numbers a year" in repr(short)
    yearly = [short.alpha, short.alpha_t, short.alpha_p, short.excess, short.information_ratio, short.turnover,
              short.cost, short.break_even, *short.totals["yearly"], *short.totals["sharpe"],
              *short.totals["last_12_months"], *short.capacity["alpha"], *short.by_hold_days["yearly"]]
    assert np.isnan(yearly).all() and short.to_dict()["alpha"] is None
    assert short.totals["max_drawdown"].notna().all() and 0.5 < short.exposure < 1 and short.beaten > 0.5
    forecast, prices = many(n_days=62, skill=0.3)
    assert np.isfinite(evaluate_basket(forecast, prices, basket=Basket(5, 10), n_random=0).alpha)
