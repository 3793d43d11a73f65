"""The evidence lower bound of a tilted program in the hosts' `SVI`: the half that both share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pplebm.backends.structure import by_row, plates_of
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Kernel
from pplebm.objectives.negative import negative_phase
from pplebm.ppl.language import Array, Data, Key
from pplebm.program import Program
from pplebm.sampling.prior_pool import Flow, Pool, PriorPool


class TiltedBound:
    r"""The negative phase that a tilt's unknown constant needs, for a host's `Trace_ELBO`.

    .. math:: \log p(x) \ge E_{q}[\log \tilde p(x, z) - \log q(z \mid x)] - \log Z

    The value is that of `Trace_ELBO`, log Z left out; the gradient has log Z inside, by weighted chains of the tilted
    prior, see `pplebm.sampling.prior_pool`, for every parameter of the prior. With plain `Trace_ELBO` a tilt grows
    without bound. Scales, subsampled plates and masks of the model that SVI runs count for log Z as they do for the
    tilt.

    The first call anneals the chains from the base, which takes some hundred gradients of each; later ones go on with
    them, a dozen gradients each. They are annealed anew every 500 calls, and wherever parameters or covariates
    have changed so much that under a tenth of them is in effect.

    Args:
        program: the model that SVI runs, as a `pplebm.Program` of the host.
        n_chains: of the tilted prior, for all data together; where it reads covariates, in all rows of a call together,
            8 of each or more.
        n_steps: of the kernel at every call.
        step_size: where its adaptation begins, in noncentered coordinates.
        tilt_penalty: λ of `pplebm.objectives.contrast`, on the chains' ends, per squared nat and datum.
        kernel: of the chains, in the place of `pplebm.kernels.hmc.hmc(6, step_size)`; unadjusted ones are biased.
        settings: of `Trace_ELBO`.

    Raises:
        PplebmError: if the parameters that SVI learns are not those of the program.
    """

    # of the host
    _flow: Flow
    _unscaled: Callable[[Any], Any]  # a model without the scales of its statements
    _weight: Callable[[Any], Array]  # how often a statement counts, of its batch shape: scale, subsampling and mask
    _check_by_row: Callable[[Any, str, str], None]  # that weights are one number per row

    def __init__(
        self,
        program: Program,
        n_chains: int = 2000,
        n_steps: int = 2,
        step_size: float = 0.5,
        tilt_penalty: float = 0.0,
        kernel: Kernel | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._program = program.rewritten(self._unscaled)  # whose constant a scaled bound counts so often
        self._chains = PriorPool(self._program, self._flow, n_chains, n_steps, kernel or hmc(6, step_size))
        self._negative = negative_phase(self._program, self._chains, tilt_penalty)

    def _weighted_negative(
        self, key: Key, values: Mapping[str, Any], statements: Mapping[str, Any], data: Data, pool: Pool | None
    ) -> tuple[Array, Pool]:
        """The negative phase of one call of the model, a scalar of value 0, and the chains after it.

        Args:
            values: of the host's parameters.
            statements: of the model when it is called with data, by name.
            pool: the chains before it; None for new ones.
        """
        weights, plate = {}, self._program.plate
        for site in (*self._program.latents, *self._program.tilts):
            msg = statements.get(site.name)
            if msg is None or plate not in plates_of(msg):
                continue  # another model, whose parameters are refused
            weights[site.name], is_single = by_row(self._weight(msg), msg, plate)
            self._check_by_row(is_single, site.name, plate)
        return self._negative(key, values, data, weights, pool)
