"""A chooser of symbols in a notebook: one symbol's last forecasts beside what happened, and why it was decided so."""

from html import escape
from typing import Any

from matplotlib.figure import Figure

from vnq_colab.delivery.validate import Validation
from vnq_colab.errors import ConfigError, did_you_mean
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.breakdown import as_texts, hits, in_words, last_predictions
from vnq_colab.notebook import in_notebook

BEST_FIRST = ("accept", "review", "reject", "unjudged")


def browse(validation: Validation, symbol: str | None = None, *, note: str = "") -> "Any | Figure":
    """A widget that shows the symbol that is chosen in it; without ipywidgets, or outside a notebook, one picture.

    `symbol` None begins with the best: the first decision of accept, review, reject and unjudged that any symbol has,
    and the highest accuracy there. Raises ConfigError for a symbol that was not judged.
    """
    order = _best_first(validation)
    if symbol is not None and symbol not in order:
        raise ConfigError(f"{symbol!r} was not judged.{did_you_mean(symbol, order)} Choose a symbol of the run.")
    symbol = symbol or order[0]
    try:
        import ipywidgets as widgets
    except ImportError:
        widgets = None
    if widgets is None or not in_notebook():
        return _figure(validation, symbol, note)
    chooser = widgets.Dropdown(options=sorted(order), value=symbol, description="Symbol")
    image, text = widgets.Image(format="png", layout={"max_width": "620px"}), widgets.HTML()

    def show(change: Any = None) -> None:
        image.value = plots.png(_figure(validation, chooser.value, note))
        text.value = _about(validation, chooser.value)

    chooser.observe(show, names="value")
    show()
    return widgets.VBox([chooser, image, text])


def _best_first(validation: Validation) -> list[str]:
    scores = validation.scores[validation.scores["family"] == validation.result.family]
    accuracy = scores.set_index("symbol")["accuracy"].fillna(0).to_dict()
    found = validation.verdict.symbols
    return sorted(found, key=lambda name: (BEST_FIRST.index(found[name]["decision"]), -accuracy.get(name, 0), name))


def _figure(validation: Validation, symbol: str, note: str) -> Figure:
    return plots.symbol(validation.forecast, validation.prices, symbol, validation.result.family, note=note)


def _about(validation: Validation, symbol: str) -> str:
    """The decision, its reasons, and the last forecasts one by one, as HTML."""
    found = validation.verdict.symbols[symbol]
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in found["reasons"])
    last = last_predictions(validation.rows, validation.forecast, validation.prices, validation.result.family)
    last = last[last["symbol"] == symbol]
    table = as_texts(in_words(last)).to_html(index=False, border=0)
    return f"<b>{escape(symbol)}: {escape(found['decision'])}</b><ul>{reasons}</ul><p>{escape(hits(last))}</p>{table}"
