"""The evidence lower bound of a tilted program for `numpyro.infer.SVI`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import Trace_ELBO

import pplebm.backends.numpyro as ppl
from pplebm.backends.numpyro.declare import unscaled
from pplebm.backends.numpyro.sites import masks_of
from pplebm.backends.structure import by_row, check_by_row, plates_of
from pplebm.kernels.kernel import Kernel
from pplebm.objectives.negative import negative_phase
from pplebm.program import Program


class TiltedELBO(Trace_ELBO):
    r"""NumPyro's `Trace_ELBO` with the negative phase that a tilt's unknown constant needs.

    .. math:: \log p(x) \ge E_{q}[\log \tilde p(x, z) - \log q(z \mid x)] - \log Z

    The value is that of `Trace_ELBO`, log Z left out; the gradient has log Z inside, by short Langevin chains of the
    tilted prior, for every parameter of the prior. With plain `Trace_ELBO` a tilt grows without bound. Scales,
    subsampled plates and masks of the model that SVI runs count for log Z as they do for the tilt.

    Args:
        program: the model, as `pplebm.Program(model, data=x, backend="numpyro")`.
        n_steps, step_size: of the chains, one per datum, in noncentered coordinates from N(0, I), given its covariates.
        tilt_penalty: λ of `pplebm.objectives.contrast`, on the chains' ends, per squared nat and datum.
        kernel: of the chains, in the place of unadjusted Langevin steps: `pplebm.kernels.hmc.hmc(ppl)` for instance.
        settings: of `Trace_ELBO`.

    Raises:
        PplebmError: if the parameters that SVI learns are not those of the program.

    Example:
        >>> import jax.numpy as jnp, numpyro, numpyro.distributions as dist, pplebm
        >>> from numpyro.infer import SVI
        >>> from pplebm.numpyro import tilt
        >>> def model(x):
        ...     slope = numpyro.param("slope", 0.)
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0., 1.))
        ...         tilt("f", slope * z)  # makes the prior N(slope, 1)
        ...         numpyro.sample("x", dist.Normal(z, 0.1), obs=x)
        >>> def guide(x):
        ...     with numpyro.plate("data", len(x)):
        ...         numpyro.sample("z", dist.Normal(x, 0.1))
        >>> x = 2. + jax.random.normal(jax.random.key(0), (200,))
        >>> loss = TiltedELBO(pplebm.Program(model, data=x, backend="numpyro"), n_steps=60)
        >>> svi = SVI(model, guide, numpyro.optim.Adam(0.1), loss=loss)
        >>> found = svi.run(jax.random.key(1), 150, x, progress_bar=False)
        >>> bool(abs(found.params["slope"] - x.mean()) < 0.3)
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

    def loss_with_mutable_state(
        self,
        rng_key: jax.Array,
        param_map: dict[str, Any],
        model: Callable[..., Any],
        guide: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Value, and state that a model keeps between calls."""
        k_bound, k_negative = jax.random.split(rng_key)
        found = super().loss_with_mutable_state(k_bound, param_map, model, guide, *args, **kwargs)
        weights = self._weights(param_map, model, args, kwargs)
        data = self._program.arguments(args, kwargs)
        return found | {"loss": found["loss"] + self._negative(k_negative, param_map, data, weights)}

    def _weights(self, param_map: Any, model: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, jax.Array]:
        """How often each datum of a site of the prior counts: scales, subsampling and masks of this very call."""
        with handlers.block(), handlers.trace() as trace, handlers.seed(rng_seed=0):
            handlers.substitute(model, data=jax.lax.stop_gradient(param_map))(*args, **kwargs)
        found = {}
        for site in (*self._program.latents, *self._program.tilts):
            msg = trace.get(site.name)
            if msg is None or self._program.plate not in plates_of(msg):
                continue  # another model, whose parameters are refused
            weight = np.ones(msg["fn"].batch_shape) * (1.0 if msg["scale"] is None else msg["scale"])
            mask = masks_of(msg)
            weight = weight if mask is None else jnp.where(mask, weight, 0.0)
            found[site.name], is_single = by_row(weight, msg, self._program.plate)
            refuse = functools.partial(check_by_row, site=site.name, plate=self._program.plate)
            if isinstance(is_single, jax.core.Tracer):  # a compiled update knows it only as it runs
                jax.debug.callback(refuse, is_single)
            else:
                refuse(is_single)
        return found
