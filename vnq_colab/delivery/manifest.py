"""What a bundle's folder says of itself, compared with its files; and which bundle is in use."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from vnq_colab.clock import utc_now
from vnq_colab.data.forecast import ENSEMBLE
from vnq_colab.errors import DeliveryError, VnqError, tell
from vnq_colab.evaluation.basket import Basket
from vnq_colab.evaluation.calibration import Calibration
from vnq_colab.evaluation.gates import Decided, Decision
from vnq_colab.files import checked, read_bytes, read_sealed, write_sealed
from vnq_colab.settings import COUNT, Rule, Task, build
from vnq_colab.training.session import RUN_ID
from vnq_colab.training.session_file import record

FORMAT = 3  # of manifest.json
POINTERS = ("current.json", "current_copy.json")  # in the folder of models
SIZE = Annotated[int, Rule("must lie in (0, 8 GB]", range(1, 2**33).__contains__)]  # [bytes] of a file
BUNDLE = re.compile(RUN_ID.pattern + r"(-\d+)?")  # a bundle's folder: its run, exported the first time or again
FACTS = ("run_id", "data_id", "code_version", "trained_to", "synthetic")  # in each file as in the manifest
Name = Annotated[str, Rule("must be a name, not a path", re.compile(r"(?!\.\.?$)[^/\\:\0]+").fullmatch)]


Pointer = record("Pointer", run_id=str, folder=Name, exported=str, previous=Name | None)  # current.json
Symbol = record("Symbol", decision=Decision, reasons=list[str], families=list[str])
Judged = record("Judged", gate_set=str, summary=dict[str, Any], market=Decided)
FileFact = record("FileFact", family=str, symbols=list[str], bytes=SIZE, sha256=str)
Manifest = record(  # manifest.json
    "Manifest", format=int, run_id=str, data_id=str, code_version=str, trained_to=str, synthetic=bool, exported=str,
    families=list[str], judged_family=str, ensemble_families=list[str], market_symbols=list[str],
    market_index=bool | None, config=dict[str, Any], task=Task, feature_names=list[str], look_back=COUNT,
    calibration=dict[str, Calibration], verdict=Judged | None, basket=dict[str, Any] | None, symbols=dict[str, Symbol],
    files=dict[Name, FileFact])


def read_manifest(folder: Path) -> Manifest:
    """A bundle's manifest. Raises DeliveryError when there is none, or none of this version."""
    path = folder / "manifest.json"
    try:
        value = read_sealed(path)
        version = value.get("format")
        if version == FORMAT:
            manifest, families = checked(path, Manifest, value), {*value["families"]}
            build(Basket, manifest["basket"] or {}, "basket.")
    except FileNotFoundError:
        raise DeliveryError(f"{folder}: there is no manifest.json in it. Export first, or name a bundle's folder."
                            ) from None
    except VnqError as error:
        raise DeliveryError(f"{str(error).rstrip('.')} (export writes it).") from error
    if version != FORMAT:
        newer, what = isinstance(version, int) and version > FORMAT, "Train and export" if version == 1 else "Export it"
        raise DeliveryError(f"{path}: of a newer version of the library. Update vnq_colab." if newer else
                            f"{path}: of an earlier version of the library. {what} again.")
    if BUNDLE.fullmatch(folder.name) and not re.fullmatch(re.escape(manifest["run_id"]) + r"(-\d+)?", folder.name):
        raise DeliveryError(f"{path}: is of run {manifest['run_id']}, in the folder of another. Export the run again.")
    if not families or {fact["family"] for fact in manifest["files"].values()} != families or not (
            families >= {*manifest["ensemble_families"]} and manifest["judged_family"] in {*families, ENSEMBLE}) or any(
            one.family != name for name, one in manifest["calibration"].items()):
        raise DeliveryError(f"{path}: its files are not those of its families. Export the run again.")
    return manifest


def read_files(folder: Path, manifest: Manifest) -> Iterator[tuple[Path, FileFact, bytes]]:
    """The files of a bundle, each read once: what is hashed is what is given. Raises DeliveryError for a wrong one."""
    for name, fact in manifest["files"].items():
        path = folder / name
        try:
            content = read_bytes(path, fact["bytes"])
        except FileNotFoundError:
            raise DeliveryError(f"{path}: in the manifest but not in the folder. Copy the bundle again.") from None
        if hashlib.sha256(content).hexdigest() != fact["sha256"]:
            raise DeliveryError(f"{path}: its content is not what the manifest says. Copy the bundle again.")
        yield path, fact, content


def current(models: Path) -> Pointer | None:
    """Which bundle is in use, by current.json or its copy; None: nothing was exported. Raises DeliveryError."""
    damages: list[str] = []
    for path in (models / name for name in POINTERS):
        try:
            pointer = read_sealed(path, Pointer)
        except FileNotFoundError:
            continue
        except VnqError as error:
            damages.append(str(error))
            continue
        if damages:
            tell(f"{damages[0]} Its copy {path} is used instead.")
        return pointer
    if damages:
        newest = _newest_whole(models)
        raise DeliveryError(f"{damages[0]} Export again" + (f", or name the newest whole bundle: {newest}." if newest
                                                            else ": no bundle is whole."))
    return None


def make_current(folder: Path, run_id: str) -> None:
    """Changes current.json, then its copy: whenever this is killed, one of them names a whole bundle."""
    before = None
    with contextlib.suppress(VnqError):
        before = current(folder.parent)
    previous = before and (before["previous"] if before["folder"] == folder.name else before["folder"])
    for name in POINTERS:
        write_sealed(folder.parent / name, {"run_id": run_id, "folder": folder.name, "exported": utc_now(),
                                            "previous": previous})


def _newest_whole(models: Path) -> Path | None:
    """The folder of the bundle that was exported last, of those whose files are what they were."""
    whole = []
    for path in models.glob("*/manifest.json"):
        with contextlib.suppress(VnqError):
            manifest = read_manifest(path.parent)
            if all(read_files(path.parent, manifest)):
                whole.append((manifest["exported"], path.parent))
    return max(whole)[1] if whole else None
