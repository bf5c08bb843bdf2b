"""What is asked for by name in Python: a wrong kind of argument is said in a sentence, whatever the function."""

from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

import vnq_colab as vnq
from vnq_colab.errors import ConfigError

FUNCTIONS = [name for name in vnq.__all__ if hasattr(getattr(vnq, name), "__wrapped__")]


@pytest.mark.parametrize("call, words", [
    (lambda ws: vnq.prepare(ws, 3), r"prepare\(\): data = 3: expected .*DataFrame.*, found int"),
    (lambda ws: vnq.prepare(str(ws.root), None), "prepare.*: ws = .*: expected Workspace, found str"),
    (lambda ws: vnq.train(ws, "x", vnq.RunConfig()), r"train\(\): panel = 'x': expected Panel, found str"),
    (lambda ws: vnq.validate("run"), r"validate\(\): session = 'run': expected Session, found str"),
    (lambda ws: vnq.orders("bundle", None), r"orders\(\): bundle = 'bundle': expected Bundle"),
    (lambda ws: vnq.resume(ws, hours="2"), r"resume\(\): hours = '2': expected float"),
    (lambda ws: vnq.load_prices(np.zeros(10**6)), r"load_prices\(\): "),
])
def test_wrong_kind_of_argument_is_named(tmp_path, call, words):
    with pytest.raises(ConfigError, match=words) as error:
        call(vnq.open_workspace(tmp_path))
    assert len(str(error.value)) < 400 and "\n" not in str(error.value)


def test_every_function_of_the_door_is_guarded_and_keeps_its_name_and_help():
    assert {"prepare", "train", "resume", "validate", "export_bundle", "load_bundle", "orders"} <= set(FUNCTIONS)
    for name in FUNCTIONS:
        assert isinstance(getattr(vnq, name), FunctionType) and getattr(vnq, name).__name__ == name
        assert getattr(vnq, name).__doc__


def test_numbers_of_numpy_and_paths_are_taken(tmp_path):
    ws = vnq.open_workspace(Path(tmp_path))
    assert vnq.tidy(ws, keep=np.int64(1)).bytes == 0
    with pytest.raises(TypeError, match="unexpected keyword"):
        vnq.tidy(ws, kept=1)
