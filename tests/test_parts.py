from dataclasses import replace

import pytest

from vnq_colab.data.prepared import prepare
from vnq_colab.delivery.bundle import export_bundle
from vnq_colab.delivery.validate import validate
from vnq_colab.errors import ConfigError, SessionError
from vnq_colab.layout import Workspace
from vnq_colab.training.forecasting import load_forecaster
from vnq_colab.training.parts import parse_part, symbols_of_part, whole_run
from vnq_colab.training.trainer import train


def run(ws, prepared, config, **choices):
    return train(ws, prepared.panel, prepared.splits, config, quiet=True, **choices)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "-1/2"])
def test_wrong_part_is_one_sentence(text):
    with pytest.raises(ConfigError, match="write it as 1/2"):
        parse_part(text)


def test_parts_share_the_symbols_out_by_history(panel, splits):
    symbols = list(panel.symbols)
    parts = [symbols_of_part(panel, splits.train, symbols, (number, 3)) for number in (1, 2, 3)]
    assert sorted(parts[0] + parts[1] + parts[2]) == symbols and [len(part) for part in parts] == [2, 2, 2]
    assert panel.symbols[-1] not in parts[0]  # the youngest is dealt last
    with pytest.raises(ConfigError, match="is empty"):
        symbols_of_part(panel, splits.train, symbols[:1], (2, 2))


def test_two_halves_become_the_run_that_one_machine_would_have_made(tmp_path, prices, config):
    config = replace(config, model=replace(config.model, dropout=0.0), n_members=1,
                     machine=replace(config.machine, pack_models=1))
    ws = Workspace(tmp_path / "parts")
    prepared = prepare(ws, prices)
    first = run(ws, prepared, config, part="1/2")
    assert first.run_id.endswith("-part1of2") and len(first.ledger) == 2
    with pytest.raises(SessionError, match="part 2 is not there. Train it with --part 2/2"):
        validate(first)
    second = run(ws, prepared, config, part="2/2")
    whole = whole_run(second)
    assert whole.run_id == first.run_id.removesuffix("-part1of2") and set(whole.ledger) == set(config.symbols)
    assert whole_run(first).to_dict() == whole.to_dict() and run(ws, prepared, config).run_id == whole.run_id
    validate(second)
    bundle = export_bundle(first, quiet=True)
    assert bundle.manifest["run_id"] == whole.run_id and set(bundle.decisions) == set(config.symbols)
    alone = Workspace(tmp_path / "alone")
    prepare(alone, prices)
    straight = load_forecaster(run(alone, prepared, config))
    merged = load_forecaster(whole)
    assert {name: merged.digest(name) for name in merged.symbols} == {name: straight.digest(name)
                                                                      for name in straight.symbols}
