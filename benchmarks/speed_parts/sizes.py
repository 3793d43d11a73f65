"""The workloads: sizes, programs, settings that make pplebm the published loop, stand-in data, operations counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

import pplebm
from pplebm.gallery.hyper import override
from pplebm.inference import short_run_mle
from pplebm.networks import layers as nets

from . import page

PHASES = ("posterior", "prior")
SEED = 0  # of weights, data and starts


class Size(NamedTuple):
    """One generator, one batch, and the steps of one learning iteration."""

    name: str
    shape: tuple[int, ...]
    batch: int
    hyper: page.Hyper
    n_posterior: int = 40
    n_prior: int = 60

    def steps(self, phase: str) -> int:
        """Length of the chains of a phase."""
        return self.n_posterior if phase == "posterior" else self.n_prior

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of z1, z2, ..."""
        return self.hyper.latent_dims


S = Size("S", (8, 8), 128, page.Hyper())
M = Size("M", (28, 28), 100, page.Hyper((32, 16), decoder="conv", width=200, depth=4, tilt_width=200, tilt_depth=3))
SIZES = {"S": S, "M": M}
STEP_SIZES = {"posterior": 0.1, "prior": 0.4}  # the published ones
RATES = {"generator": 1e-4, "tilt": 2e-5}  # the published ones


def program(size: Size, backend: str) -> pplebm.Program:
    """The page at this size as an ordinary program."""
    return pplebm.Program(pplebm.bind(page, backend, shape=size.shape, seed=SEED, **size.hyper._asdict()))


def settings(size: Size) -> short_run_mle.Hyper:
    """`short_run_mle` as the released code has it: in z itself, not adjusted, clipped or penalised, rates constant."""
    changes: Mapping[str, Any] = {
        "coordinates": "centered", "init": "normal", "kernel": "langevin", "tilt_penalty": 0.0, "clip_norm": math.inf,
        "updates": 10**9, "batch_size": size.batch, "n_steps_posterior": size.n_posterior,
        "n_steps_prior": size.n_prior, "step_size_posterior": STEP_SIZES["posterior"],
        "step_size_prior": STEP_SIZES["prior"], "learning_rate": RATES["generator"],
        "learning_rate_tilt": RATES["tilt"],
    }  # fmt: skip
    return override(short_run_mle.Hyper(), changes, "short_run_mle")


def data(size: Size) -> np.ndarray:
    """Stand-in data in [-1, 1]; what they show does not matter to the clock."""
    return np.tanh(np.random.default_rng(SEED).normal(size=(size.batch, *size.shape))).astype(np.float32)


def start(size: Size) -> dict[str, np.ndarray]:
    """Latents where the noiseless chains of the comparison start."""
    rng = np.random.default_rng(SEED + 1)
    return {f"z{i}": rng.normal(size=(size.batch, d)).astype(np.float32) for i, d in enumerate(size.dims, start=1)}


def flops(size: Size) -> dict[str, float]:
    """Multiplications and additions of one step by phase: forward, and backward to z, which is twice the forward."""
    costs = {}
    for name, net in page.nets(size.hyper, size.shape).items():
        products = 0
        for layer, before in zip(net.layers, nets.shapes(net), strict=False):
            if isinstance(layer, nets.Dense):
                products += before[0] * layer.units
            elif isinstance(layer, nets.ConvTransposed):
                products += math.prod(before) * layer.channels * math.prod(layer.kernel)
        costs[name] = 2.0 * 2.0 * products * size.batch
    prior = sum(v for name, v in costs.items() if name != "decoder")
    return {"posterior": prior + costs["decoder"], "prior": prior}


def work(size: Size) -> dict[str, float]:
    """Operations by column of the table; those of the update are left out."""
    phases = {phase: size.steps(phase) * each for phase, each in flops(size).items()}
    return {"iteration": sum(phases.values()), **phases}
