"""The chooser shows the best stock first, another or another family when chosen, and a picture without widgets."""

import base64
import builtins
import types

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.made_up import order_of, rows_of, trades_of, verdict_of
from vnq_colab.delivery import validate as module
from vnq_colab.delivery.validate import browse
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation import plots


@pytest.fixture
def validation():
    """Five stocks, the first accepted, forecast by two families."""
    forecast, rows = (pd.concat([table, table.assign(family="trees", mean=np.log(1.03))]) for table in rows_of())
    return types.SimpleNamespace(forecast=forecast.drop(columns="actual"), rows=rows, order=order_of(),
                                 verdict=verdict_of(), family="stockformer", explained=None,
                                 basket=types.SimpleNamespace(trades=trades_of()))


@pytest.fixture
def in_a_kernel(monkeypatch):
    monkeypatch.setattr(module, "in_notebook", lambda: True)


def test_outside_of_a_notebook_the_best_stock_is_a_picture(validation):
    figure = browse(validation)
    assert isinstance(figure, Figure) and figure.get_suptitle() == "AAA: stockformer"
    validation.verdict.symbols["AAA"]["decision"] = "reject"
    validation.order.symbols.loc[3, "place"] = 0.5
    assert browse(validation).get_suptitle().startswith("DDD"), "of equal decisions the best place in the order"
    assert browse(validation, "BBB", family="trees").get_suptitle() == "BBB: trees"
    assert len(figure.axes) == 3, "price and fills where there is a basket"
    validation.basket = None
    assert len(browse(validation).axes) == 2


def test_without_ipywidgets_a_notebook_has_the_picture_too(validation, in_a_kernel, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "ipywidgets":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(browse(validation), Figure)


@pytest.mark.filterwarnings("ignore:The .ipykernel.comm.Comm. class:DeprecationWarning")  # ipywidgets 7.7 of Colab
def test_choosing_a_stock_and_a_family_shows_them_with_the_reasons(validation, in_a_kernel):
    widgets = pytest.importorskip("ipywidgets")
    box = browse(validation, "BBB", note="SYNTHETIC")
    stocks, learners, image, text = box.children
    assert isinstance(box, widgets.VBox) and list(learners.options) == ["stockformer", "trees"]
    assert list(stocks.options) == ["AAA", "BBB", "CCC", "DDD", "EEE"] and stocks.value == "BBB"
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG") and "<b>BBB: reject</b><ul><li>Because of BBB.</li></ul>" in text.value
    stocks.value, learners.value = "AAA", "trees"
    drawn = plots.symbol(validation.forecast, validation.rows, "AAA", "trees", trades=trades_of(), note="SYNTHETIC")
    assert bytes(image.value) == plots.png(drawn) != first
    assert "<b>AAA: accept</b>" in text.value and "+3.0" in text.value and "<th>p_up [%]</th>" in text.value


@pytest.mark.filterwarnings("ignore:The .ipykernel.comm.Comm. class:DeprecationWarning")
def test_a_saved_notebook_shows_the_first_picture_where_widgets_cannot_live(validation, in_a_kernel):
    widgets = pytest.importorskip("ipywidgets")
    if not hasattr(widgets.VBox, "_repr_mimebundle_"):
        pytest.skip("ipywidgets 7.7 shows itself in another way")
    box = browse(validation)
    bundle = box._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == bytes(box.children[2].value)
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize("asked, message", [({"symbol": "AAB"}, r"'AAB' was not judged\. Did you mean 'AAA'\?"),
                                            ({"family": "tree"}, r"'tree' was not judged\. Did you mean 'trees'\?")])
def test_what_was_not_judged_is_refused(validation, asked, message):
    with pytest.raises(ConfigError, match=message):
        browse(validation, **asked)
