"""The board of a notebook: where training stands, a heat map of what each symbol has learnt, and a Stop button.

While a cell runs, the kernel reads no messages, so that a press of the button would wait until training is over.
`Board.listen` therefore looks between two steps at what has arrived: a press of this button is taken out, everything
else is handed on, in its order, to be handled when the cell has ended, as if nobody had looked.
"""

import html
import importlib.util
import io
import math
import threading
import time
from typing import Any

import numpy as np

from vnq_colab.notebook import in_notebook, kernel_of_notebook

LISTEN_SECONDS = 0.25
PICTURE_SECONDS = 5  # between two heat maps, at least; and so rarely that drawing takes at most 2 % of the time
PICTURE_SHARE = 0.02
DELIMITER = b"<IDS|MSG>"  # between addresses and message. Source: Jupyter messaging specification, wire protocol
STOP_ELSEWHERE = "Kernel > Interrupt (Colab: Runtime > Interrupt execution)"

Skill = dict[str, dict[int, float]]  # symbol: epoch: validation loss / no-skill loss, mean over members


def open_board(title: str, stop: list[str]) -> "Board | None":
    """The board, shown below this cell; None outside of notebooks, without ipywidgets, or off the main thread."""
    if not in_notebook() or importlib.util.find_spec("ipywidgets") is None:
        return None
    return Board(title, stop) if threading.current_thread() is threading.main_thread() else None


class Board:
    """Three widgets, one below the other. A press of its button puts a reason into `stop`."""

    def __init__(self, title: str, stop: list[str]):
        import ipywidgets
        from IPython.display import display

        self._stop, self._skill = stop, {}
        self._drawn, self._pause, self._heard = time.monotonic(), PICTURE_SECONDS, time.monotonic()
        self._text = ipywidgets.HTML(html.escape(title))
        self._picture = ipywidgets.Image(format="png")
        self._button = ipywidgets.Button(description="Stop", icon="stop")
        self._button.on_click(self._pressed)
        self._stream = _stream_of_messages(kernel_of_notebook())
        hint = ipywidgets.HTML(html.escape(
            f"saves a checkpoint and pauses, as {STOP_ELSEWHERE} does" if self._stream is not None else
            f"To pause with a checkpoint: {STOP_ELSEWHERE}"))
        row = ipywidgets.HBox([self._button, hint] if self._stream is not None else [hint])
        self._box = ipywidgets.VBox([self._text, row])
        display(self._box)

    def show(self, text: str) -> None:
        """Replaces the line of text."""
        self._text.value = html.escape(text)

    def listen(self) -> None:
        """Takes presses of the button out of what has arrived for the kernel; cheap enough for every step."""
        now = time.monotonic()
        if self._stream is None or now - self._heard < LISTEN_SECONDS:
            return
        self._heard = now
        import zmq

        arrived: list[list[Any]] = []
        before = self._stream._recv_callback
        self._stream.on_recv(arrived.append, copy=False)
        try:
            self._stream.flush(zmq.POLLIN)
        finally:
            self._stream.on_recv(before, copy=False)
            for frames in arrived:
                if self._is_press(frames):
                    self._button.click()
                else:
                    self._stream._run_callback(before, frames)

    def draw(self, history: list[tuple], *, now: bool = False) -> None:
        """Adds the learning curves of a pack; draws the heat map anew when the last one is old enough, or `now`."""
        self._skill |= skill_of(history)
        started = time.monotonic()
        if not self._skill or (not now and started - self._drawn < self._pause):
            return
        self._picture.value = draw_skill(self._skill)
        self._drawn = time.monotonic()
        self._pause = max(PICTURE_SECONDS, (self._drawn - started) / PICTURE_SHARE)
        if self._picture not in self._box.children:
            self._box.children = (*self._box.children, self._picture)

    def close(self, text: str) -> None:
        """The last words; the button goes."""
        self.show(text)
        self._box.children = tuple(part for part in (self._text, self._picture) if part in self._box.children)

    def _pressed(self, _button: object = None) -> None:
        if not self._stop:
            self._stop.append("stopped by the person")
            self._button.disabled, self._button.description = True, "Stopping"

    def _is_press(self, frames: list[Any]) -> bool:
        """True for a signed message that this button was pressed. Others are looked at, but stay valid."""
        session = kernel_of_notebook().session
        parts = [bytes(frame) for frame in frames]
        if DELIMITER not in parts or len(parts) < (at := parts.index(DELIMITER)) + 6:
            return False
        if session.unpack(parts[at + 2])["msg_type"] != "comm_msg":
            return False
        if session.unpack(parts[at + 5]).get("comm_id") != self._button.comm.comm_id:
            return False
        try:
            content = session.deserialize(parts[at + 1:])["content"]
        except ValueError:  # a wrong signature: the kernel will say so
            return False
        return content["data"].get("content") == {"event": "click"}


def _stream_of_messages(kernel: Any) -> Any | None:
    """The ZMQ stream through which shell messages reach the main thread; None in a kernel that is built otherwise.

    ipykernel 6 reads the shell channel itself; ipykernel 7 in a thread of its own, which hands on through a pair.
    """
    thread = getattr(kernel, "shell_channel_thread", None)
    pair = getattr(getattr(thread, "manager", None), "_shell_channel_to_main", None)
    stream = getattr(pair, "to_stream", None) if thread is not None else getattr(kernel, "shell_stream", None)
    known = all(hasattr(stream, name) for name in ("flush", "on_recv", "_recv_callback", "_run_callback"))
    return stream if known else None


def skill_of(history: list[tuple]) -> Skill:
    """From rows (symbol, member, epoch, train_loss, valid_loss, no_skill): below 1 is better than no skill."""
    sums: dict[tuple[str, int], list[float]] = {}
    for symbol, _, epoch, _, valid, no_skill in history:
        if no_skill > 0 and math.isfinite(valid):
            sums.setdefault((symbol, epoch), []).append(valid / no_skill)
    skill: Skill = {}
    for (symbol, epoch), shares in sums.items():
        skill.setdefault(symbol, {})[epoch] = sum(shares) / len(shares)
    return skill


def draw_skill(skill: Skill) -> bytes:
    """The heat map as a PNG: a row per symbol, a column per epoch, green where it is better than no skill."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    symbols = sorted(skill)
    shares = np.full((len(symbols), max(max(epochs) for epochs in skill.values())), np.nan)  # [symbols, epochs]
    for row, symbol in enumerate(symbols):
        for epoch, share in skill[symbol].items():
            shares[row, epoch - 1] = share
    figure = Figure(figsize=(8, 1.3 + 0.11 * len(symbols)), dpi=80, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.subplots()
    picture = axes.imshow(shares, aspect="auto", interpolation="nearest", cmap="BrBG_r", vmin=0.9, vmax=1.1,
                          extent=(0.5, shares.shape[1] + 0.5, len(symbols) - 0.5, -0.5))
    axes.set_facecolor("0.85")  # where it had stopped learning
    axes.set_yticks(range(len(symbols)), symbols, fontsize=6)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch")
    figure.colorbar(picture, ax=axes, extend="both", label="validation loss / no skill")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
