"""The two languages under one face: what a program of the zoo is written against."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any


class Host:
    """Statements, distributions, handlers and arrays of a language.

    `xp` is torch or jax.numpy; programs call what both of them have, with axes by position.
    """

    name: str
    package: Any  # pyro or numpyro
    xp: Any
    handlers: Any
    tilt: Callable[..., None]

    @property
    def dist(self) -> Any:
        """Distributions."""
        return self.package.distributions

    def sample(self, name: str, fn: Any, **more: Any) -> Any:
        """A sample statement."""
        return self.package.sample(name, fn, **more)

    def plate(self, name: str, size: int, dim: int | None = None) -> Any:
        """A plate."""
        return self.package.plate(name, size, dim=dim)

    def param(self, name: str, init: Any, **more: Any) -> Any:
        """A parameter."""
        return self.package.param(name, self.array(init), **more)

    def deterministic(self, name: str, value: Any) -> Any:
        """A value that is kept."""
        return self.package.deterministic(name, value)

    def factor(self, name: str, log_factor: Any) -> Any:
        """The host's own factor."""
        return self.package.factor(name, log_factor)

    def scale(self, scale: Any) -> Any:
        """A handler, as a context."""
        return self.handlers.scale(scale=scale)

    def mask(self, mask: Any) -> Any:
        """A handler, as a context."""
        return self.handlers.mask(mask=mask)

    def reparam(self, model: Callable[..., Any], config: dict[str, Any]) -> Callable[..., Any]:
        """A model with some of its sites reparametrised."""
        return self.handlers.reparam(model, config=config)

    def array(self, values: Any) -> Any:
        """An array of the host, dtype kept; floats are double."""
        raise NotImplementedError

    def likelihood_factor(self, name: str, log_factor: Any) -> Any:
        """A factor of the likelihood, as pplebm writes it."""
        raise NotImplementedError

    def steps(self, n: int) -> Any:
        """Time steps of a Markov loop."""
        return range(n)

    def logsumexp(self, a: Any, axis: int) -> Any:
        """log of a sum of exponentials."""
        raise NotImplementedError


class PyroHost(Host):
    """Pyro and torch."""

    name = "pyro"

    def __init__(self) -> None:
        import pyro
        import pyro.distributions
        import pyro.infer.reparam
        import torch

        import pplebm

        self.package, self.xp, self.handlers, self.tilt = pyro, torch, pyro.poutine, pplebm.tilt
        self.LocScaleReparam = pyro.infer.reparam.LocScaleReparam

    def array(self, values: Any) -> Any:
        """A tensor."""
        values = self.xp.as_tensor(values)
        return values.to(self.xp.get_default_dtype()) if values.is_floating_point() else values

    def likelihood_factor(self, name: str, log_factor: Any) -> Any:
        """Of Pyro programs."""
        import pplebm

        return pplebm.likelihood_factor(name, log_factor)

    def steps(self, n: int) -> Any:
        """Time steps of a Markov loop."""
        return self.package.markov(range(n))

    def logsumexp(self, a: Any, axis: int) -> Any:
        """log of a sum of exponentials."""
        return self.xp.logsumexp(a, axis)


class NumPyroHost(Host):
    """NumPyro and JAX."""

    name = "numpyro"

    def __init__(self) -> None:
        import jax
        import numpyro
        import numpyro.distributions
        import numpyro.infer.reparam

        self._numpyro = importlib.import_module("pplebm.numpyro")
        self.jax, self.package, self.xp, self.handlers = jax, numpyro, jax.numpy, numpyro.handlers
        self.tilt = self._numpyro.tilt
        self.LocScaleReparam = numpyro.infer.reparam.LocScaleReparam

    def array(self, values: Any) -> Any:
        """An array of JAX."""
        return self.xp.asarray(values)

    def likelihood_factor(self, name: str, log_factor: Any) -> Any:
        """Of NumPyro programs."""
        return self._numpyro.likelihood_factor(name, log_factor)

    def logsumexp(self, a: Any, axis: int) -> Any:
        """log of a sum of exponentials."""
        return self.jax.scipy.special.logsumexp(a, axis)


class Watched:
    """A host that remembers the plates of one run, in which further statements can then be made."""

    def __init__(self, host: Host) -> None:
        self._host, self.plates = host, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def plate(self, name: str, size: int, dim: int | None = None) -> Any:
        """A plate; the first of its name is kept."""
        made = self._host.plate(name, size, dim)
        return self.plates.setdefault(name, made) and made


class Unobserved:
    """A host whose programs observe nothing: they draw, inside loops as well."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def sample(self, name: str, fn: Any, obs: Any = None) -> Any:
        """A sample statement without its observation."""
        return self._host.sample(name, fn)


@functools.cache
def host(name: str) -> Host:
    """The language of that name."""
    return {"pyro": PyroHost, "numpyro": NumPyroHost}[name]()
