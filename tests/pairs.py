"""Makes each notebook's .ipynb from its .py (py:percent), which is the source: `python -m tests.pairs [--check]`.

The same source gives the same bytes: no outputs, and cell ids made of the file's name and the cell's place.
"""

import base64
import json
import re
import sys
from pathlib import Path

import jupytext

from tests import address

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PICTURES, PICTURE = NOTEBOOKS, re.compile(r'src="([\w-]+\.png)"')
REPAIR = "python -m tests.pairs"
KEPT_METADATA = ("accelerator", "colab", "kernelspec")


def sources() -> list[Path]:
    """The .py of every notebook, in the order in which they are run."""
    return sorted(NOTEBOOKS.glob("*.py"))


def make(source: Path) -> str:
    """The text of the .ipynb that belongs to a .py."""
    read = jupytext.read(source, fmt="py:percent")
    metadata = {name: read.metadata[name] for name in KEPT_METADATA if name in read.metadata}
    cells = []
    for place, cell in enumerate(read.cells, start=1):
        made = {"cell_type": cell.cell_type, "id": f"{source.stem}-{place:02d}", "metadata": dict(cell.metadata)}
        if cell.cell_type == "code":
            made |= {"execution_count": None, "outputs": []}
        source_text = PICTURE.sub(embedded, cell.source) if cell.cell_type == "markdown" else cell.source
        cells.append(made | {"source": source_text.splitlines(keepends=True)})
    notebook = {"cells": cells, "metadata": metadata | {"language_info": {"name": "python"}}, "nbformat": 4,
                "nbformat_minor": 5}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def embedded(picture: re.Match) -> str:
    """The `src` of a picture that lies beside the notebooks, as the picture itself, seen wherever it is opened."""
    return f'src="data:image/png;base64,{base64.b64encode((PICTURES / picture[1]).read_bytes()).decode()}"'


def differing() -> list[str]:
    """The notebooks whose .ipynb is not what their .py makes, or that have only one of the two."""
    wrong = {path.stem for path in NOTEBOOKS.glob("*.ipynb")} ^ {path.stem for path in sources()}
    for source in sources():
        target = source.with_suffix(".ipynb")
        if target.exists() and target.read_bytes() != make(source).encode("utf-8"):
            wrong.add(source.stem)
    return sorted(wrong)


def main(arguments: list[str]) -> int:
    """Writes the address of setup.cfg into the sources, then every .ipynb; with --check only says what differs."""
    if "--check" in arguments:
        wrong = differing()
        if wrong:
            print(f"Not what their .py makes: {', '.join(wrong)}. Repair with: {REPAIR}", file=sys.stderr)
        return 1 if wrong else 0
    address.main([])
    for source in sources():
        source.with_suffix(".ipynb").write_bytes(make(source).encode("utf-8"))
        print(source.with_suffix(".ipynb").name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
