"""What lies elsewhere: a folder that rclone reaches, and a machine that Google's command line for Colab lends.

Tested against rclone's local backend, and a program that behaves like google-colab-cli; neither was tried with Google.
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
from vnq_colab.training.session import Session, run_names, sessions

CLIENT_ID = "Google is retiring rclone's own client id: make one, https://rclone.org/drive/#making-your-own-client-id."
NO_RCLONE = ("rclone is needed for a remote. On Debian: sudo apt install rclone; on Windows: winget install "
             f"Rclone.Rclone; then: rclone config. {CLIENT_ID}")
NO_COLAB = ("google-colab-cli is needed for --where colab (Linux and macOS alone). Install it with: uv tool install "
            "google-colab-cli; elsewhere take --where drive, and press Run all in Colab.")
CURES = {  # a part of what rclone says: what a person can do about it
    "didn't find section in config file": f"This remote is not configured: run rclone config. {CLIENT_ID}",
    "storageQuota": "Google Drive is full: empty its trash, or tidy --delete there.",
    "LimitExceeded": f"Over Google's quota: wait up to 24 hours. {CLIENT_ID}",
    "invalid_grant": "Its consent has ended: run rclone config reconnect.",
    "immutable": "A file that never changes is another one there: look which is right, and remove the other.",
    "directory not found": "The folder is not there, or Drive does not answer: look at --remote NAME:PATH."}
POLL_SECONDS = 60.0  # between two looks at a run that is trained elsewhere
SYNC_FILE = "sync_test.bin"
TRAIN = """import subprocess, sys, tarfile, threading
tarfile.open("vnq_in.tar").extractall("vnq", filter="data")
def beat():  # silence times out
    while not over.wait(15):
        print("alive", flush=True)
over = threading.Event()
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


def rclone(*words: str | Path) -> str:
    """What a command of rclone prints. Raises StorageError: not installed, not configured, over quota, or its words."""
    if not (program := shutil.which("rclone")):
        raise StorageError(NO_RCLONE)
    done = subprocess.run([program, "--ask-password=false", "--retries=2", *map(str, words)], errors="replace",
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "NOTICE" not in line), "").partition(": ")[2]
        cure = next((cure for mark, cure in CURES.items() if mark in done.stderr), "Try again.")
        raise StorageError(f"rclone {words[0]} {words[-1]}: {said[:300]}. {cure}")
    return done.stdout


def send_data(ws: Workspace, data_id: str, remote: str) -> None:
    """Brings a prepared set to the remote: what never changes first, then it becomes the current one there."""
    here, there = ws.prepared / data_id, f"{remote}/data/prepared/{data_id}"
    rclone("copy", "--immutable", "--include", "*.parquet", "--include", "prepared.json", here, there)
    rclone("copy", here, there)
    rclone("check", "--one-way", here, there)
    rclone("copyto", ws.prepared / "current.json", f"{remote}/data/prepared/current.json")


def wait_for_run(ws: Workspace, data_id: str, remote: str | None, *, patience: float, seconds: float) -> Session | None:
    """A finished run of a prepared set, once somebody trained it, brought here; else, after `patience` seconds without
    a sign of life, or `seconds` in all, the newest as far as it is trained. None: there is none here.
    """
    began = heard = time.monotonic()
    newest, seen = None, set()
    while True:
        trouble = ""
        try:
            runs = runs_of(ws, data_id, remote)
            newest = next((run for run in reversed(runs) if run.status == "finished"), runs[-1] if runs else newest)
            if not seen >= (signs := {(run.run_id, run.sequence, run.heartbeat) for run in runs}):
                seen, heard = seen | signs, time.monotonic()
        except VnqError as error:
            trouble = f" ({error})"
        now, is_finished = time.monotonic(), newest and newest.status == "finished"
        if is_finished or now - heard >= patience or now - began >= seconds:
            break
        state = f"run {newest.run_id} is {newest.status}" if newest else "press Run all in 02_train_all_102 on Colab"
        tell(f"waiting for a run of data {data_id} for {spell(now - began)}: {state}; silent for {spell(now - heard)}"
             f"{trouble}")
        time.sleep(min(POLL_SECONDS, patience / 4, seconds))
    if newest and remote:
        with contextlib.suppress(*() if is_finished else (VnqError,)):
            folder, there = f"checkpoints/{newest.run_id}", ws.checkpoint_folder(newest.run_id)
            rclone("copy", "--immutable", "--include", "/done/*", f"{remote}/{folder}", there)
            for part in (f"configs/{newest.run_id}.json", folder):  # session.json, which speaks of the others, last
                rclone("copyto", f"{remote}/{part}", ws.root / part)
        if is_finished:
            rclone("check", "--one-way", f"{remote}/{folder}", there)
    return newest if newest and newest.run_id in run_names(ws) else None


def runs_of(ws: Workspace, data_id: str, remote: str | None = None) -> list[Session]:
    """The runs of a prepared set, as their JSON tells it, oldest first. Raises StorageError where Drive is gone."""
    if not remote and ws.root.is_dir():
        return [session for session in sessions(ws) if session.data_id == data_id]
    if not remote:
        raise StorageError(f"{ws.root}: is not there; Google Drive does not answer. Connect it again.")
    with tempfile.TemporaryDirectory() as scratch:
        rclone("copy", "--include", "/*/{session,session_copy,heartbeat}.json", f"{remote}/checkpoints",
               f"{scratch}/checkpoints")
        return runs_of(Workspace(Path(scratch)), data_id)


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


def train_on_colab(ws: Workspace, data_id: str, words: Sequence[str], *, gpu: str, patience: float) -> None:
    """Trains a prepared set, with `words` of the command train, on a machine that Colab lends, and brings the run here.

    The machine is given back in every case. Raises SessionError when it fails, or is silent for `patience` seconds.
    """
    if not (program := shutil.which("colab")):
        raise ConfigError(NO_COLAB)
    name = f"vnq-{data_id}"
    with tempfile.TemporaryDirectory() as scratch:
        begin, train, pack, result = (Path(scratch) / file for file in ("begin.py", "train.py", "in.tar", "out.tar"))
        begin.write_text("print('the machine is there')")
        train.write_text(TRAIN.format(words=list(words)))
        with tarfile.open(pack, "w") as file:
            file.add(Path(vnq_colab.__file__).parent, "vnq_colab")
            for part in (data_id, "current.json"):
                file.add(ws.prepared / part, f"ws/data/prepared/{part}")
        try:
            for command in (("run", "--keep", "-s", name, "--gpu", gpu, begin),
                            ("upload", "-s", name, pack, "content/vnq_in.tar"), ("exec", "-s", name, "-f", train),
                            ("download", "-s", name, "content/vnq_out.tar", result)):
                _watch([program, *map(str, command)], patience)
        finally:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run([program, "stop", "-s", name], capture_output=True, timeout=300)
        try:
            with tarfile.open(result) as file:
                file.extractall(Path(scratch) / "run", filter="data")
            shutil.copytree(Path(scratch) / "run", ws.local.root, dirs_exist_ok=True)
        except (OSError, tarfile.TarError) as error:  # shutil.Error is an OSError
            raise SessionError(f"what Colab's machine gave back cannot be used ({error}). Try again.") from error


def _watch(words: list[str], patience: float) -> None:
    """Runs a command and says its lines. Raises SessionError when it fails, or says nothing for `patience` seconds."""
    line, last, what = "\n", "without a word", f"colab {words[1]}"
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace") as process:
        while line:
            timer = threading.Timer(patience, process.kill)
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if line.strip():
                last = line.strip()
                tell(f"{what}: {last}")
    if process.returncode:
        why = f"silent for {spell(patience)}" if process.returncode == -9 else last
        raise SessionError(f"{what} failed ({why}). Try again, or train here with --fallback local.")
