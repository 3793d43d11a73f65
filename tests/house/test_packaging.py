"""What is installed is what was written: sdist, wheel built from it, fresh environment. Needs no network."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELVES = ("models", "inference")

pytestmark = pytest.mark.slow


def run(*command, cwd, ok=True):
    """Run `command` far from the checkout, and without what this interpreter was started with."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert not ok or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel built from it."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


class Installed:
    """A fresh environment with the wheel; the dependencies are those of the running interpreter."""

    def __init__(self, folder: Path, wheel: Path):
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        self.bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.bin / "python"
        self.site = Path(self.probe("import sysconfig; print(sysconfig.get_path('purelib'))"))
        paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
        (self.site / "_dependencies.pth").write_text("".join(f"{path}\n" for path in paths))
        before = set(self.site.iterdir())
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--disable-pip-version-check"]
        run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
        self.top_level = {path.name for path in set(self.site.iterdir()) - before}

    def probe(self, code, *options):
        return run(self.python, *options, "-c", code, cwd=self.folder).stdout.strip()


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp("installed"), built[1])


def pages(shelf):
    return {path.name for path in (ROOT / shelf).glob("*.py")}


def test_sdist_has_the_whole_house(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for shelf in SHELVES:
        assert {f"{shelf}/{page}" for page in pages(shelf)} <= names
    top = {name.partition("/")[0] for name in names}
    assert {"pplebm", "notebooks", "tests", "README.md", "LICENSE", "Makefile", "constraints.txt"} <= top
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "runs/"))]


def test_wheel_has_the_galleries_inside_the_package(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    for shelf in SHELVES:
        assert {f"pplebm/{shelf}/{page}" for page in {*pages(shelf), "__init__.py"}} <= names
    assert {"pplebm/py.typed", "pplebm/CITATION.cff"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_editable_wheel_has_no_copy_of_the_galleries(tmp_path):
    pytest.importorskip("hatchling")
    code = "import sys, hatchling.build as b; b.build_editable(sys.argv[1])"
    run(sys.executable, "-c", code, tmp_path, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".py")]


def test_wheel_installs_the_package_and_nothing_else(installed):
    assert "pplebm" in installed.top_level
    others = installed.top_level - {"pplebm"}
    assert len(others) == 1
    assert next(iter(others)).startswith("pplebm-")
    assert next(iter(others)).endswith(".dist-info")


@pytest.mark.parametrize("page", ["models.joint_ebm", "inference.short_run_mle"])
def test_pages_are_imported_from_the_wheel(installed, page):
    path = Path(installed.probe(f"import pplebm.{page} as page; print(page.__file__)"))
    assert installed.site.resolve() in path.resolve().parents


def test_foreign_galleries_are_not_picked_up(installed):
    foreign = [installed.site / shelf / "intruder.py" for shelf in SHELVES]
    project = installed.site / "pyproject.toml"
    try:
        for path in foreign:
            path.parent.mkdir()
            path.write_text("")
        for text in (None, '[project]\nname = "other"\n', "[project\n", 'project = "pplebm"\n'):
            if text is not None:
                project.write_text(text)
            for shelf in SHELVES:
                find = f"importlib.util.find_spec('pplebm.{shelf}.intruder')"
                code = f"import importlib.util, pplebm.{shelf} as s; print(*s.__path__, {find})"
                assert installed.probe(code) == f"{installed.site / 'pplebm' / shelf} None"
    finally:
        project.unlink(missing_ok=True)
        for path in foreign:
            path.unlink(missing_ok=True)
            for cache in path.parent.glob("__pycache__"):
                cache.rmdir()
            path.parent.rmdir()


def test_import_is_light_and_silent(installed):
    heavy = {"torch", "pyro", "jax", "numpyro", "flax", "optax", "matplotlib", "sklearn"}
    code = f"import sys, pplebm; print(*sorted({heavy!r} & set(sys.modules)))"
    assert installed.probe(code, "-W", "error") == ""


def test_version_is_the_declared_one(installed):
    code = "import importlib.metadata as m, pplebm; print(m.version('pplebm'), getattr(pplebm, '__version__', None))"
    declared, own = installed.probe(code).split()
    assert own in (declared, "None")


def test_command_runs(installed):
    command = lambda *words: run(installed.bin / "pplebm", *words, cwd=installed.folder).stdout
    assert "Usage" in command("--help")
    assert command("cite").startswith("@misc{pplebm,") and command("cite", "mle").startswith("@inproceedings{")
    assert "tests are not installed" in command("show", "mle")
