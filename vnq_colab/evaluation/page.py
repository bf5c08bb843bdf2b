"""The page of a report: its Jinja templates, how they write numbers and tables, and its first screen.

A page needs no network and no other file: pictures and tables are in it as data; Jinja escapes every text. The first
screen is made of plain values alone, so that another day's orders can be put in its place.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vnq_colab.data.market import VN_RULES, count_sessions
from vnq_colab.data.prepared import MOST_SESSIONS
from vnq_colab.errors import DataError, StorageError, VnqError
from vnq_colab.evaluation.basket_result import FEWEST_YEARLY_DAYS
from vnq_colab.evaluation.gates import Verdict
from vnq_colab.evaluation.reasons import BY, WHY, plain_name
from vnq_colab.files import read_bytes, sha256_of, write_atomic
from vnq_colab.layout import Workspace

FORECAST, FORECAST_HASH = "forecast.parquet", "forecast_sha256"  # beside verdict.json, and in its summary
BEGIN, END = "<!-- first screen -->", "<!-- end of the first screen -->"
VERDICT_ID = re.compile(r'data-verdict="(\w+)"')  # of all that a first screen says beside the orders
MOST_BYTES = 10**8  # of a report
DASH = "–"  # what is not known


def number(value: Any, form: str) -> str:
    """A number as text; a dash for what is not known; a text as it is."""
    if isinstance(value, str):
        return value
    return format(value, form) if pd.notna(value) and np.isfinite(value) else DASH


def money(value: float) -> str:
    """An amount [VND] in a few signs: 1.00 bn, 1.6 m, 940,000."""
    for unit, size, form in (("bn", 1e9, ".2f"), ("m", 1e6, ".1f")):
        if abs(value) >= size:
            return f"{value / size:{form}} {unit}"
    return f"{value:,.0f}"


def board(price: float) -> str:
    """A price [VND] as the exchange's board shows it, in thousands."""
    return number(price / 1000, ".2f").rstrip("0").rstrip(".")


# A column of a table: its label, its values, and in words how the page writes them: a number's format (the CSV has more
# digits) or a style, without which they are texts; and where it stands in no table, but is read of one stock: on a
# phone ("desktop") or anywhere ("detail"). Values of two columns are the ends of an interval.
Column = Sequence[Any]
STYLES, PLACES = ("words", "tag"), ("desktop", "detail")  # texts that may break; decisions


def cells(columns: Iterable[Column]) -> list[tuple[Any, ...]]:
    """`[rows][columns]`: what a table shows."""
    def texts(_: str, values: Any, form: str = "", place: str = "") -> list[Any]:
        if np.ndim(values) == 2:
            ends = [[number(end, form) for end in row] for row in np.asarray(values, dtype=object)]
            return [DASH if row == [DASH, DASH] else " to ".join(row) for row in ends]
        return list(values) if form in ("", *STYLES) else [number(value, form) for value in values]

    return list(zip(*(texts(*column) for column in columns), strict=True))


def frame_of(columns: Iterable[Column]) -> pd.DataFrame:
    """The columns of a table as a frame: labels without soft hyphens, an interval as two columns."""
    frame = {}
    for label, values, *_ in columns:
        values, label = np.asarray(values), label.replace("\u00ad", "")
        if values.ndim == 2:
            frame |= {f"{label}, low": values[:, 0], f"{label}, high": values[:, 1]}
        else:
            frame[label] = values
    return pd.DataFrame(frame)


def csv(frame: pd.DataFrame) -> bytes:
    """A table as CSV in UTF-8."""
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.10g", date_format="%Y-%m-%d").encode()


def render(template: str, **values: Any) -> str:
    """A template with these values, as HTML. Raises jinja2.UndefinedError for a name that is not there."""
    return ENVIRONMENT.get_template(template).render(**values)


ENVIRONMENT = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                          undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.filters |= {"number": number, "money": money, "board": board, "cells": cells, "frame": frame_of,
                        "csv": csv, "date": format,
                        "style": lambda column: " ".join(word for word in column[2:] if word in (*STYLES, *PLACES)),
                        "base64": lambda data: base64.b64encode(data).decode("ascii")}
ENVIRONMENT.globals |= {"zip": zip, "plain_name": plain_name}


# --- the first screen: may I trade on this, what do I sell, buy, keep


def first_screen(verdict: dict[str, Any], *, orders: pd.DataFrame | None = None, ranking: pd.DataFrame | None = None,
                 prices_to: pd.Timestamp, now: pd.Timestamp, note: str = "", warnings: Sequence[str] = ()) -> str:
    """HTML between two comments, which `replace_first_screen` finds.

    `verdict` as of `Verdict.to_dict()`; `orders`, `ranking` as of `DayPlan`, None before there are any; `prices_to` is
    the last day of the prices, `now` when this is read; `note` as in `report.write_report`; `warnings` are sentences.
    """
    summary, prices_to, now = verdict["summary"], pd.Timestamp(prices_to), pd.Timestamp(now)
    accepted = sorted(name for name, row in verdict["symbols"].items() if row["decision"] == "accept")
    bars = _bars([row for row in summary["by_year"] if row["open"] is not None])
    families = {row["family"]: row for row in summary["families"]}
    ranking = pd.DataFrame(columns=["rank", "symbol", "edge [%]"]) if ranking is None else ranking.dropna(subset="rank")
    shown = [verdict["market"], *(summary[name] for name in ("power", "basket", "families", "by_year")), accepted,
             summary.get("data_leaks", [])]
    return render(
        "first_screen.html", begin=BEGIN, end=END, now=now, prices_to=prices_to, note=note, market=verdict["market"],
        leaks=summary.get("data_leaks", []),
        verdict_id=hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16],
        n_sessions=count_sessions(prices_to, now), most_sessions=MOST_SESSIONS,
        basket=summary["basket"], totals=_totals(summary["basket"]), fewest_days=FEWEST_YEARLY_DAYS, bars=bars,
        judged=families.get(bars["family"]), orders=_orders(orders, summary, warnings),
        ranking=ranking.reindex(columns=["rank", "symbol", "edge [%]", *WHY]).to_numpy().tolist(),
        most=ranking["edge [%]"].abs().max() or 1,
        accepted=accepted, others=sorted(set(verdict["symbols"]) - set(accepted)))


def replace_first_screen(report: Path, html: str) -> None:
    """Puts another first screen into a report.html, whole or not at all. Raises DataError where it has none."""
    before, screen, after = _around_screen(report)
    if not screen or "</html>" not in after:  # on Drive a report may be cut short
        raise DataError(f"{report}: there is no report with a first screen. Make it with: python -m vnq_colab validate")
    write_atomic(Path(report), lambda file: file.write(f"{before}{html}{after}".encode()))


def keep_orders(report: Path, html: str) -> str:
    """The first screen of a report that is made anew: that with orders in it, where the rest is the same and fresh."""
    screen = _around_screen(report)[1]
    is_same = VERDICT_ID.findall(screen) == VERDICT_ID.findall(html) and "SESSIONS OLD" not in html
    return screen if is_same and "No orders yet" not in screen else html


def _around_screen(report: Path) -> tuple[str, str, str]:
    """A report before, in and after its first screen; three empty texts where there is none."""
    try:
        page = read_bytes(report, MOST_BYTES).decode("utf-8")
    except (FileNotFoundError, StorageError, UnicodeDecodeError):
        page = ""
    before, begin, rest = page.partition(BEGIN)
    screen, end, after = rest.partition(END)
    return (before, f"{begin}{screen}{end}", after) if begin and end else ("", "", "")


def _orders(orders: pd.DataFrame | None, summary: dict[str, Any], warnings: Sequence[str]) -> dict[str, Any] | None:
    """The orders of the next session by action, with what they cost; None where there are none yet."""
    if orders is None:
        return None
    reason = orders["reason"].astype(str).str.split(BY, regex=False).str[0]  # rank 3 of 102, was 5; why
    orders = orders.assign(was=reason.str.extract(r"\bwas (\d+)")[0],
                           why=reason.str.replace("^rank [^;]*; ", "", regex=True),
                           value=orders["shares"] * orders["reference_price"])
    by_action = {action: orders[orders["action"] == action] for action in ("sell", "buy", "keep", "wait")}
    by_action["wait"] = by_action["wait"].sort_values("rank", kind="stable")
    sold, bought = (by_action[side]["value"].sum() for side in ("sell", "buy"))
    unsure = [f"{row.symbol} {part.strip()}" for side in ("sell", "buy") for row in by_action[side].itertuples()
              for part in row.reason.split(BY)[0].split(";") if "may not fill" in part]
    account = {"k": (summary["basket"] or {}).get("k", ""), "nav": None, "cash": None, "day": None} | orders.attrs
    return {**account, "day": account["day"] and pd.Timestamp(account["day"]),
            **{action: list(part.itertuples()) for action, part in by_action.items()},
            "sold": sold, "bought": bought, "warnings": [*unsure, *warnings],
            "cost": (sold + bought) * (VN_RULES.fee + summary["settings"]["slippage"]) + sold * VN_RULES.sale_tax}


def _totals(basket: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """By account its `totals`, and `in_all`, its whole return [fraction], where the days are too few for one a year."""
    found = {row["name"]: row for row in basket["totals"]} if basket else {}
    if basket and basket["alpha"] is None:
        found = {name: row | {"in_all": prod(1 + year[name] for year in basket["by_year"]) - 1}
                 for name, row in found.items() if name in basket["by_year"][0]}
    return found


def _bars(years: list[dict[str, Any]]) -> dict[str, Any]:
    """The rank correlation of each year with its 95 % interval, as places in a drawing 348 wide and 102 high."""
    ends = [row[name] for row in years for name in ("low", "high", "open") if row[name] is not None]
    most, least = max([*ends, 0.02]), min([*ends, 0.0])

    def y(value: float | None) -> float | None:
        return None if value is None else round(4 + 64 * (most - value) / (most - least), 1)

    return {"family": years[0]["family"] if years else "", "zero": y(0), "step": 348 / max(len(years), 1), "years": [
        {"period": row["period"], "value": row["open"], "y": y(row["open"]), "low": y(row["low"]),
         "high": y(row["high"])} for row in years]}


# --- what else a report holds


def judged_forecast(folder: Path, **options: Any) -> pd.DataFrame:
    """forecast.parquet of a report, as of pandas.read_parquet: DataError unless it is the one that was judged."""
    path = folder / FORECAST
    try:
        if Verdict.load(folder / "verdict.json").summary.get(FORECAST_HASH) == sha256_of(path):
            return pd.read_parquet(path, **options)
    except FileNotFoundError:
        raise DataError(f"{path} or its verdict.json is not there. Make it with: python -m vnq_colab validate "
                        f"--run {folder.name}") from None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not a forecast of this library ({error}).") from error
    raise DataError(f"{path}: not what was judged: damaged, edited or older. Make it anew with: python -m vnq_colab "
                    f"validate --run {folder.name}")


def agreement(ws: Workspace, facts: Mapping[str, Any], table: pd.DataFrame) -> float | None:
    """How stable a final fit is: its order of a day beside that of the models judged in a report, where it is known."""
    if f"{(day := table['date'].max()):%Y-%m-%d}" > facts["trained_to"]:  # those models were judged up to there
        return None
    chosen = [("family", "==", facts["judged_family"]), ("date", "==", day)]
    try:
        found = judged_forecast(ws.report_folder(facts["run_id"]), columns=["symbol", "score"], filters=chosen)
    except VnqError:  # it is shown only where it is known
        return None
    both = table.set_index("symbol")[["score"]].assign(judged=found.set_index("symbol")["score"]).dropna()
    return float(both.rank().corr().iloc[0, 1]) if len(both) > 2 else None
