"""Kernels x targets: exact kernels keep the target, unadjusted ones have the law that their formulas say."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from targets import LAMBDA, MEAN, SKEWED, TARGETS, assert_same_law, by_quadrature, rows_of, stationary

from pplebm.errors import PplebmError
from pplebm.kernels.adaptation import adapting
from pplebm.kernels.adaptive_hmc import adaptive_hmc
from pplebm.kernels.adjusted_anisotropic import adjusted_anisotropic
from pplebm.kernels.anisotropic import anisotropic
from pplebm.kernels.ascent import ascent
from pplebm.kernels.hmc import hmc
from pplebm.kernels.kernel import Score
from pplebm.kernels.langevin import langevin
from pplebm.kernels.mala import mala
from pplebm.kernels.mams import mams
from pplebm.kernels.schedules import geometric
from pplebm.kernels.strength import with_strength
from pplebm.kernels.tempering import parallel_tempering
from pplebm.kernels.tuned import tuned
from pplebm.kernels.underdamped import underdamped
from pplebm.kernels.unrolled import unrolled
from pplebm.kernels.uphill import uphill
from pplebm.kernels.warming import warming
from pplebm.sampling import chains

N = 10_000  # chains; all tolerances follow from it
EXACT = {
    "mala": mala,
    "mala, scaled": lambda s: mala(s, scale={"a": 1.3, "": 0.7}),
    "adjusted anisotropic": lambda s: adjusted_anisotropic(1.2 * s, 0.8),
    "hmc": lambda s: hmc(4, 0.7 * s),
    "hmc without jitter": lambda s: hmc(3, 0.7 * s, jitter=0.0),
    "hmc, scaled": lambda s: hmc(3, 0.7 * s, scale={"a": 0.8, "": 1.2}),
}
TRAJECTORIES = {"adaptive_hmc": adaptive_hmc, "mams": mams}  # without warm-up, of 1, 8, 4, 12 and 2 steps
PAIRS = [(name, target) for name in EXACT for target in TARGETS]
PAIRS += [(name, target) for name in TRAJECTORIES for target in [*TARGETS, SKEWED]
          if name != "mams" or target.name not in ("gumbel", "tilted mixture")]  # fmt: skip
EXACT |= {name: lambda s, make=make: make(0.7 * s) for name, make in TRAJECTORIES.items()}


def run(ppl, kernel, z, log_density, n_steps, seed=0):
    state = kernel.init(ppl, z, log_density)
    go = ppl.compiled(lambda key, state: chains.run(ppl, key, state, log_density, kernel, n_steps))
    return go(ppl.key(seed), state)


def gaussian(ppl, precision=1.0, mean=0.0):
    return lambda z: -0.5 * precision * ((z["a"] - mean) ** 2)[:, 0]


@pytest.mark.parametrize(("name", "target"), PAIRS, ids=lambda part: getattr(part, "name", part))
def test_exact_kernels_keep_the_target(ppl, name, target):
    """Chains that start at exact draws are exact draws after any number of steps: no bias, no burn-in."""
    kernel, start = EXACT[name](target.step_size), target.draw(np.random.default_rng(1), N)
    state, info = run(ppl, kernel, target.latents(ppl, start), lambda z: target.log_density(ppl, z), 5)
    assert 0.3 < ppl.to_numpy(info.accept_prob).mean() < 0.99
    got = rows_of(ppl, state.z)
    assert np.abs(got - start).mean() > 0.3
    assert_same_law(got, target.draw(np.random.default_rng(2), N))


@pytest.mark.parametrize("name", sorted(set(EXACT) - {"hmc without jitter", *TRAJECTORIES}))  # which returns; below
def test_exact_kernels_find_the_target_from_afar(ppl, name):
    target = TARGETS[0]
    start = target.latents(ppl, np.full((N, 3), 3.0))
    state, _ = run(ppl, EXACT[name](target.step_size), start, lambda z: target.log_density(ppl, z), 100)
    assert_same_law(rows_of(ppl, state.z), target.draw(np.random.default_rng(2), N))


@pytest.mark.parametrize("wrong", ["always accepted", "drift reversed", "drift doubled"])
def test_a_wrong_kernel_is_noticed(ppl, wrong):
    """The first test above fails for a chain that accepts everything or drifts wrongly."""
    target = TARGETS[1]
    factor = {"always accepted": 1.0, "drift reversed": -1.0, "drift doubled": 2.0}[wrong]
    kernel = langevin(target.step_size)
    start = target.latents(ppl, target.draw(np.random.default_rng(1), N))
    state, _ = run(ppl, kernel, start, lambda z: factor * target.log_density(ppl, z), 5)
    with pytest.raises(AssertionError, match="standard errors"):
        assert_same_law(rows_of(ppl, state.z), target.draw(np.random.default_rng(2), N))


@pytest.mark.parametrize("make", [mala, partial(hmc, 3)], ids=["mala", "hmc"])
def test_temperature_is_the_power_of_the_target(ppl, make):
    start = {"a": ppl.asarray(np.random.default_rng(0).normal(1.0, np.sqrt(0.25), size=(N, 1)))}
    state, _ = run(ppl, make(step_size=0.5, temperature=0.25), start, gaussian(ppl, mean=1.0), 10)
    assert_same_law(rows_of(ppl, state.z), np.random.default_rng(2).normal(1.0, 0.5, size=(N, 1)))


def test_one_leapfrog_step_is_mala(ppl):
    """Two derivations of one acceptance probability."""
    target = TARGETS[3]
    z = target.latents(ppl, target.draw(np.random.default_rng(0), 50))
    log_density = lambda z: target.log_density(ppl, z)
    one, other = mala(0.7, scale=1.2), hmc(1, 0.7, scale=1.2, jitter=0.0)
    noise = one.noise(ppl, ppl.key(3), z)
    a, a_info = one.move(ppl, noise, one.init(ppl, z, log_density), log_density)
    noise = {"accept": noise["accept"], "momentum": noise["step"]}
    b, b_info = other.move(ppl, noise, other.init(ppl, z, log_density), log_density)
    np.testing.assert_allclose(rows_of(ppl, a.z), rows_of(ppl, b.z), atol=1e-5)
    np.testing.assert_allclose(ppl.to_numpy(a_info.accept_prob), ppl.to_numpy(b_info.accept_prob), rtol=1e-3, atol=1e-5)


def test_leapfrog_is_reversible_and_of_second_order(ppl):
    """The energy error falls by four when the step is halved, over the same time."""
    target, log_density = TARGETS[1], lambda z: TARGETS[1].log_density(ppl, z)
    z = target.latents(ppl, np.array([[0.3], [1.5], [-0.8]]))
    errors = []
    for n, s in ((8, 0.1), (16, 0.05)):
        kernel = hmc(n, s, jitter=0.0)
        noise = {"accept": {"first": ppl.asarray(np.full(3, 9.0)), "second": ppl.asarray(np.zeros(3))},
                 "momentum": {"a": ppl.asarray(np.array([[1.0], [-0.7], [0.4]]))}}  # fmt: skip
        _, info = kernel.move(ppl, noise, kernel.init(ppl, z, log_density), log_density)
        before = 0.5 * np.array([1.0, 0.49, 0.16]) - ppl.to_numpy(log_density(z))
        errors.append(np.abs(ppl.to_numpy(info.energy) - before))
    assert (errors[0] / errors[1] > 3.0).all()


def test_a_trajectory_that_breaks_is_counted_and_stays(ppl):
    z = {"a": ppl.asarray(np.array([[0.1], [30.0]]))}
    log_density = lambda z: -0.25 * (z["a"] ** 4)[:, 0]
    for kernel in (hmc(5, 0.5), mala(0.5)):
        state, _ = run(ppl, kernel, z, log_density, 5)
        assert ppl.to_numpy(state.z["a"])[1, 0] == 30.0
        assert ppl.to_numpy(state.n_divergent)[0] == 0
        if kernel.settings[0] == "hmc":
            assert ppl.to_numpy(state.n_divergent)[1] == 5


# --- underdamped


def baoab_law(n_steps, h, friction, mean=0.0, precision=1.0, temperature=1.0):
    """Mean and covariance of (z, p) after n steps from z ~ N(0, 1) at rest, by the linear recursion."""
    kick, drift = np.array([[1.0, 0.0], [-0.5 * h * precision, 1.0]]), np.array([[1.0, 0.5 * h], [0.0, 1.0]])
    keep = np.exp(-friction * h)
    ou, noise = np.diag([1.0, keep]), np.diag([0.0, (1.0 - keep**2) * temperature])
    m, c = np.array([-mean, 0.0]), np.diag([1.0, 0.0])
    for _ in range(n_steps):
        for step, added in ((kick, 0), (drift, 0), (ou, noise), (drift, 0), (kick, 0)):
            m, c = step @ m, step @ c @ step.T + added
    return m[0] + mean, c[0, 0], c[1, 1]


@pytest.mark.parametrize("n_steps", [1, 4, 40])
@pytest.mark.parametrize(("h", "friction", "temperature"), [(0.8, 1.0, 1.0), (0.5, 0.2, 1.0), (1.0, 5.0, 0.3)])
def test_law_of_underdamped_after_k_steps(ppl, n_steps, h, friction, temperature):
    start = {"a": ppl.normal_like(ppl.key(9), {"a": ppl.asarray(np.zeros((N, 1)))})["a"]}
    kernel = underdamped(h, friction, temperature)
    state, _ = run(ppl, kernel, start, gaussian(ppl, 1.7, 0.6), n_steps)
    mean, variance, momentum = baoab_law(n_steps, h, friction, 0.6, 1.7, temperature)
    got, p = rows_of(ppl, state.z), rows_of(ppl, state.momentum)
    assert abs(got.mean() - mean) < 5 * np.sqrt(variance / N)
    assert abs(got.var() - variance) < 5 * variance * np.sqrt(2 / N)
    assert abs(p.var() - momentum) < 5 * momentum * np.sqrt(2 / N)


def test_underdamped_is_unbiased_on_a_gaussian_even_at_a_large_step():
    """What sets BAOAB apart from other splittings."""
    _, variance, _ = baoab_law(2000, 1.2, 0.7, precision=1.5)
    assert variance == pytest.approx(1 / 1.5, rel=1e-10)


def test_underdamped_on_an_asymmetric_target(ppl):
    target = TARGETS[1]
    start = target.latents(ppl, target.draw(np.random.default_rng(1), N))
    kernel, log_density = underdamped(0.1), lambda z: target.log_density(ppl, z)
    state = kernel.init(ppl, start, log_density)
    moving = state._replace(momentum=ppl.normal_like(ppl.key(5), start))
    state, _ = ppl.compiled(lambda s: chains.run(ppl, ppl.key(0), s, log_density, kernel, 40))(moving)
    assert_same_law(rows_of(ppl, state.z), target.draw(np.random.default_rng(2), N))


# --- anisotropic


@pytest.mark.parametrize("correction", [True, False])
def test_anisotropic_against_quadrature_and_the_published_bias(ppl, correction):
    """On N(0, 1) with b = 0.5: E z² = 1 with the divergence, 1.786 as published; each with its step-size bias."""
    s, b, grid = 0.3, 0.5, np.linspace(-7, 7, 1201)
    gamma = s**2 * b / np.maximum(b, np.abs(grid))
    bend = np.where(np.abs(grid) > b, -(s**2) * b * np.sign(grid) / np.maximum(grid**2, 1e-9), 0.0)
    law = stationary(grid, -0.5 * gamma * grid + 0.5 * correction * bend, np.sqrt(gamma))
    expected, fourth = (law * grid**2).sum(), (law * grid**4).sum()
    assert expected == pytest.approx(1.0 if correction else 1.786, rel=0.08)
    start = {"a": ppl.asarray(np.random.default_rng(0).choice(grid, p=law, size=(N, 1)))}
    state, _ = run(ppl, anisotropic(s, b, correction), start, gaussian(ppl), 60)
    assert abs((rows_of(ppl, state.z) ** 2).mean() - expected) < 5 * np.sqrt((fourth - expected**2) / N)


def test_divergence_of_several_coordinates_and_sites(ppl):
    """One step without noise against derivatives by finite differences."""
    target, s, b, e = TARGETS[0], 0.8, 0.4, 1e-3
    rows = target.draw(np.random.default_rng(4), 6)
    log_density = lambda z: target.log_density(ppl, z)
    kernel = anisotropic(s, b)
    z = target.latents(ppl, rows)
    nothing = {k: 0.0 * a for k, a in z.items()}
    state, _ = kernel.move(ppl, nothing, kernel.init(ppl, z, log_density), log_density)

    def gamma(rows):
        return s**2 * b / np.maximum(b, np.abs(-(rows - MEAN) @ LAMBDA))

    gradient = -(rows - MEAN) @ LAMBDA
    bend = np.stack([(gamma(rows + e * u) - gamma(rows - e * u))[:, i] / (2 * e) for i, u in enumerate(np.eye(3))], 1)
    expected = rows + 0.5 * gamma(rows) * gradient + 0.5 * bend
    np.testing.assert_allclose(rows_of(ppl, state.z), expected, atol=2e-4)


# --- tempering


def linear_tilt(z, tilt_strength=1.0):
    """N(0, 1) tilted by 3z: at strength β it is N(3β, 1), so every replica has a known law."""
    return -0.5 * (z["a"] ** 2)[:, 0] + tilt_strength * 3.0 * z["a"][:, 0]


@pytest.mark.parametrize("inner", [mala(1.0), hmc(2, 0.8)], ids=["mala", "hmc"])
def test_tempering_keeps_the_law_of_every_strength(ppl, inner):
    strengths = (0.0, 0.2, 0.6, 1.0)
    start = np.concatenate([np.random.default_rng(i).normal(3 * b, 1.0, (N, 1)) for i, b in enumerate(strengths)])
    kernel = parallel_tempering(inner, strengths)
    state, info = run(ppl, kernel, {"a": ppl.asarray(start)}, linear_tilt, 7)
    assert 0.2 < ppl.to_numpy(info.is_swapped).mean() < 0.9
    for i, strength in enumerate(strengths):
        got = rows_of(ppl, state.z)[i * N : (i + 1) * N]
        assert_same_law(got, np.random.default_rng(10 + i).normal(3 * strength, 1.0, (N, 1)))


def test_tempering_crosses_where_hmc_cannot(ppl):
    """Modes at ±4, separated by 20 nats that the tilt alone makes; weights by quadrature."""

    def tilt(z):
        return -0.08 * (z**2 - 16.0) ** 2 + 0.5 * z

    def log_density(z, tilt_strength=1.0):
        return -0.05 * (z["a"] ** 2)[:, 0] + tilt_strength * tilt(z["a"])[:, 0]

    draw = by_quadrature(lambda z: -0.05 * z**2 + tilt(z))
    share = (draw(np.random.default_rng(0), 200_000) < 0).mean()
    n, strengths = 2000, (0.0, 0.02, 0.06, 0.2, 0.5, 1.0)
    start = {"a": ppl.asarray(np.full((n, 1), 4.0))}
    stuck, _ = run(ppl, hmc(5, 0.2), start, log_density, 300)
    assert (rows_of(ppl, stuck.z) < 0).mean() == 0.0 < share
    rows = {"a": ppl.asarray(np.full((6 * n, 1), 4.0))}
    state, _ = run(ppl, parallel_tempering(hmc(5, 0.2), strengths), rows, log_density, 600)
    got = rows_of(ppl, state.z)[-n:]
    assert abs((got < 0).mean() - share) < 5 * np.sqrt(share * (1 - share) / n)


# --- scores, ascent, unrolled


@pytest.mark.parametrize("kernel", [langevin(0.3), underdamped(0.3)], ids=["langevin", "underdamped"])
def test_a_score_moves_as_its_log_density_does(ppl, kernel):
    target = TARGETS[3]
    z = target.latents(ppl, target.draw(np.random.default_rng(0), 20))
    log_density = lambda z: target.log_density(ppl, z)
    score = Score(lambda z: ppl.value_and_grad(log_density, z)[1])
    a, b = (run(ppl, kernel, z, t, 3)[0] for t in (log_density, score))
    np.testing.assert_allclose(rows_of(ppl, a.z), rows_of(ppl, b.z), rtol=1e-5)


NEED_A_DENSITY = [mala(), hmc(), anisotropic(0.1, 1.0), parallel_tempering(mala())]


@pytest.mark.parametrize("kernel", NEED_A_DENSITY, ids=lambda kernel: kernel.settings[0])
def test_kernels_that_need_a_density_refuse_a_score(ppl, kernel):
    with pytest.raises(PplebmError, match="Score"):
        kernel.init(ppl, {"a": ppl.asarray(np.zeros((2, 1)))}, Score(lambda z: z))


def test_ascent_climbs_to_the_mode(ppl):
    target = TARGETS[0]
    start = target.latents(ppl, np.random.default_rng(0).normal(size=(10, 3)))
    kernel = ascent(geometric(0.2, 0.002, 400))
    state, _ = run(ppl, kernel, start, lambda z: target.log_density(ppl, z), 400)
    np.testing.assert_allclose(rows_of(ppl, state.z), np.tile(MEAN, (10, 1)), atol=0.02)


@pytest.mark.parametrize("by_step", [False, True])
def test_unrolled_has_the_closed_form_law_and_derivative(ppl, by_step):
    """Mean and variance after K steps on N(m, 1/λ), and their derivatives in log s by finite differences."""
    precision, mean, k, log_s = 5.0, 0.8, 6, np.log(0.3)

    def law(log_s):
        m, v = 0.0, 1.0
        for _ in range(k):
            s = np.exp(log_s)
            rho = 1 - 0.5 * s**2 * precision
            m, v = rho * m + (1 - rho) * mean, rho**2 * v + s**2
        return m, v

    z = {"a": ppl.normal_like(ppl.key(1), {"a": ppl.asarray(np.zeros((N, 1)))})["a"]}

    def moments(params, power):
        s = ppl.exp(params["log_s"])
        s = s + ppl.asarray(np.zeros(k)) if by_step else s
        return (unrolled(ppl, ppl.key(2), z, gaussian(ppl, precision, mean), k, s)["a"] ** power).mean()

    m, v = law(log_s)
    e = 1e-4
    dm, dv = ((a - b) / (2 * e) for a, b in zip(law(log_s + e), law(log_s - e), strict=True))
    first, d_first = ppl.value_and_grad(lambda p: moments(p, 1), {"log_s": ppl.asarray(log_s)})
    second, d_second = ppl.value_and_grad(lambda p: moments(p, 2), {"log_s": ppl.asarray(log_s)})
    assert abs(float(first) - m) < 5 * np.sqrt(v / N)
    assert abs(float(second) - (v + m**2)) < 5 * np.sqrt((2 * v**2 + 4 * m**2 * v) / N)
    assert abs(float(d_first["log_s"]) - dm) < 10 * np.sqrt(v / N)
    assert abs(float(d_second["log_s"]) - (dv + 2 * m * dm)) < 10 * np.sqrt(2 * v / N)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda p: mala(0.0), "step_size"),
        (lambda p: mala(temperature=0.0), "temperature"),
        (lambda p: hmc(0), "n_leapfrog"),
        (lambda p: hmc(jitter=1.0), "jitter"),
        (lambda p: hmc(step_size=-1.0), "step_size"),
        (lambda p: underdamped(friction=-1.0), "friction"),
        (lambda p: underdamped(0.0), "step_size"),
        (lambda p: anisotropic(0.1, 0.0), "threshold"),
        (lambda p: ascent(-0.1), "learning_rate"),
        (lambda p: uphill(0.0), "step_size"),
        (lambda p: geometric(1.0, 0.0, 3), "stop"),
        (lambda p: parallel_tempering(hmc(), (0.5, 0.2, 1.0)), "strengths"),
        (lambda p: parallel_tempering(hmc(), (0.0, 0.5)), "strengths"),
        (lambda p: parallel_tempering(langevin(0.1)), "inner"),
        (lambda p: mala(scale={"other": 1.0}).init(p, {"a": p.asarray(np.zeros((1, 1)))}, gaussian(p)), "'a'"),
        (lambda p: parallel_tempering(hmc()).init(p, {"a": p.asarray(np.zeros((7, 1)))}, linear_tilt), "rows"),
    ],
)
def test_bad_settings_are_named(ppl, make, word):
    with pytest.raises(PplebmError, match=word):
        make(ppl)


MAKERS = {
    "langevin": lambda s: langevin({"a": [s, 0.1], "": 0.2}, np.array([1.0, 0.5])),
    "underdamped": lambda s: underdamped(s, temperature=[1.0, 0.5]),
    "anisotropic": lambda s: anisotropic(s, 1.0),
    "mala": lambda s: mala(s, scale={"a": np.ones(2)}),
    "adjusted anisotropic": lambda s: adjusted_anisotropic(s, 1.0),
    "uphill": uphill,
    "tuned": lambda s: tuned(mala(s), 3),
    "with strength": lambda s: with_strength(mala(s)),
    "hmc": lambda s: hmc(4, s, scale=np.ones((2, 1))),
    "ascent": lambda s: ascent([s, 0.1]),
    "tempering": lambda s: parallel_tempering(hmc(4, s), [0.0, 1.0]),
    "adapting": lambda s: adapting(mala(s), (1, 4, 2)),
    "adaptive hmc": adaptive_hmc,
    "mams": lambda s: mams(s, metric="dense"),
    "warming": lambda s: warming(mams(s), (1, 4, 2)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_settings_decide_equality(make):
    """What is compiled for a kernel serves every kernel of equal settings, and no other."""
    assert make(0.3) == make(0.3) and len({make(0.3), make(0.3), make(0.4)}) == 2


@pytest.mark.parametrize("s", [0.05, 20.0])
def test_a_tuned_chain_finds_its_step_and_has_the_law_of_the_target(ppl, s):
    """Of a skewed one, from afar and from a step size that is far off."""
    target = next(t for t in TARGETS if t.name == "gumbel")
    log_density, kernel = lambda z: target.log_density(ppl, z), tuned(mala(s), 60)
    state, _ = run(ppl, kernel, target.latents(ppl, np.full((N, 1), 4.0)), log_density, 60)
    end, info = chains.run(ppl, ppl.key(1), state, log_density, kernel, 100)
    assert (ppl.to_numpy(end.step_size) == ppl.to_numpy(state.step_size)).all()
    assert 0.4 < ppl.to_numpy(info.accept_prob).mean() < 0.8
    assert_same_law(rows_of(ppl, end.z), target.draw(np.random.default_rng(2), N))


def test_uphill_takes_steps_that_lead_up_and_no_others(ppl):
    """To the mode of a skewed density at 0, from steps that are far too long as well."""
    target = next(t for t in TARGETS if t.name == "gumbel")
    log_density, start = lambda z: target.log_density(ppl, z), target.latents(ppl, np.array([[2.0], [-1.5]]))
    for s in (0.5, 100.0):
        end, _ = run(ppl, uphill(s), start, log_density, 80)
        assert np.abs(rows_of(ppl, end.z)).max() < 1e-2
    held, info = run(ppl, uphill(100.0), start, log_density, 3)
    assert (rows_of(ppl, held.z) == rows_of(ppl, start)).all() and not ppl.to_numpy(info.is_accepted).any()
