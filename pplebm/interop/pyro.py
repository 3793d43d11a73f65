"""Langevin, MALA and other kernels for `pyro.infer.MCMC`, on any Pyro model, tilted or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.infer.autoguide import init_to_uniform
from pyro.infer.mcmc.mcmc_kernel import MCMCKernel
from pyro.infer.mcmc.util import initialize_model

from pplebm.errors import PplebmError
from pplebm.interop.one_chain import Figures, OneChain
from pplebm.kernels.adjusted_anisotropic import adjusted_anisotropic
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.hmc import hmc
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.underdamped import underdamped
from pplebm.ppl.language import load_backend

Tensors = dict[str, torch.Tensor]


class _Transforms(dict[str, Any]):
    """Transforms by site, which tell of a site that has none."""

    def __missing__(self, site: str) -> Any:
        raise PplebmError(f"transforms lacks site '{site}'; give every latent site one, or give none at all.")


class PyroKernel(OneChain, MCMCKernel):
    r"""A kernel of pplebm as Pyro's `MCMC` wants it; arguments as of `pplebm.interop.one_chain.OneChain`, and

    Args:
        transforms: by site, from its support to unconstrained space, as of Pyro's HMC and NUTS: all sites of a model or
            none, and then Pyro chooses; of a potential_fn those of which draws are to come back on their supports.

    Raises:
        PplebmError: also for transforms that lack a site of the model.

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

    `mcmc.diagnostics()` has the figures of every draw, from which ArviZ tells how well energies are explored:

        >>> import arviz
        >>> energies = list(mcmc.diagnostics()["energy"].values())
        >>> bool(0.05 < arviz.bfmi(torch.stack(energies).numpy())[0] < 2.)
        True
    """

    _ppl = load_backend("pyro")
    _made = ("_potential", "_state")

    def __init__(
        self,
        model: Callable[..., Any] | None = None,
        potential_fn: Callable[[Tensors], torch.Tensor] | None = None,
        transforms: Mapping[str, Any] | None = None,
        init_strategy: Callable[..., Any] = init_to_uniform,
        **settings: Any,
    ) -> None:
        super().__init__(model, potential_fn, **settings)
        self._given_transforms = None if transforms is None else _Transforms(transforms)
        self._init_strategy = init_strategy
        self.transforms: Any = {} if transforms is None and model is None else self._given_transforms
        self._initial: Tensors | None = None
        self._forget()

    def _forget(self) -> None:
        self._potential: Callable[[Tensors], torch.Tensor] | None = self._given_potential
        self._state: Any = None
        self._n_warmup, self._t, self._divergent, self._accept = 0, 0, list[int](), 0.0
        self._figures = list[Figures]()  # of the draws

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
                self.model,
                args,
                kwargs,
                transforms=self._given_transforms,
                init_strategy=self._init_strategy,
                initial_params=self._initial,
            )
            self._initial = self._initial or dict(made)

    def _log_density(self, z: Tensors) -> torch.Tensor:
        assert self._potential is not None
        return -self._potential({name: a[0] for name, a in z.items()}).reshape(1)

    def sample(self, params: Tensors) -> Tensors:
        """One step; of a model without latents the step of nothing, as of Pyro's HMC and NUTS."""
        self._t += 1
        if not params:
            assert self._potential is not None
            self._note(Figures(1.0, 1, self._potential({}), math.nan), False)
            return {}
        if self._state is None:
            self._state = self.init_chain({name: a.detach()[None] for name, a in params.items()}, self._log_density)
        is_warming = self.adapts and self._t <= self._n_warmup
        step = self.warming_step if is_warming else self.settled_step
        self._state, info = step(int(torch.randint(2**62, ())), self._state, self._log_density)
        for end, change in self.window_ends() if is_warming else ():
            if self._t == end:
                self._state = change(self._state)
        self._note(self.figures(self._state, info), bool(info.is_divergent[0]))
        return {name: a[0] for name, a in self._state.z.items()}

    def _note(self, figures: Figures, is_divergent: bool) -> None:
        """Keep what `diagnostics` reports."""
        if self._t <= self._n_warmup:
            return
        n = self._t - self._n_warmup
        if is_divergent:
            self._divergent.append(n - 1)
        self._figures.append(Figures(*(float(number) for number in figures)))
        self._accept += (self._figures[-1].accept_prob - self._accept) / n

    def logging(self) -> dict[str, str]:
        """Words for the progress bar."""
        shown = {"acc. prob": f"{self._accept:.3f}"}
        return shown if self._state is None else {"step size": f"{float(self.step_size(self._state)):.2e}", **shown}

    def diagnostics(self) -> dict[str, Any]:
        """Draws that diverged and the acceptance rate, as of Pyro's HMC; and figures of every draw, (draws,) each.

        The same keys on every chain; a site that has the name of a figure keeps its own diagnostics.
        """
        found = torch.tensor(self._figures, dtype=torch.get_default_dtype()).reshape(-1, len(Figures._fields))
        sites = () if self._state is None else self._state.z
        by_draw = {name: column for name, column in zip(Figures._fields, found.T) if name not in sites}
        return {"divergences": self._divergent, "acceptance rate": self._accept, **by_draw}

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


class AdjustedAnisotropic(PyroKernel):
    """`pplebm.kernels.adjusted_anisotropic.adjusted_anisotropic`, its step size and scale adapted during warm-up."""

    _make = staticmethod(adjusted_anisotropic)


class MALA(PyroKernel):
    """`pplebm.kernels.mala.mala`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(mala)


class JitteredHMC(PyroKernel):
    """`pplebm.kernels.hmc.hmc`, with step size and diagonal metric adapted during warm-up."""

    _make = staticmethod(hmc)
