"""Langevin, MALA and other kernels for `numpyro.infer.MCMC`, on any NumPyro model, tilted or not."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.infer import HMC, init_to_uniform
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import initialize_model, transform_fn
from numpyro.util import is_prng_key

from pplebm.errors import PplebmError
from pplebm.interop.numpyro_state import Arrays, KernelState, bijections, kept, plain, restored
from pplebm.interop.one_chain import OneChain
from pplebm.kernels.adaptation import AdaptingState
from pplebm.kernels.adjusted_anisotropic import adjusted_anisotropic
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import State
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.underdamped import underdamped
from pplebm.ppl.language import load_backend


class NumPyroKernel(OneChain, MCMCKernel):
    r"""A kernel of pplebm as NumPyro's `MCMC` wants it; arguments as of `pplebm.interop.one_chain.OneChain`.

    Chains run "vectorized", "sequential", "parallel" or by `chain_method=jax.vmap`; it resumes from
    `post_warmup_state`, thins, collects extra fields (those of `KernelState`), and can be a block of
    `numpyro.infer.Gibbs`, or the inner kernel of `HMCGibbs`, `DiscreteHMCGibbs` and `HMCECS`. `step_size`, `friction`,
    `threshold` and `temperature` may be traced numbers, arguments of a function under `jax.jit` or `jax.vmap`; these
    are not checked.

    Raises:
        PplebmError: also for other settings that are traced, and inside `MixedHMC`.

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from numpyro.infer import MCMC
        >>> def model():
        ...     z = numpyro.sample("z", dist.Normal(0., 1.))
        ...     numpyro.factor("f", 3. * z)
        >>> mcmc = MCMC(MALA(model), num_warmup=200, num_samples=300, num_chains=4, chain_method="vectorized",
        ...             progress_bar=False)
        >>> mcmc.run(jax.random.key(0), extra_fields=("energy", "num_steps"))
        >>> bool(abs(mcmc.get_samples()["z"].mean() - 3.) < 0.3)
        True
        >>> import arviz
        >>> bool(arviz.bfmi(arviz.from_numpyro(mcmc)).min() > 0.3)
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
        init_strategy: Callable[..., Any] = init_to_uniform,
        **settings: Any,
    ) -> None:
        super().__init__(model, potential_fn, **{name: plain(name, value) for name, value in settings.items()})
        self._init_strategy = init_strategy
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
                keys[1],
                self.model,
                init_strategy=self._init_strategy,
                dynamic_args=True,
                model_args=model_args,
                model_kwargs=model_kwargs or {},
            )
            init_params = made.z if init_params is None else init_params
            self._inverse = bijections(trace)
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

    # --- what Gibbs, HMCGibbs, DiscreteHMCGibbs and HMCECS call

    def refresh(self, state: KernelState, model_args: Any, model_kwargs: Any) -> KernelState:
        """The same place, density and gradient anew: what the target is conditioned on has changed."""
        if not state.z:
            return state._replace(potential_energy=self.get_potential_fn(model_args, model_kwargs)({}))
        log_density = self._log_density(model_args, model_kwargs)
        fresh = self.kernel.init(self._ppl, state.inner.z, log_density)
        return state._replace(**kept(fresh, log_density))

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

    def get_potential_fn(self, model_args: Any = (), model_kwargs: Any = None) -> Callable[[Arrays], jax.Array]:
        """The potential energy as a function of unconstrained latents."""
        if self._potential_of is not None:
            return self._potential_of(*model_args, **(model_kwargs or {}))
        if self._given_potential is None:
            raise PplebmError(f"{type(self).__name__} has not been initialised; let MCMC call init first.")
        return self._given_potential

    @property
    def _adapt_step_size(self) -> bool:  # what MixedHMC reads of an inner kernel before its first step
        raise PplebmError(
            f"MixedHMC handles the momentum of numpyro.infer.HMC itself; use DiscreteHMCGibbs({type(self).__name__}"
            "(model)) for discrete sites."
        )

    # --- one chain

    def _log_density(self, model_args: Any, model_kwargs: Any) -> Callable[[Arrays], jax.Array]:
        potential = self.get_potential_fn(model_args, model_kwargs)
        return lambda z: -jnp.reshape(potential({k: v[0] for k, v in z.items()}), (1,))

    def _begin(self, z: Arrays, rng_key: Any, model_args: Any, model_kwargs: Any) -> KernelState:
        number, count = jnp.result_type(float), jnp.result_type(int)
        if z:
            log_density = self._log_density(model_args, model_kwargs)
            inner: Any = self.init_chain({k: jnp.asarray(v)[None] for k, v in z.items()}, log_density)
            found, step_size = kept(inner, log_density), self.step_size(inner)
        else:  # a model without latents: its chain stays where it is, as of NumPyro's own kernels
            potential = jnp.asarray(self.get_potential_fn(model_args, model_kwargs)({}), number)
            inner, found, step_size = (), {"z_grad": {}, "potential_energy": potential}, math.nan
        return KernelState(
            z=z,
            **found,
            energy=found["potential_energy"] if not z else jnp.asarray(math.nan, number),
            num_steps=jnp.asarray(0, count),
            accept_prob=jnp.zeros((), number),
            diverging=jnp.asarray(False),
            step_size=jnp.asarray(step_size, number),
            i=jnp.asarray(0),
            inner=inner,
            rng_key=rng_key,
        )

    def _step(self, state: KernelState, model_args: Any, model_kwargs: Any) -> KernelState:
        rng_key, key = jax.random.split(state.rng_key)
        new = state._replace(i=state.i + 1, rng_key=rng_key)
        if not state.z:
            return new._replace(
                num_steps=jnp.ones_like(state.num_steps),
                accept_prob=jnp.ones_like(state.accept_prob),
                energy=state.potential_energy,
            )
        log_density = self._log_density(model_args, model_kwargs)

        def warming(inner: AdaptingState) -> tuple[State, Any]:
            inner, info = self.warming_step(key, inner, log_density)
            for end, change in self.window_ends():
                inner = jax.lax.cond(new.i == end, change, lambda inner: inner, inner)
            return inner, info

        inner, settled = restored(state.inner, state), lambda inner: self.settled_step(key, inner, log_density)
        if self.adapts:
            inner, info = jax.lax.cond(state.i < self._n_warmup, warming, settled, inner)
        else:
            inner, info = settled(inner)
        figures: dict[str, Any] = self.figures(inner, info)._asdict()
        figures = {name: jnp.asarray(number, getattr(state, name).dtype) for name, number in figures.items()}
        return new._replace(
            z={k: v[0] for k, v in inner.z.items()},
            inner=inner,
            diverging=jnp.asarray(info.is_divergent[0], bool),
            **kept(inner, log_density),
            **figures,
        )


HMC.register(NumPyroKernel)  # in Gibbs they begin as HMC does, and HMCGibbs takes no others


class Langevin(NumPyroKernel):
    """`pplebm.kernels.langevin.langevin`, unadjusted: biased by its step size, which is not adapted."""

    _make = staticmethod(langevin)


class Underdamped(NumPyroKernel):
    """`pplebm.kernels.underdamped.underdamped`, unadjusted."""

    _make = staticmethod(underdamped)


class Anisotropic(NumPyroKernel):
    """`pplebm.kernels.anisotropic.anisotropic`, unadjusted."""

    _make = staticmethod(anisotropic)


class AdjustedAnisotropic(NumPyroKernel):
    """`pplebm.kernels.adjusted_anisotropic.adjusted_anisotropic`, its step size and scale adapted during warm-up."""

    _make = staticmethod(adjusted_anisotropic)


class MALA(NumPyroKernel):
    """`pplebm.kernels.mala.mala`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(mala)


class JitteredHMC(NumPyroKernel):
    """`pplebm.kernels.hmc.hmc`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(hmc)
