"""The generators that are timed: joint EBM priors of two or more layers at two sizes, in z itself, nothing tamed."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import pplebm
from pplebm import nets
from pplebm.hyper import override
from pplebm.inference import short_run_mle
from pplebm.models import joint_ebm


class Size(NamedTuple):
    """One workload: a generator, a batch, and the steps of one learning iteration."""

    shape: tuple[int, ...]
    dims: tuple[int, ...]  # z1, z2, ...
    batch: int
    conditional: tuple[int, int]  # hidden layers, width
    tilt: tuple[int, int]
    decoder: str = "dense"
    sigma: float = 0.3
    n_posterior: int = 40
    n_prior: int = 60
    rounds: int = 21


S = Size((64,), (16, 8), 128, (2, 128), (2, 64))
M = Size((28, 28), (32, 16), 100, (4, 200), (3, 200), "conv", rounds=5)
SIZES = {"S": S, "M": M}


def networks(size: Size) -> dict[str, nets.Net]:
    """Networks as data, named as in the page `joint_ebm`."""
    out = {"decoder": nets.decoder(size.decoder, size.dims[0], size.shape, 64, 128, 2, "leaky_relu")}
    for i, (below, above) in enumerate(zip(size.dims, size.dims[1:], strict=False), start=1):
        out[f"conditional{i}"] = nets.mlp(above, 2 * below, size.conditional[1], size.conditional[0], "leaky_relu")
    for i, dim in enumerate(size.dims, start=1):
        out[f"tilt{i}"] = nets.mlp(dim, 1, size.tilt[1], size.tilt[0], "leaky_relu")
    return out


def program(size: Size, backend: str) -> pplebm.Program:
    """The model of the page `joint_ebm` with the networks of this size."""
    page = ModuleType("speed_sizes")
    page.__dict__.update({k: v for k, v in vars(joint_ebm).items() if not k.startswith("__")})
    page.nets = lambda hyper, shape: networks(size)  # type: ignore[attr-defined]
    return pplebm.Program(pplebm.bind(page, backend, shape=size.shape, latent_dims=size.dims, sigma=size.sigma))


def settings(size: Size) -> Any:
    """Hyperparameters of `short_run_mle` that make it the published loop: in z itself, no taming, no penalty."""
    changes = {
        "coordinates": "centred", "max_drift": None, "tilt_penalty": 0.0, "clip_norm": 1e9, "batch_size": size.batch,
        "n_steps_posterior": size.n_posterior, "n_steps_prior": size.n_prior, "step_size_posterior": 0.1,
        "step_size_prior": 0.4, "updates": 10**6, "learning_rate": 1e-4, "learning_rate_tilt": 2e-5,
    }  # fmt: skip
    return override(short_run_mle.Hyper(), changes, "short_run_mle")


def data(size: Size) -> np.ndarray:
    """Stand-in data in [-1, 1]; what they show does not matter to the clock."""
    return np.tanh(np.random.default_rng(0).normal(size=(size.batch, *size.shape)))


def flops(size: Size) -> dict[str, float]:
    """Multiplications and additions of one step, forward and backward with respect to z: twice the forward pass."""
    costs = {}
    for name, net in networks(size).items():
        shapes, total = nets.shapes(net), 0
        for layer, before in zip(net.layers, shapes, strict=False):
            if isinstance(layer, nets.Dense):
                total += before[0] * layer.units
            elif isinstance(layer, nets.ConvTransposed):
                total += math.prod(before) * layer.channels * math.prod(layer.kernel)
        costs[name] = 2.0 * total * 2.0 * size.batch
    prior = sum(v for k, v in costs.items() if k != "decoder")
    return {"posterior": prior + costs["decoder"], "prior": prior}


def iteration_flops(size: Size) -> float:
    """Of all steps of one iteration; the update itself is left out."""
    each = flops(size)
    return size.n_posterior * each["posterior"] + size.n_prior * each["prior"]
