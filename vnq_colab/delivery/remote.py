"""What lies elsewhere: a folder that rclone reaches, and a machine that Google's command line for Colab lends.

rclone is tested against its local backend, Colab's command line against a program that behaves like it; with Google's
own services neither was tried.
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import vnq_colab
from vnq_colab.clock import spell
from vnq_colab.errors import ConfigError, SessionError, StorageError, VnqError, tell
from vnq_colab.files import on_drive, overwrite
from vnq_colab.layout import Workspace
from vnq_colab.training.session import Session, sessions

CLIENT_ID = ("For Google Drive make a client id of your own (https://rclone.org/drive/#making-your-own-client-id): "
             "Google is retiring the built-in one")
NO_RCLONE = ("rclone is needed for a remote. Install it on Debian with: sudo apt install rclone; on Windows with: "
             f"winget install Rclone.Rclone; then make the remote with: rclone config. {CLIENT_ID}.")
NO_COLAB = ("google-colab-cli is needed for --where colab (Linux and macOS only). Install it with: uv tool install "
            "google-colab-cli; on Windows take --where drive, and press Run all in Colab.")
CURES = (  # a part of what rclone says: what a person can do about it
    ("didn't find section in config file", f"This remote is not configured: run rclone config. {CLIENT_ID}."),
    ("storageQuota", "Google Drive is full: empty its trash, or tidy --delete there."),
    ("LimitExceeded", f"Over Google's quota: wait up to 24 hours. {CLIENT_ID}."),
    ("Quota", "Over Google's quota: wait up to 24 hours."),
    ("invalid_grant", "Its consent has ended: run rclone config reconnect NAME:"),
    ("immutable", "A file that never changes is another one there: look which is right, and remove the other."),
    ("directory not found", "The folder is not there, or Drive does not answer: look at --remote NAME:PATH."))
SYNC_FILE = "sync_test.bin"
MOST_SECONDS = 6 * 3600  # for one command
POLL_SECONDS = 60.0  # between two looks at a run that is trained elsewhere
BEGIN = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU was given')"
TRAIN = """import subprocess, sys, tarfile, threading
tarfile.open("vnq_in.tar").extractall("vnq", filter="data")
over = threading.Event()
def beat():  # silence times out
    while not over.wait(15):
        print("alive", flush=True)
threading.Thread(target=beat, daemon=True).start()
train = subprocess.Popen([sys.executable, "-u", "-m", "vnq_colab", "train", "--root", "ws", *{words!r}], cwd="vnq",
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
for line in train.stdout:
    print(line, end="", flush=True)
over.set()
with tarfile.open("vnq_out.tar", "w") as out:
    for name in ("checkpoints", "configs", "logs"):
        out.add("vnq/ws/" + name, name)
"""  # on Colab's machine, in /content


# ------------------------------------------------------------------------------------------------------------- rclone
def rclone(*words: str | Path) -> str:
    """What a command of rclone prints. Raises StorageError: not installed, not configured, over quota, or its words."""
    if not (program := shutil.which("rclone")):
        raise StorageError(NO_RCLONE)
    try:
        done = subprocess.run([program, "--ask-password=false", "--retries=2", *map(str, words)], errors="replace",
                              capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        raise StorageError(f"rclone {words[0]}: not done after {spell(MOST_SECONDS)}. Try again.") from None
    if done.returncode:
        said = [line.partition(": ")[2] or line for line in done.stderr.splitlines() if "NOTICE" not in line]
        cure = next((cure for mark, cure in CURES if mark in done.stderr), "Try again, or look with rclone itself.")
        raise StorageError(f"rclone {words[0]} {words[-1]}: {' '.join(said[:1] + said[1:][-1:])[:300]}. {cure}")
    return done.stdout


def send_data(ws: Workspace, data_id: str, remote: str) -> None:
    """Brings a prepared set to the remote: what never changes first, then it becomes the current one there."""
    here, there = ws.prepared / data_id, f"{remote}/data/prepared/{data_id}"
    rclone("copy", "--immutable", "--include", "*.parquet", "--include", "prepared.json", here, there)
    rclone("copy", here, there)
    rclone("check", "--one-way", here, there)
    rclone("copyto", ws.prepared / "current.json", f"{remote}/data/prepared/current.json")


def fetch_run(ws: Workspace, session: Session, remote: str) -> None:
    """Brings a run from the remote, as far as it is trained; a finished one is compared."""
    run, folder = session.run_id, f"checkpoints/{session.run_id}"
    rclone("copy", "--immutable", "--include", "/done/*", f"{remote}/{folder}", ws.root / folder)
    rclone("copy", f"{remote}/{folder}", ws.root / folder)
    rclone("copyto", f"{remote}/configs/{run}.json", ws.configs / f"{run}.json")
    if session.status == "finished":
        rclone("copy", f"{remote}/logs/{run}", ws.log_folder(run))
        rclone("check", "--one-way", f"{remote}/{folder}", ws.root / folder)


def sync_test(ws: Workspace, remote: str | None = None) -> str:
    """Writes a file to the remote ($VNQ_REMOTE), else to the workspace on Drive, reads it back and removes it."""
    remote, began, content = remote or os.environ.get("VNQ_REMOTE"), time.monotonic(), secrets.token_bytes(100_000)
    if remote:
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / SYNC_FILE).write_bytes(content)
            rclone("copy", scratch, remote)
            rclone("check", "--one-way", "--download", scratch, remote)
            rclone("deletefile", f"{remote}/{SYNC_FILE}")
    elif not on_drive(ws.root):
        raise ConfigError(f"{ws.root} is not on Google Drive, and no remote is named: give --remote NAME:PATH.")
    elif not ws.root.is_dir():
        raise StorageError(f"{ws.root}: is not there; Google Drive does not answer. Connect it again.")
    else:
        overwrite(ws.root / SYNC_FILE, content)
        (ws.root / SYNC_FILE).unlink()
    return f"{remote or ws.root}: a file came back as it was written, in {time.monotonic() - began:.1f} s"


def runs_of(ws: Workspace, data_id: str, remote: str | None) -> list[Session]:
    """The runs of a prepared set, as their JSON tells it, oldest first. Raises StorageError where Drive is gone."""
    if remote is None:
        if not ws.root.is_dir():
            raise StorageError(f"{ws.root}: is not there; Google Drive does not answer. Connect it again.")
        return [session for session in sessions(ws) if session.data_id == data_id]
    with tempfile.TemporaryDirectory() as scratch:
        rclone("copy", "--include", "/*/{session,session_copy,heartbeat}.json", f"{remote}/checkpoints",
               f"{scratch}/checkpoints")
        return runs_of(Workspace(Path(scratch)), data_id, None)


def wait_for_run(ws: Workspace, data_id: str, remote: str | None, *, patience: float,
                 seconds: float) -> Session | None:
    """A finished run of a prepared set, once somebody trained it; else how the newest one stands after `patience`
    seconds without a sign of life, or after `seconds` in all. None: there is none.
    """
    began = heard = time.monotonic()
    newest, seen = None, set()
    while True:
        trouble = ""
        try:
            runs = runs_of(ws, data_id, remote)
            if finished := [session for session in runs if session.status == "finished"]:
                return finished[-1]
            signs = {(session.run_id, session.sequence, session.heartbeat) for session in runs}
            newest, heard = runs[-1] if runs else newest, time.monotonic() if signs - seen else heard
            seen |= signs
        except VnqError as error:
            trouble = f" ({error})"
        silent = time.monotonic() - heard
        if silent >= patience or time.monotonic() - began >= seconds:
            return newest
        state = f"run {newest.run_id} is {newest.status}" if newest else "press Run all in 02_train_all_102 on Colab"
        tell(f"waiting for a run of data {data_id} since {spell(time.monotonic() - began)}: {state}; last sign of life "
             f"{spell(silent)} ago{trouble}")
        time.sleep(min(POLL_SECONDS, patience / 4, seconds))


# -------------------------------------------------------------------------------------------------------------- Colab
def train_on_colab(ws: Workspace, data_id: str, words: Sequence[str], *, gpu: str, patience: float) -> None:
    """Trains a prepared set on a machine that Colab lends for it, with the `words` of `train`, and brings the run here.

    The machine is given back in every case. Raises ConfigError without the command line, SessionError when it fails or
    is silent for `patience` seconds.
    """
    if not (program := shutil.which("colab")):
        raise ConfigError(NO_COLAB)
    name = f"vnq-{data_id}"
    with tempfile.TemporaryDirectory() as scratch:
        begin, train, pack, result = (Path(scratch) / file for file in ("begin.py", "train.py", "in.tar", "out.tar"))
        begin.write_text(BEGIN)
        train.write_text(TRAIN.format(words=list(words)))
        with tarfile.open(pack, "w") as file:
            file.add(Path(vnq_colab.__file__).parent, "vnq_colab")
            for part in (data_id, "current.json"):
                file.add(ws.prepared / part, f"ws/data/prepared/{part}")
        try:
            for command in (("run", "--keep", "-s", name, "--gpu", gpu, begin),
                            ("upload", "-s", name, pack, "content/vnq_in.tar"), ("exec", "-s", name, "-f", train),
                            ("download", "-s", name, "content/vnq_out.tar", result)):
                _watched([program, *map(str, command)], patience)
        finally:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([program, "stop", "-s", name], capture_output=True, timeout=300)
        try:
            with tarfile.open(result) as file:
                file.extractall(Path(scratch) / "run", filter="data")
            shutil.copytree(Path(scratch) / "run", ws.local.root, dirs_exist_ok=True)
        except (OSError, tarfile.TarError, shutil.Error) as error:
            raise SessionError(f"what Colab's machine gave back cannot be used ({error}). Try again.") from error


def _watched(words: list[str], patience: float) -> None:
    """Runs a command and says its lines. Raises SessionError when it fails, or says nothing for `patience` seconds."""
    last, what, silent = "", f"colab {words[1]}", threading.Event()
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace") as process:
        line = "\n"
        while line:
            timer = threading.Timer(patience, lambda: (silent.set(), process.kill()))
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if line.strip():
                last = line.strip()
                tell(f"{what}: {last}")
    if silent.is_set():
        last, process.returncode = f"silent for {spell(patience)}, and stopped", 1
    if process.returncode:
        raise SessionError(f"{what} failed ({last or 'without a word'}). Try again, or train here with --fallback "
                           "local.")
