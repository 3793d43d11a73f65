"""Verdicts: the right cause for chains whose sickness is known, and none for healthy ones."""

from __future__ import annotations

import numpy as np
import pytest
from conjugate import BACKENDS, instance

import pplebm
from pplebm.kernels.hmc import hmc
from pplebm.ppl.language import load_backend
from pplebm.sampling.convergence import figures
from pplebm.sampling.diagnostics import diagnose
from pplebm.sampling.draws import Draws, Plan
from pplebm.sampling.sampler import sample
from pplebm.sampling.to_arviz import import_arviz

D, N = 6, 1000


@pytest.fixture(scope="module")
def program():
    """Independent standard normals, (data, D)."""
    ppl = load_backend("pyro")

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(ppl.asarray(np.zeros(D)), 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z[..., 0], 1e3), obs=x)

    return pplebm.Program(model, data=np.zeros(3, np.float32))


def correlated(rng, shape, rho):
    """Autoregressions along axis 1, standard normal each."""
    noise = rng.normal(size=shape)
    x = noise.copy()
    for t in range(1, shape[1]):
        x[:, t] = rho * x[:, t - 1] + (1 - rho**2) ** 0.5 * noise[:, t]
    return x


def chains(seed, rho=0.3, shape=(4, N, D)):
    """Healthy chains and their statistics: what a test makes sick."""
    rng = np.random.default_rng(seed)
    z = correlated(rng, shape, rho)
    stats = {"accept_prob": rng.uniform(0.6, 1, z.shape[:-1]), "is_divergent": rng.uniform(size=z.shape[:-1]) < 0.003}
    return rng, z, stats | {"log_density": -0.5 * (z**2).sum(-1)}


def as_draws(program, z, stats, kernel="('hmc', 8)"):
    rng = np.random.default_rng(0)
    data = program.ppl.asarray(np.zeros(z.shape[2], np.float32)) if z.ndim == 4 else None
    plan = Plan("", kernel, z.shape[0], 1, z.shape[1], 1000, 1, 0, (), 4)
    found = Draws(program, program.params, data, plan, None)
    energy = -stats["log_density"] + 0.5 * rng.chisquare(D, stats["log_density"].shape)
    found.add({"z": z.astype(np.float32)}, {"energy": energy} | stats)
    return found


def stuck(rng, z, stats):
    for a in (z, stats["log_density"]):
        a[2] = a[2, :1]


def stuck_for_a_while(rng, z, stats):
    for a in (z, stats["log_density"]):
        a[2, 300:600] = a[2, 300]


def modes(rng, z, stats):
    z[2:] += 6 / D**0.5


def start(rng, z, stats):
    z[3, :, 0] += 6
    stats["log_density"][3] -= 30


def warm_up(rng, z, stats):
    z += 20 * np.exp(-np.arange(N) / 100)[None, :, None]
    stats["log_density"] = -0.5 * (z**2).sum(-1)


def late(rng, z, stats):
    z[1] += 20 * np.exp(-np.arange(N) / 100)[:, None]
    stats["log_density"] = -0.5 * (z**2).sum(-1)


def drift(rng, z, stats):
    z[..., 0] += np.linspace(0, 4, N)


def slow(rng, z, stats):
    z[..., 1] = correlated(rng, z.shape[:2], 0.99)


def gathered(rng, z, stats):
    stats["is_divergent"] = (z[..., 0] < -1.3) & (rng.uniform(size=z.shape[:2]) < 0.08)


def often(rng, z, stats):
    stats["is_divergent"] = rng.uniform(size=z.shape[:2]) < 0.05


def energy(rng, z, stats):
    stats["energy"] = np.cumsum(rng.normal(size=z.shape[:2]), 1)


SICK = {
    stuck: ("stuck", "chain 2 is stuck (1 distinct"), stuck_for_a_while: ("stuck", "300 equal ones in a row"),
    modes: ("modes", "chains 2 and 3"), start: ("start", "chain 3 settled"), warm_up: ("warm-up", "all chains"),
    late: ("warm-up", "chain 1 rose"), drift: ("warm-up", "z[0] drifts"), slow: ("trajectories", "z[1] has"),
    gathered: ("divergences", "z[0] is small"), often: ("divergences", "more than 1%"), energy: ("energy", "BFMI 0.0"),
}  # fmt: skip


@pytest.mark.parametrize("sicken", SICK, ids=lambda f: f.__name__)
def test_the_cause_is_named_with_chain_and_figure(program, sicken):
    cause, words = SICK[sicken]
    for seed in range(5):
        rng, z, stats = chains(seed)
        sicken(rng, z, stats)
        found = diagnose(as_draws(program, z, stats), n_elsewhere=0)
        assert found.causes == [cause] and words in found.verdict[0], found.verdict


def test_no_cause_is_found_in_healthy_chains(program):
    """100 runs, antithetic, independent and sticky in turn, with scattered divergences; some R-hats are above 1.01."""
    found = [
        diagnose(as_draws(program, *chains(i, rho)[1:]), n_elsewhere=0)
        for i, rho in zip(range(100), 34 * [-0.5, 0, 0.7])
    ]
    assert sum(bool(f.verdict) for f in found) <= 1
    assert sum(max(row.r_hat for row in f.rows) > 1.01 for f in found) > 3 and all(f.n_divergent for f in found)


def test_sick_data_are_named(program):
    _, z, stats = chains(0, shape=(4, N, 9, D))
    for a in (z, stats["log_density"]):
        a[1, :, 4] = a[1, :1, 4]
    z[:, :, 7, 2] = correlated(np.random.default_rng(1), (4, N), 0.99)
    z[:, :, 8, 2] = correlated(np.random.default_rng(2), (4, N), 0.999)
    found = diagnose(as_draws(program, z, stats), n_elsewhere=0)
    assert {f.cause: f.data for f in found.findings} == {"stuck": (4,), "trajectories": (7, 8)}
    assert "chain 1 of datum 4" in found.verdict[0] and "z[8,2]" in found.verdict[1] and "datum 7" in found.verdict[1]


def test_chains_that_are_not_finite_are_named(program):
    _, z, stats = chains(0)
    z[0, 5:] = np.nan
    assert "chain 0 left the finite numbers" in diagnose(as_draws(program, z, stats), n_elsewhere=0).verdict[0]


def test_the_remedy_knows_the_kernel(program):
    rng, z, stats = chains(0)
    slow(rng, z, stats)
    for kernel, words in (("('hmc', 8)", "longer than hmc's 8"), ("('mala', 0.1)", "mala walks"), ("new", "longer")):
        assert words in diagnose(as_draws(program, z, stats, kernel), n_elsewhere=0).verdict[0]


@pytest.mark.parametrize(
    ("shape", "rho"), [((4, 200), 0.5), ((4, 101), 0.95), ((8, 20), -0.5), ((1, 60), 0.3), ((3, 9), 0.9), ((2, 4), 0.0)]
)
@pytest.mark.parametrize("is_tied", [False, True])
def test_figures_of_many_scalars_are_those_of_arviz(shape, rho, is_tied):
    arviz, x = import_arviz(), correlated(np.random.default_rng(0), (*shape, 5), rho)
    x = np.round(x, 1) if is_tied else x
    for i, row in enumerate(zip(*figures(x), strict=True)):
        a = x[:, :, i]
        r_hat = float(arviz.rhat(a, method="rank")) if len(a) > 1 else np.nan
        ess = arviz.ess(a, method="bulk"), arviz.ess(a, method="tail", prob=(0.05, 0.95))
        expected = [a.mean(), a.std(ddof=1), float(arviz.mcse(a, method="mean")), *map(float, ess), r_hat]
        np.testing.assert_allclose(row, expected, rtol=1e-8)


# --- chains of real kernels


def double_well(backend, slope=0.0):
    """Modes near -4 and 4, fifty nats between them; the upper one has e^{8 slope} the weight of the other."""
    ppl = load_backend(backend)

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 3.0))
            ppl.tilt("f", -0.2 * (z**2 - 16.0) ** 2 + slope * z)
            ppl.sample("x", ppl.dist.Normal(0.05 * z, 1.0), obs=x)

    return pplebm.Program(model, data=np.zeros(2, np.float32), backend=backend)


def sampled(program, data, starts, n_draws=200):
    init = {"z": program.ppl.asarray(np.asarray(starts, np.float32))}
    return sample(program, hmc(4, 0.1), data, init=init, n_warmup=0, n_draws=n_draws)


@pytest.mark.parametrize("backend", BACKENDS)
def test_modes_seen_and_unseen(backend):
    program, x = double_well(backend), np.zeros(2, np.float32)
    between = diagnose(sampled(program, x, [4, 4, -4, 4, 4, 4, 4, 4]))  # chain 1 of datum 0
    assert between.causes == ["modes"] and between.findings[0].data == (0,) and "tempering" in between.verdict[0]
    unseen = sampled(program, x, [4] * 8)
    found = diagnose(unseen)
    assert (
        found.causes == ["elsewhere"] and found.findings[0].data == (0, 1) and max(r.r_hat for r in found.rows) < 1.05
    )
    assert "unconstrained z" in found.verdict[0] and diagnose(unseen, n_elsewhere=0).verdict == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_chains_at_a_minor_place_should_start_elsewhere(backend):
    found = diagnose(sampled(double_well(backend, 2.0), None, [-4] * 4))
    assert found.causes == ["start"] and "minor place" in found.verdict[0] and found.findings[0].data == ()


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_found_elsewhere_of_one_mode(backend):
    program, params, _ = instance(backend)
    draws = sample(program, hmc(4), params=params, n_chains=4, n_draws=1000, n_warmup=200)
    assert diagnose(draws).verdict == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_float32_rounds_away_is_told(backend):
    """(10^4 + z)^2 - 10^8 - ... is zero but for rounding, by about 8."""
    ppl = load_backend(backend)

    def model(x):
        with ppl.plate("data", len(x)):
            z = ppl.sample("z", ppl.dist.Normal(0.0, 1.0))
            ppl.tilt("f", (1e4 + z) ** 2 - 1e8 - 2e4 * z - z**2)
            ppl.sample("x", ppl.dist.Normal(z, 1.0), obs=x)

    program = pplebm.Program(model, data=np.zeros(2, np.float32), backend=backend)
    found = diagnose(sample(program, hmc(4), np.zeros(2, np.float32), n_draws=200, n_warmup=100, init="normal"))
    assert found.causes == ["rounding"] and "float64" in found.verdict[0] and found.findings[0].data == (0, 1)


def test_latents_that_float32_is_too_coarse_for_are_told(program):
    _, z, stats = chains(0)
    z[..., 3] = 1e6 + 0.05 * z[..., 3]
    found = diagnose(as_draws(program, z, stats), n_elsewhere=0)
    assert found.causes == ["rounding"] and "z[3] moves in steps of 0.062" in found.verdict[0]
