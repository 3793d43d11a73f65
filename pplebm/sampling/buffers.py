r"""Chains that live on between updates: a buffer of latents per datum, or one that all share."""

from __future__ import annotations

from typing import NamedTuple

from pplebm.errors import PplebmError
from pplebm.kernels.batch import choose, zeros
from pplebm.kernels.metropolis import log_uniform, uniform_noise
from pplebm.ppl.language import PPL, Array, Data, Key, Latents, Params
from pplebm.program import Program
from pplebm.sampling import chains


class Buffer(NamedTuple):
    """Where chains stand; part of the state of an algorithm page, so it is saved and resumed with it."""

    z: Latents  # (N, *event) by site: of datum i in row i, or of N chains of the prior that no datum owns
    age: Array  # (N,) runs since the row was drawn anew
    log_factor: Array | None = None  # (N,) logarithm of the row's step size over that of its source


def buffer(program: Program, key: Key, params: Params, rows: Data | int, init: str | Latents = "base") -> Buffer:
    """A buffer of so many chains at their start, or of one for every row of data; see `pplebm.sampling.chains.start`.

    Example:
        >>> import torch, pplebm
        >>> program = pplebm.Program(pplebm.bind("conjugate_tilt", shape=(3,)))
        >>> chains = buffer(program, 0, program.params, 100)
        >>> rows = torch.tensor([3, 5])
        >>> chains = put_rows(program.ppl, chains, rows, {k: v + 1. for k, v in take_rows(chains, rows).items()})
        >>> chains.age.sum().item()
        2.0
    """
    z = chains.start(program, key, params, rows, init)
    return Buffer(z, zeros(z), zeros(z))


def take_rows(buffer: Buffer, index: Array) -> Latents:
    """Latents of these rows, to go on from."""
    return {site: a[index] for site, a in buffer.z.items()}


def put_rows(ppl: PPL, buffer: Buffer, index: Array, z: Latents, log_factor: Array | None = None) -> Buffer:
    """The buffer with these rows moved on; an index must not hold a row twice."""
    held = {site: ppl.put(a, index, z[site]) for site, a in buffer.z.items()}
    factors = buffer.log_factor if log_factor is None else ppl.put(buffer.log_factor, index, log_factor)
    return Buffer(held, ppl.put(buffer.age, index, buffer.age[index] + 1.0), factors)


def shared_rows(program: Program, key: Key, buffer: Buffer, n: int) -> Array:
    """n different rows of a shared buffer, picked at random.

    Raises:
        PplebmError: if the buffer has fewer.
    """
    size = len(buffer.age)
    if n > size:
        raise PplebmError(f"{n} chains are wanted of a buffer of {size}; make it larger.")
    order = program.ppl.normal_like(key, {"": buffer.age})[""].argsort()
    return order[:n]


def rejuvenate(program: Program, key: Key, params: Params, z: Latents, rows: Data | int, share: float) -> Latents:
    """Latents of which a share of the rows is drawn anew from the base, so that no region is kept by habit alone.

    Args:
        rows: how many there are, or `program.prior_rows` of their data where the prior reads covariates.
        share: in [0, 1], of the rows on average; Du and Mordatch (NeurIPS 2019) take 0.05.

    Raises:
        PplebmError: for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise PplebmError(f"share must lie in [0, 1], got {share!r}.")
    ppl = program.ppl
    k_renew, k_draw = ppl.split(key)
    uniform = ppl.exp(log_uniform(ppl.normal_like(k_renew, uniform_noise(z))))
    return choose(ppl, uniform < share, chains.start(program, k_draw, params, rows, "base"), z)
