"""The ranking and the orders of a day: forecast from the last prices, written to the workspace, and shown."""

import datetime as dt
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.data.features import FEATURES
from vnq_colab.data.panel import Panel
from vnq_colab.data.prepared import staleness
from vnq_colab.data.splits import to_day, up_to
from vnq_colab.delivery.bundle import Bundle
from vnq_colab.delivery.orders import make_orders, orders_text
from vnq_colab.delivery.paper import Fills, days_of, follow, is_booked, own_forecasts, write_orders, write_table
from vnq_colab.delivery.portfolio import HEADER, MOST_BYTES, Portfolio, paper_portfolio, portfolio_text, read_portfolio
from vnq_colab.errors import ConfigError, DataError, DeliveryError, VnqError, name_a_few
from vnq_colab.evaluation.drift import EVENINGS, Drift, watch
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.evaluation.page import agreement, first_screen, replace_first_screen
from vnq_colab.evaluation.reasons import BY, WHY, reasons
from vnq_colab.files import read_bytes, write_atomic
from vnq_colab.layout import Workspace
from vnq_colab.notebook import Table, page
from vnq_colab.settings import HORIZON

LEAST_DAYS = max(feature.warm_up_days for feature in FEATURES.values())
NOT_SHOWN = ["date", "edge", "score", "reference_price"]  # in a notebook
HEADS = {"limit_low": "limit from [VND]", "limit_high": "to [VND]"}
LEAST_SHARE = 0.8  # of the stocks that the market's features were trained with; below, they mean something else
FEWEST_SHARE = 0.5  # of them; with fewer there is neither a ranking nor an order
N_SHOWN = 20  # best of the accepted stocks, on the screen
NEW = "new"  # instead of a portfolio's file: make one


@dataclass(frozen=True, repr=False)
class Outlook:
    """The judged family's Forecast from the last two days of a price table, with warnings about these prices."""

    bundle: Bundle
    forecast: pd.DataFrame  # with `decision`
    prices: pd.DataFrame
    no_orders: list[str]  # the sentence that says why none are made, where that is so
    warnings: list[str]
    panel: Panel | None = None  # of the last days, with all stocks

    @property
    def day(self) -> pd.Timestamp:
        return self.prices["date"].max()

    @property
    def is_seen(self) -> bool:
        """Whether the models were trained on days after this one."""
        return f"{self.day:%Y-%m-%d}" < self.bundle.manifest["trained_to"]

    @functools.cached_property
    def why(self) -> pd.DataFrame:
        """The `reasons` of the last day, by the first family that can explain itself; no rows where none can."""
        for one in self.bundle.forecasters.values():
            there = one.select(tuple(symbol for symbol in one.symbols if symbol in self.panel.symbols))
            if (found := there.explain(self.panel, self.panel.days == self.day)) is not None and len(found):
                return reasons(found, self.panel, one.family)
        return pd.DataFrame(columns=WHY)

    def latest(self, days_before: int = 0) -> pd.DataFrame:
        """The forecast from the last day, or from one before, with `rank` (1 is the best)."""
        day = np.sort(self.prices["date"].unique())[-1 - days_before]
        rows = self.forecast[self.forecast["date"] == day]
        return rows.assign(rank=rows["score"].rank(ascending=False, method="first").astype("int64"))


def look_ahead(bundle: Bundle, prices: pd.DataFrame, *, index: pd.DataFrame | None = None,
               as_of: str | None = None, refuse_old: bool = False) -> Outlook:
    """The Outlook from the last day of a price table; `as_of` leaves out every later day, as if it were that one.

    Raises DataError and DeliveryError for prices that the bundle cannot be used on, with `refuse_old` also for those
    whose last day is more than 5 sessions before `as_of` (None: today).
    """
    today = to_day(as_of or dt.date.today().isoformat())
    if as_of is not None:
        prices, index = up_to(prices, today), None if index is None else up_to(index, today)
    stale = staleness(prices, today)
    if stale and refuse_old:
        raise DataError(f"{stale[0]}; no orders are made of old prices.")
    manifest = bundle.manifest
    if manifest["market_index"] not in (None, index is not None):
        raise DeliveryError("the bundle was trained with a market index: give one with --index." if index is None else
                            "the bundle was trained without a market index: leave --index out.")
    n_days, needed = prices["date"].nunique(), LEAST_DAYS + manifest["look_back"]
    if n_days < needed:
        raise DataError(f"these prices have {n_days} days, a forecast needs at least {needed} (better 320, for the "
                        "features of 252 days). Bring the whole history, not only the last weeks.")
    panel, day = bundle.recent_panel(prices, index, n_days=2), prices["date"].max()
    forecast = bundle.predict_latest(panel, n_days=2)
    forecast, warnings = forecast[forecast["family"] == bundle.judged_family], []
    share = np.isin(manifest["market_symbols"], prices["symbol"].unique()).mean()
    if share < FEWEST_SHARE:
        raise DataError(f"these prices have {share:.0%} of the {len(manifest['market_symbols'])} stocks that the ranks "
                        "were trained on, so an order among them says nothing. Bring all stocks.")
    if share < LEAST_SHARE:
        warnings.append(f"the market's features were trained with {len(manifest['market_symbols'])} stocks, these "
                        f"prices have {share:.0%} of them: breadth, ranks and market returns mean something else. "
                        "Bring all stocks.")
    if absent := sorted(set(bundle.decisions) - set(forecast.loc[forecast["date"] == day, "symbol"])):
        warnings.append(f"no price on {day:%Y-%m-%d} for {name_a_few(absent)}: not forecast")
    outlook = Outlook(bundle, forecast, prices, stale, warnings, panel)
    if outlook.is_seen:
        outlook.no_orders.append(f"these models were trained on prices to {manifest['trained_to']}: this ranking is no "
                                 f"forecast of {day:%Y-%m-%d}")
    return outlook


def ranking(outlook: Outlook) -> pd.DataFrame:
    """One row for each judged symbol, best first, those without a price on the last day at the end.

    Columns: rank among all of them (1 is the best), symbol, date, decision, score, p_up, edge over the mean stock in 5
    days [%], expected 5-day return [%] of a family that forecasts one beside the edge, its spread [%], and the ends of
    its 90 % interval [%], and what lifts and what lowers it, by which family.
    """
    latest, decisions = outlook.latest().sort_values("rank"), outlook.bundle.decisions
    absent = [symbol for symbol in decisions if symbol not in set(latest["symbol"])]
    latest = latest.astype({"rank": "Int64"}).set_index("symbol").reindex([*latest["symbol"], *absent]).reset_index()
    percent = {name: 100 * np.expm1(latest[name]) for name in ("edge", "mean", "low", "high")}
    own_mean = {} if latest["mean"].equals(latest["edge"]) else {"expected 5-day return [%]": percent["mean"]}
    return pd.DataFrame({
        "rank": latest["rank"], "symbol": latest["symbol"], "date": outlook.day,
        "decision": latest["symbol"].map(decisions), "score": latest["score"], "p_up": latest["p_up"],
        "edge [%]": percent["edge"], **own_mean, "spread [%]": 100 * latest["scale"],
        "low [%]": percent["low"], "high [%]": percent["high"]}).join(outlook.why, on="symbol")


def orders(bundle: Bundle, prices: pd.DataFrame, portfolio: str | Path | None = None, capital: float | None = None, *,
           index: pd.DataFrame | None = None, as_of: str | None = None) -> pd.DataFrame:
    """What to do on the session after the last day of a price table, as of `make_orders`.

    `portfolio` is a file, or None for one on paper; `capital` is the most that the basket may be worth [VND], and what
    a portfolio on paper has (a billion without it). Raises DataError for prices older than 5 sessions, and for a day
    that the models were trained on.
    """
    outlook = look_ahead(bundle, prices, index=index, as_of=as_of, refuse_old=True)
    if outlook.no_orders:
        raise DataError(f"{outlook.no_orders[0]}, so there are no orders. Leave as_of out, or take an earlier bundle.")
    return make_orders(outlook, _portfolio(portfolio, outlook.prices, capital), capital)


def _portfolio(path: str | Path | None, prices: pd.DataFrame, capital: float | None) -> Portfolio:
    return paper_portfolio(capital) if path in (None, NEW) else read_portfolio(path, prices)


@dataclass(frozen=True, repr=False)
class DayPlan:
    """The ranking and the orders of a day, and the files that they were written to."""

    outlook: Outlook
    table: pd.DataFrame  # as of `ranking`
    shown: pd.DataFrame  # the rows of it that are printed
    orders: pd.DataFrame | None  # None: the prices are too old
    agreement: float | None  # rank correlation of the final fit with the last fold's models on this day
    files: list[Path]  # that were written
    fills: Fills | None  # of the orders before; None: there were none
    drift: Drift | None  # None: of a day that the models were trained on

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json; what is not known is null."""
        return {"date": f"{self.outlook.day:%Y-%m-%d}", "file": str(self.files[0]) if self.files else None,
                "forecasts": _records(self.table),
                "orders": None if self.orders is None else _records(self.orders),
                "account": None if self.orders is None else self.orders.attrs, "no_orders": self.outlook.no_orders,
                "warnings": self.outlook.warnings, "files": [str(path) for path in self.files],
                "fills": self.fills and {"orders": _records(self.fills.table), "notes": self.fills.notes},
                "drift": self.drift and vars(self.drift)}

    def _repr_html_(self) -> str:
        known, as_of, shown, (title, *_), files = self._parts()
        notes = [] if self.orders is None else [f"  {note}" for note in self.orders.attrs["notes"]]
        has_orders = self.orders is not None and (self.orders["action"] != "wait").any()
        tables = [Table(rows.drop(columns=NOT_SHOWN, errors="ignore").rename(columns=HEADS).replace(
                  {"reason": {re.escape(BY) + ".*": ""}}, regex=True))._repr_html_() if there else instead
                  for rows, there, instead in ((self.orders, has_orders, ""), (self.shown.drop(columns=[*WHY]), len(
                      self.shown), page(shown[0])), (self.shown[["symbol", *WHY]], len(self.shown), ""))]
        why = f"<details><summary>What lifts and what lowers each of them</summary>{tables[2]}</details>"
        to_do = "\n".join([title, SYNTHETIC_NOTE * self.outlook.bundle.manifest["synthetic"], *notes])
        parts = [tables[0], page(as_of[0]), tables[1], why * bool(len(self.outlook.why))]
        return "".join([page(to_do), *parts, page("\n".join(known + files))])

    def __repr__(self) -> str:
        return "\n".join(line for part in self._parts() for line in part)

    def _parts(self) -> list[list[str]]:
        """The lines on what was known, of which day the ranking is, the ranking, what to do, and the files."""
        stable = "" if self.agreement is None else f" (rank correlation {self.agreement:.2f} with the judged models)"
        shown = [self.shown.drop(columns=[*WHY]).to_string(index=False, float_format="{:.3f}".format)
                 if len(self.shown) else "no symbol is accepted; --all shows every forecast"]
        shown += [f"{len(self.shown)} of {len(self.table)} stocks, all with --all and in predictions/"] * (
            0 < len(self.shown) < len(self.table))
        orders = f"NO ORDERS: {self.outlook.no_orders[0].upper()}" if self.orders is None else orders_text(self.orders)
        return [[repr(self.outlook.bundle), *(f"warning: {text}" for text in self.outlook.warnings),
                 *(repr(part) for part in (self.fills, self.drift) if part is not None)],
                [f"As of {self.outlook.day:%Y-%m-%d}, by the final fit{stable}:"], shown, orders.splitlines(),
                [f"→ {path}" for path in self.files]]


def plan_day(ws: Workspace, bundle: Bundle, prices: pd.DataFrame, *, index: pd.DataFrame | None = None,
             as_of: str | None = None, portfolio: str | Path | None = None, capital: float | None = None,
             everyone: bool = False, refuse_old: bool = False, paper: bool = False) -> DayPlan:
    """Ranking and orders, written to `predictions/` and `orders/`, and onto the first screen of the run's report.

    `portfolio` None takes the workspace's portfolio.csv, and one on paper where there is none; "new" makes it, of
    `capital` in cash. With `paper` that file is first brought forward by what was filled of the last orders. Prices
    older than 5 sessions give a ranking without orders, with `refuse_old` DataError; a day that the models were trained
    on gives the ranking alone, too, and leaves the report as it is. Nothing is written for an evening that is over and
    had its forecast.
    """
    if portfolio == NEW and ws.portfolio.exists() and not HEADER.encode().startswith(
            read_bytes(ws.portfolio, MOST_BYTES)):  # a part of our header is all that a kill leaves
        raise ConfigError(f"{ws.portfolio}: there is a portfolio already, and it is not overwritten. Leave --portfolio "
                          "out to use it, or move it away first.")
    if paper and portfolio != NEW and (portfolio is not None or not ws.portfolio.exists()):
        raise ConfigError(f"--paper (in Python: paper=) brings {ws.portfolio} forward, and no other. Begin it with "
                          "--portfolio new --capital 500e6; then leave --portfolio out.")
    outlook = look_ahead(bundle, prices, index=index, as_of=as_of, refuse_old=refuse_old)
    is_over, own_scores = _known_of(ws, outlook)
    fills = follow(ws, outlook.prices, book=paper and portfolio is None and not is_over)
    is_own = portfolio is None and ws.portfolio.exists() and not is_over  # that evening had another
    if is_over:
        outlook.no_orders.append("this evening is over, and its orders stay as they were made")
    elif is_own and fills is not None and fills.unknown:
        outlook.no_orders.append(f"{ws.portfolio.name} is as it was before the fills of {fills.day:%Y-%m-%d}: enter "
                                 "them, or give --paper; where nothing was ordered, name it with --portfolio")
    own = ws.portfolio if is_own else portfolio
    table, to_do, day, files = ranking(outlook), None, f"{outlook.day:%Y-%m-%d}", []
    if not outlook.no_orders:
        held = _portfolio(own, outlook.prices, capital)
        to_do = make_orders(outlook, held, capital)
    is_new = portfolio == NEW and to_do is not None and not is_over
    if not is_over:
        files = [write_table(ws.predictions / f"{day}.csv", table.assign(
            **{name: bundle.manifest[name] for name in ("run_id", "trained_to")}))]
        if to_do is not None:
            content = read_bytes(own, MOST_BYTES) if is_own else None
            files.append(write_orders(ws.orders / f"{day}.csv", to_do, held,
                                      portfolio_text(held).encode() if is_new else content))
        if fills is not None:
            files.append(write_table(ws.orders / f"{fills.date:%Y-%m-%d}_filled.csv", fills.table))
        if not outlook.is_seen and (report := _show_on_report(ws, outlook, to_do, table, as_of)):
            files.append(report)
    if is_new:  # last: once it is there, it is not made again
        write_atomic(ws.portfolio, portfolio_text(held).encode())
        files.append(ws.portfolio)
    shown = table if everyone else table[table["decision"] == "accept"].head(N_SHOWN)
    drift = None if outlook.is_seen else watch(bundle.manifest["monitor"], outlook.panel, own_scores)
    return DayPlan(outlook, table, shown, to_do, agreement(ws, bundle.manifest, table), files, fills, drift)


def _known_of(ws: Workspace, outlook: Outlook) -> tuple[bool, pd.DataFrame]:
    """Whether the evening is over and had its forecast; and the scores of our own real forecasts."""
    day, paths = f"{outlook.day:%Y-%m-%d}", days_of(ws.predictions)
    until = [path for path in paths if path.stem <= day]
    real = own_forecasts(until[-EVENINGS[-1] - 2 * HORIZON:])
    is_over = day in real and (outlook.is_seen or until != paths or is_booked(ws.orders / f"{day}.json"))
    if is_over:
        outlook.warnings.append(f"the evening of {day} is over, and what was known then stays: nothing is written")
    elif day in real and (real[day]["run_id"] != outlook.bundle.manifest["run_id"]).any():
        outlook.warnings.append(f"the ranking of {day} by another run is replaced")
    return is_over, pd.concat(real.values()) if real else pd.DataFrame({"symbol": [], "date": [], "score": []})


def _show_on_report(ws: Workspace, outlook: Outlook, orders: pd.DataFrame | None, table: pd.DataFrame,
                    as_of: str | None) -> Path | None:
    """Puts the orders onto the report of the bundle's run; None where it has none, or was judged again since."""
    manifest, day = outlook.bundle.manifest, outlook.day
    folder, verdict = ws.report_folder(manifest["run_id"]), manifest["verdict"]
    if verdict is None or not (folder / "report.html").exists():
        return None
    now = day if manifest["synthetic"] else to_day(as_of) if as_of else pd.Timestamp.now()
    try:
        if Verdict.load(folder / "verdict.json").market["decision"] != verdict["market"]["decision"]:
            raise DeliveryError("the run was judged again after this bundle was exported, otherwise: export it again "
                                "before you trade")
        replace_first_screen(folder / "report.html", first_screen(
            verdict | {"symbols": manifest["symbols"]}, orders=orders, ranking=table, prices_to=day, now=now,
            note=SYNTHETIC_NOTE if manifest["synthetic"] else "",
            warnings=[] if orders is None else orders.attrs["notes"][1:]))  # but the portfolio
    except (VnqError, FileNotFoundError) as error:
        outlook.warnings.append(f"the report stays as it is: {error}")
        return None
    return folder / "report.html"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    days = table.select_dtypes("datetime")
    dated = table.assign(**{name: days[name].dt.strftime("%Y-%m-%d") for name in days})
    return json.loads(dated.to_json(orient="records", double_precision=10))
