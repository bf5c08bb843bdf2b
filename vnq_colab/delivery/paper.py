"""A paper account: what became of the last orders at the next session, and portfolio.csv brought forward by it, once.

Beside each `orders/<date>.csv` lies a record, `<date>.json`: the portfolio that the orders were made from, and, before
portfolio.csv is brought forward, what it is to become.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.market import VN_RULES, next_sessions, tick, trading_days
from vnq_colab.delivery.portfolio import MOST_BYTES, Portfolio, portfolio_text, read_portfolio, write_portfolio
from vnq_colab.errors import CheckpointError, DeliveryError
from vnq_colab.evaluation.engine import Accounts, dong
from vnq_colab.evaluation.market_data import SAME_BASIS, MarketData
from vnq_colab.files import read_bytes, read_sealed, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.settings import NOT_NEGATIVE, SHARE
from vnq_colab.training.session_file import record

COLUMNS = ("date", "day", "action", "symbol", "shares", "filled", "price", "amount", "cost", "sellable_from", "why")
DAY = re.compile(r"\d{4}-\d\d-\d\d")  # the name of a day's file
WINDOW = 60  # [sessions] of prices before a fill: what its band, basis and exchange depend on
FORMAT = 1  # of orders/<date>.json

Booked = record("Booked", day=str, before=str, after=str, text=str)  # sha256 of portfolio.csv; what it becomes
Record = record(  # orders/<date>.json
    "Record", format=int, orders=str, portfolio=str | None, cash=NOT_NEGATIVE, shares=dict[str, int],
    sellable_from=dict[str, str], traded_share=SHARE, booked=Booked | None)


@dataclass(frozen=True, repr=False)
class Fills:
    """What became of the orders of `date` on the session after it, `day`."""

    path: Path  # of the record
    record: Any
    date: pd.Timestamp
    day: pd.Timestamp
    table: pd.DataFrame  # COLUMNS, one row for each order; price, amount and cost [VND]
    after: Portfolio
    notes: list[str]

    def __repr__(self) -> str:
        head = f"Orders of {self.date:%a %d/%m/%Y}, at the open of {self.day:%a %d/%m/%Y}"
        if self.table.empty:
            return f"{head}: there were none"
        lines = [f"{row.action.upper():4} {row.symbol:6} {row.filled:>9,} of {row.shares:,}"
                 + (f" at {row.price:,.0f}" if row.filled else "") + f"  {row.why}" for row in self.table.itertuples()]
        done = self.table["filled"] > 0
        return "\n".join([f"{head}: {done.sum()} of {len(done)} filled, cash then {self.after.cash:,.0f} VND", *lines])


def sha256(content: bytes) -> str:
    """Hex sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def record_orders(path: Path, orders: bytes, portfolio: Portfolio, content: bytes | None, traded_share: float) -> None:
    """Writes the record of orders that are about to be written to `path`; `content` is portfolio.csv, None: another."""
    write_sealed(path.with_suffix(".json"), {
        "format": FORMAT, "orders": sha256(orders), "portfolio": None if content is None else sha256(content),
        "cash": portfolio.cash, "shares": portfolio.shares, "traded_share": traded_share, "booked": None,
        "sellable_from": {name: f"{day:%Y-%m-%d}" for name, day in portfolio.sellable_from.items() if day is not None}})


def read_record(path: Path) -> Any:
    """The record beside orders; None where they were made without. Raises DeliveryError for a damaged one."""
    try:
        return read_sealed(path.with_suffix(".json"), Record)
    except FileNotFoundError:
        return None
    except CheckpointError as error:
        raise DeliveryError(f"{error} What became of the orders beside it is not known: enter it in portfolio.csv by "
                            "hand, and delete this file.") from error


def is_booked(path: Path) -> bool:
    """Whether portfolio.csv was brought forward by these orders, or nobody knows."""
    try:
        return ((made := read_record(path)) is not None) and made["booked"] is not None
    except DeliveryError:
        return True


def last_orders(folder: Path, before: pd.Timestamp) -> Path | None:
    """The newest orders made before a day."""
    return max((path for path in folder.glob("*.csv") if DAY.fullmatch(path.stem)
                and path.stem < f"{before:%Y-%m-%d}"), default=None)


def follow(ws: Workspace, prices: pd.DataFrame) -> Fills | None:
    """What became of the last orders before the last day of a price table, by the rules of the engine's accounts.

    None where there are none. Raises DeliveryError for orders that were changed since they were made.
    """
    path, days = last_orders(ws.orders, prices["date"].max()), trading_days(prices)
    if path is None or (made := read_record(path)) is None:
        return None
    content, date = read_bytes(path, MOST_BYTES), pd.Timestamp(path.stem)
    if sha256(content) != made["orders"]:
        raise DeliveryError(f"{path}: not as predict wrote it, so that nobody knows what was ordered. Restore it, or "
                            f"delete it with {path.stem}.json and enter in portfolio.csv what was filled.")
    table, place = pd.read_csv(io.BytesIO(content)), int(days.searchsorted(date, side="right"))
    prices, day = prices[prices["date"] >= days[max(0, place - WINDOW)]], days[place]
    orders = table[table["action"].isin(["buy", "sell"])].reset_index(drop=True)
    rights = _rights(table, prices, date)
    unclear = set() if "raw_close" in prices else set(rights)
    filled, cash = _fill(orders, made, prices[prices["date"] <= day], unclear)
    n_later = VN_RULES.sellable_at_close_after(days[[place]])[0]
    arrival = days[place + 1:].append(next_sessions(days[-1], 9))[n_later - 1]
    is_new = (filled["action"] == "buy") & (filled["filled"] > 0)
    filled.insert(0, "day", day)
    filled = filled.assign(date=date, sellable_from=pd.Series(arrival, filled.index).where(is_new))[list(COLUMNS)]
    shares, arrives = dict(made["shares"]), {name: pd.Timestamp(text) for name, text in made["sellable_from"].items()}
    for row in filled[filled["filled"] > 0].itertuples():
        shares[row.symbol] = shares.get(row.symbol, 0) + row.filled * (1 if row.action == "buy" else -1)
        arrives |= {row.symbol: arrival} if row.action == "buy" else {}
    notes = [f"{symbol}: a right or a dividend was cut off after {date:%Y-%m-%d} (a share of then is {factor:.3g} of "
             "now): shares or cash that you get for it are not in portfolio.csv, enter them when they arrive"
             for symbol, factor in rights.items() if shares.get(symbol)]
    return Fills(path.with_suffix(".json"), made, date, day, filled, Portfolio(cash, shares, arrives, str(path)), notes)


def _rights(table: pd.DataFrame, prices: pd.DataFrame, date: pd.Timestamp) -> dict[str, float]:
    """By symbol: how many shares of the last day one of `date` is, where a right or a dividend was cut off since."""
    rows = prices[prices["symbol"].isin(table["symbol"])].sort_values("date")
    raw = rows.get("raw_close", rows["close"])
    rows = rows.assign(basis=raw.where(raw > 0, rows["close"]) / rows["close"])
    then = rows[rows["date"] <= date].groupby("symbol", observed=True)[["close", "basis"]].last()
    now = rows.groupby("symbol", observed=True)["basis"].last()
    then["reference"] = table.set_index("symbol")["reference_price"].reindex(then.index)
    exchange = rows.get("exchange", pd.Series("", rows.index)).groupby(rows["symbol"]).last().reindex(then.index)
    if "raw_close" in prices:
        factor, slack = then["basis"] / now.reindex(then.index), SAME_BASIS
    else:  # on the evening of the orders the adjusted close was the raw one
        factor = then["reference"] / then["close"]
        slack = SAME_BASIS + tick(then["reference"].to_numpy("float64"), exchange.to_numpy()) / then["reference"]
    return factor[(factor - 1).abs() > slack].to_dict()


def _fill(orders: pd.DataFrame, made: Any, prices: pd.DataFrame, unclear: set[str]) -> tuple[pd.DataFrame, float]:
    """The orders with `filled` [shares], `price`, `amount`, `cost` [VND] and `why`, on the last day; and the cash left.

    An order of an `unclear` symbol is left out: its price was changed since, and nobody knows from when on.
    """
    market = MarketData.of(prices)
    accounts, day = Accounts(market, 1, True, made["cash"], made["traded_share"], True), len(market.days) - 1
    column, is_buy = pd.Index(market.symbols).get_indexer(orders["symbol"]), (orders["action"] == "buy").to_numpy()

    def today(grid: np.ndarray) -> np.ndarray:
        return grid[day, column]

    basis, trades = today(market.basis), today(market.trades) & (column >= 0)
    arrives = pd.to_datetime(orders["symbol"].map(made["sellable_from"]))
    is_late = ~is_buy & (arrives >= market.days[day]).to_numpy()  # they arrive in the afternoon
    quote = np.where(is_late, today(market.close), today(market.open)) * basis
    inside = (quote > orders["limit_low"] - 0.01) & (quote < orders["limit_high"] + 0.01)
    can = np.select([is_late, is_buy], [today(market.can_sell_late), today(market.can_buy)], today(market.can_sell))
    open_, wanted = trades & inside.to_numpy() & ~orders["symbol"].isin(unclear).to_numpy(), orders["shares"] * basis
    sales, buys = np.flatnonzero(open_ & ~is_buy), np.flatnonzero(open_ & is_buy)
    accounts.shares[column[sales]], accounts.is_held[column[sales]] = wanted[sales], True
    accounts.sellable_from[column[sales]] = 2 * day + is_late[sales]
    amount, accounts.worth = dong(wanted[buys] * today(market.fills["buy"])[buys]), np.ones(1)  # shares of one dong
    limit = (amount + dong(amount * VN_RULES.fee)).to_numpy()
    accounts.fill(day, column[sales], column[buys], limit, one_for_one=False)
    places, _, _, change, _, _, amounts, costs = map(np.concatenate, zip(*accounts.fills, strict=True)) \
        if accounts.fills else [np.empty(0, dtype=int)] * 8
    done = pd.DataFrame({"filled": np.abs(change), "amount": amounts, "cost": costs}).groupby(places).sum()
    done = done.reindex(column).fillna(0.0).reset_index(drop=True)
    done["filled"] = np.round(done["filled"] / basis)
    table = orders[["action", "symbol", "shares"]].join(done.astype("int64"))
    most, side = today(accounts.most) / basis, np.where(is_buy, "ceiling", "floor")
    table["price"] = (table["amount"] / table["filled"]).where(table["filled"] > 0)
    table["why"] = np.select(
        [orders["symbol"].isin(unclear), ~trades, ~inside, table["filled"] == table["shares"], ~can,
         most < table["shares"]],
        ["a right or a dividend was cut off: enter by hand what your broker shows", "did not trade",
         "opened outside the limits of the order", np.where(is_late, "in the afternoon", ""),
         np.char.add("locked at the ", side), f"at most {made['traded_share']:.0%} of the day's volume"],
        "not enough cash: a sale was not filled")
    return table, float(accounts.cash[0])


def bring_forward(ws: Workspace, fills: Fills, prices: pd.DataFrame) -> str:
    """Books the fills in portfolio.csv, once, and says what it did. A portfolio that was changed since is left.

    The record says first what the portfolio becomes: whenever this is killed, the next call ends it.
    """
    made, content, name = fills.record, read_bytes(ws.portfolio, MOST_BYTES), ws.portfolio.name
    which = f"the orders of {fills.date:%Y-%m-%d}"
    if (booked := made["booked"]) is None:
        if made["portfolio"] != sha256(content):
            return (f"{name} is left as it is: {which} were not made from it, or it was changed since. Enter what was "
                    "filled by hand.")
        read_portfolio(ws.portfolio, prices)
        if not (fills.table["filled"] > 0).any():
            return f"{name} stays: nothing was filled"
        text = portfolio_text(fills.after)
        booked = {"day": f"{fills.day:%Y-%m-%d}", "before": sha256(content), "after": sha256(text.encode()),
                  "text": text}
        write_sealed(fills.path, made | {"booked": booked})
    if sha256(content) == booked["after"]:
        return f"{name} has the fills of {which} already"
    if sha256(content) != booked["before"] and not booked["text"].encode().startswith(content):  # half written on Drive
        return f"{name} is left as it is: it was changed after the fills of {which} had been entered."
    write_portfolio(ws.portfolio, booked["text"])
    return f"{name} is brought forward by the fills of {which}"
