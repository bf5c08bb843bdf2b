"""The workspace: where every file lies (`drive_layout.md` explains each), and which folder holds it all."""

import hashlib
import os
import string
from dataclasses import dataclass
from pathlib import Path

from vnq_colab.files import on_drive, require_space

WORKSPACE_NAME = "VN-Quant-Training"
SESSION, SESSION_COPY, HEARTBEAT = "session.json", "session_copy.json", "heartbeat.json"  # in a run's checkpoint folder
LOCK = "session.lock"  # held by whoever writes one of these, on a local disk alone
SLOTS, MANIFESTS = ("slot_a", "slot_b"), ("manifest_a.json", "manifest_b.json")


def _place(*parts: str) -> property:
    return property(lambda workspace: workspace.root.joinpath(*parts))


@dataclass(frozen=True)
class Workspace:
    """One folder with everything in it. Folders are made when something is written, never before."""

    root: Path

    raw = _place("data", "raw")
    weekly_updates = _place("data", "weekly_updates")
    prepared = _place("data", "prepared")
    configs = _place("configs")
    checkpoints = _place("checkpoints")
    models = _place("models")
    predictions = _place("predictions")
    orders = _place("orders")
    portfolio = _place("portfolio.csv")
    weeks = _place("weeks")
    searches = _place("searches")

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
    def homes(self) -> "tuple[Workspace, ...]":
        """Where a file of a run may lie: on this machine, then on Drive; one where both are the same."""
        return tuple(dict.fromkeys((self.local, self)))

    def checkpoint_folder(self, run_id: str) -> Path:
        return self.checkpoints / run_id

    def log_folder(self, run_id: str) -> Path:
        return self.root / "logs" / run_id

    def report_folder(self, run_id: str) -> Path:
        return self.root / "reports" / run_id

    def check_writable(self) -> None:
        """Raises StorageError unless the root is there, or can be made, and can be written."""
        require_space(self.root, 0, "the workspace")

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

