"""Notebooks: source and outputs belong together, say nothing of the machine they ran on, and run."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

with warnings.catch_warnings():  # remarks of the notebook tools on their own configuration
    warnings.simplefilter("ignore")
    jupytext = pytest.importorskip("jupytext")
    nbformat = pytest.importorskip("nbformat")

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("*.py"))
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|work|tmp|opt|usr|var|private|Users)/\w|\b[A-Z]:\\\\?\w")
A_WARNING = re.compile(r"\w*Warning\b|\bWARN")


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(path: Path):
    with quiet():
        return jupytext.read(path) if path.suffix == ".py" else nbformat.read(path, as_version=4)


def outputs(path: Path) -> list:
    return [out for cell in read(path.with_suffix(".ipynb")).cells for out in cell.get("outputs", [])]


def texts(out) -> list[str]:
    """Words that an output shows: a stream, a traceback, or the text forms of a value."""
    shown = [v for kind, v in out.get("data", {}).items() if not kind.startswith("image/")]
    return [str(v) for v in (out.get("text", ""), *out.get("traceback", []), *shown)]


def in_source(notebook) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source.strip()) for cell in notebook.cells if cell.source.strip()]


def each_notebook(test):
    return pytest.mark.parametrize("path", SOURCES, ids=[path.stem for path in SOURCES])(test)


def test_there_are_notebooks():
    assert [path.stem for path in SOURCES][:2] == ["00_one_page", "01_first_tilted_model"]
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in SOURCES}


@each_notebook
def test_the_pair_is_in_step(path):
    assert in_source(read(path)) == in_source(read(path.with_suffix(".ipynb"))), "run `make notebooks`"


@each_notebook
def test_every_code_cell_was_run_in_order(path):
    counts = [cell.execution_count for cell in read(path.with_suffix(".ipynb")).cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_outputs_show_pictures_and_no_errors(path):
    shown = outputs(path)
    assert any("image/png" in out.get("data", {}) for out in shown)
    assert not [out.ename for out in shown if out.output_type == "error"]


@each_notebook
def test_outputs_hold_no_machine_path_and_no_warning(path):
    words = [text for out in outputs(path) for text in texts(out)]
    assert not [text for text in words if MACHINE_PATH.search(text)]
    assert not [text for text in words if A_WARNING.search(text)]
    assert not [out for out in outputs(path) if out.get("name") == "stderr"]


@pytest.mark.parametrize("folder", ["home", "work", "tmp", "usr", "Users"])
@pytest.mark.parametrize("line", ["see /{}/x", "'/{}/x'", "File /{}/lib/a.py", "C:\\{}"])
def test_the_rule_on_paths_bites(line, folder):
    assert MACHINE_PATH.search(line.format(folder))


@pytest.mark.parametrize("line", ["log p(x|z)/work", "a/home/b", "and/or", "p(x)/tmp"])
def test_the_rule_on_paths_spares_the_rest(line):
    assert not MACHINE_PATH.search(line)


@each_notebook
def test_numbers_are_asserted(path):
    asserts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.lstrip().startswith("assert ")]
    assert len(asserts) >= 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the tools that run it; the notebook's own warnings are looked for below
@each_notebook
def test_it_runs(path, tmp_path, monkeypatch):
    """In smoke mode, in a folder of its own, and without leaving a file behind."""
    monkeypatch.setenv("PPLEBM_SMOKE", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    nbclient = pytest.importorskip("nbclient")
    place = tmp_path / "run"
    place.mkdir()
    notebook = read(path)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(place)}}).execute()
    said = "".join(
        out.text for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") == "stderr"
    )
    assert not said
    assert not list(place.iterdir())
