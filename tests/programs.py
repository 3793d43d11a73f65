"""Small programs that several tests use."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

import pplebm

X = torch.linspace(-1, 1, 12).reshape(6, 2)


def two_layers(x, tilt=lambda z1, z2: pplebm.tilt("f", (z1 * z2).sum(-1))):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(0.5 * z2, 0.5 + z2.abs()).to_event(1))
        tilt(z1, z2)
        pyro.sample("x", dist.Normal(z1, 0.3).to_event(1), obs=x)
