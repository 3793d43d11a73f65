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

from pplebm.errors import PplebmError
from pplebm.interop.one_chain import OneChain
from pplebm.kernels.adaptation import AdaptingState
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import State
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.metropolis import MetropolisState
from pplebm.kernels.underdamped import underdamped
from pplebm.ppl.language import load_backend

Arrays = dict[str, jax.Array]


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


class NumPyroKernel(OneChain, MCMCKernel):
    r"""A kernel of pplebm as NumPyro's `MCMC` wants it; arguments as of `pplebm.interop.one_chain.OneChain`.

    Chains run "vectorized", "sequential", "parallel" or by `chain_method=jax.vmap`; it resumes from
    `post_warmup_state`, thins, collects extra fields, and can be a block of `numpyro.infer.Gibbs`.

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

    _ppl = load_backend("numpyro")
    _made = ("_potential_of", "_postprocess", "_inverse", "_sample_fn")
    sample_field = "z"  # type: ignore[assignment]
    default_fields = ("z", "diverging")  # type: ignore[assignment]

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Arrays], jax.Array] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, potential_fn, **settings)
        self._unbind()

    def _unbind(self) -> None:
        self._potential_of: Callable[..., Any] | None = None
        self._postprocess: Callable[..., Any] | None = None
        self._inverse: Any = None
        self._sample_fn: Callable[..., Any] | None = None  # MCMC looks at it to know whether init has run
        self._n_warmup = 0

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
        """Map from unconstrained latents to values, deterministic sites included."""
        if self._postprocess is None:
            return lambda z: z
        return self._postprocess(*model_args, **(model_kwargs or {}))

    def get_diagnostics_str(self, state: KernelState) -> str:
        """Words for the progress bar."""
        return f"step size {float(state.step_size):.2e}, acc. prob={float(state.accept_prob):.2f}"

    # --- what a block of numpyro.infer.Gibbs must be able to do

    def refresh(self, state: KernelState, model_args: Any, model_kwargs: Any) -> KernelState:
        """The same place, density and gradient anew: what the target is conditioned on has changed."""
        log_density = self._log_density(model_args, model_kwargs)
        inner = _refreshed(state.inner, self.kernel.init(self._ppl, state.inner.z, log_density))
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
        """Map from unconstrained latents to values, by their bijections alone."""
        return partial(transform_fn, self._inverse) if self._inverse is not None else lambda z: z

    # --- one chain

    def _log_density(self, model_args: Any, model_kwargs: Any) -> Callable[[Arrays], jax.Array]:
        if self._potential_of is None:
            potential = self._given_potential
            if potential is None:
                raise PplebmError(f"{type(self).__name__} has not been initialised; let MCMC call init first.")
        else:
            potential = self._potential_of(*model_args, **(model_kwargs or {}))
        return lambda z: -jnp.reshape(potential({k: v[0] for k, v in z.items()}), (1,))

    def _begin(self, z: Arrays, rng_key: Any, model_args: Any, model_kwargs: Any) -> KernelState:
        log_density = self._log_density(model_args, model_kwargs)
        row = {k: jnp.asarray(v)[None] for k, v in z.items()}
        inner = self.init_chain(row, log_density)
        zero = jnp.zeros((), jnp.result_type(float))
        value = log_density(row)[0]
        return KernelState(z, -value, zero, jnp.asarray(False), _step_size(inner), jnp.asarray(0), inner, rng_key)

    def _step(self, state: KernelState, model_args: Any, model_kwargs: Any) -> KernelState:
        rng_key, key = jax.random.split(state.rng_key)
        log_density = self._log_density(model_args, model_kwargs)

        def warming(inner: AdaptingState) -> tuple[State, Any]:
            inner, info = self.warming_step(key, inner, log_density)
            for end, change in self.window_ends():
                inner = jax.lax.cond(state.i + 1 == end, change, lambda inner: inner, inner)
            return inner, info

        settled = lambda inner: self.settled_step(key, inner, log_density)
        if self.adapts:
            inner, info = jax.lax.cond(state.i < self._n_warmup, warming, settled, state.inner)
        else:
            inner, info = settled(state.inner)
        accept = getattr(info, "accept_prob", jnp.ones(1))[0]
        value = log_density(inner.z)[0] if not hasattr(inner, "inner") else inner.inner.log_density[0]
        z = {k: v[0] for k, v in inner.z.items()}
        diverging = jnp.asarray(info.is_divergent[0], bool)
        return KernelState(z, -value, accept, diverging, _step_size(inner), state.i + 1, inner, rng_key)


def _step_size(inner: State) -> jax.Array:
    found = getattr(inner, "inner", inner)
    return found.step_size[0] if isinstance(found, MetropolisState) else jnp.asarray(jnp.nan)


def _refreshed(old: State, fresh: State) -> State:
    """The old state with density and gradient of the fresh one, its tuning and counters kept."""
    if isinstance(old, AdaptingState):
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
