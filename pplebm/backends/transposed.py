r"""Index arithmetic of transposed convolutions along one axis, for both backends.

With n inputs a, stride s, padding p and a kernel w of k taps,

    y_o = Σ_t w_t a_{(o + p - t) / s}        over the taps t for which the index is whole,

so the outputs o = s m + r of one phase r ∈ {0, …, s-1} need the taps t ≡ r + p (mod s), and input i meets tap t at
m = i + (t - r - p) / s.
"""

from __future__ import annotations


def size(n: int, kernel: int, stride: int, padding: int) -> int:
    """Number of outputs.

    >>> size(7, kernel=4, stride=2, padding=1)
    14
    """
    return (n - 1) * stride - 2 * padding + kernel


def shifts(r: int, kernel: int, stride: int, padding: int) -> list[tuple[int, int]]:
    """Taps of phase r, each with how far its inputs move.

    >>> shifts(0, kernel=4, stride=2, padding=1)
    [(1, 0), (3, 1)]
    """
    return [(tap, (tap - r - padding) // stride) for tap in range((r + padding) % stride, kernel, stride)]


def span(r: int, size: int, kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """Inputs, first and past the last, that the outputs of phase r need; some may lie outside.

    >>> span(0, size=14, kernel=4, stride=2, padding=1)
    (-1, 7)
    """
    moves = [shift for _, shift in shifts(r, kernel, stride, padding)]
    return -max(moves), -min(moves) - (r - size) // stride
