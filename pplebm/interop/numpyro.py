"""Langevin, MALA and other kernels for `numpyro.infer.MCMC`, on any NumPyro model, tilted or not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model, transform_fn
from numpyro.util import is_prng_key

import pplebm.backends.numpyro as ppl
from pplebm.errors import PplebmError
from pplebm.kernels import adaptation
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Kernel
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.metropolis import MetropolisState
from pplebm.kernels.underdamped import underdamped

Arrays = dict[str, jax.Array]
ONE_CHAIN = (1, 1, 1)


class KernelState(NamedTuple):
    """State of one chain; the names are those that NumPyro and ArviZ look for."""

    z: Arrays
    potential_energy: jax.Array
    accept_prob: jax.Array
    diverging: jax.Array
    step_size: jax.Array
    i: jax.Array  # steps done
    inner: Any  # of the kernel while it adapts, one row
    rng_key: jax.Array


class NumPyroKernel(MCMCKernel):
    r"""A kernel of pplebm as NumPyro's `MCMC` wants it: one chain of the joint posterior of a model.

    Chains run "vectorized", "sequential", "parallel" or by `chain_method=jax.vmap`; it resumes from
    `post_warmup_state`, thins, collects extra fields, and can be a block of `numpyro.infer.Gibbs`. The potential is
    NumPyro's own: one accept decision for all data together, unlike `pplebm.sample`.

    Args:
        model: a NumPyro model; or
        potential_fn: a function of unconstrained latents by name; needs `init_params`.
        settings: of the kernel, see the function it is named after.

    Raises:
        PplebmError: if not one of model and potential_fn is given.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from numpyro.infer import MCMC
        >>> def model():
        ...     z = numpyro.sample("z", dist.Normal(0., 1.))
        ...     numpyro.factor("f", 3. * z)
        >>> mcmc = MCMC(MALA(model), num_warmup=200, num_samples=300, num_chains=4, chain_method="vectorized",
        ...             progress_bar=False)
        >>> mcmc.run(jax.random.key(0))
        >>> bool(abs(mcmc.get_samples()["z"].mean() - 3.) < 0.3)
        True
    """

    _make: Callable[..., Kernel]
    sample_field = "z"  # type: ignore[assignment]
    default_fields = ("z", "diverging")  # type: ignore[assignment]

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Arrays], jax.Array] | None = None,
        **settings: Any,
    ) -> None:
        if (model is None) == (potential_fn is None):
            raise PplebmError(f"{type(self).__name__} needs a model or a potential_fn, one of them.")
        self.model, self._potential, self._settings = model, potential_fn, settings
        self._kernel = type(self)._make(ppl, **settings)
        self._unbind()

    def _unbind(self) -> None:
        self._potential_of: Callable[..., Any] | None = None
        self._postprocess: Callable[..., Any] | None = None
        self._inverse: Any = None
        self._sample_fn: Callable[..., Any] | None = None  # MCMC looks at it to know whether init has run
        self._n_warmup = 0

    def __getstate__(self) -> dict[str, Any]:
        """For other processes: what `init` makes is left out."""
        kept = dict.fromkeys(("_kernel", "_potential_of", "_postprocess", "_inverse", "_sample_fn"))
        return self.__dict__ | kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The kernel is made again."""
        self.__dict__.update(state)
        self._kernel = type(self)._make(ppl, **self._settings)

    # --- what MCMC calls

    def init(self, rng_key: Any, num_warmup: int, init_params: Any, model_args: Any, model_kwargs: Any) -> Any:
        """State of a chain, or of many for many keys."""
        self._n_warmup, single = num_warmup, is_prng_key(rng_key)
        keys = jax.random.split(rng_key) if single else jnp.swapaxes(jax.vmap(jax.random.split)(rng_key), 0, 1)
        if self.model is not None:
            made, self._potential_of, self._postprocess, trace = initialize_model(
                keys[1], self.model, dynamic_args=True, model_args=model_args, model_kwargs=model_kwargs or {}
            )
            init_params = made.z if init_params is None else init_params
            self._inverse = _bijections(trace)
        elif init_params is None:
            raise PplebmError(f"{type(self).__name__} of a potential_fn needs mcmc.run(..., init_params=...).")
        begin = partial(self._begin, model_args=model_args, model_kwargs=model_kwargs)
        self._sample_fn = self._step if single else jax.vmap(self._step, in_axes=(0, None, None))
        return begin(init_params, keys[0]) if single else jax.vmap(begin)(init_params, keys[0])

    def sample(self, state: KernelState, model_args: Any, model_kwargs: Any) -> KernelState:
        """One step of every chain of the state."""
        assert self._sample_fn is not None, "init must run before sample"
        return self._sample_fn(state, model_args, model_kwargs)

    def postprocess_fn(self, model_args: Any, model_kwargs: Any) -> Callable[..., Any]:
        """From unconstrained latents to values, deterministic sites included."""
        if self._postprocess is None:
            return lambda z: z
        return self._postprocess(*model_args, **(model_kwargs or {}))

    def get_diagnostics_str(self, state: KernelState) -> str:
        """What the progress bar shows."""
        return f"step size {float(state.step_size):.2e}, acc. prob={float(state.accept_prob):.2f}"

    # --- what a block of numpyro.infer.Gibbs must be able to do

    def refresh(self, state: KernelState, model_args: Any, model_kwargs: Any) -> KernelState:
        """The same place, density and gradient anew: what the target is conditioned on has changed."""
        log_density = self._log_density(model_args, model_kwargs)
        fresh = self._kernel.init(state.inner.z, log_density)
        inner = _refreshed(state.inner, fresh)
        return state._replace(inner=inner, potential_energy=-log_density(state.inner.z)[0])

    def wrap_model(self, wrapper: Callable[..., Any]) -> NumPyroKernel:
        """A copy on the wrapped model."""
        if self.model is None:
            raise PplebmError(f"{type(self).__name__} of a potential_fn cannot be a block of Gibbs.")
        other = copy.copy(self)
        other.model = wrapper(self.model)
        other._unbind()
        return other

    def get_constrain_fn(self, model_args: Any, model_kwargs: Any) -> Callable[..., Any]:
        """From unconstrained latents to values, by their bijections alone."""
        return partial(transform_fn, self._inverse) if self._inverse is not None else lambda z: z

    # --- one chain

    def _log_density(self, model_args: Any, model_kwargs: Any) -> Callable[[Arrays], jax.Array]:
        if self._potential_of is None:
            potential = self._potential
            if potential is None:
                raise PplebmError(f"{type(self).__name__} has not been initialised; let MCMC call init first.")
        else:
            potential = self._potential_of(*model_args, **(model_kwargs or {}))
        return lambda z: -jnp.reshape(potential({k: v[0] for k, v in z.items()}), (1,))

    @property
    def _adapts(self) -> bool:
        return self._kernel.tuning is not None and self._n_warmup > 0

    def _begin(self, z: Arrays, rng_key: Any, model_args: Any, model_kwargs: Any) -> KernelState:
        kernel = adaptation.adapting(ppl, self._kernel, ONE_CHAIN) if self._adapts else self._kernel
        log_density = self._log_density(model_args, model_kwargs)
        row = {k: jnp.asarray(v)[None] for k, v in z.items()}
        inner = kernel.init(row, log_density)
        zero = jnp.zeros((), jnp.result_type(float))
        value = log_density(row)[0]
        return KernelState(z, -value, zero, jnp.asarray(False), _step_size(inner), jnp.asarray(0), inner, rng_key)

    def _step(self, state: KernelState, model_args: Any, model_kwargs: Any) -> KernelState:
        rng_key, key = jax.random.split(state.rng_key)
        log_density = self._log_density(model_args, model_kwargs)

        def plain(inner: Any) -> Any:
            return self._kernel(key, inner, log_density)

        def warming(inner: Any) -> Any:
            moved, info = adaptation.adapting(ppl, self._kernel, ONE_CHAIN)(key, inner, log_density)
            return self._end_of_window(moved, state.i + 1), info

        def settled(inner: Any) -> Any:
            moved, info = plain(inner.inner)
            return inner._replace(inner=moved), info

        if self._adapts:
            inner, info = jax.lax.cond(state.i < self._n_warmup, warming, settled, state.inner)
        else:
            inner, info = plain(state.inner)
        accept = getattr(info, "accept_prob", jnp.ones(1))[0]
        value = log_density(inner.z)[0] if not hasattr(inner, "inner") else inner.inner.log_density[0]
        z = {k: v[0] for k, v in inner.z.items()}
        diverging = jnp.asarray(info.is_divergent[0], bool)
        return KernelState(z, -value, accept, diverging, _step_size(inner), state.i + 1, inner, rng_key)

    def _end_of_window(self, inner: Any, t: jax.Array) -> Any:
        """Every window ends at its own step; at the last the step size is settled."""
        at = 0
        for length, metric in adaptation.windows(self._n_warmup):
            at += length

            def end(inner: Any, last: bool = at == self._n_warmup, metric: bool = metric) -> Any:
                if last:
                    return inner._replace(inner=adaptation.adapted(ppl, inner))
                return adaptation.next_window(ppl, inner, ONE_CHAIN, metric)

            inner = jax.lax.cond(t == at, end, lambda inner: inner, inner)
        return inner


def _step_size(inner: Any) -> jax.Array:
    found = getattr(inner, "inner", inner)
    return found.step_size[0] if isinstance(found, MetropolisState) else jnp.asarray(jnp.nan)


def _refreshed(old: Any, fresh: Any) -> Any:
    """The old state with density and gradient of the fresh one, its tuning and counters kept."""
    if isinstance(old, adaptation.AdaptingState):
        return old._replace(inner=_refreshed(old.inner, fresh))
    cached = {name: getattr(fresh, name) for name in ("log_density", "gradient") if hasattr(old, name)}
    return old._replace(**cached)


def _bijections(trace: dict[str, Any]) -> dict[str, Any]:
    from numpyro.distributions import biject_to

    latents = {n: s for n, s in trace.items() if s["type"] == "sample" and not s["is_observed"]}
    return {name: biject_to(site["fn"].support) for name, site in latents.items()}


class Langevin(NumPyroKernel):
    """`pplebm.kernels.langevin.langevin`, unadjusted: biased by its step size, which is not adapted."""

    _make = staticmethod(langevin)


class Underdamped(NumPyroKernel):
    """`pplebm.kernels.underdamped.underdamped`, unadjusted."""

    _make = staticmethod(underdamped)


class Anisotropic(NumPyroKernel):
    """`pplebm.kernels.anisotropic.anisotropic`, unadjusted."""

    _make = staticmethod(anisotropic)


class MALA(NumPyroKernel):
    """`pplebm.kernels.mala.mala`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(mala)


class JitteredHMC(NumPyroKernel):
    """`pplebm.kernels.hmc.hmc`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(hmc)
