"""The Colab image: its versions, and an environment of them in which the suite and every notebook are run.

`python3.13 -m tests.colab_image [FOLDER]`, from the project's folder; 6 GB, as torch comes with CUDA. What is not the
image's: the patch level of Python, Debian instead of Ubuntu, no GPU, and `google.colab` is `tests/fake_colab.py`.
"""

import argparse
import configparser
import re
import subprocess
import sys
import venv
from pathlib import Path

HOUSE = Path(__file__).parent.parent

# Source: googlecolab/backend-info, 2026-08-19
COLAB_PYTHON = "3.13.15"
COLAB_IMAGE = {
    "torch": "2.11.0", "numpy": "2.1.3", "pandas": "2.2.3", "pyarrow": "18.1.0", "scipy": "1.16.3",
    "scikit-learn": "1.6.1", "matplotlib": "3.10.0", "ipywidgets": "7.7.1", "ipython": "7.34.0", "ipykernel": "6.17.1",
    "nbclient": "0.10.4", "jupytext": "1.19.5", "tqdm": "4.67.3", "gdown": "5.2.2",
    "jinja2": "3.1.6", "psutil": "5.9.5", "requests": "2.32.4",
    "safetensors": "0.8.0", "xgboost": "3.4.1", "lightgbm": "4.6.0", "statsmodels": "0.14.6", "peft": "0.20.0",
    "transformers": "5.15.0", "filelock": "", "rich": "13.9.4", "plotly": "5.24.1", "pytest": "8.4.2",
}
OTHERWISE = {"xgboost-cpu": "xgboost", "jupyterlab": "ipython"}  # what a desktop has, and the image instead of it
NOTEBOOKS = ["tests/test_notebooks.py", "-m", "slow or not slow"]


def wanted() -> list[str]:
    """What the library and its tests need: at the image's version, else as the requirements ask."""
    setup = configparser.ConfigParser()
    setup.read(HOUSE / "setup.cfg", encoding="utf-8")
    lines = setup["options"]["install_requires"].split("\n")
    lines += (HOUSE / "requirements-local.txt").read_text(encoding="utf-8").splitlines()
    asked = {"pyparsing": "pyparsing<3.3"}  # a newer one warns of matplotlib 3.10, and a warning is an error here
    for line in (line.partition("#")[0].strip() for line in lines):
        if line and not line.startswith("-"):
            name = re.match(r"[\w.-]+", line)[0].lower()
            asked[OTHERWISE.get(name, name)] = line
    return sorted(f"{name}=={COLAB_IMAGE[name]}" if COLAB_IMAGE.get(name) else line for name, line in asked.items())


def make(folder: Path) -> Path:
    """The interpreter of an environment with the image's versions, made or brought up to date, and the library."""
    if sys.version_info[:2] != tuple(int(part) for part in COLAB_PYTHON.split(".")[:2]):
        raise SystemExit(f"This is Python {sys.version.split()[0]}, the image has {COLAB_PYTHON}. Run: python3.13 -m "
                         "tests.colab_image")
    if not (python := folder / "bin" / "python").exists():
        venv.create(folder, with_pip=True)
    (folder / "requirements.txt").write_text("\n".join(wanted()) + "\n", encoding="utf-8")
    for words in (["-r", str(folder / "requirements.txt")], ["--no-deps", "-e", str(HOUSE)]):
        subprocess.run([python, "-m", "pip", "install", "--quiet", *words], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HOUSE / ".venv-colab", help="of the environment")
    parser.add_argument("--only", choices=("suite", "notebooks"), help="nothing else")
    options = parser.parse_args()
    python, codes = make(options.folder.resolve()), {}
    for name, words in {"suite": [], "notebooks": NOTEBOOKS, "notebooks again": NOTEBOOKS}.items():
        if name.startswith(options.only or ""):
            print(f"--- {name}", flush=True)
            codes[name] = subprocess.run([python, "-m", "pytest", "-n", "2", "--dist", "loadfile", *words],
                                         cwd=HOUSE).returncode
    results = ", ".join(f"{name} {'failed' if code else 'passed'}" for name, code in codes.items())
    print(f"Python {sys.version.split()[0]} (the image: {COLAB_PYTHON}), {len(wanted())} packages: {results}.")
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main())
