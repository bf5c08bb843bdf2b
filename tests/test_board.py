"""The notebook's board, in a real kernel: what arrives while a cell trains, and what is left for later."""

import os
import queue
import time
from pathlib import Path

import jupyter_client
import numpy as np
import pytest

from vnq_colab.notebook import in_notebook
from vnq_colab.training.board import draw_skill, open_board, skill_of

ROOT = Path(__file__).resolve().parents[1]
SETUP = """
import ipywidgets
from dataclasses import replace
import vnq_colab as vnq
from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
ws = vnq.open_workspace("home")
prepared = prepare(ws, synthetic_prices(6, 420, seed=92))
config = vnq.RunConfig.for_machine("smoke")
config = replace(config, train=replace(config.train, epochs=20_000, patience=20_000))
other, changed = ipywidgets.IntText(), []
other.observe(lambda change: changed.append((change.new, "session" in globals())), "value")
"""
TRAIN = "session = vnq.train(ws, prepared.panel, prepared.splits, config); print(session.status, '|', session.why)"


class Notebook:
    """A kernel, and what it sent: texts by stream, widgets by their model's name."""

    def __init__(self, client):
        self.client, self.streams, self.widgets, self.idle = client, {"stdout": "", "stderr": ""}, {}, set()

    def read(self, until, seconds=120):
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, self.streams
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                self.streams[content["name"]] += content["text"]
            elif message["msg_type"] == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif message["msg_type"] == "comm_open":
                self.widgets[content["data"]["state"].get("_model_name")] = content["comm_id"]
            elif message["msg_type"] == "comm_msg" and content["data"].get("method") == "update":
                self.streams["stdout"] += str(content["data"]["state"].get("value", ""))
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                self.idle.add(message["parent_header"]["msg_id"])

    def send(self, widget, data):
        message = self.client.session.msg("comm_msg", {"comm_id": self.widgets[widget], "data": data})
        self.client.shell_channel.send(message)

    def run(self, code):
        asked = self.client.execute(code)
        self.read(lambda: asked in self.idle)


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    manager = jupyter_client.KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield Notebook(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")  # of the kernel's client, on Windows
def test_stop_button_pauses_at_once_and_everything_else_waits_its_turn(notebook):
    """While a cell trains: another widget's message, a queued cell and a press. Only the press is acted upon."""
    notebook.run(SETUP)
    training = notebook.client.execute(TRAIN)
    notebook.read(lambda: "labels/s" in notebook.streams["stdout"])
    notebook.send("IntTextModel", {"method": "update", "state": {"value": 7}, "buffer_paths": []})
    queued = notebook.client.execute("print('changed', changed, session.checkpoint['epoch'] > 0)")
    time.sleep(1)
    assert training not in notebook.idle and queued not in notebook.idle, "nothing but the button stops it"
    pressed = time.monotonic()
    notebook.send("ButtonModel", {"method": "custom", "content": {"event": "click"}})
    notebook.read(lambda: training in notebook.idle)
    assert time.monotonic() - pressed < 20
    notebook.read(lambda: queued in notebook.idle)
    said = notebook.streams["stdout"]
    assert "paused | stopped by the person" in said
    assert "changed [(7, True)] True" in said, "the other widget's message is handled after the cell, before the next"
    notebook.run("config = replace(config, seed=1, train=replace(config.train, epochs=1)); " + TRAIN + "; " + TRAIN)
    assert "finished" in notebook.streams["stdout"] and "nothing to do" in notebook.streams["stdout"]
    assert notebook.streams["stderr"] == "", "a notebook paints it red"


@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
def test_interrupt_of_the_kernel_pauses_too_and_shows_nothing_red(notebook):
    notebook.run(SETUP)
    training = notebook.client.execute(TRAIN)
    notebook.read(lambda: "labels/s" in notebook.streams["stdout"])
    notebook.client.parent.interrupt_kernel()
    notebook.read(lambda: training in notebook.idle)
    assert "paused | stopped by the person" in notebook.streams["stdout"] and notebook.streams["stderr"] == ""


def test_no_board_outside_of_a_notebook():
    assert not in_notebook() and open_board("run", []) is None


def test_skill_is_the_members_mean_share_of_the_no_skill_loss():
    nan = float("nan")
    history = [("AAA", 0, 1, 1.0, 0.5, 0.5), ("AAA", 1, 1, 1.0, 0.4, 0.5), ("AAA", 0, 2, 1.0, 0.6, 0.5),
               ("BBB", 0, 1, 1.0, nan, nan), ("CCC", 0, 1, 1.0, -0.5, -0.1)]
    assert skill_of(history) == {"AAA": {1: pytest.approx(0.9), 2: pytest.approx(1.2)}}


def test_heat_map_is_a_picture_whose_cells_follow_the_skill():
    from io import BytesIO

    from matplotlib.image import imread

    good, bad = ({"AAA": dict.fromkeys(range(1, 6), value)} for value in (0.9, 1.1))
    pictures = [imread(BytesIO(draw_skill(skill)))[:, :, :3] for skill in (good, bad)]
    assert pictures[0].shape == pictures[1].shape
    middles = [picture[picture.shape[0] // 3, picture.shape[1] // 3] for picture in pictures]
    assert middles[0][1] > middles[0][0] and middles[1][1] < middles[1][0], "green below 1, brown above"
    many = draw_skill({f"S{number:03d}": dict.fromkeys(range(1, 31), 1.0) for number in range(102)})
    assert len(many) < 100_000 and np.isfinite(imread(BytesIO(many))).all()
