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
from numpyro.primitives import mutable

from pplebm.backends.numpyro.declare import unscaled
from pplebm.backends.numpyro.sites import masks_of
from pplebm.backends.structure import check_by_row
from pplebm.errors import PplebmError
from pplebm.interop.tilted_bound import TiltedBound
from pplebm.sampling.prior_pool import Flow

SITE = "chains of the tilted prior"  # of the mutable state


def _require(is_true: Any, sentence: str) -> None:
    def look(is_true: Any) -> None:
        if not is_true:
            raise PplebmError(sentence)

    if isinstance(is_true, jax.core.Tracer):  # a compiled update knows it only as it runs
        jax.debug.callback(look, is_true)
    else:
        look(is_true)


FLOW = Flow(jax.lax.cond, jax.lax.while_loop, _require)


class TiltedELBO(TiltedBound, Trace_ELBO):
    r"""NumPyro's `Trace_ELBO` with the negative phase of a tilt; see `pplebm.interop.tilted_bound.TiltedBound`.

    A loss of NumPyro has no memory, and a plain model none either: every call then anneals new chains, some hundred
    gradients of each. With the model `loss.with_chains(model)` in its place they live on in the state of `SVI`.

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
        >>> loss = TiltedELBO(pplebm.Program(model, data=x, backend="numpyro"), n_chains=300)
        >>> svi = SVI(loss.with_chains(model), guide, numpyro.optim.Adam(0.1), loss=loss)
        >>> found = svi.run(jax.random.key(1), 150, x, progress_bar=False)
        >>> bool(abs(found.params["slope"] - x.mean()) < 0.3)
        True
    """

    _flow = FLOW
    _unscaled = staticmethod(unscaled)

    def with_chains(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """The same model, whose state in `SVI` holds the chains of this loss, so that they live on between updates."""

        @functools.wraps(model)
        def whole(*args: Any, **kwargs: Any) -> Any:
            with handlers.block():
                rows = self._program.prior_rows(self._program.arguments(args, kwargs))
                empty = self._chains.empty(rows)
            mutable(SITE, empty)
            return model(*args, **kwargs)

        return whole

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
        param_map = dict(param_map)
        pool = param_map.pop(SITE, None)
        model = handlers.block(model, hide_fn=lambda site: site["name"] == SITE)
        found = super().loss_with_mutable_state(k_bound, param_map, model, guide, *args, **kwargs)
        with handlers.block(), handlers.trace() as statements, handlers.seed(rng_seed=0):
            handlers.substitute(model, data=jax.lax.stop_gradient(param_map))(*args, **kwargs)
        data = self._program.arguments(args, kwargs)
        value, chains = self._weighted_negative(k_negative, param_map, statements, data, pool)
        kept = found["mutable_state"] if pool is None else (found["mutable_state"] or {}) | {SITE: chains}
        return found | {"loss": found["loss"] + value, "mutable_state": kept}

    @staticmethod
    def _weight(msg: Any) -> Any:
        weight = np.ones(msg["fn"].batch_shape) * (1.0 if msg["scale"] is None else msg["scale"])
        mask = masks_of(msg)
        return weight if mask is None else jnp.where(mask, weight, 0.0)

    @staticmethod
    def _check_by_row(is_single: Any, site: str, plate: str) -> None:
        refuse = functools.partial(check_by_row, site=site, plate=plate)
        if isinstance(is_single, jax.core.Tracer):  # a compiled update knows it only as it runs
            jax.debug.callback(refuse, is_single)
        else:
            refuse(is_single)
