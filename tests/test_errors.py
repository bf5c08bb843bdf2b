import pytest

from vnq_colab import errors
from vnq_colab.errors import ConfigError, VnqError, did_you_mean, name_a_few, shorten


def test_error_tree_in_the_docstring_names_every_class():
    classes = [value.__name__ for value in vars(errors).values()
               if isinstance(value, type) and issubclass(value, VnqError)]
    assert all(name in errors.__doc__ for name in classes)


@pytest.mark.parametrize("found, hint", [
    ("lerning_rate", " Did you mean 'learning_rate'?"), ("zzz", " Known: epochs, learning_rate."),
])
def test_did_you_mean_names_the_nearest_or_all(found, hint):
    assert did_you_mean(found, ["epochs", "learning_rate"]) == hint


def test_did_you_mean_says_nothing_about_a_long_list():
    assert did_you_mean("zzz", [f"name{number}" for number in range(30)]) == ""


def test_name_a_few_counts_the_rest():
    assert name_a_few("ABCDEFG", 2) == "A, B and 5 more"
    assert name_a_few("AB", 2) == "A, B"


@pytest.mark.parametrize("value", ["9" * 5000, int("9" * 400), 10 ** 5000, ["x" * 300] * 300, {"a": {"b": [[[[[1]]]]]}},
                                   "\x1b[31m" * 50],
                         ids=range(6))
def test_shorten_says_what_was_found_in_a_line(value):
    assert len(shorten(value)) < 500 and "\x1b" not in shorten(value) and shorten(value)
    assert shorten(3.5) == "3.5" and shorten("FPT") == "'FPT'"


def test_error_neither_floods_the_screen_nor_steers_it():
    assert str(ConfigError("epochs = " + "9" * 5000 + ": too many.")).endswith("999: too many.")
    assert len(str(ConfigError("epochs = " + "9" * 5000 + ": too many."))) < 200
    assert len(str(ConfigError("a b " * 10**6))) < 2100
    assert str(ConfigError("prices\x1b[2J.csv\u202e: no.\nLine 2")) == "prices\\x1b[2J.csv\\u202e: no.\nLine 2"
    assert str(ConfigError("/Drive của tôi/dữ_liệu.csv: no.")) == "/Drive của tôi/dữ_liệu.csv: no."
