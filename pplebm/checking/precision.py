"""What bfloat16 inside the steps of a chain does to the gradient that drives it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pplebm.kernels.kernel import Kernel
from pplebm.kernels.langevin import LangevinState, init
from pplebm.ppl.language import PPL, Array, Latents, Params
from pplebm.program import Program


def bf16_gradient_error(program: Program, params: Params, z: Latents, x: Array) -> float:
    r"""Relative error :math:`\|g_{16} - g\| / \|g\|` of the gradient :math:`g = \nabla_z \log \tilde p(x, z)`.

    The norm is over all data and sites; :math:`g_{16}` is the gradient as chains of
    `program.with_chains(precision="bf16")` use it.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("latent_ebm", shape=(4,)))
        >>> z, x = program.draw_base(0, 8), torch.zeros(8, 4)
        >>> 0.0 < bf16_gradient_error(program, program.params, z, x) < 0.05
        True
    """
    ppl = program.ppl

    def move(ppl: PPL, noise: Any, state: LangevinState, log_density: Any) -> tuple[LangevinState, Any]:
        value, gradient = ppl.value_and_grad(log_density, state.z)
        return state._replace(z=gradient), (value,)

    kernel = Kernel("gradient", init, lambda ppl, key, z: {}, move)
    full, half = (
        program.with_chains(precision=p).chain(kernel, init(ppl, z), ppl.split(ppl.key(0), 1), params, x)[0].z
        for p in ("full", "bf16")
    )
    size = sum(float((g**2).sum()) for g in full.values())
    error = sum(float(((half[k] - g) ** 2).sum()) for k, g in full.items())
    return float(np.sqrt(error / size)) if size > 0 else 0.0
