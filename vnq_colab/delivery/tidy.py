"""Making room: what finished runs leave behind that nothing needs any more. Shows first, deletes when told to."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vnq_colab.delivery.evaluations import EVALUATIONS
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
        lines = [f"  {sum(sizes) / 1e6:9,.1f} MB  {len(sizes):4} files  {folder}: {why}"
                 for (folder, why), sizes in groups.items()]
        what = "deleted" if self.deleted else "can go; tidy(ws, delete=True), or tidy --delete, removes it"
        trash = " Drive keeps deleted files in its trash for 30 days; they are empty there." if self.deleted else ""
        return "\n".join([f"{self.bytes / 1e6:,.1f} MB {what}.{trash}", *lines])


def tidy(ws: Workspace, *, keep: int = 2, delete: bool = False) -> Tidying:
    """Finds, and with `delete` removes, what nothing needs any more; on Drive and on this machine's own disk.

    The newest `keep` finished runs, every unfinished one and the current bundle stay. Of finished runs
    the checkpoints of jobs in flight go; of the older ones all but `report.html` and `verdict.json`; and prepared sets
    that no run and no bundle needs. A file is emptied before it is deleted, since Drive counts what lies in its trash.
    """
    if keep < 1:
        raise ConfigError(f"keep = {keep}: at least the newest run stays.")
    everyone = sessions(ws)
    if unreadable := sorted(set(run_names(ws)) - {session.run_id for session in everyone}):
        raise SessionError(f"{ws.checkpoints / unreadable[0]}: cannot be read, so nobody knows what it needs. Repair "
                           "it, or move it away, and tidy again.")
    in_use = _current(ws.models / "current.json", "run_id")
    newest_data = _current(ws.prepared / "current.json", "data_id")
    groups: dict[tuple[str, str], list[Session]] = {}  # a run and its parts: one config, one data
    for session in everyone:
        groups.setdefault((session.config.config_id, session.data_id), []).append(session)
    unfinished = {key for key, group in groups.items() if any(session.status != "finished" for session in group)}
    by_age = sorted(groups.keys() - unfinished, key=lambda key: max(session.run_id for session in groups[key]))
    stays = unfinished | set(by_age[-keep:])
    kept = {session.run_id for key in stays for session in groups[key]}
    data = {session.data_id for session in everyone if session.run_id in kept | {in_use}} | {newest_data}
    found: list[tuple[Path, int, str]] = []
    for home in dict.fromkeys((ws, ws.local)):
        for session in everyone:
            run_id, folder = session.run_id, home.checkpoint_folder(session.run_id)
            if run_id not in kept:
                found += _all_in(folder, "of an older run")
                found += _all_in(home.log_folder(run_id), "of an older run")
                found += _all_in(home.report_folder(run_id), "of an older run", but=KEPT_REPORTS)
                if run_id != in_use:
                    found += _all_in(home.model_folder(run_id), "a bundle that is not the current one")
            elif session.status == "finished":
                found += [(path, path.stat().st_size, "its run is finished")
                          for path in (folder / name for name in (*SLOTS, *MANIFESTS)) if path.exists()]
        if home.prepared.is_dir():
            for folder in home.prepared.iterdir():
                if folder.is_dir() and folder.name not in data:
                    found += _all_in(folder, "a prepared set that no run needs")
    # session.json last: a folder that is half gone still says whose it was
    found.sort(key=lambda row: row[0].name == SESSION)
    if delete:
        for path, _, _ in found:
            _remove(path)
    return Tidying(tuple(found), delete, ws.root)


def _current(path: Path, name: str) -> str | None:
    """What a current.json names; None where there is none. Raises when it cannot be read: it may name anything."""
    try:
        return read_json(path)[name]
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise SessionError(f"{path}: does not say which {name} is current. Repair it, and tidy again.") from error


def _all_in(folder: Path, why: str, but: tuple[str, ...] = ()) -> Iterator[tuple[Path, int, str]]:
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file() and path.name not in but:
            yield path, path.stat().st_size, why


def _remove(path: Path) -> None:
    """Empties a file, deletes it, and the folders that this leaves empty."""
    try:
        with open(path, "r+b") as file:
            file.truncate(0)
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(path, error) from error
    for folder in list(path.parents)[:3]:
        try:
            os.rmdir(folder)
        except OSError:  # it holds something else
            return
