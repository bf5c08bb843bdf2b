"""Where the library runs: its folder on Google Drive, the machine it was given, and giving that machine back.

The only file that imports google.colab. Call these from a notebook cell, never from a background thread: Drive asks the
browser for consent, and only the cell's own thread can hear the answer.
"""

import importlib.metadata
import os
import shutil
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from vnq_colab.clock import machine_age_hours
from vnq_colab.config import PROFILES, Machine, require_known
from vnq_colab.data.unpack import price_files
from vnq_colab.delivery.notify import VARIABLE, notify_session
from vnq_colab.delivery.remote import sync_test
from vnq_colab.errors import ConfigError, DataError, StorageError, VnqError, tell
from vnq_colab.files import require_space, spell_bytes, write_atomic
from vnq_colab.layout import WORKSPACE_NAME, Workspace, find_root
from vnq_colab.notebook import Table
from vnq_colab.training.suggest import VARIABLES

HOSTNAME_FILE = Path("/var/colab/hostname")  # Colab's machines have it; Kaggle, which copies its variables, has not
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")

PLAN_HOURS = (12, 24)  # a machine's life, free and Pro+. Source: Colab FAQ, 2026
MARGIN_HOURS = 0.25  # chosen: the last checkpoint, and the push of about 2 GB to Drive
# a part of google.colab's error: what a person can do about it
DRIVE_CURES = {
    "NotImplementedError": "Connect to a hosted Colab machine, or name another folder: open_workspace('/content/x').",
    "it is not mounted": "Only a notebook cell can ask: call open_workspace() in one first, or give another --root.",
    "MessageError": "Access was not granted: run this cell again and allow it in the window that opens.",
    "already contain files": "Something wrote there too early: !mv {mount_at} {mount_at}_old, and run this cell again.",
    "domain policy": "The organisation of this Google account does not allow it: use another account.",
    "[Errno 107]": "The connection broke: run google.colab.drive.mount('{mount_at}', force_remount=True) in a cell.",
    "mount failed": "Run this cell again; if that does not help, choose Runtime > Disconnect and delete runtime.",
}
FAST_BFLOAT16 = (8, 0)  # first compute capability with bfloat16 in its tensor cores. Source: NVIDIA Ampere white paper
GIBIBYTE = 2**30

# (part of the GPU's name, at least so much memory [GB], Colab's compute units an hour). Source: third party, March 2026
UNITS_PER_HOUR = (("A100", 60, 7.52), ("A100", 0, 5.40), ("RTX PRO 6000", 0, 8.71), ("L4", 0, 1.71), ("T4", 0, 1.19))


def is_colab() -> bool:
    """True in a Colab notebook, and in a terminal or subprocess on a Colab machine."""
    return _in_notebook() or HOSTNAME_FILE.exists()


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")  # whoever runs in a notebook has imported it already
    return ipython is not None and type(ipython.get_ipython()).__module__.startswith("google.colab")


def open_workspace(root: str | Path | None = None, *, mount_at: str | Path = "/content/drive") -> Workspace:
    """The folder with everything in it: on Colab in Google Drive, which is mounted once; elsewhere `find_root()`.

    `root`, or else $VNQ_HOME, wins everywhere, and then Drive is mounted only if that folder lies in it. Raises
    StorageError, one sentence for each way in which Drive can fail.
    """
    for secret in sorted({VARIABLE, *VARIABLES} - os.environ.keys()) if _in_notebook() else ():
        try:
            from google.colab import userdata

            os.environ[secret] = userdata.get(secret)  # here, at the start: only a browser can answer
        except Exception as error:  # google.colab's own; without such a secret there is nobody to tell, or to ask
            if "NotFound" not in type(error).__name__:
                tell(f"careful: Colab's secret {secret} cannot be read ({type(error).__name__}) and is not used. Give "
                     "this notebook access to it, by the key on the left, and run this cell again.")
    if root or os.environ.get("VNQ_HOME") or not is_colab():
        workspace = Workspace(Path(root) if root else find_root())
        if is_colab() and Path(mount_at) in workspace.root.parents:
            _mounted(Path(mount_at))
        return workspace
    workspace = Workspace(_mounted(Path(mount_at)) / WORKSPACE_NAME)
    require_space(workspace.raw, 0, "the workspace")
    return workspace


def _mounted(mount_at: Path) -> Path:
    """MyDrive under the mount point, mounted where it is not there. Raises StorageError."""
    drive = mount_at / "MyDrive"
    try:
        if not _is_folder(drive):
            if not _in_notebook():
                raise RuntimeError("it is not mounted yet")
            from google.colab import drive as google_drive

            google_drive.mount(str(mount_at))
            if not _is_folder(drive):
                raise ValueError("mount failed: MyDrive is not there")
    except Exception as error:  # google.colab raises plain ValueErrors, and errors of its own
        text = f"{type(error).__name__}: {error}"
        cure = next((cure for mark, cure in DRIVE_CURES.items() if mark in text), "Run this cell again.")
        raise StorageError(f"Google Drive did not open ({text}). {cure.format(mount_at=mount_at)}") from error
    if HOSTNAME_FILE.exists() and not os.path.ismount(mount_at):
        print(f"Careful: {drive} is an ordinary folder, not Google Drive, and is lost with this machine. It was made "
              f"before Drive was mounted. Move it away (!mv {mount_at} {mount_at}_old) and run this cell again.")
    return drive


def _is_folder(path: Path) -> bool:
    """True for a folder, False for nothing. Raises OSError when the connection is broken, which is_dir() may hide."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def release_gpu(session: Any = None, *, flush: bool = True) -> None:
    """Gives the Colab machine back, which ends the session, after all writes are in Drive. Elsewhere it does nothing.

    Raises StorageError, and keeps the machine, when Drive does not take the writes. As the trainer's `on_finish` it
    gets the session, and keeps the machine unless that is finished or out of time, and all of it is in Drive.
    """
    if session is not None:
        notify_session(session)
        is_over = session.status == "finished" or session.why == "time is up"
        if reason := session.drive if is_over else f"the run is {session.status} ({session.why})":
            print(f"The machine is kept: {reason}.")
            return
    if not _in_notebook():
        print("Nothing to give back: this is not a Colab notebook.")
        return
    from google.colab import drive, runtime

    if flush:
        try:
            drive.flush_and_unmount()
        except Exception as error:
            raise StorageError(f"Google Drive did not take all writes ({error}), so the machine was kept. Run this "
                               "cell again; release_gpu(flush=False) gives up what has not arrived.") from error
    print("All writes are in Google Drive. Giving the machine back." if flush else "Giving the machine back.")
    runtime.unassign()


def table(frame: pd.DataFrame) -> Any:
    """A table for a notebook, whole: sortable and searchable; on Colab its own data table."""
    if not _in_notebook():
        return Table(frame)
    from google.colab import data_table

    rounded = frame.round(dict.fromkeys(frame.select_dtypes("float"), 4))  # a day cannot be rounded
    return data_table.DataTable(rounded, include_index=False, num_rows_per_page=25)


def upload_prices(ws: Workspace) -> str:
    """Asks the browser for price files, on Colab, and puts them into `data/raw`; elsewhere says where to put them."""
    if _in_notebook():
        from google.colab import files

        ws.raw.mkdir(parents=True, exist_ok=True)
        for name, content in files.upload().items():
            write_atomic(ws.raw / Path(name).name, content)
    if not (found := price_files(ws.raw)):
        raise DataError(f"{ws.raw}: no price files are here. Put yours there, and run this cell again.")
    return f"{len(found)} price files are in {ws.raw}; more can be put there"


def download(folder: Path) -> str:
    """Zips a folder into the working folder; on Colab the browser gets it."""
    archive = Path(shutil.make_archive(f"{folder.parent.name}_{folder.name}", "zip", folder))
    if _in_notebook():
        from google.colab import files

        files.download(str(archive))
    return f"{archive}: {spell_bytes(archive.stat().st_size)}"


def describe_machine(profile: str | None = None, *, plan_hours: float | None = None) -> Machine:
    """What this machine is; `profile`, or else $VNQ_PROFILE, replaces the profile that fits.

    `plan_hours` is how long Colab lets a machine live; None: 12, or 24 for one that is older than that already. Raises
    ConfigError for a profile that is not known, or that needs a GPU where none was given.
    """
    profile = profile or os.environ.get("VNQ_PROFILE")
    if profile:
        require_known(profile, PROFILES, "profile")
    gpu, capability, gpu_memory = _find_gpu()
    profile = profile or _fitting_profile(gpu, capability, gpu_memory)
    settings = PROFILES[profile]["machine"]
    device, dtype = settings.get("device", "cpu"), "float32"
    if device == "cuda" and not gpu:
        raise ConfigError(f"profile {profile!r} needs a GPU, and this machine has none. In Colab choose Runtime > "
                          "Change runtime type, or take profile 'cpu'.")
    is_fast = capability >= FAST_BFLOAT16
    if device == "cpu":
        reason = "exact, and the fastest on most processors"
    elif is_fast and settings.get("dtype") != "bfloat16":
        reason = f"profile {profile} asks for it"
    else:
        dtype = "bfloat16" if is_fast else "float32"
        reason = f"bfloat16 is fast from compute capability 8.0, and this has {capability[0]}.{capability[1]}"
    on_colab = is_colab()
    units = (units for name, least, units in UNITS_PER_HOUR if gpu and name in gpu and gpu_memory >= least)
    return Machine(
        where="Colab" if on_colab else "local", profile=profile, device=device, dtype=dtype, dtype_reason=reason,
        gpu=gpu, gpu_memory_gb=gpu_memory if gpu else None, memory_gb=psutil.virtual_memory().total / GIBIBYTE,
        cores=_cores(), hours_left=_hours_left(plan_hours) if on_colab else None,
        units_per_hour=next(units, None) if on_colab else None,
    )


def check_up(ws: Workspace, profile: str | None = None, sync: bool = False,
             remote: str | None = None) -> list[tuple[str, bool, str]]:
    """Machine, packages, `sync` with elsewhere, workspace, data, each with whether it is as it must be, and a text."""
    checks: list[tuple[str, bool, str]] = [("machine", True, repr(describe_machine(profile)))]
    for name in ("torch", "numpy", "pandas", "pyarrow", "matplotlib", "scipy"):
        try:
            checks.append((name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            checks.append((name, False, f"missing. Install it with: pip install {name}"))
    try:
        checks += [("sync", True, sync_test(ws, remote))] if sync else []  # no folder is made where Drive is gone
        require_space(ws.root, 5e9, "a run of 102 symbols")
        checks.append(("workspace", True, f"{ws.root}, {shutil.disk_usage(ws.root).free / 1e9:.0f} GB free"))
    except VnqError as error:
        checks.append(("sync" if sync and checks[-1][0] != "sync" else "workspace", False, str(error)))
    has_data = (ws.prepared / "current.json").exists()
    return [*checks, ("data", has_data, "prepared" if has_data
                      else "nothing prepared yet. Run: python -m vnq_colab prepare --data PATH")]


def _find_gpu() -> tuple[str | None, tuple[int, int], float]:
    """Name, compute capability and memory [GB] of the first GPU."""
    import torch

    if not torch.cuda.is_available():
        return None, (0, 0), 0.0
    gpu = torch.cuda.get_device_properties(0)
    return gpu.name, (gpu.major, gpu.minor), gpu.total_memory / GIBIBYTE


def _fitting_profile(gpu: str | None, capability: tuple[int, int], memory_gb: float) -> str:
    """By what a GPU can do, not by its name, so that next year's finds its place too."""
    if gpu is None:
        from vnq_colab.training.process import processor_name  # which imports torch

        return "i7-14700" if "i7-14700" in processor_name() else "cpu"
    if capability < FAST_BFLOAT16:
        return "t4"
    return "a100" if memory_gb > 36 else "l4"


def _cores() -> int:
    """Physical cores that this process may use: a container or a task manager can allow fewer than there are."""
    allowed = [psutil.cpu_count(logical=False) or psutil.cpu_count() or 1]
    with suppress(AttributeError, OSError, psutil.Error):
        allowed.append(len(psutil.Process().cpu_affinity()))
    with suppress(OSError, ValueError):
        quota, period = CPU_QUOTA.read_text().split()
        allowed.append(round(int(quota) / int(period)))
    return max(1, min(allowed))


def _hours_left(plan_hours: float | None) -> float:
    """Hours until the plan ends this machine, less a margin. One older than 12 hours proves a plan of 24."""
    age = machine_age_hours() or 0.0
    plan_hours = plan_hours or next((hours for hours in PLAN_HOURS if age < hours), age)
    return max(0.0, plan_hours - age - MARGIN_HOURS)
