"""A paper account: what became of the last orders at the next session, and portfolio.csv brought forward by it, once.

The record beside each `orders/<date>.csv` holds the portfolio that the orders were made from, and what portfolio.csv is
to become by them, before it does.
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

DAY = re.compile(r"\d{4}-\d\d-\d\d")  # the name of a day's file
WINDOW = 60  # [sessions] of prices before a fill: what its band, basis and exchange depend on
Booked = record("Booked", before=str, after=str, text=str)  # sha256 of portfolio.csv; what it becomes
Record = record(  # orders/<date>.json; `orders` and `portfolio` are sha256
    "Record", orders=str, portfolio=str | None, cash=NOT_NEGATIVE, shares=dict[str, int], sellable_from=dict[str, str],
    traded_share=SHARE, booked=Booked | None)


@dataclass(frozen=True, repr=False)
class Fills:
    """What became of the orders of `date` on the session after it, `day`."""

    path: Path  # of the record
    record: Any
    date: pd.Timestamp
    day: pd.Timestamp
    table: pd.DataFrame  # one row for each order; price, amount and cost [VND]
    after: Portfolio
    notes: list[str]

    def __repr__(self) -> str:
        done = self.table["filled"] > 0
        return "\n".join([
            f"Orders of {self.date:%a %d/%m/%Y}, at the open of {self.day:%a %d/%m/%Y}: " + (
                f"{done.sum()} of {len(done)} filled, with {VN_RULES.slippage:.1%} slippage; cash then "
                f"{self.after.cash:,.0f} VND" if len(done) else "there were none"),
            *(f"{row.action.upper():4} {row.symbol:6} {row.filled:>9,} of {row.shares:,}"
              + f" at {row.price:,.0f}" * bool(row.filled) + f"  {row.why}" * bool(row.why)
              for row in self.table.itertuples()), *(f"  {note}" for note in self.notes)])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def record_orders(path: Path, orders: bytes, portfolio: Portfolio, content: bytes | None, traded_share: float) -> None:
    """Writes the record of orders that are about to be written to `path`; `content` is portfolio.csv, None: another."""
    write_sealed(path.with_suffix(".json"), {
        "orders": _sha256(orders), "portfolio": None if content is None else _sha256(content), "cash": portfolio.cash,
        "shares": portfolio.shares, "traded_share": traded_share, "booked": None,
        "sellable_from": {name: f"{day:%Y-%m-%d}" for name, day in portfolio.sellable_from.items() if day is not None}})


def is_booked(path: Path) -> bool:
    """Whether portfolio.csv was brought forward by these orders, or their record is damaged."""
    try:
        return read_sealed(path.with_suffix(".json"), Record)["booked"] is not None
    except FileNotFoundError:
        return False
    except CheckpointError:
        return True


def follow(ws: Workspace, prices: pd.DataFrame) -> Fills | None:
    """What became of the last orders before the last day of a price table, by the rules of the engine's accounts.

    None where there are none with a record. Raises DeliveryError for those that were changed since they were made.
    """
    days = trading_days(prices)
    path = max((path for path in ws.orders.glob("*.csv") if DAY.fullmatch(path.stem)
                and path.stem < f"{days[-1]:%Y-%m-%d}"), default=None)
    try:
        if path is None or not path.with_suffix(".json").exists():
            return None
        made, content = read_sealed(path.with_suffix(".json"), Record), read_bytes(path, MOST_BYTES)
        if _sha256(content) != made["orders"]:
            raise CheckpointError(f"{path}: not as predict wrote it.")
    except CheckpointError as error:
        raise DeliveryError(f"{error} So nobody knows what became of these orders: enter it in portfolio.csv by hand, "
                            f"and delete {path.stem}.json.") from error
    table, date = pd.read_csv(io.BytesIO(content)), pd.Timestamp(path.stem)
    place = int(days.searchsorted(date, side="right"))
    prices, day = prices[prices["date"] >= days[max(0, place - WINDOW)]], days[place]
    rights = _rights(table, prices, date)
    unclear = [] if "raw_close" in prices else [*rights]
    orders = table.loc[table["action"].isin(["buy", "sell"]), ["action", "symbol", "shares", "limit_low", "limit_high"]]
    filled, cash = _fill(orders.reset_index(drop=True), made, prices[prices["date"] <= day], unclear)
    n_later = VN_RULES.sellable_at_close_after(days[[place]])[0]
    arrival = days[place + 1:].append(next_sessions(days[-1], 9))[n_later - 1]
    bought = filled.loc[(filled["action"] == "buy") & (filled["filled"] > 0), "symbol"]
    filled["sellable_from"] = pd.Series(arrival, bought.index).reindex(filled.index)
    change = dict(zip(filled["symbol"], filled["filled"] * np.where(filled["action"] == "buy", 1, -1), strict=True))
    shares = {name: int(made["shares"].get(name, 0) + change.get(name, 0)) for name in {**made["shares"], **change}}
    arrives = made["sellable_from"] | dict.fromkeys(bought, arrival)
    notes = [f"{symbol}: a right or a dividend was cut off after {date:%Y-%m-%d} (a share of then is {factor:.3g} of "
             "now): shares or cash that you get for it are not in portfolio.csv, enter them when they arrive"
             for symbol, factor in rights.items() if shares.get(symbol)]
    after = Portfolio(cash, shares, {name: pd.Timestamp(day) for name, day in arrives.items()}, str(path))
    return Fills(path.with_suffix(".json"), made, date, day, filled.assign(date=date, day=day), after, notes)


def _rights(table: pd.DataFrame, prices: pd.DataFrame, date: pd.Timestamp) -> dict[str, float]:
    """By symbol: how many shares of the last day one of `date` is, where a right or a dividend was cut off since.

    Without raw prices the reference of an order was the adjusted close of then, on a tick.
    """
    then = table.set_index("symbol")[["reference_price"]].join(
        prices[prices["date"] <= date].groupby("symbol", observed=True)["close"].last())
    now, reference = prices.groupby("symbol", observed=True).last().reindex(then.index), then["reference_price"]
    has_raw = "raw_close" in now
    factor = reference / then["close"] / (now["raw_close"] / now["close"] if has_raw else 1)
    slack = SAME_BASIS + (0 if has_raw else tick(reference.to_numpy("float64"), now.get("exchange", "")) / reference)
    return factor[(factor - 1).abs() > slack].to_dict()


def _fill(orders: pd.DataFrame, made: Any, prices: pd.DataFrame, unclear: list[str]) -> tuple[pd.DataFrame, float]:
    """The orders with `filled` [shares], `price`, `amount`, `cost` [VND] and `why`, on the last day; and the cash left.

    An order of an `unclear` symbol is left out: its prices were changed since, and nobody knows from when on.
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
    is_outside = (quote < orders["limit_low"] - 0.01) | (quote > orders["limit_high"] + 0.01)
    is_unclear, wanted = orders["symbol"].isin(unclear), (orders["shares"] * basis).to_numpy()
    is_open = trades & ~is_outside & ~is_unclear
    sales, buys = np.flatnonzero(is_open & ~is_buy), np.flatnonzero(is_open & is_buy)
    accounts.shares[column[sales]], accounts.is_held[column[sales]] = wanted[sales], True
    accounts.sellable_from[column[sales]] = 2 * day + is_late[sales]
    amount, accounts.worth = dong(wanted[buys] * today(market.fills["buy"])[buys]), np.ones(1)  # shares of one dong
    accounts.fill(day, column[sales], column[buys], amount + dong(amount * VN_RULES.fee), one_for_one=False)
    fills = [np.concatenate(part) for part in zip(*accounts.fills, strict=True)] or [np.empty(0, dtype=int)] * 8
    done = pd.DataFrame({"filled": np.abs(fills[3]), "amount": fills[6], "cost": fills[7]}).groupby(fills[0]).sum()
    done = done.reindex(column, fill_value=0).reset_index(drop=True)
    done["filled"] = np.round(done["filled"] / basis)
    table = orders[["action", "symbol", "shares"]].join(done.astype("int64"))
    table["price"] = (table["amount"] / table["filled"]).where(table["filled"] > 0)
    can = np.select([is_late, is_buy], [today(market.can_sell_late), today(market.can_buy)], today(market.can_sell))
    table["why"] = np.select(
        [is_unclear, ~trades, is_outside, table["filled"] == table["shares"], ~can & is_buy, ~can,
         today(accounts.most) < wanted],
        ["a right or a dividend was cut off: enter by hand what your broker shows", "did not trade",
         "opened outside the limits of the order", np.where(is_late, "in the afternoon", ""), "locked at the ceiling",
         "locked at the floor", f"at most {made['traded_share']:.0%} of the day's volume"],
        "not enough cash: a sale was not filled")
    return table, float(accounts.cash[0])


def bring_forward(ws: Workspace, fills: Fills, prices: pd.DataFrame) -> str:
    """Books the fills in portfolio.csv, once, and says what it did. A portfolio that was changed since is left.

    The record says first what the portfolio becomes: whenever this is killed, the next call ends it.
    """
    booked, content, name = fills.record["booked"], read_bytes(ws.portfolio, MOST_BYTES), ws.portfolio.name
    which = f"the orders of {fills.date:%Y-%m-%d}"
    if booked is None:
        if fills.record["portfolio"] != _sha256(content):
            return (f"{name} is left as it is: {which} were not made from it, or it was changed since. Enter what was "
                    "filled by hand.")
        read_portfolio(ws.portfolio, prices)
        if not (fills.table["filled"] > 0).any():
            return f"{name} stays: nothing was filled"
        text = portfolio_text(fills.after)
        booked = {"before": _sha256(content), "after": _sha256(text.encode()), "text": text}
        write_sealed(fills.path, fills.record | {"booked": booked})
    if _sha256(content) == booked["after"]:
        return f"{name} has the fills of {which} already"
    if _sha256(content) != booked["before"] and not booked["text"].encode().startswith(content):  # torn on Drive
        return f"{name} is left as it is: it was changed after the fills of {which} had been entered."
    write_portfolio(ws.portfolio, booked["text"])
    return f"{name} is brought forward by the fills of {which}"
