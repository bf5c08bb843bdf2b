"""An evening's work: ranking and orders from the last day, written to the workspace, and told in words."""

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.data.splits import to_day
from vnq_colab.delivery.bundle import Bundle
from vnq_colab.delivery.orders import make_orders, write_orders
from vnq_colab.delivery.portfolio import paper_portfolio, refuse_existing, write_portfolio
from vnq_colab.delivery.predict import Outlook, accepted_rows, look_ahead, ranking, refuse_stale, write_predictions
from vnq_colab.evaluation.first_screen import first_screen, replace_first_screen
from vnq_colab.files import read_json
from vnq_colab.layout import Workspace

N_SHOWN = 20  # best of the accepted stocks, on the screen
NEW = "new"  # instead of a portfolio's file: make one


@dataclass(frozen=True, repr=False)
class Evening:
    """What one evening brought, and the files of it."""

    bundle: Bundle
    day: pd.Timestamp
    agreement: float | None  # rank correlation of the final fit with the last fold's models on this evening
    table: pd.DataFrame  # as of `ranking`
    shown: pd.DataFrame  # the rows of it that are printed
    orders: pd.DataFrame | None  # None: the prices are too old
    warnings: list[str]
    stale: list[str]
    files: list[Path]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for --json; what is not known is null."""
        return {"date": f"{self.day:%Y-%m-%d}", "file": str(self.files[0]), "forecasts": _records(self.table),
                "orders": None if self.orders is None else _records(self.orders),
                "account": None if self.orders is None else self.orders.attrs,
                "stale": self.stale, "warnings": self.warnings, "files": [str(path) for path in self.files]}

    def _repr_html_(self) -> str:
        style = "background: #b3261e; color: #fff; padding: 8px"
        banners = "".join(f'<p style="{style}">{escape(text.upper())}</p>' for text in self.stale)
        return f'{banners}<pre style="font-family: monospace">{escape(repr(self))}</pre>'

    def __repr__(self) -> str:
        shown = (self.shown.to_string(index=False, float_format="{:.3f}".format) if len(self.shown) else
                 "no symbol is accepted; --all shows every forecast")
        if 0 < len(self.shown) < len(self.table):
            shown += f"\n{len(self.shown)} of {len(self.table)} stocks, all with --all and in {self.files[0].name}"
        orders = orders_text(self.orders) if self.orders is not None else f"NO ORDERS: {self.stale[0].upper()}"
        stable = "" if self.agreement is None else f" (rank correlation {self.agreement:.2f} with the judged models)"
        return "\n".join([repr(self.bundle), *(f"warning: {text}" for text in self.warnings),
                          f"From the evening of {self.day:%Y-%m-%d}, by the final fit{stable}:", shown, orders,
                          *(f"→ {path}" for path in self.files)])


def evening(ws: Workspace, bundle: Bundle, prices: pd.DataFrame, *, index: pd.DataFrame | None = None,
            as_of: str | None = None, portfolio: str | Path | None = None, capital: float | None = None,
            everyone: bool = False, refuse_old: bool = False) -> Evening:
    """Ranking and orders, written to `predictions/` and `orders/`, and onto the first screen of the run's report.

    `portfolio` None takes the workspace's portfolio.csv, and one on paper where there is none; "new" makes it, of
    `capital` in cash. Prices that are older than 5 sessions give a ranking without orders, with `refuse_old` DataError.
    """
    if portfolio == NEW:
        refuse_existing(ws.portfolio)
    if refuse_old:
        refuse_stale(prices, as_of)
    outlook = look_ahead(bundle, prices, index=index, as_of=as_of)
    table, orders = ranking(outlook), None
    if not outlook.stale:
        held = (paper_portfolio(capital) if portfolio == NEW else
                portfolio or (ws.portfolio if ws.portfolio.exists() else None))
        orders = make_orders(outlook, held, capital)
        if portfolio == NEW:
            write_portfolio(ws.portfolio, held)
    files = [write_predictions(ws, table, outlook.day)]
    files += [] if orders is None else [write_orders(ws, orders, outlook.day)]
    trained_to = bundle.manifest["trained_to"]
    if f"{outlook.day:%Y-%m-%d}" < trained_to:
        outlook.warnings.append(f"these models were trained on prices to {trained_to}: this is no forecast of "
                                f"{outlook.day:%Y-%m-%d}, and the report keeps its orders")
    elif report := _on_the_first_screen(ws, bundle, orders, outlook, as_of):
        files.append(report)
    shown = table if everyone else accepted_rows(table).head(N_SHOWN)
    return Evening(bundle, outlook.day, _agreement(ws, bundle, table, outlook.day), table, shown, orders,
                   outlook.warnings, outlook.stale, files)


def _on_the_first_screen(ws: Workspace, bundle: Bundle, orders: pd.DataFrame | None, outlook: Outlook,
                         as_of: str | None) -> Path | None:
    """Puts the orders onto the report of the bundle's run; None where it has none, or was judged again since."""
    folder, verdict = ws.report_folder(bundle.manifest["run_id"]), bundle.manifest["verdict"]
    if verdict is None or not (folder / "report.html").exists():
        return None
    if read_json(folder / "verdict.json")["market"]["decision"] != verdict["market"]["decision"]:
        outlook.warnings.append("the run was judged again after this bundle was exported, otherwise: export "
                                "it again before you trade; the report is left as it is")
        return None
    made_up, day = bundle.manifest["synthetic"], outlook.day
    now = day if made_up else to_day(as_of) if as_of else pd.Timestamp.now()
    screen = first_screen(verdict | {"symbols": bundle.manifest["symbols"]}, orders=orders, prices_to=day, now=now,
                          note=SYNTHETIC_NOTE if made_up else "",
                          warnings=[] if orders is None else orders.attrs["notes"])
    replace_first_screen(folder / "report.html", screen)
    return folder / "report.html"


def _agreement(ws: Workspace, bundle: Bundle, table: pd.DataFrame, day: pd.Timestamp) -> float | None:
    """How stable the final fit is: its order of an evening beside that of the models that were judged, where known."""
    path = ws.report_folder(bundle.manifest["run_id"]) / "forecast.parquet"
    if not path.exists():
        return None
    asked = [("family", "==", bundle.judged_family), ("date", "==", day)]
    judged = pd.read_parquet(path, columns=["symbol", "score"], filters=asked).set_index("symbol")["score"]
    both = table.set_index("symbol")[["score"]].assign(judged=judged).dropna()
    return float(both.rank().corr().iloc[0, 1]) if len(both) > 2 else None


def orders_text(orders: pd.DataFrame) -> str:
    """The orders as lines of text, as a person types them in."""
    facts = orders.attrs
    head = (f"Orders for {pd.Timestamp(facts['day']):%a %d/%m/%Y}: basket of {facts['k']}, account "
            f"{facts['nav']:,.0f} VND, of it cash {facts['cash']:,.0f}")
    lines = [f"{row.action.upper():4} {row.symbol:6} {row.shares:>9,}  limit {row.limit_low:,}-{row.limit_high:,}  "
             f"{row.reason}" for row in orders.itertuples()]
    if facts["market"] != "accept":
        head, lines = f"NO ORDERS: the market is not accepted ({facts['market']}), so this is a ranking only", []
    return "\n".join([head, *lines, *(f"  {note}" for note in facts["notes"])])


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    dated = table.assign(date=table["date"].dt.strftime("%Y-%m-%d"))
    return json.loads(dated.to_json(orient="records", double_precision=10))
