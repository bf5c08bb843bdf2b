"""What happens now, in one line that is never old: replaced in a terminal and in a notebook, elsewhere said again."""

import contextlib
import contextvars
import html
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

from tqdm import tqdm

from vnq_colab.clock import spell
from vnq_colab.errors import in_notebook

TICK, PAUSE, SILENCE = 1.0, 3.0, 6.0  # [s] between two lines that are replaced; that stay; after which it is said again
WIDTH = 160  # characters of a line that stays, at most

_open: list[SimpleNamespace] = []  # what this process does now, the outermost first
_drawing = threading.RLock()
_said = time.monotonic()  # when something was written last
_bar: tqdm | None = None  # of a terminal


@contextlib.contextmanager
def stage(name: str, *, quiet: bool = False) -> Iterator[None]:
    """Work that takes its time: until it ends, what `now` says is shown, unless it, or a stage around it, is quiet."""
    global _bar
    mine = SimpleNamespace(name=name, quiet=quiet, text="", share=None, left="", began=time.monotonic(), page="")
    _open.append(mine)
    if is_outermost := len(_open) == 1:  # in the context of the cell, to which a notebook gives what is shown
        over = threading.Event()
        ticker = threading.Thread(target=contextvars.copy_context().run, args=(_tick, over), daemon=True)
        ticker.start()
    try:
        yield
    finally:
        _open.remove(mine)
        if is_outermost:
            over.set()
            ticker.join()
            with contextlib.suppress(OSError, ValueError):
                _bar = _bar and _bar.close()
            if mine.page:
                _show("", mine)


def now(text: str, share: float | None = None, left: str = "") -> None:
    """Says what happens now in the innermost stage, how much of it is done [fraction], and how long it still takes."""
    if _open:
        last = _open[-1]
        began = last.began if last.text == text else time.monotonic()
        vars(last).update(text=text, share=share, left=left, began=began)
        _draw()


def erase() -> None:
    """Clears a terminal's line for what is printed next."""
    global _said
    with _drawing, contextlib.suppress(OSError, ValueError):  # nobody may be reading any longer
        _said = time.monotonic()
        if _bar is not None:
            _bar.clear()


def _tick(over: threading.Event) -> None:
    while not over.wait(TICK):
        _draw(is_tick=True)


def _draw(is_tick: bool = False) -> None:
    """Writes the line where it is due."""
    global _said, _bar
    with _drawing, contextlib.suppress(Exception):  # it must stop nothing: a stage may end meanwhile, nobody may read
        last, is_page = _open[-1], in_notebook()
        is_live = is_page or sys.stderr.isatty()
        pause = TICK if is_live else SILENCE if is_tick or last.share is not None else PAUSE
        if any(one.quiet for one in _open) or time.monotonic() - _said < 0.9 * pause:
            return
        _said, took = time.monotonic(), time.monotonic() - last.began
        share = "" if last.share is None else f"{last.share:.0%}, {last.left}".rstrip(", ")
        parts = dict.fromkeys(part for one in _open for part in (one.name, one.text) if part)  # none twice
        text = " · ".join([*parts, *[spell(took)] * (took > PAUSE)])
        if is_page:  # readable on a phone, and in both themes
            done = "" if last.share is None else f'value="{last.share:.3f}"'
            _show(f'<progress aria-label="done" style="width: 100%; max-width: 30em" {done}></progress><br>'
                  f"<b>{share}</b> {html.escape(text)}", _open[0])
            return
        text = " · ".join([share] * bool(share) + [text])
        if not is_live:
            print(text[:WIDTH], file=sys.stderr, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1  # a terminal that does not know it has 80; tqdm would be silent
        _bar = _bar or tqdm(total=1, desc=text, bar_format="{desc}", leave=False, file=sys.stderr, ncols=width, nrows=9)
        _bar.bar_format, _bar.n, _bar.ncols = "|{bar:24}| {desc}" if share else "{desc}", last.share or 0.0, width
        _bar.set_description_str(text)


def _show(text: str, outermost: SimpleNamespace) -> None:
    """On a notebook's page, in place of what was shown of a stage before."""
    is_new, outermost.page = not outermost.page, outermost.page or f"vnq_colab_{time.time_ns()}"
    sys.modules["IPython"].get_ipython().display_pub.publish(
        {"text/html": text, "text/plain": ""}, transient={"display_id": outermost.page}, update=not is_new)
