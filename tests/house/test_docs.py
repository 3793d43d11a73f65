"""The words that ship with the code: they speak of the project alone, and the tables are the folders."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELVES = ("models", "inference")
LEFT_BEHIND = {"__pycache__", ".ipynb_checkpoints", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
NOT_SHIPPED = {ROOT / name for name in (".git", ".venv", "runs", "dist", "build")}

MACHINE_PATH = re.compile(r"""(^|["'\s=(`])/(home|root|work|tmp|opt|Users)/""", re.MULTILINE)
REGISTRY = re.compile(
    r"pypi\.(org|python)|pythonhosted\.org|download\.pytorch\.org|anaconda\.(org|com)|(--|_)(extra[-_])?index[-_]url"
    r"|(--|_)find[-_]links",
    re.IGNORECASE,
)


def shipped() -> list[str]:
    """Every file of the project, by its path from the top; what tools leave behind is not of the project."""
    found, folders = [], [ROOT]
    while folders:
        for path in folders.pop().iterdir():
            if path in NOT_SHIPPED or path.name in LEFT_BEHIND or path.suffix == ".egg-info" or path.is_symlink():
                continue
            if path.is_dir():
                folders.append(path)
            else:
                found.append(path.relative_to(ROOT).as_posix())
    return sorted(found)


def text_of(name: str) -> str | None:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:  # weights, pictures
        return None


def matches(pattern: re.Pattern, name: str) -> list[str]:
    lines = enumerate((text_of(name) or "").splitlines(), start=1)
    return [f"{name}:{n}: {line.strip()[:100]}" for n, line in lines if pattern.search(line)]


def linked_pages(document: str, prefix: str) -> list[str]:
    """The pages that rows of tables in `document` link to, as <page>.py, in the order of the rows."""
    rows = [line for line in (ROOT / document).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    link = re.compile(rf"\]\((?:\./)?{re.escape(prefix)}([^/()#]+\.py)\)")
    return [page for row in rows for page in dict.fromkeys(link.findall(row))]


def python_blocks(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^```python[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_no_file_names_a_path_of_one_machine():
    assert not [line for name in shipped() for line in matches(MACHINE_PATH, name)]


def test_no_file_names_a_package_registry():
    assert not [line for name in shipped() for line in matches(REGISTRY, name)]


@pytest.mark.parametrize("folder", ["home", "root", "work", "tmp", "opt"])
@pytest.mark.parametrize("line", ['open("/{}/x")', "cd /{}/x", "DATA=/{}/x", "see `/{}/x`", "/{}/x"])
def test_the_rule_on_paths_bites(line, folder):
    assert MACHINE_PATH.search(line.format(folder))


@pytest.mark.parametrize("line", ["see docs/work/x", "a/home/b", "#!/usr/bin/env bash", "https://example.org/tmp/x"])
def test_the_rule_on_paths_spares_the_rest(line):
    assert not MACHINE_PATH.search(line)


@pytest.mark.parametrize("shelf", SHELVES)
@pytest.mark.parametrize("where", ["README.md", "shelf"])
def test_tables_are_the_folders(shelf, where):
    document, prefix = (where, f"{shelf}/") if where == "README.md" else (f"{shelf}/README.md", "")
    listed = linked_pages(document, prefix)
    pages = sorted(path.name for path in (ROOT / shelf).glob("*.py") if not path.name.startswith("_"))
    assert sorted(listed) == pages, f"one row of {document} per page of {shelf}/, each with a link to its file"


@pytest.mark.parametrize("document", [name for name in shipped() if name.endswith(".md")])
def test_python_in_documents_is_python(document):
    for block in python_blocks(document):
        code = doctest.script_from_examples(block) if block.lstrip().startswith(">>>") else block
        compile(code, document, "exec", dont_inherit=True)


@pytest.mark.parametrize("document", [name for name in shipped() if name.endswith(".md")])
def test_links_between_files_lead_somewhere(document):
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", (ROOT / document).read_text(encoding="utf-8"))
    broken = [link for link in links if not ((ROOT / document).parent / link).exists()]
    assert not broken


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:batch_size")
def test_every_python_block_of_the_readme_runs(monkeypatch, tmp_path):
    """As printed and in order, in one namespace, but for a few updates only and in a folder of its own."""
    import pplebm

    fit, runs = pplebm.fit, iter(range(100))
    short = {"n_steps_posterior": 2, "n_steps_prior": 2}
    quick = lambda *args, **more: fit(*args, out=tmp_path / str(next(runs)), updates=2, hyper=short, **more)
    monkeypatch.setattr(pplebm, "fit", quick, raising=False)
    names: dict = {}
    for block in python_blocks("README.md"):
        exec(block, names)
    assert names["run"].sample_data(3).shape == (3, 8, 8)
    assert names["pictures"].sample_data(3).shape == (3, 8, 8)
    predicted = names["pplebm"].predictive(names["posterior"])["x"]
    assert predicted.shape == (4, 200, 5, 3)
    assert not [line for line in (ROOT / "README.md").read_text().splitlines() if re.match(r"    (from|import) ", line)]
