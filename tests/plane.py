"""Quadrature over a latent of two dimensions, and programs at parameters far from where they begin."""

from __future__ import annotations

import numpy as np

import pplebm

LINE = np.linspace(-9.0, 9.0, 361)
PLANE = np.stack([a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij")], 1)
CELL = (LINE[1] - LINE[0]) ** 2


def moved(page, ppl, data, hyper, seed=2):
    """A program of a page that names its data, at parameters far from where they begin, and these."""
    shape = {name: a.shape[1:] for name, a in data.items()}
    program = pplebm.Program(pplebm.bind(page, ppl.name, shape=shape, **hyper), data=data)
    rng = np.random.default_rng(seed)
    at = {n: ppl.to_numpy(p) + 0.6 * rng.normal(size=tuple(p.shape)) for n, p in sorted(program.params.items())}
    return program.with_params({n: ppl.asarray(a) for n, a in at.items()}), at


def on_plane(program, data=None):
    """log p̃(x, z) of the one row of data, or log p̃(z), over the plane."""
    ppl, z = program.ppl, {"z1": program.ppl.asarray(PLANE)}
    if data is None:
        return ppl.to_numpy(program.log_prior(program.params, z))
    copies = program.data({name: np.repeat(a, len(PLANE), 0) for name, a in data.items()})
    return ppl.to_numpy(program.log_joint(program.params, z, copies))
