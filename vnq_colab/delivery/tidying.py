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
from vnq_colab.delivery.bundle import read_manifest
from vnq_colab.delivery.champion import BUNDLE, read_pointer, sealed_or_none
from vnq_colab.errors import ConfigError, DataError, VnqError, name_a_few
from vnq_colab.evaluation.page import FORECAST
from vnq_colab.files import on_drive, spell_bytes, storage_error
from vnq_colab.layout import HEARTBEAT, MANIFESTS, SESSION, SESSION_COPY, SLOTS, Workspace
from vnq_colab.training.session import RUN_ID, Session, run_names, sessions

SCRATCH = r"(.*/)?\.[^/]+\.[0-9a-f]{8}\.part"  # what a process wrote by half that was killed
OURS = {kind: (re.compile(name), re.compile(f"{files}|{SCRATCH}")) for kind, name, files in (  # names in each folder
    ("checkpoints", RUN_ID.pattern,
     r"(session(_copy)?|heartbeat|manifest_[ab])\.json|session\.lock|slot_[ab]|done(/[a-z]\w*)?"),
    ("logs", RUN_ID.pattern, r"history\.csv|progress\.txt"),
    ("reports", RUN_ID.pattern,
     r"([\w.-]+/)?((forecast|scores|orders)\.parquet|(symbol_accuracy|learning_curves|basket)\.png)"),
    ("models", BUNDLE.pattern, r"manifest\.json|[\w.-]+\.pt|onnx/(onnx\.json|[\w.-]+\.onnx)"),
    ("data/prepared", r"[0-9a-f]{12}", r"(panel|prices|index)\.parquet|(splits|cleaning|lookahead|prepared)\.json|"
                                       r"(coverage|cleaning|features|correlations)\.png"))}
LAST = ("manifest.json", "prepared.json", HEARTBEAT, SESSION, SESSION_COPY)  # what says whose a folder is goes last
IN_USE = ("champion", "challenger", "previous")  # bundles that stay: rollback goes back to the last
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
        what = (f"{self.root}: nothing to tidy." if rows.empty else f"{spell_bytes(self.bytes)} deleted. On Drive "
                "they stay in the trash for 30 days; large ones are empty there." if self.deleted else
                f"{spell_bytes(self.bytes)} can go; tidy(ws, delete=True), or tidy --delete, removes it.")
        return "\n".join([what] + [
            f"  {spell_bytes(part[3].sum()):>9}  {folder}: {why}\n             {name_a_few(part[2], 8)}"
            for (folder, why), part in (() if rows.empty else rows.groupby([0, 1], sort=False))] + [
            f"  left alone: {note}" for note in self.notes])


def tidy(ws: Workspace, *, keep: int = 2, delete: bool = False) -> Tidying:
    """Finds, and with `delete` removes, what nothing needs any more; on Drive and on this machine's own disk.

    The newest `keep` finished runs, every unfinished one, champion, challenger and the one before stay. Of finished
    runs the checkpoints of jobs in flight go; of older ones all but `report.html`, `verdict.json` and the evaluations;
    and prepared sets that nothing needs. What is not ours stays, and what cannot be read, with every prepared set.
    """
    if keep < 1:
        raise ConfigError(f"keep = {keep}: at least the newest run stays.")
    pointer, everyone = read_pointer(ws.models), {session.run_id: session for session in sessions(ws)}
    there = {name for home in ws.homes for kind, name, *_ in _ours(home) if kind == "checkpoints"}
    unknown = [ws.checkpoints / name for name in run_names(ws) if name not in everyone and name in there]
    kept, bundles = _kept([*everyone.values()], keep), {pointer[name] for name in IN_USE} if pointer else set()
    data = {everyone[name].data_id for name in kept}
    with contextlib.suppress(DataError):  # nothing is prepared
        data.add(current_id(ws))
    in_use = ws.models / pointer["champion"] if pointer else None
    for folder in [ws.models / name for name in bundles if name]:
        try:
            data.add(read_manifest(folder)["data_id"])
        except VnqError:
            unknown += [folder] * (folder == in_use or folder.exists())

    def why(kind: str, name: str, path: Path) -> str | None:
        """Why a file of ours can go; None: it stays."""
        if kind == "models":
            is_needed = not bundles or name in bundles or in_use in unknown
            return None if is_needed else "neither champion, challenger nor the champion before"
        if kind == "data/prepared":
            is_ours = (sealed_or_none(path.parent / "prepared.json") or {}).get("data_id") == name
            return "a prepared set that no run needs" if is_ours and name not in data and not unknown else None
        if name not in everyone or name not in kept:
            is_compared = path.name == FORECAST and any(one and one.startswith(name) for one in bundles)  # by deploy
            return "of an older run" if name in everyone and not is_compared else None
        is_in_flight = kind == "checkpoints" and path.name in (*SLOTS, *MANIFESTS)
        return "its run is finished" if is_in_flight and everyone[name].status == "finished" else None

    files = [(path, size, reason) for home in ws.homes for kind, name, path, size in _ours(home)
             if (reason := why(kind, name, path))]
    files.sort(key=lambda file: LAST.index(file[0].name) if file[0].name in LAST else -1)
    for path, _, _ in files if delete else ():
        _remove(path)
    for home in ws.homes if delete else ():
        for kind, name, base, _ in _walk(home):
            with contextlib.suppress(OSError):  # it is not empty
                if OURS[kind][0].fullmatch(name):
                    os.rmdir(base)
    return Tidying(tuple(files), delete, ws.root, tuple(
        [f"{path} cannot be read; it, and every prepared set, may be needed" for path in unknown]
        + [f"{name}, to which rollback can go back" for name in [pointer and pointer["previous"]] if name and files]))


def _kept(everyone: list[Session], keep: int) -> set[str]:
    """The names of all unfinished runs and of the newest `keep` finished ones; a run and its parts go together."""
    groups: dict[tuple[str, str], list[Session]] = {}
    for session in everyone:  # oldest first
        key = session.config.config_id, session.data_id
        groups[key] = [*groups.pop(key, []), session]
    finished = [key for key, group in groups.items() if all(one.status == "finished" for one in group)]
    return {one.run_id for key, group in groups.items() if key not in finished[:-keep] for one in group}


def _walk(home: Workspace) -> Iterator[tuple[str, str, Path, list[str]]]:
    """(kind, name, folder, what lies in it) of folders of runs (of all: name ""), from below; no link is entered."""
    for kind in OURS:
        top = home.root / kind
        for base, folders, names in os.walk(top, topdown=False) if top.resolve() == home.root.resolve() / kind else ():
            name, *_ = *Path(base).relative_to(top).parts, ""
            yield kind, name, Path(base), sorted([*names, *(one for one in folders if os.path.islink(Path(base, one)))])


def _ours(home: Workspace) -> Iterator[tuple[str, str, Path, int]]:
    """(kind, name of the run, bundle or set, path, bytes) of our files, and of links in their places."""
    for kind, _, base, names in _walk(home):
        for path in (base / name for name in names):
            name, *rest = path.relative_to(home.root / kind).parts
            is_ours = OURS[kind][1].fullmatch("/".join(rest)) if rest else path.is_symlink()
            if is_ours and OURS[kind][0].fullmatch(name):
                yield kind, name, path, path.lstat().st_size


def _remove(path: Path) -> None:
    """Takes away a file, or a link itself. Raises StorageError."""
    try:
        facts = os.lstat(path)
        is_large = stat.S_ISREG(facts.st_mode) and facts.st_size >= EMPTIED and path.name not in LAST
        if is_large and facts.st_nlink == 1 and on_drive(path):
            os.truncate(path, 0)
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error
