"""Every error that a user of the library can meet, and where a sentence is said to the person.

VnqError                a sentence for the person: what was found, where, what to do
├── DataError           prices or panel: symbol, day, value found
│   └── RowError        a price file in which a row has to be repaired, or that can be read in two ways
├── ConfigError         a setting or an argument: did you mean ...?
├── SessionError        a run: what differs (data, config, code)
│   └── TakenOverError  a run that another process trains now
├── CheckpointError     a saved state: which file, which was used instead
├── DeliveryError       a bundle: which file, which gate
└── StorageError        a disk or Drive: what could not be written, how to make room
"""

import contextlib
import difflib
import functools
import numbers
import re
import reprlib
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

MOST_WORD, MOST_SIGNS = 250, 2_000  # of a sentence: a path may be that long, a list of names
FIELDS = {"data": "PRICES", **{name: name.replace("-", "_").upper() for name in (
    "index", "as-of", "collect", "families", "folds", "recipe", "symbols", "run", "take-over", "gates", "portfolio",
    "capital", "profile")}}  # of the notebooks' forms, by the flag that asks the same in a terminal
BOOKS = {"prepare": 1, "train": 2, "resume": 3, "validate": 4, "export": 5, "predict": 5}  # by command
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


class VnqError(Exception):
    """What was found, where, and what to do, in one sentence that neither floods the screen nor steers it."""

    def __init__(self, text: str):
        super().__init__(printable(worded(text)))


class DataError(VnqError):
    """Prices or a panel that cannot be used."""


class RowError(DataError):
    """Rows of a price file that only a person can repair or tell apart; such a file is never left out."""


class ConfigError(VnqError):
    """A setting or an argument that cannot be used."""


class SessionError(VnqError):
    """A run that cannot be started, found or continued."""


class TakenOverError(SessionError):
    """A run that another process trains now, so that this one must not write any more."""

    def __init__(self, run_id: str):
        super().__init__(f"run {run_id} was taken over by another process, which goes on with it. This one has stopped "
                         "and writes nothing more.")


class CheckpointError(VnqError):
    """A saved state that does not verify."""


class DeliveryError(VnqError):
    """A bundle that cannot be written, read or used."""


class StorageError(VnqError):
    """A folder that cannot be written, or a disk without room."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name ( Did you mean 'x'?), or with all of a few; else nothing."""
    known = {one.lower(): one for one in known}
    if near := difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6):
        return f" Did you mean {known[near[0]]!r}?"
    return f" Known: {', '.join(known.values())}." if len(known) <= 12 else ""


def name_a_few(names: Iterable[str], most: int = 5) -> str:
    """The first names, and how many more: VNM, HPG and 10 more."""
    names = list(names)
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def printable(text: str) -> str:
    """A text whose control characters are escaped, and in which the middle of endless words is left out, or its own."""
    text = "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text[:MOST_SIGNS * 50])
    text = re.sub(rf"\S{{{MOST_WORD},}}", lambda word: f"{word[0][:60]}...{word[0][-60:]}", text)
    return text if len(text) <= MOST_SIGNS else f"{text[:MOST_SIGNS // 2]} ... {text[-MOST_SIGNS // 2:]}"


def shorten(value: Any) -> str:
    """repr of what was found, the middle of a long one left out, so that no input floods the screen or steers it."""
    try:
        return _REPR.repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        return f"{type(value).__name__} too long to write"


def in_notebook() -> bool:
    """True in a Jupyter kernel, where stderr is painted red; False in a terminal, a script or a subprocess."""
    ipython = sys.modules.get("IPython")  # whoever runs in a notebook has imported it already
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


def worded(text: str) -> str:
    """A sentence; in a notebook with the form's field, or the argument in Python, where it names a terminal's flag."""
    if not in_notebook():
        return text
    text = re.sub(r"python -m vnq_colab (\w+)", lambda call: f"notebook {BOOKS.get(call[1], 1)}", text)
    return re.sub(r"--([a-z-]+)(?:[^-()]*\(in Python: ([^)]*)\))?", lambda flag: FIELDS.get(flag[1]) or flag[2] or
                  f"`{flag[1].replace('-', '_')}=`", text)


def tell(text: str) -> None:
    """Prints a sentence for the person: to stderr, in a notebook to stdout; nobody may be reading any longer."""
    from vnq_colab.progress import erase  # which is made of what stands here

    erase()
    with contextlib.suppress(OSError):
        print(worded(text), file=sys.stdout if in_notebook() else sys.stderr, flush=True)


def guarded(function: types.FunctionType) -> Callable[..., Any]:
    """The function, which asks first whether its arguments are of the types that it declares. Raises ConfigError."""
    import inspect  # takes its time

    from vnq_colab.progress import stage

    signature, hints = inspect.signature(function), typing.get_type_hints(function)

    @functools.wraps(function)
    def guarded(*args: Any, **named: Any) -> Any:
        for name, value in signature.bind(*args, **named).arguments.items():
            alike = (value, 0, 0.0) if isinstance(value, numbers.Number) else (value,)  # numpy's are numbers, too
            with contextlib.suppress(TypeError):  # of a hint that says more than a type, as Callable[[str], None]
                hint = hints.get(name, object)
                if not any(isinstance(one, hint) for one in alike):
                    kind = getattr(hint, "__name__", hint)
                    raise ConfigError(f"{function.__name__}(): {name} = {shorten(value)}: expected {kind}, found "
                                      f"{type(value).__name__}.")
        with stage(function.__name__, quiet=named.get("quiet", False)):
            return function(*args, **named)
    return guarded
