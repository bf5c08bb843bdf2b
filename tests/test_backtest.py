"""Trading told as short stories with the ledger written out, a slow second engine, and what any market must keep."""

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import forecast_of
from vnq_colab.data.market import MarketRules, on_tick, tick
from vnq_colab.errors import ConfigError, DataError
from vnq_colab.evaluation.backtest import backtest as any_backtest
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.metrics import max_drawdown, sharpe
from vnq_colab.settings import HORIZON

FREE = MarketRules(fee=0, sale_tax=0, slippage=0)
CAPITAL = 10_000_000.0


def backtest(*arguments, strategy="long_flat", **more):
    """Accounts of their own, by default."""
    return any_backtest(*arguments, strategy=strategy, **more)


def prices_of(opens, closes=None, volume=None, start="2024-01-01", symbol="AAA", exchange="HOSE"):
    """A price table of one symbol; closes default to the opens."""
    closes = opens if closes is None else closes
    return pd.DataFrame({
        "symbol": symbol, "date": pd.bdate_range(start, periods=len(opens)), "open": np.asarray(opens, "float64"),
        "close": np.asarray(closes, "float64"), "volume": 1_000_000 if volume is None else volume, "exchange": exchange,
    })


def targets(prices, signs, family="stockformer"):
    """A Forecast from the first days of `prices`, one sign of `mean` a day."""
    return pd.concat([forecast_of(symbol, pd.DatetimeIndex(rows["date"][: len(signs)]), 0.005 * np.asarray(
        signs, "float64"), 0.6, family=family) for symbol, rows in prices.groupby("symbol")], ignore_index=True)


def long_flat(prices, signs, rules=FREE, capital=CAPITAL, **more):
    return backtest(targets(prices, signs), prices, rules, capital=capital, **more)


def fills(result):
    return [(f"{row.date:%m-%d}", row.side, row.shares) for row in result.orders.itertuples()]


def ledger(result):
    """(day, cash, shares, value) of the first account on every day."""
    symbol = result.shares.columns[0]
    close = result.market.close[:, list(result.market.symbols).index(symbol)]
    table = zip(result.shares.index, result.cash[symbol], result.shares[symbol], close, strict=True)
    return [(f"{day:%m-%d}", cash, shares, cash + shares * price) for day, cash, shares, price in table]


# --- stories (January 2024: 01-01 is a Monday; shares are sellable at the close of T+2)


def test_story_of_one_round_trip_is_sold_at_the_close_of_t_plus_2():
    prices = prices_of([10_000, 10_000, 10_100, 10_200, 10_500], [10_000, 10_100, 10_200, 10_330, 10_600])
    result = long_flat(prices, [1, -1], MarketRules())
    # Monday evening: up. Tuesday's open 10,000 + 0.2 % = 10,020; with the fee 10,035.03 a share: 9 lots.
    cash = 10_000_000 - 900 * 10_020 - 13_527
    # Tuesday evening: down. The shares are there on Thursday at 13:00: its close 10,330 - 0.2 % = 10,309.34 a share.
    sold, fee, tax = 9_278_406, 13_918, 9_278  # 900 × 10,309.34; 13,917.609 and 9,278.406
    assert ledger(result) == [
        ("01-01", 10_000_000, 0, 10_000_000), ("01-02", cash, 900, cash + 9_090_000),
        ("01-03", cash, 900, cash + 9_180_000), ("01-04", cash + sold - fee - tax, 0, 10_223_683),
        ("01-05", 10_223_683, 0, 10_223_683)]
    buy, sell = result.orders.to_dict("records")
    assert (buy["at"], buy["quote"], buy["price"]) == ("open", 10_000, 10_020)
    assert (buy["amount"], buy["cost"], buy["cash"]) == (9_018_000, 13_527, -9_031_527)
    assert (sell["at"], sell["quote"], sell["price"]) == ("close", 10_330, pytest.approx(10_309.34))
    assert (sell["amount"], sell["cost"], sell["cash"]) == (sold, fee + tax, sold - fee - tax)
    row = result.symbols.iloc[0]
    assert row["return"] == pytest.approx(0.0223683) and row["n_trades"] == 1
    assert row["buy_and_hold_return"] == pytest.approx((cash + 900 * 10_600) / CAPITAL - 1)


FLAT = [10_000] * 8
OPENS_AFTER_HALT = [10_000.0] * 27 + [11_900] + [10_000] * 2  # + 19 % after 25 sessions without a trade


@pytest.mark.parametrize(("prices", "signs", "expected"), [
    pytest.param(prices_of([*FLAT[:4], 10_300], [*FLAT[:3], 10_200, 10_400]), [1, 1, 1, -1],
                 [("01-02", "buy", 1000), ("01-05", "sell", 1000)], id="down at the close of T+2: the next open"),
    *(pytest.param(prices_of(FLAT[:7], start=start), [1, -1], [(bought, "buy", 1000), (sold, "sell", 1000)],
                   id=f"settlement of {start[:4]}") for start, bought, sold in (
        ("2014-01-06", "01-07", "01-13"), ("2018-01-08", "01-09", "01-12"), ("2024-01-08", "01-09", "01-11"))),
    pytest.param(prices_of([10_000, 10_700, 10_800, 10_800]), [1], [("01-03", "buy", 900)], id="ceiling: a day later"),
    pytest.param(prices_of([10_000, 10_700, 10_800], exchange="HNX"), [1], [("01-02", "buy", 900)],
                 id="no ceiling of HNX, 10 %"),
    pytest.param(prices_of([10_000, 10_650, 10_800]), [1], [("01-02", "buy", 900)], id="a tick below the ceiling"),
    pytest.param(prices_of([10_030, 10_700, 10_700]), [1], [("01-03", "buy", 900)],
                 id="10,030 + 7 % = 10,732.1: the ceiling is 10,700"),
    *(pytest.param(prices_of(opens).assign(exchange=["UPCOM", "HOSE", "HOSE", "HOSE"]), [1], [(day, "buy", shares)],
                   id=f"a change of exchange has 20 % for a day, {day}") for opens, day, shares in (
        ([10_000, 11_900, 12_700, 12_700], "01-02", 800), ([10_000, 12_000, 12_650, 12_700], "01-03", 700))),
    pytest.param(prices_of([10_000, 12_000, 12_730, 12_700], [10_000, 11_900, 12_700, 12_700]).assign(
        exchange=["UPCOM", "HOSE", "HOSE", "HOSE"]), [1], [("01-04", "buy", 700)],
        id="and 7 % of 11,900 = 12,733 on the second"),
    pytest.param(prices_of(OPENS_AFTER_HALT, volume=np.array([1] * 2 + [0] * 25 + [1] * 3)), [-1] * 26 + [1],
                 [("02-07", "buy", 800)], id="a long halt ends with the wide band"),
    pytest.param(prices_of(OPENS_AFTER_HALT, volume=np.array([1] * 3 + [0] * 24 + [1] * 3)), [-1] * 26 + [1],
                 [("02-08", "buy", 1000)], id="a shorter one does not"),
    pytest.param(prices_of([*FLAT[:4], 8_650, 8_500, 8_000], [*FLAT[:3], 9_300, 8_650, 8_500, 8_100],
                           [1, 1, 1, 1, 1, 0, 1]), [1, -1], [("01-02", "buy", 1000), ("01-09", "sell", 1000)],
                 id="the close of T+2 is the floor, so is the next open, then no volume"),
    pytest.param(prices_of([30_000] * 6, start="2020-12-28"), [1, 1, -1],
                 [("12-29", "buy", 330), ("01-01", "sell", 330)], id="HOSE trades tens before 2021, sells the odd lot"),
    pytest.param(prices_of([30_000] * 3, start="2021-01-04"), [1], [("01-05", "buy", 300)], id="and hundreds since"),
    pytest.param(prices_of([30_000] * 3, start="2020-12-28", exchange="HNX"), [1], [("12-29", "buy", 300)],
                 id="HNX hundreds before"),
    pytest.param(prices_of([200_000, 201_000, 202_000]), [1], [], id="too little for a lot of 20 million"),
    pytest.param(prices_of(FLAT[:5]), [0, 0], [], id="a mean of 0 is no target"),
    # Raw 10,040 and then 10,700: the ceiling. Adjusted by 0.3 the band ends at 3,222.84, more than a tick above 3,210.
    pytest.param(prices_of([3_012, 3_210, 3_210, 3_210]), [1], [("01-02", "buy", 3100)], id="adjusted: inside it"),
    pytest.param(prices_of([3_012, 3_210, 3_210, 3_210]).assign(raw_close=[10_040.0, 10_700, 10_700, 10_700]), [1],
                 [("01-03", "buy", 900)], id="raw: the ceiling, and lots of raw shares"),
    # Raw 50,000 and then 54,900, a tick of 100 below the ceiling. Adjusted by 0.1 that is within 100 of 5,500.
    *(pytest.param(prices_of([5_000, 5_490, 5_490], exchange="HNX").assign(raw_close=raw), [1], [(day, "buy", shares)],
                   id=f"raw closes {raw}") for raw, day, shares in (
        (np.nan, "01-03", 1800), ([50_000.0, 54_900, 54_900], "01-02", 100),
        ([50_000.0, np.nan, 54_900], "01-03", 100))),
    # 9,300 is the floor of 10,000; of 9,350 it is 8,695.5, up to a tick 8,700
    *(pytest.param(prices_of([*FLAT[:4], opened, 8_700], [*FLAT[:4], 9_350, 8_700]).assign(
        raw_close=[10_000.0] * 4 + [9_350, 8_700]), [1, 1, 1, -1], [("01-02", "buy", 1000), *more],
        id=f"raw floor, {opened}") for opened, more in ((9_300, []), (9_310, [("01-05", "sell", 1000)]))),
    # One for one: raw 20,000 becomes 10,000, and 10,700 is the ceiling; adjusted prices never jump.
    *(pytest.param(prices_of([10_000, opened, 10_700]).assign(raw_close=[20_000.0, opened, 10_700]), [1],
                   [(day, "buy", 900)], id=f"a right has the reference of the new basis, {opened}")
      for opened, day in ((10_700, "01-03"), (10_650, "01-02"))),
])
def test_story_of_fills(prices, signs, expected):
    result = long_flat(prices, signs)
    assert fills(result) == expected
    if not expected:
        row = result.symbols.iloc[0]
        assert list(result.equity["strategy"]) == [CAPITAL] * len(result.equity) and row["n_trades"] == 0
        assert np.isnan(row["sharpe"]) and "0 orders" in repr(result)


def test_story_of_a_halt_waits_and_keeps_its_value():
    other = prices_of([20_000] * 6, symbol="BBB")
    prices = pd.concat([prices_of([10_000, 10_000, 10_000, 10_500, 10_500, 10_500]).drop(index=[1, 4]), other])
    result = long_flat(prices, [1])  # AAA is not there on 01-02 and 01-05
    assert fills(result) == [("01-03", "buy", 1000), ("01-02", "buy", 500)]
    assert [row[3] for row in ledger(result)] == [1e7, 1e7, 1e7, 1.05e7, 1.05e7, 1.05e7]


def test_story_of_a_delisting_is_settled_with_a_haircut_when_no_price_comes_for_25_days():
    other = prices_of([20_000] * 28, symbol="BBB")
    prices = pd.concat([prices_of([10_000, 10_000, 9_400], [10_000, 9_900, 9_000]), other])
    result = long_flat(prices, [1], MarketRules())  # AAA's last day is 01-03
    cash = 10_000_000 - 900 * 10_020 - 13_527
    end = cash + 5_670_000 - 8_505 - 5_670  # the last close 9,000 less 30 %; fee and tax
    assert ledger(result) == [("01-01", 10_000_000, 0, 10_000_000), ("01-02", cash, 900, cash + 8_910_000),
                              ("01-03", cash, 900, cash + 8_100_000), ("01-04", end, 0, end), ("01-05", end, 0, end),
                              ("01-08", end, 0, end)]
    assert list(result.orders["at"]) == ["open", "end", "open"] and result.orders["quote"][1] == 9_000
    whole = long_flat(prices, [1], MarketRules(delisting_haircut=0.0))
    assert whole.equity["strategy"].iloc[-1] > result.equity["strategy"].iloc[-1]
    assert (result.equity["strategy"] == result.equity["buy_and_hold"]).all()  # by the same rules
    soon = prices[prices["date"] < "2024-02-07"]  # 24 days without AAA: it may come back
    assert list(long_flat(soon, [1], MarketRules()).orders["at"]) == ["open", "open"]
    halted = pd.concat([prices, prices_of([9_000], start="2024-01-29")])  # it comes back later: a halt
    assert list(long_flat(halted, [1], MarketRules()).orders["at"]) == ["open", "open"]


def test_story_of_lots_rounds_down_to_what_the_cash_allows():
    prices = prices_of([9_900, 9_990, 10_000])
    result = long_flat(prices, [1], MarketRules())
    assert ledger(result)[1] == ("01-02", 991_018 - 13_513, 900, 977_505 + 8_991_000)  # 13,513.473 of fee
    exact = MarketRules(fee=0.0015, sale_tax=0, slippage=0)
    enough = long_flat(prices, [1], exact, 999_000 + 1_499)  # 1,498.5 of fee: 1,499
    assert fills(enough) == [("01-02", "buy", 100)] and ledger(enough)[1] == ("01-02", 0, 100, 999_000)
    assert fills(long_flat(prices, [1], exact, 999_000 + 1_498)) == []
    odd = prices_of([90_000, 90_009.995, 95_000])  # 9,000,999.5 and 13,501.5: both round up, a dong above their sum
    assert fills(long_flat(odd, [1], exact, 9_014_501)) == []
    assert fills(long_flat(odd, [1], exact, 9_014_502)) == [("01-02", "buy", 100)]
    sevens = MarketRules(fee=0, sale_tax=0, slippage=0, lot=7)
    assert fills(long_flat(prices_of([30_000] * 3), [1], sevens)) == [("01-02", "buy", 329)]


def test_story_of_the_tax_is_paid_on_sales_only_also_with_a_loss():
    result = long_flat(prices_of([10_000, 10_000, 9_800, 9_500, 9_500]), [1, -1], MarketRules(fee=0, slippage=0))
    assert result.orders[["cost", "cash"]].to_numpy().tolist() == [[0, -10_000_000], [9_500, 9_490_500]]
    assert ledger(result)[-1] == ("01-05", 9_490_500, 0, 9_490_500)


def test_story_of_a_traded_share_buys_and_sells_on_several_days():
    prices = prices_of(FLAT, volume=[2_000, 2_000, 4_500, 9_000, 3_000, 2_000, 2_000, 900])
    result = long_flat(prices, [1, 1, -1], traded_share=0.1)
    # Of 1,000 shares 200 on Tuesday, 400 on Wednesday; the last ones are there on Friday's close.
    assert fills(result) == [("01-02", "buy", 200), ("01-03", "buy", 400), ("01-05", "sell", 300),
                             ("01-08", "sell", 200), ("01-09", "sell", 100)]
    assert list(result.orders["at"]) == ["open", "open", "close", "open", "open"]
    assert [row[1] for row in ledger(result)] == [1e7, 8e6, 4e6, 4e6, 7e6, 9e6, 1e7, 1e7]
    ended = prices_of(FLAT[:7], volume=[2_000, 4_000, 0, 1_000, 1_000, 9_000, 9_000])
    result = long_flat(ended, [1, 1, -1, 1, 1, 1], traded_share=0.1)  # a sale ends what was still to buy
    assert fills(result) == [("01-02", "buy", 400), ("01-04", "sell", 100)]
    assert list(result.shares["AAA"]) == [0, 400, 400, 300, 300, 300, 300]


def own_scores(names, scores, n_days=7):
    """Prices of 10,000 for all, and a forecast with these scores by symbol and day."""
    prices = pd.concat([prices_of([10_000] * n_days, symbol=name) for name in names], ignore_index=True)
    forecast = targets(prices, [1] * len(scores[names[0]]))
    forecast["score"] = [float(scores[row.symbol][row.date.day - 1]) for row in forecast.itertuples()]
    return forecast.assign(edge=forecast["score"]), prices


def traded(result):
    return [(row.symbol, f"{row.date:%m-%d}", row.side, row.shares) for row in result.orders.itertuples()]


def test_story_of_one_common_account_buys_with_the_cash_of_the_sale():
    forecast, prices = own_scores(["AAA", "BBB", "CCC"], {"AAA": [3, 1, 1], "BBB": [2, 3, 3], "CCC": [1, 2, 2]})
    result = backtest(forecast, prices, FREE, capital=CAPITAL, strategy=Basket(2, 2, hold_days=0))
    # From Tuesday evening CCC instead of AAA, whose shares are there on Thursday at 13:00; on Friday its cash buys.
    assert traded(result) == [("AAA", "01-02", "buy", 500), ("AAA", "01-04", "sell", 500), ("BBB", "01-02", "buy", 500)]
    held = backtest(forecast.iloc[:6], prices, FREE, capital=CAPITAL, strategy=Basket(2, 2, hold_days=3))
    assert traded(held) == [("AAA", "01-02", "buy", 500), ("BBB", "01-02", "buy", 500)]


def test_story_of_a_basket_exchanges_the_worst_for_the_best_and_waits_for_its_sale():
    days = {"AAA": [3, 3, 1, 1, 1], "BBB": [2, 2, 3, 3, 3], "CCC": [1, 1, 2, 2, 2]}
    forecast, prices = own_scores(["AAA", "BBB", "CCC"], days, 8)
    result = backtest(forecast, prices, FREE, capital=CAPITAL, strategy=Basket(2, 2))
    assert traded(result) == [("AAA", "01-02", "buy", 500), ("AAA", "01-05", "sell", 500), ("BBB", "01-02", "buy", 500),
                            ("CCC", "01-05", "buy", 500)]  # after three days, and on the same open
    assert list(result.shares.loc["2024-01-05"]) == [0, 500, 500] and list(result.cash.loc["2024-01-05"]) == [0]
    assert list(result.equity["strategy"]) == [CAPITAL] * 8
    assert "10,000,000 VND in all" in repr(result) and "Basket(k=2, keep=2" in repr(result)
    floor = prices.assign(open=np.where((prices["symbol"] == "AAA") & (prices["date"] == "2024-01-05"), 9_300.0,
                                        prices["open"]))
    stuck = backtest(forecast, floor, FREE, capital=CAPITAL * 1.5, strategy=Basket(2, 2))
    assert traded(stuck)[:2] == [("AAA", "01-02", "buy", 700), ("AAA", "01-08", "sell", 700)]
    assert traded(stuck)[-1] == ("CCC", "01-08", "buy", 700)  # its place was taken, though there was cash
    kept = backtest(forecast.assign(edge=0.0), prices, FREE, capital=CAPITAL, strategy=Basket(2, 2))
    assert traded(kept) == traded(result)[:1] + traded(result)[2:3]  # nothing that would pay for an exchange


def test_story_of_the_ceiling_leaves_a_place_for_the_next_day():
    days = {"AAA": [3, 1, 1, 1], "BBB": [2, 3, 2, 2], "CCC": [1, 2, 3, 3]}
    forecast, prices = own_scores(["AAA", "BBB", "CCC"], days)
    prices.loc[(prices["symbol"] == "AAA") & (prices["date"] == "2024-01-02"), "open"] = 10_700.0
    result = backtest(forecast, prices, FREE, capital=CAPITAL, strategy=Basket(1, 3))
    assert traded(result) == [("BBB", "01-03", "buy", 1000)]  # AAA is not bought later


def test_story_of_a_person_s_own_function():
    days = {"AAA": [3, 3, 1, 1], "BBB": [2, 2, 3, 3], "CCC": [1, 1, 2, 2]}
    forecast, prices = own_scores(["AAA", "BBB", "CCC"], days)
    seen = []

    def best_one(today, holdings):
        seen.append((len(today), dict(holdings)))
        return {today.nlargest(1, "score")["symbol"].iloc[0]: 0.5}

    result = backtest(forecast, prices, FREE, capital=CAPITAL, strategy=best_one)
    assert traded(result) == [("AAA", "01-02", "buy", 500), ("AAA", "01-04", "sell", 500), ("BBB", "01-05", "buy", 500)]
    assert seen[0] == (3, {}) and seen[1] == (3, {"AAA": 0.5}) and "best_one" in repr(result)
    assert traded(backtest(forecast, prices, FREE, capital=CAPITAL, strategy=lambda today, holdings: pd.Series(
        0.3, today["symbol"]))) == [(name, "01-02", "buy", 300) for name in ("AAA", "BBB", "CCC")]


@pytest.mark.parametrize("answer, message", [
    ({"AAA": float("nan")}, r"strategy <lambda>, 2024-01-01: the weight of AAA is nan. Return weights by symbol"),
    ({"AAA": -0.1}, "the weight of AAA is -0.1"), ({"AAA": "all"}, "the weight of AAA is 'all'"),
    ({"AAA": 0.6, "BBB": 0.5}, "the weights sum to 1.1"), ({"AAB": 0.5}, "no symbol 'AAB'. Did you mean 'AAA'"),
    ([0.5], "it returned a list"), (None, "it returned a NoneType"),
    (pd.Series([0.1, 0.1], ["AAA", "AAA"]), "it returned a symbol twice"),
])
def test_nonsense_of_a_function_is_named(answer, message):
    forecast, prices = own_scores(["AAA", "BBB"], {"AAA": [1], "BBB": [2]})
    with pytest.raises(ConfigError, match=message):
        backtest(forecast, prices, strategy=lambda today, holdings: answer)


@pytest.mark.parametrize("function, message", [
    (lambda today, holdings: {today["symbl"].iloc[0]: 1.0}, "it raised KeyError: 'symbl'. It is called"),
    (lambda: {}, "it raised TypeError: .* takes 0 positional")])
def test_a_function_that_fails_is_a_sentence_with_the_day(function, message):
    forecast, prices = own_scores(["AAA"], {"AAA": [1]})
    with pytest.raises(ConfigError, match=f"^strategy <lambda>, 2024-01-01: {message}"):
        backtest(forecast, prices, strategy=function)


def test_story_of_the_index_moves_the_capital_beside_the_accounts():
    prices = prices_of([10_000] * 4)
    index = pd.DataFrame({"date": pd.to_datetime(["2023-12-29", "2024-01-02", "2024-01-04"]),
                          "close": [1_000.0, 1_100, 900]})
    result = backtest(targets(prices, [1]), prices, FREE, capital=CAPITAL, index=index)
    assert list(result.equity.columns) == ["strategy", "buy_and_hold", "index"]
    assert list(result.equity["index"]) == pytest.approx([1e7, 1.1e7, 1.1e7, 0.9e7])
    assert list(result.totals().index) == ["strategy", "buy_and_hold", "index"] and "index" in repr(result)


def random_market(seed, n_symbols=3, n_days=60):
    random = np.random.default_rng(seed)
    tables = []
    for place in range(n_symbols):
        closes = 20_000 * np.exp(np.cumsum(random.normal(0, 0.03, n_days)))
        opens = closes * np.exp(random.normal(0, 0.03, n_days))
        exchange = ("HOSE", "HNX", "UPCOM")[place % 3]
        volume = np.where(random.random(n_days) < 0.1, 0, 1000)
        table = prices_of(opens, closes, volume, "2022-07-01", f"S{place}", exchange)
        tables.append(table[random.random(n_days) < 0.95])
    prices = pd.concat(tables, ignore_index=True)
    days = pd.DatetimeIndex(np.unique(prices["date"]))[2:40]
    forecast = pd.concat([forecast_of(f"S{place}", days, random.normal(0, 0.01, (38, HORIZON)).sum(axis=1))
                          for place in range(n_symbols)])
    return forecast, prices


# --- a second engine: one account at a time, one day after the other, in fractions and whole dong


SLOW_BANDS = {"HOSE": (7, 20), "HNX": (10, 30), "UPCOM": (15, 40)}  # [%] since mid-2015; on a first day


def slow_tick(price, exchange):
    return 100 if exchange != "HOSE" or price >= 50_000 else 50 if price >= 10_000 else 10


def slow_dong(value):
    return math.floor(Fraction(value) + Fraction(1, 2))


def slow_limits(market, symbol, day):
    """((price, ceiling), (price, floor), (close, floor)): a price on or beyond its limit does not trade."""
    rows = market["rows"][symbol]
    earlier = [place for place in range(day) if rows[place]]
    if not earlier:
        return None
    row, last = rows[day], rows[earlier[-1]]
    traded = [place for place in earlier if rows[place]["volume"] > 0]
    is_wide = row["exchange"] != last["exchange"] or (bool(traded) and day - traded[-1] > 25)
    band, exchange = Fraction(SLOW_BANDS[row["exchange"]][is_wide], 100), row["exchange"]
    if market["raw_close"] and row["raw_known"]:
        start = last["raw"][1] * row["split"]
        if row["split"] != 1 or not last["raw_known"]:  # then the raw close before has to be worked out
            start = round(start / slow_tick(start, exchange)) * slow_tick(start, exchange)
        high, low = start * (1 + band), start * (1 - band)
        ceiling = max(math.floor(high / slow_tick(high, exchange)) * slow_tick(high, exchange),
                      start + slow_tick(start, exchange))
        floor = min(math.ceil(low / slow_tick(low, exchange)) * slow_tick(low, exchange),
                    start - slow_tick(start, exchange))
        return (row["raw"][0], ceiling), (row["raw"][0], floor), (row["raw"][1], floor)
    start = Fraction(last["close"])
    high, low = start * (1 + band), start * (1 - band)
    tiny = Fraction(1, 1000)  # a price exactly one tick inside still trades
    ceiling, floor = high - slow_tick(high, exchange) + tiny, low + slow_tick(low, exchange) - tiny
    return (row["open"], ceiling), (row["open"], floor), (row["close"], floor)


def slow_account(market, name, is_up, capital, traded_share):
    """Orders, and (cash, shares, value) by day, of an account that holds this symbol while `is_up [days]`.

    Shares are adjusted ones, exactly; orders and the ledger show raw ones where the day's raw close is known.
    """
    days, rows = market["days"], market["rows"][name]
    cash, shares, settled, to_buy = capital, 0, 0, 0
    orders, book = [], [(capital, 0, capital)]
    known = [place for place, row in enumerate(rows) if row]

    def lot_of(day):
        exchange = [rows[place]["exchange"] for place in known if place <= day][-1]
        return (10 if exchange == "HOSE" and days[day] < pd.Timestamp("2021-01-01") else 100) * basis(day)

    def basis(day):  # adjusted shares of one that is traded
        row = [rows[place] for place in known if place <= day][-1]
        return Fraction(row["raw"][1]) / Fraction(row["close"]) if row["raw_known"] else 1

    def most(day):
        return 10**12 if traded_share is None else math.floor(traded_share * rows[day]["volume"]) * basis(day)

    def price_of(day, at, side):
        """With 0.2 % against the trader; of raw prices on a tick inside the band."""
        row, limits = rows[day], slow_limits(market, name, day)
        if not row["raw_known"]:
            return Fraction(row[at]) * (1000 + 2 * side) / 1000
        price = row["raw"][at == "close"] * (1000 + 2 * side) / 1000
        step = slow_tick(price, row["exchange"])
        price = side * math.ceil(side * price / step) * step
        end = limits[0][1] if limits and side > 0 else limits[1][1] if limits else price
        return (min(price, end) if side > 0 else max(price, end)) / basis(day)

    def sell(day, at):
        nonlocal cash, shares, to_buy
        number, to_buy = shares, 0
        if at == "end":
            price, parts = Fraction(rows[known[-1]]["close"]) * 7 / 10, [(at, number)]
        else:
            number = number if number <= most(day) else most(day) // lot_of(day) * lot_of(day)
            whole = number // lot_of(day) * lot_of(day) if rows[day]["raw_known"] else number
            price, parts = price_of(day, at, -1), [("odd lot", number - whole), (at, whole)]
        for how, part in parts:
            if part:
                amount = slow_dong(part * price)
                cost = slow_dong(amount * Fraction(15, 10_000)) + slow_dong(Fraction(amount, 1000))
                orders.append((name, days[day], "sell", round(part / basis(day)), how, amount, cost))
                cash, shares = cash + amount - cost, shares - part

    for day in range(1, len(days)):
        row = rows[day] if rows[day] and rows[day]["volume"] else None
        limits, wanted = slow_limits(market, name, day) if row else None, is_up[day - 1]
        if shares and day > known[-1] and len(days) - known[-1] > 25:
            sell(day, "end")
        is_late = shares and not wanted and settled == 2 * day + 1
        if row and shares and not wanted and settled <= 2 * day and (not limits or limits[1][0] > limits[1][1]):
            sell(day, "open")
        if row and wanted and (not shares or to_buy) and (not limits or limits[0][0] < limits[0][1]):
            price, lot = price_of(day, "open", 1), lot_of(day)
            number = math.ceil(cash / (price * lot)) * lot + lot
            while number and slow_dong(number * price) + slow_dong(
                    slow_dong(number * price) * Fraction(15, 10_000)) > cash:
                number -= lot
            goal = min(number, to_buy) if shares else number
            bought = min(goal, most(day)) // lot * lot
            if bought:
                to_buy = ((to_buy if shares else goal) - bought) if traded_share else 0
                amount = slow_dong(bought * price)
                cost = slow_dong(amount * Fraction(15, 10_000))
                orders.append((name, days[day], "buy", round(bought / basis(day)), "open", amount, cost))
                cash, shares = cash - amount - cost, shares + bought
                settled = (2 * (day + 4) if days[day] < pd.Timestamp("2016-01-01") else 2 * (day + 3)
                           if days[day] < pd.Timestamp("2022-08-29") else 2 * (day + 2) + 1)
        if row and is_late and (not limits or limits[2][0] > limits[2][1]):
            sell(day, "close")
        last = [place for place in known if place <= day]
        book.append((cash, round(shares / basis(day)) if shares else 0,
                     cash + (slow_dong(shares * Fraction(rows[last[-1]]["close"])) if shares else 0)))
    return orders, book


MOVES = [0, 1, -1, 3, -3, 2, -2, 6.9, -6.9, 7, -7, 9.9, -9.9, 10, -10, 15, -15, 20, -20]  # [%]


@st.composite
def markets(draw):
    """Made of short series with moves at, near and beyond the bands, halts, ends, changes of exchange and splits."""
    n_days, n_symbols = draw(st.integers(4, 16)), draw(st.integers(1, 3))
    start = draw(st.sampled_from(["2024-01-01", "2022-08-24", "2020-12-21", "2018-01-08", "2015-12-21",
                                    "2023-01-02"]))
    days = pd.bdate_range(start, periods=n_days)
    rows, raw_close = {}, draw(st.booleans())
    for number in range(n_symbols):
        exchange = draw(st.sampled_from(["HOSE", "HNX", "UPCOM"]))
        moves_at = draw(st.sampled_from([None, None, 3, 6]))
        split_at, right = draw(st.sampled_from([None, None, 2, 5])), draw(st.sampled_from([(1, 2), (15, 16)]))
        ends = draw(st.integers(2, n_days)) if draw(st.integers(0, 5)) == 5 else n_days
        last = Fraction(draw(st.sampled_from([400, 9_900, 10_000, 25_000, 49_900, 120_000])))
        steps = draw(st.lists(st.tuples(st.sampled_from(MOVES), st.sampled_from(MOVES), st.sampled_from(
            [20_000] * 8 + [500, 0, None])), min_size=n_days, max_size=n_days))
        series = []
        for day, (opening, closing, volume) in enumerate(steps):
            if day == moves_at:
                exchange = {"HOSE": "HNX", "HNX": "HOSE", "UPCOM": "HOSE"}[exchange]
            if day >= ends or (volume is None and day):
                series.append(None)
                continue
            split = Fraction(*right) if split_at is not None and day >= split_at else Fraction(1)
            split_at = None if split != 1 else split_at
            raw = []
            for move in (opening, closing):
                price = last * split * (1 + Fraction(str(move)) / 100)
                step = slow_tick(price, exchange)
                raw.append(Fraction(max(round(price / step) * step, step)))
            last = raw[1]
            series.append({"raw": raw, "split": split, "volume": volume or 0, "exchange": exchange,
                           "raw_known": draw(st.integers(0, 4)) > 0 if raw_close else False})
        basis = Fraction(1)
        for row in reversed(series):
            if row:
                row["open"], row["close"] = (float(price * basis) for price in row["raw"])
                basis *= row["split"]
        rows[f"S{number}"] = series
    table = pd.DataFrame([
        {"symbol": name, "date": days[day], "open": row["open"], "high": max(row["open"], row["close"]),
         "low": min(row["open"], row["close"]), "close": row["close"], "volume": row["volume"],
         "exchange": row["exchange"]} | ({"raw_close": float(row["raw"][1]) if row["raw_known"] else np.nan}
                                         if raw_close else {})
        for name, series in rows.items() for day, row in enumerate(series) if row])
    kept = [day for day in range(n_days) if any(series[day] for series in rows.values())]
    n_origins = draw(st.integers(len(kept) // 2, len(kept) - 1)) if len(kept) > 1 else 0
    later = pd.bdate_range(days[-1] + pd.Timedelta(days=1), periods=draw(st.sampled_from([0, 24, 30])))  # without them
    table = pd.concat([table, pd.DataFrame({"symbol": "ZZZ", "date": later} | dict.fromkeys(
        ["open", "high", "low", "close"], 10_000.0) | {"volume": 1, "exchange": "HOSE"})], ignore_index=True)
    days = pd.DatetimeIndex(np.unique(table["date"]))
    market = {"days": days, "raw_close": raw_close, "rows": {
        name: [series[day] for day in kept] + [None] * len(later) for name, series in rows.items()}}
    means = {name: [draw(st.sampled_from([0.01, -0.01, 0.02, -0.02, 0.03, 0.0, None])) for _ in
                    range(n_origins)] for name in rows}
    return market, table, means


def check_against_the_slow_engine(series, capital, traded_share):
    market, table, means = series
    days, parts = market["days"], []
    for name, series in means.items():
        known = [day for day, mean in enumerate(series) if mean is not None]
        parts.append(forecast_of(name, days[known], [series[day] for day in known], p_up=0.05))
    forecast = pd.concat([part for part in parts if len(part)] or parts)
    if forecast.empty or len(days) < 2 or forecast["date"].min() == days[-1]:
        return
    first = days.get_loc(forecast["date"].min())
    last = min(days.get_loc(forecast["date"].max()) + HORIZON, len(days) - 1)
    result = backtest(forecast, table, capital=capital, traded_share=traded_share)
    assert list(result.equity.index) == list(days[first : last + 1])
    orders, value = [], np.zeros(last - first + 1)
    for name in sorted(forecast["symbol"].unique()):
        # An account begins on the day of the first origin, and the market before it is still known.
        up = pd.Series(means[name], dtype="float64").reindex(range(len(days))).ffill() > 0
        wanted, book = slow_account(market, name, [day >= first and up[day] for day in range(len(days))], int(capital),
                                    traded_share)
        orders += [order for order in wanted if order[1] <= days[last]]
        cash, shares, worth = zip(*book[first : last + 1], strict=True)
        assert (list(result.cash[name]), list(result.shares[name])) == (list(cash), list(shares))
        row = result.symbols.set_index("symbol").loc[name]
        assert row["return"] == worth[-1] / capital - 1
        assert row["max_drawdown"] == pytest.approx(max_drawdown(np.array(worth, "float64")), abs=1e-15)
        value += worth
    columns = ["symbol", "date", "side", "shares", "at", "amount", "cost"]
    assert sorted(result.orders[columns].itertuples(index=False, name=None)) == sorted(orders)
    assert list(result.equity["strategy"] * len(result.symbols)) == pytest.approx(list(value), rel=1e-15)
    ledgers_reconcile(result)


def ledgers_reconcile(result):
    """Capital and orders explain every dong of every account on every day."""
    orders, close = result.orders, pd.DataFrame(result.market.close, result.market.days, result.market.symbols)
    sign = np.where(orders["side"] == "buy", -1, 1)
    assert (orders["cash"] == sign * orders["amount"] - orders["cost"]).all()
    assert all((orders[name] % 1 == 0).all() for name in ("amount", "cost"))
    assert (result.cash >= 0).all(axis=None) and (result.shares >= 0).all(axis=None)

    def so_far(values):
        table = values.groupby([orders["date"], orders["symbol"]]).sum().unstack(fill_value=0)
        return table.reindex(index=result.shares.index, columns=result.shares.columns, fill_value=0).cumsum()

    paid = so_far(orders["cash"])
    paid = paid if "account" not in result.cash else paid.sum(axis=1).to_frame("account")
    assert (result.cash == result.capital + paid).all(axis=None)
    if not result.market.is_raw.any():  # else rights add shares
        assert (result.shares == so_far(-sign * orders["shares"])).all(axis=None)
    if result.market.is_raw.any():
        return
    holdings = np.floor(result.shares * close.fillna(0) + 0.5 + 1e-6).sum(axis=1)
    assert list(result.equity["strategy"]) == pytest.approx(
        list((result.cash.sum(axis=1) + holdings) / result.cash.shape[1]), rel=1e-15)


@pytest.mark.parametrize("n", [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_orders_and_ledgers_equal_those_of_a_slow_engine(n):
    check = given(markets(), st.sampled_from([2_000_000.0, 30_000_000.0, 1e9]), st.sampled_from([None, None, 0.1]))
    settings(max_examples=n, deadline=None, derandomize=n == 150)(check(check_against_the_slow_engine))()


@pytest.mark.parametrize("strategy", ["long_flat", Basket(2, 3, traded_share=0.2)])
def test_ledgers_of_a_long_market_reconcile(strategy):
    forecast, prices = random_market(7, n_symbols=6, n_days=200)
    result = backtest(forecast, prices, strategy=strategy, capital=1e10, traded_share=0.2)
    assert len(result.orders) > 30
    ledgers_reconcile(result)
    assert result.symbols["max_drawdown"].between(0, 1).all()
    if strategy == "long_flat":
        value = (result.cash + np.floor(result.shares * np.nan_to_num(result.market.close) + 0.5)).to_numpy()
        assert list(result.symbols["sharpe"]) == pytest.approx(list(sharpe(value[1:] / value[:-1] - 1)))
    else:
        assert result.symbols["return"].sum() == pytest.approx(result.totals().loc["strategy", "return"])


# --- raw prices


def raw_market(n_days=80):
    """Raw prices on the ticks of their exchange, a split 2:1 on day 30, dividends of about 3 % on days 20 and 50."""
    random, tables = np.random.default_rng(4), []
    for place, exchange in enumerate(("HOSE", "HNX", "UPCOM", "HOSE", "HOSE", "HNX")):
        factor = np.ones(n_days)  # of a raw price to the one before
        factor[[20, 50]], factor[30] = (0.97, 0.966), 0.5
        exact = random.choice([9_000, 31_000, 90_000]) * np.exp(random.normal(0, 0.015, n_days).cumsum())
        opened, close = (on_tick(exact * factor.cumprod() * np.exp(random.normal(0, more, n_days)), exchange)
                         for more in (0.005, 0))
        basis = factor.cumprod() / factor.prod()
        tables.append(prices_of(opened / basis, close / basis, symbol=f"S{place}", exchange=exchange).assign(
            raw_open=opened, raw_close=close))
    return pd.concat(tables, ignore_index=True)


@pytest.mark.parametrize("strategy", ["long_flat", Basket(2, 3, hold_days=0, traded_share=1.0)])
def test_fills_of_raw_prices_stand_on_a_tick_and_in_whole_raw_lots_also_over_a_split_and_a_dividend(strategy):
    prices, random = raw_market(), np.random.default_rng(5)
    forecast = targets(prices, np.repeat(random.choice([1, -1], 15), 5))
    forecast["score"] = forecast["edge"] = random.normal(size=len(forecast))
    result = backtest(forecast, prices, capital=CAPITAL * 20, strategy=strategy, traded_share=1.0)
    ledgers_reconcile(result)
    orders = result.orders.merge(prices.rename(columns={"open": "_"}), on=["symbol", "date"])
    odd = orders[orders["at"] == "odd lot"]
    orders = orders.drop(odd.index)
    assert len(orders) > 40 and len(odd) > 1
    assert (orders["shares"] % 100 == 0).all() and (orders["shares"] > 0).all() and (odd["shares"] < 100).all()
    assert (orders["price"] % tick(orders["price"], orders["exchange"].to_numpy()) == 0).all()
    assert (orders["quote"] == np.where(orders["at"] == "open", orders["raw_open"], orders["raw_close"])).all()
    assert (orders["amount"] == orders["shares"] * orders["price"]).all()
    slip = (orders["price"] / orders["quote"] - 1) * np.where(orders["side"] == "buy", 1, -1)
    assert (slip >= 0.002 - 1e-9).mean() > 0.95  # never better; the end of the band may cut it off
    assert (slip <= 0.002 + tick(orders["price"], orders["exchange"].to_numpy()) / orders["quote"]).all()
    assert result.orders["side"].iloc[0] == "buy"
    assert (result.orders["shares"].max() < 20 * CAPITAL / 3_000) and result.market.is_raw.all()
    near = backtest(forecast, prices.drop(columns=["raw_open", "raw_close"]), capital=CAPITAL * 20, strategy=strategy,
                    traded_share=1.0)
    orders, side = result.orders, np.where(result.orders["side"] == "buy", 1, -1)
    rounded = orders["shares"] * (orders["price"] - orders["quote"] * (1 + 0.002 * side)) * side
    cost_of_ticks = rounded.sum() / result.cash.shape[1]  # per account
    value, other = (found.equity["strategy"].iloc[-1] for found in (result, near))
    assert value + cost_of_ticks == pytest.approx(other, rel=0.05)


def test_story_of_a_dividend_and_a_split_keeps_the_value_and_sells_the_odd_lot_apart():
    # 10,000 cum a dividend of 300 and then 5,000 of a split 2:1; adjusted prices stand still at 4,850
    prices = prices_of([4_850.0] * 6).assign(raw_close=[10_000.0, 10_000, 9_700, 9_700, 4_850, 4_850])
    result = long_flat(prices, [1, 1, 1, 1, -1])
    assert list(result.shares["AAA"]) == [0, 1000, 1031, 1031, 2062, 0]  # 1,000 × 10,000 / 9,700 = 1,030.9
    assert list(result.equity["strategy"]) == [CAPITAL] * 6
    assert fills(result) == [("01-02", "buy", 1000), ("01-08", "sell", 62), ("01-08", "sell", 2000)]
    assert list(result.orders["at"]) == ["open", "odd lot", "open"]
    assert list(result.orders["quote"]) == list(result.orders["price"]) == [10_000, 4_850, 4_850]


# --- properties


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(5, 30))
def test_the_future_changes_nothing_before_it(seed, cut):
    forecast, prices = random_market(seed)
    day = np.unique(forecast["date"])[cut]
    bent, bent_forecast = prices.copy(), forecast.copy()
    bent.loc[bent["date"] > day, ["open", "close"]] *= 3
    bent_forecast.loc[forecast["date"] > day, "mean"] *= -1
    before, after = backtest(forecast, prices), backtest(bent_forecast, bent)
    pd.testing.assert_frame_equal(before.equity[:day], after.equity[:day])
    known = [result.orders[result.orders["date"] <= day].reset_index(drop=True) for result in (before, after)]
    pd.testing.assert_frame_equal(*known)


def test_always_up_is_buy_and_hold():
    forecast, prices = random_market(1)
    result = backtest(forecast.assign(mean=0.01), prices)
    assert list(result.equity["strategy"]) == list(result.equity["buy_and_hold"])
    assert list(result.symbols["return"]) == list(result.symbols["buy_and_hold_return"])


def test_row_order_and_day_resolution_change_nothing():
    forecast, prices = random_market(3)
    mixed = prices.sample(frac=1, random_state=0).assign(date=lambda table: table["date"].astype("datetime64[s]"))
    pd.testing.assert_frame_equal(backtest(forecast, prices).symbols, backtest(forecast, mixed).symbols)
    without = backtest(forecast, prices.drop(columns="exchange"))
    pd.testing.assert_frame_equal(without.symbols, backtest(forecast, prices.assign(exchange="NYSE")).symbols)


# --- doors


def test_family_is_the_only_one_or_the_ensemble_or_that_of_the_argument():
    prices = prices_of([10_000] * 5)
    both = pd.concat([targets(prices, [1], "momentum"), targets(prices, [-1], "ensemble")])
    assert backtest(both, prices).family == "ensemble"
    assert backtest(both, prices, family="momentum").family == "momentum"
    assert backtest(targets(prices, [1], "ridge"), prices).family == "ridge"
    with pytest.raises(ConfigError, match=r"no family 'momentun'. Did you mean 'momentum'"):
        backtest(both, prices, family="momentun")


def test_bad_tables_are_named():
    prices = prices_of([10_000] * 5)
    with pytest.raises(DataError, match=r"prices: no rows of AAA. Did you mean 'AAB'\? Backtest with the"):
        backtest(targets(prices, [1]), prices.assign(symbol="AAB"))
    with pytest.raises(DataError, match="prices: no rows of 2024-01-02, which the forecast has"):
        backtest(targets(prices, [1, 1, 1]), prices.drop(index=1))
    with pytest.raises(DataError, match="prices end 2024-01-01, the first day of the forecast: no day to trade on"):
        backtest(targets(prices, [1]), prices.iloc[:1])
    with pytest.raises(DataError, match="forecast of AAA 2024-01-01: mean is not a number"):
        backtest(targets(prices, [1]).assign(mean=np.nan), prices)


@pytest.mark.parametrize("bad, message", [
    ({"open": np.nan}, r"open nan, close 10,000.0 \[VND\], .*: nobody can trade on that. Clean"),
    ({"close": 0.0}, r"open 10,000.0, close 0.0 \[VND\]"), ({"close": np.inf}, r".*close inf \[VND\]"),
    ({"volume": -100.0}, r".*volume -100.0 \[shares\]: nobody"), ({}, ".*: it is the second row of this day"),
])
def test_prices_that_nobody_can_trade_on_are_named(bad, message):
    prices = prices_of(FLAT)
    wrong = pd.concat([prices.drop(index=2) if bad else prices, prices.iloc[[2]].assign(**bad)])
    with pytest.raises(DataError, match=f"AAA 2024-01-03: {message}"):
        backtest(targets(prices, [1]), wrong)


@pytest.mark.parametrize("arguments, message", [
    ({"capital": 0}, "capital = 0: must be positive"), ({"capital": float("nan")}, "capital = nan"),
    ({"capital": 1e16}, r"capital = 1e\+16: must be positive, at most 1e\+15"),
    ({"traded_share": 0}, r"traded_share = 0.*: must lie in \(0, 1\]"), ({"traded_share": 2}, "traded_share = 2"),
    ({"strategy": "long_flad"}, "strategy = 'long_flad': must be .* or 'long_flat'. Did you mean 'long_flat'?"),
    ({"strategy": 3}, "strategy = 3: must be a Basket, a function or 'long_flat'"),
])
def test_bad_arguments_are_named(arguments, message):
    prices = prices_of([10_000] * 5)
    with pytest.raises(ConfigError, match=message):
        backtest(targets(prices, [1]), prices, **arguments)


def test_an_index_that_does_not_fit_is_named():
    prices = prices_of([10_000] * 5)
    index = pd.DataFrame({"date": prices["date"], "close": 1_000.0})
    for table, message in ((index.drop(columns="close"), r"index: columns \['date'\], 5 rows. It needs date and close"),
                           (pd.concat([index, index.iloc[[1]]]), "6 rows. It needs date and close, one row a day"),
                           (index.iloc[1:], "index: no close on or before 2024-01-01"),
                           (index.assign(close=np.nan), "index: no close on or before 2024-01-01")):
        with pytest.raises(DataError, match=message):
            backtest(targets(prices, [1]), prices, index=table)


def test_repr_shows_the_strategy_beside_buy_and_hold():
    forecast, prices = random_market(4)
    result = backtest(forecast, prices)
    lines = repr(result).splitlines()
    assert lines[0].startswith("Backtest of stockformer (long_flat): 3 symbols, 2022-07-05 to") and len(lines) == 3
    assert lines[1].split()[0] == "strategy" and lines[2].split()[0] == "buy_and_hold" and "Sharpe" in lines[2]
    totals = result.totals()
    assert totals.loc["strategy", "return"] == pytest.approx(result.symbols["return"].mean())
