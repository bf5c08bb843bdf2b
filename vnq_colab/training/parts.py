"""One run on several machines: each trains a part of the symbols as a run of its own, and the parts become one run."""

import re
from typing import Any

import numpy as np

from vnq_colab.data.panel import Panel
from vnq_colab.data.splits import DayRange
from vnq_colab.errors import ConfigError, SessionError
from vnq_colab.training.loop import deliver
from vnq_colab.training.runs import sessions
from vnq_colab.training.session import Session


def parse_part(text: str) -> tuple[int, int]:
    """"1/2" -> (1, 2): the first of two parts."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise ConfigError(f"part {text!r}: write it as 1/2 for the first of two machines, 2/2 for the second.")
    return number, of


def symbols_of_part(panel: Panel, train_days: DayRange, symbols: list[str], part: tuple[int, int]) -> list[str]:
    """The symbols of one part: dealt by the length of their history, the same on every machine."""
    history = (panel.select(symbols).present & train_days.mask(panel.days)).sum(axis=1)
    if part[1] > len(symbols):
        raise ConfigError(f"{part[1]} parts of {len(symbols)} symbols: one of them is empty. Take fewer parts.")
    dealt = np.argsort(-history, kind="stable")[part[0] - 1::part[1]]
    return [symbols[row] for row in sorted(dealt)]


def whole_run(session: Session) -> Session:
    """The run that a part belongs to, made when all its parts are finished; any other session as it is.

    Its packs stay in the folders of the parts. Raises SessionError while a part is missing or not finished.
    """
    if session.part is None:
        return session
    of = session.part[1]
    found: dict[int, Session] = {}
    for other in sessions(session.ws):
        if other.part and other.part[1] == of and not other.is_refit and (
                other.config.config_id, other.data_id, other.days) == (
                session.config.config_id, session.data_id, session.days):
            found[other.part[0]] = other  # the newest of that number
    for number in range(1, of + 1):
        if number not in found:
            raise SessionError(f"run {session.run_id} is one of {of} parts, and part {number} is not there. Train it "
                               f"with --part {number}/{of}.")
        if found[number].status != "finished":
            raise SessionError(f"run {session.run_id} is one of {of} parts, and part {number} is "
                               f"{found[number].status}. Go on with: resume --run {found[number].run_id}")
    return _merged([found[number] for number in sorted(found)])


def _merged(parts: list[Session]) -> Session:
    first = parts[0]
    run_id = first.run_id.partition("-part")[0]
    packs: list[dict[str, Any]] = []
    ledger: dict[str, dict[str, Any]] = {}
    for part in parts:
        packs += [pack | {"done": _seen_from_outside(part, pack["done"])} for pack in part.packs]
        ledger |= {symbol: row | ({"file": _seen_from_outside(part, row["file"])} if "file" in row else {})
                   for symbol, row in part.ledger.items()}
    sequence = 0
    if any(home.checkpoint_folder(run_id).exists() for home in (first.ws.local, first.ws)):
        stored = Session.load(first.ws, run_id)
        if stored.ledger == ledger:
            return stored
        sequence = stored.sequence  # a part was trained anew: what is merged now comes after what was
    session = Session.create(
        first.ws, first.config, run_id, data_id=first.data_id, days=first.days, packs=packs, ledger=ledger,
        start=first.start and first.start | {"done": _seen_from_outside(first, first.start["done"])},
        skipped=first.skipped, synthetic=first.synthetic, machine=first.machine, status="finished", sequence=sequence,
        why=f"merged from {len(parts)} parts", attempts=[attempt for part in parts for attempt in part.attempts],
        seconds={name: sum(part.seconds[name] for part in parts) for name in first.seconds})
    for part in parts:
        session.add_history(list(part.history.itertuples(index=False, name=None)))
    deliver(session)
    return session


def _seen_from_outside(part: Session, name: str) -> str:
    return f"../{part.run_id}/{name}"
