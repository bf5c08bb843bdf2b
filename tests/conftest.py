"""What several tests share: a small synthetic market, and a run on it from prices to verdict."""

import os
import tempfile
from pathlib import Path

import pytest

os.environ.pop("VNQ_HOME", None)  # a person's own workspace and profile have no part in the tests
os.environ.pop("VNQ_PROFILE", None)
os.environ["VNQ_LOCAL"] = tempfile.mkdtemp(prefix="vnq_local_")  # the local side of every Drive in the tests

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def prices():
    """Six synthetic stocks over 420 days, the last one listed after 116 of them."""
    from vnq_colab.data.synthetic import synthetic_prices

    return synthetic_prices(6, 420, seed=92, signal=0.2)


@pytest.fixture(scope="session")
def panel(prices):
    from vnq_colab.data.panel import build_panel

    return build_panel(prices)


@pytest.fixture(scope="session")
def splits(panel):
    from vnq_colab.data.splits import split_days

    return split_days(panel.days)


@pytest.fixture
def config():
    """Tiny networks, three symbols, two members, three epochs."""
    from vnq_colab.config import MachineConfig, RunConfig, StockformerConfig, TrainConfig

    return RunConfig(
        n_members=2, symbols=("SYN001", "SYN002", "SYN004"),
        model=StockformerConfig(look_back=30, min_context=10, width=16, n_layers=2, n_heads=2, feed_forward=32),
        train=TrainConfig(epochs=3, warmup_epochs=1, patience=2),
        machine=MachineConfig(pack_models=4, threads=1),
    )


@pytest.fixture(scope="session")
def judged(tmp_path_factory, prices):
    """(workspace, prepared, session, validation) of a finished smoke run. Read it, do not change it."""
    from vnq_colab.config import RunConfig
    from vnq_colab.data.prepared import prepare
    from vnq_colab.delivery.validate import validate
    from vnq_colab.layout import Workspace
    from vnq_colab.training.trainer import train

    ws = Workspace(tmp_path_factory.mktemp("judged"))
    prepared = prepare(ws, prices)
    session = train(ws, prepared.panel, prepared.splits, RunConfig.for_machine("smoke"), quiet=True)
    return ws, prepared, session, validate(session, prepared=prepared)
