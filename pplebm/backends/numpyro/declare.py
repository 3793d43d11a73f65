"""Statements of a model: the tilt, and gallery pages as ordinary NumPyro callables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions.distribution import Unit
from numpyro.primitives import Messenger

from pplebm.backends.numpyro.arrays import asarray
from pplebm.backends.numpyro.flows import built, coupled
from pplebm.backends.numpyro.layers import apply
from pplebm.backends.numpyro.strings import StringsLaw
from pplebm.data.columns import arguments_of
from pplebm.errors import PplebmError
from pplebm.networks import layers as nets
from pplebm.networks.flows import Coupling, Flow
from pplebm.networks.strings import Strings
from pplebm.ppl.trees import tree_map

LAWS: dict[type, Callable[..., Any]] = {Coupling: coupled, Strings: StringsLaw}  # of a net, and networks of its own
sample = numpyro.sample
plate = numpyro.plate


def tilt(name: str, log_factor: jax.Array, bound: float | None = None) -> None:
    r"""Multiply the prior density by exp(f), renormalised: :math:`p(z) = e^{f(z)} p_0(z) / Z`.

    The statement of `pplebm.tilt` for NumPyro programs; its arguments, limits and errors are the same.

    Example:
        >>> import numpyro, jax.numpy as jnp, numpyro.distributions as dist, pplebm
        >>> def model(x):
        ...     with numpyro.plate("data", len(x)):
        ...         z = numpyro.sample("z", dist.Normal(0., 1.).expand([2]).to_event(1))
        ...         tilt("f", -0.5 * (z ** 2).sum(-1))
        ...         numpyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)
        >>> program = pplebm.Program(model, data=jnp.zeros((3, 2)), backend="numpyro")
        >>> [site.name for site in program.tilts]
        ['f']
    """
    if not isinstance(log_factor, (jax.Array, np.ndarray)):
        raise PplebmError(f"tilt '{name}' got {type(log_factor).__name__}; give it an array of shape (B,).")
    if log_factor.dtype == bool:
        raise PplebmError(
            f"tilt '{name}' got truth values; it adds nats, so give it numbers: jnp.where(condition, a, b)."
        )
    if bound is not None and not bound > 0:
        raise PplebmError(f"tilt '{name}' got bound {bound}; a bound is a positive number of nats, or None.")
    f = log_factor if bound is None else bound * jnp.tanh(log_factor / bound)
    infer: Any = {"is_auxiliary": True, "is_tilt": True, "tilt_shape": tuple(f.shape), "bound": bound}
    unit = Unit(f)
    numpyro.sample(name, unit, obs=unit.sample(None), infer=infer)


def likelihood_factor(name: str, log_factor: jax.Array) -> None:
    r"""Multiply the likelihood by :math:`e^{l}`; the statement of `pplebm.likelihood_factor` for NumPyro programs.

    Example:
        >>> import numpyro, jax.numpy as jnp, numpyro.distributions as dist, pplebm
        >>> def model(y):
        ...     a = numpyro.sample("a", dist.Normal(0., 1.))
        ...     with numpyro.plate("data", len(y)):
        ...         likelihood_factor("fit", -0.5 * (y - a) ** 2)
        >>> program = pplebm.Program(model, data=jnp.zeros(3), backend="numpyro")
        >>> [site.name for site in program.factors]
        ['fit']
    """
    unit = Unit(log_factor)
    numpyro.sample(name, unit, obs=unit.sample(None), infer={"is_auxiliary": True, "is_likelihood": True})


def param(name: str, init: Any) -> jax.Array:
    """Declare a free parameter with an initial value."""
    return numpyro.param(name, asarray(np.asarray(init, dtype=float)))


class _Unscaled(Messenger):
    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            msg["scale"] = None


def unscaled(model: Callable[..., Any]) -> Callable[..., Any]:
    """The same model, whatever scales handlers set inside it."""

    def plain(*args: Any, **kwargs: Any) -> Any:
        with _Unscaled():
            return model(*args, **kwargs)

    plain.fn = model  # type: ignore[attr-defined]  # whose arguments are looked at
    return plain


def _in_default_precision(a: Any) -> Any:
    is_float = hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
    return a.astype(jnp.result_type(float)) if is_float else a


def _plain_nets(found: Mapping[str, Any]) -> dict[str, nets.Net]:
    """Networks by name, those of a law by their numbers after it, in the order in which weights are drawn."""
    plain: dict[str, nets.Net] = {}
    for name, net in found.items():
        if type(net) in LAWS:
            plain |= {f"{name}.{i}": inner for i, inner in enumerate(net.nets())}
        elif not isinstance(net, Flow):
            plain[name] = net
    return plain


def bind(page: Any, hyper: Any, shape: Any, seed: int) -> Callable[..., Any]:
    """Make an ordinary NumPyro callable of the data of a gallery page; see `pplebm.bind`."""
    import pplebm.backends.numpyro as ppl

    rng = np.random.default_rng(seed)
    found = page.nets(hyper, shape)
    laws = {name: net for name, net in found.items() if type(net) in LAWS}
    declared = _plain_nets(found)
    flows = {n: built(net, n, seed + i) for i, (n, net) in enumerate(found.items()) if isinstance(net, Flow)}
    initial = {name: tree_map(asarray, nets.initial_weights(net, rng)) for name, net in declared.items()}

    def model(*data: Any, **named: Any) -> Any:
        functions = {
            name: partial(apply, net, {k: numpyro.param(f"{name}.{k}", v) for k, v in initial[name].items()})
            for name, net in declared.items()
        } | {name: flow() for name, flow in flows.items()}
        for name, law in laws.items():
            own = [functions.pop(f"{name}.{i}") for i in range(len(law.nets()))]
            functions[name] = partial(LAWS[type(law)], law, own)
        data, named = tree_map(_in_default_precision, (data, named))  # that of the page's own weights
        return page.model(ppl, functions, hyper, *data, **named)

    model.__signature__ = arguments_of(page.model)  # type: ignore[attr-defined]
    model.__name__ = f"{page.__name__.rsplit('.', 1)[-1]}_model"
    if not isinstance(shape, Mapping):
        model.example = asarray(np.zeros((2, *shape)))  # type: ignore[attr-defined]
    return model
