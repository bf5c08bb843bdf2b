"""The notebooks: equal pairs, thin, and executed as they are, twice, in local Jupyter and on a stub of Colab."""

import ast
import configparser
import itertools
import json
import os
import re
from pathlib import Path

import nbclient
import nbformat
import pandas as pd
import pytest

import vnq_colab
from tests import pairs
from tests.fake_colab import write_startup
from vnq_colab.config import SMOKE_SYMBOLS
from vnq_colab.data.prepared import prepare
from vnq_colab.data.synthetic import synthetic_prices
from vnq_colab.layout import WORKSPACE_NAME, Workspace

HOUSE = Path(__file__).parent.parent
TOUR = "00_tour"
ORDER = ("01_prepare", "02_train_all_102", "03_resume", "04_validate", "05_export", "local_cpu_validation")
NEED_A_GPU = ("02_train_all_102", "03_resume")
MOST_CELLS, MOST_LINES, MOST_KNOBS = 10, 8, 4  # cells of code, lines in one, fields of a form
BANNED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.comprehension)
OWN_RULE = "my_rule"  # a person's strategy is a function
EVERY = pytest.mark.parametrize("name", (TOUR, *ORDER))


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(HOUSE / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def plain_python(source: str) -> ast.Module:
    return ast.parse(re.sub(r"^(\s*)%pip .*$", r"\1pass", source, flags=re.MULTILINE))


def address() -> str:
    setup = configparser.ConfigParser()
    setup.read(HOUSE / "setup.cfg", encoding="utf-8")
    return setup["metadata"]["url"]


# --- pairs


def test_notebooks_are_the_tour_and_the_six_of_the_design():
    assert [path.stem for path in pairs.sources()] == sorted((TOUR, *ORDER))


def test_notebooks_equal_what_their_sources_make():
    assert pairs.differing() == [], f"repair with: {pairs.REPAIR}"


def test_pairs_are_made_the_same_each_time_and_seen_when_they_differ(tmp_path, monkeypatch, capsys):
    for source in pairs.sources():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(pairs, "NOTEBOOKS", tmp_path)
    assert pairs.differing() == sorted((TOUR, *ORDER))
    assert pairs.main([]) == 0 and pairs.main(["--check"]) == 0
    made = (tmp_path / "03_resume.ipynb").read_bytes()
    assert pairs.main([]) == 0 and (tmp_path / "03_resume.ipynb").read_bytes() == made
    (tmp_path / "03_resume.ipynb").write_bytes(made.replace(b"Resume", b"Continue"))
    assert pairs.main(["--check"]) == 1
    assert "03_resume. Repair with: python -m tests.pairs" in capsys.readouterr().err


# --- style


@EVERY
def test_notebook_is_valid_and_holds_no_outputs_and_no_widgets(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert [cell.id for cell in notebook.cells] == [f"{name}-{place + 1:02d}" for place in range(len(notebook.cells))]


@EVERY
def test_notebook_is_thin(name):
    assert len(code_cells(name)) <= MOST_CELLS
    for source in code_cells(name):
        lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#@title")]
        assert len(lines) <= MOST_LINES, source
        found = [node for node in ast.walk(plain_python(source)) if isinstance(node, BANNED)]
        assert [node for node in found if getattr(node, "name", "") != OWN_RULE] == [], source
        assert source.count("#@param") <= MOST_KNOBS


@EVERY
def test_notebook_shows_something_at_the_end_of_every_cell(name):
    for source in code_cells(name):
        assert isinstance(plain_python(source).body[-1], ast.Expr), source


@EVERY
def test_notebook_says_above_every_output_what_it_tells(name):
    cells = read(name).cells
    bare = [after.source for before, after in itertools.pairwise(cells) if after.cell_type == "code"
            and not after.source.startswith("#@title") and not re.match(r"## .+\n.{20,}", before.source)]
    assert bare == []


@EVERY
def test_notebook_begins_with_badge_purpose_hardware_time_and_version(name):
    title = read(name).cells[0].source
    assert title.startswith("# ") and f"vnq_colab {vnq_colab.__version__}" in title.splitlines()[0]
    assert "| hardware |" in title and "| expected time |" in title
    assert re.search(r'<img src="data:image/png;base64,[^"]+" width="\d+" alt="[^"]{20,}">', title)
    repository = address().removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{repository}/blob/v{vnq_colab.__version__}/notebooks/{name}.ipynb"
    assert f"({link})" in title


@EVERY
def test_notebook_ends_with_troubleshooting_and_the_tour_with_ones_own_prices(name):
    assert read(name).cells[-1].source.startswith("## Now yours" if name == TOUR else "## If something goes wrong")


def test_notebooks_begin_with_the_same_cell_which_installs_this_very_version():
    first = {code_cells(name)[0] for name in ORDER}
    assert len(first) == 1
    assert all(f"git+{address()}@v{vnq_colab.__version__}" in source for source in (*first, code_cells(TOUR)[0]))


@EVERY
def test_notebook_asks_for_a_gpu_only_where_it_needs_one(name):
    metadata = read(name).metadata
    asked = (metadata.get("accelerator"), metadata.colab.get("gpuType"), metadata.colab.get("machine_shape"))
    assert asked == (("GPU", "T4", None) if name in NEED_A_GPU else (None, None, None))
    assert metadata.kernelspec.name == "python3"


@EVERY
def test_notebook_uses_only_public_names_that_exist(name):
    used = {node.attr for source in code_cells(name) for node in ast.walk(plain_python(source))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vnq"}
    assert used <= {*vnq_colab.__all__, "__version__"}


# --- execution: every notebook in its order, "Run all" once, or twice in one kernel


def run_all(name: str, folder: Path, environment: dict[str, str], times: int = 2) -> list[str]:
    """What the notebook printed and showed, the last time."""
    notebook = read(name)
    once = json.loads(json.dumps(notebook.cells))
    notebook.cells = [nbformat.from_dict(cell | {"id": f"{cell['id']}-{time}"}) for time in range(times)
                      for cell in once]
    path = os.pathsep.join([str(HOUSE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "VNQ_PROFILE": "smoke", "PYTHONPATH": path, **environment}
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3",
                                     resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    shown = []
    said = "".join(output.text for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)
    assert "Warning" not in said, said
    for cell in notebook.cells[-len(once):]:
        for output in cell.get("outputs", []):
            shown.append(output.get("text") or output.data.get("text/html") or output.data.get("text/plain", ""))
        if cell.cell_type == "code":
            kinds = {output.get("name", output.output_type) for output in cell.outputs}
            assert kinds - {"stderr"}, f"nothing to look at: {cell.source}"
    return shown


@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")  # of the notebook client, on Windows
def test_local_notebook_goes_the_whole_way_on_a_synthetic_market(tmp_path):
    home = tmp_path / "home"
    environment = {"VNQ_HOME": str(home), "IPYTHONDIR": str(tmp_path / "ipython")}
    shown = "\n".join(run_all(ORDER[-1], tmp_path, environment, times=1))
    assert str(home) in shown and "SYNTHETIC" in shown
    for pattern in ("models/*/SYN*_stockformer_simple_best.pt", "reports/*/report.html", "checkpoints/*/session.json"):
        assert list(home.glob(pattern)), pattern


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")  # of the notebook client, on Windows
def test_notebooks_run_twice_as_local_jupyter_on_a_synthetic_market(tmp_path):
    home = tmp_path / "home"
    environment = {"VNQ_HOME": str(home), "IPYTHONDIR": str(tmp_path / "ipython")}
    for name in (*ORDER, TOUR):
        shown = "\n".join(run_all(name, tmp_path, environment))
        assert str(tmp_path / "VN-Quant-Tour" if name == TOUR else home) in shown
        assert "SYNTHETIC" in shown, f"{name} does not say that the prices are made up"
    assert len(list((home / "models").glob("*/SYN*_stockformer_simple_best.pt"))) == SMOKE_SYMBOLS + 3
    assert {path.name for path in (home / "models").glob("*/*.pt")} >= {"global.pt", "trees.pt"}
    assert len(list((home / "reports").glob("*/report.html"))) == 2
    assert len(list((home / "checkpoints").glob("*/session.json"))) == 2, "the run and the local check"
    assert len({path.name[:10] for path in (home / "predictions").glob("*.csv")}) == 2, "two evenings"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
def test_notebooks_run_twice_on_colab_with_prices_in_drive(tmp_path):
    write_startup(tmp_path / "ipython", tmp_path)
    drive = tmp_path / "content" / "drive" / "MyDrive"
    environment = {"VNQ_HOME": "", "IPYTHONDIR": str(tmp_path / "ipython")}
    assert str(drive) in "\n".join(run_all("01_prepare", tmp_path, environment)), "an empty Drive is mounted and used"
    today = f"{pd.Timestamp.today():%Y-%m-%d}"
    prices = synthetic_prices(8, 1060, seed=1, last_day=today).assign(
        symbol=lambda table: table["symbol"].str.replace("SYN", "TST"))
    prices.to_parquet(drive / WORKSPACE_NAME / "data" / "raw" / "prices.parquet")
    for name in ORDER[:5]:
        shown = "\n".join(run_all(name, tmp_path, environment))
        assert str(drive / WORKSPACE_NAME) in shown
        assert "SYNTHETIC" not in shown
    assert "Colab machine" in "\n".join(run_all("02_train_all_102", tmp_path, environment))
    assert len(list((drive / WORKSPACE_NAME / "models").glob("*/TST*_stockformer_simple_best.pt"))) == 8
    assert not (tmp_path / WORKSPACE_NAME).exists(), "nothing is written beside Drive"


NO_TIME = """
import dataclasses
import vnq_colab.colab as door
whole = door.describe_machine
door.describe_machine = lambda *words, **choices: dataclasses.replace(whole(*words, **choices), hours_left=0.0)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Proactor event loop:RuntimeWarning")
def test_notebooks_of_a_run_that_pauses_at_once_end_without_an_error(tmp_path):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00_no_time.py").write_text(NO_TIME, encoding="utf-8")
    prepare(Workspace(tmp_path / "home"), synthetic_prices(12, 1060, seed=1))
    environment = {"VNQ_HOME": str(tmp_path / "home"), "IPYTHONDIR": str(tmp_path / "ipython")}
    assert "Not finished: 03_resume goes on" in "\n".join(run_all("02_train_all_102", tmp_path, environment))
    assert "Not finished: run this notebook again" in "\n".join(run_all("03_resume", tmp_path, environment))
