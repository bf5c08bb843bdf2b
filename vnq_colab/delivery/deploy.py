"""Deploying: a bundle becomes the champion, or the one before becomes it again, in one change of the pointer."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from vnq_colab.delivery.bundle import Bundle, load_bundle, read_manifest
from vnq_colab.delivery.champion import BUNDLE, Pointer, age, complete_pointer, read_pointer, since, write_pointer
from vnq_colab.delivery.earlier_runs import against_champion
from vnq_colab.errors import DeliveryError, VnqError, did_you_mean, shorten
from vnq_colab.layout import Workspace
from vnq_colab.training.session import RUN_ID


@dataclass(frozen=True, repr=False)
class Deployment:
    """Which bundle is the champion now, and what was done, in words."""

    champion: str | None  # the folder below models/
    previous: str | None
    changed: bool
    text: str

    def __repr__(self) -> str:
        return self.text


def deploy(ws: Workspace, run: str | None = None, *, force: bool = False) -> Deployment:
    """Makes the challenger, or a bundle of `run`, the champion, if its market was accepted and it is not worse.

    `run` is a run's id or the beginning of one, whose newest bundle is taken, or a bundle's folder. It is compared with
    the champion by what the folds of both forecast of the same days, and must be comparable. `force` overrules verdict
    and comparison, which is written down; not damage, another version, or a made-up market in place of a real one.
    Raises VnqError with the reason; nothing is then changed.
    """
    pointer = None
    with contextlib.suppress(*[DeliveryError] * (run is not None)):  # a damaged one is what this mends
        complete_pointer(ws.models)
        pointer = read_pointer(ws.models)
    name = _find(ws.models, run) if run is not None else pointer and pointer["challenger"]
    if name is None or (pointer and name == pointer["champion"]):
        return _unchanged(pointer)
    bundle = _load(ws.models, name, pointer)
    verdict, market, compared = bundle.manifest["verdict"], bundle.market_decision, {"worse": False, "text": ""}
    if pointer:
        compared = against_champion(ws, bundle.manifest, ws.models / pointer["champion"])
    reasons = verdict["market"]["reasons"][:1] if verdict and market != "accept" else []
    why = " ".join([f"The verdict on its market is {market}.", *reasons, compared["text"]]).strip()
    if market != "accept" or compared["worse"] is not False:
        if not force:
            remedy = "--force deploys it all the same." if verdict else "Validate its run, then export it again."
            raise DeliveryError(f"{name} is not deployed. {why} {remedy}")
        why = f"By force. {why}"
    waits = pointer and pointer["challenger"] and age(pointer["challenger"]) > age(name)
    return _change(ws.models, pointer, name, "deploy", why, {} if waits else {"challenger": None})


def rollback(ws: Workspace, to: str | None = None) -> Deployment:
    """Makes the champion before, or the bundle `to`, the champion again, once all its hashes are verified.

    `to` is a bundle's folder, or as `run` of `deploy`; it must be accepted, unless it is the champion before. Without
    it a second rollback does not go forward again. Raises VnqError with the reason; nothing is then changed.
    """
    was_torn, pointer = complete_pointer(ws.models), read_pointer(ws.models)
    if pointer is None:
        raise DeliveryError(f"{ws.models}: there is no champion yet, and so nothing to go back to.")
    champion, name = pointer["champion"], pointer["previous"]
    if to is not None:
        name = _find(ws.models, to, exact=True)
    elif pointer["by"] == "rollback" and was_torn:  # of this one, which was killed
        return _unchanged(pointer)
    elif pointer["by"] == "rollback" or name is None:
        came = f" It came by a rollback from {name}; rollback --to {name} undoes that." if name else ""
        raise DeliveryError(f"nothing is known to have been before the champion {champion}.{came}")
    if name == champion:
        return _unchanged(pointer)
    decision = _load(ws.models, name, pointer).market_decision
    if name != pointer["previous"] and decision != "accept":
        raise DeliveryError(f"{name} is not the champion before, and the verdict on its market is {decision}. "
                            f"Only deploy --run {name} --force takes it.")
    return _change(ws.models, pointer, name, "rollback", f"Rolled back from {champion}.",
                   {"challenger": None} if name == pointer["challenger"] else {})


def _load(models: Path, name: str, pointer: Pointer | None) -> Bundle:
    """The verified bundle. Raises DeliveryError for one of a made-up market where the champion is of a real one."""
    bundle, champion = load_bundle(models / name), None
    with contextlib.suppress(VnqError):  # the champion is damaged: any whole bundle is better
        champion = pointer and read_manifest(models / pointer["champion"])
    if champion and bundle.manifest["synthetic"] and not champion["synthetic"]:
        raise DeliveryError(f"{name} is of a made-up market, the champion {pointer['champion']} of a real one. "
                            "Try it in another folder (--root).")
    return bundle


def _change(models: Path, pointer: Pointer | None, name: str, by: str, why: str, rest: dict[str, None]) -> Deployment:
    previous = pointer and pointer["champion"]
    write_pointer(models, champion=name, previous=previous, why=why, by=by, **rest)
    return Deployment(name, previous, True, f"{name} is the champion now. {why}")


def _unchanged(pointer: Pointer | None) -> Deployment:
    if pointer is None:
        return Deployment(None, None, False, "Nothing to deploy: no bundle was exported yet.")
    return Deployment(pointer["champion"], pointer["previous"], False,
                      f"Nothing to do: {pointer['champion']} is the champion, {since(pointer)}.")


def _find(models: Path, text: str, *, exact: bool = False) -> str:
    """The bundle that a person names; with `exact` a run's id is its first, else its newest. Raises DeliveryError."""
    names = sorted((path.parent.name for path in models.glob("*/manifest.json") if BUNDLE.fullmatch(path.parent.name)),
                   key=age)
    if text in names and (exact or not RUN_ID.fullmatch(text)):
        return text
    newest = {BUNDLE.fullmatch(name)[1]: name for name in names if name.startswith(text)}  # by run
    if len(newest) != 1:
        problem = f"bundles of {len(newest)} runs begin with" if newest else "there is no bundle of run"
        raise DeliveryError(f"{models}: {problem} {shorten(text)}.{did_you_mean(text, newest or names)}")
    return next(iter(newest.values()))
