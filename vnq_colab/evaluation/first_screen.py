"""The first screen of a report: may I trade on this, what do I sell, buy, keep; in one minute, on a phone.

It is made of plain values alone, those of `Verdict.to_dict()`, so that it can be put in place again with the orders of
another evening, without anything computed anew.
"""

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.data.market import VN_RULES, is_session
from vnq_colab.data.prepared import MOST_SESSIONS
from vnq_colab.errors import DataError
from vnq_colab.evaluation.page import BLUE, INK, ORANGE, Column, number, soft, table
from vnq_colab.files import write_atomic

BEGIN, END = "<!-- first screen -->", "<!-- end of the first screen -->"
MOST_NAMED = 30  # accepted symbols; more stand behind a click
N_RANKED = 10  # best of a ranking without orders
LINKS = {"why": "Why", "years": "By year", "stocks": "Every stock", "costs": "Costs and capacity", "method": "Method"}
HEADS = {"accept": "TRADE: the order pays after costs", "review": "DO NOT TRADE before a person has looked",
         "reject": "DO NOT TRADE", "unjudged": "DO NOT TRADE: not judged"}
TAGS = {"sell": "reject", "buy": "accept", "keep": "unjudged", "wait": "review"}


def first_screen(verdict: dict[str, Any], *, orders: pd.DataFrame | None = None, prices_to: pd.Timestamp,
                 now: pd.Timestamp, nav: float | None = None, cash: float | None = None, note: str = "",
                 warnings: Sequence[str] = ()) -> str:
    """HTML between two comments, which `replace_first_screen` finds.

    `verdict` as of `Verdict.to_dict()`; `orders` as of `delivery.orders`, None before there are any; `prices_to` is the
    last day of the prices, `now` when this is read; `nav` is the account's value, `cash` what of it is not in shares
    [VND], None takes those of the orders; `note` is what nobody may miss; `warnings` are sentences.
    """
    summary, market, prices_to, now = verdict["summary"], verdict["market"], pd.Timestamp(prices_to), pd.Timestamp(now)
    decision = market["decision"]
    n_sessions = int(is_session(pd.date_range(prices_to.normalize() + pd.Timedelta(days=1), now.normalize())).sum())
    fresh = n_sessions <= MOST_SESSIONS
    shown = f"{prices_to:%a %d/%m}" if fresh else f"{prices_to:%a %d/%m/%Y}"
    hour = "%a %d/%m" if now == now.normalize() else "%a %d/%m %H:%M"
    top = [
        f'<p class="line"><b>{now:{hour}}</b><span>prices to {shown}{" (fresh)" if fresh else ""}</span></p>',
        "" if fresh else f'<div class="stale">PRICES ARE {n_sessions} SESSIONS OLD: no orders from them. Bring newer '
                         "files; to look back, name the day with --as-of.</div>",
        f'<div class="note">{escape(note)}</div>' if note else "",
        f'<p class="decision {escape(decision)}">{HEADS[decision]}</p>' if fresh or decision != "accept" else
        '<p class="decision review">DO NOT TRADE on old prices, although the order pays after costs</p>',
    ]
    reasons = [] if decision == "accept" else market["reasons"][:2]
    left = [*map(soft, reasons), _accepted(verdict), soft(_power(summary)),
            _orders(orders, decision == "accept", summary, nav, cash, warnings)]
    right = [_after_costs(summary.get("basket")), _by_year(summary)]
    links = "".join(f'<a href="#{anchor}">{label}</a>' for anchor, label in LINKS.items())
    return (f'{BEGIN}\n<section class="card first">{"".join(top)}<div class="sides"><div>{"".join(left)}</div>'
            f'<div>{"".join(right)}</div></div><p class="links">{links}</p></section>\n{END}')


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


def _accepted(verdict: dict[str, Any]) -> str:
    """The names of the accepted stocks, as nobody should have to look for them; of many accepted also the others."""
    symbols = verdict["symbols"]
    names = sorted(name for name, found in symbols.items() if found["decision"] == "accept")
    others = sorted(set(symbols) - set(names))
    text = f"{len(names)} of {len(symbols)} stocks accepted"
    if not names:
        return soft(f"{text}.")
    if len(names) <= MOST_NAMED:
        return f'<p class="soft"><b>{text}:</b> {escape(" ".join(names))}</p>'
    rest = f", not {escape(' '.join(others))}" if 0 < len(others) <= MOST_NAMED else ""
    return f'<details class="soft"><summary>{text}{rest}</summary>{escape(" ".join(names))}</details>'


def _power(summary: dict[str, Any]) -> str:
    share = (summary.get("power") or {}).get("0.04")
    return "" if share is None else (f"These gates would have found {100 * share:.0f} of 100 orders with a rank "
                                     "correlation of 0.04.")


# ------------------------------------------------------------------------------------------------------------ orders
def _orders(orders: pd.DataFrame | None, is_accepted: bool, summary: dict[str, Any], nav: float | None,
            cash: float | None, warnings: Sequence[str]) -> str:
    """The orders of the next session with their cost, or a ranking where nothing may be traded."""
    if orders is None:
        return soft("No orders yet. They are made by: python -m vnq_colab predict --data PRICES --portfolio FILE")
    known, action = orders.attrs, orders["action"]
    nav, cash = known.get("nav") if nav is None else nav, known.get("cash") if cash is None else cash
    k = known.get("k") or (summary.get("basket") or {}).get("k", "")
    head = [f"BASKET {k}" if is_accepted else "RANKING ONLY, NO ORDERS"]
    head += [f"for {pd.Timestamp(known['day']):%a %d/%m/%Y}"] if "day" in known else []
    head += [f"NAV {money(nav)}"] if nav is not None else []
    head += [f"cash {cash / nav:.0%}"] if nav and cash is not None else []
    waiting = orders[action == "wait"].sort_values("rank")
    if is_accepted:
        lines = [_line(row) for row in (*orders[action.isin(["sell", "buy"])].itertuples(), *waiting.itertuples())]
    else:
        best = " ".join(
            f"<span>{row.rank:.0f} <b>{escape(str(row.symbol))}</b></span>"
            for row in waiting.dropna(subset="rank").head(N_RANKED).itertuples())
        lines = [f'<tr><td class="words">{best}</td></tr>']
    if kept := list(orders.loc[action == "keep", "symbol"]):
        names = escape(" ".join(map(str, kept)))
        lines.append(f'<tr><td>{_tag("keep")}</td><td colspan="4" class="words">{names}</td></tr>')
    told = [*(f"{row.symbol} {part.strip()}" for row in orders[action.isin(["sell", "buy"])].itertuples()
              for part in str(row.reason).split(";") if "may not fill" in part), *warnings]
    return (f'<h2 class="line">{"".join(f"<span>{escape(text)}</span>" for text in head)}</h2>'
            f'<div class="scroll"><table class="orders"><tbody>{"".join(lines)}</tbody></table></div>'
            + "".join(f'<p class="soft"><b>! {escape(text)}</b></p>' for text in told)
            + soft(_cost(orders, nav, (summary.get("settings") or {}).get("slippage", VN_RULES.slippage))))


def _line(row: Any) -> str:
    """One order as a row of the table."""
    start = f"<tr><td>{_tag(row.action)}</td><td><b>{escape(str(row.symbol))}</b></td>"
    shares = f"{row.shares:,.0f}" if row.shares else ""
    if row.action == "wait":
        why = str(row.reason).partition("; rank")[0]
        return f'{start}<td class="n">{shares}</td><td colspan="2" class="words">{escape(why)}</td></tr>'
    was = re.search(r"\bwas (\d+)", str(row.reason))
    return (f'{start}<td class="n">{shares}</td><td>limit {board(row.limit_low)}–{board(row.limit_high)}</td>'
            f"<td>rank {number(row.rank, '.0f')}{f' (was {was[1]})' if was else ''}</td></tr>")


def _tag(action: str) -> str:
    return f'<span class="tag {TAGS[action]}">{action.upper()}</span>'


def _cost(orders: pd.DataFrame, nav: float | None, slippage: float) -> str:
    """Turnover and cost of what is sold and bought, at the reference prices."""
    value = orders["shares"] * orders["reference_price"]
    sold, bought = (value[orders["action"] == side].sum() for side in ("sell", "buy"))
    cost = (sold + bought) * (VN_RULES.fee + slippage) + sold * VN_RULES.sale_tax
    if not cost:
        return ""
    if not nav:
        return f"cost {money(cost)}"
    return (f"buys {money(bought)}, sells {money(sold)}; turnover {(sold + bought) / 2 / nav:.0%}, cost {money(cost)} "
            f"({cost / nav:.2%} of NAV)")


def money(value: float) -> str:
    """An amount [VND] in a few signs: 1.00 bn, 1.6 m, 940,000."""
    for unit, size, form in (("bn", 1e9, ".2f"), ("m", 1e6, ".1f")):
        if abs(value) >= size:
            return f"{value / size:{form}} {unit}"
    return f"{value:,.0f}"


def board(price: float) -> str:
    """A price [VND] as the exchange's board shows it, in thousands."""
    return number(price / 1000, ".2f").rstrip("0").rstrip(".") if pd.notna(price) else "–"


# ----------------------------------------------------------------------------------------------------------- numbers
def _after_costs(basket: dict[str, Any] | None) -> str:
    """The basket beside what it has to beat."""
    if not basket:
        return soft("No basket was traded: too few stocks were judged.")
    names = {"basket": "basket", "equal_weighted": "equal-weighted", "index": "VNINDEX"}
    found = {row["name"]: row for row in basket["totals"]}
    years = [str(row["year"]) for row in basket["by_year"]]
    lines = {"yearly": "a year", "max_drawdown": "worst drawdown", "last_12_months": "last 12 months"}
    columns = [Column(label, [f"{number(_percent(found[name][line]), '.1f')} %" for line in lines])
               for name, label in names.items() if name in found]
    return (f"<h2>AFTER COSTS, {years[0]} to {years[-1]}</h2>"
            + table("after_costs", Column("", list(lines.values())), *columns, csv=False)
            + soft(f"Alpha {_signed(basket['alpha'])} a year (t {number(basket['alpha_t'], '.1f')}), above "
                   f"{number(_percent(basket['beaten']), '.1f')} % of random baskets."))


def _by_year(summary: dict[str, Any]) -> str:
    """The rank correlation of each year as a bar with its 95 % interval, drawn as SVG."""
    rows = [row for row in summary.get("by_year") or [] if row["open"] is not None]
    if not rows:
        return ""
    family = rows[0]["family"]
    whole = next((row for row in summary.get("families") or [] if row["family"] == family), {})
    ends = [value for row in rows for value in (row.get("low"), row.get("high"), row["open"]) if value is not None]
    most, least = max(*ends, 0.02), min(*ends, 0.0)
    step = 340 / len(rows)

    def y(value: float) -> float:
        return 4 + 64 * (most - value) / (most - least)

    marks = [f'<path d="M0 {y(0):.1f}H340" stroke="{INK}"/>']
    for place, row in enumerate(rows):
        middle, value = (place + 0.5) * step, row["open"]
        top, colour = min(y(value), y(0)), BLUE if value >= 0 else ORANGE
        marks.append(f'<rect x="{middle - 0.3 * step:.1f}" y="{top:.1f}" width="{0.6 * step:.1f}" '
                     f'height="{abs(y(value) - y(0)):.1f}" fill="{colour}"/>')
        if row.get("low") is not None:
            marks.append(f'<path d="M{middle:.1f} {y(row["high"]):.1f}V{y(row["low"]):.1f}" stroke="{INK}"/>')
        marks += [f'<text x="{middle:.1f}" y="{line}" text-anchor="middle">{escape(text)}</text>'
                  for line, text in ((80, str(row["period"])), (90, f"{value:.2f}"))]
    mean = f"{number(whole.get('open'), '.3f')} (t {number(whole.get('open_t'), '.1f')})" if whole else ""
    return (f'<h2 class="line"><span>RANK CORRELATION</span><span>{escape(family)} {mean}</span></h2>'
            f'<svg viewBox="0 0 340 93" role="img" aria-label="rank correlation by year">{"".join(marks)}</svg>')


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _signed(value: float | None) -> str:
    return f"{number(_percent(value), '+.1f')} %"
