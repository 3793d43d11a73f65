"""Anisotropic kernels as steps of sources: what they draw from a tilted prior of known law, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from targets import stationary

import pplebm
from pplebm.errors import PplebmError
from pplebm.learning.algorithm import Algorithm
from pplebm.learning.sources import Pool, ShortRun, kernel_of

LINE = np.linspace(-9.0, 9.0, 1201)
N, B, S, SHIFT = 6000, 0.5, 0.4, 1.0


def model(ppl):
    """N(0, 1) tilted to N(1, 1), smoothly; the data say nothing of it."""

    def model(x=None, n=None):
        with ppl.plate("data", len(x) if n is None else n):
            z = ppl.sample("z1", ppl.dist.Normal(0.0, 1.0))
            ppl.tilt("f", SHIFT * z)
            return ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    model.backend = ppl.name
    return model


def draws(ppl, source):
    program = pplebm.Program(model(ppl), data=ppl.asarray(np.zeros(4)))
    page = pplebm.load("short_run_mle")
    algorithm = Algorithm(page, program, page.Hyper(prior=source))
    found = algorithm.negative(ppl.key(0), program.params, N)
    return ppl.to_numpy(found.z["z1"]), found.info


@pytest.mark.parametrize("kernel", ["anisotropic", "anisotropic_published", "anisotropic_adjusted"])
@pytest.mark.parametrize("source", [ShortRun, Pool], ids=["short run", "pool"])
def test_fresh_chains_have_the_law_of_their_kernel(ppl, source, kernel):
    """p, or the stationary law of its steps with their own bias; published, that is far from p."""
    n = {"n_steps": 400} if source is ShortRun else {"n_steps_fresh": 400}
    z, info = draws(ppl, source(kernel=kernel, step_size=S, threshold=B, **n))
    at = LINE - SHIFT
    law = np.exp(-0.5 * at**2) / np.exp(-0.5 * at**2).sum()
    if kernel != "anisotropic_adjusted":
        gamma = S**2 * B / np.maximum(B, np.abs(at))
        bend = np.where(np.abs(at) > B, -(S**2) * B * np.sign(at) / np.maximum(at**2, 1e-9), 0.0)
        drift = -0.5 * gamma * at + 0.5 * bend * (kernel == "anisotropic")
        law = stationary(LINE, drift, np.sqrt(gamma))
    want, fourth = ((at**k * law).sum() for k in (2, 4))
    assert want == pytest.approx(1.786 if kernel == "anisotropic_published" else 1.0, rel=0.12)
    assert abs(((z - SHIFT) ** 2).mean() - want) < 5.0 * np.sqrt((fourth - want**2) / N)
    assert (float(info.accepted) < 1.0) == (kernel == "anisotropic_adjusted")


@pytest.mark.parametrize("kernel", ["anisotropic", "anisotropic_published", "anisotropic_adjusted"])
def test_a_temperature_is_refused(kernel):
    with pytest.raises(PplebmError, match="temperature"):
        kernel_of(ShortRun(kernel=kernel, temperature=0.5))
