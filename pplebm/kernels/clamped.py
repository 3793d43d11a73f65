r"""Hamiltonian Monte Carlo of some sites given others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pplebm.errors import PplebmError
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Kernel


def clamped(sites: Sequence[str], held: Collection[str], **settings: Any) -> Kernel:
    r"""Make the kernel `hmc` of a conditional: sites that are held stay exactly where each chain starts.

    .. math:: p(z_A \mid z_B) \propto p(z_A, z_B), \qquad D_B = 0

    A scale of zero moves no coordinate of B, and leaves its momentum as it is, so that the difference of energies, and
    with it acceptance, is that of the conditional. In noncentered coordinates what is held are the coordinates: values
    are held as well if no site of B depends on one of A.

    Args:
        sites: all latents.
        held: those of B, fewer than all.
        settings: of `hmc` but `scale`.

    Raises:
        PplebmError: for a site that is not there, or none left to move.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> kernel = clamped(["a", "b"], {"b"}, step_size=0.7)
        >>> log_density = lambda z: -0.5 * (z["a"] - z["b"]) ** 2 - 0.5 * z["b"] ** 2
        >>> at = {"a": torch.zeros(4000), "b": torch.full((4000,), 3.0)}
        >>> state = kernel.init(ppl, at, log_density)
        >>> for key in range(5):
        ...     state, _ = kernel(ppl, key, state, log_density)
        >>> bool((state.z["b"] == 3.0).all()), abs(state.z["a"].mean() - 3.0) < 0.1
        (True, tensor(True))
    """
    if unknown := sorted(set(held) - set(sites)):
        raise PplebmError(f"latent '{unknown[0]}' cannot be held; the latents are {', '.join(sites)}.")
    if set(held) == set(sites):
        raise PplebmError(f"all latents are held ({', '.join(sites)}); leave one that moves.")
    return hmc(scale={site: 0.0 if site in held else 1.0 for site in sites}, **settings)
