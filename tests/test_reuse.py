"""Reuse: a week later, only what the new days change is trained."""

from dataclasses import replace

import numpy as np
import pytest

from vnq_colab.config import RunConfig
from vnq_colab.data.panel import build_panel
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.layout import Workspace
from vnq_colab.training.process import Display
from vnq_colab.training.trainer import train

PRICES = synthetic_prices(6, 1060, seed=1)
LAST_WEEK = PRICES[PRICES["date"] <= np.sort(PRICES["date"].unique())[-6]]


@pytest.fixture(scope="module")
def config():
    return RunConfig.for_machine("smoke", families=("stockformer", "global", "trees"))


def trained(ws, prices, config, monkeypatch):
    """(the session, names of the jobs that were trained)."""
    started, start = [], Display.start
    monkeypatch.setattr(Display, "start", lambda self, job: (started.append(job), start(self, job)))
    session = train(ws, build_panel(prices), config, quiet=True)
    monkeypatch.undo()
    return session, started


def files(session):
    return {path.name: path.read_bytes() for path in (session.folder / "done").iterdir()}


def test_new_week_trains_the_last_fold_and_the_final_fit_and_gets_the_bits_of_a_run_from_nothing(
        tmp_path, config, monkeypatch):
    ws = Workspace(tmp_path / "weeks")
    trained(ws, LAST_WEEK, config, monkeypatch)
    second, started = trained(ws, PRICES, config, monkeypatch)
    alone, everything = trained(Workspace(tmp_path / "alone"), PRICES, config, monkeypatch)
    assert len(second.folds) == 2 and set(everything) == set(second.jobs)
    assert set(started) == {name for name, row in second.jobs.items() if row["fold"] != 0} < set(second.jobs)
    assert files(second) == files(alone) and second.status == "finished"


@pytest.mark.parametrize("change", ["a price of long ago", "another config", "a new stock", "a damaged file"])
def test_what_changes_the_past_is_trained_anew(tmp_path, config, monkeypatch, change):
    ws, few = Workspace(tmp_path), replace(config, families=("trees",))
    first, _ = trained(ws, LAST_WEEK[LAST_WEEK["symbol"] != "SYN006"] if change == "a new stock" else LAST_WEEK, few,
                       monkeypatch)
    prices = PRICES.copy()
    if change == "a price of long ago":
        prices.loc[300, ["high", "close"]] = prices.loc[300, "high"] + 100
    if change == "a damaged file":
        path = first.folder / "done" / "trees_fold1"
        path.write_bytes(path.read_bytes()[:-1])
    _, started = trained(ws, prices, replace(few, seed=int(change == "another config")), monkeypatch)
    assert started == ["trees_fold1", "trees_fold2", "trees_final"]
