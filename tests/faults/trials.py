"""A trial: one run with folders of its own, which is started, hurt, resumed, and compared with an undisturbed one."""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vnq_colab.errors import CheckpointError, VnqError
from vnq_colab.files import read_sealed
from vnq_colab.layout import HEARTBEAT, MANIFESTS, SESSION, SESSION_COPY, SLOTS, Workspace
from vnq_colab.training.checkpoint import read_payload

HOUSE = Path(__file__).resolve().parents[2]
HEADER_BYTES = 56  # of a payload: magic, sequence, length, sha256
DONE = "done/[!.]*"  # the files of finished jobs, not what is being written
MOST_ATTEMPTS = 60  # after which a trial is given up


class Parent:
    """The process that forks children; see `child`. Use it with `with`."""

    def __init__(self) -> None:
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.child"], cwd=HOUSE, env=os.environ | one, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._ready = False

    def __enter__(self) -> "Parent":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, job: dict[str, Any]) -> int:
        """Forks the child of a job; its process id."""
        if not self._ready:
            self._answer()
            self._ready = True
        Path(job["result"]).unlink(missing_ok=True)
        self._outside = snapshot(job["watched"])
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        self._job = job
        return self._answer()["pid"]

    def wait(self) -> dict[str, Any]:
        """How the child ended: exit, seconds, result (None after a kill), and what it said."""
        ended, result = self._answer(), Path(self._job["result"])
        ended["result"] = json.loads(result.read_text()) if result.exists() and ended["exit"] >= 0 else None
        ended["said"] = Path(self._job["said"]).read_text(encoding="utf-8", errors="replace")
        if ended["timed_out"]:
            raise AssertionError(f"a child hung: {self._job}\n{ended['said'][-2000:]}")
        if self._outside != (now := snapshot(self._job["watched"])):
            changed = {path for path, _ in self._outside.items() ^ now.items()}
            raise AssertionError(f"changed outside of the workspace: {sorted(changed)}, by {self._job}")
        return ended

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """`start`, then `wait`."""
        self.start(job)
        return self.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the parent of the children has ended; see its error above")
        return json.loads(line)


@dataclass
class Trial:
    """A run's folders: `home` (below a MyDrive, when it is on Drive), the local side, and a place for what is told.

    What lies beside it, in the person's $HOME and in the folder `outside` must be the same after each process.
    """

    folder: Path
    size: str = "tiny"
    on_drive: bool = False
    attempts: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("scratch", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.home.parent.mkdir(exist_ok=True)
        for place in self.watched:
            if not place.exists():
                (place / "more").mkdir(parents=True)
                for name in ("portfolio.csv", "more/prices.csv", "more/session.json"):
                    (place / name).write_text("the person's own\n")

    @property
    def home(self) -> Path:
        return self.folder / "MyDrive" / "home" if self.on_drive else self.folder / "here" / "home"

    @property
    def watched(self) -> list[Path]:
        """Folders in which nothing may change."""
        return [self.home.parent / "beside", self.folder / "person", self.folder / "outside"]

    @property
    def local(self) -> Path:
        return self.folder / "local"

    @property
    def versions(self) -> Path:
        return self.folder / "log" / "versions"

    @contextlib.contextmanager
    def eyes(self):
        """The workspace as this process sees it."""
        before = os.environ.get("VNQ_LOCAL")
        os.environ["VNQ_LOCAL"] = str(self.local)
        try:
            yield Workspace(self.home)
        finally:
            os.environ.pop("VNQ_LOCAL") if before is None else os.environ.update(VNQ_LOCAL=before)

    def job(self, do: str = "go_on", **faults: Any) -> dict[str, Any]:
        """A job for `Parent.run`; its events go to the log of a new attempt."""
        number = len(self.attempts)
        log = self.folder / "log"
        job = {"do": do, "root": str(self.home), "local": str(self.local), "scratch": str(self.folder / "scratch"),
               "log": str(log / f"attempt_{number:03d}"), "said": str(log / f"said_{number:03d}"),
               "result": str(log / f"result_{number:03d}"), "versions": str(self.versions), "size": self.size,
               "person": str(self.watched[1]), "watched": list(map(str, self.watched))} | faults
        self.attempts.append(job)
        return job

    def events(self, number: int = -1) -> list[list[str]]:
        """What an attempt logged, in words."""
        return [line.split(" ") for line in Path(self.attempts[number]["log"]).read_text().splitlines()]

    def steps(self, number: int = -1) -> list[tuple[tuple[str, str, str], float]]:
        """The steps of an attempt: (job, share, words), and when it was done."""
        return [((e[1], e[2], e[3]), float(e[4])) for e in self.events(number) if e[0] == "step"]

    # ------------------------------------------------------------------------------------------------ what lies there
    def run_folders(self) -> list[Path]:
        """The folders of the run on this machine and on Drive, as far as they are there."""
        with self.eyes() as ws:
            return [path for home in dict.fromkeys((ws.local, ws)) for path in sorted(home.checkpoints.glob("*"))]

    def finished_jobs(self) -> set[str]:
        """The jobs that are finished in what survives: whole files."""
        found: set[str] = set()
        for folder in self.run_folders():
            for path in folder.glob(DONE):
                with contextlib.suppress(CheckpointError):
                    read_payload(path)
                    found.add(path.name)
        return found

    def torn(self, folder: Path) -> list[str]:
        """The files of a run in one folder that are not whole."""
        found = []
        for path in [*(folder / name for name in SLOTS), *folder.glob(DONE)]:
            with contextlib.suppress(FileNotFoundError):
                try:
                    path.stat()
                    read_payload(path)
                except CheckpointError as error:
                    found.append(str(error))
        for path in (folder / name for name in (SESSION, SESSION_COPY, HEARTBEAT, *MANIFESTS)):
            try:
                read_sealed(path)
            except FileNotFoundError:
                continue
            except VnqError as error:
                found.append(str(error))
        return found

    def jobs(self, on_drive: bool = False) -> dict[str, bytes]:
        """The finished jobs' files, byte for byte."""
        with self.eyes() as ws:
            home = ws if on_drive else ws.local
            return {path.name: path.read_bytes() for path in sorted(home.checkpoints.glob(f"*/{DONE}"))}

    def models(self) -> str:
        """sha256 of all that the exported networks hold, bit for bit, but the run's own name."""
        return hashlib.sha256("".join(f"{path.name} {_bits(_state(path.read_bytes(), 0) | {'run_id': ''})}" for path in
                                      sorted(self.home.glob("models/*/*.pt"))).encode()).hexdigest()

    def lose_machine(self) -> None:
        """A new machine: nothing is left but Drive."""
        shutil.rmtree(self.local, ignore_errors=True)
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        (self.folder / "scratch").mkdir()


@dataclass
class Reference:
    """What an undisturbed run gives."""

    hashes: dict[str, str]  # of what each job learnt
    jobs: dict[str, bytes]
    models: str
    log_bytes: int  # that an attempt logs from start to end: the measure of its length, whatever the machine's load
    seconds: float

    @classmethod
    def of(cls, parent: Parent, size: str, **choices: Any) -> "Reference":
        with folder_for("reference") as folder:
            trial = Trial(folder, size)
            ended = parent.run(trial.job("train", **choices))
            assert ended["result"] and ended["result"]["status"] == "finished", ended
            log_bytes = Path(trial.attempts[-1]["log"]).stat().st_size
            assert parent.run(trial.job("export"))["exit"] == 0
            return cls(ended["result"]["hashes"], trial.jobs(), trial.models(), log_bytes, ended["seconds"])

    def differences(self, trial: Trial, result: dict[str, Any] | None) -> list[str]:
        """How a run that was disturbed ended otherwise; nothing when every bit of every network is equal.

        The files of finished jobs are compared by what they hold, here and on Drive; `other_bytes` compares the rest.
        """
        if result is None or result.get("status") != "finished":
            return [f"not finished: {result}"]
        found = [f"{job}: other bits" for job, digest in self.hashes.items() if result["hashes"].get(job) != digest]
        for on_drive in (False, True) if trial.on_drive else (False,):
            jobs, place = trial.jobs(on_drive), " on Drive" if on_drive else ""
            for name, content in self.jobs.items():
                if name in jobs and jobs[name] != content and not _equal(_state(jobs[name]), _state(content)):
                    found.append(f"{name}: other content{place}")
                elif name not in jobs and (on_drive or not trial.on_drive):
                    found.append(f"{name}: is not there{place}")
        return found

    def other_bytes(self, trial: Trial) -> list[str]:
        """The finished jobs whose files are not the undisturbed ones byte for byte."""
        jobs = trial.jobs(trial.on_drive)
        return [name for name, content in self.jobs.items() if jobs.get(name) != content]


def _bits(value: Any) -> str:
    """A text that is the same for equal bits alone."""
    if isinstance(value, dict):
        return repr({name: _bits(part) for name, part in value.items()})
    if isinstance(value, (list, tuple)):
        return f"{type(value)} {[_bits(part) for part in value]}"
    return f"{value.dtype} {value.shape} {_raw(value).hex()}" if hasattr(value, "numpy") else f"{type(value)} {value!r}"


def _state(content: bytes, start: int = HEADER_BYTES) -> Any:
    import torch

    try:
        return torch.load(io.BytesIO(content[start:]), weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError) as error:
        return f"torn: {error}"  # as on a Drive that has not got all of it


def _raw(tensor: Any) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _equal(one: Any, other: Any) -> bool:
    """Equal to the last bit, NaN included."""
    return _bits(one) == _bits(other)


def snapshot(folders: list[str]) -> dict[str, tuple]:
    """Of everything below some folders: kind and mode, size, time of the last change, and content."""
    found = {}
    for path in (path for folder in folders for path in (Path(folder), *Path(folder).rglob("*"))):
        facts = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if stat.S_ISREG(facts.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = (facts.st_mode, facts.st_size, facts.st_mtime_ns, content)
    return found


@contextlib.contextmanager
def folder_for(what: str):
    """A new folder for a trial, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"vnq_{what}_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lost_steps(trial: Trial, killed: int, following: int, ended: dict[str, Any]) -> tuple[int, float] | None:
    """(steps, seconds) of the attempt `killed` that the one `following` it had to repeat; None when nothing tells.

    The next attempt's first step shows where it began: what the killed one did from there on was lost.
    """
    before, after = trial.steps(killed), trial.steps(following)
    if not before or not after:
        return None
    where = [number for number, (step, _) in enumerate(before) if step == after[0][0]]
    if not where:
        return 0, 0.0
    since = before[where[0] - 1][1] if where[0] else before[0][1]
    return len(before) - where[0], max(0.0, ended["sent_at"] - since)


def picked(seed: int, *names: object) -> random.Random:
    """Chance of its own for each purpose, equal in each process."""
    return random.Random(":".join(map(str, (seed, *names))))
