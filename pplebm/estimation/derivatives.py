r"""Derivatives of a log density with respect to parameters: gradients by row, second derivatives in sum."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Latents, Params
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program

MOST = 300  # numbers: second derivatives take a pass over all draws for each
ROWS_AT_ONCE = 20_000  # draws that are differentiated at once


class Chosen:
    """The parameters that estimates are wanted of, as one vector; the others are held.

    Args:
        program: whose parameters they are.
        params: values of all.
        names: of parameters; all that enter a density if left out.

    Raises:
        PplebmError: for a name that is not known, a parameter that enters no density, or too many numbers.

    Example:
        >>> import pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,), d1=2, d2=1))
        >>> Chosen(program, program.params, ["b", "A"]).labels
        ('b[0]', 'b[1]', 'A[0,0]', 'A[1,0]')
    """

    def __init__(self, program: Program, params: Params, names: Sequence[str] | None = None) -> None:
        reached = [name for name in params if name in program.reached_params]
        names = reached if names is None else list(names)
        for name in names:
            if name not in reached:
                why = "enters no density" if name in params else "is no parameter of the program"
                raise PplebmError(f"'{name}' {why}; names can be {', '.join(reached) or 'none'}.")
        if not names:
            raise PplebmError("the program has no parameter that enters a density, so there is nothing to estimate.")
        self.program, self.params, self.names = program, params, tuple(names)
        self.shapes = {name: tuple(int(n) for n in params[name].shape) for name in names}
        if len(self) > MOST:
            sizes = ", ".join(f"'{name}' has {math.prod(shape)}" for name, shape in self.shapes.items())
            raise PplebmError(
                f"second derivatives of {len(self)} numbers are too many, the most are {MOST} ({sizes}); give names= "
                f"of some parameters, which holds the others at their values."
            )

    def __len__(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the numbers, "b[0]"; that of the parameter alone where it is one number."""
        return tuple(
            name + (f"[{','.join(map(str, at))}]" if at else "")
            for name, shape in self.shapes.items()
            for at in np.ndindex(shape)
        )

    @property
    def value(self) -> np.ndarray:
        """All numbers, (n,)."""
        return self.flat({name: self.params[name] for name in self.names})

    def flat(self, tree: Params) -> np.ndarray:
        """A vector, (n,), in double precision, of arrays by name."""
        parts = [np.asarray(self.program.ppl.to_numpy(tree[name]), float).reshape(-1) for name in self.names]
        return np.concatenate(parts)

    def tree(self, vector: np.ndarray) -> Params:
        """Arrays of the backend by name, in the precision of the parameters, of a vector."""
        found, at, ppl = {}, 0, self.program.ppl
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            part = np.asarray(vector[at : at + size]).reshape(shape)
            found[name] = ppl.asarray(part.astype(ppl.to_numpy(self.params[name]).dtype), keep=True)
            at += size
        return found

    def at(self, vector: np.ndarray) -> Params:
        """All parameters, the chosen ones as the vector says."""
        return self.params | self.tree(vector)


def derivatives(
    chosen: Chosen, z: Latents, data: Data | None, weights: np.ndarray, observed: bool
) -> tuple[np.ndarray, np.ndarray]:
    r"""Gradients of every row, (B, n), and the weighted sum of second derivatives, (n, n).

    .. math:: g_b = \nabla_\theta \log \tilde p_b, \qquad \sum_b w_b \nabla^2_\theta \log \tilde p_b

    No row is differentiated alone. With :math:`h(\theta, w) = v^\top \nabla_\theta \sum_b w_b \log \tilde p_b`, the
    derivative of h by w is :math:`v^\top g_b` of every row, and that by :math:`\theta` a column of the second
    derivatives: one pass for each number of the parameters gives both.

    Args:
        chosen: parameters.
        z: latents, (B, *event) by site, in the coordinates of the program.
        data: a row for every latent; all data of a joint program; None for a prior that reads none.
        weights: (B,).
        observed: whether the density is that of x and z, or of z alone.
    """
    program, ppl = chosen.program, chosen.program.ppl

    def along(params: Params, z: Latents, data: Data | None, weights: Array, direction: Params) -> tuple[Array, Params]:
        def slope(at: Any) -> Array:
            density = lambda some: (
                at["weights"] * program.total(program.log_terms(params | some, z, data, observed=observed))
            )
            gradient = ppl.value_and_grad(density, at["some"], differentiable=True)[1]
            return sum((gradient[name] * direction[name]).sum() for name in gradient)

        some = {name: params[name] for name in direction}
        found = ppl.value_and_grad(slope, {"some": some, "weights": weights})[1]
        return found["weights"], found["some"]

    run = program.compiled(("derivatives", chosen.names, data is None, observed), along)
    w = ppl.asarray(weights.astype(ppl.to_numpy(next(iter(chosen.params.values()))).dtype), keep=True)
    rows, second = np.empty((len(weights), len(chosen))), np.empty((len(chosen), len(chosen)))
    for k, direction in enumerate(np.eye(len(chosen))):
        of_rows, column = run(chosen.params, z, data, w, chosen.tree(direction))
        rows[:, k], second[k] = ppl.to_numpy(of_rows), chosen.flat(column)
    return rows, 0.5 * (second + second.T)


def in_chunks(
    program: Program, latents: dict[str, np.ndarray], data: Data | None
) -> Iterator[tuple[np.ndarray, Latents, Data | None]]:
    """Rows of draws, (draws, data, *event) or (draws, *event) where data are whole, as many at once as memory likes.

    Gives their numbers, latents and data. The last part is filled up with the first rows, so that shapes repeat:
    numbers beyond the rows there are tell so.
    """
    ppl, is_whole = program.ppl, data is None or program.has_global_latents
    n_data = 1 if is_whole else n_rows(data)
    flat = {site.name: latents[site.name].reshape(-1, *site.shape) for site in program.latents}
    n = len(next(iter(flat.values())))
    size = -(-n // -(-n // ROWS_AT_ONCE))  # parts of equal length
    for start in range(0, n, size):
        index = np.arange(start, start + size)
        z = {site: ppl.asarray(a[index % n], keep=True) for site, a in flat.items()}
        yield index, z, data if is_whole else take_rows(data, ppl.asarray(index % n % n_data))
