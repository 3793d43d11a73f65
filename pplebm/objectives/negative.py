r"""The negative phase alone, for bounds that another library computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pplebm.ppl.language import Array, Data
from pplebm.ppl.trees import n_rows, take_rows
from pplebm.program import Program
from pplebm.sampling.prior_pool import Pool, PriorPool


def negative_phase(program: Program, chains: PriorPool, tilt_penalty: float = 0.0) -> Callable[..., tuple[Array, Pool]]:
    r"""Make a function (key, parameters of an SVI, rows, weights, pool) -> a scalar, and the pool of chains moved on.

    The scalar has the value 0 and the gradient of log Z,

    .. math:: \sum_i w_i \nabla_\theta \log Z(c_i), \qquad
              \nabla_\theta \log Z(c) = E_{z \sim \tilde p(z | c) / Z(c)}[\nabla_\theta \log \tilde p(z \mid c)]

    Add it to a loss that is a sum over data i, each of which counts :math:`w_i` times. Without a tilt it is 0.

    Args:
        program: the tilted program.
        chains: of the same program.
        tilt_penalty: λ of :math:`\lambda f^2`, added to the gradient.

    The function takes rows as a number, or as data with the covariates that the prior reads; weights by site, each a
    number or one per row, 1 for sites that are left out; and the pool of the call before, None for a new one.

    Raises:
        PplebmError: for a global latent, or parameters that are not the program's.

    Example:
        >>> import torch, pplebm
        >>> from pplebm.interop.pyro_svi import FLOW
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> phase = negative_phase(program, PriorPool(program, FLOW, 100))
        >>> params = {n: p.requires_grad_() for n, p in program.params.items()}
        >>> value, pool = phase(0, params, 50)
        >>> value.item(), value.requires_grad, pool.age.item()
        (0.0, True, 1)
    """
    program.refuse_global_latents("the negative phase")
    centered, ppl = program.with_coordinates("centered"), program.ppl

    def phase(
        key: Any,
        values: Mapping[str, Any],
        rows: Data | int,
        weights: Mapping[str, Any] | None = None,
        pool: Pool | None = None,
    ) -> tuple[Array, Pool]:
        params = program.params_of(values)
        held = ppl.stop_gradient(params)
        wanted = rows if isinstance(rows, int) else program.prior_rows(rows)
        pool = chains.empty(wanted) if pool is None else pool
        if not program.tilts:
            return 0.0 * sum(p.sum() for p in held.values()), pool
        z, share, pool = chains.advance(key, held, wanted, pool)
        n, n_given = share.shape
        data = None if isinstance(wanted, int) else take_rows(wanted, chains.repeated(n, n_given))
        terms = centered.log_terms(params, z, data, observed=False)
        total = wanted if isinstance(wanted, int) else n_rows(wanted)

        def counted(name: str, values: Array) -> Array:
            """Σ over rows of their weight times the mean of their particles."""
            weight = 1.0 if weights is None else weights.get(name, 1.0)
            means = (share * values.reshape(n, n_given)).sum(0)
            per_row = getattr(weight, "ndim", 0) > 0
            if n_given == total:
                return (weight * means).sum()
            return means.sum() * (weight.sum() if per_row else weight * total)  # type: ignore[union-attr]

        loss: Any = sum(counted(name, term) for name, term in terms.items())
        loss = loss + tilt_penalty * counted(program.tilts[0].name, program.total(terms, program.tilts) ** 2)
        return loss - ppl.stop_gradient(loss), pool

    return phase
