"""How sharp a log density is, which is what limits the step size of Langevin chains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pplebm.kernels.batch import dot, spread, squares
from pplebm.ppl.language import PPL, Array, Key, Latents

REACH = 1e-2  # of the finite difference, in coordinates of unit scale


def largest_curvature(
    ppl: PPL, key: Key, log_density: Callable[[Latents], Array], *places: Latents, n_iterations: int = 12
) -> float:
    r"""Largest eigenvalue :math:`\lambda` of :math:`-\nabla^2 \log p` found at latents in some places, over all data.

    Power iteration on central differences of the gradient, every datum its own direction. Langevin of step size s is
    unstable where :math:`s > 2 / \sqrt\lambda`. Data at which the gradient is not finite are left out.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> precision = torch.tensor([1., 25.])
        >>> z = {"z": torch.zeros(3, 2)}
        >>> round(largest_curvature(ppl, 0, lambda z: -0.5 * (precision * z["z"] ** 2).sum(1), z), 2)
        25.0
    """

    def iterated(direction: Latents, z: Latents) -> tuple[Latents, Array]:
        ahead, behind = (
            ppl.value_and_grad(log_density, {k: v + sign * REACH * direction[k] for k, v in z.items()})[1]
            for sign in (1.0, -1.0)
        )
        image = {k: (behind[k] - ahead[k]) / (2.0 * REACH) for k in z}
        return _unit(image), dot(direction, image)

    iterated, found = ppl.compiled(iterated), []
    for z in places:
        direction, last = _unit(ppl.normal_like(key, z)), np.zeros(1)
        for _ in range(n_iterations):
            direction, last = iterated(direction, z)
        found.append(ppl.to_numpy(last))
    finite = [a[np.isfinite(a)].max() for a in found if np.isfinite(a).any()]
    return float(max(finite, default=np.nan))


def _unit(z: Latents) -> Latents:
    """Directions of length one, datum by datum."""
    length = squares(z) ** 0.5 + 1e-30
    return {k: v / spread(length, v) for k, v in z.items()}
