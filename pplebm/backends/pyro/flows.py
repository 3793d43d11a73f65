"""Flows (`pplebm.networks.flows`): conditional ones of zuko, and coupling layers."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.poutine.messenger import Messenger
from torch.distributions import Transform, constraints
from torch.nn import functional

from pplebm.backends.pyro.arrays import asarray
from pplebm.errors import PplebmError
from pplebm.networks.flows import Coupling, Flow, Step, log_det, through

BINS = 8  # of a spline


class Zuko(ZukoToPyro):
    """A distribution of zuko that can be transformed further, which Pyro's wrapper leaves out."""

    support = constraints.real_vector

    def rsample(self, sample_shape: Any = ()) -> torch.Tensor:
        """Draws that gradients pass through."""
        return self.dist.rsample(sample_shape)

    def expand(self, *shape: Any, **_: Any) -> Zuko:
        """The same with another batch shape."""
        return Zuko(self.dist.expand(*shape))


class KnownFlows(Messenger):
    """Sites drawn from Pyro's own wrapper tell their support as well."""

    def _pyro_sample(self, msg: Any) -> None:
        if type(msg["fn"]) is ZukoToPyro:
            msg["fn"] = Zuko(msg["fn"].dist)


class FlowNetwork(torch.nn.Module):
    """A flow with weights from a seed; called with (..., 2 size), it gives a distribution."""

    def __init__(self, flow: Flow, seed: int) -> None:
        super().__init__()
        try:
            zuko = importlib.import_module("zuko")
        except ImportError as error:
            raise PplebmError('flows in Pyro are those of zuko: pip install "pplebm[flows]", or NumPyro.') from error
        self.flow = flow
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.inner = zuko.flows.NSF(
                flow.size, 2 * flow.size, BINS, transforms=flow.n_transforms, hidden_features=(flow.width,), passes=2
            )

    def forward(self, h: torch.Tensor) -> Any:
        """The law of the vector."""
        mean, scale = h[..., : self.flow.size], functional.softplus(h[..., self.flow.size :]) + self.flow.scale_floor
        affine = dist.transforms.AffineTransform(mean, scale, event_dim=1)
        return dist.TransformedDistribution(Zuko(self.inner(h)), [affine])


class CouplingTransform(Transform):
    """Noise to a vector by coupling layers."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = steps

    def _call(self, u: torch.Tensor) -> torch.Tensor:
        return through(self.steps, torch.exp, u)

    def _inverse(self, z: torch.Tensor) -> torch.Tensor:
        return through(self.steps, torch.exp, z, backwards=True)

    def log_abs_det_jacobian(self, u: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """At noise u, whatever its vector z."""
        return log_det(self.steps, torch.exp, u)


class CouplingNetwork(torch.nn.ModuleList):
    """Networks of coupling layers; called without arguments, they give a distribution."""

    def __init__(self, flow: Coupling, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__(networks)
        self.flow = flow

    def forward(self) -> Any:
        """The law of the vector."""
        base = dist.Normal(asarray(np.zeros(self.flow.size)), 1.0).to_event(1)
        steps = list(zip(self, map(asarray, self.flow.kept()), strict=True))
        return dist.TransformedDistribution(base, [CouplingTransform(steps)])
