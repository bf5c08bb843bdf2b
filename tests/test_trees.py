"""Boosting by blocks: what a kill between two of them changes (nothing), when it stops, and what comes back."""

import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from vnq_colab.config import RunConfig
from vnq_colab.data.forecast import make_labels, rank_correlation
from vnq_colab.data.panel import build_panel
from vnq_colab.data.splits import yearly_folds
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.errors import ConfigError, DeliveryError
from vnq_colab.layout import Workspace
from vnq_colab.models import tree_rows, trees
from vnq_colab.models.base import Job, TrainingData
from vnq_colab.models.blocks import check_block
from vnq_colab.settings import MachineConfig, Task, TreesConfig
from vnq_colab.training.trainer import train

SETTINGS = TreesConfig(rounds=40, block_rounds=10, least_rounds=20, patience=1, leaves=7, min_child_weight=20.0)


@pytest.fixture(scope="module")
def data():
    """The first fold of a market of 20 stocks with a planted rank correlation of 0.4."""
    panel = build_panel(synthetic_prices(20, 900, seed=3, signal=0.4))
    train, valid = (getattr(yearly_folds(panel.days)[0], part).mask(panel.days) for part in ("train", "valid"))
    return TrainingData(panel, make_labels(panel, Task()), train, valid, Task())


def learner_of(data, seed=0, **settings):
    config = RunConfig(seed=seed, trees=replace(SETTINGS, **settings), machine=MachineConfig(threads=1))
    return trees.learner(Job("trees", 0, symbols=data.panel.symbols), data, config, {})


def train_out(learner):
    while not learner.finished:
        learner.step()
    return learner


@pytest.fixture(scope="module")
def straight(data):
    return train_out(learner_of(data))


def blocks_of(learner):
    return [growth.blocks for growth in learner.stages.values()]


@pytest.mark.parametrize("cores", [1, 2])
def test_run_that_is_killed_after_any_block_comes_out_with_the_same_bytes(data, straight, cores, monkeypatch):
    """In the search and in the fit, which on two cores grow at once; each time a state starts a new learner."""
    monkeypatch.setattr(trees, "allowed_cores", lambda: cores)
    killed, places = learner_of(data), []
    while not killed.finished:
        killed.step()
        places.append([len(blocks) for blocks in blocks_of(killed)])
        state, killed = killed.state_dict(), learner_of(data)
        killed.load_state_dict(state)
    assert blocks_of(killed) == blocks_of(straight) and places[0] == [1, cores - 1]
    mine, theirs = killed.result(), straight.result()
    assert mine.valid_forecaster.digest() == theirs.valid_forecaster.digest() and mine.curves == theirs.curves


def test_threads_of_a_booster_change_no_bit(data, straight, monkeypatch):
    """So that a run goes on with the same trees on a machine of other cores."""
    monkeypatch.setattr(trees, "allowed_cores", lambda: 1)
    config = RunConfig(trees=SETTINGS, machine=MachineConfig(threads=4))
    other = train_out(trees.learner(straight.job, data, config, {}))
    assert blocks_of(other) == blocks_of(straight) and other.stages["fit"].threads == 4


def test_block_is_a_booster_on_the_margin_of_those_before(data, straight):
    """Score by score the sum of the blocks, and each block with other rows and features."""
    rows = data.panel.present & ~(data.train | data.valid)
    values = data.panel.values[rows]
    margins = [trees.margin_of(raw, values) for raw in straight.stages["fit"].blocks]
    assert len({margin.tobytes() for margin in margins}) == len(margins)
    found = straight.result().forecaster.predict(data.panel, ~(data.train | data.valid))
    np.testing.assert_array_equal(found["score"], np.sum(margins, axis=0, dtype="float32"))


def test_margins_of_the_rows_are_the_sums_of_their_blocks(data, straight):
    """In the order of days, whatever the size of a slab, as far as the order of a sum may change the last bits."""
    search = straight.stages["search"]
    values = data.panel.values.swapaxes(0, 1)[search.rows.T]
    sums = sum(trees.margin_of(raw, values) for raw in search.blocks)
    np.testing.assert_allclose(search._matrix.get_base_margin(), sums, atol=1e-6)


def test_slabs_of_a_few_days_give_the_same_matrix(data, straight, monkeypatch):
    monkeypatch.setattr(tree_rows, "SLAB_DAYS", 30)
    assert blocks_of(train_out(learner_of(data))) == blocks_of(straight)


def test_search_stops_without_progress_and_fits_as_many_trees_on_all_days_before_the_test(data, monkeypatch):
    """Skills by block, of which the first is not asked: best is the third, and one worse than it is enough."""
    learner, skills = learner_of(data), iter([0.9, 0.1, 0.3, 0.2])
    monkeypatch.setattr(trees, "rank_correlation", lambda *_: next(skills))
    train_out(learner)
    before = np.arange(len(data.valid)) <= np.flatnonzero(data.valid)[-1]
    np.testing.assert_array_equal(learner.stages["fit"].rows, data.labels.known & before)
    np.testing.assert_array_equal(learner.stages["search"].rows, data.labels.known & data.train)
    result = learner.result()
    assert [len(blocks) for blocks in blocks_of(learner)] == [4, 3] and result.budget == {"rounds": 30, "effects": []}
    assert len(result.forecaster.blocks) == len(result.valid_forecaster.blocks) == 3
    assert [(row[2], row[4]) for row in result.curves] == [(10, 0.9), (20, 0.1), (30, 0.3), (40, 0.2)]
    assert result.valid_forecaster.digest() != result.forecaster.digest()


def test_trial_grows_the_search_alone(data, straight):
    trial = train_out(learner_of(replace(data, is_trial=True)))
    assert blocks_of(trial) == blocks_of(straight)[:1]
    assert trial.result().forecaster.digest() == straight.result().valid_forecaster.digest()


def test_final_fit_takes_the_median_of_the_folds_rounds(data):
    whole = replace(data, train=data.train | True, valid=data.valid & False)
    config = RunConfig(trees=SETTINGS, machine=MachineConfig(threads=1))
    folds = {f"trees_fold{place + 1}": {"budget": {"rounds": rounds}} for place, rounds in enumerate((10, 40, 20))}
    learner = train_out(trees.learner(Job("trees", None, symbols=data.panel.symbols), whole, config, folds))
    np.testing.assert_array_equal(learner.stages["fit"].rows, data.labels.known)
    result = learner.result()
    assert [len(blocks) for blocks in blocks_of(learner)] == [2]
    assert result.budget["rounds"] == 20 and result.valid_forecaster is None and not result.curves


def test_trees_find_a_planted_order_and_other_seeds_give_others(data, straight):
    later, forecaster = ~(data.train | data.valid), straight.result().forecaster
    scores = forecaster.predict(data.panel, later).pivot(index="symbol", columns="date", values="score").to_numpy()
    truth = np.where(data.labels.known, data.labels.values[:, :, 0], np.nan)[:, later]
    assert rank_correlation(np.where(np.isfinite(truth), scores, np.nan), truth) > 0.15
    assert train_out(learner_of(data, seed=1)).result().forecaster.digest() != forecaster.digest()


def test_labels_are_within_day_ranks_whatever_the_scores(data, straight):
    """The order of the labels is all that counts: stretched ones give the same trees, bit for bit."""
    stretched = replace(data, labels=replace(data.labels, values=np.sinh(2 * data.labels.values)))
    assert blocks_of(train_out(learner_of(stretched))) == blocks_of(straight)


@pytest.mark.parametrize("options, words", [
    ({"objective": "pairwise", "min_child_weight": 1.0}, "pairwise within each day"),
    ({"objective": "lambdarank", "min_child_weight": 0.1}, "lambdarank within each day"),
    ({"sampling": "gradient_based", "subsample": 0.3}, "rows sampled by gradient"),
    ({"matrix": "plain"}, "plain matrix, 8 bytes a number more"),
    ({"memory_pool": True}, "no memory pool, there is no GPU"),
    ({"top_features": 7}, "7 features"),
    ({"monotone": ("-return_1", "volume_correlation_20")}, "monotone in -return_1, volume_correlation_20"),
])
def test_every_option_finds_the_order_says_what_it_did_and_resumes_exactly(data, straight, options, words):
    whole = train_out(learner_of(data, **options))
    result = whole.result()
    assert result.budget["effects"] == [words] and max(whole.skills) > 0.1, whole.skills
    assert (blocks_of(whole) == blocks_of(straight)) == ("memory_pool" in options)
    killed = learner_of(data, **options)
    killed.step()
    state, killed = killed.state_dict(), learner_of(data, **options)
    killed.load_state_dict(state)
    assert blocks_of(train_out(killed)) == blocks_of(whole)
    again = trees.TreesForecaster.from_state(result.forecaster.to_state())
    mine, theirs = (forecaster.predict(data.panel, data.valid) for forecaster in (again, result.forecaster))
    np.testing.assert_array_equal(mine, theirs)


def test_chosen_features_are_the_best_of_training_days_and_a_panel_must_have_them(data):
    """Others may differ; of the stages each chooses its own."""
    forecaster = train_out(learner_of(data, top_features=5)).result().forecaster
    places = [data.panel.feature_names.index(name) for name in forecaster.names]
    assert len(places) == 5 and places == sorted(places) and forecaster.feature_names == data.panel.feature_names
    few = replace(data.panel, values=data.panel.values[:, :, places[::-1]], feature_names=forecaster.names[::-1])
    expected = forecaster.predict(data.panel, data.valid)
    np.testing.assert_array_equal(forecaster.predict(few, data.valid), expected)
    with pytest.raises(DeliveryError, match=f"trained on .*{forecaster.names[0]}.*, which this code does not compute"):
        fewer = replace(few, values=few.values[:, :, :4], feature_names=few.feature_names[:4])
        forecaster.predict(fewer, data.valid)
    state = forecaster.to_state()
    with pytest.raises(DeliveryError, match="features that it does not name"):
        trees.TreesForecaster.from_state(state | {"feature_names": state["feature_names"][:3]})


@pytest.mark.parametrize("sign, text", [(1, "volume_surprise"), (-1, "-volume_surprise")])
def test_monotone_score_moves_one_way_with_its_feature_alone(data, sign, text):
    forecaster = train_out(learner_of(data, monotone=(text,))).result().forecaster
    values = data.panel.values.copy()
    values[:, :, data.panel.feature_names.index("volume_surprise")] += sign
    before, after = (forecaster.predict(replace(data.panel, values=each), data.valid)["score"]
                     for each in (data.panel.values, values))
    assert (after >= before).all() and (after > before).any() == (sign > 0)  # more volume lifts a score, here
    with pytest.raises(ConfigError, match=r"trees.monotone: no feature 'return_6'\. Did you mean 'return_"):
        trees.plan(Task(), data.panel, [], RunConfig(trees=TreesConfig(monotone=("-return_6",))), MachineConfig())


def test_what_an_option_did_is_in_the_session_and_in_the_line_of_its_job(tmp_path, panel, small):
    config = replace(small, trees=replace(small.trees, top_features=9), folds=1)
    session = train(ws := Workspace(tmp_path), panel, config, quiet=True)
    assert {tuple(row["effects"]) for row in session.to_dict()["jobs"].values()} == {("9 features",)}
    log = (ws.log_folder(session.run_id) / "progress.txt").read_text(encoding="utf-8")
    assert all(f"{job} done in" in log for job in session.jobs) and log.count(": 9 features") == len(session.jobs)


def test_monotone_in_a_feature_that_was_not_chosen_is_said_to_have_no_effect():
    config = RunConfig(trees=TreesConfig(top_features=1, monotone=("return_1", "-return_5")))
    assert tree_rows.effects(config, ("return_1",)) == [
        "1 features", "monotone in return_1", "monotone in -return_5 not in effect: not among the chosen features"]


def test_sampling_that_this_xgboost_refuses_is_an_error_with_its_reason(data, monkeypatch):
    xgboost = tree_rows.engine()

    def refuse(*_):
        raise xgboost.core.XGBoostError("[01:02:03] /src/sampler.h:7: Check failed: is_gpu: not on this device.\nStack")

    monkeypatch.setattr(xgboost.Booster, "update", refuse)
    with pytest.raises(ConfigError, match=r"XGBoost .* refuses a setting of trees on cpu: .*not on this device"):
        learner_of(data, sampling="gradient_based").step()


def test_memory_pool_needs_a_gpu_and_a_build_with_rmm(monkeypatch):
    config = RunConfig(machine=MachineConfig(device="cuda"))
    for has_rmm, words in ((True, ""), (False, "was built without RMM")):
        monkeypatch.setattr(tree_rows.engine(), "build_info", lambda has_rmm=has_rmm: {"USE_RMM": has_rmm})
        assert words in tree_rows.no_pool(config) and bool(words) == bool(tree_rows.no_pool(config))


def test_missing_xgboost_is_an_error_with_the_install_line(data, straight, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    for act in (lambda: learner_of(data), lambda: straight.result()):
        with pytest.raises(ConfigError, match="XGBoost is needed for the family trees.*pip install xgboost"):
            act()


def test_trees_of_a_version_that_cannot_be_read_are_named(data, straight):
    state = straight.result().forecaster.to_state()
    with pytest.raises(DeliveryError, match="damaged, or of an XGBoost that this library does not know"):
        trees.TreesForecaster.from_state(state | {"blocks": [state["blocks"][0][:100]]})
    whole = trees.TreesForecaster.from_state(state)
    broken = replace(whole, version="99.0", blocks=(b"not trees",))
    with pytest.raises(DeliveryError, match=r"made by XGBoost 99\.0, and XGBoost .* cannot read them"):
        broken.predict(data.panel, data.valid)


MANGLE = """
import random, struct, sys
import numpy as np
from vnq_colab.errors import DeliveryError
from vnq_colab.models.blocks import check_block, engine, margin_of
raw, chance, refused = open(sys.argv[1], "rb").read(), random.Random(5), 0
values = np.random.default_rng(5).normal(size=(50, int(sys.argv[2]))).astype("float32")
for number in range(int(sys.argv[3])):
    block, place = bytearray(raw), chance.randrange(len(raw))
    if number % 5 == 0:
        block[place] = chance.choice([0, 1, 127, 255, *b"[{}LS$#d", chance.randrange(256)])
    elif number % 5 == 1:
        block[place:place + 4] = struct.pack(">i", chance.choice([-1, 0, 1, 7, 1000, 2**31 - 1, -2**31]))
    elif number % 5 == 2:
        block[place:place + 8] = struct.pack(">q", chance.choice([-1, 0, 2**31, 2**40, 2**62]))
    elif number % 5 == 3:
        del block[place:place + chance.choice([1, 8, 10**9])]
    else:
        block[place:place] = chance.choice([b"{" * 2000, b"[#L" * 2000, b"[$d#L" + struct.pack(">q", 2**60)])
    try:
        check_block(bytes(block), values.shape[1])
    except DeliveryError:
        refused += 1
        continue
    try:
        margin_of(bytes(block), values)
    except engine().core.XGBoostError:
        pass
print(refused)
"""


def test_no_mangled_block_ends_the_process(data, straight, tmp_path):
    block, n_features = straight.result().forecaster.blocks[0], len(data.panel.feature_names)
    check_block(block, n_features)
    (tmp_path / "block").write_bytes(block)
    done = subprocess.run([sys.executable, "-c", MANGLE, tmp_path / "block", str(n_features), "500"],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 400 < int(done.stdout) < 500


def test_trees_that_lead_in_circles_or_out_of_bounds_are_refused(data, straight):
    block, n_features = straight.result().forecaster.blocks[0], len(data.panel.feature_names)
    for name, kind, value in (("left_children", "l", 0), ("right_children", "l", 10**6), ("split_indices", "l", 10**6),
                              ("split_indices", "l", -1), ("split_conditions", "d", float("nan")), ("parents", "l", 5)):
        start = block.index(name.encode()) + len(name) + len("[$l#L") + 8
        broken = block[:start] + struct.pack(">i" if kind == "l" else ">f", value) + block[start + 4:]
        with pytest.raises(DeliveryError, match="its trees are damaged"):
            check_block(broken, n_features)
    with pytest.raises(DeliveryError, match="not boosted trees of these features"):
        check_block(block, n_features + 1)
