"""What became of the orders, on a board whose fills are written out; portfolio.csv, brought forward once."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.test_orders import market_of, outlook_of
from vnq_colab.delivery import paper
from vnq_colab.delivery.orders import make_orders
from vnq_colab.delivery.paper import follow, is_booked, write_orders
from vnq_colab.delivery.portfolio import Portfolio, portfolio_text, read_portfolio
from vnq_colab.errors import CheckpointError
from vnq_colab.layout import Workspace

MONDAY, TUESDAY = pd.Timestamp("2025-12-29"), pd.Timestamp("2025-12-30")
CLOSES = {f"AA{letter}": 20_000.0 for letter in "ABCDEF"}
HELD = Portfolio(60e6, {"AAE": 1000, "AAF": 500}, {"AAE": None, "AAF": TUESDAY}, "a test")


def evening(folder, portfolio=HELD, **columns):
    """A workspace on Monday evening: AAA to AAC are to be bought, AAE and AAF sold, AAF when it has arrived."""
    ws, prices = Workspace(folder), market_of(CLOSES, days=60, **columns)
    folder.mkdir(exist_ok=True)
    ws.portfolio.write_text(portfolio_text(portfolio))
    scores = {symbol: 10.0 - place for place, symbol in enumerate(CLOSES)}
    outlook = outlook_of(prices, scores=scores, basket={"k": 3, "keep": 3, "hold_days": 0, "traded_share": 0.05})
    table, content = make_orders(outlook, portfolio), ws.portfolio.read_bytes()
    write_orders(ws.orders / "2025-12-29.csv", table, portfolio, content)
    return ws, prices


def booked(ws, prices):
    """The portfolio, brought forward."""
    follow(ws, prices, book=True)
    return read_portfolio(ws.portfolio, prices)


def next_day(prices, changes=None, **columns):
    """Tuesday's prices after Monday's: all stand still but `changes {symbol: {column: value}}`."""
    rows = prices[prices["date"] == MONDAY].assign(date=TUESDAY, **columns).set_index("symbol")
    for symbol, change in (changes or {}).items():
        rows.loc[symbol, list(change)] = list(change.values())
    return pd.concat([prices, rows.reset_index()], ignore_index=True)


def test_orders_are_filled_at_the_next_open_with_slippage_fee_and_tax_and_settle_two_sessions_later(tmp_path):
    ws, prices = evening(tmp_path, raw_close=20_000.0)
    fills = follow(ws, next_day(prices))
    rows = fills.table.set_index("symbol")
    assert (rows["filled"] == rows["shares"]).all()
    assert rows.loc[["AAE", "AAF"], "price"].tolist() == [19_950, 19_950]  # 19,960 down to a tick of 50
    assert rows.loc["AAA", "price"] == 20_050 and rows.loc["AAF", "why"] == "in the afternoon"
    assert rows.loc["AAE", "cost"] == round(1000 * 19_950 * 0.0015) + round(1000 * 19_950 * 0.001)
    sold, bought = rows[rows["action"] == "sell"], rows[rows["action"] == "buy"]
    cash = 60e6 + (sold["amount"] - sold["cost"]).sum() - (bought["amount"] + bought["cost"]).sum()
    after = booked(ws, next_day(prices))
    assert after.cash == cash and after.shares == bought["shares"].to_dict() and "5 of 5 filled" in repr(fills)
    assert set(after.sellable_from.values()) == {pd.Timestamp("2026-01-02")}  # T+2: the 31st, then after New Year's Day


@pytest.mark.parametrize("symbol, change, filled, why", [
    ("AAA", {"open": 21_400.0, "high": 21_400.0}, 0, "locked at the ceiling"),
    ("AAE", {"open": 18_600.0, "low": 18_600.0}, 0, "locked at the floor"),
    ("AAF", {"close": 18_600.0, "low": 18_600.0, "raw_close": 18_600.0}, 0, "locked at the floor"),
    ("AAA", {"volume": 0}, 0, "did not trade"),
    ("AAA", {"volume": 4_000}, 200, "at most 5% of the day's volume")])
def test_what_the_exchange_does_not_allow_is_not_filled(tmp_path, symbol, change, filled, why):
    ws, prices = evening(tmp_path, raw_close=20_000.0)
    row = follow(ws, next_day(prices, {symbol: change})).table.set_index("symbol").loc[symbol]
    assert (row["filled"], row["why"]) == (filled, why)


def test_a_purchase_whose_cash_a_failed_sale_should_bring_buys_what_there_is(tmp_path):
    ws, prices = evening(tmp_path, replace(HELD, cash=20e6), raw_close=20_000.0)
    prices = next_day(prices, {"AAE": {"open": 18_600.0, "low": 18_600.0}})
    rows = follow(ws, prices).table.query("action == 'buy'")
    assert rows["filled"].sum() < rows["shares"].sum()
    assert rows["why"].iloc[-1] == "not enough cash: a sale was not filled"
    assert booked(ws, prices).shares["AAE"] == 1000 and booked(ws, prices).cash >= 0


@pytest.mark.parametrize("has_raw", [True, False])
def test_a_right_that_was_cut_off_is_said_and_its_shares_are_not_made_up(tmp_path, has_raw):
    """AAA and AAE: two shares for one on Tuesday, so that the past is adjusted to half."""
    ws, prices = evening(tmp_path, **({"raw_close": 20_000.0} if has_raw else {}))
    halves = dict.fromkeys(("open", "high", "low", "close"), 10_000.0)
    split = next_day(prices, dict.fromkeys(("AAA", "AAE"), halves | ({"raw_close": 10_000.0} if has_raw else {})))
    past = split["symbol"].isin(["AAA", "AAE"]) & (split["date"] <= MONDAY)
    split.loc[past, list(halves)] = 10_000.0
    fills = follow(ws, split)
    rows = fills.table.set_index("symbol")
    why = "opened outside the limits of the order" if has_raw else "a right or a dividend was cut off: enter by hand"
    assert (rows.loc[["AAA", "AAE"], "filled"] == 0).all() and rows["why"].str.startswith(why).sum() == 2
    assert booked(ws, split).shares["AAE"] == 1000 and (rows.drop(["AAA", "AAE"])["filled"] > 0).all()
    assert [note[:3] for note in fills.notes] == ["AAE"] and "(a share of then is 2 of now)" in fills.notes[0]


def test_portfolio_is_brought_forward_once_wherever_it_is_killed(tmp_path, monkeypatch):
    ws, prices = evening(tmp_path, raw_close=20_000.0)
    prices, before = next_day(prices), ws.portfolio.read_bytes()

    def killed(*given):
        raise KeyboardInterrupt

    for name in ("write_sealed", "write_atomic"):  # before the record; between the record and the portfolio
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(paper, name, killed)
            follow(ws, prices, book=True)
        assert ws.portfolio.read_bytes() == before
    assert is_booked(ws.orders / "2025-12-29.json")
    assert "brought forward" in follow(ws, prices, book=True).notes[0]
    after = ws.portfolio.read_bytes()
    for content in (after, after[:30], b"", before):  # again; half written on Drive; as it was
        ws.portfolio.write_bytes(content)
        follow(ws, prices, book=True)
        assert ws.portfolio.read_bytes() == after


def test_portfolio_that_a_person_edited_is_left(tmp_path):
    ws, prices = evening(tmp_path, raw_close=20_000.0)
    prices, ordered_from = next_day(prices), ws.portfolio.read_text()
    for words in ("was changed since", "changed after the fills"):
        ws.portfolio.write_text(edited := ws.portfolio.read_text().replace("CASH,", "CASH,1"))
        assert words in follow(ws, prices, book=True).notes[0] and ws.portfolio.read_text() == edited
        ws.portfolio.write_text(ordered_from)
        follow(ws, prices, book=True)


def test_orders_without_a_record_are_not_followed_and_a_damaged_one_is_refused(tmp_path):
    ws, prices = evening(tmp_path)
    assert follow(ws, prices) is None, "their session is still to come"
    record = ws.orders / "2025-12-29.json"
    record.write_text(record.read_text().replace("60000000", "90000000"))
    with pytest.raises(CheckpointError, match=r"2025-12-29\.json: its content does not match"):
        follow(ws, next_day(prices))
    record.unlink()
    assert follow(ws, next_day(prices)) is None and not is_booked(record)


def test_orders_of_another_market_are_not_followed(tmp_path):
    ws, prices = evening(tmp_path)
    later = next_day(prices)
    assert follow(ws, later) is not None and follow(ws, later.assign(symbol="X" + later["symbol"].astype(str))) is None


def test_cash_and_shares_add_up_on_random_opens_and_volumes(tmp_path):
    random, counts = np.random.default_rng(3), np.zeros(2)
    for number in range(12):
        ws, prices = evening(tmp_path / str(number), raw_close=20_000.0)
        opened = random.choice([18_600, 18_650, 19_500, 20_000, 21_350, 21_400], 6).astype("float64")
        prices = next_day(prices, open=opened, high=21_400.0, low=18_600.0,
                          volume=random.choice([0, 1_000, 9_000, 1_000_000], 6))
        rows, after = follow(ws, prices).table, booked(ws, prices)
        sign = np.where(rows["action"] == "buy", -1, 1)
        assert after.cash == 60e6 + (sign * rows["amount"] - rows["cost"]).sum() >= 0
        for row in rows.itertuples():
            change = row.filled * (1 if row.action == "buy" else -1)
            assert after.shares.get(row.symbol, 0) == HELD.shares.get(row.symbol, 0) + change
            assert row.filled % 100 == 0 and row.filled <= row.shares and (row.why == "") <= (row.filled == row.shares)
            assert not row.filled or 18_600 <= row.price <= 21_400
        counts += (rows["filled"] > 0).sum(), (rows["filled"] == 0).sum()
    assert counts.min() > 5
