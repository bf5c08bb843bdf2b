"""Files that rot: flipped bits, cut ends and zeroed blocks in every kind of file that a run leaves.

A damaged file must be refused, and what is left be used and named. It counts as loaded although damaged when loading
gives something else than the undamaged file did.
"""

import contextlib
import io
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.kills import EVERY, KILL, MIDDLE, STEP, Tally
from tests.faults.trials import Parent, Reference, Trial, _equal, folder_for, picked
from vnq_colab.delivery.bundle import Bundle, load_bundle
from vnq_colab.errors import CheckpointError, DeliveryError, VnqError
from vnq_colab.files import read_sealed
from vnq_colab.layout import HEARTBEAT, MANIFESTS, SESSION, SESSION_COPY, SLOTS
from vnq_colab.payload import payload_sequence, read_payload
from vnq_colab.training.checkpoint import CheckpointStore
from vnq_colab.training.session import Session

KINDS = ("slot", "session", "heartbeat", "job", "model", "manifest", "bundle manifest")
SHARE_OF_BITS = 0.8  # of the damages are one flipped bit; the others a cut end or a zeroed block
FINISHED = "trees_fold1"  # the job whose file is damaged


def damaged(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """The content with one fault, which is said in words."""
    if chance.random() < SHARE_OF_BITS:
        place, bit = chance.randrange(len(content)), chance.randrange(8)
        return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1:], f"bit {bit} of byte {place}"
    if chance.random() < 0.5:
        size = chance.randrange(len(content))
        return content[:size], f"cut to {size} bytes"
    place, size = chance.randrange(len(content)), chance.choice((1, 16, 512, 4096))
    zeroed = content[:place] + bytes(len(content[place:place + size])) + content[place + size:]
    return zeroed, f"{size} zeros from byte {place}"


@contextlib.contextmanager
def said() -> Iterator[io.StringIO]:
    """What the library tells the person meanwhile."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        yield text


def damage_files(parent: Parent, tally: Tally, flips: int, seed: int) -> None:
    """So many damaged files, of all kinds in turn."""
    with folder_for("damage") as folder:
        trial = Trial(folder / "run", "tiny")
        parent.run(trial.job("train", every=1, at=[MIDDLE, STEP, KILL], step_seconds=0.02))
        done = Trial(folder / "done", "tiny")
        parent.run(done.job("train", every=EVERY))
        assert parent.run(done.job("export"))["exit"] == 0
        with trial.eyes() as ws:
            run = trial.run_folders()[0]
            damages = _Damages(ws, run, next(done.home.glob("models/*/manifest.json")).parent)
            for number in range(flips):
                kind = KINDS[number % len(KINDS)]
                found = damages.try_one(kind, picked(seed, "flips", number))
                tally.add(f"damaged: {kind}")
                tally.add(f"{found[0]}: {kind}")
                if found[0] not in ("refused", "not needed", "the same"):
                    tally.fail(f"{kind}, damage {number}", found[1])
                if (number + 1) % 500 == 0:
                    tally.say(f"{number + 1} of {flips} damaged files, {len(tally.failures)} failures")


def damage_seal(parent: Parent, tally: Tally) -> None:
    """Each bit of the key under which session.json keeps its own sha256: without it nothing seems to be checked."""
    with folder_for("seal") as folder:
        trial = Trial(folder, "tiny")
        parent.run(trial.job("train", every=1, at=[MIDDLE, STEP, KILL], step_seconds=0.02))
        with trial.eyes() as ws:
            path = trial.run_folders()[0] / SESSION
            whole = path.read_bytes()
            start = whole.rindex(b'"seal"')
            for place, bit in ((place, bit) for place in range(start, start + 6) for bit in range(8)):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1:])
                tally.add("damaged: seal of a session")
                try:
                    with said():
                        Session.load(ws, path.parent.name)
                    tally.add("gone on from: seal of a session")
                except VnqError as error:
                    tally.fail(f"seal of a session, byte {place - start}, bit {bit}", str(error))


class _Damages:
    """The files of one killed run and one bundle, what they hold, and how each kind is loaded."""

    def __init__(self, ws: Any, run: Path, bundle: Path):
        self.ws, self.run, self.bundle, self.run_id = ws, run, bundle, run.name
        self.store = CheckpointStore(ws, self.run_id)
        self.session = Session.load(ws, self.run_id).to_dict()
        self.newest = self.store.load_latest({"job": MIDDLE})[0]
        self.slot = max(SLOTS, key=lambda name: payload_sequence(run / name))
        self.older = self._state_without(self.slot)
        assert self.newest is not None and self.older is not None, "both slots hold states of one job"
        self.done = self.store.load_done(FINISHED)
        self.digests, self.manifest = _digests(load_bundle(bundle)), load_bundle(bundle).manifest
        self.kinds: dict[str, tuple[list[Path], Callable[[Path, str], tuple[str, str]]]] = {
            "slot": ([run / name for name in SLOTS], self._load_slot),
            "session": ([run / SESSION, run / SESSION_COPY], self._load_session),
            "heartbeat": ([run / HEARTBEAT], self._load_heartbeat),
            "job": ([run / "done" / FINISHED], self._load_job),
            "model": (sorted(bundle.glob("*.pt")), self._load_model),
            "manifest": ([run / name for name in MANIFESTS], self._load_manifest),
            "bundle manifest": ([bundle / "manifest.json"], self._load_model)}

    def try_one(self, kind: str, chance: random.Random) -> tuple[str, str]:
        """Damages one file of a kind, loads, and mends it: ("refused" | "the same" | what is wrong, details)."""
        files, load = self.kinds[kind]
        path = chance.choice(files)
        content = path.read_bytes()
        bad, words = damaged(content, chance)
        if bad == content:
            return "the same", words
        path.write_bytes(bad)
        try:
            with said() as text:
                found, details = load(path, words)
            return found, f"{path.name}: {words}: {details} {text.getvalue()}"
        except VnqError as error:
            is_left = kind in ("slot", "manifest", "session", "heartbeat")  # another state to go on from
            return "no way on" if is_left or path.name not in str(error) else "refused", f"{path.name}: {error}"
        except Exception as error:
            return "no sentence", f"{path.name}: {words}: {type(error).__name__}: {error}"
        finally:
            path.write_bytes(content)

    def _state_without(self, name: str) -> Any:
        kept = (self.run / name).read_bytes()
        (self.run / name).write_bytes(b"")
        state = self.store.load_latest({"job": MIDDLE})[0]
        (self.run / name).write_bytes(kept)
        return state

    def _load_slot(self, path: Path, words: str) -> tuple[str, str]:
        """Of two slots of one job the other is used, and said; a damaged older one is not needed, and is refused."""
        with contextlib.suppress(CheckpointError):
            read_payload(path)
            return "loaded although damaged", words
        state, told = self.store.load_latest({"job": MIDDLE})
        if path.name != self.slot:
            return ("not needed", "") if _equal(state, self.newest) else ("loaded although damaged", words)
        if state is None or not _equal(state, self.older):
            return "no way on", " ".join(told)
        return ("refused", "") if path.name in told[0] and "is used instead" in told[-1] else ("not named", str(told))

    def _load_manifest(self, path: Path, words: str) -> tuple[str, str]:
        """It is for people: the newest state is what it was."""
        state, _ = self.store.load_latest({"job": MIDDLE})
        return ("not needed", "") if _equal(state, self.newest) else ("loaded although damaged", words)

    def _load_heartbeat(self, path: Path, words: str) -> tuple[str, str]:
        """Nobody is taken for another owner because of it, and the session is as it was but for its sign of life."""
        session = Session.load(self.ws, self.run_id)
        with contextlib.suppress(CheckpointError):  # refused: on Drive nothing is written before it has stood still
            if session.is_taken_over(path.parent):
                return "loaded although damaged", words
        got = session.to_dict() | {"heartbeat": self.session["heartbeat"], "drive": self.session["drive"]}
        return ("refused", "") if _equal(got, self.session) else ("loaded although damaged", words)

    def _load_session(self, path: Path, words: str) -> tuple[str, str]:
        got = Session.load(self.ws, self.run_id).to_dict()
        with contextlib.suppress(VnqError):
            read_sealed(path)
            return ("the same", "") if _equal(got, self.session) else ("loaded although damaged", words)
        if not _equal(got, self.session):
            return "loaded although damaged", words
        named = sys.stderr.getvalue()
        return ("refused", "") if path.name in named and "is used instead" in named else ("not named", named)

    def _load_job(self, path: Path, words: str) -> tuple[str, str]:
        try:
            got = self.store.load_done(FINISHED)
        except CheckpointError as error:
            return ("refused", "") if FINISHED in str(error) else ("not named", str(error))
        return ("the same", "") if _equal(got, self.done) else ("loaded although damaged", words)

    def _load_model(self, path: Path, words: str) -> tuple[str, str]:
        try:
            bundle = load_bundle(self.bundle)
        except DeliveryError as error:
            return ("refused", "") if self.bundle.name in str(error) else ("not named", str(error))
        same = _digests(bundle) == self.digests
        if path.name != "manifest.json":
            return ("the same", "") if same else ("loaded although damaged", words)
        return ("the same", "") if bundle.manifest == self.manifest else ("other words or numbers", words)


def _digests(bundle: Bundle) -> dict[str, str]:
    return {family: forecaster.digest() for family, forecaster in bundle.forecasters.items()}


# ----------------------------------------------------------------------------------- damage, and then on to the end
def resume_after_damage(parent: Parent, reference: Reference, tally: Tally, seed: int, *, on_drive: bool) -> None:
    """A killed run with some damaged files goes on to the same bits."""
    chance = picked(seed, "damage", on_drive)
    with folder_for("damage") as folder:
        trial = Trial(folder, "tiny", on_drive)
        ended = parent.run(trial.job("train", every=EVERY, shim={"kill_at": chance.randrange(200, 1200)}))
        if ended["exit"] != -9:
            return
        if on_drive and chance.random() < 0.7:
            trial.lose_machine()
        runs = trial.run_folders()
        if not runs:
            return
        names = (*SLOTS, *MANIFESTS, chance.choice((SESSION, SESSION_COPY)), HEARTBEAT)
        files = [path for name in names if (path := chance.choice(runs) / name).exists()]
        words = []
        for path in chance.sample(files, min(len(files), chance.choice((1, 1, 2)))):
            if path.stat().st_size:
                content, what = damaged(path.read_bytes(), chance)
                path.write_bytes(content)
                words.append(f"{path.name} {what}")
        ended = parent.run(trial.job("go_on", every=EVERY))
        tally.add("runs resumed after damage")
        where = f"damage seed {seed}{' on Drive' if on_drive else ''}, {words}"
        if found := reference.differences(trial, ended["result"]):
            tally.fail(where, found)
        else:
            tally.add("equal bits after damage")


def swap(folder: Path, one: str, other: str) -> None:
    """Each of two files gets the name of the other."""
    shutil.move(folder / one, folder / "between")
    shutil.move(folder / other, folder / one)
    shutil.move(folder / "between", folder / other)
