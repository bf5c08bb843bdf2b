"""The project's address and version in every text that names them: to publish, edit `url` in setup.cfg, then run this.

    python -m tests.address              write both into the READMEs, the citation and the notebooks' sources
    python -m tests.address --pages      the README for PyPI, where its links and pictures must be whole addresses
    python -m tests.address --dist DIR   what a wheel and a source archive hold, before they are published
"""

import configparser
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import vnq_colab

HOUSE = Path(__file__).parent.parent
REPAIR = "python -m tests.pairs"
NOT_IN_A_WHEEL = re.compile(r"^(?!vnq_colab(-[\d.]+\.dist-info)?/)|\.(pyc|csv|parquet|pt|ipynb|env|pem|key)$")
NOT_IN_AN_ARCHIVE = re.compile(r"(^|/)VN-Quant-|\.(pyc|parquet|pt|env|pem|key)$")
IN_AN_ARCHIVE = ("LICENSE", "README.md", "README.vi.md", "CHANGELOG.md", "SECURITY.md", "CITATION.cff", "setup.cfg",
                 "requirements-local.txt", "requirements-run.txt", "notebooks/01_prepare.ipynb", "tests/conftest.py",
                 "tests/tiny.py")


def address(house: Path = HOUSE) -> str:
    """`url` of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(house / "setup.cfg", encoding="utf-8")
    return setup["metadata"]["url"]


def texts() -> list[Path]:
    """The files that repeat the address or the version: everything else asks setup.cfg."""
    notebooks = sorted(path for path in (HOUSE / "notebooks").iterdir() if path.suffix in (".py", ".html"))
    return [*sorted(HOUSE.glob("*.md")), HOUSE / "CITATION.cff", *notebooks]


def addressed(text: str, url: str, version: str = vnq_colab.__version__) -> str:
    """The text with this address and version: plain, in a badge, at a tag, in a notebook's title, in the citation."""
    place = url.removeprefix("https://github.com/")
    text = re.sub(r"(github(?:usercontent)?(?:\.com)?/)[\w.-]+/vnq_colab\b", rf"\g<1>{place}", text)
    text = re.sub(r"(/vnq_colab(?:@v|/blob/v|/v)|\(vnq_colab )\d+\.\d+\.\d+\b", rf"\g<1>{version}", text)
    return re.sub(r"^version: \S+$", f"version: {version}", text, flags=re.MULTILINE)


def paged(text: str, url: str, version: str = vnq_colab.__version__) -> str:
    """A README whose relative links and pictures are whole addresses, as a page outside the repository needs them."""
    raw = url.replace("github.com", "raw.githubusercontent.com")
    text = re.sub(r'src="(?!https?:)', f'src="{raw}/v{version}/', text)
    return re.sub(r"\]\((?!https?:|#)", f"]({url}/blob/v{version}/", text)


def wrong_in(folder: Path) -> list[str]:
    """What should not be, or is missing, in the one wheel and the one source archive of a folder."""
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    packed = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(archive) as opened:
        kept = {name.partition("/")[2] for name in opened.getnames()}
    own = {path.relative_to(HOUSE).as_posix() for path in (HOUSE / "vnq_colab").rglob("*")
           if path.suffix in (".py", ".html", ".js", ".css")}
    return ([f"{wheel.name} holds {name}" for name in packed if NOT_IN_A_WHEEL.search(name)]
            + [f"{wheel.name} lacks {name}" for name in sorted(own - {*packed})]
            + [f"{archive.name} holds {name}" for name in kept if NOT_IN_AN_ARCHIVE.search(name)]
            + [f"{archive.name} lacks {name}" for name in sorted({*IN_AN_ARCHIVE, *own} - kept)])


def main(arguments: list[str]) -> int:
    """Writes the texts; or the README for PyPI; or looks at what was built."""
    if "--dist" in arguments:
        wrong = wrong_in(Path(arguments[-1]))
        print("\n".join(wrong) or "the wheel and the source archive hold what they should")
        return 1 if wrong else 0
    change = paged if "--pages" in arguments else addressed
    for path in [HOUSE / "README.md"] if change is paged else texts():
        text = path.read_text(encoding="utf-8")
        if (changed := change(text, address())) != text:
            path.write_bytes(changed.encode("utf-8"))
            print(path.relative_to(HOUSE).as_posix())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
