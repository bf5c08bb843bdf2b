"""The first screen of a report: may I trade on this, what do I sell, buy, keep; in one minute, on a phone.

It is made of plain values alone, those of `Verdict.to_dict()`, so that the orders of another day can be put in its
place without anything computed anew.
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.data.market import VN_RULES, is_session
from vnq_colab.data.prepared import MOST_SESSIONS
from vnq_colab.errors import DataError
from vnq_colab.evaluation.basket_result import FEWEST_YEARLY_DAYS
from vnq_colab.evaluation.page import render
from vnq_colab.files import write_atomic

BEGIN, END = "<!-- first screen -->", "<!-- end of the first screen -->"
N_RANKED = 10  # best of a ranking without orders


def first_screen(verdict: dict[str, Any], *, orders: pd.DataFrame | None = None, prices_to: pd.Timestamp,
                 now: pd.Timestamp, note: str = "", warnings: Sequence[str] = ()) -> str:
    """HTML between two comments, which `replace_first_screen` finds.

    `verdict` as of `Verdict.to_dict()`; `orders` as of `delivery.orders`, None before there are any; `prices_to` is the
    last day of the prices, `now` when this is read; `note` is what nobody may miss; `warnings` are sentences.
    """
    summary, prices_to, now = verdict["summary"], pd.Timestamp(prices_to), pd.Timestamp(now)
    since = pd.date_range(prices_to.normalize() + pd.Timedelta(days=1), now.normalize())
    accepted = sorted(name for name, row in verdict["symbols"].items() if row["decision"] == "accept")
    bars = _bars([row for row in summary.get("by_year") or [] if row["open"] is not None])
    families = {row["family"]: row for row in summary.get("families") or []}
    return render(
        "first_screen.html", begin=BEGIN, end=END, now=now, prices_to=prices_to, note=note, market=verdict["market"],
        n_sessions=int(is_session(since).sum()), most_sessions=MOST_SESSIONS, power=(summary.get("power") or {}),
        basket=summary.get("basket"), totals=_totals(summary.get("basket")), fewest_days=FEWEST_YEARLY_DAYS,
        bars=bars, judged=families.get(bars["family"]), orders=_orders(orders, summary, warnings),
        accepted=accepted, others=sorted(set(verdict["symbols"]) - set(accepted)))


def replace_first_screen(report: Path, html: str) -> None:
    """Puts another first screen into a report.html, whole or not at all. Raises DataError where it has none."""
    try:
        page = Path(report).read_text(encoding="utf-8")
    except OSError:
        page = ""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{report}: there is no report with a first screen. Make it with: python -m vnq_colab validate")
    whole = f"{before}{html}{after}".encode()
    write_atomic(Path(report), lambda file: file.write(whole))


def _orders(orders: pd.DataFrame | None, summary: dict[str, Any], warnings: Sequence[str]) -> dict[str, Any] | None:
    """The orders of the next session by action, with what they cost; None where there are none yet."""
    if orders is None:
        return None
    reason = orders["reason"].astype(str)
    orders = orders.assign(was=reason.str.extract(r"\bwas (\d+)")[0], why=reason.str.split("; rank").str[0],
                           value=orders["shares"] * orders["reference_price"])
    by_action = {action: orders[orders["action"] == action] for action in ("sell", "buy", "keep", "wait")}
    by_action["wait"] = by_action["wait"].sort_values("rank", kind="stable")
    sold, bought = (by_action[side]["value"].sum() for side in ("sell", "buy"))
    slippage = (summary.get("settings") or {}).get("slippage", VN_RULES.slippage)
    unsure = [f"{row.symbol} {part.strip()}" for side in ("sell", "buy") for row in by_action[side].itertuples()
              for part in row.reason.split(";") if "may not fill" in part]
    account = {"k": (summary.get("basket") or {}).get("k", ""), "nav": None, "cash": None, "day": None} | orders.attrs
    return {**account, "day": account["day"] and pd.Timestamp(account["day"]),
            **{action: list(part.itertuples()) for action, part in by_action.items()},
            "best": list(by_action["wait"].dropna(subset="rank").head(N_RANKED).itertuples()),
            "sold": sold, "bought": bought, "warnings": [*unsure, *warnings],
            "cost": (sold + bought) * (VN_RULES.fee + slippage) + sold * VN_RULES.sale_tax}


def _totals(basket: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """By account its `totals`, and `in_all`, its whole return [fraction], where the days are too few for one a year."""
    found = {row["name"]: row for row in basket["totals"]} if basket else {}
    if basket and basket["alpha"] is None:
        found = {name: row | {"in_all": prod(1 + year[name] for year in basket["by_year"]) - 1}
                 for name, row in found.items() if name in basket["by_year"][0]}
    return found


def _bars(years: list[dict[str, Any]]) -> dict[str, Any]:
    """The rank correlation of each year with its 95 % interval, as places in a drawing 340 wide and 93 high."""
    ends = [row[name] for row in years for name in ("low", "high", "open") if row.get(name) is not None]
    most, least = max([*ends, 0.02]), min([*ends, 0.0])

    def y(value: float | None) -> float | None:
        return None if value is None else round(4 + 64 * (most - value) / (most - least), 1)

    return {"family": years[0]["family"] if years else "", "zero": y(0), "step": 340 / max(len(years), 1), "years": [
        {"period": row["period"], "value": row["open"], "y": y(row["open"]), "low": y(row.get("low")),
         "high": y(row.get("high"))} for row in years]}
