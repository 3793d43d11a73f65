r"""The negative phase alone, for bounds that another library computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pplebm.chains import short_run
from pplebm.kernels.langevin import langevin
from pplebm.ppl import Array
from pplebm.program import Program


def negative_phase(
    ppl: Any, program: Program, n_steps: int, step_size: float, tilt_penalty: float = 0.0
) -> Callable[[Any, Mapping[str, Any], int], Array]:
    r"""Make a function (key, parameters of the host, n) -> a scalar of value 0 and gradient :math:`n \nabla \log Z`.

    .. math:: \nabla_\theta \log Z = E_{z \sim \tilde p / Z}[\nabla_\theta \log \tilde p(z)]

    Add it to a loss that is a sum over n data. Without a tilt it is 0.

    Args:
        n_steps, step_size: of the Langevin chains, n of them, in noise coordinates from N(0, I).
        tilt_penalty: λ of :math:`\lambda f^2`, added to the gradient.

    Raises:
        PplebmError: for a step size that is not positive, a global latent, or parameters that are not the program's.

    Example:
        >>> import torch, pplebm, pplebm.backends.pyro as ppl
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> phase = negative_phase(ppl, program, 10, 0.4)
        >>> params = {n: p.requires_grad_() for n, p in program.params.items()}
        >>> value = phase(0, params, 50)
        >>> value.item(), value.requires_grad
        (0.0, True)
    """
    program.refuse_global_latents("the negative phase")
    kernel, centred = langevin(ppl, step_size), program.with_coordinates("centred")

    def phase(key: Any, values: Mapping[str, Any], n: int) -> Array:
        params = program.params_of(values)
        held = ppl.stop_gradient(params)
        if not program.tilts:
            return 0.0 * sum(p.sum() for p in held.values())
        z, _ = short_run(program, key, held, kernel, n_steps, n=n)
        terms = centred.log_terms(params, z)
        loss = n * (program.total(terms) + tilt_penalty * program.total(terms, program.tilts) ** 2).mean()
        return loss - ppl.stop_gradient(loss)

    return phase
