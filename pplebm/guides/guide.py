r"""A guide: an ordinary program over the latents of another one, given data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from pplebm.data.columns import signature_of
from pplebm.errors import PplebmError
from pplebm.ppl.language import Array, Data, Key, Latents, Params
from pplebm.ppl.trees import n_rows
from pplebm.program import Program

PREFIX = "guide."  # of the guide's parameters among those of the model


class Guide:
    r"""q(z|x) as a program of the backend, with draws that are differentiable maps of standard normal noise.

    .. math:: z = T_\omega(\epsilon, x), \quad \epsilon \sim N(0, I), \qquad
              \log q(z \mid x) = \log N(\epsilon) - \log |\partial z / \partial \epsilon|

    A guide declares the latents of the model under their own names, inside the data plate, each from a distribution
    with noncentered coordinates: normal, multivariate normal, a bijection of these, or a flow of zuko or NumPyro. Any
    batch size will do.

    Args:
        model: the program whose latents are guided.
        guide: a Pyro or NumPyro function of a batch of data, as `amortized` makes it or written by hand.
        is_unconstrained: the guide's sites are the model's unconstrained coordinates, real whatever the supports are.
        shares: parameters of the guide that are called as one of the model are that one, as in Pyro's and NumPyro's own
            inference: they have no prefix, and learn from both. All of the guide's own are apart otherwise.

    Raises:
        PplebmError: for a latent that is missing, of another shape or support, or without noncentered coordinates.

    Example:
        >>> import torch, pyro, pyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pyro.sample("x", dist.Normal(z, 1.), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 0.5 ** 0.5))
        >>> program = pplebm.Program(model, data=torch.zeros(3))
        >>> exact, x = Guide(program, guide), torch.tensor([0., 1., 2.])
        >>> z, log_q = exact.draw(0, exact.params, x)
        >>> evidence = program.log_joint(program.params, z, x) - log_q  # log N(x; 0, 2) whatever z is
        >>> [round(v, 4) for v in evidence.tolist()]
        [-1.2655, -1.5155, -2.2655]
    """

    def __init__(
        self, model: Program, guide: Callable[..., Any], is_unconstrained: bool = False, shares: bool = False
    ) -> None:
        model.refuse_global_latents("a guide")
        self.ppl = model.ppl
        program = Program(_picking(guide, model.example), data=model.example, plate=model.plate, backend=model.ppl.name)
        _check(model, program, is_unconstrained)
        self._shared = frozenset(model.params) & frozenset(program.params) if shares else frozenset()
        self._centered, self._noise = program.with_coordinates("centered"), program.with_coordinates("noncentered")

    def with_params(self, params: Params) -> Guide:
        """The same guide with other parameters: its own, by their names, among `params`."""
        other = copy.copy(self)
        own = self._own(params)
        other._centered, other._noise = self._centered.with_params(own), self._noise.with_params(own)
        return other

    @property
    def params(self) -> Params:
        """Parameters by name, each name beginning with "guide."; shared ones are the model's."""
        return {PREFIX + name: a for name, a in self._centered.params.items() if name not in self._shared}

    def noise(self, key: Key, n: int) -> Latents:
        """Noise of n draws, standard normal, (n, *event) by site."""
        return self.ppl.normal_like(key, self._noise.zeros(n))

    def at(self, params: Params, noise: Latents, x: Data) -> tuple[Latents, Array]:
        """Latents that some noise leads to, and log q there.

        Args:
            params: the guide's among others, and those that it shares with the model.
            noise: (B, *event) by site.
            x: data, with a row for every draw.

        Returns:
            Latents in the model's centered coordinates, and log q(z|x), (B,); both differentiable.
        """
        z = self._noise.move(self._own(params), noise, "centered", x)
        return z, self.log_density(params, z, x)

    def draw(self, key: Key, params: Params, x: Data) -> tuple[Latents, Array]:
        """One draw per datum, and log q there; see `at`."""
        return self.at(params, self.noise(key, n_rows(x)), x)

    def log_density(self, params: Params, z: Latents, x: Data) -> Array:
        """log q(z|x), (B,), at latents in the model's centered coordinates."""
        return self._centered.total(self._centered.log_terms(self._own(params), z, x, observed=False))

    def write_back(self, params: Params) -> None:
        """Copy parameter values into the guide's own modules and parameters."""
        self._centered.write_back(self._own(params))

    def _own(self, params: Params) -> Params:
        return {name: params[name if name in self._shared else PREFIX + name] for name in self._centered.params}


def _picking(guide: Callable[..., Any], data: Data) -> Callable[..., Any]:
    """A guide that takes some of a mapping's names, as one that takes them all."""
    signature = signature_of(guide)
    if not isinstance(data, Mapping) or signature.takes_any or set(data) <= set(signature.names):
        return guide
    return lambda **data: guide(**{name: data[name] for name in signature.names if name in data})


def _check(model: Program, guide: Program, is_unconstrained: bool) -> None:
    found = {site.name: site for site in guide.latents}
    for site in model.latents:
        if site.name not in found:
            raise PplebmError(
                f"the guide has no latent '{site.name}'; it has {', '.join(found)}. Declare every latent of the model."
            )
        other = found[site.name]
        if other.shape != site.shape or (_plain(other.support) != _plain(site.support) and not is_unconstrained):
            raise PplebmError(
                f"latent '{site.name}' has shape {site.shape}, support {site.support} in the model, and "
                f"{other.shape}, {other.support} in the guide; they must agree."
            )
        if not guide.has_noncentered[site.name]:
            raise PplebmError(
                f"latent '{site.name}' of the guide is {other.distribution}, whose draws are no map of normal noise; "
                f"use a normal distribution, or a bijection of one such as LogNormal."
            )
    extra = set(found) - {site.name for site in model.latents}
    if extra or guide.tilts or guide.observed:
        more = ", ".join(sorted(extra | {s.name for s in (*guide.tilts, *guide.observed)}))
        raise PplebmError(f"the guide declares {more}, which the model does not have as latents.")


def _plain(support: str) -> str:
    """Vectors of real numbers are as unconstrained as the numbers, and zero is as far from a density as from exp."""
    if support == "real_vector" or support.startswith("independent(real"):
        return "real"
    return "positive" if support == "nonnegative" else support
