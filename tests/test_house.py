"""The house itself: floors, public names, sizes, requirements, the README's commands."""

import ast
import configparser
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import vnq_colab
from tests import address
from tests.colab_image import COLAB_IMAGE, COLAB_PYTHON, wanted

HOUSE = Path(__file__).parent.parent
PACKAGE = HOUSE / "vnq_colab"
MODULES = sorted(PACKAGE.rglob("*.py"))
SETUP = configparser.ConfigParser()
SETUP.read(HOUSE / "setup.cfg", encoding="utf-8")

FLOORS = {"errors": 0, "clock": 0, "files": 0, "layout": 0, "notebook": 0, "settings": 0, "config": 0,
          "progress": 0, "recipes": 0, "data": 1, "models": 2, "evaluation": 2, "training": 3, "delivery": 4,
          "arguments": 5, "colab": 5, "commands": 5, "__main__": 6}
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 50


def name_of(path: Path) -> str:
    """"data.prices" for vnq_colab/data/prices.py; a folder's __init__ has the folder's name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """(what is imported, whether that happens at the import of the module itself)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {node for function in ast.walk(tree) if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
              for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node not in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import in full"
            for alias in node.names:
                # `from vnq_colab.data import prices` imports the module vnq_colab.data.prices
                yield (f"{node.module}.{alias.name}" if node.module.startswith("vnq_colab") or node.module == "google"
                       else node.module), node not in inside


def public_definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Those without a description in a decorator, such as `@feature("log(close / close of the day before)", ...)`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            marks = (getattr(mark.func, "id", "") for mark in node.decorator_list if isinstance(mark, ast.Call))
            if "feature" not in marks:
                yield node


def requirements(file: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in (HOUSE / file).read_text(encoding="utf-8").splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {requirement.name.lower(): requirement for requirement in found}


def install_requires() -> dict[str, Requirement]:
    found = [Requirement(line) for line in SETUP["options"]["install_requires"].split("\n") if line.strip()]
    return {requirement.name.lower(): requirement for requirement in found}


# --- floors


def test_floors_have_a_place_for_every_room():
    assert {room_of(name_of(path)) for path in MODULES} - {""} <= set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_floors_are_respected_by_every_import(path):
    module = name_of(path)
    floor = FLOORS.get(room_of(module), -1)
    for imported, _ in imports_of(path):
        if not imported.startswith("vnq_colab") or imported in ("vnq_colab", "vnq_colab.__version__"):
            continue
        other = room_of(imported.removeprefix("vnq_colab."))
        assert other in FLOORS, f"{module} imports {imported}: import it from the module where it is defined"
        same_room = other == room_of(module) or (FLOORS[other] == floor and floor in (0, 5))
        assert FLOORS[other] < floor or same_room, f"{module}, floor {floor}, imports {imported}, floor {FLOORS[other]}"


@pytest.mark.parametrize("path", [path for path in MODULES if FLOORS.get(room_of(name_of(path)), 0) == 0], ids=name_of)
def test_ground_floor_imports_only_the_standard_library(path):
    own = {*sys.stdlib_module_names, "vnq_colab", *["tqdm"] * (path.stem == "progress")}
    assert {name for name, _ in imports_of(path) if name.partition(".")[0] not in own} == set()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_google_colab_is_imported_by_the_door_only_and_only_when_needed(path):
    found = [at_top for name, at_top in imports_of(path) if name.startswith("google")]
    assert not found or name_of(path) == "colab"
    assert not any(found)


@pytest.mark.parametrize("path", sorted((PACKAGE / "evaluation").glob("*.py")), ids=name_of)
def test_evaluation_never_imports_torch(path):
    assert not [name for name, _ in imports_of(path) if name.partition(".")[0] == "torch"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_optional_packages_are_imported_where_they_are_needed(path):
    known = {*sys.stdlib_module_names, "vnq_colab", *install_requires()}
    optional = {name for name, at_top in imports_of(path) if at_top and name.partition(".")[0] not in known}
    assert optional == set(), f"{name_of(path)}: import it in the function, with the install line in the error"


# --- names and sizes


def test_public_names_are_sorted_and_resolve():
    assert vnq_colab.__all__ == sorted(set(vnq_colab.__all__))
    missing = []
    for name in vnq_colab.__all__:
        try:
            getattr(vnq_colab, name)
        except (ImportError, AttributeError) as error:
            missing.append(f"{name}: {error}")
    assert missing == []
    assert set(vnq_colab.__all__) <= set(dir(vnq_colab))


def test_public_names_are_those_that_notebooks_and_readme_use():
    texts = [path.read_text(encoding="utf-8") for path in (HOUSE / "README.md", *HOUSE.glob("notebooks/*.py"))]
    used = set(re.findall(r"\bvnq\.(\w+)", "\n".join(texts)))
    for_programs = {"VN102", "build_panel", "forecast", "graph_bundle", "load_prices"}
    assert set(vnq_colab.__all__) - used == for_programs


def test_public_names_refuse_what_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'predict_the_future'"):
        vnq_colab.predict_the_future  # noqa: B018


def test_import_of_the_package_loads_neither_torch_nor_pandas_nor_numpy():
    code = "import sys, vnq_colab; print([name for name in ('torch', 'pandas', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HOUSE, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_stay_short_and_have_a_name_of_their_own(path):
    assert path.stem not in ("utils", "helpers", "common", "misc")
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines <= MOST_LINES, f"{name_of(path)} has {n_lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_fit_on_a_screen(path):
    functions = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_functions_and_classes_say_what_they_do(path):
    silent = [node.name for node in public_definitions(path) if not ast.get_docstring(node)]
    assert silent == []
    overlong = [node.name for node in public_definitions(path) if len(ast.get_docstring(node).splitlines()[0]) > 120]
    assert overlong == []


def test_style_is_what_ruff_asks_for():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--output-format", "concise", "--no-cache"],
                          capture_output=True, text=True, encoding="utf-8", cwd=HOUSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contributing_says_of_each_file_what_it_holds():
    text = (HOUSE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
    first_lines = {path.stem: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES}
    expected = {name: claim.splitlines()[0].rstrip(".") for name, claim in first_lines.items()
                if name != "__init__" and claim}
    assert {name: claim for name, claim in named if name in first_lines and name != "__init__"} == expected


# --- requirements


def test_requirements_colab_names_nothing_that_the_image_has():
    assert set(requirements("requirements-colab.txt")) & set(COLAB_IMAGE) == set()


def test_requirements_of_the_package_are_met_by_the_colab_image():
    assert COLAB_PYTHON in SpecifierSet(SETUP["options"]["python_requires"])
    for name, requirement in install_requires().items():
        assert name in COLAB_IMAGE, f"the Colab image has no {name}: name it in requirements-colab.txt"
        assert COLAB_IMAGE[name] in requirement.specifier, f"the Colab image has {name} {COLAB_IMAGE[name]}"


def test_requirements_local_has_everything_and_requirements_run_is_the_part_without_the_tests():
    local, run = requirements("requirements-local.txt"), requirements("requirements-run.txt")
    tools = {"pytest", "hypothesis", "nbclient", "nbconvert", "jupytext", "ruff", "arch", "ta-lib", "statsmodels"}
    assert str(local["torch"].specifier) == "==2.13.0" and tools <= set(local) and not tools & set(run)
    assert {name: str(local.get(name)) for name in run} == {name: str(asked) for name, asked in run.items()}
    for file in ("requirements-local.txt", "requirements-run.txt"):
        assert "-e ." in (HOUSE / file).read_text(encoding="utf-8").splitlines()
    extra = [Requirement(line) for line in SETUP["options.extras_require"]["local"].split("\n") if line.strip()]
    assert {str(asked) for asked in extra} <= {str(asked) for asked in run.values()}


def test_colab_environment_has_the_versions_of_the_image():
    asked = wanted()
    assert {f"{name}=={COLAB_IMAGE[name]}" for name in (*install_requires(), "ipython", "xgboost")} <= set(asked)
    assert not {Requirement(line).name for line in asked} & {"xgboost-cpu", "jupyterlab"}


def test_an_older_python_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    with pytest.raises(SystemExit, match=r"needs Python 3.11 or newer; this is 3.10. Install one .* --clear .venv"):
        runpy.run_path(str(HOUSE / "setup.py"))
    with pytest.raises(ImportError, match=r"needs Python 3.11 or newer; this is 3.10"):
        runpy.run_path(str(PACKAGE / "__init__.py"))


def test_version_is_the_newest_of_the_changelog():
    found = re.search(r"^## (\S+)", (HOUSE / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert found and found[1] == vnq_colab.__version__


def test_licence_is_apache():
    assert "Version 2.0, January 2004" in (HOUSE / "LICENSE").read_text(encoding="utf-8")
    assert SETUP["metadata"]["license_expression"] == "Apache-2.0"


# --- the address


def test_address_and_version_are_those_of_setup_cfg_in_every_text():
    url = SETUP["metadata"]["url"]
    wrong = [path.name for path in address.texts()
             if (text := path.read_text(encoding="utf-8")) != address.addressed(text, url)]
    assert wrong == [], f"repair with: {address.REPAIR}"


def test_publishing_is_one_edit():
    owner = SETUP["metadata"]["url"].split("/")[-2]
    for path in address.texts():
        text = address.addressed(path.read_text(encoding="utf-8"), "https://github.com/elsewhere/vnq_colab", "9.8.7")
        assert f"{owner}/vnq_colab" not in text and f"v{vnq_colab.__version__}" not in text, path.name
        if path.name == "01_prepare.py":
            assert "github/elsewhere/vnq_colab/blob/v9.8.7/" in text and "elsewhere/vnq_colab@v9.8.7" in text
    elsewhere = [path.name for path in (*MODULES, *HOUSE.glob("tests/*.py"), *HOUSE.glob(".github/**/*.yml"))
                 if f"{owner}/vnq_colab" in path.read_text(encoding="utf-8")]
    assert elsewhere == []


def test_readme_for_pypi_has_whole_addresses_only():
    text = address.paged((HOUSE / "README.md").read_text(encoding="utf-8"), "https://github.com/a/vnq_colab", "1.2.3")
    targets = re.findall(r'\]\(([^)]+)\)|src="([^"]+)"', text)
    assert targets and all("".join(pair).startswith(("https://", "#")) for pair in targets)
    assert 'src="https://raw.githubusercontent.com/a/vnq_colab/v1.2.3/notebooks/' in text


def test_release_publishes_on_a_tag_without_a_secret():
    text = (HOUSE / ".github/workflows/release.yml").read_text(encoding="utf-8")
    before, publish = text.split("  publish:\n")
    assert 'tags: ["v*"]' in before and "secrets." not in text and "password" not in text
    assert "id-token: write" in publish and "id-token" not in before, "only the step that publishes speaks to PyPI"


def test_pictures_of_the_readme_are_there_and_small():
    names = re.findall(r'src="([^"]+)"', (HOUSE / "README.md").read_text(encoding="utf-8"))
    assert {"notebooks/report.png", "notebooks/order.png"} <= set(names)
    assert all((HOUSE / name).stat().st_size <= 120_000 for name in names)


# --- the README's commands


def readme_blocks(language: str) -> list[tuple[str, list[str]]]:
    """(what stands before the block, its lines) of every block of that language."""
    text = (HOUSE / "README.md").read_text(encoding="utf-8")
    pattern = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(text[: found.start()], found[1].splitlines()) for found in pattern.finditer(text)]


def test_readme_has_two_commands_of_one_line_each_marked_for_the_ci():
    blocks = readme_blocks("bash")
    assert [len(lines) for _, lines in blocks] == [1, 1]
    marks = [re.findall(r"<!-- command: (\w+) -->", before)[-1:] for before, _ in blocks]
    assert sorted(marks) == [["run"], ["tests"]]
    commands = dict(zip((mark[0] for mark in marks), (lines[0] for _, lines in blocks), strict=True))
    assert "python -m vnq_colab run" in commands["run"]
    assert "python -m pytest" in commands["tests"]
    for name, file in (("run", "requirements-run.txt"), ("tests", "requirements-local.txt")):
        assert "venv" in commands[name] and file in commands[name], "complete on a fresh machine"


def test_readme_has_the_powershell_form_beside_each_command():
    text = (HOUSE / "README.md").read_text(encoding="utf-8")
    shells = re.findall(r"^```(bash|powershell)$", text, re.MULTILINE)
    assert shells == ["bash", "powershell", "bash", "powershell"]
    assert all(len(lines) == 1 for _, lines in readme_blocks("powershell"))


def test_ci_finds_the_test_command_of_the_readme():
    script = (HOUSE / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- command: tests -->" in script
    assert script.startswith("#!/usr/bin/env bash\n"), "a carriage return here would keep it from running"
    assert os.name == "nt" or os.access(HOUSE / ".ci" / "run", os.X_OK)
