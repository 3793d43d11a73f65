"""Draws of a tilted prior by particles that choose their strengths, where modes are far apart and unlike."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pplebm
from pplebm.learning.adjusted import AdjustedPool
from pplebm.learning.algorithm import Algorithm
from pplebm.ppl.language import load_backend
from pplebm.sampling.annealed_draws import annealed_draws
from pplebm.sampling.weighted import Settings

SHARE, AT, WIDTH = (0.8, 0.2), (3.0, -2.5), (0.2, 0.5)  # of two modes, between which no chain travels
N, SEEDS = 600, 16
SETTINGS = Settings(n_steps=60, n_leapfrog=8, n_annealed=1)


def two_modes(backend):
    """p(z) is a mixture of two normals far out in the tails of the base N(0, 1), which is tilted to it."""
    ppl = load_backend(backend)
    if backend == "pyro":
        import pyro as host
        import torch as xp
    else:
        import jax.numpy as xp
        import numpyro as host

    def model(x):
        with host.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            bumps = [np.log(s / w) - 0.5 * ((z - a) / w) ** 2 for s, a, w in zip(SHARE, AT, WIDTH, strict=True)]
            ppl.tilt("f", xp.logaddexp(*bumps) + 0.5 * z**2)
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    return pplebm.Program(model, ppl.asarray(np.zeros(4, np.float32)), coordinates="noncentered", backend=backend)


@pytest.mark.parametrize(("backend", "group"), [("pyro", N), ("numpyro", N), ("numpyro", 200)])
def test_masses_of_modes_that_are_far_apart(backend, group):
    program = two_modes(backend)
    run = program.ppl.compiled(lambda key, params: annealed_draws(program, key, params, N, group, SETTINGS, 0.3).z)
    z = np.stack([program.ppl.to_numpy(run(program.ppl.key(s), program.params)["z"]) for s in range(SEEDS)])
    share = (z > 0).mean(1)
    error = share.std(ddof=1) / np.sqrt(SEEDS)
    assert abs(share.mean() - SHARE[0]) < 4 * error < 0.1
    for above, mean, width in zip((True, False), AT, WIDTH, strict=True):
        of_mode = [row[(row > 0) == above] for row in z]
        means, widths = np.array([a.mean() for a in of_mode]), np.array([a.std() for a in of_mode])
        for got, truth in ((means, mean), (widths, width)):
            assert abs(got.mean() - truth) < 4 * got.std(ddof=1) / np.sqrt(SEEDS) + 0.01 * width


def test_few_draws_are_apart():
    """Six draws are six of the pool's, not six particles of their own; they come from different particles."""
    program = two_modes("numpyro")
    source, algorithm = AdjustedPool(n_steps_fresh=60), Algorithm(pplebm.load("mle"), program)
    found = [
        program.ppl.to_numpy(source.draw(algorithm, program.ppl.key(s), program.params, 6, False).z["z"])
        for s in range(8)
    ]
    share = np.mean(np.stack(found) > 0)
    assert abs(share - SHARE[0]) < 4 * np.sqrt(SHARE[0] * SHARE[1] / 48)
    assert min(len(np.unique(a)) for a in found) == 6


def test_memory_grows_with_the_draws_and_not_with_their_square():
    """Twenty thousand draws would be weighed against each other by 400 million numbers."""
    program = two_modes("numpyro")
    source, algorithm = AdjustedPool(n_steps_fresh=4, n_leapfrog=2, pool=256), Algorithm(pplebm.load("mle"), program)
    draw = lambda key, params: source.draw(algorithm, key, params, 20_000, False).z
    import jax

    shapes = re.findall(r"\w\d*\[([\d,]+)\]", str(jax.make_jaxpr(draw)(program.ppl.key(0), program.params)))
    assert max(np.prod([int(n) for n in shape.split(",")]) for shape in shapes) <= 20_224 * 256
