"""Executes notebooks/00_tour and writes it as a page that can be read without running anything, with its pictures.

    python -m tests.tour [--pictures]   notebooks/00_tour.html; with --pictures also those that the notebooks open with
"""

import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbclient
import nbformat
from nbconvert import HTMLExporter
from PIL import Image

from tests import pairs

HOUSE = pairs.NOTEBOOKS.parent
PAGE = pairs.NOTEBOOKS / "00_tour.html"
MOST_BYTES = 400_000
SHOWN = ("coverage", "order", "basket", "evening")  # in their order; learning curves are drawn beside them
CURVES = "vnq.plots.learning_curves(session, note=session.note)"
STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --paper: #fff; --soft: #5b6670; --pale: #f1f3f5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #14181c; --soft: #a3adb6; --pale: #20262c; } }
body { margin: 0 auto; padding: 12px 16px 48px; max-width: 860px; font: 16px/1.5 system-ui, sans-serif;
  background: var(--paper); color: var(--ink); }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin: 2rem 0 .2rem; } a { color: inherit; }
img { max-width: 100%; height: auto; background: #fff; } .anchor-link, .jp-InputPrompt { display: none; }
pre { font-size: 14px; white-space: pre-wrap; overflow-wrap: anywhere; margin: 4px 0; } code { font-size: .9em; }
details > pre { background: var(--pale); padding: 8px; } summary { color: var(--soft); font-size: 14px; }
table { border-collapse: collapse; font-size: 14px; } th, td { padding: 3px 8px; border-bottom: 1px solid var(--pale); }
input { font: inherit; margin: 4px 0; } .jp-OutputArea-output, .jp-RenderedHTMLCommon { overflow-x: auto; }
"""


def last_of_each_line(text: str) -> str:
    """A stream as a terminal leaves it: of what was written over itself the last."""
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return "\n".join(line for line in lines if line and not re.match(r"job \d+/\d+ ", line)) + "\n"


def executed(folder: Path, extra: str = "") -> nbformat.NotebookNode:
    """The tour, run in `folder` as a person runs it, perhaps with one more cell at its end."""
    notebook = nbformat.reads(pairs.make(pairs.NOTEBOOKS / "00_tour.py"), as_version=4)
    notebook.cells += [nbformat.v4.new_code_cell(extra)] if extra else []
    environment = {**os.environ, "PYTHONPATH": str(HOUSE), "VNQ_HOME": "", "VNQ_PROFILE": ""}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3",
                            resources={"metadata": {"path": str(folder)}}).execute(env=environment)
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    """The PNGs of its outputs, in order."""
    found = [output.data["image/png"] for cell in notebook.cells for output in cell.get("outputs", [])
             if "image/png" in output.get("data", {})]
    return [base64.b64decode(text) for text in found]


def small(content: bytes, width: int = 640) -> bytes:
    """A PNG of that width and 32 colours: a figure needs no more."""
    image, file = Image.open(io.BytesIO(content)).convert("RGB"), io.BytesIO()
    image.resize((width, round(image.height * width / image.width))).quantize(32).save(file, "PNG", optimize=True)
    return file.getvalue()


def _folded(code: re.Match) -> str:
    return f"<details><summary>code</summary><pre>{re.sub('<[^>]+>', '', code[1])}</pre></details>"


def page(notebook: nbformat.NotebookNode, folder: Path) -> str:
    """The executed notebook as one small page: no library from outside, code folded, light and dark."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = last_of_each_line(output.text).replace(str(folder), ".")
            elif "text/html" in output.data:
                output.data["text/html"] = output.data["text/html"].replace(str(folder), ".")
            if "image/png" in output.get("data", {}):
                content = small(base64.b64decode(output.data["image/png"]))
                output.data["image/png"] = base64.b64encode(content).decode()
                output.metadata.setdefault("image/png", {})["width"] = 420
    exporter = HTMLExporter(template_name="basic", exclude_input_prompt=True, exclude_output_prompt=True)
    body, _ = exporter.from_notebook_node(notebook)
    body = re.sub(r'<div class="highlight[^>]*>\s*<pre>(.*?)</pre>\s*</div>', _folded, body, flags=re.DOTALL)
    return ('<!doctype html><html lang="en"><head><meta charset="utf-8"><title>vnq_colab: the tour, executed</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
            f"<main>{body}</main></body></html>\n")


def main(arguments: list[str]) -> int:
    """Executes the tour and writes its page."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        notebook = executed(Path(folder), CURVES if "--pictures" in arguments else "")
        print(f"executed in {time.monotonic() - began:.0f} s")
        if "--pictures" in arguments:
            found = pictures(notebook)
            for name, content in zip((*SHOWN, "learning"), (*found[:len(SHOWN)], found[-1]), strict=True):
                (pairs.NOTEBOOKS / f"{name}.png").write_bytes(small(content, 540))
            notebook.cells.pop()
        text = page(notebook, Path(folder))
    PAGE.write_bytes(text.encode())
    print(f"{PAGE.name}: {len(text.encode()):,} bytes")
    return 0 if len(text.encode()) <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
