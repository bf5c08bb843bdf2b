"""Pictures say what their tables say, with units, and leave nothing behind."""

import sys
import types

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from vnq_colab.data.market import VN_RULES
from vnq_colab.errors import DataError
from vnq_colab.evaluation import plots
from vnq_colab.evaluation.backtest import Backtest


def scores_of(n_symbols):
    random = np.random.default_rng(0)
    accuracy = 0.5 + random.normal(0.02, 0.04, n_symbols)
    return pd.DataFrame({"family": "stockformer", "symbol": [f"S{place:03}" for place in range(n_symbols)],
                         "accuracy": accuracy, "accuracy_low": accuracy - 0.1, "accuracy_high": accuracy + 0.1,
                         "base_rate": 0.52})


def history_of(**symbols):
    """Each keyword is a symbol with its validation losses by epoch; the loss without skill is 2."""
    return pd.concat([pd.DataFrame({"symbol": symbol, "member": 0, "epoch": range(1, len(losses) + 1),
                                    "train_loss": 1.0, "valid_loss": losses, "no_skill": 2.0})
                      for symbol, losses in symbols.items()])


def result_of():
    equity = pd.DataFrame({"strategy": [1e8, 1.2e8, 1.1e8], "buy_and_hold": [1e8, 0.9e8, 0.95e8]},
                          index=pd.bdate_range("2024-01-01", periods=3))
    return Backtest("stockformer", 1e8, VN_RULES, equity, pd.DataFrame(), pd.DataFrame())


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_symbol_accuracy_sorts_the_bars_and_colours_them_by_base_rate():
    scores = scores_of(102)
    axes = plots.symbol_accuracy(scores).axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == pytest.approx(sorted(100 * scores["accuracy"]))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(scores.sort_values("accuracy")["symbol"])
    for bar, end in zip(axes.patches, ends, strict=True):
        assert matplotlib.colors.to_hex(bar.get_facecolor()).upper() == (plots.BLUE if end > 52 else plots.ORANGE)
    low, high = axes.get_xlim()
    assert 0 < low < 100 * scores["accuracy_low"].min() and 100 * scores["accuracy_high"].max() < high < 100


def test_symbol_accuracy_grows_with_the_number_of_symbols():
    few, many = plots.symbol_accuracy(scores_of(3)), plots.symbol_accuracy(scores_of(102))
    assert few.get_figheight() < 3 and many.get_figheight() > 0.15 * 102


def test_symbol_accuracy_needs_an_accuracy():
    with pytest.raises(DataError, match="nothing of 'ridge' has an accuracy"):
        plots.symbol_accuracy(scores_of(2), "ridge")


def test_symbol_accuracy_can_do_without_intervals():
    plots.png(plots.symbol_accuracy(scores_of(2).assign(accuracy_low=np.nan, accuracy_high=np.nan)))


def test_learning_curves_show_the_median_of_the_networks():
    history = history_of(AAA=[2.2, 1.8, 1.6], BBB=[2.4, 2.0], CCC=[2.6, 2.4, 2.0])
    figure = plots.learning_curves(history)
    axes = figure.axes[0]
    median = next(line for line in axes.lines if line.get_label() == "median network")
    assert list(median.get_xdata()) == [1, 2, 3] and list(median.get_ydata()) == pytest.approx([1.2, 1.0, 0.9])
    assert sum(line.get_linewidth() == 0.5 for line in axes.lines) == 3
    assert legend_of(figure) == ["each symbol", "80% of the networks", "median network", "no skill"]


def test_learning_curves_take_a_session():
    session = types.SimpleNamespace(history=history_of(AAA=[2.2, 1.8]))
    assert plots.png(plots.learning_curves(session)) == plots.png(plots.learning_curves(session.history))


def test_learning_curves_leave_out_what_is_not_a_number():
    history = history_of(AAA=[2.2, np.nan, 1.6], BBB=[np.inf, 2.0])
    median = next(line for line in plots.learning_curves(history).axes[0].lines if line.get_label() == "median network")
    assert list(median.get_ydata()) == pytest.approx([1.1, 1.0, 0.8])


@pytest.mark.parametrize("history", [history_of(AAA=[np.nan]), history_of(AAA=[1.0]).assign(no_skill=np.nan),
                                     pd.DataFrame(columns=["symbol", "member", "epoch", "valid_loss", "no_skill"])])
def test_learning_curves_need_a_validation_loss(history):
    with pytest.raises(DataError, match="no epoch has a validation loss"):
        plots.learning_curves(history)


def test_equity_shows_the_strategy_beside_buy_and_hold():
    figure = plots.equity(result_of())
    strategy, hold = figure.axes[0].lines[:2]
    assert list(strategy.get_ydata()) == [100, 120, 110] and list(hold.get_ydata()) == [100, 90, 95]
    assert legend_of(figure) == ["stockformer", "buy and hold"]


@pytest.mark.parametrize("draw", [lambda note: plots.symbol_accuracy(scores_of(3), note=note),
                                  lambda note: plots.learning_curves(history_of(AAA=[2.2, 1.8]), note=note),
                                  lambda note: plots.equity(result_of(), note=note)])
def test_every_picture_has_units_a_note_and_shows_itself_in_a_notebook(draw):
    figure = draw("synthetic market")
    axes = figure.axes[0]
    assert isinstance(figure, Figure) and "synthetic market" in axes.get_title(loc="left")
    assert "[" in axes.get_xlabel() + axes.get_ylabel()
    assert figure._repr_png_().startswith(b"\x89PNG") and plots.png(draw("again")) == plots.png(draw("again"))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
