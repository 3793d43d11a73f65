"""Laws of strings (`pplebm.networks.strings`) as distributions of Pyro."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import Categorical, constraints

from pplebm.networks.strings import END, Strings


class StringsNetwork(torch.nn.ModuleList):
    """Networks of a law; called with vectors, (..., latent), they give a distribution of strings, (..., T)."""

    def __init__(self, law: Strings, networks: Sequence[torch.nn.Module]) -> None:
        super().__init__(networks)
        self.law = law

    def forward(self, z: torch.Tensor) -> Any:
        """The law of strings given each vector."""
        return StringsLaw(self.law, self, z)

    def logits(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Of every symbol given those before it, (..., T, symbols)."""
        embed, read = self
        first = torch.full_like(x[..., :1], self.law.symbols)
        seen = embed(torch.concat([first, x[..., :-1]], -1))
        beside = z[..., None, :].expand(*z.shape[:-1], self.law.length, z.shape[-1])
        return read(torch.concat([seen, beside.to(seen.dtype)], -1))


class _Ended(constraints.Constraint):
    """Strings of integers below `symbols`, which are 0 from the first 0 on."""

    is_discrete, event_dim = True, 1

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols

    def check(self, value: torch.Tensor) -> torch.Tensor:
        """By string."""
        is_symbol = (value >= 0) & (value < self.symbols) & (value % 1 == 0)
        return (is_symbol & ((value == END) | ~ended(value))).all(-1)


def ended(x: torch.Tensor) -> torch.Tensor:
    """Whether an end stands before each place of a string."""
    before = (x[..., :-1] == END).cumsum(-1) > 0
    return torch.concat([torch.zeros_like(x[..., :1], dtype=torch.bool), before], -1)


class StringsLaw(TorchDistribution):
    """The law of strings given vectors."""

    arg_constraints = {}

    def __init__(self, law: Strings, networks: StringsNetwork, z: torch.Tensor) -> None:
        self.law, self.networks, self.z = law, networks, z
        super().__init__(z.shape[:-1], torch.Size([law.length]), validate_args=False)

    @property
    def support(self) -> Any:
        """Strings that end once."""
        return _Ended(self.law.symbols)

    def expand(self, batch_shape: Any, _instance: Any = None) -> StringsLaw:
        """The same with another batch shape."""
        return StringsLaw(self.law, self.networks, self.z.expand(*batch_shape, self.law.latent))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Of strings, by one pass; what follows an end has to be an end."""
        x = value.long().expand(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), self.law.length)
        log_p = self.networks.logits(x, self.z.expand(*x.shape[:-1], self.law.latent)).log_softmax(-1)
        after = torch.where(x == END, 0.0, -torch.inf).to(log_p.dtype)
        return torch.where(ended(x), after, log_p.gather(-1, x[..., None])[..., 0]).sum(-1)

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        """Draws, symbol by symbol."""
        shape = (*sample_shape, *self.batch_shape)
        z, x = self.z.expand(*shape, self.law.latent), torch.zeros(*shape, self.law.length, dtype=torch.long)
        with torch.no_grad():
            for t in range(self.law.length):
                drawn = Categorical(logits=self.networks.logits(x, z)[..., t, :]).sample()
                is_over = ended(x)[..., t] if t else torch.zeros_like(drawn, dtype=torch.bool)
                x = torch.concat([x[..., :t], torch.where(is_over, END, drawn)[..., None], x[..., t + 1 :]], -1)
        return x
