"""The evidence lower bound of a tilted program for `pyro.infer.SVI`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import Trace_ELBO

from pplebm.backends.pyro.declare import unscaled
from pplebm.backends.pyro.keys import seeded
from pplebm.backends.pyro.sites import masks_of
from pplebm.backends.structure import check_by_row
from pplebm.errors import PplebmError
from pplebm.interop.tilted_bound import TiltedBound
from pplebm.sampling.prior_pool import Flow, Pool


def _until(goes_on: Callable[[Any], Any], step: Callable[[Any], Any], at: Any) -> Any:
    while goes_on(at):
        at = step(at)
    return at


def _require(is_true: torch.Tensor, sentence: str) -> None:
    if not is_true:
        raise PplebmError(sentence)


FLOW = Flow(lambda test, yes, no, at: yes(at) if test else no(at), _until, _require)


class TiltedELBO(TiltedBound, Trace_ELBO):
    r"""Pyro's `Trace_ELBO` with the negative phase of a tilt; see `pplebm.interop.tilted_bound.TiltedBound`.

    The chains live in the loss, `chains`, from call to call; set it to None for new ones.

    Example:
        >>> import pyro.distributions as dist, pplebm
        >>> from pyro.infer import SVI
        >>> def model(x):
        ...     slope = pyro.param("slope", torch.tensor(0.))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0., 1.))
        ...         pplebm.tilt("f", slope * z)  # makes the prior N(slope, 1)
        ...         pyro.sample("x", dist.Normal(z, 0.1), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x, 0.1))
        >>> pyro.clear_param_store(); pyro.set_rng_seed(0)
        >>> x = 2. + torch.randn(200)
        >>> loss = TiltedELBO(pplebm.Program(model, data=x), n_chains=300)
        >>> svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), loss=loss)
        >>> for _ in range(150): _ = svi.step(x)
        >>> abs(pyro.param("slope").item() - x.mean().item()) < 0.3
        True
    """

    _flow = FLOW
    _unscaled = staticmethod(unscaled)
    chains: Pool | None = None
    _check_by_row = staticmethod(check_by_row)

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Value, and gradients added to those of the parameters."""
        value = super().loss_and_grads(model, guide, *args, **kwargs)
        self._of_call(model, args, kwargs).backward()
        return value

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """A tensor of the same value, to be differentiated by torch."""
        return super().differentiable_loss(model, guide, *args, **kwargs) + self._of_call(model, args, kwargs)

    def _of_call(self, model: Callable[..., Any], args: Any, kwargs: Any) -> torch.Tensor:
        with poutine.block():  # SVI notes the parameters that it meets; those of chains are not to be met
            with torch.no_grad(), seeded(0):
                statements: Any = poutine.trace(model).get_trace(*args, **kwargs).nodes
            leaves = dict(pyro.get_param_store().named_parameters())
            data = self._program.arguments(args, kwargs)
            key = int(torch.randint(2**62, ()))
            value, self.chains = self._weighted_negative(key, leaves, statements, data, self.chains)
            return value

    @staticmethod
    def _weight(msg: Any) -> torch.Tensor:
        weight = scale_and_mask(torch.ones(msg["fn"].batch_shape), msg["scale"], msg["mask"])
        mask = masks_of(msg)
        return weight if mask is None else torch.where(mask, weight, 0.0)
