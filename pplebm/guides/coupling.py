r"""Normalizing flows of affine coupling layers, one for every row: a posterior of its own for each datum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pplebm.errors import PplebmError
from pplebm.ppl.language import PPL, Array, Latents
from pplebm.program import Program

Flow = dict[str, Array]  # weights, the first axis is the row's


def coupling(ppl: PPL, n: int, d: int, n_layers: int = 4, width: int = 32, seed: int = 0) -> Flow:
    """n flows of R^d at the identity.

    Raises:
        PplebmError: for d < 2, where nothing is left to condition on.

    Example:
        >>> import torch, pplebm.backends.pyro as ppl
        >>> flow = coupling(ppl, n=3, d=4)
        >>> z, log_det = transport(ppl, flow, torch.ones(3, 4))
        >>> z.tolist() == torch.ones(3, 4).tolist(), log_det.tolist()
        (True, [0.0, 0.0, 0.0])
    """
    if d < 2:
        raise PplebmError(f"a coupling layer splits its input, so a flow needs two latents or more; there is {d}.")
    rng, found = np.random.default_rng(seed), {}
    for i in range(n_layers):
        found[f"inner{i}"] = ppl.asarray(np.broadcast_to(rng.normal(size=(d, width)) / d**0.5, (n, d, width)).copy())
        found[f"offset{i}"] = ppl.asarray(np.broadcast_to(rng.normal(size=(1, width)), (n, 1, width)).copy())
        found[f"scale{i}"] = ppl.asarray(np.zeros((n, width, d)))
        found[f"shift{i}"] = ppl.asarray(np.zeros((n, width, d)))
    return {"location": ppl.asarray(np.zeros((n, d))), "log_width": ppl.asarray(np.zeros((n, d))), **found}


def transport(ppl: PPL, flow: Flow, u: Array) -> tuple[Array, Array]:
    r"""Move noise through the flow of its row; returns z, (B, d), and :math:`\log|\partial z/\partial u|`, (B,).

    .. math:: u \leftarrow m\,u + (1 - m)\,(u\, e^{s(m u)} + t(m u)), \qquad z = e^{w} u + l

    with m every second coordinate, in turn, s and t of one hidden layer, and |s| < 1.

    Source: Dinh, Sohl-Dickstein, Bengio (ICLR 2017), equations 7 and 8.
    """
    n, d = u.shape
    log_det: Any = 0.0 * u.sum(1)
    for i in range(sum(name.startswith("inner") for name in flow)):
        kept = ppl.asarray((np.arange(d) + i) % 2.0)
        hidden = ppl.softplus((kept * u).reshape(n, 1, d) @ flow[f"inner{i}"] + flow[f"offset{i}"])
        s, t = ((hidden @ flow[f"{name}{i}"]).reshape(n, d) * (1.0 - kept) for name in ("scale", "shift"))
        s = s / (1.0 + abs(s))
        u, log_det = kept * u + (1.0 - kept) * (u * ppl.exp(s) + t), log_det + s.sum(1)
    return ppl.exp(flow["log_width"]) * u + flow["location"], log_det + flow["log_width"].sum(1)


def latents_of(program: Program, z: Array) -> Latents:
    """Vectors, (B, d), as latents by site, in program order."""
    found, at = {}, 0
    for site in program.latents:
        size = math.prod(site.shape)
        found[site.name], at = z[:, at : at + size].reshape(len(z), *site.shape), at + size
    return found
