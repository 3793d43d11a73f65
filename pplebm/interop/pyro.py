"""Langevin, MALA and other kernels for `pyro.infer.MCMC`, on any Pyro model, tilted or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model

from pplebm.interop.one_chain import OneChain
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Info
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.underdamped import underdamped
from pplebm.ppl.language import load_backend

Tensors = dict[str, torch.Tensor]


class PyroKernel(OneChain, MCMCKernel):
    r"""A kernel of pplebm as Pyro's `MCMC` wants it; arguments as of `pplebm.interop.one_chain.OneChain`.

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

    _ppl = load_backend("pyro")
    _made = ("_potential", "_state")

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Tensors], torch.Tensor] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(model, potential_fn, **settings)
        self.transforms: Any = None if model is not None else {}
        self._initial: Tensors | None = None
        self._forget()

    def _forget(self) -> None:
        self._potential: Callable[[Tensors], torch.Tensor] | None = self._given_potential
        self._state: Any = None
        self._n_warmup, self._t, self._divergent, self._accept = 0, 0, list[int](), 0.0

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
        if self._state is None:
            self._state = self.init_chain({name: a.detach()[None] for name, a in params.items()}, self._log_density)
        is_warming = self.adapts and self._t < self._n_warmup
        step = self.warming_step if is_warming else self.settled_step
        self._state, info = step(int(torch.randint(2**62, ())), self._state, self._log_density)
        self._t += 1
        for end, change in self.window_ends() if is_warming else ():
            if self._t == end:
                self._state = change(self._state)
        self._note(info)
        return {name: a[0] for name, a in self._state.z.items()}

    def _note(self, info: Info) -> None:
        """Count what `diagnostics` reports."""
        if self._t <= self._n_warmup:
            return
        n = self._t - self._n_warmup
        if bool(info.is_divergent[0]):
            self._divergent.append(n - 1)
        accept = getattr(info, "accept_prob", None)
        self._accept += (float(1.0 if accept is None else accept[0]) - self._accept) / n

    def logging(self) -> dict[str, str]:
        """Words for the progress bar."""
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
