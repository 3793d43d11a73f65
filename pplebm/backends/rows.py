"""Rows of data: the few on which a program is first run, and that no row's densities depend on the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pplebm.backends.visit import At
from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows, tree_leaves, tree_map

if TYPE_CHECKING:
    from pplebm.backends.traced import Traced

FEW = 5  # rows of the first run
RUNS = 5  # on these rows: masks of dropout may agree by chance in one or two


def shapes_of(data: Data) -> str:
    """Shapes of data in words.

    >>> import numpy as np
    >>> shapes_of(np.zeros((5, 2))), shapes_of({"dose": np.zeros(5)})
    ('a batch of shape (5, 2)', "a batch of shapes {'dose': (5,)}")
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in tree_leaves(data)}
    return f"a batch of shape {shapes['']}" if list(shapes) == [""] else f"a batch of shapes {shapes}"


def failure(error: Exception, data: Data) -> PplebmError:
    """What went wrong in a user's model, told as theirs, with the batch it was given."""
    what = f"{type(error).__name__}: {error}".replace("\n", " ")
    wide = {name: a for name, a in tree_leaves(data) if str(a.dtype).endswith("float64")}
    named = f" ({', '.join(wide)})" if "" not in wide else ""
    remedy = f" Data are float64, as they were given{named}; astype('float32') gives the dtype that nets begin with."
    return PplebmError(
        f"the model failed on {shapes_of(data)}: {what} (pplebm calls the model with data: an array alone, a mapping "
        f"by keyword, a tuple by position; rows first.){remedy if wide and 'dtype' in what else ''}"
    )


def few_rows(data: Data) -> Data:
    """The first rows, on which a program is traced."""
    return take_rows(data, slice(0, FEW))


def other_rows(data: Data) -> list[Data]:
    """As many rows as the first ones, from elsewhere in the data: two choices, fewer in small data."""
    n = n_rows(data)
    few = min(FEW, n)
    starts = sorted({n // 2, n - few} - {0}) if n > few else []
    return [take_rows(data, slice(at, at + few)) for at in starts if at + few <= n]


class JointOnPart(Exception):
    """A program whose whole data are one datum was run on a part of them."""


def first_or_whole(trace: Callable[[Data, Callable[[], list[Data]] | None], Any], data: Data) -> Any:
    """Trace on a few data, which is quick; a joint program, or one that fits no other number of data, on all of them.

    Args:
        trace: of data, and of a function that gives rows from elsewhere, None for all data; to a traced program.
        data: all of them.

    Raises:
        PplebmError: what was wrong on the few, if the program is not joint.
    """
    if n_rows(data) <= FEW:
        return trace(data, None)
    wrong = None
    try:
        return trace(few_rows(data), lambda: other_rows(data))
    except JointOnPart:
        pass
    except PplebmError as error:
        wrong = error
    try:
        found = trace(data, None)
    except PplebmError as error:
        raise (wrong or error) from None
    if wrong is not None and not found.structure.has_global_latents:
        raise wrong
    return found


def row_axes(traced: Traced, params: Params, z: Latents, data: Data) -> dict[str, int | None]:
    """By deterministic site, the axis whose length follows the number of data; None where there is none."""
    names, n = [d.name for d in traced.structure.deterministic], n_rows(data)
    if traced.structure.has_global_latents or not names:
        return {}

    def values(z: Latents, data: Data) -> dict[str, Array]:
        sites = traced.run(params, data, At(z)).sites
        return {name: sites[name]["value"] for name in names}

    whole = traced.shapes(values, z, data)
    try:
        other = traced.shapes(values, *_at_rows(traced, _some(n) if n > 1 else [0, 0], z, data))
    except PplebmError:
        if n > 1:
            raise
        return dict.fromkeys(names)  # it fits the one row that there is
    found: dict[str, int | None] = {}
    for name in names:
        axes = [i for i, (a, b) in enumerate(zip(whole[name], other[name], strict=True)) if a != b]
        found[name] = axes[0] if len(axes) == 1 else None
    return found


def check_rows(traced: Traced, params: Params, z: Latents, data: Data) -> None:
    """A datum's densities must not change when other data are absent.

    Raises:
        PplebmError: naming the site, if they do, or are random.
    """
    if traced.structure.has_global_latents or n_rows(data) < 2:
        return
    rows = _some(n_rows(data))
    terms = lambda z, data: traced.run(params, data, At(z)).terms
    both = lambda z, data: {"whole": terms(z, data), "some": terms(*_at_rows(traced, rows, z, data))}
    found = tree_map(traced.numpy, traced.evaluator(both)(z, data))
    run = traced.evaluator(terms)
    more = [tree_map(traced.numpy, run(z, data)) for _ in range(RUNS)]
    for name, value in found["whole"].items():
        if any(differ(more[0][name], other[name]) for other in more):
            raise _random(name)
        if not differ(value[rows], found["some"][name], _rounding(traced, params, z, data)):
            continue
        again = traced.evaluator(lambda z, data: both(z, data))(z, data)  # another run, not a compiled one kept
        if differ(value, traced.numpy(again["whole"][name])):
            raise _random(name)
        raise PplebmError(
            f"the log density of site '{name}' at a datum changes when other data are absent: rows interact (batch "
            f"normalisation in training mode, attention over the batch, a batch mean), or the model takes an array "
            f"by position; put networks into .eval() mode, and give per-datum arrays as data."
        )


def _random(site: str) -> PplebmError:
    return PplebmError(
        f"site '{site}' has a random log density (dropout in training mode?): two runs of the model at the "
        f"same latents disagree; make the networks deterministic, for instance with .eval()."
    )


def _some(n: int) -> list[int]:
    """Rows 1, 2, ...: not the first ones, so that arrays which a model takes by position are found out."""
    return list(range(1, n // 2 + 1))


def _at_rows(traced: Traced, rows: list[int], z: Latents, data: Data) -> tuple[Latents, Data]:
    index = traced.index(rows)
    return {name: a[index] for name, a in z.items()}, take_rows(data, index)


def _rounding(traced: Traced, params: Params, z: Latents, data: Data) -> float:
    """Relative size of what sums in another order change, in the lowest precision that takes part.

    A density of data in double precision may be computed by networks in single precision, and is double itself.
    """
    kinds = {traced.numpy(a).dtype for _, a in tree_leaves((params, z, data))}
    return 2e-4 if any(kind.kind == "f" and kind.itemsize < 8 for kind in kinds) else 1e-9


def differ(a: np.ndarray, b: np.ndarray, size: float = 0.0) -> bool:
    """Whether two results differ: at all, or by more than a relative size."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return True
    if not size:
        return not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    with np.errstate(invalid="ignore"):
        return bool((np.abs(np.nan_to_num(a) - np.nan_to_num(b)) > size * (1.0 + np.abs(np.nan_to_num(a)))).any())
