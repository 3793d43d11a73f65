"""The evidence lower bound of a tilted program for `pyro.infer.SVI`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO

import pplebm.backends.pyro as ppl
from pplebm.backends.pyro.declare import unscaled
from pplebm.backends.pyro.sites import masks_of
from pplebm.backends.pyro.tracing import seeded
from pplebm.backends.structure import by_row, check_by_row, plates_of
from pplebm.kernels.kernel import Kernel
from pplebm.objectives.negative import negative_phase
from pplebm.program import Program


class TiltedELBO(Trace_ELBO):
    r"""Pyro's `Trace_ELBO` with the negative phase that a tilt's unknown constant needs.

    .. math:: \log p(x) \ge E_{q}[\log \tilde p(x, z) - \log q(z \mid x)] - \log Z

    The value is that of `Trace_ELBO`, log Z left out; the gradient has log Z inside, by short Langevin chains of the
    tilted prior, for every parameter of the prior. With plain `Trace_ELBO` a tilt grows without bound. Scales,
    subsampled plates and masks of the model that SVI runs count for log Z as they do for the tilt.

    Args:
        program: the model, as `pplebm.Program(model, data=x)`.
        n_steps, step_size: of the chains, one per datum, in noncentered coordinates from N(0, I), given its covariates.
        kernel: of the chains, in the place of unadjusted Langevin steps: `pplebm.kernels.hmc.hmc(ppl)` for instance.
        tilt_penalty: λ of `pplebm.objectives.contrast`, on the chains' ends, per squared nat and datum.
        settings: of `Trace_ELBO`.

    Raises:
        PplebmError: if the parameters that SVI learns are not those of the program.

    Example:
        >>> import pyro.distributions as dist, pplebm
        >>> from pyro.infer import SVI
        >>> def model(x):
        ...     slope = pyro.param("slope", torch.tensor(0.))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", slope * z)  # makes the prior N(slope, 1)
        ...         pyro.sample("x", dist.Normal(z, 0.1), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x, 0.1))
        >>> pyro.clear_param_store(); pyro.set_rng_seed(0)
        >>> x = 2. + torch.randn(200)
        >>> loss = TiltedELBO(pplebm.Program(model, data=x), n_steps=60)
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=loss)
        >>> for _ in range(150): _ = svi.step(x)
        >>> abs(pyro.param("slope").item() - x.mean().item()) < 0.3
        True
    """

    def __init__(
        self,
        program: Program,
        n_steps: int = 30,
        step_size: float = 0.4,
        tilt_penalty: float = 0.0,
        kernel: Kernel | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self._program = program.rewritten(unscaled)  # whose constant a scaled bound counts so often
        self._negative = negative_phase(ppl, self._program, n_steps, step_size, tilt_penalty, kernel)

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Value, and gradients added to those of the parameters."""
        value = super().loss_and_grads(model, guide, *args, **kwargs)
        self._phase(model, args, kwargs).backward()
        return value

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """A tensor of the same value, to be differentiated by torch."""
        return super().differentiable_loss(model, guide, *args, **kwargs) + self._phase(model, args, kwargs)

    def _phase(self, model: Callable[..., Any], args: Any, kwargs: Any) -> torch.Tensor:
        with poutine.block():  # SVI notes the parameters that it meets; those of chains are not to be met
            weights = self._weights(model, args, kwargs)
            leaves = dict(pyro.get_param_store().named_parameters())
            data = self._program.arguments(args, kwargs)
            return self._negative(int(torch.randint(2**62, ())), leaves, data, weights)

    def _weights(self, model: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, torch.Tensor]:
        """How often each datum of a site of the prior counts: scales, subsampling and masks of this very call."""
        with torch.no_grad(), seeded(0):
            nodes: Any = poutine.trace(model).get_trace(*args, **kwargs).nodes
        sites = [*self._program.latents, *self._program.tilts]
        found = {}
        for site in sites:
            msg = nodes.get(site.name)
            if msg is None or self._program.plate not in plates_of(msg):
                continue  # another model, whose parameters are refused
            weight = scale_and_mask(torch.ones(msg["fn"].batch_shape), msg["scale"], msg["mask"])
            mask = masks_of(msg)
            weight = weight if mask is None else torch.where(mask, weight, 0.0)
            found[site.name], is_single = by_row(weight, msg, self._program.plate)
            check_by_row(is_single, site.name, self._program.plate)
        return found
