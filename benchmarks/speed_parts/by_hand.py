"""The same densities written out by hand, for the cost of declaring them: same kernel, same loop, no program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .published import BOUND, FLOOR
from .sizes import Size, networks

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def log_density(size: Size, ppl: Any, apply: Callable[..., Any]) -> Callable[[Any, Any, Any], Any]:
    """log p̃(x, z), or log p̃(z) without data, (B,), of the networks of a size on one backend."""
    declared, dims, tanh = networks(size), size.dims, _tanh(ppl)
    log = _log(ppl)

    def run(params: Any, name: str, a: Any) -> Any:
        own = {k.removeprefix(f"{name}."): v for k, v in params.items() if k.startswith(f"{name}.")}
        return apply(declared[name], own, a)

    def density(params: Any, z: Any, x: Any) -> Any:
        top = len(dims)
        total = (-0.5 * z[f"z{top}"] * z[f"z{top}"] - HALF_LOG_2PI).sum(-1)
        for i in range(top - 1, 0, -1):
            h = run(params, f"conditional{i}", z[f"z{i + 1}"])
            scale = ppl.softplus(h[..., dims[i - 1] :] + 0.2) + FLOOR
            e = (z[f"z{i}"] - h[..., : dims[i - 1]]) / scale
            total = total + (-0.5 * e * e - log(scale) - HALF_LOG_2PI).sum(-1)
        for i in range(1, top + 1):
            total = total + BOUND * tanh(run(params, f"tilt{i}", z[f"z{i}"])[..., 0] / BOUND)
        if x is None:
            return total
        e = (x - run(params, "decoder", z["z1"])) / size.sigma
        pixels = -0.5 * e * e - math.log(size.sigma) - HALF_LOG_2PI
        return total + pixels.reshape(len(x), -1).sum(-1)

    return density


def _tanh(ppl: Any) -> Callable[[Any], Any]:
    import importlib

    return importlib.import_module(f"pplebm.backends.{ppl.name}.layers").ACTIVATIONS["tanh"]


def _log(ppl: Any) -> Callable[[Any], Any]:
    if ppl.name == "pyro":
        import torch

        return torch.log
    import jax.numpy as jnp

    return jnp.log
