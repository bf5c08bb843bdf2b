"""Tidying: what nothing needs any more, shown first and then deleted; only what is ours, and never through a link.

A folder is ours by its name, which is a run's, or by its sealed record, as a prepared set; a file in it by its name.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vnq_colab.data.prepared import current_id
from vnq_colab.delivery.bundle import BUNDLE, current, read_manifest
from vnq_colab.errors import ConfigError, DataError, VnqError, name_a_few
from vnq_colab.files import on_drive, read_sealed, spell_bytes, storage_error
from vnq_colab.layout import HEARTBEAT, MANIFESTS, SESSION, SESSION_COPY, SLOTS, Workspace
from vnq_colab.training.session import RUN_ID, Session, run_names, sessions

DATA_ID = re.compile(r"[0-9a-f]{12}")
OURS = {  # what we write into a folder of each kind; of reports what may go
    "checkpoints": r"(session(_copy)?|heartbeat|manifest_[ab])\.json|session\.lock|slot_[ab]|done(/[a-z]\w*)?",
    "logs": r"history\.csv|progress\.txt",
    "reports": r"([\w.-]+/)?((forecast|scores|orders)\.parquet|(symbol_accuracy|learning_curves|basket)\.png)",
    "models": r"manifest\.json|[\w.-]+\.pt",
    "data/prepared": r"(panel|prices|index)\.parquet|(splits|cleaning|lookahead|prepared)\.json|"
                     r"(coverage|cleaning|features|correlations)\.png"}
SCRATCH = r"(.*/)?\.[^/]+\.[0-9a-f]{8}\.part"  # what a process wrote by half that was killed
LAST = ("manifest.json", "prepared.json", HEARTBEAT, SESSION, SESSION_COPY)  # what says whose a folder is goes last
EMPTIED = 10**6  # [bytes] from which on a file on Drive, whose trash counts for 30 days, is emptied before it goes


@dataclass(frozen=True, repr=False)
class Tidying:
    """What can go, and whether it went."""

    files: tuple[tuple[Path, int, str], ...]  # path, bytes, why
    deleted: bool
    root: Path
    notes: tuple[str, ...] = ()  # what was left alone, and why

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self.files)

    def __repr__(self) -> str:
        rows = pd.DataFrame([(path.parent, why, path.name, size) for path, size, why in self.files])
        what = (f"{self.root}: nothing to tidy." if rows.empty else f"{spell_bytes(self.bytes)} deleted. Drive keeps "
                "deleted files in its trash for 30 days; large ones are empty there." if self.deleted else
                f"{spell_bytes(self.bytes)} can go; tidy(ws, delete=True), or tidy --delete, removes it.")
        return "\n".join([what] + [
            f"  {spell_bytes(part[3].sum()):>9}  {folder}: {why}\n             {name_a_few(part[2], 8)}"
            for (folder, why), part in (() if rows.empty else rows.groupby([0, 1], sort=False))] + [
            f"  left alone: {note}" for note in self.notes])


def tidy(ws: Workspace, *, keep: int = 2, delete: bool = False) -> Tidying:
    """Finds, and with `delete` removes, what nothing needs any more; on Drive and on this machine's own disk.

    The newest `keep` finished runs, every unfinished one, the bundle in use and the one before it stay. Of finished
    runs the checkpoints of jobs in flight go; of the older ones all but `report.html`, `verdict.json` and the
    evaluations; and prepared sets that no run and no bundle needs. A link is removed itself. What is not ours is left
    alone, and so is a run or bundle that cannot be read, with every prepared set, because it may need any.
    """
    if keep < 1:
        raise ConfigError(f"keep = {keep}: at least the newest run stays.")
    pointer = current(ws.models)
    remains = {name for one in ws.homes for name in _names(one, "checkpoints", RUN_ID) if not any(
        path.lstat().st_size for home in ws.homes for path in _ours(home, "checkpoints", name))}
    everyone = [session for session in sessions(ws) if session.run_id not in remains]
    unknown = [ws.checkpoints / name for name in sorted({*run_names(ws)} - remains - {one.run_id for one in everyone})]
    kept, bundles = _kept(everyone, keep), {pointer["folder"], pointer["previous"]} if pointer else set()
    data = {session.data_id for session in everyone if session.run_id in kept}
    with contextlib.suppress(DataError):  # nothing is prepared
        data.add(current_id(ws))
    for folder in [ws.models / name for name in bundles if name and (ws.models / name).exists()]:
        try:
            data.add(read_manifest(folder)["data_id"])
        except VnqError:
            unknown.append(folder)
    files: list[tuple[Path, str]] = []
    for home in ws.homes:
        for session in everyone:
            if session.run_id not in kept:
                files += [(path, "of an older run") for kind in ("checkpoints", "logs", "reports")
                          for path in _ours(home, kind, session.run_id)]
            elif session.status == "finished":
                files += [(path, "its run is finished") for path in _ours(home, "checkpoints", session.run_id)
                          if path.name in (*SLOTS, *MANIFESTS)]
        files += [(path, "left by an earlier tidying") for name in sorted(remains) for path in _all_of(home, name)]
        files += [(path, "neither the bundle in use nor the one before it") for name in _names(home, "models", BUNDLE)
                  if bundles and name not in bundles for path in _ours(home, "models", name)]
        files += [(path, "a prepared set that no run needs") for name in _names(home, "data/prepared", DATA_ID)
                  if not unknown and name not in data and _is_set(home.prepared / name)
                  for path in _ours(home, "data/prepared", name)]
    files.sort(key=lambda file: LAST.index(file[0].name) if file[0].name in LAST else -1)
    sized = tuple((path, 0 if path.is_dir() else path.lstat().st_size, why) for path, why in files)
    for path, _ in files if delete else ():
        _remove(path)
    kinds = {home.root / kind for home in ws.homes for kind in OURS}
    for folder in {path.parent if path.parent not in kinds else path for path, _ in files} if delete else ():
        _remove_empty(folder)
    return Tidying(sized, delete, ws.root, tuple(
        f"{path} cannot be read; it, and every prepared set, may be needed" for path in unknown))


def _kept(everyone: list[Session], keep: int) -> set[str]:
    """The names of all unfinished runs and of the newest `keep` finished ones; a run and its parts go together."""
    groups: dict[tuple[str, str], list[Session]] = {}
    for session in everyone:  # oldest first
        key = session.config.config_id, session.data_id
        groups[key] = [*groups.pop(key, []), session]
    finished = [key for key, group in groups.items() if all(one.status == "finished" for one in group)]
    return {one.run_id for key, group in groups.items() if key not in finished[:-keep] for one in group}


def _is_direct(home: Workspace, kind: str) -> bool:
    """Whether no part of the way to a folder of the workspace is a link."""
    return not any(os.path.islink(home.root.joinpath(*kind.split("/")[:depth])) for depth in (1, 2))


def _names(home: Workspace, kind: str, pattern: re.Pattern) -> list[str]:
    """The names of what lies in a folder of the workspace, as far as they are ours."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(filter(pattern.fullmatch, os.listdir(home.root / kind) if _is_direct(home, kind) else ()))
    return []


def _ours(home: Workspace, kind: str, name: str) -> Iterator[Path]:
    """Our files in the folder of a run, bundle or set, and links by their names; the folder itself where it is one."""
    top = home.root / kind / name
    if os.path.islink(top) and _is_direct(home, kind):
        yield top
    for base, folders, names in os.walk(top) if not os.path.islink(top) and _is_direct(home, kind) else ():
        for path in (Path(base, name) for name in sorted([*names, *folders])):
            is_ours = re.fullmatch(f"{OURS[kind]}|{SCRATCH}", path.relative_to(top).as_posix())
            if is_ours and (path.name in names or os.path.islink(path)):
                yield path


def _all_of(home: Workspace, name: str) -> list[Path]:
    """What is left of a run without a session, with its folder where nothing foreign lies in it."""
    files, folder = [*_ours(home, "checkpoints", name)], home.checkpoint_folder(name)
    is_alone = os.path.isdir(folder) and len(files) == sum(len(names) for _, _, names in os.walk(folder))
    return [*files, folder] if is_alone else files


def _is_set(folder: Path) -> bool:
    """Whether a folder, and no link, holds our sealed record of a prepared set of its name."""
    with contextlib.suppress(VnqError, OSError):
        is_record = stat.S_ISREG(os.lstat(folder / "prepared.json").st_mode) and not os.path.islink(folder)
        return is_record and read_sealed(folder / "prepared.json").get("data_id") == folder.name
    return False


def _remove(path: Path) -> None:
    """Takes away a file, or a link itself. Raises StorageError."""
    try:
        facts = os.lstat(path)
        if on_drive(path) and stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and facts.st_size >= EMPTIED:
            os.truncate(path, 0)
        if not stat.S_ISDIR(facts.st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error


def _remove_empty(folder: Path) -> None:
    """Takes away what is empty of a folder."""
    for base, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty
            os.rmdir(base)
