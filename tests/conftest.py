"""What several tests share: a small synthetic market, and a run on it from prices to verdict."""

import os
import tempfile
from pathlib import Path

import pytest

from vnq_colab import progress

progress.PAUSE = progress.SILENCE = 1e9  # what happens now is said by a clock: tests of other sentences do without
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for each of the processes that run side by side
os.environ.pop("VNQ_HOME", None)  # a person's own workspace and profile have no part in the tests
os.environ.pop("VNQ_PROFILE", None)
for secret in ("VNQ_NOTIFY", "VNQ_SUGGEST_URL", "VNQ_SUGGEST_KEY", "VNQ_SUGGEST_MODEL"):
    os.environ.pop(secret, None)
os.environ["VNQ_LOCAL"] = tempfile.mkdtemp(prefix="vnq_local_")  # the local side of every Drive in the tests

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def prices():
    """Six synthetic stocks over 800 days, to the end of 2025; the last one listed after a while."""
    from vnq_colab.data.synthetic import synthetic_prices

    return synthetic_prices(6, 800, seed=92, signal=0.5)


@pytest.fixture(scope="session")
def panel(prices):
    from vnq_colab.data.panel import build_panel

    return build_panel(prices)


@pytest.fixture(scope="session")
def folds(panel):
    """One fold: trained to the middle of 2024, tested in 2025."""
    from vnq_colab.data.splits import yearly_folds

    return yearly_folds(panel.days)


@pytest.fixture(scope="session")
def splits(folds):
    return folds[-1]


@pytest.fixture(scope="session")
def config():
    """Tiny networks and trees of all families, three judged symbols, two members."""
    from vnq_colab.config import RunConfig
    from vnq_colab.settings import GlobalConfig, LocalConfig, MachineConfig, NetworkConfig, TrainConfig, TreesConfig

    return RunConfig(
        n_members=2, symbols=("SYN001", "SYN002", "SYN004"),
        model=NetworkConfig(look_back=30, min_context=10, width=16, n_layers=2, n_heads=2, feed_forward=32),
        train=TrainConfig(epochs=3, warmup_epochs=1, patience=2), global_=GlobalConfig(epochs=1, windows_per_step=6),
        stockformer=LocalConfig(epochs=2, patience=2),
        trees=TreesConfig(rounds=30, block_rounds=10, least_rounds=10, patience=1, leaves=7, min_child_weight=20.0),
        machine=MachineConfig(pack_models=4, threads=1),
    )


@pytest.fixture(scope="session")
def small(config):
    """The quickest family, for what does not depend on it."""
    from dataclasses import replace

    return replace(config, families=("trees",))


@pytest.fixture(scope="session")
def clean(tmp_path_factory, prices, small):
    """(prepared, session) of a finished run of trees on the small market. Read it, do not change it."""
    from vnq_colab.data.prepared import prepare
    from vnq_colab.layout import Workspace
    from vnq_colab.training.trainer import train

    ws = Workspace(tmp_path_factory.mktemp("clean"))
    prepared = prepare(ws, prices)
    return prepared, train(ws, prepared.panel, small, quiet=True)


@pytest.fixture(scope="session")
def judged(tmp_path_factory):
    """(workspace, prepared, session, validation) of a finished smoke run over two years. Read it, do not change it."""
    from vnq_colab.config import RunConfig
    from vnq_colab.data.prepared import prepare
    from vnq_colab.data.synthetic import synthetic_prices
    from vnq_colab.delivery.validate import validate
    from vnq_colab.layout import Workspace
    from vnq_colab.training.trainer import train

    ws = Workspace(tmp_path_factory.mktemp("judged"))
    prepared = prepare(ws, synthetic_prices(24, 1060, seed=1))
    session = train(ws, prepared.panel, RunConfig.for_machine("smoke"), quiet=True)
    return ws, prepared, session, validate(session, prepared=prepared)
