"""Numbers per step, for the step sizes and temperatures of kernels."""

from __future__ import annotations

import math

from pplebm.kernels.batch import positive


def linear(start: float, stop: float, n_steps: int) -> list[float]:
    """Numbers from `start` to `stop` in equal differences.

    >>> linear(1.0, 0.0, 5)
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return [start + (stop - start) * i / max(1, n_steps - 1) for i in range(n_steps)]


def geometric(start: float, stop: float, n_steps: int) -> list[float]:
    """Numbers from `start` to `stop` in equal ratios, both positive; usual for temperatures and noise levels.

    >>> [round(t, 3) for t in geometric(10.0, 0.1, 5)]
    [10.0, 3.162, 1.0, 0.316, 0.1]
    """
    ratio = math.log(positive("stop", stop) / positive("start", start))
    return [start * math.exp(ratio * i / max(1, n_steps - 1)) for i in range(n_steps)]


def annealed(levels: list[float], n_steps: int, step_size: float) -> list[float]:
    r"""Step sizes of annealed Langevin: `n_steps` at every noise level σ, :math:`s_i = s\,\sigma_i / \sigma_L`.

    The smallest, last level gets `step_size` itself.

    Source: Song, Ermon (NeurIPS 2019), algorithm 1, where :math:`\alpha_i = s_i^2`.

    >>> annealed([1.0, 0.5], 2, step_size=0.1)
    [0.2, 0.2, 0.1, 0.1]
    """
    last = positive("the last level", levels[-1])
    return [step_size * level / last for level in levels for _ in range(n_steps)]
