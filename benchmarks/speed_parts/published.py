"""(a) The published style of loop, written anew: eager torch, two differentiations a step, one optimiser a block.

What it keeps of the released code because it costs: tilt and generator are differentiated by separate calls; weights
stay differentiable while z moves; every call of a conditional draws a sample that is not used; every block has its own
loss, `backward` and Adam.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from pplebm.networks import layers as nets

from . import page, sizes
from .candidate import Candidate, Latents, torch_threads

Zs = list[torch.Tensor]


class Gaussian:
    """A diagonal normal distribution by mean and logarithm of the scale."""

    def __init__(self, mean: torch.Tensor, log_scale: torch.Tensor, floor: float = page.SCALE_FLOOR) -> None:
        self.mean, self.scale = mean, torch.exp(log_scale) + floor

    def rsample(self) -> torch.Tensor:
        return self.mean + self.scale * torch.randn_like(self.mean)

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        e = (z - self.mean) / self.scale
        return -0.5 * e * e - 0.5 * math.log(2 * math.pi) - torch.log(self.scale)


class Conditional(nn.Module):
    """p(zᵢ | zᵢ₊₁), returned with a draw of it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, above: torch.Tensor) -> tuple[Gaussian, torch.Tensor]:
        law = Gaussian(*self.net(above).chunk(2, 1))
        return law, law.rsample()


def module(net: nets.Net, name: str, params: dict[str, torch.Tensor]) -> nn.Sequential:
    """A net of `pplebm.networks.layers` in torch's own layers, channels first, with weights of that name."""
    layers: list[nn.Module] = []
    for i, (layer, before) in enumerate(zip(net.layers, nets.shapes(net), strict=False)):
        if isinstance(layer, nets.Dense):
            new: Any = nn.Linear(before[0], layer.units)
        elif isinstance(layer, nets.ConvTransposed):
            new = nn.ConvTranspose2d(before[2], layer.channels, layer.kernel, layer.stride, layer.padding)
        else:  # vector to one pixel of many channels, or the last image or vector to one channel
            layers.append(nn.Unflatten(1, (-1, 1, 1)) if i == 0 else nn.Flatten())
            layers += [] if i == 0 else [nn.Unflatten(1, (1, *layer.shape))]  # type: ignore[union-attr]
            continue
        new.load_state_dict({kind: params[f"{name}.{kind}_{i}"] for kind in ("weight", "bias")})
        layers.append(new)
        if layer.activation != "linear":
            layers.append(nn.LeakyReLU(0.2) if layer.activation == "leaky_relu" else nn.Tanh())
    return nn.Sequential(*layers)


class Loop:
    """Networks, optimisers, chains and the learning iteration; z[0] is next to the data."""

    def __init__(self, size: sizes.Size, device: str = "cpu", top_floor: float = 0.0) -> None:
        self.size, self.device, self.top_floor = size, device, top_floor
        params, top = sizes.program(size, "pyro").params, len(size.dims)
        built = {name: module(net, name, params).to(device) for name, net in page.nets(size.hyper, size.shape).items()}
        self.decoder = built["decoder"]
        self.conditionals = [Conditional(built[f"conditional{i}"]) for i in range(1, top)]
        self.tilts = [built[f"tilt{i}"] for i in range(1, top + 1)]

        def adam(net: nn.Module, rate: float) -> torch.optim.Adam:
            return torch.optim.Adam(net.parameters(), lr=rate)

        self.opt_decoder = adam(self.decoder, sizes.RATES["generator"])
        self.opt_conditionals = [adam(net, sizes.RATES["generator"]) for net in self.conditionals]
        self.opt_tilts = [adam(net, sizes.RATES["tilt"]) for net in self.tilts]
        self.x = torch.as_tensor(sizes.data(size)).unsqueeze(1).to(device)  # (B, 1, H, W)

    def log_base(self, z: Zs) -> torch.Tensor:
        """Sum over data of the log density of all layers, tilts left out."""
        top, zeros = z[-1], torch.zeros_like(z[-1])
        total = Gaussian(zeros, zeros, self.top_floor).log_prob(top).sum(1).sum()
        for i, conditional in enumerate(self.conditionals):
            law, _ = conditional(z[i + 1])
            total = total + law.log_prob(z[i]).sum(1).sum()
        return total

    def log_likelihood(self, z: Zs) -> torch.Tensor:
        """Sum over data of log p(x | z1), its constant left out."""
        return -0.5 / self.size.hyper.sigma**2 * ((self.decoder(z[0]) - self.x) ** 2).sum((1, 2, 3)).sum()

    def log_tilt(self, z: Zs) -> torch.Tensor:
        """Sum over data and layers of the tilts."""
        each = [tilt(z[i]).squeeze(1).sum() for i, tilt in enumerate(self.tilts)]
        return sum(each[1:], each[0])

    def chain(self, z: Zs, phase: str, noisy: bool = True) -> Zs:
        """Langevin steps of a phase; z is moved in place."""
        s = sizes.STEP_SIZES[phase]
        for _ in range(self.size.steps(phase)):
            log_generator = self.log_base(z)
            if phase == "posterior":
                log_generator = log_generator + self.log_likelihood(z)
            log_tilt = self.log_tilt(z)
            of_generator = torch.autograd.grad(log_generator, z)
            of_tilt = torch.autograd.grad(log_tilt, z)
            for i in range(len(z)):
                z[i].data += 0.5 * s * s * (of_tilt[i] + of_generator[i])
                if noisy:
                    z[i].data += s * torch.randn_like(z[i])
        return [v.detach() for v in z]

    def fresh(self) -> Zs:
        """Normal latents, to be moved."""
        return [torch.randn(self.size.batch, d, device=self.device).requires_grad_() for d in self.size.dims]

    def learn(self) -> None:
        """Both phases, then block after block."""
        positive, negative = self.chain(self.fresh(), "posterior"), self.chain(self.fresh(), "prior")
        n = self.size.batch
        _descend(self.opt_decoder, lambda: -self.log_likelihood(positive) / n)
        for i, (conditional, opt) in enumerate(zip(self.conditionals, self.opt_conditionals, strict=True)):

            def contrast(i: int = i, conditional: nn.Module = conditional) -> torch.Tensor:
                return _mean_log(conditional, negative, i) - _mean_log(conditional, positive, i)

            _descend(opt, contrast)
        for i, (tilt, opt) in enumerate(zip(self.tilts, self.opt_tilts, strict=True)):
            _descend(opt, lambda i=i, tilt=tilt: tilt(negative[i]).mean() - tilt(positive[i]).mean())


def _mean_log(conditional: nn.Module, z: Zs, i: int) -> torch.Tensor:
    law, _ = conditional(z[i + 1])
    return law.log_prob(z[i]).sum(1).mean()


def _descend(optimiser: torch.optim.Optimizer, loss: Any) -> None:
    optimiser.zero_grad()
    loss().backward()
    optimiser.step()


class Published(Candidate):
    """The loop on a number of threads."""

    def __init__(self, size: sizes.Size, place: str, threads: int | None = None) -> None:
        self.size, self.place = size, place
        self.threads = threads or torch.get_num_threads()
        self.key = "a" if threads is None else f"a-{threads}"
        where = "GPU" if place != "cpu" else f"{self.threads} thread{'s' * (self.threads > 1)}"
        self.label = f"(a) published style, eager torch, {where}"
        self.loop = Loop(size, place)

    def iteration(self) -> None:
        with torch_threads(self.threads):
            self.loop.learn()
            float(next(self.loop.tilts[-1].parameters()).detach().sum())

    def posterior(self) -> None:
        self._phase("posterior")

    def prior(self) -> None:
        self._phase("prior")

    def _phase(self, phase: str) -> None:
        with torch_threads(self.threads):
            float(self.loop.chain(self.loop.fresh(), phase)[0].sum())

    def final(self, start: Latents, phase: str) -> Latents:
        return end_of(Loop(self.size, self.place), start, phase)  # the timed one has learned since


def end_of(loop: Loop, start: Latents, phase: str) -> Latents:
    """Latents at the end of a noiseless chain."""
    z = [torch.tensor(v, device=loop.device).requires_grad_() for v in start.values()]
    return dict(zip(start, (v.cpu().numpy() for v in loop.chain(z, phase, noisy=False)), strict=True))
