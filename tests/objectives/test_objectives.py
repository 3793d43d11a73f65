"""Objectives against closed forms on the conjugate model: values, gradients, and what their minima are."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from linear_gaussian import CASES, as_numpy, exact_gradient, instance, log_evidence, sigma_points, split
from scipy.optimize import minimize, minimize_scalar

import pplebm
import pplebm.backends.pyro as ppl
from pplebm.errors import PplebmError
from pplebm.guides.amortized import amortized
from pplebm.guides.guide import Guide
from pplebm.kernels.langevin import langevin
from pplebm.objectives.elbo import elbo, iwae, untilted_elbo
from pplebm.objectives.mmd import info_vae, mmd
from pplebm.objectives.nce import nce, telescoped
from pplebm.objectives.score_matching import dsm
from pplebm.objectives.short_run_divergence import run_divergence
from pplebm.sampling.chains import short_run

pytestmark = pytest.mark.usefixtures("float64")


def exact_guide(page, program, hyper, values, widen=1.0):
    """The posterior of the conjugate model as a guide, its standard deviations times `widen`."""
    d1, width = hyper.d1, program.example.shape[1]
    law = page.closed_form(values, hyper, np.zeros(width))
    units = [page.closed_form(values, hyper, e).mean - law.mean for e in np.eye(width)]
    means, intercept = torch.as_tensor(np.array(units)), torch.as_tensor(law.mean)
    c = law.covariance
    slope = c[d1:, :d1] @ np.linalg.inv(c[:d1, :d1])
    rest = c[d1:, d1:] - slope @ c[:d1, d1:]
    roots = [widen * torch.as_tensor(np.linalg.cholesky(a)) for a in (c[:d1, :d1], rest)]
    slope = torch.as_tensor(slope)

    def guide(x):
        mean = x @ means + intercept
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.MultivariateNormal(mean[:, :d1], scale_tril=roots[0]))
            centre = mean[:, d1:] + (z1 - mean[:, :d1]) @ slope.T
            pyro.sample("z2", dist.MultivariateNormal(centre, scale_tril=roots[1]))

    return Guide(program, guide)


def sigma_noise(d, n_data):
    """Noise at which averages of quadratics are exact, for each of n data: rows point by point."""
    points = np.sqrt(d) * np.concatenate([np.eye(d), -np.eye(d)])
    return np.repeat(points, n_data, axis=0), 2 * d


@pytest.mark.parametrize("case", CASES)
def test_elbo_of_the_exact_posterior_is_the_evidence_whatever_is_drawn(case):
    page, program, hyper, params, x = instance(*case)
    guide, data = exact_guide(page, program, hyper, as_numpy(params)), torch.as_tensor(x)
    negative = split(sigma_points(page.closed_form(as_numpy(params), hyper)), hyper.d1)
    log_z = page.closed_form(as_numpy(params), hyper).log_constant
    expected = np.mean([log_evidence(page, as_numpy(params), hyper, datum) for datum in x])
    for key in range(3):
        _, aux = elbo(program, guide, params, data, guide.noise(key, 4), negative)
        assert float(aux.bound) - log_z == pytest.approx(expected, abs=1e-8)
        _, aux = iwae(program, guide, params, data, guide.noise(key, 12), 3, negative)
        assert float(aux.bound) - log_z == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_gradient_of_the_elbo_is_that_of_the_evidence_at_the_exact_posterior(case):
    page, program, hyper, params, x = instance(*case)
    values, d = as_numpy(params), hyper.d1 + hyper.d2
    guide = exact_guide(page, program, hyper, values)
    points, n = sigma_noise(d, len(x))
    noise, data = split(points, hyper.d1), torch.as_tensor(np.tile(x, (n, 1)))
    negative = split(sigma_points(page.closed_form(values, hyper)), hyper.d1)
    _, gradient = ppl.value_and_grad(lambda p: elbo(program, guide, p, data, noise, negative)[0], params)
    for name, expected in exact_gradient(page, hyper, values, x).items():
        np.testing.assert_allclose(-gradient[name].numpy(), expected, atol=1e-6, err_msg=name)
    # without the negative phase it is not
    _, gradient = ppl.value_and_grad(lambda p: -elbo(program, guide, p, data, noise, negative)[1].bound, params)
    assert np.abs(-gradient["c2"].numpy() - exact_gradient(page, hyper, values, x)["c2"]).max() > 0.01


def test_the_guides_gradient_is_zero_at_the_posterior_and_the_tilt_can_be_kept_from_it():
    page, program, hyper, params, x = instance(*CASES[2])
    guide, data = amortized(program, family="mean_field", width=8, depth=1), torch.as_tensor(x)
    negative, noise = split(sigma_points(page.closed_form(as_numpy(params), hyper)), hyper.d1), guide.noise(0, 4)
    both = params | guide.params

    def gradient(**settings):
        return ppl.value_and_grad(lambda p: elbo(program, guide, p, data, noise, negative, **settings)[0], both)[1]

    pulled, kept = gradient(), gradient(tilt_to_guide=False)
    twin = ppl.value_and_grad(lambda p: untilted_elbo(program, guide, p, data, noise)[0], both)[1]
    for name in both:
        if name.startswith("guide."):
            np.testing.assert_allclose(kept[name], twin[name], atol=1e-10)
            assert (pulled[name] - kept[name]).abs().max() > 1e-6
        else:
            np.testing.assert_allclose(pulled[name], kept[name], atol=1e-10)


def test_iwae_rises_to_the_evidence():
    page, program, hyper, params, x = instance(*CASES[1])
    guide, data = exact_guide(page, program, hyper, as_numpy(params), widen=1.5), torch.as_tensor(x)
    law = page.closed_form(as_numpy(params), hyper)
    negative = split(sigma_points(law), hyper.d1)
    evidence = np.mean([log_evidence(page, as_numpy(params), hyper, datum) for datum in x])
    bounds, errors = [], []
    for k in (1, 4, 32):
        found = [
            float(iwae(program, guide, params, data, guide.noise(key, 4 * k), k, negative)[1].bound) - law.log_constant
            for key in range(200)
        ]
        bounds.append(np.mean(found))
        errors.append(np.std(found) / np.sqrt(200))
    assert bounds[0] + 4 * errors[0] < bounds[1] and bounds[1] + 4 * errors[1] < bounds[2]
    assert bounds[0] < evidence - 0.2 and abs(bounds[-1] - evidence) < 0.01 + 5 * errors[-1]


@pytest.mark.slow
def test_plain_variational_inference_runs_off_on_a_tilt_and_ours_does_not():
    """A constant tilt changes no density: the published evidence that a factor without log Z diverges."""

    def model(x):
        c = pyro.param("c", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pplebm.tilt("f", c + 0.0 * z)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide_program(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(pyro.param("m", torch.tensor(0.5)) * x, 0.7))

    x = torch.linspace(-2.0, 2.0, 8)
    program = pplebm.Program(model, data=x)
    guide = Guide(program, guide_program)
    ends = {}
    for ours in (True, False):
        params = program.params | guide.params
        adam = ppl.optimizer().init(params)
        for i in range(200):
            noise, base = guide.noise(i, 8), program.draw_base(i, 8, params)

            def loss(p, noise=noise, base=base, ours=ours):
                value, aux = elbo(program, guide, p, x, noise, base)
                return value if ours else -aux.bound

            gradient = ppl.value_and_grad(loss, params)[1]
            params, adam = ppl.optimizer().update(params, gradient, adam, dict.fromkeys(params, 0.1))
        ends[ours] = float(params["c"])
    assert abs(ends[True]) < 1e-6 and ends[False] > 10.0


def test_info_is_the_elbo_at_alpha_0_weight_1_and_drops_the_kl_at_alpha_1():
    page, program, hyper, params, x = instance(*CASES[2])
    guide, data = amortized(program, width=8, depth=1), torch.as_tensor(x)
    negative, noise = split(sigma_points(page.closed_form(as_numpy(params), hyper))[:4], hyper.d1), guide.noise(0, 4)
    both = params | guide.params
    one = ppl.value_and_grad(lambda p: elbo(program, guide, p, data, noise, negative)[0], both)
    other = ppl.value_and_grad(lambda p: info_vae(program, guide, p, data, noise, negative, 0.0, 1.0)[0], both)
    np.testing.assert_allclose(one[0], other[0], rtol=1e-10)
    for name in both:
        np.testing.assert_allclose(one[1][name], other[1][name], atol=1e-9)
    loss, aux = info_vae(program, guide, both, data, noise, negative, 1.0, 0.0)
    assert float(loss) == pytest.approx(-float(aux.phases.log_likelihood))
    with pytest.raises(PplebmError, match="alpha"):
        info_vae(program, guide, both, data, noise, negative, 0.5, 0.1)
    with pytest.raises(PplebmError, match="z3"):
        info_vae(program, guide, both, data, noise, negative, sites=["z3"])


@pytest.mark.parametrize(("d", "bandwidth"), [(2, 2**0.5), (5, 1.0)])
def test_mmd_is_its_gaussian_closed_form_on_average(d, bandwidth):
    rng, found = np.random.default_rng(0), []
    shift = np.arange(1, d + 1) / d
    for _ in range(200):
        a, b = rng.normal(size=(100, d)), 0.5 * rng.normal(size=(80, d)) + shift
        found.append(float(mmd(ppl, torch.as_tensor(a), torch.as_tensor(b), "rbf", bandwidth)))

    def expected(s, delta):
        h2 = bandwidth**2
        return (h2 / (h2 + s)) ** (d / 2) * np.exp(-(delta**2) / (2 * (h2 + s)))

    exact = expected(2.0, 0.0) + expected(0.5, 0.0) - 2 * expected(1.25, np.linalg.norm(shift))
    assert abs(np.mean(found) - exact) < 5 * np.std(found) / np.sqrt(200)
    assert np.std(found) / np.sqrt(200) < 0.03 * exact


@pytest.mark.slow
@pytest.mark.parametrize("precision", [5.0, 50.0, 500.0])
def test_learned_step_sizes_land_on_the_closed_form(precision):
    """K = 20 steps from N(0, 1) towards N(m, 1/λ), m spread as posterior means are under an N(0, 1) prior."""
    spread, k = 1.0 - 1.0 / precision, 20

    def divergence(s):
        rho = 1.0 - s**2 * precision / 2
        variance = rho ** (2 * k) + s**2 * (1 - rho ** (2 * k)) / (1 - rho**2)
        return 0.5 * precision * (variance + spread * rho ** (2 * k)) - 0.5 * np.log(variance)

    exact = minimize_scalar(divergence, bounds=(0.3 / precision**0.5, 1.9 / precision**0.5), method="bounded").x
    assert exact == pytest.approx({5.0: 0.270, 50.0: 0.096, 500.0: 0.033}[precision], rel=0.015)
    points = torch.as_tensor(sigma_noise(k + 2, 1)[0])  # start, mean and noise: averages of quadratics are exact
    exactly = SimpleNamespace(**vars(ppl))
    exactly.split, exactly.normal_like = lambda key, n: range(n), lambda i, z: {"z": points[:, 2 + i]}
    start, log_density = {"z": points[:, 0]}, lambda z: -0.5 * precision * (z["z"] - spread**0.5 * points[:, 1]) ** 2
    loss = lambda p: run_divergence(exactly, 0, start, log_density, log_density, k, ppl.exp(p["log_s"])).mean()

    def value_and_slope(log_s):
        value, gradient = ppl.value_and_grad(loss, {"log_s": torch.as_tensor(log_s[0])})
        return float(value), np.array([float(gradient["log_s"])])

    learned = minimize(value_and_slope, [np.log(0.5 / precision**0.5)], jac=True, method="BFGS")
    assert np.exp(learned.x[0]) == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("entropy", ["linear", "fixed_noise"])
def test_the_entropy_of_a_run_is_its_log_determinant(entropy):
    """Two sites, an asymmetric density: against automatic differentiation of the whole run."""

    def log_density(z):
        return -0.25 * z["a"].pow(4).sum(-1) - (z["b"] - z["a"][:, 0] ** 2) ** 2 - 0.3 * z["b"]

    z = ppl.normal_like(3, {"a": torch.zeros(2, 2), "b": torch.zeros(2)})
    sizes, n = {"a": torch.tensor(0.2), "b": torch.tensor([0.1, 0.3, 0.2])}, 3
    found = run_divergence(ppl, 7, z, log_density, log_density, n, sizes, entropy).detach()
    noise = [ppl.normal_like(k, z) for k in ppl.split(7, n)]

    def end(flat, row, xi):
        at = {"a": flat[None, :2], "b": flat[None, 2]}
        for k in range(n):
            g = torch.func.grad(lambda q: log_density(q).sum())(at)
            s = {"a": 0.2, "b": float(sizes["b"][k])}
            at = {c: v + 0.5 * s[c] ** 2 * g[c] + s[c] * xi[k][c] for c, v in at.items()}
        return torch.cat([at["a"][0], at["b"]])

    for row in range(2):
        xi = [{"a": e["a"][row : row + 1], "b": e["b"][row : row + 1]} for e in noise]
        flat = torch.cat([z["a"][row], z["b"][row : row + 1]])
        last = end(flat, row, xi)
        value = log_density({"a": last[None, :2], "b": last[None, 2]})[0]
        j0 = torch.func.jacrev(lambda f, row=row, xi=xi: end(f, row, xi))(flat)
        if entropy == "fixed_noise":
            log_det = torch.linalg.slogdet(j0).logabsdet
        else:
            jx = torch.func.jacrev(lambda q, row=row, flat=flat: end(flat, row, q))(xi)
            parts = [j0] + [torch.cat([e["a"][:, 0], e["b"]], -1) for e in jx]
            joined = torch.cat(parts, -1)
            log_det = 0.5 * torch.linalg.slogdet(joined @ joined.T).logabsdet
        assert float(found[row]) == pytest.approx(float(-value - log_det), abs=1e-9)


def ratio_program(n_tilts, d):
    """N(0, I) with tilts a + b·z + zᵀ C z."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(d), 1.0).to_event(1))
            for i in range(n_tilts):
                a, b = pyro.param(f"a{i}", torch.tensor(0.0)), pyro.param(f"b{i}", torch.zeros(d))
                c = pyro.param(f"c{i}", torch.zeros(d))
                pplebm.tilt(f"f{i}", a + (b * z + c * z**2).sum(-1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    return pplebm.Program(model, data=torch.zeros(3))


@pytest.mark.slow
def test_density_ratios_recover_a_quadratic_and_telescopes_one_far_away():
    """q = N(m, v): log q/p₀ = a + b·z + c·z²; a telescope is nearer where one classifier sees no overlap."""
    mean, variance, errors = torch.tensor([2.0, -1.5]), torch.tensor([0.15, 0.25]), {}
    exact = torch.cat([mean / variance, 0.5 - 0.5 / variance])
    for mixing in ((1.0,), (0.35, 0.7, 0.9, 1.0)):
        n = len(mixing)
        program = ratio_program(n, 2)
        objective = partial(nce, program) if n == 1 else partial(telescoped, program, mixing=mixing)
        params, adam = program.params, ppl.optimizer().init(program.params)
        for i in range(1500):
            draws = ppl.normal_like(i, {"q": torch.zeros(500, 2), "base": torch.zeros(500, 2)})
            q, base = {"z": mean + variance**0.5 * draws["q"]}, {"z": draws["base"]}
            gradient = ppl.value_and_grad(partial(objective, positive=q, base=base), params)[1]
            rate = 0.3 * min(1.0, 2.0 * (1.0 - i / 1500))
            params, adam = ppl.optimizer().update(params, gradient, adam, dict.fromkeys(params, rate))
        total = {c: sum(params[f"{c}{i}"] for i in range(n)) for c in "abc"}
        found = torch.cat([total["b"], total["c"]])
        errors[n] = float((found - exact).norm() / exact.norm())
    assert errors[4] < 0.15 and errors[4] < 0.5 * errors[1]


def test_one_density_ratio_recovers_a_quadratic_near_by():
    program = ratio_program(1, 1)
    params, adam = program.params, ppl.optimizer().init(program.params)
    for i in range(600):
        draws = ppl.normal_like(i, {"q": torch.zeros(1000, 1), "base": torch.zeros(1000, 1)})
        q, base = {"z": 0.7 + 0.8 * draws["q"]}, {"z": draws["base"]}
        gradient = ppl.value_and_grad(lambda p, q=q, base=base: nce(program, p, q, base), params)[1]
        rate = 0.05 * min(1.0, 2.0 * (1.0 - i / 600))
        params, adam = ppl.optimizer().update(params, gradient, adam, dict.fromkeys(params, rate))
    exact = (-np.log(0.8) - 0.5 * 0.49 / 0.64, 0.7 / 0.64, 0.5 - 0.5 / 0.64)
    assert [float(params[n].sum()) for n in ("a0", "b0", "c0")] == pytest.approx(exact, abs=0.06)
    with pytest.raises(PplebmError, match="mixing"):
        telescoped(program, params, q, base, (0.5, 1.0))


def test_denoising_score_matching_has_the_exact_score_as_its_minimum():
    """z ~ N(m, v): the score of z + σε is -(z - m) / (v + σ²); its affine coefficients are found."""
    z = {"z": 0.5 + 0.7 * ppl.normal_like(0, {"z": torch.zeros(40_000)})["z"]}
    noise, sigma = ppl.normal_like(1, z), torch.full((40_000,), 0.6)
    params, adam = {"a": torch.tensor(0.0), "b": torch.tensor(0.0)}, None
    adam = ppl.optimizer().init(params)
    for _ in range(300):
        loss = lambda p: dsm(lambda z, s: {"z": p["a"] + p["b"] * z["z"]}, z, noise, sigma)
        gradient = ppl.value_and_grad(loss, params)[1]
        params, adam = ppl.optimizer().update(params, gradient, adam, dict.fromkeys(params, 0.05))
    v = 0.49 + 0.36
    assert [float(params["a"]), float(params["b"])] == pytest.approx((0.5 / v, -1.0 / v), abs=0.03)


def test_the_noise_space_target_has_mean_zero_where_the_published_one_has_not():
    """z1 = exp(a ε2) ε1 without tilt: the base. Keeping -log σ without its Jacobian moves E ε2 to -a."""
    a = 0.72

    def model(x):
        with pyro.plate("data", len(x)):
            z2 = pyro.sample("z2", dist.Normal(0.0, 1.0))
            z1 = pyro.sample("z1", dist.Normal(0.0, (a * z2).exp()))
            pplebm.tilt("f", 0.0 * z1)
            pyro.sample("x", dist.Normal(z1, 1.0), obs=x)

    program = pplebm.Program(model, data=torch.zeros(3))
    kernel = langevin(0.3)
    z, _ = short_run(program, 0, program.params, 20_000, kernel, 200)
    assert abs(float(z["z2"].mean())) < 5 / np.sqrt(20_000)

    moving = program.with_coordinates("noncentered")

    def published(eps):
        return moving.log_density(program.params)(eps) - a * eps["z2"]  # log p(z1|z2) at z(ε), Jacobian missing

    state = kernel.init(ppl, ppl.normal_like(1, z), published)
    for k in ppl.split(2, 200):
        state, _ = kernel(ppl, k, state, published)
    assert float(state.z["z2"].mean()) == pytest.approx(-a, abs=0.05)


def test_a_tilt_without_negative_draws_is_refused():
    _, program, _, params, x = instance(*CASES[0])
    guide = amortized(program, width=4)
    with pytest.raises(PplebmError, match="negative="):
        elbo(program, guide, params | guide.params, torch.as_tensor(x), guide.noise(0, 4))
    with pytest.raises(PplebmError, match="noise of 3 x 4"):
        iwae(program, guide, params | guide.params, torch.as_tensor(x), guide.noise(0, 4), 3, {})
