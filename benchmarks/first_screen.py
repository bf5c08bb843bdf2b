"""notebooks/report.png, the report's first screen on a phone: `python -m benchmarks.first_screen REPORT.html`.

Take the report of a finished synthetic run. The notebooks hold the picture too: run `python -m tests.pairs` after it.
Needs Chromium. Twice the pixels that are shown, in few colours: it stays below 120 kB.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).parent.parent / "notebooks" / "report.png"
BROWSER = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
           "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def main(report: str, width: int = 390, height: int = 800) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome") or "chrome"
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([program, *BROWSER, f"--user-data-dir={scratch}", f"--window-size={width},{height}",
                        "--force-device-scale-factor=2", f"--screenshot={PICTURE}", Path(report).resolve().as_uri()],
                       check=True, capture_output=True)
    Image.open(PICTURE).convert("RGB").quantize(64).save(PICTURE, optimize=True)
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])
