"""The galleries: pages of models and algorithms, by name or by path. The folder is the registry."""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pplebm.data.columns import Signature, signature_of
from pplebm.errors import PplebmError
from pplebm.gallery.hyper import override
from pplebm.ppl.language import load_backend

DEFAULT = "mle"  # the algorithm that learns where none is named
SHELVES = {
    "models": ("PAPER", "DEVIATIONS", "BACKENDS", "Hyper", "nets", "model"),
    "inference": ("PAPER", "DEVIATIONS", "Hyper", "loss"),
}


def page_files(*shelves: str) -> list[Path]:
    """The files of all pages that ship along, templates as well."""
    packages = [importlib.import_module(f"pplebm.{shelf}") for shelf in shelves or SHELVES]
    return [file for package in packages for folder in package.__path__ for file in Path(folder).glob("*.py")]


def _names(shelf: str) -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in page_files(shelf) if not file.stem.startswith("_")))


def models_available() -> tuple[str, ...]:
    """Names of the model pages.

    >>> "conjugate_tilt" in models_available()
    True
    """
    return _names("models")


def inference_available() -> tuple[str, ...]:
    """Names of the algorithm pages.

    >>> "short_run_mle" in inference_available()
    True
    """
    return _names("inference")


def load(name_or_path: str | Path, seed: int = 0) -> ModuleType:
    """Load a page by name, or any file with a `model`, a `loss` or a `step` by path; both behave alike from here on.

    A file's own networks are initialised under `seed`. The file's folder is importable while it is loaded.

    Raises:
        PplebmError: if there is no such page or file, or the file fails, or lacks a name that a page must have.
    """
    text = str(name_or_path)
    for shelf in SHELVES:
        if text in _names(shelf):
            return importlib.import_module(f"pplebm.{shelf}.{text}")
    path = Path(text).expanduser()
    if not os.path.isfile(path):  # unlike Path.is_file, no error for a name that no file can have
        names = (*models_available(), *inference_available())
        text = text.encode(errors="replace").decode()[:200]
        close = difflib.get_close_matches(text, names, 1)
        hint = f"did you mean '{close[0]}'?" if close else f"pages are {', '.join(names)}."
        raise PplebmError(f"no page and no file '{text}'; {hint}")
    return load_copy(path.resolve(), path.resolve().parent, seed)


def load_copy(path: Path, home: str | Path | None, seed: int) -> ModuleType:
    """Load a page from a copy of it; `home` is the folder it came from, where its own imports are looked for."""
    page = _load_file(path, str(home or ""), seed)
    _check_page(page, path)
    return page


class _FromSource(importlib.machinery.SourceFileLoader):
    """A loader that runs the text of a file, never a compiled copy beside it that may be of another text."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _load_file(path: Path, home: str, seed: int) -> ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    if path.suffix != ".py":
        raise PplebmError(f"'{path.name}' is not a Python file; a page ends in .py.")
    name = f"pplebm_page_{digest}.{path.stem}"
    loader = _FromSource(name, str(path))
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    page = importlib.util.module_from_spec(spec)
    if home:
        sys.path.insert(0, home)
    try:
        with load_backend("pyro").seeded(seed) if _uses_torch(path, home) else contextlib.nullcontext():
            loader.exec_module(page)
    except PplebmError:
        raise
    except SystemExit as error:
        raise PplebmError(
            f"'{path.name}' ended the program when it was read (SystemExit: {error.code}); take that call out, or put "
            f"it under `if __name__ == '__main__':`."
        ) from error
    except Exception as error:
        what = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise PplebmError(f"'{path.name}' could not be loaded: {what}") from error
    finally:
        if home in sys.path:
            sys.path.remove(home)
    return page


def _uses_torch(path: Path, home: str) -> bool:
    """Whether torch is there already, or a page imports it or Pyro, itself or by a file beside it."""
    wanted, names, todo = {"torch", "pyro"}, set[str](), [path]
    while todo:
        try:
            nodes = list(ast.walk(ast.parse(todo.pop().read_bytes())))
        except (SyntaxError, ValueError):  # told when the page is loaded
            continue
        found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        new = {name.split(".")[0] for name in found} - names
        names |= new
        todo += [file for name in new if home and (file := Path(home) / f"{name}.py").is_file()]
    return "torch" in sys.modules or bool(wanted & names)


def _check_page(page: ModuleType, path: Path) -> None:
    if is_algorithm(page):
        wanted = tuple(name for name in SHELVES["inference"] if name != "loss" or not hasattr(page, "step"))
    elif hasattr(page, "model"):
        wanted = SHELVES["models"] if is_gallery_model(page.model) else ("model",)
    else:
        raise PplebmError(f"'{path.name}' has neither a `model` nor a `loss`; name your Pyro program `model`.")
    missing = [name for name in wanted if not hasattr(page, name)]
    if missing:
        raise PplebmError(f"'{path.name}' lacks {', '.join(missing)}; a page has {', '.join(wanted)}.")


def is_algorithm(page: Any) -> bool:
    """Whether a page is that of an algorithm: it has a `loss`, or a `step` of its own, and no `model`."""
    return not hasattr(page, "model") and (hasattr(page, "loss") or hasattr(page, "step"))


def is_gallery_model(model: Any) -> bool:
    """Whether a model is declared once for all backends, `model(ppl, net, hyper, x, n)`, or is a plain program."""
    try:
        return next(iter(inspect.signature(model).parameters), "") == "ppl"
    except (TypeError, ValueError):
        return False


def data_arguments(page: ModuleType) -> Signature:
    """Arguments of a model page besides `ppl, net, hyper`: names of data; of a plain file its own arguments."""
    found = signature_of(page.model)
    if not is_gallery_model(page.model):
        return found
    names = found.names[3:]
    return Signature(names, found.required & set(names), found.takes_any)


def takes_columns(page: ModuleType) -> bool:
    """Whether a gallery page names its data, `model(ppl, net, hyper, y=None, dose=None)`, and not `x, n` alone."""
    return is_gallery_model(page.model) and data_arguments(page).names not in (("x", "n"), ("x",))


def bind(
    page: str | Path | ModuleType,
    backend_name: str = "pyro",
    *,
    shape: Any = (4,),
    seed: int = 0,
    **hyper: Any,
) -> Callable[..., Any]:
    """Turn a gallery page into an ordinary callable of the host, `model(x=None, n=None)`.

    Args:
        page: name, path or module of a model page.
        backend_name: "pyro" or "numpyro".
        shape: shape of one datum; of a page that names its data, shapes by name.
        seed: of the initial weights, drawn by NumPy, so that every backend starts equal.
        hyper: changes to the page's Hyper.

    Raises:
        PplebmError: for an unknown page, hyperparameter or backend.

    Example:
        >>> import pyro
        >>> model = bind("latent_ebm", "pyro", shape=(8, 8), latent_dim=4)
        >>> trace = pyro.poutine.trace(model).get_trace(n=3)
        >>> tuple(trace.nodes["x"]["value"].shape)
        (3, 8, 8)
    """
    module = page if isinstance(page, ModuleType) else load(page, seed)
    backends = getattr(module, "BACKENDS", ("pyro",))
    ppl = load_backend(backend_name)
    if backend_name not in backends and is_gallery_model(module.model):
        raise PplebmError(f"page '{page_name(module)}' runs on {', '.join(backends)}, not on '{backend_name}'.")
    if not is_gallery_model(module.model):
        if hyper:
            raise PplebmError(f"'{page_name(module)}' is a plain program and has no hyperparameters to set.")
        return module.model
    values = override(module.Hyper(), hyper, f"page '{page_name(module)}'")
    model = ppl.bind(module, values, shape if isinstance(shape, Mapping) else tuple(shape), seed)
    model.backend = backend_name  # type: ignore[attr-defined]
    return model


def bind_guide(
    page: ModuleType, backend_name: str, shape: Any, seed: int, hyper: dict[str, Any]
) -> Callable[..., Any] | None:
    """A page's own `guide`, as an ordinary callable of a batch; None if it has none.

    A gallery page declares it as `guide(ppl, net, hyper, x)` with networks `guide_nets(hyper, shape)`; without these
    its networks are those of the model, with the same parameters (`shares` of `Guide`). A plain file declares
    `guide(x)`.
    """
    guide = getattr(page, "guide", None)
    if guide is None or not is_gallery_model(guide):
        return guide
    values = override(page.Hyper(), hyper, f"page '{page_name(page)}'")
    shares = not hasattr(page, "guide_nets")
    declared = SimpleNamespace(__name__="guide", nets=page.nets if shares else page.guide_nets, model=guide)
    bound: Callable[..., Any] = load_backend(backend_name).bind(declared, values, shape, seed)
    bound.shares = shares  # type: ignore[attr-defined]
    return bound


def page_name(page: ModuleType) -> str:
    """Name of a page: its file without the ending."""
    return page.__name__.rsplit(".", 1)[-1]


def is_own(page: ModuleType) -> bool:
    """Whether a page was loaded by path, and is not one that ships along.

    >>> is_own(load("joint_ebm"))
    False
    """
    return not page.__name__.startswith(tuple(f"pplebm.{shelf}." for shelf in SHELVES))


def source(page: ModuleType) -> str:
    """Text of a page's file."""
    assert page.__file__ is not None
    return Path(page.__file__).read_text()


def copy(name: str, target: str | Path) -> Path:
    """Copy a page to a file of your own, to be changed and used by path.

    Raises:
        PplebmError: if the target exists, so that nothing of the user's is lost.
    """
    page, target = load(name), Path(target)
    if os.path.isdir(target):
        target = target / f"{page_name(page)}.py"
    if os.path.lexists(target):
        raise PplebmError(f"'{target}' exists already; choose another file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    assert page.__file__ is not None
    shutil.copyfile(page.__file__, target)
    return target
