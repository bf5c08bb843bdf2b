"""The folders and files that `drive_layout.md` names."""

from pathlib import Path

MAP = Path(__file__).parent.parent / "drive_layout.md"
ROWS = [[cell.strip() for cell in line.strip("|").split("|")]
        for line in MAP.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
PATHS = [row[0].strip("`") for row in ROWS]
FOLDERS = [path.rstrip("/") for path in PATHS if path.endswith("/")]
FILES = [path for path in PATHS if not path.endswith("/")]
