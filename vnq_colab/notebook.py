"""Whether this process is the kernel of a notebook, and where to say something there."""

import contextlib
import sys
from typing import Any


def kernel_of_notebook() -> Any | None:
    """The Jupyter kernel that this process is; None in a terminal, a script or a subprocess."""
    ipython = sys.modules.get("IPython")  # whoever runs in a notebook has imported it already
    return getattr(ipython.get_ipython(), "kernel", None) if ipython is not None else None


def in_notebook() -> bool:
    """True in a notebook, where stderr is painted red and says less than it seems to."""
    return kernel_of_notebook() is not None


def tell(text: str) -> None:
    """Prints a sentence for the person: to stderr, in a notebook to stdout; nobody may be reading any longer."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stdout if in_notebook() else sys.stderr, flush=True)
