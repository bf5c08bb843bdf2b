"""The champion: which bundle is in use, which was before it, and which waits, by one pointer, `models/current.json`."""

import contextlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from vnq_colab.clock import utc_now
from vnq_colab.errors import DeliveryError, VnqError, tell
from vnq_colab.files import checked, locked, on_drive, read_sealed, write_sealed
from vnq_colab.settings import Rule, record
from vnq_colab.training.session import RUN_ID

POINTERS = ("current.json", "current_copy.json")  # in the folder of models
LOCK = "current.lock"  # held by whoever writes them, on a local disk alone
BUNDLE = re.compile(f"({RUN_ID.pattern})(-[0-9]+)?")  # a bundle's folder: its run, exported the first time or again
Place = Annotated[str, Rule("must be the folder of a bundle", BUNDLE.fullmatch)]
Pointer = record(  # current.json; `why`, `when` and `by` are of the champion
    "Pointer", champion=Place, challenger=Place | None, previous=Place | None, why=str, when=str,
    by=Literal["export", "deploy", "rollback"])


def read_pointer(models: Path) -> Pointer | None:
    """Which bundle is in use, by current.json or its copy; None: nothing was exported. Raises DeliveryError."""
    damage = ""
    for path in (models / name for name in POINTERS):
        try:
            pointer = read_sealed(path, Pointer)
        except FileNotFoundError:
            continue
        except VnqError as error:
            why = f"{error}".partition(". Restore it")[0].rstrip(".")
            damage = damage or f"not a pointer of this version, or damaged: {why}"
            continue
        if damage:
            tell(f"{damage}; its copy {path.name} is used.")
        return pointer
    if damage:
        raise DeliveryError(f"{damage}. Name the champion anew with deploy --run ID; there is none to choose before "
                            "export has written one.")
    return None


def write_pointer(models: Path, **changes: Any) -> Pointer:
    """Changes current.json in one step, then its copy; without changes it ends what a kill between the two left.

    A reader finds the state before or the one after: the first file is whole, or torn (on Drive) while the copy still
    holds the state before. A pointer that cannot be read is one that is not there. `when` is set with `champion`.
    """
    models.mkdir(parents=True, exist_ok=True)
    with contextlib.nullcontext() if on_drive(models) else locked(models / LOCK):
        pointer = dict.fromkeys(("challenger", "previous"))
        with contextlib.suppress(VnqError):
            pointer |= read_pointer(models) or {}
        pointer |= changes | ({"when": utc_now()} if "champion" in changes else {})
        for path in (models / name for name in POINTERS):
            if sealed_or_none(path) != checked(path, Pointer, pointer):
                write_sealed(path, pointer)
    return pointer


def complete_pointer(models: Path) -> bool:
    """Ends what a kill left between current.json and its copy; whether the change that counts was not complete."""
    first, copy = (sealed_or_none(models / name) for name in POINTERS)
    if first != copy:
        write_pointer(models)
    return first != copy and first is not None


def sealed_or_none(path: Path) -> dict[str, Any] | None:
    """A sealed record; None where it is not there, or damaged."""
    with contextlib.suppress(VnqError, FileNotFoundError):
        return read_sealed(path)
    return None


def standing(models: Path) -> tuple[str, Pointer | None]:
    """Champion and challenger in words, and the pointer; a damaged one is a sentence, never an error."""
    try:
        pointer = read_pointer(models)
    except VnqError as error:
        return f"champion: {error}", None
    if pointer is None:
        return "champion: none; the first export makes it", None
    text = f"champion: {pointer['champion']}, {since(pointer)}. {pointer['why']}"
    undone = ", from which it was rolled back" * (pointer["by"] == "rollback")
    return text + "".join(f"\n{role}: {pointer[role]}{way}" for role, way in (
        ("challenger", ", which deploy compares with it"), ("previous", undone)) if pointer[role]), pointer


def since(pointer: Pointer) -> str:
    """When, and by which command, the champion became it."""
    return f"since {pointer['when'][:16].replace('T', ' ')} UTC by {pointer['by']}"


def age(folder: str) -> tuple[str, int, str]:
    """What sorts the folders of bundles: by the time of their runs, then by number."""
    return folder.partition("-")[0], len(folder), folder
