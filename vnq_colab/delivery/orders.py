"""Tomorrow's orders: what to buy, sell and keep, by the basket's rule, under the exchange's rules and in whole lots.

Purchases are covered at the ceiling, with fee: a broker blocks that much, and an order at the open may be filled
anywhere in the band. Sales count at the floor, and only those that can be filled from the morning on.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, VN_RULES, MarketRules, lot, next_sessions, price_limits, tick, trading_days
from vnq_colab.delivery.bundle import Bundle
from vnq_colab.delivery.portfolio import Portfolio, paper_portfolio, read_portfolio
from vnq_colab.delivery.predict import Outlook, look_ahead, write_table
from vnq_colab.errors import ConfigError, DataError
from vnq_colab.evaluation.basket import Basket, decide
from vnq_colab.layout import Workspace

COLUMNS = ("date", "action", "symbol", "shares", "reference_price", "limit_low", "limit_high", "rank", "edge", "reason")
ACTIONS = ("sell", "buy", "wait", "keep")
MEDIAN_DAYS = 20  # [sessions] of the median traded value; a day without trades counts as 0


def orders(bundle: Bundle, prices: pd.DataFrame, portfolio: "str | Path | Portfolio | None" = None,
           capital: float | None = None, *, index: pd.DataFrame | None = None,
           as_of: str | None = None) -> pd.DataFrame:
    """What to do on the session after the last day of a price table: one row for each order, and for what is kept.

    `portfolio` is a file, or None for one on paper; `capital` is the most that the basket may be worth [VND], and what
    a portfolio on paper has (a billion without it). Columns: date (of the evening); action; symbol; shares, to be
    bought or sold, else held; reference_price, limit_low and limit_high [VND]; rank; edge [log return over the
    horizon]; reason. `attrs` holds day, nav and cash [VND], k, market and notes. Where the bundle's market is not
    accepted there are only `wait` rows, one for each stock. Raises DataError for prices older than 5 sessions.
    """
    outlook = look_ahead(bundle, prices, index=index, as_of=as_of)
    return make_orders(outlook, portfolio, capital)


def make_orders(outlook: Outlook, portfolio: "str | Path | Portfolio | None" = None, capital: float | None = None,
                rules: MarketRules = VN_RULES) -> pd.DataFrame:
    """The checked orders of an Outlook; see `orders`."""
    if outlook.stale:
        raise DataError(f"{outlook.stale[0]}; orders are not made of old prices.")
    if portfolio is None:
        portfolio = paper_portfolio(capital)
    elif not isinstance(portfolio, Portfolio):
        portfolio = read_portfolio(portfolio, outlook.prices)
    manifest, decisions = outlook.bundle.manifest, outlook.bundle.decisions
    basket = Basket(**manifest["basket"]) if manifest.get("basket") else Basket().limited(len(decisions))
    stocks = _stocks(outlook, portfolio, rules)
    nav = portfolio.cash + float((stocks["held"] * stocks["reference_price"]).sum())
    lots = stocks["reference_price"] * stocks["lot"] * (1 + rules.fee)
    worth = nav if capital is None else min(nav, capital)
    if worth < lots.min():
        cheapest = lots.idxmin()
        raise ConfigError(f"{worth:,.0f} VND are less than one lot of any stock: the cheapest, {cheapest}, needs "
                          f"{np.ceil(lots[cheapest]):,.0f}. Give more with --capital, or in the portfolio's row CASH.")
    market = market_decision(outlook.bundle)
    if market == "accept":
        _decide(stocks, basket, rules)
        _fill(stocks, basket, portfolio.cash, worth, rules)
    else:
        stocks["action"], stocks["shares"] = "wait", stocks["held"]
        stocks["why"] = [[f"market not accepted: {market}"]] * len(stocks)
    table = _table(stocks[stocks["action"] != ""], outlook.day)
    check_orders(table, stocks, portfolio, basket, rules)
    notes = [f"portfolio: {portfolio.source}", *_notes(table, stocks, outlook.prices, market)]
    table.attrs = {"day": str(next_sessions(outlook.day, 1)[0].date()), "nav": nav, "cash": portfolio.cash,
                   "k": basket.k, "market": market, "notes": notes}
    return table


def market_decision(bundle: Bundle) -> str:
    """accept, review, reject or unjudged: whether the order of the stocks pays after costs."""
    verdict = bundle.manifest.get("verdict") or {}
    return (bundle.manifest.get("market") or verdict.get("market") or {}).get("decision", "unjudged")


def write_orders(ws: Workspace, table: pd.DataFrame, day: pd.Timestamp) -> Path:
    """Writes `orders/<date>.csv`, named by the evening that the orders are from."""
    return write_table(ws.orders / f"{day:%Y-%m-%d}.csv", table)


# --------------------------------------------------------------------------------------------- what is known of a stock
def _stocks(outlook: Outlook, portfolio: Portfolio, rules: MarketRules) -> pd.DataFrame:
    """One row for each judged or held stock, by symbol: its board of tomorrow, its forecast, what is held of it."""
    decisions, latest, before = outlook.bundle.decisions, outlook.latest(), outlook.latest(1)
    here = set(outlook.prices["symbol"].unique())
    names = sorted(here & {*decisions, *(symbol for symbol, held in portfolio.shares.items() if held)})
    stocks = board(outlook.prices, names, rules)
    for name in ("score", "edge", "rank"):
        stocks[name] = latest.set_index("symbol")[name]
    stocks["was"] = before.set_index("symbol")["rank"]
    stocks["n_ranked"] = len(latest)
    stocks["accepted"] = [decisions.get(symbol) == "accept" for symbol in names]
    stocks["held"] = [portfolio.shares.get(symbol, 0) for symbol in names]
    days, ahead = trading_days(outlook.prices), next_sessions(outlook.day, 9)
    settle = int(rules.sellable_at_close_after(ahead[:1])[0])
    places = []  # session on which the shares arrive: 0 is the last day, 1 tomorrow
    for symbol in names:
        day = portfolio.sellable_from.get(symbol)
        places.append(-np.inf if day is None else ahead.searchsorted(day) + 1 if day > days[-1] else
                      -(len(days) - 1 - days.searchsorted(day)))
    stocks["arrives"], stocks["arrives_on"] = places, [portfolio.sellable_from.get(symbol) for symbol in names]
    stocks["days_held"] = settle + 1 - stocks["arrives"]  # the day of the purchase counts
    return stocks.assign(action="", shares=0, why=[[] for _ in names])


def board(prices: pd.DataFrame, symbols: list[str], rules: MarketRules = VN_RULES) -> pd.DataFrame:
    """`[symbols]`: reference_price, limit_low, limit_high [VND] and lot of tomorrow; value, at_ceiling, at_floor.

    On raw prices where `raw_close` is known, else on adjusted ones, whose newest are raw. `value` is the median value
    traded in a day of the last 20 [VND]. Bands are the daily ones: a first day's is wider, and UPCOM's stand on an
    average price that daily data does not have.
    """
    days = trading_days(prices)
    rows = prices[prices["symbol"].isin(symbols)].sort_values(["symbol", "date"])
    shown = rows["close"].to_numpy("float64")
    if "raw_close" in rows.columns:
        raw = rows["raw_close"].to_numpy("float64")
        shown = np.where(np.isfinite(raw) & (raw > 0), raw, shown)
    rows = rows.assign(shown=shown, value=shown * rows["volume"])
    ends = rows.groupby("symbol", observed=True)
    last, before = ends.nth(-1).set_index("symbol").loc[symbols], ends.nth(-2).set_index("symbol").reindex(symbols)
    recent = rows[rows["date"] >= days[-MEDIAN_DAYS:][0]].pivot(index="date", columns="symbol", values="value")
    value = recent.reindex(index=days[-MEDIAN_DAYS:], columns=symbols).fillna(0.0).median()
    exchange = (last["exchange"] if "exchange" in last.columns else pd.Series("HOSE", symbols)).where(
        lambda names: names.isin(EXCHANGES), "HOSE").to_numpy(object)
    tomorrow, today = (pd.DatetimeIndex([day] * len(symbols)) for day in (next_sessions(days[-1], 1)[0], days[-1]))
    found = pd.DataFrame({"exchange": exchange, "value": value.to_numpy()}, index=pd.Index(symbols, name="symbol"))
    found["lot"] = lot(exchange, tomorrow) if rules.lot == VN_RULES.lot else rules.lot
    found["traded"] = ((last["date"] == days[-1]) & (last["volume"] > 0)).to_numpy()
    close = last["shown"].to_numpy()
    yesterday = (before["close"] * last["shown"] / last["close"]).to_numpy()  # on the basis of the last day
    band, band_today = rules.band(exchange, tomorrow), rules.band(exchange, today)
    for name in EXCHANGES:
        on = exchange == name
        step, step_before = tick(close[on], name), tick(yesterday[on], name)
        reference = np.maximum(np.round(close[on] / step), 1) * step
        high, low = price_limits(reference, band[on], name)
        top, bottom = price_limits(np.round(yesterday[on] / step_before) * step_before, band_today[on], name)
        found.loc[on, "reference_price"], found.loc[on, "limit_high"] = reference, high
        found.loc[on, "limit_low"] = np.maximum(low, step)
        found.loc[on, "at_ceiling"], found.loc[on, "at_floor"] = reference >= top - 0.01, reference <= bottom + 0.01
    for name in ("at_ceiling", "at_floor"):
        found[name] = found[name].astype(bool) & found["traded"]
    return found


# -------------------------------------------------------------------------------------------------- what is to be done
def _decide(stocks: pd.DataFrame, basket: Basket, rules: MarketRules) -> None:
    """Sets `action` by the basket's rule: the one of the backtest, in which only accepted stocks are bought.

    The rank at which a stock is sold is the one among all; among those that may be held it is as many places as of
    them stand above it, at least k. Fewer shares than a lot take no place.
    """
    held, score = (stocks["held"] >= stocks["lot"]).to_numpy(), stocks["score"].to_numpy("float64")
    eligible = (held | stocks["accepted"].to_numpy()) & np.isfinite(score)
    keep = max(basket.k, int((eligible & (stocks["rank"] <= basket.keep)).sum()))
    cost = 2 * (rules.fee + rules.slippage) + rules.sale_tax
    stay, enter = decide(replace(basket, keep=keep), np.where(eligible, score, np.nan)[None],
                         stocks["edge"].to_numpy("float64")[None], held[None],
                         np.where(held, stocks["days_held"], 0.0)[None], cost)
    leave = held & ~stay[0]
    stocks["action"] = np.select([leave & (stocks["arrives"] > 1), leave, enter[0], stocks["held"] > 0],
                                 ["wait", "sell", "buy", "keep"], "")
    stocks["shares"] = stocks["held"]
    for row in stocks[stocks["action"] == "keep"].itertuples():
        if row.held < row.lot:
            row.why.append("fewer shares than a lot: sell them by hand")
        elif not np.isfinite(row.score):
            row.why.append("no forecast: decide yourself")
        elif row.rank > basket.keep:
            row.why.append(f"held for less than {basket.hold_days} days" if row.days_held < basket.hold_days else
                           "a swap does not pay for its costs")
    for row in stocks[stocks["action"] == "wait"].itertuples():
        row.why.append(f"T+2, {row.arrives_on:%a} afternoon")


def _fill(stocks: pd.DataFrame, basket: Basket, cash: float, worth: float, rules: MarketRules) -> None:
    """Sets the shares of sales and purchases; what cannot be done tomorrow becomes `wait`."""
    most = np.floor(basket.traded_share * stocks["value"] / stocks["reference_price"] / stocks["lot"]) * stocks["lot"]
    for row in stocks[stocks["action"] == "sell"].itertuples():
        whole = row.held // row.lot * row.lot
        shares = int(min(whole, most[row.Index]))
        stocks.loc[row.Index, ["action", "shares"]] = ["sell" if shares else "wait", shares or row.held]
        if not shares:
            row.why.append(_no_room(basket))
            continue
        if shares < row.held:
            row.why.append(f"{row.held - shares:,} stay: " + (_no_room(basket) if shares < whole else "no lot"))
        if row.arrives == 1:
            row.why.append(f"from {row.arrives_on:%a} afternoon")
        if row.at_floor:
            row.why.append("closed at the floor: may not fill")
        elif row.arrives < 1:
            cash += shares * row.limit_low - np.ceil(shares * row.limit_low * (rules.fee + rules.sale_tax))
    is_left = stocks["held"] - stocks["shares"].where(stocks["action"] == "sell", 0) >= stocks["lot"]
    buys = stocks[stocks["action"] == "buy"].sort_values("rank")
    n_free = max(basket.k - int(is_left.sum()), 0)
    for number, row in enumerate(buys.itertuples()):
        price = row.reference_price * row.lot * (1 + rules.fee)
        top = row.limit_high * row.lot * (1 + rules.fee)
        share = max(cash, 0) / max(min(n_free, len(buys)) - number, 1)  # what is left goes to the later ones
        lots = {f"a lot is {price / 1e6:,.1f} m, a place {worth / basket.k / 1e6:,.1f} m": worth / basket.k / price,
                _no_room(basket): most[row.Index] / row.lot,
                "not enough cash at the ceiling": share / top}
        if number >= n_free:
            lots = {"no place until something is sold": 0.0}
        least = min(lots.values())
        reason = next((name for name, n_lots in lots.items() if n_lots < 1), "not enough cash at the ceiling")
        shares = int(least + 1e-9) * row.lot
        while shares and shares * row.limit_high + np.ceil(shares * row.limit_high * rules.fee) > cash:
            shares -= row.lot
        stocks.loc[row.Index, ["action", "shares"]] = ["buy" if shares else "wait", int(shares)]
        if not shares:
            row.why.append(reason)
            continue
        cash -= shares * row.limit_high + np.ceil(shares * row.limit_high * rules.fee)
        if row.at_ceiling:
            row.why.append("closed at the ceiling: may not fill")


def _no_room(basket: Basket) -> str:
    return f"at most {basket.traded_share:.0%} of a day's traded value"


def _table(stocks: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The order table, sales first, each action by rank."""
    def reason(row: Any) -> str:
        rank = [] if np.isnan(row.rank) else [f"rank {row.rank:.0f} of {row.n_ranked}" + (
            "" if np.isnan(row.was) else f", was {row.was:.0f}")]
        return "; ".join([*row.why, *rank] if row.action == "wait" else [*rank, *row.why])

    table = stocks.reset_index().assign(date=day, reason=[reason(row) for row in stocks.itertuples()])
    table = table.astype({"rank": "Int64", "shares": "int64"} | dict.fromkeys(COLUMNS[4:7], "int64"))
    place = table["action"].map(ACTIONS.index)
    table = table.assign(place=place).sort_values(["place", "rank", "symbol"], ignore_index=True)
    return table[list(COLUMNS)]


def _notes(table: pd.DataFrame, stocks: pd.DataFrame, prices: pd.DataFrame, market: str) -> list[str]:
    """What a person must know of these prices and bands."""
    told = [] if "raw_close" in prices.columns else ["reference prices are the adjusted closes: those of the last day "
                                                     "are raw, unless a dividend or a right is cut off tomorrow"]
    traded = table.loc[table["action"].isin(["buy", "sell"]), "symbol"]
    if market != "accept" and (held := list(stocks.index[stocks["held"] > 0])):
        told.append(f"you hold {', '.join(held)}: nothing is advised about them while the market is not accepted")
    if (stocks.loc[traded, "exchange"] == "UPCOM").any():
        told.append("bands of UPCOM stand on the day's average price, which is not known here: look at the board")
    if {"buy", "sell"} <= set(table["action"]):
        told.append("place the sales first: purchases may use their money")
    return told


# ------------------------------------------------------------------------------------------------------- the last check
def check_orders(table: pd.DataFrame, stocks: pd.DataFrame, portfolio: Portfolio, basket: Basket,
                 rules: MarketRules = VN_RULES) -> None:
    """Raises RuntimeError where an order breaks a rule: lots, band, tick, settlement, cash, traded share.

    `stocks` as of `board`, with `accepted` and `arrives`. A defect of ours, so that nothing wrong is ever written.
    """
    cash, late = portfolio.cash, 0.0
    wrong = [] if table["symbol"].is_unique else ["a symbol stands there twice"]
    for row in table.itertuples():
        stock, held = stocks.loc[row.symbol], portfolio.shares.get(row.symbol, 0)
        prices = np.array([row.limit_low, row.reference_price, row.limit_high], dtype="float64")
        ends = np.abs(prices[[2, 0]] / prices[1] - 1)
        band = rules.band(stock["exchange"], next_sessions(row.date, 1))[0]
        step = tick(prices, stock["exchange"])
        is_order = row.action in ("buy", "sell")
        value = row.shares * row.reference_price
        broken = {
            "unknown action": row.action not in ACTIONS,
            "not whole lots": row.shares < 0 or (is_order and (row.shares == 0 or row.shares % stock["lot"] != 0)),
            "off the tick": (np.abs(prices / step - np.round(prices / step)) > 1e-6).any(),
            "outside the band": (np.diff(prices) < 0).any() or (np.abs(ends * prices[1]) > np.maximum(
                band * prices[1] + 1e-6, step[1])).any(),
            "more than is held": row.action == "sell" and row.shares > held,
            "not settled": row.action == "sell" and stock["arrives"] > 1,
            "more than the traded share": is_order and value > basket.traded_share * stock["value"] * (1 + 1e-9),
            "not accepted": row.action == "buy" and not stock["accepted"],
            "bought although held": row.action == "buy" and held >= stock["lot"],
        }
        wrong += [f"{row.symbol}: {name}" for name, found in broken.items() if found]
        if row.action == "sell" and stock["arrives"] < 1 and not stock["at_floor"]:
            cash += row.shares * row.limit_low * (1 - rules.fee - rules.sale_tax)
        if row.action == "buy":
            late += row.shares * row.limit_high * (1 + rules.fee)
    if late > cash + 1:
        wrong.append(f"purchases may cost {late:,.0f} VND, there are {cash:,.0f}")
    if wrong:
        raise RuntimeError(f"orders that break a rule, a defect of vnq_colab; nothing was written: {'; '.join(wrong)}")
