"""The pictures of READMEs and notebooks, from a finished synthetic run: `python -m benchmarks.pictures ROOT`.

Needs Chromium for the report's first screen. Twice the pixels that are shown, in palette colours: each stays below
120 kB.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

import vnq_colab as vnq
from vnq_colab.layout import Workspace

PICTURES = Path(__file__).parent.parent / "notebooks"
BROWSER = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
           "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def first_screen(report: Path, target: Path, width: int = 390, height: int = 800) -> None:
    """The report as a phone shows it first."""
    program = shutil.which("chromium") or shutil.which("google-chrome") or "chrome"
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([program, *BROWSER, f"--user-data-dir={scratch}", f"--window-size={width},{height}",
                        "--force-device-scale-factor=2", f"--screenshot={target}", report.resolve().as_uri()],
                       check=True, capture_output=True)


def main(root: str) -> None:
    ws = Workspace(Path(root))
    session, prepared = vnq.latest_session(ws), vnq.load_prepared(ws)
    validation = vnq.validate(session)
    figures = {"order": vnq.plots.order(validation.order, note=session.note),
               "basket": vnq.plots.basket(validation.basket, note=session.note),
               "coverage": vnq.plots.coverage(prepared.panel, prepared.folds, note=session.note),
               "learning": vnq.plots.learning_curves(session, note=session.note)}
    for name, figure in figures.items():
        figure.savefig(PICTURES / f"{name}.png", dpi=120 if name == "coverage" else 200)
    first_screen(ws.root / "reports" / session.run_id / "report.html", PICTURES / "report.png")
    for name in (*figures, "report"):
        path = PICTURES / f"{name}.png"
        Image.open(path).convert("RGB").quantize(128 if name == "report" else 32).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])
