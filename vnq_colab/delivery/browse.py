"""A chooser of stock and family in a notebook: forecasts beside what happened, and why it was decided so."""

import base64
from html import escape
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.metrics import as_texts, past_forecasts
from vnq_colab.evaluation.verdict import DECISIONS
from vnq_colab.notebook import in_notebook

if TYPE_CHECKING:
    from vnq_colab.delivery.validate import Validation

N_SHOWN = 10  # forecasts in the table below the picture


def browse(validation: "Validation", symbol: str | None = None, *, family: str | None = None,
           note: str = "") -> "Any | Figure":
    """Widgets that show the stock and the family chosen in them; without ipywidgets, or outside a notebook, a picture.

    Where a saved notebook is opened without its kernel, the picture of the first choice is shown instead.
    `symbol` None begins with the best: the first decision of accept, review, reject and unjudged that any symbol has,
    and the highest place in the order there; `family` None with the judged one. Raises ConfigError for a symbol that
    was not judged and for an unknown family.
    """
    order, families = _best_first(validation), sorted(validation.forecast["family"].unique())
    symbol, family = symbol or order[0], family or validation.family
    if symbol not in order:
        raise ConfigError(f"{symbol!r} was not judged.{did_you_mean(symbol, order)} Choose a symbol of the run.")
    if family not in families:
        raise ConfigError(f"there is no family {family!r}.{did_you_mean(family, families)} Choose one of the run.")
    try:
        import ipywidgets as widgets
    except ImportError:
        widgets = None
    if widgets is None or not in_notebook():
        return plots.symbol(validation.forecast, validation.rows, symbol, family, note=note)
    stocks = widgets.Dropdown(options=sorted(order), value=symbol, description="Stock")
    learners = widgets.Dropdown(options=families, value=family, description="Family")
    image, text = widgets.Image(format="png", layout={"max_width": "620px"}), widgets.HTML()

    def show(change: Any = None) -> None:
        figure = plots.symbol(validation.forecast, validation.rows, stocks.value, learners.value, note=note)
        image.value, text.value = plots.png(figure), _about(validation, stocks.value, learners.value)

    for chooser in (stocks, learners):
        chooser.observe(show, names="value")
    show()
    box = widgets.VBox([stocks, learners, image, text])
    saved = bytes(image.value)

    class Chooser(type(box)):
        """The widgets, and what stands in their place where they cannot live."""

        def _repr_mimebundle_(self, **options: Any) -> Any:
            return super()._repr_mimebundle_(**options) | {"image/png": base64.b64encode(saved).decode("ascii")}

    return Chooser(box.children) if hasattr(box, "_repr_mimebundle_") else box


def _best_first(validation: "Validation") -> list[str]:
    place = validation.order.symbols.set_index("symbol")["place"].fillna(0).to_dict()
    found = validation.verdict.symbols
    return sorted(found, key=lambda name: (DECISIONS.index(found[name]["decision"]), -place.get(name, 0), name))


def _about(validation: "Validation", symbol: str, family: str) -> str:
    """The decision, its reasons, and the last forecasts one by one, as HTML."""
    found = validation.verdict.symbols[symbol]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in found["reasons"])
    last = past_forecasts(validation.forecast, validation.rows, family, symbol, n_days=N_SHOWN)
    table = as_texts(last).to_html(index=False, border=0)
    return f"<b>{escape(symbol)}: {escape(found['decision'])}</b><ul>{reasons}</ul>{table}"
