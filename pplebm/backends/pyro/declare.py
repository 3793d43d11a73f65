"""Statements of a model: the tilt, and gallery pages as ordinary Pyro callables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger

from pplebm.backends.pyro.arrays import asarray
from pplebm.backends.pyro.flows import CouplingNetwork, FlowNetwork
from pplebm.backends.pyro.layers import apply
from pplebm.backends.pyro.strings import StringsNetwork
from pplebm.data.columns import arguments_of
from pplebm.errors import PplebmError
from pplebm.networks import layers as nets
from pplebm.networks.flows import Coupling, Flow
from pplebm.networks.strings import Strings
from pplebm.ppl.trees import tree_map

sample = pyro.sample
plate = pyro.plate


def tilt(name: str, log_factor: torch.Tensor, bound: float | None = None) -> None:
    r"""Multiply the prior density by exp(f), renormalised: :math:`p(z) = e^{f(z)} p_0(z) / Z`.

    Call it inside the data plate, any number of times, on functions of any latents. What pplebm does with the
    program then holds for the tilted model. With `bound` b the factor used is :math:`b \tanh(f / b)`, so that
    :math:`|f| < b`: a guard against tilts that run away in learning, and part of the model.

    Args:
        name: a site name of its own.
        log_factor: f, shape (B,), in nats; one value per datum.
        bound: b > 0, in nats.

    Raises:
        PplebmError: if `log_factor` is not an array of one value per datum of the plate.

    Example:
        >>> import pyro, torch, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.).expand([2]).to_event(1))
        ...         tilt("f", -0.5 * z.pow(2).sum(-1))
        ...         pyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)
        >>> import pplebm
        >>> [site.name for site in pplebm.Program(model, data=torch.zeros(3, 2)).tilts]
        ['f']
    """
    if not isinstance(log_factor, torch.Tensor):
        raise PplebmError(f"tilt '{name}' got {type(log_factor).__name__}; give it a tensor of shape (B,).")
    if log_factor.dtype == torch.bool:
        raise PplebmError(
            f"tilt '{name}' got truth values; it adds nats, so give it numbers: torch.where(condition, a, b)."
        )
    if bound is not None and not bound > 0:
        raise PplebmError(f"tilt '{name}' got bound {bound}; a bound is a positive number of nats, or None.")
    f = log_factor if bound is None else bound * torch.tanh(log_factor / bound)
    unit = dist.Unit(f, validate_args=False)  # a tilt that is not finite is told by name when the program is traced
    infer: Any = {"is_auxiliary": True, "is_tilt": True, "tilt_shape": tuple(f.shape), "bound": bound}
    try:
        pyro.sample(name, unit, obs=unit.sample(), infer=infer)
    except ValueError as error:
        raise PplebmError(
            f"tilt '{name}' returned shape {tuple(log_factor.shape)}; expected one value per datum, (B,), inside the "
            f"data plate. Sum over event axes, or squeeze the last axis of a net that ends in one unit."
        ) from error


def likelihood_factor(name: str, log_factor: torch.Tensor) -> None:
    r"""Multiply the likelihood by :math:`e^{l}`: what `pyro.factor` does, and says that it is no part of the prior.

    It has no constant of its own, and is left out where data are left out: of prior draws and of log p̃(z).

    Args:
        name: a site name of its own.
        log_factor: l, shape (B,) inside the data plate, in nats.

    Example:
        >>> import pyro, torch, pyro.distributions as dist, pplebm
        >>> def model(time, censored):
        ...     with pyro.plate("data", len(time)):
        ...         log_rate = pyro.sample("log_rate", dist.Normal(0., 1.))
        ...         pplebm.likelihood_factor("survival", (1. - censored) * log_rate - time * log_rate.exp())
        >>> program = pplebm.Program(model, data={"time": torch.ones(3), "censored": torch.tensor([0., 1., 0.])})
        >>> [site.name for site in program.factors], program.log_prior(program.params, {"log_rate": torch.zeros(1)})
        (['survival'], tensor([-0.9189]))
    """
    unit = dist.Unit(log_factor, validate_args=False)
    infer: Any = {"is_auxiliary": True, "is_likelihood": True}
    pyro.sample(name, unit, obs=unit.sample(), infer=infer)


def param(name: str, init: Any) -> torch.Tensor:
    """Declare a free parameter with an initial value."""
    return pyro.param(name, lambda: asarray(np.asarray(init, dtype=float)))


class Network(torch.nn.Module):
    """A net declared as data (`pplebm.networks.layers.Net`); NumPy draws its weights: all backends start equal."""

    def __init__(self, net: nets.Net, rng: np.random.Generator) -> None:
        super().__init__()
        self.net = net
        for name, array in nets.initial_weights(net, rng).items():
            self.register_parameter(name, torch.nn.Parameter(asarray(array)))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        """Apply the layers to (..., *event)."""
        return apply(self.net, dict(self.named_parameters()), a)


class _Unscaled(Messenger):
    def _pyro_sample(self, msg: Any) -> None:
        msg["scale"] = 1.0


def unscaled(model: Callable[..., Any]) -> Callable[..., Any]:
    """The same model, whatever scales handlers set inside it."""

    @functools.wraps(model)
    def plain(*args: Any, **kwargs: Any) -> Any:
        with _Unscaled():
            return model(*args, **kwargs)

    return plain


def _in_default_precision(a: Any) -> Any:
    is_float = isinstance(a, torch.Tensor) and a.is_floating_point()
    return a.to(torch.get_default_dtype()) if is_float else a


def bind(page: Any, hyper: Any, shape: Any, seed: int) -> Callable[..., Any]:
    """Make an ordinary Pyro callable of the data of a gallery page; see `pplebm.bind`."""
    import pplebm.backends.pyro as ppl

    rng = np.random.default_rng(seed)
    modules: dict[str, torch.nn.Module] = {}
    for name, net in page.nets(hyper, shape).items():
        if isinstance(net, (Coupling, Strings)):
            law = CouplingNetwork if isinstance(net, Coupling) else StringsNetwork
            modules[name] = law(net, [Network(inner, rng) for inner in net.nets()])  # type: ignore[arg-type]
        else:
            modules[name] = FlowNetwork(net, seed + len(modules)) if isinstance(net, Flow) else Network(net, rng)

    def model(*data: Any, **named: Any) -> Any:
        for name, module in modules.items():
            pyro.module(name, module)
        data, named = tree_map(_in_default_precision, (data, named))  # that of the page's own weights
        return page.model(ppl, modules, hyper, *data, **named)

    model.__signature__ = arguments_of(page.model)  # type: ignore[attr-defined]
    model.__name__ = f"{page.__name__.rsplit('.', 1)[-1]}_model"
    if not isinstance(shape, Mapping):
        model.example = torch.zeros(2, *shape)  # type: ignore[attr-defined]
    return model
