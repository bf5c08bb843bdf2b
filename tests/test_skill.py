"""Questions to all symbols at once, against slow second implementations and worlds where the answer is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from vnq_colab.data.panel import FLAT
from vnq_colab.errors import DataError
from vnq_colab.evaluation.significance import diebold_mariano, pooled_test
from vnq_colab.evaluation.skill import compare, information_coefficient, skill


def table_of(seed=0, n_symbols=12, n_dates=300, know=0.0, drift=0.0):
    """with_outcomes of three families: `ours` knows a share of what comes, `coin` nothing, `majority` says up."""
    random = np.random.default_rng(seed)
    shocks = 0.02 * (0.5 * random.normal(size=(n_dates + 4, 1)) + random.normal(size=(n_dates + 4, n_symbols)))
    actual = sum(shocks[step : step + n_dates] for step in range(5)) + drift  # [dates, symbols]
    actual[random.random(actual.shape) < 0.05] = 0.0
    dates = np.repeat(pd.bdate_range("2023-01-02", periods=n_dates), n_symbols)
    symbols = np.tile([f"S{place:02}" for place in range(n_symbols)], n_dates)
    means = {"ours": know * actual + 0.02 * random.normal(size=actual.shape),
             "coin": 0.02 * random.normal(size=actual.shape), "majority": np.full(actual.shape, 0.01)}
    return pd.concat([pd.DataFrame({"family": family, "symbol": symbols, "date": dates, "mean": mean.ravel(),
                                    "scale": 0.05, "p_up": 0.5 + np.clip(mean.ravel(), -0.1, 0.1),
                                    "actual": actual.ravel()}) for family, mean in means.items()], ignore_index=True)


def test_skill_equals_a_slow_second_implementation():
    table = table_of(know=0.1, drift=0.005)
    found = skill(table).set_index("family")
    for family, rows in table.groupby("family"):
        rows = rows[rows["actual"].abs() >= FLAT]
        excess, dates, right, base = [], [], [], []
        for _, part in rows.groupby("symbol"):
            direction = 1 if (part["actual"] > 0).sum() * 2 >= len(part) else -1
            for row in part.itertuples():
                right.append(row.mean * row.actual > 0)
                base.append(direction * row.actual > 0)
                excess.append(right[-1] - float(base[-1]))
                dates.append(row.date)
        test, line = pooled_test(excess, dates), found.loc[family]
        assert (line["accuracy"], line["base_rate"]) == pytest.approx((np.mean(right), np.mean(base)))
        assert line["excess"] == pytest.approx(line["accuracy"] - line["base_rate"])
        assert (line["excess_low"], line["excess_high"]) == pytest.approx((test.low, test.high), nan_ok=True)
        assert line["p"] == pytest.approx(test.p, nan_ok=True) and line["n_rows"] == len(rows)


def test_skill_finds_who_knows_and_nobody_else():
    found = skill(table_of(know=0.2), against="majority").set_index("family")
    assert list(found.index) == ["coin", "ours"]  # the rule is not compared with itself
    assert found.loc["ours", "p"] < 0.001 and found.loc["ours", "bootstrap_low"] > 0
    assert found.loc["coin", "p"] > 0.05 and found.loc["coin", "excess_low"] < 0 < found.loc["coin", "excess_high"]


def test_skill_against_a_family_rarely_finds_a_coin():
    p_values = [skill(table_of(seed, n_symbols=4, n_dates=150), against="majority").set_index("family").loc["coin", "p"]
                for seed in range(150)]
    assert np.mean(np.less(p_values, 0.05)) < 0.11  # 5 % and three standard errors


def test_skill_of_a_coin_is_below_a_base_rate_chosen_in_hindsight():
    assert skill(table_of()).set_index("family").loc["coin", "excess"] < 0


def test_skill_has_no_row_for_a_forecast_without_direction_and_half_a_hit_where_the_rule_has_none():
    table = table_of()
    silent = table.assign(mean=table["mean"].where(table["family"] != "majority", 0.0))
    assert "majority" not in set(skill(silent)["family"])
    found = skill(silent, against="majority").set_index("family")
    assert (found["base_rate"] == 0.5).all()
    with pytest.raises(DataError, match="there is no 'majorty' among coin, majority, ours. Did you mean 'majority'"):
        skill(table.sort_values("family"), against="majorty")


def test_skill_is_seeded():
    table = table_of()
    pd.testing.assert_frame_equal(skill(table, seed=1), skill(table.sample(frac=1, random_state=0), seed=1))


LOSS = {  # of a mean, a p_up and what came, written down a second time; the CRPS by its integral over quantiles
    "squared_error": lambda mean, p_up, actual: (mean - actual) ** 2,
    "absolute_error": lambda mean, p_up, actual: abs(mean - actual),
    "log_loss": lambda mean, p_up, actual: -np.log(p_up if actual > 0 else 1 - p_up),
    "crps": lambda mean, p_up, actual: 2 * np.mean(((actual < mean + QUANTILES) - LEVELS)
                                                   * (mean + QUANTILES - actual)),
}
LEVELS = (np.arange(4000) + 0.5) / 4000
QUANTILES = 0.05 * norm.ppf(LEVELS)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "log_loss", "crps"])
def test_compare_equals_diebold_and_mariano_of_the_mean_loss_of_each_date(loss):
    table = table_of(know=0.1)
    table = table[(table["family"] != "coin") | (table["symbol"] != "S03")]  # a family may lack a symbol
    found = compare(table, "ours", loss=loss).set_index("opponent")
    assert list(found.index) == ["coin", "majority"]
    for other in found.index:
        both = table[table["family"] == "ours"].merge(table[table["family"] == other], on=["symbol", "date"])
        if loss == "log_loss":
            both = both[both["actual_x"].abs() >= FLAT]
        ours, theirs = ([LOSS[loss](*row) for row in both[[f"mean{end}", f"p_up{end}", "actual_x"]].to_numpy()]
                        for end in ("_x", "_y"))
        by_date = pd.DataFrame({"ours": ours, "theirs": theirs}).groupby(both["date"].to_numpy()).mean()
        test = diebold_mariano(by_date["ours"], by_date["theirs"])
        line = found.loc[other]
        near = 0.005 if loss == "crps" else 1e-9
        assert (line["gain"], line["statistic"]) == pytest.approx((test.mean, test.statistic), rel=near)
        assert line["p"] == pytest.approx(test.p, abs=near)
        assert (line["gain_low"], line["gain_high"]) == pytest.approx((test.low, test.high), rel=near)


def test_compare_names_what_it_does_not_know():
    with pytest.raises(DataError, match="no 'our' among"):
        compare(table_of(), "our")
    with pytest.raises(DataError, match="Did you mean 'crps'"):
        compare(table_of(), "ours", loss="crsp")


def test_information_coefficient_equals_scipy_date_by_date():
    stats = pytest.importorskip("scipy.stats")
    table = table_of(know=0.1)
    table = table.sample(frac=0.5, random_state=1)  # some dates keep fewer than 5 of 12
    found = information_coefficient(table).set_index("family")
    assert list(found.index) == ["coin", "ours"]  # majority says the same of all
    for family in found.index:
        each, dates = [], []
        for date, rows in table[table["family"] == family].groupby("date"):
            if len(rows) >= 5:
                dates.append(date)
                each.append([stats.pearsonr(rows["mean"], rows["actual"]).statistic,
                             stats.spearmanr(rows["mean"], rows["actual"].round(6)).statistic])
        for column, name in enumerate(("ic", "rank_ic")):
            test, line = pooled_test(np.array(each)[:, column], dates), found.loc[family]
            assert (line[name], line[f"{name}_t"]) == pytest.approx((test.mean, test.statistic))
            assert line[f"{name}_p"] == pytest.approx(test.p) and line["n_dates"] == len(dates)
        assert len(dates) < table.loc[table["family"] == family, "date"].nunique()
    assert found.loc["ours", "ic_p"] < 0.001 < found.loc["coin", "ic_p"]


def test_tables_of_nothing_to_judge_are_empty_and_keep_their_columns():
    flat = table_of().assign(actual=0.0, mean=0.0)
    assert skill(flat).empty and "excess" in skill(flat)
    assert information_coefficient(flat).empty and "rank_ic_p" in information_coefficient(flat)
