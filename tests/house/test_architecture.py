"""The arrows of the house, read from the sources: imports point down only, and frameworks stay in their rooms."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pplebm"
SHELVES = ("models", "inference")
MAX_PAGE_LINES = 96

# Floors of the house, top first; a module may import from its own floor and from lower ones.
FLOORS = (
    ("cli", "__main__", "report", "checking"),
    ("runs",),
    ("evidence", "scores", "calibration", "estimation"),
    ("learning", "objectives", "models", "inference", "interop", "numpyro"),
    ("sampling", "guides"),
    ("program", "backends", "kernels", "gallery"),
    ("ppl", "networks", "data", "errors"),
)
# Framework -> how the names of its modules under backends/ and interop/ begin; nothing else imports it.
ROOMS = {
    "torch": "pyro",
    "pyro": "pyro",
    "jax": "numpyro",
    "numpyro": "numpyro",
    "flax": "numpyro",
    "optax": "numpyro",
    "lightning_fabric": "pyro",
}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
PAGES = sorted(f"{shelf}/{path.name}" for shelf in SHELVES for path in (ROOT / shelf).glob("*.py"))


def imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported anywhere in `tree`, a relative import resolved against `package`.

    `from a import b` counts as a.b: whether b is a module is for the caller to see.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join((*base, *filter(None, [node.module])))
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def module_level(tree: ast.Module) -> ast.Module:
    """`tree` without its functions: what runs when the module is imported."""

    class WithoutFunctions(ast.NodeTransformer):
        def drop(self, node: ast.AST) -> ast.Pass:
            return ast.copy_location(ast.Pass(), node)

        visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = drop

    return WithoutFunctions().visit(tree)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def library_imports(module: str) -> Iterator[tuple[int, str]]:
    path = Path(module)
    return imports(parse(PACKAGE / path), ("pplebm", *path.parent.parts))


def floor(name: str) -> int:
    """Height of a room, the ground floor 0."""
    found = [-i for i, rooms in enumerate(FLOORS, start=1 - len(FLOORS)) if name in rooms]
    assert found, f"pplebm.{name} stands on no floor: add {name!r} to FLOORS in {Path(__file__).name}"
    return found[0]


def wrong_arrows(module: str) -> Iterator[str]:
    own = Path(module).with_suffix("").parts[0]
    for line, name in library_imports(module):
        if name.split(".")[0] != "pplebm":
            continue
        target = (*name.split("."), "")[1]
        if target == "__version__":
            continue
        if not ((PACKAGE / target).is_dir() or (PACKAGE / f"{target}.py").is_file()) or not target:
            yield f"{module}:{line} imports {name}: name the module of the library that defines it"
        elif floor(target) > floor(own):
            yield f"{module}:{line} imports {name}: floor {floor(target)} is above floor {floor(own)} of pplebm.{own}"


@pytest.mark.parametrize("module", MODULES)
def test_library_imports_point_down(module):
    if module == "__init__.py":  # the public page: lazy re-exports of everything
        return
    assert not list(wrong_arrows(module))


@pytest.mark.parametrize("module", MODULES)
def test_frameworks_stay_in_their_rooms(module):
    first, *rest = Path(module).with_suffix("").parts
    strays = [
        f"{module}:{line} imports {name}"
        for line, name in library_imports(module)
        if (room := ROOMS.get(name.split(".")[0]))
        and not (first in ("backends", "interop") and rest and rest[0].startswith(room))
    ]
    assert not strays


def test_floors_are_the_folders():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for rooms in FLOORS for room in rooms} == rooms - {"__init__"}
    twice = [path.stem for path in PACKAGE.glob("*.py") if (PACKAGE / path.stem).is_dir()]
    assert not twice, f"both a module and a folder: {twice}"


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_gallery_is_a_flat_folder_of_pages(shelf):
    folder = ROOT / shelf
    assert folder.is_dir()
    assert not (folder / "__init__.py").exists(), f"{shelf}/ is a folder of pages, not a package"
    nested = [str(path.relative_to(ROOT)) for path in folder.glob("*/**/*.py")]
    assert not nested, f"pages do not nest: {nested}"
    assert [page for page in PAGES if page.startswith(shelf)], f"{shelf}/ has no page"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_short(page):
    n_lines = len((ROOT / page).read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_PAGE_LINES, f"{page} has {n_lines} lines; a page has at most {MAX_PAGE_LINES}"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_imports_no_framework_at_module_level(page):
    found = [
        f"{page}:{line} imports {name}"
        for line, name in imports(module_level(parse(ROOT / page)), ())
        if name.split(".")[0] in ROOMS
    ]
    assert not found


@pytest.mark.parametrize("page", PAGES)
def test_a_page_imports_no_page_and_no_private_module(page):
    siblings = {Path(other).stem for other in PAGES}
    faults = []
    for line, name in imports(parse(ROOT / page), ("page",)):
        first, *rest = name.split(".")
        if first in (*SHELVES, *siblings, "page") or (first == "pplebm" and rest and rest[0] in SHELVES):
            faults.append(f"{page}:{line} imports the page {name}")
        elif first == "pplebm" and any(part.startswith("_") for part in rest):
            faults.append(f"{page}:{line} imports {name}, which is private")
    assert not faults


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_main(page):
    names = {node.id for node in ast.walk(parse(ROOT / page)) if isinstance(node, ast.Name)}
    assert "__name__" not in names, f"{page} is a page, not a script: pplebm runs it"


def test_few_modules_stand_loose_and_few_pages_are_long():
    assert len(list(PACKAGE.glob("*.py"))) <= 5
    long = [page for page in PAGES if len((ROOT / page).read_text(encoding="utf-8").splitlines()) > 90]
    assert len(long) <= 2, f"over 90 lines: {long}"


def test_functions_are_short():
    """Lines without the docstring: the median function has at most 10, none has more than 60."""
    sizes = {}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / page for page in PAGES)]:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef):
                told = node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
                sizes[f"{path.name}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1 - told
    assert sorted(sizes.values())[len(sizes) // 2] <= 10
    assert not [name for name, size in sizes.items() if size > 60]
