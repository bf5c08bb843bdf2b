"""Tomorrow's orders, against a slow oracle with the exchange's rules written out anew."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SHARED_DATA
from vnq_colab.data.market import next_sessions
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.delivery.bundle import Bundle
from vnq_colab.delivery.orders import COLUMNS, board, check_orders, make_orders
from vnq_colab.delivery.portfolio import Portfolio, paper_portfolio, read_portfolio
from vnq_colab.delivery.predict import Outlook
from vnq_colab.errors import ConfigError, DataError
from vnq_colab.evaluation.basket import Basket

MONDAY = pd.Timestamp("2025-12-29")


def outlook_of(prices, seed=0, market="accept", scores=None, decisions=None, basket=None, edge=0.02):
    """An Outlook of random scores, or of `scores {symbol: score}` on both evenings; every stock is accepted."""
    random = np.random.default_rng(seed)
    last = prices["date"].max()
    days = np.sort(prices["date"].unique())[-2:]
    rows = prices.loc[prices["date"].isin(days), ["symbol", "date"]].sort_values(["symbol", "date"])
    score = random.normal(size=len(rows)) if scores is None else rows["symbol"].map(scores).to_numpy("float64")
    rows = rows.assign(family="x", score=score, edge=edge * score)[np.isfinite(score)]
    decisions = decisions or dict.fromkeys(sorted(prices["symbol"].unique()), "accept")
    bundle = Bundle(Path(), {"verdict": {"market": {"decision": market}} if market else None,
                             "basket": basket and Basket(**basket),
                             "symbols": {name: {"decision": said} for name, said in decisions.items()}}, {})
    assert (rows["date"] == last).any()
    return Outlook(bundle, rows[rows["symbol"].isin(decisions)], prices, [], [])


def market_of(closes, days=25, volume=1_000_000, exchange="HOSE", last="2025-12-29", **columns):
    """Prices of stocks that stand still at `closes {symbol: VND}`."""
    dates = pd.bdate_range(end=last, periods=days).astype("datetime64[ns]")
    parts = [pd.DataFrame({"symbol": symbol, "date": dates, "open": close, "high": close, "low": close, "close": close,
                           "volume": volume, "exchange": exchange} | columns) for symbol, close in closes.items()]
    return pd.concat(parts, ignore_index=True).astype({"close": "float64"})


def portfolio_of(cash, shares=None, arrives=None):
    shares = shares or {}
    return Portfolio(cash, shares, dict.fromkeys(shares) | (arrives or {}), "a test")


# ---------------------------------------------------------------------------------------------------------- the oracle
def ticks(price, exchange):
    if exchange != "HOSE":
        return 100
    return 10 if price < 10_000 else 50 if price < 50_000 else 100


def broken_rules(table, prices, portfolio, accepted, k, traded_share):
    """Sentences: which rule an order breaks. Lots of 100, bands of 7, 10 and 15 %, as since 2021."""
    found = []
    days = sorted(prices["date"].unique())
    tomorrow = next_sessions(days[-1], 1)[0]
    spent, cash = 0.0, portfolio.cash
    for row in table.to_dict("records"):
        own = prices[prices["symbol"] == row["symbol"]].sort_values("date").to_dict("records")
        last, exchange = own[-1], own[-1]["exchange"]
        shown = last["raw_close"] if "raw_close" in last else last["close"]
        band = {"HOSE": 0.07, "HNX": 0.10, "UPCOM": 0.15}[exchange]
        by_day = {day["date"]: day.get("raw_close", day["close"]) * day["volume"] for day in own}
        values = sorted(by_day.get(day, 0.0) for day in days[-20:])
        half = len(values) // 2
        median = values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
        reference, low, high = row["reference_price"], row["limit_low"], row["limit_high"]
        if abs(reference - shown) > ticks(shown, exchange) / 2 + 1e-6:
            found.append(f"{row}: reference {shown}")
        for price in (reference, low, high):
            if price <= 0 or price % ticks(price, exchange):
                found.append(f"{row}: {price} off the tick")
        room = max(band * reference, ticks(reference, exchange))
        if not reference - room - 1e-6 <= low <= reference <= high <= reference + room + 1e-6:
            found.append(f"{row}: outside the band")
        if row["action"] not in ("buy", "sell"):
            continue
        if row["shares"] <= 0 or row["shares"] % 100:
            found.append(f"{row}: no whole lots")
        if row["shares"] * reference > traded_share * median * (1 + 1e-9):
            found.append(f"{row}: more than the traded share of {median}")
        if row["action"] == "buy":
            spent += row["shares"] * high * 1.0015
            if row["symbol"] not in accepted or portfolio.shares.get(row["symbol"], 0) >= 100:
                found.append(f"{row}: must not be bought")
        else:
            day = portfolio.sellable_from.get(row["symbol"])
            if row["shares"] > portfolio.shares[row["symbol"]] or (day is not None and day > tomorrow):
                found.append(f"{row}: not there to be sold")
            if day is None or day < tomorrow:
                cash += row["shares"] * low * (1 - 0.0025)
    if spent > cash + 2:
        found.append(f"purchases for {spent:,.0f}, cash {cash:,.0f}")
    left = sum(shares >= 100 for shares in portfolio.shares.values()) - (table["action"] == "sell").sum()
    if (table["action"] == "buy").sum() > max(k - left, 0):
        found.append("more stocks than the basket has places")
    return found


def random_portfolio(random, prices):
    """Cash and up to 12 stocks, some in odd lots, some on their way."""
    last = prices["date"].max()
    symbols = random.permutation(prices["symbol"].unique())[:random.integers(0, 13)]
    ahead = [None, last - pd.Timedelta(days=1), last, *next_sessions(last, 3)]
    return Portfolio(float(random.choice([0, 3e6, 2e8, 5e9])) + 5e6,
                     {symbol: int(random.choice([0, 40, 100, 1250, 60_000])) for symbol in symbols},
                     {symbol: ahead[random.integers(len(ahead))] for symbol in symbols}, "made")


def obeys(prices, random, n, **more):
    """`n` random portfolios and forecasts on a market; how many orders of each kind there were."""
    names = sorted(prices["symbol"].unique())
    counts = {}
    for number in range(n):
        portfolio = random_portfolio(random, prices)
        decisions = {name: random.choice(["accept", "accept", "reject"]) for name in names}
        basket = {"k": int(random.integers(1, 11)), "keep": int(random.integers(11, 30)),
                  "hold_days": int(random.integers(0, 5)), "traded_share": float(random.choice([0.001, 0.05, 1]))}
        outlook = outlook_of(prices, seed=number, decisions=decisions, basket=basket)
        try:
            table = make_orders(outlook, portfolio)
        except ConfigError as error:
            assert "less than one lot" in str(error)
            continue
        accepted = {name for name, decision in decisions.items() if decision == "accept"}
        assert broken_rules(table, prices, portfolio, accepted, basket["k"], basket["traded_share"]) == []
        assert {name for name, held in portfolio.shares.items() if held} <= set(table["symbol"])
        for action in table["action"]:
            counts[action] = counts.get(action, 0) + 1
    return counts


@pytest.mark.parametrize("n_markets", [3, pytest.param(40, marks=pytest.mark.slow)])  # 40 × 25 portfolios: 1,000
def test_orders_on_made_markets_obey_every_rule(n_markets):
    random, counts = np.random.default_rng(5), {}
    for market in range(n_markets):
        prices = synthetic_prices(30, 40, seed=market)
        for action, n in obeys(prices, random, 25).items():
            counts[action] = counts.get(action, 0) + n
    assert min(counts[action] for action in ("buy", "sell", "wait", "keep")) > 7 * n_markets


@pytest.mark.slow
@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the shared price data is not here")
@pytest.mark.parametrize("last", ["2025-06-30", "2022-11-15"])  # quiet; and the panic whose stocks closed at the floor
def test_orders_on_real_prices_obey_every_rule(last):
    prices = pd.read_parquet(SHARED_DATA / "vn_daily.parquet").astype({"date": "datetime64[ns]"})
    prices = prices[prices["date"].between(pd.Timestamp(last) - pd.Timedelta(days=60), last)].reset_index(drop=True)
    prices = prices[prices["symbol"].isin(prices["symbol"].unique()[::2])]
    if last < "2025":  # adjusted prices of then are off the tick: as a source with raw prices would show them
        step = np.select([prices["exchange"] != "HOSE", prices["close"] < 10_000, prices["close"] < 50_000],
                         [100, 10, 50], 100)
        prices["raw_close"] = np.maximum(np.round(prices["close"] / step), 1) * step
    counts = obeys(prices, np.random.default_rng(7), 40)
    assert min(counts[action] for action in ("buy", "sell", "wait", "keep")) > 5


# --------------------------------------------------------------------------------------------------- one rule at a time
LETTERS = {f"AA{letter}": 20_000.0 for letter in "ABCDEFGHIJ"}
FALLING = {symbol: 10.0 - place for place, symbol in enumerate(LETTERS)}
TWO = {"k": 2, "keep": 4, "hold_days": 3, "traded_share": 0.05}


def test_first_orders_buy_the_best_with_equal_weights_covered_at_the_ceiling():
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO), paper_portfolio(50e6))
    assert tuple(table.columns) == COLUMNS and (table["date"] == MONDAY).all()
    assert table["symbol"].tolist() == ["AAA", "AAB"] and (table["action"] == "buy").all()
    assert table["shares"].tolist() == [1100, 1200]  # 25 m / (21,400 × 1.0015) = 1,166; then 26.4 m are left
    assert table.iloc[0][["reference_price", "limit_low", "limit_high"]].tolist() == [20_000, 18_600, 21_400]
    assert table["reason"].tolist() == ["rank 1 of 10, was 1", "rank 2 of 10, was 2"]
    assert table.attrs["nav"] == 50e6 and table.attrs["day"] == "2025-12-30"


def test_stock_below_the_rank_of_keeping_is_exchanged_for_the_best():
    portfolio = portfolio_of(1e6, {"AAC": 1000, "AAJ": 1050})
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO), portfolio)
    assert table[["action", "symbol", "shares"]].values.tolist() == [
        ["sell", "AAJ", 1000], ["buy", "AAA", 900], ["keep", "AAC", 1000]]
    assert table["reason"].iloc[0] == "rank 10 of 10, was 10; 50 stay: no lot"


def test_exchange_that_does_not_pay_for_its_costs_is_left():
    outlook = outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO, edge=0.0001)
    table = make_orders(outlook, portfolio_of(1e6, {"AAC": 1000, "AAJ": 1000}))
    assert table["action"].tolist() == ["keep", "keep"] and "does not pay for its costs" in table["reason"].iloc[1]


def test_shares_on_their_way_wait_with_their_day_and_keep_their_place():
    scores = FALLING | {"AAI": 1.5}
    days = next_sessions(MONDAY, 3)
    basket = TWO | {"hold_days": 0}
    table = make_orders(outlook_of(market_of(LETTERS), scores=scores, basket=basket),
                        portfolio_of(60e6, {"AAI": 1000, "AAJ": 1000}, {"AAI": days[0], "AAJ": days[1]}))
    by_symbol = table.set_index("symbol")
    assert by_symbol.loc["AAI", "action"] == "sell" and "from Tue afternoon" in by_symbol.loc["AAI", "reason"]
    assert by_symbol.loc["AAJ", "action"] == "wait" and by_symbol.loc["AAJ", "reason"].endswith("; T+2, Wed afternoon")
    assert by_symbol.loc["AAA", "action"] == "buy" and "no place" in by_symbol.loc["AAB", "reason"]


def test_best_stock_whose_lot_is_dearer_than_a_place_waits_and_says_so():
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO), paper_portfolio(3e6))
    first = table[table["rank"] == 1].iloc[0]
    assert first["action"] == "wait" and "a lot is 2.0 m, a place 1.5 m" in first["reason"]


def test_young_purchase_is_kept_whatever_its_rank():
    arrives = {"AAJ": next_sessions(MONDAY, 1)[0]}  # bought on the 26th: the second of three days
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO),
                        portfolio_of(1e6, {"AAC": 1000, "AAJ": 1000}, arrives))
    assert table["action"].tolist() == ["keep", "keep"] and "held for less than 3 days" in table["reason"].iloc[1]
    sold = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO),
                       portfolio_of(1e6, {"AAC": 1000, "AAJ": 1000}, {"AAJ": MONDAY}))
    assert sold["action"].tolist() == ["sell", "buy", "keep"]
    mixed = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO),
                        portfolio_of(1e6, {"AAC": 1000, "AAJ": 1000}, {"AAC": MONDAY}))  # AAJ has no date: it is there
    assert mixed["action"].tolist() == ["sell", "buy", "keep"]


def test_only_accepted_stocks_are_bought_and_the_others_still_count_in_the_rank():
    decisions = dict.fromkeys(LETTERS, "reject") | {"AAB": "accept", "AAI": "accept"}
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO, decisions=decisions),
                        portfolio_of(30e6, {"AAD": 1000}))
    assert table[["action", "symbol", "rank"]].values.tolist() == [["buy", "AAB", 2], ["keep", "AAD", 4]]
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO, decisions=decisions),
                        portfolio_of(30e6, {"AAC": 1000, "AAE": 1000}))
    assert table[["action", "symbol"]].values.tolist() == [["sell", "AAE"], ["buy", "AAB"], ["keep", "AAC"]]


def test_accepted_market_without_an_accepted_or_held_stock_gives_no_order():
    outlook = outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO, decisions=dict.fromkeys(LETTERS, "reject"))
    assert make_orders(outlook, paper_portfolio()).empty


def test_order_says_which_better_ranks_it_passes_over():
    decisions = dict.fromkeys(LETTERS, "accept") | {"AAA": "review", "AAC": "reject"}
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO, decisions=decisions),
                        portfolio_of(60e6, {"AAB": 1000}))
    assert table["symbol"].tolist() == ["AAD", "AAB"]
    assert table["reason"].iloc[0] == "rank 4 of 10, was 4; better ranks: 1 held, 2 not accepted"


@pytest.mark.parametrize("market", [None, "review", "reject", "unjudged"])
def test_market_that_is_not_accepted_gives_a_ranking_alone(market):
    outlook = outlook_of(market_of(LETTERS), scores=FALLING, market=market)
    table = make_orders(outlook, portfolio_of(30e6, {"AAC": 1000}))
    assert (table["action"] == "wait").all() and table["rank"].tolist() == list(range(1, 11))
    assert table["reason"].str.fullmatch(rf"rank .*; market not accepted: {market or 'unjudged'}").all()
    assert table.set_index("symbol")["shares"].to_dict() == dict.fromkeys(LETTERS, 0) | {"AAC": 1000}


def test_order_is_at_most_a_share_of_the_median_traded_value():
    prices = market_of(LETTERS, volume=10_000)
    table = make_orders(outlook_of(prices, scores=FALLING, basket=TWO), portfolio_of(1e9, {"AAC": 1000, "AAJ": 1000}))
    assert table[["action", "shares"]].values.tolist() == [["sell", 500], ["wait", 0], ["keep", 1000]]
    assert table["reason"].iloc[0].endswith("500 stay: at most 5% of a day's traded value")
    table = make_orders(outlook_of(market_of(LETTERS, volume=1000), scores=FALLING, basket=TWO), paper_portfolio())
    assert (table["action"] == "wait").all() and table["reason"].str.contains("; at most 5%").all()
    assert table.attrs["notes"][1].startswith("2 purchases are cut to at most 5% of a day's traded value: 0.965")


@pytest.mark.parametrize("move, word", [(1.07, "closed at the ceiling: may not fill"), (1.05, ""),
                                        (0.93, "closed at the floor: may not fill"), (0.95, "")])
def test_close_at_the_end_of_the_band_is_said(move, word):
    prices = market_of(LETTERS)
    last = (prices["date"] == MONDAY) & prices["symbol"].isin(["AAA", "AAJ"])
    prices.loc[last, "close"] *= move
    table = make_orders(outlook_of(prices, scores=FALLING, basket=TWO), portfolio_of(50e6, {"AAC": 1000, "AAJ": 1000}))
    sell, buy = table.iloc[0], table.iloc[1]
    assert (sell["symbol"], buy["symbol"]) == ("AAJ", "AAA")
    assert (word in buy["reason"]) if "ceiling" in word else "ceiling" not in buy["reason"]
    assert (word in sell["reason"]) if "floor" in word else "floor" not in sell["reason"]


def test_reference_is_the_raw_close_where_it_is_known():
    prices = market_of(LETTERS, raw_close=30_000.0)
    found = board(prices, ["AAA"]).loc["AAA"]
    assert found[["reference_price", "limit_low", "limit_high"]].tolist() == [30_000, 27_900, 32_100]
    assert found["value"] == 30_000 * 1_000_000
    prices.loc[prices["date"] == MONDAY, "raw_close"] = np.nan  # the last adjusted price is the raw one
    prices.loc[prices["date"] == MONDAY, "close"] = 20_020.0
    found = board(prices, ["AAA"]).loc["AAA"]
    assert found[["reference_price", "limit_low", "limit_high"]].tolist() == [20_000, 18_600, 21_400]
    for exchange, ends in (("HNX", (18_000, 22_000)), ("UPCOM", (17_000, 23_000))):
        found = board(market_of({"AAA": 20_000.0}, exchange=exchange), ["AAA"]).loc["AAA"]
        assert (found["limit_low"], found["limit_high"]) == ends


def test_shares_of_less_than_a_lot_take_no_place():
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO),
                        portfolio_of(50e6, {"AAA": 60, "AAJ": 70}))
    assert table[["action", "symbol"]].values.tolist() == [["buy", "AAA"], ["buy", "AAB"], ["keep", "AAJ"]]
    assert table["shares"].iloc[2] == 70 and table["reason"].iloc[2].endswith("sell them by hand")


def test_held_stock_without_a_forecast_stays():
    prices = market_of(LETTERS | {"ZZZ": 10_000.0})
    decisions = dict.fromkeys(LETTERS, "accept")
    table = make_orders(outlook_of(prices, scores=FALLING, basket=TWO, decisions=decisions),
                        portfolio_of(30e6, {"ZZZ": 1000}))
    row = table.set_index("symbol").loc["ZZZ"]
    assert row["action"] == "keep" and "no forecast: decide yourself;" in row["reason"] and pd.isna(row["rank"])


def test_account_larger_than_the_judged_one_and_orders_that_are_cut_are_said():
    outlook = outlook_of(market_of(LETTERS, volume=1_000_000), scores=FALLING, basket=TWO)
    small, large = (make_orders(outlook, paper_portfolio(capital)) for capital in (2e9, 100e9))
    assert len(small.attrs["notes"]) == 2 and small["reason"].iloc[0] == "rank 1 of 10, was 1"
    assert large["shares"].tolist() == [50_000, 50_000]
    assert large["reason"].iloc[0] == ("rank 1 of 10, was 1; of 2,332,900 shares: at most 5% of a day's traded value")
    assert large.attrs["notes"][1:3] == [
        "the basket was judged with 1 bn VND, this is 100 bn: a larger one earns less, see Costs and capacity in the "
        "report",
        "2 purchases are cut to at most 5% of a day's traded value: 94.7 bn VND less are bought"]
    outlook.bundle.manifest["verdict"]["summary"] = {"basket": {"capital": 80e9}}
    assert not any("was judged with" in note for note in make_orders(outlook, paper_portfolio(100e9)).attrs["notes"])


def test_every_stock_that_is_kept_says_why():
    decisions = dict.fromkeys(LETTERS, "reject") | {"AAB": "accept"}
    portfolio = portfolio_of(0.0, dict.fromkeys(["AAB", "AAC", "AAI", "AAJ"], 1000), {
        "AAI": next_sessions(MONDAY, 1)[0]})  # the others have arrived long ago
    table = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO | {"k": 4}, decisions=decisions),
                        portfolio)
    no, once = "; not accepted: not bought again once it is sold", "among the 4 best of what is held or accepted"
    assert table["reason"].tolist() == [
        "rank 2 of 10, was 2; kept down to rank 4", "rank 3 of 10, was 3; kept down to rank 4" + no,
        "rank 9 of 10, was 9; held for less than 3 days" + no, f"rank 10 of 10, was 10; {once}" + no]
    alone = make_orders(outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO, decisions=decisions | {
        "AAB": "reject"}), portfolio_of(50e6, {"AAC": 1000, "AAJ": 1000, "AAB": 100}))
    assert alone["action"].tolist() == ["sell", "keep", "keep"], "one too many"


def test_capital_is_the_most_that_the_basket_is_worth():
    outlook = outlook_of(market_of(LETTERS), scores=FALLING, basket=TWO)
    table = make_orders(outlook, portfolio_of(1e9), 50e6)
    assert table["shares"].tolist() == [1200, 1200]  # 25 m / (20,000 × 1.0015) = 1,248
    with pytest.raises(ConfigError, match=r"1,000,000 VND are less than one lot of any stock: the cheapest, AAA"):
        make_orders(outlook, paper_portfolio(1e6))


@pytest.mark.parametrize("column, value, sentence", [
    ("shares", 150, "AAA: not whole lots"), ("shares", 10_000_000, "AAA: more than the traded share"),
    ("shares", 4000, "purchases may cost"), ("limit_high", 22_000, "AAA: outside the band"),
    ("reference_price", 20_020, "AAA: off the tick"), ("symbol", "AAJ", "AAJ: bought although held"),
    ("action", "sell", "AAA: more than is held"), ("action", "swap", "AAA: unknown action")])
def test_last_check_finds_each_broken_rule(column, value, sentence):
    prices, portfolio = market_of(LETTERS), portfolio_of(50e6, {"AAJ": 1000})
    stocks = board(prices, list(LETTERS)).assign(accepted=True, arrives=-math.inf)
    table = make_orders(outlook_of(prices, scores=FALLING, basket=TWO), portfolio_of(50e6))
    check_orders(table, stocks, portfolio, Basket(**TWO))
    table.loc[0, column] = value
    with pytest.raises(RuntimeError, match=sentence):
        check_orders(table, stocks, portfolio, Basket(**TWO))


def test_last_check_finds_shares_on_their_way_and_stocks_that_are_not_accepted():
    prices, portfolio = market_of(LETTERS), portfolio_of(50e6, {"AAC": 1000, "AAJ": 1000})
    table = make_orders(outlook_of(prices, scores=FALLING, basket=TWO), portfolio)
    stocks = board(prices, list(LETTERS)).assign(accepted=False, arrives=2.0)
    with pytest.raises(RuntimeError, match="AAJ: not settled; AAA: not accepted; purchases may cost"):
        check_orders(table, stocks, replace(portfolio, cash=0.0), Basket(**TWO))


# -------------------------------------------------------------------------------------------------------- portfolio.csv
def test_portfolio_is_read_as_a_person_writes_it(tmp_path):
    path = tmp_path / "portfolio.csv"
    path.write_text("\ufeffSymbol;Shares;Sellable_from\nAAA;100;\n aab ;2000;2025-12-31\nCASH;5e8;\n", encoding="utf-8")
    found = read_portfolio(path, market_of(LETTERS))
    assert (found.cash, found.shares) == (5e8, {"AAA": 100, "AAB": 2000})
    assert found.sellable_from == {"AAA": None, "AAB": pd.Timestamp("2025-12-31")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1258"])
def test_portfolio_is_read_as_excel_saves_it(tmp_path, encoding):
    path = tmp_path / "portfolio.csv"
    text = "Symbol;Shares;Sellable_from;ghi chú\r\nAAB;2000;31/12/2025;\r\n;;;\r\nCASH;500000000;;\r\n"
    path.write_bytes(text.encode(encoding, errors="ignore"))
    found = read_portfolio(path, market_of(LETTERS))
    assert (found.cash, found.shares) == (5e8, {"AAB": 2000})
    assert found.sellable_from == {"AAB": pd.Timestamp("2025-12-31")}


@pytest.mark.parametrize("text, sentence", [
    ("{h}AAA,1.000,\nCASH,1\n", "row 2 (AAA,1.000,), shares: not a number; write 2100, not 2.100"),
    ("{h}CASH,500.000\n", "not a number; write 2100, not 2.100"), ("{h}CASH,1e18\n", "more than the whole market"),
    ("", "is empty, or no text"), ("PK\x03\x04\0", "a workbook of Excel: save it as CSV"), ("{h}", "no row CASH"),
    ("{h}CASH,500,000,000,\n", "row 2 (CASH,500,000,000,): 5 cells under 3 columns; write numbers without"),
    ('{h}CASH,"500,000,000",\n', "row 2 (CASH,500,000,000,), shares: not a number; write 2100, not 2.100"),
    ('{h}AAA,100,\n\nCASH,"5,\n', "a quotation mark is not closed"),
    ("{h}AAA,100,\n\nCASH,x,\n", "row 4 (CASH,x,)"),
    ("symbol,shares,shares,sellable_from\nCASH,1,2,\n", "column shares stands there twice"),
    ("{h}AAA," + "9" * 300 + ",\nCASH,1,\n", "999,), shares: more than the whole market"),
    ("{h}\x1b[31mX,1,\nCASH,1\n", "(\\x1b[31mX,1,), symbol: is not in these prices"),
    ("symbol,shares\nCASH,1\n", "column sellable_from is missing; found symbol, shares"),
    ("{h}AAA,100,\n", "there is no row CASH"), ("{h}AAA,100", "there is no row CASH"),
    ("{h}AAA,1,\nAAA,2,\nCASH,1,\n", "row 3 (AAA,2,), symbol: stands there twice"),
    ("{h}CASH,1,\nCASH,2,\n", "row 3 (CASH,2,), symbol: stands there twice"),
    ("{h}AAZA,100,\nCASH,1,\n", "symbol: is not in these prices; bring them, or take the row out. Did you mean"),
    ("{h}AAA,10.5,\nCASH,1,\n", "row 2 (AAA,10.5,), shares: a fraction of a share"),
    ("{h}AAA,-100,\nCASH,1,\n", "negative"), ("{h}CASH,-1,\n", "negative"),
    ("{h}AAA,many,\nCASH,1,\n", "not a number"), ("{h}CASH,,\n", "not a number"),
    ("{h}AAA,100,-2026-01-05\nCASH,1,\n", "sellable_from: not a date"),
    ("{h}AAA,nan,\nCASH,1,\n", "not a number"), ("{h}AAA,100,soon\nCASH,1,\n", "sellable_from: not a date"),
    ("{h}AAA,100,2026-01-06\nCASH,1,\n", "sellable_from: later than 2026-01-02, 3 sessions after the last prices")])
def test_portfolio_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, text, sentence):
    path = tmp_path / "portfolio.csv"
    path.write_text(text.format(h="symbol,shares,sellable_from\n"))
    with pytest.raises(DataError) as error:
        read_portfolio(path, market_of(LETTERS))
    assert sentence in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_portfolio_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match="--portfolio new --capital 500e6"):
        read_portfolio(tmp_path / "none.csv", market_of(LETTERS))
