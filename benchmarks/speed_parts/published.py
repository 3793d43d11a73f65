"""The published style of loop: eager torch, two `autograd.grad` calls in a posterior step, an optimiser per block.

It has the structure of the released code of Cui, Wu, Han (CVPR 2023), written anew: networks as modules, energies and
generator differentiated apart, a reparameterised draw of every conditional that nothing uses, gradients of the
learning step by `backward`. Its density is the one of the other candidates, so that equal work can be shown.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pplebm import nets
from pplebm.models import joint_ebm

from .sizes import Size, networks

Tensors = dict[str, torch.Tensor]
BOUND, FLOOR = joint_ebm.Hyper().tilt_bound, joint_ebm.Hyper().scale_floor


class AsImage(nn.Module):
    """(B, C) to (B, C, 1, 1)."""

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a[..., None, None]


def module(net: nets.Net, name: str, params: Tensors) -> nn.Sequential:
    """A net of `pplebm.nets` as torch's own layers, with weights taken from `params`."""
    layers: list[nn.Module] = []
    for i, (layer, before) in enumerate(zip(net.layers, nets.shapes(net), strict=False)):
        if isinstance(layer, nets.Reshape):
            layers.append(AsImage() if before == nets.shapes(net)[0] and len(layer.shape) == 3 else nn.Flatten())
            continue
        if isinstance(layer, nets.Dense):
            new: Any = nn.Linear(before[0], layer.units)
        else:
            assert isinstance(layer, nets.ConvTransposed)
            new = nn.ConvTranspose2d(before[2], layer.channels, layer.kernel, layer.stride, layer.padding)
        new.load_state_dict({kind: params[f"{name}.{kind}_{i}"] for kind in ("weight", "bias")})
        layers += [new] if layer.activation == "linear" else [new, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers)


class Published:
    """Networks, optimisers and one learning iteration."""

    def __init__(self, size: Size, params: Tensors) -> None:
        self.size, top = size, len(size.dims)
        built = {name: module(net, name, params) for name, net in networks(size).items()}
        self.decoder = built["decoder"]
        self.conditionals = {i: built[f"conditional{i}"] for i in range(1, top)}
        self.tilts = {i: built[f"tilt{i}"] for i in range(1, top + 1)}
        blocks = {"tilts": self.tilts.values(), "conditionals": self.conditionals.values(), "decoder": [self.decoder]}
        self.optimisers = [
            torch.optim.Adam([p for m in modules for p in m.parameters()], lr=2e-5 if name == "tilts" else 1e-4)
            for name, modules in blocks.items()
        ]

    def conditional(self, i: int, above: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and scale of z_i; a draw is made as in the released code, and not used."""
        mean, raw = self.conditionals[i](above).chunk(2, -1)
        scale = functional.softplus(raw + 0.2) + FLOOR
        torch.distributions.Normal(mean, scale).rsample()
        return mean, scale

    def log_prior(self, z: dict[int, torch.Tensor]) -> torch.Tensor:
        """Sum over data of the log density of all layers and of the tilts."""
        top = len(z)
        total = -0.5 * (z[top] ** 2).sum() - 0.5 * z[top].numel() * math.log(2 * math.pi)
        for i in range(top - 1, 0, -1):
            mean, scale = self.conditional(i, z[i + 1])
            total = total + torch.distributions.Normal(mean, scale).log_prob(z[i]).sum()
        return total + sum((BOUND * torch.tanh(self.tilts[i](z[i]) / BOUND)).sum() for i in z)

    def log_likelihood(self, z1: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Sum over data of log p(x | z1), up to its constant."""
        return -0.5 * (((x - self.decoder(z1).reshape(x.shape)) / self.size.sigma) ** 2).sum()

    def chain(
        self, z: dict[int, torch.Tensor], x: torch.Tensor | None, n_steps: int, step: float, noise: float = 1.0
    ) -> dict[int, torch.Tensor]:
        """Langevin in z itself, of p(z | x) or of the tilted prior."""
        z = {i: v.clone().detach().requires_grad_() for i, v in z.items()}
        for _ in range(n_steps):
            gradient = dict(zip(z, torch.autograd.grad(self.log_prior(z), list(z.values())), strict=True))
            if x is not None:
                gradient[1] = gradient[1] + torch.autograd.grad(self.log_likelihood(z[1], x), z[1])[0]
            for i, v in z.items():
                v.data = v.data + 0.5 * step**2 * gradient[i]
                if noise:
                    v.data = v.data + noise * step * torch.randn_like(v)
        return {i: v.detach() for i, v in z.items()}

    def start(self) -> dict[int, torch.Tensor]:
        """Normal latents."""
        return {i: torch.randn(self.size.batch, d) for i, d in enumerate(self.size.dims, start=1)}

    def posterior(self, x: torch.Tensor, n_steps: int | None = None) -> dict[int, torch.Tensor]:
        """The positive phase."""
        return self.chain(self.start(), x, n_steps or self.size.n_posterior, 0.1)

    def prior(self, n_steps: int | None = None) -> dict[int, torch.Tensor]:
        """The negative phase."""
        return self.chain(self.start(), None, n_steps or self.size.n_prior, 0.4)

    def iteration(self, x: torch.Tensor) -> None:
        """Both phases, and an update of every block."""
        positive, negative = self.posterior(x), self.prior()
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss = -self.log_prior(positive) - self.log_likelihood(positive[1], x) + self.log_prior(negative)
        (loss / self.size.batch).backward()
        for optimiser in self.optimisers:
            optimiser.step()
