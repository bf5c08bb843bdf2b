"""The chooser shows the best symbol first, another when it is chosen, and a picture where there are no widgets."""

import builtins
import types

import pytest
from matplotlib.figure import Figure

from vnq_colab.delivery import browse as module
from vnq_colab.delivery.browse import browse
from vnq_colab.errors import ConfigError
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.metrics import with_outcomes


@pytest.fixture(scope="module")
def validation(judged):
    _, prepared, _, found = judged
    return types.SimpleNamespace(forecast=found.forecast, scores=found.scores, result=found.result,
                                 verdict=found.verdict, prices=prepared.prices,
                                 rows=with_outcomes(found.forecast, prepared.panel))


@pytest.fixture
def in_a_kernel(monkeypatch):
    monkeypatch.setattr(module, "in_notebook", lambda: True)


def decided(validation, **decisions):
    symbols = {name: found | {"decision": decisions.get(name, "reject")}
               for name, found in validation.verdict.symbols.items()}
    return types.SimpleNamespace(**vars(validation) | {"verdict": types.SimpleNamespace(symbols=symbols)})


def test_outside_of_a_notebook_the_best_symbol_is_a_picture(validation):
    names = list(validation.verdict.symbols)
    figure = browse(decided(validation, **{names[1]: "accept"}))
    assert isinstance(figure, Figure) and figure.get_suptitle().startswith(f"{names[1]}: closes")
    mine = validation.scores[validation.scores["family"] == "ensemble"].set_index("symbol")["accuracy"]
    assert browse(decided(validation)).get_suptitle().startswith(mine.idxmax()), "of equal decisions the most accurate"


def test_without_ipywidgets_a_notebook_has_the_picture_too(validation, in_a_kernel, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "ipywidgets":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert isinstance(browse(validation), Figure)


@pytest.mark.filterwarnings("ignore:The .ipykernel.comm.Comm. class:DeprecationWarning")  # ipywidgets 7.7 of Colab
def test_choosing_a_symbol_shows_it_and_its_reasons(validation, in_a_kernel):
    widgets = pytest.importorskip("ipywidgets")
    names = sorted(validation.verdict.symbols)
    box = browse(validation, names[0], note="SYNTHETIC")
    chooser, image, text = box.children
    assert isinstance(box, widgets.VBox) and list(chooser.options) == names and chooser.value == names[0]
    first = bytes(image.value)
    assert first.startswith(b"\x89PNG") and f"<b>{names[0]}: " in text.value
    chooser.value = names[2]
    assert bytes(image.value) == plots.png(plots.symbol(validation.forecast, validation.prices, names[2], "ensemble",
                                                        note="SYNTHETIC")) != first
    assert f"<b>{names[2]}: {validation.verdict.symbols[names[2]]['decision']}</b>" in text.value
    assert "still open" in text.value and "<th>p_up [%]</th>" in text.value


def test_a_symbol_that_was_not_judged_is_refused(validation):
    with pytest.raises(ConfigError, match=r"'SYN9999' was not judged\."):
        browse(validation, "SYN9999")
