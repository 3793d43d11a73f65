"""The posteriors of benchmarks/posteriordb.py: on made-up data, both languages have the published densities."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pplebm

jax = pytest.importorskip("jax")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
RNG = np.random.default_rng(3)
N = 12
LOTKA = np.log([0.5, 0.03, 0.8, 0.03])  # rates at which the animals neither explode nor die out


def numbers(low=1.0, high=2.0, of=N):
    return list(RNG.uniform(low, high, of))


def flags():
    return list(RNG.integers(0, 2, N))


MESQUITE = ("diam1", "diam2", "canopy_height", "total_height", "density", "weight")
DATA = {
    "arK": {"K": 5, "y": numbers()},
    "earnings": {"earn": numbers(), "height": numbers(), "male": flags()},
    "eight_schools": {"y": numbers(of=8), "sigma": numbers(of=8)},
    "garch": {"y": numbers(), "sigma1": 0.5},
    "gp_pois_regr": {"x": list(range(-10, 12, 2)), "k": list(RNG.integers(0, 9, 11))},
    "hudson_lynx_hare": {"ts": list(range(1, 5)), "y_init": numbers(5, 30, 2), "y": [numbers(5, 30, 2)] * 4},
    "kidiq": {"kid_score": numbers(), "mom_hs": flags(), "mom_iq": numbers()},
    "low_dim_gauss_mix": {"y": numbers(-3, 3)},
    "mesquite": {name: numbers() for name in MESQUITE} | {"group": flags()},
    "nes1980": {name: numbers() for name in ("partyid7", "real_ideo", "race_adj", "educ1", "gender", "income")}
    | {"age_discrete": list(RNG.integers(1, 5, N))},
}


@pytest.fixture(scope="module")
def part():
    """A part of the benchmark by name."""
    sys.path.insert(0, str(BENCHMARKS))
    yield lambda name: importlib.import_module(f"posteriors.{name}")
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(autouse=True)
def double(float64):
    """Both languages in double precision."""
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", ("arK", "eight_schools_centered", "eight_schools_noncentered", "garch11",
    "gp_pois_regr", "kidscore_interaction", "kidscore_momhsiq", "logearn_interaction", "logmesquite_logvas",
    "lotka_volterra", "low_dim_gauss_mix", "nes"))  # fmt: skip
def test_a_declaration_has_the_published_density(part, name, ppl):
    posterior, rng = part("models").POSTERIORS[name], np.random.default_rng(0)
    model, y = posterior.declare(ppl, torch if ppl.name == "pyro" else jax.numpy, DATA[posterior.data])
    program = pplebm.Program(model, data=y, backend=ppl.name)
    z = {site.name: 0.3 * rng.normal(size=(3, *site.shape)) for site in program.latents}
    if name == "lotka_volterra":
        z["theta"] = 0.1 * z["theta"] + LOTKA
    excess = part("checks").excess(program, name, DATA[posterior.data], y, z)
    assert np.ptp(excess) < (0.01 if name == "lotka_volterra" else 1e-5)  # its solver has steps; finite differences


def test_all_posteriors_are_tested(part):
    assert set(part("models").POSTERIORS) == set(part("densities").DENSITIES) and len(part("models").POSTERIORS) == 12
    assert {p.data for p in part("models").POSTERIORS.values()} == set(DATA)
