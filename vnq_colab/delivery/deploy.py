"""Deploying: a bundle becomes the champion, or the one before becomes it again, in one change of the pointer."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from vnq_colab.delivery.bundle import Bundle, load_bundle, read_manifest
from vnq_colab.delivery.champion import BUNDLE, Pointer, age, complete_pointer, read_pointer, since, write_pointer
from vnq_colab.delivery.earlier_runs import against_champion
from vnq_colab.errors import DeliveryError, VnqError, did_you_mean, name_a_few, shorten
from vnq_colab.layout import Workspace
from vnq_colab.training.session import RUN_ID


@dataclass(frozen=True, repr=False)
class Deployment:
    """Which bundle is the champion now, and what was done, in words."""

    champion: str | None  # the folder below models/
    previous: str | None  # to which rollback goes back
    changed: bool
    text: str

    def __repr__(self) -> str:
        return self.text


def deploy(ws: Workspace, run: str | None = None, *, force: bool = False) -> Deployment:
    """Makes the challenger, or a bundle of `run`, the champion, if its market was accepted and it is not worse.

    `run` is a run's id or the beginning of one, whose newest bundle is taken, or a bundle's folder. It is compared with
    the champion by what the folds of both forecast of the same days. `force` overrules verdict and comparison, which
    is written down; not damage, another version, or a made-up market where the champion is of a real one. Raises
    VnqError with the reason; nothing is then changed.
    """
    complete_pointer(ws.models)
    pointer = read_pointer(ws.models)
    name = _find(ws.models, run) if run is not None else pointer and pointer["challenger"]
    if name is None or (pointer and name == pointer["champion"]):
        return _unchanged(pointer, run is None)
    bundle = _load(ws.models, name, pointer)
    compared = pointer and against_champion(ws, bundle.manifest, ws.models / pointer["champion"])
    verdict, refusals = bundle.manifest["verdict"], []
    if bundle.market_decision != "accept":
        reasons = verdict["market"]["reasons"][:1] if verdict else []
        refusals.append(" ".join([f"The verdict on its market is {bundle.market_decision}.", *reasons]))
    if compared and compared["worse"]:
        refusals.append(compared["text"])
    if refusals and not force:
        stays = f" The champion stays {pointer['champion']}." if pointer else ""
        remedy = "--force deploys it all the same." if verdict else "Validate its run, then export it again."
        raise DeliveryError(f"{name} is not deployed. {' '.join(refusals)}{stays} {remedy}")
    why = ["By force.", *refusals] if refusals else [f"Its market was accepted by the {verdict['gate_set']} gates."]
    why += [compared["text"]] if compared and not compared["worse"] else []
    waits = pointer and pointer["challenger"] and age(pointer["challenger"]) > age(name)
    return _change(ws.models, pointer, name, "deploy", " ".join(why), waits=waits)


def rollback(ws: Workspace, to: str | None = None) -> Deployment:
    """Makes the champion before, or the bundle `to`, the champion again, once all its hashes are verified.

    `to` is a bundle's folder, or as `run` of `deploy`; without it a second rollback does not go forward again. Another
    bundle than the champion before must be accepted. Raises VnqError with the reason; nothing is then changed.
    """
    was_torn = complete_pointer(ws.models)
    if not (pointer := read_pointer(ws.models)):
        raise DeliveryError(f"{ws.models}: there is no champion yet, and so nothing to go back to.")
    champion, name = pointer["champion"], pointer["previous"]
    if to is not None:
        name = _find(ws.models, to, exact=True)
    elif pointer["by"] == "rollback" and was_torn:
        return Deployment(champion, name, True, f"The rollback to {champion} was interrupted; it is complete now.")
    elif pointer["by"] == "rollback" or name is None:
        others = [one for one in _bundles(ws.models) if one != champion]
        which = f"; a rollback from {name} made it that" if name else ""
        where = f" --to takes one of {name_a_few(others)}." if others else ""
        raise DeliveryError(f"nothing is known to have been before the champion {champion}{which}.{where}")
    if name == champion:
        return _unchanged(pointer)
    bundle = _load(ws.models, name, pointer)
    if name != pointer["previous"] and bundle.market_decision != "accept":
        raise DeliveryError(f"{name} was not the champion before {champion}, and the verdict on its market is "
                            f"{bundle.market_decision}. Take deploy --run {name} --force, if it must be.")
    return _change(ws.models, pointer, name, "rollback", f"Rolled back from {champion}.",
                   waits=name != pointer["challenger"])


def _load(models: Path, name: str, pointer: Pointer | None) -> Bundle:
    """The verified bundle. Raises DeliveryError for one of a made-up market where the champion is of a real one."""
    bundle, champion = load_bundle(models / name), None
    with contextlib.suppress(VnqError):  # the champion is damaged: any whole bundle is better
        champion = pointer and read_manifest(models / pointer["champion"])
    if champion and bundle.manifest["synthetic"] and not champion["synthetic"]:
        raise DeliveryError(f"{name} is of a made-up market, the champion {pointer['champion']} of a real one. It is "
                            "not deployed, not even by force; try it with another --root.")
    return bundle


def _change(models: Path, pointer: Pointer | None, name: str, by: str, why: str, *, waits: bool | None) -> Deployment:
    """The one step; `waits`: the challenger remains one."""
    previous = pointer and pointer["champion"]
    write_pointer(models, champion=name, previous=previous, why=why, by=by, **{} if waits else {"challenger": None})
    back = f" To go back to {previous}: rollback." if previous and by == "deploy" else ""
    return Deployment(name, previous, True, f"The champion is {name} now. {why}{back}")


def _unchanged(pointer: Pointer | None, is_idle: bool = False) -> Deployment:
    """What is said where the champion stays; `is_idle`: there is no challenger."""
    if pointer is None:
        return Deployment(None, None, False, "Nothing to deploy: there is no bundle yet. Validate a run, and export.")
    text = f"{'Nothing to deploy: ' * is_idle}{pointer['champion']} is the champion already, {since(pointer)}."
    return Deployment(pointer["champion"], pointer["previous"], False, text)


def _bundles(models: Path) -> list[str]:
    """The folders of all bundles, oldest first."""
    return sorted((path.parent.name for path in models.glob("*/manifest.json") if BUNDLE.fullmatch(path.parent.name)),
                  key=age)


def _find(models: Path, text: str, *, exact: bool = False) -> str:
    """The bundle that a person names; with `exact` a run's id is its first, else its newest. Raises DeliveryError."""
    names = _bundles(models)
    if text in names and (exact or not RUN_ID.fullmatch(text)):
        return text
    newest = {BUNDLE.fullmatch(name)[1]: name for name in names}
    matches = [text] if text in newest else [run for run in newest if run.startswith(text)]
    if len(matches) != 1:
        problem = f"bundles of {len(matches)} runs begin with" if matches else "there is no bundle of run"
        raise DeliveryError(f"{models}: {problem} {shorten(text)}.{did_you_mean(text, matches or names)}")
    return newest[matches[0]]
