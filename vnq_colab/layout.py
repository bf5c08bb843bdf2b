"""The workspace: where every file lies, and which folder holds it all."""

import hashlib
import os
import string
from dataclasses import dataclass
from pathlib import Path

from vnq_colab.errors import StorageError
from vnq_colab.files import on_drive, storage_error

WORKSPACE_NAME = "VN-Quant-Training"
SESSION = "session.json"  # in a run's checkpoint folder, as are
SLOTS, MANIFESTS = ("slot_a", "slot_b"), ("manifest_a.json", "manifest_b.json")

# path below the workspace: what it holds. `drive_layout.md` explains each; a test keeps the two equal.
FOLDERS = {
    "data/raw": "price files that the user brings, or collects",
    "data/weekly_updates": "newer price files that the user brings, merged by prepare",
    "data/prepared/<data_id>": "one prepared data set",
    "configs": "every argument of each run",
    "checkpoints/<run_id>": "the state of a run",
    "checkpoints/<run_id>/done": "finished jobs",
    "logs/<run_id>": "the progress of a run, as text",
    "reports/<run_id>": "what validation found",
    "reports/<run_id>/<from>_<to>": "what validation found on other days than the test days",
    "models/<run_id>": "the bundle",
    "predictions": "tables of forecasts",
    "orders": "tables of orders",
}
FILES = {
    "data/prepared/current.json": "which prepared data set `train` takes",
    "data/prepared/<data_id>/prepared.json": "what was prepared, from what, by which code",
    "data/prepared/<data_id>/prices.parquet": "the cleaned price table",
    "data/prepared/<data_id>/index.parquet": "the market index, when one was given",
    "data/prepared/<data_id>/panel.parquet": "the features and prices of every symbol and day",
    "data/prepared/<data_id>/splits.json": "training, validation and test days of each fold",
    "data/prepared/<data_id>/cleaning.json": "how each file was understood, what cleaning found and did",
    "data/prepared/<data_id>/lookahead.json": "the proof that nothing knows the future",
    "data/prepared/<data_id>/coverage.png": "which symbol was present when, and the borders of the splits",
    "data/prepared/<data_id>/cleaning.png": "what cleaning found, as bars",
    "data/prepared/<data_id>/features.png": "how each feature is distributed",
    "data/prepared/<data_id>/correlations.png": "which features say the same",
    "configs/<run_id>.json": "every argument, versions, commit",
    "checkpoints/<run_id>/session.json": "what runs, how far, per symbol",
    "checkpoints/<run_id>/slot_a": "training state, written in turn with slot_b",
    "checkpoints/<run_id>/slot_b": "training state, written in turn with slot_a",
    "checkpoints/<run_id>/manifest_a.json": "what slot_a holds, for people",
    "checkpoints/<run_id>/manifest_b.json": "what slot_b holds, for people",
    "checkpoints/<run_id>/done/<job>": "a finished job: forecasts, curves, budget; weights of the final fit",
    "logs/<run_id>/history.csv": "learning curves of every model",
    "logs/<run_id>/progress.txt": "the progress lines, rewritten whole",
    "reports/<run_id>/report.html": "the report: one self-contained page",
    "reports/<run_id>/verdict.json": "the decision for every symbol, with reasons",
    "reports/<run_id>/evaluations.json": "which days the run was judged on: each further one is charged",
    "reports/<run_id>/forecast.parquet": "forecasts of the test days",
    "reports/<run_id>/scores.parquet": "measured skill, model and opponents",
    "reports/<run_id>/orders.parquet": "every order of the backtest",
    "reports/<run_id>/symbol_accuracy.png": "accuracy per symbol",
    "reports/<run_id>/learning_curves.png": "skill on validation days by epoch or tree",
    "reports/<run_id>/basket.png": "the basket after costs beside the equal-weighted universe",
    "models/<run_id>/manifest.json": "what the bundle holds, with sha256 of every file",
    "models/<run_id>/<SYMBOL>_stockformer_simple_best.pt": "the networks of one symbol",
    "models/<run_id>/global.pt": "the networks of all symbols",
    "models/<run_id>/trees.pt": "the boosted trees",
    "models/current.json": "the newest exported bundle",
    "predictions/<date>.csv": "forecasts from the evening of that day",
    "orders/<date>.csv": "what to buy, sell and keep on the day after that evening",
    "portfolio.csv": "what the person holds, and the cash",
}


@dataclass(frozen=True)
class Workspace:
    """One folder with everything in it. Folders are made when something is written, never before."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(os.path.abspath(Path(self.root).expanduser())))  # whatever cd comes later

    @property
    def local(self) -> "Workspace":
        """Where training writes: this workspace, or for one on Google Drive a folder of this machine's own disk.

        That is below $VNQ_LOCAL, else below ~/.cache/vnq_colab, and what is written there is brought to Drive.
        """
        if not on_drive(self.root):
            return self
        base = os.environ.get("VNQ_LOCAL") or Path.home() / ".cache" / "vnq_colab"
        return Workspace(Path(base).expanduser() / hashlib.sha256(str(self.root).encode()).hexdigest()[:8])

    @property
    def raw(self) -> Path:
        return self.root / "data" / "raw"

    @property
    def weekly_updates(self) -> Path:
        return self.root / "data" / "weekly_updates"

    @property
    def prepared(self) -> Path:
        return self.root / "data" / "prepared"

    @property
    def configs(self) -> Path:
        return self.root / "configs"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def orders(self) -> Path:
        return self.root / "orders"

    @property
    def portfolio(self) -> Path:
        return self.root / "portfolio.csv"

    def checkpoint_folder(self, run_id: str) -> Path:
        return self.checkpoints / run_id

    def log_folder(self, run_id: str) -> Path:
        return self.root / "logs" / run_id

    def report_folder(self, run_id: str) -> Path:
        return self.root / "reports" / run_id

    def model_folder(self, run_id: str) -> Path:
        return self.models / run_id

    def check_writable(self) -> None:
        """Raises StorageError unless the root is there, or can be made, and can be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(self.root, error) from error
        if not os.access(self.root, os.W_OK):
            raise StorageError(f"{self.root}: this folder cannot be written. Choose another with --root or VNQ_HOME.")

    def __repr__(self) -> str:
        state = "" if self.root.exists() else " (made when something is written)"
        return f"Workspace {self.root}{state}"


def find_root() -> Path:
    """$VNQ_HOME, else the workspace in Google Drive for Desktop when there is one, else ./VN-Quant-Training."""
    if home := os.environ.get("VNQ_HOME"):
        return Path(home).expanduser()
    for drive in _drive_for_desktop():
        if (drive / WORKSPACE_NAME).is_dir():
            return drive / WORKSPACE_NAME
    return Path.cwd() / WORKSPACE_NAME


def _drive_for_desktop() -> list[Path]:
    """Places where Google Drive for Desktop shows "My Drive": a letter on Windows, a cloud folder on macOS."""
    if os.name == "nt":
        return [Path(f"{letter}:/My Drive") for letter in string.ascii_uppercase[3:]]
    return sorted((Path.home() / "Library" / "CloudStorage").glob("GoogleDrive-*/My Drive"))

