"""Files that rot: flipped bits, cut ends and zeroed blocks in the files of a killed run, which then goes on."""

import random
import shutil
from pathlib import Path

from tests.faults.kills import EVERY, Tally
from tests.faults.trials import Parent, Reference, Trial, folder_for, picked
from vnq_colab.layout import HEARTBEAT, MANIFESTS, SESSION, SESSION_COPY, SLOTS

SHARE_OF_BITS = 0.8  # of the damages are one flipped bit; the others a cut end or a zeroed block


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
