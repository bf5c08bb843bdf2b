"""Making room: what finished runs leave behind that nothing needs any more. Shows first, deletes on request."""

import os
from dataclasses import dataclass
from pathlib import Path

from vnq_colab.delivery.earlier_runs import EVALUATIONS
from vnq_colab.errors import ConfigError, SessionError
from vnq_colab.files import read_json, storage_error
from vnq_colab.layout import MANIFESTS, SESSION, SLOTS, Workspace
from vnq_colab.training.runs import run_names, sessions
from vnq_colab.training.session import Session

KEPT_REPORTS = ("report.html", "verdict.json", EVALUATIONS)  # of a run that goes: what a person comes back to


@dataclass(frozen=True, repr=False)
class Tidying:
    """What can go, and whether it went."""

    files: tuple[tuple[Path, int, str], ...]  # path, bytes, why
    deleted: bool
    root: Path

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self.files)

    def __repr__(self) -> str:
        if not self.files:
            return f"{self.root}: nothing to tidy."
        groups: dict[tuple[str, str], list[int]] = {}
        for path, size, why in self.files:
            groups.setdefault((str(path.parent), why), []).append(size)
        what = ("deleted. Drive keeps deleted files in its trash for 30 days; they are empty there." if self.deleted
                else "can go; tidy(ws, delete=True), or tidy --delete, removes it.")
        return "\n".join([f"{self.bytes / 1e6:,.1f} MB {what}"] + [
            f"  {sum(sizes) / 1e6:9,.1f} MB  {len(sizes):4} files  {folder}: {why}"
            for (folder, why), sizes in groups.items()])


def tidy(ws: Workspace, *, keep: int = 2, delete: bool = False) -> Tidying:
    """Finds, and with `delete` removes, what nothing needs any more; on Drive and on this machine's own disk.

    The newest `keep` finished runs, every unfinished one and the current bundle stay. Of finished runs the checkpoints
    of jobs in flight go; of the older ones all but `report.html` and `verdict.json`; and prepared sets that no run and
    no bundle needs. A file is emptied before it is deleted, since Drive counts what lies in its trash.
    """
    if keep < 1:
        raise ConfigError(f"keep = {keep}: at least the newest run stays.")
    everyone = sessions(ws)
    if unreadable := sorted(set(run_names(ws)) - {session.run_id for session in everyone}):
        raise SessionError(f"{ws.checkpoints / unreadable[0]}: cannot be read, so nobody knows what it needs. Repair "
                           "it, or move it away, and tidy again.")
    in_use = _current(ws.models / "current.json", "run_id")
    kept = _kept(everyone, keep)
    data = {session.data_id for session in everyone if session.run_id in kept | {in_use}}
    data.add(_current(ws.prepared / "current.json", "data_id"))
    files: list[tuple[Path, str]] = []
    for home in dict.fromkeys((ws, ws.local)):
        for session in everyone:
            run_id, folder = session.run_id, home.checkpoint_folder(session.run_id)
            if run_id not in kept:
                older = [*_files_in(folder), *_files_in(home.log_folder(run_id)), *(
                    path for path in _files_in(home.report_folder(run_id)) if path.name not in KEPT_REPORTS)]
                files += [(path, "of an older run") for path in older]
                if run_id != in_use:
                    files += [(path, "not the current bundle") for path in _files_in(home.model_folder(run_id))]
            elif session.status == "finished":
                files += [(folder / name, "its run is finished") for name in (*SLOTS, *MANIFESTS)
                          if (folder / name).exists()]
        files += [(path, "a prepared set that no run needs") for folder in home.prepared.glob("*/")
                  if folder.name not in data for path in _files_in(folder)]
    files.sort(key=lambda file: file[0].name == SESSION)  # last: a folder that is half gone still says whose it was
    sized = tuple((path, path.stat().st_size, why) for path, why in files)
    for path, _ in files if delete else []:
        _remove(path)
    return Tidying(sized, delete, ws.root)


def _kept(everyone: list[Session], keep: int) -> set[str]:
    """The names of all unfinished runs and of the newest `keep` finished ones; a run and its parts go together."""
    groups: dict[tuple[str, str], list[Session]] = {}
    for session in everyone:  # oldest first
        key = session.config.config_id, session.data_id
        groups[key] = [*groups.pop(key, []), session]
    finished = [key for key, group in groups.items() if all(one.status == "finished" for one in group)]
    return {one.run_id for key, group in groups.items() if key not in finished[:-keep] for one in group}


def _current(path: Path, name: str) -> str | None:
    """What a current.json names; None where there is none. Raises when it cannot be read: it may name anything."""
    try:
        return read_json(path)[name]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise SessionError(f"{path}: does not say which {name} is current. Repair it, and tidy again.") from error


def _files_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _remove(path: Path) -> None:
    """Empties a file, deletes it, and the folders that this leaves empty."""
    try:
        with open(path, "r+b") as file:
            file.truncate(0)
        path.unlink()
        for folder in list(path.parents)[:3]:
            if not any(folder.iterdir()):
                os.rmdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error
