"""The NumPyro side imports neither torch nor Pyro: what it does runs where neither can be imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("jax")

ALONE = """
    import importlib.abc
    import sys

    class Refused(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("torch", "pyro"):
                raise RuntimeError(f"{name} is imported")

    sys.meta_path.insert(0, Refused())
    import numpy as np
    import numpyro
    import numpyro.distributions as dist

    import pplebm
    import pplebm.numpyro

    out = sys.argv[1]
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
"""
SAMPLED = """
    def model(x):
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
            pplebm.numpyro.tilt("f", -0.1 * (z**2).sum(-1))
            numpyro.sample("x", dist.Normal(z, 0.3).to_event(1), obs=x)

    program = pplebm.Program(model, data=x[:, :2], backend="numpyro")
    draws = pplebm.sample(program, data=x[:, :2], n_chains=2, n_draws=4, n_warmup=4, progress=False)
    tree = pplebm.to_arviz(draws, n_base=4)
    assert tree.posterior["z"].shape == (2, 4, 8, 2)
"""
FITTED = """
    small = {"latent_dim": 2, "width": 4, "depth": 1, "tilt_width": 4, "batch_size": 4}
    run = pplebm.fit("latent_ebm", x, out=out, backend="numpyro", updates=2, hyper=small, progress=False)
    assert run.metrics
    pplebm.open_run(out)
"""


@pytest.mark.parametrize("body", [SAMPLED, FITTED], ids=["sampled", "fitted"])
def test_numpyro_needs_no_torch(body, tmp_path):
    code = textwrap.dedent(ALONE) + textwrap.dedent(body)
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
