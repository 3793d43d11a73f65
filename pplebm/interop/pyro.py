"""Langevin, MALA and other kernels for `pyro.infer.MCMC`, on any Pyro model, tilted or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model

import pplebm.backends.pyro as ppl
from pplebm.errors import PplebmError
from pplebm.kernels import adaptation
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Kernel
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.underdamped import underdamped

Tensors = dict[str, torch.Tensor]
ONE_CHAIN = (1, 1, 1)


class PyroKernel(MCMCKernel):
    r"""A kernel of pplebm as Pyro's `MCMC` wants it: one chain of the joint posterior of a model.

    The potential is Pyro's own, so plates, supports, tilts and factors mean what they mean there: one accept decision
    for all data together. `pplebm.sample` decides by datum and runs many chains at once; use it where that matters.

    Args:
        model: a Pyro model; or
        potential_fn: a function of unconstrained latents by name; needs `initial_params`.
        settings: of the kernel, see the function it is named after.

    Raises:
        PplebmError: if not one of model and potential_fn is given.

    Example:
        >>> import pyro, pyro.distributions as dist, torch, pplebm
        >>> from pyro.infer import MCMC
        >>> def model():
        ...     z = pyro.sample("z", dist.Normal(0., 1.))
        ...     pyro.factor("f", 3. * z)
        >>> pyro.set_rng_seed(0)
        >>> mcmc = MCMC(MALA(model), num_samples=500, warmup_steps=200, disable_progbar=True)
        >>> mcmc.run()
        >>> abs(mcmc.get_samples()["z"].mean() - 3.) < 0.4
        tensor(True)
    """

    _make: Callable[..., Kernel]

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Tensors], torch.Tensor] | None = None,
        **settings: Any,
    ) -> None:
        if (model is None) == (potential_fn is None):
            raise PplebmError(f"{type(self).__name__} needs a model or a potential_fn, one of them.")
        type(self)._make(ppl, **settings)  # what is wrong with the settings is told now
        self.model, self._given_potential, self._settings = model, potential_fn, settings
        self.transforms: Any = None if model is not None else {}
        self._initial: Tensors | None = None
        self._forget()

    def _forget(self) -> None:
        self._potential: Callable[[Tensors], torch.Tensor] | None = self._given_potential
        self._kernel: Kernel | None = None
        self._state: Any = None
        self._n_warmup, self._t, self._divergent, self._accept = 0, 0, list[int](), 0.0

    def __getstate__(self) -> dict[str, Any]:
        """For processes of their own: what `setup` makes is left out."""
        kept = {k: v for k, v in self.__dict__.items() if k not in ("_potential", "_kernel", "_state")}
        return kept | {"_potential": None, "_kernel": None, "_state": None}

    @property
    def initial_params(self) -> Tensors | None:
        """Where the chain starts, unconstrained."""
        return self._initial

    @initial_params.setter
    def initial_params(self, params: Tensors) -> None:
        self._initial = dict(params)

    def setup(self, warmup_steps: int, *args: Any, **kwargs: Any) -> None:
        """Begin a chain; a start that the user gave stays, everything else is new."""
        self._forget()
        self._n_warmup = warmup_steps
        self._kernel = type(self)._make(ppl, **self._settings)
        if self.model is not None:
            made, self._potential, self.transforms, _ = initialize_model(
                self.model, args, kwargs, initial_params=self._initial
            )
            self._initial = self._initial or dict(made)

    def _log_density(self, z: Tensors) -> torch.Tensor:
        assert self._potential is not None
        return -self._potential({name: a[0] for name, a in z.items()}).reshape(1)

    def sample(self, params: Tensors) -> Tensors:
        """One step."""
        assert self._kernel is not None
        z = {name: a.detach()[None] for name, a in params.items()}
        adapts = self._kernel.tuning is not None and self._n_warmup > 0
        kernel = (
            adaptation.adapting(ppl, self._kernel, ONE_CHAIN) if adapts and self._t < self._n_warmup else self._kernel
        )
        if self._state is None:
            self._state = kernel.init(z, self._log_density)
        key = int(torch.randint(2**62, ()))
        self._state, info = kernel(key, self._state, self._log_density)
        self._t += 1
        if adapts and self._t <= self._n_warmup:
            self._state = _end_of_window(self._state, self._t, self._n_warmup)
        self._tell(info)
        return {name: a[0] for name, a in self._state.z.items()}

    def _tell(self, info: Any) -> None:
        if self._t <= self._n_warmup:
            return
        n = self._t - self._n_warmup
        if bool(info.is_divergent[0]):
            self._divergent.append(n - 1)
        accept = getattr(info, "accept_prob", None)
        self._accept += (float(1.0 if accept is None else accept[0]) - self._accept) / n

    def logging(self) -> dict[str, str]:
        """What the progress bar shows."""
        step = getattr(getattr(self._state, "inner", self._state), "step_size", None)
        shown = {"acc. prob": f"{self._accept:.3f}"}
        return shown if step is None else {"step size": f"{float(step[0]):.2e}", **shown}

    def diagnostics(self) -> dict[str, Any]:
        """Draws that diverged, and the acceptance rate; the same keys on every chain."""
        return {"divergences": self._divergent, "acceptance rate": self._accept}

    def cleanup(self) -> None:
        """End of a chain: its start is forgotten, so that the next one makes its own."""
        self._initial = None
        self._forget()


def _end_of_window(state: Any, t: int, n_warmup: int) -> Any:
    at = 0
    for length, metric in adaptation.windows(n_warmup):
        at += length
        if at == t == n_warmup:
            return adaptation.adapted(ppl, state)
        if at == t:
            return adaptation.next_window(ppl, state, ONE_CHAIN, metric)
    return state


class Langevin(PyroKernel):
    """`pplebm.kernels.langevin.langevin`, unadjusted: biased by its step size, which is not adapted."""

    _make = staticmethod(langevin)


class Underdamped(PyroKernel):
    """`pplebm.kernels.underdamped.underdamped`, unadjusted."""

    _make = staticmethod(underdamped)


class Anisotropic(PyroKernel):
    """`pplebm.kernels.anisotropic.anisotropic`, unadjusted."""

    _make = staticmethod(anisotropic)


class MALA(PyroKernel):
    """`pplebm.kernels.mala.mala`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(mala)


class JitteredHMC(PyroKernel):
    """`pplebm.kernels.hmc.hmc`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(hmc)
