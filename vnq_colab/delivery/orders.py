"""Tomorrow's orders: what to buy, sell and keep, by the basket's rule, under the exchange's rules and in whole lots.

Purchases are covered at the ceiling, with fee: a broker blocks that much, and an order at the open may be filled
anywhere in the band. Sales count at the floor, and only those that can be filled from the morning on.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vnq_colab.data.market import EXCHANGES, VN_RULES, next_sessions, on_tick, price_limits, tick, trading_days
from vnq_colab.delivery.portfolio import CAPITAL, Portfolio
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation.basket import Basket, decide
from vnq_colab.evaluation.market_data import MarketData
from vnq_colab.evaluation.reasons import BY, SENTENCE

if TYPE_CHECKING:
    from vnq_colab.delivery.predict import Outlook

COLUMNS = ("date", "action", "symbol", "shares", "reference_price", "limit_low", "limit_high", "rank", "edge", "reason")
ACTIONS = ("sell", "buy", "wait", "keep")
MEDIAN_DAYS = 20  # [sessions] of the median traded value; a day without trades counts as 0


def make_orders(outlook: "Outlook", portfolio: Portfolio, capital: float | None = None) -> pd.DataFrame:
    """The checked orders of an Outlook, sales first: one row for each, and for what is kept; columns as in COLUMNS.

    `capital` [VND] is the most that the basket may be worth, None all of the portfolio. `attrs` holds day, nav and cash
    [VND], k, market, traded_share and notes. Where the market is not accepted there are only `wait` rows, one for each
    stock.
    """
    bundle = outlook.bundle
    basket, market = bundle.manifest["basket"] or Basket().limited(len(bundle.decisions)), bundle.market_decision
    stocks = _stocks(outlook, portfolio, basket)
    judged = ((bundle.manifest.get("verdict") or {}).get("summary") or {}).get("basket") or {"capital": CAPITAL}
    nav = portfolio.cash + float((stocks["held"] * stocks["reference_price"]).sum())
    worth, lots = nav if capital is None else min(nav, capital), stocks["reference_price"] * stocks["lot"]
    if worth < (needed := lots.min() * (1 + VN_RULES.fee)):
        raise ConfigError(f"{worth:,.0f} VND are less than one lot of any stock: the cheapest, {lots.idxmin()}, needs "
                          f"{np.ceil(needed):,.0f}. Give more with --capital, or in the portfolio's row CASH.")
    if market == "accept":
        _decide(stocks, basket)
        cash = portfolio.cash + _sell(stocks, basket)
        _buy(stocks, basket, cash, worth)
    else:
        stocks["action"], stocks["shares"] = "wait", stocks["held"]
        stocks["why"] = [[f"market not accepted: {market}"]] * len(stocks)
    table = _table(stocks, outlook.day)
    check_orders(table, stocks, portfolio, basket)
    table.attrs = {"day": f"{next_sessions(outlook.day, 1)[0]:%Y-%m-%d}", "nav": nav, "cash": portfolio.cash,
                   "k": basket.k, "market": market,
                   "notes": [f"portfolio: {portfolio.source}",
                             *_notes(table, stocks, outlook, market, basket, worth, judged["capital"])],
                   "traded_share": basket.traded_share}
    return table


def _stocks(outlook: "Outlook", portfolio: Portfolio, basket: Basket) -> pd.DataFrame:
    """One row for each judged or held stock, by symbol: its board of tomorrow, its forecast, what is held of it."""
    decisions, latest = outlook.bundle.decisions, outlook.latest().set_index("symbol")
    held = {symbol: shares for symbol, shares in portfolio.shares.items() if shares}
    names = sorted({*decisions, *held} & {*outlook.prices["symbol"].unique()})
    stocks = board(outlook.prices, names).join(latest[["score", "edge", "rank"]]).join(outlook.why)
    stocks["was"], stocks["n_ranked"] = outlook.latest(1).set_index("symbol")["rank"], len(latest)
    stocks["accepted"] = [decisions.get(symbol) == "accept" for symbol in names]
    stocks["held"] = [held.get(symbol, 0) for symbol in names]
    most = basket.traded_share * stocks["value"] / stocks["reference_price"]
    stocks["most"] = np.floor(most / stocks["lot"]).astype("int64") * stocks["lot"]  # [shares] of one order
    past, ahead = trading_days(outlook.prices), next_sessions(outlook.day, 9)
    stocks["arrives_on"] = [portfolio.sellable_from.get(symbol) for symbol in names]
    stocks["arrives"] = [-np.inf if pd.isna(day) else past.append(ahead).searchsorted(day) - len(past) + 1
                         for day in stocks["arrives_on"]]  # session of their arrival: 0 is the last day, 1 tomorrow
    stocks["days_held"] = VN_RULES.sellable_after(ahead[:1], "close")[0] + 1 - stocks["arrives"]  # that of purchase too
    return stocks.assign(action="", shares=0, cut=0.0, why=[[] for _ in names])  # cut: by traded value [VND]


def board(prices: pd.DataFrame, symbols: list[str]) -> pd.DataFrame:
    """`[symbols]`: reference_price, limit_low, limit_high [VND] and lot of tomorrow; value, at_ceiling, at_floor.

    On raw prices where `raw_close` is known, else on adjusted ones, of which the last day's are raw. `value` is the
    median value traded in a day of the last 20 [VND]. Bands are the daily ones: a first day's is wider, and UPCOM's
    stand on an average price that daily data does not have.
    """
    days = trading_days(prices)
    rows = prices[prices["symbol"].isin(symbols)].sort_values(["symbol", "date"])
    rows = rows.groupby("symbol", observed=True).tail(MEDIAN_DAYS)
    exchange = rows.get("exchange", pd.Series("HOSE", rows.index))
    exchange = exchange.where(exchange.isin(EXCHANGES), "HOSE").to_numpy("str")
    raw = rows.get("raw_close", rows["close"])
    shown = raw.where(raw > 0, rows["close"])
    rows = rows.assign(value=shown * rows["volume"], raw_close=on_tick(shown.to_numpy("float64"), exchange))
    rows["close"] = rows["close"].where(raw > 0, rows["raw_close"]) if "raw_close" in prices else rows["raw_close"]
    value = rows.pivot(index="date", columns="symbol", values="value").reindex(
        index=days[-MEDIAN_DAYS:], columns=symbols).fillna(0.0).median()
    market = MarketData.of(rows, VN_RULES)
    market = market.cut(np.array(symbols, dtype=object), len(market.days) - 1, len(market.days))  # the last day alone
    exchange, traded, tomorrow = market.exchange[0], market.trades[0] & (market.days[0] == days[-1]), next_sessions(
        days[-1], 1)
    close = on_tick((market.close * market.basis)[0], exchange)
    high, low = price_limits(close, VN_RULES.band(exchange, tomorrow), exchange)
    return pd.DataFrame({
        "exchange": exchange, "reference_price": close, "limit_low": np.maximum(low, tick(close, exchange)),
        "limit_high": high, "lot": VN_RULES.lots(exchange, tomorrow), "value": value.to_numpy(),
        "at_ceiling": traded & (close >= market.ceiling[0] - 0.01), "at_floor": traded & ~market.can_sell_late[0],
    }, index=pd.Index(symbols, name="symbol"))


def _decide(stocks: pd.DataFrame, basket: Basket) -> None:
    """Sets `action` by the basket's rule: the one of the backtest, in which only accepted stocks are bought.

    The rank at which a stock is sold is the one among all; among those that may be held it is as many places as of
    them stand above it, at least k. Fewer shares than a lot take no place.
    """
    held, score = (stocks["held"] >= stocks["lot"]).to_numpy(), stocks["score"].to_numpy("float64")
    eligible = (held | stocks["accepted"].to_numpy()) & np.isfinite(score)
    keep = max(basket.k, int((eligible & (stocks["rank"] <= basket.keep)).sum()))
    places = decide((basket.k, keep, basket.hold_days), np.where(eligible, score, np.nan)[None],
                    stocks["edge"].to_numpy("float64")[None], held[None],
                    np.where(held, stocks["days_held"], 0.0)[None], VN_RULES.round_trip)
    leave, enter = (np.isin(np.arange(len(held)), part) for part in places)
    above = stocks["score"].where(eligible).rank(ascending=False, method="first") <= keep
    is_free = (eligible & ~held & ~enter).any()
    stocks["action"] = np.select([leave & (stocks["arrives"] > 1), leave, enter, stocks["held"] > 0],
                                 ["wait", "sell", "buy", "keep"], "")
    stocks["shares"] = stocks["held"]
    for row in stocks[stocks["action"].isin(["wait", "keep"])].itertuples():
        if row.action == "wait":
            row.why.append(f"T+2, {row.arrives_on:%a} afternoon")
            continue
        row.why.append(next(why for why, holds in (
            ("fewer shares than a lot: sell them by hand", row.held < row.lot),
            ("no forecast: decide yourself", not np.isfinite(row.score)),
            (f"kept down to rank {basket.keep}", row.rank <= basket.keep),
            (f"held for less than {basket.hold_days} days", row.days_held < basket.hold_days),
            (f"among the {keep} best of what is held or accepted", above[row.Index]),
            ("nothing accepted is left to swap it for", not is_free),
            ("a swap does not pay for its costs", True)) if holds))
        row.why.extend(["not accepted: not bought again once it is sold"] * (not row.accepted))


def _sell(stocks: pd.DataFrame, basket: Basket) -> float:
    """Sets the sales' shares, `wait` for what cannot be sold; gives what the morning's bring at the floor [VND]."""
    brings = 0.0
    for row in stocks[stocks["action"] == "sell"].itertuples():
        whole = row.held // row.lot * row.lot
        shares = min(whole, row.most)
        if not shares:
            stocks.loc[row.Index, "action"] = "wait"
            row.why.append(_no_room(basket))
            continue
        stocks.loc[row.Index, "shares"] = shares
        if shares < row.held:
            row.why.append(f"{row.held - shares:,} stay: " + (_no_room(basket) if shares < whole else "no lot"))
        if row.arrives == 1:
            row.why.append(f"from {row.arrives_on:%a} afternoon")
        if row.at_floor:
            row.why.append("closed at the floor: may not fill")
        elif row.arrives < 1:
            brings += shares * row.limit_low * (1 - VN_RULES.fee - VN_RULES.sale_tax)
    return brings


def _buy(stocks: pd.DataFrame, basket: Basket, cash: float, worth: float) -> None:
    """Sets the shares of the purchases, best first: equal places, covered by the cash. What gets none waits."""
    is_left = stocks["held"] - stocks["shares"].where(stocks["action"] == "sell", 0) >= stocks["lot"]
    buys, place = stocks[stocks["action"] == "buy"].sort_values("rank"), worth / basket.k
    n_free = max(basket.k - int(is_left.sum()), 0)
    for number, row in enumerate(buys.itertuples()):
        a_lot, at_ceiling = (price * row.lot * (1 + VN_RULES.fee) for price in (row.reference_price, row.limit_high))
        share = cash / max(min(n_free, len(buys)) - number, 1)  # the rest goes to the later ones
        lots = {"no place until something is sold": np.inf if number < n_free else 0,
                f"a lot is {a_lot / 1e6:,.1f} m, a place {place / 1e6:,.1f} m": place / a_lot,
                _no_room(basket): row.most / row.lot, "not enough cash at the ceiling": share / at_ceiling}
        least = min(lots, key=lambda why: np.floor(lots[why] + 1e-9))
        n_lots = int(lots[least] + 1e-9)
        wanted = int(min(value for why, value in lots.items() if why != _no_room(basket)) + 1e-9)
        if n_lots < wanted:
            stocks.loc[row.Index, "cut"] = (wanted - n_lots) * a_lot
            row.why.extend([f"of {wanted * row.lot:,} shares: {least}"] * (n_lots > 0))
        if n_lots:
            stocks.loc[row.Index, "shares"] = n_lots * row.lot
            cash -= n_lots * at_ceiling
            row.why.extend(_passed_over(stocks, row.rank) if row.rank > basket.k else [])
            row.why.extend(["closed at the ceiling: may not fill"] * row.at_ceiling)
        else:
            stocks.loc[row.Index, "action"] = "wait"
            row.why.append(least)


def _passed_over(stocks: pd.DataFrame, rank: float) -> list[str]:
    """Why a stock of this rank is bought and not one before it."""
    better = stocks[(stocks["rank"] < rank) & (stocks["action"] != "buy")]
    held = better["held"] >= better["lot"]
    counts = {"held": held.sum(), "not accepted": (~held & ~better["accepted"]).sum(),
              "not to be bought now": (~held & better["accepted"]).sum()}
    return [f"better ranks: {', '.join(f'{n} {state}' for state, n in counts.items() if n)}"] if len(better) else []


def _no_room(basket: Basket) -> str:
    return f"at most {basket.traded_share:.0%} of a day's traded value"


def _table(stocks: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The order table, sales first, each action by rank."""
    def reason(row: Any) -> str:
        rank = [] if np.isnan(row.rank) else [f"rank {row.rank:.0f} of {row.n_ranked}" + (
            "" if np.isnan(row.was) else f", was {row.was:.0f}")]
        told = "" if pd.isna(row.lifts) else BY + SENTENCE.format(row.lifts, row.lowers, row.explained_by)
        return "; ".join([*rank, *row.why]) + told

    table = stocks.assign(date=day, reason=[reason(row) for row in stocks.itertuples()]).reset_index()
    table = table[table["action"] != ""].astype({"rank": "Int64"} | dict.fromkeys(COLUMNS[3:7], "int64"))
    table["place"] = table["action"].map(ACTIONS.index)
    return table.sort_values(["place", "rank", "symbol"], ignore_index=True)[list(COLUMNS)]


def orders_text(orders: pd.DataFrame) -> str:
    """The orders of `make_orders` as lines of text, as a person types them in."""
    facts = orders.attrs
    lines = [f"NO ORDERS: the market is not accepted ({facts['market']}), so this is a ranking only"]
    if facts["market"] == "accept":
        lines = [f"Orders for {pd.Timestamp(facts['day']):%a %d/%m/%Y}: basket of {facts['k']}, account "
                 f"{facts['nav']:,.0f} VND, of it cash {facts['cash']:,.0f}"]
        lines += [f"{row.action.upper():4} {row.symbol:6} {row.shares:>9,}  limit {row.limit_low:,}-{row.limit_high:,}"
                  f"  {row.reason}".replace(BY, "\n  ") for row in orders.itertuples()]
    return "\n".join([*lines, *(f"  {note}" for note in facts["notes"])])


def _notes(table: pd.DataFrame, stocks: pd.DataFrame, outlook: "Outlook", market: str, basket: Basket, worth: float,
           judged: float) -> list[str]:
    """What a person must know of these prices and bands, and of an account larger than that which was judged."""
    cut = stocks.loc[stocks["cut"] > 0, "cut"]
    traded, held = table.loc[table["action"].isin(["buy", "sell"]), "symbol"], stocks.index[stocks["held"] > 0]
    unknown = [symbol for symbol in held if symbol not in outlook.bundle.decisions]
    return [note for note, holds in (
        (f"the basket was judged with {judged / 1e9:,.3g} bn VND, this is {worth / 1e9:,.3g} bn: a larger one earns "
         "less, see Costs and capacity in the report", worth > 2 * judged),
        (f"{len(cut)} purchase{'s are' if len(cut) > 1 else ' is'} cut to {_no_room(basket)}: {cut.sum() / 1e9:,.3g} "
         "bn VND less are bought", len(cut) > 0),
        ("reference prices are the adjusted closes: those of the last day are raw, unless a dividend or a right is cut "
         "off tomorrow", "raw_close" not in outlook.prices.columns),
        (f"you hold {', '.join(unknown)}, not judged by this bundle: kept, and yours to decide", bool(unknown)),
        (f"you hold {', '.join(held)}: nothing is advised about them while the market is not accepted",
         market != "accept" and len(held) > 0),
        ("bands of UPCOM stand on the day's average price, which is not known here: look at the board",
         (stocks.loc[traded, "exchange"] == "UPCOM").any()),
        ("place the sales first: their proceeds pay for purchases", {"buy", "sell"} <= set(table["action"]))) if holds]


def check_orders(table: pd.DataFrame, stocks: pd.DataFrame, portfolio: Portfolio, basket: Basket) -> None:
    """Raises RuntimeError, for a defect of ours, where an order breaks a rule; `stocks` with `accepted`, `arrives`."""
    if table.empty:
        return
    rows = table.join(stocks[["exchange", "lot", "value", "accepted", "arrives", "at_floor"]], on="symbol")
    held, shares = rows["symbol"].map(portfolio.shares).fillna(0), rows["shares"]
    buy, sell = rows["action"] == "buy", rows["action"] == "sell"
    exchange = rows["exchange"].to_numpy()
    prices = rows[["limit_low", "reference_price", "limit_high"]].to_numpy("float64")  # [orders, 3]
    step = tick(prices, exchange[:, None])
    band = VN_RULES.band(exchange, next_sessions(table["date"].max(), 1))
    high, low = price_limits(prices[:, 1], band, exchange)
    ends = np.column_stack([np.maximum(low, step[:, 1]), prices, high])
    broken = {
        "stands there twice": rows["symbol"].duplicated(), "unknown action": ~rows["action"].isin(ACTIONS),
        "not whole lots": (shares < 0) | ((buy | sell) & ((shares == 0) | (shares % rows["lot"] != 0))),
        "off the tick": (np.abs(prices / step - np.round(prices / step)) > 1e-6).any(axis=1),
        "outside the band": (np.diff(ends) < 0).any(axis=1), "more than is held": sell & (shares > held),
        "not settled": sell & (rows["arrives"] > 1), "not accepted": buy & ~rows["accepted"],
        "more than the traded share": (buy | sell) & (shares * prices[:, 1] > (1 + 1e-9) * basket.traded_share
                                                      * rows["value"]),
        "bought although held": buy & (held >= rows["lot"])}
    wrong = [f"{symbol}: {rule}" for rule, is_broken in broken.items() for symbol in rows.loc[is_broken, "symbol"]]
    in_time = sell & (rows["arrives"] < 1) & ~rows["at_floor"]
    cash = portfolio.cash + (shares * rows["limit_low"])[in_time].sum() * (1 - VN_RULES.fee - VN_RULES.sale_tax)
    cost = (shares * rows["limit_high"])[buy].sum() * (1 + VN_RULES.fee)
    if cost > cash + 1:
        wrong.append(f"purchases may cost {cost:,.0f} VND, there are {cash:,.0f}")
    if wrong:
        raise RuntimeError(f"orders that break a rule, a defect of vnq_colab; nothing was written: {'; '.join(wrong)}")
