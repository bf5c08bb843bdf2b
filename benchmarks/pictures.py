"""The two pictures of the READMEs, from a finished run of the synthetic market: `python -m benchmarks.pictures ROOT`.

Needs Chromium. Twice the pixels that are shown, in palette colours: each stays below 120 kB.
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
                        "--force-device-scale-factor=2",
                        f"--screenshot={target}", report.resolve().as_uri()], check=True, capture_output=True)


def small(path: Path) -> None:
    """The same picture in at most 128 colours."""
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main(root: str) -> None:
    ws = Workspace(Path(root))
    session = vnq.latest_session(ws)
    validation = vnq.validate(session)
    figure = vnq.plots.order(validation.order, note=session.note)
    figure.savefig(PICTURES / "order.png", dpi=200)
    first_screen(ws.root / "reports" / session.run_id / "report.html", PICTURES / "report.png")
    for name in ("order.png", "report.png"):
        small(PICTURES / name)


if __name__ == "__main__":
    main(sys.argv[1])
