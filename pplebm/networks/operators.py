"""What instruments make of an image, as fixed matrices: parts of it, blurred, coarse, projected, or without phase.

An operator is data, like a net: NumPy makes its matrices once, and `measured` applies them with the arrays of whichever
backend a model runs on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, reduce
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from pplebm.errors import PplebmError

Kind = Literal["identity", "mask", "blur", "downsample", "projection", "phase", "heat"]
Shape = tuple[int, ...]


class Operator(NamedTuple):
    """x -> R x, or (R x)² + (I x)² where there is an imaginary part: matrices (numbers of y, numbers of x)."""

    real: np.ndarray
    imaginary: np.ndarray | None = None

    @property
    def n_measured(self) -> int:
        """Numbers of y."""
        return len(self.real)


def measured(operator: Operator, x: Any, asarray: Callable[[Any], Any] = np.asarray) -> Any:
    """A(x) of images x, (B, *event): (B, numbers of y), in the arrays that `asarray` makes.

    >>> measured(operator("downsample", (2, 4), factor=2), np.arange(8.0).reshape(1, 2, 4)).tolist()
    [[2.5, 4.5]]
    """
    flat = x.reshape(len(x), -1)
    y = flat @ asarray(np.ascontiguousarray(operator.real.T))
    if operator.imaginary is None:
        return y
    return y**2 + (flat @ asarray(np.ascontiguousarray(operator.imaginary.T))) ** 2


@lru_cache(maxsize=32)  # a model asks for its operator at every run
def operator(
    kind: str, shape: Shape, share: float = 0.5, width: float = 1.0, factor: int = 2, seed: int = 0
) -> Operator:
    r"""An operator on images, fields or vectors of event shape `shape`.

    Args:
        kind: "identity"; "mask", some of the numbers; "blur", a Gaussian of `width` pixels, mirrored at the border;
            "downsample", means of blocks of `factor` a side; "projection", onto random orthonormal directions; "phase",
            squared moduli of the Fourier transform of the image with zeros around it, twice as wide; "heat",
            :func:`heat` after the time `width` \* 0.01.
        share: of the numbers that "mask" keeps, or of directions to numbers for "projection".
        width: of "blur" in pixels, and of "heat" in hundredths of the diffusive time of the domain.
        factor: of "downsample".
        seed: of "mask" and "projection".

    Raises:
        PplebmError: for a kind that is not known, a share outside (0, 1], sides that `factor` does not divide.

    >>> operator("mask", (8, 8), share=0.25).n_measured
    16
    """
    if kind not in get_args(Kind):
        raise PplebmError(f"operator '{kind}' is not known; choose one of {', '.join(get_args(Kind))}.")
    n, rng = math.prod(shape), np.random.default_rng(seed)
    if not 0.0 < share <= 1.0:
        raise PplebmError(f"operator '{kind}' got share {share}; it must be above 0, and 1 or less, of {n} numbers.")
    kept = max(1, round(share * n))
    if kind == "mask":
        return Operator(np.eye(n)[np.sort(rng.permutation(n)[:kept])])
    if kind == "projection":
        return Operator(np.linalg.qr(rng.normal(size=(n, kept)))[0].T)
    if kind == "phase":
        return _fourier(shape)
    along: dict[str, Callable[[int], np.ndarray]] = {
        "identity": np.eye,
        "blur": lambda n: _blur(n, width),
        "heat": lambda n: heat(n, 0.01 * width),
        "downsample": lambda n: _means(n, factor, shape),
    }
    return Operator(reduce(np.kron, [along[kind](n) for n in shape]))


def heat(n: int, time: float) -> np.ndarray:
    r"""Exact solution of the heat equation on (0, 1) after a time, as a matrix on the values at n inner points.

    .. math:: u_t = u_{xx}, \quad u(0) = u(1) = 0, \qquad
              u(x, t) = \sum_k e^{-k^2 \pi^2 t} b_k \sin(k \pi x), \quad x_i = i / (n + 1)

    with the n sine modes that pass through the values given: no time steps, and exact for what has no higher modes.

    >>> x = np.arange(1, 8) / 8
    >>> decayed = heat(7, 0.1) @ np.sin(2 * np.pi * x)
    >>> bool(np.allclose(decayed, np.exp(-4 * np.pi**2 * 0.1) * np.sin(2 * np.pi * x)))
    True
    """
    k = np.arange(1, n + 1)
    modes = np.sin(np.pi * np.outer(k, k) / (n + 1)) * (2.0 / (n + 1)) ** 0.5  # orthonormal and symmetric
    return np.asarray(modes * np.exp(-((np.pi * k) ** 2) * time) @ modes)


def _blur(n: int, width: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(np.eye(n), width, axis=0, mode="reflect"))


def _means(n: int, factor: int, shape: Shape) -> np.ndarray:
    if factor < 1 or n % factor:
        raise PplebmError(f"operator 'downsample' by {factor} does not divide the sides of {shape}; choose a divisor.")
    return np.kron(np.eye(n // factor), np.full((1, factor), 1.0 / factor))


def _fourier(shape: Shape) -> Operator:
    """Orthonormal Fourier transform of the image with zeros around it; half of it, since x is real."""
    basis = np.eye(math.prod(shape)).reshape(-1, *shape)
    axes = tuple(range(1, basis.ndim))
    found = np.fft.rfftn(basis, s=[2 * n for n in shape], axes=axes, norm="ortho").reshape(len(basis), -1).T
    return Operator(found.real.copy(), found.imag.copy())
