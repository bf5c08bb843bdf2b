"""States: what a job's file and a bundle's keep of a forecaster, read without being trusted."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vnq_colab.errors import CheckpointError, DeliveryError
from vnq_colab.files import read_bytes
from vnq_colab.models.base import Forecaster, restored
from vnq_colab.settings import NetworkConfig, Task

MOST_PICKLED = 2**23  # [bytes] of what is no tensor in a file of torch (16 kB in a real one); read it takes 90-fold
MOST_BYTES = 2**33  # [bytes] of a model's file


def assembled(family: str, states: dict[Path, dict[str, Any]], task: Task | None = None,
              network: NetworkConfig | None = None) -> Forecaster:
    """The forecaster that files keep in parts. Raises DeliveryError where one is none, or not of the run's settings."""
    parts = []
    for path, state in states.items():
        try:
            parts.append(restored(state, family))
        except DeliveryError as error:
            raise DeliveryError(f"{path}: {error}") from error
    if not parts:
        raise DeliveryError(f"there is no model of the family {family}. Export again.")
    whole = type(parts[0]).joined(parts)
    is_other = task and (getattr(whole, "task", task), getattr(whole, "config", network)) != (task, network)
    if is_other or len({*whole.symbols}) < len(whole.symbols):
        raise DeliveryError(f"{path.parent}: the family {family} is of other settings than the run, or two of its "
                            "models are of one symbol. Export again.")
    return whole


def load_files(family: str, folder: Path, pattern: str) -> Forecaster:
    """The forecaster that was saved in a folder. Raises VnqError where its files are damaged, or not there."""
    paths = sorted(Path(folder).glob(pattern))
    return assembled(family, {path: read_state(path, read_bytes(path, MOST_BYTES)) for path in paths})


def read_state(path: Path, content: bytes) -> dict[str, Any]:
    """Tensors and plain values from the bytes of a file. Raises CheckpointError for anything else, and for bombs."""
    _require_plain_zip(path, content)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        # a tensor may pretend to be larger than what is stored of it
        if isinstance(state, dict) and all(one.nbytes <= one.untyped_storage().nbytes() for one in tensors(state)):
            return state
        why = "not a state of plain numbers"
    except Exception as error:  # torch raises many kinds for a damaged file; none of them helps a person
        why = f"not a model of this library, or damaged ({type(error).__name__})"
    raise CheckpointError(f"{path}: {why}.")


def _require_plain_zip(path: Path, content: bytes) -> None:
    """Raises CheckpointError unless a file of torch is a zip whose members are stored, so that it unpacks to itself."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises many kinds for what is damaged
        raise CheckpointError(f"{path}: not a file of torch, or damaged ({type(error).__name__}).") from error
    is_plain = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    pickled = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    if not is_plain or sum(member.file_size for member in members) > len(content) or pickled > MOST_PICKLED:
        raise CheckpointError(f"{path}: it unpacks to more than it holds, as no file of this library does. Remove it.")


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All that are in a state, each once."""
    waiting, seen = [value], set()
    while waiting:
        if id(one := waiting.pop()) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one if isinstance(one, (list, tuple)) else ()
            if isinstance(one, torch.Tensor):
                yield one
