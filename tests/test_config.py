import json

import pytest

from vnq_colab.config import PROFILES, RunConfig
from vnq_colab.errors import ConfigError
from vnq_colab.recipes import RECIPES
from vnq_colab.settings import MachineConfig, NetworkConfig, Task, TrainConfig, TreesConfig


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_config_of_every_profile_and_recipe_survives_json(profile, recipe):
    config = RunConfig.for_machine(profile, recipe=recipe)
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_original_recipe_is_what_the_source_texts_ask_for():
    config = RunConfig.for_machine("cpu", recipe="original")
    train = config.train
    assert (train.epochs, train.windows_per_batch, train.learning_rate, train.patience) == (100, 32, 1e-3, 15)
    assert config.model == NetworkConfig()
    assert (config.families, config.task.target, config.stockformer.start) == (("stockformer",), "return", "own")
    assert config.judged_family == "stockformer"
    local = RunConfig.for_machine("i7-14700", recipe="original-cpu")
    assert (local.train.epochs, local.train.windows_per_batch, local.train.accumulate,
            local.model.look_back) == (50, 4, 8, 30)
    assert local.symbols == ("FPT", "VCB", "HPG")


def test_default_network_has_the_documented_size():
    assert NetworkConfig() == NetworkConfig(look_back=60, width=128, n_layers=4, n_heads=8, feed_forward=512)
    assert TrainConfig().windows_per_batch == 4
    assert Task() == Task(horizon=5, bar="1d", target="rank", label="open", market="VN")
    assert RunConfig().judged_family == "ensemble"


@pytest.mark.parametrize("path, text, message", [
    ("train.lerning_rate", "1", "Did you mean 'train.learning_rate'"),
    ("trian.epochs", "1", "Did you mean 'train.epochs'"),
    ("train.epochs", "0", "must lie between 1 and 1,000,000"),
    ("train.epochs", "many", "expected int"),
    ("train.supervise", "some_days", "'all_days' or 'last_day'"),
    ("model.width", "30", "multiple of n_heads"),
    ("model.dropout", "1.5", "must lie in"),
    ("machine.device", "tpu", "'cpu' or 'cuda'"),
    ("model", "3", "'model' is a group of settings"),
    ("train.learning_rate", "Infinity", "expected float"),
    ("machine.threads", "0", "and 1,000,000, or null"),
    ("model.look_back", "10000", "between 1 and 512"),
    ("task.horizon", "10", "judged and traded is 5 days"),
    ("task.bar", "1h", "only daily bars"),
    ("trees.leaves", "9" * 300, "between 2 and 4,096"),
    ("n_members", "9" * 300, "between 1 and 1,000,000"),
    ("seed", "-1", "between 0 and"),
    ("task.target", "ranks", "'rank' or 'return' or 'direction'"),
    ("task.target", "return", "the global network learns ranks"),
    ("train.loss", "gaussian_nll", "which ranks have not"),
    ("trees.subsample", "0", r"must lie in \(0, 1\]"),
    ("trees.monotone", "return_5", r"expected a list such as \["),
    ("trees.monotone", '["return_5", "-return_5"]', "'return_5': is given with both signs"),
    ("trees.leafs", "7", "Did you mean 'trees.leaves'"),
    ("global.inputs", "prices", "'features' or 'ranks' or 'both'"),
    ("stockformer.start", "other", "'global' or 'own'"),
    ("families", "trees,forest", "no family 'forest'"),
    ("recipe", "original", "choose it with --recipe"),
    ("symbols", "FPT,HPG,FPT", "FPT.*named twice"),
])
def test_wrong_setting_is_refused_in_words(path, text, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig().with_setting(path, text)


def test_setting_is_read_as_on_the_command_line():
    config = RunConfig().with_setting("train.learning_rate", "3e-4").with_setting("symbols", "FPT, HPG")
    assert config.train.learning_rate == 3e-4
    assert config.symbols == ("FPT", "HPG")
    config = config.with_setting("families", "trees, global").with_setting("global.epochs", "7")
    assert config.families == ("trees", "global") and config.global_.epochs == 7
    assert config.to_dict()["global"]["epochs"] == 7


@pytest.mark.parametrize("make", [
    lambda: RunConfig.for_machine("a10"), lambda: RunConfig.for_machine("cpu", recipe="orignal"),
])
def test_unknown_profile_or_recipe_names_the_nearest(make):
    with pytest.raises(ConfigError, match="Did you mean"):
        make()


def test_recipe_that_is_no_file_of_a_search_names_the_file_once_and_its_ending(tmp_path):
    (path := tmp_path / "R.JSON").write_text("{")
    with pytest.raises(ConfigError, match="not a recipe of a search: not readable") as caught:
        RunConfig.for_machine("cpu", recipe=path)
    assert str(caught.value).count("R.JSON") == 1
    with pytest.raises(ConfigError, match=r"must end in \.json"):
        RunConfig.for_machine("cpu", recipe=str(tmp_path))


@pytest.mark.parametrize("recipe", [None, 5, ["def"]])
def test_recipe_that_is_no_text_is_refused_in_words(recipe):
    with pytest.raises(ConfigError, match="there is no recipe .*(Known|Did you mean).*default"):
        RunConfig.for_machine("smoke", recipe=recipe)


def test_trees_alone_learn_returns_whatever_the_networks_would_begin_from():
    assert RunConfig(families=("trees",), task=Task(target="return")).judged_family == "trees"
    with pytest.raises(ConfigError, match=r"and, before this, stockformer\.start=own"):
        RunConfig(families=("stockformer",), task=Task(target="return"))


def test_settings_added_later_change_no_earlier_config_id():
    """Else every run before them would be refused as one whose config was changed."""
    before = TreesConfig(rounds=600, least_rounds=400, patience=4, learning_rate=0.03)  # defaults until 2026-11-29
    assert RunConfig(trees=before).config_id == "d87793005acb" and RunConfig().config_id == "bbd22a452424"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreesConfig, "LATER", (*TreesConfig.LATER, "leaves"))
        one, other = RunConfig(), RunConfig(trees=TreesConfig(leaves=31))
        assert one.config_id != "bbd22a452424" and one.config_id != other.config_id


def test_config_id_ignores_the_machine_and_the_checkpoint_interval():
    base = RunConfig()
    same = RunConfig(machine=MachineConfig(threads=3, pack_models=7), train=TrainConfig(checkpoint_minutes=1))
    assert base.config_id == same.config_id
    assert base.config_id != RunConfig(seed=1).config_id
    assert base.differences(RunConfig(train=TrainConfig(epochs=30))) == ["train.epochs: 100, here 30"]


@pytest.mark.parametrize("make", [
    lambda: RunConfig(symbols="FPT"), lambda: TrainConfig(epochs="x"), lambda: TrainConfig(learning_rate=float("nan")),
    lambda: RunConfig(model={"width": 8}),
])
def test_field_of_the_wrong_type_is_refused(make):
    with pytest.raises(ConfigError, match="expected"):
        make()


def test_ensemble_does_not_count_the_global_network_twice():
    assert RunConfig().ensemble_families == ("stockformer", "trees")
    assert RunConfig(families=("global", "trees")).ensemble_families == ("global", "trees")
    assert RunConfig(families=("stockformer", "global")).ensemble_families == ("stockformer", "global")
