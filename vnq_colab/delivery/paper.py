"""A paper account: what became of the last orders at the next session, and portfolio.csv brought forward by it, once.

The record `orders/<date>.json` holds orders, what they were made from, and what portfolio.csv is to become by them.
"""

import contextlib
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.market import VN_RULES, next_sessions, tick, trading_days
from vnq_colab.delivery.portfolio import CASH, MOST_BYTES, Portfolio, portfolio_text
from vnq_colab.errors import CheckpointError, VnqError
from vnq_colab.evaluation.engine import Accounts, dong
from vnq_colab.evaluation.market_data import SAME_BASIS, MarketData
from vnq_colab.files import read_bytes, read_sealed, write_atomic, write_sealed
from vnq_colab.layout import Workspace
from vnq_colab.settings import SHARE, record

DAY = re.compile(r"\d{4}-\d\d-\d\d")  # the name of a day's file
WINDOW = 60  # [sessions] of prices before a fill: what its band, basis and exchange depend on
Booked = record("Booked", before=str, after=str, text=str)  # sha256 of portfolio.csv; what it becomes
Record = record("Record", orders=str, held=str, portfolio=str | None, traded_share=SHARE, booked=Booked | None)


@dataclass(frozen=True, repr=False)
class Fills:
    """What became of the orders of `date` on the session after it, `day`."""

    date: pd.Timestamp
    day: pd.Timestamp
    table: pd.DataFrame  # one row for each order; price, amount and cost [VND]
    notes: list[str]
    unknown: bool  # whether portfolio.csv is as it was before them

    def __repr__(self) -> str:
        rows = [f"{row.action.upper():4} {row.symbol:6} {row.filled:>9,} of {row.shares:,}"
                + f" at {row.price:,.0f}" * bool(row.filled) + f"  {row.why}" * bool(row.why)
                for row in self.table.itertuples()]
        n_filled = f"{(self.table['filled'] > 0).sum()} of {len(rows)} filled" if rows else "none to fill"
        return "\n".join([f"Orders of {self.date:%a %d/%m/%Y}, at the open of {self.day:%a %d/%m/%Y}, with "
                          f"{VN_RULES.slippage:.1%} slippage: {n_filled}", *rows,
                          *(f"  {note}" for note in self.notes)])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_table(path: Path, rows: pd.DataFrame) -> Path:
    """Writes a day's table."""
    text = rows.to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%d", float_format="%.4f")
    write_atomic(path, text.encode())
    return path


def write_orders(path: Path, orders: pd.DataFrame, held: Portfolio, portfolio: bytes | None) -> Path:
    """Writes orders, after their record; `portfolio` is the content of portfolio.csv, None: they are of another."""
    write_sealed(path.with_suffix(".json"), {
        "orders": orders.to_csv(index=False), "held": portfolio_text(held), "booked": None,
        "portfolio": None if portfolio is None else _sha256(portfolio), "traded_share": orders.attrs["traded_share"]})
    return write_table(path, orders)


def is_booked(path: Path) -> bool:
    """Whether portfolio.csv was brought forward by these orders; not where the record is missing, or torn by a kill."""
    with contextlib.suppress(FileNotFoundError, CheckpointError):
        return read_sealed(path, Record)["booked"] is not None
    return False


def days_of(folder: Path) -> list[Path]:
    """The tables of a folder that bear a day's name, oldest first."""
    return sorted(path for path in folder.glob("*.csv") if DAY.fullmatch(path.stem))


def own_forecasts(paths: list[Path]) -> dict[str, pd.DataFrame]:
    """By day, the rankings in these files by models that had not seen what came after."""
    tables = {}
    for path in paths:
        with contextlib.suppress(ValueError, VnqError):  # of an earlier version, or damaged
            table = pd.read_csv(io.BytesIO(read_bytes(path, MOST_BYTES)), parse_dates=["date"],
                                usecols=["symbol", "date", "score", "trained_to", "run_id"])
            tables |= {path.stem: table} if (table["trained_to"].astype(str) <= path.stem).all() else {}
    return tables


def follow(ws: Workspace, prices: pd.DataFrame, *, book: bool = False) -> Fills | None:
    """What became of the last orders before the last day of a price table; None where there are none.

    By the rules of the engine's accounts. With `book` portfolio.csv is brought forward by it, and a note says so.
    """
    days = trading_days(prices)
    path = max((path for path in ws.orders.glob("*.json") if DAY.fullmatch(path.stem)
                and path.stem < f"{days[-1]:%Y-%m-%d}"), default=None)
    if path is None:
        return None
    try:
        made, date = read_sealed(path, Record), pd.Timestamp(path.stem)
    except CheckpointError as error:
        raise CheckpointError(f"{error} Without a copy of it, delete it, and enter by hand what was filled.") from error
    table = pd.read_csv(io.StringIO(made["orders"]))
    if not table["symbol"].isin(prices["symbol"]).any():  # of another market
        return None
    held = pd.read_csv(io.StringIO(made["held"]), index_col="symbol", dtype=str, keep_default_na=False)
    held["shares"] = held["shares"].astype("int64")
    place = int(days.searchsorted(date, side="right"))
    prices, day = prices[prices["date"] >= days[max(0, place - WINDOW)]], days[place]
    rights = _rights(table, prices, date)
    unclear = [] if "raw_close" in prices else [*rights]
    orders = table.loc[table["action"].isin(["buy", "sell"]), ["action", "symbol", "shares", "limit_low", "limit_high"]]
    filled, held.loc[CASH, "shares"] = _fill(orders.reset_index(drop=True), held, made["traded_share"],
                                             prices[prices["date"] <= day], unclear)
    n_later = VN_RULES.sellable_after(days[[place]], "close")[0]
    arrival = f"{days[place + 1:].append(next_sessions(days[-1], 9))[n_later - 1]:%Y-%m-%d}"
    for row in filled[filled["filled"] > 0].itertuples():
        shares, arrives = held.loc[row.symbol] if row.symbol in held.index else (0, "")
        held.loc[row.symbol] = (shares + row.filled, arrival) if row.action == "buy" else (shares - row.filled, arrives)
    notes = [f"{symbol}: a right or a dividend was cut off after {date:%Y-%m-%d} (a share of then is {factor:.3g} of "
             "now): shares or cash that you get for it are not in portfolio.csv, enter them when they arrive"
             for symbol, factor in rights.items() if held["shares"].get(symbol)]
    if book:
        rows = held[(held["shares"] > 0) & (held.index != CASH)]
        text = pd.concat([rows, held.loc[[CASH]]]).to_csv(lineterminator="\n")
        notes.insert(0, _bring_forward(ws, path, made, text if (filled["filled"] > 0).any() else None))
    is_new = (filled["action"] == "buy") & (filled["filled"] > 0)
    filled = filled.assign(sellable_from=np.where(is_new, arrival, ""), date=date, day=day)
    lacks = (not book and (filled["filled"] > 0).any() and ws.portfolio.exists()
             and made["portfolio"] == _sha256(read_bytes(ws.portfolio, MOST_BYTES)))
    return Fills(date, day, filled, notes, bool(lacks))


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


def _fill(orders: pd.DataFrame, held: pd.DataFrame, traded_share: float, prices: pd.DataFrame,
          unclear: list[str]) -> tuple[pd.DataFrame, int]:
    """The orders with `filled` [shares], `price`, `amount`, `cost` [VND] and `why`, on the last day; and the cash left.

    An order of an `unclear` symbol is left out: its prices were changed since, and nobody knows from when on.
    """
    market = MarketData.of(prices, VN_RULES)
    accounts = Accounts(market, 1, True, float(held.loc[CASH, "shares"]), traded_share, True)
    column, is_buy = pd.Index(market.symbols).get_indexer(orders["symbol"]), (orders["action"] == "buy").to_numpy()
    day = len(market.days) - 1

    def today(grid: np.ndarray) -> np.ndarray:
        return grid[day, column]

    basis, trades = today(market.basis), today(market.trades) & (column >= 0)
    arrives = orders["symbol"].map(held["sellable_from"]).fillna("")
    is_late = ~is_buy & (arrives >= f"{market.days[day]:%Y-%m-%d}").to_numpy()  # they arrive in the afternoon
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
         "locked at the floor", f"at most {traded_share:.0%} of the day's volume"],
        "not enough cash: a sale was not filled")
    return table, int(accounts.cash[0])


def _bring_forward(ws: Workspace, path: Path, made: Any, text: str | None) -> str:
    """Writes portfolio.csv as it becomes by the fills, once, unless it was changed since; and says what it did.

    The record says first what it becomes: whenever this is killed, the next call ends it.
    """
    booked, content, which = made["booked"], read_bytes(ws.portfolio, MOST_BYTES), f"the orders of {path.stem}"
    if booked is None:
        if made["portfolio"] != _sha256(content):
            return (f"portfolio.csv is left as it is: {which} were not made from it, or it was changed since. Enter "
                    "what was filled by hand.")
        if text is None:
            return "portfolio.csv stays: nothing was filled"
        booked = {"before": _sha256(content), "after": _sha256(text.encode()), "text": text}
        write_sealed(path, made | {"booked": booked})
    if _sha256(content) == booked["after"]:
        return f"portfolio.csv has the fills of {which} already"
    if _sha256(content) != booked["before"] and not booked["text"].encode().startswith(content):  # torn on Drive
        return f"portfolio.csv is left as it is: it was changed after the fills of {which} had been entered."
    write_atomic(ws.portfolio, booked["text"].encode())
    return f"portfolio.csv is brought forward by the fills of {which}"
