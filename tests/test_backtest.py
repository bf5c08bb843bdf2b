"""Trading told as short stories with the ledger written out, and properties of random markets."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vnq_colab.data.forecast import HORIZON, make_forecast
from vnq_colab.data.market import VN_RULES, MarketRules
from vnq_colab.errors import ConfigError, DataError
from vnq_colab.evaluation.backtest import Backtest, backtest
from vnq_colab.evaluation.metrics import max_drawdown, sharpe

FREE = MarketRules(fee=0, sale_tax=0, slippage=0)
CAPITAL = 10_000_000.0


def prices_of(opens, closes=None, volume=None, start="2024-01-01", symbol="AAA", exchange="HOSE"):
    """A price table of one symbol; closes default to the opens."""
    closes = opens if closes is None else closes
    return pd.DataFrame({
        "symbol": symbol, "date": pd.bdate_range(start, periods=len(opens)), "open": np.asarray(opens, "float64"),
        "high": np.maximum(opens, closes).astype("float64"), "low": np.minimum(opens, closes).astype("float64"),
        "close": np.asarray(closes, "float64"), "volume": 1_000_000 if volume is None else volume, "exchange": exchange,
    })


def wishes(prices, signs, family="stockformer"):
    """A Forecast from the first days of `prices`, one sign of `mean` a day."""
    parts = []
    for symbol, rows in prices.groupby("symbol"):
        daily = np.repeat(np.asarray(signs, "float64")[:, None] * 0.001, HORIZON, axis=1)
        flat = np.full(len(signs), 0.5)
        days = pd.DatetimeIndex(rows["date"][: len(signs)])
        parts.append(make_forecast(family, symbol, days, daily, flat + 0.1, flat))
    return pd.concat(parts, ignore_index=True)


def fills(result):
    return [(f"{row.date:%m-%d}", row.side, row.shares) for row in result.orders.itertuples()]


# --- stories (January 2024: 01-01 is a Monday; shares are sellable at the open of T+3)


def test_story_of_one_round_trip_equals_the_ledger():
    prices = prices_of([10_000, 10_000, 10_100, 10_200, 10_500, 10_600],
                       [10_000, 10_100, 10_200, 10_300, 10_600, 10_600])
    result = backtest(wishes(prices, [1, -1]), prices, capital=CAPITAL)
    # Monday evening: up. Tuesday's open 10,000 + 0.2 % = 10,020; with the fee 10,035.03 a share: 9 lots.
    bought, fee = 900 * 10_020, 0.0015 * 900 * 10_020  # 9,018,000 and 13,527
    # Tuesday evening: down. Settled at Friday's open 10,500 - 0.2 % = 10,479; fee and tax are 0.25 %.
    sold, cost = 900 * 10_479, 0.0025 * 900 * 10_479  # 9,431,100 and 23,577.75
    cash = CAPITAL - bought - fee
    assert fills(result) == [("01-02", "buy", 900), ("01-05", "sell", 900)]
    assert list(result.orders["price"]) == pytest.approx([10_020, 10_479])
    assert list(result.orders["cost"]) == pytest.approx([13_527, 23_577.75])
    assert list(result.equity["strategy"]) == pytest.approx(
        [CAPITAL, cash + 900 * 10_100, cash + 900 * 10_200, cash + 900 * 10_300, *[cash + sold - cost] * 2])
    assert result.equity["strategy"].iloc[-1] == pytest.approx(10_375_995.25)
    row = result.symbols.iloc[0]
    assert row["return"] == pytest.approx(0.037599525) and row["n_trades"] == 1 and row["exposure"] == 3 / 5
    assert row["buy_and_hold_return"] == pytest.approx((cash + 900 * 10_600) / CAPITAL - 1)


def test_story_of_the_ceiling_buys_a_day_later():
    opens, closes = [10_000, 10_700, 10_800, 10_800], [10_000, 10_700, 10_800, 10_800]
    hose = prices_of(opens, closes)
    assert fills(backtest(wishes(hose, [1]), hose, FREE, capital=CAPITAL)) == [("01-03", "buy", 900)]
    hnx = hose.assign(exchange="HNX")  # ±10 %: 10,700 is not its ceiling
    assert fills(backtest(wishes(hnx, [1]), hnx, FREE, capital=CAPITAL)) == [("01-02", "buy", 900)]
    below = prices_of([10_000, 10_650, 10_800], closes[:3])  # one tick of 50 VND below the ceiling
    assert fills(backtest(wishes(below, [1]), below, FREE, capital=CAPITAL)) == [("01-02", "buy", 900)]
    moved = hose.assign(exchange=["UPCOM", "HOSE", "HOSE", "HOSE"])  # what counts is where it trades on the day
    assert fills(backtest(wishes(moved, [1]), moved, FREE, capital=CAPITAL)) == [("01-03", "buy", 900)]


def test_story_of_the_ceiling_rounds_it_down_to_a_tick():
    prices = prices_of([10_030, 10_700, 10_700], [10_030, 10_700, 10_700])  # 10,030 + 7 % = 10,732.1: ceiling 10,700
    assert fills(backtest(wishes(prices, [1]), prices, FREE, capital=CAPITAL)) == [("01-03", "buy", 900)]


def test_story_of_the_floor_and_of_a_day_without_trades_holds_on():
    opens = [10_000, 10_000, 10_000, 10_000, 9_300, 9_000, 8_900]
    prices = prices_of(opens, volume=[1000, 1000, 1000, 1000, 1000, 0, 1000])
    result = backtest(wishes(prices, [1, -1]), prices, FREE, capital=CAPITAL)  # 01-05 floor, 01-08 no volume
    assert fills(result) == [("01-02", "buy", 1000), ("01-09", "sell", 1000)]
    assert result.equity["strategy"].iloc[-1] == 8_900_000


@pytest.mark.parametrize(("start", "sold"), [("2014-01-06", "01-13"), ("2018-01-08", "01-12"), ("2024-01-08", "01-12")])
def test_story_of_settlement_sells_when_the_rules_of_the_time_allow(start, sold):
    prices = prices_of([10_000] * 7, start=start)
    assert fills(backtest(wishes(prices, [1, -1]), prices, FREE, capital=CAPITAL))[1][:2] == (sold, "sell")


def test_story_of_an_absent_symbol_waits_and_keeps_its_value():
    other = prices_of([20_000] * 6, symbol="BBB")
    prices = pd.concat([prices_of([10_000, 10_000, 10_000, 10_500, 10_500, 10_500]).drop(index=[1, 4]), other])
    result = backtest(wishes(prices, [1]), prices, FREE, capital=CAPITAL)  # AAA is not there on 01-02 and 01-05
    assert fills(result) == [("01-03", "buy", 1000), ("01-02", "buy", 500)]
    assert list(result.equity["strategy"] * 2 - CAPITAL) == [CAPITAL] * 3 + [10_500_000] * 3


def test_story_of_too_little_money_buys_nothing():
    prices = prices_of([200_000, 201_000, 202_000])
    result = backtest(wishes(prices, [1]), prices, capital=CAPITAL)  # a lot costs 20 million
    assert result.orders.empty and list(result.equity["strategy"]) == [CAPITAL] * 3
    row = result.symbols.iloc[0]
    assert row["n_trades"] == 0 and row["exposure"] == 0 and np.isnan(row["sharpe"]) and "0 orders" in repr(result)


def test_position_is_kept_after_the_last_origin_for_the_horizon():
    prices = prices_of([10_000] * 20)
    result = backtest(wishes(prices, [1, 1, 1]), prices, FREE)
    assert len(result.equity) == 3 + HORIZON and fills(result) == [("01-02", "buy", 10_000)]


def test_mean_of_zero_is_no_wish():
    prices = prices_of([10_000] * 5)
    assert backtest(wishes(prices, [0, 0]), prices).orders.empty


# --- properties


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
    forecast = pd.concat([make_forecast("stockformer", f"S{place}", days, random.normal(0, 0.01, (38, HORIZON)),
                                        np.full(38, 0.05), np.full(38, 0.5)) for place in range(n_symbols)])
    return forecast, prices


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), capital=st.sampled_from([3e6, 1e8]))
def test_orders_and_equity_reconcile(seed, capital):
    forecast, prices = random_market(seed)
    result = backtest(forecast, prices, capital=capital)
    quotes, days = prices.set_index(["symbol", "date"]), result.equity.index
    wait = VN_RULES.sellable_after(days)
    worth = []
    for symbol in result.symbols["symbol"]:
        orders = result.orders[result.orders["symbol"] == symbol].set_index("date")
        wish = forecast[forecast["symbol"] == symbol].set_index("date")["mean"] > 0
        cash, shares, settled, close = capital, 0, 0, np.nan
        values = []
        for place, day in enumerate(days):
            if day in orders.index:
                order, quote, yesterday = orders.loc[day], quotes.loc[(symbol, day)], wish[: days[place - 1]].iloc[-1]
                side = 1 if order["side"] == "buy" else -1
                assert yesterday == (side == 1) and quote["volume"] > 0 and order["shares"] % 100 == 0
                assert order["price"] == pytest.approx(quote["open"] * (1 + side * 0.002))
                amount = order["shares"] * order["price"]
                assert order["cost"] == pytest.approx(amount * (0.0015 if side == 1 else 0.0025))
                assert side == 1 or (place >= settled and order["shares"] == shares)
                band = {"S0": 0.07, "S1": 0.10, "S2": 0.15}[symbol]
                assert np.isnan(close) or side * (quote["open"] / close - 1) < band
                cash -= side * amount + order["cost"]
                shares += side * order["shares"]
                settled = place + wait[place]
                assert cash > -1e-6 and shares >= 0
            close = quotes["close"].get((symbol, day), close)
            values.append(cash + (shares * close if shares else 0))
        found = result.symbols.set_index("symbol").loc[symbol]
        assert found["return"] == pytest.approx(values[-1] / capital - 1)
        assert found["max_drawdown"] == pytest.approx(max_drawdown(values))
        assert found["sharpe"] == pytest.approx(sharpe(np.diff(values) / values[:-1]), nan_ok=True)
        worth.append(values)
    assert result.equity["strategy"].to_numpy() == pytest.approx(np.mean(worth, axis=0))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.integers(5, 30))
def test_the_future_changes_nothing_before_it(seed, cut):
    forecast, prices = random_market(seed)
    day = np.unique(forecast["date"])[cut]
    bent, bent_forecast = prices.copy(), forecast.copy()
    bent.loc[bent["date"] > day, ["open", "high", "low", "close"]] *= 3
    bent_forecast.loc[forecast["date"] > day, "mean"] *= -1
    before, after = backtest(forecast, prices), backtest(bent_forecast, bent)
    pd.testing.assert_frame_equal(before.equity[:day], after.equity[:day])
    known = [result.orders[result.orders["date"] <= day].reset_index(drop=True) for result in (before, after)]
    pd.testing.assert_frame_equal(*known)


def test_always_up_is_buy_and_hold():
    forecast, prices = random_market(1)
    daily = [f"mean_{day}" for day in range(1, 6)]
    result = backtest(forecast.assign(mean=0.01, **dict.fromkeys(daily, 0.002)), prices)
    assert list(result.equity["strategy"]) == list(result.equity["buy_and_hold"])
    assert list(result.symbols["sharpe"]) == list(result.symbols["buy_and_hold_sharpe"])


def test_one_symbol_alone_does_the_same_as_in_company():
    forecast, prices = random_market(2)
    alone, together = (backtest(part, prices).symbols for part in (forecast[forecast["symbol"] == "S1"], forecast))
    pd.testing.assert_frame_equal(alone, together[together["symbol"] == "S1"].reset_index(drop=True))


def test_row_order_and_day_resolution_change_nothing():
    forecast, prices = random_market(3)
    mixed = prices.sample(frac=1, random_state=0).assign(date=lambda table: table["date"].astype("datetime64[s]"))
    pd.testing.assert_frame_equal(backtest(forecast, prices).symbols, backtest(forecast, mixed).symbols)
    without = backtest(forecast, prices.drop(columns="exchange"))
    pd.testing.assert_frame_equal(without.symbols, backtest(forecast, prices.assign(exchange="NYSE")).symbols)


# --- doors


def test_family_is_the_only_one_or_stockformer_or_the_one_asked_for():
    prices = prices_of([10_000] * 5)
    both = pd.concat([wishes(prices, [1], "momentum"), wishes(prices, [-1])])
    assert backtest(both, prices).family == "stockformer"
    assert backtest(both, prices, family="momentum").family == "momentum"
    assert backtest(wishes(prices, [1], "ridge"), prices).family == "ridge"
    with pytest.raises(ConfigError, match=r"no family 'momentun'. Did you mean 'momentum'"):
        backtest(both, prices, family="momentun")


def test_bad_arguments_are_named():
    prices = prices_of([10_000] * 5)
    with pytest.raises(DataError, match="prices: no rows of AAA"):
        backtest(wishes(prices, [1]), prices.assign(symbol="BBB"))
    with pytest.raises(DataError, match="prices: no rows of 2024-01-02, which the forecast has"):
        backtest(wishes(prices, [1, 1, 1]), prices.drop(index=1))
    with pytest.raises(DataError, match="no day to trade on"):
        backtest(wishes(prices, [1]), prices.iloc[:1])
    with pytest.raises(ConfigError, match="capital = 0"):
        backtest(wishes(prices, [1]), prices, capital=0)


def test_repr_shows_the_strategy_beside_buy_and_hold():
    forecast, prices = random_market(4)
    result = backtest(forecast, prices)
    assert isinstance(result, Backtest)
    lines = repr(result).splitlines()
    assert lines[0].startswith("Backtest of stockformer: 3 symbols, 2022-07-05 to") and len(lines) == 3
    assert lines[1].split()[0] == "strategy" and lines[2].split()[0] == "buy_and_hold" and "Sharpe" in lines[2]
    totals = result.totals()
    assert totals.loc["strategy", "return"] == pytest.approx(result.symbols["return"].mean())
