r"""The negative phase alone, for bounds that another library computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pplebm.kernels.kernel import Kernel
from pplebm.kernels.langevin import langevin
from pplebm.ppl.language import Array, Data
from pplebm.program import Program
from pplebm.sampling.chains import short_run


def negative_phase(
    program: Program,
    n_steps: int,
    step_size: float,
    tilt_penalty: float = 0.0,
    kernel: Kernel | None = None,
) -> Callable[..., Array]:
    r"""Make a function (key, parameters of an SVI, rows, weights) -> a scalar of value 0 and the gradient of log Z.

    .. math:: \sum_i w_i \nabla_\theta \log Z(c_i), \qquad
              \nabla_\theta \log Z(c) = E_{z \sim \tilde p(z | c) / Z(c)}[\nabla_\theta \log \tilde p(z \mid c)]

    Add it to a loss that is a sum over data i, each of which counts :math:`w_i` times. Without a tilt it is 0.

    Args:
        n_steps, step_size: of the Langevin chains, one per datum, in noncentered coordinates from N(0, I).
        tilt_penalty: λ of :math:`\lambda f^2`, added to the gradient.
        kernel: of the chains, in the place of `langevin(step_size)`; adjusted ones included.

    The function takes rows as a number, or as data with the covariates that the prior reads, and weights by site, each
    a number or one per row; 1 for sites that are left out.

    Raises:
        PplebmError: for a step size that is not positive, a global latent, or parameters that are not the program's.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> phase = negative_phase(program, 10, 0.4)
        >>> params = {n: p.requires_grad_() for n, p in program.params.items()}
        >>> value = phase(0, params, 50)
        >>> value.item(), value.requires_grad
        (0.0, True)
    """
    program.refuse_global_latents("the negative phase")
    kernel, centered, ppl = kernel or langevin(step_size), program.with_coordinates("centered"), program.ppl

    def phase(key: Any, values: Mapping[str, Any], rows: Data | int, weights: Mapping[str, Any] | None = None) -> Array:
        params = program.params_of(values)
        held = ppl.stop_gradient(params)
        if not program.tilts:
            return 0.0 * sum(p.sum() for p in held.values())
        data = None if isinstance(rows, int) else rows
        wanted = rows if isinstance(rows, int) else program.prior_rows(rows)
        z, _ = short_run(program, key, held, wanted, kernel, n_steps, observed=False)
        terms = centered.log_terms(params, z, data, observed=False)
        by_site = {name: 1.0 if weights is None else weights.get(name, 1.0) for name in terms}
        loss: Any = sum((by_site[name] * term).sum() for name, term in terms.items())
        f = program.total(terms, program.tilts)
        loss = loss + tilt_penalty * (by_site[program.tilts[0].name] * f**2).sum()
        return loss - ppl.stop_gradient(loss)

    return phase
