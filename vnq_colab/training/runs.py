"""Which runs a workspace holds. As in `session`, only the standard library is imported."""

import contextlib
import os
import re
import time

from vnq_colab.clock import utc_stamp
from vnq_colab.config import RunConfig
from vnq_colab.errors import SessionError, VnqError, did_you_mean, tell
from vnq_colab.files import storage_error
from vnq_colab.layout import SESSION, SESSION_COPY, Workspace
from vnq_colab.training.session import Session

RUN_ID = re.compile(r"\d{8}T\d{6}_([a-z0-9]+_)?[0-9a-f]{6}(-(part|fold)\d+of\d+)?(-refit)?")  # the first version's too


def new_run_id(ws: Workspace, config: RunConfig) -> str:
    """"<UTC date>T<time>_<config hash:6>"; no two runs begin in one second, so that names sort by age."""
    stamp = utc_stamp()
    while any(name.startswith(stamp) for name in run_names(ws)):
        time.sleep(0.1)
        stamp = utc_stamp()
    return f"{stamp}_{config.config_id[:6]}"


def run_names(ws: Workspace) -> list[str]:
    """All runs of this machine and Drive, oldest first. Raises StorageError when neither says anything."""
    names, trouble = set(), None
    for home in ws.homes:
        try:
            with os.scandir(home.checkpoints) as entries:
                names |= {entry.name for entry in entries if RUN_ID.fullmatch(entry.name) and _is_run(entry)}
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            trouble = storage_error(home.checkpoints, error)
    if trouble and not names:
        raise trouble
    return sorted(names)


def _is_run(entry: os.DirEntry) -> bool:
    """Whether it is a folder, not a link to one, with something of a run in it."""
    return entry.is_dir(follow_symlinks=False) and any(
        os.path.lexists(os.path.join(entry.path, name)) for name in (SESSION, SESSION_COPY, "done"))


def sessions(ws: Workspace) -> list[Session]:
    """Every readable session of the workspace, oldest first."""
    readable, unreadable = [], []
    for name in run_names(ws):
        try:
            readable.append(Session.load(ws, name))
        except VnqError as error:
            unreadable.append(str(error))
    if unreadable:
        more = f" (and {len(unreadable) - 1} more runs)" if len(unreadable) > 1 else ""
        tell(f"passed over: {unreadable[0]}{more}")
    return readable


def other_parts(session: Session) -> list[Session]:
    """The runs that train the other parts of what a session trains a part of, as they stand now, where readable."""
    others: list[Session] = []
    for name in run_names(session.ws) if session.part is not None else ():
        if name.endswith(f"of{session.part[1]}") and name != session.run_id:
            with contextlib.suppress(VnqError):
                others.append(Session.load(session.ws, name))
    return [other for other in others if other.part and other.part != session.part
            and (other.config.config_id, other.data_id) == (session.config.config_id, session.data_id)]


def latest_session(ws: Workspace, run: str | None = None) -> Session:
    """The newest run, or the one whose name is, or begins with, `run`. Raises SessionError when there is none."""
    if run is not None:
        names = run_names(ws)
        matches = [name for name in names if name == run] or [name for name in names if name.startswith(run)]
        if len(matches) != 1:
            problem = f"{len(matches)} runs begin with" if matches else "there is no run"
            raise SessionError(f"{ws.checkpoints}: {problem} {run!r}.{did_you_mean(run, matches or names)}")
        return Session.load(ws, matches[0])
    if readable := sessions(ws):
        return readable[-1]
    raise SessionError(f"{ws.root}: there is no run yet. Start one with train.")


def status(ws: Workspace, run: str | None = None) -> Session:
    """What runs (else the newest run), how far, how old the last checkpoint is: from JSON alone, at once."""
    if run is None and (unfinished := [session for session in sessions(ws) if session.status != "finished"]):
        return unfinished[-1]
    return latest_session(ws, run)
