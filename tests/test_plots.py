"""Pictures say what their tables say, with units, and leave nothing behind."""

import itertools
import sys
import types
from dataclasses import replace

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.made_up import basket_of, order_of, rows_of, scores_of, trades_of
from vnq_colab.config import SYNTHETIC_NOTE
from vnq_colab.data.features import FEATURES
from vnq_colab.data.findings import ISSUES, CleaningReport, Finding
from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import split_days
from vnq_colab.errors import DataError
from vnq_colab.evaluation import data_plots, plots

MANY = tuple(f"S{place:03}" for place in range(102))


def history_of(**symbols):
    """Each keyword is a symbol with the skill of its network by epoch."""
    return pd.concat([pd.DataFrame({"job": "stockformer_fold1_pack00", "symbol": symbol, "member": 0,
                                    "epoch": range(1, len(skill) + 1), "train_loss": 1.0, "skill": skill})
                      for symbol, skill in symbols.items()])


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_symbol_accuracy_sorts_the_bars_and_colours_them_by_decision():
    scores = scores_of("ensemble", MANY).sample(frac=1, random_state=0)
    decisions = dict.fromkeys(MANY, "reject") | {"S000": "accept", "S001": "review"}
    axes = plots.symbol_accuracy(scores, decisions=decisions).axes[0]
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert ends == pytest.approx(sorted(100 * scores["accuracy"]))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(MANY)
    for bar, name in zip(axes.patches, MANY, strict=True):
        colour = matplotlib.colors.to_hex(bar.get_facecolor()).upper()
        assert colour == plots.DECISION_COLOURS[decisions[name]], "however high it is"
    low, high = axes.get_xlim()
    assert 0 < low < 100 * scores["accuracy_low"].min() and 100 * scores["accuracy_high"].max() < high < 100


def test_accuracies_are_counted_beside_what_coins_would_show():
    figure = plots.accuracies(scores_of("ensemble", MANY), decisions={"S000": "accept"})
    axes = figure.axes[0]
    heights = [[bar.get_height() for bar in part] for part in axes.containers]
    assert [sum(part) for part in heights] == [1, 101] and legend_of(figure)[:2] == ["accept", "unjudged"]
    x, y = axes.lines[0].get_data()
    assert x[y.argmax()] == pytest.approx(50, abs=0.1)
    coins = 102 * np.diff(scipy.stats.norm.cdf([x[0], x[-1]], 50, 50 / np.sqrt(38)))[0]
    assert np.trapezoid(y, x) == pytest.approx(coins, rel=1e-3)
    assert list(axes.lines[1].get_xdata()) == pytest.approx([52, 52]), "the base rate"


def test_symbol_accuracy_needs_an_accuracy_but_no_intervals():
    with pytest.raises(DataError, match="nothing of 'ridge' has an accuracy"):
        plots.symbol_accuracy(scores_of(), "ridge")
    plots.png(plots.symbol_accuracy(scores_of().assign(accuracy_low=np.nan, accuracy_high=np.nan), "stockformer"))


def test_learning_curves_show_each_family_by_itself():
    """Of the symbols' own networks the median; of a model of all stocks each member of each fold."""
    own = history_of(AAA=[-0.1, 0.1, 0.2], BBB=[-0.2, 0.0, np.nan], CCC=[-0.3, -0.2, 0.0])
    shared = [pd.DataFrame({"job": job, "symbol": "*", "member": 0, "epoch": [25, 50], "skill": skill})
              for job, skill in (("trees_fold1", [0.02, 0.03]), ("trees_fold2", [0.04, 0.01]))]
    figure = plots.learning_curves(types.SimpleNamespace(history=pd.concat([own, *shared])))
    first, second = figure.axes
    median, none = first.lines
    assert list(median.get_xdata()) == [1, 2, 3] and list(median.get_ydata()) == pytest.approx([-0.2, 0.0, 0.1])
    assert list(none.get_ydata()) == [0, 0] and first.get_ylabel() == "stockformer [share of loss saved]"
    assert [list(line.get_ydata()) for line in second.lines[:2]] == [[0.02, 0.03], [0.04, 0.01]]
    assert (second.get_xlabel(), second.get_ylabel()) == ("Trees", "trees [rank correlation]")


@pytest.mark.parametrize("skill", [[], [np.nan]])
def test_learning_curves_say_in_the_picture_that_there_are_none_yet(skill):
    history = pd.DataFrame({"job": "trees_fold1", "symbol": "*", "member": 0, "epoch": 1, "train_loss": 1.0,
                            "skill": skill})
    figure = plots.learning_curves(history)
    assert "No learning curves yet" in figure.axes[0].texts[0].get_text()
    plots.png(figure)


def test_order_shows_quantile_returns_and_the_correlation_by_horizon():
    axes, below = plots.order(order_of()).axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([-0.4, -0.1, 0, 0.1, 0.5])
    assert axes.collections[0].get_segments()[4][:, 1] == pytest.approx([0.4, 0.6])
    line = below.containers[0]
    assert list(line.lines[0].get_ydata()) == [0.04, 0.05]
    assert line.lines[2][0].get_segments()[1][:, 1] == pytest.approx([0.05 - 1.96 * 0.01, 0.05 + 1.96 * 0.01])
    assert [label.get_text() for label in below.get_xticklabels()] == ["1", "5"]


def test_basket_shows_values_beside_the_universe_and_below_how_far_each_was_from_its_highest():
    figure = plots.basket(basket_of(value=(1e9, 1.2e9, 1.08e9), universe=(1e9, 0.9e9, 0.99e9)))
    axes, below = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[1, 1.2, 1.08], [1, 0.9, 0.99]]
    assert [list(line.get_ydata()) for line in below.lines] == [pytest.approx([0, 0, -10]), pytest.approx([0, -10, -1])]
    assert legend_of(figure) == ["basket", "equal-weighted universe"] and axes.get_yscale() == "log"


def test_random_baskets_are_counted_with_ours_among_them():
    axes = plots.random_baskets(basket_of()).axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 100
    assert list(axes.lines[0].get_xdata()) == pytest.approx([20, 20])


def test_months_are_the_changes_between_their_last_days():
    days = pd.to_datetime(["2023-01-02", "2023-01-31", "2023-02-28", "2023-04-28", "2024-01-31"])
    basket = basket_of(value=[100.0, 110.0, 99.0, 99.0, 118.8], universe=1.0)
    axes = plots.months(replace(basket, equity=basket.equity.set_index(days))).axes[0]
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    assert texts == {(0, 0): "10", (1, 0): "-10", (3, 0): "0", (0, 1): "20"}, "no -0, and nothing for March"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2023", "2024"]


def test_fan_adds_up_a_fifth_of_what_each_fifth_returned_over_the_mean():
    """Five stocks: 1 % for the best, -1 % for the worst in five days, on 75 days."""
    figure = plots.fan(rows_of()[1], "stockformer")
    ends = [line.get_ydata()[-1] for line in figure.axes[0].lines[:5]]
    assert ends == pytest.approx([-15, -7.5, 0, 7.5, 15])
    assert legend_of(figure) == ["worst", "2nd", "3rd", "4th", "best"]
    few = plots.fan(rows_of()[1].query("symbol in ('AAA', 'BBB', 'CCC', 'DDD')"), "stockformer")
    assert len(few.axes[0].lines) == 6, "a fifth without a stock stays at 0"


def ranking_of(n=30):
    return pd.DataFrame({"rank": range(1, n + 1), "symbol": [f"S{place:02}" for place in range(n)],
                         "date": pd.Timestamp("2026-07-03"), "edge [%]": np.linspace(0.8, -0.8, n)})


def test_evening_shows_all_stocks_and_names_the_first_and_the_last_with_what_is_ordered():
    orders = pd.DataFrame({"symbol": ["S00", "S29"], "action": ["buy", "sell"]})
    figure = plots.evening(ranking_of().sample(frac=1, random_state=0), orders, n_named=3)
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(list(np.linspace(0.8, -0.8, 30)))
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["buy S00", "S01", "S02", "S27", "S28", "sell S29"]
    assert axes.yaxis_inverted() and figure.get_suptitle() == "03/07/2026: 30 stocks"


def test_symbol_shows_its_rank_and_with_trades_its_price_and_fills():
    _, rank, price = plots.symbol(*rows_of(), "BBB", "stockformer", n_days=30, trades=trades_of()).axes
    assert set(rank.lines[0].get_ydata()) == {2} and rank.get_ylim() == (5.5, 0.5), "the best on top"
    close, bought, sold = price.lines
    assert set(close.get_ydata()) == {12.5} and list(bought.get_ydata()) == list(sold.get_ydata()) == [12.5]
    assert [f"{pd.Timestamp(line.get_xdata()[0]):%d/%m}" for line in (bought, sold)] == ["12/03", "19/03"]


def test_symbol_shows_forecast_and_outcome_as_price_changes_on_the_day_of_the_forecast():
    forecast, rows = rows_of()
    figure = plots.symbol(forecast, rows, "AAA", "stockformer", n_days=20)
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines["forecast"].get_ydata()) == pytest.approx([1] * 20)
    assert list(lines["actual"].get_ydata()) == pytest.approx([2] * 20)
    assert list(pd.DatetimeIndex(lines["actual"].get_xdata())) == list(rows["date"].unique()[-20:])
    assert axes.get_ylabel() == "5-day change [%]"
    assert legend_of(figure) == ["90% interval", "actual", "forecast"]
    alone = plots.symbol(forecast.drop(columns=["low", "high"]), rows, "AAA", "stockformer")
    assert legend_of(alone) == ["actual", "forecast"]


# --- the data


def panel_of(present, **features):
    """A panel with these present days; each keyword is a feature of the registry with its values [symbols, days]."""
    present = np.asarray(present, dtype=bool)
    values = np.stack([np.broadcast_to(value, present.shape) for value in features.values()], axis=2)
    return Panel(values.astype("float32"), np.ones((*present.shape, 5)), present,
                 tuple(f"SYN{row + 1:03}" for row in range(len(present))),
                 pd.bdate_range("2023-01-02", periods=present.shape[1]), tuple(features), "0" * 12)


def test_coverage_shows_who_is_present_by_first_day_with_the_folds(panel):
    folds = [split_days(panel.days, *borders) for borders in (("2023-10-02", "2024-01-02", "2024-12-31"),
                                                              ("2024-10-01", "2025-01-02"))]
    figure = plots.coverage(panel, folds)
    axes = figure.axes[0]
    order = np.argsort(panel.present.argmax(axis=1), kind="stable")
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), panel.present[order])
    assert tuple(axes.images[0].get_extent()) == (0, 800, 5.5, -0.5)
    assert [label.get_text() for label in axes.get_yticklabels()] == [panel.symbols[row] for row in order]
    borders = [line.get_xdata()[0] for line in axes.lines]
    assert [f"{panel.days[border]:%Y-%m-%d}" for border in borders] == [fold.test.first for fold in folds]
    assert [text.get_text() for text in axes.texts] == ["1", "2"] and not plots.coverage(panel).axes[0].lines
    assert f"{panel.present.mean():.0%} of 6 symbols × 800 days" in figure.get_suptitle()
    years = dict(zip(axes.get_xticks(), (label.get_text() for label in axes.get_xticklabels()), strict=True))
    assert years == {day: f"{panel.days[day].year}" for day in (0, *np.flatnonzero(np.diff(panel.days.year)) + 1)}


def test_coverage_of_many_symbols_names_some_of_them():
    axes = plots.coverage(panel_of(np.ones((185, 30), dtype=bool), return_1=0)).axes[0]
    assert len(axes.get_yticks()) < 40 and "one in 5 named" in axes.get_ylabel()


def report_of(**rows):
    """Each keyword is a data-quality issue with its treatment and its rows."""
    findings = [Finding(issue.replace("_", " "), *found, "FPT 2024-01-02: x") for issue, found in rows.items()]
    return CleaningReport("prices.csv", 51_000, 50_000, 6, "2024-01-02", "2025-12-31", findings)


def test_cleaning_shows_rows_by_issue_coloured_by_treatment():
    figure = plots.cleaning(report_of(filler=("kept, the later file's", 15_000), split=("rescaled", 3),
                                      twice=("dropped, the later row stays", 1_000)))
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [3, 1_000, 15_000] and axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["split", "twice", "filler"]
    assert [text.get_text() for text in axes.texts] == ["3", "1,000", "15,000"]
    colours = [matplotlib.colors.to_hex(bar.get_facecolor()).upper() for bar in axes.patches]
    assert colours == [plots.BLUE, plots.ORANGE, plots.GREY] and legend_of(figure) == ["repaired", "dropped", "kept"]
    assert "50,000 of 51,000 rows kept" in figure.get_suptitle() and "logarithmic" in axes.get_xlabel()


def test_cleaning_without_an_issue_says_so():
    axes = plots.cleaning(report_of()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["no data-quality issue found"] and not axes.patches


def test_feature_distributions_show_percentiles_in_parts_of_the_bounds(panel):
    axes = plots.feature_distributions(panel).axes[0]
    values = panel.values[panel.present]  # [rows, features]
    reach = np.array([max(-FEATURES[name].low, FEATURES[name].high) for name in panel.feature_names])
    bounds, wide, narrow = (np.array(lines.get_segments())[:, :, 0] for lines in axes.collections)
    for lines, percentiles in ((wide, (1, 99)), (narrow, (25, 75))):
        np.testing.assert_allclose(lines, np.percentile(values, percentiles, axis=0).T / reach[:, None], atol=1e-6)
    np.testing.assert_allclose(axes.lines[0].get_xdata(), np.median(values, axis=0) / reach, atol=1e-6)
    assert np.abs(bounds).max() == 1 and (bounds[:, 0] <= wide[:, 0]).all() and (wide[:, 1] <= bounds[:, 1]).all()
    assert [label.get_text() for label in axes.get_yticklabels()] == list(FEATURES) and len(FEATURES) == 50


def test_feature_distributions_count_the_days_at_a_bound_that_is_not_neutral():
    at_bound = np.where(np.arange(200) < 30, FEATURES["return_1"].high, 0.001)
    panel = panel_of(np.ones((1, 200)), return_1=at_bound, ceiling_hit=np.arange(200) < 4, upper_shadow=0)
    texts = {round(text.xy[1]): text.get_text() for text in plots.feature_distributions(panel).axes[0].texts}
    assert texts == {0: "15.0%", 1: "2.0%"}


def test_feature_correlations_are_pearsons_and_the_strongest_pair_is_named(panel):
    figure = plots.feature_correlations(panel)
    axes, names = figure.axes[0], panel.feature_names
    table = pd.DataFrame(panel.values[panel.present].astype("float64"), columns=names)
    expected = table.corr().to_numpy()
    found = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    pairs = table.corr().abs().where(np.tril(np.ones_like(expected), -1) > 0).stack()
    row, column = pairs.idxmax()
    assert figure.get_suptitle().endswith(f"{table.corr().loc[row, column]:.2f}\n{column} and {row}")
    frame = axes.patches[0]
    assert (round(frame.get_x() + 0.5), round(frame.get_y() + 0.5)) == (names.index(column), names.index(row))
    assert [label.get_text() for label in axes.get_yticklabels()] == list(names)


def test_feature_correlations_leave_a_constant_feature_grey():
    random = np.random.default_rng(0).normal(size=(2, 50))
    panel = panel_of(np.ones((2, 50)), return_1=random, return_5=-random, weekday=0)
    figure = plots.feature_correlations(panel)
    assert figure.axes[0].images[0].get_array().mask[2].all()
    assert figure.get_suptitle().endswith("-1.00\nreturn_1 and return_5")
    plots.png(figure)


def test_feature_pictures_look_at_present_days_only_and_at_the_same_ones_each_time(monkeypatch):
    present = np.arange(1_000).reshape(2, 500) % 10 > 0
    panel = panel_of(present, return_1=np.where(present, 0.01, 0.2), weekday=np.arange(500) % 5 / 2 - 1)
    monkeypatch.setattr(data_plots, "MOST_ROWS", 300)
    sample = data_plots._sample(panel)
    assert sample.shape == (300, 2) and (sample[:, 0] == np.float32(0.01)).all()
    assert len(np.unique(sample[:, 1])) == 5, "every day of the week"
    np.testing.assert_array_equal(sample, data_plots._sample(panel))


# --- all of them


ALL_ISSUES = {issue.name: ("kept", 10 ** (place % 7) // 10) for place, issue in enumerate(ISSUES.values())}
FIGURES = {
    "symbol_accuracy": lambda panel, note: plots.symbol_accuracy(scores_of("ensemble"), note=note),
    "learning_curves": lambda panel, note: plots.learning_curves(history_of(AAA=[-0.1, 0.1]), note=note),
    "accuracies": lambda panel, note: plots.accuracies(scores_of("ensemble"), note=note),
    "order": lambda panel, note: plots.order(order_of(), note=note),
    "basket": lambda panel, note: plots.basket(basket_of(), note=note),
    "random_baskets": lambda panel, note: plots.random_baskets(basket_of(), note=note),
    "importance": lambda panel, note: plots.importance(pd.DataFrame(
        {"mean": 0.3, "min": 0.2, "max": 0.4}, index=[*FEATURES]), note=note),
    "months": lambda panel, note: plots.months(basket_of(), note=note),
    "fan": lambda panel, note: plots.fan(rows_of()[1], "stockformer", note=note),
    "evening": lambda panel, note: plots.evening(ranking_of(), note=note),
    "stock": lambda panel, note: plots.symbol(*rows_of(), "AAA", "stockformer", trades=trades_of(), note=note),
    "symbol": lambda panel, note: plots.symbol(*rows_of(), "AAA", "stockformer", note=note),
    "coverage": lambda panel, note: plots.coverage(panel, note=note),
    "cleaning": lambda panel, note: plots.cleaning(report_of(**ALL_ISSUES), note=note),
    "one issue": lambda panel, note: plots.cleaning(report_of(split=("repaired", 2_000_000)), note=note),
    "no issue": lambda panel, note: plots.cleaning(report_of(), note=note),
    "feature_distributions": lambda panel, note: plots.feature_distributions(panel, note=note),
    "feature_correlations": lambda panel, note: plots.feature_correlations(panel, note=note)}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_units_a_note_and_shows_itself_in_a_notebook(panel, name, monkeypatch):
    monkeypatch.setattr(data_plots, "DPI", 60)
    figure = FIGURES[name](panel, SYNTHETIC_NOTE)
    assert isinstance(figure, Figure) and figure.get_suptitle().replace("\n", " ").endswith(SYNTHETIC_NOTE)
    assert "[" in "".join(axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes)
    image, shown = figure._repr_png_()
    assert shown == {"width": 420}
    assert image.startswith(b"\x89PNG") and image == plots.png(FIGURES[name](panel, SYNTHETIC_NOTE))
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_of_a_figure_is_cut_or_laid_over_another(panel, name):
    figure = FIGURES[name](panel, SYNTHETIC_NOTE)
    figure.draw_without_rendering()
    edge, unseen = figure.bbox, {id(label) for axes in figure.axes for label in axes.get_xticklabels()}
    unseen |= {id(tick.label1) for axes in figure.axes for tick in axes.yaxis.get_major_ticks()
               if not min(axes.get_ylim()) <= tick.get_loc() <= max(axes.get_ylim())}
    for text in [text for text in figure.findobj(Text) if text.get_text() and id(text) not in unseen]:
        box = text.get_window_extent()
        assert edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1, text.get_text()
        is_listed = name in data_plots.__dict__ or "issue" in name or name == "symbol_accuracy"  # in notebooks alone
        on_phone = text.get_size() / 72 * 348 / data_plots.WIDTH  # [pixels] of 390, less the margins of the page
        assert on_phone >= 14 or (is_listed and text.get_size() == data_plots.SMALL), text.get_text()
    labels = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(abs(upper.y0 - lower.y0) >= 0.8 * upper.height for upper, lower in itertools.pairwise(labels))
    assert name != "cleaning" or figure.axes[0].get_position().width > 0.3, "the bars keep their room"
